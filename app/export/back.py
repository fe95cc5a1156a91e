"""From the file of a figure back to its runs: what its line says, which runs here it means, and whether they still give what it shows.

A line is somebody's word: its runs are names that are looked up, never paths, and its figure and settings are read as those of a link are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from analysis.paper_text import about
from app.export import export
from app.export.lines import Line
from app.export.wanted import Item
from app.reading import loading, naming, recorded
from app.reading.recorded import Recorded
from interplay.errors import ConfigError, DataError, InterplayError, StoreError, nearest
from interplay.reading import RUN, summarise
from interplay.store import Runs

Outcome = Literal["same", "changed", "gone", "unknown", "anonymous"]
#: The runs that a name means. Raises `StoreError`.
Find = Callable[[str], list[Recorded]]
#: Names in one line: more than any figure shows, and few enough to be looked up.
MOST_RUNS = 300
_FORM = re.compile(
    r"figure \S+; runs .*; n (?P<n>\d{1,15}); rows sha256 (?P<rows>[0-9a-f]{64}); interplay (?P<version>\S{1,60}); spec sha256 (?P<spec>[0-9a-f]{64})"
    r"(?:; commit (?P<commit>.*?))?; command (?P<command>interplay figure .*)"
)
_HIDDEN = re.compile(r"hidden\d+")  # what `anonymous.Hiding` writes in place of a name


@dataclass(frozen=True)
class Origin:
    """Where a figure comes from, as its file says. `listed` is what the zip says of it: its width and height."""

    file: str
    figure: str
    runs: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    n: int
    rows: str
    spec: str
    version: str
    commit: str
    listed: Mapping[str, Any]
    anonymous: bool

    def item(self) -> Item:
        """The figure as it can be drawn here. Raises `ConfigError` for a name, a setting or a size that this version does not know."""
        size = {name: self.listed.get(name) for name in ("width", "height")}
        return Item.from_json({"figure": self.figure, "runs": list(self.runs), "settings": dict(self.settings), **size})

    @property
    def hidden(self) -> str:
        """The first word that stands for a hidden name; empty if there is none."""
        words = [*self.runs, *(value for _, value in self.settings)]
        return next((found[0] for word in words if (found := _HIDDEN.search(word))), "")


@dataclass(frozen=True)
class Here:
    """A figure of a file as it can be drawn here, and its runs."""

    item: Item
    recordings: tuple[Recorded, ...]


@dataclass(frozen=True)
class Finding:
    """What became of a figure, in a word and in a sentence, and how it is titled now, where it is drawn."""

    outcome: Outcome
    words: str
    title: str = ""


# --- what a line says --------------------------------------------------------------------------


def read(line: Line) -> Origin:
    """Raises `DataError` for a line that does not say how its figure is drawn."""
    found = _FORM.fullmatch(line.text)
    if found is None:
        raise DataError(f"{line.file} does not say which command draws it; only figures that Interplay drew as files do")
    figure, runs, settings = _typed(line.file, found["command"])
    told = {name: found[name] or "" for name in ("rows", "spec", "version", "commit")}
    return Origin(line.file, figure, runs, settings, int(found["n"]), **told, listed=line.listed, anonymous=line.anonymous)


def _typed(file: str, command: str) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Figure, runs and settings of `interplay figure FIGURE RUN... --runs . --set KEY=VALUE...`."""
    try:
        _, _, figure, *rest = shlex.split(command)
        place = rest.index("--runs")
        flags, pairs = rest[place + 2 :: 2], rest[place + 3 :: 2]
    except ValueError:  # a quote without its end, or a word that is not there
        raise DataError(f"{file} names a command that cannot be read; only figures that Interplay drew as files do") from None
    if not 0 < place <= MOST_RUNS or set(flags) - {"--set"} or len(flags) != len(pairs):
        raise DataError(f"{file} names a command that cannot be read: one figure, 1 to {MOST_RUNS} runs, and settings after --set")
    settings = tuple((key, value) for key, _, value in (pair.partition("=") for pair in pairs))
    return figure, tuple(rest[:place]), settings


