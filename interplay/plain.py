"""Plain tensors of a role (full parameters, heads, biases) as one flat vector, measured piece by piece.

A piece is short enough for the cache, and for an inner product in fp32; pieces are summed in float64.
Copies are fp32. Only reads the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from interplay.measure import ITERATION, PIECE, PREVIOUS, START, Measured, gradients2_M, stacked
from interplay.sketch import Sketcher
from interplay.tensors import Module, Signature, start_value

#: Which vectors of a piece each sum is the inner product of.
_PRODUCTS = {
    "update": ("update", "update"),
    "weight": ("weight", "weight"),
    "with_previous": ("update", "previous"),
    "previous": ("previous", "previous"),
    "displacement": ("displacement", "displacement"),
    "with_displacement": ("update", "displacement_before"),
    "displacement_before": ("displacement_before", "displacement_before"),
    "with_other_update": ("update", "other_update"),
    "other_update": ("other_update", "other_update"),
    "with_other_iteration": ("update", "other_iteration"),
    "other_iteration": ("other_iteration", "other_iteration"),
}


class PlainGroup:
    """M modules of any size on one device."""

    spaces = ("effective",)

    def __init__(self, modules: Sequence[Module], copies: frozenset[str], start: Mapping[str, Tensor] | None) -> None:
        self.rebind(modules)
        self._copies = copies
        self._update_N = torch.zeros(sum(module.numel for module in modules), dtype=torch.float32, device=self.device)
        self._spare_N = torch.zeros_like(self._update_N) if PREVIOUS in copies else None
        self._start_N = self._start_vector(start) if START in copies else None
        self._iteration_start_N: Tensor | None = None
        self.latest_N: Tensor | None = None
        self.iteration_N: Tensor | None = None

    def rebind(self, modules: Sequence[Module]) -> None:
        """Follow other tensors of the same names and shapes."""
        self.modules = tuple(modules)
        self.names = tuple(module.name for module in modules)
        self._parts = [(i, part) for i, module in enumerate(modules) for part in module.parts]
        self._tensors: list[Tensor] = [part.tensor for _, part in self._parts]
        self.device = self._tensors[0].device

    def _start_vector(self, start: Mapping[str, Tensor] | None) -> Tensor:
        if start is None:
            return self._now_N()
        return torch.cat([start_value(start, part).detach().to(self.device, torch.float32).reshape(-1) for _, part in self._parts])

    def _now_N(self) -> Tensor:
        return torch.cat([tensor.detach().reshape(-1).float() for tensor in self._tensors])

    def _views(self, flat_N: Tensor) -> list[Tensor]:
        pieces = torch.split(flat_N, [tensor.numel() for tensor in self._tensors])
        return [piece.view(tensor.shape) for piece, tensor in zip(pieces, self._tensors, strict=True)]

    # ---- iterations

    def begin_iteration(self) -> None:
        """Called right before the first update of an iteration."""
        if ITERATION in self._copies:
            self._iteration_start_N = self._now_N()

    def end_iteration(self) -> None:
        """The weights now minus the weights at `begin_iteration` become what other roles compare with."""
        if self._iteration_start_N is not None:
            self.iteration_N = self._now_N().sub_(self._iteration_start_N)

    # ---- one update

    def before(self) -> None:
        """Called right before the optimiser moves the weights."""
        torch._foreach_copy_(self._views(self._update_N), self._tensors)

    def gradients(self) -> Tensor:
        """Squared norms of the gradients, weight and bias together."""
        return gradients2_M(self.modules, self.device)

    def after(self, gradients_M: Tensor, other: PlainGroup | None, sketcher: Sketcher) -> Measured:
        """Called right after the optimiser moved the weights. Rows: effective space only."""
        views = self._views(self._update_N)
        torch._foreach_neg_(views)
        torch._foreach_add_(views, self._tensors)
        sums = self._sums(other) | {"gradient": gradients_M}
        sketch = self._sketch(views, sketcher)
        if self._spare_N is not None:
            self._update_N, self._spare_N, self.latest_N = self._spare_N, self._update_N, self._update_N
        return Measured(stacked(sums, 1, len(self.modules), self.device), sketch)

    def _sums(self, other: PlainGroup | None) -> dict[str, Tensor]:
        """Inner products of every module: the pieces' products, added up per module."""
        found: dict[str, tuple[list[int], list[Tensor]]] = {}
        offset = 0
        places = {} if other is None else _places(other)
        for (i, part), tensor in zip(self._parts, self._tensors, strict=True):
            there = places.get((self.modules[i].signature, part.label))
            flat_N = tensor.reshape(-1)
            for at in range(0, flat_N.numel(), PIECE):
                vectors = self._vectors(flat_N[at : at + PIECE].float(), offset + at)
                if other is not None and there is not None:
                    vectors |= _others(other, there + at, len(vectors["update"]))
                for name, (x, y) in _PRODUCTS.items():
                    if x in vectors and y in vectors:
                        owners, products = found.setdefault(name, ([], []))
                        owners.append(i)
                        products.append(torch.dot(vectors[x], vectors[y]))
            offset += flat_N.numel()
        sums = {name: self._per_module(owners, products) for name, (owners, products) in found.items()}
        return sums | self._chances(sums)

    def _chances(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All weights are free, so any cosine is attainable, and those of random updates of n numbers spread by 1/sqrt(n)."""
        sizes_M = torch.zeros(len(self.modules), dtype=torch.float64, device=self.device)
        owners = torch.tensor([i for i, _ in self._parts], device=self.device)
        sizes_M.index_add_(0, owners, torch.tensor([float(tensor.numel()) for tensor in self._tensors], dtype=torch.float64, device=self.device))
        names = [name for name in ("other_update", "other_iteration") if name in sums]
        return {f"attainable_{n}": torch.ones_like(sums[n]) for n in names} | {f"null_{n}": sizes_M.rsqrt() for n in names}

    def _per_module(self, owners: list[int], products: list[Tensor]) -> Tensor:
        total_M = torch.full((len(self.modules),), torch.nan, dtype=torch.float64, device=self.device)
        rows = torch.tensor(owners, device=self.device)
        total_M[rows] = 0.0
        return total_M.index_add_(0, rows, torch.stack(products).double())

    def _vectors(self, weight: Tensor, at: int) -> dict[str, Tensor]:
        """The same piece of all vectors of this role that are kept."""
        piece = slice(at, at + weight.numel())
        vectors = {"weight": weight, "update": self._update_N[piece]}
        if self.latest_N is not None:
            vectors["previous"] = self.latest_N[piece]
        if self._start_N is not None:
            vectors["displacement"] = weight - self._start_N[piece]
            vectors["displacement_before"] = vectors["displacement"] - vectors["update"]
        return vectors

    # ---- sketches

    def _sketch(self, views: list[Tensor], sketcher: Sketcher) -> Tensor:
        k = sketcher.spec.k
        table_MJ = torch.zeros(len(self.modules), 2 * k + 1, dtype=torch.float32, device=self.device)
        for (i, part), view in zip(self._parts, views, strict=True):
            if k:
                table_MJ[i] += sketcher((self.names[i],), part.label, view[None])[0]
        return table_MJ


def _places(group: PlainGroup) -> dict[tuple[Signature, str], int]:
    """Where each tensor of a group begins in its flat vectors."""
    places, offset = {}, 0
    for i, part in group._parts:
        places[group.modules[i].signature, part.label] = offset
        offset += part.tensor.numel()
    return places


def _others(other: PlainGroup, at: int, length: int) -> dict[str, Tensor]:
    """The same piece of the other role's latest update and iteration delta, as far as they exist."""
    vectors = {"other_update": other.latest_N, "other_iteration": other.iteration_N}
    return {name: vector_N[at : at + length] for name, vector_N in vectors.items() if vector_N is not None}
