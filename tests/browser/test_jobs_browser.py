"""The dashboard dies while it trains: the job goes on, and the next dashboard finds it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.browser.conftest import PATIENCE_MS, SHARE, Watched, Workshop, await_state, cards, link

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_job_outlives_its_server_and_is_found_again(tabs: Callable[[], Watched], workshop: Workshop, settings: dict[str, Any]) -> None:
    known = len(workshop.jobs())
    tab = tabs()
    page = tab.open(link("train", settings, seed=4, iterations=3))
    page.locator(".st-key-start button:enabled").click(timeout=PATIENCE_MS)
    job = workshop.next_job(known)
    job.reached(1)
    with job.held():
        cards(page).filter(has_text=job.run.name).get_by_text(SHARE).first.wait_for(timeout=PATIENCE_MS)
        page.close()
        workshop.end(signal.SIGKILL)
        workshop.begin()
        assert psutil.pid_exists(job.pid)
        again = tabs()
        card = cards(again.open("/train")).filter(has_text=job.run.name)
        await_state(card, "running")
        card.get_by_text(SHARE).first.wait_for(timeout=PATIENCE_MS)
        assert card.get_by_role("button", name="Stop").is_enabled()
    await_state(card, "finished")
    assert len(workshop.jobs()) == known + 1
