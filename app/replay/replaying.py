"""What the Replay page is made of: one run or two as they are now, the moment that is chosen, charts that follow it, and what was measured then."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import streamlit as st

from analysis import beside, figures, moments, recipes, screen, tables
from app.export import basket
from app.parts import canvas, widgets
from app.reading import loading, naming, recorded
from app.reading.recorded import Recorded
from app.replay import branching, playing
from interplay.errors import InterplayError
from interplay.records import ROLES, STREAMS, Stream
from interplay.store import Runs, RunSummary

QUANTITIES = {"norm": "update norm", "cos_previous": "persistence", "cos_other_update": "alignment"}

#: Paths of a live run of so many updates are placed anew only after so many seconds.
MANY, SECONDS_HELD = 500, 15.0


# --- a run as it is now --------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """One run at this moment. What it is asked for is made anew only when files of that stream have changed."""

    recorded: Recorded
    summary: RunSummary
    stamps: Mapping[str, tuple[Any, ...]]

    @property
    def run(self) -> str:
        return self.recorded.run

    def frame(self, stream: Stream) -> pd.DataFrame:
        return self.recorded.frame(stream)

    def kept(self, name: str, streams: Sequence[Stream], build: Callable[[], Any]) -> Any:
        return widgets.memo(f"{name} of {self.recorded.path}", tuple(self.stamps[stream] for stream in streams), build)

    def updates(self) -> pd.DataFrame:
        """The policy's updates in order; the small stream first, the large one only where that has none."""
        return cast(pd.DataFrame, self.kept("policy updates", ("metrics", "updates"), self._updates))

    def _updates(self) -> pd.DataFrame:
        found = tables.policy_updates(self.frame("metrics"))
        return found if len(found) else tables.policy_updates(self.frame("updates"))

    def facts(self) -> tuple[list[str], list[str]]:
        """Roles and spaces of its updates."""
        return cast(tuple[list[str], list[str]], self.kept("facts", ("updates",), self._facts))

    def _facts(self) -> tuple[list[str], list[str]]:
        rows = self.frame("updates")
        roles, spaces = ({str(word) for word in rows[name].unique()} for name in ("role", "space"))
        return [role for role in ROLES if role in roles], sorted(spaces, reverse=True)

    def axes(self) -> list[str]:
        return cast(list[str], self.kept("axes", ("metrics",), lambda: figures.x_axes(self.frame("metrics"))))

    def problems(self) -> list[str]:
        return cast(list[str], self.kept("problems", STREAMS, self.recorded.problems))

    def metrics(self) -> pd.DataFrame:
        return cast(pd.DataFrame, self.kept("training metrics", ("metrics",), lambda: beside.of_policy(self.frame("metrics"))))

    def texts(self, split: str) -> pd.DataFrame:
        return cast(pd.DataFrame, self.kept(f"{split} completions", ("completions",), lambda: beside.of_split(self.frame("completions"), split)))

    def first_texts(self, split: str) -> pd.DataFrame:
        return cast(pd.DataFrame, self.kept(f"first {split} completions", ("completions",), lambda: beside.first_seen(self.texts(split))))


def look(runs: Sequence[RunSummary]) -> list[Look]:
    """The runs as they are on disk now."""
    return [_look(run, found) for run, found in zip(runs, recorded.apart(list(map(recorded.of, runs))), strict=True)]


def _look(summary: RunSummary, found: Recorded) -> Look:
    return Look(found, loading.again(summary), {stream: found.version((stream,)) for stream in STREAMS})


def live(looks: Sequence[Look]) -> bool:
    """Whether more may still come: what is not there is missing for good where not."""
    return any(loading.live(one.summary) for one in looks)


def pick_other(runs: Sequence[RunSummary], first: RunSummary) -> RunSummary | None:
    """A second run to see beside the first, from the URL; None if there is none, with the reason where one was asked for."""
    among = list({run.path: run for run in [*runs, *_rows_beside(first), *naming.inside(st.query_params.get("versus", ""))]}.values())
    names, asked = naming.names(among), st.query_params.get("versus")
    chosen = st.selectbox(
        "Beside",
        names,
        index=None,
        key="versus",
        bind="query-params",
        label_visibility="collapsed",
        placeholder="Beside another run",
        on_change=widgets.found_again,
        args=("versus",),
    )
    widgets.lost("versus", [asked] if asked and chosen is None else [])
    if chosen not in names:
        return None
    other = among[names.index(chosen)]
    reason = _not_beside(first, other)
    if reason:
        st.caption(widgets.escape(reason))
    return None if reason else other


