"""Pictures of every page, as the README shows them: the real dashboard over the shipped recordings, in a real browser.

python -m tests.browser.photograph docs/pages          # all of them
python -m tests.browser.photograph docs/pages replay   # one
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

from playwright.sync_api import sync_playwright

from app.export import wanted
from app.reading import loading, recorded
from app.server import dashboard
from tests.browser.conftest import CHROMIUM, QUIET, Watched

WIDTH, SCALE = 1400, 1.5
#: Name -> address, height in pixels, and how many charts must have been drawn.
PAGES: Mapping[str, tuple[str, int, int]] = {
    "runs": ("/?selected=rloo-chat-s0&smoothing=0.6&selected=ppo-chat-s0", 1300, 1),
    "replay": ("/replay?run=rloo-chat-s0&update=30", 1500, 7),
    "interplay": ("/interplay?run=rloo-chat-s0", 1250, 2),
    "train": ("/train?method=zopro", 1000, 0),
    "compare": ("/compare?out=comparison", 1250, 2),
    "export": ("/export?venue=ICML&basket={basket}", 1100, 0),
}
DRAWN = "count => document.querySelectorAll('.js-plotly-plot .main-svg').length >= count"


@contextmanager
def served(place: Path, folders: list[Path]) -> Iterator[str]:
    """A dashboard of its own over these folders, started in `place`, so that pictures show no longer paths than a user sees; its address."""
    port = dashboard.any_port()
    process = Popen(dashboard.command("127.0.0.1", port), env=dashboard.environment(folders), cwd=place, stdout=DEVNULL, stderr=DEVNULL)
    try:
        if not dashboard.wait_until_up(f"http://127.0.0.1:{port}", 60):
            raise SystemExit("the dashboard did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def basket() -> str:
    """A link's words for two figures of the shipped recordings."""
    run, rows = loading.RECORDINGS / "rloo-chat-s0", recorded.of_comparison(loading.RECORDINGS / "comparison")
    return wanted.encode([wanted.Item.of("alignment_curve", [recorded.Recorded(run)], {}), wanted.Item.of("arms", rows, {})])


def photograph(browser: Any, url: str, name: str, place: Path, scheme: str = "light") -> None:
    """One page, once everything on it has been drawn."""
    address, height, charts = PAGES[name]
    context = browser.new_context(viewport={"width": WIDTH, "height": height}, device_scale_factor=SCALE, color_scheme=scheme)
    tab = Watched(context.new_page(), url)
    tab.open(address.format(basket=basket()))
    tab.page.wait_for_function(DRAWN, arg=charts, timeout=120_000)
    tab.settle()
    tab.page.wait_for_timeout(1500)  # figures are drawn a moment after the script has ended
    tab.page.screenshot(path=place / f"{name}{'' if scheme == 'light' else '-dark'}.png")
    context.close()


def main() -> None:
    place, names = Path(sys.argv[1]), sys.argv[2:] or list(PAGES)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as empty, served(Path(empty), [Path(empty) / "runs", loading.RECORDINGS]) as url, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for name in names:
            photograph(browser, url, name.removesuffix("-dark"), place, "dark" if name.endswith("-dark") else "light")
        browser.close()


if __name__ == "__main__":
    main()
