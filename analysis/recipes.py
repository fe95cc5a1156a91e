"""From recorded runs to any figure by its name, for pages and the command line alike.

A figure says what it is made of by the names of its parameters, and `Sources` has one property for each such name. So a new figure is
one function with `@figure`; where its names mean something else, it is one line in `RECIPES` more. What is left of its parameters are
its settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from analysis import arms, costs, gains, kinship, movement, pictures, scores, tables, together, verdicts  # noqa: F401 - importing a file of figures registers them
from analysis.comparison import JUDGES, Comparison, compare
from analysis.evidence import Recording as Evidence
from analysis.figures import COSINES, FIGURES, X_AXES
from analysis.part import ALL, Part, words
from analysis.spec import FigureSpec
from analysis.trajectory import Trajectory
from interplay.errors import ConfigError, allowed, nearest
from interplay.records import ROLES, SPACES

#: Figures whose parameters mean other things than the names alone say: parameter -> property of `Sources`.
RECIPES: Mapping[str, Mapping[str, str]] = {
    "frontier": {"completions": "all_completions", "metrics": "all_metrics"},
    "method_curves": {"completions": "all_completions", "metrics": "all_metrics", "methods": "arms"},
    "run_curves": {"metrics": "all_metrics"},
    "starts": {"updates": "all_updates"},
}
#: What figures take for granted that they are given: the allowed values of settings of these names, where their types do not say.
CHOICES: Mapping[str, Sequence[Any]] = {
    "x": list(X_AXES),
    "column": list(COSINES),
    "space": SPACES,
    "rows": ("layer", "kind"),
    "judge": JUDGES,
    "role": ROLES,
    "roles": ROLES,
    "components": (2, 3),
}
#: The values of settings that a figure has no default for; none of the roles means all of them.
DEFAULTS: Mapping[str, Any] = {"role": "policy", "roles": ()}
#: What figures of these sources can be narrowed to, all of them alike.
PARTS: Mapping[str, type] = {"layer": str, "kind": str}
OF_MODULES = frozenset({"updates", "all_updates", "policy", "reward", "paths"})


class Recording(Protocol):
    """What a figure may ask of one run: its name, how it was trained, and its streams as frames (`docs/schema.md`)."""

    @property
    def run(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def control(self) -> bool: ...

    def frame(self, stream: str, /) -> pd.DataFrame: ...

    def trajectories(self, roles: Sequence[str], /) -> list[Trajectory]: ...


class Sources:
    """What figures are made of, each under the name of the parameter that asks for it, and made only then.

    Asking for one run's rows where there are several raises `ValueError`, as does what was not recorded.
    """

    #: Those that rest on one run only.
    OF_ONE = frozenset({"run", "metrics", "updates", "completions", "policy", "reward"})

    def __init__(self, recordings: Sequence[Recording], roles: Sequence[str] = ()) -> None:
        if not recordings:
            raise ValueError("no run was given")
        self._recordings, self._roles = list(recordings), list(roles or ROLES)

    @property
    def _one(self) -> Recording:
        if len(self._recordings) != 1:
            raise ValueError(f"it shows one run; these are {len(self._recordings)}: {', '.join(one.run for one in self._recordings)}")
        return self._recordings[0]

    # --- one run ---

    @property
    def run(self) -> str:
        return self._one.run

    @property
    def metrics(self) -> pd.DataFrame:
        return self._one.frame("metrics")

    @property
    def updates(self) -> pd.DataFrame:
        return self._one.frame("updates")

    @property
    def completions(self) -> pd.DataFrame:
        return self._one.frame("completions")

    @property
    def policy(self) -> Trajectory | None:
        """Its path; None where no direction was recorded, which is no fault: exact cosines need none."""
        return self._path("policy")

    @property
    def reward(self) -> Trajectory | None:
        return self._path("reward")

    def _path(self, role: str) -> Trajectory | None:
        return None if self._one.frame("directions").empty else next(iter(self._one.trajectories([role])), None)

    # --- one run or several ---

    @property
    def paths(self) -> list[Trajectory]:
        """The chosen roles' paths."""
        found = [(one.run, path) for one in self._recordings for path in one.trajectories(self._roles)]
        if not found:
            raise ValueError(f"no path of {' or '.join(self._roles)} was recorded")
        return [path if path.run == run else replace(path, run=run) for run, path in found]

    # --- a comparison ---

    @cached_property
    def all_metrics(self) -> pd.DataFrame:
        return self._stacked("metrics")

    @cached_property
    def all_completions(self) -> pd.DataFrame:
        return self._stacked("completions")

    @property
    def all_updates(self) -> pd.DataFrame:
        return self._stacked("updates")

    @property
    def evidence(self) -> list[Evidence]:
        """The runs as the report reads them."""
        return [evidence(one) for one in self._recordings]

    def _stacked(self, stream: str) -> pd.DataFrame:
        """One stream of all runs, words as plain text, with run, method and seed beside each row."""
        frames = [one.frame(stream).assign(run=one.run, method=one.method, seed=one.seed) for one in self._recordings]
        words = {name: object for frame in frames for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)}
        return pd.concat([frame.astype(words) for frame in frames], ignore_index=True)

    @property
    def arms(self) -> list[str]:
        """Names of the methods, in the order of the runs."""
        return list(dict.fromkeys(one.method for one in self._recordings))

    @property
    def controls(self) -> frozenset[str]:
        """Names of those methods that are controls."""
        return frozenset(one.method for one in self._recordings if one.control)

    @cached_property
    def comparison(self) -> Comparison:
        """How their methods differ."""
        rows = [(one.method, one.seed) for one in self._recordings]
        if twice := next((row for row in rows if rows.count(row) > 1), None):
            raise ValueError(f"two of these runs are of {twice[0]} with seed {twice[1]}; a comparison has one row for each method and seed")
        completions = self.all_completions
        if not ((completions["split"] == "heldout") & (completions["iteration"] == 0)).any():
            raise ValueError("these runs recorded no held-out completions from before training, so there is no change to show")
        return compare(completions, self.all_metrics, self.arms, self.controls)

    @property
    def runs(self) -> list[dict[str, Any]]:
        return self.comparison.runs

    @property
    def methods(self) -> list[dict[str, Any]]:
        return self.comparison.methods

    @property
    def differences(self) -> list[dict[str, Any]]:
        return self.comparison.differences


