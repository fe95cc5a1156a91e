"""Training on published preference data: chat, summarisation and translation, one layout each.

The files lie beside the checkout where this project is developed and are no part of it; without them
these tests are skipped. The tiny model reads bytes, so only rows with short prompts fit it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interplay import loop
from interplay.store import RunStore
from tests import training
from tests.training import frame

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT.parent / "shared" / "data"
FILES = {"chat": "preference", "summarisation": "preference", "translation": "scored"}
ROWS = {"chat": "40", "summarisation": "240", "translation": "40"}  # four rows share a post to summarise

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real data are not here ({FOLDER}); they are no part of this project")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.save_model(tmp_path_factory.mktemp("model"), max_position_embeddings=2048)


def strings(value: Any) -> Iterator[str]:
    """All texts in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def spaced(text: str) -> str:
    return " ".join(text.split())


def source_text(task: str) -> str:
    lines = (FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return "\n".join(spaced(text) for line in lines for text in strings(json.loads(line)))


@pytest.mark.parametrize("method", ["rloo", "dpo"])
@pytest.mark.parametrize("task", FILES)
def test_the_tiny_model_trains(model: Path, tmp_path: Path, task: str, method: str) -> None:
    file = FOLDER / f"{task}.jsonl"
    settings: dict[str, Any] = {"task": task, "method": method, "data_rows": 60, "iterations": 1, "pairs": 12, "reward_updates": 1}
    config = training.small(model, file, tmp_path / "run", **settings, max_prompt_tokens=1300, max_pair_tokens=40, heldout_pairs=2, judge="gold")
    run = loop.train(config)
    store = RunStore.open(run)
    assert store.status().state == "finished"
    report = store.info.data
    assert report["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (report["layout"], report["rows_read"]) == (FILES[task], 60)
    assert report["rows"] == len(file.read_text(encoding="utf-8").splitlines())
    counts = frame(run, "updates")[["clock", "role"]].drop_duplicates().groupby("role").size().to_dict()
    assert counts == {"policy": 2, "reward": 2}
    texts = frame(run, "completions")
    whole = source_text(task)
    for text in texts["prompt"].unique():
        words = text.split()  # of one turn, or of two that are joined
        assert any(" ".join(words[:cut]) in whole and " ".join(words[cut:]) in whole for cut in range(len(words))), "prompts are the file's own"
    held = set(texts[texts["split"] == "heldout"]["prompt_id"])
    assert len(held) == report["heldout_prompts"]
    assert not held & set(texts[texts["split"] == "train"]["prompt_id"])
    first = [json.loads(line) for line in (run / "checkpoints" / "iteration-0" / "pairs.jsonl").read_text().splitlines()]
    assert len(first) > 10, "iteration 0 learns from the file's judged pairs"
    assert not held & {pair["prompt_id"] for pair in first}
    for pair in first:
        for side in ("chosen", "rejected"):
            assert spaced(pair[side]) in whole


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("task", FILES)
def test_the_bundled_model_trains(tmp_path: Path, task: str) -> None:
    run = tmp_path / "run"
    words = ["--task", task, "--data", str(FOLDER / f"{task}.jsonl"), "--out", str(run), "--data-rows", ROWS[task], "--heldout", "4", "--heldout-pairs", "2"]
    words += ["--pairs", "4", "--updates", "1", "--iterations", "1", "--reward-updates", "1", "--completions", "2", "--prompts", "1"]
    words += ["--max-prompt-tokens", "400"] if task == "summarisation" else []
    command = [sys.executable, "-m", "app.cli", "train", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=dict(os.environ), timeout=1800)
    assert done.returncode == 0, done.stderr
    assert str(run) in done.stdout
    assert RunStore.open(run).status().state == "finished"
    counts = frame(run, "updates")[["clock", "role"]].drop_duplicates().groupby("role").size().to_dict()
    assert counts == {"policy": 1, "reward": 2}
    texts = frame(run, "completions")
    held = RunStore.open(run).info.data["heldout_prompts"]
    assert 2 <= held <= 4, "one or two may be too long"
    assert len(texts) == 2 * held + 2
    assert texts["completion"].str.strip().str.len().gt(0).any()
