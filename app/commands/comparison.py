"""The table of a comparison: printed for people, written as JSON and CSV for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.comparison import JUDGES, Comparison, compare
from analysis.tables import finite
from app.commands.progress import duration
from app.reading.recordings import plain
from interplay import __version__, disk
from interplay.compare import Plan, Row, budget, standing
from interplay.records import RunInfo, Stream
from interplay.store import RunStore

JSON, CSV = "comparison.json", "comparison.csv"
_COLUMNS: dict[Stream, list[str]] = {
    "completions": ["update", "iteration", "split", "prompt_id", "gold", "proxy", "kl", "tokens", "finished"],
    "metrics": ["update", "iteration", "role", "split", "name", "value", "seconds"],
}
_COSTS = ("forwards", "tokens", "time", "peak memory")
_UNITS = {"gold": "gold, change in [-1, 1]", "proxy": "frozen reward model 0, change in SD before training"}


@dataclass(frozen=True)
class Found:
    """A comparison with what stands beside its numbers."""

    plan: Plan
    numbers: Comparison
    infos: list[RunInfo]
    missing: list[str]  # rows that are not finished


def load(plan: Plan) -> Found | None:
    """All finished rows, compared; None if there is none."""
    states = {row.name: standing(row) for row in plan.arms}
    done = [row for row in plan.arms if states[row.name] == "finished"]
    if not done:
        return None
    stores = [RunStore.open(row.folder) for row in done]
    completions, metrics = (pd.concat([_frame(store, row, stream) for store, row in zip(stores, done, strict=True)]) for stream in _COLUMNS)
    numbers = compare(completions.reset_index(drop=True), metrics.reset_index(drop=True), plan.methods, plan.controls)
    return Found(plan, numbers, [store.info for store in stores], [name for name, state in states.items() if state != "finished"])


def _frame(store: RunStore, row: Row, stream: Stream) -> pd.DataFrame:
    """A stream with its row's name in front, words as plain text."""
    return plain(store.read(stream, columns=_COLUMNS[stream])).assign(run=row.name, method=row.method, seed=row.seed)


# --- printed ---------------------------------------------------------------------------------------


def show(found: Found) -> None:
    """Small tables, each narrow enough for a terminal; intervals are 95 %, over seeds."""
    numbers, console = found.numbers, Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for judge in JUDGES:
        _print(console, _UNITS[judge], ("method", "seeds", "mean", "Student's t", "bootstrap", "IQM", "its bootstrap"), map(_score(judge), numbers.methods))
    reach = f"at KL {numbers.matched_kl:.2f}" if finite(numbers.matched_kl) is not None else "at equal KL"
    _print(console, "texts", ("method", "KL (nats)", f"gold {reach}", f"proxy {reach}", "alarm", "finished", "tokens"), map(_texts, numbers.methods))
    if numbers.differences:
        columns = ("difference", "judge", "seeds", "mean", "Student's t", "bootstrap", "80 % power", "verdict")
        _print(console, "same seeds, same prompts", columns, map(_difference, numbers.differences))
    heads = ("method", *_COSTS, *(f"time to {numbers.methods[0]['method']}'s {judge}" for judge in JUDGES))
    _print(console, "cost of a run (mean over seeds)", heads, map(_cost, numbers.methods))
    _print(console, "spent on training", ("run", "prompts", "completions", "longest", "updates"), map(_spent, numbers.runs))
    for line in claims(numbers):
        console.print(Text(line))
    for line in (*([f"not finished: {', '.join(found.missing)}"] if found.missing else []), *numbers.warnings):
        console.print(Text(f"note: {line}"))


def brief(console: Console, methods: Sequence[Mapping[str, Any]]) -> None:
    """What each method gained, and for what cost, in one table; all the rest is said by `show`."""
    title = "change on held-out prompts, with 95 % intervals over seeds (gold in [-1, 1], proxy in SD), and cost of a run"
    _print(console, title, ("method", "seeds", *JUDGES, *_COSTS), map(_brief, methods))


def _brief(row: Mapping[str, Any]) -> tuple[str, ...]:
    name, *costs = _cost(row)[: 1 + len(_COSTS)]
    return name, str(row[JUDGES[0]]["seeds"]), *(_with_interval(row[judge]) for judge in JUDGES), *costs


def _print(console: Console, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="")
    for number, name in enumerate(heads):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print()


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("run", row["method"])) + (" (control)" if row.get("control") else "")


def _score(judge: str) -> Any:
    return lambda row: (_name(row), *_estimate(row[judge]), _number(row[judge]["iqm"]), interval(row[judge]["iqm_bootstrap"]))


def _estimate(row: Mapping[str, Any]) -> tuple[str, ...]:
    return str(row["seeds"]), _number(row["mean"]), interval(row["student"]), interval(row["bootstrap"])


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    equal = row["at_equal_kl"]
    shares = (_share(row[name]) for name in ("alarm", "finished"))
    return _name(row), _plain(row["kl"], 2), _number(equal["gold"]), _number(equal["proxy"]), *shares, _plain(row["length"], 1)


