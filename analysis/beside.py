"""What one update of a run measured and wrote, alone or beside another run or another moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables import heldout_table

#: Metrics of a training batch in reading order; all others follow by name.
FIRST = ("reward", "gold", "kl", "loss", "entropy", "grad_norm", "completions/mean_length", "tokens", "forwards", "seconds", "lr")

Pair = tuple["pd.Series[Any] | None", "pd.Series[Any] | None"]

_PROMPT = ["prompt_id", "prompt"]


# --- which update --------------------------------------------------------------------------------


def row_at(updates: pd.DataFrame, number: int) -> pd.Series[Any]:
    """The row of `tables.policy_updates` that an update of this number has, or the one before it; the first if there is none."""
    place = int(np.searchsorted(updates["update"].to_numpy(), number, side="right")) - 1
    return updates.iloc[max(place, 0)]


def update_at(updates: pd.DataFrame, clock: int) -> int:
    """The last of `tables.policy_updates` that is not later than a clock; the first if that comes before it."""
    place = int(np.searchsorted(updates["clock"].to_numpy(), clock, side="right")) - 1
    return int(updates["update"].iloc[max(place, 0)])


def last_of(updates: pd.DataFrame, iteration: int) -> int:
    """The last update of an iteration, of `tables.policy_updates`."""
    return int(updates.loc[updates["iteration"] == iteration, "update"].max())


# --- what was measured ---------------------------------------------------------------------------


def of_policy(metrics: pd.DataFrame) -> pd.DataFrame:
    """The policy's training metrics in order of the clock: clock, name, value."""
    rows = metrics.loc[(metrics["role"] == "policy") & (metrics["split"] == "train"), ["clock", "name", "value"]]
    return rows.astype({"name": str}).sort_values("clock", kind="stable").reset_index(drop=True)


def numbers_at(metrics: Mapping[str, pd.DataFrame], clocks: Mapping[str, int]) -> pd.DataFrame:
    """One row for each run with what `of_policy` holds of the last clock not later than its own; what a run did not record is missing."""
    found = {run: latest(frame, clocks[run]) for run, frame in metrics.items() if run in clocks}
    wide = pd.DataFrame.from_dict({run: dict(zip(rows["name"], rows["value"], strict=True)) for run, rows in found.items()}, orient="index")
    return wide[[*(name for name in FIRST if name in wide), *sorted(str(name) for name in wide if name not in FIRST)]]


def heldout(metrics: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The held-out scores of several runs, moment by moment, with a column that names the run."""
    found = {run: heldout_table(frame) for run, frame in metrics.items()}
    tables = [table.assign(run=run, order=range(len(table))) for run, table in found.items() if len(table)]
    if not tables:
        return pd.DataFrame()
    rows = pd.concat(tables).sort_values("order", kind="stable").drop(columns="order")
    return rows[["run", *(name for name in rows.columns if name != "run")]]


# --- what was written ----------------------------------------------------------------------------


def of_split(completions: pd.DataFrame, split: str) -> pd.DataFrame:
    """The completions of a split in order of the clock; `copy` numbers those of one prompt at one clock, from 0."""
    rows = completions[completions["split"] == split].sort_values("clock", kind="stable").reset_index(drop=True)
    return rows.assign(copy=rows.groupby(["clock", *_PROMPT], sort=False, observed=True).cumcount())


def latest(rows: pd.DataFrame, clock: int) -> pd.DataFrame:
    """The rows of the last clock not later than this, of rows in its order, such as `of_split` gives; none before the first."""
    clocks = rows["clock"].to_numpy()
    stop = int(np.searchsorted(clocks, clock, side="right"))
    return rows.iloc[int(np.searchsorted(clocks, clocks[stop - 1])) if stop else 0 : stop].reset_index(drop=True)


def first_seen(rows: pd.DataFrame) -> pd.DataFrame:
    """What was written when each prompt came up for the first time, of what `of_split` gives."""
    first = rows.groupby(_PROMPT, sort=False, observed=True)["clock"].transform("min")
    return rows[rows["clock"] == first].reset_index(drop=True)


def pairs(left: pd.DataFrame, right: pd.DataFrame) -> list[Pair]:
    """Completions of the same prompt, the n-th copy beside the n-th, in the order of the left; then the prompts that only one side has."""
    ours, theirs = ({(row["prompt_id"], row["prompt"], row["copy"]): row for _, row in side.iterrows()} for side in (left, right))
    both: list[Pair] = [(ours[key], theirs[key]) for key in ours if key in theirs]
    return both + [(ours[key], None) for key in ours if key not in theirs] + [(None, theirs[key]) for key in theirs if key not in ours]
