"""The recorder against dense float64 arithmetic, and its promises: read only, never fatal, one clock."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from recording import MemoryStore, fill_gradients, tiny, trainable
from torch import Tensor, nn

from interplay.errors import ModelError, StoreError
from interplay.recorder import UpdateRecorder
from interplay.records import SketchSpec
from interplay.tensors import plain_name, trained_modules

Q = "model.layers.1.self_attn.q_proj"
SCALE = 2.0  # lora_alpha / r


def recorder(store: MemoryStore | None = None, **settings: Any) -> UpdateRecorder:
    store = store or MemoryStore()
    return UpdateRecorder(store, SketchSpec(k=store.k), **settings)


def adam(model: nn.Module, lr: float = 1e-2) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable(model).values(), lr=lr)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    fill_gradients(model, seed)
    optimizer.step()


def row(store: MemoryStore, module: str, space: str, update: int, role: str = "policy") -> pd.Series:
    frame = store.frame()
    found = frame[(frame.module == module) & (frame.space == space) & (frame["update"] == update) & (frame.role == role)]
    assert len(found) == 1
    return found.iloc[0]


# ---- an independent route: dense float64 weights, kept by the test


class Dense:
    """Weights of one adapter of a model over time, as factors and as the dense effective weight."""

    def __init__(self, model: nn.Module, module: str = Q) -> None:
        parts = {name: p for name, p in model.named_parameters() if module in name and "lora_" in name}
        self._A, self._B = (next(p for name, p in parts.items() if f"lora_{side}." in name) for side in "AB")
        self.factor: list[Tensor] = []
        self.effective: list[Tensor] = []
        self.keep()

    def keep(self) -> None:
        A, B = self._A.detach().double(), self._B.detach().double()
        self.factor.append(torch.cat([A.flatten(), B.flatten()]).clone())
        self.effective.append((SCALE * B @ A).flatten())

    def values(self, space: str) -> list[Tensor]:
        return self.factor if space == "factor" else self.effective


def cos(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def near(value: float, *, tolerance: float = 2e-4) -> Any:
    return pytest.approx(value, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("space", ["factor", "effective"])
def test_own_columns_equal_dense_float64(space: str) -> None:
    store, model = MemoryStore(), tiny("policy")
    optimizer = adam(model)
    recorder(store).attach(optimizer, model, "policy")
    dense = Dense(model)
    for seed in range(4):
        step(model, optimizer, seed)
        dense.keep()
    w = dense.values(space)
    updates = [b - a for a, b in pairwise(w)]
    for t in (2, 3):
        found = row(store, Q, space, t + 1)
        assert found.update_norm == near(float(updates[t].norm()))
        assert found.weight_norm == near(float(w[t + 1].norm()))
        assert found.displacement_norm == near(float((w[t + 1] - w[0]).norm()))
        assert found.cos_previous == near(cos(updates[t], updates[t - 1]))
        assert found.cos_displacement == near(cos(updates[t], w[t] - w[0]))
    gradients = [p.grad for name, p in trainable(model).items() if Q in name]
    norm = float(sum(g.double().square().sum() for g in gradients) ** 0.5)
    assert found.gradient_norm == (near(norm) if space == "factor" else pytest.approx(np.nan, nan_ok=True))


@pytest.mark.parametrize("space", ["factor", "effective"])
def test_columns_between_roles_equal_dense_float64(space: str) -> None:
    """The policy is compared with the reward model's latest update and its last complete iteration."""
    store, policy, reward = MemoryStore(), tiny("policy"), tiny("reward", 1)
    record = recorder(store)
    policy_steps, reward_steps = adam(policy), adam(reward, 3e-2)
    record.attach(policy_steps, policy, "policy")
    record.attach(reward_steps, reward, "reward")
    mine, theirs = Dense(policy), Dense(reward)
    record.begin_iteration(1)
    for seed in range(3):
        step(reward, reward_steps, 100 + seed)
        theirs.keep()
    record.end_iteration("reward")
    step(reward, reward_steps, 200)
    theirs.keep()
    for seed in range(2):
        step(policy, policy_steps, seed)
        mine.keep()
    w, v = mine.values(space), theirs.values(space)
    found = row(store, Q, space, 2)
    assert found.other_role == "reward"
    assert found.cos_other_update == near(cos(w[2] - w[1], v[4] - v[3]))
    assert found.cos_other_iteration == near(cos(w[2] - w[1], v[3] - v[0]))
    if space == "factor":
        assert found.attainable_other_update == 1.0
    else:
        assert abs(found.cos_other_update) <= found.attainable_other_update < 1.0
    head = store.frame().query("role == 'reward' and module == 'score'")
    assert list(head.space) == ["effective"] * 4
    assert head.cos_other_update.isna().all()  # the policy has no such module


