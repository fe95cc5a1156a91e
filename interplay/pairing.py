"""Two answers to a prompt, the choice of which pairs to have judged, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from interplay import judges, reward_model, rollouts
from interplay.config import RunConfig
from interplay.models import Models
from interplay.session import Session
from interplay.tasks import Candidate, Pair, Prompt


def make(session: Session, iteration: int) -> Sequence[Pair]:
    """Two answers of the current policy to each of `pairs` prompts, judged."""
    session.say(f"iteration {iteration}: pairs")
    config = session.config
    prompts = session.draw(session.data.prompts, session.pair_round(iteration) * config.pairs, config.pairs)
    found = candidates(session.models, prompts, config, session.seed("pairs", iteration))
    verdicts = judges.decide(session.judge, least_sure(session, found))
    session.log("reward", verdicts.metrics, place=session.now("reward"))
    return verdicts.pairs


def judge_heldout(session: Session, start: Mapping[str, Tensor] | None = None) -> None:
    """Held-out pairs for data that brings none: answers of the untrained policy, judged once.

    `start` holds the untrained policy's weights where the policy has been trained since.
    """
    config = session.config
    if not config.heldout_pairs:
        return
    session.say("judging held-out pairs")
    prompts, seed = session.data.heldout[: config.heldout_pairs], session.seed("heldout")
    if start is None:
        found = candidates(session.models, prompts, config, seed)
    else:
        with reward_model.using(session.models.policy, start):
            found = candidates(session.models, prompts, config, seed)
    session.evaluator.pairs = judges.decide(session.judge, found).pairs


def candidates(models: Models, prompts: Sequence[Prompt], config: RunConfig, seed: int) -> list[Candidate]:
    """Two sampled answers to each prompt."""
    sequences = rollouts.sample(models, prompts, config, completions=2, seed=seed)
    texts, ended = sequences.texts, sequences.finished_B.tolist()
    return [Candidate(p, texts[2 * i], texts[2 * i + 1], (ended[2 * i], ended[2 * i + 1])) for i, p in enumerate(prompts)]


def least_sure(session: Session, found: list[Candidate]) -> list[Candidate]:
    """The share of candidates on which the reward model's two scores are closest."""
    keep = max(round(session.config.pair_share * len(found)), 1)
    if keep == len(found) or session.models.reward is None or session.unmerged is None:
        return found
    answers = rollouts.written_pairs(session.models, [candidate.preferring(True) for candidate in found], session.config)
    scored_B = rollouts.scores(session.models.reward, answers)
    gap = (scored_B[0::2] - scored_B[1::2]).abs().tolist()
    return [found[i] for i in sorted(range(len(found)), key=gap.__getitem__)[:keep]]


def by_coin(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The same answers under labels that say nothing (a control): a fair coin decides for each pair which answer was the better one."""
    heads_P = np.random.default_rng(seed).random(len(pairs)) < 0.5
    return [replace(p, chosen=p.rejected, rejected=p.chosen, ended=p.ended[::-1]) if heads else p for p, heads in zip(pairs, heads_P, strict=True)]
