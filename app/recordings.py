"""Recorded runs as `analysis.evidence.Recording`s: what `interplay report` and the pages read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis import tables
from analysis.evidence import Recording
from analysis.trajectory import Trajectory
from interplay.records import RunInfo
from interplay.store import RunStore

#: Settings that may differ between the seeds of one group.
SEEDS = ("seed", "seed_data", "seed_sampling", "seed_perturbation", "out")


def load(path: Path, arm: str | None = None) -> Recording:
    """One run. `arm`: its name in a comparison, where that is more than the method."""
    store = RunStore.open(path)
    info, updates = store.info, store.read("updates")
    paths = _paths(store, updates)
    return Recording(
        store.path.name,
        arm or str(info.config.get("method", "unknown")),
        int(info.config.get("seed", 0)),
        group(info),
        paths.get("policy"),
        paths.get("reward"),
        plain(updates),
        plain(store.read("metrics")),
        plain(store.read("completions")),
        (info.model.get("trained_parameters") or {}).get("policy"),
    )


def group(info: RunInfo) -> str:
    """The same for runs that differ in nothing but the seed."""
    shared = {key: value for key, value in info.config.items() if key not in SEEDS}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _paths(store: RunStore, updates: pa.Table) -> dict[str, Trajectory]:
    """The roles that moved, where directions were recorded."""
    if not store.info.sketch.k:
        return {}
    directions = store.read("directions")
    found = {role: Trajectory.from_table(directions, role, store.info.sketch, run=store.path.name, updates=updates) for role in ("policy", "reward")}
    return {role: path for role, path in found.items() if len(path.updates_U)}


def plain(table: pa.Table) -> pd.DataFrame:
    """A stream as a frame with words as plain text."""
    return tables.plain(table.to_pandas())
