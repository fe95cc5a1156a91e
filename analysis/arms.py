"""The figures of a comparison: what each method changed, and how each differs from the first. Rows come from `comparison.compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.figures import figure
from analysis.scores import CHANGES, named
from analysis.spec import Axis, FigureSpec, Mark
from analysis.uncertainty import in_brackets

_METHOD = Axis("method", "", scale="category")
_MARKS = (Mark("points", "seeds", strong=False), Mark("interval", "mean"))
_OF = "Dots: seeds. Whiskers: 95 % interval of the mean over {seeds} seeds, Student's t. {more}"
_OF_ONE = "Dots: seeds. One seed has no interval. {more}"


@figure
def arms(runs: Sequence[Mapping[str, Any]], methods: Sequence[Mapping[str, Any]], *, judge: str = "proxy") -> FigureSpec:
    """Change of one judge's score from the common start, for each method and seed."""
    label, unit = CHANGES[judge]
    dots = pd.DataFrame([_dot(row["method"], row[judge], row["control"]) for row in runs])
    means = pd.DataFrame([_mean(row["method"], row[judge], row["control"]) for row in methods])
    more = "Seeds share their start and prompts, so this says nothing about other starts; compare methods by paired differences."
    return _made("arms", label[:1].upper() + label[1:], dots, means, Axis("x", "change on held-out prompts", unit), more, [str(row["run"]) for row in runs])


@figure
def arm_differences(differences: Sequence[Mapping[str, Any]], *, judge: str = "proxy") -> FigureSpec:
    """Each method minus the first, seed by seed on the same prompts."""
    _, unit = CHANGES[judge]
    chosen = [row for row in differences if row["judge"] == judge]
    dots = pd.DataFrame([_dot(row["method"], value, False) for row in chosen for value in row["by_seed"].values()])
    means = pd.DataFrame([_mean(row["method"], row, False) for row in chosen])
    first = str(chosen[0]["minus"]) if chosen else "the first method"
    more = "An interval that holds zero shows no difference; it does not show that there is none."
    return _made("arm_differences", f"Difference from {first}", dots, means, Axis("x", f"minus {first}, same seed and prompts", unit), more, [])


def _dot(method: str, value: float, control: bool) -> dict[str, Any]:
    return {"layer": "seeds", "series": "seeds", "method": named(method, control), "x": value}


def _mean(method: str, found: Mapping[str, Any], control: bool) -> dict[str, Any]:
    low, high = found["student"]
    return {
        "layer": "mean",
        "series": "mean over seeds",
        "method": named(method, control),
        "x": found["mean"],
        "low": low,
        "high": high,
        "seeds": found["seeds"],
    }


def _made(name: str, title: str, dots: pd.DataFrame, means: pd.DataFrame, x: Axis, more: str, runs: Sequence[str]) -> FigureSpec:
    columns = ["layer", "series", "method", "x", "low", "high", "seeds"]
    order = {method: -place for place, method in enumerate(means["method"])} if len(means) else {}  # an axis is filled from below: the first method on top
    data = pd.concat([dots, means], ignore_index=True).reindex(columns=columns)
    data = data.sort_values("method", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    seeds = int(means["seeds"].max()) if len(means) else 0
    alt = "; ".join(f"{row['method']} {row['x']:+.2f} {in_brackets(row['low'], row['high'])}" for _, row in means.iterrows())
    caption = (_OF_ONE if seeds == 1 else _OF).format(seeds=seeds, more=more)
    return FigureSpec(name, title, data, _MARKS, x, _METHOD, caption, f"{title}: {alt or 'nothing yet'}.", len(dots), tuple(runs))
