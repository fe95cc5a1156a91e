"""How series are told apart, the same on screen and on paper: a colour, and dash and marker as second channel, in each renderer's own words.

Colours are Paul Tol's bright scheme, safe for colour-blind eyes on light and dark ground. A role looks the same in every figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Dash = TypeVar("Dash")
Marker = TypeVar("Marker")

COLOURS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")
_ROLES = {"policy": 0, "reward": 1, "value": 2, "reward model": 1, "value model": 2}
#: Series that are no role: those that share no colour with reward and value model first.
_OTHERS = (0, 3, 4, 5, 1, 2)


def looks(dashes: Sequence[Dash], markers: Sequence[Marker]) -> tuple[tuple[str, Dash, Marker], ...]:
    """Colour, dash and marker of each style, by number: no two share colour and dash, or colour and marker.

    Each further round through the colours begins the dashes one later and the markers one earlier, so that lines without markers, and
    markers without lines, are told apart too; in grey, by dash and marker, half of all are.
    """
    count = len(COLOURS)
    return tuple((COLOURS[at], dashes[(at + turn) % count], markers[(at - turn) % count]) for turn in range(count) for at in range(count))


def style(series: object, order: Sequence[object]) -> int:
    """Number of a series' style: that of its role, also where more stands behind a colon, or the next in the order of the figure, round after round."""
    role = str(series).partition(": ")[0]
    if role in _ROLES:
        return _ROLES[role]
    turn, at = divmod(order.index(series), len(_OTHERS))
    return turn % len(COLOURS) * len(COLOURS) + _OTHERS[at]
