"""Figures of how one role moves: how long it keeps a direction, which parts of the model move most, how straight it goes.

Numbers come from `analysis.geometry` and `analysis.evidence`. Frames are the `updates` stream of one run; what is not recorded gives a
figure without rows whose caption says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from analysis import evidence, geometry
from analysis.evidence import Chance, Persistence, Recording
from analysis.figures import ROLE_WORDS, figure
from analysis.scores import one_of
from analysis.spec import Axis, FigureSpec, Mark
from analysis.trajectory import Trajectory
from analysis.uncertainty import Interval, interval_over_updates
from interplay.records import ROLES, SPACES

#: What a frame of updates must have; chance spreads are missing in older recordings.
_COLUMNS = [*geometry.KEYS[1:], "role", "module", "layer", "kind", "space", *geometry.NORMS, "cos_previous"]
_COLUMNS += ["other_role", "cos_other_update", "attainable_other_update"]

NOTES = {
    "persistence": (
        "cos(d_t, d_{{t−l}}) = Σ⟨d, d′⟩ / √(Σ‖d‖² Σ‖d′‖²) over all modules, mean over updates t, by lag l. Lag 1 is exact, longer lags are sketched. Bands: "
        "the central 95 % by chance, which is {chance}. Misleads: momentum alone keeps a direction, at 0.9 about 0.9ˡ; means of neighbouring updates are "
        "not independent, and a band is for one lag at a time."
    ),
    "shares": (
        "Share of a {rows} in the squared update norm, Σ‖ΔW of its modules‖² / Σ‖ΔW of all‖² ({space} space); each update counts alike, bars are means over "
        "updates, whiskers their 95 % interval where it can be trusted. Misleads: "
        "AdamW moves every weight by about the same, so a {rows} of more weights has a larger share whatever it learns."
    ),
    "straightness": (
        "Distance from the start ‖Σ ΔW‖ over the length of the way Σ‖ΔW‖, after each update ({space} space): 1 is a straight line. A random walk of U equal "
        "updates has about 1/√U. Misleads: momentum alone keeps a path straight over its first updates; a reward model that is averaged with its older self "
        "between iterations (keep-close) moves without an update, which counts in the distance and not in the length."
    ),
}
#: What the chance SD of a cosine rests on.
CHANCE_WORDS: Mapping[Chance, str] = {
    "recorded": "noise of the recorded norms, error of the sketches included",
    "sketch": "error of the sketches alone and too narrow, for this recording holds no chance spreads (null_other_update)",
    "unknown": "not known",
}


# --- what several figures need -----------------------------------------------------------------


def recording(updates: pd.DataFrame, run: str = "", policy: Trajectory | None = None, reward: Trajectory | None = None) -> Recording:
    """What `analysis.evidence` asks for, from what a figure was given. A frame that lacks a column gives none of its rows."""
    rows = updates if set(_COLUMNS) <= set(updates.columns) else pd.DataFrame(columns=_COLUMNS)
    return Recording(run, "", 0, "", policy, reward, rows, pd.DataFrame(), pd.DataFrame())


def space_of(updates: pd.DataFrame, space: str | None) -> str:
    """The chosen space; where none is chosen, the weight that the forward pass uses, if it was recorded. Raises `ValueError` for an unknown one."""
    if space is not None:
        one_of("space", space, SPACES)
    return space or recording(updates).space


def row_order(row: str) -> tuple[bool, int]:
    """Layers by number, then what is outside the blocks; words keep their order."""
    return not row.isdecimal(), int(row) if row.isdecimal() else 0


# --- persistence -------------------------------------------------------------------------------


@figure
def persistence_lags(paths: Sequence[Trajectory], updates: pd.DataFrame, *, run: str, lags: int = 10) -> FigureSpec:
    """How long each role keeps its direction: mean cosine of an update with those before it, by lag, against chance.

    Raises `ValueError` for fewer lags than 1.
    """
    if lags < 1:
        raise ValueError(f"lags is {lags}; it must be at least 1")
    found = {ROLE_WORDS.get(path.role, path.role): _persistence(path, updates, lags) for path in paths}
    columns = ["layer", "series", "x", "y", "low", "high", "count"]
    data = pd.DataFrame([row for name, one in found.items() for row in _lag_rows(name, one)], columns=columns)
    chance = {estimate.chance for one in found.values() for _, estimate in _known(one)}
    note = NOTES["persistence"].format(chance=" or ".join(CHANCE_WORDS[kind] for kind in sorted(chance)) or CHANCE_WORDS["unknown"])
    told = [_lag_words(name, one) for name, one in found.items() if _known(one)]
    numbers = " ".join(told) or "Not recorded: two updates of a role with their directions (runs with --sketch 0 have none)."
    count, title = sum(len(path.updates_U) for path in paths), "Persistence of updates"
    marks = (Mark("band", "lags"), Mark("line", "lags"), Mark("points", "lags"))
    axes = Axis("x", "lag", "updates"), Axis("y", "mean cosine")
    return FigureSpec("persistence_lags", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", count, (run,))


def _persistence(path: Trajectory, updates: pd.DataFrame, lags: int) -> Persistence:
    """For any role: `evidence.persistence` knows two places for a path, and asks for the role's rows by its name."""
    return evidence.persistence(recording(updates, path.run, path, path), cast(Literal["policy", "reward"], path.role), lags)


