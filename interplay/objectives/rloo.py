"""RLOO: REINFORCE with a leave-one-out baseline over the k completions of each prompt.

Ahmadian et al. 2024, "Back to Basics" (arXiv 2402.14740), with the clipped sequence-level ratio that
makes more than one update per rollout safe:

    R_i = score_i - kl * sum_t (log pi_old - log pi_ref)
    A_i = R_i - mean_{j != i} R_j                              (j in the same prompt's group)
    loss = -mean_i min(w_i A_i, clip(w_i, 1 - clip, 1 + clip) A_i),   w_i = exp(sum_t log pi - log pi_old)

`normalise` divides A by its standard deviation over the batch, as TRL's option of that name does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interplay.config import setting
from interplay.objectives.base import Batch, Metrics, Objective, Outputs, Targets, group_sum, item, sequence_sum


@dataclass(frozen=True)
class Settings:
    kl: float = setting(0.05, "rloo", "weight of the KL term in the reward", low=0)
    clip: float = setting(0.2, "rloo", "the ratio counts within 1 - clip and 1 + clip", above=0)
    normalise: bool = setting(False, "rloo", "divide advantages by their standard deviation over the batch")


def leave_one_out(rewards_B: Tensor, group_B: Tensor) -> Tensor:
    """Reward minus the mean reward of the other completions of the same prompt; 0 for a lone one."""
    _, place_B = torch.unique(group_B, return_inverse=True)
    sums_B = group_sum(rewards_B, group_B)[place_B]
    counts_B = group_sum(torch.ones_like(rewards_B), group_B)[place_B]
    advantages_B = rewards_B - (sums_B - rewards_B) / (counts_B - 1).clamp(min=1)
    return torch.where(counts_B > 1, advantages_B, 0.0)


def targets(batch: Batch, settings: Settings) -> Targets:
    kl_B = sequence_sum(batch.old_BT - batch.reference_BT, batch.mask_BT)
    advantages_B = leave_one_out(batch.scores_B - settings.kl * kl_B, batch.group_B)
    if settings.normalise:
        advantages_B = (advantages_B - advantages_B.mean()) / (advantages_B.std() + 1e-4)
    return {"advantages_B": advantages_B}


def loss(outputs: Outputs, batch: Batch, targets: Targets, settings: Settings) -> tuple[Tensor, Metrics]:
    advantages_B = targets["advantages_B"]
    ratio_B = sequence_sum(outputs.logprobs_BT - batch.old_BT, batch.mask_BT).exp()
    clipped_B = ratio_B.clamp(1 - settings.clip, 1 + settings.clip)
    value = -torch.minimum(ratio_B * advantages_B, clipped_B * advantages_B).mean()
    low_B = (ratio_B < 1 - settings.clip) & (advantages_B < 0)
    high_B = (ratio_B > 1 + settings.clip) & (advantages_B > 0)
    return value, {
        "advantage_std": item(advantages_B.std(correction=0)),
        "clip_ratio/region_mean": item((low_B | high_B).float().mean()),
    }


OBJECTIVE = Objective("rloo", "REINFORCE with a leave-one-out baseline", "arXiv:2402.14740", "rollouts", Settings, targets, loss)
