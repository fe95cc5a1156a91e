"""`RunConfig`: three ways in, two ways out, and every refusal in words."""

from __future__ import annotations

import argparse
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interplay.config import RunConfig, add_arguments, build_settings, flag, parse_layers, plain, setting
from interplay.errors import ConfigError
from interplay.objectives.rloo import Settings as RlooSettings

FIELDS = {item.name: item for item in fields(RunConfig)}
HINTS = get_type_hints(RunConfig)

# --- strategies: any value that a field allows -----------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
_LAYERS = st.one_of(
    st.just("all"), st.lists(st.integers(0, 40), min_size=1, max_size=3).map(lambda n: ",".join(f"{i}-{i + 2}" if i % 2 else str(i) for i in n))
)
_SETTINGS = st.dictionaries(
    st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True),
    st.one_of(st.booleans(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.sampled_from(["cosine", "a=b", "two words", "-x"])),
    max_size=3,
)


def _values(name: str) -> st.SearchStrategy[Any]:
    meta, hint = FIELDS[name].metadata, HINTS[name]
    if name == "settings":
        return _SETTINGS
    if name == "layers":
        return _LAYERS
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    if hint is bool:
        return st.booleans()
    if hint in (int, int | None):
        found: st.SearchStrategy[Any] = st.integers(math.ceil(meta["low"]), int(meta["high"]) if meta["high"] is not None else 2**63)
    elif hint in (float, float | None):
        low = meta["low"] if meta["low"] is not None else meta["above"]
        found = st.floats(low, meta["high"], exclude_min=meta["above"] is not None, allow_nan=False, allow_infinity=False)
    else:
        found = _TEXT
    return st.none() | found if type(None) in getattr(hint, "__args__", ()) else found


CONFIGS = st.fixed_dictionaries({}, optional={name: _values(name) for name in FIELDS}).map(
    lambda raw: RunConfig(**{**raw, **({"reward_updates": 1} if raw.get("reward", "model") == "model" and raw.get("reward_updates") == 0 else {})})
)


# --- round trips -----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(CONFIGS)
@example(RunConfig(out="-dashed", data="-", model="a=b c", seed=10**15 - 1, settings={"clip": 0.1, "normalise": True, "word": "-x"}))
def test_the_command_line_gives_the_configuration_back(config: RunConfig) -> None:
    words = config.to_argv()
    assert all(isinstance(word, str) for word in words)
    assert RunConfig.from_argv(words) == config


@settings(max_examples=150, deadline=None)
@given(CONFIGS)
@example(RunConfig(seed=10**15 - 1, task="yes", data="1e3", learning_rate=1e-7))
def test_yaml_and_plain_values_give_the_configuration_back(config: RunConfig) -> None:
    assert RunConfig.from_mapping(config.to_mapping()) == config
    trusting = {"trust_remote_code": True} if config.trust_remote_code else {}  # a file cannot grant it: the flag must be typed
    assert RunConfig.from_yaml(config.to_yaml(), **trusting) == config
    assert RunConfig.from_yaml(yaml.safe_dump(config.to_mapping()), **trusting) == config


def test_only_what_differs_is_written() -> None:
    assert RunConfig().to_argv() == []
    assert RunConfig().to_yaml() == "{}\n"
    assert RunConfig(trust_remote_code=True, lora_rank=4).to_argv() == ["--trust-remote-code", "--lora-rank", "4"]
    assert RunConfig.from_argv(["--no-trust-remote-code"]) == RunConfig()
    assert set(RunConfig().to_mapping()) == set(FIELDS)


