"""What a heat map of cosines says of chance: the spread of each cell against random vectors, the dots, the counts of the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import figures, nulls, screen

#: Two modules of one layer: how many numbers each has, and how long its updates are.
SIZES, LENGTHS = (60, 12), (1.0, 3.0)


def recorded(updates: int, layers: int = 1, seed: int = 0) -> pd.DataFrame:
    """Policy and reward model take turns with updates that have nothing to do with each other; what a recorder would write of them."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(1, updates + 1):
        for place, role in enumerate(("reward", "policy")):
            rows += [_row(random, role, number, 2 * number + place, layer, module) for layer in range(layers) for module in range(len(SIZES))]
    return pd.DataFrame(rows)


def _row(random: np.random.Generator, role: str, number: int, clock: int, layer: int, module: int) -> dict[str, Any]:
    own, other = random.standard_normal((2, SIZES[module]))
    cosine = float(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
    place = {"clock": clock, "update": number, "iteration": 1, "role": role, "module": f"{layer}.{module}", "layer": layer, "kind": f"k{module}"}
    numbers = {"update_norm": LENGTHS[module], "cos_previous": cosine, "cos_other_update": cosine, "null_other_update": SIZES[module] ** -0.5}
    return {**place, **numbers, "space": "factor", "other_role": "reward" if role == "policy" else "policy"}


def drawn(frame: pd.DataFrame, **chosen: Any) -> Any:
    return figures.cosine_heatmap(frame, "policy", run="r", **{"column": "cos_other_update", **chosen})


def test_the_chance_spread_of_a_cell_is_that_of_unrelated_updates() -> None:
    cells = drawn(recorded(2000)).data
    expected = float(nulls.null_sd([size**-0.5 for size in SIZES], LENGTHS, LENGTHS)[()])
    np.testing.assert_allclose(cells["null"], expected, rtol=1e-5)
    assert cells["value"].std() == pytest.approx(expected, rel=0.05)
    assert cells["within"].mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("size", "limit"), [(0.02, figures.LEAST_LIMIT), (0.31, 0.31), (1.0, 1.0)])
def test_colours_reach_as_far_as_what_is_drawn(size: float, limit: float) -> None:
    frame = recorded(5).assign(cos_other_update=lambda rows: np.where(rows["update"] == 3, -size, 0.0))
    spec = drawn(frame)
    assert spec.colour.limit == pytest.approx(limit)
    cells = screen.draw(spec).data[0]
    assert (cells.zmin, cells.zmax) == (-spec.colour.limit, spec.colour.limit)


def test_charts_that_are_compared_have_the_widest_of_their_scales() -> None:
    made = [screen.draw(drawn(recorded(5).assign(cos_other_update=size))) for size in (0.2, 0.7)]
    screen.alike(made)
    assert [(one.data[0].zmin, one.data[0].zmax) for one in made] == [pytest.approx((-0.7, 0.7))] * 2


def test_the_caption_counts_the_cells_beyond_chance_and_those_that_chance_would_put_there() -> None:
    spec = drawn(recorded(100, layers=4))
    beyond = int((spec.data["value"].abs() > 1.959964 * spec.data["null"]).sum())
    assert 0 < beyond < 50
    assert f"{beyond} of 400 cells of the policy lie beyond 1.96 chance SD; chance alone gives about 20" in spec.caption
    assert "Dotted: within chance." in spec.caption
    assert int(spec.data["within"].sum()) == 400 - beyond


def test_a_module_without_a_spread_is_left_out_of_it() -> None:
    frame = recorded(20)
    frame.loc[(frame["module"] == "0.1") & (frame["update"] > 10), "null_other_update"] = np.nan
    frame.loc[frame["update"] > 15, "null_other_update"] = np.nan
    cells = drawn(frame).data.set_index("update")
    np.testing.assert_allclose(cells.loc[11:15, "null"], SIZES[0] ** -0.5, rtol=1e-5)
    assert cells.loc[16:, "null"].isna().all()
    assert not cells.loc[16:, "within"].any()
    assert "of 15 cells of the policy lie" in drawn(frame).caption


@pytest.mark.parametrize("how", ["no column", "nothing in it"])
def test_an_older_recording_says_that_it_holds_no_chance(how: str) -> None:
    frame = recorded(20)
    older = frame.drop(columns="null_other_update") if how == "no column" else frame.assign(null_other_update=np.nan)
    spec = drawn(older)
    assert figures.NO_CHANCE in spec.caption
    assert not {"null", "within"} & set(spec.data)
    assert screen.draw(spec).data[0].text is None


def test_persistence_and_norms_say_that_chance_is_not_recorded() -> None:
    spec = drawn(recorded(20), column="cos_previous")
    assert "holds no chance spread of this cosine" in spec.caption
    assert not {"null", "within"} & set(spec.data)
    assert "A norm has no chance level." in figures.norm_heatmap(recorded(20), "policy", run="r").caption


def test_too_many_cells_get_no_dots_and_keep_their_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_DOTTED", 19)
    spec = drawn(recorded(20))
    assert "within" not in spec.data
    assert spec.data["null"].notna().all()
    assert "of 20 cells of the policy lie beyond" in spec.caption
    assert "Dotted" not in spec.caption


def test_a_bin_of_many_updates_shows_the_spread_of_the_cell_that_it_keeps() -> None:
    frame = recorded(screen.MOST_COLUMNS + 400)
    frame["null_other_update"] *= frame["update"] / 1000
    spec = drawn(frame)
    cells = screen.draw(spec).data[0].customdata[0]
    assert len(cells) == screen.MOST_COLUMNS
    assert (np.diff(cells[:, 1]) > 0).all(), "the spread grows with the update"
    known = dict(zip(spec.data["value"], spec.data["null"], strict=True))
    assert all(known[value] == null for value, null in cells)
