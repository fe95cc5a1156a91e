"""Streamlit's own scripts, styles and fonts, from memory: a page names sixty of them, and each would go through threads that read its file."""

from __future__ import annotations

import contextlib
import functools
import mimetypes
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import streamlit

#: Where Streamlit keeps what its pages load.
ROOT = Path(streamlit.__file__).with_name("static")
#: Such a name holds the hash of its content, so that a browser may keep what it has.
_NAME = re.compile(r"static/(?:js|css|media)/[\w.-]+\.[\w-]{8}\.(?:js|css|woff2)", re.ASCII)
_KEPT = (b"cache-control", b"public, max-age=31536000, immutable")

Message = MutableMapping[str, Any]


async def sent(scope: Message, send: Callable[[Message], Awaitable[None]]) -> bool:
    """Whether this was a request for such a file, which has its answer now."""
    name = scope["path"].removeprefix("/") if scope["type"] == "http" and scope["method"] == "GET" else ""
    content = _content(name) if name in _names() else None
    if content is None:
        return False
    kind = mimetypes.guess_type(scope["path"])[0] or "application/octet-stream"
    about = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode()), _KEPT]
    await send({"type": "http.response.start", "status": 200, "headers": about})
    await send({"type": "http.response.body", "body": content})
    return True


@functools.cache
def _names() -> frozenset[str]:
    """All such files that there are: no name of a stranger is looked for on disk, or kept."""
    found = (path.relative_to(ROOT).as_posix() for path in ROOT.glob("static/*/*") if path.is_file())
    return frozenset(filter(_NAME.fullmatch, found))


@functools.cache
def _content(name: str) -> bytes | None:
    """None where it cannot be read, which Streamlit may tell."""
    with contextlib.suppress(OSError):
        return (ROOT / name).read_bytes()
    return None
