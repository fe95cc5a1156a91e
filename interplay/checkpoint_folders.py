"""Which folders hold the checkpoints of one training: names and numbers, never tensors.

    checkpoint-10/  checkpoint-20/ ...                    any trainer of transformers or TRL
    reward_model_iter_0/reward/  policy_model_iter_0/pl/  VisZOPrO's loop: adapters in folders of their own names
    epoch_*/step_{step}/policy                            a pattern that a person types

A *series* is one set of folders whose paths differ in their numbers only. Nothing is guessed: where two
series would do for a role, or none, the error lists patterns that can be typed. Symbolic links are
refused, because a folder of somebody else may point anywhere. Reads two small JSON files at most.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from interplay import disk
from interplay.errors import ConfigError, ModelError, StoreError
from interplay.records import Role

#: Files that hold weights, the first that is there counts.
INDEX = "model.safetensors.index.json"
WEIGHTS = ("adapter_model.safetensors", "model.safetensors", INDEX, "weights.safetensors")
STEP = "{step}"

_PICKLE = re.compile(r"(adapter_model|pytorch_model|model|weights|consolidated)[^/]*\.(bin|pt|pth|ckpt|pkl)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:.*[-_.])?(?:checkpoint|ckpt|step|iteration|iter|epoch|update|round|chunk)[-_.]?(\d{1,18})|(\d{1,18})", re.IGNORECASE)
_WORDS: dict[str, Role] = {"policy": "policy", "pl": "policy", "actor": "policy", "reward": "reward", "rm": "reward"}
_ASIDE = frozenset({"sft", "ref", "reference", "frozen", "merged", "value", "critic", "optimizer"})
_TASKS: dict[str, Role | None] = {"SEQ_CLS": "reward", "TOKEN_CLS": None}
_ENDS: dict[str, Role | None] = {"ForSequenceClassification": "reward", "ForTokenClassification": None}
_DEPTH, _MOST = 8, 200_000


@dataclass(frozen=True)
class Checkpoint:
    """One folder of weights. `name` is its path below the imported folder, `step` the numbers in it that differ."""

    folder: Path
    name: str
    step: tuple[int, ...] = ()


@dataclass(frozen=True)
class Series:
    """Checkpoints in the order of their numbers; `pattern` finds them again."""

    pattern: str
    checkpoints: tuple[Checkpoint, ...]

    @property
    def head(self) -> str:
        """The pattern up to the last numbered folder."""
        return self.pattern[: self.pattern.rfind(STEP)] + STEP if STEP in self.pattern else self.pattern


@dataclass(frozen=True)
class Found:
    """A series for each role that has one, where the policy started if the folder says so, and what was not taken."""

    series: dict[Role, Series]
    start: Checkpoint | None = None
    left_out: tuple[str, ...] = ()


def find(root: Path, patterns: dict[Role, str]) -> Found:
    """The checkpoints in `root`. Without patterns both roles are looked for.

    Raises `ConfigError` (no such folder, nothing found, more than one answer, a pattern that leads out)
    or `ModelError` (a link, weights in a pickle).
    """
    if not root.is_dir():
        raise ConfigError(f"FOLDER is {str(root)!r}, {'a file' if root.exists() else 'which does not exist'}; give the folder that holds the checkpoints")
    paths = _weight_folders(root)
    if not paths:
        raise ConfigError(f"FOLDER is {str(root)!r}, in which no folder holds {', '.join(WEIGHTS[:2])} or {INDEX}; give the folder that holds the checkpoints")
    return _typed(root, paths, patterns) if patterns else _detected(root, paths)


def single(folder: Path, argument: str) -> Checkpoint:
    """The one folder of weights that was typed. Raises `ConfigError` if it is none, `ModelError` as `find` does."""
    if not folder.is_dir():
        raise ConfigError(f"{argument} is {str(folder)!r}, which is no folder; give a folder with {' or '.join(WEIGHTS[:2])}")
    if "." not in _weight_folders(folder, depth=0):
        raise ConfigError(f"{argument} is {str(folder)!r}, which does not hold {' or '.join(WEIGHTS[:2])}; give the folder that does")
    name = folder.resolve().name
    refuse_pickles(folder, name)
    return Checkpoint(folder, name)


def weight_file(folder: Path) -> Path | None:
    """The safetensors file, or the index of several, that counts; None where there is none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def refuse_pickles(folder: Path, name: str) -> None:
    """Raises `ModelError` for a folder whose weights could run code when they are read."""
    if weight_file(folder) is None:
        pickle = next((entry.name for entry in sorted(folder.iterdir()) if _PICKLE.fullmatch(entry.name)), "a file of another kind")
        raise ModelError(f"{name} holds its weights in {pickle}, a pickle file that could run code; save them again with safe_serialization=True")


