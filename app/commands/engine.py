"""What only the engine knows, asked of a process that may import torch: are the methods there, which GPUs, how large is the model.

    echo '[{"method": "rloo"}]' | python -m app.commands.engine

The process that waits for hours while runs train never holds torch, nor memory of a GPU.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interplay.config import RunConfig
from interplay.errors import ConfigError, InterplayError

_PATIENCE = 600  # seconds; the bundled model may have to be unpacked


def load(module: str = "loop", work: str = "training") -> Any:
    """A module of the engine that computes with torch. Raises `ConfigError` where that is not installed; `work` says what needs it."""
    try:
        return importlib.import_module(f"interplay.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"{work} needs the engine, and {error.name} is not installed; run: pip install '.[train]' in the checkout") from error


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch sees, with its free memory in bytes."""

    name: str
    free: int


@dataclass(frozen=True)
class Answer:
    """GPUs that the runs would use (none: they compute on the CPU), and the bytes of the model's weights where they are known."""

    gpus: tuple[Gpu, ...]
    weights: int | None


def ask(configs: Sequence[RunConfig]) -> Answer:
    """Check every configuration as its run would. Raises `ConfigError` with the first refusal."""
    words = json.dumps([config.to_mapping() for config in configs])
    try:
        done = subprocess.run([sys.executable, "-m", "app.commands.engine"], input=words, capture_output=True, text=True, timeout=_PATIENCE)
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"the engine cannot be asked: {error}; try `interplay env`") from error
    except (ValueError, IndexError) as error:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"the engine cannot be asked: {said}; try `interplay env`") from error
    return read(found)


def read(found: dict[str, Any]) -> Answer:
    """What `answer` said."""
    if found["error"]:
        raise ConfigError(found["error"])
    return Answer(tuple(Gpu(**gpu) for gpu in found["gpus"]), found["weights"])


def answer(raws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The other side, in a process of its own."""
    try:
        load()
        configs = [RunConfig.from_mapping(raw) for raw in raws]
        for config in configs:
            _check(config)
        return {"error": None, "gpus": _gpus(configs[0]), "weights": _weights(configs[0])}
    except InterplayError as error:
        return {"error": str(error)}


def _check(config: RunConfig) -> None:
    from interplay import methods, tasks

    try:
        methods.resolve(config)
        tasks.find(config.task)
    except InterplayError as error:
        raise ConfigError(f"{config.method}: {error}") from error


def _gpus(config: RunConfig) -> list[dict[str, Any]]:
    import torch

    from interplay import models

    if models.pick_device(config).type != "cuda":
        return []
    return [{"name": torch.cuda.get_device_name(i), "free": torch.cuda.mem_get_info(i)[0]} for i in range(torch.cuda.device_count())]


def _weights(config: RunConfig) -> int | None:
    """Bytes of the base's weight files; None for a hub id, of which nothing is known before it is downloaded."""
    from interplay import models

    folder = Path(models.locate(config.model).folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else None


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