def test_a_configuration_cannot_be_changed_and_copies_what_it_is_given() -> None:
    given_settings = {"clip": 0.1}
    config = RunConfig(settings=given_settings)
    given_settings["clip"] = 9
    assert config.settings == {"clip": 0.1}
    with pytest.raises(FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    assert config.with_(seed=5) == RunConfig(seed=5, settings={"clip": 0.1})


def test_flags_win_over_yaml() -> None:
    text = "seed: 3\nlearning-rate: 1e-4\nsettings: {clip: 0.3, kl: 0.1}\n"
    config = RunConfig.from_yaml(text, learning_rate="2e-4", settings={"clip": 0.4})
    assert config == RunConfig(seed=3, learning_rate=2e-4, settings={"clip": 0.4, "kl": 0.1})
    assert RunConfig.from_yaml("") == RunConfig()


# --- refusals --------------------------------------------------------------------------------------


def refusal(**raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping(raw, source="run.yaml")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("key", "meant"), [("learning_rat", "learning_rate"), ("max-new-token", "max_new_tokens"), ("Seed", "seed")])
def test_an_unknown_key_is_named_with_the_nearest(key: str, meant: str) -> None:
    assert (text := refusal(**{key: 1})).startswith(f"unknown key {key!r} in run.yaml")
    assert repr(meant) in text


@pytest.mark.parametrize(("word", "meant"), [("--learning-rat", "--learning-rate"), ("--max-new-token=3", "--max-new-tokens"), ("--sed", "--seed")])
def test_an_unknown_flag_is_named_with_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown argument '{word}'; did you mean '{meant}'"):
        RunConfig.from_argv([word, "1"])


def test_flags_are_never_abbreviated() -> None:
    with pytest.raises(ConfigError, match="unknown argument '--learning'"):
        RunConfig.from_argv(["--learning", "1"])


BOUNDS = [(name, bound, item.metadata[bound]) for name, item in FIELDS.items() for bound in ("low", "high", "above") if item.metadata.get(bound) is not None]


@pytest.mark.parametrize(("name", "bound", "limit"), BOUNDS, ids=[f"{n}-{b}" for n, b, _ in BOUNDS])
def test_every_bound_is_kept_and_said(name: str, bound: str, limit: float) -> None:
    whole = HINTS[name] in (int, int | None)
    step = 1 if whole else 1e-6
    outside = {"low": limit - step, "high": limit + step, "above": limit}[bound]
    inside = {"low": limit, "high": limit, "above": limit + step}[bound]
    outside, inside = (int(outside), int(inside)) if whole else (float(outside), float(inside))
    words = {"low": "at least", "high": "at most", "above": "greater than"}[bound]
    assert refusal(**{name: outside}) == f"{flag(name)} is {outside!r}; it must be {words} {limit:g}"
    gold = {"reward": "gold"} if name == "reward_updates" else {}
    assert getattr(RunConfig.from_mapping({name: inside, **gold}), name) == inside


def test_there_is_a_bound_where_zero_or_less_makes_no_sense() -> None:
    assert {name for name in FIELDS if HINTS[name] in (int, float, int | None, float | None)} == {name for name, bound, _ in BOUNDS if bound != "high"}


@pytest.mark.parametrize("name", [name for name, item in FIELDS.items() if item.metadata.get("choices")])
def test_every_choice_is_kept_and_said(name: str) -> None:
    choices = FIELDS[name].metadata["choices"]
    text = refusal(**{name: choices[0] + "x"})
    assert text.startswith(f"{flag(name)} is {choices[0] + 'x'!r}; allowed: ")
    assert all(choice in text for choice in choices)
    assert f"did you mean {choices[0]!r}?" in text
    for choice in choices:
        assert getattr(RunConfig(**{name: choice}), name) == choice


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("seed", "1.5", "a whole number"),
        ("seed", True, "a whole number"),
        ("seed", "many", "a whole number"),
        ("seed", None, "a whole number"),
        ("seed", [1], "a whole number"),
        ("seed", 10**400, "at most 1e+15"),
        ("pairs", "1e17x", "a whole number"),
        ("threads", "1e400", "a whole number"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", False, "a number"),
        ("learning_rate", "nan", "a finite number"),
        ("learning_rate", "inf", "a finite number"),
        ("trust_remote_code", "maybe", "true or false"),
        ("trust_remote_code", 1, "true or false"),
        ("task", ["chat"], "a word"),
        ("task", True, "a word"),
        ("task", None, "a word"),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: Any, kind: str) -> None:
    text = refusal(**{name: value})
    assert text.startswith(f"{flag(name)} is ")
    assert kind in text


def test_whole_numbers_stay_exact_beyond_what_a_float_holds() -> None:
    big = 2**53 + 1
    assert RunConfig.from_yaml(f"pairs: {big}").pairs == RunConfig.from_argv(["--pairs", str(big)]).pairs == big


def test_numbers_may_be_written_in_any_way() -> None:
    assert RunConfig.from_mapping({"seed": "1e3", "learning_rate": "3", "layers": 5, "data": 2024}) == RunConfig(
        seed=1000, learning_rate=3.0, layers="5", data="2024"
    )


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "seed: [1\n", "\tseed: 1", "settings: 5", "settings: clip=0.2", "settings: [clip]"])
def test_yaml_of_another_shape_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_yaml(text, source="run.yaml")
    assert any(word in str(caught.value) for word in ("run.yaml", "--set", "settings is"))
    assert "write" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["trust_remote_code: true", "trust-remote-code: true", "trust_remote_code: 'true'"])
