"""The parts that pages are built of; the only file that knows Streamlit *and* figures.

Text that comes from a run (names, prompts, completions, errors) is hostile until shown otherwise:
it reaches the page through `st.text`, `st.code` or a table cell, or through `escape`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from analysis import screen, tables
from analysis.spec import FigureSpec
from app import canvas, loading
from interplay.store import RunSummary

STATE_LOOKS: dict[str, tuple[str, Any]] = {
    "running": (":material/play_circle:", "blue"),
    "queued": (":material/schedule:", "gray"),
    "finished": (":material/check_circle:", "green"),
    "failed": (":material/error:", "red"),
    "interrupted": (":material/stop_circle:", "orange"),
    "stalled": (":material/hourglass_disabled:", "orange"),
    "unreadable": (":material/broken_image:", "red"),
    "stopping": (":material/stop_circle:", "orange"),
    "stopped": (":material/stop_circle:", "orange"),
    "ended": (":material/check_circle:", "gray"),
}


def escape(text: object) -> str:
    """Text that Streamlit's markdown shows letter by letter: no link, image, formula, colour or icon survives."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", " ".join(str(text).split()))


# --- choices, all of them in the URL -----------------------------------------------------------


def choice(label: str, options: Sequence[str], key: str, names: dict[str, str] | None = None, help: str | None = None) -> str:
    """One of a few words as buttons. A value in the URL that is not among them falls back to the first."""
    words = names or {}
    picked = st.segmented_control(
        label, list(options), default=options[0], key=key, bind="query-params", required=True, help=help, format_func=lambda word: words.get(word, word)
    )
    return str(picked) if picked in options else options[0]


def pick_run(runs: Sequence[RunSummary]) -> RunSummary | None:
    """The run to look at; None if there is none."""
    names = [summary.run for summary in runs]
    if not names:
        return None
    if "run" not in st.session_state and "run" not in st.query_params:
        st.session_state["run"] = st.query_params["run"] = names[0]
    # No default: a default is left out of the URL, and the newest run of today is another one tomorrow.
    chosen = st.selectbox("Run", names, index=None, required=True, key="run", bind="query-params", label_visibility="collapsed")
    return loading.find(chosen or names[0], list(runs))


def several(label: str, options: Sequence[str], key: str) -> list[str]:
    """Some of a few words as buttons; none means all."""
    picked = st.pills(label, list(options), selection_mode="multi", default=list(options), key=key, bind="query-params", label_visibility="collapsed")
    return [word for word in options if word in picked] or list(options)


# --- moving through a run ----------------------------------------------------------------------


def update_row(updates: pd.DataFrame, live: bool) -> int | None:
    """Play and pause, the chosen policy update, and its clock; None before the first update."""
    if updates.empty:
        st.text("The policy has not moved yet: reward model 0 comes first.")
        return None
    with st.container(border=True, horizontal=True, vertical_alignment="center", gap="medium"):
        _play_button()
        number = pick_update([int(updates["update"].iloc[0]), int(updates["update"].iloc[-1])])
        row = updates[updates["update"] <= number].iloc[-1]
        st.text(f"update {number}, iteration {row['iteration']}")
        if live:
            st.toggle("Pause", key="paused", help="stop reading new data", on_change=_whole_page)
    return int(row["clock"])


def _play_button() -> None:
    playing = bool(st.session_state.get("_playing"))
    icon, text = (":material/pause:", "Stop") if playing else (":material/play_arrow:", "Play")
    if st.button(text, icon=icon, key="play"):
        st.session_state["_playing"] = not playing
        st.session_state["_rewind"] = not playing
        st.rerun()


def pick_update(bounds: Sequence[int], key: str = "update") -> int:
    """An update between the first and the last one; follows a growing run while it is on the newest."""
    first, last = bounds
    st.session_state[key] = _next_update(first, last, key)
    st.session_state["_last_update"] = last
    if first == last:
        st.text("The only update so far.")
        return last
    return int(st.slider("Policy update", first, last, key=key, bind="query-params", label_visibility="collapsed"))


