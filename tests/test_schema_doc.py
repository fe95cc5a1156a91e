"""docs/schema.md says what the code does: its tables are the Arrow schemas, and its snippets run.

python -m tests.test_schema_doc        # writes the tables of columns into the page
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from interplay.records import STREAMS, RunInfo, SketchSpec, schema
from interplay.store import RunStore, Status

PAGE = Path(__file__).parents[1] / "docs" / "schema.md"
K = 8


def kind(field: pa.Field) -> str:
    """The type of a column in words."""
    if pa.types.is_dictionary(field.type):
        word = "category"
    elif pa.types.is_fixed_size_list(field.type):
        word = f"{field.type.value_type}[k]".replace("halffloat", "float16")
    else:
        word = {"float": "float32", "double": "float64"}.get(str(field.type), str(field.type))
    return word + "?" * field.nullable


def rows(stream: str) -> list[str]:
    head = ["| column | type | what it is |", "|---|---|---|"]
    return head + [f"| `{field.name}` | {kind(field)} | {field.metadata[b'description'].decode()} |" for field in schema(stream)]


def section(stream: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {stream} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("stream", STREAMS)
def test_every_column_is_described(stream: str) -> None:
    found = section(stream).search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[2].splitlines() == rows(stream), "run `python -m tests.test_schema_doc`"


@pytest.mark.parametrize(("title", "kind"), [("run.json", RunInfo), ("status.json", Status)])
def test_every_key_is_described(title: str, kind: Any) -> None:
    text = PAGE.read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [field.name for field in dataclasses.fields(kind)]


def run_of_the_page(root: Path) -> RunStore:
    """The run that the page talks about: three parts, one of them merged, and a leftover of a killed writer."""
    info = RunInfo("rloo-chat-s0", {}, [], "2026-01-01T00:00:00+00:00", sketch=SketchSpec(k=K))
    store = RunStore.create(root / "runs" / info.run, info, flush_every=1)
    for clock in range(1, 5):
        place = {"clock": [clock] * 2, "update": [clock] * 2, "iteration": [0] * 2, "role": ["policy"] * 2}
        module = {"module": ["layers.0.q_proj", "score"], "layer": [0, None], "kind": ["q_proj", "score"], "space": ["factor"] * 2}
        store.append("directions", {**place, **module, "scale": [2.0**-20, 70_000.0], "sketch": np.full((2, K), clock)})
        store.append("metrics", {**place, "split": ["train"] * 2, "name": ["loss", "kl"], "value": [0.5, None], "seconds": [1.0] * 2})
        store.append("updates", {**place, **module, "update_norm": [3.0 * clock, 4.0 * clock]})
        if clock == 2:
            store.compact()
    store.close("interrupted")
    (store.path / "updates" / ".a1-8.77.tmp").write_bytes(b"half a part")
    return store


def test_the_snippets_run_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_of_the_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 5
    space: dict[str, Any] = {}
    exec(snippets[0], space)
    assert capsys.readouterr().out == "interrupted []\n"
    assert list(space["updates"]["update_norm"]) == [3.0, 4.0, 6.0, 8.0, 9.0, 12.0, 12.0, 16.0]
    assert space["new"].num_rows == 0
    exec(snippets[1], space)
    assert list(space["updates"]["update_norm"]) == [3.0, 4.0, 6.0, 8.0, 9.0, 12.0, 12.0, 16.0]
    assert str(space["updates"]["module"].dtype) == "category"
    exec(snippets[2], space)
    assert list(space["norms"]["norm"]) == [5.0, 10.0, 15.0, 20.0]
    exec(snippets[3], space)
    assert (space["losses"].height, space["losses"]["value"].to_list()) == (4, [0.5] * 4)
    exec(snippets[4], space)
    assert space["sketches_UK"].shape == (8, K)
    assert space["sketches_UK"][-1].tolist() == [280_000.0] * K


def test_half_precision_in_all_readers(tmp_path: Path) -> None:
    """float16 as the page says: no reader turns it into bytes or other numbers."""
    import duckdb
    import polars as pl

    store = run_of_the_page(tmp_path)
    files = str(store.path / "directions" / "*.parquet")
    expected = [[float(clock)] * K for clock in range(1, 5) for _ in range(2)]
    assert store.read("directions")["sketch"].to_pylist() == expected
    frame = pl.scan_parquet(files).collect()
    assert frame.schema["sketch"] == pl.Array(pl.Float16, K)
    assert frame["sketch"].to_list() == expected
    relation = duckdb.sql(f"select sketch from read_parquet('{files}')")
    assert [str(kind) for kind in relation.types] == ["FLOAT[]"]
    assert [row[0] for row in relation.fetchall()] == expected


def write_tables() -> None:
    """Put the current columns into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for stream in STREAMS:
        text = section(stream).sub(lambda found, name=stream: found[1] + "\n".join(rows(name)) + "\n" + found[3], text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_tables()
