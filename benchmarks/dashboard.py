"""How fast the dashboard answers, in a real browser: from the click until the page shows it.

    python -m benchmarks.dashboard --repeats 20 --minutes 10 --json dashboard.json

Fifty runs, one of them of 10,000 updates x 30 layers x 2 roles with sketches. Measured with headless Chromium on the machine that also
serves: a cold open (a new server, a new browser context, until the first chart), a change of page, a filter, a change of run and of layers, one
step of the replay, bytes over the WebSocket by page, the server's memory while a live run is polled, and the time from a flush to the
picture. Medians and 95th percentiles of as many repeats as are asked for. The limits are the goals, on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from app import dashboard
from benchmarks.recorder import machine
from interplay.config import RunConfig
from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore
from tests.browser.conftest import CHROMIUM, QUIET
from tests.fabricate import Fabricated

RUNS, UPDATES, LAYERS, SUMS, BLOCK = 50, 10_000, 30, 64, 500
#: Seconds that are wanted at most, by measure; bytes and slopes have their own lines below.
GOALS = {"cold open": 3.0, "page": 1.0, "filter": 0.5, "run": 0.5, "layers": 0.5, "replay step": 0.15, "live point": 3.0}
PAGES = ("Runs", "Replay", "Interplay", "Train", "Compare", "Export")
QUIET_PAGE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
CHART = ".js-plotly-plot .main-svg"


# --- fifty runs ----------------------------------------------------------------------------------


def runs(root: Path) -> Path:
    """Forty-nine small runs and the large one."""
    for seed in range(RUNS - 1):
        Fabricated(root / f"small-{seed:02d}", layers=4, k=32, updates_each=8, seed=seed, method=("rloo", "ppo", "dpo")[seed % 3]).whole(1)
    large(root / "large")
    return root


def large(path: Path) -> None:
    """10,000 updates of two roles, one module for each layer; numbers are drawn, their shapes are true."""
    store = RunStore.create(
        path,
        RunInfo(run="large", config=RunConfig().to_mapping(), command=["interplay", "train"], created="2026-01-01T00:00:00+00:00", sketch=SketchSpec(k=SUMS)),
    )
    random = np.random.default_rng(0)
    drift = {role: random.standard_normal((LAYERS, SUMS)) for role in ("policy", "reward")}
    for begin in range(0, UPDATES, BLOCK):
        for offset, (role, other) in enumerate((("policy", "reward"), ("reward", "policy"))):
            steps = random.standard_normal((BLOCK, LAYERS, SUMS)).astype(np.float32) * 1e-3 + drift[role].astype(np.float32) * 1e-3
            _block(store, random, begin, offset, role, other, steps)
        store.flush()
    _curves(store, random)
    store.close("finished")


def _block(store: RunStore, random: np.random.Generator, begin: int, offset: int, role: str, other: str, steps_UTK: Any) -> None:
    """One block of updates of one role."""
    number, count = np.repeat(np.arange(begin, begin + BLOCK), LAYERS), BLOCK * LAYERS
    place = {"clock": 2 * number + offset + 1, "update": number + 1, "iteration": number // 2500, "layer": np.tile(np.arange(LAYERS), BLOCK)}
    words = {
        "role": [role] * count,
        "module": [f"layers.{layer}.self_attn.q_proj" for layer in range(LAYERS)] * BLOCK,
        "kind": ["q_proj"] * count,
        "space": ["factor"] * count,
    }
    norms = np.linalg.norm(steps_UTK, axis=2).ravel()
    cosines = np.clip(0.6 + 0.1 * random.standard_normal(count), -1, 1).astype(np.float32)
    chance = {
        "other_role": [other] * count,
        "cos_other_update": cosines - 0.6,
        "null_other_update": np.full(count, 0.06),
        "attainable_other_update": np.full(count, 0.9),
    }
    store.append("updates", {**place, **words, "update_norm": norms, "weight_norm": np.full(count, 1.5), "cos_previous": cosines, **chance})
    scale = np.abs(steps_UTK).max(axis=2)
    sketch = (steps_UTK / scale[..., None]).astype(np.float16).reshape(count, SUMS)
    store.append("directions", {**place, **words, "scale": scale.ravel(), "standard_error": np.full(count, SUMS**-0.5), "sketch": list(sketch)})


def _curves(store: RunStore, random: np.random.Generator) -> None:
    """Reward, KL, gold and tokens of each policy update, and completions of some."""
    number = np.arange(UPDATES)
    values = {"reward": number / UPDATES + random.normal(0, 0.1, UPDATES), "kl": number / UPDATES, "gold": 0.4 + number / 5e4, "tokens": 190.0 * (number + 1)}
    place = {
        "clock": 2 * number + 1,
        "update": number + 1,
        "iteration": number // 2500,
        "role": ["policy"] * UPDATES,
        "split": ["train"] * UPDATES,
        "seconds": 2.0 * number,
    }
    for name, value in values.items():
        store.append("metrics", {**place, "name": [name] * UPDATES, "value": value})
    some = np.arange(0, UPDATES, 50)
    shown = {
        "clock": 2 * some + 1,
        "update": some + 1,
        "iteration": some // 2500,
        "role": ["policy"] * len(some),
        "split": ["train"] * len(some),
        "seconds": 2.0 * some,
    }
    texts = {
        "prompt_id": ["p0"] * len(some),
        "prompt": ["Write one line about the sea."] * len(some),
        "completion": [f"The sea keeps secret {one}." for one in some],
    }
    scores = {
        "tokens": [9] * len(some),
        "finished": [True] * len(some),
        "reward": [0.5] * len(some),
        "gold": [0.5] * len(some),
        "proxy": [None] * len(some),
        "kl": [0.1] * len(some),
    }
    shown.pop("seconds")
    store.append("completions", {**shown, **texts, **scores})


# --- a server and a tab --------------------------------------------------------------------------


@contextmanager
def served(root: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A dashboard of its own; its address and its process."""
    port = dashboard.choose_port(None)
    process = Popen(dashboard.command("127.0.0.1", port), env=dashboard.environment([root]), stdout=DEVNULL, stderr=DEVNULL)
    try:
        if not dashboard.wait_until_up(f"http://127.0.0.1:{port}", 60):
            raise SystemExit("the dashboard did not start")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


