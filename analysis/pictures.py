"""Paths through weight space in two or three dimensions, each picture with what it keeps and what chance would draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import embedding, projection, quality
from analysis.figures import ROLE_WORDS, figure
from analysis.projection import Of
from analysis.spec import Axis, FigureSpec, Mark
from analysis.threads import one_thread
from analysis.trajectory import Ints, Trajectory, same_space

_OF = {"positions": "positions: running sums of sketched updates", "updates": "sketched updates"}
_WHAT = "{method} of {of} of {modules} modules, {k} sums each{scale}. "
_PCA = "These {count} components explain {found:.0%} of the variance; {chance} reach {reach}, so this is {verdict}. Random walks draw smooth curves too. "
_KEPT = "Neighbours are kept to {kept.trustworthiness:.2f} and the order of distances to {kept.rank_correlation:.2f}, where 1 is perfect."
_CHANCE = {"positions": "random walks with the same update norms", "updates": "unrelated updates of the same norms"}
_LEFT_OUT = "Pulling a reward model back between iterations is no update and is not drawn."


@figure
def trajectories(
    paths: Sequence[Trajectory],
    *,
    components: int = 2,
    same_length: bool = False,
    method: Literal["pca", "umap", "tsne"] = "pca",
    of: Of = "positions",
    layer: str = "all",
    kind: str = "all",
    seed: int = 0,
) -> FigureSpec:
    """Paths of roles or runs in one picture (PCA, UMAP or t-SNE), and how much of it chance would show."""
    shared = same_space(paths)
    parts = [projection.part_of(path, _number(layer), None if kind == "all" else kind) for path in shared]
    found = _by_pca(parts, same_length, components, of, seed) if method == "pca" else _by_neighbours(parts, same_length, method, components, of, seed)
    drawn, kept, axes, words = found
    several = len({path.run for path in shared}) > 1
    data = pd.concat([_rows(*one, of, several) for one in zip(shared, drawn, kept, strict=True)], ignore_index=True)
    scale = ", each path scaled to reach 1" if same_length else ""
    modules = len(parts[0].modules_T)
    what = _WHAT.format(method={"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}[method], of=_OF[of], modules=modules, k=shared[0].spec.k, scale=scale)
    updates = sum(len(path.updates_U) for path in shared)
    return FigureSpec(
        "trajectories",
        "Paths through weight space",
        data,
        (Mark("line", "path"), Mark("points", "iteration", strong=False), Mark("points", "start"), Mark("points", "end")),
        axes[0],
        axes[1],
        f"{what}{words} {_LEFT_OUT}",
        f"Paths of {' and '.join(data['series'].unique())} through weight space, {updates} updates in all",
        updates,
        tuple(dict.fromkeys(path.run for path in paths)),
        z=axes[2] if components > 2 else None,
    )


def _number(layer: str) -> int | None:
    if layer != "all" and not layer.lstrip("-").isdecimal():
        raise ValueError(f"layer = {layer!r} is no number of a block; use all, or a number")
    return None if layer == "all" else int(layer)


_Drawn = tuple[Sequence[Any], Sequence[Ints], list[Axis], str]


def _by_pca(parts: Sequence[Trajectory], same_length: bool, components: int, of: Of, seed: int) -> _Drawn:
    """A long path is placed once, whatever its scale and however many components are drawn (`projection.Route`)."""
    routes = projection.routes(parts, of, same_length=same_length, also=quality.POINTS)
    flat = projection.drawn(routes, components, seed)
    counts = [len(route) for route in routes]
    some = projection.spread(sum(counts), quality.POINTS)
    high_ND = np.concatenate([route.at(rows) for route, rows in zip(routes, projection.apart(some, counts), strict=True)])
    with one_thread():
        kept = quality.quality(high_ND, np.concatenate(flat.paths_P)[some])
    axes = [Axis(f"c{i + 1}", f"component {i + 1}", f"{flat.explained_C[i]:.0%} of variance") for i in range(components)]
    return flat.paths_P, [np.arange(count) for count in counts], axes, _beside_chance(flat, of) + _KEPT.format(kept=kept)


def _beside_chance(flat: projection.Projection, of: Of) -> str:
    """How much of the variance the axes explain, and how much they would by chance."""
    found, (_, low, high) = float(flat.explained_C.sum()), flat.null.together
    verdict = "more than chance" if found > high else "no more than chance: do not read shape into it"
    return _PCA.format(count=len(flat.explained_C), found=found, chance=_CHANCE[of], reach=_reach(low, high), verdict=verdict)


def _reach(low: float, high: float) -> str:
    """`75% to 83%`, or one number where both ends print the same."""
    return " to ".join(dict.fromkeys(f"{end:.0%}" for end in (low, high)))


def _by_neighbours(parts: Sequence[Trajectory], same_length: bool, method: str, components: int, of: Of, seed: int) -> _Drawn:
    rows = [_scaled(projection.selected(part, of=of), same_length) for part in parts]
    made = embedding.project(method, rows, components, seed, of=of)
    axes = [Axis(f"c{i + 1}", f"coordinate {i + 1}", "no unit") for i in range(components)]
    return made.paths_P, made.rows_P, axes, f"{made.words[:1].upper()}{made.words[1:]}. Lengths and angles mean nothing here."


def _scaled(rows_UD: Any, same_length: bool) -> Any:
    reach = float(np.linalg.norm(rows_UD, axis=1).max()) if same_length else 1.0
    return rows_UD / reach if reach > 0 else rows_UD


def _rows(path: Trajectory, points_UC: Any, kept_U: Ints, of: Of, several: bool) -> pd.DataFrame:
    """One path's points with their moments; where there are several runs its series says which one it is of."""
    begin = np.zeros(1 if of == "positions" else 0, dtype=np.int64)
    times = {name: np.concatenate([begin, getattr(path, f"{name}s_U")])[kept_U] for name in ("clock", "update", "iteration")}
    word = ROLE_WORDS.get(path.role, path.role) + (f", {path.run}" if several else "")
    points = {f"c{i + 1}": points_UC[:, i] for i in range(points_UC.shape[1])}
    rows = pd.DataFrame({"series": word, "role": path.role, "run": path.run, **times, **points})
    ends = {"start": rows.iloc[[0]], "end": rows.iloc[[-1]], "iteration": _turns(rows)}
    return pd.concat([rows.assign(layer="path"), *(part.assign(layer=name) for name, part in ends.items())], ignore_index=True)


def _turns(rows: pd.DataFrame) -> pd.DataFrame:
    """The last point of every iteration but the last."""
    later = rows["iteration"].shift(-1)
    return rows[later.notna() & (later != rows["iteration"]) & (rows["update"] > 0)]
