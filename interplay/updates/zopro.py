"""ZOPrO: SPSA along the previous policy update, with noise off the reward model's update.

arXiv 2503.03460. With p the policy's update over the last iteration, v^ the reward model's, n noise:

    z = alpha p + sqrt(1 - alpha^2) u |p| / |u|,     u = n - (v^.n) v^          (`directions.py`)
    slope = (L(theta + e z) - L(theta - e z)) / (2 e),    theta <- theta - rate * slope * z

alpha falls over the updates of an iteration. Corrected here: alpha is a function of progress and never
negative, each update draws a fresh z, a tensor without a reward update is not projected, one without a
previous update gets noise alone, e is relative to the weights, and the reward update is taken between
un-merged models. The first iteration, which has no previous update, is first order.

`shuffle` is a control: the slope's sign is drawn at random, so that whatever is gained, the loss had no say in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interplay.config import setting
from interplay.directions import MODES, Direction, guided
from interplay.objectives.base import Metrics
from interplay.updates._guided import FirstIteration, Guided
from interplay.updates._zeroth import Probe, Probing, Spsa
from interplay.updates.base import Closure, Plan, UpdateRule

SCHEDULES = ("linear", "exp", "cosine", "constant")


@dataclass(frozen=True)
class Settings(FirstIteration, Probing):
    alpha: float = setting(0.999, "zopro", "weight of the previous update at the start of an iteration", low=0, high=1)
    alpha_schedule: str = setting("linear", "zopro", "how alpha falls over an iteration", choices=SCHEDULES)
    kappa: float = setting(5.0, "zopro", "rate of the schedule exp: alpha falls by e^-kappa", above=0)
    mode: str = setting("ref", "zopro", "what z is made of; wrong_v is a control", choices=tuple(MODES))
    matching: str = setting(
        "tensor", "zopro", "noise is as long as the previous update in each tensor, in all together, or as drawn", choices=("tensor", "global", "none")
    )
    shuffle: bool = setting(False, "zopro", "control: a random sign for every slope")


def weight(start: float, schedule: str, progress: float, kappa: float) -> float:
    """alpha after a share of the iteration's updates, within [0, start]."""
    share = {
        "linear": 1 - progress,
        "exp": math.exp(-kappa * progress),
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "constant": 1.0,
    }[schedule]
    return min(max(start * share, 0.0), start)


class Zopro(Guided, Spsa):
    """Directions between the previous update and noise off the reward model's."""

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Any) -> None:
        self.mode = settings.mode
        super().__init__(parameters, plan, settings)

    @property
    def alpha(self) -> float:  # type: ignore[override] # computed, where others have none
        chosen = self.settings
        return weight(chosen.alpha, chosen.alpha_schedule, self.progress, chosen.kappa) if MODES[self.mode][0] else 0.0

    def guided_step(self, closure: Closure) -> Metrics:
        return Spsa.step(self, closure)

    def directions(self, draw: int, count: int) -> list[Direction]:
        assert self.frame is not None
        how = {"matching": self.settings.matching, "kind": self.settings.noise}
        return [guided(self.space, self.frame, self.mode, self.alpha, self.seed, draw + k, **how) for k in range(count)]

    def taken(self, slopes: list[float]) -> list[float]:
        if not self.settings.shuffle:
            return slopes
        signs = np.random.default_rng([self.seed, 11, self.optimizer.done]).choice([-1.0, 1.0], len(slopes))
        return [float(sign * slope) for sign, slope in zip(signs, slopes, strict=True)]

    def described(self, probes: list[Probe], slopes: list[float]) -> Metrics:
        assert self.frame is not None
        found = super().described(probes, slopes)
        return {**found, "zo/alpha": self.alpha, "zo/norm_ratio": found["zo/norm"] / self.frame.previous_norm}


RULE = UpdateRule(
    "zopro", "SPSA along the previous policy update, noise off the reward model's", "arXiv:2503.03460", Settings, Zopro, differences=True, guided=True, rate=0.3
)
