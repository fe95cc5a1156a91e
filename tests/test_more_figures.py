"""Costs, gains and scores: every drawn number against scipy or a loop written here, on made-up frames and on the shipped recordings."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import costs, figures, gains, scores, screen
from analysis.comparison import Comparison, compare
from analysis.spec import FigureSpec
from interplay.store import RunStore

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
METHODS = ("zopro", "zopro_adaptive", "mezo", "extrapolate", "rloo")
Frames = tuple[pd.DataFrame, pd.DataFrame]


# --- frames with known numbers ---------------------------------------------------------------------


def made(gold: dict[str, list[list[float]]], *, cost: int = 10, proxy: bool = True, forwards: bool = True) -> Frames:
    """run -> one list of gold scores of three prompts per evaluation; runs are named method-seed. Two updates lie between evaluations."""
    completions, metrics = [], []
    for number, (run, evaluations) in enumerate(gold.items()):
        method, _, seed = run.rpartition("-s")
        place = {"run": run, "method": method, "seed": int(seed)}
        for iteration, values in enumerate(evaluations):
            where = {"update": 2 * iteration, "clock": 3 * iteration, "iteration": iteration, "split": "heldout"}
            for prompt, value in enumerate(values):
                more = {"kl": 0.5 * iteration + 0.1 * prompt, "tokens": 9, "finished": True}
                completions.append(
                    place | where | {"prompt_id": f"p{prompt}", "gold": value, "proxy": 3 * value + prompt if proxy else None, "reward": None} | more
                )
            alarm = float(iteration == 2 and run.startswith("b"))
            metrics.append(place | where | {"role": "policy", "name": "alarm", "value": alarm, "seconds": 100.0 * iteration + number})
        for update in range(1, 2 * len(evaluations) - 1):
            where = {"update": update, "clock": update + (update - 1) // 2, "iteration": (update + 1) // 2, "split": "train", "role": "policy"}
            totals = {"forwards": cost * update} if forwards else {}
            metrics += [place | where | {"name": name, "value": float(value), "seconds": 1.0} for name, value in (totals | {"tokens": 7 * update}).items()]
    return pd.DataFrame(completions), pd.DataFrame(metrics)


GOLD = {
    "a-s0": [[0.0, 0.1, 0.2], [0.1, 0.3, 0.2], [0.4, 0.4, 0.4]],
    "a-s1": [[0.0, 0.2, 0.1], [0.2, 0.2, 0.1], [0.3, 0.3, 0.3]],
    "b-s0": [[0.0, 0.1, 0.2], [0.0, 0.0, 0.0], [0.9, 0.9, 0.9]],
    "b-s1": [[0.0, 0.2, 0.1], [0.1, 0.1, 0.1], [0.8, 0.8, 0.8]],
}


def train(columns: dict[str, list[float]], role: str = "policy") -> pd.DataFrame:
    """One metric per column, one value per update."""
    rows = [
        {"clock": u, "update": u, "iteration": 1, "role": role, "split": "train", "name": name, "value": value, "seconds": float(u)}
        for name, values in columns.items()
        for u, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows)


def interval(values: Any) -> tuple[float, float]:
    """scipy's own 95 % interval of a mean."""
    found = stats.ttest_1samp(np.asarray(values, float), 0.0).confidence_interval(0.95)
    return float(found.low), float(found.high)


def drawn(spec: FigureSpec, layer: str, series: str) -> pd.DataFrame:
    return spec.data[(spec.data["layer"] == layer) & (spec.data["series"] == series)]


# --- the shipped recordings ------------------------------------------------------------------------


def read(name: str) -> Frames:
    store = RunStore.open(RECORDINGS / name)
    return store.read("completions").to_pandas(), store.read("metrics").to_pandas()