def _known(found: Persistence) -> list[tuple[int, evidence.Estimate]]:
    return [(lag, one) for lag, one in enumerate(found.by_lag, 1) if np.isfinite(one.value)]


def _lag_rows(name: str, found: Persistence) -> list[dict[str, Any]]:
    place = {"layer": "lags", "series": name}
    return [{**place, "x": lag, "y": one.value, "low": one.band[0], "high": one.band[1], "count": one.count} for lag, one in _known(found)]


def _lag_words(name: str, found: Persistence) -> str:
    known = _known(found)
    inside = next((lag for lag, one in known if not one.p <= 0.05), None)
    reach = f"above or below its band at all {len(known)} lags" if inside is None else f"first within its band at lag {inside}"
    ends = ", ".join(f"{one.value:+.3f} at lag {lag}" for lag, one in dict.fromkeys([known[0], known[-1]]))
    between = found.iterations
    whole = f"; whole iterations {between.value:+.3f} with the one before ({between.count})" if np.isfinite(between.value) else ""
    return f"{name}: {ends}, {reach if np.isfinite(known[0][1].p) else 'without a band'}{whole}."


# --- shares ------------------------------------------------------------------------------------


@figure
def norm_shares(updates: pd.DataFrame, role: str, *, run: str, rows: Literal["layer", "kind"] = "layer", space: str | None = None) -> FigureSpec:
    """Which layers or kinds of module make up a role's updates: shares of the squared norm, mean over updates.

    `low` and `high` of the data hold the 95 % interval over updates where `uncertainty.interval_over_updates` gives one.
    Raises `ValueError` for unknown rows or space.
    """
    one_of("rows", rows, ("layer", "kind"))
    place = space_of(updates, space)
    shares = _shares(updates, role, place, rows)
    found = {str(row): interval_over_updates(part["share"]) for row, part in shares.groupby("row", sort=False)}
    data = _bars(shares, found).assign(layer="shares", series=ROLE_WORDS.get(role, role))
    count, title = shares["update"].nunique(), f"Who moves: {ROLE_WORDS.get(role, role)}"
    numbers = _share_words(data, found, rows) if count else f"Not recorded: update norms of the role {role} in the {place} space."
    axes = Axis("row", rows, scale="category"), Axis("y", "share of the squared update norm")
    note = NOTES["shares"].format(rows=rows, space=place)
    return FigureSpec("norm_shares", title, data, (Mark("bar", "shares"),), *axes, f"{note} {numbers}", f"{title}: {numbers}", count, (run,))


