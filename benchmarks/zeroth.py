"""What zeroth-order directions cost, against published sequences restated from their formulas.

    python -m benchmarks.zeroth direction full --json zeroth.json

`direction`: perturb, restore and update for adapters of rank 64 on all linear layers of a 1B shape
(45 M numbers), the forward passes left out. Baselines: MeZO's four passes (noise drawn anew in each, three
perturbations and the update) and VisZOPrO's (in each pass and tensor noise, projection, two norms and the
sum). `full`: the same for all 135 M parameters of SmolLM2's shapes, which are never written in the probes.
`update`: a whole update over two plain forward passes of the same 8 x 62 tokens. `batched`: K directions in
one pass over a plain pass of as many rows. `memory`: peak of a process that makes updates, over that of one
that makes forward passes. Same dtype and threads; baseline and ours alternate; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.recorder import machine
from interplay.directions import Guides, Space, frame, guided, isotropic
from interplay.noise import Kind
from interplay.streaming import Scratch
from interplay.updates._moving import Along

EPSILON, RATE, ALPHA = 1e-3, 1e-3, 0.9


# --- published sequences, restated -----------------------------------------------------------------


def mezo_passes(parameters: list[Tensor], slope: float = 0.5) -> int:
    """+1, -2, +1, update: normal noise of every tensor, drawn four times from one seed. Returns tensor traversals of noise."""
    drawn = 0
    for scale in (EPSILON, -2 * EPSILON, EPSILON, -RATE * slope):
        torch.manual_seed(1)
        for parameter in parameters:
            z = torch.normal(0.0, 1.0, parameter.shape, dtype=parameter.dtype)
            parameter.data = parameter.data + scale * z
            drawn += 1
    return drawn


def viszopro_passes(parameters: list[Tensor], previous: list[Tensor], reward: list[Tensor], slope: float = 0.5) -> int:
    """The same four passes with z = alpha p + sqrt(1 - alpha^2) u |p| / (|u| + 1e-8), u = n - (v^.n) v^, made in every one."""
    drawn = 0
    for scale in (EPSILON, -2 * EPSILON, EPSILON, -RATE * slope):
        torch.manual_seed(1)
        for parameter, p, v in zip(parameters, previous, reward, strict=True):
            n = torch.normal(0.0, 1.0, parameter.shape, dtype=parameter.dtype)
            unit = v.flatten() / v.norm()
            u = n - (torch.dot(unit, n.flatten()) * unit).view_as(n)
            u = u * p.norm() / (u.norm() + 1e-8)
            parameter.data = parameter.data + scale * (ALPHA * p + (1 - ALPHA**2) ** 0.5 * u)
            drawn += 1
    return drawn


# --- ours ------------------------------------------------------------------------------------------


def zopro_step(space: Space, guide: Any, optimizer: Along, stack_GN: Tensor, kind: Kind) -> None:
    """One direction, both stacked copies, one step."""
    z = guided(space, guide, "ref", ALPHA, 0, optimizer.done, kind=kind)
    _probe_and_move(z, space, optimizer, stack_GN)


def mezo_step(space: Space, optimizer: Along, stack_GN: Tensor, kind: Kind) -> None:
    _probe_and_move(isotropic(space, 0, optimizer.done, kind), space, optimizer, stack_GN)


def _probe_and_move(z: Any, space: Space, optimizer: Along, stack_GN: Tensor) -> None:
    z.add(EPSILON, space.theta_N, stack_GN[0])
    z.add(-EPSILON, space.theta_N, stack_GN[1])
    optimizer.moves = [(-RATE * 0.5, z)]
    optimizer.step()


def full_step(scratch: Scratch, space: Space, optimizer: Along, kind: Kind) -> None:
    """Every module perturbed twice into scratch, one step."""
    z = isotropic(space, 0, optimizer.done, kind)
    for scale in (EPSILON, -EPSILON):
        for module in scratch.owned:
            scratch.enter(module, scale, z)
            scratch.leave(module)
    optimizer.moves = [(-RATE * 0.5, z)]
    optimizer.step()


# --- measuring -------------------------------------------------------------------------------------


def alternate(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of seconds; one warm-up each, then in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - began)
    quarters = {name: statistics.quantiles(row, n=4) for name, row in times.items()}
    return {name: {"median_s": q[1], "q1_s": q[0], "q3_s": q[2], "n": rounds} for name, q in quarters.items()}


def adapters_1b(rank: int = 64) -> list[nn.Parameter]:
    """A and B of all linear layers of a model shaped like Llama-3.2-1B: 224 tensors, 45 M numbers."""
    shapes = [(2048, 2048), (2048, 512), (2048, 512), (2048, 2048), (2048, 8192), (2048, 8192), (8192, 2048)]
    sizes = [size for into, out in shapes for size in ((rank, into), (out, rank))] * 16
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(0.02 * torch.randn(size, generator=g)) for size in sizes]


def direction(rounds: int) -> dict[str, Any]:
    ours, theirs = adapters_1b(), [parameter.detach().clone() for parameter in adapters_1b()]
    space = Space([f"t{i}" for i in range(len(ours))], ours)
    g = torch.Generator().manual_seed(1)
    previous, reward = ([1e-3 * torch.randn(p.shape, generator=g) for p in ours] for _ in range(2))
    guide = frame(space, Guides(dict(zip(space.names, previous, strict=True)), dict(zip(space.names, reward, strict=True))), "ref", 0)
    optimizer, stack_GN = Along(space, 1.0), torch.zeros(2, space.segments.length)
    works = {
        "mezo, four passes": lambda: mezo_passes(theirs),
        "viszopro, four passes": lambda: viszopro_passes(theirs, previous, reward),
        "ours: zopro, gaussian": lambda: zopro_step(space, guide, optimizer, stack_GN, "gaussian"),
        "ours: zopro, signs": lambda: zopro_step(space, guide, optimizer, stack_GN, "rademacher"),
        "ours: mezo, gaussian": lambda: mezo_step(space, optimizer, stack_GN, "gaussian"),
        "ours: mezo, signs": lambda: mezo_step(space, optimizer, stack_GN, "rademacher"),
    }
    found = alternate(works, rounds)
    return {"numbers": space.count, "times": found, "ratios": _ratios(found, ("mezo, four passes", "viszopro, four passes"))}


def full(rounds: int) -> dict[str, Any]:
    from interplay.config import RunConfig
    from interplay.models import locate, read

    model = read(locate("bundled"), "CausalLM", RunConfig(), torch.float32)
    named = dict(model.named_parameters())
    theirs = [parameter.detach().clone() for parameter in named.values()]
    space = Space(list(named), list(named.values()))
    scratch, optimizer = Scratch(space, model), Along(space, 1.0)
    works = {
        "mezo, four passes": lambda: mezo_passes(theirs),
        "ours: gaussian": lambda: full_step(scratch, space, optimizer, "gaussian"),
        "ours: signs": lambda: full_step(scratch, space, optimizer, "rademacher"),
    }
    found = alternate(works, rounds)
    return {"numbers": space.count, "times": found, "ratios": _ratios(found, ("mezo, four passes",))}


def _ratios(times: dict[str, dict[str, float]], baselines: tuple[str, ...]) -> dict[str, float]:
    ours = [name for name in times if name not in baselines]
    return {f"{base} / {name}": times[base]["median_s"] / times[name]["median_s"] for base in baselines for name in ours}


def rule_and_loss(directions: int) -> tuple[Any, Any]:
    """`zopro` with guides on SmolLM2-135M in float32, rank 16, and a loss on 8 x 62 tokens."""
    from interplay import methods, models
    from interplay.config import RunConfig
    from interplay.reward_model import trainable
    from interplay.updates import Plan

    config = RunConfig(method="zopro", dtype="float32", settings={"directions": directions})
    method, loaded = methods.resolve(config), models.load(config, critic=False, reward=False)
    named = dict(trainable(loaded.policy))
    rule: Any = method.rule.build(list(named.values()), Plan(1e-9, 100, config, loaded.policy, tuple(named)), method.rule_settings)
    g = torch.Generator().manual_seed(0)
    rule.guide(Guides(*({name: 1e-3 * torch.randn(p.shape, generator=g) for name, p in named.items()} for _ in range(2))))
    return rule, loss_on(loaded.policy, method)


def plain_loss() -> Any:
    """The same loss without a rule and its buffers."""
    from interplay import methods, models
    from interplay.config import RunConfig

    config = RunConfig(dtype="float32")
    return loss_on(models.load(config, critic=False, reward=False).policy, methods.resolve(config))


def loss_on(policy: Any, method: Any) -> Any:
    from interplay import rollouts
    from interplay.objectives.base import Batch
    from interplay.policy_loss import PolicyLoss

    g = torch.Generator().manual_seed(0)
    ids_BS = torch.randint(5, 40_000, (8, 62), generator=g)
    mask_BT, group_B = torch.ones(8, 24, dtype=torch.bool), torch.arange(2).repeat_interleave(4)
    sequences = rollouts.Sequences(("",) * 8, ("",) * 8, ids_BS, torch.ones_like(ids_BS), mask_BT, mask_BT[:, 0], group_B)  # type: ignore[arg-type]
    old_BT = rollouts.scored(policy, sequences, 1.0)[0]
    batch = Batch(mask_BT, group_B, torch.randn(8, generator=g), old_BT, old_BT)
    targets = method.objective.targets(batch, method.objective_settings)
    return PolicyLoss(policy, sequences, batch, targets, method.objective, method.objective_settings, 1.0)


def update(rounds: int) -> dict[str, Any]:
    rule, loss = rule_and_loss(1)

    def forwards() -> None:
        for _ in range(2):
            loss.evaluate()

    found = alternate({"two plain forward passes": forwards, "ours: whole update": lambda: rule.step(loss)}, rounds)
    return {"times": found, "ratios": {"update / two forwards": found["ours: whole update"]["median_s"] / found["two plain forward passes"]["median_s"]}}


def batched(rounds: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for count in (1, 2, 4, 8):
        rule, loss = rule_and_loss(count)
        wide = _repeated(loss, 2 * count)
        drawn = rule.directions(0, count)
        reaches = [rule.reach(z) for z in drawn]
        works = {"plain": wide.evaluate, "stacked": lambda r=rule, d=drawn, e=reaches, q=loss: r.prober.probe(q, d, e)}
        found = alternate(works, rounds)
        rows[str(count)] = {"times": found, "plain / stacked": found["plain"]["median_s"] / found["stacked"]["median_s"]}
    return {"directions": rows, "ratios": {f"K = {count}: plain / stacked": row["plain / stacked"] for count, row in rows.items()}}


def _repeated(loss: Any, copies: int) -> Any:
    """The same loss on `copies` times the rows, with one adapter for all."""
    index = torch.arange(len(loss.batch.group_B)).repeat(copies)
    return loss.rows(index)


def memory(rounds: int) -> dict[str, Any]:
    """Peak memory of a process that does one thing `rounds` times."""
    words = [sys.executable, "-m", "benchmarks.zeroth", "--rounds", str(rounds), "--alone"]
    peaks = {name: float(subprocess.run([*words, name], check=True, capture_output=True, text=True).stdout.split()[-1]) for name in ALONE}
    plain = peaks["forward"]
    return {"peak_bytes": peaks, "ratios": {f"{name} / forward": peak / plain for name, peak in peaks.items() if name != "forward"}}


def _forward() -> Callable[[], Any]:
    loss = plain_loss()
    return loss.evaluate  # type: ignore[no-any-return]


def _zeroth_order() -> Callable[[], Any]:
    rule, loss = rule_and_loss(1)
    return lambda: rule.step(loss)


def _first_order() -> Callable[[], Any]:
    rule, loss = rule_and_loss(1)
    return lambda: rule.first.step(loss)


ALONE: dict[str, Callable[[], Callable[[], Any]]] = {"forward": _forward, "zeroth order": _zeroth_order, "first order": _first_order}


def alone(name: str, rounds: int) -> None:
    """In a process of its own: the bytes at its peak."""
    from interplay.usage import peak_memory

    work = ALONE[name]()
    for _ in range(rounds):
        work()
    print(peak_memory(torch.device("cpu")))


BENCHMARKS = {"memory": memory, "direction": direction, "full": full, "update": update, "batched": batched}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="which ones (default: all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--alone", choices=ALONE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone, arguments.rounds)
        return
    found: dict[str, Any] = {"machine": machine()}
    for name in arguments.names or BENCHMARKS:
        found[name] = BENCHMARKS[name](arguments.rounds)
        print(f"\n{name}")
        for label, row in found[name].get("times", {}).items():
            print(f"  {label:<28} {row['median_s']:8.4f} s  [{row['q1_s']:.4f}, {row['q3_s']:.4f}]")
        for label, ratio in found[name]["ratios"].items():
            print(f"  {label:<52} {ratio:7.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
