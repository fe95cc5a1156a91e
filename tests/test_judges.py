"""Both orders, ties, the bias to the first position, and a model as judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch

from interplay import judges, models, tasks
from interplay.config import RunConfig
from interplay.errors import ModelError
from interplay.models import Models
from interplay.tasks import Candidate, Pair, Prompt

PROMPT = Prompt("p", "Why is the sky blue?", ({"role": "user", "content": "Why is the sky blue?"},))
CONFIG = RunConfig(max_prompt_tokens=64, max_pair_tokens=12, dtype="float32", device="cpu")


def candidates(*texts: tuple[str, str]) -> list[Candidate]:
    return [Candidate(PROMPT, first, second, (True, False)) for first, second in texts]


# --- both orders -----------------------------------------------------------------------------------


def longer(asked: Sequence[Candidate]) -> list[float]:
    return [0.5 if len(c.first) == len(c.second) else float(len(c.first) > len(c.second)) for c in asked]


def test_the_better_answer_is_chosen_wherever_it_stands() -> None:
    found = judges.decide(longer, candidates(("long one", "short"), ("short", "long one"), ("same", "same")))
    assert found.pairs == (Pair(PROMPT, "long one", "short", ended=(True, False)), Pair(PROMPT, "long one", "short", ended=(False, True)))
    assert found.metrics == {"judge/pairs": 2, "judge/tie_rate": pytest.approx(1 / 3), "judge/order_bias": 0}


def test_each_candidate_is_shown_in_both_orders() -> None:
    seen: list[tuple[str, str]] = []

    def judge(asked: Sequence[Candidate]) -> list[float]:
        seen.extend((c.first, c.second) for c in asked)
        return longer(asked)

    judges.decide(judge, candidates(("aa", "b"), ("c", "dd")))
    assert seen == [("aa", "b"), ("c", "dd"), ("b", "aa"), ("dd", "c")]


@pytest.mark.parametrize(("vote", "bias"), [(0.9, 0.5), (0.1, -0.5)])
def test_a_judge_of_positions_finds_no_pair_and_its_bias_is_seen(vote: float, bias: float) -> None:
    found = judges.decide(lambda asked: [vote] * len(asked), candidates(("a", "b"), ("c", "d")))
    assert found.pairs == ()
    assert found.metrics == {"judge/pairs": 0, "judge/tie_rate": 1, "judge/order_bias": bias}


def test_a_verdict_in_one_order_only_is_a_tie_but_counts_for_the_bias() -> None:
    found = judges.decide(lambda asked: [1.0 if c.first == "a" else 0.5 for c in asked], candidates(("a", "b")))
    assert (found.pairs, found.metrics["judge/order_bias"]) == ((), 0.5)
    three_of_four = judges.decide(lambda asked: [float(c.first != "d") for c in asked], candidates(("a", "b"), ("c", "d")))
    assert three_of_four.metrics == {"judge/pairs": 1, "judge/tie_rate": 0.5, "judge/order_bias": 0.25}


def test_no_candidates_and_only_ties_divide_by_nothing() -> None:
    assert judges.decide(longer, []).metrics == {"judge/pairs": 0, "judge/tie_rate": 1, "judge/order_bias": 0}
    assert judges.decide(longer, candidates(("x", "y"))).metrics == {"judge/pairs": 0, "judge/tie_rate": 1, "judge/order_bias": 0}


def test_the_gold_judge_follows_the_tasks_score() -> None:
    task = tasks.find("chat")
    good, bad = "The sky is blue because air scatters blue light more than red.", "Great question! I'm happy to help you with that today."
    assert task.gold(PROMPT, good) > task.gold(PROMPT, bad)
    judge = judges._gold(task)
    assert judge(candidates((good, bad), (bad, good), (good, good))) == [1.0, 0.0, 0.5]


# --- a model as judge ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = getattr(tiny, request.param)()
    if request.param == "gpt2":  # room for the judge's question, one byte a token
        torch.manual_seed(0)
        made.resize_token_embeddings(259)
        made.transformer.wpe = torch.nn.Embedding(512, 32)
        torch.nn.init.normal_(made.transformer.wpe.weight, std=0.2)
        made.config.n_positions = 512
    return tiny.save(tmp_path_factory.mktemp("judges") / request.param, made)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Models:
    found = models.load(CONFIG.with_(model=str(folder), judge="model"), critic=False, reward=False)
    for name, parameter in found.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return found


ASKED = candidates(("yes", "no"), ("a somewhat longer answer than the others", "no"), ("blue", "red"), ("x", "y"))


def question_alone(model: torch.nn.Module, candidate: Candidate) -> float:
    """The odds of A against B by a plain forward of this one question."""
    words = tiny.tokenizer()
    text = judges._QUESTION.format(prompt=candidate.prompt.text, first=candidate.first, second=candidate.second)
    ids = words(words.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True), add_special_tokens=False)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids["input_ids"]])).logits[0, -1].double()
    a, b = (words(letter)["input_ids"][0] for letter in "AB")
    return float(torch.sigmoid(logits[a] - logits[b]))


def test_the_vote_is_the_odds_of_a_whatever_stands_beside_it_in_the_batch(loaded: Models) -> None:
    judge = judges.find(CONFIG.with_(judge="model"), tasks.find("chat"), loaded)
    with loaded.policy.disable_adapter():
        alone = [question_alone(loaded.policy, c) for c in ASKED]
    assert judge(ASKED) == pytest.approx(alone, abs=1e-5)
    assert len({round(vote, 4) for vote in alone}) == len(ASKED)


def test_a_model_judge_is_deterministic_and_draws_nothing(loaded: Models) -> None:
    judge = judges.find(CONFIG.with_(judge="model"), tasks.find("chat"), loaded)
    before = torch.random.get_rng_state()
    first = judge(ASKED * 5)
    assert judge(ASKED * 5) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(first) == 20
    assert all(0 < vote < 1 for vote in first)


def test_the_own_model_judges_without_its_adapter(loaded: Models, folder: Path) -> None:
    """Else the judge would move with the policy; a judge of its own from the same folder votes the same."""
    config = CONFIG.with_(judge="model")
    own = judges.find(config, tasks.find("chat"), loaded)(ASKED)
    other = judges.find(config.with_(judge_model=str(folder)), tasks.find("chat"), loaded)
    assert other(ASKED) == pytest.approx(own, abs=1e-6)
    assert not any(p.requires_grad for p in other.model.parameters())  # type: ignore[attr-defined]
    assert question_alone(loaded.policy, ASKED[0]) != pytest.approx(own[0], abs=1e-3)


def test_a_judge_model_that_is_not_there(loaded: Models) -> None:
    with pytest.raises(ModelError, match=r"--judge-model is '\./nowhere', but there is no such folder"):
        judges.find(CONFIG.with_(judge="model", judge_model="./nowhere"), tasks.find("chat"), loaded)
