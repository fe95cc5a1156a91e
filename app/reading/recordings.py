"""Recorded runs as `analysis.evidence.Recording`s: what `interplay report` and the pages read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis import recipes, tables
from analysis.evidence import Recording
from app.reading.recorded import Recorded
from interplay.records import RunInfo

#: Settings that may differ between the seeds of one group.
SEEDS = ("seed", "seed_data", "seed_sampling", "seed_perturbation", "out")


def load(path: Path, arm: str | None = None) -> Recording:
    """One run. `arm`: its name in a comparison, where that is more than the method."""
    one = Recorded(path, arm)
    trained = (one.info.model.get("trained_parameters") or {}).get("policy")
    return replace(recipes.evidence(one), group=group(one.info), parameters=trained)


def group(info: RunInfo) -> str:
    """The same for runs that differ in nothing but the seed."""
    shared = {key: value for key, value in info.config.items() if key not in SEEDS}
    return hashlib.sha256(json.dumps(shared, sort_keys=True, default=str).encode()).hexdigest()[:12]


def plain(table: pa.Table) -> pd.DataFrame:
    """A stream as a frame with words as plain text."""
    return tables.plain(table.to_pandas())
