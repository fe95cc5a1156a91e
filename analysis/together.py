"""Figures of how policy and reward model move together: their cosines by update, by layer, by module and by lag, against chance.

Numbers come from `analysis.coupling` and `analysis.evidence`: exact cosines of an update with the other role's latest one from the `updates`
stream, sketched ones of any two steps from trajectories. Every picture shows chance, or says that the recording does not hold it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import coupling, evidence, geometry, nulls
from analysis.evidence import Lead
from analysis.figures import NO_CHANCE, ROLE_WORDS, beyond, cosine_colours, figure
from analysis.geometry import Doubles
from analysis.movement import CHANCE_WORDS, recording, space_of
from analysis.projection import spread
from analysis.scores import one_of
from analysis.spec import Axis, FigureSpec, Mark
from analysis.trajectory import Ints, Trajectory

#: A role's path; None where its directions were not recorded.
Sketched = Trajectory | None
_Role = Literal["policy", "reward"]
_Show = Literal["cosine", "chance"]
#: Chance SDs at which a heat map has its full colour.
FULL = 4.0
#: The attainable cosine is drawn where it is at most this many times what else is drawn; above, it would flatten all.
ROOM = 5.0
#: Steps of each role that a heat map of lags shows; longer runs are thinned evenly.
MOST_STEPS = 400
#: Of more steps of a role only so many are held against those of the other one: all pairs of 10,000 would take half a minute.
MOST_COUNTED = 2000

_CHANCE, _POLICY, _REWARD = "chance, 95 %", "policy leads", "reward leads"

NOTES = {
    "alignment": (
        "Cosine of each update of the {role} with the {other}'s latest update before it, all modules as one vector ({space} space), exact. Band: the central "
        "95 % if the update were noise of its norms. Attainable: the largest cosine that any update could have had. Misleads: near 0 it may be a sum of "
        "modules that go along and modules that go against (module_coupling); in many dimensions unrelated updates are orthogonal by default."
    ),
    "map": (
        "{what} of each update of the {role} with the {other}'s latest update, by {rows} ({space} space), exact. Red: along, blue: against. "
        "Misleads: neighbouring updates are alike, so stripes along a row are one coincidence and not many."
    ),
    "modules": (
        "Mean over updates of each module's cosine with the {other}'s latest update ({space} space). Modules stand side by side at their layer, those outside "
        "the blocks after the last. {band} Misleads: a mean hides modules that turn around, and their sum hides modules that go along and against."
    ),
    "lags": (
        "cos(policy {by} t, reward {by} s) over all common modules, sketched. Line: the first reward {by} after each policy {by}; on and above it the policy "
        "leads, below it the reward model leads. Misleads: momentum makes neighbouring steps alike, so a patch is one coincidence and not many."
    ),
    "profile": (
        "Mean cosine of policy step t with reward step t + lag; a step is {step}. Lag 0 is the first reward step after a policy step, lag −1 the last before "
        "it: from 0 on the policy leads, below 0 the reward model. {band} Misleads: steps of one role are alike, so neighbouring lags repeat each other; "
        "who comes first need not be the cause."
    ),
    "starts": (
        "Root mean square over updates, module by module: cosine of the {role}'s update with the {other}'s latest one, the largest cosine attainable at that "
        "moment, and the chance SD of the cosine, which the first equals by chance ({space} space). Dots: modules. Whiskers: the central 95 % of modules. "
        "Misleads: adapters that were drawn independently cannot agree, so compare cosine with attainable and not run with run."
    ),
}


# --- what several figures need -----------------------------------------------------------------


def _cosines(updates: pd.DataFrame, role: str, space: str, rows: geometry.Rows) -> pd.DataFrame:
    """`coupling.other_cosines` where the cosine is known."""
    found = coupling.other_cosines(recording(updates).updates, role, space, rows)
    return found.dropna(subset=["cosine"])


def _words(updates: pd.DataFrame, role: str, space: str) -> dict[str, str]:
    """Names for a note: of the role, of the one that it was held against, of the space."""
    own = recording(updates).updates
    named = own.loc[own["role"] == role, "other_role"].dropna() if len(own) else own["role"]
    other = str(named.iloc[0]) if len(named) else "other role"
    return {"role": ROLE_WORDS.get(role, role), "other": ROLE_WORDS.get(other, other), "space": space}


def _absent(role: str, space: str) -> str:
    return f"Not recorded: updates of the role {role} beside those of another one in the {space} space."


# --- cosine by update --------------------------------------------------------------------------


@figure
def alignment_curve(updates: pd.DataFrame, *, run: str, role: str = "policy", space: str | None = None) -> FigureSpec:
    """Does each update go along with the other role's latest one? Their cosine, what chance gives, and what could be attained.

    Raises `ValueError` for an unknown space.
    """
    place = space_of(updates, space)
    found = _cosines(updates, role, place, "whole")
    low, high = nulls.null_band(found["null"])
    points = pd.DataFrame({"x": found["update"], "clock": found["clock"], "label": [f"iteration {number}" for number in found["iteration"]]})
    size = float(np.nan_to_num(np.concatenate([found["cosine"].abs(), high])).max(initial=0.0))
    ceiling = points.assign(layer="ceiling", series="attainable", y=found["attainable"]) if found["attainable"].mean() <= ROOM * size else points[:0]
    band = points.assign(layer="chance", series=_CHANCE, low=low, high=high).dropna(subset=["low"])
    data = pd.concat([points.assign(layer="cosine", series=ROLE_WORDS.get(role, role), y=found["cosine"]), band, ceiling], ignore_index=True)
    note, title = NOTES["alignment"].format(**_words(updates, role, place)), f"Alignment: {ROLE_WORDS.get(role, role)}"
    numbers = _alignment_words(found, drawn=bool(len(ceiling))) if len(found) else _absent(role, place)
    marks = (Mark("band", "chance"), Mark("line", "ceiling", strong=False), Mark("line", "cosine"))
    axes = Axis("x", f"{ROLE_WORDS.get(role, role)} update"), Axis("y", "cosine with the other role")
    return FigureSpec("alignment_curve", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(found), (run,))


def _alignment_words(found: pd.DataFrame, *, drawn: bool) -> str:
    z = geometry.ratio(found["cosine"], found["null"])
    far = found.iloc[int(found["cosine"].abs().to_numpy().argmax())]
    chance = beyond(z, "updates") if np.isfinite(z).any() else f"No band. {NO_CHANCE}"
    ceiling = found["attainable"].mean()
    could = f" Attainable on average: {ceiling:.3g}{'' if drawn else ', too far above to be drawn'}." if np.isfinite(ceiling) else ""
    return f"Mean over {len(found)} updates {found['cosine'].mean():+.4f}, largest {far['cosine']:+.4f} at update {far['update']}. {chance}{could}"


# --- cosine by layer and update ----------------------------------------------------------------


@figure
def coupling_map(updates: pd.DataFrame, *, run: str, role: str = "policy", space: str | None = None, rows: Literal["layer", "kind"] = "layer") -> FigureSpec:
    """Where and when a role goes along with the other: cosine over its chance SD, by layer or kind and update.

    The data hold `cosine`, `null` and `value`, the colour: cosine / null, and without recorded nulls the cosine.
    Raises `ValueError` for unknown rows or space.
    """
    one_of("rows", rows, ("layer", "kind"))
    place = space_of(updates, space)
    found = _cosines(updates, role, place, rows)
    z = geometry.ratio(found["cosine"], found["null"])
    known = bool(np.isfinite(z).any())
    data = found[["row", "update", "clock", "cosine", "null"]].assign(value=z if known else found["cosine"], layer="cells", series=role)
    note = NOTES["map"].format(what="Cosine over its chance SD" if known else "Cosine", rows=rows, **_words(updates, role, place))
    numbers = (beyond(z, "cells") if known else f"{len(found)} cells. {NO_CHANCE}") if len(found) else _absent(role, place)
    title = f"Coupling: {ROLE_WORDS.get(role, role)}"
    axes = Axis("update", f"{ROLE_WORDS.get(role, role)} update"), Axis("row", rows, scale="category")
    marks, colour = (Mark("heat", "cells"),), _colour(known, data["value"])
    return FigureSpec("coupling_map", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(data), (run,), colour=colour)


def _colour(chance: bool, values: pd.Series[Any]) -> Axis:
    return Axis("value", "cosine", "chance SD", scale="diverging", limit=FULL) if chance else cosine_colours(values)


# --- cosine by module --------------------------------------------------------------------------


@figure
def module_coupling(
    updates: pd.DataFrame, policy: Sketched = None, reward: Sketched = None, *, run: str, role: _Role = "policy", space: str | None = None
) -> FigureSpec:
    """Which modules go along with the other role: mean cosine of each, what chance gives, and those that stand out.

    The sum over modules hides this: some go along, others against. Raises `ValueError` for another role or an unknown space.
    """
    one_of("role", role, ("policy", "reward"))
    place = space_of(updates, space)
    found = _cosines(updates, role, place, "module")
    own, other = (policy, reward) if role == "policy" else (reward, policy)
    modules = evidence.modules(found, _alike(updates, own, other, found["clock"].unique())).join(_places(updates, role, place), on="label").sort_values("x")
    dots = modules.assign(layer="modules", series=np.where(modules["p"] <= 0.05, "stands out (Holm, 5 %)", "module")).sort_values("series", kind="stable")
    low, high = nulls.null_band(modules["sd"])
    band = modules[["label", "x"]].assign(layer="chance", series=_CHANCE, low=low, high=high).dropna(subset=["low"])
    data = pd.concat([dots, band], ignore_index=True).reindex(columns=["layer", "series", "label", "x", "y", "low", "high", "sd", "p", "count"])
    title = f"Coupling by module: {ROLE_WORDS[role]}"
    numbers = _module_words(modules, _cosines(updates, role, place, "whole")) if len(found) else _absent(role, place)
    note = NOTES["modules"].format(**_words(updates, role, place), band=_band_words(modules, own, other))
    marks = (Mark("band", "chance"), Mark("points", "modules", strong=False))
    axes = Axis("x", "layer"), Axis("y", "mean cosine with the other role")
    return FigureSpec("module_coupling", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(modules), (run,))


def _alike(updates: pd.DataFrame, own: Sketched, other: Sketched, clocks_U: Ints) -> float:
    """What a mean over these updates keeps of the SD of one, as in `evidence.alignment`: all of it where no sketch tells."""
    if own is None or other is None or not len(clocks_U):
        return 1.0
    return evidence.kept_spread(evidence.repetition(recording(updates, own.run, own, other), np.sort(clocks_U)))


def _places(updates: pd.DataFrame, role: str, space: str) -> pd.Series[Any]:
    """module -> x: beside the others of its layer, around the layer's number; what is outside the blocks comes after the last one."""
    own = geometry.recorded(recording(updates).updates, role, space, "module").drop_duplicates("module")
    layers = own.set_index("module")["layer"].astype(float)
    numbers = layers.fillna(np.nan_to_num(layers.max(), nan=-1.0) + 1)
    beside = numbers.groupby(numbers)
    return (numbers + 0.8 * ((beside.cumcount() + 0.5) / beside.transform("size") - 0.5)).rename("x")


