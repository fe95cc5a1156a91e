"""Figures of geometry and coupling: every drawn number against the vectors that it was made of, by loops written here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import evidence, movement, nulls, recipes, screen, together
from analysis.evidence import Recording
from analysis.spec import FigureSpec
from analysis.uncertainty import interval_over_updates
from app.reading.recorded import Recorded
from tests.planted import MODULES, planted, recording

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
OF_UPDATES = (movement.straightness_curve, together.alignment_curve, together.coupling_map, together.module_coupling)


# --- by hand -----------------------------------------------------------------------------------------


def vectors(path: Any) -> Any:
    """One row for each update, all modules behind one another."""
    return np.asarray(path.sketches_UTK, dtype=np.float64).reshape(len(path.updates_U), -1)


def cos(x: Any, y: Any) -> float:
    return float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))


def before(path: Any, clock: int) -> int:
    """Place of the last update before a clock, -1 if there is none."""
    return max((place for place, when in enumerate(path.clocks_U) if when < clock), default=-1)


def beside(one: Recording, role: str = "policy") -> Iterator[tuple[int, Any, Any]]:
    """Each update's number, the update, and the other role's latest one, as M x K."""
    own, other = (one.policy, one.reward) if role == "policy" else (one.reward, one.policy)
    assert own is not None
    assert other is not None
    for place, clock in enumerate(own.clocks_U):
        if (latest := before(other, clock)) >= 0:
            yield place + 1, own.sketches_UTK[place].astype(float), other.sketches_UTK[latest].astype(float)


def older(one: Recording) -> pd.DataFrame:
    """As recordings were before chance spreads were recorded."""
    return one.updates.drop(columns=["null_other_update", "null_other_iteration"])


def drawn(spec: FigureSpec, layer: str, series: str | None = None) -> pd.DataFrame:
    rows = spec.data[spec.data["layer"] == layer]
    return rows if series is None else rows[rows["series"] == series]


@pytest.fixture(scope="module")
def aligned() -> Recording:
    return planted("aligned", iterations=10)


@pytest.fixture(scope="module")
def persistent() -> Recording:
    return planted("persistent", iterations=10)


# --- persistence -------------------------------------------------------------------------------------


def lagged(path: Any, lag: int) -> list[float]:
    rows = vectors(path)
    return [cos(rows[t], rows[t - lag]) for t in range(lag, len(rows))]


def test_persistence_is_the_mean_cosine_by_lag_of_each_role(persistent: Recording) -> None:
    spec = movement.persistence_lags([persistent.policy, persistent.reward], persistent.updates, run="p", lags=6)
    for series, path in (("policy", persistent.policy), ("reward model", persistent.reward)):
        rows = drawn(spec, "lags", series)
        assert rows["x"].tolist() == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(rows["y"], [statistics.fmean(lagged(path, lag)) for lag in range(1, 7)], atol=1e-6)
        assert rows["count"].tolist() == [len(lagged(path, lag)) for lag in range(1, 7)]
    assert f"policy: {statistics.fmean(lagged(persistent.policy, 1)):+.3f} at lag 1" in spec.caption
    assert "above or below its band at all 6 lags" in spec.caption
    assert spec.n == 61
    screen.draw(spec)


def test_the_band_of_persistence_is_noise_of_the_norms_and_the_sketch(persistent: Recording) -> None:
    spec = movement.persistence_lags([persistent.policy], persistent.updates, run="p", lags=2)
    spreads = []
    for _, own, other in beside(persistent):
        own_M, other_M = np.linalg.norm(own, axis=1), np.linalg.norm(other, axis=1)
        spreads.append(math.sqrt(sum((128**-0.5 * a * b) ** 2 for a, b in zip(own_M, other_M, strict=True))) / math.hypot(*own_M) / math.hypot(*other_M))
    one = math.hypot(statistics.median(spreads), (128 * MODULES) ** -0.5)
    reach = [stats.norm.ppf(0.975) * one / math.sqrt(count) for count in (29, 28)]
    np.testing.assert_allclose(spec.data["high"], reach, rtol=1e-5)
    np.testing.assert_allclose(spec.data["low"], [-end for end in reach], rtol=1e-5)
    assert "noise of the recorded norms" in spec.caption


def test_lag_one_is_exact_and_the_others_are_sketched(persistent: Recording) -> None:
    updates = persistent.updates.copy()
    own = updates["role"] == "policy"
    updates.loc[own, "cos_previous"] = np.where(updates.loc[own, "cos_previous"].notna(), 0.25, np.nan)
    y = movement.persistence_lags([persistent.policy], updates, run="p", lags=2).data["y"]
    weights = np.linalg.norm(persistent.policy.sketches_UTK.astype(float), axis=2)
    exact = [0.25 * (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(weights[1:], weights[:-1], strict=True)]
    assert y.tolist() == pytest.approx([statistics.fmean(exact), statistics.fmean(lagged(persistent.policy, 2))])


def test_any_role_persists_and_older_recordings_have_the_sketchs_error(persistent: Recording) -> None:
    rows = older(persistent)
    value = rows[rows["role"] == "reward"].assign(role="value")
    spec = movement.persistence_lags([replace(persistent.reward, role="value")], pd.concat([rows, value]), run="p", lags=3)
    assert set(spec.data["series"]) == {"value model"}
    assert spec.data["y"].tolist() == pytest.approx([statistics.fmean(lagged(persistent.reward, lag)) for lag in (1, 2, 3)], abs=1e-6)
    assert spec.data["high"].iloc[0] == pytest.approx(1.959964 * (128 * MODULES) ** -0.5 / math.sqrt(30))
    assert "error of the sketches alone and too narrow" in spec.caption


def test_more_lags_than_updates_and_too_few_updates() -> None:
    short = planted("aligned", iterations=1)
    spec = movement.persistence_lags([short.policy, short.reward], short.updates, run="p")
    assert drawn(spec, "lags", "policy")["x"].tolist() == [1, 2]
    lone = recording({"policy": [(2, 1, np.ones((MODULES, 4)))], "reward": [(1, 0, np.ones((MODULES, 4)))]}, 4)
    for paths in ([], [lone.policy]):
        spec = movement.persistence_lags(paths, lone.updates, run="p")
        assert spec.empty
        assert "Not recorded: two updates" in spec.caption
        assert "not known" in spec.caption
    with pytest.raises(ValueError, match="lags is 0; it must be at least 1"):
        movement.persistence_lags([short.policy], short.updates, run="p", lags=0)


def test_independent_updates_fall_into_the_band_somewhere() -> None:
    one = planted("orthogonal", iterations=12, each=1)
    spec = movement.persistence_lags([one.policy], one.updates, run="p", lags=5)
    inside = [row["x"] for row in spec.data.to_dict("records") if row["low"] < row["y"] < row["high"]]
    assert inside
    assert f"first within its band at lag {inside[0]:.0f}" in spec.caption


# --- shares ------------------------------------------------------------------------------------------


def by_hand(path: Any, rows: str) -> Any:
    """U x R shares of the squared norm: three layers of two modules, or q and k."""
    squares = (path.sketches_UTK.astype(float) ** 2).sum(axis=2)
    parts = squares.reshape(len(squares), 3, 2).sum(axis=2 if rows == "layer" else 1)
    return parts / squares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "names"), [("layer", ["0", "1", "2"]), ("kind", ["q_proj", "k_proj"])])
def test_shares_are_means_over_updates(aligned: Recording, rows: Any, names: list[str]) -> None:
    spec = movement.norm_shares(aligned.updates, "policy", run="a", rows=rows)
    wanted = by_hand(aligned.policy, rows)
    assert spec.data["row"].tolist() == names
    np.testing.assert_allclose(spec.data["y"], wanted.mean(axis=0), rtol=1e-5)
    assert spec.data["y"].sum() == pytest.approx(1)
    largest = int(wanted.mean(axis=0).argmax())
    assert f"Largest: {rows} {names[largest]} {wanted[:, largest].mean():.1%}" in spec.caption
    assert f"even split is {1 / len(names):.1%}" in spec.caption
    assert (spec.n, set(spec.data["series"])) == (30, {"policy"})
    screen.draw(spec)


def test_shares_have_the_interval_that_updates_allow(aligned: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = by_hand(aligned.policy, "layer")
    found = [interval_over_updates(wanted[:, layer]) for layer in range(3)]
    spec = movement.norm_shares(aligned.updates, "policy", run="a")
    np.testing.assert_allclose(spec.data[["low", "high"]], [(one.low, one.high) for one in found], rtol=1e-4)
    few = movement.norm_shares(aligned.updates[aligned.updates["update"] <= 5], "policy", run="a")
    assert few.data[["low", "high"]].isna().all(axis=None)
    assert "No 95 % interval over updates for 3 of 3 bars" in few.caption
    assert "5 updates: intervals were measured from 20 on" in few.caption
    given = movement.Interval(0.3, 0.4)
    monkeypatch.setattr(movement, "interval_over_updates", lambda values: given)
    spec = movement.norm_shares(aligned.updates, "policy", run="a")
    assert spec.data[["low", "high"]].to_numpy().tolist() == [[0.3, 0.4]] * 3
    assert "[30.0%, 40.0%]" in spec.caption


def test_layers_come_by_number_and_what_is_outside_them_last(aligned: Recording) -> None:
    layers = {0: 10, 1: 9, 2: np.nan}
    updates = aligned.updates.assign(layer=aligned.updates["layer"].map(layers))
    assert movement.norm_shares(updates, "policy", run="a").data["row"].tolist() == ["9", "10", "outside"]


def test_an_unknown_module_makes_the_shares_of_its_update_unknown(aligned: Recording) -> None:
    updates = aligned.updates.copy()
    hit = (updates["role"] == "policy") & (updates["update"] == 4) & (updates["module"] == "layers.1.q_proj")
    updates.loc[hit, "update_norm"] = np.nan
    spec = movement.norm_shares(updates, "policy", run="a")
    np.testing.assert_allclose(spec.data["y"], np.delete(by_hand(aligned.policy, "layer"), 3, axis=0).mean(axis=0), rtol=1e-5)
    assert spec.n == 29


# --- straightness ------------------------------------------------------------------------------------


def test_straightness_is_distance_over_length_beside_a_random_walk(aligned: Recording) -> None:
    spec = movement.straightness_curve(aligned.updates, run="a")
    for series, path in (("policy", aligned.policy), ("reward model", aligned.reward)):
        rows = vectors(path)
        reach = [np.linalg.norm(rows[: u + 1].sum(axis=0)) for u in range(len(rows))]
        length = np.cumsum([np.linalg.norm(row) for row in rows])
        np.testing.assert_allclose(drawn(spec, "path", series)["y"], reach / length, rtol=1e-5)
        norms = [np.linalg.norm(row) for row in rows]
        chance = math.hypot(*norms) / sum(norms)
        assert f"{series} {reach[-1] / length[-1]:.2f} after {len(rows)} (a random walk with its norms {chance:.2f})" in spec.caption
    walk = drawn(spec, "walk")
    assert walk["x"].tolist() == list(range(1, 32))
    np.testing.assert_allclose(walk["y"], [1 / math.sqrt(u) for u in range(1, 32)])
    assert spec.n == 61
    screen.draw(spec)


def test_a_straight_line_is_straight_and_no_movement_is_undefined() -> None:
    steps = {"policy": [(u, 1, np.ones((MODULES, 4))) for u in (1, 2, 3)], "reward": [(u, 1, np.zeros((MODULES, 4))) for u in (4, 5)]}
    spec = movement.straightness_curve(recording(steps, 4).updates, run="a")
    assert drawn(spec, "path", "policy")["y"].tolist() == pytest.approx([1, 1, 1])
    assert set(drawn(spec, "path")["series"]) == {"policy"}


# --- alignment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["policy", "reward"])
def test_alignment_is_the_cosine_with_the_latest_update_of_the_other(aligned: Recording, role: str) -> None:
    spec = together.alignment_curve(aligned.updates, run="a", role=role)
    found = list(beside(aligned, role))
    rows = drawn(spec, "cosine", "policy" if role == "policy" else "reward model")
    assert rows["x"].tolist() == [number for number, _, _ in found]
    wanted = [cos(own.ravel(), other.ravel()) for _, own, other in found]
    np.testing.assert_allclose(rows["y"], wanted, atol=1e-6)
    band = drawn(spec, "chance")
    spreads = [np.linalg.norm(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)) / np.linalg.norm(a) / np.linalg.norm(b) / 128**0.5 for _, a, b in found]
    np.testing.assert_allclose(band["high"], 1.959964 * np.array(spreads), rtol=1e-5)
    np.testing.assert_array_equal(band["low"], -band["high"])
    outside = sum(abs(value) > 1.959964 * sd for value, sd in zip(wanted, spreads, strict=True))
    assert outside > 0
    assert f"{outside} of {len(found)} updates lie beyond 1.96 chance SD; chance alone gives about {0.05 * len(found):.0f}" in spec.caption
    assert f"Mean over {len(found)} updates {statistics.fmean(wanted):+.4f}" in spec.caption
    screen.draw(spec)


def test_the_attainable_cosine_is_drawn_where_it_flattens_nothing(aligned: Recording) -> None:
    near = together.alignment_curve(aligned.updates, run="a")
    assert drawn(near, "ceiling")["y"].tolist() == pytest.approx([1.0] * 30)
    assert "Attainable on average: 1." in near.caption
    small = aligned.updates.assign(cos_other_update=0.01, null_other_update=0.01)
    far = together.alignment_curve(small, run="a")
    assert drawn(far, "ceiling").empty
    assert "too far above to be drawn" in far.caption


def test_without_chance_spreads_there_is_no_band_and_the_caption_says_so(aligned: Recording) -> None:
    for frame in (older(aligned), aligned.updates.assign(null_other_update=np.nan)):
        spec = together.alignment_curve(frame, run="a")
        assert drawn(spec, "chance").empty
        assert len(drawn(spec, "cosine")) == 30
        assert "No band. This recording holds no chance spreads" in spec.caption
        cells = together.coupling_map(frame, run="a")
        np.testing.assert_array_equal(cells.data["value"], cells.data["cosine"])
        assert cells.colour is not None
        assert cells.colour.unit == ""
        modules = together.module_coupling(frame, aligned.policy, aligned.reward, run="a")
        assert drawn(modules, "chance").empty
        assert (modules.n, set(modules.data["series"])) == (MODULES, {"module"})
        for told in (cells, modules):
            assert "This recording holds no chance spreads" in told.caption
            screen.draw(told)


def test_without_a_choice_the_effective_space_is_shown_if_it_was_recorded(aligned: Recording) -> None:
    both = pd.concat([aligned.updates, aligned.updates.assign(space="effective", cos_other_update=0.5)])
    assert together.alignment_curve(both, run="a").data["y"].max() == pytest.approx(1.0)
    assert "(effective space)" in together.alignment_curve(both, run="a").caption
    assert "(factor space)" in together.alignment_curve(both, run="a", space="factor").caption
    with pytest.raises(ValueError, match="space is 'weights'; it can be factor, effective"):
        together.alignment_curve(both, run="a", space="weights")


# --- map ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["layer", "kind"])
def test_the_map_is_in_chance_spreads(aligned: Recording, rows: Any) -> None:
    spec = together.coupling_map(aligned.updates, run="a", rows=rows)
    names = {"layer": ["0", "0", "1", "1", "2", "2"], "kind": ["q_proj", "k_proj"] * 3}[rows]
    far = 0
    for number, own, other in beside(aligned):
        for name in dict.fromkeys(names):
            chosen = [m for m in range(MODULES) if names[m] == name]
            norms = [(np.linalg.norm(own[m]), np.linalg.norm(other[m])) for m in chosen]
            sd = math.hypot(*(a * b for a, b in norms)) / math.hypot(*(a for a, _ in norms)) / math.hypot(*(b for _, b in norms)) / 128**0.5
            z = cos(own[chosen].ravel(), other[chosen].ravel()) / sd
            cell = spec.data[(spec.data["update"] == number) & (spec.data["row"] == name)].iloc[0]
            assert cell["value"] == pytest.approx(z, abs=1e-4)
            far += abs(z) > 1.959964
    count = 30 * len(set(names))
    assert f"{far} of {count} cells lie beyond 1.96 chance SD; chance alone gives about {0.05 * count:.0f}" in spec.caption
    assert spec.n == count
    assert spec.colour is not None
    assert (spec.colour.text, spec.colour.limit) == ("cosine (chance SD)", 4)
    (cells,) = screen.draw(spec).data
    assert (cells.zmin, cells.zmax, cells.colorbar.title.text) == (-4, 4, "cosine (chance SD)")
    screen.draw(spec)


# --- modules -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opposed() -> Recording:
    """Module 0 goes along with the reward model, module 5 against it, the others do as they like: the sum is near 0."""
    random = np.random.default_rng(3)
    steps: dict[str, list[Any]] = {"reward": [], "policy": []}
    for step in range(12):
        reward, policy = (random.standard_normal((MODULES, 64)) for _ in range(2))
        steps["reward"].append((2 * step + 1, step, reward))
        policy[0], policy[5] = 0.7 * reward[0] + 0.7 * policy[0], -0.7 * reward[5] + 0.7 * policy[5]
        steps["policy"].append((2 * step + 2, step, policy))
    return recording(steps, 64)


def test_modules_that_go_along_or_against_stand_out_though_their_sum_hides_them(opposed: Recording) -> None:
    spec = together.module_coupling(opposed.updates, opposed.policy, opposed.reward, run="o")
    means = {m: statistics.fmean(cos(own[m], other[m]) for _, own, other in beside(opposed)) for m in range(MODULES)}
    dots = drawn(spec, "modules").set_index("label")
    for m, mean in means.items():
        assert dots.loc[f"layers.{m // 2}.{'qk'[m % 2]}_proj", "y"] == pytest.approx(mean, abs=1e-6)
    assert sorted(drawn(spec, "modules", "stands out (Holm, 5 %)")["label"]) == ["layers.0.q_proj", "layers.2.k_proj"]
    assert set(dots["count"]) == {12}
    whole = statistics.fmean(cos(own.ravel(), other.ravel()) for _, own, other in beside(opposed))
    assert abs(whole) < 0.1 < 0.5 < means[0]
    assert f"all as one vector {whole:+.4f}" in spec.caption
    assert "2 stand out after Holm's correction" in spec.caption
    screen.draw(spec)


def test_the_band_of_a_module_counts_in_that_updates_are_alike(aligned: Recording) -> None:
    spec = together.module_coupling(aligned.updates, aligned.policy, aligned.reward, run="a")
    policy, reward = vectors(aligned.policy), vectors(aligned.reward)
    latest = [before(aligned.reward, clock) for clock in aligned.policy.clocks_U]
    total = sum(cos(policy[t], policy[u]) * cos(reward[latest[t]], reward[latest[u]]) for t in range(30) for u in range(30))
    sd = 128**-0.5 * math.sqrt(total) / 30
    np.testing.assert_allclose(drawn(spec, "chance")["high"], [1.959964 * sd] * MODULES, rtol=1e-4)
    plain = together.module_coupling(aligned.updates, run="a")
    np.testing.assert_allclose(drawn(plain, "chance")["high"], [1.959964 * 128**-0.5] * MODULES, rtol=1e-5)
    assert "without sketches" in plain.caption
    assert "without sketches" not in spec.caption


@pytest.mark.parametrize("kind", ["aligned", "orthogonal", "reward leads"])
def test_as_many_modules_stand_out_as_the_report_says(kind: Any) -> None:
    one = planted(kind, iterations=8, seed=1)
    spec = together.module_coupling(one.updates, one.policy, one.reward, run="k")
    found = evidence.alignment(one)
    assert len(drawn(spec, "modules", "stands out (Holm, 5 %)")) == found.coupled
    assert f"root mean square of mean / SD {found.excess:.2f}" in spec.caption
    p = drawn(spec, "modules")["p"].to_numpy()
    assert (p <= 1).all()
    assert (p >= nulls.two_sided_p(drawn(spec, "modules")["y"], drawn(spec, "modules")["sd"])).all()


def test_modules_stand_at_their_layers(opposed: Recording) -> None:
    updates = opposed.updates.assign(layer=opposed.updates["layer"].map({0: 0, 1: 7, 2: np.nan}))
    dots = drawn(together.module_coupling(updates, run="o"), "modules").set_index("label")["x"]
    wanted = {"layers.0.q_proj": -0.2, "layers.0.k_proj": 0.2, "layers.1.q_proj": 6.8, "layers.1.k_proj": 7.2, "layers.2.q_proj": 7.8, "layers.2.k_proj": 8.2}
    assert dots.to_dict() == pytest.approx(wanted)
    band = drawn(together.module_coupling(updates, run="o"), "chance")["x"]
    assert band.is_monotonic_increasing


def test_the_reward_models_modules_are_held_against_the_policy(aligned: Recording) -> None:
    spec = together.module_coupling(aligned.updates, aligned.policy, aligned.reward, run="a", role="reward")
    found = list(beside(aligned, "reward"))
    first = statistics.fmean(cos(own[0], other[0]) for _, own, other in found)
    assert drawn(spec, "modules").set_index("label").loc["layers.0.q_proj", "y"] == pytest.approx(first, abs=1e-6)
    assert "the policy's latest update" in spec.caption
    with pytest.raises(ValueError, match="role is 'value'"):
        together.module_coupling(aligned.updates, run="a", role="value")  # type: ignore[arg-type]


# --- who leads ---------------------------------------------------------------------------------------


def steps_of(path: Any, by: str) -> dict[int, Any]:
    """Number of each step -> its vector."""
    if by == "update":
        return dict(enumerate(vectors(path), 1))
    return {int(number): vectors(path)[path.iterations_U == number].sum(axis=0) for number in dict.fromkeys(path.iterations_U)}


@pytest.mark.parametrize("by", ["update", "iteration"])
def test_every_policy_step_is_held_against_every_reward_step(aligned: Recording, by: Any) -> None:
    spec = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a", by=by)
    cells = drawn(spec, "cells").set_index(["x", "row"])
    mine, theirs = steps_of(aligned.policy, by), steps_of(aligned.reward, by)
    assert len(cells) == len(mine) * len(theirs) == spec.n
    for (t, own), (s, other) in ((a, b) for a in mine.items() for b in theirs.items()):
        assert cells.loc[(t, str(s)), "value"] == pytest.approx(cos(own, other), abs=1e-5)
    line = drawn(spec, "now")
    for row in line.to_dict("records"):
        after = next(place for place, clock in enumerate(aligned.reward.clocks_U) if clock > row["clock"])
        assert int(row["row"]) == (after + 1 if by == "update" else aligned.reward.iterations_U[after])
    assert len(line) == len(mine)
    screen.draw(spec)


def test_cells_in_chance_spreads_and_how_many_lie_beyond(aligned: Recording) -> None:
    plain = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a")
    spec = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a", show="chance")
    cells = drawn(spec, "cells")
    np.testing.assert_array_equal(cells["cosine"], drawn(plain, "cells")["value"])
    sd = float((cells["cosine"] / cells["value"]).median())
    assert sd == pytest.approx(math.hypot((128 * MODULES) ** -0.5, (128 * MODULES) ** -0.5), rel=0.05)  # modules are nearly alike
    far = int((cells["cosine"].abs() > 1.959964 * sd).sum())
    assert far > 0
    assert f"{far} of 930 cells lie beyond 1.96 chance SD" in spec.caption
    assert spec.caption == plain.caption


def test_long_runs_are_thinned(aligned: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST_STEPS", 5)
    spec = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a")
    assert spec.n == 25
    assert {1, 30} <= set(spec.data["x"])
    assert "30 by 31 steps" in spec.caption
    assert "Drawn: 5 by 5 of them." in spec.caption
    full = {(t, str(s)): cos(x, y) for t, x in steps_of(aligned.policy, "update").items() for s, y in steps_of(aligned.reward, "update").items()}
    for row in drawn(spec, "cells").to_dict("records"):
        assert row["value"] == pytest.approx(full[row["x"], row["row"]], abs=1e-5)


def test_of_very_many_steps_some_are_counted_and_it_says_so(aligned: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a")
    monkeypatch.setattr(together, "MOST_COUNTED", 6)
    spec = together.cross_lag(aligned.policy, aligned.reward, aligned.updates, run="a")
    every, some = (one.data[one.data["layer"] == "cells"].set_index(["x", "row"])["cosine"] for one in (whole, spec))
    assert len(some) == 36 < len(every)
    assert some.to_numpy() == pytest.approx(every[some.index].to_numpy(), nan_ok=True)
    steps = len(aligned.policy.clocks_U)
    assert f"{steps} by " in spec.caption
    assert "Counted: 6 by 6 of them, evenly spread." in spec.caption
    assert "of 36 cells lie beyond" in spec.caption


def test_a_last_policy_step_without_a_reward_step_after_it_has_no_place_on_the_line() -> None:
    random = np.random.default_rng(0)
    steps = {"reward": [(1, 0, random.standard_normal((MODULES, 8))), (3, 1, random.standard_normal((MODULES, 8)))]}
    steps["policy"] = [(clock, 1, random.standard_normal((MODULES, 8))) for clock in (2, 4)]
    one = recording(steps, 8)
    line = drawn(together.cross_lag(one.policy, one.reward, one.updates, run="o"), "now")
    assert line[["x", "row"]].to_numpy().tolist() == [[1, "2"]]


@pytest.mark.parametrize(("kind", "verdict", "lag"), [("policy leads", "The policy leads: that lag", 1), ("reward leads", "The reward model leads", -1)])
def test_who_leads_is_found_and_drawn_by_lag(kind: Any, verdict: str, lag: int) -> None:
    one = planted(kind, iterations=16, strength=0.8)
    spec = together.lag_profile(one.updates, one.policy, one.reward, run="l")
    assert verdict in spec.caption
    assert f"at lag {lag:+d}, p < 0.001 after Holm" in spec.caption
    mine, theirs = steps_of(one.policy, "iteration"), steps_of(one.reward, "iteration")
    dots = drawn(spec, "lags").set_index("x")
    for shift in range(-3, 3):
        wanted = [cos(own, theirs[t + shift]) for t, own in mine.items() if t + shift in theirs]
        assert dots.loc[shift, "y"] == pytest.approx(statistics.fmean(wanted), abs=1e-5)
        assert dots.loc[shift, "count"] == len(wanted)
        assert dots.loc[shift, "series"] == ("policy leads" if shift >= 0 else "reward leads")
    assert dots["y"].abs().idxmax() == lag
    band = drawn(spec, "chance").set_index("x")
    found = evidence.lead(one)
    assert {shift: tuple(band.loc[shift, ["low", "high"]]) for shift in range(-3, 3)} == {shift: found.by_lag[shift].band for shift in range(-3, 3)}
    assert spec.x.unit == "iterations"
    screen.draw(spec)


def test_too_few_steps_are_drawn_without_a_band_and_said_to_be_few() -> None:
    one = planted("aligned", iterations=3)
    spec = together.lag_profile(one.updates, one.policy, one.reward, run="l", lags=2)
    mine, theirs = steps_of(one.policy, "iteration"), steps_of(one.reward, "iteration")
    wanted = {s: [cos(own, theirs[t + s]) for t, own in mine.items() if t + s in theirs] for s in range(-2, 2)}
    dots = drawn(spec, "lags").set_index("x")
    assert {s: dots.loc[s, "y"] for s in wanted} == pytest.approx({s: statistics.fmean(values) for s, values in wanted.items()}, abs=1e-5)
    assert len(dots) == 4
    assert drawn(spec, "chance").empty
    assert "Too few steps to say who leads" in spec.caption
    assert f"{statistics.fmean(wanted[0]):+.3f} at lag +0 (3)" in spec.caption
    lone = recording({"policy": [(2, 1, np.ones((MODULES, 4)))], "reward": [(1, 0, np.ones((MODULES, 4)))]}, 4)
    spec = together.lag_profile(lone.updates, lone.policy, lone.reward, run="l")
    assert spec.data[["x", "y", "series"]].to_numpy().tolist() == [[-1, pytest.approx(1.0), "reward leads"]]
    assert spec.x.unit == "updates"
    with pytest.raises(ValueError, match="lags is 0"):
        together.lag_profile(lone.updates, lone.policy, lone.reward, run="l", lags=0)


def test_roles_that_cannot_meet_are_not_drawn(aligned: Recording) -> None:
    strange = replace(aligned.reward, modules_T=tuple(f"other.{name}" for name in aligned.reward.modules_T))
    cases = [
        (None, aligned.reward, "directions of the policy"),
        (aligned.policy, None, "directions of the reward model"),
        (aligned.policy, strange, "no module"),
    ]
    for policy, reward, why in cases:
        for spec in (
            together.cross_lag(policy, reward, aligned.updates, run="a"),
            together.lag_profile(aligned.updates, policy, reward, run="a"),
        ):
            assert spec.empty
            assert why in spec.caption


# --- starts ------------------------------------------------------------------------------------------


def test_starts_hold_cosines_against_what_was_attainable(aligned: Recording, opposed: Recording) -> None:
    shared = aligned.updates.assign(run="shared", attainable_other_update=0.8)
    alone = opposed.updates.assign(run="alone", attainable_other_update=0.02, cos_other_update=opposed.updates["cos_other_update"] / 100)
    spec = together.starts(pd.concat([shared, alone]))
    dots, whiskers = drawn(spec, "modules").set_index(["row", "label"])["x"], drawn(spec, "spread").set_index("row")
    for one, run, scale in ((aligned, "shared", 1), (opposed, "alone", 100)):
        sizes = []
        for m in range(MODULES):
            sizes.append(math.sqrt(statistics.fmean((cos(own[m], other[m]) / scale) ** 2 for _, own, other in beside(one))))
            assert dots[f"{run}: cosine", f"layers.{m // 2}.{'qk'[m % 2]}_proj"] == pytest.approx(sizes[-1], rel=1e-4)
        assert whiskers.loc[f"{run}: cosine", "x"] == pytest.approx(statistics.median(sizes), rel=1e-4)
        assert whiskers.loc[f"{run}: cosine", "low"] == pytest.approx(np.quantile(sizes, 0.025), rel=1e-4)
        ceiling = {"shared": 0.8, "alone": 0.02}[run]
        assert whiskers.loc[f"{run}: attainable", ["low", "x", "high"]].tolist() == pytest.approx([ceiling] * 3)
        assert f"{statistics.median(size / ceiling for size in sizes):.1%} of the attainable {ceiling:.3g}" in spec.caption
    assert whiskers.loc["shared: chance SD", "x"] == pytest.approx(128**-0.5)
    assert list(whiskers.index)[::-1] == [f"{run}: {name}" for run in ("shared", "alone") for name in ("cosine", "attainable", "chance SD")]
    assert (spec.n, spec.runs) == (2 * MODULES, ("shared", "alone"))
    screen.draw(spec)


def test_starts_of_one_older_run_name_it_and_leave_chance_out(aligned: Recording) -> None:
    spec = together.starts(older(aligned), run="lone")
    assert set(spec.data["row"]) == {"lone: cosine", "lone: attainable"}
    assert "no chance spreads recorded" in spec.caption
    assert spec.runs == ("lone",)


# --- poor data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", ["none", "columns", "no rows"])
def test_poor_data_give_an_empty_figure_that_says_what_is_missing(aligned: Recording, frame: str) -> None:
    updates = {
        "none": pd.DataFrame(),
        "columns": aligned.updates[["clock", "role"]],
        "no rows": aligned.updates[:0],
    }[frame]
    made = [function(updates, run="e") for function in OF_UPDATES] + [together.starts(updates), movement.norm_shares(updates, "policy", run="e")]
    for spec in made:
        assert spec.empty
        assert spec.n == 0
        assert "Not recorded: " in spec.caption
        assert spec.alt
        screen.draw(spec)


def test_updates_that_are_zero_or_unknown_are_left_out() -> None:
    still = planted("nothing")
    for updates in (still.updates, still.updates.assign(update_norm=np.nan, cos_other_update=np.nan)):
        for function in (together.alignment_curve, together.coupling_map):
            spec = function(updates, run="n")
            assert np.isfinite(spec.data.get("y", spec.data.get("value")).dropna()).all()
    alone = still.updates[still.updates["role"] == "policy"]
    for function in (together.alignment_curve, together.coupling_map, together.module_coupling, together.starts):
        spec = function(alone.assign(cos_other_update=np.nan), run="n")
        assert spec.empty
        assert "Not recorded: updates of the role policy beside those of another one in the factor space." in spec.caption
    assert not movement.straightness_curve(alone, run="n").empty


# --- shipped recordings, as the command and the pages make them ------------------------------------------


def test_names_lead_from_a_run_to_each_figure() -> None:
    ours = {"persistence_lags", "norm_shares", "straightness_curve", "alignment_curve", "coupling_map", "module_coupling", "cross_lag", "lag_profile", "starts"}
    assert ours <= set(recipes.names())
    assert [name for name in sorted(ours) if recipes.several(name)] == ["starts"]
    assert set(recipes.settings("module_coupling")) == {"role", "space", "layer", "kind"}
    assert set(recipes.settings("cross_lag")) == {"by", "show", "layer", "kind"}
    assert set(recipes.settings("lag_profile")) == {"lags", "layer", "kind"}
    assert recipes.settings("module_coupling")["role"].choices == ("policy", "reward")
    assert recipes.settings("norm_shares")["space"].choices == ("factor", "effective")


def test_the_shipped_recording_is_drawn_as_its_rows_say() -> None:
    run = [Recorded(RECORDINGS / "rloo-chat-s0")]
    frame = run[0].frame("updates").astype({"role": object, "space": object, "module": object})
    rows = frame[frame["space"] == "effective"].sort_values("clock").to_dict("records")
    last: dict[str, float] = {}
    inner: dict[int, list[tuple[float, float, float]]] = {}
    cosines: dict[str, list[float]] = {}
    for row in rows:
        if row["role"] == "reward":
            last[row["module"]] = row["update_norm"]
        elif not math.isnan(row["cos_other_update"] or math.nan):
            a, b = float(row["update_norm"]), float(last[row["module"]])
            inner.setdefault(row["update"], []).append((row["cos_other_update"] * a * b, a * a, b * b))
            cosines.setdefault(row["module"], []).append(row["cos_other_update"])
    curve = drawn(recipes.make("alignment_curve", run), "cosine").set_index("x")
    for update, parts in inner.items():
        dot, own, other = (math.fsum(part[i] for part in parts) for i in range(3))
        assert curve.loc[update, "y"] == pytest.approx(dot / math.sqrt(own * other), abs=1e-6)
    modules = drawn(recipes.make("module_coupling", run), "modules").set_index("label")["y"]
    assert modules.to_dict() == pytest.approx({name: statistics.fmean(values) for name, values in cosines.items()}, abs=1e-6)
    assert "Too few steps to say who leads" in recipes.make("lag_profile", run).caption


def test_a_run_without_sketches_has_no_lags_and_no_paths() -> None:
    run = [Recorded(RECORDINGS / "comparison" / "rloo-s0")]
    for name in ("cross_lag", "lag_profile", "module_coupling"):
        assert recipes.make(name, run).empty
