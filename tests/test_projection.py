"""PCA against a plain SVD, and its null against simulated walks and the known law of random walks."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import pictures, projection
from analysis.trajectory import Trajectory
from interplay.records import SketchSpec


def _walk(updates: int, dims: int, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((updates, dims))
    return np.concatenate([np.zeros((1, dims)), np.cumsum(steps, axis=0)])


def test_explained_variance_is_that_of_a_plain_svd() -> None:
    first, second = _walk(40, 30, 1), _walk(30, 30, 2)
    found = projection.pca([first, second], 3)
    rows = np.concatenate([first, second])
    rows = rows - rows.mean(axis=0)
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    np.testing.assert_allclose(found.explained_C, squares[:3] / squares.sum(), rtol=1e-3)


def test_distances_in_all_components_are_the_real_ones() -> None:
    path = _walk(20, 3, 5)
    flat = projection.pca([path], 3).paths_P[0]
    np.testing.assert_allclose(np.linalg.norm(flat[7] - flat[2]), np.linalg.norm(path[7] - path[2]), rtol=1e-4)


def test_same_seed_same_picture() -> None:
    paths = [_walk(60, 500, 3), _walk(40, 500, 4)]
    one, two = projection.pca(paths, 2, seed=7), projection.pca(paths, 2, seed=7)
    np.testing.assert_array_equal(one.paths_P[0], two.paths_P[0])
    np.testing.assert_array_equal(one.null.low_C, two.null.low_C)


def test_null_agrees_with_walks_that_are_really_walked() -> None:
    norms = np.full(40, 1.0)
    null = projection.random_walk_null([norms], 500, 2, seed=0)
    shares = []
    for seed in range(60):
        steps = np.random.default_rng(seed).standard_normal((40, 500)) / np.sqrt(500)
        rows = np.concatenate([np.zeros((1, 500)), np.cumsum(steps, axis=0)])
        rows -= rows.mean(axis=0)
        squares = np.linalg.svd(rows, compute_uv=False) ** 2
        shares.append(squares[0] / squares.sum())
    assert null.mean_C[0] == pytest.approx(np.mean(shares), abs=0.01)
    assert null.low_C[0] < np.mean(shares) < null.high_C[0]


def test_null_reaches_the_law_of_random_walks() -> None:
    """6/pi^2 and a quarter of it, for long walks in many dimensions (Antognini & Sohl-Dickstein 2018)."""
    null = projection.random_walk_null([np.ones(150)], 20_000, 2)
    assert null.mean_C[0] == pytest.approx(6 / np.pi**2, abs=0.02)
    assert null.mean_C[1] == pytest.approx(6 / np.pi**2 / 4, abs=0.02)


def test_a_random_walk_lies_inside_its_null_and_a_straight_path_above() -> None:
    walk = projection.pca([_walk(100, 2000, 11)], 2)
    assert walk.explained_C.sum() < walk.null.together[2] * 1.03
    line = np.outer(np.arange(50), np.random.default_rng(0).standard_normal(2000))
    straight = projection.pca([line], 2)
    assert straight.explained_C[0] > straight.null.high_C[0]


def test_long_paths_are_fitted_on_few_rows_and_drawn_whole() -> None:
    found = projection.pca([_walk(1000, 50, 0)], 2)
    assert found.fitted == projection.FIT_ROWS
    assert found.paths_P[0].shape == (1001, 2)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([np.zeros((2, 4))], "at least two updates"),
        ([np.zeros((5, 4))], "no weight has moved"),
        ([np.full((5, 4), np.nan)], "not finite"),
        ([np.ones((5, 4)), np.ones((5, 3))], "different widths"),
        ([], "at least two updates"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_reason(paths: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        projection.pca(paths)


def test_missing_components_are_zero() -> None:
    found = projection.pca([np.array([[0.0], [1.0], [3.0]])], 3)
    assert found.paths_P[0].shape == (3, 3)
    assert not found.paths_P[0][:, 1:].any()


# --- long paths, of which few rows are placed --------------------------------------------------------


def _path(updates: int, seed: int, modules: int = 3, k: int = 20, size: float = 1.0) -> Trajectory:
    """A path with drift, so that its reach is far from one update's length."""
    random = np.random.default_rng(seed)
    sketches = size * (random.standard_normal((updates, modules, k)) + 0.3 * random.standard_normal((modules, k))).astype(np.float32)
    numbers = np.arange(1, updates + 1)
    names = tuple(f"layers.{t}.q_proj" for t in range(modules))
    return Trajectory("r", "policy", SketchSpec(k=k), numbers, numbers, numbers, names, np.arange(modules), np.linalg.norm(sketches, axis=2), sketches)


