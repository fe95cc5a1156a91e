"""Measures of a text that the gold scores share. Pure, deterministic, no language model.

Each returns a number in [0, 1]. The gates (`Grammar.order`, `distinct`, `enough`, `fresh`) are
multiplied, so that failing one cannot be bought back by another: repetition fails `distinct`,
shuffled words and word salad fail `order`, copying fails `fresh`, a single word fails `enough`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d[\d.,:]*\d|\d|[.!?…]+|[,;:]")
_END = re.compile(r"[.!?…]+")
_CLOSED = re.compile(r"[.!?…][\"'”’)*]*\s*$")
_ARTICLE = re.compile(r"\b(?:a [aeio][a-z]+(?<!\bone)(?<!\bonce)|an [bcdfgjklmnpqrstvwz])")  # a apple, an pear; German has neither
_YES_NO = frozenset(("yes", "no", "ja", "nein"))
_ODD = re.compile(r"[#@\[\]{}|\\<>*_=~^/]|[^\W\d_]\d|\d[^\W\d_]{3}|[a-z][A-Z]|[.!?][A-Za-z]{2}|[^\x00-\u024F\u2010-\u2027\u20AC]")


def ramp(value: float, low: float, high: float) -> float:
    """0 at `low` and below, 1 at `high` and above, straight between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def words(text: str) -> list[str]:
    """Words and numbers, without punctuation."""
    return [token for token in _TOKEN.findall(text) if token[0].isalnum()]


def closed(text: str) -> bool:
    """Does the text end with a full stop, question mark or exclamation mark?"""
    return _CLOSED.search(text) is not None


def sentences(text: str) -> list[list[str]]:
    """Tokens of each sentence; commas and the end mark stay. A line break ends a sentence too."""
    found: list[list[str]] = []
    for line in text.splitlines():
        current: list[str] = []
        for token in _TOKEN.findall(line):
            current.append(token)
            if _END.fullmatch(token):
                found.append(current)
                current = []
        found.append(current)
    return [sentence for sentence in found if any(token[0].isalnum() for token in sentence)]


def finished(text: str) -> float:
    """1 for a text of whole sentences; a text cut short keeps half of the share of its words that stand in whole ones."""
    if closed(text):
        return 1.0
    parts = sentences(text)
    total = sum(map(len, parts))
    return 0.5 * sum(len(part) for part in parts if _END.fullmatch(part[-1])) / total if total else 0.0


def stem(word: str) -> str:
    """A crude stem: lower case, one English ending off, at most seven letters."""
    low = word.lower().replace("’", "'").removesuffix("'s")
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if low.endswith(ending) and len(low) - len(ending) >= 3:
            low = low.removesuffix(ending)
            break
    if len(low) > 3 and low[-1] == low[-2]:  # stopped -> stopp -> stop
        low = low[:-1]
    return low[:7]


def distinct(tokens: Sequence[str]) -> float:
    """1 when words hardly repeat: the smaller of two ramps over the share of different words and of different word pairs."""
    low = [token.lower() for token in tokens]
    pairs = list(pairwise(low))
    if not pairs:
        return 1.0
    return min(ramp(len(set(low)) / len(low), 0.45, 0.75), ramp(len(set(pairs)) / len(pairs), 0.6, 0.9))


def enough(tokens: Sequence[str], least: int = 5) -> float:
    """Different words, as a share of the few that any answer needs."""
    return min(1.0, len({token.lower() for token in tokens}) / least)


def longest_run(tokens: Sequence[str], source: Sequence[str]) -> int:
    """Words in the longest stretch of `tokens` that stands in `source` word for word."""
    left, right = [t.lower() for t in tokens], [t.lower() for t in source]
    best, row = 0, [0] * (len(right) + 1)
    for word in left:
        row = [0] + [row[j] + 1 if word == other else 0 for j, other in enumerate(right)]
        best = max(best, *row)
    return best


def fresh(tokens: Sequence[str], source: Sequence[str], most: int) -> float:
    """1 unless a stretch is taken over from the source: falls from `most` words to twice that, and from half of the text to 85 % of it."""
    run = longest_run(tokens, source)
    share = ramp(run / max(1, len(tokens)), 0.5, 0.85) if run > 2 else 0.0
    return (1.0 - ramp(run, most, 2 * most)) * (1.0 - share)


