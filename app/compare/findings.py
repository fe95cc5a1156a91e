"""What a comparison found, in Streamlit's words: what is claimed, the figures, and the tables with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from analysis.comparison import BOOTSTRAP, JUDGES, Comparison
from app.commands import comparison
from app.commands.progress import duration
from app.compare.standings import Entry
from app.parts import widgets
from app.reading.recorded import Recorded
from interplay.errors import InterplayError

_SIGNED, _PERCENT, _GIB = "%+.3f", "%.0f %%", 2**30
_AT_EQUAL_KL = (
    " At equal KL: the change where a method's path first reaches the smallest final KL of those methods, controls aside, that ended farther from the "
    "reference than they began (95 % interval over prompts). Not reached: the method stayed nearer."
)


def show(entry: Entry, judge: str, x: str) -> None:
    """What is claimed, the figures and the tables of the finished rows."""
    runs = entry.recordings()
    if not runs:
        widgets.nothing("No row is finished yet: the first numbers come with the first finished row.")
        return
    try:
        numbers = widgets.sources(runs).comparison
    except (ValueError, InterplayError) as reason:
        widgets.nothing(f"No numbers: {reason}.")
        return
    _claims(entry, numbers)
    _figures(runs, [("arms", {"judge": judge}), ("arm_differences", {"judge": judge})])
    _figures(runs, [("method_curves", {"judge": judge, "x": x}), ("frontier", {"judge": judge, "by": "method"})])
    _scores(numbers)
    _differences(numbers, judge)
    left, right = st.columns(2, gap="medium")
    with left:
        _figure("memory_reward", runs, {"judge": judge})
    with right:
        _costs(numbers)


def _figures(runs: Sequence[Recorded], chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Side by side."""
    for place, (name, settings) in zip(st.columns(len(chosen), gap="medium"), chosen, strict=True):
        with place:
            _figure(name, runs, settings)


def _figure(name: str, runs: Sequence[Recorded], settings: Mapping[str, Any]) -> None:
    with st.container(border=True, height="stretch"):
        widgets.figure(name, runs, f"compare-{name}", height=340, brief=True, **settings)


def _claims(entry: Entry, numbers: Comparison) -> None:
    """The sentences of the printed table, and its notes that speak of all rows."""
    lines = comparison.claims(numbers)
    with st.container(border=True, gap="xsmall"):
        for line in lines or ["One method has finished rows so far: nothing is compared yet."]:
            st.text(line)
    told = {row["warning"] for row in numbers.differences}  # beside each; of bootstrap intervals there is none here
    for line in [line for line in numbers.warnings if line not in told and not line.endswith(BOOTSTRAP)]:
        st.caption(f":material/warning: {widgets.escape(line)}")
    if len({str(sorted(row.machine.items())) for row in entry.arms if row.state == "finished"}) > 1:
        st.caption(":material/warning: these rows were computed on more than one kind of machine: their times do not compare")


def _scores(numbers: Comparison) -> None:
    st.markdown("**Change on held-out prompts**")
    reach = f"at KL {numbers.matched_kl:.2f}" if numbers.matched_kl == numbers.matched_kl else ""
    config = {name: st.column_config.NumberColumn(format=_SIGNED) for judge in JUDGES for name in (judge, f"{judge} IQM", f"{judge} {reach}")}
    shares = {"alarm": st.column_config.NumberColumn(help="held-out scorings in which the text repeated itself or collapsed", format=_PERCENT)}
    about = {
        "KL": st.column_config.NumberColumn(help="nats from the reference at the end, mean over held-out completions", format="%.2f"),
        "tokens": st.column_config.NumberColumn(help="mean length of a held-out completion", format="%.1f"),
        "finished": st.column_config.NumberColumn(help="held-out completions that ended by themselves", format=_PERCENT),
    }
    frame = pd.DataFrame([_score_line(row, reach) for row in numbers.methods])
    st.dataframe(
        frame if (frame["alarm"] > 0).any() else frame.drop(columns="alarm"),
        column_config=config | shares | about,
        hide_index=True,
        width="stretch",
        placeholder="not reached" if reach else "unknown",
        alt="Held-out change of each method with its interval",
    )
    st.caption(
        "proxy: score of frozen reward model 0, in standard deviations before training; gold: the task's own score. Intervals: 95 %, Student's t over seeds. "
        "IQM: mean of the middle half of the seeds." + (_AT_EQUAL_KL if reach else "")
    )


