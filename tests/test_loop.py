"""Whole runs of the tiny model: every method, every way of tuning, with and without a reward model.

Each run is made once and looked at by several tests, also of other files; what is expected is counted from the settings,
from the prompt file or from the records of another stream, never taken from the loop itself.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interplay import checkpoints, data, evaluation, interrupts, judges, loop, models, pairing, reward_model, rollouts, tasks
from interplay import session as sessions
from interplay.config import RunConfig
from interplay.errors import DataError
from interplay.objectives.base import Batch
from interplay.session import Session
from interplay.store import Runs, RunStore
from tests import training
from tests.training import Finished, frame, series, weights

METHODS = ("ppo", "rloo", "online_dpo", "dpo")
MADE = [(method, tune, reward) for method in METHODS for tune in ("lora", "full") for reward in ("model", "gold")]
every_run = pytest.mark.parametrize(("method", "tune", "reward"), MADE, ids=["-".join(key) for key in MADE])
with_reward_model = pytest.mark.parametrize(("method", "tune", "reward"), [key for key in MADE if key[2] == "model"], ids=lambda word: word)


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


def config_of(run: Path) -> RunConfig:
    return RunConfig.from_mapping(RunStore.open(run).info.config)


def ids_in(file: Path) -> dict[str, str]:
    """Prompt by id, as the data set was read; the ids are those of no run."""
    found = data.load(RunConfig(data=str(file), heldout=2), tasks.find("chat"))
    known = {prompt.id: prompt.text for prompt in (*found.prompts, *found.heldout)}
    assert sorted(known.values()) == sorted(json.loads(line)["prompt"] for line in file.read_text().splitlines())
    return known


def made_pairs(run: Path, iteration: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "checkpoints" / f"iteration-{iteration}" / "pairs.jsonl").read_text().splitlines()]


# --- what every run must hold ----------------------------------------------------------------------


@every_run
def test_every_combination_finishes_with_exactly_the_planned_updates(finished: Finished, method: str, tune: str, reward: str) -> None:
    run = finished(method=method, tune=tune, reward=reward)
    status = RunStore.open(run).status()
    assert (status.state, status.error) == ("finished", None)
    assert [row.state for row in Runs(run.parent).list() if row.run == run.name] == ["finished"]
    expected = {"policy": 2 * 2}
    if reward == "model":
        expected["reward"] = (2 + 1) * 2
    if method == "ppo":
        expected["value"] = 2 * 2
    steps = frame(run, "updates")[["clock", "role", "update", "iteration"]].drop_duplicates()
    assert steps.groupby("role").size().to_dict() == expected
    for role, count in expected.items():
        assert steps[steps["role"] == role]["update"].tolist() == list(range(1, count + 1))
    assert steps["clock"].tolist() == list(range(1, sum(expected.values()) + 1)), "one clock over all roles, without gaps or repeats"
    assert steps["iteration"].is_monotonic_increasing
    assert status.progress["done"] == status.progress["planned"] == expected["policy"] + expected.get("reward", 0)
    assert RunStore.open(run).problems() == []


@every_run
def test_every_role_moves_at_every_update(finished: Finished, method: str, tune: str, reward: str) -> None:
    """LoRA's A stands still at the very first update, because B is 0; the module as a whole never does."""
    rows = frame(finished(method=method, tune=tune, reward=reward), "updates")
    moved = rows.groupby(["clock", "role"])["update_norm"].max()
    assert (moved > 0).all()


