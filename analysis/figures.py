"""One function per figure: recorded rows in, `FigureSpec` out. A new figure is one decorated function.

Frames are pandas views of the store's streams (`interplay.records`). Each caption says what is
measured, by which formula, and when the picture misleads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import nulls
from analysis.easing import YScale, eased
from analysis.spec import Axis, FigureSpec, Mark
from analysis.trajectory import layer_words

FIGURES: dict[str, Callable[..., FigureSpec]] = {}

ROLE_WORDS = {"policy": "policy", "reward": "reward model", "value": "value model"}

#: The names under which training metrics of one meaning may be recorded, best first.
REWARD_NAMES = ("reward", "reward_mean", "objective/scores", "rewards/margins", "margin")
KL_NAMES = ("kl", "kl_mean", "objective/kl")

X_AXES = {
    "update": Axis("x", "policy update"),
    "tokens": Axis("x", "generated tokens"),
    "seconds": Axis("x", "training time", "s"),
    "forwards": Axis("x", "forward passes of updates", "passes"),
}
#: Metrics that are running totals of what an axis counts, best first.
TOTALS = {"tokens": ("tokens", "num_tokens"), "forwards": ("forwards",)}

COSINES = {
    "cos_previous": "cosine with the role's previous update",
    "cos_other_update": "cosine with the other role's latest update",
}
#: The column that holds the chance SD of a cosine, where one is recorded.
CHANCE = {"cos_other_update": "null_other_update"}
#: Cells of a heat map above which those within chance get no dots: they would be smaller than ink and pixels.
MOST_DOTTED = 3_000
#: A colour scale of cosines reaches this far at least: noise is not to look like a finding.
LEAST_LIMIT = 0.1
#: What a caption says where older recordings hold no chance spreads.
NO_CHANCE = "This recording holds no chance spreads (null_other_update), so nothing here says what chance would give."


#: One sentence on what is measured and by which formula, one on when it misleads.
NOTES = {
    "reward": (
        "Mean reward of each training batch; dots: frozen reward model 0 on held-out prompts, with 95 % range. "
        "The reward model that trains the policy changes, so only the dots compare over time."
    ),
    "reward without dots": "Mean reward of each training batch, which has prompts of its own; no held-out prompt was scored.",
    "gold": "The task's own programmatic score, with 95 % range on held-out prompts. If reward rises while it falls, the policy exploits the reward model.",
    "kl": (
        "Mean over completions of Σ over tokens (log policy − log reference). A sampled estimate: one batch may fall below zero, and longer texts weigh more."
    ),
    "runs": " One colour and dash for each run: thin line, training batches; dots, held-out prompts.",
    "norm": "‖ΔW‖ of a {rows} = √Σ‖ΔW of its modules‖², in {space}. Misleads when rows differ in size: more weights, larger norm. A norm has no chance level.",
    "cosine": (
        "{what}: Σ⟨ΔW, ΔW′⟩ / (‖ΔW‖ ‖ΔW′‖) over the modules of a {rows}, in the {space} space. "
        "Misleads near 0: in many dimensions unrelated updates are orthogonal by default."
    ),
    "no chance": (
        "A recording holds no chance spread of this cosine (persistence_lags has a band for all modules together), and momentum alone keeps a direction."
    ),
}


def figure(function: Callable[..., FigureSpec]) -> Callable[..., FigureSpec]:
    """Register a figure under its function's name."""
    FIGURES[function.__name__] = function
    return function


# --- curves ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """What is recorded of training batches and of held-out prompts: its names there, best first."""

    title: str
    label: str
    train: Sequence[str]
    heldout: Sequence[str]
    unit: str = ""


SCORES = {
    "reward": Score("Reward", "reward", REWARD_NAMES, ("proxy", "reward")),
    "gold": Score("Gold score", "gold score", ("gold",), ("gold",)),
    "kl": Score("KL from the reference", "KL", KL_NAMES, KL_NAMES, "nats"),
}
#: Training batches as a thin line, held-out scores at the ends of iterations as dots.
_CURVE = (Mark("line", "train", strong=False), Mark("band", "heldout"), Mark("line", "heldout"), Mark("points", "heldout"))
_LAYER_WORDS = {"train": "training batches", "heldout": "held-out prompts"}


@figure
def reward_curve(
    metrics: pd.DataFrame, *, run: str, x: str = "update", name: str | None = None, smoothing: float = 0.0, y_scale: YScale = "linear"
) -> FigureSpec:
    """What the policy was trained on, and frozen reward model 0 on held-out prompts."""
    return eased(_curve(metrics, "reward", run, x, name), smoothing, y_scale)


@figure
def gold_curve(metrics: pd.DataFrame, *, run: str, x: str = "update", smoothing: float = 0.0, y_scale: YScale = "linear") -> FigureSpec:
    """The task's own score, which no reward model can be talked into."""
    return eased(_curve(metrics, "gold", run, x), smoothing, y_scale)


