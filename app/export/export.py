"""Figures as files that go into a paper: each in all formats, and all of them as one zip with what it takes to draw them again.

A figure carries where it comes from: the command that draws it and the commit that recorded its runs. The same runs give the same bytes,
today and in another process: no clock, no path of this machine, names sorted.
"""

from __future__ import annotations

import io
import json
import shlex
import textwrap
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from analysis import paper, recipes, screen, venues
from analysis.paper_text import plain
from analysis.spec import FigureSpec
from app.commands import figure
from app.export import anonymous
from app.export.wanted import Item, typed
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay import disk
from interplay.errors import ConfigError, InterplayError

FOLDER = "figures"
#: The only time that a zip knows here.
_TIME = (1980, 1, 1, 0, 0, 0)
_DRAWS = ("interplay", "matplotlib", "numpy", "pandas")


@dataclass(frozen=True)
class Panel:
    """One figure of a bundle: what is drawn, and the words that draw it. Its item names runs as `interplay figure --runs .` finds them."""

    item: Item
    spec: FigureSpec


@dataclass(frozen=True)
class Size:
    """For which venue, as wide as its column or its text, and how high in inches (None: what suits the figure)."""

    venue: str = "neurips"
    width: venues.Width = "column"
    height: float | None = None

    def of(self, item: Item) -> Size:
        """The size of one figure, which may have a width and a height of its own."""
        return Size(self.venue, cast(venues.Width, item.width or self.width), item.height or self.height)

    def words(self) -> list[str]:
        height = [] if self.height is None else ["--height", f"{self.height:g}"]
        return ["--venue", self.venue, "--width", self.width, *height]


# --- one figure --------------------------------------------------------------------------------


def panel(name: str, recordings: Sequence[Recorded], settings: Mapping[str, Any], width: str = "", height: float = 0.0) -> Panel:
    """The figure of these runs, with its origin. Raises `ConfigError` if they do not hold what it needs."""
    item = Item(name, tuple(run_words(recordings)), typed(name, settings), width, height)
    try:
        spec = recipes.make(name, recordings, **settings)
    except InterplayError:
        raise
    except ValueError as reason:
        raise ConfigError(f"{name} cannot be drawn: {reason}") from reason
    commits = sorted({one.info.commit for one in recordings if one.info.commit})
    told = [*([f"commit {', '.join(commits)}"] if commits else []), f"command {shlex.join(command(item))}"]
    return Panel(item, replace(spec, runs=spec.runs or tuple(one.run for one in recordings), origin="; ".join(told)))


def wanted(item: Item, recordings: Sequence[Recorded]) -> Panel:
    return panel(item.figure, recordings, item.chosen(), item.width, item.height)


def run_words(recordings: Sequence[Recorded]) -> list[str]:
    """Names of these runs in the folder that holds them, or in their comparison's; all finished rows of a comparison are called by its own name."""
    folders = {one.path.parent for one in recordings}
    folder = folders.pop() if len(folders) == 1 and recordings[0].arm else None
    if folder and len(recordings) > 1 and [one.path for one in recordings] == [row.path for row in recorded.of_comparison(folder)]:
        return [folder.name]
    return [one.called or (f"{one.path.parent.name}/{one.path.name}" if one.arm else one.path.name) for one in recordings]


def command(item: Item) -> list[str]:
    """What a person types in the folder that holds the runs, but for size and file."""
    settings = [word for key, value in item.settings for word in ("--set", f"{key}={value}")]
    return ["interplay", "figure", item.figure.replace("_", "-"), *item.runs, "--runs", ".", *settings]


def hidden(one: Panel, hiding: anonymous.Hiding) -> Panel:
    """The figure without clues to its makers: the commit, which a search engine finds, goes too."""
    item = replace(one.item, runs=tuple(map(hiding.text, one.item.runs)), settings=tuple((key, hiding.text(value)) for key, value in one.item.settings))
    return Panel(item, hiding.spec(replace(one.spec, origin=f"command {shlex.join(command(item))}")))


# --- many figures ------------------------------------------------------------------------------


def made(panels: Sequence[Panel], kind: str, size: Size, hide: Iterable[Recorded] | None = None) -> bytes:
    """One file: a zip of all of these figures, or the first one in another format. `hide` are runs whose makers it must not tell.

    Raises `ConfigError` for a figure that cannot be drawn, or if a clue to them is left.
    """
    clues = None if hide is None else anonymous.clues(hide)
    if kind == "zip":
        return bundle(panels, size, clues)
    if clues is None:
        return content(panels[0], kind, size)
    one = hidden(panels[0], anonymous.Hiding(clues))
    written = content(one, kind, size)
    proof({f"{one.item.figure}.{kind}": written}, clues)
    return written


def bundle(panels: Sequence[Panel], size: Size, clues: Sequence[anonymous.Clue] | None = None) -> bytes:
    """A zip of all figures. With `clues` nothing in it tells who made it, and a report says so.

    Raises `ConfigError` for a figure that cannot be drawn, or if a clue is left.
    """
    if not panels:
        raise ConfigError("the basket is empty; put a figure into it first")
    if clues is not None:
        hiding = anonymous.Hiding(clues)
        panels = [hidden(one, hiding) for one in panels]
    files = _files(panels, size, clues is not None)
    if clues is not None:
        files["anonymity.txt"] = proof(files, clues).encode()
    return _zipped(files)


