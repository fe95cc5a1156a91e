"""The penalised score of comparisons: hand-made completions with known answers."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.penalised import penalised, summary


def completions(*rows: tuple[str, int, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "iteration", "prompt_id", "proxy", "kl"])


def test_every_nat_costs_its_price() -> None:
    frame = completions(("heldout", 0, "a", 1.0, 0.0), ("heldout", 2, "a", 4.0, 1.5), ("heldout", 0, "b", 0.0, 0.5), ("heldout", 2, "b", 0.0, 0.5))
    assert penalised(frame, 0.0) == pytest.approx(1.5)
    assert penalised(frame, 2.0) == pytest.approx((4.0 - 3.0 - 1.0 + 0.0) / 2)


def test_other_iterations_training_batches_and_lonely_prompts_do_not_count() -> None:
    frame = completions(
        ("heldout", 0, "a", 1.0, 0.0),
        ("heldout", 1, "a", 99.0, 0.0),
        ("heldout", 2, "a", 2.0, 0.0),
        ("train", 2, "a", 50.0, 0.0),
        ("heldout", 2, "only at the end", 70.0, 0.0),
    )
    assert penalised(frame, 1.0) == pytest.approx(1.0)


def test_differences_are_paired_by_seed_and_intervals_are_students() -> None:
    found = summary({"walk": {0: 1.0, 1: 2.0, 2: 6.0}, "ours": {0: 2.0, 1: 3.5, 2: 6.5, 7: 100.0}}, "walk", range(3))
    assert found["changes"]["ours"]["mean"] == pytest.approx(4.0)
    difference = found["differences"]["ours"]
    assert (difference["mean"], difference["seeds"]) == (pytest.approx(1.0), 3)
    assert difference["high"] - 1.0 == pytest.approx(4.302653 * 0.5 / 3**0.5, rel=1e-5)
    assert "walk" not in found["differences"]
