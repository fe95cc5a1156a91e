"""The reward model: trained with TRL's `RewardTrainer`, merged to stay close, frozen as judge 0.

Loss (Bradley-Terry): -log sigmoid(r(chosen) - r(rejected) - margin). The trainer's optimiser is
recorded like any other; its metrics keep TRL's names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interplay import rollouts
from interplay.config import RunConfig
from interplay.errors import DataError, DivergedError
from interplay.models import Models
from interplay.tasks import Pair

Weights = dict[str, Tensor]


# --- weights as values -----------------------------------------------------------------------------


def trainable(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def weights(model: Any) -> Weights:
    """A copy of everything that is trained."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model)}


def assign(model: Any, values: Mapping[str, Tensor]) -> None:
    """Write a copy back."""
    with torch.no_grad():
        for name, parameter in trainable(model):
            parameter.copy_(values[name])


@contextmanager
def using(model: Any, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other trained weights inside the block; nothing is copied."""
    before = {name: parameter.data for name, parameter in trainable(model)}
    try:
        for name, parameter in trainable(model):
            parameter.data = values[name]
        yield
    finally:
        for name, parameter in trainable(model):
            parameter.data = before[name]


def keep_close(model: Any, saved: Weights, share: float) -> None:
    """theta <- share * saved + (1 - share) * theta, tensor by tensor.

    `saved` is the un-merged model of the iteration before (ZOPrO, arXiv 2503.03460, loop step e).
    For adapters the factors are averaged, as published; the product of averaged factors is not the
    average of products, which is why the un-merged adapter is kept too.
    """
    with torch.no_grad():
        for name, parameter in trainable(model):
            parameter.lerp_(saved[name], share)


# --- training --------------------------------------------------------------------------------------


def refine(
    models: Models,
    pairs: Sequence[Pair],
    config: RunConfig,
    *,
    seed: int,
    attach: Callable[[torch.optim.Optimizer], None],
    log: Callable[[Mapping[str, float]], None],
) -> None:
    """Train the reward model for `reward_updates` updates on judged pairs.

    `attach` is handed the optimiser before its first step, `log` the trainer's metrics after each.
    Raises `DataError` without pairs, `DivergedError` if the loss is not finite.
    """
    if not pairs:
        raise DataError("no judged pair is left for the reward model (all were ties); raise --pairs or --max-new-tokens, or use another --judge")
    with rollouts.seeded(seed, models.device), tempfile.TemporaryDirectory(prefix="interplay-") as folder:
        trainer = _trainer(models, _dataset(models, pairs, config), config, folder, seed)
        trainer.add_callback(_Listener(attach, log))
        trainer.train()
    assert models.reward is not None
    models.reward.eval()
    for _, parameter in trainable(models.reward):
        parameter.grad = None


def _dataset(models: Models, pairs: Sequence[Pair], config: RunConfig) -> Any:
    """Token ids exactly as the reward model will meet them when it scores rollouts."""
    from datasets import Dataset

    tokens = rollouts.written_pairs(models, pairs, config).token_lists()
    columns: dict[str, Any] = {"chosen_ids": tokens[0::2], "rejected_ids": tokens[1::2]}
    if all(pair.margin is not None for pair in pairs):
        columns["margin"] = [pair.margin for pair in pairs]
    return Dataset.from_dict(columns)


#: Tokens of one forward and backward pass at most; a pass of 12,000 took 17 GB with the bundled model.
PASS_TOKENS = 4096


def pairs_per_pass(batch: int, longest: int) -> int:
    """The largest divisor of the batch whose pairs, padded to the longest answer, fit one pass."""
    return next(size for size in range(batch, 0, -1) if batch % size == 0 and (size == 1 or 2 * size * longest <= PASS_TOKENS))


def _trainer(models: Models, dataset: Any, config: RunConfig, folder: str, seed: int) -> Any:
    """TRL's trainer with its GPU-minded defaults (bf16, checkpointing, reports) turned off."""
    from transformers import PrinterCallback
    from trl import RewardConfig, RewardTrainer

    longest = max(len(row) for name in ("chosen_ids", "rejected_ids") for row in dataset[name])
    together = pairs_per_pass(config.reward_batch, longest)
    arguments = RewardConfig(
        output_dir=folder,
        max_steps=config.reward_updates,
        per_device_train_batch_size=together,
        gradient_accumulation_steps=config.reward_batch // together,
        learning_rate=config.reward_learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.clip_norm,
        weight_decay=config.weight_decay,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=models.device.type == "cpu",
        max_length=None,
        seed=seed,
        data_seed=seed,
    )
    trainer = RewardTrainer(model=models.reward, args=arguments, train_dataset=dataset, processing_class=models.tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _listener_base() -> type[Any]:
    from transformers import TrainerCallback

    return TrainerCallback


class _Listener(_listener_base()):  # type: ignore[misc]
    """Hands the optimiser over before training and each logged line after its step."""

    def __init__(self, attach: Callable[[torch.optim.Optimizer], None], log: Callable[[Mapping[str, float]], None]) -> None:
        self.attach, self.log = attach, log

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - transformers' signature
        self.attach(kwargs["optimizer"])

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if not logs or "loss" not in logs:
            return  # the summary at the end of training
        found = {name: float(value) for name, value in logs.items() if isinstance(value, int | float) and name not in ("epoch", "num_tokens")}
        if found["loss"] != found["loss"] or abs(found["loss"]) == float("inf"):
            raise DivergedError(
                f"the reward model's loss is {found['loss']} at learning rate {args.learning_rate:g}; lower --reward-learning-rate, or use --dtype float32"
            )
        self.log(found)
