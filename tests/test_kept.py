"""Which iterations were kept, and the name `RUN@ITERATION`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricate import Fabricated

from app import cli
from interplay import compare, kept
from interplay.config import RunConfig
from interplay.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "run", "iteration"),
    [
        ("runs/a@3", "runs/a", 3),
        ("runs/a", "runs/a", None),
        ("runs/a@b@12", "runs/a@b", 12),
        ("runs/a@", "runs/a@", None),
        ("@3", "@3", None),
        ("runs/a@-1", "runs/a@-1", None),
        ("runs/a@x", "runs/a@x", None),
        ("runs/a@\u0663", "runs/a@\u0663", None),
        ("runs/a@99999999", "runs/a@99999999", None),
    ],
)
def test_a_name_is_taken_apart(text: str, run: str, iteration: int | None) -> None:
    assert kept.parted(text) == (Path(run), iteration)


def test_a_run_whose_own_name_ends_so_comes_first(tmp_path: Path) -> None:
    path = Fabricated(tmp_path / "a@3", layers=1, k=4, updates_each=1).whole()
    assert kept.parted(str(path)) == (path, None)
    assert kept.parted(kept.named(path, 2)) == (path, 2)


def seal(folder: Path, sizes: dict[str, int]) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1234")
    (folder / kept.SEAL).write_text(json.dumps(sizes))
    return folder


def test_complete_means_every_file_with_its_size(tmp_path: Path) -> None:
    whole = seal(kept.place(tmp_path, 10), {"weights": 4})
    short = seal(kept.place(tmp_path, 2), {"weights": 5})
    lost = seal(kept.place(tmp_path, 0), {"weights": 4, "gone": 1})
    (tmp_path / kept.FOLDER / "iteration-x").mkdir()
    assert [kept.complete(folder) for folder in (whole, short, lost, tmp_path / "none")] == [True, False, False, False]
    assert kept.numbers(tmp_path / kept.FOLDER) == [10, 2, 0]


def test_a_comparison_starts_from_a_kept_iteration_or_says_that_it_is_not_there(tmp_path: Path) -> None:
    run = Fabricated(tmp_path / "a", layers=1, k=4, updates_each=1).whole()
    seal(kept.place(run, 1), {"weights": 4})
    plan = compare.plan(RunConfig(start_from=f"{run}@1"), ["rloo"], [0], tmp_path / "c", warm=None)
    assert {row.config.start_from for row in plan.rows} == {f"{run}@1"}
    with pytest.raises(ConfigError, match="which has no complete checkpoint of that iteration to start from"):
        compare.plan(RunConfig(start_from=f"{run}@2"), ["rloo"], [0], tmp_path / "c", warm=None)


def test_the_run_behind_a_name_hands_on_its_settings(tmp_path: Path) -> None:
    run = Fabricated(tmp_path / "a", layers=1, k=4, updates_each=1).whole()
    raw = json.loads((run / "run.json").read_text())
    raw["config"]["lora_rank"] = 3
    (run / "run.json").write_text(json.dumps(raw))
    assert cli._taken_over({"start_from": f"{run}@1"})["lora_rank"] == 3
