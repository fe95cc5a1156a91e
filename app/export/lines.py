"""The lines that lead back from files to runs: that of one figure, or those of all figures in a zip.

A file may come from anybody. Nothing is unpacked to disk, and of a zip only what is needed: the smallest file of each figure, within a bound.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from app.export import inside
from interplay import disk
from interplay.errors import DataError

#: What a file may be.
KINDS = (*inside.KINDS, "zip")
MOST_BYTES = 128 * 2**20
#: Figures of a zip, as many as a basket holds; its files; bytes of them together, and bytes that are unpacked.
MOST_FIGURES, _MOST_FILES, _MOST_DECLARED, _MOST_UNPACKED = 60, 600, 2**30, 2**26
_ENTRY = b"PK\1\2"  # what each file of a zip is listed with
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Line:
    """What the file of one figure says of itself, and what the zip's list of figures says of it."""

    file: str
    text: str
    listed: Mapping[str, Any] = field(default_factory=dict)
    anonymous: bool = False


def content_of(path: Path) -> bytes:
    """A file of a size that is read at all. Raises `StoreError`, `DataError`."""
    with disk.explained(path, "cannot be read"):
        _bounded(path.name, path.stat().st_size)
        return path.read_bytes()


def of(name: str, content: bytes) -> list[Line]:
    """One line, or one for each figure of a zip. Raises `DataError` where there is none."""
    _bounded(name, len(content))
    return _of_zip(name, content) if name.lower().endswith(".zip") else [Line(name, inside.about(name, content))]


def _bounded(name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{name} has {size / 2**20:.0f} MiB; files of figures are read up to {MOST_BYTES / 2**20:.0f}")


# --- many figures ------------------------------------------------------------------------------


def _of_zip(name: str, content: bytes) -> list[Line]:
    if content.count(_ENTRY) > _MOST_FILES:  # before the list is read, which may be as long as the file
        raise DataError(f"{name} lists more than {_MOST_FILES} files; unpack it and give a file of a figure")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = _lines(_Opened(name, archive))
    except DataError:
        raise
    except _BROKEN as reason:
        raise DataError(f"{name} cannot be read as a zip ({type(reason).__name__}); give one that Interplay wrote, as it was") from reason
    if not found:
        raise DataError(f"{name} holds no figure that Interplay drew; give one that `interplay figure --out FILE.zip` wrote")
    return found


@dataclass
class _Opened:
    """A zip and what may still be unpacked of it."""

    name: str
    archive: zipfile.ZipFile
    left: int = _MOST_UNPACKED

    def __post_init__(self) -> None:
        if sum(entry.file_size for entry in self.archive.infolist()) > _MOST_DECLARED:
            raise DataError(f"{self.name} would unpack to more than {_MOST_DECLARED / 2**20:.0f} MiB, so it was not opened")

    def read(self, entry: zipfile.ZipInfo) -> bytes:
        """No more than it says it has, and than is left; other ways of packing than ours may ask for any amount of memory. Raises `DataError`."""
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{self.name} is packed in another way than Interplay does; give it as it was written")
        self.left -= entry.file_size
        if self.left < 0:
            raise DataError(f"{self.name} would unpack to more than {_MOST_UNPACKED / 2**20:.0f} MiB of figures, so it was not opened")
        with self.archive.open(entry) as stream:
            return stream.read(entry.file_size + 1)


def _lines(opened: _Opened) -> list[Line]:
    """One for each figure, in the order of the list in the zip, those that it does not name last."""
    listed, anonymous = _manifest(opened)
    found = {stem: line for stem, entries in _by_figure(opened.archive.infolist()).items() if (line := _first(opened, entries))}
    if len(found) > MOST_FIGURES:
        raise DataError(f"{opened.name} holds {len(found)} figures; a basket has {MOST_FIGURES}: unpack it and give some of them")
    order = [stem for stem in listed if stem in found]
    return [Line(stem, found[stem], listed.get(stem, {}), anonymous) for stem in [*order, *(stem for stem in found if stem not in order)]]


def _by_figure(entries: Iterable[zipfile.ZipInfo]) -> dict[str, list[zipfile.ZipInfo]]:
    """Files that carry a line by the name of their figure, the smallest first: all of a figure carry the same."""
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for entry in sorted(entries, key=lambda entry: entry.file_size):
        place = PurePosixPath(entry.filename)
        if place.suffix.lower().lstrip(".") in inside.KINDS:
            found.setdefault(_shown(place.stem), []).append(entry)
    return {stem: found[stem] for stem in sorted(found)}


def _shown(stem: str) -> str:
    """A name within a zip may be anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in stem)[:100]


def _first(opened: _Opened, entries: Sequence[zipfile.ZipInfo]) -> str:
    """The line of the first file that has one; empty if there is none."""
    for entry in entries:
        content = opened.read(entry)
        with contextlib.suppress(DataError):
            return inside.about(entry.filename, content)
    return ""


def _manifest(opened: _Opened) -> tuple[dict[str, Mapping[str, Any]], bool]:
    """What the zip says of its figures by their names, and whether names are hidden in it; nothing if that cannot be read."""
    entry = next((entry for entry in opened.archive.infolist() if PurePosixPath(entry.filename).name == "manifest.json"), None)
    if entry is None or entry.file_size > 2**20:
        return {}, False
    content = opened.read(entry)
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        return {}, False
    figures = raw.get("figures") if isinstance(raw, dict) else None
    listed: dict[str, Mapping[str, Any]] = {_shown(str(one.get("file"))): one for one in figures if isinstance(one, dict)} if isinstance(figures, list) else {}
    return listed, isinstance(raw, dict) and raw.get("anonymous") is True
