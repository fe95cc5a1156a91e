"""How fast the dashboard answers, in a real browser: from the click until the page shows it.

    python -m benchmarks.dashboard --repeats 20 --minutes 10 --json dashboard.json
    python -m benchmarks.dashboard --only pages steps --repeats 3 --runs FOLDER    # parts of it, over runs that stay for the next time

Fifty runs, one of them of 10,000 updates x 30 layers x 2 roles with sketches (`benchmarks.dashboard_runs`). Measured with headless Chromium on
the machine that also serves: a cold open (a new server, a new browser context, until the first chart), each file of a page, a change of page, a
filter, a change of run, of layers and of paths, one step of the replay, hovering and zooming, bytes over the WebSocket by page, the time from a
flush to the picture, and the server's memory while a live run is polled. Medians and 95th percentiles of as many repeats as are asked for. The
limits are the goals, on two cores. Without a browser it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.reading.loading import Feed
from benchmarks import dashboard_runs
from benchmarks.dashboard_runs import LARGE, METHODS, RUNS, small
from benchmarks.dashboard_tab import Tab, chromium, served, timed
from benchmarks.recorder import machine
from tests.browser.conftest import QUIET
from tests.fabricate import Fabricated

#: Seconds that are wanted at most, by measure.
GOALS = {"cold open": 3.0, "page": 1.0, "choice": 0.5, "replay step": 0.15, "in the browser": 0.15, "live point": 3.0}
#: Megabytes of a page, of its largest message (a chart), and what the server may grow in a minute beside a live run's own rows and still be called flat.
PAGE, MESSAGE, FLAT = 5.0, 2.0, 1.0
PAGES = ("Runs", "Replay", "Interplay", "Train", "Compare", "Export")
#: Charts of the Replay page of a run with two roles.
ALL = 6

Found = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    browser: Any
    root: Path
    repeats: int
    minutes: float

    @contextmanager
    def tab(self) -> Iterator[tuple[Tab, psutil.Process]]:
        """A tab of a server of its own."""
        with served(self.root) as (url, process):
            tab = Tab(self.browser, url)
            yield tab, process
            tab.close()

    def changes(self, tab: Tab, words: Sequence[str], script: str) -> list[float]:
        """From a click on one of these words by turns until what `script` says of the page has changed."""
        found = []
        for turn in range(self.repeats):
            before, button = tab.page.evaluate(script), tab.page.get_by_role("radio", name=words[turn % len(words)], exact=True).first
            found.append(timed(button.click, lambda before=before: tab.until(f"before => ({script})() !== before", before)))
            tab.quiet()
        return found


# --- what is measured: one function for each part --------------------------------------------------


def cold(bench: Bench) -> Found:
    """New server, new browser context: from the address to the first chart, and until all of them stand."""
    found: dict[str, list[float]] = {"first chart, small run": [], "first chart, large run": [], "all charts, large run": []}
    for name, size in ((small(0), "small"), (LARGE, "large")):
        for _ in range(bench.repeats):
            with bench.tab() as (tab, _process):
                first = timed(lambda tab=tab, name=name: tab.page.goto(f"{tab.url}/replay?run={name}"), tab.drawn)
                found[f"first chart, {size} run"].append(first)
                if size == "large":
                    found["all charts, large run"].append(first + timed(lambda tab=tab: tab.drawn(ALL), tab.quiet))
    return {name: told(f"cold open: {name}", seconds, "cold open" if name.startswith("first") else None) for name, seconds in found.items()}


def pages(bench: Bench) -> Found:
    """From the click on a page's name until its script has ended under its title; the first visit of each is not counted."""
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    with bench.tab() as (tab, _):
        tab.open("/runs")
        for turn in range(bench.repeats + 1):
            for name in PAGES:
                link = tab.page.get_by_test_id("stTopNavLink").and_(tab.page.get_by_role("link", name=name, exact=True))
                seconds = timed(link.click, lambda name=name: _titled(tab, name))
                if turn:
                    found[name].append(seconds)
    return {name: told(f"to the page {name}", seconds, "page") for name, seconds in found.items()}


def _titled(tab: Tab, name: str) -> None:
    tab.until("name => document.querySelector('h1')?.innerText.trim() === name", name, 60_000)
    tab.quiet()


