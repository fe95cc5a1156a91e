"""How the picture of a comparison on the first page is made: `python data/draw.py data/recordings/comparison docs/comparison.png`.

The figures are those of `analysis/arms.py`, drawn by plotly in the browser that the tests use (Debian's chromium).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis import arms, screen
from analysis.spec import FigureSpec
from app.commands import comparison
from interplay import compare

CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1240, 340
PAGE = (
    "<!doctype html><meta charset=utf-8><script>{script}</script><body style='margin:0;background:white;display:flex;font-family:sans-serif'>{parts}"
    "<script>{calls}</script>"
)


def specs(folder: Path) -> list[FigureSpec]:
    """Changes of each method, and differences from the first. Raises `SystemExit` where no row is finished."""
    plan = compare.read(folder)
    found = comparison.load(plan) if plan else None
    if found is None:
        raise SystemExit(f"{folder} holds no finished comparison")
    return [arms.arms(found.numbers.runs, found.numbers.methods), arms.arm_differences(found.numbers.differences)]


def chart(spec: FigureSpec) -> go.Figure:
    """For paper: dark letters, a line at zero, room for a title."""
    made = screen.draw(spec, height=HEIGHT)
    made.update_layout(
        width=WIDTH // 2, title={"text": spec.title, "x": 0.02, "font": {"size": 16}}, margin={"l": 8, "r": 16, "t": 70, "b": 8}, font={"size": 13}
    )
    return made.add_vline(x=0, line={"width": 1, "color": "#8A8F98"})


def call(number: int, made: go.Figure) -> str:
    """The script that draws one chart; a name in it cannot end the script."""
    data = made.to_json().replace("</", "<\\/")
    return f"Plotly.newPlot('c{number}',{data},{{staticPlot:true}});"


def main() -> None:
    folder, target = (Path(word) for word in sys.argv[1:])
    from playwright.sync_api import sync_playwright

    charts = [chart(spec) for spec in specs(folder)]
    parts = "".join(f"<div id=c{number}></div>" for number in range(len(charts)))
    calls = "".join(call(number, made) for number, made in enumerate(charts))
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as running:
        page_file = Path(aside) / "page.html"
        page_file.write_text(PAGE.format(script=get_plotlyjs(), parts=parts, calls=calls), encoding="utf-8")
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT + 4}, device_scale_factor=2)
        page.goto(page_file.as_uri())
        page.wait_for_function(f"document.querySelectorAll('.main-svg').length >= {len(charts)}")
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main()
