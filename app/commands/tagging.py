"""`interplay tag RUN...`: put tags and a note on runs, take tags off, or print what is on them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from app.reading import recorded
from interplay import labels
from interplay.errors import ConfigError, nearest
from interplay.labels import Labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `interplay tag`."""
    add = parser.add_argument
    tag = f"one line of at most {labels.LONGEST_TAG} characters without a comma"
    add("folders", nargs="+", metavar="RUN", help="run folders, or names of runs in --runs")
    add("--runs", metavar="DIR", default="runs", help="folder of runs (default runs)")
    add("--add", metavar="NAME", action="append", help=f"put this tag on all of these runs: {tag}; may be given more than once")
    add("--remove", metavar="NAME", action="append", help="take this tag off, however it is capitalised; may be given more than once")
    add("--note", metavar="TEXT", help=f"replace the note by this plain text of at most {labels.LONGEST_NOTE:,} characters; '' takes it away")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Change what is asked for, and print what is on the runs now; nothing changes if a word is not allowed or a run is not there."""
    add = [labels.as_tag(word, "--add") for word in arguments.add or ()]
    remove = arguments.remove or ()
    note = None if arguments.note is None else labels.as_note(arguments.note, "--note")
    folders = list(dict.fromkeys(recorded.folder(word, Path(arguments.runs)) for word in arguments.folders))
    _refuse_unknown(remove, folders)
    if add or remove or note is not None:
        for folder in folders:
            labels.change(folder, add, remove, note)
    found = {folder: labels.read(folder) for folder in folders}
    if arguments.json:
        print(json.dumps([_row(*item) for item in found.items()], indent=1))
        return 0
    for folder, labelled in found.items():
        print("\n".join([f"{folder.name}: {', '.join(labelled.tags) or 'no tags'}", *_lines(labelled)]))
    return 0


def _refuse_unknown(remove: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises `ConfigError` for a tag that none of the runs has: it was mistyped."""
    known = labels.unique(tag for folder in folders for tag in labels.read(folder).tags)
    for word in remove:
        if labels.same(word) not in map(labels.same, known):
            has = f"tags there: {', '.join(known)}" if known else "they have no tags"
            raise ConfigError(f"--remove is {word!r}, but none of these runs has that tag{nearest(word, known)}; {has}")


def _row(folder: Path, labelled: Labels) -> dict[str, object]:
    return {"run": folder.name, "path": str(folder), "tags": labelled.tags, "note": labelled.note, "problems": labelled.problems}


def _lines(labelled: Labels) -> list[str]:
    """The note, indented, and what could not be read."""
    return [f"  {line}" for line in labelled.note.splitlines()] + [f"  problem: {line}" for line in labelled.problems]
