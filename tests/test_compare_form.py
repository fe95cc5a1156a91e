"""A new comparison on the Compare page: from the form to a command, what is refused, the engine's answer and the time, and one job for many clicks."""

from __future__ import annotations

import platform
import socket
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from app import cli
from app.commands.engine import Answer, Gpu
from app.compare import planning, standings, versus
from app.compare.planning import Form, argv, folder, forecast, free_name, plan_of, words_again
from app.compare.standings import RowNow
from app.queue.job import Job
from app.reading import loading
from interplay import compare
from interplay.compare import Plan
from interplay.config import RunConfig
from interplay.errors import ConfigError
from tests.comparing import METHODS, SHIPPED, button, engine, planned, root, show, tables, texts, whole
from tests.fabricate import Fabricated
from tests.pages import Show

__all__ = ["engine", "root", "show"]  # the fixtures

SLEEP = [sys.executable, "-c", "import time; print('here we are', flush=True); time.sleep(60)"]


def answered(app: AppTest) -> AppTest:
    """The page once the engine has been asked."""
    for future in planning._ANSWERS.values():
        future.exception(timeout=30)
    app.run()
    assert not app.exception
    return app


# --- from the form to a command --------------------------------------------------------------------


def test_only_what_is_unusual_is_typed() -> None:
    usual = {name: planning.usual(name) for name in ("updates", "pairs", "task", "data", "device", "heldout")}
    assert Form(("zopro", "rloo"), settings=usual).words == ("--methods", "zopro,rloo")
    words = Form(("zopro:mode=wrong_v", "rloo"), "3,5", None, None, ("rloo",), usual | {"updates": 3, "data": "-a b.jsonl"}).words
    assert words == (
        *("--methods", "zopro:mode=wrong_v,rloo", "--seeds", "3,5", "--updates", "3"),
        *("--data=-a b.jsonl", "--warm", "none", "--controls", "rloo"),
    )


def test_the_plan_is_the_one_of_the_command_line(root: Path) -> None:
    form = Form(("zopro", "extrapolate"), "2", settings={"updates": 5, "max_new_tokens": 9})
    plan = plan_of(form.words, root / "x")
    assert [row.name for row in plan.rows] == ["warm", "zopro-s0", "extrapolate-s0", "zopro-s1", "extrapolate-s1"]
    assert {row.config.updates for row in plan.arms} == {5}
    assert plan.controls == {"extrapolate"}
    words = argv(form.words, root / "x")
    assert words[:4] == [sys.executable, "-m", "app.cli", "compare"]
    assert words[-2:] == ["--out", "runs/x"]
    assert compare.difference(cli.planned(words[4:]), plan) is None


def test_a_start_from_a_run_takes_the_place_of_the_warm_up() -> None:
    assert Form(("zopro",), start="runs/a").words == ("--methods", "zopro", "--from", "runs/a")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form(("rlo", "dpo")), "'rlo', which is no method; did you mean 'rloo'.*allowed: dpo"),
        (Form(("rloo", "rloo")), "names 'rloo' twice"),
        (Form(("rloo",), "0"), "--seeds is '0'; it must be at least 1"),
        (Form(("rloo",), "1-"), "--seeds is '1-'; write how many"),
        (Form(("rloo",), "-1"), "--seeds is '-1'; write how many"),
        (Form(("rloo",), "2,2"), "names 2 twice"),
        (Form(("rloo", "dpo:updates=9")), "updates is 9 for dpo:updates=9 but 12 for rloo"),
        (Form(("rloo:mode",)), "write METHOD:KEY=VALUE"),
        (Form(("rloo:seed=1",)), "the plan sets seed"),
        (Form(("rloo:out=/tmp/x",)), "the plan sets out"),
        (Form(()), "--methods"),
        (Form(("rloo",), settings={"prompts": 0}), "--prompts is 0; it must be at least 1"),
        (Form(("rloo",), settings={"task": "chess"}), None),
    ],
)
def test_what_is_wrong_with_a_form_is_one_line(root: Path, form: Form, message: str | None) -> None:
    known = [method.name for method in METHODS]
    if message is None:  # only the engine knows its tasks
        assert plan_of(form.words, root / "x", known)
        return
    with pytest.raises(ConfigError, match=message) as error:
        plan_of(form.words, root / "x", known)
    assert "\n" not in str(error.value)


