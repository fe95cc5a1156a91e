"""What rules that need a previous update share: first order until there is one, then their own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from interplay.config import setting
from interplay.directions import Frame, Guides, frame
from interplay.objectives.base import Metrics
from interplay.updates._moving import Mover
from interplay.updates.base import Closure, Plan
from interplay.updates.first_order import FirstOrder
from interplay.updates.first_order import Settings as FirstOrderSettings


@dataclass(frozen=True)
class FirstIteration:
    """Settings of rules that begin with an iteration of first order."""

    first_rate: float = setting(3e-4, "zeroth", "AdamW step size of the first iteration, which has no previous update", above=0)


class Guided(Mover, ABC):
    """First order while there is no previous update; afterwards `guided_step`."""

    mode = "ref"
    previous_N: Tensor | None = None

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Any) -> None:
        super().__init__(parameters, plan, settings)
        self.first = FirstOrder(parameters, replace(plan, learning_rate=settings.first_rate), FirstOrderSettings())
        self.optimizers = {**self.first.optimizers, **self.optimizers}
        self.frame: Frame | None = None
        self.since = 0  # updates of this iteration

    def guide(self, guides: Guides | None) -> None:
        """Take the last iteration's updates; one that did not move at all guides nowhere."""
        self.since = 0
        self.frame = None
        if guides is not None and guides.previous:
            made = frame(self.space, guides, self.mode, self.seed)
            self.frame = made if made.previous_norm > 0 else None
        if self.frame is not None:
            self.first.optimizer.zero_grad(set_to_none=True)  # what is left of a first-order iteration is no gradient of this one
        self.previous_N = None if self.frame is None else self.frame.p_N

    def step(self, closure: Closure) -> Metrics:
        metrics = self.first.step(closure) if self.frame is None else self.guided_step(closure)
        self.since += 1
        return metrics

    @abstractmethod
    def guided_step(self, closure: Closure) -> Metrics:
        """An update when there is a previous one."""

    @property
    def progress(self) -> float:
        """Share of this iteration's updates that are done: every iteration has a new previous update."""
        return min(self.since / max(self.plan.config.updates, 1), 1.0)
