"""Detached processes by number, and the proof that a number still means the process that was started.

Numbers are used again. So a process is known by its number, its start time, the session that it leads
and its command; only what has all four is told apart as ours and may be signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

MARK = "INTERPLAY_JOB"  # tells a process which job it is, should its server die before the number is written down


def start_time(pid: int) -> float:
    """Seconds since the epoch; 0 if there is no such process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def leader(pid: int, started: float) -> psutil.Process | None:
    """The process of that number, if it was started then and leads its session. It may have ended already."""
    try:
        process = psutil.Process(pid) if pid > 1 else None
        same = process is not None and abs(process.create_time() - started) < 1.0 and os.getpgid(pid) == pid == os.getsid(pid)
    except (psutil.Error, OSError):
        return None
    return process if same else None


def alive(pid: int, started: float, argv: Sequence[str]) -> bool:
    """Whether the process runs and still is the one that was started."""
    process = leader(pid, started)
    if process is None:
        return False
    try:
        words = process.cmdline()  # empty for a moment while the process is being started
        return bool(process.status() != psutil.STATUS_ZOMBIE and (not words or words[1:] == list(argv[1:])))
    except psutil.Error:
        return False


def marked(mark: str, argv: Sequence[str]) -> int:
    """The number of the process that runs this command and carries this mark in its environment; 0 if there is none."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cmdline()[1:] == list(argv[1:]) and process.environ().get(MARK) == mark and os.getsid(process.pid) == process.pid:
                return int(process.pid)
    return 0


def left_code(pid: int, started: float) -> int | None:
    """How a process ended that its parent has not asked after yet (Linux); None where that cannot be known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text() if leader(pid, started) else ""
        return os.waitstatus_to_exitcode(int(stat.rsplit(")", 1)[1].split()[49]))  # field 52, exit_code: proc(5)
    return None


def signal_group(pid: int, number: signal.Signals) -> None:
    """To a process and what it started. The caller has made sure whose it is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
