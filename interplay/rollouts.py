"""Prompts -> completions, log-probabilities and values. Generates and scores; never trains.

Axes: B sequences, S = prompt (left-padded) + completion (right-padded) tokens, T completion tokens.
Sampling has its own seed on every call, so the global generator is left as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from interplay import passes
from interplay.config import RunConfig
from interplay.errors import ConfigError, DataError, DivergedError
from interplay.models import Models
from interplay.tasks import Pair, Prompt


@dataclass(frozen=True)
class Sequences:
    """B answers to prompts, as text and as tokens."""

    prompts: tuple[Prompt, ...]
    texts: tuple[str, ...]
    ids_BS: Tensor
    attention_BS: Tensor
    mask_BT: Tensor  # true on completion tokens, the end token included
    finished_B: Tensor  # the completion ended by itself
    group_B: Tensor  # rows of the same prompt share a number

    @property
    def lengths_B(self) -> Tensor:
        return self.mask_BT.sum(-1)

    @property
    def tokens(self) -> int:
        return int(self.mask_BT.sum())

    def token_lists(self) -> list[list[int]]:
        """Prompt and completion of each row without padding, as a trainer wants them."""
        full_BS = self.attention_BS.bool()
        return [row[keep].tolist() for row, keep in zip(self.ids_BS, full_BS, strict=True)]

    def take(self, index: Tensor) -> Sequences:
        """Some rows, in the order of the index (a minibatch)."""
        places = index.tolist()
        cut: dict[str, Any] = {}
        for item in fields(self):
            held = getattr(self, item.name)
            cut[item.name] = held[index] if isinstance(held, Tensor) else tuple(held[place] for place in places)
        return replace(self, **cut)

    def rows(self, start: int, stop: int) -> Sequences:
        cut = {f.name: getattr(self, f.name)[start:stop] for f in fields(self)}
        return replace(self, **cut)

    def trimmed(self) -> Sequences:
        """Without the columns that are padding in every row."""
        width = self.mask_BT.shape[1]
        used_S, prompt = self.attention_BS.bool().any(0), self.ids_BS.shape[1] - width
        first = int(used_S.int().argmax())
        unused = width - max(int(self.lengths_B.max()), 1)
        stop = prompt + width - unused
        return replace(self, ids_BS=self.ids_BS[:, first:stop], attention_BS=self.attention_BS[:, first:stop], mask_BT=self.mask_BT[:, : width - unused])

    def alike(self, rows: int) -> Iterator[tuple[Tensor, Sequences]]:
        """At most `rows` rows at a time, those of like length together and trimmed, with their places: no pass is spent on padding."""
        order_B = self.attention_BS.sum(-1).argsort(stable=True)
        for index in order_B.split(rows):
            yield index, self.take(index).trimmed()


# --- prompts -> tokens -----------------------------------------------------------------------------


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of the conversation, up to and including the header of the answer."""
    text = tokenizer.apply_chat_template([dict(m) for m in prompt.messages], tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def fitting(tokenizer: Any, prompts: Sequence[Prompt], config: RunConfig) -> tuple[tuple[Prompt, ...], int]:
    """The prompts of at most `max_prompt_tokens` tokens and how many were left out.

    Raises `DataError` if none is left.
    """
    sizes = [len(encode(tokenizer, prompt)) for prompt in prompts]
    kept = tuple(p for p, size in zip(prompts, sizes, strict=True) if size <= config.max_prompt_tokens)
    if not kept:
        raise DataError(
            f"--max-prompt-tokens is {config.max_prompt_tokens}, but the shortest of {len(prompts)} prompts has {min(sizes, default=0)} tokens; "
            "raise it, or give shorter prompts"
        )
    return kept, len(prompts) - len(kept)


def check_context(models: Models, config: RunConfig) -> None:
    """Raises `ConfigError` where prompt and completion cannot fit the model's context together."""
    context = getattr(models.policy.config, "max_position_embeddings", None) or getattr(models.policy.config, "n_positions", None)
    needed = config.max_prompt_tokens + max(config.max_new_tokens, config.max_pair_tokens)
    if context and needed > context:
        raise ConfigError(
            f"--max-prompt-tokens {config.max_prompt_tokens} plus the longest answer ({needed - config.max_prompt_tokens} tokens) is {needed}, "
            f"but this model's context holds {context}; lower --max-prompt-tokens, --max-new-tokens or --max-pair-tokens"
        )


def _pad_left(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])


