"""Low-rank adapters of one shape, stacked and measured together: what is kept, what an update leaves.

Copies are fp32 factors, never the dense weight. Only reads the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interplay.geometry import Change, Displaced, Gram, Tangent, Weights, attainable_M, change, displaced, gram, null_sd_SM, tangent, weight_norms2_SM
from interplay.measure import ABSENT, ITERATION, PREVIOUS, START, Measured, gradients2_M, scattered, shared_rows, stacked
from interplay.sketch import Sketcher
from interplay.tensors import Module, start_value


@dataclass(frozen=True)
class Kept:
    """A change that later updates, or other roles' updates, are compared with."""

    change: Change
    gram: Gram


class _Slot:
    """Memory for one change, filled in two halves around the step."""

    def __init__(self, module: Module, M: int, device: torch.device) -> None:
        m, n, r = module.shape
        left = torch.zeros(M, m, 2 * r, dtype=torch.float32, device=device)
        right = torch.zeros(M, 2 * r, n, dtype=torch.float32, device=device)
        self.change = Change(left, right)
        self.base = Weights(right[:, :r], left[..., r:])
        self.moved = Weights(right[:, r:], left[..., :r])
        self._base, self._moved = ([*weights.A_MRn, *weights.B_MmR] for weights in (self.base, self.moved))

    def write_before(self, As: list[Tensor], Bs: list[Tensor]) -> None:
        """L = [. | B0], R = [A0 ; .]"""
        torch._foreach_copy_(self._base, As + Bs)

    def write_after(self, As: list[Tensor], Bs: list[Tensor]) -> None:
        """L = [B1-B0 | B0], R = [A1 ; A1-A0]"""
        torch._foreach_copy_(self._moved, As + Bs)
        self.moved.A_MRn.sub_(self.base.A_MRn)
        self.moved.B_MmR.sub_(self.base.B_MmR)
        torch._foreach_copy_(self._base[: len(As)], As)


