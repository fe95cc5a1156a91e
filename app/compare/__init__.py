"""What the page Compare is built of."""
