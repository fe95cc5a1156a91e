"""Figures as files: JSON that comes back, the size of the venue, letters that stay letters, the same bytes again, and the command that made them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_figures_twice import CASES, Full, build, runs
from test_paper import curve, page_inches, unpacked

from analysis import paper, spec_json, venues
from app.commands import figure
from app.export import export, inside
from app.export.export import Panel, Size
from app.reading.recorded import Recorded
from interplay.errors import ConfigError, DataError, StoreError
from tests.exporting import command, inside_of, redrawn, root
from tests.fabricate import Fabricated

__all__ = ["root", "runs"]  # the fixtures


def panels(root: Path) -> list[Panel]:
    first, second = Recorded(root / "first"), Recorded(root / "second")
    return [
        export.panel("kl_curve", [first], {}),
        export.panel("trajectories", [first, second], {"roles": ("policy",)}, "text", 2.5),
        export.panel("norm_heatmap", [first], {"role": "reward", "rows": "kind"}),
    ]


@pytest.fixture(scope="module")
def zipped(root: Path) -> bytes:
    return export.bundle(panels(root), Size("icml"))


# --- JSON and back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "chosen"), CASES, ids=["-".join(map(str, (name, *chosen.values()))) for name, chosen in CASES])
def test_a_figure_read_back_is_the_same(runs: list[Full], name: str, chosen: dict[str, Any]) -> None:
    spec = build(name, runs, **chosen)
    back = spec_json.loads(figure.as_json(spec))
    assert (paper.csv(back), paper.table(back), paper.about(back)) == (paper.csv(spec), paper.table(spec), paper.about(spec))
    assert replace(back, data=spec.data) == replace(spec, data=spec.data)
    if not spec.empty:
        assert paper.render(back, "svg") == paper.render(spec, "svg")


def test_every_kind_of_cell_comes_back() -> None:
    spec = curve(5)
    cells: dict[str, Any] = {
        "small": np.array([0.1, np.nan, np.inf, -np.inf, 3], np.float32),
        "large": np.array([0.1, np.nan, np.inf, 1e300, 5e-324]),
        "whole": np.array([1, 2, 3, 4, 2**62]),
        "yes": np.array([True, False, True, False, True]),
        "words": pd.Categorical(["a", "b", None, "=x", "ü"]),
        "mixed": pd.Series([1, "x", None, np.float32(0.1), True], dtype=object),
    }
    spec = replace(spec, data=spec.data.assign(**cells))
    text = figure.as_json(spec)
    back = spec_json.loads(text).data
    for name in ("small", "large", "whole", "yes"):
        assert back[name].dtype == cells[name].dtype
        np.testing.assert_array_equal(back[name].to_numpy(), cells[name])
    assert back["words"].tolist() == ["a", "b", None, "=x", "ü"]
    assert back["mixed"].tolist() == [1, "x", None, 0.1, True]
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize("spoilt", ["", "[]", "{}", "null", "1", "[" * 10_000])
def test_what_is_no_figure_is_refused(spoilt: str) -> None:
    with pytest.raises(DataError, match="not the JSON of a figure"):
        spec_json.loads(spoilt)


@pytest.mark.parametrize(
    "change",
    [
        {"marks": [{"kind": "pie", "layer": "a"}]},
        {"x": {"column": "x", "label": "x", "scale": "cubic"}},
        {"types": {"y": "object"}},
        {"infinite": {"y": [[99, True]]}},
        {"data": {"x": [1]}},
        {"runs": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_spoilt_figure_is_refused(change: dict[str, Any]) -> None:
    raw = json.loads(figure.as_json(curve(3)))
    with pytest.raises(DataError, match="not the JSON of a figure"):
        spec_json.loads(json.dumps(raw | change))


def test_the_hash_of_the_whole_follows_what_is_shown_and_not_where_it_comes_from() -> None:
    spec = curve()
    hashes = {re.search("spec sha256 ([0-9a-f]{64})", paper.about(one))[1] for one in (spec, replace(spec, origin="command x"))}  # type: ignore[index]
    assert len(hashes) == 1
    others = [replace(spec, caption="B"), replace(spec, x=replace(spec.x, scale="log")), replace(spec, data=spec.data.assign(y=1.0)), replace(spec, marks=())]
    for other in others:
        assert re.search("spec sha256 ([0-9a-f]{64})", paper.about(other))[1] not in hashes  # type: ignore[index]


# --- on paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", venues.VENUES)
def test_a_pdf_has_the_width_of_its_venue_and_letters_that_stay_letters(root: Path, venue: str) -> None:
    one = export.panel("kl_curve", [Recorded(root / "first")], {})
    for width in venues.WIDTHS:
        made = export.content(one, "pdf", Size(venue, width))
        wide, _ = page_inches(made)
        assert wide == pytest.approx(venues.find(venue).inches(width), rel=0.005)
        assert b"/Type3" not in unpacked(made)
        assert b"/FontFile2" in unpacked(made)
        drawn = inside.text_of("a.pdf", re.sub(rb"/(Title|Subject|Keywords) \(.*?[^\\]\)", b"", made, flags=re.DOTALL))
        assert "policy update" in drawn
        assert "KL (nats)" in drawn.replace("\\", "")
        assert one.spec.title not in drawn
        assert not re.search("/CreationDate|/ModDate", drawn)


def test_a_figure_may_have_a_width_and_a_height_of_its_own(root: Path) -> None:
    files = inside_of(export.bundle(panels(root), Size("icml", "column", 1.5)))
    sizes = {name.split("/")[1]: page_inches(content) for name, content in files.items() if name.endswith(".pdf")}
    assert sizes["kl-curve-first.pdf"] == pytest.approx((3.25, 1.5), rel=0.005)
    assert sizes["trajectories.pdf"] == pytest.approx((6.75, 2.5), rel=0.005)


def test_the_origin_leads_back_to_commit_and_command(root: Path) -> None:
    one = export.panel("norm_heatmap", [Recorded(root / "first")], {"role": "reward", "rows": "layer"})
    assert one.spec.origin == "commit 5c9e102fddc615fb49a16803d3c25d09c141aa28; command interplay figure norm-heatmap first --runs . --set role=reward"
    for kind in ("pdf", "svg", "png", "html", "tex", "json"):
        assert inside.about(f"a.{kind}", export.content(one, kind, Size())) == paper.about(one.spec)
    assert paper.about(one.spec).endswith(one.spec.origin)


def test_names_that_no_file_may_run_are_only_names(root: Path, tmp_path: Path) -> None:
    evil = Fabricated(tmp_path / "=1+cmd|' $(x)` (a) \\input{b} ü", layers=1, k=8, updates_each=2).whole()
    one = export.panel("trajectories", [Recorded(evil), Recorded(root / "first")], {"roles": ("policy",)})
    spec = replace(one.spec, data=one.spec.data.assign(series="=1+1"))
    files = inside_of(export.bundle([replace(one, spec=spec)], Size()))
    assert b"\n'=1+1," in files["figures/trajectories.csv"]
    assert b"\n=1" not in files["figures/trajectories.csv"]
    assert all(re.fullmatch(r"figures/[A-Za-z0-9-]+\.[a-z]+", name) for name in files)
    for kind in ("pdf", "svg", "png", "html", "tex", "json"):
        assert inside.about(f"a.{kind}", files[f"figures/trajectories.{kind}"]) == paper.about(spec)


# --- the zip ---------------------------------------------------------------------------------------


def test_a_zip_holds_each_figure_in_all_formats_and_what_explains_them(root: Path, zipped: bytes) -> None:
    files = inside_of(zipped)
    stems = ("kl-curve-first", "norm-heatmap-first", "trajectories")
    assert set(files) == {f"figures/{stem}.{kind}" for stem in stems for kind in figure.FORMATS} | {
        f"figures/{name}" for name in ("README.txt", "manifest.json", "redraw.py")
    }
    assert list(files) == sorted(files)
    readme = files["figures/README.txt"].decode()
    for one in panels(root):
        assert " ".join(one.spec.caption.split()) in " ".join(readme.split())
        assert f"n = {one.spec.n}. Runs: {', '.join(one.spec.runs)}." in " ".join(readme.split())
    assert "interplay figure norm-heatmap first --runs . --set role=reward --set rows=kind --venue icml --width column --out norm-heatmap-first.pdf" in readme
    assert str(root) not in readme


def test_two_figures_of_one_name_get_two_names(root: Path) -> None:
    first = Recorded(root / "first")
    files = inside_of(export.bundle([export.panel("kl_curve", [first], {}), export.panel("kl_curve", [first], {"x": "tokens"})], Size()))
    assert {"figures/kl-curve-first.pdf", "figures/kl-curve-first-2.pdf"} <= set(files)


def test_the_same_runs_give_the_same_bytes(root: Path, zipped: bytes) -> None:
    assert export.bundle(panels(root), Size("icml")) == zipped
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Elsewhere, on another day, with another order of hashes."""
    found = set()
    for seed, zone, away in (("1", "UTC", root.parent), ("2", "Asia/Tokyo", tmp_path)):
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(Path(__file__).parents[1])}
        out = tmp_path / f"{seed}.zip"
        words = ["figure", "trajectories", "first", "second", "--runs", str(root), "--venue", "icml", "--out", str(out)]
        code = f"import sys; from app.cli import main; sys.exit(main({words!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=away, timeout=120)
        assert done.returncode == 0, done.stderr
        found.add(out.read_bytes())
    assert len(found) == 1


