"""SIGTERM and Ctrl-C at any moment: a quick end, state `interrupted`, one last line, everything flushed readable.

Chosen moments run in forked processes that send the signal to themselves inside a call; a few more are the
real command, hit from outside while `status.json` says what it is doing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from interplay import checkpoints
from interplay.store import Runs, RunStore
from tests import training
from tests.test_kill_trainer import _owner
from tests.training import frame

PROJECT = Path(__file__).parents[1]
LAST_LINE = "interplay: interrupted; what was recorded is kept"
SECONDS = 10.0  # until the process has ended

#: (owner, function, n-th call), and the newest complete checkpoint that must be there afterwards
MOMENTS: dict[str, tuple[tuple[str, str, int], int | None]] = {
    "pairs before anything was trained": (("interplay.judges", "decide", 1), None),
    "reward phase": (("interplay.reward_model._Listener", "on_log", 4), 0),
    "rollout": (("interplay.rollouts", "until_stop", 4), 0),
    "policy update": (("interplay.updates.first_order.FirstOrder", "step", 2), 0),
    "scoring": (("interplay.evaluation", "text_health", 2), 0),
    "inside a flush": (("interplay.parquet", "write", 2), None),
    "inside a checkpoint": (("interplay.checkpoints", "_seal", 2), 1),
}


def child(words: list[str], said: Path, moment: tuple[str, str, int], number: int) -> None:
    """The command line in a forked process, which signals itself right before the n-th call."""
    handle = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ["INTERPLAY_NO_REEXEC"] = "1"
    path, name, call = moment
    owner, count = _owner(path), [0]
    real = getattr(owner, name)

    def act(*args: Any, **keys: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return real(*args, **keys)

    setattr(owner, name, act)
    from app import cli

    sys.exit(cli.main(words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("moment", MOMENTS)
def test_at_a_chosen_moment(model: Path, prompts: Path, tmp_path: Path, moment: str, number: signal.Signals) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.training", "interplay.loop"])
    call, newest = MOMENTS[moment]
    config = training.small(model, prompts, tmp_path / "run", method="rloo")
    process = context.Process(target=child, args=(["train", *config.to_argv()], tmp_path / "said", call, int(number)))
    process.start()
    process.join(600)
    assert process.exitcode == 130
    lines = [line for line in (tmp_path / "said").read_text().splitlines() if not line[:6].strip().isdecimal()]  # but for progress
    assert [line for line in lines if "arning" not in line and "warn(" not in line] == [f"{LAST_LINE}; go on with: interplay train --resume {tmp_path / 'run'}"]
    status = RunStore.open(tmp_path / "run").status()
    assert (status.state, status.error) == ("interrupted", None)
    assert status.ended is not None
    assert RunStore.open(tmp_path / "run").problems() == []
    found = checkpoints.last(tmp_path / "run" / "checkpoints")
    assert (found and found.iteration) == newest
    clocks = frame(tmp_path / "run", "updates")["clock"].unique().tolist()
    assert clocks == list(range(1, len(clocks) + 1))
    texts = frame(tmp_path / "run", "completions")
    assert set(texts["clock"]) <= {0, *clocks, len(clocks) + 1}
    if moment in ("rollout", "policy update", "scoring"):
        assert len(clocks) >= 2, "what was still in memory was written before the end"


# --- the real command --------------------------------------------------------------------------------


def _doing(run: Path) -> str:
    try:
        return str(json.loads((run / "status.json").read_text())["progress"].get("doing", ""))
    except (OSError, ValueError, KeyError):
        return ""


def _wait(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("doing", "number"),
    [("rollouts", signal.SIGTERM), ("policy update", signal.SIGINT), ("1: reward model", signal.SIGTERM), ("scoring", signal.SIGINT)],
)
def test_the_real_command(model: Path, prompts: Path, tmp_path: Path, doing: str, number: signal.Signals) -> None:
    changes = {"method": "rloo", "updates": 60, "reward_updates": 60, "prompts": 8, "completions": 4, "heldout": 12}
    config = training.small(model, prompts, tmp_path / "run", **changes)
    words = [sys.executable, "-m", "app.cli", "train", *config.to_argv()]
    process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait(process, lambda: doing in _doing(tmp_path / "run"))
    began = time.monotonic()
    process.send_signal(number)
    try:
        process.wait(240)
    finally:
        process.kill()
    took = time.monotonic() - began
    out, err = process.communicate()
    assert took < SECONDS or psutil.getloadavg()[0] > psutil.cpu_count(), f"{took:.1f} s, and the machine is not busy"
    assert process.returncode == 130
    assert out == ""
    lines = [line for line in err.splitlines() if not line[:6].strip().isdecimal()]
    assert lines == [f"{LAST_LINE}; go on with: interplay train --resume {tmp_path / 'run'}"]
    assert "Traceback" not in err
    assert [(row.run, row.state) for row in Runs(tmp_path).list()] == [("run", "interrupted")]
    store = RunStore.open(tmp_path / "run")
    assert store.problems() == []
    clocks = frame(tmp_path / "run", "updates")["clock"].unique().tolist()
    assert clocks == list(range(1, len(clocks) + 1))


ORPHAN = (
    "import sys, time; from pathlib import Path; from interplay import pulse\n"
    "with pulse.beating(Path(sys.argv[1]), 0.05):\n"
    "    print('at work', flush=True); time.sleep(60)"
)
MASTER = (
    "import os, subprocess, sys, time; from interplay import pulse\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], env={**os.environ, pulse.PARENT: str(os.getpid())}, process_group=0)\n"
    "print(child.pid, flush=True); time.sleep(60)"
)


def test_a_run_ends_when_the_process_that_waits_for_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MASTER, ORPHAN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=PROJECT) as master:
        assert master.stdout is not None
        lines = {master.stdout.readline().strip(), master.stdout.readline().strip()}
        child = psutil.Process(int(next(line for line in lines if line.isdigit())))
        assert "at work" in lines
        time.sleep(0.2)
        assert child.is_running()
        master.kill()
        master.wait()
        _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive
