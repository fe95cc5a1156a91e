"""kill -9 of a writer: what was flushed is all there, in order, once; the next writer goes on.

The writer is a real process that dies by SIGKILL, at random moments and at chosen calls inside flushes,
merges and rewinds. Nothing of it can run afterwards, so what the tests read is what the disk held.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from interplay.store import Runs, RunStore
from tests import dying_writer


def run_writer(path: Path, kill_at: int, call: str, *, rewinds: bool = False, after: tuple[int, float] | None = None) -> list[int]:
    """Run the writer until it is killed; returns the clocks that it could still say it had flushed. `after`: how many it says before, and seconds more."""
    context = multiprocessing.get_context("forkserver")  # of a process that has loaded the libraries: a second less for each
    context.set_forkserver_preload(["tests.dying_writer"])
    heard, said = context.Pipe(duplex=False)
    process = context.Process(target=dying_writer.write, args=(said, path, kill_at, call, rewinds))
    process.start()
    said.close()
    assert heard.recv() == "ready"
    clocks = [heard.recv() for _ in range(after[0])] if after else []
    if after:
        time.sleep(after[1])
        process.kill()
    clocks += _received(heard)
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 0)
    return clocks


def _received(heard: Connection) -> Iterator[int]:
    """What was said until the end; a message that was torn by the kill is none."""
    with heard, contextlib.suppress(EOFError, OSError):
        while True:
            yield heard.recv()


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
        clocks = run_writer(tmp_path / "run", 0, "time", after=(random.randrange(20), random.uniform(0.0, 0.05)))
        promised = max([promised, *clocks])
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
        clocks = check(path, max([0, *run_writer(path, kill_at, call)]))
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
        promised = max([0, *run_writer(path, kill_at, "replace-after", rewinds=True)])
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
