"""`FigureSpec` as JSON and back, number for number: what was read back draws the same bytes.

JSON has no word for what is not finite, so such a number is null, and `infinite` says which of them were infinities. `types` holds the
kind of each column of numbers: 0.1 of four bytes and of eight are different numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

import numpy as np
import pandas as pd

from analysis.spec import Axis, FigureSpec, Mark, MarkKind, Scale
from interplay.errors import DataError

AXES = ("x", "y", "z", "colour")
_WORDS = ("name", "title", "caption", "alt", "n", "origin")
_NUMBERS = "biuf"  # numpy's letters of the kinds that become JSON numbers


def dumps(spec: FigureSpec, about: str) -> str:
    """The whole figure; `about` is the line that its other files carry."""
    content = {**_head(spec), "about": about, **_columns(spec.data)}
    return json.dumps(content, indent=1, allow_nan=False, default=_value) + "\n"


def fingerprint(spec: FigureSpec, rows: str) -> str:
    """SHA-256 of all that is shown: words, marks, axes, and the hash of the rows. Where it comes from is left out."""
    content = {**_head(spec), "origin": "", "rows": rows}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_value).encode()).hexdigest()


def _head(spec: FigureSpec) -> dict[str, Any]:
    """Everything but the rows."""
    axes = {name: axis and asdict(axis) for name in AXES for axis in [getattr(spec, name)]}
    words = {name: getattr(spec, name) for name in _WORDS}
    return {**words, "runs": list(spec.runs), "marks": [asdict(mark) for mark in spec.marks], **axes}


def _columns(data: pd.DataFrame) -> dict[str, Any]:
    numbers = {str(name): data[name].to_numpy() for name in data if data[name].dtype.kind in _NUMBERS and isinstance(data[name].dtype, np.dtype)}
    infinite = {name: [[int(row), float(values[row]) > 0] for row in np.flatnonzero(np.isinf(values))] for name, values in numbers.items()}
    return {
        "types": {name: values.dtype.name for name, values in numbers.items()},
        "infinite": {name: rows for name, rows in infinite.items() if rows},
        "data": {str(name): [_value(value) for value in numbers.get(str(name), data[name])] for name in data},
    }


def _value(value: Any) -> Any:
    """A number in the fewest digits that mean it; null where there is none."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(str(value)) if np.isfinite(value) else None
    return value if isinstance(value, str) else None if pd.isna(value) else str(value)


# --- and back ----------------------------------------------------------------------------------


def loads(text: str) -> FigureSpec:
    """The figure that `dumps` wrote. Raises `DataError` for anything else."""
    try:
        raw = json.loads(text)
        axes: dict[str, Any] = {name: None if raw[name] is None else _axis(raw[name]) for name in AXES}
        marks = tuple(_mark(mark) for mark in raw["marks"])
        words = {name: raw[name] for name in _WORDS}
        return FigureSpec(**words, **axes, data=_frame(raw), marks=marks, runs=tuple(map(str, raw["runs"])))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"this is not the JSON of a figure ({reason}); give a file that `interplay figure --out FILE.json` wrote") from error


def _axis(raw: Mapping[str, Any]) -> Axis:
    return Axis(**{**raw, "scale": _known(raw["scale"], get_args(Scale))})


def _mark(raw: Mapping[str, Any]) -> Mark:
    return Mark(**{**raw, "kind": _known(raw["kind"], get_args(MarkKind))})


def _known(word: str, words: tuple[str, ...]) -> Any:
    if word not in words:
        raise ValueError(f"{word!r} is none of {', '.join(words)}")
    return word


def _frame(raw: Mapping[str, Any]) -> pd.DataFrame:
    types, infinite = raw["types"], raw["infinite"]
    columns = {name: _column(values, types.get(name), infinite.get(name, ())) for name, values in raw["data"].items()}
    return pd.DataFrame(columns)


def _column(values: list[Any], kind: str | None, infinite: Any) -> Any:
    if kind is None:
        return pd.Series(values, dtype=object)
    if np.dtype(kind).kind not in _NUMBERS:
        raise ValueError(f"{kind!r} is no kind of number")
    column = np.array([np.nan if value is None else value for value in values], dtype=kind)
    for row, positive in infinite:
        column[row] = np.inf if positive else -np.inf
    return column
