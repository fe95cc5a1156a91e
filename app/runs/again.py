"""A run again: the button that goes on with one that ended too early, and the words that run one once more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.parts import widgets
from app.reading import catalogue, loading
from app.train import launch
from interplay import kept
from interplay.errors import ConfigError, StoreError
from interplay.store import RunSummary

PAGES = Path(__file__).parents[1] / "pages"
#: States of a run that nobody is at and that has something left to do; a stalled one may still be written on another machine.
_EARLY = ("interrupted", "failed")


# --- going on ----------------------------------------------------------------------------------------


def early(run: RunSummary) -> bool:
    """Whether the run ended before its end and can go on."""
    return run.state in _EARLY


def whence(path: Path) -> str:
    """What Resume does: `goes on after iteration 2; what came after it is done again`."""
    last = next((number for number in kept.numbers(path / kept.FOLDER) if kept.complete(kept.place(path, number))), None)
    return "begins anew, because no iteration was complete" if last is None else f"goes on after iteration {last}; what came after it is done again"


def resume_button(run: RunSummary, key: str) -> bool:
    """Go on with it as a job; disabled with the reason where that cannot be. True once the job is there."""
    why = _refusal(run)
    told = why or f"{whence(run.path)}, with the same settings: interplay train --resume {shlex.quote(str(run.path))}"
    if not st.button("Resume", icon=":material/resume:", key=key, disabled=bool(why), help=widgets.escape(told)):
        return False
    try:
        launch.resume(run.path)
    except (ConfigError, StoreError) as error:
        st.error(widgets.escape(error), icon=":material/error:")
        return False
    return True


def resume_and_watch(run: RunSummary) -> None:
    """The same on a page that shows no jobs: what was started is looked at on the page Train."""
    if resume_button(run, "resume"):
        st.switch_page(PAGES / "train.py")


def _refusal(run: RunSummary) -> str | None:
    """Why it cannot be resumed here and now; None if it can."""
    if reason := launch.refusal():
        return reason
    if run.path.is_relative_to(loading.RECORDINGS):
        return f"{run.run} came with the project (data/recordings), so it stays as it is."
    if not catalogue.engine_installed():
        return f"The engine is not installed: {catalogue.INSTALL}"
    job = next((job for job in launch.here().list() if not job.ended and job.folder == run.path.resolve()), None)
    return f"Job {job.id[:6]} for it is {job.state}; the page Train shows it." if job else None


# --- once more ---------------------------------------------------------------------------------------


def command(words: Sequence[object], name: str, root: Path) -> str:
    """The command of a run, ready to be pasted: where it names the folder or run that it made, a free name in `root` stands in its place."""
    typed = [str(word) for word in words]
    free = next(f"{name}-{number}" for number in range(2, 10_000) if not (root / f"{name}-{number}").exists())
    return shlex.join(_renamed(typed, {"--out": str(root / free), "--as": free, "--runs": str(root)} if typed[:1] == ["interplay"] else {}))


def _renamed(words: Sequence[str], values: dict[str, str]) -> list[str]:
    """The words with other values of these flags, in either spelling."""
    made = list(words)
    for place, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        if flag in values and equals:
            made[place] = f"{flag}={values[flag]}"
        elif word in values and place + 1 < len(words):
            made[place + 1] = values[word]
    return made
