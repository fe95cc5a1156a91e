"""Every direction against its formula in float64, with the noise of `noise.fill` and nothing else of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.errors import TypingError
from torch import Tensor

from interplay import kernels, noise
from interplay.directions import MODES, Direction, Guides, Space, along, frame, guided, isotropic
from interplay.errors import ConfigError

SHAPES = {"a": (40, 70), "b": (7,), "c": (3, 11, 5), "d": (1000, 70)}  # less than a word, no multiple of one, more than a chunk
PROJECTED = {"ref", "orth", "orth_full", "wrong_v"}
WITH_PREVIOUS = {"ref", "momentum", "orth_full", "wrong_v"}
MATCHINGS: tuple[Any, ...] = ("tensor", "global", "none")
every_mode = pytest.mark.parametrize("mode", ["ref", "iso", "momentum", "orth", "orth_full", "wrong_v"])

Vectors = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def space_of(shapes: Shapes, seed: int = 0) -> Space:
    g = torch.Generator().manual_seed(seed)
    return Space(list(shapes), [torch.nn.Parameter(0.05 * torch.randn(shape, generator=g)) for shape in shapes.values()])


def guides_of(shapes: Shapes, seed: int = 1, *, still: tuple[str, ...] = (), unrewarded: tuple[str, ...] = ()) -> Guides:
    """Updates of different lengths, which share a direction in part."""
    g = torch.Generator().manual_seed(seed)
    previous = {name: 1e-3 * (1 + i) * torch.randn(shape, generator=g) for i, (name, shape) in enumerate(shapes.items())}
    reward = {name: 5e-3 * torch.randn(shape, generator=g) + 3 * previous[name] for name, shape in shapes.items()}
    return Guides({n: t * (n not in still) for n, t in previous.items()}, {n: t * (n not in unrewarded) for n, t in reward.items()})


def numbers(values: Any) -> Vectors:
    return {name: tensor.detach().double().numpy().ravel() for name, tensor in values.items()}


def pieces(space: Space, flat_N: Tensor) -> Vectors:
    return numbers(dict(zip(space.names, space.views(flat_N), strict=True)))


def drawn(space: Space, seed: int, draw: int, kind: noise.Kind) -> Vectors:
    sizes = {name: parameter.numel() for name, parameter in zip(space.names, space.parameters, strict=True)}
    return {name: noise.fill(torch.empty(size), noise.key(seed, name, draw), kind).double().numpy() for name, size in sizes.items()}


def by_hand(n: Vectors, p: Vectors, v: Vectors, mode: str, alpha: float, matching: str) -> Vectors:
    """z tensor by tensor, as the docstring has it; `v` is of any length, and zero where the reward model stood still."""
    unit = {name: x / np.linalg.norm(x) if np.linalg.norm(x) else x for name, x in v.items()} if mode in PROJECTED else {}
    u = {name: x - unit[name] * (unit[name] @ x) if name in unit else x for name, x in n.items()}
    if mode == "orth_full":
        p = {name: x - unit[name] * (unit[name] @ x) if name in unit else x for name, x in p.items()}
    lengths = {name: np.linalg.norm(x) for name, x in p.items()}
    usual = np.median([length for length in lengths.values() if length])
    wanted = {name: length or usual for name, length in lengths.items()}
    weight = {name: alpha if mode in WITH_PREVIOUS and length else 0.0 for name, length in lengths.items()}
    together = np.sqrt(sum(x**2 for x in wanted.values()) / sum(x @ x for x in u.values()))
    scale = {name: {"tensor": wanted[name] / np.linalg.norm(u[name]), "global": together, "none": 1.0}[matching] for name in u}
    return {name: weight[name] * p[name] + np.sqrt(1 - weight[name] ** 2) * scale[name] * u[name] for name in u}


def assert_is(z: Direction, expected: Vectors) -> None:
    found = pieces(z.space, z.dense())
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=2e-5, atol=2e-6 * np.abs(x).max(), err_msg=name)


def joined(values: Vectors) -> np.ndarray:
    return np.concatenate(list(values.values()))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def reward_used(space: Space, guides: Guides, mode: str, seed: int) -> Vectors:
    """The reward's update, or the wrong one: its numbers in another order."""
    right = numbers(guides.reward)
    if mode != "wrong_v":
        return right
    made = frame(space, guides, mode, seed)
    assert made.v_N is not None
    wrong = {name: x * np.linalg.norm(right[name]) for name, x in pieces(space, made.v_N).items()}
    for name, x in wrong.items():
        np.testing.assert_allclose(np.sort(x), np.sort(right[name]), rtol=1e-5, atol=1e-9)
        assert not x.any() or abs(cosine(x, right[name])) < 0.9
    return wrong


