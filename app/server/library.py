"""plotly.js as it came with the plotly package, served by this server: no other host is asked."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import plotly
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

_FILE = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"
_TYPE = "text/javascript"
#: Another one for another version, so that a browser may keep what it has.
ADDRESS = f"/plotly-{plotly.__version__}.min.js"
PRELOAD = f"<{ADDRESS}>; rel=preload; as=script"
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}


def route() -> Route:
    return Route(ADDRESS, _send)


@functools.cache
def packed() -> bytes:
    """A third of the bytes; made once, since every first visitor asks for it."""
    return gzip.compress(_FILE.read_bytes(), 6)


def _send(request: Request) -> Response:
    """In a thread of its own, as starlette calls what is not async."""
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed(), media_type=_TYPE, headers={**_KEPT, "Content-Encoding": "gzip"})
    return FileResponse(_FILE, media_type=_TYPE, headers=_KEPT)
