"""Checkpoints of other people become a run: its numbers against dense float64 matrices, and against what the recorder saw."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

from analysis import figures
from analysis.trajectory import Trajectory, same_space
from interplay import importers, tensor_files
from interplay.recorder import UpdateRecorder
from interplay.records import SketchSpec
from interplay.sketch import period, signs_N
from interplay.store import RunStore
from tests.foreign import ALPHA, SHAPES, SMALL, R, cos, dense, flat, imported, plain_walk, updates, walk, write_adapter, write_plain, write_steps
from tests.recording import MemoryStore, tiny, trainable

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
