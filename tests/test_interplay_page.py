"""Views of the Interplay page: figures with words and controls, for runs of every kind, and a reason wherever nothing can be drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from fabricate import Fabricated

from analysis import explain, figures, recipes
from analysis.spec import Axis, FigureSpec, Mark
from app.interplay import explorer
from app.interplay.explorer import OTHERS, VIEWS, Choice
from app.parts import controls
from app.reading.loading import RECORDINGS
from app.reading.recorded import Recorded
from interplay.store import Runs
from tests.interplay_page import figure_on, figures_on, numbers_in, show, words_on
from tests.pages import Show, ran

__all__ = ["show"]  # the fixture


# --- words ---------------------------------------------------------------------------------------


def test_views_name_figures_that_there_are_and_no_figure_twice() -> None:
    names = [name for view in VIEWS.values() for name in (*view.figures, *view.many)]
    assert set(names) <= set(recipes.names())
    assert len(names) == len(set(names))
    assert all(view.wide <= {*view.figures, *view.many} for view in VIEWS.values())


# --- views and controls --------------------------------------------------------------------------


@pytest.mark.parametrize("view", [*VIEWS])
def test_each_view_draws_its_figures_with_words_and_formula(root: Path, show: Show, view: str) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=6).whole()
    app = show(view=view)
    texts = words_on(app)
    for name in VIEWS[view].figures:
        assert explain.FIGURES[name].what in texts
    drawn = len([alt for alt in figures_on(app) if not alt.endswith("?") and "found" not in alt])
    assert drawn >= (0 if view == "Directions" else 1)
    if view != "Directions":
        assert all(explain.FIGURES[name].misleads in texts for name in VIEWS[view].figures)


def test_all_figures_are_found_by_name(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    app = show(view=OTHERS, figure="kl_curve", **{"kl_curve-x": "seconds"})
    assert app.selectbox(key="figure").options == recipes.names()
    assert figure_on(app, "KL")["layout"]["xaxis"]["title"]["text"] == "training time (s)"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A figure that somebody adds, and what it was called with."""
    calls: list[dict[str, Any]] = []

    def brand_new(metrics: pd.DataFrame, *, run: str, window: int = 7, log: bool = False, how: Literal["a", "b"] = "b", word: str = "x") -> FigureSpec:
        """Something new."""
        calls.append({"window": window, "log": log, "how": how, "word": word})
        data = pd.DataFrame({"layer": ["l"], "series": ["s"], "x": [1.0], "y": [2.0]})
        return FigureSpec("brand_new", "New", data, (Mark("points", "l"),), Axis("x", "x"), Axis("y", "y"), "c", "New: c", 1, (run,))

    monkeypatch.setitem(figures.FIGURES, "brand_new", brand_new)
    return calls


def test_a_new_figure_and_its_settings_need_no_change_of_the_page(root: Path, show: Show, registered: list[dict[str, Any]]) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    app = show(view=OTHERS, figure="brand_new")
    assert "Something new." in words_on(app)
    assert registered[-1] == {"window": 7, "log": False, "how": "b", "word": "x"}
    app.slider(key="brand_new-window").set_value(3)
    app.toggle(key="brand_new-log").set_value(True)
    app.text_input(key="brand_new-word").set_value(" y ")
    app.segmented_control(key="brand_new-how").set_value("a")
    ran(app)
    assert registered[-1] == {"window": 3, "log": True, "how": "a", "word": "y"}
    show(view=OTHERS, figure="brand_new", **{"brand_new-how": "a"})
    assert registered[-1] == {"window": 7, "log": False, "how": "a", "word": "x"}


def test_settings_of_one_name_are_one_control_that_all_figures_understand() -> None:
    joined = controls.joined(("alignment_curve", "norm_heatmap", "module_coupling"))
    assert list(joined)[:2] == ["layer", "kind"]
    assert joined["space"].default == "factor"  # norm_heatmap has no other
    assert joined["role"].choices == ("policy", "reward")


def test_the_lag_explorer_shows_as_many_lags_as_are_chosen(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=2).whole(iterations=9)
    for lags in (2, 5):
        traces = figure_on(show(view="Leads and lags", **{"leads-lags": str(lags)}), "Who leads: ")["data"]
        dots = [trace for trace in traces if trace["mode"] == "markers"]
        assert sum(len(numbers_in(trace["x"])) for trace in dots) == 2 * lags


def test_the_url_reproduces_the_view(root: Path, show: Show) -> None:
    for name in ("a", "b"):
        Fabricated(root / name, layers=3, k=16, updates_each=4).whole()
    app = show(runs=["b"], view="Where it moves", layer="1", **{"where-roles": ["reward"]})
    assert app.multiselect(key="runs").value == ["b"]
    maps = [alt for alt in figures_on(app) if alt.startswith("Update norm")]
    assert maps == [alt for alt in maps if "reward model, layer 1" in alt]
    assert len(maps) == 1
    assert figure_on(app, "Update norm")["data"][0]["y"][0] == "down_proj"  # of one layer, kinds are told apart


