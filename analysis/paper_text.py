"""`FigureSpec` as text: the numbers behind a figure as CSV and LaTeX, and the line that leads from a file back to its runs.

Names come from runs and are shown letter by letter: no formula, no line break, nothing that LaTeX or a spreadsheet would execute.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from analysis import spec_json
from analysis.spec import FigureSpec


def plain(word: object, most: int | None = None) -> str:
    """One line of printable letters, at most so many."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(word)).split())
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def about(spec: FigureSpec) -> str:
    """One line that leads from a file back to the runs: figure, runs, n, hash of the rows (of the file that `csv` makes), version, hash of all, origin."""
    rows, runs = hashlib.sha256(csv(spec).encode()).hexdigest(), ", ".join(map(plain, spec.runs)) or "unnamed"
    known = f"figure {spec.name}; runs {runs}; n {spec.n}; rows sha256 {rows}; interplay {version('interplay')}"
    return "; ".join([known, f"spec sha256 {spec_json.fingerprint(spec, rows)}", *([plain(spec.origin)] if spec.origin else [])])


def csv(spec: FigureSpec) -> str:
    """All rows and columns of the data. A word that a spreadsheet would run as a formula gets a quote in front."""
    words = spec.data.select_dtypes(exclude="number").columns
    return spec.data.assign(**{str(name): spec.data[name].map(_harmless) for name in words}).to_csv(index=False, lineterminator="\n")


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def table(spec: FigureSpec) -> str:
    """The strong marks' rows as a LaTeX tabular (booktabs), with the caption and what it rests on as comments.

    Needs `\\usepackage{booktabs}`. Whole numbers are written out, others to four digits, missing ones as two dashes.
    """
    strong = [mark for mark in spec.marks if mark.strong] or list(spec.marks)
    rows = spec.data[spec.data["layer"].isin({mark.layer for mark in strong})]
    rows = rows.iloc[::-1] if spec.y.scale == "category" else rows  # such an axis is filled from below, a table from above
    names = {"series": "series"} if rows["series"].nunique() > 1 else {}
    axes = sorted((axis for axis in (spec.x, spec.y, spec.z, spec.colour) if axis), key=lambda axis: axis.scale != "category")
    names |= {axis.column: axis.text or axis.column for axis in axes}
    names |= {edge: edge for edge in ("low", "high") if edge in rows and any(mark.kind in ("band", "interval", "bar") for mark in strong)}
    printed = rows[list(names)].map(_printed).drop_duplicates().set_axis([plain(name) for name in names.values()], axis=1)
    comments = [f"% {plain(line)}" for line in (spec.title, spec.caption, about(spec), r"needs \usepackage{booktabs}")]
    return "\n".join([*comments, printed.to_latex(index=False, escape=True)])


def _printed(value: Any) -> str:
    number = float(value) if isinstance(value, int | float | np.integer | np.floating) else None
    if number is None:
        return "--" if pd.isna(value) else plain(value)
    if not np.isfinite(number):
        return "--"
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e12 else f"{number:.4g}"
