"""The page Train at its limits: numbers that cannot be, needs beyond the machine, and a resumed run that has not spoken yet."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.commands.progress import about, duration
from app.queue.job import Job
from app.train import launch, preflight, started
from app.train.preflight import GIB, Machine
from interplay.config import RunConfig
from interplay.errors import ConfigError
from interplay.reading import RunReader, Status
from tests.fabricate import Fabricated
from tests.pages import Show, ran
from tests.test_train_page import HERE, SLEEP, _button, _commands, _plain, _seen, root, show
from tests.waiting import until

__all__ = ["root", "show"]  # fixtures

DAY = 86_400.0


def _cannot_start(app: AppTest, line: str) -> None:
    """One clear line, and nothing of the run before: no command, no needs."""
    assert _plain(app.error) == line
    assert _button(app, "start").disabled
    assert not any("interplay train" in code.value for code in app.code)


# --- numbers that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("updates", 0), ("updates", -5), ("iterations", 0), ("completions", 1), ("heldout", 1), ("sketch", -1)])
def test_a_number_too_small_is_said_as_on_the_command_line(root: Path, show: Show, name: str, value: int) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.from_argv([f"--{name}={value}"])
    app = show()
    _cannot_start(ran(app.number_input(key=name).set_value(value)), str(refused.value))
    assert f"--{name} is {value}; it must be at least" in str(refused.value)
    app.number_input(key=name).set_value(7).run()
    assert not app.error
    assert f"--{name} 7" in _commands(app)[0]
    assert not _button(app, "start").disabled


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("pair_share", 1.5, "--pair-share is 1.5; it must be at most 1"),
        ("learning_rate", 0.0, "--learning-rate is 0.0; it must be greater than 0"),
        ("threads", 0, "--threads is 0; it must be at least 1"),
        ("seed_data", 2 * 10**15, "--seed-data is 2000000000000000; it must be at most 1e+15"),
        ("rloo.kl", -0.5, "--set kl is -0.5; it must be at least 0"),
        ("first_order.beta1", 1.0, "--set beta1 is 1.0; it must be at most 0.9999"),
    ],
)
def test_so_are_those_in_the_expanders_and_the_methods_own(root: Path, show: Show, name: str, value: float, line: str) -> None:
    app = show()
    _cannot_start(ran(app.number_input(key=name).set_value(value)), line)


def test_no_number_is_kept_back_by_the_browser(root: Path, show: Show) -> None:
    app = show(method="zopro")
    assert len(app.number_input) > 20
    assert [number.key for number in app.number_input if number.proto.has_min or number.proto.has_max] == []


# --- needs beyond the machine ------------------------------------------------------------------------


def test_nothing_starts_onto_a_disk_too_small(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.train.preflight.machine", lambda root: HERE)
    monkeypatch.setattr("app.train.preflight.seen", lambda config: [_seen()])
    app = show()
    assert not _button(app, "start").disabled
    ran(app.number_input(key="updates").set_value(10**9))
    (line,) = [str(error.value).replace("\\", "") for error in app.error]
    assert line.startswith("Disk will not suffice, so Start is off: about 10.4 TiB of 10.0 GiB free. Most of it is recordings: use fewer --updates")
    assert _button(app, "start").disabled
    assert any("more than 100 days" in badge.value for badge in app.markdown)


@pytest.mark.parametrize(
    ("config", "runs", "first", "also"),
    [
        (RunConfig(updates=10**6), 1, "Most of it is recordings: use fewer --updates or --iterations,", "a smaller --sketch, or free"),
        (RunConfig(reward_updates=10**6), 3, "Most of it is recordings: use fewer --reward-updates or --iterations,", "a smaller --sketch, fewer seeds, or"),
        (RunConfig(iterations=99, updates=1), 1, "Most of it is checkpoints: use --keep-checkpoints last, fewer --iterations, or", "free some space."),
        (RunConfig(keep_checkpoints="last", updates=1), 1, "Most of it is checkpoints: use a smaller --lora-rank, fewer --iterations, or", "free"),
    ],
)
def test_the_advice_names_what_drives_the_need(config: RunConfig, runs: int, first: str, also: str) -> None:
    small = Machine(memory=8 * GIB, disk=2**20, cores=2, host="here", name="x86_64")
    line = preflight.disk(config, runs, small, [_seen()])
    assert line.fits is False
    assert line.remedy.startswith(first)
    assert also in line.remedy


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (300 * 2**20, "300 MiB"),
        (1000 * GIB, "1000.0 GiB"),
        (1536 * GIB, "1.5 TiB"),
        (2**50, "1.0 PiB"),
        (1234.5 * 2**50, "1,234.5 PiB"),
        (233932401.9 * GIB, "223.1 PiB"),
    ],
)
def test_sizes_have_units_that_can_be_read(count: float, words: str) -> None:
    assert preflight.size(count) == words


def test_times_end_at_a_hundred_days() -> None:
    assert (about(60 * 45), about(99 * DAY), about(101 * DAY)) == ("about 45 min", "about 2376 h 00 min", "more than 100 days")
    assert (duration(100 * DAY), duration(1e30), duration(float("inf"))) == ("2400 h 00 min", "more than 100 days", "more than 100 days")
    config = RunConfig(updates=10**9)
    assert preflight.time(config, 1, HERE, [_seen()]).text == "on the CPU (2 cores): more than 100 days"
    assert preflight.time(config, 1, HERE, [_seen(host=None)]).text == "on the CPU (2 cores): unknown, more than 100 days on another machine"


# --- a resumed run that has not spoken yet -----------------------------------------------------------


def _stopped(path: Path, ago: float = 60.0) -> Fabricated:
    """A run that was stopped at 60 % some time ago."""
    run = Fabricated(path, layers=2, k=16, updates_each=2)
    run.step("policy", 1, 2)
    run.store.set_status(progress={"doing": "scoring held-out prompts", "share": 0.6, "done": 3, "planned": 5})
    run.store.close("interrupted")
    then = json.loads((path / "status.json").read_text())
    then |= {"heartbeat": time.time() - ago, "ended": time.time() - ago}
    (path / "status.json").write_text(json.dumps(then))
    return run


def _says(path: Path, **changes: Any) -> None:
    now = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps({**now, "heartbeat": time.time() + 5, **changes}))


def _bar(app: AppTest) -> tuple[int, str]:
    (bar,) = app.get("progress")
    return bar.proto.value, bar.proto.text.replace("\\", "")


def test_a_resumed_run_is_starting_until_it_says_something_new(root: Path, show: Show) -> None:
    """Its process first takes over what the attempt before said, and trains only after it has loaded the model."""
    run = _stopped(root / "again")
    job = launch.here().start_argv([sys.executable, "-c", SLEEP, "--resume", str(run.path)])
    until(lambda: "at work" in launch.here().tail(job.id))
    app = show()
    assert _bar(app) == (0, "starting")
    _says(run.path)  # opened for writing, still `interrupted`
    assert _bar(ran(app)) == (0, "starting")
    _says(run.path, state="running", ended=None)
    assert _bar(ran(app)) == (0, "starting")
    _says(run.path, progress={"doing": "policy", "share": 0.25, "done": 1, "planned": 5})
    assert _bar(ran(app)) == (25, "25%, policy")


def test_what_a_run_says_at_its_end_is_its_own(root: Path) -> None:
    now = time.time()
    job = Job("0" * 16, ["train"], "2026", started=now - 60)
    assert not started._silent(job, Status("interrupted", now, ended=now, progress={"share": 0.9}))
    assert not started._silent(job, Status("running", now))
    assert started._silent(job, Status("interrupted", now, ended=now - 90))
    assert started._silent(job, Status("running", now - 90))


def test_an_ended_job_shows_where_its_run_is(root: Path, show: Show) -> None:
    run = _stopped(root / "over")
    job = launch.here().start_argv([sys.executable, "-c", "raise SystemExit(1)", "--resume", str(run.path)])
    until(lambda: launch.here().get(job.id).ended)
    assert RunReader(run.path, run.store.info).status().heartbeat < job.started
    assert "run interrupted at 60%; Resume begins anew" in _plain(show().text)