def test_identical_gradients_attain_one_with_a_shared_A() -> None:
    """Training-lab §8: B = 0 and independent A make identical gradients nearly orthogonal; a shared A does not."""
    for seed, expected in ((0, 1.0), (1, None)):
        store, policy, reward = MemoryStore(), tiny("policy", 0, r=2), tiny("policy", seed, r=2)
        record = recorder(store)
        steps = [torch.optim.SGD(trainable(model).values(), lr=1e-2) for model in (reward, policy)]
        for role, model, optimizer in zip(("reward", "policy"), (reward, policy), steps, strict=True):
            record.attach(optimizer, model, role)
            set_full_gradients(model)
            optimizer.step()
        found = row(store, Q, "effective", 1)
        if expected:
            assert found.cos_other_update == near(1.0)
            assert found.attainable_other_update == near(1.0)
        else:
            assert found.attainable_other_update < 0.5
            assert abs(found.cos_other_update) < 0.4


def set_full_gradients(model: nn.Module) -> None:
    """The gradients that one fixed gradient G of every effective weight gives to A and B."""
    parameters = trainable(model)
    for name, A in parameters.items():
        if "lora_A" in name:
            B = parameters[name.replace("lora_A", "lora_B")]
            G = torch.randn(B.shape[0], A.shape[1], generator=torch.Generator().manual_seed(len(name)))
            A.grad, B.grad = SCALE * B.detach().t() @ G, SCALE * G @ A.detach().t()


# ---- what is undefined


def test_undefined_is_null_and_never_zero() -> None:
    store, model = MemoryStore(), tiny("policy")
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.0)
    record = recorder(store)
    record.attach(optimizer, model, "policy")
    step(model, optimizer, 0)
    optimizer.param_groups[0]["lr"] = 1e-2
    step(model, optimizer, 1)
    step(model, optimizer, 2)
    still, first, second = (row(store, Q, "effective", n) for n in (1, 2, 3))
    assert still.update_norm == 0
    assert still.displacement_norm == 0
    assert pd.isna([still.cos_previous, still.cos_displacement, still.cos_other_update, still.attainable_other_update]).all()
    assert pd.isna([first.cos_previous, first.cos_displacement]).all()
    assert not pd.isna([second.cos_previous, second.cos_displacement]).any()
    assert pd.isna(second.other_role)
    errors = store.frame("directions").query("update == 1").standard_error
    assert errors.isna().all()


def test_first_update_of_a_fresh_adapter_leaves_A_as_it_is() -> None:
    """B = 0: the gradient of A is zero, and what is compared with nothing is null."""
    model = tiny("policy")
    optimizer = torch.optim.SGD(trainable(model).values(), lr=1e-2)
    store = MemoryStore()
    recorder(store).attach(optimizer, model, "policy")
    set_full_gradients(model)
    before = Dense(model)
    optimizer.step()
    before.keep()
    found = row(store, Q, "effective", 1)
    assert found.update_norm == near(float(before.effective[1].norm()))
    assert pd.isna(found.cos_displacement)


@pytest.mark.parametrize("lora", [True, False])
def test_values_that_are_not_finite_are_null_with_one_warning(lora: bool) -> None:
    store, model = MemoryStore(), tiny("policy", lora=lora)
    optimizer = torch.optim.SGD(trainable(model).values(), lr=1.0)
    record = recorder(store)
    record.attach(optimizer, model, "policy")

    def two_bad_steps() -> None:
        for seed in range(2):
            fill_gradients(model, seed)
            next(p for name, p in trainable(model).items() if Q in name).grad[0, 0] = torch.inf
            optimizer.step()

    with pytest.warns(UserWarning, match="update 1 of the policy is not finite") as caught:
        two_bad_steps()
    assert len(caught) == 1
    assert record.stopped is None
    bad = row(store, Q, "effective", 2)
    assert pd.isna([bad.update_norm, bad.cos_previous]).all()
    assert np.isfinite(row(store, Q.replace("1", "0"), "effective", 2).update_norm)
    assert Q not in set(store.frame("directions").module)


