"""`FigureSpec` -> matplotlib, for a paper: PDF, SVG and PNG of the true size. The numbers behind it as LaTeX and CSV are in `paper_text`.

Draws the same rows, scales and order as `screen`, in the same colours (Paul Tol's bright scheme), with dash and marker as second
channel. No title inside: that is the caption's work. Letters are TrueType (Type 42) in PDF and text in SVG. Only a mark of more than
`MOST_VECTOR` points becomes pixels, and it keeps all of its points. The same spec gives the same bytes, on every day and in every process.
Names come from runs and are shown letter by letter: no formula, no line break.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colors, ticker
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import venues
from analysis.look import looks, style
from analysis.paper_text import about as about
from analysis.paper_text import csv as csv
from analysis.paper_text import plain
from analysis.paper_text import table as table
from analysis.spec import RECORDED, Axis, FigureSpec, Mark
from analysis.venues import FAINT, GREY, Venue, Width
from interplay.errors import ConfigError, allowed, nearest

FORMATS = ("pdf", "svg", "png")
MOST_VECTOR = 5_000
DPI = 300

#: Colour, dash, marker and its filling; the same colours in the same order as on the screen (tests compare them).
_STYLES: tuple[tuple[str, Any, str, str], ...] = tuple(
    (colour, dash, *marker)
    for colour, dash, marker in looks(
        ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.6, 1, 1.6)), (0, (8, 2)), (0, (8, 2, 1, 2))),
        (("o", "full"), ("s", "full"), ("P", "full"), ("D", "full"), ("X", "full"), ("s", "none")),
    )
)

#: matplotlib's settings belong to the whole process: one figure at a time has them.
_SETTINGS = threading.RLock()


def draw(spec: FigureSpec, *, venue: str = "neurips", width: Width = "column", height: float | None = None) -> Figure:
    """The figure, `width` of the venue wide, `height` inches high (default: what suits its marks).

    Raises `ConfigError` for an unknown venue or width, `ValueError` if there is nothing to draw.
    """
    place = venues.find(venue)
    inches = place.inches(width)
    _refuse_empty(spec)
    with _settings(place):
        figure = Figure(figsize=(inches, height or _height(spec, inches)), layout=None if spec.z else "constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(projection="3d" if spec.z else None)
        drawn = [(mark, parts) for mark in spec.marks for parts in _DRAW[mark.kind](axes, spec, mark) if parts]
        for number, (mark, parts) in enumerate(drawn):  # names by which an editor of the SVG, and a test, finds them
            for part, artist in enumerate(parts):
                artist.set_gid(f"{mark.layer}-{mark.kind}-{number}-{part}")
        _dress(figure, axes, spec, place)
        legend = _legend(figure, drawn)
        if height is None:
            figure.set_figheight(figure.get_figheight() + legend)
        if spec.z:  # the layout engine leaves scenes alone
            axes.set_position((0, 0.02, 0.9, 0.97 - legend / figure.get_figheight()))
        figure.draw_without_rendering()
        _say_ends(axes, spec)
    return figure


def render(spec: FigureSpec, kind: str, *, venue: str = "neurips", width: Width = "column", height: float | None = None) -> bytes:
    """The figure as a file of one of `FORMATS`; the same bytes for the same spec. Raises as `draw` does."""
    if kind not in FORMATS:
        raise ConfigError(f"format is {kind!r}{nearest(kind, FORMATS)}; allowed: {allowed(FORMATS)}")
    figure = draw(spec, venue=venue, width=width, height=height)
    with _settings(venues.find(venue)), io.BytesIO() as stream:
        figure.savefig(stream, format=kind, dpi=DPI, metadata=_metadata(spec, kind))
        return stream.getvalue()


def save(spec: FigureSpec, path: str | Path, *, venue: str = "neurips", width: Width = "column", height: float | None = None) -> Path:
    """Write the figure in the format that the file's suffix names."""
    Path(path).write_bytes(render(spec, Path(path).suffix.lstrip(".").lower(), venue=venue, width=width, height=height))
    return Path(path)


@contextlib.contextmanager
def _settings(venue: Venue) -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's matplotlibrc says, and ours over them; afterwards all is as it was."""
    with _SETTINGS, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(venue.settings())
        yield


def _refuse_empty(spec: FigureSpec) -> None:
    columns = [axis.column for axis in (spec.x, spec.y, spec.z, spec.colour) if axis and axis.scale != "category"]
    if not any(np.isfinite(_numbers(spec.rows(mark)[columns])).all(axis=1).any() for mark in spec.marks):
        raise ValueError(f"{spec.name} of {', '.join(map(plain, spec.runs)) or 'these runs'} has nothing to draw: no finite number was recorded for it")


