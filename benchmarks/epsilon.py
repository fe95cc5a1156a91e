"""How far should a probe reach? Finite differences against exact slopes, over a range of epsilon.

    python -m benchmarks.epsilon --directions 8 --json epsilon.json

On one rollout batch at the end of a run (`--from RUN`, or one iteration of rloo that is made first): for directions of `mezo` (isotropic) and of `zopro`,
the slope by differences at each epsilon and the exact one by forward-mode differentiation. Printed:
relative error (root mean square over directions, over the root mean square of exact slopes), and how
many signs agree. Too small an epsilon drowns in rounding, too large a one in curvature; the flat part
between is where a rule should probe, and its middle is picked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recorder import machine
from interplay import loop, session, starting
from interplay.config import RunConfig
from interplay.directions import Direction
from interplay.policy_loss import PolicyLoss
from interplay.session import Session, silent
from interplay.store import RunStore
from interplay.updates import Plan, find

GRID = np.logspace(-7, -1, 13)


def sweep(run: Session, kind: str, count: int) -> dict[str, Any]:
    """Error and agreement of signs at every epsilon of the grid."""
    loss = batch_loss(run)
    rule, anchor = run.policy, exact_rule(run)
    directions: list[Direction] = rule.directions(0, count)  # type: ignore[attr-defined] # zeroth-order rules have it
    exact_D = np.array([anchor.slope(loss, z)[1] for z in directions])
    length = float(rule.space.theta_N.norm())  # type: ignore[attr-defined]
    rows = []
    for epsilon in GRID:
        probes = rule.prober.probe(loss, directions, [epsilon * length / z.norm for z in directions])  # type: ignore[attr-defined]
        found_D = np.array([probe.slope for probe in probes])
        error = float(np.sqrt(np.mean((found_D - exact_D) ** 2) / np.mean(exact_D**2)))
        rows.append({"epsilon": float(epsilon), "relative_error": error, "signs": int((np.sign(found_D) == np.sign(exact_D)).sum())})
    return {"directions": kind, "count": count, "rows": rows, "picked": flat_middle(rows)}


def flat_middle(rows: list[dict[str, Any]]) -> float:
    """Geometric middle of the epsilons whose error is within twice the smallest."""
    best = min(row["relative_error"] for row in rows)
    flat = [row["epsilon"] for row in rows if row["relative_error"] <= 2 * best]
    return float(np.exp(np.mean(np.log(flat))))


def batch_loss(run: Session) -> PolicyLoss:
    """The objective on a fresh rollout batch."""
    experience = loop.gather(run, 0, ())
    objective, settings = run.method.objective, run.method.objective_settings
    targets = objective.targets(experience.batch, settings)
    return PolicyLoss(run.models.policy, experience.sequences, experience.batch, targets, objective, settings, run.config.temperature)


def exact_rule(run: Session) -> Any:
    """Forward-mode slopes at the same tensors."""
    rule, policy = find("forward_gradient"), run.models.policy
    made = rule.build(run.policy.space.parameters, Plan(1.0, 1, run.config, policy, run.policy.space.names), rule.settings())  # type: ignore[attr-defined]
    run.policy.space = made.space  # type: ignore[attr-defined] # both look at the same buffer
    run.policy.prober.space = made.space  # type: ignore[attr-defined]
    return made


def opened(source: Path, method: str, folder: str) -> Session:
    """A session at the end of a recorded run, under a zeroth-order method."""
    earlier = RunStore.open(source).info.config
    typed = {"method": method, "start_from": str(source), "out": f"{folder}/{method}", "dtype": "float32"}
    config = RunConfig.from_mapping(RunConfig.continuing(earlier, typed))
    run = session.build(config, session.create_store(config), silent)
    start = starting.find(config)
    assert start is not None
    starting.apply(run, start)
    run.policy.guide(run.guides)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, help="a recorded run with two iterations (default: one is made)")
    parser.add_argument("--directions", type=int, default=8, help="directions of each kind (default 8)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source or loop.train(RunConfig(iterations=1, learning_rate=2e-3, heldout=2, out=f"{folder}/start"))
        for method in ("mezo", "zopro"):
            run = opened(source, method, folder)
            found.append(sweep(run, method, arguments.directions))
            run.store.close("finished")
            print(f"\n{method}: epsilon (share of the weights' norm), relative error, signs that agree of {arguments.directions}")
            for row in found[-1]["rows"]:
                print(f"  {row['epsilon']:.1e}  {row['relative_error']:9.4f}  {row['signs']}")
            print(f"  middle of the flat part: {found[-1]['picked']:.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "kinds": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
