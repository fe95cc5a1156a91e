"""How a finished run, or a finished comparison, becomes a shipped recording.

    python data/ship.py runs/rloo-chat-s0 data/recordings
    python data/ship.py runs/comparison data/recordings

Of a comparison only metrics and completions are copied: what its table is made of.
Of a run, copies what a viewer reads and what somebody may load again (adapters of the last iteration), and
leaves out what only a resume or a new start needs (optimiser states, last updates, judged pairs) and what names a machine. The
adapters are rounded to bfloat16, which halves them; the records are copied as they are.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from interplay import compare
from interplay.reading import RUN, STATUS
from interplay.store import RunStore

SKIPPED = ("writer.lock", ".pulse", "superseded", "optimizer-*", "last-updates.safetensors", "reward_frozen", "reward_merged", "pairs.jsonl", "COMPLETE", "state.json", "*.tmp")


def ship(run: Path, root: Path) -> Path:
    """Copy one run, or all rows of a comparison. Raises `SystemExit` for one that has not finished."""
    return _comparison(run, root / run.name) if (run / compare.PLAN).is_file() else _run(run, root / run.name)


def _refuse_unfinished(run: Path) -> None:
    if RunStore.open(run).status().state != "finished":
        raise SystemExit(f"{run} has not finished; only finished runs are shipped")


def _comparison(out: Path, place: Path) -> Path:
    plan = compare.read(out)
    assert plan is not None
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    names = json.loads((out / compare.PLAN).read_text(encoding="utf-8"))["out"], f"runs/{place.name}"
    _copy_words(out / compare.PLAN, place / compare.PLAN, *names)
    for row in plan.rows:
        _refuse_unfinished(row.folder)
        for stream in ("metrics", "completions"):
            shutil.copytree(row.folder / stream, place / row.name / stream)
        for name in (RUN, STATUS):
            _copy_words(row.folder / name, place / row.name / name, *names)
        _forget_machine(place / row.name)
    return place


def _copy_words(source: Path, target: Path, was: str, now: str) -> None:
    """A text with the comparison's folder named as anybody would name it."""
    target.write_text(source.read_text(encoding="utf-8").replace(was, now), encoding="utf-8")


def _run(run: Path, place: Path) -> Path:
    _refuse_unfinished(run)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*SKIPPED))
    for file in place.rglob("adapter_model.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    _forget_machine(place)
    return place


def _forget_machine(place: Path) -> None:
    status = json.loads((place / STATUS).read_text(encoding="utf-8"))
    (place / STATUS).write_text(json.dumps({**status, "host": None, "pid": None}, indent=1), encoding="utf-8")


def main() -> None:
    *runs, root = (Path(word) for word in sys.argv[1:])
    for run in runs:
        place = ship(run, root)
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        print(f"{place}  {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
