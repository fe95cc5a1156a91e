"""`interplay figure`: one figure of recorded runs as a file, by its name.

    interplay figure --list
    interplay figure kl-curve runs/first --out kl.pdf --venue acl
    interplay figure trajectories first second --set components=3 --out paths.html

The suffix of --out says what is written: .pdf, .svg, .png at a venue's true size, .html for a browser, .csv and .tex for the numbers, .json for all of it.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.venues import VENUES
from interplay import compare, disk
from interplay.errors import ConfigError, InterplayError, StoreError, allowed, nearest

if TYPE_CHECKING:  # pandas, plotly and matplotlib take seconds, and every command builds this one's arguments
    import pandas as pd

    from analysis.spec import FigureSpec
    from analysis.trajectory import Trajectory
    from app.loading import Feed
    from interplay.records import RunInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to draw; --list shows what there is")
    parser.add_argument(
        "folders", nargs="*", metavar="RUN", help="run folders, or names of runs in --runs; the folder of a comparison stands for its finished rows"
    )
    parser.add_argument("--list", action="store_true", help="print all figures with their settings, and stop")
    parser.add_argument("--out", metavar="FILE", help=f"file to write; its suffix is the format: {', '.join(f'.{kind}' for kind in _FORMATS)}")
    parser.add_argument("--venue", metavar="NAME", default="neurips", help=f"whose sizes to use: {', '.join(VENUES)} (default neurips)")
    parser.add_argument("--width", metavar="column|text", default="column", help="as wide as a column or as the text (default column)")
    parser.add_argument("--height", metavar="INCHES", type=float, help="height; default: what suits the figure")
    parser.add_argument("--set", dest="settings", action="append", metavar="KEY=VALUE", help="a setting of the figure; may be given more than once")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of runs (default runs)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw one figure, or list them; returns the exit code."""
    from analysis import recipes

    if arguments.list:
        return _list()
    out, kind = _target(arguments)
    name = recipes.find(arguments.name)
    chosen = recipes.read_settings(name, _pairs(arguments.settings or ()))
    recordings = [one for folder in arguments.folders for one in find(folder, Path(arguments.runs))]
    if not recordings:
        raise ConfigError(f"RUN is missing; name the {'runs' if recipes.several(name) else 'run'} to draw (`interplay runs` lists them)")
    try:
        spec = recipes.make(name, recordings, **chosen)
        content = _FORMATS[kind](spec, arguments)
    except InterplayError:
        raise
    except ValueError as reason:
        raise ConfigError(f"{name} cannot be drawn: {reason}") from reason
    _write(out, content)
    _tell(spec, out, recordings)
    return 0


def _list() -> int:
    from analysis import recipes

    for name in recipes.names():
        print(f"{name}{' (takes several runs)' if recipes.several(name) else ''}: {recipes.about(name)}")
        for one in recipes.settings(name).values():
            choices = f" ({', '.join(map(str, one.choices))})" if one.choices else ""
            print(f"    --set {one.name}={_shown(one.default)}{choices}")
    return 0


def _shown(value: Any) -> str:
    return "all" if value == () else "chosen by what was recorded" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- what is typed ---------------------------------------------------------------------------------