def _difference(row: Mapping[str, Any]) -> tuple[str, ...]:
    return f"{row['method']} - {row['minus']}", row["judge"], *_estimate(row), _plain(row["detectable"], 3), verdict(row)


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory, times = finite(row["peak_memory"]), [finite(row["seconds_to_first_method"][judge]) for judge in JUDGES]
    spent = (_plain(row["forwards"], 0), _plain(row["tokens"], 0), duration(row["seconds"]))
    return _name(row), *spent, f"{memory / 2**30:.2f} GiB" if memory else "-", *("-" if time is None else duration(time) for time in times)


def _spent(row: Mapping[str, Any]) -> tuple[str, ...]:
    return _name(row), *(str(row[name]) for name in ("prompts", "completions", "longest", "updates"))


def _number(value: float) -> str:
    return "-" if finite(value) is None else f"{value:+.3f}"


def _plain(value: float, digits: int) -> str:
    return "-" if finite(value) is None else f"{value:.{digits}f}"


def _share(value: float) -> str:
    return "-" if finite(value) is None else f"{value:.0%}"


def interval(ends: Sequence[float]) -> str:
    return "-" if finite(ends[0]) is None else f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"


# --- what is claimed -------------------------------------------------------------------------------


def verdict(row: Mapping[str, Any]) -> str:
    """What a paired difference shows: `more` or `less` where its 95 % interval leaves out zero, `not shown` where it holds zero, `unknown` without one."""
    low, high = (finite(end) for end in row["student"])
    if low is None or high is None:
        return "unknown"
    return "more" if low > 0 else "less" if high < 0 else "not shown"


def claims(numbers: Comparison) -> list[str]:
    """What is claimed and what is not, a sentence for each judge, and what none of it says."""
    lines = [line for judge in reversed(JUDGES) if (line := _claim(judge, [row for row in numbers.differences if row["judge"] == judge]))]
    rest = "Each interval is at 95 % by itself, over seeds that share one start: none of this speaks of other starts, and what is not shown may still be there."
    return [*lines, rest] if lines else []


def _claim(judge: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """`Shown in proxy: rloo gains more than zopro (+0.180 [+0.025, +0.335]). Not shown: mezo against zopro.`"""
    if not rows:
        return ""
    first = rows[0]["minus"]
    shown = [f"{row['method']} gains {verdict(row)} than {first} ({_difference_words(row)})" for row in rows if verdict(row) in ("more", "less")]
    parts = [f"Shown in {judge}: {'; '.join(shown) if shown else 'nothing'}."]
    for word, meant in (("not shown", "Not shown, either way"), ("unknown", "Unknown, for want of seeds")):
        if names := [str(row["method"]) for row in rows if verdict(row) == word]:
            parts.append(f"{meant}: {', '.join(names)} against {first}.")
    return " ".join(parts)


def _difference_words(row: Mapping[str, Any]) -> str:
    few = f", though less than the {_plain(row['detectable'], 3)} that {row['seeds']} seeds find with 80 % power" if row["warning"] else ""
    return f"{_with_interval(row)}{few}"


def _with_interval(row: Mapping[str, Any]) -> str:
    """The mean, and behind it the interval where there is one."""
    return f"{_number(row['mean'])} {interval(row['student'])}".removesuffix(" -")


# --- written ---------------------------------------------------------------------------------------


def write(found: Found) -> tuple[Path, Path]:
    """`comparison.json` holds every number, `comparison.csv` one line for each method; neither holds a path of this machine."""
    place = found.plan.out
    with disk.explained(place, "cannot take the table"):
        disk.write_json(place / JSON, to_json(found))
        aside = disk.temporary(place / CSV)
        _write_csv(aside, [_flat(row) for row in clean(found.numbers.methods)])
        aside.replace(place / CSV)
    return place / JSON, place / CSV


def to_json(found: Found) -> dict[str, Any]:
    """What undefined numbers are is null."""
    shared = {key: Path(value).name if key in ("data", "model", "judge_model") and value else value for key, value in budget(found.plan).items()}
    return {
        "interplay": __version__,
        "methods_compared": list(found.plan.methods),
        "controls": sorted(found.plan.controls),
        "warm_up": found.plan.warm.method if found.plan.warm else None,
        "budget": shared,
        "not_finished": found.missing,
        "versions": _different(info.versions for info in found.infos),
        "machines": _different(info.machine for info in found.infos),
        **clean(asdict(found.numbers)),
    }


def _different(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """More than one means that the rows were not made alike."""
    found: list[dict[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def clean(value: Any) -> Any:
    """Plain JSON values; NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return finite(value) if isinstance(value, float) else value


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """`{"gold": {"student": [a, b]}}` -> `gold_student_low`, `gold_student_high`."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}_")
        elif key == "seeds" and isinstance(value, list):
            found["run_seeds"] = " ".join(map(str, value))
        elif isinstance(value, list):
            found |= {f"{before}{key}_{end}": item for end, item in zip(("low", "high"), value, strict=True)}
        else:
            found[before + key] = value
    return found


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
