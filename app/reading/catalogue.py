"""What can be trained here: methods with their settings, tasks, and whether the engine is installed. Asked without importing torch."""

from __future__ import annotations

import functools
import importlib.util
import json
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from interplay.config import RunConfig

INSTALL = "pip install '.[train]'"
#: Known without asking; used while the engine is missing.
USUAL = (("rloo", "REINFORCE leave-one-out"), ("ppo", "proximal policy optimisation"), ("online_dpo", "online DPO"), ("dpo", "DPO"))


@dataclass(frozen=True)
class OwnSetting:
    """A setting of an objective or update rule, typed as `--set NAME=VALUE`. `of` names the family that shares it, `part` the half of the method."""

    name: str
    of: str
    default: Any
    type: str
    part: str = "objective"
    help: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> OwnSetting:
        """What `interplay methods --json` says; what it may say one day beside that is left out."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**{**known, "choices": tuple(known.get("choices", ()))})


@dataclass(frozen=True)
class MethodChoice:
    """A method, one line on what it is, and what it is made of as far as the engine was asked."""

    name: str
    summary: str
    objective: str = ""
    update_rule: str = ""
    reads: str = ""
    learning_rate: float | None = None
    papers: tuple[str, ...] = ()
    settings: tuple[OwnSetting, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> MethodChoice:
        words = {name: str(raw.get(name) or "") for name in ("name", "summary", "objective", "update_rule", "reads")}
        own = tuple(OwnSetting.read(item) for item in raw.get("settings") or ())
        return cls(**words, learning_rate=raw.get("learning_rate"), papers=tuple(dict.fromkeys(raw.get("papers") or ())), settings=own)


def engine_installed() -> bool:
    """Whether the packages that train are there."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))


#: Seconds after which the engine is asked although nobody wants the answer yet: importing torch would slow down the first page that a visitor waits for.
SECONDS_BEFORE = 8.0
_WANTED = threading.Event()


@functools.lru_cache(maxsize=1)
def prefetch() -> Future[tuple[MethodChoice, ...]]:
    """Ask soon, once for each server: the answer takes as long as importing torch."""
    answer: Future[tuple[MethodChoice, ...]] = Future()
    threading.Thread(target=_answer, args=(answer,), name="catalogue", daemon=True).start()  # a server that ends does not wait for it
    return answer


def methods() -> tuple[MethodChoice, ...]:
    """The methods that `interplay methods --json` lists, or the usual ones where it cannot be asked."""
    _WANTED.set()
    return prefetch().result()


def _answer(answer: Future[tuple[MethodChoice, ...]]) -> None:
    _WANTED.wait(SECONDS_BEFORE)
    try:
        answer.set_result(_methods())
    except Exception as error:  # told to whoever asks
        answer.set_exception(error)


def _methods() -> tuple[MethodChoice, ...]:
    asked = _ask() if engine_installed() else []
    found = [MethodChoice.read(row) for row in asked if isinstance(row, dict) and "name" in row]
    usual = RunConfig().method
    return tuple(sorted(found, key=lambda method: method.name != usual)) or tuple(MethodChoice(*row) for row in USUAL)


def _ask() -> list[object]:
    try:
        answer = subprocess.run([sys.executable, "-m", "app.cli", "methods", "--json"], capture_output=True, text=True, timeout=120, check=True)
        rows = json.loads(answer.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return []
    return rows if isinstance(rows, list) else []


def pairs(named: Sequence[MethodChoice]) -> tuple[MethodChoice, ...]:
    """Every objective under every update rule that has no name of its own, as `OBJECTIVE+UPDATE_RULE`."""
    taken = {(method.objective, method.update_rule) for method in named}
    objectives = {method.objective: method for method in reversed(named) if method.objective}
    rules = {method.update_rule: method for method in reversed(named) if method.update_rule}
    return tuple(_pair(objectives[one], rules[two]) for one in sorted(objectives) for two in sorted(rules) if (one, two) not in taken)


def _pair(objective: MethodChoice, rule: MethodChoice) -> MethodChoice:
    """The objective of one method under the update rule of another."""
    halves = (objective.summary.partition("; ")[0], rule.summary.partition("; ")[2])
    return MethodChoice(
        name=f"{objective.objective}+{rule.update_rule}",
        summary="; ".join(half for half in halves if half),
        objective=objective.objective,
        update_rule=rule.update_rule,
        reads=objective.reads,
        learning_rate=rule.learning_rate,
        papers=tuple(dict.fromkeys((*objective.papers[:1], *rule.papers[-1:]))),
        settings=tuple(own for method, part in ((objective, "objective"), (rule, "update_rule")) for own in method.settings if own.part == part),
    )


def tasks() -> list[str]:
    """The task files that came with the engine."""
    spec = importlib.util.find_spec("interplay.tasks")
    places = list(spec.submodule_search_locations or []) if spec else []
    names = [module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_") and module.name != "base"]
    return names or ["chat"]
