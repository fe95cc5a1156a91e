"""One file = one ratio. `python -m benchmarks` runs them all and writes JSON beside the table."""