@every_run
def test_metrics_of_every_policy_update_agree_with_the_completions(finished: Finished, method: str, tune: str, reward: str) -> None:
    run = finished(method=method, tune=tune, reward=reward)
    metrics, texts = frame(run, "metrics"), frame(run, "completions")
    texts = texts[texts["split"] == "train"]
    policy = metrics[(metrics["role"] == "policy") & (metrics["split"] == "train")].pivot(index="clock", columns="name", values="value")
    assert len(policy) == 4
    assert np.isfinite(policy[["reward", "gold", "kl", "entropy", "loss", "grad_norm", "tokens", "seconds"]].to_numpy()).all()
    by_clock = texts.groupby("clock")
    for name, column in (("reward", "reward"), ("gold", "gold"), ("kl", "kl"), ("completions/mean_length", "tokens")):
        np.testing.assert_allclose(policy[name], by_clock[column].mean(), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(policy["tokens"], by_clock["tokens"].sum().cumsum())
    assert (policy["seconds"].diff().dropna() > 0).all()
    assert policy["entropy"].gt(0).all()


@every_run
def test_completions_join_the_update_that_learns_from_them(finished: Finished, method: str, tune: str, reward: str) -> None:
    run = finished(method=method, tune=tune, reward=reward)
    config = config_of(run)
    texts, updates = frame(run, "completions"), frame(run, "updates")
    train = texts[texts["split"] == "train"]
    place = ["clock", "update", "iteration", "role"]
    learnt = updates[updates["role"] == "policy"][place].drop_duplicates().to_numpy().tolist()
    assert train[place].drop_duplicates().to_numpy().tolist() == learnt
    assert set(train.groupby("clock").size()) == {config.batch // 2 if method == "dpo" else config.batch}
    scores = train["gold"] if reward == "gold" else train["reward"]
    np.testing.assert_array_equal(train["reward"], scores)
    assert train["proxy"].isna().all()
    assert texts["tokens"].between(1, config.max_new_tokens).all()


@every_run
def test_held_out_scores_of_every_iteration(finished: Finished, method: str, tune: str, reward: str) -> None:
    run = finished(method=method, tune=tune, reward=reward)
    metrics, texts = frame(run, "metrics"), frame(run, "completions")
    held, texts = metrics[metrics["split"] == "heldout"], texts[texts["split"] == "heldout"]
    assert held["role"].unique().tolist() == ["policy"]
    table = held.pivot(index="iteration", columns="name", values="value")
    assert table.index.tolist() == [0, 1, 2]
    names = {"gold", "gold_se", "kl", "kl_se", "entropy", "length", "finished", "distinct_words", "same_text", "alarm"}
    names |= {"pair_margin", "pair_margin_se", "pair_accuracy"}
    if reward == "model":
        names |= {"proxy", "proxy_se", "gold_proxy_gap", "reward_model_accuracy"}
    assert set(table) == names
    assert np.isfinite(table.to_numpy(dtype=float)).all()
    assert table.loc[0, "kl"] == pytest.approx(0, abs=1e-4)  # from the sampler, so up to rounding
    assert abs(table.loc[2, "kl"]) > 1e-3
    means = texts.groupby("iteration")
    np.testing.assert_allclose(table["gold"], means["gold"].mean(), rtol=1e-6)
    np.testing.assert_allclose(table["length"], means["tokens"].mean(), rtol=1e-6)
    if reward == "model":
        np.testing.assert_allclose(table["proxy"], means["proxy"].mean(), rtol=1e-4, atol=1e-6)
        assert table.loc[0, "gold_proxy_gap"] == 0
        gain = {name: (table.loc[2, name] - table.loc[0, name]) / texts[texts["iteration"] == 0][name].std() for name in ("proxy", "gold")}
        assert table.loc[2, "gold_proxy_gap"] == pytest.approx(gain["proxy"] - gain["gold"], rel=1e-3, abs=1e-4)


@every_run
def test_prompts_keep_their_ids_and_held_out_ones_never_train(finished: Finished, prompts: Path, method: str, tune: str, reward: str) -> None:
    run = finished(method=method, tune=tune, reward=reward)
    known, texts = ids_in(prompts), frame(run, "completions")
    assert [known[key] for key in texts["prompt_id"]] == texts["prompt"].tolist()
    held = texts[texts["split"] == "heldout"]
    asked = [part["prompt_id"].tolist() for _, part in held.groupby("iteration")]
    assert asked[0] == asked[1] == asked[2]
    assert len(set(asked[0])) == 6
    trained = set(texts[texts["split"] == "train"]["prompt_id"])
    assert trained
    assert not trained & set(asked[0])
    for iteration in (0, 1, 2) if reward == "model" or method == "dpo" else ():
        pairs = made_pairs(run, iteration)
        assert pairs
        assert all(known[pair["prompt_id"]] == pair["text"] == pair["messages"][-1]["content"] for pair in pairs)
        assert not {pair["prompt_id"] for pair in pairs} & set(asked[0])


@every_run
def test_run_json_tells_everything(finished: Finished, model: Path, prompts: Path, method: str, tune: str, reward: str) -> None:
    import hashlib

    run = finished(method=method, tune=tune, reward=reward)
    info = RunStore.open(run).info
    config = training.small(model, prompts, run, method=method, tune=tune, reward=reward)
    assert info.command[:2] == ["interplay", "train"]
    assert RunConfig.from_argv(info.command[2:]) == RunConfig.from_mapping(info.config) == config
    assert {"interplay", "python", "torch", "transformers", "trl", "peft", "accelerate", "pyarrow", "numpy"} <= set(info.versions)
    assert info.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert info.model["sha256"] == {"model.safetensors": hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()}
    assert info.data["sha256"] == hashlib.sha256(prompts.read_bytes()).hexdigest()
    assert (info.data["rows"], info.data["training_prompts"], info.data["heldout_prompts"], info.data["prompts_too_long"]) == (24, 18, 6, 0)
    roles = {"policy"} | ({"reward"} if reward == "model" else set()) | ({"value"} if method == "ppo" else set())
    assert set(info.model["trained_parameters"]) == set(info.recorder["roles"]) == roles
    for role in roles:
        saved = weights(run, 2, "reward_merged" if role == "reward" else role)
        if tune == "lora" or role != "policy":
            assert sum(tensor.numel() for tensor in saved.values()) == info.model["trained_parameters"][role]
    assert info.machine["device"] == "cpu"
    assert info.recorder["stopped"] is None
    assert (info.sketch.k, info.sketch.seed) == (16, 2)


@with_reward_model
def test_merged_and_unmerged_reward_models_are_kept(finished: Finished, method: str, tune: str, reward: str) -> None:
    """merged = share * un-merged of the iteration before + (1 - share) * un-merged, tensor by tensor."""
    run = finished(method=method, tune=tune, reward=reward)
    first = weights(run, 0, "reward")
    for name, tensor in weights(run, 0, "reward_merged").items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=0)  # nothing to be merged with yet
    share = config_of(run).keep_close
    for iteration in (1, 2):
        before, after, merged = weights(run, iteration - 1, "reward"), weights(run, iteration, "reward"), weights(run, iteration, "reward_merged")
        assert set(before) == set(after) == set(merged)
        assert any(not torch.equal(before[name], after[name]) for name in after)
        for name, tensor in merged.items():
            expected = share * before[name].double() + (1 - share) * after[name].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-8)
        assert any(not torch.equal(merged[name], after[name]) for name in after)


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


