"""How policy and reward model move together: their steps beside each other, cosines, lags.

A *step* is one update, or the sum of a role's updates in one iteration. In an iteration the policy moves first and the reward model is
then refined on the policy's new answers. So a lag counts reward steps from the policy step on: at lag 0 stands the first reward step
after it, and **lag >= 0 is "policy leads"**; at lag -1 stands the reward step just before it, and **lag < 0 is "reward leads"**.

Cosines are exact where the recorder measured them (`other_cosines`, `iteration_cosines`) and sketched between any other two steps, with
the standard error of the sketch and nothing else: what chance would show is said in `analysis.nulls`. What needs no common basis
(norms, and the shapes of `analysis.shapes`) also compares roles of different models; the rest raises the `ValueError` of `same_space`.

Axis letters: P pairs of steps, T policy steps, S reward steps, M modules, R rows, D and E dimensions. Undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import geometry
from analysis.geometry import KEYS, Doubles, Groups, Rows, cosine, ratio
from analysis.trajectory import Floats, Ints, Trajectory, same_space
from interplay.records import OTHER_ROLE

By = Literal["iteration", "update"]
#: Standard errors of sketched cosines near zero of both roles' steps, T x M and S x M (`sketch_errors`).
Errors = tuple[Doubles, Doubles]


# --- steps and lags ----------------------------------------------------------------------------------


def steps(path: Trajectory, by: By = "iteration") -> Trajectory:
    """One role in steps: its updates, or their sums by iteration (with sketched norms, at the clock of the last update).

    A step that has an unknown update is unknown. In a run that is still going on the last iteration is not complete.
    """
    _check(by)
    return path if by == "update" else geometry.summed(path, path.iterations_U)


def pairs(policy: Trajectory, reward: Trajectory, by: By = "iteration") -> tuple[Trajectory, Trajectory]:
    """Both roles in steps, in the modules that both have. Raises the `ValueError` of `same_space`."""
    first, second = same_space([policy, reward])
    return steps(first, by), steps(second, by)


def lags(policy: Trajectory, reward: Trajectory, by: By = "iteration") -> Ints:
    """T x S: lag of each reward step to each policy step, in iterations or in reward updates; see the top of this file for its sign.

    By update, lag 0 is the first reward update after the policy update, -1 the last before it.
    """
    _check(by)
    if by == "iteration":
        return np.asarray(reward.iterations_U[None, :] - policy.iterations_U[:, None])
    passed_T = np.searchsorted(reward.clocks_U, policy.clocks_U)
    return np.asarray(np.arange(len(reward.clocks_U))[None, :] - passed_T[:, None])


def matched(policy: Trajectory, reward: Trajectory, by: By = "iteration", lag: int = 0) -> tuple[Ints, Ints]:
    """Places of the policy and of the reward steps that stand at one lag, each (P,). By update, one reward update may stand beside many policy updates.

    They are where `lags` is `lag`, without its table: of 10,000 updates each it would have 800 MB.
    """
    _check(by)
    if by == "update":
        s_T = np.searchsorted(reward.clocks_U, policy.clocks_U) + lag
        t_P = np.flatnonzero((s_T >= 0) & (s_T < len(reward.clocks_U)))
        return t_P, np.asarray(s_T[t_P])
    order_S = np.argsort(reward.iterations_U, kind="stable")
    first_T = np.searchsorted(reward.iterations_U, policy.iterations_U + lag, "left", order_S)
    count_T = np.searchsorted(reward.iterations_U, policy.iterations_U + lag, "right", order_S) - first_T
    t_P = np.repeat(np.arange(len(count_T)), count_T)
    before_P = np.repeat(np.cumsum(count_T) - count_T, count_T)
    return t_P, np.asarray(order_S[first_T[t_P] + np.arange(len(t_P)) - before_P])


def matched_deltas(policy: Trajectory, reward: Trajectory, by: By = "iteration", lag: int = 0) -> tuple[Floats, Floats]:
    """The steps at one lag as rows, P x D and P x E (modules times sums); the models may differ. Add them up for positions."""
    t_P, s_P = matched(policy, reward, by, lag)
    return policy.sketches_UTK[t_P].reshape(len(t_P), -1), reward.sketches_UTK[s_P].reshape(len(s_P), -1)


def norm_series(policy: Trajectory, reward: Trajectory, by: By = "iteration", lag: int = 0) -> tuple[Doubles, Doubles]:
    """Norms of the steps that stand at one lag, each (P,), in weight units; the models may differ."""
    t_P, s_P = matched(policy, reward, by, lag)
    return geometry.total_norms(policy)[t_P], geometry.total_norms(reward)[s_P]


def _check(by: str) -> None:
    if by not in ("iteration", "update"):
        raise ValueError(f"by = {by!r} is not known; choose iteration or update")


# --- exact cosines -----------------------------------------------------------------------------------


def other_cosines(updates: pd.DataFrame, role: str, space: str = "factor", rows: Rows = "layer") -> pd.DataFrame:
    """`cosine` of each update of a role with the other role's latest update, exactly, with the largest `attainable` one and the SD of a chance one, `null`."""
    own = geometry.recorded(updates, role, space, rows)
    other = geometry.recorded(updates, _other(own, role), space, rows)
    return _with_other(own, other[["clock", "module", "update_norm"]].rename(columns={"update_norm": "partner"}), "other_update")