@figure
def kl_curve(metrics: pd.DataFrame, *, run: str, x: str = "update", smoothing: float = 0.0, y_scale: YScale = "linear") -> FigureSpec:
    """How far the policy has left its reference."""
    return eased(_curve(metrics, "kl", run, x), smoothing, y_scale)


@figure
def run_curves(
    metrics: pd.DataFrame,
    *,
    score: Literal["reward", "gold", "kl"] = "reward",
    x: str = "update",
    metric: str = "",
    smoothing: float = 0.0,
    y_scale: YScale = "linear",
) -> FigureSpec:
    """One score of several runs in one picture, or any other metric that their policies recorded.

    `metrics` are those of all runs, with the column `run`. Raises `ValueError` where there are none, or none of that name.
    """
    if metrics.empty:
        raise ValueError("these runs recorded no metrics (yet)")
    told = Score(metric, metric, (metric,), (metric,)) if metric else SCORES[score]
    parts = [_measured(rows, told, x)[0].assign(series=run, run=run) for run, rows in metrics.groupby("run", sort=False)]
    data = pd.concat(parts, ignore_index=True)
    if metric and data.empty:
        raise ValueError(f"none of these runs recorded a metric named {metric!r} of the policy's")
    spoken = data.assign(series=data["series"] + ", " + data["layer"].map(_LAYER_WORDS))
    note = f"{metric}, as the policies recorded it." if metric else NOTES[score]
    return eased(_drawn("run_curves", data, spoken, told, x, tuple(dict.fromkeys(metrics["run"])), note + NOTES["runs"]), smoothing, y_scale)


def _curve(metrics: pd.DataFrame, score: str, run: str, x: str, name: str | None = None) -> FigureSpec:
    """One score of one run."""
    data, *names = _measured(metrics, SCORES[score], x, name)
    words = {layer: f"{word}: {found}" for (layer, word), found in zip(_LAYER_WORDS.items(), names, strict=True)}
    data = data.assign(series=data["layer"].map(words))
    note = NOTES["reward without dots"] if score == "reward" and not (data["layer"] == "heldout").any() else NOTES[score]
    return _drawn(f"{score}_curve", data, data, SCORES[score], x, (run,), note)


def _drawn(figure: str, data: pd.DataFrame, spoken: pd.DataFrame, told: Score, x: str, runs: tuple[str, ...], note: str) -> FigureSpec:
    bad = int((~np.isfinite(data["y"])).sum())
    caption = note + (f" {bad} of {len(data)} values are not finite and are not drawn." if bad else "")
    y = Axis("y", told.label, told.unit)
    return FigureSpec(figure, told.title, data, _CURVE, X_AXES[x], y, caption, _curve_alt(told.title, spoken), len(data), runs)


def _measured(metrics: pd.DataFrame, score: Score, x: str, name: str | None = None) -> tuple[pd.DataFrame, str, str]:
    """Points of training batches and of held-out prompts, and the names under which the policy recorded them."""
    own = metrics[metrics["role"] == "policy"]
    train, dots = name or _recorded(own, "train", score.train), _recorded(own, "heldout", score.heldout)
    totals = _totals(own, x)
    batches, scored = (
        _points(own[(own["split"] == split) & (own["name"] == found)], split, x, totals) for split, found in (("train", train), ("heldout", dots))
    )
    return pd.concat([batches, scored.assign(**_range(own, dots, scored))], ignore_index=True), train, dots


def _recorded(own: pd.DataFrame, split: str, names: Sequence[str]) -> str:
    """The best-known name that was recorded."""
    found = set(own.loc[own["split"] == split, "name"].unique())
    return next((name for name in names if name in found), names[0])


def _points(rows: pd.DataFrame, layer: str, x: str, totals: pd.Series[Any]) -> pd.DataFrame:
    rows = rows.sort_values("clock", kind="stable")
    along = _at(totals, rows["clock"]) if x in TOTALS else rows[x]
    return pd.DataFrame(
        {
            "layer": layer,
            "x": np.asarray(along, dtype=np.float32),
            "y": rows["value"].astype(np.float32).to_numpy(),
            "clock": rows["clock"].to_numpy(),
            "label": [_moment(i) for i in rows["iteration"]],
        }
    )


def _range(metrics: pd.DataFrame, name: str, dots: pd.DataFrame) -> dict[str, Any]:
    """95 % range of each held-out mean, where the run recorded its standard error."""
    rows = metrics[(metrics["split"] == "heldout") & (metrics["name"] == f"{name}_se")].drop_duplicates("clock", keep="last").set_index("clock")["value"]
    error = 1.96 * rows.reindex(dots["clock"]).to_numpy(np.float32)
    return {"low": dots["y"].to_numpy() - error, "high": dots["y"].to_numpy() + error}


