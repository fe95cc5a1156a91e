"""Sampling and scoring: what is masked, what padding may not change, and whose random numbers are used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from interplay import models, passes, rollouts
from interplay.config import RunConfig
from interplay.errors import ConfigError, DataError
from interplay.models import Models
from interplay.tasks import Pair, Prompt

EOS, PAD = 2, 0


def prompt(text: str) -> Prompt:
    return Prompt(text, text, ({"role": "user", "content": text},))


PROMPTS = [prompt(text) for text in ("hi", "a much longer question, is it not?", "what?")]
CONFIG = RunConfig(max_prompt_tokens=64, max_new_tokens=10, max_pair_tokens=12, dtype="float32", device="cpu", seed=3)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Relative positions, and learnt absolute ones, with adapters that are no longer zero."""
    folder = tiny.save(tmp_path_factory.mktemp("rollouts") / request.param, getattr(tiny, request.param)())
    found = models.load(CONFIG.with_(model=str(folder)), critic=True, reward=True)
    return tiny.stirred(found)


def answers(loaded: Models, seed: int = 5, config: RunConfig = CONFIG, completions: int = 2) -> rollouts.Sequences:
    return rollouts.sample(loaded, PROMPTS, config, completions=completions, seed=seed)


def real(sequences: rollouts.Sequences, b: int) -> tuple[list[int], int]:
    """Ids of row b without padding, and how many of them are completion."""
    width = sequences.mask_BT.shape[1]
    P = sequences.ids_BS.shape[1] - width
    prompt_ids = sequences.ids_BS[b, :P][sequences.attention_BS[b, :P].bool()]
    answer = sequences.ids_BS[b, P:][sequences.mask_BT[b]]
    return [*prompt_ids.tolist(), *answer.tolist()], len(answer)


# --- prompts ---------------------------------------------------------------------------------------


def test_a_prompt_ends_with_the_header_of_the_answer() -> None:
    words = tiny.tokenizer()
    assert words.decode(rollouts.encode(words, PROMPTS[0])) == "u:hi<|end|>a:"


def test_long_prompts_are_left_out_and_counted_and_none_left_is_refused() -> None:
    words = tiny.tokenizer()
    sizes = [len(rollouts.encode(words, p)) for p in PROMPTS]
    assert rollouts.fitting(words, PROMPTS, CONFIG.with_(max_prompt_tokens=sizes[2])) == ((PROMPTS[0], PROMPTS[2]), 1)
    assert rollouts.fitting(words, PROMPTS, CONFIG.with_(max_prompt_tokens=sizes[1])) == (tuple(PROMPTS), 0)
    with pytest.raises(DataError, match=rf"--max-prompt-tokens is 8, but the shortest of 2 prompts has {sizes[2]} tokens; raise it"):
        rollouts.fitting(words, PROMPTS[1:], CONFIG.with_(max_prompt_tokens=8))


def test_prompt_and_answer_must_fit_the_context(loaded: Models) -> None:
    rollouts.check_context(loaded, CONFIG.with_(max_prompt_tokens=244))
    with pytest.raises(ConfigError, match=r"--max-prompt-tokens 245 plus the longest answer \(12 tokens\) is 257, but this model's context holds 256"):
        rollouts.check_context(loaded, CONFIG.with_(max_prompt_tokens=245))


# --- masks and stops -------------------------------------------------------------------------------


def test_the_mask_ends_with_the_first_stop() -> None:
    answer_BT = torch.tensor([[5, EOS, 7, EOS], [EOS, 5, 5, 5], [5, 6, 7, 8], [5, PAD, PAD, PAD], [5, 6, 7, EOS]])
    mask_BT, finished_B = rollouts.until_stop(answer_BT, [PAD, EOS])
    assert mask_BT.sum(-1).tolist() == [2, 1, 4, 2, 4]
    assert all(row.tolist() == sorted(row.tolist(), reverse=True) for row in mask_BT)
    assert finished_B.tolist() == [True, True, False, True, True]


