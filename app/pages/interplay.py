"""Interplay: whether policy and reward model move together, layer by layer, against what chance would give."""

from __future__ import annotations

import streamlit as st

from app import cards, explorer, loading, reported, standings, widgets
from app.explorer import Choice
from interplay.errors import InterplayError


def show(choice: Choice, seconds: float | None) -> None:
    """Everything about the chosen runs; called again by itself while one of them lives."""
    choice = explorer.again(choice)
    explorer.lines(choice)
    try:
        show_verdicts(choice)
        view = explorer.pick_view()
        picked = explorer.show(view, choice.runs)
    except InterplayError as error:
        widgets.problems([error])
        return
    explorer.settle(choice, picked, seconds)


def show_verdicts(choice: Choice) -> None:
    if not explorer.wanted(reported.bytes_of(choice.runs)):
        return
    try:
        with st.spinner("Weighing the evidence"):
            told = reported.tell(choice.runs)
    except InterplayError as error:
        widgets.problems([error])
        return
    cards.show(told)
    cards.forecasts(told.worths)


def page() -> None:
    runs, comparisons = loading.summaries(), standings.entries(loading.roots())
    if not runs and not comparisons:
        widgets.no_runs()
        return
    with widgets.title("Interplay", "Do policy and reward model move together? Layer by layer, against what chance would give."):
        choice = explorer.choose(runs, comparisons)
        explorer.offer(explorer.siblings(choice, runs))
    if not choice.runs:
        explorer.none(choice)
        return
    seconds = explorer.pace(choice)
    st.fragment(show, run_every=seconds)(choice, seconds)


page()
