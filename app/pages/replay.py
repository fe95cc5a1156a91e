"""Replay: one run, or two beside each other, update by update, while they train or after they have ended."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import completions, loading, playing, replaying, widgets
from app.replaying import QUANTITIES, Look, Wall
from interplay.errors import InterplayError
from interplay.store import RunSummary

SECONDS_LIVE, SECONDS_PLAY = 2.0, 0.3


def show(*summaries: RunSummary) -> None:
    """Everything about the runs; called again by itself while one of them lives or plays."""
    try:
        looks = [replaying.look(summary) for summary in summaries]
        replaying.heading(looks)
        wall = Wall(replaying.moment(looks))
        show_scores(looks, wall)
        show_layers(looks, wall)
        show_paths(looks, wall)
        show_update(looks, wall)
        wall.follow()
        playing.settle(*(look.summary for look in looks))
    except InterplayError as error:
        widgets.problems([error])


def show_scores(looks: Sequence[Look], wall: Wall) -> None:
    shared = [x for x in looks[0].axes() if all(x in look.axes() for look in looks)]
    with widgets.section("Scores"):
        x = widgets.choice("Horizontal axis", shared, "x")
    made = replaying.curves(looks, x)
    for place, (key, chart) in zip(st.columns(len(made), gap="medium"), made.items(), strict=True):
        with place:
            wall.hang(chart, key)
    widgets.heldout(replaying.heldout(looks))


def show_layers(looks: Sequence[Look], wall: Wall) -> None:
    with widgets.section("Which layers move"):
        quantity = widgets.choice("Quantity", list(QUANTITIES), "quantity", QUANTITIES)
        rows = widgets.choice("Rows", ["layer", "kind"], "rows")
        space = widgets.choice(
            "Space",
            replaying.spaces(looks),
            "space",
            help="factor: the tensors as the optimiser sees them; effective: the weight that the forward pass uses",
        )
    roles = replaying.roles(looks)
    if not roles:
        widgets.nothing("No optimiser step recorded yet.")
    for made in replaying.heats(looks, roles, quantity, rows, space):
        wall.row(made)


def show_paths(looks: Sequence[Look], wall: Wall) -> None:
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
    chart = replaying.chart("trajectories", looks, "directions", 440, components=int(flat), same_length=scale == "equal", roles=tuple(roles))
    wall.hang(chart, "chart-paths", titled=False)


def show_update(looks: Sequence[Look], wall: Wall) -> None:
    """The chosen update: its numbers, its checkpoint, its completions."""
    with widgets.section("This update"):
        split = widgets.choice("Prompts", list(completions.SPLITS), "split", completions.SPLITS)
        shown = widgets.choice("Texts", *completions.showings(looks))
    if wall.clocks:
        replaying.numbers(looks, wall.clocks)
        replaying.branches(looks, wall.clocks)
    completions.show(looks, wall.clocks, split, shown == "differences")


def page() -> None:
    runs = loading.summaries()
    with widgets.title("Replay", "Watch a policy and its reward model move together, update by update."):
        summary = widgets.pick_run(runs)
        other = replaying.pick_other(runs, summary) if summary else None
    if summary is None:
        widgets.no_runs()
        return
    if summary.state == "unreadable":
        widgets.problems(summary.problems or ["this run cannot be read"])
        return
    shown = [summary] if other is None else [summary, other]
    playing.watch(shown)
    st.fragment(show, run_every=playing.pace(shown[0], SECONDS_LIVE, SECONDS_PLAY, *shown[1:]))(*shown)


page()
