"""Runs that belong together: seeds of one configuration as one line, comparisons and their rows, and the settings in which runs differ.

No widgets. Held-out changes are the last score minus the first; means and intervals are over seeds, of finished runs only.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from analysis import tables
from analysis.uncertainty import interval_over_seeds
from app.compare import standings
from app.compare.standings import Entry
from app.queue.job import Job
from app.reading import loading, naming, recordings
from interplay import labels
from interplay.config import RunConfig
from interplay.records import RunInfo
from interplay.store import Runs, RunSummary

#: What a setting that a run does not have is shown as.
ABSENT = "not set"
#: What a score changed by, as all tables call it, and what that means.
CHANGES = {
    "Δ gold": "change over the run: last held-out gold score minus the first",
    "Δ proxy": "change over the run: last held-out score by frozen reward model 0 minus the first",
}
_FORM = [field.name for field in fields(RunConfig)]


# --- settings --------------------------------------------------------------------------------------


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Every setting as text, the method's own ones under `settings.NAME`; where the run lies is none of them."""
    own = config.get("settings")
    inner = {f"settings.{name}": value for name, value in own.items()} if isinstance(own, dict) else {}
    flat = {**{str(key): value for key, value in config.items() if key not in ("out", "settings")}, **inner}
    return {key: _text(value) for key, value in flat.items()}


