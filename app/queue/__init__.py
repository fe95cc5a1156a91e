"""Jobs: detached processes of the command line, queued, watched and stopped."""