def _pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    width = max(1, max(len(row) for row in rows))
    return torch.tensor([list(row) + [pad] * (width - len(row)) for row in rows])


# --- sampling --------------------------------------------------------------------------------------


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generator set to `seed` inside the block and put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def sample(models: Models, prompts: Sequence[Prompt], config: RunConfig, *, completions: int, seed: int) -> Sequences:
    """`completions` answers to each prompt by the current policy, rows of a prompt side by side."""
    return _sample(models, prompts, config, completions, seed, [])


def sample_scored(
    models: Models, prompts: Sequence[Prompt], config: RunConfig, *, completions: int = 1, seed: int, score: Callable[..., tuple[Tensor, Tensor]] | None = None
) -> tuple[Sequences, Tensor, Tensor]:
    """What `sample` gives, with log-probability and entropy of every token (B x T each): the sampler knows them, and no pass is spent on them.

    Equal to `scored` up to rounding, which in float32 is 1e-5 nats and in bfloat16 too much to be held against another pass: there
    the answers are scored by `score` (`scored_alike`, or what the update itself will use) in a pass of their own.
    """
    if models.dtype != torch.float32:
        sequences = sample(models, prompts, config, completions=completions, seed=seed)
        with torch.no_grad():
            return sequences, *(score or scored_alike)(models.policy, sequences, config.temperature)
    listener = _Listener(config.temperature)
    sequences = _sample(models, prompts, config, completions, seed, [listener])
    logprobs_BT, entropy_BT = listener.heard(sequences)
    return sequences, logprobs_BT, entropy_BT


class _Listener:
    """Notes log-probability and entropy of every token that is sampled. A logits processor: called before each draw with all tokens so far."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.all_BV: Tensor | None = None
        self.columns: list[tuple[Tensor, Tensor]] = []
        self.entropy_B = torch.empty(0)

    def __call__(self, ids_BS: Tensor, logits_BV: Tensor) -> Tensor:
        self._drawn(ids_BS[:, -1])
        self.all_BV = (logits_BV.float() / self.temperature).log_softmax(-1)
        self.entropy_B = -(self.all_BV.exp() * self.all_BV).sum(-1)
        return logits_BV

    def _drawn(self, token_B: Tensor) -> None:
        if self.all_BV is not None:
            self.columns.append((self.all_BV.gather(-1, token_B[:, None]).squeeze(-1), self.entropy_B))

    def heard(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Both B x T, zero past the end of an answer."""
        self._drawn(sequences.ids_BS[:, -1])
        logprobs_BT, entropy_BT = (torch.stack(rows, 1) for rows in zip(*self.columns, strict=True))
        ended_BT = ~sequences.mask_BT
        return logprobs_BT.masked_fill(ended_BT, 0.0), entropy_BT.masked_fill(ended_BT, 0.0)


def _sample(models: Models, prompts: Sequence[Prompt], config: RunConfig, completions: int, seed: int, listeners: list[Any]) -> Sequences:
    repeated = [prompt for prompt in prompts for _ in range(completions)]
    encoded = [encode(models.tokenizer, prompt) for prompt in prompts]
    rows = [row for row in encoded for _ in range(completions)]
    pad = models.tokenizer.pad_token_id
    prompt_BP = _pad_left(rows, pad)
    attention_BP = _pad_left([[1] * len(row) for row in rows], 0)
    stops = sorted({models.tokenizer.eos_token_id, pad})
    with torch.no_grad(), seeded(seed, models.device), _finite_sampling():
        told = passes.brief(models.policy, prompt_BP.to(models.device), attention_BP.to(models.device), 0)
        begun = {name: told[name] for name in ("attention_mask", "past_key_values") if name in told}
        ids_BS = models.policy.generate(
            input_ids=prompt_BP.to(models.device), **begun, generation_config=_generation(config, stops, pad), logits_processor=listeners
        ).cpu()
    answer_BT = ids_BS[:, prompt_BP.shape[1] :]
    mask_BT, finished_B = until_stop(answer_BT, stops)
    return _sequences(models, repeated, ids_BS, attention_BP, mask_BT, finished_B, len(prompts), completions)


