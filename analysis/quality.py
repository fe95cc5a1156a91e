"""How far a flat picture may be trusted: are neighbours kept, can distances be read, does another seed draw the same?

Numbers of one picture only: (N, D) points as they are, (N, C) points as drawn. A picture of a random walk
keeps its neighbours too, so `analysis.embedding` gives the same numbers of a random walk beside these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import scipy

from analysis.projection import Doubles, Ints, spread

#: Points that distances and neighbours are taken of; of more, so many evenly spread ones.
POINTS = 1000
NEIGHBOURS = 10
#: From so many numbers in a row on, distances are taken from inner products: a matrix product is much faster than all differences.
WIDE = 64

#: From here on the words of `in_words` hold, best first. Conventions of this project, not laws.
_KEPT = ((0.95, "neighbours are kept"), (0.85, "most neighbours are kept"), (-np.inf, "neighbours are not kept"))
_ORDER = ((0.9, "distances are in the right order"), (0.7, "distances are to be read with care"), (-np.inf, "distances are not to be read"))
_AGAIN = ((0.2, "another seed gives another picture"), (0.05, "another seed moves parts of the picture"), (-np.inf, "another seed gives a similar picture"))


@dataclass(frozen=True)
class Stability:
    """Procrustes disparity between pictures of different seeds: 0 is the same picture, 1 an unrelated one; over all pairs of `pictures`."""

    mean: float
    low: float
    high: float
    pictures: int


@dataclass(frozen=True)
class Quality:
    """What one picture keeps of its points; numbers without unit, NaN where they are undefined."""

    trustworthiness: float
    """1 if all who are neighbours in the picture are neighbours; about 0.5 for a shuffled picture."""
    continuity: float
    """1 if all neighbours are neighbours in the picture; about 0.5 for a shuffled picture."""
    rank_correlation: float
    """Spearman's rank correlation of all distances, before and in the picture."""
    stability: Stability
    points: int
    """Distinct points that these numbers are of: at most `POINTS`, evenly spread; equal ones count once."""
    neighbours: int
    """Neighbours of each point that were looked at; 0 if the points are too few."""


