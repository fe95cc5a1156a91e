"""What was started from here: a card for each job with its state, its progress, and what can be done with it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.commands.progress import about
from app.parts import widgets
from app.queue import jobs
from app.reading import loading
from app.runs import again, listing
from app.train import hints, launch
from interplay.errors import ConfigError, InterplayError, StoreError
from interplay.reading import RUN, RunReader, Status, read_info
from interplay.store import RunSummary

MOST_JOBS = 10
TAIL_LINES = 20
#: For each job that goes on with a run, what the run said before it: its own process repeats that until it has something to say.
_EARLIER: dict[str, Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Run:
    """The run of a job, as far as it is on disk. `left` is in seconds; `silent` while what it says is still that of an earlier attempt."""

    summary: RunSummary
    share: float | None
    left: float | None
    silent: bool = False


def show() -> None:
    """The newest trainings with their state, progress, and what can be done with them."""
    found = [job for job in launch.here().list() if job.kind in ("train", "")]
    if not found:
        widgets.nothing("Nothing has been started from this page yet.")
    waiting = sorted((job for job in found if job.state == "queued"), key=lambda job: job.created)
    newest = {job.folder: job.id for job in reversed(found) if job.folder}
    for job in found[:MOST_JOBS]:
        with st.container(border=True, key=f"job-{job.id}", gap="small"):
            _job_card(job, waiting.index(job) + 1 if job in waiting else 0, job.id in newest.values())
    if len(found) > MOST_JOBS:
        st.caption(f"and {len(found) - MOST_JOBS} older ones; their runs are on the page Runs")


def _job_card(job: jobs.Job, place: int, newest: bool) -> None:
    """State, name, progress and links; command and log folded away. Only the newest job of a run can resume it."""
    run = _run_of(job)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        widgets.state_badge(job.state)
        st.text(_title(job), width="stretch")
        if run:
            listing.to_replay(run.summary, run.summary.run)
        if newest and run and job.ended and again.early(run.summary) and again.resume_button(run.summary, f"resume-{job.id}"):
            st.rerun()
        if job.state in ("running", "queued") and st.button("Stop", key=f"stop-{job.id}", icon=":material/stop:", disabled=bool(launch.refusal())):
            _stop(job.id)
    _job_progress(job, run, place, newest)
    lines = launch.here().tail(job.id, TAIL_LINES)
    if job.state == "failed":
        _failure(lines)
    with st.expander("Command and log", key=f"log-{job.id}", type="compact"):
        st.code(job.command, language="bash", wrap_lines=True)
        st.code(lines or "(nothing was said yet)", language=None, wrap_lines=True)


def _title(job: jobs.Job) -> str:
    name = job.folder.name if job.folder else f"job {job.id[:6]}"
    return f"{name}, {'resumed' if '--resume' in job.argv else 'started'} {job.created[:16].replace('T', ' ')} UTC"


def _job_progress(job: jobs.Job, run: Run | None, place: int, newest: bool) -> None:
    """A bar while there is something to wait for, and in its text what is being done and how long that will take. A resumed run is told of once."""
    if place:
        st.text(f"number {place} in the queue; it starts when a device is free")
    elif not job.ended and run is None:
        st.progress(0.0, "loading")
    elif not job.ended and run and run.silent:
        st.progress(0.0, "starting")
    elif not job.ended and run:
        left = f", {about(run.left)} left" if run.left is not None else ""
        st.progress(run.share or 0.0, widgets.escape(widgets.progress_words(run.summary.progress) + left))
    elif newest and run and run.summary.state != "finished":
        at = f" at {run.share:.0%}" if run.share is not None else ""
        st.text(f"run {run.summary.state}{at}" + (f"; Resume {again.whence(run.summary.path)}" if again.early(run.summary) else ""))


def _failure(lines: str) -> None:
    """The last line, and a hint where it is known what it means."""
    last = lines.splitlines()[-1:] or ["it ended without a word"]
    st.error(widgets.escape(last[0][:500]), icon=":material/error:")
    if told := hints.hint(lines):
        st.info(told, icon=":material/lightbulb:")


def _run_of(job: jobs.Job) -> Run | None:
    """None before the run has its folder, and for a folder that is not shown here."""
    if job.folder is None or not (job.folder / RUN).is_file() or not any(map(job.folder.is_relative_to, loading.roots())):
        return None
    try:
        info = read_info(job.folder)
        status = RunReader(job.folder, info).status()
    except InterplayError:
        return None
    share = status.progress.get("share")
    share = min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) and share == share else None
    summary = RunSummary(job.folder.name, job.folder, status.shown(), created=info.created, progress=status.progress, config=info.config)
    return Run(summary, share, _left(status, share, "--resume" in job.argv), not job.ended and _silent(job, status))


def _silent(job: jobs.Job, status: Status) -> bool:
    """Whether the job itself has told nothing of its run yet: it is loading, and the progress on disk is that of an earlier attempt."""
    if status.heartbeat < job.started or (status.ended or math.inf) < job.started:
        _EARLIER[job.id] = status.progress
        return True
    return _EARLIER.get(job.id) == status.progress


def _left(status: Status, share: float | None, resumed: bool) -> float | None:
    """At the pace so far; None at the beginning, and for a resumed run, whose share is partly another attempt's."""
    if resumed or status.started is None or not share or not 0.02 <= share < 1:
        return None
    return max(0.0, (time.time() - status.started) * (1 - share) / share)


# --- what can be done ----------------------------------------------------------------------------------


def _stop(id: str) -> None:
    if launch.refusal():
        return
    try:
        launch.here().stop(id)
    except (ConfigError, StoreError) as error:
        st.error(widgets.escape(error))
        return
    st.rerun()