def other_iteration_cosines(updates: pd.DataFrame, other: Trajectory, role: str, rows: Rows = "layer") -> pd.DataFrame:
    """`cosine` of each update of a role with what the other role did in its latest complete iteration, with `attainable` and `null` as above.

    Cosines of modules are exact; their weights are norms of the other role's iterations, which only its sketches know (within about
    1/sqrt(2 k_eff) of themselves). `other` is that role's trajectory, whose space is used.
    """
    own, whole = geometry.recorded(updates, role, other.spec.space, rows), steps(other)
    partners = pd.DataFrame(whole.norms_UT.astype(np.float64), index=whole.clocks_U, columns=list(whole.modules_T))
    return _with_other(own, partners.rename_axis("clock").reset_index().melt("clock", var_name="module", value_name="partner"), "other_iteration")


def iteration_cosines(updates: pd.DataFrame, mover: Trajectory, other: Trajectory, rows: Rows = "whole") -> pd.DataFrame:
    """`cosine` of a role's whole iteration with the other role's latest complete one before it: lag 0 if `mover` is the reward model, -1 if the policy.

    Columns row, iteration, other_iteration, cosine. Far better than the sketched cosine near 0: inner products are linear, so those of
    the recorded updates add up to <R, P> / |P| = sum_u cos_other_iteration_u |d_u|, exactly, for each module; only the norms |R|, and |P|
    where modules are put together, come from sketches, and err in proportion. Cut at -1 and 1. Raises the `ValueError` of `same_space`.
    """
    first, second = same_space([mover, other])
    own, their = steps(first), steps(second)
    begins_S = np.array([mover.clocks_U[mover.iterations_U == number].min() for number in own.iterations_U], dtype=np.int64)
    latest_S = np.searchsorted(their.clocks_U, begins_S) - 1
    has = latest_S >= 0
    inner_SM, own_SM, their_SM = _summed_products(updates, own)[has], own.norms_UT[has].astype(np.float64), their.norms_UT[latest_S[has]].astype(np.float64)
    groups = Groups.of(own, rows)
    found_SR = geometry.composed(inner_SM * their_SM, own_SM**2, their_SM**2, groups)
    index = pd.MultiIndex.from_product([own.iterations_U[has], groups.names], names=["iteration", "row"])
    between = np.repeat(their.iterations_U[latest_S[has]], len(groups.names))
    return pd.DataFrame({"other_iteration": between, "cosine": found_SR.ravel()}, index=index).reset_index()


def _summed_products(updates: pd.DataFrame, own: Trajectory) -> Doubles:
    """<R, P> / |P| of each iteration and module; NaN if one of its updates is unknown."""
    rows = geometry.recorded(updates, own.role, own.spec.space, "module")
    product = (rows["cos_other_iteration"].astype(np.float64) * rows["update_norm"]).mask(rows["update_norm"] == 0, 0.0)
    table = rows.assign(product=product.fillna(np.inf)).pivot_table(index="iteration", columns="module", values="product", aggfunc="sum")
    return np.asarray(table.replace(np.inf, np.nan).reindex(index=own.iterations_U, columns=list(own.modules_T)), dtype=np.float64)


def _other(own: pd.DataFrame, role: str) -> str:
    """The role that the recorder compared with."""
    named = own["other_role"].dropna()
    return str(named.iloc[0]) if len(named) else OTHER_ROLE.get(role, "")


def _with_other(own: pd.DataFrame, other: pd.DataFrame, which: str) -> pd.DataFrame:
    """Compose the cosines `cos_<which>` with the other role's latest norms before each update, module by module."""
    if own.empty or other.empty:
        beside = own.assign(partner=np.nan)
    else:
        beside = pd.merge_asof(own, other.astype({"module": own["module"].dtype}).sort_values("clock"), on="clock", by="module", allow_exact_matches=False)
    found = geometry.composed_rows(beside.assign(cosine=beside[f"cos_{which}"]))
    return found.assign(attainable=_attainable(beside, f"attainable_{which}"), null=_null(beside, f"null_{which}"))


