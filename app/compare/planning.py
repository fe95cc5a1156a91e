"""A comparison as a form describes it: its command line, its plan, what is wrong with it, and how long it will take.

No widgets and no torch. What only the engine knows (is there such a method, has it such a setting, which GPUs are there) is asked of a
process of its own, in the background, once for each command.
"""

from __future__ import annotations

import platform
import re
import shlex
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from app import cli
from app.commands import engine
from app.commands.engine import Answer
from app.commands.progress import about
from app.compare.standings import RowNow
from interplay import compare
from interplay.compare import BUDGET, CONTROLS, SAME, WARM, Plan, Row
from interplay.config import RunConfig, flag
from interplay.errors import ConfigError, allowed, nearest

USUAL_SEEDS, USUAL_WARM = "3", "rloo"
TOLD = {"new": "to do", "resume": "to go on with", "aside": "to do again", "running": "running", "finished": "finished"}
_NAME_LENGTH = 60
_KEPT_ANSWERS = 32


def usual(name: str) -> Any:
    """What a setting is where nothing is typed: that of `interplay compare`, else that of `interplay train`."""
    return BUDGET.get(name, getattr(RunConfig(), name))


@dataclass(frozen=True)
class Form:
    """A comparison as it was filled in. `warm` is the method of the run that all rows start from, `start` a recorded one in its place.

    `controls` is None for those that are one anyway. `settings` are fields of `RunConfig`; what is usual need not be among them.
    """

    arms: tuple[str, ...]
    seeds: str = USUAL_SEEDS
    warm: str | None = USUAL_WARM
    start: str | None = None
    controls: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """The words after `interplay compare`, without `--out`: only what is not usual."""
        found = [*_typed("--methods", ",".join(self.arms))]
        found += _typed("--seeds", self.seeds) if self.seeds != USUAL_SEEDS else []
        for name, value in self.settings.items():
            found += _typed(flag(name), str(value)) if value != usual(name) else []
        if self.start:
            found += _typed("--from", self.start)
        elif self.warm != USUAL_WARM:
            found += _typed("--warm", self.warm or "none")
        if self.controls is not None and set(self.controls) != set(born_controls(self.arms)):
            found += _typed("--controls", ",".join(self.controls) or "none")
        return tuple(found)


def _typed(name: str, value: str) -> list[str]:
    """A value that begins with a dash would be taken for a flag."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def born_controls(arms: Iterable[str]) -> list[str]:
    """Arms that are controls unless something else is said."""
    return [arm for arm in arms if {arm, arm.partition(":")[0]} & CONTROLS]


def argv(words: Sequence[str], out: Path) -> list[str]:
    """The process that carries the plan out: no shell, one list element per word."""
    return [sys.executable, "-m", "app.cli", "compare", *words, *_typed("--out", short(out))]


def short(out: Path) -> str:
    """As one would type it here."""
    here = Path.cwd()
    return str(out.relative_to(here)) if out.is_relative_to(here) else str(out)


# --- the plan --------------------------------------------------------------------------------------


def free_name(arms: Iterable[str], root: Path) -> str:
    """A folder name that says which arms are compared and that nothing has yet."""
    plain = re.sub(r"[^a-z0-9]+", "-", "-".join(arms).lower()).strip("-")[:_NAME_LENGTH].strip("-") or "comparison"
    number = 1
    while (root / (name := plain if number == 1 else f"{plain}-{number}")).exists():
        number += 1
    return name


def folder(name: str, root: Path) -> Path:
    """Where a comparison of that name goes. Raises `ConfigError` for a name that leads out of `root`."""
    plain = bool(name) and not name.startswith((".", "_", "-")) and not re.search(r"[/\\\x00-\x1f]", name) and len(name) <= 3 * _NAME_LENGTH
    if not plain or (root / name).resolve().parent != root.resolve():
        raise ConfigError(f"the folder is {name[:80]!r}; it must be one name without slashes that begins with a letter or digit, such as zopro-rloo")
    return root / name


def plan_of(words: Sequence[str], out: Path, known: Collection[str] = ()) -> Plan:
    """The rows of a command, without asking the engine. `known` are its methods, where they were asked for already.

    Raises `ConfigError` or `StoreError` with one line: what is wrong with the command, or what stands in the folder.
    """
    plan = cli.planned([*words, *_typed("--out", short(out))])
    for method in dict.fromkeys(row.config.method for row in plan.rows):
        if known and method not in known and "+" not in method:
            raise ConfigError(f"--methods names {method!r}, which is no method{nearest(method, known)}; allowed: {allowed(known)}")
    compare.agree(plan)
    return plan


def rows(plan: Plan) -> list[dict[str, Any]]:
    """The plan as a table. Raises `StoreError` if a row's folder holds another run."""
    return [
        {
            "row": row.name,
            "method": row.method,
            "seed": row.seed,
            "control": row.control,
            "now": TOLD[compare.standing(row)],
            "command": shlex.join(["interplay", *row.argv]),
        }
        for row in plan.rows
    ]