class AdapterGroup:
    """M adapters of one shape (m, n, r) on one device."""

    spaces = ("factor", "effective")

    def __init__(self, modules: Sequence[Module], copies: frozenset[str], start: Mapping[str, Tensor] | None) -> None:
        self.rebind(modules)
        self._copies = copies
        self._slot = self._fresh()
        self._spare = self._fresh() if PREVIOUS in copies else None
        self._start = self._start_weights(start) if START in copies else None
        self._iteration_start: Weights | None = None
        self.latest: Kept | None = None
        self.iteration: Kept | None = None

    def rebind(self, modules: Sequence[Module]) -> None:
        """Follow other tensors of the same names and shapes."""
        self.modules = tuple(modules)
        self.names = tuple(module.name for module in modules)
        self._As: list[Tensor] = [module.parts[0].tensor for module in modules]
        self._Bs: list[Tensor] = [module.parts[1].tensor for module in modules]
        self.device = self._As[0].device
        trains = [[float(module.parts[side].trained) for module in modules] for side in (0, 1)]
        self._trains_A_M, self._trains_B_M = torch.tensor(trains, dtype=torch.float64, device=self.device)

    def _fresh(self) -> _Slot:
        return _Slot(self.modules[0], len(self.modules), self.device)

    def _start_weights(self, start: Mapping[str, Tensor] | None) -> Weights:
        if start is None:
            return Weights.of(self._As, self._Bs)
        A, B = ([start_value(start, module.parts[side]).to(self.device) for module in self.modules] for side in (0, 1))
        return Weights.of(A, B)

    # ---- iterations

    def begin_iteration(self) -> None:
        """Called right before the first update of an iteration."""
        if ITERATION in self._copies:
            self._iteration_start = Weights.of(self._As, self._Bs)

    def end_iteration(self) -> None:
        """The weights now minus the weights at `begin_iteration` become what other roles compare with."""
        if self._iteration_start is not None:
            delta = change(self._iteration_start, Weights.of(self._As, self._Bs))
            self.iteration = Kept(delta, gram(delta, delta))

    # ---- one update

    def before(self) -> None:
        """Called right before the optimiser moves the weights."""
        self._slot.write_before(self._As, self._Bs)

    def gradients(self) -> Tensor:
        """Squared norms of A's and B's gradients together, one per module."""
        return gradients2_M(self.modules, self.device)

    def after(self, gradients_M: Tensor, other: AdapterGroup | None, sketcher: Sketcher) -> Measured:
        """Called right after the optimiser moved the weights. Rows: factor space, then effective space."""
        away = self._away()
        self._slot.write_after(self._As, self._Bs)
        update = self._slot.change
        own, sums = self._measured(update, away)
        sums |= {"gradient": self._in_factor_space(gradients_M)} | self._with_other(update, own, other)
        sketch = self._sketch(update, sketcher)
        self._keep(Kept(update, own))
        return Measured(stacked(sums, 2, len(self.modules), self.device), sketch)

    def _away(self) -> tuple[Tensor, Tensor] | None:
        """How far B and A are from the start of the run before the update; None where no start is kept."""
        if self._start is None:
            return None
        return self._slot.base.B_MmR - self._start.B_MmR, self._slot.base.A_MRn - self._start.A_MRn

    def _measured(self, update: Change, away: tuple[Tensor, Tensor] | None) -> tuple[Gram, dict[str, Tensor]]:
        """The Gram of the update with itself, and its sums with itself, the weights, the previous update and the displacement."""
        own = gram(update, update)
        sums = {"update": own.both_SM(), "weight": weight_norms2_SM(own)} | self._with_previous(update)
        return own, sums | ({} if away is None else with_displacement(displaced(update, own, *away)))

    def _in_factor_space(self, gradients_M: Tensor) -> Tensor:
        """The effective weight of an adapter has no gradient of its own: absent there."""
        return torch.stack([gradients_M, torch.full_like(gradients_M, ABSENT)])

    def _with_previous(self, update: Change) -> dict[str, Tensor]:
        if self.latest is None:
            return {}
        return {"with_previous": gram(update, self.latest.change).both_SM(), "previous": self.latest.gram.both_SM()}

    def _with_other(self, update: Change, own: Gram, other: AdapterGroup | None) -> dict[str, Tensor]:
        """Against the other role's latest update and iteration delta, where it has the same modules."""
        kept = {} if other is None else {"other_update": other.latest, "other_iteration": other.iteration}
        if other is None or not any(kept.values()):
            return {}
        mine, theirs = shared_rows(self.names, other.names, self.device)
        update, reach = update.rows(mine), tangent(update, self._trains_A_M, self._trains_B_M).rows(mine)
        found: dict[str, Tensor] = {}
        for name, item in kept.items():
            if item is not None:
                found |= _compared(name, update, own.rows(mine), reach, item.change.rows(theirs), item.gram.rows(theirs))
        return {key: scattered(value_SM, mine, len(self.modules)) for key, value_SM in found.items()}

    def _keep(self, kept: Kept) -> None:
        """The update becomes the previous one; the memory of the one before it is used again."""
        if self._spare is not None:
            self._slot, self._spare, self.latest = self._spare, self._slot, kept

    # ---- sketches

    def _sketch(self, update: Change, sketcher: Sketcher) -> Tensor:
        if not sketcher.spec.k:
            return torch.zeros(len(self.modules), 1, device=self.device)
        if sketcher.spec.space == "effective":
            return torch.cat([self._dense_sketch(update, i, sketcher) for i in range(len(self.modules))])
        moved = self._slot.moved
        return sketcher(self.names, "A", moved.A_MRn) + sketcher(self.names, "B", moved.B_MmR)

    def _dense_sketch(self, update: Change, i: int, sketcher: Sketcher) -> Tensor:
        """Of s dW of one module, dense for a moment, in the orientation of the layer's own weight."""
        module = self.modules[i]
        dense = module.scale * (update.left_MmQ[i] @ update.right_MQn[i])
        return sketcher((module.name,), "weight", (dense.t() if module.transposed else dense)[None])


def with_displacement(found: Displaced) -> dict[str, Tensor]:
    sums = {"with_displacement": found.with_update, "displacement_before": found.before, "displacement": found.after}
    return {name: grams.both_SM() for name, grams in sums.items()}


def _compared(name: str, update: Change, own: Gram, reach: Tangent, theirs: Change, their_own: Gram) -> dict[str, Tensor]:
    """Inner product, squared norm, attainable cosine and null with a change of another role. Factors are free: 1 is attainable there."""
    cross = gram(update, theirs)
    reach_M = attainable_M(reach, cross, their_own)
    return {
        f"with_{name}": cross.both_SM(),
        name: their_own.both_SM(),
        f"attainable_{name}": torch.stack([torch.ones_like(reach_M), reach_M]),
        f"null_{name}": null_sd_SM(own, cross, their_own, update.left_MmQ.shape[1], update.right_MQn.shape[2]),
    }
