"""The Compare page: from form to plan, what is refused, comparisons of every state on the page, and one job for many clicks."""

from __future__ import annotations

import json
import platform
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from app import cli
from app.commands import comparison
from app.commands.engine import Answer, Gpu
from app.compare import planning, standings, versus
from app.compare.planning import Form, argv, folder, forecast, free_name, plan_of, words_again
from app.compare.standings import Entry, RowNow, entries, waiting
from app.queue.job import Job
from app.reading.catalogue import MethodChoice
from interplay import compare
from interplay.compare import Plan, Row
from interplay.config import RunConfig
from interplay.errors import ConfigError, InterplayError
from tests.fabricate import HOSTILE, Fabricated
from tests.pages import Show, charts

PROJECT = Path(__file__).parents[1]
SHIPPED = PROJECT / "data" / "recordings"
METHODS = tuple(MethodChoice(name, "") for name in ("rloo", "dpo", "extrapolate", "mezo", "ppo", "zopro"))
SLEEP = [sys.executable, "-c", "import time; print('here we are', flush=True); time.sleep(60)"]


class Scored(Fabricated):
    """A run with what a comparison reads: held-out completions, passes and memory."""

    shift = 0.0

    def heldout(self, iteration: int) -> None:
        super().heldout(iteration)
        count = 6
        gain = iteration * (0.3 + self.shift) + 0.05 * self.random.standard_normal(count)
        rows: dict[str, Any] = {name: [value] * count for name, value in self._place("policy", iteration).items()}
        rows |= {"split": ["heldout"] * count, "prompt_id": [f"h{i}" for i in range(count)], "prompt": ["Hello?"] * count, "completion": [HOSTILE] * count}
        rows |= {"tokens": [9] * count, "finished": [True] * count, "reward": [None] * count, "kl": [0.2 * iteration] * count}
        proxy = [i / 10 + gain[i] if not self.bad_numbers else float("nan") for i in range(count)]
        self.store.append("completions", rows | {"gold": [0.1 * i + gain[i] / 3 for i in range(count)], "proxy": proxy})

    def _train(self, role: str) -> dict[str, float | None]:
        return super()._train(role) | ({"forwards": 2.0 * self.update[role], "peak_memory": 2.0**31} if role == "policy" else {})


def fabricated(row: Row, **more: Any) -> Scored:
    run = Scored(row.folder, layers=1, k=8, seed=row.seed, method=row.method, updates_each=2, value=False, **more)
    run.shift = 1.0 if row.method == "rloo" else 0.0
    return run


def planned(out: Path, methods: tuple[str, ...] = ("rloo", "dpo"), seeds: tuple[int, ...] = (0, 1)) -> Plan:
    plan = compare.plan(RunConfig(updates=2, sketch=8), methods, seeds, out)
    compare.settle(plan)
    return plan


def whole(out: Path, **more: Any) -> Plan:
    """A finished comparison."""
    plan = planned(out, **more)
    for row in plan.rows:
        fabricated(row).whole(1)
    return plan


@pytest.fixture
def root(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root.parent)
    return root


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[list[RunConfig]]:
    """Answers at once, for a machine without GPU; what it was asked."""
    asked: list[list[RunConfig]] = []

    def ask(configs: list[RunConfig]) -> Answer:
        asked.append(configs)
        return Answer((), None)

    monkeypatch.setattr("app.commands.engine.ask", ask)
    monkeypatch.setattr("app.reading.catalogue.methods", lambda: METHODS)
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: True)
    planning._ANSWERS.clear()
    return asked


@pytest.fixture
def show(show: Show, engine: list[Any]) -> Show:
    return partial(show, "compare")


def answered(app: AppTest) -> AppTest:
    """The page once the engine has been asked."""
    for future in planning._ANSWERS.values():
        future.exception(timeout=30)
    app.run()
    assert not app.exception
    return app


def texts(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.warning, app.info, app.error, app.markdown) for element in kind)


def tables(app: AppTest) -> dict[str, Any]:
    """The page's tables by their first column."""
    return {table.value.columns[0]: table.value for table in app.dataframe}


