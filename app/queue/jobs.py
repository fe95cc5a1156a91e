"""Start, queue, stop and list detached processes of the command line that a person would type.

A job is a folder with `job.json` and `log.txt`. The browser only ever names an opaque id; a process
is signalled only if its pid, start time, session and command still are those that were written down,
so a reused pid or a forged id reaches nobody. Jobs outlive the dashboard that started them. What finds
no free slot waits; whoever looks at the list moves the queue on, one at a time under a file lock, and
the server that has something waiting looks by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from app.queue import processes, queueing
from app.queue.job import Job, command_line, parse
from app.reading import loading
from interplay import disk
from interplay.config import RunConfig
from interplay.errors import EXIT_INTERRUPTED, ConfigError, InterplayError, StoreError
from interplay.store import RunStore

GRACE_SECONDS = 30.0
LOOK_SECONDS = 2.0
TAIL_BYTES = 64_000
_NOT_STARTED = 127
_CODES = {"finished": 0, "failed": 1, "interrupted": EXIT_INTERRUPTED}
_PROJECT = Path(__file__).resolve().parents[2]
_ID = re.compile(r"[0-9a-f]{16}")

__all__ = ["GRACE_SECONDS", "Job", "Jobs", "command_line", "tail", "train_argv"]


def train_argv(config: RunConfig) -> list[str]:
    """The process that trains this configuration: no shell, one list element per word."""
    return [sys.executable, "-m", "app.cli", "train", *config.to_argv()]


class Jobs:
    """The jobs of one folder. Each takes a slot, a comparison all of them: it spreads its own rows over the GPUs it sees."""

    def __init__(self, folder: Path, grace: float = GRACE_SECONDS) -> None:
        self.folder = Path(folder)
        self.grace = grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._over: dict[str, Job] = {}  # what is known to the end is not read again
        self._watcher: threading.Thread | None = None

    # --- start -----------------------------------------------------------------------------------

    def start(self, config: RunConfig, key: str = "", cwd: Path | None = None, *, alone: bool = False) -> Job:
        """Start a training run, or queue it."""
        return self.start_argv(train_argv(config), key, cwd, alone=alone)

    def start_argv(self, argv: list[str], key: str = "", cwd: Path | None = None, *, alone: bool = False) -> Job:
        """Start a command once there is a slot for it. The same non-empty `key` gives the same job.

        Raises `ConfigError` where the server is exposed, too much is waiting, the disk is nearly full, or, with `alone`, anything else goes on;
        `StoreError` where the folder of jobs cannot be written.
        """
        _refuse_exposed("starts")
        _refuse_foreign_code(argv)
        queueing.slots()  # may ask the driver; not while others wait for the lock
        with self._lock(make=True):
            known = self._look(held=True)
            same = next((job for job in known if key and job.key == key), None)
            if same:
                return same
            job = self._new(argv, key, cwd)
            self._refuse(job, known, alone)
            with disk.explained(self.folder, "cannot hold jobs"):
                (self.folder / job.id).mkdir()
            self._write(job)
            known = self._move_on([job, *known])
            self._watch(known)
            return next(one for one in known if one.id == job.id)

    def _new(self, argv: list[str], key: str, cwd: Path | None) -> Job:
        name, where = secrets.token_hex(8), str(Path(cwd or ".").resolve())
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        return Job(name, list(argv), created, key=key, cwd=where, queued=True, seal=queueing.seal(self.folder, name, argv, where))

    def _refuse(self, job: Job, known: Sequence[Job], alone: bool) -> None:
        busy = next((one for one in known if not one.ended and (not one.queued or self._sealed(one))), None)
        if alone and busy:
            raise ConfigError(f"job {busy.id[:6]} is still {busy.state}; stop it or wait for its end, then start again")
        waiting = len(self._waiting(known))
        if waiting >= queueing.MOST_QUEUED:
            raise ConfigError(f"{waiting} jobs are waiting, and the queue holds {queueing.MOST_QUEUED}; stop one of them, or wait until one has started")
        queueing.refuse_shortage(job.folder or self.folder)

    # --- the queue -------------------------------------------------------------------------------

    def _waiting(self, known: Sequence[Job]) -> Sequence[Job]:
        """What this user has queued, oldest first."""
        return sorted((job for job in known if job.queued and self._sealed(job)), key=lambda job: job.created)

    def _sealed(self, job: Job) -> bool:
        return secrets.compare_digest(job.seal.encode("utf-8", "surrogatepass"), queueing.seal(self.folder, job.id, job.argv, job.cwd).encode())

    def _move_on(self, known: Sequence[Job]) -> Sequence[Job]:
        """Start what waits, in order, as far as there are slots and disk. Only under the lock."""
        for job in self._waiting(known):
            free = _free(known)
            wanted = queueing.slots() if job.kind == "compare" else free[:1]
            if not wanted or not set(wanted) <= set(free) or queueing.shortage(job.folder or self.folder):
                break
            started = self._launch(job, wanted)
            known = [started if one.id == job.id else one for one in known]
        return known

    def _launch(self, job: Job, wanted: Sequence[str]) -> Job:
        """Noted as started before it is, and its pid after that: a server that dies in between starts nothing twice."""
        job = replace(job, queued=False, slots=[*wanted])
        self._write(job)
        with (self.folder / job.id / "log.txt").open("wb") as log:
            try:
                child = self._process(job, log.fileno())
            except (OSError, ValueError) as error:
                log.write(f"not started: {error}\n".encode(errors="replace"))
                job = replace(job, ended=True, exit=_NOT_STARTED)
            else:
                self._children[job.id] = child
                job = replace(job, pid=child.pid, started=processes.start_time(child.pid))
        self._write(job)
        return job

    def _process(self, job: Job, log: int) -> subprocess.Popen[bytes]:
        """In a session of its own, so that neither a closed terminal nor the server's end reaches it."""
        return subprocess.Popen(
            job.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=job.cwd,
            env={**os.environ, **queueing.environment(job.slots), **_imports(), "PYTHONUNBUFFERED": "1", processes.MARK: job.id},
        )

    # --- look ------------------------------------------------------------------------------------

    def list(self) -> list[Job]:
        """All jobs, newest first, with their present state. Ended children are reaped, and the queue moves on."""
        queueing.slots()
        with self._lock() as held:
            known = self._advance(held)
            if held:
                self._watch(known)
        return [*known]

    def _advance(self, held: bool) -> Sequence[Job]:
        known = self._look(held)
        if held and not loading.exposed():
            with contextlib.suppress(StoreError):  # a full disk: what waits goes on waiting
                return self._move_on(known)
        return known

    def _watch(self, known: Sequence[Job]) -> None:
        """The queue moves on while this server lives, whether or not a page is open. Only under the lock."""
        if self._watcher is None and not loading.exposed() and self._waiting(known):
            self._watcher = threading.Thread(target=self._keep_looking, daemon=True)
            self._watcher.start()

    def _keep_looking(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock() as held:
                if not held or not self._waiting(self._advance(held)):
                    self._watcher = None
                    return

    def _look(self, held: bool) -> Sequence[Job]:
        names = [path.parent.name for path in self.folder.glob("*/job.json") if _ID.fullmatch(path.parent.name)]
        found = [self._over.get(name) or self._read(name) for name in names]
        return sorted((self._refresh(job, held) for job in found if job), key=lambda job: (job.created, job.started), reverse=True)

    def get(self, id: str) -> Job:
        """One job. Raises `StoreError` for an id that is not ours."""
        with self._lock() as held:
            return self._find(id, held)

    def _find(self, id: str, held: bool) -> Job:
        job = self._read(id) if _ID.fullmatch(id) else None
        if job is None:
            raise StoreError(f"there is no job {id[:32]!r} in {self.folder}; choose one from the list")
        return self._refresh(job, held)

    def tail(self, id: str, lines: int = 20) -> str:
        """The last lines of the job's output, control characters left out; for a job that waits, what it waits for."""
        job = self.get(id)
        return self._why(job) if job.queued else tail(self.folder / job.id / "log.txt", lines)

    def _why(self, job: Job) -> str:
        if not self._sealed(job):
            return "this entry was not queued here by you, so it is not started; stop it and start it anew"
        with self._lock() as held:
            before = [one for one in self._waiting(self._look(held)) if one.created < job.created]
        first = queueing.shortage(job.folder or self.folder) or "first in the queue; starts when a device is free"
        return f"{len(before)} before it in the queue" if before else first

    # --- stop ------------------------------------------------------------------------------------

    def stop(self, id: str, wait: bool = False) -> Job:
        """Ask the job's process group to end; what does not within the grace time is killed. A job that waits leaves the queue."""
        _refuse_exposed("stops")
        with self._lock() as held:
            job = self._find(id, held)
            if job.ended:
                return job
            job = replace(job, stop_asked=datetime.now(UTC).isoformat(timespec="seconds"), ended=job.queued, queued=False)
            self._write(job)
        if not job.ended and _alive(job):
            self._end(job, wait)
        return self.get(id)

    def _end(self, job: Job, wait: bool) -> None:
        processes.signal_group(job.pid, signal.SIGTERM)
        killer = threading.Thread(target=self._kill_later, args=(job,), daemon=True)
        killer.start()
        if wait:
            killer.join()

    def _kill_later(self, job: Job) -> None:
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline and _alive(job):
            time.sleep(0.1)
        if _alive(job):
            processes.signal_group(job.pid, signal.SIGKILL)
            time.sleep(0.2)
        with contextlib.suppress(StoreError):
            self.get(job.id)

    # --- disk ------------------------------------------------------------------------------------

    def _refresh(self, job: Job, held: bool) -> Job:
        """The job with its end noted, once its process is gone. Only who holds the lock writes."""
        child = self._children.get(job.id)
        code = child.poll() if child else None
        if job.queued or (job.ended and (code is None or job.exit is not None)):
            return self._kept(job)
        now = job if job.pid else _adopted(job)
        if now.ended or code is not None or not _alive(now):
            now = replace(now, ended=True, exit=_exit_code(now) if code is None else code)
        else:
            self._kill_overdue(now)
        if held and now != job:
            with contextlib.suppress(StoreError):  # a full disk: it is noted at the next look
                self._write(now)
        return now

    def _kept(self, job: Job) -> Job:
        if job.ended and (job.exit is not None or job.stop_asked):
            self._over[job.id] = job
            self._children.pop(job.id, None)
        return job

    def _kill_overdue(self, job: Job) -> None:
        """The server that asked it to stop may have gone within the grace time."""
        if job.stop_asked and datetime.now(UTC).timestamp() - _seconds(job.stop_asked) > self.grace + 2 and not loading.exposed():
            processes.signal_group(job.pid, signal.SIGKILL)

    def _read(self, id: str) -> Job | None:
        """None for what is not there or is no job; a folder of runs may come from somebody else."""
        place = self.folder / id
        try:
            return None if place.is_symlink() else parse(id, disk.read_json(place / "job.json"))
        except OSError:
            return None

    def _write(self, job: Job) -> None:
        """Whole or not at all: written aside, then renamed."""
        with disk.explained(self.folder / job.id, "cannot be written"):
            disk.write_json(self.folder / job.id / "job.json", asdict(job))

    @contextlib.contextmanager
    def _lock(self, make: bool = False) -> Iterator[bool]:
        """One at a time on this machine, whichever browser tab or server asks. False where there is no folder to write in."""
        try:
            if make:
                self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            if make:
                raise disk.store_error(error, self.folder, "cannot hold jobs") from error
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(handle)


# --- small questions -----------------------------------------------------------------------------


def _free(known: Sequence[Job]) -> list[str]:
    """Slots that no job is in. A job of which no slot was written down may be in any."""
    running = [job for job in known if not job.queued and not job.ended]
    return [] if any(not job.slots for job in running) else queueing.left([slot for job in running for slot in job.slots])


def _seconds(when: str) -> float:
    try:
        return datetime.fromisoformat(when).timestamp()
    except (ValueError, OverflowError):
        return float("inf")


def _imports() -> dict[str, str]:
    """The installed packages, or those of this checkout, and never a folder named `app` that lies where the dashboard was started."""
    own = [str(_PROJECT)] if (_PROJECT / "pyproject.toml").is_file() else []
    paths = [*own, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def _refuse_exposed(verb: str) -> None:
    if loading.exposed():
        raise ConfigError(f"this server can be reached from other machines and has no login, so it {verb} nothing; bind it to 127.0.0.1")


def _refuse_foreign_code(argv: Sequence[str]) -> None:
    """Consent to run a model's own code is typed by a person: no link to a filled form may give it."""
    if any("trust_remote_code" in word.replace("-", "_") for word in argv if word != "--no-trust-remote-code"):
        raise ConfigError("--trust-remote-code lets the model's repository run its code, so it is not started from here; type the command in a terminal")


# --- its process ---------------------------------------------------------------------------------


def _alive(job: Job) -> bool:
    return processes.alive(job.pid, job.started, job.argv)


def _adopted(job: Job) -> Job:
    """The job with the process that carries its id: its server died between starting it and writing that down."""
    pid = processes.marked(job.id, job.argv)
    return replace(job, pid=pid, started=processes.start_time(pid)) if pid else job


def _exit_code(job: Job) -> int | None:
    """How somebody else's child ended: from what it left in the process table, or from its run's own last word."""
    code = processes.left_code(job.pid, job.started)
    if code is not None or job.kind != "train" or job.folder is None:
        return code
    try:
        status = RunStore.open(job.folder).status()
    except InterplayError:
        return None
    return _CODES.get(status.state) if status.pid == job.pid else None


# --- logs ----------------------------------------------------------------------------------------


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log that are not blank, control characters left out; nothing for what is no plain file."""
    if path.is_symlink() or not path.is_file():
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
