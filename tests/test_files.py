"""Streamlit's own files from memory: the same bytes as on disk, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from app.server import files


def answer(path: str, method: str = "GET", kind: str = "http") -> tuple[bool, list[MutableMapping[str, Any]]]:
    told: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    return asyncio.run(files.sent({"type": kind, "method": method, "path": path}, send)), told


@pytest.fixture(scope="module")
def names() -> list[str]:
    return sorted(files._names())


def test_a_file_of_a_page_is_sent_as_it_is_on_disk(names: list[str]) -> None:
    assert {name.rpartition(".")[2] for name in names} == {"js", "css", "woff2"}
    for name, kind in ((next(name for name in names if name.endswith(end)), kind) for end, kind in ((".js", b"javascript"), (".css", b"text/css"))):
        done, (start, body) = answer(f"/{name}")
        assert done
        assert body["body"] == (files.ROOT / name).read_bytes()
        headers = dict(start["headers"])
        assert kind in headers[b"content-type"]
        assert int(headers[b"content-length"]) == len(body["body"])
        assert b"immutable" in headers[b"cache-control"]


def test_most_of_what_a_page_names_is_among_them(names: list[str]) -> None:
    """Another version of Streamlit may call its files otherwise: pages would only be slower, and nobody would notice."""
    page = (files.ROOT / "index.html").read_text()
    assert sum(name in page for name in names) >= 20


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/static/index.html",
        "/index.html",
        "/static/js/../../index.html",
        "/static/js/%2e%2e/index.html",
        "//static/js/x",
        "/static/js/nothing.abcdefgh.js",
    ],
)
def test_all_else_is_left_to_streamlit(path: str) -> None:
    assert answer(path) == (False, [])


def test_only_reading_and_only_http_is_answered(names: list[str]) -> None:
    assert answer(f"/{names[0]}", "POST") == answer(f"/{names[0]}", "HEAD") == (False, [])
    assert answer(f"/{names[0]}", kind="websocket") == (False, [])


def test_names_of_strangers_are_not_kept() -> None:
    before = files._content.cache_info().currsize
    for number in range(50):
        assert answer(f"/static/js/x{number}.abcdefgh.js") == (False, [])
    assert files._content.cache_info().currsize == before


def test_a_file_that_cannot_be_read_is_left_to_streamlit(names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(files, "ROOT", tmp_path)
    files._content.cache_clear()
    assert answer(f"/{names[-1]}") == (False, [])
    files._content.cache_clear()
