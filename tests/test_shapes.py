"""Likeness of series, paths and subspaces: against definitions in loops, scipy, planted angles and random subspaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import spatial, stats

from analysis import shapes


def test_pearson_is_scipys_where_it_is_defined() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 30))
    assert shapes.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    y[3], x[7] = np.nan, np.nan
    good = np.isfinite(x) & np.isfinite(y)
    assert shapes.pearson(x, y) == pytest.approx(stats.pearsonr(x[good], y[good]).statistic)
    for short in ((x[:2], y[:2]), (np.ones(9), y[10:19]), (np.full(5, np.nan), y[:5])):
        assert np.isnan(shapes.pearson(*short))


def by_loops(x: Any, y: Any, corrected: bool) -> float:
    """Distance correlation from its definition: double-centred distances, element by element."""
    n, tables = len(x), []
    for rows in (x, y):
        d = [[float(np.linalg.norm(rows[i] - rows[j])) for j in range(n)] for i in range(n)]
        sums, total = [sum(row) for row in d], sum(map(sum, d))
        divide, all_over = (n - 2, (n - 1) * (n - 2)) if corrected else (n, n * n)
        tables.append([[0.0 if corrected and i == j else d[i][j] - sums[i] / divide - sums[j] / divide + total / all_over for j in range(n)] for i in range(n)])
    covariance, first, second = (
        sum(a[i][j] * b[i][j] for i in range(n) for j in range(n)) for a, b in (tables, (tables[0], tables[0]), (tables[1], tables[1]))
    )
    squared = covariance / np.sqrt(first * second)
    return squared if corrected else float(np.sqrt(squared))


@pytest.mark.parametrize("corrected", [False, True])
def test_distance_correlation_is_its_definition(corrected: bool) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((11, 3))
    y = x[:, :2] ** 2 + 0.3 * random.standard_normal((11, 2))
    assert shapes.distance_correlation(x, y, corrected=corrected) == pytest.approx(by_loops(x, y, corrected))
    assert shapes.distance_correlation(x[:, 0], y, corrected=corrected) == pytest.approx(by_loops(x[:, :1], y, corrected))
    assert shapes.distance_correlation(x, 2 - 5 * x, corrected=corrected) == pytest.approx(1)


def test_distance_correlation_in_many_dimensions_needs_its_correction() -> None:
    random = np.random.default_rng(2)
    pairs = [random.standard_normal((2, 20, 2000)) for _ in range(20)]
    assert min(shapes.distance_correlation(x, y) for x, y in pairs) > 0.95
    assert np.mean([shapes.distance_correlation(x, y, corrected=True) for x, y in pairs]) == pytest.approx(0, abs=0.05)


def test_procrustes_does_not_see_shift_rotation_mirror_and_scale() -> None:
    random = np.random.default_rng(3)
    path = np.cumsum(random.standard_normal((15, 4)), axis=0)
    turn = stats.ortho_group.rvs(4, random_state=0)
    assert shapes.procrustes(path, 3 * path @ turn + 7) == pytest.approx(0, abs=1e-9)
    assert shapes.procrustes(path, -path) == pytest.approx(0, abs=1e-9)
    assert shapes.procrustes(path, np.pad(path @ turn, ((0, 0), (0, 30)))) == pytest.approx(0, abs=1e-9)
    assert shapes.procrustes(path, path @ turn + 1e6) == pytest.approx(0, abs=1e-9)
    other = np.cumsum(random.standard_normal((15, 4)), axis=0)
    assert shapes.procrustes(path, other) == pytest.approx(spatial.procrustes(path, other)[2])
    assert shapes.procrustes(path, other) > 0.05
    narrow = other[:, :2]
    assert shapes.procrustes(path, narrow) == pytest.approx(spatial.procrustes(path, np.pad(narrow, ((0, 0), (0, 2))))[2])


def test_subspaces_with_known_angles() -> None:
    random, d = np.random.default_rng(4), 40
    basis = stats.ortho_group.rvs(d, random_state=1)
    turned = np.stack([np.cos(0.3) * basis[0] + np.sin(0.3) * basis[3], basis[1], np.cos(1.2) * basis[2] + np.sin(1.2) * basis[4]])
    x, y = random.standard_normal((9, 3)) @ basis[:3], random.standard_normal((7, 3)) @ turned
    found = shapes.subspace_overlap(x, y, k=3)
    np.testing.assert_allclose(found.angles_k, [0, 0.3, 1.2], atol=1e-6)
    assert found.overlap == pytest.approx((1 + np.cos(0.3) ** 2 + np.cos(1.2) ** 2) / 3)
    assert found.expected == pytest.approx(3 / 40)
    assert len(shapes.subspace_overlap(x, y, k=30).angles_k) == 3
    first = shapes.subspace_overlap(np.outer([5, -9], basis[0]) + 0.01 * x[:2], np.outer([1, 2, 3], basis[0]), k=1)
    assert first.overlap == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("steps", [6, 60])
def test_leading_directions_are_singular_vectors_of_few_steps_and_of_many(steps: int) -> None:
    random = np.random.default_rng(8)
    x, y = random.standard_normal((2, steps, 20)) * np.linspace(1, 3, 20)
    right = [np.linalg.svd(rows)[2][:3] for rows in (x, y)]
    found = shapes.subspace_overlap(x, y, k=3)
    np.testing.assert_allclose(np.cos(found.angles_k), np.linalg.svd(right[0] @ right[1].T)[1], atol=1e-9)


def test_random_subspaces_overlap_as_expected() -> None:
    random = np.random.default_rng(5)
    found = [shapes.subspace_overlap(random.standard_normal((4, 30)), random.standard_normal((8, 30)), k=6) for _ in range(300)]
    assert found[0].expected == pytest.approx(6 / 30)
    assert len(found[0].angles_k) == 4
    assert np.mean([one.overlap for one in found]) == pytest.approx(6 / 30, rel=0.05)


def test_degenerate_rows_give_nan_and_never_an_exception() -> None:
    good, still = np.random.default_rng(6).standard_normal((6, 3)), np.ones((6, 3))
    bad = good.copy()
    bad[2, 1] = np.nan
    for x, y in ((good, still), (bad, good), (good[:2], good[2:4])):
        assert np.isnan(shapes.distance_correlation(x, y))
        assert np.isnan(shapes.distance_correlation(x, y, corrected=True))
        assert np.isnan(shapes.procrustes(x, y))
    for x, y in ((good, 0 * still), (bad, good)):
        assert np.isnan(shapes.subspace_overlap(x, y).overlap)
    with pytest.raises(ValueError, match="k = 0 must be at least 1"):
        shapes.subspace_overlap(good, good, k=0)
    with pytest.raises(ValueError, match="widths 3 and 2 equal"):
        shapes.subspace_overlap(good, good[:, :2])
