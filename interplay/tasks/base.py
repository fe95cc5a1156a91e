"""What a task is: prompts, instructions, and a gold score. No model, no torch.

A task is one file in this folder that ends in `TASK = ...`; `interplay.tasks.find` discovers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Prompt:
    """One thing to answer. `text` is the raw source (a message, a passage, a sentence) that gold
    scores are computed from; `messages` is what the chat template is given."""

    id: str
    text: str
    messages: Messages
    reference: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the first judged better; `margin` is by how much, if known.

    `ended` says for each whether it ended by itself: an answer that was cut at the token limit is
    shown to the models without an end token, as it was generated.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    ended: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class TaskData:
    """What a run reads: disjoint training and held-out prompts, and judged pairs if the data has them.

    `report` goes into `run.json`: source, sha256, layout, rows read, rows left out and why.
    """

    prompts: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]
    pairs: tuple[Pair, ...] = ()
    heldout_pairs: tuple[Pair, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """Two answers to one prompt that nobody has judged yet."""

    prompt: Prompt
    first: str
    second: str
    ended: tuple[bool, bool] = (True, True)

    def swapped(self) -> Candidate:
        return Candidate(self.prompt, self.second, self.first, self.ended[::-1])

    def preferring(self, first: bool) -> Pair:
        kept = self if first else self.swapped()
        return Pair(kept.prompt, kept.first, kept.second, ended=kept.ended)


class Task(Protocol):
    """Six short members; see chat.py for a real example."""

    name: str
    description: str
    prompts_file: str  # file in data/prompts

    def messages(self, text: str) -> Messages:
        """The conversation that asks for an answer to `text`."""

    def source(self, prompt: str) -> str:
        """The raw source inside a prompt of real data (drops a trailing `TL;DR:` and the like)."""

    def gold(self, prompt: Prompt, completion: str) -> float:
        """Programmatic score in [0, 1]; higher is better; 0 for an empty completion."""
