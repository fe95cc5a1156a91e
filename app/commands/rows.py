"""Runs the rows of a plan: each a process of the command line that a person would type, one on each device at a time.

A row that fails does not stop the others. A signal is passed on to the runs, which end cleanly by themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from app.commands.engine import Gpu
from app.commands.progress import Reporter
from app.queue.jobs import tail
from interplay import compare, interrupts, pulse
from interplay.compare import Plan, Row
from interplay.errors import ConfigError, Interrupted, StoreError
from interplay.store import RunStore

GRACE_SECONDS = 60.0
POLL_SECONDS = 0.25
_GIB = 2**30


@dataclass(frozen=True)
class Slot:
    """A device that runs one row at a time. `gpu` is None for the CPU; `visible` is what CUDA calls it."""

    gpu: Gpu | None = None
    visible: str = ""

    @property
    def free(self) -> int:
        """Free memory in bytes: of a GPU as it was before the first row, of the machine as it is now."""
        return self.gpu.free if self.gpu else int(psutil.virtual_memory().available)

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONUNBUFFERED": "1", **({"CUDA_VISIBLE_DEVICES": self.visible} if self.gpu else {})}

    def __str__(self) -> str:
        return f"{self.gpu.name if self.gpu else 'CPU'} ({self.free / _GIB:.1f} GiB free)"


def slots(gpus: Sequence[Gpu]) -> list[Slot]:
    """One for each GPU, else one for the CPU: two trainings on one small machine only slow each other."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    named = names if len(names) == len(gpus) and all(names) else [str(number) for number in range(len(gpus))]
    return [Slot(gpu, name) for gpu, name in zip(gpus, named, strict=True)] or [Slot()]


# --- memory ----------------------------------------------------------------------------------------


def needed(row: Row, weights: int | None, peak: float | None) -> int:
    """Bytes that a row needs at least: what the warm-up needed at its peak, or a lower bound from the weight files.

    Adapters share one copy of the weights. `--tune full` holds policy, reference and reward model, and gradient and two moments of
    the policy. Activations are left out, so a row is refused only if it surely cannot fit.
    """
    files = (weights or 0) * (6 if row.config.tune == "full" else 1)
    return max(files, int(peak or 0))


def recorded_peak(plan: Plan) -> float | None:
    """The warm-up's metric `peak_memory`, in bytes; None where it is not recorded."""
    if plan.warm is None or compare.standing(plan.warm) != "finished":
        return None
    frame = RunStore.open(plan.warm.folder).read("metrics", columns=["name", "value"]).to_pandas()
    peak = frame[frame["name"] == "peak_memory"]["value"].max()
    return float(peak) if peak == peak else None


# --- running ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a row ended: finished, failed, interrupted or not started; `why` is the last line of its log."""

    row: Row
    state: str
    why: str = ""


@dataclass
class _Child:
    row: Row
    slot: Slot
    process: subprocess.Popen[bytes]


