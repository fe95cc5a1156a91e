"""Start, stop and list training runs: detached processes of the command line that a person would type.

A job is a folder with `job.json` and `log.txt`. The browser only ever names an opaque id; a process
is signalled only if its pid, start time and session still are those that were written down, so a
reused pid or a forged id reaches nobody. Jobs outlive the dashboard that started them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError

GRACE_SECONDS = 30.0
TAIL_BYTES = 64_000
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Job:
    """One started command. `state`: running, stopping, finished, failed or stopped."""

    id: str
    argv: list[str]
    created: str
    pid: int
    started: float
    key: str = ""
    stop_asked: str | None = None
    exit: int | None = None
    ended: bool = False

    @property
    def state(self) -> str:
        if not self.ended:
            return "stopping" if self.stop_asked else "running"
        if self.stop_asked:
            return "stopped"
        return "ended" if self.exit is None else "finished" if self.exit == 0 else "failed"

    @property
    def command(self) -> str:
        """The words to type."""
        return command_line(self.argv)


def command_line(argv: list[str]) -> str:
    """`interplay train ...` in place of the interpreter's own path."""
    import shlex

    words = ["interplay", *argv[3:]] if argv[1:3] == ["-m", "app.cli"] else argv
    return shlex.join(words)


def train_argv(config: RunConfig) -> list[str]:
    """The process that trains this configuration: no shell, one list element per word."""
    return [sys.executable, "-m", "app.cli", "train", *config.to_argv()]


class Jobs:
    """The jobs of one folder. One runs at a time: two trainings on one small machine only slow each other."""

    def __init__(self, folder: Path, grace: float = GRACE_SECONDS) -> None:
        self.folder = Path(folder)
        self.grace = grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # --- start -----------------------------------------------------------------------------------

    def start(self, config: RunConfig, key: str = "", cwd: Path | None = None) -> Job:
        """Start a training run. The same non-empty `key` gives the same job. Raises `ConfigError` while another runs."""
        return self.start_argv(train_argv(config), key, cwd)

    def start_argv(self, argv: list[str], key: str = "", cwd: Path | None = None) -> Job:
        with self._lock():
            known = self.list()
            same = next((job for job in known if key and job.key == key), None)
            if same:
                return same
            busy = next((job for job in known if not job.ended), None)
            if busy:
                raise ConfigError(f"job {busy.id[:6]} is still {busy.state}; stop it or wait for its end, then start again")
            return self._launch(argv, key, cwd)

    def _launch(self, argv: list[str], key: str, cwd: Path | None) -> Job:
        name = secrets.token_hex(8)
        place = self.folder / name
        place.mkdir(parents=True)
        with (place / "log.txt").open("wb") as log:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._children[name] = child
        job = Job(name, argv, datetime.now(UTC).isoformat(timespec="seconds"), child.pid, _start_time(child.pid), key)
        self._write(job)
        return job

    # --- look ------------------------------------------------------------------------------------

    def list(self) -> list[Job]:
        """All jobs, newest first, with their present state; ended children are reaped."""
        found = [self._read(path.parent.name) for path in self.folder.glob("*/job.json") if _ID.fullmatch(path.parent.name)]
        return sorted((self._refresh(job) for job in found if job), key=lambda job: (job.created, job.started), reverse=True)

    def get(self, id: str) -> Job:
        """One job. Raises `StoreError` for an id that is not ours."""
        job = self._read(id) if _ID.fullmatch(id) else None
        if job is None:
            raise StoreError(f"there is no job {id[:32]!r} in {self.folder}; choose one from the list")
        return self._refresh(job)

    def tail(self, id: str, lines: int = 20) -> str:
        """The last lines of the job's output, control characters left out."""
        return tail(self.folder / self.get(id).id / "log.txt", lines)

    # --- stop ------------------------------------------------------------------------------------

    def stop(self, id: str, wait: bool = False) -> Job:
        """Ask the job's process group to end; what does not within the grace time is killed."""
        job = self.get(id)
        process = _ours(job)
        if job.ended or process is None:
            return job
        job = replace(job, stop_asked=datetime.now(UTC).isoformat(timespec="seconds"))
        self._write(job)
        _signal_group(job, signal.SIGTERM)
        killer = threading.Thread(target=self._kill_later, args=(job,), daemon=True)
        killer.start()
        if wait:
            killer.join()
        return self.get(id)

    def _kill_later(self, job: Job) -> None:
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline:
            if self._refresh(job).ended:
                return
            time.sleep(0.1)
        if _ours(job):
            _signal_group(job, signal.SIGKILL)
        time.sleep(0.2)
        self._refresh(job)

    # --- disk ------------------------------------------------------------------------------------

    def _refresh(self, job: Job) -> Job:
        """The job with its end noted, once its process is gone."""
        child = self._children.get(job.id)
        code = child.poll() if child else None
        if job.ended or (code is None and _ours(job)):
            return job
        job = replace(self._read(job.id) or job, ended=True, exit=code)
        self._write(job)
        return job

    def _read(self, id: str) -> Job | None:
        try:
            raw = json.loads((self.folder / id / "job.json").read_text())
            return Job(**{name: raw[name] for name in Job.__dataclass_fields__ if name in raw})
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, job: Job) -> None:
        """Whole or not at all: written aside, then renamed."""
        path = self.folder / job.id / "job.json"
        aside = path.with_name(f"job.{secrets.token_hex(4)}.tmp")
        aside.write_text(json.dumps(asdict(job), indent=1))
        aside.replace(path)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start at a time on this machine, whichever browser tab or server asks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _start_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _ours(job: Job) -> psutil.Process | None:
    """The job's process, if it lives and still is the one that was started."""
    try:
        process = psutil.Process(job.pid)
        same = abs(process.create_time() - job.started) < 1.0 and os.getpgid(job.pid) == job.pid
        words = process.cmdline()  # empty for a moment while the process is being started
        alive = process.status() != psutil.STATUS_ZOMBIE and (not words or words[1:] == job.argv[1:])
    except (psutil.Error, OSError):
        return None
    return process if same and alive else None


def _signal_group(job: Job, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.pid, number)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log that are not blank, control characters left out."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    shown = [_plain(line) for line in text.split("\n")]
    return "\n".join([line for line in shown if line.strip()][-lines:])


def _plain(line: str) -> str:
    """The last state of a line that was redrawn, without colours and control characters."""
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.split("\r")[-1])
    return "".join(letter for letter in line if letter.isprintable() or letter == "\t")
