"""The tensors of one checkpoint that somebody else wrote: names and shapes first, values when they are asked for.

safetensors only. A header is bounded before it is parsed and checked by the safetensors library, shards lie
in the folder itself, nothing is unpickled and no code of a checkpoint is run. A file is mapped as long as
its tensors are in use, so what was read does not stay in memory.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from interplay.checkpoint_folders import INDEX, Checkpoint, read_json, refuse_pickles, weight_file
from interplay.errors import ModelError
from interplay.tensors import Module, Part, numbered, plain_name

#: Bytes of a header that no checkpoint needs: 100 000 tensors take about 15 MB.
LARGEST_HEADER = 32 * 2**20
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_ADAPTER = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?:\.weight)?")
_SAVED = re.compile(r"\.modules_to_save(\.[^.]+)?(?=\.(weight|bias)$)")
_LITERAL = re.compile(r"\^?(?:[\w.-]|\\\.)+\$?")


@dataclass(frozen=True)
class Weights:
    """One checkpoint: where each floating-point tensor lies and its shape, in the order of the file."""

    checkpoint: Checkpoint
    shapes: Mapping[str, tuple[int, ...]]
    files: Mapping[str, Path]
    skipped: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.checkpoint.name

    def tensors(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Tensors as they are stored: views of the mapped files. Raises `ModelError` for a damaged file."""
        with ExitStack() as stack, _explained(self.name):
            files = {file: stack.enter_context(safe_open(file, "pt")) for file in dict.fromkeys(self.files[key] for key in keys)}
            return {key: files[self.files[key]].get_tensor(key) for key in keys}


def open_weights(checkpoint: Checkpoint) -> Weights:
    """Read the headers. Raises `ModelError` for pickles, links, damaged files and headers of an absurd size."""
    refuse_pickles(checkpoint.folder, checkpoint.name)
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Path] = {}
    skipped: list[str] = []
    for file in _files(checkpoint):
        for key, dtype, shape in _header(file, checkpoint.name):
            if dtype in _FLOATS:
                shapes[key], files[key] = shape, file
            else:
                skipped.append(key)
    if not shapes:
        raise ModelError(f"{checkpoint.name} holds no floating-point tensors; import checkpoints whose weights are float32, float16 or bfloat16")
    return Weights(checkpoint, shapes, files, tuple(skipped))


def _files(checkpoint: Checkpoint) -> list[Path]:
    """The file, or all shards that an index names. Raises `ModelError` for a shard that lies elsewhere or is missing."""
    first = weight_file(checkpoint.folder)
    assert first is not None, "refuse_pickles was called"
    if first.name != INDEX:
        return [first]
    shards = (read_json(first) or {}).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{checkpoint.name}/{INDEX} is damaged: it has no weight_map; save the checkpoint again")
    found = sorted({str(shard) for shard in shards.values()})
    for shard in found:
        path = checkpoint.folder / shard
        if "/" in shard or "\\" in shard or "\0" in shard or not shard.endswith(".safetensors") or path.is_symlink():
            raise ModelError(f"{checkpoint.name}/{INDEX} names the shard {shard[:80]!r}; shards are *.safetensors files in the folder itself, and no links")
        if not path.is_file():
            raise ModelError(f"{checkpoint.name}/{INDEX} names the shard {shard!r}, which is missing; copy the whole folder")
    return [checkpoint.folder / shard for shard in found]


