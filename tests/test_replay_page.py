"""Replay: two runs beside each other, the moment that all charts follow, what was written then, and where a new run can start."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from fabricate import HOSTILE, Fabricated
from streamlit.testing.v1 import AppTest

from analysis import beside, tables
from app import main
from app.parts import canvas
from app.reading.loading import Feed
from app.reading.recorded import Recorded
from app.replay import branching, completions, playing
from interplay import kept
from interplay.config import RunConfig
from tests.pages import Show


@pytest.fixture
def show(show: Show) -> Show:
    return partial(show, "replay")


class Counting(Fabricated):
    """A run that records its forward passes, as the engine's own do."""

    def _train(self, role: str) -> dict[str, float | None]:
        return {**super()._train(role), **({"forwards": 4.0 * self.update[role]} if role == "policy" else {})}


def made(path: Path, **settings: Any) -> Path:
    return Fabricated(path, **{"layers": 2, "k": 16, "updates_each": 3, "value": False, **settings}).whole()


def texts(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.warning, app.info, app.markdown) for element in kind).replace("\\", "")


def parts(app: AppTest) -> Iterator[dict[str, Any]]:
    """What our own components were given."""
    return (json.loads(part.proto.json) for part in app.get("bidi_component"))


def figures_of(app: AppTest) -> dict[str, dict[str, Any]]:
    return {part["name"]: json.loads(part["figure"]) for part in parts(app) if "figure" in part}


def marks(app: AppTest) -> dict[str, Any]:
    return dict(max((part for part in parts(app) if "at" in part), key=lambda part: part["said"])["at"])


def pieces(app: AppTest) -> list[dict[str, Any]]:
    return [part for part in parts(app) if "pieces" in part]


# --- the moment that charts follow -----------------------------------------------------------------


def test_a_step_sends_some_numbers_and_texts_and_no_figure(root: Path, show: Show) -> None:
    made(root / "a")
    app = show(run="a", update="2")
    assert marks(app)["chart-reward_curve"] == {"rules": [2.0]}
    app.slider(key="update").set_value(3).run()
    assert figures_of(app) == {}, "what was sent is only what depends on the step"
    assert marks(app)["chart-reward_curve"] == {"rules": [3.0]}
    assert {"chart-heat-policy", "chart-heat-reward", "chart-paths"} <= marks(app).keys()
    assert "update 3, iteration 1" in texts(app)
    assert HOSTILE in [text.value for text in app.text]


def test_another_quantity_leaves_the_moment_where_it_is(root: Path, show: Show) -> None:
    made(root / "a")
    app = show(run="a", update="2")
    app.get_by_key("x").set_value("seconds").run()
    seconds = float(Recorded(root / "a").frame("metrics").query("role == 'policy' and update == 2")["seconds"].iloc[0])
    assert marks(app)["chart-kl_curve"]["rules"] == pytest.approx([seconds])


def test_each_role_is_marked_at_its_own_update(root: Path, show: Show) -> None:
    made(root / "a")
    found = marks(show(run="a", update="4"))  # the first of iteration 2: reward model 0 and that of iteration 1 took three updates each
    assert found["chart-heat-policy"] == {"rules": [4.0]}
    assert found["chart-heat-reward"] == {"rules": [6.0]}
    assert {point["series"]: point["update"] for point in found["chart-paths"]["points"]} == {"policy": 4, "reward model": 6}


def test_a_path_that_has_not_begun_has_no_ring(root: Path, show: Show) -> None:
    late = Fabricated(root / "late", layers=2, k=16, value=False)
    late.step("policy", 1, 3)
    late.step("reward", 1, 3)
    late.store.close("finished")
    points = {point["series"]: point for point in marks(show(run="late", update="2"))["chart-paths"]["points"]}
    assert points["policy"]["update"] == 2
    assert points["reward model"]["update"] == 0, "its path begins where the recording does"


