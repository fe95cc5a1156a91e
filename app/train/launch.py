"""Orders of runs: what the form asks for as command lines, what they would read and need, and the start."""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st
import yaml

from app.parts import widgets
from app.queue import jobs
from app.reading import catalogue, loading
from app.train import form, preflight, preview
from app.train.preflight import Line
from app.train.preview import Preview
from interplay import model_folders
from interplay.config import RunConfig, flag
from interplay.errors import ConfigError, DataError, ModelError, StoreError
from interplay.readers import SUFFIXES
from interplay.reading import RUN

_FRESH = 20.0  # seconds for which a preflight is kept
_LOOKS: dict[bool | None, tuple[str, Any]] = {True: (":material/check:", "green"), False: (":material/error:", "red"), None: (":material/help:", "gray")}
_ICONS = {"Memory": ":material/memory:", "Disk": ":material/hard_drive:", "Time": ":material/timer:"}


@functools.lru_cache(maxsize=4)
def _jobs(folder: Path) -> jobs.Jobs:
    """One object for the whole server, so that ended children are reaped whichever tab looks."""
    return jobs.Jobs(folder)


def here() -> jobs.Jobs:
    return _jobs(root() / ".jobs")


def root() -> Path:
    """Where new runs go: the first folder that is shown and is not part of the project."""
    return next((folder for folder in loading.roots() if folder != loading.RECORDINGS), Path("runs").resolve())


def refusal() -> str | None:
    """Why nothing can be started or stopped here; None if it can."""
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so starting and stopping runs is off. Bind it to 127.0.0.1 to use them."
    return None


# --- an order --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Runs that differ in their seed alone. `shown` is what a person would type, `placed` the same with its folder."""

    configs: tuple[RunConfig, ...]
    typed: tuple[str, ...]  # words that must be typed although they are the defaults, because a run that starts from another inherits

    def shown(self) -> list[list[str]]:
        return [[*jobs.train_argv(_visible(config)), *self.typed] for config in self.configs]

    def placed(self) -> list[list[str]]:
        return [[*jobs.train_argv(config), *self.typed] for config in self.configs]


def order(filled: form.Filled) -> Order | None:
    """The runs that the form describes; None, and the reason on the page, if they cannot be."""
    try:
        configs = filled.configs()
        typed = _typed(configs[0], filled.inherited)
        return Order(tuple(_placed(config, len(configs)) for config in configs), typed)
    except ConfigError as error:
        st.error(widgets.escape(error), icon=":material/error:")
        return None


def _typed(config: RunConfig, inherited: Mapping[str, Any]) -> tuple[str, ...]:
    """Defaults that differ from what would be inherited. Raises `ConfigError` for one that no word of a command line means."""
    words: list[str] = []
    for name, theirs in inherited.items():
        mine = getattr(config, name)
        if mine == getattr(RunConfig(), name) != theirs:
            if mine is None:
                raise ConfigError(
                    f"{flag(name)} cannot be left empty here: the run that this one starts from has {theirs!r}; name another, or start from no run"
                )
            words += [flag(name), str(mine)]
    return tuple(words)


def _placed(config: RunConfig, among: int) -> RunConfig:
    """Into the folder that this dashboard shows, under a name that is free. Raises `ConfigError` for a folder elsewhere."""
    if config.out:
        wanted = Path(config.out).expanduser().resolve()
        if not wanted.is_relative_to(root()) or wanted == root():
            raise ConfigError(f"--out is {config.out!r}, but this page shows only what is in {root()}; name a folder in there, or leave it empty")
        return config.with_(out=str(wanted) if among == 1 else f"{wanted}-s{config.seed}")
    name = f"{config.method.replace('+', '-')}-{config.task}-s{config.seed}-{_digest(config)[:6]}"
    free = (name if number == 1 else f"{name}-{number}" for number in range(1, sys.maxsize))
    return config.with_(out=str(root() / next(word for word in free if not (root() / word / RUN).exists())))


def _visible(config: RunConfig) -> RunConfig:
    """Without a folder where the command line would choose one in the same place."""
    made = Path(str(config.out))
    return config.with_(out=None) if made.parent == Path("runs").resolve() and _digest(config)[:6] in made.name else config


