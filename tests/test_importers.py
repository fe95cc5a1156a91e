"""Checkpoints of other people become a run: numbers against dense float64 matrices, layouts, refusals.

Folders are written here from factors that the test knows, so every expected number is computed from the
explicit difference s B1 A1 - s B0 A0, which the importer never makes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from analysis import figures
from analysis.trajectory import Trajectory, same_space
from app.commands import importing
from interplay import importers, tensor_files
from interplay.checkpoint_folders import Checkpoint, find
from interplay.errors import ConfigError, InterplayError, ModelError, StoreError
from interplay.importers import import_folder
from interplay.recorder import UpdateRecorder
from interplay.records import SketchSpec
from interplay.sketch import period, signs_N
from interplay.store import RunStore
from tests.recording import MemoryStore, tiny, trainable

SHAPES = {"model.layers.0.self_attn.q_proj": (12, 10), "model.layers.0.mlp.down_proj": (10, 16), "model.layers.1.self_attn.q_proj": (12, 10)}
R, ALPHA = 3, 7
Factors = dict[str, tuple[np.ndarray, np.ndarray]]
SMALL = SketchSpec(k=16)


def walk(steps: int, seed: int = 0) -> list[Factors]:
    """Factors A (r, n) and B (m, r), in float32 as they will be stored, that move a little from checkpoint to checkpoint."""
    random = np.random.default_rng(seed)
    now = {name: (random.standard_normal((R, n)), random.standard_normal((m, R))) for name, (m, n) in SHAPES.items()}
    found = []
    for _ in range(steps):
        found.append({name: (A.astype(np.float32), B.astype(np.float32)) for name, (A, B) in now.items()})
        now = {name: tuple(x + 0.1 * random.standard_normal(x.shape) for x in pair) for name, pair in now.items()}  # type: ignore[misc]
    return found


def write_adapter(folder: Path, factors: Factors, *, dtype: torch.dtype = torch.float32, extra: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """What PEFT leaves: adapter_model.safetensors and adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = [(f"base_model.model.{name}.lora_{side}.weight", pair[i]) for name, pair in factors.items() for i, side in enumerate("AB")]
    tensors = {key: torch.tensor(x).to(dtype) for key, x in sides}
    save_file(tensors | dict(extra or {}), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": R, "lora_alpha": ALPHA, "task_type": "CAUSAL_LM", **config}))
    return folder


def write_steps(root: Path, path: Sequence[Factors], name: str = "checkpoint-{}", steps: Sequence[int] | None = None, **more: Any) -> Path:
    for step, factors in zip(steps or range(10, 10 * len(path) + 1, 10), path, strict=True):
        write_adapter(root / name.format(step), factors, **more)
    return root


def write_plain(folder: Path, tensors: Mapping[str, np.ndarray], name: str = "model.safetensors", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.tensor(value) for key, value in tensors.items()}, folder / name)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **config}))
    return folder


def imported(folder: Path, tmp_path: Path, name: str = "run", **more: Any) -> RunStore:
    return import_folder(folder, tmp_path / "runs" / name, sketch=more.pop("sketch", SMALL), **more)


def updates(store: RunStore, role: str = "policy", space: str = "effective") -> pd.DataFrame:
    """Rows of one role and space by (update, module)."""
    frame = store.read("updates").to_pandas()
    return frame[(frame["role"] == role) & (frame["space"] == space)].set_index(["update", "module"]).sort_index()


def dense(path: Sequence[Factors], module: str, scale: float = ALPHA / R) -> list[np.ndarray]:
    """s B A of every checkpoint, in float64."""
    return [scale * (factors[module][1].astype(np.float64) @ factors[module][0].astype(np.float64)) for factors in path]


def flat(path: Sequence[Factors], module: str) -> list[np.ndarray]:
    """A and B of every checkpoint as one vector, in float64."""
    return [np.concatenate([x.astype(np.float64).ravel() for x in factors[module]]) for factors in path]


def cos(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))