def _text(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The settings in which these differ, each with its value in every one: in the order of the form, those that some do not have at the end."""
    known = [settings(config) for config in configs]
    found = {key: [one.get(key, ABSENT) for one in known] for one in known for key in one}
    order = [key for key in sorted(found, key=_place) if len(set(found[key])) > 1]
    return {key: found[key] for key in sorted(order, key=lambda key: ABSENT in found[key])}


def _place(key: str) -> tuple[int, str]:
    return (_FORM.index(key), key) if key in _FORM else (len(_FORM), key)


def ends(runs: Sequence[RunSummary]) -> dict[str, list[float | None]]:
    """What gold and proxy changed by in each run, and its held-out scores at the end; those that no run has are left out."""
    found = [loading.ends(run) for run in runs]
    rows: dict[str, list[float | None]] = {label: [change(one, label.removeprefix("Δ ")) for one in found] for label in CHANGES}
    for name, (label, _) in tables.HELDOUT.items():
        rows[label] = [tables.finite(one[name].last) if name in one else None for one in found]
    return {label: values for label, values in rows.items() if any(value is not None for value in values)}


def change(found: Mapping[str, tables.Ends], name: str) -> float | None:
    """What one held-out score changed by; None while there is no second one."""
    return found[name].change if name in found else None


# --- configurations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % interval, or the reason why there is none."""

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    reason: str = ""


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed. `differs`: the settings in which it differs from others of its method and task."""

    key: str
    runs: tuple[RunSummary, ...]
    differs: str = ""

    @property
    def name(self) -> str:
        return f"{self.runs[0].method or 'unknown'} on {self.runs[0].task or 'unknown'}"

    @property
    def finished(self) -> list[RunSummary]:
        return [run for run in self.runs if run.state == "finished"]

    @property
    def states(self) -> str:
        """`3 finished, 1 running`."""
        return ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in self.runs).most_common())

    def mean(self, score: str) -> Mean:
        """Over seeds; several runs of one seed count as one."""
        values: dict[Any, list[float]] = {}
        for run in self.finished:
            if (value := change(loading.ends(run), score)) is not None:
                values.setdefault(run.seed, []).append(value)
        return mean_over_seeds([mean for found in values.values() if (mean := _mean(found)) is not None])


def mean_over_seeds(values_S: Sequence[float]) -> Mean:
    """The mean of one value for each seed, by Student's t."""
    if not values_S:
        return Mean(None, None, None, 0, "no finished score yet")
    found = interval_over_seeds(values_S)
    reason = "one seed: no interval" if len(values_S) == 1 else found.reason
    return Mean(_mean(values_S), tables.finite(found.low), tables.finite(found.high), len(values_S), reason)


def configurations(runs: Sequence[RunSummary]) -> list[Configuration]:
    """The readable runs by configuration, in the order in which they are given."""
    found: dict[str, list[RunSummary]] = {}
    for run in runs:
        if run.state != "unreadable":
            found.setdefault(_key(run), []).append(run)
    alike: dict[tuple[str | None, str | None], list[str]] = {}
    for key, members in found.items():
        alike.setdefault((members[0].method, members[0].task), []).append(key)
    told = {key: words for keys in alike.values() for key, words in zip(keys, _told([found[key][0] for key in keys]), strict=True)}
    return [Configuration(key, tuple(members), told[key]) for key, members in found.items()]


def _key(run: RunSummary) -> str:
    return recordings.group(RunInfo(run.run, run.config, [], ""))


def _told(runs: Sequence[RunSummary]) -> list[str]:
    """For each of these, its values of the settings that tell it from all others, but for the seeds; how many more differ somewhere is counted."""
    shown = differing([unseeded(run.config) for run in runs])
    told = [_telling(shown, place) for place in range(len(runs))]
    rest = [f", and {more} more" if (more := len(shown) - len(names)) else "" for names in told]
    return [", ".join(f"{name} {shown[name][place]}" for name in names) + rest[place] for place, names in enumerate(told)]


def _telling(shown: Mapping[str, Sequence[str]], place: int) -> list[str]:
    """Names of few settings by which one differs from every other, those first that tell it from the most alike ones."""
    alike = [other for other in range(len(next(iter(shown.values()), ()))) if other != place]
    told: list[str] = []
    while alike:
        left = {name: [other for other in alike if values[other] == values[place]] for name, values in shown.items()}
        best = min(left, key=lambda name: (len(left[name]), -len(set(shown[name]))))
        if len(left[best]) == len(alike):
            break
        told, alike = [best, *told], left[best]
    return told


def unseeded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are the same in all runs of a configuration."""
    return {key: value for key, value in config.items() if key not in recordings.SEEDS}


def mean_ends(groups: Sequence[Configuration]) -> dict[str, list[float | None]]:
    """`ends` of configurations: means over their finished runs."""
    found = [ends(group.finished) for group in groups]
    labels = dict.fromkeys(label for one in found for label in one)
    return {label: [_mean([value for value in one.get(label, []) if value is not None]) for one in found] for label in labels}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


# --- comparisons -----------------------------------------------------------------------------------


def rows(comparison: Entry) -> list[RunSummary]:
    """The runs of a comparison that have begun."""
    planned = {row.row.name for row in comparison.rows}
    return [run for run in Runs(comparison.path).list() if run.run in planned]


def state(comparison: Entry, jobs: Sequence[Job]) -> str:
    """Of a comparison, in the words of a run's state."""
    found = comparison.state(standings.job_of(comparison, jobs))
    return "running" if found == "stopping" else found


def tags(comparison: Entry) -> list[str]:
    """What its rows are tagged with."""
    return [tag for now in comparison.rows for tag in labels.read(now.row.folder).tags]


def told(comparison: Entry, jobs: Sequence[Job]) -> dict[str, set[str]]:
    """What can be asked of a comparison, in small letters: values of each setting in its rows, their tags, its state, and the folder that holds it."""
    values = {"state": {state(comparison, jobs)}, "in": {naming.folder_of(comparison.path).lower()}, "tag": {labels.same(tag) for tag in tags(comparison)}}
    for row in (now.row for now in comparison.arms):
        for name, value in row.config.to_mapping().items():
            values.setdefault(name, set()).add(str(value).lower())
        values["method"].add(row.method.lower())  # an arm is asked for by its method or by its own name
    return values


def search(comparisons: Sequence[Entry], jobs: Sequence[Job], words: str) -> list[Entry]:
    """The comparisons that hold all the words, as `naming.search` has it: in name, state, or a row's method, task, model, seed or tag; or `FIELD:VALUE`."""
    wanted = naming.asked(words)
    return [one for one in comparisons if not wanted or _hold(one.name.lower(), told(one, jobs), wanted)]


def _hold(name: str, values: Mapping[str, set[str]], wanted: Sequence[str]) -> bool:
    seeds = {f"seed {seed}" for seed in values.get("seed", ())}
    models = {model.rpartition("/")[2] for model in values.get("model", ())}
    text = " ".join([name, *seeds, *models, *(word for field in ("state", "method", "task", "tag") for word in values.get(field, ()))])
    return all(_holds(text, values, word) for word in wanted)


def _holds(text: str, values: Mapping[str, set[str]], word: str) -> bool:
    """A word with a colon asks for a field only if there is such a field: the name of an arm may hold a colon, too."""
    field, colon, value = word.partition(":")
    if colon and field in {"state", "in", "tag", *_FORM}:
        return bool(values.get(field, set()) & set((labels.same(value) if field == "tag" else value).split(",")))
    return word in text
