"""Figures as files: the size of the venue, letters that stay letters, the same bytes again, nothing that tells who made them, and a basket that lasts."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from test_figures_twice import CASES, Full, build, runs
from test_paper import curve, page_inches, unpacked

from analysis import paper, recipes, spec_json, venues
from app.commands import figure
from app.export import anonymous, export, inside, wanted
from app.export.export import Panel, Size
from app.export.wanted import Item
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay import compare
from interplay.config import Parser, RunConfig
from interplay.errors import ConfigError, DataError, StoreError
from tests.fabricate import Fabricated
from tests.pages import Show, ran

__all__ = ["runs"]  # the fixture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export") / "runs"
    Fabricated(root / "first", layers=2, k=8, updates_each=3).whole()
    Fabricated(root / "second", layers=2, k=8, updates_each=3, seed=1).whole()
    for name in ("first", "second"):
        edit(root / name / "run.json", commit="5c9e102fddc615fb49a16803d3c25d09c141aa28")
    return root


@pytest.fixture
def shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERPLAY_RUNS", str(root))
    return root


def edit(path: Path, **what: Any) -> None:
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, **what}))


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


def inside_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def command(*words: object) -> int:
    parser = Parser(prog="interplay figure")
    figure.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    return int(arguments.run(arguments))


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


def redrawn(folder: Path) -> subprocess.CompletedProcess[str]:
    """By the script in the zip, in a process that knows only where Interplay is installed."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "redraw.py"], capture_output=True, text=True, cwd=folder, env=env, timeout=120)


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
    assert lines[-2:] == ["commit 5c9e102fddc615fb49a16803d3c25d09c141aa28", "command interplay figure kl-curve first --runs ."]
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


# --- nobody's figures ------------------------------------------------------------------------------

#: Put together here, so that no file of the project holds the path of a machine.
HOMES = "/" + "home/"
SECRETS = ("alice", "smith", "gpu17", "hf_" + "a" * 30, HOMES, "/scratch/team7", "lab.example", "alicelab", "s3cr3t-value", "5c9e102fddc615fb")


