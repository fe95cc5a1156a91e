"""One pass over memory for a random direction: sums of its noise, and base + scale * direction.

A direction of one tensor is three scalars and three vectors,

    z = alpha p + c n - s v,      n the noise of `noise.py`, never stored,

p the previous update and v a unit vector (both may be absent). Vectors of many tensors lie one after
another in flat float32 buffers; a chunk is (tensor, begin, end) and never crosses two tensors. Each
function exists twice, for CPUs (numba, all chunks in parallel) and for any device (torch).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from interplay import lanes, noise

CHUNK = 32 * noise.BLOCK
ALIGN = 16  # floats: tensors start at multiples of 64 bytes, where matrix products are fastest and always round alike


def aligned(size: int) -> int:
    """Room for a tensor of `size` floats whose successor starts aligned."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True)
class Segments:
    """Where the tensors of a flat buffer lie. S tensors, C chunks."""

    starts_S: np.ndarray
    sizes_S: np.ndarray
    chunks_C3: np.ndarray  # tensor, begin, end
    length: int

    @staticmethod
    def of(sizes: list[int]) -> Segments:
        """Tensors of these sizes, each at an aligned start."""
        padded = [aligned(size) for size in sizes]
        starts = np.concatenate([[0], np.cumsum(padded)]).astype(np.int64)
        chunks = [(i, starts[i] + a, starts[i] + min(a + CHUNK, size)) for i, size in enumerate(sizes) for a in range(0, size, CHUNK)]
        return Segments(starts[:-1], np.array(sizes, np.int64), np.array(chunks, np.int64).reshape(-1, 3), int(starts[-1]))

    def sums(self, chunk_CX: np.ndarray) -> np.ndarray:
        """Per tensor what was summed per chunk, in one fixed order: S x X, float64."""
        found_SX = np.zeros((len(self.sizes_S), chunk_CX.shape[1]))
        np.add.at(found_SX, self.chunks_C3[:, 0], chunk_CX)
        return found_SX


@lru_cache(maxsize=1024)
def alone(size: int) -> Segments:
    """One tensor; a probe of all parameters asks for each of them twice."""
    return Segments.of([size])


@dataclass(frozen=True)
class Noise:
    """Which noise: a key for each tensor, and its kind."""

    keys_S2: np.ndarray  # uint32
    kind: noise.Kind

    def pair(self, s: int) -> tuple[int, int]:
        return int(self.keys_S2[s, 0]), int(self.keys_S2[s, 1])


def moments(segments: Segments, of: Noise, p_N: Tensor | None, v_N: Tensor | None, like: Tensor) -> np.ndarray:
    """n.n, n.v and n.p of every tensor, S x 3, float64; `like` tells the device."""
    if of.kind == "rademacher" and p_N is None and v_N is None:  # signs need not be made to be counted
        return np.stack([segments.sizes_S.astype(float), *np.zeros((2, len(segments.sizes_S)))], axis=1)
    if like.device.type == "cpu":
        noise.match_threads()
        out_CX = np.zeros((len(segments.chunks_C3), 3))
        _moments(out_CX, segments.chunks_C3, segments.starts_S, of.keys_S2, of.kind == "rademacher", noise.table(), _flat(p_N), _flat(v_N))
        return segments.sums(out_CX)
    rows = [_moments_torch(segments, s, of, p_N, v_N, like) for s in range(len(segments.sizes_S))]
    return np.array(torch.stack(rows).cpu().numpy())


def combine(out_N: Tensor, base_N: Tensor, segments: Segments, of: Noise, vectors: tuple[Tensor | None, Tensor | None], scalars_S3: np.ndarray) -> None:
    """out = base + alpha p + c n - s v, with the scalars (alpha, c, s) of every tensor; `out` may be `base`."""
    p_N, v_N = vectors
    if out_N.device.type == "cpu":
        noise.match_threads()
        scalars = scalars_S3.astype(np.float32)
        _combine(
            *(out_N.numpy(), base_N.numpy(), segments.chunks_C3, segments.starts_S, of.keys_S2),
            *(of.kind == "rademacher", noise.table(), _flat(p_N), _flat(v_N), scalars),
        )
        return
    for s, (start, size) in enumerate(zip(segments.starts_S, segments.sizes_S, strict=True)):
        alpha, c, k = (float(x) for x in scalars_S3[s].astype(np.float32))
        part = slice(int(start), int(start + size))
        made = base_N[part] + c * noise.in_torch(int(size), of.pair(s), of.kind, 0, out_N.device)
        for scale, vector in ((alpha, p_N), (-k, v_N)):
            if vector is not None:
                made = made.add_(vector[part], alpha=scale)
        out_N[part] = made


