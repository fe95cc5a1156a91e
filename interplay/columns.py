"""The columns of `updates` and `directions` for one update of one role, built with numpy and Arrow.

What does not change between updates (module, layer, kind, space) is encoded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from interplay import records
from interplay.geometry import Floats
from interplay.measure import numbers
from interplay.sketch import Directions
from interplay.tensors import Module

Columns = dict[str, Any]
Place = dict[str, int | str]


class Labels:
    """Module, layer, kind and space of a fixed list of rows."""

    def __init__(self, rows: Sequence[tuple[Module, str]]) -> None:
        self.count = len(rows)
        modules = [module for module, _ in rows]
        self._words: Columns = {
            "module": words([module.name for module in modules]),
            "layer": pa.array([module.layer for module in modules], pa.int16()),
            "kind": words([module.kind for module in modules]),
            "space": words([space for _, space in rows]),
        }
        self.scale_R = np.array([abs(module.scale) if module.shape and space == "effective" else 1.0 for module, space in rows])

    def columns(self, place: Place, chosen: npt.NDArray[np.intp] | None = None) -> Columns:
        """The labels, and the place of the update repeated, for all rows or the chosen ones."""
        found = self._words if chosen is None else {name: column.take(pa.array(chosen)) for name, column in self._words.items()}
        return _repeated(place, self.count if chosen is None else len(chosen)) | found


def words(values: Sequence[str | None]) -> pa.Array:
    """Text as a dictionary column."""
    return pa.array(values, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.string()))


def updates(labels: Labels, place: Place, sums: Mapping[str, Floats], other_role: str | None) -> Columns:
    """All columns of `records.UPDATES`."""
    values = {name: nullable(column) for name, column in numbers(sums, labels.scale_R).items()}
    return labels.columns(place) | values | {"other_role": words([other_role] * labels.count)}


def directions(labels: Labels, place: Place, sketched: Directions) -> Columns:
    """All columns of `records.directions_schema`; modules whose update is not finite have no row."""
    chosen = np.flatnonzero(np.isfinite(sketched.scale_M))
    flat = pa.array(sketched.sketch_MK[chosen].reshape(-1), pa.float16())
    item = pa.field("item", pa.float16(), nullable=False)
    return labels.columns(place, chosen) | {
        "scale": sketched.scale_M[chosen],
        "sketch": pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, sketched.sketch_MK.shape[1])),
        "standard_error": nullable(sketched.standard_error_M[chosen]),
    }


def nullable(values: Floats) -> pa.Array:
    """float32, null where the value is undefined."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    return pa.array(short, pa.float32(), mask=~np.isfinite(short))


def _repeated(place: Place, count: int) -> Columns:
    kinds = {name: records.UPDATES.field(name).type for name in ("clock", "update", "iteration")}
    found: Columns = {name: np.full(count, place[name], kind.to_pandas_dtype()) for name, kind in kinds.items()}
    return found | {"role": words([str(place["role"])] * count)}
