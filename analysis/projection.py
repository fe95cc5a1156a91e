"""Flat pictures of paths: arrays in, seed, arrays out, with the figures that say how far to trust them.

PCA of a random walk draws smooth curves too (its first components are cosines and explain about
0.61, 0.15, 0.07 of the variance: Antognini & Sohl-Dickstein 2018, arXiv:1806.08805), so every
projection comes with the explained variance that random walks of the same update norms have.
Project for the eye; angles and distances are measured elsewhere, before projection.
UMAP and t-SNE, and the choice between methods, are in `analysis.embedding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from analysis.trajectory import OUTSIDE, Trajectory

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: What the rows of a path are: running sums of updates, or the updates themselves. Chance differs: a walk, or unrelated directions.
Of = Literal["positions", "updates"]

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


def selected(trajectory: Trajectory, layer: int | None = None, kind: str | None = None, of: Of = "positions") -> Floats:
    """One path to draw: all modules, those of one layer, of one kind, or both; D = chosen modules x K, in weight units.

    Positions are (U + 1, D) with the start (zero) first, updates are (U, D). `kind` is the last part of a
    module's path, such as q_proj; `layer` is a block's number, `OUTSIDE` for modules outside the blocks.
    Raises `ValueError` where no module fits, and says what there is.
    """
    chosen = [name for name, number in zip(trajectory.modules_T, trajectory.layers_T, strict=True) if layer in (None, number) and kind in (None, _kind(name))]
    if not chosen:
        raise ValueError(f"no module is of {_asked(layer, kind)}; {_recorded(trajectory)}")
    part = trajectory.only(chosen)
    return part.path_UD() if of == "positions" else part.sketches_UTK.reshape(len(part.updates_U), -1)


def _kind(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _asked(layer: int | None, kind: str | None) -> str:
    return " and ".join([f"layer {layer}"] * (layer is not None) + [f"kind {kind}"] * (kind is not None)) or "this trajectory"


def _recorded(trajectory: Trajectory) -> str:
    layers = ", ".join(str(number) for number in sorted(set(trajectory.layers_T.tolist()))) or "none"
    kinds = ", ".join(sorted({_kind(name) for name in trajectory.modules_T})) or "none"
    return f"recorded layers: {layers} ({OUTSIDE} is outside the blocks); recorded kinds: {kinds}"


def pca(paths_PUD: Sequence[npt.ArrayLike], components: int = 2, seed: int = 0, *, of: Of = "positions") -> Projection:
    """Principal components of all paths together, and beside them what chance explains: random walks, or for updates unrelated directions.

    Raises `ValueError` for fewer than two updates in all (three where they are drawn themselves), for unequal widths,
    for numbers that are not finite, and where nothing differs.
    """
    paths = checked(paths_PUD, of)
    flat, explained, kept_P = _principal(paths, components, seed)
    norms = [chance_norms(path, kept, of) for path, kept in zip(paths, kept_P, strict=True)]
    null = random_walk_null(norms, paths[0].shape[1], components, seed, of=of)
    return Projection(flat, explained, null, sum(len(kept) for kept in kept_P))


def placed(paths_PUD: Sequence[Doubles], components: int = 2, seed: int = 0) -> tuple[Floats, ...]:
    """The paths that `pca` draws, without its null, for paths that are `checked`."""
    return _principal([path.astype(np.float32) for path in paths_PUD], components, seed)[0]


def _principal(paths: list[Floats], components: int, seed: int) -> tuple[tuple[Floats, ...], Doubles, list[Ints]]:
    """All paths in the components of their kept rows, the share of variance of each component, and the kept rows."""
    kept_P = [spread(len(path), FIT_ROWS) for path in paths]
    rows = np.concatenate([path[kept] for path, kept in zip(paths, kept_P, strict=True)])
    wanted = min(components, *rows.shape)
    model = PCA(n_components=wanted, svd_solver="full" if min(rows.shape) < 50 else "randomized", random_state=seed).fit(rows)
    flat = upright([widened(model.transform(path), components) for path in paths])
    explained = widened(np.nan_to_num(model.explained_variance_ratio_)[None], components)[0].astype(np.float64)
    return tuple(flat), explained, kept_P


def random_walk_null(
    norms_PU: Sequence[npt.ArrayLike], dimensions: int, components: int = 2, seed: int = 0, draws: int = DRAWS, *, of: Of = "positions"
) -> Null:
    """Explained variance of PCA on independent random walks whose updates have these norms; of updates: on those updates."""
    norms = [np.asarray(path, dtype=np.float64) for path in norms_PU]
    random = np.random.default_rng(seed)
    shares_RC = np.stack([_explained(_gram(by_chance(norms, dimensions, random, of)), components) for _ in range(draws)])
    low, high = np.percentile(shares_RC, [2.5, 97.5], axis=0)
    sums_R = shares_RC.sum(axis=1)
    together = (float(sums_R.mean()), float(np.percentile(sums_R, 2.5)), float(np.percentile(sums_R, 97.5)))
    return Null(shares_RC.mean(axis=0), low, high, together, draws)


# --- input -------------------------------------------------------------------------------------------


def checked(paths_PUD: Sequence[npt.ArrayLike], of: Of = "positions") -> list[Floats]:
    """The paths as single-precision arrays, or a `ValueError` that says why they cannot be drawn."""
    paths = [np.asarray(path, dtype=np.float32) for path in paths_PUD]
    if sum(len(path) for path in paths) < 3 or (of == "positions" and sum(len(path) - 1 for path in paths) < 2):
        raise ValueError("a path needs at least two updates before it can be drawn, updates themselves at least three")
    if not all(path.size for path in paths):
        raise ValueError("a path is empty; leave out roles that made no update")
    if len({path.shape[1] for path in paths}) != 1:
        raise ValueError("these paths have different widths; bring them into one space first")
    if not all(np.isfinite(path).all() for path in paths):
        raise ValueError("a path holds numbers that are not finite; the run has diverged there")
    if all(np.ptp(path, axis=0).max() == 0 for path in paths):
        raise ValueError("no weight has moved: all positions are equal" if of == "positions" else "all updates are equal: there is no shape to draw")
    return paths


def spread(count: int, most: int) -> Ints:
    """At most `most` row numbers, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