def test_a_click_leads_to_the_update(root: Path, show: Show) -> None:
    path = made(root / "a")
    feed = Feed(path)
    feed.refresh()
    rows = feed.frame("updates")
    clock = int(rows[(rows["role"] == "reward") & (rows["update"] == 5)]["clock"].iloc[0])
    app = show(run="a", update="1")
    app.session_state["_chosen"] = ("a", clock)
    app.run()
    assert app.slider(key="update").value == 3, "the policy's last update before the reward model's fifth"
    assert app.query_params["update"] == "3"


def test_steps_go_back_and_on_and_stop_at_the_ends(root: Path, show: Show) -> None:
    made(root / "a")
    app = show(run="a", update="5")
    for expected in (6, 6):
        app.button(key="step-next").click().run()
        assert app.slider(key="update").value == expected
    app.button(key="step-back").click().run()
    assert app.slider(key="update").value == 5
    assert not app.exception


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A button in place of the browser's clock: it says which update was on screen when it struck."""

    def button(number: int, seconds: float, key: str, then: Callable[[int], None], *, beats: bool) -> None:
        st.button("beat", key=key, on_click=then, args=(number,), disabled=not beats)

    monkeypatch.setattr(canvas, "beat", button)


def test_play_walks_through_the_updates_and_ends_at_the_last(root: Path, show: Show, clock: None) -> None:
    made(root / "a")
    app = show(run="a")
    app.button(key="play").click().run()
    for expected in range(1, 6):
        assert app.slider(key="update").value == expected
        assert not app.button(key="beat").disabled
        app.button(key="beat").click().run()
    assert app.slider(key="update").value == 6
    assert app.button(key="beat").disabled
    assert app.button(key="play").label == "Play"


def test_play_starts_where_the_slider_stands_and_stops_there(root: Path, show: Show, clock: None) -> None:
    made(root / "a")
    app = show(run="a", update="3")
    app.button(key="play").click().run()
    app.button(key="beat").click().run()
    assert app.button(key="play").label == "Stop"
    app.button(key="play").click().run()
    assert app.button(key="beat").disabled
    assert app.slider(key="update").value == 4


def test_a_step_ends_the_play(root: Path, show: Show, clock: None) -> None:
    made(root / "a")
    app = show(run="a", update="1")
    app.button(key="play").click().run()
    app.button(key="step-next").click().run()
    assert app.slider(key="update").value == 2
    assert app.button(key="beat").disabled


def test_a_beat_that_comes_late_changes_nothing(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "beat", lambda number, seconds, key, then, *, beats: st.button("beat", key=key, on_click=then, args=(number + 1,)))
    made(root / "a")
    app = show(run="a", update="1")
    app.button(key="play").click().run()
    app.button(key="beat").click().run()
    assert app.slider(key="update").value == 1