@pytest.fixture
def personal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Two runs that tell much about who made them, in a checkout that does so too."""
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu17.lab.example")
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t-value")
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    (work / ".git" / "config").write_text(
        '[remote "origin"]\n\turl = git@github.com:alicelab/secret.git\n[user]\n\tname = Alice Smith\n\temail = al@lab.example\n'
    )
    monkeypatch.chdir(work)
    found = []
    for number, name in enumerate(("alice-ppo", "Smith_gpu17 s3cr3t-value")):
        made = Fabricated(work / name, layers=1, k=8, updates_each=3, seed=number).whole()
        config = json.loads((made / "run.json").read_text())["config"] | {"out": "/scratch/team7/runs", "model": f"{HOMES}alice/models/x"}
        told = {"notes": [f"token {SECRETS[3]}"], "machine": {"host": "gpu17.lab.example"}, "command": [f"{HOMES}alice/bin/interplay", "train"]}
        edit(made / "run.json", config=config, commit="5c9e102fddc615fb49a16803d3c25d09c141aa28", **told)
        found.append(Recorded(made))
    return found


def readable(name: str, content: bytes) -> str:
    """All texts, by a way of its own: PDF through pieces, UTF-16 by leaving out its zeros."""
    raw = unpacked(content) if name.endswith(".pdf") else content
    if name.endswith(".html"):
        from plotly.offline import get_plotlyjs

        raw = raw.replace(get_plotlyjs().encode(), b"")
    joined = re.sub(rb"\) ?-?[\d.]+ ?\(", b"", raw)
    return (name + raw.decode("latin-1") + joined.decode("latin-1") + raw.replace(b"\0", b"").decode("latin-1")).lower()


def tells(files: dict[str, bytes]) -> dict[str, list[str]]:
    texts = {name: readable(name, content) for name, content in files.items()}
    return {secret: [name for name, text in texts.items() if secret in text] for secret in SECRETS}


def test_an_anonymous_zip_tells_nothing_and_proves_it(personal: list[Recorded]) -> None:
    spec = export.panel("trajectories", personal, {"roles": ("policy",)})
    told = replace(spec.spec, caption=f"Read from /scratch/team7/runs/x with {SECRETS[3]} by al@lab.example, see https://github.com/alicelab/secret.")
    both = [replace(spec, spec=told), export.panel("kl_curve", personal[:1], {})]
    open_files = inside_of(export.made(both, "zip", Size("icml")))
    assert all(tells(open_files)[secret] for secret in ("alice", "smith", "gpu17", "/scratch/team7", "s3cr3t-value", "5c9e102fddc615fb"))
    files = inside_of(export.made(both, "zip", Size("icml"), personal))
    assert {secret: names for secret, names in tells(files).items() if names} == {}
    report = files["figures/anonymity.txt"].decode()
    assert re.findall(r": (\d+) files; (\d+) known", report)
    assert {count for count, _ in re.findall(r": (\d+) files; (\d+) known", report)} == {"0"}
    for kind in ("access tokens", "addresses of repositories", "e-mail addresses", "paths of machines", "host names", "user names"):
        assert re.search(rf"  {kind}: 0 files; [1-9]\d* known", report), report
    series = set(pd.read_csv(io.BytesIO(files["figures/trajectories.csv"]))["series"])
    assert len(series) == 2, "two runs stay two"
    assert json.loads(files["figures/manifest.json"])["anonymous"] is True
    for kind in ("pdf", "svg", "png", "html", "tex", "json"):
        assert "spec sha256" in inside.about(f"a.{kind}", files[f"figures/trajectories.{kind}"])


def test_an_anonymous_zip_draws_itself_again(personal: list[Recorded], tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(export.made([export.panel("trajectories", personal, {})], "zip", Size(), personal))) as archive:
        archive.extractall(tmp_path / "out")
    done = redrawn(tmp_path / "out" / "figures")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [*figure.FORMATS, "zip"])
def test_each_format_can_be_anonymous(personal: list[Recorded], tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"a.{kind}"
    assert command("kl-curve", personal[0].path, "--anonymous", "--out", out) == 0
    files = inside_of(out.read_bytes()) if kind == "zip" else {out.name: out.read_bytes()}
    assert {secret: names for secret, names in tells(files).items() if names} == {}


def test_what_still_tells_is_refused(personal: list[Recorded]) -> None:
    clues = anonymous.clues(personal)
    for content in (
        b"by Alice.",
        b"at gpu17",
        f"in {HOMES}bob/x".encode(),
        b"C:\\\\Users\\\\bob",
        b"mail to x@y.org",
        b"key " + SECRETS[3].encode(),
        b"https://github.com/a/b",
    ):
        with pytest.raises(ConfigError, match=r"--anonymous: a\.txt still holds one of the"):
            export.proof({"b.txt": b"fine", "a.txt": content}, clues)
    assert "0 files" in export.proof({"a.txt": b"malice in gpu170, an alicelike word, and 5 @ 3"}, clues)
    with pytest.raises(ConfigError, match="still holds one of the user names"):
        export.proof({"alice.txt": b""}, clues)


def test_a_name_of_nobody_hides_no_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    run = Recorded(root / "first")
    one = export.panel("kl_curve", [run], {})
    assert anonymous.Hiding(anonymous.clues([run])).text(one.spec.caption) == one.spec.caption


def test_texts_inside_are_found_in_every_format() -> None:
    spec = curve(series="Zoë", runs=("Zoë",), alt="by Zoë")
    spec = replace(spec, data=pd.concat([spec.data, spec.data.assign(series="other")]))
    for kind in figure.FORMATS:
        assert "Zoë" in inside.text_of(f"a.{kind}", figure.content(spec, kind)), kind


# --- runs by name, and the basket in a link --------------------------------------------------------


def test_a_basket_survives_a_link(shown: Path) -> None:
    items = [
        Item.of("kl_curve", [Recorded(shown / "first")], {"x": "tokens"}),
        replace(
            Item.of("trajectories", [Recorded(shown / "first"), Recorded(shown / "second")], {"roles": ["policy"], "components": 3}), width="text", height=2.5
        ),
    ]
    link = wanted.encode(items)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", link)
    back, notes = wanted.decode(link)
    assert (back, notes) == (items, [])
    assert [(one.width, one.height) for one in back] == [("", 0.0), ("text", 2.5)]
    assert back[1].chosen() == {"roles": ("policy",), "components": 3}
    assert str(shown) not in json.dumps([one.to_json() for one in items])


def test_what_the_figure_would_choose_itself_is_not_written_down(shown: Path) -> None:
    plain = Item.of("norm_heatmap", [Recorded(shown / "first")], {})
    assert Item.of("norm_heatmap", [Recorded(shown / "first")], {"rows": "layer", "space": "factor", "role": "policy"}) == plain
    assert plain.settings == ()


def packed(raw: Any) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(raw).encode())).decode().rstrip("=")


ENTRY = {"figure": "kl_curve", "runs": ["first"], "settings": {}}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({**ENTRY, "runs": ["../runs/first"]}, "there is no run"),
        ({**ENTRY, "runs": ["/etc"]}, "there is no run"),
        ({**ENTRY, "runs": ["first/../second"]}, "there is no run"),
        ({**ENTRY, "runs": ["frist"]}, "did you mean 'first'"),
        ({**ENTRY, "runs": ["a\0b"]}, "there is no run"),
        ({**ENTRY, "runs": "first"}, "has not the form of a figure"),
        ({**ENTRY, "figure": "kl_curv"}, "did you mean 'kl_curve'"),
        ({**ENTRY, "figure": ["x"]}, "figure is"),
        ({**ENTRY, "settings": {"y": "1"}}, "has no setting 'y'"),
        ({**ENTRY, "settings": {"x": "tokns"}}, "did you mean 'tokens'"),
        ({**ENTRY, "settings": [1]}, "has not the form of a figure"),
        ({**ENTRY, "width": "page"}, "width is 'page'"),
        ({**ENTRY, "height": 99}, "height is 99"),
        ({**ENTRY, "height": True}, "height is True"),
        ({**ENTRY, "height": float("nan")}, "height is nan"),
        ("kl_curve", "has not the form of a figure"),
        (None, "has not the form of a figure"),
    ],
)
def test_what_a_link_may_not_name_is_left_out_with_its_reason(shown: Path, entry: Any, why: str) -> None:
    found, notes = wanted.decode(packed([entry, ENTRY]))
    assert [one.figure for one in found] == ["kl_curve"]
    assert len(notes) == 1
    assert why in notes[0]


@pytest.mark.parametrize("link", ["x", "!!", "é", packed({}), packed("a"), base64.urlsafe_b64encode(b"not packed").decode(), packed(["x" * 2**19])])
def test_a_damaged_link_is_an_empty_basket(shown: Path, link: str) -> None:
    assert wanted.decode(link) == ([], ["The basket in the link is damaged and was left out."])


def test_a_basket_has_an_end(shown: Path) -> None:
    found, notes = wanted.decode(packed([ENTRY] * 100))
    assert len(found) == wanted.MOST
    assert "the link has 100" in notes[0]


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        Fabricated(tmp_path / folder / "same", layers=1, k=8, updates_each=2).whole()
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(str(tmp_path / folder) for folder in ("one", "two")))
    names = [wanted.name_of(tmp_path / folder / "same") for folder in ("one", "two")]
    assert names == ["same", "two/same"]
    assert [wanted.look_up(name).path for name in names] == [tmp_path / folder / "same" for folder in ("one", "two")]


def test_a_link_out_of_the_folder_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Fabricated(tmp_path / "outside", layers=1, k=8, updates_each=2).whole()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "in").symlink_to(outside)
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "runs"))
    with pytest.raises(StoreError, match="there is no run 'in'"):
        wanted.look_up("in")


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison of two arms of one method, and of a control."""
    folder = tmp_path / "runs" / "both"
    plan = compare.plan(RunConfig(updates=2, sketch=8), ("rloo", "rloo:clip-norm=2", "extrapolate"), (0, 1), folder, warm=None)
    for row in plan.rows[:5]:
        Fabricated(row.folder, layers=1, k=8, updates_each=2, method=row.config.method, seed=row.seed).whole()
        edit(row.folder / "run.json", config=row.config.to_mapping())
    compare.settle(plan)
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "runs"))
    return folder


