"""What is kept of one role from update to update, and how much memory that may take.

A role's trail outlives its optimisers: a reward model that is refined by a new optimiser in every
iteration goes on where it was, as long as names and shapes agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from interplay import columns
from interplay.adapters import AdapterGroup
from interplay.chained import ChainedGroup
from interplay.geometry import Floats
from interplay.measure import ITERATION, PREVIOUS, START, SUMS, Measured
from interplay.plain import PlainGroup
from interplay.sketch import Sketcher
from interplay.tensors import Module

Group = AdapterGroup | PlainGroup
Key = tuple[tuple[int, ...], torch.device]


class Trail:
    """One role: its groups of modules, their copies, and its count of updates."""

    def __init__(self, modules: Sequence[Module], copies: frozenset[str], start: Mapping[str, Tensor] | None, *, chained: bool = False) -> None:
        """`chained`: every update begins where the last one ended, because nothing else moves the weights."""
        self.modules = tuple(modules)
        self.copies = copies
        adapters = ChainedGroup if chained else AdapterGroup
        self.groups: dict[Key, Group] = {
            key: adapters(found, copies, start) if key[0] else PlainGroup(found, copies, start) for key, found in _grouped(modules).items()
        }
        row_modules = [(module, space) for group in self.groups.values() for space in group.spaces for module in group.modules]
        self.labels = columns.Labels(row_modules)
        self._measures_iteration = False

    def follows(self, modules: Sequence[Module]) -> bool:
        """Do these modules continue this trail?"""
        return [_key(m) + m.signature for m in self.modules] == [_key(m) + m.signature for m in modules]

    def rebind(self, modules: Sequence[Module]) -> None:
        """Follow the tensors of a new optimiser."""
        self.modules = tuple(modules)
        for key, found in _grouped(modules).items():
            self.groups[key].rebind(found)

    def direction_labels(self, sketcher: Sketcher) -> columns.Labels:
        """One row per module; for a plain tensor both spaces are the weight itself."""
        return columns.Labels([(module, sketcher.spec.space) for group in self.groups.values() for module in group.modules])

    # ---- iterations

    def begin_iteration(self) -> None:
        """The next update is the first of an iteration."""
        self._measures_iteration = False

    def end_iteration(self) -> None:
        """Fix the change since the first update of this iteration; without one, the older change stays."""
        if self._measures_iteration:
            for group in self.groups.values():
                group.end_iteration()

    # ---- one update

    def before(self) -> None:
        """Called right before the optimiser moves the weights."""
        for group in self.groups.values():
            if not self._measures_iteration:
                group.begin_iteration()
            group.before()
        self._measures_iteration = True

    def gradients(self) -> list[Tensor]:
        """Squared gradient norms, group by group."""
        return [group.gradients() for group in self.groups.values()]

    def after(self, gradients: Sequence[Tensor], other: Trail | None, sketcher: Sketcher) -> tuple[dict[str, Floats], Floats]:
        """Called right after the step. Returns sums by name (rows as in `labels`) and sketches (M x J)."""
        measured = [self._after(key, grads, other, sketcher) for (key, grads) in zip(self.groups, gradients, strict=True)]
        return _to_host(measured)

    def _after(self, key: Key, gradients: Tensor, other: Trail | None, sketcher: Sketcher) -> Measured:
        group, theirs = self.groups[key], None if other is None else other.groups.get(key)
        if isinstance(group, AdapterGroup):
            return group.after(gradients, theirs if isinstance(theirs, AdapterGroup) else None, sketcher)
        return group.after(gradients, theirs if isinstance(theirs, PlainGroup) else None, sketcher)


def _key(module: Module) -> Key:
    return module.shape, module.parts[0].tensor.device


def _grouped(modules: Sequence[Module]) -> dict[Key, list[Module]]:
    found: dict[Key, list[Module]] = {}
    for module in modules:
        found.setdefault(_key(module), []).append(module)
    return found


def _to_host(measured: Sequence[Measured]) -> tuple[dict[str, Floats], Floats]:
    """Everything in one transfer from the first group's device."""
    device = measured[0].sums_QR.device
    sums_QR = torch.cat([item.sums_QR.to(device) for item in measured], dim=1)
    sketch_MJ = torch.cat([item.sketch_MJ.to(device) for item in measured])
    flat = torch.cat([sums_QR.flatten(), sketch_MJ.double().flatten()]).cpu().numpy()
    cut = sums_QR.numel()
    table = flat[:cut].reshape(tuple(sums_QR.shape))
    return dict(zip(SUMS, table, strict=True)), np.asarray(flat[cut:].reshape(tuple(sketch_MJ.shape)))


# ---- memory


def copy_sizes(modules: Sequence[Module]) -> dict[str, int]:
    """Bytes of each copy (fp32). A change of an adapter is kept as factors of twice its rank."""
    numbers = {adapter: sum(module.numel for module in modules if bool(module.shape) == adapter) for adapter in (True, False)}
    one, change = 4 * sum(numbers.values()), 4 * (2 * numbers[True] + numbers[False])
    return {"update": change, PREVIOUS: change, START: one, ITERATION: one + change}


def affordable(sizes: Mapping[str, int], budget: int) -> frozenset[str]:
    """Give up copies in the order of `measure` until the rest fits; the update itself is always kept."""
    kept = dict(sizes)
    for name in (ITERATION, START, PREVIOUS):
        if sum(kept.values()) > budget:
            kept.pop(name)
    return frozenset(kept)


def free_memory(device: torch.device) -> int:
    """Bytes that are free now on the GPU, or available in RAM."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else int(psutil.virtual_memory().available)


def describe(trail: Trail) -> dict[str, Any]:
    """What `run.json` says of a role."""
    sizes = copy_sizes(trail.modules)
    return {
        "modules": len(trail.modules),
        "tensors": sum(len(module.parts) for module in trail.modules),
        "parameters": sum(part.tensor.numel() for module in trail.modules for part in module.parts if part.trained),
        "kept": [name for name in sizes if name in trail.copies],
        "dropped": [name for name in sizes if name not in trail.copies],
        "bytes": sum(sizes[name] for name in trail.copies),
    }
