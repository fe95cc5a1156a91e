"""Adapters and weights of an iteration, complete or absent, and everything needed to go on from it.

    checkpoints/iteration-2/policy/ reward/ reward_merged/ value/   PEFT adapters or safetensors models
                            last-updates.safetensors                what the iteration did to policy and reward model
                            optimizer-policy.safetensors ...        optimiser state
                            pairs.jsonl, state.json                 judged pairs; clock, counters, baseline
                            COMPLETE                                sizes of all files, written last

A folder is written aside and renamed; one without a matching COMPLETE is skipped and said to be.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from interplay import kept
from interplay.directions import Guides
from interplay.errors import StoreError
from interplay.kept import complete as complete
from interplay.models import Models
from interplay.reward_model import Weights, assign, trainable, using
from interplay.tasks import Pair, Prompt

_WEIGHTS = "weights.safetensors"
_GUIDES_FILE, _GUIDES = "last-updates.safetensors", ("previous", "reward")


@dataclass(frozen=True)
class Loaded:
    """A complete checkpoint, read."""

    iteration: int
    state: dict[str, Any]
    pairs: tuple[Pair, ...]
    folder: Path


# --- writing ---------------------------------------------------------------------------------------


def save(
    root: Path,
    iteration: int,
    models: Models,
    *,
    reward_unmerged: Weights | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
    pairs: Sequence[Pair],
    state: Mapping[str, Any],
    guides: Guides | None = None,
    frozen: Weights | None = None,
) -> Path:
    """Write one iteration. `frozen` is given where reward model 0 is another run's.

    Raises `StoreError` (disk full, not writable); nothing half-written stays.
    """
    folder, aside = root / f"iteration-{iteration}", root / f".iteration-{iteration}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _save_models(aside, models, reward_unmerged)
        if frozen is not None:
            with using(models.reward, frozen):
                _save_model(models.reward, aside / "reward_frozen", models)
        if guides is not None:
            save_file({f"{kind}/{name}": t.contiguous() for kind in _GUIDES for name, t in getattr(guides, kind).items()}, aside / _GUIDES_FILE)
        for name, optimizer in optimizers.items():
            save_file(_optimizer_tensors(optimizer), aside / f"optimizer-{name}.safetensors")
        (aside / "pairs.jsonl").write_text("".join(json.dumps(_pair_row(pair), ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
        (aside / "state.json").write_text(json.dumps(dict(state), indent=1), encoding="utf-8")
        _seal(aside)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(f"the checkpoint {folder.name} cannot be written: {error.strerror or error}; free space, or choose another --out") from error
    return folder


def _save_models(folder: Path, models: Models, reward_unmerged: Weights | None) -> None:
    _save_model(models.policy, folder / "policy", models)
    if models.reward is not None:
        _save_model(models.reward, folder / "reward_merged", models)
        with using(models.reward, reward_unmerged if reward_unmerged is not None else dict(trainable(models.reward))):
            _save_model(models.reward, folder / "reward", models)
    if models.critic is not None:
        _save_model(models.critic, folder / "value", models)


def _save_model(model: Any, folder: Path, models: Models) -> None:
    """A PEFT adapter under the base's name as typed (no path of this machine), or the whole model."""
    if hasattr(model, "peft_config"):
        for config in model.peft_config.values():
            config.base_model_name_or_path = models.source.name
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        folder.mkdir(parents=True)
        save_file({name: parameter.detach().contiguous() for name, parameter in trainable(model)}, folder / _WEIGHTS)
        model.config.save_pretrained(folder)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`INDEX.NAME` -> tensor for every entry of the optimiser's state."""
    found = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            found[f"{index}.{name}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return found


def _seal(folder: Path) -> None:
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    (folder / kept.SEAL).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def prune(root: Path, keep: Iterable[int]) -> None:
    """Remove all iterations but some."""
    kept = {f"iteration-{number}" for number in keep}
    for folder in root.glob("iteration-*"):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


# --- reading ---------------------------------------------------------------------------------------


def last(root: Path, only: int | None = None) -> Loaded | None:
    """The newest complete iteration, or the `only` one that will do; None if there is none. Warns of incomplete ones that are newer."""
    for number in kept.numbers(root) if only is None else [only]:
        folder = root / f"iteration-{number}"
        if complete(folder):
            lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").split("\n")
            return Loaded(number, json.loads((folder / "state.json").read_text()), tuple(_pair(json.loads(line)) for line in lines if line), folder)
        if only is None:
            warnings.warn(f"the checkpoint {folder} is incomplete and is left out", stacklevel=2)
    return None


def restore(checkpoint: Loaded, models: Models) -> Weights | None:
    """Put the weights back; returns the un-merged reward weights that the next merge needs."""
    assign_from(models.policy, checkpoint.folder / "policy")
    if models.critic is not None:
        assign_from(models.critic, checkpoint.folder / "value")
    if models.reward is None:
        return None
    assign_from(models.reward, checkpoint.folder / "reward_merged")
    return read(models.reward, checkpoint.folder / "reward")


def frozen_folder(root: Path, iteration: int = 0) -> Path:
    """Where a run keeps frozen reward model 0: its own, that of the run it started from, or a copy beside the last iteration."""
    places = (root / "iteration-0" / "reward_frozen", root / "iteration-0" / "reward", root / f"iteration-{iteration}" / "reward_frozen")
    return next((place for place in places if place.is_dir()), places[1])


def keep_frozen(root: Path, iteration: int) -> None:
    """Copy frozen reward model 0 to the last iteration, before iteration 0 is removed."""
    source, place = frozen_folder(root), root / f"iteration-{iteration}" / "reward_frozen"
    if source.is_dir():
        shutil.copytree(source, place, dirs_exist_ok=True)


def read_guides(folder: Path) -> Guides | None:
    """What the iteration did to policy and reward model, if it was written down."""
    if not (folder / _GUIDES_FILE).is_file():
        return None
    found: dict[str, Weights] = {kind: {} for kind in _GUIDES}
    for key, tensor in load_file(folder / _GUIDES_FILE).items():
        kind, name = key.split("/", 1)
        found[kind][name] = tensor
    return Guides(**found)


def assign_from(model: Any, folder: Path) -> None:
    assign(model, read(model, folder))


def read(model: Any, folder: Path) -> Weights:
    """The trained weights in a checkpoint's folder under the model's own parameter names.

    Copied out of the file's memory, where tensors lie at any address: matrix products round differently
    there, and a resumed run would no longer repeat the other to the last bit.
    """
    tensors = load_file(folder / ("adapter_model.safetensors" if hasattr(model, "peft_config") else _WEIGHTS))
    return {name: tensors[stored(model, name)].to(parameter.device, copy=True) for name, parameter in trainable(model)}


def stored(model: Any, name: str) -> str:
    """A parameter's name in a file: PEFT drops the adapter's name from what it saves."""
    if not hasattr(model, "peft_config"):
        return name
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.").replace(".modules_to_save.default.", ".")


def restore_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Load AdamW's state; the learning rate and settings stay the run's own."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in load_file(file).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# --- pairs -----------------------------------------------------------------------------------------


def _pair_row(pair: Pair) -> dict[str, Any]:
    prompt = pair.prompt
    row = {"prompt_id": prompt.id, "text": prompt.text, "messages": [dict(m) for m in prompt.messages], "reference": prompt.reference}
    return {**row, "chosen": pair.chosen, "rejected": pair.rejected, "margin": pair.margin, "ended": list(pair.ended)}


def _pair(row: Mapping[str, Any]) -> Pair:
    prompt = Prompt(row["prompt_id"], row["text"], tuple(row["messages"]), row["reference"])
    return Pair(prompt, row["chosen"], row["rejected"], row["margin"], (row["ended"][0], row["ended"][1]))
