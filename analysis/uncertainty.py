"""Tests and intervals that keep what they promise: shift tests of two series, bootstrap over updates, Student's t over seeds.

Neighbouring updates are not independent, so times are never permuted: a test shifts one series against the other, an interval
resamples blocks, and both say nothing where they were measured to fail. Arrays in, numbers out; every draw is seeded. Axis letters: T
steps in time order, D dimensions, U updates, S seeds or shifts. Fewer than three steps, constant series and NaN give NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from scipy import special

from analysis.comparison import LEVEL, student
from analysis.nulls import REACH

Doubles = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Statistic = Callable[[Array, Array], float]

DRAWS = 999
#: Values that agree to this share are equal: sums in another order differ in the last digits.
_TIE = 1e-9


# --- do two series move together? ------------------------------------------------------------------


@dataclass(frozen=True)
class ShiftTest:
    """A statistic, its p-value, and the central 95 % and the median of the same statistic over `shifts` shifted copies."""

    value: float
    p: float
    low: float
    high: float
    shifts: int
    middle: float = np.nan


def circular_shift_test(statistic: Statistic, x_T: npt.ArrayLike, y_T: npt.ArrayLike, draws: int = DRAWS, seed: int = 0) -> ShiftTest:
    """Is `statistic(x, y)` larger, in absolute value, than with the steps of y shifted in a circle against those of x?

    `x_T`, `y_T`: what happened at each step, (T,) or (T, D): increments, norms, cosines, never positions, which are sums of increments and
    wander. A statistic of paths sums them itself, and a disparity, which is small for what is alike, is given as 1 - disparity.
    p = (1 + shifts at least as large) / (1 + shifts) (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585): at T steps never below 1 / T. All
    T - 1 shifts are used if `draws` allows, else as many different ones. Exact for independent steps; it keeps the order in time within
    each series, which permuted times destroy (Procrustes on independent walks then fires always). Where steps are long vectors, pass step
    numbers as both series and let `statistic(i, j)` look up what was computed once, such as the mean of `cosines_TT[i, j]`.

    Misleads where both series have a trend, such as norms under one learning-rate schedule: a shift breaks that too, so it fires without
    any coupling. Divide the schedule out first. Misleads also on few, very persistent steps: `calibration` finds 4 to 7 % for the
    statistics of `tests/test_uncertainty.py`, but 15 % for distance correlation at 40 steps of persistence 0.9. Raises `ValueError` if the
    series differ in length.
    """
    x, y = np.asarray(x_T), np.asarray(y_T)
    if len(x) != len(y):
        raise ValueError(f"series of {len(x)} and {len(y)} steps cannot be shifted against each other; cut them to the same steps")
    if not (_moves(x) and _moves(y)):
        return ShiftTest(np.nan, np.nan, np.nan, np.nan, 0)
    null_S = np.array([float(statistic(x, np.roll(y, shift, axis=0))) for shift in _shifts(len(x), draws, seed)])
    return _judged(float(statistic(x, y)), null_S[np.isfinite(null_S)])


def _judged(value: float, null_S: Doubles) -> ShiftTest:
    if not np.isfinite(value) or not len(null_S):
        return ShiftTest(value, np.nan, np.nan, np.nan, len(null_S))
    as_large = int((np.abs(null_S) >= abs(value) * (1 - _TIE)).sum())
    low, middle, high = (float(end) for end in np.quantile(null_S, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]))
    return ShiftTest(value, (1 + as_large) / (1 + len(null_S)), low, high, len(null_S), middle)


def _shifts(count: int, draws: int, seed: int) -> npt.NDArray[np.int64]:
    every = np.arange(1, count)
    return every if draws >= len(every) else np.random.default_rng(seed).choice(every, draws, replace=False)


def _moves(series_T: Array) -> bool:
    """Whether there are three finite steps or more, and not all the same."""
    return len(series_T) >= 3 and series_T.size > 0 and bool(np.isfinite(series_T).all()) and bool((series_T != series_T[:1]).any())


def calibration(statistic: Statistic, T: int, walks: int = 1000, seed: int = 0, *, dimensions: int = 3, persistence: float = 0.0, draws: int = DRAWS) -> float:
    """Share of pairs of independent random walks on which the shift test says p <= 5 %: it should be 0.05, with an error of sqrt(0.0475 / walks).

    The steps of a walk are normal, (T, `dimensions`), each `persistence` times the one before plus noise. NaN if no walk gave a p-value.
    """
    random = np.random.default_rng(seed)
    steps = (_autoregressive(random, (2, T, dimensions), persistence) for _ in range(walks))
    p = np.array([circular_shift_test(statistic, x, y, draws, number).p for number, (x, y) in enumerate(steps)])
    return float((p[np.isfinite(p)] <= 1 - LEVEL + _TIE).mean()) if np.isfinite(p).any() else np.nan


def _autoregressive(random: np.random.Generator, shape: tuple[int, ...], phi: float) -> Doubles:
    """Normal series along the second axis: x_t = phi x_(t-1) + noise, variance 1 from the first step on."""
    noise = random.standard_normal(shape) * np.sqrt(1 - phi**2)
    noise[:, 0] /= np.sqrt(1 - phi**2)
    return np.asarray(scipy.signal.lfilter([1.0], [1.0, -phi], noise, axis=1))


# --- intervals of a mean over updates --------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or NaN and the reason why there is none."""

    low: float = np.nan
    high: float = np.nan
    reason: str = ""


