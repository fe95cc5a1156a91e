"""What `runs`, `show`, `methods` and `env` print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.reading import recorded
from interplay import __version__, labels
from interplay.config import RunConfig
from interplay.errors import ConfigError
from interplay.store import Runs, RunStore

#: What `runs --json` tells of each run, beside its path.
_ROW = ("run", "state", "method", "task", "seed", "created", "progress", "problems", "tags", "note")
_HELDOUT = ("gold", "gold_se", "proxy", "proxy_se", "kl", "entropy", "length", "distinct_words", "pair_margin", "alarm")
_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "streamlit",
    "plotly",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "umap-learn",
    "numpy",
)


def _console() -> Console:
    """As wide as the terminal; in a pipe or a file as wide as the table needs."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 240)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def runs(root: Path, *, as_json: bool) -> int:
    """All runs below `root`, newest first."""
    found = sorted(Runs(root).list(), key=lambda row: row.created or "", reverse=True)
    if as_json:
        rows = [{**{name: getattr(row, name) for name in _ROW}, "path": str(row.path)} for row in found]
        print(json.dumps(rows, indent=1, default=list))
        return 0
    if not found:
        print(f"no runs in {root}; start one with: interplay train --out {root}/first")
        return 0
    tagged = any(row.tags for row in found)
    table = _table("run", "state", "method", "task", "seed", "progress")
    table.add_column("created (UTC)", no_wrap=not tagged)  # in two lines where tags need the room
    if tagged:
        table.add_column("tags", overflow="fold")
    for row in found:
        share = (row.progress or {}).get("share")
        table.add_row(
            row.run,
            row.state,
            row.method or "",
            row.task or "",
            str(row.seed if row.seed is not None else ""),
            f"{share:.0%}" if share is not None else "",
            (row.created or "")[:16].replace("T", " "),
            *([Text(", ".join(row.tags))] if tagged else []),
        )
    _console().print(table)
    return 0


def _open(name: str, root: Path) -> RunStore:
    path = Path(name)
    if (path / "run.json").is_file():
        return RunStore.open(path)
    if name not in [row.run for row in Runs(root).list()]:
        raise recorded.unknown(name, root)
    return Runs(root).open(name)


def heldout(store: RunStore) -> dict[int, dict[str, float | None]]:
    """iteration -> held-out metrics."""
    frame = store.read("metrics", columns=["iteration", "split", "name", "value"]).to_pandas()
    frame = frame[frame["split"] == "heldout"]
    return {int(number): dict(zip(part["name"], part["value"], strict=True)) for number, part in frame.groupby("iteration")}


def show(name: str, root: Path, *, as_json: bool) -> int:
    """One run: settings that differ from the defaults, held-out scores, where its files are."""
    store = _open(name, root)
    info, status, scores = store.info, store.status(), heldout(store)
    labelled = labels.read(store.path)
    if as_json:
        own = {"tags": labelled.tags, "note": labelled.note}
        print(json.dumps({"info": info.to_json(), "status": {"state": status.state, "progress": status.progress}, **own, "heldout": scores}, indent=1))
        return 0
    console = _console()
    console.print(f"{info.run}: {status.state}", markup=False)
    if status.error:
        console.print(f"error: {status.error}", markup=False)
    if labelled.tags:
        console.print(f"tags: {', '.join(labelled.tags)}", markup=False)
    for line in (*labelled.note.splitlines(), *info.notes, *store.problems(), *labelled.problems):
        console.print(f"note: {line}", markup=False)
    console.print("settings: " + (", ".join(f"{k}={v}" for k, v in _changed(info.config).items()) or "all defaults"), markup=False)
    console.print("command: " + " ".join(info.command), markup=False)
    names = [n for n in _HELDOUT if any(n in row for row in scores.values())]
    table = _table("held-out, after iteration", *names)
    for number, row in sorted(scores.items()):
        table.add_row(str(number), *(_number(row.get(n)) for n in names))
    console.print(table)
    console.print(f"files: {store.path}", markup=False)
    return 0


def _changed(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that differ from the defaults; all of them for a run of somebody else's trainer."""
    try:
        return RunConfig.from_mapping(config).changed()
    except ConfigError:
        return config


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"


def methods(found: list[dict[str, Any]], *, settings: bool) -> int:
    """Every method, or one with its settings."""
    table = _table("method", "objective", "update rule", "learns from", "what it is")
    for row in found:
        table.add_row(row["name"], row["objective"], row["update_rule"], row["reads"], row["summary"])
    _console().print(table)
    if settings:
        inner = _table("--set", "default", "meaning")
        for item in found[0]["settings"]:
            inner.add_row(item["name"], str(item["default"]), item["help"])
        _console().print(inner)
    return 0


def environment(*, as_json: bool) -> int:
    """Versions and machine; no name of the machine or its user."""
    versions = {name: _version(name) for name in _PACKAGES}
    found = {
        "interplay": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cuda": _cuda(),
        **versions,
    }
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    table = _table("name", "value")
    for key, value in found.items():
        table.add_row(key, str(value))
    _console().print(table)
    return 0


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    if "torch" not in sys.modules and _version("torch") == "not installed":
        return "no engine"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
