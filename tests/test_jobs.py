"""Jobs: one start for fifty clicks, only our own processes signalled, nothing lost when the server goes. The queue: test_queue.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.queue import processes
from app.queue.jobs import Job, Jobs, command_line, train_argv
from app.server import dashboard, theme
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError
from interplay.store import RunStore
from tests.fabricate import Fabricated
from tests.waiting import until

SLEEP = [sys.executable, "-c", "import time; print('here we are', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    jobs = Jobs(tmp_path / "jobs", grace=1.0)
    yield jobs
    for job in jobs.list():
        jobs.stop(job.id, wait=True)


def test_a_job_is_the_command_that_one_would_type() -> None:
    argv = train_argv(RunConfig(method="ppo", seed=3, data="my file; rm -rf ~.jsonl"))
    assert argv[:4] == [sys.executable, "-m", "app.cli", "train"]
    assert "my file; rm -rf ~.jsonl" in argv
    assert command_line(argv) == "interplay train --method ppo --data 'my file; rm -rf ~.jsonl' --seed 3"
    assert RunConfig.from_argv(argv[4:]) == RunConfig(method="ppo", seed=3, data="my file; rm -rf ~.jsonl")


def test_start_tail_stop(jobs: Jobs) -> None:
    job = jobs.start_argv(SLEEP)
    assert os.getpgid(job.pid) == job.pid != os.getpgid(0)
    until(lambda: "here we are" in jobs.tail(job.id))
    assert jobs.get(job.id).state == "running"
    assert jobs.stop(job.id, wait=True).state == "stopped"
    assert not psutil.pid_exists(job.pid)


def test_what_ignores_the_request_is_killed(jobs: Jobs) -> None:
    job = jobs.start_argv(STUBBORN)
    until(lambda: "deaf" in jobs.tail(job.id))
    assert jobs.stop(job.id, wait=True).state == "stopped"


def test_fifty_clicks_are_one_job(jobs: Jobs) -> None:
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: jobs.start_argv(SLEEP, key="click").id, range(50)))
    assert len(set(found)) == 1
    assert len(jobs.list()) == 1
    jobs.stop(found[0], wait=True)


@pytest.mark.parametrize(
    ("words", "kind", "folder"),
    [
        (["train", "--out", "runs/a", "--seed", "1"], "train", "runs/a"),
        (["train", "--out=runs/a", "--out", "/b"], "train", "/b"),
        (["train", "--resume", "../c"], "train", "../c"),
        (["compare", "--out", "runs/plan"], "compare", "runs/plan"),
        (["import", "x", "--as", "y"], "import", None),
        (["train", "--out"], "train", None),
        (["train", "--out", "a\0b"], "train", None),
        ([], "", None),
    ],
)
def test_a_job_knows_its_kind_and_its_folder(words: list[str], kind: str, folder: str | None, tmp_path: Path) -> None:
    job = Job("a" * 16, [sys.executable, "-m", "app.cli", *words], "2026-01-01", cwd=str(tmp_path))
    assert job.kind == kind
    assert job.folder == (folder and (tmp_path / folder).resolve())
    assert Job("a" * 16, SLEEP, "2026-01-01").kind == ""


def test_a_job_that_fails_says_so(jobs: Jobs) -> None:
    job = jobs.start_argv([sys.executable, "-c", "raise SystemExit(3)"])
    until(lambda: jobs.get(job.id).ended)
    assert (jobs.get(job.id).state, jobs.get(job.id).exit) == ("failed", 3)


@pytest.mark.parametrize("argv", [["/nowhere/python"], [sys.executable, "a\0b"]])
def test_what_cannot_be_started_has_failed(jobs: Jobs, argv: list[str]) -> None:
    job = jobs.start_argv(argv)
    assert job.state == jobs.list()[0].state == "failed"
    assert jobs.tail(job.id).startswith("not started: ")


def test_a_folder_named_app_is_not_run(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "cli.py").write_text("print('another program')")
    job = jobs.start_argv([sys.executable, "-m", "app.cli", "--version"], cwd=tmp_path)
    until(lambda: jobs.get(job.id).ended)
    assert jobs.tail(job.id).startswith("interplay ")


def test_jobs_outlive_the_server(jobs: Jobs) -> None:
    job = jobs.start_argv(SLEEP)
    later = Jobs(jobs.folder, grace=1.0)
    assert later.get(job.id).state == "running"
    later.stop(job.id, wait=True)
    until(lambda: jobs.get(job.id).ended)


def test_another_server_sees_how_a_job_ended(tmp_path: Path) -> None:
    """The first server does not look any more, so its child stays in the process table: as long as somebody there knows it, or Python would ask after it."""
    ends = "[sys.executable, '-c', 'raise SystemExit(5)']"
    starts = f"import sys, time; from app.queue.jobs import Jobs; jobs = Jobs(sys.argv[1]); jobs.start_argv({ends}); time.sleep(60)"
    server = subprocess.Popen([sys.executable, "-c", starts, str(tmp_path / "jobs")])
    try:
        later = Jobs(tmp_path / "jobs")
        until(lambda: later.list() and later.list()[0].ended, 30)
        assert later.list()[0].exit == 5
    finally:
        server.kill()
        server.wait()


def test_a_run_says_itself_how_it_ended(jobs: Jobs, tmp_path: Path) -> None:
    """Its server was killed, and nobody was there to be told."""
    run = Fabricated(tmp_path / "run").whole()
    status = RunStore.open(tmp_path / "run").status()
    for name, pid, state in (("a", status.pid, "finished"), ("b", (status.pid or 0) + 1, "ended")):
        job = Job(name * 16, [sys.executable, "-m", "app.cli", "train", "--out", str(tmp_path / "run")], "2026-01-01", pid or 0, 1.0)
        (jobs.folder / job.id).mkdir(parents=True)
        (jobs.folder / job.id / "job.json").write_text(json.dumps(job.__dict__))
        assert jobs.get(job.id).state == state, run


def test_a_server_that_died_while_starting_leaves_a_job_that_is_found(jobs: Jobs) -> None:
    job = Job("c" * 16, SLEEP, "2026-01-01", slots=["cpu"])
    (jobs.folder / job.id).mkdir(parents=True)
    (jobs.folder / job.id / "job.json").write_text(json.dumps(job.__dict__))
    process = subprocess.Popen(SLEEP, start_new_session=True, env={**os.environ, processes.MARK: job.id}, stdout=subprocess.DEVNULL)
    try:
        until(lambda: psutil.Process(process.pid).cmdline() == SLEEP)
        (found,) = jobs.list()
        assert (found.pid, found.state) == (process.pid, "running")
    finally:
        process.kill()
        process.wait()
    assert jobs.get(job.id).state == "ended"


def test_who_was_asked_to_stop_is_killed_by_the_next_server(jobs: Jobs) -> None:
    job = jobs.start_argv(STUBBORN)
    until(lambda: "deaf" in jobs.tail(job.id))
    later = Jobs(jobs.folder, grace=0.0)
    path = jobs.folder / job.id / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "stop_asked": "2026-01-01T00:00:00+00:00"}))
    later.list()
    until(lambda: jobs.get(job.id).state == "stopped")
    until(lambda: jobs.get(job.id) and not psutil.pid_exists(job.pid))  # the look that finds it dead may not be the one that collects it


def test_ended_children_leave_no_zombie(jobs: Jobs) -> None:
    job = jobs.start_argv([sys.executable, "-c", "pass"])
    until(lambda: jobs.get(job.id).state == "finished")
    assert not psutil.pid_exists(job.pid)


@pytest.mark.parametrize("id", ["", "1", "../x", "0" * 15, "g" * 16, "0" * 16, "../../etc/passwd\0", "the number of a process"])
def test_a_forged_id_reaches_nothing(jobs: Jobs, id: str) -> None:
    with pytest.raises(StoreError, match="there is no job"):
        jobs.stop(str(os.getpid()) if id == "the number of a process" else id)


def test_consent_to_foreign_code_is_typed(jobs: Jobs) -> None:
    with pytest.raises(ConfigError, match="type the command in a terminal"):
        jobs.start(RunConfig(model="somebody/model", trust_remote_code=True))
    with pytest.raises(ConfigError, match="type the command in a terminal"):
        jobs.start_argv([sys.executable, "-m", "app.cli", "compare", "--for", "rloo:trust_remote_code=true"])
    assert jobs.list() == []


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


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"argv": 5, "created": ""}',
        '{"argv": [], "created": ""}',
        '{"argv": [1], "created": ""}',
        '{"argv": ["a"], "created": null}',
        '{"argv": ["\\ud800"], "created": ""}',
        '{"argv": ["a"], "created": "\\ud800"}',
        '{"argv": ["a"], "created": "", "pid": -1}',
        '{"argv": ["a"], "created": "", "pid": "1"}',
        '{"argv": ["a"], "created": "", "pid": 99999999999999999999}',
        '{"argv": ["a"], "created": "", "started": "now"}',
        '{"argv": ["a"], "created": "", "slots": [null]}',
    ],
)
def test_damaged_job_files_are_left_out(jobs: Jobs, content: str) -> None:
    (jobs.folder / ("b" * 16)).mkdir(parents=True)
    (jobs.folder / ("b" * 16) / "job.json").write_text(content)
    assert jobs.list() == []
    with pytest.raises(StoreError, match="there is no job"):
        jobs.stop("b" * 16)


def test_a_job_is_known_by_its_folder(jobs: Jobs) -> None:
    """A file that gives itself another id would have its end written there."""
    (jobs.folder / ("b" * 16)).mkdir(parents=True)
    (jobs.folder / ("b" * 16) / "job.json").write_text(json.dumps({"id": "../outside", "argv": ["a"], "created": "2026", "pid": 1}))
    (jobs.folder.parent / "outside").mkdir()
    assert [(job.id, job.state) for job in jobs.list()] == [("b" * 16, "ended")]
    assert list((jobs.folder.parent / "outside").iterdir()) == []


def test_links_and_pipes_are_not_followed(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.start_argv([sys.executable, "-c", "pass"])
    until(lambda: jobs.get(job.id).ended)
    (jobs.folder / ("b" * 16)).symlink_to(jobs.folder / job.id)
    assert [one.id for one in jobs.list()] == [job.id]
    (tmp_path / "secret").write_text("a secret")
    log = jobs.folder / job.id / "log.txt"
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    assert jobs.tail(job.id) == ""
    log.unlink()
    os.mkfifo(log)
    assert jobs.tail(job.id) == ""


def test_jobs_of_an_earlier_version_are_read(jobs: Jobs) -> None:
    old = {"id": "d" * 16, "argv": SLEEP, "created": "2026-01-01T00:00:00+00:00", "pid": 1, "started": 2.0, "key": "k", "stop_asked": None, "exit": 0}
    (jobs.folder / ("d" * 16)).mkdir(parents=True)
    (jobs.folder / ("d" * 16) / "job.json").write_text(json.dumps({**old, "ended": True}))
    assert [(job.id, job.state, job.key, job.slots) for job in jobs.list()] == [("d" * 16, "finished", "k", [])]


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    assert Jobs(tmp_path / "none" / ".jobs").list() == []
    assert not (tmp_path / "none").exists()


def test_a_place_that_cannot_hold_jobs_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot hold jobs"):
        Jobs(tmp_path / "file" / ".jobs").start_argv(SLEEP)


def test_the_log_is_shown_without_control_characters(jobs: Jobs) -> None:
    job = jobs.start_argv([sys.executable, "-c", r"print('10%\r50%\rdone \x1b[31mred\x1b[0m\x07')"])
    until(lambda: jobs.get(job.id).ended)
    assert jobs.tail(job.id) == "done red"


# --- the server ----------------------------------------------------------------------------------


def test_the_server_is_started_for_this_machine_only() -> None:
    words = dashboard.command("127.0.0.1", 8501)
    assert words[:4] == [sys.executable, "-m", "streamlit", "run"]
    for flag in ("server.address=127.0.0.1", "browser.gatherUsageStats=false", "server.showEmailPrompt=false", "server.enableAgentApi=false"):
        assert f"--{flag}" in words
    assert [word for word in words if "allowedHosts" in word] == ["--server.allowedHosts=localhost", "--server.allowedHosts=127.0.0.1"]


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


def test_the_demo_is_one_run(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("app.queue.jobs.train_argv", lambda config: [*SLEEP, str(config.out)])
    first = dashboard._start_demo(jobs, tmp_path)
    assert first is not None
    assert dashboard._start_demo(jobs, tmp_path) is None
    assert "is still running" in capsys.readouterr().out
    assert len(jobs.list()) == 1


def test_a_folder_that_does_not_exist_is_named_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[list[Path]] = []
    monkeypatch.setattr(dashboard, "serve", lambda roots, port, open_browser: served.append(roots) or 0)
    monkeypatch.chdir(tmp_path)
    assert dashboard.run([str(tmp_path), "no/pe"], port=None, demo=False, open_browser=False) == 0
    assert capsys.readouterr().out == "--runs no/pe: there is no such folder yet; it is shown as empty until a run is in it\n"
    dashboard.run(None, port=None, demo=False, open_browser=False)
    assert capsys.readouterr().out == "", "the usual folder is made by the first run"
    assert [roots[0] for roots in served] == [tmp_path, Path("runs")]


def test_a_foreign_server_is_called_by_its_own_names_only() -> None:
    assert theme.hosts("192.168.1.5") == ["localhost", "127.0.0.1", "192.168.1.5"]
    assert {"localhost", "127.0.0.1"} < set(theme.hosts("0.0.0.0"))
    assert not {"*", "0.0.0.0", "::", ""} & set(theme.hosts("0.0.0.0"))
    assert "--client.showErrorDetails=type" in theme.flags("0.0.0.0", 1)


def test_others_reach_a_server_that_says_so() -> None:
    assert "INTERPLAY_EXPOSED" not in dashboard.environment([Path("runs")])
    assert dashboard.environment([Path("runs")], "0.0.0.0")["INTERPLAY_EXPOSED"] == "1"
    assert dashboard.environment([Path("a"), Path("b")])["INTERPLAY_RUNS"].count(os.pathsep) == 1


def test_a_server_that_never_comes_is_not_waited_for() -> None:
    assert not dashboard.wait_until_up("http://127.0.0.1:9", 0.3)
