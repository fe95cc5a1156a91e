"""Every format that a file of data may have gives the same rows, and every way it can be wrong is one line."""

from __future__ import annotations

import csv
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interplay import readers
from interplay.errors import DataError
from tests.rows import jsonl, load

# --- formats --------------------------------------------------------------------------------------

ROWS = [{"prompt": f'P {i}, "quoted"', "chosen": "a\nb", "rejected": "c"} for i in range(12)]


def write_json(path: Path) -> Path:
    path.write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8")
    return path


def write_csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_parquet(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def write_folder(path: Path) -> Path:
    path.mkdir()
    write_parquet(path / "train-00000-of-00001.parquet")
    jsonl(path, [{"prompt": "of the test split", "chosen": "a", "rejected": "c"}], "test.jsonl")
    return path


def write_saved(path: Path) -> Path:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(path))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("rows.json", write_json), ("rows.csv", write_csv), ("rows.parquet", write_parquet), ("folder", write_folder), ("saved", write_saved)],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    found, same = load(str(write(tmp_path / name))), load(jsonl(tmp_path, ROWS, "same.jsonl"))
    assert found.prompts == same.prompts
    assert found.pairs == same.pairs
    assert found.heldout == same.heldout
    assert len(found.report["sha256"]) == 64


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    with pytest.raises(DataError, match=r"with 1 usable prompts"):
        load(str(folder), data_split="test")
    with pytest.raises(DataError, match=r"--data-split is 'dev', but no file of .* is named so; files: test.jsonl, train-00000"):
        load(str(folder), data_split="dev")
    with pytest.raises(DataError, match=r"--data-split is 'tran', but .* has the splits train; did you mean 'train'\?"):
        load(str(write_saved(tmp_path / "saved")), data_split="tran")
    with pytest.raises(DataError, match=r"--data-split is 'test', but --data is the single file"):
        load(jsonl(tmp_path, ROWS), data_split="test")


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"holds no rows"),
        ("a.json", b"", r"holds no rows"),
        ("a.csv", b"prompt,chosen\n", r"holds no rows"),
        ("a.jsonl", b'{"prompt": "a"}\n\n{"prompt": \n', r"whose line 3 is not JSON \(.*, column \d+\); mend or delete that line"),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', r"whose line 2 holds a list; each line must be one object"),
        ("a.json", b'{"prompt": "a"}\n{"prompt": "b"}\n', r"whose line 2 is not JSON .* name the file .jsonl"),
        ("a.json", b'"text"', r"which is not a list of objects"),
        ("a.jsonl", b"\xff\xfe", r"which is not UTF-8 text \(byte 0\); save it as UTF-8"),
        ("a.csv", b"prompt,chosen,rejected\na,b,c,d\n", r"whose row 1 has more cells than the header"),
        ("a.parquet", b"no", r"which is not a readable Parquet file"),
        ("a.txt", b"x", r"whose suffix \.txt is unknown; allowed: \.csv, \.json, \.jsonl, \.parquet"),
        ("a.pkl", pickle.dumps([]), r"a pickle file that could run code; save it as"),
        ("a.pt", b"", r"a pickle file that could run code"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(str(tmp_path / name))
    assert str(caught.value).startswith("--data is ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS, "preferences.jsonl")
    with pytest.raises(DataError, match=r"there is no such file; did you mean 'preferences.jsonl'\?; give a file"):
        load(str(tmp_path / "preference.jsonl"))
    with pytest.raises(DataError, match=r"there is no such file \(nor the folder '.*nowhere'\)"):
        load(str(tmp_path / "nowhere" / "rows.jsonl"))


def test_an_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"a folder without \.jsonl, \.json, \.csv, \.parquet files \(it holds notes.txt\)"):
        load(str(tmp_path))


def test_the_hub_is_asked_for_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, split: str) -> Any:
        asked.append((name, config, split))
        return SimpleNamespace(to_list=lambda: ROWS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(readers, "_reachable", lambda address: True)
    assert len(load("owner/name").pairs) == 10
    assert len(load("owner/name", data_split="english/validation").pairs) == 10
    assert asked == [("owner/name", None, "train"), ("owner/name", "english", "validation")]


def test_no_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nTraceback follows")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(readers, "_reachable", lambda address: False)
    with pytest.raises(
        DataError, match=r"--data is 'owner/name', which is no file here and could not be had from the hub \(ConnectionError: Couldn't"
    ) as caught:
        load("owner/name")
    assert "\n" not in str(caught.value)
