"""Runs on disk as pages and commands ask for them."""