def test_a_whole_run_is_played_in_so_many_steps() -> None:
    first, last = 1, 10_000
    step = max(1, (last - first) // playing.STEPS)
    assert (last - first) / step < playing.STEPS + 2


def test_axes_are_offered_where_they_were_recorded(root: Path, show: Show) -> None:
    made(root / "plain")
    Counting(root / "counting", layers=2, k=16, updates_each=3, value=False).whole()
    app = show(run="counting", x="forwards")
    assert figures_of(app)["chart-kl_curve"]["layout"]["xaxis"]["title"]["text"] == "forward passes of updates<br>(passes)"
    assert marks(app)["chart-kl_curve"] == {"rules": [24.0]}
    assert figures_of(show(run="plain", x="forwards"))["chart-kl_curve"]["layout"]["xaxis"]["title"]["text"] == "policy update"
    both = show(run="counting", versus="plain", x="forwards")
    assert figures_of(both)["chart-kl_curve"]["layout"]["xaxis"]["title"]["text"] == "policy update"


# --- two runs --------------------------------------------------------------------------------------


def test_two_runs_share_curves_colours_and_space(root: Path, show: Show) -> None:
    made(root / "a")
    made(root / "b", seed=1)
    app = show(run="a", versus="b", update="4")
    drawn = figures_of(app)
    assert len(drawn) == 3 + 2 * 2 + 1
    assert [trace["name"] for trace in drawn["chart-reward_curve"]["data"] if trace.get("showlegend") is not False] == ["a", "b"]
    mine, theirs = drawn["chart-heat-policy"]["data"][0], drawn["chart-heat-policy-beside"]["data"][0]
    assert (mine["zmin"], mine["zmax"]) == (theirs["zmin"], theirs["zmax"])
    assert mine["colorbar"]["tickvals"] == theirs["colorbar"]["tickvals"]
    assert {trace["name"] for trace in drawn["chart-paths"]["data"]} == {"policy, a", "policy, b", "reward model, a", "reward model, b"}
    assert "a: update 4, iteration 2" in texts(app)
    assert "b: update 4, iteration 2" in texts(app)
    assert marks(app)["chart-reward_curve"] == {"rules": [4.0, 4.0]}


@pytest.mark.parametrize(("together", "expected"), [(None, 5), ("update", 3)])
def test_runs_of_different_lengths_go_by_share_or_by_number(root: Path, show: Show, together: str | None, expected: int) -> None:
    made(root / "a")
    made(root / "b", updates_each=6)
    names = {"update": "the same update"}
    app = show(run="a", versus="b", update="3", **({"together": names[together]} if together else {}))
    assert "a: update 3, iteration 1" in texts(app)
    assert f"b: update {expected}, iteration 1" in texts(app)  # of 1 to 12 as 3 of 1 to 6: two fifths of the way
    assert ("share of the way" in texts(app)) == (together is None)


def test_a_click_on_the_other_run_moves_both(root: Path, show: Show) -> None:
    made(root / "a")
    path = made(root / "b", updates_each=6)
    clock = int(beside.row_at(tables.policy_updates(Recorded(path).frame("metrics")), 12)["clock"])
    app = show(run="a", versus="b", update="1")
    app.session_state["_chosen"] = ("b", clock)
    app.run()
    assert "a: update 6" in texts(app)
    assert "b: update 12" in texts(app)


def test_other_sketches_do_not_meet_and_say_why(root: Path, show: Show) -> None:
    made(root / "a")
    made(root / "b", k=32)
    app = show(run="a", versus="b")
    assert "only equal sketches can share a space" in texts(app)
    assert "chart-paths" not in figures_of(app)


@pytest.mark.parametrize("versus", ["a", "bad", "nowhere", "<script>", ""])
def test_what_cannot_stand_beside_is_left_out(root: Path, show: Show, versus: str) -> None:
    made(root / "a")
    (root / "bad").mkdir()
    (root / "bad" / "run.json").write_text("{ not json")
    app = show(run="a", versus=versus)
    assert "chart-heat-policy-beside" not in figures_of(app)
    assert ("choose another" in texts(app)) == (versus == "a")
    assert ("cannot be read" in texts(app)) == (versus == "bad")


def test_a_run_without_updates_or_with_bad_numbers_beside_another(root: Path, show: Show) -> None:
    made(root / "a")
    Fabricated(root / "new", layers=2, k=16)
    made(root / "odd", bad_numbers=True)
    assert "a: update 6, iteration" not in texts(show(run="a", versus="new")), "only one run has a moment"
    assert "has not moved yet" in texts(show(run="new", versus="a"))
    assert "are not finite and are not drawn" in texts(show(run="a", versus="odd"))


def test_two_live_runs_grow(root: Path, show: Show) -> None:
    made(root / "a")
    live = Fabricated(root / "live", layers=2, k=16, value=False)
    live.heldout(0)
    live.step("policy", 1, 2)
    live.store.flush()
    app = show(run="live", versus="a")
    assert "live: update 2" in texts(app)
    live.step("policy", 1, 2)
    live.store.flush()
    app.run()
    assert "live: update 4" in texts(app)
    live.store.close("finished")


def test_heldout_scores_of_two_runs_stand_moment_by_moment(root: Path, show: Show) -> None:
    made(root / "a")
    made(root / "b")
    table = show(run="a", versus="b").dataframe[0].value
    assert list(table["run"]) == ["a", "b"] * 3
    assert list(table.index) == [moment for moment in ("before training", "after iteration 1", "after iteration 2") for _ in "ab"]


def test_hostile_names_beside_each_other(root: Path, show: Show) -> None:
    names = ["![x](evil.example) <b>$x$", "<i>[y](http://evil.example)"]
    for seed, name in enumerate(names):
        made(root / name.replace("/", "_"), seed=seed)
    app = show(run=names[0], versus=names[1].replace("/", "_"))
    assert len(figures_of(app)) == 8
    for element in [*app.markdown, *app.caption, *app.subheader, *app.expander]:
        assert "](" not in str(getattr(element, "value", None) or getattr(element, "label", ""))
    assert all("<" not in trace["name"] for trace in figures_of(app)["chart-paths"]["data"])


# --- what was written ------------------------------------------------------------------------------


def test_completions_against_the_first_time(root: Path, show: Show) -> None:
    run = Fabricated(root / "a", layers=2, k=16, updates_each=3, value=False)
    _write(run, 1, "The sea keeps every secret.")
    _write(run, 2, "The sea tells no secret.")
    run.store.close("finished")
    app = show(run="a", update="2", texts_as="against the first time")
    found = pieces(app)
    assert [part["mark"] for part in found] == ["del", "ins"]
    assert ["".join(text for text, _ in part["pieces"]) for part in found] == ["The sea keeps every secret.", "The sea tells no secret."]
    assert [[text for text, own in part["pieces"] if own] for part in found] == [["keeps every "], ["tells no "]]


def _write(run: Fabricated, clock: int, text: str) -> None:
    place = {"clock": [clock], "update": [clock], "iteration": [1], "role": ["policy"]}
    run.store.append("metrics", place | {"split": ["train"], "name": ["reward"], "value": [0.5], "seconds": [1.0]})
    words = {"split": ["train"], "prompt_id": ["p"], "prompt": ["Write one line about the sea."], "completion": [text], "tokens": [6], "finished": [True]}
    run.store.append("completions", place | words | {name: [0.1] for name in ("reward", "gold", "proxy", "kl")})
    run.store.flush()


def test_two_runs_show_their_completions_beside_each_other_as_text(root: Path, show: Show) -> None:
    made(root / "a")
    made(root / "b", seed=1)
    app = show(run="a", versus="b", update="2")
    found = pieces(app)
    assert len(found) == 6
    assert {part["mark"] for part in found} == {"mark"}
    assert ["".join(text for text, _ in part["pieces"]) for part in found].count(HOSTILE) == 2
    for kind in (app.markdown, app.caption):
        assert not any("evil.example" in element.value for element in kind)
    plain = show(run="a", versus="b", update="2", texts_beside="as written")
    assert not pieces(plain)
    assert [text.value for text in plain.text].count(HOSTILE) == 2


def test_many_completions_come_in_pages(root: Path, show: Show) -> None:
    run = Fabricated(root / "a", layers=2, k=16, value=False)
    run.step("policy", 1, 1)
    count = 3 * completions.MOST - 1
    place = {name: [value] * count for name, value in {"clock": 1, "update": 1, "iteration": 1, "role": "policy", "split": "heldout"}.items()}
    words = {"prompt_id": [f"h{n}" for n in range(count)], "prompt": [f"prompt {n}" for n in range(count)], "completion": [f"words {n}" for n in range(count)]}
    run.store.append(
        "completions",
        place | words | {"tokens": [2] * count, "finished": [True] * count} | {name: [None] * count for name in ("reward", "gold", "proxy", "kl")},
    )
    run.store.close("finished")
    shown = [text.value for text in show(run="a", split="held-out", texts="3").text]
    assert [word for word in shown if word.startswith("words")] == [f"words {n}" for n in range(2 * completions.MOST, count)]


# --- what was measured, and where a run can go on ----------------------------------------------------


def test_the_numbers_of_the_update_are_its_own(root: Path, show: Show) -> None:
    path = made(root / "a")
    metrics = Recorded(path).frame("metrics")
    rows = metrics[(metrics["role"] == "policy") & (metrics["split"] == "train") & (metrics["update"] == 2)]
    expected = {str(row["name"]): row["value"] for _, row in rows.iterrows()}
    shown = show(run="a", update="2").dataframe[-1].value
    assert shown.iloc[0].to_dict() == pytest.approx(expected)
    assert list(shown.columns)[:3] == ["reward", "gold", "kl"]


def _checkpoint(run: Path, iteration: int, *, sealed: bool = True) -> Path:
    folder = kept.place(run, iteration)
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "weights.safetensors").write_bytes(b"12345")
    if sealed:
        (folder / kept.SEAL).write_text(json.dumps({"policy/weights.safetensors": 5}))
    return folder


