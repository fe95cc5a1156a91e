"""Controls for causality: a reward model that is never refined, labels drawn by a coin, and slopes that bfloat16 may have spoilt."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interplay import loop, pairing
from interplay import session as sessions
from interplay.store import RunStore
from interplay.tasks import Pair, Prompt
from tests import training
from tests.training import frame, weights


def prompt(number: int) -> Prompt:
    return Prompt(str(number), "text", ())


PAIRS = [Pair(prompt(number), f"good {number}", f"bad {number}", ended=(True, False)) for number in range(400)]


def test_a_coin_decides_which_answer_was_better() -> None:
    drawn = pairing.by_coin(PAIRS, seed=3)
    swapped = [pair.chosen.startswith("bad") for pair in drawn]
    assert 160 < sum(swapped) < 240  # 4 standard deviations of a fair coin
    for pair, was, turned in zip(drawn, PAIRS, swapped, strict=True):
        assert {pair.chosen, pair.rejected} == {was.chosen, was.rejected}
        assert (pair.prompt, pair.ended) == (was.prompt, (False, True) if turned else (True, False))
    assert pairing.by_coin(PAIRS, seed=3) == drawn != pairing.by_coin(PAIRS, seed=4)


def test_a_frozen_reward_model_is_trained_once(model: Path, prompts: Path, tmp_path: Path) -> None:
    run = loop.train(training.small(model, prompts, tmp_path / "frozen", method="rloo", freeze_reward=True))
    rows = frame(run, "updates").query("role == 'reward'")
    assert set(rows["iteration"]) == {0}
    first, last = (weights(run, iteration, "reward_merged") for iteration in (0, 2))
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert RunStore.open(run).status().progress["planned"] == RunStore.open(run).status().progress["done"]


def test_shuffled_labels_reach_the_reward_model_alone(model: Path, prompts: Path, tmp_path: Path) -> None:
    judged, shuffled = (
        loop.train(training.small(model, prompts, tmp_path / labels, method="rloo", iterations=1, reward_labels=labels)) for labels in ("judged", "shuffled")
    )
    theirs, ours = (weights(run, 0, "reward") for run in (judged, shuffled))
    assert any(not torch.equal(theirs[name], ours[name]) for name in theirs)
    pairs = [(run / "checkpoints" / "iteration-0" / "pairs.jsonl").read_text() for run in (judged, shuffled)]
    assert pairs[0] == pairs[1]  # what was judged is written down as it was


@pytest.mark.parametrize(("ratios", "warned"), [([0.2, 3.0, 0.4], True), ([2.5, 9.0, 0.1], False)])
def test_slopes_under_bfloat16_are_doubted_by_their_own_noise(ratios: list[float], warned: bool) -> None:
    told: list[list[str]] = []
    store = SimpleNamespace(info=SimpleNamespace(notes=["before"]), update_info=lambda notes: told.append(notes))
    session = SimpleNamespace(slopes=ratios, models=SimpleNamespace(dtype=torch.bfloat16), recorder=SimpleNamespace(iteration=2), store=store)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sessions.doubt_slopes(session)  # type: ignore[arg-type]
    assert [("--dtype float32" in str(item.message)) for item in caught] == [True] * warned
    (notes,) = told
    assert notes[0] == "before"
    assert f"{np.median(ratios):.2f}" in notes[1]
    assert ("not safe" in notes[1]) is warned
    assert session.slopes == []
    session.slopes, session.models.dtype = ratios, torch.float32
    sessions.doubt_slopes(session)  # type: ignore[arg-type]
    assert len(told) == 1


def test_a_zeroth_order_run_under_bfloat16_says_what_its_slopes_are_worth(model: Path, prompts: Path, tmp_path: Path) -> None:
    config = training.small(model, prompts, tmp_path / "run", method="mezo", iterations=1, dtype="bfloat16")
    with pytest.warns(UserWarning, match="each iteration will say"):
        run = loop.train(config)
    notes = RunStore.open(run).info.notes
    assert sum("iteration 1: slopes under bfloat16 are" in note for note in notes) == 1
