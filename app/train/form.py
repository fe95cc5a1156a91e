"""The form of a run, made from what `RunConfig` and `interplay methods --json` say about their settings: a new setting appears by itself.

Every control is bound to the URL under its setting's name, and only what was changed stands there. A
link cannot grant `trust_remote_code`, for the same reason for which a YAML file cannot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import streamlit as st

from app.export import wanted
from app.parts import widgets
from app.reading import catalogue, loading
from app.reading.catalogue import MethodChoice
from interplay import kept
from interplay.config import INHERITED, RunConfig, plain
from interplay.errors import ConfigError, StoreError, allowed
from interplay.reading import RUN, read_info
from interplay.settings import check

#: What most runs differ in: always visible, one list for each column.
FIRST = (("method", "task"), ("seed", "iterations", "updates"), ("reward", "model", "data"))
#: Never taken from a link.
SEALED = ("trust_remote_code",)
MOST_SEEDS = 20
_TITLES = {"what": "Data, folder, seeds", "own": "The method's own"}
_SPELT = {"kl": "KL", "lora": "LoRA", "gae": "GAE"}
_COLUMNS = 3
_NARROW = 24  # letters that fit beside each other in a column
_LARGEST = 2**53 - 1  # whole numbers that a browser can hold
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}


# --- what can be set -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """One setting as the form shows it. `key` is its name in the URL."""

    key: str
    name: str
    kind: str  # int, float, bool or str
    default: Any
    help: str
    group: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    optional: bool = False

    @property
    def label(self) -> str:
        words = " ".join(_SPELT.get(word, word) for word in self.name.split("_"))
        return words[0].upper() + words[1:]

    @property
    def start(self) -> Any:
        """The default as the control holds it: nothing typed is an empty text."""
        return "" if self.kind == "str" and self.default is None else self.default

    @property
    def unset(self) -> str:
        """What holds where nothing is typed: the help says it at its end."""
        return self.help.partition("default: ")[2] or ("none" if self.optional else str(self.default))

    def problem(self, text: str) -> str | None:
        """Why a word of the URL is not allowed here; None if it is."""
        value = text if self.kind == "str" else plain(text)
        if type(value).__name__ not in (self.kind, "int" if self.kind == "float" else self.kind):
            return f"must be {_KINDS[self.kind]}"
        if self.choices and value not in self.choices:
            return f"allowed: {allowed(self.choices)}"
        return self._out_of_bounds(value) if isinstance(value, int | float) else None

    def _out_of_bounds(self, value: float) -> str | None:
        if not math.isfinite(value) or abs(value) > _LARGEST:
            return "must be a number that a browser can hold"
        if self.low is not None and value < self.low:
            return f"must be at least {self.low:g}"
        if self.high is not None and value > self.high:
            return f"must be at most {self.high:g}"
        return f"must be greater than {self.above:g}" if self.above is not None and value <= self.above else None


def of_config(defaults: Mapping[str, Any]) -> dict[str, Control]:
    """A control for each field of `RunConfig` but the method's own settings; `defaults` stand in place of its own."""
    found = {}
    for item in fields(RunConfig):
        if item.name == "settings":
            continue
        kind, _, rest = str(item.type).partition(" | ")
        meta = {name: item.metadata[name] for name in ("help", "group", "choices", "low", "high", "above")}
        found[item.name] = Control(item.name, item.name, kind, defaults.get(item.name, item.default), optional=rest == "None", **meta)
    seed = found["seed"]
    found["seed"] = replace(seed, kind="str", default=str(seed.default), help="a seed, or several such as 0-2 or 0,3,5: one run for each")
    return found


