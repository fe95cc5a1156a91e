"""What the tests of wrong input share: a small model, a place to work in, a run that takes a second, and the one line of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from tests import tiny


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
