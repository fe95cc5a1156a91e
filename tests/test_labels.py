"""Tags and notes on disk and on the command line: what is kept, what is refused, what is left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.compare import standings
from app.reading import loading, naming
from app.runs import grouping, trash
from interplay import compare, disk, labels
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError
from interplay.labels import Labels
from interplay.store import Runs, RunStore, RunSummary
from tests.fabricate import HOSTILE, Fabricated


def small(path: Path, **changes: Any) -> Path:
    return Fabricated(path, layers=1, k=4, value=False, **{"updates_each": 1, **changes}).whole(1)


@pytest.fixture
def run(root: Path) -> Path:
    return small(root / "first")


def written(run: Path) -> Any:
    return json.loads((run / labels.FILE).read_text(encoding="utf-8"))


# --- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["final", "needs review", "  x  ", "x" * 40, "größer", "seed:1", HOSTILE[:40], "🚀", 'a "b"'])
def test_what_may_be_a_tag(word: str) -> None:
    assert labels.as_tag(word) == word.strip()


@pytest.mark.parametrize("word", ["", "   ", "a,b", "x" * 41, "a\nb", "a\tb", "\x1b[31mred", "a\u202eb", "\ud800", None, 3, ["a"], "y" * 10**6])
def test_what_may_be_none(word: object) -> None:
    with pytest.raises(ConfigError, match="a tag is one line of 1 to 40 printable characters without a comma") as refused:
        labels.as_tag(word, "--add")
    assert str(refused.value).startswith("--add is ")
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()


def test_one_letter_in_two_ways_of_writing_is_one_tag() -> None:
    assert labels.as_tag("u\u0308ber") == "über"
    assert labels.unique(["b", "A", "a", "B"]) == ("b", "A")


def test_a_note_keeps_lines_and_loses_what_cannot_be_shown() -> None:
    assert labels.as_note("  one\r\ntwo\tthree\u00a0four\x1b[31m\x00 \ud800 👩\u200d🔬 \n") == "one\ntwo\tthree four [31m    👩\u200d🔬"
    assert len(labels.as_note("x" * 2000)) == 2000
    with pytest.raises(ConfigError, match="--note is 2,001 characters long; at most 2,000 are kept"):
        labels.as_note("x" * 2001, "--note")
    with pytest.raises(ConfigError, match="a note is plain text"):
        labels.as_note(3)


# --- on disk ---------------------------------------------------------------------------------------


def test_changes_are_written_whole_and_read_again(run: Path) -> None:
    assert labels.read(run) == Labels()
    assert not (run / labels.FILE).exists()
    assert labels.change(run, add=["final", "Final", "paper"], note="one\ntwo") == labels.read(run) == Labels(("final", "paper"), "one\ntwo")
    assert written(run) == {"tags": ["final", "paper"], "note": "one\ntwo"}
    assert labels.change(run, remove=["FINAL", "nothing"]).tags == ("paper",)
    assert labels.change(run, add=["Paper"]).tags == ("paper",), "as it was first written"
    assert labels.change(run, remove=["paper"], add=["Paper"]).tags == ("Paper",)
    assert labels.change(run, note="") == Labels(("Paper",), "")
    assert not list(run.glob(".*.tmp"))


def test_what_changes_nothing_writes_nothing(run: Path) -> None:
    labels.change(run, remove=["x"], note="")
    assert not (run / labels.FILE).exists()
    labels.change(run, add=["x"])
    before = (run / labels.FILE).stat().st_ino
    labels.change(run, add=["X"])
    assert (run / labels.FILE).stat().st_ino == before


def test_a_run_has_so_many_tags_and_no_more(run: Path) -> None:
    labels.change(run, add=[f"t{number}" for number in range(20)])
    with pytest.raises(ConfigError, match="first would have 21 tags; a run has at most 20"):
        labels.change(run, add=["one more"], note="not this either")
    assert labels.read(run).note == ""
    assert len(labels.change(run, add=["one more"], remove=["t0"]).tags) == 20


def test_tags_that_threads_add_at_once_all_stay(run: Path) -> None:
    threads = [threading.Thread(target=labels.change, args=(run, [f"t{number}"])) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(labels.read(run).tags) == {f"t{number}" for number in range(20)}


@pytest.mark.parametrize(
    ("content", "said", "left"),
    [
        ("{ not json", "it is not JSON", Labels()),
        ("", "it is not JSON", Labels()),
        ("[1]", "it holds a list, not an object", Labels()),
        ("[" * 5000, "it is not JSON", Labels()),
        ('{"tags": "final"}', "tags is a str, not a list", Labels()),
        ('{"tags": {"a": 1}, "note": "n"}', "tags is a dict, not a list", Labels(note="n")),
        ('{"tags": ["good", 3, null, "a,b"], "note": "n"}', "tag is 3; a tag is one line", Labels(("good",), "n")),
        ('{"tags": ["good"], "note": 7}', "note is 7; a note is plain text", Labels(("good",))),
        (json.dumps({"tags": [f"t{n}" for n in range(30)]}), "it holds 30 tags; a run has at most 20", Labels(tuple(f"t{n}" for n in range(20)))),
        (json.dumps({"note": "x" * 2001}), "note is 2,001 characters long", Labels()),
        (json.dumps({"note": "x" * 2**16}), "65,548 bytes large; labels take at most 65,536", Labels()),
    ],
)
def test_what_is_damaged_is_said_and_never_written_over(run: Path, content: str, said: str, left: Labels) -> None:
    (run / labels.FILE).write_text(content)
    found = labels.read(run)
    assert (found.tags, found.note) == (left.tags, left.note)
    (problem,) = found.problems
    assert said in problem
    assert "\n" not in problem
    summary = loading.summaries()[0]
    assert (summary.state, summary.tags, summary.problems) == ("finished", left.tags, (problem,))
    with pytest.raises(StoreError, match="mend or delete that file first"):
        labels.change(run, add=["new"])
    assert (run / labels.FILE).read_text() == content


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_no_file_is_refused(run: Path, kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"tags": ["secret"]}')
    path = run / labels.FILE
    {
        "link": lambda: path.symlink_to(other),
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    found = labels.read(run)
    assert found.tags == ()
    assert len(found.problems) == 1
    with pytest.raises(StoreError):
        labels.change(run, add=["new"])
    assert other.read_text() == '{"tags": ["secret"]}'
    assert not (tmp_path / "nowhere").exists()


def test_words_that_a_later_version_adds_harm_nobody(run: Path) -> None:
    (run / labels.FILE).write_text('{"tags": ["a"], "colour": "red"}')
    assert labels.read(run) == Labels(("a",))


def test_a_disk_that_refuses_leaves_what_was_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.change(run, add=["a"])
    with monkeypatch.context() as full:
        full.setattr(disk.os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StoreError, match=r"labels.json cannot be written: the disk is full"):
            labels.change(run, add=["b"])
    assert labels.read(run) == Labels(("a",))
    assert not list(run.glob(".*.tmp"))
    with pytest.raises(StoreError, match="cannot be written"):
        labels.change(run.parent / "gone", add=["a"])
    assert not (run.parent / "gone").exists()


def test_labels_are_read_once_while_they_stay_as_they_are(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.change(run, add=["a"])
    asked: list[Path] = []
    read = disk.read_json
    monkeypatch.setattr(disk, "read_json", lambda path: asked.append(path) or read(path))
    for _ in range(5):
        assert labels.read(run).tags == ("a",)
    assert len(asked) <= 1
    labels.change(run, add=["b"])
    assert labels.read(run).tags == ("a", "b")


# --- a run and its labels --------------------------------------------------------------------------


def test_the_line_of_a_run_carries_them(run: Path) -> None:
    labels.change(run, add=["Final"], note="why")
    (summary,) = Runs(run.parent).list()
    assert (summary.tags, summary.note, summary.problems) == (("Final",), "why", ())


def test_a_writer_neither_reads_nor_touches_them(root: Path) -> None:
    live = Fabricated(root / "live", layers=1, k=4, value=False, updates_each=1)
    live.step("reward", 0, 1)
    labels.change(live.path, add=["kept"], note="while it trains")
    before = (live.path / labels.FILE).stat()
    live.step("policy", 1, 2)
    live.store.close("interrupted")
    store = RunStore.open(live.path, write=True)  # as a resume does
    store.rewind(1)
    store.update_info(notes=["resumed"])
    store.set_status(state="running")
    store.compact()
    store.close("finished")
    after = (live.path / labels.FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert RunStore.open(live.path).problems() == []


def test_a_resumed_training_leaves_them_alone(model: Path, prompts: Path, tmp_path: Path) -> None:
    from interplay import loop
    from tests import training

    path = loop.train(training.small(model, prompts, tmp_path / "run", iterations=1))
    labels.change(path, add=["kept"])
    raw = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**raw, "config": {**raw["config"], "iterations": 2}}))
    content = (path / labels.FILE).read_bytes()
    assert loop.resume(path) == path
    assert (path / labels.FILE).read_bytes() == content


def test_the_trash_takes_them_along_and_brings_them_back(run: Path) -> None:
    labels.change(run, add=["kept"])
    (thrown,) = trash.throw(["first"])
    assert labels.read(thrown.path).tags == ("kept",)
    trash.restore(thrown)
    assert loading.summaries()[0].tags == ("kept",)


# --- search ----------------------------------------------------------------------------------------


def labelled(name: str, *tags: str, note: str = "") -> RunSummary:
    return RunSummary(name, Path("/nowhere/runs") / name, "finished", "rloo", "chat", 0, config={"method": "rloo"}, tags=tags, note=note)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("tag:final", ["a"]),
        ("TAG:FINAL", ["a"]),
        ("tag:fin", []),
        ("tag:final,paper", ["a", "b"]),
        ('tag:"needs review"', ["b"]),
        ("tag:needs", []),
        ("tag:a:b", ["c"]),
        ("tag:", []),
        ("final", ["a", "c"]),
        ("review", ["b"]),
        ("surprising", ["c"]),
        ('"too high"', ["c"]),
        ('"high too"', []),
        ("tag:final method:rloo", ["a"]),
        ("tag:final method:ppo", []),
        ('"', ["a", "b", "c"]),
        ("tag:strasse", ["b"]),
    ],
)
def test_a_search_asks_for_tags_and_for_words_of_notes(words: str, names: list[str]) -> None:
    runs = [labelled("a", "Final"), labelled("b", "paper", "needs review", "Straße"), labelled("c", "a:b", note="Surprising: not final,\nfar too high")]
    assert [run.run for run in naming.search(runs, words)] == names


def test_a_comparison_is_found_by_a_tag_of_its_rows(root: Path) -> None:
    plan = compare.plan(RunConfig(updates=1, sketch=4), ["rloo"], [0], root / "compare-x", warm=None)
    compare.settle(plan)
    labels.change(small(plan.rows[0].folder), add=["Paper"])
    known = standings.entries([root])
    assert grouping.search(known, [], "tag:paper") == grouping.search(known, [], "paper") == known
    assert grouping.search(known, [], "tag:final") == []


# --- the command line --------------------------------------------------------------------------------


def said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_tags_are_put_on_taken_off_and_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = small(run.parent / "second")
    here = ["--runs", str(run.parent)]
    assert said(["tag", "first", *here], capsys) == "first: no tags\n"
    text = said(["tag", "first", str(second), "first", *here, "--add", "final", "--add", "to do", "--note", "one\ntwo"], capsys)
    assert text == "first: final, to do\n  one\n  two\nsecond: final, to do\n  one\n  two\n"
    assert said(["tag", "second", *here, "--remove", "FINAL", "--note", ""], capsys) == "second: to do\n"
    found = json.loads(said(["tag", "first", "second", *here, "--json"], capsys))
    assert found[0] == {"run": "first", "path": str(run), "tags": ["final", "to do"], "note": "one\ntwo", "problems": []}
    assert found[1]["tags"] == ["to do"]


def test_the_row_of_a_comparison_can_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(root / "compare-x" / "rloo-s0")
    assert said(["tag", "compare-x/rloo-s0", "--runs", str(root), "--add", "x"], capsys) == "rloo-s0: x\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["first", "--add", "a,b"], "--add is 'a,b'; a tag is one line of 1 to 40 printable characters without a comma"),
        (["first", "--add", "ok", "--add", ""], "--add is ''; a tag is one line of 1 to 40 printable characters without a comma"),
        (["first", "--note", "x" * 2001], "--note is 2,001 characters long; at most 2,000 are kept"),
        (["first", "--remove", "finl"], "--remove is 'finl', but none of these runs has that tag; did you mean 'final'?; tags there: final"),
        (["second", "--remove", "final"], "--remove is 'final', but none of these runs has that tag; they have no tags"),
        (["second", "firts", "--add", "x"], "run is 'firts', but there is no such run in "),
    ],
)
def test_bad_words_are_one_line_and_change_nothing(run: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    second = small(run.parent / "second")
    labels.change(run, add=["final"])
    assert main(["tag", *words, "--runs", str(run.parent)]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith(f"interplay: {line}")
    assert (labels.read(run), labels.read(second)) == (Labels(("final",)), Labels())


def test_without_a_run_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "--add", "x"]) == 2
    assert "RUN" in capsys.readouterr().err


def test_a_damaged_file_is_named_and_left(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / labels.FILE).write_text("{")
    assert "problem: " in said(["tag", str(run)], capsys)
    assert main(["tag", str(run), "--add", "x"]) == 2
    assert "mend or delete that file first" in capsys.readouterr().err
    assert (run / labels.FILE).read_text() == "{"


def test_runs_and_show_tell_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(run.parent / "second")
    here = ["--runs", str(run.parent)]
    assert "tags" not in said(["runs", *here], capsys)
    assert "tags:" not in said(["show", str(run)], capsys)
    labels.change(run, add=["[bold]x[/bold]", "final"], note="why\nnot")
    lines = said(["runs", *here], capsys).splitlines()
    assert lines[0].split()[-1] == "tags"
    assert next(line for line in lines if line.startswith("first")).endswith("[bold]x[/bold], final")
    rows = {row["run"]: row for row in json.loads(said(["runs", *here, "--json"], capsys))}
    assert (rows["first"]["tags"], rows["first"]["note"]) == (["[bold]x[/bold]", "final"], "why\nnot")
    assert (rows["second"]["tags"], rows["second"]["note"]) == ([], "")
    shown = said(["show", str(run)], capsys)
    assert "tags: [bold]x[/bold], final\n" in shown
    assert "note: why\nnote: not\n" in shown
    found = json.loads(said(["show", str(run), "--json"], capsys))
    assert (found["tags"], found["note"]) == (["[bold]x[/bold]", "final"], "why\nnot")


def test_tagging_imports_no_engine(run: Path) -> None:
    code = f"import sys; from app.cli import main; main(['tag', {str(run)!r}, '--add', 'x']); sys.exit('torch' in sys.modules or 'streamlit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, cwd=Path(__file__).parents[1]).returncode == 0


def test_nothing_of_them_goes_into_figures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.zip", tmp_path / "after.zip"
    for out in (before, after):
        said(["figure", "reward_curve", str(run), "--out", str(out)], capsys)
        labels.change(run, add=["secret-tag"], note="secret note")
    assert before.read_bytes() == after.read_bytes()


def test_the_manual_names_every_key_and_limit(run: Path) -> None:
    labels.change(run, add=["x"], note="y")
    text = (Path(__file__).parents[1] / "docs" / "schema.md").read_text(encoding="utf-8").split("## labels.json\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(written(run))
    for limit in (
        f"{labels.MOST_TAGS} words",
        f"1 to {labels.LONGEST_TAG} printable",
        f"{labels.LONGEST_NOTE:,} characters",
        f"{labels._MOST_BYTES // 2**10} KiB",
    ):
        assert limit in text
