"""Checkpoints: bit for bit what was saved, complete or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from interplay import checkpoints, models, reward_model
from interplay.config import RunConfig
from interplay.errors import StoreError
from interplay.models import Models
from interplay.tasks import Pair, Prompt

CONFIG = RunConfig(max_prompt_tokens=64, max_pair_tokens=12, dtype="float32", device="cpu", lora_rank=2)
PAIRS = [
    Pair(Prompt("1", "Grüße\n", ({"role": "user", "content": "Grüße"},), "ref"), "ja\r\n", "nein", 0.25, (True, False)),
    Pair(Prompt("2", "b", ({"role": "system", "content": "s"}, {"role": "user", "content": "b"})), "", '"x"'),
]
STATE = {"recorder": {"clock": 4}, "tokens": 7, "seconds": 1.5}


def load(folder: Path, tune: str) -> Models:
    return models.load(CONFIG.with_(model=str(folder), tune=tune), critic=True, reward=True)


def optimizers(loaded: Models) -> dict[str, torch.optim.Optimizer]:
    found = {"policy": loaded.policy, "value": loaded.critic}
    return {name: torch.optim.AdamW([p for _, p in reward_model.trainable(model)], lr=0.01) for name, model in found.items()}


def train(loaded: Models, moving: dict[str, torch.optim.Optimizer], seed: int) -> None:
    """Two steps on random gradients, so that weights and optimiser states are nobody's defaults."""
    g = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for optimizer in moving.values():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.randn(p.shape, generator=g)
            optimizer.step()
    with torch.no_grad():
        for _, p in reward_model.trainable(loaded.reward):
            p.add_(torch.randn(p.shape, generator=g))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("checkpoints") / "m")


