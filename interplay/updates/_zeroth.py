"""SPSA: probing a loss along directions, and the update made of what was found.

Spall 1992; MeZO, arXiv 2305.17333. With the loss at theta + e z and theta - e z,

    slope = (L+ - L-) / (2 e),      theta <- theta - rate * mean over K directions of slope * z

Adding and subtracting drifts. Here theta comes back bit for bit: probes of adapters share one forward pass
as stacked copies (`stacked.py`) or are built from a kept copy, and probes of all parameters perturb each
module while it runs (`streaming.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interplay import stacked
from interplay.config import setting
from interplay.directions import Direction, Space
from interplay.errors import DivergedError
from interplay.objectives.base import Metrics
from interplay.streaming import Scratch, streamed
from interplay.updates import _gradient
from interplay.updates._moving import Mover, average, displacement
from interplay.updates.base import Closure, Evaluated, Plan


@dataclass(frozen=True)
class Probing:
    """Settings of every rule that takes differences."""

    epsilon: float = setting(1e-3, "zeroth", "length of a probe: a share of the weights' norm, or with relative=false a norm", above=0)
    relative: bool = setting(True, "zeroth", "epsilon is relative to the norm of the trained weights")
    directions: int = setting(1, "zeroth", "directions K that are drawn, probed and averaged in each update", low=1)
    noise: str = setting("gaussian", "zeroth", "elements of the random part", choices=("gaussian", "rademacher"))
    together: bool = setting(True, "zeroth", "probe both sides of all directions in one pass with stacked adapters, where the trained tensors are adapters")
    measure: int = setting(0, "zeroth", "every so many updates a backward pass measures how good the directions are; 0: never", low=0)


@dataclass(frozen=True)
class Probe:
    """Two values of the loss along one direction."""

    direction: Direction
    reach: float  # e, the factor of z
    plus: Evaluated
    minus: Evaluated

    @cached_property
    def values(self) -> tuple[float, float, npt.NDArray[np.float64]]:
        """L+, L- and the units' differences on the host: the one moment at which an update waits for its device."""
        plus, minus = self.plus, self.minus
        both = torch.stack([plus.loss, minus.loss]).double()
        moved = torch.cat([both, plus.units_U.double() - minus.units_U.double()]).cpu().numpy()
        return float(moved[0]), float(moved[1]), moved[2:]

    @property
    def slope(self) -> float:
        """Finite difference along z."""
        plus, minus, _ = self.values
        return (plus - minus) / (2 * self.reach)

    @property
    def loss(self) -> float:
        """Mean of both values."""
        plus, minus, _ = self.values
        return (plus + minus) / 2

    @property
    def signal_to_noise(self) -> float | None:
        """|mean| over standard error of the units' differences; None for a single unit."""
        difference_U = self.values[2]
        if len(difference_U) < 2:
            return None
        error = float(difference_U.std(ddof=1) / len(difference_U) ** 0.5)
        return abs(float(difference_U.mean())) / error if error > 0 else None


class Prober:
    """Evaluates the loss on both sides of theta along directions, and puts theta back."""

    def __init__(self, space: Space, model: torch.nn.Module | None, *, together: bool) -> None:
        self.space = space
        self._kept_N: Tensor | None = None
        self.model = model
        adapters = stacked.places(model, space) if model is not None else None
        self.where = adapters if together else None
        self.scratch = Scratch(space, model) if model is not None and adapters is None else None
        self._stack_GN: Tensor | None = None

    @torch.no_grad()
    def probe(self, closure: Closure, directions: Sequence[Direction], reaches: Sequence[float]) -> list[Probe]:
        """Both values along every direction."""
        self.space.hold()
        if self.where is not None:
            return self._together(closure, directions, reaches)
        if self.scratch is not None:
            return [Probe(z, e, *(self._streamed(closure, z, sign * e) for sign in (1, -1))) for z, e in zip(directions, reaches, strict=True)]
        if self._kept_N is None:
            self._kept_N = torch.empty_like(self.space.theta_N)
        self._kept_N.copy_(self.space.theta_N)
        try:
            return [self._alone(closure, z, e) for z, e in zip(directions, reaches, strict=True)]
        finally:
            self.space.theta_N.copy_(self._kept_N)

    def _streamed(self, closure: Closure, z: Direction, scale: float) -> Evaluated:
        """All parameters: each module is perturbed while it runs; theta is never written."""
        assert self.scratch is not None
        with streamed(self.scratch, scale, z):
            return closure.evaluate()[0]

    def _alone(self, closure: Closure, z: Direction, reach: float) -> Probe:
        assert self._kept_N is not None
        values = []
        for sign in (1, -1):
            z.add(sign * reach, self._kept_N, self.space.theta_N)
            values += closure.evaluate()
        return Probe(z, reach, *values)

    def _together(self, closure: Closure, directions: Sequence[Direction], reaches: Sequence[float]) -> list[Probe]:
        """2 K adapters in one pass; theta itself is never written."""
        assert self.where is not None
        count = 2 * len(directions)
        if self._stack_GN is None or len(self._stack_GN) != count:
            self._stack_GN = torch.zeros(count, self.space.segments.length, device=self.space.theta_N.device)
        for number, (z, reach) in enumerate(zip(directions, reaches, strict=True)):
            z.add(reach, self.space.theta_N, self._stack_GN[2 * number])
            z.add(-reach, self.space.theta_N, self._stack_GN[2 * number + 1])
        with stacked.stacked(self.space, self.where, self._stack_GN):
            values = closure.evaluate(count)
        return [Probe(z, e, *values[2 * i : 2 * i + 2]) for i, (z, e) in enumerate(zip(directions, reaches, strict=True))]


