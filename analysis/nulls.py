"""What a number would be by chance: null spreads of cosines, the error of sketches, p-values and their correction.

In millions of dimensions unrelated directions are orthogonal by default, and low rank leaves an update far fewer free numbers than it
has weights. So every cosine is read against the spread that random updates of the same norms would have. Arrays in, arrays out: no
recording is known here. Axis letters: T modules, U updates, L lags, H hypotheses. Undefined is NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy
from scipy import special

from analysis.comparison import LEVEL

Doubles = npt.NDArray[np.float64]

#: Half the width of the central 95 % of a normal number, in standard deviations.
REACH = float(special.ndtri((1 + LEVEL) / 2))


# --- one cosine ------------------------------------------------------------------------------------


def full_null_sd(n: int) -> float:
    """SD of the cosine of two random directions in n dimensions: 1 / sqrt(n), exactly, for directions uniform on the sphere.

    For adapters it is far too small; `adapter_null_sd` says why.
    """
    return float(n**-0.5) if n > 0 else np.nan


def adapter_null_sd(m: int, n: int, rank: int) -> float:
    """SD of the effective cosine of two random updates of a fresh m x n adapter W = B A whose A (rank x n) both roles share.

    At B = 0 an update is dB A. Given A, the variance is |G|_F^2 / (m tr(G)^2) with G = A A': 1 / (rank m) if the rows of A are orthonormal,
    as 1 / sqrt(rank m) says, and (1 + rank / n) / (rank m) for independent elements, whose rows are not quite orthogonal. The latter is
    returned: it is what adapters start with. With independent A the SD is 1 / sqrt(m n): the roles could not agree if they wanted to.
    NaN if a size is below 1.
    """
    return float(np.sqrt((1 + rank / n) / (rank * m))) if min(m, n, rank) > 0 else np.nan


def null_sd(sd_T: npt.ArrayLike, own_T: npt.ArrayLike, other_T: npt.ArrayLike) -> Doubles:
    """SD of a cosine summed over modules, sum <d, e> / (|d| |e|), if each module's cosine is random with its own SD.

    sqrt(sum (sd own other)^2) / (|own| |other|), over the last axis; leading axes stay. `own_T` and `other_T` are update norms. Modules
    where one of the three is not finite are left out of all sums, as they are left out of the cosine. NaN if nothing is left.
    """
    given = [np.atleast_1d(part) for part in np.broadcast_arrays(*(np.asarray(part, dtype=np.float64) for part in (sd_T, own_T, other_T)))]
    known = np.isfinite(given[0]) & np.isfinite(given[1]) & np.isfinite(given[2])
    sd, own, other = (np.where(known, part, 0.0) for part in given)
    spread = np.sqrt(np.square(sd * own * other).sum(axis=-1))
    return _ratio(spread, np.sqrt(np.square(own).sum(axis=-1) * np.square(other).sum(axis=-1)))


def null_band(sd: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """Lower and upper end of the central 95 % of a cosine that is random around zero: -+ 1.96 SD, by the normal law, never beyond -+1."""
    reach = np.minimum(REACH * np.asarray(sd, dtype=np.float64), 1.0)
    return -reach, reach


# --- the mean of many cosines ----------------------------------------------------------------------


def effective_number(count: int, own_L: npt.ArrayLike, other_L: npt.ArrayLike) -> float:
    """How many independent cosines `count` neighbouring ones are worth: `count` / (1 + 2 sum_l (1 - l / count) own_l other_l).

    Bartlett (1935, JRSS 98:536) for mean products of two series that are autocorrelated but independent of each other. See
    `null_sd_of_mean` for the arguments. NaN for a count below 1 or correlations that no series can have.
    """
    sd = null_sd_of_mean(np.ones(max(count, 0)), own_L, other_L)
    return 1 / sd**2 if sd > 0 else np.nan


def null_sd_of_mean(sd_U: npt.ArrayLike, own_L: npt.ArrayLike = 0.0, other_L: npt.ArrayLike = 0.0) -> float:
    """SD of the mean of U cosines that are random with these SDs, one pair of updates after the other.

    Under independence sqrt(sum sd^2) / U. But momentum makes each role's neighbouring updates alike: if update t + l of both roles
    still points the way of update t, its cosine says nothing new, and cosines l apart correlate by own_l other_l (Bartlett 1935). With
    0.9^l on both sides, as momentum 0.9 gives, ten cosines are worth about one.

    `own_L`, `other_L`: mean cosine of a role's updates 1, 2, ... apart, zero beyond the last; one number phi means phi^l. Measure them on
    the series that were compared: where many updates are compared with the same latest update of the other role, that one is constant.
    Updates whose SD is not finite are left out of the mean. NaN if none is left or the variance would be negative.
    """
    given = np.asarray(sd_U, dtype=np.float64)
    sd, count = np.where(np.isfinite(given), given, 0.0), int(np.isfinite(given).sum())
    if not count:
        return np.nan
    products_L = scipy.signal.correlate(sd, sd)[len(sd) :]
    variance = np.square(sd).sum() + 2 * np.dot(products_L, _at_lags(own_L, len(sd)) * _at_lags(other_L, len(sd)))
    return float(np.sqrt(variance)) / count if variance > 0 else np.nan


def _at_lags(correlation: npt.ArrayLike, count: int) -> Doubles:
    """Correlations at lags 1 to count - 1."""
    given = np.asarray(correlation, dtype=np.float64)
    if given.ndim == 0:
        return np.asarray(given ** np.arange(1, count))
    return np.pad(given[: count - 1], (0, max(count - 1 - len(given), 0)))


# --- subspaces -------------------------------------------------------------------------------------


def random_angles(first: int, second: int, dimensions: int, draws: int = 1000, seed: int = 0) -> Doubles:
    """Principal angles of two subspaces of so many directions, drawn evenly from so many dimensions: `draws` x min(first, second), radians, rising.

    One is fixed as the first coordinates: of p independent normal vectors it holds a block X, and the p squared cosines are the eigenvalues of
    X'X (X'X + W)^-1 with W the Gram matrix of the other coordinates, a Wishart matrix (Muirhead 1982, Aspects of Multivariate Statistical
    Theory, ch. 3.3). Raises `ValueError` for a size below 1, or more directions than dimensions.
    """
    if not 1 <= min(first, second) <= max(first, second) <= dimensions:
        raise ValueError(f"subspaces of {first} and {second} directions do not fit into {dimensions} dimensions")
    (p, q), random = sorted((first, second)), np.random.default_rng(seed)
    held = random.standard_normal((draws, q, p))
    inner, rest = np.swapaxes(held, 1, 2) @ held, _wisharts(p, dimensions - q, draws, random)
    # (X'X + W)^-1/2 X'X (X'X + W)^-1/2 has the same eigenvalues, and is symmetric
    values, vectors = np.linalg.eigh(inner + rest)
    whitened = vectors / np.sqrt(values)[:, None, :]
    squared = np.linalg.eigvalsh(np.swapaxes(whitened, 1, 2) @ inner @ whitened)
    return np.asarray(np.arccos(np.sqrt(np.clip(squared[:, ::-1], 0.0, 1.0))))


def _wisharts(p: int, degrees: int, draws: int, random: np.random.Generator) -> Doubles:
    """Gram matrices of p normal vectors of `degrees` numbers each; by Bartlett's triangle (1933) where there are more numbers than vectors."""
    if degrees < p:
        raw = random.standard_normal((draws, degrees, p))
        return np.asarray(np.swapaxes(raw, 1, 2) @ raw)
    triangle = np.tril(random.standard_normal((draws, p, p)), -1)
    triangle[:, np.arange(p), np.arange(p)] = np.sqrt(random.chisquare(degrees - np.arange(p), (draws, p)))
    return np.asarray(triangle @ np.swapaxes(triangle, 1, 2))


