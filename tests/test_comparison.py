"""How methods differ: every number against a loop written here, intervals against simulation, and what is undefined stays so."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import comparison
from analysis.comparison import (
    at_kl,
    bootstrap,
    compare,
    detectable,
    estimate,
    evaluations,
    interquartile_mean,
    last,
    matched,
    paired,
    prompt_changes,
    student,
    time_to,
    typical_time,
    unequal,
    went,
)
from app.commands.comparison import clean, load
from interplay.compare import read

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
GAIN = {"rloo": 0.2, "dpo": 0.05}
PROMPTS, ITERATIONS = 7, 2


def frames(methods: tuple[str, ...] = ("rloo", "dpo"), seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Completions and metrics of runs whose scores rise by the method's gain in each iteration, with noise."""
    random = np.random.default_rng(more.get("seed", 0))
    completions, metrics = [], []
    for method in methods:
        for seed in seeds:
            place = {"run": f"{method}-s{seed}", "method": method, "seed": seed}
            for iteration in range(ITERATIONS + 1):
                for prompt in range(PROMPTS):
                    gold, proxy = 0.1 * prompt + GAIN.get(method, 0.1) * iteration, seed + prompt + 2 * iteration
                    held = {"update": 4 * iteration, "iteration": iteration, "split": "heldout", "prompt_id": f"p{prompt}"}
                    scores = {
                        "gold": gold + 0.05 * random.standard_normal(),
                        "proxy": proxy + 0.3 * random.standard_normal(),
                        "kl": 1.5 * iteration + 0.1 * seed,
                    }
                    completions.append(place | held | scores | {"tokens": 5 + prompt, "finished": prompt % 2 == 0})
                rows = {"alarm": float(seed == 2 and iteration == 2), "gold": 0.0}
                metrics += [place | _metric("heldout", name, value, iteration) for name, value in rows.items()]
            for update in range(1, 9):
                train = {"update": update, "iteration": 1 + (update > 4), "split": "train", "gold": 0.0, "proxy": None, "kl": 0.0, "finished": True}
                completions += [place | train | {"prompt_id": f"t{update % 3}", "tokens": 9 + seed} for _ in range(2)]
                metrics.append(place | _metric("train", "tokens", 20.0 * update, update / 4, update))
    return pd.DataFrame(completions), pd.DataFrame(metrics)


def _metric(split: str, name: str, value: float, when: float, update: int = 0) -> dict[str, Any]:
    return {"iteration": int(when), "role": "policy", "split": split, "name": name, "value": value, "seconds": 100.0 * when, "update": update}


def by_hand(completions: pd.DataFrame, run: str, judge: str) -> dict[str, float]:
    """prompt -> change of score, by a loop over rows."""
    found: dict[tuple[int, str], float] = {}
    for row in completions.to_dict("records"):
        if row["run"] == run and row["split"] == "heldout":
            found[row["iteration"], row["prompt_id"]] = row[judge]
    unit = 1.0 if judge == "gold" else statistics.stdev(found[0, f"p{n}"] for n in range(PROMPTS))
    return {f"p{n}": (found[ITERATIONS, f"p{n}"] - found[0, f"p{n}"]) / unit for n in range(PROMPTS)}


# --- the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["gold", "proxy"])
def test_changes_are_those_of_a_loop(judge: str) -> None:
    completions, metrics = frames()
    found = compare(completions, metrics, ("rloo", "dpo"))
    for row in found.runs:
        assert row[judge] == pytest.approx(statistics.fmean(by_hand(completions, row["run"], judge).values()))
    for row in found.methods:
        over = [statistics.fmean(by_hand(completions, f"{row['method']}-s{seed}", judge).values()) for seed in range(3)]
        assert row[judge]["mean"] == pytest.approx(statistics.fmean(over))
        reach = stats.t.ppf(0.975, 2) * statistics.stdev(over) / math.sqrt(3)
        assert row[judge]["student"] == pytest.approx((statistics.fmean(over) - reach, statistics.fmean(over) + reach))


