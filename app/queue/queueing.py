"""What a queue of jobs needs to know of the machine: its slots, its free disk, and which entries this user made.

A slot is what CUDA calls a GPU, or the CPU. torch is not asked: that would take seconds, and the viewer has none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from interplay.errors import ConfigError

CPU = "cpu"
MOST_QUEUED = 20
FREE_FLOOR = 2**30  # bytes; a run that fills the disk takes the recordings of others with it
_PATIENCE = 5.0
_UUID = re.compile(r"\(UUID: ((GPU|MIG)-[0-9A-Za-z/-]+)\)")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


# --- slots -----------------------------------------------------------------------------------------


@functools.cache
def slots() -> tuple[str, ...]:
    """One for each GPU that this process may use, else one for the CPU: two trainings on one device only slow each other."""
    return allowed_slots(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")) or (CPU,)


def allowed_slots(found: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """The GPUs of the machine as far as `CUDA_VISIBLE_DEVICES` lets them be seen; as in CUDA, a negative number ends the list."""
    if visible is None or not found:
        return tuple(found)
    names = [name.strip() for name in visible.split(",")]
    end = next((place for place, name in enumerate(names) if not name or name.startswith("-")), len(names))
    return tuple(dict.fromkeys(names[:end]))


def gpus() -> list[str]:
    """What to write into `CUDA_VISIBLE_DEVICES`: UUIDs by nvidia-smi, else numbers by the driver's list; none without a driver."""
    if not shutil.which("nvidia-smi"):
        return _listed()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_PATIENCE)
        if done.returncode == 0:
            return parse(done.stdout)
    return _listed()


def parse(listing: str) -> list[str]:
    """UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG devices is known by those."""
    names: list[str] = []
    for name, kind in _UUID.findall(listing):
        if kind == "MIG" and names and names[-1].startswith("GPU-"):
            names.pop()
        names.append(name)
    return names


def _listed() -> list[str]:
    with contextlib.suppress(OSError):
        return [str(number) for number in range(len(list(_NVIDIA.iterdir())))]
    return []


def left(taken: Sequence[str]) -> list[str]:
    """Slots that are not taken. One that is taken under a name not known here is counted against what is left."""
    names = slots()
    free = [name for name in names if name not in taken]
    return free[: max(0, len(free) - sum(slot not in names for slot in taken))]


def environment(taken: Sequence[str]) -> dict[str, str]:
    """What a job in these slots is told: its GPUs, and nothing where it computes on the CPU."""
    return {} if CPU in taken else {"CUDA_VISIBLE_DEVICES": ",".join(taken)}


# --- disk ------------------------------------------------------------------------------------------


def shortage(path: Path) -> str | None:
    """Why nothing should start that writes to `path`; None if there is room."""
    place = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    if free >= FREE_FLOOR:
        return None
    return f"only {free / 2**30:.2f} GiB are free in {place}, and a job starts with {FREE_FLOOR / 2**30:.0f} GiB at least; free some space there"


def refuse_shortage(path: Path) -> None:
    """Raises `ConfigError` with what is free."""
    if why := shortage(path):
        raise ConfigError(f"nothing was started: {why}, or choose another --out")


# --- who asked -------------------------------------------------------------------------------------


def seal(folder: Path, id: str, argv: Sequence[str], cwd: str) -> str:
    """Shows that this user asked for this command, here. A folder of runs may come from somebody else, and a queue runs what it holds."""
    words = json.dumps([str(folder.resolve()), id, list(argv), cwd])
    return hmac.new(_secret(_home()), words.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "interplay"


@functools.lru_cache(maxsize=4)
def _secret(home: Path) -> bytes:
    """The user's own; where it cannot be kept, this process's own, and then a queue goes on only while its server lives."""
    path = home / "queue.key"
    own = secrets.token_bytes(32)
    if not home.is_absolute():  # a user without a home
        return own
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _keep(path, own)
        found = path.read_bytes()
    except OSError:
        return own
    return found if len(found) == len(own) else own


def _keep(path: Path, content: bytes) -> None:
    """Whole, and the first one stays: of two servers that begin at once, one wins."""
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
