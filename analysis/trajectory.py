"""`Trajectory`: one role's path through weight space, as labelled arrays.

Axis letters: U updates, T modules, L layers, K sums of a sketch. Sketches are linear, so a layer is
the sum of its modules, a position the running sum of updates. Two trajectories may share a space
only if their `SketchSpec` is equal; everything else is refused. No files, no pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from interplay.records import SketchSpec

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Updates that are summed up in double precision at a time: a whole double-precision copy would be twice the path.
BLOCK = 256
#: Layer number of modules outside the transformer blocks, such as heads and embeddings.
OUTSIDE = -1


@dataclass(frozen=True)
class Survey:
    """Some positions of a path, and how far from its start it comes at all. N positions, D = T x K."""

    positions_ND: Floats
    reach: float


@dataclass(frozen=True)
class Trajectory:
    """All updates of one role of one run in one space."""

    run: str
    role: str
    spec: SketchSpec
    updates_U: Ints
    clocks_U: Ints
    iterations_U: Ints
    modules_T: tuple[str, ...]
    layers_T: Ints
    norms_UT: Floats
    sketches_UTK: Floats
    _surveys: dict[bytes, Survey] = field(init=False, repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_table(cls, directions: pa.Table, role: str, spec: SketchSpec, *, run: str = "") -> Trajectory:
        """Build from rows of `directions`; norms are those of the sketches.

        Raises `ValueError` if the sketches are not of the size or space that `spec` says.
        """
        rows = directions.filter(_is(directions, "role", role))
        _check_spec(rows, spec)
        places = rows.select(["clock", "update", "iteration", "module", "layer"]).to_pandas()
        times, modules, u, t = _index(places)
        sketches = _sketches(rows, u, t, (len(times), len(modules), spec.k))
        squares = np.einsum("utk,utk->ut", sketches, sketches, dtype=np.float64)  # a tenth of the time of numpy's norm
        return cls(
            run=run,
            role=role,
            spec=spec,
            updates_U=times["update"].to_numpy(np.int64),
            clocks_U=times["clock"].to_numpy(np.int64),
            iterations_U=times["iteration"].to_numpy(np.int64),
            modules_T=tuple(modules["module"].astype(str)),
            layers_T=modules["layer"].to_numpy(np.int64),
            norms_UT=np.sqrt(squares).astype(np.float32),
            sketches_UTK=sketches,
        )

    @property
    def positions_UTK(self) -> Floats:
        """Where the weights are after each update, from the start of the recording."""
        return self.path_UD()[1:].reshape(self.sketches_UTK.shape)

    @property
    def updates_UD(self) -> Floats:
        """The updates as rows; D = T x K."""
        count, modules, k = self.sketches_UTK.shape
        return self.sketches_UTK.reshape(count, modules * k)

    @cached_property
    def squares_U(self) -> Doubles:
        """The squared length of each update as sketched, all modules together."""
        squares_U: Doubles = np.einsum("ud,ud->u", self.updates_UD, self.updates_UD, dtype=np.float64)
        return squares_U

    def layers(self) -> Trajectory:
        """The same path with modules summed to layers: squared norms add, sketches add."""
        numbers, place_T = np.unique(self.layers_T, return_inverse=True)
        squares_UL = np.zeros((len(self.updates_U), len(numbers)), dtype=np.float64)
        sketches_ULK = np.zeros((len(self.updates_U), len(numbers), self.spec.k), dtype=np.float32)
        for t, layer in enumerate(place_T):
            squares_UL[:, layer] += np.nan_to_num(self.norms_UT[:, t].astype(np.float64)) ** 2
            sketches_ULK[:, layer] += self.sketches_UTK[:, t]
        names = tuple("outside" if number == OUTSIDE else f"layer {number}" for number in numbers)
        return replace(self, modules_T=names, layers_T=numbers, norms_UT=np.sqrt(squares_UL).astype(np.float32), sketches_UTK=sketches_ULK)

    def some(self, kept_N: Ints) -> Trajectory:
        """Its updates with these row numbers, in order, as if the others had not been recorded: a set of steps, and no path any more."""
        if len(kept_N) == len(self.updates_U):
            return self
        of_updates = ("updates_U", "clocks_U", "iterations_U", "norms_UT", "sketches_UTK")
        return replace(self, **{name: getattr(self, name)[kept_N] for name in of_updates})

    def only(self, modules: Sequence[str]) -> Trajectory:
        """The same path in some of its modules, in the given order; itself where these are all."""
        if tuple(modules) == self.modules_T:
            return self
        index = [self.modules_T.index(name) for name in modules]
        return replace(
            self,
            modules_T=tuple(modules),
            layers_T=self.layers_T[index],
            norms_UT=self.norms_UT[:, index],
            sketches_UTK=self.sketches_UTK[:, index],
        )

    def path_UD(self) -> Floats:
        """Positions as one row per update, the start (zero) first; D = T x K."""
        found = np.zeros((len(self.updates_U) + 1, self.updates_UD.shape[1]), dtype=np.float32)
        for begin, block in self._blocks():
            found[begin + 1 : begin + 1 + len(block)] = block
        return found

    def survey(self, rows_N: Ints) -> Survey:
        """The rows of `path_UD` with these numbers, in order, and the reach of all; made once, and kept as long as the path.

        So pictures that differ in scale or dimensions alone need not place a long path again.
        """
        key = rows_N.tobytes()
        if key not in self._surveys:
            self._surveys[key] = self._survey(rows_N)
        return self._surveys[key]

    def _survey(self, rows_N: Ints) -> Survey:
        positions, farthest = np.zeros((len(rows_N), self.updates_UD.shape[1]), dtype=np.float32), 0.0
        for begin, block in self._blocks():
            first, stop = np.searchsorted(rows_N, [begin + 1, begin + 1 + len(block)])
            positions[first:stop] = block[rows_N[first:stop] - begin - 1]
            farthest = np.maximum(farthest, np.einsum("ud,ud->u", block, block).max())
        return Survey(positions, float(np.sqrt(farthest)))

    def _blocks(self) -> Iterator[tuple[int, Doubles]]:
        """Positions in double precision, `BLOCK` updates at a time, each block with the number of its first update."""
        last = np.zeros(self.updates_UD.shape[1])
        for begin in range(0, len(self.updates_U), BLOCK):
            block = self.updates_UD[begin : begin + BLOCK].astype(np.float64)
            block[0] += last
            np.cumsum(block, axis=0, out=block)
            last = block[-1]
            yield begin, block


def same_space(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories in the modules that all of them have.

    Raises `ValueError` if they were sketched differently or share no module: such numbers must not meet.
    """
    first, *others = trajectories
    for other in others:
        if other.spec != first.spec:
            raise ValueError(
                f"{other.run} {other.role} was sketched with {other.spec}, {first.run} {first.role} with {first.spec}; only equal sketches can share a space"
            )
    common = [name for name in first.modules_T if all(name in other.modules_T for other in others)]
    if not common:
        raise ValueError("these trajectories have no module in common; choose roles or runs of the same model")
    return [trajectory.only(common) for trajectory in trajectories]


