"""What an update rule is: a way to move weights, given a closure that evaluates the objective.

A rule sees a model's trained tensors and a closure, never data or rewards. Its `optimizers` are real
`torch.optim.Optimizer`s, because that is where the recorder listens; most rules have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from interplay.config import RunConfig
from interplay.directions import Guides
from interplay.objectives.base import Metrics


@dataclass(frozen=True)
class Evaluated:
    """The objective's value at one point in weight space, and that of each of its U units (rows or prompts)."""

    loss: Tensor
    units_U: Tensor
    metrics: Metrics


class Closure(Protocol):
    """The objective on one batch as a function of the weights as they are."""

    def __call__(self) -> tuple[Tensor, Metrics]:
        """The loss with its graph."""

    def evaluate(self, copies: int = 1) -> list[Evaluated]:
        """Values without a graph; with `copies`, of as many stacked adapters in one pass."""

    def halves(self) -> tuple[Closure, Closure] | None:
        """The same objective on two halves of the batch, or None where it cannot be cut."""


class Stepper(Protocol):
    """A rule at work on one role's tensors."""

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """By the name that follows the role in a checkpoint; "" is the first-order optimiser's."""

    def step(self, closure: Any) -> Metrics:
        """One update. Returns the closure's metrics with `loss`, `forwards` (passes of the batch) and the rule's own added.

        Raises `DivergedError` before anything is changed if the loss is not finite.
        """

    def guide(self, guides: Guides | None) -> None:
        """Called before each iteration with what the last one did; None before there is one."""


class Simple:
    """A rule with one optimiser, which what the last iteration did does not concern."""

    optimizer: torch.optim.Optimizer

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"": self.optimizer}

    def guide(self, guides: Guides | None) -> None:
        """Nothing to learn from it."""


@dataclass(frozen=True)
class Plan:
    """What a rule may know of the run ahead, and whose tensors it moves."""

    learning_rate: float
    updates: int  # of this role in the whole run
    config: RunConfig
    model: torch.nn.Module | None = None
    names: tuple[str, ...] = ()  # of the parameters, in their order


@dataclass(frozen=True)
class UpdateRule:
    """One way to move weights."""

    name: str
    summary: str
    paper: str
    settings: type[Any]
    build: Callable[[Sequence[Tensor], Plan, Any], Stepper]
    rate: float = 3e-4  # step size where none is typed; rules differ by orders of magnitude
    #: differences of losses are taken, so the forward pass needs float32
    differences: bool = False
    #: needs what the last iteration did
    guided: bool = False
    #: never asks for a loss: a control, exempt from equal budgets
    control: bool = False
