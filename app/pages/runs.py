"""Runs: everything that was recorded, what state it is in, how runs differ, and how to run one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from app.compare import standings
from app.compare.standings import Entry
from app.parts import widgets
from app.queue.job import Job
from app.reading import loading, naming
from app.runs import again, bringing, curves, grouping, labelling, listing, tidying
from app.train import launch
from interplay.errors import InterplayError
from interplay.store import RunSummary

SECONDS = 5.0


def show_list() -> None:
    """All runs and comparisons; looked at again every few seconds."""
    labelling.settle()
    runs, comparisons = loading.summaries(), standings.entries(loading.roots())
    if not runs and not comparisons:
        widgets.no_runs()
    tags = listing.tags(runs, comparisons)
    if runs:
        show_runs(listing.found(runs), runs, tags)
    if comparisons:
        show_comparisons(comparisons, launch.here().list(), tags)


def show_runs(found: Sequence[RunSummary], runs: Sequence[RunSummary], tags: Sequence[str]) -> None:
    """The runs that were searched for, each or by configuration, and what is selected."""
    named = dict(zip([run.path for run in runs], naming.names(runs), strict=True))
    if not found:
        widgets.nothing(f"No run matches the search and the filters. {naming.hint(runs, st.session_state.get('q') or '')}".strip())
    elif st.session_state.get("show") == "configurations":
        show_configurations(found, named, tags)
    else:
        chosen = listing.run_table(found, named)
        listing.hint(f"{len(found)} of {len(runs)} runs. Select one for its settings, files and command line, several for what differs and their curves.")
        show_selected(chosen, named, tags)


def show_configurations(found: Sequence[RunSummary], named: Mapping[Path, str], tags: Sequence[str]) -> None:
    groups = grouping.configurations(found)
    if not groups:
        widgets.nothing("None of these runs can be read; the list of each run says why.")
        return
    picked = listing.configuration_table(groups)
    listing.hint("Means and 95 % intervals are over seeds, of finished runs. Select one configuration for its runs, several for what differs.")
    if len(picked) == 1:
        show_selected(listing.run_table(picked[0].runs, named), named, tags)
    elif picked:
        listing.configurations_beside(picked)


def show_selected(chosen: Sequence[RunSummary], named: Mapping[Path, str], tags: Sequence[str], *, own: bool = True) -> None:
    """One run in full, or several side by side. `tags`: all there are. `own`: they may be deleted one by one."""
    if not chosen:
        return
    names, prefix = [named[run.path] for run in chosen], "" if own else "row-"
    title = names[0] if len(chosen) == 1 else f"{len(chosen)} runs"
    with widgets.section(title), st.container(horizontal=True, vertical_alignment="center", width="content"):
        if len(chosen) == 1:
            listing.to_replay(chosen[0], names[0])
        if len(chosen) == 1 and own and again.early(chosen[0]):
            again.resume_and_watch(chosen[0])
        if len(chosen) > 1:
            labelling.of_several(chosen, tags, prefix)
        if own:
            tidying.delete_button(chosen, names)
    if len(chosen) == 1:
        show_run(chosen[0], tags, prefix)
    else:
        listing.runs_beside(chosen, names)
        curves.show(chosen, prefix)


def show_run(summary: RunSummary, tags: Sequence[str], prefix: str) -> None:
    widgets.run_line(summary, loading.newest(summary))
    widgets.problems(summary.problems)
    if summary.state == "unreadable":
        return
    labelling.of_one(summary, tags, prefix)
    try:
        listing.run_details(loading.place(summary), loading.describe(summary))
    except InterplayError as error:
        widgets.problems([error])


def show_comparisons(comparisons: Sequence[Entry], jobs: Sequence[Job], tags: Sequence[str]) -> None:
    """Each comparison that was searched for as one line; the rows of the opened one."""
    found = listing.found_comparisons(comparisons, jobs)
    with widgets.section("Comparisons"):
        st.empty()
    if not found:
        widgets.nothing("No comparison matches the search and the filters.")
        return
    opened = listing.comparison_table(found, jobs)
    if opened is None:
        listing.hint(f"{len(found)} of {len(comparisons)}. A comparison is many runs under one budget. Select one for its rows.")
        return
    with widgets.section(opened.name), st.container(horizontal=True, vertical_alignment="center", width="content"):
        listing.to_compare(opened)
        tidying.delete_comparison(opened, jobs)
    if rows := grouping.rows(opened):
        named = dict(zip([row.path for row in rows], naming.names(rows), strict=True))
        show_selected(listing.run_table(rows, named, "row", "Rows of the comparison"), named, tags, own=False)


def page() -> None:
    tidying.dialogs()
    with widgets.title("Runs", "Each row is one training run, recorded update by update."):
        listing.search_box("q")
    tidying.undo_line()
    runs, comparisons = loading.summaries(), standings.entries(loading.roots())
    if runs or comparisons:
        listing.filters(runs, comparisons)
    st.fragment(show_list, run_every=SECONDS)()
    bringing.form()
    tidying.contents()


page()
