"""The reading half of a run's folder: what it says about itself, its rows, and what has come since the last look.

Takes no lock and writes nothing, so any number of viewers may read while one process writes.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from interplay import disk, labels
from interplay.errors import ConfigError, StoreError, allowed, nearest
from interplay.parts import Parts
from interplay.records import END_STATES, SCHEMA_VERSION, STATES, STREAMS, RunInfo, State, Stream, schema

RUN, STATUS, LOCK, PULSE = "run.json", "status.json", "writer.lock", ".pulse"
RUN_FILES = (RUN, STATUS, LOCK, PULSE)
STALLED_AFTER = 60.0  # seconds without a heartbeat


@dataclass(frozen=True)
class Status:
    """What `status.json` holds. Times are seconds since the epoch."""

    state: State
    heartbeat: float
    started: float | None = None
    ended: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    message: str | None = None
    error: str | None = None
    pid: int | None = None
    host: str | None = None
    dropped: int = 0  # rows given up because the disk stayed full

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Status:
        """Unknown keys are kept out. Raises `StoreError` if it is no status."""
        known = {key: value for key, value in raw.items() if key in cls.__dataclass_fields__}
        if known.get("state") not in STATES:
            raise StoreError(f"{STATUS} is damaged: state is {known.get('state')!r}; it must be one of {allowed(STATES)}")
        wrong = [name for name, kinds in _STATUS_KINDS.items() if not isinstance(known.get(name, cls.__dataclass_fields__[name].default), kinds)]
        if wrong or not isinstance(known.get("progress", {}), dict):
            raise StoreError(f"{STATUS} is damaged: {(wrong or ['progress'])[0]} does not hold what it should")
        return cls(**known | {name: unknown for name, unknown in _TIMES.items() if _no_time(known.get(name))})

    def changed(self, state: State | None = None, progress: Mapping[str, Any] | None = None, message: str | None = None, error: str | None = None) -> Status:
        """The same but for what is given; `running` clears the end and the error of an earlier attempt. Raises `StoreError` for a state that there is not."""
        if state is not None and state not in STATES:
            raise StoreError(f"state is {state!r}; allowed: {allowed(STATES)}")
        changes: dict[str, Any] = {"progress": dict(progress)} if progress is not None else {}
        changes |= {name: text for name, text in (("message", message), ("error", error)) if text is not None}
        if state is not None:
            changes |= {"state": state, "ended": time.time() if state in END_STATES else None}
            if state == "running":
                changes = {"error": None, **changes}
        return replace(self, **changes)

    def problems(self) -> list[str]:
        return [f"{self.dropped} rows were given up while the disk was full"] if self.dropped else []

    def shown(self) -> str:
        """The state as a person should see it. What says running is `interrupted` if its process has gone, and `stalled` without a heartbeat."""
        if self.state != "running":
            return self.state
        if gone(self.host, self.pid, self.heartbeat):
            return "interrupted"
        return "running" if time.time() - self.heartbeat <= STALLED_AFTER else "stalled"


def gone(host: object, pid: object, seen: float) -> bool:
    """Whether a process that was alive at `seen` (seconds since the epoch) has ended. Of other machines nobody knows, so False.

    A process that was born later only has the same number; one that nobody waited for has ended, too.
    """
    if host != socket.gethostname() or pid is None:
        return False
    try:
        process = psutil.Process(pid) if isinstance(pid, int) and 0 < pid < 2**31 else None
        return process is None or process.create_time() > seen + 1 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # somebody else's
        return False


_NUMBER = (int, float)
_TIMES = {"heartbeat": math.nan, "started": None, "ended": None}  # and what stands for one that cannot be


def _no_time(value: object) -> bool:
    """Beyond 30,000 years, or no number at all: nobody wrote that down, and arithmetic with it may fail."""
    return isinstance(value, _NUMBER) and not abs(value) < 1e12


_STATUS_KINDS: dict[str, tuple[type, ...]] = {
    "heartbeat": _NUMBER,
    "started": (*_NUMBER, NoneType),
    "ended": (*_NUMBER, NoneType),
    "message": (str, NoneType),
    "error": (str, NoneType),
    "pid": (int, NoneType),
    "host": (str, NoneType),
    "dropped": (int,),
}


@dataclass(frozen=True)
class Cursor:
    """How far a stream has been read. `dataclasses.asdict` makes JSON of it, `Cursor(**raw)` a cursor."""

    born: str  # creation time of the run: a new run in the same folder starts over
    attempt: int
    rows: int
    reset: bool = field(default=False, compare=False)  # this read starts from the first row again


class RunReader:
    """One run, for looking at. `RunStore` adds writing."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path, self.info = path, info
        self._schemas = {stream: schema(stream, info.sketch.k) for stream in STREAMS}
        self._parts = {stream: Parts(path, stream, self._schemas[stream]) for stream in STREAMS}

    def read(self, stream: Stream, columns: Sequence[str] | None = None, filter: pc.Expression | None = None) -> pa.Table:
        """The flushed rows of a stream, in the order in which they were appended."""
        self._schema(stream)
        return self._parts[stream].read(0, columns, filter)[0]

    def read_new(self, stream: Stream, cursor: Cursor | None = None, columns: Sequence[str] | None = None) -> tuple[pa.Table, Cursor]:
        """Rows that `cursor` has not seen, and the next cursor. If its `reset` is true the table is everything from the start."""
        self._schema(stream)
        parts = self._parts[stream]
        start = cursor.rows if cursor is not None else 0
        table, view = parts.read(start, columns)
        reset = cursor is not None and (cursor.born != self.info.created or cursor.attempt != view.attempt or cursor.rows > view.stop)
        if reset:
            table, view = parts.read(0, columns)
        return table, Cursor(self.info.created, view.attempt, view.stop, reset)

    def status(self) -> Status:
        """What the writer last said. Raises `StoreError` if that is damaged or missing."""
        try:
            status = Status.from_json(disk.read_json(self.path / STATUS))
            return replace(status, heartbeat=max(status.heartbeat, self._pulse()))
        except FileNotFoundError as error:
            raise StoreError(f"{self.path / STATUS} is missing; the run was never complete, or was copied in part") from error

    def _pulse(self) -> float:
        """When the writing process last touched its pulse file: long rollouts hand over no rows."""
        with contextlib.suppress(OSError):
            return (self.path / PULSE).stat().st_mtime
        return 0.0

    def problems(self) -> list[str]:
        """What a viewer should say beside the data, one line each: damaged parts, missing rows, rows given up."""
        lines = _age(self.info)
        for parts in self._parts.values():
            try:
                lines += parts.view().problems
            except StoreError as error:
                lines.append(str(error))
        try:
            return lines + self.status().problems()
        except StoreError as error:
            return [*lines, str(error)]

    def _schema(self, stream: str) -> pa.Schema:
        if stream not in self._schemas:
            raise StoreError(f"stream is {stream!r}; allowed: {allowed(STREAMS)}{nearest(stream, STREAMS)}")
        return self._schemas[stream]


