"""A writer that kills itself at a chosen call: a function for a process of its own, for the tests of the store."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore

OFTEN = {"flush_every": 2, "merge_at": 4}


def write(said: Connection, path: Path, kill_at: int, call: str, rewinds: bool) -> None:
    """Go on with the run in `path`, or begin it, and say `ready` and every clock that was flushed.

    `call` is `replace-before`, `unlink-after` and the like: the process dies right before or after the `kill_at`-th such call, counted from
    here or, if it `rewinds`, from its rewind. With `time` somebody else kills it.
    """
    info = RunInfo("run", {}, [], "2026-01-01T00:00:00+00:00", sketch=SketchSpec(k=4))
    store = RunStore.open(path, write=True, **OFTEN) if path.exists() else RunStore.create(path, info, **OFTEN)
    said.send("ready")
    done = store.read("updates", ["clock"]).num_rows
    store.rewind(done)  # the last kill may have come between two streams
    if call == "time":
        os.fsync = lambda handle: None
    elif not rewinds:
        _arm(call, kill_at)
    for clock in range(done + 1, done + 100_000):
        place = {"clock": [clock], "update": [clock], "iteration": [0], "role": ["policy"]}
        store.append("metrics", {**place, "split": ["train"], "name": ["loss"], "value": [0.5], "seconds": [1.0]})
        store.append("updates", {**place, "module": ["m"], "layer": [0], "kind": ["m"], "space": ["factor"]})
        if clock % 2 == 0:
            said.send(clock)
        if rewinds and clock == 25:
            _arm(call, kill_at)
            store.rewind(11)
            return


def _arm(call: str, kill_at: int) -> None:
    name, _, when = call.partition("-")
    owner: Any = pathlib.Path if name == "unlink" else os
    setattr(owner, name, _deadly(getattr(owner, name), kill_at, after=when == "after"))


def _deadly(real: Callable[..., Any], kill_at: int, *, after: bool) -> Callable[..., Any]:
    calls = 0

    def act(*args: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill_at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keys)
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return act