class Tab:
    """One tab; counts the bytes that come over its WebSocket."""

    def __init__(self, browser: Any, url: str) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000})
        self.page, self.url, self.bytes = self.context.new_page(), url, 0
        self.largest = 0
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, payload: str | bytes) -> None:
        self.bytes += len(payload)
        self.largest = max(self.largest, len(payload))

    def open(self, address: str) -> None:
        self.page.goto(self.url + address)

    def drawn(self, charts: int = 1) -> None:
        self.page.wait_for_function("([css, count]) => document.querySelectorAll(css).length >= count", arg=[CHART, charts], timeout=120_000)

    def quiet(self) -> None:
        self.page.wait_for_selector(QUIET_PAGE, timeout=60_000)

    def close(self) -> None:
        self.context.close()


def timed(act: Callable[[], Any], until: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    until()
    return time.perf_counter() - start


# --- what is measured ----------------------------------------------------------------------------


def cold(browser: Any, root: Path, repeats: int, address: str) -> list[float]:
    """New server, new browser context: from the address to the first chart."""
    found = []
    for _ in range(repeats):
        with served(root) as (url, _process):
            tab = Tab(browser, url)
            found.append(timed(lambda tab=tab: tab.open(address), tab.drawn))
            tab.close()
    return found


def pages(tab: Tab, repeats: int) -> dict[str, list[float]]:
    """From the click on a page's name until its script has ended under its title; the first visit of each is not counted."""
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    for turn in range(repeats + 1):
        for name in PAGES:
            seconds = timed(
                lambda name=name: tab.page.get_by_test_id("stTopNavLink").and_(tab.page.get_by_role("link", name=name)).click(),
                lambda name=name: _titled(tab, name),
            )
            if turn:
                found[name].append(seconds)
    return found


def _titled(tab: Tab, name: str) -> None:
    tab.page.wait_for_function("name => document.querySelector('h1')?.innerText.trim() === name", arg=name, timeout=60_000)
    tab.quiet()


def filtering(tab: Tab, repeats: int) -> list[float]:
    """From a filter typed on the Runs page until the count of rows says so."""
    tab.open("/runs")
    tab.quiet()
    box = tab.page.locator('[data-testid="stTextInput"] input').first
    found = []
    for turn in range(repeats):
        word, count = ("ppo", f"{len(range(1, RUNS - 1, 3))} of") if turn % 2 == 0 else ("dpo", f"{len(range(2, RUNS - 1, 3))} of")
        box.fill(word)
        found.append(timed(lambda: box.press("Enter"), lambda count=count, word=word: _counted(tab, word, count)))
    return found


def _counted(tab: Tab, word: str, count: str) -> None:
    tab.page.wait_for_function("word => new URL(location).searchParams.get('q') === word", arg=word)
    tab.page.get_by_text(count, exact=False).first.wait_for(timeout=10_000)
    tab.quiet()


def another_run(tab: Tab, repeats: int) -> list[float]:
    """From the choice of another (small) run until its line of state stands there and its script has ended."""
    tab.open("/replay?run=small-00")
    tab.drawn(4)
    tab.quiet()
    found = []
    for turn in range(repeats):
        name = f"small-{turn % 2 + 1:02d}"
        tab.page.get_by_role("combobox").first.fill(name)
        option = tab.page.get_by_role("option", name=name)
        option.wait_for()
        found.append(timed(option.click, lambda turn=turn: (tab.page.get_by_text(f"seed {turn % 2 + 1}", exact=False).first.wait_for(), tab.quiet())))
    return found


def layers(tab: Tab, repeats: int) -> list[float]:
    """From another quantity in the heat map of the large run until it is drawn."""
    tab.open("/replay?run=large&update=5000")
    tab.drawn(5)
    tab.quiet()
    found = []
    for turn in range(repeats):
        word = ("persistence", "update norm")[turn % 2]
        before = tab.page.evaluate(_HEAT)
        button = tab.page.get_by_role("radio", name=word).first
        found.append(timed(button.click, lambda before=before: tab.page.wait_for_function(f"before => ({_HEAT})() !== before", arg=before, timeout=30_000)))
    return found


#: What tells one heat map from another: the range of its colours.
_HEAT = """() => {
  const trace = document.querySelector('.st-key-chart-heat-policy .js-plotly-plot')?._fullData?.[0];
  return trace ? [trace.zmin, trace.zmax, trace.z?.[0]?.[0], trace.z?.[1]?.[1]].join('/') : '';
}"""


def steps(tab: Tab, repeats: int) -> list[float]:
    """From an arrow key on the slider of the large run until the page names the next update."""
    tab.open("/replay?run=large&update=5000")
    tab.drawn(5)
    tab.quiet()
    thumb = tab.page.get_by_role("slider").first
    thumb.focus()
    found = []
    for turn in range(repeats):
        found.append(timed(lambda: thumb.press("ArrowRight"), lambda turn=turn: tab.page.get_by_text(f"update {5001 + turn},", exact=False).first.wait_for()))
    return found


def wire(browser: Any, url: str) -> dict[str, dict[str, int]]:
    """Bytes over the WebSocket of each page's first showing, and of its largest message."""
    found = {}
    for name, address in (
        ("Runs", "/runs"),
        ("Replay", "/replay?run=large"),
        ("Interplay", "/interplay?run=large"),
        ("Train", "/train"),
        ("Compare", "/compare"),
        ("Export", "/export"),
    ):
        tab = Tab(browser, url)
        tab.open(address)
        tab.page.wait_for_timeout(1000)
        tab.quiet()
        tab.page.wait_for_timeout(3000)
        found[name] = {"bytes": tab.bytes, "largest": tab.largest}
        tab.close()
    return found


def living(browser: Any, url: str, root: Path, process: psutil.Process, repeats: int, minutes: float) -> dict[str, Any]:
    """A run that is written while a tab polls it: seconds from flush to picture, and the server's memory over time."""
    made = Fabricated(root / "live", layers=4, k=32, value=False)
    made.heldout(0)
    made.step("policy", 1, 4)
    made.store.flush()
    tab = Tab(browser, url)
    tab.open("/replay?run=live")
    tab.drawn(4)
    tab.quiet()
    delays = [_until_seen(tab, made) for _ in range(repeats)]
    memory = _memory(made, process, minutes)
    made.store.close("finished")
    tab.close()
    return {"delays": delays, **memory}


_POINTS = "() => document.querySelector('.st-key-chart-reward_curve .js-plotly-plot')?._fullData[0].x.length ?? 0"


def _until_seen(tab: Tab, made: Fabricated) -> float:
    before = tab.page.evaluate(_POINTS)
    made.step("policy", 1, 1)
    return timed(made.store.flush, lambda: tab.page.wait_for_function(f"before => ({_POINTS})() > before", arg=before, timeout=30_000))


def _memory(made: Fabricated, process: psutil.Process, minutes: float) -> dict[str, Any]:
    """Megabytes of the server while the run grows by an update each second: the slope after the first third."""
    begin, seen = time.monotonic(), []
    while (gone := time.monotonic() - begin) < minutes * 60:
        made.step("policy", 1, 1)
        made.store.flush()
        seen.append((gone / 60, process.memory_info().rss / 1e6))
        time.sleep(1.0)
    late = [one for one in seen if one[0] > minutes / 3] or [(0.0, 0.0), (1.0, 0.0)]
    slope = float(np.polyfit(*zip(*late, strict=True), 1)[0]) if len(late) > 2 else 0.0
    return {"minutes": minutes, "megabytes_end": seen[-1][1] if seen else None, "megabytes_per_minute": slope}


# --- told ----------------------------------------------------------------------------------------


def summary(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50": statistics.median(seconds), "p95": float(np.percentile(seconds, 95)), "repeats": len(seconds)}


def told(label: str, seconds: Sequence[float], goal: str) -> dict[str, float]:
    found = summary(seconds)
    mark = "" if found["p95"] <= GOALS[goal] else "  above its goal" if found["p50"] > GOALS[goal] else "  p95 above its goal"
    print(f"{label:<44} p50 {found['p50'] * 1000:7.0f} ms   p95 {found['p95'] * 1000:7.0f} ms   (goal {GOALS[goal] * 1000:.0f} ms){mark}", flush=True)
    return found


def measure(root: Path, repeats: int, minutes: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        found["cold open, small run"] = told("cold open to first chart, small run", cold(browser, root, repeats, "/replay?run=small-00"), "cold open")
        found["cold open, large run"] = told("cold open to first chart, large run", cold(browser, root, repeats, "/replay?run=large"), "cold open")
        with served(root) as (url, process):
            tab = Tab(browser, url)
            tab.open("/runs")
            tab.quiet()
            found["pages"] = {name: told(f"to the page {name}", seconds, "page") for name, seconds in pages(tab, repeats).items()}
            found["filter"] = told("filter of the list of runs", filtering(tab, repeats), "filter")
            found["run"] = told("another run", another_run(tab, repeats), "run")
            found["layers"] = told("another heat map, large run", layers(tab, repeats), "layers")
            found["replay step"] = told("one step of the replay, large run", steps(tab, repeats), "replay step")
            tab.close()
            found["wire"] = wire(browser, url)
            for name, size in found["wire"].items():
                print(f"{name:<44} {size['bytes'] / 1e6:.2f} MB, largest message {size['largest'] / 1e6:.2f} MB   (goals 5 and 2)", flush=True)
            live = living(browser, url, root, process, repeats, minutes)
            found["live point"] = told("a flushed point is seen", live.pop("delays"), "live point")
            found["memory"] = live
            print(f"{'server memory, live run polled':<44} {live['megabytes_per_minute']:+.2f} MB per minute over {minutes:g} minutes", flush=True)
        browser.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="repeats of each measure (default 20)")
    parser.add_argument("--minutes", type=float, default=10, help="minutes that a live run is polled for the server's memory (default 10)")
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(runs(Path(folder) / "runs"), arguments.repeats, arguments.minutes)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**found, "machine": machine()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
