"""Many adapters in one forward pass: rows of a batch in equal groups, each group with its own A and B.

The base's products are shared by all groups, the adapters' are one batched product; the losses are
those of one pass per adapter up to rounding. MobiZO (arXiv 2409.15520) showed the idea for q
directions and both signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interplay.directions import Space


class Stack(nn.Module):
    """A linear map for each of G groups of rows; stands where PEFT keeps A or B."""

    def __init__(self, weight_Goi: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_Goi, requires_grad=False)

    def forward(self, x_RSi: Tensor) -> Tensor:
        groups, out, into = self.weight.shape
        flat_Gki = x_RSi.reshape(groups, -1, into)
        return torch.bmm(flat_Gki, self.weight.transpose(1, 2)).view(*x_RSi.shape[:-1], out)


def places(model: nn.Module, space: Space) -> dict[str, tuple[nn.ModuleDict, str]] | None:
    """Where each trained tensor is held, by name; None where one is not the weight of an adapter's linear map."""
    owners = {
        id(part.weight): (holder, name)
        for holder in model.modules()
        if isinstance(holder, nn.ModuleDict)
        for name, part in holder.items()
        if type(part) is nn.Linear and part.bias is None
    }
    found = {name: owners.get(id(parameter)) for name, parameter in zip(space.names, space.parameters, strict=True)}
    return None if any(place is None for place in found.values()) else found  # type: ignore[return-value]


@contextmanager
def stacked(space: Space, where: dict[str, tuple[nn.ModuleDict, str]], theta_GN: Tensor) -> Iterator[None]:
    """The model with the adapters of G flat weight vectors inside the block; batches have G equal groups of rows."""
    before: list[tuple[nn.ModuleDict, str, Any]] = []
    try:
        for name, start, size, parameter in zip(space.names, space.segments.starts_S, space.segments.sizes_S, space.parameters, strict=True):
            holder, key = where[name]
            before.append((holder, key, holder[key]))
            holder[key] = Stack(theta_GN[:, int(start) : int(start + size)].view(len(theta_GN), *parameter.shape))
        yield
    finally:
        for holder, key, module in before:
            holder[key] = module
