"""A real comparison from the page Compare in a real browser: its rows fill, and its tables appear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE_MS, Watched, Workshop, cell, link

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ASKED = ("iterations", "updates", "prompts", "completions", "max_new_tokens", "reward_updates", "pairs", "heldout", "heldout_pairs", "model", "data", "device")


def test_a_comparison_is_started_and_its_tables_come(tabs: Callable[[], Watched], workshop: Workshop, settings: dict[str, Any]) -> None:
    known = len(workshop.jobs())
    tab = tabs()
    small = {name: settings[name] for name in ASKED} | {"iterations": 1, "methods": ["rloo", "dpo"], "start": "base model"}
    page = tab.open(link("compare", small, side="New"))
    page.locator(".st-key-seeds input").fill("1")
    page.keyboard.press("Enter")
    page.get_by_text("2 rows: 2 methods × 1 seed, from the base model.").wait_for(timeout=PATIENCE_MS)
    page.locator(".st-key-compare-start button:enabled").click(timeout=PATIENCE_MS)
    out = workshop.next_job(known).run
    page.wait_for_url(f"**/compare?*out={out.name}*")
    page.get_by_text("0 of 2 rows finished: 2 methods × 1 seed, from the base model").wait_for(timeout=PATIENCE_MS)
    for row in ("rloo-s0", "dpo-s0"):
        cell(page, row)
    cell(page, "running")
    page.get_by_text("1 of 2 rows finished").wait_for(timeout=PATIENCE_MS)
    page.get_by_text("Change on held-out prompts", exact=True).wait_for(timeout=PATIENCE_MS)
    assert page.get_by_text("One method has finished rows so far").is_visible()
    page.get_by_text("2 of 2 rows finished").wait_for(timeout=PATIENCE_MS)
    page.get_by_text("Cost of a run, mean over seeds").wait_for(timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 5", timeout=PATIENCE_MS)
    for method in ("rloo", "dpo"):
        cell(page, method)
    address = page.url
    page.reload()
    page.get_by_text("2 of 2 rows finished").wait_for(timeout=PATIENCE_MS)
    assert page.url == address
    assert len(workshop.jobs()) == known + 1