def test_a_new_run_can_start_from_the_checkpoint_of_the_iteration(root: Path, show: Show) -> None:
    path = made(root / "a", method="ppo")
    folder = _checkpoint(path, 1)
    app = show(run="a", update="2")
    codes = [code.value for code in app.code]
    assert codes[-2] == str(folder)
    assert codes[-1] == f"interplay train --method ppo --from {path}@1 --updates 3 --sketch 16"
    assert RunConfig.from_argv(codes[-1].split()[2:]).start_from == f"{path}@1"
    assert "after policy update 3" in texts(app)
    assert "No checkpoint of iteration 2 was kept" in texts(show(run="a", update="5"))


def test_an_incomplete_checkpoint_is_no_start(root: Path, show: Show) -> None:
    folder = _checkpoint(made(root / "a"), 2, sealed=False)
    app = show(run="a")
    assert app.code[-1].value == str(folder)
    assert "not all that a run needs" in texts(app)


def test_settings_that_are_not_ours_to_read_leave_the_start_alone(root: Path) -> None:
    path = made(root / "a")
    raw = json.loads((path / "run.json").read_text())
    raw["config"] |= {"trust_remote_code": True, "seed": 7}
    (path / "run.json").write_text(json.dumps(raw))
    config = branching.settings(Recorded(path), 1)
    assert (config.seed, config.trust_remote_code, config.out) == (7, False, None)
    assert branching.linked(config)["start_from"] == f"{path}@1"
    raw["config"] |= {"no_such_setting": 1}
    (path / "run.json").write_text(json.dumps(raw))
    assert branching.command(branching.settings(Recorded(path), 2)) == f"interplay train --from {path}@2"


