"""What an objective is: pure functions of tensors. No files, no models, no other objectives.

Axes: B sequences of one update, T completion tokens (right-padded; `mask_BT` is true on tokens that
the policy chose, the end token included). Rows of the same prompt share a number in `group_B`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

Metrics = dict[str, Any]  # numbers, or 0-d tensors that have not left their device yet


@dataclass(frozen=True)
class Batch:
    """What is known before the update. For judged pairs `scores_B` is 1 for the better answer, else 0."""

    mask_BT: Tensor
    group_B: Tensor
    scores_B: Tensor
    reference_BT: Tensor  # log-probabilities under the reference
    old_BT: Tensor  # log-probabilities under the policy that is about to be updated
    values_BT: Tensor | None = None  # the critic's values, if the objective has one

    def rows(self, index: Tensor) -> Batch:
        """The batch cut down to some rows (a minibatch)."""
        kept = {item.name: value[index] for item in fields(self) if (value := getattr(self, item.name)) is not None}
        return replace(self, **kept)


@dataclass(frozen=True)
class Outputs:
    """What the policy says now about the same tokens; gradients flow through `logprobs_BT`."""

    logprobs_BT: Tensor
    entropy_BT: Tensor


Targets = dict[str, Tensor]  # first axis B; computed once for a rollout batch, cut into minibatches


@dataclass(frozen=True)
class Objective:
    """One loss and everything the loop must know to feed it."""

    name: str
    summary: str
    paper: str
    data: Literal["rollouts", "pairs"]
    settings: type[Any]
    targets: Callable[[Batch, Any], Targets]
    loss: Callable[[Outputs, Batch, Targets, Any], tuple[Tensor, Metrics]]
    #: (values_BT now, batch, targets, settings) -> loss; None for objectives without a critic
    critic_loss: Callable[[Tensor, Batch, Targets, Any], tuple[Tensor, Metrics]] | None = None
    #: what has a loss of its own: a row, or all rows of a prompt or pair
    unit: Literal["row", "group"] = "row"


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the tokens where the mask is true."""
    return (values_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)


def sequence_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the masked tokens of each sequence, shape B."""
    return (values_BT * mask_BT).sum(-1)


def group_sum(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Sum within each group, one entry for each group in order of its number."""
    numbers, place_B = torch.unique(group_B, return_inverse=True)
    return torch.zeros(len(numbers), dtype=values_B.dtype, device=values_B.device).index_add(0, place_B, values_B)


def item(value: Tensor) -> Tensor:
    """A metric without its graph; it stays on its device, so that no update waits for it."""
    return value.detach()


def numbers(metrics: Metrics) -> dict[str, float]:
    """All metrics as numbers, in one transfer."""
    held = {name: value for name, value in metrics.items() if isinstance(value, Tensor)}
    moved = torch.stack([value.double() for value in held.values()]).tolist() if held else []
    return {**metrics, **dict(zip(held, moved, strict=True))}
