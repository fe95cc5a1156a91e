"""What the tests of exported figures share: two runs of a known commit, the command, what a zip holds, and its own script at work."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.commands import figure
from interplay.config import Parser
from tests.fabricate import Fabricated


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs, `first` and `second`."""
    root = tmp_path_factory.mktemp("export") / "runs"
    Fabricated(root / "first", layers=2, k=8, updates_each=3).whole()
    Fabricated(root / "second", layers=2, k=8, updates_each=3, seed=1).whole()
    for name in ("first", "second"):
        edit(root / name / "run.json", commit="5c9e102fddc615fb49a16803d3c25d09c141aa28")
    return root


@pytest.fixture
def shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERPLAY_RUNS", str(root))
    return root


def edit(path: Path, **what: Any) -> None:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, **what}))


def inside_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def command(*words: object) -> int:
    parser = Parser(prog="interplay figure")
    figure.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    return int(arguments.run(arguments))


def redrawn(folder: Path) -> subprocess.CompletedProcess[str]:
    """By the script in the zip, in a process that knows only where Interplay is installed."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "redraw.py"], capture_output=True, text=True, cwd=folder, env=env, timeout=120)
