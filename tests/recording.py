"""What the tests of recorder and callback share: tiny models made in code, a store in memory, frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification, LlamaConfig

from interplay import records

_KINDS = {
    "policy": (AutoModelForCausalLM, "CAUSAL_LM", None),
    "reward": (AutoModelForSequenceClassification, "SEQ_CLS", ["score"]),
    "value": (AutoModelForTokenClassification, "TOKEN_CLS", ["score"]),
}


class MemoryStore:
    """`append` as the real store checks it: exact schemas, no nulls where none may be."""

    def __init__(self, k: int = 256) -> None:
        self.k = k
        self.tables: dict[str, list[pa.Table]] = {name: [] for name in records.STREAMS}
        self.info: dict[str, Any] = {}

    def append(self, stream: Any, columns: Mapping[str, Any], /) -> None:
        schema = records.schema(stream, self.k)
        assert set(columns) == set(schema.names)
        table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        table.validate(full=True)
        self.tables[stream].append(table)

    def update_info(self, **changes: Any) -> None:
        self.info |= changes

    def frame(self, stream: str = "updates") -> pd.DataFrame:
        return pa.concat_tables([table.cast(records.schema(stream, self.k)) for table in self.tables[stream]]).to_pandas()


def llama(**changes: Any) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(**({"vocab_size": 260, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 128} | sizes | changes))


def tiny(kind: str, seed: int = 0, *, lora: bool = True, r: int = 4, **changes: Any) -> Any:
    """A policy, reward or value model of two layers, with adapters on all linear layers or in full."""
    make, task, head = _KINDS[kind]
    torch.manual_seed(seed)
    config = llama(**changes)
    model = make.from_config(config) if kind == "policy" else make.from_config(_labelled(config))
    if not lora:
        return model
    return get_peft_model(model, LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type=task, modules_to_save=head))


def _labelled(config: LlamaConfig) -> LlamaConfig:
    config.num_labels = 1
    return config


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def fill_gradients(model: nn.Module, seed: int) -> None:
    """Gradients drawn from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    for p in trainable(model).values():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
