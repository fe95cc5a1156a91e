"""Replay: one run, update by update, while it trains or after it has ended."""

from __future__ import annotations

import streamlit as st

from analysis import figures, pictures, tables
from analysis.spec import FigureSpec
from app import loading, widgets
from app.loading import Feed
from interplay.errors import InterplayError
from interplay.store import RunSummary

QUANTITIES = {"norm": "update norm", "cos_previous": "persistence", "cos_other_update": "alignment"}
SECONDS_LIVE, SECONDS_PLAY = 2.0, 0.9


def show(summary: RunSummary) -> None:
    """Everything about the run; called again by itself while the run lives or plays."""
    feed = widgets.feed(summary)
    feed.refresh()
    summary = widgets.fresh(summary)
    widgets.run_line(summary, loading.newest(summary))
    widgets.problems([*summary.problems, *feed.problems])
    updates = tables.policy_updates(feed.frame("updates"), feed.frame("metrics"))
    cursor = widgets.update_row(updates, loading.live(summary))
    show_scores(feed, summary.run, cursor)
    show_layers(feed, summary.run, cursor)
    show_paths(feed, cursor)
    show_texts(feed, cursor)
    widgets.settle(summary)


def show_scores(feed: Feed, run: str, cursor: int | None) -> None:
    metrics = feed.frame("metrics")
    axes = figures.x_axes(metrics)
    with widgets.section("Scores"):
        x = widgets.choice("Horizontal axis", axes, "x")
    made = widgets.memo(
        "curves",
        (run, x, feed.versions.get("metrics")),
        lambda: [make(metrics, run=run, x=x) for make in (figures.reward_curve, figures.gold_curve, figures.kl_curve)],
    )
    for place, spec in zip(st.columns(len(made), gap="medium"), made, strict=True):
        with place:
            widgets.chart(spec, f"chart-{spec.name}", cursor=cursor)
    widgets.heldout(tables.heldout_table(metrics))


def show_layers(feed: Feed, run: str, cursor: int | None) -> None:
    with widgets.section("Which layers move"):
        quantity = widgets.choice("Quantity", list(QUANTITIES), "quantity", QUANTITIES)
        rows = widgets.choice("Rows", ["layer", "kind"], "rows")
        space = widgets.choice(
            "Space",
            feed.spaces() or ["factor"],
            "space",
            help="factor: the tensors as the optimiser sees them; effective: the weight that the forward pass uses",
        )
    roles = feed.roles()
    if not roles:
        widgets.nothing("No optimiser step recorded yet.")
        return
    key = (run, quantity, rows, space, feed.versions.get("updates"))
    made = widgets.memo("layers", key, lambda: [heat(feed, role, run, quantity, rows, space) for role in roles])
    for place, (role, spec) in zip(st.columns(len(roles), gap="medium"), zip(roles, made, strict=True), strict=True):
        with place:
            widgets.chart(spec, f"chart-heat-{role}", cursor=cursor, height=280, own_caption=False)
    widgets.caption(made[0])


def heat(feed: Feed, role: str, run: str, quantity: str, rows: str, space: str) -> FigureSpec:
    updates = feed.frame("updates")
    if quantity == "norm":
        return figures.norm_heatmap(updates, role, run=run, space=space, rows=rows)
    return figures.cosine_heatmap(updates, role, run=run, column=quantity, space=space, rows=rows)


def show_paths(feed: Feed, cursor: int | None) -> None:
    with widgets.section("Paths through weight space"):
        flat = widgets.choice("Dimensions", ["2", "3"], "dims", {"2": "2-D", "3": "3-D"})
        scale = widgets.choice(
            "Scale",
            ["equal", "weights"],
            "scale",
            {"weights": "weight units", "equal": "equal reach"},
            help="equal reach: each path is scaled to reach 1, to compare shapes",
        )
        roles = widgets.several("Roles", feed.roles(), "roles")
    try:
        key = (str(feed.path), flat, scale, tuple(roles), feed.versions.get("directions"))
        spec = widgets.memo("paths", key, lambda: pictures.trajectories(feed.trajectories(roles), components=int(flat), same_length=scale == "equal"))
    except ValueError as reason:
        widgets.nothing(f"No paths: {reason}.")
        return
    widgets.chart(spec, "chart-paths", cursor=cursor, height=440, titled=False)


def show_texts(feed: Feed, cursor: int | None) -> None:
    with widgets.section("Completions"):
        split = widgets.choice("Prompts", ["train", "heldout"], "split", {"train": "training batch", "heldout": "held-out"})
    widgets.completions(tables.completions_at(feed.frame("completions"), cursor or 0, split))


def page() -> None:
    runs = loading.summaries()
    with widgets.title("Replay", "Watch a policy and its reward model move together, update by update."):
        summary = widgets.pick_run(runs)
    if summary is None:
        widgets.no_runs()
        return
    if summary.state == "unreadable":
        widgets.problems(summary.problems or ["this run cannot be read"])
        return
    try:
        st.fragment(show, run_every=widgets.pace(summary, SECONDS_LIVE, SECONDS_PLAY))(summary)
    except InterplayError as error:
        widgets.problems([error])


page()
