"""What one role does in weight space: how far, how straight, how persistently, in how many directions.

Two sources. Frames of the `updates` stream hold exact numbers of single modules, put together here for a layer, a kind of module or the whole.
A `Trajectory` holds sketches, and with them the angle between any two updates. Squared norms and inner products of modules add, cosines do not:

    norm^2 = sum_m |d_m|^2        cos(d, e) = sum_m <d_m, e_m> / sqrt(sum_m |d_m|^2 sum_m |e_m|^2)

Axis letters: U updates, T modules, K sums of a sketch, R rows of a picture (modules, layers, kinds or the whole), L lags. All norms are
in weight units. Undefined is NaN: a norm with an unknown module is unknown, a cosine leaves out the modules of which either side is unknown.

Sketched positions are sums of updates. A reward model that is averaged with its older self between iterations (keep-close) moves without an
update: its exact columns know where it is, its sketched positions do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.trajectory import OUTSIDE, Floats, Ints, Trajectory, layer_words

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
#: What one row of a picture stands for.
Rows = Literal["whole", "layer", "kind", "module"]

KEYS = ["row", "update", "clock", "iteration"]
NORMS = ["update_norm", "weight_norm", "displacement_norm"]


# --- exact: frames of the `updates` stream -----------------------------------------------------------


def recorded(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """One role's rows of one space in the order of the clock, with the column `row` in front.

    Plain tensors (heads, full training) are recorded in the effective space only; it is their own, so they are part of both.
    Raises `ValueError` for unknown `rows`.
    """
    own = updates[updates["role"] == role].astype({"module": str})
    wanted = own["space"] == space
    own = own[wanted | ~own["module"].isin(own.loc[wanted, "module"].unique())]
    return own.assign(row=_row_names(own, rows)).sort_values("clock", kind="stable", ignore_index=True)


def norms(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """One row for each row and update: update, weight and displacement norm, and `relative_norm` = update norm / weight norm after the update.

    In the effective space of a fresh adapter the weight is s B A alone, so the first relative norm is 1 whatever happened.
    """
    own = recorded(updates, role, space, rows)
    found = _strict_sums(own[KEYS].join(own[NORMS].astype(np.float64) ** 2), NORMS)
    found[NORMS] = np.sqrt(found[NORMS])
    return found.assign(relative_norm=ratio(found["update_norm"], found["weight_norm"]))


def shares(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """Each row's `share` of the squared norm of an update: the shares of one update sum to 1. NaN for an update with an unknown module."""
    found = norms(updates, role, space, rows)
    square = found.pop("update_norm") ** 2
    total = square.groupby(found["update"]).transform("sum")
    unknown = square.isna().groupby(found["update"]).transform("any")
    return found[KEYS].assign(share=ratio(square, total.mask(unknown)))