def _rows_beside(first: RunSummary) -> list[RunSummary]:
    """The other rows of the comparison that a run is part of."""
    folder = Path(first.path).parent
    return [] if folder in loading.roots() else Runs(folder).list()


def _not_beside(first: RunSummary, other: RunSummary) -> str | None:
    """Why a run cannot stand beside the first."""
    if other.path == first.path:
        return "That is the run itself; choose another one to stand beside it."
    return f"{other.run} cannot be read." if other.state == "unreadable" else None


def axes(looks: Sequence[Look]) -> list[str]:
    """Horizontal axes that all of the runs recorded."""
    return [x for x in looks[0].axes() if all(x in one.axes() for one in looks)]


def roles(looks: Sequence[Look]) -> list[str]:
    """Roles with recorded updates in any of the runs, in the usual order."""
    return [role for role in ROLES if any(role in one.facts()[0] for one in looks)]


def spaces(looks: Sequence[Look]) -> list[str]:
    """Spaces that all of the runs recorded; the first one's where they share none."""
    found = looks[0].facts()[1]
    return [space for space in found if all(space in one.facts()[1] for one in looks)] or found or ["factor"]


def heading(looks: Sequence[Look]) -> None:
    """State, freshness and troubles of each run."""
    for one in looks:
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            if len(looks) > 1:
                st.text(one.run)
            widgets.run_line(one.summary, loading.newest(one.summary))
        widgets.problems(dict.fromkeys([*one.summary.problems, *one.problems()]))


def careful(part: Callable[..., None]) -> Callable[..., None]:
    """A part of the page that says what cannot be read, such as a run whose folder has gone."""

    @functools.wraps(part)
    def told(*arguments: Any) -> None:
        try:
            part(*arguments)
        except InterplayError as error:
            widgets.problems([error])

    return told


# --- the chosen moment ---------------------------------------------------------------------------


def moment(looks: Sequence[Look], share: bool) -> None:
    """Choose the moment: a clock of each run, none before the first run's policy has moved."""
    st.session_state["_clocks"] = _moment(looks, share)


def _moment(looks: Sequence[Look], share: bool) -> dict[str, int]:
    first, *others = (one for one in looks if one is looks[0] or len(one.updates()))
    if first.updates().empty:
        st.text("The policy has not moved yet: reward model 0 comes first." if live([first]) else "This run recorded no update of a policy.")
        return {}
    _arrive(first, others, share)
    bounds = _bounds(first)
    number = playing.update_row(bounds, live(looks))
    rows = {first.run: beside.row_at(first.updates(), number)}
    rows |= {one.run: beside.row_at(one.updates(), moments.align(number, bounds, _bounds(one), share=share)) for one in others}
    _say(rows, share, any(_bounds(one) != bounds for one in others))
    return {run: int(found["clock"]) for run, found in rows.items()}


def by_share(looks: Sequence[Look]) -> bool:
    """Whether runs of different lengths go together by the share of the way or by the number of the update."""
    if len({_bounds(one) for one in looks if len(one.updates())}) < 2:
        return False
    names = {"share": "the same share of the way", "update": "the same update"}
    return widgets.choice("Runs of different lengths show", list(names), "together", names) == "share"


def _bounds(one: Look) -> tuple[int, int]:
    updates = one.updates()["update"]
    return int(updates.iloc[0]), int(updates.iloc[-1])


