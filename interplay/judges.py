"""Who says which of two answers to a prompt is better. Every pair is judged in both orders.

An answer pair whose two verdicts disagree, or that is judged equal, is a tie and leaves the data;
the share of ties and the bias to the first position are reported with every batch of verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interplay import models as model_files
from interplay.config import RunConfig
from interplay.models import Models
from interplay.tasks import Candidate, Pair, Task

#: candidates -> probability that the first answer is better, each in [0, 1]
Judge = Callable[[Sequence[Candidate]], list[float]]

_QUESTION = (
    "A person asked an assistant:\n{prompt}\n\nAnswer A: {first}\n\nAnswer B: {second}\n\n"
    "Which answer helps the person more? Reply with the letter of the better answer and nothing else: A or B."
)


@dataclass(frozen=True)
class Verdicts:
    """Judged pairs and what the judging looked like."""

    pairs: tuple[Pair, ...]
    metrics: dict[str, float]


def find(config: RunConfig, task: Task, models: Models) -> Judge:
    """The judge of a run: the task's gold score, or an instruct model on this machine."""
    return _gold(task) if config.judge == "gold" else _Model(config, models)


def decide(judge: Judge, candidates: Sequence[Candidate]) -> Verdicts:
    """Judge every candidate in both orders and keep those on which the verdicts agree."""
    forward = judge(candidates)
    backward = judge([candidate.swapped() for candidate in candidates])
    pairs = [
        candidate.preferring(ab > 0.5)
        for candidate, ab, ba in zip(candidates, forward, backward, strict=True)
        if (ab > 0.5 and ba < 0.5) or (ab < 0.5 and ba > 0.5)
    ]
    firsts = [vote for vote in (*forward, *backward) if vote != 0.5]
    return Verdicts(
        tuple(pairs),
        {
            "judge/pairs": float(len(pairs)),
            "judge/tie_rate": 1 - len(pairs) / max(len(candidates), 1),
            "judge/order_bias": sum(vote > 0.5 for vote in firsts) / len(firsts) - 0.5 if firsts else 0.0,
        },
    )


def _gold(task: Task) -> Judge:
    def judge(candidates: Sequence[Candidate]) -> list[float]:
        scored = [(task.gold(c.prompt, c.first), task.gold(c.prompt, c.second)) for c in candidates]
        return [0.5 if abs(a - b) < 1e-9 else float(a > b) for a, b in scored]

    return judge


class _Model:
    """An instruct model that is shown both answers and votes by the next-token odds of A and B."""

    def __init__(self, config: RunConfig, models: Models) -> None:
        self.models, self.own = models, config.judge_model is None
        self.tokenizer: Any = models.tokenizer
        self.model: Any = None
        if not self.own:
            self.tokenizer, self.model = self._load(config, models)
        self.letters = [self.tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]

    @staticmethod
    def _load(config: RunConfig, models: Models) -> tuple[Any, Any]:
        assert config.judge_model is not None
        source = model_files.locate(config.judge_model, argument="--judge-model")
        judge = model_files.read(source, "CausalLM", config, models.dtype).requires_grad_(False).eval().to(models.device)
        return model_files.load_tokenizer(source, config), judge

    def __call__(self, candidates: Sequence[Candidate]) -> list[float]:
        return [vote for start in range(0, len(candidates), 8) for vote in self._votes(candidates[start : start + 8])]

    def _votes(self, candidates: Sequence[Candidate]) -> list[float]:
        from interplay.passes import positions
        from interplay.rollouts import reference

        asked = [[{"role": "user", "content": _QUESTION.format(prompt=c.prompt.text, first=c.first, second=c.second)}] for c in candidates]
        texts = [self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in asked]
        tokens = self.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(self.models.device)
        places = positions(tokens["attention_mask"])
        with torch.no_grad():
            if self.own:
                with reference(self.models) as model:
                    logits_BV = model(**tokens, position_ids=places, logits_to_keep=1).logits[:, -1]
            else:
                logits_BV = self.model(**tokens, position_ids=places, logits_to_keep=1).logits[:, -1]
        odds_B2 = logits_BV[:, self.letters].float().softmax(-1)
        return [float(row[0]) for row in odds_B2]
