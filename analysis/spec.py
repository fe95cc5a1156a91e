"""`FigureSpec`: what a figure says, without how it looks.

Tidy data, a closed set of marks, axes with units, the caption and what it rests on. No colours, no
fonts: `screen` (and a paper renderer) choose those, so both draw the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

MarkKind = Literal["line", "band", "points", "interval", "heat", "bar"]
Scale = Literal["linear", "log", "diverging", "category"]

#: The layer of what was recorded, where a curve shows its moving average: drawn faint.
RECORDED = "recorded"


@dataclass(frozen=True)
class Axis:
    """What one direction of the picture, or a colour scale, measures."""

    column: str
    label: str
    unit: str = ""
    scale: Scale = "linear"
    #: A diverging scale runs from minus this to this.
    limit: float = 1.0

    @property
    def text(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Mark:
    """One layer of the picture: the rows of `data` whose `layer` column says `layer`.

    line: x, y (and z), one per series. band: x, low, high. points: x, y (and z).
    interval: x and y, with whiskers from low to high `along` one of them.
    heat: x, y and the colour axis; a dot in cells whose column `within` is true (within chance), `null` is the chance SD of each.
    bar: x, y, with whiskers where low and high are known.
    """

    kind: MarkKind
    layer: str
    strong: bool = True
    along: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class FigureSpec:
    """One figure. `data` has the columns `layer` and `series` and those that the axes name."""

    name: str
    title: str
    data: pd.DataFrame = field(repr=False)
    marks: tuple[Mark, ...]
    x: Axis
    y: Axis
    caption: str
    alt: str
    n: int
    runs: tuple[str, ...]
    z: Axis | None = None
    colour: Axis | None = None
    origin: str = ""  # one line on where it comes from, such as the command that draws it; it goes into the file's metadata

    def __post_init__(self) -> None:
        missing = {"layer", "series", self.x.column, self.y.column} - set(self.data.columns)
        if missing:
            raise ValueError(f"figure {self.name} lacks the columns {', '.join(sorted(missing))}")

    @property
    def empty(self) -> bool:
        return self.data.empty

    def counts(self, axis: Axis) -> bool:
        """Whether all that stands on an axis is whole, as numbers of updates are: its ticks are whole then, too."""
        return axis.scale == "linear" and bool((self._finite(axis) % 1 == 0).all())

    def reach(self, axis: Axis) -> float:
        """From the first to the last on an axis of numbers."""
        values = self._finite(axis)
        return float(np.ptp(values)) if len(values) else 0.0

    def _finite(self, axis: Axis) -> npt.NDArray[np.float64]:
        values = self.data[axis.column].to_numpy(np.float64)
        return np.asarray(values[np.isfinite(values)])

    def places(self, axis: Axis, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
        """Where rows lie on an axis of numbers. NaN, which leaves a gap, is what has no place: infinities, and on a logarithmic axis what is not above 0."""
        values = rows[axis.column].to_numpy(np.float32)
        return np.where(np.isfinite(values) & ((axis.scale != "log") | (values > 0)), values, np.float32(np.nan))

    def edges(self, axis: Axis, rows: pd.DataFrame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The ends of a band along an axis; one that reaches below a logarithmic axis ends at the smallest value there."""
        low, high = (self.places(replace(axis, column=column), rows) for column in ("low", "high"))
        if axis.scale == "log":
            below = np.isnan(low) & np.isfinite(rows["low"].to_numpy(np.float32)) & np.isfinite(high)
            low = np.where(below, np.nanmin(self.places(axis, self.data)), low)
        return low, high

    def rows(self, mark: Mark) -> pd.DataFrame:
        return self.data[self.data["layer"] == mark.layer]
