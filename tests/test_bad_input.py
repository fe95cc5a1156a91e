"""What a person can type wrong in settings, run files, folders and commands: one line that says what is wrong and what to do; exit code 2."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from app.cli import main
from interplay.store import RunStore
from tests.refusing import SMALL, model, refused, small, workplace

__all__ = ["model", "workplace"]  # the fixtures


# --- settings --------------------------------------------------------------------------------------

SETTINGS = [
    ({"method": "rlo"}, ["--method is 'rlo'", "did you mean 'rloo'", "allowed: dpo, extrapolate, "]),
    ({"task": "chatt"}, ["--task is 'chatt'", "did you mean 'chat'", "allowed: "]),
    ({"set": "clipp=0.1"}, ["--set clipp", "did you mean 'clip'", "it has: "]),
    ({"set": "clip"}, ["--set is 'clip'", "write NAME=VALUE"]),
    ({"set": "clip=wide"}, ["--set clip is 'wide'", "a number"]),
    ({"set": "clip=0"}, ["--set clip is 0", "greater than 0"]),
    ({"lora-rank": 0}, ["--lora-rank is 0", "at least 1"]),
    ({"lora-rank": "x"}, ["--lora-rank is 'x'", "a whole number"]),
    ({"seed": 10**20}, ["--seed is 1", "at most"]),
    ({"layers": "7-9"}, ["--layers is '7-9'", "this model has blocks 0-1"]),
    ({"layers": "nine"}, ["--layers is 'nine'", "use `all`"]),
    ({"lora-targets": "q_porj"}, ["--lora-targets names 'q_porj'", "did you mean 'q_proj'", "allowed: all-linear, down_proj"]),
    ({"max-prompt-tokens": 20}, ["--max-prompt-tokens is 20", "the shortest of", "raise it, or give shorter prompts"]),
    ({"max-prompt-tokens": 250}, ["--max-prompt-tokens 250 plus the longest answer (12 tokens) is 262", "context holds 256", "lower --max-prompt-tokens"]),
    ({"max-new-tokens": 200}, ["--max-new-tokens", "context holds 256"]),
    ({"reward-updates": 0}, ["--reward-updates is 0", "--reward gold"]),
    ({"reward": "golden"}, ["--reward is 'golden'", "allowed: gold, model", "did you mean 'gold'"]),
    ({"heldout": 100000}, ["--heldout is 100000", "use --heldout"]),
    ({"learning-rate": "nan"}, ["--learning-rate is nan", "finite"]),
    pytest.param({"minibatches": 3}, ["--minibatches is 3", "--prompts"]),
]


@pytest.mark.parametrize(("changes", "words"), SETTINGS, ids=lambda value: "=".join(map(str, *value.items())) if isinstance(value, dict) else "")
def test_setting(changes: dict[str, Any], words: list[str], model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(small(model, **changes), capsys)
    for word in words:
        assert word in line
    assert not list((workplace / "runs").glob("*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use --device cpu" in refused(small(model, device="cuda"), capsys)
    assert not list((workplace / "runs").glob("*"))


YAML = [
    ("lerning_rate: 1\n", ["unknown key 'lerning_rate' in run.yaml", "did you mean 'learning_rate'"]),
    ("method: rlo\n", ["--method is 'rlo'", "did you mean 'rloo'"]),
    ("settings: {clipp: 1}\n", ["--set clipp", "did you mean 'clip'"]),
    ("settings: clip=1\n", ["settings is 'clip=1'", "write"]),
    ("seed: [1, 2\n", ["run.yaml is not YAML", "key: value"]),
    ("- seed\n", ["run.yaml holds a list", "key: value"]),
    ("trust_remote_code: true\n", ["trust_remote_code stands in run.yaml", "type --trust-remote-code"]),
    ("trust-remote-code: true\n", ["trust_remote_code stands in run.yaml", "type --trust-remote-code"]),
    ("seed: soon\n", ["--seed is 'soon'", "a whole number"]),
]


@pytest.mark.parametrize(("text", "words"), YAML)
def test_yaml(text: str, words: list[str], model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text(text)
    chosen = small(model, method=None)
    line = refused([*chosen, "--config", "run.yaml"], capsys)
    for word in words:
        assert word in line
    assert not (workplace / "runs").exists() or not list((workplace / "runs").iterdir())


def test_yaml_files_that_cannot_be_read(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs.yaml").write_text("seed: 1\n")
    assert "--config is 'rums.yaml', but there is no such file; did you mean 'runs.yaml'?" in refused(["train", "--config", "rums.yaml"], capsys)


def test_yaml_that_is_not_utf8(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("latin.yaml").write_bytes("out: süß\n".encode("latin-1"))
    assert "--config is 'latin.yaml'" in refused(["train", "--config", "latin.yaml"], capsys)


# --- folders ---------------------------------------------------------------------------------------


def test_a_run_under_a_file_cannot_be_made(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "taken").write_text("mine")
    line = refused(small(model, out="taken/run"), capsys)
    assert "taken" in line
    assert (workplace / "taken").read_text() == "mine"


def test_two_runs_cannot_have_one_name(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(model)) == 0
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in (workplace / "runs" / "it").rglob("*") if p.is_file()}
    line = refused(small(model), capsys)
    assert "a run named it exists already in runs; choose another --out, or --resume it" in line
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert RunStore.open(workplace / "runs" / "it").status().state == "finished"
    line = refused(["train", "--resume", "runs/it"], capsys)
    assert "which has finished all 1 iterations; start a new run" in line
    assert RunStore.open(workplace / "runs" / "it").status().state == "finished"
    line = refused(["train", "--resume", "runs/it", "--seed", "4"], capsys)
    assert "leave out --seed" in line


@pytest.mark.parametrize("folder", ["nowhere", "plain"])
def test_only_a_run_can_be_resumed(folder: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "plain").mkdir()
    line = refused(["train", "--resume", folder], capsys)
    assert f"--resume is {folder!r}, which is not a run folder (no run.json); `interplay runs` lists the runs" in line
    assert not list((workplace / "plain").iterdir())


def test_a_folder_that_was_there_before_outlives_a_failed_set_up(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "mine").mkdir()
    (workplace / "mine" / "letter.txt").write_text("dear")
    refused(small("./nowhere", out="mine"), capsys)
    assert [p.name for p in (workplace / "mine").iterdir()] == ["letter.txt"]


# --- numbers that are no longer numbers ------------------------------------------------------------

DIVERGED = [
    pytest.param({"learning_rate": 1e30, "updates": 3}, "--learning-rate", id="policy"),
    pytest.param({"learning_rate": 1e30, "updates": 3, "method": "dpo"}, "--learning-rate", id="offline"),
    pytest.param({"reward_learning_rate": 1e30, "reward_updates": 3}, "--reward-learning-rate", id="reward"),
]


@pytest.mark.parametrize(("changes", "remedy"), DIVERGED)
def test_a_diverged_run_says_so_and_is_kept(changes: dict[str, Any], remedy: str, model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(small(model, **changes), capsys)
    assert f"lower {remedy}" in line
    status = RunStore.open(workplace / "runs" / "it").status()
    assert status.state == "failed"
    assert line == f"interplay: {status.error}"


def test_a_loss_that_is_no_number_stops_the_run_before_anything_moves(
    model: Path, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from interplay.objectives import rloo

    original = rloo.OBJECTIVE

    def broken(outputs: Any, *rest: Any) -> Any:
        value, metrics = original.loss(outputs, *rest)
        return value * math.nan, metrics

    monkeypatch.setattr(rloo, "OBJECTIVE", type(original)(**{**vars(original), "loss": broken}))
    line = refused(small(model), capsys)
    assert "the loss is nan at learning rate 0.0003; lower --learning-rate" in line
    store = RunStore.open(workplace / "runs" / "it")
    assert (store.status().state, store.status().error) == ("failed", line.removeprefix("interplay: "))
    roles = set(store.read("updates", columns=["role"]).column("role").to_pylist())
    assert roles == {"reward"}  # the policy never moved
    assert (store.path / "checkpoints" / "iteration-0" / "COMPLETE").is_file()


# --- the other commands ----------------------------------------------------------------------------


def test_a_taken_port(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(["dash", "--port", str(port)], capsys)
    assert f"--port is {port}, which is taken on 127.0.0.1; choose another" in line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["trian"],
            ["unknown command 'trian'", "did you mean 'train'", "allowed: compare, dash, env, figure, import, methods, report, runs, show, tag, train"],
        ),
        ([], ["COMMAND", "--help"]),
        pytest.param(["train", "--lerning-rate", "1"], ["unknown argument '--lerning-rate'", "did you mean '--learning-rate'"]),
        pytest.param(["runs", "--jsn"], ["unknown argument '--jsn'", "did you mean '--json'"]),
        (["train", "--learning", "1"], ["unknown argument '--learning'"]),
        (["train", "extra"], ["unknown argument 'extra'"]),
        (["train", "--seed"], ["--seed", "expected one argument"]),
        (["dash", "--port", "high"], ["--port", "'high'"]),
        pytest.param(["dash", "--port", "99999"], ["--port is 99999", "65535"]),
        (["methods", "rlo"], ["method is 'rlo'", "did you mean 'rloo'", "allowed: "]),
        (["show", "nothing"], ["run is 'nothing'", "there is no folder runs", "name of one in --runs"]),
        (["show"], ["RUN", "--help"]),
    ],
)
def test_command(argv: list[str], words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(argv, capsys)
    for word in words:
        assert word in line
    assert not list(workplace.iterdir())


# --- and through a real process --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--lora-rank", "0"], "--lora-rank is 0; it must be at least 1"),
        (["train", "--model", "./nowhere"], "--model is './nowhere', but there is no such folder"),
        (["shw"], "did you mean 'show'"),
    ],
)
def test_process(argv: list[str], words: str, workplace: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    environment.pop("INTERPLAY_NO_REEXEC")  # the restart with a tuned allocator must keep words and exit code
    done = subprocess.run([sys.executable, "-m", "app.cli", *argv], capture_output=True, text=True, cwd=workplace, env=environment, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("interplay: ")]
    assert len(said) == 1
    assert words in said[0]
    assert "Traceback" not in done.stderr
    assert not list(workplace.glob("runs/*"))


def test_the_yaml_of_a_run_is_its_command(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The counter-check of all refusals above: the small run itself is accepted, also from a file."""
    values = {name.replace("-", "_"): value for name, value in SMALL.items()}
    Path("good.yaml").write_text(yaml.safe_dump({**values, "model": str(model), "out": "runs/from-yaml", "seed": 1}))
    assert main(["train", "--config", "good.yaml", "--seed", "2"]) == 0
    out, _ = capsys.readouterr()
    assert "recorded in runs/from-yaml" in out
    store = RunStore.open(workplace / "runs" / "from-yaml")
    assert store.info.config["seed"] == 2
    assert store.status().state == "finished"
