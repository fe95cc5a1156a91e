"""Draws a plotly figure in place, so that a live chart neither flickers nor loses its zoom.

`st.plotly_chart` (Streamlit 1.67) names a chart after its data: each new point makes a new chart, and
zoom, hidden series and 3-D camera are gone. Here the chart is named after its key and new data go to
`Plotly.react`, which honours `uirevision`. plotly.js is the file that came with the plotly package,
served by this server: no other host is asked.

What marks the chosen moment travels apart from the figures (`follow`): while a run is replayed its
charts stay as they are, and a step costs some numbers.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app.server import library

_HTML = '<div class="interplay-canvas" style="width:100%"></div>'
_LIBRARY = """
const library = (source) => (window.interplayPlotly ??= import(new URL(source + (window.interplayAgain ?? ""), location.href).href).catch(() => {
  window.interplayPlotly = undefined; // the next chart tries again, under another name: a browser may keep a failure
  window.interplayAgain = "?" + Date.now();
  throw new Error("plotly.js could not be loaded from " + source);
}));
"""
_READY = (
    _LIBRARY
    + """
export default function ({ data }) {
  const idle = window.requestIdleCallback ?? setTimeout;
  idle(() => library(data.source).catch(() => {})); // the chart that needs it says so
}
"""
)
_JS = (
    _LIBRARY
    + """
// One chart after the other, with a breath between: the first is on screen while the last is still being drawn.
const inTurn = () => (window.interplayTurn = (window.interplayTurn ?? Promise.resolve()).then(() => new Promise((done) => setTimeout(done))));

function inColours(layout, element) {
  const style = getComputedStyle(element);
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const ground = style.getPropertyValue("--st-background-color").trim() || "white";
  layout.font = { color: text, family: style.fontFamily, size: 12 };
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: ground, font: { color: text } };
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,128,128,0.6)", activecolor: text };
  return layout;
}

// --- the chosen moment: a rule across curves and heat maps; on paths the way so far, and a ring at its end

const GREY = "#8A8F98";
const ARRAYS = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array };

function numbers(values) {
  if (!values?.bdata) return values ?? [];
  const bytes = Uint8Array.from(atob(values.bdata), (letter) => letter.charCodeAt(0));
  return new ARRAYS[values.dtype](bytes.buffer);
}

function rules(at, heat) {
  const line = (x, look) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: look });
  const looks = heat ? [{ width: 4, color: "rgba(0,0,0,0.55)" }, { width: 2, color: "white" }] : [{ width: 1.4, color: GREY, dash: "dot" }];
  return (at?.rules ?? []).flatMap((x) => looks.map((look) => line(x, look)));
}

// Paths become faint; what is reached of them is drawn over them in full. Empty lines keep their names in the legend as they were.
function trails(data) {
  const lines = data.filter((trace) => trace.customdata && trace.mode?.startsWith("lines"));
  return lines.map((trace) => {
    const { type, name, legendgroup, line } = trace;
    const axes = ["x", "y", "z"].filter((axis) => trace[axis]);
    data.push({ type, name, legendgroup, line, mode: "lines", ...Object.fromEntries(axes.map((axis) => [axis, [null]])) });
    Object.assign(trace, { opacity: 0.3, showlegend: false });
    return { series: name, group: legendgroup, line, axes, update: numbers(trace.customdata), way: axes.map((axis) => numbers(trace[axis])) };
  });
}

// The coordinates of a path up to the chosen moment, that moment's own place last.
function reached(trail, at) {
  const point = at?.points?.find((one) => one.series === trail.series);
  if (!point?.place) return null;
  let low = 0, high = trail.update.length;
  while (low < high) trail.update[(low + high) >> 1] <= point.update ? (low = ((low + high) >> 1) + 1) : (high = (low + high) >> 1);
  return trail.way.map((numbers, axis) => [...numbers.slice(0, low), point.place[axis]]);
}

// In two dimensions shapes, which cost no new calculation of the picture.
function shapesOf(element, at) {
  if (!element.trails.length || element.trails[0].axes.length > 2) return rules(at, element.heat);
  return element.trails.flatMap((trail) => {
    const way = reached(trail, at);
    if (!way) return [];
    const [x, y] = way, last = x.length - 1;
    const hidden = element.data?.find((trace) => trace.legendgroup === trail.group)?.visible === "legendonly";
    const common = { xref: "x", yref: "y", legendgroup: trail.group, visible: hidden ? "legendonly" : true };
    const path = x.map((number, place) => (place ? "L" : "M") + number + "," + y[place]).join("");
    const ring = { xsizemode: "pixel", ysizemode: "pixel", xanchor: x[last], yanchor: y[last], x0: -8, x1: 8, y0: -8, y1: 8 };
    return [{ ...common, type: "path", path, line: trail.line }, { ...common, ...ring, type: "circle", line: { color: GREY, width: 2.5 } }];
  });
}

