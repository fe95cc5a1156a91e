"""What recorded runs say about the geometry that ZOPrO relies on: alignment of policy and reward model, persistence, who leads.

One function for each question; each returns numbers with the spread that chance would give them, and no words (`analysis.report` has the
words). The null of a cosine is noise of the recorded norms in the same space (`null_other_update`, docs/metrics.md); a recording that has
none of it is read against the error of its sketches, which is smaller, and says so (`chance`).

Axis letters: U updates, T policy steps, S reward steps, M modules, L lags. Undefined is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy

from analysis import coupling, geometry, nulls
from analysis.trajectory import BLOCK, Ints, Trajectory

Doubles = npt.NDArray[np.float64]

#: Updates of which all pairs are held against each other; longer runs are thinned evenly.
MOST_PAIRS = 400
#: Steps of both roles below which nobody can be said to lead.
FEWEST_STEPS = 8
LAGS = 3
Chance = Literal["recorded", "sketch", "unknown"]


@dataclass(frozen=True)
class Recording:
    """What one run left. `group`: runs of one group differ in nothing but the seed. Frames are the store's streams with plain words."""

    run: str
    method: str
    seed: int
    group: str
    policy: Trajectory | None
    reward: Trajectory | None
    updates: pd.DataFrame = field(repr=False)
    metrics: pd.DataFrame = field(repr=False)
    completions: pd.DataFrame = field(repr=False)
    parameters: int | None = None  # trained numbers of the policy

    @property
    def space(self) -> str:
        """Where alignment is measured: the weight that the forward pass uses, if it was recorded."""
        return "effective" if len(self.updates) and (self.updates["space"] == "effective").any() else "factor"

    @property
    def has_nulls(self) -> bool:
        """Whether it holds the chance spreads of its cosines; older ones do not."""
        return "null_other_update" in self.updates and bool(self.updates["null_other_update"].notna().any())


