"""The form that starts a comparison: what is compared, its plan as a table, where it will run and for how long."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.commands.engine import Answer
from app.compare import planning, standings, versus
from app.compare.planning import Form
from app.parts import widgets
from app.queue import jobs
from app.reading import catalogue, loading, naming
from interplay import compare
from interplay.compare import Plan
from interplay.config import INHERITED, RunConfig
from interplay.errors import InterplayError

Asked = Future[Answer] | None

#: What is compared where nothing is chosen, as far as it is there: zeroth order, blind SPSA, a blind walk, first order.
USUAL_ARMS = ("zopro", "mezo", "extrapolate", "rloo")
_STARTS = {"warm": "warm start", "run": "recorded run", "none": "base model"}
_NUMBERS = ("iterations", "updates", "prompts", "completions", "max_new_tokens", "reward_updates", "pairs", "heldout", "heldout_pairs")
_LABELS = {"max_new_tokens": "New tokens", "heldout": "Held-out prompts", "heldout_pairs": "Held-out pairs", "pairs": "Judged pairs"}
_META: Mapping[str, Mapping[str, Any]] = {item.name: item.metadata for item in fields(RunConfig)}
_LARGEST = 1_000_000


def form() -> Form:
    """What is compared, from where, for how much; all of it in the URL."""
    with st.spinner("Asking the engine for its methods"):
        methods = [method.name for method in catalogue.methods()]
    left, right = st.columns([3, 1], gap="medium")
    with left:
        arms = _arms(methods)
    with right:
        about = "3 means seeds 0, 1, 2; or a list such as 3,5,8"
        seeds = st.text_input("Seeds", planning.USUAL_SEEDS, key="seeds", bind="query-params", max_chars=200, help=about)
    left, middle, right = st.columns(3, gap="medium")
    warm, start = _beginning(methods, left, middle)
    with right:
        extra = _further_controls(arms)
    settings = {**({} if start else _task()), **_budget([name for name in _NUMBERS if not (start and name in INHERITED)])}
    controls = tuple(dict.fromkeys([*planning.born_controls(arms), *extra]))
    return Form(tuple(arms), seeds.strip() or planning.USUAL_SEEDS, warm, start, controls, settings)


def _arms(methods: Collection[str]) -> list[str]:
    usual = [name for name in USUAL_ARMS if name in methods]
    return st.multiselect(
        "Methods, the first is the one that the others are held against",
        list(methods),
        default=usual if len(usual) > 1 else list(methods)[:2],
        key="methods",
        bind="query-params",
        accept_new_options=True,
        max_selections=20,
        placeholder="choose, or type a method with settings of its own, such as zopro:mode=wrong_v",
        help="Type METHOD:KEY=VALUE and press Enter for an arm with settings of its own, such as `zopro:mode=wrong_v`.",
    )


def _further_controls(arms: Sequence[str]) -> list[str]:
    free = [arm for arm in arms if arm not in planning.born_controls(arms)]
    about = "arms that need not keep to the common budget, and are marked everywhere; extrapolate is one anyway"
    chosen = st.multiselect("Further controls", free, key="controls", bind="query-params", help=about, placeholder="none")
    return [arm for arm in chosen if arm in free]


def _beginning(methods: Sequence[str], left: DeltaGenerator, right: DeltaGenerator) -> tuple[str | None, str | None]:
    """Method of the warm start, or the run that all rows go on from; neither for the base model."""
    about = "one start for all, so that methods differ in nothing else"
    how = left.selectbox("All rows start from", list(_STARTS), key="start", bind="query-params", help=about, format_func=lambda word: _STARTS.get(word, word))
    if how == "none":
        return None, None
    with right:
        return (None, _recorded_start()) if how == "run" else (_warm_start(methods), None)


def _warm_start(methods: Sequence[str]) -> str:
    place = methods.index(planning.USUAL_WARM) if planning.USUAL_WARM in methods else 0
    about = "one run of the usual size; policy, reward model and their last updates are taken from it"
    return st.selectbox("Warm start by", list(methods), index=place, key="warm", bind="query-params", help=about) or planning.USUAL_WARM


def _recorded_start() -> str | None:
    """A run with a complete iteration, as one would type it."""
    runs = [run for run in loading.summaries() if compare.resumable(run.path)]
    names = naming.names(runs)
    if not names:
        st.caption("No run that is shown has a complete iteration to start from: it is the base model, then.")
        return None
    chosen = st.selectbox("Recorded run", names, key="start_run", bind="query-params")
    st.caption("Task, data, model, lengths and scoring are those of that run.")
    return str(planning.short(naming.find(chosen or names[0], runs).path))


def _task() -> dict[str, Any]:
    task, model, data = st.columns(3, gap="medium")
    tasks = catalogue.tasks()
    usual = planning.usual("task")
    with task:
        chosen = st.selectbox("Task", tasks, index=tasks.index(usual) if usual in tasks else 0, key="task", bind="query-params", help=_META["task"]["help"])
    with model:
        base = st.text_input("Model", planning.usual("model"), key="model", bind="query-params", max_chars=500, help=_META["model"]["help"])
    with data:
        source = st.text_input("Data", key="data", bind="query-params", placeholder="the task's own prompts", max_chars=500, help=_META["data"]["help"])
    return {"task": chosen or usual, "model": base.strip() or planning.usual("model"), "data": source.strip() or None}


def _budget(names: Sequence[str]) -> dict[str, Any]:
    """The same for every row but controls."""
    found: dict[str, Any] = {}
    with st.container(border=True):
        st.markdown("**Budget of every row**")
        places = st.columns(5, gap="small") + st.columns(5, gap="small")
        for place, name in zip(places, names, strict=False):
            with place:
                low = int(_META[name]["low"] or 0)
                label = _LABELS.get(name, name.replace("_", " ").capitalize())
                value = st.number_input(label, low, _LARGEST, planning.usual(name), key=name, bind="query-params", help=_META[name]["help"])
                found[name] = int(value)
    return found


# --- its plan --------------------------------------------------------------------------------------


def planned(filled: Form) -> tuple[tuple[str, ...], Plan] | None:
    """Device, folder, and the command that they make; or the one line that says what is wrong with it."""
    left, right = st.columns([1, 2], gap="medium")
    with left:
        device = widgets.choice("Device", list(_META["device"]["choices"]), "device", help=_META["device"]["help"])
    free = planning.free_name(filled.arms, versus.home())
    about = f"in {versus.home()}; a plan that stands there may grow by methods and seeds"
    with right:
        name = st.text_input("Folder", key="name", bind="query-params", placeholder=free, max_chars=200, help=about)
    words = replace(filled, settings={**filled.settings, "device": device}).words
    known = [method.name for method in catalogue.methods()] if catalogue.engine_installed() else []
    try:
        plan = planning.plan_of(words, planning.folder(name.strip() or free, versus.home()), known)
        planning.rows(plan)
    except (InterplayError, OSError) as error:
        st.error(widgets.escape(error), icon=":material/error:")
        return None
    st.code(jobs.command_line(planning.argv(words, plan.out)), language="bash", wrap_lines=True)
    return words, plan


def table(plan: Plan) -> None:
    """The plan, one line for each run."""
    rows = planning.rows(plan)
    st.caption(widgets.escape(f"Equal in all rows but controls: {planning.shared_words(plan)}"))
    height: Any = "content" if len(rows) <= 14 else 500
    config = {"command": st.column_config.TextColumn(width="large"), "control": st.column_config.CheckboxColumn(width="small")}
    st.dataframe(pd.DataFrame(rows), column_config=config, hide_index=True, width="stretch", height=height, alt="The plan, one line for each run")


def asked(words: tuple[str, ...], plan: Plan) -> Asked:
    """The engine's answer to the plan, on its way; None where nothing can be started anyway."""
    return None if versus.why_not() else planning.ask(words, plan)


