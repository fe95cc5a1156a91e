"""Checkpoints that other people made become an ordinary run: each way between two of them is one update.

    interplay import runs/vis-zopro --as theirs
    interplay import out --as mine --policy dpo --reward rm

An *update* is here what happened from one checkpoint to the next, many optimiser steps as a rule. Norms,
cosines and sketches are the recorder's own (`Trail`), in fp32 from the stored factors. Both roles share
one clock: by the numbers of the checkpoints, the policy first where they are equal.

Modules are the outer loop, checkpoints the inner one. What is kept of a role to compare with (update,
previous update, start) takes five times its weights in fp32, so a pass over whole checkpoints would hold
gigabytes; a batch of modules holds megabytes, and every byte on disk is still read once. Each core takes
a batch at a time, so that one computes while another waits for the disk. Rows wait in memory until all
modules are through, because a run is written in the order of its clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from interplay import __version__, columns, interrupts, log_history, pulse
from interplay.checkpoint_folders import STEP, Checkpoint, Found, find, single
from interplay.columns import Labels, Place
from interplay.errors import ConfigError, ModelError, StoreError
from interplay.measure import ITERATION, finite
from interplay.parquet import as_table
from interplay.records import OTHER_ROLE, Role, RunInfo, SketchSpec, Stream, schema
from interplay.sketch import Sketcher, directions
from interplay.store import RunStore
from interplay.tensor_files import Plan, Weights, adapter_config, aligned, open_weights, plans, same_scale
from interplay.tensors import Module
from interplay.trail import Trail, affordable, copy_sizes, free_memory

Report = Callable[[str, float, Mapping[str, float]], None]

#: Numbers of one role in a batch of modules; as many as the largest module has, where that is more.
BATCH = 1 << 22
#: Where rounds of the policy-reward loop begin is not written in checkpoints: all updates belong to this one.
ONLY_ITERATION = 1
NOTE = "imported: an update is here the way from one checkpoint to the next, not one optimiser step; what happened in between was not recorded"


def silent(doing: str, share: float, metrics: Mapping[str, float]) -> None:
    """Nobody watches."""


def import_folder(
    folder: Path,
    run: Path,
    *,
    patterns: dict[Role, str] | None = None,
    base: Path | None = None,
    sketch: SketchSpec | None = None,
    command: Sequence[str] = (),
    report: Report = silent,
) -> RunStore:
    """Write the run `run` from the checkpoints in `folder`; returns it, finished. Nothing stays if that fails.

    `patterns` says where a role's checkpoints are, `base` is the folder of weights that the policy started from.
    Raises `ConfigError` (nothing to import), `ModelError` (weights that cannot be used), `StoreError` (`run` exists, disk).
    """
    if os.path.lexists(run):
        raise StoreError(f"--as is {run.name!r}, but {run} exists already; choose another name")
    report("looking for checkpoints", 0.0, {})
    routes, notes = _routes(folder, patterns or {}, base)
    events = _events(routes)
    store = RunStore.create(run, _info(run.name, folder, routes, sketch or SketchSpec(), command))
    try:
        with interrupts.raising(), pulse.beating(store.path):
            tables, remarks = _measured(routes, events, _Watch(store, report))
            _write(store, tables)
            remarks += _write_metrics(store, routes, events)
            store.update_info(notes=[NOTE, *notes, *dict.fromkeys(remarks)])
            store.set_status(progress={"doing": "finished", "share": 1.0})
            store.close("finished")
    except BaseException:
        with contextlib.suppress(StoreError):
            store.close("failed")
        shutil.rmtree(run, ignore_errors=True)
        raise
    return RunStore.open(run)


# --- what is there ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """The checkpoints of one role in their order; the first is where it starts and makes no update."""

    role: Role
    pattern: str
    weights: tuple[Weights, ...]
    plans: Mapping[str, Plan]

    @property
    def based(self) -> bool:
        """Whether the start is weights from outside the series."""
        return not self.weights[0].checkpoint.step and len(self.weights) > 1


@dataclass(frozen=True)
class Event:
    """One update: a role reaches its checkpoint `index`."""

    role: Role
    index: int
    place: Place


def _routes(folder: Path, patterns: dict[Role, str], base: Path | None) -> tuple[dict[Role, Route], list[str]]:
    """The series of each role with the headers of all its checkpoints, and notes for the reader."""
    found = find(folder, patterns)
    notes = [f"left out: {', '.join(found.left_out)}"] if found.left_out else []
    started = "policy" if "policy" in found.series else "reward"
    routes: dict[Role, Route] = {}
    for role, series in found.series.items():
        start = _start(found, base, notes, open_weights(series.checkpoints[0])) if role == started else None
        routes[role] = _route(role, series.pattern, series.checkpoints, start)
        notes += _remarks(routes[role])
    return routes, notes


def _start(found: Found, base: Path | None, notes: list[str], first: Weights) -> Weights | None:
    """`--base`, which must fit, or the SFT model beside the checkpoints, if it fits."""
    if base is not None:
        return _fitting(first, single(base, "--base"))
    if found.start is None:
        return None
    try:
        return _fitting(first, found.start)
    except ModelError as error:
        notes.append(f"not taken as the start: {error}")
        return None


def _fitting(first: Weights, start: Checkpoint) -> Weights:
    weights = open_weights(start)
    fits = aligned(first, weights, more=True)
    if any(plan.shape for plan in plans(first)):
        same_scale(first, weights)
    return fits


def _route(role: Role, pattern: str, checkpoints: Sequence[Checkpoint], start: Weights | None) -> Route:
    """Raises `ModelError` if the checkpoints are not of one training, `ConfigError` if there are fewer than two."""
    if len(checkpoints) + (start is not None) < 2:
        raise ConfigError(
            f"only one checkpoint of the {role} was found ({checkpoints[0].name}), and an update is the way between two; "
            f"add --base with the weights it started from, or name a series with --{role} 'PATH-{STEP}'"
        )
    first = open_weights(checkpoints[0])
    modules = plans(first)
    series = [first]
    for checkpoint in checkpoints[1:]:
        series.append(aligned(first, open_weights(checkpoint)))
        if any(plan.shape for plan in modules):
            same_scale(first, series[-1])
    weights = (start, *series) if start is not None else tuple(series)
    return Route(role, pattern, weights, {plan.name: plan for plan in modules})


def _remarks(route: Route) -> Iterator[str]:
    first, last = route.weights[0], route.weights[-1]
    yield f"{route.role}: {len(route.weights) - 1} updates, from {first.name} to {last.name}"
    if last.skipped:
        yield f"{route.role}: {len(last.skipped)} tensors that are not floating-point were left out, such as {last.skipped[0]}"
    if any(plan.shape for plan in route.plans.values()) and adapter_config(last).get("use_dora"):
        yield f"{route.role}: DoRA's magnitudes are tensors of their own here; the effective weight of an adapter is s B A alone"


def _events(routes: Mapping[Role, Route]) -> list[Event]:
    """All updates under one clock. Raises `ConfigError` where the numbers of two roles cannot be compared."""
    lengths = {len(weights.checkpoint.step) for route in routes.values() for weights in route.weights} - {0}
    if len(lengths) > 1:
        patterns = " and ".join(f"'{route.pattern}'" for route in routes.values())
        raise ConfigError(f"{patterns} do not have equally many numbers, so their order is unknown; type patterns with {STEP} where it counts for both")
    reached = [(route.weights[i].checkpoint.step, role != "policy", role, i) for role, route in routes.items() for i in range(1, len(route.weights))]
    return [Event(role, i, _place(role, i, clock)) for clock, (_, _, role, i) in enumerate(sorted(reached), start=1)]


def _place(role: Role, update: int, clock: int) -> Place:
    return {"clock": clock, "update": update, "iteration": ONLY_ITERATION, "role": role}


# --- measuring -------------------------------------------------------------------------------------


class _Watch:
    """Tells the terminal and the dashboard how far the import is."""

    def __init__(self, store: RunStore, report: Report) -> None:
        self.store, self._report = store, report

    def say(self, doing: str, share: float) -> None:
        self._report(doing, share, {})
        self.store.set_status(progress={"doing": doing, "share": share})


#: What was measured: tables by stream and clock, one for each batch of modules.
_Tables = dict[tuple[Stream, int], list[pa.Table]]


def _measured(routes: Mapping[Role, Route], events: Sequence[Event], watch: _Watch) -> tuple[_Tables, list[str]]:
    """All rows of `updates` and `directions`, and remarks. Batches have nothing to do with each other: each core takes the next one."""
    batches, stop, cores = _batches(routes), threading.Event(), max(torch.get_num_threads(), 1)
    walks = [_Walk(names, routes, watch.store.info.sketch, free_memory(torch.device("cpu")) // 4 // cores) for names in batches]
    with _one_thread_each(), ThreadPoolExecutor(cores, "import") as pool:
        waiting = {pool.submit(walk.whole, events, stop) for walk in walks}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
                watch.say("reading checkpoints", sum(walk.done for walk in walks) / (len(walks) * max(len(events), 1)))
        finally:
            stop.set()  # nobody waits for what is left
    tables: _Tables = {}
    for walk in walks:
        for key, table in walk.tables:
            tables.setdefault(key, []).append(table)
    return tables, [remark for walk in walks for remark in walk.remarks]


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Small products keep no second core busy, and two that wait for each other at each of them are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _give_back_memory() -> None:
    """glibc keeps the freed blocks that lie between small ones that live on, here 10 MB for each batch; elsewhere there is nothing to call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _batches(routes: Mapping[Role, Route]) -> list[list[str]]:
    """Names of modules of either role, in the order of the files, in groups of so many numbers of a role."""
    sizes: dict[str, int] = {}
    for route in routes.values():
        for name, plan in route.plans.items():
            sizes[name] = max(plan.numel, sizes.get(name, 0))
    batches: list[list[str]] = []
    room, most = -1, max(BATCH, *sizes.values())
    for name, size in sizes.items():
        if size > room:
            batches.append([])
            room = most
        batches[-1].append(name)
        room -= size
    return batches


