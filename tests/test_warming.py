"""What a server does before its first visitor: everything that pages import is there, and a fault leaves the pages to tell it."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from app.entry import warming

#: Prints the packages that a page still has to load when the server is warm. Export alone needs matplotlib, which the other pages should not wait for.
LEFT = """
import ast, importlib, sys
from pathlib import Path
from app.entry import warming

warming.warm()
known = set(sys.modules)
for page in set(Path("app/pages").glob("*.py")) - {Path("app/pages/export.py")}:
    for node in ast.walk(ast.parse(page.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError:
                    pass
own = {"app", "analysis", "interplay", *sys.stdlib_module_names}
print(sorted({name.partition(".")[0] for name in set(sys.modules) - known} - own))
"""


def test_no_page_waits_for_a_library() -> None:
    found = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=True).stdout
    assert found.split("\n")[0] == "[]"


#: Prints which of the slow packages are there when the first page may be drawn, and which of them a figure of paths still has to load a moment later.
SLOW = """
import sys
from app.entry import warming

slow = ("sklearn", "scipy.stats", "scipy.signal", "scipy.spatial", "scipy.optimize", "matplotlib", "torch", "numba")
warming.warm()
print([name for name in slow if name in sys.modules])
warming.later()
known = set(sys.modules)
import numpy as np
from analysis import embedding, projection, quality, shapes

walk = np.cumsum(np.random.default_rng(0).standard_normal((60, 8)), axis=0)
projection.pca([walk])
embedding.project("tsne", [walk], 2, 0)
shapes.procrustes(walk, walk)
print(sum(name.startswith(("scipy.", "sklearn.")) for name in set(sys.modules) - known))
"""


def test_the_first_chart_waits_for_no_library_of_statistics_and_the_next_find_it_there() -> None:
    found = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True).stdout
    there, loaded = found.split("\n")[:2]
    assert there == "[]"
    assert int(loaded) <= 5, "of more than a thousand"


def test_a_library_that_is_missing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "LIBRARIES", ("no.such.library",))
    with pytest.raises(ModuleNotFoundError):
        warming.warm()
    warming._READY.clear()
    warming._try()
    assert warming._READY.is_set(), "or every visitor would wait for ever"


#: Prints whether garbage is searched for again after the server is warm, how much is left out of the search, and how long a thread keeps others waiting.
GARBAGE = """
import gc, sys
from app.entry import warming

warming.begin().join()
print(gc.isenabled(), gc.get_freeze_count() > 100_000, sys.getswitchinterval() == warming.TURN)
"""


def test_modules_are_not_searched_for_garbage_and_threads_take_short_turns() -> None:
    found = subprocess.run([sys.executable, "-c", GARBAGE], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["True", "True", "True"]


def test_a_fault_leaves_the_search_for_garbage_on() -> None:
    with pytest.raises(RuntimeError), warming._kept_for_good():
        raise RuntimeError
    assert gc.isenabled()
