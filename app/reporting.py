"""`interplay report RUN...`: the verdicts C1 to C6, as a table, as JSON and with the figures behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis import forecast, report
from analysis.evidence import Recording
from analysis.report import Verdict
from analysis.tables import finite
from app import recordings
from interplay import __version__, disk
from interplay.errors import ConfigError

JSON = "report.json"


def run(words: Sequence[str], runs: Path, *, as_json: bool, out: Path | None) -> int:
    """Exit code 0; raises `ConfigError` for what is no run, and for runs of different models, which no number can join."""
    found = [recordings.load(path, recordings.arms(path)) for path in recordings.folders(words, runs)]
    told = to_json(found)
    if out is not None:
        _write(out, told)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        show(told)
    return 0


def to_json(found: Sequence[Recording]) -> dict[str, Any]:
    """Everything that is printed, and more digits. What is undefined is null."""
    try:
        verdicts = report.report(found)
    except ValueError as error:
        raise ConfigError(f"these runs cannot be reported on together: {error}") from error
    return {
        "interplay": __version__,
        "runs": [{"run": one.run, "method": one.method, "seed": one.seed, "group": one.group, "chance": _chance(one)} for one in found],
        "verdicts": [_plain(verdict) for verdict in verdicts],
        "forecast": [_forecast(one) for one in found],
    }


def _chance(one: Recording) -> str:
    """What the nulls of this run rest on."""
    known = "null_other_update" in one.updates and one.updates["null_other_update"].notna().any()
    return "recorded" if known else "error of the sketches; recorded before nulls were"


def _plain(verdict: Verdict) -> dict[str, Any]:
    raw = {**asdict(verdict), "question": verdict.question}
    return {name: _clean(value) for name, value in raw.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return finite(value) if isinstance(value, float | np.floating) else value


def _forecast(one: Recording) -> dict[str, Any]:
    found, measured = forecast.forecast(one), forecast.measured(one.metrics)
    rows = [{name: _clean(value) for name, value in row.items()} for row in found.rows.to_dict("records")]
    return {
        "run": one.run,
        "alpha": found.alpha,
        "whole": {name: _clean(value) for name, value in found.whole.items()},
        "layers": rows,
        "reason": found.reason,
        "suggested_alpha": _clean(forecast.suggested_alpha(found)),
        "measured_gain": None if measured is None else [_clean(measured.low), _clean(measured.high)],
    }


# --- printed -----------------------------------------------------------------------------------------


def show(told: dict[str, Any]) -> None:
    """The verdicts with their sentences, then what the previous update may be worth."""
    console = Console(highlight=False)
    names = ", ".join(dict.fromkeys(str(one["run"]) for one in told["runs"]))
    console.print(Text(f"{len(told['runs'])} runs: {names}" if len(told["runs"]) > 1 else names))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    for number in range(3):
        table.add_column(no_wrap=number == 0, min_width=2, ratio=(None, 1, 3)[number])
    for row in told["verdicts"]:
        table.add_row(Text(row["label"], style="bold"), Text(f"{row['question']} {row['answer']}."), Text(row["sentence"]))
    console.print(table)
    for row in told["forecast"]:
        console.print(Text(_worth(row)))
    older = [one["run"] for one in told["runs"] if one["chance"] != "recorded"]
    if older:
        console.print(Text(f"note: {', '.join(older)}: chance is the error of the sketches alone; recorded before nulls were, so it is too narrow"))


def _worth(row: dict[str, Any]) -> str:
    if row["reason"]:
        return f"{row['run']}: no forecast of ZOPrO's gain: {row['reason']}"
    whole, alpha = row["whole"], row["suggested_alpha"]
    ends = "" if whole["low"] is None else f" [{whole['low']:.3g}, {whole['high']:.3g}]"
    start = "the recording cannot tell a good alpha" if alpha is None else f"an alpha to start from: {alpha:g}"
    gain = f"squared slope along z foretold at {whole['gain']:.3g}{ends} times that of isotropic noise (alpha {row['alpha']})"
    return f"{row['run']}: rho {whole['rho']:+.3f}; {gain}; {start}"


def _write(place: Path, told: dict[str, Any]) -> None:
    with disk.explained(place, "cannot take the report"):
        place.mkdir(parents=True, exist_ok=True)
        disk.write_json(place / JSON, told)
