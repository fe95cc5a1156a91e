"""Run every benchmark on this machine: `make bench`, or `python -m benchmarks --out DIR`.

Each runs as a process of its own with the same settings as `interplay train` (allocator, threads),
prints its table and writes `NAME.json` with versions and machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from app.cli import PROCESS

BENCHMARKS = {
    "recorder-synthetic": ["benchmarks.recorder", "--synthetic", "--updates", "30"],
    "recorder-rloo": ["benchmarks.updates", "--method", "rloo"],
    "epsilon": ["benchmarks.epsilon"],
    "zeroth": ["benchmarks.zeroth", "--rounds", "5"],
    "analysis": ["benchmarks.analysis", "--rounds", "1"],
    "recorder-ppo": ["benchmarks.updates", "--method", "ppo"],
    "dashboard": ["benchmarks.dashboard"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the JSON files")
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="which ones (default: all)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in arguments.names or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        words = [sys.executable, "-m", *BENCHMARKS[name], "--json", str(arguments.out / f"{name}.json")]
        failed += subprocess.run(words, env={**os.environ, **PROCESS}, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
