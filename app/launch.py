"""The form that starts a run and the list of what it started, in Streamlit's words."""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import Any

import streamlit as st

from app import catalogue, jobs, loading, widgets
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError


@functools.lru_cache(maxsize=4)
def _jobs(folder: Path) -> jobs.Jobs:
    """One object for the whole server, so that ended children are reaped whichever tab looks."""
    return jobs.Jobs(folder)


def here() -> jobs.Jobs:
    return _jobs(_root() / ".jobs")


def _root() -> Path:
    """Where new runs go: the first folder that is shown and is not part of the project."""
    return next((root for root in loading.roots() if root != loading.RECORDINGS), Path("runs").resolve())


def refusal() -> str | None:
    """Why nothing can be started or stopped here; None if it can."""
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so starting and stopping runs is off. Bind it to 127.0.0.1 to use them."
    return None


def form() -> dict[str, Any]:
    """The few settings that most runs differ in."""
    with st.spinner("Asking the engine for its methods"):
        methods = catalogue.methods()
    summaries = {method.name: method.summary for method in methods}
    left, middle, right = st.columns(3, gap="medium")
    with left:
        method = st.selectbox("Method", list(summaries), key="method", bind="query-params")
        st.caption(widgets.escape(summaries.get(method or "", "")))
        task = st.selectbox("Task", catalogue.tasks(), key="task", bind="query-params")
    with middle:
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params")
        iterations = st.number_input("Iterations", 1, 1000, 2, key="iterations", bind="query-params", help="rounds of the policy-reward loop")
        updates = st.number_input("Policy updates per iteration", 1, 100_000, 6, key="updates", bind="query-params")
    with right:
        reward = st.segmented_control(
            "Reward",
            ["model", "gold"],
            default="model",
            required=True,
            key="reward",
            bind="query-params",
            help="what the policy is trained on: the reward model, or the task's own score",
        )
        data = st.text_input(
            "Data",
            key="data",
            bind="query-params",
            placeholder="the task's own prompts",
            max_chars=500,
            help="JSONL, JSON, Parquet or CSV file, a saved data set, or a hub id",
        )
    return {"method": method, "task": task, "seed": int(seed), "iterations": int(iterations), "updates": int(updates), "reward": reward, "data": data or None}


def configure(values: dict[str, Any]) -> RunConfig | None:
    """The run that the form describes, with its command line; None, and the reason on the page, if it cannot be."""
    try:
        config = RunConfig.from_mapping(values, source="the form")
        if not config.data or Path(config.data).exists() or not Path(config.data).suffix:
            st.code(jobs.command_line(jobs.train_argv(_placed(config))), language="bash", wrap_lines=True)
            return _placed(config)
        raise ConfigError(f"--data is {config.data!r}, which is not a file here; give the path of a file, or a hub id")
    except ConfigError as error:
        st.error(widgets.escape(error), icon=":material/error:")
        return None


def _placed(config: RunConfig) -> RunConfig:
    """Into the folder that this dashboard shows; unsaid where the command line would put it there anyway."""
    root = _root()
    if root == Path("runs").resolve():
        return config
    return config.with_(out=str(root / f"{config.method}-{config.task}-{config.seed}-{_key()[:6]}"))


def _key() -> str:
    """One key for each filling of the form: fifty clicks are one job."""
    return str(st.session_state.setdefault("_start_key", secrets.token_hex(8)))


def start_button(config: RunConfig | None) -> None:
    """Start, or one line on why not."""
    reason = refusal()
    engine = catalogue.engine_installed()
    if st.button("Start", type="primary", icon=":material/play_arrow:", disabled=bool(reason) or config is None or not engine) and config:
        _start(config)
    if reason:
        st.info(reason, icon=":material/lock:")
    elif not engine:
        st.info(f"The engine is not installed, so runs can be watched but not started: `{catalogue.INSTALL}`", icon=":material/info:")


def _start(config: RunConfig) -> None:
    try:
        job = here().start(config, key=_key())
        st.toast(f"Started job {job.id[:6]}")
    except ConfigError as error:
        st.error(widgets.escape(error), icon=":material/error:")


def job_list() -> None:
    """Every job with its state, its last lines, and Stop while it runs."""
    found = here().list()
    if any(job.key == _key() and job.ended for job in found):
        del st.session_state["_start_key"]
    if not found:
        widgets.nothing("Nothing has been started from this page yet.")
    for job in found[:10]:
        with st.container(border=True):
            _job_row(job)


def _job_row(job: jobs.Job) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        widgets.state_badge(job.state)
        st.text(f"job {job.id[:6]}, started {job.created[:16].replace('T', ' ')} UTC", width="stretch")
        if job.state == "running" and st.button("Stop", key=f"stop-{job.id}", icon=":material/stop:", disabled=bool(refusal())):
            _stop(job.id)
    st.code(job.command, language="bash", wrap_lines=True)
    tail = here().tail(job.id, 12)
    if tail and (not job.ended or job.state == "failed"):
        st.code(tail, language=None, wrap_lines=True)


def _stop(id: str) -> None:
    if refusal():
        return
    try:
        here().stop(id)
    except StoreError as error:
        st.error(widgets.escape(error))
        return
    st.rerun()
