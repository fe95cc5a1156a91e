"""Replay in a real browser: a step moves marks and nothing else, a click leads to its moment, and hostile texts beside each other stay letters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Watched
from tests.fabricate import HOSTILE, Fabricated

pytestmark = pytest.mark.browser

#: Where the rule of a chart stands, where the rings of the paths are, and how many points are between the start and the first of them.
RULE = "key => document.querySelector(`.st-key-${key} .js-plotly-plot`)?._fullLayout.shapes.at(-1)?.x0"
RINGS = """() => document.querySelector('.st-key-chart-paths .js-plotly-plot')._fullLayout.shapes
  .filter((shape) => shape.type === 'circle').map((shape) => shape.xanchor)"""
REACHED = """() => document.querySelector('.st-key-chart-paths .js-plotly-plot')._fullLayout.shapes
  .find((shape) => shape.type === 'path').path.split('L').length"""


@pytest.fixture(scope="module")
def pair(runs: Any) -> tuple[str, str]:
    for seed in (0, 1):
        Fabricated(runs / f"pair-{seed}", layers=3, k=16, updates_each=6, seed=seed, value=False).whole()
    return "pair-0", "pair-1"


def _ready(tab: Watched, address: str, count: int) -> Any:
    page = tab.open(address)
    page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {count}", timeout=30_000)
    tab.settle()
    page.get_by_role("button", name="Play").wait_for()  # charts may stand before the buttons do
    return page


def test_a_step_moves_the_marks_and_draws_nothing_anew(tab: Watched, pair: tuple[str, str]) -> None:
    page = _ready(tab, "/replay?run=pair-0&update=5", 6)
    page.wait_for_function(f"({RULE})('chart-reward_curve') === 5")
    page.evaluate("document.querySelectorAll('.js-plotly-plot').forEach((one) => { one.drew = 0; one.on('plotly_react', () => one.drew++); })")
    before, way = page.evaluate(RINGS), page.evaluate(REACHED)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({RULE})('chart-reward_curve') === 6")
    page.wait_for_function(f"({RULE})('chart-heat-policy') === 6")
    assert page.evaluate(RINGS) != before
    assert page.evaluate(REACHED) == way + 1
    assert page.get_by_text("update 6, iteration 1").is_visible()


def test_keys_step_and_play(tab: Watched, pair: tuple[str, str]) -> None:
    page = _ready(tab, "/replay?run=pair-0&update=5", 6)
    page.keyboard.press("n")
    page.get_by_text("update 6, iteration 1").wait_for()
    page.keyboard.press("b")
    page.get_by_text("update 5, iteration 1").wait_for()
    page.keyboard.press("p")
    page.get_by_text("update 12, iteration 2").wait_for(timeout=30_000)
    page.get_by_role("button", name="Play").wait_for()


def test_play_on_a_slow_machine_keeps_the_page_whole(tab: Watched, pair: tuple[str, str]) -> None:
    """The browser takes in an answer later than the next step is due; that once cost the page parts of itself ("Bad delta path index")."""
    page = _ready(tab, "/replay?run=pair-0&update=1", 6)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 10})
    for _ in range(2):
        page.keyboard.press("p")
        page.get_by_text("update 12, iteration 2").wait_for(timeout=120_000)
        page.get_by_role("button", name="Play").wait_for(timeout=120_000)
    for key in ("chart-reward_curve", "chart-heat-policy", "chart-paths"):
        assert page.locator(f".st-key-{key} .js-plotly-plot").count() == 1
    assert page.get_by_text("This update").is_visible()


def test_a_click_on_a_path_leads_to_its_moment(tab: Watched, pair: tuple[str, str]) -> None:
    page = _ready(tab, "/replay?run=pair-0&update=1", 6)
    chart = page.locator(".st-key-chart-paths .js-plotly-plot")
    chart.scroll_into_view_if_needed()
    place = page.evaluate(
        """() => {
          const chart = document.querySelector('.st-key-chart-paths .js-plotly-plot');
          const trace = chart._fullData.find((one) => one.name === 'policy' && one.customdata);
          const { xaxis, yaxis } = chart._fullLayout, box = chart.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[9]), box.y + yaxis._offset + yaxis.d2p(trace.y[9]), trace.customdata[9]];
        }"""
    )
    assert place[2] == 9
    page.mouse.move(place[0] - 1, place[1])
    page.mouse.move(place[0], place[1])
    page.wait_for_timeout(200)
    page.mouse.down()
    page.mouse.up()
    page.get_by_text("update 9, iteration 2").wait_for(timeout=10_000)
    page.wait_for_url("**update=9*")


def test_two_runs_beside_each_other_in_letters(tab: Watched, pair: tuple[str, str]) -> None:
    page = _ready(tab, "/replay?run=pair-0&versus=pair-1&update=3", 8)
    page.get_by_text("pair-1: update 3").wait_for()
    shown = page.locator(".interplay-marked").filter(has_text=HOSTILE.split(" [")[0])
    shown.first.scroll_into_view_if_needed()
    assert shown.count() == 2
    assert shown.first.inner_text() == HOSTILE
    assert page.locator("img[src='x'], a[href*='evil'], img[src*='evil'], .katex").count() == 0


def test_the_choice_of_a_second_run_is_in_the_link(tab: Watched, pair: tuple[str, str]) -> None:
    page = _ready(tab, "/replay?run=pair-0", 6)
    page.get_by_role("combobox").nth(1).click()
    page.get_by_role("option", name="pair-1").click()
    page.wait_for_url("**versus=pair-1*")
    page.wait_for_function("document.querySelectorAll('.st-key-chart-heat-policy-beside .main-svg').length > 0", timeout=30_000)