class Rows:
    """The rows of a plan at work."""

    def __init__(self, plan: Plan, places: Sequence[Slot], weights: int | None, report: Reporter) -> None:
        self.plan, self.places, self.weights, self.report = plan, places, weights, report
        self.outcomes: dict[str, Outcome] = {}
        self.interrupted = False
        self._children: list[_Child] = []
        self._began, self._share = time.monotonic(), 0.0

    def run(self) -> list[Outcome]:
        """All rows that are not finished yet. Returns how each row of the plan ended, in the plan's order."""
        waiting = self._left()
        self._share = self._done()
        with interrupts.raising():
            try:
                while waiting or self._children:
                    waiting = self._start(waiting)
                    time.sleep(POLL_SECONDS)
                    self._reap()
                    self._tell()
            except Interrupted as signalled:
                self._end(signal.Signals[str(signalled)])
            finally:
                self._signal(signal.SIGTERM)  # a fault of our own leaves no run behind
        return [self.outcomes.get(row.name, Outcome(row, "not started")) for row in self.plan.rows]

    def _left(self) -> list[Row]:
        """Rows to run; the finished ones are noted. Raises `ConfigError` if somebody else is at one."""
        states = {row.name: compare.standing(row) for row in self.plan.rows}
        for row in self.plan.rows:
            if states[row.name] == "running":
                raise ConfigError(f"{row.folder} is being trained by another process; wait for its end, or stop it")
            if states[row.name] == "finished":
                self.outcomes[row.name] = Outcome(row, "finished")
        return [row for row in self.plan.rows if row.name not in self.outcomes]

    def _start(self, waiting: list[Row]) -> list[Row]:
        """Put a row on each free device; returns those that still wait. All wait for the warm-up."""
        busy = {child.slot for child in self._children}
        for slot in [place for place in self.places if place not in busy]:
            if not waiting or self._held_back(waiting[0]):
                break
            self._launch(waiting[0], slot)
            waiting = waiting[1:]
        return [] if self._spoilt() else waiting

    def _held_back(self, row: Row) -> bool:
        """Whether a row waits for a warm-up that has not finished."""
        warm = self.outcomes.get(compare.WARM)
        return self.plan.warm not in (None, row) and (warm is None or warm.state != "finished")

    def _spoilt(self) -> bool:
        """The warm-up failed, so no other row can start."""
        return compare.WARM in self.outcomes and self.outcomes[compare.WARM].state != "finished"

    def _launch(self, row: Row, slot: Slot) -> None:
        """A row that cannot be started is one that failed; the others go on."""
        try:
            self._refuse_unfitting(row, slot)
            with interrupts.shield():
                self._children.append(_Child(row, slot, self._process(row, slot)))
        except (OSError, ConfigError) as error:
            self.outcomes[row.name] = Outcome(row, "failed", str(error))

    def _refuse_unfitting(self, row: Row, slot: Slot) -> None:
        need = needed(row, self.weights, recorded_peak(self.plan))
        if need > slot.free:
            raise ConfigError(f"needs at least {need / _GIB:.1f} GiB, more than {slot} has; free memory, or choose a smaller --model")

    def _process(self, row: Row, slot: Slot) -> subprocess.Popen[bytes]:
        """`interplay train ...` in a process group of its own, so that a Ctrl-C reaches it once, through us."""
        found = compare.standing(row)
        if found == "aside":
            compare.set_aside(row)
        words = ["train", "--resume", str(row.folder)] if found == "resume" else row.argv
        path = self.plan.log(row)
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "app.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={**os.environ, **slot.environment, pulse.PARENT: str(os.getpid())},
            )

    def _reap(self) -> None:
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._children.remove(child)
            self.outcomes[child.row.name] = self._outcome(child)

    def _outcome(self, child: _Child) -> Outcome:
        if child.process.returncode == 0 and _standing(child.row) == "finished":
            return Outcome(child.row, "finished")
        why = tail(self.plan.log(child.row), 1) or f"ended with code {child.process.returncode} and said nothing"
        return Outcome(child.row, "interrupted" if self.interrupted else "failed", why)

    def _end(self, number: signal.Signals) -> None:
        """Pass the signal on and wait; who asks again, or a run that does not end, is not waited for."""
        self.interrupted = True
        try:
            self._signal(number)
            for child in self._children:
                child.process.wait(GRACE_SECONDS)
        except (subprocess.TimeoutExpired, Interrupted):
            self._signal(signal.SIGKILL)
            for child in self._children:
                child.process.wait()
        self._reap()

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, number)

    # --- progress --------------------------------------------------------------------------------

    def _done(self, running: Mapping[str, float] | None = None) -> float:
        """Share of the plan's updates that is behind us; a row that failed has nothing left to do."""
        shares = {**(running or {}), **dict.fromkeys(self.outcomes, 1.0)}
        return sum(row.weight * shares.get(row.name, 0.0) for row in self.plan.rows) / sum(row.weight for row in self.plan.rows)

    def _tell(self) -> None:
        said = {child.row.name: _progress(child.row) for child in self._children}
        share = self._done({name: float(progress.get("share") or 0.0) for name, progress in said.items()})
        doing = ", ".join(f"{name} {str(progress.get('doing', 'starting')).split(':')[0]}" for name, progress in said.items())
        self.report(f"{len(self.outcomes)} of {len(self.plan.rows)} rows; {doing or 'between rows'}", share, self._left_over(share))

    def _left_over(self, share: float) -> dict[str, float]:
        """Time left at the pace so far; nothing is said before there is a pace."""
        gone = share - self._share
        return {"left": (time.monotonic() - self._began) * (1 - share) / gone} if gone > 0.01 else {}


def _standing(row: Row) -> str:
    try:
        return compare.standing(row)
    except StoreError:
        return "aside"


def _progress(row: Row) -> dict[str, Any]:
    """What the run says of itself; nothing before it has a folder."""
    try:
        return RunStore.open(row.folder).status().progress
    except StoreError:
        return {}
