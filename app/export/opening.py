"""Open a figure, on the Export page: files that were drawn earlier, led back to their runs, compared with what those give now, and put into the basket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from app.export import back, basket, inside, lines, wanted
from app.export.back import Finding, Here, Origin
from app.export.lines import Line
from app.interplay import address
from app.parts import widgets
from app.reading import naming
from interplay import compare
from interplay.errors import DataError
from interplay.records import STREAMS

_PAGE = Path(__file__).parents[1] / "pages" / "interplay.py"
_MOST_TOLD = 6  # runs that are named
#: What is said of a figure, beside the sentence that explains it.
_LOOKS: dict[str, tuple[str, str, Any]] = {
    "same": ("same rows", ":material/check_circle:", "green"),
    "changed": ("other rows", ":material/difference:", "orange"),
    "gone": ("not here", ":material/search_off:", "red"),
    "unknown": ("not known", ":material/help:", "red"),
    "anonymous": ("names hidden", ":material/visibility_off:", "gray"),
    "foreign": ("not ours", ":material/block:", "gray"),
    "bare": ("numbers only", ":material/csv:", "gray"),
}
_WHAT = (
    "Files that Interplay drew say which runs they show. The runs here are drawn again and compared with them. A file stays in this session's memory; "
    "larger ones: `interplay figure --about FILE --runs DIR`."
)


def figures() -> None:
    """Files from the browser's machine, and what became of each figure in them."""
    with st.expander("Open a figure", icon=":material/upload_file:", key="opening"):
        st.caption(_WHAT)
        files = st.file_uploader("Files of figures", [*lines.KINDS, inside.ROWS], accept_multiple_files=True, key="opened", label_visibility="collapsed")
        found = [(file, line) for file in files for line in _lines(file)]
        for file, line in found[: wanted.MOST]:
            _one(file, line)
        if len(found) > wanted.MOST:
            st.caption(f"{len(found) - wanted.MOST} more are not shown: a basket holds {wanted.MOST} figures.")


def _lines(file: UploadedFile) -> list[Line | DataError]:
    """Read once for each file."""
    return cast(list[Line | DataError], widgets.memo(f"opened {file.file_id}", (), lambda: _read(file)))


def _read(file: UploadedFile) -> Sequence[Line | DataError]:
    try:
        return lines.of(file.name, file.getvalue())
    except DataError as reason:
        return [reason]


def _one(file: UploadedFile, line: Line | DataError) -> None:
    """One figure, or the reason why it is none."""
    try:
        if isinstance(line, DataError):
            raise line
        origin = back.read(line)
    except DataError as reason:
        with st.container(border=True, gap="xsmall"):
            st.markdown(f"**{widgets.escape(file.name)}**")
            _said("bare" if file.name.lower().endswith(f".{inside.ROWS}") else "foreign", str(reason))
        return
    with st.container(border=True, gap="xsmall"):
        _origin(file.name, origin, f"{file.file_id}-{origin.file}")


def _origin(file: str, origin: Origin, key: str) -> None:
    """Title, outcome and what the file says of itself, with ways to draw it again."""
    here = back.located(origin, wanted.expand)
    found = _compared(origin, here) if isinstance(here, Here) else here
    st.markdown(f"**{widgets.escape(found.title or re.sub('[_-]', ' ', origin.figure).capitalize())}**")
    _said(found.outcome, f"{found.words[:1].upper()}{found.words[1:]}")
    st.caption(widgets.escape(_words(file, origin)))
    if isinstance(here, Here):
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            item = basket.Item.of(here.item.figure, here.recordings, here.item.chosen())
            basket.offer(replace(item, width=here.item.width, height=here.item.height), f"opened-{key}")
            link = address.of(here.item.figure, _names(here.item.runs), here.item.chosen())
            st.page_link(_PAGE, label="Open on the Interplay page", icon=":material/compare_arrows:", query_params=link)


def _compared(origin: Origin, here: Here) -> Finding:
    """Anew when a file of its runs has changed."""
    versions = tuple(one.version(STREAMS) for one in here.recordings)
    return cast(Finding, widgets.memo(f"back {origin}", versions, lambda: back.compared(origin, here)))


def _said(outcome: str, words: str) -> None:
    """A word with its sign, and the sentence."""
    word, icon, colour = _LOOKS[outcome]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(word, icon=icon, color=colour)
        st.text(words if words.endswith("?") else f"{words}.")


def _words(file: str, origin: Origin) -> str:
    """`paths.pdf: trajectories of first, second. n = 240. Recorded at commit 5c9e102fddc6. Drawn by Interplay 0.9.0. Rows 12ab34cd.`"""
    place = file if origin.file == file else f"{file}, {origin.file}"
    commit = f" Recorded at commit {origin.commit[:12]}." if origin.commit else ""
    settings = "".join(f", {name}={value}" for name, value in origin.settings)
    runs = ", ".join(origin.runs[:_MOST_TOLD]) + (f" and {len(origin.runs) - _MOST_TOLD} more" if len(origin.runs) > _MOST_TOLD else "")
    return f"{place}: {origin.figure} of {runs}{settings}. n = {origin.n}.{commit} Drawn by Interplay {origin.version}. SHA-256 of its rows {origin.rows[:12]}…"


def _names(words: Sequence[str]) -> list[str]:
    """Runs and comparisons as the Interplay page calls them."""
    return [naming.name_of(place) for word in words for place in (naming.places(word, compare.PLAN) or naming.places(word))[:1]]