def _band_words(modules: pd.DataFrame, own: Sketched, other: Sketched) -> str:
    if not modules["sd"].notna().any():
        return f"No band. {NO_CHANCE}"
    band = "Band: the central 95 % of that mean if updates were noise of their norms, a lower limit, for real updates are less spread;"
    if own is None or other is None:
        return f"{band} without sketches, a mean is taken to scatter as much as one update, which is too much and never too little."
    return f"{band} neighbouring updates are alike, which is counted in."


def _module_words(modules: pd.DataFrame, whole: pd.DataFrame) -> str:
    ordered = modules.loc[modules["y"].abs().sort_values(ascending=False).index]
    listed = ", ".join(f"{row['label']} {row['y']:+.3f}" for row in ordered.head(3).to_dict("records"))
    signs = f"{int((modules['y'] > 0).sum())} go along, {int((modules['y'] < 0).sum())} against"
    told = f"{len(modules)} modules: {signs}; all as one vector {whole['cosine'].mean():+.4f}. Largest: {listed}."
    z = (modules["y"] / modules["sd"]).dropna()
    if z.empty:
        return told
    excess = f"root mean square of mean / SD {np.sqrt((z**2).mean()):.2f}, 1 by chance"
    return f"{told} {int((modules['p'] <= 0.05).sum())} stand out after Holm's correction; {excess}."


