"""Real dashboards and one real browser for all browser tests; skipped with the reason where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from app.server import dashboard
from tests import waiting
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
    port = dashboard.any_port()
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

    def well(self) -> None:
        assert self.errors == []
        assert self.outside == []
        assert self.dialogs == []


def watch(page: Any, url: str) -> Watched:
    """An empty tab whose account has begun."""
    watched = Watched(page, url)
    page.on("console", watched.note)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", watched.asked)
    page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
    return watched


@pytest.fixture
def tab(browser: Any, server: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    watched = watch(context.new_page(), server)
    yield watched
    context.close()
    watched.well()


# --- where trainings are started -------------------------------------------------------------------

PATIENCE = 400.0  # seconds; machines are shared, and every training imports torch first
PATIENCE_MS = 1000 * PATIENCE
#: What Streamlit, Python and the server write when something is wrong or will be taken away one day.
COMPLAINTS = re.compile(r"deprecat|will be removed|traceback|error|exception|warning", re.IGNORECASE)


def until(check: Callable[[], Any], what: str) -> Any:
    """The first true answer."""
    return waiting.until(check, PATIENCE, what)


@dataclass
class StartedJob:
    """What a page started, as it stands on disk."""

    pid: int
    run: Path  # folder of the run or the comparison

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The process stands still, so that nothing depends on how fast this machine is."""
        process = psutil.Process(self.pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def reached(self, iteration: int) -> None:
        """Wait until the run could be resumed from this iteration."""
        seal = self.run / "checkpoints" / f"iteration-{iteration}" / "COMPLETE"
        until(seal.exists, f"iteration {iteration} of {self.run.name}")


@dataclass
class Workshop:
    """A dashboard of its own over an empty folder of runs; it can be killed and begun anew, and its log is kept."""

    runs: Path
    url: str = ""
    process: Any = None

    @property
    def log(self) -> Path:
        return self.runs.parent / "server.log"

    def begin(self) -> None:
        port = dashboard.any_port()
        environment = {**dashboard.environment([self.runs]), "XDG_STATE_HOME": str(self.runs.parent / "state")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                dashboard.command("127.0.0.1", port), env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.runs.parent
            )
        self.url = f"http://127.0.0.1:{port}"
        assert dashboard.wait_until_up(self.url, PATIENCE), "the dashboard did not start"

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)

    def jobs(self) -> list[StartedJob]:
        """What was started so far, oldest first."""
        found = sorted((json.loads(path.read_text()) for path in (self.runs / ".jobs").glob("*/job.json")), key=lambda raw: raw["created"])
        return [StartedJob(raw["pid"], Path(raw["cwd"], _after(raw["argv"], "--resume") or _after(raw["argv"], "--out"))) for raw in found]

    def next_job(self, known: int) -> StartedJob:
        """The one that comes when there are `known`, once its process runs."""
        jobs: list[StartedJob] = until(lambda: [job for job in self.jobs()[known:] if job.pid], "a job is started")
        return jobs[0]

    def clear(self) -> None:
        """End what a test that failed left at work."""
        for job in self.jobs():
            with contextlib.suppress(psutil.Error, OSError):
                if str(self.runs) in " ".join(psutil.Process(job.pid).cmdline()):
                    os.killpg(job.pid, signal.SIGKILL)

    def complaints(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if COMPLAINTS.search(line)]


def _after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1] if flag in words else ""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    place = Workshop(tmp_path_factory.mktemp("workshop") / "runs")
    place.runs.mkdir()
    place.begin()
    yield place
    place.end()


@pytest.fixture
def tabs(browser: Any, workshop: Workshop) -> Iterator[Callable[[], Watched]]:
    """Another tab of the workshop's dashboard with each call. At the end nothing is at work, and nobody had anything to complain about."""
    context = browser.new_context(viewport={"width": 1440, "height": 1200})
    opened: list[Watched] = []

    def another() -> Watched:
        opened.append(watch(context.new_page(), workshop.url))
        return opened[-1]

    yield another
    workshop.clear()
    context.close()
    for one in opened:
        one.well()
    assert workshop.complaints() == []


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The smallest training, as a form takes it: a second or two, after its imports."""
    pytest.importorskip("torch", reason="the engine is not installed")
    from tests import training

    place = tmp_path_factory.mktemp("small")
    model = training.save_model(place / "model", max_position_embeddings=512)  # the form of a comparison has no field for shorter prompts
    return {**training.SMALL, "model": str(model), "data": str(training.write_prompts(place / "prompts.jsonl"))}


def link(page: str, settings: dict[str, Any], **changes: Any) -> str:
    """The address of a form that is filled in."""
    return f"/{page}?{urlencode({**settings, **changes}, doseq=True)}"


# --- what pages show -------------------------------------------------------------------------------

SHARE = re.compile(r"\d+%")


def cards(page: Any) -> Any:
    """What was started from the page Train, newest first."""
    return page.locator("[class*='st-key-job-']")


def await_state(card: Any, state: str) -> None:
    card.locator(".stMarkdownBadge").filter(has_text=re.compile(rf"\b{state}$")).wait_for(timeout=PATIENCE_MS)


def command(page: Any) -> str:
    """The command line that the form shows."""
    return " ".join(page.locator('[data-testid="stCode"]').first.inner_text().split())


def cell(page: Any, words: str) -> None:
    """Wait for a table's cell that says just this. Tables are painted; their words stand inside the canvas, for those who cannot see it."""
    found = page.locator("[role=gridcell]").filter(has_text=re.compile(f"^{re.escape(words)}$"))
    found.first.wait_for(timeout=PATIENCE_MS, state="attached")
