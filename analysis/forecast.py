"""What ZOPrO may gain over isotropic SPSA, foretold from recorded updates, and the alpha that this suggests to begin with.

Along z = alpha p + sqrt(1 - alpha^2) u, with p the previous update, u noise and rho = cos(p, gradient), the squared slope of a loss over n
trained numbers is n (alpha^2 rho^2) + 1 - alpha^2 times that along isotropic noise (docs/metrics.md): along p alone it is worth more where
rho^2 n is above 1. A recording of first order shows rho once: p is the first iteration's whole update, and the first update of the second
iteration brings a gradient that had no part in it. That update also carries the momentum of those before, so only its new part is taken,

    e = d_t - (<d_t, d_(t-1)> / |d_(t-1)|^2) d_(t-1),    rho = <e, p> / (|e| |p|),

which leaves out what the gradient has along the last update, too. AdamW's second moment stays in it, and with it an error of about
`SYSTEMATIC`. Inner products and norms are exact. So this is a forecast of the right order and not a measurement; `zo/gain_measured` is one.
The sign of rho does not matter to slopes: below 0 the newest gradient goes against the previous update.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import geometry, nulls
from analysis.evidence import Recording
from analysis.uncertainty import Interval, interval_over_seeds

Doubles = npt.NDArray[np.float64]

#: Weight of the previous update that the rule `zopro` starts from.
ALPHA = 0.999
#: How far rho may be off, because AdamW's update is not its first moment alone.
SYSTEMATIC = 0.01
#: Methods whose updates are AdamW's on a gradient.
FIRST = ("rloo", "ppo", "online_dpo", "dpo")


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
    """The gain by layer and for the whole, with what a rho smaller or larger by `SYSTEMATIC` and 1.96 chance SD (1/sqrt(n)) would give."""
    nothing = pd.DataFrame(columns=_COLUMNS)
    if recording.parameters is None:
        return Forecast(alpha, nothing, {}, "the recording does not say how many numbers were trained")
    if recording.method.split(":")[0] not in FIRST:
        return Forecast(alpha, nothing, {}, "only a run of first order shows a gradient")
    parts = _added(recording.updates)
    if parts.empty:
        return Forecast(alpha, nothing, {}, "no second iteration whose first update could be held against the first iteration's")
    layers = parts.groupby("layer", sort=False, dropna=False)[["inner", "added", "before"]].sum()
    whole = _rows(parts[["inner", "added", "before"]].sum().to_frame().T, recording.parameters, alpha).iloc[0]
    rows = _rows(layers, recording.parameters / len(layers), alpha)
    return Forecast(alpha, rows.assign(layer=[str(name) for name in layers.index])[_COLUMNS], {name: float(whole[name]) for name in _COLUMNS[1:]})


_COLUMNS = ["layer", "rho", "sd", "numbers", "gain", "low", "high"]


def _added(updates: pd.DataFrame) -> pd.DataFrame:
    """For each module <e, p>, |e|^2 and |p|^2 at the first update of the policy's second iteration, in the optimiser's own tensors."""
    own = geometry.recorded(updates, "policy", "factor", "layer")
    moved = sorted(set(own["iteration"]))
    if len(moved) < 2:
        return own[:0]
    names = {"update_norm": "norm", "displacement_norm": "reach", "cos_displacement": "along", "cos_previous": "alike"}
    by_module = own.groupby("module", sort=False)
    now = own.rename(columns=names)
    last, before = (by_module[list(names)].shift(back).rename(columns=names).astype(np.float64) for back in (1, 2))
    now_p = now["along"].astype(np.float64) * now["norm"] * last["reach"]
    last_p = (last["along"] * last["norm"] * before["reach"]).fillna(0.0) + last["norm"] ** 2
    now_last, last_last = now["alike"].astype(np.float64) * now["norm"] * last["norm"], last["norm"] ** 2
    first = (own["iteration"] == moved[1]) & (own["update"] == own.loc[own["iteration"] == moved[1], "update"].min())
    kept = float(now_last[first].sum() / last_last[first].sum()) if last_last[first].sum() > 0 else np.nan
    added = now["norm"] ** 2 - 2 * kept * now_last + kept**2 * last_last
    found = pd.DataFrame({"layer": own["row"], "inner": now_p - kept * last_p, "added": added, "before": last["reach"] ** 2})
    known: pd.DataFrame = found[first].replace([np.inf, -np.inf], np.nan).dropna()
    return known


def _rows(sums: pd.DataFrame, numbers: float, alpha: float) -> pd.DataFrame:
    rho = geometry.cosine(sums["inner"], np.sqrt(sums["added"].clip(lower=0)) * np.sqrt(sums["before"]))
    sd = nulls.full_null_sd(int(numbers))
    reach = SYSTEMATIC + nulls.REACH * sd
    low, high = np.maximum(np.abs(rho) - reach, 0.0), np.minimum(np.abs(rho) + reach, 1.0)
    gains = {name: gain(value, numbers, alpha) for name, value in (("gain", rho), ("low", low), ("high", high))}
    return pd.DataFrame({"rho": rho, "sd": sd, "numbers": numbers, **gains})


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
