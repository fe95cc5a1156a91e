"""Zeroth-order rules at work: on the tiny language models, under every objective in whole runs, and in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from interplay import checkpoints, evaluation, loop, methods, models, objectives, rollouts, updates
from interplay.config import RunConfig
from interplay.directions import Guides, Space, isotropic
from interplay.models import Models
from interplay.objectives.base import Batch, Metrics
from interplay.policy_loss import PolicyLoss
from interplay.reward_model import trainable
from interplay.store import RunStore
from interplay.tasks import Prompt
from interplay.updates._zeroth import Prober
from tests import test_resume, tiny, training
from tests.test_zeroth import Bowl, fitting, flat, hashed, named, probing, start, stepper, trained
from tests.training import Finished

PROMPTS = [Prompt(text, text, ({"role": "user", "content": text},)) for text in ("hi", "a much longer question, is it not?", "what?")]


# --- from update to update --------------------------------------------------------------------------


@probing
def test_every_update_draws_fresh_directions(name: str) -> None:
    rule, loss = fitting(name, directions=2, alpha=0.0)
    seen: list[np.ndarray] = []
    rule.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.extend(flat(rule.space, z.dense()) for _, z in optimizer.moves))
    for _ in range(6):
        rule.step(loss)
    z = np.stack(seen) / np.linalg.norm(seen, axis=1, keepdims=True)
    assert len(z) == 12
    assert np.abs(z @ z.T - np.eye(12)).max() < 5 / 35**0.5


@probing
def test_a_resumed_rule_goes_on_with_its_next_direction_and_rate(name: str, tmp_path: Path) -> None:
    """Three updates, a checkpoint, three more: the same weights as six in a row, to the last bit."""
    rule, whole = fitting(name, planned=6, schedule="cosine", updates=6, alpha_schedule="constant")
    for _ in range(6):
        rule.step(whole)
    rule, first = fitting(name, planned=6, schedule="cosine", updates=6, alpha_schedule="constant")
    for _ in range(3):
        rule.step(first)
    save_file(checkpoints._optimizer_tensors(rule.optimizer), tmp_path / "o.safetensors")
    rule, second = fitting(name, planned=6, schedule="cosine", updates=6, alpha_schedule="constant")
    second.module.load_state_dict(first.module.state_dict())
    checkpoints.restore_optimizer(rule.optimizer, tmp_path / "o.safetensors")
    assert rule.optimizer.done == 3
    for _ in range(3):
        rule.step(second)
    assert rule.optimizer.done == 6
    assert hashed(second.module.parameters()) == hashed(whole.module.parameters()) != hashed(first.module.parameters())


def test_alpha_of_an_update_is_that_of_its_place_in_the_iteration() -> None:
    parameters = start(30)
    rule, bowl, guides = stepper("zopro", parameters, updates=4, alpha=0.8), Bowl(parameters), named(parameters)
    for _ in range(2):
        rule.guide(guides)
        assert [rule.step(bowl)["zo/alpha"] for _ in range(4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("name", ["zopro", "extrapolate"])
def test_gradients_of_the_first_iteration_are_gone_in_the_next(name: str) -> None:
    """They would be recorded as those of updates that have none, and cost as much memory as the weights."""
    rule, loss = fitting(name)
    rule.guide(None)
    rule.step(loss)
    rule.guide(Guides({key: torch.ones(p.shape) for key, p in loss.module.named_parameters()}, {}))
    seen: list[bool] = []
    rule.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad is None for p in loss.module.parameters()))
    rule.step(loss)
    assert seen == [True, True]


# --- language models -------------------------------------------------------------------------------

KINDS = [("llama", "lora"), ("llama", "full"), ("gpt2", "lora"), ("gpt2", "full")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A policy whose adapters, if it has some, are no longer zero."""
    folder = tiny.save(tmp_path_factory.mktemp("zeroth") / request.param[0], getattr(tiny, request.param[0])())
    found = models.load(RunConfig(**{**training.SMALL, "model": str(folder), "tune": request.param[1]}), critic=False, reward=False)
    g = torch.Generator().manual_seed(1)
    for name, parameter in trainable(found.policy):
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=g)
    return found


