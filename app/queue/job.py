"""One job: what is written down of it, and what its words say."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any


@dataclass(frozen=True)
class Job:
    """One command. `state`: queued, running, stopping, finished, failed, stopped, or ended where nobody saw how."""

    id: str
    argv: list[str]
    created: str
    pid: int = 0
    started: float = 0.0
    key: str = ""
    stop_asked: str | None = None
    exit: int | None = None
    ended: bool = False
    cwd: str = ""
    queued: bool = False
    slots: list[str] = field(default_factory=list)
    seal: str = ""

    @property
    def state(self) -> str:
        if self.queued:
            return "queued"
        if not self.ended:
            return "stopping" if self.stop_asked else "running"
        if self.stop_asked:
            return "stopped"
        return "ended" if self.exit is None else "finished" if self.exit == 0 else "failed"

    @property
    def command(self) -> str:
        """The words to type."""
        return command_line(self.argv)

    @property
    def kind(self) -> str:
        """The subcommand: train, compare, import, ...; empty for a command that is not ours."""
        return self.argv[3] if len(self.argv) > 3 and self.argv[1:3] == ["-m", "app.cli"] else ""

    @property
    def folder(self) -> Path | None:
        """Where the run or comparison is, from `--out` or `--resume`; None where the command leaves that to its default."""
        named = _value(self.argv, "--resume") or _value(self.argv, "--out")
        try:
            return (Path(self.cwd or ".") / named).resolve() if named else None
        except (OSError, ValueError, RuntimeError):
            return None


_KINDS: dict[str, tuple[type, ...]] = {
    "argv": (list,),
    "created": (str,),
    "pid": (int,),
    "started": (int, float),
    "key": (str,),
    "stop_asked": (str, NoneType),
    "exit": (int, NoneType),
    "ended": (bool,),
    "cwd": (str,),
    "queued": (bool,),
    "slots": (list,),
    "seal": (str,),
}


def command_line(argv: list[str]) -> str:
    """`interplay train ...` in place of the interpreter's own path."""
    words = ["interplay", *argv[3:]] if argv[1:3] == ["-m", "app.cli"] else argv
    return shlex.join(words)


def parse(id: str, raw: dict[str, Any]) -> Job | None:
    """The job under the name of its own folder, whatever the file says it is called; None if a value is not what it should be."""
    known = {name: raw[name] for name in _KINDS if name in raw}
    wrong = any(not isinstance(value, _KINDS[name]) for name, value in known.items())
    if wrong or not {"argv", "created"} <= set(known) or not known["argv"]:
        return None
    if not _texts([*known["argv"], *known.get("slots", []), *(value for value in known.values() if isinstance(value, str))]):
        return None
    return Job(id=id, **known) if 0 <= known.get("pid", 0) < 2**31 else None


def _texts(values: Sequence[Any]) -> bool:
    """Whether all are texts that a page can show: JSON can hold halves of characters."""
    try:
        return bool("".join(values).encode("utf-8") or True)
    except (TypeError, UnicodeEncodeError):
        return False


def _value(argv: Sequence[str], flag: str) -> str | None:
    """The last value of a flag, in either spelling."""
    named = [after if word == flag else word.removeprefix(f"{flag}=") for word, after in itertools.pairwise([*argv, ""]) if word.split("=")[0] == flag]
    return named[-1] if named else None