def _say(rows: Mapping[str, pd.Series[Any]], share: bool, uneven: bool) -> None:
    """`update 3, iteration 1` of each run."""
    with st.container(horizontal=True, gap="medium"):
        for number, (run, row) in enumerate(rows.items()):
            beside_it = f"{run}: " if len(rows) > 1 else ""
            how = "" if not number or not uneven else ", the same share of the way" if share else ", the same number where it has one"
            st.text(f"{beside_it}update {row['update']}, iteration {row['iteration']}{how}")
    st.caption("Keys: P plays, B and N go one update back and on, the arrow keys move the slider. A click on a curve, a column or a path goes to that moment.")


def choose(found: moments.Moments, point: Mapping[str, Any]) -> None:
    """A point of a chart was clicked: the slider goes there."""
    st.session_state["_chosen"] = found.clock(point)
    playing.stepped()


def _arrive(first: Look, others: Sequence[Look], share: bool) -> None:
    """Where a click led: to the policy's update at that clock, or to what goes with it in the other run."""
    chosen = st.session_state.pop("_chosen", None)
    if chosen is None:
        return
    run, clock = chosen
    one = next((one for one in (first, *others) if one.run == run), first)
    number = beside.update_at(one.updates(), clock)
    playing.go(number if one is first else moments.align(number, _bounds(one), _bounds(first), share=share))


# --- charts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chart:
    """A figure ready to hang: drawn once, followed by its moments."""

    picture: canvas.Picture
    title: str
    caption: str
    moments: moments.Moments
    empty: bool
    what: str  # is drawn: the word for it where nothing of it was recorded
    item: basket.Item


def hang(chart: Chart | str, key: str, *, titled: bool = True, captioned: bool = True, live: bool = True) -> None:
    """A chart with its name and caption and a way into the basket; or the reason why there is none, which for an ended run is final."""
    if isinstance(chart, str):
        widgets.nothing(chart)
        return
    if titled:
        st.markdown(f"**{widgets.escape(chart.title)}**")
    if chart.empty:
        widgets.nothing("Nothing recorded yet." if live else f"No {chart.what} was recorded.")
        return
    canvas.hang(chart.picture, key, screen.CONFIG, follows=True, clicked=lambda point: choose(chart.moments, point))
    _hung()[key] = chart.moments
    if captioned:
        st.caption(widgets.escape(chart.caption))
    basket.offer(chart.item, key)


def row(made: Mapping[str, Chart | str], *, captioned: bool, live: bool) -> None:
    """Charts beside each other, each with its caption or with one for all."""
    for place, (key, chart) in zip(st.columns(len(made), gap="medium"), made.items(), strict=True):
        with place:
            hang(chart, key, captioned=captioned, live=live)
    first = next((chart for chart in made.values() if not isinstance(chart, str) and not chart.empty), None)
    if first and not captioned:
        st.caption(widgets.escape(first.caption))


def _hung() -> dict[str, moments.Moments]:
    """The moments of the charts that hang on the page, by key."""
    found: dict[str, moments.Moments] = st.session_state.setdefault("_hung", {})
    return found


def take_down() -> None:
    """All charts are about to be hung anew."""
    _hung().clear()


def follow(key: str) -> None:
    """All charts go to the chosen moment; `key` names the part of the page that says so."""
    canvas.follow({name: found.at(clocks()) for name, found in _hung().items()}, key)


def clocks() -> dict[str, int]:
    """The chosen moment as it was last shown."""
    found: dict[str, int] = st.session_state.get("_clocks", {})
    return found


def chart(name: str, looks: Sequence[Look], stream: Stream, height: int, **settings: Any) -> Chart | str:
    """The registered figure of these runs; the reason where there is none."""
    return charts(name, [looks], stream, height, **settings)[0]


def charts(name: str, groups: Sequence[Sequence[Look]], stream: Stream, height: int, **settings: Any) -> list[Chart | str]:
    """The same figure of several groups of runs, with one colour scale for all of them."""
    looks = [one for group in groups for one in group]
    key = f"{name} {sorted(settings.items())} {height} of {[[str(one.recorded.path) for one in group] for group in groups]}"
    build = lambda: _drawn(name, [[one.recorded for one in group] for group in groups], height, settings)  # noqa: E731
    return cast("list[Chart | str]", widgets.memo(key, tuple(one.stamps[stream] for one in looks), build))


