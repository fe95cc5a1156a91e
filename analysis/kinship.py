"""Figures of likeness: of a path with its own straight continuation, of both roles' leading directions, of both paths' shapes, each against chance.

Numbers come from `analysis.geometry`, `analysis.shapes` and `analysis.uncertainty`. Recordings that hold too little raise `ValueError` that
says what is missing, for without steps there is no chance to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import coupling, evidence, geometry, nulls, shapes
from analysis.figures import ROLE_WORDS, figure
from analysis.geometry import Doubles
from analysis.movement import CHANCE_WORDS, recording
from analysis.scores import one_of
from analysis.spec import Axis, FigureSpec, Mark
from analysis.trajectory import Floats, Trajectory
from analysis.uncertainty import ShiftTest, circular_shift_test

#: A role's path; None where its directions were not recorded.
Sketched = Trajectory | None
#: Steps that are shifted against each other; of longer runs neighbours are put together.
MOST_STEPS = 100
#: Mean cosine of neighbouring steps above which distance correlation was measured to find too much (docs/metrics.md).
PERSISTENT = 0.8

_CHANCE, _MEASURED, _SHIFTED = "chance, 95 %", "as recorded", "shifted in time: median and 95 %"

NOTES = {
    "extrapolation": (
        "After each update the next {horizon} are foretold as {horizon} times the mean of the last {window}, and judged on what then happened: error = "
        "|foretold − true| / |true|, 0 is perfect, 1 is what staying put gives. Sketched, all modules. Bands: the central 95 % of a foretold step of the "
        "same length in a random direction; chance is {chance}. Misleads: neighbouring forecasts share updates; momentum alone makes the next updates "
        "like the last ones."
    ),
    "subspaces": (
        "Angles between the {k} leading directions of both roles' {by}s (right singular vectors of the sketched steps): 0° is a shared direction, 90° none. "
        "Band: the central 95 % for random subspaces of {dimensions:,} dimensions, as many as the chance SD of a cosine, {sd:.3g}, stands for; chance is "
        "{chance}. Misleads: directions in which a role moved little count as much as those in which it moved far."
    ),
    "kinship": (
        "Likeness of both roles' steps, {pairing}. Dots: as recorded. Whiskers: the same with one role's steps shifted in a circle, {shifts} times. Distance "
        "correlation (bias-corrected, squared) sees any dependence of the steps, 1 − Procrustes disparity the shape of the paths, Pearson's r the norms. "
        "No common basis is needed. Misleads: a shift breaks a common trend too, so one learning-rate schedule makes norms and lengths of steps alike "
        "without any coupling."
    ),
}


# --- extrapolation -----------------------------------------------------------------------------


@figure
def extrapolation(paths: Sequence[Trajectory], updates: pd.DataFrame, *, run: str, window: int = 5, horizon: int = 5) -> FigureSpec:
    """Does a straight line foresee the next updates? Its error on them, beside staying put and a random direction of the same length.

    Raises `ValueError` for a window or a horizon below 1, and where no role has as many updates as both together.
    """
    found = {ROLE_WORDS.get(path.role, path.role): _forecasts(path, updates, window, horizon) for path in paths}
    told = {name: rows for name, (rows, _) in found.items() if len(rows)}
    if not told:
        counts = ", ".join(f"{ROLE_WORDS.get(path.role, path.role)} {len(path.updates_U)}" for path in paths) or "none"
        raise ValueError(f"it needs window + horizon = {window + horizon} known updates of a role one after the other; recorded with directions: {counts}")
    ends = {edge for rows in told.values() for edge in (int(rows["x"].min()), int(rows["x"].max()))}
    still = pd.DataFrame({"layer": "still", "series": "staying put", "x": [min(ends), max(ends)], "y": 1.0})
    bands = [rows.assign(layer="chance", series=f"{name}: random direction") for name, rows in told.items()]
    data = pd.concat([*told.values(), still, *bands], ignore_index=True)
    chance = " or ".join(sorted({CHANCE_WORDS[kind] for name, (_, kind) in found.items() if name in told}))
    note = NOTES["extrapolation"].format(window=window, horizon=horizon, chance=chance)
    numbers = " ".join(_forecast_words(name, rows, window + horizon) for name, rows in told.items())
    title, count = "Straight-line forecast of updates", sum(len(rows) for rows in told.values())
    marks = (Mark("band", "chance"), Mark("line", "still", strong=False), Mark("line", "forecasts"))
    axes = Axis("x", "update of the role, after which is foretold"), Axis("y", "error of the forecast", "true lengths")
    return FigureSpec("extrapolation", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", count, (run,))


def _forecasts(path: Trajectory, updates: pd.DataFrame, window: int, horizon: int) -> tuple[pd.DataFrame, evidence.Chance]:
    """Known forecasts of one role with the band of a random direction: error^2 = 1 + a^2 - 2 a c, a its length over the true one, c a chance cosine."""
    table = geometry.extrapolation(path, window, horizon).dropna(subset=["error"])
    sd, chance = evidence.typical_chance(recording(updates, path.run), path)
    _, reach = nulls.null_band(sd)
    long = np.sqrt(np.maximum(table["random"].to_numpy(np.float64) ** 2 - 1, 0.0))
    low, high = (np.sqrt(np.maximum(1 + long**2 - 2 * long * c, 0.0)) for c in (reach, -reach))
    place = {"layer": "forecasts", "series": ROLE_WORDS.get(path.role, path.role), "x": table["update"], "y": table["error"], "low": low, "high": high}
    more = {"random": table["random"], "cosine": table["cosine"], "clock": table["clock"], "label": [f"iteration {number}" for number in table["iteration"]]}
    return pd.DataFrame(place | more), chance


def _forecast_words(name: str, rows: pd.DataFrame, needed: int) -> str:
    error, apart = float(np.sqrt((rows["y"] ** 2).mean())), 1 + int(rows["x"].max() - rows["x"].min()) // needed
    better = f"better than staying put in {int((rows['y'] < 1).sum())} of {len(rows)} ({apart} of them without common updates)"
    chance = f"a random direction of that length {float(np.sqrt((rows['random'] ** 2).mean())):.2f}"
    return f"{name}: root mean square error {error:.2f}, {chance}; {better}; mean cosine of foretold and true {rows['cosine'].mean():+.2f}."


# --- shared directions -------------------------------------------------------------------------


@figure
def subspace_overlap(policy: Sketched, reward: Sketched, updates: pd.DataFrame, *, run: str, k: int = 5, by: coupling.By = "update") -> FigureSpec:
    """Do policy and reward model move in the same few directions? Principal angles of their leading directions, against random ones.

    Raises `ValueError` for k below 1, another `by`, and roles that did not move or cannot be compared.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    one_of("by", by, ("update", "iteration"))
    pair = coupling.pairs(*_both(policy, reward), by)
    rows = [_known_rows(path) for path in pair]
    _refuse_still([path.role for path in pair], rows, by)
    found = shapes.subspace_overlap(rows[0], rows[1], k)
    sizes = len(found.angles_k), round(found.expected * rows[0].shape[1])  # of the smaller and of the larger set
    sd, chance = evidence.typical_chance(recording(updates, pair[0].run), pair[0])
    dimensions = max(int(min(round(sd**-2), rows[0].shape[1])), *sizes)
    data = _angles(found.angles_k, nulls.random_angles(*sizes, dimensions))
    note = NOTES["subspaces"].format(k=k, by=by, dimensions=dimensions, sd=sd, chance=CHANCE_WORDS[chance])
    numbers = _overlap_words(found, [len(part) for part in rows], by, max(sizes) / dimensions, data)
    marks = (Mark("band", "chance"), Mark("line", "angles", strong=False), Mark("points", "angles"))
    title, axes = "Shared directions", (Axis("x", "principal angle, smallest first"), Axis("y", "angle", "degrees"))
    return FigureSpec("subspace_overlap", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(found.angles_k), (run,))


