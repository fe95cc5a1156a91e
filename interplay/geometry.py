"""Exact norms, inner products and attainable cosines of changes, gauge-free for low-rank adapters.

A change of an adapter from (A0, B0) to (A1, B1) is held as rank-2r factors,

    B1 A1 - B0 A0 = (B1 - B0) A1 + B0 (A1 - A0) = L R,   L = [B1-B0 | B0],   R = [A1 ; A1-A0],

so nothing is ever subtracted that is nearly equal but the factors themselves: B1 A1 - B0 A0 in fp32 is
3.5 % wrong at a relative step of 1e-3. Norms and inner products come from small Gram products,
<L1 R1, L2 R2> = sum((L1' L2) * (R1 R2')), in O(q^2 (m + n)). Axis letters: M modules of one shape,
m rows, n columns, r rank, Q = 2r. Pure: tensors in, tensors out; no dense matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]

#: Singular values of A or B below this share of the largest do not count as directions.
TOLERANCE = 1e-5
#: Which modules of a stack: an index tensor, or all of them without a copy.
Rows = Tensor | slice


@dataclass(frozen=True)
class Weights:
    """Factors of M adapters of one shape, fp32."""

    A_MRn: Tensor
    B_MmR: Tensor

    @classmethod
    def of(cls, As: Sequence[Tensor], Bs: Sequence[Tensor]) -> Weights:
        """Copies, stacked."""
        return cls(torch.stack([a.detach().float() for a in As]), torch.stack([b.detach().float() for b in Bs]))


@dataclass(frozen=True)
class Change:
    """A change of M adapters as rank-Q factors, without the adapter's scale."""

    left_MmQ: Tensor
    right_MQn: Tensor

    @property
    def rank(self) -> int:
        return self.left_MmQ.shape[2] // 2

    def rows(self, chosen: Rows) -> Change:
        return Change(self.left_MmQ[chosen], self.right_MQn[chosen])


def change(before: Weights, after: Weights) -> Change:
    """The change from `before` to `after`."""
    left = torch.cat([after.B_MmR - before.B_MmR, before.B_MmR], dim=2)
    return Change(left, torch.cat([after.A_MRn, after.A_MRn - before.A_MRn], dim=1))


@dataclass(frozen=True)
class Gram:
    """L1' L2 and R1 R2' of two changes (float64, M x Q x Q): all their inner products follow from it."""

    left_MQQ: Tensor
    right_MQQ: Tensor

    def rows(self, chosen: Rows) -> Gram:
        return Gram(self.left_MQQ[chosen], self.right_MQQ[chosen])

    def effective_M(self) -> Tensor:
        """<L1 R1, L2 R2>, without the scales."""
        return (self.left_MQQ * self.right_MQQ).sum((1, 2))

    def factor_M(self) -> Tensor:
        """<dB1, dB2> + <dA1, dA2>: A and B as one vector."""
        r = self.left_MQQ.shape[1] // 2
        return trace(self.left_MQQ[:, :r, :r]) + trace(self.right_MQQ[:, r:, r:])

    def both_SM(self) -> Tensor:
        """Factor and effective inner products, in the order of `records.SPACES`."""
        return torch.stack([self.factor_M(), self.effective_M()])


def gram(x: Change, y: Change) -> Gram:
    """Small products of two changes of the same modules; fp32 products (fp64 where fp32 may be rounded further)."""
    return Gram(product(x.left_MmQ.transpose(1, 2), y.left_MmQ), product(x.right_MQn, y.right_MQn.transpose(1, 2)))


def weight_norms2_SM(own: Gram) -> Tensor:
    """||A1||^2 + ||B1||^2 and ||B1 A1||^2 after the change whose Gram with itself is `own` (B1 = dB + B0)."""
    r = own.left_MQQ.shape[1] // 2
    left = own.left_MQQ
    BB_MRR = left[:, :r, :r] + left[:, :r, r:] + left[:, r:, :r] + left[:, r:, r:]
    AA_MRR = own.right_MQQ[:, :r, :r]
    return torch.stack([trace(BB_MRR) + trace(AA_MRR), (BB_MRR * AA_MRR).sum((1, 2))])


@dataclass(frozen=True)
class Displaced:
    """Grams of the displacement D from the start of the run: of the update with D before it, and of D with itself."""

    with_update: Gram
    before: Gram
    after: Gram