def test_what_stands_beside_the_scores() -> None:
    found = compare(*frames(), ("rloo", "dpo"))
    row = found.methods[0]
    assert row["kl"] == pytest.approx(3.0 + 0.1)
    assert row["alarm"] == pytest.approx(1 / 3)
    assert row["length"] == pytest.approx(5 + 3)
    assert row["finished"] == pytest.approx(4 / 7)
    assert (row["tokens"], row["seconds"]) == (160.0, 200.0)
    assert math.isnan(row["forwards"])
    assert math.isnan(row["peak_memory"])
    assert {(r["prompts"], r["completions"], r["updates"], r["longest"] - r["seed"]) for r in found.runs} == {(8, 16, 8, 9)}


def test_the_order_is_that_of_the_plan_and_the_first_is_held_against() -> None:
    found = compare(*frames(), ("dpo", "none", "rloo"))
    assert [row["method"] for row in found.methods] == ["dpo", "rloo"]
    assert {(row["method"], row["minus"]) for row in found.differences} == {("rloo", "dpo")}


def test_recorded_forwards_and_memory_are_shown() -> None:
    completions, metrics = frames()
    rows = [{"run": run, "method": run[:-3], "seed": int(run[-1]), **_metric("train", "forwards", 7.0, 1)} for run in metrics["run"].unique()]
    found = compare(completions, pd.concat([metrics, pd.DataFrame(rows), pd.DataFrame(rows).assign(name="peak_memory", value=2.0**30)]), ("rloo", "dpo"))
    assert [(row["forwards"], row["peak_memory"]) for row in found.methods] == [(7.0, 2.0**30)] * 2


# --- differences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["gold", "proxy"])
def test_the_paired_difference_is_method_minus_first(judge: str) -> None:
    completions, metrics = frames()
    (row,) = [r for r in compare(completions, metrics, ("rloo", "dpo")).differences if r["judge"] == judge]
    for seed in range(3):
        ours, theirs = (by_hand(completions, f"{name}-s{seed}", judge) for name in ("dpo", "rloo"))
        assert row["by_seed"][str(seed)] == pytest.approx(statistics.fmean(ours[p] - theirs[p] for p in ours))
    assert row["mean"] == pytest.approx(statistics.fmean(row["by_seed"].values()))
    if judge == "gold":
        assert -0.4 < row["mean"] < -0.2  # 2 x (0.05 - 0.20)


def test_pairs_use_only_common_seeds_and_prompts() -> None:
    completions, _ = frames()
    gone = (completions["run"] == "dpo-s1") | ((completions["run"] == "rloo-s0") & (completions["prompt_id"] == "p3"))
    found = paired(last(prompt_changes(completions[~gone])), "dpo", "rloo", "gold")
    assert list(found.index) == [0, 2]
    ours, theirs = (by_hand(completions, f"{name}-s0", "gold") for name in ("dpo", "rloo"))
    assert found[0] == pytest.approx(statistics.fmean(ours[p] - theirs[p] for p in ours if p != "p3"))
    assert paired(last(prompt_changes(completions)), "ppo", "rloo", "gold").empty


def test_a_difference_too_small_for_the_seeds_is_said() -> None:
    close = compare(*frames(("rloo", "rloo2")), ("rloo", "rloo2"))
    small = [row["warning"] for row in close.differences if abs(row["mean"]) < row["detectable"]]
    assert small
    assert all("it is no ranking" in line and line in close.warnings for line in small)
    far = next(row for row in compare(*frames(), ("rloo", "dpo")).differences if row["judge"] == "gold")
    assert abs(far["mean"]) > far["detectable"]
    assert far["warning"] is None


