"""Curved pictures of paths: UMAP, t-SNE and, for comparison, PCA under one door, each with its own quality and that of chance.

UMAP (McInnes, Healy & Melville 2018, arXiv:1802.03426) and t-SNE (van der Maaten & Hinton 2008, JMLR 9) keep
neighbours, not distances, angles or densities: gaps, sizes and turns in such a picture say nothing about weights.
They have no axes that mean anything and cannot place new rows, so a live picture changes as a whole.
Left out: measuring (before projection, elsewhere) and predicting where a path goes.

The first UMAP of a process imports for about 2 s and compiles for about 9 s. Six pictures are drawn for one
(three seeds, of the paths and of chance): for 1,000 rows that takes about 10 s by UMAP and 15 s by t-SNE on one core.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from analysis import projection
from analysis.projection import Doubles, Floats, Ints, Of
from analysis.quality import Quality, in_words, principal_coordinates, quality
from analysis.threads import one_thread

#: Rows of all paths together that are drawn; of more, each path keeps its share, evenly spread.
ROWS = 500
#: Principal components that neighbours are looked for in.
WIDTH = 50
#: Pictures drawn, of this seed and the next ones, to see whether they agree.
SEEDS = 3
FEWEST = 5
#: Noise on the start of UMAP and t-SNE, in standard deviations of the first principal component.
BLUR = 0.1

#: Paths with equal columns, components and seed in; all rows, one under the other, as (N, C) out.
Method = Callable[[Sequence[Doubles], int, int], npt.NDArray[np.floating]]
METHODS: dict[str, Method] = {}

#: Where numba finds neither OpenMP nor TBB, two callers at once end the whole process.
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Embedding:
    """Paths P as drawn, each (kept rows, C) without unit; what the picture keeps, and what the same method keeps of chance."""

    method: str
    paths_P: tuple[Floats, ...]
    rows_P: tuple[Ints, ...]
    """Which rows of each path were drawn: all of them up to `ROWS` in all."""
    seed: int
    quality: Quality
    null: Quality
    """Of one draw of random walks with the same update norms; for updates, of unrelated directions of the same norms."""

    @property
    def words(self) -> str:
        return in_words(self.quality, self.null)


def umap(paths_PUD: Sequence[npt.ArrayLike], components: int = 2, seed: int = 0, *, of: Of = "positions") -> Embedding:
    """UMAP of all paths together. Errors as in `project`."""
    return project("umap", paths_PUD, components, seed, of=of)


def tsne(paths_PUD: Sequence[npt.ArrayLike], components: int = 2, seed: int = 0, *, of: Of = "positions") -> Embedding:
    """t-SNE of all paths together. Errors as in `project`."""
    return project("tsne", paths_PUD, components, seed, of=of)


def project(method: str, paths_PUD: Sequence[npt.ArrayLike], components: int = 2, seed: int = 0, *, of: Of = "positions") -> Embedding:
    """All paths in one picture by pca, umap or tsne, its quality, and the quality of the same method on chance.

    `of` says what the rows are, because it decides what chance is. Explained variance is in `projection.pca`.
    Raises `ValueError` for an unknown method, for 1 or more than 3 components, for fewer than `FEWEST` rows in all,
    for unequal widths, for numbers that are not finite, and where nothing differs.
    """
    draw = _chosen(method, components)
    paths = projection.checked(paths_PUD, of)
    rows_P = _thinned([len(path) for path in paths])
    norms = [projection.chance_norms(path, rows, of) for path, rows in zip(paths, rows_P, strict=True)]
    chance = projection.by_chance(norms, paths[0].shape[1], np.random.default_rng(seed), of)
    kept = projection.checked([path[rows] for path, rows in zip(paths, rows_P, strict=True)], of)  # what is left may be equal
    drawn, found = _drawn(draw, kept, components, seed)
    _, null = _drawn(draw, chance, components, seed)
    return Embedding(method, tuple(projection.upright(drawn)), rows_P, seed, found, null)


# --- methods: one function each ----------------------------------------------------------------------


def method(function: Method) -> Method:
    """Register a method under its function's name, without the leading underscore."""
    METHODS[function.__name__.lstrip("_")] = function
    return function


@method
def _pca(paths_PUR: Sequence[Doubles], components: int, seed: int) -> npt.NDArray[np.floating]:
    return np.concatenate(projection.placed(paths_PUR, components, seed))


@method
def _umap(paths_PUR: Sequence[Doubles], components: int, seed: int) -> npt.NDArray[np.floating]:
    """15 neighbours or all others, minimal distance 0.1 (the library's defaults)."""
    rows = _leading(paths_PUR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensorflow on import, and about threads
        from umap import UMAP

        model = UMAP(n_components=components, n_neighbors=min(15, len(rows) - 1), init=_start(rows, components, seed), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(rows))


@method
def _tsne(paths_PUR: Sequence[Doubles], components: int, seed: int) -> npt.NDArray[np.floating]:
    """Perplexity 30 or, of fewer than 91 rows, a third of the others; Barnes-Hut, so at most 3 components."""
    from sklearn.manifold import TSNE

    rows = _leading(paths_PUR)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    start = 1e-4 * _start(rows, components, seed)  # the size that scikit-learn gives its own starts
    return np.asarray(TSNE(components, perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(rows))


def _leading(paths_PUR: Sequence[Doubles]) -> Floats:
    """The first `WIDTH` coordinates of all rows, scaled to reach 1: bandwidths are searched for in single precision."""
    rows = np.concatenate(paths_PUR)[:, :WIDTH]
    return np.asarray(rows / np.abs(rows).max(), dtype=np.float32)


def _start(rows_NR: Floats, components: int, seed: int) -> Floats:
    """The principal components, blurred: where a picture starts decides its large shape (Kobak & Linderman 2021, Nat. Biotechnol. 39).

    Without the blur t-SNE would not depend on the seed at all, and that its seeds agree would say nothing.
    """
    noise = np.random.default_rng(seed).standard_normal((len(rows_NR), components))
    first = projection.widened(rows_NR[:, :components], components) / rows_NR[:, 0].std()
    return np.asarray(first + BLUR * noise, dtype=np.float32)


# --- parts -------------------------------------------------------------------------------------------


def _chosen(name: str, components: int) -> Method:
    if name not in METHODS:
        raise ValueError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    if components not in (2, 3):
        raise ValueError(f"pictures have 2 or 3 components, not {components}")
    return METHODS[name]


def _thinned(counts: Sequence[int]) -> tuple[Ints, ...]:
    """The rows of each path that are drawn."""
    total = sum(counts)
    if total < FEWEST:
        raise ValueError(f"neighbours need at least {FEWEST} rows in all, not {total}; let the run go on, or draw it with projection.pca")
    share = min(1.0, ROWS / total)
    return tuple(projection.spread(count, max(2, int(count * share))) for count in counts)


def _drawn(draw: Method, paths: Sequence[npt.NDArray[np.floating]], components: int, seed: int) -> tuple[list[Floats], Quality]:
    """The paths in the picture of `seed`, and how it compares with the points and with the next seeds' pictures."""
    points_NR = principal_coordinates(np.concatenate(paths))
    cuts = np.cumsum([len(path) for path in paths])[:-1]
    with _ONE_AT_A_TIME, one_thread():  # sums over threads come in any order: not the same bytes twice
        first, *others = [draw(np.split(points_NR, cuts), components, seed + i) for i in range(SEEDS)]
    return np.split(first.astype(np.float32), cuts), quality(points_NR, first, others)
