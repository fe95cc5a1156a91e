"""Figures of scores: what a preference loss does to both answers, what a gain costs in KL, and how far the frozen reward model runs ahead of gold.

Frames are the streams `metrics` and `completions`, of one run or of several under each other with the columns `run`, `method` and `seed`
in front, as for `analysis.comparison`. What is not recorded gives a figure without rows whose caption says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.comparison import evaluations, prompt_changes, student
from analysis.figures import figure
from analysis.spec import Axis, FigureSpec, Mark

#: The change of each judge's score in a held-out evaluation, and its unit.
CHANGES = {"proxy": ("score of frozen reward model 0", "SD before training"), "gold": ("gold score", "")}

Ends = tuple[float, float]

_UPDATE = Axis("x", "policy update")
_KEYS = ["clock", "update", "iteration"]
_HELD = {"split", "update", "iteration", "prompt_id", "gold", "proxy", "kl", "tokens", "finished"}
_METRICS = ["run", "role", "split", "iteration", "update", "name", "value", "seconds"]

PAIRS = {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"}
_BOTH = "chosen and rejected below 0, margin above"

NOTES = {
    "pairs": (
        "Implicit rewards of the pairs of each update: β Σ over tokens (log π − log π_ref), mean over chosen and over rejected answers; the margin is their "
        "difference. At 0 an answer is as likely as under the reference. The margin may grow while both fall: then the policy leaves both answers for texts "
        "outside the pairs (likelihood displacement: Razin et al. 2024, arXiv 2410.08847). Each batch has other pairs, and longer answers weigh more."
    ),
    "frontier": (
        "Change of the {label} on held-out prompts since before training against KL to the reference, Σ over tokens (log π − log π_ref), mean over "
        "completions; one point per evaluation, in order along the path.{unit} {range} Misleads: KL is estimated from one completion per prompt, may fall "
        "below zero and grows with length; {judge}; lines between evaluations are no measurements."
    ),
    "gap": (
        "Gap = (proxy − proxy₀) / sd₀(proxy) − (gold − gold₀) / sd₀(gold) on held-out prompts; proxy is the score of frozen reward model 0, means and standard "
        "deviations are those of the evaluation before training. Above 0 the frozen reward model rose more than gold: over-optimisation, or a gold score that "
        "cannot follow. The reference is this start, so runs from other starts do not compare."
    ),
}
_PROXY_MISLEADS = "far from the reference a frozen reward model is exploited (Gao et al. 2022, arXiv 2210.10760), so look at gold too"
_RANGES = {
    "run": "Bands: 95 % interval of the mean change over prompts, Student's t; they leave out the spread between seeds.",
    "method": "Bands: 95 % interval of the mean over seeds, Student's t; only evaluations that every seed of a method has are drawn.",
}


# --- what several figures need -----------------------------------------------------------------


def wide(metrics: pd.DataFrame, names: Sequence[str], split: str = "train") -> pd.DataFrame:
    """The policy's values of these metrics in order: columns clock, update, iteration, and one for each name.

    What is null, infinite or not recorded is NaN; moments without any value are left out. Frames without the columns of `metrics` give no rows.
    """
    if not {*_KEYS, "role", "split", "name", "value"} <= set(metrics.columns):
        return pd.DataFrame(columns=[*_KEYS, *names], dtype=float)
    rows = metrics[(metrics["role"] == "policy") & (metrics["split"] == split) & metrics["name"].isin(list(names))]
    rows = rows.assign(name=rows["name"].astype(str), value=_finite(rows["value"])).dropna(subset=["value"])
    if rows.empty:
        return pd.DataFrame(columns=[*_KEYS, *names], dtype=float)
    table = rows.pivot_table(index=_KEYS, columns="name", values="value", aggfunc="last")
    return table.reindex(columns=list(names)).reset_index().rename_axis(columns=None)


def along_updates(table: pd.DataFrame, column: str, series: str, layer: str) -> pd.DataFrame:
    """One column of `wide` as tidy rows over policy updates; NaN left out."""
    rows = table.dropna(subset=[column])
    return pd.DataFrame(
        {
            "layer": layer,
            "series": series,
            "x": rows["update"],
            "y": rows[column],
            "clock": rows["clock"],
            "label": [moment(iteration) for iteration in rows["iteration"]],
        }
    )


def evaluated(completions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """`comparison.evaluations` with the policy's `update` at each; frames that lack rows or columns give no rows."""
    columns = ["run", "method", "seed", "iteration", "gold", "proxy", "kl", "length", "finished", "alarm", "seconds", "update"]
    if not _has_start(completions):
        return pd.DataFrame(columns=columns)
    updates = completions[completions["split"] == "heldout"].groupby(["run", "iteration"])["update"].max().rename("update")
    return evaluations(_numbered(completions), known_metrics(metrics)).join(updates, on=["run", "iteration"])


