"""The only door to a run's folder: `RunStore` is one run, `Runs` a folder of them.

One process writes, any number read; nobody waits for anybody. Rows are buffered and reach the disk as
whole part files (parts.py), so that whatever kills the writer costs at most the last few seconds.
`docs/schema.md` shows what lies where. No torch, no plotting, no meaning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from interplay import disk, interrupts
from interplay.disk import slug
from interplay.errors import RowsWaiting, StoreError, nearest
from interplay.parquet import Columns, as_table
from interplay.parts import Attempt, read_attempts, write_attempts
from interplay.reading import LOCK, RUN, STATUS, Cursor, RunReader, RunSummary, Status, looks_like_run, newer, read_info, summarise
from interplay.records import STREAMS, RunInfo, State, Stream, schema

__all__ = ["Cursor", "RunStore", "RunSummary", "Runs", "Status", "slug"]

MAX_BUFFERED_ROWS = 200_000


# --- one run -------------------------------------------------------------------------------------


class RunStore(RunReader):
    """One run on disk. Make one with `create` or `open`.

    The writer's rows are visible to readers, and to its own `read`, once they are flushed. Every failure is
    a `StoreError`; after one, buffered rows are still there and the next flush tries again.
    """

    def __init__(self, path: Path, info: RunInfo, lock: disk.WriterLock | None, flush_every: int, flush_seconds: float, merge_at: int) -> None:
        super().__init__(path, info)
        self._lock = lock
        self._flush_every, self._flush_seconds, self._merge_at = flush_every, flush_seconds, max(merge_at, 2)
        self._attempt = 1
        self._buffer: deque[tuple[str, pa.Table]] = deque()
        self._rows = self._calls = 0
        self._failing = False
        self._flushed = self._beat = time.monotonic()
        self._status = Status("running", time.time(), started=time.time())

    @classmethod
    def create(
        cls,
        path: str | Path,
        info: RunInfo,
        *,
        flush_every: int = 50,
        flush_seconds: float = 5.0,
        merge_at: int = 200,
    ) -> RunStore:
        """Make the folder, in state `running`. Raises `StoreError`, and then leaves nothing half-made behind."""
        path = Path(path)
        with disk.explained(path, "cannot be made"):
            made = disk.make_folder(path)
            _refuse_taken(path)
            try:
                lock = disk.WriterLock(path / LOCK)
            except BlockingIOError as error:
                raise _taken(path) from error  # so it is another writer's folder: nothing of it is ours to remove
            ours = False
            try:
                _refuse_taken(path)
                ours = True
                store = cls(path, info, lock, flush_every, flush_seconds, merge_at)
                store._make_run()
                return store
            except BaseException:
                if ours:
                    _unmake(path, made)
                lock.release()
                raise

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        write: bool = False,
        flush_every: int = 50,
        flush_seconds: float = 5.0,
        merge_at: int = 200,
    ) -> RunStore:
        """Open a run. `write=True` makes this process its writer and tidies what the last one left; the state stays."""
        path = Path(path)
        info = read_info(path)
        if not write:
            return cls(path, info, None, flush_every, flush_seconds, merge_at)
        if newest := newer(info):
            raise StoreError(f"{path} {newest}; install that version to write to it")
        with disk.explained(path, "cannot be opened for writing"):
            lock = disk.lock(path / LOCK, "written", "stop that process first, or choose another folder")
            try:
                store = cls(path, read_info(path), lock, flush_every, flush_seconds, merge_at)
                store._take_over()
                return store
            except BaseException:
                lock.release()
                raise

    def _make_run(self) -> None:
        for stream in STREAMS:
            (self.path / stream).mkdir(exist_ok=True)
        self._write_status(durable=True)
        disk.write_json(self.path / RUN, self.info.to_json())  # last: a folder with run.json is a run

    def _take_over(self) -> None:
        disk.tidy(self.path)
        for stream, parts in self._parts.items():
            (self.path / stream).mkdir(exist_ok=True)
            parts.set_aside()
            parts.load()
        attempts = read_attempts(self.path)
        self._attempt = attempts[-1].attempt if attempts else 1
        try:
            self._status = self.status()
        except StoreError:
            self._status = Status("interrupted", time.time(), message="the earlier status was damaged")
        self._write_status(durable=True)

    # --- writing -----------------------------------------------------------------------------------

    def append(self, stream: Stream, columns: Columns | pa.Table) -> None:
        """Add rows to a stream. Columns that may be null may be left out.

        Raises `StoreError` if they do not fit the schema, `RowsWaiting` if they were taken but the flush that was due failed.
        """
        self._check_writable()
        table = as_table(stream, self._schema(stream), columns)
        if table.num_rows:
            with interrupts.shield():
                self._buffer.append((stream, table))
                self._rows += table.num_rows
                self._calls += stream == "updates"
                if self._failing:
                    self._drop_oldest()
        self.tick()

    def tick(self) -> None:
        """Flush if it is time, else show at most once a second that this process is alive."""
        self._check_writable()
        now = time.monotonic()
        full = self._rows > MAX_BUFFERED_ROWS // 2 and not self._failing
        if self._rows and (full or self._calls >= self._flush_every or now - self._flushed >= self._flush_seconds):
            self.flush()
        elif now - self._beat >= 1.0:
            self._heartbeat()

    def flush(self) -> None:
        """Put all buffered rows on disk. Raises `RowsWaiting` that says what is full; the rows are kept for the next flush."""
        self._check_writable()
        with interrupts.shield():
            self._flushed, self._calls = time.monotonic(), 0
            try:
                for stream in STREAMS:
                    self._flush_stream(stream)
                self._failing = False
                for parts in self._parts.values():
                    if len(parts.live) >= self._merge_at:
                        parts.merge()
            except OSError as error:
                self._failing = self._rows > 0
                self._drop_oldest()
                raise disk.store_error(error, self.path, f"cannot be written, {self._rows} rows wait in memory for the next flush", RowsWaiting) from error
            finally:
                self._heartbeat()

    def _flush_stream(self, stream: Stream) -> None:
        tables = [table for name, table in self._buffer if name == stream]
        if not tables:
            return
        parts = self._parts[stream]
        before = parts.stop
        try:
            parts.append(tables, self._attempt)
        finally:
            if parts.stop != before:  # visible, so no longer ours, even if the folder could not be synced
                self._buffer = deque(item for item in self._buffer if item[0] != stream)
                self._rows -= parts.stop - before

    def _drop_oldest(self) -> None:
        """Keep memory bounded while the disk is full; what is given up is counted."""
        while (excess := self._rows - MAX_BUFFERED_ROWS) > 0:
            stream, table = self._buffer.popleft()
            gone = min(excess, table.num_rows)
            if gone < table.num_rows:
                self._buffer.appendleft((stream, table.slice(gone)))
            self._rows -= gone
            self._status = dataclasses.replace(self._status, dropped=self._status.dropped + gone)

    def compact(self) -> None:
        """Merge all parts of each stream into one."""
        self._check_writable()
        with interrupts.shield(), disk.explained(self.path, "could not be merged, which loses nothing"):
            for parts in self._parts.values():
                parts.merge(everything=True)

    def rewind(self, clock: int) -> None:
        """Take rows later than `clock` out of all streams; the files that held them move to superseded/."""
        self.flush()
        with interrupts.shield(), disk.explained(self.path, f"cannot be rewound to clock {clock}"):
            self._rewind(clock)

    def _rewind(self, clock: int) -> None:
        found = {stream: parts.first_after(clock) for stream, parts in self._parts.items()}
        cut: dict[str, int] = {stream: row for stream, row in found.items() if row is not None}
        if not cut:
            return
        for parts in self._parts.values():
            parts.set_aside()  # a rewind that failed may have left its parts
        attempts = read_attempts(self.path)
        new = Attempt(self._attempt + 1, clock, cut)
        rewritten = {stream: parts.rewrite(cut[stream], clock, new.attempt) for stream, parts in self._parts.items() if stream in cut}
        try:
            write_attempts(self.path, [*attempts, new])  # the commit, for all streams at once
        except OSError:
            if read_attempts(self.path)[-1:] != (new,):
                raise
        self._attempt = new.attempt
        changed = {stream: parts for stream, parts in self._parts.items() if stream in cut}
        for stream, parts in changed.items():
            parts.adopt(cut[stream], rewritten[stream])
        for parts in changed.values():
            parts.set_aside()

    def update_info(self, **changes: Any) -> None:
        """Change fields of `run.json`."""
        self._check_writable()
        unknown = [name for name in changes if name not in RunInfo.__dataclass_fields__]
        if unknown:
            raise StoreError(f"update_info got {unknown[0]!r}, which run.json does not have{nearest(unknown[0], RunInfo.__dataclass_fields__)}")
        info = dataclasses.replace(self.info, **changes)
        if info.sketch != self.info.sketch and (self._parts["directions"].stop or self._rows):
            raise StoreError("sketch cannot change after rows were recorded; start a new run for another sketch")
        with disk.explained(self.path / RUN, "cannot be written"):
            disk.write_json(self.path / RUN, info.to_json())
        self.info = info
        self._schemas["directions"] = self._parts["directions"].schema = schema("directions", info.sketch.k)

    def checkpoint_path(self) -> Path:
        """Where checkpoints go; made on first use by the writer."""
        path = self.path / "checkpoints"
        if self._lock is not None:
            with disk.explained(path, "cannot be made"):
                path.mkdir(exist_ok=True)
        return path

    # --- status ------------------------------------------------------------------------------------

    def set_status(
        self,
        *,
        state: State | None = None,
        progress: Mapping[str, Any] | None = None,
        message: str | None = None,
        error: str | None = None,
    ) -> None:
        """Change what `status.json` says. `running` clears the end and the error of an earlier attempt."""
        self._check_writable()
        self._status = self._status.changed(state, progress, message, error)
        with disk.explained(self.path / STATUS, "cannot be written"):
            self._write_status(durable=state is not None)

    def _write_status(self, *, durable: bool) -> None:
        self._beat = time.monotonic()
        self._status = dataclasses.replace(self._status, heartbeat=time.time(), pid=os.getpid(), host=socket.gethostname())
        disk.write_json(self.path / STATUS, dataclasses.asdict(self._status), durable=durable)

    def _heartbeat(self) -> None:
        """A heartbeat that cannot be written shows as `stalled`; it is no reason to stop a training."""
        try:
            self._write_status(durable=False)
        except OSError:
            self._beat = time.monotonic()

    def close(self, state: State, *, error: str | None = None) -> None:
        """Flush, merge, write the end state last, release the lock. Calling it again does nothing.

        An interrupted run is not merged: its time may be measured in seconds, and 200 parts are readable.
        """
        if self._lock is None:
            return
        trouble: StoreError | None = None
        try:
            with interrupts.shield(), disk.explained(self.path / STATUS, "cannot take the end state"):
                trouble = self._flush_and_merge(merge=state != "interrupted")
                ended = self._status.changed(state, error=error or (str(trouble) if trouble else None))
                self._status = dataclasses.replace(ended, dropped=ended.dropped + self._rows)
                self._write_status(durable=True)
        finally:
            self._lock.release()
            self._lock = None
        if trouble is not None:
            raise trouble

    def _flush_and_merge(self, *, merge: bool) -> StoreError | None:
        try:
            self.flush()
        except StoreError as error:
            return error
        try:
            if merge:
                self.compact()
        except StoreError as error:  # all rows are on disk: say it, but do not fail a finished run
            self._status = self._status.changed(message=str(error))
        return None

    # --- helpers -----------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path} is open for reading only; RunStore.open(path, write=True) opens it for writing")


def _unmake(path: Path, made: bool) -> None:
    """Leave nothing half-made: the whole folder if it is new, else what was put into it."""
    if made:
        shutil.rmtree(path, ignore_errors=True)
        return
    for name in (RUN, STATUS, LOCK):
        disk.remove(path / name)
    for stream in STREAMS:
        with contextlib.suppress(OSError):
            (path / stream).rmdir()


def _refuse_taken(path: Path) -> None:
    """An existing folder may be used if it holds no recording: a folder that was made by hand, or a `create` that was killed."""
    if os.path.lexists(path / RUN) or any(part for stream in STREAMS for part in (path / stream).glob("*.parquet")):
        raise _taken(path)


def _taken(path: Path) -> StoreError:
    return StoreError(f"a run named {path.name} exists already in {path.parent}; choose another --out, or --resume it")


# --- many runs -----------------------------------------------------------------------------------


class Runs:
    """A folder of runs. Only names directly in it are opened, wherever they come from."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def list(self) -> list[RunSummary]:
        """All runs by name. A broken one is listed with the reason; nothing raises. Two small files are read for each."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.root) if looks_like_run(entry))
        except OSError:
            return []
        return [self._summary(name) for name in names]

    def _summary(self, name: str) -> RunSummary:
        try:
            return summarise(self.path(name))
        except StoreError as error:
            return RunSummary(name, self.root / name, "unreadable", problems=(str(error),))

    def open(self, run: str) -> RunStore:
        """The run of that name, for reading. Raises `StoreError` if the name leads out of this folder."""
        return RunStore.open(self.path(run))

    def path(self, run: str) -> Path:
        """Where a run of that name is or would be. Raises `StoreError` if that is not directly in this folder."""
        refused = StoreError(f"run is {run!r}; it must be the name of a folder directly in {self.root}")
        if not run or run.startswith(".") or any(char in run for char in "/\\\0"):
            raise refused
        try:
            inside = (self.root / run).resolve().parent == self.root.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise refused from error
        if not inside:
            raise refused
        return self.root / run
