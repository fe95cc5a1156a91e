"""The basket of figures: in a link that lasts, with runs by name, and on the Export page, where it is filled, changed and told what is wrong."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from analysis import recipes
from app.commands import figure
from app.export import export, wanted
from app.export.export import Size
from app.export.wanted import Item
from app.reading import recorded
from app.reading.recorded import Recorded
from interplay import compare
from interplay.config import RunConfig
from interplay.errors import StoreError
from tests.exporting import edit, root, shown
from tests.fabricate import Fabricated
from tests.pages import Show, ran

__all__ = ["root", "shown"]  # the fixtures


# --- runs by name, and the basket in a link --------------------------------------------------------


def test_a_basket_survives_a_link(shown: Path) -> None:
    items = [
        Item.of("kl_curve", [Recorded(shown / "first")], {"x": "tokens"}),
        replace(
            Item.of("trajectories", [Recorded(shown / "first"), Recorded(shown / "second")], {"roles": ["policy"], "components": 3}), width="text", height=2.5
        ),
    ]
    link = wanted.encode(items)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", link)
    back, notes = wanted.decode(link)
    assert (back, notes) == (items, [])
    assert [(one.width, one.height) for one in back] == [("", 0.0), ("text", 2.5)]
    assert back[1].chosen() == {"roles": ("policy",), "components": 3}
    assert str(shown) not in json.dumps([one.to_json() for one in items])


def test_what_the_figure_would_choose_itself_is_not_written_down(shown: Path) -> None:
    plain = Item.of("norm_heatmap", [Recorded(shown / "first")], {})
    assert Item.of("norm_heatmap", [Recorded(shown / "first")], {"rows": "layer", "space": "factor", "role": "policy"}) == plain
    assert plain.settings == ()


def packed(raw: Any) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(raw).encode())).decode().rstrip("=")


ENTRY = {"figure": "kl_curve", "runs": ["first"], "settings": {}}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({**ENTRY, "runs": ["../runs/first"]}, "there is no run"),
        ({**ENTRY, "runs": ["/etc"]}, "there is no run"),
        ({**ENTRY, "runs": ["first/../second"]}, "there is no run"),
        ({**ENTRY, "runs": ["frist"]}, "did you mean 'first'"),
        ({**ENTRY, "runs": ["a\0b"]}, "there is no run"),
        ({**ENTRY, "runs": "first"}, "has not the form of a figure"),
        ({**ENTRY, "figure": "kl_curv"}, "did you mean 'kl_curve'"),
        ({**ENTRY, "figure": ["x"]}, "figure is"),
        ({**ENTRY, "settings": {"y": "1"}}, "has no setting 'y'"),
        ({**ENTRY, "settings": {"x": "tokns"}}, "did you mean 'tokens'"),
        ({**ENTRY, "settings": [1]}, "has not the form of a figure"),
        ({**ENTRY, "width": "page"}, "width is 'page'"),
        ({**ENTRY, "height": 99}, "height is 99"),
        ({**ENTRY, "height": True}, "height is True"),
        ({**ENTRY, "height": float("nan")}, "height is nan"),
        ("kl_curve", "has not the form of a figure"),
        (None, "has not the form of a figure"),
    ],
)
def test_what_a_link_may_not_name_is_left_out_with_its_reason(shown: Path, entry: Any, why: str) -> None:
    found, notes = wanted.decode(packed([entry, ENTRY]))
    assert [one.figure for one in found] == ["kl_curve"]
    assert len(notes) == 1
    assert why in notes[0]


@pytest.mark.parametrize("link", ["x", "!!", "é", packed({}), packed("a"), base64.urlsafe_b64encode(b"not packed").decode(), packed(["x" * 2**19])])
def test_a_damaged_link_is_an_empty_basket(shown: Path, link: str) -> None:
    assert wanted.decode(link) == ([], ["The basket in the link is damaged and was left out."])


def test_a_basket_has_an_end(shown: Path) -> None:
    found, notes = wanted.decode(packed([ENTRY] * 100))
    assert len(found) == wanted.MOST
    assert "the link has 100" in notes[0]


def test_a_link_out_of_the_folder_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = Fabricated(tmp_path / "outside", layers=1, k=8, updates_each=2).whole()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "in").symlink_to(outside)
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "runs"))
    with pytest.raises(StoreError, match="there is no run 'in'"):
        wanted.look_up("in")


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison of two arms of one method, and of a control."""
    folder = tmp_path / "runs" / "both"
    plan = compare.plan(RunConfig(updates=2, sketch=8), ("rloo", "rloo:clip-norm=2", "extrapolate"), (0, 1), folder, warm=None)
    for row in plan.rows[:5]:
        Fabricated(row.folder, layers=1, k=8, updates_each=2, method=row.config.method, seed=row.seed).whole()
        edit(row.folder / "run.json", config=row.config.to_mapping())
    compare.settle(plan)
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path / "runs"))
    return folder


