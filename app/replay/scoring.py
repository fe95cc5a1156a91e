"""The scores of Replay: the charts and the table of those that are known, and one chart for any other number that the runs logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from analysis import beside, figures, tables
from app.parts import controls, widgets
from app.replay import replaying
from app.replay.replaying import Chart, Look

#: What a trainer of others surely logs, and is shown first where it logged no score.
USUAL = "loss"


def charts(looks: Sequence[Look], how: Mapping[str, Any]) -> dict[str, Chart | str]:
    """Reward, gold score and KL, by chart; the two runs of a pair share each picture. `how`: axes and smoothing."""
    if len(looks) == 1:
        return {f"chart-{score}_curve": replaying.chart(f"{score}_curve", looks, "metrics", 260, **how) for score in figures.SCORES}
    return {f"chart-{score}_curve": replaying.chart("run_curves", looks, "metrics", 280, score=score, **how) for score in figures.SCORES}


def another(looks: Sequence[Look], how: Mapping[str, Any]) -> None:
    """One chart of whatever else was logged, when it is asked for; of runs without any score, which other trainers may leave, at once."""
    found = list(dict.fromkeys(name for one in looks for name in _names(one)))
    options = [name for name in found if name not in _KNOWN]
    if not options:
        return
    controls.forget("metric", [None, *options])
    first = None if len(options) < len(found) else options.index(USUAL) if USUAL in options else 0
    picked = st.selectbox(
        "Metric", options, index=first, key="metric", bind="query-params", width=260, label_visibility="collapsed", placeholder="Another metric"
    )
    if picked:
        replaying.hang(replaying.chart("run_curves", looks, "metrics", 240, metric=picked, **how), "chart-metric")


_KNOWN = {name for key, score in figures.SCORES.items() for name in (key, *score.train, *score.heldout)}


def _names(one: Look) -> list[str]:
    return cast("list[str]", one.kept("names of metrics", ("metrics",), lambda: figures.recorded_metrics([one.frame("metrics")])))


def table(looks: Sequence[Look]) -> pd.DataFrame:
    """The held-out scores, of two runs moment by moment."""
    versions = tuple(one.stamps["metrics"] for one in looks)
    build = lambda: _table({one.run: one.frame("metrics") for one in looks})  # noqa: E731
    return cast(pd.DataFrame, widgets.memo(f"held-out scores of {[str(one.recorded.path) for one in looks]}", versions, build))


def _table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return beside.heldout(frames) if len(frames) > 1 else tables.heldout_table(next(iter(frames.values())))
