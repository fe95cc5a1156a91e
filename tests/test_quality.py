"""Quality of pictures against their definitions written as loops, and against pictures whose quality is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from analysis.quality import POINTS, Quality, Stability, in_words, principal_coordinates, quality, rank_correlation, stability


def _points(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width))


def _order(points: np.ndarray, i: int) -> list[int]:
    """All other points, nearest first."""
    return sorted((j for j in range(len(points)) if j != i), key=lambda j: float(np.linalg.norm(points[i] - points[j])))


def _trustworthiness(points: np.ndarray, picture: np.ndarray, k: int) -> float:
    n, too_far = len(points), 0
    for i in range(n):
        real = _order(points, i)
        too_far += sum(max(0, real.index(j) + 1 - k) for j in _order(picture, i)[:k])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * too_far


@pytest.mark.parametrize(("count", "k"), [(40, 10), (12, 5), (3, 1)])
def test_neighbours_are_counted_as_the_definition_says(count: int, k: int) -> None:
    points, picture = _points(count, 6, 1), _points(count, 2, 2)
    found = quality(points, picture)
    assert (found.points, found.neighbours) == (count, k)
    assert found.trustworthiness == pytest.approx(_trustworthiness(points, picture, k))
    assert found.continuity == pytest.approx(_trustworthiness(picture, points, k))


def test_wide_points_give_the_numbers_of_the_definition_too() -> None:
    """Wider than many: these go through principal coordinates first."""
    points, picture = _points(30, 3000, 1).astype(np.float32) + 50, _points(30, 2, 2)
    found = quality(points, picture)
    assert found.trustworthiness == pytest.approx(_trustworthiness(points, picture, 10))
    assert found.continuity == pytest.approx(_trustworthiness(picture, points, 10))
    assert found.rank_correlation == pytest.approx(rank_correlation(points, picture), abs=1e-4)


def test_rank_correlation_is_that_of_ranks_of_all_distances() -> None:
    points, picture = _points(25, 6, 1), _points(25, 2, 2)
    pairs = [(i, j) for i in range(25) for j in range(i)]
    frame = pd.DataFrame({name: [np.linalg.norm(x[i] - x[j]) for i, j in pairs] for name, x in (("before", points), ("drawn", picture))})
    assert rank_correlation(points, picture) == pytest.approx(frame.rank().corr().iloc[0, 1])


def test_a_plane_is_drawn_without_loss() -> None:
    plane = _points(80, 2, 3) @ _points(2, 100, 4)
    found = quality(plane, PCA(2).fit_transform(plane))
    assert found.trustworthiness == pytest.approx(1)
    assert found.continuity == pytest.approx(1)
    assert found.rank_correlation == pytest.approx(1)


def test_a_shuffled_picture_keeps_what_chance_keeps() -> None:
    """A random rank is uniform on 1 to N - 1, so the expected trustworthiness is known; it is near one half."""
    n, k = 400, 10
    points = _points(n, 30)
    found = quality(points, np.random.default_rng(9).permutation(PCA(2).fit_transform(points)))
    expected = 1 - (n - 1 - k) * (n - k) / ((n - 1) * (2 * n - 3 * k - 1))
    assert expected == pytest.approx(0.5, abs=0.02)
    assert found.trustworthiness == pytest.approx(expected, abs=0.03)
    assert found.continuity == pytest.approx(expected, abs=0.03)
    assert found.rank_correlation == pytest.approx(0, abs=0.05)


def test_torn_and_crushed_pictures_fail_in_different_numbers() -> None:
    """Crushing a sheet to a line brings strangers together; tearing a line in two parts neighbours."""
    sheet = np.random.default_rng(1).random((200, 2))
    crushed = quality(sheet, sheet[:, :1])
    assert crushed.trustworthiness < crushed.continuity - 0.1
    line = np.linspace(0, 1, 200)[:, None]
    torn = quality(line, np.where(np.arange(200)[:, None] % 2, line + 10, line))
    assert torn.continuity < torn.trustworthiness - 0.01


def test_stability_sees_through_turn_shift_mirror_and_scale() -> None:
    picture = _points(30, 2)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    found = stability([picture, 3 * picture @ turn + 7, picture * [-1, 1]])
    assert found.high == pytest.approx(0, abs=1e-12)
    assert found.pictures == 3


def test_stability_is_what_the_best_turn_leaves() -> None:
    """1 - (sum of singular values of the product)^2 for centred pictures of length 1 (Gower 1975)."""

    def left(one: np.ndarray, other: np.ndarray) -> float:
        a, b = (x - x.mean(axis=0) for x in (one, other))
        values = np.linalg.svd((a / np.linalg.norm(a)).T @ (b / np.linalg.norm(b)), compute_uv=False)
        return float(1 - values.sum() ** 2)

    pictures = [_points(30, 2, seed) for seed in range(3)]
    pairs = [left(pictures[0], pictures[1]), left(pictures[0], pictures[2]), left(pictures[1], pictures[2])]
    found = stability(pictures)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(pairs), min(pairs), max(pairs)))
    assert found.low < found.mean < found.high


def test_other_seeds_count_for_stability_alone() -> None:
    points, picture = _points(30, 5), _points(30, 2, 1)
    alone, beside = quality(points, picture), quality(points, picture, [picture * 2, picture + 1])
    assert np.isnan(alone.stability.mean)
    assert beside.stability.mean == pytest.approx(0, abs=1e-12)
    assert alone.trustworthiness == beside.trustworthiness


@pytest.mark.parametrize("width", [4, 4000])
def test_positions_that_did_not_move_count_once(width: int) -> None:
    path = np.cumsum(_points(30, width), axis=0)
    resting = np.concatenate([path, np.repeat(path[-1:], 60, axis=0)]).astype(np.float32)
    found = quality(resting, principal_coordinates(resting))
    assert found.points == 30
    assert found.trustworthiness == pytest.approx(1)
    assert found.continuity == pytest.approx(1)


def test_of_many_points_evenly_spread_ones_are_taken() -> None:
    points = _points(POINTS + 300, 2)
    found = quality(points, points)
    assert found.points == POINTS
    assert found.rank_correlation == pytest.approx(1)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.ones((1, 3)), np.eye(2), np.ones((20, 3)), np.full((20, 3000), 0.1)])
def test_too_few_or_equal_points_have_no_quality(points: np.ndarray) -> None:
    found = quality(points, points[:, :2])
    assert np.isnan([found.trustworthiness, found.continuity, found.rank_correlation]).all()
    assert found.neighbours == 0


def test_a_picture_of_one_spot_has_no_distances_to_rank() -> None:
    spot = np.zeros((20, 2))
    found = quality(_points(20, 5), spot, [spot])
    assert np.isnan([found.rank_correlation, found.stability.mean]).all()


def test_what_cannot_be_compared_is_refused_with_its_reason() -> None:
    with pytest.raises(ValueError, match="same rows, not 4, 5"):
        quality(np.ones((5, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="same rows, not 5, 6"):
        quality(np.ones((5, 3)), np.ones((5, 2)), [np.ones((6, 2))])
    with pytest.raises(ValueError, match="finite"):
        quality(np.full((5, 3), np.nan), np.ones((5, 2)))
    with pytest.raises(ValueError, match="finite"):
        quality(_points(5, 3), np.full((5, 2), np.inf))


def test_principal_coordinates_keep_all_distances() -> None:
    wide = (_points(40, 9000) * np.linspace(1, 3, 9000)).astype(np.float32) * 1e-4
    found = principal_coordinates(wide)
    np.testing.assert_allclose(pdist(found), pdist(wide.astype(np.float64)), rtol=1e-9)
    assert found.shape[1] <= 39
    spreads = found.var(axis=0)
    assert (np.diff(spreads) <= 0).all()
    np.testing.assert_allclose(np.corrcoef(found.T), np.eye(found.shape[1]), atol=1e-8)


def _of(kept: float, ranks: float, again: float, continuity: float = 1.0) -> Quality:
    return Quality(kept, continuity, ranks, Stability(again, again, again, 3), 100, 10)


def test_quality_in_words() -> None:
    assert (
        in_words(_of(0.97, 0.41, 0.03))
        == "neighbours are kept (0.97), distances are not to be read (rank correlation 0.41), another seed gives a similar picture (0.03)"
    )
    assert in_words(_of(0.99, 0.95, 0.1, continuity=0.9)) == (
        "most neighbours are kept (0.90), distances are in the right order (rank correlation 0.95), another seed moves parts of the picture (0.10)"
    )
    assert in_words(_of(0.5, 0.8, 0.6)) == (
        "neighbours are not kept (0.50), distances are to be read with care (rank correlation 0.80), another seed gives another picture (0.60)"
    )


def test_words_name_chance_and_what_is_unknown() -> None:
    nan = float("nan")
    words = in_words(_of(nan, nan, nan), _of(0.96, 0.88, nan))
    assert words.startswith("whether neighbours are kept is unknown, whether distances can be read is unknown, what another seed gives is unknown")
    assert words.endswith("; chance with updates of the same norms has 0.96, 0.88, unknown")
