"""The words are true: README, manual, changelog and Dockerfile are read and compared with the code.

Words rot unless a test reads them. Commands are parsed, not run; examples are executed; metrics are
those of real small runs; the tree on the first page is the tree on disk.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import fnmatch
import importlib
import inspect
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import interplay
from analysis import figures, tables
from app import cli
from interplay import loop, methods, objectives, reward_model, tasks, updates
from interplay.config import RunConfig, given
from interplay.errors import DivergedError
from interplay.objectives.base import Batch, Outputs
from interplay.store import Runs, RunStore
from interplay.tasks import Prompt
from interplay.updates import Plan
from tests import fabricate, training

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "data/README.md",
    "docs/architecture.md",
    "docs/comparison.md",
    "docs/methods.md",
    "docs/metrics.md",
    "docs/performance.md",
    "docs/results.md",
    "docs/schema.md",
]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def files() -> tuple[str, ...]:
    """Every file of the project, as git would list them: what .gitignore names is left out."""
    ignored = [line.strip().rstrip("/") for line in text(".gitignore").splitlines() if line.strip() and not line.startswith("#")]
    found: list[str] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name != ".git" and not any(fnmatch.fnmatch(name, rule) for rule in ignored)]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in names if not any(fnmatch.fnmatch(name, rule) for rule in ignored)]
    return tuple(sorted(found))


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(name), re.DOTALL | re.MULTILINE)


def spans(name: str) -> list[str]:
    """Inline code, outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text(name), flags=re.DOTALL | re.MULTILINE))


def commands(name: str, word: str) -> Iterator[list[str]]:
    """The command lines of a page that begin with a word, in blocks and in inline code."""
    lines = [line for block in blocks(name, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *spans(name)):
        if line.startswith(f"{word} "):
            yield shlex.split(line, comments=True)


# --- the tree --------------------------------------------------------------------------------------


def tree() -> list[str]:
    """The paths that README's tree names; two blanks are one level."""
    paths: list[str] = []
    parents: list[str] = []
    for line in text("README.md").split("## Files\n")[1].split("```")[1].strip("\n").splitlines():
        name = line.split()[0]
        assert len(line.split()) > 1, f"{name} has no remark"
        level = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:level], name.rstrip("/")]
        paths.append("/".join(parents))
    return paths


