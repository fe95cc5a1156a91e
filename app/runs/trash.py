"""The trash of a folder of runs: a deleted run or comparison is moved to `.trash/NAME-TIME`, from where it can come back, until the trash is emptied.

No widgets. What is deleted is named, never pointed at: the name is looked up among what is listed, so that nothing a browser
sends is a path. Nothing is deleted that is being written, that came with the project, that is a link, or where others can reach the server.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.compare import standings
from app.compare.standings import Entry
from app.queue.job import Job
from app.reading import loading, naming
from interplay import compare, disk
from interplay.errors import StoreError
from interplay.reading import LOCK
from interplay.store import Runs, RunSummary

FOLDER = ".trash"
_TIME = "%Y%m%d-%H%M%S"
_ID = re.compile(r"(?P<run>.+)-(?P<time>[0-9]{8}-[0-9]{6})(-[0-9]+)?", re.DOTALL)


@dataclass(frozen=True)
class Thrown:
    """A run or comparison in the trash of `root`: its name, and when it was deleted (UTC). `id`: the name of its folder there."""

    root: Path
    id: str
    run: str
    when: datetime

    @property
    def path(self) -> Path:
        return self.root / FOLDER / self.id

    @property
    def kind(self) -> str:
        return "comparison" if (self.path / compare.PLAN).is_file() else "run"


# --- delete ----------------------------------------------------------------------------------------


def refusal(summary: RunSummary) -> str | None:
    """Why this run cannot be deleted, in one line; None if it can."""
    live = f"{summary.run} is running; stop it first." if summary.state == "running" else None
    return _must_stay(summary.run, Path(summary.path), live)


def refusal_of_comparison(comparison: Entry, jobs: Sequence[Job]) -> str | None:
    """Why this comparison cannot be deleted, in one line; None if it can. `jobs` are those that were started or queued here."""
    return _must_stay(comparison.name, comparison.path, _at_work(comparison, jobs))


def _at_work(comparison: Entry, jobs: Sequence[Job]) -> str | None:
    """Who is at it or waits for it: a job for all of it or for one of its rows, or a row that was started elsewhere."""
    name, folder = comparison.name, comparison.path.resolve()
    job = next((job for job in jobs if not job.ended and job.folder and job.folder.is_relative_to(folder)), None)
    if job:
        return f"A job for {name} is {job.state}; stop it first."
    if row := next((run.run for run in Runs(folder).list() if run.state == "running"), None):
        return f"{row} of {name} is running; stop it first."
    return f"{name} is running; stop it first." if comparison.state(None) == "running" else None


def _must_stay(name: str, path: Path, live: str | None) -> str | None:
    """The first reason against moving what lies there; `live` is the one that it is being written."""
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so deleting is off."
    if path.resolve().is_relative_to(loading.RECORDINGS.resolve()):
        return f"{name} came with the project (data/recordings), so it stays."
    if live:
        return live
    if path.is_symlink() or (path.parent / FOLDER).is_symlink():
        return f"{name} or the trash is a symbolic link; remove it by hand."
    if path.resolve() in loading.roots():
        return f"{name} is itself a folder of runs that is shown here; remove it by hand."
    if path.parent.resolve() not in loading.roots() or path.resolve().parent != path.parent.resolve():
        return f"{name} does not lie directly in a folder of runs that is shown here."
    return None


def throw(names: Sequence[str]) -> Iterator[Thrown]:
    """Move the runs of these names (as `naming.names` has them) into the trash of their roots, one by one.

    Raises `StoreError` with the reason: before the first one moves where a name or a rule is against it, at that run where its disk or writer is.
    """
    listed = loading.summaries()
    known = dict(zip(naming.names(listed), listed, strict=True))
    for name in names:
        if name not in known:
            raise StoreError(f"there is no run {name!r} any more; it may have been deleted in another tab")
        if why := refusal(known[name]):
            raise StoreError(why)
    for name in names:
        yield _throw(Path(known[name].path))


def throw_comparison(name: str, jobs: Sequence[Job]) -> Thrown:
    """Move the comparison of this name (as `standings.entries` has it), with all its runs, into the trash of its root. Raises `StoreError` with the reason."""
    found = [entry for entry in standings.entries(loading.roots()) if entry.name == name]
    if not found:
        raise StoreError(f"there is no comparison {name!r} any more; it may have been deleted in another tab")
    if len(found) > 1:
        raise StoreError(f"{len(found)} comparisons are called {name}; rename the folder of one of them first")
    if why := refusal_of_comparison(found[0], jobs):
        raise StoreError(why)
    return _throw(found[0].path)


def _throw(path: Path) -> Thrown:
    """Raises `StoreError` if a process is at it, however long ago it was heard of."""
    with disk.explained(path, "cannot be moved to the trash"), _held(path / LOCK, "written"), _held(path / compare.LOCK, "run"):
        for row in _folders(path):  # one after the other: there may be more rows than a process may have open files
            with _held(row / LOCK, "written"):
                pass
        (path.parent / FOLDER).mkdir(exist_ok=True)
        thrown = _free(path.parent, path.name)
        path.rename(thrown.path)
    return thrown


def _folders(path: Path) -> list[Path]:
    """The folders directly in it, links left out."""
    return [Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]


@contextlib.contextmanager
def _held(path: Path, what: str) -> Iterator[None]:
    """Keep others out by a lock file, if there is one. Raises `StoreError` that names who holds it."""
    if not path.is_file():
        yield
        return
    lock = disk.lock(path, what, "stop it first")
    try:
        yield
    finally:
        lock.release()


def _free(root: Path, run: str) -> Thrown:
    """A place in the trash that is not taken."""
    now = datetime.now(UTC).replace(microsecond=0)
    first = f"{run}-{now.strftime(_TIME)}"
    number, id = 1, first
    while os.path.lexists(root / FOLDER / id):
        number += 1
        id = f"{first}-{number}"
    return Thrown(root, id, run, now)


# --- what is in the trash --------------------------------------------------------------------------


def contents() -> list[Thrown]:
    """What was deleted from the roots, the latest first; other things in a trash folder are left alone."""
    found = [thrown for root in loading.roots() if not (root / FOLDER).is_symlink() for thrown in _thrown(root)]
    return sorted(found, key=lambda thrown: (thrown.when, thrown.id), reverse=True)


def _thrown(root: Path) -> Iterator[Thrown]:
    try:
        entries = [entry for entry in os.scandir(root / FOLDER) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for entry in entries:
        if found := _ID.fullmatch(entry.name):
            with contextlib.suppress(ValueError):  # a name that only looks like a time
                yield Thrown(root, entry.name, found["run"], datetime.strptime(found["time"], _TIME).replace(tzinfo=UTC))


def nbytes(thrown: Sequence[Thrown]) -> int:
    """What these take on disk, links not followed."""
    return sum(_nbytes(str(one.path)) for one in thrown)


@functools.lru_cache(maxsize=512)
def _nbytes(path: str) -> int:
    """Nothing writes into the trash, so it is counted once."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def find(id: str, root: str) -> Thrown:
    """What has that id in the trash of the root of that name. Raises `StoreError` if it is not there."""
    named = naming.root_names()
    for thrown in contents():
        if (thrown.id, named[thrown.root]) == (id, root):
            return thrown
    raise StoreError(f"{id!r} is not in the trash any more; it may have been restored in another tab")