def test_rows_of_a_comparison_keep_their_arms(compared: Path) -> None:
    rows = recorded.of_comparison(compared)
    item = Item.of("starts", rows, {})
    assert item.runs[0] == "both/rloo-s0"
    assert item.recordings() == rows
    assert {one.method for one in item.recordings()} == {"rloo", "rloo:clip-norm=2", "extrapolate"}
    assert wanted.expand("both") == rows
    assert wanted.expand("both/rloo-s0") == rows[:1]
    assert wanted.choices(many=True)[0] == "both"
    assert wanted.choices(many=False)[0] == "both/rloo-s0"
    assert export.run_words(rows) == ["both"]
    assert export.run_words(rows[:2]) == ["both/rloo-s0", f"both/{rows[1].run}"]
    assert [one for word in export.run_words(rows[:2]) for one in recorded.find(word, compared.parent)] == rows[:2]


# --- the page --------------------------------------------------------------------------------------


@pytest.fixture
def page(show: Show) -> Show:
    """The page with these figures in its basket."""
    return lambda *items, **link: show("export", **({"basket": wanted.encode(items)} if items else {}), **link)


def texts(app: AppTest) -> str:
    found = [element.value for kind in (app.text, app.caption, app.warning, app.error, app.markdown) for element in kind]
    return "\n".join(found).replace("\\", "")


def basket_of(app: AppTest) -> list[Item]:
    link = app.query_params.get("basket", "")
    return wanted.decode(link if isinstance(link, str) else link[0])[0] if link else []


def kl(shown: Path, **settings: Any) -> Item:
    return Item.of("kl_curve", [Recorded(shown / "first")], settings)


def click(app: AppTest, start: str) -> AppTest:
    return ran(next(button for button in app.button if (button.key or "").startswith(start)).click())


def test_an_empty_basket_says_how_to_fill_it(shown: Path, page: Show) -> None:
    app = page()
    assert "The basket is empty" in texts(app)
    assert not app.get("download_button")


def test_the_page_opens_without_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Show) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    assert "The basket is empty" in texts(page())


def test_a_link_shows_its_figures_at_their_size(shown: Path, page: Show) -> None:
    app = page(kl(shown), replace(kl(shown, x="tokens"), width="text"), venue="ICML")
    assert len(app.get("image")) == 2
    assert "2 figures" in texts(app)
    assert "icml2025.sty" in texts(app)
    assert len(app.get("download_button")) == 2 * len(figure.FORMATS) + 1


def test_figures_are_moved_removed_and_the_link_follows(shown: Path, page: Show) -> None:
    first, second = kl(shown), Item.of("gold_curve", [Recorded(shown / "second")], {})
    app = page(first, second)
    assert basket_of(app) == [first, second]
    assert basket_of(click(app, "down-")) == [second, first]
    assert basket_of(click(app, "remove-")) == [first]
    assert basket_of(click(app, "clear")) == []
    assert "basket" not in app.query_params


def test_settings_are_changed_on_the_page_and_kept_in_the_link(shown: Path, page: Show) -> None:
    app = page(kl(shown))
    box = next(box for box in app.selectbox if (box.key or "").startswith("set-") and box.key.endswith("-x"))
    box.set_value("tokens").run()
    assert basket_of(app) == [kl(shown, x="tokens")]
    width = next(box for box in app.selectbox if (box.key or "").startswith("width-"))
    width.set_value("text").run()
    assert basket_of(app)[0].width == "text"
    box = next(box for box in app.selectbox if (box.key or "").startswith("set-") and box.key.endswith("-x"))
    box.set_value("update").run()
    assert basket_of(app) == [kl(shown)]
    assert basket_of(page(*basket_of(app))) == [kl(shown)]


