"""What rules that step along chosen directions share: the optimiser the recorder listens to, the rate, and the last few updates.

A rule here chooses directions and how far to go; where slopes come from is its own business (`_zeroth.py` for differences of losses).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interplay.directions import Direction, Guides, Space
from interplay.errors import DivergedError
from interplay.updates.base import Plan
from interplay.updates.first_order import factor


class Along(torch.optim.Optimizer):
    """theta <- theta + sum of coefficient * direction. The recorder listens to its `step`."""

    def __init__(self, space: Space, rate: float) -> None:
        super().__init__(space.parameters, {"lr": rate})
        self.space = space
        self.moves: list[tuple[float, Direction]] = []
        self.decay = 0.0  # share of theta that the next step takes away

    @property
    def done(self) -> int:
        """Steps so far; kept in the state, so that a resumed run goes on where it was."""
        return int(self.state[self.space.parameters[0]].get("step", torch.zeros(())))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override] # nothing to evaluate here
        del closure
        if self.decay:
            self.space.theta_N.mul_(1 - self.decay)
        for coefficient, direction in self.moves:
            direction.add(coefficient, self.space.theta_N, self.space.theta_N)
        self.moves = []
        self.state[self.space.parameters[0]]["step"] = torch.tensor(float(self.done + 1))


class Mover:
    """A rule's weights as one flat space, and the optimiser that moves them."""

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Any) -> None:
        self.plan, self.settings = plan, settings
        self.space = Space(plan.names or tuple(f"parameter {i}" for i in range(len(parameters))), parameters)
        self.optimizer = Along(self.space, plan.learning_rate)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"zeroth": self.optimizer}
        self.recent: list[list[tuple[float, Direction]]] = []
        self.seed = plan.config.stream_seed("perturbation")

    def guide(self, guides: Guides | None) -> None:
        """Rules that move blindly need to know nothing."""

    @property
    def rate(self) -> float:
        config = self.plan.config
        share: float = factor(config.schedule, config.warmup, self.plan.updates, self.optimizer.done)
        return self.plan.learning_rate * share

    def move(self, moves: list[tuple[float, Direction]]) -> None:
        """Step along the directions; the last few updates are kept as what made them."""
        self.recent = [*self.recent, moves][-RECENT:]
        self.optimizer.moves, self.optimizer.decay = list(moves), self.rate * self.plan.config.weight_decay
        self.optimizer.step()

    def refuse_nonsense(self, slopes: Sequence[float], *, lower: str) -> None:
        """Raises `DivergedError` before anything has moved; `lower` says what to lower."""
        for slope in slopes:
            if not math.isfinite(slope):
                raise DivergedError(f"the slope along a direction is {slope} at learning rate {self.rate:g}; lower {lower}")


RECENT = 4  # updates whose span is measured


def displacement(space: Space, moves: list[tuple[float, Direction]]) -> Tensor:
    """What an update added to theta, as a flat vector."""
    made_N = torch.zeros_like(space.theta_N)
    for coefficient, z in moves:
        z.add(coefficient, made_N, made_N)
    return made_N


def average(values: list[float], device: torch.device | None = None) -> list[float]:
    """Means over the processes of a distributed run, which all draw the same directions."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return [float(x) for x in total / torch.distributed.get_world_size()]
