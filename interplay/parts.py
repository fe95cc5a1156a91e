"""The part files of one stream. A name says which rows it holds, so the listing of a folder is its manifest.

`a001-0000000000-0000000050-1a2b3c4d.parquet` holds rows 0 to 49 of attempt 1, and the CRC-32 of all its
bytes. Parts follow one another without gaps. A merged part covers the rows of its sources: its rename is
the whole commit, what it covers is ignored from that moment and then deleted. A rewind starts a new
attempt; `attempts.json` tells at which row, and one rename of that file commits it for all streams.
Readers take no lock. Not here: what a run is (store.py), what is in a file (parquet.py).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from interplay import disk, parquet
from interplay.errors import StoreError

ATTEMPTS = "attempts.json"
SUPERSEDED = "superseded"
_NAME = re.compile(r"a(\d{3,9})-(\d{10,15})-(\d{10,15})-([0-9a-f]{8})\.parquet", re.ASCII)
_TRIES = 50  # listings until one is found that no merge or rewind tore
_CHECKED = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True))

#: What is known about files: identity on disk -> why it is damaged, or None. Shared, because pages open a run at every refresh.
_verdicts: dict[tuple[str, int, int, int], str | None] = {}


@dataclass(frozen=True, order=True)
class Part:
    """Rows `first` to `stop - 1` of a stream."""

    first: int
    stop: int
    attempt: int
    crc: int
    path: Path

    @property
    def rows(self) -> int:
        return self.stop - self.first

    @classmethod
    def of(cls, path: Path) -> Part | None:
        """The part that a file name describes; None for anybody else's file."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        attempt, first, stop = (int(text) for text in match.groups()[:3])
        return cls(first, stop, attempt, int(match[4], 16), path) if stop > first else None


@dataclass(frozen=True)
class Attempt:
    """A rewind: from row `cut[stream]` on, only parts of this or a later attempt count."""

    attempt: int
    clock: int
    cut: dict[str, int]


@dataclass(frozen=True)
class View:
    """What a stream holds at one moment."""

    attempt: int
    parts: tuple[Part, ...]  # readable, in order, no row twice
    covered: tuple[Path, ...]  # rows of theirs are in `parts`; a merge was cut short
    stale: tuple[Path, ...]  # of an older or of an uncommitted attempt
    stop: int  # rows ever numbered, those of damaged parts included
    problems: tuple[str, ...]


