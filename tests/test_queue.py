"""The queue of jobs: one slot for each device, in order, once, by whichever server looks; and only what this user asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from app.queue import queueing
from app.queue.jobs import Job, Jobs
from interplay.errors import ConfigError
from tests.waiting import until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
QUICK = [sys.executable, "-c", "pass"]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """On the CPU, whatever this machine has, with a key of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ask_again = queueing.slots.cache_clear
    ask_again()
    jobs = Jobs(tmp_path / "jobs", grace=1.0)
    yield jobs
    monkeypatch.delenv("INTERPLAY_EXPOSED", raising=False)
    for job in jobs.list():  # newest first: nothing is started by stopping what runs
        jobs.stop(job.id, wait=True)
    ask_again()


def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "slots", lambda: ("GPU-a", "GPU-b"))


def _states(jobs: Jobs) -> list[str]:
    """Oldest first."""
    return [job.state for job in reversed(jobs.list())]


def _python(code: str, *words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)])


# --- order -----------------------------------------------------------------------------------------


def test_one_after_another(jobs: Jobs, tmp_path: Path) -> None:
    code = "import os, sys, time\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.02)\nopen(sys.argv[1], 'a').write(os.environ['INTERPLAY_JOB'] + ' ')"
    started = [jobs.start_argv([sys.executable, "-c", code, str(tmp_path / "order"), str(tmp_path / "gate")]).id for _ in range(4)]
    assert _states(jobs) == ["running", "queued", "queued", "queued"]
    (tmp_path / "gate").touch()
    until(lambda: _states(jobs) == ["finished"] * 4)
    assert (tmp_path / "order").read_text().split() == started


def test_the_next_waits_and_says_for_what(jobs: Jobs) -> None:
    first, second, third = (jobs.start_argv(SLEEP) for _ in range(3))
    assert [first.state, second.state, third.state] == ["running", "queued", "queued"]
    assert (second.pid, second.slots) == (0, [])
    assert jobs.tail(second.id) == "first in the queue; starts when a device is free"
    assert jobs.tail(third.id) == "1 before it in the queue"
    jobs.stop(first.id, wait=True)
    assert _states(jobs) == ["stopped", "running", "queued"]
    assert jobs.get(second.id).slots == [queueing.CPU]


def test_the_queue_moves_on_when_nobody_looks(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue.jobs.LOOK_SECONDS", 0.1)
    jobs.start_argv([sys.executable, "-c", "import time; time.sleep(0.5)"])
    for name in ("a", "b"):
        jobs.start_argv([sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(tmp_path / name)])
    until((tmp_path / "b").exists)
    until(lambda: jobs._watcher is None)


def test_what_waits_can_leave_the_queue(jobs: Jobs) -> None:
    first, second, third = (jobs.start_argv(SLEEP) for _ in range(3))
    assert jobs.stop(second.id).state == "stopped"
    assert jobs.stop(second.id).state == "stopped"
    jobs.stop(first.id, wait=True)
    assert _states(jobs) == ["stopped", "stopped", "running"]
    assert jobs.get(third.id).state == "running"


def test_alone_means_that_nothing_else_goes_on(jobs: Jobs) -> None:
    jobs.start_argv(SLEEP)
    with pytest.raises(ConfigError, match=r"job [0-9a-f]{6} is still running; stop it or wait"):
        jobs.start_argv(SLEEP, alone=True)
    assert len(jobs.list()) == 1


# --- devices ---------------------------------------------------------------------------------------


def test_each_job_has_a_gpu_of_its_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    _two_gpus(monkeypatch)
    tell = [sys.executable, "-c", "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"]
    first, second, third = (jobs.start_argv(tell) for _ in range(3))
    assert [first.slots, second.slots, third.slots] == [["GPU-a"], ["GPU-b"], []]
    until(lambda: [jobs.tail(first.id), jobs.tail(second.id)] == ["GPU-a", "GPU-b"])
    jobs.stop(second.id, wait=True)
    jobs.list()
    until(lambda: jobs.tail(third.id) == "GPU-b")


def test_a_comparison_waits_for_all_devices_and_takes_them(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    _two_gpus(monkeypatch)
    first = jobs.start_argv(SLEEP)
    plan = jobs.start_argv([sys.executable, "-m", "app.cli", "compare", "--table-only", "--out", "nowhere"])
    last = jobs.start_argv(SLEEP)
    assert _states(jobs) == ["running", "queued", "queued"], "the comparison would never come on, if others went past it"
    jobs.stop(first.id, wait=True)
    jobs.list()
    assert jobs.get(plan.id).slots == ["GPU-a", "GPU-b"]
    until(lambda: _states(jobs) == ["stopped", "failed", "running"])
    assert jobs.get(last.id).slots == ["GPU-a"]


@pytest.mark.parametrize(("slots", "free"), [([], []), (["GPU-a"], ["GPU-b"]), (["3"], ["GPU-a"]), (["3", "4"], [])])
def test_a_job_on_an_unknown_device_is_counted(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, slots: list[str], free: list[str]) -> None:
    """An earlier version wrote down no slot; a server with other settings may call a device by another name."""
    _two_gpus(monkeypatch)
    running = jobs.start_argv(SLEEP)
    path = jobs.folder / running.id / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "slots": slots}))
    assert jobs.start_argv(QUICK).slots == free[:1]