def button(app: AppTest, label: str) -> Any:
    return next((one for one in app.button if one.label == label), None)


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
    past = [RowNow(warm, "finished", seconds=50, machine=_here()), RowNow(rloo, "finished", seconds=100, machine=_here())]
    past += [RowNow(mezo, "finished", seconds=seconds, machine=_here()) for seconds in (20, 40)]
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


# --- comparisons on disk ---------------------------------------------------------------------------


def test_comparisons_are_found_newest_first_and_told_apart(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for place in (root, other):
        whole(place / "one", methods=("rloo",), seeds=(0,))
    whole(root / "two", methods=("rloo",), seeds=(0,))
    Fabricated(root / "run", layers=1, k=8, updates_each=1).whole(1)
    (root / "empty").mkdir()
    (root / "away").symlink_to(other / "one")
    found = entries([root, other, other / "one"])
    assert sorted(entry.name for entry in found) == ["other/one", "runs/one", "two"]
    assert [entry.created for entry in found] == sorted((entry.created for entry in found), reverse=True)
    assert standings.find("two", found).name == "two"  # type: ignore[union-attr]
    assert standings.find("one", found).path.name == "one"  # type: ignore[union-attr]
    assert standings.find("nothing like it", found) is found[0]
    assert standings.find("", []) is None
    assert entries([tmp_path / "nowhere"]) == []


def test_rows_are_shown_as_they_stand(root: Path) -> None:
    plan = planned(root / "x", seeds=(0, 1, 2))
    done, failed, stopped, bad, live, _ = plan.rows
    fabricated(done).whole(1)
    for row, state in ((failed, "failed"), (stopped, "interrupted")):
        fabricated(row).store.close(state, error="the loss is nan" if state == "failed" else None)
    bad.folder.mkdir()
    (bad.folder / "run.json").write_text("{ no")
    running = fabricated(live)
    running.step("policy", 1, 1)
    running.store.flush()
    (entry,) = entries([root])
    assert [row.state for row in entry.rows] == ["finished", "failed", "interrupted", "unreadable", "running", "to do"]
    assert (entry.done, len(entry.arms)) == (1, 6)
    assert entry.rows[1].why == "the loss is nan"
    assert entry.rows[0].share == 1
    assert entry.state(None) == "running"
    running.store.close("finished")
    (entry,) = entries([root])
    assert entry.state(None) == "failed"
    assert entry.rows[4].state == "finished"


@pytest.mark.parametrize("text", ["{ no", "[]", "{}", '{"out": "x", "rows": []}', '{"out": "x", "rows": [{"name": 1}]}', '{"out": 5, "rows": "no"}'])
def test_a_broken_plan_is_listed_with_its_reason(root: Path, text: str) -> None:
    (root / "x").mkdir()
    (root / "x" / "plan.json").write_text(text)
    (entry,) = entries([root])
    assert entry.problem
    assert entry.state(None) == "unreadable"
    assert entry.recordings() == []


def test_a_changed_row_is_read_again(root: Path) -> None:
    plan = planned(root / "x", seeds=(0,))
    assert entries([root])[0].state(None) == "interrupted"
    for row in plan.rows:
        fabricated(row).whole(1)
    assert entries([root])[0].state(None) == "finished"


def test_methods_keep_their_order_whichever_row_is_first(root: Path) -> None:
    plan = planned(root / "x", methods=("zopro", "rloo", "dpo"))
    for row in plan.rows[2:]:
        fabricated(row).whole(1)
    (entry,) = entries([root])
    assert [(one.method, one.seed) for one in entry.recordings()] == [("zopro", 1), ("rloo", 1), ("dpo", 0), ("dpo", 1)]


def test_a_job_stands_for_a_comparison_that_has_not_begun_to_write(root: Path) -> None:
    words = argv(Form(("rloo", "dpo"), "2").words, root / "x")
    job = Job("0" * 16, words, "2026-11-21T10:00:00+00:00", cwd=str(Path.cwd()), queued=True)
    (entry,) = waiting([job], [])
    assert (entry.name, entry.done, len(entry.arms), entry.state(job)) == ("x", 0, 4, "queued")
    assert standings.job_of(entry, [job]) is job
    over = replace(job, queued=False, ended=True, exit=2)
    assert [one.name for one in waiting([over], [])] == ["x"]
    assert waiting([replace(over, exit=0)], []) == []
    assert waiting([job, over], [entry]) == []
    planned(root / "x")
    assert waiting([job], entries([root])) == []
    odd = replace(job, argv=[*words[:4], "--methods", "", "--out", "runs/y"])
    assert waiting([odd], [])[0].problem


# --- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "word"), [((0.1, 0.2), "more"), ((-0.2, -0.1), "less"), ((-0.1, 0.2), "not shown"), ((0.0, 0.2), "not shown"), ((None, None), "unknown")]
)
def test_the_verdict_is_that_of_the_interval(ends: tuple[float, float], word: str) -> None:
    assert comparison.verdict({"student": ends}) == word


