"""From the file of a figure back to its runs: every format, every outcome, files that nobody should trust, the command, and the page."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from analysis import paper, recipes
from app.export import anonymous, back, export, inside, lines, wanted
from app.export.back import Finding, Here, Origin
from app.export.export import Size
from app.export.lines import Line
from app.export.wanted import Item
from app.interplay import address
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay import compare
from interplay.config import RunConfig
from interplay.errors import DataError, StoreError
from tests.exporting import command, edit, inside_of, root, shown
from tests.fabricate import HOSTILE, Fabricated
from tests.pages import PAGES, Show, ran

__all__ = ["root", "shown"]  # the fixtures

KL = {"x": "tokens"}


def file_of(run: Path, kind: str, name: str = "kl_curve", **settings: Any) -> bytes:
    return export.made([export.panel(name, [Recorded(run)], settings)], kind, Size())


def origin_of(run: Path, name: str = "kl_curve", **settings: Any) -> Origin:
    return back.read(lines.of("a.tex", file_of(run, "tex", name, **settings))[0])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of a run that a test may change."""
    Fabricated(tmp_path / "runs" / "mine", layers=1, k=8, updates_each=3).whole()
    return tmp_path / "runs"


# --- what a file says ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", inside.KINDS)
def test_every_format_leads_back(root: Path, kind: str) -> None:
    one = export.panel("norm_heatmap", [Recorded(root / "first")], {"role": "reward", "rows": "layer"})
    (line,) = lines.of(f"A figure.{kind.upper()}", export.content(one, kind, Size()))
    assert line == Line(f"A figure.{kind.upper()}", paper.about(one.spec))
    origin = back.read(line)
    assert (origin.item(), origin.n, origin.commit) == (one.item, one.spec.n, "5c9e102fddc615fb49a16803d3c25d09c141aa28")
    assert origin.version in paper.about(one.spec)
    assert back.check(origin, back.in_folder(root)) == Finding("same", "the runs here still give the same rows, words and axes", one.spec.title)


def test_a_zip_leads_back_figure_by_figure_with_the_sizes_they_had(root: Path) -> None:
    first, second = Recorded(root / "first"), Recorded(root / "second")
    panels = [export.panel("trajectories", [first, second], {"roles": ("policy",)}, "text", 2.5), export.panel("kl_curve", [first], KL)]
    found = lines.of("a.zip", export.bundle(panels, Size("icml")))
    assert [line.file for line in found] == ["trajectories", "kl-curve-first"], "in the order of the basket"
    items = [back.read(line).item() for line in found]
    assert items == [one.item for one in panels]
    assert [(one.width, one.height) for one in items] == [("text", 2.5), ("column", 0.0)]
    assert {back.check(back.read(line), back.in_folder(root)).outcome for line in found} == {"same"}


def test_a_zip_that_somebody_packed_anew_leads_back_without_its_list(root: Path) -> None:
    files = inside_of(export.bundle([export.panel("kl_curve", [Recorded(root / "first")], {})], Size()))
    for kept in ((".pdf",), (".png", ".csv"), (".html",)):
        (line,) = lines.of("a.zip", packed({f"deep/er/{Path(name).name}": content for name, content in files.items() if name.endswith(kept)}))
        assert back.read(line).item().figure == "kl_curve"


def test_a_basket_and_a_zip_hold_as_many() -> None:
    assert lines.MOST_FIGURES == wanted.MOST


def test_rows_of_a_comparison_are_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compare.plan(RunConfig(updates=2, sketch=8), ("rloo", "mezo"), (0,), tmp_path / "both", warm=None)
    for row in plan.rows:
        Fabricated(row.folder, layers=1, k=8, updates_each=2, method=row.config.method, seed=row.seed).whole()
        edit(row.folder / "run.json", config=row.config.to_mapping())
    compare.settle(plan)
    rows = recorded.of_comparison(tmp_path / "both")
    origin = back.read(Line("a", paper.about(export.panel("starts", rows, {}).spec)))
    assert origin.runs == ("both",)
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    for find in (back.in_folder(tmp_path), wanted.expand):
        assert back.check(origin, find).outcome == "same"
    for row in plan.rows:
        edit(row.folder / "status.json", state="failed")
    assert back.check(origin, wanted.expand) == Finding("gone", "the comparison both has no finished rows here")
    assert back.check(origin, back.in_folder(tmp_path)).words == f"run both is not in {tmp_path}"