class _Walk:
    """Some modules of all roles on their way from checkpoint to checkpoint."""

    def __init__(self, names: Sequence[str], routes: Mapping[Role, Route], sketch: SketchSpec, budget: int) -> None:
        self._routes, self._sketch, self._budget = routes, sketch, budget
        self._plans = {role: plans for role, route in routes.items() if (plans := [route.plans[name] for name in names if name in route.plans])}
        self.tables: list[tuple[tuple[Stream, int], pa.Table]] = []
        self.remarks: list[str] = []
        self.done = 0
        self._labels: dict[Role, Labels] = {}

    def whole(self, events: Sequence[Event], stop: threading.Event) -> None:
        """All events, unless it is stopped; what it needed besides the tables is let go."""
        sketcher = Sketcher(self._sketch)
        with torch.no_grad():
            trails = {role: self._begin(role) for role in self._plans}
            self._labels = {role: trail.direction_labels(sketcher) for role, trail in trails.items()}
            for event in events:
                if stop.is_set():
                    return
                if event.role in trails:
                    key = int(event.place["clock"])
                    self.tables += [((stream, key), table) for stream, table in self._step(event, trails, sketcher)]
                self.done += 1
        del trails
        _give_back_memory()

    def _begin(self, role: Role) -> Trail:
        modules = self._modules(role, 0)
        trail = Trail(modules, self._copies(modules, self._budget // len(self._routes)), None, chained=True)
        trail.before()
        return trail

    def _modules(self, role: Role, index: int) -> list[Module]:
        """The modules of a role as a checkpoint has them."""
        tensors = self._routes[role].weights[index].tensors([key for plan in self._plans[role] for _, key in plan.keys])
        return [plan.module(tensors) for plan in self._plans[role]]

    def _copies(self, modules: Sequence[Module], budget: int) -> frozenset[str]:
        sizes = copy_sizes(modules) | {ITERATION: 0}
        kept = affordable(sizes, budget) - {ITERATION}
        self.remarks += [f"{name} of some modules was not kept: too little memory" for name in sizes.keys() - kept - {ITERATION}]
        return kept

    def _step(self, event: Event, trails: Mapping[Role, Trail], sketcher: Sketcher) -> Iterator[tuple[Stream, pa.Table]]:
        """The weights move to the event's checkpoint."""
        trail, other_role = trails[event.role], OTHER_ROLE[event.role]
        trail.rebind(self._modules(event.role, event.index))
        sums, sketch_MJ = trail.after(trail.gradients(), trails.get(other_role), sketcher)
        trail.before()  # the next update starts here
        if not finite(sums):
            self.remarks.append(f"{self._routes[event.role].weights[event.index].name} holds values that are not finite; they are recorded as null")
        rows = columns.updates(trail.labels, event.place, sums, other_role if other_role in self._routes else None)
        yield "updates", as_table("updates", schema("updates"), rows)
        if sketcher.spec.k:
            rows = columns.directions(self._labels[event.role], event.place, directions(sketch_MJ))
            yield "directions", as_table("directions", schema("directions", sketcher.spec.k), rows)


# --- writing ---------------------------------------------------------------------------------------


def _write(store: RunStore, tables: _Tables) -> None:
    """In the order of the clock; what is written is let go."""
    for stream, clock in sorted(tables, key=lambda key: key[1]):
        store.append(stream, pa.concat_tables(tables.pop((stream, clock))))


def _write_metrics(store: RunStore, routes: Mapping[Role, Route], events: Sequence[Event]) -> list[str]:
    """What the trainers logged, under the update in which it was logged. Returns remarks."""
    places = {(event.role, event.index): event.place for event in events}
    found: list[log_history.Metric] = []
    remarks: list[str] = []
    for role, route in routes.items():
        series = [weights.checkpoint for weights in (route.weights[1:] if route.based else route.weights)]
        try:
            found += log_history.read(role, series, based=route.based)
        except ModelError as error:
            remarks.append(str(error))
    found.sort(key=lambda metric: _place_of(places, metric)["clock"])
    if found:
        store.append("metrics", log_history.columns(found, [_place_of(places, metric) for metric in found]))
    return remarks


def _place_of(places: Mapping[tuple[Role, int], Place], metric: log_history.Metric) -> Place:
    """Update 0 at clock 0 is what was logged before the first checkpoint."""
    return places.get((metric.role, metric.update), _place(metric.role, 0, 0))


def _info(name: str, folder: Path, routes: Mapping[Role, Route], sketch: SketchSpec, command: Sequence[str]) -> RunInfo:
    """Names only: no path of this machine but those that were typed."""
    series: dict[Role, list[dict[str, Any]]] = {
        role: [{"update": i, "checkpoint": weights.name, "step": list(weights.checkpoint.step)} for i, weights in enumerate(route.weights)]
        for role, route in routes.items()
    }
    return RunInfo(
        run=name,
        config={"method": "import", "folder": folder.resolve().name, **{role: route.pattern for role, route in routes.items()}},
        command=list(command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sketch=sketch,
        versions={"interplay": __version__, "python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", "safetensors")}},
        machine={"system": platform.system()},
        data={"checkpoints": series},
        recorder={"roles": {role: {"modules": len(route.plans), "parameters": sum(p.numel for p in route.plans.values())} for role, route in routes.items()}},
    )