@contextmanager
def _finite_sampling() -> Iterator[None]:
    """torch's complaint about probabilities that are no numbers, in the words of a training run."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise DivergedError(_POLICY_DIVERGED) from error


_POLICY_DIVERGED = "the policy's probabilities are no longer finite; lower --learning-rate, or raise the KL weight"
_REWARD_DIVERGED = "the reward model's scores are no longer finite; lower --reward-learning-rate, or use --dtype float32"


def _generation(config: RunConfig, stops: list[int], pad: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=True,
        temperature=config.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=config.max_new_tokens,
        eos_token_id=stops,
        pad_token_id=pad,
        use_cache=True,
    )


def until_stop(answer_BT: Tensor, stops: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mask up to and including the first stop token of each row, and whether there was one."""
    stop_BT = torch.isin(answer_BT, torch.tensor(stops))
    before_BT = (stop_BT.cumsum(-1) - stop_BT.long()) == 0
    return before_BT, stop_BT.any(-1)


def _sequences(
    models: Models,
    prompts: Sequence[Prompt],
    ids_BS: Tensor,
    attention_BP: Tensor,
    mask_BT: Tensor,
    finished_B: Tensor,
    groups: int,
    repeats: int,
) -> Sequences:
    answer_BT = ids_BS[:, attention_BP.shape[1] :]
    texts = [models.tokenizer.decode(row[keep], skip_special_tokens=True).strip() for row, keep in zip(answer_BT, mask_BT, strict=True)]
    return Sequences(
        tuple(prompts),
        tuple(texts),
        ids_BS.to(models.device),
        torch.cat([attention_BP, mask_BT.long()], 1).to(models.device),
        mask_BT.to(models.device),
        finished_B.to(models.device),
        torch.arange(groups).repeat_interleave(repeats).to(models.device),
    )


def written(models: Models, answers: Sequence[tuple[Prompt, str, bool]], config: RunConfig, *, repeats: int = 1) -> Sequences:
    """Given (prompt, answer, ended) as sequences: with an end token where it ended, cut at `max_pair_tokens`."""
    tokenizer = models.tokenizer
    prompts = [encode(tokenizer, prompt) for prompt, _, _ in answers]
    ends = [[tokenizer.eos_token_id] if ended or not text else [] for _, text, ended in answers]
    full = [[*tokenizer(text, add_special_tokens=False)["input_ids"], *end] for (_, text, _), end in zip(answers, ends, strict=True)]
    rows = [row[: config.max_pair_tokens] for row in full]
    pad = tokenizer.pad_token_id
    prompt_BP, attention_BP = _pad_left(prompts, pad), _pad_left([[1] * len(row) for row in prompts], 0)
    mask_BT = _pad_right([[1] * len(row) for row in rows], 0).bool()
    finished_B = torch.tensor([bool(end) and len(row) <= config.max_pair_tokens for row, end in zip(full, ends, strict=True)])
    ids_BS = torch.cat([prompt_BP, _pad_right(rows, pad)], 1)
    return _sequences(models, [prompt for prompt, _, _ in answers], ids_BS, attention_BP, mask_BT, finished_B, len(answers) // repeats, repeats)


def written_pairs(models: Models, pairs: Sequence[Pair], config: RunConfig) -> Sequences:
    """Chosen and rejected of each pair side by side: rows 2i and 2i + 1."""
    return written(models, [(p.prompt, text, ended) for p in pairs for text, ended in zip((p.chosen, p.rejected), p.ended, strict=True)], config, repeats=2)


# --- scoring ---------------------------------------------------------------------------------------


def token_logprobs(model: Any, sequences: Sequences, temperature: float) -> tuple[Tensor, Tensor]:
    """log pi(token) and entropy of the next-token distribution, each B x T, float32.

    Logits are divided by the temperature that rollouts are sampled at, so that the policy which is
    optimised is the one that sampled. The entropy carries no gradient.
    """
    width = sequences.mask_BT.shape[1]
    logits_BTV = model(**passes.inputs(sequences.ids_BS, sequences.attention_BS), logits_to_keep=width + 1).logits[:, -width - 1 : -1]
    scaled_BTV = logits_BTV.float() / temperature
    all_BTV = scaled_BTV.log_softmax(-1)
    chosen_BT = all_BTV.gather(-1, sequences.ids_BS[:, -width:, None]).squeeze(-1)
    with torch.no_grad():
        entropy_BT = -(all_BTV.exp() * all_BTV).sum(-1)
        if not torch.isfinite(chosen_BT[sequences.mask_BT]).all():
            raise DivergedError(_POLICY_DIVERGED)
    return chosen_BT, entropy_BT


CHUNK = 64  # positions whose logits exist at one time


def scored(model: Any, sequences: Sequences, temperature: float, *, groups: int = 1) -> tuple[Tensor, Tensor]:
    """What `token_logprobs` gives, without a graph and without the logits of all positions at once.

    The body runs once; the vocabulary matrix is applied to a few completion positions at a time. A model
    that changes logits after that matrix (soft caps, scales) is scored the usual way. `groups`: as in `passes.brief`.
    """
    with torch.no_grad():
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        if any(getattr(whole.config, name, None) not in (None, 1, 1.0) for name in _CHANGES_LOGITS):
            return token_logprobs(model, sequences, temperature)
        width = sequences.mask_BT.shape[1]
        told = passes.brief(whole, sequences.ids_BS, sequences.attention_BS, width, groups=groups)
        hidden_BSd = passes.body(whole)(**told).last_hidden_state
        kept_RD = hidden_BSd[:, -width - 1 : -1].flatten(0, 1)
        head, chosen_R = whole.get_output_embeddings(), sequences.ids_BS[:, -width:].flatten()
        parts = [_position_scores(head(rows), ids, temperature) for rows, ids in zip(kept_RD.split(CHUNK), chosen_R.split(CHUNK), strict=True)]
        return tuple(torch.cat(column).view(-1, width) for column in zip(*parts, strict=True))  # type: ignore[return-value]


_CHANGES_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "logits_soft_cap", "mup_width_scale")