def block_bootstrap(values_U: npt.ArrayLike, block: int, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of a stationary series, from `draws` series put together of blocks of `block` neighbours.

    Blocks start anywhere and run over the end to the beginning (Politis & Romano 1992, the circular block bootstrap); the last one is cut
    so that each drawn series has U values. The percentiles of so few free blocks, n = U / block, lie too close to the mean; they are moved
    out by t(0.975, n - 1) / 1.96 sqrt(n / (n - 1)) (Hesterberg 2015, The American Statistician 69:371, the expanded percentile interval).
    How well it covers depends on the block: `interval_over_updates` chooses it. NaN where fewer than two blocks fit. Raises `ValueError`
    if `block` is not from 1 to U.
    """
    values = np.asarray(values_U, dtype=np.float64)
    if not _moves(values):
        return np.nan, np.nan
    if not 1 <= block <= len(values):
        raise ValueError(f"block is {block}; it must be from 1 to {len(values)}, the number of values")
    low, high = np.quantile(_drawn_means(values, block, draws, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    centre, wider = values.mean(), _expansion(len(values) / block)
    return float(centre - wider * (centre - low)), float(centre + wider * (high - centre))


def _drawn_means(values_U: Doubles, block: int, draws: int, seed: int) -> Doubles:
    random = np.random.default_rng(seed)
    count = len(values_U)
    whole, rest = divmod(count, block)
    sums_D = _block_sums(values_U, block)[random.integers(count, size=(draws, whole))].sum(axis=1)
    if rest:
        sums_D += _block_sums(values_U, rest)[random.integers(count, size=draws)]
    return np.asarray(sums_D / count)


def _expansion(blocks: float) -> float:
    return float(special.stdtrit(blocks - 1, (1 + LEVEL) / 2) / REACH * np.sqrt(blocks / (blocks - 1))) if blocks >= 2 else np.nan


def _block_sums(values_U: Doubles, width: int) -> Doubles:
    """Sum of the `width` values from each place on, in a circle."""
    running = np.cumsum(np.concatenate([[0.0], values_U, values_U[: width - 1]]))
    return np.asarray(running[width:] - running[:-width])


def autocorrelation(values_U: npt.ArrayLike) -> float:
    """Correlation of neighbours, sum of U - 1 products over sum of U squares, plus the (1 + 4 r) / U by which it is too low; within -+0.99.

    Of that, (1 + 3 r) / U is lost to the estimated mean (Marriott & Pope 1954, Biometrika 41:390), r / U to the missing product.
    """
    values = np.asarray(values_U, dtype=np.float64)
    if not _moves(values):
        return np.nan
    centred = values - values.mean()
    r = float(np.dot(centred[1:], centred[:-1]) / np.dot(centred, centred))
    return float(np.clip(r + (1 + 4 * r) / len(values), -0.99, 0.99))


def block_length(count: int, correlation: float) -> int:
    """The block that estimates the variance of the mean best: (6 (phi / (1 - phi^2))^2 U)^(1/3), rounded up, at most U / 3.

    This is what Politis & White (2004, Econometric Reviews 23:53) derive for circular blocks, written out for a first-order process.
    """
    best = (6 * (correlation / (1 - correlation**2)) ** 2 * count) ** (1 / 3)
    return int(np.clip(np.ceil(best), 1, max(count // 3, 1)))


def highest_correlation(estimate: float, count: int) -> float:
    """Upper end of the 95 % interval of an estimated correlation of neighbours, by Bartlett's standard error sqrt((1 - r^2) / U)."""
    return float(estimate + REACH * np.sqrt((1 - estimate**2) / count))


def _interval(values_U: Doubles, estimate: float, draws: int, seed: int) -> tuple[float, float]:
    """Blocks long enough for the highest correlation that the series allows: the price of too long ones is small, that of too short ones is not.

    For the same reason a negative estimate counts as 0: most such series are not alternating, they only look it.
    """
    highest = min(highest_correlation(max(estimate, 0.0), len(values_U)), 0.99)
    return block_bootstrap(values_U, block_length(len(values_U), highest), draws, seed)


def coverage(length: int, correlation: float, series: int = 1000, draws: int = 500, seed: int = 0) -> float:
    """How often such an interval holds the true mean of normal first-order series of this correlation; 0.95 is promised.

    Measured with 2,000 series of 40 updates: 0.96, 0.95, 0.94 and 0.87 for correlations of 0, 0.4, 0.8 and 0.9.
    """
    return float(_trials(length, np.full(series, correlation), draws, seed)[1].mean())


def coverage_by_estimate(length: int, series: int = 20_000, draws: int = 500, seed: int = 0) -> tuple[float, ...]:
    """The same where the correlation is only estimated, in groups up to each of `ESTIMATES`, for true ones that are anything from 0 to 0.95.

    This is what a reader meets. On short series it is less than `coverage`, because some that look uncorrelated are not. Series that may
    be walks (`highest_correlation` 1 or more) are left out. NaN below 100 series in a group.
    """
    true_S = np.random.default_rng([seed, 1]).uniform(0, 0.95, series)  # a stream of its own, not that of the series
    estimates_S, holds_S = _trials(length, true_S, draws, seed)
    walk_S = np.array([highest_correlation(estimate, length) >= 1 for estimate in estimates_S])
    group_S = np.where(walk_S, -1, np.searchsorted(ESTIMATES, estimates_S))
    return tuple(float(holds_S[group_S == g].mean()) if (group_S == g).sum() >= 100 else np.nan for g in range(len(ESTIMATES)))


def _trials(length: int, correlations_S: Doubles, draws: int, seed: int) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Estimated correlation of each series, and whether its interval holds the true mean, 0."""
    random = np.random.default_rng(seed)
    estimates, holds = [], []
    for number, correlation in enumerate(correlations_S):
        values = _autoregressive(random, (1, length), float(correlation))[0]
        estimates.append(autocorrelation(values))
        low, high = _interval(values, estimates[-1], draws, number)
        holds.append(low <= 0 <= high)
    return np.array(estimates), np.array(holds)


#: Measured by `coverage_by_estimate`: a row for each length, a column for estimated correlations up to each number. A slow test measures again.
LENGTHS = (20, 30, 40, 60, 80, 160, 320, 640, 1280)
ESTIMATES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
COVERAGE = (
    (0.886, 0.908, 0.941, 0.921, 0.924, np.nan),
    (0.893, 0.921, 0.932, 0.954, 0.941, np.nan),
    (0.889, 0.927, 0.933, 0.944, 0.950, 0.942),
    (0.907, 0.932, 0.932, 0.934, 0.950, 0.960),
    (0.925, 0.935, 0.930, 0.937, 0.947, 0.962),
    (0.923, 0.935, 0.946, 0.933, 0.930, 0.949),
    (0.918, 0.942, 0.938, 0.935, 0.941, 0.928),
    (0.955, 0.938, 0.944, 0.943, 0.934, 0.927),
    (0.923, 0.954, 0.938, 0.938, 0.939, 0.935),
)
#: Intervals that hold the true mean less often than this are not shown.
LEAST_COVERAGE = 0.9


def expected_coverage(count: int, estimate: float) -> float:
    """Measured coverage at this estimated correlation and the next shorter length of the table; NaN outside it."""
    row, column = int(np.searchsorted(LENGTHS, count, side="right")) - 1, int(np.searchsorted(ESTIMATES, estimate))
    return COVERAGE[row][column] if row >= 0 and column < len(ESTIMATES) else np.nan


def interval_over_updates(values_U: npt.ArrayLike, seed: int = 0) -> Interval:
    """95 % interval of the mean over updates, where such intervals were measured to hold it at least 90 % of the time; else NaN and why not.

    It says where the mean of a stationary series lies, not where another seed would put it. A series that may be a walk has no mean and
    is refused, though of walks of 20 to 80 updates one in seven slips through. A slow trend in noise is not noticed.
    """
    values = np.asarray(values_U, dtype=np.float64)
    reason = _fault(values) or _doubt(len(values), autocorrelation(values))
    return Interval(reason=reason) if reason else Interval(*_interval(values, autocorrelation(values), 1000, seed))


def _fault(values_U: Doubles) -> str:
    bad = int((~np.isfinite(values_U)).sum())
    if bad:
        return f"{bad} of {len(values_U)} values are not finite"
    if len(values_U) < LENGTHS[0]:
        return f"{len(values_U)} updates: intervals were measured from {LENGTHS[0]} on"
    return "" if _moves(values_U) else "the value never changed"


def _doubt(count: int, estimate: float) -> str:
    known = f"{count} updates with neighbours correlated by {estimate:.2f}"
    if estimate > ESTIMATES[-1] or highest_correlation(estimate, count) >= 1:
        return f"{known}: this may be a walk, which has no mean"
    expected = expected_coverage(count, estimate)
    return "" if expected >= LEAST_COVERAGE else f"{known}: an interval would hold the mean {expected:.1%} of the time instead of {LEVEL:.0%}"


def in_brackets(low: float, high: float, form: str = "+.2f") -> str:
    """`[low, high]`, or that there is none: one seed has no interval."""
    return f"[{low:{form}}, {high:{form}}]" if np.isfinite([low, high]).all() else "(no interval)"


def interval_over_seeds(values_S: npt.ArrayLike) -> Interval:
    """95 % interval of the mean over seeds by Student's t; seeds whose value is not finite are left out. Two seeds at least."""
    values = np.asarray(values_S, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(reason=f"{len(values)} of the seeds have a value: an interval needs two")
    if (values == values[0]).all():
        return Interval(reason="all seeds gave the same value")
    return Interval(*student(values))
