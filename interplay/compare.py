"""A plan: arms x seeds under one budget, each row a complete `interplay train` command line of its own.

    interplay compare --methods rloo,zopro,zopro:mode=wrong_v --seeds 3 --out runs/compare

An arm is a method, or a method with settings of its own behind colons. Here a plan is made, checked, written
down and compared with the one that stands in its folder, which may grow by arms and seeds, and the state of
each row is read from disk. Nothing is started here, and whether a method exists is asked of the
engine elsewhere (app/commands/engine.py): this file needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from interplay import disk, kept
from interplay.config import RunConfig, plain
from interplay.errors import ConfigError, StoreError, allowed, nearest
from interplay.reading import RUN, RunReader, read_info, refuse_no_run

PLAN, LOCK, LOGS, WARM = "plan.json", "compare.lock", "logs", "warm"
#: What a row spends unless it is typed: one iteration, since a warm start has made the one before, and few judged pairs, which come after its updates.
BUDGET: Mapping[str, Any] = {"iterations": 1, "updates": 12, "pairs": 8, "reward_updates": 2, "heldout_pairs": 4}
#: But the warm start makes the reward model that all rows are trained against, and an early start leaves them something to gain: it is a run of the usual size.
WARM_BUDGET: Mapping[str, Any] = {name: getattr(RunConfig(), name) for name in ("updates", "pairs", "reward_updates")}
#: Methods that spend less on purpose: they show what a method adds to doing next to nothing.
CONTROLS = frozenset({"extrapolate"})
#: One budget, and the same texts under the same judge: what must be equal in all rows but the controls.
SAME = (
    *("prompts", "completions", "max_new_tokens", "updates", "iterations", "inner_epochs", "minibatches", "reward_updates", "pairs", "heldout"),
    *("task", "data", "data_split", "data_rows", "seed_data", "seed_sampling", "model", "reward", "judge", "judge_model"),
    *("max_prompt_tokens", "temperature", "heldout_pairs"),  # these decide which prompts are scored, and how answers to them are drawn
)
#: The plan itself decides these.
_PLANNED = {"method": "--methods", "seed": "--seeds", "out": "--out", "start_from": "--from", "settings": "--for METHOD:NAME=VALUE"}
_FIELDS = {item.name for item in fields(RunConfig)}
_MOST_SEEDS = 1000
_PHASE = 6  # updates that take as long as a scoring of 64 prompts, on two cores with the bundled model

Standing = Literal["new", "resume", "aside", "running", "finished"]
Overrides = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Row:
    """One run of the plan. `method`: the arm as it was named. `control`: exempt from the common budget, and marked wherever it is shown."""

    name: str
    method: str
    seed: int
    config: RunConfig
    control: bool = False

    @property
    def folder(self) -> Path:
        return Path(str(self.config.out))

    @property
    def argv(self) -> list[str]:
        """The words after `interplay` that make this row."""
        return ["train", *self.config.to_argv()]

    @property
    def weight(self) -> int:
        """The row's part in the progress of the plan: policy updates, and a scoring or a reward phase as about six of them."""
        return self.config.iterations * (self.config.updates + 2 * _PHASE) + _PHASE


@dataclass(frozen=True)
class Plan:
    """All rows in the order in which they run; a warm-up, if there is one, comes first."""

    out: Path
    rows: tuple[Row, ...]

    @property
    def warm(self) -> Row | None:
        """The run that the others start from."""
        return next((row for row in self.rows if row.name == WARM), None)

    @property
    def arms(self) -> tuple[Row, ...]:
        """The rows that are compared."""
        return tuple(row for row in self.rows if row.name != WARM)

    @property
    def methods(self) -> tuple[str, ...]:
        """As they were named; the first is the one that the others are held against."""
        return tuple(dict.fromkeys(row.method for row in self.arms))

    @property
    def controls(self) -> frozenset[str]:
        return frozenset(row.method for row in self.arms if row.control)

    def log(self, row: Row) -> Path:
        return self.out / LOGS / f"{row.name}.log"


