"""Curves that are easier to read: a moving average over recorded values, a logarithmic vertical axis. Captions say both, and nothing recorded is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from analysis.spec import RECORDED, FigureSpec, Mark

YScale = Literal["linear", "log"]

#: What is averaged: held-out scores are few, have intervals, and stay as they are.
_AVERAGED = "train"
NOTES = {
    "average": (
        " Averaged over training batches: Σᵢ wⁱ yₜ₋ᵢ / Σᵢ wⁱ with w = {weight:g}, over the last {span:.0f} or so; faint: as recorded. "
        "An average lags behind, and hides spikes."
    ),
    "log": " Logarithmic vertical axis.",
    "not drawn": " {count} of {all} values are not above 0, so they have no place on it.",
    "linear": " Linear vertical axis: {count} of {all} values are not above 0, so they would have no place on a logarithmic one.",
}


def eased(spec: FigureSpec, smoothing: float, y_scale: YScale) -> FigureSpec:
    """The curves with their training batches averaged, 0 <= smoothing < 1, on this vertical axis.

    The axis stays linear where most values would have no place on a logarithmic one. Raises `ValueError` for another smoothing.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing:g}; it must be at least 0 and less than 1")
    drawn = _logarithmic(spec) if y_scale == "log" else spec
    return _averaged(drawn, smoothing) if smoothing else drawn


def average(weight: float) -> Callable[[pd.Series], pd.Series]:
    """Exponential moving average of values in their order, each weighed `weight` times as much as the one after it.

    Divided by the sum of the weights, so that a curve does not begin at 0, as Kingma & Ba (2015, arXiv:1412.6980) correct their moments.
    What is not finite is left out, and stays not a number.
    """

    def of(values: pd.Series) -> pd.Series:
        known = values.astype(np.float64).where(np.isfinite(values))
        return known.ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().where(known.notna()).astype(np.float32)

    return of


def _averaged(spec: FigureSpec, weight: float) -> FigureSpec:
    """A line of averages before one of what was recorded."""
    chosen = spec.data["layer"] == _AVERAGED
    if not chosen.any():
        return spec
    rows = spec.data[chosen]
    means = rows.assign(y=rows.groupby("series", sort=False)["y"].transform(average(weight)))
    data = pd.concat([rows.assign(layer=RECORDED), means, spec.data[~chosen]], ignore_index=True)
    note = NOTES["average"].format(weight=weight, span=1 / (1 - weight))
    return replace(spec, data=data, marks=(Mark("line", RECORDED, strong=False), *spec.marks), caption=spec.caption + note)


def _logarithmic(spec: FigureSpec) -> FigureSpec:
    known = spec.data["y"][np.isfinite(spec.data["y"])]
    count = {"count": int((known <= 0).sum()), "all": len(known)}
    if 2 * count["count"] > len(known):
        return replace(spec, caption=spec.caption + NOTES["linear"].format(**count))
    note = NOTES["log"] + (NOTES["not drawn"].format(**count) if count["count"] else "")
    return replace(spec, y=replace(spec.y, scale="log"), caption=spec.caption + note)
