"""Noise by three routes, numba, torch and numpy as the docstring has it; and whether it is as random as it claims to be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from interplay import noise

DRAWS = 2**20
SIGMAS = 4.0
ODD = 100_003  # many blocks, and an end inside a word
any_kind = pytest.mark.parametrize("kind", noise.KINDS)

#: sha256 of the first 10,007 elements of `key(7, "golden", 3)`, little-endian float32
GOLDEN = {
    "gaussian": "50a115f968aa584a494b56700a5285668a5fd73024eaa495c753429ecfd1b7f5",
    "rademacher": "b352ac547954ff508aeffacf44d3a0076980bed9a647c1a629cb18496d246e38",
}


def made(count: int, keys: tuple[int, int], kind: noise.Kind = "gaussian", start: int = 0) -> np.ndarray:
    return np.asarray(noise.fill(torch.empty(count), keys, kind, start).numpy())


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()


# --- the same elements by other routes -------------------------------------------------------------


def mix(h: np.ndarray, shifts: tuple[int, int, int], factors: tuple[int, int]) -> np.ndarray:
    """One round of multiply and xor-shift on 32-bit words, which wrap around by themselves."""
    for shift, factor in zip(shifts, (*factors, None), strict=True):
        h = h ^ (h >> np.uint32(shift))
        h = h if factor is None else h * np.uint32(factor)
    return h


def words(first: int, count: int, keys: tuple[int, int]) -> np.ndarray:
    """Two rounds, one half of the key before each."""
    number = (np.arange(first, first + count) % 2**32).astype(np.uint32)
    one = mix(number ^ np.uint32(keys[0]), (16, 15, 15), (0x21F0AAAD, 0x735A2D97))
    return mix(one + np.uint32(keys[1]), (16, 15, 16), (0x7FEB352D, 0x846CA68B))


def in_numpy(groups: int, keys: tuple[int, int], kind: str, first: int = 0) -> np.ndarray:
    """`groups` times 32 elements from group `first` on."""
    if kind == "rademacher":
        bits = (words(first, groups, keys)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
        return np.where(bits.astype(bool), -1.0, 1.0).astype(np.float32).ravel()
    halves = words(16 * first, 16 * groups, keys).reshape(groups, 16)
    index = np.concatenate([halves & 0xFFFF, halves >> 16], axis=1).ravel()
    quantiles = norm.ppf((np.arange(65_536) + 0.5) / 65_536)
    return np.asarray((quantiles / np.sqrt((quantiles**2).mean())).astype(np.float32)[index])


@any_kind
@pytest.mark.parametrize("keys", [(0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF), noise.key(3, "a tensor")], ids=["zeros", "ones", "named"])
def test_numpy_by_the_docstring_makes_the_same_elements(kind: noise.Kind, keys: tuple[int, int]) -> None:
    expected = in_numpy(-(-ODD // 32), keys, kind)[:ODD]
    np.testing.assert_allclose(made(ODD, keys, kind), expected, rtol=3e-7, atol=0)  # scipy's two quantile functions differ in a last bit


@any_kind
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 2047, 2048, 2049, 65_536, ODD])
def test_numba_and_torch_make_the_same_bits(kind: noise.Kind, count: int) -> None:
    for keys in (noise.key(0, "w"), noise.key(1, "w", 9), (0xFFFF_FFFF, 0x8000_0000)):
        for start in (0, 32, 2048 * 7 + 64):
            ours = made(count, keys, kind, start)
            theirs = noise.in_torch(count, keys, kind, start, "cpu").numpy()
            assert ours.dtype == theirs.dtype == np.float32
            assert ours.tobytes() == theirs.tobytes()


@any_kind
def test_far_out_elements_agree_too(kind: noise.Kind) -> None:
    """Beyond 2^32 elements, where a 32-bit counter of elements would have turned over."""
    keys, start = noise.key(5, "a very large tensor"), 2**32 + 64
    far = made(320, keys, kind, start)
    assert far.tobytes() == noise.in_torch(320, keys, kind, start, "cpu").numpy().tobytes()
    np.testing.assert_allclose(far, in_numpy(10, keys, kind, start // 32), rtol=3e-7)
    assert not np.array_equal(far, made(320, keys, kind, 64))


@any_kind
def test_every_slice_is_that_of_the_whole(kind: noise.Kind) -> None:
    keys, random = noise.key(2, "w", 4), np.random.default_rng(0)
    whole = made(ODD, keys, kind)
    for _ in range(60):
        start = 32 * int(random.integers(0, ODD // 32))
        count = int(random.integers(1, ODD - start + 1))
        assert made(count, keys, kind, start).tobytes() == whole[start : start + count].tobytes()


@any_kind
def test_the_elements_never_change(kind: noise.Kind) -> None:
    assert digest(made(10_007, noise.key(7, "golden", 3), kind)) == GOLDEN[kind]


def test_another_process_makes_the_same_bytes() -> None:
    """With its own hash seed and number of threads."""
    code = (
        "import hashlib, torch; from interplay import noise\n"
        "for kind in noise.KINDS: print(hashlib.sha256(noise.fill(torch.empty(300_001), noise.key(11, 'x.weight', 2), kind, 64).numpy().tobytes()).hexdigest())"
    )
    environment: dict[str, str] = {"PYTHONHASHSEED": "77", "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}

    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout.split()
    assert found == [digest(made(300_001, noise.key(11, "x.weight", 2), kind, 64)) for kind in noise.KINDS]


# --- keys and what is refused ----------------------------------------------------------------------


def test_keys_differ_by_seed_name_and_draw() -> None:
    names = ("w", "w ", "layers.1.q", "layers.10.q", "layers.1.q/1", "")
    places = [(seed, name, draw) for seed in (0, 1, 11, 2**40) for name in names for draw in (0, 1, 11, 111)]
    keys = [noise.key(*place) for place in places]
    assert len(set(keys)) == len(places)
    assert len({half for pair in keys for half in pair}) == 2 * len(places)
    assert all(0 <= half < 2**32 for pair in keys for half in pair)
    assert noise.key(1, "w") == noise.key(1, "w", 0)
    assert len({digest(made(64, key)) for key in keys}) == len(places)


@pytest.mark.parametrize(
    ("out", "start", "message"),
    [
        (torch.empty(64, dtype=torch.float64), 0, r"dtype torch.float64; it must be a contiguous float32 vector"),
        (torch.empty(64, dtype=torch.bfloat16), 0, "bfloat16"),
        (torch.empty(8, 8), 0, r"out has shape \(8, 8\)"),
        (torch.empty(128)[::2], 0, "contiguous"),
        (torch.empty(64), 16, "start is 16; it must be a multiple of 32"),
        (torch.empty(64), 1, "start is 1; it must be a multiple of 32"),
    ],
)
def test_what_is_out_of_the_contract_is_refused(out: torch.Tensor, start: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise.fill(out, (1, 2), "gaussian", start)


# --- is it random? ---------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def standard(seed: int, name: str, draw: int, kind: noise.Kind = "gaussian") -> Any:
    return made(DRAWS, noise.key(seed, name, draw), kind)


STREAMS = [
    *((0, f"model.layers.{layer}.self_attn.{side}_proj.weight", 0) for layer in (0, 1, 10) for side in "qk"),
    *((seed, "model.layers.0.self_attn.q_proj.weight", 0) for seed in (1, 2, 3, 256)),
    *((0, "model.layers.0.self_attn.q_proj.weight", draw) for draw in (1, 2, 3, 65_536)),
    *((0, name, 0) for name in ("a", "b", "A", "")),
]


def test_the_table_is_a_standard_gaussian() -> None:
    table = noise.table().astype(np.float64)
    assert len(table) == 65_536
    assert table.mean() == 0.0
    assert table.var() == pytest.approx(1, abs=1e-7)
    assert (table**4).mean() == pytest.approx(3, abs=0.01)  # what lies beyond 4.3 is missing
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) > 0).all()
    np.testing.assert_allclose(table[[655, 32_768 + 22_369]], norm.ppf([0.0100021, 0.8413391]), rtol=1e-3)


@any_kind
@pytest.mark.parametrize("stream", STREAMS[::4])
def test_moments_are_those_of_the_distribution(stream: tuple[int, str, int], kind: noise.Kind) -> None:
    x = standard(*stream, kind).astype(np.float64)
    error = DRAWS**-0.5
    assert abs(x.mean()) < SIGMAS * error
    if kind == "rademacher":
        assert set(np.unique(x)) == {-1.0, 1.0}
        return
    assert abs((x**2).mean() - 1) < SIGMAS * 2**0.5 * error
    assert abs((x**3).mean()) < SIGMAS * 15**0.5 * error
    assert abs((x**4).mean() - (noise.table().astype(np.float64) ** 4).mean()) < SIGMAS * 96**0.5 * error
    assert kstest(x[:100_000], "norm").pvalue > 1e-4


def test_no_two_tensors_seeds_or_draws_are_correlated() -> None:
    """Neither the elements nor their magnitudes, over every pair of streams."""
    x = np.stack([standard(*stream) for stream in STREAMS]).astype(np.float64)
    for values in (x, x**2 - 1):
        values = values / np.sqrt((values**2).sum(1, keepdims=True))
        products = np.abs(values @ values.T)[np.triu_indices(len(STREAMS), 1)]
        assert len(products) == len(STREAMS) * (len(STREAMS) - 1) / 2 == 153
        assert products.max() < SIGMAS * DRAWS**-0.5


@any_kind
def test_no_element_is_correlated_with_those_before_it(kind: noise.Kind) -> None:
    """Lag 16 compares the two halves of one word, lag 32 neighbouring words, 2048 neighbouring blocks."""
    x = standard(*STREAMS[0], kind).astype(np.float64)
    for lag in (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 512, 2048, 65_536):
        assert abs(x[lag:] @ x[:-lag]) < SIGMAS * (DRAWS - lag) ** 0.5, lag
        if kind == "gaussian":
            square = x**2 - 1
            assert abs(square[lag:] @ square[:-lag]) < SIGMAS * 2 * (DRAWS - lag) ** 0.5, lag


@any_kind
@pytest.mark.parametrize("stream", STREAMS[::5])
def test_every_place_in_a_word_has_as_many_signs_of_either_kind(stream: tuple[int, str, int], kind: noise.Kind) -> None:
    signs = np.sign(standard(*stream, kind)).reshape(-1, 32)
    assert np.abs(signs.mean(0)).max() < SIGMAS * len(signs) ** -0.5
    together = signs.T @ signs / len(signs)
    assert np.abs(together - np.eye(32)).max() < 4.5 * len(signs) ** -0.5  # the largest of 496