def _both(policy: Sketched, reward: Sketched) -> tuple[Trajectory, Trajectory]:
    if policy is None or reward is None:
        raise ValueError(f"directions of the {'policy' if policy is None else 'reward model'} were not recorded (runs with --sketch 0 have none)")
    return policy, reward


def _known_rows(path: Trajectory) -> Floats:
    """The steps of which every module is known, one row each."""
    known_U = geometry.known(path).all(axis=1)
    return path.sketches_UTK[known_U].reshape(int(known_U.sum()), -1)


def _refuse_still(roles: Sequence[str], rows: Sequence[npt.NDArray[Any]], by: str) -> None:
    for role, steps in zip(roles, rows, strict=True):
        if not steps.any():
            raise ValueError(f"the {ROLE_WORDS.get(role, role)} did not move in any {by} whose modules are all known")


def _angles(found_k: Doubles, random_Nk: Doubles) -> pd.DataFrame:
    """Degrees by number of the angle, and the band of random subspaces."""
    x, degrees = np.arange(1, len(found_k) + 1), np.degrees(found_k)
    low, high = np.degrees(np.quantile(random_Nk, [0.025, 0.975], axis=0))
    angles = pd.DataFrame({"layer": "angles", "series": "policy and reward model", "x": x, "y": degrees})
    return pd.concat([angles, pd.DataFrame({"layer": "chance", "series": _CHANCE, "x": x, "low": low, "high": high})], ignore_index=True)