def evidence(one: Recording) -> Evidence:
    """One run as the report reads it: words as plain text, and paths where directions were recorded; no group, and no number of parameters."""
    updates, metrics, completions = (tables.plain(one.frame(stream)) for stream in ("updates", "metrics", "completions"))
    drawn = [] if one.frame("directions").empty else one.trajectories(("policy", "reward"))
    paths = {path.role: _measured(path, updates) for path in drawn}
    return Evidence(one.run, one.method, one.seed, "", paths.get("policy"), paths.get("reward"), updates, metrics, completions)


def _measured(path: Trajectory, updates: pd.DataFrame) -> Trajectory:
    """The path with the exact norms of its updates in place of those of its sketches."""
    rows = updates[(updates["role"] == path.role) & (updates["space"] == path.spec.space)]
    norms = rows.pivot_table(index="clock", columns="module", values="update_norm", aggfunc="last")
    return replace(path, norms_UT=norms.reindex(index=path.clocks_U, columns=list(path.modules_T)).to_numpy(np.float32))


# --- names and their settings --------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """A choice that a figure leaves open. `choices` is empty where any value of the kind will do; `many` takes several, between commas."""

    name: str
    kind: type
    default: Any
    choices: tuple[Any, ...] = ()
    many: bool = False

    def read(self, text: str) -> Any:
        """The value that the text means. Raises `ConfigError` with what is allowed."""
        if self.many:
            return tuple(replace(self, many=False).read(part.strip()) for part in text.split(","))
        try:
            value = _BOOLEANS[text.lower()] if self.kind is bool else self.kind(text)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{self.name} is {text!r}; it must be of type {self.kind.__name__}, as its default {self.default!r}") from error
        if self.choices and value not in self.choices:
            words = [str(choice) for choice in self.choices]
            raise ConfigError(f"{self.name} is {text!r}{nearest(text, words)}; allowed: {allowed(words)}")
        return value


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def names() -> list[str]:
    return sorted(FIGURES)