def _next_update(first: int, last: int, key: str) -> int:
    """Where the slider stands now: one step on while playing, else where it was."""
    asked = st.session_state.get(key, _number_from_url(key, last))
    if st.session_state.pop("_rewind", False) and asked >= last:
        return first
    if st.session_state.get("_playing") and not st.session_state.pop("_hold", False):
        asked += max(1, (last - first) // 40)
        st.session_state["_playing"] = asked < last
    elif asked >= st.session_state.get("_last_update", last + 1):
        return last
    return min(max(int(asked), first), last)


def _number_from_url(key: str, default: int) -> int:
    text = st.query_params.get(key, "")
    return int(text) if text.isdecimal() and len(text) < 10 else default


def _whole_page() -> None:
    """A changed pace needs a new fragment."""
    st.session_state["_repace"] = True


def pace(summary: RunSummary, live: float, play: float) -> float | None:
    """Seconds between two looks at a run; None if nothing will change."""
    if st.session_state.get("_playing"):
        return play
    return live if loading.live(summary) and not st.session_state.get("paused") else None


def settle(before: RunSummary) -> None:
    """Build the page anew when its pace has changed: the run has ended, play stopped, pause was pressed."""
    now = (bool(st.session_state.get("_playing")), loading.live(before), bool(st.session_state.get("paused")))
    known = st.session_state.setdefault("_pace", now)
    st.session_state["_pace"] = now
    if known != now:
        st.session_state["_hold"] = True
        st.rerun()


def feed(summary: RunSummary) -> loading.Feed:
    """This session's reading of the run; another run's is let go."""
    held = st.session_state.get("_feed")
    if held is None or held.path != summary.path:
        held = loading.Feed(summary.path)
        st.session_state["_feed"] = held
        st.session_state["_memo"] = {}
        st.session_state.pop("_last_update", None)
    return cast(loading.Feed, held)


def fresh(summary: RunSummary) -> RunSummary:
    """The run's state as it is now."""
    return loading.again(summary)


# --- what a run is -----------------------------------------------------------------------------


def state_badge(state: str) -> None:
    icon, colour = STATE_LOOKS.get(state, (":material/help:", "gray"))
    st.badge(state if state in STATE_LOOKS else "unknown", icon=icon, color=colour)


def run_line(summary: RunSummary, newest: float | None) -> None:
    """State, place in the loop and freshness of a run in one row."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        state_badge(summary.state)
        if summary.method:
            st.text(f"{summary.method} on {summary.task}, seed {summary.seed}")
        if summary.progress:
            st.text(progress_words(summary.progress))
        if newest is not None:
            st.text(f"last data {ago(time.time() - newest)} ago")


def progress_words(progress: Any) -> str:
    """`iteration 1, reward model update 12` from what the run last said."""
    if isinstance(progress, dict):
        if isinstance(progress.get("share"), float) and progress.get("doing"):
            return f"{progress['share']:.0%}" if progress["doing"] == "finished" else f"{progress['share']:.0%}, {progress['doing']}"
        words = [f"{name} {progress[name]}" for name in ("iteration", "role", "update") if progress.get(name) is not None]
        return ", ".join(words)
    return f"{progress:.0%}" if isinstance(progress, float) and 0 <= progress <= 1 else str(progress)


def ago(seconds: float) -> str:
    """`5 s`, `3 min`, `2 h`, `4 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def problems(lines: Iterable[object]) -> None:
    """What is wrong with a run, one line each."""
    for line in lines:
        st.warning(escape(line), icon=":material/warning:")


def nothing(sentence: str, command: str | None = None) -> None:
    """An empty place says why it is empty, and which command fills it."""
    with st.container(border=True):
        st.text(sentence)
        if command:
            st.code(command, language="bash")


# --- figures and tables ------------------------------------------------------------------------


def memo(key: str, versions: tuple[Any, ...], build: Callable[[], Any]) -> Any:
    """`build()`, kept in this session until `versions` change: a tick without new rows costs nothing."""
    store = st.session_state.setdefault("_memo", {})
    if key not in store or store[key][0] != versions:
        store[key] = (versions, build())
    return store[key][1]


@contextlib.contextmanager
def title(words: str, text: str) -> Iterator[None]:
    """A page's name and what it is for, with its main choice on the right."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        st.title(words, anchor=False)
        st.caption(text)
    with right:
        yield


@contextlib.contextmanager
def section(words: str) -> Iterator[None]:
    """A heading with its controls beside it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.subheader(escape(words), anchor=False, width="stretch")
        yield


def no_runs() -> None:
    """An empty root, and the command that fills it."""
    nothing("There are no runs in " + ", ".join(str(root) for root in loading.roots()) + ". This starts one:", "interplay train --method rloo --task chat")


def chart(spec: FigureSpec, key: str, *, cursor: int | None = None, height: int = 260, own_caption: bool = True, titled: bool = True) -> None:
    """A figure under its name, with its caption; an empty one says so."""
    if titled:
        st.markdown(f"**{escape(spec.title)}**")
    if spec.empty:
        nothing("Nothing recorded yet.")
        return
    canvas.show(screen.draw(spec, cursor=cursor, height=height), key, screen.CONFIG, spec.alt)
    if own_caption:
        caption(spec)


def caption(spec: FigureSpec) -> None:
    st.caption(escape(screen.caption(spec)))


def heldout(frame: pd.DataFrame) -> None:
    """Scores on the held-out prompts at the start and after each iteration."""
    if frame.empty:
        nothing("No held-out score yet: the first one is taken before the policy moves.")
        return
    config: dict[str, Any] = {
        "moment": st.column_config.TextColumn("moment", width="medium"),
        "update": st.column_config.NumberColumn("policy update", width="small"),
    }
    for name, (label, text) in tables.HELDOUT.items():
        config[name] = st.column_config.NumberColumn(
            label, help=text, format="%.3f" if name not in ("length", "alarm") else "%.1f" if name == "length" else "%d"
        )
    st.dataframe(frame, column_config=config, width="stretch", placeholder="", alt="Held-out scores at the start and after each iteration")
    st.caption(
        "Means over the same held-out prompts with the same sampling seed, gold by the task, proxy by frozen reward model 0. "
        "The end of one iteration is the start of the next. With few prompts, differences below two standard errors mean little."
    )


def completions(frame: pd.DataFrame, columns: int = 2) -> None:
    """Prompts and what the policy wrote, as plain text with their scores."""
    for start in range(0, len(frame), columns):
        for place, (_, row) in zip(st.columns(columns), frame.iloc[start : start + columns].iterrows(), strict=False):
            with place, st.container(border=True, height="stretch", gap="xsmall"):
                st.caption("Prompt")
                st.text(row["prompt"])
                st.caption("Completion" + ("" if row["finished"] else ", cut at the token limit"))
                st.text(row["completion"] or "(empty)")
                st.caption(escape(scores(row)))


def scores(row: Any) -> str:
    """`reward 0.41 · gold 0.60 · KL 0.12 · 19 tokens`."""
    known = [(name, tables.finite(row[column])) for column, name in (("reward", "reward"), ("gold", "gold"), ("proxy", "proxy"), ("kl", "KL"))]
    return " · ".join([f"{name} {value:.2f}" for name, value in known if value is not None] + [f"{row['tokens']} tokens"])