def _null(beside: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Chance SD of a row's cosine (`nulls.null_sd`); NaN where no module has one, as in recordings made before it was recorded."""
    sd = beside[column].astype(np.float64) if column in beside else pd.Series(np.nan, index=beside.index)
    known = sd.notna() & beside[["update_norm", "partner"]].notna().all(axis=1)
    own, partner = (beside[name].astype(np.float64).where(known) for name in ("update_norm", "partner"))
    sums = beside[KEYS].assign(spread=(sd * own * partner) ** 2, own=own**2, partner=partner**2).groupby(KEYS, sort=False, observed=True).sum()
    return ratio(np.sqrt(sums["spread"]), np.sqrt(sums["own"]) * np.sqrt(sums["partner"]))


def _attainable(beside: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """Largest cosine of a row: the part of the other's change that all modules together can reach, sqrt(sum (a_m |p_m|)^2 / sum |p_m|^2)."""
    whole = beside["partner"].astype(np.float64) ** 2
    reached = beside[column].astype(np.float64) ** 2 * whole
    sums = beside[KEYS].assign(reached=reached, whole=whole.where(reached.notna())).groupby(KEYS, sort=False, observed=True).sum()
    return np.sqrt(ratio(sums["reached"], sums["whole"]))


# --- sketched cosines --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cosines:
    """Sketched cosines and their standard errors from the sketch alone, of one shape."""

    values: Doubles
    errors: Doubles


def sketch_errors(directions: pd.DataFrame, path: Trajectory, by: By = "iteration") -> Doubles:
    """`standard_error` of the `directions` stream for each step and module of a stepped path, NaN where not recorded.

    Columns clock, iteration, role, module and standard_error are needed. A sum of updates has no recorded error: it gets the root mean
    square of theirs, as if their energy were spread alike.
    """
    _check(by)
    own = directions[directions["role"] == path.role].astype({"module": str})
    square = own.assign(square=own["standard_error"].astype(np.float64) ** 2)
    place, index_S = ("iteration", path.iterations_U) if by == "iteration" else ("clock", path.clocks_U)
    table = square.pivot_table(index=place, columns="module", values="square", aggfunc="mean")
    return np.sqrt(np.asarray(table.reindex(index=index_S, columns=list(path.modules_T)), dtype=np.float64))


def cosine_matrix(policy: Trajectory, reward: Trajectory, errors: Errors | None = None) -> Cosines:
    """cos(policy step t, reward step s) over all modules together, T x S, with the sketch's standard error.

    The error of a cosine c is (1 - c^2) / sqrt(k_eff) (docs/metrics.md). Inner products of modules add, so do their variances:

        1 / k_eff = sum_m (e_m |x_m| |y_m|)^2 / (|x| |y|)^2,  e_m^2 = product of both steps' errors of module m,

    an upper limit by Cauchy and Schwarz, for a cosine near 0; away from 0 it is exact where modules are alike. Without `errors` every module
    has 1/sqrt(k), the least possible. Signs are the same at all times, so errors of neighbouring steps do not average out.
    Raises the `ValueError` of `same_space`, and one if `errors` are of another shape than the common modules.
    """
    first, second, (e_TM, f_SM) = _checked(policy, reward, errors)
    length_TS = geometry.lengths(first, second)
    values_TS = cosine(geometry.gram(first, second), length_TS)
    variance_TS = _weighted(first, e_TM) @ _weighted(second, f_SM).T
    return Cosines(values_TS, (1 - values_TS**2) * ratio(np.sqrt(variance_TS), length_TS))


def paired_cosines(
    policy: Trajectory, reward: Trajectory, by: By = "iteration", lag: int = 0, rows: Rows = "whole", errors: Errors | None = None
) -> pd.DataFrame:
    """Cosines of the steps that stand at one lag, for each row.

    Columns row, update, clock, iteration (of the policy), other_clock, other_iteration, cosine and `standard_error` as in `cosine_matrix`.
    """
    first, second, (e_TM, f_SM) = _checked(policy, reward, errors)
    groups, (t_P, s_P) = Groups.of(first, rows), matched(first, second, by, lag)
    x_PM, y_PM = geometry.squares(first)[t_P], geometry.squares(second)[s_P]
    cosines_PR = geometry.composed(geometry.products(first.sketches_UTK[t_P], second.sketches_UTK[s_P]), x_PM, y_PM, groups)
    both_PM = np.isfinite(x_PM) & np.isfinite(y_PM)
    length_PR = np.sqrt(groups.sum(np.where(both_PM, x_PM, 0.0))) * np.sqrt(groups.sum(np.where(both_PM, y_PM, 0.0)))
    spread_PR = np.sqrt(groups.sum(_weighted(first, e_TM)[t_P] * _weighted(second, f_SM)[s_P]))
    times = {"update": first.updates_U[t_P], "clock": first.clocks_U[t_P], "iteration": first.iterations_U[t_P]}
    others = {"other_clock": second.clocks_U[s_P], "other_iteration": second.iterations_U[s_P]}
    repeated = {name: np.repeat(values, len(groups.names)) for name, values in (times | others).items()}
    found = {"cosine": cosines_PR.ravel(), "standard_error": ((1 - cosines_PR**2) * ratio(spread_PR, length_PR)).ravel()}
    return pd.DataFrame({"row": list(groups.names) * len(t_P)} | repeated | found)


def lag_cosines(policy: Trajectory, reward: Trajectory, by: By, wanted: Iterable[int]) -> dict[int, Doubles]:
    """Cosines over all modules together of the steps that stand at each of some lags, lag -> (P,): what `cosine_matrix` has on these diagonals.

    Their cost grows with the number of steps and not with its square. Raises the `ValueError` of `same_space`.
    """
    first, second = same_space([policy, reward])
    whole, x_TM, y_SM = Groups.of(first, "whole"), geometry.squares(first), geometry.squares(second)
    found = {}
    for lag in wanted:
        t_P, s_P = matched(first, second, by, lag)
        inner_PM = geometry.products(first.sketches_UTK[t_P], second.sketches_UTK[s_P])
        found[lag] = geometry.composed(inner_PM, x_TM[t_P], y_SM[s_P], whole)[:, 0]
    return found


def _checked(policy: Trajectory, reward: Trajectory, errors: Errors | None) -> tuple[Trajectory, Trajectory, Errors]:
    first, second = same_space([policy, reward])
    if errors is None:
        least = first.spec.k**-0.5
        return first, second, (np.full(first.norms_UT.shape, least), np.full(second.norms_UT.shape, least))
    shapes = [error.shape for error in errors]
    if shapes != [first.norms_UT.shape, second.norms_UT.shape]:
        raise ValueError(f"errors have shapes {shapes}, the steps {[first.norms_UT.shape, second.norms_UT.shape]}; take both from `pairs`")
    return first, second, errors


def _weighted(path: Trajectory, errors_SM: Doubles) -> Doubles:
    """|x|^2 e, whose product with that of the other role is (e |x| |y|)^2; 0 where nothing moved, whose error is undefined."""
    squares_SM = np.nan_to_num(geometry.squares(path))
    return np.where(squares_SM > 0, squares_SM * errors_SM, 0.0)


# --- who leads ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """`index` > 0: cosines are larger where the policy leads; `peak` is the lag of the largest |mean|, or None."""

    index: float
    peak: int | None


def cross_lag(cosines_TS: Doubles, lags_TS: Ints, most: int = 3) -> pd.DataFrame:
    """Means over the diagonals of a cosine matrix: columns lag (-most..most), mean, mean_abs, count.

    Pairs on a diagonal are not independent, so count is not a sample size. Raises `ValueError` for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most = {most} must be at least 1")
    return pd.DataFrame([_diagonal(cosines_TS[lags_TS == lag], lag) for lag in range(-most, most + 1)])


def _diagonal(values_P: Doubles, lag: int) -> dict[str, float]:
    good = values_P[np.isfinite(values_P)]
    return {"lag": lag, "mean": _mean(good), "mean_abs": _mean(np.abs(good)), "count": len(good)}


def direction(table: pd.DataFrame) -> Direction:
    """Which role leads, from `cross_lag`: mean |cos| over lags 0..L-1 minus mean |cos| over lags -L..-1, and the lag of the largest |mean|.

    So many reward steps after a policy step are held against as many before it, nearest first (lag L has no counterpart). Noise makes |cos|
    positive on both sides alike and cancels, but a difference of 0.01 means nothing without a null. NaN if one side has no pair.
    """
    lag, size = table["lag"].to_numpy(), table["mean_abs"].to_numpy(np.float64)
    after, before = ((lag >= 0) & (lag < lag.max())), lag < 0
    strength = np.abs(table["mean"].to_numpy(np.float64))
    peak = int(lag[np.nanargmax(strength)]) if np.isfinite(strength).any() else None
    return Direction(_mean(size[after & np.isfinite(size)]) - _mean(size[before & np.isfinite(size)]), peak)


def _mean(values: Doubles) -> float:
    return float(values.mean()) if len(values) else np.nan
