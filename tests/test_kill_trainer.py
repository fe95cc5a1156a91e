"""kill -9 of a whole training: what was flushed is there, in order and once, and the run can go on.

Every run is a real process that dies by SIGKILL: at chosen calls inside flushes, merges, rollouts, the
reward phase and checkpoints, and at random times. It flushes after every update and merges at four parts.
The processes are forked from one that has loaded the libraries already, which saves seconds for each.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interplay import checkpoints, loop
from interplay.records import STREAMS
from interplay.store import Runs, RunStore
from tests import training
from tests.training import frame, weights

pytestmark = pytest.mark.slow
SETTINGS: dict[str, Any] = {"method": "ppo"}

#: where it dies -> (owner, function, n-th call, before or after the call)
FLUSH = {
    "flush: before the first part": ("interplay.parquet", "write", 1, "before"),
    "flush: part written, not renamed": ("interplay.parquet", "write", 10, "after"),
    "flush: between two streams": ("interplay.store.RunStore", "_flush_stream", 31, "before"),
    "flush: renamed, folder not synced": ("interplay.disk", "sync_folder", 25, "before"),
}
MERGE = {
    "merge: begun": ("interplay.parts.Parts", "_merge", 1, "before"),
    "merge: nothing written yet": ("interplay.parquet", "row_groups", 4, "after"),
    "merge: sources not deleted": ("interplay.disk", "remove", 1, "before"),
    "merge: half of the sources deleted": ("interplay.disk", "remove", 6, "after"),
    "merge: at the end of the run": ("interplay.parts.Parts", "_merge", 15, "after"),
}
ROLLOUT = {
    "rollout: before it": ("interplay.loop", "_rollouts", 2, "before"),
    "rollout: tokens sampled": ("interplay.rollouts", "until_stop", 5, "after"),
    "rollout: second iteration": ("interplay.loop", "_rollouts", 3, "after"),
}
REWARD = {
    "reward: first update": ("interplay.reward_model._Listener", "on_log", 1, "after"),
    "reward: second iteration": ("interplay.reward_model._Listener", "on_log", 5, "before"),
    "reward: before the merge of models": ("interplay.reward_model", "keep_close", 1, "before"),
}
SAVING = {
    "checkpoint: not sealed": ("interplay.checkpoints", "_seal", 2, "before"),
    "checkpoint: saved": ("interplay.checkpoints", "save", 2, "after"),
    "end: all merged, end state not written": ("interplay.store.RunStore", "compact", 1, "after"),
    "scoring": ("interplay.evaluation", "text_health", 3, "before"),
}
MOMENTS = {**FLUSH, **MERGE, **ROLLOUT, **REWARD, **SAVING}
RANDOM = 5
TO_THE_END = ("flush: part written, not renamed", "merge: half of the sources deleted", "reward: second iteration", "end: all merged, end state not written")


# --- the process that dies -------------------------------------------------------------------------


class Diary:
    """Lines that survive a kill."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: str) -> None:
        os.write(self.handle, f"{line}\n".encode())
        os.fsync(self.handle)


def _owner(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name) if name[:1].isupper() or name == "_Listener" else importlib.import_module(path)