# --- which runs it means -----------------------------------------------------------------------


def in_folder(root: Path) -> Find:
    """Runs, and the finished rows of comparisons, by their names in this folder."""

    def find(name: str) -> list[Recorded]:
        path = naming.below(root, name)
        if path is not None and (path / RUN).is_file():
            return [recorded.at(path)]
        rows = recorded.of_comparison(path) if path is not None else []
        if not rows:
            raise StoreError(f"run {name} is not in {root}{nearest(name, [one.run for one in Runs(root).list()])}")
        return rows

    return find


def located(origin: Origin, find: Find) -> Here | Finding:
    """What it means among the runs here, or why nothing."""
    try:
        item = origin.item()
        recordings = tuple(recorded.apart([one for name in item.runs for one in find(name)]))
    except InterplayError as reason:
        if origin.hidden:
            return Finding("anonymous", f"names were hidden when it was drawn ({origin.hidden}), so it cannot be led back to its runs")
        return Finding("unknown", f"this version cannot draw it: {reason}") if isinstance(reason, ConfigError) else Finding("gone", str(reason))
    if not recordings:
        return Finding("gone", f"the comparison {', '.join(item.runs)} has no finished rows here")
    return Here(item, recordings)


# --- whether they still give it ----------------------------------------------------------------


def check(origin: Origin, find: Find, since: float | None = None) -> Finding:
    """Draws the figure again, if its runs are here. `since` is when the file was written, where that is known."""
    here = located(origin, find)
    return compared(origin, here, since) if isinstance(here, Here) else here


def compared(origin: Origin, here: Here, since: float | None = None) -> Finding:
    """Whether the runs still give the same rows, and the same words and axes."""
    try:
        spec = export.wanted(here.item, here.recordings).spec
    except (InterplayError, ValueError) as reason:
        return Finding("changed", f"the runs here no longer give this figure: {reason}")
    now = read(Line("", about(spec)))
    if now.rows == origin.rows:
        return Finding("same", "; ".join(_same(origin, now)), spec.title)
    if _blind(origin, here.recordings) and now.n == origin.n:
        return Finding("anonymous", f"names were hidden when it was drawn, and with them its rows changed; n is {now.n} in both", spec.title)
    return Finding("changed", "; ".join([*_changed(origin, now), *_written(here.recordings, since)]), spec.title)


def _same(was: Origin, now: Origin) -> list[str]:
    if now.spec == was.spec:
        return ["the runs here still give the same rows, words and axes"]
    return ["the runs here still give the same rows, but other words, marks or axes", *_versions(was, now)]


def _changed(was: Origin, now: Origin) -> list[str]:
    counted = f"n was {was.n}, is {now.n}" if now.n != was.n else f"n is {now.n} in both"
    return [f"the runs here give other rows: {counted}", *_versions(was, now)]


def _versions(was: Origin, now: Origin) -> list[str]:
    return [] if was.version == now.version else [f"it was drawn by Interplay {was.version}, this is {now.version}"]


def _written(recordings: Sequence[Recorded], since: float | None) -> list[str]:
    """The runs that have newer rows, or will have."""
    found = {one.run: summarise(one.path) for one in recordings}
    newer = [name for name, summary in found.items() if since is not None and (loading.newest(summary) or 0) > since]
    live = [name for name, summary in found.items() if loading.live(summary) and name not in newer]
    told = (("newer than the file", newer), ("not ended yet", live))
    return [f"{words}: {', '.join(names)}" for words, names in told if names]


def _blind(origin: Origin, recordings: Sequence[Recorded]) -> bool:
    """Whether names may be hidden in its rows: the zip says so, or the commit was left out that the runs have."""
    return origin.anonymous or bool(origin.hidden) or (not origin.commit and any(one.info.commit for one in recordings))
