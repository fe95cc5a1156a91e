"""Recording changes nothing: weights, losses and completions are bit-identical with a recorder that works, one that
stopped at once, and a disk that is full."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interplay import loop
from interplay.errors import StoreError
from interplay.parts import Parts
from interplay.recorder import UpdateRecorder
from interplay.store import RunStore
from interplay.trail import Trail
from interplay.updates.first_order import FirstOrder
from tests import training
from tests.training import Finished, frame, weights

CASES = [{"method": "ppo"}, {"method": "online_dpo", "tune": "full", "sketch_space": "effective"}]
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def recorded(finished: Finished) -> list[Path]:
    """Both cases with everything recorded."""
    return [finished(**case) for case in CASES]


@pytest.fixture
def run(model: Path, prompts: Path, tmp_path: Path) -> Run:
    return lambda case, **more: loop.train(training.small(model, prompts, tmp_path / "run", **case, **more))


def metrics(path: Path) -> pd.DataFrame:
    table = frame(path, "metrics", "seconds")
    return table[~table["name"].isin(["seconds", "peak_memory"])].reset_index(drop=True)


def assert_same_training(ours: Path, theirs: Path, *, rows: bool = True, iterations: tuple[int, ...] = (0, 1, 2)) -> None:
    for iteration in iterations:
        for role in ("policy", "reward", "reward_merged", "value"):
            left, right = weights(ours, iteration, role), weights(theirs, iteration, role)
            assert set(left) == set(right)
            assert all(torch.equal(left[name], tensor) for name, tensor in right.items()), (iteration, role)
    if rows:
        pd.testing.assert_frame_equal(metrics(ours), metrics(theirs), check_exact=True)
        pd.testing.assert_frame_equal(frame(ours, "completions"), frame(theirs, "completions"), check_exact=True)


def fail(*_: Any, **__: Any) -> None:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("owner", "name"), [(UpdateRecorder, "_record"), (Trail, "before")], ids=["after a step", "before a step"])
def test_a_recorder_that_stopped_at_once(recorded: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch, number: int, owner: Any, name: str) -> None:
    monkeypatch.setattr(owner, name, fail)
    with pytest.warns(UserWarning, match="recording stopped, training goes on .*out of luck") as said:
        path = run(CASES[number])
    assert sum("recording stopped" in str(item.message) for item in said) == 1
    assert len(frame(path, "updates")) == 0 < len(frame(recorded[number], "updates"))
    assert_same_training(path, recorded[number])
    assert RunStore.open(path).status().state == "finished"


def test_sketching_or_not_is_the_same_training(recorded: list[Path], run: Run) -> None:
    path = run(CASES[0], sketch=0)
    assert len(frame(path, "directions")) == 0
    assert_same_training(path, recorded[0])


@pytest.mark.parametrize("number", [0, 1])
def test_the_training_depends_on_what_it_should(recorded: list[Path], number: int) -> None:
    """The comparison above can fail: from one iteration to the next all of it differs."""
    first, last = weights(recorded[number], 0, "policy"), weights(recorded[number], 2, "policy")
    assert any(not torch.equal(first[name], tensor) for name, tensor in last.items())
    assert len(metrics(recorded[number])) > 100


def test_rows_that_cannot_be_appended_do_not_stop_the_training(recorded: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every append after the fifth is refused: one warning of the recorder and one of the session, then silence."""
    calls = [0]
    real = RunStore.append

    def append(self: RunStore, stream: Any, columns: Any) -> None:
        calls[0] += 1
        if calls[0] > 5:
            raise StoreError("the disk is full")
        real(self, stream, columns)

    monkeypatch.setattr(RunStore, "append", append)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = run(CASES[0])
    texts = [str(item.message) for item in said if "the disk is full" in str(item.message)]
    assert sorted("recording stopped" in text for text in texts) == [False, True]
    assert calls[0] > 20
    assert RunStore.open(path).status().state == "finished"
    assert_same_training(path, recorded[0], rows=False)


def full_disk(monkeypatch: pytest.MonkeyPatch, refused: set[int], **often: float) -> list[int]:
    """Part files cannot be written at the calls in `refused`; returns a list that counts them."""
    calls, real = [0], Parts.append

    def append(self: Parts, tables: Any, attempt: int) -> None:
        calls[0] += 1
        if calls[0] in refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, tables, attempt)

    monkeypatch.setattr(Parts, "append", append)
    for name, value in {"flush_seconds": 1e9, **often}.items():
        monkeypatch.setitem(RunStore.create.__func__.__kwdefaults__, name, value)  # type: ignore[attr-defined]
    return calls


def test_a_disk_that_is_full_for_a_while(recorded: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of iterations 1 and 2 wait in memory, checkpoint 1 is left out, and nothing that is recorded is lost."""
    calls = full_disk(monkeypatch, {5, 6, 7})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = run(CASES[0])
    assert len([item for item in said if "the disk is full" in str(item.message)]) == 1
    assert calls[0] > 7
    assert RunStore.open(path).status().state == "finished"
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["iteration-0", "iteration-2"]
    assert_same_training(path, recorded[0], iterations=(0, 2))
    assert frame(path, "updates").equals(frame(recorded[0], "updates"))


def test_the_recorder_goes_on_after_a_full_disk(recorded: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full during the second policy update, with a flush at every update."""
    refused: set[int] = set()
    calls, step, steps = full_disk(monkeypatch, refused, flush_every=1), FirstOrder.step, [0]

    def counted(self: FirstOrder, closure: Any) -> Any:
        steps[0] += 1
        refused.clear()
        if steps[0] == 3:
            refused.update(range(calls[0], calls[0] + 100))
        return step(self, closure)

    monkeypatch.setattr(FirstOrder, "step", counted)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = run(CASES[0])
    texts = [str(item.message) for item in said if "the disk is full" in str(item.message)]
    assert sum("recording goes on" in text for text in texts) == 1
    assert not any("recording stopped" in text for text in texts)
    assert RunStore.open(path).status().state == "finished"
    assert frame(path, "metrics").shape == frame(recorded[0], "metrics").shape
    assert frame(path, "updates").equals(frame(recorded[0], "updates"))


def test_a_disk_that_stays_full_fails_with_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that cannot keep its result is no finished run."""
    full_disk(monkeypatch, set(range(5, 1000)))
    with pytest.warns(UserWarning, match="the disk is full"), pytest.raises(StoreError, match="the disk is full"):
        run(CASES[0])
    status = RunStore.open(tmp_path / "run").status()
    assert status.state == "failed"
    assert "the disk is full" in (status.error or "")
    assert frame(tmp_path / "run", "metrics")["iteration"].max() == 0, "what was written before is readable"
