"""Figures of one layer or kind of module, the figure of the verdicts, and the words that stand beside every figure."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fabricate import Fabricated

from analysis import explain, recipes
from app.commands import reporting
from app.reading import recordings
from app.reading.recorded import Recorded


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


# --- words ---------------------------------------------------------------------------------------


def test_every_figure_is_explained_and_nothing_else() -> None:
    assert set(explain.FIGURES) == set(recipes.names())


@pytest.mark.parametrize("told", [*explain.FIGURES.items(), *explain.CLAIMS.items(), ("forecast", explain.FORECAST)], ids=lambda told: told[0])
def test_words_are_sentences_and_formulas_plain_letters(told: tuple[str, explain.Explanation]) -> None:
    one = told[1]
    assert one.what[-1] in ".?"
    assert one.misleads[-1] in ".?"
    assert 20 < len(one.what) < 200
    assert len(one.misleads) > 20
    assert one.formula
    assert not set("\\${}") & set(one.formula)


def test_what_a_figure_says_of_these_runs_is_told_from_what_it_says_anyway(root: Path) -> None:
    run = [Recorded(Fabricated(root / "a", layers=2, k=16, updates_each=4).whole())]
    whole, part = recipes.make("alignment_curve", run), recipes.make("alignment_curve", run, layer="1")
    assert explain.reading(whole).startswith("Mean over 8 updates")
    assert explain.reading(part).startswith("Mean over 8 updates")
    assert explain.reading(whole) != explain.reading(part)
    paths = recipes.make("trajectories", run)
    assert explain.reading(paths) == paths.caption


# --- verdicts ------------------------------------------------------------------------------------


def test_the_figure_of_verdicts_has_the_numbers_of_the_report(root: Path) -> None:
    path = Fabricated(root / "a", layers=2, k=16, updates_each=6).whole()
    told = {row["label"]: row for row in reporting.to_json([recordings.load(path)])["verdicts"]}
    data = recipes.make("verdict_numbers", [Recorded(path)]).data
    found = data[data["layer"] == "found"].set_index("row")
    assert list(found.index) == ["C2", "C1"]
    for label, row in found.iterrows():
        assert (row["x"], row["low"], row["high"]) == pytest.approx((told[str(label)]["value"], *told[str(label)]["interval"]), abs=1e-6)
    with pytest.raises(ValueError, match="claim is 'C7'; it can be cosines, C1"):
        recipes.make("verdict_numbers", [Recorded(path)], claim="C7")
    assert "Not recorded: nothing that C4 could rest on" in recipes.make("verdict_numbers", [Recorded(path)], claim="C4").caption


# --- parts of the model ----------------------------------------------------------------------------


def test_a_layer_is_measured_by_its_modules_alone(root: Path) -> None:
    run = Recorded(Fabricated(root / "a", layers=3, k=16, updates_each=4).whole())
    rows = run.frame("updates").astype({"role": object, "space": object, "kind": object, "module": object}).sort_values("clock").to_dict("records")
    last: dict[str, float] = {}
    sums: dict[int, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["space"] != "effective" or row["layer"] != 1 or row["kind"] not in ("q_proj",):
            continue
        if row["role"] == "reward":
            last[row["module"]] = row["update_norm"]
        elif row["role"] == "policy":
            a, b = row["update_norm"], last[row["module"]]
            sums.setdefault(row["update"], []).append((row["cos_other_update"] * a * b, a * a, b * b))
    data = recipes.make("alignment_curve", [run], layer="1", kind="q_proj").data
    found = data[data["layer"] == "cosine"].set_index("x")["y"]
    assert set(found.index) == set(sums)
    for update, parts in sums.items():
        dot, own, other = (math.fsum(part[place] for part in parts) for place in range(3))
        assert found[update] == pytest.approx(dot / math.sqrt(own * other), abs=1e-6)


def test_parts_of_paths_have_the_modules_of_the_part(root: Path) -> None:
    run = Recorded(Fabricated(root / "a", layers=3, k=16, updates_each=6).whole())
    for name in ("persistence_lags", "cross_lag", "lag_profile", "straightness_curve", "starts", "module_coupling", "norm_shares", "subspace_overlap"):
        whole, part = recipes.make(name, [run]), recipes.make(name, [run], layer="2")
        assert part.title == f"{whole.title}, layer 2"
        assert part.caption.startswith("Only layer 2. ")
        assert not part.data.equals(whole.data), name
    shares = recipes.make("norm_shares", [run], layer="2", rows="kind").data
    assert shares["y"].sum() == pytest.approx(1.0)
    modules = recipes.make("module_coupling", [run], kind="q_proj").data
    assert set(modules["label"]) == {f"layers.{layer}.self_attn.q_proj" for layer in range(3)}


@pytest.mark.parametrize(("part", "reason"), [({"layer": "9"}, "no module is of layer 9"), ({"kind": "x"}, "kind x"), ({"layer": "top"}, "number of a block")])
def test_a_part_that_is_not_there_is_refused_with_what_there_is(root: Path, part: dict[str, str], reason: str) -> None:
    run = Recorded(Fabricated(root / "a", layers=2, k=16, updates_each=2).whole())
    with pytest.raises(ValueError, match=reason) as caught:
        recipes.make("alignment_curve", [run], **part)
    assert "top" in part.values() or "recorded layers: 0, 1" in str(caught.value)
