"""A plan of runs: what is refused, what is skipped or gone on with, who is named when it fails, and what is written at the end."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fabricate import Fabricated

from app.cli import main
from app.commands import comparison, engine, rows
from app.commands.engine import Gpu
from app.commands.rows import Rows, Slot
from interplay import compare
from interplay.compare import Plan, Row, difference, parse_names, parse_overrides, parse_seeds, settle, standing
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError
from interplay.store import RunStore
from tests.training import SMALL

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No restart of the command, and the engine answers in this process: importing torch again takes seconds."""
    monkeypatch.setenv("INTERPLAY_NO_REEXEC", "1")
    monkeypatch.setattr(engine, "ask", lambda configs: engine.read(json.loads(json.dumps(engine.answer([config.to_mapping() for config in configs])))))


def made(out: Path, methods: tuple[str, ...] = ("rloo", "dpo"), seeds: tuple[int, ...] = (0, 1), **more: Any) -> Plan:
    shared = more.pop("shared", RunConfig())
    return compare.plan(shared, methods, seeds, out, **more)


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal."""
    assert main(["compare", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("interplay: ")
    assert line.count("\n") == 1
    return line


# --- the plan --------------------------------------------------------------------------------------


def test_a_plan_is_methods_times_seeds_and_every_row_a_whole_command(tmp_path: Path) -> None:
    plan = made(tmp_path, overrides={"dpo": {"learning_rate": "1e-4", "beta": "0.3"}}, shared=RunConfig(updates=9))
    assert [row.name for row in plan.rows] == ["rloo-s0", "dpo-s0", "rloo-s1", "dpo-s1"]
    assert plan.methods == ("rloo", "dpo")
    for row in plan.rows:
        assert RunConfig.from_argv(row.argv[1:]) == row.config
        assert row.argv[0] == "train"
        assert (row.config.method, row.config.seed, row.config.updates, row.folder) == (row.method, row.seed, 9, tmp_path / row.name)
    assert (plan.rows[1].config.learning_rate, plan.rows[1].config.settings) == (1e-4, {"beta": 0.3})
    assert (plan.rows[0].config.learning_rate, plan.rows[0].config.settings) == (RunConfig().learning_rate, {})


def test_all_rows_start_from_one_warm_up(tmp_path: Path) -> None:
    plan = made(tmp_path, ("zopro", "rloo"), (3, 4), warm="rloo", overrides={"rloo": {"learning_rate": "0.01"}}, shared=RunConfig(iterations=5))
    first = plan.rows[0]
    assert plan.warm == first
    assert (first.name, first.seed, first.method, first.config.iterations, first.config.start_from) == ("warm", 3, "rloo", 1, None)
    assert first.config.learning_rate == 0.01
    assert {row.config.start_from for row in plan.arms} == {str(tmp_path / "warm")}
    assert {row.config.iterations for row in plan.arms} == {5}
    assert len(plan.arms) == 4


def test_a_run_to_start_from_takes_the_place_of_the_warm_up(tmp_path: Path) -> None:
    run = Fabricated(tmp_path / "run", layers=1, k=8, updates_each=1).whole(1)
    with pytest.raises(ConfigError, match="no complete iteration"):
        made(tmp_path / "c", shared=RunConfig(start_from=str(run)))
    seal(run)
    plan = made(tmp_path / "c", shared=RunConfig(start_from=str(run)), warm="rloo")
    assert plan.warm is None
    assert {row.config.start_from for row in plan.rows} == {str(run)}


def test_controls_are_marked_and_need_not_keep_the_budget(tmp_path: Path) -> None:
    plan = made(tmp_path, ("rloo", "extrapolate"), overrides={"extrapolate": {"updates": "1"}}, shared=RunConfig(updates=4))
    assert [row.control for row in plan.rows] == [False, True, False, True]
    assert compare.budget(plan)["updates"] == 4
    assert plan.controls == {"extrapolate"}


def test_an_arm_may_have_settings_of_its_own(tmp_path: Path) -> None:
    arms = ("zopro", "zopro:mode=wrong_v:learning-rate=0.1", "zopro:freeze_reward=true")
    plan = made(tmp_path, arms, (0,), overrides={"zopro": {"alpha": "0.5"}}, controls={"zopro:freeze_reward=true"})
    assert plan.methods == arms
    assert {row.config.method for row in plan.rows} == {"zopro"}
    assert [row.config.settings for row in plan.rows] == [{"alpha": 0.5}, {"alpha": 0.5, "mode": "wrong_v"}, {"alpha": 0.5}]
    assert [row.config.learning_rate for row in plan.rows] == [None, 0.1, None]
    assert [row.config.freeze_reward for row in plan.rows] == [False, False, True]
    assert plan.controls == {"zopro:freeze_reward=true"}
    settle(plan)
    assert compare.read(tmp_path) == plan


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("zopro:", "write METHOD:KEY=VALUE"),
        ("zopro:mode", "write METHOD:KEY=VALUE"),
        ("zopro:seed=1", "the plan sets seed; use --seeds"),
        ("zopro:alpha=1:alpha=2", "sets alpha twice"),
        ("zopro:updates=9", "updates is 9 for zopro:updates=9 but 6 for rloo"),
    ],
)
def test_an_arm_that_is_none(arm: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, ("rloo", arm), (0,))


@pytest.mark.parametrize("method", ["../../escape", "a/b", "x\0y", "UPPER", "réel", "-dash", "a+b", "online_dpo", "." * 200])
def test_a_row_of_any_name_stays_in_its_folder(method: str, tmp_path: Path) -> None:
    (row,) = made(tmp_path, (method,), (0,)).rows
    assert row.folder.parent == tmp_path
    assert row.folder.name == row.name
    assert set(row.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert row.name not in (compare.WARM, compare.LOGS)


@pytest.mark.parametrize("key", [key for key in compare.SAME if isinstance(getattr(RunConfig(), key), int)])
def test_an_unequal_budget_is_refused(key: str, tmp_path: Path) -> None:
    value = getattr(RunConfig(), key)
    with pytest.raises(ConfigError, match=rf"^{key} is {value + 1} for dpo but {value} for rloo; .*--controls$"):
        made(tmp_path, overrides={"dpo": {key: str(value + 1)}})
    made(tmp_path, overrides={"dpo": {key: str(value + 1)}}, controls={"dpo"})


@pytest.mark.parametrize(("text", "expected"), [("3", (0, 1, 2)), ("3,5,8", (3, 5, 8)), ("4,", (4,)), ("1", (0,))])
def test_seeds(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["0", "", "-1", "a", "1001", "1.5", "1,a", ",", "9" * 30, "²"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--seeds is "):
        parse_seeds(text)


@pytest.mark.parametrize("word", ["", "dpo", "dpo:", "dpo:beta", ":beta=1", "dpo:=1", "beta=1"])
def test_an_override_that_is_none(word: str) -> None:
    with pytest.raises(ConfigError, match="write METHOD:KEY=VALUE"):
        parse_overrides([word], ["dpo"])


def test_overrides() -> None:
    assert parse_overrides(["dpo:learning-rate=1e-4", "dpo:beta=a=b"], ["dpo"]) == {"dpo": {"learning_rate": "1e-4", "beta": "a=b"}}
    with pytest.raises(ConfigError, match="did you mean 'dpo'"):
        parse_overrides(["dop:beta=1"], ["dpo", "rloo"])
    with pytest.raises(ConfigError, match="twice"):
        parse_overrides(["dpo:a-b=1", "dpo:a_b=2"], ["dpo"])
    for key, instead in (("seed", "--seeds"), ("out", "--out"), ("method", "--methods")):
        with pytest.raises(ConfigError, match=f"the plan sets {key}; use {instead}$"):
            parse_overrides([f"dpo:{key}=1"], ["dpo"])


def test_repeated_methods_and_names_that_fall_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--methods names 'dpo' twice"):
        parse_names("--methods", "dpo, rloo,dpo")
    with pytest.raises(ConfigError, match="--methods names 'a-b-s0' twice"):
        made(tmp_path, ("a-b", "a_b"), (0,))
    with pytest.raises(ConfigError, match="--seeds names 3 twice"):
        made(tmp_path, seeds=(3, 3))


# --- refusals through the command --------------------------------------------------------------------

BAD = [
    (["--methods", "rlo,dpo"], "did you mean 'rloo'"),
    (["--methods", "rloo,rloo"], "--methods names 'rloo' twice"),
    ([], "--methods is missing"),
    (["--methods", ","], "--methods is empty"),
    (["--methods", "rloo", "--seeds", "0"], "--seeds is '0'"),
    (["--methods", "rloo", "--seeds", "2,2"], "--seeds names 2 twice"),
    (["--methods", "rloo", "--method", "dpo"], "unknown argument '--method'; did you mean '--methods'"),
    (["--methods", "rloo", "--seed", "1"], "unknown argument '--seed'; did you mean '--seeds'"),
    (["--methods", "rloo", "--for", "rloo"], "write METHOD:KEY=VALUE"),
    (["--methods", "rloo", "--for", "rlo:clip=1"], "did you mean 'rloo'"),
    (["--methods", "zopro,zopro:mod=iso"], "--set mod: zopro has no such setting; did you mean 'mode'"),
    (["--methods", "rloo,dpo", "--for", "dpo:updates=9"], "updates is 9 for dpo but 12 for rloo"),
    (["--methods", "rloo,dpo", "--for", "dpo:learning_rat=1"], "--set learning_rat: dpo has no such setting"),
    (["--methods", "rloo,dpo", "--for", "dpo:learning-rate=fast"], "--learning-rate is 'fast'; it must be a number"),
    (["--methods", "rloo,dpo", "--set", "beta=0.1", "--warm", "none", "--controls", "none"], "--set "),
    (["--methods", "rloo", "--from", "nowhere"], "--from is 'nowhere', which is not a run folder"),
    (["--methods", "rloo", "--controls", "dpo"], "--controls names 'dpo', which is not in --methods"),
    (["--methods", "rloo", "--warm", "rlooo"], "did you mean 'rloo'"),
    (["--methods", "rloo", "--task", "chatt"], "did you mean 'chat'"),
    (["--methods", "rloo", "--updates", "0"], "--updates is 0; it must be at least 1"),
    (["--table-only"], "--out is missing"),
    (["--table-only", "--out", "nowhere"], "which holds no plan.json"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda item: " ".join(item) if isinstance(item, list) else "")
def test_bad_input_is_one_line_and_nothing_starts(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in said(words, capsys)
    assert not list(tmp_path.iterdir())


def test_a_file_cannot_name_one_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("method: dpo\n")
    assert "method stands in --config" in said(["--methods", "rloo", "--config", str(tmp_path / "c.yaml")], capsys)


def test_a_folder_that_is_a_run_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Fabricated(tmp_path / "run", layers=1, k=8, updates_each=1).whole(1)
    assert "which is the folder of a run" in said(["--methods", "rloo", "--out", str(run)], capsys)


def test_the_plan_alone_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c"
    assert main(["compare", "--methods", "rloo,dpo", "--seeds", "2", "--out", str(out), "--plan-only", "--model", str(saved(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert "5 rows in" in text
    assert text.count("interplay train") == 5
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "warm", "row"), [([], (6, 6, 32), (12, 2, 8)), (["--pairs", "9"], (6, 6, 9), (12, 2, 9)), (["--for", "warm:pairs=5"], (6, 6, 5), (12, 2, 8))]
)
def test_a_warm_start_trains_its_reward_model_like_a_run_of_its_own(
    words: list[str], warm: tuple[int, int, int], row: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--methods", "rloo,dpo", "--seeds", "1", "--plan-only", "--out", str(tmp_path / "c"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    found = [RunConfig.from_argv(shlex.split(line.split(": ", 2)[2])[2:]) for line in lines]
    assert [(config.updates, config.reward_updates, config.pairs) for config in found] == [warm, row, row]


def saved(folder: Path) -> Path:
    """A model folder as far as it is looked at before a run."""
    place = folder / "model"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"0" * 1000)
    return place


def test_the_engine_is_asked_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = RunConfig(model=str(saved(tmp_path)), device="cpu")
    assert engine.ask([config]) == engine.Answer((), 1000)


# --- the plan on disk --------------------------------------------------------------------------------


def test_the_same_plan_is_agreed_with_wherever_its_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(made(tmp_path / "here", warm="rloo"))
    written = (tmp_path / "here" / "plan.json").read_bytes()
    settle(made(tmp_path / "here", warm="rloo"))
    (tmp_path / "here").rename(tmp_path / "there")
    settle(made(tmp_path / "there", warm="rloo"))
    monkeypatch.chdir(tmp_path)
    settle(made(Path("there"), warm="rloo"))
    assert (tmp_path / "there" / "plan.json").read_bytes() == written
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared": RunConfig(updates=7)}, "updates of rloo-s0 is 6 there and 7 here"),
        ({"seeds": (0, 2)}, "it has rloo-s1, which this command leaves out"),
        ({"methods": ("rloo",)}, "it has dpo-s0, which this command leaves out"),
        ({"overrides": {"dpo": {"beta": "0.5"}}}, "settings of dpo-s0 is {} there and {'beta': 0.5} here"),
        ({"controls": {"dpo"}}, "dpo is no control there"),
        ({"warm": "rloo"}, "start_from of rloo-s0 is None there and"),
    ],
)
def test_a_plan_that_differs_is_refused_by_its_first_difference(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    settle(made(tmp_path))
    with pytest.raises(ConfigError) as refused:
        settle(made(tmp_path, **change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_plan_grows_by_arms_and_seeds(tmp_path: Path) -> None:
    settle(made(tmp_path, warm="rloo"))
    grown = made(tmp_path, ("rloo", "zopro", "dpo"), (0, 1, 2), warm="rloo")
    settle(grown)
    assert compare.read(tmp_path) == grown
    with pytest.raises(ConfigError, match="it has zopro-s0, which this command leaves out"):
        settle(made(tmp_path, warm="rloo"))


@pytest.mark.parametrize("content", ["{", "[]", '{"out": "x"}', '{"out": "x", "rows": [1]}', '{"out": "x", "rows": [{"argv": ["train", "--nonsense"]}]}'])
def test_a_damaged_plan_is_said_to_be(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        compare.read(tmp_path)


def test_a_plan_that_is_read_is_the_plan_that_was_written(tmp_path: Path) -> None:
    plan = made(tmp_path, ("rloo", "extrapolate"), warm="rloo", overrides={"rloo": {"learning_rate": "0.5"}})
    settle(plan)
    assert compare.read(tmp_path) == plan
    assert difference(plan, plan) is None


def test_two_processes_do_not_run_one_plan(tmp_path: Path) -> None:
    with compare.alone(tmp_path), pytest.raises(StoreError, match="is being run by process"), compare.alone(tmp_path):
        pass


# --- rows on disk ----------------------------------------------------------------------------------


def seal(run: Path, iteration: int = 1) -> None:
    folder = run / "checkpoints" / f"iteration-{iteration}"
    folder.mkdir(parents=True)
    (folder / "COMPLETE").write_text("{}")


def recorded(folder: Path, state: Any, *, sealed: bool = False, seed: int = 0) -> Row:
    """A row whose folder holds a run in a state."""
    run = Fabricated(folder, layers=1, k=8, updates_each=1, seed=seed)
    run.store.close(state)
    if sealed:
        seal(folder)
    return Row(folder.name, "rloo", seed, RunConfig.from_mapping(run.store.info.config).with_(out=str(folder)))


@pytest.mark.parametrize(
    ("state", "sealed", "expected"),
    [
        ("finished", False, "finished"),
        ("interrupted", True, "resume"),
        ("interrupted", False, "aside"),
        ("failed", True, "resume"),
        ("failed", False, "aside"),
    ],
)
def test_what_there_is_to_do_for_a_row(state: str, sealed: bool, expected: str, tmp_path: Path) -> None:
    assert standing(recorded(tmp_path / "row", state, sealed=sealed)) == expected


def test_a_row_without_a_run_is_new_and_one_that_somebody_trains_is_left_alone(tmp_path: Path) -> None:
    row = Row("row", "rloo", 0, RunConfig(out=str(tmp_path / "row")))
    assert standing(row) == "new"
    run = Fabricated(tmp_path / "row", layers=1, k=8, updates_each=1)
    live = replace(row, config=RunConfig.from_mapping(run.store.info.config).with_(out=str(tmp_path / "row")))
    assert standing(live) == "running"
    with pytest.raises(ConfigError, match="is being trained by another process"):
        Rows(Plan(tmp_path, (live,)), [Slot()], None, lambda *_: None).run()
    run.store.close("interrupted")


def test_a_folder_that_holds_another_run_is_refused_and_a_broken_one_moved_aside(tmp_path: Path) -> None:
    row = recorded(tmp_path / "row", "finished")
    with pytest.raises(StoreError, match=r"holds another run: learning_rate is None there and 0.5 in the plan; move it away"):
        standing(replace(row, config=row.config.with_(learning_rate=0.5)))
    (row.folder / "run.json").write_text("{")
    assert standing(row) == "aside"
    (tmp_path / "row.broken-1").mkdir()
    assert compare.set_aside(row) == tmp_path / "row.broken-2"
    assert (tmp_path / "row.broken-2" / "run.json").read_text() == "{"
    assert standing(row) == "new"


# --- devices and memory ------------------------------------------------------------------------------


def test_one_slot_for_each_gpu_under_the_name_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu("A", 10), Gpu("B", 20)]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in rows.slots(gpus)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in rows.slots(gpus)] == ["2", "GPU-7"]
    (cpu,) = rows.slots([])
    assert "CUDA_VISIBLE_DEVICES" not in cpu.environment
    assert 0 < cpu.free <= psutil.virtual_memory().total


def test_memory_is_what_was_measured_or_a_lower_bound(tmp_path: Path) -> None:
    plan = made(tmp_path)
    assert rows.needed(plan.rows[0], None, None) == 0
    assert rows.needed(plan.rows[0], 100, 70.0) == 100
    assert rows.needed(plan.rows[0], 100, 700.0) == 700
    assert rows.needed(replace(plan.rows[0], config=plan.rows[0].config.with_(tune="full")), 100, None) == 600


def test_a_row_that_cannot_fit_is_refused_with_the_estimate(tmp_path: Path) -> None:
    plan = made(tmp_path, ("rloo",), (0,))
    (outcome,) = Rows(plan, [Slot(Gpu("small", 2**30))], 3 * 2**30, lambda *_: None).run()
    assert outcome.state == "failed"
    assert outcome.why == "needs at least 3.0 GiB, more than small (1.0 GiB free) has; free memory, or choose a smaller --model"


# --- rows at work, with commands that stand in for training --------------------------------------------

FINISH = """
import sys; sys.path[:0] = {paths!r}
from interplay.config import RunConfig
from fabricate import Fabricated
from pathlib import Path
config = RunConfig.from_argv(sys.argv[1:])
if config.method in {fail!r}:
    print("interplay: it broke"); sys.exit(2)
