"""The views of the Interplay page: which runs, which figures answer a question, and each figure with its words.

A figure stands in a view by its name in `VIEWS`; all others are found under `OTHERS` without a change here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from analysis import explain, recipes, screen
from analysis.explain import Explanation
from app.compare.standings import Entry
from app.export import basket
from app.interplay import cards
from app.parts import controls, widgets
from app.reading import loading, naming, recorded
from app.reading.recorded import Recorded
from app.runs import grouping
from interplay.errors import InterplayError
from interplay.reading import summarise
from interplay.records import STREAMS
from interplay.store import RunSummary

SECONDS_LIVE = 4.0
#: Names that can be chosen together; a comparison is one.
MOST_RUNS = 20
#: Bytes of files from which on verdicts wait until somebody asks for them.
LARGE_BYTES = 200 * 2**20
#: Values of `method` that take seconds, because they place neighbours step by step.
SLOW = ("umap", "tsne")
_WAIT = "Placing neighbours. The first picture takes about 15 s, because its code is compiled first; the next ones take a few seconds."


@dataclass(frozen=True)
class View:
    """Some figures that answer one question. `many`: those that only several runs need. `wide`: those that take the whole width.

    `quick`: of a long run its figures are there seconds before the verdicts, so they do not wait for them.
    """

    name: str
    question: str
    figures: tuple[str, ...]
    many: tuple[str, ...] = ()
    wide: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ("policy", "reward")
    defaults: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False

    @property
    def prefix(self) -> str:
        """What its own settings begin with in the URL."""
        return self.figures[0] if self.name == OTHERS else self.name.split()[0].lower()

    def names(self, runs: int) -> tuple[str, ...]:
        """Its figures for so many runs."""
        return self.figures + (self.many if runs > 1 else ())


OTHERS = "All figures"
VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        View(
            "Alignment",
            "Does the policy move along with the reward model, and where in the model?",
            ("alignment_curve", "coupling_map", "module_coupling"),
            many=("starts",),
            wide=frozenset({"alignment_curve", "starts"}),
            roles=("policy",),
            quick=True,
        ),
        View(
            "Paths",
            "Both paths in one space: one seed sketches policy and reward model alike.",
            ("trajectories",),
            wide=frozenset({"trajectories"}),
            defaults={"same_length": True},
        ),
        View("Leads and lags", "Does one of the two go where the other one went before?", ("lag_profile", "cross_lag"), defaults={"show": "chance"}),
        View("Persistence", "Does each of them keep its direction?", ("persistence_lags", "straightness_curve", "extrapolation", "cosine_heatmap")),
        View("Where it moves", "Which layers and kinds of module move, and when?", ("norm_heatmap", "norm_shares"), quick=True),
        View("Likeness", "Do both explore the same directions, and have their paths one shape?", ("subspace_overlap", "path_kinship")),
        View("Directions", "What were sampled directions worth, and where does the gradient lie?", ("gains", "energy_shares"), quick=True),
    )
}
_HEIGHTS: Mapping[str, int] = {"trajectories": 540, "coupling_map": 380, "module_coupling": 380, "norm_heatmap": 380, "cosine_heatmap": 380, "cross_lag": 400}


# --- which runs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What is looked at: single runs, and the finished rows of comparisons."""

    summaries: tuple[RunSummary, ...]
    runs: tuple[Recorded, ...]

    @property
    def live(self) -> bool:
        return any(loading.live(one) for one in self.summaries)


def choose(runs: Sequence[RunSummary], comparisons: Sequence[Entry]) -> Choice:
    """Runs and comparisons by name, in the URL; where this page has none yet, the run of another page, or the newest."""
    held, other = st.session_state.get("runs", st.query_params.get_all("runs")), st.query_params.get("run", "")
    runs = _with_rows(runs, [*held, other])
    names = naming.names(runs)
    options = [*names, *(one.name for one in comparisons if one.name not in names)]
    meant = {name: _known(name, runs, options) for name in held or [other] if name}
    known, missing = [name for name in meant.values() if name], [name for name, found in meant.items() if not found]
    if "runs" not in st.session_state:
        known = known if meant else [options[loading.to_show(runs)]]
        st.query_params["runs"] = known
    if known != st.session_state.get("runs"):  # an older link, or a run has gone
        st.session_state["runs"] = known[:MOST_RUNS]
    picked = st.multiselect(
        "Runs",
        options,
        key="runs",
        bind="query-params",
        label_visibility="collapsed",
        placeholder="Choose runs or comparisons",
        max_selections=MOST_RUNS,
        on_change=widgets.found_again,
        args=("runs",),
    )
    widgets.lost("runs", missing)
    widgets.at_work(runs, names, picked)
    return chosen(picked, runs, comparisons)


