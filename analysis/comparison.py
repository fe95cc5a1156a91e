"""How methods differ: held-out change over seeds, at equal KL, for what cost, and what so few seeds can show at all.

Frames in, numbers out. `completions` and `metrics` are the streams of finished runs, put under each other, with the columns `run`,
`method` and `seed` in front. A score is the change from before training (iteration 0) to an evaluation, on the same held-out prompts:
`gold` in its own units, `proxy` in standard deviations over prompts of that frozen reward model's scores before training, because
reward models have no common scale. The unit of repetition is the seed, never the prompt. What is undefined is NaN here and null in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import scipy

JUDGES = ("gold", "proxy")
LEVEL, POWER = 0.95, 0.8
DRAWS = 10_000
_RUN = ["run", "method", "seed"]
_FEW_SEEDS = 10
#: What is said of the bootstrap alone: a table that shows Student's intervals only need not say it.
BOOTSTRAP = "bootstrap intervals over so few are too narrow, read Student's t beside them"

Array = np.ndarray[Any, np.dtype[np.float64]]


# --- numbers over seeds ----------------------------------------------------------------------------


def mean(values_DS: Array) -> Array:
    return np.asarray(values_DS.mean(axis=-1))


def interquartile_mean(values_DS: Array) -> Array:
    """Mean of the middle half: a quarter is left out at each end, in whole seeds, as in rliable (Agarwal et al. 2021, arXiv 2108.13264).

    Below four seeds nothing is left out, and it is the mean.
    """
    cut = values_DS.shape[-1] // 4
    return mean(np.sort(values_DS, axis=-1)[..., cut : values_DS.shape[-1] - cut])


def student(values_S: Array) -> tuple[float, float]:
    """95 % interval of the mean by Student's t: mean -+ t(0.975, n - 1) s / sqrt(n). Exact for normal values, however few."""
    if len(values_S) < 2:
        return np.nan, np.nan
    reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, len(values_S) - 1) * values_S.std(ddof=1) / len(values_S) ** 0.5)
    return float(values_S.mean()) - reach, float(values_S.mean()) + reach