def _deadly(diary: Diary, path: str, name: str, call: int, when: str) -> None:
    owner, count = _owner(path), [0]
    real = getattr(owner, name)

    def act(*args: Any, **keys: Any) -> Any:
        count[0] += 1
        if count[0] == call and when == "before":
            diary.write("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **keys)
        if count[0] == call:
            diary.write("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, act)


def _flushes_are_logged(diary: Diary) -> None:
    """`flush STREAM ROWS` is written before each part, `flushed STREAM ROWS` as soon as it is promised; merges likewise."""
    parts = _owner("interplay.parts.Parts")
    append, merge = parts.append, parts._merge

    def logged_append(self: Any, tables: Any, attempt: int) -> None:
        diary.write(f"flush {self.stream} {self.stop}")
        append(self, tables, attempt)
        diary.write(f"flushed {self.stream} {self.stop}")

    def logged_merge(self: Any, chosen: Any) -> None:
        diary.write(f"merge {self.stream} {len(chosen)}")
        merge(self, chosen)
        diary.write(f"merged {self.stream} {len(chosen)}")

    parts.append, parts._merge = logged_append, logged_merge


def child(model: Path, prompts: Path, out: Path, diary_file: Path, moment: tuple[str, str, int, str] | None) -> None:
    """Runs in the forked process."""
    diary = Diary(diary_file)
    RunStore.create.__func__.__kwdefaults__.update(flush_every=1, merge_at=4)  # type: ignore[attr-defined]
    if moment is not None:
        _deadly(diary, *moment)
    _flushes_are_logged(diary)
    diary.write("begins")
    loop.train(training.small(model, prompts, out, **SETTINGS))
    diary.write("ends")


Start = Callable[..., tuple[Path, list[str]]]


@pytest.fixture(scope="module")
def start(model: Path, prompts: Path) -> Start:
    """Run a training in a process of its own until it ends, or until its diary has `lines` lines and some `seconds` have passed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.training", "interplay.loop"])

    def run(out: Path, moment: tuple[str, str, int, str] | None = None, lines: int = 0, seconds: float = 0.0) -> tuple[Path, list[str]]:
        diary = out.with_name(out.name + ".diary")
        process = context.Process(target=child, args=(model, prompts, out, diary, moment))
        process.start()
        if lines:
            while process.is_alive() and not (diary.exists() and diary.read_text().count("\n") >= lines):
                time.sleep(0.002)
            time.sleep(seconds)
            process.kill()
        process.join(600)
        assert process.exitcode == (0 if moment is None and not lines else -signal.SIGKILL)
        return out, diary.read_text().splitlines()

    return run


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The run that nobody killed, and how many lines its diary has."""
    path, lines = start(tmp_path_factory.mktemp("whole") / "run")
    assert lines[-1] == "ends"
    return path, len(lines)


# --- what must hold --------------------------------------------------------------------------------


def rows(run: Path, stream: str) -> pd.DataFrame:
    table = frame(run, stream)
    return table[~table["name"].isin(["seconds", "peak_memory"])].drop(columns="seconds").reset_index(drop=True) if stream == "metrics" else table


def promised(lines: list[str]) -> dict[str, int]:
    """Rows of each stream that were flushed for certain."""
    found = dict.fromkeys(STREAMS, 0)
    for line in lines:
        word, *rest = line.split()
        if word == "flushed":
            found[rest[0]] = int(rest[1])
    return found


def check(run: Path, lines: list[str], whole: Path) -> None:
    """Each stream is a beginning of what the whole run recorded, and reaches at least to the last flush."""
    store = RunStore.open(run)
    assert store.problems() == []
    assert [row.state for row in Runs(run.parent).list() if row.run == run.name] == ["interrupted"]
    for stream, least in promised(lines).items():
        assert len(store.read(stream)) >= least, stream  # type: ignore[arg-type]
        ours, theirs = rows(run, stream), rows(whole, stream)
        for name in ours:
            assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist()[: len(ours)], (stream, name)
    steps = frame(run, "updates").groupby("clock").size()
    assert steps.index.tolist() == list(range(1, len(steps) + 1)), "no gap and no repeat"


def finish(run: Path, whole: Path) -> None:
    """Resume, and compare with the run that nobody killed."""
    loop.resume(run)
    assert [row.state for row in Runs(run.parent).list() if row.run == run.name] == ["finished"]
    assert RunStore.open(run).problems() == []
    for stream in ("metrics", "completions", "directions"):
        ours, theirs = rows(run, stream), rows(whole, stream)
        for name in ours:
            assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist(), (stream, name)
    columns = ["clock", "update", "iteration", "role", "module", "space", "update_norm", "weight_norm", "gradient_norm", "displacement_norm"]
    pd.testing.assert_frame_equal(rows(run, "updates")[columns], rows(whole, "updates")[columns], check_exact=True)
    for role in ("policy", "reward", "reward_merged", "value"):
        ours, theirs = weights(run, 2, role), weights(whole, 2, role)
        assert all(bool((ours[name] == tensor).all()) for name, tensor in theirs.items())
    assert not [path for stream in STREAMS for path in (run / stream).glob("*.tmp")]


@pytest.mark.parametrize("where", MOMENTS)
def test_killed_at(start: Start, whole: tuple[Path, int], tmp_path: Path, where: str) -> None:
    run, lines = start(tmp_path / "run", MOMENTS[where])
    assert lines[-1] == "dies"
    doing = next(line.split()[0] for line in reversed(lines[:-1]) if line.startswith(("flush", "merge")))
    expected = {"flush": ("flush", "flushed"), "merge": ("merge",)}.get(where.split(":")[0], ("flushed", "merged"))
    assert doing in expected, "it died where it should"
    check(run, lines, whole[0])
    if where in TO_THE_END:
        finish(run, whole[0])


@pytest.mark.parametrize("number", range(RANDOM))
def test_killed_at_a_random_time(start: Start, whole: tuple[Path, int], tmp_path: Path, number: int) -> None:
    chance = random.Random(number)
    run, lines = start(tmp_path / "run", lines=int(chance.uniform(0.05, 0.7) * whole[1]), seconds=chance.uniform(0, 0.05))
    check(run, lines, whole[0])
    if number == 0:
        finish(run, whole[0])


def test_a_kill_before_anything_was_recorded(start: Start, whole: tuple[Path, int], tmp_path: Path) -> None:
    run, _ = start(tmp_path / "run", ("interplay.rollouts", "sample", 1, "before"))
    assert checkpoints.last(run / "checkpoints") is None
    assert [row.state for row in Runs(tmp_path).list()] == ["interrupted"]
    finish(run, whole[0])