def _known(name: str, runs: Sequence[RunSummary], options: Sequence[str]) -> str | None:
    """What a name means here; None if nothing."""
    return name if name in options else naming.full_name(name, runs)


def _with_rows(runs: Sequence[RunSummary], names: Sequence[str]) -> list[RunSummary]:
    """The runs, and those rows of comparisons that are asked for by name (`COMPARISON/ROW`)."""
    found = [*runs, *(row for name in names for row in naming.inside(name))]
    return list({Path(one.path).resolve(): one for one in found}.values())


def chosen(names: Sequence[str], runs: Sequence[RunSummary], comparisons: Sequence[Entry]) -> Choice:
    """What these names mean; a run that is named twice counts once."""
    known = naming.names(runs)
    single = [runs[known.index(name)] for name in names if name in known]
    rows = [row for name in names if name not in known for one in comparisons if one.name == name for row in one.recordings()]
    found = [recorded.of(one) for one in single if one.state != "unreadable"] + rows
    return Choice(tuple(single), tuple(recorded.apart(found)))


def siblings(choice: Choice, runs: Sequence[RunSummary]) -> list[str]:
    """Names of the other seeds of what is chosen."""
    here = {one.path for one in choice.summaries}
    groups = [group.runs for group in grouping.configurations(runs) if any(one.path in here for one in group.runs)]
    others = {one.path for group in groups for one in group if one.path not in here}
    return [name for name, one in zip(naming.names(runs), runs, strict=True) if one.path in others]


def offer(names: Sequence[str]) -> None:
    """A button that adds the other seeds of the chosen configuration."""
    if names:
        words = f"Add the {len(names)} other seeds" if len(names) > 1 else "Add the other seed"
        st.button(words, icon=":material/add:", key="seeds", type="tertiary", on_click=_add, args=(tuple(names),), help="runs of the same settings")


def _add(names: Sequence[str]) -> None:
    st.session_state["runs"] = [*st.session_state.get("runs", []), *names][:MOST_RUNS]


def again(choice: Choice) -> Choice:
    """The same as it is now."""
    return replace(choice, summaries=tuple(loading.again(one) if loading.live(one) else one for one in choice.summaries))


def none(choice: Choice) -> None:
    """Why nothing can be shown."""
    if choice.summaries:
        lines(choice)
    else:
        widgets.nothing("Choose a run above, or a comparison with finished rows.")


def lines(choice: Choice) -> None:
    """What is looked at, in one row; what is wrong with it, one line each."""
    if len(choice.runs) == 1 and choice.summaries:
        widgets.run_line(choice.summaries[0], loading.newest(choice.summaries[0]))
    elif choice.runs:
        methods = list(dict.fromkeys(one.method for one in choice.runs))
        st.text(f"{len(choice.runs)} runs: {', '.join(methods)}")
    found = {Path(one.path): (one.run, list(one.problems) or ["it cannot be read"] * (one.state == "unreadable")) for one in choice.summaries}
    for run in choice.runs:
        found[run.path] = (run.run, [*found.get(run.path, ("", []))[1], *_damage(run)])
    widgets.problems(f"{name}: {problem}" for name, problems in found.values() for problem in dict.fromkeys(problems))


def _damage(run: Recorded) -> list[str]:
    """What is wrong with its files."""
    return widgets.memo(f"damage {run.path}", (run.version(STREAMS),), run.problems)  # type: ignore[no-any-return]


def focus(runs: Sequence[Recorded]) -> Recorded:
    """The run that figures of one run show."""
    if len(runs) == 1:
        return runs[0]
    names = [one.run for one in runs]
    controls.forget("focus", names)
    picked = st.selectbox("Run, in figures of one run", names, key="focus", bind="query-params", width=260)
    return runs[names.index(picked)]


# --- which figures -----------------------------------------------------------------------------


def pick_view() -> View:
    """The chosen view; that of all figures holds one that is picked by its name."""
    name = widgets.choice("View", [*VIEWS, OTHERS], "view")
    if name != OTHERS:
        st.caption(widgets.escape(VIEWS[name].question))
        return VIEWS[name]
    names = recipes.names()
    controls.forget("figure", names)
    picked = st.selectbox("Figure", names, key="figure", bind="query-params", width=260)
    return View(OTHERS, "Any figure by its name, as the command interplay figure draws it.", (picked,), wide=frozenset({picked}))