def _drawn(name: str, groups: Sequence[Sequence[Recorded]], height: int, settings: Mapping[str, Any]) -> list[Chart | str]:
    made: list[Any] = []
    for group in groups:
        try:
            spec = recipes.make(name, group, **settings)
            made.append((spec, screen.draw(spec, height=height), basket.Item.of(name, group, settings)))
        except ValueError as reason:
            made.append(f"{recipes.about(name)} Not drawn: {reason}.")
    screen.alike([one[1] for one in made if not isinstance(one, str)])
    return [one if isinstance(one, str) else _chart(*one) for one in made]


def _chart(spec: Any, figure: Any, item: basket.Item) -> Chart:
    return Chart(canvas.picture(figure, spec.alt), spec.title, screen.caption(spec), moments.of(spec), spec.empty, (spec.colour or spec.y).label, item)


def heats(looks: Sequence[Look], among: Sequence[str], quantity: str, rows: str, space: str) -> list[dict[str, Chart | str]]:
    """Layers over updates, by chart, in the rows of the page: the roles of one run, or each role of two runs beside each other."""
    found = {role: _heats(looks, role, quantity, rows, space) for role in among}
    if len(looks) == 1:
        return [{f"chart-heat-{role}": made[0] for role, made in found.items()}] if found else []
    return [{f"chart-heat-{role}": made[0], f"chart-heat-{role}-beside": made[1]} for role, made in found.items()]


def _heats(looks: Sequence[Look], role: str, quantity: str, rows: str, space: str) -> list[Chart | str]:
    """One role's layers, one chart for each run, in one colour scale."""
    name, more = ("norm_heatmap", {}) if quantity == "norm" else ("cosine_heatmap", {"column": quantity})
    made = charts(name, [[one] for one in looks], "updates", 280, role=role, rows=rows, space=space, **more)
    if len(looks) == 1:
        return made
    return [_named(chart, one, role) for chart, one in zip(made, looks, strict=True)]


def _named(chart: Chart | str, one: Look, role: str) -> Chart | str:
    """A chart of one of two runs says which."""
    if isinstance(chart, str) or chart.empty:
        return chart if isinstance(chart, str) else f"{one.run} recorded no update of the {figures.ROLE_WORDS[role]}."
    return replace(chart, title=f"{one.run}: {chart.title[:1].lower()}{chart.title[1:]}")


def paths(looks: Sequence[Look], among: Sequence[str], flat: str, scale: str) -> Chart | str:
    """The ways of these roles, of two runs in one space; the reason where they cannot share one."""
    return chart("trajectories", [_held(one) for one in looks], "directions", 440, components=int(flat), same_length=scale == "equal", roles=tuple(among))


def _held(one: Look) -> Look:
    """A long run that lives, as if its directions changed only now and then: all its paths are placed anew whenever one grows."""
    if not loading.live(one.summary) or len(one.updates()) < MANY:
        return one
    return replace(one, stamps={**one.stamps, "directions": (int(time.time() // SECONDS_HELD),)})


# --- what one update measured, and where it can go on --------------------------------------------


def numbers(looks: Sequence[Look]) -> None:
    """What the chosen update of each run measured on its batch."""
    frame = beside.numbers_at({one.run: one.metrics() for one in looks}, clocks())
    if frame.empty:
        return
    config: dict[str, Any] = {str(name): st.column_config.NumberColumn(str(name), format="%.4g") for name in frame}
    st.dataframe(frame, column_config=config, width="stretch", hide_index=len(looks) < 2, placeholder="", alt="Numbers of the chosen update")


def branches(looks: Sequence[Look]) -> None:
    """The checkpoint of the chosen update's iteration, and the command that goes on from there."""
    for number, one in enumerate(looks):
        if one.run not in clocks() or not one.summary.task:  # nothing goes on from a run that `interplay train` did not make
            continue
        updates = one.updates()
        iteration = int(beside.row_at(updates, beside.update_at(updates, clocks()[one.run]))["iteration"])
        with st.expander(widgets.escape(f"Go on from here: {one.run}, iteration {iteration}"), icon=":material/fork_right:", key=f"branch-{number}"):
            branching.show(one.recorded, iteration, beside.last_of(updates, iteration))
