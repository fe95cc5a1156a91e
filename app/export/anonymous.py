"""For double-blind review: what would tell who made a figure is taken out of its texts, and searched for in the finished files.

Clues are the names, hosts, paths, addresses and tokens that this machine, its git settings and the runs themselves know, and whatever looks
like one. The report counts them and names none.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import spec_json
from analysis.spec import FigureSpec
from app.export.inside import text_of
from app.reading.recorded import Recorded
from interplay import disk
from interplay.errors import StoreError
from interplay.reading import STATUS

PROJECT = Path(__file__).resolve().parents[2]
#: Names of nobody: hiding them would hide common words and no person.
_NOBODY = "root user users admin ubuntu debian docker runner app home test guest nobody localhost localdomain node work worker local"
_OUR_WORDS = "main data runs figure figures interplay analysis policy reward update layer hidden origin github gitlab git com org net www"
_COMMON = frozenset(f"{_NOBODY} {_OUR_WORDS}".split())
_KEYS = (
    r"hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}"
    r"|eyJ[\w-]{10,500}\.[\w-]{10,}"
)
_MAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"
_ADDRESS = r"(?:https?://|ssh://|git@)(?:[\w.-]{1,64}@)?(?:github|gitlab|bitbucket|huggingface|codeberg)\.[a-z]{2,4}[:/][\w./~-]+"
_PATH = r"(?:file://)?(?:/(?:home|Users|root)/|[A-Za-z]:\\Users\\)[\w.@+\-/\\]+"
_HOME = re.compile(r"(?:/(?:home|Users)/|[A-Za-z]:\\Users\\)([^/\\\s'\"]+)")
_SECRET = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)$", re.IGNORECASE)
_HOSTS = ("host", "hostname", "node")


@dataclass(frozen=True)
class Clue:
    """One kind of clue: how many words of it are known, and the pattern that finds them and what looks like them."""

    kind: str
    known: int
    pattern: re.Pattern[str]


def clues(recordings: Iterable[Recorded]) -> list[Clue]:
    """What would tell who trained these runs, or who draws them here. A clue within another comes later."""
    told = [text for one in recordings for text in _told(one)]
    lines = list(_git_lines())
    words = [text for _, text in told]
    users = {_user(), Path.home().name, *(name for text in words for name in _HOME.findall(text))}
    users |= {part for key, value in lines if key == "name" for part in (value, *value.split())}
    remotes = {value for key, value in lines if key == "url"}
    users |= {owner[1] for value in remotes if (owner := re.search(r"[:/]([^/:]+)/[^/]+$", value))}
    hosts = {socket.gethostname(), *(text for key, text in told if key in _HOSTS)}
    paths = {str(Path.home()), str(Path.cwd()), str(PROJECT), *(text for text in words if re.match(r"(?:/|[A-Za-z]:\\)[^/\\]+[/\\].", text))}
    return [
        _clue("access tokens", {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= 8}, _KEYS),
        _clue("addresses of repositories", remotes, _ADDRESS),
        _clue("e-mail addresses", {value for key, value in lines if key == "email"}, _MAIL),
        _clue("paths of machines", {path for path in paths if len(Path(path).parts) > 2}, _PATH, after=r"[\w.@+\-/\\]*"),
        _clue("host names", _names(hosts | {host.split(".")[0] for host in hosts}), None),
        _clue("user names", _names(users), None),
    ]


def _clue(kind: str, known: set[str], looks: str | None, after: str = "") -> Clue:
    """The longest first, since one may begin like another; a name is found as a whole word only."""
    words = [re.escape(word) for word in sorted(known, key=lambda word: (-len(word), word))]
    listed = [f"(?:{'|'.join(words)}){after}"] if words else []
    if looks is None:
        listed = [rf"(?i:(?<![A-Za-z0-9]){part}(?![A-Za-z0-9]))" for part in listed]
    return Clue(kind, len(words), re.compile("|".join([*listed, *([looks] if looks else [])]) or r"(?!)"))


def _names(found: Iterable[str]) -> set[str]:
    return {word for word in found if len(word) >= 3 and word.lower() not in _COMMON}


# --- where clues come from -----------------------------------------------------------------------


def _told(one: Recorded) -> Iterator[tuple[str, str]]:
    """Key and text of all that a run wrote about itself."""
    yield "path", str(one.path.resolve().parent)
    try:
        yield from _texts(one.info.to_json(), "")
        yield from _texts(disk.read_json(one.path / STATUS), "")
    except (StoreError, FileNotFoundError):
        return


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, key)
    elif isinstance(value, str):
        yield key, value


def _git_lines() -> Iterator[tuple[str, str]]:
    """Key and value of names and addresses in git's settings, here and of the user; read, not asked: nothing is started."""
    folders = [folder for start in (Path.cwd(), PROJECT) for folder in (start, *start.parents)]
    files = [folder / ".git" / "config" for folder in folders] + [Path.home() / ".gitconfig", Path.home() / ".config" / "git" / "config"]
    for path in dict.fromkeys(files):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield from re.findall(r"^\s*(url|name|email)\s*=\s*(\S.*?)\s*$", text, re.MULTILINE)


