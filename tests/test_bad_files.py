"""Models and data that cannot be used: one line that names the argument, the value, what is allowed and what to do; exit code 2."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.refusing import model, refused, small, workplace
from tests.rows import jsonl

__all__ = ["model", "workplace"]  # the fixtures


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
    (lambda at: jsonl(at, [{"question": "a", "answer_a": "b", "answer_b": "c"}] * 20, "odd.jsonl"), [
        "found columns: answer_a, answer_b, question", "accepted layouts:", "rename 'question' to 'prompt'", "rename 'answer_a' to 'chosen'",
    ]),
    (lambda at: jsonl(at, GOOD[:5], "few.jsonl"), ["with 5 usable prompts, but --heldout is 4", "more data"]),
    (lambda at: jsonl(at, [{"prompt": ""}] * 20, "blank.jsonl"), ["none of its 20 rows can be used", "20 x no prompt"]),
    (lambda at: jsonl(at, [[1], [2]], "lists.jsonl"), ["line 1 holds a list", "each line must be one object"]),
    (lambda at: jsonl(at, GOOD, "rows.txt"), ["suffix .txt is unknown", "allowed: .csv, .json, .jsonl, .parquet"]),
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
