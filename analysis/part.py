"""One layer or one kind of module of a recorded run, in the clothes of a run: so every figure of updates can be narrowed to it.

Norms and inner products of modules add up, and their nulls and sketches are kept by module, so nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.trajectory import OUTSIDE, Trajectory

if TYPE_CHECKING:  # recipes makes parts
    from analysis.recipes import Recording

ALL = "all"
#: Streams with a row for each module.
_BY_MODULE = ("updates", "directions")


@dataclass(frozen=True)
class Part:
    """What `whole` recorded of one layer (a block's number, `OUTSIDE` for what is outside the blocks) and one kind, such as q_proj."""

    whole: Recording
    layer: str = ALL
    kind: str = ALL

    @property
    def run(self) -> str:
        return self.whole.run

    @property
    def method(self) -> str:
        return self.whole.method

    @property
    def seed(self) -> int:
        return self.whole.seed

    @property
    def control(self) -> bool:
        return self.whole.control

    def frame(self, stream: str, /) -> pd.DataFrame:
        """Rows of the chosen modules; streams without modules as they are. Raises `ValueError` where no recorded module fits."""
        frame = self.whole.frame(stream)
        if stream not in _BY_MODULE or frame.empty:
            return frame
        found = frame[_is(frame, self.layer, self.kind)]
        if found.empty:
            raise ValueError(f"no module is of {words(self.layer, self.kind)}; {_recorded(frame)}")
        return found

    def trajectories(self, roles: Sequence[str], /) -> list[Trajectory]:
        """The chosen modules' paths; roles that have none of them are left out."""
        narrowed = [(path, self._modules(path)) for path in self.whole.trajectories(roles)]
        return [path.only(modules) for path, modules in narrowed if modules]

    def _modules(self, path: Trajectory) -> list[str]:
        places = zip(path.modules_T, path.layers_T.tolist(), strict=True)
        return [name for name, layer in places if self.layer in (ALL, str(layer)) and self.kind in (ALL, name.rsplit(".", 1)[-1])]


def words(layer: str, kind: str) -> str:
    """`layer 3 and kind q_proj`."""
    place = "modules outside the blocks" if layer == str(OUTSIDE) else f"layer {layer}"
    return " and ".join([place] * (layer != ALL) + [f"kind {kind}"] * (kind != ALL))


def layers(frame: pd.DataFrame) -> list[str]:
    """The layers of a stream with modules, from the bottom; what is outside the blocks last."""
    known = pd.unique(frame["layer"].fillna(OUTSIDE).astype(int))
    return [str(number) for number in sorted(known, key=lambda number: (number == OUTSIDE, number))]


def kinds(frame: pd.DataFrame) -> list[str]:
    return sorted(str(kind) for kind in pd.unique(frame["kind"].dropna()))


def _is(frame: pd.DataFrame, layer: str, kind: str) -> pd.Series[Any]:
    """Which rows are of that layer and kind. Raises `ValueError` for a layer that is no number."""
    chosen = pd.Series(True, index=frame.index)
    if layer != ALL:
        if not layer.removeprefix("-").isdecimal():
            raise ValueError(f"layer is {layer!r}; it can be all, or the number of a block ({OUTSIDE}: outside the blocks)")
        chosen &= frame["layer"].fillna(OUTSIDE) == int(layer)
    return chosen & (frame["kind"].astype(str) == kind) if kind != ALL else chosen


def _recorded(frame: pd.DataFrame) -> str:
    return f"recorded layers: {', '.join(layers(frame))} ({OUTSIDE} is outside the blocks); recorded kinds: {', '.join(kinds(frame))}"
