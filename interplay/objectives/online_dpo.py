"""Online DPO: the DPO loss on fresh completions that the reward model has ranked.

Guo et al. 2024 (arXiv 2402.04792): of the completions sampled for each prompt the best-scored is
chosen, the worst-scored rejected; the loss is that of `dpo`, which lives in one place on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interplay.config import setting
from interplay.objectives import dpo
from interplay.objectives.base import Batch, Metrics, Objective, Outputs, Targets, item, sequence_sum


@dataclass(frozen=True)
class Settings(dpo.Settings):
    beta: float = setting(0.1, "online_dpo", "strength of the pull to the reference", above=0)


def loss(outputs: Outputs, batch: Batch, targets: Targets, settings: Settings) -> tuple[Tensor, Metrics]:
    value, metrics = dpo.loss(outputs, batch, targets, settings)
    kl_B = sequence_sum(batch.old_BT - batch.reference_BT, batch.mask_BT)
    return value, {**metrics, "objective/kl": item(kl_B.mean()), "objective/scores": item(batch.scores_B.mean())}


OBJECTIVE = Objective("online_dpo", "DPO on fresh completions ranked by the reward", "arXiv:2402.04792", "rollouts", Settings, dpo.targets, loss, unit="group")
