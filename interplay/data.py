"""`load`: what a run reads. Its own prompts, or real data, split once into training and held-out.

The held-out prompts are chosen by a hash of the prompt's id, not by the run's seed: every run on
the same data is scored on the same prompts, and all rows of a prompt stay on one side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from interplay import layouts, readers
from interplay.config import RunConfig
from interplay.errors import DataError
from interplay.tasks.base import Pair, Prompt, Task, TaskData

PROMPTS = Path(__file__).resolve().parent.parent / "data" / "prompts"
LEAST_TRAINING = 8
OWN = "own prompts"


def load(config: RunConfig, task: Task) -> TaskData:
    """Prompts, held-out prompts and judged pairs of a run. Raises `DataError`."""
    if config.data is None:
        source, found = _own(task)
    else:
        source = readers.read(config.data, config.data_split)
        found = layouts.harvest(_select(source.rows, config.data_rows), task, source.name)
    return _split(source, found, config)


# --- the task's own prompts ----------------------------------------------------------------------


def own_prompts(task: Task) -> tuple[Prompt, ...]:
    """The prompts written for this project. Raises `DataError` when the checkout is incomplete."""
    return tuple(_own(task)[1].prompts.values())


def _own(task: Task) -> tuple[readers.Source, layouts.Harvest]:
    path = PROMPTS / task.prompts_file
    if not path.is_file():
        raise DataError(f"the prompts of --task {task.name} are missing: {path}; run from a complete checkout, or give --data")
    source = readers.Source(task.prompts_file, readers.read_file(path), readers.file_digest(path))
    found = layouts.Harvest(OWN)
    for row in source.rows:
        text = str(row["prompt"])
        found.prompts[row["id"]] = Prompt(row["id"], text, task.messages(text), row.get("reference"))
    return source, found


# --- which rows, which side ----------------------------------------------------------------------


def _select(rows: Sequence[readers.Row], limit: int | None) -> Sequence[readers.Row]:
    """At most `limit` rows, in the order of a hash of their prompt: not the file's head, and a prompt's rows stay together."""
    if limit is None or limit >= len(rows):
        return rows
    return sorted(rows, key=lambda row: (_hash(_prompt_cell(row)), _hash(row)))[:limit]


def _prompt_cell(row: readers.Row) -> Any:
    return next((row[name] for name in ("prompt", "messages") if name in row), row)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def _split(source: readers.Source, found: layouts.Harvest, config: RunConfig) -> TaskData:
    """`config.heldout` prompts by hash order; the rest trains."""
    order = sorted(found.prompts, key=lambda key: _hash(["held-out", key]))
    if len(order) < config.heldout + LEAST_TRAINING:
        raise DataError(
            f"--data is {source.name!r} with {len(order)} usable prompts, but --heldout is {config.heldout} and at least {LEAST_TRAINING} must be left "
            f"to train on; use --heldout {max(2, len(order) - LEAST_TRAINING)} or fewer, or more data{_lost(found)}"
        )
    held = set(order[: config.heldout])
    kept = [key for key in found.prompts if key not in held]  # in the file's order; the loop shuffles by its own seed
    return TaskData(
        prompts=tuple(found.prompts[key] for key in kept),
        heldout=tuple(found.prompts[key] for key in order[: config.heldout]),
        pairs=_pairs(found, kept),
        heldout_pairs=_pairs(found, order[: config.heldout]),
        report=_report(source, found, config.data_rows),
    )


def _pairs(found: layouts.Harvest, keys: Iterable[str]) -> tuple[Pair, ...]:
    return tuple(pair for key in keys for pair in found.pairs.get(key, ()))


def _lost(found: layouts.Harvest) -> str:
    return "".join(f"; {n} rows left out: {reason}" for reason, n in found.left_out.most_common(3))


def _report(source: readers.Source, found: layouts.Harvest, limit: int | None) -> dict[str, Any]:
    """What `run.json` says about the data."""
    return {
        "source": source.name,
        "sha256": source.sha256,
        "layout": found.layout,
        "rows": len(source.rows),
        "rows_read": min(len(source.rows), limit or len(source.rows)) if found.layout != OWN else len(source.rows),
        "prompts": len(found.prompts),
        "pairs": sum(map(len, found.pairs.values())),
        "left_out": dict(sorted(found.left_out.items())),
        "ignored_columns": list(found.ignored),
    }
