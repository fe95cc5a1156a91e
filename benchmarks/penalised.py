"""How the arms of comparisons stand under a reward that punishes overshoot: held-out score minus a price for every nat of KL.

    python -m benchmarks.penalised data/recordings/comparison data/recordings/comparison-penalised --price 1 --json penalised.json

Reads the finished rows of comparisons that share one warm start. For every held-out prompt, frozen reward model 0's score of the completion
minus `price` times its KL to the reference (log policy minus log reference, summed over its tokens): at the end minus at the start, mean over
prompts. Printed for each arm: the mean over seeds with its 95 % interval by Student's t, and the differences of all arms from `--against`,
paired by seed. In units of the reward model's score.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.uncertainty import interval_over_seeds
from app.reading import recorded
from app.reading.recorded import Recorded

Changes = dict[str, dict[int, float]]


def penalised(completions: pd.DataFrame, price: float) -> float:
    """Change of the penalised score from iteration 0 to the last one, mean over the prompts that both have."""
    heldout = completions[completions["split"] == "heldout"]
    scores = heldout.assign(net=heldout["proxy"] - price * heldout["kl"]).pivot_table(index="prompt_id", columns="iteration", values="net", observed=True)
    return float((scores[scores.columns.max()] - scores[scores.columns.min()]).dropna().mean())


def changes(rows: Iterable[Recorded], price: float) -> Changes:
    """arm -> seed -> change."""
    found: Changes = {}
    for row in rows:
        found.setdefault(row.method, {})[row.seed] = penalised(row.frame("completions"), price)
    return found


def told(values: Iterable[float]) -> dict[str, Any]:
    listed = [*values]
    interval = interval_over_seeds(listed)
    return {"mean": float(np.mean(listed)), "low": interval.low, "high": interval.high, "seeds": len(listed)}


def summary(found: Changes, against: str, seeds: Iterable[int]) -> dict[str, Any]:
    """Each arm's change over these seeds, and each arm minus each of the others that `against` names."""
    chosen = {arm: {seed: value for seed, value in rows.items() if seed in set(seeds)} for arm, rows in found.items()}
    base = chosen[against]
    paired = {arm: [value - base[seed] for seed, value in rows.items() if seed in base] for arm, rows in chosen.items() if arm != against}
    return {"changes": {arm: told(rows.values()) for arm, rows in chosen.items()}, "differences": {arm: told(rows) for arm, rows in paired.items() if rows}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of comparisons from one warm start")
    parser.add_argument("--price", type=float, default=1.0, help="units of the score that a nat of KL costs (default 1)")
    parser.add_argument("--against", default="extrapolate", help="the arm that all others are held against (default extrapolate)")
    parser.add_argument("--seeds", default="0-2", help="first and last seed (default 0-2)")
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split("-"))
    rows = [row for folder in arguments.folders for row in recorded.of_comparison(folder)]
    found = summary(changes(rows, arguments.price), arguments.against, range(first, last + 1))
    for title, part in (("change from the start", found["changes"]), (f"minus {arguments.against}, paired by seed", found["differences"])):
        print(f"{title}, score minus {arguments.price:g} x KL")
        for arm, one in part.items():
            print(f"  {arm:<24} {one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]  {one['seeds']} seeds")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"price": arguments.price, "against": arguments.against, **found}, indent=1))


if __name__ == "__main__":
    main()
