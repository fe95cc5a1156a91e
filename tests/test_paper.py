"""Figures for paper: true size, letters that stay letters, the same bytes every day, and no label cut off or lying on another."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_figures_twice import CASES, Full, build, runs

from analysis import paper, venues
from analysis.spec import Axis, FigureSpec, Mark
from interplay import __version__
from interplay.errors import ConfigError

__all__ = ["runs"]  # the fixture

HOSTILE = "a$b^2$ \\input{/etc/passwd} & 50 % <b>"


def curve(count: int = 12, series: str = "s", **more: Any) -> FigureSpec:
    y = np.sin(np.arange(count) / 3).astype(np.float32)
    data = pd.DataFrame({"layer": "a", "series": series, "x": np.arange(count), "y": y, "clock": np.arange(count)})
    made = FigureSpec("wave", "A title", data, (Mark("line", "a"),), Axis("x", "update"), Axis("y", "size", "m"), "A caption.", "A wave", count, ("r1", "r2"))
    return replace(made, **more)


def page_inches(pdf: bytes) -> tuple[float, float]:
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
    assert box
    return float(box[1]) / 72, float(box[2]) / 72


def unpacked(pdf: bytes) -> bytes:
    """The file with its streams inflated."""
    parts = [pdf]
    for body in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            parts.append(zlib.decompress(body))
        except zlib.error:
            continue
    return b"\n".join(parts)


# --- size ------------------------------------------------------------------------------------------

#: Column and text width in inches and body text in points, worked out here from the lengths in the style files.
LENGTHS = {
    "acl": ((21.0 - 2 * 2.5 - 0.6) / 2 / 2.54, (21.0 - 2 * 2.5) / 2.54, 11),  # A4, margin=2.5cm, columnsep 0.6cm
    "icml": ((6.75 - 0.25) / 2, 487.8225 / 72.27, 10),  # textwidth as the file checks it, in TeX points
    "neurips": (5.5, 5.5, 10),
    "iclr": (5.5, 5.5, 10),
    "aaai": ((7.0 - 0.375) / 2, 7.0, 10),
    "cvpr": ((6.875 - 0.3125) / 2, 6.875, 10),
    "tmlr": (6.5, 6.5, 10),
}


def test_widths_are_those_of_the_style_files() -> None:
    assert set(venues.VENUES) == set(LENGTHS)
    for name, (column, text, body) in LENGTHS.items():
        venue = venues.find(name)
        assert (venue.inches("column"), venue.inches("text"), venue.body) == pytest.approx((column, text, body), rel=1e-6)
        assert ".sty" in venue.source


@pytest.mark.parametrize("name", venues.VENUES)
def test_a_page_is_as_wide_as_the_venue_says(name: str) -> None:
    for width in venues.WIDTHS:
        wide, high = page_inches(paper.render(curve(), "pdf", venue=name, width=width, height=1.7))
        assert wide == pytest.approx(venues.find(name).inches(width), rel=0.005)
        assert high == pytest.approx(1.7, rel=0.005)


def test_pixels_and_svg_have_the_same_size() -> None:
    picture = Image.open(io.BytesIO(paper.render(curve(), "png", venue="icml", height=2.0)))
    assert picture.size == (975, 600)
    svg = paper.render(curve(), "svg", venue="icml", height=2.0).decode()
    assert 'width="234pt" height="144pt"' in svg


def test_letters_are_a_little_smaller_than_the_text_around_them() -> None:
    axes = paper.draw(curve(), venue="acl").axes[0]
    assert axes.xaxis.label.get_fontsize() == 9
    assert {label.get_fontsize() for label in axes.get_xticklabels()} == {8}


# --- what is in the file ---------------------------------------------------------------------------


def test_letters_are_truetype_and_there_is_no_title() -> None:
    pdf = unpacked(paper.render(curve(), "pdf"))
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf
    svg = paper.render(curve(), "svg").decode()
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"update", "size (m)"} <= set(drawn)
    assert "A title" not in drawn
    assert "<title>" not in svg.split("</metadata>")[1]


def test_a_dollar_is_a_dollar_and_a_name_stays_one_line() -> None:
    spec = curve(series=HOSTILE + "\n\x00second line", title="\ud800", alt="a\x08b")
    spec = replace(spec, data=pd.concat([spec.data, spec.data.assign(series="other")]), x=Axis("x", "$x$ of\ud800__y__"))
    figure = paper.draw(spec, venue="tmlr")
    words = [text.get_text() for text in figure.findobj(Text)]
    assert "$x$ of __y__" in words  # half a character is a blank
    assert any(word.startswith(HOSTILE[:30]) for word in words)
    assert not any("\n" in word or "\x00" in word for word in words)
    for kind in paper.FORMATS:
        paper.render(spec, kind)
    assert "a$b^2$" in paper.render(spec, "svg").decode()


@pytest.mark.parametrize(("kind", "count", "pixels"), [("line", 5_000, 0), ("line", 5_001, 1), ("points", 5_000, 0), ("points", 6_000, 1)])
def test_only_many_points_become_pixels_and_none_is_lost(kind: Any, count: int, pixels: int) -> None:
    spec = curve(count, marks=(Mark(kind, "a"),))
    assert paper.render(spec, "svg").count(b"<image") == pixels
    drawn = next(iter(paper.draw(spec).findobj(lambda one: one.get_gid() is not None)))
    np.testing.assert_array_equal(drawn.get_ydata(), spec.data["y"])


@pytest.mark.slow
def test_a_line_of_a_hundred_thousand_points_stays_a_small_file() -> None:
    assert len(paper.render(curve(100_000), "pdf")) < 1_000_000


@pytest.mark.parametrize("kind", paper.FORMATS)
def test_a_file_says_which_runs_it_shows(kind: str) -> None:
    content = paper.render(curve(runs=("run-ä", "r2")), kind)
    if kind == "png":
        about = Image.open(io.BytesIO(content)).text["Source"]
    elif kind == "pdf":
        text = re.search(rb"/Keywords \((.*?[^\\])\)", content, re.DOTALL)
        assert text
        about = re.sub(rb"\\(.)", rb"\1", text[1]).decode("utf-16")
    else:
        about = content.decode()
    rows = hashlib.sha256(paper.csv(curve()).encode()).hexdigest()
    assert f"figure wave; runs run-ä, r2; n 12; rows sha256 {rows}; interplay {__version__}" in about


# --- the same bytes --------------------------------------------------------------------------------

_RENDER = """
import hashlib, sys
from analysis import paper
from test_paper import curve
for kind in paper.FORMATS:
    print(kind, hashlib.sha256(paper.render(curve(), kind, venue="acl")).hexdigest())
