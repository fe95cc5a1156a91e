"""What a path does, against definitions written out in loops. `path_of` and `frame_of` record vectors exactly, so both sources must agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import figures, geometry
from analysis.geometry import Groups
from analysis.trajectory import OUTSIDE, Trajectory
from interplay.records import OTHER_ROLE, SketchSpec

MODULES = ("score", "layers.0.mlp.up_proj", "layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj")
LAYERS = (OUTSIDE, 0, 0, 1)
#: Row names and the modules of each, by hand.
PARTS = {
    "whole": {"whole": [0, 1, 2, 3]},
    "layer": {"outside": [0], "0": [1, 2], "1": [3]},
    "kind": {"score": [0], "up_proj": [1], "q_proj": [2, 3]},
    "module": {name: [t] for t, name in enumerate(MODULES)},
}


def path_of(vectors_UTK: Any, role: str = "policy", iterations: Sequence[int] | None = None, clocks: Sequence[int] | None = None, **other: Any) -> Trajectory:
    """A path whose sketches are the updates themselves: k is the number of elements of each module."""
    vectors = np.asarray(vectors_UTK, dtype=np.float32)
    count, modules, k = vectors.shape
    fields = {"spec": SketchSpec(k=k), "modules_T": MODULES[:modules], "layers_T": np.array(LAYERS[:modules]), "norms_UT": np.linalg.norm(vectors, axis=2)}
    times = np.arange(1, count + 1)
    return Trajectory(
        run="run",
        role=role,
        updates_U=times,
        clocks_U=times if clocks is None else np.array(clocks, dtype=np.int64),
        iterations_U=np.ones(count, dtype=np.int64) if iterations is None else np.array(iterations, dtype=np.int64),
        sketches_UTK=vectors,
        **(fields | other),
    )


def frame_of(*paths: Trajectory, space: str = "factor") -> pd.DataFrame:
    """The rows of `updates` that the recorder would write for these vectors, each number by its definition."""
    rows = []
    for path in paths:
        other = next((found for found in paths if found.role == OTHER_ROLE[path.role]), None)
        for u, clock in enumerate(path.clocks_U):
            for t, module in enumerate(path.modules_T):
                now, before = path.sketches_UTK[u, t].astype(float), path.sketches_UTK[:u, t].astype(float).sum(axis=0)
                latest, delta = (None, None) if other is None else _others(other, int(clock), t)
                rows.append(
                    {
                        **{"clock": clock, "update": u + 1, "iteration": path.iterations_U[u], "role": path.role, "module": module, "space": space},
                        **{"layer": np.nan if path.layers_T[t] == OUTSIDE else path.layers_T[t], "kind": module.split(".")[-1]},
                        **{"update_norm": np.linalg.norm(now), "weight_norm": np.linalg.norm(1 + before + now)},
                        "displacement_norm": np.linalg.norm(before + now),
                        "cos_previous": cos(now, path.sketches_UTK[u - 1, t]) if u else np.nan,
                        **{"cos_displacement": cos(now, before), "other_role": None if other is None else other.role},
                        **{"cos_other_update": cos(now, latest), "attainable_other_update": 0.5 + 0.1 * t},
                        **{"cos_other_iteration": cos(now, delta), "attainable_other_iteration": 0.9},
                    }
                )
    return pd.DataFrame(rows).astype({"role": "category", "module": "category", "kind": "category", "space": "category"})


def _others(other: Trajectory, clock: int, t: int) -> tuple[Any, Any]:
    """The other role's latest update, and its latest iteration that is over."""
    past = [u for u, when in enumerate(other.clocks_U) if when < clock]
    over = [i for i in set(other.iterations_U.tolist()) if other.clocks_U[other.iterations_U == i].max() < clock]
    latest = other.sketches_UTK[past[-1], t] if past else None
    return latest, sum(other.sketches_UTK[u, t].astype(float) for u in past if other.iterations_U[u] == max(over)) if over else None