# --- the formula -----------------------------------------------------------------------------------


def test_the_modes_are_those_tested_here() -> None:
    assert set(MODES) == PROJECTED | WITH_PREVIOUS | {"iso"}


@every_mode
@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("kind", noise.KINDS)
def test_z_is_that_of_the_formula(mode: str, matching: Any, kind: noise.Kind) -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES)
    made, v = frame(space, guides, mode, 5), reward_used(space, guides, mode, 5)
    for alpha, draw in ((0.0, 0), (0.6, 1), (1.0, 2)):
        z = guided(space, made, mode, alpha, 5, draw, matching=matching, kind=kind)
        expected = by_hand(drawn(space, 5, draw, kind), numbers(guides.previous), v, mode, alpha, matching)
        assert_is(z, expected)
        assert z.norm == pytest.approx(np.linalg.norm(joined(expected)), rel=1e-5)


@every_mode
def test_what_is_described_is_what_the_dense_vector_has(mode: str) -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES)
    made = frame(space, guides, mode, 5)
    for alpha in (0.0, 0.3, 0.999):
        z = guided(space, made, mode, alpha, 5, 3, matching="global")
        dense = joined(pieces(space, z.dense()))
        assert z.norm == pytest.approx(np.linalg.norm(dense), rel=1e-5)
        assert made.p_N is not None
        assert z.cos_previous == pytest.approx(cosine(dense, joined(pieces(space, made.p_N))), abs=1e-6)
        assert z.cos_reward == pytest.approx(cosine(dense, joined(numbers(guides.reward))), abs=1e-6), "the true reward update, also where a wrong one is used"


@pytest.mark.parametrize("kind", noise.KINDS)
def test_isotropic_is_the_noise_itself_and_along_is_the_vector(kind: noise.Kind) -> None:
    space = space_of(SHAPES)
    z, expected = isotropic(space, 3, 8, kind), drawn(space, 3, 8, kind)
    assert all(np.array_equal(x, expected[name]) for name, x in pieces(space, z.dense()).items())
    assert z.norm == pytest.approx(np.linalg.norm(joined(expected)), rel=1e-6)
    p_N = space.flat(guides_of(SHAPES).previous)
    straight = along(space, p_N)
    assert torch.equal(straight.dense(), p_N)
    assert straight.norm == pytest.approx(float(p_N.double().norm()), rel=1e-6)


def test_adding_scales_z_in_place_or_elsewhere_and_tensor_by_tensor() -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES)
    z = guided(space, frame(space, guides, "ref", 5), "ref", 0.5, 5, 0)
    base_N, dense = torch.randn(space.segments.length), z.dense()
    out_N, own_N = torch.full_like(base_N, 7.0), base_N.clone()
    z.add(-30.0, base_N, out_N)
    z.add(-30.0, own_N, own_N)
    for name, x in pieces(space, out_N).items():
        np.testing.assert_allclose(x, pieces(space, base_N)[name] - 30 * pieces(space, dense)[name], rtol=1e-6, atol=1e-6)
        assert np.array_equal(x, pieces(space, own_N)[name])
    z.add(2.5, space.theta_N, out_N)
    for s, (name, view) in enumerate(zip(space.names, space.views(out_N), strict=True)):
        alone = torch.empty(view.numel())
        z.add_tensor(s, 2.5, alone)
        np.testing.assert_allclose(alone, view.flatten(), rtol=1e-6, atol=1e-8, err_msg=name)


# --- what follows from it (ZOPrO's properties) -----------------------------------------------------


