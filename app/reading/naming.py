"""What runs and comparisons are called in links and lists, and which of them a name means.

A name is a path below a folder that is shown: `RUN`, `COMPARISON`, or `COMPARISON/ROW`. Where two folders hold one of that name, the folder stands in
front. Names come from anywhere: none leads out of its folder, and a name without its folder means the first one there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app.reading.loading import roots
from app.reading.recorded import distinct
from interplay import labels
from interplay.compare import PLAN
from interplay.errors import StoreError
from interplay.reading import RUN
from interplay.store import Runs, RunSummary

_LONGEST = 255  # bytes in the name of a folder, on the usual disks


def root_names() -> dict[Path, str]:
    """What each root is called: the end of its path, as long as it takes to tell the roots apart."""
    found = roots()
    return dict(zip(found, distinct(found), strict=True))


# --- from a folder to its name -----------------------------------------------------------------


def name_of(path: Path) -> str:
    """The shortest name that `places` finds this run or comparison by."""
    place = Path(os.path.abspath(path))
    for root, called in root_names().items():
        if place == root:
            return called
        if place.is_relative_to(root):
            name = place.relative_to(root).as_posix()
            return name if {*places(name), *places(name, PLAN)} <= {place} else f"{called}/{name}"
    return place.name


def folder_of(path: Path) -> str:
    """What the folder that holds a run or a comparison is called."""
    return root_names().get(path.parent) or name_of(path.parent)


def source(summary: RunSummary) -> str:
    """What the folder that holds the run is called."""
    return folder_of(Path(summary.path))


def names(among: Sequence[RunSummary]) -> list[str]:
    """The runs' names for a URL: with the folder in front (`ROOT/RUN`) where two have the same name, or for a row of a comparison."""
    count, shown = Counter(summary.run for summary in among), root_names()
    folders = [Path(summary.path).parent for summary in among]
    plain = [count[summary.run] == 1 and folder in shown for summary, folder in zip(among, folders, strict=True)]
    called = {folder: shown.get(folder) or name_of(folder) for folder, alone in zip(folders, plain, strict=True) if not alone}  # rows share one
    return [summary.run if alone else f"{called[folder]}/{summary.run}" for summary, folder, alone in zip(among, folders, plain, strict=True)]


# --- from a name to what it means --------------------------------------------------------------


def places(name: str, holds: str = RUN) -> list[Path]:
    """Folders of that name with this file in them, in the order of the roots."""
    shown = root_names()
    named = [below(root, name) for root in shown]
    named += [below(root, name.removeprefix(f"{called}/")) for root, called in shown.items() if name.startswith(f"{called}/")]
    named += [root for root, called in shown.items() if name == called]
    return [path for path in named if path is not None and (path / holds).is_file()]


def below(root: Path, name: str) -> Path | None:
    """One folder after the other, none of which may lead out of the one before."""
    parts = name.split("/")
    if len(parts) > 3 or any(len(part.encode(errors="replace")) > _LONGEST for part in parts):
        return None
    try:
        for part in parts:
            root = Runs(root).path(part)
    except StoreError:
        return None
    return root


def full_name(name: str, among: Sequence[RunSummary]) -> str | None:
    """What a name means among these, as `names` has it: an old link without the root means the first of that name. None if there is no such run."""
    known = names(among)
    bare = [summary.run for summary in among]
    return name if name in known else known[bare.index(name)] if name in bare else None


def inside(name: str) -> list[RunSummary]:
    """The row of a comparison that `COMPARISON/ROW` means; none if there is no such row."""
    folder, _, row = name.rpartition("/")
    return [summary for place in places(folder, PLAN)[:1] for summary in Runs(place).list() if summary.run == row]


def find(name: str, among: Sequence[RunSummary]) -> RunSummary:
    """The run of that name; the first where only the name is given and two have it. Raises `StoreError` with the names there are."""
    known, full = names(among), full_name(name, among)
    if full is not None:
        return among[known.index(full)]
    raise StoreError(f"there is no run {name!r}; known: {', '.join(known) or 'none'}")


# --- search ------------------------------------------------------------------------------------


def search(runs: list[RunSummary], words: str) -> list[RunSummary]:
    """Runs that contain all the words in name, state, method, task, seed, tags or note; `FIELD:VALUE,VALUE` asks for a setting, `tag:` or `in:` (the root)."""
    fields = _fields(runs)
    return [run for run in runs if all(_holds(run, word, fields) for word in asked(words))]


def asked(words: str) -> list[str]:
    """What a search asks for, in small letters: word by word, but `tag:"needs review"` is one."""
    return [word.replace('"', "") for word in re.findall(r'(?:"[^"]*"|[^\s"])+', words.lower())]


def hint(runs: Sequence[RunSummary], words: str) -> str:
    """What is wrong with a search that finds nothing, as far as that can be told: a tag or a setting that no run has."""
    fields = _fields(runs)
    for word in asked(words):
        field, colon, value = word.partition(":")
        if not colon or any(_holds(run, word, fields) for run in runs):
            continue
        if field not in fields:
            return f"No setting is called {field}."
        if field == "tag":
            tags = [f'"{tag}"' if " " in tag else tag for tag in labels.unique(tag for run in runs for tag in run.tags)]
            return f"No run has the tag {value}; there are: {', '.join(tags)}." if tags else "No run has a tag yet."
    return ""


def _fields(runs: Sequence[RunSummary]) -> set[str]:
    return {"state", "in", "tag", *(str(key).lower() for run in runs for key in run.config)}


def _holds(run: RunSummary, word: str, fields: set[str]) -> bool:
    """A word with a colon asks for a field only if there is such a field: a name may hold a colon, too."""
    field, colon, values = word.partition(":")
    if colon and field == "tag":
        return bool(set(map(labels.same, run.tags)) & set(labels.same(values).split(",")))
    if colon and field in fields:
        own = {str(key).lower(): value for key, value in run.config.items()} | {"state": run.state, "in": source(run)}
        return str(own.get(field, "")).lower() in values.split(",")
    return word in " ".join([run.run, run.state, f"{run.method} {run.task} seed {run.seed}", *run.tags, run.note]).lower()