@dataclass(frozen=True)
class Estimate:
    """A mean of cosines, the SD it would have by chance, and how many cosines went in."""

    value: float = np.nan
    sd: float = np.nan
    count: int = 0
    chance: Chance = "unknown"

    @property
    def p(self) -> float:
        return float(nulls.two_sided_p(self.value, self.sd))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: the value and 1.96 of its chance SD to both sides, which is what it would scatter by if its true size were small."""
        return max(self.value - nulls.REACH * self.sd, -1.0), min(self.value + nulls.REACH * self.sd, 1.0)

    @property
    def band(self) -> tuple[float, float]:
        """The central 95 % of what chance gives."""
        low, high = nulls.null_band(self.sd)
        return float(low), float(high)


# --- do policy and reward model move along each other? -----------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """`whole`: all modules as one vector. `excess`: root mean square over modules of mean cosine / chance SD, 1 by chance; `excess_p` its p-value.

    `coupled`: modules that stand out after Holm's correction, of `modules`; `strongest` the largest of them in size, with its name.
    """

    whole: Estimate
    attainable: float = np.nan
    excess: float = np.nan
    excess_p: float = np.nan
    coupled: int = 0
    modules: int = 0
    strongest: tuple[str, float] = ("", np.nan)


def alignment(recording: Recording) -> Alignment:
    """Cosine of the policy's updates with the reward model's latest update: all together, and module by module.

    Neighbouring updates of a role are alike, and many policy updates meet the same reward update, so their cosines are no independent
    trials: the mean's variance is sum_tu sd_t sd_u cos(p_t, p_u) cos(r_t, r_u) / U^2, with r_t the update that p_t was held against.
    """
    whole = coupling.other_cosines(recording.updates, "policy", recording.space, "whole")
    whole = whole[np.isfinite(whole["cosine"])]
    if whole.empty:
        return Alignment(Estimate())
    shared_UU = repetition(recording, whole["clock"].to_numpy(np.int64))
    sd_U, chance = _chance(recording, whole)
    mean = Estimate(float(whole["cosine"].mean()), _sd_of_mean(sd_U, shared_UU), len(whole), chance)
    attainable = float(whole["attainable"].mean())
    return Alignment(mean, attainable, **_by_module(recording, shared_UU)) if chance == "recorded" else Alignment(mean, attainable)


def _by_module(recording: Recording, shared_UU: Doubles) -> dict[str, Any]:
    rows = coupling.other_cosines(recording.updates, "policy", recording.space, "module")
    rows = rows[np.isfinite(rows["cosine"]) & np.isfinite(rows["null"])]
    if rows.empty:
        return {}
    table = modules(rows, kept_spread(shared_UU)).set_index("label")
    z_M = (table["y"] / table["sd"]).dropna()
    if z_M.empty:
        return {}
    far = int(np.abs(z_M.to_numpy()).argmax())
    return {
        "excess": float(np.sqrt((z_M**2).mean())),
        "excess_p": float(scipy.stats.chi2.sf(float((z_M**2).sum()), len(z_M))),
        "coupled": int((table["p"] <= 0.05).sum()),
        "modules": len(z_M),
        "strongest": (str(z_M.index[far]), float(table["y"].reindex(z_M.index).iloc[far])),
    }


def modules(found: pd.DataFrame, alike: float) -> pd.DataFrame:
    """One row for each module: label, y (mean cosine), sd of that mean by chance, Holm's p, and how many updates are in it.

    `found` are rows of `coupling.other_cosines` by module, `alike` is what their mean keeps of the SD of one (`kept_spread`).
    """
    with_null = found[np.isfinite(found["null"])]
    grouped = (with_null if len(with_null) else found).groupby("row", sort=False)
    sd = grouped["null"].agg(lambda values: alike * float((values**2).mean()) ** 0.5)
    table = pd.DataFrame({"y": grouped["cosine"].mean(), "sd": sd.where(sd > 0), "count": grouped.size()})
    return table.assign(p=nulls.holm(nulls.two_sided_p(table["y"], table["sd"]))).rename_axis("label").reset_index()


def kept_spread(shared_UU: Doubles) -> float:
    """What a mean of cosines that repeat each other (`repetition`) keeps of the SD of one."""
    return float(np.sqrt(max(float(shared_UU.mean()), 0.0)))


def _chance(recording: Recording, whole: pd.DataFrame) -> tuple[Doubles, Chance]:
    """Chance SD of each update's cosine: recorded, or in older recordings the sketch's error in its place."""
    recorded_U = whole["null"].to_numpy(np.float64)
    if np.isfinite(recorded_U).all():
        return recorded_U, "recorded"
    if recording.policy is None:
        return np.full(len(whole), np.nan), "unknown"
    modules = max(len(recording.policy.modules_T), 1)
    return np.full(len(whole), (recording.policy.spec.k * modules) ** -0.5), "sketch"


def repetition(recording: Recording, clocks_U: Ints) -> Doubles:
    """How far two cosines repeat each other: product of the cosines of both roles' updates that they were made of; all ones where no sketch tells."""
    if recording.policy is None or recording.reward is None:
        return np.ones((len(clocks_U), len(clocks_U)))
    kept = clocks_U[np.unique(np.linspace(0, len(clocks_U) - 1, min(len(clocks_U), MOST_PAIRS)).round().astype(np.int64))]
    own_U = np.searchsorted(recording.policy.clocks_U, kept)
    other_U = np.searchsorted(recording.reward.clocks_U, kept) - 1
    own_UU = _cosines_at(recording.policy, np.minimum(own_U, len(recording.policy.clocks_U) - 1))
    return np.nan_to_num(own_UU * _cosines_at(recording.reward, np.maximum(other_U, 0)), nan=1.0)


def _cosines_at(path: Trajectory, places_U: Ints) -> Doubles:
    needed, back_U = np.unique(places_U, return_inverse=True)
    found = geometry.cosine_matrix(_at(path, needed))
    return np.asarray(found[np.ix_(back_U, back_U)])


def _at(path: Trajectory, index: Ints) -> Trajectory:
    times = {name: getattr(path, name)[index] for name in ("updates_U", "clocks_U", "iterations_U")}
    return replace(path, **times, norms_UT=path.norms_UT[index], sketches_UTK=path.sketches_UTK[index])


def _sd_of_mean(sd_U: Doubles, shared_UU: Doubles) -> float:
    """SD of a mean of cosines that repeat each other; a thinned table stands for the whole one."""
    variance = float(np.square(sd_U).mean()) * max(float(shared_UU.mean()), 1 / max(len(sd_U), 1) ** 2)
    return float(np.sqrt(variance))


