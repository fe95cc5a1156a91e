"""What recording costs in real updates of the engine: the loop's own rollouts, losses and steps.

    python -m benchmarks.updates --method rloo --json rloo.json

The baseline is the same run with the recorder detached; recorded and unrecorded updates alternate in
one process, each on its own rollout batch of the same size. An update is the whole of it: sampling
8 completions of 24 tokens, scoring them, the loss, the gradient and the step. For PPO an update is a
minibatch step on a rollout batch that serves two inner epochs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.recorder import machine
from interplay import loop, session
from interplay.config import RunConfig
from interplay.session import Session, silent


def updates(run: Session, number: int) -> tuple[float, int]:
    """Seconds of one rollout batch with all its updates, and how many updates those were."""
    began, before = time.perf_counter(), run.done
    experience = loop.gather(run, number, ())
    targets = run.method.objective.targets(experience.batch, run.method.objective_settings)
    for index in loop.minibatches(run, experience.batch, number):
        loop.update(run, experience, targets, index)
    run.store.flush()
    return time.perf_counter() - began, run.done - before


def measure(config: RunConfig, rounds: int) -> dict[str, Any]:
    """Alternate recorded and unrecorded rollout batches; the first of each is a warm-up."""
    store = session.create_store(config)
    run = session.build(config, store, silent)
    times: dict[str, list[float]] = {"recorded": [], "unrecorded": []}
    hooks: list[float] = []
    recorded = 0
    for number in range(rounds + 1):
        attachments = session.attach(run)
        before = run.recorder.seconds
        seconds, count = updates(run, 2 * number)
        hook = (run.recorder.seconds - before) / count
        recorded += count
        for attachment in attachments:
            attachment.detach()
        plain, _ = updates(run, 2 * number + 1)
        if number:
            times["recorded"].append(seconds / count)
            times["unrecorded"].append(plain / count)
            hooks.append(hook)
    store.close("finished")
    size = sum(path.stat().st_size for name in ("updates", "directions") for path in (store.path / name).rglob("*.parquet"))
    return _summary(times, hooks, size / recorded)


def _summary(times: dict[str, list[float]], hooks: list[float], size: float) -> dict[str, Any]:
    table: dict[str, Any] = {name: _spread(values) for name, values in {**times, "in_hooks": hooks}.items()}
    table["ratio"] = table["recorded"]["median_s"] / table["unrecorded"]["median_s"]
    table["share_in_hooks"] = statistics.median(h / t for h, t in zip(hooks, times["recorded"], strict=True))
    table["megabytes_per_update"] = size / 1e6
    return table


def _spread(values: list[float]) -> dict[str, float]:
    quarters = statistics.quantiles(values, n=4)
    return {"median_s": statistics.median(values), "iqr_s": quarters[2] - quarters[0], "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="rloo")
    parser.add_argument("--rounds", type=int, default=12, help="recorded rollout batches; as many unrecorded ones (default 12)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interplay-bench-") as folder:
        config = RunConfig(method=arguments.method, out=f"{folder}/run", inner_epochs=2 if arguments.method == "ppo" else 1)
        found = measure(config, arguments.rounds) | {"environment": machine(), "arguments": {"method": arguments.method, "rounds": arguments.rounds}}
    for name in ("recorded", "unrecorded", "in_hooks"):
        row = found[name]
        print(f"{name:<12} {row['median_s']:8.4f} s per update   iqr {row['iqr_s']:8.4f} s   n {row['n']}")
    print(f"recorded / unrecorded {found['ratio']:.3f}   in hooks {found['share_in_hooks']:.2%}   {found['megabytes_per_update']:.3f} MB per update")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
