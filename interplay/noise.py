"""Counter-based random directions: element i of a tensor's noise is a hash of (seed, name, i).

Nothing is drawn in order, so any slice can be made alone, on any device and in any process, with the
same bits, and two tensors never share noise (as they do where each is seeded with the same number).

    gaussian      words 16 g ... 16 g + 15 make elements 32 g ... 32 g + 31: the low halves the first
                  sixteen, the high halves the others; a half is an index into a table of 65,536
                  Gaussian quantiles with mean 0 and variance 1
    rademacher    word g makes elements 32 g ... 32 g + 31, a sign from each bit

where word w = hash32(w; key).

The hash is two rounds of multiply and xor-shift with one half of the key before each (constants of
the `lowbias32` family by Chris Wellons, public domain). On a CPU numba makes noise in registers as
it is used; elsewhere the same integers are made by torch.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Literal

import numba
import numpy as np
import torch
from torch import Tensor

from interplay import lanes

Kind = Literal["gaussian", "rademacher"]
KINDS: tuple[Kind, ...] = ("gaussian", "rademacher")
ENTRIES = 65_536
GROUP = 32  # elements made together; a slice starts at a multiple of it
BLOCK = 2048  # elements made at once; they stay in the innermost cache


def key(seed: int, name: str, draw: int = 0) -> tuple[int, int]:
    """Two 32-bit halves of a key for one tensor and one draw, the same in every process."""
    made = hashlib.blake2b(f"{seed}/{draw}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(made[:4], "little"), int.from_bytes(made[4:], "little")


@lru_cache(maxsize=1)
def table() -> np.ndarray:
    """Gaussian quantiles at the midpoints of 65,536 equal shares, scaled to variance 1; float32, symmetric."""
    from scipy.special import ndtri

    half = ndtri((np.arange(ENTRIES // 2, ENTRIES) + 0.5) / ENTRIES)
    half /= np.sqrt(np.mean(half**2))
    return np.concatenate([-half[::-1], half]).astype(np.float32)


def match_threads() -> None:
    """As many threads as torch uses."""
    numba.set_num_threads(max(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS), 1))  # type: ignore[attr-defined] # set when numba is imported


def fill(out: Tensor, keys: tuple[int, int], kind: Kind = "gaussian", start: int = 0) -> Tensor:
    """Write elements start ... start + n of a tensor's noise into a flat tensor of n; returns it.

    Raises `ValueError` if `out` is not one contiguous float32 axis, or `start` is no multiple of 32.
    """
    if out.dim() != 1 or out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(f"out has shape {tuple(out.shape)} and dtype {out.dtype}; it must be a contiguous float32 vector")
    if start % GROUP:
        raise ValueError(f"start is {start}; it must be a multiple of {GROUP}")
    if out.device.type == "cpu":
        match_threads()
        fill_numba(out.numpy(), np.uint32(keys[0]), np.uint32(keys[1]), start, kind == "rademacher", table())
    else:
        out.copy_(in_torch(len(out), keys, kind, start, out.device))
    return out


# --- with numba ------------------------------------------------------------------------------------


def jit(function: Any = None, **options: Any) -> Any:
    """numba's compiler with products that may be fused, so that one pass over memory is what it costs."""
    compile_ = numba.njit(cache=True, fastmath={"contract"}, error_model="numpy", **options)
    return compile_ if function is None else compile_(function)


@jit(inline="always")
def hash32(word: np.uint32, key0: np.uint32, key1: np.uint32) -> np.uint32:
    h = np.uint32(word ^ key0)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x21F0AAAD))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x735A2D97))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h + key1)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


@jit(inline="always")
def sign(word: np.uint32, bit: int) -> np.float32:
    return np.float32(1.0) - np.float32(2.0) * np.float32((word >> np.uint32(bit)) & np.uint32(1))


@jit
def block(out: np.ndarray, count: int, key0: np.uint32, key1: np.uint32, start: int, signs: bool, quantiles: np.ndarray) -> None:
    """`count` elements from `start` on, which is the first of a word, into the head of `out`."""
    whole = count // 32
    if signs:
        for w in range(whole):
            lanes.spread(out, 32 * w, hash32(np.uint32(start // 32 + w), key0, key1))
        for place in range(32 * whole, count):
            out[place] = sign(hash32(np.uint32(start // 32 + whole), key0, key1), place % 32)
        return
    for g in range(whole):
        for lane in range(16):
            h = hash32(np.uint32(start // 2 + 16 * g + lane), key0, key1)
            out[32 * g + lane] = quantiles[h & np.uint32(0xFFFF)]
            out[32 * g + 16 + lane] = quantiles[h >> np.uint32(16)]
    for place in range(32 * whole, count):
        lane = place % 16
        h = hash32(np.uint32(start // 2 + 16 * whole + lane), key0, key1)
        out[place] = quantiles[h >> np.uint32(16) if place - 32 * whole >= 16 else h & np.uint32(0xFFFF)]


@jit(parallel=True)
def fill_numba(out: np.ndarray, key0: np.uint32, key1: np.uint32, start: int, signs: bool, quantiles: np.ndarray) -> None:
    parts = (len(out) + 32 * BLOCK - 1) // (32 * BLOCK)
    for part in numba.prange(parts):
        for begin in range(part * 32 * BLOCK, min((part + 1) * 32 * BLOCK, len(out)), BLOCK):
            end = min(begin + BLOCK, len(out))
            block(out[begin:end], end - begin, key0, key1, start + begin, signs, quantiles)


# --- with torch ------------------------------------------------------------------------------------

_LOW = 0xFFFF_FFFF


def _hash_torch(word_N: Tensor, keys: tuple[int, int]) -> Tensor:
    """`hash32` on 64-bit integers, of which the low 32 bits count."""
    h = word_N ^ keys[0]
    for add, shifts, factors in ((0, (16, 15, 15), (0x21F0AAAD, 0x735A2D97)), (keys[1], (16, 15, 16), (0x7FEB352D, 0x846CA68B))):
        h = (h + add) & _LOW
        h = h ^ (h >> shifts[0])
        h = (h * factors[0]) & _LOW
        h = h ^ (h >> shifts[1])
        h = (h * factors[1]) & _LOW
        h = h ^ (h >> shifts[2])
    return h


def in_torch(count: int, keys: tuple[int, int], kind: Kind, start: int, device: torch.device | str) -> Tensor:
    """The same elements by torch operations, float32."""
    groups = torch.arange(start // GROUP, -(-(start + count) // GROUP), device=device)
    if kind == "rademacher":
        bits_GE = (_hash_torch(groups, keys)[:, None] >> torch.arange(GROUP, device=device)) & 1
        return (1.0 - 2.0 * bits_GE.float()).flatten()[:count]
    words_GL = _hash_torch(groups[:, None] * 16 + torch.arange(16, device=device), keys)
    return _table(str(device))[torch.cat([words_GL & 0xFFFF, words_GL >> 16], 1).flatten()[:count]]


@lru_cache(maxsize=8)
def _table(device: str) -> Tensor:
    return torch.from_numpy(table()).to(device)
