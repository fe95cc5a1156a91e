"""Whole runs of the tiny model: every method, every way of tuning, with and without a reward model, the same command twice, and runs that cannot go on.

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

from interplay import data, evaluation, interrupts, loop, tasks
from interplay.config import RunConfig
from interplay.errors import DataError
from interplay.store import Runs, RunStore
from tests import training
from tests.training import Finished, frame, made_pairs, series, weights

METHODS = ("ppo", "rloo", "online_dpo", "dpo")
MADE = [(method, tune, reward) for method in METHODS for tune in ("lora", "full") for reward in ("model", "gold")]
every_run = pytest.mark.parametrize(("method", "tune", "reward"), MADE, ids=["-".join(key) for key in MADE])
with_reward_model = pytest.mark.parametrize(("method", "tune", "reward"), [key for key in MADE if key[2] == "model"], ids=lambda word: word)


def config_of(run: Path) -> RunConfig:
    return RunConfig.from_mapping(RunStore.open(run).info.config)


def ids_in(file: Path) -> dict[str, str]:
    """Prompt by id, as the data set was read; the ids are those of no run."""
    found = data.load(RunConfig(data=str(file), heldout=2), tasks.find("chat"))
    known = {prompt.id: prompt.text for prompt in (*found.prompts, *found.heldout)}
    assert sorted(known.values()) == sorted(json.loads(line)["prompt"] for line in file.read_text().splitlines())
    return known


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


# --- what only some of them have -------------------------------------------------------------------


def test_only_the_last_checkpoint_is_kept(finished: Finished) -> None:
    kept, all_of = finished(keep_checkpoints="last"), finished(method="rloo", tune="lora", reward="model")
    assert [p.name for p in (kept / "checkpoints").iterdir()] == ["iteration-2"]
    assert sorted(p.name for p in (all_of / "checkpoints").iterdir()) == ["iteration-0", "iteration-1", "iteration-2"]
    for role in ("policy", "reward", "reward_merged"):
        ours, theirs = weights(kept, 2, role), weights(all_of, 2, role)
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_dpo_learns_from_the_pairs_of_the_iteration_before(finished: Finished) -> None:
    run = finished(method="dpo", tune="lora", reward="model")
    texts = frame(run, "completions").query("split == 'train'")
    for iteration in (1, 2):
        pairs = {pair["prompt_id"] for pair in made_pairs(run, iteration - 1)}
        asked = set(texts[texts["iteration"] == iteration]["prompt_id"])
        assert asked
        assert asked <= pairs


def test_the_critic_of_a_run_has_moved(finished: Finished) -> None:
    run = finished(method="ppo", tune="lora", reward="model")
    first, last = weights(run, 0, "value"), weights(run, 2, "value")
    assert all(not torch.equal(first[name], tensor) for name, tensor in last.items())
    assert len(series(run, "value", "loss")) == 4


def test_data_on_both_sides_of_the_split_are_as_the_reader_says(model: Path, prompts: Path, tmp_path: Path, finished: Finished) -> None:
    run = finished(method="rloo", tune="lora", reward="model")
    found = data.load(training.small(model, prompts, tmp_path), tasks.find("chat"))
    held = frame(run, "completions").query("split == 'heldout' and iteration == 0")["prompt_id"].tolist()
    assert held == [prompt.id for prompt in found.heldout]


# --- the same command twice ------------------------------------------------------------------------


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


# --- runs that cannot go on ------------------------------------------------------------------------


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
