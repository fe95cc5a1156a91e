"""One line in TRL's and transformers' own trainers: rows in a real store, training left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from recording import MemoryStore, tiny, trainable
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from interplay import RecorderCallback, UpdateRecorder
from interplay.callback import _parts
from interplay.errors import ConfigError
from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore

Q = "model.layers.1.self_attn.q_proj"


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, after four special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3} | {letter: 4 + i for i, letter in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    plain = {"bf16": False, "use_cpu": True, "report_to": "none", "max_steps": 2, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    return plain | {"output_dir": str(folder / "trainer"), "per_device_train_batch_size": 2, "learning_rate": 1e-2, "gradient_checkpointing": False} | more


PAIRS = Dataset.from_dict({"prompt": ["a", "b"] * 4, "chosen": [" good", " fine"] * 4, "rejected": [" bad", " ill"] * 4})
PROMPTS = Dataset.from_dict({"prompt": ["ab", "cd"] * 4})
TEXTS = Dataset.from_dict({"text": ["some text", "other words"] * 4})
THUMBS = Dataset.from_dict({"prompt": ["a", "b"] * 4, "completion": [" good", " bad"] * 4, "label": [True, False] * 4})
SAMPLING = {"num_generations": 2, "max_completion_length": 4, "generation_batch_size": 2}


def byte_reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [float(sum(ids)) for ids in completion_ids]


def peft() -> LoraConfig:
    return LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")


def policy() -> Any:
    return tiny("policy", lora=False)


def sft(folder: Path, callback: TrainerCallback) -> Trainer:
    return SFTTrainer(policy(), SFTConfig(**settings(folder)), train_dataset=TEXTS, processing_class=tokenizer(), callbacks=[callback], peft_config=peft())


def dpo(folder: Path, callback: TrainerCallback) -> Trainer:
    args = DPOConfig(**settings(folder))
    return DPOTrainer(policy(), None, args, train_dataset=PAIRS, processing_class=tokenizer(), callbacks=[callback], peft_config=peft())


def kto(folder: Path, callback: TrainerCallback) -> Trainer:
    args = KTOConfig(**settings(folder))
    return KTOTrainer(policy(), None, args, train_dataset=THUMBS, processing_class=tokenizer(), callbacks=[callback], peft_config=peft())


def rloo(folder: Path, callback: TrainerCallback) -> Trainer:
    args = RLOOConfig(**settings(folder, **SAMPLING))
    return RLOOTrainer(policy(), byte_reward, args, train_dataset=PROMPTS, processing_class=tokenizer(), callbacks=[callback], peft_config=peft())


def grpo(folder: Path, callback: TrainerCallback) -> Trainer:
    args = GRPOConfig(**settings(folder, **SAMPLING))
    return GRPOTrainer(policy(), byte_reward, args, train_dataset=PROMPTS, processing_class=tokenizer(), callbacks=[callback], peft_config=peft())


def reward(folder: Path, callback: TrainerCallback) -> Trainer:
    args = RewardConfig(**settings(folder))
    adapters = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    model = tiny("reward", lora=False)
    return RewardTrainer(model, args, train_dataset=PAIRS, processing_class=tokenizer(), callbacks=[callback], peft_config=adapters)


TRAINERS: dict[str, Callable[[Path, TrainerCallback], Trainer]] = {"sft": sft, "dpo": dpo, "kto": kto, "rloo": rloo, "grpo": grpo, "reward": reward}


def frame(path: Path, stream: Any = "updates") -> pd.DataFrame:
    return RunStore.open(path).read(stream).to_pandas()


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trl_trainer_is_recorded_with_one_line(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    role = "reward" if name == "reward" else "policy"
    trainer = TRAINERS[name](tmp_path, RecorderCallback(run, role=role))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="interplay")
        trainer.train()
    updates = frame(run)
    assert sorted(updates["update"].unique()) == [1, 2]
    assert set(updates.role) == {role}
    assert set(updates.iteration) == {1}
    adapters = updates[updates.module == Q]
    assert set(adapters.space) == {"factor", "effective"}
    assert (adapters.update_norm > 0).all()
    metrics = frame(run, "metrics")
    assert {"loss", "grad_norm"} <= set(metrics.name)
    assert set(metrics.split) == {"train"}
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert list(metrics[metrics.name == "loss"].value) == logged
    assert len(frame(run, "directions")) == len(updates[updates.space == "effective"])
    assert RunStore.open(run).status().state == "finished"


class Ids(torch.utils.data.Dataset[dict[str, Any]]):
    """Fixed token sequences."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.arange(index, index + 8) % 60
        return {"input_ids": ids, "labels": ids.clone()}


