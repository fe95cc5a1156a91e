"""The rows of a plan at work: what is skipped or gone on with, who is named when it fails, and what is written at the end."""

from __future__ import annotations

import csv
import json
import os
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
from app.commands import comparison, rows
from app.commands.engine import Gpu
from app.commands.rows import Rows, Slot
from interplay import compare
from interplay.compare import Plan, Row, standing
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError
from interplay.store import RunStore
from tests.comparing import made, quiet, seal
from tests.training import SMALL

__all__ = ["quiet"]  # the fixture

ROOT = Path(__file__).resolve().parent.parent


# --- rows on disk ----------------------------------------------------------------------------------


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