def _moments_torch(segments: Segments, s: int, of: Noise, p_N: Tensor | None, v_N: Tensor | None, like: Tensor) -> Tensor:
    start, size = int(segments.starts_S[s]), int(segments.sizes_S[s])
    n = noise.in_torch(size, of.pair(s), of.kind, 0, like.device).double()
    others = (x[start : start + size].double() if x is not None else torch.zeros_like(n) for x in (v_N, p_N))
    return torch.stack([n @ n, *(n @ other for other in others)])


def _flat(vector: Tensor | None) -> Any:
    return np.empty(0, np.float32) if vector is None else vector.numpy()


# --- with numba ------------------------------------------------------------------------------------


@noise.jit
def _add_noise(out: Any, base: Any, n: Any, c: Any) -> None:
    for i in range(len(out)):
        out[i] = base[i] + c * n[i]


@noise.jit
def _add_two(out: Any, base: Any, n: Any, c: Any, x: Any, a: Any) -> None:
    for i in range(len(out)):
        out[i] = base[i] + (a * x[i] + c * n[i])


@noise.jit
def _add_three(out: Any, base: Any, n: Any, c: Any, p: Any, a: Any, v: Any, k: Any) -> None:
    for i in range(len(out)):
        out[i] = base[i] + (a * p[i] + c * n[i] - k * v[i])


@noise.jit
def _add_signs(out: Any, base: Any, first: int, key0: Any, key1: Any, c: Any) -> None:
    """Without a buffer between: made in registers, word by word from word `first` on."""
    whole = len(out) // noise.GROUP
    for w in range(whole):
        lanes.add_signs(out, base, noise.GROUP * w, noise.hash32(np.uint32(first + w), key0, key1), c)
    for i in range(noise.GROUP * whole, len(out)):
        out[i] = base[i] + c * noise.sign(noise.hash32(np.uint32(first + whole), key0, key1), i % noise.GROUP)


@noise.jit(parallel=True)
def _combine(out: Any, base: Any, chunks: Any, starts: Any, keys: Any, signs: bool, quantiles: Any, p: Any, v: Any, scalars: Any) -> None:
    for place in numba.prange(len(chunks)):
        s, begin, end = chunks[place]
        alpha, c, k = scalars[s]
        if signs and not len(p) and not len(v):
            _add_signs(out[begin:end], base[begin:end], (begin - starts[s]) // noise.GROUP, keys[s, 0], keys[s, 1], c)
            continue
        made = np.zeros(noise.BLOCK, np.float32)
        for low in range(begin, end, noise.BLOCK):
            high = min(low + noise.BLOCK, end)
            n = made[: high - low]
            if c != 0:
                noise.block(n, high - low, keys[s, 0], keys[s, 1], low - starts[s], signs, quantiles)
            if len(p) and len(v):
                _add_three(out[low:high], base[low:high], n, c, p[low:high], alpha, v[low:high], k)
            elif len(p):
                _add_two(out[low:high], base[low:high], n, c, p[low:high], alpha)
            elif len(v):
                _add_two(out[low:high], base[low:high], n, c, v[low:high], -k)
            else:
                _add_noise(out[low:high], base[low:high], n, c)


@numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", inline="never")
def _dot(x: Any, y: Any, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@noise.jit(parallel=True)
def _moments(out: Any, chunks: Any, starts: Any, keys: Any, signs: bool, quantiles: Any, p: Any, v: Any) -> None:
    for place in numba.prange(len(chunks)):
        s, begin, end = chunks[place]
        n = np.empty(noise.BLOCK, np.float32)
        for low in range(begin, end, noise.BLOCK):
            count = min(noise.BLOCK, end - low)
            noise.block(n, count, keys[s, 0], keys[s, 1], low - starts[s], signs, quantiles)
            out[place, 0] += count if signs else _dot(n, n, count)
            if len(v):
                out[place, 1] += _dot(n, v[low:], count)
            if len(p):
                out[place, 2] += _dot(n, p[low:], count)
