"""What runs and comparisons are called in links: two of one name in two folders are told apart wherever a name is written or read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.compare import standings
from app.export import wanted
from app.reading import loading, naming
from interplay import compare, labels
from interplay.compare import PLAN
from interplay.config import RunConfig
from interplay.reading import summarise
from tests.fabricate import Fabricated
from tests.pages import Show


def comparison(folder: Path, updates: int = 2) -> Path:
    """A comparison of one method and two seeds that is finished."""
    plan = compare.plan(RunConfig(updates=updates, sketch=8), ("rloo",), (0, 1), folder, warm=None)
    for row in plan.rows:
        Fabricated(row.folder, layers=1, k=8, updates_each=updates, method="rloo", seed=row.seed).whole()
    compare.settle(plan)
    return folder


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Comparisons of one name, in two folders that are shown; rows of the second made three updates."""
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    return comparison(tmp_path / "one" / "same"), comparison(tmp_path / "two" / "same", updates=3)


def test_rows_of_two_comparisons_of_one_name_have_names_of_their_own(two: tuple[Path, Path]) -> None:
    rows = [summarise(folder / "rloo-s0") for folder in two]
    names = naming.names(rows)
    assert names == ["one/same/rloo-s0", "two/same/rloo-s0"]
    assert names == [naming.name_of(row.path) for row in rows]
    for name, row in zip(names, rows, strict=True):
        assert [found.path for found in naming.inside(name)] == [row.path]
        assert wanted.look_up(name).path == row.path


def test_a_row_without_its_folder_is_the_first_of_that_name(two: tuple[Path, Path]) -> None:
    assert [found.path for found in naming.inside("same/rloo-s0")] == [two[0] / "rloo-s0"]
    assert naming.inside("same/nothing") == naming.inside("rloo-s0") == naming.inside("") == []


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [Fabricated(tmp_path / folder / "same", layers=1, k=8, updates_each=2).whole() for folder in ("one", "two")]
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(str(tmp_path / folder) for folder in ("one", "two")))
    names = [naming.name_of(folder) for folder in folders]
    assert names == ["one/same", "two/same"]
    assert [wanted.look_up(name).path for name in [*names, "same"]] == [*folders, folders[0]]


def test_a_single_comparison_keeps_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = comparison(tmp_path / "one" / "same")
    (tmp_path / "two").mkdir()
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    assert naming.names([summarise(folder / "rloo-s1")]) == ["same/rloo-s1"]
    assert naming.name_of(folder) == "same"


def test_a_link_opens_the_comparison_that_it_names(two: tuple[Path, Path]) -> None:
    found = standings.entries(loading.roots())
    for name, folder in zip(("one/same", "two/same"), two, strict=True):
        entry = standings.find(name, found)
        assert entry is not None
        assert (entry.name, entry.path) == (name, folder)
        assert naming.places(name, PLAN) == [folder]


def test_folders_that_are_comparisons_of_one_name_are_told_apart(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(map(str, two)))
    found = standings.entries(loading.roots())
    assert {entry.name: entry.path for entry in found} == {"one/same": two[0], "two/same": two[1]}
    assert [naming.places(name, PLAN) for name in ("one/same", "two/same")] == [[two[0]], [two[1]]]
    assert [wanted.expand(name)[0].path.parent for name in ("one/same", "two/same")] == list(two)


@pytest.mark.parametrize("page", ["replay", "interplay", "compare"])
def test_pages_open_the_row_or_comparison_of_the_link(two: tuple[Path, Path], show: Show, page: str) -> None:
    for name in ("one/same", "two/same"):
        if page == "compare":
            assert show(page, out=name).query_params["out"] == name
        elif page == "replay":
            assert show(page, run=f"{name}/rloo-s1").selectbox(key="run").value == f"{name}/rloo-s1"
        else:
            assert show(page, runs=[f"{name}/rloo-s1"]).multiselect(key="runs").value == [f"{name}/rloo-s1"]


@pytest.mark.parametrize("name", ["../one/same", "same/../same/rloo-s0", "/same", "same/.hidden", "a/b/c/d/e", "\0", "one/", "two//rloo-s0"])
def test_no_name_leads_out_of_its_folder(two: tuple[Path, Path], name: str) -> None:
    assert naming.places(name) == naming.places(name, PLAN) == naming.inside(name) == []


def test_a_search_that_finds_nothing_says_what_may_be_wrong_with_it(tmp_path: Path) -> None:
    path = Fabricated(tmp_path / "one", layers=1, k=8, updates_each=2).whole()
    assert naming.hint([summarise(path)], "tag:final") == "No run has a tag yet."
    labels.change(path, add=["My baseline!", "draft"])
    runs = [summarise(path)]
    assert naming.hint(runs, "tag:my") == 'No run has the tag my; there are: "My baseline!", draft.'
    assert naming.search(runs, 'tag:"my baseline!"') == runs, "as the hint writes it"
    assert naming.hint(runs, "foo:bar") == "No setting is called foo."
    assert naming.hint(runs, "seed:99 words") == naming.hint(runs, "") == ""