@pytest.mark.parametrize("odd", [torch.zeros(200)[::2], torch.zeros(100, dtype=torch.float64)], ids=["strided", "float64"])
def test_signs_go_into_contiguous_float32_vectors_only(odd: Tensor) -> None:
    of = isotropic(space_of({"it": (100,)}), 0, 0, "rademacher").noise
    with pytest.raises(TypingError, match="contiguous float32 vectors"):
        kernels.combine(odd, odd, kernels.Segments.of([100]), of, (None, None), np.ones((1, 3)))
    assert not odd.any()


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 2047, 2049, kernels.CHUNK - 1, kernels.CHUNK + 32, kernels.CHUNK + 65])
def test_blind_noise_of_any_length_is_added_where_it_belongs_and_nowhere_else(kind: noise.Kind, size: int) -> None:
    space = space_of({"before": (3,), "it": (size,), "after": (5,)})
    z, expected = isotropic(space, 9, 2, kind), drawn(space, 9, 2, kind)
    out_N = torch.full_like(space.theta_N, 7.0)
    z.add(-0.3, space.theta_N, out_N)
    for name, base in pieces(space, space.theta_N).items():
        wanted = base.astype(np.float64) + np.float64(np.float32(-0.3)) * expected[name]
        np.testing.assert_allclose(pieces(space, out_N)[name], wanted, rtol=1e-6, atol=2e-7)
    written = sum(len(x) for x in pieces(space, out_N).values())
    assert int((out_N == 7.0).sum()) == len(out_N) - written, "the gaps between tensors stay as they are"


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.999])
def test_in_many_dimensions_z_is_as_long_as_p_and_at_the_angle_of_alpha(alpha: float) -> None:
    shapes = {"w": (500, 400)}
    space, guides = space_of(shapes), guides_of(shapes)
    z = guided(space, frame(space, guides, "ref", 0), "ref", alpha, 0, 0)
    p, v, x = numbers(guides.previous)["w"], numbers(guides.reward)["w"], pieces(space, z.dense())["w"]
    assert np.linalg.norm(x) / np.linalg.norm(p) == pytest.approx(1, abs=5e-3)
    assert cosine(x, p) == pytest.approx(alpha, abs=5e-3)
    unit = v / np.linalg.norm(v)
    assert x @ unit == pytest.approx(alpha * (p @ unit), abs=1e-6 * float(np.linalg.norm(p))), "only the noise is off the reward's update"
    assert abs(p @ unit) > 0.1 * np.linalg.norm(p)


@every_mode
def test_on_average_z_is_alpha_p(mode: str) -> None:
    """The mean of 1,500 draws misses alpha p by what independent noise of length sqrt(1 - alpha^2) |p| leaves, and no more."""
    shapes = {"w": (15, 20), "x": (100,)}
    space, guides = space_of(shapes), guides_of(shapes)
    made, alpha, count = frame(space, guides, mode, 0), 0.6, 1500
    total_N = torch.zeros(space.segments.length)
    for draw in range(count):
        guided(space, made, mode, alpha, 0, draw).add(1.0, total_N, total_N)
    assert made.p_N is not None
    used = alpha if mode in WITH_PREVIOUS else 0.0
    for name, p in pieces(space, made.p_N).items():
        left = pieces(space, total_N / count)[name] - used * p
        assert count * (left @ left) / ((1 - used**2) * (p @ p)) == pytest.approx(1, abs=6 * (2 / len(p)) ** 0.5)


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(2, 300), min_size=1, max_size=5),
    alpha=st.floats(0, 1),
    mode=st.sampled_from(sorted(MODES)),
    matching=st.sampled_from(["tensor", "global", "none"]),
    seed=st.integers(0, 2**40),
)
def test_any_shapes_alpha_and_seed_follow_the_formula(sizes: list[int], alpha: float, mode: str, matching: Any, seed: int) -> None:
    shapes = {f"t{i}": (size,) for i, size in enumerate(sizes)}
    space, guides = space_of(shapes), guides_of(shapes, seed % 1000)
    made = frame(space, guides, mode, seed)
    v = pieces(space, made.v_N) if made.v_N is not None else {}
    z = guided(space, made, mode, alpha, seed, 1, matching=matching)
    expected = by_hand(drawn(space, seed, 1, "gaussian"), numbers(guides.previous), v, mode, alpha, matching)
    found, longest = pieces(space, z.dense()), max(float(np.linalg.norm(x)) for x in expected.values())
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-3, atol=1e-4 * longest)


# --- what stood still ------------------------------------------------------------------------------


@every_mode
def test_a_tensor_whose_reward_did_not_move_is_not_projected(mode: str) -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES, unrewarded=("a", "c"))
    z = guided(space, frame(space, guides, mode, 2), mode, 0.5, 2, 0)
    assert_is(z, by_hand(drawn(space, 2, 0, "gaussian"), numbers(guides.previous), reward_used(space, guides, mode, 2), mode, 0.5, "tensor"))
    assert torch.isfinite(z.dense()).all()


@every_mode
def test_a_tensor_that_did_not_move_gets_noise_as_long_as_the_median_of_the_others(mode: str) -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES, still=("b",))
    z = guided(space, frame(space, guides, mode, 2), mode, 0.5, 2, 0)
    assert_is(z, by_hand(drawn(space, 2, 0, "gaussian"), numbers(guides.previous), reward_used(space, guides, mode, 2), mode, 0.5, "tensor"))
    if mode != "orth_full":
        lengths = [float(tensor.norm()) for name, tensor in guides.previous.items() if name != "b"]
        assert np.linalg.norm(pieces(space, z.dense())["b"]) == pytest.approx(np.median(lengths), rel=1e-5)