def _moment(iteration: int) -> str:
    return "before iteration 1" if iteration == 0 else f"iteration {iteration}"


def _totals(own: pd.DataFrame, x: str) -> pd.Series[Any]:
    """What an axis counts so far, by clock; empty where it counts nothing or nothing was recorded."""
    train = own[own["split"] == "train"]
    rows = train[train["name"] == _recorded(own, "train", TOTALS.get(x, ("",)))]
    return rows.sort_values("clock").drop_duplicates("clock", keep="last").set_index("clock")["value"]


def _at(series: pd.Series[Any], clocks: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """The last known value at each clock; 0 before the first."""
    if series.empty:
        return np.full(len(clocks), np.nan, dtype=np.float32)
    place = np.searchsorted(series.index.to_numpy(), clocks.to_numpy(), side="right")
    return np.concatenate([[0.0], series.to_numpy(np.float64)])[place]


def recorded_metrics(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Scores that each figure knows come first; then, by name, what else the policy of any run recorded. Errors of means are drawn with their means."""
    found = {str(name) for frame in frames for name in frame.loc[frame["role"] == "policy", "name"].unique()}
    scores = [name for name, score in SCORES.items() if found & {*score.train, *score.heldout}]
    return [*scores, *sorted(name for name in found if name not in SCORES and not (name.endswith("_se") and name.removesuffix("_se") in found))]


def x_axes(metrics: pd.DataFrame) -> list[str]:
    """The horizontal axes that this run recorded."""
    own = metrics[metrics["role"] == "policy"]
    known = {"update": True, "seconds": bool(own["seconds"].notna().any())}
    return [x for x in X_AXES if (not _totals(own, x).empty if x in TOTALS else known[x])]


def _curve_alt(title: str, data: pd.DataFrame) -> str:
    good = data[np.isfinite(data["y"])]
    if good.empty:
        return f"{title}: nothing recorded yet"
    parts = [
        f"{series} from {rows['y'].iloc[0]:.3g} to {rows['y'].iloc[-1]:.3g} over {len(rows)} values" for series, rows in good.groupby("series", sort=False)
    ]
    return f"{title}: " + "; ".join(parts)


# --- heat maps ---------------------------------------------------------------------------------


@figure
def norm_heatmap(updates: pd.DataFrame, role: str, *, run: str, space: str = "factor", rows: str = "layer") -> FigureSpec:
    """How far each layer moved at each update of one role."""
    chosen = _of(updates, role, space)
    chosen = chosen.assign(row=_row(chosen, rows), square=chosen["update_norm"].astype(np.float64) ** 2)
    data = chosen.groupby(["row", "update"], sort=False, observed=True).agg(square=("square", "sum"), clock=("clock", "max")).reset_index()
    data["value"] = np.sqrt(data.pop("square"))
    note = NOTES["norm"].format(rows=rows, space=_space_words(space))
    colour = Axis("value", "update norm", scale="log")
    return _heat("norm_heatmap", f"Update norm: {ROLE_WORDS.get(role, role)}", data, role, rows, colour, note, run)


@figure
def cosine_heatmap(updates: pd.DataFrame, role: str, *, run: str, column: str = "cos_previous", space: str = "factor", rows: str = "layer") -> FigureSpec:
    """Whether each layer keeps its direction, or shares it with the other role."""
    chosen = _with_partner(updates, role, space, column)
    known = chosen.assign(row=_row(chosen, rows)).dropna(subset=[column, "partner"])
    grouped = _weighed(known, column).groupby(["row", "update"], sort=False, observed=True)
    sums = grouped.sum()
    cells = pd.DataFrame({"clock": grouped["clock"].max(), "value": _cosine(sums["inner"], sums["own"] * sums["other"])})
    data, told = _against_chance(cells, sums, column, f"cells of the {ROLE_WORDS.get(role, role)}")
    note = f"{NOTES['cosine'].format(what=COSINES[column].capitalize(), rows=rows, space=space)} {told}"
    title = f"{'Persistence' if column == 'cos_previous' else 'Alignment'}: {ROLE_WORDS.get(role, role)}"
    return _heat("cosine_heatmap", title, data.reset_index(), role, rows, cosine_colours(data["value"]), note, run)


def cosine_colours(values: pd.Series[Any]) -> Axis:
    """A colour scale alike to both sides of 0 and as wide as what is drawn: in many dimensions cosines are small, and ±1 would wash them out."""
    largest = np.abs(values[np.isfinite(values)]).max()
    return Axis("value", "cosine", scale="diverging", limit=float(np.clip(np.nan_to_num(largest), LEAST_LIMIT, 1.0)))


def _weighed(modules: pd.DataFrame, column: str) -> pd.DataFrame:
    """What is summed over the modules of a cell: inner products, squares, and with a recorded spread its squares, of the modules that have one."""
    own, other = modules["update_norm"].astype(np.float64), modules["partner"]
    parts = modules[["row", "update", "clock"]].assign(inner=modules[column] * (own * other), own=own**2, other=other**2)
    if CHANCE.get(column) not in modules:
        return parts
    spread = modules[CHANCE[column]].astype(np.float64)
    there = spread.notna()
    return parts.assign(spread=(spread**2 * parts["own"] * parts["other"]).fillna(0.0), own_there=parts["own"] * there, other_there=parts["other"] * there)


def _cosine(inner: pd.Series[Any], squares: pd.Series[Any]) -> pd.Series[Any]:
    """NaN where nothing moved."""
    return inner / squares.where(squares > 0) ** 0.5


def _against_chance(cells: pd.DataFrame, sums: pd.DataFrame, column: str, what: str) -> tuple[pd.DataFrame, str]:
    """The cells with `null`, the chance SD of each, and `within`, whether it lies within chance; and what a caption says of that.

    `within` is left out where dots would be too many, both where no spread is recorded. `sums` has a row for each cell, of what `_weighed` has.
    """
    if column not in CHANCE:
        return cells, NOTES["no chance"]
    sd = _null_sd(sums)
    z = cells["value"] / sd.where(sd > 0)
    if z.isna().all():
        return cells, NO_CHANCE if len(cells) else ""
    found, told = cells.assign(null=sd.astype(np.float32)), beyond(z.to_numpy(), what)
    if len(cells) > MOST_DOTTED:
        return found, told
    return found.assign(within=z.abs() <= nulls.REACH), f"Dotted: within chance. {told}"


def _null_sd(sums: pd.DataFrame) -> pd.Series[Any]:
    """Chance SD of the cosine of each cell, as `nulls.null_sd` has it; a module whose own is unknown is left out."""
    if "spread" not in sums:
        return pd.Series(np.nan, index=sums.index)
    squares = sums["own_there"] * sums["other_there"]
    return (sums["spread"] / squares.where(squares > 0)) ** 0.5


def beyond(z: np.ndarray[Any, Any], what: str) -> str:
    """How many of these multiples of their chance SD lie beyond the central 95 %, and how many would by chance."""
    known = z[np.isfinite(z)]
    found, chance = int((np.abs(known) > nulls.REACH).sum()), f"{0.05 * len(known):.0f}"
    return f"{found} of {len(known)} {what} lie beyond 1.96 chance SD; chance alone gives about {chance}, less evenly where they are alike."


def _of(updates: pd.DataFrame, role: str, space: str) -> pd.DataFrame:
    return updates[(updates["role"] == role) & (updates["space"] == space)]


def _row(rows: pd.DataFrame, by: str) -> pd.Series[Any]:
    if by != "layer":
        return rows[by].astype(str)
    return pd.Series(layer_words(rows["layer"]), index=rows.index)


def _with_partner(updates: pd.DataFrame, role: str, space: str, column: str) -> pd.DataFrame:
    """Each update beside the norm of the update it was compared with, so that cosines can be summed over modules."""
    own = _of(updates, role, space).sort_values(["clock"], kind="stable")
    if column == "cos_previous":
        return own.assign(partner=own.groupby("module", observed=True)["update_norm"].shift().astype(np.float64))
    other_role = own["other_role"].dropna()
    other = _of(updates, str(other_role.iloc[0]) if len(other_role) else "", space)
    other = other[["clock", "module", "update_norm"]].rename(columns={"update_norm": "partner"}).sort_values("clock", kind="stable")
    if own.empty or other.empty:
        return own.assign(partner=np.nan)
    own, other = (frame.assign(module=frame["module"].astype(str)) for frame in (own, other))
    return pd.merge_asof(own, other, on="clock", by="module", allow_exact_matches=False)


def _heat(name: str, title: str, data: pd.DataFrame, role: str, rows: str, colour: Axis, note: str, run: str) -> FigureSpec:
    data = data.assign(layer="cells", series=role, value=data["value"].astype(np.float32)).sort_values("update", kind="stable")
    good = data["value"][np.isfinite(data["value"])]
    alt = f"{title}: {data['row'].nunique()} rows by {data['update'].nunique()} updates" + (
        f", from {good.min():.3g} to {good.max():.3g}" if len(good) else ", nothing recorded"
    )
    x, y = Axis("update", f"{ROLE_WORDS.get(role, role)} update"), Axis("row", rows, scale="category")
    return FigureSpec(name, title, data, (Mark("heat", "cells"),), x, y, note, alt, len(data), (run,), colour=colour)


def _space_words(space: str) -> str:
    return "the tensors as the optimiser sees them" if space == "factor" else "the weight that the forward pass uses"
