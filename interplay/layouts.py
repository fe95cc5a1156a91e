"""Rows -> prompts and judged pairs. Knows TRL's layouts and two kinds of scored completions.

    preference     prompt, chosen, rejected [margin]          plain text or conversations
    implicit       chosen, rejected [margin]                  the common beginning is the prompt
    scored         prompt, completion, score [post_edit | reference]
    labelled       prompt, completion, label (true: desirable)
    prompts        prompt or messages [reference]

Nothing is guessed: unknown columns are refused with the nearest mapping, and every row that is
left out is counted under its reason. No I/O.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from statistics import median
from typing import Any

from interplay.errors import DataError
from interplay.readers import Row
from interplay.tasks.base import Pair, Prompt, Task

Turn = dict[str, str]

LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "preference": ("prompt", "chosen", "rejected"),
    "implicit": ("chosen", "rejected"),
    "scored": ("prompt", "completion", "score"),
    "labelled": ("prompt", "completion", "label"),
    "prompts": ("prompt",),
    "messages": ("messages",),
}
_OPTIONAL = {"margin", "post_edit", "reference", "id"}
_ALIASES = {
    "prompt": ["question", "query", "instruction", "input", "source", "src", "text", "document", "article", "post", "context", "user", "en", "original"],
    "chosen": ["answer_a", "response_a", "preferred", "better", "winner", "accepted", "good", "positive", "chosen_response", "answer_1", "response_1"],
    "rejected": ["answer_b", "response_b", "dispreferred", "worse", "loser", "refused", "bad", "negative", "rejected_response", "answer_2", "response_2"],
    "completion": ["response", "answer", "output", "generation", "translation", "mt", "summary", "de", "target"],
    "score": ["rating", "reward", "mean", "quality", "z_mean", "da"],
    "messages": ["conversation", "conversations", "dialogue", "dialog", "chat", "turns"],
}


class LeftOut(Exception):
    """A row is left out; the text is the reason that the report counts."""


@dataclass
class Harvest:
    """What the rows gave: prompts by id, and the pairs of each."""

    layout: str
    prompts: dict[str, Prompt] = field(default_factory=dict)
    pairs: dict[str, list[Pair]] = field(default_factory=lambda: defaultdict(list))
    left_out: Counter[str] = field(default_factory=Counter)
    ignored: tuple[str, ...] = ()


def harvest(rows: Sequence[Row], task: Task, source: str) -> Harvest:
    """Every usable row as prompts and pairs. Raises `DataError` on unknown columns or when nothing is usable."""
    columns = sorted({key for row in rows for key in row})
    layout = find_layout(columns, source)
    found = Harvest(layout, ignored=tuple(sorted(set(columns) - set(LAYOUTS[layout]) - _OPTIONAL)))
    scored: list[tuple[Prompt, str, float]] = []
    for row in rows:
        try:
            _take(row, layout, task, found, scored)
        except LeftOut as reason:
            found.left_out[str(reason)] += 1
    _pair_scored(scored, found)
    if not found.prompts:
        reasons = "; ".join(f"{n} x {reason}" for reason, n in found.left_out.most_common(3))
        raise DataError(f"--data is {source!r}, but none of its {len(rows)} rows can be used ({reasons}); {_accepted()}")
    return found


def find_layout(columns: Sequence[str], source: str) -> str:
    """The first layout whose columns are all there. Raises `DataError` with the nearest mapping."""
    for name, needed in LAYOUTS.items():
        if set(needed) <= set(columns):
            return name
    raise DataError(f"--data is {source!r}; found columns: {', '.join(columns) or 'none'}; {_accepted()}{_nearest_mapping(columns)}")


def prompt_id(turns: Sequence[Mapping[str, str]]) -> str:
    """Stable over runs, machines and row order: SHA-256 of the conversation."""
    text = json.dumps([[t["role"], " ".join(t["content"].split())] for t in turns], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- one row -------------------------------------------------------------------------------------


def _take(row: Row, layout: str, task: Task, found: Harvest, scored: list[tuple[Prompt, str, float]]) -> None:
    """Put one row into the harvest, or raise `LeftOut`."""
    if layout in ("preference", "implicit"):
        _require(row, LAYOUTS[layout])
        turns, chosen, rejected = _explicit(row) if layout == "preference" else _implicit(row["chosen"], row["rejected"])
        if chosen == rejected:
            raise LeftOut("chosen and rejected are the same")
        prompt = _prompt(turns, row, task, found)
        found.pairs[prompt.id].append(Pair(prompt, chosen, rejected, _number(row, "margin", optional=True)))
    elif layout in ("scored", "labelled"):
        value = _label(row) if layout == "labelled" else _number(row, "score")
        completion = _answer(row.get("completion"), "completion")
        assert value is not None
        scored.append((_prompt(_turns(row.get("prompt"), "prompt"), row, task, found), completion, value))
    else:
        turns = _turns(row.get(LAYOUTS[layout][0]), LAYOUTS[layout][0])
        _prompt(_until_last_user(turns), row, task, found)


def _prompt(turns: list[Turn], row: Row, task: Task, found: Harvest) -> Prompt:
    """The row's prompt; rows of the same conversation share one."""
    if not turns or turns[-1]["role"] != "user":
        raise LeftOut("the prompt does not end with a user's turn")
    key = prompt_id(turns)
    if key not in found.prompts:
        reference = row.get("reference") or (_joined(row["post_edit"]) if row.get("post_edit") else None)
        text = _source_text(turns, task)
        messages = task.messages(text) if len(turns) == 1 else (*_instruction(turns, task), *turns)
        found.prompts[key] = Prompt(key, text, messages, str(reference) if reference else None)
    return found.prompts[key]


