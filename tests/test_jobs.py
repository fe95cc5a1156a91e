"""Jobs: one start for fifty clicks, only our own processes signalled, nothing lost when the server goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app import dashboard, theme
from app.jobs import Job, Jobs, command_line, train_argv
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError

SLEEP = [sys.executable, "-c", "import time; print('here we are', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"]


def _wait(check: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs", grace=1.0)


def test_a_job_is_the_command_that_one_would_type() -> None:
    argv = train_argv(RunConfig(method="ppo", seed=3, data="my file; rm -rf ~.jsonl"))
    assert argv[:4] == [sys.executable, "-m", "app.cli", "train"]
    assert "my file; rm -rf ~.jsonl" in argv
    assert command_line(argv) == "interplay train --method ppo --data 'my file; rm -rf ~.jsonl' --seed 3"
    assert RunConfig.from_argv(argv[4:]) == RunConfig(method="ppo", seed=3, data="my file; rm -rf ~.jsonl")


def test_start_tail_stop(jobs: Jobs) -> None:
    job = jobs.start_argv(SLEEP)
    assert os.getpgid(job.pid) == job.pid != os.getpgid(0)
    _wait(lambda: "here we are" in jobs.tail(job.id))
    assert jobs.get(job.id).state == "running"
    assert jobs.stop(job.id, wait=True).state == "stopped"
    assert not psutil.pid_exists(job.pid)


def test_what_ignores_the_request_is_killed(jobs: Jobs) -> None:
    job = jobs.start_argv(STUBBORN)
    _wait(lambda: "deaf" in jobs.tail(job.id))
    assert jobs.stop(job.id, wait=True).state == "stopped"


def test_fifty_clicks_are_one_job(jobs: Jobs) -> None:
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: jobs.start_argv(SLEEP, key="click").id, range(50)))
    assert len(set(found)) == 1
    assert len(jobs.list()) == 1
    jobs.stop(found[0], wait=True)


def test_a_second_job_waits_for_the_first(jobs: Jobs) -> None:
    job = jobs.start_argv(SLEEP)
    with pytest.raises(ConfigError, match=r"job [0-9a-f]{6} is still running; stop it or wait"):
        jobs.start_argv(SLEEP)
    jobs.stop(job.id, wait=True)
    second = jobs.start_argv([sys.executable, "-c", "raise SystemExit(3)"])
    _wait(lambda: jobs.get(second.id).ended)
    assert jobs.get(second.id).state == "failed"


def test_jobs_outlive_the_server(jobs: Jobs) -> None:
    job = jobs.start_argv(SLEEP)
    later = Jobs(jobs.folder, grace=1.0)
    assert later.get(job.id).state == "running"
    later.stop(job.id, wait=True)
    _wait(lambda: jobs.get(job.id).ended)


def test_ended_children_leave_no_zombie(jobs: Jobs) -> None:
    job = jobs.start_argv([sys.executable, "-c", "pass"])
    _wait(lambda: jobs.get(job.id).state == "finished")
    assert not psutil.pid_exists(job.pid)


@pytest.mark.parametrize("id", ["", "1", "../x", "0" * 15, "g" * 16, "0" * 16, "../../etc/passwd\0", str(os.getpid())])
def test_a_forged_id_reaches_nothing(jobs: Jobs, id: str) -> None:
    with pytest.raises(StoreError, match="there is no job"):
        jobs.stop(id)


@pytest.mark.parametrize("lie", [{"started": 1.0}, {"argv": ["python", "-c", "another"]}])
def test_a_reused_pid_is_not_signalled(jobs: Jobs, lie: dict[str, object]) -> None:
    bystander = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        truth = {"argv": SLEEP, "started": psutil.Process(bystander.pid).create_time()}
        job = Job(**{"id": "a" * 16, "created": "2026-01-01", "pid": bystander.pid, **truth, **lie})  # type: ignore[arg-type]
        (jobs.folder / job.id).mkdir(parents=True)
        (jobs.folder / job.id / "job.json").write_text(json.dumps(job.__dict__))
        assert jobs.stop(job.id, wait=True).ended
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_damaged_job_files_are_left_out(jobs: Jobs) -> None:
    (jobs.folder / ("b" * 16)).mkdir(parents=True)
    (jobs.folder / ("b" * 16) / "job.json").write_text("{")
    assert jobs.list() == []


def test_the_log_is_shown_without_control_characters(jobs: Jobs) -> None:
    job = jobs.start_argv([sys.executable, "-c", r"print('10%\r50%\rdone \x1b[31mred\x1b[0m\x07')"])
    _wait(lambda: jobs.get(job.id).ended)
    assert jobs.tail(job.id) == "done red"


# --- the server ----------------------------------------------------------------------------------


def test_the_server_is_started_for_this_machine_only() -> None:
    words = dashboard.command("127.0.0.1", 8501)
    assert words[:4] == [sys.executable, "-m", "streamlit", "run"]
    for flag in ("server.address=127.0.0.1", "browser.gatherUsageStats=false", "server.showEmailPrompt=false", "server.enableAgentApi=false"):
        assert f"--{flag}" in words
    assert "--server.allowedHosts=localhost" in words


def test_every_flag_is_known_to_this_streamlit() -> None:
    from streamlit import config

    config.get_config_options()
    for flag in theme.flags("127.0.0.1", 8501):
        assert flag.removeprefix("--").split("=")[0] in config._config_options_template  # a typo would only be a warning at start


def test_a_taken_port_is_replaced_or_refused() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port is {port}, which is taken"):
            dashboard.choose_port(port)
    assert dashboard.choose_port(None) > 0


def test_others_reach_a_server_that_says_so() -> None:
    assert "INTERPLAY_EXPOSED" not in dashboard.environment([Path("runs")])
    assert dashboard.environment([Path("runs")], "0.0.0.0")["INTERPLAY_EXPOSED"] == "1"
    assert dashboard.environment([Path("a"), Path("b")])["INTERPLAY_RUNS"].count(os.pathsep) == 1


def test_a_server_that_never_comes_is_not_waited_for() -> None:
    assert not dashboard.wait_until_up("http://127.0.0.1:9", 0.3)
