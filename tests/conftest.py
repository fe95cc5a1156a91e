"""Settings that libraries read when they are first imported, and what most files of tests need: a tiny model, prompts, a folder of runs."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # threads that spin for ever starve the other processes of a test
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # tests never reach for a hub
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model so small that a run of it takes a second."""
    from tests import training  # the viewer's tests run without torch

    return training.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of prompts that the tiny model's tokenizer knows."""
    from tests import training

    return training.write_prompts(tmp_path_factory.mktemp("data") / "prompts.jsonl")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of runs that the dashboard's pages look into."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("INTERPLAY_RUNS", str(folder))
    return folder