def gpt2(folder: Path, callbacks: list[TrainerCallback], **more: Any) -> Trainer:
    """A plain transformers trainer on a model with Conv1D layers, dropout, tied weights and no adapter."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 64, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2}
    return Trainer(GPT2LMHeadModel(GPT2Config(**shape)), TrainingArguments(**settings(folder, **more)), train_dataset=Ids(), callbacks=callbacks)


def test_a_plain_trainer_accumulates_clips_and_stays_bit_identical(tmp_path: Path) -> None:
    run = tmp_path / "run"
    watched = gpt2(tmp_path, [RecorderCallback(run, run="mine")], gradient_accumulation_steps=3, max_grad_norm=0.5)
    watched.train()
    state = torch.get_rng_state()
    plain = gpt2(tmp_path, [], gradient_accumulation_steps=3, max_grad_norm=0.5)
    plain.train()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True))
    assert [e.get("loss") for e in watched.state.log_history] == [e.get("loss") for e in plain.state.log_history]
    updates = frame(run)
    assert sorted(updates["update"].unique()) == [1, 2]  # one row per optimiser step, not per micro-batch
    assert set(updates.space) == {"effective"}
    assert {"transformer.h.0.attn.c_attn", "transformer.wte", "transformer.ln_f"} <= set(updates.module)
    assert "lm_head" not in set(updates.module)
    norm = float((updates[updates["update"] == 1].gradient_norm.astype(float) ** 2).sum() ** 0.5)
    assert norm == pytest.approx(0.5, rel=1e-3)  # the clipped gradient is the one that the step used
    info = RunStore.open(run).info
    assert info.run == "mine"
    assert info.config["arguments"]["gradient_accumulation_steps"] == 3
    assert info.recorder["roles"]["policy"]["kept"][0] == "update"


def test_trainers_share_one_run_through_one_recorder(tmp_path: Path) -> None:
    spec = SketchSpec(k=32)
    store = RunStore.create(tmp_path / "run", RunInfo(run="shared", config={}, command=[], created="2026-01-01T00:00:00+00:00", sketch=spec))
    recorder = UpdateRecorder(store, spec)
    recorder.begin_iteration(1)
    reward(tmp_path, RecorderCallback(recorder=recorder, role="reward")).train()
    dpo(tmp_path, RecorderCallback(recorder=recorder, role="policy")).train()
    store.close("finished")
    updates = frame(tmp_path / "run")
    assert sorted(updates.clock.unique()) == [1, 2, 3, 4]
    compared = updates[(updates.role == "policy") & (updates.module == Q)]
    assert compared.cos_other_update.notna().all()
    assert compared.cos_other_iteration.notna().all()


def test_a_wrapper_of_policy_and_value_model_is_two_roles() -> None:
    wrapper = nn.Module()
    wrapper.policy, wrapper.value_model = nn.Linear(2, 2), nn.Linear(2, 2)
    assert _parts(wrapper, "policy") == [("policy", wrapper.policy), ("value", wrapper.value_model)]
    assert _parts(wrapper.policy, "reward") == [("reward", wrapper.policy)]


def test_a_run_that_cannot_be_written_warns_once_and_trains_on(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file, not a folder")
    trainer = gpt2(tmp_path, [RecorderCallback(taken)])
    with pytest.warns(UserWarning, match="recording stopped, training goes on") as caught:
        trainer.train()
    assert len([w for w in caught if "interplay" in str(w.message)]) == 1
    assert trainer.state.global_step == 2


def test_a_recording_that_stops_early_ends_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    run = tmp_path / "run"
    trainer = gpt2(tmp_path, [RecorderCallback(run)])
    monkeypatch.setattr(UpdateRecorder, "_record", fail)
    with pytest.warns(UserWarning, match="No space left"):
        trainer.train()
    status = RunStore.open(run).status()
    assert status.state == "failed"
    assert "No space left" in (status.error or "")


def test_only_world_process_zero_records(tmp_path: Path) -> None:
    callback = RecorderCallback(tmp_path / "run")
    trainer = gpt2(tmp_path, [callback])
    trainer.state.is_world_process_zero = False
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model, optimizer=None)
    callback.on_log(trainer.args, trainer.state, trainer.control, logs={"loss": 1.0})
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert not (tmp_path / "run").exists()


def test_only_numbers_are_written_and_infinities_are_null() -> None:
    store, model = MemoryStore(), tiny("policy")
    recorder = UpdateRecorder(store)
    callback = RecorderCallback(recorder=recorder)
    args, state, control = TrainingArguments(use_cpu=True, report_to="none"), type("State", (), {"is_world_process_zero": True})(), None
    callback.on_train_begin(args, state, control, model=model, optimizer=torch.optim.SGD(trainable(model).values(), lr=0.1))
    callback.on_log(args, state, control, logs={"loss": 0.5, "step": 3, "text": "x", "flag": True, "bad": float("inf")})
    metrics = store.frame("metrics").set_index("name").value
    assert set(metrics.index) == {"loss", "step", "bad"}
    assert metrics["step"] == 3.0
    assert pd.isna(metrics["bad"])


@pytest.mark.parametrize(
    ("wrong", "message"), [({"role": "critic", "path": "x"}, "role is 'critic'; allowed: policy, reward, value"), ({}, "either the folder")]
)
def test_wrong_arguments_are_refused_before_training(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RecorderCallback(**wrong)