"""


def test_the_same_spec_gives_the_same_bytes() -> None:
    for kind in paper.FORMATS:
        first = paper.render(curve(), kind)
        assert paper.render(curve(), kind) == first
        assert b"202" not in re.sub(rb"\d{5,}", b"", re.sub(rb"stream.*?endstream", b"", first, flags=re.DOTALL)) or kind != "pdf", "a date"


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """With another order of hashes, another place and settings of its own."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\npdf.fonttype: 3\nsavefig.bbox: tight\n")
    places = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])}
    found = set()
    for seed, folder in (("1", None), ("2", tmp_path)):
        env = {**os.environ, **places, "PYTHONHASHSEED": seed} | ({"MATPLOTLIBRC": str(folder), "TZ": "Asia/Tokyo"} if folder else {})
        done = subprocess.run([sys.executable, "-c", _RENDER], capture_output=True, text=True, env=env, cwd=folder, timeout=120)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
    assert [line.split()[0] for line in found.pop().splitlines()] == list(paper.FORMATS)


def test_the_process_keeps_its_own_settings() -> None:
    before = dict(matplotlib.rcParams.copy())
    paper.render(curve(), "svg")
    with pytest.raises(ValueError, match="nothing to draw"):
        paper.draw(curve(0))
    assert dict(matplotlib.rcParams.copy()) == before


# --- nothing cut, nothing on top of another --------------------------------------------------------