def _height(spec: FigureSpec, inches: float) -> float:
    """Rows of words need their lines; other figures look well flat, and flatter where they are wide."""
    if spec.z:
        return min(0.85 * inches, 3.6)
    if spec.y.scale == "category" and spec.colour is None:
        return 1.05 + 0.27 * len(_words(spec, spec.y))
    return inches * (0.64 if inches < 4 else 0.42)


# --- rows --------------------------------------------------------------------------------------


def _series(spec: FigureSpec, mark: Mark) -> Iterator[tuple[tuple[str, Any, str, str], str, pd.DataFrame]]:
    order = spec.data["series"].unique().tolist()
    for name, rows in spec.rows(mark).groupby("series", sort=False):
        yield _STYLES[style(name, order)], plain(name), rows


def _numbers(values: Any) -> npt.NDArray[np.float32]:
    """float32 without infinities, as on the screen: neither has a place on paper, and both leave a gap."""
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32(np.nan))


def _words(spec: FigureSpec, axis: Axis) -> list[str]:
    """The categories of an axis from below: in the order in which they come, layers of a heat map by number."""
    seen = dict.fromkeys(str(word) for mark in spec.marks for word in spec.rows(mark)[axis.column])
    return sorted(seen, key=_row_order) if spec.colour else list(seen)


def _row_order(row: str) -> tuple[int, int, str]:
    """Layers by number from the bottom, words by the alphabet, what is outside the blocks on top."""
    return (2, 0, "") if row == "outside" else (0, int(row), "") if row.isdecimal() else (1, 0, row)


def _along(spec: FigureSpec, axis: Axis, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Places on one axis; words are numbered from 0."""
    if axis.scale != "category":
        return spec.places(axis, rows)
    order = {word: place for place, word in enumerate(_words(spec, axis))}
    return np.array([order[str(word)] for word in rows[axis.column]], dtype=np.float32)


def _place(spec: FigureSpec, rows: pd.DataFrame) -> list[npt.NDArray[np.float32]]:
    return [_along(spec, axis, rows) for axis in (spec.x, spec.y, spec.z) if axis]


# --- marks: the artists of one series after the other ------------------------------------------


def _line(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    for (colour, dash, *_), name, rows in _series(spec, mark):
        dots = {"marker": "o", "markersize": 1.8} if len(rows) < 40 and not mark.strong else {}
        look = {"color": colour, "linestyle": dash, "linewidth": 1.3 if mark.strong else 0.7, "alpha": FAINT if mark.layer == RECORDED else None, **dots}
        yield axes.plot(*_place(spec, rows), label=name, rasterized=len(rows) > MOST_VECTOR, **look)


def _points(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    """Markers; those of a start are hollow."""
    for (colour, _, marker, fill), name, rows in _series(spec, mark):
        shape = {"marker": "o", "fillstyle": "none"} if mark.layer == "start" else {"marker": marker, "fillstyle": fill}
        look = {"color": colour, "markersize": 4.5 if mark.strong else 3, "linestyle": "none", "zorder": 3, **shape}
        yield axes.plot(*_place(spec, rows), label=name, rasterized=len(rows) > MOST_VECTOR, **look)


def _band(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    for (colour, *_), name, rows in _series(spec, mark):
        edges = map(np.ma.masked_invalid, spec.edges(spec.y, rows))
        look = {"color": colour, "alpha": 0.18, "linewidth": 0}
        yield [axes.fill_between(_along(spec, spec.x, rows), *edges, label=name, rasterized=len(rows) > MOST_VECTOR, **look)]


def _interval(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    """The middle, and its whiskers."""
    for (colour, _, marker, fill), name, rows in _series(spec, mark):
        x, y = _place(spec, rows)
        middle = axes.plot(x, y, linestyle="none", marker=marker, fillstyle=fill, markersize=5, color=colour, label=name, zorder=4)
        lines, at = (axes.hlines, y) if mark.along == "x" else (axes.vlines, x)
        yield [*middle, lines(at, *_ends(rows), color=colour, linewidth=1.4, zorder=3)]


def _ends(rows: pd.DataFrame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where whiskers begin and end; nowhere if either is unknown."""
    low, high = _numbers(rows["low"]), _numbers(rows["high"])
    return low + 0 * high, high + 0 * low


def _bar(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    """Bars side by side where series share a place, with whiskers where their ends are known."""
    groups = list(_series(spec, mark))
    places = np.unique(np.concatenate([_along(spec, spec.x, rows) for _, _, rows in groups])) if groups else np.zeros(0)
    room = 0.8 * (float(np.diff(places).min()) if len(places) > 1 else 1.0) / max(len(groups), 1)
    for number, ((colour, *_), name, rows) in enumerate(groups):
        shift = (number - (len(groups) - 1) / 2) * room
        at = _along(spec, spec.x, rows) + shift
        bars = list(axes.bar(at, _numbers(rows[spec.y.column]), room, color=colour, label=name, linewidth=0))
        whiskers = [axes.vlines(at, *_ends(rows), color=GREY, linewidth=1.2, zorder=3)] if {"low", "high"} <= set(rows.columns) else []
        yield [*bars, *whiskers]


def _heat(axes: Any, spec: FigureSpec, mark: Mark) -> Iterator[list[Artist]]:
    """Cells with a colour bar; unknown ones stay white, those within chance have a dot."""
    rows = spec.rows(mark)
    if rows.empty or spec.colour is None:
        return
    x, y, z = _along(spec, spec.x, rows), _along(spec, spec.y, rows), _numbers(rows[spec.colour.column])
    grid = pd.DataFrame({"x": x, "y": y, "z": z}).pivot_table(index="y", columns="x", values="z", aggfunc="last", dropna=False)
    values = np.ma.masked_invalid(grid.to_numpy(np.float32))
    norm, look = _norm(values.compressed(), spec.colour), "RdBu_r" if spec.colour.scale == "diverging" else "cividis"
    edges = (_edges(along.to_numpy(np.float64)) for along in (grid.columns, grid.index))
    mesh = axes.pcolormesh(*edges, values, rasterized=values.size > MOST_VECTOR, cmap=look, norm=norm)
    ticks = _log_ticks(float(mesh.norm.vmin), float(mesh.norm.vmax)) if isinstance(norm, colors.LogNorm) else None
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.08, aspect=16, ticks=ticks, format=ticker.FuncFormatter(_number))
    bar.outline.set_visible(False)
    bar.minorticks_off()
    yield [mesh, *(_dots(axes, x, y, rows["within"].to_numpy(bool)) if "within" in rows else ())]


def _dots(axes: Any, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], chosen: npt.NDArray[np.bool_]) -> list[Artist]:
    """Dots in the middle of these cells, as large as the cells allow."""
    room = 72 * axes.figure.get_size_inches() / (len(np.unique(x)), len(np.unique(y)))  # points, axes and margins included
    look = {"marker": "o", "markersize": float(np.clip(0.2 * room.min(), 0.4, 2.0)), "markeredgewidth": 0, "color": "0.2", "linestyle": "none"}
    return list(axes.plot(x[chosen], y[chosen], rasterized=len(x) > MOST_VECTOR, **look))


