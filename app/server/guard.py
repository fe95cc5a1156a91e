"""Stands before Streamlit: refuses foreign hosts and origins, and tells the browser to ask nobody else.

Streamlit 1.67 looks at `Host` and `Origin` only when a WebSocket is opened. There it takes any port of
this machine for a friend, and it asks a server in the internet for its own address before it refuses a
stranger. So both are settled here, for every request, before Streamlit sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from streamlit import config

from app.server import files, library
from app.server.theme import LOOPBACK

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware: what passes is what this machine's own pages ask for."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.names = [str(name).lower() for name in config.get_option("server.allowedHosts") or LOOPBACK]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        reason = refusal(scope, self.names)
        if reason is None:
            answer = _with_headers(send, _only(scope["headers"], b"host") or "")
            if not await files.sent(scope, answer):
                await self.app(scope, receive, answer)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})  # before it is accepted: answered with 403
        else:
            await _refuse(send, reason)


def refusal(scope: Message, names: Collection[str]) -> str | None:
    """Why a request is not answered; None if it is."""
    host = _only(scope["headers"], b"host")
    if host is None or not host_allowed(host, names):
        return "This server answers to the names of its own machine only."
    origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    changing = scope["type"] == "websocket" or scope["method"] not in _READING
    if changing and any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in origins):
        return "This server takes orders from its own pages only."
    return None


def host_allowed(host: str, names: Collection[str]) -> bool:
    """Whether a `Host` header, in small letters, is one of the names, with any port."""
    found = _HOST.fullmatch(host)
    return found is not None and found["name"].strip("[]").rstrip(".") in names


def mark_exposed() -> None:
    """Bound to anything but loopback, whoever started it and how, a server starts and stops nothing (see `loading.exposed`)."""
    if config.get_option("server.address") not in LOOPBACK:
        os.environ["INTERPLAY_EXPOSED"] = "1"


def _only(headers: Collection[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The one value of a header, in small letters; None if it is missing or there twice."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1").lower() if len(values) == 1 else None


def _with_headers(send: Send, host: str) -> Send:
    extra = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers(host).items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra, *_early(message)]
        await send(message)

    return sending


def _early(message: Message) -> list[tuple[bytes, bytes]]:
    """A page's first answer already names the library that its charts will wait for; it is a second of work for a browser."""
    kinds = [value for name, value in message.get("headers", []) if name.lower() == b"content-type"]
    return [(b"link", library.PRELOAD.encode())] if any(kind.startswith(b"text/html") for kind in kinds) else []


def headers(host: str) -> dict[str, str]:
    """With every answer: nothing is loaded from, sent to or framed by another site, whatever got into a page."""
    own = f"'self' ws://{host} wss://{host}"
    policy = {
        "default-src": "'self' data: blob: 'unsafe-inline' 'unsafe-eval'",  # Streamlit's own scripts need both
        "connect-src": f"{own} data: blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Frame-Options": "SAMEORIGIN",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


async def _refuse(send: Send, reason: str) -> None:
    body = f"{reason}\n".encode()
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": plain})
    await send({"type": "http.response.body", "body": body})
