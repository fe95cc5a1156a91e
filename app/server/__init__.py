"""The server: how it starts, what it refuses, how it looks."""
