"""Delete, undo, restore and empty the trash, in Streamlit's words; `trash.py` does it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app.compare.standings import Entry
from app.parts import widgets
from app.queue.job import Job
from app.reading import loading, naming
from app.runs import trash
from app.runs.trash import Thrown
from app.train import launch
from interplay.errors import StoreError
from interplay.store import RunSummary

#: Seconds for which a deletion can be undone with one click; the trash keeps it after that.
UNDO_SECONDS = 600.0


# --- delete ----------------------------------------------------------------------------------------


def delete_button(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    """Ask to delete these; disabled with the reason where one of them must stay."""
    why = next((reason for run in runs if (reason := trash.refusal(run))), None)
    _button("Delete" if len(runs) == 1 else f"Delete {len(runs)} runs", "delete", names, why)


def delete_comparison(comparison: Entry, jobs: Sequence[Job]) -> None:
    """The same for a whole comparison."""
    _button("Delete", "delete-comparison", [comparison.name], trash.refusal_of_comparison(comparison, jobs))


def _button(words: str, what: str, names: Sequence[str], why: str | None) -> None:
    if st.button(words, icon=":material/delete:", key=what, type="tertiary", disabled=bool(why), help=why and widgets.escape(why)):
        st.session_state["_asked"] = (what, list(names))
        st.rerun(scope="app")  # a dialog of the page itself stays open while the list refreshes


def dialogs() -> None:
    """The dialog that was asked for, until it is answered or closed."""
    what, names = st.session_state.get("_asked", ("", []))
    if what == "delete":
        _confirm_delete(names, "Moved to the trash of its folder, from where it can be restored.", _throw)
    elif what == "delete-comparison":
        _confirm_delete(names, "The comparison and all its runs are moved to the trash of its folder, from where they can be restored.", _throw_comparison)
    elif what == "empty":
        _confirm_empty()


def _forget() -> None:
    st.session_state.pop("_asked", None)


@st.dialog("Delete", on_dismiss=_forget)
def _confirm_delete(names: list[str], caption: str, throw: Callable[[Sequence[str]], None]) -> None:
    for name in names[:10]:
        st.text(name)
    if len(names) > 10:
        st.text(f"and {len(names) - 10} more")
    st.caption(caption)
    if st.button("Move to the trash", type="primary", icon=":material/delete:", key="delete-really"):
        _told(lambda: throw(names))


def _throw(names: Sequence[str]) -> None:
    thrown: list[Thrown] = []
    st.session_state["_undo"] = (time.time(), thrown)
    for one in trash.throw(names):  # what is in the trash can be undone, whatever happens to the next one
        thrown.append(one)


def _throw_comparison(names: Sequence[str]) -> None:
    st.session_state["_undo"] = (time.time(), [trash.throw_comparison(name, launch.here().list()) for name in names])


def _told(act: Callable[[], Any]) -> None:
    """Do it and build the page anew; say it where it cannot be done."""
    try:
        act()
    except StoreError as error:
        st.error(widgets.escape(error), icon=":material/error:")
        return
    _forget()
    st.rerun(scope="app")


# --- undo, restore, empty --------------------------------------------------------------------------


def undo_line() -> None:
    """What has just been deleted, with the way back."""
    when, thrown = st.session_state.get("_undo", (0.0, []))
    left = [one for one in thrown if one.path.is_dir()]
    if not left or time.time() - when > UNDO_SECONDS:
        st.session_state.pop("_undo", None)
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.text("In the trash: " + ", ".join(one.run for one in left), width="stretch")
        if st.button("Undo", icon=":material/undo:", key="undo"):
            _told(lambda: [trash.restore(one) for one in left])


def contents() -> None:
    """What lies in the trash, each with Restore, and the button that empties it; nothing where it is empty."""
    thrown = trash.contents()
    if not thrown:
        return
    opened = st.expander(f"Trash ({len(thrown)})", icon=":material/delete:", key="trash", bind="query-params")
    if not opened.open:
        return
    with opened:
        for one in thrown[:50]:
            _line(one)
        if len(thrown) > 50:
            st.caption(f"The latest 50 of {len(thrown)}.")
        if st.button(f"Empty the trash ({_size(thrown)})", icon=":material/delete_forever:", key="empty", disabled=loading.exposed()):
            st.session_state["_asked"] = ("empty", [])
            st.rerun(scope="app")


def _line(one: Thrown) -> None:
    root = naming.root_names()[one.root]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(one.run, width="stretch")
        st.text(f"{one.kind} from {root}, {widgets.ago(time.time() - one.when.timestamp())} ago, {_size([one])}")
        if st.button("Restore", icon=":material/restore_from_trash:", key=f"restore-{root}-{one.id}", disabled=loading.exposed()):
            _told(lambda: trash.restore(trash.find(one.id, root)))


@st.dialog("Empty the trash", on_dismiss=_forget)
def _confirm_empty() -> None:
    thrown = trash.contents()
    st.text(f"{_count(thrown)}, {_size(thrown)}. This cannot be undone.")
    if st.button("Delete for good", type="primary", icon=":material/delete_forever:", key="empty-really"):
        _told(lambda: trash.empty(thrown))


def _count(thrown: Sequence[Thrown]) -> str:
    """`2 runs and 1 comparison`."""
    kinds = Counter(one.kind for one in thrown)
    return " and ".join(f"{kinds[kind]} {kind}{'s' if kinds[kind] > 1 else ''}" for kind in ("run", "comparison") if kinds[kind])


def _size(thrown: Sequence[Thrown]) -> str:
    taken = trash.nbytes(thrown)
    return f"{taken / 2**20:.1f} MiB" if taken >= 2**20 else f"{taken / 2**10:.0f} KiB"
