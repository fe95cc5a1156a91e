"""The sums that one update leaves behind, and how they become the numbers of `records.UPDATES`.

Sums are float64, stay on the device until all groups of a role are measured, and then make one
transfer. NaN stands for "not measured" here and "undefined" in the columns; both are null on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interplay.geometry import Floats, Rows, cosine, root
from interplay.tensors import Module

#: Squared norms, inner products, attainable cosines and nulls: the Q quantities of `Measured.sums_QR`.
SUMS = (
    *("update", "weight", "gradient", "displacement"),
    *("with_previous", "previous", "with_displacement", "displacement_before"),
    *("with_other_update", "other_update", "attainable_other_update", "null_other_update"),
    *("with_other_iteration", "other_iteration", "attainable_other_iteration", "null_other_iteration"),
)
#: A squared norm that is not there at all: no tensor of the module has a gradient.
ABSENT = -1.0
#: Elements per piece of a long inner product: small enough for the cache and for fp32 sums.
PIECE = 1 << 18

#: Names of the copies that cost memory, in the order in which they are given up.
ITERATION, START, PREVIOUS = "iteration delta", "displacement", "previous update"


@dataclass(frozen=True)
class Measured:
    """What one update leaves: sums (Q quantities x R rows of `updates`) and sketches (`sketch.project`; M modules x J)."""

    sums_QR: Tensor
    sketch_MJ: Tensor


def stacked(sums: Mapping[str, Tensor], spaces: int, modules: int, device: torch.device) -> Tensor:
    """Q x R from S x M tensors (M alone: the first space only), NaN where a sum was not measured."""
    table_QSM = torch.full((len(SUMS), spaces, modules), torch.nan, dtype=torch.float64, device=device)
    for name, value in sums.items():
        table_QSM[SUMS.index(name), : value.shape[0] if value.dim() == 2 else 1] = value
    return table_QSM.flatten(1)


def shared_rows(mine: Sequence[str], theirs: Sequence[str], device: torch.device) -> tuple[Rows, Rows]:
    """Where the modules that both have stand in each; no index where all agree."""
    if mine == theirs:
        return slice(None), slice(None)
    place = {name: i for i, name in enumerate(theirs)}
    pairs = [(i, place[name]) for i, name in enumerate(mine) if name in place]
    rows = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def scattered(found_SM: Tensor, rows: Rows, modules: int) -> Tensor:
    """Values of the shared modules among all; NaN elsewhere."""
    table_SM = torch.full((found_SM.shape[0], modules), torch.nan, dtype=torch.float64, device=found_SM.device)
    table_SM[:, rows] = found_SM
    return table_SM


def gradients2_M(modules: Sequence[Module], device: torch.device) -> Tensor:
    """Squared norms of the gradients as they are now; `ABSENT` where a module has none."""
    total_M = torch.full((len(modules),), ABSENT, dtype=torch.float64, device=device)
    grads = [(i, part.tensor.grad) for i, module in enumerate(modules) for part in module.parts if part.tensor.grad is not None]
    pieces = [(i, piece) for i, grad in grads for piece in torch.split(_values(grad), PIECE)]
    if not pieces:
        return total_M
    owners = torch.tensor([i for i, _ in pieces], device=device)
    total_M[owners] = 0.0
    norms = torch._foreach_norm([piece for _, piece in pieces], 2, torch.float32)
    return total_M.index_add_(0, owners, torch.stack(list(norms)).double().square())


def _values(gradient: Tensor) -> Tensor:
    """All that is stored of a gradient, as one vector; a sparse one stores only the rows that were used."""
    stored = gradient.coalesce().values() if gradient.is_sparse else gradient
    return stored.detach().reshape(-1)


# ---- on the host


def finite(sums: Mapping[str, Floats]) -> bool:
    """Are update, weight and gradient finite everywhere? (Other sums follow from earlier rows.)"""
    return all(bool(np.isfinite(sums[name]).all()) for name in ("update", "weight", "gradient"))


def numbers(sums: Mapping[str, Floats], scale_R: Floats) -> dict[str, Floats]:
    """The numeric columns of `records.UPDATES`; norms of adapters in the effective space carry the scale."""
    norms = {f"{name}_norm": root(sums[name]) * scale_R for name in ("update", "weight", "displacement")}
    gradient = np.where(sums["gradient"] == ABSENT, np.nan, root(sums["gradient"]))
    columns = norms | {"gradient_norm": gradient}
    columns["cos_previous"] = cosine(sums["with_previous"], sums["update"], sums["previous"])
    columns["cos_displacement"] = cosine(sums["with_displacement"], sums["update"], sums["displacement_before"])
    for name in ("other_update", "other_iteration"):
        columns[f"cos_{name}"] = cosine(sums[f"with_{name}"], sums["update"], sums[name])
        columns[f"attainable_{name}"] = np.where(sums[name] > 0, sums[f"attainable_{name}"], np.nan)
        columns[f"null_{name}"] = np.where(np.isfinite(columns[f"cos_{name}"]), sums[f"null_{name}"], np.nan)
    return columns
