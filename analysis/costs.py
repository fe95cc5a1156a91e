"""Figures of what methods cost: held-out change over passes, tokens or seconds, and peak memory beside it.

Rows come from `comparison.compare`, frames are those it takes: `completions` and `metrics` of several runs under each other with the columns
`run`, `method` and `seed` in front. What is not recorded is left out of the picture and named in the caption.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.comparison import student
from analysis.figures import figure
from analysis.scores import CHANGES, evaluated, everywhere, known_metrics, moment, named, one_of, said
from analysis.spec import Axis, FigureSpec, Mark

GIB = 2**30

X_AXES = {
    "forwards": Axis("x", "forward passes of updates so far", "passes"),
    "tokens": Axis("x", "completion tokens sampled for training so far", "tokens"),
    "seconds": Axis("x", "time since the run started", "s"),
}
#: When each cost misleads.
_MISLEADS = {
    "forwards": "a gradient counts as one pass although it needs a backward pass as well, and passes for sampling, scoring and diagnosis are left out",
    "tokens": "tokens of prompts, held-out prompts and judged pairs are left out",
    "seconds": "time holds reward-model training, scoring, recording and evaluation, and depends on the machine and on what else ran on it",
}
NOTES = {
    "curves": (
        "Change of the {label} on held-out prompts since before training{unit}, over {cost}: mean over the seeds of a method, score and cost alike, at each "
        "evaluation that all its seeds reached. Bands: 95 % interval of the mean change over seeds, Student's t. Misleads: {misleads}; what a warm start cost "
        "is left out; seeds share their start and prompts, so bands say nothing about other starts; lines between evaluations are no measurements."
    ),
    "memory": (
        "Change of the {label} on held-out prompts since before training{unit}, against the most memory of the process (on a GPU: the most allocated there). "
        "Dots: runs. Whiskers: 95 % interval of a method's mean over seeds, Student's t, at its mean memory. Misleads: memory never falls during a run, "
        "and on a CPU it includes libraries, models and the recorder, so only runs of one machine and one size of model compare."
    ),
}


# --- change over cost ----------------------------------------------------------------------------


@figure
def method_curves(
    completions: pd.DataFrame,
    metrics: pd.DataFrame,
    methods: Sequence[str],
    controls: Collection[str] = (),
    *,
    judge: str = "proxy",
    x: Literal["forwards", "tokens", "seconds"] = "forwards",
) -> FigureSpec:
    """What each method's held-out change costs: one line per method over passes, tokens or seconds, mean over seeds with its 95 % band.

    Raises `ValueError` for an unknown judge or cost.
    """
    one_of("judge", judge, CHANGES)
    one_of("x", x, X_AXES)
    scores = _with_cost(evaluated(completions, metrics), metrics, x)
    used = everywhere(scores, [judge, "cost"])
    names = [method for method in methods if method in set(used["method"])]
    data = _curves(used, names, controls, judge)
    numbers = _curve_words(data, x) + _left_out(methods, names, f"no {judge} or no {x} recorded") + _unshared(scores, used, names)
    label, unit = CHANGES[judge]
    note = NOTES["curves"].format(label=label, unit=f" (in {unit})" if unit else "", cost=X_AXES[x].label, misleads=_MISLEADS[x])
    title, runs = f"{label.capitalize()} over {x}", _runs(used[used["method"].isin(names)])
    y = Axis("y", "change on held-out prompts", unit)
    return FigureSpec("method_curves", title, data, _CURVE_MARKS, X_AXES[x], y, f"{note} {numbers}", f"{title}: {numbers}", len(runs), runs)


_CURVE_MARKS = (Mark("band", "mean"), Mark("line", "mean"), Mark("points", "mean"))


def _with_cost(scores: pd.DataFrame, metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """Evaluations with the column `cost`: what their run had spent by then; NaN where it does not record that.

    Running totals of the policy are looked up by its update number and not by the clock, which the frames of a comparison leave out:
    the policy is not updated while it is evaluated, so both find the same row. Seconds are those of the evaluation itself.
    """
    if name == "seconds" or scores.empty:
        return scores.assign(cost=scores["seconds"].astype(float))
    rows = known_metrics(metrics)
    own = rows[(rows["role"] == "policy") & (rows["split"] == "train") & (rows["name"] == name)].dropna(subset=["value"])
    totals = own[["run", "update"]].assign(cost=own["value"].astype(float)).astype({"run": object, "update": np.int64}).sort_values("update")
    places = scores.astype({"run": object, "update": np.int64}).sort_values("update", kind="stable")
    found = pd.merge_asof(places, totals, on="update", by="run")
    # before its first update a run that counts has spent nothing
    return found.assign(cost=found["cost"].mask(found["cost"].isna() & found["run"].isin(totals["run"]), 0.0))


def _curves(scores: pd.DataFrame, methods: Sequence[str], controls: Collection[str], judge: str) -> pd.DataFrame:
    """One row per method and evaluation, in the order of the methods: x, y and the interval over seeds."""
    rows = [
        {"layer": "mean", "series": named(method, method in controls), **_over_seeds(part, judge), "iteration": iteration, "label": moment(iteration)}
        for method in methods
        for iteration, part in scores[scores["method"] == method].groupby("iteration")
    ]
    return pd.DataFrame(rows, columns=["layer", "series", "x", "y", "low", "high", "seeds", "iteration", "label"])


def _over_seeds(part: pd.DataFrame, judge: str) -> dict[str, float]:
    values_S = part[judge].to_numpy(float)
    low, high = student(values_S)
    return {"x": float(part["cost"].mean()), "y": float(values_S.mean()), "low": low, "high": high, "seeds": len(values_S)}


def _curve_words(data: pd.DataFrame, x: str) -> str:
    ends = data.groupby("series", sort=False).tail(1)
    if ends.empty:
        return "Nothing to draw yet."
    return f"At the last evaluation: {'; '.join(_end_words(row, X_AXES[x].unit) for row in ends.to_dict('records'))}."


def _end_words(row: Mapping[Any, Any], unit: str) -> str:
    return f"{row['series']} {said(row['y'], (row['low'], row['high']))} at {row['x']:,.0f} {unit} ({_seeds(row['seeds'])})"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _left_out(methods: Sequence[str], drawn: Sequence[str], why: str) -> str:
    missing = [method for method in methods if method not in drawn]
    return f" Not drawn: {', '.join(missing)} ({why})." if missing else ""


def _unshared(scores: pd.DataFrame, used: pd.DataFrame, names: Sequence[str]) -> str:
    every, kept = (int(frame["method"].isin(names).sum()) for frame in (scores, used))
    return f" {every - kept} of {every} evaluations are left out: another seed of their method, or their own score or cost, is missing." if every > kept else ""


def _runs(scores: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(name) for name in scores["run"].unique())


# --- memory --------------------------------------------------------------------------------------


@figure
def memory_reward(runs: Sequence[Mapping[str, Any]], methods: Sequence[Mapping[str, Any]], *, judge: str = "proxy") -> FigureSpec:
    """What the change of a judge's held-out score needs in memory: dots are runs, whiskers the mean of each method.

    `runs` and `methods` are those of `comparison.Comparison`. Raises `ValueError` for an unknown judge.
    """
    one_of("judge", judge, CHANGES)
    found = [_mean_row(row, judge) for row in methods]
    means = [row for row in found if np.isfinite([row["x"], row["y"]]).all()]
    dots = [row for row in (_run_row(run, judge) for run in runs) if np.isfinite([row["x"], row["y"]]).all()]
    data = pd.DataFrame([*means, *dots], columns=["layer", "series", "x", "y", "low", "high", "seeds", "label"])
    names, drawn = ([str(row["series"]) for row in rows] for rows in (found, means))
    numbers = _memory_words(means) + _left_out(names, drawn, f"no {judge} or no peak_memory recorded")
    label, unit = CHANGES[judge]
    note = NOTES["memory"].format(label=label, unit=f" (in {unit})" if unit else "")
    axes = Axis("x", f"change of the {label}", unit), Axis("y", "peak memory", "GiB")
    title, marks = f"{label.capitalize()} and memory", (Mark("points", "runs", strong=False), Mark("interval", "mean"))
    shown = tuple(row["label"] for row in dots)
    return FigureSpec("memory_reward", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(dots), shown)


def _mean_row(row: Mapping[str, Any], judge: str) -> dict[str, Any]:
    found = row[judge]
    low, high = (_number(end) for end in found["student"])
    name = _named(row)
    place = {"layer": "mean", "series": name, "x": _number(found["mean"]), "low": low, "high": high, "seeds": found["seeds"]}
    return {**place, "y": _gibibytes(row), "label": f"{name}: mean of {_seeds(found['seeds'])}"}


def _run_row(row: Mapping[str, Any], judge: str) -> dict[str, Any]:
    return {"layer": "runs", "series": _named(row), "x": _number(row[judge]), "y": _gibibytes(row), "label": str(row["run"])}


def _named(row: Mapping[str, Any]) -> str:
    return named(str(row["method"]), bool(row.get("control")))


def _gibibytes(row: Mapping[str, Any]) -> float:
    return _number(row.get("peak_memory")) / GIB


def _number(value: Any) -> float:
    """NaN for null, which a table read from JSON may hold."""
    return np.nan if value is None else float(value)


def _memory_words(means: Sequence[Mapping[str, Any]]) -> str:
    if not means:
        return "Nothing to draw yet."
    ordered = sorted(means, key=lambda row: float(row["y"]))
    told = [f"{row['series']} {row['y']:.2f} GiB, {said(row['x'], (row['low'], row['high']))}" for row in ordered]
    return f"Least memory first: {'; '.join(told)}."