def _digest(config: RunConfig) -> str:
    """The same for the same settings, wherever the run goes: fifty clicks are one job."""
    return hashlib.sha256(json.dumps(config.with_(out=None).to_mapping(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def yaml_text(made: Order) -> str:
    """What `interplay train --config FILE` reads; seed and folder are typed beside it where they differ."""
    several = len(made.configs) > 1
    config = _visible(made.configs[0]).with_(trust_remote_code=False)
    config = config.with_(seed=0, out=None) if several else config
    again = {word.removeprefix("--").replace("-", "_"): value for word, value in zip(made.typed[::2], made.typed[1::2], strict=True)}
    return config.to_yaml() if not again else str(yaml.safe_dump({**config.changed(), **again}, sort_keys=False, allow_unicode=True))


def _yaml_commands(made: Order) -> str:
    """How the file is used: what a file cannot say, and what differs from run to run, is typed."""
    trust = ["--trust-remote-code"] if made.configs[0].trust_remote_code else []
    rows = []
    for config in map(_visible, made.configs):
        own = RunConfig(seed=config.seed, out=config.out).to_argv() if len(made.configs) > 1 else []
        rows.append(shlex.join(["interplay", "train", "--config", "run.yaml", *own, *trust]))
    return "\n".join(rows)


# --- before the start ------------------------------------------------------------------------------


def upload_button() -> None:
    """A file from the browser's machine, kept below the folder of runs and named in the data field."""
    with st.popover("Upload a file", icon=":material/upload_file:", disabled=bool(refusal())):
        kinds = [suffix.removeprefix(".") for suffix in SUFFIXES]
        st.file_uploader(
            "JSONL, JSON, CSV or Parquet", kinds, key="upload", on_change=_uploaded, max_upload_size=preview.MOST_UPLOADED // 2**20, disabled=bool(refusal())
        )
        st.caption("Kept in the folder of runs and used as --data; it goes nowhere else.")
    if problem := st.session_state.pop("_upload_problem", None):
        st.error(widgets.escape(problem), icon=":material/error:")


def _uploaded() -> None:
    file = st.session_state.get("upload")
    if file is None or refusal():
        return
    try:
        st.session_state["data"] = str(preview.save(root(), file.name, file.getvalue()))
    except DataError as error:
        st.session_state["_upload_problem"] = str(error)


def look(made: Order | None) -> Preview | None:
    """The data that the run would read; None where it is not known. A data set of the hub is fetched when it is asked for."""
    if made is None:
        return None
    config = made.configs[0]
    if config.data and loading.exposed():
        return None
    version = preview.version(config)
    if preview.on_hub(config.data) and st.session_state.get("_hub") != version:
        return None
    found: Preview = widgets.memo("preview", version, lambda: preview.make(config))
    return found


def foresee(made: Order | None) -> Sequence[Line]:
    """Memory, disk and time, looked at anew every now and then."""
    if made is None:
        return []
    config = made.configs[0]
    version = (_digest(config), len(made.configs), int(time.time() / _FRESH))
    found: Sequence[Line] = widgets.memo(
        "preflight", version, lambda: preflight.check(config, len(made.configs), preflight.machine(root()), preflight.seen(config))
    )
    return found


def unusable(made: Order | None, data: Preview | None) -> list[str]:
    """What is wrong with the model, the judge's model and the data, as far as this machine can tell without the engine."""
    if made is None or loading.exposed():
        return []
    config = made.configs[0]
    named = {"--model": config.model, "--judge-model": config.judge_model if config.judge == "model" else None}
    wrong = [_wrong_model(name, argument) for argument, name in named.items() if name is not None]
    return [line for line in (*wrong, data and data.error) if line]


def _wrong_model(name: str, argument: str) -> str | None:
    try:
        model_folders.check(name, argument=argument)
    except ModelError as error:
        return str(error)
    except (OSError, RuntimeError, ValueError) as error:  # a folder of somebody else's, no such user, no such path
        return f"{argument} is {name!r}, which cannot be looked at: {error}"
    return None


def start_row(made: Order | None, lines: Sequence[Line], wrong: Sequence[str]) -> None:
    """Start, reset, and what the start would cost in a word each. Nothing starts onto a disk too small, or with something `wrong` in what it would read."""
    reason, engine = refusal(), catalogue.engine_installed()
    runs = len(made.configs) if made else 1
    can = made is not None and engine and not reason and not wrong and not any(map(_forbids, lines))
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        pressed = st.button(f"Start {runs} runs" if runs > 1 else "Start", type="primary", icon=":material/play_arrow:", disabled=not can, key="start")
        st.button("Reset", icon=":material/restart_alt:", on_click=form.reset, key="reset", help="every setting back to its default")
        for line in lines:
            st.badge(widgets.escape(f"{line.what}: {line.text}"), icon=_ICONS[line.what], color=_LOOKS[line.fits][1], help=widgets.escape(line.source))
    _warnings(lines, wrong, reason, engine)
    if pressed and made and can:
        _start(made)


def _forbids(need: Line) -> bool:
    """What memory takes is an estimate that may be tried; a disk that fills up ends the run, and whatever else writes there."""
    return need.what == "Disk" and need.fits is False


def _warnings(lines: Sequence[Line], wrong: Sequence[str], reason: str | None, engine: bool) -> None:
    """Why Start is off, and what would not fit."""
    for line in wrong:
        st.error(widgets.escape(line), icon=":material/error:")
    for need in lines:
        if need.fits is False:
            off = ", so Start is off" if _forbids(need) else ""
            st.error(widgets.escape(f"{need.what} will not suffice{off}: {need.text}. {need.remedy}"), icon=":material/error:")
    if reason:
        st.info(reason, icon=":material/lock:")
    elif not engine:
        st.info(f"The engine is not installed, so runs can be watched but not started: `{catalogue.INSTALL}`", icon=":material/info:")


def details(made: Order | None, lines: Sequence[Line], data: Preview | None) -> None:
    """Command line, YAML, data, and where the numbers of the preflight are from."""
    if made is None:
        return
    command, text, rows, needs = st.tabs(["Command line", "YAML", "Data", "Memory, disk, time"], key="details", bind="query-params")
    with command:
        st.code("\n".join(jobs.command_line(argv) for argv in made.shown()), language="bash", wrap_lines=True)
    with text:
        st.code(yaml_text(made), language="yaml")
        st.caption("Saved as run.yaml, it is started with")
        st.code(_yaml_commands(made), language="bash")
    with rows:
        _show_data(made.configs[0], data)
    with needs:
        _show_needs(lines)


def _show_data(config: RunConfig, data: Preview | None) -> None:
    if data is None and config.data and loading.exposed():
        widgets.nothing("On a server that others can reach, files are not shown.")
    elif data is None:
        st.text(f"{config.data} is no file here, so it is taken for a data set of the hub. Nothing is downloaded before the run, unless you ask for it.")
        if st.button("Fetch it now and show three rows", icon=":material/download:", key="fetch", disabled=bool(refusal())):
            st.session_state["_hub"] = preview.version(config)
            st.rerun()
    elif data.error:
        st.text(data.error)
    else:
        st.text(data.told)
        st.dataframe([dict(row) for row in data.rows], hide_index=True, width="stretch", row_height=70, alt="The first rows as the run reads them")


def _show_needs(lines: Sequence[Line]) -> None:
    for line in lines:
        left, right = st.columns([1, 9])
        icon, colour = _LOOKS[line.fits]
        left.badge(line.what, icon=icon, color=colour)
        right.text(f"{line.text}\n{line.source}")


# --- start and resume ------------------------------------------------------------------------------


def _start(made: Order) -> None:
    """One job for each seed; the queue says which of them wait."""
    started = []
    try:
        for config, argv in zip(made.configs, made.placed(), strict=True):
            started.append(here().start_argv(argv, key=_key(_digest(config))))
    except (ConfigError, StoreError) as error:
        st.error(widgets.escape(error), icon=":material/error:")
    if started:
        waiting = sum(job.state == "queued" for job in started)
        st.toast(f"Started job {started[0].id[:6]}" if len(started) == 1 and not waiting else f"{len(started)} jobs, {waiting} of them waiting")


def _key(base: str) -> str:
    """The same while a job of this base goes on, another one after its end."""
    return f"{base}-{sum(job.ended for job in here().list() if job.key.startswith(base))}"


def resume(folder: Path) -> jobs.Job:
    """Go on with a run from its last complete iteration. Raises `ConfigError` or `StoreError`."""
    argv = [sys.executable, "-m", "app.cli", "train", "--resume", str(folder)]
    return here().start_argv(argv, key=_key(f"resume-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"))