def displaced(update: Change, own: Gram, E_MmR: Tensor, F_MRn: Tensor) -> Displaced:
    """From E = B - B_start and F = A - A_start before the update; moves both to after it.

    D = E A + B_start F has the factors [E | B_start] and [A ; F]. Only products with E and F are new: B_start is
    B - E, A before is A - dA, and their products are in `own` (the Gram of the update with itself). Nothing
    small comes from subtracting what is large, so D = 0 gives exactly 0.
    """
    r = update.rank
    LE_MQR = product(update.left_MmQ.transpose(1, 2), E_MmR)
    RF_MQR = product(update.right_MQn, F_MRn.transpose(1, 2))
    left, right = own.left_MQQ, own.right_MQQ
    LB_MQR, RA_MQR = left[..., r:] - LE_MQR, right[..., :r] - right[..., r:]
    EE_MRR, FF_MRR = product(E_MmR.transpose(1, 2), E_MmR), product(F_MRn, F_MRn.transpose(1, 2))
    EB_MRR = LE_MQR[:, r:].transpose(1, 2) - EE_MRR
    BB_MRR = LB_MQR[:, r:] - EB_MRR
    AA_MRR, AF_MRR = RA_MQR[:, :r] - RA_MQR[:, r:], RF_MQR[:, :r] - RF_MQR[:, r:]
    before = symmetric(EE_MRR, EB_MRR, BB_MRR, AA_MRR, AF_MRR, FF_MRR)
    E_MmR += update.left_MmQ[..., :r]
    F_MRn += update.right_MQn[:, r:]
    EE_MRR, FF_MRR = product(E_MmR.transpose(1, 2), E_MmR), product(F_MRn, F_MRn.transpose(1, 2))
    after = symmetric(EE_MRR, EB_MRR + LB_MQR[:, :r], BB_MRR, right[:, :r, :r], RF_MQR[:, :r] + right[:, :r, r:], FF_MRR)
    return Displaced(Gram(torch.cat([LE_MQR, LB_MQR], 2), torch.cat([RA_MQR, RF_MQR], 2)), before, after)


def symmetric(EE: Tensor, EB: Tensor, BB: Tensor, AA: Tensor, AF: Tensor, FF: Tensor) -> Gram:
    """The Gram of [E | B] and [A ; F] with themselves, from its blocks (each M x R x R)."""
    left = torch.cat([torch.cat([EE, EB], 2), torch.cat([EB.transpose(1, 2), BB], 2)], 1)
    return Gram(left, torch.cat([torch.cat([AA, AF], 2), torch.cat([AF.transpose(1, 2), FF], 2)], 1))


@dataclass(frozen=True)
class Tangent:
    """What any update {dB A + B dA} of M adapters can reach: the columns of B and the rows of A.

    Each is held as W with W W' = (B' B)^+ (M x R x R), from float64 Grams; a side that takes no part is zero.
    """

    columns_MRR: Tensor
    rows_MRR: Tensor

    def rows(self, chosen: Rows) -> Tangent:
        return Tangent(self.columns_MRR[chosen], self.rows_MRR[chosen])


def tangent(update: Change, trains_A_M: Tensor, trains_B_M: Tensor) -> Tangent:
    """At A after and B before the update. If only B is trained the space is {dB A}: the columns of B drop out."""
    r = update.rank
    columns = _whitener(update.left_MmQ[..., r:].transpose(1, 2)) * trains_A_M[:, None, None]
    return Tangent(columns, _whitener(update.right_MQn[:, :r]) * trains_B_M[:, None, None])


def attainable_M(reach: Tangent, cross: Gram, own: Gram) -> Tensor:
    """Largest cosine of any update in the tangent space T with a change Y: ||P_T Y|| / ||Y||, NaN where Y is zero.

    ||P_T Y||^2 = ||P_B Y||^2 + ||Y P_A||^2 - ||P_B Y P_A||^2, where P_B projects onto the columns of B and P_A
    onto the rows of A. `cross` is the Gram of the update with Y, `own` that of Y with itself.
    """
    r = reach.rows_MRR.shape[1]
    seen_B_MQQ = _self_product(reach.columns_MRR.transpose(1, 2) @ cross.left_MQQ[:, r:])
    seen_A_MQQ = _self_product(reach.rows_MRR.transpose(1, 2) @ cross.right_MQQ[:, :r])
    through_B = (seen_B_MQQ * own.right_MQQ).sum((1, 2))
    through_A = (own.left_MQQ * seen_A_MQQ).sum((1, 2))
    share_M = (through_B + through_A - (seen_B_MQQ * seen_A_MQQ).sum((1, 2))) / own.effective_M()
    reach_M: Tensor = share_M.clamp(0, 1).sqrt()
    return reach_M


