"""Replay: one run, or two beside each other, update by update, while they train or after they have ended."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.parts import controls, widgets
from app.reading import loading
from app.replay import completions, playing, replaying, scoring
from app.replay.playing import MOMENT, TEXTS
from app.replay.replaying import QUANTITIES, Look
from interplay.store import RunSummary

SECONDS_LIVE = 2.0


@replaying.careful
def show(*runs: RunSummary) -> None:
    """Everything about the runs; called again by itself while one of them lives. A step calls only the first and the last of its parts."""
    looks = replaying.look(runs)
    replaying.heading(looks)
    share = replaying.by_share(looks)
    st.fragment(show_moment, key=MOMENT)(share, *runs)
    st.fragment(show_charts, key="charts")(*runs)
    st.fragment(show_update, key=TEXTS)(*runs)
    playing.settle([look.summary for look in looks])


@replaying.careful
def show_moment(share: bool, *runs: RunSummary) -> None:
    """The slider, and the charts that follow it."""
    looks = replaying.look(runs)
    replaying.moment(looks, share)
    replaying.follow("follow-moment")
    playing.settle([look.summary for look in looks])


@replaying.careful
def show_charts(*runs: RunSummary) -> None:
    looks = replaying.look(runs)
    replaying.take_down()
    show_scores(looks)
    show_layers(looks)
    show_paths(looks)
    replaying.follow("follow-charts")


def show_scores(looks: Sequence[Look]) -> None:
    with widgets.section("Scores"):
        how = {"x": widgets.choice("Horizontal axis", replaying.axes(looks), "x"), **controls.easing()}
    live = replaying.live(looks)
    replaying.row(scoring.charts(looks, how), captioned=True, live=live)
    scoring.another(looks, how)
    widgets.heldout(scoring.table(looks), live=live)


def show_layers(looks: Sequence[Look]) -> None:
    with widgets.section("Which layers move"):
        quantity = widgets.choice("Quantity", list(QUANTITIES), "quantity", QUANTITIES)
        rows = widgets.choice("Rows", ["layer", "kind"], "rows")
        space = widgets.choice(
            "Space",
            replaying.spaces(looks),
            "space",
            help="factor: the tensors as the optimiser sees them; effective: the weight that the forward pass uses",
        )
    roles, live = replaying.roles(looks), replaying.live(looks)
    if not roles:
        widgets.nothing("No optimiser step recorded yet." if live else "No optimiser step was recorded.")
    for made in replaying.heats(looks, roles, quantity, rows, space):
        replaying.row(made, captioned=quantity == "cos_other_update", live=live)


def show_paths(looks: Sequence[Look]) -> None:
    with widgets.section("Paths through weight space"):
        flat = widgets.choice("Dimensions", ["2", "3"], "dims", {"2": "2-D", "3": "3-D"})
        scale = widgets.choice(
            "Scale",
            ["equal", "weights"],
            "scale",
            {"weights": "weight units", "equal": "equal reach"},
            help="equal reach: each path is scaled to reach 1, to compare shapes",
        )
        roles = widgets.several("Roles", replaying.roles(looks), "roles")
    replaying.hang(replaying.paths(looks, roles, flat, scale), "chart-paths", titled=False, live=replaying.live(looks))


@replaying.careful
def show_update(*runs: RunSummary) -> None:
    """The chosen update: its numbers, its checkpoint, its completions."""
    looks = replaying.look(runs)
    with widgets.section("This update"):
        split = widgets.choice("Prompts", list(completions.SPLITS), "split", completions.SPLITS)
        shown = widgets.choice("Texts", *completions.showings(looks))
    replaying.numbers(looks)
    replaying.branches(looks)
    completions.show(looks, split, shown)


def page() -> None:
    runs = loading.summaries()
    with widgets.title("Replay", "Watch a policy and its reward model move together, update by update."):
        first = widgets.pick_run(runs)
        other = replaying.pick_other(runs, first) if first else None
    if first is None:
        if not runs:
            widgets.no_runs()
        return
    if first.state == "unreadable":
        widgets.problems(first.problems or ["this run cannot be read"])
        return
    chosen = [first] if other is None else [first, other]
    playing.watch(chosen)
    st.fragment(show, run_every=playing.pace(chosen, SECONDS_LIVE))(*chosen)


page()
