"""Before a run starts: will its memory and disk suffice, and how long will it take. Every line says where its number is from.

Needs are read off runs that were recorded before, the most alike first. What no run tells is `unknown`, never a guess.
"""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from app.commands.progress import about
from app.queue import queueing
from app.reading import loading
from interplay.compare import PLAN
from interplay.config import RunConfig, flag
from interplay.disk import cache_folder
from interplay.errors import InterplayError
from interplay.reading import RunReader, read_info
from interplay.store import Runs, RunSummary

GIB = 2**30
_MOST_RUNS = 60
#: Copies of the trained weights in the checkpoint of an iteration: policy and AdamW's two moments; reward model as refined and as merged; for
#: adapters the last updates of both; a critic with its moments.
_COPIES = {"policy": 3, "reward": 2, "updates": 2, "value": 3}
#: Settings that change a run's needs, the heaviest first: runs that agree in the first ones are the most alike.
_MEMORY_LIKE = ("method", "completions", "prompts", "max_new_tokens", "max_prompt_tokens", "lora_targets", "layers", "lora_rank", "dtype", "reward", "settings")
_TIME_LIKE = ("max_new_tokens", "completions", "prompts", "heldout", "pairs", "lora_targets", "layers", "lora_rank", "dtype", "settings", "threads")


@dataclass(frozen=True)
class Line:
    """One need. `fits` is None where nothing is known. `source` says where the number is from, `remedy` what to do where it does not fit."""

    what: str
    text: str
    source: str
    fits: bool | None = None
    remedy: str = ""


# --- the machine -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """What is free now, in bytes. `gpus` are names and free memory of those that jobs may use."""

    memory: int
    disk: int
    cores: int
    host: str
    name: str
    gpus: tuple[tuple[str, int], ...] = ()

    def device(self, config: RunConfig) -> str:
        return "cuda" if config.device != "cpu" and self.gpus else "cpu"


def machine(root: Path) -> Machine:
    """This machine; `root` is where runs are written."""
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = psutil.virtual_memory().available
    return Machine(free, shutil.disk_usage(place).free, len(os.sched_getaffinity(0)), socket.gethostname(), platform.machine(), _gpus())


def _gpus() -> tuple[tuple[str, int], ...]:
    """GPUs by nvidia-smi, where jobs get one and torch can use it."""
    if queueing.slots() == (queueing.CPU,) or _torch_without_cuda() or not shutil.which("nvidia-smi"):
        return ()
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=5, check=True
        )
        return tuple((row[0].strip(), int(row[1]) * 2**20) for row in csv.reader(done.stdout.splitlines()) if len(row) == 2)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _torch_without_cuda() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True


# --- what earlier runs tell --------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a recorded run tells of its needs; None where it does not."""

    run: str
    config: Mapping[str, Any]
    device: str
    name: str
    host: str | None
    peak: float | None = None  # bytes
    seconds: float | None = None  # for each update, of all roles, everything else included
    modules: Mapping[str, int] = field(default_factory=dict)
    parameters: int | None = None  # that the policy trains
    row_bytes: Mapping[str, float] = field(default_factory=dict)  # of the streams updates and directions
    k: int = 0


def seen(config: RunConfig) -> list[Seen]:
    """Recorded runs of this model, newest first: those that are shown, those that came with the project, and the rows of their comparisons."""
    roots = dict.fromkeys([*loading.roots(), loading.RECORDINGS])
    folders = [*roots, *(place.parent for root in roots if root.is_dir() for place in root.glob(f"*/{PLAN}"))]
    alike = [run for folder in folders for run in Runs(folder).list() if run.config.get("model") == config.model and run.config.get("tune") == config.tune]
    newest = sorted(alike, key=lambda run: str(run.created), reverse=True)[:_MOST_RUNS]
    return [found for run in newest if (found := _look(run))]


def _look(run: RunSummary) -> Seen | None:
    """Kept until the run says something new; None if it cannot be read."""
    try:
        return _read(str(run.path), loading.newest(run) or 0.0)
    except (InterplayError, pa.ArrowException, OSError):
        return None