def straightness(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """How much of its way a role has kept, after each update, exactly.

    `length` is the sum of update norms so far, `displacement` the distance from the start of the run, `straightness` = displacement / length
    in [0, 1] and `winding` its inverse. A random walk of U equal updates has about 1/sqrt(U). Averaging with older weights between
    iterations (keep-close) is part of the displacement and not of the length.
    """
    found = norms(updates, role, space, rows).rename(columns={"displacement_norm": "displacement"})
    known = found["update_norm"].isna().groupby(found["row"]).cumsum() == 0
    length = found["update_norm"].groupby(found["row"]).cumsum().where(known)
    # recorded norms are rounded to fp32, so a straight path may come out above 1 by 1e-7
    straight = np.minimum(ratio(found["displacement"], length), 1.0)
    return found[[*KEYS, "displacement"]].assign(length=length, straightness=straight, winding=ratio(np.ones(len(found)), straight))


def previous_cosines(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """`cosine` of each update with the role's previous one, exactly: persistence at lag 1."""
    own = recorded(updates, role, space, rows)
    return composed_rows(own.assign(cosine=own["cos_previous"], partner=own.groupby("module")["update_norm"].shift()))


def displacement_cosines(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """`cosine` of each update with the displacement before it, exactly: above 0 it goes on, below 0 it goes back.

    Modules are weighted with the displacement norm that the update before left. Where weights were averaged in between (keep-close),
    this weight, not the modules' cosines, is that of before the averaging.
    """
    own = recorded(updates, role, space, rows)
    return composed_rows(own.assign(cosine=own["cos_displacement"], partner=own.groupby("module")["displacement_norm"].shift()))


def composed_rows(modules: pd.DataFrame) -> pd.DataFrame:
    """Cosines of rows from those of modules. Needs `KEYS`, `cosine`, `update_norm` and `partner`, the norm of what each update was compared with."""
    numbers = modules[["cosine", "update_norm", "partner"]].astype(np.float64)
    still = (numbers["update_norm"] == 0) | (numbers["partner"] == 0)
    numbers["cosine"] = numbers["cosine"].mask(still, 0.0)  # the cosine is undefined there, but the inner product is 0
    numbers[numbers.isna().any(axis=1)] = 0.0
    inner = numbers["cosine"] * numbers["update_norm"] * numbers["partner"]
    sums = modules[KEYS].assign(inner=inner, own=numbers["update_norm"] ** 2, other=numbers["partner"] ** 2)
    found = sums.groupby(KEYS, sort=False, observed=True, as_index=False).sum()
    return found[KEYS].assign(cosine=cosine(found["inner"], np.sqrt(found["own"]) * np.sqrt(found["other"])))


def _row_names(own: pd.DataFrame, rows: Rows) -> Any:
    _check_rows(rows)
    if rows == "whole":
        return "whole"
    if rows == "layer":
        return layer_words(own["layer"])
    return own[rows].astype(str)


def _strict_sums(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Sums by `KEYS` in which one unknown makes the sum unknown; infinity carries it through pandas' sum, which would skip NaN."""
    grouped = frame.fillna(dict.fromkeys(columns, np.inf)).groupby(KEYS, sort=False, observed=True, as_index=False)
    return grouped[columns].sum().replace(np.inf, np.nan)


# --- sketched: rows, squares, cosines ----------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Which row each module of a trajectory belongs to."""

    names: tuple[str, ...]
    place_T: Ints

    @classmethod
    def of(cls, path: Trajectory, rows: Rows) -> Groups:
        """Rows in the order of the modules. Raises `ValueError` for unknown `rows`."""
        labels = _labels(path, rows)
        names = tuple(dict.fromkeys(labels))
        return cls(names, np.array([names.index(label) for label in labels], dtype=np.int64))

    def sum(self, values_XT: Doubles) -> Doubles:
        """Sums over the modules of each row: (..., T) to (..., R)."""
        total_XR = np.zeros((*values_XT.shape[:-1], len(self.names)))
        for r in range(len(self.names)):
            total_XR[..., r] = values_XT[..., self.place_T == r].sum(axis=-1)
        return total_XR


def ratio(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Doubles:
    """top / bottom, NaN where bottom is not above 0."""
    over, under = np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64))
    return np.asarray(np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0))


def cosine(inner: npt.ArrayLike, length: npt.ArrayLike) -> Doubles:
    """inner / length in [-1, 1], NaN where the length is 0; the limits only cut what rounding adds."""
    return np.asarray(np.clip(ratio(inner, length), -1.0, 1.0))


def known(path: Trajectory) -> Mask:
    """U x T: which updates of which modules were recorded. An update that was not finite has neither a norm nor a sketch."""
    return np.asarray(np.isfinite(path.norms_UT) | path.sketches_UTK.any(axis=2))


def products(x_UTK: Floats, y_UTK: Floats) -> Doubles:
    """Sketched inner products, module by module: U x T, unbiased."""
    return np.asarray(np.einsum("utk,utk->ut", x_UTK, y_UTK, dtype=np.float64))


def squares(path: Trajectory) -> Doubles:
    """Sketched squared norms, U x T, NaN where unknown. Cosines use these, not the exact norms: then equal updates have cosine 1."""
    return np.where(known(path), products(path.sketches_UTK, path.sketches_UTK), np.nan)


def total_norms(path: Trajectory) -> Doubles:
    """Norm of each update over all modules, (U,): exact where recorded, else of the sketch; needs no common basis with anybody."""
    exact_UT = path.norms_UT.astype(np.float64) ** 2
    return np.asarray(np.sqrt(np.where(np.isfinite(exact_UT), exact_UT, squares(path)).sum(axis=1)))


def composed(inner_XT: Doubles, own_XT: Doubles, other_XT: Doubles, groups: Groups) -> Doubles:
    """Cosines of rows (..., R) from inner products and squared norms of modules (..., T); modules with a NaN are left out."""
    good = np.isfinite(inner_XT) & np.isfinite(own_XT) & np.isfinite(other_XT)
    inner, own, other = (groups.sum(np.where(good, values, 0.0)) for values in (inner_XT, own_XT, other_XT))
    return cosine(inner, np.sqrt(own) * np.sqrt(other))


def gram(path: Trajectory, other: Trajectory | None = None) -> Doubles:
    """Inner products of all updates (U x S), summed over modules; both must have the same modules (`same_space`)."""
    theirs = path if other is None else other
    total = np.zeros((len(path.updates_U), len(theirs.updates_U)))
    for t in range(len(path.modules_T)):  # in double precision one module at a time, so memory stays that of one
        total += path.sketches_UTK[:, t].astype(np.float64) @ theirs.sketches_UTK[:, t].astype(np.float64).T
    return total


def lengths(path: Trajectory, other: Trajectory | None = None) -> Doubles:
    """Product of the norms of all pairs of updates (U x S), over the modules that are known in both."""
    theirs = path if other is None else other
    own, them = (np.nan_to_num(squares(item)) for item in (path, theirs))
    return np.asarray(np.sqrt(own @ known(theirs).T.astype(float)) * np.sqrt(known(path).astype(float) @ them.T))


def _labels(path: Trajectory, rows: Rows) -> list[str]:
    _check_rows(rows)
    if rows == "whole":
        return ["whole"] * len(path.modules_T)
    if rows == "layer":
        return ["outside" if layer == OUTSIDE else str(layer) for layer in path.layers_T]
    return [_kind(name) if rows == "kind" else name for name in path.modules_T]


def _kind(module: str) -> str:
    """Last word of a module path that is not a number, as the recorder names kinds."""
    return next((word for word in reversed(module.split(".")) if not word.isdecimal()), module)


def _check_rows(rows: str) -> None:
    if rows not in get_args(Rows):
        raise ValueError(f"rows = {rows!r} is not known; choose one of {', '.join(get_args(Rows))}")


# --- sketched: what a path does ----------------------------------------------------------------------


def cosine_matrix(path: Trajectory) -> Doubles:
    """cos(d_t, d_s) of all pairs of updates (U x U), all modules together; its diagonals are persistence at one lag each."""
    return cosine(gram(path), lengths(path))


def lagged_cosines(path: Trajectory, lags: int = 5, rows: Rows = "whole") -> Doubles:
    """Persistence cos(d_t, d_{t-l}) for l = 1..lags, (L, U, R); NaN for the first l updates. Lag 1 is exact in `previous_cosines`."""
    groups, squares_UT = Groups.of(path, rows), squares(path)
    found_LUR = np.full((lags, len(path.updates_U), len(groups.names)), np.nan)
    for lag in range(1, min(lags, len(path.updates_U) - 1) + 1):
        inner = products(path.sketches_UTK[lag:], path.sketches_UTK[:-lag])
        found_LUR[lag - 1, lag:] = composed(inner, squares_UT[lag:], squares_UT[:-lag], groups)
    return found_LUR


def lag_means(cosines_LUR: Doubles, names: tuple[str, ...]) -> pd.DataFrame:
    """Mean over updates of lagged cosines, and how many there are: columns row, lag, mean, count.

    The means of neighbouring updates are not independent: count is not a sample size.
    """
    good = np.isfinite(cosines_LUR)
    mean_LR = ratio(np.where(good, cosines_LUR, 0.0).sum(axis=1), good.sum(axis=1))
    index = pd.MultiIndex.from_product([range(1, len(mean_LR) + 1), names], names=["lag", "row"])
    return pd.DataFrame({"mean": mean_LR.ravel(), "count": good.sum(axis=1).ravel()}, index=index).reset_index()


def sketched_displacement_cosines(path: Trajectory, rows: Rows = "whole") -> Doubles:
    """Cosine of each update with the sum of all updates before it, (U, R); the first is NaN. Exact: `displacement_cosines`.

    A module is left out from its first unknown update on, because then its position is unknown.
    """
    groups, before_UTK = Groups.of(path, rows), path.positions_UTK[:-1]
    whole_UT = np.cumsum(~known(path), axis=0)[:-1] == 0
    reach_UT = np.where(whole_UT, products(before_UTK, before_UTK), np.nan)
    found_UR = np.full((len(path.updates_U), len(groups.names)), np.nan)
    found_UR[1:] = composed(products(path.sketches_UTK[1:], before_UTK), squares(path)[1:], reach_UT, groups)
    return found_UR


def sketched_straightness(path: Trajectory, rows: Rows = "whole") -> Doubles:
    """Length of the sum of updates over sum of their lengths, after each update, (U, R) in [0, 1]. Exact: `straightness`."""
    groups, squares_UT, positions_UTK = Groups.of(path, rows), squares(path), path.positions_UTK
    length_UR = np.cumsum(np.sqrt(groups.sum(squares_UT)), axis=0)
    displacement_UR = np.sqrt(groups.sum(products(positions_UTK, positions_UTK)))
    return np.minimum(ratio(displacement_UR, length_UR), 1.0)


def effective_dimension(gram_UU: Doubles) -> float:
    """Participation ratio (sum l)^2 / sum l^2 of the eigenvalues l of a Gram matrix, between 1 and their number; NaN if nothing moved.

    As used for neural populations (Gao et al. 2017, doi:10.1101/214262). Needs no eigenvalues: their sum is the trace, their squares sum to
    the squared entries. Long updates count more. From sketches it is too small, because the error of an inner product squares to something
    positive: 1 / sketched is about 1 / true + 1 / k_eff, so it cannot exceed the number of sums in all modules together.
    """
    return float(ratio(np.trace(gram_UU) ** 2, (gram_UU**2).sum()))


def effective_dimensions(path: Trajectory, rows: Rows = "whole") -> dict[str, float]:
    """Row -> participation ratio of its updates, from sketches; unknown updates count as none."""
    groups = Groups.of(path, rows)
    parts = {name: [path.modules_T[t] for t in np.flatnonzero(groups.place_T == r)] for r, name in enumerate(groups.names)}
    return {name: effective_dimension(gram(path.only(modules))) for name, modules in parts.items()}


def differences(path: Trajectory, order: int = 1) -> Trajectory:
    """Differences of positions. Order 1 is the velocity, which is the updates themselves; order 2 the acceleration, update minus update before.

    Accelerations of independent updates have cosine -1/2 with their neighbours, by construction. Raises `ValueError` for other orders.
    """
    if order not in (1, 2):
        raise ValueError(f"order = {order} is not known; 1 is velocity (the updates), 2 is acceleration")
    if order == 1:
        return path
    return _replaced(path, np.diff(path.sketches_UTK, axis=0), known(path)[1:] & known(path)[:-1], np.arange(1, len(path.updates_U)))


def summed(path: Trajectory, place_U: Ints) -> Trajectory:
    """The path in longer steps: updates of one place are added; a step stands at its last update. Norms are those of sketches."""
    steps = np.unique(place_U)
    sketches_STK = [path.sketches_UTK[place_U == step].sum(axis=0, dtype=np.float64) for step in steps]
    known_ST = [known(path)[place_U == step].all(axis=0) for step in steps]
    last_S = np.array([np.flatnonzero(place_U == step)[-1] for step in steps], dtype=np.int64)
    shape = (len(steps), *path.sketches_UTK.shape[1:])
    return _replaced(path, np.reshape(sketches_STK, shape).astype(np.float32), np.reshape(known_ST, shape[:2]).astype(bool), last_S)


def _replaced(path: Trajectory, sketches_STK: Floats, known_ST: Mask, index_S: Ints) -> Trajectory:
    """Other steps of the same path; a step with an unknown part has no sketch and no norm."""
    sketches_STK = np.where(known_ST[:, :, None], sketches_STK, np.float32(0))
    norms_ST = np.where(known_ST, np.sqrt(products(sketches_STK, sketches_STK)), np.nan).astype(np.float32)
    times = {name: getattr(path, name)[index_S] for name in ("updates_U", "clocks_U", "iterations_U")}
    return replace(path, **times, norms_UT=norms_ST, sketches_UTK=sketches_STK)


# --- extrapolation -----------------------------------------------------------------------------------


def extrapolation(path: Trajectory, window: int = 5, horizon: int = 5) -> pd.DataFrame:
    """How well a straight line foresees the path: the next `horizon` updates from the mean of the last `window`, judged on those updates.

    One row for each update after which there is a full window before and a full horizon behind. `error` = |predicted - true| / |true|, true
    the displacement over the horizon; staying where one is has error `stay` = 1, and a random direction of the prediction's length
    the root mean square error `random` = sqrt(1 + |predicted|^2 / |true|^2). `cosine` is between predicted and true. NaN where nothing
    moved or an update is unknown. Neighbouring rows share updates, so they are no independent trials.
    Raises `ValueError` for a window or a horizon below 1.
    """
    if window < 1 or horizon < 1:
        raise ValueError(f"window = {window} and horizon = {horizon} must be at least 1")
    now_S = np.arange(window, len(path.updates_U) - horizon + 1)
    guess2, true2, inner = _forecast_sums(path, now_S, window, horizon)
    true2 = np.where(_unknown(path, now_S - window, now_S + horizon), np.nan, true2)
    error2 = ratio(np.maximum(guess2 - 2 * inner + true2, 0.0), true2)
    times = {"update": path.updates_U[now_S - 1], "clock": path.clocks_U[now_S - 1], "iteration": path.iterations_U[now_S - 1]}
    judged = {"error": np.sqrt(error2), "stay": np.where(true2 > 0, 1.0, np.nan), "random": np.sqrt(1 + ratio(guess2, true2))}
    return pd.DataFrame(times | judged | {"cosine": cosine(inner, np.sqrt(guess2) * np.sqrt(true2))})


def _forecast_sums(path: Trajectory, now_S: Ints, window: int, horizon: int) -> Doubles:
    """|predicted|^2, |true|^2 and <predicted, true>, 3 x S, from running sums of the updates."""
    found = np.zeros((3, len(now_S)))
    for t in range(len(path.modules_T)):  # in double precision one module at a time, so memory stays that of one
        table = np.pad(np.cumsum(path.sketches_UTK[:, t], axis=0, dtype=np.float64), ((1, 0), (0, 0)))
        guess = horizon / window * (table[now_S] - table[now_S - window])
        true = table[now_S + horizon] - table[now_S]
        found += [(guess**2).sum(axis=1), (true**2).sum(axis=1), (guess * true).sum(axis=1)]
    return found


def _unknown(path: Trajectory, first_S: Ints, end_S: Ints) -> Mask:
    """Is any module of any update from `first` to before `end` unknown?"""
    running = np.concatenate([[0], np.cumsum(~known(path).all(axis=1))])
    return np.asarray(running[end_S] > running[first_S])
