"""`FigureSpec` -> plotly, for the browser.

Colours are those of `look`, dash and marker shape the second channel. Numbers travel as float32 arrays. A line of more
than `MOST_POINTS` is thinned by MinMaxLTTB, which keeps spikes, and the caption says so. `uirevision`
keeps zoom and hidden series over refreshes.
"""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from tsdownsample import NaNMinMaxLTTBDownsampler

from analysis.look import looks, style
from analysis.spec import RECORDED, Axis, FigureSpec, Mark

Floats = npt.NDArray[np.float32]
Trace = dict[str, Any]

MOST_POINTS = 4_000
MOST_COLUMNS = 800
#: Letters of a title along the horizontal axis in one line: what a chart has room for in the columns of a page 900 px wide.
MOST_LETTERS = 32

#: Whole numbers on an axis, from the first to the last, up to which each has a tick: plotly would put halves between so few.
MOST_STEPS = 8

#: No cloud upload, no logo: plotly's own defaults offer both.
CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "responsive": True,
}

#: colour, dash, marker
_STYLES = looks(
    ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot"),
    ("circle", "square", "cross", "diamond", "x", "square-open"),
)
_GREY = "#8A8F98"
_GRID = "rgba(128,128,128,0.16)"
#: How much is seen of values behind their moving average.
_FAINT = 0.35


def draw(spec: FigureSpec, *, height: int = 300) -> go.Figure:
    """The figure; which moment is marked is said in the browser (`analysis.moments`)."""
    traces = [trace for mark in spec.marks for trace in _DRAW[mark.kind](spec, mark)]
    _name_once(traces)
    return go.Figure({"data": traces, "layout": _layout(spec, height)})  # checked once: trace by trace it takes plotly ten times as long


def alike(charts: Sequence[go.Figure]) -> None:
    """One colour scale for heat maps that are compared: from the smallest of their values to the largest."""
    found = [trace for one in charts for trace in one.select_traces(selector={"type": "heatmap"})]
    ends = [(trace.zmin, trace.zmax) for trace in found if trace.zmin is not None]
    if len(ends) < 2:
        return
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    ticks = _log_ticks(np.array([low, high], dtype=np.float32)) if found[0].colorbar.tickvals is not None else {}
    for trace in found:
        trace.update(zmin=low, zmax=high, colorbar=ticks)


def caption(spec: FigureSpec) -> str:
    """The spec's caption, and what was left out to draw it."""
    return " ".join([spec.caption, *_thinned(spec)])


def _thinned(spec: FigureSpec) -> list[str]:
    lines = [len(rows) for mark in spec.marks if mark.kind == "line" and spec.z is None for _, rows in spec.rows(mark).groupby("series", sort=False)]
    notes = [f"Drawn: {MOST_POINTS:,} of {count:,} points, MinMaxLTTB." for count in dict.fromkeys(lines) if count > MOST_POINTS]
    columns = spec.data[spec.x.column].nunique() if spec.colour else 0
    return notes + ([f"Drawn: {MOST_COLUMNS:,} of {columns:,} updates, the largest of each bin."] if columns > MOST_COLUMNS else [])


def thinned(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], most: int = MOST_POINTS) -> npt.NDArray[np.int64]:
    """At most `most` row numbers, first and last among them; gaps (NaN) stay gaps.

    Largest-triangle-three-buckets among the smallest and largest value of small buckets (van der Donckt et al. 2023, arXiv:2305.00332).
    """
    if len(y) <= most:
        return np.arange(len(y))
    # an endless abscissa would break the search for triangles: the order of the rows serves as well
    along = np.ascontiguousarray(x, dtype=np.float64) if np.isfinite(x).all() and (np.diff(x) >= 0).all() else np.arange(len(y), dtype=np.float64)
    rows = NaNMinMaxLTTBDownsampler().downsample(along, np.ascontiguousarray(y, dtype=np.float64), n_out=most)  # type: ignore[no-untyped-call]
    return np.asarray(rows, dtype=np.int64)


# --- marks -------------------------------------------------------------------------------------


def _series(spec: FigureSpec, mark: Mark) -> list[tuple[int, str, pd.DataFrame]]:
    order = spec.data["series"].unique().tolist()
    return [(style(name, order), _safe(name), rows) for name, rows in spec.rows(mark).groupby("series", sort=False)]


def _safe(name: object) -> str:
    """A name that plotly shows letter by letter: its labels would read tags and links."""
    return html.escape(str(name), quote=False)


