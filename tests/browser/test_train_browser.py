"""Real trainings from the page Train in a real browser: started, watched to the end, stopped and resumed, from two tabs at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from interplay.store import RunStore
from tests.browser.conftest import PATIENCE_MS, SHARE, Watched, Workshop, await_state, cards, cell, command, link, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Tabs = Callable[[], Watched]


def _form(tab: Watched, settings: dict[str, Any], **changes: Any) -> Any:
    """The page with a form that can be sent."""
    page = tab.open(link("train", settings, **changes))
    page.locator(".st-key-start button:enabled").wait_for(timeout=PATIENCE_MS)
    return page


def _words(card: Any) -> str:
    """What the card says, but for the time left, which goes on."""
    return re.sub(r", about .* left", "", card.inner_text())


def test_a_run_is_filled_in_started_watched_and_replayed(tabs: Tabs, workshop: Workshop, settings: dict[str, Any]) -> None:
    typed = {name: settings[name] for name in ("model", "data")}
    known = len(workshop.jobs())
    page = _form(tabs(), {name: value for name, value in settings.items() if name not in typed})
    for name, value in typed.items():
        page.locator(f".st-key-{name} input").fill(value)
        page.keyboard.press("Enter")
        page.locator('[data-testid="stCode"]').filter(has_text=f"--{name} {value}").first.wait_for(timeout=PATIENCE_MS)
    page.locator(".st-key-start button:enabled").click()
    run = workshop.next_job(known).run
    card = cards(page).filter(has_text=run.name)
    await_state(card, "running")
    card.get_by_role("progressbar").wait_for(timeout=PATIENCE_MS)
    await_state(card, "finished")
    assert card.get_by_role("progressbar").count() == 0
    assert card.get_by_role("button", name="Stop").count() == 0
    page.get_by_role("link", name="Runs").click()
    cell(page, run.name)
    page.get_by_role("link", name="Train").click()
    card.get_by_role("link", name="Replay").click(timeout=PATIENCE_MS)
    page.wait_for_url(f"**/replay?run={run.name}*")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6", timeout=PATIENCE_MS)
    page.get_by_text("update 4, iteration 2").wait_for(timeout=PATIENCE_MS)


def test_a_run_is_stopped_and_resumed_to_its_end(tabs: Tabs, workshop: Workshop, settings: dict[str, Any]) -> None:
    known = len(workshop.jobs())
    page = _form(tabs(), settings, seed=1, iterations=4)
    page.locator(".st-key-start button:enabled").click()
    job = workshop.next_job(known)
    stopped = cards(page).filter(has_text=f"{job.run.name}, started")
    job.reached(1)
    with job.held():
        stopped.get_by_text(SHARE).first.wait_for(timeout=PATIENCE_MS)
        stopped.get_by_role("button", name="Stop").click()
        await_state(stopped, "stopping")
        assert stopped.get_by_role("button", name="Stop").count() == 0
    await_state(stopped, "stopped")
    stopped.get_by_text(re.compile(r"^run interrupted at \d+%; Resume goes on after iteration \d+; what came after it is done again$")).wait_for(
        timeout=PATIENCE_MS
    )
    stopped.get_by_role("button", name="Resume").click()
    resumed = cards(page).filter(has_text=f"{job.run.name}, resumed")
    await_state(resumed, "finished")
    await_state(stopped, "stopped")
    assert page.get_by_role("button", name="Resume").count() == 0
    assert RunStore.open(job.run).status().state == "finished"
    assert set(RunStore.open(job.run).read("metrics")["iteration"].to_pylist()) == {0, 1, 2, 3, 4}


def test_two_tabs_and_a_reload_leave_a_running_job_and_each_other_alone(tabs: Tabs, workshop: Workshop, settings: dict[str, Any]) -> None:
    known = len(workshop.jobs())
    one, two = tabs(), tabs()
    first = _form(one, settings, seed=2, iterations=3)
    first.locator(".st-key-start button:enabled").click()
    job = workshop.next_job(known)
    job.reached(1)
    with job.held():
        second = _form(two, settings, seed=7)
        shown = [cards(page).filter(has_text=job.run.name) for page in (first, second)]
        for card in shown:
            await_state(card, "running")
            card.get_by_text(SHARE).first.wait_for(timeout=PATIENCE_MS)
        shown[1].get_by_text("Command and log").click()
        shown[1].get_by_text(f"--out {job.run}").wait_for(timeout=PATIENCE_MS)
        first.locator(".st-key-seed input").fill("5")
        first.keyboard.press("Enter")
        first.locator('[data-testid="stCode"]').filter(has_text="--seed 5").first.wait_for(timeout=PATIENCE_MS)
        assert "--seed 7" in command(second)
        address, before = first.url, (command(first), _words(shown[0]))
        first.reload()
        shown[0].get_by_text(SHARE).first.wait_for(timeout=PATIENCE_MS)
        one.settle()
        assert first.url == address
        until(lambda: (command(first), _words(shown[0])) == before, "the same view")
    for card in shown:
        await_state(card, "finished")
    assert shown[1].get_by_text(f"--out {job.run}").is_visible(), "what was unfolded in the other tab is folded again"
    assert not shown[0].get_by_text(f"--out {job.run}").is_visible()
    assert ("--seed 5" in command(first), "--seed 7" in command(second)) == (True, True)
    assert len(workshop.jobs()) == known + 1


def test_fifty_quick_clicks_and_a_second_tab_start_one_job(tabs: Tabs, workshop: Workshop, settings: dict[str, Any]) -> None:
    known = len(workshop.jobs())
    first, second = (_form(tabs(), settings, seed=3, iterations=50) for _ in range(2))
    first.locator(".st-key-start button:enabled").click(click_count=50)
    second.locator(".st-key-start button:enabled").click(click_count=5)
    for page in (first, second):
        page.get_by_text("Started job").first.wait_for(timeout=PATIENCE_MS)
    job = workshop.next_job(known)
    card = cards(first).filter(has_text=job.run.name)
    await_state(card, "running")
    card.get_by_role("button", name="Stop").click()
    await_state(card, "stopped")
    await_state(cards(second).filter(has_text=job.run.name), "stopped")
    assert len(workshop.jobs()) == known + 1
