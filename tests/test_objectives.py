"""Each loss against an independent route: explicit loops in float64, finite differences, TRL's own trainers."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from scipy.special import log_expit
from torch import Tensor

from interplay import objectives, rollouts
from interplay.objectives import dpo, online_dpo, ppo, rloo
from interplay.objectives.base import Batch, Outputs, group_sum, masked_mean, sequence_sum
from interplay.rollouts import Sequences

LENGTHS = [5, 1, 3, 6, 2, 6]
GROUPS = [7, 7, 7, 3, 3, 3]  # neither sorted nor starting at 0


def batch(seed: int = 0, *, values: bool = False, groups: list[int] = GROUPS) -> tuple[Outputs, Batch]:
    """Ragged rows in float64. What stands behind the end is large, so that a forgotten mask shows."""
    g = torch.Generator().manual_seed(seed)
    B, T = len(LENGTHS), max(LENGTHS)
    mask_BT = torch.arange(T) < torch.tensor(LENGTHS)[:, None]

    def draw(scale: float) -> Tensor:
        return torch.where(mask_BT, scale * torch.randn(B, T, generator=g, dtype=torch.float64), 50.0)

    old_BT = draw(1.0) - 2
    made = Batch(
        mask_BT=mask_BT,
        group_B=torch.tensor(groups),
        scores_B=torch.randn(B, generator=g, dtype=torch.float64),
        reference_BT=old_BT + draw(0.5),
        old_BT=old_BT,
        values_BT=draw(1.0) if values else None,
    )
    return Outputs((old_BT + draw(0.25)).requires_grad_(), draw(1.0).abs()), made


def loops(batch: Batch) -> list[list[int]]:
    """The masked positions of each row."""
    return [[t for t in range(batch.mask_BT.shape[1]) if batch.mask_BT[b, t]] for b in range(len(batch.scores_B))]


def gradient(loss: Any, outputs: Outputs, batch: Batch, targets: Any, settings: Any) -> Tensor:
    value, _ = loss(outputs, batch, targets, settings)
    (found,) = torch.autograd.grad(value, outputs.logprobs_BT)
    return found


def finite_differences(loss: Any, outputs: Outputs, batch: Batch, targets: Any, settings: Any, step: float = 1e-6) -> Tensor:
    point = outputs.logprobs_BT.detach()
    found = torch.zeros_like(point)
    for index in np.ndindex(*point.shape):
        ends = []
        for sign in (1, -1):
            moved = point.clone()
            moved[index] += sign * step
            ends.append(float(loss(Outputs(moved, outputs.entropy_BT), batch, targets, settings)[0]))
        found[index] = (ends[0] - ends[1]) / (2 * step)
    return found


# --- the registry and the sums everything is made of ---------------------------------------------


def test_every_file_is_found_and_says_what_it_is() -> None:
    assert objectives.names() == ["dpo", "online_dpo", "ppo", "rloo"]
    for name in objectives.names():
        found = objectives.find(name)
        assert found.name == name
        assert found.paper.startswith("arXiv:")
        assert found.data == ("pairs" if name == "dpo" else "rollouts")
        assert (found.critic_loss is not None) == (name == "ppo")
    for word in ("base", "nope", "__init__"):
        with pytest.raises(KeyError):
            objectives.find(word)


def test_sums_count_only_what_is_masked() -> None:
    values_BT = torch.tensor([[1.0, 2.0, 100.0], [4.0, 100.0, 100.0]])
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values_BT, mask_BT) == 7 / 3
    assert masked_mean(values_BT, torch.zeros(2, 3, dtype=torch.bool)) == 0
    assert sequence_sum(values_BT, mask_BT).tolist() == [3, 4]
    assert group_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([9, 2, 9])).tolist() == [2, 5]


def test_cutting_a_batch_cuts_every_field() -> None:
    _, whole = batch(values=True)
    part = whole.rows(torch.tensor([4, 1]))
    assert part.group_B.tolist() == [3, 7]
    for name in ("mask_BT", "scores_B", "reference_BT", "old_BT", "values_BT"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[4, 1]])
    assert batch()[1].rows(torch.tensor([0])).values_BT is None


# --- RLOO ----------------------------------------------------------------------------------------


def rloo_advantages(batch: Batch, kl: float) -> list[float]:
    rewards = [float(batch.scores_B[b]) - kl * sum(float(batch.old_BT[b, t] - batch.reference_BT[b, t]) for t in row) for b, row in enumerate(loops(batch))]
    found = []
    for b, group in enumerate(batch.group_B.tolist()):
        others = [rewards[i] for i, other in enumerate(batch.group_B.tolist()) if other == group and i != b]
        found.append(rewards[b] - sum(others) / len(others) if others else 0.0)
    return found


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_rloo_advantage_leaves_its_own_reward_out(kl: float) -> None:
    _, made = batch(1)
    found = rloo.targets(made, rloo.Settings(kl=kl))["advantages_B"]
    np.testing.assert_allclose(found, rloo_advantages(made, kl), rtol=1e-12)
    by_hand = rloo.leave_one_out(torch.tensor([1.0, 4.0, 10.0]), torch.zeros(3, dtype=torch.long))
    assert by_hand.tolist() == [1 - 7, 4 - 5.5, 10 - 2.5]


def test_a_lone_completion_has_no_baseline_and_no_say() -> None:
    assert rloo.leave_one_out(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 1, 1])).tolist() == [0, -1, 1]


def test_rloo_normalised_divides_by_the_spread_of_the_batch() -> None:
    _, made = batch(2)
    plain = np.array(rloo_advantages(made, 0.05))
    found = rloo.targets(made, rloo.Settings(normalise=True))["advantages_B"]
    np.testing.assert_allclose(found, (plain - plain.mean()) / (plain.std(ddof=1) + 1e-4), rtol=1e-10)


@pytest.mark.parametrize("clip", [0.05, 0.2])
def test_rloo_loss_and_metrics_by_loops(clip: float) -> None:
    outputs, made = batch(3)
    settings = rloo.Settings(clip=clip)
    targets = rloo.targets(made, settings)
    terms, clipped = [], 0
    for b, row in enumerate(loops(made)):
        ratio, advantage = math.exp(sum(float(outputs.logprobs_BT.detach()[b, t] - made.old_BT[b, t]) for t in row)), float(targets["advantages_B"][b])
        terms.append(min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage))
        clipped += (ratio > 1 + clip and advantage > 0) or (ratio < 1 - clip and advantage < 0)
    value, metrics = rloo.loss(outputs, made, targets, settings)
    assert clipped  # else the test does not see the clipping
    assert float(value) == pytest.approx(-sum(terms) / len(terms), rel=1e-12)
    assert metrics["clip_ratio/region_mean"] == pytest.approx(clipped / len(terms))
    assert metrics["advantage_std"] == pytest.approx(np.std(targets["advantages_B"].numpy()))


# --- DPO and online DPO ----------------------------------------------------------------------------


def pairs_batch(seed: int) -> tuple[Outputs, Batch]:
    outputs, made = batch(seed, groups=[0, 0, 1, 1, 2, 2])
    return outputs, Batch(**{**vars(made), "scores_B": torch.tensor([1.0, 0, 0, 1, 1, 0], dtype=torch.float64)})


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_against_scipy(smoothing: float) -> None:
    outputs, made = pairs_batch(4)
    settings = dpo.Settings(beta=0.7, label_smoothing=smoothing)
    summed = np.array([sum(float(outputs.logprobs_BT[b, t] - made.reference_BT[b, t]) for t in row) for b, row in enumerate(loops(made))])
    chosen, rejected = 0.7 * summed[[0, 3, 4]], 0.7 * summed[[1, 2, 5]]
    margins = chosen - rejected
    expected = -((1 - smoothing) * log_expit(margins) + smoothing * log_expit(-margins)).mean()
    value, metrics = dpo.loss(outputs, made, dpo.targets(made, settings), settings)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert metrics == pytest.approx(
        {
            "pairs": 3,
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/margins": margins.mean(),
            "rewards/accuracies": (margins > 0).mean(),
        }
    )


def test_online_dpo_takes_the_best_and_the_worst_of_each_group() -> None:
    outputs, made = batch(5)
    made = Batch(**{**vars(made), "scores_B": torch.tensor([0.1, 0.9, 0.5, -1.0, 2.0, 2.0], dtype=torch.float64)})
    sign_B = dpo.signs(made.scores_B, made.group_B)
    assert sign_B.tolist() == [-1, 1, 0, -1, 1, 0]
    settings = online_dpo.Settings()
    value, metrics = online_dpo.loss(outputs, made, {"sign_B": sign_B}, settings)
    rows = loops(made)
    implicit = [settings.beta * sum(float(outputs.logprobs_BT[b, t] - made.reference_BT[b, t]) for t in rows[b]) for b in range(6)]
    assert float(value) == pytest.approx(-(log_expit(implicit[1] - implicit[0]) + log_expit(implicit[4] - implicit[3])) / 2, rel=1e-12)
    kl = np.mean([sum(float(made.old_BT[b, t] - made.reference_BT[b, t]) for t in rows[b]) for b in range(6)])
    assert metrics["objective/kl"] == pytest.approx(kl)
    assert metrics["objective/scores"] == pytest.approx(float(made.scores_B.mean()))


def test_equal_scores_are_no_pair_and_move_nothing() -> None:
    outputs, made = batch(6)
    made = Batch(**{**vars(made), "scores_B": torch.tensor([0.0, 1.0, 0.5, 2.0, 2.0, 2.0], dtype=torch.float64)})
    assert dpo.signs(made.scores_B, made.group_B).tolist() == [-1, 1, 0, 0, 0, 0]
    found = gradient(dpo.loss, outputs, made, dpo.targets(made, dpo.Settings()), dpo.Settings())
    assert found[:2].abs().max() > 0
    assert found[2:].abs().max() == 0
    same = Batch(**{**vars(made), "scores_B": torch.ones(6, dtype=torch.float64)})
    value, metrics = dpo.loss(outputs, same, dpo.targets(same, dpo.Settings()), dpo.Settings())
    value.backward()
    assert (float(value.detach()), metrics) == (0.0, {"pairs": 0.0})
    assert outputs.logprobs_BT.grad is not None
    assert outputs.logprobs_BT.grad.abs().max() == 0


# --- PPO -------------------------------------------------------------------------------------------


def test_ppo_pays_the_score_with_the_last_token_and_the_kl_with_each() -> None:
    _, made = batch(7, values=True)
    found = ppo.token_rewards(made, ppo.Settings(kl=0.3))
    mean = float(made.scores_B.mean())
    for b, row in enumerate(loops(made)):
        for t in range(found.shape[1]):
            kl = -0.3 * float(made.old_BT[b, t] - made.reference_BT[b, t]) if t in row else 0.0
            assert float(found[b, t]) == pytest.approx(kl + (float(made.scores_B[b]) - mean if t == row[-1] else 0.0))


def test_ppo_does_not_care_where_the_reward_model_has_its_zero() -> None:
    _, made = batch(7, values=True)
    moved = dataclasses.replace(made, scores_B=made.scores_B - 5.0)
    for name, value in ppo.targets(made, ppo.Settings()).items():
        np.testing.assert_allclose(ppo.targets(moved, ppo.Settings())[name], value, atol=1e-12)


def test_a_single_score_is_kept() -> None:
    assert ppo.centred(torch.tensor([-2.0])).tolist() == [-2.0]
    assert ppo.centred(torch.tensor([-2.0, 0.0])).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.8, 0.0)])
def test_gae_is_the_sum_over_all_later_errors(gamma: float, lam: float) -> None:
    _, made = batch(8, values=True)
    assert made.values_BT is not None
    rewards_BT = ppo.token_rewards(made, ppo.Settings())
    found = ppo.advantages(rewards_BT, made.values_BT, made.mask_BT, gamma, lam)
    for b, row in enumerate(loops(made)):
        V = [float(made.values_BT[b, t]) for t in row] + [0.0]
        delta = [float(rewards_BT[b, t]) + gamma * V[t + 1] - V[t] for t in row]
        for t in range(found.shape[1]):
            brute = sum((gamma * lam) ** (later - t) * delta[later] for later in row if later >= t) if t in row else 0.0
            assert float(found[b, t]) == pytest.approx(brute, abs=1e-12)
        if lam == 1.0:  # then A_t + V_t is the plain discounted return
            assert float(found[b, 0]) + V[0] == pytest.approx(sum(gamma**t * float(rewards_BT[b, t]) for t in row))


def test_ppo_advantages_are_whitened_over_tokens_and_returns_are_not() -> None:
    _, made = batch(9, values=True)
    assert made.values_BT is not None
    settings = ppo.Settings()
    raw = ppo.advantages(ppo.token_rewards(made, settings), made.values_BT, made.mask_BT, settings.gamma, settings.gae_lambda)
    targets = ppo.targets(made, settings)
    tokens = raw[made.mask_BT].numpy()
    np.testing.assert_allclose(targets["advantages_BT"][made.mask_BT], (tokens - tokens.mean()) / tokens.std(), rtol=1e-6)
    np.testing.assert_allclose(targets["returns_BT"][made.mask_BT], tokens + made.values_BT[made.mask_BT].numpy(), rtol=1e-12)
    assert targets["advantages_BT"][~made.mask_BT].abs().max() == 0


@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_ppo_loss_and_metrics_by_loops(entropy: float) -> None:
    outputs, made = batch(10, values=True)
    settings = ppo.Settings(entropy=entropy)
    targets = ppo.targets(made, settings)
    terms, entropies, squares, clipped = [], [], [], 0
    for b, row in enumerate(loops(made)):
        for t in row:
            log_ratio, A = float(outputs.logprobs_BT[b, t] - made.old_BT[b, t]), float(targets["advantages_BT"][b, t])
            w = math.exp(log_ratio)
            terms.append(min(w * A, min(max(w, 0.8), 1.2) * A))
            clipped += (w > 1.2 and A > 0) or (w < 0.8 and A < 0)
            squares.append(log_ratio**2 / 2)
            entropies.append(float(outputs.entropy_BT[b, t]))
    value, metrics = ppo.loss(outputs, made, targets, settings)
    assert 0 < clipped < len(terms)
    assert float(value) == pytest.approx(-np.mean(terms) - entropy * np.mean(entropies), rel=1e-12)
    assert metrics["policy/clipfrac_avg"] == pytest.approx(clipped / len(terms), rel=1e-6)
    assert metrics["policy/approxkl_avg"] == pytest.approx(np.mean(squares))


def test_critic_loss_by_loops() -> None:
    _, made = batch(11, values=True)
    assert made.values_BT is not None
    settings = ppo.Settings(value_clip=0.3)
    targets = ppo.targets(made, settings)
    now_BT = (made.values_BT + 0.5 * torch.randn(made.values_BT.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    terms, residuals, returns, outside = [], [], [], 0
    for b, row in enumerate(loops(made)):
        for t in row:
            v, old, G = float(now_BT[b, t]), float(made.values_BT[b, t]), float(targets["returns_BT"][b, t])
            near = old + min(max(v - old, -0.3), 0.3)
            terms.append(max((v - G) ** 2, (near - G) ** 2))
            outside += near != v
            residuals.append(G - old)
            returns.append(G)
    value, metrics = ppo.critic_loss(now_BT, made, targets, settings)
    assert 0 < outside < len(terms)
    assert float(value.detach()) == pytest.approx(np.mean(terms) / 2, rel=1e-12)
    assert metrics["value/explained_variance"] == pytest.approx(1 - np.var(residuals) / np.var(returns))
    (found,) = torch.autograd.grad(value, now_BT)
    assert found[~made.mask_BT].abs().max() == 0
    assert torch.autograd.gradcheck(lambda v: ppo.critic_loss(v, made, targets, settings)[0], now_BT)


# --- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", objectives.names())
def test_gradient_is_that_of_finite_differences_and_nothing_flows_behind_the_end(name: str) -> None:
    objective = objectives.find(name)
    settings = objective.settings()
    outputs, made = pairs_batch(12) if name == "dpo" else batch(12, values=True)
    targets = objective.targets(made, settings)
    found = gradient(objective.loss, outputs, made, targets, settings)
    assert found[~made.mask_BT].abs().max() == 0
    assert found.abs().max() > 1e-3
    np.testing.assert_allclose(found, finite_differences(objective.loss, outputs, made, targets, settings), atol=1e-8)


# --- TRL's own trainers ----------------------------------------------------------------------------

PLAIN = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}


def nudge(model: Any, seed: int, size: float) -> Any:
    """Move all weights a little, so that ratios are not 1."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=g))
    return model


