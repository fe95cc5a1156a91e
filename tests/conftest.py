"""Settings that libraries read when they are first imported, and what most files of tests need: a tiny model, prompts, a folder of runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.pages import Show
    from tests.training import Finished

os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # threads that spin for ever starve the other processes of a test
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores, so one thread each
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # tests never reach for a hub
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """A page that is opened in a test takes the name of the main module, which a process that is started later would run first."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model so small that a run of it takes a second."""
    from tests import training  # the viewer's tests run without torch

    return training.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of prompts that the tiny model's tokenizer knows."""
    from tests import training

    return training.write_prompts(tmp_path_factory.mktemp("data") / "prompts.jsonl")


@pytest.fixture(scope="session")
def finished(model: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run of the tiny model with these settings of `training.small`, made once for all files of tests, which only look at it."""
    from interplay import loop
    from tests import training

    root, made = tmp_path_factory.mktemp("finished"), dict[str, Path]()

    def run(**settings: Any) -> Path:
        config = training.small(model, prompts, root / f"run-{len(made)}", **settings)
        key = json.dumps({**config.to_mapping(), "out": None}, sort_keys=True)
        if key not in made:
            made[key] = loop.train(config)
        return made[key]

    return run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of runs that the dashboard's pages look into."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("INTERPLAY_RUNS", str(folder))
    return folder


@pytest.fixture
def show() -> Show:
    """Opens a page at a link: `show("replay", run="a")`."""
    from tests import pages  # Streamlit takes a second, and most tests do without

    return pages.open_page
