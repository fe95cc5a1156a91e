"""The prompts written for this project: enough, different from each other, not made from templates, as fingerprinted."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chat", "summarisation", "translation")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "data" / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


@pytest.mark.parametrize("name", NAMES)
def test_at_least_two_hundred_with_ids_of_their_own(name: str) -> None:
    found = rows(name)
    assert len(found) >= 200
    assert len({row["id"] for row in found}) == len(found)
    assert len({row["prompt"].strip().lower() for row in found}) == len(found)
    columns = {"id", "prompt", "reference"} if name == "translation" else {"id", "prompt"}
    assert all(set(row) == columns and all(value.strip() for value in row.values()) for row in found)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_share_more_than_half_of_their_word_trigrams(name: str) -> None:
    found = [(row["id"], trigrams(row["prompt"])) for row in rows(name)]
    for (first, left), (second, right) in combinations(found, 2):
        shared = len(left & right)
        assert shared == 0 or shared <= 0.5 * min(len(left), len(right)), (first, second)


@pytest.mark.parametrize("name", NAMES)
def test_not_made_from_templates(name: str) -> None:
    """No opening and no ending recurs: a template would show as one opening of many, or as one end."""
    texts = [re.findall(r"\w+", row["prompt"].lower()) for row in rows(name)]
    openings, endings = (Counter(tuple(words[cut]) for words in texts) for cut in (slice(0, 3), slice(-3, None)))
    assert openings.most_common(1)[0][1] <= 0.03 * len(texts), openings.most_common(3)
    assert endings.most_common(1)[0][1] <= 0.02 * len(texts), endings.most_common(3)
    assert len(openings) >= 0.9 * len(texts)
    anywhere = Counter(gram for row in rows(name) for gram in trigrams(row["prompt"]))
    assert anywhere.most_common(1)[0][1] <= 0.06 * len(texts), anywhere.most_common(3)


@pytest.mark.parametrize(("name", "least", "most"), [("chat", 3, 60), ("summarisation", 40, 80), ("translation", 4, 20)])
def test_lengths_suit_the_prompt_limit(name: str, least: int, most: int) -> None:
    """max_prompt_tokens is 192; English has about 1.4 of the bundled model's tokens in each word, instructions take up to 50."""
    assert all(least <= len(row["prompt"].split()) <= most for row in rows(name))


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_fits_with_its_instruction(name: str) -> None:
    from transformers import AutoTokenizer

    from interplay import data, models, tasks
    from interplay.config import RunConfig

    tokenizer = AutoTokenizer.from_pretrained(models.bundled_folder())
    asked = [tokenizer.apply_chat_template(list(p.messages), tokenize=False, add_generation_prompt=True) for p in data.own_prompts(tasks.find(name))]
    assert max(len(tokenizer(text, add_special_tokens=False).input_ids) for text in asked) <= RunConfig().max_prompt_tokens


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_the_data_readme(name: str) -> None:
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256((ROOT / "data" / "prompts" / f"{name}.jsonl").read_bytes()).hexdigest()
    line = next(line for line in page.splitlines() if line.startswith(f"| `prompts/{name}.jsonl`"))
    assert digest in line, f"data/prompts/{name}.jsonl has sha256 {digest}; data/README.md says otherwise"
    assert f"| {len(rows(name))} |" in line