def _user() -> str:
    """Empty in a container that runs under a number without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


# --- taken out ---------------------------------------------------------------------------------


@dataclass
class Hiding:
    """Replaces each clue by a word of its own, the same wherever it stands, so that two runs stay two."""

    clues: Sequence[Clue]
    words: dict[str, str] = field(default_factory=dict)

    def text(self, text: str) -> str:
        for clue in self.clues:
            text = clue.pattern.sub(self._word, text)
        return text

    def _word(self, match: re.Match[str]) -> str:
        return self.words.setdefault(match[0].lower(), f"hidden{len(self.words) + 1}")

    def spec(self, spec: FigureSpec) -> FigureSpec:
        """The figure without clues in any of its texts."""
        axes = {
            name: axis and replace(axis, label=self.text(axis.label), unit=self.text(axis.unit)) for name in spec_json.AXES for axis in [getattr(spec, name)]
        }
        words: dict[str, Any] = {name: self.text(getattr(spec, name)) for name in ("title", "caption", "alt", "origin")}
        texts = [name for name in spec.data if not pd.api.types.is_numeric_dtype(spec.data[name])]
        data = spec.data.assign(**{str(name): spec.data[name].map(lambda cell: self.text(cell) if isinstance(cell, str) else cell) for name in texts})
        return replace(spec, data=data, runs=tuple(map(self.text, spec.runs)), **words, **axes)


# --- searched for ------------------------------------------------------------------------------


def search(files: Mapping[str, bytes], clues: Sequence[Clue]) -> dict[str, list[str]]:
    """For each kind of clue, the files in whose name or content it is found."""
    texts = {name: f"{name}\n{text_of(name, content)}" for name, content in files.items()}
    return {clue.kind: [name for name, text in texts.items() if clue.pattern.search(text)] for clue in clues}


def report(clues: Sequence[Clue], found: Mapping[str, Sequence[str]], count: int) -> str:
    """What was searched for and how often it was found; it names no clue."""
    rows = [f"{clue.kind}: {len(found[clue.kind])} files; {clue.known} known words{_LOOKS.get(clue.kind, '')}" for clue in clues]
    return "\n".join(
        [
            f"Searched for in the names and contents of {count} files, found in:",
            *(f"  {row}" for row in rows),
            "",
            "Known words are those of this machine, of its git settings and of run.json and status.json of the runs; names that belong to nobody",
            "(root, user, ...) are not among them. Compressed parts of PDF and texts inside PNG are read. Not read: pixels and the programs of",
            "fonts, which hold no text, and plotly.js in HTML, which is the same file for everybody.",
            "",
        ]
    )


_LOOKS = {
    "access tokens": ", and all that begins like one of Hugging Face, GitHub, GitLab, OpenAI, AWS or Slack",
    "addresses of repositories": ", and all of GitHub, GitLab, Bitbucket, Codeberg or Hugging Face",
    "e-mail addresses": ", and all that looks like one",
    "paths of machines": ", and all below home, Users or root",
}
