"""The named pairs of objective and update rule."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from interplay import methods, objectives, updates
from interplay.config import RunConfig
from interplay.errors import ConfigError


@pytest.mark.parametrize("name", methods.NAMED)
def test_a_name_is_its_pair_spelled_out(name: str) -> None:
    objective, rule = methods.NAMED[name]
    found, spelled = methods.resolve(RunConfig(method=name)), methods.resolve(RunConfig(method=f"{objective}+{rule}"))
    assert (found.objective, found.rule) == (spelled.objective, spelled.rule) == (objectives.find(objective), updates.find(rule))
    assert found.objective_settings == objectives.find(objective).settings()
    assert found.rule_settings == updates.find(rule).settings()


def test_every_objective_and_rule_has_a_name() -> None:
    """A new file must not stay unreachable by name."""
    assert {objective for objective, _ in methods.NAMED.values()} == set(objectives.names())
    assert {rule for _, rule in methods.NAMED.values()} == set(updates.names())


def test_settings_go_to_their_owner() -> None:
    found = methods.resolve(RunConfig(method="ppo", settings={"clip": 0.1, "beta1": 0.5}))
    assert (found.objective_settings.clip, found.rule_settings.beta1) == (0.1, 0.5)
    assert (found.objective_settings.kl, found.rule_settings.beta2) == (0.05, 0.999)


def test_no_setting_of_a_method_has_two_owners() -> None:
    for objective in objectives.names():
        for rule in updates.names():
            ours = {item.name for item in fields(objectives.find(objective).settings)}
            assert not ours & {item.name for item in fields(updates.find(rule).settings)}


@pytest.mark.parametrize(
    ("method", "words"),
    [("rlo", "did you mean 'rloo'"), ("ppo+first", "allowed: dpo"), ("nope+first_order", "or OBJECTIVE+RULE from dpo"), ("+", "allowed: "), ("", "allowed: ")],
)
def test_an_unknown_method_names_the_known_ones(method: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"--method is {re.escape(repr(method))}; .*{re.escape(words)}"):
        methods.resolve(RunConfig(method=method))


@pytest.mark.parametrize(("settings", "words"), [({"clipp": 1}, "did you mean 'clip'"), ({"gamma": 1}, "rloo has no such setting"), ({"kl": -1}, "at least 0")])
def test_an_unknown_setting_names_the_known_ones(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        methods.resolve(RunConfig(settings=settings))
    assert f"--set {next(iter(settings))}" in str(caught.value)


def test_the_description_is_complete_and_plain() -> None:
    found = {row["name"]: row for row in methods.describe()}
    assert list(found) == list(methods.NAMED)
    assert json.loads(json.dumps(list(found.values()))) == list(found.values())
    for name, row in found.items():
        method = methods.resolve(RunConfig(method=name))
        listed = {item["name"]: item["default"] for item in row["settings"]}
        assert listed == {**vars(method.objective_settings), **vars(method.rule_settings)}
        assert row["reads"] == method.objective.data
        assert row["critic"] == (None if method.objective.critic_loss is None else "first_order")
        assert all(item["help"] and item["type"] in ("int", "float", "bool", "str") for item in row["settings"])
    bounds = {item["name"]: item for item in found["dpo"]["settings"]}
    assert (bounds["label_smoothing"]["low"], bounds["label_smoothing"]["high"], bounds["beta"]["above"]) == (0, 0.5, 0)
