"""Where a moment lies in a picture and which moment a point is, against loops of its own; texts word by word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricate import HOSTILE

from analysis import moments, wording
from analysis.spec import Axis, FigureSpec, Mark

ROLES = ("policy", "reward model")


def curves() -> FigureSpec:
    """Two runs; the second steps every third clock."""
    rows = [
        {"layer": "train", "series": run, "run": run, "clock": clock, "x": 10.0 * clock, "y": 0.0}
        for run, by in (("a", 1), ("b", 3))
        for clock in range(by, 13, by)
    ]
    return FigureSpec("run_curves", "t", pd.DataFrame(rows), (Mark("line", "train"),), Axis("x", "x"), Axis("y", "y"), "", "", 1, ("a", "b"))


def paths() -> FigureSpec:
    """The reward model moves at odd clocks, the policy at even ones, from the same start."""
    rows = [
        {
            "layer": "path",
            "series": role,
            "run": "a",
            "update": update,
            "clock": 0 if not update else 2 * update - number,
            "c1": update + 0.5,
            "c2": -float(update),
        }
        for number, role in enumerate(ROLES)
        for update in range(6)
    ]
    return FigureSpec("trajectories", "t", pd.DataFrame(rows), (Mark("line", "path"),), Axis("c1", "x"), Axis("c2", "y"), "", "", 1, ("a",))


@pytest.mark.parametrize("clock", [0, 1, 2, 3, 5, 12, 99])
def test_a_rule_stands_at_the_last_moment_that_is_not_later(clock: int) -> None:
    spec = curves()
    expected = []
    for run in ("a", "b"):
        past = [row for _, row in spec.data.iterrows() if row["run"] == run and row["clock"] <= clock]
        expected += [past[-1]["x"]] if past else []
    assert moments.of(spec).at({"a": clock, "b": clock}) == {"rules": expected}


def test_runs_have_their_own_clocks() -> None:
    assert moments.of(curves()).at({"b": 7}) == {"rules": [60.0]}
    assert moments.of(curves()).at({}) == {"rules": []}


@pytest.mark.parametrize("clock", range(12))
def test_a_ring_stands_on_each_path(clock: int) -> None:
    spec = paths()
    for point in moments.of(spec).at({"a": clock})["points"]:
        past = [row for _, row in spec.data.iterrows() if row["series"] == point["series"] and row["clock"] <= clock]
        assert point["update"] == past[-1]["update"]
        assert point["place"] == [past[-1]["c1"], past[-1]["c2"]]


def test_a_path_has_no_place_before_it_begins() -> None:
    spec = paths()
    later = FigureSpec(**{**spec.__dict__, "data": spec.data[spec.data["update"] > 2]})
    assert all(point["place"] is None and point["update"] == -1 for point in moments.of(later).at({"a": 1})["points"])


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("update", range(1, 6))
def test_a_point_of_a_path_is_a_moment_and_leads_back_to_itself(number: int, update: int) -> None:
    found = moments.of(paths())
    assert found.clock({"series": ROLES[number], "update": update, "x": 0.0}) == ("a", 2 * update - number)
    ring = next(point for point in found.at({"a": 2 * update - number})["points"] if point["series"] == ROLES[number])
    assert ring["update"] == update


def test_the_nearest_moment_of_a_place_on_the_axis() -> None:
    found = moments.of(curves())
    assert found.clock({"series": "b", "x": 64.0, "update": None}) == ("b", 6)
    assert found.clock({"series": "a", "x": 64.0}) == ("a", 6)
    assert found.clock({"series": "of neither", "x": 1e9}) == ("a", 12)


@pytest.mark.parametrize("point", [{}, {"x": "12"}, {"x": None}, {"x": float("nan")}, {"x": [1]}, {"update": 3}])
def test_what_is_no_point_leads_nowhere(point: dict[str, object]) -> None:
    assert moments.of(curves()).clock(point) is None


@pytest.mark.parametrize("point", [{}, {"update": "1", "series": "policy"}, {"update": 1, "series": "another"}, {"update": float("inf"), "series": "policy"}])
def test_what_is_no_point_of_a_path_leads_nowhere(point: dict[str, object]) -> None:
    assert moments.of(paths()).clock(point) is None


def test_figures_without_clocks_and_without_rows_have_no_moments() -> None:
    bare = FigureSpec(
        "arms", "t", pd.DataFrame({"layer": ["a"], "series": ["s"], "x": [1.0], "y": [1.0]}), (), Axis("x", "x"), Axis("y", "y"), "", "", 1, ("a",)
    )
    assert moments.of(bare).at({"a": 3}) == {"rules": []}
    empty = FigureSpec(**{**curves().__dict__, "data": curves().data.iloc[:0]})
    assert moments.of(empty).clock({"x": 1.0}) is None


def test_places_that_are_not_known_are_not_marked() -> None:
    spec = curves()
    spec.data.loc[spec.data["run"] == "a", "x"] = np.nan
    found = moments.of(spec)
    assert found.at({"a": 6, "b": 6}) == {"rules": [60.0]}
    assert found.clock({"series": "a", "x": 60.0}) is None


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 4), (3, 7), (5, 12)])
def test_the_same_share_of_the_way(number: int, expected: int) -> None:
    assert moments.align(number, (1, 5), (1, 12), share=True) == pytest.approx(expected, abs=0.5)
    assert moments.align(expected, (1, 12), (1, 5), share=True) == number


def test_the_same_number_stays_within_the_other_run() -> None:
    assert [moments.align(number, (1, 9), (2, 5), share=False) for number in (1, 4, 9)] == [2, 4, 5]
    assert moments.align(3, (3, 3), (1, 5), share=True) == 3


# --- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "own"),
    [
        ("The sea keeps every secret.", "The sea tells no secret.", (["keeps every "], ["tells no "])),
        ("one two three", "one two three", ([], [])),
        ("", "new words", ([], ["new words"])),
        ("彼は猫が好き", "彼は犬が好き", (["猫"], ["犬"])),
        ("a  b\n\nc", "a b c", ([], [])),
        ("Yes.", "Yes!", (["."], ["!"])),
    ],
)
def test_words_that_only_one_text_has(left: str, right: str, own: tuple[list[str], list[str]]) -> None:
    found = wording.differences(left, right)
    assert tuple([piece.text for piece in side if piece.own] for side in found) == own


@pytest.mark.parametrize("text", [HOSTILE, "", " \n", "a\x00b", "𝔘𝔫𝔦 ﷽ \u202e", "word " * 3000])
def test_no_letter_is_lost(text: str) -> None:
    for left, right in ((text, "another text"), ("another text", text), (text, text[::-1])):
        found = wording.differences(left, right)
        assert ["".join(piece.text for piece in side) for side in found] == [left, right]


def test_a_long_text_is_compared_at_its_beginning() -> None:
    left, right = ("same " * (wording.MOST_WORDS - 1) + end for end in ("old " * 5, "new " * 5))
    found = wording.differences(left, right)
    assert [piece.text for piece in found[0] if piece.own] == ["old "]
