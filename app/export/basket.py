"""The basket: figures that were put aside on any page, to be exported together. It belongs to the session; the Export page keeps it in its link."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import streamlit as st

from app.export import wanted
from app.export.wanted import Item as Item

_HELD, _LINK = "_basket", "basket"
_NUMBERS = itertools.count(1)


def items() -> list[Item]:
    """What lies in this session's basket, in its order."""
    return list(held().values())


def held() -> dict[int, Item]:
    """The same by number; a figure keeps its number when it is moved or changed."""
    found: dict[int, Item] = st.session_state.setdefault(_HELD, {})
    return found


def offer(item: Item, key: str) -> None:
    """A small button that puts the figure into the basket, or takes it out again."""
    inside = item in items()
    st.button(
        f"In the basket ({len(held())})" if inside else "To the basket",
        icon=":material/bookmark_added:" if inside else ":material/bookmark_add:",
        key=f"basket-{key}",
        type="tertiary",
        help="figures in the basket are exported on the Export page",
        on_click=_turn,
        args=(item,),
    )


def put(item: Item) -> bool:
    """False if it is there already, or if there is no room."""
    if item in items() or len(held()) >= wanted.MOST:
        return False
    held()[next(_NUMBERS)] = item
    return True


def _turn(item: Item) -> None:
    """In if it is out, out if it is in."""
    if not put(item):
        for number in [number for number, one in held().items() if one == item]:
            remove(number)


def remove(number: int) -> None:
    held().pop(number, None)


def clear() -> None:
    held().clear()


def move(number: int, places: int) -> None:
    """Up (negative) or down in the order."""
    order = list(held())
    place = order.index(number)
    order.insert(min(max(place + places, 0), len(order) - 1), order.pop(place))
    st.session_state[_HELD] = {one: held()[one] for one in order}


def change(number: int, **what: Any) -> None:
    """Other settings, width or height for one figure."""
    held()[number] = replace(held()[number], **what)


def follow_link() -> list[str]:
    """Take over the basket that the link names, unless this session wrote it; returns what could not be taken over."""
    link = st.query_params.get(_LINK, "")
    if not link or link == st.session_state.get("_basket_link"):
        return []
    found, notes = wanted.decode(link)
    st.session_state[_HELD] = {next(_NUMBERS): item for item in found}
    return notes


def keep_in_link() -> None:
    """Make the link say what lies in the basket."""
    link = wanted.encode(items()) if held() else ""
    st.session_state["_basket_link"] = link
    if not link:
        st.query_params.pop(_LINK, None)
    elif st.query_params.get(_LINK) != link:
        st.query_params[_LINK] = link