@dataclass(frozen=True)
class Grammar:
    """Which class of word may follow which.

    `classes` lists the function words of each class, `endings` names the class of all other words,
    and `follows` gives for each class the classes that hardly ever follow (-2), seldom follow (-1)
    and often follow (+1). `^` is the beginning of a sentence, `$` its end. The lists come from counting
    neighbours in ordinary sentences and in the same sentences shuffled: hardly ever is a quarter of
    the shuffled rate or less (ln ratio < -1.4), seldom about half (< -0.6), often 1.6 times or more.
    """

    classes: Mapping[str, str]
    follows: Mapping[str, tuple[str, str, str]]
    endings: Callable[[str], str]
    low: float  # mean value of a pair at which `order` is 0 ...
    high: float  # ... and at which it is 1
    nouns_have_capitals: bool = False  # then the capital of a first word does not tell its class

    @cached_property
    def tags(self) -> Mapping[str, str]:
        return {word: name for name, listed in self.classes.items() for word in listed.split()}

    @cached_property
    def values(self) -> Mapping[tuple[str, str], int]:
        return {
            (first, second): value
            for first, lists in self.follows.items()
            for value, listed in zip((-2, -1, 1), lists, strict=True)
            for second in listed.split()
        }

    def is_function(self, word: str) -> bool:
        return word.lower().replace("’", "'") in self.tags

    def content(self, tokens: Iterable[str]) -> list[str]:
        """Stems of the words that carry the content, in order."""
        return [stem(token) for token in tokens if not self.is_function(token) and (len(token) > 2 or token.isdigit())]

    def order(self, text: str) -> float:
        """Plausible word order: ramp over the mean value of neighbouring classes, times the share of words in real sentences.

        A capital in the middle of a sentence on a function word, a small letter at its start, and
        odd signs (`#`, `x3y`, other scripts) count as -2 each: shuffled words bring them along.
        """
        parts = sentences(text)
        pairs = [pair for part in parts for pair in self._pairs(part)]
        if not pairs:
            return 0.0
        faults = len(_ODD.findall(text)) + sum(map(self._faults, parts))
        mean = (sum(self.values.get(pair, 0) for pair in pairs) - 2 * faults) / len(pairs)
        return ramp(mean, self.low, self.high) * self._in_sentences(parts) * self._joined(text)

    def _pairs(self, sentence: Sequence[str]) -> list[tuple[str, str]]:
        """Neighbouring classes. A question may begin with any word, and `No,` or `Yes,` stands outside of the sentence."""
        ended = _END.fullmatch(sentence[-1]) is not None
        inner = list(sentence[:-1] if ended else sentence)
        answered = len(inner) > 2 and inner[0].lower() in _YES_NO and inner[1] == ","
        opening = [] if ended and "?" in sentence[-1] else ["^"]
        tags = list(map(self._tag, inner[2:] if answered else inner))
        if self.nouns_have_capitals and not self.is_function(inner[0]):
            tags[0] = "?"
        return list(pairwise([*opening, *tags, *(["$"] if ended else [])]))

    def _tag(self, word: str) -> str:
        if word in ",;:":
            return ","
        return self.tags.get(word.lower().replace("’", "'")) or self.endings(word)

    def _faults(self, sentence: Sequence[str]) -> int:
        inner = sum(1 for before, token in pairwise(sentence) if before != ":" and self._capital_inside(token))
        return inner + sentence[0][0].islower() + len(_ARTICLE.findall(" ".join(sentence)))

    def _capital_inside(self, token: str) -> bool:
        return token[0].isupper() and len(token) > 1 and self.is_function(token) and not token.startswith(("I'", "I’"))

    def _in_sentences(self, parts: Sequence[Sequence[str]]) -> float:
        """Share of the words that stand in sentences of three or more."""
        sizes = [sum(token[0].isalnum() for token in part) for part in parts]
        return sum(size for size in sizes if size >= 3) / sum(sizes)

    def _joined(self, text: str) -> float:
        """Function words hold a sentence together: 0 for a bare list of content words, 1 from a fifth on."""
        tokens = words(text)
        return ramp(sum(map(self.is_function, tokens)) / len(tokens), 0.05, 0.2)