# --- the page --------------------------------------------------------------------------------------


def test_an_empty_root_says_which_command_fills_it(root: Path, show: Show) -> None:
    app = show()
    assert "There is no comparison" in texts(app)
    assert str(root) in texts(app)
    assert app.code[0].value.startswith("interplay compare")


def test_a_comparison_opens_with_its_numbers(root: Path, show: Show) -> None:
    whole(root / "x", methods=("dpo", "rloo", "extrapolate"), seeds=(0, 1, 2))
    app = show()
    assert app.query_params["out"] == "x"
    found = tables(app)
    assert list(found["method"]["method"]) == ["dpo", "rloo", "extrapolate (control)"]
    assert list(found["comparison"]["rows"]) == ["9 of 9"]
    assert list(found["difference"]["verdict"]) == ["more", "not shown"]
    assert "Shown in proxy: rloo gains more than dpo (+" in texts(app)
    assert "Not shown, either way: extrapolate against dpo" in texts(app)
    assert "read Student's t beside them" in texts(app)
    assert len(charts(app)) == 5
    assert button(app, "Stop") is None
    assert any(code.value.startswith("interplay compare --methods dpo,rloo,extrapolate") for code in app.code)


def test_numbers_are_those_of_the_printed_table(root: Path, show: Show) -> None:
    plan = whole(root / "x", seeds=(0, 1, 2))
    found = comparison.load(plan)
    assert found
    shown = tables(show())["method"]
    for row, (_, line) in zip(found.numbers.methods, shown.iterrows(), strict=True):
        assert line["method"] == row["method"]
    app = show()
    (scores,) = [table.value for table in app.dataframe if "proxy IQM" in table.value]
    assert scores["proxy"].tolist() == pytest.approx([row["proxy"]["mean"] for row in found.numbers.methods])
    assert scores["gold"].tolist() == pytest.approx([row["gold"]["mean"] for row in found.numbers.methods])
    for line in comparison.claims(found.numbers):
        assert line in [text.value for text in app.text]


def test_judge_cost_and_comparison_come_from_the_url(root: Path, show: Show) -> None:
    whole(root / "x")
    whole(root / "y", methods=("rloo", "mezo"))
    app = show(out="x", judged="gold", cost="tokens")
    assert "Paired differences in gold" in texts(app)
    assert "Gold score over tokens" in texts(app)
    assert [one.value for one in app.subheader] == ["x"]


@pytest.mark.parametrize("value", ["-1", "../..", "<script>", "", "x" * 400, "\0"])
def test_nonsense_in_the_url_is_ignored(root: Path, show: Show, value: str) -> None:
    whole(root / "x", seeds=(0,))
    app = show(out=value, judged=value, cost=value, side=value)
    assert [one.value for one in app.subheader] == ["x"]
    new = show(side="New", methods=value, seeds=value, warm=value, start=value, controls=value, updates=value, device=value, name=value, task=value)
    assert new.code or new.error


