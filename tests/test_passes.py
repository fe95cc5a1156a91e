"""Common beginnings are read once, and nobody can tell from the numbers."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from interplay import models, passes, rollouts, tasks
from interplay.config import RunConfig
from interplay.models import Models
from interplay.tasks import Prompt

CONFIG = RunConfig(max_prompt_tokens=64, max_new_tokens=10, dtype="float32", device="cpu", seed=3)
PROMPTS = [
    Prompt(text, text, ({"role": "user", "content": f"please answer: {text}"},)) for text in ("hi", "a much longer question, is it not?", "what?", "hippo")
]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tiny.save(tmp_path_factory.mktemp("passes") / request.param, getattr(tiny, request.param)())
    found = models.load(CONFIG.with_(model=str(folder)), critic=False, reward=True)
    return tiny.stirred(found)


class Counter:
    """Tokens that went through the blocks of a model."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        self.handle = passes.body(model).register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens += (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel()


def counted(model: Any, act: Any) -> tuple[Any, int]:
    counter = Counter(model)
    try:
        return act(), counter.tokens
    finally:
        counter.handle.remove()


@pytest.mark.parametrize("what", ["scored", "scores", "sample"])
def test_the_numbers_are_those_of_the_plain_pass_for_fewer_tokens(loaded: Models, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = rollouts.sample(loaded, PROMPTS, CONFIG, completions=3, seed=5)
    act, model = {
        "scored": (lambda: rollouts.scored(loaded.policy, sequences, 0.7), loaded.policy),
        "scores": (lambda: rollouts.scores(loaded.reward, sequences), loaded.reward),
        "sample": (lambda: rollouts.sample(loaded, PROMPTS, CONFIG, completions=3, seed=6).ids_BS, loaded.policy),
    }[what]
    brief, few = counted(model, act)
    monkeypatch.setattr(passes, "SHORTEST", 10**6)
    plain, many = counted(model, act)
    torch.testing.assert_close(brief, plain, rtol=0, atol=2e-5)
    assert few < 0.8 * many


def test_common_counts_what_all_rows_begin_with() -> None:
    attention_BS = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    ids_BS = torch.tensor([[0, 0, 7, 8, 9, 5], [7, 8, 9, 4, 4, 5]])
    assert passes.common(ids_BS, attention_BS, 0) == 3
    assert passes.common(ids_BS, attention_BS, 1) == 2  # the token before the last column is the row's own
    assert passes.common(ids_BS, attention_BS, 3) == 0
    assert passes.common(ids_BS.flip(1), torch.ones_like(ids_BS), 0) == 1


def test_equal_rows_keep_a_token_of_their_own(loaded: Models) -> None:
    same = rollouts.sample(loaded, PROMPTS[:1], CONFIG, completions=4, seed=5)
    assert passes.common(same.ids_BS, same.attention_BS, same.mask_BT.shape[1]) == same.ids_BS.shape[1] - same.mask_BT.shape[1] - 1


def test_a_model_without_an_ordinary_cache_is_called_plainly(loaded: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = rollouts.sample(loaded, PROMPTS, CONFIG, completions=1, seed=5)
    monkeypatch.setattr(passes, "_cache", lambda *arguments: None)
    assert "past_key_values" not in passes.brief(loaded.policy, sequences.ids_BS, sequences.attention_BS, 1)


def test_the_bundled_template_begins_alike() -> None:
    """The tiny model's does not; the saving that the docstring names is the bundled model's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.bundled_folder())
    chat = tasks.find("chat")
    rows = [rollouts.encode(tokenizer, Prompt(text, text, chat.messages(text))) for text in ("Hello!", "What is a bee?", "How so?")]
    assert next(place for place in range(99) if len({row[place] for row in rows}) > 1) == 20


def test_pieces_of_like_length_lose_only_padding(loaded: Models) -> None:
    sequences = rollouts.sample(loaded, PROMPTS, CONFIG, completions=2, seed=5)
    seen = torch.zeros(8, dtype=torch.bool)
    for index, part in sequences.alike(3):
        assert part.attention_BS.bool().any(0).all() or part.ids_BS.shape[1] < sequences.ids_BS.shape[1]
        assert bool(part.attention_BS[:, 0].any())
        assert part.token_lists() == [sequences.token_lists()[int(row)] for row in index]
        assert torch.equal(part.lengths_B, sequences.lengths_B[index])
        seen[index] = True
    assert seen.all()