@pytest.mark.parametrize(
    ("visible", "found", "slots"),
    [
        (None, ["GPU-a", "GPU-b"], ("GPU-a", "GPU-b")),
        (None, [], ()),
        ("0,1", [], ()),
        ("", ["GPU-a"], ()),
        ("-1", ["GPU-a"], ()),
        ("1", ["GPU-a", "GPU-b"], ("1",)),
        ("2, GPU-b,-1,3", ["GPU-a", "GPU-b"], ("2", "GPU-b")),
        ("0,0", ["GPU-a"], ("0",)),
    ],
)
def test_slots_are_what_cuda_may_see(visible: str | None, found: list[str], slots: tuple[str, ...]) -> None:
    assert queueing.allowed_slots(found, visible) == slots


def test_gpus_are_read_from_the_driver() -> None:
    whole = "GPU 0: NVIDIA H200 (UUID: GPU-1b2c-3d)\nGPU 1: NVIDIA H200 (UUID: GPU-4e5f-6a)\n"
    cut = "GPU 0: A100 (UUID: GPU-1b)\n  MIG 1g.5gb     Device  0: (UUID: MIG-11)\n  MIG 1g.5gb     Device  1: (UUID: MIG-12)\nGPU 1: A100 (UUID: GPU-2c)\n"
    assert queueing.parse(whole) == ["GPU-1b2c-3d", "GPU-4e5f-6a"]
    assert queueing.parse(cut) == ["MIG-11", "MIG-12", "GPU-2c"]
    assert queueing.parse("No devices were found\n") == []