def _header(file: Path, name: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of every tensor."""
    with _explained(name):
        with file.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
        if size > min(LARGEST_HEADER, os.path.getsize(file)):
            raise ModelError(f"{name}/{file.name} is damaged: its header would take {size} bytes; save the checkpoint again")
        with safe_open(file, "pt") as found:
            slices = [(key, found.get_slice(key)) for key in found.offset_keys()]
            return [(key, str(part.get_dtype()), tuple(part.get_shape())) for key, part in slices]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Faults of a file as one line."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{name} is damaged: {' '.join(str(error).split())[:160]}; save or copy the checkpoint again") from error


def aligned(first: Weights, other: Weights, *, more: bool = False) -> Weights:
    """`other` with the names and order of `first`, which it then shares in memory; `more` allows further tensors.

    Raises `ModelError` that names the first tensor that only one of the two has, or that has another shape.
    """
    for key in sorted(first.shapes.keys() - other.shapes.keys()):
        raise ModelError(f"{other.name} has no {key}, which {first.name} has; import checkpoints of one training")
    for key in sorted(other.shapes.keys() - first.shapes.keys()):
        if not more:
            raise ModelError(f"{other.name} has {key}, which {first.name} has not; import checkpoints of one training")
    for key, shape in first.shapes.items():
        if other.shapes[key] != shape:
            raise ModelError(f"{key} has shape {other.shapes[key]} in {other.name}, and {shape} in {first.name}; import checkpoints of one training")
    return replace(other, shapes=first.shapes, files={key: other.files[key] for key in first.shapes})


# --- modules ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A module as the recorder names it, and the stored tensors that make it. `shape` is (m, n, r) of an adapter."""

    name: str
    keys: tuple[tuple[str, str], ...]  # label (A, B, weight, bias), name in the file
    numel: int
    shape: tuple[int, ...] = ()
    scale: float = 1.0
    transposed: bool = False

    def module(self, tensors: Mapping[str, Tensor]) -> Module:
        parts = tuple(Part(key, label, nn.Parameter(tensors[key], requires_grad=False)) for label, key in self.keys)
        return Module(self.name, parts, self.shape, self.scale, self.transposed)


def plans(weights: Weights) -> list[Plan]:
    """The modules of a checkpoint in the order of the file: pairs of A and B, and the other tensors by layer.

    Raises `ModelError` if there are adapters and adapter_config.json does not tell their scale.
    """
    pairs: dict[tuple[str, str, bool], dict[str, str]] = {}
    for key in weights.shapes:
        if found := _ADAPTER.fullmatch(key):
            pairs.setdefault((found["module"], found["adapter"] or "", bool(found["embedding"])), {})[found["side"]] = key
    matrices = {place: pair for place, pair in pairs.items() if _is_adapter(pair, weights.shapes)}
    config = adapter_config(weights) if pairs else {}
    adapters = [_adapter(path, embedding, pair, weights.shapes, config) for (path, _, embedding), pair in matrices.items()]
    taken = {key for pair in matrices.values() for key in pair.values()}
    return numbered(adapters) + _plain({key: shape for key, shape in weights.shapes.items() if key not in taken}, {plan.name for plan in adapters})


def _is_adapter(pair: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Two matrices with one rank; adapters of convolutions are kept as plain tensors."""
    A, B = (shapes.get(pair.get(side, ""), ()) for side in "AB")
    return len(A) == 2 and len(B) == 2 and A[0] == B[1] > 0


def _adapter(path: str, embedding: bool, pair: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Plan:
    (r, n), (m, _) = shapes[pair["A"]], shapes[pair["B"]]
    name = plain_name(path)
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    return Plan(name, (("A", pair["A"]), ("B", pair["B"])), r * (m + n), (m, n, r), _scale(config, name, r), transposed)


def _plain(shapes: Mapping[str, tuple[int, ...]], taken: set[str]) -> list[Plan]:
    """Weight and bias of one path together; beside an adapter of the same path the tensor's own name is added."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for key in shapes:
        path, _, label = _SAVED.sub("", key).rpartition(".")
        name = plain_name(path) or label
        parts.setdefault(f"{name}.{label}" if name in taken else name, []).append((label, key))
    return [Plan(name, tuple(keys), sum(math.prod(shapes[key]) for _, key in keys)) for name, keys in parts.items()]


# --- adapter_config.json ---------------------------------------------------------------------------


def adapter_config(weights: Weights) -> dict[str, Any]:
    """What PEFT wrote beside the adapter. Raises `ModelError` if it does not tell the scale of B A."""
    name = f"{weights.name}/adapter_config.json"
    config = read_json(weights.checkpoint.folder / "adapter_config.json")
    if config is None:
        raise ModelError(f"{name} is missing, so the scale of the adapter is unknown; copy it from where the adapter was saved")
    if not _is_number(config.get("lora_alpha")) or not isinstance(config.get("alpha_pattern") or {}, dict):
        raise ModelError(f"{name} is damaged: lora_alpha is {config.get('lora_alpha')!r:.40}; it must be a number")
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():  # type: ignore[attr-defined]
        if not _LITERAL.fullmatch(pattern) or not _is_number(alpha):
            raise ModelError(f"{name} has the alpha_pattern {pattern[:60]!r}: {alpha!r:.40}; only names of modules and numbers can be read")
    return config


def same_scale(first: Weights, other: Weights) -> None:
    """Raises `ModelError` if two checkpoints of one role multiply B A by different numbers."""
    names = ("lora_alpha", "use_rslora", "alpha_pattern")
    before, after = ([adapter_config(weights).get(name) or 0 for name in names] for weights in (first, other))
    for name, x, y in zip(names, before, after, strict=True):
        if x != y:
            raise ModelError(f"{name} is {y!r:.60} in {other.name}, and {x!r:.60} in {first.name}; import checkpoints of one training")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _scale(config: Mapping[str, Any], name: str, r: int) -> float:
    """lora_alpha / r, or / sqrt(r) with use_rslora (arXiv 2312.03732). `r` is the tensor's own, whatever rank_pattern says."""
    patterns = (config.get("alpha_pattern") or {}).items()
    own = next((alpha for pattern, alpha in patterns if _names(pattern, name)), config["lora_alpha"])
    return float(own) / (math.sqrt(r) if config.get("use_rslora") else r)


def _names(pattern: str, name: str) -> bool:
    """Whether PEFT's pattern means this module. Read as a name, because an expression from a stranger may take for ever."""
    whole = pattern.startswith("^")
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    return name == plain or (not whole and name.endswith(f".{plain}"))
