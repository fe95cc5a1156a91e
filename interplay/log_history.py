"""`trainer_state.json`, as every trainer of transformers and TRL leaves it, as rows of `metrics`.

The last checkpoint's file holds what was logged up to it. A number that was logged after checkpoint u-1 and
up to checkpoint u belongs to update u, under the name that the trainer gave it; when it was logged in
seconds is not written down, so `seconds` is not a number.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from interplay.checkpoint_folders import Checkpoint, read_json
from interplay.columns import Place
from interplay.errors import ModelError
from interplay.records import Role, Split

STATE = "trainer_state.json"


@dataclass(frozen=True)
class Metric:
    """One number that a trainer logged. `update` 0: before the first checkpoint."""

    role: Role
    update: int
    split: Split
    name: str
    value: float | None


def read(role: Role, checkpoints: Sequence[Checkpoint], *, based: bool) -> list[Metric]:
    """The numbers logged up to the last checkpoint; none if it has no trainer_state.json.

    `based` says that the start is not one of the checkpoints, so the first of them ends update 1. Raises `ModelError`
    if the file is damaged or counts other steps than the checkpoints are numbered by.
    """
    last = checkpoints[-1]
    state = _state(last)
    if state is None:
        return []
    if not isinstance(state.get("log_history"), list) or not isinstance(state.get("global_step"), int):
        raise ModelError(f"{last.name}/{STATE} has no log_history and global_step, so metrics were left out")
    if last.step != (state["global_step"],):
        raise ModelError(f"{last.name}/{STATE} stands at step {state['global_step']}, which its folder is not numbered by, so metrics were left out")
    steps = [checkpoint.step[0] for checkpoint in checkpoints]
    entries = [entry for entry in state["log_history"] if isinstance(entry, dict) and isinstance(entry.get("step"), int)]
    updates = [bisect_left(steps, entry["step"]) + based for entry in entries]
    most = len(steps) - 1 + based
    return [metric for entry, update in zip(entries, updates, strict=True) for metric in _numbers(role, min(update, most), entry)]


def _state(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Beside the weights, or one folder up where an adapter has a folder of its own."""
    found = read_json(checkpoint.folder / STATE)
    return found if found is not None or "/" not in checkpoint.name else read_json(checkpoint.folder.parent / STATE)


def _numbers(role: Role, update: int, entry: dict[str, Any]) -> Iterator[Metric]:
    for name, value in entry.items():
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value) if abs(value) < 1e300 else math.nan
            yield Metric(role, update, "heldout" if name.startswith("eval_") else "train", name, number if math.isfinite(number) else None)


def columns(metrics: Sequence[Metric], places: Sequence[Place]) -> dict[str, list[Any]]:
    """All columns of `records.METRICS`."""
    found: dict[str, list[Any]] = {name: [place[name] for place in places] for name in ("clock", "update", "iteration", "role")}
    found |= {name: [getattr(metric, name) for metric in metrics] for name in ("split", "name", "value")}
    return found | {"seconds": [math.nan] * len(metrics)}