@pytest.fixture(scope="module")
def recorded() -> Frames:
    """The shipped comparison as `interplay compare` puts it together, with the clock left in to check by another route."""
    rows = [row for row in json.loads((RECORDINGS / "comparison-first" / "plan.json").read_text())["rows"] if row["name"] != "warm"]
    frames = [
        [frame.assign(run=row["name"], method=row["method"], seed=row["seed"]) for frame in read(f"comparison-first/{row['name']}")]
        for row in rows
        if (RECORDINGS / "comparison-first" / row["name"]).is_dir()
    ]
    return tuple(pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def compared(recorded: Frames) -> Comparison:
    return compare(*recorded, METHODS, {"extrapolate"})


# --- change over cost ------------------------------------------------------------------------------


def test_a_method_curve_is_the_mean_over_seeds_with_students_band() -> None:
    spec = costs.method_curves(*made(GOLD), ("b", "a"), {"b"}, judge="gold")
    assert list(dict.fromkeys(spec.data["series"])) == ["b (control)", "a"]
    changes = [[0.0, 0.0], [0.1, 1 / 15], [0.3, 0.2]]
    line = drawn(spec, "mean", "a")
    np.testing.assert_allclose(line["x"], [0, 20, 40])
    np.testing.assert_allclose(line["y"], [statistics.fmean(values) for values in changes], atol=1e-12)
    np.testing.assert_allclose(line[["low", "high"]].iloc[1:], [interval(values) for values in changes[1:]])
    assert line[["low", "high"]].iloc[0].tolist() == [0.0, 0.0]  # all seeds start at no change
    assert (spec.n, spec.runs) == (4, ("a-s0", "a-s1", "b-s0", "b-s1"))
    assert "a +0.25 [-0.39, +0.89] at 40 passes (2 seeds)" in spec.caption
    assert "b (control) +0.75" in spec.alt
    screen.draw(spec)


def test_proxy_changes_are_in_standard_deviations_before_training() -> None:
    completions, metrics = made(GOLD)
    spec = costs.method_curves(completions, metrics, ("a",), judge="proxy")
    wanted = []
    for run in ("a-s0", "a-s1"):
        own = completions[completions["run"] == run]
        before, after = (own[own["iteration"] == number]["proxy"].tolist() for number in (0, 2))
        wanted.append((statistics.fmean(after) - statistics.fmean(before)) / statistics.stdev(before))
    assert spec.data["y"].iloc[-1] == pytest.approx(statistics.fmean(wanted))
    assert spec.y.unit == "SD before training"


@pytest.mark.parametrize(("x", "wanted"), [("forwards", [0, 20, 40]), ("tokens", [0, 14, 28]), ("seconds", [0.5, 100.5, 200.5])])
def test_cost_is_what_was_spent_by_the_evaluation(x: Any, wanted: list[float]) -> None:
    completions, metrics = made(GOLD)
    spec = costs.method_curves(completions.drop(columns="clock"), metrics.drop(columns="clock"), ("a",), x=x, judge="gold")
    np.testing.assert_allclose(spec.data["x"], wanted)


def test_only_evaluations_that_every_seed_has_are_drawn() -> None:
    gold = GOLD | {"a-s1": GOLD["a-s1"][:2]}
    spec = costs.method_curves(*made(gold), ("a", "b"), judge="gold")
    assert drawn(spec, "mean", "a")["iteration"].tolist() == [0, 1]
    assert drawn(spec, "mean", "b")["iteration"].tolist() == [0, 1, 2]
    assert "1 of 11 evaluations are left out" in spec.caption


def test_one_seed_has_a_line_and_no_band() -> None:
    spec = costs.method_curves(*made({"a-s0": GOLD["a-s0"]}), ("a",), judge="gold")
    assert spec.data["y"].tolist() == pytest.approx([0.0, 0.1, 0.3])
    assert spec.data[["low", "high"]].isna().all(axis=None)
    assert "a +0.30 at 40 passes (1 seed)" in spec.caption
    screen.draw(spec)


def test_methods_without_a_record_of_the_cost_are_named() -> None:
    counted, uncounted = made({"a-s0": GOLD["a-s0"]}), made({"b-s0": GOLD["b-s0"]}, forwards=False)
    frames = [pd.concat(pair, ignore_index=True) for pair in zip(counted, uncounted, strict=True)]
    spec = costs.method_curves(*frames, ("a", "b", "none"), judge="gold")
    assert set(spec.data["series"]) == {"a"}
    assert "Not drawn: b, none (no gold or no forwards recorded)" in spec.caption


def test_the_shipped_comparison_is_drawn_as_its_table_says(recorded: Frames, compared: Comparison) -> None:
    spec = costs.method_curves(*recorded, METHODS, {"extrapolate"})
    last = spec.data.groupby("series", sort=False).tail(1).set_index("series")
    assert list(last.index) == [row["method"] + (" (control)" if row["control"] else "") for row in compared.methods]
    for row in compared.methods:
        found = last.loc[row["method"] + (" (control)" if row["control"] else "")]
        assert (found["y"], found["low"], found["high"]) == pytest.approx((row["proxy"]["mean"], *row["proxy"]["student"]))
        assert found["x"] == row["forwards"]
    assert spec.n == 15


def test_updates_find_the_totals_that_clocks_find(recorded: Frames) -> None:
    """By hand: the largest recorded total that is not younger than the evaluation."""
    completions, metrics = recorded
    spec = costs.method_curves(*recorded, ("rloo",), x="tokens")
    spent = []
    for run in ("rloo-s0", "rloo-s1", "rloo-s2"):
        clock = completions[(completions["run"] == run) & (completions["split"] == "heldout")]["clock"].max()
        spent.append(max(r["value"] for r in metrics[metrics["run"] == run].to_dict("records") if r["name"] == "tokens" and r["clock"] <= clock))
    assert spec.data["x"].iloc[-1] == pytest.approx(statistics.fmean(spent))


# --- memory ----------------------------------------------------------------------------------------


def test_memory_stands_against_the_change_of_score(compared: Comparison) -> None:
    spec = costs.memory_reward(compared.runs, compared.methods)
    dots, means = spec.data[spec.data["layer"] == "runs"], spec.data[spec.data["layer"] == "mean"]
    assert {row["run"]: (row["proxy"], row["peak_memory"] / 1024**3) for row in compared.runs} == {
        row["label"]: (row["x"], row["y"]) for row in dots.to_dict("records")
    }
    for row in compared.methods:
        found = means[means["series"].str.split().str[0] == row["method"]].iloc[0]
        ours = [run for run in compared.runs if run["method"] == row["method"]]
        assert (found["low"], found["high"]) == pytest.approx(interval([run["proxy"] for run in ours]))
        assert found["y"] * 1024**3 == pytest.approx(statistics.fmean(run["peak_memory"] for run in ours))
    assert set(dots["series"]) == set(means["series"])  # a dot looks like its method
    assert "Least memory first: mezo 1.74 GiB" in spec.caption
    assert "extrapolate (control)" in set(means["series"])
    screen.draw(spec)


def test_memory_that_is_not_recorded_is_not_drawn(compared: Comparison) -> None:
    runs = [run | ({"peak_memory": None} if run["method"] == "mezo" else {}) for run in compared.runs]
    methods = [row | ({"peak_memory": math.nan} if row["method"] == "mezo" else {}) for row in compared.methods]
    spec = costs.memory_reward(runs, methods, judge="gold")
    assert spec.n == 12
    assert "Not drawn: mezo (no gold or no peak_memory recorded)" in spec.caption


# --- gains of directions ---------------------------------------------------------------------------


MEASURED, PREDICTED = [3.0, -1.0, 4.0, 6.0], [2.0, 2.5, 3.0, 2.5]


def test_gains_are_drawn_by_update_and_their_means_told() -> None:
    metrics = train(
        {"zo/gain_measured": MEASURED, "zo/gain_predicted": PREDICTED, "zo/rho": [0.1, 0.2, 0.3, 0.4], "zo/gradient_agreement": [0.4, -0.01, 0.2, 0.3]}
    )
    spec = gains.gains(metrics, run="z")
    assert drawn(spec, "updates", "measured")["y"].tolist() == MEASURED
    assert drawn(spec, "updates", "predicted")["y"].tolist() == PREDICTED
    assert drawn(spec, "level", "isotropic direction")[["x", "y"]].to_numpy().tolist() == [[1, 1], [4, 1]]
    low, high = interval(np.subtract(MEASURED, PREDICTED))
    assert f"measured minus predicted 0.5 [{low:.3g}, {high:.3g}]" in spec.caption
    assert "ρ 0.25 [" in spec.caption
    assert "1 of 4 measured gains are below 0" in spec.caption
    assert "nearest to 0 -0.01" in spec.caption
    assert (spec.n, spec.runs) == (4, ("z",))
    screen.draw(spec)


def test_cosines_have_a_figure_of_their_own_scale() -> None:
    spec = gains.gains(train({"zo/rho": [0.1, 0.2], "zo/cos_gradient": [0.3, math.nan]}), run="z", show="rho")
    assert drawn(spec, "updates", "previous update p and gradient")["y"].tolist() == [0.1, 0.2]
    assert drawn(spec, "updates", "direction z and gradient")["y"].tolist() == [0.3]
    assert drawn(spec, "level", "isotropic direction")["y"].tolist() == [0.0, 0.0]
    assert "Not recorded: zo/gain_measured, zo/gain_predicted." in spec.caption


def test_gains_of_another_role_or_split_or_of_no_number_are_not_drawn() -> None:
    columns = {"zo/gain_measured": [1.0, 2.0], "zo/gain_predicted": [1.0, 2.0]}
    assert gains.gains(train(columns, role="reward"), run="z").empty
    assert gains.gains(train(columns).assign(split="heldout"), run="z").empty
    spec = gains.gains(train({name: [math.nan, math.inf] for name in columns}), run="z")
    assert spec.empty
    assert "Not recorded: zo/gain_measured, zo/gain_predicted" in spec.caption
    one = gains.gains(train({name: values[:1] for name, values in columns.items()}), run="z")
    assert "measured gain 1, predicted 1," in one.caption  # one update has no interval


def test_shares_are_means_over_updates_with_students_whiskers() -> None:
    shares = {"zo/share_previous": [0.02, -0.01, 0.05], "zo/share_rows": [0.4, 1.2, 0.5], "zo/share_recent": [0.1, math.nan, 0.3]}
    spec = gains.energy_shares(train(shares | {"zo/gradient_agreement": [0.1, 0.2, 0.3]}), run="z")
    means = spec.data[spec.data["layer"] == "mean"].set_index("subspace")
    for name, word in (("zo/share_previous", "previous update"), ("zo/share_rows", "its rows"), ("zo/share_recent", "last four updates")):
        known = [value for value in shares[name] if not math.isnan(value)]
        assert means.loc[word, "x"] == pytest.approx(statistics.fmean(known))
        assert (means.loc[word, "low"], means.loc[word, "high"]) == pytest.approx(interval(known))
        assert sorted(spec.data[(spec.data["layer"] == "updates") & (spec.data["subspace"] == word)]["x"]) == sorted(known)
    assert list(means.index) == ["last four updates", "its rows", "previous update"]  # filled from below
    assert "2 of 8 single values lie outside 0 to 1" in spec.caption
    assert "Single batches therefore fall outside 0 to 1" in spec.caption
    assert "Not recorded: zo/share_layers, zo/share_tensors." in spec.caption
    assert spec.n == 3
    screen.draw(spec)


# --- pairs -----------------------------------------------------------------------------------------


def pairs(chosen: list[float], rejected: list[float]) -> FigureSpec:
    margins = [a - b for a, b in zip(chosen, rejected, strict=True)]
    return scores.pair_logprobs(train({"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": margins}), run="d")


def test_both_answers_falling_under_a_growing_margin_is_said() -> None:
    steps = np.arange(16)
    spec = pairs(list(0.25 - 0.1 * steps), list(0.25 - 0.2 * steps))
    assert drawn(spec, "train", "margin")["y"].tolist() == pytest.approx(list(0.1 * steps))
    both = spec.data[spec.data["layer"] == "both"]
    assert both["x"].tolist() == list(range(4, 17))
    assert "in 13 of 16 updates, first at update 4" in spec.caption
    last = 0.25 - 0.1 * steps[-4:]
    assert f"chosen {last.mean():+.2f} [{interval(last)[0]:+.2f}, {interval(last)[1]:+.2f}]" in spec.caption
    assert spec.caption.endswith(": both answers fall while the margin grows.")
    screen.draw(spec)


@pytest.mark.parametrize(
    ("chosen", "rejected", "verdict"),
    [
        ([0.1] * 8, [-0.1] * 8, "they do not both fall while the margin grows."),
        ([-0.1] * 8, [-0.05] * 8, "they do not both fall while the margin grows."),
        ([-0.3, 0.2] * 4, [-0.4, 0.1] * 4, "no further than batches scatter."),
        ([-0.3], [-0.4], "no further than batches scatter."),
    ],
)
def test_what_is_no_displacement_is_not_called_one(chosen: list[float], rejected: list[float], verdict: str) -> None:
    assert pairs(chosen, rejected).caption.endswith(verdict)


def test_pairs_that_lack_a_part_are_drawn_as_far_as_they_go() -> None:
    spec = scores.pair_logprobs(train({"rewards/chosen": [0.1, 0.2], "rewards/rejected": [0.0, -0.1]}), run="d")
    assert drawn(spec, "train", "margin")["y"].tolist() == pytest.approx([0.1, 0.3])  # it is their difference
    alone = scores.pair_logprobs(train({"rewards/chosen": [0.1, 0.2]}), run="d")
    assert set(alone.data["series"]) == {"chosen"}
    assert "one of the two answers is not recorded" in alone.caption


def test_pairs_of_the_shipped_recording_are_those_that_were_written() -> None:
    _, metrics = read("dpo-chat-s0")
    spec = scores.pair_logprobs(metrics, run="dpo-chat-s0")
    rows = [row for row in metrics.to_dict("records") if row["role"] == "policy" and row["split"] == "train"]
    named = {name: [row["value"] for row in rows if row["name"] == f"rewards/{name}"] for name in ("chosen", "rejected", "margins")}
    for series, values in zip(("chosen", "rejected", "margin"), named.values(), strict=True):
        assert drawn(spec, "train", series)["y"].tolist() == values
    count = sum(a < 0 and b < 0 and c > 0 for a, b, c in zip(*named.values(), strict=True))
    assert 0 < count < 40
    assert f"in {count} of 40 updates" in spec.caption


# --- reward against KL -----------------------------------------------------------------------------


def test_a_runs_frontier_has_the_prompts_interval() -> None:
    completions, metrics = made(GOLD)
    spec = scores.frontier(completions, metrics, judge="gold")
    assert list(dict.fromkeys(spec.data["series"])) == ["a-s0", "a-s1", "b-s0", "b-s1", "alarm: degenerate text"]
    path = drawn(spec, "path", "a-s0")
    np.testing.assert_allclose(path["x"], [0.1, 0.6, 1.1])
    for iteration in (1, 2):
        found = stats.ttest_rel(GOLD["a-s0"][iteration], GOLD["a-s0"][0]).confidence_interval(0.95)
        row = path[path["iteration"] == iteration].iloc[0]
        assert (row["low"], row["high"]) == pytest.approx((found.low, found.high))
        assert row["y"] == pytest.approx((found.low + found.high) / 2)
    assert (spec.n, len(spec.runs)) == (12, 4)
    screen.draw(spec)


def test_a_methods_frontier_has_the_seeds_interval() -> None:
    spec = scores.frontier(*made(GOLD), judge="gold", by="method", controls={"b"})
    row = drawn(spec, "path", "a").iloc[-1]
    assert (row["low"], row["high"], row["count"]) == pytest.approx((*interval([0.3, 0.2]), 2))
    assert "b (control)" in set(spec.data["series"])
    assert {"a-s0", "b-s0 (control)"} <= set(scores.frontier(*made(GOLD), controls={"b"}).data["series"])
    assert "interval of the mean over seeds" in spec.caption
    assert len(spec.runs) == 4


def test_degenerate_texts_are_marked() -> None:
    spec = scores.frontier(*made(GOLD), judge="gold")
    alarmed = spec.data[spec.data["layer"] == "alarm"]
    assert alarmed["iteration"].tolist() == [2, 2]
    assert alarmed["y"].tolist() == pytest.approx([0.8, 0.7])
    assert "rang at 2 of 12 points" in spec.caption


def test_a_path_that_turns_back_has_an_unfolded_band() -> None:
    completions, metrics = made({"a-s0": GOLD["a-s0"]})
    completions["kl"] = completions["iteration"].map({0: 0.0, 1: 2.0, 2: 1.0})
    spec = scores.frontier(completions, metrics, judge="gold")
    assert spec.data[spec.data["layer"] == "path"]["x"].tolist() == [0.0, 2.0, 1.0]
    assert spec.data[spec.data["layer"] == "range"]["x"].tolist() == [0.0, 1.0, 2.0]


def test_a_single_run_needs_no_columns_for_others() -> None:
    completions, metrics = read("rloo-chat-s0")
    spec = scores.frontier(completions, metrics, run="rloo-chat-s0")
    assert spec.runs == ("rloo-chat-s0",)
    held = metrics[metrics["split"] == "heldout"]
    np.testing.assert_allclose(drawn(spec, "path", "rloo-chat-s0")["x"], held[held["name"] == "kl"]["value"], atol=1e-5)
    texts = completions[completions["split"] == "heldout"].set_index(["iteration", "prompt_id"])["proxy"].astype(float)
    before, after = texts.loc[0], texts.loc[texts.index.get_level_values("iteration").max()]
    gains = [(after[prompt] - before[prompt]) / before.std() for prompt in before.index]
    low, high = interval(gains)
    assert f"rloo-chat-s0 {np.mean(gains):+.2f} [{low:+.2f}, {high:+.2f}]" in spec.caption


# --- gold and proxy --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo-chat-s0", "ppo-chat-s0", "rloo-chat-s0"])
def test_the_gap_is_the_recorded_one_and_its_parts_make_it_up(name: str) -> None:
    completions, metrics = read(name)
    spec = scores.gold_proxy_gap(metrics, run=name, completions=completions)
    gap = drawn(spec, "gap", "gap")
    held = metrics[(metrics["split"] == "heldout") & (metrics["name"] == "gold_proxy_gap")]
    assert gap["y"].tolist() == held["value"].tolist()
    np.testing.assert_allclose(drawn(spec, "gains", "proxy gain")["y"].to_numpy() - drawn(spec, "gains", "gold gain")["y"].to_numpy(), gap["y"], atol=1e-5)
    by_prompt = {n: part.set_index("prompt_id") for n, part in completions[completions["split"] == "heldout"].groupby("iteration")}
    parts = [(by_prompt[2][judge] - by_prompt[0][judge]) / statistics.stdev(by_prompt[0][judge].astype(float)) for judge in ("proxy", "gold")]
    assert (gap["low"].iloc[-1], gap["high"].iloc[-1]) == pytest.approx(interval(parts[0] - parts[1]), abs=1e-5)
    assert f"Last {gap['y'].iloc[-1]:+.2f} [" in spec.caption
    screen.draw(spec)


def test_a_run_from_another_start_has_no_interval_of_its_own() -> None:
    completions, metrics = read("comparison-first/zopro-s0")
    spec = scores.gold_proxy_gap(metrics, run="zopro-s0", completions=completions)
    assert spec.data["y"].tolist() == pytest.approx([0.2685, 0.2868], abs=1e-4)
    assert spec.data[["low", "high"]].isna().all(axis=None)
    assert "that one's baseline" in spec.caption
    assert scores.gold_proxy_gap(metrics, run="zopro-s0").data["y"].tolist() == spec.data["y"].tolist()


# --- what is not there -----------------------------------------------------------------------------


def every(completions: pd.DataFrame, metrics: pd.DataFrame) -> Iterator[FigureSpec]:
    for x in costs.X_AXES:
        yield costs.method_curves(completions, metrics, ("a", "b"), x=x)  # type: ignore[arg-type]
    yield costs.memory_reward([], [])
    yield from (gains.gains(metrics, run="r", show=show) for show in ("gain", "rho"))  # type: ignore[arg-type]
    yield gains.energy_shares(metrics, run="r")
    yield scores.pair_logprobs(metrics, run="r")
    yield from (scores.frontier(completions, metrics, by=by) for by in ("run", "method"))  # type: ignore[arg-type]
    yield from (scores.gold_proxy_gap(metrics, run="r", completions=frame) for frame in (None, completions))


@pytest.mark.parametrize("case", ["nothing", "columns", "no proxy", "no number", "no start", "one evaluation"])
def test_what_is_not_recorded_is_said_and_nothing_raises(case: str) -> None:
    completions, metrics = made(GOLD, proxy=case != "no proxy")
    if case in ("nothing", "columns"):
        keep = slice(0) if case == "columns" else None
        completions, metrics = (frame.iloc[keep] if keep else pd.DataFrame() for frame in (completions, metrics))
    if case == "no number":
        completions[["gold", "proxy", "kl"]], metrics["value"] = np.nan, None
    if case == "no start":
        completions = completions[completions["iteration"] > 0]
    if case == "one evaluation":
        completions, metrics = (frame[frame["iteration"] == 0] for frame in (completions, metrics))
    for spec in every(completions, metrics):
        starts = case == "one evaluation" and spec.name in ("method_curves", "frontier")
        seconds = costs.X_AXES["seconds"] == spec.x
        assert spec.empty is (not starts or (spec.name == "method_curves" and not seconds))
        assert spec.empty is any(words in spec.caption for words in ("Not recorded: ", "Nothing to draw yet."))
        assert len(spec.alt) > 30
        assert {"layer", "series", spec.x.column, spec.y.column} <= set(spec.data.columns)
        screen.draw(spec)


def test_a_constant_proxy_has_no_scale() -> None:
    completions, metrics = made(GOLD)
    assert costs.method_curves(completions.assign(proxy=1.0), metrics, ("a", "b")).empty
    assert scores.frontier(completions.assign(proxy=1.0), metrics).empty


def test_unknown_words_are_named_with_what_is_allowed(recorded: Frames) -> None:
    with pytest.raises(ValueError, match="judge is 'taste'; it can be proxy, gold"):
        costs.method_curves(*recorded, METHODS, judge="taste")
    with pytest.raises(ValueError, match="x is 'joules'; it can be forwards, tokens, seconds"):
        costs.method_curves(*recorded, METHODS, x="joules")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="judge is 'taste'"):
        costs.memory_reward([], [], judge="taste")
    with pytest.raises(ValueError, match="by is 'seed'; it can be run, method"):
        scores.frontier(*recorded, by="seed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="show is 'all'; it can be gain, rho"):
        gains.gains(recorded[1], run="r", show="all")  # type: ignore[arg-type]


def test_every_figure_is_registered_and_says_when_it_misleads(recorded: Frames) -> None:
    assert set(figures.FIGURES) >= {"method_curves", "memory_reward", "gains", "energy_shares", "pair_logprobs", "frontier", "gold_proxy_gap"}
    for note in (*costs.NOTES.values(), *scores.NOTES.values(), *gains.NOTES.values()):
        assert len(note) > 200


def test_frames_are_left_as_they_were(recorded: Frames) -> None:
    before = [frame.copy() for frame in recorded]
    for _ in every(*recorded):
        pass
    for frame, copy in zip(recorded, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)
