"""Flat pictures of paths: arrays in, seed, arrays out, with the figures that say how far to trust them.

PCA of a random walk draws smooth curves too (its first components are cosines and explain about
0.61, 0.15, 0.07 of the variance: Antognini & Sohl-Dickstein 2018, arXiv:1806.08805), so every
projection comes with the explained variance that random walks of the same update norms have.
Project for the eye; angles and distances are measured elsewhere, before projection.
UMAP and t-SNE, and the choice between methods, are in `analysis.embedding`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import scipy

from analysis.threads import one_thread
from analysis.trajectory import OUTSIDE, Trajectory

if TYPE_CHECKING:  # scikit-learn takes most of a second: it is imported where a function needs it, so that the first page need not wait
    from sklearn.decomposition import PCA

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: What the rows of a path are: running sums of updates, or the updates themselves. Chance differs: a walk, or unrelated directions.
Of = Literal["positions", "updates"]

#: Rows of each path that the basis is fitted on; all rows are then placed in it.
FIT_ROWS = 150
DRAWS = 100
#: Components that chance is computed for at least: pictures have two or three, and the draws are the same.
_WIDEST = 3
#: From so many rows on, the largest eigenvalues of a walk are found alone, which takes a third of the time.
_MANY = 100
#: Draws chance while paths are placed: one at a time, because the same draws are asked for twice.
_BESIDE = ThreadPoolExecutor(1, "chance")


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
    """Paths P in one flat space, each (U + 1) x C, with what the axes explain. `chance` gives what they explain of chance, and may wait for it."""

    paths_P: tuple[Floats, ...]
    explained_C: Doubles
    chance: Callable[[], Null]
    fitted: int

    @property
    def null(self) -> Null:
        return self.chance()


def part_of(trajectory: Trajectory, layer: int | None = None, kind: str | None = None) -> Trajectory:
    """All modules of a path, those of one layer, of one kind, or both; the path itself where these are all.

    `kind` is the last part of a module's path, such as q_proj; `layer` is a block's number, `OUTSIDE` for modules outside the blocks.
    Raises `ValueError` where no module fits, and says what there is.
    """
    chosen = [name for name, number in zip(trajectory.modules_T, trajectory.layers_T, strict=True) if layer in (None, number) and kind in (None, _kind(name))]
    if not chosen:
        raise ValueError(f"no module is of {_asked(layer, kind)}; {_recorded(trajectory)}")
    return trajectory.only(chosen)


def selected(trajectory: Trajectory, layer: int | None = None, kind: str | None = None, of: Of = "positions") -> Floats:
    """One path as rows in weight units, of the modules that `part_of` chooses, which has the errors; D = chosen modules x K.

    Positions are (U + 1, D) with the start (zero) first, updates are (U, D).
    """
    part = part_of(trajectory, layer, kind)
    return part.path_UD() if of == "positions" else part.updates_UD


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
    return Projection(flat, explained, lambda: null, sum(len(kept) for kept in kept_P))


def placed(paths_PUD: Sequence[Doubles], components: int = 2, seed: int = 0) -> tuple[Floats, ...]:
    """The paths that `pca` draws, without its null, for paths that are `checked`."""
    return _principal([path.astype(np.float32) for path in paths_PUD], components, seed)[0]


def _principal(paths: list[Floats], components: int, seed: int) -> tuple[tuple[Floats, ...], Doubles, list[Ints]]:
    """All paths in the components of their kept rows, the share of variance of each component, and the kept rows."""
    kept_P = [spread(len(path), FIT_ROWS) for path in paths]
    model = _fitted(np.concatenate([path[kept] for path, kept in zip(paths, kept_P, strict=True)]), components, seed)
    flat = upright([widened(model.transform(path), components) for path in paths])
    return tuple(flat), _shares_of(model, components), kept_P


def _fitted(rows_ND: Floats, components: int, seed: int) -> PCA:
    from sklearn.decomposition import PCA

    wanted = min(components, *rows_ND.shape)
    return PCA(n_components=wanted, svd_solver="full" if min(rows_ND.shape) < 50 else "randomized", random_state=seed).fit(rows_ND)


def _shares_of(model: PCA, components: int) -> Doubles:
    shares_C: Doubles = widened(np.nan_to_num(model.explained_variance_ratio_)[None], components)[0].astype(np.float64)
    return shares_C


def random_walk_null(
    norms_PU: Sequence[npt.ArrayLike], dimensions: int, components: int = 2, seed: int = 0, draws: int = DRAWS, *, of: Of = "positions"
) -> Null:
    """Explained variance of PCA on independent random walks whose updates have these norms; of updates: on those updates."""
    norms = tuple(np.asarray(path, dtype=np.float64).tobytes() for path in norms_PU)
    shares_RC = _by_draw(norms, dimensions, max(components, _WIDEST), seed, draws, of)[:, :components]
    low, high = np.percentile(shares_RC, [2.5, 97.5], axis=0)
    sums_R = shares_RC.sum(axis=1)
    together = (float(sums_R.mean()), float(np.percentile(sums_R, 2.5)), float(np.percentile(sums_R, 97.5)))
    return Null(shares_RC.mean(axis=0), low, high, together, draws)


@functools.lru_cache(maxsize=64)
def _by_draw(norms_P: tuple[bytes, ...], dimensions: int, components: int, seed: int, draws: int, of: Of) -> Doubles:
    """Explained variance of each draw. The same norms give the same numbers, so a picture in other dimensions need not draw again."""
    norms, random = [np.frombuffer(path) for path in norms_P], np.random.default_rng(seed)
    with one_thread():
        return np.stack([_explained(_gram(by_chance(norms, dimensions, random, of)), components, of) for _ in range(draws)])


# --- paths that are long -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """One path to draw, in weight units times `scale`, of which only those rows are made that are asked for.

    What does not depend on the scale stays with `path` (`Trajectory.survey`), so that the same path in another scale, or in three dimensions
    in place of two, costs one pass over its updates.
    """

    path: Trajectory
    of: Of
    rows_N: Ints
    """The rows that can be had, in order; the kept ones (`kept`) are among them."""
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.path.updates_U) + (self.of == "positions")

    @property
    def kept(self) -> Ints:
        """The rows that a basis is fitted on."""
        return spread(len(self), FIT_ROWS)

    @property
    def reach(self) -> float:
        """The longest row, in weight units."""
        return self.path.survey(self.rows_N).reach if self.of == "positions" else float(np.sqrt(self.path.squares_U.max(initial=0.0)))

    def at(self, rows_N: Ints) -> Floats:
        """Some of the rows that can be had."""
        if self.of == "updates":
            return self.path.updates_UD[rows_N] * np.float32(self.scale)
        found = self.path.survey(self.rows_N).positions_ND
        return found[np.searchsorted(self.rows_N, rows_N)] * np.float32(self.scale)

    def onto(self, axes_CD: Floats) -> Doubles:
        """All rows along some axes, (rows, C). Sums and axes commute, so no position is placed for it."""
        along_UC = (self.path.updates_UD @ axes_CD.T).astype(np.float64)
        if self.of == "positions":
            along_UC = np.concatenate([np.zeros((1, along_UC.shape[1])), np.cumsum(along_UC, axis=0)])
        return along_UC * self.scale

    def norms(self) -> Doubles:
        """Lengths that chance needs to imitate the kept rows (`chance_norms`)."""
        total = np.concatenate([[0.0], np.cumsum(self.path.squares_U)]) * self.scale**2
        return np.sqrt(np.diff(total[self.kept])) if self.of == "positions" else np.sqrt(self.path.squares_U[self.kept]) * self.scale

    def moves(self) -> bool:
        return self.reach > 0 if self.of == "positions" else bool((self.path.updates_UD != self.path.updates_UD[:1]).any())


def routes(paths: Sequence[Trajectory], of: Of = "positions", *, same_length: bool = False, also: int = 0) -> list[Route]:
    """The paths as `drawn` takes them, of `same_length` each scaled to reach 1; `also` so many rows can be had, evenly spread over all of them."""
    counts = [len(path.updates_U) + (of == "positions") for path in paths]
    more_P = apart(spread(sum(counts), also), counts) if also else [np.zeros(0, dtype=np.int64)] * len(counts)
    found = [Route(path, of, np.union1d(spread(count, FIT_ROWS), more)) for path, count, more in zip(paths, counts, more_P, strict=True)]
    return [replace(one, scale=1 / one.reach) if one.reach > 0 else one for one in found] if same_length else found


def apart(rows_N: Ints, counts: Sequence[int]) -> list[Ints]:
    """Numbers of rows of paths that lie one under the other, as numbers of rows of each path."""
    ends = np.cumsum([0, *counts])
    return [rows_N[(rows_N >= begin) & (rows_N < end)] - begin for begin, end in itertools.pairwise(ends)]


def drawn(paths: Sequence[Route], components: int = 2, seed: int = 0) -> Projection:
    """What `pca` finds for these paths, with its errors. Chance knows lengths only, so that it is drawn beside them."""
    _check(paths)
    width = paths[0].path.updates_UD.shape[1]
    chance = _BESIDE.submit(random_walk_null, [path.norms() for path in paths], width, components, seed, of=paths[0].of)
    with one_thread():
        model = _fitted(np.concatenate([path.at(path.kept) for path in paths]), components, seed)
        centre_C = model.mean_ @ model.components_.T
        flat = upright([widened(path.onto(model.components_) - centre_C, components) for path in paths])
    return Projection(tuple(flat), _shares_of(model, components), chance.result, sum(len(path.kept) for path in paths))


def _check(paths: Sequence[Route]) -> None:
    """Errors as in `checked`."""
    of = paths[0].of if paths else "positions"
    finite = lambda: all(np.isfinite(path.path.squares_U).all() for path in paths)  # noqa: E731
    _refuse([(len(path), path.path.updates_UD.shape[1]) for path in paths], of, finite, lambda: any(path.moves() for path in paths))


# --- input -------------------------------------------------------------------------------------------


def checked(paths_PUD: Sequence[npt.ArrayLike], of: Of = "positions") -> list[Floats]:
    """The paths as single-precision arrays, or a `ValueError` that says why they cannot be drawn."""
    paths = [np.asarray(path, dtype=np.float32) for path in paths_PUD]
    finite = lambda: all(np.isfinite(path).all() for path in paths)  # noqa: E731
    _refuse([path.shape for path in paths], of, finite, lambda: any(np.ptp(path, axis=0).max() > 0 for path in paths))
    return paths


def _refuse(shapes: Sequence[tuple[int, ...]], of: Of, finite: Callable[[], bool], moves: Callable[[], bool]) -> None:
    """`ValueError` for paths, given as (rows, width), that cannot be drawn."""
    rows = [shape[0] for shape in shapes]
    if sum(rows) < 3 or (of == "positions" and sum(rows) - len(rows) < 2):
        raise ValueError("a path needs at least two updates before it can be drawn, updates themselves at least three")
    if any(0 in shape for shape in shapes):
        raise ValueError("a path is empty; leave out roles that made no update")
    if len({shape[1] for shape in shapes}) != 1:
        raise ValueError("these paths have different widths; bring them into one space first")
    if not finite():
        raise ValueError("a path holds numbers that are not finite; the run has diverged there")
    if not moves():
        raise ValueError("no weight has moved: all positions are equal" if of == "positions" else "all updates are equal: there is no shape to draw")


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


def _explained(gram: Doubles, components: int, of: Of) -> Doubles:
    """Shares of the largest eigenvalues. Those of a walk fall steeply, so that iteration finds them; those of unrelated updates lie too close."""
    total = np.trace(gram)
    if not total > 0:
        return np.zeros(components)
    quick = of == "positions" and len(gram) >= _MANY
    values = scipy.sparse.linalg.eigsh(gram, components, v0=gram[0], return_eigenvectors=False) if quick else np.linalg.eigvalsh(gram)
    shares = np.sort(values)[::-1][:components] / total
    return np.asarray(np.pad(shares, (0, components - len(shares))))


def widened(points_UC: npt.NDArray[np.floating], components: int) -> Floats:
    """Missing components (too few rows) become zeros."""
    return np.pad(points_UC, ((0, 0), (0, components - points_UC.shape[1]))).astype(np.float32)


def upright(paths: list[Floats]) -> list[Floats]:
    """Signs of components are arbitrary; the longest path ends on the positive side, so live pictures do not flip."""
    lead = max(paths, key=lambda path: float(np.abs(path[-1]).sum()))
    sign = np.where(lead[-1] < lead[0], -1.0, 1.0).astype(np.float32)
    return [path * sign for path in paths]
