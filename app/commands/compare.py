"""`interplay compare`: a plan, its rows one after another, and the table that says how the methods differ.

    interplay compare --methods rloo,dpo --seeds 3 --updates 20 --out runs/compare

The same command goes on where it was stopped, with more methods or seeds too; every setting of `interplay train` may be typed and holds for all rows.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from app.commands import comparison, engine, progress, rows
from interplay import compare
from interplay.compare import Plan
from interplay.config import RunConfig, given
from interplay.errors import EXIT_INTERRUPTED, ConfigError, StoreError, allowed, nearest

EXIT_ROW_FAILED = 1
_TOLD = {"new": "to do", "resume": "to go on with", "aside": "to do again", "running": "running", "finished": "finished"}


def run(arguments: argparse.Namespace, shared: RunConfig) -> int:
    """Returns the exit code: 0, 1 if a row failed, 130 if interrupted."""
    if arguments.table_only:
        return _table(_recorded(arguments.out))
    plan = planned(arguments, shared)
    compare.agree(plan)
    answer = engine.ask([row.config for row in plan.rows])
    _print_plan(plan)
    if arguments.plan_only:
        return 0
    with compare.alone(plan.out):
        compare.settle(plan)
        places = rows.slots(answer.gpus)
        print(f"runs on {', '.join(map(str, places))}; one row at a time on each", flush=True)
        with progress.reporting() as report:
            work = rows.Rows(plan, places, answer.weights, report)
            outcomes = work.run()
    if work.interrupted:
        return _stopped(outcomes, plan)
    _table(plan)
    return _failures(outcomes)


# --- what is typed ---------------------------------------------------------------------------------


def planned(arguments: argparse.Namespace, shared: RunConfig) -> Plan:
    """The rows of what was typed; the engine is not asked. Raises `ConfigError`."""
    if not arguments.methods:
        raise ConfigError("--methods is missing; name the methods to compare, such as --methods rloo,dpo (`interplay methods` lists them)")
    _refuse_single(shared)
    methods = compare.parse_names("--methods", arguments.methods)
    warm = None if arguments.warm == "none" or shared.start_from else arguments.warm
    known = [*dict.fromkeys(compare.parted(arm)[0] for arm in methods), *([warm, compare.WARM] if warm else [])]
    chosen = compare.parse_overrides(arguments.overrides or (), known)
    own = {name: str(value) for name, value in compare.WARM_BUDGET.items() if name not in given(arguments) and getattr(shared, name) == compare.BUDGET[name]}
    out = Path(arguments.out or f"runs/compare-{time.strftime('%Y%m%d-%H%M%S')}")
    dtype = "float32" if shared.dtype == "auto" else shared.dtype  # one base for all rows, precise enough for differences of losses
    return compare.plan(
        shared.with_(out=None, dtype=dtype),
        methods,
        compare.parse_seeds(arguments.seeds),
        out,
        overrides={**chosen, compare.WARM: {**own, **chosen.get(compare.WARM, {})}},
        controls=_controls(arguments.controls, methods),
        warm=warm,
    )


def _refuse_single(shared: RunConfig) -> None:
    """As flags they do not exist here, but a YAML file may hold them."""
    for name, many in (("method", "--methods"), ("seed", "--seeds")):
        if getattr(shared, name) != getattr(RunConfig(), name):
            raise ConfigError(f"{name} stands in --config, but a comparison has many; take it out and use {many}")


def _controls(text: str | None, methods: tuple[str, ...]) -> frozenset[str]:
    if text is None or text == "none":
        return frozenset() if text else compare.CONTROLS
    names = compare.parse_names("--controls", text)
    for name in names:
        if name not in methods:
            raise ConfigError(f"--controls names {name!r}, which is not in --methods{nearest(name, methods)}; allowed: {allowed(methods)}, or none")
    return frozenset(names)


def _recorded(out: str | None) -> Plan:
    if not out:
        raise ConfigError("--out is missing; --table-only needs the folder of a comparison")
    plan = compare.read(Path(out))
    if plan is None:
        raise StoreError(f"--out is {out!r}, which holds no {compare.PLAN}; give the folder of a comparison")
    return plan


# --- what is said ----------------------------------------------------------------------------------


def _print_plan(plan: Plan) -> None:
    common = ", ".join(f"{key} {value}" for key, value in compare.budget(plan).items() if value is not None)
    print(f"{len(plan.rows)} rows in {plan.out}; equal in all: {common}")
    for row in plan.rows:
        mark = " (control)" if row.control else ""
        print(f"{row.name}{mark}: {_TOLD[compare.standing(row)]}: {shlex.join(['interplay', *row.argv])}")


def _table(plan: Plan) -> int:
    found = comparison.load(plan)
    if found is None:
        print(f"no row of {plan.out} is finished yet; there is nothing to compare")
        return 0
    comparison.show(found)
    print(f"all numbers: {' and '.join(str(path) for path in comparison.write(found))}")
    return 0


def _stopped(outcomes: list[rows.Outcome], plan: Plan) -> int:
    done = [outcome.row.name for outcome in outcomes if outcome.state == "finished"]
    print(f"interplay: interrupted; finished rows: {', '.join(done) or 'none'}; go on with the same command and --out {plan.out}", file=sys.stderr)
    return EXIT_INTERRUPTED


def _failures(outcomes: list[rows.Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.state != "finished"]
    for outcome in failed:
        print(f"interplay: {outcome.row.name} {outcome.state}: {outcome.why or 'the warm-up did not finish'}", file=sys.stderr)
    return EXIT_ROW_FAILED if failed else 0