# ---- names, groups, frozen and tied tensors


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("base_model.model.model.layers.12.mlp.down_proj", "model.layers.12.mlp.down_proj"),
        ("base_model.model.score.modules_to_save.default", "score"),
        ("module._orig_mod.base_model.model.lm_head", "lm_head"),
        ("policy.base_model.model.model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("value_model.model.layers.0.mlp.up_proj", "value_model.model.layers.0.mlp.up_proj"),
        ("model.layers.0.self_attn.q_proj.base_layer", "model.layers.0.self_attn.q_proj"),
        ("transformer.h.3.attn.c_attn", "transformer.h.3.attn.c_attn"),
    ],
)
def test_names_are_the_same_for_all_roles(path: str, name: str) -> None:
    assert plain_name(path) == name


def test_policy_reward_and_value_share_names() -> None:
    names = {}
    for kind in ("policy", "reward", "value"):
        model = tiny(kind)
        names[kind] = {module.name for module in trained_modules(adam(model), model)}
    assert names["policy"] | {"score"} == names["reward"] == names["value"]
    policy = tiny("policy")
    module = next(m for m in trained_modules(adam(policy), policy) if m.name == Q)
    assert (module.layer, module.kind, module.scale, module.shape) == (1, "q_proj", SCALE, (32, 32, 4))


def test_a_wrapper_does_not_merge_policy_and_value_layers() -> None:
    wrapper = nn.ModuleDict({"policy": tiny("policy"), "value_model": tiny("value", lora=False)})
    modules = {m.name: m for m in trained_modules(adam(wrapper), wrapper)}
    assert modules[Q].layer == 1
    assert modules[f"value_model.{Q}"].layer is None


def test_full_parameters_tied_frozen_and_grouped() -> None:
    """Tied embeddings count once, frozen layers not at all, weight and bias are one module."""
    store = MemoryStore()
    model = tiny("policy", lora=False, tie_word_embeddings=True, attention_bias=True)
    model.model.layers[0].requires_grad_(False)
    parameters = list(trainable(model).values())
    optimizer = torch.optim.SGD([{"params": parameters[:3], "lr": 0.1}, {"params": parameters[3:], "lr": 0.01}])
    recorder(store).attach(optimizer, model, "policy")
    before = {name: p.detach().clone().double() for name, p in trainable(model).items()}
    step(model, optimizer, 0)
    frame = store.frame()
    assert set(frame.space) == {"effective"}
    assert not frame.module.str.contains("layers.0").any()
    assert "lm_head" not in set(frame.module)
    assert frame.set_index("module").layer["model.embed_tokens"] is pd.NA or np.isnan(frame.set_index("module").layer["model.embed_tokens"])
    moved = [(p.double() - before[name]).square().sum() for name, p in trainable(model).items() if f"{Q}." in name]
    assert len(moved) == 2
    assert row(store, Q, "effective", 1).update_norm == near(float(sum(moved).sqrt().detach()))


def test_full_parameter_columns_equal_dense_float64() -> None:
    store, models = MemoryStore(), {"reward": tiny("reward", 1, lora=False), "policy": tiny("policy", lora=False)}
    record = recorder(store)
    record.begin_iteration(1)
    history: dict[str, list[Tensor]] = {}
    for role, model in models.items():
        optimizer = adam(model)
        record.attach(optimizer, model, role)
        weight = dict(model.named_parameters())[f"{Q}.weight"]
        history[role] = [weight.detach().double().flatten()]
        for seed in range(3):
            step(model, optimizer, seed)
            history[role].append(weight.detach().double().flatten())
        record.end_iteration(role)
    w, v = history["policy"], history["reward"]
    found = row(store, Q, "effective", 3)
    assert found.update_norm == near(float((w[3] - w[2]).norm()))
    assert found.displacement_norm == near(float((w[3] - w[0]).norm()))
    assert found.cos_previous == near(cos(w[3] - w[2], w[2] - w[1]))
    assert found.cos_displacement == near(cos(w[3] - w[2], w[2] - w[0]))
    assert found.cos_other_update == near(cos(w[3] - w[2], v[3] - v[2]))
    assert found.cos_other_iteration == near(cos(w[3] - w[2], v[3] - v[0]))
    assert found.attainable_other_update == 1.0
    assert pd.isna(row(store, "lm_head", "effective", 3).cos_other_update)


