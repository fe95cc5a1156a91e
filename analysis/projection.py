"""Flat pictures of paths: arrays in, seed, arrays out, with the figures that say how far to trust them.

PCA of a random walk draws smooth curves too (its first components are cosines and explain about
0.61, 0.15, 0.07 of the variance: Antognini & Sohl-Dickstein 2018, arXiv:1806.08805), so every
projection comes with the explained variance that random walks of the same update norms have.
Project for the eye; angles and distances are measured elsewhere, before projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: Rows of each path that the basis is fitted on; all rows are then placed in it.
FIT_ROWS = 150
DRAWS = 100


@dataclass(frozen=True)
class Null:
    """Explained variance of random walks: mean and central 95 % range, per component C and of all C together."""

    mean_C: Doubles
    low_C: Doubles
    high_C: Doubles
    together: tuple[float, float, float]
    draws: int


@dataclass(frozen=True)
class Projection:
    """Paths P in one flat space, each (U + 1) x C, with what the axes explain."""

    paths_P: tuple[Floats, ...]
    explained_C: Doubles
    null: Null
    fitted: int


def pca(paths_PUD: Sequence[npt.ArrayLike], components: int = 2, seed: int = 0) -> Projection:
    """Principal components of all paths together, and the random-walk null beside them.

    Raises `ValueError` for fewer than two updates in all, for unequal widths, and for numbers that are not finite.
    """
    paths = [np.asarray(path, dtype=np.float32) for path in paths_PUD]
    _check(paths)
    fit_rows = [_spread(len(path), FIT_ROWS) for path in paths]
    rows = np.concatenate([path[index] for path, index in zip(paths, fit_rows, strict=True)])
    wanted = min(components, *rows.shape)
    model = PCA(n_components=wanted, svd_solver="full" if min(rows.shape) < 50 else "randomized", random_state=seed).fit(rows)
    flat = [_widen(model.transform(path), components) for path in paths]
    steps = [_walk_norms(path, index) for path, index in zip(paths, fit_rows, strict=True)]
    null = random_walk_null(steps, rows.shape[1], components, seed)
    explained = _widen(np.nan_to_num(model.explained_variance_ratio_)[None], components)[0].astype(np.float64)
    return Projection(tuple(_upright(flat)), explained, null, len(rows))


def random_walk_null(norms_PU: Sequence[npt.ArrayLike], dimensions: int, components: int = 2, seed: int = 0, draws: int = DRAWS) -> Null:
    """Explained variance of PCA on independent random walks whose updates have these norms."""
    norms = [np.asarray(path, dtype=np.float64) for path in norms_PU]
    random = np.random.default_rng(seed)
    shares_RC = np.stack([_explained(_walk_gram(norms, dimensions, random), components) for _ in range(draws)])
    low, high = np.percentile(shares_RC, [2.5, 97.5], axis=0)
    sums_R = shares_RC.sum(axis=1)
    together = (float(sums_R.mean()), float(np.percentile(sums_R, 2.5)), float(np.percentile(sums_R, 97.5)))
    return Null(shares_RC.mean(axis=0), low, high, together, draws)


def _check(paths: list[Floats]) -> None:
    if not paths or sum(len(path) - 1 for path in paths) < 2:
        raise ValueError("a path needs at least two updates before it can be drawn")
    if len({path.shape[1] for path in paths}) != 1:
        raise ValueError("these paths have different widths; bring them into one space first")
    if not all(np.isfinite(path).all() for path in paths):
        raise ValueError("a path holds numbers that are not finite; the run has diverged there")
    if all(np.ptp(path, axis=0).max() == 0 for path in paths):
        raise ValueError("no weight has moved: all positions are equal")


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` row numbers, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _walk_norms(path_UD: Floats, index: npt.NDArray[np.int64]) -> Doubles:
    """Length of a random walk's way between the kept rows: squares of the updates in between add up."""
    squares = np.square(np.diff(path_UD, axis=0), dtype=np.float64).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(squares)])
    return np.sqrt(np.diff(total[index]))


def _walk_gram(norms_PU: list[Doubles], dimensions: int, random: np.random.Generator) -> Doubles:
    """Inner products of all positions of one draw of independent walks, starts at zero."""
    steps = np.concatenate(norms_PU)
    factor = _directions(len(steps), dimensions, random) * steps[:, None]
    rows, at = [], 0
    for norms in norms_PU:
        walk = np.cumsum(factor[at : at + len(norms)], axis=0)
        rows += [np.zeros((1, walk.shape[1])), walk]
        at += len(norms)
    positions = np.concatenate(rows)
    positions -= positions.mean(axis=0)
    return np.asarray(positions @ positions.T)


def _directions(count: int, dimensions: int, random: np.random.Generator) -> Doubles:
    """`count` isotropic Gaussian directions of mean square 1, in as few coordinates as they need.

    For more dimensions than directions, Bartlett's triangle has exactly the inner products of the
    full draw (a Wishart matrix) at a hundredth of its cost.
    """
    if dimensions <= count:
        return np.asarray(random.standard_normal((count, dimensions)) / np.sqrt(dimensions))
    triangle = np.tril(random.standard_normal((count, count)), -1)
    triangle[np.diag_indices(count)] = np.sqrt(random.chisquare(dimensions - np.arange(count)))
    return np.asarray(triangle / np.sqrt(dimensions))


def _explained(gram: Doubles, components: int) -> Doubles:
    values = np.linalg.eigvalsh(gram)[::-1][:components]
    total = np.trace(gram)
    shares = values / total if total > 0 else np.zeros_like(values)
    return np.asarray(np.pad(shares, (0, components - len(shares))))


def _widen(points_UC: npt.NDArray[np.floating], components: int) -> Floats:
    """Missing components (too few rows) become zeros."""
    return np.pad(points_UC, ((0, 0), (0, components - points_UC.shape[1]))).astype(np.float32)


def _upright(paths: list[Floats]) -> list[Floats]:
    """Signs of components are arbitrary; the longest path ends on the positive side, so live pictures do not flip."""
    lead = max(paths, key=lambda path: float(np.abs(path[-1]).sum()))
    sign = np.where(lead[-1] < lead[0], -1.0, 1.0).astype(np.float32)
    return [path * sign for path in paths]