def policy_loss(loaded: Models, objective: str = "rloo") -> PolicyLoss:
    """Two answers to each of three prompts, with more positions than are scored at one time."""
    config = RunConfig(max_prompt_tokens=64, max_new_tokens=14, dtype="float32", device="cpu")
    sequences = rollouts.sample(loaded, PROMPTS, config, completions=2, seed=5)
    assert sequences.mask_BT.numel() > rollouts.CHUNK
    with torch.no_grad():
        old_BT, _ = rollouts.token_logprobs(loaded.policy, sequences, 0.7)
    batch = Batch(sequences.mask_BT, sequences.group_B, torch.tensor([1.0, -0.5, 0.25, 2.0, 0.0, 1.5]), old_BT - 0.1, old_BT)
    found = methods.resolve(RunConfig(method=objective))
    targets = found.objective.targets(batch, found.objective_settings)
    return PolicyLoss(loaded.policy, sequences, batch, targets, found.objective, found.objective_settings, 0.7)


def test_scores_without_all_logits_are_those_with_them(loaded: Models) -> None:
    loss = policy_loss(loaded)
    mask_BT = loss.sequences.mask_BT
    with torch.no_grad():
        expected = rollouts.token_logprobs(loaded.policy, loss.sequences, 0.7)
    for ours_BT, theirs_BT in zip(rollouts.scored(loaded.policy, loss.sequences, 0.7), expected, strict=True):
        assert ours_BT.shape == theirs_BT.shape
        torch.testing.assert_close(ours_BT[mask_BT], theirs_BT[mask_BT], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", ["rloo", "online_dpo"])
def test_probes_of_a_policy_are_those_of_its_written_weights(loaded: Models, objective: str) -> None:
    """Stacked adapters and streamed modules give the losses of weights that were really changed, unit by unit."""
    loss, space = policy_loss(loaded, objective), Space(*trained(loaded.policy))
    before, prober = hashed(space.parameters), Prober(space, loaded.policy, together=True)
    assert (prober.where is None) != (prober.scratch is None)
    drawn = [isotropic(space, 0, draw) for draw in range(2)]
    found = prober.probe(loss, drawn, [1e-2, 2e-2])
    assert hashed(space.parameters) == before
    theta_N = space.theta_N.clone()
    for probe, z, reach in zip(found, drawn, (1e-2, 2e-2), strict=True):
        assert probe.plus.loss != probe.minus.loss
        for sign, value in ((1, probe.plus), (-1, probe.minus)):
            space.theta_N.copy_(theta_N + sign * reach * z.dense())
            with torch.no_grad():
                torch.testing.assert_close(value.loss, loss()[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(value.units_U, loss.evaluate()[0].units_U, rtol=1e-5, atol=2e-5)
        assert value.units_U.mean() == pytest.approx(float(value.loss), abs=1e-5)
        space.theta_N.copy_(theta_N)


def test_a_forward_gradient_is_the_backward_pass_along_z(loaded: Models) -> None:
    names, parameters = trained(loaded.policy)
    rule, loss = stepper("forward_gradient", parameters, model=loaded.policy, names=names), policy_loss(loaded)
    g = torch.autograd.grad(loss()[0], parameters)
    for draw in range(3):
        z = isotropic(rule.space, 0, draw)
        terms = torch.cat([(a.double() * b).flatten() for a, b in zip(g, rule.space.views(z.dense()), strict=True)])
        value, slope = rule.slope(loss, z)
        assert value == pytest.approx(float(loss()[0].detach()), abs=1e-5)
        assert slope == pytest.approx(float(terms.sum()), rel=1e-4, abs=1e-5 * float(terms.norm()))
    assert all(p.data_ptr() == view.data_ptr() for p, view in zip(parameters, rule.space.views(rule.space.theta_N), strict=True))


# --- whole runs ------------------------------------------------------------------------------------

RULES = [name for name in updates.names() if name != "first_order"]
EVERY = [(objective, rule, "lora") for objective in objectives.names() for rule in RULES]
FULL = [("rloo", "zopro", "full"), ("ppo", "mezo", "full"), ("dpo", "forward_gradient", "full")]
BRIEF = {"heldout": 2, "heldout_pairs": 2, "pairs": 3, "reward_updates": 1, "updates": 1, "learning_rate": None}
PASSES = {"mezo": [2, 4], "forward_gradient": [2, 4], "zopro": [1, 3], "extrapolate": [1, 1], "zopro_adaptive": [1, 5]}


@pytest.mark.parametrize(("objective", "rule", "tune"), [*EVERY, *FULL])
def test_every_objective_runs_under_every_rule(model: Path, prompts: Path, tmp_path: Path, objective: str, rule: str, tune: str) -> None:
    run = loop.train(training.small(model, prompts, tmp_path / "run", method=f"{objective}+{rule}", tune=tune, **BRIEF))
    assert RunStore.open(run).status().state == "finished"
    assert RunStore.open(run).problems() == []
    steps = training.frame(run, "updates").groupby("role")["clock"].nunique().to_dict()
    assert steps == {"policy": 2, "reward": 3, **({"value": 2} if objective == "ppo" else {})}
    assert training.series(run, "policy", "forwards")["value"].tolist() == PASSES[rule]
    slopes = training.series(run, "policy", "zo/slope")["value"]
    assert np.isfinite(slopes.astype(float)).sum() == {"extrapolate": 0, "zopro": 1, "zopro_adaptive": 1}.get(rule, 2)
    moved = {name: tensor - training.weights(run, 1, "policy")[name] for name, tensor in training.weights(run, 2, "policy").items()}
    assert any(delta.any() for delta in moved.values())


@pytest.mark.parametrize("method", ["zopro", "mezo"])
def test_a_run_that_was_stopped_goes_on_along_the_same_directions(finished: Finished, model: Path, prompts: Path, tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {**BRIEF, "updates": 2, "method": method, "schedule": "linear"}
    whole = finished(**settings)
    run = test_resume.stopped(test_resume.At(evaluation.Evaluator, "score", 3), model, prompts, tmp_path / "run", **settings)
    loop.resume(run)
    test_resume.assert_equal_runs(run, whole, first=2)
    test_resume.assert_same_weights(run, whole, 2, ("policy", "reward", "reward_merged"))


# --- two processes ---------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
import torch
from accelerate import PartialState
from tests.test_zeroth import Bowl, flat, start, stepper
state = PartialState(cpu=True)
parameters, drawn = start(40, 7), []
rule, bowl = stepper("mezo", parameters, directions=2), Bowl(parameters, seed=state.process_index)
rule.optimizer.register_step_pre_hook(lambda optimizer, *_: drawn.extend(torch.from_numpy(flat(rule.space, z.dense())) for _, z in optimizer.moves))
for _ in range(30):
    rule.step(bowl)
found = {"weights": [p.detach().clone() for p in parameters], "drawn": torch.stack(drawn)}
torch.save(found, Path(sys.argv[1]) / f"{state.process_index}-of-{state.num_processes}.pt")
"""


@pytest.mark.slow
def test_two_processes_with_different_data_stay_one_model(tmp_path: Path) -> None:
    """Each averages both slopes, so both walk as one process does that knows both halves of the data."""
    (tmp_path / "walk.py").write_text(SCRIPT)
    # `--cpu` starts a single process whatever --num_processes says (accelerate 1.15), so the script asks for the CPU itself
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
    words = [sys.executable, "-m", *launch, "--mixed_precision", "no", "--dynamo_backend", "no", str(tmp_path / "walk.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    ours, theirs = (torch.load(tmp_path / f"{rank}-of-2.pt") for rank in range(2))
    assert hashed(ours["weights"]) == hashed(theirs["weights"])
    assert torch.equal(ours["drawn"], theirs["drawn"])

    parameters = start(40, 7)
    rule, bowls = stepper("mezo", parameters, directions=2), [Bowl(parameters, seed=rank) for rank in range(2)]

    class Both(Bowl):
        def __call__(self) -> tuple[Tensor, Metrics]:
            return (bowls[0]()[0] + bowls[1]()[0]) / 2, {}

    before = [p.detach().clone() for p in parameters]
    for _ in range(30):
        rule.step(Both(parameters))
    for p, other, old in zip(parameters, ours["weights"], before, strict=True):
        assert (p.detach() - old).norm() > 0.3
        torch.testing.assert_close(p.detach(), other, rtol=1e-4, atol=1e-4)
