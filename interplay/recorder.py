"""`UpdateRecorder`: listens to optimisers and writes what every step did to the weights.

It hooks `optimizer.step()`, because trainers may step many times per event of their own, and it
knows optimisers, not methods. It only reads: weights, gradients and random states stay as they are,
and an error in here is warned about once, ends the recording and lets the training finish.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from interplay import columns
from interplay.columns import Place
from interplay.errors import RowsWaiting
from interplay.measure import finite
from interplay.records import OTHER_ROLE, SketchSpec
from interplay.sketch import Sketcher, directions
from interplay.tensors import trained_modules
from interplay.trail import Trail, affordable, copy_sizes, describe, free_memory


class Sink(Protocol):
    """Where rows go; `interplay.store.RunStore` is one."""

    def append(self, stream: Any, columns: Mapping[str, Any], /) -> None:
        """Take columns of equal length. Raises `RowsWaiting` if they were taken but cannot be written yet, else any `OSError`."""


class Attachment:
    """The hooks of one optimiser for one role."""

    def __init__(self, handles: list[Any]) -> None:
        self._handles = handles

    def detach(self) -> None:
        """Stop listening; the role's trail stays. A second call does nothing."""
        while self._handles:
            self._handles.pop().remove()


class UpdateRecorder:
    """Records every update of every attached role under one clock."""

    def __init__(self, store: Sink, sketch: SketchSpec | None = None, *, memory_budget_bytes: int | None = None) -> None:
        self.store = store
        self.sketch = sketch or SketchSpec()
        self.stopped: str | None = None
        self.seconds = 0.0
        self.iteration = 0
        self.clock = 0
        self._sketcher = Sketcher(self.sketch)
        self._budget = memory_budget_bytes
        self._trails: dict[str, Trail] = {}
        self._direction_labels: dict[str, columns.Labels] = {}
        self._counts: dict[str, int] = {}
        self._clocks: dict[str, int] = {}
        self._iterations: dict[str, int] = {}
        self._attachments: list[Attachment] = []
        self._warned_not_finite = False
        self._warned_waiting = False

    # ---- attaching

    def attach(self, optimizer: Any, model: Any, role: str, *, start: Mapping[str, Tensor] | None = None) -> Attachment:
        """Listen to an optimiser for the tensors of `model` that it trains.

        `start` gives the weights of the run's start by parameter name, for a run that is resumed; a role that
        was attached before keeps its own. Raises `ModelError` if the optimiser trains nothing of the model.
        """
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps optimisers, and its wrapper takes no hooks
        modules = trained_modules(inner, model)
        if role in self._trails and self._trails[role].follows(modules):
            self._trails[role].rebind(modules)
        elif self.stopped is None:
            self._trails[role] = self._new_trail(role, modules, start)
            self._direction_labels[role] = self._trails[role].direction_labels(self._sketcher)
            self._say_what_is_kept()
        step = _Step(self, role)
        self._attachments.append(Attachment([inner.register_step_pre_hook(step.before), inner.register_step_post_hook(step.after)]))
        return self._attachments[-1]

    def _new_trail(self, role: str, modules: Any, start: Mapping[str, Tensor] | None) -> Trail:
        sizes = copy_sizes(modules)
        if self._budget is None:
            self._budget = free_memory(modules[0].parts[0].tensor.device) // 4
        taken = sum(describe(trail)["bytes"] for other, trail in self._trails.items() if other != role)
        return Trail(modules, affordable(sizes, self._budget - taken), start)

    def _say_what_is_kept(self) -> None:
        update_info = getattr(self.store, "update_info", None)
        if update_info is not None:
            with self.guarded():
                update_info(recorder=self.report())

    def close(self) -> None:
        """Detach everything and let go of all copies. The store is left open."""
        for attachment in self._attachments:
            attachment.detach()
        self._attachments.clear()
        self._forget()

    def _forget(self) -> None:
        self._trails.clear()
        self._direction_labels.clear()
        self._sketcher.clear()

    # ---- iterations, places, state

    def begin_iteration(self, iteration: int) -> None:
        """The updates that follow belong to this round of the loop; 0 is the first reward model."""
        self.iteration = iteration
        for trail in self._trails.values():
            trail.begin_iteration()

    def end_iteration(self, role: str) -> None:
        """Fix what the role's weights did since its first update of this iteration, for the other roles to compare with."""
        with self.guarded(), _reading():
            if role in self._trails:
                self._trails[role].end_iteration()

    def place(self, role: str) -> Place:
        """Clock, update, iteration and role of the role's latest update: the first columns of every stream."""
        return {
            "clock": self._clocks.get(role, self.clock),
            "update": self._counts.get(role, 0),
            "iteration": self._iterations.get(role, self.iteration),
            "role": role,
        }

    def state(self) -> dict[str, Any]:
        """Counters as plain JSON, so that a resumed run goes on counting."""
        roles = {"updates": dict(self._counts), "clocks": dict(self._clocks), "iterations": dict(self._iterations)}
        return {"clock": self.clock, "iteration": self.iteration, **roles}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue the counters of `state`. Previous updates are not in it: the next cos_previous is null."""
        self.clock, self.iteration = int(state["clock"]), int(state["iteration"])
        self._counts, self._clocks, self._iterations = (
            {str(role): int(value) for role, value in state[name].items()} for name in ("updates", "clocks", "iterations")
        )

    def report(self) -> dict[str, Any]:
        """What is recorded, which copies are kept or dropped, and the memory they may take."""
        return {"memory_budget_bytes": self._budget, "roles": {role: describe(trail) for role, trail in self._trails.items()}, "stopped": self.stopped}

    # ---- one update

    def _record(self, role: str, gradients: list[Tensor]) -> None:
        trail, other_role = self._trails[role], OTHER_ROLE.get(role)
        other = self._trails.get(other_role) if other_role else None
        sums, sketch_MJ = trail.after(gradients, other, self._sketcher)
        self._check_finite(role, finite(sums))
        self._append("updates", columns.updates(trail.labels, self.place(role), sums, other_role if other else None))
        if self.sketch.k:
            self._append("directions", columns.directions(self._direction_labels[role], self.place(role), directions(sketch_MJ)))

    def _append(self, stream: str, rows: Mapping[str, Any]) -> None:
        """Hand rows over. A disk that is full for a while is warned about once: the rows wait, and the recording goes on."""
        try:
            self.store.append(stream, rows)
        except RowsWaiting as error:
            if not self._warned_waiting:
                warnings.warn(f"interplay: {error}; recording goes on", stacklevel=2)
            self._warned_waiting = True

    def tick(self, role: str) -> None:
        """Count an update; a recording that has stopped counts on, so that metrics keep their place."""
        self.clock += 1
        self._clocks[role] = self.clock
        self._counts[role] = self._counts.get(role, 0) + 1
        self._iterations[role] = self.iteration

    def _check_finite(self, role: str, is_finite: bool) -> None:
        if not is_finite and not self._warned_not_finite:
            self._warned_not_finite = True
            warnings.warn(f"interplay: update {self._counts[role]} of the {role} is not finite; such values are recorded as null", stacklevel=2)

    # ---- safety

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Count the time; turn an error into one warning and the end of the recording."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._stop(error)
        finally:
            self.seconds += time.perf_counter() - began

    def _stop(self, error: Exception) -> None:
        if self.stopped is not None:
            return
        text = str(error).splitlines()
        self.stopped = f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
        self._forget()
        warnings.warn(f"interplay: recording stopped, training goes on ({self.stopped})", stacklevel=2)


class _Step:
    """The two hooks around one optimiser's step, for one role."""

    def __init__(self, recorder: UpdateRecorder, role: str) -> None:
        self._recorder = recorder
        self._role = role
        self._gradients: list[Tensor] | None = None
        self._open = False

    def before(self, _optimizer: Any, args: Any, kwargs: Any) -> None:
        """Called right before the step: keep the weights; measure the gradient unless a closure will make it."""
        recorder = self._recorder
        if recorder.stopped is not None:
            return
        with recorder.guarded(), _reading():
            trail = recorder._trails[self._role]
            trail.before()
            self._gradients = None if _closure(args, kwargs) else trail.gradients()
            self._open = True

    def after(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """Called right after the step: measure, write."""
        recorder = self._recorder
        recorder.tick(self._role)
        if recorder.stopped is not None or not self._open:
            return
        with recorder.guarded(), _reading():
            self._open = False
            gradients = recorder._trails[self._role].gradients() if self._gradients is None else self._gradients
            recorder._record(self._role, gradients)


def _closure(args: Any, kwargs: Mapping[str, Any]) -> Callable[[], Any] | None:
    """The closure of `step(closure)`, whichever way torch hands it to hooks."""
    given = kwargs.get("closure")
    return given if given is not None else next((item for item in args if callable(item) and not hasattr(item, "param_groups")), None)


@contextmanager
def _reading() -> Iterator[None]:
    """No graph, and no autocast that would shorten our products."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
