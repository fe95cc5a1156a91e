"""What a setting of a run changes and nothing else does: merging, minibatches, pairs and their judge, the critic, seeds.

Whole runs are looked at, or a session is taken apart before its first iteration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from interplay import checkpoints, judges, loop, models, pairing, reward_model, rollouts, tasks
from interplay import session as sessions
from interplay.objectives.base import Batch
from interplay.session import Session
from interplay.store import RunStore
from tests import training
from tests.training import Finished, frame, made_pairs, series, weights


@pytest.fixture
def session(model: Path, prompts: Path, tmp_path: Path) -> Any:
    """A session before its first iteration, of settings that the test chooses."""
    opened: list[Session] = []

    def build(**settings: Any) -> Session:
        config = training.small(model, prompts, tmp_path / f"session-{len(opened)}", **settings)
        opened.append(sessions.build(config, sessions.create_store(config), sessions.silent))
        sessions.attach(opened[-1])
        return opened[-1]

    yield build
    for item in opened:
        item.store.close("finished")


# --- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_share_of_the_saved_reward_model(finished: Finished, share: float) -> None:
    run = finished(iterations=1, updates=1, keep_close=share)
    before, after, merged = weights(run, 0, "reward"), weights(run, 1, "reward"), weights(run, 1, "reward_merged")
    for name, tensor in merged.items():
        if share in (0.0, 1.0):
            assert torch.equal(tensor, (after if share == 0 else before)[name])
        torch.testing.assert_close(tensor.double(), share * before[name].double() + (1 - share) * after[name].double(), rtol=1e-6, atol=1e-8)


def test_the_refined_reward_model_starts_from_the_merged_one(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights at the start of a refinement, seen by the recorder's displacement of a run with one update each."""
    seen: list[dict[str, torch.Tensor]] = []
    real = reward_model.refine

    def spy(given: models.Models, *args: Any, **keys: Any) -> None:
        seen.append(reward_model.weights(given.reward))
        real(given, *args, **keys)

    monkeypatch.setattr(reward_model, "refine", spy)
    made = session(updates=1)
    pairs = loop._iteration_zero(made, None)
    pairs = loop._iterate(made, 1, pairs)
    loop._iterate(made, 2, pairs)
    stored = checkpoints.read(made.models.reward, made.store.checkpoint_path() / "iteration-1" / "reward_merged")
    assert all(torch.equal(stored[name], tensor) for name, tensor in seen[2].items())
    assert any(not torch.equal(seen[1][name], tensor) for name, tensor in seen[2].items())


def test_adapter_init_is_told_and_done(finished: Finished, model: Path, prompts: Path, tmp_path: Path) -> None:
    notes = {}
    for choice in ("shared", "independent"):
        config = training.small(model, prompts, tmp_path, method="ppo", adapter_init=choice)
        loaded = models.load(config, critic=True, reward=True)
        a = {role: next(p for name, p in item.named_parameters() if "lora_A" in name) for role, item in loaded.trained()}
        assert torch.equal(a["policy"], a["reward"]) is torch.equal(a["policy"], a["value"]) is (choice == "shared")
        notes[choice] = " ".join(RunStore.open(finished(iterations=1, updates=1, adapter_init=choice)).info.notes)
    assert "same A" in notes["shared"]
    assert "own A" not in notes["shared"]
    assert "own A" in notes["independent"]


@pytest.mark.parametrize("updates", [4, 3])
def test_inner_epochs_and_minibatches(finished: Finished, updates: int) -> None:
    """One rollout batch feeds 2 x 2 updates; what is left over when the count is reached is not used."""
    run = finished(method="rloo", updates=updates, inner_epochs=2, minibatches=2, prompts=2)
    steps = frame(run, "updates")
    steps = steps[steps["role"] == "policy"][["clock", "update"]].drop_duplicates()
    assert len(steps) == 2 * updates
    texts = frame(run, "completions")
    train = texts[texts["split"] == "train"]
    firsts = [steps["clock"].iloc[0], steps["clock"].iloc[updates]]
    assert train.groupby("clock").size().to_dict() == {firsts[0]: 4, firsts[1]: 4}
    share = series(run, "policy", "advantage_std")
    assert len(share) == 2 * updates


def test_minibatches_see_every_prompt_once_in_each_epoch(session: Any) -> None:
    made = session(prompts=4, inner_epochs=2, minibatches=2, updates=4)
    experience = loop.gather(made, 0, ())
    parts = [index.tolist() for index in loop.minibatches(made, experience.batch, 0)]
    assert [len(part) for part in parts] == [4, 4, 4, 4]
    for epoch in (parts[:2], parts[2:]):
        assert sorted(row for part in epoch for row in part) == list(range(8))
        for part in epoch:
            groups = experience.batch.group_B[part].tolist()
            assert all(groups.count(group) == 2 for group in groups), "completions of a prompt stay together"
    assert parts[:2] != parts[2:]