@every_mode
def test_without_any_reward_update_the_noise_is_whole(mode: str) -> None:
    space, guides = space_of(SHAPES), guides_of(SHAPES)
    z = guided(space, frame(space, Guides(guides.previous, {}), mode, 2), mode, 0.5, 2, 0)
    plain = "momentum" if mode in WITH_PREVIOUS else "iso"
    assert_is(z, by_hand(drawn(space, 2, 0, "gaussian"), numbers(guides.previous), {}, plain, 0.5, "tensor"))
    assert z.cos_reward is None


def test_a_tensor_of_one_number_has_no_room_off_the_reward() -> None:
    """All of its noise lies along the reward's update: what is left is alpha p, not rounding blown up to any size."""
    shapes: Shapes = {"w": (50,), "scale": (1,)}
    space, guides = space_of(shapes), guides_of(shapes)
    made = frame(space, guides, "ref", 0)
    for draw in range(8):
        found = pieces(space, guided(space, made, "ref", 0.5, 0, draw).dense())["scale"]
        np.testing.assert_allclose(found, 0.5 * numbers(guides.previous)["scale"], atol=float(guides.previous["scale"].abs().max()))


# --- one flat buffer -------------------------------------------------------------------------------


def test_a_space_keeps_values_and_shapes_in_aligned_views_of_one_buffer() -> None:
    g = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in SHAPES.values()]
    before = [parameter.detach().clone() for parameter in parameters]
    space = Space(list(SHAPES), parameters)
    for parameter, value in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.shape == value.shape
        assert parameter.data_ptr() % 64 == 0
        assert parameter.requires_grad
        assert parameter.untyped_storage().data_ptr() == space.theta_N.untyped_storage().data_ptr()
    assert space.count == sum(value.numel() for value in before)
    space.theta_N.mul_(2)
    assert all(torch.equal(parameter, 2 * value) for parameter, value in zip(parameters, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_that_are_not_float32_are_refused(dtype: torch.dtype) -> None:
    short = str(dtype).removeprefix("torch.")
    with pytest.raises(ConfigError, match=rf"--dtype gives {short} weights to train \(b\).*use --dtype float32 or --tune lora") as refused:
        Space(["a", "b"], [torch.zeros(3), torch.zeros(3, dtype=dtype)])
    assert "\n" not in str(refused.value)


def test_tensors_that_were_pointed_elsewhere_are_taken_back_with_their_values() -> None:
    space = space_of(SHAPES)
    moved = torch.full(SHAPES["a"], 3.0)
    space.parameters[0].data = moved
    space.parameters[1].data.fill_(4.0)
    space.hold()
    assert space.parameters[0].data_ptr() == space.theta_N.data_ptr() != moved.data_ptr()
    assert torch.equal(space.views(space.theta_N)[0], moved)
    assert torch.equal(space.parameters[1], torch.full(SHAPES["b"], 4.0))


# --- other devices ---------------------------------------------------------------------------------


class Elsewhere:
    """A tensor that says it lies on another device."""

    device = SimpleNamespace(type="elsewhere")

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __getitem__(self, part: Any) -> Any:
        return self.held[part]

    def __setitem__(self, part: Any, value: Tensor) -> None:
        self.held[part] = value


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.in_torch
    monkeypatch.setattr(noise, "in_torch", lambda count, keys, kind, start, device: real(count, keys, kind, start, "cpu"))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("present", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_the_routes_of_cpu_and_other_devices_agree(kind: noise.Kind, present: tuple[bool, bool]) -> None:
    space, g = space_of(SHAPES), torch.Generator().manual_seed(4)
    of = isotropic(space, 6, 1, kind).noise
    p_N, v_N = (torch.randn(space.segments.length, generator=g) if here else None for here in present)
    there: Any = Elsewhere(torch.zeros(space.segments.length))
    sums_S3 = kernels.moments(space.segments, of, p_N, v_N, space.theta_N)
    np.testing.assert_allclose(kernels.moments(space.segments, of, p_N, v_N, there), sums_S3, rtol=1e-9, atol=1e-7)
    assert [bool(column.any()) for column in sums_S3.T] == [True, present[1], present[0]]
    scalars_S3 = np.random.default_rng(0).standard_normal((len(SHAPES), 3))
    here_N, base_N = torch.zeros_like(space.theta_N), space.theta_N.clone()
    kernels.combine(here_N, base_N, space.segments, of, (p_N, v_N), scalars_S3)
    kernels.combine(there, base_N, space.segments, of, (p_N, v_N), scalars_S3)
    torch.testing.assert_close(there.held, here_N, rtol=1e-5, atol=2e-6)
