"""Tags and notes on the Runs page: shown as text, changed as differences, and only by those who may."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.reading import loading
from app.runs import labelling
from interplay import compare, labels
from interplay.config import RunConfig
from tests.fabricate import HOSTILE, Fabricated
from tests.pages import Show, ran


def small(path: Path, **changes: Any) -> Path:
    return Fabricated(path, layers=1, k=4, value=False, **{"updates_each": 1, **changes}).whole(1)


@pytest.fixture
def two(root: Path) -> tuple[Path, Path]:
    return small(root / "a"), small(root / "b", method="ppo")


def table(app: AppTest, number: int = 0) -> dict[str, list[Any]]:
    frame = app.dataframe[number].value
    return {str(name): frame[name].tolist() for name in frame}


def boxes(app: AppTest) -> dict[str, Any]:
    """The multiselects of the page by their label."""
    return {box.label: box for box in app.multiselect}


def note(app: AppTest) -> Any:
    return next(area for area in app.text_area if area.label == "Note")


def typed(app: AppTest, key: str, tag: str) -> AppTest:
    """The page after a tag was typed into a box; AppTest lets only what is offered be chosen."""
    box = app.selectbox(key=key)
    box.options.append(tag)
    return ran(box.set_value(tag))


def faults(app: AppTest) -> str:
    return "\n".join(error.value for error in app.error).replace("\\", "")


# --- the list --------------------------------------------------------------------------------------


def test_without_tags_there_is_neither_column_nor_filter(two: tuple[Path, Path], show: Show) -> None:
    app = show()
    assert "tags" not in table(app)
    assert "Tag" not in boxes(app)
    assert set(table(show(only_tag="final"))["run"]) == {"a", "b"}


def test_tags_are_a_column_a_filter_and_words_to_search_for(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=["Final", "needs review"], note="a surprising one")
    labels.change(two[1], add=["final"])
    app = show()
    rows = dict(zip(table(app)["run"], map(list, table(app)["tags"]), strict=True))
    assert rows == {"a": ["Final", "needs review"], "b": ["final"]}
    assert len(boxes(app)["Tag"].options) == 2, "two spellings are one tag"
    assert table(show(only_tag="needs review"))["run"] == ["a"]
    assert set(table(show(only_tag=boxes(app)["Tag"].options[0]))["run"]) == {"a", "b"}
    assert set(table(show(q="tag:FINAL"))["run"]) == {"a", "b"}
    assert table(show(q='tag:"needs review"'))["run"] == ["a"]
    assert table(show(q="surprising"))["run"] == ["a"]
    app = show(only_tag="needs review")
    ran(app.button(key="show-all").click())
    assert set(table(ran(app))["run"]) == {"a", "b"}


def test_a_tag_of_a_row_finds_its_comparison(root: Path, show: Show) -> None:
    plan = compare.plan(RunConfig(updates=1, sketch=4), ["rloo"], [0], root / "compare-x", warm=None)
    compare.settle(plan)
    small(root / "single")
    labels.change(small(plan.rows[0].folder), add=["paper"])
    app = show(only_tag="paper", comparison="compare-x", row="compare-x/rloo-s0")
    assert table(app)["comparison"] == ["compare-x"]
    assert boxes(app)["Tags"].value == ["paper"], "a row can be labelled like any run"
    ran(boxes(app)["Tags"].set_value(["paper", "best"]))
    assert labels.read(plan.rows[0].folder).tags == ("paper", "best")


# --- one run ---------------------------------------------------------------------------------------


def test_tags_of_one_run_are_chosen_or_typed_and_kept_at_once(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[1], add=["paper"])
    app = show(selected="a")
    assert boxes(app)["Tags"].options == ["paper"]
    ran(boxes(app)["Tags"].set_value(["paper", "my own"]))
    assert labels.read(two[0]).tags == ("paper", "my own")
    assert boxes(app)["Tag"].options == ["my own", "paper"], "the filter knows it at once"
    ran(boxes(app)["Tags"].set_value(["my own"]))
    assert labels.read(two[0]).tags == ("my own",)
    assert not faults(app)


def test_a_note_is_kept_when_it_has_changed(two: tuple[Path, Path], show: Show) -> None:
    app = show(selected="a")
    ran(note(app).set_value("  first\nsecond  "))
    assert labels.read(two[0]).note == "first\nsecond"
    assert note(app).value == "first\nsecond"
    ran(note(app).set_value(""))
    assert labels.read(two[0]).note == ""


def test_two_tabs_do_not_undo_each_other(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=["old"])
    mine, theirs = show(selected="a"), show(selected="a")
    ran(boxes(theirs)["Tags"].set_value(["old", "theirs"]))
    ran(boxes(mine)["Tags"].set_value(["old", "mine"]))
    assert labels.read(two[0]).tags == ("old", "theirs", "mine")
    assert boxes(mine)["Tags"].value == ["old", "theirs", "mine"], "and it is shown"
    assert boxes(ran(theirs))["Tags"].value == ["old", "theirs", "mine"]
    ran(note(theirs).set_value("theirs"))
    assert note(ran(mine)).value == "theirs"


def test_each_run_has_its_own_controls(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=["of a"], note="of a")
    app = show(selected="a")
    assert (boxes(app)["Tags"].value, note(app).value) == (["of a"], "of a")
    app = show(selected="b")
    assert (boxes(app)["Tags"].value, note(app).value) == ([], "")


def test_what_is_no_tag_is_said_and_taken_back(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=["good"])
    app = show(selected="a")
    ran(boxes(app)["Tags"].set_value(["good", "a,b"]))
    assert "tag is 'a,b'; a tag is one line of 1 to 40 printable characters" in faults(app)
    assert boxes(app)["Tags"].value == ["good"]
    ran(boxes(app)["Tags"].set_value(["good", "better"]))
    assert not faults(app)
    assert labels.read(two[0]).tags == ("good", "better")


def test_a_note_that_cannot_be_written_stays_in_its_box(two: tuple[Path, Path], show: Show) -> None:
    app = show(selected="a")
    (two[0] / labels.FILE).mkdir()
    ran(note(app).set_value("an hour of thought"))
    assert "mend or delete that file first" in faults(app)
    assert note(app).value == "an hour of thought"
    (two[0] / labels.FILE).rmdir()
    ran(note(app).set_value("an hour of thought, saved"))
    assert labels.read(two[0]).note == "an hour of thought, saved"
    assert not faults(app)


def test_a_damaged_file_is_a_line_and_no_fault_of_the_page(two: tuple[Path, Path], show: Show) -> None:
    (two[0] / labels.FILE).write_text('{"tags": 3}')
    app = show(selected="a")
    assert any("tags is a int, not a list" in str(problem) for problem in table(app)["problem"])
    assert any("labels.json" in warning.value.replace("\\", "") for warning in app.warning)


def test_hostile_words_are_text(two: tuple[Path, Path], show: Show) -> None:
    tag = "**b** <img src=x> $x$ :red[x] ![p](u)"
    labels.change(two[0], add=[tag], note=HOSTILE)
    app = show(selected="a")
    assert boxes(app)["Tags"].value == [tag]
    assert note(app).value == HOSTILE
    for kind in (app.markdown, app.caption, app.subheader, app.warning, app.error):
        assert not any("evil.example" in element.value or "img" in element.value for element in kind)


# --- several runs ----------------------------------------------------------------------------------


def test_a_tag_is_put_on_all_selected_runs_and_taken_off_again(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=["only a"])
    app = show(selected=["a", "b"])
    assert app.selectbox(key="untag-all").options == ["only a (on 1 of 2)"]
    typed(app, "tag-all", "both")
    assert [labels.read(run).tags for run in two] == [("only a", "both"), ("both",)]
    assert app.selectbox(key="tag-all").value is None
    assert app.selectbox(key="untag-all").options == ["both (on 2 of 2)", "only a (on 1 of 2)"]
    ran(app.selectbox(key="untag-all").set_value("both"))
    assert [labels.read(run).tags for run in two] == [("only a",), ()]


def test_one_that_cannot_take_a_tag_does_not_keep_the_others_from_it(two: tuple[Path, Path], show: Show) -> None:
    labels.change(two[0], add=[f"t{number}" for number in range(20)])
    app = show(selected=["a", "b"])
    typed(app, "tag-all", "new")
    assert labels.read(two[1]).tags == ("new",)
    assert "a would have 21 tags" in faults(app)
    typed(app, "tag-all", "no, tag")
    assert faults(app).count("a tag is one line") == 1


# --- who may ---------------------------------------------------------------------------------------


def test_a_server_without_login_shows_and_does_not_write(two: tuple[Path, Path], show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.change(two[0], add=["shown"], note="shown, too")
    one, several = show(selected="a"), show(selected=["a", "b"])
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    app = show(selected="a")
    assert (boxes(app)["Tags"].value, note(app).value) == (["shown"], "shown, too")
    assert boxes(app)["Tags"].disabled
    assert note(app).disabled
    assert "no login" in note(app).help.replace("\\", "")
    before = (two[0] / labels.FILE).read_bytes()
    ran(boxes(one)["Tags"].set_value(["sent by hand"]))  # as a browser may that does not care for disabled controls
    assert "no login" in faults(one)
    typed(several, "tag-all", "sent by hand")
    assert (two[0] / labels.FILE).read_bytes() == before
    assert not (two[1] / labels.FILE).exists()
    (popover,) = show(selected=["a", "b"]).get("popover")
    assert popover.proto.popover.disabled


def test_what_came_with_the_project_stays_as_it_is(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "recordings"
    small(given / "shipped")
    labels.change(given / "shipped", add=["shipped"])
    monkeypatch.setattr(loading, "RECORDINGS", given)
    monkeypatch.setenv("INTERPLAY_RUNS", str(given))
    app = show(selected="shipped")
    assert boxes(app)["Tags"].disabled
    assert "came with the project" in boxes(app)["Tags"].help.replace("\\", "")
    assert "came with the project" in str(labelling._changed(loading.summaries()[0], {"add": ["x"]}))
    assert labels.read(given / "shipped").tags == ("shipped",)


def test_a_run_that_has_gone_says_so(two: tuple[Path, Path], show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    app = show(selected="a")
    shutil.rmtree(two[0])
    app.multiselect[-1].set_value(["x"]).run()
    assert not app.exception
    assert not two[0].exists()
