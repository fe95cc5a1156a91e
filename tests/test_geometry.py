"""Factored norms, inner products and attainable cosines against dense float64 computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from interplay.geometry import Change, Weights, attainable_M, change, cosine, displaced, gram, null_sd_SM, root, tangent, weight_norms2_SM

M, m, n, r = 3, 24, 17, 4
ON = torch.ones(M, dtype=torch.float64)
OFF = torch.zeros(M, dtype=torch.float64)


def weights(seed: int, *, B: float = 1.0, ranks: int = r) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(M, ranks, n, generator=generator) / n**0.5
    return Weights(A, B * torch.randn(M, m, ranks, generator=generator))


def moved(before: Weights, seed: int, step: float) -> Weights:
    by = weights(seed)
    return Weights(before.A_MRn + step * by.A_MRn, before.B_MmR + step * by.B_MmR)


def dense(w: Weights) -> Tensor:
    return w.B_MmR.double() @ w.A_MRn.double()


def dots(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum((1, 2))


def reach(update: Change, y: Change, *, A: Tensor = ON, B: Tensor = ON) -> np.ndarray:
    return attainable_M(tangent(update, A, B), gram(update, y), gram(y, y)).numpy()


def projected_share(basis: Tensor, y: Tensor) -> float:
    """||P y|| / ||y|| for the span of the rows of `basis`, through an orthonormal basis from the SVD."""
    _, values, directions = torch.linalg.svd(basis, full_matrices=False)
    directions = directions[values > 1e-9 * values[0]] if len(values) else directions
    return float((directions @ y).norm() / y.norm())


def tangent_basis(B: Tensor, A: Tensor, *, A_moves: bool = True, B_moves: bool = True) -> Tensor:
    """All d(BA) of one module as rows: dB A for every unit dB, B dA for every unit dA."""
    rows = [torch.outer(e, a).reshape(-1) for e in torch.eye(m, dtype=torch.float64) for a in A] if B_moves else []
    rows += [torch.outer(b, e).reshape(-1) for e in torch.eye(n, dtype=torch.float64) for b in B.t()] if A_moves else []
    return torch.stack(rows)


@pytest.mark.parametrize(("b", "a", "B"), [(1.0, 0.0, 0.0), (0.3, 0.1, 1.0), (0.01, 0.5, 2.0)])
def test_the_null_is_the_spread_of_cosines_of_noise(b: float, a: float, B: float) -> None:
    """2,000 draws of dB and dA around fixed A and B, against one change of the other role."""
    base, y = weights(0), change(weights(1), moved(weights(1), 2, 0.5))
    A_1, B_0 = base.A_MRn.repeat(2000, 1, 1), B * base.B_MmR.repeat(2000, 1, 1)
    noise = torch.Generator().manual_seed(5)
    dB, dA = (scale * torch.randn(like.shape, generator=noise) for scale, like in ((b, B_0), (a, A_1)))
    x = Change(torch.cat([dB, B_0], 2), torch.cat([A_1, dA], 1))
    many = Change(y.left_MmQ.repeat(2000, 1, 1), y.right_MQn.repeat(2000, 1, 1))
    own, cross, theirs = gram(x, x), gram(x, many), gram(many, many)
    inner_SD = cross.both_SM().view(2, 2000, M)
    cosines = inner_SD / (own.both_SM() * theirs.both_SM()).sqrt().view(2, 2000, M)
    told = null_sd_SM(own, cross, theirs, m, n).view(2, 2000, M).mean(1)
    torch.testing.assert_close(told, cosines.std(1), rtol=0.15, atol=0)


def test_the_null_of_a_fresh_adapter_is_one_over_the_root_of_rank_times_rows() -> None:
    """Training-lab: 0.0107 for 576 x 576 and rank 16, where 1/sqrt(m n) would say 0.0017."""
    wide, ranks = 576, 16
    A = torch.linalg.qr(torch.randn(wide, ranks, generator=torch.Generator().manual_seed(0)))[0].T[None]
    before = Weights(A, torch.zeros(1, wide, ranks))
    changes = [change(before, Weights(A, torch.randn(1, wide, ranks, generator=torch.Generator().manual_seed(seed)))) for seed in (1, 2)]
    x, y = changes
    assert float(null_sd_SM(gram(x, x), gram(x, y), gram(y, y), wide, wide)[1, 0]) == pytest.approx((ranks * wide) ** -0.5, rel=1e-3)


@pytest.mark.parametrize("step", [1.0, 1e-3, 1e-5])
def test_norms_and_inner_products_equal_dense_float64(step: float) -> None:
    before, other = weights(0), weights(1)
    after, elsewhere = moved(before, 2, step), moved(other, 3, 0.1)
    x, y = change(before, after), change(other, elsewhere)
    true_x, true_y = dense(after) - dense(before), dense(elsewhere) - dense(other)
    torch.testing.assert_close(gram(x, x).effective_M(), dots(true_x, true_x), rtol=1e-5, atol=0)
    torch.testing.assert_close(gram(x, y).effective_M(), dots(true_x, true_y), rtol=0, atol=1e-5 * float(true_x.norm() * true_y.norm()))
    moves = [(a.A_MRn.double() - b.A_MRn.double(), a.B_MmR.double() - b.B_MmR.double()) for a, b in ((after, before), (elsewhere, other))]
    factor = sum(dots(p, q) for p, q in zip(*moves, strict=True))
    torch.testing.assert_close(gram(x, y).factor_M(), factor, rtol=0, atol=1e-5 * step)
    torch.testing.assert_close(weight_norms2_SM(gram(x, x))[1], dots(dense(after), dense(after)), rtol=1e-5, atol=0)


def test_effective_geometry_does_not_depend_on_the_gauge() -> None:
    """A -> RA, B -> BR^-1 leaves every weight as it is; the factor norms change."""
    before = weights(0)
    after = moved(before, 1, 1e-2)
    R = torch.linalg.qr(torch.randn(r, r, generator=torch.Generator().manual_seed(5)))[0] @ torch.diag(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    turned = [Weights(R @ w.A_MRn, w.B_MmR @ torch.linalg.inv(R)) for w in (before, after)]
    x, y = change(before, after), change(*turned)
    torch.testing.assert_close(gram(y, y).effective_M(), gram(x, x).effective_M(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gram(x, y).effective_M(), gram(x, x).effective_M(), rtol=1e-5, atol=0)
    assert not torch.allclose(gram(y, y).factor_M(), gram(x, x).factor_M(), rtol=1e-2)
    np.testing.assert_allclose(reach(y, x), 1.0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("step", [1.0, 1e-3])
def test_displacement_before_and_after_equals_dense_float64(scale: float, step: float) -> None:
    """From a fresh adapter (B = 0) and from a trained one."""
    start = weights(0, B=scale)
    before = moved(start, 1, step)
    after = moved(before, 2, step)
    update = change(before, after)
    found = displaced(update, gram(update, update), before.B_MmR - start.B_MmR, before.A_MRn - start.A_MRn)
    D0, D1, dW = dense(before) - dense(start), dense(after) - dense(start), dense(after) - dense(before)
    torch.testing.assert_close(found.before.effective_M(), dots(D0, D0), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.after.effective_M(), dots(D1, D1), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.with_update.effective_M(), dots(D0, dW), rtol=0, atol=1e-4 * float(D0.norm() * dW.norm()))
    whole, back = change(start, before), change(start, after)
    torch.testing.assert_close(found.before.factor_M(), gram(whole, whole).factor_M(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.after.factor_M(), gram(back, back).factor_M(), rtol=1e-5, atol=0)


def test_no_displacement_is_exactly_zero_before_the_first_update() -> None:
    start = weights(0)
    update = change(start, moved(start, 1, 1e-3))
    found = displaced(update, gram(update, update), torch.zeros(M, m, r), torch.zeros(M, r, n))
    assert not found.before.both_SM().any()
    torch.testing.assert_close(found.after.both_SM(), gram(update, update).both_SM(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("case", ["full", "zero B", "rank-deficient B", "only B moves", "only A moves"])
def test_attainable_equals_projection_onto_the_dense_tangent_space(case: str) -> None:
    before = weights(0, B=0.0 if case == "zero B" else 1.0)
    if case == "rank-deficient B":
        before.B_MmR[:, :, 1:] = before.B_MmR[:, :, :1] * torch.tensor([2.0, -1.0, 1e-3])
    after = moved(before, 1, 0.1)
    other = weights(7)
    y, true = change(other, moved(other, 8, 0.3)), dense(moved(other, 8, 0.3)) - dense(other)
    trains = {"A": OFF} if case == "only B moves" else {"B": OFF} if case == "only A moves" else {}
    found = reach(change(before, after), y, **trains)
    for i in range(M):
        basis = tangent_basis(before.B_MmR[i].double(), after.A_MRn[i].double(), A_moves="A" not in trains, B_moves="B" not in trains)
        assert found[i] == pytest.approx(projected_share(basis, true[i].reshape(-1)), abs=1e-5)


def test_independent_A_attains_little_and_shared_A_everything() -> None:
    """Training-lab §8: identical gradients, B = 0. The update is G A' A, seen from another A about sqrt(r / n)."""
    wide = 400
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(M, m, wide, generator=generator)
    A1, A2 = (torch.randn(M, r, wide, generator=generator) / wide**0.5 for _ in range(2))
    zero = torch.zeros(M, m, r)
    own, same, independent = (change(Weights(A, zero), Weights(A, G @ A.transpose(1, 2))) for A in (A1, A1.clone(), A2))
    np.testing.assert_allclose(reach(own, same), 1.0, atol=1e-6)
    assert reach(own, independent).mean() == pytest.approx((r / wide) ** 0.5, rel=0.3)