def refuse_no_run(argument: str, path: Path) -> None:
    """Raises `ConfigError` if what a person named is not the folder of a run, with the nearest folder beside it."""
    if not (path / RUN).is_file():
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() and not path.exists() else ""
        raise ConfigError(f"{argument} is {str(path)!r}, which is not a run folder (no {RUN}){near}; `interplay runs` lists the runs")


def read_info(path: Path) -> RunInfo:
    """What `run.json` holds. Raises `StoreError` with the reason."""
    try:
        raw = disk.read_json(path / RUN)
    except FileNotFoundError as error:
        raise StoreError(f"{path} holds no run ({RUN} is missing); `interplay runs` lists the runs there are") from error
    try:
        info = RunInfo.from_json(raw)
    except (TypeError, AttributeError) as error:
        raise StoreError(f"{path / RUN} is damaged: {error}") from error
    wrong = [name for name, kind in _KINDS.items() if not isinstance(getattr(info, name), kind)]
    if wrong or not isinstance(info.sketch.k, int) or not 0 <= info.sketch.k <= _LARGEST_SKETCH:
        raise StoreError(f"{path / RUN} is damaged: {(wrong or ['sketch.k'])[0]} does not hold what it should")
    return info


def newer(info: RunInfo) -> str | None:
    """What to say of a run that a later version wrote; None for all others."""
    if info.schema_version <= SCHEMA_VERSION:
        return None
    return (
        f"was written by a newer Interplay (schema {info.schema_version}, this one knows {SCHEMA_VERSION}), so it is read-only and may show less than it holds"
    )


def _age(info: RunInfo) -> list[str]:
    newest = newer(info)
    return [f"this run {newest}"] if newest else []


_KINDS: dict[str, type] = {"run": str, "config": dict, "command": list, "created": str, "schema_version": int, "versions": dict, "notes": list}
_LARGEST_SKETCH = 2**20


# --- one line of a list of runs ----------------------------------------------------------------------


@dataclass(frozen=True)
class RunSummary:
    """One line of a list of runs. `state` is as shown: a State, `stalled` or `unreadable`."""

    run: str
    path: Path
    state: str
    method: str | None = None
    task: str | None = None
    seed: int | None = None
    created: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ended: float | None = None  # seconds since the epoch, as the run wrote it down
    tags: tuple[str, ...] = ()
    note: str = ""


def summarise(path: Path) -> RunSummary:
    """The line of one run, from two small files and its labels. Raises `StoreError` if they cannot be read."""
    info = read_info(path)
    status, labelled = RunReader(path, info).status(), labels.read(path)
    method, task, seed = (info.config.get(name) for name in ("method", "task", "seed"))
    return RunSummary(
        path.name,
        path,
        status.shown(),
        method if isinstance(method, str) else None,
        task if isinstance(task, str) else None,
        seed if isinstance(seed, int) else None,
        info.created,
        status.progress,
        info.config,
        (*_age(info), *status.problems(), *labelled.problems),
        status.ended,
        labelled.tags,
        labelled.note,
    )


def looks_like_run(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is, or was meant to be, a run; other folders are nobody's business."""
    return not entry.name.startswith((".", "_")) and any(os.path.lexists(os.path.join(entry.path, name)) for name in (RUN, STATUS, LOCK))
