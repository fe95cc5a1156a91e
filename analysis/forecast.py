"""What ZOPrO may gain over isotropic SPSA, foretold from recorded updates, and the alpha that this suggests to begin with.

Along z = alpha p + sqrt(1 - alpha^2) u, with p the previous update, u noise and rho = cos(p, gradient), the squared slope of a loss over n
trained numbers is n (alpha^2 rho^2) + 1 - alpha^2 times that along isotropic noise (docs/metrics.md): along p alone it is worth more where
rho^2 n is above 1. rho is seen exactly once in a recording of first order: at the first update of the second iteration, whose displacement
is the first iteration's whole update. That update stands in for the gradient, and under AdamW it is bounded, so this is a forecast
of the right order and not a measurement; `zo/gain_measured` is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import coupling, geometry, nulls
from analysis.evidence import Recording
from analysis.uncertainty import Interval, interval_over_seeds

Doubles = npt.NDArray[np.float64]

#: Weight of the previous update that the rule `zopro` starts from.
ALPHA = 0.999


@dataclass(frozen=True)
class Forecast:
    """rho of each layer with its chance SD, and the gain at an alpha; `rows` has the columns layer, rho, sd, numbers, gain, low, high."""

    alpha: float
    rows: pd.DataFrame
    whole: dict[str, float]
    reason: str = ""


def gain(rho: npt.ArrayLike, n: npt.ArrayLike, alpha: float = ALPHA) -> Doubles:
    """alpha^2 rho^2 n + 1 - alpha^2: squared slope along z over that along isotropic noise."""
    return np.asarray(alpha**2 * np.square(np.asarray(rho, dtype=np.float64)) * np.asarray(n, dtype=np.float64) + 1 - alpha**2)


def forecast(recording: Recording, alpha: float = ALPHA) -> Forecast:
    """The gain by layer and for the whole, with what a rho 1.96 chance SD smaller or larger would give."""
    nothing = pd.DataFrame(columns=["layer", "rho", "sd", "numbers", "gain", "low", "high"])
    if recording.parameters is None:
        return Forecast(alpha, nothing, {}, "the recording does not say how many numbers were trained")
    layers = _first_of_second(recording, "layer")
    whole = _first_of_second(recording, "whole")
    if whole.empty:
        return Forecast(alpha, nothing, {}, "no second iteration whose first update could be held against the first iteration's")
    numbers = recording.parameters / max(len(layers), 1)
    rows = layers.assign(numbers=numbers, **_gains(layers, numbers, alpha)).rename(columns={"row": "layer", "cosine": "rho"})
    told = whole.assign(numbers=recording.parameters, **_gains(whole, recording.parameters, alpha)).rename(columns={"cosine": "rho"}).iloc[0]
    return Forecast(alpha, rows[nothing.columns].reset_index(drop=True), {name: float(told[name]) for name in nothing.columns if name != "layer"})


def _first_of_second(recording: Recording, rows: geometry.Rows) -> pd.DataFrame:
    """`cosine` of the first update of the second iteration with the displacement, and its chance SD, by row."""
    found = geometry.displacement_cosines(recording.updates, "policy", recording.space, rows)
    moved = sorted(set(found.loc[found["iteration"] > 0, "iteration"]))
    if len(moved) < 2:
        return found.assign(sd=np.nan)[:0]
    first = found[(found["iteration"] == moved[1]) & np.isfinite(found["cosine"])]
    first = first[first["update"] == first["update"].min()]
    chance = coupling.other_cosines(recording.updates, "policy", recording.space, rows)[["row", "update", "null"]].rename(columns={"null": "sd"})
    return first.merge(chance, on=["row", "update"], how="left")


def _gains(found: pd.DataFrame, numbers: float, alpha: float) -> dict[str, Doubles]:
    size, reach = found["cosine"].abs().to_numpy(np.float64), nulls.REACH * found["sd"].to_numpy(np.float64)
    ends = (np.maximum(size - reach, 0.0), size + reach)
    return {"gain": gain(size, numbers, alpha), "low": gain(ends[0], numbers, alpha), "high": gain(np.minimum(ends[1], 1.0), numbers, alpha)}


def suggested_alpha(found: Forecast) -> float:
    """0.999 where the previous update beats noise beyond chance, 0 where it surely does not, NaN where the recording cannot tell.

    In between nothing is better in expectation: the gain is linear in alpha^2. What argues for less than 0.999 is that one direction can be
    used up; the rule's schedule sees to that.
    """
    if not found.whole or not np.isfinite(found.whole["low"]):
        return np.nan
    low, high = ((found.whole[end] - 1 + found.alpha**2) / found.alpha**2 for end in ("low", "high"))  # rho^2 n at both ends
    return ALPHA if low > 1 else 0.0 if high < 1 else np.nan


def measured(metrics: pd.DataFrame) -> Interval | None:
    """Mean of `zo/gain_measured` over the updates at which a backward pass measured it, with Student's interval; None where none did."""
    values = metrics.loc[metrics["name"] == "zo/gain_measured", "value"].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    return interval_over_seeds(values) if len(values) else None
