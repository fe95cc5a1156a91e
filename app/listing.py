"""Lists of runs and of jobs, and what one of them says about itself."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import widgets
from interplay.records import RunInfo
from interplay.store import RunSummary

PAGES = Path(__file__).with_name("pages")


def search_box(key: str) -> None:
    st.text_input(
        "Search", key=key, bind="query-params", placeholder="Search by name, method, task, state", label_visibility="collapsed", type="search", max_chars=100
    )


def hint(sentence: str) -> None:
    st.caption(widgets.escape(sentence))


def run_table(runs: Sequence[RunSummary], gains: Sequence[float | None]) -> RunSummary | None:
    """The runs as a table; the selected one, which is also in the URL."""
    if not runs:
        widgets.nothing("No run matches the search.")
        return None
    rows = [_row(summary, gain) for summary, gain in zip(runs, gains, strict=True)]
    config = {
        "run": st.column_config.TextColumn("run", width="medium"),
        "gain": st.column_config.NumberColumn("held-out gold", format="%+.3f", help="last held-out gold score minus the first"),
        "created": st.column_config.TextColumn("created (UTC)"),
        "seed": st.column_config.NumberColumn("seed", format="%d", width="small"),
    }
    frame = pd.DataFrame(rows)
    if not frame["problem"].any():
        frame = frame.drop(columns="problem")
    names = [summary.run for summary in runs]
    linked = [names.index(name) for name in [st.query_params.get("selected", "")] if name in names]
    event = st.dataframe(
        frame,
        column_config=config,
        hide_index=True,
        width="stretch",
        key="runs-table",
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": linked}},
        placeholder="",
        alt="Recorded runs",
    )
    picked = [row for row in event.selection.rows if row < len(runs)]
    _link("selected", names[picked[0]] if picked else None)
    return runs[picked[0]] if picked else None


def _row(run: RunSummary, gain: float | None) -> dict[str, Any]:
    """One line of the table; run.json may hold anything, so words are made words."""
    words = {name: "" if value is None else str(value) for name, value in (("method", run.method), ("task", run.task))}
    seed = run.seed if isinstance(run.seed, int) else None
    progress = widgets.progress_words(run.progress) if run.progress else ""
    return {
        "run": run.run,
        "state": run.state,
        **words,
        "seed": seed,
        "progress": progress,
        "gain": gain,
        "created": when(run.created),
        "problem": "; ".join(run.problems),
    }


def _link(name: str, value: str | None) -> None:
    """Keep in the URL what its widget cannot bind by itself."""
    if value is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != value:
        st.query_params[name] = value


def when(iso: str | None) -> str:
    """`2026-11-20 14:03` of an ISO 8601 time."""
    return str(iso or "")[:16].replace("T", " ")


def to_replay(summary: RunSummary) -> None:
    st.page_link(PAGES / "replay.py", label="Replay", icon=":material/play_circle:", query_params={"run": summary.run}, disabled=summary.state == "unreadable")


def run_details(path: Path, info: RunInfo) -> None:
    """Settings, command line, versions and files of one run."""
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Run it again**")
        st.code(shlex.join(str(word) for word in info.command), language="bash", wrap_lines=True)
        _facts("Settings", info.config)
    with right:
        st.markdown("**Read the numbers yourself**")
        open_data(path)
        _facts("Versions", {**info.versions, **({"commit": info.commit} if info.commit else {})})
        for note in info.notes:
            st.text(note)


def _facts(title: str, facts: Mapping[str, Any]) -> None:
    st.markdown(f"**{title}**")
    rows = [{"name": str(name), "value": str(value)} for name, value in facts.items() if value is not None and value != {}]
    st.dataframe(pd.DataFrame(rows, columns=["name", "value"]), hide_index=True, width="stretch", height=300 if len(rows) > 8 else "content")


def open_data(path: Path) -> None:
    """Where the numbers lie, and three lines that read them."""
    parts = str(path / "updates" / "*.parquet")
    pandas, duckdb = st.tabs(["pandas", "DuckDB"])
    with pandas:
        st.code(
            f"import pandas as pd\nupdates = pd.read_parquet({str(path / 'updates')!r})\nprint(updates.groupby(['role', 'layer']).update_norm.mean())",
            language="python",
        )
    with duckdb:
        sql = f"SELECT role, layer, avg(update_norm) FROM {parts!r} GROUP BY ALL"  # noqa: S608 - shown, never executed
        st.code(f'import duckdb\nsql = """{sql}"""\nprint(duckdb.sql(sql))', language="python")