def test_a_wrong_setting_is_refused_and_the_old_one_stays(shown: Path, page: Show) -> None:
    item = Item.of("trajectories", [Recorded(shown / "first")], {})
    app = page(item)
    texts_of = {box.key.split("-")[-1]: box for box in app.text_input if (box.key or "").startswith("set-")}
    number = next((name for name, one in recipes.settings("trajectories").items() if name in texts_of and one.kind in (int, float)), None)
    if number is None:
        pytest.skip("this figure has no free number")
    texts_of[number].set_value("many").run()
    assert "must be of type" in texts(app)
    assert basket_of(app) == [item]


def test_a_figure_is_added_on_the_page(shown: Path, page: Show) -> None:
    app = page(**{"add-figure": "kl-curve"})
    app.selectbox(key="of-run").set_value("second").run()
    click(app, "add")
    assert basket_of(app) == [Item.of("kl_curve", [Recorded(shown / "second")], {})]
    click(app, "add")
    assert "in the basket already" in texts(app)
    app.selectbox(key="add-figure").set_value("trajectories").run()
    app.multiselect(key="of").set_value(["first", "second"]).run()
    click(app, "add")
    assert [one.runs for one in basket_of(app)] == [("second",), ("first", "second")]


def test_a_comparison_is_added_as_its_finished_rows(compared: Path, page: Show) -> None:
    app = page(**{"add-figure": "starts"})
    app.multiselect(key="of").set_value(["both"]).run()
    click(app, "add")
    assert len(basket_of(app)[0].runs) == 5


def test_what_cannot_be_drawn_says_why_and_the_rest_is_exported(shown: Path, page: Show) -> None:
    several = Item("kl_curve", ("first", "second"))
    app = page(several, kl(shown))
    assert "it shows one run; these are 2" in texts(app)
    assert "1 of the figures cannot be drawn" in texts(app)
    assert len(app.get("download_button")) == len(figure.FORMATS) + 1


def test_an_unknown_run_in_the_link_is_told(shown: Path, page: Show) -> None:
    app = page(Item("kl_curve", ("gone",)), kl(shown))
    assert "Figure 1 of the link was left out: there is no run 'gone' here" in texts(app)
    assert basket_of(app) == [kl(shown)]


@pytest.mark.parametrize("value", ["-1", "abc", "<script>", "99999", ""])
def test_nonsense_in_the_url_is_ignored(shown: Path, page: Show, value: str) -> None:
    page(kl(shown), venue=value, width=value, height=value, of=value, anonymous=value, **{"add-figure": value})


def test_an_anonymous_page_says_what_is_searched_for_and_no_name(shown: Path, page: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    app = page(kl(shown), anonymous="true")
    assert "Hidden and searched for" in texts(app)
    assert "alice" not in texts(app)


@pytest.mark.parametrize("odd", ["running", "failed", "nan", "hostile"])
def test_odd_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Show, odd: str) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(tmp_path))
    name = "![x](evil.example) <b>$x$" if odd == "hostile" else odd
    made = Fabricated(tmp_path / name, layers=1, k=8, updates_each=4, bad_numbers=odd == "nan")
    if odd in ("running", "failed"):
        made.step("policy", 1, 3)
        made.store.flush()
        made.store.close("failed") if odd == "failed" else None
    else:
        made.whole()
    item = Item.of("reward_curve", [Recorded(made.path)], {})
    app = page(item, Item.of("norm_heatmap", [Recorded(made.path)], {}))
    assert len(app.get("image")) == 2
    assert basket_of(app)[0] == item
    for element in [*app.markdown, *app.caption, *app.warning]:
        assert "](" not in element.value
    export.made([export.wanted(item, item.recordings())], "zip", Size())


def test_a_figure_of_any_page_goes_into_the_basket_and_out_again(shown: Path) -> None:
    def script() -> None:
        import streamlit as st

        from app.export import basket, wanted
        from app.reading import recorded

        basket.offer(basket.Item.of("kl_curve", [wanted.look_up("first")], {"x": "tokens"}), "here")
        st.text(f"{len(basket.items())} inside, {recorded.__name__}")

    app = AppTest.from_function(script, default_timeout=60).run()
    assert "0 inside" in app.text[0].value
    app.button(key="basket-here").click().run()
    assert "1 inside" in app.text[0].value
    assert app.button(key="basket-here").label == "In the basket (1)"
    app.button(key="basket-here").click().run()
    assert "0 inside" in app.text[0].value