def test_a_folder_with_another_plan_is_refused_and_one_that_grows_is_not(root: Path) -> None:
    form = Form(("rloo", "dpo"), "2")
    compare.settle(plan_of(form.words, root / "x"))
    assert len(plan_of(Form(("rloo", "dpo", "mezo"), "3").words, root / "x").arms) == 9
    with pytest.raises(ConfigError, match="holds another plan: updates of"):
        plan_of(Form(("rloo", "dpo"), "2", settings={"updates": 3}).words, root / "x")
    Fabricated(root / "run", layers=1, k=8, updates_each=1).whole(1)
    with pytest.raises(ConfigError, match="which is the folder of a run"):
        plan_of(form.words, root / "run")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/tmp/x", ".jobs", "_x", "-x", "a\0b", "a\nb", "x" * 300, "\\x"])
def test_a_folder_name_stays_in_the_root(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="it must be one name without slashes"):
        folder(name, root)


def test_a_link_out_of_the_root_is_no_folder(root: Path, tmp_path: Path) -> None:
    (root / "away").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="must be one name"):
        folder("away", root)


def test_a_free_name_says_what_is_compared(root: Path) -> None:
    assert free_name(("zopro:mode=wrong_v", "rloo"), root) == "zopro-mode-wrong-v-rloo"
    (root / "rloo").mkdir()
    (root / "rloo-2").mkdir()
    assert free_name(("rloo",), root) == "rloo-3"
    assert free_name(("/../",), root) == "comparison"
    assert len(free_name(["rloo"] * 50, root)) <= 60


# --- the same again --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["comparison", "comparison-controls", "comparison-first"])
def test_the_command_of_a_recorded_plan_makes_that_plan(name: str) -> None:
    plan = compare.read(SHIPPED / name)
    assert plan
    words = words_again(plan)
    assert words
    again = cli.planned([*words, "--out", str(plan.out)])
    assert {row.name: row.config for row in again.rows} == {row.name: row.config for row in plan.rows}
    assert again.controls == plan.controls


@pytest.mark.parametrize(
    "words",
    [
        ["--methods", "rloo,dpo", "--seeds", "3,5"],
        ["--methods", "rloo", "--seeds", "4,", "--warm", "none"],
        ["--methods", "zopro,zopro:mode=wrong_v,extrapolate", "--set", "alpha=0.5", "--for", "warm:updates=2", "--controls", "none"],
        ["--methods", "rloo,dpo", "--for", "dpo:learning-rate=1e-4", "--for", "dpo:beta=0.3", "--freeze-reward", "--data", "a b.jsonl"],
    ],
)
def test_whatever_was_typed_is_found_again(root: Path, words: list[str]) -> None:
    plan = cli.planned([*words, "--out", str(root / "x")])
    found = words_again(plan)
    assert found
    assert compare.difference(plan, cli.planned([*found, "--out", str(root / "x")])) is None


def test_a_plan_that_no_command_makes_has_none(root: Path) -> None:
    plan = cli.planned(["--methods", "rloo,dpo", "--seeds", "2", "--out", str(root / "x")])
    odd = replace(plan.rows[-1], config=plan.rows[-1].config.with_(updates=99))
    assert words_again(Plan(plan.out, (*plan.rows[:-1], odd))) is None


# --- the engine's answer, and the time -------------------------------------------------------------


def test_the_engine_is_asked_once_for_each_kind_of_row(root: Path, engine: list[list[RunConfig]]) -> None:
    form = Form(("zopro", "rloo"), "5")
    plan = plan_of(form.words, root / "x")
    first = planning.ask(form.words, plan)
    assert planning.ask(form.words, plan) is first
    assert first.result(timeout=30) == Answer((), None)
    assert [[config.method for config in configs] for configs in engine] == [["rloo", "zopro", "rloo"]]


