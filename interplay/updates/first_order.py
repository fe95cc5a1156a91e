"""First order: AdamW on the gradient, with clipping, warm-up and a schedule.

Loshchilov & Hutter 2019 (arXiv 1711.05101). Works on adapters and on full parameters alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interplay.config import setting
from interplay.errors import DivergedError
from interplay.objectives.base import Metrics
from interplay.updates.base import Closure, Plan, Simple, UpdateRule


@dataclass(frozen=True)
class Settings:
    beta1: float = setting(0.9, "first_order", "AdamW's decay of the mean gradient", low=0, high=0.9999)
    beta2: float = setting(0.999, "first_order", "AdamW's decay of the mean squared gradient", low=0, high=0.99999)


def factor(schedule: str, warmup: int, updates: int, done: int) -> float:
    """Share of the learning rate after `done` updates: linear warm-up, then the schedule down to 0."""
    if done < warmup:
        return (done + 1) / warmup
    progress = min((done - warmup) / max(updates - warmup, 1), 1.0)
    return {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[schedule]


class FirstOrder(Simple):
    """AdamW at work on one role's parameters."""

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, settings: Settings) -> None:
        config = plan.config
        self.parameters = list(parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=plan.learning_rate, betas=(settings.beta1, settings.beta2), weight_decay=config.weight_decay)
        self.plan, self.clip_norm = plan, config.clip_norm
        self.earlier = 0  # steps of the run that this one started from: they count for the moments, not for the schedule

    @property
    def done(self) -> int:
        """Steps of this run, as AdamW's own state counts them: a resumed run goes on where it was."""
        return self.steps - self.earlier

    @property
    def steps(self) -> int:
        """Steps behind AdamW's moments."""
        return max((int(entry["step"]) for entry in self.optimizer.state.values()), default=0)

    def _set_rate(self) -> float:
        config = self.plan.config
        rate = self.plan.learning_rate * factor(config.schedule, config.warmup, self.plan.updates, self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def step(self, closure: Closure) -> Metrics:
        self.optimizer.zero_grad(set_to_none=True)
        loss, metrics = closure()
        rate = self._set_rate()
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss is {float(loss)} at learning rate {rate:g}; lower --learning-rate, or raise the KL weight")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm or math.inf)
        if not torch.isfinite(norm):
            raise DivergedError(f"the gradient norm is {float(norm)} at learning rate {rate:g}; lower --learning-rate, or use --dtype float32")
        self.optimizer.step()
        return {**metrics, "loss": float(loss.detach()), "grad_norm": float(norm), "lr": float(rate), "forwards": 1.0}


RULE = UpdateRule("first_order", "AdamW on the gradient", "arXiv:1711.05101", Settings, FirstOrder)
