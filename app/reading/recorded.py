"""Runs on disk as figures ask for them, and words that mean runs.

Streams are read when they are asked for and stay with the process, the least used ones leaving first, so that pages share what one of
them has read, and a live run costs no more than its new rows.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay import compare
from interplay.errors import StoreError, nearest
from interplay.reading import RUN
from interplay.records import RunInfo
from interplay.store import Runs, RunStore, RunSummary

if TYPE_CHECKING:  # pandas takes seconds, and every command imports this file
    import pandas as pd

    from analysis.trajectory import Trajectory
    from app.reading.loading import Feed

#: Bytes of Arrow tables that stay in memory; their frames take about as much again.
KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Recorded:
    """One run as `analysis.recipes` asks for it."""

    path: Path
    arm: str | None = None  # as a comparison calls its method
    control: bool = False
    called: str = ""  # beside a run whose folder has the same name; see `apart`

    @cached_property
    def info(self) -> RunInfo:
        return RunStore.open(self.path).info

    @property
    def run(self) -> str:
        return self.called or self.path.name

    @property
    def method(self) -> str:
        return self.arm or str(self.info.config.get("method") or self.run)

    @property
    def seed(self) -> int:
        seed = self.info.config.get("seed")
        return seed if isinstance(seed, int) else 0

    def frame(self, stream: str, /) -> pd.DataFrame:
        return _KEPT.feed(self.path, stream).frame(stream)

    def trajectories(self, roles: Sequence[str], /) -> list[Trajectory]:
        return _KEPT.feed(self.path, "directions").trajectories(roles)

    def problems(self) -> list[str]:
        return [str(problem) for problem in RunStore.open(self.path).problems()]

    def version(self, streams: Sequence[str]) -> tuple[Any, ...]:
        """Another value when these streams have changed on disk: names, sizes and times of their files."""
        return (str(self.path), *((part.name, *stamp(part)) for stream in streams for part in sorted((self.path / stream).glob("*.parquet"))))


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file, others when it was written again; zeros where there is none: a part may be merged away while it is looked at."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


class _Feeds:
    """What has been read, by folder and stream."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most = most
        self._held: OrderedDict[tuple[Path, str], Feed] = OrderedDict()
        self._lock = threading.Lock()

    def feed(self, path: Path, stream: Any) -> Feed:
        """The stream as it is on disk now."""
        from app.reading.loading import Feed

        key = (path.resolve(), str(stream))
        with self._lock:  # two tabs would read the same rows twice
            feed = self._held.pop(key, None) or Feed(path, (stream,))
            feed.refresh()
            self._held[key] = feed
            self._let_go()
        return feed

    def _let_go(self) -> None:
        """The least used leave while there is too much; the newest stays."""
        while len(self._held) > 1 and sum(feed.nbytes for feed in self._held.values()) > self.most:
            self._held.popitem(last=False)


_KEPT = _Feeds()


def of(summary: RunSummary) -> Recorded:
    return Recorded(Path(summary.path))


def at(path: Path) -> Recorded:
    """The run in this folder; a row of a comparison goes by the name of its arm. Raises `StoreError` if the plan beside it is damaged."""
    arm, control = rows(path.parent).get(path.name, (None, False))
    return Recorded(path, arm, control)


def rows(folder: Path) -> dict[str, tuple[str, bool]]:
    """Folders of the rows of a comparison, each with its arm and whether that is a control; none if it is no comparison."""
    plan = folder / compare.PLAN
    return _arms(folder, stamp(plan)) if plan.is_file() else {}


@functools.lru_cache(maxsize=16)
def _arms(folder: Path, _when: tuple[int, int]) -> dict[str, tuple[str, bool]]:
    """`_when` makes an older answer unreachable."""
    plan = compare.read(folder)
    return {row.folder.name: (row.method, row.control) for row in plan.arms} if plan else {}


def apart(found: Sequence[Recorded]) -> list[Recorded]:
    """The same runs, each once and by a name of its own: where folders of one name stand beside each other, the folders above tell them apart."""
    runs = list({one.path.resolve(): one for one in found}.values())
    names = distinct([one.path.resolve() for one in runs])
    return [replace(one, called="" if name == one.path.name else name) for one, name in zip(runs, names, strict=True)]


def distinct(paths: Sequence[Path]) -> list[str]:
    """The end of each path, as long as it takes to tell it from the others."""
    ends = [_ends(path) for path in paths]
    return [next(end for end in own if sum(end in other for other in ends) == 1) for own in ends]


def _ends(path: Path) -> list[str]:
    """`/data/me/runs` -> `runs`, `me/runs`, `data/me/runs`, and the whole."""
    parts = path.parts[1:]
    return ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)] + [str(path)]


def find(word: str, root: Path) -> list[Recorded]:
    """A run by its folder or its name in `root`, or the finished rows of a comparison. Raises `StoreError` with the nearest name."""
    for path in (Path(word), root / word):
        if (path / RUN).is_file():
            return [at(path)]
        if rows := of_comparison(path):
            return rows
    raise unknown(word, root)


def folder(word: str, root: Path) -> Path:
    """The folder of one run, by its path or its name in `root`. Raises `StoreError` with the nearest name."""
    for path in (Path(word), root / word):
        if (path / RUN).is_file():
            return path
    raise unknown(word, root)


def unknown(word: str, root: Path) -> StoreError:
    """What to say of a word that means no run: the nearest name where it would be."""
    place = _place(word, root)
    if not place.is_dir():
        return StoreError(f"run is {word!r}, but there is no folder {place}; give the folder of a run, or the name of one in --runs")
    known = [row.run for row in Runs(place).list()]
    return StoreError(f"run is {word!r}, but there is no such run in {place}{nearest(Path(word).name, known)}; `interplay runs --runs {place}` lists them")


def _place(word: str, root: Path) -> Path:
    """Where the run would be: beside the last part of a path, and in `root` if it is a name."""
    above = Path(word).parent
    return root if above == Path() else next((place for place in (above, root / above) if place.is_dir()), above)


def of_comparison(path: Path) -> list[Recorded]:
    """The finished rows of a comparison's folder; none if it is no such folder."""
    plan = compare.read(path)
    rows = [row for row in plan.arms if compare.standing(row) == "finished"] if plan else []
    return [Recorded(row.folder, row.method, row.control) for row in rows]