def _target(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file and its format, before anything is read."""
    if not arguments.name:
        raise ConfigError("NAME is missing; `interplay figure --list` shows what there is")
    if not arguments.out:
        raise ConfigError("--out is missing; name the file to write, such as --out figure.pdf")
    out = Path(arguments.out)
    kind = out.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise ConfigError(f"--out is {arguments.out!r}; its suffix must be one of {allowed(f'.{name}' for name in _FORMATS)}{nearest(kind, _FORMATS)}")
    if arguments.height is not None and not 0.5 <= arguments.height <= 20:
        raise ConfigError(f"--height is {arguments.height}; it must be between 0.5 and 20 inches")
    return out, kind


def _pairs(words: list[str] | tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key.strip() or not equals:
            raise ConfigError(f"--set is {word!r}; write KEY=VALUE, such as --set x=tokens")
        found[key.strip().replace("-", "_")] = value.strip()
    return found


# --- what is read ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """One run as `analysis.recipes` asks for it; a stream is read when it is asked for."""

    path: Path
    arm: str | None = None  # as a comparison calls its method
    control: bool = False

    @cached_property
    def info(self) -> RunInfo:
        from interplay.store import RunStore

        return RunStore.open(self.path).info

    @property
    def run(self) -> str:
        return self.path.name

    @property
    def method(self) -> str:
        return self.arm or str(self.info.config.get("method") or self.run)

    @property
    def seed(self) -> int:
        seed = self.info.config.get("seed")
        return seed if isinstance(seed, int) else 0

    def frame(self, stream: str, /) -> pd.DataFrame:
        return self._feed(stream).frame(stream)

    def trajectories(self, roles: Any, /) -> list[Trajectory]:
        return self._feed("directions").trajectories(roles)

    def problems(self) -> list[str]:
        from interplay.store import RunStore

        return [str(problem) for problem in RunStore.open(self.path).problems()]

    def _feed(self, stream: Any) -> Feed:
        from app.loading import Feed

        feed = Feed(self.path, (stream,))
        feed.refresh()
        return feed


def find(word: str, root: Path) -> list[Recorded]:
    """A run by its folder or its name in `root`, or the finished rows of a comparison. Raises `StoreError` with the nearest name."""
    from interplay.reading import RUN
    from interplay.store import Runs

    for path in (Path(word), root / word):
        if (path / RUN).is_file():
            return [Recorded(path)]
        if plan := compare.read(path):
            rows = [row for row in plan.arms if compare.standing(row) == "finished"]
            return [Recorded(row.folder, row.method, row.control) for row in rows]
    known = [row.run for row in Runs(root).list()]
    raise StoreError(f"run is {word!r}, but there is no such run in {root}{nearest(word, known)}; `interplay runs --runs {root}` lists them")


# --- what is written -------------------------------------------------------------------------------


def _paper(kind: str) -> Callable[[FigureSpec, argparse.Namespace], bytes]:
    def drawn(spec: FigureSpec, arguments: argparse.Namespace) -> bytes:
        from analysis import paper

        return paper.render(spec, kind, venue=arguments.venue, width=arguments.width, height=arguments.height)

    return drawn


def _text(name: str) -> Callable[[FigureSpec, argparse.Namespace], bytes]:
    def written(spec: FigureSpec, _arguments: argparse.Namespace) -> bytes:
        from analysis import paper

        text: str = getattr(paper, name)(spec)
        return text.encode()

    return written


def as_json(spec: FigureSpec) -> str:
    """The whole spec, its data by column; what is not a finite number is null."""
    from analysis import paper

    axes = {name: axis and asdict(axis) for name, axis in (("x", spec.x), ("y", spec.y), ("z", spec.z), ("colour", spec.colour))}
    words = {name: getattr(spec, name) for name in ("name", "title", "caption", "alt", "n")}
    data = {str(column): [_value(value) for value in spec.data[column].tolist()] for column in spec.data}
    marks = [asdict(mark) for mark in spec.marks]
    return json.dumps({**words, "runs": spec.runs, "about": paper.about(spec), "marks": marks, **axes, "data": data}, indent=1, allow_nan=False) + "\n"


def _value(value: Any) -> Any:
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # false for NaN too
    return None if value is None else str(value)


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


_FORMATS: dict[str, Callable[[FigureSpec, argparse.Namespace], bytes]] = {
    "pdf": _paper("pdf"),
    "svg": _paper("svg"),
    "png": _paper("png"),
    "html": lambda spec, _: page(spec).encode(),
    "csv": _text("csv"),
    "tex": _text("table"),
    "json": lambda spec, _: as_json(spec).encode(),
}


def _write(out: Path, content: bytes) -> None:
    """The whole file or none; an older one is replaced."""
    aside = disk.temporary(out)
    with disk.explained(out, "cannot take the figure"):
        try:
            aside.write_bytes(content)
            aside.replace(out)
        finally:
            disk.remove(aside)


def _tell(spec: FigureSpec, out: Path, recordings: list[Recorded]) -> None:
    for one in recordings:
        for problem in one.problems():
            print(f"note: {problem}", file=sys.stderr)
    print(f"{out}: {spec.title}, n = {spec.n}")
    print(spec.caption)
