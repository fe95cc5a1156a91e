"""How series are told apart, the same on screen and on paper: a colour, and a second channel that each renderer has its own words for.

Colours are Paul Tol's bright scheme, safe for colour-blind eyes on light and dark ground. A role looks the same in every figure.
"""

from __future__ import annotations

from collections.abc import Sequence

COLOURS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE")
_ROLES = {"policy": 0, "reward": 1, "value": 2, "reward model": 1, "value model": 2}
#: Series that are no role: those that share no colour with reward and value model first.
_OTHERS = (0, 3, 4, 5, 1, 2)


def style(series: object, order: Sequence[object]) -> int:
    """Number of a series' style: that of its role, or the next one in the order of the figure; from the seventh on they repeat."""
    return _ROLES[str(series)] if str(series) in _ROLES else _OTHERS[order.index(series) % len(_OTHERS)]
