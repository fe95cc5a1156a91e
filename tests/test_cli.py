"""What a person types: help, listings, exit codes, and the two ways to start the command."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from fabricate import Fabricated
from training import save_model

from app import cli
from app.cli import main
from interplay import __version__, methods
from interplay.config import RunConfig, flag
from interplay.store import RunStore

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("INTERPLAY_NO_REEXEC", "1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "runs"
    Fabricated(root / "first", method="rloo", layers=2, k=8, updates_each=2).whole(1)
    Fabricated(root / "second", method="ppo", layers=2, k=8, updates_each=2, seed=4).whole(2)
    (root / "no-run").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    return root


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def help_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


# --- help ------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_the_first_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([], capsys)
    for name, (meaning, _) in cli._COMMANDS.items():
        assert f" {name} " in text
        assert meaning in text


@pytest.mark.parametrize("name", list(commands()))
def test_the_help_of_a_command_names_every_flag_with_its_meaning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([name], capsys)
    actions = [a for a in commands()[name]._actions if a.dest != "help"]
    assert actions or name == "env"
    for action in actions:
        assert action.help
        assert all(word in text for word in action.option_strings or [action.metavar or action.dest])
        assert " ".join((action.help % vars(action) if "%(" in action.help else action.help.replace("%%", "%")).split()) in text
        if action.option_strings and action.nargs is None and action.default not in (None, argparse.SUPPRESS):
            assert f"default {action.default}" in action.help


def test_the_help_of_train_shows_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(["train"], capsys)
    for item in fields(RunConfig):
        assert re.search(rf"(^|\s){flag(item.name)}\b", text), item.name
        if isinstance(item.default, str | int | float) and not isinstance(item.default, bool):
            place = text[text.rindex(f" {flag(item.name)} {item.name.split('_')[-1].upper()} {item.metadata['help'][:15]}") :]
            assert f"(default {item.default})" in place[: len(item.metadata["help"]) + 150], item.name


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"interplay {__version__}\n")
    assert metadata.version("interplay") == __version__


# --- methods ---------------------------------------------------------------------------------------


def test_methods_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(["methods", "--json"], capsys))
    assert found == methods.describe()
    assert [row["name"] for row in found] == list(methods.NAMED)
    lines = said(["methods"], capsys).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(methods.NAMED)
    for row, line in zip(found, lines[1:], strict=True):
        assert all(row[key] in line for key in ("objective", "update_rule", "reads", "summary"))


@pytest.mark.parametrize("name", methods.NAMED)
def test_one_method_is_shown_with_its_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(said(["methods", name, "--json"], capsys))
    text = said(["methods", name], capsys)
    assert found["settings"]
    for item in found["settings"]:
        assert re.search(rf"^{item['name']}\s+{re.escape(str(item['default']))}\s+{re.escape(item['help'])}", text, re.MULTILINE)


# --- runs and show -----------------------------------------------------------------------------------


def test_runs_are_listed_for_people_and_for_programs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["run"]: row for row in json.loads(said(["runs", "--runs", str(runs), "--json"], capsys))}
    assert {"first", "second", "broken"} == set(found)
    assert (found["second"]["method"], found["second"]["seed"], found["second"]["task"]) == ("ppo", 4, "chat")
    assert found["broken"]["problems"]
    assert found["first"]["path"] == str(runs / "first")
    text = said(["runs", "--runs", str(runs)], capsys)
    for name, row in found.items():
        assert re.search(rf"^{name}\s+{row['state']}", text, re.MULTILINE)
    assert "no-run" not in text


def test_no_runs_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no runs in {tmp_path}; start one with: interplay train" in said(["runs", "--runs", str(tmp_path)], capsys)
    assert json.loads(said(["runs", "--runs", str(tmp_path / "none"), "--json"], capsys)) == []


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_run_is_shown_with_its_settings_and_scores(by: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["second", "--runs", str(runs)] if by == "name" else [str(runs / "second")]
    found = json.loads(said(["show", *words, "--json"], capsys))
    store = RunStore.open(runs / "second")
    frame = store.read("metrics").to_pandas()
    frame = frame[frame["split"] == "heldout"]
    assert found["info"]["run"] == "second"
    assert found["status"]["state"] == store.status().state
    assert set(found["heldout"]) == {str(n) for n in frame["iteration"].unique()}
    for row in frame.itertuples():
        shown = found["heldout"][str(row.iteration)][row.name]
        assert shown == row.value or (shown != shown and row.value != row.value)
    text = said(["show", *words], capsys)
    assert text.startswith(f"second: {store.status().state}\n")
    assert "method=ppo" in text
    assert "seed=4" in text
    assert f"command: {' '.join(store.info.command)}" in text
    gold = frame[(frame["name"] == "gold") & (frame["iteration"] == 1)]["value"].item()
    assert f"{gold:.3f}" in text
    assert f"files: {runs / 'second'}" in text


# --- environment -----------------------------------------------------------------------------------


def test_the_environment_is_for_a_bug_report(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(["env", "--json"], capsys)
    found = json.loads(text)
    assert found["interplay"] == __version__
    assert found["torch"] == metadata.version("torch")
    assert found["cores"] == os.cpu_count()
    assert {"python", "system", "cuda", "trl", "peft", "streamlit"} <= set(found)
    table = said(["env"], capsys)
    for name, value in found.items():
        assert re.search(rf"^{re.escape(name)}\s+{re.escape(str(value))}", table, re.MULTILINE)
    for private in (socket.gethostname(), str(Path.home()), getpass.getuser()):
        assert private not in text.split() + table.split()


# --- exit codes and processes ------------------------------------------------------------------------


def test_an_interrupted_run_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from interplay import loop
    from interplay.errors import Interrupted

    def stopped(*_: Any, **__: Any) -> None:
        raise Interrupted("SIGTERM")

    monkeypatch.setattr(loop, "train", stopped)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interplay: interrupted; what was recorded is kept\n"

    def noted(*_: Any, **__: Any) -> None:
        interrupt = Interrupted("SIGTERM")
        interrupt.add_note("go on with: interplay train --resume runs/x")
        raise interrupt

    monkeypatch.setattr(loop, "train", noted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interplay: interrupted; what was recorded is kept; go on with: interplay train --resume runs/x\n"


def test_a_fault_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from interplay import loop

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "train", broken)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def process(*words: str, module: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "app.cli"] if module else [str(Path(sys.executable).parent / "interplay")]
    return subprocess.run([*start, *words], capture_output=True, text=True, cwd=ROOT, timeout=300, **more)


@pytest.mark.parametrize("module", [True, False])
def test_both_ways_to_start_it(module: bool) -> None:
    done = process("--version", module=module)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"interplay {__version__}\n", "")
    assert process("nonsense", module=module).returncode == 2


def test_listing_runs_needs_no_engine(runs: Path) -> None:
    """`runs` and `show` answer without torch: it takes seconds to import, and the viewer has none."""
    code = (
        "import sys; sys.modules['torch'] = None; from app.cli import main; "
        f"code = main(['runs', '--runs', {str(runs)!r}]) or main(['show', {str(runs / 'first')!r}]); print(code); print(main(['methods']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout.splitlines()[-2:] == ["0", "2"], done.stderr
    assert done.stderr == "interplay: training needs the engine, and torch is not installed; run: pip install '.[train]' in the checkout\n"


def test_a_closed_pipe_is_quiet(runs: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m app.cli methods --json | true"], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_command_that_a_run_writes_down_gives_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`interplay train ...` in a real process, two updates, with the restart that tunes the allocator."""
    model = save_model(tmp_path / "m")
    config = RunConfig(
        model=str(model), out=str(tmp_path / "run"), method="dpo", data=str(tmp_path / "pairs.jsonl"), iterations=1, updates=1, reward_updates=1,
        prompts=2, completions=2, max_prompt_tokens=100, max_pair_tokens=8, max_new_tokens=6, heldout=4, heldout_pairs=2, pairs=24, lora_rank=2, sketch=4,
        dtype="float32", device="cpu", threads=1, settings={"beta": 0.2},
    )  # fmt: skip
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.delenv("INTERPLAY_NO_REEXEC")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    done = process("train", *config.to_argv())
    store = RunStore.open(tmp_path / "run")
    assert store.info.config == config.to_mapping()
    assert store.info.command == ["interplay", "train", *config.to_argv()]
    assert RunConfig.from_argv(store.info.command[2:]) == config
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"recorded in {tmp_path / 'run'}\nsee it with: interplay dash --runs {tmp_path}\n"
    assert store.status().state == "finished"
    assert {"policy", "reward"} == set(store.read("updates", columns=["role"]).column("role").to_pylist())