def null_sd_SM(update: Gram, cross: Gram, own: Gram, m: int, n: int) -> Tensor:
    """Standard deviation of the cosine with a change Y if the update's dA and dB were noise of the norms they have; factor, then effective space.

    For isotropic dB (m x r) and dA (r x n), with b = ||dB||^2 / (m r), a = ||dA||^2 / (r n) and Y held fixed,

        Var <dB A + B dA, Y> = b ||Y A'||^2 + a ||B' Y||^2,    E ||dB A + B dA||^2 = b m ||A||^2 + a n ||B||^2,

    which for B = 0 and orthogonal rows of A of equal length gives 1/sqrt(r m), however many numbers the weight has.
    `update` and `own` are Grams with themselves, `cross` that of the update with Y. NaN where either is zero.
    """
    r = update.left_MQQ.shape[1] // 2
    b_M, a_M = trace(update.left_MQQ[:, :r, :r]) / (m * r), trace(update.right_MQQ[:, r:, r:]) / (n * r)
    BB_M, AA_M = trace(update.left_MQQ[:, r:, r:]), trace(update.right_MQQ[:, :r, :r])
    YA_M = (own.left_MQQ * _self_product(cross.right_MQQ[:, :r])).sum((1, 2))
    BY_M = (_self_product(cross.left_MQQ[:, r:]) * own.right_MQQ).sum((1, 2))
    effective_M = (b_M * YA_M + a_M * BY_M) / ((b_M * m * AA_M + a_M * n * BB_M) * own.effective_M())
    theirs_B_M, theirs_A_M = trace(own.left_MQQ[:, :r, :r]), trace(own.right_MQQ[:, r:, r:])
    factor_M = (b_M * theirs_B_M + a_M * theirs_A_M) / ((b_M * m + a_M * n) * r * (theirs_B_M + theirs_A_M))
    return torch.stack([factor_M, effective_M]).sqrt()


def _whitener(basis_MRn: Tensor) -> Tensor:
    """W with W W' = (X X')^+ for the rows X of `basis`; directions below `TOLERANCE` do not count."""
    wide = basis_MRn.double()
    values_MR, vectors_MRR = torch.linalg.eigh(torch.nan_to_num(wide @ wide.transpose(1, 2), 0.0, 0.0, 0.0))
    counts = values_MR > TOLERANCE**2 * values_MR[:, -1:]
    whitener: Tensor = vectors_MRR * torch.where(counts, values_MR, torch.inf).rsqrt()[:, None]
    return whitener


def _self_product(x_MRQ: Tensor) -> Tensor:
    return x_MRQ.transpose(1, 2) @ x_MRQ


def product(x: Tensor, y: Tensor) -> Tensor:
    """Batched product in float64. fp32 inside only where no setting may shorten it (TF32, bf16 matmul)."""
    exact = x.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.bmm(x, y).double() if exact else torch.bmm(x.double(), y.double())


def trace(x_MRR: Tensor) -> Tensor:
    return x_MRR.diagonal(dim1=1, dim2=2).sum(1)


# ---- on the host: from sums to columns; undefined is NaN here and null in the table


def root(squares: Floats) -> Floats:
    """Norms from squared norms; what rounding left below zero is zero."""
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)), dtype=np.float64)


def cosine(inner: Floats, xx: Floats, yy: Floats) -> Floats:
    """inner / sqrt(xx yy) within [-1, 1]; NaN where a norm is zero or anything is not finite."""
    defined = (xx > 0) & (yy > 0) & np.isfinite(inner) & np.isfinite(xx) & np.isfinite(yy)
    safe = np.where(defined, np.sqrt(np.where(defined, xx, 1.0)) * np.sqrt(np.where(defined, yy, 1.0)), 1.0)
    return np.where(defined, np.clip(np.where(defined, inner, 0.0) / safe, -1.0, 1.0), np.nan)
