"""`--from`: a run that begins where another ended has its weights, updates, moments, judges and prompts, or is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from interplay import checkpoints, data, evaluation, loop, reward_model, rollouts, tasks
from interplay.config import RunConfig
from interplay.errors import ConfigError
from interplay.store import RunStore
from tests import test_resume, tiny, training
from tests.training import Finished, frame, series, weights

Make = Callable[..., Path]
ROLES = ("policy", "reward", "reward_merged")


@pytest.fixture(scope="module")
def make(finished: Finished) -> Make:
    """A finished run of these settings, with PPO unless they name a method."""
    return lambda **given: finished(**{"method": "ppo", **{name: str(value) if isinstance(value, Path) else value for name, value in given.items()}})


@pytest.fixture(scope="module")
def source(make: Make) -> Path:
    """Two iterations of PPO, which has all roles."""
    return make()


@pytest.fixture(scope="module")
def zopro(make: Make, source: Path) -> Path:
    """Two iterations of PPO's objective under ZOPrO from there."""
    return make(method="ppo+zopro", start_from=source, learning_rate=None)


def folder(run: Path, iteration: int) -> Path:
    return run / "checkpoints" / f"iteration-{iteration}"


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return bool(ours) and set(ours) == set(theirs) and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def bare(name: str) -> str:
    """A tensor's name without what wraps it: `layers.0.self_attn.q_proj.lora_A`."""
    return re.sub(r"\.default|\.weight$", "", name[name.index("layers.") :]) if "layers." in name else name


def moved(run: Path, role: str, iteration: int) -> dict[str, Tensor]:
    """What an iteration did to a role, from the weights on disk before and after it."""
    before, after = weights(run, iteration - 1, role), weights(run, iteration, role)
    return {bare(name): after[name] - before[name] for name in after}


def heldout(run: Path, iteration: int, *columns: str) -> list[list[Any]]:
    rows = frame(run, "completions").query(f"split == 'heldout' and iteration == {iteration}")
    return [rows[name].tolist() for name in columns]


# --- what is taken over ----------------------------------------------------------------------------


def test_it_begins_with_the_weights_that_the_other_run_ended_with(source: Path, zopro: Path) -> None:
    for role in (*ROLES, "value"):
        assert same(weights(zopro, 0, role), weights(source, 2, role)), role
    assert not same(weights(zopro, 0, "policy"), weights(source, 1, "policy"))
    assert RunStore.open(zopro).status().state == "finished"
    assert training.series(zopro, "policy", "forwards")["value"].tolist() == [2, 4, 6, 8], "no iteration of first order: there is a previous update"


def test_its_guides_are_what_the_last_iteration_did(source: Path, zopro: Path) -> None:
    for run, iteration in ((source, 2), (zopro, 2)):
        guides = checkpoints.read_guides(folder(run, iteration))
        assert guides is not None
        for found, role in ((guides.previous, "policy"), (guides.reward, "reward")):
            expected = moved(run, role, iteration)
            assert any(tensor.any() for tensor in found.values())
            assert {bare(name) for name in found} == {name for name in expected if "layers." in name or role == "policy"}
            assert all(torch.equal(tensor, expected[bare(name)]) for name, tensor in found.items()), role
    written, taken = (load_file(folder(*place) / "last-updates.safetensors") for place in ((source, 2), (zopro, 0)))
    assert same(written, taken)


def test_guides_that_were_not_written_are_the_difference_of_the_last_two_iterations(make: Make) -> None:
    """All weights under first order: twice their size is not written down for nobody."""
    full = make(method="rloo", tune="full")
    assert checkpoints.read_guides(folder(full, 2)) is None
    started = make(method="zopro", tune="full", start_from=full, iterations=1, learning_rate=None)
    guides = checkpoints.read_guides(folder(started, 0))
    assert guides is not None
    for found, role in ((guides.previous, "policy"), (guides.reward, "reward")):
        expected = weights(full, 2, role), weights(full, 1, role)
        assert len(found) > 10
        assert all(torch.equal(tensor, expected[0][name] - expected[1][name]) for name, tensor in found.items())


def test_the_frozen_reward_model_is_the_first_of_the_first_run(source: Path, zopro: Path, make: Make) -> None:
    """Of the same texts it gives the same scores, also in a run that starts from a run that started from another."""
    third = make(method="rloo", start_from=zopro, iterations=1)
    for run, before in ((zopro, source), (third, zopro)):
        ours, theirs = heldout(run, 0, "completion", "proxy", "gold"), heldout(before, 2, "completion", "proxy", "gold")
        assert ours == theirs
        assert len(set(ours[1])) > 1
        assert same(weights(run, 0, "reward_frozen"), weights(source, 0, "reward"))
        assert not same(weights(run, 0, "reward_frozen"), weights(run, 0, "reward"))