def test_rows_of_a_comparison_keep_their_arms(compared: Path) -> None:
    rows = recorded.of_comparison(compared)
    item = Item.of("starts", rows, {})
    assert item.runs[0] == "both/rloo-s0"
    assert item.recordings() == rows
    assert {one.method for one in item.recordings()} == {"rloo", "rloo:clip-norm=2", "extrapolate"}
    assert wanted.expand("both") == rows
    assert wanted.expand("both/rloo-s0") == rows[:1]
    assert wanted.choices(many=True)[0] == "both"
    assert wanted.choices(many=False)[0] == "both/rloo-s0"
    assert export.run_words(rows) == ["both"]
    assert export.run_words(rows[:2]) == ["both/rloo-s0", f"both/{rows[1].run}"]
    assert [one for word in export.run_words(rows[:2]) for one in recorded.find(word, compared.parent)] == rows[:2]


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture
def page(show: Show) -> Show:
    """The page with these figures in its basket."""
    return lambda *items, **link: show("export", **({"basket": wanted.encode(items)} if items else {}), **link)


def texts(app: AppTest) -> str:
    found = [element.value for kind in (app.text, app.caption, app.warning, app.error, app.markdown) for element in kind]
    return "\n".join(found).replace("\\", "")


def basket_of(app: AppTest) -> list[Item]:
    link = app.query_params.get("basket", "")
    return wanted.decode(link if isinstance(link, str) else link[0])[0] if link else []


