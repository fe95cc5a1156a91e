"""The recorder in the clothes of a `transformers.TrainerCallback`: one line in anybody's trainer.

    trainer = DPOTrainer(..., callbacks=[RecorderCallback("runs/mine", role="policy")])

It works in every transformers and TRL trainer, because the updates are taken from the optimiser and
the trainer's events only say when training begins, logs and ends. Several trainers share one run by
sharing one recorder: `RecorderCallback(recorder=recorder, role="reward")`; its owner then begins
iterations and closes the store. Only world process zero records.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from interplay.errors import ConfigError, allowed
from interplay.recorder import Attachment, UpdateRecorder
from interplay.records import ROLES, RunInfo, SketchSpec
from interplay.store import RunStore

_PACKAGES = ("interplay", "torch", "transformers", "trl", "peft", "accelerate")


class RecorderCallback(TrainerCallback):
    """Records a trainer's run into a folder of its own, or into the run of a shared recorder."""

    def __init__(
        self,
        path: str | Path | None = None,
        role: str = "policy",
        sketch: int | SketchSpec = 256,
        run: str | None = None,
        *,
        recorder: UpdateRecorder | None = None,
    ) -> None:
        """`path` is the folder of a new run named `run` (default: the folder's name); `sketch` its sums per module.

        Raises `ConfigError` for an unknown role, or unless exactly one of `path` and `recorder` is given.
        """
        if role not in ROLES:
            raise ConfigError(f"role is {role!r}; allowed: {allowed(ROLES)}")
        if (path is None) == (recorder is None):
            raise ConfigError("give RecorderCallback either the folder of a new run or recorder=..., the recorder of a run that is shared")
        self.recorder = recorder
        self._path = None if path is None else Path(path)
        self._role = role
        self._sketch = SketchSpec(k=sketch) if isinstance(sketch, int) else sketch
        self._run = run
        self._store: RunStore | None = None
        self._attached: dict[str, Attachment] = {}
        self._began = time.monotonic()

    # ---- events of the trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Called when model and optimiser are ready, before the first update."""
        if not state.is_world_process_zero:
            return
        with self._guarded():
            self.recorder = self.recorder or self._own(args, model)
        if self.recorder is not None:
            with self.recorder.guarded():
                self._attached = {name: self.recorder.attach(optimizer, part, name) for name, part in _parts(model, self._role)}

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Called when the trainer reports numbers; they are written under its own names."""
        if self._attached and self.recorder is not None and self.recorder.stopped is None:
            with self._guarded():
                self._write(self.recorder, {name: value for name, value in (logs or {}).items() if _is_number(value)})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Called after the last update, also when training stopped early."""
        attached, self._attached = self._attached, {}
        for role, attachment in attached.items():
            attachment.detach()
            if self.recorder is not None:
                self.recorder.end_iteration(role)
        with self._guarded():
            self._close()

    # ---- the run

    def _own(self, args: Any, model: Any) -> UpdateRecorder:
        """A new run of this trainer alone; all its updates belong to iteration 1."""
        assert self._path is not None
        self._store = RunStore.create(self._path, self._info(self._path, args, model))
        recorder = UpdateRecorder(self._store, self._sketch)
        recorder.begin_iteration(1)
        return recorder

    def _info(self, path: Path, args: Any, model: Any) -> RunInfo:
        config = {"method": type(args).__name__.removesuffix("Config"), "role": self._role, "arguments": args.to_sanitized_dict()}
        return RunInfo(
            run=self._run or path.name,
            config=config,
            command=list(sys.argv),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            sketch=self._sketch,
            versions=dict(_versions()),
            machine={"device": str(getattr(model, "device", "unknown")), "system": platform.system()},
            model={"class": type(model).__name__, "name": str(getattr(getattr(model, "config", None), "_name_or_path", ""))},
        )

    def _write(self, recorder: UpdateRecorder, numbers: Mapping[str, float]) -> None:
        count = len(numbers)
        columns: dict[str, Any] = {name: [value] * count for name, value in recorder.place(self._role).items()}
        values = [float(value) if math.isfinite(value) else None for value in numbers.values()]
        seconds = [time.monotonic() - self._began] * count
        recorder.store.append("metrics", columns | {"split": ["train"] * count, "name": list(numbers), "value": values, "seconds": seconds})

    def _close(self) -> None:
        """End the run that this callback made; the parts of a recording that stopped early are kept as failed."""
        store, self._store = self._store, None
        if store is None or self.recorder is None:
            return
        self.recorder.close()
        if self.recorder.stopped is None:
            store.close("finished")
        else:
            store.close("failed", error=f"recording stopped: {self.recorder.stopped}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Errors end the recording, never the training, whether or not there is a recorder yet."""
        recorder = self.recorder or UpdateRecorder(_Nowhere(), self._sketch)
        with recorder.guarded():
            yield


class _Nowhere:
    """The store of a recording that could not begin."""

    def append(self, stream: Any, columns: Mapping[str, Any], /) -> None:
        """Nothing is kept."""


def _parts(model: Any, role: str) -> list[tuple[str, nn.Module]]:
    """Who is trained. A wrapper of policy and value model, as PPO trainers make it, is two roles."""
    policy, value = getattr(model, "policy", None), getattr(model, "value_model", None)
    if isinstance(policy, nn.Module) and isinstance(value, nn.Module):
        return [(role, policy), ("value", value)]
    return [(role, model)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
