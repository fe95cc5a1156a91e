"""Makes a realistic recorded run with `RunStore`, in a second and without torch: the numbers are drawn, their shapes are true.

python -m tests.fabricate DIR          # a few runs to look at
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from interplay.config import RunConfig
from interplay.records import OTHER_ROLE, RunInfo, SketchSpec
from interplay.store import RunStore

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HOSTILE = "<img src=x onerror=alert(1)> [free prize](http://evil.example/steal) $$\\href{javascript:alert(2)}{x}$$ ![p](http://evil.example/p.png) **bold**"


@dataclass
class Fabricated:
    """A run that can be written update by update, so that tests can play a live one."""

    path: Path
    layers: int = 6
    k: int = 64
    seed: int = 0
    method: str = "rloo"
    updates_each: int = 12
    value: bool = True
    bad_numbers: bool = False
    constant: bool = False
    store: RunStore = field(init=False)

    def __post_init__(self) -> None:
        config = RunConfig(method=self.method, seed=self.seed, updates=self.updates_each, sketch=self.k)
        self.random = np.random.default_rng(self.seed)
        self.clock = 0
        self.update = {"policy": 0, "reward": 0, "value": 0}
        self.drift = {role: self.random.standard_normal((self.modules, self.k)) for role in self.update}
        self.store = RunStore.create(self.path, self._info(config))

    @property
    def modules(self) -> int:
        return self.layers * len(KINDS)

    def _info(self, config: RunConfig) -> RunInfo:
        return RunInfo(
            run=self.path.name,
            config=config.to_mapping(),
            command=["interplay", "train", *config.to_argv()],
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            sketch=SketchSpec(k=self.k),
            versions={"interplay": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
            machine={"cpu": "2 cores"},
            model={"name": "bundled"},
        )

    # --- a whole run -----------------------------------------------------------------------------

    def whole(self, iterations: int = 2) -> Path:
        """Reward model 0, then `iterations` rounds, then the end mark."""
        self.step("reward", 0, self.updates_each)
        self.heldout(0)
        for iteration in range(1, iterations + 1):
            self.iterate(iteration)
        self.store.close("finished")
        return self.path

    def iterate(self, iteration: int) -> None:
        self.step("policy", iteration, self.updates_each)
        self.heldout(iteration)
        self.step("reward", iteration, self.updates_each)

    # --- one update ------------------------------------------------------------------------------

    def step(self, role: str, iteration: int, times: int = 1) -> None:
        """`times` optimiser steps of a role, and of the value model beside the policy."""
        for _ in range(times):
            self._updates(role, iteration)
            if role == "policy":
                self._completions(iteration)
                if self.value:
                    self._updates("value", iteration)

    def _updates(self, role: str, iteration: int) -> None:
        self.clock += 1
        self.update[role] += 1
        place = self._place(role, iteration)
        size = {"policy": 4e-3, "reward": 1.2e-2, "value": 2e-3}[role] * np.exp(0.25 * np.sin(self.update[role] / 4))
        self.drift[role] = 0.85 * self.drift[role] + 0.5 * self.random.standard_normal((self.modules, self.k))
        depth = np.repeat(0.4 + np.arange(self.layers) / self.layers, len(KINDS))[:, None]
        sketch = (self.drift[role] * size * depth / np.sqrt(self.k)).astype(np.float32)
        self._write_updates(place, np.linalg.norm(sketch, axis=1))
        scale = np.abs(sketch).max(axis=1)
        rows = self._rows(place) | {"space": ["factor"] * self.modules, "scale": scale.tolist(), "standard_error": [self.k**-0.5] * self.modules}
        self.store.append("directions", rows | {"sketch": [(row / s).astype(np.float16).tolist() for row, s in zip(sketch, scale, strict=True)]})
        self._metrics(place, "train", self._train(role))

    def _place(self, role: str, iteration: int) -> dict[str, Any]:
        return {"clock": self.clock, "update": self.update[role], "iteration": iteration, "role": role}

    def _rows(self, place: dict[str, Any]) -> dict[str, list[Any]]:
        named = [(layer, kind) for layer in range(self.layers) for kind in KINDS]
        modules = [
            f"layers.{layer}.{'mlp' if kind[-6] != '_' and kind.split('_')[0] in ('gate', 'up', 'down') else 'self_attn'}.{kind}" for layer, kind in named
        ]
        return {name: [value] * len(named) for name, value in place.items()} | {
            "module": modules,
            "layer": [n[0] for n in named],
            "kind": [n[1] for n in named],
        }

    def _write_updates(self, place: dict[str, Any], norms: Any) -> None:
        rows = self._rows(place)
        cosine = lambda centre: np.clip(centre + 0.1 * self.random.standard_normal(self.modules), -1, 1).tolist()  # noqa: E731
        first = place["update"] == 1
        for space in ("factor", "effective"):
            self.store.append(
                "updates",
                rows
                | {
                    "space": [space] * self.modules,
                    "update_norm": (norms * (1 if space == "factor" else 0.3)).tolist(),
                    "weight_norm": [1.5] * self.modules,
                    "gradient_norm": [None] * self.modules if space == "effective" else (norms * 3).tolist(),
                    "displacement_norm": (norms * place["update"] ** 0.6).tolist(),
                    "cos_previous": [None] * self.modules if first else cosine(0.7),
                    "cos_displacement": [None] * self.modules if first else cosine(0.4),
                    "other_role": [OTHER_ROLE[place["role"]]] * self.modules,
                    "cos_other_update": [None] * self.modules if place["clock"] == 1 else cosine(0.05),
                    "attainable_other_update": [0.9] * self.modules,
                    "null_other_update": [None if place["clock"] == 1 else 0.06] * self.modules,
                    "cos_other_iteration": [None] * self.modules,
                    "attainable_other_iteration": [None] * self.modules,
                },
            )

    def _train(self, role: str) -> dict[str, float | None]:
        progress = self.update[role] / 24
        noise = 0.0 if self.constant else float(self.random.standard_normal())
        if role != "policy":
            return {"loss": 0.7 - 0.2 * progress + 0.03 * noise, "accuracy": 0.55 + 0.2 * progress}
        reward = float("nan") if self.bad_numbers and self.update[role] % 3 == 0 else 0.3 + (0 if self.constant else 0.8 * progress) + 0.12 * noise
        kl = float("inf") if self.bad_numbers and self.update[role] % 4 == 0 else 0.02 + 0.4 * progress**1.5 + 0.03 * abs(noise)
        return {"reward": reward, "kl": kl, "gold": 0.35 + 0.2 * progress + 0.06 * noise, "tokens": 180.0 * self.update[role]}

    def heldout(self, iteration: int) -> None:
        """The held-out score of the policy as it is now."""
        place = self._place("policy", iteration)
        values = {
            "gold": 0.36 + 0.09 * iteration,
            "proxy": 0.31 + 0.4 * iteration,
            "kl": 0.17 * iteration,
            "length": 21.0 - iteration,
            "distinct_words": 0.83 - 0.03 * iteration,
        }
        more = {
            "entropy": 2.4 - 0.2 * iteration,
            "reward_model_accuracy": 0.61 + 0.04 * iteration,
            "alarm": 0.0,
            "gold_se": 0.02,
            "proxy_se": 0.05,
            "kl_se": 0.01,
        }
        self._metrics(place, "heldout", values | more)

    def _metrics(self, place: dict[str, Any], split: str, values: dict[str, Any]) -> None:
        rows: dict[str, list[Any]] = {name: [value] * len(values) for name, value in place.items()}
        seconds = 1.7 * self.clock
        self.store.append(
            "metrics", rows | {"split": [split] * len(values), "name": list(values), "value": list(values.values()), "seconds": [seconds] * len(values)}
        )

    def _completions(self, iteration: int) -> None:
        prompts = ["My cat will not eat. What can I do?", "Write one line about the sea.", "Erkläre kurz, was ein Regenbogen ist."]
        texts = ["Try a little warm food and fresh water, and call a vet if it lasts more than a day.", "The sea keeps every secret it is told.", HOSTILE]
        count = len(prompts)
        place: dict[str, list[Any]] = {name: [value] * count for name, value in (self._place("policy", iteration)).items()}
        scores = self.random.random((3, count)).round(3)
        rows = {"split": ["train"] * count, "prompt_id": [f"p{i}" for i in range(count)], "prompt": prompts, "completion": texts, "tokens": [19, 9, 24]}
        numbers = {
            "finished": [True, True, False],
            "reward": scores[0].tolist(),
            "gold": scores[1].tolist(),
            "proxy": [None] * count,
            "kl": (scores[2] - 0.2).tolist(),
        }
        self.store.append("completions", place | rows | numbers)


def gallery(root: Path) -> None:
    """One run of each state, for looking at."""
    Fabricated(root / "rloo-chat-0-finished").whole()
    Fabricated(root / "ppo-chat-1-finished", seed=1, method="ppo", updates_each=40).whole()
    Fabricated(root / "dpo-chat-2-nan", seed=2, method="dpo", bad_numbers=True, value=False).whole()
    live = Fabricated(root / "rloo-chat-3-live", seed=3)
    live.step("reward", 0, 6)
    live.heldout(0)
    live.step("policy", 1, 5)
    broken = root / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{ this is not json")


if __name__ == "__main__":
    gallery(Path(sys.argv[1]))
