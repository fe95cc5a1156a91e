"""A figure that somebody wants: its name, its runs and its settings, as text in a link or a file, and found again among the runs here.

Links come from anywhere: runs are names that are looked up in the folders shown, never paths, and what is not known is refused with its reason.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis import recipes
from analysis.venues import WIDTHS
from app.reading import loading, naming, recorded
from app.reading.recorded import Recorded
from interplay import compare
from interplay.errors import ConfigError, InterplayError, StoreError, allowed, nearest

#: Figures in one basket, and bytes of its JSON: far more than a paper has.
MOST, _MOST_BYTES = 60, 2**18
HEIGHTS = (0.5, 20.0)


@dataclass(frozen=True)
class Item:
    """A figure by its name, the names of its runs, and its settings as they are typed. Width "" is that of the whole bundle, height 0 what suits."""

    figure: str
    runs: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()
    width: str = field(default="", compare=False)
    height: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, name: str, recordings: Sequence[Recorded], settings: Mapping[str, Any]) -> Item:
        return cls(name, tuple(naming.name_of(one.path) for one in recordings), typed(name, settings))

    def chosen(self) -> dict[str, Any]:
        """The settings as the figure takes them. Raises `ConfigError`."""
        return recipes.read_settings(self.figure, dict(self.settings))

    def recordings(self) -> list[Recorded]:
        """Raises `StoreError` for a run that is not here."""
        return recorded.apart([look_up(name) for name in self.runs])

    def to_json(self) -> dict[str, Any]:
        return {"figure": self.figure, "runs": list(self.runs), "settings": dict(self.settings), "width": self.width, "height": self.height}

    @classmethod
    def from_json(cls, raw: Any) -> Item:
        """Checked, but for its runs. Raises `ConfigError`."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("runs"), list) or not isinstance(raw.get("settings", {}), Mapping):
            raise ConfigError("an entry has not the form of a figure: it needs figure, runs and settings")
        name = recipes.find(str(raw.get("figure")))
        settings = {str(key): str(value) for key, value in raw.get("settings", {}).items()}
        recipes.read_settings(name, settings)
        runs = tuple(str(run) for run in raw["runs"])
        return cls(name, runs, tuple(sorted(settings.items())), _width(raw.get("width") or ""), _height(raw.get("height") or 0))


def _width(word: Any) -> str:
    if word not in ("", *WIDTHS):
        raise ConfigError(f"width is {word!r}; allowed: {allowed(WIDTHS)}")
    return str(word)


def _height(value: Any) -> float:
    low, high = HEIGHTS
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or low <= value <= high):
        raise ConfigError(f"height is {value!r}; it must be between {low} and {high:.0f} inches")
    return float(value)


# --- settings ----------------------------------------------------------------------------------


def typed(name: str, settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings as words for `--set`, sorted; those that are the figure's own choice are left out."""
    known = recipes.settings(name)
    words = {key: word_of(value) for key, value in settings.items() if value is not None}
    usual = {key: word_of(one.default) for key, one in known.items()}
    return tuple(sorted((key, word) for key, word in words.items() if word and word != usual.get(key)))


def word_of(value: Any) -> str:
    """As it is typed: several with commas between, `true`, `false`; none is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)


# --- runs by name ------------------------------------------------------------------------------


def choices(*, many: bool) -> list[str]:
    """Names of all runs that are shown, rows of comparisons among them; with `many` first those of comparisons."""
    folders = [path.parent for root in loading.roots() for path in sorted(root.glob(f"*/{compare.PLAN}"))]
    rows = [naming.name_of(folder / row) for folder in folders for row in recorded.rows(folder)]
    runs = [naming.name_of(summary.path) for summary in loading.summaries() if summary.state != "unreadable"]
    return [*([naming.name_of(folder) for folder in folders] if many else []), *runs, *rows]


def expand(name: str) -> list[Recorded]:
    """A run, or the finished rows of a comparison. Raises `StoreError`."""
    found = naming.places(name, compare.PLAN)
    return recorded.of_comparison(found[0]) if found else [look_up(name)]


def look_up(name: str) -> Recorded:
    """The run of that name in the folders that are shown, or in a comparison there. Raises `StoreError`."""
    found = naming.places(name)
    if not found:
        known = [summary.run for summary in loading.summaries()]
        raise StoreError(f"there is no run {name!r} here{nearest(name, known)}")
    return recorded.at(found[0])


# --- in a link ---------------------------------------------------------------------------------


def encode(items: Iterable[Item]) -> str:
    """Letters, digits, dashes and underscores that `decode` reads."""
    text = json.dumps([item.to_json() for item in items], separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def decode(text: str) -> tuple[list[Item], list[str]]:
    """The figures of a link that can be drawn here, and one line for each that cannot."""
    try:
        raw = json.loads(_unpacked(text))
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        raw = None
    if not isinstance(raw, list):
        return [], ["The basket in the link is damaged and was left out."]
    found, notes = [], [f"A basket holds {MOST} figures; the link has {len(raw)}."] if len(raw) > MOST else []
    for number, entry in enumerate(raw[:MOST], 1):
        try:
            found.append(_checked(entry))
        except InterplayError as reason:
            notes.append(f"Figure {number} of the link was left out: {reason}.")
    return found, notes


def _unpacked(text: str) -> bytes:
    """At most so many bytes, whatever was packed. Raises `ValueError`."""
    reader = zlib.decompressobj()
    packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    found = reader.decompress(packed, _MOST_BYTES)
    if reader.unconsumed_tail:
        raise ValueError("too large")
    return found


def _checked(raw: Any) -> Item:
    item = Item.from_json(raw)
    item.recordings()
    return item