# --- restore and empty -----------------------------------------------------------------------------


def restore(thrown: Thrown) -> Path:
    """Move it back to where it was. Raises `StoreError` if another one has taken its name."""
    _refuse_exposed()
    target = thrown.root / thrown.run
    if os.path.lexists(target):
        raise StoreError(f"something named {thrown.run} exists already in {thrown.root}; rename or delete that first")
    if thrown.path.is_symlink() or not _inside(thrown):
        raise StoreError(f"{thrown.id!r} is not a folder in the trash of {thrown.root}")
    with disk.explained(thrown.path, "cannot be moved back"):
        thrown.path.rename(target)
    return target


def empty(all_of: Sequence[Thrown]) -> int:
    """Delete these for good; returns how many bytes that freed. Raises `StoreError` at the first that cannot be deleted."""
    _refuse_exposed()
    freed = 0
    for thrown in all_of:
        if thrown.path.is_symlink() or not _inside(thrown):
            raise StoreError(f"{thrown.id!r} is not a folder in the trash of {thrown.root}")
        freed += nbytes([thrown])
        with disk.explained(thrown.path, "cannot be deleted"):
            shutil.rmtree(thrown.path)
    return freed


def _inside(thrown: Thrown) -> bool:
    """Whether it lies directly in the trash of its root, and would go back directly into the root."""
    trash, target = thrown.root / FOLDER, thrown.root / thrown.run
    return not trash.is_symlink() and thrown.path.resolve().parent == trash.resolve() and target.parent.resolve() == thrown.root.resolve()


def _refuse_exposed() -> None:
    if loading.exposed():
        raise StoreError("this server can be reached from other machines and has no login, so the trash is closed")
