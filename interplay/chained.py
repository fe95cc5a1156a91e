"""Adapters whose every update begins where the last one ended: the same numbers from a third of the products.

Between checkpoints nothing moves the weights, so what one update left is known at the next. Of a factor X (B, or A transposed) with the
weights x before an update d, the update before it p and the displacement e from the start, only four products are new,

    d'd, d'x, d'p and d'e,

where twelve are made without that knowledge (`geometry`). All others follow in float64, for x becomes x + d and e becomes e + d: x'p becomes
x'd + d'd, x'e becomes x'e + x'd + d'e + d'd, and so do the squares x'x and e'e. A square that has shrunk in such sums, as on a way back to
the start, is made anew from the weights. Axis letters: M modules of one shape, R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interplay.adapters import AdapterGroup, with_displacement
from interplay.geometry import Change, Displaced, Gram, Weights, displaced, product, trace

#: Below this share of the largest square in its sums, a square has lost too many digits.
SHRUNK = 0.01


@dataclass(frozen=True)
class Square:
    """The product of a factor with itself (M x R x R), and the largest squared length that went into its sums."""

    value: Tensor
    top_M: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Square:
        return cls(value, trace(value))

    def plus(self, along: Tensor, dd: Tensor) -> Square:
        """After a change d, with `along` its product with what it changes."""
        value = self.value + along + along.mT + dd
        return Square(value, self.top_M.maximum(trace(dd)).maximum(trace(value)))

    @property
    def shrunk(self) -> bool:
        return bool((trace(self.value) < SHRUNK * self.top_M).any())


@dataclass(frozen=True)
class Known:
    """Products of one factor before an update: x'x, x'p, and with a start x'e and e'e."""

    xx: Square
    xp: Tensor
    away: tuple[Tensor, Square] | None

    @property
    def finite(self) -> bool:
        """A value that is not finite would stay in all sums, as it stays in the sum of all."""
        parts = (self.xx.value, self.xp, *(() if self.away is None else (self.away[0], self.away[1].value)))
        return all(math.isfinite(part.sum().item()) for part in parts)


@dataclass(frozen=True)
class New:
    """Products of one factor's update: d'd, d'x, and where they are kept d'p and d'e."""

    dd: Tensor
    dx: Tensor
    dp: Tensor | None
    de: Tensor | None


def moved(known: Known, new: New) -> Known:
    """What is known before the next update."""
    xp, away = new.dx.mT + new.dd, None
    if known.away is not None and new.de is not None:
        xe, ee = known.away
        away = xe + xp + new.de, ee.plus(new.de, new.dd)
    return Known(known.xx.plus(new.dx, new.dd), xp, away)


def from_grams(own: Gram, far: Displaced | None) -> tuple[Known, Known]:
    """What is known of B and A after an update that was measured without knowing anything."""
    dd, dx, xd, xx = _quarters(own.left_MQQ)
    aa, ad, _, _ = _quarters(own.right_MQQ)
    B, A = Known(Square.of(xx + xd + dx + dd), xd + dd, None), Known(Square.of(aa), ad, None)
    if far is None:
        return B, A
    ee, es, _, _ = _quarters(far.after.left_MQQ)
    _, af, _, ff = _quarters(far.after.right_MQQ)
    return replace(B, away=(es.mT + ee, Square.of(ee))), replace(A, away=(af, Square.of(ff)))


