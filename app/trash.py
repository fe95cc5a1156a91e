"""The trash of a folder of runs: a deleted run is moved to `.trash/NAME-TIME`, from where it can come back, until the trash is emptied.

No widgets. A run is named, never pointed at: the name is looked up among the runs that are listed, so that nothing a browser
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

from app import loading
from interplay import disk
from interplay.errors import StoreError
from interplay.reading import LOCK
from interplay.store import RunSummary

FOLDER = ".trash"
_TIME = "%Y%m%d-%H%M%S"
_ID = re.compile(r"(?P<run>.+)-(?P<time>[0-9]{8}-[0-9]{6})(-[0-9]+)?", re.DOTALL)


@dataclass(frozen=True)
class Thrown:
    """A run in the trash of `root`: its name, and when it was deleted (UTC). `id`: the name of its folder there."""

    root: Path
    id: str
    run: str
    when: datetime

    @property
    def path(self) -> Path:
        return self.root / FOLDER / self.id


# --- delete ----------------------------------------------------------------------------------------


def refusal(summary: RunSummary) -> str | None:
    """Why this run cannot be deleted, in one line; None if it can."""
    path = Path(summary.path)
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so deleting is off."
    if path.resolve().is_relative_to(loading.RECORDINGS.resolve()):
        return f"{summary.run} came with the project (data/recordings), so it stays."
    if summary.state == "running":
        return f"{summary.run} is running; stop it first."
    if path.is_symlink() or (path.parent / FOLDER).is_symlink():
        return f"{summary.run} or the trash is a symbolic link; remove it by hand."
    if path.parent.resolve() not in loading.roots() or path.resolve().parent != path.parent.resolve():
        return f"{summary.run} does not lie directly in a folder of runs that is shown here."
    return None


def throw(names: Sequence[str]) -> Iterator[Thrown]:
    """Move the runs of these names (as `loading.names` has them) into the trash of their roots, one by one.

    Raises `StoreError` with the reason: before the first one moves where a name or a rule is against it, at that run where its disk or writer is.
    """
    listed = loading.summaries()
    known = dict(zip(loading.names(listed), listed, strict=True))
    for name in names:
        if name not in known:
            raise StoreError(f"there is no run {name!r} any more; it may have been deleted in another tab")
        if why := refusal(known[name]):
            raise StoreError(why)
    for name in names:
        yield _throw(Path(known[name].path))


def _throw(path: Path) -> Thrown:
    with disk.explained(path, "cannot be moved to the trash"), _unwritten(path):
        (path.parent / FOLDER).mkdir(exist_ok=True)
        thrown = _free(path.parent, path.name)
        path.rename(thrown.path)
    return thrown


@contextlib.contextmanager
def _unwritten(path: Path) -> Iterator[None]:
    """Keep writers out while the run moves. Raises `StoreError` if one is at it, however long ago it was heard of."""
    if not (path / LOCK).is_file():
        yield
        return
    lock = disk.lock(path / LOCK, "written", "stop it first")
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
    """The run of that id in the trash of the root of that name. Raises `StoreError` if it is not there."""
    named = loading.root_names()
    for thrown in contents():
        if (thrown.id, named[thrown.root]) == (id, root):
            return thrown
    raise StoreError(f"{id!r} is not in the trash any more; it may have been restored in another tab")


# --- restore and empty -----------------------------------------------------------------------------


def restore(thrown: Thrown) -> Path:
    """Move the run back to where it was. Raises `StoreError` if another one has taken its name."""
    _refuse_exposed()
    target = thrown.root / thrown.run
    if os.path.lexists(target):
        raise StoreError(f"a run named {thrown.run} exists already in {thrown.root}; rename or delete that one first")
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