# --- chance ------------------------------------------------------------------------------------------


def chance_norms(path_UD: npt.NDArray[np.floating], kept: Ints, of: Of) -> Doubles:
    """Lengths that `by_chance` needs to imitate the kept rows of a path, in its units."""
    if of == "updates":
        return np.asarray(np.sqrt(np.square(path_UD[kept], dtype=np.float64).sum(axis=1)))
    return _walk_norms(path_UD, kept)


def _walk_norms(path_UD: npt.NDArray[np.floating], kept: Ints) -> Doubles:
    """Length of a random walk's way between the kept rows: squares of the updates in between add up."""
    squares = np.square(np.diff(path_UD, axis=0), dtype=np.float64).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(squares)])
    return np.sqrt(np.diff(total[kept]))


def by_chance(norms_PU: Sequence[Doubles], dimensions: int, random: np.random.Generator, of: Of = "positions") -> list[Doubles]:
    """One draw of independent paths in random directions: walks of these update norms from zero, or the updates alone.

    Columns are as few as keep all distances of `dimensions` of them.
    """
    updates = _directions(sum(len(norms) for norms in norms_PU), dimensions, random) * np.concatenate(norms_PU)[:, None]
    parts = np.split(updates, np.cumsum([len(norms) for norms in norms_PU])[:-1])
    if of == "updates":
        return parts
    return [np.concatenate([np.zeros((1, part.shape[1])), np.cumsum(part, axis=0)]) for part in parts]


def _gram(paths: Sequence[Doubles]) -> Doubles:
    """Inner products of all rows around their common mean."""
    rows = np.concatenate(paths)
    rows -= rows.mean(axis=0)
    return np.asarray(rows @ rows.T)


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


def widened(points_UC: npt.NDArray[np.floating], components: int) -> Floats:
    """Missing components (too few rows) become zeros."""
    return np.pad(points_UC, ((0, 0), (0, components - points_UC.shape[1]))).astype(np.float32)


def upright(paths: list[Floats]) -> list[Floats]:
    """Signs of components are arbitrary; the longest path ends on the positive side, so live pictures do not flip."""
    lead = max(paths, key=lambda path: float(np.abs(path[-1]).sum()))
    sign = np.where(lead[-1] < lead[0], -1.0, 1.0).astype(np.float32)
    return [path * sign for path in paths]
