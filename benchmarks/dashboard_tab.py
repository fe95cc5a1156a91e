"""A dashboard of one's own and a tab of a headless browser that looks at it, for `benchmarks.dashboard`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import psutil

from app.server import dashboard
from tests.browser.conftest import CHROMIUM

QUIET_PAGE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
CHART = ".js-plotly-plot:has(.main-svg)"  # a chart has several of these pictures


@contextmanager
def served(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A dashboard of its own; its address and its process."""
    port = dashboard.any_port()
    process = Popen(dashboard.command("127.0.0.1", port), env=dashboard.environment([root]), stdout=DEVNULL, stderr=DEVNULL)
    try:
        if not dashboard.wait_until_up(f"http://127.0.0.1:{port}", 60):
            raise SystemExit("the dashboard did not start")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


class Tab:
    """One tab; counts what goes over its WebSocket."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000})
        self.page, self.url = self.context.new_page(), url
        self.bytes = self.largest = self.asked = 0
        self.page.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        socket.on("framereceived", self._came)
        socket.on("framesent", self._went)

    def _came(self, payload: str | bytes) -> None:
        self.bytes += len(payload)
        self.largest = max(self.largest, len(payload))

    def _went(self, _payload: str | bytes) -> None:
        self.asked += 1

    def open(self, address: str, charts: int = 0) -> None:
        """Until so many charts are drawn and the script has ended."""
        self.page.goto(self.url + address)
        self.drawn(charts)
        self.quiet()

    def drawn(self, charts: int = 1) -> None:
        self.until("([css, count]) => document.querySelectorAll(css).length >= count", [CHART, charts], 120_000)

    def until(self, script: str, argument: Any = None, timeout: int = 30_000) -> None:
        self.page.wait_for_function(script, arg=argument, timeout=timeout)

    def quiet(self) -> None:
        self.page.wait_for_selector(QUIET_PAGE, timeout=600_000)

    def close(self) -> None:
        self.context.close()


def timed(act: Callable[[], Any], until: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    until()
    return time.perf_counter() - start


def chromium() -> str | None:
    """The browser; None where there is none, with the reason printed."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        print("nothing was measured: playwright is not installed (pip install playwright)")
        return None
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if not path:
        print("nothing was measured: there is no browser (as root: apt-get install chromium)")
    return path
