"""DPO: direct preference optimisation on judged pairs.

Rafailov et al. 2023 (arXiv 2305.18290):

    rho  = sum_t (log pi - log pi_ref)(chosen) - sum_t (log pi - log pi_ref)(rejected)
    loss = mean over pairs of -(1 - s) log sigmoid(beta rho) - s log sigmoid(-beta rho)

s is label smoothing (the conservative DPO of Mitchell 2023). Within each group the row with the
highest score is chosen and the one with the lowest is rejected; groups without a winner are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from interplay.config import setting
from interplay.objectives.base import Batch, Metrics, Objective, Outputs, Targets, group_sum, item, sequence_sum


@dataclass(frozen=True)
class Settings:
    beta: float = setting(0.1, "dpo", "strength of the pull to the reference", above=0)
    label_smoothing: float = setting(0.0, "dpo", "assumed share of pairs that are judged wrongly", low=0, high=0.5)


def signs(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """+1 for the best row of each group, -1 for the worst, 0 for the rest and for groups of equals."""
    sign_B = torch.zeros_like(scores_B)
    for number in torch.unique(group_B):
        rows = torch.nonzero(group_B == number).flatten()
        best, worst = rows[scores_B[rows].argmax()], rows[scores_B[rows].argmin()]
        if scores_B[best] > scores_B[worst]:
            sign_B[best], sign_B[worst] = 1.0, -1.0
    return sign_B


def targets(batch: Batch, settings: Settings) -> Targets:  # noqa: ARG001 - the signature all objectives share
    return {"sign_B": signs(batch.scores_B, batch.group_B)}


def loss(outputs: Outputs, batch: Batch, targets: Targets, settings: Settings) -> tuple[Tensor, Metrics]:
    sign_B = targets["sign_B"]
    implicit_B = settings.beta * sequence_sum(outputs.logprobs_BT - batch.reference_BT, batch.mask_BT)
    judged_G = group_sum(sign_B.abs(), batch.group_B) > 0
    margin_G = group_sum(sign_B * implicit_B, batch.group_B)[judged_G]
    if not len(margin_G):
        return (outputs.logprobs_BT * 0).sum(), {"pairs": 0.0}
    value = -((1 - settings.label_smoothing) * logsigmoid(margin_G) + settings.label_smoothing * logsigmoid(-margin_G)).mean()
    return value, {
        "pairs": float(len(margin_G)),
        "rewards/chosen": item(implicit_B[sign_B > 0].mean()),
        "rewards/rejected": item(implicit_B[sign_B < 0].mean()),
        "rewards/margins": item(margin_G.mean()),
        "rewards/accuracies": item((margin_G > 0).float().mean()),
    }


OBJECTIVE = Objective("dpo", "direct preference optimisation on judged pairs", "arXiv:2305.18290", "pairs", Settings, targets, loss, unit="group")
