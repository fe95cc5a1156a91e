"""A text with marked stretches, set as text nodes in the browser: no letter of it can become markup, whatever it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

from analysis.wording import Piece

#: How a stretch is marked: struck out, underlined, or dotted below; never by colour alone.
Mark = Literal["del", "ins", "mark"]

_HTML = '<div class="interplay-marked" dir="auto"></div>'
_CSS = """
.interplay-marked { white-space: pre-wrap; overflow-wrap: anywhere; color: var(--st-text-color); }
.interplay-marked :is(del, ins, mark) { color: inherit; border-radius: 2px; text-decoration-thickness: 1.5px; text-underline-offset: 3px; }
.interplay-marked del { text-decoration-line: line-through; background: color-mix(in srgb, #EE6677 18%, transparent); }
.interplay-marked ins { text-decoration-line: underline; background: color-mix(in srgb, #228833 18%, transparent); }
.interplay-marked mark { text-decoration: underline dotted; background: color-mix(in srgb, #4477AA 20%, transparent); }
"""
_JS = """
const ELEMENTS = ["del", "ins", "mark"];

export default function ({ data, parentElement }) {
  const place = parentElement.querySelector(".interplay-marked");
  place.replaceChildren(...data.pieces.map(([text, own]) => {
    if (!own || !ELEMENTS.includes(data.mark)) return document.createTextNode(text);
    const element = document.createElement(data.mark);
    element.textContent = text;
    return element;
  }));
}
"""


def show(pieces: Sequence[Piece], mark: Mark, key: str) -> None:
    """The text that the pieces make together, those of its own marked."""
    data: dict[str, Any] = {"pieces": [[piece.text, piece.own] for piece in pieces], "mark": mark}
    st.components.v2.component("interplay_marked", html=_HTML, css=_CSS, js=_JS)(data=data, key=key, height="content", width="stretch")
