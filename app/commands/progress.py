"""Progress of a run on the terminal: a bar on a screen, one line for each step in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Reporter = Callable[[str, float, Mapping[str, float]], None]
_LONGEST = 100 * 86_400  # seconds; beyond, nobody counts hours


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A reporter that suits where standard error goes."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(24),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[scores]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=1.0, scores="")

        def report(doing: str, share: float, metrics: Mapping[str, float]) -> None:
            progress.update(task, description=doing, completed=share, scores=scores(metrics))

        yield report


def _lines() -> Reporter:
    began, last = time.monotonic(), ""

    def report(doing: str, share: float, metrics: Mapping[str, float]) -> None:
        nonlocal last
        if doing != last:
            print(f"{time.monotonic() - began:6.0f} s  {share:4.0%}  {doing:<36}  {scores(metrics)}", file=sys.stderr, flush=True)
            last = doing

    return report


def scores(metrics: Mapping[str, float]) -> str:
    """`reward 0.41  KL 1.20  12 min left`, whichever is known."""
    names = {"reward": "reward", "kl": "KL"}
    words = [f"{label} {metrics[name]:.3f}" for name, label in names.items() if name in metrics]
    return "  ".join([*words, *([f"{duration(metrics['left'])} left"] if "left" in metrics else [])])


def about(seconds: float) -> str:
    """`about 12 min`, `more than 100 days`."""
    words = duration(seconds)
    return words if seconds > _LONGEST else f"about {words}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `more than 100 days`."""
    if seconds > _LONGEST:
        return f"more than {_LONGEST // 86_400} days"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