# --- who leads ---------------------------------------------------------------------------------


@figure
def cross_lag(policy: Sketched, reward: Sketched, updates: pd.DataFrame, *, run: str, by: coupling.By = "update", show: _Show = "cosine") -> FigureSpec:
    """Every step of the policy against every step of the reward model: their cosine, or (`show="chance"`) that in chance SDs.

    Raises `ValueError` for another `by` or `show`.
    """
    one_of("by", by, ("update", "iteration"))
    one_of("show", show, ("cosine", "chance"))
    pair, why = _pair(policy, reward, by)
    data, numbers = (pd.DataFrame(), why) if pair is None else _cells(*pair, updates, by, show)
    columns = ["layer", "series", "x", "row", "value", "cosine", "clock"]
    title, y = "Policy against reward model, step by step", Axis("row", f"reward {by}", scale="category")
    marks = (Mark("heat", "cells"), Mark("line", "now"))
    caption, cells = f"{NOTES['lags'].format(by=by)} {numbers}", int((data["layer"] == "cells").sum()) if len(data) else 0
    data = data.reindex(columns=columns)
    axes, colour = (Axis("x", f"policy {by}"), y), _colour(show == "chance", data["value"].astype(np.float64))
    return FigureSpec("cross_lag", title, data, marks, *axes, caption, f"{title}: {numbers}", cells, (run,), colour=colour)


