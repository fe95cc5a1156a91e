"""A run that was stopped anywhere and resumed holds the same records as one that never stopped.

Equal: every completion, sketch, metric (but for `seconds`) and update column. Not equal, by design: what
the recorder kept only in memory. `cos_previous` of each role's first update after the resume is null, and
so are the role compared with and the
cosines with its update or iteration, where these happened before it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interplay import checkpoints, evaluation, judges, loop, reward_model
from interplay.errors import ConfigError, Interrupted
from interplay.store import RunStore
from interplay.updates.first_order import FirstOrder
from tests import training
from tests.training import Finished, frame, weights

PREVIOUS = "cos_previous"
UPDATE, ITERATION = (tuple(f"{kind}_other_{what}" for kind in ("cos", "attainable", "null")) for what in ("update", "iteration"))
IN_MEMORY = (PREVIOUS, "other_role", *UPDATE, *ITERATION)
TWO: dict[str, Any] = {"method": "ppo"}
THREE: dict[str, Any] = {"method": "rloo", "iterations": 3}


class At:
    """Stops the process as SIGTERM does, before or after the n-th call of a function."""

    def __init__(self, owner: Any, name: str, call: int, *, after: bool = False) -> None:
        self.owner, self.name, self.call, self.after = owner, name, call, after

    def __enter__(self) -> At:
        self.real, self.calls = getattr(self.owner, self.name), 0

        def stopping(*args: Any, **keys: Any) -> Any:
            self.calls += 1
            if self.calls == self.call and not self.after:
                raise Interrupted("SIGTERM")
            result = self.real(*args, **keys)
            if self.calls == self.call:
                raise Interrupted("SIGTERM")
            return result

        setattr(self.owner, self.name, stopping)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.name, self.real)


def stopped(stop: At, model: Path, prompts: Path, out: Path, **settings: Any) -> Path:
    with stop, pytest.raises(Interrupted):
        loop.train(training.small(model, prompts, out, **settings))
    assert stop.calls >= stop.call
    assert RunStore.open(out).status().state == "interrupted"
    return out


def plain(run: Path, stream: str) -> pd.DataFrame:
    """A stream without clocks of the wall."""
    table = frame(run, stream)
    return table[~table["name"].isin(["seconds", "peak_memory"])].drop(columns="seconds").reset_index(drop=True) if stream == "metrics" else table


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame, but: set[str] | None = None) -> None:
    assert len(ours) == len(theirs) > 0
    for name in ours.columns.difference(list(but or ())):
        assert ours[name].map(repr).tolist() == theirs[name].map(repr).tolist(), name


def assert_equal_runs(resumed: Path, whole: Path, *, first: int | None) -> None:
    """All records agree; `first` is the iteration that the resume went on with (None: it started over)."""
    for stream in ("metrics", "completions", "directions"):
        both = plain(resumed, stream), plain(whole, stream)
        assert_same(*map(_exact, both))
        _near(*both)
    ours, theirs = plain(resumed, "updates"), plain(whole, "updates")
    assert_same(ours, theirs, set(IN_MEMORY))
    for name in IN_MEMORY:
        lost = ours[name].isna() & theirs[name].notna()
        known = ~lost
        assert ours[name][known].map(repr).tolist() == theirs[name][known].map(repr).tolist(), name
        assert ours[lost].apply(lambda row, name=name: _may_be_lost(name, row, ours, first), axis=1).all(), name
    if first is not None:
        again = ours[(ours["iteration"] == first) & (ours["role"] == "policy")]
        opening = again[again["update"] == again["update"].min()]
        assert opening[PREVIOUS].isna().all(), "the previous update is not kept on disk"


def _exact(table: pd.DataFrame) -> pd.DataFrame:
    """Without the numbers of held-out scores, which are left to `_near`."""
    if "split" not in table:
        return table
    numbers = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].where(table["split"] != "heldout", 0.0) for name in numbers})


def _near(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Nothing learns from held-out scores, and the last digits of a pass depend on where a process's memory lies."""
    if "split" in ours:
        a, b = (table.loc[table["split"] == "heldout", table.select_dtypes("float").columns].to_numpy() for table in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _may_be_lost(name: str, row: Any, table: pd.DataFrame, first: int | None) -> bool:
    """Is this value one that depends on an update from before the resume?"""
    if first is None:
        return False
    since = table[(table["iteration"] >= first) & (table["clock"] < row["clock"])]
    if name == PREVIOUS:
        return bool(row["role"] not in set(since["role"]))
    theirs = since[since["role"] == ("reward" if row["role"] == "policy" else "policy")]
    if name in UPDATE or name == "other_role":
        return theirs.empty
    return theirs.empty or (row["role"] == "value" and row["iteration"] == first)


def assert_same_weights(a: Path, b: Path, iteration: int, roles: tuple[str, ...] = ("policy", "reward", "reward_merged", "value")) -> None:
    for role in roles:
        ours, theirs = weights(a, iteration, role), weights(b, iteration, role)
        assert set(ours) == set(theirs)
        assert ours
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items()), role