def _instruction(turns: list[Turn], task: Task) -> tuple[Mapping[str, str], ...]:
    """The task's system message, unless the data brings one of its own (templates allow one)."""
    if turns[0]["role"] == "system":
        return ()
    return tuple(m for m in task.messages("")[:1] if m["role"] == "system")


def _source_text(turns: list[Turn], task: Task) -> str:
    """What gold looks at: the last user turn; the one before it too when the last is too short to have a topic."""
    said = [t["content"] for t in turns if t["role"] == "user"]
    text = said[-1] if len(said) == 1 or len(said[-1].split()) >= 5 else f"{said[-2]} {said[-1]}"
    return task.source(text)


def _explicit(row: Row) -> tuple[list[Turn], str, str]:
    """prompt, chosen, rejected; answers that repeat the prompt's turns (UltraFeedback's way) lose them."""
    if _is_turns(row["chosen"]) and any(t.get("role") == "user" for t in row["chosen"]):
        return _implicit(row["chosen"], row["rejected"])
    return _turns(row["prompt"], "prompt"), _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected")


def _implicit(chosen: Any, rejected: Any) -> tuple[list[Turn], str, str]:
    """The common beginning of two texts or two conversations is the prompt."""
    if _is_turns(chosen) and _is_turns(rejected):
        left, right = _turns(chosen, "chosen"), _turns(rejected, "rejected")
        same = _common(left, right)
        return left[:same], _answer(left[same:], "chosen"), _answer(right[same:], "rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise LeftOut("chosen and rejected are neither both text nor both conversations")
    cut = _common_length(chosen, rejected)
    return _turns(chosen[:cut], "common beginning"), _answer(chosen[cut:], "chosen"), _answer(rejected[cut:], "rejected")


def _common(left: Sequence[object], right: Sequence[object]) -> int:
    """Length of the common beginning of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _common_length(left: str, right: str) -> int:
    """Length of the common beginning, cut back to the last speaker mark, else to a word boundary."""
    same = _common(left, right)
    marks = [m.end() for m in _SPEAKER.finditer(left[:same])]
    if marks:
        return marks[-1]
    return same if same in (len(left), len(right)) else left.rfind(" ", 0, same) + 1


def _require(row: Row, names: Sequence[str]) -> None:
    for name in names:
        if not row.get(name):
            raise LeftOut(f"no {name}")


# --- one cell ------------------------------------------------------------------------------------

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # the plain-text conversations of hh-rlhf
_ROLE = {"Human": "user", "Assistant": "assistant"}


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(t, Mapping) for t in value)


def _turns(value: Any, name: str) -> list[Turn]:
    """Text, or a list of turns, as turns."""
    if not value:
        raise LeftOut(f"no {name}")
    if isinstance(value, str):
        return _spoken(value) or [{"role": "user", "content": value.strip()}]
    if not _is_turns(value) or not all(isinstance(t.get("role"), str) and isinstance(t.get("content"), str) for t in value):
        raise LeftOut(f"{name} is neither text nor a list of {{role, content}}")
    return [{"role": t["role"], "content": t["content"].strip()} for t in value]


def _spoken(text: str) -> list[Turn]:
    """`\\n\\nHuman: ... \\n\\nAssistant: ...` as turns; [] for ordinary text. An open last turn is dropped."""
    parts = _SPEAKER.split(text)
    if len(parts) < 3 or parts[0].strip():
        return []
    turns = [{"role": _ROLE[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]
    return [t for t in turns if t["content"]]


def _until_last_user(turns: list[Turn]) -> list[Turn]:
    """A conversation up to its last user turn: what is to be answered."""
    last = max((i for i, t in enumerate(turns) if t["role"] == "user"), default=-1)
    return turns[: last + 1]


def _answer(value: Any, name: str) -> str:
    """An answer as text: plain, or what the assistant says in a list of turns."""
    text = value if isinstance(value, str) else "\n\n".join(t["content"] for t in _turns(value, name) if t["role"] == "assistant")
    if not text.strip():
        raise LeftOut(f"no {name}")
    return text.strip()


def _number(row: Row, name: str, *, optional: bool = False) -> float | None:
    value = row.get(name)
    if value is None and optional:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise LeftOut(f"{name} is not a number") from None
    if not math.isfinite(number):
        raise LeftOut(f"{name} is not finite")
    return number


def _label(row: Row) -> float:
    word = str(row.get("label")).strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise LeftOut("label is neither true nor false")
    return float(word in ("true", "1"))


def _joined(text: object) -> str:
    """A tokenised human correction (`Freiburg .`) as ordinary text (`Freiburg.`)."""
    return re.sub(r"(?<=[(\[„]) +", "", re.sub(r" +(?=[.,;:!?)\]“])", "", str(text))).strip()


# --- scored completions --------------------------------------------------------------------------


def _pair_scored(scored: list[tuple[Prompt, str, float]], found: Harvest) -> None:
    """Pairs from scores. One prompt with several scores: the best answer against each lower one.

    Otherwise, as in ZOPrO's set-up: an answer at or above the median score (a desirable one) is
    preferred over the untreated source text; answers below it make no pair.
    """
    if not scored:
        return
    line = 1.0 if found.layout == "labelled" else median(value for _, _, value in scored)
    groups: dict[str, list[tuple[Prompt, str, float]]] = defaultdict(list)
    for item in scored:
        groups[item[0].id].append(item)
    for key, group in groups.items():
        found.pairs[key] += _pairs_of(group, line, lambda reason: found.left_out.update([reason]))


def _pairs_of(group: list[tuple[Prompt, str, float]], line: float, leave_out: Callable[[str], None]) -> list[Pair]:
    prompt, best, top = max(group, key=lambda item: item[2])
    lower = [(text, value) for _, text, value in group if value < top and text != best]
    if lower:
        return [Pair(prompt, best, text, top - value) for text, value in lower]
    if top >= line and best != prompt.text:
        return [Pair(prompt, best, prompt.text)]
    leave_out("no pair: score below the median" if top < line else "no pair: the answer is the source text")
    return []


# --- words for the unknown case ------------------------------------------------------------------


def _accepted() -> str:
    shown = [" + ".join(needed) for needed in LAYOUTS.values()]
    return f"accepted layouts: {'; '.join(shown)}"


def _nearest_mapping(columns: Sequence[str]) -> str:
    """`; rename 'question' to 'prompt'` for each column whose name is a common word for one of ours."""
    taken: dict[str, str] = {}
    for column in columns:
        plain = column.lower().replace("-", "_").replace(" ", "_")
        for ours, words in _ALIASES.items():
            if ours not in columns and ours not in taken.values() and (plain in words or plain == ours):
                taken[column] = ours
                break
    return "; " + ", ".join(f"rename {a!r} to {b!r}" for a, b in taken.items()) if taken else ""
