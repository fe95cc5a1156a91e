"""Moving through a run: play, pause and one step, the slider, and how often a page looks again.

A step shows anew only what depends on it: the fragments `MOMENT` and `TEXTS`. Charts follow in the browser (`app.parts.canvas`), which also
asks for the next step while a run is played.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.parts import canvas
from app.reading import loading
from interplay.store import RunSummary

#: A whole run is played in about so many steps, one after so many seconds.
STEPS, SECONDS = 80, 0.3
#: Keys of the fragments that a step shows anew.
MOMENT, TEXTS = "moment", "texts-of-the-moment"


def update_row(bounds: Sequence[int], live: bool, key: str = "update") -> int:
    """Play, one step back and on, the chosen update, and Pause for a run that still grows."""
    with st.container(border=True, horizontal=True, vertical_alignment="center", gap="small"):
        _step_button("Back", "B", -1, key, bounds)
        _play_button(key, bounds)
        _step_button("Next", "N", 1, key, bounds)
        number = pick_update(bounds, key)
        if live:
            st.toggle("Pause", key="paused", help="stop reading new data")
    canvas.beat(number, SECONDS, "beat", lambda shown: _on(shown, key, bounds), beats=_playing())
    return number


def _playing() -> bool:
    return bool(st.session_state.get("_playing"))


def _play_button(key: str, bounds: Sequence[int]) -> None:
    icon, text = (":material/pause:", "Stop") if _playing() else (":material/play_arrow:", "Play")
    st.button(text, icon=icon, key="play", shortcut="P", help="key P; the slider moves with the arrow keys", on_click=_play_or_stop, args=(key, bounds))


def _play_or_stop(key: str, bounds: Sequence[int]) -> None:
    """Play from the chosen update, or from the first one when the last is chosen."""
    first, last = bounds
    playing = not _playing()
    if playing and int(st.session_state.get(key, last)) >= last:
        go(first, key)
    st.session_state["_playing"] = playing
    st.session_state["_last_update"] = None
    stepped()


def _on(shown: int, key: str, bounds: Sequence[int]) -> None:
    """The next step of a run that is played, unless something else was chosen since `shown` was."""
    first, last = bounds
    if not _playing() or int(st.session_state.get(key, last)) != shown:
        return
    go(min(shown + max(1, (last - first) // STEPS), last), key)
    st.session_state["_playing"] = int(st.session_state[key]) < last
    stepped()


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
    """Where the slider stands now: where it was, or on a newer update if it stood on the newest."""
    asked = st.session_state.get(key, _number_from_url(key, last))
    newest = st.session_state.get("_last_update")
    if newest is not None and asked >= newest and not _playing():
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


def settle(runs: Sequence[RunSummary]) -> None:
    """Build the page anew when its pace has changed: a run has ended, or Pause was pressed."""
    now = (*map(loading.live, runs), bool(st.session_state.get("paused")))
    known = st.session_state.setdefault("_pace", now)
    st.session_state["_pace"] = now
    if known != now:
        st.rerun()