def boxes(figure: Figure) -> list[tuple[Text, Any]]:
    """Every text that is drawn, with its place in pixels; ticks outside their axis are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis in (getattr(axes, f"{letter}axis", None) for letter in "xyz"):
            if axis is not None:
                low, high = sorted(axis.get_view_interval())
                reach = (high - low) * 1e-6
                ticks = zip(axis.get_majorticklocs(), axis.get_major_ticks(), strict=False)
                hidden |= {id(label) for place, tick in ticks if not low - reach <= place <= high + reach for label in (tick.label1, tick.label2)}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and id(text) not in hidden]
    return [(text, text.get_window_extent()) for text in texts]


NARROW = [(name, chosen, "acl") for name, chosen in CASES] + [(name, chosen, "tmlr") for name, chosen in CASES[::5]]


@pytest.mark.parametrize(("name", "chosen", "venue"), NARROW, ids=["-".join(map(str, (name, *chosen.values(), venue))) for name, chosen, venue in NARROW])
def test_no_label_is_cut_or_covered(runs: list[Full], name: str, chosen: dict[str, Any], venue: str) -> None:
    spec = build(name, runs, **chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where there is no room
        figure = paper.draw(spec, venue=venue)
    found = boxes(figure)
    assert len(found) > 3
    for text, box in found:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y1 <= figure.bbox.height + 1, text
    upright = [(text, box) for text, box in found if text.get_rotation() % 90 == 0]  # the titles of a scene are tilted: their boxes are larger than they are
    assert len(upright) > 3
    for (one, a), (other, b) in itertools.combinations(upright, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)


def test_many_layers_are_named_in_steps() -> None:
    data = pd.DataFrame({"layer": "a", "series": "s", "x": 1, "row": [str(i) for i in range(40)] + ["outside"], "v": np.arange(41.0), "clock": 1})
    spec = FigureSpec("h", "t", data, (Mark("heat", "a"),), Axis("x", "x"), Axis("row", "layer", scale="category"), "c", "a", 1, ("r",), colour=Axis("v", "v"))
    labels = [label.get_text() for label in paper.draw(spec).axes[0].get_yticklabels()]
    assert labels[:3] == ["0", "3", "6"]
    assert len(labels) <= 14


# --- refusals --------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"venue is 'nips'; did you mean 'neurips'\?; allowed: aaai, acl"):
        paper.draw(curve(), venue="nips")
    with pytest.raises(ConfigError, match=r"width is 'colum'; did you mean 'column'\?; allowed: column, text"):
        paper.draw(curve(), width="colum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"format is 'jpg'.*allowed: pdf, png, svg"):
        paper.render(curve(), "jpg")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_figure_without_numbers_is_refused(value: float) -> None:
    spec = curve()
    with pytest.raises(ValueError, match="wave of r1, r2 has nothing to draw"):
        paper.draw(replace(spec, data=spec.data.assign(y=value)))


@pytest.mark.parametrize("count", [1, 2])
def test_one_point_is_enough(count: int) -> None:
    for kind in ("line", "points"):
        assert paper.render(curve(count, marks=(Mark(kind, "a"),)), "pdf").startswith(b"%PDF")  # type: ignore[arg-type]


def test_a_constant_heat_map_and_one_of_zeros_are_drawn() -> None:
    for value in (0.0, 2.5):
        data = pd.DataFrame({"layer": "a", "series": "s", "x": [1, 2], "row": ["0", "0"], "v": value, "clock": 1})
        axes = (Axis("x", "x"), Axis("row", "layer", scale="category"))
        spec = FigureSpec("h", "t", data, (Mark("heat", "a"),), *axes, "c", "a", 2, ("r",), colour=Axis("v", "v", scale="log"))
        mesh = next(iter(paper.draw(spec).findobj(lambda one: one.get_gid() is not None)))
        assert mesh.get_array().tolist() == [[value, value]]


def test_save_writes_what_the_suffix_says(tmp_path: Path) -> None:
    for kind, start in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")):
        path = paper.save(curve(), tmp_path / f"figure.{kind}")
        assert path.read_bytes() == paper.render(curve(), kind.lower())
        assert path.read_bytes().startswith(start)


# --- numbers as text -------------------------------------------------------------------------------


def test_csv_gives_back_every_number() -> None:
    spec = curve(50)
    spec.data.loc[3, "y"] = np.nan
    back = pd.read_csv(io.StringIO(paper.csv(spec)), dtype={"y": np.float32})
    assert list(back) == list(spec.data)
    np.testing.assert_array_equal(back["y"].to_numpy(np.float32), spec.data["y"].to_numpy(np.float32))


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_finds_no_formula(start: str) -> None:
    spec = curve(3, series=f"{start}1+1")
    assert f",'{start}1+1,0,0.0" in paper.csv(spec)
    assert "\n-" not in paper.csv(curve(20))


def cells(latex: str) -> list[list[str]]:
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in line.removesuffix(r"\\").split(" & ")] for line in lines]


def test_the_table_has_the_strong_rows_with_units_and_dashes() -> None:
    rows = {"series": "s", "x": [10.0, 12345.0], "y": [0.123456, np.nan], "low": [0.1, np.nan], "high": [0.2, np.nan]}
    data = pd.concat([curve(5).data, pd.DataFrame({"layer": "b", **rows})])
    made = paper.table(curve(data=data, marks=(Mark("line", "a", strong=False), Mark("band", "b"), Mark("points", "b"))))
    assert cells(made) == [["update", "size (m)", "low", "high"], ["10", "0.1235", "0.1", "0.2"], ["12345", "--", "--", "--"]]
    assert [word for word in ("toprule", "midrule", "bottomrule") if rf"\{word}" in made] == ["toprule", "midrule", "bottomrule"]
    assert "|" not in made.split("\n\\begin")[1]


def test_latex_executes_no_name() -> None:
    spec = curve(2, series=HOSTILE, caption="First\n\\input{evil}", runs=("r\n\\input{evil}\u2028\\input{evil}",))
    spec = replace(spec, data=pd.concat([spec.data, spec.data.assign(series="b_c#~")]))
    made = paper.table(spec)
    for line in made.splitlines():
        if not line.startswith("%"):
            assert "\\input" not in line
            assert not re.search(r"(?<!\\)[$#%_]", line), line
    assert cells(made)[1][0] == r"a\$b\textasciicircum 2\$ \textbackslash input\{/etc/passwd\} \& 50 \% <b>"


def test_the_tables_of_a_comparison_name_methods_and_ends(runs: list[Full]) -> None:
    spec = build("arms", runs)
    made = cells(paper.table(spec))
    assert made[0][0] == "method"
    assert made[0][-2:] == ["low", "high"]
    assert [row[0] for row in made[1:]] == ["rloo", "dpo"], "as the figure shows them, from above"
    means = spec.data[spec.data["layer"] == "mean"].set_index("method")
    assert float(made[1][1]) == pytest.approx(means.loc["rloo", "x"], rel=1e-3)
