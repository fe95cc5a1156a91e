"""What the report says of recorded runs, reached once for each version of their files: verdicts, forecasts, and what to be careful about."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import forecast, report
from analysis.evidence import Recording
from analysis.forecast import FIRST, Forecast
from analysis.report import Verdict
from analysis.uncertainty import Interval
from app.reading import recordings
from app.reading.recorded import Recorded
from interplay.errors import ConfigError
from interplay.records import STREAMS


@dataclass(frozen=True)
class Worth:
    """What ZOPrO's sampling may gain in one run: foretold, the alpha to begin with, and measured where it was."""

    run: str
    forecast: Forecast
    alpha: float
    measured: Interval | None


@dataclass(frozen=True)
class Told:
    verdicts: tuple[Verdict, ...]
    worths: tuple[Worth, ...]
    cautions: tuple[str, ...]


def tell(runs: Sequence[Recorded]) -> Told:
    """Raises `ConfigError` for runs that no number can join, and `StoreError` for what cannot be read."""
    return _tell(tuple((one.path, one.arm) for one in runs), versions(runs))


def versions(runs: Sequence[Recorded]) -> tuple[Any, ...]:
    return tuple(one.version(STREAMS) for one in runs)


def bytes_of(runs: Sequence[Recorded]) -> int:
    """Size of the files that a report reads."""
    return sum(size for one in runs for _, size, _ in one.version(STREAMS)[1:])


@functools.lru_cache(maxsize=32)
def _tell(runs: tuple[tuple[Path, str | None], ...], versions: tuple[Any, ...]) -> Told:  # noqa: ARG001 - `versions` makes an older answer unreachable
    found = [recordings.load(path, arm) for path, arm in runs]
    try:
        verdicts = tuple(report.report(found))
    except ValueError as error:
        raise ConfigError(f"these runs cannot be reported on together: {error}") from error
    return Told(verdicts, tuple(_worth(one) for one in found), tuple(cautions(found)))


def _worth(one: Recording) -> Worth:
    made = forecast.forecast(one)
    return Worth(one.run, made, forecast.suggested_alpha(made), forecast.measured(one.metrics))


def cautions(found: Sequence[Recording]) -> list[str]:
    """What makes all numbers weaker than they look, one line each."""
    both = [one for one in found if one.policy is not None and one.reward is not None]
    older = [one.run for one in both if not one.has_nulls]
    first = [one for one in found if one.method.split(":")[0] in FIRST] or list(found)
    groups = len({one.group for one in first if len(one.updates)})
    which = "all of these runs" if len(older) == len(found) > 1 else ", ".join(older)
    lines = [f"Recorded before nulls were, so chance is the error of the sketches alone and too narrow: {which}."] if older else []
    return lines + ([f"C1 to C3 are means over runs of {groups} configurations, which differ in more than their seeds."] if groups > 1 else [])
