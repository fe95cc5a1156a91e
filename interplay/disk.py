"""Bytes to disk, whole or not at all: atomic files, the writer lock, and what to say when a disk refuses.

Knows nothing about runs. Every visible file appears by `os.replace` of a hidden `.*.tmp`, so a reader
never meets half of one, whenever the writer is killed. Symbolic links are refused: a run folder may
come from somebody else. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interplay.errors import StoreError

TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "the file would exceed the size limit"}
_ENOUGH = 64 * 2**20  # bytes of JSON that a run's own files never reach


def reason(error: OSError, path: Path) -> str:
    """One line: what is full or refused, and what to do about it."""
    if error.errno in _FULL:
        return f"{_FULL[error.errno]} ({_free(path)}); free some space there, or choose another folder"
    return f"{error.strerror or error}; check the folder's owner, permissions and disk"


def store_error(error: OSError, path: Path, what: str, kind: type[StoreError] = StoreError) -> StoreError:
    """A fault of the disk as one line: `PATH WHAT: why`."""
    return kind(str(error) if isinstance(error, StoreError) else f"{path} {what}: {reason(error, path)}")


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn faults of the disk inside the block into `StoreError`."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise store_error(error, path, what) from error


def cache_folder() -> Path:
    """Where Interplay keeps what it can make again, such as the unpacked model (`XDG_CACHE_HOME` is honoured)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interplay"


def _free(path: Path) -> str:
    """Free space of the file system that holds `path`, as far as it can be asked."""
    try:
        usage = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists()))
    except (OSError, StopIteration):
        return "free space unknown"
    return f"{usage.free / 2**20:.0f} MiB of {usage.total / 2**30:.1f} GiB are free"


# --- files ---------------------------------------------------------------------------------------


def temporary(target: Path) -> Path:
    """Where a file is written before it is renamed: hidden from `*.parquet` and from folder readers."""
    return target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete if it can be done: what is left over is ignored by readers, so failing here harms nobody."""
    with contextlib.suppress(OSError):
        path.unlink()


def tidy(folder: Path) -> None:
    """Remove what a killed writer left half-written directly in `folder`. Only for who holds the writer lock."""
    for left in folder.glob(f".*{TEMPORARY}"):
        if not left.is_dir():
            remove(left)


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Replace `path` by JSON. `durable=False` saves the fsync for files that are rewritten every second."""
    aside = temporary(path)
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1, default=_plain) + "\n")
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        remove(aside)
        raise
    if durable:
        sync_folder(path.parent)


def _plain(value: Any) -> Any:
    """NumPy scalars as numbers, everything else as its text."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else str(value)


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises `StoreError` with the reason; `FileNotFoundError` stays what it is."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for ever
        with open(handle, encoding="utf-8") as file:
            content = json.loads(file.read(_ENOUGH))
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "a symbolic link, which a run folder may not hold" if error.errno == errno.ELOOP else error.strerror
        raise StoreError(f"{path} cannot be read: {why}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is not JSON ({str(error)[:80]})") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged: it holds a {type(content).__name__}, not an object")
    return content


def make_folder(path: Path) -> bool:
    """Make the folder that `--out` names, and its parents; True if it was not there before."""
    if path.is_symlink():
        raise StoreError(f"--out is {str(path)!r}, which is a symbolic link; name the folder itself, or choose another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        return True
    except (FileExistsError, NotADirectoryError) as error:
        if path.is_dir():
            return False
        file = next((part for part in (path, *path.parents) if part.exists()), path)
        raise StoreError(f"--out is {str(path)!r}, but {file} is a file; choose another --out") from error
    except ValueError as error:
        raise StoreError(f"--out is {str(path)!r}, which is no file name ({error}); choose another --out") from error


# --- the writer lock -----------------------------------------------------------------------------


class WriterLock:
    """One writer for one run. The kernel frees it when the holder dies, so it is never stale.

    The file stays when the lock is released: deleting it would let two writers lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        """Raises `BlockingIOError` if another writer holds it."""
        try:
            import fcntl
        except ImportError as error:
            raise StoreError(f"{path.parent} can be read on this system, but recording needs Linux or macOS (fcntl.flock)") from error
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._handle), os.stat(path)):
                raise StoreError(f"{path.parent} was removed while it was being opened; try again")
            name = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
            os.pwrite(self._handle, name.ljust(512), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def lock(path: Path, what: str, otherwise: str) -> WriterLock:
    """The lock, or a `StoreError` that says that `path`'s folder is WHAT by whom, and what to do OTHERWISE."""
    try:
        return WriterLock(path)
    except BlockingIOError as error:
        raise StoreError(f"{path.parent} is being {what} by {holder(path)}; {otherwise}") from error


def holder(path: Path) -> str:
    """Who holds the lock; it may be a moment between taking it and signing it."""
    for _ in range(20):
        with contextlib.suppress(OSError, StoreError):
            content = read_json(path)
            if "pid" in content:
                return f"process {content['pid']} on host {content.get('host')}"
        time.sleep(0.01)
    return "another process"


# --- names ---------------------------------------------------------------------------------------

_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
_SLUG_LENGTH = 80


def slug(text: str) -> str:
    """A folder name that is safe everywhere: [a-z0-9-], at most 80 characters. What had to be changed carries a hash of the original."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text and 0 < len(text) <= _SLUG_LENGTH and text not in _RESERVED:
        return text
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: _SLUG_LENGTH - 9].strip('-') or 'run'}-{mark}"
