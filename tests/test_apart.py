"""Runs whose folders have one name, in one picture: each has a name of its own there, and none is drawn twice or into another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis import recipes
from app import cli
from app.export import export
from app.export.wanted import Item
from app.interplay import explorer
from app.reading import recorded
from app.reading.recorded import Recorded
from tests.fabricate import Fabricated
from tests.pages import Show, charts


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs called `same`, in two folders that are shown."""
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(str(tmp_path / folder) for folder in ("one", "two")))
    return [Fabricated(tmp_path / folder / "same", layers=2, k=8, updates_each=updates).whole() for folder, updates in (("one", 2), ("two", 3))]


def names(*paths: str) -> list[str]:
    return [one.run for one in recorded.apart([Recorded(Path(path)) for path in paths])]


def test_the_folders_above_tell_runs_apart_as_far_up_as_it_takes() -> None:
    assert names("/d/a", "/d/b") == ["a", "b"]
    assert names("/d/one/a", "/d/two/a", "/d/two/b") == ["one/a", "two/a", "b"]
    assert names("/x/one/a", "/y/one/a") == ["x/one/a", "y/one/a"]
    assert names("/a", "/d/a") == ["/a", "d/a"], "one whose whole path is the end of another's"


def test_a_run_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert len(names(f"{tmp_path}/a", f"{tmp_path}/../{tmp_path.name}/a", f"{tmp_path}/link")) == 1


def test_a_picture_of_both_holds_the_rows_of_both(twins: list[Path]) -> None:
    spec = recipes.make("run_curves", recorded.apart([Recorded(path) for path in twins]))
    assert spec.runs == ("one/same", "two/same")
    alone = [recipes.make("run_curves", [Recorded(path)]).n for path in twins]
    assert spec.n == sum(alone)
    paths = recipes.make("trajectories", recorded.apart([Recorded(path) for path in twins]))
    assert set(paths.data["run"]) == {"one/same", "two/same"}


def test_the_figure_of_a_basket_and_its_command_name_them_as_they_can_be_found(twins: list[Path], tmp_path: Path) -> None:
    item = Item.of("run_curves", [Recorded(path) for path in twins], {})
    drawn = export.wanted(item, item.recordings())
    assert drawn.spec.runs == ("one/same", "two/same")
    words = export.command(drawn.item)
    assert words[3:5] == ["one/same", "two/same"]
    assert [recorded.find(word, tmp_path)[0].path for word in words[3:5]] == twins


def test_the_command_draws_both(twins: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both.csv"
    assert cli.main(["figure", "run-curves", *map(str, twins), str(twins[0]), "--out", str(out)]) == 0
    assert "one/same" in out.read_text()
    assert "two/same" in out.read_text()
    capsys.readouterr()


def test_they_are_replayed_beside_each_other(twins: list[Path], show: Show) -> None:
    app = show("replay", run="one/same", versus="two/same")
    drawn = {one["name"]: one for one in charts(app)}
    assert all(name in drawn["chart-reward_curve"]["alt"] for name in ("one/same", "two/same"))
    assert {"chart-heat-policy", "chart-heat-policy-beside"} <= set(drawn)
    told = "\n".join(line.value for line in app.text)
    assert "one/same: update" in told
    assert "two/same: update" in told


def test_they_are_compared_on_the_page_of_the_interplay(twins: list[Path], show: Show) -> None:
    app = show("interplay", runs=["one/same", "two/same"], view=explorer.OTHERS, figure="trajectories")
    assert any(all(name in one["alt"] for name in ("policy, one/same", "policy, two/same")) for one in charts(app))
