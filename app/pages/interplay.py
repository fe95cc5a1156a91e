"""Interplay: whether policy and reward model move together, layer by layer, against what chance would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.compare import standings
from app.interplay import cards, explorer
from app.interplay.explorer import Choice, View
from app.parts import widgets
from app.reading import loading, reported
from interplay.errors import InterplayError


def show(choice: Choice, seconds: float | None) -> None:
    """Everything about the chosen runs; called again by itself while one of them lives."""
    choice = explorer.again(choice)
    explorer.lines(choice)
    above, below = st.container(), st.container()
    with below:
        view = explorer.pick_view()
    if not view.quick:
        show_verdicts(choice, above)
    with below:
        picked = _figures(view, choice)
    if view.quick:
        show_verdicts(choice, above)
    if picked is not None:
        explorer.settle(choice, picked, seconds)


def _figures(view: View, choice: Choice) -> Mapping[str, Any] | None:
    """The view; what was chosen in it, or None where it cannot be read."""
    try:
        return explorer.show(view, choice.runs)
    except InterplayError as error:
        widgets.problems([error])
        return None


def show_verdicts(choice: Choice, place: DeltaGenerator) -> None:
    with place:
        if explorer.wanted(reported.bytes_of(choice.runs)):
            _weighed(choice)


def _weighed(choice: Choice) -> None:
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
    with widgets.title("Interplay", "Do policy and reward model move together? Layer by layer, against what chance would give."):
        choice = explorer.choose(runs, comparisons) if runs or comparisons else None
        if choice is not None:
            explorer.offer(explorer.siblings(choice, runs))
    if choice is None:
        widgets.no_runs()
        return
    if not choice.runs:
        explorer.none(choice)
        return
    seconds = explorer.pace(choice)
    st.fragment(show, run_every=seconds)(choice, seconds)


page()
