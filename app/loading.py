"""From folders of runs to frames: which roots to look in, and a feed that reads only what is new.

No pictures and no widgets. Everything that comes from disk comes through `interplay.store`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis import tables
from analysis.trajectory import Trajectory
from interplay.errors import InterplayError, StoreError
from interplay.records import END_STATES, ROLES, STREAMS, RunInfo, Stream
from interplay.store import Runs, RunStore, RunSummary

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "recordings"


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
    """The same run as it is now; as it was, if it has gone."""
    return next((now for now in Runs(Path(summary.path).parent).list() if now.path == summary.path), summary)


def search(runs: list[RunSummary], words: str) -> list[RunSummary]:
    """Runs that contain all the words in name, state, method, task or seed."""
    wanted = words.lower().split()
    texts = [f"{run.run} {run.state} {run.method} {run.task} seed {run.seed}".lower() for run in runs]
    return [run for run, text in zip(runs, texts, strict=True) if all(word in text for word in wanted)]


def gain(summary: RunSummary) -> float | None:
    """Change of the held-out gold score; None while there is no second one."""
    when = newest(summary)
    try:
        return None if when is None else _gain(str(summary.path), when)
    except (InterplayError, pa.ArrowException):
        return None


@functools.lru_cache(maxsize=512)
def _gain(path: str, when: float) -> float | None:  # noqa: ARG001 - `when` makes an older answer unreachable
    table = RunStore.open(Path(path)).read("metrics", columns=["clock", "split", "name", "value"])
    return tables.change(table.unify_dictionaries().to_pandas())


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


@dataclass
class Feed:
    """One run's streams as far as they have been read. `refresh` appends; `frame` is pandas of what is there."""

    path: Path
    streams: tuple[Stream, ...] = STREAMS
    tables: dict[str, pa.Table] = field(default_factory=dict)
    cursors: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def store(self) -> RunStore:
        return RunStore.open(self.path)

    def refresh(self) -> bool:
        """Read new parts. True if anything came."""
        store = self.store
        self.problems = [str(problem) for problem in store.problems()]
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

    def trajectories(self, roles: Iterable[str]) -> list[Trajectory]:
        """Paths of the roles that have moved. Raises `ValueError` with the reason when there is none to draw."""
        table, info = self.tables["directions"].unify_dictionaries(), self.store.info
        if table.num_rows == 0:
            raise ValueError("this run recorded no directions (yet); runs with --sketch 0 have none")
        paths = [Trajectory.from_table(table, role, info.sketch, run=info.run) for role in roles]
        return [path for path in paths if len(path.updates_U)]


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


def find(name: str, among: list[RunSummary]) -> RunSummary:
    """The run of that name. Raises `StoreError` with the names there are."""
    for summary in among:
        if summary.run == name:
            return summary
    raise StoreError(f"there is no run {name!r}; known: {', '.join(summary.run for summary in among) or 'none'}")
