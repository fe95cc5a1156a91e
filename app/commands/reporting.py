"""`interplay report RUN...`: the verdicts C1 to C6, as a table, as JSON and with the figures behind them."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from analysis import forecast, paper, recipes, report
from analysis.evidence import Recording
from app.commands.comparison import brief, clean
from app.reading import recorded, recordings, reported
from app.reading.recorded import Recorded
from interplay import __version__, disk
from interplay.errors import ConfigError

JSON = "report.json"
#: Figures that `--out` brings: of each run, and of runs of several methods.
OF_ONE, OF_MANY = ("alignment_curve", "module_coupling", "persistence_lags", "lag_profile"), ("arms", "arm_differences")


def run(words: Sequence[str], runs: Path, *, as_json: bool, out: Path | None) -> int:
    """Exit code 0; raises `ConfigError` for what is no run, and for runs of different models, which no number can join."""
    named = list({one.path: one for word in words for one in recorded.find(word, runs)}.values())
    found = [recordings.load(one.path, one.arm) for one in named]
    told = to_json(found) | {"methods": _methods(named)}
    if out is not None:
        _write(out, told, named)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        show(told, _named(named))
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
        "verdicts": [clean({**asdict(verdict), "question": verdict.question}) for verdict in verdicts],
        "forecast": [clean(_forecast(one)) for one in found],
        "cautions": reported.cautions(found),
    }


def _chance(one: Recording) -> str:
    """What the nulls of this run rest on."""
    if one.policy is None or one.reward is None:
        return "none: not both roles' directions were recorded"
    return "recorded" if one.has_nulls else _OLDER


_OLDER = "error of the sketches; recorded before nulls were"


def _methods(named: Sequence[Recorded]) -> list[dict[str, Any]]:
    """What each method of a comparison gained and what it cost; none of other runs, which may differ in anything."""
    if len({one.arm for one in named}) < 2 or not all(one.arm for one in named):
        return []
    with contextlib.suppress(ValueError):  # no held-out scores, or rows of two comparisons
        return [clean(row) for row in recipes.Sources(named).methods]
    return []


def _forecast(one: Recording) -> dict[str, Any]:
    found, measured = forecast.forecast(one), forecast.measured(one.metrics)
    return {
        "run": one.run,
        "alpha": found.alpha,
        "whole": found.whole,
        "layers": found.rows.to_dict("records"),
        "reason": found.reason,
        "suggested_alpha": forecast.suggested_alpha(found),
        "measured_gain": None if measured is None else [measured.low, measured.high],
    }


# --- printed -----------------------------------------------------------------------------------------


def _named(named: Sequence[Recorded]) -> str:
    """`10 runs: rloo: 5 seeds, zopro: 5 seeds`: the rows of a comparison by its methods, other runs by their names."""
    seeds = Counter(map(_method, named))
    told = {_method(one): f"{one.arm}: {seeds[_method(one)]} seeds" if seeds[_method(one)] > 1 else one.run for one in named}
    return f"{len(named)} run{'s' if len(named) > 1 else ''}: {', '.join(told.values())}"


def _method(one: Recorded) -> tuple[Path, str | None]:
    """What a row of a comparison shares with its other seeds; a run by itself shares it with none."""
    return (one.path.parent, one.arm) if one.arm else (one.path, None)


def show(told: dict[str, Any], names: str) -> None:
    """The runs, what methods gained, the verdicts with their sentences, then what the previous update may be worth."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(Text(f"{names}\n"))
    if told["methods"]:
        brief(console, told["methods"])
    for _, rows in itertools.groupby(told["verdicts"], key=lambda row: row["value"] is None):
        _verdicts(console, list(rows))
    for line in [*_worths(told["forecast"]), *(f"note: {line}" for line in told["cautions"])]:
        console.print(Text(line))


def _verdicts(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Each with its sentence; those that nothing was recorded for share their reasons."""
    together = [rows] if rows[0]["value"] is None else [[row] for row in rows]
    for block in together:
        for row in block:
            console.print(Text.assemble((f"{row['label']} ", "bold"), f"{row['question']} ", (row["answer"], "bold")))
        console.print(Padding(Text(" ".join(dict.fromkeys(row["sentence"] for row in block))), (0, 0, 1, 3)))


def _worths(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each run with a forecast; those without one are counted."""
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    missing = [f"forecast: none for {count} of {len(rows)} runs: {reason}" for reason, count in reasons.items()]
    return [_worth(row) for row in rows if not row["reason"]] + missing


def _worth(row: dict[str, Any]) -> str:
    whole, alpha = row["whole"], row["suggested_alpha"]
    start = "the recording cannot tell an alpha to start from" if alpha is None else f"an alpha to start from: {alpha:g}"
    gain = f"squared slope along ZOPrO's z {whole['gain']:.3g} [{whole['low']:.3g}, {whole['high']:.3g}] times that of isotropic noise"
    return f"forecast: {row['run']}: rho {whole['rho']:+.4f}, {gain} (alpha {row['alpha']}, an order of magnitude: docs/metrics.md); {start}"


def _write(place: Path, told: dict[str, Any], named: Sequence[Recorded]) -> None:
    with disk.explained(place, "cannot take the report"):
        place.mkdir(parents=True, exist_ok=True)
        disk.write_json(place / JSON, told)
        for file, content in _figures(named):
            (place / file).write_bytes(content)


def _figures(named: Sequence[Recorded]) -> Iterator[tuple[str, bytes]]:
    """The figures that the verdicts rest on, as far as the runs have them: file name and content."""
    wanted = [(f"{one.run}-{name}.pdf", name, [one]) for one in named for name in OF_ONE]
    wanted += [(f"{name}.pdf", name, list(named)) for name in OF_MANY] if len({one.method for one in named}) > 1 else []
    for file, name, shown in wanted:
        with contextlib.suppress(ValueError):  # nothing was recorded for it
            yield file, paper.render(recipes.make(name, shown), "pdf")