def sequences(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor, groups: Tensor) -> Sequences:
    count = len(groups)
    ids_BS, attention_BS = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1).long()
    finished_B = torch.ones(count, dtype=torch.bool)
    return Sequences((None,) * count, ("",) * count, ids_BS, attention_BS, completion_mask.bool(), finished_B, groups)  # type: ignore[arg-type]


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Each tensor within 1e-5 of its norm."""
    assert ours.keys() == theirs.keys()
    assert max(float(g.norm()) for g in theirs.values()) > 1e-2
    for name, grad in ours.items():
        assert float((grad - theirs[name]).norm()) <= 1e-5 * max(float(theirs[name].norm()), 1e-3), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("trl") / "model")


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_agrees_with_trl(folder: Path, tmp_path: Path, beta: float) -> None:
    from trl import DPOConfig, DPOTrainer

    reference, policy, theirs = tiny.llama(), nudge(tiny.llama(), 1, 0.05), nudge(tiny.llama(), 1, 0.05)
    data = Dataset.from_dict(
        {"prompt": ["say it: ", "a longer prompt: ", "x"], "chosen": ["good", "fine, thanks", "yes"], "rejected": ["a bad one", "no", "nonono"]}
    )
    arguments = DPOConfig(output_dir=str(tmp_path), beta=beta, per_device_train_batch_size=3, max_length=None, **PLAIN)
    trainer = DPOTrainer(model=theirs, ref_model=copy.deepcopy(reference), args=arguments, train_dataset=data, processing_class=tiny.tokenizer())
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert inputs["input_ids"].shape[0] == 6  # three chosen, then three rejected
    their_loss = trainer.compute_loss(trainer.model, dict(inputs))

    rows = [
        ([i for i, m, c in zip(ids, mask, done, strict=True) if m and not c], [i for i, m, c in zip(ids, mask, done, strict=True) if m and c])
        for ids, mask, done in zip(*(inputs[k].tolist() for k in ("input_ids", "attention_mask", "completion_mask")), strict=True)
    ]
    prompts, answers = [p for p, _ in rows], [a for _, a in rows]
    made = sequences(
        rollouts._pad_left(prompts, 0),
        rollouts._pad_left([[1] * len(p) for p in prompts], 0),
        rollouts._pad_right(answers, 0),
        rollouts._pad_right([[1] * len(a) for a in answers], 0),
        torch.tensor([0, 1, 2, 0, 1, 2]),
    )
    settings = dpo.Settings(beta=beta)
    now_BT, entropy_BT = rollouts.token_logprobs(policy, made, 1.0)
    with torch.no_grad():
        reference_BT, _ = rollouts.token_logprobs(reference, made, 1.0)
    judged = Batch(made.mask_BT, made.group_B, torch.tensor([1.0, 1, 1, 0, 0, 0]), reference_BT, now_BT.detach())
    our_loss, metrics = dpo.loss(Outputs(now_BT, entropy_BT), judged, dpo.targets(judged, settings), settings)
    assert abs(metrics["rewards/margins"]) > 0.01  # the policy has left the reference
    assert float(our_loss.detach()) == pytest.approx(float(their_loss.detach()), rel=1e-5)
    assert_same(gradients(policy, our_loss), gradients(theirs, their_loss))


@pytest.mark.parametrize(("kl", "normalise", "temperature"), [(0.1, False, 0.7), (0.0, True, 1.0)])
def test_rloo_agrees_with_trl(folder: Path, tmp_path: Path, kl: float, normalise: bool, temperature: float) -> None:
    """TRL generates, scores and takes advantages; both policies then move, and losses and gradients are compared."""
    from transformers import AutoModelForCausalLM
    from trl import RLOOConfig, RLOOTrainer

    kept: list[float] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        kept[:] = [len(ids) / 7 + (ids[0] % 5) for ids in completion_ids]
        return list(kept)

    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    arguments = RLOOConfig(
        output_dir=str(tmp_path),
        beta=kl,
        normalize_advantages=normalise,
        temperature=temperature,
        num_generations=4,
        per_device_train_batch_size=12,
        max_completion_length=12,
        epsilon=0.2,
        **PLAIN,
    )
    data = Dataset.from_dict({"prompt": ["ab", "a longer prompt", "q"]})
    trainer = RLOOTrainer(model=theirs, reward_funcs=reward, args=arguments, train_dataset=data, processing_class=tiny.tokenizer())
    nudge(theirs, 2, 0.02)  # so that the KL to the reference is not 0
    inputs = trainer._generate_and_score_completions([{"prompt": p} for p in data["prompt"] for _ in range(4)])
    made = sequences(*(inputs[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")), torch.arange(3).repeat_interleave(4))

    policy = nudge(AutoModelForCausalLM.from_pretrained(folder), 2, 0.02)
    with torch.no_grad():
        old_BT, _ = rollouts.token_logprobs(policy, made, temperature)
        reference_BT, _ = rollouts.token_logprobs(AutoModelForCausalLM.from_pretrained(folder), made, temperature)
    settings = rloo.Settings(kl=kl, clip=0.2, normalise=normalise)
    rolled = Batch(made.mask_BT, made.group_B, torch.tensor(kept), reference_BT, old_BT)
    targets = rloo.targets(rolled, settings)
    torch.testing.assert_close(sequence_sum(old_BT, made.mask_BT), inputs["old_logps"], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(targets["advantages_B"], inputs["advantages"], rtol=1e-5, atol=1e-5)

    nudge(theirs, 3, 0.02)
    nudge(policy, 3, 0.02)
    # The very same numbers go in: what is compared from here on is the loss, not sums of log-probabilities in fp32.
    inputs |= {"old_logps": sequence_sum(old_BT, made.mask_BT), "advantages": targets["advantages_B"]}
    their_loss = trainer.compute_loss(theirs, inputs)
    our_loss, metrics = rloo.loss(Outputs(*rollouts.token_logprobs(policy, made, temperature)), rolled, targets, settings)
    assert metrics["clip_ratio/region_mean"] >= 0.2
    assert metrics["clip_ratio/region_mean"] == pytest.approx(trainer._metrics["train" if theirs.training else "eval"]["clip_ratio/region_mean"][-1])
    assert float(our_loss.detach()) == pytest.approx(float(their_loss.detach()), rel=1e-5)
    assert_same(gradients(policy, our_loss), gradients(theirs, their_loss))
