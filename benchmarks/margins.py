"""Does a trained policy prefer the better answer on held-out prompts? Many fresh pairs, one number.

    python -m benchmarks.margins data/recordings/dpo-chat-s0 --per-prompt 4

A run scores itself on few held-out pairs, which leaves wide intervals. This makes `--per-prompt` new
pairs for every held-out prompt with the untrained policy, has the task's gold score order them, and
measures the trained policy's implicit-reward margin (sum over tokens of log policy minus log
reference, better minus worse answer; exactly zero before training). Pairs of one prompt are averaged
first, so that the interval is over prompts.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks.learning import interval
from interplay import checkpoints, data, judges, models, pairing, rollouts, tasks
from interplay.config import RunConfig
from interplay.store import RunStore
from interplay.tasks import Pair


def fresh_pairs(loaded: models.Models, config: RunConfig, per_prompt: int) -> list[Pair]:
    """Judged pairs on held-out prompts from the untrained policy, with seeds no run uses."""
    task = tasks.find(config.task)
    prompts = data.load(config, task).heldout
    judge = judges.find(config.with_(judge="gold"), task, loaded)
    pairs: list[Pair] = []
    for number in range(per_prompt):
        pairs += judges.decide(judge, pairing.candidates(loaded, prompts, config, 2**31 + number)).pairs
    return pairs


def margins(loaded: models.Models, config: RunConfig, pairs: list[Pair]) -> list[float]:
    """Implicit-reward margin of each pair, in nats."""
    found: list[float] = []
    for start in range(0, len(pairs), 16):
        part = rollouts.written_pairs(loaded, pairs[start : start + 16], config)
        with torch.no_grad():
            ours_BT, _ = rollouts.token_logprobs(loaded.policy, part, config.temperature)
        implicit_B = ((ours_BT - rollouts.reference_logprobs(loaded, part, config.temperature)) * part.mask_BT).sum(-1)
        found += (implicit_B[0::2] - implicit_B[1::2]).tolist()
    return found


def measure(run: Path, per_prompt: int) -> dict[str, Any]:
    config = RunConfig.from_mapping(RunStore.open(run).info.config)
    loaded = models.load(config, critic=False, reward=False)
    pairs = fresh_pairs(loaded, config, per_prompt)
    last = max((run / "checkpoints").glob("iteration-*"), key=lambda p: int(p.name.removeprefix("iteration-")))
    checkpoints.assign_from(loaded.policy, last / "policy")
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for pair, margin in zip(pairs, margins(loaded, config, pairs), strict=True):
        by_prompt[pair.prompt.id].append(margin)
    flat = [margin for row in by_prompt.values() for margin in row]
    return {
        "run": run.name,
        "pairs": len(flat),
        "prompts": len(by_prompt),
        "margin": interval(np.array([fmean(row) for row in by_prompt.values()])),
        "accuracy": fmean(margin > 0 for margin in flat),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--per-prompt", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [measure(run, arguments.per_prompt) for run in arguments.runs]
    for row in rows:
        m = row["margin"]
        print(f"{row['run']}: margin {m['mean']:+.3f} nats, 95 % [{m['low']:+.3f}, {m['high']:+.3f}], {row['pairs']} pairs on {row['prompts']} prompts")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
