"""Tags and the note of runs on the page: shown as text, changed at once, by everybody who may; `interplay.labels` keeps them.

A control holds what is on disk, whoever wrote it; what is done with it goes to disk as a difference, so that tabs do not undo each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.parts import widgets
from app.reading import loading
from interplay import labels
from interplay.errors import ConfigError, StoreError
from interplay.store import RunSummary

#: Faults of one change to several runs that are said, one line each.
MOST_FAULTS = 3
_FAULT, _CHANGED = "_labels-fault", "_labels-changed"


def refusal(run: RunSummary) -> str | None:
    """Why nothing can be written on this run, in one line; None if it can."""
    if loading.exposed():
        return "This server can be reached from other machines and has no login, so tags and notes are only shown."
    if run.path.resolve().is_relative_to(loading.RECORDINGS.resolve()):
        return f"{run.run} came with the project (data/recordings), so it stays as it is."
    return None


def settle() -> None:
    """After a change of tags the whole page is built anew: filters and choices stand outside of the list."""
    if st.session_state.pop(_CHANGED, False):
        st.rerun(scope="app")


# --- one run ---------------------------------------------------------------------------------------


def of_one(run: RunSummary, known: Sequence[str], prefix: str) -> None:
    """Tags and note of one run; `known` are the tags of all runs."""
    why = refusal(run)
    told = widgets.escape(why) if why else None
    tags = _follow(f"{prefix}tags-{run.path}", list(run.tags))
    note = _follow(f"{prefix}note-{run.path}", run.note)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        st.multiselect(
            "Tags",
            labels.unique([*known, *run.tags]),
            key=tags,
            accept_new_options=True,
            max_selections=labels.MOST_TAGS,
            select_all=False,
            placeholder="no tags" if why else "Choose or type a tag",
            disabled=bool(why),
            help=told,
            wrap=True,
            on_change=_retag,
            args=(run, tags),
        )
    with right:
        st.text_area(
            "Note",
            key=note,
            height="content",
            max_chars=labels.LONGEST_NOTE,
            placeholder="no note" if why else "What this run was for, what came of it",
            disabled=bool(why),
            help=told,
            on_change=_write,
            args=(run, note),
        )
    _say(tags, note)


def _follow(key: str, value: Any) -> str:
    """Let the control of this key hold what is on disk, also when another tab has changed that; returns the key."""
    if key not in st.session_state or st.session_state.get(f"_was-{key}") != value:
        st.session_state[key] = st.session_state[f"_was-{key}"] = value
    return key


def _retag(run: RunSummary, key: str) -> None:
    was, now = st.session_state.pop(f"_was-{key}", []), st.session_state[key]
    _apply([run], key, add=[tag for tag in now if tag not in was], remove=[tag for tag in was if tag not in now])


def _write(run: RunSummary, key: str) -> None:
    _apply([run], key, note=st.session_state[key])


# --- several runs ----------------------------------------------------------------------------------


def of_several(runs: Sequence[RunSummary], known: Sequence[str], prefix: str) -> None:
    """A button that opens into: one tag on all of these runs, or off all of them."""
    why = next((reason for run in runs if (reason := refusal(run))), None)
    counts = Counter(labels.same(tag) for run in runs for tag in run.tags)
    own = sorted(labels.unique(tag for run in runs for tag in run.tags), key=labels.same)
    with st.popover("Tags", icon=":material/sell:", type="tertiary", disabled=bool(why), help=why and widgets.escape(why), key=f"{prefix}tags-of-several"):
        on, off = f"{prefix}tag-all", f"{prefix}untag-all"
        st.selectbox(
            f"Add to all {len(runs)}",
            labels.unique([*known, *own]),
            index=None,
            key=on,
            accept_new_options=True,
            placeholder="Choose or type a tag",
            on_change=_tag_all,
            args=(runs, on),
        )
        st.selectbox(
            "Remove from all",
            own,
            index=None,
            key=off,
            placeholder="Choose a tag",
            format_func=lambda tag: f"{tag} (on {counts[labels.same(tag)]} of {len(runs)})",
            on_change=_untag_all,
            args=(runs, off),
        )
        _say(on, off)


def _tag_all(runs: Sequence[RunSummary], key: str) -> None:
    if tag := _taken(key):
        _apply(runs, key, add=[tag])


def _untag_all(runs: Sequence[RunSummary], key: str) -> None:
    if tag := _taken(key):
        _apply(runs, key, remove=[tag])


def _taken(key: str) -> str | None:
    """What was chosen; the control is empty again."""
    chosen: str | None = st.session_state[key]
    st.session_state[key] = None
    return chosen


# --- to disk ---------------------------------------------------------------------------------------


def _apply(runs: Sequence[RunSummary], key: str, **change: Any) -> None:
    """Change all of these that can be changed; what cannot is said beside the control. A disabled control is refused here, too."""
    st.session_state[_FAULT] = (key, [reason for run in runs if (reason := _changed(run, change))])
    st.session_state[_CHANGED] = "note" not in change


def _changed(run: RunSummary, change: dict[str, Any]) -> str | None:
    """Change one run; why not, if it cannot be."""
    if why := refusal(run):
        return why
    try:
        labels.change(run.path, **change)
    except (ConfigError, StoreError) as error:
        return str(error)
    return None


def _say(*keys: str) -> None:
    """What was wrong with the last change, if it was made with one of these controls."""
    key, faults = st.session_state.get(_FAULT, ("", []))
    for fault in list(dict.fromkeys(faults if key in keys else []))[:MOST_FAULTS]:
        st.error(widgets.escape(fault), icon=":material/error:")
