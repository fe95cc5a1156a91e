"""What a run would read: the detected layout, how much of it there is, and the first rows; and files that a browser brings.

    echo '{"data": "prompts.jsonl"}' | python -m app.train.preview

Small files are read here. Large ones, folders and data sets of the hub are read by a process of its own,
which gives its memory back and may import what the viewer does not have. Nothing is downloaded unasked.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interplay import data, tasks
from interplay.config import RunConfig
from interplay.errors import DataError, InterplayError, allowed
from interplay.readers import SUFFIXES
from interplay.tasks import Prompt, TaskData

ROWS = 3
UPLOADS = ".uploads"
MOST_UPLOADED = 20 * 2**20  # bytes; the server takes no more either
_IN_PROCESS = 8 * 2**20
_LONGEST = 2_000  # letters of a cell
_PATIENCE = 120  # seconds
_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class Preview:
    """What was found, or why nothing was: `told` and `error` are one line each, `rows` are prompt, answers and reference as text."""

    told: str = ""
    rows: tuple[Mapping[str, str], ...] = ()
    error: str = ""


def on_hub(name: str | None) -> bool:
    """Whether this means a data set of the hub: no file here, and nothing that looks like one."""
    return bool(name) and not Path(str(name)).expanduser().exists() and _HUB.fullmatch(str(name)) is not None and Path(str(name)).suffix.lower() not in SUFFIXES


def version(config: RunConfig) -> tuple[Any, ...]:
    """Another value when there may be something else to see."""
    asked = (config.task, config.data, config.data_split, config.data_rows, config.heldout)
    try:
        found = Path(config.data or "").expanduser().stat()
    except (OSError, ValueError):
        return asked
    return (*asked, found.st_size, found.st_mtime_ns)


def make(config: RunConfig) -> Preview:
    """The preview, by this process or by another."""
    path = Path(config.data or "").expanduser()
    small = config.data is None or (not on_hub(config.data) and not path.is_dir() and (not path.is_file() or path.stat().st_size <= _IN_PROCESS))
    return look(config) if small else _ask(config)


def look(config: RunConfig) -> Preview:
    """Read the data as the run would."""
    try:
        found = data.load(config, tasks.find(config.task))
    except InterplayError as error:
        return Preview(error=str(error))
    answers = {pair.prompt.id: pair for pair in reversed(found.pairs)}
    return Preview(_told(found), tuple(_row(prompt, answers.get(prompt.id)) for prompt in found.prompts[:ROWS]))


def _told(found: TaskData) -> str:
    """`layout preference: 240 prompts, 64 of them held out; 120 judged pairs; left out: 3 x no rejected`."""
    report = found.report
    pairs = f"; {report['pairs']} judged pairs" if report["pairs"] else ""
    lost = "".join(f"; left out: {count} x {reason}" for reason, count in report["left_out"].items())
    ignored = f"; not used: {', '.join(report['ignored_columns'])}" if report["ignored_columns"] else ""
    return f"Layout {report['layout']}: {report['prompts']} prompts, {len(found.heldout)} of them held out{pairs}{lost}{ignored}"


def _row(prompt: Prompt, pair: Any) -> dict[str, str]:
    cells = {"prompt": prompt.text, "chosen": pair and pair.chosen, "rejected": pair and pair.rejected, "reference": prompt.reference}
    return {name: str(text)[:_LONGEST] for name, text in cells.items() if text}


# --- the other process -----------------------------------------------------------------------------


def _ask(config: RunConfig) -> Preview:
    words = json.dumps(config.to_mapping())
    try:
        done = subprocess.run([sys.executable, "-m", "app.train.preview"], input=words, capture_output=True, text=True, timeout=_PATIENCE)
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Preview(error=f"--data is {config.data!r}, which could not be read within {_PATIENCE} s; look at a part of it with --data-rows, or just start")
    except (OSError, ValueError, IndexError):
        return Preview(error=f"--data is {config.data!r}, which could not be read for a preview; `interplay train` will say why")
    return Preview(found["told"], tuple(found["rows"]), found["error"])


def _answer(raw: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return asdict(look(RunConfig.from_mapping(raw)))
    except ModuleNotFoundError as error:
        return asdict(Preview(error=f"reading this needs the package {error.name}, which is not installed; run: pip install '.[train]' in the checkout"))
    except InterplayError as error:
        return asdict(Preview(error=str(error)))


# --- files that a browser brings -------------------------------------------------------------------


def save(root: Path, name: str, content: bytes) -> Path:
    """Keep an uploaded file below the folder of runs, under a name of our own making. Raises `DataError`."""
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"the file is {name[:80]!r}; allowed: {allowed(SUFFIXES)}")
    if len(content) > MOST_UPLOADED:
        raise DataError(
            f"the file has {len(content) / 2**20:.0f} MiB; at most {MOST_UPLOADED / 2**20:.0f} can be uploaded: save it on this machine and give its path"
        )
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name.replace("\\", "/")).stem).strip("-")[:40] or "data"
    folder = (root / UPLOADS).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise DataError(f"{root / UPLOADS} leads out of the folder of runs; remove that link")
    target = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:10]}{suffix}"
    aside = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(target)
    except OSError as error:
        raise DataError(f"the file cannot be kept in {folder} ({error.strerror}); check the folder, or give the path of a file on this machine") from error
    return target


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
