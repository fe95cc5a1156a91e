"""The objective on one batch as a function of the policy's weights.

First order calls it with gradients; a zeroth-order rule asks for values, alone or for many stacked
adapters in one pass, and for the contribution of every unit (a row, or the rows of one prompt), from
which the noise of a difference of two values is known.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from interplay import rollouts
from interplay.objectives.base import Batch, Metrics, Objective, Outputs, Targets
from interplay.rollouts import Sequences
from interplay.updates.base import Evaluated


@dataclass(frozen=True)
class PolicyLoss:
    """Model, batch and objective, tied together."""

    model: Any
    sequences: Sequences
    batch: Batch
    targets: Targets
    objective: Objective
    settings: Any
    temperature: float

    def __call__(self) -> tuple[Tensor, Metrics]:
        """Loss with its graph, and what the objective says of it."""
        outputs = Outputs(*rollouts.token_logprobs(self.model, self.sequences, self.temperature))
        return self.objective.loss(outputs, self.batch, self.targets, self.settings)

    def evaluate(self, copies: int = 1) -> list[Evaluated]:
        """Values without a graph; with `copies`, of as many stacked adapters, in one pass."""
        sequences = self.sequences if copies == 1 else self.sequences.take(torch.arange(len(self.sequences.texts)).repeat(copies))
        logprobs_BT, entropy_BT = rollouts.scored(self.model, sequences, self.temperature, groups=copies)
        parts = zip(logprobs_BT.chunk(copies), entropy_BT.chunk(copies), strict=True)
        return [self._evaluated(Outputs(logprobs, entropy)) for logprobs, entropy in parts]

    def halves(self) -> tuple[PolicyLoss, PolicyLoss] | None:
        """The batch in two halves by prompt (by row where there is one prompt); None for a single unit."""
        groups = torch.unique(self.batch.group_B)
        units_B = self.batch.group_B if len(groups) > 1 else self._units()
        numbers = torch.unique(units_B)
        if len(numbers) < 2:
            return None
        first_B = torch.isin(units_B, numbers[: len(numbers) // 2])
        return self.rows(torch.nonzero(first_B).flatten()), self.rows(torch.nonzero(~first_B).flatten())

    def rows(self, index: Tensor) -> PolicyLoss:
        """The same objective on some rows of the batch (a minibatch)."""
        cut = {name: value[index] for name, value in self.targets.items()}
        return replace(self, sequences=self.sequences.take(index), batch=self.batch.rows(index), targets=cut)

    def _units(self) -> Tensor:
        """The smallest sets of rows that have a loss of their own, as a number for each row."""
        return self.batch.group_B if self.objective.unit == "group" else torch.arange(len(self.batch.group_B), device=self.batch.group_B.device)

    @cached_property
    def _rows_of_units(self) -> list[Tensor]:
        """Row numbers of each unit; found once, since finding them waits for the device."""
        units_B = self._units()
        return [torch.nonzero(units_B == unit).flatten() for unit in torch.unique(units_B)]

    def _evaluated(self, outputs: Outputs) -> Evaluated:
        loss, metrics = self.objective.loss(outputs, self.batch, self.targets, self.settings)
        losses = []
        for index in self._rows_of_units:
            cut = {name: value[index] for name, value in self.targets.items()}
            own = Outputs(**{item.name: getattr(outputs, item.name)[index] for item in fields(outputs)})
            losses.append(self.objective.loss(own, self.batch.rows(index), cut, self.settings)[0])
        return Evaluated(loss, torch.stack(losses), metrics)