def cos(x: Any, y: Any) -> float:
    if y is None:
        return np.nan
    length = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return float(np.dot(np.ravel(x), np.ravel(y))) / length if length else np.nan


def random_vectors(updates: int = 8, modules: int = 4, k: int = 12, seed: int = 0) -> Any:
    """Modules of very different sizes, so that a sum of cosines would not pass for a cosine of sums."""
    return np.random.default_rng(seed).standard_normal((updates, modules, k)) * np.array([3.0, 0.1, 1.0, 0.5])[:modules, None]


@pytest.fixture
def path() -> Trajectory:
    return path_of(random_vectors())


# --- exact numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", list(PARTS))
def test_norms_and_cosines_of_rows_are_those_of_their_vectors(path: Trajectory, rows: Any) -> None:
    frame = frame_of(path)
    norms = geometry.norms(frame, "policy", rows=rows).set_index(["row", "update"])
    previous = geometry.previous_cosines(frame, "policy", rows=rows).set_index(["row", "update"])["cosine"]
    displaced = geometry.displacement_cosines(frame, "policy", rows=rows).set_index(["row", "update"])["cosine"]
    for name, parts in PARTS[rows].items():
        vectors = path.sketches_UTK[:, parts].reshape(8, -1).astype(float)
        for u in range(8):
            found, before = norms.loc[(name, u + 1)], vectors[:u].sum(axis=0)
            assert found["update_norm"] == pytest.approx(np.linalg.norm(vectors[u]))
            assert found["displacement_norm"] == pytest.approx(np.linalg.norm(before + vectors[u]))
            assert found["relative_norm"] == pytest.approx(np.linalg.norm(vectors[u]) / np.linalg.norm(1 + before + vectors[u]))
            assert previous[name, u + 1] == pytest.approx(cos(vectors[u], vectors[u - 1]) if u else np.nan, nan_ok=True)
            assert displaced[name, u + 1] == pytest.approx(cos(vectors[u], before), nan_ok=True)
    assert len(norms) == 8 * len(PARTS[rows])


def test_pictures_and_numbers_are_the_same(path: Trajectory) -> None:
    frame = frame_of(path)
    drawn = figures.cosine_heatmap(frame, "policy", run="run").data.set_index(["row", "update"])["value"]
    found = geometry.previous_cosines(frame, "policy").dropna().set_index(["row", "update"])["cosine"]
    np.testing.assert_allclose(found.reindex(drawn.index), drawn, rtol=1e-5)
    drawn = figures.norm_heatmap(frame, "policy", run="run").data.set_index(["row", "update"])["value"]
    found = geometry.norms(frame, "policy").set_index(["row", "update"])["update_norm"]
    np.testing.assert_allclose(found.reindex(drawn.index), drawn, rtol=1e-5)


def test_an_unknown_module_makes_a_norm_unknown_and_is_left_out_of_a_cosine(path: Trajectory) -> None:
    frame = frame_of(path)
    lost = (frame["update"] == 3) & (frame["module"] == MODULES[2])
    frame.loc[lost, ["update_norm", "cos_previous"]] = np.nan
    norms = geometry.norms(frame, "policy").set_index(["row", "update"])["update_norm"]
    assert np.isnan(norms["0", 3])
    assert np.isfinite(norms["1", 3])
    assert np.isfinite(norms["0", 4])
    cosines = geometry.previous_cosines(frame, "policy").set_index(["row", "update"])["cosine"]
    assert cosines["0", 3] == pytest.approx(cos(path.sketches_UTK[2, 1], path.sketches_UTK[1, 1]))
    assert cosines["0", 4] == pytest.approx(cos(path.sketches_UTK[3, 1], path.sketches_UTK[2, 1]))
    straight = geometry.straightness(frame, "policy").set_index(["row", "update"])["straightness"]
    assert np.isfinite(straight["0", 2])
    assert straight["0"].loc[3:].isna().all()
    assert straight["1"].notna().all()
    shares = geometry.shares(frame, "policy")
    assert shares.loc[shares["update"] == 3, "share"].isna().all()
    assert shares.loc[shares["update"] == 4, "share"].notna().all()


