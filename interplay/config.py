"""`RunConfig`: every setting of a run, its default, its meaning and its check on one spot.

Frozen and strict: an unknown key is refused with the nearest known name. The same object comes
from a command line, a YAML file and a form in the browser, and `from_argv(to_argv(c)) == c`, so a
run that was started anywhere can print the command that starts it again. No I/O but reading the
YAML text it is handed; no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, get_type_hints

from interplay.errors import ConfigError, allowed, nearest
from interplay.settings import Scalar, as_word, build_settings, check, chosen_settings, convert, field_name, flag, plain, setting

__all__ = [
    "INHERITED",
    "Parser",
    "RunConfig",
    "add_arguments",
    "build_settings",
    "chosen_settings",
    "field_name",
    "flag",
    "given",
    "parse_layers",
    "plain",
    "setting",
]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run. Groups: what, model, budget, policy, reward, scoring, recording, machine."""

    method: str = setting("rloo", "what", "a named method, or OBJECTIVE+UPDATE_RULE; see `interplay methods`")
    task: str = setting("chat", "what", "what the model is asked to do; it brings prompts and a gold score")
    data: str | None = setting(None, "what", "JSONL, JSON, Parquet or CSV file, a saved data set, or a hub id; default: the task's own prompts")
    data_split: str | None = setting(None, "what", "split (or config/split) of a hub data set; default: train")
    data_rows: int | None = setting(None, "what", "read at most this many rows", low=1)
    out: str | None = setting(None, "what", "folder of the run; default: runs/METHOD-TASK-sSEED-TIME")
    start_from: str | None = setting(
        None, "what", "start where this recorded run (RUN@2: its iteration 2) ended: weights, last updates, moments, place among the prompts"
    )
    seed: int = setting(0, "what", "seed of everything that has no seed of its own below", low=0, high=1e15)
    seed_data: int | None = setting(None, "what", "seed of the order of prompts and pairs", low=0, high=1e15)
    seed_sampling: int | None = setting(None, "what", "seed of generated text", low=0, high=1e15)
    seed_perturbation: int | None = setting(None, "what", "seed of adapters, heads and random directions", low=0, high=1e15)

    model: str = setting("bundled", "model", "`bundled`, a local directory (PEFT adapters included) or a hub id")
    trust_remote_code: bool = setting(False, "model", "run code that the model's repository brings; off unless typed here")
    tune: str = setting("lora", "model", "what is trained: low-rank adapters or all weights", choices=("lora", "full"))
    lora_rank: int = setting(16, "model", "rank r of the adapters", low=1)
    lora_alpha: float = setting(32.0, "model", "adapter scale is lora_alpha / lora_rank", above=0)
    lora_targets: str = setting("all-linear", "model", "`all-linear`, or names such as q_proj,v_proj")
    layers: str = setting("all", "model", "blocks that are adapted: `all`, or a list such as 0-9,12,20-29")
    adapter_init: str = setting(
        "shared",
        "model",
        "shared: all roles start from the same A, so that equal gradients give equal updates; independent: each draws its own",
        choices=("shared", "independent"),
    )

    iterations: int = setting(2, "budget", "rounds of the policy-reward loop", low=1)
    updates: int = setting(6, "budget", "policy updates in each iteration", low=1)
    prompts: int = setting(2, "budget", "prompts in each rollout batch (offline objectives: pairs per update is prompts x completions / 2)", low=1)
    completions: int = setting(4, "budget", "completions sampled for each prompt", low=2)
    inner_epochs: int = setting(1, "budget", "passes over each rollout batch", low=1)
    minibatches: int = setting(1, "budget", "updates in each pass over a rollout batch", low=1)
    max_prompt_tokens: int = setting(192, "budget", "prompts longer than this are refused or left out", low=8)
    max_pair_tokens: int = setting(96, "budget", "answers in judged pairs are cut at this many tokens", low=2)
    max_new_tokens: int = setting(24, "budget", "tokens in a completion at most", low=2)

    learning_rate: float | None = setting(None, "policy", "step size of the policy; default: the update rule's own (AdamW 3e-4)", above=0)
    schedule: str = setting("constant", "policy", "learning rate over the run", choices=("constant", "linear", "cosine"))
    warmup: int = setting(0, "policy", "updates of linear warm-up", low=0)
    weight_decay: float = setting(0.0, "policy", "share of the weights that is taken away with every update, times the step size", low=0)
    clip_norm: float = setting(1.0, "policy", "largest gradient norm under first order; 0 turns clipping off", low=0)
    temperature: float = setting(1.0, "policy", "sampling temperature; logits are divided by it wherever log-probabilities are taken", above=0)
    settings: Mapping[str, Scalar] = field(
        default_factory=dict,
        metadata={"group": "policy", "help": "NAME=VALUE for the objective or update rule; `interplay methods NAME` lists them"},
    )

    reward: str = setting("model", "reward", "what on-policy objectives optimise", choices=("model", "gold"))
    reward_updates: int = setting(6, "reward", "reward-model updates in each iteration and before the first; 0 only with reward gold", low=0)
    reward_learning_rate: float = setting(1e-3, "reward", "AdamW step size of the reward model", above=0)
    reward_batch: int = setting(8, "reward", "pairs in each reward-model update", low=1)
    pair_share: float = setting(1.0, "reward", "share of the pairs that is judged: those of whose order the reward model is least sure", above=0, high=1)
    heldout_pairs: int = setting(32, "scoring", "held-out judged pairs on which every iteration is scored", low=0)
    pairs: int = setting(32, "reward", "prompts for which each iteration makes and judges a pair", low=2)
    keep_close: float = setting(0.5, "reward", "after refining, the reward model is this share of the saved one plus the rest of the new one", low=0, high=1)
    freeze_reward: bool = setting(False, "reward", "control: the reward model stays as iteration 0, or the run that this one starts from, made it")
    reward_labels: str = setting(
        "judged",
        "reward",
        "what the reward model learns from; shuffled is a control: a coin decides which answer of each pair was better",
        choices=("judged", "shuffled"),
    )
    judge: str = setting("gold", "reward", "who says which of two answers is better", choices=("gold", "model"))
    judge_model: str | None = setting(None, "reward", "instruct model of `--judge model`; default: the run's own base model")

    heldout: int = setting(64, "scoring", "held-out prompts on which every iteration is scored", low=2)

    sketch: int = setting(256, "recording", "size k of the recorded sketch of each update; 0 records no directions", low=0)
    sketch_space: str = setting("factor", "recording", "what is sketched: the optimiser's tensors or the effective weight", choices=("factor", "effective"))
    keep_checkpoints: str = setting("all", "recording", "iterations whose adapters are kept", choices=("all", "last"))

    device: str = setting("auto", "machine", "where the run computes", choices=("auto", "cpu", "cuda"))
    dtype: str = setting(
        "auto", "machine", "precision of the frozen base; auto: bfloat16 where the machine computes in it", choices=("auto", "float32", "bfloat16")
    )
    threads: int | None = setting(None, "machine", "CPU threads; default: torch's own choice", low=1)

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "settings":
                check(flag(item.name), getattr(self, item.name), item.metadata)
        object.__setattr__(self, "settings", dict(self.settings))
        parse_layers(self.layers)
        if self.reward == "model" and self.reward_updates < 1:
            raise ConfigError("--reward-updates is 0, but --reward model needs a trained reward model; use at least 1, or --reward gold")

    # --- derived -----------------------------------------------------------------------------

    def stream_seed(self, stream: str) -> int:
        """The seed of `data`, `sampling` or `perturbation`: its own, or one derived from `seed`."""
        own = getattr(self, f"seed_{stream}")
        return int(own) if own is not None else self.seed * 3 + ("data", "sampling", "perturbation").index(stream)

    @property
    def batches(self) -> int:
        """Rollout batches in an iteration."""
        return -(-self.updates // (self.inner_epochs * self.minibatches))

    @property
    def batch(self) -> int:
        """Completions in one rollout batch."""
        return self.prompts * self.completions

    # --- the three ways in and the ways out ----------------------------------------------------

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, source: str = "the configuration") -> RunConfig:
        """Build from plain values. Raises `ConfigError` on an unknown key, with the nearest name."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in raw.items():
            name = field_name(key)
            if name not in known:
                raise ConfigError(f"unknown key {key!r} in {source}{nearest(name, known)} (`interplay train --help` lists all)")
            values[name] = _convert(name, value)
        return cls(**values)

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "the configuration", fill: Callable[[dict[str, Any]], dict[str, Any]] = dict, **overrides: Any) -> RunConfig:
        """Build from YAML text; `overrides` (the flags typed beside it) win. `fill` may add what neither says."""
        import yaml

        try:
            raw = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{source} is not YAML: {str(error).splitlines()[0]}; write one `key: value` per line") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{source} holds a {type(raw).__name__}; write one `key: value` per line")
        if any(value and str(key).replace("-", "_") == "trust_remote_code" for key, value in raw.items()) and "trust_remote_code" not in overrides:
            raise ConfigError(f"trust_remote_code stands in {source}; a file cannot grant it: type --trust-remote-code if you trust the model's code")
        settings = {**chosen_settings(raw.get("settings")), **(overrides.pop("settings", None) or {})}
        return cls.from_mapping(fill({**raw, **overrides, "settings": settings}), source=source)

    @classmethod
    def from_argv(cls, argv: Sequence[str]) -> RunConfig:
        """Build from the words after `interplay train`. Raises `ConfigError`, never exits."""
        parser = Parser(add_help=False, allow_abbrev=False)
        add_arguments(parser)
        return cls.from_mapping(given(parser.parse_args(list(argv))), source="the command line")

    def to_mapping(self) -> dict[str, Any]:
        """All settings as plain values, for YAML and `run.json`."""
        return {item.name: (dict(self.settings) if item.name == "settings" else getattr(self, item.name)) for item in fields(self)}

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        usual = RunConfig()
        return {name: value for name, value in self.to_mapping().items() if value != getattr(usual, name)}

    def to_yaml(self) -> str:
        import yaml

        return str(yaml.safe_dump(self.changed(), sort_keys=False, allow_unicode=True)) if self.changed() else "{}\n"

    def to_argv(self) -> list[str]:
        """The words after `interplay train` that give this configuration."""
        words: list[str] = []
        for name, value in self.changed().items():
            if name == "settings":
                words += [part for key, item in value.items() for part in ("--set", f"{key}={as_word(item)}")]
            elif isinstance(value, bool):
                words.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
            else:
                words += [flag(name), as_word(value)] if not str(value).startswith("-") else [f"{flag(name)}={as_word(value)}"]
        return words

    @classmethod
    def continuing(cls, earlier: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
        """What a run that starts from another takes over where nothing else is typed: task, data, model, lengths, scoring."""
        return {**{name: earlier[name] for name in INHERITED if name in earlier}, **typed}

    def with_(self, **changes: Any) -> RunConfig:
        """A copy with some settings changed."""
        return replace(self, **changes)


#: what two runs must share for one to start where the other ended, or to be compared with it
INHERITED = (
    *("task", "data", "data_split", "data_rows", "model", "tune", "lora_rank", "lora_alpha", "lora_targets", "layers", "adapter_init"),
    *("max_prompt_tokens", "max_pair_tokens", "max_new_tokens", "temperature", "heldout", "reward", "judge", "judge_model", "dtype"),
)


def parse_layers(text: str) -> frozenset[int] | None:
    """`all` -> None; `0-2,5` -> {0, 1, 2, 5}. Raises `ConfigError`."""
    if text == "all":
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError(f"--layers is {text!r}; use `all`, or block numbers and ranges such as 0-9,12")
        if max(len(first), len(last)) > 4:
            raise ConfigError(f"--layers is {text!r}; block numbers have at most four digits")
        chosen.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(chosen)


class Parser(argparse.ArgumentParser):
    """argparse that raises `ConfigError` with the nearest flag in place of leaving the process."""

    def error(self, message: str) -> Any:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = next((w for w in unknown.split() if w.startswith("-")), unknown.split()[0])
            flags = [text for action in self._actions for text in action.option_strings]
            raise ConfigError(f"unknown argument {word!r}{nearest(word.split('=')[0], flags)} (`{self.prog} --help` lists all)")
        raise ConfigError(f"{message} (`{self.prog} --help` lists all)")


def add_arguments(parser: argparse.ArgumentParser, leave_out: Collection[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})) -> None:
    """One flag for each field of `RunConfig` but those left out, in its groups, with its own help; `defaults` are shown in place of its default."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for item in fields(RunConfig):
        if item.name in leave_out:
            continue
        meta = item.metadata
        group = groups.setdefault(meta["group"], parser.add_argument_group(meta["group"]))
        text = meta["help"].replace("%", "%%")
        if item.name == "settings":
            group.add_argument("--set", dest="settings", action="append", default=argparse.SUPPRESS, metavar="NAME=VALUE", help=text)
        elif item.type == "bool":
            group.add_argument(flag(item.name), dest=item.name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            default = defaults.get(item.name, item.default)
            shown = "" if default is None else f" (default {default})"
            values = f": {allowed(meta['choices'])}" if meta["choices"] else ""
            group.add_argument(flag(item.name), dest=item.name, default=argparse.SUPPRESS, metavar=item.name.split("_")[-1].upper(), help=text + values + shown)


def given(space: argparse.Namespace) -> dict[str, Any]:
    """Only the settings that were typed."""
    names = {item.name for item in fields(RunConfig)}
    return {name: value for name, value in vars(space).items() if name in names}


_HINTS: dict[str, Any] = {}


def _convert(name: str, value: Any) -> Any:
    """A typed word, or a YAML value, as the field's own type."""
    if name == "settings":
        return chosen_settings(value)
    if not _HINTS:
        _HINTS.update(get_type_hints(RunConfig))
    hint = _HINTS[name]
    optional = hint not in (str, int, float, bool)
    if value is None and optional:
        return None
    return convert(flag(name), value, next(kind for kind in (bool, int, float, str) if hint in (kind, kind | None)))