# --- what is on disk -------------------------------------------------------------------------------


def _weight_folders(root: Path, depth: int = _DEPTH) -> list[str]:
    """Paths below `root` of the folders that hold weights, pickled ones too; `.` is `root` itself."""
    found, seen = [], 0
    for place, folders, files in os.walk(root):
        name = Path(place).relative_to(root).as_posix()
        seen += len(folders) + len(files)
        if seen > _MOST:
            raise ConfigError(f"FOLDER is {str(root)!r}, which holds more than {_MOST} files; give the folder that holds the checkpoints")
        _refuse_links(root, Path(place), folders, files)
        level = 0 if name == "." else name.count("/") + 1
        folders[:] = sorted(word for word in folders if not word.startswith(".")) if level < depth else []
        if any(word in WEIGHTS or _PICKLE.fullmatch(word) for word in files):
            found.append(name)
    return found


def _refuse_links(root: Path, place: Path, folders: Sequence[str], files: Sequence[str]) -> None:
    """A link among what would be read. Other links are not followed and do no harm."""
    inside = any(_NUMBERED.fullmatch(part) for part in place.relative_to(root).parts)
    candidates = [word for word in folders if inside or _NUMBERED.fullmatch(word)] + [word for word in files if word in WEIGHTS]
    link = next((place / word for word in sorted(candidates) if (place / word).is_symlink()), None)
    if link is not None:
        raise ModelError(f"{link.relative_to(root)} in {root} is a symbolic link, which is not followed; copy the folder with its files (cp -rL), import that")


# --- series ----------------------------------------------------------------------------------------


def _series(root: Path, paths: Sequence[str], pattern: str) -> list[Series]:
    """Folders that a pattern names, or that lie below one that it names; one series for each way below."""
    expression = _expression(pattern)
    groups: dict[str, list[Checkpoint]] = {}
    for path in paths:
        found = expression.fullmatch(f"/{path}" if path != "." else "")
        if found is None:
            continue
        tail, steps = _generalised(found["tail"] or "")
        typed = [int(number) for number in found.groups()[:-1]]
        groups.setdefault(tail, []).append(Checkpoint(root / path, path, (*typed, *steps)))
    return [_ordered((pattern + tail).removeprefix("./") or ".", checkpoints) for tail, checkpoints in sorted(groups.items())]


def _expression(pattern: str) -> re.Pattern[str]:
    """`*` is any part of one name, `{step}` a number; what lies below is the tail. Paths begin with `/`, the root is empty."""
    pieces = {"*": "[^/]*", STEP: r"(\d{1,18})"}
    text = "".join(pieces.get(piece, re.escape(piece)) for piece in re.split(r"(\*|\{step\})", pattern))
    return re.compile(("" if pattern == "." else f"/{text}") + "(?P<tail>/.+)?")


def _generalised(path: str) -> tuple[str, list[int]]:
    """`/iter_3/checkpoint-20/pl` -> `/iter_{step}/checkpoint-{step}/pl` and 3, 20."""
    found = [(part, _NUMBERED.fullmatch(part)) for part in path.split("/")]
    words = [part if match is None else part[: match.start(match.lastindex or 0)] + STEP for part, match in found]
    return "/".join(words), [int(match[match.lastindex or 0]) for _, match in found if match]


def _ordered(pattern: str, checkpoints: Sequence[Checkpoint]) -> Series:
    """In the order of the numbers; numbers that never differ say nothing and are dropped."""
    differs = [len(set(column)) > 1 for column in zip(*(item.step for item in checkpoints), strict=True)]
    if not any(differs):
        differs = [i == len(differs) - 1 for i in range(len(differs))]
    kept = [Checkpoint(c.folder, c.name, tuple(n for n, keep in zip(c.step, differs, strict=True) if keep)) for c in checkpoints]
    kept.sort(key=lambda item: (item.step, item.name))
    twice = next(((a, b) for a, b in pairwise(kept) if a.step == b.step), None)
    if twice:
        raise ConfigError(f"{twice[0].name} and {twice[1].name} have the same number; type a pattern with {STEP} where the numbers differ")
    return Series(pattern, tuple(kept))


# --- roles -----------------------------------------------------------------------------------------


def _typed(root: Path, paths: Sequence[str], patterns: dict[Role, str]) -> Found:
    series: dict[Role, Series] = {}
    left_out: list[str] = []
    for role, typed in patterns.items():
        pattern = _checked(role, typed, root)
        every = _series(root, paths, pattern)
        exact = [item for item in every if item.pattern == pattern and STEP in pattern]
        fitting = exact or [item for item in every if _said(item.pattern.removeprefix(pattern)) in ("", role)]
        series[role] = _chosen(role, fitting, every or _series(root, paths, "."), f"--{role} is {typed!r}", left_out)
    return Found(series, None, tuple(left_out))


