"""Whether two series or two paths resemble each other, whatever space they live in: correlation of norms, of distances, of shapes, shared directions.

Arrays in, numbers out; rows are steps in time order. All but the shared directions compare roles of different models. What chance would show
is said in `analysis.nulls` and `analysis.uncertainty`. Axis letters: S, U steps, D and E dimensions. Undefined is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from analysis.geometry import Doubles, ratio

#: Below this share of the largest eigenvalue of a Gram matrix a direction is rounding.
TOLERANCE = 1e-10


# --- series and paths --------------------------------------------------------------------------------


def pearson(x_S: npt.ArrayLike, y_S: npt.ArrayLike) -> float:
    """Pearson correlation of two series over the steps known in both; NaN for fewer than 3, or if one is constant.

    Two norms that follow the same learning-rate schedule correlate without any coupling.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (x_S, y_S))
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def distance_correlation(x_SD: npt.ArrayLike, y_SE: npt.ArrayLike, *, corrected: bool = False) -> float:
    """Distance correlation over steps, in [0, 1] (Székely, Rizzo & Bakirov 2007, doi:10.1214/009053607000000505); D and E may differ.

    Rows are the samples, not coordinates. With many dimensions and few steps it nears 1 for independent data too; `corrected` gives the
    bias-corrected square of it, around 0 for independent rows, possibly negative (U-centring: Székely & Rizzo 2014, doi:10.1214/14-AOS1255).
    Neither is calibrated for rows that follow one another in time. NaN for fewer than 3 steps (2 have 1 always; corrected: 4), if all are equal, or for a NaN.
    """
    x, y = _rows(x_SD), _rows(y_SE)
    if len(x) < (4 if corrected else 3) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.nan
    centre = _corrected_centre if corrected else _double_centre
    a, b = centre(_distances(x)), centre(_distances(y))
    squared = ratio((a * b).sum(), np.sqrt((a * a).sum()) * np.sqrt((b * b).sum()))
    return float(squared if corrected else np.sqrt(np.maximum(squared, 0.0)))


def procrustes(x_SD: npt.ArrayLike, y_SE: npt.ArrayLike) -> float:
    """Procrustes disparity of two paths of equally many positions, in [0, 1]: 0 if shift, rotation, mirror image and scale make them equal.

    By scipy, in each path's own principal coordinates: that changes no distance, and D and E may differ and be large. With more dimensions than
    positions there is much freedom to rotate: independent random walks come out far below 1. NaN for fewer than 3 positions
    (2 have 0 always), if all are equal, or for a NaN.
    """
    x, y = _rows(x_SD), _rows(y_SE)
    if len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()) or not np.ptp(x, axis=0).any() or not np.ptp(y, axis=0).any():
        return np.nan
    return float(scipy.spatial.procrustes(_principal(x), _principal(y))[2])


# --- shared directions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """Principal angles (radians, smallest first), mean of their squared cosines, and what random subspaces of that many dimensions have."""

    angles_k: Doubles
    overlap: float
    expected: float


def subspace_overlap(x_SD: npt.ArrayLike, y_UD: npt.ArrayLike, k: int = 5) -> Overlap:
    """How far the leading k directions of two sets of updates span the same space, by principal angles.

    Leading: right singular vectors of the rows. If one set has fewer directions, its all are taken, and as many angles are made as the smaller
    set has. `expected` = K / D, where the larger set has K directions of D dimensions: the mean squared cosine for one subspace drawn evenly
    from all D. Adapters move in fewer dimensions than D, so it is a lower limit. The rows' numbers may differ. NaN if a set is all zero or has NaN.
    Raises `ValueError` for k below 1 and for unequal widths.
    """
    x, y = _rows(x_SD), _rows(y_UD)
    if k < 1 or x.shape[1] != y.shape[1]:
        raise ValueError(f"k = {k} must be at least 1, and widths {x.shape[1]} and {y.shape[1]} equal; bring both roles into one space first")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and x.any() and y.any()):
        return Overlap(np.full(0, np.nan), np.nan, np.nan)
    first, second = _leading(x, k), _leading(y, k)
    angles = np.sort(scipy.linalg.subspace_angles(first, second))
    return Overlap(angles, float((np.cos(angles) ** 2).mean()), max(first.shape[1], second.shape[1]) / x.shape[1])


# --- what they are made of ---------------------------------------------------------------------------


def _rows(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """One row for each step; a plain series is one column. Rows may be long, so double precision comes later, one path at a time."""
    array = np.asarray(values)
    return array[:, None] if array.ndim == 1 else array


def _distances(x_SD: npt.NDArray[Any]) -> Doubles:
    """S x S Euclidean distances by way of the Gram matrix, a tenth of the cost for long rows; exact to 1e-7 of the longest."""
    from sklearn.metrics.pairwise import euclidean_distances

    centred = x_SD - x_SD.mean(axis=0, dtype=np.float64)
    found = euclidean_distances(centred)
    np.fill_diagonal(found, 0.0)
    return np.asarray(found, dtype=np.float64)


def _double_centre(distances_SS: Doubles) -> Doubles:
    means_S = distances_SS.mean(axis=0)
    return np.asarray(distances_SS - means_S[:, None] - means_S[None, :] + means_S.mean())


def _corrected_centre(distances_SS: Doubles) -> Doubles:
    """U-centring: the sums of rows and of all, over n - 2 and (n - 1)(n - 2), and nothing on the diagonal."""
    n, sums_S = len(distances_SS), distances_SS.sum(axis=0)
    centred = distances_SS - (sums_S[:, None] + sums_S[None, :]) / (n - 2) + sums_S.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return np.asarray(centred)


def _principal(x_SD: npt.NDArray[Any]) -> Doubles:
    """S x S coordinates with the distances of x, from the eigenvectors of its centred Gram matrix."""
    centred = x_SD - x_SD.mean(axis=0, dtype=np.float64)  # no distance changes, but a path far from zero would lose its digits
    values, vectors = scipy.linalg.eigh(centred @ centred.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _leading(x_SD: npt.NDArray[Any], k: int) -> Doubles:
    """D x k right singular vectors of the largest singular values, by way of the smaller Gram matrix, S x S or D x D; fewer if x has fewer."""
    rows = x_SD.astype(np.float64)
    count, width = rows.shape
    small = rows @ rows.T if count <= width else rows.T @ rows
    values, vectors = scipy.linalg.eigh(small, subset_by_index=[max(len(small) - k, 0), len(small) - 1])
    chosen = np.flatnonzero(values > TOLERANCE * values[-1])
    found = vectors[:, chosen]
    return np.asarray(rows.T @ (found / np.sqrt(values[chosen])) if count <= width else found)
