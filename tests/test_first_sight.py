"""What a page shows where nobody asked for a run: one with something to see, and which other one is at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from analysis import report
from analysis.evidence import Recording
from app.reading import loading, recordings
from tests.fabricate import Fabricated
from tests.pages import Show


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that ended, and a newer one that is at its first reward model."""
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "runs"))
    path = Fabricated(tmp_path / "runs" / "ended", layers=2, k=16, updates_each=4).whole() / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": "2026-01-01T00:00:00+00:00"}))
    return tmp_path / "runs"


def live(root: Path, **progress: Any) -> Fabricated:
    made = Fabricated(root / "young", layers=2, k=16)
    made.step("reward", 0, 2)
    made.store.flush()
    made.store.set_status(progress={"doing": "reward model update 2", "share": 0.2, **progress})
    return made


def words(app: AppTest) -> str:
    return "\n".join(line.value for kind in (app.caption, app.text, app.warning) for line in kind).replace("\\", "")


@pytest.mark.parametrize(("page", "key"), [("replay", "run"), ("interplay", "runs")])
def test_a_run_whose_policy_has_not_moved_gives_way_and_is_named(root: Path, show: Show, page: str, key: str) -> None:
    made = live(root)
    assert loading.summaries()[0].run == "young", "it would be the first"
    app = show(page)
    assert app.query_params[key] in ("ended", ["ended"])
    assert "At work: young. Choose it above to watch it." in words(app)
    assert "At work" not in words(show(page, **{key: "young"}))
    made.store.close("finished")


def test_one_whose_policy_moves_is_shown(root: Path, show: Show) -> None:
    made = live(root, reward=-1.0, kl=0.1)
    app = show("replay")
    assert app.query_params["run"] in ("young", ["young"])
    made.store.close("finished")


def test_where_there_is_nothing_else_it_is_shown_and_says_not_yet(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    made = live(tmp_path)
    assert "Not recorded yet: " in words(show("interplay"))
    made.store.close("finished")
    assert "Not recorded: " in words(show("interplay"))


def test_a_selection_of_a_link_that_has_gone_is_told(root: Path, show: Show) -> None:
    app = show("runs", selected=["nothing", "ended"])
    assert "There is no run “nothing” here" in words(app)
    assert "There is no run" not in words(show("runs", selected=["ended"]))


def test_recordings_without_updates_say_that_and_no_other_reason(root: Path) -> None:
    held: Recording = recordings.load(root / "ended")
    empty = Recording(held.run, held.method, held.seed, held.group, None, None, held.updates.iloc[:0], held.metrics, held.completions)
    told = {verdict.label: verdict.sentence for verdict in report.report([empty])}
    assert {told[label] for label in ("C1", "C2", "C3")} == {"These recordings hold no rows of updates, so nothing can be said of where they went."}
