"""Every figure is drawn twice, for the screen and for paper, and both show the numbers of its data and no others.

What plotly's traces and matplotlib's artists hold is read back and compared with the rows of the spec, through loops of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricate import Fabricated
from matplotlib import colors
from matplotlib.figure import Figure

from analysis import figures, paper, recipes, screen
from analysis.look import style
from analysis.spec import Axis, FigureSpec, Mark
from app.reading.recorded import Recorded

#: Metrics that the fabricated run leaves out and a figure shows: values between the two numbers, by split.
MORE: dict[str, dict[str, tuple[float, float]]] = {
    "train": {
        **{f"zo/{name}": (0.1, 0.9) for name in ("gain_measured", "gain_predicted", "rho", "cos_gradient", "gradient_agreement")},
        **{f"zo/share_{name}": (0.1, 0.9) for name in ("previous", "layers", "tensors", "rows", "recent")},
        **{"rewards/chosen": (-0.5, 0.1), "rewards/rejected": (-0.9, -0.5), "forwards": (10, 90), "peak_memory": (2e9, 3e9)},
    },
    "heldout": {"gold_proxy_gap": (0.0, 1.0)},
}
#: Beside each figure as it comes: other axes, quantities and dimensions.
OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reward_curve", {"x": "tokens"}),
    ("kl_curve", {"x": "seconds"}),
    ("kl_curve", {"smoothing": 0.9}),
    ("gold_curve", {"y_scale": "log"}),
    ("norm_heatmap", {"rows": "kind", "role": "reward", "space": "effective"}),
    ("cosine_heatmap", {"column": "cos_other_update"}),
    ("trajectories", {"components": 3}),
    ("trajectories", {"same_length": True, "roles": ("policy",)}),
    ("arms", {"judge": "gold"}),
    ("cross_lag", {"show": "chance"}),
    ("subspace_overlap", {"k": 2, "by": "iteration"}),
)
CASES = [(name, {}) for name in recipes.names()] + list(OTHERS)


class Full(Recorded):
    """A fabricated run with what its maker leaves out: held-out completions, and the metrics of all methods."""

    def frame(self, stream: str, /) -> pd.DataFrame:
        frame = super().frame(stream)
        more = {"metrics": _metrics, "completions": _completions}.get(stream)
        return pd.concat([frame.astype({"role": object, "split": object}), more(frame, len(self.method) + 7 * self.seed)], ignore_index=True) if more else frame


def _metrics(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    parts = []
    for split, names in MORE.items():
        places = frame[(frame["split"] == split) & (frame["role"] == "policy")].drop_duplicates("clock")
        parts += [places.assign(split=split, role="policy", name=name, value=random.uniform(*ends, len(places))) for name, ends in names.items()]
    return pd.concat(parts)


def _completions(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = [
        frame.iloc[0].to_dict()
        | {"clock": 10 * iteration, "update": 4 * iteration, "iteration": iteration, "role": "policy", "split": "heldout", "prompt_id": f"h{prompt}"}
        | {"gold": 0.1 * prompt + 0.1 * iteration, "proxy": prompt + 0.5 * iteration + random.normal() / 5, "kl": 0.2 * iteration}
        for iteration in range(3)
        for prompt in range(5)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Full]:
    """Two methods with two seeds each; the first run alone serves the figures of one run."""
    root = tmp_path_factory.mktemp("twice")
    arms = [(method, seed) for method in ("rloo", "dpo") for seed in (0, 1)]
    return [Full(Fabricated(root / f"{method}-{seed}", layers=3, k=16, updates_each=4, method=method, seed=seed).whole()) for method, seed in arms]


def build(name: str, runs: Sequence[Recorded], **chosen: Any) -> FigureSpec:
    return recipes.make(name, runs if recipes.several(name) else runs[:1], **chosen)


# --- reading back ----------------------------------------------------------------------------------


def groups(spec: FigureSpec) -> list[tuple[Mark, pd.DataFrame]]:
    """What should be drawn, in order: the rows of each series of each mark; a heat map is one."""
    found = []
    for mark in spec.marks:
        rows = spec.data[spec.data["layer"] == mark.layer]
        names = dict.fromkeys(rows["series"])
        found += [(mark, rows)] if mark.kind == "heat" and len(rows) else [(mark, rows[rows["series"] == name]) for name in names if mark.kind != "heat"]
    return found


def artists(figure: Figure) -> list[list[Any]]:
    """The artists of each group, by the number in their name."""
    found: dict[int, list[Any]] = {}
    for artist in figure.findobj(lambda one: one.get_gid() is not None):
        number, part = (int(word) for word in str(artist.get_gid()).split("-")[-2:])
        found.setdefault(number, []).append((part, artist))
    return [[artist for _, artist in sorted(found[number], key=lambda item: item[0])] for number in sorted(found)]


def numbers(rows: pd.DataFrame, column: str) -> Any:
    """float32, and a gap for what has no place on an axis."""
    return np.array([value if abs(value) < np.inf else np.nan for value in rows[column].astype(float)], dtype=np.float32)


def words(figure: Figure, letter: str) -> dict[float, str]:
    axis = getattr(figure.axes[0], f"{letter}axis")
    return {tick: label.get_text() for tick, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)}


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found, dtype=np.float32), np.asarray(expected, dtype=np.float32))


def check_places(spec: FigureSpec, rows: pd.DataFrame, trace: Any, figure: Figure, artist: Any) -> None:
    drawn = artist.get_data_3d() if spec.z else artist.get_data()
    for letter, axis, on_paper in zip("xyz", [one for one in (spec.x, spec.y, spec.z) if one], drawn, strict=False):
        if axis.scale == "category":
            names = words(figure, letter)
            assert list(trace[letter]) == [names[place] for place in on_paper] == list(rows[axis.column])
        else:
            same(trace[letter], numbers(rows, axis.column))
            same(on_paper, numbers(rows, axis.column))


def check_band(spec: FigureSpec, rows: pd.DataFrame, trace: Any, artist: Any) -> None:
    x, low, high = (numbers(rows, column) for column in (spec.x.column, "low", "high"))
    same(trace.x, [*x, *x[::-1]])
    same(trace.y, [*high, *low[::-1]])
    known = np.isfinite(low) & np.isfinite(high)
    corners = {(float(a), float(np.float32(b))) for path in artist.get_paths() for a, b in path.vertices}
    assert corners == {(float(a), float(b)) for edge in (low, high) for a, b in zip(x[known], edge[known], strict=True)}


def check_whiskers(rows: pd.DataFrame, trace: Any, whiskers: Any, letter: str) -> None:
    """Along one axis from low to high, where both are known."""
    low, high = numbers(rows, "low"), numbers(rows, "high")
    known = np.isfinite(low) & np.isfinite(high)
    reach = trace[f"error_{letter}"]
    np.testing.assert_allclose(trace[letter] + reach.array, np.where(known, high, np.nan), rtol=1e-5)
    np.testing.assert_allclose(trace[letter] - reach.arrayminus, np.where(known, low, np.nan), rtol=1e-5)
    along = "xy".index(letter)
    ends = np.array([[segment[0][along], segment[1][along]] for segment in whiskers.get_segments() if len(segment)]).reshape(-1, 2)
    same(ends[np.isfinite(ends).all(axis=1)], np.stack([low, high], axis=1)[known])
    assert trace["error_y" if letter == "x" else "error_x"].array is None


def check_bars(spec: FigureSpec, rows: pd.DataFrame, trace: Any, parts: list[Any]) -> None:
    same(trace.y, numbers(rows, spec.y.column))
    bars, whiskers = parts[: len(rows)], parts[len(rows) :]
    same([bar.get_height() for bar in bars], numbers(rows, spec.y.column))
    assert len(whiskers) == ({"low", "high"} <= set(rows.columns))
    for lines in whiskers:
        check_whiskers(rows, trace, lines, "y")
        for segment, bar in zip(lines.get_segments(), bars, strict=True):
            assert not len(segment) or segment[0][0] == pytest.approx(bar.get_x() + bar.get_width() / 2, rel=1e-6)


def check_heat(spec: FigureSpec, rows: pd.DataFrame, trace: Any, figure: Figure, mesh: Any) -> None:
    assert spec.colour is not None
    on_paper = np.ma.filled(mesh.get_array().astype(float), np.nan)
    assert list(words(figure, "y").values()) == list(trace.y)
    order = list(trace.x)
    told = np.asarray(trace.customdata)
    shown = told if "null" not in rows else told[..., 0]
    assert on_paper.shape == (len(trace.y), len(order)) == shown.shape
    unknown = np.ones(on_paper.shape, dtype=bool)
    for row in rows.to_dict("records"):
        y, x = list(trace.y).index(row[spec.y.column]), order.index(row[spec.x.column])
        value = row[spec.colour.column]
        same(shown[y][x], value if abs(value) < np.inf else np.nan)
        assert "null" not in row or told[y][x][1] == np.float32(row["null"]) or np.isnan(row["null"])
        same(on_paper[y][x], value if abs(value) < np.inf else np.nan)
        unknown[y, x] = False
    assert np.isnan(on_paper[unknown]).all()
    assert np.isnan(shown[unknown]).all()
    if spec.colour.scale == "diverging":
        assert (mesh.norm.vmin, mesh.norm.vmax) == (trace.zmin, trace.zmax) == (-spec.colour.limit, spec.colour.limit)
    edges = mesh.get_coordinates()[0, :, 0]
    assert all(left < x < right for x, left, right in zip(order, edges, edges[1:], strict=False))


def check_dots(rows: pd.DataFrame, trace: Any, figure: Figure, parts: list[Any]) -> None:
    """A dot in the cells that lie within chance, and in no other."""
    expected = {(float(row["update"]), row["row"]) for row in rows.to_dict("records") if row.get("within")}
    on_screen = {(float(x), y) for y, line in zip(trace.y, trace.text or (), strict=False) for x, word in zip(trace.x, line, strict=True) if word}
    names = words(figure, "y")
    on_paper = {(float(x), names[y]) for part in parts for x, y in zip(*part.get_data(), strict=True)}
    assert on_screen == on_paper == expected


def colour_of(kind: str, artist: Any) -> str:
    shade = artist.get_facecolor() if kind in ("band", "bar") else artist.get_color()
    return str(colors.to_hex(shade[0] if kind == "band" else shade)).upper()


def colour_on_screen(kind: str, trace: Any) -> str:
    shade = trace.fillcolor if kind == "band" else trace.line.color if kind == "line" else trace.marker.color
    return str(shade).upper()


def check(spec: FigureSpec) -> None:
    chart, figure = screen.draw(spec), paper.draw(spec, venue="icml")
    expected, drawn = groups(spec), artists(figure)
    assert len(expected) == len(chart.data) == len(drawn) > 0
    for (mark, rows), trace, parts in zip(expected, chart.data, drawn, strict=True):
        if mark.kind in ("line", "points", "interval"):
            check_places(spec, rows, trace, figure, parts[0])
        if mark.kind == "interval":
            check_whiskers(rows, trace, parts[1], mark.along)
        if mark.kind == "band":
            check_band(spec, rows, trace, parts[0])
        if mark.kind == "bar":
            check_bars(spec, rows, trace, parts)
        if mark.kind == "heat":
            check_heat(spec, rows, trace, figure, parts[0])
            check_dots(rows, trace, figure, parts[1:])
        else:
            assert colour_on_screen(mark.kind, trace) == colour_of(mark.kind, parts[0])


# --- every figure ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "chosen"), CASES, ids=[f"{name}-{'-'.join(map(str, chosen.values()))}" for name, chosen in CASES])
def test_both_renderers_show_the_numbers_of_the_data(runs: list[Full], name: str, chosen: dict[str, Any]) -> None:
    spec = build(name, runs, **chosen)
    assert not spec.empty, "give the fabricated run what this figure shows (MORE)"
    check(spec)


def test_two_dozen_series_look_different_in_both() -> None:
    """Lines by colour and dash, markers by colour and shape; the second channel of the one renderer stands for one of the other."""
    names = [f"m{number}" for number in range(24)]
    data = pd.DataFrame([{"layer": "", "series": name, "x": float(x), "y": float(x)} for name in names for x in range(50)])
    lines, points = (FigureSpec("looks", "", data, (Mark(kind, ""),), Axis("x", "x"), Axis("y", "y"), "", "", 24, ()) for kind in ("line", "points"))
    on_screen = [(line.line.color, line.line.dash, one.marker.symbol) for line, one in zip(screen.draw(lines).data, screen.draw(points).data, strict=True)]
    pairs = zip(artists(paper.draw(lines)), artists(paper.draw(points)), strict=True)
    on_paper = [(line.get_color(), str(line._dash_pattern), (one.get_marker(), one.get_fillstyle())) for (line,), (one,) in pairs]
    for drawn in (on_screen, on_paper):
        assert len({(colour, dash) for colour, dash, _ in drawn}) == len({(colour, marker) for colour, _, marker in drawn}) == 24
    for channel in range(3):
        assert len({(ours[channel], theirs[channel]) for ours, theirs in zip(on_screen, on_paper, strict=True)}) == 6


def test_the_first_six_series_look_as_published() -> None:
    colours = ("#4477AA", "#AA3377", "#CCBB44", "#66CCEE", "#EE6677", "#228833")
    dashes, markers = ("solid", "dashdot", "longdash", "longdashdot", "dash", "dot"), ("circle", "diamond", "x", "square-open", "square", "cross")
    assert [screen._STYLES[style(name, "abcdef")] for name in "abcdef"] == list(zip(colours, dashes, markers, strict=True))
    assert [look[2:] for look in paper._STYLES[:6]] == [("o", "full"), ("s", "full"), ("P", "full"), ("D", "full"), ("X", "full"), ("s", "none")]


def test_every_registered_figure_is_among_them() -> None:
    assert {name for name, _ in CASES} == set(figures.FIGURES) >= {"reward_curve", "norm_heatmap", "trajectories", "arms", "arm_differences"}


def test_paths_of_two_runs_stay_two_lines(runs: list[Full]) -> None:
    spec = recipes.make("trajectories", [runs[0], runs[1]], roles=("policy",))
    check(spec)
    lines = [rows for mark, rows in groups(spec) if mark.kind == "line"]
    assert len(lines) == 2
    assert {rows["run"].nunique() for rows in lines} == {1}
    assert [line.get_label() for line, *_ in artists(paper.draw(spec))[:2]] == ["policy, rloo-0", "policy, rloo-1"]


def test_what_is_no_number_is_a_gap_in_both(tmp_path: Path) -> None:
    run = Recorded(Fabricated(tmp_path / "bad", layers=1, k=8, updates_each=6, bad_numbers=True).whole())
    for name, every in (("reward_curve", 3), ("kl_curve", 4)):
        spec = build(name, [run])
        check(spec)
        drawn = next(parts[0] for (mark, _), parts in zip(groups(spec), artists(paper.draw(spec)), strict=True) if mark.layer == "train")
        unknown = np.isnan(drawn.get_ydata())
        assert list(np.flatnonzero(unknown) + 1) == list(range(every, 13, every))
        assert strokes(paper.render(spec, "svg").decode(), drawn.get_gid()) == runs_of(~unknown)


def runs_of(known: Any) -> int:
    """How many stretches of known values there are."""
    return int((np.diff(np.concatenate([[0], known.astype(int)])) == 1).sum())


def strokes(svg: str, name: str) -> int:
    """How often the pen is put down to draw the line of that name."""
    path = re.search(rf'<g id="{name}">\s*<path d="([^"]*)"', svg)
    assert path
    return path[1].count("M")


def other_kinds() -> Iterator[FigureSpec]:
    """Marks and scales that no figure uses yet."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"layer": "a", "x": [*range(1, 6)] * 2, "y": random.uniform(1, 1000, 10), "series": ["one"] * 5 + ["two"] * 5, "clock": 1})
    yield FigureSpec("bars", "t", rows, (Mark("bar", "a"),), Axis("x", "x"), Axis("y", "y"), "c", "a", 10, ("r",))
    yield FigureSpec("logs", "t", rows, (Mark("line", "a"),), Axis("x", "x", scale="log"), Axis("y", "y", scale="log"), "c", "a", 10, ("r",))
    cells = rows.assign(value=rows["y"].where(rows["x"] > 1), row=rows["series"])
    heat = (Mark("heat", "a"),)
    yield FigureSpec("cells", "t", cells, heat, Axis("x", "x"), Axis("row", "r", scale="category"), "c", "a", 10, ("r",), colour=Axis("value", "v"))
    chance = Axis("value", "v", "SD", scale="diverging", limit=4)
    yield FigureSpec("far", "t", cells, heat, Axis("x", "x"), Axis("row", "r", scale="category"), "c", "a", 10, ("r",), colour=chance)
    ranged = rows.assign(low=(rows["y"] - 3).where(rows["x"] != 2), high=(rows["y"] + 50).where(rows["x"] != 4))
    yield FigureSpec("upright", "t", ranged, (Mark("interval", "a", along="y"),), Axis("x", "x"), Axis("y", "y"), "c", "a", 10, ("r",))
    yield FigureSpec(
        "lying", "t", ranged.assign(low=rows["x"] - 1, high=rows["x"] + 0.5), (Mark("interval", "a"),), Axis("x", "x"), Axis("y", "y"), "c", "a", 10, ()
    )
    yield FigureSpec("ranged bars", "t", ranged, (Mark("bar", "a"),), Axis("x", "x"), Axis("y", "y"), "c", "a", 10, ("r",))


