"""Probing and the zeroth-order rules on bowls whose gradient is known; `test_zeroth_runs.py` has language models and whole runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interplay import updates
from interplay.config import RunConfig
from interplay.directions import Guides, Space, frame, guided, isotropic
from interplay.errors import DivergedError
from interplay.objectives.base import Metrics
from interplay.reward_model import trainable
from interplay.updates import Plan
from interplay.updates._zeroth import Prober
from interplay.updates.base import Evaluated
from interplay.updates.zopro import SCHEDULES, weight

probing = pytest.mark.parametrize("name", ["mezo", "zopro", "forward_gradient"])


# --- bowls -----------------------------------------------------------------------------------------


class Bowl:
    """1/2 sum_i h_i (w_i - goal_i)^2 in float64: its gradient is known, and a central difference of it is exact."""

    def __init__(self, parameters: Sequence[Tensor], seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.parameters = list(parameters)
        self.h = [0.5 + torch.rand(p.shape, generator=g, dtype=torch.float64) for p in parameters]
        self.goal = [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in parameters]
        self.seen = list[list[Tensor]]()

    def __call__(self) -> tuple[Tensor, Metrics]:
        parts = [(h * (p.double() - to) ** 2).sum() / 2 for h, p, to in zip(self.h, self.parameters, self.goal, strict=True)]
        return torch.stack(parts).sum(), {"mine": 7.0}

    def evaluate(self, copies: int = 1) -> list[Evaluated]:
        assert copies == 1
        self.seen.append([p.detach().clone() for p in self.parameters])
        loss = self()[0].detach()
        return [Evaluated(loss, torch.stack([loss, loss]), {"mine": 7.0})]

    def gradient(self) -> np.ndarray:
        return np.concatenate([(h * (p.detach().double() - to)).numpy().ravel() for h, p, to in zip(self.h, self.parameters, self.goal, strict=True)])

    @property
    def value(self) -> float:
        return float(self()[0].detach())


def start(*sizes: int, seed: int = 5) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(size, generator=g)) for size in sizes]


def stepper(
    name: str, parameters: Sequence[Tensor], *, model: nn.Module | None = None, rate: float = 0.02, planned: int = 10, names: Any = (), **given: Any
) -> Any:
    """A rule at work; `given` are settings of the rule, or of the run where the rule has none of that name."""
    rule = updates.find(name)
    own = {key: value for key, value in given.items() if key in rule.settings.__dataclass_fields__}
    config = RunConfig(**{key: value for key, value in given.items() if key not in own})
    return rule.build(parameters, Plan(rate, planned, config, model, tuple(names)), rule.settings(**own))


def fitting(name: str, **given: Any) -> tuple[Any, Fit]:
    """A rule, with a previous update to go by, and the loss of a linear map; only ZOPrO has an alpha."""
    torch.manual_seed(4)
    module = nn.Linear(6, 5)
    names, parameters = trained(module)
    rule = stepper(name, parameters, model=module, names=names, **{key: x for key, x in given.items() if name == "zopro" or not key.startswith("alpha")})
    rule.guide(Guides({n: 0.3 * torch.randn(p.shape) for n, p in zip(names, parameters, strict=True)}, {}))
    return rule, Fit(module)


def named(parameters: Sequence[Tensor], seed: int = 3, scale: float = 0.1) -> Guides:
    """Updates of parameters that have no names."""
    g = torch.Generator().manual_seed(seed)
    made = [{f"parameter {i}": scale * torch.randn(p.shape, generator=g) for i, p in enumerate(parameters)} for _ in range(2)]
    return Guides(*made)


def flat(space: Space, vector_N: Tensor) -> np.ndarray:
    return np.concatenate([view.detach().double().numpy().ravel() for view in space.views(vector_N)])


def hashed(parameters: Iterable[Tensor]) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parameters)).hexdigest()


class Adapted(nn.Module):
    """A linear map with an adapter as PEFT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 5, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.lora_B["default"](self.lora_A["default"](x))
        return added + self.base(x)  # type: ignore[no-any-return]