def offer(words: tuple[str, ...], plan: Plan, answer: Asked) -> None:
    """Where it will run and for how long, and Start; or why not."""
    reason = versus.why_not()
    st.text(f"{versus.count(len(plan.rows), 'row')}: {versus.size(plan)}.")
    if answer is not None and not answer.done():
        st.caption("Asking the engine whether it takes this plan, and for its devices ...")
    elif answer is not None and not answer.cancelled():
        reason = _answered(plan, answer)
    ready = answer is not None and answer.done() and not answer.cancelled()
    st.button(
        "Start",
        type="primary",
        icon=":material/play_arrow:",
        key="compare-start",
        disabled=bool(reason) or not ready,
        on_click=versus.start,
        args=(words, plan.out),
    )
    if reason and answer is None:
        st.info(reason, icon=":material/lock:" if loading.exposed() else ":material/info:")


def _answered(plan: Plan, answer: Future[Answer]) -> str | None:
    """Device and time in plain words; the engine's refusal where there is one."""
    error = answer.exception()
    if error is not None:
        st.error(widgets.escape(error), icon=":material/error:")
        return str(error)
    gpus = answer.result().gpus
    where = f"On the GPU ({', '.join(gpu.name for gpu in gpus)})" if gpus else "On the CPU"
    earlier = [row for entry in standings.entries([*standings.roots(versus.home()), loading.RECORDINGS]) for row in entry.rows]
    took = planning.forecast(plan, earlier, [gpu.name for gpu in gpus], len(gpus))
    st.text(f"{where}, one row at a time{' on each' if len(gpus) > 1 else ''}. Time: {took}.")
    return None