def test_a_file_cannot_grant_that_code_is_run(text: str) -> None:
    with pytest.raises(ConfigError, match="a file cannot grant it: type --trust-remote-code"):
        RunConfig.from_yaml(text)
    assert RunConfig.from_yaml(text, trust_remote_code=True).trust_remote_code
    assert not RunConfig.from_yaml(text, trust_remote_code=False).trust_remote_code
    assert not RunConfig.from_yaml(text.replace("'true'", "true").replace("true", "false")).trust_remote_code


def test_a_trained_reward_model_needs_updates() -> None:
    assert "--reward gold" in refusal(reward_updates=0)
    assert RunConfig(reward="gold", reward_updates=0).reward_updates == 0


@pytest.mark.parametrize("word", ["clip", "=1", ""])
def test_set_wants_name_and_value(word: str) -> None:
    with pytest.raises(ConfigError, match="write NAME=VALUE"):
        RunConfig.from_argv(["--set", word])


# --- parts -----------------------------------------------------------------------------------------


def test_layers() -> None:
    assert parse_layers("all") is None
    assert parse_layers("0-2, 5") == {0, 1, 2, 5}
    for text in ("", "3-1", "a", "1-", "-1", "1;2", "0-2-4"):
        with pytest.raises(ConfigError, match="--layers is"):
            parse_layers(text)
        with pytest.raises(ConfigError, match="--layers is"):
            RunConfig(layers=text)


def test_plain_words_become_what_they_look_like() -> None:
    found = [plain(word) for word in ("4", "0.2", "true", "False", "1e-3", "cosine", "", "1_000")]
    assert found[:7] == [4, 0.2, True, False, 1e-3, "cosine", ""]
    assert [type(value) for value in found[:5]] == [int, float, bool, bool, float]


def test_streams_have_seeds_of_their_own() -> None:
    streams = ("data", "sampling", "perturbation")
    drawn = [RunConfig(seed=seed).stream_seed(stream) for seed in range(20) for stream in streams]
    assert len(set(drawn)) == 60
    assert RunConfig(seed_sampling=7).stream_seed("sampling") == 7
    assert RunConfig(seed_sampling=7).stream_seed("data") == RunConfig().stream_seed("data")


def test_settings_of_an_objective_are_checked_like_a_configuration() -> None:
    assert build_settings(RlooSettings, {"kl": 1, "normalise": "true"}, "rloo") == RlooSettings(kl=1.0, normalise=True)
    for values, words in (
        ({"clipp": 1}, "did you mean 'clip'"),
        ({"clip": "wide"}, "--set clip is 'wide'; it must be a number"),
        ({"clip": 0}, "--set clip is 0.0; it must be greater than 0"),
        ({"normalise": 2}, "--set normalise is 2; it must be true or false"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_settings(RlooSettings, values, "rloo")


def test_help_shows_each_flag_its_meaning_and_its_default() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for name, item in FIELDS.items():
        assert flag(name) in text
        assert " ".join(item.metadata["help"].split())[:40] in text
        if name != "settings" and item.default is not None and not isinstance(item.default, bool):
            assert f"(default {item.default})" in text
    assert setting(1, "g", "t").metadata["help"] == "t"
