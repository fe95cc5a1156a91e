"""How a finished run becomes a shipped recording.

    python data/ship.py runs/rloo-chat-s0 data/recordings

Copies what a viewer reads and what somebody may load again (adapters of the last iteration), and
leaves out what only a resume or a new start needs (optimiser states, last updates, judged pairs) and what names a machine. The
adapters are rounded to bfloat16, which halves them; the records are copied as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from interplay.store import RunStore

SKIPPED = ("writer.lock", ".pulse", "superseded", "optimizer-*", "last-updates.safetensors", "reward_frozen", "pairs.jsonl", "COMPLETE", "state.json", "*.tmp")


def ship(run: Path, root: Path) -> Path:
    """Copy one run. Raises `SystemExit` for a run that has not finished."""
    if RunStore.open(run).status().state != "finished":
        raise SystemExit(f"{run} has not finished; only finished runs are shipped")
    place = root / run.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*SKIPPED))
    for file in place.rglob("adapter_model.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    status = json.loads((place / "status.json").read_text(encoding="utf-8"))
    (place / "status.json").write_text(json.dumps({**status, "host": None, "pid": None}, indent=1), encoding="utf-8")
    return place


def main() -> None:
    *runs, root = (Path(word) for word in sys.argv[1:])
    for run in runs:
        place = ship(run, root)
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        print(f"{place}  {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