def _shares(updates: pd.DataFrame, role: str, space: str, rows: geometry.Rows) -> pd.DataFrame:
    """Known shares, rows in the order of `row_order`."""
    found = geometry.shares(recording(updates).updates, role, space, rows).dropna(subset=["share"])
    return found.sort_values("row", key=lambda names: names.map(row_order), kind="stable")


def _bars(shares: pd.DataFrame, found: Mapping[str, Interval]) -> pd.DataFrame:
    means = shares.groupby("row", sort=False)["share"].mean()
    ends = {"low": [one.low for one in found.values()], "high": [one.high for one in found.values()]}
    return pd.DataFrame({"row": list(found), "y": [float(means[row]) for row in found], **ends}, columns=["row", "y", "low", "high"])


def _share_words(data: pd.DataFrame, found: Mapping[str, Interval], rows: str) -> str:
    ordered = data.sort_values("y", kind="stable", ascending=False)
    said = [f"{rows} {row['row']} {row['y']:.1%}{_ends(row)}" for row in ordered.to_dict("records")]
    missing = [row for row in ordered["row"] if found[row].reason]
    why = f" No 95 % interval over updates for {len(missing)} of {len(data)} bars; {rows} {missing[0]}: {found[missing[0]].reason}." if missing else ""
    return f"An even split is {1 / len(data):.1%}. Largest: {', '.join(said[:3])}; smallest: {said[-1]}.{why}"


def _ends(row: Mapping[Any, Any]) -> str:
    return f" [{row['low']:.1%}, {row['high']:.1%}]" if np.isfinite(row["low"]) else ""


# --- straightness ------------------------------------------------------------------------------


@figure
def straightness_curve(updates: pd.DataFrame, *, run: str, space: str | None = None) -> FigureSpec:
    """How much of its way each role has kept: distance from the start over length of the way, beside that of a random walk.

    Raises `ValueError` for an unknown space.
    """
    place = space_of(updates, space)
    paths = {ROLE_WORDS[role]: _straight(updates, role, place) for role in ROLES}
    paths = {name: path for name, path in paths.items() if len(path)}
    most = max((int(path["x"].max()) for path in paths.values()), default=0)
    walk = pd.DataFrame({"layer": "walk", "series": "random walk 1/√U", "x": np.arange(1, most + 1), "y": np.arange(1, most + 1) ** -0.5})
    data = pd.concat([*paths.values(), walk], ignore_index=True)
    told = [_straight_words(name, path) for name, path in paths.items()]
    numbers = f"At the last update: {'; '.join(told)}." if told else f"Not recorded: displacement and update norms in the {place} space."
    count, title = sum(len(path) for path in paths.values()), "Straightness of paths"
    marks = (Mark("line", "walk", strong=False), Mark("line", "path"))
    axes = Axis("x", "update of the role"), Axis("y", "distance from the start / length of the way")
    note = NOTES["straightness"].format(space=place)
    return FigureSpec("straightness_curve", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", count, (run,))


def _straight(updates: pd.DataFrame, role: str, space: str) -> pd.DataFrame:
    """One role's known straightness by update, and in `chance` that of a random walk with its own norms, √Σn² / Σn."""
    found = geometry.straightness(recording(updates).updates, role, space, "whole")
    steps = found["length"].diff().fillna(found["length"])
    chance, moments = geometry.ratio(np.sqrt((steps**2).cumsum()), found["length"]), [f"iteration {number}" for number in found["iteration"]]
    named = found.rename(columns={"update": "x", "straightness": "y"}).assign(layer="path", series=ROLE_WORDS[role], chance=chance, label=moments)
    return named[["layer", "series", "x", "y", "chance", "clock", "label"]].dropna(subset=["y"])


def _straight_words(name: str, path: pd.DataFrame) -> str:
    last = path.iloc[-1]
    return f"{name} {last['y']:.2f} after {last['x']:.0f} (a random walk with its norms {last['chance']:.2f})"
