"""`interplay import`: a folder of checkpoints that somebody else made becomes a run that every page can show."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

from app.commands import engine, progress
from interplay.records import Role
from interplay.store import Runs

_EXAMPLES = """
examples:
  interplay import outputs/dpo --as dpo                            checkpoint-N folders of any transformers or TRL trainer
  interplay import outputs --as both --policy dpo --reward rm      two such folders
  interplay import log_dir --as theirs                             VisZOPrO's adapters: reward_model_iter_N/reward and the like
  interplay import out --as mine --policy 'epoch_*/step_{step}/policy'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `interplay import`."""
    where = "a folder or pattern below FOLDER: {step} stands for the number, * for any part of a name"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("folder", metavar="FOLDER", help="folder that holds the checkpoints (safetensors; adapters or whole models)")
    parser.add_argument("--as", dest="name", metavar="RUN", required=True, help="name of the new run")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of runs (default runs)")
    parser.add_argument("--policy", metavar="PATTERN", help=f"where the policy's checkpoints are: {where} (default: found by their names)")
    parser.add_argument("--reward", metavar="PATTERN", help="where the reward model's checkpoints are, in the same way")
    parser.add_argument("--base", metavar="FOLDER", help="weights that the policy started from, before its first checkpoint: a folder of the same tensors")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Import and say what came of it; returns the exit code."""
    importers = engine.load("importers", "importing")
    roles: tuple[Role, ...] = ("policy", "reward")
    patterns = {role: getattr(arguments, role) for role in roles if getattr(arguments, role) is not None}
    path = Runs(arguments.runs).path(arguments.name)
    base = None if arguments.base is None else Path(arguments.base).expanduser()
    with progress.reporting() as report:
        store = importers.import_folder(Path(arguments.folder).expanduser(), path, patterns=patterns, base=base, command=_command(arguments), report=report)
    for note in store.info.notes:
        print(note)
    print(f"recorded in {store.path}\nsee it with: interplay dash --runs {shlex.quote(arguments.runs)}")
    return 0


def _command(arguments: argparse.Namespace) -> list[str]:
    """The words that import the same again."""
    given: Mapping[str, str | None] = {"--policy": arguments.policy, "--reward": arguments.reward, "--base": arguments.base}
    flags = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return ["interplay", "import", arguments.folder, "--as", arguments.name, "--runs", arguments.runs, *flags]
