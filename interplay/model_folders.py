"""What a typed model is: the bundled one, a folder here, or an id of the hub; and whether a folder can be one.

Without torch and without loading anything, so that a form can say at once what a run would say later.
"""

from __future__ import annotations

import json
from pathlib import Path

from interplay.errors import ModelError, nearest

BUNDLED = "bundled"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def check(name: str, *, argument: str = "--model") -> None:
    """Raises `ModelError` for a folder that cannot be used, be it the base of an adapter; what the hub has is not asked."""
    folder = None if name == BUNDLED else find(name, argument)
    base = folder and base_of(folder, name, argument)
    if base:
        check(base, argument=f"base of {argument} {name}")


def find(name: str, argument: str) -> Path | None:
    """The folder that is meant; None for an id of the hub. Raises `ModelError` where there is no such folder."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{argument} is {name!r}, which is a file; give the folder that holds config.json and *.safetensors")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name:
        near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise ModelError(f"{argument} is {name!r}, but there is no such folder{near}; give a local model folder, a hub id or `bundled`")
    return None


def base_of(path: Path, name: str, argument: str) -> str | None:
    """The base that an adapter names; None for a whole model. Raises `ModelError` where the folder holds neither."""
    if not (path / "adapter_config.json").is_file():
        _refuse_no_model(path, name, argument)
        return None
    if not (path / "adapter_model.safetensors").is_file():
        raise ModelError(f"{argument} is {name!r}, an adapter without adapter_model.safetensors; save it again with safe_serialization=True")
    try:
        return str(json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{argument} is {name!r}, whose adapter_config.json names no base model ({first_line(error)}); save the adapter again") from error


def _refuse_no_model(path: Path, name: str, argument: str) -> None:
    if not (path / "config.json").is_file():
        inside = ", ".join(sorted(p.name for p in path.iterdir())[:6]) or "nothing"
        raise ModelError(f"{argument} is {name!r}, but that folder holds no config.json (it holds {inside}); give a transformers model folder")
    if not list(path.glob("*.safetensors")):
        pickles = [p.name for p in path.iterdir() if p.suffix in _PICKLES]
        why = f"only {pickles[0]}, a pickle file that could run code" if pickles else "no weights"
        raise ModelError(f"{argument} is {name!r}, which holds {why}; convert it with `model.save_pretrained(folder, safe_serialization=True)`")


def first_line(error: Exception) -> str:
    """What a library's error says first, for the middle of a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
