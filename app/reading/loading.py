"""From folders of runs to frames: which roots to look in, and a feed that reads only what is new.

No pictures and no widgets. Everything that comes from disk comes through `interplay.store`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis import tables
from analysis.trajectory import Trajectory
from interplay.errors import InterplayError, StoreError
from interplay.reading import summarise
from interplay.records import END_STATES, ROLES, STREAMS, RunInfo, Stream
from interplay.store import Runs, RunStore, RunSummary

RECORDINGS = Path(__file__).resolve().parents[2] / "data" / "recordings"


def roots() -> list[Path]:
    """The folders that hold runs: `INTERPLAY_RUNS`, else ./runs and the recordings that came with the project."""
    named = os.environ.get("INTERPLAY_RUNS", "")
    paths = [Path(part) for part in named.split(os.pathsep) if part] or [Path("runs"), RECORDINGS]
    return list(dict.fromkeys(path.resolve() for path in paths))


def summaries() -> list[RunSummary]:
    """All runs of all roots, newest first."""
    found = [summary for root in roots() if root.is_dir() for summary in Runs(root).list()]
    return sorted(found, key=lambda summary: str(summary.created or ""), reverse=True)


def again(summary: RunSummary) -> RunSummary:
    """The same run as it is now, from two small files; as it was, if it has gone."""
    try:
        return summarise(Path(summary.path))
    except StoreError:
        return summary


def ends(summary: RunSummary) -> Mapping[str, tables.Ends]:
    """Held-out scores by name; none where there are none yet, or where they cannot be read."""
    when = newest(summary)
    try:
        return {} if when is None else _ends(str(summary.path), when)
    except (InterplayError, pa.ArrowException):
        return {}


@functools.lru_cache(maxsize=512)
def _ends(path: str, when: float) -> Mapping[str, tables.Ends]:  # noqa: ARG001 - `when` makes an older answer unreachable
    table = RunStore.open(Path(path)).read("metrics", columns=["clock", "split", "name", "value"])
    return tables.ends(table.unify_dictionaries().to_pandas())


def place(summary: RunSummary) -> Path:
    return Path(summary.path)


def describe(summary: RunSummary) -> RunInfo:
    """What the run wrote about itself."""
    info: RunInfo = RunStore.open(Path(summary.path)).info
    return info


def exposed() -> bool:
    """Whether others than this machine's user can reach the server."""
    return os.environ.get("INTERPLAY_EXPOSED") == "1"


def live(summary: RunSummary) -> bool:
    """Whether more rows may still come."""
    return summary.state not in END_STATES and summary.state != "unreadable"


def warming_up(summary: RunSummary) -> bool:
    """Whether a live run of the engine's is still at its first reward model: its policy has not moved, so that there is little to see."""
    return live(summary) and "doing" in summary.progress and "reward" not in summary.progress


def to_show(summaries: Sequence[RunSummary]) -> int:
    """Which of these, newest first, is shown where none is asked for: the newest with something to see, if there is any."""
    return next((place for place, one in enumerate(summaries) if one.state != "unreadable" and not warming_up(one)), 0)


@dataclass
class Feed:
    """One run's streams as far as they have been read. `refresh` appends; `frame` is pandas of what is there."""

    path: Path
    streams: tuple[Stream, ...] = STREAMS
    tables: dict[str, pa.Table] = field(default_factory=dict)
    cursors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    _paths: dict[str, Trajectory] = field(default_factory=dict)

    @property
    def store(self) -> RunStore:
        return RunStore.open(self.path)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables and paths that are held."""
        held: int = sum(table.nbytes for table in self.tables.values()) + sum(path.sketches_UTK.nbytes for path in list(self._paths.values()))
        return held

    def refresh(self) -> bool:
        """Read new parts. True if anything came."""
        store = self.store
        return sum(self._read(store, stream) for stream in self.streams) > 0

    def _read(self, store: RunStore, stream: Stream) -> bool:
        table, cursor = store.read_new(stream, self.cursors.get(stream))
        fresh = stream not in self.tables or cursor.reset
        self.cursors[stream] = cursor
        if not fresh and table.num_rows == 0:
            return False
        self.tables[stream] = table if fresh else pa.concat_tables([self.tables[stream], table], promote_options="permissive")
        self.versions[stream] = self.versions.get(stream, 0) + 1
        self._frames.pop(stream, None)
        if stream == "directions":
            self._paths = {}
        return True

    def frame(self, stream: str) -> pd.DataFrame:
        """The stream as pandas, without sketches."""
        if stream not in self._frames:
            table = self.tables[stream].unify_dictionaries()
            self._frames[stream] = table.drop_columns(["sketch"]).to_pandas() if "sketch" in table.column_names else table.to_pandas()
        return self._frames[stream]

    def roles(self) -> list[str]:
        """Roles with recorded updates, in the usual order."""
        seen = set(self.frame("updates")["role"].astype(str).unique())
        return [role for role in ROLES if role in seen]

    def spaces(self) -> list[str]:
        return sorted({str(space) for space in self.frame("updates")["space"].unique()}, reverse=True)

    def trajectories(self, roles: Sequence[str]) -> list[Trajectory]:
        """Paths of the roles that have moved, made once until rows come. Raises `ValueError` with the reason when there is none to draw."""
        held, table = self._paths, self.tables["directions"]  # in this order: new rows bring another dict
        if table.num_rows == 0:
            raise ValueError("this run recorded no directions (yet); runs with --sketch 0 have none")
        for role in [role for role in roles if role not in held]:
            held[role] = Trajectory.from_table(table.unify_dictionaries(), role, self.store.info.sketch, run=self.store.info.run)
        return [held[role] for role in roles if len(held[role].updates_U)]


def newest(summary: RunSummary) -> float | None:
    """When the run last wrote a part, in seconds since the epoch; None before the first."""
    times = [_written(part) for stream in STREAMS for part in (Path(summary.path) / stream).glob("*.parquet")]
    return max(times) if times else None


def _written(part: Path) -> float:
    """A part may be merged away while it is looked at."""
    try:
        return part.stat().st_mtime
    except OSError:
        return 0.0
