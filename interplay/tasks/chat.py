"""Chat: a short, complete, on-topic reply.

prompt      Why can't you see stars in the middle of a big city?
good        City lights brighten the night sky so much that faint stars disappear.   (0.9)
cut off     In a city, the stars are not visible because of the way that light       (less)
hollow      Great question! I'm happy to help you with that today.                   (little)
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
    """gold = order x distinct x enough x fresh x (0.35 finished + 0.30 topic + 0.20 substance + 0.15 direct).

    topic      different content stems shared with the prompt / 2 (1 if the prompt has only one), at most 1
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
        mean = 0.35 * _text.finished(completion) + 0.30 * topic + 0.20 * substance + 0.15 * self._direct(completion, len(tokens))
        return gates * mean

    def _content(self, tokens: list[str], asked: list[str]) -> tuple[float, float]:
        said, wanted = set(ENGLISH.content(tokens)), set(ENGLISH.content(asked))
        topic = min(1.0, len(said & wanted) / max(1, min(2, len(wanted))))
        return topic, min(1.0, len(said - wanted) / 4)

    def _direct(self, completion: str, length: int) -> float:
        return 0.0 if _FILLER.match(completion) else 1.0 - _text.ramp(length, 30, 60)


TASK = Chat()
