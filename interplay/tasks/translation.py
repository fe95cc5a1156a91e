"""Translation: English sentences into German.

English     Snow fell in Madrid on Wednesday for the first time this winter.
reference   Am Mittwoch fiel in Madrid zum ersten Mal in diesem Winter Schnee.
good        In Madrid fiel am Mittwoch zum ersten Mal in diesem Winter Schnee.   (0.8)
copied      Snow fell in Madrid on Wednesday for the first time this winter.     (0.0)
    other       Die Katze schläft im Garten.                                         (0.2)
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

from interplay.tasks import _text
from interplay.tasks._german import GERMAN, germanness
from interplay.tasks.base import Messages, Prompt

_TURNS = (("system", "Translate English into German."), ("user", "The cat is sleeping in the garden."), ("assistant", "Die Katze schläft im Garten."))


class Translation:
    """gold = german x order x distinct x enough x fresh x sequence x (0.3 + 0.7 match) x form.

    german   see `_german.germanness`; an English copy scores 0
    sequence of the reference's words that are there, the share whose neighbour is right too: ramp from 0.15
             to 0.55, 1 below three such words (chrF++ alone hardly minds shuffled words)
    match    chrF++ against the reference, ramp from 5 to 60
    length   words / words of the reference (or source): 1 between 0.7 and 1.4, 0 below 0.3 and above 2
    kept     numbers and names of the source that are there again
    form     0.4 finished + 0.4 length + 0.2 kept
    Without a reference sequence and match are left out: any German sentence of the right length does well
    then, so judge such runs by reading.
    """

    name = "translation"
    description = "translate an English sentence into German"
    prompts_file = "translation.jsonl"

    def messages(self, text: str) -> Messages:
        return (*({"role": role, "content": said} for role, said in _TURNS), {"role": "user", "content": text})

    def source(self, prompt: str) -> str:
        return prompt.strip()

    def gold(self, prompt: Prompt, completion: str) -> float:
        tokens = _text.words(completion)
        if not tokens:
            return 0.0
        gates = germanness(tokens) * GERMAN.order(completion) * _text.distinct(tokens) * _text.enough(tokens, 4)
        gates *= _text.fresh(tokens, _text.words(prompt.text), 4)
        if gates == 0.0:
            return 0.0  # spares chrF++, which takes most of the time
        finished, kept = _text.finished(completion), self._kept(prompt, tokens)
        length = self._length(len(tokens), len(_text.words(prompt.reference or prompt.text)))
        form = 0.4 * finished + 0.4 * length + 0.2 * kept
        if prompt.reference is None:
            return gates * form
        sequence = _sequence(tokens, _text.words(prompt.reference))
        match = _text.ramp(_chrf(completion, prompt.reference), 5, 60)
        return gates * sequence * (0.3 + 0.7 * match) * form

    def _length(self, length: int, wanted: int) -> float:
        ratio = length / max(1, wanted)
        return min(_text.ramp(ratio, 0.3, 0.7), 1.0 - _text.ramp(ratio, 1.4, 2.0))

    def _kept(self, prompt: Prompt, tokens: list[str]) -> float:
        """Share of the source's numbers and names (capitals inside a sentence) found again; names that the reference changes do not count."""
        source = _text.words(prompt.text)
        marks = {t for i, t in enumerate(source) if t[0].isdigit() or (i and t[0].isupper() and len(t) > 1)}
        if prompt.reference is not None:
            marks &= set(_text.words(prompt.reference))
        return len(marks & set(tokens)) / len(marks) if marks else 1.0


def _sequence(tokens: list[str], reference: list[str]) -> float:
    """1 with fewer than three of the reference's words; else the ramp (0.15 to 0.55) of the share of them that follow each other as they do there."""
    said, wanted = [t.lower() for t in tokens], [t.lower() for t in reference]
    hits = len(set(said) & set(wanted))
    if hits < 3:
        return 1.0
    pairs = len(set(pairwise(said)) & set(pairwise(wanted)))
    return _text.ramp(pairs / (hits - 1), 0.15, 0.55)


def _chrf(completion: str, reference: str) -> float:
    return float(_metric().sentence_score(completion, [reference]).score)


@cache
def _metric() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=2)


TASK = Translation()
