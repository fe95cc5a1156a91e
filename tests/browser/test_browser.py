"""The dashboard in a real browser: it draws, lives, keeps its view in the URL, and stays on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.fabricate import HOSTILE, Fabricated

pytestmark = pytest.mark.browser

#: Points of the first line of a chart, and its horizontal range.
POINTS = "key => { const g = document.querySelector(`.st-key-${key} .js-plotly-plot`); return g ? g.data[0].x.length ?? g._fullData[0].x.length : 0 }"
RANGE = "key => document.querySelector(`.st-key-${key} .js-plotly-plot`)._fullLayout.xaxis.range.slice()"


def _drawn(page: Any, count: int = 1) -> None:
    page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {count}", timeout=30_000)


def test_a_deep_link_is_the_first_thing_that_the_server_sees(tab: Watched) -> None:
    page = tab.open("/replay?run=finished")
    _drawn(page, 7)
    assert page.get_by_role("heading", name="Replay").is_visible()
    assert page.get_by_text("Update norm: reward model").is_visible()
    assert page.get_by_text("update 16, iteration 2").is_visible()


def test_runs_lists_and_links(tab: Watched) -> None:
    page = tab.open("/?selected=finished")
    assert page.get_by_role("heading", name="finished").is_visible()
    page.get_by_test_id("stPageLink").get_by_role("link").click()
    page.wait_for_url("**/replay?run=finished*")
    _drawn(page, 7)
    tab.settle()
    assert "run=finished" in page.url  # although it is the first in the list


def test_the_first_page_has_an_address_of_its_own_too(tab: Watched) -> None:
    page = tab.open("/runs?q=finished")
    page.get_by_text("1 of", exact=False).first.wait_for(timeout=60_000)
    assert page.get_by_role("heading", name="Runs").is_visible()
    assert page.get_by_role("dialog").count() == 0  # Streamlit's "Page not found"


def test_the_url_names_the_run_that_was_shown_unasked(tab: Watched) -> None:
    page = tab.open("/replay")
    page.wait_for_url("**/replay?run=finished*")


def test_train_shows_the_command(tab: Watched) -> None:
    page = tab.open("/train?seed=5")
    page.get_by_text("interplay train").first.wait_for(timeout=60_000)
    assert "--seed 5" in page.locator('[data-testid="stCode"]').first.inner_text().replace("\n", " ")


def test_the_url_reproduces_the_view(tab: Watched) -> None:
    page = tab.open("/replay?run=finished")
    _drawn(page, 7)
    page.get_by_text("tokens", exact=True).first.click()
    page.wait_for_url("**x=tokens*")
    tab.settle()
    address = page.url.removeprefix(tab.url)
    again = tab.open(address)
    _drawn(again, 7)
    assert again.evaluate("document.querySelector('.st-key-chart-reward_curve .js-plotly-plot')._fullLayout.xaxis.title.text") == "generated tokens"


def test_hostile_completions_are_letters(tab: Watched) -> None:
    page = tab.open("/replay?run=finished&update=3")
    _drawn(page)
    shown = page.get_by_text(HOSTILE.split(" [")[0], exact=False).first
    shown.scroll_into_view_if_needed()
    assert shown.is_visible()
    assert page.locator("img[src='x'], a[href*='evil'], img[src*='evil'], .katex").count() == 0


@pytest.fixture
def live(runs: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A run that another thread keeps writing."""
    made = Fabricated(runs / f"live-{request.node.name[5:12].strip('_')}", layers=3, k=16, value=False)
    made.heldout(0)
    made.step("policy", 1, 4)
    made.store.flush()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.4):
            made.step("policy", 1, 1)
            made.store.flush()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    yield made.path
    stop.set()
    writer.join()
    made.store.close("finished")


def test_a_live_run_grows_without_reload_and_keeps_its_zoom(tab: Watched, live: Path) -> None:
    page = tab.open(f"/replay?run={live.name}")
    _drawn(page, 5)
    assert page.get_by_text("running").first.is_visible()
    page.evaluate("document.querySelector('.st-key-chart-reward_curve .js-plotly-plot').same = true")
    box = page.evaluate("document.querySelector('.st-key-chart-reward_curve .nsewdrag').getBoundingClientRect().toJSON()")
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 10, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    before, zoom = page.evaluate(POINTS, "chart-reward_curve"), page.evaluate(RANGE, "chart-reward_curve")
    page.wait_for_function(f"({POINTS})('chart-reward_curve') > {before}", timeout=15_000)
    assert page.evaluate(RANGE, "chart-reward_curve") == pytest.approx(zoom)
    assert page.evaluate("document.querySelector('.st-key-chart-reward_curve .js-plotly-plot').same"), "drawn anew, so it flickers"


def test_pause_stops_reading(tab: Watched, live: Path) -> None:
    page = tab.open(f"/replay?run={live.name}")
    _drawn(page, 5)
    page.get_by_text("Pause", exact=True).click()
    page.wait_for_timeout(2500)
    before = page.evaluate(POINTS, "chart-reward_curve")
    page.wait_for_timeout(3500)
    assert page.evaluate(POINTS, "chart-reward_curve") == before


def test_a_narrow_window_has_no_sideways_scroll(tab: Watched) -> None:
    tab.page.set_viewport_size({"width": 420, "height": 850})
    page = tab.open("/replay?run=finished")
    _drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