run = Fabricated(Path(config.out), layers=1, k=8, updates_each=1, method=config.method, seed=config.seed)
run.store.update_info(config=config.to_mapping())
run.whole(1)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows write a fabricated run; `fail` names methods that break."""

    def use(fail: tuple[str, ...] = ()) -> None:
        code = FINISH.format(paths=[str(ROOT / "tests"), str(ROOT)], fail=fail)
        real = subprocess.Popen

        def started(argv: list[str], **more: Any) -> Any:
            assert argv[1:4] == ["-m", "app.cli", "train"]
            return real([sys.executable, "-c", code, *argv[4:]], **more)

        monkeypatch.setattr(subprocess, "Popen", started)

    return use


def test_a_failing_row_is_named_while_the_others_run(tmp_path: Path, stand_in: Any) -> None:
    stand_in(fail=("dpo",))
    plan = made(tmp_path)
    seen: list[float] = []
    outcomes = Rows(plan, [Slot()], None, lambda doing, share, metrics: seen.append(share)).run()
    assert [(o.row.name, o.state) for o in outcomes] == [("rloo-s0", "finished"), ("dpo-s0", "failed"), ("rloo-s1", "finished"), ("dpo-s1", "failed")]
    assert outcomes[1].why == "interplay: it broke"
    assert "it broke" in (tmp_path / "logs" / "dpo-s0.log").read_text()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_finished_rows_are_skipped_and_broken_ones_moved_aside(tmp_path: Path, stand_in: Any) -> None:
    stand_in()
    plan = made(tmp_path)
    assert {outcome.state for outcome in Rows(plan, [Slot()], None, lambda *_: None).run()} == {"finished"}
    kept = (tmp_path / "rloo-s0" / "run.json").stat().st_mtime_ns
    (tmp_path / "dpo-s1" / "status.json").write_text("{")
    assert {outcome.state for outcome in Rows(plan, [Slot()], None, lambda *_: None).run()} == {"finished"}
    assert (tmp_path / "rloo-s0" / "run.json").stat().st_mtime_ns == kept
    assert (tmp_path / "dpo-s1.broken-1").is_dir()


def test_without_a_warm_up_nothing_starts(tmp_path: Path, stand_in: Any) -> None:
    stand_in(fail=("ppo",))
    outcomes = Rows(made(tmp_path, warm="ppo"), [Slot(Gpu("a", 1)), Slot(Gpu("b", 1))], None, lambda *_: None).run()
    assert [outcome.state for outcome in outcomes] == ["failed", *["not started"] * 4]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["warm.log"]


STUBBORN = "import signal, time; signal.signal(signal.{name}, {handler}); print('ready', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("handler", ["lambda *_: exit(130)", "signal.SIG_IGN"], ids=["ends by itself", "is killed"])
def test_a_signal_is_passed_on_and_nothing_is_left_behind(number: signal.Signals, handler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "GRACE_SECONDS", 0.5)
    children: list[Any] = []
    real = subprocess.Popen

    def started(_: list[str], **more: Any) -> Any:
        children.append(real([sys.executable, "-c", STUBBORN.format(name=number.name, handler=handler)], **more))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    plan = made(tmp_path)

    def stop(*_: Any) -> None:
        if "ready" in plan.log(plan.rows[0]).read_text():
            os.kill(os.getpid(), number)

    work = Rows(plan, [Slot()], None, stop)
    outcomes = work.run()
    assert work.interrupted
    assert [outcome.state for outcome in outcomes] == ["interrupted", *["not started"] * 3]
    assert [child.returncode for child in children] == [130 if "exit" in handler else -signal.SIGKILL]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- the real thing --------------------------------------------------------------------------------


def command(out: Path, model: Path, prompts: Path, *more: str) -> list[str]:
    """Two methods, two seeds, with a model that trains in a second."""
    small = RunConfig(**{**SMALL, "model": str(model), "data": str(prompts), "iterations": 1})
    return ["compare", "--methods", "rloo,dpo", "--seeds", "2", "--out", str(out), *small.to_argv(), *more]


@pytest.fixture(scope="module")
def compared(model: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole comparison, started as a person would."""
    out = tmp_path_factory.mktemp("real") / "c"
    words = command(out, model, prompts, "--for", "dpo:beta=0.2", "--for", "dpo:learning-rate=1e-3")
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words], capture_output=True, text=True, cwd=ROOT, timeout=900, env={**os.environ, "INTERPLAY_NO_REEXEC": "1"}
    )
    assert done.returncode == 0, done.stderr
    return out, done


