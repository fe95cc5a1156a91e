"""Compare: methods against methods on the same seeds and prompts; finished, running and new ones."""

from __future__ import annotations

import streamlit as st

from app.compare import findings, proposal, standings, versus
from app.compare.proposal import Asked
from app.compare.standings import Entry
from app.parts import widgets
from app.queue.job import Job
from interplay.compare import Plan

SECONDS, SECONDS_ASKING = 3.0, 1.0


def show(was_live: bool) -> None:
    """The list and the chosen comparison; called again by itself while any of them is at work."""
    versus.turn()
    entries, jobs = versus.load()
    chosen = versus.pick(entries, jobs)
    if chosen is not None:
        show_one(chosen, standings.job_of(chosen, jobs))
    versus.settle(was_live, versus.live(entries, jobs))


def show_one(entry: Entry, job: Job | None) -> None:
    judge, x = versus.header(entry, job)
    whole = entry.state(job) == "finished"
    if entry.problem:
        widgets.problems([entry.problem])
    if not whole:
        versus.watch(entry, job)
    if entry.plan:
        findings.show(entry, judge, x)
    if whole:
        versus.details(entry)


def new() -> None:
    """A form, a button, and the plan."""
    made = proposal.planned(proposal.form())
    if made is None:
        return
    words, plan = made
    answer = proposal.asked(words, plan)
    waits = answer is not None and not answer.done()
    st.fragment(offer, run_every=SECONDS_ASKING if waits else None)(words, plan, answer, waits)
    proposal.table(plan)


def offer(words: tuple[str, ...], plan: Plan, answer: Asked, waited: bool) -> None:
    """What the engine says of the plan; looked at again until it has answered."""
    versus.turn()
    versus.settle(waited, answer is not None and not answer.done())
    proposal.offer(words, plan, answer)


def page() -> None:
    with widgets.title("Compare", "Methods under one budget, on the same seeds and prompts, from one start."):
        view = versus.pick_view()
    versus.said()
    if view == "new":
        new()
        return
    live = versus.live(*versus.load())
    st.fragment(show, run_every=SECONDS if live else None)(live)


page()
