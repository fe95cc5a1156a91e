"""What the analysis costs, against the published recipe and against reading everything.

    python -m benchmarks.analysis coupling --json analysis.json
    python -m benchmarks.analysis opening importing

`coupling`: 500 updates of policy and reward model (adapters of rank 64 of a 1B shape, 112 modules, 256 sums each), read from the run's folder:
all numbers of `analysis.coupling`, `analysis.geometry` and `analysis.evidence`, PCA, and UMAP a second time in its process, because the first
call compiles. Baseline: the published recipe restated from its description (whole adapters as rows, UMAP to 100 coordinates, differences,
angles), at sizes that fit; more is extrapolated along its numbers per row, and said to be.

`opening`: from a compacted run of 10,000 updates x 210 modules x 2 roles to the data of its first figure, over pandas reading the same
folder. `importing`: 40 adapters of 45 million numbers, over loading them all, and as a share of the speed of reading the same bytes. Each
in a process of its own, whose peak memory is its own; medians of as many rounds as are asked for.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

UPDATES, LAYERS, KINDS, SUMS = 500, 16, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 256
MODULES = [f"model.layers.{layer}.{kind}" for layer in range(LAYERS) for kind in KINDS]


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- coupling ----------------------------------------------------------------------------------------


def coupled(folder: Path) -> Path:
    """A compacted run of 500 updates of two roles in ten iterations; numbers are drawn, their shapes are true."""
    from interplay.config import RunConfig
    from interplay.records import RunInfo, SketchSpec
    from interplay.store import RunStore

    info = RunInfo(run="coupled", config=RunConfig().to_mapping(), command=[], created="", sketch=SketchSpec(k=SUMS))
    store = RunStore.create(folder / "coupled", info)
    random, count, each = np.random.default_rng(0), len(MODULES), UPDATES // 10
    for role, other, offset in (("policy", "reward", 1), ("reward", "policy", each + 1)):
        block, within = np.divmod(np.arange(UPDATES), each)
        place = {"clock": block * 2 * each + within + offset, "update": np.arange(UPDATES) + 1, "iteration": block}
        place = {name: np.repeat(values, count) for name, values in place.items()}
        sketches = random.standard_normal((10, count, SUMS))[block] / 2 + random.standard_normal((UPDATES, count, SUMS))
        norms = np.linalg.norm(sketches, axis=2).ravel()
        words = {"role": [role] * len(norms), "module": MODULES * UPDATES, "kind": list(KINDS) * LAYERS * UPDATES, "space": ["factor"] * len(norms)}
        words["layer"] = [layer for layer in range(LAYERS) for _ in KINDS] * UPDATES
        scaled = {"scale": np.full(len(norms), 4.0), "sketch": (sketches / 4).reshape(-1, SUMS), "standard_error": np.full(len(norms), SUMS**-0.5)}
        store.append("directions", {**place, **words, **scaled})
        cosines = {name: random.uniform(-0.1, 0.1, len(norms)) for name in ("cos_previous", "cos_displacement", "cos_other_update", "cos_other_iteration")}
        more = {"update_norm": norms, "weight_norm": norms, "displacement_norm": norms, "null_other_update": np.full(len(norms), 0.02)}
        store.append("updates", {**place, **words, **cosines, **more, "other_role": [other] * len(norms)})
        store.flush()
    store.close("finished")
    return store.path


def ours(path: str) -> dict[str, Any]:
    """All coupling numbers, PCA and UMAP of a recorded run, from its files; seconds of each part."""
    from analysis import coupling, embedding, evidence, geometry, projection, shapes
    from app.reading import recordings

    spent: dict[str, float] = {}
    held: list[evidence.Recording] = []
    spent["reading"] = timed(lambda: held.append(recordings.load(Path(path))))
    recording, frame = held[0], held[0].updates
    assert recording.policy is not None
    assert recording.reward is not None
    policy, reward = recording.policy, recording.reward
    exact = (coupling.other_cosines, geometry.norms, geometry.shares, geometry.straightness)
    spent["exact numbers"] = timed(lambda: [work(frame, "policy") for work in exact])
    spent["verdicts"] = timed(lambda: [evidence.alignment(recording), evidence.persistence(recording), evidence.lead(recording)])
    spent["cross-lags"] = timed(lambda: coupling.cross_lag(coupling.cosine_matrix(policy, reward).values, coupling.lags(policy, reward, "update")))
    x, y = (path.sketches_UTK.reshape(UPDATES, -1) for path in (policy, reward))
    spent["norms"] = timed(lambda: shapes.pearson(*coupling.norm_series(policy, reward, "iteration")))
    spent["distance correlation"] = timed(lambda: shapes.distance_correlation(x, y, corrected=True))
    spent["Procrustes"] = timed(lambda: shapes.procrustes(x, y))
    spent["subspaces"] = timed(lambda: shapes.subspace_overlap(x, y))
    rows = [path.path_UD() for path in (policy, reward)]
    spent["PCA"] = timed(lambda: projection.pca(rows))
    first = timed(lambda: embedding.umap(rows))
    spent["UMAP"] = timed(lambda: embedding.umap(rows))
    return {"parts": spent, "seconds": sum(spent.values()), "umap_first_call": first, "peak": peak()}


def peak() -> float:
    """Most memory of this process so far, in bytes; importing torch to ask for it would be part of it."""
    if sys.platform == "linux":
        return 1024.0 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def recipe(rows: int, wide: int) -> dict[str, Any]:
    """Published recipe: rows of whole adapters of both roles, UMAP to 100 coordinates, first differences, angles between them by step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        UMAP(n_components=2).fit_transform(np.random.default_rng(1).standard_normal((120, 8)))  # compiled before the clock starts
        random = np.random.default_rng(0)
        walk = np.cumsum(random.standard_normal((2, rows // 2, wide), dtype=np.float32), axis=1).reshape(rows, wide)

        def work() -> None:
            flat = UMAP(n_components=100, random_state=0, n_jobs=1).fit_transform(walk).reshape(2, rows // 2, 100)
            moved = np.diff(flat, axis=1)
            unit = moved / np.linalg.norm(moved, axis=2, keepdims=True)
            np.degrees(np.arccos(np.clip((unit[0] * unit[1]).sum(1), -1, 1)))

        return {"rows": rows, "numbers": wide, "seconds": timed(work), "peak": peak()}


# --- opening a large run -------------------------------------------------------------------------------

LARGE, WIDE_LAYERS = 10_000, 30


def large(folder: Path) -> Path:
    """A compacted run of 10,000 updates x 210 modules x 2 roles, one space; numbers are drawn."""
    from interplay.config import RunConfig
    from interplay.records import RunInfo, SketchSpec
    from interplay.store import RunStore

    store = RunStore.create(folder / "large", RunInfo(run="large", config=RunConfig().to_mapping(), command=[], created="", sketch=SketchSpec(k=0)))
    modules = [f"model.layers.{layer}.{kind}" for layer in range(WIDE_LAYERS) for kind in KINDS]
    layers, random = np.repeat(np.arange(WIDE_LAYERS), len(KINDS)), np.random.default_rng(0)
    for begin in range(0, LARGE, 500):
        for role, offset in (("policy", 0), ("reward", 1)):
            number = np.repeat(np.arange(begin, begin + 500), len(modules))
            norms = random.lognormal(size=len(number)).astype(np.float32)
            words = {"role": [role] * len(number), "module": modules * 500, "kind": list(KINDS) * WIDE_LAYERS * 500, "space": ["factor"] * len(number)}
            place = {"clock": 2 * number + offset + 1, "update": number + 1, "iteration": np.zeros(len(number)), "layer": np.tile(layers, 500)}
            values = {"update_norm": norms, "weight_norm": norms, "cos_previous": random.uniform(-1, 1, len(number)).astype(np.float32)}
            store.append("updates", {**place, **words, **values})
        store.flush()
    count = np.arange(LARGE)
    store.append(
        "metrics",
        {
            "clock": count + 1,
            "update": count + 1,
            "iteration": count * 0,
            "role": ["policy"] * LARGE,
            "split": ["train"] * LARGE,
            "name": ["reward"] * LARGE,
            "value": count / LARGE,
            "seconds": count * 1.0,
        },
    )
    store.close("finished")
    return store.path


def opening(path: str, how: str) -> dict[str, Any]:
    """To the data of the first figure (the reward curve), to that of the heat map of norms, or what pandas takes to read the folder."""
    import pandas as pd

    from analysis import figures
    from interplay.store import RunStore

    def first() -> None:
        metrics = RunStore.open(path).read("metrics").to_pandas()
        figures.reward_curve(metrics, run="large")

    def heat() -> None:
        columns = ["clock", "update", "iteration", "role", "layer", "space", "update_norm"]
        frame = RunStore.open(path).read("updates", columns=columns).to_pandas()
        figures.norm_heatmap(frame, "policy", run="large")

    def everything() -> None:
        pd.read_parquet(Path(path) / "updates")
        pd.read_parquet(Path(path) / "metrics")

    return {"seconds": timed({"first": first, "heat": heat, "pandas": everything}[how]), "peak": peak()}


# --- importing -------------------------------------------------------------------------------------------

CHECKPOINTS, RANK, HIDDEN, MLP, KV = 40, 64, 2048, 8192, 512


def adapters(folder: Path) -> Path:
    """40 checkpoints of a policy's adapters, 45 million numbers each, as PEFT saves them."""
    import torch
    from safetensors.torch import save_file

    sizes = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (KV, HIDDEN), "v_proj": (KV, HIDDEN), "o_proj": (HIDDEN, HIDDEN)}
    sizes |= {"gate_proj": (MLP, HIDDEN), "up_proj": (MLP, HIDDEN), "down_proj": (HIDDEN, MLP)}
    generator, held = torch.Generator().manual_seed(0), {}
    for layer in range(LAYERS):
        for kind, (m, n) in sizes.items():
            part = "self_attn" if kind in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            name = f"base_model.model.model.layers.{layer}.{part}.{kind}"
            held[f"{name}.lora_A.weight"] = torch.randn(RANK, n, generator=generator) / n**0.5
            held[f"{name}.lora_B.weight"] = torch.zeros(m, RANK)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 128, "target_modules": list(sizes)}
    for number in range(1, CHECKPOINTS + 1):
        place = folder / "run" / f"checkpoint-{number}"
        place.mkdir(parents=True)
        for tensor in held.values():
            tensor.add_(torch.randn(1, generator=generator).item() * 1e-3)
        save_file(held, place / "adapter_model.safetensors")
        (place / "adapter_config.json").write_text(json.dumps(config))
    return folder / "run"


def importing(folder: str, how: str) -> dict[str, Any]:
    files = sorted(Path(folder).rglob("*.safetensors"))
    if how == "read":
        return {"seconds": timed(lambda: [file.read_bytes() for file in files]), "bytes": sum(file.stat().st_size for file in files)}
    if how == "load":
        from safetensors.numpy import load_file

        return {"seconds": timed(lambda: [load_file(file) for file in files]), "peak": peak()}
    with tempfile.TemporaryDirectory() as runs:
        words = [sys.executable, "-c", _MEASURED, "import", folder, "--as", "bench", "--runs", runs]
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return {"seconds": time.perf_counter() - start, "peak": float(done.stderr.strip().splitlines()[-1])}


_MEASURED = "import sys; from app.cli import main; main(sys.argv[1:]); from benchmarks.analysis import peak; print(peak(), file=sys.stderr)"


# --- running and printing ----------------------------------------------------------------------------------


def apart(*words: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.analysis", "--one", *words], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(words: list[str]) -> dict[str, Any]:
    work: dict[str, Callable[..., dict[str, Any]]] = {
        "ours": ours,
        "recipe": lambda rows, wide: recipe(int(rows), int(wide)),
        "opening": opening,
        "importing": importing,
    }
    return work[words[0]](*words[1:])


def median(found: list[dict[str, Any]], name: str) -> float:
    return statistics.median(row[name] for row in found)


def told(label: str, found: list[dict[str, Any]]) -> None:
    peak = f", {median(found, 'peak') / 2**30:.2f} GiB at its peak" if "peak" in found[0] else ""
    print(f"{label}: {median(found, 'seconds'):.2f} s{peak}")


def bench_coupling(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(coupled(Path(folder)))
        mine = [apart("ours", path) for _ in range(rounds)]
    told("500 updates of two roles, 112 modules: all numbers, PCA, UMAP (second call)", mine)
    print(
        f"  the first UMAP of a process takes {median(mine, 'umap_first_call'):.1f} s, since it compiles; of the rest: "
        + ", ".join(f"{k} {v:.1f}" for k, v in mine[0]["parts"].items())
    )
    theirs = {wide: [apart("recipe", "120", str(wide)) for _ in range(rounds)] for wide in (600_000, 2_400_000)}
    for wide, found in theirs.items():
        told(f"published recipe, 120 rows of {wide / 1e6:.1f} M numbers", found)
    slope = (median(theirs[2_400_000], "seconds") - median(theirs[600_000], "seconds")) / 1.8e6
    far = median(theirs[2_400_000], "seconds") + slope * (45e6 - 2.4e6)
    memory = 45e6 * 120 * 4
    print(f"  extrapolated, not measured: 120 rows of 45 M numbers {far:.0f} s, and {memory / 2**30:.0f} GiB for its rows alone")
    return {
        "ours": mine,
        "recipe": {str(k): v for k, v in theirs.items()},
        "extrapolated_seconds": far,
        "ratio_seconds": far / median(mine, "seconds"),
        "ratio_memory": memory / median(mine, "peak"),
    }


def bench_opening(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(large(Path(folder)))
        found = {how: [apart("opening", path, how) for _ in range(rounds)] for how in ("first", "heat", "pandas")}
    for how, label in (("first", "first figure's data"), ("heat", "heat map of norms"), ("pandas", "pandas reads the folder")):
        told(f"10,000 updates x 210 modules x 2 roles: {label}", found[how])
    return {**found, "ratio": median(found["pandas"], "seconds") / median(found["first"], "seconds")}


def bench_importing(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = str(adapters(Path(folder)))
        found = {how: [apart("importing", path, how) for _ in range(rounds)] for how in ("read", "import", "load")}
    size = found["read"][0]["bytes"]
    for how, label in (("read", "reading the bytes"), ("import", "interplay import"), ("load", "loading all tensors")):
        told(f"{CHECKPOINTS} adapters, {size / 2**30:.1f} GiB: {label}", found[how])
    share = median(found["read"], "seconds") / median(found["import"], "seconds")
    print(f"  import reads at {share:.0%} of the speed of reading the bytes")
    return {**found, "share_of_reading": share}


BENCHES = {"coupling": bench_coupling, "opening": bench_opening, "importing": bench_importing}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], help="which ones (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default 3)")
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    from benchmarks.recorder import machine

    found = {name: BENCHES[name](arguments.rounds) for name in arguments.names or BENCHES}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**found, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
