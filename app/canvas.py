"""Draws a plotly figure in place, so that a live chart neither flickers nor loses its zoom.

`st.plotly_chart` (Streamlit 1.67) names a chart after its data: each new point makes a new chart, and
zoom, hidden series and 3-D camera are gone. Here the chart is named after its key and new data go to
`Plotly.react`, which honours `uirevision`. plotly.js is the file that came with the plotly package,
served by this server: no other host is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components import v1

_PLOTLY_FOLDER = Path(plotly.__file__).with_name("package_data")
_HTML = '<div class="interplay-canvas" style="width:100%"></div>'
_JS = """
const library = (source) => (window.interplayPlotly ??= new Promise((done, fail) => {
  if (window.Plotly) return done(window.Plotly);
  const script = document.createElement("script");
  script.src = source;
  script.onload = () => done(window.Plotly);
  script.onerror = () => fail(new Error("plotly.js could not be loaded from " + source));
  document.head.append(script);
}));

function inColours(layout, element) {
  const style = getComputedStyle(element);
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const ground = style.getPropertyValue("--st-background-color").trim() || "white";
  layout.font = { color: text, family: style.fontFamily, size: 12 };
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: ground, font: { color: text } };
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,128,128,0.6)", activecolor: text };
  return layout;
}

export default function ({ data, parentElement }) {
  const element = parentElement.querySelector(".interplay-canvas");
  element.style.height = data.height + "px";
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", data.alt);
  const state = getComputedStyle(parentElement).getPropertyValue("--st-text-color") + data.figure;
  if (element.drawn !== state) {
    element.drawn = state;
    library(data.source).then((Plotly) => {
      if (!element.isConnected || element.drawn !== state) return;
      const figure = JSON.parse(data.figure);
      Plotly.react(element, figure.data, inColours(figure.layout, element), data.config);
      element.watched ??= new ResizeObserver(() => element.isConnected && Plotly.Plots.resize(element));
      element.watched.observe(element);
    });
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


def show(figure: go.Figure, key: str, config: dict[str, Any], alt: str) -> None:
    """The figure under a key that stays its name while its data change."""
    source = v1.declare_component("plotly_js", path=str(_PLOTLY_FOLDER))
    mount = _component()
    data = {
        "figure": figure.to_json(),
        "config": json.loads(json.dumps(config)),
        "height": int(figure.layout.height),
        "alt": alt,
        "source": f"/component/{source.name}/plotly.min.js",
    }
    mount(data=data, key=key, height="content", width="stretch")


def _component() -> Any:
    return st.components.v2.component("interplay_canvas", html=_HTML, js=_JS, isolate_styles=False)