@pytest.mark.parametrize("of", ["positions", "updates"])
@pytest.mark.parametrize("same_length", [False, True])
@pytest.mark.parametrize("components", [2, 3])
def test_a_route_is_drawn_as_all_its_rows_would_be(of: projection.Of, same_length: bool, components: int) -> None:
    paths = [_path(700, 1), _path(400, 2, size=0.05)]
    rows = [projection.selected(path, of=of) for path in paths]
    rows = [row / np.linalg.norm(row, axis=1).max() for row in rows] if same_length else rows
    expected = projection.pca(rows, components, of=of)
    found = projection.drawn(projection.routes(paths, of, same_length=same_length), components)
    for one, other in zip(found.paths_P, expected.paths_P, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())
    np.testing.assert_allclose(found.explained_C, expected.explained_C, rtol=1e-5)
    np.testing.assert_allclose(found.null.together, expected.null.together, rtol=1e-5)
    assert found.fitted == expected.fitted == 2 * projection.FIT_ROWS


def test_rows_that_lie_over_several_paths_are_those_of_each() -> None:
    paths = [_path(700, 1), _path(400, 2)]
    whole = np.concatenate([projection.selected(path) for path in paths])
    some = projection.spread(len(whole), 90)
    routes = projection.routes(paths, also=90)
    parts = projection.apart(some, [len(route) for route in routes])
    np.testing.assert_array_equal(np.concatenate([route.at(rows) for route, rows in zip(routes, parts, strict=True)]), whole[some])


def test_another_scale_or_dimension_places_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [_path(300, 1), _path(300, 2)]
    projection.drawn(projection.routes(paths), 2)
    monkeypatch.setattr(Trajectory, "_blocks", lambda _path: pytest.fail("placed again"))
    draws = projection._by_draw.cache_info().misses
    projection.drawn(projection.routes(paths), 3)
    assert projection._by_draw.cache_info().misses == draws, "chance is the same in three dimensions"
    projection.drawn(projection.routes(paths, same_length=True), 2)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([_path(1, 0)], "at least two updates"),
        ([_path(5, 0, size=0.0)], "no weight has moved"),
        ([_path(5, 0, size=float("nan"))], "not finite"),
        ([_path(5, 0), _path(5, 0, modules=2)], "different widths"),
        ([], "at least two updates"),
    ],
)
def test_routes_that_cannot_be_drawn_are_refused_with_the_same_reason(paths: list[Trajectory], message: str) -> None:
    for same_length in (False, True):
        with pytest.raises(ValueError, match=message):
            projection.drawn(projection.routes(paths, same_length=same_length))


def test_the_largest_eigenvalues_alone_are_those_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = [np.random.default_rng(0).random(149), np.full(149, 0.1)]
    quick = projection._by_draw.__wrapped__(tuple(one.tobytes() for one in norms), 1920, 3, 0, 5, "positions")
    monkeypatch.setattr(projection, "_MANY", 10_000)
    slow = projection._by_draw.__wrapped__(tuple(one.tobytes() for one in norms), 1920, 3, 0, 5, "positions")
    np.testing.assert_allclose(quick, slow, rtol=1e-9)


@pytest.mark.parametrize(("low", "high", "words"), [(0.75, 0.83, "75% to 83%"), (0.829, 0.834, "83%"), (0.0, 0.0, "0%")])
def test_a_range_whose_ends_print_the_same_is_one_number(low: float, high: float, words: str) -> None:
    assert pictures._reach(low, high) == words
