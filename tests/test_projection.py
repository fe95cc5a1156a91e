"""PCA against a plain SVD, and its null against simulated walks and the known law of random walks."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import projection


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