def choices(bench: Bench) -> Found:
    """A filter of the list of runs, another run, and other heat maps and paths of the large one."""
    found = {}
    with bench.tab() as (tab, _):
        found["filter"] = told("filter of the list of runs", filtering(bench, tab), "choice")
        found["run"] = told("another run", another_run(bench, tab), "choice")
        tab.open(f"/replay?run={LARGE}&update=5000", ALL)
        found["layers"] = told("another quantity of layers, large run", bench.changes(tab, ("persistence", "update norm"), _HEAT), "choice")
        found["scale"] = told("paths in another scale, large run", bench.changes(tab, ("weight units", "equal reach"), _PATHS), "choice")
        found["dimensions"] = told("paths in 3-D and 2-D, large run", bench.changes(tab, ("3-D", "2-D"), _PATHS), "choice")
        found["first of each"] = first_choices(bench)
    return found


def first_choices(bench: Bench) -> Found:
    """The same, each the first time that anybody asks this server for it: later ones are kept ready."""
    once = Bench(bench.browser, bench.root, 1, 0)
    found: dict[str, list[float]] = {"persistence": [], "weight units": [], "3-D": []}
    for _ in range(bench.repeats):
        with bench.tab() as (tab, _process):
            tab.open(f"/replay?run={LARGE}&update=5000", ALL)
            for word, seconds in found.items():
                seconds += once.changes(tab, (word,), _HEAT if word == "persistence" else _PATHS)
    return {word: told(f"{word}, large run, for the first time", seconds, "choice") for word, seconds in found.items()}


def filtering(bench: Bench, tab: Tab) -> list[float]:
    """From a filter typed on the Runs page until the count of rows says so."""
    tab.open("/runs")
    box = tab.page.get_by_test_id("stTextInput").locator("input").first
    found = []
    for turn in range(bench.repeats):
        word = METHODS[1 + turn % 2]
        box.fill(word)
        found.append(timed(lambda: box.press("Enter"), lambda word=word: _counted(tab, word)))
    return found


def _counted(tab: Tab, word: str) -> None:
    tab.until("word => new URL(location).searchParams.get('q') === word", word)
    tab.page.get_by_text(f"{dashboard_runs.count(word)} of {RUNS} runs", exact=False).first.wait_for(timeout=10_000)
    tab.quiet()


def another_run(bench: Bench, tab: Tab) -> list[float]:
    """From the choice of another (small) run until its line of state stands there and its script has ended."""
    tab.open(f"/replay?run={small(0)}", ALL)
    found = []
    for turn in range(bench.repeats):
        seed = turn % 2 + 1
        tab.page.get_by_role("combobox").first.fill(small(seed))
        option = tab.page.get_by_role("option", name=small(seed))
        option.wait_for()
        found.append(timed(option.click, lambda seed=seed: (tab.page.get_by_text(f"seed {seed}", exact=False).first.wait_for(), tab.quiet())))
    return found


#: What tells one heat map from another: its colours' range and two of its cells. The same for paths: their last places and axes.
_HEAT = """() => {
  const trace = document.querySelector('.st-key-chart-heat-policy .js-plotly-plot')?._fullData?.[0];
  return trace ? [trace.zmin, trace.zmax, trace.z?.[0]?.[0], trace.z?.[1]?.[1]].join('/') : '';
}"""
_PATHS = """() => {
  const trace = document.querySelector('.st-key-chart-paths .js-plotly-plot')?._fullData?.[0];
  return trace ? [trace.type, trace.x?.at?.(-1), trace.y?.at?.(-1)].join('/') : '';
}"""


def steps(bench: Bench) -> Found:
    """From an arrow key on the slider of the large run until the page names the next update and its charts mark it."""
    found = []
    with bench.tab() as (tab, _):
        tab.open(f"/replay?run={LARGE}&update=5000", ALL)
        thumb = tab.page.get_by_role("slider").first
        thumb.focus()
        for turn in range(bench.repeats):
            found.append(timed(lambda: thumb.press("ArrowRight"), lambda turn=turn: tab.until(_MARKED, 5001 + turn)))
            tab.quiet()
    return told("one step of the replay, large run", found, "replay step")


_MARKED = """number => [...document.querySelectorAll('[data-testid="stText"]')].some((one) => one.innerText.startsWith(`update ${number},`)) &&
  ['reward_curve', 'heat-policy'].every((name) =>
    document.querySelector(`.st-key-chart-${name} .js-plotly-plot`)?._fullLayout?.shapes.at(-1)?.x0 === number)"""


