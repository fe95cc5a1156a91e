"""What the first visitor would wait for, done while the server starts and a browser opens: libraries are imported and one chart is drawn."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import sys
import threading
from collections.abc import Iterator

from app.server import library

#: All that pages import and that takes long.
LIBRARIES = ("app.parts.widgets", "app.replay.replaying", "app.runs.listing", "app.train.launch", "app.interplay.cards", "app.compare.findings")
#: What `analysis` imports when it is needed: half of all the time, and no first chart needs it.
LATER = ("sklearn.decomposition", "sklearn.manifold", "sklearn.metrics.pairwise", "scipy.stats", "scipy.signal")

#: Seconds after which a thread that computes lets another one go on. Python's 5 ms are a lot for the sixty files of a page that is opened meanwhile.
TURN = 0.0005

_READY = threading.Event()


@functools.cache
def begin() -> threading.Thread:
    """Start once for each server; a server that ends does not wait for it."""
    sys.setswitchinterval(TURN)
    thread = threading.Thread(target=_try, name="warming", daemon=True)
    thread.start()
    return thread


def wait() -> None:
    """Until it is done: two threads that import the same libraries get into each other's way."""
    begin()
    _READY.wait()


def _try() -> None:
    with contextlib.suppress(Exception), _kept_for_good():  # what fails here fails again on the page that needs it, and is told there
        warm()
    _READY.set()
    with contextlib.suppress(Exception), _kept_for_good():
        later()
    library.packed()  # for browsers; no page waits for it


@contextlib.contextmanager
def _kept_for_good() -> Iterator[None]:
    """What is made meanwhile, above all modules, is never searched for garbage: each search of them would hold up a page for 0.2 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def warm() -> None:
    """Import and draw."""
    for name in LIBRARIES:
        importlib.import_module(name)
    _draw()
    inspect.stack()  # Streamlit looks at it before its first element, and Python then goes through all modules once


def later() -> None:
    """Import what pages need after their first chart; a page that comes before waits for that module alone."""
    for name in LATER:
        importlib.import_module(name)


def _draw() -> None:
    """plotly learns what a figure may hold when the first one is made."""
    import plotly.graph_objects as go

    made = go.Figure([go.Scatter(x=[0.0], y=[0.0]), go.Heatmap(z=[[0.0]]), go.Bar(x=[0.0], y=[0.0])])
    made.update_layout(height=100, xaxis={"title": {"text": ""}}, legend={"orientation": "h"}, template="plotly_white").to_json()
