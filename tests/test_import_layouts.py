"""Which folders an import takes for which updates of which role, where the trainer's own log lands, and what the command says."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.commands import importing
from interplay import importers
from interplay.checkpoint_folders import find
from interplay.errors import ConfigError, ModelError, StoreError
from interplay.records import SketchSpec
from interplay.store import RunStore
from tests.foreign import SHAPES, dense, imported, lines, plain_walk, updates, walk, write_adapter, write_plain, write_steps

# --- the start ---------------------------------------------------------------------------------------


def test_base_is_where_the_policy_starts(tmp_path: Path) -> None:
    path = walk(4)
    write_adapter(tmp_path / "sft", path[0])
    write_steps(tmp_path / "in", path[1:])
    store = imported(tmp_path / "in", tmp_path, base=tmp_path / "sft")
    found = updates(store)
    module = next(iter(SHAPES))
    weights = dense(path, module)
    assert found.loc[(1, module), "update_norm"] == pytest.approx(np.linalg.norm(weights[1] - weights[0]), rel=1e-5)
    assert found.loc[(3, module), "displacement_norm"] == pytest.approx(np.linalg.norm(weights[3] - weights[0]), rel=1e-5)
    assert store.info.data["checkpoints"]["policy"][0] == {"update": 0, "checkpoint": "sft", "step": []}


def test_base_may_hold_more_and_must_not_hold_less(tmp_path: Path) -> None:
    path = plain_walk(3)
    for step, tensors in enumerate(path[1:]):
        write_plain(tmp_path / "in" / f"checkpoint-{step}", tensors)
    write_plain(tmp_path / "base", path[0] | {"lm_head.weight": np.ones((7, 4), np.float32)})
    assert sorted({u for u, _ in updates(imported(tmp_path / "in", tmp_path, base=tmp_path / "base")).index}) == [1, 2]
    less = dict(path[0])
    del less["model.norm.weight"]
    write_plain(tmp_path / "less", less)
    with pytest.raises(ModelError, match=r"less has no model\.norm\.weight, which checkpoint-0 has") as error:
        imported(tmp_path / "in", tmp_path, "other", base=tmp_path / "less")
    lines(error)


def test_one_checkpoint_and_a_base_make_one_update(tmp_path: Path) -> None:
    path = walk(2)
    write_adapter(tmp_path / "in" / "checkpoint-7", path[1])
    write_adapter(tmp_path / "base", path[0])
    assert len(updates(imported(tmp_path / "in", tmp_path, base=tmp_path / "base"))) == len(SHAPES)


# --- layouts -----------------------------------------------------------------------------------------


def _viszopro(root: Path, reward_name: str = "reward_model_iter_{}/reward") -> None:
    policy, reward = walk(4, seed=1), walk(3, seed=2)
    write_adapter(root / "final_sft_model" / "sft", policy[0])
    for k in range(3):
        write_adapter(root / f"policy_model_iter_{k}" / "pl", policy[k + 1])
        write_adapter(root / f"policy_model_iter_{k}" / "sft", policy[0])
        write_adapter(root / reward_name.format(k), reward[k], task_type="SEQ_CLS")
        (root / f"policy_model_iter_{k}" / "training_args.bin").write_bytes(b"not read")


def test_viszopro_names_are_known(tmp_path: Path) -> None:
    _viszopro(tmp_path / "in")
    store = imported(tmp_path / "in", tmp_path)
    config = {key: store.info.config[key] for key in ("method", "folder", "policy", "reward")}
    assert config == {"method": "import", "folder": "in", "policy": "policy_model_iter_{step}/pl", "reward": "reward_model_iter_{step}/reward"}
    order = store.read("updates", columns=["clock", "role", "update"]).to_pandas().drop_duplicates()
    assert order["role"].tolist() == ["policy", "policy", "reward", "policy", "reward"]  # from the SFT model to iteration 0, then 1 and 1, 2 and 2
    assert store.info.data["checkpoints"]["policy"][0]["checkpoint"] == "final_sft_model/sft"
    assert any("policy_model_iter_{step}/sft" in note for note in store.info.notes)


def test_an_sft_model_that_does_not_fit_is_said_and_not_taken(tmp_path: Path) -> None:
    _viszopro(tmp_path / "in")
    write_adapter(tmp_path / "in" / "final_sft_model" / "sft", {name: (A[:2], B[:, :2]) for name, (A, B) in walk(1)[0].items()})
    store = imported(tmp_path / "in", tmp_path)
    assert store.info.data["checkpoints"]["policy"][0]["checkpoint"] == "policy_model_iter_0/pl"
    assert any(note.startswith("not taken as the start") for note in store.info.notes)


def test_finer_checkpoints_inside_the_iterations_are_left_out(tmp_path: Path) -> None:
    _viszopro(tmp_path / "in")
    for k in range(3):
        write_steps(tmp_path / "in" / f"reward_model_iter_{k}", walk(2), "checkpoint-{}/reward")
    found = find(tmp_path / "in", {})
    assert found.series["reward"].pattern == "reward_model_iter_{step}/reward"
    assert "reward_model_iter_{step}/checkpoint-{step}/reward" in found.left_out


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    write_steps(tmp_path, walk(4), steps=[100, 9, 10, 1000])
    assert [c.name for c in find(tmp_path, {}).series["policy"].checkpoints] == ["checkpoint-9", "checkpoint-10", "checkpoint-100", "checkpoint-1000"]


@pytest.mark.parametrize(
    ("folders", "patterns", "expected"),
    [
        (["epoch_1/step_2/policy", "epoch_1/step_10/policy", "epoch_2/step_11/policy"], {"policy": "epoch_*/step_{step}/policy"}, [(2,), (10,), (11,)]),
        (["epoch_1/step_5/policy", "epoch_2/step_5/policy"], {}, [(1,), (2,)]),
        (["epoch_1/step_5/policy", "epoch_1/step_6/policy", "epoch_2/step_5/policy"], {}, [(1, 5), (1, 6), (2, 5)]),
        (["a/checkpoint-1", "a/checkpoint-2", "b/checkpoint-1", "b/checkpoint-3"], {"policy": "b"}, [(1,), (3,)]),
        (["a/checkpoint-1", "a/checkpoint-2", "b/checkpoint-1"], {"policy": "./a/"}, [(1,), (2,)]),
        (["x/iter_0/pl", "x/iter_1/pl", "x/iter_0/sft", "x/iter_1/sft"], {"policy": "x/iter_{step}"}, [(0,), (1,)]),
        (["llama-3/checkpoint-1", "llama-3/checkpoint-2"], {}, [(1,), (2,)]),
        (["3", "20", "100"], {}, [(3,), (20,), (100,)]),
        (["global_step_3", "global_step_20"], {}, [(3,), (20,)]),
        (["checkpoint-1", "checkpoint-2", "."], {}, [(1,), (2,)]),
        (["checkpoint-1", "checkpoint-2", ".cache/checkpoint-1", ".cache/checkpoint-2"], {}, [(1,), (2,)]),
        (["a/checkpoint-1", "a/checkpoint-2", "b/checkpoint-1"], {}, [(1,), (2,)]),
        (["iteration-0/policy", "iteration-1/policy", "iteration-1/reward_frozen"], {}, [(0,), (1,)]),
        (["run(1)[a]/s+1", "run(1)[a]/s+2"], {"policy": "run(1)[a]/s+{step}"}, [(1,), (2,)]),
    ],
)
def test_layouts(tmp_path: Path, folders: list[str], patterns: dict[Any, str], expected: list[tuple[int, ...]]) -> None:
    for folder in folders:
        write_adapter(tmp_path / folder, walk(1)[0])
    assert [c.step for c in find(tmp_path, patterns).series["policy"].checkpoints] == expected


def test_two_folders_for_two_roles(tmp_path: Path) -> None:
    write_steps(tmp_path / "in" / "first", walk(3, seed=1))
    write_steps(tmp_path / "in" / "second", walk(2, seed=2))
    store = imported(tmp_path / "in", tmp_path, patterns={"policy": "first", "reward": "second"})
    assert store.info.config["policy"] == "first/checkpoint-{step}"
    assert len(updates(store, "reward")) == len(SHAPES)


def test_roles_are_told_by_the_configuration_where_names_say_nothing(tmp_path: Path) -> None:
    write_steps(tmp_path / "a", walk(2), task_type="SEQ_CLS")
    for step, tensors in enumerate(plain_walk(2)):
        write_plain(tmp_path / "b" / f"checkpoint-{step}", tensors, architectures=["LlamaForSequenceClassification"])
    assert list(find(tmp_path / "a", {}).series) == ["reward"]
    assert list(find(tmp_path / "b", {}).series) == ["reward"]


def test_a_reward_model_that_stayed_as_it_was_is_left_out(tmp_path: Path) -> None:
    write_steps(tmp_path / "policy", walk(2))
    write_steps(tmp_path / "reward", walk(1))
    found = find(tmp_path, {})
    assert list(found.series) == ["policy"]
    assert found.left_out == ("reward/checkpoint-{step}",)


def test_two_answers_are_no_answer(tmp_path: Path) -> None:
    write_steps(tmp_path / "a", walk(2))
    write_steps(tmp_path / "b", walk(2))
    with pytest.raises(ConfigError) as error:
        find(tmp_path, {})
    assert "--policy 'a/checkpoint-{step}' or --policy 'b/checkpoint-{step}'" in lines(error)
    assert find(tmp_path, {"policy": "a/checkpoint-{step}"}).series["policy"].pattern == "a/checkpoint-{step}"


def test_roles_whose_numbers_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    for place in ("epoch_1/step_1/policy", "epoch_1/step_2/policy", "epoch_2/step_1/policy"):
        write_adapter(tmp_path / "in" / place, walk(1)[0])
    write_steps(tmp_path / "in" / "reward", walk(2))
    with pytest.raises(ConfigError, match="do not have equally many numbers") as error:
        imported(tmp_path / "in", tmp_path)
    lines(error)


# --- metrics -----------------------------------------------------------------------------------------


def _state(folder: Path, step: int, history: list[Any]) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))


HISTORY = [
    {"step": 5, "loss": 3.0, "epoch": 0.1},
    {"step": 10, "loss": 2.0},
    {"step": 11, "loss": 1.5, "note": "text", "flag": True},
    {"step": 20, "loss": float("nan"), "rewards/margins": 0.25},
    {"step": 20, "eval_loss": 1.25},
    {"step": 30, "loss": 1.0},
    {"loss": 9.0},
    "rubbish",
]


def test_what_the_trainer_logged_stands_at_the_update_in_which_it_was_logged(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(3))
    _state(tmp_path / "in" / "checkpoint-10", 10, [{"step": 5, "loss": 77.0}])
    _state(tmp_path / "in" / "checkpoint-30", 30, HISTORY)
    found = imported(tmp_path / "in", tmp_path).read("metrics").to_pandas()
    values = [None if np.isnan(value) else value for value in found["value"]]
    rows = list(zip(found["update"], found["clock"], found["split"], found["name"], values, strict=True))
    assert rows == [
        (0, 0, "train", "loss", 3.0),
        (0, 0, "train", "epoch", 0.1),
        (0, 0, "train", "loss", 2.0),
        (1, 1, "train", "loss", 1.5),
        (1, 1, "train", "loss", None),
        (1, 1, "train", "rewards/margins", 0.25),
        (1, 1, "heldout", "eval_loss", 1.25),
        (2, 2, "train", "loss", 1.0),
    ]
    assert found["seconds"].isna().all()


def test_with_a_base_the_first_checkpoint_ends_update_1(tmp_path: Path) -> None:
    path = walk(3)
    write_adapter(tmp_path / "base", path[0])
    write_steps(tmp_path / "in", path[1:])
    _state(tmp_path / "in" / "checkpoint-20", 20, [{"step": 10, "loss": 2.0}, {"step": 11, "loss": 1.0}, {"step": 25, "loss": 0.5}])
    found = imported(tmp_path / "in", tmp_path, base=tmp_path / "base").read("metrics").to_pandas()
    assert list(found["update"]) == [1, 2, 2]


def test_metrics_of_an_adapter_in_a_folder_of_its_own_lie_one_folder_up(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(2), "checkpoint-{}/pl")
    _state(tmp_path / "in" / "checkpoint-20", 20, [{"step": 15, "loss": 2.0}])
    assert list(imported(tmp_path / "in", tmp_path).read("metrics").to_pandas()["value"]) == [2.0]


@pytest.mark.parametrize("state", ['{"global_step": 99, "log_history": []}', "{", '{"global_step": 20}', "[" * 100_000])
def test_a_log_that_cannot_be_placed_is_left_out_and_said(tmp_path: Path, state: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    (tmp_path / "in" / "checkpoint-20" / "trainer_state.json").write_text(state)
    store = imported(tmp_path / "in", tmp_path)
    assert store.read("metrics").num_rows == 0
    assert any("trainer_state.json" in note for note in store.info.notes)


# --- the command -------------------------------------------------------------------------------------


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    importing.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_imports_and_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = walk(3)
    write_adapter(tmp_path / "sft", path[0])
    write_steps(tmp_path / "in" / "a b", path[1:])
    words = ["in", "--as", "mine", "--runs", "here", "--policy", "a b/checkpoint-{step}", "--base", "sft"]
    arguments = _parsed(words)
    assert arguments.run(arguments) == 0
    said = capsys.readouterr().out
    assert "policy: 2 updates, from sft to a b/checkpoint-20" in said
    assert "recorded in here/mine" in said
    store = RunStore.open(tmp_path / "here" / "mine")
    assert store.info.command == ["interplay", "import", "in", "--as", "mine", "--runs", "here", "--policy", "a b/checkpoint-{step}", "--base", "sft"]
    assert vars(_parsed(store.info.command[2:])) == vars(arguments)
    assert store.info.sketch == SketchSpec()


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden"])
def test_a_name_that_leads_out_of_the_folder_of_runs_is_refused(tmp_path: Path, name: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    arguments = _parsed([str(tmp_path / "in"), "--as", name, "--runs", str(tmp_path / "runs")])
    with pytest.raises(StoreError, match=re.escape(repr(name))):
        arguments.run(arguments)
    assert not (tmp_path / "out").exists()


def test_notes_say_what_an_update_is_here(tmp_path: Path) -> None:
    notes = imported(write_steps(tmp_path / "in", walk(3)), tmp_path).info.notes
    assert notes[0] == importers.NOTE
    assert "not one optimiser step" in notes[0]
    assert notes[1] == "policy: 2 updates, from checkpoint-10 to checkpoint-30"
