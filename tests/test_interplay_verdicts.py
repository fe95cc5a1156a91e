"""Verdicts of the Interplay page: what the command says, drawn beside chance, with cautions, made once and when they are wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import Fabricated

from analysis import recipes, verdicts
from app.commands import reporting
from app.interplay import explorer
from app.reading import recordings, reported
from app.reading.loading import RECORDINGS
from app.reading.recorded import Recorded
from tests.interplay_page import figure_on, figures_on, numbers_in, show, words_on
from tests.pages import Show, ran

__all__ = ["show"]  # the fixture


def test_cards_say_what_the_command_says(root: Path, show: Show) -> None:
    path = Fabricated(root / "a", layers=2, k=16, updates_each=6).whole()
    told = reporting.to_json([recordings.load(path)])["verdicts"]
    texts = words_on(show())
    for row in told[:3]:
        assert row["question"] in texts
        assert row["sentence"] in texts
        assert f"{row['answer']}]" in texts  # a badge: colour and icon stand in front
    assert "need a comparison. No run of zopro is among these." in texts


def test_a_strip_draws_the_number_the_interval_and_chance(root: Path, show: Show) -> None:
    path = Fabricated(root / "a", layers=2, k=16, updates_each=6).whole()
    row = reporting.to_json([recordings.load(path)])["verdicts"][0]
    traces = {trace["name"]: trace for trace in figure_on(show(), "Are updates of policy and reward model orthogonal")["data"]}
    drawn = {name: (_first(trace["x"]), _first(trace["error_x"]["arrayminus"]), _first(trace["error_x"]["array"])) for name, trace in traces.items()}
    assert drawn["found"] == pytest.approx((row["value"], row["value"] - row["interval"][0], row["interval"][1] - row["value"]), abs=1e-6)
    assert drawn["chance"] == pytest.approx((0, -row["chance"][0], row["chance"][1]), abs=1e-6)


def _first(values: Any) -> float:
    return float(numbers_in(values)[0])


def test_ratios_stand_above_one_and_differences_above_nothing() -> None:
    told = reported.tell([*_comparison().recordings()]).verdicts
    for label, nothing in (("C4", 0.0), ("C6", 1.0)):
        data = verdicts.picture(told, label, []).data.set_index("layer")  # type: ignore[arg-type]
        assert (data.loc["chance", "x"], data.loc["chance", "low"]) == (nothing, nothing)
        assert data.loc["found", "low"] < data.loc["found", "x"] < data.loc["found", "high"]


def _comparison() -> Any:
    from app.compare import standings

    return next(one for one in standings.entries([RECORDINGS]) if one.name == "comparison")


def test_a_comparison_answers_the_questions_that_one_run_cannot(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(RECORDINGS))
    app = show(runs=["comparison"])
    told = {one.label: one for one in reported.tell(_comparison().recordings()).verdicts}
    assert all(told[label].sentence in words_on(app) for label in ("C4", "C5", "C6"))
    assert "need a comparison" not in words_on(app)
    assert app.selectbox(key="focus").options == [one.run for one in _comparison().recordings()]


def test_a_report_is_made_once_for_each_version_of_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Fabricated(root / "live", layers=2, k=16)
    live.step("reward", 0, 2)
    live.step("policy", 1, 3)
    live.store.flush()
    calls: list[Any] = []
    real = reported.report.report
    monkeypatch.setattr(reported.report, "report", lambda found: calls.append(1) or real(found))
    runs = [Recorded(root / "live")]
    first = reported.tell(runs)
    assert reported.tell(runs) is first
    live.step("policy", 1, 1)
    live.store.flush()
    assert reported.tell(runs) != first
    assert len(calls) == 2
    live.store.close("finished")


def test_cautions_are_told(root: Path, show: Show) -> None:
    for name, method in (("a", "rloo"), ("b", "ppo")):
        Fabricated(root / name, layers=2, k=16, updates_each=4, method=method).whole()
    assert "means over runs of 2 configurations" in words_on(show(runs=["a", "b"]))
    older = recordings.load(root / "a")
    older = replace(older, updates=older.updates.assign(null_other_update=np.nan))
    assert reported.cautions([older]) == ["Recorded before nulls were, so chance is the error of the sketches alone and too narrow: a."]


def test_verdicts_of_a_large_recording_wait_until_they_are_asked_for(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    monkeypatch.setattr(explorer, "LARGE_BYTES", 0)
    app = show()
    assert "Do the policy's updates persist?" not in words_on(app)
    assert len(figures_on(app)) == 3
    app.toggle(key="weigh").set_value(True)
    assert "Do the policy's updates persist?" in words_on(ran(app))


@pytest.mark.parametrize(("view", "first"), [("Alignment", "figure"), ("Persistence", "verdicts")])
def test_quick_figures_do_not_wait_for_verdicts_nor_verdicts_for_slow_figures(
    root: Path, show: Show, monkeypatch: pytest.MonkeyPatch, view: str, first: str
) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    order: list[str] = []
    for word, module, name in (("figure", recipes, "make"), ("verdicts", reported, "tell")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, word=word, real=real, **chosen: order.append(word) or real(*given, **chosen))
    app = show(view=view)
    assert set(order) == {"figure", "verdicts"}
    assert order[0] == first
    assert next(iter(figures_on(app))).startswith("Are updates of policy and reward model orthogonal?"), "verdicts stand on top"


def test_the_forecast_is_told_by_layer(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(RECORDINGS))
    app = show(runs=["rloo-chat-s0"])
    made = reported.tell([Recorded(RECORDINGS / "rloo-chat-s0")]).worths[0].forecast
    assert app.dataframe[0].value["gain"].tolist() == pytest.approx(made.rows["gain"].tolist())
    assert f"{made.whole['gain']:.3g} [" in words_on(app)
