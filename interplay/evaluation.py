"""Scores that can be compared: held-out prompts, fixed sampling seed, gold and frozen reward model 0.

An arm's own refined reward is a curve, never a result: what is reported here is measured by judges
that no arm can move. Written with every record: KL to the reference, length, distinct words,
entropy, the gold-proxy gap, and an alarm for degenerate text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from torch import Tensor

from interplay import rollouts
from interplay.config import RunConfig
from interplay.models import Models
from interplay.reward_model import Weights, using
from interplay.rollouts import Sequences
from interplay.tasks import Pair, Prompt, Task

#: Thresholds of the alarm for degenerate text; docs/metrics.md gives the reasons.
FEW_WORDS, ONE_WORD, SAME_TEXT, LOW_ENTROPY = 0.5, 0.4, 0.3, 0.2


@dataclass(frozen=True)
class Score:
    """One evaluation: metrics, and the completions that they were computed from."""

    metrics: dict[str, float | None]
    sequences: Sequences
    gold_B: list[float]
    proxy_B: list[float] | None
    kl_B: list[float]


@dataclass(frozen=True)
class Baseline:
    """Means and spreads before training, in whose units the gold-proxy gap is given."""

    gold: float
    gold_sd: float
    proxy: float
    proxy_sd: float


class Evaluator:
    """Scores a policy on the same held-out prompts, with the same sampling seed, every time."""

    def __init__(self, task: Task, prompts: Sequence[Prompt], pairs: Sequence[Pair], config: RunConfig) -> None:
        self.task, self.prompts, self.pairs, self.config = task, prompts, tuple(pairs), config
        self.baseline: Baseline | None = None
        self.frozen: Weights | None = None  # reward model 0
        self._reference: dict[int, Tensor] = {}  # log-probabilities of held-out pairs under the reference never change

    def score(self, models: Models) -> Score:
        """Sample, score by every judge, and sum up. The first call fixes the baseline."""
        config = self.config
        sequences, ours_BT, entropy_BT = rollouts.sample_scored(models, self.prompts, config, seed=config.stream_seed("sampling"))
        kl_B: list[float] = ((ours_BT - self._under_reference(models, sequences)) * sequences.mask_BT).sum(-1).tolist()
        entropy = float(entropy_BT[sequences.mask_BT].mean())
        gold_B = [self.task.gold(prompt, text) for prompt, text in zip(sequences.prompts, sequences.texts, strict=True)]
        proxy_B = self._proxy(models, sequences)
        metrics: dict[str, float | None] = {
            **_mean("gold", gold_B),
            **(_mean("proxy", proxy_B) if proxy_B else {}),
            **_mean("kl", kl_B),
            "entropy": entropy,
            "length": float(sequences.lengths_B.float().mean()),
            "finished": float(sequences.finished_B.float().mean()),
            **text_health(sequences.texts, entropy),
            **self._gap(gold_B, proxy_B),
            **self._on_pairs(models),
        }
        return Score(metrics, sequences, gold_B, proxy_B, kl_B)

    def _under_reference(self, models: Models, sequences: Sequences) -> Tensor:
        """Log-probabilities under the reference."""
        with rollouts.reference(models) as model:
            return rollouts.scored_alike(model, sequences, self.config.temperature)[0]

    def _proxy(self, models: Models, sequences: Sequences) -> list[float] | None:
        if models.reward is None or self.frozen is None:
            return None
        with using(models.reward, self.frozen):
            scored: list[float] = rollouts.scores(models.reward, sequences).tolist()
        return scored

    def _gap(self, gold_B: list[float], proxy_B: list[float] | None) -> dict[str, float | None]:
        """(proxy gain - gold gain), each in standard deviations before training."""
        if proxy_B is None:
            return {}
        if self.baseline is None:
            self.baseline = Baseline(fmean(gold_B), stdev(gold_B), fmean(proxy_B), stdev(proxy_B))
        base = self.baseline
        if not base.gold_sd or not base.proxy_sd:
            return {"gold_proxy_gap": None}
        return {"gold_proxy_gap": (fmean(proxy_B) - base.proxy) / base.proxy_sd - (fmean(gold_B) - base.gold) / base.gold_sd}

    def _on_pairs(self, models: Models) -> dict[str, float | None]:
        """Implicit-reward margin (beta = 1) and accuracies on held-out judged pairs."""
        if not self.pairs:
            return {}
        margins, hits = [], []
        for start in range(0, len(self.pairs), 16):
            part = rollouts.written_pairs(models, self.pairs[start : start + 16], self.config)
            margins += self._margins(models, part, start).tolist()
            if models.reward is not None:
                reward_B = rollouts.scores(models.reward, part)
                hits += (reward_B[0::2] > reward_B[1::2]).tolist()
        found: dict[str, float | None] = {**_mean("pair_margin", margins), "pair_accuracy": fmean(m > 0 for m in margins)}
        return {**found, "reward_model_accuracy": fmean(hits)} if hits else found

    def _margins(self, models: Models, sequences: Sequences, start: int) -> Tensor:
        ours_BT, _ = rollouts.scored_alike(models.policy, sequences, self.config.temperature)
        if start not in self._reference:
            self._reference[start] = self._under_reference(models, sequences)
        theirs_BT = self._reference[start]
        implicit_B = ((ours_BT - theirs_BT) * sequences.mask_BT).sum(-1)
        return implicit_B[0::2] - implicit_B[1::2]


def _mean(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard error of the mean."""
    spread = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {name: fmean(values), f"{name}_se": spread}


def text_health(texts: Sequence[str], entropy: float) -> dict[str, float | None]:
    """Distinct words and the alarm: 1 where text repeats itself or the policy has collapsed."""
    words = [text.lower().split() for text in texts]
    filled = [row for row in words if row]
    distinct = fmean(len(set(row)) / len(row) for row in filled) if filled else 0.0
    top = fmean(max(Counter(row).values()) / len(row) for row in filled if len(row) > 4) if any(len(row) > 4 for row in filled) else 0.0
    same = 1 - len(set(texts)) / len(texts)
    alarm = not filled or distinct < FEW_WORDS or top > ONE_WORD or same > SAME_TEXT or entropy < LOW_ENTROPY
    return {"distinct_words": distinct, "same_text": same, "alarm": float(alarm)}


def rows(score: Score, place: dict[str, Any]) -> dict[str, list[Any]]:
    """The completions of a score as columns of `completions/`."""
    sequences, count = score.sequences, len(score.sequences.texts)
    return {
        **{name: [value] * count for name, value in place.items()},
        "split": ["heldout"] * count,
        "prompt_id": [prompt.id for prompt in sequences.prompts],
        "prompt": [prompt.text for prompt in sequences.prompts],
        "completion": list(sequences.texts),
        "tokens": sequences.lengths_B.tolist(),
        "finished": sequences.finished_B.tolist(),
        "reward": [None] * count,
        "gold": score.gold_B,
        "proxy": score.proxy_B or [None] * count,
        "kl": score.kl_B,
    }