// In three, two traces for each path.
function solids(element, at) {
  if (!element.trails.length || element.trails[0].axes.length < 3) return [];
  const marker = { size: 8, symbol: "circle-open", color: GREY, line: { width: 2.5, color: GREY } };
  return element.trails.flatMap((trail) => {
    const [x, y, z] = reached(trail, at) ?? [[null], [null], [null]];
    const same = { type: "scatter3d", name: trail.series, legendgroup: trail.group, hoverinfo: "skip", showlegend: false };
    const end = { x: x.slice(-1), y: y.slice(-1), z: z.slice(-1) };
    return [{ ...same, mode: "lines", line: trail.line, x, y, z }, { ...same, ...end, mode: "markers", marker }];
  });
}

function follow(Plotly, element, at) {
  const text = JSON.stringify(at ?? null);
  if (element.at === text) return;
  element.at = text;
  const moved = solids(element, at);
  if (!moved.length) return Plotly.relayout(element, { shapes: shapesOf(element, at) });
  const change = { x: moved.map((one) => one.x), y: moved.map((one) => one.y), z: moved.map((one) => one.z) };
  return Plotly.restyle(element, change, moved.map((_, number) => element.first + number));
}

// --- drawing

function draw(Plotly, element, data) {
  const figure = JSON.parse(data.figure);
  const layout = inColours(figure.layout, element);
  const at = data.follows ? window.interplayAt?.[data.name] : undefined;
  element.heat = figure.data[0]?.type === "heatmap";
  element.trails = data.follows ? trails(figure.data) : [];
  element.first = figure.data.length;
  element.at = JSON.stringify(at ?? null);
  if (data.follows) layout.shapes = shapesOf(element, at);
  const sharp = { plotGlPixelRatio: Math.min(2, Math.max(1, window.devicePixelRatio)) }; // plotly's own 2 is four times the pixels of an ordinary screen
  Plotly.react(element, [...figure.data, ...solids(element, at)], layout, { ...data.config, ...sharp });
  element.follow = data.follows ? (now) => follow(Plotly, element, now) : undefined;
  element.watched ??= new ResizeObserver(() => element.isConnected && Plotly.Plots.resize(element));
  element.watched.observe(element);
  if (element.listens) return;
  element.listens = true;
  element.on("plotly_click", ({ points: [point] }) => {
    const update = typeof point.customdata === "number" ? point.customdata : null;
    element.tell?.({ series: point.data.name ?? "", x: point.x, update });
  });
}

export default function ({ data, parentElement, setTriggerValue }) {
  const element = parentElement.querySelector(".interplay-canvas");
  element.style.height = data.height + "px";
  element.dataset.chart = data.name;
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", data.alt);
  element.tell = data.clicks ? (point) => setTriggerValue("point", point) : undefined;
  const state = getComputedStyle(parentElement).getPropertyValue("--st-text-color") + data.figure;
  if (element.drawn !== state) {
    element.drawn = state;
    element.next = data; // one turn for each chart, however many figures come before it is its turn
    element.waiting ??= library(data.source)
      .then(inTurn)
      .then(() => element.isConnected && draw(window.Plotly, element, element.next))
      .finally(() => (element.waiting = undefined));
  }
  return () => {
    setTimeout(() => {
      if (element.isConnected) return;
      element.watched?.disconnect();
      window.Plotly?.purge(element);
    });
  };
}
"""
)
#: What takes no place on the page, not even the gap between two elements.
_NOWHERE = ".st-key-canvas-ready { position: absolute; }"
_FOLLOW = """
export default function ({ data }) {
  if (data.said < (window.interplaySaid ?? 0)) return; // another part of the page has said something since
  window.interplaySaid = data.said;
  window.interplayAt = data.at;
  for (const element of document.querySelectorAll(".interplay-canvas")) element.follow?.(data.at[element.dataset.chart]);
}
"""

_BEAT = """
export default function ({ data, parentElement, setTriggerValue }) {
  const element = parentElement.querySelector(".interplay-beat");
  clearTimeout(element.timer);
  element.dataset.number = data.number;
  if (!data.beats) return;
  const app = document.querySelector('[data-testid="stApp"]');
  const tick = () => {
    if (!element.isConnected) return;
    const busy = ["running", "rerunRequested"].includes(app?.dataset.testScriptState);
    if (busy) element.timer = setTimeout(tick, 20); // an answer is still coming in
    else setTriggerValue("beat", data.number);
  };
  element.timer = setTimeout(tick, 1000 * data.seconds);
  return () => setTimeout(() => element.isConnected || clearTimeout(element.timer));
}
"""


@dataclass(frozen=True)
class Picture:
    """A figure as it travels: plotly's JSON, its height in pixels and its text alternative."""

    figure: str
    height: int
    alt: str


