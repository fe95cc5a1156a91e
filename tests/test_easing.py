"""Moving averages and logarithmic axes: by their formula, beside what was recorded, and said in the caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import easing, figures, paper, recipes, screen
from analysis.spec import RECORDED, Axis, FigureSpec, Mark
from app.reading.recorded import Recorded
from interplay.errors import ConfigError
from tests.fabricate import Fabricated


def spec_of(values: list[float], heldout: Sequence[float] = ()) -> FigureSpec:
    train = pd.DataFrame({"layer": "train", "series": "a", "x": np.arange(len(values)), "y": np.array(values, np.float32)})
    dots = pd.DataFrame({"layer": "heldout", "series": "a", "x": np.arange(len(heldout)), "y": np.array(heldout, np.float32)})
    marks = (Mark("line", "train", strong=False), Mark("line", "heldout"), Mark("points", "heldout"))
    return FigureSpec(
        "run_curves", "Loss", pd.concat([train, dots], ignore_index=True), marks, Axis("x", "x"), Axis("y", "y"), "Loss.", "", len(values), ("a",)
    )


def rows(spec: FigureSpec, layer: str) -> list[float]:
    return spec.data.loc[spec.data["layer"] == layer, "y"].tolist()


def test_an_average_weighs_what_is_older_less_and_begins_at_the_first_value() -> None:
    values, weight = [4.0, 1.0, 3.0, -2.0, 5.0], 0.8
    expected = []
    for t in range(len(values)):
        weights = [weight**i for i in range(t + 1)]
        expected.append(sum(w * values[t - i] for i, w in enumerate(weights)) / sum(weights))
    assert easing.average(weight)(pd.Series(values)).tolist() == pytest.approx(expected, rel=1e-6)
    assert expected[0] == values[0]


def test_what_is_not_finite_is_left_out_and_stays_a_gap() -> None:
    values = pd.Series([1.0, np.nan, np.inf, 3.0])
    found = easing.average(0.5)(values)
    assert np.isnan(found[[1, 2]]).all()
    assert found[3] == pytest.approx((3.0 + 0.5 * 1.0) / 1.5)  # as if the two had not been there
    assert easing.average(0.5)(pd.Series([np.nan, np.nan])).isna().all()


def test_what_was_recorded_stays_behind_its_average_and_held_out_scores_as_they_are() -> None:
    plain = spec_of([1, 2, 3, 4], [9, 7])
    spec = easing.eased(plain, 0.5, "linear")
    assert (rows(spec, RECORDED), rows(spec, "heldout")) == ([1, 2, 3, 4], [9, 7])
    assert rows(spec, "train") == pytest.approx(easing.average(0.5)(pd.Series([1.0, 2, 3, 4])).tolist())
    assert spec.n == plain.n
    assert "w = 0.5" in spec.caption
    assert "faint: as recorded" in spec.caption


def test_each_run_is_averaged_by_itself(tmp_path: Path) -> None:
    runs = [Recorded(Fabricated(tmp_path / name, layers=1, k=16, updates_each=4).whole()) for name in ("one", "two")]
    spec = recipes.make("run_curves", runs, smoothing=0.9)
    for run in ("one", "two"):
        own = spec.data[spec.data["run"] == run]
        recorded, averaged = (own.loc[own["layer"] == layer, "y"].to_numpy() for layer in (RECORDED, "train"))
        assert averaged == pytest.approx(easing.average(0.9)(pd.Series(recorded)).to_numpy())
    assert averaged[0] == recorded[0]


def test_nothing_is_averaged_where_nothing_is_asked_for_or_there() -> None:
    plain, dots = spec_of([1, 2]), spec_of([], [3, 4])
    assert easing.eased(plain, 0.0, "linear") is plain
    assert easing.eased(dots, 0.9, "linear") is dots, "its caption would speak of averages that nobody sees"


@pytest.mark.parametrize("weight", [-0.1, 1.0, 2.0, float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"smoothing is .*; it must be at least 0 and less than 1"):
        easing.eased(spec_of([1, 2]), weight, "linear")


def test_a_logarithmic_axis_says_how_many_values_have_no_place_on_it() -> None:
    spec = easing.eased(spec_of([0.1, -2, 0, 10, np.nan]), 0.0, "log")
    assert spec.y.scale == "log"
    assert "Logarithmic vertical axis. 2 of 4 values are not above 0" in spec.caption
    assert "not above" not in easing.eased(spec_of([1, 10]), 0.0, "log").caption


def test_an_axis_stays_linear_where_most_values_would_have_no_place_on_it() -> None:
    spec = easing.eased(spec_of([-1, 0, 2]), 0.0, "log")
    assert spec.y.scale == "linear"
    assert "Linear vertical axis: 2 of 3 values are not above 0" in spec.caption


def test_what_has_no_place_on_a_logarithmic_axis_is_a_gap_and_not_a_fall() -> None:
    """plotly and matplotlib alike would draw a line down to the end of the axis."""
    plain = spec_of([1, 0, 2, 3], [1, 2])
    band = plain.data["layer"] == "heldout"
    banded = replace(
        plain,
        data=plain.data.assign(low=plain.data["y"].where(band) - 1.5, high=plain.data["y"].where(band) + 1),
        marks=(Mark("band", "heldout"), *plain.marks),
    )
    spec = easing.eased(banded, 0.0, "log")
    veil, line, *_ = screen.draw(spec).data
    assert np.array_equal(line.y, np.array([1, np.nan, 2, 3], np.float32), equal_nan=True)
    assert list(veil.y) == [2, 3, 0.5, 1], "from above to below, where the end below 0 lies at the smallest value"
    drawn = paper.draw(spec).axes[0].lines[0].get_ydata()
    assert np.array_equal(drawn, [1, np.nan, 2, 3], equal_nan=True)


def test_both_renderers_draw_averages_over_faint_values_and_name_a_run_once() -> None:
    spec = easing.eased(spec_of(list(np.linspace(1, 50, 50)), [2, 40]), 0.9, "log")
    drawn = screen.draw(spec)
    assert drawn.layout.yaxis.tickformat == "~g"
    faint, average, *_ = drawn.data
    assert (faint.opacity, average.opacity) == (0.35, None)
    assert [trace.name for trace in drawn.data if trace.showlegend is not False] == ["a"]
    assert average.showlegend is not False, "the legend shows the line that counts, not the faint one"
    assert drawn.layout.yaxis.type == "log"
    axes = paper.draw(spec).axes[0]
    assert axes.get_yscale() == "log"
    assert [line.get_alpha() for line in axes.lines][:2] == [0.35, None]


def test_where_one_looked_is_forgotten_when_the_axis_changes() -> None:
    plain = spec_of([1, 2])
    revisions = {screen.draw(easing.eased(plain, 0.0, scale)).layout.uirevision for scale in ("linear", "log")}  # type: ignore[arg-type]
    assert len(revisions) == 2


def test_they_are_typed_as_settings() -> None:
    for name in ("reward_curve", "gold_curve", "kl_curve", "run_curves"):
        assert recipes.read_settings(name, {"smoothing": "0.9", "y_scale": "log"}) == {"smoothing": 0.9, "y_scale": "log"}
    with pytest.raises(ConfigError, match="y_scale is 'lin'"):
        recipes.read_settings("run_curves", {"y_scale": "lin"})


def test_a_single_curve_can_be_averaged_too(tmp_path: Path) -> None:
    run = Recorded(Fabricated(tmp_path / "one", layers=1, k=16, updates_each=4).whole())
    spec = recipes.make("reward_curve", [run], smoothing=0.5)
    assert set(spec.data["layer"]) >= {RECORDED, "train"}
    assert spec.n == figures.reward_curve(run.frame("metrics"), run="one").n