def test_sampled_rows_are_what_the_policy_wrote(loaded: Models) -> None:
    found = answers(loaded, config=CONFIG.with_(max_new_tokens=24), completions=6)
    words = loaded.tokenizer
    assert found.prompts == tuple(p for p in PROMPTS for _ in range(6))
    assert found.group_B.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert found.finished_B.any()
    assert not found.finished_B.all()
    for b in range(18):
        ids, count = real(found, b)
        assert ids[:-count] == rollouts.encode(words, found.prompts[b])
        assert found.texts[b] == words.decode(ids[-count:], skip_special_tokens=True).strip()
        assert (ids[-1] in (EOS, PAD)) == bool(found.finished_B[b])
        assert not {EOS, PAD} & set(ids[-count:-1])
        assert count == found.lengths_B[b] <= 24
        assert found.token_lists()[b] == ids
    assert found.tokens == int(found.lengths_B.sum())
    assert found.rows(2, 4).texts == found.texts[2:4]
    assert torch.equal(found.rows(2, 4).mask_BT, found.mask_BT[2:4])


def test_written_answers_end_with_the_end_token_or_are_cut(loaded: Models) -> None:
    pairs = [Pair(PROMPTS[0], "good", "a long answer that is cut"), Pair(PROMPTS[1], "", "exactly 11.")]
    found = rollouts.written_pairs(loaded, pairs, CONFIG)
    words = loaded.tokenizer
    assert found.lengths_B.tolist() == [5, 12, 1, 12]
    assert found.finished_B.tolist() == [True, False, True, True]
    assert found.group_B.tolist() == [0, 0, 1, 1]
    for b, text in enumerate(["good<|end|>", "a long answe", "<|end|>", "exactly 11.<|end|>"]):
        assert words.decode(found.token_lists()[b]) == words.decode(rollouts.encode(words, found.prompts[b])) + text


# --- padding may not matter ------------------------------------------------------------------------


def alone(model: Any, ids: list[int], count: int, temperature: float) -> tuple[list[float], list[float]]:
    """log-probabilities and entropies of the last `count` ids, by a plain forward of one row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    chosen, entropies = [], []
    for t in range(len(ids) - count, len(ids)):
        p = torch.softmax(logits[t - 1], -1)
        chosen.append(float(p[ids[t]].log()))
        entropies.append(float(-(p * p.log()).sum()))
    return chosen, entropies


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_those_of_each_row_alone(loaded: Models, temperature: float) -> None:
    found = answers(loaded)
    assert len(set(found.attention_BS.sum(-1).tolist())) > 1  # rows are padded differently
    with torch.no_grad():
        ours_BT, entropy_BT = rollouts.token_logprobs(loaded.policy, found, temperature)
    theirs_BT = rollouts.reference_logprobs(loaded, found, temperature)
    for b in range(len(found.texts)):
        ids, count = real(found, b)
        chosen, entropies = alone(loaded.policy, ids, count, temperature)
        torch.testing.assert_close(ours_BT[b][found.mask_BT[b]].tolist(), chosen, rtol=0, atol=2e-5)
        torch.testing.assert_close(entropy_BT[b][found.mask_BT[b]].tolist(), entropies, rtol=0, atol=2e-5)
        with loaded.policy.disable_adapter():
            chosen, _ = alone(loaded.policy, ids, count, temperature)
        torch.testing.assert_close(theirs_BT[b][found.mask_BT[b]].tolist(), chosen, rtol=0, atol=2e-5)
    assert float((ours_BT - theirs_BT)[found.mask_BT].abs().max()) > 0.1  # the adapter does something


def test_entropy_has_no_gradient_and_log_probabilities_have(loaded: Models) -> None:
    ours_BT, entropy_BT = rollouts.token_logprobs(loaded.policy, answers(loaded), 1.0)
    assert ours_BT.requires_grad
    assert not entropy_BT.requires_grad


def test_values_and_scores_are_those_of_each_row_alone(loaded: Models) -> None:
    """A value stands before its token; a score is read at the last token."""
    found = answers(loaded)
    values_BT, scores_B = rollouts.values(loaded.critic, found), rollouts.scores(loaded.reward, found, rows=4)
    assert float(values_BT[~found.mask_BT].abs().sum()) == 0
    for b in range(len(found.texts)):
        ids, count = real(found, b)
        with torch.no_grad():
            each = loaded.critic(input_ids=torch.tensor([ids])).logits[0, :, 0]
            score = loaded.reward(input_ids=torch.tensor([ids])).logits[0, 0]
        torch.testing.assert_close(values_BT[b][found.mask_BT[b]], each[len(ids) - count - 1 : -1], rtol=0, atol=2e-5)
        torch.testing.assert_close(scores_B[b], score, rtol=0, atol=2e-5)
    assert len({round(float(s), 3) for s in scores_B}) > 3
    assert rollouts.values(loaded.critic, found, gradient=True).requires_grad


def test_positions_count_from_the_first_real_token() -> None:
    assert passes.positions(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


# --- random numbers --------------------------------------------------------------------------------


def test_a_seed_gives_its_text_and_leaves_the_global_generator_alone(loaded: Models) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    first = answers(loaded, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)  # whatever the caller draws meanwhile
    assert torch.equal(answers(loaded, seed=1).ids_BS, first.ids_BS)
    assert answers(loaded, seed=2).texts != first.texts
    assert len(set(first.texts)) > 3  # the rows of a prompt are not copies


def test_the_global_generator_is_put_back_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), rollouts.seeded(4, torch.device("cpu")):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sampling_follows_the_temperature(loaded: Models) -> None:
    """At a temperature near 0 every row of a prompt is the most probable text; at 1 they differ."""
    cold = answers(loaded, config=CONFIG.with_(temperature=1e-3), completions=4)
    assert len(set(cold.texts[:4])) == 1
    for b in (0, 4, 8):
        ids, count = real(cold, b)
        with torch.no_grad():
            logits = loaded.policy(input_ids=torch.tensor([ids])).logits[0]
        assert logits[-count - 1 : -1].argmax(-1).tolist() == ids[-count:]


def test_tokens_are_drawn_from_the_whole_distribution(loaded: Models) -> None:
    """First tokens of 600 answers against the policy's own probabilities: no top-k, no top-p, no other temperature."""
    found = rollouts.sample(loaded, PROMPTS[:1], CONFIG.with_(max_new_tokens=2, temperature=1.5), completions=600, seed=1)
    width = found.mask_BT.shape[1]
    first_B = found.ids_BS[:, -width]
    with torch.no_grad():
        logits = loaded.policy(input_ids=torch.tensor([rollouts.encode(loaded.tokenizer, PROMPTS[0])])).logits[0, -1]
    expected = torch.softmax(logits.double() / 1.5, -1)
    seen = torch.bincount(first_B, minlength=len(expected)) / 600
    noise = (expected * (1 - expected) / 600).sqrt()
    assert float(((seen - expected).abs() / (noise + 1 / 600)).max()) < 5
    assert float((seen - torch.softmax(logits.double(), -1)).abs().sum()) > float((seen - expected).abs().sum())


