"""One file = one loss; `find` discovers them, so adding an objective touches nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from interplay.objectives.base import Batch, Objective, Outputs

__all__ = ["Batch", "Objective", "Outputs", "find", "names"]


def names() -> list[str]:
    """Names of all objectives, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def find(name: str) -> Objective:
    """The objective of that name; `KeyError` where there is none (`methods.resolve` explains)."""
    if name not in names():
        raise KeyError(name)
    objective: Objective = importlib.import_module(f"interplay.objectives.{name}").OBJECTIVE
    return objective
