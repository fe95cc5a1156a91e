"""The form that imports a folder of checkpoints: `interplay import` as a job, in Streamlit's words."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.parts import widgets
from app.queue import jobs
from app.reading import catalogue, loading
from app.train import launch
from interplay.errors import ConfigError, InterplayError
from interplay.store import Runs

SECONDS = 2.0
_WHERE = "a folder or pattern below it: {step} stands for the number, * for any part of a name"


@dataclass(frozen=True)
class Wish:
    """What is to be imported; empty words are left to the command."""

    folder: str
    name: str
    policy: str = ""
    reward: str = ""
    base: str = ""

    def argv(self, root: Path) -> list[str]:
        """The process that imports it into `root`: a flag and its value are one word, so no value is read as a flag."""
        patterns = {"as": self.name, "runs": str(root), "policy": self.policy, "reward": self.reward, "base": self.base and str(_absolute(self.base))}
        flags = [f"--{flag}={value}" for flag, value in patterns.items() if value]
        return [sys.executable, "-m", "app.cli", "import", str(_absolute(self.folder)), *flags]

    def check(self, root: Path) -> None:
        """Raises `InterplayError` with the first thing that is wrong."""
        for what, folder in (("folder", self.folder), ("base", self.base)):
            if folder and not os.path.isdir(_absolute(folder)):
                raise ConfigError(f"{what} is {folder!r}, which is not a folder on this machine; give one that holds checkpoints")
        if Runs(root).path(self.name).exists():
            raise ConfigError(f"name is {self.name!r}, which exists already in {root}; choose another")
        if any("\0" in word for word in (self.folder, self.policy, self.reward, self.base)):
            raise ConfigError("a path or pattern holds a null character; take it out")


def _absolute(folder: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(folder)))


# --- the form --------------------------------------------------------------------------------------


def form() -> None:
    """Folder, name and patterns, the exact command, and the job that was started from it."""
    opened = st.expander("Import checkpoints that another trainer saved", icon=":material/upload_file:", key="import", bind="query-params")
    if not opened.open:
        return
    with opened:
        reason = _refusal()
        if reason:
            st.info(reason, icon=":material/lock:")
            return
        wish = _wish()
        if wish.folder and wish.name:
            _start(wish)
        else:
            st.caption("Give the folder and a name. Runs of other trainers show movement, scores and logs; what they did not save cannot be shown.")
        st.fragment(_progress, run_every=SECONDS)()


def _refusal() -> str | None:
    """Why nothing can be imported here; None if it can."""
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so importing is off."
    if not catalogue.engine_installed():
        return f"Importing computes with the engine, which is not installed: `{catalogue.INSTALL}`"
    return None


def _wish() -> Wish:
    left, right = st.columns(2, gap="medium")
    with left:
        folder = _line("Folder", "import_folder", "/path/to/outputs", "on this machine, with the checkpoints in it (safetensors; adapters or whole models)")
        name = _line("Name of the new run", "import_name", "my-run", "becomes the name of its folder")
        base = _line("Base (optional)", "import_base", "", "weights that the policy started from, before its first checkpoint: a folder of the same tensors")
    with right:
        policy = _line("Policy (optional)", "import_policy", "found by its name", f"where the policy's checkpoints are: {_WHERE}")
        reward = _line("Reward model (optional)", "import_reward", "found by its name", f"where the reward model's checkpoints are: {_WHERE}")
    return Wish(folder, name, policy, reward, base)


def _line(label: str, key: str, placeholder: str, help: str) -> str:
    return str(st.text_input(label, key=key, bind="query-params", placeholder=placeholder, help=widgets.escape(help), max_chars=1000) or "").strip()


def _start(wish: Wish) -> None:
    """The command, and the button that starts it; the reason where it cannot be."""
    root = launch.root()
    try:
        wish.check(root)
        argv = wish.argv(root)
        st.code(jobs.command_line(argv), language="bash", wrap_lines=True)
        if st.button("Import", type="primary", icon=":material/upload_file:", key="import-start"):
            launch.here().start_argv(argv, _key())
    except InterplayError as error:
        st.error(widgets.escape(error), icon=":material/error:")


def _key() -> str:
    """One key for each filling of the form: fifty clicks are one job."""
    return str(st.session_state.setdefault("_import_key", secrets.token_hex(8)))


def _progress() -> None:
    """The latest import that was started here, with its last lines."""
    job = next((job for job in launch.here().list() if job.kind == "import"), None)
    if job is None:
        return
    if job.ended and job.key == st.session_state.get("_import_key"):
        del st.session_state["_import_key"]
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        widgets.state_badge(job.state)
        st.text(f"job {job.id[:6]}, started {job.created[:16].replace('T', ' ')} UTC")
    if tail := launch.here().tail(job.id, 8):
        st.code(tail, language=None, wrap_lines=True)