@pytest.fixture
def unzipped(zipped: bytes, tmp_path: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "figures"


def test_the_script_in_the_zip_redraws_the_same_bytes(unzipped: Path) -> None:
    done = redrawn(unzipped)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bytes") == 9
    for name in ("kl-curve-first.pdf", "trajectories.svg", "norm-heatmap-first.png"):
        assert (unzipped / "redrawn" / name).read_bytes() == (unzipped / name).read_bytes()


def test_the_script_says_when_a_figure_was_changed(unzipped: Path) -> None:
    path = unzipped / "kl-curve-first.json"
    path.write_text(path.read_text().replace('"KL"', '"divergence"'))
    done = redrawn(unzipped)
    assert done.returncode == 1
    assert "kl-curve-first.pdf: other bytes" in done.stdout
    assert "trajectories.pdf: the same bytes" in done.stdout
    assert "the .json or the files were changed" in done.stdout
    assert "divergence" in inside.text_of("a.pdf", (unzipped / "redrawn" / "kl-curve-first.pdf").read_bytes())


def test_a_manifest_cannot_write_elsewhere(unzipped: Path) -> None:
    raw = json.loads((unzipped / "manifest.json").read_text())
    raw["figures"] = [raw["figures"][0] | {"file": "../kl-curve-first"}]
    (unzipped / "manifest.json").write_text(json.dumps(raw))
    assert redrawn(unzipped).returncode == 0
    assert [path.name for path in unzipped.parent.iterdir()] == ["figures"]


# --- by the command --------------------------------------------------------------------------------


def test_the_command_writes_the_same_zip_and_makes_it_again_from_its_manifest(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("kl-curve", "first", "--runs", root, "--venue", "aaai", "--out", tmp_path / "a.zip", "--set", "x=tokens") == 0
    made = (tmp_path / "a.zip").read_bytes()
    assert made == export.bundle([export.panel("kl_curve", [Recorded(root / "first")], {"x": "tokens"})], Size("aaai"))
    (tmp_path / "manifest.json").write_bytes(inside_of(made)["figures/manifest.json"])
    assert command("--basket", tmp_path / "manifest.json", "--runs", root, "--out", tmp_path / "b.zip") == 0
    assert (tmp_path / "b.zip").read_bytes() == made
    assert (
        command("--basket", tmp_path / "manifest.json", "--runs", root, "--out", tmp_path / "c.zip", "--venue", "icml", "--width", "text", "--height", "2") == 0
    )
    assert page_inches(inside_of((tmp_path / "c.zip").read_bytes())["figures/kl-curve-first.pdf"]) == pytest.approx((6.75, 2), rel=0.005)
    assert "KL from the reference" in capsys.readouterr().out


def test_the_commands_of_the_readme_draw_the_files_beside_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from app import cli

    files = inside_of(export.bundle(panels(root), Size("tmlr")))
    monkeypatch.chdir(root)
    typed = [shlex.split(line) for line in files["figures/README.txt"].decode().splitlines() if line.strip().startswith("interplay figure") and "--out" in line]
    typed = [words for words in typed if "--basket" not in words]
    assert len(typed) == 3
    for words in typed:
        assert cli.main([*words[1:-1], str(tmp_path / words[-1])]) == 0
        assert (tmp_path / words[-1]).read_bytes() == files[f"figures/{words[-1]}"]


def test_a_file_says_what_it_shows(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("kl-curve", "first", "--runs", root, "--out", tmp_path / "a.pdf")
    capsys.readouterr()
    assert command("--about", tmp_path / "a.pdf") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["figure kl_curve", "runs first"]
    assert lines[-3:-1] == ["commit 5c9e102fddc615fb49a16803d3c25d09c141aa28", "command interplay figure kl-curve first --runs ."]
    for name, content in (("b.pdf", b"%PDF-1.4\nnothing"), ("b.png", b"\x89PNG\r\n\x1a\n"), ("b.json", b"[]"), ("b.gif", b"GIF"), ("b.svg", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} does not say which runs it shows"):
            command("--about", tmp_path / name)
    with pytest.raises(StoreError, match="cannot be read"):
        command("--about", tmp_path / "none.pdf")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--basket", "m.json", "kl-curve", "--out", "a.zip"], "leave out NAME, RUN and --set"),
        (["--basket", "m.json", "--out", "a.pdf"], r"its suffix must be one of \.zip"),
        (["--basket", "m.json", "--out", "a.zip"], "lists no figures"),
        (["kl-curve", "first", "--out", "a.zip", "--width", "page"], "width is 'page'"),
    ],
)
def test_a_wrong_command_is_one_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        command(*words, "--runs", root)
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
