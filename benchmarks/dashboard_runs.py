"""The runs that `benchmarks.dashboard` looks at: forty-nine small ones, and one of 10,000 updates x 30 layers x 2 roles with sketches.

    python -m benchmarks.dashboard_runs DIR

The numbers are drawn, their shapes are true.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from interplay.config import RunConfig
from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore
from tests.fabricate import Fabricated

RUNS, UPDATES, LAYERS, SUMS, BLOCK = 50, 10_000, 30, 64, 500
METHODS = ("rloo", "ppo", "dpo")
LARGE = "large"


def fabricate(root: Path) -> Path:
    """All of them, under `root`; those that are there are left as they are, so that a benchmark that is repeated need not wait."""
    for seed in range(RUNS - 1):
        if not (name := root / small(seed)).exists():
            Fabricated(name, layers=4, k=32, updates_each=8, seed=seed, method=METHODS[seed % 3]).whole(1)
    if not (root / LARGE).exists():
        large(root / LARGE)
    return root


def small(seed: int) -> str:
    return f"small-{seed:02d}"


def count(method: str) -> int:
    """How many of the small runs are of a method."""
    return len(range(METHODS.index(method), RUNS - 1, len(METHODS)))


def large(path: Path) -> None:
    """10,000 updates of two roles, one module for each layer, in four iterations."""
    info = RunInfo(LARGE, RunConfig().to_mapping(), ["interplay", "train"], "2026-01-01T00:00:00+00:00", SketchSpec(k=SUMS))
    store, random = RunStore.create(path, info), np.random.default_rng(0)
    drift = {role: random.standard_normal((LAYERS, SUMS)).astype(np.float32) for role in ("policy", "reward")}
    for begin in range(0, UPDATES, BLOCK):
        for offset, (role, other) in enumerate((("policy", "reward"), ("reward", "policy"))):
            steps = (random.standard_normal((BLOCK, LAYERS, SUMS)).astype(np.float32) + drift[role]) * 1e-3
            _block(store, random, begin, offset, role, other, steps)
        store.flush()
    _curves(store, random)
    _texts(store)
    store.close("finished")


def _block(store: RunStore, random: np.random.Generator, begin: int, offset: int, role: str, other: str, steps_UTK: Any) -> None:
    """One block of updates of one role."""
    number, rows = np.repeat(np.arange(begin, begin + BLOCK), LAYERS), BLOCK * LAYERS
    place = {**_place(number, role), "clock": 2 * number + offset + 1, "layer": np.tile(np.arange(LAYERS), BLOCK)}
    modules = [f"layers.{layer}.self_attn.q_proj" for layer in range(LAYERS)] * BLOCK
    words = {"module": modules, "kind": ["q_proj"] * rows, "space": ["factor"] * rows}
    cosines = np.clip(0.6 + 0.1 * random.standard_normal(rows), -1, 1).astype(np.float32)
    norms = {"update_norm": np.linalg.norm(steps_UTK, axis=2).ravel(), "weight_norm": np.full(rows, 1.5), "cos_previous": cosines}
    chance = {"cos_other_update": cosines - 0.6, "null_other_update": np.full(rows, 0.06), "attainable_other_update": np.full(rows, 0.9)}
    store.append("updates", {**place, **words, **norms, **chance, "other_role": [other] * rows})
    scale = np.abs(steps_UTK).max(axis=2)
    sketch = (steps_UTK / scale[..., None]).astype(np.float16).reshape(rows, SUMS)
    scaled = {"scale": scale.ravel(), "standard_error": np.full(rows, SUMS**-0.5), "sketch": list(sketch)}
    store.append("directions", {**place, **words, **scaled})


def _place(number: Any, role: str = "policy") -> dict[str, Any]:
    """Where updates stand, given by number from 0; at each number the policy moves first."""
    return {"clock": 2 * number + 1, "update": number + 1, "iteration": number // 2500, "role": [role] * len(number)}


def _curves(store: RunStore, random: np.random.Generator) -> None:
    """Reward, KL, gold and tokens of each policy update."""
    number = np.arange(UPDATES)
    values = {"reward": number / UPDATES + random.normal(0, 0.1, UPDATES), "kl": number / UPDATES, "gold": 0.4 + number / 5e4, "tokens": 190.0 * (number + 1)}
    for name, value in values.items():
        moment = {**_place(number), "split": ["train"] * UPDATES, "seconds": 2.0 * number}
        store.append("metrics", {**moment, "name": [name] * UPDATES, "value": value})


def _texts(store: RunStore) -> None:
    """A completion of every fiftieth update."""
    some = np.arange(0, UPDATES, 50)
    same = {"split": "train", "prompt_id": "p0", "prompt": "Write one line about the sea.", "tokens": 9, "finished": True}
    same |= {"reward": 0.5, "gold": 0.5, "proxy": None, "kl": 0.1}
    words = {name: [value] * len(some) for name, value in same.items()}
    store.append("completions", {**_place(some), **words, "completion": [f"Secret {one}." for one in some]})


if __name__ == "__main__":
    fabricate(Path(sys.argv[1]))