# --- what became of it -----------------------------------------------------------------------------


def test_other_rows_are_told_with_both_counts_and_what_is_newer(own: Path) -> None:
    made = Fabricated(own / "live", layers=1, k=8, updates_each=3)
    made.step("policy", 1, 2)
    made.store.flush()
    origin, before = origin_of(own / "live"), time.time() - 60
    made.step("policy", 1, 2)
    made.store.flush()
    found = back.check(origin, back.in_folder(own), before)
    assert (found.outcome, found.words) == ("changed", f"the runs here give other rows: n was {origin.n}, is {origin.n + 2}; newer than the file: live")
    assert back.check(origin, back.in_folder(own)).words.endswith("; not ended yet: live")
    made.store.close("finished")
    assert back.check(origin, back.in_folder(own), time.time() + 60).words.endswith(f"n was {origin.n}, is {origin.n + 2}")


def test_other_numbers_of_as_many_rows_are_other_rows(own: Path) -> None:
    origin = replace(origin_of(own / "mine"), rows="0" * 64)
    assert back.check(origin, back.in_folder(own)).words == f"the runs here give other rows: n is {origin.n} in both"


def test_other_words_are_told_apart_from_other_rows_and_another_version_is_named(own: Path) -> None:
    origin = replace(origin_of(own / "mine"), spec="0" * 64)
    words = "the runs here still give the same rows, but other words, marks or axes"
    assert back.check(origin, back.in_folder(own)).words == words
    assert back.check(replace(origin, version="0.0.1"), back.in_folder(own)).words.startswith(f"{words}; it was drawn by Interplay 0.0.1, this is ")
    assert "; it was drawn by Interplay 0.0.1" in back.check(replace(origin, version="0.0.1", rows="0" * 64), back.in_folder(own)).words


def test_runs_that_no_longer_hold_what_it_needs_say_so(own: Path) -> None:
    origin = origin_of(own / "mine", "trajectories")
    shutil.rmtree(own / "mine")
    Fabricated(own / "mine", layers=1, k=8).store.close("finished")
    found = back.check(origin, back.in_folder(own))
    assert found.outcome == "changed"
    assert re.fullmatch("the runs here no longer give this figure: trajectories cannot be drawn: .*recorded no directions.*", found.words)