def picture(figure: go.Figure, alt: str) -> Picture:
    """Make it once and keep it: writing plotly's JSON costs more than sending it."""
    return Picture(str(figure.to_json()), int(figure.layout.height), alt)


def show(figure: go.Figure, key: str, config: dict[str, Any], alt: str) -> None:
    """The figure under a key that stays its name while its data change."""
    hang(picture(figure, alt), key, config)


def hang(made: Picture, key: str, config: dict[str, Any], *, follows: bool = False, clicked: Callable[[Mapping[str, Any]], None] | None = None) -> None:
    """A picture under its key. `follows`: it shows the moment that `follow` names. `clicked` is called with the point that a viewer chose."""
    data = {
        "figure": made.figure,
        "config": json.loads(json.dumps(config)),
        "height": made.height,
        "alt": made.alt,
        "source": library.ADDRESS,
        "name": key,
        "follows": follows,
        "clicks": clicked is not None,
    }
    mount = st.components.v2.component("interplay_canvas", html=_HTML, js=_JS, isolate_styles=False)
    mount(data=data, key=key, height="content", width="stretch", on_point_change=(lambda: _tell(key, clicked)) if clicked else None)


def ready() -> None:
    """Have the browser load plotly.js while the server is still making what it will draw: with the first chart it would be waited for."""
    mount = st.components.v2.component("interplay_ready", html="<span hidden></span>", css=_NOWHERE, js=_READY, isolate_styles=False)
    mount(data={"source": library.ADDRESS}, key="canvas-ready", height="content", width="content")


def _tell(key: str, clicked: Callable[[Mapping[str, Any]], None]) -> None:
    """What the browser sent, if it has the form of a point; names come as they are drawn, with escaped letters."""
    point = dict(st.session_state.get(key) or {}).get("point")
    if isinstance(point, Mapping):
        clicked({**point, "series": html.unescape(str(point.get("series", "")))})


def follow(at: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """Move the marks of the charts with these keys: `{"rules": [x]}`, or `{"points": [{"series", "update", "place"}]}` (`analysis.moments`).

    Parts of a page that are shown apart say so apart, each under its own key; what was said last holds.
    """
    mount = st.components.v2.component("interplay_moment", html="<span hidden></span>", js=_FOLLOW, isolate_styles=False)
    data = {"at": {name: _as_drawn(mark) for name, mark in at.items()}, "said": time.time()}
    mount(data=data, key=key, height="content", width="content")


def beat(number: int, seconds: float, key: str, then: Callable[[int], None], *, beats: bool) -> None:
    """Calls `then(number)` once, some seconds after this number was shown, if it still `beats` then.

    The browser keeps the time, and asks only when it has taken in the whole answer to what it asked last. A timer of Streamlit's own (`run_every`) asks
    whether or not it has: when a run starts, the server drops what it has not sent yet of the run before, and a page that misses some of its parts fails
    with "Bad delta path index". On a slow machine the replay becomes slower instead.
    """
    mount = st.components.v2.component("interplay_beat", html='<span hidden class="interplay-beat"></span>', js=_BEAT, isolate_styles=False)
    data = {"number": number, "seconds": seconds, "beats": beats}
    mount(data=data, key=key, height="content", width="content", on_beat_change=lambda: _heard(key, then))


def _heard(key: str, then: Callable[[int], None]) -> None:
    number = dict(st.session_state.get(key) or {}).get("beat")
    if isinstance(number, int) and not isinstance(number, bool):
        then(number)


def _as_drawn(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Series under the names by which plotly knows them, with escaped letters."""
    points = [{**point, "series": html.escape(point["series"], quote=False)} for point in mark.get("points", ())]
    return {**mark, "points": points} if points else dict(mark)
