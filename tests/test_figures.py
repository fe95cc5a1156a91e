"""Figures say the recorded numbers, in tidy data, without looks; the screen draws them small and safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import beside, figures, pictures, screen, tables
from analysis.spec import Axis, FigureSpec, Mark
from app.reading.loading import Feed
from tests.fabricate import Fabricated


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    path = Fabricated(tmp_path_factory.mktemp("runs") / "one", layers=3, k=16, updates_each=4).whole()
    feed = Feed(path)
    feed.refresh()
    return feed


def _all(feed: Feed) -> list[FigureSpec]:
    metrics, updates = feed.frame("metrics"), feed.frame("updates")
    curves = [make(metrics, run="one") for make in (figures.reward_curve, figures.gold_curve, figures.kl_curve)]
    heats = [
        figures.norm_heatmap(updates, "policy", run="one"),
        *(figures.cosine_heatmap(updates, "reward", run="one", column=name) for name in figures.COSINES),
    ]
    paths = [pictures.trajectories(feed.trajectories(["policy", "reward"]), components=count) for count in (2, 3)]
    return [*curves, *heats, *paths]


def test_any_metric_of_the_policy_is_drawn_for_several_runs_as_it_was_recorded(feed: Feed) -> None:
    metrics = feed.frame("metrics")
    both = pd.concat([metrics.assign(run=run) for run in ("one", "two")])
    spec = figures.run_curves(both, metric="entropy", x="seconds")
    own = metrics[(metrics["role"] == "policy") & (metrics["name"] == "entropy")]
    for _, rows in spec.data.groupby("run"):
        assert sorted(zip(rows["clock"], rows["y"], strict=True)) == sorted(zip(own["clock"], own["value"].astype(np.float32), strict=True))
    assert (spec.title, spec.y.text, spec.runs) == ("entropy", "entropy", ("one", "two"))
    with pytest.raises(ValueError, match="recorded a metric named 'entropi'"):
        figures.run_curves(both, metric="entropi")


def test_every_figure_is_registered_and_says_what_it_rests_on(feed: Feed) -> None:
    assert set(figures.FIGURES) >= {"reward_curve", "gold_curve", "kl_curve", "norm_heatmap", "cosine_heatmap", "trajectories"}
    for spec in _all(feed):
        assert spec.n > 0
        assert spec.runs == ("one",)
        assert spec.x.label
        assert len(spec.caption) > 40
        assert len(spec.alt) > 20


def test_a_layers_norm_is_the_root_of_its_modules_squares(feed: Feed) -> None:
    spec = figures.norm_heatmap(feed.frame("updates"), "policy", run="one")
    rows = [r for r in feed.store.read("updates").to_pylist() if r["role"] == "policy" and r["space"] == "factor" and r["layer"] == 2 and r["update"] == 5]
    cell = spec.data[(spec.data["row"] == "2") & (spec.data["update"] == 5)]["value"].iloc[0]
    assert cell == pytest.approx(sum(r["update_norm"] ** 2 for r in rows) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("column", ["cos_previous", "cos_other_update"])
def test_a_layers_cosine_is_inner_products_over_norms(column: str) -> None:
    """Two modules of one layer, two roles, vectors that are known."""
    random = np.random.default_rng(0)
    vectors = {(role, update): random.standard_normal((2, 5)) for role in ("policy", "reward") for update in (1, 2)}
    rows = [_row(vectors, role, update, module) for update in (1, 2) for role in ("reward", "policy") for module in (0, 1)]
    spec = figures.cosine_heatmap(pd.DataFrame(rows), "policy", run="r", column=column)
    mine = vectors["policy", 2].ravel()
    other = vectors["policy", 1].ravel() if column == "cos_previous" else vectors["reward", 2].ravel()
    expected = mine @ other / np.linalg.norm(mine) / np.linalg.norm(other)
    assert spec.data[spec.data["update"] == 2]["value"].iloc[0] == pytest.approx(expected, rel=1e-5)


def _row(vectors: dict[tuple[str, int], Any], role: str, update: int, module: int) -> dict[str, Any]:
    own = vectors[role, update][module]
    previous = vectors[role, 1][module] if update == 2 else None
    other = vectors["reward", update][module]
    cosine = lambda a, b: None if b is None else float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    clock = 2 * update - (role == "reward")
    return {
        **{"clock": clock, "update": update, "iteration": 1, "role": role, "module": f"m{module}", "layer": 0, "kind": "q_proj", "space": "factor"},
        **{"update_norm": float(np.linalg.norm(own)), "cos_previous": cosine(own, previous), "other_role": "reward", "cos_other_update": cosine(own, other)},
    }


def test_tokens_and_seconds_are_axes_too(feed: Feed) -> None:
    metrics = feed.frame("metrics")
    assert figures.x_axes(metrics) == ["update", "tokens", "seconds"]
    spec = figures.reward_curve(metrics, run="one", x="tokens")
    assert list(spec.data[spec.data["layer"] == "train"]["x"]) == [180.0 * u for u in range(1, 9)]
    assert spec.data[spec.data["layer"] == "heldout"]["x"].iloc[0] == 0


def test_heldout_dots_carry_their_range(feed: Feed) -> None:
    spec = figures.gold_curve(feed.frame("metrics"), run="one")
    dots = spec.data[spec.data["layer"] == "heldout"]
    np.testing.assert_allclose(dots["high"] - dots["y"], 1.96 * 0.02, rtol=1e-4)


def test_paths_say_what_chance_would_explain(feed: Feed) -> None:
    spec = pictures.trajectories(feed.trajectories(["policy", "reward"]))
    assert "random walks with the same update norms" in spec.caption
    assert "% of variance" in spec.x.text
    assert set(spec.data["layer"]) == {"path", "start", "end", "iteration"}


# --- screen --------------------------------------------------------------------------------------


def test_every_figure_travels_as_typed_arrays_and_keeps_zoom(feed: Feed) -> None:
    for spec in _all(feed):
        chart = screen.draw(spec)
        assert chart.layout.uirevision
        raw = chart.to_json()
        assert len(raw) < 2_000_000
        for trace in json.loads(raw)["data"]:
            for letter in ("y", "z") if spec.colour is None else ("z",):
                assert not isinstance(trace.get(letter), list) or len(trace[letter]) < 2


def test_no_upload_and_no_logo() -> None:
    assert screen.CONFIG["showSendToCloud"] is False
    assert screen.CONFIG["plotlyServerURL"] == ""
    assert screen.CONFIG["displaylogo"] is False


def _long(count: int) -> FigureSpec:
    y = np.sin(np.arange(count) / 50).astype(np.float32)
    y[count // 3] = 99.0
    data = pd.DataFrame({"layer": "train", "series": "s", "x": np.arange(count), "y": y, "clock": np.arange(count)})
    return FigureSpec("reward_curve", "t", data, (Mark("line", "train"),), Axis("x", "x"), Axis("y", "y"), "Caption.", "alt", count, ("r",))


def test_thinning_keeps_spikes_and_is_declared() -> None:
    spec = _long(120_000)
    line = screen.draw(spec).data[0]
    assert len(line.x) <= screen.MOST_POINTS
    assert np.max(line.y) == 99.0
    assert (line.x[0], line.x[-1]) == (0, 119_999)
    assert "4,000 of 120,000 points, MinMaxLTTB" in screen.caption(spec)
    assert "points" not in screen.caption(_long(500))


def test_the_largest_run_stays_under_two_megabytes() -> None:
    count, layers = 3000, 40
    data = pd.DataFrame(
        {"update": np.tile(np.arange(count), layers), "row": np.repeat([str(i) for i in range(layers)], count), "layer": "cells", "series": "policy"}
    )
    data["value"], data["clock"] = np.random.default_rng(0).random(len(data)).astype(np.float32), data["update"]
    spec = FigureSpec(
        "norm_heatmap",
        "t",
        data,
        (Mark("heat", "cells"),),
        Axis("update", "u"),
        Axis("row", "layer", scale="category"),
        "C.",
        "a",
        1,
        ("r",),
        colour=Axis("value", "v", scale="log"),
    )
    assert len(screen.draw(spec).to_json()) < 2_000_000
    assert "800 of 3,000 updates" in screen.caption(spec)


@pytest.mark.parametrize("kind", ["nan", "constant", "empty", "zero"])
def test_odd_numbers_are_drawn_or_left_out_but_never_raise(feed: Feed, kind: str) -> None:
    metrics, updates = feed.frame("metrics").copy(), feed.frame("updates").copy()
    number = {"nan": np.nan, "constant": 1.0, "zero": 0.0, "empty": 1.0}[kind]
    metrics["value"], updates["update_norm"], updates["cos_previous"] = number, np.float32(number), np.float32(number)
    if kind == "empty":
        metrics, updates = metrics.iloc[:0], updates.iloc[:0]
    specs = [
        figures.reward_curve(metrics, run="r"),
        figures.norm_heatmap(updates, "policy", run="r"),
        figures.cosine_heatmap(updates, "policy", run="r", column="cos_other_update"),
    ]
    specs.append(figures.cosine_heatmap(updates, "policy", run="r"))
    for spec in specs:
        screen.draw(spec)
        assert screen.caption(spec)
    assert tables.heldout_table(metrics) is not None


def test_names_cannot_bring_tags_into_a_chart() -> None:
    spec = _long(10)
    spec.data["series"] = '<a href="http://evil.example">x</a>'
    assert "<a" not in screen.draw(spec).to_json().encode().decode("unicode_escape")


# --- tables --------------------------------------------------------------------------------------


def test_heldout_table_reads_from_start_to_end(feed: Feed) -> None:
    table = tables.heldout_table(feed.frame("metrics"))
    assert list(table.index) == ["before training", "after iteration 1", "after iteration 2"]
    assert list(table["gold"]) == pytest.approx([0.36, 0.45, 0.54])
    assert tables.ends(feed.frame("metrics"))["gold"].change == pytest.approx(0.18)


def test_completions_are_those_of_the_moment(feed: Feed) -> None:
    frame = feed.frame("completions")
    clocks = sorted(frame["clock"].unique())
    rows = beside.of_split(frame, "train")
    assert set(beside.latest(rows, clocks[2] + 0)["update"]) == {3}
    assert beside.latest(rows, 0).empty


def test_feed_reads_only_what_is_new(tmp_path: Path) -> None:
    live = Fabricated(tmp_path / "live", layers=2, k=16)
    live.step("policy", 1, 2)
    live.store.flush()
    feed = Feed(live.path)
    assert feed.refresh()
    before = feed.tables["updates"].num_rows
    assert not feed.refresh()
    live.step("policy", 1, 1)
    live.store.flush()
    assert feed.refresh()
    assert feed.tables["updates"].num_rows == before * 3 // 2
    assert len(feed.frame("updates")) == feed.tables["updates"].num_rows
