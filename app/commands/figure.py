"""`interplay figure`: one figure of recorded runs as a file, by its name.

    interplay figure --list
    interplay figure kl-curve runs/first --out kl.pdf --venue acl
    interplay figure trajectories first second --set components=3 --out paths.html
    interplay figure arms compare --venue icml --anonymous --out arms.zip
    interplay figure --about arms.pdf --runs runs

The suffix of --out says what is written: .pdf, .svg, .png at a venue's true size, .html for a browser, .csv and .tex for the numbers, .json for all
of it, and .zip for all of these with a script that draws them again. --about says which runs a file shows, and with --runs whether those still give it.
"""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.venues import VENUES, Width
from app.reading import recorded
from interplay import disk
from interplay.errors import ConfigError, DataError, InterplayError, StoreError, allowed, nearest

if TYPE_CHECKING:  # pandas, plotly and matplotlib take seconds, and every command builds this one's arguments
    from analysis.spec import FigureSpec
    from app.export.export import Panel, Size
    from app.export.lines import Line
    from app.reading.recorded import Recorded

#: What one figure can be written as.
FORMATS = ("pdf", "svg", "png", "html", "csv", "tex", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to draw; --list shows what there is")
    parser.add_argument(
        "folders", nargs="*", metavar="RUN", help="run folders, or names of runs in --runs; the folder of a comparison stands for its finished rows"
    )
    parser.add_argument("--list", action="store_true", help="print all figures with their settings, and stop")
    suffixes = ", ".join(f".{kind}" for kind in FORMATS)
    parser.add_argument("--out", metavar="FILE", help=f"file to write; its suffix is the format: {suffixes}, or .zip for all of them and a script that redraws")
    parser.add_argument("--venue", metavar="NAME", help=f"whose sizes to use: {', '.join(VENUES)}; default: neurips, or that of --basket")
    parser.add_argument("--width", metavar="column|text", help="as wide as a column or as the text; default: column, or those of --basket")
    parser.add_argument("--height", metavar="INCHES", type=float, help="height; default: what suits the figure, or those of --basket")
    parser.add_argument("--set", dest="settings", action="append", metavar="KEY=VALUE", help="a setting of the figure; may be given more than once")
    parser.add_argument("--runs", metavar="DIR", help="folder of runs (default runs); with --about also say whether the runs there still give the same rows")
    parser.add_argument("--anonymous", action="store_true", help="take names, hosts, paths and tokens out of the file, and refuse to write it if one is left")
    parser.add_argument("--basket", metavar="FILE", help="the manifest.json of a .zip: make all of its figures again from the runs")
    parser.add_argument("--about", metavar="FILE", help="print which runs a file of a figure, or each figure in a .zip, shows and what drew it, and stop")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw one figure or a basket of them, list them, or read a file; returns the exit code."""
    if arguments.list:
        return _list()
    if arguments.about:
        return _about(_file("--about", arguments.about), _folder(arguments.runs) if arguments.runs else None)
    from app.export import export

    out, kind = _target(arguments)
    panels, size, runs, blind = _of_basket(arguments) if arguments.basket else _of_words(arguments)
    _write(out, export.made(panels, kind, size, runs if blind else None))
    _tell(panels, out, runs)
    return 0


def _of_words(arguments: argparse.Namespace) -> tuple[list[Panel], Size, list[Recorded], bool]:
    """The one figure that was typed, its size, its runs, and whether names are to be hidden."""
    from analysis import recipes
    from app.export import export

    name = recipes.find(arguments.name)
    chosen = recipes.read_settings(name, _pairs(arguments.settings or ()))
    runs = recorded.apart([one for folder in arguments.folders for one in recorded.find(folder, _root(arguments))])
    if not runs:
        raise ConfigError(f"RUN is missing; name the {'runs' if recipes.several(name) else 'run'} to draw (`interplay runs` lists them)")
    size = export.Size(arguments.venue or "neurips", arguments.width or "column", arguments.height)
    return [export.panel(name, runs, chosen)], size, runs, arguments.anonymous


def _of_basket(arguments: argparse.Namespace) -> tuple[list[Panel], Size, list[Recorded], bool]:
    """The figures that a manifest lists; sizes that are typed hold for all of them."""
    from dataclasses import replace

    from app.export import export

    items, venue, blind = export.read_basket(_file("--basket", arguments.basket))
    sized = [replace(item, width=arguments.width or item.width, height=arguments.height or item.height) for item in items]
    runs = [recorded.apart([one for word in item.runs for one in recorded.find(word, _root(arguments))]) for item in sized]
    panels = [export.wanted(item, own) for item, own in zip(sized, runs, strict=True)]
    return panels, export.Size(arguments.venue or venue), list(dict.fromkeys(one for own in runs for one in own)), blind or arguments.anonymous


def _root(arguments: argparse.Namespace) -> Path:
    return Path(arguments.runs or "runs")


_UNCOMPARED = "nothing was compared; --runs DIR says whether the runs there still give the same rows"


def _about(path: Path, root: Path | None) -> int:
    """What a file says of its figures, each in lines; with a folder of runs one line more for each: whether they still give it."""
    from app.export import lines

    content, zipped = lines.content_of(path), path.suffix.lower() == ".zip"
    for number, line in enumerate(lines.of(path.name, content)):
        told = [*line.text.split("; "), *([_checked(line, root, path.stat().st_mtime)] if root else [])]
        if zipped:
            print(*([""] if number else []), f"{line.file}:", sep="\n")
            told = [f"  {words}" for words in told]
        print("\n".join(told))
    if root is None:
        print(("\n" if zipped else "") + _UNCOMPARED)
    return 0


def _checked(line: Line, root: Path, written: float) -> str:
    from app.export import back

    try:
        return back.check(back.read(line), back.in_folder(root), written).words
    except DataError as reason:
        return str(reason)


def _list() -> int:
    from analysis import recipes

    for name in recipes.names():
        print(f"{name}{' (takes several runs)' if recipes.several(name) else ''}: {recipes.about(name)}")
        for one in recipes.settings(name).values():
            choices = f" ({', '.join(map(str, one.choices))})" if one.choices else ""
            print(f"    --set {one.name}={_shown(one.default)}{choices}")
    return 0


#: Defaults that are told in words.
_OPEN: Mapping[Any, str] = {(): "all", "": "none", None: "chosen by what was recorded"}


def _shown(value: Any) -> str:
    return _OPEN.get(value) or (str(value).lower() if isinstance(value, bool) else str(value))


# --- what is typed ---------------------------------------------------------------------------------


def _target(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file and its format, before anything is read."""
    from analysis import recipes

    if arguments.basket and (arguments.name or arguments.settings):
        raise ConfigError(f"--basket is {arguments.basket!r}, which names figures, runs and settings; leave out NAME, RUN and --set")
    if not arguments.name and not arguments.basket:
        raise ConfigError("NAME is missing; `interplay figure --list` shows what there is")
    if arguments.name:
        recipes.find(arguments.name)  # a mistyped name is told first
    if not arguments.out:
        raise ConfigError("--out is missing; name the file to write, such as --out figure.pdf")
    out = Path(arguments.out)
    kind = out.suffix.lstrip(".").lower()
    kinds = ("zip",) if arguments.basket else (*FORMATS, "zip")
    if kind not in kinds:
        raise ConfigError(f"--out is {arguments.out!r}; its suffix must be one of {allowed(f'.{name}' for name in kinds)}{nearest(kind, kinds)}")
    if arguments.height is not None and not 0.5 <= arguments.height <= 20:
        raise ConfigError(f"--height is {arguments.height}; it must be between 0.5 and 20 inches")
    return out, kind


def _file(flag: str, word: str) -> Path:
    """A file to read. Raises `StoreError` if it is not there, or is a folder."""
    path = Path(word)
    with disk.explained(path, "cannot be read"):
        wrong = "it is a folder" if path.is_dir() else "" if path.exists() else "there is no such file"
    if wrong:
        raise StoreError(f"{flag} is {word!r}, which cannot be read: {wrong}")
    return path


def _folder(word: str) -> Path:
    """The folder of runs that was typed. Raises `StoreError` if it is not there."""
    path = Path(word)
    with disk.explained(path, "cannot be read"):
        there = path.is_dir()
    if not there:
        raise StoreError(f"--runs is {word!r}, but there is no such folder; name the one that holds the runs")
    return path


def _pairs(words: list[str] | tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key.strip() or not equals:
            raise ConfigError(f"--set is {word!r}; write KEY=VALUE, such as --set x=tokens")
        found[key.strip().replace("-", "_")] = value.strip()
    return found


# --- what is written -------------------------------------------------------------------------------


def content(spec: FigureSpec, kind: str, *, venue: str = "neurips", width: Width = "column", height: float | None = None) -> bytes:
    """The figure in one of `FORMATS`; the size is that of what is drawn for paper. Raises `ConfigError` if there is nothing to draw."""
    from analysis import paper

    texts: dict[str, Callable[[FigureSpec], str]] = {"html": page, "csv": paper.csv, "tex": paper.table, "json": as_json}
    try:
        return texts[kind](spec).encode() if kind in texts else paper.render(spec, kind, venue=venue, width=width, height=height)
    except InterplayError:
        raise
    except ValueError as reason:
        raise ConfigError(f"{spec.name} cannot be drawn: {reason}") from reason


def as_json(spec: FigureSpec) -> str:
    """The whole spec, its data by column; what is not a finite number is null."""
    from analysis import paper, spec_json

    return spec_json.dumps(spec, paper.about(spec))


#: What the page may load: nothing but itself. plotly.js builds its 3-D shaders with eval.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }}
figure {{ margin: 0 }} footer {{ color: #666; font-size: 12px; overflow-wrap: anywhere }}</style>
<h1>{title}</h1>
<figure role="img" aria-label="{alt}">{chart}</figure>
<p>{caption}</p>
<footer>{about}</footer>
</html>
"""


def page(spec: FigureSpec) -> str:
    """One file that shows the figure in any browser: plotly.js is inside, and nothing is asked of another host."""
    from analysis import paper, screen

    chart = screen.draw(spec, height=520).update_layout(paper_bgcolor="white", modebar={"bgcolor": "white", "color": "#999", "activecolor": "#222"})
    drawn = chart.to_html(config=dict(screen.CONFIG), full_html=False, include_plotlyjs=True, div_id="figure")
    words = {"title": spec.title, "alt": spec.alt, "caption": screen.caption(spec), "about": paper.about(spec)}
    return _PAGE.format(chart=drawn, policy=_POLICY, **{name: html.escape(text) for name, text in words.items()})


def _write(out: Path, content: bytes) -> None:
    """The whole file or none; an older one is replaced."""
    aside = disk.temporary(out)
    with disk.explained(out, "cannot take the figure"):
        try:
            aside.write_bytes(content)
            aside.replace(out)
        finally:
            disk.remove(aside)


def _tell(panels: Sequence[Panel], out: Path, runs: Sequence[Recorded]) -> None:
    for one in runs:
        for problem in one.problems():
            print(f"note: {problem}", file=sys.stderr)
    for panel in panels:
        print(f"{out}: {panel.spec.title}, n = {panel.spec.n}")
        print(panel.spec.caption)