def _score_line(row: Mapping[str, Any], reach: str) -> dict[str, Any]:
    """`reach` names the common KL; empty where there is none. What a narrow window has no room for stands last."""
    found: dict[str, Any] = {"method": _named(row)}
    for judge in reversed(JUDGES):
        found |= {judge: row[judge]["mean"], f"{judge} 95 %": comparison.interval(row[judge]["student"])}
    equal = {f"{judge} {reach}": row["at_equal_kl"][judge] for judge in reversed(JUDGES)} if reach else {}
    shares = {"finished": 100 * row["finished"], "alarm": 100 * row["alarm"]}
    middles = {f"{judge} IQM": row[judge]["iqm"] for judge in reversed(JUDGES)}
    return {**found, "KL": row["kl"], **equal, "seeds": len(row["seeds"]), **shares, "tokens": row["length"], **middles}


def _named(row: Mapping[str, Any]) -> str:
    return str(row["method"]) + (" (control)" if row["control"] else "")


def _differences(numbers: Comparison, judge: str) -> None:
    rows = [row for row in numbers.differences if row["judge"] == judge]
    if not rows:
        return
    st.markdown(f"**Paired differences in {judge}: same seeds, same prompts**")
    config = {
        "mean": st.column_config.NumberColumn(format=_SIGNED),
        "verdict": st.column_config.TextColumn(help="more or less: the interval leaves out zero; not shown: it holds zero"),
        "80 % power": st.column_config.NumberColumn(format="%.3f", help="the smallest true difference that so many seeds find in 80 % of repetitions"),
        "too few seeds": st.column_config.TextColumn(help="yes: the mean is smaller than what so many seeds find with 80 % power, and is no ranking"),
    }
    st.dataframe(pd.DataFrame(map(_difference_line, rows)), column_config=config, hide_index=True, width="stretch", placeholder="", alt="Paired differences")


def _difference_line(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "difference": f"{row['method']} - {row['minus']}",
        "seeds": row["seeds"],
        "mean": row["mean"],
        "95 %": comparison.interval(row["student"]),
        "verdict": comparison.verdict(row),
        "80 % power": row["detectable"],
        "too few seeds": "yes" if row["warning"] else "",
    }


def _costs(numbers: Comparison) -> None:
    """Times to the first method's score stand there only where it gained anything that the others could reach."""
    st.markdown("**Cost of a run, mean over seeds**")
    first = numbers.methods[0]
    gained = [judge for judge in reversed(JUDGES) if first[judge]["mean"] > 0]
    config = {name: st.column_config.NumberColumn(format="localized") for name in ("forwards", "tokens")}
    st.dataframe(
        pd.DataFrame([_cost_line(row, str(first["method"]), gained) for row in numbers.methods]),
        column_config=config | {"GiB": st.column_config.NumberColumn(format="%.2f", help="most memory of the process; on a GPU, most allocated there")},
        hide_index=True,
        width="stretch",
        placeholder="never",
        alt="What a run of each method costs",
    )
    st.caption(widgets.escape(_about_times(str(first["method"]), gained)))


def _about_times(first: str, gained: Sequence[str]) -> str:
    told = f"To {first}'s score: time until an evaluation reaches the change that {first} ends with, median over seeds." if gained else ""
    missing = [judge for judge in reversed(JUDGES) if judge not in gained]
    return " ".join([told, f"{first} ends with no gain in {' or '.join(missing)}, so there is no time to reach it." if missing else ""]).strip()


def _cost_line(row: Mapping[str, Any], first: str, gained: Sequence[str]) -> dict[str, Any]:
    times = {f"to {first}'s {judge}": _duration(row["seconds_to_first_method"][judge]) for judge in gained}
    spent = {"forwards": _whole(row["forwards"]), "tokens": _whole(row["tokens"]), "time": _duration(row["seconds"])}
    return {"method": _named(row), **spent, "GiB": row["peak_memory"] / _GIB, **times}


def _whole(value: float) -> int | None:
    return round(value) if value == value else None


def _duration(seconds: float) -> str | None:
    return duration(seconds) if seconds == seconds else None
