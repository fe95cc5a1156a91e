"""Forecasts, shared directions and likeness of paths: every drawn number against loops and independent routes, and against planted answers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, spatial, stats

from analysis import evidence, kinship, nulls, paper, recipes, screen
from analysis.evidence import Recording
from analysis.spec import FigureSpec
from analysis.trajectory import Trajectory
from app.reading.recorded import Recorded
from interplay.records import SketchSpec
from tests.planted import MODULES, K, planted

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


def vectors(path: Any) -> Any:
    return np.asarray(path.sketches_UTK, dtype=np.float64).reshape(len(path.updates_U), -1)


def drawn(spec: FigureSpec, layer: str, series: str | None = None) -> pd.DataFrame:
    rows = spec.data[spec.data["layer"] == layer]
    return rows if series is None else rows[rows["series"] == series]


def path_of(rows_UD: Any, role: str = "policy", iterations: Any = None) -> Trajectory:
    """One module whose sketches are the rows."""
    rows = np.asarray(rows_UD, dtype=np.float32)[:, None, :]
    count = len(rows)
    numbers = np.arange(1, count + 1)
    when = np.asarray(iterations if iterations is not None else np.ones(count), dtype=np.int64)
    clocks = 2 * numbers + (role != "policy")
    norms = np.linalg.norm(rows, axis=2)
    return Trajectory("made", role, SketchSpec(k=rows.shape[2]), numbers, clocks, when, ("layers.0.q_proj",), np.zeros(1, dtype=np.int64), norms, rows)


@pytest.fixture(scope="module")
def aligned() -> Recording:
    return planted("aligned", iterations=10)


@pytest.fixture(scope="module")
def persistent() -> Recording:
    return planted("persistent", iterations=10)


def no_updates() -> pd.DataFrame:
    return pd.DataFrame()


# --- extrapolation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "horizon"), [(5, 5), (3, 2)])
def test_a_forecast_is_the_mean_of_the_last_updates_and_judged_on_the_next(persistent: Recording, window: int, horizon: int) -> None:
    spec = kinship.extrapolation([persistent.policy, persistent.reward], persistent.updates, run="p", window=window, horizon=horizon)
    for series, path in (("policy", persistent.policy), ("reward model", persistent.reward)):
        rows, x = drawn(spec, "forecasts", series), vectors(path)
        for place, row in zip(range(window, len(x) - horizon + 1), rows.to_dict("records"), strict=True):
            guess, true = horizon * x[place - window : place].mean(axis=0), x[place : place + horizon].sum(axis=0)
            assert row["x"] == place
            assert row["y"] == pytest.approx(np.linalg.norm(guess - true) / np.linalg.norm(true), rel=1e-4)
            long = np.linalg.norm(guess) / np.linalg.norm(true)
            assert row["random"] == pytest.approx(math.hypot(1, long), rel=1e-4)
    assert f"the next {horizon} are foretold" in spec.caption
    assert set(drawn(spec, "still")["y"]) == {1.0}
    screen.draw(spec)


def test_the_band_holds_random_directions_of_that_length_and_no_straight_path(persistent: Recording) -> None:
    """2,000 random forecasts of the drawn length, in as many dimensions as the chance SD stands for."""
    spec = kinship.extrapolation([persistent.policy], persistent.updates, run="p")
    sd, _ = evidence.typical_chance(replace(persistent, reward=None), persistent.policy)
    random = np.random.default_rng(0)
    row = drawn(spec, "forecasts", "policy").iloc[7]
    long = math.sqrt(row["random"] ** 2 - 1)
    cosines = random.standard_normal((2000, round(sd**-2)))
    cosines = cosines[:, 0] / np.linalg.norm(cosines, axis=1)
    errors = np.sqrt(1 + long**2 - 2 * long * cosines)
    assert ((errors >= row["low"]) & (errors <= row["high"])).mean() == pytest.approx(0.95, abs=0.02)
    assert (drawn(spec, "forecasts")["y"] < drawn(spec, "forecasts")["low"]).all(), "a persistent path is foreseen"


def test_independent_updates_are_foreseen_no_better_than_by_chance() -> None:
    path = path_of(np.random.default_rng(3).standard_normal((300, 64)))
    spec = kinship.extrapolation([path], no_updates(), run="w")
    rows = drawn(spec, "forecasts")
    assert rows["cosine"].mean() == pytest.approx(0, abs=0.05)
    inside = (rows["y"] >= rows["low"]) & (rows["y"] <= rows["high"])
    assert inside.mean() == pytest.approx(0.95, abs=0.07)
    assert "error of the sketches alone and too narrow" in spec.caption


def test_a_straight_path_has_no_error_and_one_that_turns_back_has_two() -> None:
    line = np.outer(np.ones(12), [3.0, 4.0])
    spec = kinship.extrapolation([path_of(line)], no_updates(), run="s")
    assert drawn(spec, "forecasts")["y"].tolist() == pytest.approx([0.0] * 3, abs=1e-3)
    assert "better than staying put in 3 of 3 (1 of them without common updates)" in spec.caption
    back = np.concatenate([line[:5], -line[:5]])
    assert drawn(kinship.extrapolation([path_of(back)], no_updates(), run="b"), "forecasts")["y"].tolist() == pytest.approx([2.0])


def test_forecasts_that_cannot_be_made_say_why(aligned: Recording) -> None:
    short = path_of(np.eye(9))
    with pytest.raises(ValueError, match=r"needs window \+ horizon = 10 known updates .* recorded with directions: policy 9"):
        kinship.extrapolation([short], no_updates(), run="s")
    with pytest.raises(ValueError, match="recorded with directions: none"):
        kinship.extrapolation([], no_updates(), run="s")
    still = path_of(np.zeros((30, 4)))
    with pytest.raises(ValueError, match="known updates"):
        kinship.extrapolation([still], no_updates(), run="s")
    with pytest.raises(ValueError, match="window = 0 and horizon = 5 must be at least 1"):
        kinship.extrapolation([aligned.policy], aligned.updates, run="s", window=0)
    both = kinship.extrapolation([short, aligned.reward], aligned.updates, run="s")
    assert set(both.data["series"]) == {"reward model", "staying put", "reward model: random direction"}


# --- shared directions -------------------------------------------------------------------------------


def test_angles_are_those_between_the_leading_singular_vectors(aligned: Recording) -> None:
    spec = kinship.subspace_overlap(aligned.policy, aligned.reward, aligned.updates, run="a", k=4)
    first, second = (np.linalg.svd(vectors(path), full_matrices=False)[2][:4] for path in (aligned.policy, aligned.reward))
    cosines = np.linalg.svd(first @ second.T, compute_uv=False)
    angles = drawn(spec, "angles")
    assert angles["x"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(angles["y"], np.degrees(np.arccos(cosines)), atol=1e-3)
    assert f"mean squared cosine {(cosines**2).mean():.3g}" in spec.caption
    assert "30 policy updates and 31 of the reward model" in spec.caption
    assert spec.n == 4
    paper.draw(spec)


def test_a_shared_direction_lies_below_the_band_and_independent_roles_within(aligned: Recording) -> None:
    spec = kinship.subspace_overlap(aligned.policy, aligned.reward, aligned.updates, run="a", k=3, by="iteration")
    assert drawn(spec, "angles")["y"].iloc[0] < drawn(spec, "chance")["low"].iloc[0] - 20
    apart = planted("orthogonal", iterations=10)
    spec = kinship.subspace_overlap(apart.policy, apart.reward, apart.updates, run="o", k=3)
    assert (drawn(spec, "angles")["y"].to_numpy() > drawn(spec, "chance")["low"].to_numpy()).all()
    assert "0 of 3 angles lie below the band" in spec.caption


@pytest.mark.parametrize(("first", "second", "dimensions"), [(3, 5, 30), (4, 4, 7), (2, 2, 2), (1, 1, 400)])
def test_random_angles_are_those_of_random_subspaces(first: int, second: int, dimensions: int) -> None:
    random = np.random.default_rng(1)
    drawn_N = [linalg.subspace_angles(random.standard_normal((dimensions, first)), random.standard_normal((dimensions, second))) for _ in range(800)]
    found = nulls.random_angles(first, second, dimensions, draws=4000)
    np.testing.assert_allclose(found.mean(axis=0), np.sort(drawn_N, axis=1).mean(axis=0), atol=0.03)
    np.testing.assert_allclose(found.std(axis=0), np.std(drawn_N, axis=0)[::-1], atol=0.03)
    assert (np.cos(found) ** 2).mean() == pytest.approx(max(first, second) / dimensions, rel=0.05)
    assert (np.diff(found, axis=1) >= -1e-9).all()


def test_random_angles_need_room() -> None:
    for sizes in ((0, 1, 3), (4, 2, 3)):
        with pytest.raises(ValueError, match="do not fit into 3 dimensions"):
            nulls.random_angles(*sizes)


def test_as_many_dimensions_as_the_chance_spread_stands_for(aligned: Recording) -> None:
    spec = kinship.subspace_overlap(aligned.policy, aligned.reward, aligned.updates, run="a")
    sd, _ = evidence.typical_chance(aligned, aligned.policy)
    assert f"random subspaces of {round(sd**-2):,} dimensions" in spec.caption
    assert round(sd**-2) < K * MODULES
    assert "noise of the recorded norms" in spec.caption


def test_directions_that_cannot_be_compared_say_why(aligned: Recording) -> None:
    policy, reward, updates = aligned.policy, aligned.reward, aligned.updates
    assert policy is not None
    with pytest.raises(ValueError, match="directions of the reward model were not recorded"):
        kinship.subspace_overlap(policy, None, updates, run="a")
    with pytest.raises(ValueError, match="directions of the policy were not recorded"):
        kinship.subspace_overlap(None, reward, updates, run="a")
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        kinship.subspace_overlap(policy, reward, updates, run="a", k=0)
    with pytest.raises(ValueError, match="by is 'step'"):
        kinship.subspace_overlap(policy, reward, updates, run="a", by="step")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the policy did not move in any update"):
        kinship.subspace_overlap(replace(policy, sketches_UTK=0 * policy.sketches_UTK), reward, updates, run="a")
    with pytest.raises(ValueError, match="no module in common"):
        kinship.subspace_overlap(policy, replace(reward, modules_T=tuple(f"other.{name}" for name in policy.modules_T)), updates, run="a")


# --- likeness of paths -------------------------------------------------------------------------------


def paired(one: Recording) -> tuple[Any, Any]:
    """The u-th updates of both roles in each iteration, by a loop."""
    places: list[dict[tuple[int, int], int]] = []
    for path in (one.policy, one.reward):
        seen: dict[int, int] = {}
        found = {}
        for place, iteration in enumerate(path.iterations_U):
            seen[int(iteration)] = seen.get(int(iteration), 0) + 1
            found[int(iteration), seen[int(iteration)]] = place
        places.append(found)
    common = sorted(places[0].keys() & places[1].keys())
    return vectors(one.policy)[[places[0][key] for key in common]], vectors(one.reward)[[places[1][key] for key in common]]


def centred(rows: Any) -> Any:
    """Bias-corrected centring of distances, by loops over the definition."""
    n, gaps = len(rows), spatial.distance.cdist(rows, rows)
    sums, total = gaps.sum(axis=0), gaps.sum()
    return np.array([[0 if i == j else gaps[i, j] - (sums[i] + sums[j]) / (n - 2) + total / (n - 1) / (n - 2) for j in range(n)] for i in range(n)])


def by_hand(name: str, x: Any, y: Any) -> float:
    if name.startswith("distance"):
        a, b = centred(x), centred(y)
        return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))
    if name.startswith("1 −"):
        first, second = (np.cumsum(rows, axis=0) for rows in (x, y))
        return 1 - float(spatial.procrustes(first, second)[2])
    return float(stats.pearsonr(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)).statistic)


def test_likeness_and_its_null_are_those_of_shifted_steps(aligned: Recording) -> None:
    spec = kinship.path_kinship(aligned.policy, aligned.reward, run="a")
    x, y = paired(aligned)
    assert spec.n == len(x) == 30
    for name in drawn(spec, "measured")["row"]:
        (value,), (chance,) = (drawn(spec, layer).set_index("row").loc[[name]].to_dict("records") for layer in ("measured", "chance"))
        shifted = [by_hand(name, x, np.roll(y, shift, axis=0)) for shift in range(1, 30)]
        assert value["x"] == pytest.approx(by_hand(name, x, y), abs=1e-5)
        assert chance["x"] == pytest.approx(np.median(shifted), abs=1e-5)
        assert (chance["low"], chance["high"]) == pytest.approx(tuple(np.quantile(shifted, [0.025, 0.975])), abs=1e-5)
        larger = sum(abs(one) >= abs(value["x"]) - 1e-9 for one in shifted)
        assert value["p"] == pytest.approx((1 + larger) / 30)
    assert spec.data["row"].iloc[-1] == "distance correlation", "the first statistic is on top"
    assert "29 times" in spec.caption


def test_paths_that_go_together_stand_out_and_others_do_not() -> None:
    random = np.random.default_rng(8)
    steps = random.standard_normal((40, 12)) * random.uniform(0.5, 2, (40, 1))
    turned = steps @ stats.ortho_group.rvs(12, random_state=2)
    iterations = np.repeat(np.arange(1, 11), 4)
    same = kinship.path_kinship(path_of(steps, "policy", iterations), path_of(turned, "reward", iterations), run="s")
    values = drawn(same, "measured")
    assert values["x"].tolist() == pytest.approx([1.0] * 3, abs=1e-4)
    assert values["p"].tolist() == pytest.approx([1 / 40] * 3)
    other = random.standard_normal((40, 7)) * random.uniform(0.5, 2, (40, 1))
    apart = kinship.path_kinship(path_of(steps, "policy", iterations), path_of(other, "reward", iterations), run="s")
    assert (drawn(apart, "measured")["p"] > 0.05).all()
    chance = drawn(apart, "chance").set_index("row")
    inside = drawn(apart, "measured").set_index("row")["x"]
    assert (inside <= chance["high"]).all()


def test_steps_are_paired_within_iterations_and_unknown_ones_left_out(aligned: Recording) -> None:
    policy = aligned.policy
    assert policy is not None
    norms, sketches = policy.norms_UT.copy(), policy.sketches_UTK.copy()
    norms[4, 2], sketches[4, 2] = np.nan, 0
    spec = kinship.path_kinship(replace(policy, norms_UT=norms, sketches_UTK=sketches), aligned.reward, run="a")
    assert spec.n == 29
    whole = kinship.path_kinship(policy, aligned.reward, run="a", by="iteration")
    assert whole.n == 10
    assert "iteration by iteration" in whole.caption


def test_long_runs_put_neighbours_together(monkeypatch: pytest.MonkeyPatch, aligned: Recording) -> None:
    monkeypatch.setattr(kinship, "MOST_STEPS", 12)
    spec = kinship.path_kinship(aligned.policy, aligned.reward, run="a")
    x, y = (rows.reshape(10, 3, -1).sum(axis=1) for rows in paired(aligned))
    assert spec.n == 10
    assert "3 neighbours put together as one step" in spec.caption
    for row in drawn(spec, "measured").to_dict("records"):
        assert row["x"] == pytest.approx(by_hand(row["row"], x, y), abs=1e-5)


def test_persistent_steps_are_warned_of() -> None:
    random = np.random.default_rng(6)
    walk = np.cumsum(random.standard_normal((30, 5)), axis=0) + 20
    iterations = np.repeat(np.arange(1, 11), 3)
    spec = kinship.path_kinship(path_of(walk, "policy", iterations), path_of(random.standard_normal((30, 5)), "reward", iterations), run="w")
    assert "where distance correlation finds too much" in spec.caption


def test_likeness_that_cannot_be_judged_says_why(aligned: Recording) -> None:
    few = planted("aligned", iterations=2)
    with pytest.raises(ValueError, match="it needs 8 updates of policy and reward model that belong together; 6 were recorded"):
        kinship.path_kinship(few.policy, few.reward, run="f")
    with pytest.raises(ValueError, match="it needs 8 iterations"):
        kinship.path_kinship(few.policy, few.reward, run="f", by="iteration")
    with pytest.raises(ValueError, match="directions of the policy were not recorded"):
        kinship.path_kinship(None, aligned.reward, run="f")
    assert aligned.reward is not None
    with pytest.raises(ValueError, match="the reward model did not move"):
        kinship.path_kinship(aligned.policy, replace(aligned.reward, sketches_UTK=0 * aligned.reward.sketches_UTK), run="f")


# --- shipped recordings, as the command makes them -----------------------------------------------------


def test_names_lead_from_a_run_to_each_figure() -> None:
    ours = {"extrapolation", "subspace_overlap", "path_kinship"}
    assert ours <= set(recipes.names())
    assert not any(recipes.several(name) for name in ours)
    assert set(recipes.settings("extrapolation")) >= {"window", "horizon", "roles"}
    assert set(recipes.settings("subspace_overlap")) >= {"k", "by"}
    assert recipes.settings("path_kinship")["by"].choices == ("iteration", "update")
    for name in ours:
        spec = recipes.make(name, [Recorded(RECORDINGS / "rloo-chat-s0")])
        assert not spec.empty
        assert spec.runs == ("rloo-chat-s0",)
        assert all(axis.label or axis.scale == "category" for axis in (spec.x, spec.y))
        screen.draw(spec)


def test_a_run_without_sketches_says_what_is_missing() -> None:
    run = [Recorded(RECORDINGS / "comparison" / "rloo-s0")]
    for name in ("subspace_overlap", "path_kinship"):
        with pytest.raises(ValueError, match="--sketch 0"):
            recipes.make(name, run)