@dataclass(frozen=True)
class Tile:
    """One figure with its settings."""

    name: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.name}-{self.settings.get('role', 'all')}"


def tiles(name: str, chosen: Mapping[str, Any]) -> list[Tile]:
    """A figure with what was chosen for it, as far as that is not what it does anyway; one for each chosen role where it shows one."""
    known = recipes.settings(name)
    own = {key: value for key, value in chosen.items() if key in known and value != known[key].default}
    if "role" not in known:
        return [Tile(name, own)]
    roles = [role for role in chosen.get("roles", ()) if role in known["role"].choices]
    return [Tile(name, own | {"role": role}) for role in roles or known["role"].choices[:1]]


def rows(view: View, chosen: Mapping[str, Any], runs: int) -> list[list[Tile]]:
    """Tiles in twos; what is wide stands alone, and both roles of a figure stand side by side."""
    found: list[list[Tile]] = []
    for name in view.names(runs):
        group = tiles(name, chosen)
        if len(group) == 1 and name not in view.wide and found and len(found[-1]) == 1 and found[-1][0].name not in view.wide:
            found[-1].extend(group)
        else:
            found += [group[start : start + 2] for start in range(0, len(group), 2)]
    return found


def show(view: View, runs: Sequence[Recorded]) -> Mapping[str, Any]:
    """The view with its controls; gives what was chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        names = view.names(len(runs))
        one = runs[0] if all(recipes.several(name) for name in names) else focus(runs)
        picked = controls.of(names, controls.has(one), view.prefix, roles=view.roles, defaults=view.defaults)
    for row in rows(view, picked, len(runs)):
        for place, tile in zip(st.columns(len(row), gap="medium"), row, strict=True):
            with place:
                panel(tile, runs if recipes.several(tile.name) else [one])
    return picked


# --- one figure --------------------------------------------------------------------------------


def panel(tile: Tile, runs: Sequence[Recorded]) -> None:
    """A figure under what it asks, with what it says of these runs, how it is computed, and a way into the basket; else the reason."""
    told = explain.FIGURES.get(tile.name) or Explanation(recipes.about(tile.name), "", "")
    slow = tile.settings.get("method") in SLOW
    with st.container(border=True, height="stretch", gap="xsmall"):
        try:
            with st.spinner(_WAIT if slow else "Drawing", show_time=slow):
                spec = widgets.drawn(tile.name, runs, tile.settings)
        except (ValueError, InterplayError) as reason:
            _absent(tile.name.replace("_", " ").capitalize(), told, f"Not drawn: {reason}.")
            return
        if spec.empty:
            yet = any(loading.live(summarise(one.path)) for one in runs)
            _absent(spec.title, told, explain.reading(spec).replace("Not recorded:", "Not recorded yet:" if yet else "Not recorded:", 1))
            return
        _headed(spec.title, told)
        widgets.chart(spec, f"chart-{tile.key}", height=_HEIGHTS.get(tile.name, 300), own_caption=False, titled=False)
        widgets.caption(replace(spec, caption=explain.reading(spec)))
        with st.container(horizontal=True, gap="small"):
            cards.how(told, screen.caption(spec))
            basket.offer(basket.Item.of(tile.name, runs, tile.settings), tile.key)


def _headed(title: str, told: Explanation) -> None:
    st.markdown(f"**{widgets.escape(title)}**")
    st.caption(widgets.escape(told.what))


def _absent(title: str, told: Explanation, reason: str) -> None:
    _headed(title, told)
    st.text(reason)


# --- live and large ----------------------------------------------------------------------------


def pace(choice: Choice) -> float | None:
    """Seconds between two looks; None where nothing will change, and while a slow picture is open, which each look would make anew."""
    return SECONDS_LIVE if choice.live and not st.session_state.get("_slow") else None


def settle(choice: Choice, picked: Mapping[str, Any], seconds: float | None) -> None:
    """Build the page anew when its pace has changed: the run has ended, or a slow picture was opened or closed."""
    st.session_state["_slow"] = picked.get("method") in SLOW
    if pace(choice) != seconds:
        st.rerun()


def wanted(size: int) -> bool:
    """Whether a report of so many bytes is asked for: of large runs it takes a while, and their figures need not wait for it."""
    if size <= LARGE_BYTES:
        return True
    st.text(f"These recordings have {size / 2**20:,.0f} MiB; their verdicts take a while.")
    return st.toggle("Weigh the evidence", key="weigh", bind="query-params")