class Differences(Mover):
    """A rule that knows slopes from differences of two losses."""

    #: weight of the previous update and the update itself, in rules that have them
    alpha: float | None = None
    previous_N: Tensor | None = None

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Any) -> None:
        super().__init__(parameters, plan, settings)
        self.prober = Prober(self.space, plan.model, together=settings.together)

    def reach(self, z: Direction) -> float:
        """e such that e z has the wanted norm: a share of |theta|, or a length of its own."""
        wanted = self.settings.epsilon
        if self.settings.relative:
            wanted *= float(self.space.theta_N.norm())
        if wanted == 0:
            raise DivergedError("all trained weights are zero, so a probe relative to them has no length; use --set relative=false")
        return float(wanted) / z.norm

    def probe(self, closure: Closure, drawn: Sequence[Direction]) -> tuple[list[Probe], list[float]]:
        """Both losses along every direction, and the slopes over all processes."""
        probes = self.prober.probe(closure, drawn, [self.reach(z) for z in drawn])
        slopes = average([probe.slope for probe in probes], self.space.theta_N.device)
        self.refuse_nonsense(slopes, lower="--learning-rate, or --set epsilon")
        return probes, slopes

    def measured(self, closure: Closure, z: Direction, alpha: float | None) -> Metrics:
        """Every so many updates, what a backward pass says of z and of what guides it."""
        if not self.settings.measure or self.optimizer.done % self.settings.measure:
            return {}
        recent = [displacement(self.space, moves) for moves in self.recent]
        return _gradient.measure(self.space, closure, z, self.previous_N, alpha, recent)


class Spsa(Differences, ABC):
    """Draws K directions for every update, probes both sides, and steps along them."""

    @abstractmethod
    def directions(self, draw: int, count: int) -> list[Direction]:
        """The K directions of an update; `draw` is the number of the first."""

    def step(self, closure: Closure) -> Metrics:
        """Draw, probe, check, move."""
        self.space.hold()
        count = self.settings.directions
        drawn = self.directions(self.optimizer.done * count, count)
        probes, slopes = self.probe(closure, drawn)
        extra = self.measured(closure, drawn[0], self.alpha)
        rate, told = self.rate, self.described(probes, slopes)
        self.move([(-rate * slope / count, z) for slope, z in zip(self.taken(slopes), drawn, strict=True)])
        return {**probes[0].plus.metrics, **told, **extra, "forwards": 2.0 * count, "lr": rate}

    def taken(self, slopes: list[float]) -> list[float]:
        """The slopes that are acted on."""
        return slopes

    def described(self, probes: list[Probe], slopes: list[float]) -> Metrics:
        """What every zeroth-order update records; means over its K directions."""
        values: dict[str, list[float | None]] = {
            "loss": [p.loss for p in probes],
            "zo/slope": list(slopes),
            "zo/loss_plus": [p.values[0] for p in probes],
            "zo/loss_minus": [p.values[1] for p in probes],
            "zo/signal_to_noise": [p.signal_to_noise for p in probes],
            "zo/cos_previous": [p.direction.cos_previous for p in probes],
            "zo/cos_reward": [p.direction.cos_reward for p in probes],
            "zo/norm": [p.direction.norm for p in probes],
            "zo/epsilon": [p.reach * p.direction.norm for p in probes],
        }
        known = {name: [v for v in row if v is not None] for name, row in values.items()}
        return {name: sum(row) / len(row) for name, row in known.items() if row}