def test_one_seed_has_no_interval_and_says_so() -> None:
    found = compare(*frames(seeds=(4,)), ("rloo", "dpo"))
    assert math.isnan(found.methods[0]["gold"]["student"][0])
    assert math.isnan(found.differences[0]["detectable"])
    assert "one seed says nothing about others" in found.differences[0]["warning"]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_detectable_difference_is_found_in_four_of_five(count: int) -> None:
    draws = np.random.default_rng(count).normal(detectable(1.5, count), 1.5, (40_000, count))
    t = draws.mean(1) / (draws.std(1, ddof=1) / count**0.5)
    assert (np.abs(t) > stats.t.ppf(0.975, count - 1)).mean() == pytest.approx(0.8, abs=0.01)


# --- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "low", "high"), [(4, 0.74, 0.87), (20, 0.90, 0.97)])
def test_the_bootstrap_covers_as_little_as_is_said_and_student_as_much_as_promised(
    count: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "DRAWS", 1000)
    random = np.random.default_rng(7)
    inside = {"student": 0, "bootstrap": 0}
    for number in range(500):
        values = random.normal(1.0, 2.0, count)
        for name, (least, most) in (("student", student(values)), ("bootstrap", bootstrap(values, seed=number))):
            inside[name] += least <= 1.0 <= most
    assert 0.92 <= inside["student"] / 500 <= 0.98
    assert low <= inside["bootstrap"] / 500 <= high


def test_the_bootstrap_repeats_itself() -> None:
    values = np.random.default_rng(0).normal(size=9)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], 3.0), ([1.0, 2.0, 9.0], 4.0), ([100.0, 1.0, 3.0, -50.0], 2.0), ([0, 1, 2, 3, 4, 5, 6, 70], 3.5), ([0, 1, 2, 3, 80], 2.0)],
)
def test_the_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values, dtype=float)) == expected
    assert interquartile_mean(np.array(values, dtype=float)) == pytest.approx(stats.trim_mean(values, 0.25))


def test_undefined_seeds_are_left_out_and_not_counted() -> None:
    found = estimate([1.0, math.nan, 3.0])
    assert (found["seeds"], found["mean"]) == (2, 2.0)
    assert estimate([math.nan])["seeds"] == 0
    assert math.isnan(estimate([])["mean"])


# --- equal KL, time --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "target", "expected"),
    [
        ([(0, 0), (2, 1.0)], 1.0, 0.5),
        ([(0, 0), (2, 1.0), (6, 2.0)], 3.0, 1.25),
        ([(0, 0), (4, 1.0), (2, 5.0)], 2.0, 0.5),  # the first time it gets there
        ([(0, 0), (4, 1.0)], 4.0, 1.0),
        ([(1.5, 0.25), (1.5, 0.75)], 1.5, 0.75),
        ([(0, 0), (1, 1.0)], 2.0, math.nan),
        ([(0, 0)], 0.5, math.nan),
        ([(0, 0), (math.nan, 1.0)], 0.5, math.nan),
    ],
)
def test_scores_at_equal_kl(curve: list[tuple[float, float]], target: float, expected: float) -> None:
    assert at_kl(curve, target) == pytest.approx(expected, nan_ok=True)


def test_the_target_is_the_smallest_final_kl_and_no_control_sets_it() -> None:
    completions, metrics = frames(("rloo", "dpo", "extrapolate"))
    for method, scale in (("dpo", 0.5), ("extrapolate", 0.01)):
        completions.loc[completions["method"] == method, "kl"] *= scale
    scores = evaluations(completions, metrics)
    target, found = matched(scores, {"rloo", "dpo"})
    assert target == pytest.approx(0.5 * 3.1)
    assert found["dpo"]["gold"] == pytest.approx(last(scores)[last(scores)["method"] == "dpo"]["gold"].mean())
    rloo = scores[scores["method"] == "rloo"].groupby("iteration")[["kl", "gold"]].mean()
    share = (target - rloo["kl"][1]) / (rloo["kl"][2] - rloo["kl"][1])
    share_before = (target - rloo["kl"][0]) / (rloo["kl"][1] - rloo["kl"][0])
    by_line = rloo["gold"][0] + share_before * rloo["gold"][1] if target <= rloo["kl"][1] else rloo["gold"][1] + share * (rloo["gold"][2] - rloo["gold"][1])
    assert found["rloo"]["gold"] == pytest.approx(by_line)
    assert math.isnan(found["extrapolate"]["gold"])  # it never went that far