def test_two_methods_are_compared_through_the_command(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = compared
    states = {row.name: standing(row) for row in compare.read(out).rows}  # type: ignore[union-attr]
    assert states == dict.fromkeys(["warm", "rloo-s0", "dpo-s0", "rloo-s1", "dpo-s1"], "finished")
    assert RunStore.open(out / "dpo-s1").info.config["settings"] == {"beta": 0.2}
    assert "runs on CPU (" in done.stdout
    assert "dpo - rloo" in done.stdout
    assert max(len(line) for line in done.stdout.split("frozen reward model 0")[1].split("all numbers")[0].splitlines()) <= 120
    assert "5 of 5 rows" in done.stderr


def test_the_written_table_holds_every_number_and_no_path(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = compared
    text = (out / "comparison.json").read_text()
    found = json.loads(text)
    assert str(out.parent) not in text
    assert "NaN" not in text
    assert [row["method"] for row in found["methods"]] == ["rloo", "dpo"]
    assert [row["run"] for row in found["runs"]] == ["dpo-s0", "dpo-s1", "rloo-s0", "rloo-s1"]
    assert (found["warm_up"], found["controls"], found["not_finished"], found["budget"]["updates"]) == ("rloo", [], [], 2)
    assert found["versions"][0]["torch"]
    assert {row["updates"] for row in found["runs"]} == {2}
    frame = RunStore.open(out / "rloo-s0").read("completions").to_pandas()
    held = frame[frame["split"] == "heldout"].groupby("iteration")["gold"].mean()
    assert found["runs"][2]["gold"] == pytest.approx(held[1] - held[0])
    lines = list(csv.DictReader((out / "comparison.csv").open()))
    assert [float(line["gold_mean"]) for line in lines] == pytest.approx([row["gold"]["mean"] for row in found["methods"]])
    assert {"gold_student_low", "proxy_iqm_bootstrap_high", "at_equal_kl_gold", "run_seeds"} <= set(lines[0])


def test_the_table_alone_is_the_same_table(compared: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]) -> None:
    out, done = compared
    before = json.loads((out / "comparison.json").read_text())
    assert main(["compare", "--table-only", "--out", str(out)]) == 0
    assert capsys.readouterr().out in done.stdout
    assert json.loads((out / "comparison.json").read_text()) == before


def test_a_shipped_comparison_gives_the_same_table_and_names_no_machine(
    compared: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = compared[0]
    subprocess.run([sys.executable, str(ROOT / "data" / "ship.py"), str(out), str(tmp_path)], check=True, cwd=ROOT)
    shipped = tmp_path / out.name
    tables = []
    for folder in (out, shipped):
        assert main(["compare", "--table-only", "--out", str(folder)]) == 0
        tables.append(capsys.readouterr().out.replace(str(folder), "OUT"))
    assert tables[0] == tables[1]
    assert {path.name for path in shipped.rglob("*") if path.is_dir()} <= {row.name for row in compare.read(shipped).rows} | {"metrics", "completions"}  # type: ignore[union-attr]
    assert not [path for path in shipped.rglob("*.json") if str(out.parent) in path.read_text(encoding="utf-8")]


def test_hostile_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = comparison.load(_fabricated(tmp_path, "[bold red]x[/]"))
    assert numbers is not None
    comparison.show(numbers)
    assert "[bold red]x[/]" in capsys.readouterr().out


def _fabricated(out: Path, method: str) -> Plan:
    """A finished comparison of one method of any name."""
    plan = made(out, (method,), (0,), shared=RunConfig(updates=2, sketch=8))
    (row,) = plan.rows
    run = Fabricated(row.folder, layers=1, k=8, updates_each=2, method=method)
    run.store.update_info(config=row.config.to_mapping())
    for iteration in (0, 1):
        place = {"clock": 1, "update": iteration, "iteration": iteration, "role": "policy", "split": "heldout"}
        rows_ = {name: [value] * 2 for name, value in place.items()}
        texts = {"prompt_id": ["a", "b"], "prompt": ["", ""], "completion": ["", ""], "tokens": [1, 2], "finished": [True, False]}
        run.store.append("completions", rows_ | texts | {"gold": [0.1, 0.4], "proxy": [0.0, 1.0 + iteration], "kl": [0.0, 0.1]})
    run.whole(1)
    return plan


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stopped_comparison_goes_on_with_the_same_command(number: signal.Signals, model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    words = [sys.executable, "-m", "app.cli", *command(out, model, prompts, "--warm", "none", "--updates", "12")]
    words[words.index("--seeds") + 1] = "1"
    environment = {**os.environ, "INTERPLAY_NO_REEXEC": "1"}
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    deadline = time.monotonic() + 300
    while not list((out / "rloo-s0" / "checkpoints").glob("iteration-0/COMPLETE")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(number)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert f"interplay: interrupted; finished rows: none; go on with the same command and --out {out}" in err
    assert RunStore.open(out / "rloo-s0").status().state == "interrupted"
    assert not [child for child in psutil.process_iter(["cmdline"]) if str(out) in " ".join(child.info["cmdline"] or ())]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "rloo-s0: to go on with" in done.stdout
    assert not list(out.glob("*.broken-*"))
    shutil.rmtree(out)
