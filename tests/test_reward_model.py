"""The reward model: weights as values, the pull back to the one before, and training that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn.functional import logsigmoid

from interplay import models, reward_model, rollouts
from interplay.config import RunConfig
from interplay.errors import DataError
from interplay.models import Models
from interplay.tasks import Pair, Prompt

CONFIG = RunConfig(
    max_prompt_tokens=64, max_pair_tokens=24, dtype="float32", device="cpu", lora_rank=4, reward_updates=12, reward_batch=6, reward_learning_rate=1e-2
)


def prompt(text: str) -> Prompt:
    return Prompt(text, text, ({"role": "user", "content": text},))


#: Separable: the better answer has an a where the worse has a z.
PAIRS = [Pair(prompt(f"q{i}"), f"{'ab' * (i % 3 + 1)} aaa", f"{'zb' * (i % 2 + 1)} zzz", ended=(i % 2 == 0, True)) for i in range(12)]


@pytest.fixture
def loaded(tmp_path: Path) -> Models:
    return models.load(CONFIG.with_(model=str(tiny.save(tmp_path / "m"))), critic=False, reward=True)


def refine(loaded: Models, pairs: list[Pair], config: RunConfig = CONFIG, seed: int = 1) -> tuple[list[Any], list[dict[str, float]]]:
    optimizers: list[Any] = []
    lines: list[dict[str, float]] = []
    reward_model.refine(loaded, pairs, config, seed=seed, attach=optimizers.append, log=lambda m: lines.append(dict(m)))
    return optimizers, lines


# --- weights as values -----------------------------------------------------------------------------


def test_weights_are_copies_of_what_is_trained(loaded: Models) -> None:
    kept = reward_model.weights(loaded.reward)
    assert kept.keys() == {name for name, p in loaded.reward.named_parameters() if p.requires_grad}
    assert {name.split(".")[-3] for name in kept} >= {"lora_A", "lora_B", "modules_to_save"}
    with torch.no_grad():
        for _, p in reward_model.trainable(loaded.reward):
            p.add_(1)
    now = reward_model.weights(loaded.reward)
    assert all(torch.equal(now[name], value + 1) for name, value in kept.items())
    reward_model.assign(loaded.reward, kept)
    assert all(torch.equal(p, kept[name]) for name, p in reward_model.trainable(loaded.reward))


def test_using_lends_other_weights_and_gives_the_own_ones_back(loaded: Models) -> None:
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in reward_model.trainable(loaded.reward)}
    other = {name: value + 0.5 for name, value in reward_model.weights(loaded.reward).items()}
    sequences = rollouts.written_pairs(loaded, PAIRS[:2], CONFIG)
    own = rollouts.scores(loaded.reward, sequences)
    with reward_model.using(loaded.reward, other):
        assert all(p.data_ptr() == other[name].data_ptr() for name, p in reward_model.trainable(loaded.reward))
        lent = rollouts.scores(loaded.reward, sequences)
    assert not torch.allclose(own, lent)

    def broken() -> None:
        with reward_model.using(loaded.reward, other):
            raise KeyError("x")

    with pytest.raises(KeyError):
        broken()
    for name, p in reward_model.trainable(loaded.reward):
        assert (p.data_ptr(), p.requires_grad) == (before[name][0], True)
        assert torch.equal(p, before[name][1])
    torch.testing.assert_close(rollouts.scores(loaded.reward, sequences), own)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_keep_close_is_this_share_of_the_saved_model(loaded: Models, share: float) -> None:
    g = torch.Generator().manual_seed(0)
    saved = {name: torch.randn(value.shape, generator=g) for name, value in reward_model.weights(loaded.reward).items()}
    untouched = {name: value.clone() for name, value in saved.items()}
    new = reward_model.weights(loaded.reward)
    frozen = {name: p.detach().clone() for name, p in loaded.reward.named_parameters() if not p.requires_grad}
    reward_model.keep_close(loaded.reward, saved, share)
    for name, p in reward_model.trainable(loaded.reward):
        torch.testing.assert_close(p.detach(), share * saved[name] + (1 - share) * new[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(saved[name], untouched[name])
    assert all(torch.equal(p, frozen[name]) for name, p in loaded.reward.named_parameters() if name in frozen)


# --- training --------------------------------------------------------------------------------------


def bradley_terry(loaded: Models, pairs: list[Pair], margins: list[float] | None = None) -> float:
    scored_B = rollouts.scores(loaded.reward, rollouts.written_pairs(loaded, pairs, CONFIG)).double()
    gap = scored_B[0::2] - scored_B[1::2] - torch.tensor(margins or [0.0] * len(pairs))
    return float(-logsigmoid(gap).mean())


def test_refining_learns_separable_pairs(loaded: Models) -> None:
    first = bradley_terry(loaded, PAIRS)
    base = {name: p.detach().clone() for name, p in loaded.reward.named_parameters() if not p.requires_grad}
    policy = {name: p.detach().clone() for name, p in loaded.policy.named_parameters()}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    optimizers, lines = refine(loaded, PAIRS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bradley_terry(loaded, PAIRS) < first / 2
    assert len(lines) == CONFIG.reward_updates
    assert {"loss", "accuracy", "margin"} <= set(lines[0])
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert len(optimizers) == 1
    assert all(p.grad is None for _, p in reward_model.trainable(loaded.reward))
    assert not loaded.reward.training
    assert all(torch.equal(p, base[name]) for name, p in loaded.reward.named_parameters() if name in base)
    assert all(torch.equal(p, policy[name]) for name, p in loaded.policy.named_parameters())
    moved = {id(p) for group in optimizers[0].optimizer.param_groups if hasattr(optimizers[0], "optimizer") for p in group["params"]} or {
        id(p) for group in optimizers[0].param_groups for p in group["params"]
    }
    assert {id(p) for _, p in reward_model.trainable(loaded.reward)} <= moved


def test_the_first_loss_is_bradley_terrys_on_the_tokens_that_rollouts_are_scored_by(loaded: Models) -> None:
    """One batch of all pairs: what the trainer logs first is the loss of our own scores before it."""
    expected = bradley_terry(loaded, PAIRS)
    _, lines = refine(loaded, PAIRS, CONFIG.with_(reward_batch=12, reward_updates=1))
    assert lines[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_margins_are_part_of_the_loss_and_only_if_all_pairs_have_one(loaded: Models) -> None:
    start = reward_model.weights(loaded.reward)
    config = CONFIG.with_(reward_batch=12, reward_updates=1)
    margins = [0.5 + i / 4 for i in range(12)]
    some = [Pair(p.prompt, p.chosen, p.rejected, m, p.ended) for p, m in zip(PAIRS, margins, strict=True)]
    with_margin, without = bradley_terry(loaded, PAIRS, margins), bradley_terry(loaded, PAIRS)
    assert refine(loaded, some, config)[1][0]["loss"] == pytest.approx(with_margin, rel=1e-4)
    reward_model.assign(loaded.reward, start)
    assert refine(loaded, [*some[:-1], PAIRS[-1]], config)[1][0]["loss"] == pytest.approx(without, rel=1e-4)
    assert with_margin > without + 0.1


def test_one_seed_gives_one_reward_model(loaded: Models) -> None:
    start = reward_model.weights(loaded.reward)
    found = []
    for seed in (3, 3, 4):
        reward_model.assign(loaded.reward, start)
        refine(loaded, PAIRS, CONFIG.with_(reward_updates=3), seed=seed)
        found.append(reward_model.weights(loaded.reward))
    assert all(torch.equal(found[0][name], found[1][name]) for name in start)
    assert any(not torch.equal(found[0][name], found[2][name]) for name in start)


def test_the_order_of_refining_and_merging(loaded: Models) -> None:
    """Refining starts from the merged model; the merge then pulls back to the un-merged one before (ZOPrO, step e)."""
    config = CONFIG.with_(reward_updates=2)
    refine(loaded, PAIRS, config)
    before = reward_model.weights(loaded.reward)
    refine(loaded, PAIRS, config, seed=2)
    refined = reward_model.weights(loaded.reward)
    reward_model.keep_close(loaded.reward, before, 0.75)
    merged = reward_model.weights(loaded.reward)
    name = next(name for name in merged if "lora_B" in name)
    assert (merged[name] - before[name]).norm() == pytest.approx(float(0.25 * (refined[name] - before[name]).norm()), rel=1e-4)


def test_without_pairs_there_is_nothing_to_learn_from(loaded: Models) -> None:
    with pytest.raises(DataError, match=r"no judged pair is left .* raise --pairs or --max-new-tokens, or use another --judge"):
        refine(loaded, [])


@pytest.mark.parametrize(("batch", "longest", "expected"), [(8, 100, 8), (8, 257, 4), (8, 600, 2), (8, 5000, 1), (6, 400, 3), (1, 9999, 1)])
def test_long_answers_are_trained_in_several_passes(batch: int, longest: int, expected: int) -> None:
    assert reward_model.pairs_per_pass(batch, longest) == expected