def _overlap_words(found: shapes.Overlap, counts: Sequence[int], by: str, expected: float, data: pd.DataFrame) -> str:
    band = data[data["layer"] == "chance"]
    below = int((data.loc[data["layer"] == "angles", "y"].to_numpy() < band["low"].to_numpy()).sum())
    steps = f"{counts[0]} policy {by}s and {counts[1]} of the reward model"
    size = f"mean squared cosine {found.overlap:.3g}, by chance {expected:.3g}"
    return f"{steps}: smallest angle {np.degrees(found.angles_k[0]):.1f}°, {size}; {below} of {len(band)} angles lie below the band."


# --- likeness of steps and paths ---------------------------------------------------------------


@figure
def path_kinship(policy: Sketched, reward: Sketched, *, run: str, by: coupling.By = "update") -> FigureSpec:
    """Do both paths resemble each other in time? Distance correlation, Procrustes and norms, beside the same with one role shifted in time.

    Needs no common basis, so the models may differ. Raises `ValueError` for another `by` and for fewer than `evidence.FEWEST_STEPS` pairs of steps.
    """
    one_of("by", by, ("update", "iteration"))
    (x_SD, y_SE), together = _side_by_side(*_both(policy, reward), by)
    _refuse_still(["policy", "reward"], [x_SD, y_SE], by)
    tests = _likeness(x_SD, y_SE)
    # an axis of words is filled from below: the first statistic ends on top
    rows = [row for name, test in reversed(tests.items()) if np.isfinite(test.value) for row in _likeness_rows(name, test)]
    data = pd.DataFrame(rows, columns=["layer", "series", "row", "x", "low", "high", "p", "shifts"])
    pairing = _PAIRINGS[by] + (f", {together} neighbours put together as one step" if together > 1 else "")
    note = NOTES["kinship"].format(pairing=pairing, shifts=max(test.shifts for test in tests.values()))
    numbers = _likeness_words(tests, len(x_SD), max(_persistence(rows) for rows in (x_SD, y_SE)))
    title, axes = "Likeness of both paths", (Axis("x", "likeness", "1 is alike"), Axis("row", "", scale="category"))
    marks = (Mark("interval", "chance", strong=False), Mark("points", "measured"))
    return FigureSpec("path_kinship", title, data, marks, *axes, f"{note} {numbers}", f"{title}: {numbers}", len(x_SD), (run,))


_PAIRINGS = {
    "update": "the first update of an iteration beside the other role's first, the second beside its second, and so on",
    "iteration": "iteration by iteration",
}


