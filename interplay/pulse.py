"""A sign of life from a run that is busy: a thread touches one file while the block lasts.

Rows are handed over only between rollouts, and one rollout of a large model may take minutes, so
the store's own heartbeat cannot tell slow from dead. Touching a file needs no lock and no row.
A run that another process started and waits for (`interplay compare`) also ends when that process is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from interplay.reading import PULSE

SECONDS = 5.0
#: Environment variable with the id of the process that waits for this run.
PARENT = "INTERPLAY_PARENT"


@contextlib.contextmanager
def beating(run: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Touch the run's pulse file every `seconds`; a file that cannot be touched is no reason to stop, a parent that died is."""
    stop, parent = threading.Event(), os.environ.get(PARENT)

    def beat() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                (run / PULSE).touch()
            if parent and parent != str(os.getppid()):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            stop.wait(seconds)

    thread = threading.Thread(target=beat, name="interplay-pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=1)
        with contextlib.suppress(OSError):
            (run / PULSE).unlink(missing_ok=True)
