"""One metric of several runs in one picture: any that one of them recorded, over any axis that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from analysis import figures
from app.parts import controls, widgets
from app.reading import recorded
from app.runs.listing import MOST_BESIDE
from interplay.errors import InterplayError
from interplay.store import RunSummary

HEIGHT = 360


def show(runs: Sequence[RunSummary], key: str = "") -> None:
    """The curves with their choices; `key` tells those of one table of the page from those of another."""
    drawn = recorded.apart([recorded.at(run.path) for run in runs[:MOST_BESIDE] if run.state != "unreadable"])
    with widgets.section("Curves"), st.container(horizontal=True, vertical_alignment="bottom", width="content"):
        try:
            chosen = _choose([one.frame("metrics") for one in drawn], key)
        except InterplayError as error:
            widgets.problems([error])
            return
    if chosen is None:
        widgets.nothing("None of them has recorded a metric yet.")
        return
    if len(runs) > len(drawn):
        st.caption(f"{len(drawn)} of {len(runs)} runs are drawn: the first {MOST_BESIDE} that can be read.")
    widgets.figure("run_curves", drawn, f"{key}curves", height=HEIGHT, **chosen)


def _choose(frames: Sequence[pd.DataFrame], key: str) -> Mapping[str, Any] | None:
    """Metric, axes and smoothing as settings of the figure; None where there is none to choose."""
    options = figures.recorded_metrics(frames)
    if not options:
        return None
    words = {name: score.title for name, score in figures.SCORES.items()}
    picked = st.selectbox(
        "Metric",
        options,
        key=f"{key}metric",
        bind="query-params",
        width=260,
        format_func=lambda name: words.get(name, name),
        help="what the policies of these runs recorded: thin lines are training batches, dots are held-out prompts",
    )
    how = {"x": widgets.choice("Horizontal axis", axes(frames), f"{key}x"), **controls.easing(key)}
    return {"score": picked, **how} if picked in figures.SCORES else {"metric": str(picked), **how}


def axes(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Horizontal axes that all of those have which recorded anything."""
    known = [figures.x_axes(frame) for frame in frames if not frame.empty]
    return [x for x in figures.X_AXES if all(x in one for one in known)]
