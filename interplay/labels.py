"""Tags and a note that people put on a run: `labels.json` in its folder, the one file there that training neither reads nor writes.

It needs no writer lock: it appears whole by renaming, and the last writer wins. Changes are applied to what is on disk, so that a tag
that another tab has just added stays. What is damaged is said and left as it is: nothing that somebody wrote is lost by writing over it.
"""

from __future__ import annotations

import functools
import os
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interplay import disk
from interplay.errors import ConfigError, StoreError

FILE = "labels.json"
LONGEST_TAG, MOST_TAGS, LONGEST_NOTE = 40, 20, 2_000
_MOST_BYTES = 64 * 2**10
_JOINERS = "\u200c\u200d"  # invisible, but they hold Persian words and some emoji together
_CHANGING = threading.Lock()  # two tabs are two threads of one server


@dataclass(frozen=True)
class Labels:
    """What is written on a run. `problems`: what of the file could not be read, one line each."""

    tags: tuple[str, ...] = ()
    note: str = ""
    problems: tuple[str, ...] = ()


# --- words -----------------------------------------------------------------------------------------


def as_tag(text: object, name: str = "tag") -> str:
    """A tag as it is kept. Raises `ConfigError` that says what a tag is."""
    tag = unicodedata.normalize("NFC", text.strip()) if isinstance(text, str) else ""
    if not 0 < len(tag) <= LONGEST_TAG or not tag.isprintable() or "," in tag:
        raise ConfigError(f"{name} is {_brief(text)}; a tag is one line of 1 to {LONGEST_TAG} printable characters without a comma")
    return tag


def as_note(text: object, name: str = "note") -> str:
    """A note as it is kept: what cannot be shown is a blank. Raises `ConfigError` if it is too long, or no text."""
    if not isinstance(text, str):
        raise ConfigError(f"{name} is {_brief(text)}; a note is plain text")
    note = "".join(char if char.isprintable() or char in "\n\t" + _JOINERS else " " for char in text.replace("\r\n", "\n")).strip()
    if len(note) > LONGEST_NOTE:
        raise ConfigError(f"{name} is {len(note):,} characters long; at most {LONGEST_NOTE:,} are kept")
    return note


def _brief(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def same(tag: str) -> str:
    """Two tags for which this is equal are one: `Final` and `final`."""
    return tag.casefold()


def unique(tags: Iterable[str]) -> tuple[str, ...]:
    """Each tag once, as it was first written."""
    found: dict[str, str] = {}
    for tag in tags:
        found.setdefault(same(tag), tag)
    return tuple(found.values())


# --- reading ---------------------------------------------------------------------------------------


def read(run: Path) -> Labels:
    """What is written on the run in this folder; nothing raises. Costs one look at the file while it stays as it is."""
    path = run / FILE
    try:
        found = os.lstat(path)
    except OSError:
        return Labels()
    return _read(path, found.st_mode, found.st_size, found.st_ino, found.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, mode: int, size: int, *_stamp: int) -> Labels:
    """`_stamp` makes an older answer unreachable."""
    try:
        if stat.S_ISREG(mode) and size > _MOST_BYTES:
            raise StoreError(f"{path} is {size:,} bytes large; labels take at most {_MOST_BYTES:,}")
        raw = disk.read_json(path)
    except OSError as error:
        return Labels(problems=(str(error),))
    return _parsed(raw, path)


def _parsed(raw: dict[str, Any], path: Path) -> Labels:
    """What is right of it; the rest is left out and named."""
    problems: list[str] = []

    def taken(make: Callable[[object], str], value: object) -> str:
        try:
            return make(value)
        except ConfigError as error:
            problems.append(f"{path} is damaged: {error}")
            return ""

    written = raw.get("tags", [])
    if not isinstance(written, list):
        problems.append(f"{path} is damaged: tags is a {type(written).__name__}, not a list")
        written = []
    tags = unique(filter(None, [taken(as_tag, tag) for tag in written]))
    if len(tags) > MOST_TAGS:
        problems.append(f"{path} is damaged: it holds {len(tags)} tags; a run has at most {MOST_TAGS}")
    note = taken(as_note, raw.get("note", ""))
    return Labels(tags[:MOST_TAGS], note, tuple(problems[:1]))


# --- changing --------------------------------------------------------------------------------------


def change(run: Path, add: Sequence[str] = (), remove: Sequence[str] = (), note: str | None = None) -> Labels:
    """Take tags off, put tags on, and replace the note if one is given. Returns what is written now.

    Raises `ConfigError` for words that are not allowed, `StoreError` if the file is damaged or the disk refuses; then nothing has changed.
    """
    added, kept_out = [as_tag(tag) for tag in add], {same(tag) for tag in remove}
    text = None if note is None else as_note(note)
    with _CHANGING:
        now = read(run)
        if now.problems:
            raise StoreError(f"{now.problems[0]}; mend or delete that file first")
        tags = unique([*(tag for tag in now.tags if same(tag) not in kept_out), *added])
        if len(tags) > MOST_TAGS:
            raise ConfigError(f"{run.name} would have {len(tags)} tags; a run has at most {MOST_TAGS}, so remove some first")
        new = Labels(tags, now.note if text is None else text)
        if new != now:
            _write(run / FILE, new)
    return new


def _write(path: Path, labels: Labels) -> None:
    with disk.explained(path, "cannot be written"):
        disk.write_json(path, {"tags": list(labels.tags), "note": labels.note})
