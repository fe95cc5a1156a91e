"""One file = one task; `find` discovers them, so adding a task touches nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from interplay.errors import ConfigError, allowed, nearest
from interplay.tasks.base import Candidate, Pair, Prompt, Task, TaskData

__all__ = ["Candidate", "Pair", "Prompt", "Task", "TaskData", "find", "names"]


def names() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def find(name: str) -> Task:
    """The task of that name. Raises `ConfigError` with the nearest name."""
    if name not in names():
        raise ConfigError(f"--task is {name!r}; allowed: {allowed(names())}{nearest(name, names())}")
    task: Task = importlib.import_module(f"interplay.tasks.{name}").TASK
    return task