def _checked(role: str, typed: str, root: Path) -> str:
    """A pattern that stays inside the folder. Raises `ConfigError`."""
    pattern = typed.strip().removeprefix("./").rstrip("/") or "."
    if typed.startswith("/") or ".." in typed.split("/") or "\0" in typed or not typed.strip():
        raise ConfigError(f"--{role} is {typed!r}; it must be a path or pattern below {root}, such as checkpoint-{STEP}")
    if re.search(r"[{}]", pattern.replace(STEP, "")):
        raise ConfigError(f"--{role} is {typed!r}; only {STEP} may stand in braces, and * for any part of a name")
    return pattern


def _detected(root: Path, paths: Sequence[str]) -> Found:
    """Both roles from the words in the paths, or else from what the folders say of themselves."""
    every = _series(root, paths, ".")
    roles = [_role(item) for item in every]
    left_out = [item.pattern for item, role in zip(every, roles, strict=True) if role is None]
    series: dict[Role, Series] = {}
    for role in ("policy", "reward"):
        fitting = [item for item, own in zip(every, roles, strict=True) if own == role and STEP in item.pattern]
        left_out += [item.pattern for item, own in zip(every, roles, strict=True) if own == role and STEP not in item.pattern]
        if fitting:
            series[role] = _chosen(role, fitting, every, f"FOLDER is {str(root)!r}", left_out)
    if not series:
        _nothing("policy", f"FOLDER is {str(root)!r}", every)
    if len(series) > 1 and len(series["reward"].checkpoints) == 1:  # a reward model that stayed as it was
        left_out.append(series.pop("reward").pattern)
    start = _start(every) if "policy" in series else None
    return Found(series, start, tuple(name for name in left_out if start is None or name != start.name))


def _role(series: Series) -> Role | None:
    """The last folder that says it decides; then the configuration; else it is a policy. None: neither policy nor reward model."""
    word = _said(series.pattern)
    return _config_role(series.checkpoints[0].folder) if not word else _WORDS.get(word)


def _said(path: str) -> str:
    """`policy`, `reward` or `aside`, by the last folder that says it; empty if none does."""
    for part in reversed(path.split("/")):
        words = set(re.split(r"[^a-z]+", part.replace(STEP, "").lower()))
        if words & _ASIDE:
            return "aside"
        if known := sorted(words & _WORDS.keys()):
            return _WORDS[known[0]]
    return ""


def _config_role(folder: Path) -> Role | None:
    adapter, model = (read_json(folder / name) or {} for name in ("adapter_config.json", "config.json"))
    if adapter:
        return _TASKS.get(str(adapter.get("task_type")), "policy")
    names = model.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    return next((role for end, role in _ENDS.items() if name.endswith(end)), "policy")


def _chosen(role: str, fitting: Sequence[Series], every: Sequence[Series], argument: str, left_out: list[str]) -> Series:
    """The one series of a role. A finer series inside the folders of another is left out: its ends are the other's."""
    several = [item for item in fitting if len(item.checkpoints) > 1] or list(fitting)
    outer = [item for item in several if not any(item.pattern.startswith(f"{other.head}/") for other in several if other.head != item.head)]
    if not outer:
        _nothing(role, argument, every)
    if len(outer) > 1:
        patterns = " or ".join(f"--{role} '{item.pattern}'" for item in outer[:4])
        raise ConfigError(f"{argument}, in which {len(outer)} series of checkpoints could be the {role}; choose with {patterns}")
    left_out += [item.pattern for item in fitting if item is not outer[0]]
    return outer[0]


def _nothing(role: str, argument: str, every: Sequence[Series]) -> None:
    seen = ", ".join(f"'{item.pattern}' ({len(item.checkpoints)})" for item in sorted(every, key=lambda item: -len(item.checkpoints))[:4])
    raise ConfigError(f"{argument}, in which no series of checkpoints was found{f'; there is {seen}' if seen else ''}; name one with --{role} 'PATH-{STEP}'")


def _start(every: Sequence[Series]) -> Checkpoint | None:
    """The one SFT model beside the numbered folders: VisZOPrO's policy starts as a copy of it."""
    found = [item.checkpoints[0] for item in every if STEP not in item.pattern and "sft" in re.split(r"[^a-z]+", item.pattern.lower())]
    return found[0] if len(found) == 1 else None


def read_json(path: Path) -> dict[str, object] | None:
    """The object in a file of the imported folder; None if there is no such file. Raises `ModelError`."""
    try:
        return disk.read_json(path)
    except FileNotFoundError:
        return None
    except StoreError as error:
        raise ModelError(str(error)) from error