class Fit:
    """Mean squared error of a module; rows are repeated for stacked copies."""

    def __init__(self, module: nn.Module, times: float = 1.0) -> None:
        self.module, self.times, g = module, times, torch.Generator().manual_seed(2)
        self.x, self.y = torch.randn(8, 6, generator=g), torch.randn(8, 5, generator=g)

    def __call__(self) -> tuple[Tensor, Metrics]:
        return self.times * ((self.module(self.x) - self.y) ** 2).mean(), {}

    @property
    def value(self) -> float:
        return float(self()[0].detach())

    def evaluate(self, copies: int = 1) -> list[Evaluated]:
        errors = self.times * (self.module(self.x.repeat(copies, 1)) - self.y.repeat(copies, 1)) ** 2
        return [Evaluated(part.mean(), part.mean(-1), {}) for part in errors.chunk(copies)]


def layered() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.LayerNorm(9), nn.Linear(9, 5))


class Nested(nn.Module):
    """A module with a tensor of its own whose children have theirs, as a mixer or an attention with sinks."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inner = nn.Parameter(torch.linspace(0.5, 1.5, 5)), layered()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x) * self.gate
        return found


def trained(module: nn.Module) -> tuple[list[str], list[nn.Parameter]]:
    found = dict(trainable(module))
    return list(found), list(found.values())


# --- probing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["stacked", "copied", "streamed"])
def test_a_thousand_probes_leave_every_byte_as_it_was(route: str) -> None:
    torch.manual_seed(1)
    module = layered() if route == "streamed" else Adapted()
    names, parameters = trained(module)
    space = Space(names, parameters)
    prober = Prober(space, module, together=route == "stacked")
    assert (prober.where is not None, prober.scratch is not None) == (route == "stacked", route == "streamed")
    before, whole, closure, slopes = hashed(parameters), space.theta_N.numpy().tobytes(), Fit(module), set()
    for draw in range(1000):
        slopes |= {probe.slope for probe in prober.probe(closure, [isotropic(space, 0, draw)], [1e-2])}  # type: ignore[arg-type]
    assert len(slopes) > 990
    assert hashed(parameters) == before
    assert space.theta_N.numpy().tobytes() == whole
    assert [n for n, p in trainable(module)] == names
    assert all(p.data_ptr() == view.data_ptr() for p, view in zip(parameters, space.views(space.theta_N), strict=True))


@pytest.mark.parametrize("module", [Adapted, layered, Nested])
def test_probes_by_every_route_find_the_losses_of_weights_that_are_written(module: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    made = module()
    space = Space(*trained(made))
    drawn = [isotropic(space, 0, draw) for draw in range(3)]
    found = Prober(space, made, together=True).probe(Fit(made), drawn, [0.1, 0.2, 0.3])  # type: ignore[arg-type]
    theta_N = space.theta_N.clone()
    for probe, z, reach in zip(found, drawn, (0.1, 0.2, 0.3), strict=True):
        for sign, value in ((1, probe.plus), (-1, probe.minus)):
            space.theta_N.copy_(theta_N + sign * reach * z.dense())
            with torch.no_grad():
                expected = Fit(made).evaluate()[0]
            torch.testing.assert_close((value.loss, value.units_U), (expected.loss, expected.units_U), rtol=1e-5, atol=1e-6)
        space.theta_N.copy_(theta_N)


def test_a_slope_is_the_derivative_along_z() -> None:
    parameters = start(40, 300)
    rule, bowl = stepper("mezo", parameters, directions=3), Bowl(parameters)
    g = bowl.gradient()
    for draw in range(10):
        drawn = rule.directions(draw * 3, 3)
        for probe, z in zip(rule.prober.probe(bowl, drawn, [rule.reach(z) for z in drawn]), drawn, strict=True):
            assert probe.slope == pytest.approx(g @ flat(rule.space, z.dense()), abs=1e-5 * np.linalg.norm(g) * z.norm)
            assert probe.reach * z.norm == pytest.approx(1e-3 * float(rule.space.theta_N.norm()), rel=1e-5)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_averages_over_k_directions_turn_towards_the_gradient(noise: str) -> None:
    """cos^2 of the mean of slope z with the gradient is about K / (n + K), and its expectation the gradient itself."""
    n, total = 200, 2048
    parameters = start(n)
    rule, bowl = stepper("mezo", parameters, noise=noise, epsilon=1e-2), Bowl(parameters)
    g, drawn = bowl.gradient(), rule.directions(0, total)
    probes = rule.prober.probe(bowl, drawn, [rule.reach(z) for z in drawn])
    steps = np.stack([probe.slope * flat(rule.space, probe.direction.dense()) for probe in probes])
    for k in (1, 16, 64):
        means = steps.reshape(-1, k, n).mean(1)
        squares = (means @ g) ** 2 / ((means**2).sum(1) * (g @ g))
        assert squares.mean() == pytest.approx(k / (n + k), rel=0.2)
    error = steps.mean(0) - g
    assert error @ error / (g @ g) == pytest.approx(n / total, rel=0.5)


def test_guided_steps_point_on_average_where_the_formula_says() -> None:
    """E[slope z] = alpha^2 p (p.g) + (1 - alpha^2) |p|^2 / (n - 1) (I - v v^T) g for one tensor."""
    n, alpha, total = 40, 0.3, 2500
    parameters = start(n)
    bowl, guides = Bowl(parameters), named(parameters)
    space = Space(["parameter 0"], parameters)
    made = frame(space, guides, "ref", 0)
    z = np.stack([flat(space, guided(space, made, "ref", alpha, 0, draw).dense()) for draw in range(total)])
    g, p, v = bowl.gradient(), *(side["parameter 0"].double().numpy() for side in (guides.previous, guides.reward))
    v = v / np.linalg.norm(v)
    expected = alpha**2 * p * (p @ g) + (1 - alpha**2) * (p @ p) / (n - 1) * (g - v * (v @ g))
    found = ((z @ g)[:, None] * z).mean(0)
    assert np.linalg.norm(found - expected) < 3 * np.linalg.norm((z @ g)[:, None] * z - found) / total, "three standard errors"
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.95


# --- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_falls_from_its_start_and_is_never_negative(schedule: str) -> None:
    for begin in (0.0, 0.5, 0.999, 1.0):
        values = [weight(begin, schedule, t / 4096, 5.0) for t in range(4097)]
        assert values[0] == begin
        assert values == sorted(values, reverse=True)
        assert all(0 <= value <= begin for value in values)
        end = {"linear": 0.0, "cosine": 0.0, "exp": begin * math.exp(-5), "constant": begin}[schedule]
        assert values[-1] == pytest.approx(end, abs=1e-12)
        half = {"linear": 0.5, "cosine": 0.5, "exp": math.exp(-2.5), "constant": 1.0}[schedule]
        assert values[2048] == pytest.approx(begin * half)


@probing
@pytest.mark.parametrize("directions", [1, 3])
def test_every_probing_rule_lowers_a_convex_loss(name: str, directions: int) -> None:
    rule, loss = fitting(name, directions=directions, updates=150, rate=0.4 if name == "zopro" else 0.02)
    before = loss.value
    found = [rule.step(loss) for _ in range(150)]
    assert found[0]["loss"] == pytest.approx(before, rel=0.02)
    best = float(((loss.x @ torch.linalg.lstsq(loss.x, loss.y).solution - loss.y) ** 2).mean())  # without the bias
    assert loss.value - best < 0.5 * (before - best)
    assert all(step["forwards"] == 2 * directions for step in found)


def test_a_blind_walk_goes_exactly_its_distance_along_the_previous_update() -> None:
    parameters = start(30, 5)
    rule, bowl, guides = stepper("extrapolate", parameters, updates=4, distance=1.5, rate=1.0), Bowl(parameters), named(parameters)
    before = [p.detach().clone() for p in parameters]
    rule.guide(guides)
    found = [rule.step(bowl) for _ in range(4)]
    for p, old, step in zip(parameters, before, guides.previous.values(), strict=True):
        torch.testing.assert_close(p.detach() - old, 1.5 * step, rtol=1e-5, atol=1e-6)
    assert [step["zo/distance"] for step in found] == pytest.approx([0.375, 0.75, 1.125, 1.5])
    assert {step["forwards"] for step in found} == {0.0}
    assert bowl.seen == []


@pytest.mark.parametrize("name", ["zopro", "extrapolate"])
def test_without_a_previous_update_guided_rules_are_first_order(name: str) -> None:
    ours, theirs = start(30), start(30)
    rule, adam = stepper(name, ours, first_rate=0.05), stepper("first_order", theirs, rate=0.05)
    for guides in (None, Guides({}, {}), Guides({"parameter 0": torch.zeros(30)}, {})):
        rule.guide(guides)
        assert rule.step(Bowl(ours)) == adam.step(Bowl(theirs))
    assert torch.equal(ours[0], theirs[0])


def test_shuffled_signs_change_nothing_but_signs() -> None:
    """The same directions and slopes; each step is the honest one or its mirror image, and both occur."""
    turned = []
    for seed in range(12):
        moves = []
        for shuffle in (False, True):
            parameters = start(30)
            before = parameters[0].detach().clone()
            rule = stepper("zopro", parameters, shuffle=shuffle, seed=seed)
            rule.guide(named(parameters))
            found = rule.step(Bowl(parameters))
            moves.append((parameters[0].detach() - before, found["zo/slope"]))
        (honest, slope), (drawn, same) = moves
        assert slope == same
        turned.append(bool((honest * drawn).sum() < 0))
        torch.testing.assert_close(drawn, -honest if turned[-1] else honest, rtol=1e-4, atol=1e-7)
    assert 1 <= sum(turned) <= 11


def test_three_directions_are_averaged() -> None:
    parameters = start(30)
    before = parameters[0].detach().double().numpy().copy()
    rule, bowl = stepper("mezo", parameters, directions=3, rate=0.05), Bowl(parameters)
    g = bowl.gradient()
    z = [flat(rule.space, isotropic(rule.space, rule.seed, draw).dense()) for draw in range(3)]
    found = rule.step(bowl)
    moved = parameters[0].detach().double().numpy() - before
    np.testing.assert_allclose(moved, -0.05 * np.mean([(g @ x) * x for x in z], axis=0), rtol=1e-3, atol=1e-5)
    assert found["zo/slope"] == pytest.approx(np.mean([g @ x for x in z]), rel=1e-3)
    assert (found["mine"], found["forwards"], len(bowl.seen)) == (7.0, 6.0, 6)


@probing
def test_the_rate_that_is_recorded_is_the_one_that_was_used(name: str) -> None:
    rule, loss = fitting(name, planned=4, rate=0.2, schedule="linear", updates=4)
    used: list[float] = []
    rule.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(-optimizer.moves[0][0]))
    found = [rule.step(loss) for _ in range(4)]
    assert [u / step["zo/slope"] for u, step in zip(used, found, strict=True)] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert [step["lr"] for step in found] == pytest.approx([0.2, 0.15, 0.1, 0.05])


@probing
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_moves_nothing(name: str, bad: float) -> None:
    rule, loss = fitting(name)
    rule.step(loss)
    before, loss.times = hashed(loss.module.parameters()), bad
    with pytest.raises(DivergedError, match=r"the slope along a direction is (nan|-?inf) at learning rate .*lower --learning-rate"):
        rule.step(loss)
    assert (hashed(loss.module.parameters()), rule.optimizer.done) == (before, 1)
