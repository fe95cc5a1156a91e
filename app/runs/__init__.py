"""What the page Runs is built of."""