# --- anywhere in a later iteration -----------------------------------------------------------------

#: Calls are counted over the whole run: two updates in each of two iterations, and iteration 0 before them.
MOMENTS = {
    "rollout": At(loop, "_rollouts", 4),
    "second policy update": At(FirstOrder, "step", 7),
    "critic update": At(FirstOrder, "step", 6, after=True),
    "judging": At(judges, "decide", 4),
    "reward model": At(reward_model, "refine", 3, after=True),
    "merge": At(reward_model, "keep_close", 2, after=True),
    "before the checkpoint": At(checkpoints, "save", 3),
    "after the checkpoint": At(checkpoints, "save", 2, after=True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_in_the_second_iteration(finished: Finished, model: Path, prompts: Path, tmp_path: Path, moment: str) -> None:
    run = stopped(MOMENTS[moment], model, prompts, tmp_path / "run", **TWO)
    assert checkpoints.last(run / "checkpoints").iteration == 1  # type: ignore[union-attr]
    before = len(frame(run, "updates"))
    loop.resume(run)
    reference = finished(**TWO)
    assert RunStore.open(run).status().state == "finished"
    assert RunStore.open(run).status().error is None
    assert RunStore.open(run).problems() == []
    assert_equal_runs(run, reference, first=2)
    assert_same_weights(run, reference, 1)
    assert_same_weights(run, reference, 2)
    if moment == "merge":  # what was recorded after the checkpoint is set aside, not lost
        aside = {path.parent.name for path in (run / "superseded").rglob("*.parquet")}
        assert aside == {"updates", "metrics", "directions", "completions"}
        assert before < len(frame(run, "updates")) or before == len(frame(reference, "updates"))


@pytest.mark.parametrize("settings", [{"method": "dpo"}, {"method": "online_dpo", "reward": "gold"}, {"method": "rloo", "tune": "full"}], ids=str)
def test_other_methods(finished: Finished, model: Path, prompts: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    run = stopped(At(evaluation.Evaluator, "score", 3), model, prompts, tmp_path / "run", **settings)
    loop.resume(run)
    reference = finished(**settings)
    assert_equal_runs(run, reference, first=2)
    assert_same_weights(run, reference, 2, ("policy",) if settings.get("reward") == "gold" else ("policy", "reward", "reward_merged"))


def test_stopped_twice_and_only_the_last_checkpoint_kept(finished: Finished, model: Path, prompts: Path, tmp_path: Path) -> None:
    settings = {"method": "rloo", "iterations": 3, "keep_checkpoints": "last"}
    run = stopped(At(reward_model, "refine", 3), model, prompts, tmp_path / "run", **settings)
    with At(reward_model, "refine", 2), pytest.raises(Interrupted):
        loop.resume(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["iteration-0", "iteration-2"]
    loop.resume(run)
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["iteration-3"]
    reference = finished(**settings)
    for stream in ("metrics", "completions", "directions"):
        assert_same(plain(run, stream), plain(reference, stream))
    assert_same(plain(run, "updates"), plain(reference, "updates"), set(IN_MEMORY))
    assert_same_weights(run, reference, 3, ("policy", "reward", "reward_merged"))


def test_the_learning_rate_goes_on_where_it_was(finished: Finished, model: Path, prompts: Path, tmp_path: Path) -> None:
    settings = {"method": "ppo", "reward": "gold", "schedule": "linear", "warmup": 3}
    run = stopped(At(evaluation.Evaluator, "score", 3), model, prompts, tmp_path / "run", **settings)
    loop.resume(run)
    rates = [training.series(path, role, "lr")["value"].tolist() for path in (run, finished(**settings)) for role in ("policy", "value")]
    assert rates[:2] == rates[2:]
    assert rates[2] == pytest.approx([3e-3 / 3, 3e-3 * 2 / 3, 3e-3, 3e-3])
    assert_same_weights(run, finished(**settings), 2, ("policy", "value"))


def test_seconds_and_tokens_go_on(model: Path, prompts: Path, tmp_path: Path) -> None:
    run = stopped(At(evaluation.Evaluator, "score", 3), model, prompts, tmp_path / "run")
    loop.resume(run)
    table = training.series(run, "policy", "seconds")
    assert table["value"].is_monotonic_increasing
    assert training.series(run, "policy", "tokens")["value"].diff().dropna().gt(0).all()
    kept = json.loads((run / "checkpoints" / "iteration-1" / "state.json").read_text())["seconds"]
    assert table[table["iteration"] == 2]["value"].min() >= kept


# --- before iteration 0 was complete ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "stop"),
    [
        ("model", At(reward_model, "refine", 1, after=True)),
        ("model", At(checkpoints, "save", 1)),
        ("gold", At(evaluation.Evaluator, "score", 1, after=True)),
        ("gold", At(checkpoints, "save", 1)),
    ],
)
def test_without_a_checkpoint_it_starts_over_in_the_same_folder(finished: Finished, model: Path, prompts: Path, tmp_path: Path, reward: str, stop: At) -> None:
    settings = {"method": "dpo", "reward": reward}
    run = stopped(stop, model, prompts, tmp_path / "run", **settings)
    assert checkpoints.last(run / "checkpoints") is None
    assert loop.resume(run) == run
    assert_equal_runs(run, finished(**settings), first=None)


# --- damaged and finished --------------------------------------------------------------------------


def _truncate(folder: Path) -> None:
    with (folder / "policy" / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)


def _unseal(folder: Path) -> None:
    (folder / "COMPLETE").unlink()


def _lose(folder: Path) -> None:
    (folder / "optimizer-policy.safetensors").unlink()


def test_an_incomplete_newest_checkpoint_is_skipped(finished: Finished, model: Path, prompts: Path, tmp_path: Path) -> None:
    run = stopped(At(evaluation.Evaluator, "score", 4), model, prompts, tmp_path / "run", **THREE)
    _truncate(run / "checkpoints" / "iteration-2")
    with pytest.warns(UserWarning, match="iteration-2 is incomplete"):
        loop.resume(run)
    assert_equal_runs(run, finished(**THREE), first=2)
    assert_same_weights(run, finished(**THREE), 3, ("policy", "reward", "reward_merged"))


@pytest.mark.parametrize("damage", [_truncate, _unseal, _lose])
def test_what_makes_a_checkpoint_incomplete(finished: Finished, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(finished(**TWO) / "checkpoints", root)
    assert checkpoints.last(root).iteration == 2  # type: ignore[union-attr]
    damage(root / "iteration-2")
    with pytest.warns(UserWarning, match="iteration-2 is incomplete"):
        assert checkpoints.last(root).iteration == 1  # type: ignore[union-attr]


def test_a_checkpoint_that_was_being_written_is_no_checkpoint(model: Path, prompts: Path, tmp_path: Path) -> None:
    run = stopped(At(checkpoints, "_seal", 2), model, prompts, tmp_path / "run")
    assert checkpoints.last(run / "checkpoints").iteration == 0  # type: ignore[union-attr]
    loop.resume(run)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["iteration-0", "iteration-1", "iteration-2"]


def test_a_finished_run_is_refused_with_one_line_and_stays_as_it_is(finished: Finished) -> None:
    run = finished(**TWO)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in ("status.json", "writer.lock")}
    status = RunStore.open(run).status()
    with pytest.raises(ConfigError, match="has finished all 2 iterations; start a new run") as refused:
        loop.resume(run)
    assert "\n" not in str(refused.value)
    after = RunStore.open(run).status()
    assert (after.state, after.error, after.message) == (status.state, None, status.message) == ("finished", None, None)
    assert {path: path.read_bytes() for path in before} == before


def test_the_command_line_refuses_a_finished_run(finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from app import cli

    monkeypatch.setenv("INTERPLAY_NO_REEXEC", "1")
    assert cli.main(["train", "--resume", str(finished(**TWO))]) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1
    assert "has finished" in said.err


@pytest.fixture
def no_close(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the process had been killed right before it wrote its end state."""
    real = RunStore.close

    def die(self: RunStore, state: Any, **keys: Any) -> None:
        if state == "finished":
            os.close(self._lock._handle)  # type: ignore[union-attr,arg-type] - what the kernel does
            self._lock = None
            raise Interrupted("SIGKILL")
        real(self, state, **keys)

    monkeypatch.setattr(RunStore, "close", die)
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.usefixtures("no_close")
def test_killed_between_the_last_checkpoint_and_the_end(model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    """All iterations are done but nobody wrote so: resuming finishes the run without training."""
    with pytest.raises(Interrupted):
        loop.train(training.small(model, prompts, tmp_path / "run", iterations=1, updates=1, keep_checkpoints=keep))
    monkeypatch.undo()
    before = {stream: plain(tmp_path / "run", stream) for stream in ("metrics", "updates", "completions")}
    assert RunStore.open(tmp_path / "run").status().state == "running"
    loop.resume(tmp_path / "run")
    assert RunStore.open(tmp_path / "run").status().state == "finished"
    for stream, table in before.items():
        assert_same(plain(tmp_path / "run", stream), table)


def test_a_resume_that_fails_keeps_the_run_and_says_why(model: Path, prompts: Path, tmp_path: Path) -> None:
    moved = training.write_prompts(tmp_path / "prompts.jsonl")
    run = stopped(At(evaluation.Evaluator, "score", 2), model, moved, tmp_path / "run")
    moved.unlink()
    with pytest.raises(ValueError, match="--data"):
        loop.resume(run)
    status = RunStore.open(run).status()
    assert status.state == "interrupted"
    training.write_prompts(moved)
    loop.resume(run)
    assert RunStore.open(run).status().state == "finished"


def test_displacement_is_measured_from_the_start_of_the_run(model: Path, prompts: Path, tmp_path: Path) -> None:
    """Not from where the resume began: an independent sum over checkpoint and start gives the same norm."""
    run = stopped(At(evaluation.Evaluator, "score", 3), model, prompts, tmp_path / "run", tune="full", reward="gold")
    loop.resume(run)
    from safetensors.torch import load_file

    rows = frame(run, "updates").query("role == 'policy'")
    last = rows[rows["clock"] == rows["clock"].max()]
    start, end = load_file(model / "model.safetensors"), weights(run, 2, "policy")
    for name in ("model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"):
        expected = float(torch.linalg.norm((end[f"{name}.weight"] - start[f"{name}.weight"]).double()))
        found = last[last["module"].str.endswith(name.removeprefix("model."))]["displacement_norm"].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert len(found)
