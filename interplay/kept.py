"""Which iterations of a run were kept, and `RUN@ITERATION`: the name of one of them. Names and sizes only, so no torch."""

from __future__ import annotations

import json
from pathlib import Path

from interplay.reading import RUN

FOLDER, SEAL = "checkpoints", "COMPLETE"


def complete(folder: Path) -> bool:
    """Every file that COMPLETE lists is there with its size."""
    try:
        sizes = json.loads((folder / SEAL).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def place(run: Path, iteration: int) -> Path:
    """Where a run keeps an iteration."""
    return run / FOLDER / f"iteration-{iteration}"


def numbers(root: Path) -> list[int]:
    """The iterations that a folder of checkpoints has folders of, newest first, complete or not."""
    return sorted((int(path.name[10:]) for path in root.glob("iteration-*") if path.name[10:].isdecimal()), reverse=True)


def parted(start: str) -> tuple[Path, int | None]:
    """`runs/a@3` -> the run and the iteration; the iteration is None where only the run is named. A run whose own name ends so comes first."""
    run, _, number = start.rpartition("@")
    if run and number.isascii() and number.isdecimal() and len(number) < 7 and not (Path(start) / RUN).is_file():
        return Path(run), int(number)
    return Path(start), None


def named(run: Path, iteration: int) -> str:
    """The words that `parted` takes apart."""
    return f"{run}@{iteration}"
