"""The figures of a comparison say the table's numbers."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from test_comparison import frames

from analysis import arms, figures, screen
from analysis.comparison import Comparison, compare


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(*frames(("rloo", "dpo", "walk")), ("rloo", "dpo", "walk"), {"walk"})


@pytest.mark.parametrize("judge", ["proxy", "gold"])
def test_dots_are_seeds_and_whiskers_students_interval(found: Comparison, judge: str) -> None:
    spec = arms.arms(found.runs, found.methods, judge=judge)
    dots, means = (spec.rows(mark) for mark in spec.marks)
    assert len(dots) == spec.n == 9
    assert set(dots["method"]) == {"rloo", "dpo", "walk (control)"}
    for row in found.methods:
        mine = means[means["method"].str.split().str[0] == row["method"]].iloc[0]
        assert (mine["x"], mine["low"], mine["high"]) == (row[judge]["mean"], *row[judge]["student"])
        assert f"{row[judge]['mean']:+.2f}" in spec.alt
    for rows in (dots, means):  # a category axis is drawn from below: the first method ends on top
        assert list(dict.fromkeys(rows["method"])) == ["walk (control)", "dpo", "rloo"]
    assert "3 seeds" in spec.caption


def test_one_seed_has_no_interval() -> None:
    alone = compare(*frames(("rloo", "dpo"), seeds=(0,)), ("rloo", "dpo"), set())
    for spec in (arms.arms(alone.runs, alone.methods), arms.arm_differences(alone.differences)):
        assert "nan" not in spec.alt
        assert spec.alt.count("no interval") == len(spec.rows(spec.marks[1])) > 0
        assert "One seed has no interval." in spec.caption
        assert screen.draw(spec).data


def test_differences_are_those_of_the_table(found: Comparison) -> None:
    spec = arms.arm_differences(found.differences, judge="gold")
    wanted = [row for row in found.differences if row["judge"] == "gold"]
    means = spec.rows(spec.marks[1]).set_index("method")
    assert {name: means.loc[name, "x"] for name in ("dpo", "walk")} == {row["method"]: row["mean"] for row in wanted}
    assert sorted(spec.rows(spec.marks[0])["x"]) == pytest.approx(sorted(value for row in wanted for value in row["by_seed"].values()))
    assert "minus rloo" in spec.x.text


def test_the_screen_draws_words_on_one_axis_and_whiskers(found: Comparison) -> None:
    assert {"arms", "arm_differences"} <= set(figures.FIGURES)
    spec = arms.arms(found.runs, found.methods)
    dots, means = screen.draw(spec).data
    assert set(dots.y) == {"rloo", "dpo", "walk (control)"}
    row = asdict(found)["methods"][0]["proxy"]
    place = list(means.y).index("rloo")
    assert means.x[place] + means.error_x.array[place] == pytest.approx(row["student"][1], rel=1e-4)
    assert means.x[place] - means.error_x.arrayminus[place] == pytest.approx(row["student"][0], rel=1e-4)
