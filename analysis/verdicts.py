"""The numbers behind the verdicts, each beside what chance would give: one picture for those that are cosines, and one for each claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import report
from analysis.evidence import Recording
from analysis.figures import figure
from analysis.report import Verdict
from analysis.scores import one_of, said
from analysis.spec import Axis, FigureSpec, Mark

Claim = Literal["cosines", "C1", "C2", "C3", "C4", "C5", "C6"]

#: What the number of a claim is, and where it would be if there were nothing: chance has a range of its own around it.
_AXES: dict[str, tuple[Axis, float, str]] = {
    **dict.fromkeys(("cosines", "C1", "C2", "C3"), (Axis("x", "mean cosine"), 0.0, "chance")),
    "C4": (Axis("x", "difference of gains", "SD"), 0.0, "no difference"),
    "C5": (Axis("x", "ratio of times"), 1.0, "no difference"),
    "C6": (Axis("x", "ratio of peak memories"), 1.0, "no difference"),
}
_NOTE = (
    "Each number with its 95 % interval, above what would be found if there were nothing: 95 % of chance for cosines (C1 to C3), no difference for "
    "comparisons. Misleads: one recording shows itself, not other seeds; from three runs on the interval holds their spread."
)


@figure
def verdict_numbers(evidence: Sequence[Recording], *, claim: Claim = "cosines") -> FigureSpec:
    """What the verdicts rest on: each number with its 95 % interval, and what chance would give.

    Raises `ValueError` for an unknown claim, and for runs of different models.
    """
    one_of("claim", claim, _AXES)
    return picture(report.report(evidence), claim, list(dict.fromkeys(one.run for one in evidence)))


def picture(verdicts: Sequence[Verdict], claim: Claim, runs: Sequence[str]) -> FigureSpec:
    """The same from verdicts that have been reached already."""
    axis, nothing, word = _AXES[claim]
    named = {"C1", "C2", "C3"} if claim == "cosines" else {claim}
    told = [one for one in verdicts if one.label in named and np.isfinite(one.value)]
    rows = [row for one in reversed(told) for row in _rows(one, nothing, word)]  # an axis of words is filled from below
    data = pd.DataFrame(rows, columns=["layer", "series", "row", "x", "low", "high", "count"])
    title = "Verdicts on cosines" if claim == "cosines" else report.QUESTIONS[claim]
    numbers = " ".join(f"{one.label}: {one.of} {said(one.value, one.interval, '+.3f')}{_by_chance(one)}." for one in told)
    numbers = numbers or f"Not recorded: nothing that {'C1 to C3' if claim == 'cosines' else claim} could rest on."
    marks = (Mark("interval", "chance"), Mark("interval", "found"))
    axes = axis, Axis("row", "", scale="category")
    return FigureSpec("verdict_numbers", title, data, marks, *axes, f"{_NOTE} {numbers}", f"{title}: {numbers}", len(told), tuple(runs))


def _rows(one: Verdict, nothing: float, word: str) -> list[dict[str, Any]]:
    """From below: what there would be if there were nothing, and what was found."""
    chance = one.chance if np.isfinite(one.chance[0]) else (nothing, nothing)
    found = one.interval if np.isfinite(one.interval[0]) else (one.value, one.value)
    parts = (("chance", word, f"{one.label} {word}", nothing, chance), ("found", "found", one.label, one.value, found))
    return [{"layer": layer, "series": name, "row": row, "x": x, "low": low, "high": high, "count": one.count} for layer, name, row, x, (low, high) in parts]


def _by_chance(one: Verdict) -> str:
    return f", chance gives {one.chance[0]:+.3f} to {one.chance[1]:+.3f}" if np.isfinite(one.chance[0]) else ""