def _numbers(values: Any) -> npt.NDArray[np.float32]:
    """float32 without infinities: a browser's axis cannot show them."""
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32(np.nan))


def _place(spec: FigureSpec, rows: pd.DataFrame) -> dict[str, Any]:
    axes = {"x": spec.x, "y": spec.y} | ({"z": spec.z} if spec.z else {})
    return {letter: [_safe(word) for word in rows[axis.column]] if axis.scale == "category" else spec.places(axis, rows) for letter, axis in axes.items()}


def _line(spec: FigureSpec, mark: Mark) -> list[Trace]:
    traces = []
    for look, name, rows in _series(spec, mark):
        colour, dash, _ = _STYLES[look]
        thin = rows if spec.z else rows.iloc[thinned(spec.places(spec.x, rows), spec.places(spec.y, rows))]
        shape = {"color": colour, "width": (2.2 if mark.strong else 1.3) * (2 if spec.z else 1), "dash": dash}
        few = len(thin) < 40 and not mark.strong
        extra: Trace = {"mode": "lines+markers", "marker": {"size": 4, "color": colour}} if few else {"mode": "lines"}
        extra |= {"opacity": _FAINT} if mark.layer == RECORDED else {}
        traces.append({"type": _scatter(spec), **_place(spec, thin), "name": name, "legendgroup": name, "line": shape, **extra, **_hover(spec, thin)})
    return traces


def _scatter(spec: FigureSpec) -> str:
    return "scatter3d" if spec.z else "scatter"


def _name_once(traces: list[Trace]) -> None:
    """A series that is drawn by several marks has one line in the legend, and what one sees through only if it is all that there is of its series."""
    named = [trace for trace in traces if "name" in trace and trace.get("showlegend", True)]
    named.sort(key=lambda trace: "opacity" in trace)
    for number, trace in enumerate(named):
        if trace["name"] in [earlier["name"] for earlier in named[:number]]:
            trace["showlegend"] = False


def _points(spec: FigureSpec, mark: Mark) -> list[Trace]:
    traces = []
    alone = not any(other.kind == "line" and other.layer == mark.layer for other in spec.marks) and spec.name != "trajectories"
    for look, name, rows in _series(spec, mark):
        colour, _, symbol = _STYLES[look]
        size = 9 if mark.strong else 7
        marker = {"color": colour, "size": size if spec.z is None else 5, "symbol": symbol, "line": {"width": 1.5, "color": colour}}
        if mark.layer == "start":
            marker |= {"symbol": "circle-open", "size": 11 if spec.z is None else 6}
        text = {"start": "start", "end": "end"}.get(mark.layer)
        shown = {"mode": "markers+text", "text": [text] * len(rows), "textposition": "top center"} if text else {"mode": "markers"}
        same = {"name": name, "legendgroup": name, "showlegend": alone, "marker": marker}
        traces.append({"type": _scatter(spec), **_place(spec, rows), **same, **_hover(spec, rows, text), **shown})
    return traces


def _band(spec: FigureSpec, mark: Mark) -> list[Trace]:
    traces = []
    for look, name, rows in _series(spec, mark):
        colour = _STYLES[look][0]
        x, (low, high) = spec.places(spec.x, rows), spec.edges(spec.y, rows)
        edge = {"x": np.concatenate([x, x[::-1]]), "y": np.concatenate([high, low[::-1]])}
        veil = {"mode": "lines", "fill": "toself", "fillcolor": colour, "opacity": 0.18, "line": {"width": 0}, "hoverinfo": "skip"}
        traces.append({"type": "scatter", **edge, **veil, "name": name, "legendgroup": name})
    return traces


def _interval(spec: FigureSpec, mark: Mark) -> list[Trace]:
    traces = []
    for look, name, rows in _series(spec, mark):
        colour, _, symbol = _STYLES[look]
        marker = {"color": colour, "size": 10, "symbol": symbol}
        whiskers = _whiskers(spec.x if mark.along == "x" else spec.y, rows) | {"color": colour}
        traces.append({"type": "scatter", **_place(spec, rows), "mode": "markers", "name": name, "marker": marker, f"error_{mark.along}": whiskers})
    return traces


def _whiskers(axis: Axis, rows: pd.DataFrame) -> dict[str, Any]:
    """From low to high around the middle; none where either is unknown."""
    low, middle, high = (_numbers(rows[column]) for column in ("low", axis.column, "high"))
    known = np.isfinite(low) & np.isfinite(high)
    above, below = (np.where(known, reach, np.float32(np.nan)) for reach in (high - middle, middle - low))
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 6}