def test_one_finished_row_compares_nothing(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    fabricated(plan.rows[0]).whole(1)
    app = show()
    assert "nothing is compared yet" in texts(app)
    assert tables(app)["row"]["state"].tolist() == ["finished", "to do", "to do", "to do"]


def test_rows_fill_in_while_it_runs(root: Path, show: Show) -> None:
    plan = planned(root / "x", seeds=(0,))
    first, second = plan.rows
    live = fabricated(first)
    live.heldout(0)
    live.store.set_status(progress={"doing": "policy update 1", "share": 0.25, "reward": 0.5, "kl": 0.125})
    live.store.flush()
    log = plan.log(first)
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"\x1b[31m{HOSTILE}\x1b[0m\nupdate 1 of 2\n")
    app = show()
    assert "No row is finished yet" in texts(app)
    assert tables(app)["row"]["state"].tolist() == ["running", "to do"]
    assert "update 1 of 2" in app.code[-1].value
    live.iterate(1)
    live.store.close("finished")
    app.run()
    assert tables(app)["row"]["state"].tolist() == ["finished", "to do"]
    fabricated(second).whole(1)
    app.run()
    assert tables(app)["comparison"]["state"].tolist() == ["finished"]
    assert len(tables(app)["method"]) == 2


def test_a_failed_row_shows_why_and_how_to_go_on(root: Path, show: Show) -> None:
    out = root / "x"
    plan = plan_of(Form(("rloo", "dpo"), "1", None, settings={"updates": 2}).words, out)
    compare.settle(plan)
    log = plan.log(plan.rows[0])
    log.parent.mkdir()
    log.write_text("interplay: rloo: the loss is nan\n")
    run = Scored(plan.rows[0].folder, layers=1, k=8)
    run.store.close("failed", error="the loss is nan")
    app = show()
    assert "the loss is nan" in tables(app)["row"]["why"].tolist()
    assert "the loss is nan" in app.code[0].value
    assert not button(app, "Go on").disabled


def test_numbers_that_are_none(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    for row in plan.rows:
        fabricated(row, bad_numbers=True).whole(1)
    app = show()
    assert tables(app)["comparison"]["state"].tolist() == ["finished"]
    assert "Shown in gold" in texts(app)


def test_rows_without_held_out_completions_say_so(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    for row in plan.rows:
        Fabricated(row.folder, layers=1, k=8, seed=row.seed, method=row.method, updates_each=2).whole(1)
    assert "recorded no held-out completions" in texts(show())


def test_many_rows(root: Path, show: Show) -> None:
    plan = planned(root / "x", methods=tuple(f"m{number}" for number in range(9)), seeds=tuple(range(30)))
    for row in plan.rows[:18]:
        fabricated(row).whole(1)
    app = show()
    assert tables(app)["comparison"]["rows"].tolist() == ["18 of 270"]
    assert len(tables(app)["method"]) == 9


def test_a_broken_plan_does_not_take_the_page_down(root: Path, show: Show) -> None:
    (root / "x").mkdir()
    (root / "x" / "plan.json").write_text("{ no")
    app = show()
    assert "damaged" in texts(app)
    assert tables(app)["comparison"]["state"].tolist() == ["unreadable"]


def test_hostile_names_are_shown_letter_by_letter(root: Path, show: Show) -> None:
    name = "![x](evil.example) <b>$x$"
    whole(root / name, methods=("[a](//evil.example)", "**b**"))
    app = show()
    assert "difference" in tables(app)
    for element in [*app.markdown, *app.caption, *app.subheader, *app.warning]:
        assert "](" not in element.value
        assert "<b>" not in element.value.replace("\\<b\\>", "")


def test_the_shipped_comparisons_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, show: Show) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(SHIPPED))
    monkeypatch.chdir(tmp_path)
    app = show()
    assert tables(app)["comparison"]["comparison"].tolist() == ["comparison-controls", "comparison", "comparison-first"]
    assert tables(app)["comparison"]["rows"].tolist() == ["24 of 24", "25 of 25", "15 of 15"]
    assert "rloo gains more than zopro (+0.247 [+0.074, +0.420]" in texts(app)
    app.query_params["judged"] = "gold"
    begun = time.process_time()
    app.run()
    assert time.process_time() - begun < 1.0
    assert list(tmp_path.iterdir()) == []


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


def test_nothing_here_raises_but_what_a_person_can_mend(root: Path) -> None:
    (root / "plan.json").write_text(json.dumps({"out": "x", "rows": [{"name": "a", "method": "a", "control": False, "argv": ["train", "--nonsense"]}]}))
    (entry,) = entries([root])
    assert isinstance(entry, Entry)
    assert "nonsense" in entry.problem
    with pytest.raises(InterplayError):
        compare.read(root)