# --- making ----------------------------------------------------------------------------------------


def plan(
    shared: RunConfig,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    overrides: Overrides | None = None,
    controls: Collection[str] = CONTROLS,
    warm: str | None = None,
) -> Plan:
    """Arms x seeds. `warm` names the method of a first run that all rows start from, unless `shared` names a run already.

    `overrides` and `controls` name methods or single arms. Raises `ConfigError` for repeated arms or seeds and for unequal budgets.
    """
    _refuse_repeated("--methods", methods)
    _refuse_repeated("--seeds", seeds)
    chosen = overrides or {}
    first = None if warm is None or shared.start_from else _warm_up(shared, warm, seeds[0], out, chosen)
    start = str(first.folder) if first else _checked_start(shared.start_from)
    arms = [_row(_starting_from(shared, start), arm, seed, out, chosen, bool({arm, parted(arm)[0]} & set(controls))) for seed in seeds for arm in methods]
    _refuse_repeated("--methods", [row.name for row in arms])
    _refuse_unequal(arms)
    return Plan(out, (*([first] if first else ()), *arms))


def _starting_from(config: RunConfig, run: str | None) -> RunConfig:
    """The one place that knows how a row is told which run it goes on from."""
    return config.with_(start_from=run)


def _warm_up(shared: RunConfig, method: str, seed: int, out: Path, overrides: Overrides) -> Row:
    own = {**overrides.get(method, {}), **overrides.get(WARM, {})}
    row = _row(shared, method, seed, out, {method: own}, False)
    return Row(WARM, method, seed, row.config.with_(iterations=1, out=str(out / WARM)))


def _row(shared: RunConfig, arm: str, seed: int, out: Path, overrides: Overrides, control: bool) -> Row:
    method, own = parted(arm)
    name = f"{disk.slug(re.sub('[+_:=]', '-', arm))}-s{seed}"
    raw = {**shared.to_mapping(), "method": method, "seed": seed, "out": str(out / name)}
    settings = dict(shared.settings)
    for key, value in {**overrides.get(method, {}), **own}.items():
        if key in _FIELDS:
            raw[key] = value
        else:
            settings[key] = plain(value)
    return Row(name, arm, seed, RunConfig.from_mapping({**raw, "settings": settings}, source=f"--methods {arm}"), control)


def parted(arm: str) -> tuple[str, dict[str, str]]:
    """`zopro:mode=wrong_v` -> the method, and what this arm alone sets. Raises `ConfigError`."""
    method, *words = arm.split(":")
    own: dict[str, str] = {}
    for word in words:
        key, value = _assigned(word, f"--methods names {arm!r}", "write METHOD:KEY=VALUE, such as zopro:mode=wrong_v")
        if key in own:
            raise ConfigError(f"--methods names {arm!r}, which sets {key} twice; write it once")
        own[key] = value
    return method, own


def _assigned(word: str, where: str, how: str) -> tuple[str, str]:
    """`learning-rate=1e-4` -> key and value. Raises `ConfigError` for anything else, and for what the plan itself decides."""
    key, equals, value = word.partition("=")
    key = key.strip().replace("-", "_")
    if not (key and equals and value.strip()):
        raise ConfigError(f"{where}; {how}")
    if key in _PLANNED:
        raise ConfigError(f"{where}, but the plan sets {key}; use {_PLANNED[key]}")
    return key, value.strip()


def _checked_start(run: str | None) -> str | None:
    if run is None:
        return None
    folder, iteration = kept.parted(run)
    refuse_no_run("--from", folder)
    if not (resumable(folder) if iteration is None else kept.complete(kept.place(folder, iteration))):
        which = "no complete iteration" if iteration is None else "no complete checkpoint of that iteration"
        raise ConfigError(f"--from is {run!r}, which has {which} to start from; let that run finish one, or choose another")
    return run


