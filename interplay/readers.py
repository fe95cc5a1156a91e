"""A file, a folder or a hub name -> rows (plain dictionaries) and where they came from.

Knows formats, not meanings: what a row *is* stands in `layouts.py`. Reads JSONL, JSON, CSV and
Parquet, folders of those, folders saved by `datasets`, and data sets of the hub. Never unpickles.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from interplay.errors import DataError, nearest

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")
_ACCEPTED = f"a file ({', '.join(SUFFIXES)}), a folder of such files, a folder saved by `datasets`, or a hub id"


@dataclass(frozen=True)
class Source:
    """Rows as they stand in the source, its name, and the SHA-256 of the file (several files or a hub set: of the rows)."""

    name: str
    rows: Sequence[Row]
    sha256: str


def read(name: str, split: str | None = None) -> Source:
    """All rows behind `--data NAME`. Raises `DataError`."""
    path = Path(name).expanduser()
    if path.is_dir():
        rows = _read_folder(name, path, split)
        return Source(name, rows, digest(rows))
    if path.is_file():
        if split is not None:
            raise DataError(f"--data-split is {split!r}, but --data is the single file {name!r}; leave --data-split out")
        return Source(name, read_file(path), file_digest(path))
    if _looks_like_a_path(name):
        raise DataError(f"--data is {name!r}, but there is no such file{_near(path)}; give {_ACCEPTED}")
    rows = _read_hub(name, split)
    return Source(name, rows, digest(rows))


def read_file(path: Path) -> list[Row]:
    """The rows of one file, by its suffix. Raises `DataError`."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DataError(f"--data is {str(path)!r}, a pickle file that could run code; save it as {', '.join(SUFFIXES)} and give that")
    if suffix not in _READ:
        raise DataError(f"--data is {str(path)!r}, whose suffix {suffix or '(none)'} is unknown; allowed: {', '.join(sorted(SUFFIXES))}")
    rows = _READ[suffix](path)
    if not rows:
        raise DataError(f"--data is {str(path)!r}, which holds no rows; give a file with one example in each row")
    return rows


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 over the rows, each as JSON with sorted keys."""
    total = hashlib.sha256()
    for row in rows:
        total.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
        total.update(b"\n")
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- one file ------------------------------------------------------------------------------------


def _read_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(_text(path).split("\n"), start=1):  # not splitlines: U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"--data is {str(path)!r}, whose line {number} is not JSON ({error.msg}, column {error.colno}); mend or delete that line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"--data is {str(path)!r}, whose line {number} holds a {type(row).__name__}; each line must be one object: {{...}}")
        rows.append(row)
    return rows


def _read_json(path: Path) -> list[Row]:
    text = _text(path)
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"--data is {str(path)!r}, whose line {error.lineno} is not JSON ({error.msg}); if each line is an object of its own, name the file .jsonl"
        ) from error
    if isinstance(value, dict):  # {"data": [...]}: one list under one name
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f"--data is {str(path)!r}, which is not a list of objects; write [{{...}}, {{...}}], or one object per line as .jsonl")
    return value


def _read_csv(path: Path) -> list[Row]:
    lines = _text(path).splitlines(keepends=True)
    try:
        rows = list(csv.DictReader(lines, strict=True))
    except csv.Error as error:
        raise DataError(f"--data is {str(path)!r}, which is not CSV ({error}); quote cells that hold commas or line breaks") from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise DataError(f"--data is {str(path)!r}, whose row {number} has more cells than the header; quote cells that hold commas")
    return [{key: value for key, value in row.items() if value not in (None, "")} for row in rows]


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"--data is {str(path)!r}, which is not a readable Parquet file ({str(error).splitlines()[0]}); write it again") from error
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"--data is {str(path)!r}, which is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"--data is {str(path)!r}, which cannot be read ({error.strerror}); check its permissions") from error


_READ = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}


# --- many files ----------------------------------------------------------------------------------


def _read_folder(name: str, folder: Path, split: str | None) -> list[Row]:
    if any((folder / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
        return _read_saved(name, folder, split)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith((".", "dataset_info")))
    if not files:
        inside = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise DataError(f"--data is {name!r}, a folder without {', '.join(SUFFIXES)} files (it holds {inside}); give {_ACCEPTED}")
    wanted = [p for p in files if _names_split(p.relative_to(folder), split or "train")]
    if split is not None and not wanted:
        raise DataError(f"--data-split is {split!r}, but no file of {name!r} is named so; files: {', '.join(p.name for p in files[:6])}")
    return [row for path in wanted or files for row in read_file(path)]


def _names_split(path: Path, split: str) -> bool:
    """`train-00000-of-00002.parquet` and `train/0.jsonl` belong to the split `train`."""
    return any(part == split or part.startswith((f"{split}-", f"{split}.", f"{split}_")) for part in path.parts)


def _read_saved(name: str, folder: Path, split: str | None) -> list[Row]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"--data is {name!r}, which `datasets` cannot load ({_first_line(error)}); save it again with save_to_disk") from error
    return _rows_of(saved, name, split)


def _read_hub(name: str, split: str | None) -> list[Row]:
    import datasets

    config, _, part = (split or "train").rpartition("/")
    try:
        with _no_vain_retries():
            loaded = datasets.load_dataset(name, config or None, split=part)
    except Exception as error:  # the hub's client raises a dozen kinds; all mean the same to a person
        raise DataError(
            f"--data is {name!r}, which is no file here and could not be had from the hub ({type(error).__name__}: {_first_line(error)}); "
            f"check name, network and --data-split ({part!r}), or give {_ACCEPTED}"
        ) from error
    return _rows_of(loaded, name, None)


@contextmanager
def _no_vain_retries() -> Iterator[None]:
    """Without a way to the hub, use its cache and fail at once: the client would try again for half a minute."""
    from huggingface_hub import constants

    kept = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = kept or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = kept


def _reachable(address: str) -> bool:
    """Does the host answer? Behind a proxy only the client can tell, so the answer is yes."""
    url = urlsplit(address)
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _rows_of(data: Any, name: str, split: str | None) -> list[Row]:
    """Rows of a `datasets.Dataset`, or of one split of a `DatasetDict`."""
    if isinstance(data, dict):
        wanted = split or ("train" if "train" in data else next(iter(data)))
        if wanted not in data:
            raise DataError(f"--data-split is {wanted!r}, but {name!r} has the splits {', '.join(sorted(data))}{nearest(wanted, data)}")
        data = data[wanted]
    rows: list[Row] = data.to_list()
    if not rows:
        raise DataError(f"--data is {name!r}, which holds no rows; give a data set with one example in each row")
    return rows


def _looks_like_a_path(name: str) -> bool:
    """A hub id is `name` or `owner/name`; anything with a known suffix, a root or more slashes is a path."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name or Path(name).suffix.lower() in (*SUFFIXES, *_PICKLES)


def _near(path: Path) -> str:
    return nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else f" (nor the folder {str(path.parent)!r})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
