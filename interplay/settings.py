"""One setting: declared with its meaning and its bounds, read from a typed word, and refused with what is allowed.

`RunConfig` (config.py) and the `Settings` of objectives and update rules are frozen classes of such settings.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, get_type_hints

from interplay.errors import ConfigError, allowed, nearest

Scalar = str | int | float | bool


def setting(
    default: Any,
    group: str,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    meta = {"group": group, "help": text, "choices": choices, "low": low, "high": high, "above": above}
    return field(default=default, metadata=meta)


# --- its name and its words -------------------------------------------------------------------------


#: flags that are not spelt like their field
_SPELT = {"settings": "--set", "start_from": "--from"}


def flag(name: str) -> str:
    """`max_new_tokens` -> `--max-new-tokens`; `settings` -> `--set`."""
    return _SPELT.get(name) or "--" + name.replace("_", "-")


def field_name(key: object) -> str:
    """The field that a key of a YAML file means: `reward-updates`, `reward_updates`, `from`."""
    name = str(key).replace("-", "_")
    return "start_from" if name == "from" else name


def as_word(value: Any) -> str:
    """A value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


# --- reading ----------------------------------------------------------------------------------------


def convert(argument: str, value: Any, kind: type) -> Any:
    """A typed word, or a YAML value, as what the setting holds. Raises `ConfigError`."""
    try:
        return _READ[kind](value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{argument} is {value!r}; it must be {_KIND[kind]}") from error


def _as_int(value: Any) -> int:
    if type(value) is int:  # exact: a float holds whole numbers only up to 2^53
        return value
    number = float(value)
    if isinstance(value, bool) or not number.is_integer():
        raise ValueError
    return int(str(value)) if isinstance(value, str) and value.strip("+-").isdecimal() else int(number)


def _as_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[str(value).lower()] if str(value).lower() in ("true", "false") else _fail()


def _fail() -> bool:
    raise ValueError


def _as_text(value: Any) -> str:
    if isinstance(value, bool | dict | list) or value is None:
        raise ValueError
    return str(value)


_READ: dict[type, Any] = {int: _as_int, float: _as_float, bool: _as_bool, str: _as_text}
_KIND = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def chosen_settings(value: Any) -> dict[str, Scalar]:
    """`["clip=0.2"]` or `{"clip": 0.2}` -> `{"clip": 0.2}`."""
    if isinstance(value, Mapping):
        return dict(value)
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"settings is {value!r}; write NAME: VALUE lines below it, such as clip: 0.2")
    chosen: dict[str, Scalar] = {}
    for part in value or ():
        name, equals, text = str(part).partition("=")
        if not equals or not name:
            raise ConfigError(f"--set is {part!r}; write NAME=VALUE, such as --set clip=0.2")
        chosen[name.strip().replace("-", "_")] = plain(text.strip())
    return chosen


def plain(text: str) -> Scalar:
    """`0.2` -> 0.2, `4` -> 4, `true` -> True, anything else stays text."""
    for kind in (_as_int, _as_float, _as_bool):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# --- checking ---------------------------------------------------------------------------------------


def check(argument: str, value: Any, meta: Mapping[str, Any]) -> None:
    """Raises `ConfigError` with what is allowed for a value outside of it; None is no value."""
    if value is None:
        return
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{argument} is {value!r}; allowed: {allowed(meta['choices'])}{nearest(str(value), meta['choices'])}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{argument} is {value!r}; it must be a finite number")
    for bound, refused, words in _BOUNDS:
        limit = meta[bound]
        if limit is not None and not isinstance(value, str) and refused(value, limit):
            raise ConfigError(f"{argument} is {value!r}; it must be {words} {limit:g}")


_BOUNDS = (("low", operator.lt, "at least"), ("high", operator.gt, "at most"), ("above", operator.le, "greater than"))


def build_settings(kind: type[Any], values: Mapping[str, Scalar], owner: str) -> Any:
    """`--set` values as the frozen settings class of an objective or update rule, checked like `RunConfig`."""
    known = {item.name: item for item in fields(kind)}
    hints = get_type_hints(kind)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"--set {name}: {owner} has no such setting{nearest(name, known)}; it has: {allowed(known) or 'none'}")
        checked[name] = convert(f"--set {name}", value, hints[name])
        check(f"--set {name}", checked[name], known[name].metadata)
    return kind(**checked)