def _side_by_side(policy: Trajectory, reward: Trajectory, by: coupling.By) -> tuple[tuple[Doubles, Doubles], int]:
    """Steps that belong together as rows, P x D and P x E, in few dimensions without any loss; and how many neighbours make one."""
    first, second = coupling.steps(policy, by), coupling.steps(reward, by)
    known = [geometry.known(path).all(axis=1) for path in (first, second)]
    places = [_turns(path)[good] for path, good in zip((first, second), known, strict=True)]
    pairs, one, two = _common(places[0], places[1])
    if pairs < evidence.FEWEST_STEPS:
        raise ValueError(f"it needs {evidence.FEWEST_STEPS} {by}s of policy and reward model that belong together; {pairs} were recorded")
    size = -(-pairs // MOST_STEPS)
    chosen = [path.sketches_UTK[good][index].reshape(pairs, -1) for path, good, index in zip((first, second), known, (one, two), strict=True)]
    return (_narrow(_joined(chosen[0], size)), _narrow(_joined(chosen[1], size))), size


def _turns(path: Trajectory) -> npt.NDArray[np.int64]:
    """U x 2: iteration of each step, and which of its iteration it is."""
    order = pd.Series(path.iterations_U).groupby(path.iterations_U).cumcount()
    return np.stack([path.iterations_U, order.to_numpy(np.int64)], axis=1)


def _common(first_U2: npt.NDArray[np.int64], second_S2: npt.NDArray[np.int64]) -> tuple[int, Any, Any]:
    """How many places both have, and where they stand in each."""
    one, two = (pd.MultiIndex.from_arrays(list(places.T)) for places in (first_U2, second_S2))
    both = one.intersection(two).sort_values()
    return len(both), one.get_indexer(both), two.get_indexer(both)


def _joined(rows_PD: Floats, size: int) -> Doubles:
    """Sums of so many neighbours; what is left over at the end is dropped."""
    whole = rows_PD[: len(rows_PD) // size * size].astype(np.float64)
    return np.asarray(whole.reshape(len(whole) // size, size, -1).sum(axis=1))


def _narrow(rows_SD: Doubles) -> Doubles:
    """The same rows in as many coordinates as there are rows: all inner products stay, and so do distances, norms and paths."""
    values, vectors = np.linalg.eigh(rows_SD @ rows_SD.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _likeness(x_SD: Doubles, y_SE: Doubles) -> dict[str, ShiftTest]:
    """Each statistic against the same with the steps of y shifted in a circle."""
    return {name: circular_shift_test(statistic, x_SD, y_SE) for name, statistic in _STATISTICS.items()}


def _distances(x_SD: npt.NDArray[Any], y_SE: npt.NDArray[Any]) -> float:
    return shapes.distance_correlation(x_SD, y_SE, corrected=True)


def _shape(x_SD: npt.NDArray[Any], y_SE: npt.NDArray[Any]) -> float:
    """A test of paths adds up the steps itself."""
    return 1 - shapes.procrustes(np.cumsum(x_SD, axis=0), np.cumsum(y_SE, axis=0))


def _lengths(x_SD: npt.NDArray[Any], y_SE: npt.NDArray[Any]) -> float:
    return shapes.pearson(np.linalg.norm(x_SD, axis=1), np.linalg.norm(y_SE, axis=1))


_STATISTICS: dict[str, Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]] = {
    "distance correlation": _distances,
    "1 − Procrustes disparity": _shape,
    "Pearson's r of norms": _lengths,
}


def _persistence(rows_SD: Doubles) -> float:
    """Mean cosine of neighbouring steps."""
    inner, norms = (rows_SD[1:] * rows_SD[:-1]).sum(axis=1), np.linalg.norm(rows_SD, axis=1)
    return float(np.nan_to_num(geometry.cosine(inner, norms[1:] * norms[:-1])).mean())


def _likeness_rows(name: str, test: ShiftTest) -> list[dict[str, Any]]:
    chance = {"layer": "chance", "series": _SHIFTED, "row": name, "x": test.middle, "low": test.low, "high": test.high, "shifts": test.shifts}
    return [chance, {"layer": "measured", "series": _MEASURED, "row": name, "x": test.value, "p": test.p}]


def _likeness_words(tests: dict[str, ShiftTest], steps: int, persistence: float) -> str:
    adjusted = nulls.holm([test.p for test in tests.values()])
    told = [
        f"{name} {test.value:+.3f}, shifted {test.middle:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = {p:.3f}"
        for (name, test), p in zip(tests.items(), adjusted, strict=True)
    ]
    warned = f" Steps are persistent (neighbours' cosine {persistence:.2f}), where distance correlation finds too much." if persistence > PERSISTENT else ""
    return f"{steps} pairs of steps; p after Holm's correction, never below {1 / steps:.3f} before it: {'; '.join(told)}.{warned}"