def test_half_precision_weights_are_measured_in_fp32() -> None:
    store, model = MemoryStore(), tiny("policy", lora=False).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recorder(store).attach(optimizer, model, "policy")
    weight = dict(model.named_parameters())[f"{Q}.weight"]
    before = weight.detach().double().clone()
    step(model, optimizer, 0)
    assert row(store, Q, "effective", 1).update_norm == near(float((weight.detach().double() - before).norm()))


def test_conv1d_and_embedding_adapters_are_transposed_and_measured() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    store = MemoryStore()
    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64, n_positions=16))
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "wte"], fan_in_fan_out=True))
    optimizer = adam(model)
    UpdateRecorder(store, SketchSpec(space="effective")).attach(optimizer, model, "policy")
    layer = model.get_submodule("base_model.model.transformer.h.0.attn.c_attn")
    before = layer.get_delta_weight("default").double()
    step(model, optimizer, 0)
    delta = (layer.get_delta_weight("default").double() - before).detach()
    assert row(store, "transformer.h.0.attn.c_attn", "effective", 1).update_norm == near(float(delta.norm()))
    assert row(store, "transformer.wte", "effective", 1).weight_norm > 0
    modules = {m.name: m for m in trained_modules(optimizer, model)}
    assert all(m.transposed for m in modules.values())
    sketches = store.frame("directions").set_index("module")
    dense = sketch_of("transformer.h.0.attn.c_attn", delta)
    found = np.asarray(sketches.sketch["transformer.h.0.attn.c_attn"], dtype=float) * sketches.scale["transformer.h.0.attn.c_attn"]
    np.testing.assert_allclose(found, dense, atol=2e-3 * np.abs(dense).max())


def sketch_of(module: str, weight: Tensor, label: str = "weight", k: int = 256) -> np.ndarray:
    """The signed sums of one tensor, by their definition."""
    from interplay.sketch import period, signs_N

    sums = np.zeros(k)
    signed = weight.numpy().reshape(-1) * signs_N(0, module, label, tuple(weight.shape))
    np.add.at(sums, np.arange(signed.size) % period(k) % k, signed)
    return sums