def lines(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["factor", "effective"])
def test_norms_and_cosines_are_those_of_explicit_differences(tmp_path: Path, space: str) -> None:
    path = walk(5)
    found = updates(imported(write_steps(tmp_path / "in", path), tmp_path), space=space)
    for module in SHAPES:
        weights = dense(path, module) if space == "effective" else flat(path, module)
        moves = [b - a for a, b in pairwise(weights)]
        for u, move in enumerate(moves, start=1):
            row = found.loc[(u, module)]
            assert row["update_norm"] == pytest.approx(np.linalg.norm(move), rel=1e-5)
            assert row["weight_norm"] == pytest.approx(np.linalg.norm(weights[u]), rel=1e-5)
            assert row["displacement_norm"] == pytest.approx(np.linalg.norm(weights[u] - weights[0]), rel=1e-5)
            assert np.isnan(row["gradient_norm"])
            if u == 1:
                assert np.isnan(row["cos_previous"])
                assert np.isnan(row["cos_displacement"])
            else:
                assert row["cos_previous"] == pytest.approx(cos(move, moves[u - 2]), abs=1e-5)
                assert row["cos_displacement"] == pytest.approx(cos(move, weights[u - 1] - weights[0]), abs=1e-5)
    assert sorted(found.index.get_level_values("update").unique()) == [1, 2, 3, 4]