def _quarters(x_MQQ: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r = x_MQQ.shape[1] // 2
    return x_MQQ[:, :r, :r], x_MQQ[:, :r, r:], x_MQQ[:, r:, :r], x_MQQ[:, r:, r:]


# ---- sums of one update, factor and effective: its factors are L = [dB | B] and R = [A + dA ; dA]


def own_gram(B: Known, dB: New, dA: New, A_after: Known) -> Gram:
    """Of the update with itself."""
    return Gram(_blocks(dB.dd, dB.dx, dB.dx.mT, B.xx.value), _blocks(A_after.xx.value, A_after.xp, A_after.xp.mT, dA.dd))


def weights2_SM(B: Known, A: Known) -> Tensor:
    """Squared norms of the weights."""
    return torch.stack([trace(B.xx.value) + trace(A.xx.value), _inner_M(B.xx.value, A.xx.value)])


def with_previous_SM(B: Known, dB: New, A: Known, dA: New) -> Tensor | None:
    """With the update before it, whose factors are [pB | B - pB] and [A ; pA]; None where that is not kept."""
    if dB.dp is None or dA.dp is None:
        return None
    effective = _inner_M(dB.dp, A.xx.value + dA.dx) + _inner_M(dB.dx - dB.dp, A.xp + dA.dp) + _inner_M(B.xp, dA.dx) + _inner_M(B.xx.value - B.xp, dA.dp)
    return torch.stack([trace(dB.dp) + trace(dA.dp), effective])


def displacements(B: Known, dB: New, A: Known, dA: New) -> dict[str, Tensor]:
    """With the displacement before it, whose factors are [E | B - E] and [A ; F]; nothing without a start. See `displacement2_SM` for its own."""
    if B.away is None or A.away is None or dB.de is None or dA.de is None:
        return {}
    xe, xf = B.away[0], A.away[0]
    effective = _inner_M(dB.de, A.xx.value + dA.dx) + _inner_M(dB.dx - dB.de, xf + dA.de) + _inner_M(xe, dA.dx) + _inner_M(B.xx.value - xe, dA.de)
    return {"with_displacement": torch.stack([trace(dB.de) + trace(dA.de), effective]), "displacement_before": displacement2_SM(B, A)}


def displacement2_SM(B: Known, A: Known) -> Tensor:
    """Squared norm of the displacement."""
    assert B.away is not None, "there is a start"
    assert A.away is not None, "there is a start"
    (xe, ee), (xf, ff) = (B.away[0], B.away[1].value), (A.away[0], A.away[1].value)
    ex = xe.mT
    effective = _inner_M(ee, A.xx.value) + 2 * _inner_M(ex - ee, xf) + _inner_M(B.xx.value - xe - ex + ee, ff)
    return torch.stack([trace(ee) + trace(ff), effective])


def _inner_M(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum((1, 2))


def _blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.cat([torch.cat([a, b], 2), torch.cat([c, d], 2)], 1)


# ---- a stack of adapters


class ChainedGroup(AdapterGroup):
    """M adapters of one shape that only move from one `before` to the `after` that follows it."""

    _known: tuple[Known, Known] | None = None
    _displacement: tuple[Tensor, Tensor] | None = None
    _last_SM: Tensor | None = None

    def _away(self) -> tuple[Tensor, Tensor] | None:
        """As the last update left it."""
        if self._displacement is None:
            self._displacement = super()._away()
        return self._displacement

    def _measured(self, update: Change, away: tuple[Tensor, Tensor] | None) -> tuple[Gram, dict[str, Tensor]]:
        """From what is known; where nothing is, as any adapters."""
        own, sums, after = self._afresh(update, away) if self._known is None else self._following(*self._known, *self._new(update, away))
        self._known = after if all(side.finite for side in after) else None
        if self._spare is not None:
            self._last_SM = sums["update"]
        return own, sums

    def _afresh(self, update: Change, away: tuple[Tensor, Tensor] | None) -> tuple[Gram, dict[str, Tensor], tuple[Known, Known]]:
        own, sums = super()._measured(update, None)
        far = None if away is None else displaced(update, own, *away)
        if away is not None:
            self._move_away(away)
        return own, sums | ({} if far is None else with_displacement(far)), from_grams(own, far)

    def _following(self, B: Known, A: Known, dB: New, dA: New) -> tuple[Gram, dict[str, Tensor], tuple[Known, Known]]:
        B_after, A_after = self._anew(moved(B, dB), moved(A, dA))
        own, cross = own_gram(B, dB, dA, A_after), with_previous_SM(B, dB, A, dA)
        sums = {"update": own.both_SM(), "weight": weights2_SM(B_after, A_after), **displacements(B, dB, A, dA)}
        if "with_displacement" in sums:
            sums["displacement"] = displacement2_SM(B_after, A_after)
        if cross is not None and self._last_SM is not None:
            sums |= {"with_previous": cross, "previous": self._last_SM}
        return own, sums, (B_after, A_after)

    def _new(self, update: Change, away: tuple[Tensor, Tensor] | None) -> tuple[New, New]:
        """The products that only this update tells; moves the displacement to after it."""
        r = update.rank
        dB, dA = update.left_MmQ[..., :r], update.right_MQn[:, r:]
        left, right = _tall(dB, update.left_MmQ), _wide(dA, update.right_MQn)  # d'd and d'x; the right factor has A after the update in front
        last = None if self.latest is None or self._spare is None else self._spare.moved
        Bp, Ap = (None, None) if last is None else (_tall(dB, last.B_MmR), _wide(dA, last.A_MRn))
        Be, Ae = (None, None) if away is None else (_tall(dB, away[0]), _wide(dA, away[1]))
        if away is not None:
            self._move_away(away)
        return New(left[..., :r], left[..., r:], Bp, Be), New(right[..., r:], right[..., :r] - right[..., r:], Ap, Ae)

    def _move_away(self, away: tuple[Tensor, Tensor]) -> None:
        """Exactly: weights that are back at the start are at distance 0."""
        assert self._start is not None, "there is no displacement without a start"
        for tensors, start, distance in ((self._Bs, self._start.B_MmR, away[0]), (self._As, self._start.A_MRn, away[1])):
            for i, tensor in enumerate(tensors):
                torch.sub(tensor, start[i], out=distance[i])

    def _anew(self, B: Known, A: Known) -> tuple[Known, Known]:
        """Squares that have shrunk, from the weights as they are now."""
        if B.xx.shrunk or A.xx.shrunk:
            now = Weights.of(self._As, self._Bs)
            B, A = replace(B, xx=Square.of(_tall(now.B_MmR, now.B_MmR))), replace(A, xx=Square.of(_wide(now.A_MRn, now.A_MRn)))
        if self._displacement is None or B.away is None or A.away is None or not (B.away[1].shrunk or A.away[1].shrunk):
            return B, A
        E, F = self._displacement
        return _at_distance(B, _tall(E, E)), _at_distance(A, _wide(F, F))


def _at_distance(side: Known, ee: Tensor) -> Known:
    """With e'e anew; where e is nothing, x'e is nothing and not what rounding left."""
    assert side.away is not None, "there is a start"
    return replace(side, away=(side.away[0].where(trace(ee)[:, None, None] != 0, 0.0), Square.of(ee)))


def _tall(x: Tensor, y: Tensor) -> Tensor:
    """Products of factors like B (M x m x R)."""
    return product(x.mT, y)


def _wide(x: Tensor, y: Tensor) -> Tensor:
    """Products of factors like A (M x R x n)."""
    return product(x, y.mT)
