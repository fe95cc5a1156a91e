"""Two texts word by word: what only one of them says."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Words of each text that are compared; what follows stays unmarked. The comparison takes time with the square of it.
MOST_WORDS = 600

#: A word, a sign, or one letter of a script that writes without spaces; with the space behind it.
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"(?:[{_SPACELESS}]|(?:(?![{_SPACELESS}])\w)+|[^\w\s])\s*|\s+")


@dataclass(frozen=True)
class Piece:
    """A stretch of a text; `own`: the other text does not have it there."""

    text: str
    own: bool


def differences(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts, letter for letter, in pieces that they share and pieces that are their own."""
    words = [_WORD.findall(text) for text in (left, right)]
    ours, theirs = ([word.strip() for word in found[:MOST_WORDS]] for found in words)
    codes = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    spans = ([(code, a, b) for code, a, b, _, _ in codes], [(code, a, b) for code, _, _, a, b in codes])
    first, second = (_pieces(found, span) for found, span in zip(words, spans, strict=True))
    return first, second


def _pieces(words: Sequence[str], spans: Iterable[tuple[str, int, int]]) -> list[Piece]:
    marked = [(word, code != "equal") for code, start, stop in spans for word in words[start:stop]]
    marked += [(word, False) for word in words[MOST_WORDS:]]
    return [Piece("".join(word for word, _ in group), own) for own, group in itertools.groupby(marked, key=lambda item: item[1])]