def of_method(method: MethodChoice) -> list[Control]:
    """A control for each setting of the method's own, typed as `--set NAME=VALUE`."""
    return [
        Control(f"{own.of}.{own.name}", own.name, own.type, own.default, own.help, "own", own.choices, own.low, own.high, own.above)
        for own in method.settings
        if own.type in _KINDS
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-2,7` -> 0, 1, 2, 7. Raises `ConfigError`."""
    wrong = ConfigError(f"seed is {text!r}; write a seed, or several such as 0-2 or 0,3,5 (at most {MOST_SEEDS})")
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        ends = re.fullmatch(r"([0-9]{1,15})(?:-([0-9]{1,15}))?", part)
        if not ends:
            raise wrong
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < first + MOST_SEEDS:
            raise wrong
        found += range(first, last + 1)
    if len(found) > MOST_SEEDS:
        raise wrong
    return tuple(dict.fromkeys(found))


# --- what was filled in ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """The form's answer. `inherited` is what the run takes over from the one that it starts from."""

    values: Mapping[str, Any]
    seeds: str
    inherited: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def configs(self) -> tuple[RunConfig, ...]:
        """One configuration for each seed. Raises `ConfigError` with one line."""
        if self.problem:
            raise ConfigError(self.problem)
        return tuple(RunConfig.from_mapping({**self.values, "seed": seed}, source="the form") for seed in parse_seeds(self.seeds))


@dataclass(frozen=True)
class Start:
    """The run that another one starts from."""

    path: str | None = None
    inherited: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def find_start(text: str) -> Start:
    """A run by its name or folder, or `RUN@ITERATION`, and the settings that a run which starts from it takes over."""
    if not text:
        return Start()
    try:
        path, iteration = _run_folder(text)
        config = read_info(path).config
        inherited = {name: config[name] for name in INHERITED if name in config}
        RunConfig.from_mapping(inherited, source=f"{path.name}/{RUN}")
    except (ConfigError, StoreError) as error:
        return Start(problem=str(error))
    whole = [number for number in kept.numbers(path / kept.FOLDER) if number > 0 and kept.complete(kept.place(path, number))]
    if not whole or iteration not in (None, *whole):
        has = f"keeps iterations {', '.join(map(str, reversed(whole)))}; name one of those, or the run alone" if whole else "keeps no iteration with updates"
        return Start(problem=f"start from is {text!r}, but that run {has}")
    short = _short(path)
    return Start(str(short) if iteration is None else kept.named(short, iteration), inherited)


def _run_folder(text: str) -> tuple[Path, int | None]:
    """Raises `StoreError` with the nearest name. Paths are for the machine's own user: others see only what is shown."""
    path, iteration = kept.parted(text)
    if not loading.exposed() and (path.expanduser() / RUN).is_file():
        return path.expanduser(), iteration
    return wanted.look_up(str(path)).path, iteration


def _short(path: Path) -> Path:
    """As a person would type it: from here, where it lies below here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# --- the page --------------------------------------------------------------------------------------


def show(named: Sequence[MethodChoice], below_data: Callable[[], None], first: Any, rest: Any) -> Filled:
    """Draw the form: what most runs differ in into the container `first`, all other settings into `rest`. `below_data` draws below the data field."""
    methods = {method.name: method for method in (*named, *catalogue.pairs(named))}
    _refuse_links(methods)
    with rest:
        groups = _expanders(methods)
    with groups["what"]:
        start = find_start(_drawn(of_config({})["start_from"]) or "")
    with first:
        _say_start(start)
        columns = [place.container() for place in st.columns(len(FIRST), gap="medium")]
    _adopt(start.inherited)
    controls = _config_controls(start.inherited, methods)
    values: dict[str, Any] = {}
    for names, column in zip(FIRST, columns, strict=True):
        with column:
            values |= {name: _first(controls[name], methods) for name in names}
    with columns[-1]:
        below_data()
    for name in _rest(controls):
        with groups[controls[name].group]:
            values[name] = _drawn(controls[name])
    own = of_method(methods[values["method"]])
    with groups["own"]:
        values["settings"] = _own(own)
    st.session_state["_form_keys"] = {control.key: control.start for control in (*_config_controls({}, methods).values(), *own)}
    seeds = str(values.pop("seed"))
    return Filled({**values, "start_from": start.path}, seeds, start.inherited, start.problem or _own_problem(own, values["settings"]))


def reset() -> None:
    """Every control back to its default, and out of the URL."""
    for key, default in st.session_state.get("_form_keys", {}).items():
        st.session_state[key] = default


def note() -> None:
    """What a link asked for and could not have."""
    if lines := st.session_state.pop("_form_note", None):
        st.warning("  \n".join(map(widgets.escape, lines)), icon=":material/link_off:")


def _config_controls(inherited: Mapping[str, Any], methods: Mapping[str, MethodChoice]) -> dict[str, Control]:
    """The controls of `RunConfig`, with the words that only the engine and the task files know."""
    controls = of_config(inherited)
    for name, words in (("method", tuple(methods)), ("task", tuple(catalogue.tasks()))):
        control = controls[name]
        controls[name] = replace(control, choices=words, default=control.default if control.default in words else words[0])
    return controls


def _rest(controls: Mapping[str, Control]) -> list[str]:
    """What is neither always visible nor drawn before all others."""
    shown = {name for names in FIRST for name in names} | {"start_from"}
    return [name for name in controls if name not in shown]


def _expanders(methods: Mapping[str, MethodChoice]) -> dict[str, Any]:
    """A closed place for each group, with the number of changed settings in its label."""
    controls = _config_controls(find_start(str(_peek("start_from") or "")).inherited, methods)
    groups: dict[str, list[Control]] = {controls["start_from"].group: [controls["start_from"]]}
    for name in _rest(controls):
        groups.setdefault(controls[name].group, []).append(controls[name])
    method = methods.get(str(_peek("method"))) or next(iter(methods.values()))
    groups["own"] = of_method(method)
    places = st.columns(_COLUMNS, gap="medium")
    return {group: places[number % _COLUMNS].expander(_title(group, inside), key=f"group-{group}") for number, (group, inside) in enumerate(groups.items())}


def _title(group: str, inside: Iterable[Control]) -> str:
    changed = sum(_changed(control) for control in inside)
    words = _TITLES.get(group, group.capitalize())
    return f"{words} · {changed} changed" if changed else words


def _peek(key: str) -> Any:
    """What a control will hold, before it is drawn: from this session, else from the URL."""
    return st.session_state[key] if key in st.session_state else st.query_params.get(key)


def _changed(control: Control) -> bool:
    if control.key in st.session_state:
        return bool(st.session_state[control.key] != control.start)
    return control.key in st.query_params and control.name not in SEALED and control.problem(st.query_params[control.key]) is None


def _say_start(start: Start) -> None:
    if start.path:
        told = f"Starts where {start.path} ended. Task, data, model, lengths and scoring are that run's, unless you change them."
        st.info(widgets.escape(told), icon=":material/call_split:")


def _adopt(inherited: Mapping[str, Any]) -> None:
    """Another run to start from: controls that stood at their old default stand at the new one."""
    before = st.session_state.get("_form_start", {})
    st.session_state["_form_start"] = dict(inherited)
    old, new = of_config(before), of_config(inherited)
    for name in INHERITED:
        if old[name].start != new[name].start and name in st.session_state and st.session_state[name] == old[name].start:
            st.session_state[name] = new[name].start


def _first(control: Control, methods: Mapping[str, MethodChoice]) -> Any:
    """One of the always visible controls; the method says what it is made of."""
    value = _drawn(control)
    if control.name == "method":
        method = methods[value]
        made = f"Objective {method.objective}, update rule {method.update_rule}, learns from {method.reads}. " if method.objective else ""
        st.caption(widgets.escape(f"{method.summary}. {made}{', '.join(method.papers)}"))
    return value


def _own(controls: Sequence[Control]) -> dict[str, Any]:
    """The method's own settings that were changed."""
    if not controls:
        st.caption("No settings of its own are known.")
    values = {control.name: _drawn(control) for control in controls}
    return {control.name: values[control.name] for control in controls if values[control.name] != control.default}


def _own_problem(controls: Iterable[Control], values: Mapping[str, Any]) -> str | None:
    """What is wrong with settings of the method's own, in the words of the command line; `RunConfig` leaves those to the engine."""
    try:
        for control in controls:
            check(f"--set {control.name}", values.get(control.name), vars(control))
    except ConfigError as error:
        return str(error)
    return None


def _refuse_links(methods: Mapping[str, MethodChoice]) -> None:
    """Once for each session, before anything is drawn: what the link says and may not is taken out of it, and said."""
    if st.session_state.get("_form_checked"):
        return
    st.session_state["_form_checked"] = True
    own = [control for method in methods.values() for control in of_method(method)]
    controls = {control.key: control for control in (*_config_controls({}, methods).values(), *own)}
    url = {key: text for key, text in st.query_params.to_dict().items() if text and key in controls}
    wrong = {key: why for key, text in url.items() if (why := _refusal(controls[key], text))}
    if wrong:
        st.session_state["_form_note"] = [f"The link says {key} = {url[key][:80]!r}, which was ignored: {why}" for key, why in wrong.items()]
        for key in wrong:
            del st.query_params[key]
        st.rerun()  # controls take their values from the URL as it was when the script began


def _refusal(control: Control, text: str) -> str | None:
    if control.name in SEALED:
        return "a link cannot grant it; switch it on by hand if you trust the model's code"
    try:
        if control.name == "seed":
            parse_seeds(text)
        elif control.kind == "str" and not control.choices and control.group != "own":
            RunConfig.from_mapping({control.name: text}, source="the link")
    except ConfigError as error:
        return str(error)
    return control.problem(text)


# --- one control -----------------------------------------------------------------------------------


def _drawn(control: Control) -> Any:
    """The control, and its value as `RunConfig` takes it."""
    bound: dict[str, Any] = {} if control.name in SEALED else {"bind": "query-params"}
    common = {"key": control.key, "help": control.help, **bound}
    if control.kind == "bool":
        return st.toggle(control.label, value=bool(control.default), **common)
    if control.choices:
        return _picked(control, common)
    return _typed(control, common) if control.kind == "str" else _number(control, common)


def _picked(control: Control, common: Mapping[str, Any]) -> str:
    """One of a few words."""
    words = list(control.choices)
    if len(words) <= 3 and len("".join(words)) <= _NARROW:
        picked = st.segmented_control(control.label, words, default=control.default, required=True, **common)
    else:
        picked = st.selectbox(control.label, words, index=words.index(control.default), **common)
    return str(picked) if picked in words else str(control.default)


def _typed(control: Control, common: Mapping[str, Any]) -> str | None:
    text = st.text_input(control.label, value=control.start, max_chars=500, placeholder=control.unset, **common).strip()
    return text or (None if control.optional else control.default)


def _number(control: Control, common: Mapping[str, Any]) -> float | int | None:
    """Without bounds: a browser would keep a number outside of them to itself, and the run would start with the one before."""
    kind: Any = int if control.kind == "int" else float
    value: Any = None if control.default is None else kind(control.default)
    shape: dict[str, Any] = {"step": 1} if kind is int else {"step": _step(control.default), "format": "%g"}
    found: float | int | None = st.number_input(control.label, value=value, placeholder=control.unset, **shape, **common)
    return found if found is None or kind is int else float(f"{found:.12g}")  # 0.1 + 0.2 is 0.3 to a person


def _step(default: float | None) -> float:
    """The power of ten at or below the default; 0.0001 where there is none."""
    return float(10.0 ** math.floor(math.log10(abs(default)))) if default else 1e-4
