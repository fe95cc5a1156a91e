"""Which tensors an optimiser trains, under names that policy, reward and value model share.

A *module* is what one row of `updates` speaks of: an adapter (A and B together) or the plain tensors
of one layer (weight and bias together). Tensors are found by identity, so tied weights count once
and a shared optimiser gives each model its own. Knows names and shapes, never values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from interplay.errors import ModelError

_PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "base_model.", "policy.")
_INSIDE = re.compile(r"\.(modules_to_save\.[^.]+|original_module|base_layer|_orig_mod)(?=\.|$)")
_ADAPTER = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])\.(?P<adapter>[^.]+?)(?:\.weight)?$")
_BLOCK = re.compile(r"(?:^|\.)[A-Za-z_]\w*\.(\d+)\.")
_FOREIGN = "value_model."

#: Name of a module, then label and shape of each of its tensors.
Signature = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]


@dataclass(frozen=True)
class Part:
    """One trained (or, inside an adapter, frozen) tensor of a module."""

    key: str  # as in `model.named_parameters()`
    label: str  # A, B, weight, bias
    tensor: nn.Parameter
    trained: bool = True


@dataclass(frozen=True)
class Module:
    """One adapter or one plain layer. `shape` is (m, n, r) of an adapter and empty for plain tensors."""

    name: str
    parts: tuple[Part, ...]
    shape: tuple[int, ...] = ()
    scale: float = 1.0
    transposed: bool = False

    @property
    def layer(self) -> int | None:
        """Index of the transformer block; null outside, and for blocks of another model inside a wrapper."""
        found = _BLOCK.search(self.name)
        return int(found[1]) if found and not self.name.startswith(_FOREIGN) else None

    @property
    def kind(self) -> str:
        words = [word for word in self.name.split(".") if not word.isdecimal()]
        return words[-1] if words else self.name

    @property
    def signature(self) -> Signature:
        """Modules of two roles, or of two attachments of one role, agree if their signatures do."""
        return self.name, tuple((part.label, tuple(part.tensor.shape)) for part in self.parts)

    @property
    def numel(self) -> int:
        return sum(part.tensor.numel() for part in self.parts)


def plain_name(path: str) -> str:
    """`base_model.model.score.modules_to_save.default` -> `score`; wrappers go, `value_model.` stays."""
    prefix = next((word for word in _PREFIXES if path.startswith(word)), None)
    return plain_name(path.removeprefix(prefix)) if prefix else _INSIDE.sub("", path)


def trained_modules(optimizer: Any, model: nn.Module) -> list[Module]:
    """The modules of `model` that `optimizer` trains, adapters first. Raises `ModelError` if there are none."""
    wanted = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    parameters = dict(model.named_parameters())
    adapters = _adapters(parameters, wanted, model)
    taken = {part.key for module in adapters for part in module.parts}
    names = {module.name for module in adapters}
    rest = {key: p for key, p in parameters.items() if id(p) in wanted and key not in taken}
    modules = numbered(adapters) + _plain(rest, names)
    if not modules:
        raise ModelError(f"none of the optimiser's {len(wanted)} trainable tensors belongs to this {type(model).__name__}; attach the optimiser that trains it")
    return modules


def _adapters(parameters: Mapping[str, nn.Parameter], wanted: set[int], model: nn.Module) -> list[Module]:
    """Pairs of A (r, n) and B (m, r) of which at least one is trained."""
    sides: dict[tuple[str, str, bool], dict[str, str]] = {}
    for key in parameters:
        if found := _ADAPTER.match(key):
            sides.setdefault((found["module"], found["adapter"], bool(found["embedding"])), {})[found["side"]] = key
    pairs = [(place, pair) for place, pair in sides.items() if {id(parameters[key]) for key in pair.values()} & wanted]
    made = (_adapter(place, pair, parameters, wanted, model) for place, pair in pairs)
    return [module for module in made if module is not None]


def _adapter(
    place: tuple[str, str, bool], pair: Mapping[str, str], parameters: Mapping[str, nn.Parameter], wanted: set[int], model: nn.Module
) -> Module | None:
    """None for pairs that are not two matrices with one rank (convolutions, shared projections)."""
    path, adapter, embedding = place
    parts = tuple(Part(pair[side], side, parameters[pair[side]], id(parameters[pair[side]]) in wanted) for side in "AB" if side in pair)
    if len(parts) < 2 or any(part.tensor.dim() != 2 for part in parts) or parts[0].tensor.shape[0] != parts[1].tensor.shape[1]:
        return None
    layer = model.get_submodule(path)
    r, n = parts[0].tensor.shape
    scale = float(getattr(layer, "scaling", {}).get(adapter, 1.0))
    transposed = embedding or bool(getattr(layer, "fan_in_fan_out", False))
    return Module(plain_name(path), parts, (parts[1].tensor.shape[0], n, r), scale, transposed)


N = TypeVar("N", bound=Any)


def numbered(modules: Iterable[N]) -> list[N]:
    """A second adapter of one layer gets its number behind the name. For dataclasses with a `name`."""
    seen: dict[str, int] = {}
    result = []
    for module in modules:
        count = seen[module.name] = seen.get(module.name, 0) + 1
        result.append(module if count == 1 else replace(module, name=f"{module.name}[{count}]"))
    return result


def _plain(parameters: Mapping[str, nn.Parameter], taken: set[str]) -> list[Module]:
    """Weight and bias of one path together; beside an adapter of the same path the tensor's own name is added."""
    parts: dict[str, list[Part]] = {}
    for key, tensor in parameters.items():
        path, _, label = _without_adapter(key).rpartition(".")
        name = plain_name(path) or label
        parts.setdefault(f"{name}.{label}" if name in taken else name, []).append(Part(key, label, tensor))
    return [Module(name, tuple(found)) for name, found in parts.items()]


def _without_adapter(key: str) -> str:
    """`q_proj.lora_magnitude_vector.default.weight` -> `q_proj.lora_magnitude_vector`."""
    return re.sub(r"(\.lora_\w+)\.[^.]+(?:\.weight)?$", r"\1", key)


def start_value(start: Mapping[str, Tensor], part: Part) -> Tensor:
    """The tensor of `part` in a checkpoint that was written with or without the adapter's name."""
    short = re.sub(r"(\.lora_\w+|\.modules_to_save)\.[^.]+(?=\.weight$|\.bias$|$)", r"\1", part.key).replace(".modules_to_save", "")
    found = start.get(part.key, start.get(short))
    if found is None or found.shape != part.tensor.shape:
        what = "is missing" if found is None else f"has shape {tuple(found.shape)}, not {tuple(part.tensor.shape)}"
        raise ModelError(f"start weights: {part.key!r} {what}; pass the weights that this run started from")
    return found
