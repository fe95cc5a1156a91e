"""The checkpoint of an iteration, and how a new run starts from it: the command to copy, and the form that is filled in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from app.reading.recorded import Recorded
from interplay import kept
from interplay.config import RunConfig
from interplay.errors import ConfigError

TRAIN = Path(__file__).parents[1] / "pages" / "train.py"
#: What a new run must be told anew: its own place, and leave to run foreign code.
_OWN = ("out", "trust_remote_code")


def show(recorded: Recorded, iteration: int, last: int) -> None:
    """Where the weights at the end of the iteration lie (`last` is its last policy update), and what can be done with them."""
    folder = kept.place(recorded.path, iteration)
    if not folder.is_dir():
        st.text(f"No checkpoint of iteration {iteration} was kept. It is written when the iteration ends; --keep-checkpoints all keeps every one.")
        return
    st.text(f"Policy and reward model at the end of iteration {iteration}, after policy update {last}:")
    st.code(str(folder), language=None, wrap_lines=True)
    if not kept.complete(folder):
        st.text("It holds adapters to load, but not all that a run needs to go on from it.")
        return
    chosen = settings(recorded, iteration)
    st.code(command(chosen), language="bash", wrap_lines=True)
    st.page_link(TRAIN, label="Fill in the form with it", icon=":material/fork_right:", query_params=linked(chosen))


def settings(recorded: Recorded, iteration: int) -> RunConfig:
    """The run's own settings, from that iteration on; only where it starts, if they are not ours to read."""
    start = {"start_from": kept.named(recorded.path, iteration)}
    try:
        return RunConfig.from_mapping({name: value for name, value in recorded.info.config.items() if name not in _OWN} | start)
    except ConfigError:
        return RunConfig.from_mapping(start)


def command(config: RunConfig) -> str:
    return shlex.join(["interplay", "train", *config.to_argv()])


def linked(config: RunConfig) -> dict[str, str]:
    """The settings as the form's address has them."""
    changed: Mapping[str, Any] = config.changed()
    return {name: str(value) for name, value in changed.items() if isinstance(value, str | int | float) and not isinstance(value, bool)}