def _pair(policy: Sketched, reward: Sketched, by: coupling.By) -> tuple[tuple[Trajectory, Trajectory] | None, str]:
    """Both roles in steps, or why there is nothing to hold against each other."""
    if policy is None or reward is None:
        return None, f"Not recorded: directions of the {'policy' if policy is None else 'reward model'} (runs with --sketch 0 have none)."
    try:
        return coupling.pairs(policy, reward, by), ""
    except ValueError as error:  # other models or sketches, which no cosine can join
        return None, f"Not drawn: {error}."


def _cells(policy: Trajectory, reward: Trajectory, updates: pd.DataFrame, by: coupling.By, show: str) -> tuple[pd.DataFrame, str]:
    """The rows of the heat map with the line between both sides, and their numbers in words."""
    whole = (len(policy.clocks_U), len(reward.clocks_U))
    sd, chance = evidence.typical_chance(recording(updates, policy.run, policy, reward), policy)
    policy, reward = (path.some(spread(len(path.clocks_U), MOST_COUNTED)) for path in (policy, reward))
    every_TS = coupling.cosine_matrix(policy, reward).values
    t_T, s_S = spread(len(policy.clocks_U), MOST_STEPS), spread(len(reward.clocks_U), MOST_STEPS)
    cosines_TS = every_TS[np.ix_(t_T, s_S)]
    x_T, row_S = ((path.updates_U if by == "update" else path.iterations_U)[kept] for path, kept in ((policy, t_T), (reward, s_S)))
    places = {"x": np.repeat(x_T, len(s_S)), "row": np.tile(row_S, len(t_T)).astype(str), "clock": np.repeat(policy.clocks_U[t_T], len(s_S))}
    value = cosines_TS.ravel() / (sd if show == "chance" else 1.0)
    cells = pd.DataFrame({"layer": "cells", "series": "cosine", **places, "cosine": cosines_TS.ravel(), "value": value})
    after_TS = coupling.lags(policy, reward, by)[np.ix_(t_T, s_S)] >= 0
    turn_T = np.flatnonzero(after_TS.any(axis=1))  # the last policy steps may have no reward step after them
    now = {"x": x_T[turn_T], "row": row_S[after_TS[turn_T].argmax(axis=1)].astype(str), "clock": policy.clocks_U[t_T][turn_T]}
    return pd.concat([cells, pd.DataFrame({"layer": "now", "series": "now", **now})], ignore_index=True), _cell_words(
        every_TS, sd, chance, whole, cosines_TS.shape
    )