def shared_words(plan: Plan) -> str:
    """What is equal in all rows but the controls, in one line."""
    return ", ".join(f"{key} {value}" for key, value in compare.budget(plan).items() if value is not None)


# --- the same again --------------------------------------------------------------------------------


def words_again(plan: Plan) -> tuple[str, ...] | None:
    """The words after `interplay compare`, without `--out`, that make a recorded plan once more; None if none are found.

    The settings of the first row that is no control are taken for common, what differs in other rows is said with `--for`, and the answer
    counts only if it makes the very same plan.
    """
    try:
        first = Form(plan.methods, _seed_words(plan), plan.warm.method if plan.warm else None, _start(plan), tuple(sorted(plan.controls)))
        words = (*first.words, *_common(plan))
        made = cli.planned([*words, "--out", str(plan.out)])
        words = (*words, *_exceptions(plan, made))
        again = cli.planned([*words, "--out", str(plan.out)])
    except (ConfigError, OSError):
        return None
    return words if len(again.rows) == len(plan.rows) and compare.difference(plan, again) is None else None


def _seed_words(plan: Plan) -> str:
    seeds = list(dict.fromkeys(row.seed for row in plan.arms))
    return str(len(seeds)) if seeds == list(range(len(seeds))) else ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _start(plan: Plan) -> str | None:
    return None if plan.warm else plan.arms[0].config.start_from


def _common(plan: Plan) -> list[str]:
    """Flags of the first row that is no control, without what its arm sets by itself."""
    row = next((row for row in plan.arms if not row.control), plan.arms[0])
    own = compare.parted(row.method)[1]
    found: list[str] = []
    for name, value in row.config.to_mapping().items():
        if name in ("method", "seed", "out", "start_from") or name in own:
            continue
        if name == "settings":
            found += [word for key, item in value.items() if key not in own for word in ("--set", f"{key}={_plain(item)}")]
        elif name == "dtype" and value == "float32":  # what a comparison makes of `auto`
            continue
        elif value != usual(name) and isinstance(value, bool):
            found.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        elif value != usual(name) and value is not None:
            found += _typed(flag(name), str(value))
    return found


def _exceptions(plan: Plan, made: Plan) -> list[str]:
    """`--for` what differs between a recorded row and the one that common settings make of it."""
    theirs = {row.name: row for row in made.rows}
    found: dict[str, None] = {}  # each once, in order
    for row in plan.rows:
        if row.name not in theirs:
            continue
        target = WARM if row.name == WARM else compare.parted(row.method)[0]
        ours, other = _flat(row.config), _flat(theirs[row.name].config)
        found |= {f"{target}:{key}={_plain(value)}": None for key, value in ours.items() if value != other.get(key)}
    return [part for word in found for part in ("--for", word)]


def _flat(config: RunConfig) -> dict[str, Any]:
    """Settings of objective and update rule beside the others; what the plan decides left out."""
    plain = config.to_mapping()
    own = plain.pop("settings")
    return {key: value for key, value in {**plain, **own}.items() if key not in ("method", "seed", "out", "start_from")}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- what the engine says --------------------------------------------------------------------------

