"""What the page Replay is built of."""