# --- the basket ------------------------------------------------------------------------------------


def test_every_chart_goes_into_the_basket_as_it_is_seen(root: Path, show: Show) -> None:
    made(root / "a")
    made(root / "b")
    app = show(run="a", versus="b", x="seconds")
    app.button(key="basket-chart-kl_curve").click().run()
    app.button(key="basket-chart-heat-policy-beside").click().run()
    items = list(app.session_state["_basket"].values())
    assert [(item.figure, [Path(run).name for run in item.runs]) for item in items] == [("run_curves", ["a", "b"]), ("norm_heatmap", ["b"])]
    assert dict(items[0].settings) == {"score": "kl", "x": "seconds"}


# --- size ------------------------------------------------------------------------------------------


def test_a_long_run_stays_small_on_the_wire(root: Path, show: Show) -> None:
    run = Fabricated(root / "long", layers=8, k=16, updates_each=450, value=False)
    run.whole(2)
    app = show(run="long")
    sizes = [len(part.proto.SerializeToString()) for part in app.get("bidi_component")]
    assert max(sizes) < 2_000_000
    assert sum(sizes) < 5_000_000


def test_what_pages_import_is_not_searched_for_garbage_after_every_step(root: Path, show: Show) -> None:
    made(root / "a")
    main._spare.cache_clear()
    gc.unfreeze()
    show(run="a")
    assert gc.get_freeze_count() > 50_000
    gc.unfreeze()
