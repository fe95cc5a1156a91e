"""Draws the figures of a folder again, from its .json files, and says whether they have the same bytes: python redraw.py [OUT]

Needs an installed Interplay and nothing else of the machine that made them. The new files go to OUT (default: redrawn, beside this file).
To change a figure, change its .json; to change its size, change manifest.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from analysis import paper, spec_json


def main(words: Sequence[str], here: Path) -> int:
    """Returns the exit status: 0 if all files have the same bytes."""
    out = Path(words[0]) if words else here / "redrawn"
    out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    same = [redraw(here, out, figure, manifest["venue"]) for figure in manifest["figures"]]
    if not all(same):
        made_with, has = manifest["versions"], {name: version(name) for name in manifest["versions"]}
        print("other versions draw other bytes:" if has != made_with else "the .json or the files were changed;", f"made with {made_with}, here are {has}")
    return 0 if all(same) else 1


def redraw(here: Path, out: Path, figure: dict[str, Any], venue: str) -> bool:
    """One figure in all formats for paper."""
    name = Path(figure["file"]).name  # a name and no path, whoever wrote the manifest
    spec = spec_json.loads((here / f"{name}.json").read_text(encoding="utf-8"))
    same = []
    for kind in paper.FORMATS:
        made, old = out / f"{name}.{kind}", here / f"{name}.{kind}"
        made.write_bytes(paper.render(spec, kind, venue=venue, width=figure["width"], height=figure["height"]))
        same.append(old.is_file() and made.read_bytes() == old.read_bytes())
        print(f"{made.name}: {'the same bytes' if same[-1] else 'other bytes'}")
    return all(same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent))