def hovering(bench: Bench) -> Found:
    """From the pointer on a curve of the large run until its label stands, and from a drag until the axis has it: no message may go to the server."""
    with bench.tab() as (tab, _):
        tab.open(f"/replay?run={LARGE}&update=5000", ALL)
        box, asked = tab.page.evaluate(_PLOT), tab.asked
        hovered, zoomed = [], []
        for turn in range(bench.repeats):
            _away(tab, box)
            hovered.append(timed(lambda turn=turn: _point(tab, box, turn), lambda: tab.until(_LABEL)))
            zoomed.append(timed(lambda: _drag(tab, box), lambda: tab.until(_ZOOMED)))
        asked = tab.asked - asked
    print(f"{'messages to the server meanwhile':<48} {asked}   (goal 0)", flush=True)
    return {"hover": told("hover", hovered, "in the browser"), "zoom": told("zoom", zoomed, "in the browser"), "messages": asked}


_GRAPH = "document.querySelector('.st-key-chart-reward_curve .js-plotly-plot')"
_PLOT = f"() => {_GRAPH}.querySelector('.nsewdrag').getBoundingClientRect().toJSON()"
_LABEL = f"() => {_GRAPH}.querySelector('.hoverlayer .hovertext')"
_ZOOMED = f"() => {{ const [low, high] = {_GRAPH}._fullLayout.xaxis.range; return high - low < 8000; }}"


def _away(tab: Tab, box: dict[str, float]) -> None:
    """The whole curve, and no label on it."""
    tab.page.evaluate(f"() => Plotly.relayout({_GRAPH}, {{'xaxis.autorange': true, 'yaxis.autorange': true}})")
    tab.page.mouse.move(box["x"] - 30, box["y"] - 30)
    tab.until(f"() => !({_LABEL})()")


def _point(tab: Tab, box: dict[str, float], turn: int) -> None:
    """The pointer on the line, which crosses the whole picture; the label comes with a movement over it."""
    share = 0.3 + 0.02 * (turn % 20)
    for pixel in (0, 1):
        tab.page.mouse.move(box["x"] + box["width"] * share + pixel, box["y"] + box["height"] * (0.85 - 0.7 * share))


def _drag(tab: Tab, box: dict[str, float]) -> None:
    tab.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 10, steps=3)
    tab.page.mouse.up()


def wire(bench: Bench) -> Found:
    """Bytes over the WebSocket of each page's first showing, and of its largest message."""
    found = {}
    with served(bench.root) as (url, _process):
        for name in PAGES:
            tab = Tab(bench.browser, url)
            tab.open(f"/{name.lower()}" + (f"?run={LARGE}" if name in ("Replay", "Interplay") else ""))
            tab.page.wait_for_timeout(3000)
            tab.quiet()
            found[name] = {"bytes": tab.bytes, "largest": tab.largest}
            tab.close()
            mark = "" if tab.bytes <= PAGE * 1e6 and tab.largest <= MESSAGE * 1e6 else "  above its goal"
            print(f"{f'{name}, on the wire':<48} {tab.bytes / 1e6:.2f} MB, largest message {tab.largest / 1e6:.2f} MB   (goals 5 and 2){mark}", flush=True)
    return found


def files(bench: Bench) -> Found:
    """The files that a page names first, one after the other over one connection: what each costs beside its bytes."""
    with served(bench.root) as (url, _process):
        asked = http.client.HTTPConnection(url.removeprefix("http://"))
        names = sorted(set(re.findall(r'(?:src|href)="[./]*(static/[^"]+)"', _body(asked, "/"))))
        seconds = [timed(lambda name=name: _body(asked, f"/{name}"), lambda: None) for _ in range(bench.repeats) for name in names]
        asked.close()
    return told(f"one of {len(names)} files of a page", seconds, None)


def _body(asked: http.client.HTTPConnection, path: str) -> str:
    asked.request("GET", path, headers={"Accept-Encoding": "gzip"})
    return asked.getresponse().read().decode("latin-1")