_WORKER = ThreadPoolExecutor(1, thread_name_prefix="plans")
_LOCK = threading.Lock()
_ANSWERS: OrderedDict[tuple[str, ...], Future[Answer]] = OrderedDict()


def ask(words: tuple[str, ...], plan: Plan) -> Future[Answer]:
    """Whether the engine takes these rows and on which GPUs, on its way; its exception is the refusal.

    One process at a time, since each imports torch: a question that has not begun gives way to a newer one.
    """
    with _LOCK:
        found = _ANSWERS.pop(words, None)
        if found is None or found.cancelled():
            for earlier in _ANSWERS.values():
                earlier.cancel()
            found = _WORKER.submit(engine.ask, _one_of_each(plan.rows))
        _ANSWERS[words] = found
        while len(_ANSWERS) > _KEPT_ANSWERS:
            _ANSWERS.popitem(last=False)
    return found


def _one_of_each(rows: Sequence[Row]) -> list[RunConfig]:
    """Seeds of an arm differ in nothing that the engine could refuse."""
    return list({(row.name == WARM, row.method): row.config for row in reversed(rows)}.values())[::-1]


# --- how long it takes -----------------------------------------------------------------------------

#: What a row's time depends on, beside its method and the machine.
_TIMED = (*(name for name in SAME if not name.startswith("seed")), "tune", "lora_rank", "lora_targets", "layers", "dtype", "threads")


@dataclass(frozen=True)
class Time:
    """What a plan will take. `seconds` is None if a method has no earlier row to go by; those are `unknown`.

    `rests_on` counts earlier rows; `here` says that all of them computed on this very machine.
    """

    seconds: float | None
    rests_on: int = 0
    unknown: tuple[str, ...] = ()
    here: bool = True

    def __str__(self) -> str:
        if self.seconds is None:
            return f"unknown: no finished row of {', '.join(self.unknown)} with this budget is recorded from a machine like this one"
        where = "this machine" if self.here else "a machine like this one"
        return f"{about(self.seconds)}, by {self.rests_on} earlier row{'s' if self.rests_on > 1 else ''} with this budget on {where}"


def forecast(plan: Plan, earlier: Iterable[RowNow], gpus: Sequence[str], devices: int = 1) -> Time:
    """Seconds that the unfinished rows will take, from those of finished rows alike. `gpus` are names, none for the CPU.

    Rows from a machine of the same kind count where this very one has made none alike.
    """
    timed = [past for past in earlier if past.seconds is not None and _same_kind(past.machine, gpus)]
    alike, own = _seconds(timed), _seconds(past for past in timed if past.host == socket.gethostname())
    known = alike | own
    left = [row for row in plan.rows if compare.standing(row) != "finished"]
    unknown = tuple(dict.fromkeys(row.method for row in left if _like(row.config) not in known))
    if unknown:
        return Time(None, unknown=unknown)
    means = {row.name: sum(found) / len(found) for row in left if (found := known[_like(row.config)])}
    first, kinds = means.pop(WARM, 0.0), {_like(row.config) for row in left}
    return Time(first + sum(means.values()) / max(1, devices), sum(len(known[kind]) for kind in kinds), here=kinds <= set(own))


def _seconds(rows: Iterable[RowNow]) -> dict[tuple[Any, ...], list[float]]:
    """Of each kind of row, what those of it took."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for past in rows:
        found.setdefault(_like(past.row.config), []).append(past.seconds or 0.0)
    return found


def _like(config: RunConfig) -> tuple[Any, ...]:
    return (config.method, *sorted(config.settings.items()), *(getattr(config, name) for name in _TIMED))


def _same_kind(machine: Mapping[str, Any], gpus: Sequence[str]) -> bool:
    """Whether a run computed on a machine of this kind, as far as it says. Whether on this very one, only its host tells."""
    if gpus:
        return machine.get("device") == "cuda" and machine.get("name") in gpus
    threads = (psutil.cpu_count(), psutil.cpu_count(logical=False))
    same = (machine.get("name"), machine.get("system")) == (platform.machine(), platform.system())
    return same and machine.get("device") == "cpu" and machine.get("threads") in threads
