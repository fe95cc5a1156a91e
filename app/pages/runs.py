"""Runs: everything that was recorded, what state it is in, and how to run it again."""

from __future__ import annotations

import streamlit as st

from app import listing, loading, widgets
from interplay.errors import InterplayError
from interplay.store import RunSummary

SECONDS = 5.0


def show_list() -> None:
    """All runs; looked at again every few seconds."""
    runs = loading.summaries()
    if not runs:
        widgets.no_runs()
        return
    found = loading.search(runs, st.session_state.get("q") or "")
    chosen = listing.run_table(found, [loading.gain(summary) for summary in found])
    if chosen is None:
        listing.hint(f"{len(found)} of {len(runs)} runs. Select one to see its settings, files and command line.")
        return
    show_run(chosen)


def show_run(summary: RunSummary) -> None:
    with widgets.section(summary.run):
        listing.to_replay(summary)
    widgets.run_line(summary, loading.newest(summary))
    widgets.problems(summary.problems)
    if summary.state == "unreadable":
        return
    try:
        listing.run_details(loading.place(summary), loading.describe(summary))
    except InterplayError as error:
        widgets.problems([error])


def page() -> None:
    with widgets.title("Runs", "Each row is one training run, recorded update by update."):
        listing.search_box("q")
    st.fragment(show_list, run_every=SECONDS)()


page()
