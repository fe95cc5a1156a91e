"""plotly.js as it came with the plotly package, served by this server as a module: no other host is asked."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILE = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"
#: The file is one function that is called with another one: nothing in it is compiled before it runs, a second in which the page stands still.
_BEGIN, _END = b'() => {\n"use strict";var Plotly=', b"window.Plotly = Plotly;"
#: Has Chrome compile functions while the file comes in, beside the page; others read a comment.
_HINT = b"//# allFunctionsCalledOnLoad\n"
#: Another one for another version, so that a browser may keep what it has.
ADDRESS = f"/plotly-{plotly.__version__}.module.js"
PRELOAD = f"<{ADDRESS}>; rel=modulepreload"
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


def route() -> Route:
    return Route(ADDRESS, _send)


def plain() -> bytes:
    """The file as a module: with its licence, and without the function around it; whole where that is not found."""
    whole = _FILE.read_bytes()
    head, begin, rest = whole.partition(_BEGIN)
    body, end, _ = rest.rpartition(_END)
    if not (begin and end):
        return whole
    return b"".join([_HINT, head[: head.find(b"*/") + 2], b'\n"use strict";var Plotly=', body, end, b"\n"])


@functools.cache
def packed() -> bytes:
    """A third of the bytes; made once, since every first visitor asks for it."""
    return gzip.compress(plain(), 6)


def _send(request: Request) -> Response:
    """In a thread of its own, as starlette calls what is not async."""
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed(), media_type="text/javascript", headers={**_KEPT, "Content-Encoding": "gzip"})
    return Response(plain(), media_type="text/javascript", headers=_KEPT)
