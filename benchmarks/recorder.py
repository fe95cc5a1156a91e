"""What recording costs: recorded and unrecorded updates of the same work, alternating in one run.

    python benchmarks/recorder.py --synthetic --updates 20 --json recorder.json
    python benchmarks/recorder.py --model DIR --updates 20

`--model` takes optimiser steps of a language model with rank-16 adapters on a fixed batch, and
compares their times with and without the recorder. `--synthetic` needs no model: tensors in the
shapes of SmolLM2-135M's adapters, so that the ratio is that of hooks to a bare AdamW step. Gradients
or tokens are drawn once; nothing here learns anything.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interplay.recorder import UpdateRecorder
from interplay.records import RunInfo, SketchSpec
from interplay.store import RunStore

Work = Callable[[], None]


class _Adapter(nn.Module):
    """A and B under the names that peft gives them."""

    def __init__(self, m: int, n: int, r: int) -> None:
        super().__init__()
        self.lora_A = nn.ModuleDict({"default": nn.Linear(n, r, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(r, m, bias=False)})
        self.scaling = {"default": 2.0}


def synthetic(layers: int = 30, hidden: int = 576, kv: int = 192, mlp: int = 1536, r: int = 16) -> nn.Module:
    """The adapters of SmolLM2-135M on all linear layers: 210 modules, 420 tensors, 4.9 million numbers."""
    shapes = {"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, hidden)}
    shapes |= {"gate_proj": (mlp, hidden), "up_proj": (mlp, hidden), "down_proj": (hidden, mlp)}
    blocks = [nn.ModuleDict({name: _Adapter(m, n, r) for name, (m, n) in shapes.items()}) for _ in range(layers)]
    return nn.ModuleDict({"layers": nn.ModuleList(blocks)})


def synthetic_work(model: nn.Module) -> tuple[torch.optim.Optimizer, Work]:
    """One AdamW step on gradients that are drawn once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return optimizer, lambda: optimizer.step() and None


def model_work(folder: str, device: str) -> tuple[nn.Module, torch.optim.Optimizer, Work]:
    """Forward, backward and AdamW step of a causal language model with adapters on all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    tokens = torch.randint(0, base.config.vocab_size, (8, 64), device=device)

    def work() -> None:
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()

    return model, optimizer, work


def alternate(model: nn.Module, optimizer: torch.optim.Optimizer, work: Work, recorder: UpdateRecorder, updates: int, role: str) -> dict[str, list[float]]:
    """Milliseconds of `updates` recorded and as many unrecorded updates, and the recorder's own share of the former."""
    times: dict[str, list[float]] = {"recorded": [], "unrecorded": [], "in_hooks": []}
    for number in range(updates + 2):
        attachment, before = recorder.attach(optimizer, model, role), recorder.seconds
        recorded, inside = _timed(work), 1e3 * (recorder.seconds - before)
        attachment.detach()
        unrecorded = _timed(work)
        if number >= 2:  # the first two fill caches and draw signs
            for name, value in zip(times, (recorded, unrecorded, inside), strict=True):
                times[name].append(value)
    return times


def _timed(work: Work) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - began)


def summary(times: dict[str, list[float]], folder: Path, recorded: int) -> dict[str, Any]:
    """Medians, interquartile ranges, fastest (what a busy machine hides), the ratio of the medians, and bytes on disk per update."""
    table: dict[str, Any] = {}
    for name, values in times.items():
        quarters = statistics.quantiles(values, n=4)
        table[name] = {"median_ms": statistics.median(values), "iqr_ms": quarters[2] - quarters[0], "fastest_ms": min(values), "n": len(values)}
    table["ratio"] = table["recorded"]["median_ms"] / table["unrecorded"]["median_ms"]
    table["bytes_per_update"] = sum(path.stat().st_size for path in folder.rglob("*.parquet")) / recorded
    return table


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One store in a temporary folder, one role (or two, the first of which is only there to be compared with)."""
    torch.manual_seed(0)
    if arguments.synthetic:
        model = synthetic().to(arguments.device)
        optimizer, work = synthetic_work(model)
    else:
        model, optimizer, work = model_work(arguments.model, arguments.device)
    folder = Path(tempfile.mkdtemp(prefix="interplay-recorder-"))
    try:
        spec = SketchSpec(k=arguments.sketch)
        store = RunStore.create(folder / "run", RunInfo(run="benchmark", config={}, command=[], created="", sketch=spec))
        recorder = UpdateRecorder(store, spec)
        recorder.begin_iteration(1)
        if arguments.other:
            _other_role(recorder, optimizer, model, work)
        times = alternate(model, optimizer, work, recorder, arguments.updates, "policy")
        store.close("finished")
        return summary(times, folder, recorder.clock)
    finally:
        shutil.rmtree(folder)


def _other_role(recorder: UpdateRecorder, optimizer: torch.optim.Optimizer, model: nn.Module, work: Work) -> None:
    """Two updates and an iteration delta of a reward model, so that every cross-role column is computed."""
    attachment = recorder.attach(optimizer, model, "reward")
    work()
    work()
    attachment.detach()
    recorder.end_iteration("reward")


def machine() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads(), "machine": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory of a causal language model")
    parser.add_argument("--synthetic", action="store_true", help="adapter-shaped tensors instead of a model")
    parser.add_argument("--other", action="store_true", help="with another role, so that all cross-role columns are computed")
    parser.add_argument("--updates", type=int, default=20, help="recorded updates; as many unrecorded ones (default 20)")
    parser.add_argument("--sketch", type=int, default=256, help="sums per module; 0 for none (default 256)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    if not arguments.synthetic and not arguments.model:
        parser.error("give --model DIR, or --synthetic")
    found = measure(arguments) | {"environment": machine(), "arguments": vars(arguments)}
    for name in ("recorded", "unrecorded", "in_hooks"):
        row = found[name]
        print(f"{name:<12} {row['median_ms']:9.2f} ms   iqr {row['iqr_ms']:7.2f} ms   fastest {row['fastest_ms']:7.2f} ms   n {row['n']}")
    print(f"ratio        {found['ratio']:9.3f}\nbytes/update {found['bytes_per_update']:9.0f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
