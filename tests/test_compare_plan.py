"""A plan of runs: what it holds, what is refused in one line, and which plan may take the place of one on disk."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from fabricate import Fabricated

from app.cli import main
from app.commands import engine
from interplay import compare
from interplay.compare import difference, parse_names, parse_overrides, parse_seeds, settle
from interplay.config import RunConfig
from interplay.errors import ConfigError, StoreError
from tests.comparing import made, quiet, seal

__all__ = ["quiet"]  # the fixture


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal."""
    assert main(["compare", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("interplay: ")
    assert line.count("\n") == 1
    return line


# --- the plan --------------------------------------------------------------------------------------


def test_a_plan_is_methods_times_seeds_and_every_row_a_whole_command(tmp_path: Path) -> None:
    plan = made(tmp_path, overrides={"dpo": {"learning_rate": "1e-4", "beta": "0.3"}}, shared=RunConfig(updates=9))
    assert [row.name for row in plan.rows] == ["rloo-s0", "dpo-s0", "rloo-s1", "dpo-s1"]
    assert plan.methods == ("rloo", "dpo")
    for row in plan.rows:
        assert RunConfig.from_argv(row.argv[1:]) == row.config
        assert row.argv[0] == "train"
        assert (row.config.method, row.config.seed, row.config.updates, row.folder) == (row.method, row.seed, 9, tmp_path / row.name)
    assert (plan.rows[1].config.learning_rate, plan.rows[1].config.settings) == (1e-4, {"beta": 0.3})
    assert (plan.rows[0].config.learning_rate, plan.rows[0].config.settings) == (RunConfig().learning_rate, {})


def test_all_rows_start_from_one_warm_up(tmp_path: Path) -> None:
    plan = made(tmp_path, ("zopro", "rloo"), (3, 4), warm="rloo", overrides={"rloo": {"learning_rate": "0.01"}}, shared=RunConfig(iterations=5))
    first = plan.rows[0]
    assert plan.warm == first
    assert (first.name, first.seed, first.method, first.config.iterations, first.config.start_from) == ("warm", 3, "rloo", 1, None)
    assert first.config.learning_rate == 0.01
    assert {row.config.start_from for row in plan.arms} == {str(tmp_path / "warm")}
    assert {row.config.iterations for row in plan.arms} == {5}
    assert len(plan.arms) == 4


def test_a_run_to_start_from_takes_the_place_of_the_warm_up(tmp_path: Path) -> None:
    run = Fabricated(tmp_path / "run", layers=1, k=8, updates_each=1).whole(1)
    with pytest.raises(ConfigError, match="no complete iteration"):
        made(tmp_path / "c", shared=RunConfig(start_from=str(run)))
    seal(run)
    plan = made(tmp_path / "c", shared=RunConfig(start_from=str(run)), warm="rloo")
    assert plan.warm is None
    assert {row.config.start_from for row in plan.rows} == {str(run)}


def test_controls_are_marked_and_need_not_keep_the_budget(tmp_path: Path) -> None:
    plan = made(tmp_path, ("rloo", "extrapolate"), overrides={"extrapolate": {"updates": "1"}}, shared=RunConfig(updates=4))
    assert [row.control for row in plan.rows] == [False, True, False, True]
    assert compare.budget(plan)["updates"] == 4
    assert plan.controls == {"extrapolate"}


def test_an_arm_may_have_settings_of_its_own(tmp_path: Path) -> None:
    arms = ("zopro", "zopro:mode=wrong_v:learning-rate=0.1", "zopro:freeze_reward=true")
    plan = made(tmp_path, arms, (0,), overrides={"zopro": {"alpha": "0.5"}}, controls={"zopro:freeze_reward=true"})
    assert plan.methods == arms
    assert {row.config.method for row in plan.rows} == {"zopro"}
    assert [row.config.settings for row in plan.rows] == [{"alpha": 0.5}, {"alpha": 0.5, "mode": "wrong_v"}, {"alpha": 0.5}]
    assert [row.config.learning_rate for row in plan.rows] == [None, 0.1, None]
    assert [row.config.freeze_reward for row in plan.rows] == [False, False, True]
    assert plan.controls == {"zopro:freeze_reward=true"}
    settle(plan)
    assert compare.read(tmp_path) == plan


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("zopro:", "write METHOD:KEY=VALUE"),
        ("zopro:mode", "write METHOD:KEY=VALUE"),
        ("zopro:seed=1", "the plan sets seed; use --seeds"),
        ("zopro:alpha=1:alpha=2", "sets alpha twice"),
        ("zopro:updates=9", "updates is 9 for zopro:updates=9 but 6 for rloo"),
    ],
)
def test_an_arm_that_is_none(arm: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, ("rloo", arm), (0,))