def test_without_any_distance_nothing_is_matched() -> None:
    completions, metrics = frames()
    assert went(prompt_changes(completions.assign(kl=0.0))) == []
    found = compare(completions.assign(kl=0.0), metrics, ("rloo", "dpo"))
    assert math.isnan(found.matched_kl)
    assert all(math.isnan(value) for row in found.methods for value in row["at_equal_kl"].values())
    (line,) = [line for line in found.warnings if "equal KL" in line]
    assert line.endswith("fewer than two methods ended farther from the reference than they began")


def test_an_arm_that_stayed_or_went_back_sets_no_target() -> None:
    """From a warm start at KL 0.4: one stays but for noise, one goes back to the reference, two go on."""
    completions, metrics = frames(("stays", "back", "near", "far"))
    place = completions["method"].map({"stays": 0.0, "back": -0.2, "near": 0.3, "far": 0.6}) * completions["iteration"].astype(float)
    completions["kl"] = 0.4 + place + 0.05 * np.random.default_rng(1).standard_normal(len(place))
    assert sorted(went(prompt_changes(completions))) == ["far", "near"]
    found = compare(completions, metrics, ("stays", "back", "near", "far"))
    assert found.matched_kl == pytest.approx(0.4 + 2 * 0.3, abs=0.05)
    reached = {row["method"] for row in found.methods if math.isfinite(row["at_equal_kl"]["gold"])}
    assert reached == {"near", "far"}
    assert not [line for line in found.warnings if "equal KL" in line]


@pytest.mark.parametrize("lost", ["far", "near"])
def test_a_distance_that_one_method_went_alone_is_no_target(lost: str) -> None:
    completions, metrics = frames(("near", "far"))
    completions.loc[completions["method"] == lost, "kl"] = 0.0
    found = compare(completions, metrics, ("near", "far"))
    assert math.isnan(found.matched_kl)


@pytest.mark.parametrize(("seeds", "told"), [((0,), "1 seed: a single value has no interval"), ((0, 1), f"2 seeds: {comparison.BOOTSTRAP}")])
def test_one_seed_is_not_seeds(seeds: tuple[int, ...], told: str) -> None:
    assert compare(*frames(seeds=seeds), ("rloo", "dpo")).warnings[0] == told


@pytest.mark.parametrize(
    ("name", "reached"),
    [("comparison", {"extrapolate", "rloo"}), ("comparison-controls", {"extrapolate", "rloo", "zopro:shuffle=true"}), ("comparison-first", set())],
)
def test_equal_kl_of_the_shipped_runs(name: str, reached: set[str]) -> None:
    """What went farther from the reference than the warm start, and the blind walk; in the first comparison that is one method. Tables say the same."""
    plan = read(RECORDINGS / name)
    assert plan
    found = load(plan)
    assert found
    ours = {row["method"]: row["at_equal_kl"] for row in found.numbers.methods}
    assert {method for method, row in ours.items() if math.isfinite(row["gold"])} == reached
    if (table := RECORDINGS / name / "comparison.json").exists():
        shipped = json.loads(table.read_text())
        assert shipped["matched_kl"] == pytest.approx(found.numbers.matched_kl)
        for row in shipped["methods"]:
            assert row["at_equal_kl"] == pytest.approx(clean(ours[row["method"]]))


