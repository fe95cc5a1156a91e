"""SIGTERM and Ctrl-C as one exception, held back while files change hands.

`with interrupts.raising():` around a run turns both signals into `Interrupted`, raised in the
main thread. `with interrupts.shield():` around a flush delays it until the block is left, so a
signal can never tear the hand-over of buffered rows to a file. Standard library only.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from interplay.errors import Interrupted

_depth = 0
_pending: int | None = None


def _handle(number: int, _frame: FrameType | None) -> None:
    global _pending
    if _depth:
        _pending = number
        return
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def raising() -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM and SIGINT inside the block (main thread only)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shield() -> Iterator[None]:
    """Hold the signal back until the block ends; nested shields count."""
    global _depth, _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _pending is not None:
            number, _pending = _pending, None
            raise Interrupted(signal.Signals(number).name)