def test_a_module_that_stood_still_counts_with_an_inner_product_of_zero() -> None:
    vectors = random_vectors(updates=3)
    vectors[1, 0] = 0
    whole = geometry.previous_cosines(frame_of(path_of(vectors)), "policy", rows="whole")["cosine"]
    assert whole[1] == pytest.approx(cos(vectors[1].ravel(), vectors[0].ravel()), abs=1e-6)


def test_shares_of_known_vectors() -> None:
    vectors = np.zeros((1, 4, 2))
    vectors[0, :, 0] = [1, 2, 2, 4]
    frame = frame_of(path_of(vectors))
    layers = geometry.shares(frame, "policy").set_index("row")["share"]
    np.testing.assert_allclose(layers[["outside", "0", "1"]], np.array([1, 8, 16]) / 25)
    kinds = geometry.shares(frame, "policy", rows="kind").set_index("row")["share"]
    np.testing.assert_allclose(kinds[["score", "up_proj", "q_proj"]], np.array([1, 4, 20]) / 25)


def test_plain_tensors_are_part_of_both_spaces(path: Trajectory) -> None:
    factor, effective = frame_of(path), frame_of(path, space="effective")
    frame = pd.concat([factor[factor["module"] != "score"], effective.assign(update_norm=effective["update_norm"] * 7)])
    found = geometry.norms(frame, "policy", "factor", "module").set_index(["row", "update"])["update_norm"]
    own = path.norms_UT[0]
    np.testing.assert_allclose([found["score", 1], found[MODULES[1], 1]], [7 * own[0], own[1]], rtol=1e-6)
    assert len(found) == 8 * 4


def test_one_update_and_none() -> None:
    frame = frame_of(path_of(random_vectors(updates=1)))
    assert geometry.previous_cosines(frame, "policy")["cosine"].isna().all()
    assert geometry.displacement_cosines(frame, "policy")["cosine"].isna().all()
    assert geometry.straightness(frame, "policy")["straightness"].tolist() == pytest.approx([1.0] * 3)
    assert geometry.norms(frame, "reward").empty
    assert geometry.straightness(frame, "reward").empty


def test_rows_that_do_not_exist_are_named(path: Trajectory) -> None:
    with pytest.raises(ValueError, match="rows = 'layers' is not known; choose one of whole, layer, kind, module"):
        geometry.norms(frame_of(path), "policy", rows="layers")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows = 'tensor' is not known"):
        geometry.lagged_cosines(path, 1, "tensor")  # type: ignore[arg-type]


# --- straightness ------------------------------------------------------------------------------------


def _line(*steps: Sequence[float]) -> Trajectory:
    """Updates in a plane, split over two modules so that they have to be put together."""
    return path_of(np.array(steps, dtype=float)[:, :, None] * np.ones(1))


def test_straightness_of_known_ways() -> None:
    corner, back, line = _line([3, 0], [0, 4]), _line([3, 4], [-3, -4]), _line([3, 4], [6, 8], [0, 0])
    for ways, expected in ((corner, [1, 5 / 7]), (back, [1, 0]), (line, [1, 1, 1])):
        np.testing.assert_allclose(geometry.sketched_straightness(ways)[:, 0], expected, atol=1e-6)
        np.testing.assert_allclose(geometry.straightness(frame_of(ways), "policy", rows="whole")["straightness"], expected, atol=1e-6)
    exact = geometry.straightness(frame_of(corner), "policy", rows="whole")
    assert exact[["length", "displacement", "winding"]].iloc[-1].tolist() == pytest.approx([7, 5, 7 / 5])
    assert np.isnan(geometry.straightness(frame_of(back), "policy", rows="whole")["winding"].iloc[-1])
    assert np.isnan(geometry.sketched_straightness(_line([0, 0], [0, 0]))).all()