def _bar(spec: FigureSpec, mark: Mark) -> list[Trace]:
    traces = []
    for look, name, rows in _series(spec, mark):
        whiskers = {"error_y": _whiskers(spec.y, rows) | {"color": _GREY}} if {"low", "high"} <= set(rows.columns) else {}
        bars = {"x": rows[spec.x.column].to_numpy(), "y": _numbers(rows[spec.y.column])}
        traces.append({"type": "bar", **bars, "name": name, "marker": {"color": _STYLES[look][0]}, **whiskers})
    return traces


def _heat(spec: FigureSpec, mark: Mark) -> list[Trace]:
    rows = spec.rows(mark)
    if rows.empty or spec.colour is None:
        return []
    names = sorted({str(row) for row in rows[spec.y.column].unique()}, key=_row_order)
    x, cells = _cells(spec, rows, names, [column for column in (spec.colour.column, "null", "within") if column in rows])
    values, bar = _colours(cells[spec.colour.column], spec.colour)
    gaps = {"xgap": 0.6 if len(x) < 80 else 0, "ygap": 1 if len(names) < 80 else 0}
    return [{"type": "heatmap", "x": x, "y": [_safe(name) for name in names], "z": values, **_read_off(spec, spec.colour, cells), **gaps, **bar}]


def _cells(spec: FigureSpec, rows: pd.DataFrame, names: Sequence[str], columns: Sequence[str]) -> tuple[Floats, dict[str, Floats]]:
    """Places along x, and each column as a grid of the named rows by these places; the first column decides what a bin of many places keeps."""
    along, across = np.unique(rows[spec.x.column].to_numpy(np.float32), return_inverse=True)
    down = pd.Index(names).get_indexer(pd.Index(rows[spec.y.column].astype(str)))
    found = {}
    for column in columns:
        found[column] = np.full((len(names), len(along)), np.nan, dtype=np.float32)
        found[column][down, across] = _numbers(rows[column])
    if len(along) <= MOST_COLUMNS:
        return along, found
    edges = np.linspace(0, len(along), MOST_COLUMNS + 1).astype(np.int64)
    kept = _largest(found[columns[0]], edges)
    return along[edges[:-1]], {column: np.take_along_axis(grid, kept, axis=1) for column, grid in found.items()}


def _largest(values: Floats, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of each row and bin, the place of the value of largest size; missing ones only where there is no other."""
    size = np.where(np.isfinite(values), np.abs(values), -1)
    return np.stack([a + size[:, a:b].argmax(axis=1) for a, b in itertools.pairwise(edges)], axis=1)


def _read_off(spec: FigureSpec, colour: Axis, cells: Mapping[str, Floats]) -> dict[str, Any]:
    """What a cell says when it is pointed at, and the dots in those within chance: plotly makes them as large as the cells allow."""
    shown = cells[colour.column]
    value, chance = ("customdata[0]", "<br>chance SD %{customdata[1]:.2g}") if "null" in cells else ("customdata", "")
    hover = f"{spec.x.label} %{{x:.0f}}<br>{spec.y.label} %{{y}}<br>{colour.label} %{{{value}:.3g}} {colour.unit}{chance}<extra></extra>"
    told = {"customdata": np.stack([shown, cells["null"]], axis=-1) if chance else shown, "hovertemplate": hover}
    return told | ({"text": np.where(cells["within"] > 0, "•", "").tolist(), "texttemplate": "%{text}"} if "within" in cells else {})


def _row_order(row: str) -> tuple[int, int, str]:
    """Layers by number from the bottom, words by the alphabet, what is outside the blocks on top."""
    return (2, 0, "") if row == "outside" else (0, int(row), "") if row.isdecimal() else (1, 0, row)


def _colours(values: npt.NDArray[np.float32], axis: Axis) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Values on the colour scale, and the scale's look."""
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "title": {"text": axis.text, "side": "right"}}
    if axis.scale == "diverging":
        return values, {"colorscale": "RdBu_r", "zmin": -axis.limit, "zmax": axis.limit, "colorbar": bar}
    if axis.scale != "log":
        return values, {"colorscale": "Cividis", "colorbar": bar}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = _numbers(np.log10(np.where(values > 0, values, np.nan)))
    return logs, {"colorscale": "Cividis", "colorbar": bar | _log_ticks(logs), **_log_range(logs)}


def _log_range(logs: npt.NDArray[np.float32]) -> dict[str, float]:
    good = logs[np.isfinite(logs)]
    if not len(good):
        return {}
    low, high = float(good.min()), float(good.max())
    return {"zmin": low - 0.05, "zmax": high + 0.05} if high - low < 0.1 else {"zmin": low, "zmax": high}


