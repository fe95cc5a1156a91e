"""Recorded runs as `analysis.evidence.Recording`s: what `interplay report` and the pages read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.evidence import Recording
from analysis.trajectory import Trajectory
from interplay import compare
from interplay.errors import ConfigError
from interplay.reading import RUN, refuse_no_run
from interplay.records import RunInfo, Stream
from interplay.store import RunStore

#: Settings that may differ between the seeds of one group.
_SEEDS = ("seed", "seed_data", "seed_sampling", "seed_perturbation", "out")


def folders(words: Sequence[str], runs: Path) -> list[Path]:
    """Run folders, names of runs in `runs`, and folders of comparisons as their finished rows. Raises `ConfigError`."""
    found: list[Path] = []
    for word in words:
        path = Path(word) if Path(word).exists() or not (runs / word).exists() else runs / word
        plan = compare.read(path)
        if plan is None:
            refuse_no_run("RUN", path)
        found += [path] if plan is None else [row.folder for row in plan.arms if (row.folder / RUN).is_file()]
    if not found:
        raise ConfigError("no run is named; give run folders, names of runs, or the folder of a comparison")
    return list(dict.fromkeys(found))


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


def arms(path: Path) -> str | None:
    """How the comparison that a run belongs to names it; None if it belongs to none."""
    plan = compare.read(path.parent)
    row = next((row for row in plan.rows if row.folder.name == path.name), None) if plan else None
    return row.method if row else None


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