def layer_words(layers: pd.Series[Any]) -> npt.NDArray[np.object_]:
    """Layers as words, `outside` where there is none; each number is put into words once, however many rows it has."""
    places, numbers = pd.factorize(layers)
    words = np.array([*(str(int(number)) for number in numbers), "outside"], dtype=object)
    return np.asarray(words[places])  # what is missing has place -1, the last one


def _is(table: pa.Table, column: str, value: str) -> pa.ChunkedArray:
    return pc.equal(table[column].cast(pa.string()), value)


def _check_spec(rows: pa.Table, spec: SketchSpec) -> None:
    size = rows.schema.field("sketch").type.list_size
    if size != spec.k:
        raise ValueError(f"the sketches have {size} sums, but the run says k = {spec.k}; do not mix recordings")
    spaces = {str(space) for space in pc.unique(rows["space"].cast(pa.string())).to_pylist()}
    if spaces - {spec.space}:
        raise ValueError(f"the sketches are of space {', '.join(sorted(spaces))}, but the run says {spec.space}; do not mix recordings")


def _index(places: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, Ints, Ints]:
    """Times and modules in order, and each row's place in them. A repeated (clock, module) keeps its last row."""
    places["layer"] = places["layer"].fillna(OUTSIDE).astype(np.int64)
    places["module"] = places["module"].astype(str)
    times = places.drop_duplicates("clock", keep="last").sort_values("clock")
    modules = places.drop_duplicates("module").sort_values(["layer", "module"])
    u = pd.Index(times["clock"]).get_indexer(pd.Index(places["clock"]))
    t = pd.Index(modules["module"]).get_indexer(pd.Index(places["module"]))
    return times, modules, u.astype(np.int64), t.astype(np.int64)


def _sketches(rows: pa.Table, u: Ints, t: Ints, shape: tuple[int, int, int]) -> Floats:
    """All sketches in weight units, each in its place; some rows at a time, so that nothing but the result is large."""
    found, begin = np.zeros(shape, dtype=np.float32), 0
    for batch in rows.select(["sketch", "scale"]).to_batches(max_chunksize=8192):
        numbers = batch["sketch"].flatten().to_numpy(zero_copy_only=False).reshape(-1, shape[2]).astype(np.float32)
        numbers *= batch["scale"].to_numpy(zero_copy_only=False).astype(np.float32)[:, None]
        end = begin + batch.num_rows
        found[u[begin:end], t[begin:end]] = numbers
        begin = end
    return found
