"""`interplay figure`: what is listed, drawn, written and refused."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import HOSTILE, Fabricated
from PIL import Image

from analysis import figures, paper, recipes
from analysis.spec import Axis, FigureSpec, Mark
from app.commands import figure
from app.export import export
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay import compare
from interplay.config import Parser, RunConfig
from interplay.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("command") / "runs"
    Fabricated(root / "first", layers=2, k=8, updates_each=3).whole()
    Fabricated(root / "second", layers=2, k=8, updates_each=3, seed=1).whole()
    return root


def command(*words: object) -> int:
    parser = Parser(prog="interplay figure")
    figure.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    return int(arguments.run(arguments))


# --- listed ----------------------------------------------------------------------------------------


def test_the_list_has_every_figure_with_its_first_line_and_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, function in figures.FIGURES.items():
        first = (function.__doc__ or "").strip().splitlines()[0]
        assert any(line in (f"{name}: {first}", f"{name} (takes several runs): {first}") for line in lines), name
    assert "    --set x=update (update, tokens, seconds, forwards)" in lines
    assert "    --set components=2 (2, 3)" in lines
    assert "    --set metric=none" in lines
    assert not [line for line in lines if "Raises" in line or "Error" in line], "what a figure shows, and not what its function does"
    assert "    --set roles=all (policy, reward, value)" in lines


def test_every_argument_has_its_help() -> None:
    parser = argparse.ArgumentParser()
    figure.add_arguments(parser)
    for action in parser._actions:
        assert action.help
        if action.option_strings and action.nargs is None and action.default is not None:
            assert f"default {action.default}" in action.help


# --- drawn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pdf", "svg", "png", "html", "csv", "tex", "json"])
def test_each_suffix_is_a_format(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    out = tmp_path / f"kl.{kind}"
    assert command("kl-curve", root / "first", "--out", out, "--venue", "icml") == 0
    spec = export.panel("kl_curve", [Recorded(root / "first")], {}).spec
    expected = {
        **{name: lambda name=name: paper.render(spec, name, venue="icml") for name in paper.FORMATS},
        **{"csv": lambda: paper.csv(spec).encode(), "tex": lambda: paper.table(spec).encode()},
        **{"html": lambda: figure.page(spec).encode(), "json": lambda: figure.as_json(spec).encode()},
    }
    assert out.read_bytes() == expected[kind]()
    said = capsys.readouterr().out
    assert f"{out}: KL from the reference, n = {spec.n}" in said
    assert spec.caption in said
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_width_and_height_are_obeyed(root: Path, tmp_path: Path) -> None:
    command("gold-curve", "first", "--runs", root, "--out", tmp_path / "a.png", "--venue", "icml", "--width", "text", "--height", "2")
    assert Image.open(tmp_path / "a.png").size == (2025, 600)


def test_settings_reach_the_figure(root: Path, tmp_path: Path) -> None:
    command("norm_heatmap", "first", "--runs", root, "--out", tmp_path / "a.csv", "--set", "role=reward", "--set", "rows=kind")
    found = pd.read_csv(tmp_path / "a.csv")
    assert set(found["series"]) == {"reward"}
    assert "q_proj" in set(found["row"])
    command("trajectories", "first", "--runs", root, "--out", tmp_path / "b.csv", "--set", "roles=policy,value", "--set", "same-length=yes")
    found = pd.read_csv(tmp_path / "b.csv")
    assert set(found["role"]) == {"policy", "value"}


def test_several_runs_where_the_figure_takes_them(root: Path, tmp_path: Path) -> None:
    command("trajectories", "first", "second", "--runs", root, "--out", tmp_path / "a.json", "--set", "roles=policy")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["runs"] == ["first", "second"]
    assert set(found["data"]["series"]) == {"policy, first", "policy, second"}
    with pytest.raises(ConfigError, match="kl_curve cannot be drawn: it shows one run; these are 2: first, second"):
        command("kl-curve", "first", "second", "--runs", root, "--out", tmp_path / "b.pdf")
    assert not (tmp_path / "b.pdf").exists()


def test_a_comparison_stands_for_its_finished_rows(tmp_path: Path) -> None:
    shared = RunConfig(updates=2, sketch=8)
    plan = compare.plan(shared, ("rloo", "mezo", "extrapolate"), (0, 1), tmp_path / "both", warm=None)
    for row in plan.rows[:5]:
        made = Fabricated(row.folder, layers=1, k=8, updates_each=2, method=row.config.method, seed=row.seed)
        made.whole()
        content = json.loads((row.folder / "run.json").read_text())
        (row.folder / "run.json").write_text(json.dumps(content | {"config": row.config.to_mapping()}))
    compare.settle(plan)
    found = recorded.find(str(tmp_path / "both"), tmp_path)
    assert [one.path.name for one in found] == [row.folder.name for row in plan.rows[:5]]
    assert [(one.method, one.seed, one.control) for one in found[:3]] == [("rloo", 0, False), ("mezo", 0, False), ("extrapolate", 0, True)]
    assert recorded.find("both", tmp_path) == found


def test_the_page_stands_alone_and_runs_no_name(root: Path, tmp_path: Path) -> None:
    spec = recipes.make("kl_curve", [Recorded(root / "first")])
    data = spec.data.assign(series=f"</script><script>alert(1)</script>{HOSTILE}")
    evil = FigureSpec(spec.name, f"<b>{HOSTILE}", data, spec.marks, spec.x, spec.y, HOSTILE, f'" onload="alert(1) {HOSTILE}', 1, (HOSTILE,))
    for page in (figure.page(spec), figure.page(evil)):
        tags = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
        assert not re.search(r"<script[^>]*\bsrc=", page)
        assert not re.search(r"\b(?:src|href)=", tags.replace("src=x onerror", "") if "&lt;img" in tags else tags)
        assert "<img" not in tags
        assert 'onload="alert' not in tags
        assert "</script><script>alert" not in page
        assert '"showSendToCloud": false' in page
        assert "default-src 'none'" in page
        assert page.count('id="figure"') == 1
    assert figure.page(spec) == figure.page(spec)
    assert len(figure.page(spec)) > 1_000_000, "plotly.js is inside"


def test_json_gives_back_the_whole_spec(root: Path) -> None:
    spec = recipes.make("reward_curve", [Recorded(root / "first")])
    spec.data.loc[0, "y"] = np.nan
    spec.data.loc[1, "y"] = np.inf
    back = json.loads(figure.as_json(spec))
    again = pd.DataFrame(back["data"])
    expected = spec.data["y"].to_numpy(np.float32)
    np.testing.assert_array_equal(again["y"].to_numpy(np.float32), np.where(np.isfinite(expected), expected, np.nan))
    assert [Mark(**mark) for mark in back["marks"]] == list(spec.marks)
    assert (Axis(**back["x"]), Axis(**back["y"]), back["z"]) == (spec.x, spec.y, None)
    assert (back["caption"], back["runs"]) == (spec.caption, list(spec.runs))


def test_a_reader_can_prove_that_the_figure_shows_these_rows(root: Path, tmp_path: Path) -> None:
    for kind in ("csv", "png"):
        command("kl-curve", root / "first", "--out", tmp_path / f"kl.{kind}")
    about = Image.open(io.BytesIO((tmp_path / "kl.png").read_bytes())).text["Source"]
    assert hashlib.sha256((tmp_path / "kl.csv").read_bytes()).hexdigest() in about


# --- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.pdf"], "NAME is missing; `interplay figure --list`"),
        (["kl-curve", "first"], "--out is missing"),
        (["kl-curv", "first", "--out", "a.pdf"], r"figure is 'kl-curv'; did you mean 'kl_curve'\?; allowed: alignment_curve, arm_differences, arms"),
        (["kl-curve", "--out", "a.pdf"], "RUN is missing; name the run to draw"),
        (["trajectories", "--out", "a.pdf"], "RUN is missing; name the runs to draw"),
        (["kl-curve", "first", "--out", "a.pfd"], r"--out is 'a.pfd'; its suffix must be one of .*\.pdf.*; did you mean 'pdf'\?"),
        (["kl-curve", "first", "--out", "a"], "its suffix must be one of"),
        (["kl-curve", "first", "--out", "a.pdf", "--venue", "nuerips"], r"venue is 'nuerips'; did you mean 'neurips'\?"),
        (["kl-curve", "first", "--out", "a.pdf", "--width", "page"], "width is 'page'.*allowed: column, text"),
        (["kl-curve", "first", "--out", "a.pdf", "--height", "nan"], "--height is nan; it must be between 0.5 and 20 inches"),
        (["kl-curve", "first", "--out", "a.pdf", "--set", "y=tokens"], "kl_curve has no setting 'y'.*allowed: smoothing, x, y_scale"),
        (["kl-curve", "first", "--out", "a.pdf", "--set", "x=token"], r"x is 'token'; did you mean 'tokens'\?; allowed: forwards, seconds, tokens, update"),
        (["kl-curve", "first", "--out", "a.pdf", "--set", "x"], "--set is 'x'; write KEY=VALUE"),
        (["trajectories", "first", "--out", "a.pdf", "--set", "components=two"], "components is 'two'; it must be of type int"),
        (["trajectories", "first", "--out", "a.pdf", "--set", "components=7"], "components is '7'.*allowed: 2, 3"),
        (["trajectories", "first", "--out", "a.pdf", "--set", "same_length=maybe"], "same_length is 'maybe'; it must be of type bool"),
        (["trajectories", "first", "--out", "a.pdf", "--set", "roles=policy,critic"], "roles is 'critic'.*allowed: policy, reward, value"),
        (["arms", "first", "--out", "a.pdf"], "arms cannot be drawn: these runs recorded no held-out completions"),
        (["arms", "first", "first", "--out", "a.pdf"], "arms cannot be drawn: these runs recorded no held-out completions"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_no_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as refused:
        command(*words, "--runs", root)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_is_named_with_the_nearest(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run is 'frist', but there is no such run in .*; did you mean 'first'\?"):
        command("kl-curve", "frist", "--runs", root, "--out", tmp_path / "a.pdf")


def test_a_run_without_rows_says_so(tmp_path: Path) -> None:
    empty = Fabricated(tmp_path / "empty", layers=1, k=8)
    empty.store.close("finished")
    for name, reason in (("kl-curve", "nothing to draw"), ("norm-heatmap", "nothing to draw"), ("trajectories", "recorded no directions")):
        with pytest.raises(ConfigError, match=reason):
            command(name, tmp_path / "empty", "--out", tmp_path / "a.pdf")


def test_a_folder_that_is_not_there_or_is_a_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").mkdir()
    for out in (tmp_path / "none" / "a.pdf", tmp_path / "a.pdf"):
        with pytest.raises(StoreError, match="cannot take the figure"):
            command("kl-curve", root / "first", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


def test_damage_is_told_and_the_rest_is_drawn(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Fabricated(tmp_path / "hurt", layers=1, k=8, updates_each=3).whole()
    part = next((run / "completions").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-9])
    assert command("kl-curve", run, "--out", tmp_path / "a.csv") == 0
    assert re.search(rf"^note: completions/{part.name}: damaged", capsys.readouterr().err)


# --- adding one ------------------------------------------------------------------------------------


def test_a_new_figure_is_one_function(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", figures.FIGURES)
    monkeypatch.setitem(figures.FIGURES, "losses", losses)
    command("losses", root / "first", "--out", tmp_path / "a.csv", "--set", "role=reward", "--set", "smooth=0.5", "--set", "names=loss, accuracy")
    found = pd.read_csv(tmp_path / "a.csv")
    assert set(found["series"]) == {"loss", "accuracy"}
    assert set(recipes.settings("losses")) == {"role", "smooth", "names"}


def losses(metrics: pd.DataFrame, role: str, *, run: str, smooth: float = 0.0, names: Sequence[str] = ("loss",)) -> FigureSpec:
    """What each role minimised."""
    rows = metrics[(metrics["role"] == role) & metrics["name"].isin(list(names))]
    data: Any = pd.DataFrame({"layer": "a", "series": rows["name"].astype(str), "x": rows["update"], "y": rows["value"] * (1 - smooth)})
    return FigureSpec("losses", "Losses", data, (Mark("line", "a"),), Axis("x", "update"), Axis("y", "loss"), "c", "a", len(data), (run,))


def test_two_runs_of_one_method_and_seed_are_no_comparison(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "first", tmp_path / "again")
    with pytest.raises(ConfigError, match="two of these runs are of rloo with seed 0"):
        command("arms", root / "first", tmp_path / "again", "--out", tmp_path / "a.pdf")