def _cell_words(every_TS: Doubles, sd: float, chance: evidence.Chance, whole: tuple[int, int], drawn: tuple[int, ...]) -> str:
    known = every_TS[np.isfinite(every_TS)]
    if not len(known):
        return "Not recorded: two steps whose cosine is known."
    counted = f" Counted: {every_TS.shape[0]} by {every_TS.shape[1]} of them, evenly spread." if whole != every_TS.shape else ""
    thin = f"{counted} Drawn: {drawn[0]} by {drawn[1]} of them." if drawn != whole else ""
    size = f"{whole[0]} by {whole[1]} steps, cosines from {known.min():+.3f} to {known.max():+.3f}, chance SD {sd:.3g}: {CHANCE_WORDS[chance]}."
    return f"{size} {beyond(known / sd, 'cells')}{thin}"


@figure
def lag_profile(updates: pd.DataFrame, policy: Sketched, reward: Sketched, *, run: str, lags: int = evidence.LAGS) -> FigureSpec:
    """Who leads: mean cosine of policy steps with reward steps before and after them, by lag, against chance.

    Raises `ValueError` for fewer lags than 1.
    """
    if lags < 1:
        raise ValueError(f"lags is {lags}; it must be at least 1")
    rows, by, band, numbers = _profile(updates, policy, reward, lags)
    note = NOTES["profile"].format(step="one update" if by == "update" else "all updates of one iteration", band=band)
    marks = (Mark("band", "chance"), Mark("line", "lags", strong=False), Mark("points", "lags"))
    axes = Axis("x", "lag", f"{by}s"), Axis("y", "mean cosine")
    count, title = int(rows["count"].sum()), "Who leads"
    return FigureSpec("lag_profile", title, _sided(rows), marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", count, (run,))


#: Rows with x (the lag), y (mean), count, low, high; what a step is; in words what the band is and what the numbers say.
_Profile = tuple[pd.DataFrame, coupling.By, str, str]
_LAGS = ["x", "y", "count", "low", "high"]


def _profile(updates: pd.DataFrame, policy: Sketched, reward: Sketched, lags: int) -> _Profile:
    """By `evidence.lead`; where that refuses to judge so few steps, what there is."""
    pair, why = _pair(policy, reward, "update")
    if pair is None:
        return pd.DataFrame(columns=_LAGS, dtype=float), "iteration", "No band.", why
    lead = evidence.lead(recording(updates, pair[0].run, *pair), lags)
    if not lead.by_lag:
        return _few(*pair, lags, lead.by)
    rows = [(lag, one.value, one.count, *one.band) for lag, one in lead.by_lag.items()]
    band = f"Band: the central 95 % by chance, which is {CHANCE_WORDS[lead.by_lag[0].chance]}."
    return pd.DataFrame(rows, columns=_LAGS), "update" if lead.by == "update" else "iteration", band, _lead_words(lead)


def _few(policy: Trajectory, reward: Trajectory, lags: int, why: str) -> _Profile:
    """Means without a band: by iteration if both roles have two of them, else by update."""
    by: coupling.By = "iteration" if min(len(np.unique(path.iterations_U)) for path in (policy, reward)) > 1 else "update"
    first, second = coupling.pairs(policy, reward, by)
    table = coupling.cross_lag(coupling.cosine_matrix(first, second).values, coupling.lags(first, second, by), lags)
    rows = table[(table["lag"] < lags) & (table["count"] > 0)].rename(columns={"lag": "x", "mean": "y"}).assign(low=np.nan, high=np.nan)
    told = ", ".join(f"{row['y']:+.3f} at lag {row['x']:+.0f} ({row['count']:.0f})" for row in rows.to_dict("records"))
    words = f"Too few steps to say who leads ({why}). Mean cosines, and of how many pairs: {told or 'none at these lags'}."
    return rows[_LAGS], by, "No band.", words


def _lead_words(lead: Lead) -> str:
    known = {lag: one for lag, one in lead.by_lag.items() if np.isfinite(one.value)}
    if not known:
        return "No cosine of two steps is known."
    far = max(known, key=lambda lag: abs(known[lag].value))
    p = f"p = {lead.adjusted[far]:.3f}" if lead.adjusted[far] >= 0.001 else "p < 0.001"
    size = f"{lead.steps} {lead.by}s; largest {known[far].value:+.3f} at lag {far:+d}, {p} after Holm's correction."
    who = "Nobody" if lead.peak is None else "The policy" if lead.peak >= 0 else "The reward model"
    return f"{size} {who} leads: {'no' if lead.peak is None else 'that'} lag stands out from chance and from its mirror image."


def _sided(rows: pd.DataFrame) -> pd.DataFrame:
    """Dots of both sides as series of their own, the policy's first, and the band."""
    dots = rows.dropna(subset=["y"])[["x", "y", "count"]].assign(layer="lags")
    dots["series"] = np.where(dots["x"] >= 0, _POLICY, _REWARD)
    band = rows.dropna(subset=["low"])[["x", "low", "high"]].assign(layer="chance", series=_CHANCE)
    return pd.concat([dots.sort_values("series", kind="stable"), band]).reindex(columns=["layer", "series", *_LAGS]).reset_index(drop=True)


# --- several runs ------------------------------------------------------------------------------

_SIZES = {"cosine": "cosine", "attainable": "attainable", "null": "chance SD"}


@figure
def starts(updates: pd.DataFrame, *, run: str = "", role: str = "policy", space: str | None = None) -> FigureSpec:
    """Runs side by side, such as of shared and of independent adapters: how large module cosines are, could be, and are by chance.

    A frame of one run may come without the column `run`; `run` then names it. Raises `ValueError` for an unknown space.
    """
    place = space_of(updates, space)
    rows = updates if "run" in updates else updates.assign(run=run or "this run")
    sizes = {str(name): _sizes(part, role, place) for name, part in rows.groupby("run", sort=False, observed=True)}
    sizes = {name: table for name, table in sizes.items() if len(table)}
    # an axis of words is filled from below: the first run ends on top
    parts = [_spread(name, column, table[column]) for name, table in reversed(sizes.items()) for column in reversed(_SIZES)]
    data = pd.concat([pd.DataFrame(), *parts], ignore_index=True).reindex(columns=["layer", "series", "row", "x", "low", "high", "label"])
    numbers = " ".join(_size_words(name, table) for name, table in sizes.items()) or _absent(role, place)
    title, axes = "Module cosines, run by run", (Axis("x", "root mean square over updates", scale="log"), Axis("row", "", scale="category"))
    caption, count = f"{NOTES['starts'].format(**_words(rows, role, place))} {numbers}", sum(len(table) for table in sizes.values())
    marks = (Mark("interval", "spread"), Mark("points", "modules", strong=False))
    return FigureSpec("starts", title, data, marks, *axes, caption, f"{title}: {numbers}", count, tuple(sizes))


def _sizes(updates: pd.DataFrame, role: str, space: str) -> pd.DataFrame:
    """Root mean squares over updates, a row for each module. Of squares, chance needs no correction for updates that are alike."""
    found = _cosines(updates, role, space, "module")
    return (found[list(_SIZES)].astype(float) ** 2).groupby(found["row"], sort=False).mean() ** 0.5


def _spread(run: str, column: str, values_M: pd.Series[Any]) -> pd.DataFrame:
    """A dot for each module, and the middle 95 % of them; on a logarithmic axis there is no place for 0."""
    known, row = values_M[values_M > 0], f"{run}: {_SIZES[column]}"
    low, middle, high = known.quantile([0.025, 0.5, 0.975])
    whiskers = {"layer": "spread", "series": "median and 95 % of modules", "row": row, "x": middle, "low": low, "high": high}
    dots = pd.DataFrame({"layer": "modules", "series": "module", "row": row, "x": known.to_numpy(), "label": known.index})
    return pd.concat([pd.DataFrame([whiskers]), dots]) if len(known) else dots


def _size_words(run: str, table: pd.DataFrame) -> str:
    middle = table.median()
    chance = f", {(table['cosine'] / table['null']).median():.2f} times chance" if table["null"].notna().any() else " (no chance spreads recorded)"
    share = (table["cosine"] / table["attainable"]).median()
    return f"{run}: median of {len(table)} modules {middle['cosine']:.3g}, {share:.1%} of the attainable {middle['attainable']:.3g}{chance}."