def quality(high_ND: npt.ArrayLike, flat_NC: npt.ArrayLike, others: Sequence[npt.ArrayLike] = ()) -> Quality:
    """Trustworthiness, continuity, rank correlation of distances; stability against `others`, the (N, C) pictures of other seeds.

    Trustworthiness and continuity as in Venna & Kaski 2001 (ICANN), continuity being trustworthiness with the spaces
    swapped, over k = min(10, (N - 1) // 2) neighbours: 1 - 2 / (N k (2N - 3k - 1)) x sum of (rank - k) over wrong neighbours.
    Raises `ValueError` for unequal numbers of rows and for numbers that are not finite.
    """
    high, pictures = np.asarray(high_ND), [np.asarray(picture, dtype=np.float64) for picture in (flat_NC, *others)]
    _check(high, pictures)
    kept = spread(len(high), POINTS)
    pictures = [picture[kept] for picture in pictures]
    real_NN = _distances(high[kept])
    distinct = _distinct(real_NN)
    real_NN, drawn_NN = real_NN[np.ix_(distinct, distinct)], scipy.spatial.distance.cdist(pictures[0][distinct], pictures[0][distinct])
    k = max(0, min(NEIGHBOURS, (len(real_NN) - 1) // 2))
    real, flat = _order(real_NN), _order(drawn_NN)
    ranks = _rank_correlation(scipy.spatial.distance.squareform(real_NN, checks=False), scipy.spatial.distance.squareform(drawn_NN, checks=False))
    return Quality(_kept(real, flat, k), _kept(flat, real, k), ranks, stability(pictures), len(real), k)


def rank_correlation(one_ND: npt.ArrayLike, other_NC: npt.ArrayLike) -> float:
    """Spearman's rank correlation of all pairwise distances; NaN for fewer than three points and where all distances are equal."""
    return _rank_correlation(*(scipy.spatial.distance.pdist(np.asarray(points, dtype=np.float64)) for points in (one_ND, other_NC)))


def _rank_correlation(one: Doubles, other: Doubles) -> float:
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(one, other).statistic)


def stability(pictures: Sequence[npt.ArrayLike]) -> Stability:
    """Mean and range of the Procrustes disparity of all pairs of pictures (Gower 1975): what differs after shift, turn, mirror and scale.

    NaN for fewer than two pictures and for pictures that are a single point.
    """
    drawn = [np.asarray(picture, dtype=np.float64) for picture in pictures]
    if len(drawn) < 2 or any(not picture.size or np.ptp(picture, axis=0).max() == 0 for picture in drawn):
        return Stability(float("nan"), float("nan"), float("nan"), len(drawn))
    found = [float(scipy.spatial.procrustes(one, other)[2]) for one, other in combinations(drawn, 2)]
    return Stability(float(np.mean(found)), min(found), max(found), len(drawn))


def principal_coordinates(rows_ND: npt.ArrayLike) -> Doubles:
    """The same points in at most N - 1 coordinates, widest first, all distances kept (Gower 1966): for rows far wider than many.

    Directions that hold less than 1e-12 of the widest one's variance are rounding, and are left out;
    where all points are equal, one coordinate of zeros is left.
    """
    from sklearn.decomposition import KernelPCA

    gram = _inner_products(np.asarray(rows_ND))
    scale = float(np.trace(gram))  # the cut-off for rounding is partly absolute
    if scale == 0:
        return np.zeros((len(gram), 1))
    points = KernelPCA(n_components=None, kernel="precomputed", eigen_solver="dense").fit_transform(gram / scale)
    return np.asarray(points * np.sqrt(scale), dtype=np.float64)


def in_words(found: Quality, null: Quality | None = None) -> str:
    """One plain sentence; the number for neighbours is the smaller of trustworthiness and continuity. `null`: the same of a random walk."""
    parts = [
        _said(_least(found), _KEPT, "", "whether neighbours are kept"),
        _said(found.rank_correlation, _ORDER, "rank correlation ", "whether distances can be read"),
        _said(found.stability.mean, _AGAIN, "", "what another seed gives"),
    ]
    chance = ", ".join(_number(value) for value in (_least(null), null.rank_correlation, null.stability.mean)) if null else ""
    return ", ".join(parts) + (f"; chance with updates of the same norms has {chance}" if null else "")


# --- parts -------------------------------------------------------------------------------------------


def _check(high: npt.NDArray[np.floating], pictures: Sequence[Doubles]) -> None:
    counts = {len(high), *(len(picture) for picture in pictures)}
    if len(counts) != 1:
        raise ValueError(f"pictures and points must have the same rows, not {', '.join(map(str, sorted(counts)))}")
    if not all(np.isfinite(points).all() for points in (high, *pictures)):
        raise ValueError("points and pictures must be finite; leave out updates after a run has diverged")


def _distances(rows_ND: npt.NDArray[np.floating]) -> Doubles:
    """All distances, in double precision and without a wide copy: of rows far from zero single precision would lose the last digits."""
    if rows_ND.shape[1] < WIDE:
        return np.asarray(scipy.spatial.distance.cdist(rows_ND, rows_ND))
    gram_NN = _inner_products(rows_ND)
    squares_N = np.diagonal(gram_NN)
    found = np.sqrt(np.maximum(squares_N[:, None] + squares_N - 2 * gram_NN, 0))
    np.fill_diagonal(found, 0)
    return np.asarray(found)


def _inner_products(rows_ND: npt.NDArray[np.floating], width: int = 4096) -> Doubles:
    """Inner products around the first row, in double precision and blocks of columns: a whole double-precision copy may not fit into memory.

    Around the first row, not the mean, because equal rows then are zero without rounding.
    """
    gram_NN = np.zeros((len(rows_ND), len(rows_ND)))
    for at in range(0, rows_ND.shape[1], width):
        block = rows_ND[:, at : at + width].astype(np.float64)
        block -= block[:1]
        gram_NN += block @ block.T
    return gram_NN


def _distinct(distances_NN: Doubles) -> npt.NDArray[np.bool_]:
    """Which points are the first of those that single precision cannot tell apart: the order of equals is no finding."""
    equal_NN = distances_NN <= np.finfo(np.float32).eps * distances_NN.max(initial=0.0)
    return np.asarray(~np.tril(equal_NN, -1).any(axis=1))


def _order(distances_NN: Doubles) -> Ints:
    """Of each point all points by distance, itself first."""
    return np.argsort(distances_NN - np.eye(len(distances_NN)), axis=1)


def _kept(real_NN: Ints, drawn_NN: Ints, k: int) -> float:
    """Trustworthiness (see `quality`) of neighbours in a picture, from orders; scikit-learn's would sort all distances once more for each direction."""
    count = len(real_NN)
    if not k:
        return float("nan")
    rank_NN = np.empty_like(real_NN)
    np.put_along_axis(rank_NN, real_NN, np.arange(count)[None], axis=1)
    ranks_NK = np.take_along_axis(rank_NN, drawn_NN[:, 1 : k + 1], axis=1)
    return float(1 - 2 / (count * k * (2 * count - 3 * k - 1)) * np.maximum(ranks_NK - k, 0).sum())


def _least(found: Quality) -> float:
    return float(np.minimum(found.trustworthiness, found.continuity))


def _said(value: float, words: Sequence[tuple[float, str]], name: str, question: str) -> str:
    if np.isnan(value):
        return f"{question} is unknown"
    return f"{next(said for least, said in words if value >= least)} ({name}{_number(value)})"


def _number(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:.2f}"