def test_prompts_go_on_where_the_other_run_stopped(source: Path, make: Make, zopro: Path) -> None:
    """As in one run of three iterations: the rollouts of the third, and the prompts of its pairs."""
    long = make(iterations=3)
    sampled = [frame(run, "completions").query(f"split == 'train' and iteration == {i}")["prompt"].tolist() for run, i in ((long, 3), (zopro, 1))]
    assert sampled[1] == sampled[0] != frame(source, "completions").query("split == 'train' and iteration == 1")["prompt"].tolist()


def test_pairs_go_on_where_the_other_run_stopped(make: Make, zopro: Path) -> None:
    """Ties are dropped, so the pairs that both runs kept are compared: all of them stand in one round of prompts."""
    long = make(iterations=3)
    assert [set(asked(long, number)) <= set(drawn(long, number)) for number in range(4)] == [True] * 4
    assert asked(zopro, 0) == asked(long, 2)
    assert asked(zopro, 1)
    assert set(asked(zopro, 1)) <= set(drawn(long, 3))
    assert set(asked(zopro, 2)) <= set(drawn(long, 4))


def asked(run: Path, iteration: int) -> list[str]:
    return [json.loads(line)["prompt_id"] for line in (folder(run, iteration) / "pairs.jsonl").read_text().splitlines()]


def drawn(run: Path, number: int) -> list[str]:
    """The prompts of the n-th round of pairs, drawn anew from the endless permutations of the run's own prompts."""
    config = RunConfig.from_mapping(RunStore.open(run).info.config)
    found = data.load(config, tasks.find(config.task)).prompts
    kept, _ = rollouts.fitting(tiny.tokenizer(), found, config)
    ids: list[str] = []
    for epoch in range(4):
        key = [config.stream_seed("data"), *b"order", epoch]
        order = np.random.default_rng(int(np.random.SeedSequence(key).generate_state(1)[0])).permutation(len(kept))
        ids += [kept[i].id for i in order]
    return ids[number * config.pairs : (number + 1) * config.pairs]


def test_moments_of_first_order_are_restored(source: Path, zopro: Path, make: Make) -> None:
    again = make(start_from=source, iterations=1)
    for run in (again, zopro):
        for name in ("policy", "value"):
            ours, theirs = (load_file(folder(*place) / f"optimizer-{name}.safetensors") for place in ((run, 0), (source, 2)))
            assert same(ours, theirs), name
            assert ours["0.exp_avg"].any()
    assert load_file(folder(again, 1) / "optimizer-policy.safetensors")["0.step"] == 6
    assert load_file(folder(zopro, 2) / "optimizer-policy-zeroth.safetensors")["0.step"] == 4
    third = make(method="ppo+zopro", start_from=zopro, iterations=1, learning_rate=None)
    assert load_file(folder(third, 1) / "optimizer-policy-zeroth.safetensors")["0.step"] == 2, "a new run counts its own"