# --- end and padding -------------------------------------------------------------------------------


def test_the_padding_token_is_never_the_end_of_a_turn(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    words.add_special_tokens({"unk_token": "<|bos|>"})
    words.pad_token = words.eos_token
    words.save_pretrained(tmp_path)
    source = models.Source("x", str(tmp_path), None)
    found = models.load_tokenizer(source, CONFIG)
    assert found.pad_token_id != found.eos_token_id
    assert found.padding_side == "left"


def test_masks_do_not_depend_on_the_padding_token(loaded: Models) -> None:
    """An end-of-turn token inside the prompt is attended to, whatever the padding token is."""
    found = answers(loaded)
    inside: Tensor = (found.ids_BS == EOS) & found.attention_BS.bool()
    assert inside[:, : -found.mask_BT.shape[1]].any(-1).all()
    same = rollouts._sequences(
        SimpleNamespace(tokenizer=loaded.tokenizer, device=torch.device("cpu")),  # type: ignore[arg-type]
        found.prompts,
        found.ids_BS,
        found.attention_BS[:, : -found.mask_BT.shape[1]],
        found.mask_BT,
        found.finished_B,
        3,
        2,
    )
    assert torch.equal(same.attention_BS, found.attention_BS)


@pytest.mark.parametrize("completions", [1, 3])
def test_what_the_sampler_knows_is_what_a_pass_of_its_own_gives(loaded: Models, completions: int) -> None:
    config = CONFIG.with_(temperature=1.3)
    sequences, logprobs_BT, entropy_BT = rollouts.sample_scored(loaded, PROMPTS, config, completions=completions, seed=3)
    plain = rollouts.sample(loaded, PROMPTS, config, completions=completions, seed=3)
    assert torch.equal(sequences.ids_BS, plain.ids_BS)
    theirs_BT, other_BT = rollouts.scored(loaded.policy, sequences, 1.3)
    mask = sequences.mask_BT
    torch.testing.assert_close(logprobs_BT[mask], theirs_BT[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy_BT[mask], other_BT[mask], atol=1e-5, rtol=1e-5)
    assert not logprobs_BT[~mask].any()