def test_roles_are_compared_with_the_latest_update_of_the_other(tmp_path: Path) -> None:
    policy, reward = walk(3, seed=1), walk(3, seed=2)
    write_steps(tmp_path / "in" / "policy", policy, steps=[10, 20, 30])
    write_steps(tmp_path / "in" / "reward", reward, steps=[5, 20, 40])
    store = imported(tmp_path / "in", tmp_path)
    order = store.read("updates", columns=["clock", "role", "update"]).to_pandas().drop_duplicates()
    assert order.values.tolist() == [[1, "policy", 1], [2, "reward", 1], [3, "policy", 2], [4, "reward", 2]]
    mine, theirs = updates(store, "policy"), updates(store, "reward")
    for module in SHAPES:
        p, r = (np.diff(np.stack(dense(path, module)), axis=0) for path in (policy, reward))
        assert np.isnan(mine.loc[(1, module), "cos_other_update"])
        assert theirs.loc[(1, module), "cos_other_update"] == pytest.approx(cos(r[0], p[0]), abs=1e-5)
        assert mine.loc[(2, module), "cos_other_update"] == pytest.approx(cos(p[1], r[0]), abs=1e-5)
        assert theirs.loc[(2, module), "cos_other_update"] == pytest.approx(cos(r[1], p[1]), abs=1e-5)
        assert abs(cos(p[1], r[0])) <= mine.loc[(2, module), "attainable_other_update"] <= 1
    assert set(mine["other_role"]) == {"reward"}
    assert set(mine["iteration"]) == {1}


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, (ALPHA / R,) * 3),
        ({"use_rslora": True}, (ALPHA / math.sqrt(R),) * 3),
        ({"alpha_pattern": {"q_proj": 2}}, (2 / R, ALPHA / R, 2 / R)),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 2.5}}, (ALPHA / R, ALPHA / R, 2.5 / R)),
        ({"alpha_pattern": {r"^model\.layers\.0\.self_attn\.q_proj": 2}, "rank_pattern": {"x": 8}}, (2 / R, ALPHA / R, ALPHA / R)),
        ({"alpha_pattern": {"roj": 2}}, (ALPHA / R,) * 3),
        ({"alpha_pattern": {"^q_proj": 2}}, (ALPHA / R,) * 3),
    ],
)
def test_the_scale_comes_from_the_adapters_configuration(tmp_path: Path, config: dict[str, Any], scales: tuple[float, ...]) -> None:
    path = walk(2)
    found = updates(imported(write_steps(tmp_path / "in", path, **config), tmp_path))
    for module, scale in zip(SHAPES, scales, strict=True):
        before, after = dense(path, module, scale)
        assert found.loc[(1, module), "update_norm"] == pytest.approx(np.linalg.norm(after - before), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_floating_type_is_read_as_it_is_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    """The expected numbers are those of the rounded weights: what is on disk is the truth."""
    path = walk(3)
    found = updates(imported(write_steps(tmp_path / "in", path, dtype=dtype), tmp_path))
    stored = [{name: tuple(torch.tensor(x).to(dtype).double().numpy() for x in pair) for name, pair in factors.items()} for factors in path]
    for module in SHAPES:
        moves = np.diff(np.stack(dense(stored, module)), axis=0)  # type: ignore[arg-type]
        assert found.loc[(1, module), "update_norm"] == pytest.approx(np.linalg.norm(moves[0]), rel=1e-5)
        assert found.loc[(2, module), "cos_previous"] == pytest.approx(cos(moves[1], moves[0]), abs=1e-5)


def test_a_small_change_of_a_large_weight_is_exact(tmp_path: Path) -> None:
    """B1 A1 - B0 A0 in fp32 would be wrong by more than the update here."""
    start = walk(1)[0]
    moved = {name: (A, np.nextafter(B, np.float32(np.inf), dtype=np.float32)) for name, (A, B) in start.items()}
    found = updates(imported(write_steps(tmp_path / "in", [start, moved]), tmp_path))
    for module in SHAPES:
        before, after = dense([start, moved], module)
        assert found.loc[(1, module), "update_norm"] == pytest.approx(np.linalg.norm(after - before), rel=1e-4)


def _sketch(parts: Sequence[tuple[str, np.ndarray]], module: str, spec: SketchSpec) -> np.ndarray:
    """Signed sums by their definition, element after element."""
    sums = np.zeros(spec.k)
    for label, x in parts:
        signs = signs_N(spec.seed, module, label, x.shape)
        for e, value in enumerate(x.ravel()):
            sums[(e % period(spec.k)) % spec.k] += signs[e] * value
    return sums


@pytest.mark.parametrize("space", ["factor", "effective"])
def test_sketches_are_the_recorders(tmp_path: Path, space: str) -> None:
    path, spec = walk(3), SketchSpec(k=8, seed=3, space=space)  # type: ignore[arg-type]
    store = imported(write_steps(tmp_path / "in", path), tmp_path, sketch=spec)
    assert store.info.sketch == spec
    rows = store.read("directions").to_pandas().set_index(["update", "module"])
    for module in SHAPES:
        for u in (1, 2):
            if space == "effective":
                before, after = dense(path[u - 1 : u + 1], module)
                parts = [("weight", after - before)]
            else:
                parts = [(side, path[u][module][i].astype(np.float64) - path[u - 1][module][i]) for i, side in enumerate("AB")]
            found = rows.loc[(u, module), "sketch"].astype(np.float64) * rows.loc[(u, module), "scale"]
            expected = _sketch(parts, module, spec)
            np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """By clock, module and space, without the order in which words were first met."""
    plain = frame.astype(dict.fromkeys(("role", "module", "kind", "space"), str))
    return plain.sort_values(["clock", "module", "space"]).reset_index(drop=True)


def _with_embeddings() -> Any:
    """Adapters of an embedding lie the other way round."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(tiny("policy", lora=False), config)


MODELS: dict[str, Callable[[], Any]] = {
    "policy": lambda: tiny("policy"),
    "reward": lambda: tiny("reward"),
    "whole": lambda: tiny("policy", lora=False),
    "embeddings": _with_embeddings,
}


@pytest.mark.parametrize(("name", "space"), [("policy", "factor"), ("reward", "factor"), ("whole", "factor"), ("embeddings", "effective")])
def test_an_import_repeats_what_the_recorder_saw(tmp_path: Path, name: str, space: Any) -> None:
    """A tiny Llama: the recorder listens to the optimiser, every step is saved as `checkpoint-N`, and both say the same."""
    role, spec = ("reward" if name == "reward" else "policy"), SketchSpec(k=32, space=space)
    model, memory = MODELS[name](), MemoryStore(k=32)
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.05)
    model.save_pretrained(tmp_path / "in" / "checkpoint-0")
    recorder = UpdateRecorder(memory, spec)
    recorder.attach(optimizer, model, role)
    recorder.begin_iteration(1)
    random = torch.Generator().manual_seed(0)
    for step in range(1, 4):
        for p in trainable(model).values():
            p.grad = torch.randn(p.shape, generator=random)
        optimizer.step()
        model.save_pretrained(tmp_path / "in" / f"checkpoint-{step}")
    imported(tmp_path / "in", tmp_path, sketch=spec)
    store = RunStore.open(tmp_path / "runs" / "run")
    assert store.status().state == "finished"
    assert store.problems() == []
    live, read = (_sorted(table) for table in (memory.frame(), store.read("updates").to_pandas()))
    frozen = ~read["module"].isin(live["module"])  # PEFT saves the embeddings themselves beside their adapters
    assert (read.loc[frozen, "update_norm"] == 0).all()
    read = read[~frozen].reset_index(drop=True)
    pd.testing.assert_frame_equal(read.drop(columns="gradient_norm"), live.drop(columns="gradient_norm"), rtol=1e-4, atol=1e-5)
    live, read = (_sorted(table) for table in (memory.frame("directions"), store.read("directions").to_pandas()))
    read = read[read["module"].isin(live["module"])]
    np.testing.assert_allclose(np.stack(read["sketch"]).astype(float), np.stack(live["sketch"]).astype(float), atol=2e-3)
    assert len(live) >= 3


def test_figures_are_drawn_from_an_import(tmp_path: Path) -> None:
    write_steps(tmp_path / "in" / "policy", walk(5, seed=1))
    write_steps(tmp_path / "in" / "reward", walk(5, seed=2))
    store = imported(tmp_path / "in", tmp_path)
    rows = store.read("updates").to_pandas()
    assert figures.norm_heatmap(rows, "policy", run="run").n == 8
    assert figures.cosine_heatmap(rows, "policy", run="run", column="cos_other_update").n > 0
    paths = [Trajectory.from_table(store.read("directions"), role, store.info.sketch) for role in ("policy", "reward")]
    assert [path.path_UD().shape for path in same_space(paths)] == [(5, len(SHAPES) * SMALL.k)] * 2
    assert figures.reward_curve(store.read("metrics").to_pandas(), run="run").n == 0


# --- whole models ------------------------------------------------------------------------------------


def plain_walk(steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """A weight with a bias, a norm, and an embedding that nobody trains."""
    random = np.random.default_rng(seed)
    fixed = random.standard_normal((7, 4)).astype(np.float32)
    shapes = {"model.layers.0.fc.weight": (5, 4), "model.layers.0.fc.bias": (5,), "model.norm.weight": (4,)}
    return [{"model.embed.weight": fixed, **{name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}} for _ in range(steps)]


def test_whole_models_are_measured_by_layer(tmp_path: Path) -> None:
    path = plain_walk(3)
    for step, tensors in enumerate(path):
        write_plain(tmp_path / "in" / f"checkpoint-{step}", tensors)
    store = imported(tmp_path / "in", tmp_path)
    found = updates(store)
    assert set(store.read("updates").to_pandas()["space"]) == {"effective"}
    vectors = [np.concatenate([t["model.layers.0.fc.weight"].ravel(), t["model.layers.0.fc.bias"]]).astype(np.float64) for t in path]
    assert found.loc[(1, "model.layers.0.fc"), "update_norm"] == pytest.approx(np.linalg.norm(vectors[1] - vectors[0]), rel=1e-5)
    assert found.loc[(2, "model.layers.0.fc"), "cos_previous"] == pytest.approx(cos(vectors[2] - vectors[1], vectors[1] - vectors[0]), abs=1e-5)
    assert found.loc[(1, "model.embed"), "update_norm"] == 0
    assert np.isnan(found.loc[(2, "model.embed"), "cos_previous"])
    assert found.loc[(1, "model.layers.0.fc"), "layer"] == 0


def test_shards_are_put_together(tmp_path: Path) -> None:
    path = plain_walk(2)
    for step, tensors in enumerate(path):
        folder = tmp_path / "in" / f"checkpoint-{step}"
        shards = {f"model-0000{i}-of-00002.safetensors": dict(list(tensors.items())[2 * (i - 1) : 2 * i]) for i in (1, 2)}
        for name, part in shards.items():
            write_plain(folder, part, name)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {key: name for name, part in shards.items() for key in part}}))
        write_plain(tmp_path / "whole" / f"checkpoint-{step}", tensors)
    shards, whole = (imported(tmp_path / name, tmp_path, name).read("updates").to_pandas().sort_values("module") for name in ("in", "whole"))
    pd.testing.assert_frame_equal(shards.reset_index(drop=True), whole.reset_index(drop=True), check_categorical=False)
    assert len(whole) == 3


def test_tensors_that_are_no_numbers_to_move_are_left_out_and_named(tmp_path: Path) -> None:
    for step, tensors in enumerate(plain_walk(2)):
        write_plain(tmp_path / "in" / f"checkpoint-{step}", tensors | {"model.position_ids": np.arange(5)})
    store = imported(tmp_path / "in", tmp_path)
    assert "model.position_ids" not in set(store.read("updates").to_pandas()["module"])
    assert any("model.position_ids" in note for note in store.info.notes)


def test_a_head_beside_adapters_is_measured(tmp_path: Path) -> None:
    path, key = walk(2), "base_model.model.score.weight"
    heads = [np.ones((1, 10), np.float32), np.full((1, 10), 3, np.float32)]
    for step, (factors, head) in enumerate(zip(path, heads, strict=True)):
        write_adapter(tmp_path / "in" / f"checkpoint-{step}", factors, extra={key: torch.tensor(head)}, task_type="SEQ_CLS")
    found = updates(imported(tmp_path / "in", tmp_path), "reward")
    assert found.loc[(1, "score"), "update_norm"] == pytest.approx(2 * math.sqrt(10))
    assert set(found.index.get_level_values("module")) == {*SHAPES, "score"}


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


# --- refusals ----------------------------------------------------------------------------------------


def _empty(root: Path) -> None:
    root.mkdir()


def _missing(_: Path) -> None:
    pass


def _file(root: Path) -> None:
    root.write_text("")


def _one(root: Path) -> None:
    write_steps(root, walk(1))


def _one_unnumbered(root: Path) -> None:
    write_adapter(root, walk(1)[0])


def _other_names(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", {name: pair for name, pair in walk(1)[0].items() if "down" not in name})


def _other_shape(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", {name: (A[:2], B[:, :2]) for name, (A, B) in walk(1)[0].items()})


def _other_scale(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", walk(1)[0], lora_alpha=99)


def _no_config(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-10" / "adapter_config.json").unlink()


def _config_of_words(root: Path) -> None:
    write_steps(root, walk(2), lora_alpha="much")


def _expression(root: Path) -> None:
    write_steps(root, walk(2), alpha_pattern={"(a+)+$": 3})


def _truncated(root: Path) -> None:
    write_steps(root, walk(2))
    file = root / "checkpoint-20" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _empty_file(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(b"")


def _huge_header(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}" * 100)


def _deep_header(root: Path) -> None:
    write_steps(root, walk(2))
    header = b'{"a":' * 100_000
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def _absurd_shape(root: Path) -> None:
    write_steps(root, walk(2))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)


def _no_numbers(root: Path) -> None:
    for step in (1, 2):
        write_plain(root / f"checkpoint-{step}", {"a": np.arange(3)})


def _shard_outside(root: Path) -> None:
    for step in (1, 2):
        write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (root / f"checkpoint-{step}" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


def _shard_missing(root: Path) -> None:
    for step in (1, 2):
        folder = write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "shard.safetensors", "b": "gone.safetensors"}}))


def _no_map(root: Path) -> None:
    for step in (1, 2):
        folder = write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (folder / "model.safetensors.index.json").write_text("{}")


def _linked_file(root: Path) -> None:
    write_steps(root, walk(2))
    secret = write_adapter(root.parent / "elsewhere", walk(1)[0])
    (root / "checkpoint-20" / "adapter_model.safetensors").unlink()
    (root / "checkpoint-20" / "adapter_model.safetensors").symlink_to(secret / "adapter_model.safetensors")


def _linked_shard(root: Path) -> None:
    _shard_missing(root)
    for step in (1, 2):
        write_plain(root.parent / "elsewhere", plain_walk(1)[0])
        (root / f"checkpoint-{step}" / "gone.safetensors").symlink_to(root.parent / "elsewhere" / "model.safetensors")


def _linked_inside(root: Path) -> None:
    write_steps(root, walk(2), "checkpoint-{}/pl")
    (root / "checkpoint-30").mkdir()
    (root / "checkpoint-30" / "pl").symlink_to(write_adapter(root.parent / "elsewhere", walk(1)[0]))


def _linked_folder(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-30").symlink_to(write_adapter(root.parent / "elsewhere", walk(1)[0]))


def _linked_config(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-10" / "adapter_config.json").rename(root.parent / "elsewhere.json")
    (root / "checkpoint-10" / "adapter_config.json").symlink_to(root.parent / "elsewhere.json")


BAD: list[tuple[Callable[[Path], None], type[InterplayError], str]] = [
    (_missing, ConfigError, "which does not exist"),
    (_empty, ConfigError, "no folder holds"),
    (_file, ConfigError, "a file"),
    (_one, ConfigError, "only one checkpoint of the policy was found (checkpoint-10)"),
    (_one_unnumbered, ConfigError, "no series of checkpoints was found; there is '.' (1)"),
    (_other_names, ModelError, "checkpoint-30 has no base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"),
    (_other_shape, ModelError, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight has shape (2, 16) in checkpoint-30, and (3, 16)"),
    (_other_scale, ModelError, "lora_alpha is 99 in checkpoint-30, and 7 in checkpoint-10"),
    (_no_config, ModelError, "checkpoint-10/adapter_config.json is missing"),
    (_config_of_words, ModelError, "lora_alpha is 'much'"),
    (_expression, ModelError, "alpha_pattern '(a+)+$'"),
    (_truncated, ModelError, "checkpoint-20 is damaged"),
    (_empty_file, ModelError, "checkpoint-20 is damaged"),
    (_huge_header, ModelError, f"its header would take {2**60} bytes"),
    (_deep_header, ModelError, "checkpoint-20 is damaged"),
    (_absurd_shape, ModelError, "checkpoint-20 is damaged"),
    (_no_numbers, ModelError, "no floating-point tensors"),
    (_shard_outside, ModelError, "names the shard '../../secret.safetensors'"),
    (_shard_missing, ModelError, "names the shard 'gone.safetensors', which is missing"),
    (_no_map, ModelError, "no weight_map"),
    (_linked_file, ModelError, "checkpoint-20/adapter_model.safetensors in"),
    (_linked_shard, ModelError, "names the shard 'gone.safetensors'; shards are"),
    (_linked_folder, ModelError, "checkpoint-30 in"),
    (_linked_inside, ModelError, "checkpoint-30/pl in"),
    (_linked_config, ModelError, "symbolic link"),
]


@pytest.mark.parametrize(("make", "kind", "text"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(tmp_path: Path, make: Callable[[Path], None], kind: type[InterplayError], text: str) -> None:
    make(tmp_path / "in")
    with pytest.raises(kind) as error:
        imported(tmp_path / "in", tmp_path)
    assert text in lines(error)
    assert not (tmp_path / "runs" / "run").exists()


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        folder = tmp_path / "in" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(ModelError) as error:
        imported(tmp_path / "in", tmp_path)
    assert f"checkpoint-1 holds its weights in {name}, a pickle file that could run code" in lines(error)
    assert not (tmp_path / "canary").exists()


def test_other_peoples_code_and_other_files_are_never_touched(tmp_path: Path) -> None:
    """auto_map, optimiser states and links that lead nowhere near the weights stay unread."""
    for step, tensors in enumerate(plain_walk(2)):
        folder = write_plain(tmp_path / "in" / f"checkpoint-{step}", tensors, auto_map={"AutoModel": "evil.Evil"})
        (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
        (folder / "optimizer.pt").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "checkpoint-1")
    assert len(updates(imported(tmp_path / "in", tmp_path))) == 3
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("pattern", ["/etc", "../other", "a/../../b", "", "  ", "a\0b"])
def test_patterns_stay_inside_the_folder(tmp_path: Path, pattern: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    write_steps(tmp_path / "other", walk(2))
    with pytest.raises(ConfigError, match="it must be a path or pattern below") as error:
        imported(tmp_path / "in", tmp_path, patterns={"policy": pattern})
    lines(error)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("nowhere", "no series of checkpoints was found; there is 'checkpoint-{step}' (2)"),
        ("checkpoint-{n}", "only {step} may stand in braces"),
        ("*", "have the same number"),
    ],
)
def test_a_pattern_that_finds_no_series_says_what_there_is(tmp_path: Path, pattern: str, text: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    with pytest.raises(ConfigError) as error:
        imported(tmp_path / "in", tmp_path, patterns={"policy": pattern})
    assert text in lines(error)


@pytest.mark.parametrize("make", [_missing, _empty, _file], ids=["missing", "empty", "file"])
def test_a_base_that_holds_no_weights_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_steps(tmp_path / "in", walk(2))
    make(tmp_path / "base")
    with pytest.raises(ConfigError, match="--base is") as error:
        imported(tmp_path / "in", tmp_path, base=tmp_path / "base")
    lines(error)


def test_flipped_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    file = write_adapter(tmp_path / "checkpoint-1", walk(1)[0]) / "adapter_model.safetensors"
    whole, random, refused = file.read_bytes(), np.random.default_rng(0), list[str]()
    for _ in range(300):
        torn = bytearray(whole)
        for at in random.integers(0, 700, size=random.integers(1, 4)):
            torn[at] = random.integers(0, 256)
        file.write_bytes(torn)
        try:
            weights = tensor_files.open_weights(Checkpoint(file.parent, "checkpoint-1"))
            tensor_files.plans(weights)
            tensors = weights.tensors(list(weights.shapes))
            assert {key: tuple(x.shape) for key, x in tensors.items()} == weights.shapes
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert not any("\n" in text for text in refused)


HOSTILE = ["[]", "null", "{", '{"lora_alpha": 1e999}', f'{{"lora_alpha": {"9" * 400}}}', '{"lora_alpha": 1, "alpha_pattern": [1]}', "\udcff", "[" * 99_999]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    (tmp_path / "in" / "checkpoint-10" / "adapter_config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match="adapter_config") as error:
        imported(tmp_path / "in", tmp_path)
    lines(error)


def test_a_run_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(2))
    first = imported(tmp_path / "in", tmp_path)
    before = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="exists already; choose another name") as error:
        imported(tmp_path / "in", tmp_path)
    lines(error)
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == before


def test_an_import_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(3))

    def stop(doing: str, share: float, metrics: Mapping[str, float]) -> None:
        if share > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path / "in", tmp_path, report=stop)
    assert not (tmp_path / "runs" / "run").exists()


def test_values_that_are_not_finite_are_null_and_said(tmp_path: Path) -> None:
    path = walk(3)
    module = next(iter(SHAPES))
    path[1][module][0][0, 0] = np.nan
    store = imported(write_steps(tmp_path / "in", path), tmp_path)
    found = updates(store)
    assert found.loc[1, "update_norm"].isna().to_dict() == {name: name == module for name in SHAPES}
    assert any("checkpoint-20 holds values that are not finite" in note for note in store.info.notes)
    assert len(store.read("directions").to_pandas()) == 2 * len(SHAPES) - 2


def test_checkpoints_that_did_not_move_have_norm_0_and_no_cosine(tmp_path: Path) -> None:
    found = updates(imported(write_steps(tmp_path / "in", [walk(1)[0]] * 3), tmp_path))
    assert (found["update_norm"] == 0).all()
    assert found["cos_previous"].isna().all()


# --- streaming ---------------------------------------------------------------------------------------


def test_batches_of_modules_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(tmp_path / "in" / "policy", walk(3, seed=1))
    write_steps(tmp_path / "in" / "reward", walk(3, seed=2), extra={"base_model.model.score.weight": torch.ones(1, 4)})
    whole = imported(tmp_path / "in", tmp_path, "whole")
    monkeypatch.setattr(importers, "BATCH", 1)
    opened = _count_opened(monkeypatch)
    parts = imported(tmp_path / "in", tmp_path, "parts")
    for stream in ("updates", "directions"):
        a, b = (_sorted(store.read(stream).to_pandas()) for store in (whole, parts))  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(a, b)
    assert max(opened) < len(SHAPES) * 2  # never all modules of a checkpoint at once
    clocks = parts.read("updates").to_pandas()["clock"].to_numpy()
    assert (np.diff(clocks) >= 0).all()


def _count_opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors were asked for together, each time."""
    found: list[int] = []
    read = tensor_files.Weights.tensors

    def counted(self: tensor_files.Weights, keys: Sequence[str]) -> Any:
        found.append(len(keys))
        return read(self, keys)

    monkeypatch.setattr(tensor_files.Weights, "tensors", counted)
    return found


def test_without_sketches_only_norms_are_recorded(tmp_path: Path) -> None:
    store = imported(write_steps(tmp_path / "in", walk(3)), tmp_path, sketch=SketchSpec(k=0))
    assert store.read("directions").num_rows == 0
    assert store.read("updates").num_rows == 2 * 2 * len(SHAPES)


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
