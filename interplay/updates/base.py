"""What an update rule is: a way to move weights, given a closure that evaluates the objective.

A rule sees parameters and a closure, never data or rewards. Its `optimizer` is a real
`torch.optim.Optimizer`, because that is where the recorder listens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from interplay.config import RunConfig
from interplay.objectives.base import Metrics

Closure = Callable[[], tuple[Tensor, Metrics]]


class Stepper(Protocol):
    """A rule at work on one role's parameters."""

    optimizer: torch.optim.Optimizer

    def step(self, closure: Closure) -> Metrics:
        """One update. Returns the closure's metrics with `loss` and the rule's own added.

        Raises `DivergedError` before anything is changed if the loss is not finite.
        """


@dataclass(frozen=True)
class Plan:
    """What a rule may know of the run ahead."""

    learning_rate: float
    updates: int  # of this role in the whole run
    config: RunConfig


@dataclass(frozen=True)
class UpdateRule:
    """One way to move weights."""

    name: str
    summary: str
    paper: str
    settings: type[Any]
    build: Callable[[Sequence[Tensor], Plan, Any], Stepper]
