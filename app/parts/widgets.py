"""The parts that pages are built of; the only file that knows Streamlit *and* figures.

Text that comes from a run (names, prompts, completions, errors) is hostile until shown otherwise:
it reaches the page through `st.text`, `st.code` or a table cell, or through `escape`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from analysis import explain, recipes, screen, tables
from analysis.spec import FigureSpec
from app.export import basket
from app.parts import canvas
from app.reading import loading, naming
from app.reading.recorded import Recorded
from interplay.records import STREAMS
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


#: Things that one session keeps made (`memo`).
MOST_KEPT = 48


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
    """The run to look at; None if there is none, or not the one that the link names."""
    runs = [*runs, *naming.inside(st.query_params.get("run", ""))]
    names = naming.names(runs)
    if not names:
        return None
    wanted = st.session_state.get("run") or st.query_params.get("run") or next(iter(st.session_state.get("_lost-run", ())), None)
    full = naming.full_name(wanted, runs) if wanted else names[loading.to_show(runs)]
    if full not in (None, wanted):  # the first visit, an old link, or a name that two runs have now
        if "run" not in st.session_state:
            st.query_params["run"] = full
        st.session_state["run"] = full
    # No default: a default is left out of the URL, and the newest run of today is another one tomorrow.
    chosen = st.selectbox(
        "Run", names, index=None, required=True, key="run", bind="query-params", label_visibility="collapsed", on_change=found_again, args=("run",)
    )
    lost("run", [] if full or chosen else [str(wanted)])
    at_work(runs, names, [chosen] if chosen else [])
    return naming.find(chosen, list(runs)) if chosen else None


def at_work(runs: Sequence[RunSummary], names: Sequence[str], shown: Sequence[str]) -> None:
    """Name the newest of these runs that is at work and not shown: what it does can be watched."""
    for name, one in zip(names, runs, strict=True):
        if one.state == "running" and name not in shown:
            st.caption(escape(f"At work: {name}. Choose it above to watch it."))
            return


def lost(key: str, names: Sequence[str], kind: str = "run") -> None:
    """Say which names of a link mean nothing here, until something else is chosen: what is shown in their place would be taken for them."""
    if names:
        st.session_state[f"_lost-{key}"] = list(names)
    missing = st.session_state.get(f"_lost-{key}", [])
    if missing:
        st.warning(
            escape(f"There is no {kind} {' or '.join(f'“{name}”' for name in missing)} here: renamed, deleted, or in another folder."),
            icon=":material/link_off:",
        )


def found_again(key: str) -> None:
    st.session_state.pop(f"_lost-{key}", None)


def several(label: str, options: Sequence[str], key: str) -> list[str]:
    """Some of a few words as buttons; none means all."""
    picked = st.pills(label, list(options), selection_mode="multi", default=list(options), key=key, bind="query-params", label_visibility="collapsed")
    return [word for word in options if word in picked] or list(options)


# --- what a run is -----------------------------------------------------------------------------


def state_badge(state: str) -> None:
    icon, colour = STATE_LOOKS.get(state, (":material/help:", "gray"))
    st.badge(state if state in STATE_LOOKS else "unknown", icon=icon, color=colour)


def run_line(summary: RunSummary, newest: float | None) -> None:
    """State, place in the loop and freshness of a run in one row."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        state_badge(summary.state)
        if summary.method:
            st.text(_made_with(summary))
        if summary.progress:
            st.text(progress_words(summary.progress))
        if summary.ended is not None:
            st.text(f"ended {ago(time.time() - summary.ended)} ago")
        elif newest is not None:
            st.text(f"last data {ago(time.time() - newest)} ago")


def _made_with(summary: RunSummary) -> str:
    """`rloo on chat, seed 0`, as far as it is known: trainers of others tell neither task nor seed."""
    task = f" on {summary.task}" if summary.task else ""
    return f"{summary.method}{task}" + (f", seed {summary.seed}" if summary.seed is not None else "")


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
    store[key] = store.pop(key)  # the last used stands last
    for old in list(store)[:-MOST_KEPT]:
        del store[old]
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
    """Empty roots, and the command that fills the first."""
    roots = loading.roots()
    command = shlex.join(["interplay", "train", "--method", "rloo", "--task", "chat", "--out", str(roots[0] / "first")])
    nothing(f"There are no runs in {', '.join(map(str, roots))}. This starts one:", command)


def chart(spec: FigureSpec, key: str, *, height: int = 260, own_caption: bool = True, titled: bool = True) -> None:
    """A figure under its name, with its caption; an empty one says so."""
    if titled:
        st.markdown(f"**{escape(spec.title)}**")
    if spec.empty:
        nothing("Nothing recorded yet.")
        return
    canvas.show(screen.draw(spec, height=height), key, screen.CONFIG, spec.alt)
    if own_caption:
        caption(spec)


def figure(
    name: str,
    recordings: Sequence[Recorded],
    key: str,
    *,
    height: int = 260,
    titled: bool = True,
    brief: bool = False,
    **settings: Any,
) -> None:
    """A figure by its name (`interplay figure --list`), with a way into the basket of figures to export; the reason where there is none.

    `brief` shows of its caption what speaks of these runs, and the whole of it behind a button.
    """
    try:
        spec = drawn(name, recordings, settings)
    except ValueError as reason:
        nothing(f"{recipes.about(name)} Not drawn: {reason}.")
        return
    chart(spec, key, height=height, titled=titled, own_caption=not brief)
    if spec.empty:
        return
    if brief:
        st.caption(escape(explain.reading(spec)))
    with st.container(horizontal=True, gap="small"):
        if brief:
            _whole_caption(spec)
        basket.offer(basket.Item.of(name, recordings, settings), key)


def _whole_caption(spec: FigureSpec) -> None:
    with st.popover("What is drawn, and when it misleads", icon=":material/info:", type="tertiary"):
        st.text(screen.caption(spec))


def drawn(name: str, recordings: Sequence[Recorded], settings: Mapping[str, Any]) -> FigureSpec:
    """The figure, made anew when a file of these runs has changed. Raises `ValueError` if the runs do not hold what it needs."""
    versions = tuple(one.version(STREAMS) for one in recordings)
    chosen = tuple(sorted(settings.items()))
    made_of = sources(recordings) if len(recordings) > 1 else None
    return cast(FigureSpec, memo(f"figure {name} {chosen}", versions, lambda: recipes.make(name, recordings, made_of, **settings)))


def sources(recordings: Sequence[Recorded]) -> recipes.Sources:
    """What all figures of several runs are made of, shared by all sessions until a file of them changes: their comparison is computed once."""
    return _sources(tuple(one.version(STREAMS) for one in recordings), tuple(recordings))


@functools.lru_cache(maxsize=4)
def _sources(versions: tuple[Any, ...], recordings: tuple[Recorded, ...]) -> recipes.Sources:  # noqa: ARG001 - other versions make older ones unreachable
    return recipes.Sources(recordings)


def caption(spec: FigureSpec) -> None:
    st.caption(escape(screen.caption(spec)))


def heldout(frame: pd.DataFrame, *, live: bool) -> None:
    """Scores on the held-out prompts at the start and after each iteration."""
    if frame.empty:
        nothing("No held-out score yet: the first one is taken before the policy moves." if live else "No held-out score was recorded.")
        return
    config: dict[str, Any] = {
        "moment": st.column_config.TextColumn("moment", width="medium"),
        "update": st.column_config.NumberColumn("update", width="small", help="policy updates so far"),
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