def find(name: str) -> str:
    """The registered name; dashes do as well as underscores. Raises `ConfigError` with the nearest one."""
    known = name.replace("-", "_")
    if known not in FIGURES:
        raise ConfigError(f"figure is {name!r}{nearest(known, FIGURES)}; allowed: {allowed(FIGURES)}")
    return known


def about(name: str) -> str:
    """The first line of what the figure says about itself."""
    return (inspect.getdoc(FIGURES[find(name)]) or "").partition("\n")[0]


def several(name: str) -> bool:
    """Whether the figure takes more than one run."""
    return not any(place in Sources.OF_ONE and _needed(name, key) for key, place in _ingredients(name).items())


def settings(name: str) -> dict[str, Setting]:
    """What may be chosen for a figure, by name."""
    hints, made_of = get_type_hints(FIGURES[find(name)]), _ingredients(name)
    found = {key: _setting(key, hints.get(key, str), one.default) for key, one in _parameters(name).items() if key not in made_of}
    found |= {"roles": _setting("roles", str, (), many=True)} if "paths" in made_of.values() else {}
    return found | ({key: _setting(key, kind, ALL) for key, kind in PARTS.items()} if _narrows(name) else {})


def _narrows(name: str) -> bool:
    """Whether a figure is drawn of a part of the model by giving it that part's rows; some know parts by themselves."""
    return bool(OF_MODULES & set(_ingredients(name).values())) and not PARTS.keys() & _parameters(name).keys()


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(FIGURES[find(name)]).parameters


def _needed(name: str, parameter: str) -> bool:
    return _parameters(name)[parameter].default is inspect.Parameter.empty


def _ingredients(name: str) -> dict[str, str]:
    """parameter -> property of `Sources`, for those parameters that are no settings."""
    meant = RECIPES.get(name, {})
    return {key: meant.get(key, key) for key in _parameters(name) if hasattr(Sources, meant.get(key, key))}


def _setting(name: str, hint: Any, default: Any, *, many: bool = False) -> Setting:
    """`str | None` is text, `Literal` brings its own choices, `Sequence[str]` is several."""
    listed = get_args(hint) if get_origin(hint) is Literal else ()
    inner = next((part for part in get_args(hint) if isinstance(part, type) and part is not type(None)), str)
    kind = type(listed[0]) if listed else hint if isinstance(hint, type) else inner
    repeated = many or (isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Sequence))
    known = default if default is not inspect.Parameter.empty else DEFAULTS.get(name)
    return Setting(name, kind, known, listed or tuple(CHOICES.get(name, ())), repeated)


def read_settings(name: str, words: Mapping[str, str]) -> dict[str, Any]:
    """Typed text as the values that the figure takes. Raises `ConfigError` for unknown names and values that are not allowed."""
    known = settings(name)
    for key in words:
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}{nearest(key, known)}; allowed: {allowed(known) or 'none'}")
    return {key: known[key].read(text) for key, text in words.items()}


def make(name: str, recordings: Sequence[Recording], made: Sources | None = None, /, **chosen: Any) -> FigureSpec:
    """The figure of that name from these runs; `made` is what other figures of the same runs were made of.

    Raises `ConfigError` for an unknown name, `ValueError` if the runs do not hold what it needs.
    """
    function: Callable[..., FigureSpec] = FIGURES[find(name)]
    part = {key: chosen.pop(key, ALL) for key in PARTS} if _narrows(name) else {}
    narrow = any(value != ALL for value in part.values())
    roles = chosen.pop("roles", ())
    sources = made if made and not (narrow or roles) else Sources([Part(one, **part) for one in recordings] if narrow else recordings, roles)
    made_of = {key: place for key, place in _ingredients(name).items() if len(recordings) == 1 or place not in Sources.OF_ONE or _needed(name, key)}
    missing = {key: value for key, value in DEFAULTS.items() if key in _parameters(name) and _needed(name, key) and key not in chosen}
    spec = function(**{key: getattr(sources, place) for key, place in made_of.items()}, **missing, **chosen)
    return _said_of(spec, words(**part)) if narrow else spec


def _said_of(spec: FigureSpec, part: str) -> FigureSpec:
    """A figure of a part of the model says so."""
    title = f"{spec.title}, {part}"
    return replace(spec, title=title, caption=f"Only {part}. {spec.caption}", alt=spec.alt.replace(spec.title, title, 1))
