"""What the page Train is built of."""