def kl(shown: Path, **settings: Any) -> Item:
    return Item.of("kl_curve", [Recorded(shown / "first")], settings)


def click(app: AppTest, start: str) -> AppTest:
    return ran(next(button for button in app.button if (button.key or "").startswith(start)).click())


def test_an_empty_basket_says_how_to_fill_it(shown: Path, page: Show) -> None:
    app = page()
    assert "The basket is empty" in texts(app)
    assert not app.get("download_button")


def test_the_page_opens_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Show) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    assert "The basket is empty" in texts(page())


def test_a_link_shows_its_figures_at_their_size(shown: Path, page: Show) -> None:
    app = page(kl(shown), replace(kl(shown, x="tokens"), width="text"), venue="ICML")
    assert len(app.get("image")) == 2
    assert "2 figures" in texts(app)
    assert "icml2025.sty" in texts(app)
    assert len(app.get("download_button")) == 2 * len(figure.FORMATS) + 1


def test_figures_are_moved_removed_and_the_link_follows(shown: Path, page: Show) -> None:
    first, second = kl(shown), Item.of("gold_curve", [Recorded(shown / "second")], {})
    app = page(first, second)
    assert basket_of(app) == [first, second]
    assert basket_of(click(app, "down-")) == [second, first]
    assert basket_of(click(app, "remove-")) == [first]
    assert basket_of(click(app, "clear")) == []
    assert "basket" not in app.query_params


def test_settings_are_changed_on_the_page_and_kept_in_the_link(shown: Path, page: Show) -> None:
    app = page(kl(shown))
    box = next(box for box in app.selectbox if (box.key or "").startswith("set-") and box.key.endswith("-x"))
    box.set_value("tokens").run()
    assert basket_of(app) == [kl(shown, x="tokens")]
    width = next(box for box in app.selectbox if (box.key or "").startswith("width-"))
    width.set_value("text").run()
    assert basket_of(app)[0].width == "text"
    box = next(box for box in app.selectbox if (box.key or "").startswith("set-") and box.key.endswith("-x"))
    box.set_value("update").run()
    assert basket_of(app) == [kl(shown)]
    assert basket_of(page(*basket_of(app))) == [kl(shown)]


