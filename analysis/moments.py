"""Where a moment of a run lies in a picture, and which moment a point of a picture is: numbers only, so that following a run needs no new picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.spec import FigureSpec

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Figures whose points are moments in time, wherever they lie.
PATHS = "trajectories"


@dataclass(frozen=True)
class Track:
    """The moments P of one run (or of one path of it) in a picture, in order of the clock; C is x, or x, y and z."""

    run: str
    series: str
    clocks_P: Ints
    updates_P: Ints
    places_PC: Floats


@dataclass(frozen=True)
class Moments:
    """All moments of a picture. `paths`: a moment is a point on a path; else it is a place along the horizontal axis."""

    tracks: tuple[Track, ...]
    paths: bool

    def at(self, clocks: Mapping[str, int]) -> dict[str, Any]:
        """What marks these clocks of these runs: `rules` (places on the horizontal axis), or `points` (one on each path)."""
        found = [(track, _last(track, clocks[track.run])) for track in self.tracks if track.run in clocks]
        if not self.paths:
            return {"rules": [float(track.places_PC[row, 0]) for track, row in found if row is not None and np.isfinite(track.places_PC[row, 0])]}
        return {"points": [_point(track, row) for track, row in found]}

    def clock(self, point: Mapping[str, Any]) -> tuple[str, int] | None:
        """Run and clock of a point that a viewer chose: its `series` and `update` on a path, else its `x`. None if it is none of these."""
        number = point.get("update" if self.paths else "x")
        if not isinstance(number, int | float) or not np.isfinite(number):
            return None
        tracks = [track for track in self.tracks if len(track.clocks_P) and (not self.paths or track.series == point.get("series"))]
        named = [track for track in tracks if track.series == point.get("series")] or tracks
        if not named:
            return None
        along = named[0].updates_P if self.paths else named[0].places_PC[:, 0]
        gap = np.abs(along.astype(np.float64) - number)
        return (named[0].run, int(named[0].clocks_P[int(np.nanargmin(gap))])) if np.isfinite(gap).any() else None


def of(spec: FigureSpec) -> Moments:
    """The moments of a figure whose rows carry a clock; a figure without clocks has none."""
    if "clock" not in spec.data or spec.data.empty:
        return Moments((), spec.name == PATHS)
    if spec.name == PATHS:
        rows = spec.data[spec.data["layer"] == "path"]
        axes = [axis.column for axis in (spec.x, spec.y, spec.z) if axis]
        return Moments(tuple(_track(group, str(group["run"].iloc[0]), str(name), axes) for name, group in rows.groupby("series", sort=False)), True)
    runs = spec.data["run"] if "run" in spec.data else pd.Series(spec.runs[0], index=spec.data.index)
    places = spec.data[["clock", spec.x.column]].assign(run=runs).drop_duplicates(["run", "clock"], keep="last")
    return Moments(tuple(_track(group, str(run), str(run), [spec.x.column]) for run, group in places.groupby("run", sort=False)), False)


def _track(rows: pd.DataFrame, run: str, series: str, axes: list[str]) -> Track:
    rows = rows.sort_values("clock", kind="stable")
    updates = rows["update"].to_numpy(np.int64) if "update" in rows else np.zeros(len(rows), dtype=np.int64)
    return Track(run, series, rows["clock"].to_numpy(np.int64), updates, rows[axes].to_numpy(np.float32))


def _last(track: Track, clock: int) -> int | None:
    """The row of the last moment that is not later; None before the first."""
    row = int(np.searchsorted(track.clocks_P, clock, side="right")) - 1
    return row if row >= 0 else None


def _point(track: Track, row: int | None) -> dict[str, Any]:
    """Where a path is now; without a place before it begins."""
    if row is None:
        return {"series": track.series, "update": -1, "place": None}
    return {"series": track.series, "update": int(track.updates_P[row]), "place": [float(number) for number in track.places_PC[row]]}


def align(number: int, own: tuple[int, int], other: tuple[int, int], *, share: bool) -> int:
    """The update of another run (first and last of both are given) that goes with this one's: the same number, or the same share of the way."""
    if not share or own[0] == own[1]:
        return min(max(number, other[0]), other[1])
    return other[0] + round((number - own[0]) / (own[1] - own[0]) * (other[1] - other[0]))
