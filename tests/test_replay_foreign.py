"""Replay of runs that `interplay train` did not make: what is not known is left out, and what their trainers logged is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricate import Fabricated

from analysis import paper, recipes, screen
from app.reading.recorded import Recorded
from interplay.config import RunConfig
from interplay.records import RunInfo
from tests.interplay_page import numbers_in
from tests.pages import charts, open_page


class Foreign(Fabricated):
    """What `RecorderCallback` leaves of a GRPO trainer: its own names of numbers, no task, no seed, no held-out prompt."""

    def _info(self, config: RunConfig) -> RunInfo:
        return replace(super()._info(config), config={"method": "GRPO", "role": "policy", "arguments": {}})

    def _train(self, role: str) -> dict[str, float | None]:
        return {"loss": 1 / (1 + self.update[role]), "grad_norm": 2.0}


class Rewarded(Foreign):
    def _train(self, role: str) -> dict[str, float | None]:
        return {**super()._train(role), "reward": 0.5}


def recorded(kind: type[Foreign], root: Path, updates: int = 3, *, ended: bool = True) -> Fabricated:
    run = kind(root / "grpo", layers=2, k=16, value=False)
    run.step("policy", 1, updates)
    run.store.close("finished") if ended else run.store.flush()
    return run


def texts(app: Any) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.markdown) for element in kind).replace("\\", "")


def test_what_is_not_known_is_left_out_and_what_is_missing_is_missing_for_good(root: Path) -> None:
    recorded(Foreign, root)
    told = texts(open_page("replay", run="grpo"))
    assert "None" not in told
    assert "GRPO" in told.splitlines()
    assert "yet" not in told
    for word in ("reward", "gold score", "KL", "held-out score"):
        assert f"No {word} was recorded." in told
    assert "reward model 0" not in told


def test_a_live_run_may_still_record_it(root: Path) -> None:
    run = recorded(Foreign, root, ended=False)
    assert "No held-out score yet" in texts(open_page("replay", run="grpo"))
    run.store.close("finished")


def test_its_loss_is_drawn_at_once_and_other_metrics_when_they_are_asked_for(root: Path) -> None:
    recorded(Foreign, root)
    app = open_page("replay", run="grpo")
    assert app.selectbox(key="metric").options == ["grad_norm", "loss"]
    assert metric(app) == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert metric(open_page("replay", run="grpo", metric="grad_norm")) == [2, 2, 2]


def test_a_run_with_scores_shows_other_metrics_only_when_they_are_asked_for(root: Path) -> None:
    recorded(Rewarded, root)
    app = open_page("replay", run="grpo")
    assert app.selectbox(key="metric").value is None
    assert "chart-metric" not in {one["name"] for one in charts(app)}
    assert "no held-out prompt was scored" in texts(app)
    assert "frozen reward model 0" not in texts(app), "it has none"


def metric(app: Any) -> list[float]:
    """The numbers of the chart below the scores."""
    sent = next(one for one in charts(app) if one["name"] == "chart-metric")
    return [float(value) for value in numbers_in(json.loads(sent["figure"])["data"][0]["y"])]


def test_nothing_is_offered_to_go_on_from_it(root: Path) -> None:
    recorded(Foreign, root)
    Fabricated(root / "own", layers=2, k=16, value=False, updates_each=2).whole(1)
    offered = [[one.label for one in open_page("replay", run=name).expander] for name in ("own", "grpo")]
    assert any("Go on from here" in label for label in offered[0])
    assert not any("Go on from here" in label for label in offered[1])


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_few_updates_have_whole_ticks(root: Path, updates: int) -> None:
    recorded(Rewarded, root, updates)
    spec = recipes.make("reward_curve", [Recorded(root / "grpo")])
    assert screen.draw(spec).layout.xaxis.dtick == 1
    axes = paper.draw(spec).axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert screen.draw(spec).layout.yaxis.dtick is None