def test_a_run_that_is_not_here_is_named_with_the_nearest(own: Path) -> None:
    origin = origin_of(own / "mine")
    (own / "mine").rename(own / "mines")
    assert back.check(origin, back.in_folder(own)) == Finding("gone", f"run mine is not in {own}; did you mean 'mines'?")
    assert back.check(origin, back.in_folder(own / "none")) == Finding("gone", f"run mine is not in {own / 'none'}")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"figure": "kl-curv"}, r"figure is 'kl-curv'; did you mean 'kl_curve'\?"),
        ({"settings": (("y", "1"),)}, "kl_curve has no setting 'y'"),
        ({"settings": (("x", "tokns"),)}, "x is 'tokns'; did you mean 'tokens'"),
        ({"listed": {"width": "page"}}, "width is 'page'"),
        ({"listed": {"width": ["text"]}}, "width is "),
        ({"listed": {"height": 1e9}}, "height is "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_this_version_does_not_know_is_told(root: Path, change: dict[str, Any], why: str) -> None:
    found = back.check(replace(origin_of(root / "first"), **change), back.in_folder(root))
    assert found.outcome == "unknown"
    assert re.search(f"^this version cannot draw it: {why}", found.words)


@pytest.fixture
def alice(own: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a run that bears the name of who trained it, with a commit."""
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    (own / "mine").rename(own / "alice-7")
    edit(own / "alice-7" / "run.json", run="alice-7", commit="5c9e102fddc615fb49a16803d3c25d09c141aa28")
    return own


@pytest.mark.parametrize("kind", ["pdf", "zip"])
def test_hidden_names_cannot_be_led_back(alice: Path, kind: str) -> None:
    run = Recorded(alice / "alice-7")
    made = export.made([export.panel("kl_curve", [run], {})], kind, Size(), [run])
    found = back.check(back.read(lines.of(f"a.{kind}", made)[0]), back.in_folder(alice))
    assert found == Finding("anonymous", "names were hidden when it was drawn (hidden1), so it cannot be led back to its runs")


def test_rows_that_changed_because_a_name_was_hidden_are_not_called_other_rows(alice: Path) -> None:
    run = Recorded(alice / "alice-7")
    told = export.panel("kl_curve", [run], {})
    blind = replace(told, spec=replace(told.spec, origin=told.spec.origin.partition("; ")[2], data=told.spec.data.assign(series="hidden1")))
    origin = back.read(Line("a", paper.about(blind.spec)))
    assert not origin.commit
    found = back.check(origin, back.in_folder(alice))
    assert (found.outcome, found.words[:60]) == ("anonymous", "names were hidden when it was drawn, and with them its rows ")
    assert back.check(replace(origin, n=origin.n + 1), back.in_folder(alice)).outcome == "changed"


def test_an_anonymous_file_without_a_hidden_name_leads_back(root: Path) -> None:
    run = Recorded(root / "first")
    made = export.made([export.panel("kl_curve", [run], {})], "zip", Size(), [run])
    (line,) = lines.of("a.zip", made)
    assert line.anonymous
    assert not back.read(line).commit
    assert back.check(back.read(line), back.in_folder(root)).outcome == "same"
    assert anonymous.clues([run])


# --- files that nobody should trust ----------------------------------------------------------------

OURS = "figure kl_curve; runs first; n 3; rows sha256 {0}; interplay 0.1.0; spec sha256 {0}; command ".format("a" * 64)
DRAWS = "interplay figure kl-curve {} --runs ."


def packed(files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", how) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return stream.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text)) for kind, text in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def tex(line: str) -> bytes:
    return f"% {line}\n".encode()


@pytest.mark.parametrize("run", ["../runs/first", "/etc", "first/../second", "first/updates", "a" * 300, "/".join("abcd"), ".", "..", "~", "\\\\host\\x", "a*"])
def test_a_run_is_a_name_and_never_a_path(root: Path, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(root))
    monkeypatch.chdir(root)
    origin = back.read(lines.of("a.tex", tex(OURS + DRAWS.format(shlex.quote(run))))[0])
    assert origin.runs == (run,)
    for find in (back.in_folder(root), wanted.expand):
        found = back.check(origin, find)
        assert found.outcome == "gone"
        assert "\n" not in found.words


def test_a_link_out_of_the_folder_is_no_run(own: Path) -> None:
    (own / "inner").mkdir()
    (own / "inner" / "mine").symlink_to(own / "mine")
    assert back.check(origin_of(own / "mine"), back.in_folder(own / "inner")).outcome == "gone"


@pytest.mark.parametrize(
    "said",
    [
        "figure kl_curve",
        OURS.removesuffix("; command "),
        OURS + "rm -rf / --runs .",
        OURS + "interplay figure kl-curve first",
        OURS + "interplay figure kl-curve --runs .",
        OURS + "interplay figure kl-curve 'first --runs .",
        OURS + "interplay figure kl-curve first --runs . --out x.pdf",
        OURS + "interplay figure kl-curve first --runs . --set",
        OURS + "interplay figure kl-curve " + "first " * 301 + "--runs .",
        OURS.replace("n 3", "n -3") + DRAWS.format("first"),
        OURS.replace("n 3", "n " + "9" * 5000) + DRAWS.format("first"),
        OURS.replace("a" * 64, "A" * 64) + DRAWS.format("first"),
    ],
    ids=range(12),
)
def test_a_line_that_names_no_figure_and_runs_is_refused_in_one_line(said: str) -> None:
    with pytest.raises(DataError, match=r"^a\.tex ") as refused:
        back.read(lines.of("a.tex", tex(said))[0])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


_ENTITIES = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "figure kl_curve"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
_FOREIGN = {
    "a.csv": b"x,y\n1,2\n",
    "a.exe": b"MZ",
    "a": b"",
    "a.pdf": b"/Keywords (" + b"\\(" * 3_000_000,
    "b.pdf": b"/Keywords (" * 500_000,
    "c.pdf": b"%PDF-1.7 /Keywords (\xfe\xff\x00f",
    "a.svg": b"<rdf:li>figure " * 500_000,
    "b.svg": _ENTITIES + b"<rdf:li>&b;&f;</rdf:li>",
    "a.html": b"<footer>figure " + b"&amp;" * 1_000_000,
    "a.tex": b"% figure " + b"x" * 3_000_000,
    "b.tex": b"% figure \x1b[2J\x07\n",
    "c.tex": "% figure \u202e\n".encode(),
    "a.json": b'{"about": ' + b"[" * 5_000_000,
    "b.json": b'{"about": "figure ' + b"\\u0041" * 1_000_000,
    "c.json": b'{"about" ' * 500_000,
    "a.png": png((b"tEXt", b"Source\0figure")) + b"\0" * 3_000_000,
    "b.png": png((b"zTXt", b"Source\0\0" + zlib.compress(b"figure " + b"x" * 2**28))),
    "c.png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"tEXtSource\0figure",
    "a.zip": b"PK",
    "b.zip": packed({}),
    "c.zip": packed({"a.zip": packed({"a.tex": tex(OURS)}), "b.txt": tex(OURS), "manifest.json": b"[" * 50_000}),
}


@pytest.mark.parametrize("name", _FOREIGN)
def test_what_is_not_ours_is_refused_soon_in_one_line_and_little_memory(name: str) -> None:
    content = _FOREIGN[name]
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(DataError, match=f"^{re.escape(name)} ") as refused:
        lines.of(name, content)
    took, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert took < 5
    assert most < 64 * 2**20


def sized(content: bytes, size: int) -> bytes:
    """The same zip, whose first file says that it has so many bytes."""
    listed, own = content.index(b"PK\1\2"), content.index(b"PK\3\4")
    word = struct.pack("<I", size)
    return content[: own + 22] + word + content[own + 26 : listed + 24] + word + content[listed + 28 :]


def flagged(content: bytes) -> bytes:
    """The same zip, whose first file says that it needs a password."""
    listed = content.index(b"PK\1\2")
    return content[: listed + 8] + b"\1\0" + content[listed + 10 :]


BOMB = packed({"a.tex": tex(OURS) + b"0" * 2**24})
_ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "says it is huge": (lambda: sized(BOMB, 2**32 - 2), "would unpack to more than 1024 MiB"),
    "is huge": (lambda: packed({"a.tex": b"0" * (2**26 + 1)}), "would unpack to more than 64 MiB of figures"),
    "is huge by many": (lambda: packed({f"{number}.tex": b"0" * 2**23 for number in range(9)}), "would unpack to more than 64 MiB of figures"),
    "says it is small": (lambda: sized(BOMB, 10), "cannot be read as a zip"),
    "lists too much": (lambda: packed({f"{number}.txt": b"" for number in range(601)}), "lists more than 600 files"),
    "too many figures": (lambda: packed({f"{number}.tex": tex(OURS) for number in range(61)}), "holds 61 figures; a basket has 60"),
    "other packing": (lambda: packed({"a.tex": tex(OURS)}, zipfile.ZIP_LZMA), "is packed in another way"),
    "password": (lambda: flagged(packed({"a.tex": tex(OURS)})), "cannot be read as a zip"),
    "cut": (lambda: BOMB[:-30], "cannot be read as a zip"),
    "spoilt": (lambda: BOMB[:60] + b"\xff" * 60 + BOMB[120:], "cannot be read as a zip"),
}


@pytest.mark.parametrize("name", _ZIPS)
def test_a_zip_that_means_harm_is_refused(name: str) -> None:
    make, why = _ZIPS[name]
    content = make()
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"^a\.zip {why}"):
        lines.of("a.zip", content)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_names_in_a_zip_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = {"../../../etc/passwd.tex": tex(OURS + DRAWS.format("first")), "/abs\x1b[2J\n.tex": tex(OURS + DRAWS.format("first"))}
    listed = {"figures": [{"file": "../x", "width": "text"}, None, 3, {"file": "passwd", "width": 9}], "anonymous": "yes"}
    found = lines.of("a.zip", packed(entries | {"manifest.json": json.dumps(listed).encode()}))
    assert [line.file for line in found] == ["passwd", "abs?[2J?"]
    assert not found[0].anonymous
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listed", ["[]", "3", '{"figures": 3}', '{"figures": [[]]}', "{", '{"figures": {"a": 1}}'])
def test_a_spoilt_list_is_left_out(listed: str) -> None:
    assert [line.listed for line in lines.of("a.zip", packed({"a.tex": tex(OURS), "manifest.json": listed.encode()}))] == [{}]


def test_a_file_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 2**20)
    (tmp_path / "a.tex").write_bytes(tex(OURS) + b"0" * 2**20)
    for read in (lambda: lines.content_of(tmp_path / "a.tex"), lambda: lines.of("a.tex", (tmp_path / "a.tex").read_bytes())):
        with pytest.raises(DataError, match=r"a\.tex has 1 MiB; files of figures are read up to 1"):
            read()


# --- by the command --------------------------------------------------------------------------------


def test_the_command_says_whether_the_runs_still_give_it(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.svg"
    out.write_bytes(file_of(own / "mine", "svg"))
    assert command("--about", out) == 0
    plain = capsys.readouterr().out.splitlines()
    assert command("--about", out, "--runs", own) == 0
    assert capsys.readouterr().out.splitlines() == [*plain[:-1], "the runs here still give the same rows, words and axes"]
    assert command("--about", out, "--runs", tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [*plain[:-1], f"run mine is not in {tmp_path}"]


def test_the_command_lists_the_figures_of_a_zip(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panels = [export.panel(name, [Recorded(root / "first")], {}) for name in ("kl_curve", "gold_curve")]
    (tmp_path / "a.zip").write_bytes(export.bundle(panels, Size()))
    assert command("--about", tmp_path / "a.zip", "--runs", root) == 0
    told = capsys.readouterr().out.split("\n\n")
    assert [part.splitlines()[:2] for part in told] == [["kl-curve-first:", "  figure kl_curve"], ["gold-curve-first:", "  figure gold_curve"]]
    assert all(part.splitlines()[-1] == "  the runs here still give the same rows, words and axes" for part in told)


def test_a_readable_line_without_a_command_is_printed_and_said_so(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = recipes.make("kl_curve", [Recorded(own / "mine")])
    (tmp_path / "a.tex").write_text(paper.table(spec))
    assert command("--about", tmp_path / "a.tex", "--runs", own) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("a.tex does not say which command draws it")


def test_a_bare_file_of_rows_says_what_to_give(own: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(file_of(own / "mine", "csv"))
    with pytest.raises(
        DataError, match=r"a\.csv does not say which runs .* numbers only; give another .*: \.pdf, \.svg, \.png, \.html, \.tex, \.json, or the \.zip"
    ):
        command("--about", tmp_path / "a.csv", "--runs", own)
    with pytest.raises(StoreError, match="cannot be read"):
        command("--about", tmp_path / "none.zip")


# --- on the page -----------------------------------------------------------------------------------


def texts(app: AppTest) -> str:
    found = [element.value for kind in (app.text, app.caption, app.warning, app.error, app.markdown) for element in kind]
    return "\n".join(found).replace("\\", "")


def opened(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    return ran(app.file_uploader(key="opened").set_value([(name, content, "application/octet-stream") for name, content in files]))


def basket_of(app: AppTest) -> list[Item]:
    link = app.query_params.get("basket", "")
    return wanted.decode(link if isinstance(link, str) else link[0])[0] if link else []


def links(app: AppTest) -> list[str]:
    return [link.proto.query_string for link in app.get("page_link")]


def test_an_opened_figure_says_what_became_of_it_and_goes_into_the_basket(shown: Path, show: Show) -> None:
    app = opened(show("export"), ("mine.pdf", file_of(shown / "first", "pdf", **KL)))
    told = texts(app)
    assert "same rows" in told
    assert "The runs here still give the same rows, words and axes." in told
    assert "mine.pdf: kl-curve of first, x=tokens." in told
    assert "Recorded at commit 5c9e102fddc6." in told
    ran(next(button for button in app.button if (button.key or "").startswith("basket-opened-")).click())
    assert basket_of(app) == [Item.of("kl_curve", [Recorded(shown / "first")], KL)]
    assert len(app.get("image")) == 1, "its card shows what is drawn now"
    assert "In the basket (1)" in [button.label for button in app.button]


def test_several_files_and_the_figures_of_a_zip_with_their_sizes(shown: Path, show: Show) -> None:
    panels = [export.panel("gold_curve", [Recorded(shown / "second")], {}, "text", 2.5), export.panel("kl_curve", [Recorded(shown / "second")], {})]
    app = opened(show("export"), ("a.zip", export.bundle(panels, Size())), ("b.svg", file_of(shown / "first", "svg")), ("c.svg", b"<svg/>"))
    told = texts(app)
    assert told.count("same rows, words and axes") == 3
    assert "a.zip, gold-curve-second: gold-curve of second" in told
    assert "not ours" in told
    assert "c.svg does not say which runs it shows" in told
    for key in [button.key for button in app.button if (button.key or "").startswith("basket-opened-")]:
        ran(app.button(key=key).click())
    assert [(one.figure, one.width, one.height) for one in basket_of(app)] == [("gold_curve", "text", 2.5), ("kl_curve", "column", 0.0), ("kl_curve", "", 0.0)]


@pytest.mark.parametrize(
    ("line", "word", "sentence"),
    [
        (OURS + DRAWS.format("frist"), "not here", "There is no run 'frist' here; did you mean 'first'?"),
        (OURS + DRAWS.format("first") + " --set z=1", "not known", "This version cannot draw it: kl_curve has no setting 'z'"),
        (OURS + DRAWS.format("hidden1"), "names hidden", "Names were hidden when it was drawn (hidden1)"),
        (OURS + DRAWS.format("first"), "other rows", "The runs here give other rows: n was 3, is "),
        ("figure x", "not ours", "a.tex does not say which command draws it"),
    ],
    ids=lambda value: value if len(value) < 20 else "",
)
def test_each_outcome_is_a_word_with_a_sign_and_a_sentence(shown: Path, show: Show, line: str, word: str, sentence: str) -> None:
    app = opened(show("export"), ("a.tex", tex(line)))
    badge = next(one.value for one in app.markdown if word in one.value)
    assert ":material/" in badge, "not by colour alone"
    assert sentence in texts(app)
    assert bool(links(app)) == (word == "other rows")


def test_hostile_names_stay_text(shown: Path, show: Show) -> None:
    line = OURS + f"interplay figure {shlex.quote(HOSTILE)} {shlex.quote(HOSTILE)} --runs . --set x={shlex.quote(HOSTILE)}"
    app = opened(show("export"), (f"{HOSTILE}.tex", tex(line)), ("b.zip", packed({f"{HOSTILE}.tex": tex(line)})), (f"{HOSTILE}.pdf", b""))
    for element in [*app.markdown, *app.caption, *app.warning]:
        assert "](" not in element.value
        assert not re.search(r"(?<!\\)<img", element.value)


def test_the_link_opens_the_figure_with_its_settings(shown: Path, show: Show) -> None:
    app = opened(show("export"), ("a.tex", file_of(shown / "first", "tex", "norm_heatmap", role="reward", rows="kind")))
    (link,) = links(app)
    app.switch_page(str(PAGES / "interplay.py"))  # in the same session, where the Export page has chosen another figure
    for name, value in parse_qs(link).items():
        app.query_params[name] = value
    ran(app)
    ran(next(one for one in app.button if (one.key or "").startswith("basket-norm_heatmap")).click())
    assert list(app.session_state["_basket"].values()) == [Item.of("norm_heatmap", [Recorded(shown / "first")], {"role": "reward", "rows": "kind"})]


@pytest.mark.parametrize(
    ("figure", "settings"),
    [
        ("trajectories", {"roles": ("policy",), "components": 3, "same_length": True, "layer": "1"}),
        ("kl_curve", {"x": "tokens"}),
        ("subspace_overlap", {"k": 3}),
        ("cross_lag", {"lags": 4}),
        ("cosine_heatmap", {"column": "cos_other_update", "role": "reward"}),
    ],
)
def test_links_speak_the_language_of_the_controls(shown: Path, show: Show, figure: str, settings: dict[str, Any]) -> None:
    known = recipes.settings(figure)
    settings = {name: value for name, value in settings.items() if name in known}
    link: dict[str, list[str]] = {}
    for name, value in address.of(figure, ["first"], settings):
        link.setdefault(name, []).append(value)
    page = show("interplay", **link)
    button = next(one for one in page.button if (one.key or "").startswith(f"basket-{figure}"))
    ran(button.click())
    assert list(page.session_state["_basket"].values()) == [Item.of(figure, [Recorded(shown / "first")], settings)]


def test_a_file_that_leads_somewhere_is_found_where_it_is(shown: Path) -> None:
    found = back.located(origin_of(shown / "first"), wanted.expand)
    assert isinstance(found, Here)
    assert [one.path for one in found.recordings] == [shown / "first"]
