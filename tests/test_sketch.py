"""The projection against its definition, its statistics against theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from interplay.records import SketchSpec
from interplay.sketch import Sketcher, directions, period, project, signs_N

K = 256


def by_definition(x: np.ndarray, signs: np.ndarray, k: int) -> np.ndarray:
    sums = np.zeros(k)
    np.add.at(sums, np.arange(x.size) % period(k) % k, x.reshape(-1) * signs)
    return sums


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7, 5), (16, 576), (1536, 16), (70_000, 17)])
def test_projection_equals_its_definition(shape: tuple[int, int]) -> None:
    x = drawn(0, *shape)
    signs = signs_N(3, "layers.0.q_proj", "A", shape)
    found = project(x.reshape(1, -1), torch.from_numpy(signs)[None], K)[0].double().numpy()
    exact = x.double().numpy()
    np.testing.assert_allclose(found[:K], by_definition(exact, signs, K), atol=1e-3)
    np.testing.assert_allclose(found[K : 2 * K], by_definition(exact**2, np.ones_like(signs), K), rtol=1e-4)
    assert found[-1] == pytest.approx((exact**4).sum(), rel=1e-4)


def test_signs_are_fair_and_depend_on_seed_module_label_and_shape_alone() -> None:
    size = (256, 257)
    base = signs_N(0, "q", "A", size)
    assert set(np.unique(base)) == {-1, 1}
    assert abs(base.mean()) < 4 / base.size**0.5
    assert np.array_equal(base, signs_N(0, "q", "A", size))
    for other in (signs_N(1, "q", "A", size), signs_N(0, "k", "A", size), signs_N(0, "q", "B", size), signs_N(0, "q", "A", size[::-1])):
        assert abs((base * other).mean()) < 4 / base.size**0.5
    for lag in (1, 2, 63, 64, 65, 256):
        assert abs((base[lag:] * base[:-lag]).mean()) < 4 / base.size**0.5


def test_signs_never_change_between_versions() -> None:
    """Recordings of two versions must stay comparable; the hash is splitmix64 of a blake2b key."""
    assert "".join("+" if s > 0 else "-" for s in signs_N(0, "layers.0.q_proj", "A", (4, 8))) == GOLDEN


GOLDEN = "+--+--+++-++----++--+----++-+-++"


def test_sketches_add_up_and_scale() -> None:
    sketcher = Sketcher(SketchSpec(k=32, seed=1))
    x, y = drawn(0, 2, 16, 24), drawn(1, 2, 16, 24)
    both, of_x, of_y = (sketcher(("a", "b"), "A", v)[:, :32] for v in (x + 3 * y, x, y))
    apart = of_x + 3 * of_y
    torch.testing.assert_close(both, apart, rtol=1e-4, atol=1e-4)


def test_a_layer_is_the_sum_of_its_modules() -> None:
    """The cosine of summed module sketches estimates the cosine of the concatenated modules."""
    sketcher = Sketcher(SketchSpec(k=K))
    shapes = {"q": (48, 64), "k": (16, 64), "down": (64, 96)}
    errors = []
    for trial in range(60):
        x = {name: drawn(2 * trial, 1, *shape) * (1 + 2 * (name == "k")) for name, shape in shapes.items()}
        y = {name: 0.6 * x[name] + 0.8 * drawn(2 * trial + 1, 1, *shape) for name, shape in shapes.items()}
        layer_x, layer_y = (sum(sketcher((name,), "weight", v[name])[0, :K] for name in shapes) for v in (x, y))
        flat_x, flat_y = (torch.cat([v[name].reshape(-1) for name in shapes]) for v in (x, y))
        errors.append(float(torch.cosine_similarity(layer_x, layer_y, 0) - torch.cosine_similarity(flat_x, flat_y, 0)))
    assert abs(np.mean(errors)) < 3 * np.std(errors) / len(errors) ** 0.5 + 0.005
    assert np.std(errors) < 2 / K**0.5


def gaussian(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.standard_normal((m, n))


def heavy_tailed(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.standard_t(3, (m, n))


def low_rank(rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    return rng.standard_normal((m, 4)) @ rng.standard_normal((4, n)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("true", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", [gaussian, heavy_tailed, low_rank])
def test_sketched_cosines_are_unbiased_with_the_stated_error(kind: object, true: float) -> None:
    """RMSE within 10 % of (1 - c^2) / sqrt(k_eff), and no bias beyond its own error, over 300 pairs."""
    pairs, m, n = 300, 128, 512
    rng = np.random.default_rng(round(100 * true) + 7)
    errors, expected = [], []
    for pair in range(pairs):
        x = kind(rng, m, n)  # type: ignore[operator]
        z = kind(rng, m, n)  # type: ignore[operator]
        z -= x * (x * z).sum() / (x * x).sum()
        y = true * x + (1 - true**2) ** 0.5 * z * np.linalg.norm(x) / np.linalg.norm(z)
        stack = torch.from_numpy(np.stack([x, y]).astype(np.float32))
        signs = torch.from_numpy(signs_N(pair, "module", "weight", (m, n)))
        found = project(stack.reshape(2, -1), signs[None], K)
        errors.append(float(torch.cosine_similarity(found[0, :K], found[1, :K], 0)) - true)
        expected.append((1 - true**2) * directions(found.double().numpy()).standard_error_M.mean())
    rmse, stated = float(np.sqrt(np.mean(np.square(errors)))), float(np.sqrt(np.mean(np.square(expected))))
    assert rmse == pytest.approx(stated, rel=0.10)
    assert abs(np.mean(errors)) < 3 * rmse / pairs**0.5 + stated**2


@pytest.mark.parametrize("shape", [(576, 1536), (1536, 16), (16, 1536), (512, 512)])
@pytest.mark.parametrize("axis", [0, 1])
def test_energy_of_few_rows_or_columns_does_not_collapse_into_few_sums(shape: tuple[int, int], axis: int) -> None:
    x = torch.zeros(shape)
    x.select(axis, 3)[:] = drawn(0, shape[1 - axis])
    found = project(x.reshape(1, -1), torch.ones(1, x.numel(), dtype=torch.int8), K)
    filled = int((found[0, K : 2 * K] > 0).sum())
    assert filled >= 0.6 * min(K, shape[1 - axis])


def sketched(elements: list[float], k: int) -> np.ndarray:
    """Of one vector whose signs are all +1."""
    x = torch.tensor([elements])
    return project(x, torch.ones_like(x, dtype=torch.int8), k).double().numpy()


def test_standard_error_counts_the_sums_that_share_the_energy() -> None:
    k = 4
    wide = [1.0] * 17 * 400
    assert directions(sketched(wide, k)).standard_error_M[0] == pytest.approx(0.5, rel=0.02)
    one_sum = [1.0 if e % period(k) % k == 0 else 0.0 for e in range(17 * 400)]
    assert directions(sketched(one_sum, k)).standard_error_M[0] == pytest.approx(1.0, rel=0.02)
    one_element = [9.0] + [0.0] * 100  # meets no other element in its sum, so its sketched cosines are exact
    assert directions(sketched(one_element, k)).standard_error_M[0] == pytest.approx(0.5)


def test_scale_keeps_tiny_updates_and_zero_is_undefined() -> None:
    values = [1e-9, -5e-10, 3e-10]
    tiny = directions(sketched(values, 3))
    np.testing.assert_allclose(tiny.sketch_MK[0].astype(float) * tiny.scale_M[0], values, rtol=1e-3)
    nothing = directions(sketched([0.0, 0.0, 0.0], 3))
    assert nothing.scale_M[0] == 0
    assert np.isnan(nothing.standard_error_M[0])
    assert not nothing.sketch_MK.any()


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    Sketcher(SketchSpec())(("a",), "A", drawn(0, 1, 16, 24))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[index]
