"""Two roles with a planted relation, against definitions in loops and against scipy. Vectors are recorded by `path_of` and `frame_of`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import coupling, figures, geometry, shapes
from analysis.trajectory import Trajectory
from interplay.records import SketchSpec
from tests.test_analysis_geometry import MODULES, PARTS, cos, frame_of, path_of, random_vectors

#: Iteration 0 trains the reward model; then policy (three updates) and reward model (two) take turns.
REWARD_CLOCKS, REWARD_ITERATIONS = [1, 2, 6, 7, 11, 12], [0, 0, 1, 1, 2, 2]
POLICY_CLOCKS, POLICY_ITERATIONS = [3, 4, 5, 8, 9, 10], [1, 1, 1, 2, 2, 2]


def policy_of(vectors: Any, **other: Any) -> Trajectory:
    return path_of(vectors, "policy", **({"iterations": POLICY_ITERATIONS, "clocks": POLICY_CLOCKS} | other))


def reward_of(vectors: Any, **other: Any) -> Trajectory:
    return path_of(vectors, "reward", **({"iterations": REWARD_ITERATIONS, "clocks": REWARD_CLOCKS} | other))


@pytest.fixture
def policy() -> Trajectory:
    return policy_of(random_vectors(6, seed=1))


@pytest.fixture
def reward() -> Trajectory:
    return reward_of(random_vectors(6, seed=2))


def sketched(x_NUT: list[Any], k: int, random: np.random.Generator) -> list[Any]:
    """Blocked signed sums (interplay/sketch.py): element e falls into sum (e mod P) mod k, with the same signs for all."""
    n = x_NUT[0].shape[-1]
    period = next(p for p in range(4 * k + 1, 9 * k) if all(p % d for d in range(2, int(p**0.5) + 1)))
    place, signs = (np.arange(n) % period) % k, random.choice([-1.0, 1.0], (x_NUT[0].shape[-2], n))
    return [(x * signs) @ np.eye(k)[place] for x in x_NUT]


def planted(size: int, cosine: float, random: np.random.Generator) -> tuple[Any, Any]:
    """Two vectors of length 1 with this cosine."""
    x, y = random.standard_normal((2, size))
    x /= np.linalg.norm(x)
    y -= (y @ x) * x
    return x, cosine * x + np.sqrt(1 - cosine**2) * y / np.linalg.norm(y)


# --- steps and lags ----------------------------------------------------------------------------------


def test_a_step_is_the_sum_of_an_iteration(policy: Trajectory) -> None:
    steps = coupling.steps(policy)
    np.testing.assert_allclose(steps.sketches_UTK[1], policy.sketches_UTK[3:].sum(axis=0), rtol=1e-5, atol=1e-5)
    assert (steps.iterations_U.tolist(), steps.clocks_U.tolist()) == ([1, 2], [5, 10])
    assert coupling.steps(policy, "update") is policy


def test_lags_count_from_the_policy_step_on(policy: Trajectory, reward: Trajectory) -> None:
    steps = coupling.pairs(policy, reward)
    assert coupling.lags(*steps).tolist() == [[-1, 0, 1], [-2, -1, 0]]
    by_update = coupling.lags(policy, reward, "update")
    for t, now in enumerate(POLICY_CLOCKS):
        after = [s for s, clock in enumerate(REWARD_CLOCKS) if clock > now]
        assert by_update[t].tolist() == [s - after[0] for s in range(6)]
    assert [places.tolist() for places in coupling.matched(*steps, lag=-1)] == [[0, 1], [0, 1]]
    assert [places.tolist() for places in coupling.matched(*steps, lag=0)] == [[0, 1], [1, 2]]
    x, y = coupling.matched_deltas(*steps, lag=0)
    np.testing.assert_array_equal(y[0], steps[1].sketches_UTK[1].ravel())
    assert x.shape == (2, 4 * 12)


@pytest.mark.parametrize("by", ["iteration", "update"])
def test_steps_at_a_lag_are_those_of_the_table_of_lags_and_of_cosines(policy: Trajectory, reward: Trajectory, by: Any) -> None:
    lost = replace(policy, sketches_UTK=policy.sketches_UTK * np.array([1, 1, 0, 1, 1, 1])[:, None, None].astype(np.float32))
    table, cosines = coupling.lags(lost, reward, by), coupling.cosine_matrix(lost, reward).values
    for lag, found in coupling.lag_cosines(lost, reward, by, range(-3, 4)).items():
        np.testing.assert_array_equal(coupling.matched(lost, reward, by, lag), np.nonzero(table == lag))
        np.testing.assert_allclose(found, cosines[table == lag], atol=1e-12)


def test_an_unknown_kind_of_step_is_refused(policy: Trajectory, reward: Trajectory) -> None:
    for refused in (lambda: coupling.steps(policy, "epoch"), lambda: coupling.lags(policy, reward, "epoch")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="by = 'epoch' is not known; choose iteration or update"):
            refused()


# --- exact cosines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", list(PARTS))
def test_exact_cosines_are_those_of_the_vectors(policy: Trajectory, reward: Trajectory, rows: Any) -> None:
    frame = frame_of(policy, reward)
    found = coupling.other_cosines(frame, "policy", rows=rows).set_index(["row", "update"])
    whole = coupling.other_iteration_cosines(frame, reward, "policy", rows=rows).set_index(["row", "update"])
    for name, parts in PARTS[rows].items():
        mine, theirs = (path.sketches_UTK[:, parts].reshape(6, -1).astype(float) for path in (policy, reward))
        for u, clock in enumerate(POLICY_CLOCKS):
            latest = [s for s, when in enumerate(REWARD_CLOCKS) if when < clock][-1]
            assert found["cosine"][name, u + 1] == pytest.approx(cos(mine[u], theirs[latest]), abs=1e-6)
            square = [np.sum(reward.sketches_UTK[latest, t].astype(float) ** 2) for t in parts]
            limit = np.sqrt(sum((0.5 + 0.1 * t) ** 2 * s for t, s in zip(parts, square, strict=True)) / sum(square))
            assert found["attainable"][name, u + 1] == pytest.approx(limit, rel=1e-5)
            delta = theirs[:2].sum(axis=0) if clock < 8 else theirs[2:4].sum(axis=0)
            assert whole["cosine"][name, u + 1] == pytest.approx(cos(mine[u], delta), abs=1e-6)
            assert whole["attainable"][name, u + 1] == pytest.approx(0.9)


def test_exact_cosines_are_what_the_heat_map_draws(policy: Trajectory, reward: Trajectory) -> None:
    frame = frame_of(policy, reward)
    for role in ("policy", "reward"):
        drawn = figures.cosine_heatmap(frame, role, run="run", column="cos_other_update").data.set_index(["row", "update"])["value"]
        found = coupling.other_cosines(frame, role).dropna(subset="cosine").set_index(["row", "update"])["cosine"]
        np.testing.assert_allclose(found.reindex(drawn.index), drawn, rtol=1e-5)
        assert len(found) == len(drawn)


@pytest.mark.parametrize("rows", ["whole", "layer"])
def test_cosines_of_whole_iterations_from_recorded_inner_products(policy: Trajectory, reward: Trajectory, rows: Any) -> None:
    frame = frame_of(policy, reward)
    after = coupling.iteration_cosines(frame, reward, policy, rows).set_index(["row", "iteration"])
    before = coupling.iteration_cosines(frame, policy, reward, rows).set_index(["row", "iteration"])
    for name, parts in PARTS[rows].items():
        mine = {i: policy.sketches_UTK[np.array(POLICY_ITERATIONS) == i][:, parts].sum(axis=0) for i in (1, 2)}
        theirs = {i: reward.sketches_UTK[np.array(REWARD_ITERATIONS) == i][:, parts].sum(axis=0) for i in (0, 1, 2)}
        for i in (1, 2):
            assert after["cosine"][name, i] == pytest.approx(cos(theirs[i], mine[i]), abs=1e-5)
            assert before["cosine"][name, i] == pytest.approx(cos(mine[i], theirs[i - 1]), abs=1e-5)
    assert after["other_iteration"].tolist() == [i for i in (1, 2) for _ in PARTS[rows]]
    assert before["other_iteration"].tolist() == [i for i in (0, 1) for _ in PARTS[rows]]


def test_recorded_inner_products_know_an_iteration_better_than_sketches() -> None:
    """The exact cosine is 0.03; a sketch of 64 sums cannot see it, the inner products can."""
    random = np.random.default_rng(5)
    x, y = planted(20_000, 0.03, random)
    halves = np.stack([x / 3, 2 * x / 3])[:, None], np.stack([y / 2, y / 2])[:, None]
    times = {"iterations": [1, 1], "modules_T": ("a",), "layers_T": np.zeros(1, int)}
    exact = path_of(halves[0], clocks=[1, 2], **times), path_of(halves[1], "reward", clocks=[3, 4], **times)
    frame, seen, by_sketch = frame_of(*exact), [], []
    for _ in range(40):
        small = sketched(list(halves), 64, random)
        mine, theirs = path_of(small[0], clocks=[1, 2], **times), path_of(small[1], "reward", clocks=[3, 4], **times)
        seen.append(coupling.iteration_cosines(frame, theirs, mine)["cosine"].item())
        by_sketch.append(coupling.cosine_matrix(*coupling.pairs(mine, theirs)).values.item())
    assert np.mean(seen) == pytest.approx(0.03, rel=0.05)
    assert np.std(seen) < 0.005
    assert np.std(by_sketch) > 0.08


def test_an_unknown_update_makes_its_module_unknown_for_the_iteration(policy: Trajectory, reward: Trajectory) -> None:
    frame = frame_of(policy, reward)
    lost = (frame["role"] == "reward") & (frame["update"] == 4) & (frame["module"] == MODULES[2])
    frame.loc[lost, "cos_other_iteration"] = np.nan
    found = coupling.iteration_cosines(frame, reward, policy, "module").set_index(["row", "iteration"])["cosine"]
    assert found.isna().sum() == 1
    assert np.isnan(found[MODULES[2], 1])
    layer = coupling.iteration_cosines(frame, reward, policy, "layer").set_index(["row", "iteration"])["cosine"]
    assert layer["0", 1] == pytest.approx(found[MODULES[1], 1])


def test_an_update_of_zero_adds_nothing_to_its_iteration(policy: Trajectory) -> None:
    vectors = random_vectors(6, seed=2)
    vectors[3, 2] = 0
    reward = reward_of(vectors)
    found = coupling.iteration_cosines(frame_of(policy, reward), reward, policy, "module").set_index(["row", "iteration"])["cosine"]
    assert found[MODULES[2], 1] == pytest.approx(cos(vectors[2, 2], policy.sketches_UTK[:3, 2].sum(axis=0)), abs=1e-5)


def test_chance_spreads_are_put_together_as_variances(policy: Trajectory, reward: Trajectory) -> None:
    assert coupling.other_cosines(frame_of(policy, reward), "policy")["null"].isna().all()
    frame = frame_of(policy, reward).assign(null_other_update=0.1)
    frame.loc[frame["module"] == MODULES[3], "null_other_update"] = 0.4
    lost = (frame["role"] == "policy") & (frame["update"] == 2) & (frame["module"] == MODULES[1])
    frame.loc[lost, "update_norm"] = np.nan
    found = coupling.other_cosines(frame, "policy", rows="whole").set_index("update")["null"]
    for update, parts in ((1, [0, 1, 2, 3]), (2, [0, 2, 3])):
        own, other = policy.norms_UT[update - 1, parts].astype(float), reward.norms_UT[1, parts].astype(float)
        sd = np.where(np.array(parts) == 3, 0.4, 0.1)
        assert found[update] == pytest.approx(np.linalg.norm(sd * own * other) / (np.linalg.norm(own) * np.linalg.norm(other)), rel=1e-6)


def test_what_is_attainable_is_put_together_from_what_is_known(policy: Trajectory, reward: Trajectory) -> None:
    frame = frame_of(policy, reward)
    frame.loc[frame["module"] == MODULES[1], "attainable_other_update"] = np.nan
    found = coupling.other_cosines(frame, "policy").set_index(["row", "update"])["attainable"]
    assert found["0", 2] == pytest.approx(0.7)
    kinds = coupling.other_cosines(frame, "policy", rows="kind").set_index(["row", "update"])["attainable"]
    assert np.isnan(kinds["up_proj", 2])


def test_one_role_alone_has_no_cosines(policy: Trajectory) -> None:
    frame = frame_of(policy)
    found = coupling.other_cosines(frame, "policy")
    assert len(found) == 6 * 3
    assert found[["cosine", "attainable"]].isna().all().all()
    assert coupling.other_cosines(frame, "reward").empty
    nobody = reward_of(np.zeros((0, 4, 12)), iterations=[], clocks=[])
    assert coupling.iteration_cosines(frame, policy, nobody).empty
    assert coupling.other_iteration_cosines(frame, nobody, "policy")["cosine"].isna().all()
    assert coupling.cosine_matrix(policy, nobody).values.shape == (6, 0)
    table = coupling.cross_lag(np.zeros((6, 0)), coupling.lags(policy, nobody))
    assert table["count"].sum() == 0
    assert table["mean"].isna().all()
    assert coupling.direction(table).peak is None
    assert np.isnan(coupling.direction(table).index)


# --- sketched cosines --------------------------------------------------------------------------------


def test_identical_updates_have_cosine_one_without_error(policy: Trajectory) -> None:
    twin = reward_of(policy.sketches_UTK * 3)
    found = coupling.cosine_matrix(policy, twin)
    np.testing.assert_allclose(np.diag(found.values), 1)
    np.testing.assert_allclose(np.diag(found.errors), 0, atol=1e-6)
    np.testing.assert_allclose(np.diag(coupling.cosine_matrix(policy, reward_of(-policy.sketches_UTK)).values), -1)


@pytest.mark.parametrize("rows", list(PARTS))
def test_paired_cosines_are_those_of_the_vectors(policy: Trajectory, reward: Trajectory, rows: Any) -> None:
    steps = coupling.pairs(policy, reward)
    found = coupling.paired_cosines(*steps, lag=-1, rows=rows).set_index(["row", "iteration"])
    assert len(found) == 2 * len(PARTS[rows])
    for name, parts in PARTS[rows].items():
        for i in (1, 2):
            mine, theirs = steps[0].sketches_UTK[i - 1, parts], steps[1].sketches_UTK[i - 1, parts]
            assert found["cosine"][name, i] == pytest.approx(cos(mine, theirs), abs=1e-6)
            assert found["other_iteration"][name, i] == i - 1
    matrix = coupling.cosine_matrix(*steps)
    if rows == "whole":
        np.testing.assert_allclose(found["cosine"], [matrix.values[0, 0], matrix.values[1, 1]], atol=1e-9)
        np.testing.assert_allclose(found["standard_error"], [matrix.errors[0, 0], matrix.errors[1, 1]], atol=1e-9)


@pytest.mark.parametrize("cosine", [0.0, 0.6])
def test_the_standard_error_is_the_spread_over_sketches(cosine: float) -> None:
    """Modules of length 1 and 3: the whole has fewer effective sums than both together."""
    random, sizes = np.random.default_rng(7), np.array([1.0, 3.0])[:, None]
    x, y = (np.stack(vectors) * sizes for vectors in zip(planted(4000, cosine, random), planted(4000, cosine, random), strict=True))
    found, errors = [], []
    for _ in range(400):
        small = [path[None] for path in sketched([x, y], 64, random)]
        times = {"iterations": [1], "clocks": [1]}
        row = coupling.paired_cosines(policy_of(small[0], **times), reward_of(small[1], **times))
        found.append(row["cosine"].item())
        errors.append(row["standard_error"].item())
    assert np.mean(found) == pytest.approx(cosine, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.12)
    assert np.mean(errors) == pytest.approx((1 - cosine**2) * np.sqrt((1 + 81) / 64) / 10, rel=0.1)


def test_recorded_errors_are_put_beside_their_steps(policy: Trajectory, reward: Trajectory) -> None:
    rows = [
        {"clock": clock, "iteration": i, "role": path.role, "module": module, "standard_error": 0.01 * (clock + 1) * (t + 1)}
        for path in (policy, reward)
        for clock, i in zip(path.clocks_U, path.iterations_U, strict=True)
        for t, module in enumerate(MODULES)
        if not (module == MODULES[3] and i == 2)
    ]
    directions = pd.DataFrame(rows).sample(frac=1, random_state=0)
    updates = coupling.sketch_errors(directions, policy, "update")
    np.testing.assert_allclose(updates[1], 0.01 * 5 * np.arange(1, 5))
    steps = coupling.steps(policy)
    found = coupling.sketch_errors(directions, steps)
    np.testing.assert_allclose(found[0], 0.01 * np.sqrt((4**2 + 5**2 + 6**2) / 3) * np.arange(1, 5))
    assert np.isnan(found[1]).tolist() == [False, False, False, True]
    errors = (updates, coupling.sketch_errors(directions, reward, "update"))
    matrix = coupling.cosine_matrix(policy, reward, errors)
    own, other = (np.linalg.norm(path.sketches_UTK[0].astype(float), axis=1) for path in (policy, reward))
    spread = np.sqrt(sum(errors[0][0, m] * errors[1][0, m] * (own[m] * other[m]) ** 2 for m in range(4))) / np.sqrt((own**2).sum() * (other**2).sum())
    assert matrix.errors[0, 0] == pytest.approx(spread * (1 - matrix.values[0, 0] ** 2), rel=1e-5)
    with pytest.raises(ValueError, match="take both from `pairs`"):
        coupling.cosine_matrix(*coupling.pairs(policy, reward), errors)


def test_updates_of_zero_have_no_cosine(policy: Trajectory) -> None:
    vectors = random_vectors(6, seed=2)
    vectors[2] = 0
    found = coupling.cosine_matrix(policy, reward_of(vectors))
    assert np.isnan(found.values[:, 2]).all()
    assert np.isnan(found.errors[:, 2]).all()
    assert np.isfinite(np.delete(found.values, 2, axis=1)).all()
    vectors[1, 2] = 0  # a module that stood still has no error, and does not need one
    errors = np.full((6, 4), 0.1), np.where(vectors.any(axis=2), 0.1, np.nan)
    assert np.isfinite(coupling.cosine_matrix(policy, reward_of(vectors), errors).errors[:, 1]).all()
    frame = coupling.other_cosines(frame_of(policy, reward_of(vectors)), "policy", rows="whole").set_index("clock")["cosine"]
    assert np.isfinite(frame[5])
    lost = path_of(vectors, "reward", REWARD_ITERATIONS, REWARD_CLOCKS, norms_UT=np.where(vectors.any(axis=2), 1.0, np.nan).astype(np.float32))
    assert np.isnan(coupling.steps(lost).norms_UT[1]).all()


# --- who leads ---------------------------------------------------------------------------------------


def followed(lag: int, iterations: int = 12, share: float = 0.8) -> tuple[Trajectory, Trajectory]:
    """One update in each iteration; the reward model repeats (mixed with noise) what the policy did `lag` iterations before."""
    random = np.random.default_rng(0)
    moves = random.standard_normal((iterations + 1 + abs(lag), 4, 50))
    noise = random.standard_normal((iterations + 1, 4, 50))
    policy = moves[abs(lag) : abs(lag) + iterations]  # iterations 1..N
    reward = [
        share * moves[abs(lag) + i - 1 - lag] + (1 - share) * noise[i] if 0 <= abs(lag) + i - 1 - lag < len(moves) else noise[i] for i in range(iterations + 1)
    ]
    return (
        policy_of(policy, iterations=range(1, iterations + 1), clocks=range(2, 2 * iterations + 1, 2)),
        reward_of(np.stack(reward), iterations=range(iterations + 1), clocks=range(1, 2 * iterations + 2, 2)),
    )


@pytest.mark.parametrize("by", ["iteration", "update"])
@pytest.mark.parametrize(("lag", "leads"), [(1, 1), (0, 1), (-1, -1), (-2, -1)])
def test_a_planted_lag_is_found(lag: int, leads: int, by: Any) -> None:
    policy, reward = coupling.pairs(*followed(lag), by)
    table = coupling.cross_lag(coupling.cosine_matrix(policy, reward).values, coupling.lags(policy, reward, by))
    found = coupling.direction(table)
    assert found.peak == lag
    assert np.sign(found.index) == leads
    assert abs(found.index) > 0.2
    mean = table.set_index("lag")["mean"]
    assert mean[lag] == pytest.approx(0.8 / np.hypot(0.8, 0.2), abs=0.03)
    assert mean.drop(lag).abs().max() < 0.05


def test_direction_by_hand() -> None:
    table = pd.DataFrame({"lag": [-2, -1, 0, 1, 2], "mean": [0.1, np.nan, -0.7, 0.2, 0.0], "mean_abs": [0.1, np.nan, 0.7, 0.3, 0.9], "count": 1})
    found = coupling.direction(table)
    assert found.peak == 0
    assert found.index == pytest.approx((0.7 + 0.3) / 2 - 0.1)


def test_cross_lag_means_by_a_loop() -> None:
    random = np.random.default_rng(4)
    cosines, lags = random.uniform(-1, 1, (5, 6)), np.subtract.outer(-np.arange(5), -np.arange(6) + 1)
    cosines[1, 2] = np.nan
    table = coupling.cross_lag(cosines, lags, 2).set_index("lag")
    assert table.index.tolist() == [-2, -1, 0, 1, 2]
    for lag in table.index:
        values = [cosines[t, s] for t in range(5) for s in range(6) if lags[t, s] == lag and (t, s) != (1, 2)]
        assert table["mean"][lag] == pytest.approx(sum(values) / len(values))
        assert table["mean_abs"][lag] == pytest.approx(sum(map(abs, values)) / len(values))
        assert table["count"][lag] == len(values)
    with pytest.raises(ValueError, match="most = 0 must be at least 1"):
        coupling.cross_lag(cosines, lags, 0)


# --- roles of different models -----------------------------------------------------------------------


def test_different_models_share_norms_and_shapes_but_no_angles(policy: Trajectory) -> None:
    other = reward_of(random_vectors(6, 2, 12, seed=9), modules_T=("h.0.attn", "h.1.attn"), layers_T=np.array([0, 1]))
    refused = [
        lambda: coupling.pairs(policy, other),
        lambda: coupling.cosine_matrix(policy, other),
        lambda: coupling.paired_cosines(policy, other),
        lambda: coupling.iteration_cosines(pd.DataFrame(), policy, other),
    ]
    for refuse in refused:
        with pytest.raises(ValueError, match="no module in common"):
            refuse()
    x, y = coupling.norm_series(policy, other, "update", lag=0)
    assert (len(x), len(y)) == (6, 6)
    np.testing.assert_allclose(x, np.linalg.norm(policy.sketches_UTK.reshape(6, -1), axis=1), rtol=1e-6)
    np.testing.assert_allclose(y[:4], [np.linalg.norm(other.sketches_UTK[s]) for s in (2, 2, 2, 4)], rtol=1e-6)
    assert -1 <= shapes.pearson(x, y) <= 1
    assert 0 < shapes.distance_correlation(*coupling.matched_deltas(policy, other, "update")) <= 1
    assert 0 <= shapes.procrustes(policy.path_UD(), other.path_UD()) <= 1
    assert np.isfinite(geometry.lagged_cosines(other, 1)[0, 1:]).all()
    with pytest.raises(ValueError, match="only equal sketches can share a space"):
        coupling.cosine_matrix(policy, path_of(policy.sketches_UTK, "reward", spec=SketchSpec(k=12, seed=5)))
