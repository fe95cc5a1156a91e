"""What a policy wrote at the chosen moment: as it is, against the first time, or beside another run; always as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from analysis import beside, wording
from app.parts import marked, widgets
from app.replay.replaying import Look, clocks

SPLITS = {"train": "training batch", "heldout": "held-out"}
#: Completions on one page; the held-out prompts of a run may be hundreds.
MOST = 8


def showings(looks: Sequence[Look]) -> tuple[list[str], str, dict[str, str]]:
    """Ways to show completions, their key in the URL, and their names; the usual one first."""
    if len(looks) > 1:
        return ["differences", "plain"], "texts_beside", {"differences": "differences marked", "plain": "as written"}
    return ["plain", "differences"], "texts_as", {"plain": "as written", "differences": "against the first time"}


def show(looks: Sequence[Look], split: str, showing: str) -> None:
    """Completions at the chosen moment: of one run as they are or against the first time, of two beside each other."""
    differences = showing == "differences"
    now = [beside.latest(one.texts(split), clocks().get(one.run, 0)) for one in looks]
    if all(frame.empty for frame in now):
        widgets.nothing("No completion of this kind was recorded up to here.")
        return
    if len(looks) == 1 and not differences:
        widgets.completions(_page(now[0]))
        return
    names = (looks[0].run, looks[1].run) if len(looks) > 1 else ("the first time", "now")
    left, right = (now[0], now[1]) if len(looks) > 1 else (_then(looks[0], split, now[0]), now[0])
    pairs = beside.pairs(left, right)
    if not any(one is not None and other is not None for one, other in pairs):
        st.caption("No prompt of these moments is the same in both. Held-out prompts are the same in all runs of a task.")
    for number, pair in enumerate(_page(pairs)):
        _pair(pair, names, number, ("mark", "mark") if len(looks) > 1 else ("del", "ins"), differences)


def _then(one: Look, split: str, now: pd.DataFrame) -> pd.DataFrame:
    """What was written the first time to the prompts of now."""
    first = one.first_texts(split)
    return first[first["prompt"].isin(set(now["prompt"]))]


def _page(rows: Any) -> Any:
    """A page of many completions."""
    pages = -(-len(rows) // MOST)
    if pages < 2:
        return rows
    page = st.pagination(pages, key="texts", bind="query-params")
    return rows[MOST * (page - 1) : MOST * page]


def _pair(pair: beside.Pair, names: tuple[str, str], number: int, marks: tuple[marked.Mark, marked.Mark], differences: bool) -> None:
    """One prompt with two completions; where it is wanted, the words that only one of them has are marked."""
    known = [row for row in pair if row is not None]
    both = wording.differences(*(str(row["completion"]) for row in known)) if differences and len(known) == 2 else None
    with st.container(border=True, gap="xsmall"):
        st.caption("Prompt")
        st.text(known[0]["prompt"])
        for side, (place, row) in enumerate(zip(st.columns(2, gap="medium"), pair, strict=True)):
            with place:
                _side(row, names[side], both[side] if both else None, marks[side], f"text-{number}-{side}")


def _side(row: pd.Series[Any] | None, name: str, pieces: Sequence[wording.Piece] | None, mark: marked.Mark, key: str) -> None:
    if row is None:
        st.caption(widgets.escape(f"{name}: this prompt was not in the batch"))
        return
    st.caption(widgets.escape(f"{name}, update {row['update']}" + ("" if row["finished"] else ", cut at the token limit")))
    if pieces:
        marked.show(pieces, mark, key)
    else:
        st.text(row["completion"] or "(empty)")
    st.caption(widgets.escape(widgets.scores(row)))