def proof(files: Mapping[str, bytes], clues: Sequence[anonymous.Clue]) -> str:
    """The report on these files. Raises `ConfigError` if one of them holds a clue."""
    found = anonymous.search(files, clues)
    for kind, names in found.items():
        if names:
            raise ConfigError(f"--anonymous: {names[0]} still holds one of the {kind}; nothing was written. Rename what is called so, or leave it out")
    return anonymous.report(clues, found, len(files))


def _files(panels: Sequence[Panel], size: Size, blind: bool) -> dict[str, bytes]:
    stems = _stems(panels)
    files = {f"{stem}.{kind}": content for stem, one in zip(stems, panels, strict=True) for kind, content in all_formats(one, size)}
    files["manifest.json"] = (json.dumps(_manifest(panels, stems, size, blind), indent=1) + "\n").encode()
    files["README.txt"] = _readme(panels, stems, size, blind).encode()
    files["redraw.py"] = Path(__file__).with_name("redraw.py").read_bytes()
    return files


def all_formats(one: Panel, size: Size) -> list[tuple[str, bytes]]:
    """Format and content of each file. Raises `ConfigError` if there is nothing to draw."""
    return [(kind, content(one, kind, size)) for kind in figure.FORMATS]


def content(one: Panel, kind: str, size: Size) -> bytes:
    chosen = size.of(one.item)
    return figure.content(one.spec, kind, venue=chosen.venue, width=chosen.width, height=chosen.height)


def stem(one: Panel) -> str:
    """What the files of a figure are called: its name, and its run if there is but one."""
    words = [one.item.figure.replace("_", "-"), *(one.spec.runs if len(one.spec.runs) == 1 else ())]
    return disk.slug("-".join(words).lower())


def _stems(panels: Iterable[Panel]) -> list[str]:
    """One for each, numbered where two would be the same."""
    found: list[str] = []
    for name in map(stem, panels):
        numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(found) + 2))
        found.append(next(word for word in numbered if word not in found))
    return found


def _manifest(panels: Sequence[Panel], stems: Sequence[str], size: Size, blind: bool) -> dict[str, Any]:
    """What `redraw.py` and `interplay figure --basket` read."""
    sizes = [size.of(one.item) for one in panels]
    figures = [
        {"file": stem, **one.item.to_json(), "width": chosen.width, "height": chosen.height} for stem, one, chosen in zip(stems, panels, sizes, strict=True)
    ]
    return {"venue": size.venue, "anonymous": blind, "versions": {name: version(name) for name in _DRAWS}, "figures": figures}


def _zipped(files: Mapping[str, bytes]) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(f"{FOLDER}/{name}", _TIME)
                entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
                archive.writestr(entry, files[name])
        return stream.getvalue()


# --- what stands beside them -------------------------------------------------------------------

_WHAT = """\
Each figure is here as
  .pdf  for \\includegraphics; as wide as it will be printed, letters as TrueType
  .svg  the same, for an editor of drawings
  .png  the same, {dpi} dots per inch
  .html for a browser; needs no network
  .csv  all rows behind it
  .tex  its main numbers as a table; needs \\usepackage{{booktabs}}
  .json all of it: rows, axes, caption, origin
The metadata of each file but .csv name its runs, the hash of its rows and of the whole figure{commit}: interplay figure --about FILE

To draw them again from the .json files, to the same bytes: python redraw.py
To draw them again from the runs, in the folder that holds those: the commands below, or
  interplay figure --basket {folder}/manifest.json --runs . --out figures.zip
"""


def _readme(panels: Sequence[Panel], stems: Sequence[str], size: Size, blind: bool) -> str:
    venue = venues.find(size.venue)
    head = f"Figures for {venue.name}, drawn by Interplay {version('interplay')}. Sizes: {venue.source}."
    what = _WHAT.format(dpi=paper.DPI, folder=FOLDER, commit="" if blind else " and the commit that recorded them")
    return "\n".join([head, "", what, *(_said(one, name, size.of(one.item)) for one, name in zip(panels, stems, strict=True))])


def _said(one: Panel, name: str, size: Size) -> str:
    """Caption draft, how to include it, and what made it."""
    inches = venues.find(size.venue).inches(size.width)
    rows = [
        f"{name}: {plain(one.spec.title)}",
        f"Caption: {plain(screen.caption(one.spec))} n = {one.spec.n}. Runs: {', '.join(map(plain, one.spec.runs))}.",
        f"\\includegraphics{{{name}.pdf}} % {inches:.4g} inches wide, so it needs no scaling",
        shlex.join([*command(one.item), *size.words(), "--out", f"{name}.pdf"]),
    ]
    caption = textwrap.fill(rows[1], 120, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([rows[0], caption, f"  {rows[2]}", f"  {rows[3]}", ""])


# --- read back ---------------------------------------------------------------------------------


def read_basket(path: Path) -> tuple[list[Item], str, bool]:
    """Figures, venue and whether names are hidden, of the manifest of a bundle. Raises `ConfigError`."""
    with disk.explained(path, "cannot be read as a basket"):
        raw = disk.read_json(path)
    if not isinstance(raw.get("figures"), list) or not raw["figures"]:
        raise ConfigError(f"--basket is {str(path)!r}, which lists no figures; give the manifest.json of a zip that Interplay made")
    return [Item.from_json(entry) for entry in raw["figures"]], str(raw.get("venue", "neurips")), raw.get("anonymous") is True