def test_a_wrong_setting_is_refused_and_the_old_one_stays(shown: Path, page: Show) -> None:
    item = Item.of("trajectories", [Recorded(shown / "first")], {})
    app = page(item)
    texts_of = {box.key.split("-")[-1]: box for box in app.text_input if (box.key or "").startswith("set-")}
    number = next((name for name, one in recipes.settings("trajectories").items() if name in texts_of and one.kind in (int, float)), None)
    if number is None:
        pytest.skip("this figure has no free number")
    texts_of[number].set_value("many").run()
    assert "must be of type" in texts(app)
    assert basket_of(app) == [item]


def test_a_figure_is_added_on_the_page(shown: Path, page: Show) -> None:
    app = page(figure="kl-curve")
    app.selectbox(key="of-run").set_value("second").run()
    click(app, "add")
    assert basket_of(app) == [Item.of("kl_curve", [Recorded(shown / "second")], {})]
    click(app, "add")
    assert "in the basket already" in texts(app)
    app.selectbox(key="figure").set_value("trajectories").run()
    app.multiselect(key="of").set_value(["first", "second"]).run()
    click(app, "add")
    assert [one.runs for one in basket_of(app)] == [("second",), ("first", "second")]


def test_a_comparison_is_added_as_its_finished_rows(compared: Path, page: Show) -> None:
    app = page(figure="starts")
    app.multiselect(key="of").set_value(["both"]).run()
    click(app, "add")
    assert len(basket_of(app)[0].runs) == 5


def test_what_cannot_be_drawn_says_why_and_the_rest_is_exported(shown: Path, page: Show) -> None:
    several = Item("kl_curve", ("first", "second"))
    app = page(several, kl(shown))
    assert "it shows one run; these are 2" in texts(app)
    assert "1 of the figures cannot be drawn" in texts(app)
    assert len(app.get("download_button")) == len(figure.FORMATS) + 1


def test_an_unknown_run_in_the_link_is_told(shown: Path, page: Show) -> None:
    app = page(Item("kl_curve", ("gone",)), kl(shown))
    assert "Figure 1 of the link was left out: there is no run 'gone' here" in texts(app)
    assert basket_of(app) == [kl(shown)]


@pytest.mark.parametrize("value", ["-1", "abc", "<script>", "99999", ""])
def test_nonsense_in_the_url_is_ignored(shown: Path, page: Show, value: str) -> None:
    page(kl(shown), venue=value, width=value, height=value, figure=value, of=value, anonymous=value)


def test_an_anonymous_page_says_what_is_searched_for_and_no_name(shown: Path, page: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    app = page(kl(shown), anonymous="true")
    assert "Hidden and searched for" in texts(app)
    assert "alice" not in texts(app)


@pytest.mark.parametrize("odd", ["running", "failed", "nan", "hostile"])
def test_odd_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Show, odd: str) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    name = "![x](evil.example) <b>$x$" if odd == "hostile" else odd
    made = Fabricated(tmp_path / name, layers=1, k=8, updates_each=4, bad_numbers=odd == "nan")
    if odd in ("running", "failed"):
        made.step("policy", 1, 3)
        made.store.flush()
        made.store.close("failed") if odd == "failed" else None
    else:
        made.whole()
    item = Item.of("reward_curve", [Recorded(made.path)], {})
    app = page(item, Item.of("norm_heatmap", [Recorded(made.path)], {}))
    assert len(app.get("image")) == 2
    assert basket_of(app)[0] == item
    for element in [*app.markdown, *app.caption, *app.warning]:
        assert "](" not in element.value
    export.made([export.wanted(item, item.recordings())], "zip", Size())


def test_a_figure_of_any_page_goes_into_the_basket_and_out_again(shown: Path) -> None:
    def script() -> None:
        import streamlit as st

        from app.export import basket, wanted
        from app.reading import recorded

        basket.offer(basket.Item.of("kl_curve", [wanted.look_up("first")], {"x": "tokens"}), "here")
        st.text(f"{len(basket.items())} inside, {recorded.__name__}")

    app = AppTest.from_function(script, default_timeout=60).run()
    assert "0 inside" in app.text[0].value
    app.button(key="basket-here").click().run()
    assert "1 inside" in app.text[0].value
    assert app.button(key="basket-here").label == "In the basket (1)"
    app.button(key="basket-here").click().run()
    assert "0 inside" in app.text[0].value
