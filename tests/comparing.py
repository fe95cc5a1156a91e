"""Comparisons that nobody trained, for the tests of the command and of the Compare page: plans, fabricated rows, and an engine that answers at once."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.commands import engine as real
from app.commands.engine import Answer
from app.compare import planning
from app.reading.catalogue import MethodChoice
from interplay import compare
from interplay.compare import Plan, Row
from interplay.config import RunConfig
from tests.fabricate import HOSTILE, Fabricated

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

    from tests.pages import Show

SHIPPED = Path(__file__).parents[1] / "data" / "recordings"
METHODS = tuple(MethodChoice(name, "") for name in ("rloo", "dpo", "extrapolate", "mezo", "ppo", "zopro"))


# --- plans and rows --------------------------------------------------------------------------------


def made(out: Path, methods: tuple[str, ...] = ("rloo", "dpo"), seeds: tuple[int, ...] = (0, 1), **more: Any) -> Plan:
    shared = more.pop("shared", RunConfig())
    return compare.plan(shared, methods, seeds, out, **more)


def seal(run: Path, iteration: int = 1) -> None:
    folder = run / "checkpoints" / f"iteration-{iteration}"
    folder.mkdir(parents=True)
    (folder / "COMPLETE").write_text("{}")


class Scored(Fabricated):
    """A run with what a comparison reads: held-out completions, passes and memory."""

    shift = 0.0
    pace = 1.0  # of all changes; below zero it loses, and comes nearer to the reference

    def heldout(self, iteration: int) -> None:
        super().heldout(iteration)
        count = 6
        gain = self.pace * iteration * (0.3 + self.shift) + 0.05 * self.random.standard_normal(count)
        rows: dict[str, Any] = {name: [value] * count for name, value in self._place("policy", iteration).items()}
        rows |= {"split": ["heldout"] * count, "prompt_id": [f"h{i}" for i in range(count)], "prompt": ["Hello?"] * count, "completion": [HOSTILE] * count}
        rows |= {"tokens": [9] * count, "finished": [True] * count, "reward": [None] * count, "kl": [0.2 * self.pace * iteration] * count}
        proxy = [i / 10 + gain[i] if not self.bad_numbers else float("nan") for i in range(count)]
        self.store.append("completions", rows | {"gold": [0.1 * i + gain[i] / 3 for i in range(count)], "proxy": proxy})

    def _train(self, role: str) -> dict[str, float | None]:
        return super()._train(role) | ({"forwards": 2.0 * self.update[role], "peak_memory": 2.0**31} if role == "policy" else {})


def fabricated(row: Row, **more: Any) -> Scored:
    run = Scored(row.folder, layers=1, k=8, seed=row.seed, method=row.method, updates_each=2, value=False, **more)
    run.shift = 1.0 if row.method == "rloo" else 0.0
    return run


def planned(out: Path, methods: tuple[str, ...] = ("rloo", "dpo"), seeds: tuple[int, ...] = (0, 1)) -> Plan:
    plan = made(out, methods, seeds, shared=RunConfig(updates=2, sketch=8))
    compare.settle(plan)
    return plan


def whole(out: Path, **more: Any) -> Plan:
    """A finished comparison."""
    plan = planned(out, **more)
    for row in plan.rows:
        fabricated(row).whole(1)
    return plan


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No restart of the command, and the engine answers in this process: importing torch again takes seconds."""
    monkeypatch.setenv("INTERPLAY_NO_REEXEC", "1")
    monkeypatch.setattr(real, "ask", lambda configs: real.read(json.loads(json.dumps(real.answer([config.to_mapping() for config in configs])))))


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture
def root(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root.parent)
    return root


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[list[RunConfig]]:
    """Answers at once, for a machine without GPU; what it was asked."""
    asked: list[list[RunConfig]] = []

    def ask(configs: list[RunConfig]) -> Answer:
        asked.append(configs)
        return Answer((), None)

    monkeypatch.setattr("app.commands.engine.ask", ask)
    monkeypatch.setattr("app.reading.catalogue.methods", lambda: METHODS)
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: True)
    planning._ANSWERS.clear()
    return asked


@pytest.fixture
def show(show: Show, engine: list[Any]) -> Show:
    return partial(show, "compare")


def texts(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.warning, app.info, app.error, app.markdown) for element in kind)


def tables(app: AppTest) -> dict[str, Any]:
    """The page's tables by their first column."""
    return {table.value.columns[0]: table.value for table in app.dataframe}


def button(app: AppTest, label: str) -> Any:
    return next((one for one in app.button if one.label == label), None)
