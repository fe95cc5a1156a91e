"""Comparisons on disk, for looking at: which there are, how far their rows have come, and which runs a figure of them is drawn from.

No widgets. A file is read again only when its size or time has changed.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import cli
from app.queue.job import Job
from app.reading import loading, naming
from app.reading.recorded import Recorded, stamp
from interplay import compare
from interplay.compare import PLAN, WARM, Plan, Row
from interplay.errors import StoreError
from interplay.reading import PULSE, RUN, STALLED_AFTER, STATUS, RunReader, Status, read_info
from interplay.records import RunInfo

Stamp = tuple[int, int]


@dataclass(frozen=True)
class RowNow:
    """A row of a plan as it stands. `state`: of a run as it is shown, or `to do`; `why` is what it says went wrong."""

    row: Row
    state: str
    progress: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None  # from start to end, of a finished row
    created: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    host: str | None = None  # that it computed on; what came with the project names none

    @property
    def share(self) -> float:
        """How much of the row is done, from 0 to 1."""
        told = self.progress.get("share")
        return 1.0 if self.state == "finished" else float(told) if isinstance(told, int | float) and 0 <= told <= 1 else 0.0


@dataclass(frozen=True)
class Entry:
    """A comparison's folder. `problem` is set, and `plan` is None, where its plan cannot be read; `name` is that for a URL."""

    name: str
    path: Path
    plan: Plan | None = None
    rows: tuple[RowNow, ...] = ()
    problem: str = ""
    written: float = 0.0

    @property
    def arms(self) -> tuple[RowNow, ...]:
        """The rows that are compared."""
        return tuple(row for row in self.rows if row.row.name != WARM)

    @property
    def done(self) -> int:
        return sum(row.state == "finished" for row in self.arms)

    @property
    def created(self) -> str:
        """When its newest run began (ISO 8601); before the first, when the plan was written."""
        return max((row.created for row in self.rows if row.created), default=datetime.fromtimestamp(self.written, UTC).isoformat(timespec="seconds"))

    @property
    def working(self) -> list[RowNow]:
        """Rows that a process is at."""
        return [row for row in self.rows if row.state == "running"]

    def state(self, job: Job | None) -> str:
        """Of the whole, as its badge shows it. `job` is the one that carries it out, if it was started here."""
        if self.plan is None:
            return "unreadable"
        if job is not None and not job.ended:
            return job.state
        if self.working or self._between_rows():
            return "running"
        if self.done == len(self.arms):
            return "finished"
        return "failed" if any(row.state == "failed" for row in self.rows) else "interrupted"

    def _between_rows(self) -> bool:
        """Whether somebody wrote into its logs a moment ago: a row that is just being started has no run yet."""
        if self.done == len(self.arms) or self._broken():
            return False
        newest = max((stamp(log)[1] for log in (self.path / compare.LOGS).glob("*.log")), default=0) / 1e9
        return time.time() - newest < STALLED_AFTER

    def _broken(self) -> bool:
        return any(row.state in ("failed", "interrupted") for row in self.rows)

    def recordings(self) -> list[Recorded]:
        """The finished rows in the order of the plan's methods, so that a method keeps its colour while rows come."""
        if self.plan is None:
            return []
        order = {method: place for place, method in enumerate(self.plan.methods)}
        done = sorted((now.row for now in self.arms if now.state == "finished"), key=lambda row: (order[row.method], row.seed))
        return [Recorded(row.folder, row.method, row.control) for row in done]


# --- finding them ----------------------------------------------------------------------------------


def entries(roots: Sequence[Path]) -> list[Entry]:
    """The comparisons directly in these folders, or that are one of them, newest first. What leads out of its root is left out."""
    found = [_entry(path) for path in dict.fromkeys(path for root in roots for path in _folders(root))]
    count = Counter(entry.name for entry in found)
    named = [replace(entry, name=_told_apart(entry.path)) if count[entry.name] > 1 else entry for entry in found]
    return sorted(named, key=lambda entry: entry.created, reverse=True)


def _told_apart(path: Path) -> str:
    return naming.root_names().get(path) or f"{naming.folder_of(path)}/{path.name}"


def roots(home: Path) -> list[Path]:
    """Every folder that is shown, and the one that new comparisons go to."""
    return list(dict.fromkeys([*loading.roots(), home.resolve()]))


def _folders(root: Path) -> list[Path]:
    try:
        inside = sorted(path for path in root.iterdir() if not path.name.startswith((".", "_")) and path.resolve().parent == root.resolve())
    except OSError:
        return []
    return [path for path in (root, *inside) if (path / PLAN).is_file()]


def _entry(path: Path) -> Entry:
    """As it stands now."""
    now = stamp(path / PLAN)
    written = now[1] / 1e9
    try:
        plan = _plan(path, now)
    except (OSError, ValueError) as error:
        return Entry(path.name, path, problem=str(error), written=written)
    return Entry(path.name, path, plan, tuple(map(_now, plan.rows)), written=written)


def waiting(jobs: Sequence[Job], known: Iterable[Entry]) -> list[Entry]:
    """Comparisons that were started here and have not written their plan yet: those at work, and the newest job if it failed before that."""
    taken = {entry.path for entry in known}
    asked = [job for job in jobs if job.kind == "compare"]
    return [
        _expected(job, job.folder)
        for place, job in enumerate(asked)
        if job.folder and job.folder not in taken and (not job.ended or (place == 0 and job.state == "failed"))
    ]


def _expected(job: Job, folder: Path) -> Entry:
    """What will stand in the folder, from the job's own words."""
    written = datetime.fromisoformat(job.created).timestamp()
    try:
        plan = cli.planned([*job.argv[4:], f"--out={folder}"])
    except (OSError, ValueError) as error:
        return Entry(folder.name, folder, problem=str(error), written=written)
    return Entry(folder.name, folder, plan, tuple(map(_now, plan.rows)), written=written)


def find(name: str, among: Sequence[Entry]) -> Entry | None:
    """The comparison of that name, or None; without a name the newest."""
    meant = [entry for entry in among if name in (entry.name, "")] or [entry for entry in among if name == entry.path.name]
    return meant[0] if meant else None


def job_of(entry: Entry, jobs: Iterable[Job]) -> Job | None:
    """The newest job that was started for this folder."""
    return next((job for job in jobs if job.kind == "compare" and job.folder == entry.path.resolve()), None)


# --- reading them ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _plan(path: Path, stamp: Stamp) -> Plan:  # noqa: ARG001 - another stamp makes an older answer unreachable
    plan = compare.read(path)
    if plan is None or not plan.arms:
        raise StoreError(f"{path / PLAN} names no row; choose another folder")
    return plan


def _now(row: Row) -> RowNow:
    """The row's state from two small files. What cannot be read says why."""
    stamps = tuple(stamp(row.folder / name) for name in (RUN, STATUS, PULSE))
    if stamps[0] == (0, 0):
        return RowNow(row, "to do")
    try:
        info, status = _facts(row.folder, stamps)
    except StoreError as error:
        return RowNow(row, "unreadable", why=str(error))
    state, took = status.shown(), (status.ended or 0.0) - (status.started or 0.0)
    seconds = took if state == "finished" and status.started and took > 0 else None
    return RowNow(row, state, status.progress, seconds, info.created, _mapping(info.machine), str(status.error or ""), status.host)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


@functools.lru_cache(maxsize=4096)
def _facts(folder: Path, stamps: tuple[Stamp, ...]) -> tuple[RunInfo, Status]:  # noqa: ARG001 - as above
    info = read_info(folder)
    return info, RunReader(folder, info).status()
