"""The command line: parse, then one call. Every error a person can mend is one line and exit code 2.

    interplay train | compare | report | figure | import | runs | show | tag | methods | dash | env

Imports of the engine (torch) stay inside the commands that need it, so the viewer installs without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.commands import engine
from interplay import __version__, kept
from interplay.compare import BUDGET, Plan
from interplay.config import Parser, RunConfig, add_arguments, chosen_settings, field_name, given
from interplay.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, ConfigError, InterplayError, allowed, nearest
from interplay.reading import refuse_no_run

#: Read by C libraries when a process starts, so they cannot be set later. glibc returns every large
#: block to the system and takes it back on the next update: keeping blocks makes updates faster.
#: OpenMP threads spin briefly, then sleep: endless spinning made updates on a busy machine five to ten
#: times slower, and no spinning at all a third slower on a quiet one (2 cores).
PROCESS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "67108864",
    "GOMP_SPINCOUNT": "4000",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `interplay`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(words)
        command: Callable[[argparse.Namespace], int] = arguments.run
        return command(arguments)
    except InterplayError as error:
        print(f"interplay: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interplay: interrupted; what was recorded is kept", *getattr(interrupt, "__notes__", ())]), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(words: list[str]) -> argparse.Namespace:
    """Unknown words are reported by the command's own parser, which knows the nearest flag."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(words)
    if rest:
        arguments.parser.error("unrecognized arguments: " + " ".join(rest))
    return arguments


class _Commands(Parser):
    """Names the nearest command for a mistyped one."""

    def error(self, message: str) -> Any:
        if "invalid choice: '" in message:
            word = message.split("invalid choice: '")[1].split("'")[0]
            raise ConfigError(f"unknown command {word!r}{nearest(word, _COMMANDS)}; allowed: {allowed(_COMMANDS)}")
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Commands(
        prog="interplay", description="Train a policy against a reward model, record every optimiser step of both, and see how they move together."
    )
    parser.add_argument("--version", action="version", version=f"interplay {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, (text, add) in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        add(sub)
        sub.set_defaults(parser=sub)
    return parser


# --- train -------------------------------------------------------------------------------------------


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with the same keys as the flags; flags win")
    parser.add_argument("--resume", metavar="RUN", help="go on from the last complete iteration of this run folder")
    add_arguments(parser)
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    config = None if arguments.resume else _config(arguments)
    _restart_tuned()
    _quiet_libraries()
    loop = engine.load()
    from app.commands.progress import reporting

    with reporting() as report:
        path = loop.resume(_run_folder(arguments), report=report) if config is None else loop.train(config, report=report)
    print(f"recorded in {path}\nsee it with: interplay dash --runs {path.parent}")
    return 0


def _config(arguments: argparse.Namespace, defaults: Mapping[str, Any] = MappingProxyType({})) -> RunConfig:
    """What was typed, over the YAML file, over `defaults`."""
    typed = given(arguments)
    if not arguments.config:
        return RunConfig.from_mapping({**defaults, **_taken_over(typed)}, source="the command line")
    path = Path(arguments.config)
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise ConfigError(f"--config is {arguments.config!r}, but there is no such file{near}; give a YAML file of `key: value` lines")

    if "settings" in typed:
        typed["settings"] = chosen_settings(typed["settings"])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config is {arguments.config!r}, which cannot be read as UTF-8 text: {error}; save it as UTF-8") from error
    return RunConfig.from_yaml(text, source=str(path), fill=lambda found: {**defaults, **_taken_over(found)}, **typed)


def _taken_over(typed: dict[str, Any]) -> dict[str, Any]:
    """A run that starts from another has its task, data, model and lengths, unless others are typed."""
    start = {field_name(key): value for key, value in typed.items()}.get("start_from")
    earlier = kept.parted(str(start))[0] / "run.json"
    if start is None or not earlier.is_file():
        return typed  # the engine says what is wrong with it
    from interplay.store import RunStore

    return RunConfig.continuing(RunStore.open(earlier.parent).info.config, typed)


def _run_folder(arguments: argparse.Namespace) -> Path:
    extra = sorted(set(given(arguments)))
    if extra or arguments.config:
        raise ConfigError(f"--resume goes on with the run's own settings; leave out {', '.join('--' + n.replace('_', '-') for n in extra) or '--config'}")
    path = Path(arguments.resume)
    refuse_no_run("--resume", path)
    return path


def _restart_tuned() -> None:
    """Start this very command again with allocator and threads tuned (Linux, once)."""
    if sys.platform != "linux" or "GOMP_SPINCOUNT" in os.environ or os.environ.get("INTERPLAY_NO_REEXEC"):
        return
    os.execve(sys.executable, [sys.executable, "-m", "app.cli", *sys.argv[1:]], {**os.environ, **PROCESS})  # noqa: S606 - the same command, no shell


def _quiet_libraries() -> None:
    """No telemetry, no fork warnings, no experimental notices in front of the progress line."""
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl|peft")


# --- compare -----------------------------------------------------------------------------------------


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("plan").add_argument
    add(
        "--methods",
        metavar="A,B,C",
        help="methods to compare, each with settings of its own where wished (zopro:mode=wrong_v); the others are held against the first",
    )
    add("--seeds", metavar="N", default="3", help="how many seeds (3 means seeds 0, 1, 2), or a list such as 3,5,8 (default 3)")
    add("--out", metavar="DIR", help="folder of the comparison; default: runs/compare-TIME")
    add(
        "--for",
        dest="overrides",
        action="append",
        metavar="METHOD:KEY=VALUE",
        help="a setting of all arms of one method, or of `warm`; may be given more than once",
    )
    add("--controls", metavar="A,B", help="methods that need not keep to the common budget, or none (default extrapolate)")
    add("--warm", metavar="METHOD", default="rloo", help="method of a first iteration that all rows start from, or none (default rloo)")
    add("--plan-only", action="store_true", help="print the plan and start nothing")
    add("--table-only", action="store_true", help="print the table of what is finished in --out and start nothing")
    add("--config", metavar="FILE", help="YAML file with the same keys as the flags that all rows share; flags win")
    add_arguments(parser, leave_out=("method", "seed", "out"), defaults=BUDGET)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from app.commands import compare

    return compare.run(arguments, _config(arguments, BUDGET))


def planned(words: Sequence[str]) -> Plan:
    """The plan that `interplay compare WORDS` would carry out, without asking the engine. Raises `ConfigError`."""
    from app.commands import compare

    arguments = _parse(["compare", *words])
    return compare.planned(arguments, _config(arguments, BUDGET))


# --- looking at runs -----------------------------------------------------------------------------------


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of runs (default runs)")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_runs)


def _runs(arguments: argparse.Namespace) -> int:
    from app.commands import tables

    return tables.runs(Path(arguments.runs), as_json=arguments.json)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="a run folder, or the name of a run in --runs")
    _add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    from app.commands import tables

    return tables.show(arguments.folder, Path(arguments.runs), as_json=arguments.json)


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folders", nargs="+", metavar="RUN", help="run folders, names of runs in --runs, or the folder of a comparison; seeds of one kind count together")
    _add_root(parser)
    add("--json", action="store_true", help="print JSON")
    add("--out", metavar="DIR", help="also write report.json there, and the figures behind it as PDF")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from app.commands import reporting

    return reporting.run(arguments.folders, Path(arguments.runs), as_json=arguments.json, out=Path(arguments.out) if arguments.out else None)