@pytest.mark.parametrize("says", ["raise SystemExit(9)", "import time; time.sleep(60)"])
def test_a_driver_that_does_not_answer_is_not_waited_for(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!{sys.executable}\n{says}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    for name in ("0000:01", "0000:02"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(queueing, "_PATIENCE", 0.3)
    monkeypatch.setattr(queueing, "_NVIDIA", tmp_path / "gpus")
    assert queueing.gpus() == ["0", "1"]


# --- limits ----------------------------------------------------------------------------------------


def test_the_queue_has_an_end(jobs: Jobs) -> None:
    for _ in range(1 + queueing.MOST_QUEUED):
        jobs.start_argv(SLEEP)
    with pytest.raises(ConfigError, match=r"20 jobs are waiting, and the queue holds 20; stop one of them") as refused:
        jobs.start_argv(SLEEP)
    assert "\n" not in str(refused.value)
    assert len(jobs.list()) == 1 + queueing.MOST_QUEUED


def test_a_full_disk_starts_nothing(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    first, second = jobs.start_argv(SLEEP), jobs.start_argv(SLEEP)
    with monkeypatch.context() as patch:
        patch.setattr("app.queue.queueing.shutil.disk_usage", lambda path: usage(2**40, 2**40, 2**29))
        with pytest.raises(ConfigError, match=r"nothing was started: only 0.50 GiB are free in .*, and a job starts with 1 GiB at least"):
            jobs.start_argv(SLEEP)
        jobs.stop(first.id, wait=True)
        assert _states(jobs) == ["stopped", "queued"]
        assert "only 0.50 GiB are free" in jobs.tail(second.id)
    assert jobs.list()[0].state == "running"


def test_an_exposed_server_shows_and_does_nothing(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = jobs.start_argv(SLEEP), jobs.start_argv(SLEEP)
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    for refused in (lambda: jobs.start_argv(SLEEP), lambda: jobs.stop(first.id), lambda: jobs.stop(second.id)):
        with pytest.raises(ConfigError, match="has no login"):
            refused()
    psutil.Process(first.pid).kill()
    until(lambda: jobs.get(first.id).ended)
    assert _states(jobs) == ["failed", "queued"]
    assert jobs.get(second.id).pid == 0


# --- many at once ----------------------------------------------------------------------------------

_CLICKS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from app.queue.jobs import Jobs
jobs = Jobs(sys.argv[1])
with ThreadPoolExecutor(17) as pool:
    list(pool.map(lambda _: jobs.start_argv(json.loads(sys.argv[2]), key="click"), range(17)))
"""
_LOOKS = "import sys, time; from app.queue.jobs import Jobs; jobs = Jobs(sys.argv[1])\nwhile not all(job.ended for job in jobs.list()): time.sleep(0.002)"


def test_fifty_clicks_in_three_servers_are_one_job(jobs: Jobs) -> None:
    servers = [_python(_CLICKS, jobs.folder, json.dumps(SLEEP)) for _ in range(3)]
    assert [server.wait(60) for server in servers] == [0, 0, 0]
    (job,) = jobs.list()
    assert [process.pid for process in psutil.process_iter() if _mark(process) == job.id] == [job.pid]


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("INTERPLAY_JOB")
    except psutil.Error:
        return None


def test_two_servers_start_each_job_once_and_in_order(jobs: Jobs, tmp_path: Path) -> None:
    note = [sys.executable, "-c", "import os, sys; open(sys.argv[1], 'a').write(os.environ['INTERPLAY_JOB'] + ' ')", str(tmp_path / "order")]
    ids = [jobs.start_argv(SLEEP).id, *(jobs.start_argv(note).id for _ in range(8))]
    servers = [_python(_LOOKS, jobs.folder) for _ in range(2)]
    time.sleep(1)
    jobs.stop(ids[0], wait=True)
    assert [server.wait(60) for server in servers] == [0, 0]
    assert (tmp_path / "order").read_text().split() == ids[1:]


def test_threads_and_a_stop_in_between_start_each_once(jobs: Jobs, tmp_path: Path) -> None:
    note = [sys.executable, "-c", "import os, sys; open(sys.argv[1], 'a').write(os.environ['INTERPLAY_JOB'] + ' ')", str(tmp_path / "order")]
    ids = [jobs.start_argv(SLEEP).id, *(jobs.start_argv(note).id for _ in range(6))]
    jobs.stop(ids[3])
    jobs.stop(ids[0], wait=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: (time.sleep(0.1), jobs.list()), range(80)))
    until(lambda: all(job.ended for job in jobs.list()))
    assert (tmp_path / "order").read_text().split() == [*ids[1:3], *ids[4:]]


# --- the server goes -------------------------------------------------------------------------------

_SERVES = """
import json, sys, time
from app.queue.jobs import Jobs
jobs = Jobs(sys.argv[1])
for _ in range(2):
    jobs.start_argv(json.loads(sys.argv[2]), cwd=sys.argv[1])
print("up", flush=True)
time.sleep(60)
"""


def test_a_killed_server_leaves_job_and_queue(jobs: Jobs) -> None:
    jobs.folder.mkdir()
    server = subprocess.Popen([sys.executable, "-c", _SERVES, str(jobs.folder), json.dumps(SLEEP)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    later = Jobs(jobs.folder, grace=1.0)
    second, first = later.list()
    assert [first.state, second.state] == ["running", "queued"]
    assert psutil.Process(first.pid).cmdline() == SLEEP
    later.stop(first.id, wait=True)
    started = later.list()[0]
    assert (started.id, started.state) == (second.id, "running")
    assert psutil.Process(started.pid).cwd() == str(jobs.folder)
    later.stop(started.id, wait=True)


# --- who asked -------------------------------------------------------------------------------------


def _forge(jobs: Jobs, tmp_path: Path, **changes: object) -> str:
    """A queued entry as a downloaded folder of runs could hold it."""
    argv = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(tmp_path / "harm")]
    job = Job("e" * 16, argv, "2025-01-01", queued=True, cwd=str(tmp_path), seal="0" * 64)
    (jobs.folder / job.id).mkdir(parents=True)
    (jobs.folder / job.id / "job.json").write_text(json.dumps({**asdict(job), **changes}))
    return job.id


@pytest.mark.parametrize("seal", ["", "0" * 64, "ä"])
def test_a_foreign_entry_is_not_run(jobs: Jobs, tmp_path: Path, seal: str) -> None:
    forged = _forge(jobs, tmp_path, seal=seal)
    assert [(job.id, job.state) for job in jobs.list()] == [(forged, "queued")]
    assert "was not queued here by you" in jobs.tail(forged)
    done = jobs.start_argv(QUICK)
    until(lambda: jobs.get(done.id).state == "finished")
    assert not (tmp_path / "harm").exists()
    assert jobs.stop(forged).state == "stopped"


@pytest.mark.parametrize("name", ["argv", "cwd", "folder"])
def test_a_changed_entry_is_not_run(jobs: Jobs, tmp_path: Path, name: str) -> None:
    first, second = jobs.start_argv(SLEEP), jobs.start_argv(QUICK)
    path = jobs.folder / second.id / "job.json"
    raw = json.loads(path.read_text())
    changed = {"argv": {"argv": [*QUICK, "more"]}, "cwd": {"cwd": "/"}, "folder": {}}[name]
    path.write_text(json.dumps({**raw, **changed}))
    jobs.stop(first.id, wait=True)
    folder = jobs.folder.rename(tmp_path / "elsewhere") if name == "folder" else jobs.folder
    assert [job.state for job in Jobs(folder).list()] == ["queued", "stopped"]


def test_the_key_is_the_users_own(jobs: Jobs, tmp_path: Path) -> None:
    jobs.start_argv(QUICK)
    key = tmp_path / "state" / "interplay" / "queue.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert [path.name for path in key.parent.iterdir()] == ["queue.key"]


def test_without_a_home_the_queue_lives_as_long_as_its_server(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    first, second = jobs.start_argv(SLEEP), jobs.start_argv(SLEEP)
    jobs.stop(first.id, wait=True)
    assert [job.id for job in jobs.list() if job.state == "running"] == [second.id]


def test_the_environment_reaches_the_job(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING_OF_THE_USER", "kept")
    job = jobs.start_argv([sys.executable, "-c", "import os; print(os.environ['SOMETHING_OF_THE_USER'], repr(os.environ['CUDA_VISIBLE_DEVICES']))"])
    until(lambda: jobs.get(job.id).ended)
    assert jobs.tail(job.id) == "kept ''"
    assert os.getpgid(0) != job.pid
