"""The vocabulary of a recorded run: roles, spaces, states, `SketchSpec`, `RunInfo`, Arrow schemas.

No I/O, no torch. Every column carries its description in the field's metadata; `docs/schema.md`
is compared with it by a test. *update* is one optimiser step, *iteration* one round of the
policy-reward loop, *clock* the order in which all roles stepped. What is undefined is null.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

SCHEMA_VERSION = 1

Role = Literal["policy", "reward", "value"]
ROLES: tuple[Role, ...] = ("policy", "reward", "value")
#: The role that a role's updates are compared with.
OTHER_ROLE: dict[str, Role] = {"policy": "reward", "reward": "policy", "value": "policy"}

Space = Literal["factor", "effective"]
SPACES: tuple[Space, ...] = ("factor", "effective")

State = Literal["queued", "running", "finished", "failed", "interrupted"]
STATES: tuple[State, ...] = ("queued", "running", "finished", "failed", "interrupted")
END_STATES: frozenset[str] = frozenset({"finished", "failed", "interrupted"})

Stream = Literal["metrics", "updates", "directions", "completions"]
STREAMS: tuple[Stream, ...] = ("metrics", "updates", "directions", "completions")

Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class SketchSpec:
    """How an update is projected: k signed sums per module, signs drawn from `seed`.

    Two sketches may be compared only if their specs are equal.
    """

    k: int = 256
    seed: int = 0
    space: Space = "factor"
    kind: str = "blocked-signed"


@dataclass(frozen=True)
class RunInfo:
    """What `run.json` holds: enough to know what ran, on what, and to run it again."""

    run: str
    config: dict[str, Any]
    command: list[str]
    created: str  # ISO 8601, UTC
    sketch: SketchSpec = field(default_factory=SketchSpec)
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    recorder: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> RunInfo:
        """Unknown keys are kept out, so that an older viewer reads a newer run."""
        known = {key: value for key, value in raw.items() if key in cls.__dataclass_fields__}
        sketch = SketchSpec(**{k: v for k, v in known.pop("sketch", {}).items() if k in SketchSpec.__dataclass_fields__})
        return cls(sketch=sketch, **known)


def _column(name: str, kind: pa.DataType, text: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": text})


_WORD = pa.dictionary(pa.int32(), pa.string())

_PLACE = [
    _column("clock", pa.int64(), "order of all optimiser steps of all roles in this run, from 1"),
    _column("update", pa.int32(), "optimiser steps of this role so far, from 1"),
    _column("iteration", pa.int16(), "round of the policy-reward loop; 0 is the first reward model"),
    _column("role", _WORD, "who was updated: policy, reward or value"),
]
_MODULE = [
    _column("module", _WORD, "module path without wrapper prefixes, the same for all roles"),
    _column("layer", pa.int16(), "index of the transformer block; null outside the blocks", nullable=True),
    _column("kind", _WORD, "last part of the module path, such as q_proj"),
]


def _number(name: str, text: str) -> pa.Field:
    return _column(name, pa.float32(), text, nullable=True)


UPDATES = pa.schema(
    [
        *_PLACE,
        *_MODULE,
        _column("space", _WORD, "factor: the tensors as the optimiser sees them; effective: the weight the forward pass uses"),
        _number("update_norm", "Frobenius norm of the update"),
        _number("weight_norm", "Frobenius norm of the weight after the update (effective: of s B A, without the frozen base)"),
        _number("gradient_norm", "Frobenius norm of the gradient that the step used; null in the effective space of an adapter"),
        _number("displacement_norm", "Frobenius norm of the weight minus the weight at the start of the run"),
        _number("cos_previous", "cosine with this role's previous update"),
        _number("cos_displacement", "cosine with this role's displacement before the update"),
        _column("other_role", _WORD, "the role that the cross-role columns compare with", nullable=True),
        _number("cos_other_update", "cosine with the other role's latest update"),
        _number("attainable_other_update", "largest cosine that any update of this module could have had with it"),
        _number("null_other_update", "standard deviation of that cosine if this update were noise of its norms in the same space"),
        _number("cos_other_iteration", "cosine with the other role's latest complete iteration delta"),
        _number("attainable_other_iteration", "largest cosine that any update of this module could have had with it"),
        _number("null_other_iteration", "standard deviation of that cosine if this update were noise of its norms in the same space"),
    ]
)


def directions_schema(k: int) -> pa.Schema:
    """Arrow schema of `directions/` for sketches of size k."""
    return pa.schema(
        [
            *_PLACE,
            *_MODULE,
            _column("space", _WORD, "the space that was sketched"),
            _column("scale", pa.float32(), "multiply `sketch` by it to get the sketch in weight units"),
            _column("sketch", pa.list_(pa.field("item", pa.float16(), nullable=False), k), "k signed sums of the update over `scale`"),
            _number("standard_error", "standard error of a sketched cosine near zero: 1/sqrt(effective number of sums)"),
        ]
    )


METRICS = pa.schema(
    [
        *_PLACE,
        _column("split", _WORD, "train: the batch of the update; heldout: the held-out prompts"),
        _column("name", _WORD, "name of the metric (docs/metrics.md)"),
        _column("value", pa.float64(), "its value; null where it is undefined", nullable=True),
        _column("seconds", pa.float64(), "seconds since the run started, pauses left out"),
    ]
)

COMPLETIONS = pa.schema(
    [
        *_PLACE,
        _column("split", _WORD, "train or heldout"),
        _column("prompt_id", pa.string(), "id of the prompt in the data set"),
        _column("prompt", pa.string(), "the prompt as the task wrote it"),
        _column("completion", pa.string(), "the generated text, special tokens left out"),
        _column("tokens", pa.int32(), "generated tokens, the end token included"),
        _column("finished", pa.bool_(), "the completion ended by itself within the token limit"),
        _number("reward", "what the objective optimised for this completion, before the KL term"),
        _number("gold", "the task's programmatic score"),
        _number("proxy", "score by frozen reward model 0 (held-out completions)"),
        _number("kl", "sum over tokens of log policy minus log reference"),
    ]
)


def schema(stream: str, k: int = 256) -> pa.Schema:
    """The Arrow schema of a stream; `k` is the sketch size of `directions`."""
    table = {"metrics": METRICS, "updates": UPDATES, "completions": COMPLETIONS}
    return directions_schema(k) if stream == "directions" else table[stream]