# --- does a role keep its direction? -------------------------------------------------------------------


@dataclass(frozen=True)
class Persistence:
    """Mean cosine of a role's updates with those before, by lag (from 1), and of whole iterations with the one before."""

    by_lag: tuple[Estimate, ...]
    iterations: Estimate


def persistence(recording: Recording, role: Literal["policy", "reward"] = "policy", lags: int = 5) -> Persistence:
    """Do updates go on where the last ones went? If they were independent, a mean over U of them would spread by the chance SD / sqrt(U).

    The optimiser's momentum alone makes neighbours alike; what whole iterations keep is free of most of it.
    """
    path = recording.policy if role == "policy" else recording.reward
    if path is None or len(path.updates_U) < 2:
        return Persistence((), Estimate())
    sd, chance = typical_chance(recording, path)
    lagged_LU = geometry.lagged_cosines(path, lags)[:, :, 0]
    exact = geometry.previous_cosines(recording.updates, role, path.spec.space, "whole")
    if np.isfinite(exact["cosine"]).any():
        lagged_LU[0] = np.nan
        lagged_LU[0, : len(exact)] = exact["cosine"].to_numpy(np.float64)[: lagged_LU.shape[1]]
    whole = coupling.steps(path)
    between = geometry.lagged_cosines(whole, 1)[0, :, 0] if len(whole.updates_U) > 1 else np.full(1, np.nan)
    return Persistence(tuple(_mean(row, sd, chance) for row in lagged_LU), _mean(between, sd, chance))


def _mean(values: Doubles, sd: float, chance: Chance) -> Estimate:
    good = values[np.isfinite(values)]
    return Estimate(float(good.mean()), sd / len(good) ** 0.5, len(good), chance) if len(good) else Estimate(chance=chance)


def typical_chance(recording: Recording, path: Trajectory) -> tuple[float, Chance]:
    """Chance SD of one cosine between two steps in the sketched space: that of noise, and the sketch's error besides."""
    sketch = (path.spec.k * max(len(path.modules_T), 1)) ** -0.5
    found = coupling.other_cosines(recording.updates, path.role, path.spec.space, "whole")["null"].to_numpy(np.float64)
    found = found[np.isfinite(found)]
    return (float(np.hypot(np.median(found), sketch)), "recorded") if len(found) else (sketch, "sketch")


# --- who leads? ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lead:
    """Mean cosine of policy step t with reward step t + lag, by lag; `by`: what a step is, or why there is no answer."""

    by_lag: dict[int, Estimate] = field(default_factory=dict)
    by: str = ""
    steps: int = 0

    @property
    def adjusted(self) -> dict[int, float]:
        """p-values by lag after Holm's correction over all lags."""
        return dict(zip(self.by_lag, nulls.holm([found.p for found in self.by_lag.values()]), strict=True))

    @property
    def peak(self) -> int | None:
        """The lag that stands out most and beyond chance, if it also beats its mirror image."""
        clear = {lag: abs(self.by_lag[lag].value) for lag, p in self.adjusted.items() if p <= 0.05}
        if not clear:
            return None
        lag = max(clear, key=clear.__getitem__)
        mirror = self.by_lag.get(-1 - lag)
        if mirror is None or not np.isfinite(mirror.value):
            return lag
        ahead = (clear[lag] - abs(mirror.value)) / np.hypot(self.by_lag[lag].sd, mirror.sd)
        return lag if ahead > nulls.REACH else None


def lead(recording: Recording, lags: int = LAGS) -> Lead:
    """Which role's steps foretell the other's? Iterations are compared where there are enough, else updates if the roles take turns.

    Lag 0 is the first reward step after a policy step and lag -1 the last before it (`analysis.coupling`), so lag -1 - l mirrors lag l.
    """
    if recording.policy is None or recording.reward is None:
        return Lead(by="one role only")
    by = _step(recording.policy, recording.reward)
    if by is None:
        return Lead(by=f"that needs {FEWEST_STEPS} iterations of both roles, or as many updates that take turns")
    policy, reward = coupling.pairs(recording.policy, recording.reward, by)
    cosines = coupling.lag_cosines(policy, reward, by, range(-lags, lags))
    sd, chance = typical_chance(recording, policy)
    own_L, other_L = (correlations(path) for path in (policy, reward))
    found = {lag: _diagonal(values, sd, chance, own_L, other_L) for lag, values in cosines.items()}
    return Lead(found, by, min(len(policy.updates_U), len(reward.updates_U)))


