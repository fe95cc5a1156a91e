"""A language model of two layers, made in code, that every training command can run on in seconds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|end|>"
CONTEXT = 256

#: Short on purpose: one token is one byte.
TEMPLATE = "{% for message in messages %}{{ message['role'][:1] }}:{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}a:{% endif %}"


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, int]:
    words = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return {word: number for number, word in enumerate(words)}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, with pad 0, beginning 1 and end 2; padding on the left."""
    tokens = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left", model_max_length=CONTEXT)
    made.chat_template = TEMPLATE
    return made


def llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Two Llama layers of width 32; weights large enough that rows and positions differ visibly."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"vocab_size": len(_vocabulary()), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**({"max_position_embeddings": CONTEXT, "initializer_range": 0.2} | sizes | ends | changes)))
    torch.random.set_rng_state(torch_state)
    return model.eval()


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """Two GPT-2 layers of width 32: learnt absolute positions and Conv1D in place of Linear."""
    ends = {"vocab_size": len(_vocabulary()), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT, "initializer_range": 0.2}
    model = GPT2LMHeadModel(GPT2Config(**(sizes | ends)))
    torch.random.set_rng_state(torch_state)
    return model.eval()


def save(folder: Path, model: Any = None) -> Path:
    """Model (default `llama()`) and tokenizer as a safetensors folder that `--model` accepts."""
    (llama() if model is None else model).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def stirred(loaded: Any) -> Any:
    """The models of a run with adapters that are no longer zero."""
    g = torch.Generator().manual_seed(1)
    for _, model in loaded.trained():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=g)
    return loaded
