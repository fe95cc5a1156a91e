"""The page Train: a form made from the settings themselves, an honest look ahead, and jobs that can be stopped and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from app.reading import catalogue, loading
from app.reading.catalogue import MethodChoice
from app.train import form, hints, launch, preflight, preview, started
from app.train.preflight import GIB, Machine, Seen
from interplay.config import INHERITED, RunConfig
from interplay.errors import ConfigError, DataError
from interplay.reading import Status
from tests.fabricate import HOSTILE, Fabricated
from tests.pages import Show
from tests.waiting import until

_KL = {"name": "kl", "of": "rloo", "part": "objective", "default": 0.05, "type": "float", "help": "weight of the KL term", "low": 0}
_NORMALISE = {"name": "normalise", "of": "rloo", "part": "objective", "default": False, "type": "bool", "help": "divide"}
_BETA = {"name": "beta1", "of": "first_order", "part": "update_rule", "default": 0.9, "type": "float", "help": "decay", "low": 0, "high": 0.9999}
_ALPHA = {"name": "alpha", "of": "zopro", "part": "update_rule", "default": 0.999, "type": "float", "help": "weight", "low": 0, "high": 1}
_MODE = {"name": "mode", "of": "zopro", "part": "update_rule", "default": "ref", "type": "str", "help": "what", "choices": ["ref", "v", "wrong_v"]}
_DIRECTIONS = {"name": "directions", "of": "zeroth", "part": "update_rule", "default": 1, "type": "int", "help": "how many", "low": 1}


def _method(name: str, objective: str, rule: str, settings: list[dict[str, Any]], reads: str = "rollouts") -> MethodChoice:
    return MethodChoice.read(
        {
            "name": name,
            "summary": f"about {objective}; about {rule}",
            "objective": objective,
            "update_rule": rule,
            "reads": reads,
            "papers": [f"paper {objective}", f"paper {rule}"],
            "learning_rate": 0.1,
            "settings": settings,
            "of tomorrow": 1,
        }
    )


METHODS = (
    _method("rloo", "rloo", "first_order", [_KL, _NORMALISE, _BETA]),
    _method("dpo", "dpo", "first_order", [{**_BETA, "name": "beta", "of": "dpo", "part": "objective"}, _BETA], "pairs"),
    _method("ppo", "ppo", "first_order", [_BETA]),
    _method("zopro", "rloo", "zopro", [_KL, _NORMALISE, _DIRECTIONS, _ALPHA, _MODE]),
)


@pytest.fixture
def root(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(root.parent / "state"))
    monkeypatch.setattr("app.reading.catalogue.methods", lambda: METHODS)
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: True)
    yield root
    monkeypatch.delenv("INTERPLAY_EXPOSED", raising=False)
    for job in launch.here().list():
        launch.here().stop(job.id, wait=True)


@pytest.fixture
def show(show: Show) -> Show:
    """Two underscores are a dot in the link."""
    return lambda **link: show("train", **{name.replace("__", "."): value for name, value in link.items()})


def _plain(elements: Any) -> str:
    return "\n".join(str(element.value) for element in elements).replace("\\", "")


def _commands(app: AppTest) -> list[str]:
    return [str(line) for line in app.code[0].value.splitlines()]


def _button(app: AppTest, start: str) -> Any:
    return next(button for button in app.button if button.key and button.key.startswith(start))


def _with_checkpoints(path: Path, *numbers: int) -> None:
    for number in numbers:
        folder = path / "checkpoints" / f"iteration-{number}"
        folder.mkdir(parents=True)
        (folder / "COMPLETE").write_text("{}")


# --- the form is made from the settings --------------------------------------------------------------


def test_every_setting_has_a_control_and_its_help() -> None:
    controls = form.of_config({})
    assert set(controls) == {item.name for item in fields(RunConfig)} - {"settings"}
    for item in fields(RunConfig):
        if item.name not in ("settings", "seed"):
            assert controls[item.name].help == item.metadata["help"]
            assert controls[item.name].choices == item.metadata["choices"]
            assert controls[item.name].default == item.default


def test_every_control_is_on_the_page(root: Path, show: Show) -> None:
    app = show()
    drawn = {element.key for kind in ("text_input", "number_input", "selectbox", "toggle", "button_group") for element in app.get(kind)}
    assert {item.name for item in fields(RunConfig)} - {"settings"} <= drawn
    assert {"rloo.kl", "rloo.normalise", "first_order.beta1"} <= drawn
    assert "zopro.alpha" not in drawn


def test_the_untouched_form_is_the_default_run(root: Path, show: Show) -> None:
    app = show()
    (command,) = _commands(app)
    assert command.startswith(f"interplay train --out {root}/rloo-chat-s0-")
    assert len(command.split()) == 4
    assert not any("changed" in expander.label for expander in app.expander)


def test_a_link_fills_the_form_and_the_command(root: Path, show: Show) -> None:
    app = show(
        method="zopro", iterations="3", zopro__alpha="0.5", zopro__mode="wrong_v", zeroth__directions="4", learning_rate="0.25", freeze_reward="true", out=""
    )
    (command,) = _commands(app)
    config = RunConfig.from_argv(command.split()[2:])
    assert config.with_(out=None) == RunConfig(
        method="zopro", iterations=3, learning_rate=0.25, freeze_reward=True, settings={"directions": 4, "alpha": 0.5, "mode": "wrong_v"}
    )
    labels = [expander.label for expander in app.expander]
    assert "The method's own · 3 changed" in labels
    assert "Reward · 1 changed" in labels
    assert "Policy · 1 changed" in labels
    assert "Budget" in labels


def test_the_yaml_is_the_same_run(root: Path, show: Show) -> None:
    app = show(method="zopro", zopro__alpha="0.5", completions="8", task="translation")
    text = app.code[1].value
    typed = RunConfig.from_argv(_commands(app)[0].split()[2:])
    assert RunConfig.from_yaml(text) == typed
    assert app.code[2].value == "interplay train --config run.yaml"


def test_another_method_brings_its_own_settings(root: Path, show: Show) -> None:
    app = show()
    app.selectbox(key="method").set_value("zopro").run()
    assert app.number_input(key="zopro.alpha").value == 0.999
    app.number_input(key="zopro.alpha").set_value(0.25).run()
    assert "--set alpha=0.25" in _commands(app)[0]
    app.selectbox(key="method").set_value("rloo").run()
    assert "--set" not in _commands(app)[0]


def test_every_objective_can_be_paired_with_every_rule() -> None:
    pairs = {method.name: method for method in catalogue.pairs(METHODS)}
    assert set(pairs) == {"dpo+zopro", "ppo+zopro"}
    assert [own.name for own in pairs["dpo+zopro"].settings] == ["beta", "directions", "alpha", "mode"]
    assert (pairs["dpo+zopro"].reads, pairs["dpo+zopro"].summary) == ("pairs", "about dpo; about zopro")
    assert catalogue.pairs(tuple(MethodChoice(*row) for row in catalogue.USUAL)) == ()


def test_the_reset_button_takes_everything_back(root: Path, show: Show) -> None:
    app = show(method="zopro", seed="4", layers="0-3", zopro__alpha="0.5", freeze_reward="true", reward="gold")
    _button(app, "reset").click().run()
    assert not app.exception
    (command,) = _commands(app)
    assert len(command.split()) == 4, command
    assert not any("changed" in expander.label for expander in app.expander)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("iterations", "0", "at least 1"),
        ("iterations", "many", "whole number"),
        ("iterations", "1.5", "whole number"),
        ("keep_close", "7", "at most 1"),
        ("learning_rate", "0", "greater than 0"),
        ("learning_rate", "nan", "browser can hold"),
        ("seed_data", "9" * 40, "browser can hold"),
        ("tune", "halfway", "allowed: full, lora"),
        ("method", HOSTILE, "allowed: "),
        ("layers", "foo", "use all"),
        ("seed", "5-3", "write a seed"),
        ("freeze_reward", "perhaps", "true or false"),
        ("trust_remote_code", "true", "a link cannot grant it"),
        ("rloo__kl", "-1", "at least 0"),
    ],
)
def test_what_a_link_may_not_say_is_ignored_and_named(root: Path, show: Show, name: str, value: str, why: str) -> None:
    app = show(**{name: value})
    notes = _plain(app.warning).replace("`", "")
    assert why in notes
    assert f"The link says {name.replace('__', '.')} = " in notes
    assert len(_commands(app)[0].split()) == 4
    assert not app.error
    assert name.replace("__", ".") not in app.query_params
    app.run()
    assert not app.warning


def test_a_link_cannot_grant_remote_code_but_a_hand_can(root: Path, show: Show) -> None:
    app = show()
    app.toggle(key="trust_remote_code").set_value(True).run()
    assert "--trust-remote-code" in _commands(app)[0]
    assert "trust_remote_code" not in app.code[1].value
    assert app.code[2].value == "interplay train --config run.yaml --trust-remote-code"


def test_what_does_not_go_together_is_one_line(root: Path, show: Show) -> None:
    app = show(reward_updates="0")
    assert "--reward-updates is 0" in _plain(app.error)
    assert len(app.error) == 1
    assert _button(app, "start").disabled
    assert not show(reward_updates="0", reward="gold").error


def test_a_folder_elsewhere_is_refused(root: Path, show: Show) -> None:
    assert "shows only what is in" in _plain(show(out="/tmp/elsewhere").error)
    assert "shows only what is in" in _plain(show(out=str(root / ".." / "other")).error)
    assert f"--out {root}/mine" in _commands(show(out=str(root / "mine")))[0]


@pytest.mark.parametrize(("text", "seeds"), [("7", (7,)), ("0-2", (0, 1, 2)), ("0, 3,5", (0, 3, 5)), ("1,0-1", (1, 0)), ("2-2", (2,))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert form.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "-1", "a", "1.5", "3-1", "0-9999", "1,,2", "٣", "0-2-4", "1" * 17])
def test_no_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="write a seed, or several"):
        form.parse_seeds(text)


def test_several_seeds_are_several_commands(root: Path, show: Show) -> None:
    app = show(seed="0-2", method="dpo")
    commands = _commands(app)
    configs = [RunConfig.from_argv(command.split()[2:]) for command in commands]
    assert [config.seed for config in configs] == [0, 1, 2]
    assert len({config.out for config in configs}) == 3
    assert _button(app, "start").label == "Start 3 runs"
    assert "seed" not in yaml.safe_load(app.code[1].value)
    assert app.code[2].value.splitlines()[2] == f"interplay train --config run.yaml --out {configs[2].out} --seed 2"


# --- starting from another run -----------------------------------------------------------------------


@pytest.fixture
def earlier(root: Path) -> Path:
    path = Fabricated(root / "first", layers=2, k=16, updates_each=2).whole()
    raw = json.loads((path / "run.json").read_text())
    raw["config"] |= {"lora_rank": 4, "reward": "gold", "task": "translation", "heldout": 10}
    (path / "run.json").write_text(json.dumps(raw))
    _with_checkpoints(path, 0, 1, 2)
    return path


def test_a_branch_takes_over_what_the_run_had(root: Path, show: Show, earlier: Path) -> None:
    app = show(start_from="first")
    words = _commands(app)[0].split()
    config = RunConfig.from_argv(words[2:])
    assert (config.start_from, config.lora_rank, config.reward, config.task, config.heldout) == (str(earlier), 4, "gold", "translation", 10)
    assert app.number_input(key="lora_rank").value == 4
    assert not any("Model ·" in expander.label for expander in app.expander)
    assert any(expander.label == "Data, folder, seeds · 1 changed" for expander in app.expander)


def test_a_default_that_is_not_inherited_is_spelled_out(root: Path, show: Show, earlier: Path) -> None:
    app = show(start_from="first", reward="model")
    words = _commands(app)[0].split()
    assert words[-2:] == ["--reward", "model"]
    assert yaml.safe_load(app.code[1].value)["reward"] == "model"
    kept = RunConfig.continuing(json.loads((earlier / "run.json").read_text())["config"], {"reward": "model"})
    assert kept["reward"] == "model"


def test_an_iteration_can_be_named(root: Path, show: Show, earlier: Path) -> None:
    assert f"--from {earlier}@1" in _commands(show(start_from="first@1"))[0]
    assert f"--from {earlier}@2" in _commands(show(start_from=f"{earlier}@2"))[0]
    assert "keeps iterations 1, 2" in _plain(show(start_from="first@7").error)
    assert "keeps iterations 1, 2" in _plain(show(start_from="first@0").error)


def test_choosing_a_start_later_moves_the_untouched_settings_only(root: Path, show: Show, earlier: Path) -> None:
    app = show()
    app.number_input(key="heldout").set_value(20).run()
    app.text_input(key="start_from").set_value("first").run()
    assert (app.number_input(key="lora_rank").value, app.number_input(key="heldout").value) == (4, 20)
    app.text_input(key="start_from").set_value("").run()
    assert (app.number_input(key="lora_rank").value, app.number_input(key="heldout").value) == (16, 20)


def test_a_start_that_is_none_says_why(root: Path, show: Show) -> None:
    assert "there is no run" in _plain(show(start_from="nowhere").error)
    Fabricated(root / "bare", layers=2, k=16, updates_each=2).whole()
    assert "keeps no iteration with updates" in _plain(show(start_from="bare").error)


def test_others_cannot_ask_for_paths(root: Path, show: Show, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    secret = Fabricated(tmp_path / "private" / "own", layers=2, k=16, updates_each=2).whole()
    _with_checkpoints(secret, 1)
    assert "there is no run" in _plain(show(start_from=str(secret)).error)
    assert f"--from {earlier}" in _commands(show(start_from="first"))[0]


def test_inherited_settings_are_known_settings() -> None:
    assert set(INHERITED) <= set(form.of_config({}))


# --- data --------------------------------------------------------------------------------------------


def _rows(path: Path, count: int = 100, **more: Any) -> Path:
    path.write_text("\n".join(json.dumps({"prompt": f"Question {i}? {HOSTILE}", "chosen": f"yes {i}", "rejected": f"no {i}", **more}) for i in range(count)))
    return path


def test_the_tasks_own_prompts_are_shown(root: Path, show: Show) -> None:
    app = show()
    assert "Layout own prompts: 240 prompts, 64 of them held out" in _plain(app.text)
    assert len(app.dataframe[0].value) == 3


def test_a_file_is_shown_as_the_run_reads_it(root: Path, show: Show, tmp_path: Path) -> None:
    path = _rows(tmp_path / "pairs.jsonl", colour="red")
    app = show(data=str(path))
    assert "Layout preference: 100 prompts, 64 of them held out; 100 judged pairs; not used: colour" in _plain(app.text)
    table = app.dataframe[0].value
    assert list(table.columns) == ["prompt", "chosen", "rejected"]
    assert HOSTILE in table["prompt"][0]
    assert not any("evil.example" in element.value for element in [*app.markdown, *app.caption])
    assert f"--data {path}" in _commands(app)[0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "no rows"),
        ("{", "is not JSON"),
        ('{"question": "x"}\n', "rename 'question' to 'prompt'"),
        ('{"prompt": "x"}\n', "use --heldout"),
        ("\0\0", "is not JSON"),
    ],
)
def test_data_that_cannot_be_used_is_one_line_and_starts_nothing(root: Path, show: Show, tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(content)
    app = show(data=str(path))
    assert why in _plain(app.error)
    assert len(app.error) == 1
    assert "\n" not in app.error[0].value
    assert _button(app, "start").disabled


def test_a_file_that_is_not_there(root: Path, show: Show) -> None:
    app = show(data="/nowhere/at all.jsonl")
    assert "there is no such file" in _plain(app.error)
    assert _button(app, "start").disabled


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["notes.txt"], "holds no config.json (it holds notes.txt)"),
        (["config.json"], "which holds no weights"),
        (["config.json", "pytorch_model.bin"], "a pickle file that could run code"),
        (["adapter_config.json"], "an adapter without adapter_model.safetensors"),
        (None, "there is no such folder"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line_and_starts_nothing(root: Path, show: Show, tmp_path: Path, files: list[str] | None, why: str) -> None:
    folder = tmp_path / "weights"
    for name in files or ():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    app = show(model=str(folder))
    assert why in _plain(app.error)
    assert "--model is" in _plain(app.error)
    assert _button(app, "start").disabled


def test_a_model_that_may_be_used_starts(root: Path, show: Show, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    for model in ("bundled", "somebody/their-model", str(tmp_path)):
        app = show(model=model)
        assert not app.error
        assert not _button(app, "start").disabled


def test_a_judge_that_cannot_be_used_is_told_where_one_is_asked_for(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--judge-model is '~nobody-here/x'" in _plain(show(judge="model", judge_model="~nobody-here/x").error)
    assert not show(judge_model="/nowhere").error
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    assert not show(model="/nowhere").error, "others do not learn which folders there are"


def test_looking_at_a_model_folder_needs_no_engine() -> None:
    words = "import sys; from interplay import model_folders; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", words], check=True)


def test_a_data_set_of_the_hub_is_fetched_only_when_asked(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr("app.train.preview.make", lambda config: asked.append(config.data) or preview.Preview(error="could not be had from the hub (offline)"))
    app = show(data="trl-lib/tldr-preference")
    assert not asked
    assert not _button(app, "start").disabled
    _button(app, "fetch").click().run()
    assert asked == ["trl-lib/tldr-preference"]
    assert "could not be had" in _plain(app.error)


@pytest.mark.parametrize(
    ("name", "hub"), [("a/b", True), ("squad", True), ("./a", False), ("/a/b", False), ("a/b/c", False), ("a.jsonl", False), ("", False), ("../../x", False)]
)
def test_what_is_taken_for_a_hub_id(name: str, hub: bool) -> None:
    assert preview.on_hub(name) is hub


def test_a_large_file_is_read_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(data=str(_rows(tmp_path / "large.jsonl")))
    here = preview.make(config)
    monkeypatch.setattr("app.train.preview._IN_PROCESS", 10)
    assert preview.make(config) == here
    assert not here.error
    (tmp_path / "large.jsonl").write_text("{")
    assert "is not JSON" in preview.make(config).error


def test_a_folder_that_is_nothing_is_one_line(tmp_path: Path) -> None:
    found = preview.make(RunConfig(data=str(tmp_path)))
    assert str(tmp_path) in found.error
    assert "\n" not in found.error


def test_others_do_not_see_files(root: Path, show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    app = show(data=str(_rows(tmp_path / "private.jsonl")))
    assert not app.dataframe
    assert "files are not shown" in _plain(app.text)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "../../etc/x.jsonl", "..\\up.JSONL", "/abs/x.csv", f"{HOSTILE}.json", ".jsonl.jsonl", "x" * 300 + ".parquet", "ü ☃.csv"]
)
def test_an_uploaded_file_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    path = preview.save(tmp_path, name, b"content")
    assert path.parent == tmp_path / ".uploads"
    assert path.read_bytes() == b"content"
    assert path.name.isascii()
    assert len(path.name) < 80
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_uploaded_file_must_be_data_and_not_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.pt", "x", "x.jsonl.pkl", "x.sh"):
        with pytest.raises(DataError, match=r"allowed: \.csv"):
            preview.save(tmp_path, name, b"")
    monkeypatch.setattr("app.train.preview.MOST_UPLOADED", 3)
    with pytest.raises(DataError, match="give its path"):
        preview.save(tmp_path, "x.csv", b"1234")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".uploads").symlink_to("/tmp")
    with pytest.raises(DataError, match="leads out"):
        preview.save(tmp_path / "link", "x.csv", b"1")
    assert not (tmp_path / ".uploads").exists()


def test_an_uploaded_file_becomes_the_data(root: Path, show: Show, tmp_path: Path) -> None:
    app = show()
    app.file_uploader(key="upload").upload("my pairs.jsonl", _rows(tmp_path / "x.jsonl").read_bytes(), "application/jsonl").run()
    assert not app.exception
    assert app.text_input(key="data").value.startswith(f"{root}/.uploads/my-pairs-")
    assert "Layout preference" in _plain(app.text)
    assert loading.summaries() == []


# --- memory, disk, time ------------------------------------------------------------------------------

HERE = Machine(memory=8 * GIB, disk=10 * GIB, cores=2, host="here", name="x86_64")


def _seen(name: str = "old", *, device: str = "cpu", host: str | None = "here", **config: Any) -> Seen:
    return Seen(
        name,
        RunConfig(**config).to_mapping(),
        device,
        "x86_64",
        host,
        peak=5.0 * GIB,
        seconds=10.0,
        modules={"policy": 10, "reward": 11},
        parameters=1_000_000,
        row_bytes={"updates": 30.0, "directions": 512.0},
        k=256,
    )


def test_needs_are_those_of_the_most_alike_run() -> None:
    config = RunConfig(iterations=2, updates=5, reward_updates=4, completions=8)
    needs = {line.what: line for line in preflight.check(config, 1, HERE, [_seen("other", completions=4), _seen("same", completions=8)])}
    assert needs["Memory"].text == "about 5.0 GiB of 8.0 GiB free"
    assert needs["Memory"].source == "the most that same used (recorded peak_memory)"
    # 2 x 5 policy updates and (1 + 2) x 4 of the reward model
    assert needs["Time"].text == "on the CPU (2 cores): about 4 min"
    assert needs["Time"].source.startswith("22 updates at 10 s, as in same here")
    rows = 10 * 10 + 11 * 12
    checkpoints = 3 * 1_000_000 * 4 * 7  # iterations 0 to 2; policy and two moments, two reward models, two last updates
    assert needs["Disk"].text == f"about {preflight.size(rows * (60 + 512) + checkpoints)} of 10.0 GiB free"
    assert all(line.fits is not False for line in needs.values())


def test_a_run_that_was_not_alike_is_said_not_to_be() -> None:
    line = preflight.memory(RunConfig(completions=16), HERE, [_seen(completions=4)])
    assert "there with another --completions" in line.source


def test_what_does_not_fit_is_red_with_a_remedy() -> None:
    small = Machine(memory=2 * GIB, disk=GIB // 100, cores=2, host="here", name="x86_64")
    needs = preflight.check(RunConfig(), 1, small, [_seen()])
    assert [line.fits for line in needs] == [False, False, None]
    assert "--completions" in needs[0].remedy
    assert "--keep-checkpoints last" in needs[1].remedy


def test_several_runs_need_their_disk_together_and_their_time_one_after_another() -> None:
    one, three = (preflight.check(RunConfig(), runs, HERE, [_seen()]) for runs in (1, 3))
    assert one[0] == three[0]
    assert one[2].text == "on the CPU (2 cores): about 5 min"
    assert three[2].text == "on the CPU (2 cores): about 15 min for 3 runs"
    assert float(three[1].text.split()[1]) == pytest.approx(3 * float(one[1].text.split()[1]), rel=0.02)


def test_what_no_run_tells_is_unknown() -> None:
    needs = preflight.check(RunConfig(model="owner/large"), 1, HERE, [])
    assert all("unknown" in line.text and line.fits is None for line in needs)


def test_the_pace_of_another_machine_is_not_this_ones() -> None:
    line = preflight.time(RunConfig(), 1, HERE, [_seen(host=None)])
    assert line.text == "on the CPU (2 cores): unknown, 5 min on another machine"
    assert "on another machine" in line.source
    assert preflight.time(RunConfig(), 1, HERE, [_seen(host=None), _seen("mine")]).text == "on the CPU (2 cores): about 5 min"
    assert preflight.time(RunConfig(method="ppo"), 1, HERE, [_seen()]).text == "on the CPU (2 cores): unknown"


def test_a_gpu_is_used_where_there_is_one_and_asked_for_in_vain_where_there_is_none() -> None:
    gpu = Machine(memory=8 * GIB, disk=10 * GIB, cores=2, host="here", name="x86_64", gpus=(("H1", 4 * GIB),))
    assert preflight.memory(RunConfig(), gpu, [_seen(device="cuda")]).text == "about 5.0 GiB of 4.0 GiB free on H1"
    assert preflight.memory(RunConfig(), gpu, [_seen(device="cuda")]).fits is False
    assert "8.0 GiB free" in preflight.memory(RunConfig(device="cpu"), gpu, [_seen()]).text
    line = preflight.memory(RunConfig(device="cuda"), HERE, [_seen()])
    assert (line.fits, line.remedy) == (False, "Use --device auto or cpu.")


def test_weights_are_a_lower_bound(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 2**20)
    line = preflight.memory(RunConfig(model=str(tmp_path)), HERE, [])
    assert (line.text, line.fits) == ("at least 1.0 MiB of 8.0 GiB free", None)
    full = preflight.memory(RunConfig(model=str(tmp_path), tune="full"), HERE, [])
    assert full.text.startswith("at least 3.0 MiB")


def test_recorded_runs_are_read_for_their_needs(root: Path) -> None:
    run = Fabricated(root / "old", layers=2, k=16, updates_each=3)
    run.store.update_info(
        machine={"device": "cpu", "name": "x86_64"}, model={"trained_parameters": {"policy": 77}}, recorder={"roles": {"policy": {"modules": 14}, "odd": 3}}
    )
    run.step("policy", 1, 3)
    run._metrics(run._place("policy", 1), "train", {"peak_memory": 3e9})
    run.store.set_status(progress={"done": 3, "planned": 6})
    run.store.close("finished")
    found = next(one for one in preflight.seen(RunConfig()) if one.run == "old")
    assert (found.peak, found.modules, found.parameters, found.k, found.device) == (3e9, {"policy": 14}, 77, 16, "cpu")
    assert found.seconds == pytest.approx(1.7 * 6 / 3)
    assert found.host == preflight.machine(root).host
    assert 0 < found.row_bytes["updates"] < found.row_bytes["directions"] * 10


def test_the_runs_that_came_with_the_project_are_an_anchor(root: Path) -> None:
    needs = preflight.check(RunConfig(), 1, HERE, preflight.seen(RunConfig()))
    assert needs[0].text.startswith("about ")
    assert needs[1].text.startswith("about ")
    assert "another machine" in needs[2].source


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"run": 3}', '{"run": "x", "config": {}, "command": [], "created": "", "machine": 3, "recorder": [], "model": "m"}']
)
def test_damaged_runs_tell_nothing(root: Path, content: str) -> None:
    Fabricated(root / "bad", layers=2, k=16, updates_each=2).whole()
    (root / "bad" / "run.json").write_text(content)
    assert "bad" not in [one.run for one in preflight.seen(RunConfig())]


def test_the_page_shows_what_will_not_fit(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.train.preflight.machine", lambda root: Machine(memory=2**20, disk=10 * GIB, cores=2, host="here", name="x86_64"))
    app = show()
    assert "Memory will not suffice" in _plain(app.error)
    assert "so Start is off" not in _plain(app.error)
    assert not _button(app, "start").disabled, "it is an estimate"


# --- jobs --------------------------------------------------------------------------------------------


def _runs_as(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """In place of training."""
    monkeypatch.setattr("app.queue.jobs.train_argv", lambda config: [sys.executable, "-c", code, "--out", str(config.out)])


SLEEP = "import time; print('at work', flush=True); time.sleep(60)"


def test_start_watch_and_stop(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs_as(monkeypatch, SLEEP)
    app = show()
    assert "Nothing has been started" in _plain(app.text)
    _button(app, "start").click().run()
    assert not app.exception
    (job,) = launch.here().list()
    assert job.folder is not None
    assert job.folder.name in _plain(app.text)
    until(lambda: "at work" in launch.here().tail(job.id))
    app.run()
    assert any("at work" in code.value for code in app.code)
    _button(app, f"stop-{job.id}").click().run()
    assert not app.exception
    launch.here().stop(job.id, wait=True)
    assert launch.here().list()[0].state == "stopped"


def test_many_clicks_are_one_job_and_another_setting_is_another(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs_as(monkeypatch, SLEEP)
    app, second = show(), show()
    for _ in range(3):
        _button(app, "start").click().run()
    _button(second, "start").click().run()
    assert len(launch.here().list()) == 1
    app.number_input(key="updates").set_value(9).run()
    _button(app, "start").click().run()
    assert sorted(job.state for job in launch.here().list()) == ["queued", "running"]


def test_what_has_ended_can_be_started_again(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs_as(monkeypatch, "print('done')")
    app = show()
    for number in (1, 2):
        _button(app, "start").click().run()
        assert len(launch.here().list()) == number
        until(lambda: all(job.ended for job in launch.here().list()))


def test_one_job_for_each_seed_in_a_queue(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.queue.queueing.slots", lambda: ("cpu",))
    _runs_as(monkeypatch, SLEEP)
    app = show(seed="0-2")
    _button(app, "start").click().run()
    assert not app.exception
    assert sorted(job.state for job in launch.here().list()) == ["queued", "queued", "running"]
    assert "number 1 in the queue" in _plain(app.text)
    assert "number 2 in the queue" in _plain(app.text)


def test_a_failed_job_says_its_last_line_and_a_hint(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    _runs_as(monkeypatch, "import sys; sys.exit('first\\nRuntimeError: CUDA out of memory [x](http://evil.example)')")
    app = show()
    _button(app, "start").click().run()
    until(lambda: all(job.ended for job in launch.here().list()))
    app.run()
    assert "CUDA out of memory" in _plain(app.error)
    assert "](" not in app.error[0].value
    assert "--completions" in _plain(app.info)


def _job_of(path: Path, code: str = "raise SystemExit(1)") -> Any:
    return launch.here().start_argv([sys.executable, "-c", code, "--out", str(path)])


def test_an_interrupted_run_can_be_resumed(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Fabricated(root / "stopped", layers=2, k=16, updates_each=2)
    run.step("policy", 1, 2)
    run.store.set_status(progress={"doing": "policy", "share": 0.4, "done": 2, "planned": 5})
    run.store.close("interrupted")
    _with_checkpoints(run.path, 0, 1)
    job = _job_of(run.path)
    until(lambda: launch.here().get(job.id).ended)
    asked: list[list[str]] = []
    monkeypatch.setattr("app.queue.jobs.Jobs.start_argv", lambda self, argv, key="", cwd=None, alone=False: asked.append(argv))
    app = show()
    assert "run interrupted at 40%; Resume goes on after iteration 1; what came after it is done again" in _plain(app.text)
    _button(app, f"resume-{job.id}").click().run()
    assert asked == [[sys.executable, "-m", "app.cli", "train", "--resume", str(run.path)]]


def test_a_run_without_a_checkpoint_begins_anew_and_a_finished_one_is_not_resumed(root: Path, show: Show) -> None:
    """A stop before the first iteration is complete is the usual one, so Resume is there and says what it does."""
    Fabricated(root / "bare", layers=2, k=16, updates_each=2).store.close("failed")
    whole = Fabricated(root / "whole", layers=2, k=16, updates_each=2).whole()
    _with_checkpoints(whole, 1)
    found = [_job_of(root / "bare"), _job_of(whole)]
    until(lambda: all(launch.here().get(job.id).ended for job in found))
    app = show()
    assert [button.key for button in app.button if str(button.key).startswith("resume-")] == [f"resume-{found[0].id}"]
    assert "run failed; Resume begins anew, because no iteration was complete" in _plain(app.text)


def test_a_running_run_shows_how_far_it_is(root: Path, show: Show) -> None:
    run = Fabricated(root / "live", layers=2, k=16, updates_each=2)
    _job_of(run.path, SLEEP)
    time.sleep(0.1)  # the start of a process is known to a hundredth of a second
    run.store.set_status(progress={"doing": HOSTILE, "share": 0.5, "done": 2, "planned": 4})
    app = show()
    bar = app.get("progress")[0].proto
    assert bar.value == 50
    assert "50%" in bar.text.replace("\\", "")
    assert "](" not in bar.text
    run.store.close("finished")


def test_the_time_left_is_told_at_the_pace_so_far() -> None:
    status = Status("running", time.time(), started=time.time() - 60)
    left = started._left(status, 0.25, False)
    assert left == pytest.approx(180, abs=2)
    assert started._left(status, 0.25, True) is None
    assert started._left(status, 0.0, False) is None
    assert started._left(Status("running", time.time()), 0.5, False) is None


def test_odd_status_files_do_no_harm(root: Path, show: Show) -> None:
    run = Fabricated(root / "odd", layers=2, k=16, updates_each=2)
    run.store.set_status(progress={"share": "half", "doing": 3})
    run.store.close("interrupted")
    job = _job_of(run.path)
    until(lambda: launch.here().get(job.id).ended)
    assert "run interrupted" in _plain(show().text)
    (run.path / "status.json").write_text("{")
    assert "odd" in _plain(show().text)


def test_a_job_whose_folder_is_elsewhere_shows_no_run(root: Path, show: Show, tmp_path: Path) -> None:
    path = Fabricated(tmp_path / "elsewhere", layers=2, k=16, updates_each=2).whole()
    _job_of(path, SLEEP)
    assert "run finished" not in _plain(show().text)


def test_an_exposed_server_shows_everything_and_starts_nothing(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    app = show(method="dpo")
    assert _button(app, "start").disabled
    assert "has no login" in _plain(app.info)
    assert "--method dpo" in _commands(app)[0]
    assert app.file_uploader(key="upload").proto.disabled
    assert not (root / ".jobs").exists() or not launch.here().list()


def test_without_the_engine_the_form_says_how_to_get_it(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: False)
    monkeypatch.setattr("app.reading.catalogue.methods", lambda: tuple(MethodChoice(*row) for row in catalogue.USUAL))
    app = show()
    assert app.button[0].disabled
    assert "pip install" in app.info[0].value


def test_many_runs_and_broken_ones_do_not_disturb(root: Path, show: Show) -> None:
    for number in range(12):
        Fabricated(root / f"run-{number}", layers=1, k=4, updates_each=1, bad_numbers=number % 2 == 0).whole()
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    assert _commands(show())[0].startswith("interplay train")


# --- hints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "memory"),
        ("DefaultCPUAllocator: can't allocate memory", "memory"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("interplay: /x/run is being recorded by process 7 on vm; stop it", "Another process"),
        ("interplay: --data is 'a/b', which is no file here and could not be had from the hub (OfflineModeIsEnabled: x)", "network"),
        ("interplay: a run named x exists already in runs; choose another --out", "folder is taken"),
        ("interplay: the loss is no longer a finite number", "diverged"),
        ("interplay: --device is 'cuda', but torch sees no CUDA device", "GPU"),
        ("interplay: training needs the engine, and torch is not installed", "package"),
    ],
)
def test_a_known_end_has_a_hint(lines: str, word: str) -> None:
    assert word in str(hints.hint(f"12 s  40%  policy\n{lines}"))


def test_an_unknown_end_speaks_for_itself() -> None:
    assert hints.hint("KeyError: 'x'") is None
    assert hints.hint("") is None


def test_the_hints_know_what_the_engine_says() -> None:
    """The messages are quoted from the engine; when they change, so must the patterns."""
    engine = "".join(path.read_text() for path in (Path(__file__).parents[1] / "interplay").glob("*.py"))
    for words in ("is being {what} by", "could not be had from the hub", "exists already in", "no longer a finite number", "sees no CUDA device"):
        assert words in engine
