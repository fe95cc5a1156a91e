"""Held-out scores: the alarm, the gap between proxy and gold, standard errors, and what stays the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interplay import evaluation, reward_model, rollouts, tasks
from interplay import models as model_files
from interplay.evaluation import Baseline, Evaluator, text_health
from interplay.models import Models
from interplay.rollouts import Sequences
from interplay.tasks import Pair, Prompt
from tests import training

ORDINARY = [
    "The garden needs water in the early morning, before the sun is high.",
    "A river carries sand and small stones down to the sea.",
    "Bread rises because yeast turns sugar into gas.",
    "Birds fly south when the days become short and cold.",
]


# --- the alarm -------------------------------------------------------------------------------------


def test_ordinary_text_raises_no_alarm() -> None:
    health = text_health(ORDINARY, entropy=2.0)
    assert health["alarm"] == 0
    assert health["same_text"] == 0
    words = [len(set(text.lower().split())) / len(text.split()) for text in ORDINARY]
    assert health["distinct_words"] == pytest.approx(sum(words) / 4)


def test_the_prompts_of_this_project_raise_no_alarm() -> None:
    file = Path(__file__).parents[1] / "data" / "prompts" / "summarisation.jsonl"
    texts = [json.loads(line)["prompt"] for line in file.read_text().splitlines()]
    assert text_health(texts, entropy=1.0)["alarm"] == 0


@pytest.mark.parametrize(
    ("texts", "entropy"),
    [
        (["the the the the the the the the"] * 1 + ["so so so so so so"], 2.0),
        ([f"{word} good good good good morning now" for word in ("a", "b", "c", "d")], 2.0),
        (["one two " * 8, "red blue " * 8, "up down " * 8], 2.0),
        (["I cannot answer that question today."] * 4, 2.0),
        ([*ORDINARY[:2], *["I cannot answer that question today."] * 3], 2.0),
        (["", "", ""], 2.0),
        (["  ", "\n"], 2.0),
        (ORDINARY, 0.1),
    ],
    ids=["one word", "one word prevails", "few words", "one text for all", "one text for most", "empty", "blank", "collapsed"],
)
def test_the_alarm_fires(texts: list[str], entropy: float) -> None:
    assert text_health(texts, entropy)["alarm"] == 1


def test_counts_of_the_alarm() -> None:
    health = text_health(["a a b", "c d", "c d", ""], entropy=2.0)
    assert health["distinct_words"] == pytest.approx((2 / 3 + 1 + 1) / 3), "empty texts have no share of distinct words"
    assert health["same_text"] == pytest.approx(1 / 4)
    assert text_health([""], entropy=2.0)["distinct_words"] == 0


def test_two_texts_that_agree_are_no_alarm_among_many() -> None:
    assert text_health([*ORDINARY, ORDINARY[0]], entropy=2.0)["alarm"] == 0


# --- the gap ---------------------------------------------------------------------------------------


def evaluator() -> Evaluator:
    return Evaluator(tasks.find("chat"), (), (), training.small(Path("m"), None, Path("r")))


def test_gap_is_the_difference_of_gains_in_units_of_the_first_spread() -> None:
    first_gold, first_proxy = [0.1, 0.3, 0.5, 0.9], [-1.0, 0.0, 2.0, 3.0]
    later_gold, later_proxy = [0.2, 0.2, 0.4, 0.7], [4.0, 5.0, 2.0, 9.0]
    scored = evaluator()
    assert scored._gap(first_gold, first_proxy) == {"gold_proxy_gap": 0.0}
    gains = [(np.mean(b) - np.mean(a)) / np.std(a, ddof=1) for a, b in ((first_proxy, later_proxy), (first_gold, later_gold))]
    assert scored._gap(later_gold, later_proxy)["gold_proxy_gap"] == pytest.approx(gains[0] - gains[1])
    assert gains[0] - gains[1] > 1


def test_the_baseline_is_fixed_by_the_first_call() -> None:
    scored = evaluator()
    scored._gap([0.0, 1.0], [2.0, 6.0])
    kept = Baseline(0.5, 0.5**0.5, 4.0, 8**0.5)
    assert vars(scored.baseline) == pytest.approx(vars(kept))
    scored._gap([1.0, 1.0], [9.0, 9.5])
    assert vars(scored.baseline) == pytest.approx(vars(kept))


def test_gap_without_spread_is_undefined_and_without_proxy_absent() -> None:
    scored = evaluator()
    assert scored._gap([0.0, 0.0], [1.0, 2.0]) == {"gold_proxy_gap": None}
    assert scored._gap([0.4, 0.9], [1.0, 2.0]) == {"gold_proxy_gap": None}
    assert evaluator()._gap([0.1, 0.2], None) == {}


# --- scoring the tiny model ------------------------------------------------------------------------


@pytest.fixture
def loaded(model: Path, tmp_path: Path) -> Models:
    return model_files.load(training.small(model, None, tmp_path), critic=False, reward=True)


def prompts(count: int) -> tuple[Prompt, ...]:
    task = tasks.find("chat")
    return tuple(Prompt(str(n), f"Tell me about {topic}.", task.messages(f"Tell me about {topic}.")) for n, topic in enumerate(training.TOPICS[:count]))


def pairs(count: int) -> tuple[Pair, ...]:
    return tuple(Pair(prompt, training.SENTENCES[n % 10], training.SENTENCES[10 + n % 6]) for n, prompt in enumerate(prompts(count)))


def of(model: Path, tmp_path: Path, *, heldout: int = 7, judged: int = 5) -> Evaluator:
    config = training.small(model, None, tmp_path, temperature=1.3)
    return Evaluator(tasks.find("chat"), prompts(heldout), pairs(judged), config)


def push(item: Any, size: float = 0.05) -> None:
    """Move all trained weights, as an update would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in reward_model.trainable(item):
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def test_the_same_weights_get_the_same_score(loaded: Models, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampling seed is the same at every call, whatever the global generator is doing."""
    seeds: list[int] = []
    real = rollouts.sample_scored

    def sample(*args: Any, **keys: Any) -> tuple[Sequences, torch.Tensor, torch.Tensor]:
        seeds.append(keys["seed"])
        return real(*args, **keys)

    monkeypatch.setattr(rollouts, "sample_scored", sample)
    scored = of(model, tmp_path)
    first = scored.score(loaded)
    torch.manual_seed(99)
    second = scored.score(loaded)
    assert first.metrics == second.metrics
    assert first.sequences.texts == second.sequences.texts
    push(loaded.policy)
    third = scored.score(loaded)
    assert third.sequences.texts != first.sequences.texts
    assert len(seeds) == 3
    assert set(seeds) == {scored.config.stream_seed("sampling")}


def test_means_and_standard_errors(loaded: Models, model: Path, tmp_path: Path) -> None:
    scored = of(model, tmp_path)
    scored.frozen = reward_model.weights(loaded.reward)
    score = scored.score(loaded)
    assert score.proxy_B is not None
    texts, asked = score.sequences.texts, score.sequences.prompts
    gold = [tasks.find("chat").gold(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    assert score.gold_B == gold
    assert np.std(gold) > 0
    for name, values in (("gold", gold), ("proxy", score.proxy_B), ("kl", score.kl_B)):
        assert score.metrics[name] == pytest.approx(np.mean(values))
        assert score.metrics[f"{name}_se"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(7))
    assert score.metrics["length"] == pytest.approx(score.sequences.mask_BT.sum() / 7)
    assert score.metrics["finished"] == pytest.approx(score.sequences.finished_B.float().mean())


def one_by_one(item: Any, sequences: Sequences, temperature: float) -> Iterator[torch.Tensor]:
    """Log-probabilities of all next tokens of each completion, without padding: an independent route."""
    for row in range(len(sequences.texts)):
        ids = torch.tensor(sequences.token_lists()[row])[None]
        count = int(sequences.lengths_B[row])
        with torch.no_grad():
            logits = item(input_ids=ids).logits[0, -count - 1 : -1].double()
        yield (logits / temperature).log_softmax(-1)


def test_kl_and_entropy_against_an_independent_computation(loaded: Models, model: Path, tmp_path: Path) -> None:
    scored = of(model, tmp_path)
    np.testing.assert_allclose(scored.score(loaded).kl_B, 0, atol=1e-4, err_msg="the untrained policy is the reference")
    push(loaded.policy)
    score = scored.score(loaded)
    sequences = score.sequences
    ours = list(one_by_one(loaded.policy, sequences, 1.3))
    with loaded.policy.disable_adapter():
        theirs = list(one_by_one(loaded.policy, sequences, 1.3))
    expected, entropies = [], []
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        chosen = torch.tensor(sequences.token_lists()[row][-len(a) :])[:, None]
        expected.append(float((a.gather(1, chosen) - b.gather(1, chosen)).sum()))
        entropies += (-(a.exp() * a).sum(-1)).tolist()
    np.testing.assert_allclose(score.kl_B, expected, rtol=1e-3, atol=1e-4)
    assert score.metrics["entropy"] == pytest.approx(np.mean(entropies), rel=1e-4)
    assert max(abs(value) for value in expected) > 0.01


def test_the_proxy_is_the_frozen_reward_model(loaded: Models, model: Path, tmp_path: Path) -> None:
    """Refining the reward model does not move it, and afterwards the refined one is back in place."""
    scored = of(model, tmp_path)
    assert scored.score(loaded).proxy_B is None, "there is no frozen reward model before iteration 0 has trained one"
    scored.frozen = reward_model.weights(loaded.reward)
    before = scored.score(loaded)
    push(loaded.reward)
    moved = reward_model.weights(loaded.reward)
    after = scored.score(loaded)
    assert before.proxy_B == after.proxy_B
    direct = rollouts.scores(loaded.reward, after.sequences).tolist()
    assert max(abs(a - b) for a, b in zip(direct, after.proxy_B or (), strict=True)) > 1e-3
    assert all(torch.equal(moved[name], tensor) for name, tensor in reward_model.weights(loaded.reward).items())


def test_margins_and_accuracies_on_held_out_pairs(loaded: Models, model: Path, tmp_path: Path) -> None:
    scored = of(model, tmp_path, judged=19)  # more than one batch of 16
    untrained = scored.score(loaded).metrics
    assert untrained["pair_margin"] == 0
    push(loaded.policy)
    found = scored.score(loaded).metrics
    sequences = rollouts.written_pairs(loaded, scored.pairs, scored.config)
    ours = list(one_by_one(loaded.policy, sequences, 1.3))
    with loaded.policy.disable_adapter():
        theirs = list(one_by_one(loaded.policy, sequences, 1.3))
    implicit: list[float] = []
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        chosen = torch.tensor(sequences.token_lists()[row][-len(a) :])[:, None]
        implicit.append(float((a.gather(1, chosen) - b.gather(1, chosen)).sum()))
    margins = np.array(implicit[0::2]) - np.array(implicit[1::2])
    assert len(margins) == 19
    assert found["pair_margin"] == pytest.approx(margins.mean(), rel=1e-3, abs=1e-4)
    assert found["pair_margin_se"] == pytest.approx(margins.std(ddof=1) / 19**0.5, rel=1e-3)
    assert found["pair_accuracy"] == pytest.approx((margins > 0).mean())
    rewards = [float(rollouts.scores(loaded.reward, sequences.rows(row, row + 1))) for row in range(38)]
    assert found["reward_model_accuracy"] == pytest.approx(np.mean(np.array(rewards[0::2]) > np.array(rewards[1::2])))


def test_without_held_out_pairs_there_are_no_pair_metrics(loaded: Models, model: Path, tmp_path: Path) -> None:
    assert not [name for name in of(model, tmp_path, judged=0).score(loaded).metrics if "pair" in name or "accuracy" in name]


def test_rows_carry_place_prompt_and_scores(loaded: Models, model: Path, tmp_path: Path) -> None:
    scored = of(model, tmp_path)
    score = scored.score(loaded)
    place = {"clock": 7, "update": 3, "iteration": 2, "role": "policy"}
    rows = evaluation.rows(score, place)
    lengths: set[int] = {len(column) for column in rows.values()}
    assert lengths == {7}
    assert {name: rows[name][0] for name in place} == place
    _same(rows["prompt_id"], [prompt.id for prompt in scored.prompts])
    _same(rows["completion"], score.sequences.texts)
    _same(rows["gold"], score.gold_B)
    assert set(rows["split"]) == {"heldout"}
    assert rows["proxy"] == [None] * 7


def _same(a: Sequence[Any], b: Sequence[Any]) -> None:
    assert list(a) == list(b)