def _add_figure(parser: argparse.ArgumentParser) -> None:
    from app.commands import figure

    figure.add_arguments(parser)


def _add_import(parser: argparse.ArgumentParser) -> None:
    from app.commands import importing

    importing.add_arguments(parser)


def _add_tag(parser: argparse.ArgumentParser) -> None:
    from app.commands import tagging

    tagging.add_arguments(parser)


def _add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="show one method with all its settings")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> int:
    engine.load()
    from app.commands import tables
    from interplay import methods

    found = methods.describe()
    if arguments.name:
        names = [row["name"] for row in found]
        if arguments.name not in names:
            raise ConfigError(f"method is {arguments.name!r}; allowed: {allowed(names)}{nearest(arguments.name, names)}")
        found = [row for row in found if row["name"] == arguments.name]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    return tables.methods(found, settings=bool(arguments.name))


# --- dashboard and environment -----------------------------------------------------------------------------


def _add_dash(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", metavar="DIR", action="append", help="folder of runs; may be given more than once (default: runs and data/recordings)")
    parser.add_argument("--port", type=int, metavar="N", help="port on 127.0.0.1 (default 8501, or a free one if that is taken)")
    parser.add_argument("--demo", action="store_true", help="also start a small live run on the bundled model, stopped with the dashboard")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.set_defaults(run=_dash)


def _dash(arguments: argparse.Namespace) -> int:
    from app.server import dashboard

    return dashboard.run(arguments.runs, port=arguments.port, demo=arguments.demo, open_browser=arguments.open)


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_env)


def _env(arguments: argparse.Namespace) -> int:
    from app.commands import tables

    return tables.environment(as_json=arguments.json)


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("train a policy against a reward model and record every update", _add_train),
    "compare": ("train methods x seeds under one budget and show how they differ", _add_compare),
    "runs": ("list recorded runs", _add_runs),
    "show": ("show one run: settings, held-out scores, files", _add_show),
    "tag": ("put tags and a note on runs, or print them", _add_tag),
    "report": ("answer what ZOPrO's sampling relies on, with intervals, for recorded runs", _add_report),
    "figure": ("draw a figure of recorded runs as a file, for a paper or a browser", _add_figure),
    "import": ("turn a folder of other people's checkpoints into a run", _add_import),
    "methods": ("list methods (objective x update rule) and their settings", _add_methods),
    "dash": ("open the dashboard on 127.0.0.1", _add_dash),
    "env": ("print versions and machine, for a bug report", _add_env),
}


if __name__ == "__main__":
    sys.exit(main())