def test_a_random_walk_keeps_one_over_the_root_of_its_updates() -> None:
    walk = path_of(np.random.default_rng(3).standard_normal((100, 2, 400)))
    assert geometry.sketched_straightness(walk)[-1, 0] == pytest.approx(0.1, rel=0.1)


# --- sketched persistence ----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", list(PARTS))
def test_lagged_cosines_are_those_of_the_vectors(path: Trajectory, rows: Any) -> None:
    found = geometry.lagged_cosines(path, 3, rows)
    assert found.shape == (3, 8, len(PARTS[rows]))
    for r, parts in enumerate(PARTS[rows].values()):
        vectors = path.sketches_UTK[:, parts].reshape(8, -1).astype(float)
        for lag in (1, 2, 3):
            for u in range(8):
                assert found[lag - 1, u, r] == pytest.approx(cos(vectors[u], vectors[u - lag]) if u >= lag else np.nan, nan_ok=True)
    assert Groups.of(path, rows).names == tuple(PARTS[rows])


def test_sketched_and_exact_numbers_agree_where_sketches_are_exact(path: Trajectory) -> None:
    frame = frame_of(path)
    for rows in ("whole", "layer"):
        exact = geometry.displacement_cosines(frame, "policy", rows=rows).pivot(index="update", columns="row", values="cosine")
        np.testing.assert_allclose(geometry.sketched_displacement_cosines(path, rows), exact[list(PARTS[rows])], atol=1e-5)
        exact = geometry.straightness(frame, "policy", rows=rows).pivot(index="update", columns="row", values="straightness")
        np.testing.assert_allclose(geometry.sketched_straightness(path, rows), exact[list(PARTS[rows])], rtol=1e-5)
    matrix = geometry.cosine_matrix(path)
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(np.diag(matrix, -2), geometry.lagged_cosines(path, 2)[1, 2:, 0], atol=1e-12)


def test_a_path_that_turns_round_at_every_update() -> None:
    turning = path_of(np.array([1, -1, 1, -1, 1])[:, None, None] * random_vectors(1))
    means = geometry.lag_means(geometry.lagged_cosines(turning, 6), ("whole",))
    assert means["mean"].tolist() == pytest.approx([-1, 1, -1, 1, np.nan, np.nan], nan_ok=True)
    assert means["count"].tolist() == [4, 3, 2, 1, 0, 0]
    assert means["lag"].tolist() == [1, 2, 3, 4, 5, 6]


def test_lag_means_keep_rows_apart(path: Trajectory) -> None:
    found = geometry.lagged_cosines(path, 2, "layer")
    means = geometry.lag_means(found, Groups.of(path, "layer").names).set_index(["row", "lag"])["mean"]
    for r, name in enumerate(PARTS["layer"]):
        assert means[name, 2] == pytest.approx(np.nanmean(found[1, :, r]))


def test_updates_of_zero_have_no_angle() -> None:
    vectors = random_vectors(4)
    vectors[1] = 0
    found = geometry.lagged_cosines(path_of(vectors), 2)[:, :, 0]
    assert np.isnan(found[0]).tolist() == [True, True, True, False]
    assert np.isnan(found[1]).tolist() == [True, True, False, True]
    assert np.isnan(geometry.cosine_matrix(path_of(vectors))[1]).all()
    assert np.isnan(geometry.effective_dimension(np.zeros((3, 3))))


def _with_unknown(u: int, t: int) -> Trajectory:
    """As a trajectory is built when an update of a module was not finite: no norm, no sketch."""
    vectors = random_vectors()
    vectors[u, t] = 0
    norms = np.linalg.norm(vectors, axis=2)
    norms[u, t] = np.nan
    return path_of(vectors, norms_UT=norms.astype(np.float32))


