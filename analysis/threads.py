"""One thread for many small products of matrices: the second one spends more time waiting than computing, most of all beside a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

_LOCK = Lock()
_inside: list[threadpool_limits] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra of the whole process on one thread until the last caller has left: the limit belongs to the process, not to who sets it."""
    with _LOCK:
        _inside.append(_inside[0] if _inside else threadpool_limits(1))
    try:
        yield
    finally:
        with _LOCK:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()
