"""Controls for figures, made from the settings that the figures themselves declare (`recipes.settings`): a new setting needs no change of a page.

Choices are buttons or a list, yes or no a toggle, numbers a slider or a box. Layer, kind, role and space offer what the run recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from analysis import part, recipes
from analysis.part import ALL
from analysis.recipes import Setting
from analysis.trajectory import OUTSIDE
from app.parts import widgets
from app.reading.recorded import Recorded
from interplay.records import ROLES, SPACES

#: A setting that is left to what was recorded.
AUTO = "as recorded"
#: What settings and their values are called where their own names say too little.
LABELS: Mapping[str, str] = {
    "same_length": "Equal reach",
    "components": "Dimensions",
    "of": "Rows of",
    "k": "Leading directions",
    "by": "A step is",
    "column": "Cosine with",
    "x": "Horizontal axis",
    "y_scale": "Vertical axis",
}
WORDS: Mapping[Any, str] = {
    **{"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE", 2: "2-D", 3: "3-D"},
    **{"cos_previous": "previous update", "cos_other_update": "other role", "chance": "units of chance", str(OUTSIDE): "outside the blocks"},
}
HELP: Mapping[str, str] = {
    "layer": "only this layer: norms, cosines and chance of its modules alone",
    "kind": "only modules of this kind",
    "space": "factor: the tensors as the optimiser sees them; effective: the weight that the forward pass uses",
    "rows": "one row for each layer, or for each kind of module",
    "same_length": "each path is scaled to reach 1, to compare shapes",
    "lags": "how many steps to both sides",
    "seed": "of the random walks, and of UMAP and t-SNE",
    "smoothing": "weight of an exponential moving average over training batches; what was recorded stays behind it, faint",
    "y_scale": "log: only values above 0 have a place on it",
}
#: Numbers that are chosen on a slider, from and to.
SPANS: Mapping[str, tuple[float, float]] = {"lags": (1, 20), "window": (1, 20), "horizon": (1, 20), "k": (1, 12), "smoothing": (0.0, 0.99)}
#: Settings that stay as they are from view to view; the others are of one view.
SHARED = ("layer", "kind", "space", "rows")


@dataclass(frozen=True)
class Has:
    """The roles, spaces, layers and kinds of module that a run recorded."""

    roles: tuple[str, ...]
    spaces: tuple[str, ...]
    layers: tuple[str, ...]
    kinds: tuple[str, ...]


def has(run: Recorded) -> Has:
    return widgets.memo("has", (run.version(("updates",)),), lambda: _has(run))  # type: ignore[no-any-return]


def _has(run: Recorded) -> Has:
    updates = run.frame("updates")
    seen = {name: {str(word) for word in updates[name].unique()} for name in ("role", "space")}
    roles, spaces = (tuple(word for word in words if word in seen[name]) for name, words in (("role", ROLES), ("space", SPACES)))
    return Has(roles, spaces, tuple(part.layers(updates)), tuple(part.kinds(updates)))


def of(names: Sequence[str], known: Has, prefix: str, *, roles: Sequence[str] = ROLES, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Draws one control for each setting of these figures and gives what was chosen; `roles` is for those that ask for one role or for several."""
    asked = joined(names)
    chosen: dict[str, Any] = {}
    if {"role", "roles"} & asked.keys() and known.roles:
        chosen["roles"] = _roles(f"{prefix}-roles", known.roles, roles)
    for key, one in asked.items():
        if key == "rows" and (narrow := _other_rows(chosen)):
            chosen[key] = narrow
        elif key not in ("role", "roles"):
            told = replace(one, default=(defaults or {}).get(key, one.default))
            chosen[key] = _control(_within(told, known), key if key in SHARED else f"{prefix}-{key}")
    return chosen


def easing(prefix: str = "") -> dict[str, Any]:
    """How curves are drawn: on which vertical axis, and how smooth."""
    known = recipes.settings("run_curves")
    return {name: _control(known[name], f"{prefix}{name}") for name in ("y_scale", "smoothing")}


def _other_rows(chosen: Mapping[str, Any]) -> str | None:
    """Of one layer the kinds are told apart, of one kind the layers; None where both are open."""
    layer, kind = (chosen.get(name, ALL) != ALL for name in ("layer", "kind"))
    return "layer" if kind else "kind" if layer else None


def joined(names: Sequence[str]) -> dict[str, Setting]:
    """The settings of all these figures, parts of the model first, those of one name as one."""
    found: dict[str, Setting] = {}
    for name in names:
        for key, one in recipes.settings(name).items():
            found[key] = _both(found[key], one) if key in found else one
    return {key: found[key] for key in sorted(found, key=lambda key: key not in recipes.PARTS)}


def _both(first: Setting, second: Setting) -> Setting:
    """What both allow, with a default that both understand."""
    choices = tuple(word for word in first.choices if word in second.choices) or first.choices
    return replace(first, choices=choices, default=second.default if first.default is None else first.default)


def _within(one: Setting, known: Has) -> Setting:
    """Only what the run has: its spaces (of a run without updates figures name the factor space), layers and kinds."""
    here = {"space": known.spaces or ("factor",), "layer": (ALL, *known.layers), "kind": (ALL, *known.kinds)}.get(one.name)
    if not here:
        return one
    return replace(one, choices=here, default=one.default if one.default in (None, *here) else here[0])


def _roles(key: str, known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    default = [role for role in known if role in wanted] or list(known[:1])
    picked = st.pills("Roles", list(known), selection_mode="multi", default=default, key=key, bind="query-params")
    return tuple(role for role in known if role in picked) or tuple(default)


def _control(one: Setting, key: str) -> Any:
    label, help = LABELS.get(one.name, one.name.replace("_", " ").capitalize()), HELP.get(one.name)
    if one.kind is bool:
        return st.toggle(label, value=bool(one.default), key=key, bind="query-params", help=help)
    if one.choices:
        return _one_of(one, key, label, help)
    if one.name in SPANS:
        return st.slider(label, *SPANS[one.name], one.kind(one.default), key=key, bind="query-params", help=help, width=200)
    if one.kind is int:
        return st.number_input(label, 0, 10_000, int(one.default), key=key, bind="query-params", help=help, width=120)
    typed = st.text_input(label, key=key, bind="query-params", help=help, width=200, max_chars=100, placeholder=one.default or AUTO)
    return typed.strip() or one.default


def _one_of(one: Setting, key: str, label: str, help: str | None) -> Any:
    """Few words as buttons, many as a list."""
    options = [*([AUTO] if one.default is None else []), *one.choices]
    default = AUTO if one.default is None else one.default
    forget(key, options)
    more: dict[str, Any] = {"key": key, "bind": "query-params", "help": help, "format_func": lambda word: _word(one, word)}
    if len(options) <= 4 and one.name not in recipes.PARTS:
        picked = st.segmented_control(label, options, default=default, required=True, **more)
    else:
        picked = st.selectbox(label, options, index=options.index(default), width=140, **more)
    told = default if picked is None else picked  # an empty word in the URL clears a choice
    return None if told == AUTO else told


def _word(one: Setting, value: Any) -> str:
    """What a value is called; the space that is taken unless one is chosen (`movement.space_of`) is named, so that its numbers can be placed."""
    if one.name == "space" and value == AUTO:
        return f"{AUTO}: {'effective' if 'effective' in one.choices else one.choices[0]}"
    return WORDS.get(value, str(value))


def forget(key: str, options: Sequence[Any]) -> None:
    """A choice that is no longer offered, because the runs are others, is let go."""
    if key in st.session_state and st.session_state[key] not in options:
        del st.session_state[key]