@pytest.mark.parametrize("spec", list(other_kinds()), ids=lambda spec: spec.name)
def test_other_marks_and_scales_agree_too(spec: FigureSpec) -> None:
    check(spec)


def test_cells_within_chance_are_dotted_and_the_others_not(runs: list[Full]) -> None:
    cells = build("cosine_heatmap", runs, column="cos_other_update").data
    assert 0 < cells["within"].sum() < len(cells), "this run says nothing of dots"
    trace = screen.draw(build("cosine_heatmap", runs, column="cos_other_update")).data[0]
    assert "chance SD" in trace.hovertemplate
    assert screen.draw(build("cosine_heatmap", runs)).data[0].text is None


def titled(label: str, unit: str, height: int) -> tuple[str, str]:
    """Titles of both axes on the screen, of a chart this high."""
    rows = pd.DataFrame({"layer": "a", "series": "s", "x": [1.0, 2.0], "y": [1.0, 2.0]})
    spec = FigureSpec("f", "t", rows, (Mark("line", "a"),), Axis("x", label, unit), Axis("y", label, unit), "c", "a", 2, ("r",))
    layout = screen.draw(spec, height=height).layout
    return layout.xaxis.title.text, layout.yaxis.title.text


def test_long_axis_titles_break_before_their_unit_and_short_ones_do_not() -> None:
    assert titled("KL", "nats", 260) == ("KL (nats)", "KL (nats)")
    assert titled("error of the forecast", "true lengths", 300) == ("error of the forecast<br>(true lengths)",) * 2
    assert titled("error of the forecast", "true lengths", 440)[1] == "error of the forecast (true lengths)", "a high chart has room"
    assert titled("gain of proxy minus gain of gold", "SD before training", 300)[0] == "gain of proxy minus gain of gold<br>(SD before training)"
    across, _ = titled("completion tokens sampled for training so far", "tokens", 300)
    assert across == "completion tokens sampled for<br>training so far (tokens)", "one line less than with the unit by itself"
    assert max(map(len, titled("distance from the start / length of the way", "", 300)[1].split("<br>"))) <= 28


def test_no_axis_title_brings_tags_into_a_chart() -> None:
    assert titled('minus <a href="http://evil.example">x</a>', "", 300)[0].startswith("minus &lt;a")


@pytest.mark.parametrize(("name", "chosen"), CASES[:: max(1, len(CASES) // 12)], ids=str)
def test_axes_say_the_same_on_both(runs: list[Full], name: str, chosen: dict[str, Any]) -> None:
    spec = build(name, runs, **chosen)
    chart, figure = screen.draw(spec), paper.draw(spec, width="text")
    axes = figure.axes[0]
    for letter in "xy" if spec.z is None else "":
        on_screen = chart.layout[f"{letter}axis"]
        assert " ".join(getattr(axes, f"get_{letter}label")().split()) == on_screen.title.text.replace("<br>", " ")
        assert (on_screen.type == "log") == (getattr(axes, f"get_{letter}scale")() == "log")