def test_only_the_last_checkpoint_is_kept(finished: Finished) -> None:
    kept, all_of = finished(keep_checkpoints="last"), finished(method="rloo", tune="lora", reward="model")
    assert [p.name for p in (kept / "checkpoints").iterdir()] == ["iteration-2"]
    assert sorted(p.name for p in (all_of / "checkpoints").iterdir()) == ["iteration-0", "iteration-1", "iteration-2"]
    for role in ("policy", "reward", "reward_merged"):
        ours, theirs = weights(kept, 2, role), weights(all_of, 2, role)
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


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


def test_dpo_learns_from_the_pairs_of_the_iteration_before(finished: Finished) -> None:
    run = finished(method="dpo", tune="lora", reward="model")
    texts = frame(run, "completions").query("split == 'train'")
    for iteration in (1, 2):
        pairs = {pair["prompt_id"] for pair in made_pairs(run, iteration - 1)}
        asked = set(texts[texts["iteration"] == iteration]["prompt_id"])
        assert asked
        assert asked <= pairs


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


def test_the_critic_of_a_run_has_moved(finished: Finished) -> None:
    run = finished(method="ppo", tune="lora", reward="model")
    first, last = weights(run, 0, "value"), weights(run, 2, "value")
    assert all(not torch.equal(first[name], tensor) for name, tensor in last.items())
    assert len(series(run, "value", "loss")) == 4


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