def _refuse_repeated(argument: str, values: Sequence[str] | Sequence[int]) -> None:
    if not values:
        raise ConfigError(f"{argument} is empty; name at least one")
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise ConfigError(f"{argument} names {twice!r} twice; name each once")


def _refuse_unequal(rows: Sequence[Row]) -> None:
    """One budget for all rows but the controls."""
    bound = [row for row in rows if not row.control]
    for row in bound[1:]:
        for key in SAME:
            ours, theirs = getattr(row.config, key), getattr(bound[0].config, key)
            if ours != theirs:
                raise ConfigError(
                    f"{key} is {ours!r} for {row.method} but {theirs!r} for {bound[0].method}; it must be equal in all rows: "
                    f"leave it out of --for, or name {row.method} in --controls"
                )


# --- what is typed ---------------------------------------------------------------------------------


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3` -> 0, 1, 2; `3,5,8` -> those. Raises `ConfigError`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isascii() and word.isdecimal() and len(word) <= 16 for word in words):
        raise ConfigError(f"--seeds is {text!r}; write how many (3 means seeds 0, 1, 2), or a list such as 3,5,8")
    numbers = [int(word) for word in words]
    if "," in text:
        return tuple(numbers)
    if not 1 <= numbers[0] <= _MOST_SEEDS:
        raise ConfigError(f"--seeds is {text!r}; it must be at least 1 and at most {_MOST_SEEDS}, or a list such as 3,5,8")
    return tuple(range(numbers[0]))


def parse_names(argument: str, text: str) -> tuple[str, ...]:
    """`a,b` -> those. Raises `ConfigError` for none, or for one twice."""
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    _refuse_repeated(argument, names)
    return names


def parse_overrides(words: Iterable[str], methods: Collection[str]) -> dict[str, dict[str, str]]:
    """`dpo:learning-rate=1e-4` for each `--for` -> method -> key -> value. Raises `ConfigError`."""
    found: dict[str, dict[str, str]] = {}
    for word in words:
        method, _, rest = word.partition(":")
        key, value = _assigned(rest if method else "", f"--for is {word!r}", "write METHOD:KEY=VALUE, such as --for dpo:learning-rate=1e-4")
        if method not in methods:
            raise ConfigError(f"--for is {word!r}, but {method!r} is not compared here{nearest(method, methods)}; allowed: {allowed(methods)}")
        if key in found.setdefault(method, {}):
            raise ConfigError(f"--for names {method}:{key} twice; write it once")
        found[method][key] = value
    return found


# --- the plan on disk ------------------------------------------------------------------------------


def agree(asked: Plan) -> Plan | None:
    """The plan that stands in the folder, if there is one. Raises `ConfigError` that names the first difference if it is another, or if a run stands there."""
    if (asked.out / RUN).exists():
        raise ConfigError(f"--out is {str(asked.out)!r}, which is the folder of a run; choose another folder for the comparison")
    recorded = read(asked.out)
    if recorded is not None and (differs := difference(recorded, asked)):
        raise ConfigError(f"{asked.out / PLAN} holds another plan: {differs}; type the command that made it, or choose another --out")
    return recorded


def settle(asked: Plan) -> None:
    """Write the plan down where none stands yet, or a smaller one. Call it `alone`."""
    recorded = agree(asked)
    _make(asked.out)
    if recorded is None or len(recorded.rows) < len(asked.rows):
        with disk.explained(asked.out / PLAN, "cannot be written"):
            disk.write_json(asked.out / PLAN, _to_json(asked))


def _make(out: Path) -> None:
    with disk.explained(out, "cannot be made"):
        disk.make_folder(out)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One process runs the plan of a folder, which is made where it is missing. Raises `StoreError` that names the other one."""
    _make(out)
    with disk.explained(out, "cannot be locked"):
        lock = disk.lock(out / LOCK, "run", "wait for its end, or stop it")
    try:
        yield
    finally:
        lock.release()


def _to_json(made: Plan) -> dict[str, Any]:
    rows = [{"name": row.name, "method": row.method, "seed": row.seed, "control": row.control, "argv": row.argv} for row in made.rows]
    return {"out": str(made.out), "budget": budget(made), "rows": rows}


def budget(made: Plan) -> dict[str, Any]:
    """What all rows but the controls have in common."""
    bound = [row for row in made.arms if not row.control] or list(made.arms)
    return {key: getattr(bound[0].config, key) for key in SAME}


def read(out: Path) -> Plan | None:
    """The plan that stands in a folder, wherever that folder lies now; None if there is none. Raises `StoreError`."""
    try:
        raw = disk.read_json(out / PLAN)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Plan(out, tuple(_read_row(row, str(raw["out"]), out) for row in raw["rows"]))
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise StoreError(f"{out / PLAN} is damaged or of another version: {error}; choose another --out") from error


def _read_row(raw: Mapping[str, Any], was: str, out: Path) -> Row:
    config = RunConfig.from_argv([str(word) for word in raw["argv"][1:]])
    config = _starting_from(config, _moved(config.start_from, was, out)).with_(out=_moved(config.out, was, out))
    return Row(str(raw["name"]), str(raw["method"]), config.seed, config, raw["control"] is True)


def _moved(path: str | None, was: str, out: Path) -> str | None:
    """A path inside the comparison, after its folder was moved or is named in another way."""
    return str(out / Path(path).relative_to(was)) if path and Path(path).is_relative_to(was) else path


def difference(recorded: Plan, asked: Plan) -> str | None:
    """Why the recorded rows are not all rows of what is asked, in words, or None: a plan may grow, but what stands in it stays."""
    ours = {row.name: row for row in asked.rows}
    for old in recorded.rows:
        new = ours.get(old.name)
        if new is None:
            return f"it has {old.name}, which this command leaves out"
        if told := next(_differing(old.config, new.config), None):
            return f"{told[0]} of {new.name} is {told[1]!r} there and {told[2]!r} here"
        if old.control != new.control:
            return f"{new.method} is {'a' if old.control else 'no'} control there"
    return None


def _differing(old: RunConfig, new: RunConfig, leave_out: Collection[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    theirs, ours = old.to_mapping(), new.to_mapping()
    return ((key, theirs[key], ours[key]) for key in ours if ours[key] != theirs[key] and key not in leave_out)


# --- rows on disk ----------------------------------------------------------------------------------


def standing(row: Row) -> Standing:
    """What there is to do for a row. Raises `StoreError` if its folder holds another run."""
    if not (row.folder / RUN).exists():
        return "new"
    try:
        info = read_info(row.folder)
        state = RunReader(row.folder, info).status().shown()
        held = RunConfig.from_mapping(info.config, source=str(row.folder / RUN))
    except (StoreError, ConfigError):
        return "aside"
    # a run keeps its own seal on trust, and relative or moved folders are the same folder
    if told := next(_differing(held, row.config, ("out", "start_from", "trust_remote_code")), None):
        raise StoreError(f"{row.folder} holds another run: {told[0]} is {told[1]!r} there and {told[2]!r} in the plan; move it away")
    if state in ("finished", "running"):
        return "finished" if state == "finished" else "running"
    return "resume" if resumable(row.folder) else "aside"


def resumable(folder: Path) -> bool:
    """Whether an iteration was sealed. Its sizes are checked when it is read; where none holds, a resumed run begins anew."""
    return any((folder / "checkpoints").glob("iteration-*/COMPLETE"))


def set_aside(row: Row) -> Path:
    """Give the row a clean folder; what was recorded is renamed, never deleted."""
    number = 1
    while (target := row.folder.with_name(f"{row.name}.broken-{number}")).exists():
        number += 1
    with disk.explained(row.folder, f"cannot be renamed to {target.name}"):
        row.folder.rename(target)
    return target
