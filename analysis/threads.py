"""One thread for many small products of matrices: the second one spends more time waiting than computing, most of all beside a training."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

_LOCK = Lock()
_inside: list[Any] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra of the whole process on one thread until the last caller has left: the limit belongs to the process, not to who sets it."""
    with _LOCK:
        _inside.append(_inside[0] if _inside else _libraries(len(sys.modules)).limit(limits=1))
    try:
        yield
    finally:
        with _LOCK:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:  # noqa: ARG001 - modules only ever come, and a new one may bring a library
    """The libraries that count threads, which takes longer to find out than many a product."""
    return ThreadpoolController()
