"""A forward pass at theta + scale * z without writing theta: each module is perturbed while it runs.

Before a module's forward its own tensors are replaced by perturbed ones in a scratch buffer as large
as the largest chain of modules that run inside one another, and put back afterwards. So a probe of all
parameters needs one layer of extra memory, and what is restored was never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from interplay.directions import Direction, Space
from interplay.kernels import aligned


class Scratch:
    """The perturbed tensors of the module that runs."""

    def __init__(self, space: Space, model: nn.Module) -> None:
        self.space = space
        self.theirs = space.views(space.theta_N)
        numbers = {id(parameter): s for s, parameter in enumerate(space.parameters)}
        owned = {module: [(p, numbers[id(p)]) for p in module.parameters(recurse=False) if id(p) in numbers] for module in model.modules()}
        self.owned = {module: parts for module, parts in owned.items() if parts}
        self.buffer_N = torch.zeros(self._chain(model), dtype=torch.float32, device=space.theta_N.device)
        self.open: list[int] = [0]  # where the tensors of each running module end; modules run inside others
        self.holds: tuple[nn.Module | None, int, float, Direction | None] = (None, 0, 0.0, None)

    def _size(self, module: nn.Module) -> int:
        return sum(aligned(parameter.numel()) for parameter, _ in self.owned.get(module, ()))

    def _chain(self, module: nn.Module) -> int:
        """Most room that modules running inside one another take together."""
        return self._size(module) + max((self._chain(child) for child in module.children()), default=0)

    def enter(self, module: nn.Module, scale: float, z: Direction) -> None:
        """Replace the module's tensors by those at theta + scale z, behind those of the modules it runs in."""
        place = self.open[-1]
        wanted = (module, place, scale, z)
        for parameter, s in self.owned[module]:
            view_N = self.buffer_N[place : place + parameter.numel()]
            if self.holds != wanted:  # the vocabulary matrix, used for one chunk after another, is made once
                z.add_tensor(s, scale, view_N)
            parameter.data = view_N.view(parameter.shape)
            place += aligned(parameter.numel())
        self.open.append(place)
        self.holds = wanted

    def leave(self, module: nn.Module) -> None:
        self.open.pop()
        for parameter, s in self.owned[module]:
            parameter.data = self.theirs[s]


@contextmanager
def streamed(scratch: Scratch, scale: float, z: Direction) -> Iterator[None]:
    """The model at theta + scale * z inside the block."""
    scratch.holds, scratch.open = (None, 0, 0.0, None), [0]
    handles: list[Any] = []

    def before(module: nn.Module, _arguments: Any) -> None:
        scratch.enter(module, scale, z)

    def after(module: nn.Module, _arguments: Any, _output: Any) -> None:
        scratch.leave(module)

    try:
        for module in scratch.owned:
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        scratch.space.point()
