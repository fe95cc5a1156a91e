"""How good directions are: one backward pass beside a zeroth-order update, with estimates that noise does not inflate.

The batch is cut into halves with gradients g1 and g2, independent given the weights. A product of the
two has no noise of its own in expectation, so for a subspace with orthonormal u_i

    share = sum_i (g1.u_i)(g2.u_i) / (g1.g2)        of the true gradient's energy; may come out negative

and for a direction z the gain over an isotropic one, whose share is 1/n on average, is n times its share.
Predicted from rho^2, the previous update's share: alpha^2 rho^2 n + (1 - alpha^2) (see docs/metrics.md).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from interplay.directions import TINY, Direction, Space
from interplay.objectives.base import Metrics
from interplay.updates.base import Closure

_BLOCK = re.compile(r"\.(\d+)\.")


def measure(space: Space, closure: Closure, z: Direction, p_N: Tensor | None, alpha: float | None, recent: list[Tensor]) -> Metrics:
    """What a backward pass on each half of the batch says of z, of the previous update p and of recent updates."""
    halves = closure.halves()
    if halves is None:
        return {}
    g1_N, g2_N = (_gradient(space, half) for half in halves)
    energy = float(g1_N.double() @ g2_N.double())
    norms = float(g1_N.double().norm() * g2_N.double().norm())
    found = {"zo/gradient_agreement": energy / norms if norms > 0 else 0.0}
    mean_N, z_N = (g1_N + g2_N) / 2, z.dense()
    found["zo/cos_gradient"] = _cosine(z_N, mean_N)
    if abs(energy) <= TINY:
        return found
    found["zo/gain_measured"] = space.count * _share(z_N, g1_N, g2_N) / energy
    if p_N is not None:
        shares = {name: value / energy for name, value in _pieces(space, p_N, g1_N, g2_N).items()}
        found |= {"zo/rho": _cosine(p_N, mean_N), **shares}
        if alpha is not None:
            found["zo/gain_predicted"] = alpha**2 * shares["zo/share_previous"] * space.count + 1 - alpha**2
    if recent:
        found["zo/share_recent"] = _span(torch.stack(recent), g1_N, g2_N) / energy
    return found


def _gradient(space: Space, closure: Closure) -> Tensor:
    """The gradient as a flat vector; `.grad` is left empty."""
    with torch.enable_grad():
        closure()[0].backward()
    pairs = zip(space.names, space.parameters, strict=True)
    flat_N = space.flat({name: parameter.grad for name, parameter in pairs if parameter.grad is not None})
    for parameter in space.parameters:
        parameter.grad = None
    return flat_N


def _cosine(x_N: Tensor, y_N: Tensor) -> float:
    norms = float(x_N.double().norm() * y_N.double().norm())
    return float(x_N.double() @ y_N.double()) / norms if norms > TINY else 0.0


def _share(u_N: Tensor, g1_N: Tensor, g2_N: Tensor) -> float:
    u = u_N.double()
    square = float(u @ u)
    return float(u @ g1_N.double()) * float(u @ g2_N.double()) / square if square > TINY**2 else 0.0


def _pieces(space: Space, p_N: Tensor, g1_N: Tensor, g2_N: Tensor) -> dict[str, float]:
    """Energy in the span of p, and of its pieces by layer, tensor and row."""
    rows, tensors = 0.0, torch.zeros(len(space.names), 3, dtype=torch.float64)
    views = zip(space.views(p_N), space.views(g1_N), space.views(g2_N), strict=True)
    for number, (p, g1, g2) in enumerate(views):
        wide = [x.reshape(x.shape[0], -1).double() for x in (p, g1, g2)]
        sums_R3 = torch.stack([(wide[1] * wide[0]).sum(1), (wide[2] * wide[0]).sum(1), (wide[0] ** 2).sum(1)], 1)
        rows += _energy(sums_R3)
        tensors[number] = sums_R3.sum(0).cpu()
    layers = torch.tensor([_layer(name) for name in space.names])
    by_layer = torch.stack([tensors[layers == number].sum(0) for number in torch.unique(layers)])
    return {
        "zo/share_previous": _energy(tensors.sum(0, keepdim=True)),
        "zo/share_layers": _energy(by_layer),
        "zo/share_tensors": _energy(tensors),
        "zo/share_rows": rows,
    }


def _energy(sums_X3: Tensor) -> float:
    """Sum over pieces of (g1.p)(g2.p) / p.p; a piece of length zero spans nothing."""
    a, b, square = sums_X3.unbind(1)
    return float(torch.where(square > TINY**2, a * b / square.clamp(min=TINY**2), torch.zeros_like(a)).sum())


def _layer(name: str) -> int:
    found = _BLOCK.search(name)
    return int(found[1]) if found else -1


def _span(vectors_MN: Tensor, g1_N: Tensor, g2_N: Tensor) -> float:
    basis_NM, _ = torch.linalg.qr(vectors_MN.double().T)
    return float((basis_NM.T @ g1_N.double()) @ (basis_NM.T @ g2_N.double()))