def bootstrap(values_S: Array, statistic: Callable[[Array], Array] = mean, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a statistic over resampled seeds (Efron 1979, doi:10.1214/aos/1176344552).

    Percentile and not BCa: with a handful of seeds the acceleration of BCa is itself a guess. Be aware: resampling n values spreads by
    sqrt((n - 1) / n) s / sqrt(n) and knows no heavier tail, so with few seeds it covers too little (in 1000 simulated normal samples:
    75 % with three seeds, 80 % with four, 85 % with five, 93 % with twenty, in place of 95 %); Student's interval stands beside it for that reason.
    """
    if len(values_S) < 2:
        return np.nan, np.nan
    drawn_DS = values_S[np.random.default_rng(seed).integers(len(values_S), size=(DRAWS, len(values_S)))]
    low, high = np.quantile(statistic(drawn_DS), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def detectable(spread: float, count: int) -> float:
    """The smallest true mean of `count` normal values of this spread that a two-sided paired t test at 5 % finds in 80 % of repetitions.

    d = nc s / sqrt(n), where P(T > t(0.975, n - 1)) = 0.8 for a noncentral T with n - 1 degrees of freedom and noncentrality nc (Cohen
    1988, ch. 2; the other tail is negligible at this power). The spread is estimated from the same few seeds, so this is a guide.
    """
    if count < 2 or not np.isfinite(spread):
        return np.nan
    critical = scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1)
    shift = scipy.optimize.brentq(lambda nc: scipy.stats.nct.sf(critical, count - 1, nc) - POWER, 0.0, 3 * critical + 5)
    return float(shift * spread / count**0.5)


def estimate(values: Collection[float]) -> dict[str, Any]:
    """Mean and interquartile mean over seeds with their intervals; NaN values (undefined for that seed) are left out and not counted."""
    values_S = np.asarray(list(values), dtype=np.float64)
    values_S = values_S[np.isfinite(values_S)]
    if not len(values_S):
        return {"seeds": 0, "mean": np.nan, "student": (np.nan, np.nan), "bootstrap": (np.nan, np.nan), "iqm": np.nan, "iqm_bootstrap": (np.nan, np.nan)}
    return {
        "seeds": len(values_S),
        "mean": float(mean(values_S)),
        "student": student(values_S),
        "bootstrap": bootstrap(values_S),
        "iqm": float(interquartile_mean(values_S)),
        "iqm_bootstrap": bootstrap(values_S, interquartile_mean),
    }


# --- from completions to scores ----------------------------------------------------------------------


def prompt_changes(completions: pd.DataFrame) -> pd.DataFrame:
    """One row for each run, iteration and held-out prompt: `gold` and `proxy` minus their value before training; KL, tokens, finished as they are.

    A run, or a prompt, without a score from before training (iteration 0) has no change and gives no row.
    """
    held = completions[completions["split"] == "heldout"].drop_duplicates(["run", "iteration", "prompt_id"], keep="last")
    before = held[held["iteration"] == 0].set_index(["run", "prompt_id"])[list(JUDGES)].astype(float)
    unit = before["proxy"].groupby("run").std().replace(0.0, np.nan)
    found = held.join(before.add_suffix("_before"), on=["run", "prompt_id"], how="inner").reset_index(drop=True)
    return found.assign(
        gold=found["gold"].astype(float) - found["gold_before"],
        proxy=(found["proxy"].astype(float) - found["proxy_before"]) / found["run"].map(unit).astype(float),
    )[[*_RUN, "iteration", "prompt_id", *JUDGES, "kl", "tokens", "finished"]]


def evaluations(completions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and iteration: means over prompts, with the alarm and the time of that evaluation."""
    changes = prompt_changes(completions).astype({"kl": float, "tokens": float, "finished": float})
    grouped = changes.groupby([*_RUN, "iteration"], as_index=False)
    found = grouped[[*JUDGES, "kl", "tokens", "finished"]].mean().rename(columns={"tokens": "length"})
    held = metrics[metrics["split"] == "heldout"]
    alarm = held[held["name"] == "alarm"].groupby(["run", "iteration"])["value"].last().rename("alarm")
    when = held.groupby(["run", "iteration"])["seconds"].max().rename("seconds")
    return found.join(alarm, on=["run", "iteration"]).join(when, on=["run", "iteration"])


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last evaluation."""
    return rows[rows["iteration"] == rows.groupby("run")["iteration"].transform("max")].reset_index(drop=True)


# --- equal KL, time to a score -----------------------------------------------------------------------


def at_kl(curve_EK: Sequence[tuple[float, float]], target: float) -> float:
    """The score where a path of (KL, score) points first reaches the target KL, between points along straight lines; NaN if it never does."""
    for (kl, score), (next_kl, next_score) in pairwise(curve_EK):
        if min(kl, next_kl) <= target <= max(kl, next_kl):
            share = (target - kl) / (next_kl - kl) if next_kl != kl else 1.0
            return score + share * (next_score - score)
    return np.nan


def went(changes: pd.DataFrame) -> list[str]:
    """Methods that ended farther from the reference than they began: the 95 % interval of their rise in KL is above zero.

    Over runs and prompts, unlike scores: the question is whether these very runs moved by more than KL is measured to, not what further
    seeds would do. A KL that stayed, or fell, is no distance that others could be compared at: after a warm start all others begin beyond it.
    """
    kl = changes[changes["iteration"] == 0].set_index(["run", "prompt_id"])["kl"].astype(float)
    ends = last(changes).join(kl.rename("kl_before"), on=["run", "prompt_id"])
    rises = (ends["kl"].astype(float) - ends["kl_before"]).groupby(ends["method"])
    return [str(name) for name, rise in rises if student(rise.dropna().to_numpy())[0] > 0]


def matched(scores: pd.DataFrame, among: Collection[str]) -> tuple[float, dict[str, dict[str, float]]]:
    """The smallest final mean KL of the methods `among`, and each method's change of score at that KL, from its mean path through the evaluations.

    It answers "who gained more for the same distance from the reference?", but misleads where a method went much farther than the
    target: with few evaluations the straight line crosses a curve that rises like the root of KL (Gao et al. 2022, arXiv 2210.10760)
    and so gives that method too little; and KL itself is a noisy mean over the held-out completions. NaN where fewer than two methods get there.
    """
    points = scores.groupby(["method", "iteration"], as_index=False)[["kl", *JUDGES]].mean().sort_values(["method", "iteration"])
    finals = last(scores).groupby("method")["kl"].mean()
    target = float(finals[finals.index.isin(among)].min())
    curves = {str(name): part for name, part in points.groupby("method")}
    found = {name: {judge: at_kl(list(zip(part["kl"], part[judge], strict=True)), target) for judge in JUDGES} for name, part in curves.items()}
    if sum(any(np.isfinite(list(row.values()))) for row in found.values()) < 2:
        return np.nan, {name: dict.fromkeys(JUDGES, np.nan) for name in found}
    return target, found


def time_to(scores: pd.DataFrame, judge: str, target: float) -> pd.Series[float]:
    """run -> seconds of its first evaluation after training began whose change is at least the target; NaN if it never is, or if the target is no gain."""
    runs = pd.Index(scores["run"].unique())
    if not target > 0:
        return pd.Series(np.nan, index=runs)
    passed = scores[(scores["iteration"] > 0) & (scores[judge] >= target)]
    return passed.groupby("run")["seconds"].min().reindex(runs)


def typical_time(seconds: pd.Series[float]) -> float:
    """Median over seeds, where never counts as later than all: NaN if half or more never got there."""
    middle = float(seconds.fillna(np.inf).median()) if len(seconds) else np.nan
    return middle if np.isfinite(middle) else np.nan


# --- cost and spending -------------------------------------------------------------------------------


def costs(metrics: pd.DataFrame) -> pd.DataFrame:
    """run -> forwards, tokens (both counted up by the run), seconds, peak_memory; NaN where a run does not record it."""
    named = metrics.dropna(subset=["value"]).pivot_table(index="run", columns="name", values="value", aggfunc="max")
    found = named.reindex(columns=["forwards", "tokens", "peak_memory"])
    return found.assign(seconds=metrics.groupby("run")["seconds"].max()).reindex(metrics["run"].unique())


def spending(completions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """run -> what it really spent on training its policy; `longest` counts the tokens of its longest completion.

    Completions of judged pairs are not recorded, so they are not in it.
    """
    train = completions[completions["split"] == "train"]
    drawn = train.drop_duplicates(["run", "update", "prompt_id"]).groupby("run").size()
    found = pd.DataFrame({"prompts": drawn, "completions": train.groupby("run").size(), "longest": train.groupby("run")["tokens"].max()})
    steps = metrics[(metrics["role"] == "policy") & (metrics["split"] == "train")].groupby("run")["update"].max()
    return found.assign(updates=steps).reindex(metrics["run"].unique()).fillna(0).astype(int)


def unequal(rows: pd.DataFrame) -> list[str]:
    """One line for each kind of spending that differs between runs; the longest completion is a result, so only its limit is planned."""
    lines = []
    for name in ("prompts", "completions", "updates") if len(rows) else ():
        least, most = rows.iloc[int(rows[name].argmin())], rows.iloc[int(rows[name].argmax())]
        if least[name] != most[name]:
            lines.append(f"unequal realised budget: {name} is {least[name]} in {least['run']} and {most[name]} in {most['run']}")
    return lines


# --- pairs of runs -----------------------------------------------------------------------------------


def paired(changes: pd.DataFrame, method: str, first: str, judge: str) -> pd.Series[float]:
    """seed -> mean over common prompts of (change under `method` minus change under `first`), for seeds that both have."""
    table = changes[changes["method"].isin([method, first])].pivot_table(index=["seed", "prompt_id"], columns="method", values=judge)
    if not {method, first} <= set(table.columns):
        return pd.Series(dtype=float)
    return (table[method] - table[first]).dropna().groupby("seed").mean()


def difference(changes: pd.DataFrame, method: str, first: str, judge: str) -> dict[str, Any]:
    """Method minus first method, seed by seed, with what so many seeds could have found."""
    values = paired(changes, method, first, judge)
    found = {"method": method, "minus": first, "judge": judge, **estimate(values.tolist())}
    limit = detectable(float(values.std()), len(values))
    return {**found, "by_seed": {str(seed): float(value) for seed, value in values.items()}, "detectable": limit, "warning": _warning(found, limit)}


def _warning(found: dict[str, Any], limit: float) -> str | None:
    name = f"{found['method']} - {found['minus']} in {found['judge']}"
    if not found["seeds"]:
        return f"{name}: no seed has both"
    if found["seeds"] == 1:
        return f"{name}: one seed says nothing about others"
    if abs(found["mean"]) < limit:
        return f"{name}: {found['mean']:+.3f} is less than the {limit:.3f} that {found['seeds']} seeds find with 80 % power; it is no ranking"
    return None


# --- the whole ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Everything that is printed and written. Lists of plain rows: one for a run, a method, a difference."""

    runs: list[dict[str, Any]]
    methods: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    matched_kl: float
    warnings: list[str]


def compare(completions: pd.DataFrame, metrics: pd.DataFrame, methods: Sequence[str], controls: Collection[str] = ()) -> Comparison:
    """All numbers of finished runs. `methods` gives the order; the first with a finished run is the one the others are held against.

    Raises `ValueError` if no run has held-out completions from before training.
    """
    scores, prompts = evaluations(completions, metrics), prompt_changes(completions)
    changes = last(prompts)
    if scores.empty:
        raise ValueError("no run has held-out completions from before training (iteration 0), so there is no change to compare")
    runs = _runs(last(scores), costs(metrics), spending(completions, metrics), controls)
    names = [name for name in methods if name in set(runs["method"])]
    target, equal_kl = matched(scores, set(went(prompts)) - set(controls))
    finals = runs[runs["method"] == names[0]][list(JUDGES)].mean()
    times = {judge: time_to(scores, judge, finals[judge]) for judge in JUDGES}
    table = [_method(name, runs[runs["method"] == name], equal_kl[name], times, name in controls) for name in names]
    differences = [difference(changes, name, names[0], judge) for name in names[1:] for judge in JUDGES if runs[judge].notna().any()]
    rows = [{str(key): value for key, value in row.items()} for row in runs.to_dict("records")]
    return Comparison(rows, table, differences, target, [*_few(runs), *_apart(names, target), *unequal(runs[~runs["control"]]), *_said(differences)])


def _runs(finals: pd.DataFrame, cost: pd.DataFrame, spent: pd.DataFrame, controls: Collection[str]) -> pd.DataFrame:
    found = finals.drop(columns="seconds").join(cost, on="run").join(spent, on="run")
    return found.assign(control=found["method"].isin(controls)).sort_values(["method", "seed"]).reset_index(drop=True)


def _method(name: str, runs: pd.DataFrame, equal_kl: dict[str, float], times: dict[str, pd.Series[float]], control: bool) -> dict[str, Any]:
    means = runs[["kl", "alarm", "finished", "length", "forwards", "tokens", "seconds", "peak_memory"]].astype(float).mean()
    ours = runs["run"].tolist()
    return {
        "method": name,
        "control": control,
        "seeds": runs["seed"].tolist(),
        **{judge: estimate(runs[judge].tolist()) for judge in JUDGES},
        "at_equal_kl": equal_kl,
        "seconds_to_first_method": {judge: typical_time(times[judge].reindex(ours)) for judge in JUDGES},
        **{str(key): float(value) for key, value in means.items()},
    }


def _few(runs: pd.DataFrame) -> list[str]:
    fewest = int(runs.groupby("method")["seed"].nunique().min())
    if fewest == 1:
        return ["1 seed: a single value has no interval"]
    return [f"{fewest} seeds: {BOOTSTRAP}"] if fewest < _FEW_SEEDS else []


def _apart(names: Sequence[str], target: float) -> list[str]:
    """Why there is nothing at equal KL, in one line in place of a table of gaps."""
    if len(names) < 2 or np.isfinite(target):
        return []
    return ["nothing is compared at equal KL: controls aside, fewer than two methods ended farther from the reference than they began"]


def _said(differences: Sequence[dict[str, Any]]) -> list[str]:
    return [row["warning"] for row in differences if row["warning"]]
