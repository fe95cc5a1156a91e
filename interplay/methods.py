"""The named pairs of objective and update rule, and the only place that joins the two.

`--method ppo` is PPO x first_order; `--method rloo+first_order` spells a pair out, so that a new
objective or update rule is usable the moment its file exists.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from interplay import objectives, updates
from interplay.config import RunConfig, build_settings
from interplay.errors import ConfigError, allowed, nearest
from interplay.objectives.base import Objective
from interplay.updates.base import UpdateRule

NAMED: dict[str, tuple[str, str]] = {
    "ppo": ("ppo", "first_order"),
    "rloo": ("rloo", "first_order"),
    "online_dpo": ("online_dpo", "first_order"),
    "dpo": ("dpo", "first_order"),
    "zopro": ("rloo", "zopro"),
    "zopro_adaptive": ("rloo", "zopro_adaptive"),
    "mezo": ("rloo", "mezo"),
    "forward_gradient": ("rloo", "forward_gradient"),
    "extrapolate": ("rloo", "extrapolate"),
}


@dataclass(frozen=True)
class Method:
    """An objective under an update rule, each with its settings."""

    name: str
    objective: Objective
    rule: UpdateRule
    objective_settings: Any
    rule_settings: Any


def resolve(config: RunConfig) -> Method:
    """The method of a run. Raises `ConfigError` for an unknown name or setting."""
    objective, rule = _parts(config.method)
    if config.minibatches > config.prompts:
        raise ConfigError(f"--minibatches is {config.minibatches}, but a batch has --prompts {config.prompts}, which stay whole; use at most {config.prompts}")
    of_objective = {item.name for item in fields(objective.settings)}
    of_rule = {item.name for item in fields(rule.settings)}
    for name in config.settings:
        if name not in of_objective | of_rule:
            known = of_objective | of_rule
            raise ConfigError(f"--set {name}: {config.method} has no such setting{nearest(name, known)}; it has: {allowed(known)}")
    return Method(
        config.method,
        objective,
        rule,
        build_settings(objective.settings, {k: v for k, v in config.settings.items() if k in of_objective}, objective.name),
        build_settings(rule.settings, {k: v for k, v in config.settings.items() if k in of_rule}, rule.name),
    )


def _parts(name: str) -> tuple[Objective, UpdateRule]:
    first, plus, second = name.partition("+")
    objective, rule = (first, second) if plus else NAMED.get(name, (name, "first_order"))
    try:
        return objectives.find(objective), updates.find(rule)
    except KeyError as error:
        pairs = "; or OBJECTIVE+RULE from " + allowed(objectives.names()) + " and " + allowed(updates.names())
        raise ConfigError(f"--method is {name!r}; allowed: {allowed(NAMED)}{nearest(name, NAMED)}{pairs}") from error


def describe() -> list[dict[str, Any]]:
    """Every named method with its parts and settings, as `interplay methods --json` prints it."""
    return [_describe(name) for name in NAMED]


def _describe(name: str) -> dict[str, Any]:
    objective, rule = _parts(name)
    return {
        "name": name,
        "objective": objective.name,
        "update_rule": rule.name,
        "summary": f"{objective.summary}; {rule.summary}",
        "papers": [objective.paper, rule.paper],
        "reads": objective.data,
        "critic": None if objective.critic_loss is None else "first_order",  # a critic is trained by gradients under every update rule
        "control": rule.control,
        "learning_rate": rule.rate,
        "settings": [_setting(item, "objective") for item in fields(objective.settings)] + [_setting(item, "update_rule") for item in fields(rule.settings)],
    }


def _setting(item: Any, part: str) -> dict[str, Any]:
    bounds = {key: item.metadata[key] for key in ("low", "high", "above") if item.metadata[key] is not None}
    bounds |= {"choices": list(item.metadata["choices"])} if item.metadata["choices"] else {}
    return {"name": item.name, "of": item.metadata["group"], "part": part, "default": item.default, "type": item.type, "help": item.metadata["help"], **bounds}