def _edges(centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Borders half-way between neighbours; a lone cell is one wide."""
    half = np.diff(centres) / 2
    ends = half if len(half) else np.array([0.5])
    return np.concatenate([centres[:1] - ends[:1], centres[:-1] + half, centres[-1:] + ends[-1:]])


def _norm(values: npt.NDArray[np.float32], axis: Axis) -> colors.Normalize:
    """The colour scale: alike to both sides of 0, logarithmic from the smallest to the largest positive value, or plain."""
    if axis.scale == "diverging":
        return colors.Normalize(-axis.limit, axis.limit)
    positive = values[values > 0]
    if axis.scale != "log" or not len(positive):
        return colors.Normalize()
    low, high = float(positive.min()), float(positive.max())
    return colors.LogNorm(low, high) if high > 1.25 * low else colors.LogNorm(low / 1.12, high * 1.12)  # one colour has no scale


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, the powers alone where there are many, the ends where there is none."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 5) if high < 300 * low else (1,)
    found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
    return found if len(found) > 1 else [low, high]


def _number(value: float, _place: int | None = None) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


_DRAW: dict[str, Callable[[Any, FigureSpec, Mark], Iterator[list[Artist]]]] = {
    "line": _line,
    "band": _band,
    "points": _points,
    "interval": _interval,
    "heat": _heat,
    "bar": _bar,
}


# --- axes and legend ---------------------------------------------------------------------------


def _dress(figure: Figure, axes: Any, spec: FigureSpec, venue: Venue) -> None:
    wide, high = (float(length) for length in figure.get_size_inches())
    for letter, axis, room in zip("xyz", (spec.x, spec.y, spec.z), (wide, high, high), strict=True):
        if axis:
            # as on the screen, a scene has no room for long titles
            text = axis.text.replace(" of variance", "").replace("component ", "c") if spec.z else axis.text
            getattr(axes, f"set_{letter}label")(_wrapped(text, 0.75 * room, venue), **({"labelpad": -1} if spec.z else {}))
            _scale(axes, letter, spec, axis)
    if spec.z:
        axes.set_box_aspect(None, zoom=0.95)
        axes.tick_params(pad=-2)
    elif spec.colour:
        axes.tick_params(length=2)
        figure.axes[-1].set_ylabel(_wrapped(spec.colour.text, 0.75 * high, venue))
        figure.axes[-1].tick_params(length=2)
    else:
        axes.grid(True, axis="x" if spec.y.scale == "category" else "both")


def _scale(axes: Any, letter: str, spec: FigureSpec, axis: Axis) -> None:
    along = getattr(axes, f"{letter}axis")
    if axis.scale == "category":
        words = _words(spec, axis)
        step = 1 + (len(words) - 1) // 14
        along.set_ticks(range(0, len(words), step), labels=[plain(word, 32) for word in words[::step]])
        getattr(axes, f"set_{letter}lim")(-0.5, len(words) - 0.5)
    elif axis.scale == "log":
        getattr(axes, f"set_{letter}scale")("log")
        along.set_major_formatter(ticker.FuncFormatter(_number))
        along.set_minor_formatter(ticker.NullFormatter())
    else:
        whole = spec.counts(axis)
        fewest = 1 if whole else 2  # with fewer whole numbers in sight than asked for, matplotlib puts halves between them
        along.set_major_locator(ticker.MaxNLocator(nbins=4 if spec.z else 6, integer=whole, steps=[1, 2, 5, 10], min_n_ticks=fewest))


def _wrapped(text: str, inches: float, venue: Venue) -> str:
    """Lines that fit, the unit on one of its own if it must be."""
    most = max(8, int(inches * 72 / (venue.label * venue.breadth)))
    label, bracket, unit = plain(text).rpartition(" (")
    parts = [plain(text)] if len(text) <= most or not bracket else [label, f"({unit}"]
    return "\n".join(textwrap.fill(part, most) for part in parts)


def _legend(figure: Figure, drawn: list[tuple[Mark, list[Artist]]]) -> float:
    """Names of the series above the axes in as many columns as fit, unless there is but one; returns its height in inches."""
    rank = {"line": 0, "interval": 1, "points": 2, "bar": 2, "band": 3}
    handles: dict[str, Artist] = {}
    for mark, parts in sorted(drawn, key=lambda item: (rank.get(item[0].kind, 4), item[0].layer == RECORDED)):
        if mark.kind in rank:
            handles.setdefault(str(parts[0].get_label()), parts[0])
    where: Any = "outside upper left" if figure.get_layout_engine() else "upper left"
    for columns in range(len(handles), 0, -1) if len(handles) > 1 else ():
        made = figure.legend(list(handles.values()), [plain(name, 44) for name in handles], loc=where, ncols=columns)
        box = made.get_window_extent()
        if columns == 1 or box.width <= 0.98 * figure.bbox.width:
            return float(box.height / figure.dpi)
        made.remove()
    return 0.0


def _say_ends(axes: Any, spec: FigureSpec) -> None:
    """`start` before and `end` behind the points that are it, as far as there is room."""
    taken: list[Any] = []
    for mark in (one for one in spec.marks if one.layer in ("start", "end")):
        side, shift = ("right", -5) if mark.layer == "start" else ("left", 5)
        for point in zip(*_place(spec, spec.rows(mark)), strict=True):
            seen = axes.get_proj() @ [*point, 1] if spec.z else np.array([*point, 0, 1])
            look = {"ha": side, "va": "center", "color": GREY, "in_layout": False}
            word = axes.annotate(mark.layer, seen[:2] / seen[3], xytext=(shift, 0), textcoords="offset points", **look)
            box = word.get_window_extent()
            fits = all(axes.figure.bbox.containsx(end) for end in (box.x0, box.x1)) and not any(box.overlaps(other) for other in taken)
            word.set_visible(fits)
            taken += [box] if fits else []


# --- what the file says of itself ---------------------------------------------------------------


def _metadata(spec: FigureSpec, kind: str) -> dict[str, Any]:
    """No dates: they would make every file another one."""
    title, alt, source, maker = plain(spec.title), plain(spec.alt), about(spec), f"interplay {version('interplay')}"
    if kind == "pdf":
        return {"Title": title, "Subject": alt, "Keywords": source, "Creator": maker, "CreationDate": None}
    if kind == "svg":
        return {"Title": title, "Description": alt, "Keywords": [source], "Creator": maker, "Date": None}
    return {"Title": title, "Description": alt, "Source": source, "Software": maker}