@functools.lru_cache(maxsize=256)
def _read(path: str, when: float) -> Seen:  # noqa: ARG001 - `when` makes an older answer unreachable
    folder = Path(path)
    info = read_info(folder)
    reader = RunReader(folder, info)
    status = reader.status()
    metrics = reader.read("metrics", columns=["name", "value", "seconds"]).unify_dictionaries()
    peak = pc.max(metrics.filter(pc.equal(metrics["name"], "peak_memory"))["value"]).as_py()
    spent, done = pc.max(metrics["seconds"]).as_py(), status.progress.get("done")
    roles = _mapping(info.recorder.get("roles"))
    return Seen(
        f"{folder.parent.name}/{folder.name}" if (folder.parent / PLAN).exists() else folder.name,
        info.config,
        str(info.machine.get("device")),
        str(info.machine.get("name")),
        status.host,
        peak,
        spent / done if spent and isinstance(done, int) and done > 0 else None,
        {role: count for role, told in roles.items() if isinstance(count := _mapping(told).get("modules"), int)},
        _whole(_mapping(info.model.get("trained_parameters")).get("policy")),
        {stream: size for stream in ("updates", "directions") if (size := _row_bytes(folder / stream))},
        info.sketch.k,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _row_bytes(folder: Path) -> float:
    """Bytes on disk for each recorded row; 0 where there are none."""
    import pyarrow.parquet as pq

    parts = list(folder.glob("*.parquet"))
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    return sum(part.stat().st_size for part in parts) / rows if rows else 0.0


def closest(among: Iterable[Seen], config: RunConfig, like: Sequence[str]) -> tuple[list[Seen], list[str]]:
    """The runs that agree in the most important settings, and the settings in which they differ from this one."""

    def agreement(one: Seen) -> tuple[bool, ...]:
        return tuple(one.config.get(name) == getattr(config, name) for name in like)

    found = list(among)
    best = max(map(agreement, found), default=())
    return [one for one in found if agreement(one) == best], [name for name, same in zip(like, best, strict=False) if not same]


def _other(differing: Sequence[str]) -> str:
    """`; it had another --completions, --prompts`."""
    return f"; there with another {', '.join(flag(name) for name in differing)}" if differing else ""


# --- the lines ---------------------------------------------------------------------------------------


def check(config: RunConfig, runs: int, here: Machine, among: Sequence[Seen]) -> list[Line]:
    """Memory, disk and time of `runs` runs that differ in their seed alone."""
    return [memory(config, here, among), disk(config, runs, here, among), time(config, runs, here, among)]


def memory(config: RunConfig, here: Machine, among: Sequence[Seen]) -> Line:
    """Of the GPU, or of the machine where the run computes on the CPU."""
    device = here.device(config)
    if config.device == "cuda" and device == "cpu":
        return Line("Memory", "no GPU", "--device is cuda, but no GPU is seen that torch could use", False, "Use --device auto or cpu.")
    place, free = ("on " + here.gpus[0][0], max(free for _, free in here.gpus)) if device == "cuda" else ("", here.memory)
    alike, differing = closest((one for one in among if one.peak and one.device == device), config, _MEMORY_LIKE)
    if alike:
        most = max(alike, key=lambda one: one.peak or 0.0)
        source = f"the most that {most.run} used (recorded peak_memory{_other(differing)})"
        return _memory_line(most.peak or 0.0, free, place, "about", source)
    weights = model_bytes(config.model)
    if weights is None:
        return Line("Memory", f"unknown, {size(free)} free {place}".strip(), "no run of this model was recorded, and its weights are not in a folder here")
    copies = 1 if config.tune == "lora" else 2 + (config.reward == "model")
    source = f"{copies} x the weight files ({size(weights)}); what training adds is unknown until a run of this model was recorded"
    return _memory_line(weights * copies, free, place, "at least", source)


def _memory_line(need: float, free: float, place: str, how: str, source: str) -> Line:
    remedy = "Use fewer --completions or --prompts, a shorter --max-new-tokens, --tune lora, or a smaller model; or close other programs."
    return Line("Memory", f"{how} {size(need)} of {size(free)} free {place}".strip(), source, need <= free if how == "about" or need > free else None, remedy)


def model_bytes(name: str) -> int | None:
    """Bytes of the weight files of a local folder, or of the bundled model once it was unpacked; None if they are not here."""
    files = cache_folder().glob("*/model.safetensors") if name == "bundled" else Path(name).expanduser().glob("*.safetensors")
    return sum(file.stat().st_size for file in files) or None


def disk(config: RunConfig, runs: int, here: Machine, among: Sequence[Seen]) -> Line:
    """Recordings and checkpoints."""
    recorded, from_rows = recordings_bytes(config, among)
    kept, from_weights = checkpoint_bytes(config, among)
    free = f"of {size(here.disk)} free"
    if recorded is None and kept is None:
        return Line("Disk", f"unknown, {size(here.disk)} free", from_rows)
    need = ((recorded or 0.0) + (kept or 0.0)) * runs
    whole = recorded is not None and kept is not None
    return Line(
        "Disk",
        f"{'about' if whole else 'at least'} {size(need)} {free}",
        f"{from_rows}; {from_weights}",
        need <= here.disk if whole or need > here.disk else None,
        _relief(config, runs, (recorded or 0.0) > (kept or 0.0)),
    )


def _relief(config: RunConfig, runs: int, recorded: bool) -> str:
    """What to do, the settings first that most of it comes from: recordings, or else checkpoints."""
    planned = updates(config)
    fewer = "--reward-updates" if planned["reward"] > planned["policy"] else "--updates"
    checkpoints = "--keep-checkpoints last, fewer" if config.keep_checkpoints == "all" else "a smaller --lora-rank, fewer"
    ways = f"fewer {fewer} or --iterations, a smaller --sketch" if recorded else f"{checkpoints} --iterations"
    seeds = ", fewer seeds" if runs > 1 else ""
    return f"Most of it is {'recordings' if recorded else 'checkpoints'}: use {ways}{seeds}, or free some space."


def updates(config: RunConfig) -> dict[str, int]:
    """Planned optimiser steps of each role; a critic steps with the policy."""
    rounds = (not config.start_from) + (0 if config.freeze_reward else config.iterations)
    policy = config.iterations * config.updates
    return {"policy": policy, "value": policy, "reward": rounds * config.reward_updates if config.reward == "model" else 0}


def recordings_bytes(config: RunConfig, among: Sequence[Seen]) -> tuple[float | None, str]:
    """Bytes of the streams `updates` and `directions`, and where the number is from."""
    shaped = [one for one in among if one.modules and all(one.config.get(name) == getattr(config, name) for name in ("lora_targets", "layers"))]
    counted, _ = closest(shaped, config, ("method", "reward"))
    measured, _ = closest((one for one in among if {"updates", "directions"} <= set(one.row_bytes) and one.k), config, ("sketch",))
    if not counted or not measured:
        return None, "recordings: unknown, no run of this model with these --lora-targets and --layers was recorded"
    modules, planned = counted[0].modules, updates(config)
    rows = sum(count * planned.get(role, 0) for role, count in modules.items())
    one = measured[0]
    need = rows * (2 * one.row_bytes["updates"] + one.row_bytes["directions"] / one.k * config.sketch)
    return need, f"recordings {size(need)}: {rows} updates of modules, at the size of those of {one.run}"


def checkpoint_bytes(config: RunConfig, among: Sequence[Seen]) -> tuple[float | None, str]:
    """Bytes of the checkpoints that are kept, and where the number is from."""
    alike = [one for one in among if one.parameters and all(one.config.get(name) == getattr(config, name) for name in ("lora_targets", "layers"))]
    found, _ = closest(alike, config, ("method", "lora_rank"))
    if not found:
        return None, "checkpoints: unknown, no run of this model with these --lora-targets and --layers was recorded"
    one = found[0]
    rank = one.config.get("lora_rank")
    scale = config.lora_rank / rank if config.tune == "lora" and isinstance(rank, int) and rank > 0 else 1.0
    parts = [
        "policy",
        *(["reward"] if config.reward == "model" else []),
        *(["updates"] if config.tune == "lora" else []),
        *(["value"] if "value" in one.modules else []),
    ]
    each = (one.parameters or 0) * scale * 4 * sum(_COPIES[part] for part in parts)
    count = config.iterations + 1 if config.keep_checkpoints == "all" else 2
    return each * count, f"checkpoints {count} x {size(each)}: weights, moments and last updates in float32, as many trained as in {one.run}"


def time(config: RunConfig, runs: int, here: Machine, among: Sequence[Seen]) -> Line:
    """From seconds per update of earlier runs of this method; of another machine only where this one has none."""
    device = here.device(config)
    where = f"on the CPU ({here.cores} cores)" if device == "cpu" else f"on {here.gpus[0][0]}"
    timed = [one for one in among if one.seconds and one.device == device and one.config.get("method") == config.method]
    own = [one for one in timed if one.host == here.host and (device == "cpu" or one.name == here.gpus[0][0])]
    alike, differing = closest(own or timed, config, _TIME_LIKE)
    if not alike:
        return Line("Time", f"{where}: unknown", f"no run of {config.method} with this model was recorded on such a device")
    count = sum(steps for role, steps in updates(config).items() if role in _roles(alike[0]))
    pace = sum(one.seconds or 0.0 for one in alike) / len(alike)
    each = count * pace
    told = f"{count} updates at {pace:.3g} s, as in {alike[0].run}{' here' if own else ', on another machine'}{_other(differing)}"
    slots = max(1, len(here.gpus)) if device == "cuda" else 1
    total = about(each * -(-runs // slots)) + (f" for {runs} runs" if runs > 1 else "")
    return Line("Time", f"{where}: {total}" if own else f"{where}: unknown, {total.removeprefix('about ')} on another machine", told)


def _roles(one: Seen) -> set[str]:
    return set(one.modules) or {"policy", "reward"}


def size(count: float) -> str:
    """`0.3 MiB`, `512 MiB`, `3.4 GiB`, `1.5 TiB`, `1,234.5 PiB`."""
    for unit, whole in (("PiB", 2**50), ("TiB", 2**40)):
        if count >= whole:
            return f"{count / whole:,.1f} {unit}"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.{count < 10 * 2**20:d}f} MiB"
