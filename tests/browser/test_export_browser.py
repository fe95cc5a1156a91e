"""From a page into the basket, and from the basket into a paper, in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from app.export import inside
from tests.browser.conftest import Watched

pytestmark = pytest.mark.browser

PROJECT = Path(__file__).parents[2]


def fetched(page: Any, label: str, folder: Path) -> Path:
    """The file that a button downloads."""
    with page.expect_download(timeout=60_000) as waiting:
        page.get_by_role("button", name=label).first.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def filled(tab: Watched) -> Any:
    """The Export page with one figure, put into the basket on another page."""
    page = tab.page
    page.goto(tab.url + "/interplay?runs=finished")  # the first page of a fresh server may take long
    button = page.get_by_role("button", name="To the basket").first
    button.wait_for(timeout=60_000)
    button.click()
    page.get_by_role("button", name="In the basket (1)").first.wait_for(timeout=30_000)
    page.get_by_role("link", name="Export").click()
    page.get_by_text("1 figure", exact=True).wait_for(timeout=60_000)
    tab.settle()
    return page


def test_a_figure_of_a_page_becomes_a_pdf_for_a_paper(tab: Watched, tmp_path: Path) -> None:
    page = filled(tab)
    page.wait_for_url("**/export?*basket=*")
    address = page.url.removeprefix(tab.url)
    page = tab.open(address + "&venue=ICML")
    page.get_by_test_id("stImage").locator("img").first.wait_for(timeout=60_000)
    assert page.get_by_test_id("stImage").locator("img").first.evaluate("image => image.getBoundingClientRect().width") == pytest.approx(312, abs=1)
    title = page.locator("[class*='st-key-card-'] strong").first.inner_text().split(". ", 1)[1]
    pdf = fetched(page, "PDF", tmp_path).read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
    assert box
    assert float(box[1]) / 72 == pytest.approx(3.25, rel=0.005)
    parts = b"".join(_inflated(body) for body in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL))
    assert b"/Type3" not in pdf + parts
    assert b"/FontFile2" in pdf + parts
    drawn = inside.text_of("a.pdf", re.sub(rb"/(Title|Subject|Keywords) \(.*?[^\\]\)", b"", pdf, flags=re.DOTALL))
    words = re.findall(r"<text[^>]*>([^<]{4,})</text>", fetched(page, "SVG", tmp_path).read_text())
    assert words
    parts_drawn = [part for word in words for part in re.split("[^\x00-\xff]+", word)]  # a minus has a font subset and a code of its own in the PDF
    assert [part for part in parts_drawn if part not in drawn] == []
    assert title not in drawn
    assert "runs finished" in inside.about("a.pdf", pdf)


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return body


def test_a_reload_keeps_the_basket(tab: Watched) -> None:
    page = filled(tab)
    page.wait_for_url("**/export?*basket=*")
    page.reload()
    page.get_by_text("1 figure", exact=True).wait_for(timeout=60_000)


def test_the_zip_draws_itself_again(tab: Watched, tmp_path: Path) -> None:
    page = filled(tab)
    path = fetched(page, "Download all as a zip", tmp_path)
    assert path.name == "figures-neurips.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "redraw.py"], cwd=tmp_path / "figures", env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bytes") == 3


def test_the_page_of_a_figure_stands_alone(tab: Watched, browser: Any, tmp_path: Path) -> None:
    page = filled(tab)
    path = fetched(page, "HTML", tmp_path)
    asked: list[str] = []
    context = browser.new_context(offline=True)
    alone = context.new_page()
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(f"file://{path}")
    alone.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
