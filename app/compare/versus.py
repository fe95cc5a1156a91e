"""Comparisons in Streamlit's words: the list, the head of one, its rows as they come, and the buttons that start, stop and go on."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from analysis.comparison import JUDGES
from app.commands.progress import duration
from app.compare import planning, standings
from app.compare.standings import Entry, RowNow
from app.parts import widgets
from app.queue import jobs
from app.queue.job import Job
from app.reading import catalogue, loading
from app.train import launch
from interplay.compare import Plan
from interplay.errors import InterplayError

X_AXES = ("forwards", "tokens", "seconds")
VIEWS = {"results": "Results", "new": "New"}
_FEW_ROWS, _ROW_HEIGHT = 7, 35


def pick_view() -> str:
    """What is there, or the form for another. Without a default, so that Start may turn the page."""
    if "side" not in st.session_state and "side" not in st.query_params:
        st.session_state["side"] = "results"
    options = list(VIEWS)
    picked = st.segmented_control(
        "View", options, key="side", bind="query-params", required=True, format_func=lambda word: VIEWS.get(word, word), label_visibility="collapsed"
    )
    return str(picked) if picked in options else options[0]


def home() -> Path:
    """Where new comparisons go."""
    return launch.here().folder.parent


def load() -> tuple[list[Entry], list[Job]]:
    """All comparisons that are shown, newest first, and the jobs that carry some of them out."""
    known = launch.here().list()
    found = standings.entries(standings.roots(home()))
    found += standings.waiting(known, found)
    return sorted(found, key=lambda entry: entry.created, reverse=True), known


def live(entries: Sequence[Entry], known: Sequence[Job]) -> bool:
    """Whether any of them may still change."""
    return any(entry.state(standings.job_of(entry, known)) in ("queued", "running", "stopping") for entry in entries)


def settle(was_live: bool, now_live: bool) -> None:
    """Build the page anew when its pace has changed."""
    if was_live != now_live:
        st.rerun()


def turn() -> None:
    """Build the whole page after a start: a button inside a fragment builds that fragment only."""
    if st.session_state.pop("_turn", False):
        st.rerun()


# --- the list --------------------------------------------------------------------------------------


def pick(entries: Sequence[Entry], known: Sequence[Job]) -> Entry | None:
    """The list, one click to open; the chosen one is in the URL. Without a choice it is the newest."""
    asked = st.query_params.get("out", "")
    linked = standings.find(asked, entries)
    if not entries:
        command = shlex.join(["interplay", "compare", "--methods", "zopro,rloo", "--out", str(home() / "compare")])
        widgets.nothing(f"There is no comparison in {', '.join(map(str, standings.roots(home())))}. This makes one:", command)
        return None
    frame = pd.DataFrame([_entry_line(entry, standings.job_of(entry, known)) for entry in entries])
    event = st.dataframe(
        frame,
        column_config={"rows": st.column_config.TextColumn("rows finished"), "methods": st.column_config.TextColumn("methods", width="medium")},
        hide_index=True,
        width="stretch",
        height="content" if len(entries) <= _FEW_ROWS else (_FEW_ROWS + 1) * _ROW_HEIGHT,
        # a selection is a row number: in another list it would be another comparison
        key=f"comparisons-{_mark([entry.name for entry in entries])}-{st.session_state.get('_opened', 0)}",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [entries.index(linked)] if linked else []}},
        placeholder="",
        alt="Comparisons, newest first",
    )
    picked = [row for row in event.selection.rows if row < len(entries)]
    chosen = entries[picked[0]] if picked else linked
    if chosen is None:
        widgets.lost("out", [asked], "comparison")
    elif st.query_params.get("out") != chosen.name:
        widgets.found_again("out")
        st.query_params["out"] = chosen.name
    return chosen


def _mark(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _entry_line(entry: Entry, job: Job | None) -> dict[str, Any]:
    plan = entry.plan
    return {
        "comparison": entry.name,
        "state": entry.state(job),
        "rows": f"{entry.done} of {len(entry.arms)}" if plan else "",
        "methods": ", ".join(plan.methods) if plan else entry.problem,
        "seeds": len({row.seed for row in plan.arms}) if plan else None,
        "latest run (UTC)": entry.created[:16].replace("T", " "),
    }


def header(entry: Entry, job: Job | None) -> tuple[str, str]:
    """Name, state and size of a comparison. Returns the chosen judge and cost axis."""
    with widgets.section(entry.name):
        judge = widgets.choice("Judge", list(reversed(JUDGES)), "judged", help="proxy: frozen reward model 0; gold: the task's own score")
        x = widgets.choice("Cost", list(X_AXES), "cost", help="what change is drawn over")
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        widgets.state_badge(entry.state(job))
        if entry.plan:
            st.text(f"{entry.done} of {len(entry.arms)} rows finished: {size(entry.plan)}")
    return judge, x


def size(plan: Plan) -> str:
    """`4 methods × 3 seeds, all from one warm start by rloo`."""
    seeds, warm = len({row.seed for row in plan.arms}), plan.warm
    run = plan.arms[0].config.start_from
    start = f"all from one warm start by {warm.method}" if warm else f"all from where {Path(run).name} ended" if run else "from the base model"
    return f"{count(len(plan.methods), 'method')} × {count(seeds, 'seed')}, {start}"


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- its rows --------------------------------------------------------------------------------------


def watch(entry: Entry, job: Job | None) -> None:
    """The rows as they stand, the last lines of what is at work or went wrong, and Stop or Go on."""
    if entry.rows:
        row_table(entry)
    shown = entry.working or [row for row in entry.rows if row.state in ("failed", "unreadable", "interrupted", "stalled")][-1:]
    for now in shown[:2]:
        _log(now.row.name, jobs.tail(entry.plan.log(now.row), 12) if entry.plan else "")
    if job and not shown and (not job.ended or job.state == "failed"):
        _log(f"job {job.id[:6]}", launch.here().tail(job.id, 12))
    if job and not job.ended:
        _stop_button(job)
    elif entry.state(job) in ("interrupted", "failed"):
        _go_on(entry)


def _log(name: str, text: str) -> None:
    if text:
        st.caption(f"Last lines of {widgets.escape(name)}")
        st.code(text, language=None, wrap_lines=True)


def row_table(entry: Entry) -> None:
    config = {
        "progress": st.column_config.ProgressColumn(min_value=0, max_value=1, format="percent", width="small"),
        "reward": st.column_config.NumberColumn(format="%.3f", help="mean reward of the last rollout"),
        "KL": st.column_config.NumberColumn(format="%.2f", help="nats, of the last rollout"),
    }
    frame = pd.DataFrame([_row_line(row) for row in entry.rows])
    empty = [name for name in ("why", "reward", "KL") if name in frame and (frame[name].isna() | (frame[name] == "")).all()]
    height: Any = "content" if len(frame) <= 2 * _FEW_ROWS else (2 * _FEW_ROWS + 1) * _ROW_HEIGHT
    shown = frame.drop(columns=empty)
    st.dataframe(shown, column_config=config, hide_index=True, width="stretch", height=height, placeholder="", alt="Rows of the plan and how far they are")


def _row_line(now: RowNow) -> dict[str, Any]:
    """Words of a run are shown as words, whatever stands in their place."""
    told, row = now.progress, now.row
    doing = "" if now.state == "finished" else str(told.get("doing") or "")
    scores = {name: value if isinstance(value := told.get(key), int | float) else None for name, key in (("reward", "reward"), ("KL", "kl"))}
    took = duration(now.seconds) if now.seconds else ""
    method = row.method + (" (control)" if row.control else "")
    return {
        **{"row": row.name, "method": method, "seed": row.seed, "state": now.state, "progress": now.share, "doing": doing},
        **scores,
        "time": took,
        "why": now.why,
    }


def _stop_button(job: Job) -> None:
    if job.state in ("running", "queued") and st.button("Stop", key=f"stop-{job.id}", icon=":material/stop:", disabled=bool(launch.refusal())):
        try:
            launch.here().stop(job.id)
        except InterplayError as error:
            st.error(widgets.escape(error))
            return
        st.rerun()


def _go_on(entry: Entry) -> None:
    """The same command again, which skips what is finished; or why not."""
    words = again(entry)
    if entry.path.is_relative_to(loading.RECORDINGS):
        st.caption("It came with the project and is not gone on with.")
    elif words is None:
        st.caption("No command was found that makes this very plan: type the one that made it to go on.")
    else:
        reason = why_not()
        st.button(
            "Go on",
            icon=":material/play_arrow:",
            disabled=bool(reason),
            on_click=start,
            args=(words, entry.path),
            help=reason or "the same command again: finished rows are skipped, interrupted ones resumed",
        )


def again(entry: Entry) -> tuple[str, ...] | None:
    """The words that make the plan once more."""
    plan = entry.plan
    if plan is None:
        return None
    found: tuple[str, ...] | None = widgets.memo(f"again {entry.path}", (entry.written,), lambda: planning.words_again(plan))
    return found


def details(entry: Entry) -> None:
    """The rows of a finished comparison, what was equal in them, and the command that makes it."""
    if entry.plan is None:
        return
    with st.expander("Rows, budget and command"):
        row_table(entry)
        st.caption(widgets.escape(f"Equal in all rows but controls: {planning.shared_words(entry.plan)}"))
        if words := again(entry):
            st.code(jobs.command_line(planning.argv(words, entry.path)), language="bash", wrap_lines=True)


def said() -> None:
    """Why the last start did not happen, once. The whole page is being built, so there is nothing left to turn."""
    st.session_state.pop("_turn", None)
    if reason := st.session_state.pop("_compare_said", None):
        st.error(widgets.escape(reason), icon=":material/error:")


# --- starting --------------------------------------------------------------------------------------


def why_not() -> str | None:
    """Why nothing can be started here; None if it can."""
    if reason := launch.refusal():
        return reason
    return None if catalogue.engine_installed() else f"The engine is not installed, so comparisons can be watched but not started: `{catalogue.INSTALL}`"


def start(words: Sequence[str], out: Path) -> None:
    """Start or queue the command, and open what it makes. The same command is one job until that has ended, whichever tab asks."""
    st.session_state["_turn"] = True
    try:
        before = [job for job in launch.here().list() if job.kind == "compare" and job.folder == out.resolve()]
        key = _mark([*words, str(out.resolve()), str(sum(job.ended for job in before))])
        launch.here().start_argv(planning.argv(words, out), key)
    except InterplayError as error:
        st.session_state["_compare_said"] = str(error)
        return
    st.session_state["side"] = "results"
    st.session_state["_opened"] = st.session_state.get("_opened", 0) + 1
    st.query_params["out"] = out.name
