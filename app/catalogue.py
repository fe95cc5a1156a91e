"""What can be trained here: methods, tasks, and whether the engine is installed. Asked without importing torch."""

from __future__ import annotations

import functools
import importlib.util
import json
import pkgutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from interplay.config import RunConfig

INSTALL = "pip install '.[train]'"
#: Known without asking; used while the engine is missing.
USUAL = (("rloo", "REINFORCE leave-one-out"), ("ppo", "proximal policy optimisation"), ("online_dpo", "online DPO"), ("dpo", "DPO"))


@dataclass(frozen=True)
class MethodChoice:
    """A method and one line on what it is."""

    name: str
    summary: str


def engine_installed() -> bool:
    """Whether the packages that train are there."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))


_WORKER = ThreadPoolExecutor(1, thread_name_prefix="catalogue")


@functools.lru_cache(maxsize=1)
def prefetch() -> Future[tuple[MethodChoice, ...]]:
    """Begin to ask, once for each server: the answer takes as long as importing torch."""
    return _WORKER.submit(_methods)


def methods() -> tuple[MethodChoice, ...]:
    """The methods that `interplay methods --json` lists, or the usual ones where it cannot be asked."""
    return prefetch().result()


def _methods() -> tuple[MethodChoice, ...]:
    asked = _ask() if engine_installed() else []
    found = [MethodChoice(str(row["name"]), str(row.get("summary", ""))) for row in asked if isinstance(row, dict) and "name" in row]
    usual = RunConfig().method
    return tuple(sorted(found, key=lambda method: method.name != usual)) or tuple(MethodChoice(*row) for row in USUAL)


def _ask() -> list[object]:
    try:
        answer = subprocess.run([sys.executable, "-m", "app.cli", "methods", "--json"], capture_output=True, text=True, timeout=120, check=True)
        rows = json.loads(answer.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else []


def tasks() -> list[str]:
    """The task files that came with the engine."""
    spec = importlib.util.find_spec("interplay.tasks")
    places = list(spec.submodule_search_locations or []) if spec else []
    names = [module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_") and module.name != "base"]
    return names or ["chat"]
