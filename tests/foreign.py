"""Checkpoints as trainers of other people leave them, written from factors that the test knows, and the run that an import makes of them.

Every expected number is computed from the explicit difference s B1 A1 - s B0 A0, which the importer never makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interplay.importers import import_folder
from interplay.records import SketchSpec
from interplay.store import RunStore

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


def plain_walk(steps: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """A weight with a bias, a norm, and an embedding that nobody trains."""
    random = np.random.default_rng(seed)
    fixed = random.standard_normal((7, 4)).astype(np.float32)
    shapes = {"model.layers.0.fc.weight": (5, 4), "model.layers.0.fc.bias": (5,), "model.norm.weight": (4,)}
    return [{"model.embed.weight": fixed, **{name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}} for _ in range(steps)]