def _position_scores(logits_RV: Tensor, ids_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of the token and entropy at each of R positions."""
    all_RV = (logits_RV.float() / temperature).log_softmax(-1)
    return all_RV.gather(-1, ids_R[:, None]).squeeze(-1), -(all_RV.exp() * all_RV).sum(-1)


@contextmanager
def reference(models: Models) -> Iterator[Any]:
    """The model that the policy started from: a frozen copy, or the policy without its adapter."""
    if models.reference is not None:
        yield models.reference
        return
    with models.policy.disable_adapter():
        yield models.policy


def scored_alike(model: Any, sequences: Sequences, temperature: float, *, rows: int = 16) -> tuple[Tensor, Tensor]:
    """`scored` a few rows of like length at a time; both B x T, zero past the end of a row's piece."""
    made = [sequences.mask_BT.new_zeros(sequences.mask_BT.shape, dtype=torch.float32) for _ in range(2)]
    for index, part in sequences.alike(rows):
        for whole_BT, piece_BT in zip(made, scored(model, part, temperature), strict=True):
            whole_BT[index, : piece_BT.shape[1]] = piece_BT
    return made[0], made[1]


def reference_logprobs(models: Models, sequences: Sequences, temperature: float) -> Tensor:
    with torch.no_grad(), reference(models) as model:
        return token_logprobs(model, sequences, temperature)[0]


def scores(model: Any, sequences: Sequences, *, rows: int = 16) -> Tensor:
    """The reward model's score of each sequence, shape B, float32."""
    scores_B = torch.empty(len(sequences.texts), device=sequences.ids_BS.device)
    with torch.no_grad():
        for index, part in sequences.alike(rows):
            logits = model(**passes.brief(model, part.ids_BS, part.attention_BS, part.mask_BT.shape[1])).logits
            scores_B[index] = logits.squeeze(-1).float()
    if not torch.isfinite(scores_B).all():
        raise DivergedError(_REWARD_DIVERGED)
    return scores_B


def values(critic: Any, sequences: Sequences, *, gradient: bool = False) -> Tensor:
    """The critic's value before each completion token, B x T, float32."""
    width = sequences.mask_BT.shape[1]
    with nullcontext() if gradient else torch.no_grad():
        logits_BS1: Tensor = critic(**passes.inputs(sequences.ids_BS, sequences.attention_BS)).logits
    return logits_BS1.squeeze(-1).float()[:, -width - 1 : -1] * sequences.mask_BT