def test_the_schedule_of_the_learning_rate_begins_anew(source: Path, make: Make) -> None:
    started = make(start_from=source, schedule="linear", learning_rate=3e-3)
    for role in ("policy", "value"):
        rates = series(started, role, "lr")["value"]
        assert (rates > 0).all(), "a negative rate climbs the loss"
        np.testing.assert_allclose(rates / rates[0], [1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("method", ["rloo", "mezo", "forward_gradient"])
def test_arms_from_one_start_have_the_same_scores_before_training(source: Path, zopro: Path, make: Make, method: str) -> None:
    arm = make(start_from=source, method=method, iterations=1, learning_rate=None)
    assert heldout(arm, 0, "completion", "gold", "proxy", "kl") == heldout(zopro, 0, "completion", "gold", "proxy", "kl")
    tables = [frame(run, "metrics", "seconds").query("split == 'heldout' and iteration == 0")[["name", "value"]] for run in (arm, zopro)]
    assert tables[0].map(repr).to_numpy().tolist() == tables[1].map(repr).to_numpy().tolist()
    assert len(tables[0]) > 10


def test_a_named_iteration_is_the_start(make: Make, source: Path) -> None:
    """`RUN@1` begins where iteration 1 ended, not where the run did."""
    started, last = (make(start_from=f"{source}@{iteration}", iterations=1) for iteration in (1, 2))
    read = lambda run, iteration, role: load_file(folder(run, iteration) / role / "adapter_model.safetensors")  # noqa: E731
    for role in ("policy", "reward_merged"):
        assert same(read(started, 0, role), read(source, 1, role))
        assert not same(read(started, 0, role), read(source, 2, role))
        assert same(read(last, 0, role), read(source, 2, role))


@pytest.mark.parametrize(("number", "reason"), [(7, "keeps complete checkpoints of the iterations 0, 1, 2; name one"), (0, "no updates in iteration 0")])
def test_an_iteration_that_is_no_start_is_refused(source: Path, model: Path, prompts: Path, tmp_path: Path, number: int, reason: str) -> None:
    assert reason in refused(model, prompts, tmp_path / "run", Path(f"{source}@{number}"))


# --- stopped and resumed ---------------------------------------------------------------------------

MOMENTS = {
    "second iteration": (test_resume.At(evaluation.Evaluator, "score", 3), 2),
    "first iteration": (test_resume.At(reward_model, "refine", 1, after=True), 1),
    "iteration 0": (test_resume.At(checkpoints, "save", 1), None),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_started_run_that_was_stopped_repeats_the_one_that_was_not(
    source: Path, zopro: Path, model: Path, prompts: Path, tmp_path: Path, moment: str
) -> None:
    stop, first = MOMENTS[moment]
    settings: dict[str, Any] = {"method": "ppo+zopro", "start_from": str(source), "learning_rate": None}
    run = test_resume.stopped(stop, model, prompts, tmp_path / "run", **settings)
    loop.resume(run)
    for iteration in (0, 1, 2):
        test_resume.assert_same_weights(run, zopro, iteration)
    test_resume.assert_equal_runs(run, zopro, first=first)


# --- what is refused -------------------------------------------------------------------------------


def refused(model: Path, prompts: Path, out: Path, start: Path, **settings: Any) -> str:
    """The one line that refuses a start; no folder is left."""
    with pytest.raises(ConfigError) as error:
        loop.train(training.small(model, prompts, out, method="rloo", start_from=str(start), **settings))
    message = str(error.value)
    assert message.startswith("--from is ")
    assert str(start) in message
    assert "\n" not in message
    assert not out.exists(), "no folder is left behind"
    return message


def test_what_is_no_run_is_refused(model: Path, prompts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "not a run folder (no run.json)" in refused(model, prompts, tmp_path / "run", tmp_path / "empty")
    assert "did you mean 'empty'?" in refused(model, prompts, tmp_path / "run", tmp_path / "emptu")
    assert "not a run folder" in refused(model, prompts, tmp_path / "run", tmp_path / "far" / "away")


def test_a_run_without_an_iteration_of_updates_is_refused(source: Path, model: Path, prompts: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    for iteration in (1, 2):
        shutil.rmtree(folder(copy, iteration))
    assert "only that of iteration 0; a start needs two" in refused(model, prompts, tmp_path / "run", copy)
    shutil.rmtree(folder(copy, 0))
    assert "no checkpoint" in refused(model, prompts, tmp_path / "run", copy)


def test_a_policy_of_another_shape_is_refused(source: Path, model: Path, prompts: Path, tmp_path: Path) -> None:
    message = refused(model, prompts, tmp_path / "run", source, lora_rank=3)
    assert "of shape [2, 32], and this run [3, 32]; use its --model and --lora-rank" in message
    assert "unlike this run; use its --model, --tune, --layers and --lora-targets" in refused(model, prompts, tmp_path / "run", source, tune="full")


def test_a_policy_with_adapters_that_this_run_has_not_is_refused(source: Path, model: Path, prompts: Path, tmp_path: Path) -> None:
    assert "unlike this run; use its --model, --tune, --layers and --lora-targets" in refused(model, prompts, tmp_path / "run", source, lora_targets="q_proj")


def test_a_run_without_a_reward_model_is_refused_where_one_is_needed(make: Make, model: Path, prompts: Path, tmp_path: Path) -> None:
    gold = make(method="rloo", reward="gold", iterations=1)
    assert "no reward model; add --reward gold, or start from a run with one" in refused(model, prompts, tmp_path / "run", gold)


def test_adapters_of_another_scale_are_refused(source: Path, model: Path, prompts: Path, tmp_path: Path) -> None:
    """The same numbers would mean other weights."""
    assert "whose --lora-alpha is 32, and this run's 16; use the same" in refused(model, prompts, tmp_path / "run", source, lora_alpha=16.0)


def test_a_run_that_kept_only_its_last_iteration_is_a_start_too(make: Make, model: Path, prompts: Path, tmp_path: Path) -> None:
    """Frozen reward model 0 was copied beside it; without that copy it is refused."""
    last = make(method="rloo", iterations=1, keep_checkpoints="last")
    assert [p.name for p in (last / "checkpoints").iterdir()] == ["iteration-1"]
    run = loop.train(training.small(model, prompts, tmp_path / "run", method="rloo", start_from=str(last), iterations=1))
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (folder(run, 0) / "reward_frozen", folder(last, 1) / "reward_frozen"))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    copy = shutil.copytree(last, tmp_path / "copy")
    shutil.rmtree(folder(copy, 1) / "reward_frozen")
    assert "keeps no reward model 0; record it with --keep-checkpoints all" in refused(model, prompts, tmp_path / "other", copy)