def test_unknown_updates_are_left_out_on_both_sides() -> None:
    path = _with_unknown(3, 0)
    rest = path.sketches_UTK[:, 1:].reshape(8, -1)
    expected = cos(rest[3], rest[2])
    assert geometry.lagged_cosines(path, 1)[0, 3, 0] == pytest.approx(expected, abs=1e-6)
    assert geometry.cosine_matrix(path)[2, 3] == pytest.approx(expected, abs=1e-6)
    assert geometry.sketched_displacement_cosines(path)[5, 0] == pytest.approx(cos(rest[5], rest[:5].sum(axis=0)), abs=1e-6)
    assert np.isfinite(geometry.sketched_straightness(path)[2, 0])
    assert np.isnan(geometry.sketched_straightness(path)[3:, 0]).all()
    assert np.isnan(geometry.total_norms(path)).tolist() == [False] * 3 + [True] + [False] * 4


def test_a_norm_that_is_not_recorded_is_taken_from_the_sketch(path: Trajectory) -> None:
    bare = path_of(path.sketches_UTK, norms_UT=np.full((8, 4), np.nan, dtype=np.float32))
    np.testing.assert_allclose(geometry.total_norms(bare), geometry.total_norms(path), rtol=1e-6)
    np.testing.assert_allclose(geometry.cosine_matrix(bare), geometry.cosine_matrix(path))
    recorded = path_of(path.sketches_UTK, norms_UT=2 * path.norms_UT)
    np.testing.assert_allclose(geometry.total_norms(recorded), 2 * geometry.total_norms(path), rtol=1e-6)


def test_trajectories_of_one_update_and_of_none() -> None:
    one, none = path_of(random_vectors(1)), path_of(np.zeros((0, 4, 12)))
    assert np.isnan(geometry.lagged_cosines(one, 3)).all()
    assert geometry.effective_dimensions(one) == {"whole": pytest.approx(1.0)}
    assert np.isnan(geometry.sketched_displacement_cosines(one)).all()
    for found in (geometry.lagged_cosines(none, 2)[0], geometry.sketched_displacement_cosines(none), geometry.sketched_straightness(none)):
        assert found.shape == (0, 1)
    assert geometry.extrapolation(none).empty


# --- dimension ---------------------------------------------------------------------------------------


def test_effective_dimension_is_the_participation_ratio_of_eigenvalues(path: Trajectory) -> None:
    for name, parts in PARTS["layer"].items():
        vectors = path.sketches_UTK[:, parts].reshape(8, -1).astype(float)
        values = np.linalg.svd(vectors, compute_uv=False) ** 2
        expected = values.sum() ** 2 / (values**2).sum()
        assert geometry.effective_dimensions(path, "layer")[name] == pytest.approx(expected, rel=1e-5)


def test_effective_dimension_of_known_sets() -> None:
    basis = np.eye(6)
    assert geometry.effective_dimension(basis @ basis.T) == pytest.approx(6)
    assert geometry.effective_dimension(np.outer([1, 2, -3], [1, 2, -3])) == pytest.approx(1)
    assert geometry.effective_dimension(np.diag([1.0, 1.0, 0.0])) == pytest.approx(2)


def test_a_sketch_makes_the_dimension_too_small_by_its_inverse_size() -> None:
    random = np.random.default_rng(0)
    updates = np.eye(40, 4000)
    signs, places = random.choice([-1.0, 1.0], (30, 4000)), random.integers(20, size=(30, 4000))
    found = [geometry.effective_dimension((s := updates @ (signs[i][:, None] * np.eye(20)[places[i]])) @ s.T) for i in range(30)]
    assert np.mean(found) == pytest.approx(1 / (1 / 40 + 1 / 20), rel=0.05)


# --- differences, sums, extrapolation ----------------------------------------------------------------


def test_velocity_is_the_updates_and_acceleration_their_differences(path: Trajectory) -> None:
    assert geometry.differences(path, 1) is path
    faster = geometry.differences(path, 2)
    positions = path.path_UD()
    np.testing.assert_allclose(faster.sketches_UTK.reshape(7, -1), positions[2:] - 2 * positions[1:-1] + positions[:-2], atol=1e-5)
    np.testing.assert_allclose(faster.norms_UT, np.linalg.norm(faster.sketches_UTK, axis=2), rtol=1e-6)
    assert faster.updates_U.tolist() == [2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ValueError, match="order = 3 is not known"):
        geometry.differences(path, 3)
    lost = geometry.differences(_with_unknown(3, 0), 2)
    assert np.isnan(lost.norms_UT[:, 0]).tolist() == [False, False, True, True, False, False, False]


