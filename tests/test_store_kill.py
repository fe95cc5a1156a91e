"""kill -9 of a writer: what was flushed is all there, in order, once; the next writer goes on.

The writer is a real process that dies by SIGKILL, at random moments and at chosen calls inside flushes,
merges and rewinds. Nothing of it can run afterwards, so what the tests read is what the disk held.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interplay.store import Runs, RunStore

WRITER = """
import os, pathlib, signal, sys
from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore

path, kill_at, call = sys.argv[1], int(sys.argv[2]), sys.argv[3]

calls = 0
def deadly(real, after):
    # SIGKILL itself at the n-th call: right before it, or right after
    def act(*args, **keys):
        global calls
        calls += 1
        if calls == kill_at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keys)
        if calls == kill_at and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return act

info = RunInfo("run", {}, [], "2026-01-01T00:00:00+00:00", sketch=SketchSpec(k=4))
often = {"flush_every": 2, "merge_at": 4}
store = RunStore.open(path, write=True, **often) if os.path.exists(path) else RunStore.create(path, info, **often)
print("ready", flush=True)
done = store.read("updates", ["clock"]).num_rows
store.rewind(done)  # the last kill may have come between two streams
def arm():
    name, after = call.split("-")
    owner = pathlib.Path if name == "unlink" else os
    setattr(owner, name, deadly(getattr(owner, name), after == "after"))

if call == "time":
    os.fsync = lambda handle: None
elif sys.argv[4] != "rewind":
    arm()
for clock in range(done + 1, done + 100_000):
    place = {"clock": [clock], "update": [clock], "iteration": [0], "role": ["policy"]}
    store.append("metrics", {**place, "split": ["train"], "name": ["loss"], "value": [0.5], "seconds": [1.0]})
    store.append("updates", {**place, "module": ["m"], "layer": [0], "kind": ["m"], "space": ["factor"]})
    if clock % 2 == 0:
        print(clock, flush=True)
    if sys.argv[4] == "rewind" and clock == 25:
        arm()
        store.rewind(11)
        break
"""


def run_writer(path: Path, kill_at: int, call: str, extra: str = "", *, after_seconds: float | None = None) -> list[str]:
    """Run the writer until it is killed; returns the lines that it could still print."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(kill_at), call, extra], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if after_seconds is not None:
        time.sleep(after_seconds)
        process.kill()
    lines = process.stdout.read().split("\n")
    process.wait(60)
    assert process.returncode in (-signal.SIGKILL, 0)
    # a line torn by the kill has no line end, so the last piece never counts
    return lines[:-1]


def check(path: Path, promised: int) -> list[int]:
    """A complete prefix in each stream, up to what the writer said it had flushed; our reader and the foreign view agree in the end."""
    store = RunStore.open(path)
    for stream in ("updates", "metrics"):
        clocks = store.read(stream, ["clock"])["clock"].to_pylist()
        assert clocks == list(range(1, len(clocks) + 1)), stream
        assert len(clocks) >= promised
    assert store.problems() == []
    assert [row.state for row in Runs(path.parent).list() if row.run == path.name] == ["interrupted"]
    return store.read("updates", ["clock"])["clock"].to_pylist()


@pytest.mark.slow
def test_random_moments(tmp_path: Path) -> None:
    random.seed(1)
    promised = 0
    for _ in range(20):
        lines = run_writer(tmp_path / "run", 0, "time", after_seconds=random.uniform(0.0, 0.25))
        promised = max([promised, *map(int, lines)])
        promised = len(check(tmp_path / "run", promised))  # the next writer goes on in the same folder
    assert promised > 100
    RunStore.open(tmp_path / "run", write=True).close("interrupted")
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("call", ["replace-before", "replace-after", "fsync-before", "unlink-before", "unlink-after"])
def test_inside_flushes_and_merges(tmp_path: Path, call: str) -> None:
    """Kills between any two steps: before and after renames, before fsyncs, between the deletions of a merge."""
    between_deletions = False
    for kill_at in (1, 2, 4, 7, 12):
        path = tmp_path / str(kill_at)
        lines = run_writer(path, kill_at, call)
        clocks = check(path, max([0, *map(int, lines)]))
        folder = path / "updates"
        between_deletions |= len(list(folder.glob("*.parquet"))) > len(RunStore.open(path)._parts["updates"].view().parts)
        writer = RunStore.open(path, write=True)
        assert writer.read("updates", ["clock"])["clock"].to_pylist() == clocks
        writer.close("interrupted")
        view = RunStore.open(path)._parts["updates"].view()
        assert sorted(folder.iterdir()) == sorted(part.path for part in view.parts)  # nothing counts twice for foreign readers either
    if call.startswith("unlink"):
        assert between_deletions


@pytest.mark.slow
def test_inside_a_rewind(tmp_path: Path) -> None:
    """All streams are rewound, or none; the next writer finishes what was begun."""
    outcomes = set()
    for kill_at in range(1, 15):
        path = tmp_path / str(kill_at)
        lines = run_writer(path, kill_at, "replace-after", "rewind")
        promised = max([0, *map(int, lines)])
        store = RunStore.open(path)
        lengths = {stream: len(store.read(stream, ["clock"])) for stream in ("updates", "metrics")}
        assert store.problems() == []
        outcomes.add("rewound" if lengths == {"updates": 11, "metrics": 11} else "before")
        if lengths["updates"] <= 11:
            assert lengths == {"updates": 11, "metrics": 11}
        else:
            check(path, promised)
        writer = RunStore.open(path, write=True)
        assert {stream: len(writer.read(stream)) for stream in lengths} == lengths
        writer.rewind(5)
        writer.close("interrupted")
        assert RunStore.open(path).read("updates", ["clock"])["clock"].to_pylist() == [1, 2, 3, 4, 5]
    assert outcomes == {"before", "rewound"}