def known_metrics(metrics: pd.DataFrame) -> pd.DataFrame:
    """The frame, or none of its rows if it lacks a column."""
    return metrics if set(_METRICS) <= set(metrics.columns) else pd.DataFrame(columns=_METRICS)


def everywhere(scores: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The evaluations at which every run of a method that has these numbers at all has them: a mean over a changing set of seeds is no curve."""
    known = scores[_finite_rows(scores, columns)]
    seeds = known.groupby("method")["run"].transform("nunique")
    here = known.groupby(["method", "iteration"])["run"].transform("nunique")
    return known[here == seeds]


def one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Raises `ValueError` that names the argument, the value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it can be {', '.join(allowed)}")


def named(name: str, control: bool) -> str:
    """A control is called one wherever it is shown."""
    return f"{name} (control)" if control else name


def said(mean: float, ends: Ends, form: str = "+.2f") -> str:
    """A mean with its interval, where there is one."""
    low, high = ends
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]" if np.isfinite(low) else f"{mean:{form}}"


def moment(iteration: Any) -> str:
    """When an iteration's evaluation was."""
    return "before training" if iteration == 0 else f"iteration {int(iteration)}"


def _finite_rows(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.asarray(np.isfinite(frame[list(columns)].astype(float).to_numpy()).all(axis=1))


def _finite(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype(float).replace([np.inf, -np.inf], np.nan)


def _numbered(completions: pd.DataFrame) -> pd.DataFrame:
    """Scores as floats: a column of nulls may come as objects."""
    return completions.astype({"gold": float, "proxy": float, "kl": float})


def _has_start(completions: pd.DataFrame) -> bool:
    """Whether anything was held out before training, which every change is measured from."""
    known = {*_HELD, "run", "method", "seed"} <= set(completions.columns)
    return known and bool(((completions["split"] == "heldout") & (completions["iteration"] == 0)).any())


# --- pairs ---------------------------------------------------------------------------------------


@figure
def pair_logprobs(metrics: pd.DataFrame, *, run: str) -> FigureSpec:
    """What a preference loss does to chosen and rejected answers: implicit rewards and their margin by update."""
    table = _pairs(metrics)
    both = table[(table["rewards/chosen"] < 0) & (table["rewards/margins"] > 0)]  # then rejected = chosen - margin is below 0 too
    parts = [along_updates(table, name, word, "train") for name, word in PAIRS.items()]
    data = pd.concat([*parts, along_updates(both, "rewards/margins", _BOTH, "both")], ignore_index=True)
    marks = (Mark("line", "train", strong=False), Mark("points", "both"))
    numbers = _pair_words(table, both)
    title = "Chosen and rejected answers"
    y = Axis("y", "implicit reward", "nats × β")
    return FigureSpec("pair_logprobs", title, data, marks, _UPDATE, y, f"{NOTES['pairs']} {numbers}", f"{title}: {numbers}", len(table), (run,))


def _pairs(metrics: pd.DataFrame) -> pd.DataFrame:
    """A margin that is not recorded is the difference of the two means, which it is by definition."""
    table = wide(metrics, list(PAIRS))
    return table.assign(**{"rewards/margins": table["rewards/margins"].fillna(table["rewards/chosen"] - table["rewards/rejected"])})


def _pair_words(table: pd.DataFrame, both: pd.DataFrame) -> str:
    """How often and since when both fall, and what the last quarter of the updates says beyond the noise of batches."""
    if table.empty:
        return "Not recorded: rewards/chosen and rewards/rejected (written by dpo and online_dpo)."
    since = f", first at update {both['update'].iloc[0]:.0f}" if len(both) else ""
    last = table.tail(max(2, len(table) // 4))
    found = {word: last[name].dropna().to_numpy(float) for name, word in PAIRS.items()}
    means = [f"{word} {said(values.mean(), student(values))}" for word, values in found.items() if len(values)]
    counted = f"Both are below 0 with a margin above 0 in {len(both)} of {len(table)} updates{since}."
    return f"{counted} Mean of the last {len(last)} updates, 95 % interval over them: {', '.join(means)}: {_verdict(*found.values())}."


def _verdict(chosen_U: np.ndarray[Any, Any], rejected_U: np.ndarray[Any, Any], margin_U: np.ndarray[Any, Any]) -> str:
    falls = [chosen_U, rejected_U, -margin_U]
    if not all(len(values) for values in falls):
        return "one of the two answers is not recorded"
    if all(student(values)[1] < 0 for values in falls):
        return "both answers fall while the margin grows"
    if all(values.mean() < 0 for values in falls):
        return "both answers fall while the margin grows, but no further than batches scatter"
    return "they do not both fall while the margin grows"


# --- reward against KL ---------------------------------------------------------------------------


@figure
def frontier(
    completions: pd.DataFrame,
    metrics: pd.DataFrame,
    *,
    judge: str = "proxy",
    by: Literal["run", "method"] = "run",
    run: str = "",
    controls: Collection[str] = (),
) -> FigureSpec:
    """What each gain of a judge's held-out score costs in KL to the reference: one path per run or method over its evaluations.

    Frames of one run may come without `run`, `method` and `seed`; `run` then names it. Paths come in the order of the frames' rows.
    Raises `ValueError` for an unknown judge or `by`.
    """
    one_of("judge", judge, CHANGES)
    one_of("by", by, _RANGES)
    frames = [_placed(frame, run) for frame in (completions, metrics)]
    scores = evaluated(*frames)
    points = _summed(_repeated(frames[0], scores, judge, by), frames[0], by, judge)
    methods = dict(zip(frames[0][by], frames[0]["method"], strict=True))
    points["series"] = [named(str(name), methods[name] in controls) for name in points[by]]
    label, unit = CHANGES[judge]
    numbers = _frontier_words(points, judge)
    axes = Axis("x", "KL to the reference", "nats per completion"), Axis("y", "change on held-out prompts", unit)
    runs = (run,) if run else tuple(scores[scores[by].isin(points[by])]["run"].unique())
    title = f"{label.capitalize()} against KL"
    caption = f"{_frontier_note(judge, by)} {numbers}"
    return FigureSpec("frontier", title, _paths(points), _FRONTIER_MARKS, *axes, caption, f"{title}: {numbers}", len(points), runs)


_FRONTIER_MARKS = (Mark("band", "range"), Mark("line", "path"), Mark("points", "path"), Mark("points", "alarm"))


def _placed(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    return frame if {"run", "method", "seed"} <= set(frame.columns) else frame.assign(run=run or "this run", method=run or "this run", seed=0)


def _repeated(completions: pd.DataFrame, scores: pd.DataFrame, judge: str, by: str) -> pd.DataFrame:
    """The repetitions that an interval is over: one row per prompt of a run, or per seed of a method."""
    if by == "method" or scores.empty:
        return everywhere(scores, [judge, "kl"])
    changes = prompt_changes(_numbered(completions)).merge(scores[["run", "iteration", "alarm"]], on=["run", "iteration"])
    return changes[_finite_rows(changes, [judge, "kl"])]


def _summed(rows: pd.DataFrame, completions: pd.DataFrame, by: str, judge: str) -> pd.DataFrame:
    """One row per series and evaluation: x (KL), y, low, high, how many prompts or seeds it is a mean of, and whether any of their texts rang the alarm."""
    found = [
        {by: name, "iteration": iteration, **_point(part, judge)}
        for name in completions[by].unique()
        for iteration, part in rows[rows[by] == name].groupby("iteration")
    ]
    return pd.DataFrame(found, columns=[by, "iteration", "x", "y", "low", "high", "count", "alarm"])


def _point(part: pd.DataFrame, judge: str) -> dict[str, float]:
    values_R = part[judge].to_numpy(float)
    low, high = student(values_R)
    more = {"count": len(values_R), "alarm": float(part["alarm"].astype(float).max())}
    return {"x": float(part["kl"].astype(float).mean()), "y": float(values_R.mean()), "low": low, "high": high, **more}


def _paths(points: pd.DataFrame) -> pd.DataFrame:
    """Paths in the order of evaluations; ranges in the order of KL, so that a path that turns back does not fold its band."""
    told = points.assign(label=[moment(iteration) for iteration in points["iteration"]])
    alarmed = told[told["alarm"] > 0].assign(layer="alarm", series="alarm: degenerate text")
    ranges = told.dropna(subset=["low"]).sort_values(["series", "x"], kind="stable")
    data = pd.concat([told.assign(layer="path"), ranges.assign(layer="range"), alarmed], ignore_index=True)
    return data[["layer", "series", "x", "y", "low", "high", "count", "iteration", "alarm", "label"]]


def _frontier_note(judge: str, by: str) -> str:
    label, unit = CHANGES[judge]
    misleads = _PROXY_MISLEADS if judge == "proxy" else "gold looks at form and overlap, never at truth"
    told = f" Unit: {unit}, over prompts and within each run." if unit else ""
    return NOTES["frontier"].format(label=label, unit=told, range=_RANGES[by], judge=misleads)


def _frontier_words(points: pd.DataFrame, judge: str) -> str:
    ends = points.groupby("series", sort=False).tail(1)
    if ends.empty:
        return f"Not recorded: held-out completions with KL and {judge}, before and during training."
    told = [f"{row['series']} {said(row['y'], (row['low'], row['high']))} at {row['x']:.2f} nats" for row in ends.to_dict("records")]
    rung = int((points["alarm"] > 0).sum())
    return f"At the last evaluation: {'; '.join(told)}." + (f" The alarm for degenerate text rang at {rung} of {len(points)} points." if rung else "")


# --- gold and proxy ------------------------------------------------------------------------------


@figure
def gold_proxy_gap(metrics: pd.DataFrame, *, run: str, completions: pd.DataFrame | None = None) -> FigureSpec:
    """How much more the frozen reward model rose than gold, in standard deviations before training.

    With `completions` of the same run, both gains and the prompts' 95 % interval are drawn, provided that they reproduce the recorded gap;
    they do not in a run that started from another one, whose baseline is its predecessor's.
    """
    table = wide(metrics, ["gold_proxy_gap"], "heldout").drop_duplicates("iteration", keep="last")
    gains, why = _reproduced(table, completions)
    table = table.merge(gains, how="left", on="iteration")
    gap = along_updates(table, "gold_proxy_gap", "gap", "gap").assign(low=table["low"], high=table["high"])
    parts = [along_updates(table, name, f"{name} gain", "gains") for name in ("proxy", "gold")]
    numbers = _gap_words(gap)
    marks = (Mark("line", "gains", strong=False), Mark("band", "gap"), Mark("line", "gap"), Mark("points", "gap"))
    title = "Gap between proxy and gold"
    y = Axis("y", "gain of proxy minus gain of gold", "SD before training")
    caption = f"{NOTES['gap']} {why} {numbers}" if len(gap) else f"{NOTES['gap']} {numbers}"
    return FigureSpec("gold_proxy_gap", title, pd.concat([gap, *parts], ignore_index=True), marks, _UPDATE, y, caption, f"{title}: {numbers}", len(gap), (run,))


def _reproduced(table: pd.DataFrame, completions: pd.DataFrame | None) -> tuple[pd.DataFrame, str]:
    """Gains by iteration if they give the recorded gaps, and in words what the picture shows of them."""
    none = pd.DataFrame(columns=["iteration", "proxy", "gold", "low", "high"], dtype=float)
    if completions is None or table.empty:
        return none, "No interval: it needs the completions."
    gains = _prompt_gaps(_placed(completions, "this run"))
    both = table.merge(gains, on="iteration")
    if len(both) < len(table) or not np.allclose(both["gold_proxy_gap"], both["proxy"] - both["gold"], atol=1e-3):
        return none, "No interval: the completions of this run do not give the recorded gaps; a run that started from another has that one's baseline."
    return gains, "Band: 95 % interval over prompts, Student's t, with sd₀ taken as known. Thin lines: both gains in their own standard deviations."


def _prompt_gaps(completions: pd.DataFrame) -> pd.DataFrame:
    """iteration -> gains of proxy and gold in SD before training, and the interval of their difference over prompts."""
    columns = ["iteration", "proxy", "gold", "low", "high"]
    if not _has_start(completions):
        return pd.DataFrame(columns=columns, dtype=float)
    held = completions[(completions["split"] == "heldout") & (completions["iteration"] == 0)].drop_duplicates("prompt_id", keep="last")
    changes = prompt_changes(_numbered(completions))
    changes["gold"] /= held["gold"].astype(float).std() or np.nan
    rows = [
        (iteration, part["proxy"].mean(), part["gold"].mean(), *student((part["proxy"] - part["gold"]).to_numpy(float)))
        for iteration, part in changes.groupby("iteration")
    ]
    return pd.DataFrame(rows, columns=columns, dtype=float)


def _gap_words(gap: pd.DataFrame) -> str:
    if gap.empty:
        return "Not recorded: gold_proxy_gap (it needs a reward model, and scores that differ before training)."
    last, most = gap.iloc[-1], gap.iloc[int(gap["y"].to_numpy().argmax())]
    trained = gap[gap["label"] != moment(0)]
    ahead = f"; above 0 in {int((trained['y'] > 0).sum())} of {len(trained)} evaluations since training began" if len(trained) else ""
    return f"Last {said(last['y'], (last['low'], last['high']))} SD, largest {most['y']:+.2f} SD at update {most['x']:.0f}{ahead}."
