"""One file, one page: choose, load, call, show. No arithmetic, no `open`, no plotly."""
