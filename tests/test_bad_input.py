"""What a person can get wrong: one line that names the argument, the value, what is allowed and what to do; exit code 2."""

from __future__ import annotations

import json
import math
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

from app.cli import main
from interplay.store import RunStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("bad") / "tiny-model")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go to a folder of their own; the process is not started again; the hub is out of reach."""
    monkeypatch.setenv("INTERPLAY_NO_REEXEC", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("interplay.tasks.chat.Chat.gold", lambda self, prompt, completion: sum(map(ord, completion)) % 7 / 6)  # else all pairs are ties
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = {
    "iterations": 1, "updates": 1, "prompts": 2, "completions": 2, "max-prompt-tokens": 150, "max-pair-tokens": 12, "max-new-tokens": 6, "pairs": 4,
    "heldout": 4, "heldout-pairs": 2, "reward-updates": 1, "reward-batch": 2, "lora-rank": 2, "sketch": 0, "dtype": "float32", "device": "cpu",
}  # fmt: skip


def small(model: Path | str, **changes: Any) -> list[str]:
    """The words of a run that takes a second."""
    chosen = {**SMALL, "model": model, "out": "runs/it", **{name.replace("_", "-"): value for name, value in changes.items()}}
    return ["train", *(f"--{name}={value}" for name, value in chosen.items() if value is not None)]


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error of a command that ends with exit code 2."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err + out
    lines = [line for line in err.splitlines() if line.startswith("interplay: ")]
    assert len(lines) == 1, err
    assert err.splitlines()[-1] == lines[0], "something was printed after the error"
    return lines[0]


def rows(path: Path, items: list[Any]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


# --- models ----------------------------------------------------------------------------------------


def no_folder(at: Path, model: Path) -> str:
    return str(at / "nowhere" / "model")


def near_folder(at: Path, model: Path) -> str:
    return str(model.with_name("tiny-modle"))


def a_file(at: Path, model: Path) -> str:
    return str(model / "config.json")


def empty_folder(at: Path, model: Path) -> str:
    (at / "empty").mkdir()
    return str(at / "empty")


def pickled_weights(at: Path, model: Path) -> str:
    folder = at / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text((model / "config.json").read_text())
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    return str(folder)


def no_weights(at: Path, model: Path) -> str:
    folder = at / "bare"
    folder.mkdir()
    (folder / "config.json").write_text((model / "config.json").read_text())
    return str(folder)


def copied(at: Path, model: Path, change: Callable[[Path], Any]) -> str:
    folder = at / "copied"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    change(folder)
    return str(folder)


def broken_config(at: Path, model: Path) -> str:
    return copied(at, model, lambda folder: (folder / "config.json").write_text("{"))


def unknown_architecture(at: Path, model: Path) -> str:
    return copied(at, model, lambda folder: (folder / "config.json").write_text('{"model_type": "marvel"}'))


def cut_weights(at: Path, model: Path) -> str:
    return copied(at, model, lambda folder: os.truncate(folder / "model.safetensors", 500))


def no_tokenizer(at: Path, model: Path) -> str:
    return copied(at, model, lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")])


def adapter_without_weights(at: Path, model: Path) -> str:
    (at / "adapter").mkdir()
    (at / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    return str(at / "adapter")


def adapter_with_broken_config(at: Path, model: Path) -> str:
    folder = Path(adapter_without_weights(at, model))
    (folder / "adapter_model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (folder / "adapter_config.json").write_text("{")
    return str(folder)


def hub_id(at: Path, model: Path) -> str:
    return "nobody/no-such-model"


MODELS = [
    (no_folder, ["no such folder", "give a local model folder, a hub id or `bundled`"]),
    (near_folder, ["did you mean 'tiny-model'?"]),
    (a_file, ["which is a file", "give the folder"]),
    (empty_folder, ["holds no config.json", "it holds nothing"]),
    (pickled_weights, ["only pytorch_model.bin, a pickle file that could run code", "safe_serialization=True"]),
    (no_weights, ["holds no weights", "save_pretrained"]),
    (broken_config, ["cannot be read", "give a model folder"]),
    (unknown_architecture, ["cannot be read", "marvel"]),
    pytest.param(cut_weights, ["cannot be read", "give a model folder"]),
    (no_tokenizer, ["tokenizer", "save it beside the model"]),
    (adapter_without_weights, ["an adapter without adapter_model.safetensors", "save it again"]),
    pytest.param(adapter_with_broken_config, ["adapter_config.json"]),
    (hub_id, ["cannot be read", "give a model folder, a hub id or `bundled`"]),
]


@pytest.mark.parametrize(("make", "words"), MODELS)
def test_model(make: Callable[[Path, Path], str], words: list[str], model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = make(workplace, model)
    line = refused(small(value), capsys)
    assert "--model" in line
    assert repr(value) in line
    for word in words:
        assert word in line
    assert not (workplace / "runs").exists() or not list((workplace / "runs").iterdir())


def test_judge_model(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(small(model, judge="model", judge_model="./no-judge"), capsys)
    assert "--judge-model is './no-judge', but there is no such folder" in line
    assert not list((workplace / "runs").glob("*"))


def test_judge_model_of_the_hub(model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--judge-model is 'nobody/no-such-judge'" in refused(small(model, judge="model", judge_model="nobody/no-such-judge"), capsys)


# --- data ------------------------------------------------------------------------------------------

GOOD = [{"prompt": f"question {i}"} for i in range(20)]


def unpickled(at: Path) -> str:
    (at / "data.pkl").write_bytes(pickle.dumps(GOOD))
    return str(at / "data.pkl")


def not_utf8(at: Path) -> str:
    (at / "latin.jsonl").write_bytes('{"prompt": "süß"}\n'.encode("latin-1"))
    return str(at / "latin.jsonl")


def broken_line(at: Path) -> str:
    (at / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    return str(at / "broken.jsonl")


def nothing(at: Path) -> str:
    (at / "empty.jsonl").write_text("")
    return str(at / "empty.jsonl")


def empty_data_folder(at: Path) -> str:
    (at / "files").mkdir()
    return str(at / "files")


def garbled_parquet(at: Path) -> str:
    (at / "x.parquet").write_bytes(b"PAR1 is not enough")
    return str(at / "x.parquet")


DATA = [
    (lambda at: str(at / "none.jsonl"), ["no such file", "give a file"]),
    (lambda at: "nobody/no-such-data", ["could not be had from the hub", "check name, network"]),
    (unpickled, ["a pickle file that could run code", ".jsonl"]),
    (not_utf8, ["not UTF-8", "save it as UTF-8"]),
    (broken_line, ["line 2 is not JSON", "mend or delete that line"]),
    (nothing, ["holds no rows", "give a file"]),
    (empty_data_folder, ["a folder without", "it holds nothing"]),
    (garbled_parquet, ["not a readable Parquet file"]),
    (lambda at: rows(at / "odd.jsonl", [{"question": "a", "answer_a": "b", "answer_b": "c"}] * 20), [
        "found columns: answer_a, answer_b, question", "accepted layouts:", "rename 'question' to 'prompt'", "rename 'answer_a' to 'chosen'",
    ]),
    (lambda at: rows(at / "few.jsonl", GOOD[:5]), ["with 5 usable prompts, but --heldout is 4", "more data"]),
    (lambda at: rows(at / "blank.jsonl", [{"prompt": ""}] * 20), ["none of its 20 rows can be used", "20 x no prompt"]),
    (lambda at: rows(at / "lists.jsonl", [[1], [2]]), ["line 1 holds a list", "each line must be one object"]),
    (lambda at: rows(at / "rows.txt", GOOD), ["suffix .txt is unknown", "allowed: .csv, .json, .jsonl, .parquet"]),
]  # fmt: skip
DATA_NAMES = ("missing", "hub", "pickle", "latin1", "broken", "empty", "folder", "parquet", "columns", "few", "blank", "lists", "suffix")


@pytest.mark.parametrize(("make", "words"), DATA, ids=DATA_NAMES)
def test_data(make: Callable[[Path], str], words: list[str], model: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = make(workplace)
    line = refused(small(model, data=value), capsys)
    assert "--data is" in line
    assert value in line
    for word in words:
        assert word in line
    assert not list((workplace / "runs").glob("*"))


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
        (["trian"], ["unknown command 'trian'", "did you mean 'train'", "allowed: compare, dash, env, figure, import, methods, report, runs, show, train"]),
        ([], ["COMMAND", "--help"]),
        pytest.param(["train", "--lerning-rate", "1"], ["unknown argument '--lerning-rate'", "did you mean '--learning-rate'"]),
        pytest.param(["runs", "--jsn"], ["unknown argument '--jsn'", "did you mean '--json'"]),
        (["train", "--learning", "1"], ["unknown argument '--learning'"]),
        (["train", "extra"], ["unknown argument 'extra'"]),
        (["train", "--seed"], ["--seed", "expected one argument"]),
        (["dash", "--port", "high"], ["--port", "'high'"]),
        pytest.param(["dash", "--port", "99999"], ["--port is 99999", "65535"]),
        (["methods", "rlo"], ["method is 'rlo'", "did you mean 'rloo'", "allowed: "]),
        (["show", "nothing"], ["run is 'nothing'", "`interplay runs --runs runs` lists them"]),
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
