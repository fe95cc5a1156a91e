"""The link that opens one figure with its settings on the Interplay page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis import recipes
from analysis.recipes import Setting
from app.export import wanted
from app.interplay import explorer
from app.parts import controls


def of(figure: str, names: Sequence[str], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands behind the question mark: the view of any figure, these runs and comparisons, and the settings as their controls write them."""
    prefix, known = explorer.View(explorer.OTHERS, "", (figure,)).prefix, recipes.settings(figure)
    chosen = [(_key(prefix, name), word) for name, value in settings.items() for word in _words(known[name], value)]
    return [("view", explorer.OTHERS), ("figure", figure), *(("runs", name) for name in names), *chosen]


def _key(prefix: str, name: str) -> str:
    """As `controls.of` calls it; one role is chosen where several are."""
    return name if name in controls.SHARED else f"{prefix}-{'roles' if name == 'role' else name}"


def _words(one: Setting, value: Any) -> list[str]:
    if one.many and one.choices:
        return [str(word) for word in value]
    listed = one.choices or one.name in recipes.PARTS
    return [controls.WORDS.get(value, str(value)) if listed and one.kind is not bool else wanted.word_of(value)]
