"""Lists of runs, configurations and comparisons, and what one of them says about itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from analysis import tables
from app.compare.standings import Entry
from app.parts import widgets
from app.queue.job import Job
from app.reading import loading, naming
from app.runs import again, grouping
from app.runs.grouping import Configuration
from app.train import launch
from interplay import labels
from interplay.records import RunInfo
from interplay.store import RunSummary

PAGES = Path(__file__).parents[1] / "pages"
#: A state's second channel beside its colour; a cell cannot hold an icon of `widgets.STATE_LOOKS`.
SHAPES = {"running": "▶", "queued": "…", "finished": "✓", "failed": "✕", "interrupted": "■", "stalled": "◌", "unreadable": "?"}
#: Runs whose settings are laid side by side.
MOST_BESIDE = 12
_WHOLE = 2**53  # integers that a browser shows as they are
_FILTERS = {"only_state": "state", "only_method": "method", "only_task": "task", "only_tag": "tag"}


# --- choosing what is listed -------------------------------------------------------------------------


def search_box(key: str) -> None:
    st.text_input(
        "Search",
        key=key,
        bind="query-params",
        placeholder="Search: words, or method:ppo seed:1",
        label_visibility="collapsed",
        type="search",
        max_chars=200,
        help="Words in name, state, method, task, seed, tags or note. FIELD:VALUE asks for a tag or a setting: tag:final method:ppo,rloo seed:1 state:finished "
        "updates:12 in:runs",
    )


def filters(runs: Sequence[RunSummary], comparisons: Sequence[Entry]) -> None:
    """One line for each run or for each configuration, and of which state, method, task and tag."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        widgets.choice("Show", ["runs", "configurations"], "show", help="a configuration is all runs that differ in nothing but the seed")
        for key, name in _FILTERS.items():
            if options := list(SHAPES) if name == "state" else _known(name, runs, comparisons):
                st.multiselect(name.capitalize(), options, key=key, bind="query-params", placeholder=f"any {name}", width=160)
        if any(st.session_state.get(key) for key in ("q", *_FILTERS)):
            st.button("Show all", icon=":material/filter_alt_off:", key="show-all", type="tertiary", on_click=_show_all)


def _known(name: str, runs: Sequence[RunSummary], comparisons: Sequence[Entry]) -> list[str]:
    """The methods, tasks or tags of all runs and of the rows of all comparisons."""
    if name == "tag":
        return tags(runs, comparisons)
    planned = [getattr(now.row.config, name) for one in comparisons for now in one.arms]
    return sorted({str(value) for value in (*planned, *(getattr(run, name) for run in runs)) if value})


def tags(runs: Sequence[RunSummary], comparisons: Sequence[Entry]) -> list[str]:
    """All tags there are, each in one spelling."""
    written = [tag for run in runs for tag in run.tags] + [tag for one in comparisons for tag in grouping.tags(one)]
    return sorted(labels.unique(written), key=labels.same)


def found(runs: list[RunSummary]) -> list[RunSummary]:
    """The runs that the search words and the filters leave."""
    left = naming.search(runs, st.session_state.get("q") or "")
    for key, name in _FILTERS.items():
        if wanted := {labels.same(word) for word in st.session_state.get(key) or ()}:
            left = [run for run in left if wanted.intersection(_told(run, name))]
    return left


def _told(run: RunSummary, name: str) -> list[str]:
    """What a filter asks of a run."""
    return [labels.same(str(value)) for value in (run.tags if name == "tag" else [getattr(run, name)])]


def found_comparisons(comparisons: Sequence[Entry], jobs: Sequence[Job]) -> list[Entry]:
    """The comparisons that they leave: those of the state, and with a row of the method, one of the task and one with the tag."""
    left = grouping.search(comparisons, jobs, st.session_state.get("q") or "")
    for key, name in _FILTERS.items():
        if wanted := {labels.same(word) for word in st.session_state.get(key) or ()}:
            left = [one for one in left if grouping.told(one, jobs).get(name, set()) & wanted]
    return left


def _show_all() -> None:
    st.session_state.update({"q": "", **{key: [] for key in _FILTERS}})


def hint(sentence: str) -> None:
    st.caption(widgets.escape(sentence))


# --- runs --------------------------------------------------------------------------------------------


def run_table(runs: Sequence[RunSummary], named: Mapping[Path, str], key: str = "selected", alt: str = "Recorded runs") -> list[RunSummary]:
    """The runs as a table; the selected ones, whose names are also in the URL under `key`."""
    frame = pd.DataFrame([_row(run, named[run.path]) for run in runs])
    frame["created"] = frame["age"] = pd.to_datetime(frame["created"], utc=True, errors="coerce", format="ISO8601")
    names = [named[run.path] for run in runs]
    wanted = [naming.full_name(name, runs) or name for name in st.query_params.get_all(key)]
    gone = [name for name in wanted if name not in named.values()]
    picked = _picked(_without_empty(frame), [place for place, name in enumerate(names) if name in wanted], key, names, alt)
    if picked:
        widgets.found_again(key)
    widgets.lost(key, gone)
    return [runs[place] for place in picked]


