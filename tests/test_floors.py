"""The viewer never needs torch: read in the imports, and proved where torch cannot be imported at all."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ENGINE = {"torch", "transformers", "trl", "peft", "accelerate", "datasets"}


def _imports(path: Path) -> set[str]:
    """Top names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{item.name}" for item in node.names}
    return names


def _files(folder: str) -> list[Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


def _tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", _files("analysis"), ids=lambda path: path.name)
def test_analysis_never_imports_the_engine_or_the_dashboard(path: Path) -> None:
    assert not _tops(_imports(path)) & (ENGINE | {"streamlit", "app", "time", "random"})


@pytest.mark.parametrize("path", [path for path in _files("analysis") if path.name != "screen.py"], ids=lambda path: path.name)
def test_only_the_screen_knows_plotly(path: Path) -> None:
    assert "plotly" not in _tops(_imports(path))


@pytest.mark.parametrize("path", _files("app/pages"), ids=lambda path: path.name)
def test_pages_choose_load_call_and_show(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not _tops(_imports(path)) & (ENGINE | {"plotly", "numpy", "pandas", "pyarrow"})
    assert not any(isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr | ast.Mod) for node in ast.walk(tree)), "arithmetic belongs to analysis"
    assert not any(isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open" for node in ast.walk(tree))


@pytest.mark.parametrize("path", _files("app"), ids=lambda path: str(path.relative_to(PROJECT)))
def test_hostile_text_has_no_way_in_as_html(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword):
            assert node.arg not in ("unsafe_allow_html", "unsafe_allow_javascript", "use_container_width", "shell")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in ("html", "iframe")


def test_the_store_and_the_vocabulary_never_import_the_engine() -> None:
    for name in ("records", "config", "errors", "store", "compare"):
        assert not _tops(_imports(PROJECT / "interplay" / f"{name}.py")) & ENGINE


_OPEN_EVERY_PAGE = """
    import importlib.util, os, sys
    from pathlib import Path

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {engine!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    if {refuse}:
        sys.meta_path.insert(0, Refuse())
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in {engine!r} else found(name, package)
    sys.path.append({project!r})  # for tests.fabricate; an installed Interplay comes first
    from tests.fabricate import Fabricated
    import app
    root = Path({root!r})
    Fabricated(root / "done", layers=2, k=16, updates_each=3).whole()
    os.environ["INTERPLAY_RUNS"] = str(root)
    from streamlit.testing.v1 import AppTest
    start = AppTest.from_file(str(Path(app.__file__).with_name("main.py")), default_timeout=120).run()
    assert not start.exception, start.exception
    for page in ("runs", "replay", "interplay", "compare", "export", "train"):
        shown = start.switch_page(f"pages/{{page}}.py").run()
        assert not shown.exception, (page, [error.message for error in shown.exception])
    assert any("engine is not installed" in info.value for info in shown.info)
    assert next(button for button in shown.button if button.label == "Start").disabled
    assert not set({engine!r}) & set(sys.modules), sorted(set({engine!r}) & set(sys.modules))
    print("opened from", Path(app.__file__).parent)
"""


def _open_every_page(python: Path | str, root: Path, *, refuse: bool) -> str:
    code = textwrap.dedent(_OPEN_EVERY_PAGE).format(engine=ENGINE, refuse=refuse, root=str(root), project=str(PROJECT))
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=300, cwd=root.parent, env={**os.environ, "PYTHONPATH": ""})
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


@pytest.mark.slow
def test_every_page_opens_where_the_engine_cannot_be_imported(tmp_path: Path) -> None:
    assert "opened from" in _open_every_page(sys.executable, tmp_path / "runs", refuse=True)


@pytest.mark.slow
def test_viewer_without_torch(tmp_path: Path) -> None:
    """An environment of its own, `pip install .` and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    _install(python)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, cwd=tmp_path).returncode != 0
    where = _open_every_page(python, tmp_path / "runs", refuse=False)
    assert str(tmp_path) in where, "it must be the installed one, not the checkout"


def _install(python: Path) -> None:
    """`pip install .`; a package index that cannot be reached is no fault of ours."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    reach = subprocess.run([*pip, "download", "--no-deps", "--quiet", "--dest", str(python.parent), "iniconfig"], capture_output=True, text=True, timeout=120)
    if reach.returncode != 0:
        pytest.skip(f"pip cannot reach the package index: {reach.stderr.strip().splitlines()[-1][:200]}")
    copy = python.parents[2] / "project"  # building in the checkout would leave its traces there
    for name in ("interplay", "analysis", "app"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    done = subprocess.run([*pip, "install", "--quiet", str(copy)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