@pytest.mark.parametrize("method", ["../../escape", "a/b", "x\0y", "UPPER", "réel", "-dash", "a+b", "online_dpo", "." * 200])
def test_a_row_of_any_name_stays_in_its_folder(method: str, tmp_path: Path) -> None:
    (row,) = made(tmp_path, (method,), (0,)).rows
    assert row.folder.parent == tmp_path
    assert row.folder.name == row.name
    assert set(row.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert row.name not in (compare.WARM, compare.LOGS)


@pytest.mark.parametrize("key", [key for key in compare.SAME if isinstance(getattr(RunConfig(), key), int)])
def test_an_unequal_budget_is_refused(key: str, tmp_path: Path) -> None:
    value = getattr(RunConfig(), key)
    with pytest.raises(ConfigError, match=rf"^{key} is {value + 1} for dpo but {value} for rloo; .*--controls$"):
        made(tmp_path, overrides={"dpo": {key: str(value + 1)}})
    made(tmp_path, overrides={"dpo": {key: str(value + 1)}}, controls={"dpo"})


@pytest.mark.parametrize(("text", "expected"), [("3", (0, 1, 2)), ("3,5,8", (3, 5, 8)), ("4,", (4,)), ("1", (0,))])
def test_seeds(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["0", "", "-1", "a", "1001", "1.5", "1,a", ",", "9" * 30, "²"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--seeds is "):
        parse_seeds(text)


@pytest.mark.parametrize("word", ["", "dpo", "dpo:", "dpo:beta", ":beta=1", "dpo:=1", "beta=1"])
def test_an_override_that_is_none(word: str) -> None:
    with pytest.raises(ConfigError, match="write METHOD:KEY=VALUE"):
        parse_overrides([word], ["dpo"])


def test_overrides() -> None:
    assert parse_overrides(["dpo:learning-rate=1e-4", "dpo:beta=a=b"], ["dpo"]) == {"dpo": {"learning_rate": "1e-4", "beta": "a=b"}}
    with pytest.raises(ConfigError, match="did you mean 'dpo'"):
        parse_overrides(["dop:beta=1"], ["dpo", "rloo"])
    with pytest.raises(ConfigError, match="twice"):
        parse_overrides(["dpo:a-b=1", "dpo:a_b=2"], ["dpo"])
    for key, instead in (("seed", "--seeds"), ("out", "--out"), ("method", "--methods")):
        with pytest.raises(ConfigError, match=f"the plan sets {key}; use {instead}$"):
            parse_overrides([f"dpo:{key}=1"], ["dpo"])


def test_repeated_methods_and_names_that_fall_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--methods names 'dpo' twice"):
        parse_names("--methods", "dpo, rloo,dpo")
    with pytest.raises(ConfigError, match="--methods names 'a-b-s0' twice"):
        made(tmp_path, ("a-b", "a_b"), (0,))
    with pytest.raises(ConfigError, match="--seeds names 3 twice"):
        made(tmp_path, seeds=(3, 3))


# --- refusals through the command --------------------------------------------------------------------

BAD = [
    (["--methods", "rlo,dpo"], "did you mean 'rloo'"),
    (["--methods", "rloo,rloo"], "--methods names 'rloo' twice"),
    ([], "--methods is missing"),
    (["--methods", ","], "--methods is empty"),
    (["--methods", "rloo", "--seeds", "0"], "--seeds is '0'"),
    (["--methods", "rloo", "--seeds", "2,2"], "--seeds names 2 twice"),
    (["--methods", "rloo", "--method", "dpo"], "unknown argument '--method'; did you mean '--methods'"),
    (["--methods", "rloo", "--seed", "1"], "unknown argument '--seed'; did you mean '--seeds'"),
    (["--methods", "rloo", "--for", "rloo"], "write METHOD:KEY=VALUE"),
    (["--methods", "rloo", "--for", "rlo:clip=1"], "did you mean 'rloo'"),
    (["--methods", "zopro,zopro:mod=iso"], "--set mod: zopro has no such setting; did you mean 'mode'"),
    (["--methods", "rloo,dpo", "--for", "dpo:updates=9"], "updates is 9 for dpo but 12 for rloo"),
    (["--methods", "rloo,dpo", "--for", "dpo:learning_rat=1"], "--set learning_rat: dpo has no such setting"),
    (["--methods", "rloo,dpo", "--for", "dpo:learning-rate=fast"], "--learning-rate is 'fast'; it must be a number"),
    (["--methods", "rloo,dpo", "--set", "beta=0.1", "--warm", "none", "--controls", "none"], "--set "),
    (["--methods", "rloo", "--from", "nowhere"], "--from is 'nowhere', which is not a run folder"),
    (["--methods", "rloo", "--controls", "dpo"], "--controls names 'dpo', which is not in --methods"),
    (["--methods", "rloo", "--warm", "rlooo"], "did you mean 'rloo'"),
    (["--methods", "rloo", "--task", "chatt"], "did you mean 'chat'"),
    (["--methods", "rloo", "--updates", "0"], "--updates is 0; it must be at least 1"),
    (["--table-only"], "--out is missing"),
    (["--table-only", "--out", "nowhere"], "which holds no plan.json"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda item: " ".join(item) if isinstance(item, list) else "")
def test_bad_input_is_one_line_and_nothing_starts(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in said(words, capsys)
    assert not list(tmp_path.iterdir())


def test_a_file_cannot_name_one_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("method: dpo\n")
    assert "method stands in --config" in said(["--methods", "rloo", "--config", str(tmp_path / "c.yaml")], capsys)


def test_a_folder_that_is_a_run_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Fabricated(tmp_path / "run", layers=1, k=8, updates_each=1).whole(1)
    assert "which is the folder of a run" in said(["--methods", "rloo", "--out", str(run)], capsys)


def test_the_plan_alone_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c"
    assert main(["compare", "--methods", "rloo,dpo", "--seeds", "2", "--out", str(out), "--plan-only", "--model", str(saved(tmp_path))]) == 0
    text = capsys.readouterr().out
    assert "5 rows in" in text
    assert text.count("interplay train") == 5
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "warm", "row"), [([], (6, 6, 32), (12, 2, 8)), (["--pairs", "9"], (6, 6, 9), (12, 2, 9)), (["--for", "warm:pairs=5"], (6, 6, 5), (12, 2, 8))]
)
def test_a_warm_start_trains_its_reward_model_like_a_run_of_its_own(
    words: list[str], warm: tuple[int, int, int], row: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--methods", "rloo,dpo", "--seeds", "1", "--plan-only", "--out", str(tmp_path / "c"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    found = [RunConfig.from_argv(shlex.split(line.split(": ", 2)[2])[2:]) for line in lines]
    assert [(config.updates, config.reward_updates, config.pairs) for config in found] == [warm, row, row]


def saved(folder: Path) -> Path:
    """A model folder as far as it is looked at before a run."""
    place = folder / "model"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"0" * 1000)
    return place


def test_the_engine_is_asked_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = RunConfig(model=str(saved(tmp_path)), device="cpu")
    assert engine.ask([config]) == engine.Answer((), 1000)


# --- the plan on disk --------------------------------------------------------------------------------


def test_the_same_plan_is_agreed_with_wherever_its_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(made(tmp_path / "here", warm="rloo"))
    written = (tmp_path / "here" / "plan.json").read_bytes()
    settle(made(tmp_path / "here", warm="rloo"))
    (tmp_path / "here").rename(tmp_path / "there")
    settle(made(tmp_path / "there", warm="rloo"))
    monkeypatch.chdir(tmp_path)
    settle(made(Path("there"), warm="rloo"))
    assert (tmp_path / "there" / "plan.json").read_bytes() == written
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared": RunConfig(updates=7)}, "updates of rloo-s0 is 6 there and 7 here"),
        ({"seeds": (0, 2)}, "it has rloo-s1, which this command leaves out"),
        ({"methods": ("rloo",)}, "it has dpo-s0, which this command leaves out"),
        ({"overrides": {"dpo": {"beta": "0.5"}}}, "settings of dpo-s0 is {} there and {'beta': 0.5} here"),
        ({"controls": {"dpo"}}, "dpo is no control there"),
        ({"warm": "rloo"}, "start_from of rloo-s0 is None there and"),
    ],
)
def test_a_plan_that_differs_is_refused_by_its_first_difference(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    settle(made(tmp_path))
    with pytest.raises(ConfigError) as refused:
        settle(made(tmp_path, **change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_plan_grows_by_arms_and_seeds(tmp_path: Path) -> None:
    settle(made(tmp_path, warm="rloo"))
    grown = made(tmp_path, ("rloo", "zopro", "dpo"), (0, 1, 2), warm="rloo")
    settle(grown)
    assert compare.read(tmp_path) == grown
    with pytest.raises(ConfigError, match="it has zopro-s0, which this command leaves out"):
        settle(made(tmp_path, warm="rloo"))


@pytest.mark.parametrize("content", ["{", "[]", '{"out": "x"}', '{"out": "x", "rows": [1]}', '{"out": "x", "rows": [{"argv": ["train", "--nonsense"]}]}'])
def test_a_damaged_plan_is_said_to_be(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        compare.read(tmp_path)


def test_a_plan_that_is_read_is_the_plan_that_was_written(tmp_path: Path) -> None:
    plan = made(tmp_path, ("rloo", "extrapolate"), warm="rloo", overrides={"rloo": {"learning_rate": "0.5"}})
    settle(plan)
    assert compare.read(tmp_path) == plan
    assert difference(plan, plan) is None


def test_two_processes_do_not_run_one_plan(tmp_path: Path) -> None:
    with compare.alone(tmp_path), pytest.raises(StoreError, match="is being run by process"), compare.alone(tmp_path):
        pass
