"""Does training teach anything? Held-out change of each method over seeds, with intervals.

    python -m benchmarks.learning runs/rloo-chat-s0 runs/rloo-chat-s1 ... --json learning.json

Reads finished runs. For every held-out prompt the score after the last iteration minus the score
before training (same prompt, same sampling seed); the mean over prompts is one number for a seed.
Printed: the mean over seeds and its 95 % interval by Student's t over seeds, which is the honest unit
of repetition; and each seed's own interval over prompts. Judges: gold, and frozen reward model 0 of
that seed. Reward models have no common scale (here their spreads differ by a factor of two), so the
proxy's change is divided by the spread of that model's scores over prompts before training. For
judged pairs: the implicit-reward margin in nats, which is zero before training.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from interplay.store import RunStore


def heldout(store: RunStore) -> pd.DataFrame:
    """Completions of held-out prompts: iteration, prompt_id, gold, proxy, kl."""
    frame = store.read("completions", columns=["iteration", "split", "prompt_id", "gold", "proxy", "kl"]).to_pandas()
    return frame[frame["split"] == "heldout"]


def changes(store: RunStore) -> dict[str, Any]:
    """Mean change over prompts and its 95 % interval, for each judge, and what stands beside it."""
    frame = heldout(store)
    before = frame[frame["iteration"] == 0].set_index("prompt_id")
    after = frame[frame["iteration"] == frame["iteration"].max()].set_index("prompt_id").loc[before.index]
    found: dict[str, Any] = {"prompts": len(before), "kl": float(after["kl"].mean())}
    units = {"proxy": float(before["proxy"].std()), "gold": 1.0}
    for judge, unit in units.items():
        found[judge] = interval((after[judge] - before[judge]).to_numpy(dtype=float) / unit)
    found["proxy_raw"] = {"before": float(before["proxy"].mean()), "after": float(after["proxy"].mean()), "sd_before": units["proxy"]}
    metrics = store.read("metrics", columns=["iteration", "split", "name", "value"]).to_pandas()
    last = metrics[(metrics["split"] == "heldout") & (metrics["iteration"] == metrics["iteration"].max())].set_index("name")["value"]
    margin, spread = last.get("pair_margin"), last.get("pair_margin_se")
    found["pair_margin"] = None if margin is None else {"mean": margin, "low": margin - 1.96 * spread, "high": margin + 1.96 * spread}
    return {**found, "alarm": float(last["alarm"]), "finished": float(last["finished"]), "length": float(last["length"])}


def interval(values_N: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval by Student's t; no interval for a single value."""
    mean = float(values_N.mean())
    if len(values_N) < 2:
        return {"mean": mean, "low": float("nan"), "high": float("nan")}
    reach = float(stats.t.ppf(0.975, len(values_N) - 1) * values_N.std(ddof=1) / len(values_N) ** 0.5)
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def table(paths: list[Path]) -> dict[str, Any]:
    """method -> seeds and the interval over them."""
    seeds: dict[str, dict[int, Any]] = defaultdict(dict)
    for path in paths:
        store = RunStore.open(path)
        config = store.info.config
        seeds[f"{config['method']} on {config['task']}"][config["seed"]] = changes(store)
    return {name: {"seeds": rows, "over_seeds": _over_seeds(rows)} for name, rows in seeds.items()}


def _over_seeds(rows: dict[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {judge: interval(np.array([row[judge]["mean"] for row in rows.values()])) for judge in ("proxy", "gold")}
    if all(row["pair_margin"] for row in rows.values()):
        found["pair_margin"] = interval(np.array([row["pair_margin"]["mean"] for row in rows.values()]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = table(arguments.runs)
    for name, part in found.items():
        print(f"\n{name}: {len(part['seeds'])} seeds")
        for judge, row in part["over_seeds"].items():
            print(f"  {judge:<12} {row['mean']:+.3f}  95 % over seeds [{row['low']:+.3f}, {row['high']:+.3f}]")
        for seed, row in sorted(part["seeds"].items()):
            words = "  ".join(f"{k} {row[k]['mean']:+.3f} [{row[k]['low']:+.3f}, {row[k]['high']:+.3f}]" for k in ("proxy", "gold", "pair_margin") if row[k])
            print(f"    seed {seed}: {words}  KL {row['kl']:.2f}  finished {row['finished']:.2f}  alarm {row['alarm']:.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
