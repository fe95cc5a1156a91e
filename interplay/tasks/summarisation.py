"""Summarisation: one sentence that says what a passage says.

passage     Fourteen-year-old Ines Kovarik won the regional chess open in Bellhaven yesterday, beating a
            retired bank manager in a final that lasted five hours. [...] spend the prize on a telescope.
good        A girl of fourteen won a regional chess final and will buy a telescope with the prize.   (1.0)
off         This text explores the touching story of a young person and her dreams.                  (0.2)
"""

from __future__ import annotations

import re

from interplay.tasks import _text
from interplay.tasks._english import ENGLISH
from interplay.tasks.base import Messages, Prompt

_SYSTEM = "You are helpful and brief."
_ASK = "\n\nSay the main point in one short sentence."
_POST = re.compile(r"^(SUBREDDIT:.*|TITLE:|POST:)[ \t]*", re.MULTILINE)
_TLDR = re.compile(r"\s*TL;?DR:?\s*$", re.IGNORECASE)
_META = re.compile(
    r"\W*(th(is|e|ese) (text|passage|story|article|narrative|tale|main (point|idea)|piece|author|sentence|scene|anecdote|statement|summary|paragraph)"
    r"|your (text|story|article|narrative|sentence)|here('s| is)|in summary|this is (a|an)|one-sentence|summary|i (would|just|think|can|am|appreciate)"
    r"|imagine|asked)\b",
    re.IGNORECASE,
)


class Summarisation:
    """gold = order x distinct x enough x fresh x (0.4 + 0.6 cover) x (0.30 finished + 0.25 faithful + 0.20 short + 0.25 plain).

    cover      weight of the passage's content stems that are mentioned / 5, at most 1; a stem that stands
               in the first sentence or more than once weighs 1.25, any other 1
    faithful   share of the summary's content stems that the passage has: 0 at none, 1 at 60 %
    short      one sentence (two: half), and no more than half of the passage's words
    plain      says it, and does not talk about "this text"
    fresh      a word-for-word stretch of up to 6 words is free; at 12, or at 85 % of the summary, gold is 0
    """

    name = "summarisation"
    description = "say the main point of a passage in one short sentence"
    prompts_file = "summarisation.jsonl"

    def messages(self, text: str) -> Messages:
        return ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": text + _ASK})

    def source(self, prompt: str) -> str:
        return _POST.sub("", _TLDR.sub("", prompt)).strip()

    def gold(self, prompt: Prompt, completion: str) -> float:
        tokens, passage = _text.words(completion), _text.words(prompt.text)
        if not tokens:
            return 0.0
        gates = ENGLISH.order(completion) * _text.distinct(tokens) * _text.enough(tokens, 6) * _text.fresh(tokens, passage, 6)
        cover, faithful = self._content(tokens, prompt.text)
        short = {1: 1.0, 2: 0.5}.get(len(_text.sentences(completion)), 0.0) * (1.0 - _text.ramp(len(tokens) / max(1, len(passage)), 0.5, 1.0))
        plain = 0.0 if _META.match(completion) else 1.0
        form = 0.30 * _text.finished(completion) + 0.25 * faithful + 0.20 * short + 0.25 * plain
        return gates * (0.4 + 0.6 * cover) * form

    def _content(self, tokens: list[str], text: str) -> tuple[float, float]:
        stems = ENGLISH.content(_text.words(text))
        first = set(ENGLISH.content((_text.sentences(text) or [[]])[0]))
        said = set(ENGLISH.content(tokens))
        shared = said & set(stems)
        weight = sum(1.25 if stem in first or stems.count(stem) > 1 else 1.0 for stem in shared)
        return min(1.0, weight / 5), _text.ramp(len(shared) / max(1, len(said)), 0.0, 0.6)


TASK = Summarisation()