def test_attainable_of_a_zero_change_is_undefined() -> None:
    before = weights(0)
    assert np.isnan(reach(change(before, moved(before, 1, 0.1)), change(before, before))).all()


def test_tolerates_weights_that_are_not_finite() -> None:
    before = weights(0)
    before.B_MmR[0, 0, 0] = torch.nan
    update = change(before, moved(before, 1, 0.1))
    other = weights(3)
    found = reach(update, change(other, moved(other, 4, 0.1)))
    assert np.isfinite(found[1:]).all()


def test_undefined_cosines_are_nan_and_never_zero() -> None:
    one, zero, bad = np.array([1.0]), np.array([0.0]), np.array([np.inf])
    assert cosine(np.array([0.5]), one, one)[0] == 0.5
    assert cosine(np.array([1.0 + 1e-7]), one, one)[0] == 1.0
    for xx, yy in ((zero, one), (one, zero), (bad, one), (one, np.array([np.nan]))):
        assert np.isnan(cosine(zero, xx, yy)[0])
    assert root(np.array([-1e-12]))[0] == 0.0
    assert np.isnan(root(np.array([np.nan]))[0])


def test_products_are_widened_where_a_setting_shortens_fp32() -> None:
    before = weights(0)
    x = change(before, moved(before, 1, 1e-4))
    usual = gram(x, x).effective_M()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.testing.assert_close(gram(x, x).effective_M(), usual, rtol=1e-5, atol=0)
    finally:
        torch.set_float32_matmul_precision("highest")