def read_attempts(run: Path) -> tuple[Attempt, ...]:
    """The rewinds of a run, oldest first. Raises `StoreError` if the file is damaged."""
    try:
        raw = disk.read_json(run / ATTEMPTS)
    except FileNotFoundError:
        return ()
    try:
        return tuple(Attempt(int(a["attempt"]), int(a["clock"]), {str(s): int(row) for s, row in a["cut"].items()}) for a in raw["attempts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{run / ATTEMPTS} is damaged: it does not list attempts; restore it from a copy of the run") from error


def write_attempts(run: Path, attempts: Iterable[Attempt]) -> None:
    disk.write_json(run / ATTEMPTS, {"attempts": [{"attempt": a.attempt, "clock": a.clock, "cut": a.cut} for a in attempts]})


class Parts:
    """The parts of one stream of one run. Reading needs no lock; the writing half assumes that the caller holds it."""

    def __init__(self, run: Path, stream: str, schema: pa.Schema) -> None:
        self.run, self.stream, self.schema = run, stream, schema
        self.folder = run / stream
        self.live: list[Part] = []  # the writer's own view; see `load`
        self.stop = 0

    # --- reading -----------------------------------------------------------------------------------

    def view(self) -> View:
        """A consistent view, found by listing again until nothing vanished in between."""
        for attempt in range(_TRIES):
            time.sleep(min(attempt, 10) * 0.002)
            attempts, before, names = read_attempts(self.run), set(self._names()), self._names()
            if before <= set(names) and read_attempts(self.run) == attempts:
                try:
                    return self._resolve(names, attempts)
                except FileNotFoundError:
                    continue
        raise StoreError(f"{self.folder} changes faster than it can be read; try again in a moment")

    def _names(self) -> list[str]:
        if self.folder.is_symlink():
            raise StoreError(f"{self.folder} is a symbolic link, which a run folder may not hold")
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be read: {error.strerror}") from error

    def _resolve(self, names: Iterable[str], attempts: Sequence[Attempt]) -> View:
        """Which files count: of the right attempt, undamaged, and not covered by a merged part."""
        current = attempts[-1].attempt if attempts else 1
        parts = [part for part in (Part.of(self.folder / name) for name in names) if part is not None]
        valid = [part for part in parts if part.attempt <= current and not _superseded(part, self.stream, attempts)]
        faults = {part: fault for part in valid if (fault := _fault(part)) is not None}
        live, covered, gaps = _chain([part for part in valid if part not in faults], faults)
        problems = [f"{self.stream}/{part.path.name}: {fault}; its rows {part.first} to {part.stop - 1} are left out" for part, fault in faults.items()]
        lost = [gap for gap in gaps if not any(part.first <= gap[0] and gap[1] <= part.stop for part in faults)]
        problems += [f"{self.stream}: rows {first} to {stop - 1} are missing (a part file was removed)" for first, stop in lost]
        valid_set = set(valid)
        stale = tuple(part.path for part in parts if part not in valid_set)
        return View(current, tuple(live), tuple(covered), stale, max((part.stop for part in valid), default=0), tuple(problems))

    def read(self, start: int = 0, columns: Sequence[str] | None = None, filter: pc.Expression | None = None) -> tuple[pa.Table, View]:
        """Rows from `start` on, and the view that they were taken from."""
        self._check_columns(columns)
        for _ in range(_TRIES):
            view = self.view()
            try:
                return self._scan(view.parts, start, columns, filter), view
            except FileNotFoundError:
                continue  # merged away since the listing
            except (pa.ArrowException, OSError) as error:
                if not self._condemn(view.parts):
                    raise StoreError(f"{self.folder} cannot be read as asked: {parquet.one_line(error)}") from error
        raise StoreError(f"{self.folder} changes faster than it can be read; try again in a moment")

    def _check_columns(self, columns: Sequence[str] | None) -> None:
        unknown = [name for name in columns or () if name not in self.schema.names]
        if unknown:
            raise StoreError(f"columns names {unknown[0]!r}, which {self.stream} does not have; it has: {', '.join(self.schema.names)}")

    def _scan(self, parts: Sequence[Part], start: int, columns: Sequence[str] | None, filter: pc.Expression | None) -> pa.Table:
        wanted = [part for part in parts if part.stop > start]
        names = list(columns) if columns is not None else self.schema.names
        target = pa.schema([self.schema.field(name) for name in names])
        if not wanted:
            return target.empty_table()
        source = ds.dataset([str(part.path) for part in wanted], schema=self.schema, format=_CHECKED)
        table = source.to_table(columns=names, filter=filter)
        return table.slice(max(start - wanted[0].first, 0)).unify_dictionaries()  # a filter comes with start 0 only

    def _condemn(self, parts: Iterable[Part]) -> bool:
        """After a failed scan: find the parts to blame. False if none is, so it was the question that was wrong."""
        found = False
        for part in parts:
            try:
                pq.read_table(part.path, schema=self.schema, partitioning=None, page_checksum_verification=True)
            except FileNotFoundError:
                found = True
            except (pa.ArrowException, OSError) as error:
                _judge(part, f"damaged ({parquet.one_line(error)})")
                found = True
        return found

    # --- writing -----------------------------------------------------------------------------------

    def load(self) -> View:
        """Take what is on disk as the writer's own view."""
        view = self.view()
        self.live, self.stop = list(view.parts), view.stop
        return view

    def append(self, tables: Sequence[pa.Table], attempt: int) -> None:
        """Write buffered rows as one part. Once it is visible `stop` has moved, whatever fails afterwards."""
        part = self._write([parquet.joined(tables)], attempt, self.stop)
        if part is not None:
            self.live.append(part)
            self.stop = part.stop
            disk.sync_folder(self.folder)

    def merge(self, *, everything: bool = False) -> None:
        """Merge neighbouring parts: the young ones, or all of them. Damaged parts stay where they are."""
        while True:
            try:
                for chosen in self._runs(everything):
                    self._merge(chosen)
                return
            except parquet.DamagedError as damaged:
                part = next(part for part in self.live if part.path == damaged.path)
                _judge(part, damaged.fault)
                self.live.remove(part)

    def _runs(self, everything: bool) -> list[list[Part]]:
        """Runs of adjacent parts. Without `everything` an old large part is left alone until as much has come after it."""
        chosen: list[Part] = []
        for part in reversed(self.live):
            if not everything and len(chosen) > len(self.live) // 2 and part.rows > sum(young.rows for young in chosen):
                break
            chosen.insert(0, part)
        groups: list[list[Part]] = []
        for part in chosen:
            if groups and groups[-1][-1].stop == part.first:
                groups[-1].append(part)
            else:
                groups.append([part])
        return [group for group in groups if len(group) > 1]

    def _merge(self, chosen: Sequence[Part]) -> None:
        part = self._write(parquet.row_groups((part.path for part in chosen), self.schema), chosen[-1].attempt, chosen[0].first)
        assert part is not None
        assert part.stop == chosen[-1].stop, "a merge keeps every row"
        at = self.live.index(chosen[0])
        self.live[at : at + len(chosen)] = [part]
        disk.sync_folder(self.folder)  # the merged part must be there before its sources go
        for old in chosen:
            disk.remove(old.path)

    def _write(self, tables: Iterable[pa.Table], attempt: int, first: int) -> Part | None:
        """One new part file, complete or absent; None if there are no rows."""
        aside = disk.temporary(self.folder / f"a{attempt}-{first}")
        try:
            count, crc = parquet.write(aside, self.schema, tables)
            if not count:
                disk.remove(aside)
                return None
            part = Part(first, first + count, attempt, crc, self.folder / f"a{attempt:03d}-{first:010d}-{first + count:010d}-{crc:08x}.parquet")
            os.replace(aside, part.path)
            return part
        except BaseException:
            disk.remove(aside)
            raise

    # --- rewinding ---------------------------------------------------------------------------------

    def first_after(self, clock: int) -> int | None:
        """First row of the first part that holds a row later than `clock`; None if there is none."""
        for part in self.live:
            latest = max((pc.max(table["clock"]).as_py() for table in parquet.pieces(part.path, self.schema, ["clock"])), default=clock)
            if latest > clock:
                return part.first
        return None

    def rewrite(self, cut: int, clock: int, attempt: int) -> Part | None:
        """Write the rows of parts from `cut` on that are not later than `clock` as a part of a new, not yet committed attempt."""
        dirty = [part for part in self.live if part.stop > cut]
        kept = (table.filter(pc.field("clock") <= clock) for table in parquet.row_groups((part.path for part in dirty), self.schema))
        part = self._write(kept, attempt, cut)
        disk.sync_folder(self.folder)
        return part

    def adopt(self, cut: int, part: Part | None) -> None:
        """Go on after `rewrite`, once the attempt is committed."""
        self.live = [old for old in self.live if old.stop <= cut] + ([part] if part else [])
        self.stop = part.stop if part else cut

    def set_aside(self) -> None:
        """Tidy up after any interruption: keep superseded parts aside, delete what is covered or was never committed."""
        view = self.view()
        for path in view.stale:
            part = Part.of(path)
            if part is None or part.attempt > view.attempt:
                disk.remove(path)
            else:
                home = self.run / SUPERSEDED / str(part.attempt) / self.stream
                home.mkdir(parents=True, exist_ok=True)
                os.replace(path, home / path.name)
        for path in view.covered:
            disk.remove(path)
        for name in self._names():
            if name.startswith(".") and name.endswith(disk.TEMPORARY):
                disk.remove(self.folder / name)


# --- names and files -------------------------------------------------------------------------------


def _superseded(part: Part, stream: str, attempts: Iterable[Attempt]) -> bool:
    return any(later.attempt > part.attempt and part.stop > later.cut.get(stream, part.stop) for later in attempts)


def _chain(parts: Iterable[Part], faults: dict[Part, str]) -> tuple[list[Part], list[Path], list[tuple[int, int]]]:
    """Parts that follow one another, parts whose rows others hold already, and the gaps between. Half an overlap is a fault."""
    live: list[Part] = []
    covered: list[Path] = []
    gaps: list[tuple[int, int]] = []
    for part in sorted(parts, key=lambda part: (part.first, -part.stop, -part.attempt)):
        at = live[-1].stop if live else 0
        if part.stop <= at:
            covered.append(part.path)
        elif part.first < at:
            faults[part] = "overlaps the part before it"
        else:
            gaps += [(at, part.first)] if part.first > at else []
            live.append(part)
    return live, covered, gaps


def _identity(part: Part) -> tuple[str, int, int, int]:
    found = os.lstat(part.path)
    return str(part.path), found.st_ino, found.st_size, found.st_mtime_ns


def _judge(part: Part, fault: str | None) -> str | None:
    if len(_verdicts) > 200_000:
        _verdicts.clear()
    _verdicts[_identity(part)] = fault
    return fault


def _fault(part: Part) -> str | None:
    """Why a part cannot be trusted, or None. All bytes are read once; the answer is kept while the file stays the same."""
    if not stat.S_ISREG(os.lstat(part.path).st_mode):
        return "a symbolic link or no ordinary file, refused"
    identity = _identity(part)
    return _verdicts[identity] if identity in _verdicts else _judge(part, _examine(part))


def _examine(part: Part) -> str | None:
    try:
        if parquet.checksum(part.path) != part.crc:
            return "damaged (its checksum is not the one in its name)"
        count = pq.read_metadata(part.path).num_rows
        return None if count == part.rows else f"damaged (it holds {count} rows, its name says {part.rows})"
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        return f"unreadable ({parquet.one_line(error)})"