def test_the_tree_is_the_tree() -> None:
    shown, real = tree(), files()
    assert {path for path in shown if "/" not in path} == {path.split("/")[0] for path in real}
    missing = [path for path in shown if not any(name == path or name.startswith(f"{path}/") for name in real)]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)\)", text(page)):
        if not target.startswith("https://"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_exist(page: str) -> None:
    """Names such as `analysis/figures.py` and `data/prompts/`; capitals are placeholders."""
    tops = {"analysis", "app", "benchmarks", "data", "docs", "interplay", "tests", "prompts"}
    for span in spans(page):
        if "/" in span and span.split("/")[0] in tops and re.fullmatch(r"[\w./-]+", span) and "NAME" not in span:
            assert any((place / span).exists() for place in (ROOT, ROOT / page, (ROOT / page).parent)), span


def modules() -> list[str]:
    return [name for name in files() if name.split("/")[0] in ("interplay", "analysis", "app") and name.endswith(".py") and not name.endswith("__init__.py")]


def test_the_architecture_names_every_module_and_no_other() -> None:
    named = re.findall(r"^\| `([\w/]+\.py)` \|", text("docs/architecture.md"), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == set(modules())


# --- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_make_knows_every_target(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \??:?=", text("Makefile"), re.MULTILINE))
    for _, *words in commands(page, "make"):
        assert {word for word in words if "=" not in word} <= targets
        assert {word.split("=")[0] for word in words if "=" in word} <= variables


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_parses(page: str) -> None:
    for line in commands(page, "interplay"):
        if line[1:] == ["train", "..."] or "--help" in line:
            continue
        if len(line) == 2:  # a command by its name alone
            assert line[1] in parsers()
            continue
        arguments = cli._parser().parse_args(line[1:])
        assert callable(arguments.run)
        if line[1] == "train":
            methods.resolve(RunConfig.from_mapping(given(arguments)))


def parsers() -> dict[str, argparse.ArgumentParser]:
    action = next(item for item in cli._parser()._actions if isinstance(item, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_exists(page: str) -> None:
    known = {flag for parser in (cli._parser(), *parsers().values()) for action in parser._actions for flag in action.option_strings}
    for span in spans(page):
        if span.split()[0] not in ("docker", "pip", "git"):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) <= known, span


def test_the_readme_names_every_command() -> None:
    remark = next(line for line in text("README.md").splitlines() if line.startswith("  cli.py"))
    assert set(re.findall(r"\b[a-z]+\b", remark.split("interplay ")[1])) == set(parsers())


def test_the_table_of_pairs_has_every_objective_and_every_rule() -> None:
    rows = [line for line in text("docs/methods.md").splitlines() if line.startswith("|")]
    heads, pairs = rows[0], rows[2 : 2 + len(objectives.names())]
    assert set(re.findall(r"`(\w+)`", heads)) == set(updates.names())
    assert {row.split("`")[1] for row in pairs} == set(objectives.names())
    assert all(row.count("|") == heads.count("|") for row in pairs)
    for name in updates.names():
        rate = updates.find(name).rate
        line = next(row for row in rows if f"`{name}`" in row.split("|")[1] and row.count("|") == 4)
        assert float(line.split("|")[3]) == rate, name


def test_the_tables_of_methods_and_tasks_are_complete() -> None:
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text("README.md").splitlines() if line.startswith("| `")]
    listed = {row[0]: row[1:] for row in rows}
    for name, (objective, rule) in methods.NAMED.items():
        found = objectives.find(objective)
        paper = found.paper if rule == "first_order" else updates.find(rule).paper
        assert listed.pop(name) == [objective, rule, found.data, "yes" if found.critic_loss else "no", paper]
    for name in tasks.names():
        task = tasks.find(name)
        assert listed.pop(name)[:2] == [task.description, str(len(text(f"data/prompts/{task.prompts_file}").splitlines()))]
    assert not listed


# --- examples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_compile(page: str) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def example(word: str) -> dict[str, Any]:
    """What the CONTRIBUTING example that contains a word defines."""
    block = next(block for block in blocks("CONTRIBUTING.md", "python") if word in block)
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(block, "CONTRIBUTING.md", "exec"), space)
    return space


def batch() -> tuple[Batch, Outputs]:
    """Two prompts with two completions each, of random numbers."""
    generator = torch.Generator().manual_seed(0)
    new, old, reference, values = (torch.randn(4, 5, generator=generator) for _ in range(4))
    mask_BT = torch.ones(4, 5, dtype=torch.bool)
    group_B = torch.tensor([0, 0, 1, 1])
    made = Batch(mask_BT, group_B, torch.tensor([1.0, 0.0, 0.5, 0.25]), reference, old, values)
    return made, Outputs(new.requires_grad_(), new.detach().abs())


def test_the_example_of_an_objective() -> None:
    objective = example("OBJECTIVE = ")["OBJECTIVE"]
    given_batch, outputs = batch()
    settings = objective.settings()
    value, metrics = objective.loss(outputs, given_batch, objective.targets(given_batch, settings), settings)
    value.backward()
    advantages_B = given_batch.scores_B - given_batch.scores_B.mean()
    assert outputs.logprobs_BT.grad is not None
    torch.testing.assert_close(outputs.logprobs_BT.grad, (-advantages_B / 4)[:, None].expand(4, 5))
    assert set(metrics) == {"logprob"}


def test_the_example_of_an_update_rule() -> None:
    rule = example("RULE = ")["RULE"]
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    stepper = rule.build([weight], Plan(0.1, 2, RunConfig()), rule.settings())
    assert isinstance(stepper.optimizer, torch.optim.Optimizer)
    for _ in range(2):  # w^2 has gradient 2 w: steps 0.4, then 0.1 * (0.9 * 4 + 3.2)
        stepper.step(lambda: ((weight**2).sum(), {}))
    assert weight.item() == pytest.approx(2.0 - 0.4 - 0.68)
    with pytest.raises(DivergedError, match="--learning-rate"):
        stepper.step(lambda: ((weight * torch.inf).sum(), {}))


def test_the_example_of_a_task() -> None:
    task = example("TASK = ")["TASK"]
    prompt = Prompt("x", "Why is the sky blue?", task.messages("Why is the sky blue?"))
    assert (ROOT / "data" / "prompts" / task.prompts_file).is_file()
    assert task.gold(prompt, "Air scatters blue light more.") == 1.0
    assert task.gold(prompt, "") == 0.0
    assert task.gold(prompt, "one two three four five " * 5) == 0.0


def test_the_example_of_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", dict(figures.FIGURES))
    monkeypatch.setattr(figures, "NOTES", dict(figures.NOTES))
    monkeypatch.setattr(figures, "SCORES", dict(figures.SCORES))
    block = next(block for block in blocks("CONTRIBUTING.md", "python") if "@figure" in block)
    space = dict(vars(figures))
    exec(compile(block, "CONTRIBUTING.md", "exec"), space)
    run = fabricate.Fabricated(tmp_path / "run", layers=1, k=8, updates_each=2)
    run.whole()
    spec = space["entropy_curve"](RunStore.open(run.path).read("metrics").to_pandas(), run="run")
    assert not spec.empty
    assert spec.y.text == "entropy (nats)"


def test_the_readme_reads_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate.Fabricated(tmp_path / "runs" / "first", layers=1, k=8, updates_each=2).whole()
    monkeypatch.chdir(tmp_path)
    ran = [block for block in blocks("README.md", "python") if "runs/first" in block]
    for block in ran:
        exec(compile(block, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert len(ran) == 2
    assert "iteration" in shown
    assert "persistence" in shown


# --- metrics ---------------------------------------------------------------------------------------

Key = tuple[str, str, str]  # role, split, name


def described() -> set[Key]:
    """What the tables of docs/metrics.md name."""
    found: list[Key] = []
    for role, split, table in re.findall(r"<!-- metrics (\w+) (\w+) -->\n(.*?)<!-- end -->", text("docs/metrics.md"), re.DOTALL):
        firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        found += [(role, split, name) for cell in firsts for name in re.findall(r"`([^`]+)`", cell)]
    assert len(found) == len(set(found))
    return set(found)


def recorded(run: Path) -> set[Key]:
    frame = training.frame(run, "metrics")
    return set(frame[["role", "split", "name"]].itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> set[Key]:
    """Everything that one small run of each method writes."""
    root = tmp_path_factory.mktemp("words")
    model, prompts = training.save_model(root / "model"), training.write_prompts(root / "prompts.jsonl")
    found: set[Key] = set()
    for name in methods.NAMED:
        settings = {"measure": 1} if updates.find(methods.NAMED[name][1]).differences else {}
        config = training.small(model, prompts, root / name, method=name, iterations=2, updates=2, completions=4, pairs=8, settings=settings)
        found |= recorded(loop.train(config))
    return found


def test_every_metric_is_described_and_no_other(small_runs: set[Key]) -> None:
    assert described() == small_runs


def test_every_metric_of_every_part_is_described() -> None:
    """The parts alone, with random tensors: also what the named methods may not reach."""
    names = {name for _, _, name in described()}
    given_batch, outputs = batch()
    for name in objectives.names():
        objective = objectives.find(name)
        settings = objective.settings()
        targets = objective.targets(given_batch, settings)
        assert set(objective.loss(outputs, given_batch, targets, settings)[1]) <= names
        if objective.critic_loss is not None and given_batch.values_BT is not None:
            assert set(objective.critic_loss(given_batch.values_BT, given_batch, targets, settings)[1]) <= names
    for name in set(updates.names()) - {"mezo", "forward_gradient"}:  # these ask for more than a loss from their first update on
        rule, weight = updates.find(name), torch.nn.Parameter(torch.ones(3))
        stepper = rule.build([weight], Plan(1e-3, 4, RunConfig()), rule.settings())
        assert set(stepper.step(lambda weight=weight: ((weight**2).sum(), {}))) <= names
    assert set(tables.HELDOUT) <= {name for _, split, name in described() if split == "heldout"}


def test_the_names_of_the_reward_trainer() -> None:
    from trl import RewardTrainer

    written = {*re.findall(r'_metrics\[mode\]\["(\w+)"\]', inspect.getsource(RewardTrainer)), "loss", "grad_norm", "learning_rate", "epoch"}
    kept: dict[str, float] = {}
    reward_model._Listener(lambda optimizer: None, kept.update).on_log(None, None, None, logs=dict.fromkeys(written, 0.5))
    assert set(kept) == {name for role, _, name in described() if role == "reward" and not name.startswith("judge/")}


def test_every_recorded_metric_is_described() -> None:
    runs = [run for run in Runs(ROOT / "data" / "recordings").list() if run.state != "unreadable"]
    ours = [run.path for run in runs if RunStore.open(run.path).info.command[:2] == ["interplay", "train"]]
    if not ours:
        pytest.skip("data/recordings holds no run of `interplay train` yet")
    for path in ours:
        assert recorded(path) <= described(), path.name


def test_every_column_of_updates_is_explained() -> None:
    from interplay.records import UPDATES

    numbers = {field.name for field in UPDATES if str(field.type) == "float"}
    part = text("docs/metrics.md").split("## Geometry of updates")[1].split("### Imported runs")[0]
    assert set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in part.splitlines() if line.startswith("| `")))) == numbers


#: Functions that put numbers together for others and are no metric themselves.
HELPERS = {
    *("recorded", "composed_rows", "ratio", "cosine", "known", "products", "squares", "total_norms", "composed", "gram", "lengths", "cosine_matrix"),
    *("lag_means", "sketched_displacement_cosines", "sketched_straightness", "effective_dimensions", "summed", "steps", "pairs", "lags", "matched"),
    *("matched_deltas", "other_iteration_cosines", "sketch_errors", "paired_cosines", "norm_series", "full_null_sd", "adapter_null_sd", "null_band"),
    *("effective_number", "two_sided_p", "calibration", "block_bootstrap", "autocorrelation", "highest_correlation", "block_length", "coverage"),
    *("coverage_by_estimate", "expected_coverage", "lag_cosines", "in_brackets"),
}


def test_every_metric_of_the_analysis_is_explained() -> None:
    from analysis import coupling, geometry, nulls, shapes, uncertainty
    from analysis.quality import Quality

    public = {
        name
        for module in (geometry, coupling, shapes, nulls, uncertainty)
        for name, item in vars(module).items()
        if inspect.isfunction(item) and item.__module__ == module.__name__ and not name.startswith("_")
    }
    part = text("docs/metrics.md").split("## What the analysis computes")[1]
    explained = set(re.findall(r"`(\w+)`", part))
    assert public - HELPERS <= explained
    assert public >= HELPERS
    assert {"trustworthiness", "continuity", "rank_correlation", "stability"} <= explained & {field.name for field in dataclasses.fields(Quality)}


def test_the_limits_of_the_alarm_are_those_of_the_code() -> None:
    from interplay import evaluation

    part = text("docs/metrics.md").split("The alarm (")[1].split("## Gold")[0]
    limits = [float(number) for number in re.findall(r"^\| .*?(?:below|above|more than) (\d\.\d+)", part, re.MULTILINE)]
    assert limits == [evaluation.FEW_WORDS, evaluation.ONE_WORD, evaluation.SAME_TEXT, evaluation.LOW_ENTROPY]


# --- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "found"), [("objectives", objectives), ("updates", updates)])
def test_every_formula_has_its_source(package: str, found: Any) -> None:
    for name in found.names():
        number = found.find(name).paper.split(":", 1)[1]
        assert number in (importlib.import_module(f"interplay.{package}.{name}").__doc__ or ""), name


def installed(source: str) -> list[tuple[str, frozenset[str]]]:
    """What each pip line installs: name or `.`, and its extras; the constraint file must be the tested one."""
    text_of = source.replace("$(TORCH)", next(iter(re.findall(r"^TORCH := (\S+)", text("Makefile"), re.MULTILINE))))
    found = []
    for line in re.findall(r"pip install (.*)", text_of):
        words = [word.strip('"') for word in line.split()]
        if "--constraint" in words:
            assert words[words.index("--constraint") + 1] == "constraints.txt"
        (name,) = [word for word in words if not word.startswith("-") and word != "constraints.txt"]
        base, _, extras = name.rstrip("]").partition("[")
        found.append((base, frozenset(filter(None, extras.split(",")))))
    return found


def test_the_image_installs_what_make_installs() -> None:
    made = installed(text("Makefile"))
    for name, extras in installed(text("Dockerfile")):
        assert any(name == other and extras <= more for other, more in made), name


def test_the_image_copies_what_is_there() -> None:
    for line in re.findall(r"^COPY (.*)", text("Dockerfile"), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_the_image_builds_what_the_readme_says() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", text("Dockerfile"), re.MULTILINE))
    assert set(re.findall(r"--target (\w+)", text("README.md"))) == targets


def test_one_version() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert {interplay.__version__, project["version"], str(yaml.safe_load(text("CITATION.cff"))["version"])} == {interplay.__version__}
    assert f"## [{interplay.__version__}] - " in text("CHANGELOG.md")


def readable() -> Iterator[tuple[str, str]]:
    for name in files():
        if Path(name).suffix not in (".png", ".parquet", ".safetensors", ".gguf", ".zip", ".pdf"):
            yield name, text(name)


def test_no_path_of_a_machine_and_nothing_left_to_do() -> None:
    """Patterns are put together here, so that this file does not find itself."""
    places = re.compile(r"(?<![\w.:/$}*])/(?:" + "|".join(("work", "root", "Users")) + r")\b|(?<![\w.:/$}*])/home/\w")
    unfinished = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
    found = [f"{name}: {line.strip()[:100]}" for name, words in readable() for line in words.splitlines() if places.search(line) or unfinished.search(line)]
    assert not found, "\n".join(found)