def test_whether_a_run_went_is_measured_over_its_prompts() -> None:
    """One seed is enough, and the interval is that of a t test of the rises against zero."""
    completions, _ = frames(("rloo",), (0,))
    held = completions[completions["split"] == "heldout"].copy()
    for shift in (0.05, 0.1, 0.2, 0.4):
        held["kl"] = shift * (held["iteration"] == 2) + 0.1 * np.random.default_rng(3).standard_normal(len(held))
        rises = held[held["iteration"] == 2]["kl"].to_numpy() - held[held["iteration"] == 0]["kl"].to_numpy()
        shown = stats.ttest_1samp(rises, 0.0)
        assert (went(prompt_changes(held)) == ["rloo"]) == (shown.pvalue < 0.05 and shown.statistic > 0)


def test_the_time_to_a_score() -> None:
    scores = pd.DataFrame(
        {"run": ["a", "a", "a", "b", "b", "b"], "iteration": [0, 1, 2] * 2, "gold": [0.0, 0.3, 0.1, 0.0, 0.1, 0.2], "seconds": [5.0, 50, 99, 6, 60, 90]}
    )
    assert time_to(scores, "gold", 0.2).to_dict() == {"a": 50.0, "b": 90.0}
    assert math.isnan(time_to(scores, "gold", 0.25)["b"])
    assert time_to(scores, "gold", 0.0).isna().all()  # no gain to reach
    assert typical_time(pd.Series([50.0, 90.0, math.nan])) == 90.0
    assert math.isnan(typical_time(pd.Series([50.0, math.nan])))


# --- budget and gaps -------------------------------------------------------------------------------


def test_an_unequal_realised_budget_is_said_but_not_of_controls() -> None:
    completions, metrics = frames()
    short = completions.drop(completions[(completions["run"] == "dpo-s1") & (completions["split"] == "train")].index[:2])
    found = compare(short, metrics, ("rloo", "dpo"))
    assert "unequal realised budget: completions is 14 in dpo-s1 and 16 in dpo-s0" in found.warnings
    assert "unequal realised budget: prompts is 7 in dpo-s1 and 8 in dpo-s0" in found.warnings
    assert not [line for line in compare(short, metrics, ("rloo", "dpo"), {"dpo"}).warnings if "budget" in line]
    assert unequal(pd.DataFrame(columns=["run", "prompts", "completions", "updates"])) == []


@pytest.mark.parametrize("rows", [slice(None), slice(0)], ids=["no iteration 0", "no rows"])
def test_without_scores_from_before_training_there_is_no_change_and_the_reason_is_given(rows: slice) -> None:
    scores = {"gold": [0.1, 0.2], "proxy": [0.1, 0.3], "kl": [0.0, 1.0], "tokens": [3, 4], "finished": [True, True]}
    place = {"run": ["a", "a"], "method": ["m", "m"], "seed": [0, 0], "split": ["heldout"] * 2, "update": [4, 8], "prompt_id": ["p", "p"]}
    completions = pd.DataFrame({**place, "iteration": [1, 2], **scores})[rows]
    metrics = pd.DataFrame(columns=["run", "role", "split", "iteration", "update", "name", "value", "seconds"])
    changes = comparison.prompt_changes(completions)
    assert changes.empty
    assert {"run", "iteration", "gold", "proxy", "kl"} <= set(changes.columns)
    assert comparison.evaluations(completions, metrics).empty
    with pytest.raises(ValueError, match=r"no run has held-out completions from before training \(iteration 0\)"):
        comparison.compare(completions, metrics, ["m"])


def test_a_run_without_reward_model_has_gold_alone() -> None:
    completions, metrics = frames()
    found = compare(completions.assign(proxy=None), metrics, ("rloo", "dpo"))
    assert found.methods[0]["proxy"]["seeds"] == 0
    assert {row["judge"] for row in found.differences} == {"gold"}
    same = compare(completions.assign(proxy=1.0), metrics, ("rloo", "dpo"))
    assert math.isnan(same.methods[0]["proxy"]["mean"])  # no spread, so no unit
