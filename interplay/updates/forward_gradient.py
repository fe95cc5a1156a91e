"""Forward gradient: the exact slope along an isotropic direction, by forward-mode differentiation.

Baydin et al. 2022 (arXiv 2202.08587). The accuracy anchor of SPSA: same directions as `mezo`, no
finite difference, about two forward passes of work and no activations kept.

    slope = grad L . z  (torch.func.jvp),    theta <- theta - rate * slope * z

Fused attention has no forward-mode derivative, so the model is switched to plain ("eager") attention for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interplay.config import setting
from interplay.directions import Direction, isotropic
from interplay.objectives.base import Metrics
from interplay.updates._moving import Mover, average
from interplay.updates.base import Closure, Plan, UpdateRule


@dataclass(frozen=True)
class Settings:
    directions: int = setting(1, "forward_gradient", "directions K that are drawn and averaged in each update", low=1)
    noise: str = setting("gaussian", "forward_gradient", "elements of the directions", choices=("gaussian", "rademacher"))


class _Called(nn.Module):
    """A closure as a module, so that its model's tensors can be given as arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, closure: Closure) -> Tensor:
        return closure()[0]


class ForwardGradient(Mover):
    """Exact slopes along blind directions."""

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Any) -> None:
        super().__init__(parameters, plan, settings)
        assert plan.model is not None
        self.called = _Called(plan.model)

    @contextmanager
    def _plain_attention(self) -> Iterator[None]:
        """Only inside, so that scores outside are those of every other rule."""
        model: Any = self.called.model
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not hasattr(whole, "set_attn_implementation"):
            yield
            return
        before = whole.config._attn_implementation
        whole.set_attn_implementation("eager")
        try:
            yield
        finally:
            whole.set_attn_implementation(before)

    def slope(self, closure: Closure, z: Direction) -> tuple[float, float]:
        """Loss and its derivative along z."""
        names = [f"model.{name}" for name in self.space.names]
        points = tuple(parameter.detach() for parameter in self.space.parameters)

        def at(*tensors: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(self.called, dict(zip(names, tensors, strict=True)), (closure,))
            return found

        with self._plain_attention():
            values = torch.func.jvp(at, points, tuple(self.space.views(z.dense())))
        return float(values[0]), float(values[1])

    def step(self, closure: Closure) -> Metrics:
        self.space.hold()
        count = self.settings.directions
        drawn = [isotropic(self.space, self.seed, self.optimizer.done * count + k, self.settings.noise) for k in range(count)]
        with torch.no_grad():
            found = [self.slope(closure, z) for z in drawn]
        slopes, rate = average([slope for _, slope in found], self.space.theta_N.device), self.rate
        self.refuse_nonsense(slopes, lower="--learning-rate")
        self.move([(-rate * slope / count, z) for slope, z in zip(slopes, drawn, strict=True)])
        norm = sum(z.norm for z in drawn) / count
        return {"loss": found[0][0], "zo/slope": sum(slopes) / count, "zo/norm": norm, "forwards": 2.0 * count, "lr": rate}


RULE = UpdateRule("forward_gradient", "exact slope along an isotropic direction", "arXiv:2202.08587", Settings, ForwardGradient, rate=1e-6)
