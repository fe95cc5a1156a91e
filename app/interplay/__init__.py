"""What the page Interplay is built of."""
