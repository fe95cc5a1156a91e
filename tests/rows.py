"""Rows of prompts and answers: written to a file, and read as a run reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interplay import data, tasks
from interplay.config import RunConfig
from interplay.tasks import TaskData

CHAT = tasks.find("chat")


def jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(path: str, task: tasks.Task = CHAT, heldout: int = 2, **settings: Any) -> TaskData:
    return data.load(RunConfig(data=path, heldout=heldout, **settings), task)