# --- determinism and seeds -------------------------------------------------------------------------


def same(a: Path, b: Path, stream: str) -> None:
    ours, theirs = (frame(run, stream, *(("seconds",) if stream == "metrics" else ())) for run in (a, b))
    if stream == "metrics":
        ours, theirs = (table[~table["name"].isin(["seconds", "peak_memory"])].reset_index(drop=True) for table in (ours, theirs))
    assert len(ours)
    assert ours.columns.tolist() == theirs.columns.tolist()
    for name in ours:
        assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist(), name


@pytest.mark.parametrize(("method", "tune"), [("ppo", "lora"), ("rloo", "full"), ("dpo", "lora"), ("online_dpo", "lora")])
def test_the_same_command_gives_the_same_records(finished: Finished, tmp_path: Path, method: str, tune: str) -> None:
    """Whatever the global generators hold when it starts."""
    first = finished(method=method, tune=tune, reward="model")
    torch.manual_seed(123)
    np.random.seed(123)
    second = loop.train(replace(config_of(first), out=str(tmp_path / "again")))
    for stream in ("metrics", "updates", "directions", "completions"):
        same(first, second, stream)
    for role in ("policy", "reward", "reward_merged"):
        assert all(torch.equal(weights(second, 2, role)[name], tensor) for name, tensor in weights(first, 2, role).items())


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


def test_errors_close_the_run_as_failed_with_one_line(model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(evaluation.Evaluator, "score", fail)
    with pytest.raises(RuntimeError):
        loop.train(training.small(model, prompts, tmp_path / "run"))
    status = RunStore.open(tmp_path / "run").status()
    assert (status.state, status.error) == ("failed", "first line")
    assert len(frame(tmp_path / "run", "updates")["clock"].unique()) == 2, "what was recorded before is kept"


def test_what_cannot_be_set_up_leaves_no_folder(model: Path, prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max-prompt-tokens"):
        loop.train(training.small(model, prompts, tmp_path / "run", max_prompt_tokens=8))
    assert not (tmp_path / "run").exists()


def test_a_single_held_out_prompt_is_too_few(model: Path, tmp_path: Path) -> None:
    """A spread needs two; the prompt that is too long is found only once it is tokenised."""
    file = tmp_path / "prompts.jsonl"

    def held_out_and_long(first: int) -> int:
        rows = [{"prompt": f"Tell me about {topic}." + " please" * (20 * (number < first))} for number, topic in enumerate(training.TOPICS)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = data.load(training.small(model, file, tmp_path, heldout=2), tasks.find("chat"))
        return sum("please" in prompt.text for prompt in found.heldout)

    assert any(held_out_and_long(first) == 1 for first in range(len(training.TOPICS))), "the last file written has one"
    with pytest.raises(DataError, match="only 1 of 2 held-out prompts is that short"):
        loop.train(training.small(model, file, tmp_path / "run", heldout=2, heldout_pairs=0))


def test_two_runs_in_one_process_do_not_share_signal_handlers() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with interrupts.raising():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_data_on_both_sides_of_the_split_are_as_the_reader_says(model: Path, prompts: Path, tmp_path: Path, finished: Finished) -> None:
    run = finished(method="rloo", tune="lora", reward="model")
    found = data.load(training.small(model, prompts, tmp_path), tasks.find("chat"))
    held = frame(run, "completions").query("split == 'heldout' and iteration == 0")["prompt_id"].tolist()
    assert held == [prompt.id for prompt in found.heldout]
