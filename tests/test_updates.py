"""AdamW at work on one role: the formula by hand, clipping, schedules, and what is refused before anything moves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interplay import checkpoints, updates
from interplay.config import RunConfig
from interplay.errors import DivergedError
from interplay.updates import Plan
from interplay.updates.first_order import Settings, factor


def stepper(parameters: list[Tensor], planned: int = 10, rate: float = 0.1, settings: Settings | None = None, **config: Any) -> Any:
    rule = updates.find("first_order")
    return rule.build(parameters, Plan(rate, planned, RunConfig(**config)), settings or rule.settings())


def start(seed: int = 0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def test_the_rules_are_found() -> None:
    assert updates.names() == ["extrapolate", "first_order", "forward_gradient", "mezo", "zopro", "zopro_adaptive"]
    assert updates.find("first_order").name == "first_order"
    with pytest.raises(KeyError):
        updates.find("base")


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_adamw_by_hand(clip: float) -> None:
    """Five updates of sum(w^3)/3 against the formula in numpy, with decay, clipping and the settings' betas."""
    w = start()
    rule = stepper([w], rate=0.05, settings=Settings(beta1=0.8, beta2=0.95), weight_decay=0.1, clip_norm=clip)
    x = w.detach().numpy().copy()
    m, v = np.zeros(5), np.zeros(5)
    for t in range(1, 6):
        metrics = rule.step(lambda: ((w**3).sum() / 3, {"mine": 7.0}))
        g = x**2
        norm = np.linalg.norm(g)
        assert metrics == pytest.approx({"mine": 7.0, "loss": (x**3).sum() / 3, "grad_norm": norm, "lr": 0.05, "forwards": 1.0})
        g = g * min(1, clip / (norm + 1e-6)) if clip else g
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        x = x * (1 - 0.05 * 0.1) - 0.05 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-10)


def test_gradients_do_not_add_up_over_updates() -> None:
    w = start()
    rule = stepper([w], clip_norm=0)
    for _ in range(2):
        assert rule.step(lambda: (w.sum(), {}))["grad_norm"] == pytest.approx(math.sqrt(5))


def test_schedules() -> None:
    assert [factor("constant", 0, 4, i) for i in range(4)] == [1] * 4
    assert [factor("linear", 0, 4, i) for i in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [factor("cosine", 0, 4, i) for i in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert [factor("linear", 2, 4, i) for i in range(5)] == [0.5, 1, 1, 0.5, 0]
    assert factor("linear", 9, 4, 9) == 1  # warm-up longer than the run: no division by zero


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_of_each_update_is_that_of_the_schedule(schedule: str) -> None:
    w = start()
    rule = stepper([w], planned=6, rate=0.2, schedule=schedule, warmup=2)
    rates = [rule.step(lambda: ((w**2).sum(), {}))["lr"] for _ in range(6)]
    assert rates == pytest.approx([0.2 * factor(schedule, 2, 6, i) for i in range(6)])
    assert rates[0] == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_moves_nothing(bad: float) -> None:
    w = start()
    rule = stepper([w])
    rule.step(lambda: ((w**2).sum(), {}))
    before, state = w.detach().clone(), {k: v.clone() for k, v in rule.optimizer.state[w].items()}
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at learning rate 0.1; lower --learning-rate"):
        rule.step(lambda: ((w * bad).sum(), {}))
    assert torch.equal(w, before)
    assert all(torch.equal(value, state[name]) for name, value in rule.optimizer.state[w].items())


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    w = torch.nn.Parameter(torch.zeros(3))
    rule = stepper([w])
    with pytest.raises(DivergedError, match="the gradient norm is"):
        rule.step(lambda: (w.sqrt().sum(), {}))  # finite, with an infinite slope at 0
    assert torch.equal(w, torch.zeros(3))


def test_a_resumed_schedule_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Three updates, a checkpoint, three more: the same rates and weights as six in a row."""
    whole, first = start(), start()
    rule = stepper([whole], planned=6, schedule="linear", warmup=2)
    expected = [rule.step(lambda: ((whole**2).sum(), {}))["lr"] for _ in range(6)]

    rule = stepper([first], planned=6, schedule="linear", warmup=2)
    rates = [rule.step(lambda: ((first**2).sum(), {}))["lr"] for _ in range(3)]
    save_file(checkpoints._optimizer_tensors(rule.optimizer), tmp_path / "o.safetensors")
    second = torch.nn.Parameter(first.detach().clone())
    rule = stepper([second], planned=6, schedule="linear", warmup=2)
    checkpoints.restore_optimizer(rule.optimizer, tmp_path / "o.safetensors")
    rates += [rule.step(lambda: ((second**2).sum(), {}))["lr"] for _ in range(3)]
    assert rates == pytest.approx(expected)
    assert torch.equal(second, whole)