def test_a_newer_question_takes_the_place_of_one_that_waits(root: Path, engine: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Future[None] = Future()
    planning._WORKER.submit(gate.result)
    old, new = Form(("rloo",)), Form(("dpo",))
    first = planning.ask(old.words, plan_of(old.words, root / "x"))
    second = planning.ask(new.words, plan_of(new.words, root / "x"))
    assert first.cancelled()
    gate.set_result(None)
    assert second.result(timeout=30)
    assert planning.ask(old.words, plan_of(old.words, root / "x")).result(timeout=30)


def _here(**more: Any) -> dict[str, Any]:
    return {"device": "cpu", "name": platform.machine(), "system": platform.system(), "threads": psutil.cpu_count(), **more}


def test_the_time_comes_from_rows_alike_on_this_machine(root: Path) -> None:
    plan = plan_of(Form(("rloo", "mezo"), "3").words, root / "x")
    warm, rloo, mezo = plan.rows[:3]
    own: dict[str, Any] = {"machine": _here(), "host": socket.gethostname()}
    past = [RowNow(warm, "finished", seconds=50, **own), RowNow(rloo, "finished", seconds=100, **own)]
    past += [RowNow(mezo, "finished", seconds=seconds, **own) for seconds in (20, 40)]
    took = forecast(plan, past, [])
    assert took.seconds == pytest.approx(50 + 3 * 100 + 3 * 30)
    assert str(took) == "about 7 min, by 4 earlier rows with this budget on this machine"
    assert forecast(plan, past, [], devices=3).seconds == pytest.approx(50 + (3 * 100 + 3 * 30) / 3)
    for other in ([], past[:3][:2], [replace(row, machine=_here(name="z80")) for row in past], [replace(row, machine={}) for row in past]):
        assert forecast(plan, other, []).seconds is None
    assert "no finished row of mezo" in str(forecast(plan, past[:2], []))
    assert forecast(plan, past, ["GPU"]).seconds is None
    on_gpu = [replace(row, machine={"device": "cuda", "name": "GPU"}) for row in past]
    assert forecast(plan, on_gpu, ["GPU"]).seconds == took.seconds
    bigger = plan_of(Form(("rloo", "mezo"), "3", settings={"updates": 99}).words, root / "y")
    assert forecast(bigger, past, []).seconds is None


@pytest.mark.parametrize("host", [None, "elsewhere"], ids=["came with the project", "another host"])
def test_rows_of_a_machine_of_this_kind_are_no_rows_of_this_machine(root: Path, host: str | None) -> None:
    """Own rows stand in their place, method by method, and only if all are own it is this machine that is spoken of."""
    plan = plan_of(Form(("rloo", "mezo"), "1", warm=None).words, root / "x")
    rloo, mezo = plan.rows
    alike = [RowNow(row, "finished", seconds=600, machine=_here(), host=host) for row in (rloo, mezo)]
    own = [RowNow(row, "finished", seconds=120, machine=_here(), host=socket.gethostname()) for row in (rloo, mezo)]
    assert str(forecast(plan, alike, [])) == "about 20 min, by 2 earlier rows with this budget on a machine like this one"
    assert str(forecast(plan, [*alike, own[0]], [])) == "about 12 min, by 2 earlier rows with this budget on a machine like this one"
    assert str(forecast(plan, [*own, *alike], [])) == "about 4 min, by 2 earlier rows with this budget on this machine"
    single = plan_of(Form(("rloo",), "1", warm=None).words, root / "y")
    assert "by 1 earlier row with" in str(forecast(single, own, []))


def test_shipped_rows_name_no_host() -> None:
    assert {row.host for entry in standings.entries([loading.RECORDINGS]) for row in entry.rows} == {None}


# --- a new one -------------------------------------------------------------------------------------


def test_the_form_shows_command_and_plan(root: Path, show: Show, engine: list[Any]) -> None:
    app = answered(show(side="New", methods=["rloo", "zopro:mode=wrong_v"], seeds="2", updates="3", name="mine"))
    assert app.code[0].value == "interplay compare --methods rloo,zopro:mode=wrong_v --seeds 2 --updates 3 --out runs/mine"
    plan = tables(app)["row"]
    assert plan["row"].tolist() == ["warm", "rloo-s0", "zopro-mode-wrong-v-s0", "rloo-s1", "zopro-mode-wrong-v-s1"]
    assert all(command.startswith("interplay train ") for command in plan["command"])
    assert "On the CPU, one row at a time. Time: unknown: no finished row of rloo" in texts(app)
    assert not button(app, "Start").disabled
    assert list(root.iterdir()) == []


def test_a_gpu_is_named(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.commands.engine.ask", lambda configs: Answer((Gpu("H200", 2**37), Gpu("H200", 2**37)), None))
    assert "On the GPU (H200, H200), one row at a time on each." in texts(answered(show(side="New")))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ({"methods": ["rloo", "rlo"]}, "no method; did you mean 'rloo'"),
        ({"seeds": "0"}, "--seeds is '0'"),
        ({"seeds": "1-"}, "--seeds is '1-'"),
        ({"methods": ["rloo", "dpo:updates=9"]}, "updates is 9 for dpo:updates=9 but 12 for rloo"),
        ({"methods": ["rloo:"]}, "write METHOD:KEY=VALUE"),
        ({"name": "../x"}, "must be one name without slashes"),
    ],
)
def test_a_refusal_is_one_line_and_starts_nothing(root: Path, show: Show, engine: list[Any], url: dict[str, Any], message: str) -> None:
    app = show(side="New", **url)
    assert message in app.error[0].value.replace("\\", "")
    assert len(app.error) == 1
    assert button(app, "Start") is None
    assert engine == []


