"""Moving through a run: play, pause and one step, the slider, and how often a page looks again.

A step shows anew only what depends on it: the fragments `MOMENT` and `TEXTS`. Charts follow in the browser (`app.canvas`).
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import loading
from interplay.store import RunSummary

#: A whole run is played in about so many steps.
STEPS = 80
#: Keys of the fragments that a step shows anew.
MOMENT, TEXTS = "moment", "texts-of-the-moment"


def update_row(bounds: Sequence[int], live: bool, key: str = "update") -> int:
    """Play, one step back and on, the chosen update, and Pause for a run that still grows."""
    with st.container(border=True, horizontal=True, vertical_alignment="center", gap="small"):
        _step_button("Back", "B", -1, key, bounds)
        _play_button()
        _step_button("Next", "N", 1, key, bounds)
        number = pick_update(bounds, key)
        if live:
            st.toggle("Pause", key="paused", help="stop reading new data")
    return number


def _play_button() -> None:
    playing = bool(st.session_state.get("_playing"))
    icon, text = (":material/pause:", "Stop") if playing else (":material/play_arrow:", "Play")
    if st.button(text, icon=icon, key="play", shortcut="P", help="key P; the slider moves with the arrow keys"):
        st.session_state["_playing"] = not playing
        st.session_state["_rewind"] = not playing
        st.rerun()


def _step_button(text: str, letter: str, by: int, key: str, bounds: Sequence[int]) -> None:
    icon = ":material/skip_next:" if by > 0 else ":material/skip_previous:"
    st.button(text, icon=icon, key=f"step-{text.lower()}", shortcut=letter, help=f"one update, key {letter}", on_click=_step, args=(by, key, bounds[-1]))


def _step(by: int, key: str, last: int) -> None:
    go(int(st.session_state.get(key, last)) + by, key)
    stepped()


def stepped() -> None:
    """For callbacks: another moment is chosen, and nothing else has changed."""
    st.rerun([MOMENT, TEXTS])


def go(number: int, key: str = "update") -> None:
    """Choose an update from a callback; playing ends."""
    st.session_state[key] = number
    st.session_state["_playing"] = False
    st.session_state["_last_update"] = None


def pick_update(bounds: Sequence[int], key: str = "update") -> int:
    """An update between the first and the last one; follows a growing run while it is on the newest."""
    first, last = bounds
    st.session_state[key] = _next_update(first, last, key)
    st.session_state["_last_update"] = last
    if first == last:
        st.text("The only update so far.")
        return last
    return int(st.slider("Policy update", first, last, key=key, bind="query-params", label_visibility="collapsed", on_change=stepped))


def _next_update(first: int, last: int, key: str) -> int:
    """Where the slider stands now: one step on while playing, else where it was."""
    asked = st.session_state.get(key, _number_from_url(key, last))
    newest = st.session_state.get("_last_update")
    if st.session_state.pop("_rewind", False) and asked >= last:
        return first
    if st.session_state.get("_playing") and not st.session_state.pop("_hold", False):
        asked += max(1, (last - first) // STEPS)
        st.session_state["_playing"] = asked < last
    elif newest is not None and asked >= newest:
        return last
    return min(max(int(asked), first), last)


def _number_from_url(key: str, default: int) -> int:
    text = st.query_params.get(key, "")
    return int(text) if text.isdecimal() and len(text) < 10 else default


def watch(runs: Sequence[RunSummary]) -> None:
    """Name the runs that are looked at: the newest update of one is not that of another."""
    names = [str(run.path) for run in runs]
    if st.session_state.get("_watched") != names:
        st.session_state["_watched"] = names
        st.session_state["_last_update"] = None


# --- how often to look -------------------------------------------------------------------------


def pace(runs: Sequence[RunSummary], seconds: float) -> float | None:
    """Seconds between two looks at runs of which one lives; None if nothing will change."""
    return seconds if any(map(loading.live, runs)) and not st.session_state.get("paused") else None


def beat(seconds: float) -> float | None:
    """Seconds between two steps while a run is played."""
    return seconds if st.session_state.get("_playing") else None


def settle(runs: Sequence[RunSummary]) -> None:
    """Build the page anew when its pace has changed: a run has ended, play stopped, pause was pressed."""
    now = (bool(st.session_state.get("_playing")), *map(loading.live, runs), bool(st.session_state.get("paused")))
    known = st.session_state.setdefault("_pace", now)
    st.session_state["_pace"] = now
    if known != now:
        st.session_state["_hold"] = True
        st.rerun()
