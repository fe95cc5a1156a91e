"""PPO on tokens, with a critic of its own and generalised advantage estimation.

Schulman et al. 2017 (arXiv 1707.06347), GAE of Schulman et al. 2016 (arXiv 1506.02438), in the
RLHF form of Ziegler et al. 2019 (arXiv 1909.08593): the KL term is a reward on every token, the
score arrives with the last one.

    r_t     = -kl * (log pi_old - log pi_ref)_t + (score - mean score) * [t is the last token]
    delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lambda A_{t+1},   G_t = A_t + V_t
    loss    = -mean_t min(w_t A_t, clip(w_t, 1 - clip, 1 + clip) A_t),   w_t = exp(log pi - log pi_old)_t
    critic  = 1/2 mean_t max((V_t - G_t)^2, (clip(V_t, V_old +- value_clip) - G_t)^2)

A is whitened over the batch's tokens. The mean is that of the rollout batch: a Bradley-Terry reward model
has no zero, and a score far from the critic's first values would teach the policy where tokens stand,
not what they say (a negative one punishes last tokens, that is, ending). TRL removed its PPO trainer in 1.13; this one is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interplay.config import setting
from interplay.objectives.base import Batch, Metrics, Objective, Outputs, Targets, item, masked_mean, sequence_sum


@dataclass(frozen=True)
class Settings:
    kl: float = setting(0.05, "ppo", "weight of the KL term in the reward of each token", low=0)
    clip: float = setting(0.2, "ppo", "the ratio counts within 1 - clip and 1 + clip", above=0)
    gamma: float = setting(1.0, "ppo", "discount of later rewards", above=0, high=1)
    gae_lambda: float = setting(0.95, "ppo", "lambda of generalised advantage estimation", low=0, high=1)
    value_clip: float = setting(0.2, "ppo", "values may move this far from the rollout's in the critic's loss", above=0)
    value_learning_rate: float = setting(1e-4, "ppo", "AdamW step size of the critic", above=0)
    entropy: float = setting(0.0, "ppo", "weight of an entropy bonus", low=0)


def centred(scores_B: Tensor) -> Tensor:
    """Scores around their mean; a single score stays as it is, since its distance from itself says nothing."""
    return scores_B - scores_B.mean() if len(scores_B) > 1 else scores_B


def token_rewards(batch: Batch, settings: Settings) -> Tensor:
    """The KL term on every token and the centred score on the last one, shape B x T."""
    rewards_BT = -settings.kl * (batch.old_BT - batch.reference_BT) * batch.mask_BT
    last_B = batch.mask_BT.sum(-1).long().clamp(min=1) - 1
    return rewards_BT.scatter_add(1, last_B[:, None], centred(batch.scores_B)[:, None].to(rewards_BT.dtype))


def advantages(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimation from the last token back; zero after the end."""
    values_BT = values_BT * mask_BT
    carried_B = torch.zeros_like(rewards_BT[:, 0])
    following_B = torch.zeros_like(carried_B)
    columns: list[Tensor] = []
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * following_B - values_BT[:, t]
        carried_B = (delta_B + gamma * gae_lambda * carried_B) * mask_BT[:, t]
        following_B = values_BT[:, t]
        columns.append(carried_B)
    return torch.stack(columns[::-1], dim=1)


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Zero mean and unit variance over the masked tokens."""
    centred_BT = values_BT - masked_mean(values_BT, mask_BT)
    return centred_BT * (variance(values_BT, mask_BT) + 1e-8).rsqrt() * mask_BT


def variance(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Variance over the masked tokens."""
    return masked_mean((values_BT - masked_mean(values_BT, mask_BT)) ** 2, mask_BT)


def targets(batch: Batch, settings: Settings) -> Targets:
    assert batch.values_BT is not None, "ppo needs a critic's values"
    raw_BT = advantages(token_rewards(batch, settings), batch.values_BT, batch.mask_BT, settings.gamma, settings.gae_lambda)
    return {"advantages_BT": whiten(raw_BT, batch.mask_BT), "returns_BT": raw_BT + batch.values_BT * batch.mask_BT}


def loss(outputs: Outputs, batch: Batch, targets: Targets, settings: Settings) -> tuple[Tensor, Metrics]:
    advantages_BT = targets["advantages_BT"]
    log_ratio_BT = (outputs.logprobs_BT - batch.old_BT) * batch.mask_BT
    ratio_BT = log_ratio_BT.exp()
    clipped_BT = ratio_BT.clamp(1 - settings.clip, 1 + settings.clip)
    value = -masked_mean(torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT), batch.mask_BT)
    if settings.entropy:
        value = value - settings.entropy * masked_mean(outputs.entropy_BT, batch.mask_BT)
    active_BT = clipped_BT * advantages_BT < ratio_BT * advantages_BT
    return value, {
        "policy/approxkl_avg": item(masked_mean(0.5 * log_ratio_BT**2, batch.mask_BT)),
        "policy/clipfrac_avg": item(masked_mean(active_BT.float(), batch.mask_BT)),
        "objective/kl": item(sequence_sum(batch.old_BT - batch.reference_BT, batch.mask_BT).mean()),
        "objective/scores": item(batch.scores_B.mean()),
    }


def critic_loss(values_BT: Tensor, batch: Batch, targets: Targets, settings: Settings) -> tuple[Tensor, Metrics]:
    assert batch.values_BT is not None
    old_BT, returns_BT = batch.values_BT, targets["returns_BT"]
    near_BT = old_BT + (values_BT - old_BT).clamp(-settings.value_clip, settings.value_clip)
    error_BT = torch.maximum((values_BT - returns_BT) ** 2, (near_BT - returns_BT) ** 2)
    value = 0.5 * masked_mean(error_BT, batch.mask_BT)
    spread = variance(returns_BT, batch.mask_BT)
    explained = {"value/explained_variance": item(1 - variance(returns_BT - old_BT, batch.mask_BT) / spread)} if spread > 0 else {}
    return value, {"loss/value_avg": item(value), "value/mean": item(masked_mean(values_BT, batch.mask_BT)), **explained}


OBJECTIVE = Objective("ppo", "clipped policy gradient on tokens with a trained critic", "arXiv:1707.06347", "rollouts", Settings, targets, loss, critic_loss)
