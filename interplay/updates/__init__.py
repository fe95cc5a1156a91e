"""One file = one way to move weights; `find` discovers them."""

from __future__ import annotations

import importlib
import pkgutil

from interplay.updates.base import Plan, Stepper, UpdateRule

__all__ = ["Plan", "Stepper", "UpdateRule", "find", "names"]


def names() -> list[str]:
    """Names of all update rules, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def find(name: str) -> UpdateRule:
    """The update rule of that name; `KeyError` where there is none (`methods.resolve` explains)."""
    if name not in names():
        raise KeyError(name)
    rule: UpdateRule = importlib.import_module(f"interplay.updates.{name}").RULE
    return rule