def test_pair_share_judges_the_pairs_of_which_the_reward_model_is_least_sure(session: Any) -> None:
    made = session(pairs=8, pair_share=0.5)
    chosen = made.draw(made.data.prompts, 0, 8)
    candidates = pairing.candidates(made.models, chosen, made.config, 5)
    assert pairing.least_sure(made, candidates) == candidates, "there is no trained reward model yet"
    made.unmerged = reward_model.weights(made.models.reward)

    def score(prompt: tasks.Prompt, text: str, ended: bool) -> float:
        return float(rollouts.scores(made.models.reward, rollouts.written(made.models, [(prompt, text, ended)], made.config)))

    gaps = {id(c): abs(score(c.prompt, c.first, c.ended[0]) - score(c.prompt, c.second, c.ended[1])) for c in candidates}
    kept = pairing.least_sure(made, candidates)
    assert len(kept) == 4
    left_out = [item for item in candidates if all(item is not other for other in kept)]
    assert max(gaps[id(item)] for item in kept) <= min(gaps[id(item)] for item in left_out)


def test_pair_share_in_a_run(finished: Finished) -> None:
    run = finished(iterations=1, updates=1, pairs=16, pair_share=0.25)
    pairs, ties = series(run, "reward", "judge/pairs"), series(run, "reward", "judge/tie_rate")
    judged = (pairs["value"] / (1 - ties["value"])).round(6).tolist()
    assert judged == [16.0, 4.0]
    assert pairs["iteration"].tolist() == [0, 1]