def save(root: Path, loaded: Models, moving: Any, number: int = 1, unmerged: Any = None) -> Path:
    return checkpoints.save(root, number, loaded, reward_unmerged=unmerged, optimizers=moving, pairs=PAIRS, state=STATE)


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two complete iterations; copied by the tests that damage them."""
    loaded = load(folder, "lora")
    root = tmp_path_factory.mktemp("saved")
    for number in (1, 2):
        save(root, loaded, optimizers(loaded), number)
    return root


# --- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_everything_comes_back_bit_for_bit(folder: Path, tmp_path: Path, tune: str) -> None:
    loaded = load(folder, tune)
    moving = optimizers(loaded)
    train(loaded, moving, 1)
    unmerged = {name: value + 1 for name, value in reward_model.weights(loaded.reward).items()}
    expected = {role: reward_model.weights(model) for role, model in loaded.trained()}
    states = {name: {i: dict(s) for i, s in o.state_dict()["state"].items()} for name, o in moving.items()}
    save(tmp_path, loaded, moving, 3, unmerged)
    for role, model in loaded.trained():  # saving changes nothing
        assert all(torch.equal(p, expected[role][name]) for name, p in reward_model.trainable(model))

    other = load(folder, tune)
    fresh = optimizers(other)
    train(other, fresh, 2)
    found = checkpoints.last(tmp_path)
    assert found is not None
    assert (found.iteration, found.pairs, found.state) == (3, tuple(PAIRS), STATE)
    back = checkpoints.restore(found, other)
    assert back is not None
    assert back.keys() == unmerged.keys()
    assert all(torch.equal(back[name], value) for name, value in unmerged.items())
    for role, model in other.trained():
        assert all(torch.equal(p, expected[role][name]) for name, p in reward_model.trainable(model))
    for name, optimizer in fresh.items():
        checkpoints.restore_optimizer(optimizer, found.folder / f"optimizer-{name}.safetensors")
        now = optimizer.state_dict()["state"]
        assert now.keys() == states[name].keys()
        for i, entries in states[name].items():
            assert entries.keys() == now[i].keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(torch.equal(now[i][key], value) and now[i][key].dtype == value.dtype for key, value in entries.items())
    train(loaded, moving, 9)
    train(other, fresh, 9)  # and both go on alike
    for (_, a), (_, b) in zip(loaded.trained(), other.trained(), strict=True):
        assert all(torch.equal(p, q) for (_, p), (_, q) in zip(reward_model.trainable(a), reward_model.trainable(b), strict=True))


def test_a_line_separator_in_an_answer_does_not_break_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    pair = Pair(PAIRS[0].prompt, "one\u2028two\x85three\x0bfour", "no")
    loaded = load(folder, "lora")
    checkpoints.save(tmp_path, 1, loaded, reward_unmerged=None, optimizers={}, pairs=[pair], state=STATE)
    assert checkpoints.last(tmp_path).pairs == (pair,)  # type: ignore[union-attr]


def test_the_rate_of_the_run_is_kept_when_the_state_is_restored(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder, "lora")
    moving = optimizers(loaded)
    train(loaded, moving, 1)
    at = save(tmp_path, loaded, moving)
    other = torch.optim.AdamW([p for _, p in reward_model.trainable(loaded.policy)], lr=0.5)
    checkpoints.restore_optimizer(other, at / "optimizer-policy.safetensors")
    assert other.param_groups[0]["lr"] == 0.5


def test_an_adapter_is_an_ordinary_peft_folder_without_a_path_of_this_machine(folder: Path, saved: Path) -> None:
    from peft import PeftModel

    at = saved / "iteration-1"
    settings = json.loads((at / "policy" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(folder)  # as typed
    assert not list(at.rglob("*.bin")) + list(at.rglob("*.pt")) + list(at.rglob("README.md"))
    PeftModel.from_pretrained(tiny.llama(), at / "policy")
    assert models.locate(str(at / "policy")).adapter == str(at / "policy")


def test_without_unmerged_weights_both_folders_hold_the_same(saved: Path) -> None:
    files = [saved / "iteration-1" / name / "adapter_model.safetensors" for name in ("reward", "reward_merged")]
    assert files[0].read_bytes() == files[1].read_bytes()


# --- complete or absent ----------------------------------------------------------------------------

FILES = [
    "COMPLETE",
    "pairs.jsonl",
    "state.json",
    "optimizer-policy.safetensors",
    "optimizer-value.safetensors",
    *(f"{role}/{file}" for role in ("policy", "value", "reward", "reward_merged") for file in ("adapter_config.json", "adapter_model.safetensors")),
]


def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_the_list_below_is_all_that_is_saved(saved: Path) -> None:
    at = saved / "iteration-2"
    assert sorted(str(p.relative_to(at)) for p in at.rglob("*") if p.is_file()) == sorted(FILES)


@pytest.mark.filterwarnings("ignore:the checkpoint")
@pytest.mark.parametrize("damage", ["delete", "truncate"])
@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_a_damaged_file_is_skipped(saved: Path, tmp_path: Path, name: str, damage: str) -> None:
    root = copy(saved, tmp_path)
    assert checkpoints.last(root).iteration == 2  # type: ignore[union-attr]
    file = root / "iteration-2" / name
    size = file.stat().st_size
    if damage == "delete":
        file.unlink()
    elif size:
        with file.open("r+b") as handle:
            handle.truncate(size // 2)
    else:
        pytest.skip("an empty file cannot be cut")
    assert not checkpoints.complete(root / "iteration-2")
    assert checkpoints.last(root).iteration == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", '{"pairs.jsonl": "many"}'])
def test_a_mark_that_is_no_list_of_sizes_is_no_mark(saved: Path, tmp_path: Path, text: str) -> None:
    root = copy(saved, tmp_path)
    (root / "iteration-2" / "COMPLETE").write_text(text)
    assert not checkpoints.complete(root / "iteration-2")


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "iteration-x").mkdir()
    (tmp_path / ".iteration-4.tmp").mkdir()
    assert checkpoints.last(tmp_path) is None
    assert checkpoints.last(tmp_path / "none") is None


def test_iterations_are_ordered_by_number_not_by_name(saved: Path, tmp_path: Path) -> None:
    root = copy(saved, tmp_path)
    (root / "iteration-2").rename(root / "iteration-10")
    assert checkpoints.last(root).iteration == 10  # type: ignore[union-attr]


def test_a_failed_save_leaves_the_last_checkpoint_and_nothing_half_written(folder: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy(saved, tmp_path)
    loaded = load(folder, "lora")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_seal", full)
    with pytest.raises(StoreError, match="the checkpoint iteration-3 cannot be written: No space left on device; free space"):
        save(root, loaded, optimizers(loaded), 3)
    assert sorted(p.name for p in root.iterdir()) == ["iteration-1", "iteration-2"]


def test_the_remains_of_a_killed_save_do_not_stand_in_the_way(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".iteration-1.tmp").mkdir()
    (tmp_path / ".iteration-1.tmp" / "junk").write_text("half")
    loaded = load(folder, "lora")
    at = save(tmp_path, loaded, optimizers(loaded))
    assert not (at / "junk").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["iteration-1"]


def test_prune_keeps_what_it_is_told(saved: Path, tmp_path: Path) -> None:
    root = copy(saved, tmp_path)
    checkpoints.prune(root, [2])
    assert [p.name for p in root.iterdir()] == ["iteration-2"]