def test_sparse_gradients_are_measured() -> None:
    store, model = MemoryStore(), nn.Sequential(nn.Embedding(10, 4, sparse=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder(store).attach(optimizer, model, "policy")
    model(torch.tensor([1, 2, 2])).square().sum().backward()
    optimizer.step()
    dense = float(model[0].weight.grad.to_dense().norm())
    assert store.frame().gradient_norm[0] == near(dense)


def test_an_optimiser_of_another_model_is_refused() -> None:
    model, other = tiny("policy"), tiny("policy")
    with pytest.raises(ModelError, match=r"none of the optimiser's 28 trainable tensors belongs to this PeftModelForCausalLM"):
        recorder().attach(adam(other), model, "policy")


# ---- optimisers and roles


def test_a_shared_optimiser_gives_each_model_its_own_tensors() -> None:
    store, policy, value = MemoryStore(), tiny("policy"), tiny("value")
    optimizer = torch.optim.AdamW([*trainable(policy).values(), *trainable(value).values()], lr=1e-2)
    record = recorder(store)
    record.attach(optimizer, policy, "policy")
    record.attach(optimizer, value, "value")
    fill_gradients(policy, 0)
    fill_gradients(value, 1)
    optimizer.step()
    frame = store.frame()
    assert "score" not in set(frame[frame.role == "policy"].module)
    assert "score" in set(frame[frame.role == "value"].module)
    assert list(frame.groupby("role", observed=True).clock.unique().map(list)[["policy", "value"]]) == [[1], [2]]
    assert set(frame[frame.role == "value"].other_role) == {"policy"}
    assert frame.query("role == 'value' and module == @Q").cos_other_update.notna().all()


def test_accelerates_wrapper_is_unwrapped() -> None:
    store, model = MemoryStore(), tiny("policy")
    optimizer = Accelerator(cpu=True).prepare(adam(model))
    assert isinstance(optimizer, AcceleratedOptimizer)
    recorder(store).attach(optimizer, model, "policy")
    fill_gradients(model, 0)
    optimizer.step()
    assert len(store.frame()) == 28


def test_a_closure_is_measured_after_it_ran() -> None:
    store, model = MemoryStore(), nn.Sequential(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder(store).attach(optimizer, model, "policy")

    def closure() -> float:
        fill_gradients(model, 5)
        return 0.0

    optimizer.step(closure)
    optimizer.zero_grad()
    optimizer.step(closure=closure)
    norm = float(sum(p.grad.square().sum() for p in model.parameters()) ** 0.5)
    assert list(store.frame().gradient_norm) == [near(norm), near(norm)]


def test_a_new_optimiser_continues_the_role() -> None:
    """The reward model is refined by a new trainer in every iteration."""
    store, model = MemoryStore(), tiny("reward")
    record = recorder(store)
    dense = Dense(model)
    for iteration in (0, 1):
        record.begin_iteration(iteration)
        optimizer = adam(model)
        attachment = record.attach(optimizer, model, "reward")
        for seed in range(2):
            step(model, optimizer, 10 * iteration + seed)
            dense.keep()
        attachment.detach()
        attachment.detach()
        step(model, optimizer, 99)  # nobody listens
        dense.keep()
        record.end_iteration("reward")
    w = dense.effective
    found = row(store, Q, "effective", 3, "reward")
    assert store.frame()["update"].max() == 4
    assert found.iteration == 1
    assert found.displacement_norm == near(float((w[4] - w[0]).norm()))
    assert found.cos_displacement == near(cos(w[4] - w[3], w[3] - w[0]))
    assert found.cos_previous == near(cos(w[4] - w[3], w[2] - w[1]))
    assert record.place("reward") == {"clock": 4, "update": 4, "iteration": 1, "role": "reward"}


def test_places_and_one_clock_over_all_roles() -> None:
    policy, reward = tiny("policy"), tiny("reward")
    record = recorder()
    assert record.place("policy") == {"clock": 0, "update": 0, "iteration": 0, "role": "policy"}
    optimizers = {"policy": adam(policy), "reward": adam(reward)}
    record.attach(optimizers["policy"], policy, "policy")
    record.attach(optimizers["reward"], reward, "reward")
    record.begin_iteration(2)
    for role in ("policy", "reward", "reward", "policy"):
        step({"policy": policy, "reward": reward}[role], optimizers[role], 0)
    assert record.place("policy") == {"clock": 4, "update": 2, "iteration": 2, "role": "policy"}
    assert record.place("reward") == {"clock": 3, "update": 2, "iteration": 2, "role": "reward"}


@pytest.mark.parametrize("lora", [True, False])
def test_a_resumed_run_continues_counters_and_displacement(lora: bool) -> None:
    import json

    whole, resumed = MemoryStore(), MemoryStore()
    model = tiny("policy", lora=lora)
    start = {name: p.detach().clone() for name, p in trainable(model).items()}
    optimizer = adam(model)
    record = recorder(whole)
    first = record.attach(optimizer, model, "policy")
    record.begin_iteration(1)
    step(model, optimizer, 0)
    state = json.loads(json.dumps(record.state()))
    again = recorder(resumed)
    again.load_state(state)
    again.attach(optimizer, model, "policy", start={name.replace(".default", ""): value for name, value in start.items()})
    again.begin_iteration(2)
    record.begin_iteration(2)
    step(model, optimizer, 1)
    first.detach()
    mine, theirs = row(resumed, Q, "effective", 2), row(whole, Q, "effective", 2)
    assert pd.isna(mine.cos_previous)
    same = ["clock", "update", "iteration", "update_norm", "displacement_norm", "cos_displacement"]
    assert list(mine[same]) == list(theirs[same])


def test_start_weights_that_do_not_fit_are_refused() -> None:
    model = tiny("policy")
    with pytest.raises(ModelError, match=r"lora_A\.default\.weight' is missing"):
        recorder().attach(adam(model), model, "policy", start={})


def test_roles_with_different_modules_are_compared_where_they_share() -> None:
    """An adapter on other layers, or of another rank, leaves nulls where there is no partner."""
    store, policy, reward = MemoryStore(), tiny("policy"), tiny("reward", num_hidden_layers=1)
    record = recorder(store)
    for role, model in (("reward", reward), ("policy", policy)):
        optimizer = adam(model)
        record.attach(optimizer, model, role)
        step(model, optimizer, 0)
    frame = store.frame().query("role == 'policy'")
    shared = frame.layer == 0
    assert frame[shared].cos_other_update.notna().all()
    assert frame[~shared].cos_other_update.isna().all()
    assert frame[~shared].attainable_other_update.isna().all()


# ---- memory


def test_copies_are_dropped_in_order_and_named() -> None:
    model = tiny("policy", lora=False)
    numbers = sum(p.numel() for p in model.parameters())
    kept = {}
    for copies in range(2, 7):
        store = MemoryStore()
        record = recorder(store, memory_budget_bytes=4 * numbers * copies)
        optimizer = adam(model)
        attachment = record.attach(optimizer, model, "policy")
        step(model, optimizer, 0)
        step(model, optimizer, 1)
        record.end_iteration("policy")
        attachment.detach()
        report = store.info["recorder"]["roles"]["policy"]
        kept[copies] = report["dropped"]
        assert record.report()["roles"]["policy"] == report
        assert record.stopped is None
        frame = store.frame().query("update == 2")
        assert frame.displacement_norm.isna().all() == ("displacement" in report["dropped"])
        assert frame.cos_previous.isna().all() == ("previous update" in report["dropped"])
        assert frame.update_norm.notna().all()
    assert kept[5] == []
    assert kept[4] == kept[3] == ["iteration delta"]
    assert kept[2] == ["displacement", "iteration delta"]


def test_even_the_smallest_budget_keeps_the_update() -> None:
    store, model = MemoryStore(), tiny("policy")
    record = recorder(store, memory_budget_bytes=1)
    optimizer = adam(model)
    record.attach(optimizer, model, "policy")
    step(model, optimizer, 0)
    assert store.info["recorder"]["roles"]["policy"]["kept"] == ["update"]
    assert store.frame().update_norm.notna().all()


# ---- promises


def dropout_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(20, 16), nn.Dropout(0.3), nn.Linear(16, 20))


def train(
    record: Callable[[torch.optim.Optimizer, nn.Module], object] | None, make: Callable[[], nn.Module] = dropout_model
) -> tuple[list[Tensor], list[float], Tensor]:
    """Five steps with dropout; weights, losses and the random state afterwards."""
    model = make()
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-2)
    if record is not None:
        record(optimizer, model)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        tokens = torch.randint(0, 20, (4, 6))
        output = model(tokens)
        logits = output if isinstance(output, Tensor) else output.logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return [p.detach().clone() for p in model.parameters()], losses, torch.get_rng_state()


def dropout_adapter() -> nn.Module:
    model = tiny("policy", attention_dropout=0.2)
    return model.train()


@pytest.mark.parametrize("make", [dropout_model, dropout_adapter])
def test_training_is_bit_identical_with_and_without(make: Callable[[], nn.Module]) -> None:
    plain = train(None, make)
    watched = train(lambda optimizer, model: recorder().attach(optimizer, model, "policy"), make)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], watched[0], strict=True))
    assert plain[1] == watched[1]
    assert torch.equal(plain[2], watched[2])