def _row(run: RunSummary, name: str) -> dict[str, Any]:
    """One line of the table; run.json may hold anything, so words are made words."""
    scores = loading.ends(run)
    return {
        "run": name,
        "state": [run.state],
        "method": str(run.method or ""),
        "task": str(run.task or ""),
        "seed": run.seed if isinstance(run.seed, int) and abs(run.seed) < _WHOLE else None,
        "progress": _percent(run.progress.get("share")) if run.state == "running" else None,
        "gold": grouping.change(scores, "gold"),
        "proxy": grouping.change(scores, "proxy"),
        "tags": list(run.tags) or None,
        "age": None,
        "created": run.created,
        "in": naming.source(run),
        "problem": "; ".join(run.problems).replace(f"{run.path}/", ""),
    }


def _percent(share: object) -> float | None:
    """A share as the progress column has it; None for what is none."""
    known = tables.finite(share)
    return None if known is None else 100 * min(max(known, 0.0), 1.0)


def _without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that say nothing are left out: no run is running, none has a problem, all lie in one root."""
    silent = [name for name in ("tags", "progress", "problem") if name in frame if not (frame[name].notna() & (frame[name] != "")).any()]
    return frame.drop(columns=[*silent, *(["in"] if frame["in"].nunique() < 2 else [])])


def _picked(frame: pd.DataFrame, linked: Sequence[int], key: str, names: Sequence[str], alt: str, mode: Any = "multi-row") -> list[int]:
    """The table and its selected rows, kept in the URL by name: rows move when a run appears or goes."""
    event = st.dataframe(
        frame,
        column_config=_columns(),
        hide_index=True,
        width="stretch",
        key=f"table-{key}-{hash(tuple(names))}",  # another list is another table, which begins with what the URL says
        on_select="rerun",
        selection_mode=mode,
        selection_default={"selection": {"rows": list(linked)}},
        placeholder="",
        alt=alt,
    )
    picked = [row for row in event.selection.rows if row < len(names)]
    link(key, [names[row] for row in picked])
    return picked


def link(key: str, values: list[str]) -> None:
    """Keep in the URL what its widget cannot bind by itself."""
    if not values:
        st.query_params.pop(key, None)
    elif st.query_params.get_all(key) != values:
        st.query_params[key] = values


def _columns() -> dict[str, Any]:
    """How the columns of all tables here look."""
    column = st.column_config
    colours = [widgets.STATE_LOOKS[state][1] for state in SHAPES]
    return {
        "run": column.TextColumn("run", width="medium"),
        "state": column.MultiselectColumn("state", options=list(SHAPES), color=colours, format_func=lambda state: f"{SHAPES[state]} {state}", width=125),
        "seed": column.NumberColumn("seed", format="%d", width="small"),
        "progress": column.ProgressColumn("progress", min_value=0, max_value=100, format="%.0f %%", width=110),
        "gold": column.NumberColumn("Δ gold", format="%+.3f", help=grouping.CHANGES["Δ gold"]),
        "proxy": column.NumberColumn("Δ proxy", format="%+.3f", help=grouping.CHANGES["Δ proxy"]),
        "tags": column.ListColumn("tags", width="medium"),
        "age": column.DatetimeColumn("age", format="distance", timezone="UTC"),
        "created": column.DatetimeColumn("created (UTC)", format="YYYY-MM-DD HH:mm", timezone="UTC"),
        "in": column.TextColumn("in", help="the folder of runs that holds it"),
        "differs": column.TextColumn("differs in", width=300, help="settings in which configurations of this method and task differ"),
        "seeds": column.NumberColumn("seeds", format="%d", width="small", help="seeds with a finished run and two held-out scores"),
        "runs": column.TextColumn("runs", width=170),
        "gold interval": column.TextColumn("Δ gold, 95 %", help="interval of the mean over seeds, Student's t"),
        "proxy interval": column.TextColumn("Δ proxy, 95 %", help="interval of the mean over seeds, Student's t"),
    }


# --- configurations ----------------------------------------------------------------------------------


def configuration_table(groups: Sequence[Configuration], key: str = "group") -> list[Configuration]:
    """Seeds of one configuration as one line; the selected ones, which are also in the URL."""
    frame = pd.DataFrame([_configuration_row(group) for group in groups])
    wanted = st.query_params.get_all(key)
    linked = [place for place, group in enumerate(groups) if group.key in wanted]
    picked = _picked(frame if frame["differs"].any() else frame.drop(columns="differs"), linked, key, [group.key for group in groups], "Runs by configuration")
    return [groups[place] for place in picked]


def _configuration_row(group: Configuration) -> dict[str, Any]:
    gold, proxy = group.mean("gold"), group.mean("proxy")
    return {
        "configuration": group.name,
        "differs": group.differs,
        "seeds": gold.seeds,
        "gold": gold.value,
        "gold interval": _interval(gold),
        "proxy": proxy.value,
        "proxy interval": _interval(proxy),
        "runs": group.states,
    }


def _interval(mean: grouping.Mean) -> str:
    return mean.reason if mean.low is None or mean.high is None else f"[{mean.low:+.3f}, {mean.high:+.3f}]"


# --- comparisons -------------------------------------------------------------------------------------


def comparison_table(comparisons: Sequence[Entry], jobs: Sequence[Job]) -> Entry | None:
    """Each comparison as one line; the opened one, which is also in the URL."""
    frame = pd.DataFrame([_comparison_row(comparison, jobs) for comparison in comparisons])
    frame["created"] = frame["age"] = pd.to_datetime(frame["created"], utc=True, errors="coerce", format="ISO8601")
    names = [comparison.name for comparison in comparisons]
    linked = [place for place, name in enumerate(names) if name == st.query_params.get("comparison")]
    picked = _picked(_without_empty(frame), linked, "comparison", names, "Comparisons", mode="single-row")
    return comparisons[picked[0]] if picked else None


def _comparison_row(comparison: Entry, jobs: Sequence[Job]) -> dict[str, Any]:
    state, planned = grouping.state(comparison, jobs), len(comparison.arms)
    return {
        "comparison": comparison.name,
        "state": [state],
        "methods": ", ".join(comparison.plan.methods) if comparison.plan else "",
        "rows": f"{comparison.done} of {planned} finished",
        "progress": _percent(comparison.done / planned) if state == "running" else None,
        "age": None,
        "created": comparison.created,
        "in": naming.folder_of(comparison.path),
        "problem": comparison.problem,
    }


def to_compare(comparison: Entry) -> None:
    st.page_link(PAGES / "compare.py", label="Compare", icon=":material/balance:", query_params={"out": comparison.name}, disabled=bool(comparison.problem))


# --- one run, or several side by side ----------------------------------------------------------------


def to_replay(summary: RunSummary, name: str) -> None:
    st.page_link(PAGES / "replay.py", label="Replay", icon=":material/play_circle:", query_params={"run": name}, disabled=summary.state == "unreadable")


def runs_beside(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    """What differs between runs, and their scores at the end; a column for each run."""
    if len(runs) > MOST_BESIDE:
        hint(f"The first {MOST_BESIDE} of {len(runs)}.")
    runs, names = runs[:MOST_BESIDE], names[:MOST_BESIDE]
    left, right = st.columns([2, 3], gap="medium")
    with left:
        st.markdown("**Settings in which they differ**")
        _settings_beside(grouping.differing([run.config for run in runs]), names, "They have the same settings and the same seed.")
    with right:
        st.markdown("**Held-out scores: change over the run (Δ), and at the end**")
        _scores_beside(grouping.ends(runs), names, "None of them has a held-out score yet.")


def configurations_beside(groups: Sequence[Configuration]) -> None:
    """The same for configurations: seeds are no difference, and scores are means over the finished runs."""
    groups = groups[:MOST_BESIDE]
    names = [f"{number}: {group.name}" for number, group in enumerate(groups, 1)]
    left, right = st.columns([2, 3], gap="medium")
    with left:
        st.markdown("**Settings in which they differ**")
        _settings_beside(grouping.differing([grouping.unseeded(group.runs[0].config) for group in groups]), names, "They have the same settings.")
    with right:
        st.markdown("**Held-out scores, mean over finished runs: change (Δ), and at the end**")
        _scores_beside(grouping.mean_ends(groups), names, "None of them has a finished run with a held-out score.")


def _settings_beside(differing: Mapping[str, Sequence[str]], names: Sequence[str], otherwise: str) -> None:
    """A row for each setting, a column for each run."""
    if not differing:
        widgets.nothing(otherwise)
        return
    frame = pd.DataFrame(list(differing.values()), index=pd.Index(list(differing), name="setting"), columns=list(names))
    st.dataframe(frame, width="stretch", height="content", placeholder="", alt="Settings that differ between " + ", ".join(names)[:200])


def _scores_beside(scores: Mapping[str, Sequence[float | None]], names: Sequence[str], otherwise: str) -> None:
    """A row for each run, a column for each score."""
    if not scores:
        widgets.nothing(otherwise)
        return
    frame = pd.DataFrame(
        {label: [math.nan if value is None else value for value in values] for label, values in scores.items()}, index=pd.Index(list(names), name="run")
    )
    config = {label: _score_column(label) for label in scores}
    st.dataframe(frame, column_config=config, width="stretch", height="content", placeholder="-", alt="Held-out scores of " + ", ".join(names)[:200])


def _score_column(label: str) -> Any:
    """What is a change has its sign, and says what it is a change from."""
    told = grouping.CHANGES.get(label)
    return st.column_config.NumberColumn(label, format="%+.3f" if told else "%.3f", help=told or "at the end of the run")


def run_details(path: Path, info: RunInfo) -> None:
    """Settings, command line, versions and files of one run."""
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Run it again**")
        st.code(again.command(info.command, path.name, launch.root()), language="bash", wrap_lines=True)
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