# --- sketches --------------------------------------------------------------------------------------


def sketch_interval(cosine: npt.ArrayLike, k_eff: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """95 % interval of the exact cosine behind a sketched one: tanh(artanh(c) -+ 1.96 / sqrt(k_eff)), Fisher's z.

    Near zero it is c -+ 1.96 (1 - c^2) / sqrt(k_eff), but it stays within -+1. `k_eff` is the effective number of sums: for a pair
    whose `standard_error` columns say a and b it is 1 / (a b). It covers the projection alone, not chance: see `null_sd`. Too wide, never
    too narrow, where a few shared large elements make most of the cosine. NaN where k_eff is not positive.
    """
    c, k = (np.asarray(part, dtype=np.float64) for part in (cosine, k_eff))
    reach = REACH * _ratio(np.ones_like(k), np.sqrt(np.maximum(k, 0.0)))
    with np.errstate(divide="ignore"):  # at -+1 artanh is infinite, and tanh brings it back
        centre = np.arctanh(np.clip(c, -1.0, 1.0))
    return np.asarray(np.tanh(centre - reach)), np.asarray(np.tanh(centre + reach))


# --- p-values --------------------------------------------------------------------------------------


def two_sided_p(value: npt.ArrayLike, sd: npt.ArrayLike) -> Doubles:
    """Chance that a normal number of mean 0 and this SD lies at least as far from 0 as `value`. NaN unless both are finite and SD > 0."""
    found = np.abs(np.asarray(value, dtype=np.float64))
    ratio = _ratio(np.where(np.isfinite(found), found, np.nan), np.asarray(sd, dtype=np.float64))
    return np.asarray(2 * special.ndtr(-ratio))


def holm(p_H: npt.ArrayLike) -> Doubles:
    """p-values adjusted for having looked at all of them: in rising order the i-th of H is multiplied by H - i + 1, and none falls below one before.

    Calling those at or below 5 % finds keeps the chance of any false one at 5 %, whatever their dependence (Holm 1979, Scand. J. Statist.
    6:65). NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p_H, dtype=np.float64)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Doubles:
    """above / below where below is positive and finite, else NaN."""
    a, b = np.broadcast_arrays(np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64))
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=(b > 0) & np.isfinite(b)))
