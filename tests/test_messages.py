"""What is said to somebody who mistyped a name, a file or a folder, gave a file of numbers, or has no runs yet."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import cli
from app.commands import tables
from app.export import export
from app.export.export import Size
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay.errors import ConfigError, DataError, StoreError
from tests.exporting import command, inside_of, root, shown
from tests.pages import Show, ran

__all__ = ["root", "shown"]  # the fixtures

NUMBERS = "a.csv does not say which runs it shows, because a CSV holds numbers only; give another file of the same figure"
UNCOMPARED = "nothing was compared; --runs DIR says whether the runs there still give the same rows"


def file_of(run: Path, kind: str) -> bytes:
    return export.made([export.panel("kl_curve", [Recorded(run)], {})], kind, Size())


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without runs that the dashboard shows."""
    (tmp_path / "my runs").mkdir()
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "my runs"))
    return tmp_path / "my runs"


# --- files and folders that are not there ----------------------------------------------------------


@pytest.mark.parametrize("words", [["--about", "none.pdf"], ["--about", "none.zip"], ["--basket", "none.json", "--out", "a.zip"]], ids=" ".join)
def test_a_file_that_is_not_there_is_not_blamed_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as refused:
        command(*words)
    assert str(refused.value) == f"{words[0]} is {words[1]!r}, which cannot be read: there is no such file"
    Path(words[1]).mkdir()
    with pytest.raises(StoreError, match=r"which cannot be read: it is a folder$"):
        command(*words)


def test_a_folder_of_runs_that_is_not_there_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tex").write_bytes(file_of(root / "first", "tex"))
    with pytest.raises(StoreError, match=r"^--runs is 'nowhere', but there is no such folder; name the one that holds the runs$"):
        command("--about", "a.tex", "--runs", "nowhere")
    with pytest.raises(StoreError, match=r"^run is 'first', but there is no folder nowhere; give the folder of a run, or the name of one in --runs$"):
        command("kl_curve", "first", "--runs", "nowhere", "--out", "a.pdf")
    assert command("kl_curve", root / "first", "--runs", "nowhere", "--out", "a.csv") == 0, "a path needs no folder of runs"


# --- names that are not there ----------------------------------------------------------------------


def test_a_mistyped_figure_is_told_before_a_missing_file(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"figure is 'trajectores'; did you mean 'trajectories'\?"):
        command("trajectores", root / "first")
    with pytest.raises(ConfigError, match="--out is missing"):
        command("trajectories", root / "first")


def test_a_mistyped_path_is_looked_for_where_it_leads(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    word, told = str(root / "frist"), re.escape(f"there is no such run in {root}; did you mean 'first'?; `interplay runs --runs {root}` lists them")
    for asked in (
        lambda: tables.show(word, Path("runs"), as_json=False),
        lambda: recorded.find(word, Path("runs")),
        lambda: recorded.folder(word, Path("runs")),
    ):
        with pytest.raises(StoreError, match=told):
            asked()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("frist", "there is no such run in runs; did you mean 'first'?"),
        ("runs/frist", "there is no such run in runs; did you mean 'first'?"),
        ("compare/dpo-so", "there is no such run in runs/compare; did you mean 'dpo-s0'?"),  # a row of a comparison in --runs
        ("nowhere/first", "there is no folder nowhere; "),
        ("", "there is no such run in runs; `interplay runs"),
    ],
)
def test_a_word_is_looked_for_in_the_folder_it_means(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "compare/dpo-s0"):
        shutil.copytree(root / "first", Path("runs", name))
    assert str(recorded.unknown(word, Path("runs"))).startswith(f"run is {word!r}, but {told}")


# --- files of figures ------------------------------------------------------------------------------


def test_a_file_of_numbers_says_what_to_give(shown: Path, tmp_path: Path, show: Show) -> None:
    content = file_of(shown / "first", "csv")
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"^{NUMBERS}: .pdf, .svg, .png, .html, .tex, .json, or the .zip$"):
        command("--about", tmp_path / "a.csv")
    app = show("export")
    app.file_uploader(key="opened").set_value([("a.csv", content, "text/csv")])
    said = [element.value.replace("\\", "") for element in (*ran(app).text, *app.markdown)]
    assert [words for words in said if words.startswith(NUMBERS)]
    assert [words for words in said if "numbers only]" in words], "its badge"
    assert not [words for words in said if "not ours" in words]


def test_what_is_not_ours_is_told_all_kinds_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"give a \.pdf, .*, \.json file that Interplay drew, or a \.zip of them$"):
        command("--about", tmp_path / "a.gif")


def test_the_text_in_a_zip_says_which_files_carry_nothing(root: Path) -> None:
    files = inside_of(file_of(root / "first", "zip"))
    assert "The metadata of each file but .csv name its runs" in files["figures/README.txt"].decode()


def test_a_file_that_was_not_compared_says_how_it_would_be(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("svg", "zip"):
        (tmp_path / f"a.{kind}").write_bytes(file_of(root / "first", kind))
        command("--about", tmp_path / f"a.{kind}")
        assert capsys.readouterr().out.splitlines()[-1] == UNCOMPARED
        command("--about", tmp_path / f"a.{kind}", "--runs", root)
        assert UNCOMPARED not in capsys.readouterr().out


# --- pages without runs ----------------------------------------------------------------------------


def titles(app: AppTest) -> list[str]:
    return [title.value for title in app.title]


def test_the_command_that_makes_a_comparison_lands_in_the_folder_that_is_shown(empty: Path, show: Show) -> None:
    words = shlex.split(show("compare").code[0].value)
    assert words[:2] == ["interplay", "compare"]
    assert cli.planned(words[2:]).out == empty / "compare"


@pytest.mark.parametrize("page", ["compare", "interplay"])
def test_a_page_without_runs_keeps_its_title(empty: Path, show: Show, page: str) -> None:
    assert titles(show(page)) == [page.capitalize()]