def _step(policy: Trajectory, reward: Trajectory) -> coupling.By | None:
    both = np.intersect1d(policy.iterations_U, reward.iterations_U)
    if len(both) >= FEWEST_STEPS:
        return "iteration"
    turns = np.count_nonzero(np.diff(np.searchsorted(reward.clocks_U, policy.clocks_U)))
    few = min(len(policy.clocks_U), len(reward.clocks_U))
    return "update" if few >= FEWEST_STEPS and turns >= 0.8 * (few - 1) else None


def correlations(path: Trajectory) -> Doubles:
    """Mean cosine of steps 1, 2, ... apart, (U - 1,), all modules together; those that are not known count as unrelated.

    The cosines of all pairs at one lag add up to a correlation of the series of unit steps with itself, which the Fourier transform brings for
    all lags at once. A step of which only some modules are known has another length beside each partner: its pairs are added one by one.
    """
    whole_U, partial_U = _partial(path)
    sums_L, counts_L = _pairs_of_known(path, whole_U) + _pairs_of_partial(path, partial_U)
    return np.asarray(np.nan_to_num(geometry.ratio(sums_L, counts_L))[1:])


def _partial(path: Trajectory) -> tuple[geometry.Mask, geometry.Mask]:
    """Which steps are known in all modules that are known in any step, and which only in some of them."""
    known_UT = geometry.known(path)
    some_U = known_UT.any(axis=1)
    whole_U = some_U & known_UT[:, known_UT.any(axis=0)].all(axis=1)
    return np.asarray(whole_U), np.asarray(some_U & ~whole_U)


def _pairs_of_known(path: Trajectory, whole_U: geometry.Mask) -> Doubles:
    """Sum of cosines and number of pairs by lag, 2 x U, of steps whose modules are all known."""
    length_U = np.sqrt(np.nan_to_num(geometry.squares(path)).sum(axis=1))
    moved_U = whole_U & (length_U > 0)
    scale_U = np.divide(1.0, length_U, out=np.zeros_like(length_U), where=moved_U)
    sums_L = np.zeros(len(length_U))
    for t in range(len(path.modules_T)):  # in double precision one module at a time, so memory stays that of one
        sums_L += _autocorrelated(path.sketches_UTK[:, t] * scale_U[:, None])
    return np.stack([sums_L, _autocorrelated(moved_U[:, None].astype(np.float64)).round()])


def _autocorrelated(rows_UK: Doubles) -> Doubles:
    """sum_u <x_u, x_(u + l)> for l = 0 .. U - 1."""
    count = len(rows_UK)
    size = scipy.fft.next_fast_len(2 * count, real=True)
    power = np.square(np.abs(scipy.fft.rfft(rows_UK.T, size))).sum(axis=0)
    return np.asarray(scipy.fft.irfft(power, size)[:count])


def _pairs_of_partial(path: Trajectory, partial_U: geometry.Mask) -> Doubles:
    """The same of pairs in which at least one step is known in some modules only."""
    count = len(path.updates_U)
    found = np.zeros((2, count))
    places = np.flatnonzero(partial_U)
    for begin in range(0, len(places), BLOCK):
        own_P, other_U = places[begin : begin + BLOCK, None], np.arange(count)
        some = _at(path, own_P[:, 0])
        cosines_PU = geometry.cosine(geometry.gram(some, path), geometry.lengths(some, path))
        once_PU = np.isfinite(cosines_PU) & (~partial_U | (other_U > own_P))  # a pair of two such steps stands in the table twice
        apart_N = np.abs(other_U - own_P)[once_PU]
        found += np.stack([np.bincount(apart_N, weights, count) for weights in (cosines_PU[once_PU], np.ones(len(apart_N)))])
    return found


def _diagonal(values: Doubles, sd: float, chance: Chance, own_L: Doubles, other_L: Doubles) -> Estimate:
    good = values[np.isfinite(values)]
    if not len(good):
        return Estimate(chance=chance)
    return Estimate(float(good.mean()), nulls.null_sd_of_mean(np.full(len(good), sd), own_L, other_L), len(good), chance)
