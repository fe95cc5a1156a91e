"""Chat: a short, complete, on-topic reply.

prompt      Why can't you see stars in the middle of a big city?
good        In a big city the lamps make the sky so bright that faint stars disappear.   (1.0)
cut off     In a city, the stars are not visible because of the way that light           (0.4)
hollow      Great question! I'm happy to help you with that today.                       (0.3)
"""

from __future__ import annotations

import re

from interplay.tasks import _text
from interplay.tasks._english import ENGLISH
from interplay.tasks.base import Messages, Prompt

_SYSTEM = "You are helpful and brief. Answer in one short sentence."
_FILLER = re.compile(
    r"\W*(great|good|excellent|interesting|awesome|wonderful|fantastic|amazing|absolutely|certainly|of course|sure"
    r"|congratulations|thank you|thanks|sorry"
    r"|i'?m (glad|happy|sorry|not sure|excited|here to)|i apologi[sz]e|as an? (ai|language|helpful)|here('s| is| are)"
    r"|the answer (is|to)|in conclusion|to answer"
    r"|that('s| is) (a|an) |this is (a|an) |your (question|request|text|sentence)|asked in|imagine|hello|hi there|i can help|i hope|let me)\b",
    re.IGNORECASE,
)


class Chat:
    """gold = order x distinct x enough x fresh x (0.4 + 0.6 topic) x (0.5 finished + 0.3 substance + 0.2 direct).

    topic      0, 0.7 or 1 for none, one or more of the prompt's content stems in the reply (1 if the prompt has only one)
    substance  different content stems that the prompt does not have / 4, at most 1
    direct     no hollow opening ("Great question!"), and 30 words or fewer, falling to 0 at 60
    """

    name = "chat"
    description = "answer a message in one short sentence"
    prompts_file = "chat.jsonl"

    def messages(self, text: str) -> Messages:
        return ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": text})

    def source(self, prompt: str) -> str:
        return prompt.strip()

    def gold(self, prompt: Prompt, completion: str) -> float:
        tokens, asked = _text.words(completion), _text.words(prompt.text)
        if not tokens:
            return 0.0
        gates = ENGLISH.order(completion) * _text.distinct(tokens) * _text.enough(tokens) * _text.fresh(tokens, asked, 4)
        topic, substance = self._content(tokens, asked)
        form = 0.5 * _text.finished(completion) + 0.3 * substance + 0.2 * self._direct(completion, len(tokens))
        return gates * (0.4 + 0.6 * topic) * form

    def _content(self, tokens: list[str], asked: list[str]) -> tuple[float, float]:
        said, wanted = set(ENGLISH.content(tokens)), set(ENGLISH.content(asked))
        shared = len(said & wanted)
        topic = 1.0 if shared > 1 or shared == len(wanted) else 0.7 * shared
        return topic, min(1.0, len(said - wanted) / 4)

    def _direct(self, completion: str, length: int) -> float:
        return 0.0 if _FILLER.match(completion) else 1.0 - _text.ramp(length, 30, 60)


TASK = Chat()