def test_names_of_other_pages_links_and_comparisons_are_understood(root: Path, show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (root, tmp_path / "more"):
        Fabricated(place / "same", layers=2, k=16, updates_each=2).whole()
    Fabricated(root / "other", layers=2, k=16, updates_each=2).whole()
    monkeypatch.setenv("INTERPLAY_RUNS", f"{root}:{tmp_path / 'more'}:{RECORDINGS}")
    assert show(run="other").multiselect(key="runs").value == ["other"]
    assert show(runs=["more/same"]).multiselect(key="runs").value == ["more/same"]
    assert len(show(runs=["same"]).multiselect(key="runs").value) == 1
    assert show(runs=["comparison/zopro-s1"]).multiselect(key="runs").value == ["comparison/zopro-s1"]


@pytest.mark.parametrize("value", ["-1", "99999999", "abc", "<script>", "1e9", "", "٣"])
def test_nonsense_in_the_url_is_ignored(root: Path, show: Show, value: str) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    url = dict.fromkeys(("view", "layer", "kind", "space", "rows", "focus", "figure", "leads-lags", "alignment-roles", "paths-method"), value)
    app = show(**url)
    assert len(figures_on(app)) == 2 + 3
    lost = show(runs=[value], **url)
    assert lost.multiselect(key="runs").value == ([] if value else ["a"])
    assert (f"There is no run “{value}” here" in words_on(lost)) == bool(value)


def test_a_link_to_runs_of_which_one_has_gone_shows_the_others(root: Path, show: Show) -> None:
    for name in ("a", "b"):
        Fabricated(root / name, layers=2, k=16, updates_each=4).whole()
    app = show(runs=["a", "gone"])
    assert app.multiselect(key="runs").value == ["a"]
    assert "There is no run “gone” here" in words_on(app)
    assert "There is no run" not in words_on(app.multiselect(key="runs").set_value(["a", "b"]).run())


def test_a_role_that_a_figure_does_not_know_is_left_to_the_others() -> None:
    chosen = {"roles": ("policy", "value"), "layer": "all", "space": None}
    assert [tile.settings for tile in explorer.tiles("alignment_curve", chosen)] == [{"role": "policy"}, {"role": "value"}]
    assert [tile.settings for tile in explorer.tiles("module_coupling", chosen)] == [{"role": "policy"}]
    assert explorer.tiles("lag_profile", {**chosen, "layer": "3"})[0].settings == {"layer": "3"}


# --- runs of every kind --------------------------------------------------------------------------


def test_an_empty_root_shows_the_command_that_fills_it(root: Path, show: Show) -> None:
    assert "interplay train" in show().code[0].value


@pytest.mark.parametrize("view", [*VIEWS])
def test_one_update_only(root: Path, show: Show, view: str) -> None:
    one = Fabricated(root / "one", layers=2, k=16, value=False)
    one.step("policy", 1, 1)
    one.store.close("finished")
    texts = words_on(show(view=view))
    assert "There are no two updates of the policy to compare." in texts
    if view in ("Paths", "Likeness"):
        assert "Not drawn: " in texts


@pytest.mark.parametrize("view", [*VIEWS])
def test_a_policy_alone(root: Path, show: Show, view: str) -> None:
    alone = Fabricated(root / "alone", layers=2, k=16, value=False)
    alone.step("policy", 1, 8)
    alone.store.close("finished")
    texts = words_on(show(view=view))
    assert "Nobody can be said to lead: one role only." in texts
    if view == "Leads and lags":
        assert "Not recorded: directions of the reward model" in texts


@pytest.mark.parametrize("view", [*VIEWS])
def test_a_run_without_sketches(root: Path, show: Show, view: str) -> None:
    path = Fabricated(root / "bare", layers=2, k=16, updates_each=4).whole()
    shutil.rmtree(path / "directions")
    app = show(view=view)
    if view in ("Paths", "Leads and lags"):
        assert "sketch 0 have none" in words_on(app)
    if view == "Alignment":
        assert len([alt for alt in figures_on(app) if alt.startswith(("Alignment", "Coupling"))]) == 3


@pytest.mark.parametrize("odd", ["bad_numbers", "constant"])
def test_odd_numbers(root: Path, show: Show, odd: str) -> None:
    Fabricated(root / "odd", layers=2, k=16, updates_each=6, **{odd: True}).whole()
    app = show(view=OTHERS)
    for name in recipes.names():
        app.selectbox(key="figure").set_value(name)
        assert explain.FIGURES[name].what in words_on(ran(app))


def test_no_numbers_at_all(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    Fabricated(root / "nan", layers=2, k=16, updates_each=4).whole()
    real = Recorded.frame

    def blank(self: Recorded, stream: str, /) -> pd.DataFrame:
        frame = real(self, stream)
        return frame.assign(**{name: np.nan for name in frame if name.startswith(("cos_", "null_", "update_norm"))}) if stream == "updates" else frame

    monkeypatch.setattr(Recorded, "frame", blank)
    app = show()
    for view in VIEWS:
        app.segmented_control(key="view").set_value(view)
        ran(app)


def test_a_run_before_its_first_update(root: Path, show: Show) -> None:
    Fabricated(root / "new", layers=2, k=16)
    app = show()
    for view in VIEWS:
        app.segmented_control(key="view").set_value(view)
        assert "Not " in words_on(ran(app))


def test_a_broken_run_says_why_and_does_not_hide_the_others(root: Path, show: Show) -> None:
    Fabricated(root / "good", layers=2, k=16, updates_each=4).whole()
    (root / "bad").mkdir()
    (root / "bad" / "run.json").write_text("{ not json")
    app = show(runs=["bad"])
    assert app.warning
    assert not figures_on(app)
    both = show(runs=["bad", "good"])
    assert both.warning
    assert figures_on(both)
    assert show().multiselect(key="runs").value == ["good"]


def test_a_damaged_part_is_named(root: Path, show: Show) -> None:
    path = Fabricated(root / "hurt", layers=2, k=16, updates_each=3).whole()
    part = next((path / "completions").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    app = show()
    assert "completions" in " ".join(warning.value for warning in app.warning)
    assert len(figures_on(app)) >= 3


def test_several_runs_share_a_picture_and_one_of_them_has_the_rest(root: Path, show: Show) -> None:
    for seed in (0, 1):
        Fabricated(root / f"s{seed}", layers=2, k=16, updates_each=4, seed=seed).whole()
    app = show(runs=["s0"])
    button = next(button for button in app.button if button.key == "seeds")
    assert button.label == "Add the other seed"
    ran(button.click())
    assert sorted(app.multiselect(key="runs").value) == ["s0", "s1"]
    assert not [button for button in app.button if button.key == "seeds"]
    assert [alt for alt in figures_on(app) if alt.startswith("Module cosines, run by run")]
    app = show(runs=["s0", "s1"], focus="s1", view="Paths")
    names = {trace["name"] for trace in figure_on(app, "Paths of")["data"]}
    assert names == {f"{role}, {run}" for role in ("policy", "reward") for run in ("s0", "s1")} or len(names) == 4


def test_runs_of_different_models_say_that_they_cannot_be_joined(root: Path, show: Show) -> None:
    Fabricated(root / "small", layers=2, k=16, updates_each=4).whole()
    Fabricated(root / "large", layers=2, k=32, updates_each=4).whole()
    assert "Not drawn: " in words_on(show(runs=["small", "large"], view="Paths"))


def test_a_hostile_name_stays_text(root: Path, show: Show) -> None:
    name = "![x](evil.example) <b>$x$"
    Fabricated(root / name, layers=2, k=16, updates_each=4).whole()
    Fabricated(root / "b", layers=2, k=16, updates_each=4, seed=1).whole()
    for view in ("Alignment", "Paths"):
        app = show(runs=[name, "b"], view=view)
        for element in [*app.markdown, *app.caption, *app.subheader, *app.warning]:
            assert "](" not in element.value
            assert "<b>" not in element.value


# --- live runs -------------------------------------------------------------------------------------


def test_a_live_run_grows_and_an_ended_one_is_left_in_peace(root: Path, show: Show) -> None:
    live = Fabricated(root / "live", layers=2, k=16)
    live.step("reward", 0, 3)
    live.step("policy", 1, 3)
    live.store.flush()
    app = show()
    assert "Mean over 3 updates" in words_on(app)
    choice = Choice(tuple(Runs(root).list()), ())
    assert explorer.pace(choice) == explorer.SECONDS_LIVE
    live.step("policy", 1, 2)
    live.store.flush()
    assert "Mean over 5 updates" in words_on(ran(app))
    live.store.close("finished")
    assert explorer.pace(explorer.again(choice)) is None
    ran(app)


# --- into the paper --------------------------------------------------------------------------------


def test_a_narrowed_figure_goes_into_the_basket_as_it_is_shown(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    app = show(layer="1")
    button = next(button for button in app.button if str(button.key).startswith("basket-alignment_curve"))
    ran(button.click())
    item = next(iter(app.session_state["_basket"].values()))
    assert (item.figure, item.runs) == ("alignment_curve", ("a",))
    made = recipes.make(item.figure, [Recorded(root / "a")], **item.chosen())
    assert made.alt in figures_on(app)
    assert "layer 1" in made.title


@pytest.mark.parametrize(
    ("spaces", "said"), [(("factor", "effective"), "as recorded: effective"), (("factor",), "as recorded: factor"), ((), "as recorded: factor")]
)
def test_the_space_that_is_taken_by_itself_is_named(spaces: tuple[str, ...], said: str) -> None:
    known = controls.Has(("policy",), spaces, (), ())
    setting = controls._within(recipes.settings("coupling_map")["space"], known)
    assert controls._word(setting, controls.AUTO) == said
    assert controls._word(setting, "factor") == "factor"