def test_judge_model_decides(model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of --judge-model is read, is asked in both orders, and the pairs are as it said."""
    judge = training.save_model(tmp_path / "judge", seed=6, copies=1, initializer_range=0.5)
    votes: dict[tuple[str, str, str], float] = {}
    real = judges._Model._votes

    def spy(self: Any, candidates: Any) -> list[float]:
        assert len(self.tokenizer) < 400, "the judge's own tokenizer"
        found = real(self, candidates)
        votes.update({(item.prompt.text, item.first, item.second): vote for item, vote in zip(candidates, found, strict=True)})
        return found

    monkeypatch.setattr(judges._Model, "_votes", spy)
    run = loop.train(training.small(model, prompts, tmp_path / "run", judge="model", judge_model=str(judge), iterations=1, updates=1, pairs=16))
    assert len({round(vote, 4) for vote in votes.values()}) > 10
    for iteration in (0, 1):
        for pair in made_pairs(run, iteration):
            key = pair["text"], pair["chosen"], pair["rejected"]
            assert votes[key] > 0.5 > votes[key[0], key[2], key[1]]
    assert (series(run, "reward", "judge/tie_rate")["value"] > 0).any(), "verdicts that depend on the order are ties"


@pytest.mark.parametrize("method", ["rloo", "dpo"])
def test_judged_pairs_from_a_file(model: Path, tmp_path: Path, method: str) -> None:
    """Iteration 0 learns from the file's pairs; later ones from the policy's own; held-out pairs are the file's."""
    file = training.write_pairs(tmp_path / "pairs.jsonl")
    rows = {(row["prompt"], row["chosen"], row["rejected"]) for row in map(json.loads, file.read_text().splitlines())}
    run = loop.train(training.small(model, file, tmp_path / "run", method=method))
    first, held = made_pairs(run, 0), set(frame(run, "completions").query("split == 'heldout'")["prompt"])
    assert {(pair["text"], pair["chosen"], pair["rejected"]) for pair in first} == {row for row in rows if row[0] not in held}
    assert len(first) == 18
    later = {(pair["text"], pair["chosen"], pair["rejected"]) for pair in made_pairs(run, 1)}
    assert later
    assert not later & rows
    assert RunStore.open(run).info.data["pairs"] == 24
    judged = series(run, "reward", "judge/pairs")
    assert judged["iteration"].tolist() == [1, 2], "nothing was judged in iteration 0"
    assert len(series(run, "policy", "reward_model_accuracy", "heldout")) == 3


def test_layers_and_targets_limit_what_is_trained(finished: Finished) -> None:
    rows = frame(finished(iterations=1, updates=1, layers="1", lora_targets="q_proj,v_proj"), "updates").query("role == 'policy'")
    assert set(rows["layer"]) == {1}
    assert set(rows["kind"]) == {"q_proj", "v_proj"}


# --- the critic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_the_critic_learns(session: Any, tune: str) -> None:
    """On a fixed batch with fixed returns its loss falls to a fraction, and only its own weights move."""
    made = session(method="ppo", tune=tune, settings={"value_learning_rate": 3e-3, "value_clip": 100.0})
    experience = loop.gather(made, 0, ())
    targets = made.method.objective.targets(experience.batch, made.method.objective_settings)
    before = {role: reward_model.weights(item) for role, item in made.models.trained()}
    for _ in range(25):
        loop._update_critic(made, experience.sequences, experience.batch, targets)
    after = {role: reward_model.weights(item) for role, item in made.models.trained()}
    moved = {role: any(not torch.equal(before[role][name], tensor) for name, tensor in found.items()) for role, found in after.items()}
    assert moved == {"policy": False, "reward": False, "value": True}
    made.store.flush()
    loss = series(made.store.path, "value", "loss")["value"]
    assert len(loss) == 25
    assert loss.iloc[-1] < 0.2 * loss.iloc[0]
    values_BT = rollouts.values(made.models.critic, experience.sequences)
    error_BT = (values_BT - targets["returns_BT"])[experience.batch.mask_BT]
    assert 0.5 * float((error_BT**2).mean()) < 0.2 * loss.iloc[0]


def test_critic_values_come_from_before_the_update(session: Any) -> None:
    """The rollout's values are the critic's at that time: zero at first, so that advantages are plain returns."""
    made = session(method="ppo", settings={"value_learning_rate": 1e-2})
    first = loop.gather(made, 0, ())
    assert first.batch.values_BT is not None
    assert float(first.batch.values_BT.abs().max()) == 0
    targets = made.method.objective.targets(first.batch, made.method.objective_settings)
    loop._update_critic(made, first.sequences, first.batch, targets)
    experience = loop.gather(made, 1, ())
    batch: Batch = experience.batch
    assert batch.values_BT is not None
    torch.testing.assert_close(batch.values_BT, rollouts.values(made.models.critic, experience.sequences))
    assert float(batch.values_BT.abs().sum()) > 0


# --- seeds -----------------------------------------------------------------------------------------


def test_a_run_leaves_the_global_generators_as_it_found_them(model: Path, prompts: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    loop.train(training.small(model, prompts, tmp_path / "run", iterations=1, updates=1))
    assert torch.equal(torch.rand(3), expected)


def prompt_order(run: Path) -> list[str]:
    return frame(run, "completions").query("split == 'train'")["prompt_id"].tolist()


def test_seeds_are_separate(finished: Finished, model: Path, prompts: Path, tmp_path: Path) -> None:
    """Each seed moves its own stream and no other."""
    base = {"method": "rloo", "reward": "gold", "seed_data": 1, "seed_sampling": 2, "seed_perturbation": 3}
    plain = finished(**base)
    order, texts = prompt_order(plain), frame(plain, "completions")
    starts = texts.query("iteration == 0")["completion"].tolist()

    def adapters(**changes: Any) -> torch.Tensor:
        loaded = models.load(training.small(model, prompts, tmp_path, **{**base, **changes}), critic=False, reward=False)
        return torch.cat([p.flatten() for name, p in loaded.policy.named_parameters() if "lora_A" in name])

    moved = {name: finished(**{**base, name: 11}) for name in ("seed_data", "seed_sampling", "seed_perturbation")}
    same_order = {name: prompt_order(run) == order for name, run in moved.items()}
    assert same_order == {"seed_data": False, "seed_sampling": True, "seed_perturbation": True}
    same_texts = {name: frame(run, "completions").query("iteration == 0")["completion"].tolist() == starts for name, run in moved.items()}
    assert same_texts == {"seed_data": True, "seed_sampling": False, "seed_perturbation": True}
    same_adapters = {name: torch.equal(adapters(), adapters(**{name: 11})) for name in moved}
    assert same_adapters == {"seed_data": True, "seed_sampling": True, "seed_perturbation": False}
    held = {name: frame(run, "completions").query("split == 'heldout'")["prompt_id"].tolist() for name, run in moved.items()}
    assert len({tuple(ids) for ids in held.values()}) == 1, "held-out prompts do not depend on any seed"
    sketch_seeds = {name: RunStore.open(run).info.sketch.seed for name, run in moved.items()}
    assert sketch_seeds == {"seed_data": 3, "seed_sampling": 3, "seed_perturbation": 11}


def test_one_seed_moves_all_streams(finished: Finished) -> None:
    a, b = finished(method="rloo", reward="gold", seed=1), finished(method="rloo", reward="gold", seed=2)
    assert prompt_order(a) != prompt_order(b)
    assert frame(a, "completions").query("iteration == 0")["completion"].tolist() != frame(b, "completions").query("iteration == 0")["completion"].tolist()


def test_prompts_are_drawn_as_endless_permutations(session: Any) -> None:
    made = session()
    items = list(range(7))
    drawn = made.draw(items, 0, 21)
    assert [sorted(drawn[n : n + 7]) for n in (0, 7, 14)] == [items] * 3
    assert drawn[:7] != drawn[7:14]
    assert [made.draw(items, n, 1)[0] for n in range(21)] == drawn, "any batch size walks through the same order"


def test_every_use_has_a_seed_of_its_own(session: Any) -> None:
    made = session()
    keys = [("rollout", 0), ("rollout", 1), ("pairs", 0), ("pairs", 1), ("refine", 0), ("heldout",), ("minibatch", 0, 0), ("minibatch", 0, 1), ("order", 0)]
    assert len({made.seed(*key) for key in keys}) == len(keys)
