"""Figures of zeroth-order directions: how much better than chance they are, and where the gradient's energy lies.

A run records these numbers at every `measure`-th update (`--set measure=1`), from the gradients g1 and g2 of two halves of the batch
(docs/metrics.md): p is the policy's update over the last iteration, z the sampled direction, alpha the weight of p in z, n the number of
trained weights.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.comparison import student
from analysis.figures import figure
from analysis.scores import along_updates, one_of, said, wide
from analysis.spec import Axis, FigureSpec, Mark

GAINS = {"zo/gain_measured": "measured", "zo/gain_predicted": "predicted"}
COSINES = {"zo/rho": "previous update p and gradient", "zo/cos_gradient": "direction z and gradient"}
SHARES = {
    "zo/share_previous": "previous update",
    "zo/share_layers": "its layers",
    "zo/share_tensors": "its tensors",
    "zo/share_rows": "its rows",
    "zo/share_recent": "last four updates",
}
_AGREEMENT = "zo/gradient_agreement"
_CHANCE = "isotropic direction"
_MEASURE = "measured only with --set measure=1 or more, and only by rules that probe directions"

NOTES = {
    "gain": (
        "Gain over an isotropic direction: predicted α² ρ² n + 1 − α² with ρ² from the share of the previous update, measured n (z·g₁)(z·g₂) / (z·z g₁·g₂). "
        "At 1 a direction is worth what chance is. The same batch's halves give both, so they share its noise; single updates scatter, also below 0, because "
        "g₁·g₂ is a small difference of noisy numbers: compare means."
    ),
    "rho": (
        "ρ = cos(p, ∇L) and cos(z, ∇L), from one backward pass on the update's batch. Both are pulled towards 0 by the batch's noise, "
        "more the smaller the batch, so they are a lower limit of what the true gradient would show; the shares are not. Unrelated directions have 0 ± 1/√n."
    ),
    "shares": (
        "Share of the gradient's energy in a subspace: Σ (g₁·u)(g₂·u) / g₁·g₂ over orthonormal u that span it; 1 is all. Dots: single updates. Whiskers: 95 % "
        "interval of the mean over updates, Student's t. g₁ and g₂ are the gradients of two halves of a batch: their noise is independent, so the products are "
        "unbiased, but a product may have either sign and g₁·g₂ may be small. Single batches therefore fall outside 0 to 1, and only means are read. "
        "Misleads: the ratio of unbiased numbers is not unbiased; updates of one iteration share p, so the interval is rather too narrow; "
        "larger subspaces hold more by their size alone."
    ),
}


@figure
def gains(metrics: pd.DataFrame, *, run: str, show: Literal["gain", "rho"] = "gain") -> FigureSpec:
    """Predicted against measured gain of sampled directions by update, or (`show="rho"`) the cosines behind them, whose scale is another.

    Raises `ValueError` for another `show`.
    """
    one_of("show", show, ("gain", "rho"))
    names = GAINS if show == "gain" else COSINES
    table = wide(metrics, [*GAINS, *COSINES, _AGREEMENT])
    shown = table.dropna(subset=list(names), how="all")
    parts = [along_updates(shown, name, word, "updates") for name, word in names.items()]
    data = pd.concat([*parts, _level(shown, 1.0 if show == "gain" else 0.0)], ignore_index=True)
    marks = (Mark("line", "updates", strong=False), Mark("line", "level", strong=False))
    numbers = _gain_words(table) if len(shown) else f"Not recorded: {', '.join(names)} ({_MEASURE})."
    title, y = _GAIN_LOOKS[show]
    return FigureSpec("gains", title, data, marks, Axis("x", "policy update"), y, f"{NOTES[show]} {numbers}", f"{title}: {numbers}", len(shown), (run,))


_GAIN_LOOKS = {
    "gain": ("Gain of sampled directions", Axis("y", "gain over an isotropic direction")),
    "rho": ("Directions and gradient", Axis("y", "cosine with the batch gradient")),
}


def _level(table: pd.DataFrame, value: float) -> pd.DataFrame:
    """What chance would give, from the first to the last update drawn."""
    return along_updates(table.iloc[[0, -1]] if len(table) else table, "update", _CHANCE, "level").assign(y=value)


def _gain_words(table: pd.DataFrame) -> str:
    """Means over updates with their intervals, and how far the measured gain is from the predicted one, update by update."""
    measured, predicted = table["zo/gain_measured"], table["zo/gain_predicted"]
    columns = {"measured gain": measured, "predicted": predicted, "measured minus predicted": measured - predicted, "ρ": table["zo/rho"]}
    told = [f"{word} {_mean(values)}" for word, values in columns.items() if values.notna().any()]
    below = f" {int((measured < 0).sum())} of {measured.notna().sum()} measured gains are below 0." if measured.notna().any() else ""
    missing = _missing([name for name in (*GAINS, "zo/rho") if table[name].isna().all()])
    return f"Mean over {len(table)} measured updates, 95 % interval over them: {', '.join(told)}.{below}{_agreement(table)}{missing}"


def _mean(values: pd.Series[Any]) -> str:
    known_U = values.dropna().to_numpy(float)
    return said(float(known_U.mean()), student(known_U), ".3g")


def _missing(names: Collection[str]) -> str:
    return f" Not recorded: {', '.join(names)}." if names else ""


def _agreement(table: pd.DataFrame) -> str:
    """The noise of the denominators: near 0 they divide noise by noise."""
    values_U = table[_AGREEMENT].dropna().to_numpy(float)
    if not len(values_U):
        return ""
    nearest = values_U[np.abs(values_U).argmin()]
    return f" Cosine of the halves' gradients: median {np.median(values_U):.2g}, nearest to 0 {nearest:.2g}; near 0, noise is divided by noise."


@figure
def energy_shares(metrics: pd.DataFrame, *, run: str) -> FigureSpec:
    """How much of the gradient's energy lies along the previous update, its pieces, and recent updates: means over updates with 95 % intervals."""
    table = wide(metrics, [*SHARES, _AGREEMENT])
    # an axis of words is filled from below: the smallest subspace ends on top
    recorded = {name: table[name].dropna().to_numpy(float) for name in reversed(SHARES) if table[name].notna().any()}
    parts = [_dots(name, values_U) for name, values_U in recorded.items()] + [_interval(name, values_U) for name, values_U in recorded.items()]
    data = pd.DataFrame([row for part in parts for row in part], columns=["layer", "series", "subspace", "x", "low", "high", "updates"])
    count = max((len(values_U) for values_U in recorded.values()), default=0)
    numbers = (
        _share_words(recorded) + _agreement(table) + _missing([name for name in SHARES if name not in recorded])
        if recorded
        else f"Not recorded: {', '.join(SHARES)} ({_MEASURE})."
    )
    marks = (Mark("points", "updates", strong=False), Mark("interval", "mean"))
    axes = Axis("x", "share of the gradient's energy", "1 is all"), Axis("subspace", "", scale="category")
    title = "Where the gradient's energy lies"
    return FigureSpec("energy_shares", title, data, marks, *axes, f"{NOTES['shares']} {numbers}", f"{title}: {numbers}", count, (run,))


def _dots(name: str, values_U: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    return [{"layer": "updates", "series": "single updates", "subspace": SHARES[name], "x": float(value)} for value in values_U]


def _interval(name: str, values_U: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    low, high = student(values_U)
    place = {"layer": "mean", "series": "mean over updates", "subspace": SHARES[name]}
    return [{**place, "x": float(values_U.mean()), "low": low, "high": high, "updates": len(values_U)}]


def _share_words(recorded: dict[str, np.ndarray[Any, Any]]) -> str:
    told = [f"{SHARES[name]} {said(float(values_U.mean()), student(values_U), '.3g')} ({len(values_U)} updates)" for name, values_U in recorded.items()]
    every = np.concatenate(list(recorded.values()))
    outside = int(((every < 0) | (every > 1)).sum())
    return f"Means: {', '.join(reversed(told))}. {outside} of {len(every)} single values lie outside 0 to 1."
