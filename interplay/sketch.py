"""Seeded linear projection of an update: k signed sums per module.

Element e of a tensor (row-major) gets the sign that a counter-based hash draws for (seed, module,
tensor, shape, e) and falls into sum (e mod P) mod k, where P is the smallest prime above 4k: neither
rows nor columns of any usual width line up with P, so no column's energy collapses into few sums. The
same element has the same sign in every role, so sketches of policy and reward model may be compared,
and sketches add: the sketch of a layer is the sum of those of its modules. Inner products of sketches
are unbiased; a sketched cosine c has the standard error (1 - c^2) / sqrt(k_eff), with

    k_eff = (sum_b E_b)^2 / (sum_b E_b^2 - sum_e x_e^4) <= k,   E_b the energy in sum b:

only pairs of different elements in one sum make an error, so a single large element makes none. No
global random state.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from interplay.geometry import Floats
from interplay.records import SketchSpec

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: Elements that are signed and summed at a time: the temporaries stay small.
PIECE = 1 << 20


def signs_N(seed: int, module: str, label: str, shape: Sequence[int]) -> npt.NDArray[np.int8]:
    """+1 or -1 for each element of a tensor: 64 of them from each hash of (key, counter)."""
    size = int(np.prod(shape, dtype=np.int64))
    text = f"{seed}/{module}/{label}/{'x'.join(str(int(n)) for n in shape)}"
    key = np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
    words = _splitmix(key, np.arange(1, size // 64 + 2, dtype=np.uint64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8))[:size]
    return (bits.view(np.int8) << 1) - np.int8(1)


def _splitmix(key: np.uint64, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea, Flood 2014): the counter-th output of the generator that starts at key."""
    with np.errstate(over="ignore"):
        z = key + counters * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


@functools.lru_cache(maxsize=16)
def period(k: int) -> int:
    """The smallest prime above 4k."""
    number = 4 * k + 1
    while any(number % d == 0 for d in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def project(x_MN: Tensor, signs_MN: Tensor, k: int) -> Tensor:
    """M x J fp32, J = 2k + 1: k signed sums, the k energies in them, the sum of fourth powers. All of them add."""
    M = len(x_MN)
    sums_MK, energies_MK, fourth_M1 = (torch.zeros(M, width, dtype=torch.float32, device=x_MN.device) for width in (k, k, 1))
    width = min(max(1, PIECE // M // period(k)) * period(k), x_MN.shape[1])
    room_MN = torch.empty(M, width, dtype=torch.float32, device=x_MN.device)
    for at in range(0, x_MN.shape[1], width):
        x = x_MN[:, at : at + width]
        made = room_MN[:, : x.shape[1]]
        sums_MK += _fold(torch.mul(x, signs_MN[:, at : at + width], out=made), k)
        energies_MK += _fold(torch.mul(x, x, out=made), k)
        fourth_M1 += made.square_().sum(1, keepdim=True)
    return torch.cat([sums_MK, energies_MK, fourth_M1], dim=1)


def _fold(x_MN: Tensor, k: int) -> Tensor:
    """Sums over elements with the same (e mod P) mod k."""
    P = period(k)
    return _stack_sums(_stack_sums(x_MN, P), k)


def _stack_sums(x_MN: Tensor, width: int) -> Tensor:
    M, N = x_MN.shape
    whole = N // width
    total = x_MN[:, : whole * width].reshape(M, whole, width).sum(1)
    total[:, : N - whole * width] += x_MN[:, whole * width :]
    return total


class Sketcher:
    """Projects stacks of tensors; keeps the signs (one byte per element) between updates and roles."""

    def __init__(self, spec: SketchSpec) -> None:
        self.spec = spec
        self._signs: dict[tuple[tuple[str, ...], str, tuple[int, ...], torch.device], Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Memory that the signs take."""
        return sum(signs.numel() for signs in self._signs.values())

    def clear(self) -> None:
        """Forget the signs; they can be drawn again."""
        self._signs.clear()

    def __call__(self, modules: tuple[str, ...], label: str, x: Tensor) -> Tensor:
        """`project` of M tensors of one shape, x of shape (M, ...)."""
        return project(x.reshape(len(modules), -1), self._of(modules, label, tuple(x.shape[1:]), x.device), self.spec.k)

    def _of(self, modules: tuple[str, ...], label: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        key = (modules, label, shape, device)
        if key not in self._signs:
            drawn = np.stack([signs_N(self.spec.seed, name, label, shape) for name in modules])
            self._signs[key] = torch.from_numpy(drawn).to(device)
        return self._signs[key]


@dataclass(frozen=True)
class Directions:
    """Sketches as they are stored: `sketch_MK * scale_M` is in weight units; undefined errors are NaN."""

    sketch_MK: npt.NDArray[np.float16]
    scale_M: npt.NDArray[np.float32]
    standard_error_M: Floats


def directions(sketch_MJ: Floats) -> Directions:
    """fp16 over the largest sum, because raw sums of small updates are subnormal in fp16."""
    k = sketch_MJ.shape[1] // 2
    sums_MK, energies_MK, fourth_M = sketch_MJ[:, :k], sketch_MJ[:, k : 2 * k], sketch_MJ[:, -1]
    total_M = energies_MK.sum(1)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so, and gets no row
        scale_M = np.abs(sums_MK).max(axis=1).astype(np.float32)
        sketch_MK = (sums_MK / np.where(scale_M > 0, scale_M, 1.0)[:, None]).astype(np.float16)
        shares_M = ((energies_MK**2).sum(1) - fourth_M) / np.where(total_M > 0, total_M, 1.0) ** 2
    return Directions(sketch_MK, scale_M, np.where(total_M > 0, np.sqrt(np.maximum(shares_M, 1 / k)), np.nan))