class Failing(MemoryStore):
    def __init__(self, stream: str, error: Exception) -> None:
        super().__init__()
        self._failure = (stream, error)

    def append(self, stream: Any, columns: Any, /) -> None:
        if stream == self._failure[0]:
            raise self._failure[1]
        super().append(stream, columns)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StoreError("the disk is full; free some space"), "StoreError: the disk is full"), (OSError(28, "No space left"), "OSError"), (KeyError("x"), "KeyError")],
)
@pytest.mark.parametrize("stream", ["updates", "directions"])
def test_a_store_that_fails_ends_the_recording_and_not_the_training(error: Exception, reason: str, stream: str) -> None:
    plain = train(None)
    record = recorder(Failing(stream, error))
    with pytest.warns(UserWarning, match=r"recording stopped, training goes on \(" + reason) as caught:
        watched = train(lambda optimizer, model: record.attach(optimizer, model, "policy"))
    assert len(caught) == 1
    assert record.stopped is not None
    assert record.stopped.startswith(reason)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], watched[0], strict=True))
    assert record.place("policy")["update"] == 5  # metrics keep their place


@pytest.mark.parametrize("hook", ["before", "gradients", "after", "end_iteration", "report"])
def test_a_fault_in_any_hook_ends_the_recording_and_not_the_training(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from interplay import recorder as module

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault of ours\nwith details")

    monkeypatch.setattr(module.UpdateRecorder if hook == "report" else module.Trail, hook, fail)
    record = recorder()

    def watched_training() -> None:
        train(lambda optimizer, model: record.attach(optimizer, model, "policy"))
        record.end_iteration("policy")
        record.end_iteration("policy")

    with pytest.warns(UserWarning, match=r"recording stopped, training goes on \(RuntimeError: a fault of ours\)") as caught:
        watched_training()
    assert len(caught) == 1
    assert record.place("policy")["update"] == 5


def test_a_stopped_recorder_still_lets_others_attach() -> None:
    record = recorder(Failing("updates", StoreError("full")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            train(lambda optimizer, model: record.attach(optimizer, model, "policy"))
    assert len([w for w in caught if "interplay" in str(w.message)]) == 1
    assert record.place("policy")["update"] == 10


def test_settings_of_the_training_do_not_reach_the_numbers() -> None:
    """Autocast and inference dtype of the caller leave the recorded numbers alone."""
    stores = []
    for autocast in (False, True):
        store, model = MemoryStore(), tiny("policy")
        optimizer = adam(model)
        recorder(store).attach(optimizer, model, "policy")
        fill_gradients(model, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            optimizer.step()
        stores.append(store.frame())
    pd.testing.assert_frame_equal(*stores)


# ---- directions


def test_directions_have_one_row_per_module() -> None:
    store, model = MemoryStore(), tiny("reward")
    optimizer = adam(model)
    recorder(store).attach(optimizer, model, "reward")
    step(model, optimizer, 0)
    step(model, optimizer, 1)
    frame = store.frame("directions")
    assert len(frame) == 2 * 15
    assert set(frame.space) == {"factor"}, "one space for all rows, so that modules can be summed; a plain tensor is the same in both"
    found = frame[(frame.module == Q) & (frame["update"] == 1)].iloc[0]
    assert found.space == "factor"
    assert found.standard_error >= 1 / 16


def test_sketches_equal_their_definition() -> None:
    store, model = MemoryStore(), tiny("reward")
    optimizer = adam(model)
    recorder(store).attach(optimizer, model, "reward")
    parts = {side: next(p for name, p in trainable(model).items() if Q in name and f"lora_{side}" in name) for side in "AB"}
    before = {side: p.detach().clone() for side, p in parts.items()}
    step(model, optimizer, 0)
    expected = sum(sketch_of(Q, (parts[side].detach() - before[side]).double(), side) for side in "AB")
    found = store.frame("directions").query("module == @Q").iloc[0]
    np.testing.assert_allclose(np.asarray(found.sketch, dtype=float) * found.scale, expected, atol=2e-3 * np.abs(expected).max())


def test_without_sketches_there_are_no_directions() -> None:
    store, model = MemoryStore(0), tiny("policy")
    optimizer = adam(model)
    recorder(store).attach(optimizer, model, "policy")
    step(model, optimizer, 0)
    assert store.tables["directions"] == []
    assert len(store.frame()) == 28


def test_the_time_in_hooks_is_counted_and_close_lets_go() -> None:
    store, model = MemoryStore(), tiny("policy")
    optimizer = adam(model)
    record = recorder(store)
    record.attach(optimizer, model, "policy")
    step(model, optimizer, 0)
    assert 0 < record.seconds < 5
    record.close()
    step(model, optimizer, 1)
    assert len(store.frame()) == 28
    assert record.report()["roles"] == {}