def test_accelerations_of_independent_updates_turn_back_by_construction() -> None:
    walk = path_of(np.random.default_rng(0).standard_normal((200, 1, 500)))
    assert np.nanmean(geometry.lagged_cosines(geometry.differences(walk, 2), 1)) == pytest.approx(-0.5, abs=0.02)
    assert np.nanmean(geometry.lagged_cosines(walk, 1)) == pytest.approx(0, abs=0.02)


def test_sums_of_updates_stand_at_their_last(path: Trajectory) -> None:
    found = geometry.summed(path, np.array([1, 1, 1, 2, 2, 5, 5, 5]))
    np.testing.assert_allclose(found.sketches_UTK[1], path.sketches_UTK[3] + path.sketches_UTK[4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.norms_UT, np.linalg.norm(found.sketches_UTK, axis=2), rtol=1e-6)
    assert found.clocks_U.tolist() == [3, 5, 8]
    lost = geometry.summed(_with_unknown(3, 0), np.array([1, 1, 1, 2, 2, 5, 5, 5]))
    assert np.isnan(lost.norms_UT).tolist() == [[False] * 4, [True] + [False] * 3, [False] * 4]
    assert not lost.sketches_UTK[1, 0].any()


def test_a_straight_path_is_foreseen() -> None:
    line = path_of(np.ones((9, 1, 1)) * random_vectors(1))
    found = geometry.extrapolation(line, window=3, horizon=2)
    np.testing.assert_allclose(found["error"], 0, atol=1e-5)
    np.testing.assert_allclose(found["cosine"], 1)
    np.testing.assert_allclose(found["random"], np.sqrt(2))
    assert found["update"].tolist() == [3, 4, 5, 6, 7]


def test_extrapolation_by_its_definition(path: Trajectory) -> None:
    vectors = path.sketches_UTK.reshape(8, -1).astype(float)
    found = geometry.extrapolation(path, window=2, horizon=3).set_index("update")
    assert found.index.tolist() == [2, 3, 4, 5]
    for u in found.index:
        guess, true = 3 * vectors[u - 2 : u].mean(axis=0), vectors[u : u + 3].sum(axis=0)
        assert found["error"][u] == pytest.approx(np.linalg.norm(guess - true) / np.linalg.norm(true), rel=1e-5)
        assert found["cosine"][u] == pytest.approx(cos(guess, true), rel=1e-5)
        size = np.linalg.norm(guess) / np.linalg.norm(true)
        turned = np.random.default_rng(u).standard_normal((2000, len(true)))
        turned *= np.linalg.norm(guess) / np.linalg.norm(turned, axis=1, keepdims=True)
        errors = np.linalg.norm(turned - true, axis=1) / np.linalg.norm(true)
        assert found["random"][u] == pytest.approx(np.sqrt((errors**2).mean()), rel=0.03)
        assert found["random"][u] == pytest.approx(np.sqrt(1 + size**2))
    assert (found["stay"] == 1).all()


def test_extrapolation_says_nothing_of_what_is_unknown_still_or_too_short() -> None:
    found = geometry.extrapolation(_with_unknown(3, 0), window=1, horizon=1).set_index("update")["error"]
    assert found.isna().tolist() == [False, False, True, True, False, False, False]
    still = np.zeros((4, 1, 3))
    still[0] = 1
    assert geometry.extrapolation(path_of(still), 1, 1)[["error", "stay", "random", "cosine"]].isna().all().all()
    assert geometry.extrapolation(path_of(random_vectors(4)), 3, 2).empty
    with pytest.raises(ValueError, match="window = 0 and horizon = 5 must be at least 1"):
        geometry.extrapolation(path_of(still), window=0)