def _log_ticks(logs: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Ticks at 1, 2, 5 of each power of ten: the bar shows values, not exponents."""
    reach = _log_range(logs)
    if not reach:
        return {}
    powers = range(int(np.floor(reach["zmin"])), int(np.ceil(reach["zmax"])) + 1)
    steps = (1, 2, 5) if reach["zmax"] - reach["zmin"] < 2.5 else (1,)
    values = [m * 10.0**p for p in powers for m in steps if reach["zmin"] <= np.log10(m * 10.0**p) <= reach["zmax"]]
    values = values or [10 ** reach["zmin"], 10 ** reach["zmax"]]
    return {"tickvals": [float(np.log10(v)) for v in values], "ticktext": [f"{v:.1g}" if values[0] != 10 ** reach["zmin"] else f"{v:.3g}" for v in values]}


def _hover(spec: FigureSpec, rows: pd.DataFrame, text: str | None = None) -> dict[str, Any]:
    if spec.name == "trajectories":
        return {
            "customdata": rows["update"].to_numpy(np.float32),
            "hovertemplate": f"%{{fullData.name}}<br>{text or 'update'} %{{customdata:.0f}}<extra></extra>",
        }
    label = {"text": rows["label"].tolist()} if "label" in rows and len(rows) < 500 else {}
    return {**label, "hovertemplate": f"%{{fullData.name}}<br>{spec.x.label} %{{x:.6g}}<br>%{{y:.4g}}<br>%{{text}}<extra></extra>" if label else None}


_DRAW = {"line": _line, "band": _band, "points": _points, "interval": _interval, "heat": _heat, "bar": _bar}


# --- layout ------------------------------------------------------------------------------------


def _title(axis: Axis, most: int) -> str:
    """The title in lines of so many letters; one that is too long breaks before its unit, if the rest fits then."""
    label, bracket, unit = axis.text.rpartition(" (")
    parts = [label, f"({unit}"] if bracket and len(label) <= most < len(axis.text) else [axis.text]
    return "<br>".join(_safe(line) for part in parts for line in textwrap.wrap(part, most, break_on_hyphens=False))


def _upright(height: int) -> int:
    """Letters along the vertical axis: of 7 px each, in what legend and horizontal axis leave of a chart this high."""
    return max((height - 100) // 7, 12)


def _axis(spec: FigureSpec, axis: Axis, most: int) -> dict[str, Any]:
    look: dict[str, Any] = {"title": {"text": _title(axis, most), "standoff": 6}, "gridcolor": _GRID, "zerolinecolor": _GRID, "automargin": True}
    if axis.scale == "category":
        look |= {"type": "category", "showgrid": False, "nticks": 12, "ticks": ""}
    elif spec.reach(axis) <= MOST_STEPS and spec.counts(axis):
        look |= {"tick0": 0, "dtick": 1}
    return look | ({"type": "log", "tickformat": "~g"} if axis.scale == "log" else {})  # plotly alone would write 0.5 as 5


def _axis_3d(axis: Axis) -> dict[str, Any]:
    """Short titles and visible lines: a scene has no room for more."""
    line = "#9AA0A8"  # a scene draws no line that one can see through
    title = axis.text.replace(" of variance", "").replace("component ", "c")
    return {"title": {"text": title}, "gridcolor": line, "zerolinecolor": line, "linecolor": line, "showline": True, "showbackground": False, "nticks": 5}


def _layout(spec: FigureSpec, height: int) -> dict[str, Any]:
    look = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": height if not spec.z else height * 5 // 4,
        "margin": {"l": 8, "r": 8, "t": 26 if not spec.colour else 8, "b": 8},
        "uirevision": f"{spec.name}-{'-'.join(spec.runs)}" + ("-log" if spec.y.scale == "log" else ""),  # where one looked has no meaning on another axis
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "xanchor": "left"},
        "hoverlabel": {"namelength": -1},
        "hovermode": "closest",
    }
    if not spec.z:
        return look | {"xaxis": _axis(spec, spec.x, MOST_LETTERS), "yaxis": _axis(spec, spec.y, _upright(height))}
    axes = {f"{letter}axis": _axis_3d(axis) for letter, axis in zip("xyz", (spec.x, spec.y, spec.z), strict=True)}
    return look | {"scene": {**axes, "aspectmode": "cube", "camera": {"eye": {"x": 1.45, "y": 1.45, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.15}}}}