def live(bench: Bench) -> Found:
    """A run that is written while a tab polls it: seconds from flush to picture, and the server's memory over time."""
    shutil.rmtree(bench.root / "live", ignore_errors=True)
    made = Fabricated(bench.root / "live", layers=4, k=32, value=False)
    made.heldout(0)
    made.step("policy", 1, 4)
    made.store.flush()
    try:
        with bench.tab() as (tab, process):
            tab.open("/replay?run=live", ALL - 1)
            delays = [_until_seen(tab, made) for _ in range(bench.repeats)]
            return {"point": told("a flushed point is seen", delays, "live point"), "memory": _memory(made, process, bench.minutes)}
    finally:
        made.store.close("finished")
        shutil.rmtree(bench.root / "live")


_POINTS = "() => document.querySelector('.st-key-chart-reward_curve .js-plotly-plot')?._fullData[0].x.length ?? 0"


def _until_seen(tab: Tab, made: Fabricated) -> float:
    before = tab.page.evaluate(_POINTS)
    made.step("policy", 1, 1)
    return timed(made.store.flush, lambda: tab.until(f"before => ({_POINTS})() > before", before))


def _memory(made: Fabricated, process: psutil.Process, minutes: float) -> Found:
    """Megabytes of the server while the run grows by an update each second: the slope after the first third, and what its rows take of that."""
    begin, seen = time.monotonic(), []
    feed = Feed(made.path)
    while (gone := time.monotonic() - begin) < minutes * 60:
        made.step("policy", 1, 1)
        made.store.flush()
        seen.append((gone / 60, process.memory_info().rss / 1e6, _rows(feed)))
        time.sleep(1.0)
    late = [one for one in seen if one[0] > minutes / 3]
    if len(late) < 3:
        return {"minutes": minutes}
    at, *columns = zip(*late, strict=True)
    slope, rows = (float(np.polyfit(at, column, 1)[0]) for column in columns)
    mark = "" if slope - rows <= FLAT else "  above its goal"
    label = f"{slope:+.2f} MB per minute over {minutes:g} minutes, {rows:.2f} of them the run's own new rows   (goal: at most {FLAT:g} beside those)"
    print(f"{'server memory, live run polled':<48} {label}{mark}", flush=True)
    ends = {"megabytes_begin": seen[0][1], "megabytes_end": seen[-1][1]}
    return {"minutes": minutes, **ends, "megabytes_per_minute": slope, "megabytes_per_minute_of_rows": rows}


def _rows(feed: Feed) -> float:
    """Megabytes of a run's rows as a page holds them: Arrow tables, paths and frames."""
    feed.refresh()
    frames = [feed.frame(stream).memory_usage(deep=True).sum() for stream in feed.tables]
    feed.trajectories(["policy"])
    return float((feed.nbytes + sum(frames)) / 1e6)


PARTS = {part.__name__: part for part in (cold, files, pages, choices, steps, hovering, wire, live)}


# --- told ----------------------------------------------------------------------------------------


def told(label: str, seconds: Sequence[float], goal: str | None) -> Found:
    """Median and 95th percentile, printed beside what is wanted."""
    found = {"p50": statistics.median(seconds), "p95": float(np.percentile(seconds, 95)), "repeats": len(seconds)}
    wanted = GOALS[goal] if goal else float("inf")
    mark = "" if found["p95"] <= wanted else "  above its goal" if found["p50"] > wanted else "  p95 above its goal"
    limit = f"   (goal {wanted * 1000:.0f} ms)" if goal else ""
    print(f"{label:<48} p50 {found['p50'] * 1000:7.0f} ms   p95 {found['p95'] * 1000:7.0f} ms{limit}{mark}", flush=True)
    return {**found, "goal": wanted} if goal else found


def measure(path: str, root: Path, arguments: argparse.Namespace) -> None:
    """One part after the other; what is known by then is written after each."""
    from playwright.sync_api import sync_playwright

    found: Found = {"machine": machine(), "goals": GOALS}
    with sync_playwright() as running:
        bench = Bench(running.chromium.launch(executable_path=path, args=QUIET), root, arguments.repeats, arguments.minutes)
        for name in arguments.only or PARTS:
            found[name] = PARTS[name](bench)
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(found, indent=1))
        bench.browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="repeats of each measure (default 20)")
    parser.add_argument("--minutes", type=float, default=10, help="minutes that a live run is polled for the server's memory (default 10)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone (default: all)")
    parser.add_argument("--runs", type=Path, help="make the runs here and leave them; those that are there are used (default: a temporary folder)")
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    if not (path := chromium()):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        measure(path, dashboard_runs.fabricate(arguments.runs or Path(folder) / "runs"), arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
