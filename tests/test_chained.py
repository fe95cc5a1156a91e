"""Updates without gaps: from fewer products the same numbers as any adapters have, over many updates, back to the start, and after NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from interplay import chained
from interplay.measure import PREVIOUS, START, numbers
from interplay.records import SketchSpec
from interplay.sketch import Sketcher
from interplay.tensors import Module, Part
from interplay.trail import Trail

R, M, N, MODULES = 4, 24, 16, 3
ALL = frozenset({"update", PREVIOUS, START})
Factors = list[tuple[torch.Tensor, torch.Tensor]]


def modules(factors: Factors) -> list[Module]:
    found = []
    for number, pair in enumerate(factors):
        A, B = (nn.Parameter(x.clone(), requires_grad=False) for x in pair)
        found.append(Module(f"layers.{number}.q_proj", (Part("A", "A", A), Part("B", "B", B)), (M, N, R)))
    return found


def fresh(random: torch.Generator) -> Factors:
    """As adapters begin: A is noise, B is zero."""
    return [(torch.randn(R, N, generator=random), torch.zeros(M, R)) for _ in range(MODULES)]


def moved(factors: Factors, random: torch.Generator) -> Factors:
    return [(A + 0.05 * torch.randn(A.shape, generator=random), B + 0.05 * torch.randn(B.shape, generator=random)) for A, B in factors]


def measured(walks: dict[str, list[Factors]], copies: frozenset[str], *, chain: bool) -> list[dict[str, Any]]:
    """The numeric columns of every update; roles take turns."""
    trails = {role: Trail(modules(walk[0]), copies, None, chained=chain) for role, walk in walks.items()}
    for trail in trails.values():
        trail.before()
    sketcher, found = Sketcher(SketchSpec(k=8)), []
    for step in range(1, len(next(iter(walks.values())))):
        for role, trail in trails.items():
            trail.rebind(modules(walks[role][step]))
            other = next((one for name, one in trails.items() if name != role), None)
            found.append(numbers(trail.after(trail.gradients(), other, sketcher)[0], np.ones(2 * MODULES)))
            trail.before()
    return found


def walks(steps: int, roles: int = 2, seed: int = 0) -> dict[str, list[Factors]]:
    random = torch.Generator().manual_seed(seed)
    start, found = fresh(random), {}
    for role in ("policy", "reward")[:roles]:
        path = [start]
        for _ in range(steps):
            path.append(moved(path[-1], random))
        found[role] = path
    return found


def same(first: list[dict[str, Any]], second: list[dict[str, Any]], tolerance: float = 2e-6) -> None:
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("copies", [ALL, frozenset({"update", START}), frozenset({"update", PREVIOUS}), frozenset({"update"})], ids=len)
@pytest.mark.parametrize("roles", [1, 2])
def test_fewer_products_say_the_same_over_many_updates(copies: frozenset[str], roles: int) -> None:
    paths = walks(60, roles)
    same(measured(paths, copies, chain=False), measured(paths, copies, chain=True))


def test_weights_that_come_back_are_at_distance_zero() -> None:
    paths = walks(3, 1)
    path = paths["policy"]
    paths["policy"] = [*path, *path[::-1][1:], *path[1:], path[0]]
    with_chain = measured(paths, ALL, chain=True)
    same(measured(paths, ALL, chain=False), with_chain)
    for place in (5, 9):
        assert (with_chain[place]["displacement_norm"] == 0).all()
    assert np.isnan(with_chain[6]["cos_displacement"]).all()


def test_still_checkpoints_have_no_cosine() -> None:
    path = walks(2, 1)["policy"]
    found = measured({"policy": [path[0], path[1], path[1], path[2]]}, ALL, chain=True)
    assert (found[1]["update_norm"] == 0).all()
    assert np.isnan(found[1]["cos_previous"]).all()
    assert np.isnan(found[2]["cos_previous"]).all()
    assert np.isfinite(found[2]["cos_displacement"]).all()


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_does_not_stay(side: int) -> None:
    paths = walks(12, 1)
    paths["policy"][5] = [tuple(x.clone() for x in pair) for pair in paths["policy"][5]]  # type: ignore[misc]
    paths["policy"][5][1][side][0, 0] = torch.nan
    plain, with_chain = (measured(paths, ALL, chain=chain) for chain in (False, True))
    same(plain, with_chain)
    assert np.isnan(with_chain[4]["update_norm"]).any()
    assert np.isfinite(with_chain[-1]["update_norm"]).all()


def test_only_four_of_twelve_products_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiplications over the long side, by update: 4 r^2 (m + n) for the Gram of r with 2 r, and so on."""
    spent: list[int] = []
    real = chained.product

    def counted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        spent.append(x.shape[1] * x.shape[2] * y.shape[2])
        return real(x, y)

    monkeypatch.setattr(chained, "product", counted)
    measured(walks(2, 1), ALL, chain=True)
    assert sum(spent) == 4 * R * R * (M + N)
