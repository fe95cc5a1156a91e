"""Recorded runs as `analysis.evidence.Recording`s: what `interplay report` and the pages read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from analysis.evidence import Recording
from analysis.trajectory import Trajectory
from interplay.records import RunInfo, Stream
from interplay.store import RunStore

#: Settings that may differ between the seeds of one group.
_SEEDS = ("seed", "seed_data", "seed_sampling", "seed_perturbation", "out")


def load(path: Path, arm: str | None = None) -> Recording:
    """One run. `arm`: its name in a comparison, where that is more than the method."""
    store = RunStore.open(path)
    info, updates = store.info, _frame(store, "updates")
    method = arm or str(info.config.get("method", "unknown"))
    roles = {role: _path(store, role) for role in ("policy", "reward")}
    numbers = info.model.get("trained_parameters") or {}
    return Recording(
        store.path.name,
        method,
        int(info.config.get("seed", 0)),
        group(info),
        roles["policy"],
        roles["reward"],
        updates,
        _frame(store, "metrics"),
        _frame(store, "completions"),
        numbers.get("policy"),
    )


def group(info: RunInfo) -> str:
    """The same for runs that differ in nothing but the seed."""
    shared = {key: value for key, value in info.config.items() if key not in _SEEDS}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _path(store: RunStore, role: str) -> Trajectory | None:
    if not store.info.sketch.k:
        return None
    directions = store.read("directions")
    path = Trajectory.from_table(directions, role, store.info.sketch, run=store.path.name, updates=store.read("updates"))
    return path if len(path.updates_U) else None


def _frame(store: RunStore, stream: Stream) -> pd.DataFrame:
    """A stream with words as plain text."""
    table: pd.DataFrame = store.read(stream).to_pandas()
    return table.astype({name: object for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)})