def test_a_folder_with_another_plan_is_refused_on_the_page(root: Path, show: Show) -> None:
    planned(root / "taken")
    app = show(side="New", methods=["rloo", "dpo"], seeds="2", name="taken")
    assert "holds another plan" in app.error[0].value.replace("\\", "")


def test_the_engines_refusal_is_shown(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(configs: Any) -> Answer:
        raise ConfigError("zopro: --set nonsense: zopro has no such setting")

    monkeypatch.setattr("app.commands.engine.ask", refuse)
    app = answered(show(side="New", methods=["rloo", "zopro:nonsense=1"]))
    assert "has no such setting" in app.error[0].value.replace("\\", "")
    assert button(app, "Start").disabled


def test_many_clicks_start_one_job_that_can_be_stopped(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.train import launch

    real = planning.argv
    monkeypatch.setattr("app.compare.planning.argv", lambda words, out: [*SLEEP, *real(words, out)[3:]])
    monkeypatch.setattr(Job, "kind", property(lambda self: "compare"))
    app = answered(show(side="New", methods=["rloo", "dpo"], seeds="2", name="mine"))
    button(app, "Start").click().run()
    assert not app.exception
    plan = plan_of(Form(("rloo", "dpo"), "2").words, root / "mine")
    for _ in range(5):
        versus.start(Form(("rloo", "dpo"), "2", controls=()).words, plan.out)
    (job,) = launch.here().list()
    try:
        assert app.query_params["out"] == "mine"
        assert "running" in texts(app)
        button(app, "Stop").click().run()
        assert not app.exception
    finally:
        launch.here().stop(job.id, wait=True)
    assert launch.here().list()[0].state == "stopped"


def test_an_exposed_server_starts_nothing(root: Path, show: Show, engine: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    app = show(side="New")
    assert button(app, "Start").disabled
    assert "has no login" in app.info[0].value
    assert engine == []


def test_without_the_engine_comparisons_are_watched(root: Path, show: Show, engine: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: False)
    whole(root / "x")
    assert "difference" in tables(show())
    app = show(side="New")
    assert button(app, "Start").disabled
    assert "pip install" in app.info[0].value
    assert engine == []


def test_a_failed_start_says_why(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **more: Any) -> None:
        raise ConfigError("nothing was started: only 0.10 GiB are free")

    monkeypatch.setattr("app.queue.jobs.Jobs.start_argv", refuse)
    app = answered(show(side="New", methods=["rloo", "dpo"]))
    button(app, "Start").click().run()
    assert "only 0.10 GiB are free" in texts(app).replace("\\", "")
