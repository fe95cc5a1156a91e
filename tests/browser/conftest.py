"""One real dashboard and one real browser for all browser tests; skipped with the reason where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app import dashboard
from tests.fabricate import Fabricated

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dash") / "runs"
    Fabricated(root / "finished", layers=4, k=32, updates_each=8).whole()
    return root


@pytest.fixture(scope="session")
def server(runs: Path) -> Iterator[str]:
    port = dashboard.choose_port(None)
    process = subprocess.Popen(
        dashboard.command("127.0.0.1", port), env=dashboard.environment([runs]), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=runs.parent
    )
    url = f"http://127.0.0.1:{port}"
    try:
        assert dashboard.wait_until_up(url, 60), "the dashboard did not start"
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = CHROMIUM if os.path.exists(CHROMIUM) else shutil.which("chromium")
    if not path:
        pytest.skip("chromium is not installed (as root: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A tab that keeps account of everything that should not happen."""

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def open(self, path: str) -> Any:
        self.page.goto(self.url + path)
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=120_000)

    def note(self, message: Any) -> None:
        # Streamlit looks for its health check below a deep link first; those 404s are its own.
        if message.type == "error" and "/_stcore/" not in str(message.location):
            self.errors.append(message.text)

    def asked(self, request: Any) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws", 1), "data:", "blob:")):
            self.outside.append(request.url)


@pytest.fixture
def tab(browser: Any, server: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    watched = Watched(context.new_page(), server)
    watched.page.on("console", watched.note)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    watched.page.on("request", watched.asked)
    watched.page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
    yield watched
    context.close()
    assert watched.errors == []
    assert watched.outside == []
    assert watched.dialogs == []
