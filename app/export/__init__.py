"""Figures as files, and what the page Export is built of."""
