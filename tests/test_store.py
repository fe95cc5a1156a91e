"""The store keeps what it was given, refuses what it cannot keep, and survives files that others spoilt.

Not here: killing the writer (test_store_kill.py) and the words about the format (test_schema_doc.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import multiprocessing
import os
import random
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from interplay import disk, parquet, reading
from interplay import store as store_module
from interplay.errors import Interrupted, StoreError
from interplay.records import SCHEMA_VERSION, STREAMS, RunInfo, SketchSpec, schema
from interplay.store import Cursor, Runs, RunStore, slug

K = 4


def info(name: str = "run", **changes: Any) -> RunInfo:
    raw = {"config": {"method": "rloo", "task": "chat", "seed": 3}, "command": ["interplay", "train"], "created": "2026-01-01T00:00:00+00:00"}
    return RunInfo(run=name, sketch=SketchSpec(k=K), **{**raw, **changes})


def place(clocks: list[int]) -> dict[str, Any]:
    n = len(clocks)
    return {"clock": clocks, "update": clocks, "iteration": [0] * n, "role": ["policy"] * n}


def updates(*clocks: int) -> dict[str, Any]:
    n = len(clocks)
    words = {"module": ["layers.0.q_proj"] * n, "layer": [0] * n, "kind": ["q_proj"] * n, "space": ["factor"] * n}
    return {**place(list(clocks)), **words, "update_norm": [float(clock) for clock in clocks]}


def metrics(*clocks: int) -> dict[str, Any]:
    n = len(clocks)
    return {**place(list(clocks)), "split": ["train"] * n, "name": ["loss"] * n, "value": [0.5] * n, "seconds": [1.0] * n}


def clocks(store: RunStore) -> list[int]:
    return store.read("updates", columns=["clock"])["clock"].to_pylist()


@contextlib.contextmanager
def one_line_or_nothing(words: str = "") -> Iterator[None]:
    """The block may fail, but only with one line that says these words."""
    try:
        yield
    except StoreError as error:
        text = str(error)
        if words not in text or "\n" in text:
            raise AssertionError(text) from error


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the platter: these tests kill no machine."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


# --- round trip ----------------------------------------------------------------------------------


def test_all_streams_come_back_as_they_were(path: Path) -> None:
    store = RunStore.create(path, info())
    sketch_UK = np.arange(2 * K, dtype=np.float16).reshape(2, K)
    rows = {**updates(1, 2), "scale": [0.5, 2.0], "sketch": sketch_UK}
    del rows["update_norm"]
    texts = {"split": ["heldout"], "prompt_id": ["p"], "prompt": ["Hi?"], "completion": ["日本 \x00"], "tokens": [2], "finished": [True]}
    store.append("updates", {**updates(1, 2), "layer": [None, 1], "cos_previous": np.array([np.nan, 0.25])})
    store.append("directions", rows)
    store.append("metrics", metrics(1, 2))
    store.append("completions", {**place([2]), **texts, "gold": [1.0]})
    store.close("finished")
    seen = RunStore.open(path)
    for stream in STREAMS:
        table = seen.read(stream)
        assert table.schema.equals(schema(stream, K), check_metadata=True)
        table.validate(full=True)
    assert seen.read("directions")["sketch"].to_pylist() == sketch_UK.tolist()
    assert seen.read("updates")["layer"].to_pylist() == [None, 1]
    assert np.isnan(seen.read("updates")["cos_previous"][0].as_py())
    assert seen.read("updates")["other_role"].to_pylist() == [None, None]
    assert seen.read("completions")["completion"].to_pylist() == ["日本 \x00"]
    assert seen.info == store.info
    assert seen.status().state == "finished"
    assert seen.problems() == []


def test_run_info_round_trip_through_json_and_update_info(path: Path) -> None:
    store = RunStore.create(path, info(versions={"torch": "2.11"}, notes=["a"]))
    store.update_info(model={"name": "m", "parameters": np.int64(5)}, notes=["b"])
    assert RunStore.open(path).info == dataclasses.replace(store.info, model={"name": "m", "parameters": 5})
    with pytest.raises(StoreError, match="did you mean 'notes'"):
        store.update_info(note=["c"])
    store.append("updates", updates(1))
    with pytest.raises(StoreError, match="sketch cannot change"):
        store.update_info(sketch=SketchSpec(k=8))
    store.close("finished")


def test_columns_and_filter(path: Path) -> None:
    store = RunStore.create(path, info(), flush_every=1)
    for clock in range(1, 8):
        store.append("updates", updates(clock))
    assert store.read("updates", ["clock", "role"]).column_names == ["clock", "role"]
    assert store.read("updates", ["update_norm"], pc.field("clock") > 5)["update_norm"].to_pylist() == [6.0, 7.0]
    assert store.read("directions").num_rows == 0
    with pytest.raises(StoreError, match="which updates does not have"):
        store.read("updates", ["klock"])
    with pytest.raises(StoreError, match="cannot be read as asked"):
        store.read("updates", filter=pc.field("nothing") > 1)
    with pytest.raises(StoreError, match="did you mean 'updates'"):
        store.read("update")  # type: ignore[arg-type]
    assert store.problems() == []  # a wrong question condemns no part


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**updates(1), "update_nrm": [1.0]}, "did you mean 'update_norm'"),
        ({key: value for key, value in updates(1).items() if key != "module"}, "'module' of updates is missing"),
        ({**updates(1), "role": [None]}, "'role' of updates holds 1 nulls"),
        ({**updates(1, 2), "layer": [0]}, "different lengths"),
        ({**updates(1), "clock": ["one"]}, "'clock' of updates must be int64"),
        ({**updates(1), "iteration": [70_000]}, "'iteration' of updates must be int16"),
    ],
)
def test_rows_that_do_not_fit_are_refused(path: Path, columns: dict[str, Any], message: str) -> None:
    store = RunStore.create(path, info())
    with pytest.raises(StoreError, match=message):
        store.append("updates", columns)
    store.flush()
    assert store.read("updates").num_rows == 0


def test_sketch_of_the_wrong_size_is_refused(path: Path) -> None:
    store = RunStore.create(path, info())
    rows = {key: value for key, value in updates(1).items() if key != "update_norm"}
    with pytest.raises(StoreError, match="'sketch' of directions must be"):
        store.append("directions", {**rows, "scale": [1.0], "sketch": np.zeros((1, K + 1))})


def test_a_run_without_sketches(path: Path) -> None:
    store = RunStore.create(path, dataclasses.replace(info(), sketch=SketchSpec(k=0)))
    store.append("updates", updates(1))
    store.close("finished")
    assert RunStore.open(path).read("directions").num_rows == 0


# --- flushing and status -------------------------------------------------------------------------


def test_flushes_by_count_and_by_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store = RunStore.create(path, info(), flush_every=3, flush_seconds=5.0)
    for clock in (1, 2):
        store.append("updates", updates(clock))
        store.append("metrics", metrics(clock))
    assert clocks(store) == []
    store.append("updates", updates(3))
    assert clocks(store) == [1, 2, 3]
    assert store.read("metrics").num_rows == 2
    store.append("updates", updates(4))
    now[0] += 4.9
    store.tick()
    assert clocks(store) == [1, 2, 3]
    now[0] += 0.2
    store.tick()
    assert clocks(store) == [1, 2, 3, 4]


def test_status_and_heartbeat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore.create(path, info())
    first = store.status()
    assert (first.state, first.pid, first.host) == ("running", os.getpid(), socket.gethostname())
    store.set_status(progress={"share": np.float32(0.5)}, message="judging")
    assert store.status().progress == {"share": 0.5}
    real = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real + 2.0)
    monkeypatch.setattr(time, "time", lambda: first.heartbeat + 2.0)
    store.tick()
    assert store.status().heartbeat == first.heartbeat + 2.0
    with pytest.raises(StoreError, match="state is 'done'"):
        store.set_status(state="done")  # type: ignore[arg-type]
    store.close("failed", error="out of memory")
    store.close("finished")
    ended = store.status()
    assert (ended.state, ended.error, ended.message) == ("failed", "out of memory", "judging")
    assert ended.ended is not None
    with pytest.raises(StoreError, match="open for reading only"):
        store.append("updates", updates(1))


def test_resuming_keeps_the_state_until_it_is_set(path: Path) -> None:
    RunStore.create(path, info()).close("failed", error="x")
    store = RunStore.open(path, write=True)
    assert store.status().state == "failed"
    store.set_status(state="running")
    assert (store.status().error, store.status().ended) == (None, None)
    store.close("interrupted")


def test_close_leaves_one_part_and_an_interrupted_run_its_parts(path: Path) -> None:
    for state, parts in (("finished", 1), ("interrupted", 3)):
        store = RunStore.create(path / state, info(), flush_every=1)
        for clock in range(3):
            store.append("updates", updates(clock))
        store.close(state)  # type: ignore[arg-type]
        assert len(list((path / state / "updates").iterdir())) == parts
        assert clocks(store) == [0, 1, 2]


def test_a_signal_during_a_flush_waits_for_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from interplay import interrupts

    store = RunStore.create(path, info())
    store.append("updates", updates(1))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *a, **k: (os.kill(os.getpid(), signal.SIGTERM), real(*a, **k))[1])
    with pytest.raises(Interrupted), interrupts.raising():
        store.flush()
    monkeypatch.undo()
    assert clocks(store) == [1]
    store.close("interrupted")
    assert clocks(store) == [1]


def test_merges_at_the_limit_and_row_order_stays(path: Path) -> None:
    store = RunStore.create(path, info(), flush_every=1, merge_at=10)
    for clock in range(1, 96):
        store.append("updates", updates(clock, clock))
        assert len(list((path / "updates").iterdir())) < 10
    assert clocks(store) == [clock for clock in range(1, 96) for _ in range(2)]
    store.compact()
    assert len(list((path / "updates").iterdir())) == 1
    assert clocks(store) == [clock for clock in range(1, 96) for _ in range(2)]


# --- creating and opening ------------------------------------------------------------------------


def test_a_taken_folder_is_refused_and_untouched(path: Path) -> None:
    RunStore.create(path, info()).close("finished")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"}
    with pytest.raises(StoreError, match=r"a run named run exists already in .*choose another --out, or --resume it"):
        RunStore.create(path, info())
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "writer.lock"} == before


def test_places_where_no_run_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for out, message in (("file", "file is a file"), ("file/run", "file is a file"), ("link", "symbolic link"), ("a\0b", "no file name")):
        with pytest.raises(StoreError, match=message) as caught:
            RunStore.create(tmp_path / out, info())
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="check the folder's owner, permissions"):
        RunStore.create(tmp_path / "run", info())


@pytest.mark.parametrize("there_before", [False, True])
def test_a_failed_create_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool) -> None:
    if there_before:
        path.mkdir()
    for call in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            count = full_disk(patch, call)
            with one_line_or_nothing("the disk is full"):
                RunStore.create(path, info()).close("finished")
            if not count.fired:
                break
        assert path.exists() == there_before or "run.json" in os.listdir(path)
        if (path / "run.json").exists():
            break  # made; the fault came after
        assert not there_before or os.listdir(path) == []
    assert call >= 2


def test_what_is_no_run_cannot_be_opened(path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        RunStore.open(path)
    path.mkdir()
    for text in ("", "[]", "{", '{"run": "a"}', "\0", '{"run": 1, "config": {}, "command": [], "created": ""}', "[" * 100_000):
        (path / "run.json").write_text(text)
        with pytest.raises(StoreError):
            RunStore.open(path)
    (path / "run.json").unlink()
    (path / "run.json").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="symbolic link"):
        RunStore.open(path)


def test_a_newer_run_can_be_read_but_not_written(path: Path) -> None:
    RunStore.create(path, info()).close("finished")
    raw = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**raw, "schema_version": SCHEMA_VERSION + 1, "novelty": 1}))
    store = RunStore.open(path)
    assert store.read("updates").num_rows == 0
    assert "newer Interplay" in store.problems()[0]
    assert "newer Interplay" in Runs(path.parent).list()[0].problems[0]
    with pytest.raises(StoreError, match="newer Interplay"):
        RunStore.open(path, write=True)


def test_a_column_that_an_older_or_newer_file_has_otherwise(tmp_path: Path) -> None:
    whole = schema("metrics")
    rows = {"clock": [1], "update": [1], "iteration": [0], "role": ["policy"], "split": ["train"], "name": ["loss"], "value": [0.5], "seconds": [2.0]}
    table = parquet.as_table("metrics", whole, rows)
    for name, changed in (
        ("older", table.drop_columns(["value"])),
        ("newer", table.append_column("novel", [[7]])),
        ("broken", table.drop_columns(["seconds"])),
    ):
        pq.write_table(changed, tmp_path / name)
    (older,), (newer,) = (list(parquet.pieces(tmp_path / name, whole)) for name in ("older", "newer"))
    assert (older.schema, older["value"].to_pylist(), older["seconds"].to_pylist()) == (whole, [None], [2.0])
    assert newer == table
    with pytest.raises(StoreError, match="no column seconds"):
        list(parquet.pieces(tmp_path / "broken", whole))


def _race(path: Path, start: Any, results: Any) -> None:
    start.wait()
    try:
        RunStore.open(path, write=True)
        results.put("holds")
        start.wait()  # keep it until all have tried
    except StoreError as error:
        results.put(str(error))
        start.wait()


def test_one_of_eight_processes_becomes_the_writer(path: Path) -> None:
    RunStore.create(path, info()).close("interrupted")
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        start, results = context.Barrier(8), context.Queue()
        racers = [context.Process(target=_race, args=(path, start, results)) for _ in range(8)]
        for racer in racers:
            racer.start()
        answers = [results.get(timeout=30) for _ in racers]
        for racer in racers:
            racer.join(30)
        assert answers.count("holds") == 1
        assert all(f"on host {socket.gethostname()}" in answer for answer in answers if answer != "holds")


def test_two_creators_of_one_folder(path: Path) -> None:
    first = RunStore.create(path, info())
    with pytest.raises(StoreError, match="exists already"):
        RunStore.create(path, info())
    with pytest.raises(StoreError, match=f"process {os.getpid()} on host"):
        RunStore.open(path, write=True)
    first.append("updates", updates(1))
    first.close("finished")
    RunStore.open(path, write=True).close("finished")


# --- a full disk ---------------------------------------------------------------------------------


class Fault:
    """Fails the n-th write call, and all after it while `lasting`."""

    def __init__(self, at: int, lasting: bool) -> None:
        self.at, self.lasting, self.calls, self.fired = at, lasting, 0, False

    def wrap(self, real: Callable[..., Any], is_write: Callable[..., bool] = lambda *a: True) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            if is_write(*args):
                self.calls += 1
                if self.calls == self.at + 1 or (self.lasting and self.calls > self.at):
                    self.fired = True
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **keys)

        return call


def full_disk(patch: pytest.MonkeyPatch, at: int, *, lasting: bool = False) -> Fault:
    """From the `at`-th write call on (open for writing, write, fsync, rename) the disk is full."""
    fault = Fault(at, lasting)
    opens = fault.wrap(open, lambda _file, mode="r", *_a: "w" in str(mode))

    def opened(file: Any, mode: str = "r", *args: Any, **keys: Any) -> Any:
        found = opens(file, mode, *args, **keys)
        return Guarded(found, fault) if mode == "wb" else found

    patch.setattr(disk, "open", opened, raising=False)
    patch.setattr("interplay.parquet.open", opened, raising=False)
    patch.setattr(os, "replace", fault.wrap(os.replace))
    patch.setattr(os, "fsync", fault.wrap(os.fsync))
    return fault


class Guarded:
    """A binary file whose first write and whose flush count."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self._file, self.flush, writes = file, fault.wrap(file.flush), itertools.count()
        self.write = fault.wrap(file.write, lambda _data: next(writes) == 0)

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk_at_every_write_call_loses_nothing(tmp_path: Path, lasting: bool) -> None:
    """Whatever call fails in flushes and merges: one line, old rows intact, buffered rows on disk once there is room."""
    for at in itertools.count():
        path = tmp_path / str(at)
        store = RunStore.create(path, info(), flush_every=1, merge_at=3)
        with pytest.MonkeyPatch.context() as patch:
            fault = full_disk(patch, at, lasting=lasting)
            for clock in range(1, 5):
                with one_line_or_nothing("the disk is full"):
                    store.append("updates", updates(clock))
                    store.append("metrics", metrics(clock))
                assert clocks(RunStore.open(path)) == list(range(1, len(clocks(store)) + 1))
        for clock in (1, 2, 3, 4):
            if clock not in clocks(store):
                store.flush()
        assert clocks(store) == [1, 2, 3, 4]
        store.close("finished")
        assert not [name for name in os.listdir(path / "updates") if name.endswith(".tmp")]
        assert (clocks(RunStore.open(path)), store.problems()) == ([1, 2, 3, 4], [])
        if not fault.fired:
            break
    assert at > 40


@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk_during_a_rewind(tmp_path: Path, lasting: bool) -> None:
    """Before the commit everything is still there, after it the rewind has happened; in both cases writing goes on."""
    for at in itertools.count():
        path = tmp_path / str(at)
        store = RunStore.create(path, info(), flush_every=1)
        for clock in (1, 2, 3, 4):
            store.append("updates", updates(clock))
            store.append("metrics", metrics(clock))
        store.flush()
        with pytest.MonkeyPatch.context() as patch:
            fault = full_disk(patch, at, lasting=lasting)
            with one_line_or_nothing("the disk is full"):
                store.rewind(2)
        streams = [store.read(stream, ["clock"])["clock"].to_pylist() for stream in ("updates", "metrics")]
        assert streams in ([[1, 2]] * 2, [[1, 2, 3, 4]] * 2)
        store.rewind(2)
        store.append("updates", updates(3))
        store.close("finished")
        assert clocks(RunStore.open(path)) == [1, 2, 3]
        assert store.problems() == []
        if not fault.fired:
            break
    assert at > 5


def test_memory_is_bounded_while_the_disk_is_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_BUFFERED_ROWS", 10)
    store = RunStore.create(path, info(), flush_every=1000)
    store.append("updates", updates(*range(1, 5)))
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 0, lasting=True)
        with pytest.raises(StoreError, match="4 rows wait in memory"):
            store.flush()
        for clock in range(5, 18):
            store.append("updates", updates(clock))
    store.flush()
    assert clocks(store) == list(range(8, 18))
    assert store.status().dropped == 7
    assert store.problems() == ["7 rows were given up while the disk was full"]
    store.close("finished")


def test_closing_on_a_full_disk_says_so_and_frees_the_lock(path: Path) -> None:
    store = RunStore.create(path, info())
    store.append("updates", updates(1))
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 0, lasting=True)
        with pytest.raises(StoreError, match="the disk is full"):
            store.close("finished")
    RunStore.open(path, write=True).close("failed")


# --- damaged and foreign files -------------------------------------------------------------------


@pytest.fixture
def three_parts(path: Path) -> Path:
    store = RunStore.create(path, info(), flush_every=1)
    for clock in (1, 2, 3):
        store.append("updates", updates(clock, clock))
    store.close("interrupted")
    return path


def parts_of(path: Path) -> list[Path]:
    return sorted((path / "updates").glob("*.parquet"))


def test_a_truncated_part_is_left_out_and_named(three_parts: Path) -> None:
    part = parts_of(three_parts)[1]
    whole = part.read_bytes()
    for size in range(0, len(whole), 64):
        part.write_bytes(whole[:size])
        store = RunStore.open(three_parts)
        assert clocks(store) == [1, 1, 3, 3]
        assert [line for line in store.problems() if part.name in line and "rows 2 to 3 are left out" in line]
    part.write_bytes(whole)
    assert clocks(RunStore.open(three_parts)) == [1, 1, 2, 2, 3, 3]


def test_bit_flips_never_show_wrong_rows(three_parts: Path) -> None:
    random.seed(7)
    part = parts_of(three_parts)[1]
    whole = part.read_bytes()
    for _ in range(200):
        spoilt = bytearray(whole)
        spoilt[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        part.write_bytes(spoilt)
        store = RunStore.open(three_parts)
        assert clocks(store) == [1, 1, 3, 3]
        assert len(store.problems()) == 1


def test_bit_flips_in_the_small_files_are_store_errors(three_parts: Path) -> None:
    random.seed(8)
    store = RunStore.open(three_parts, write=True)
    store.rewind(2)
    store.close("interrupted")
    for name in ("run.json", "status.json", "attempts.json"):
        whole = (three_parts / name).read_bytes()
        for _ in range(100):
            spoilt = bytearray(whole)
            spoilt[random.randrange(len(whole))] ^= 1 << random.randrange(8)
            (three_parts / name).write_bytes(spoilt)
            assert len(Runs(three_parts.parent).list()) == 1
            with one_line_or_nothing():
                seen = RunStore.open(three_parts)
                seen.problems()
                seen.read("updates")
                seen.status()
        (three_parts / name).write_bytes(whole)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_writer_goes_on_beside_a_damaged_part(three_parts: Path, which: int) -> None:
    part = parts_of(three_parts)[which]
    _, cursor = RunStore.open(three_parts).read_new("updates")
    part.write_bytes(b"PAR1")
    store = RunStore.open(three_parts, write=True, flush_every=1, merge_at=3)
    for clock in range(4, 12):
        store.append("updates", updates(clock))
    store.close("finished")
    whole = [clock for clock in (1, 2, 3) if clock != which + 1 for _ in range(2)]
    assert clocks(store) == [*whole, *range(4, 12)]
    assert store.read_new("updates", cursor)[0]["clock"].to_pylist() == list(range(4, 12))  # no row number is used twice
    assert part.exists()
    assert len(store.problems()) == 1


def test_a_part_that_is_damaged_while_the_writer_runs(path: Path) -> None:
    store = RunStore.create(path, info(), flush_every=1)
    for clock in (1, 2, 3):
        store.append("updates", updates(clock))
    part = parts_of(path)[1]
    found = part.stat()
    spoilt = bytearray(part.read_bytes())
    spoilt[len(spoilt) // 8] ^= 1
    assert store.problems() == []
    part.write_bytes(spoilt)
    os.utime(part, ns=(found.st_atime_ns, found.st_mtime_ns))  # as bit rot does it: no trace
    store.close("finished")
    assert clocks(store) == [1, 3]
    assert part.name in store.problems()[0]


def test_a_removed_part_is_named(three_parts: Path) -> None:
    parts_of(three_parts)[1].unlink()
    store = RunStore.open(three_parts)
    assert clocks(store) == [1, 1, 3, 3]
    assert store.problems() == ["updates: rows 2 to 3 are missing (a part file was removed)"]


def test_half_an_overlap_is_named_and_not_deleted(three_parts: Path) -> None:
    part = parts_of(three_parts)[1]
    odd = part.rename(part.with_name(part.name.replace("0000000002-0000000004", "0000000001-0000000003")))
    store = RunStore.open(three_parts, write=True)
    assert clocks(store) == [1, 1, 3, 3]
    assert [line for line in store.problems() if f"{odd.name}: overlaps" in line]
    store.close("finished")
    assert odd.exists()


def test_a_listing_torn_by_a_merge_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is not listed in one instant: a listing may miss the merged file, which came too late, and its sources, which went too early."""
    store = RunStore.create(path, info(), flush_every=1)
    for clock in (1, 2, 3):
        store.append("updates", updates(clock))
    _, cursor = store.read_new("updates")
    sources = os.listdir(path / "updates")
    store.compact()
    real, torn = os.listdir, iter([sources, [], [], sources[:1]])
    monkeypatch.setattr(os, "listdir", lambda folder: next(torn, real(folder)))
    table, cursor = store.read_new("updates", cursor)
    assert (table.num_rows, cursor.reset, cursor.rows) == (0, False, 3)


def test_foreign_files_are_ignored_and_links_refused(three_parts: Path, tmp_path: Path) -> None:
    folder = three_parts / "updates"
    (folder / ".a1-0.123.tmp").write_bytes(b"half")
    (three_parts / ".status.json.123.tmp").write_text("{")  # a writer killed between two lines
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.parquet").write_bytes(b"no parquet")
    part = parts_of(three_parts)[0]
    part.rename(tmp_path / "secret.parquet")
    part.symlink_to(tmp_path / "secret.parquet")
    store = RunStore.open(three_parts)
    assert clocks(store) == [2, 2, 3, 3]
    assert "symbolic link" in store.problems()[0]
    RunStore.open(three_parts, write=True).close("interrupted")
    assert sorted(file.name for file in folder.iterdir() if not file.name.startswith("a001")) == ["mine.parquet", "notes.txt"]
    assert not list(three_parts.glob(".*.tmp"))


def test_a_linked_stream_folder_is_refused(three_parts: Path, tmp_path: Path) -> None:
    (three_parts / "updates").rename(tmp_path / "elsewhere")
    (three_parts / "updates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        RunStore.open(three_parts).read("updates")
    assert "symbolic link" in RunStore.open(three_parts).problems()[0]


# --- cursors and rewinds -------------------------------------------------------------------------


def test_reading_what_is_new_across_merges_and_rewinds(tmp_path: Path) -> None:
    """Property: what `read_new` gave so far, started over at each reset, is what `read` gives."""
    for seed in range(20):
        random.seed(seed)
        path = tmp_path / str(seed)
        writer = RunStore.create(path, info(), flush_every=1000, merge_at=random.choice([2, 3, 5]))
        expected: list[int] = []
        seen: list[int] = []
        cursor: Cursor | None = None
        clock = 0
        for _ in range(60):
            action = random.random()
            if action < 0.5:
                clock += 1
                count = random.randint(1, 3)
                writer.append("updates", updates(*[clock] * count))
                expected += [clock] * count
            elif action < 0.75:
                writer.flush()
            elif action < 0.8:
                writer.compact()
            elif action < 0.85:
                clock = random.randint(0, clock)
                writer.rewind(clock)
                expected = [value for value in expected if value <= clock]
            elif action < 0.88:
                writer.close("interrupted")
                writer = RunStore.open(path, write=True, flush_every=1000, merge_at=3)
            else:
                table, cursor = RunStore.open(path).read_new("updates", cursor, ["clock"])
                cursor = Cursor(**json.loads(json.dumps(dataclasses.asdict(cursor))))
                seen = ([] if cursor.reset else seen) + table["clock"].to_pylist()
                assert seen == clocks(writer)
        writer.close("finished")
        table, cursor = RunStore.open(path).read_new("updates", cursor, ["clock"])
        seen = ([] if cursor.reset else seen) + table["clock"].to_pylist()
        assert seen == expected == clocks(writer)
        assert writer.problems() == []


def test_a_cursor_starts_over_in_a_new_run_of_the_same_folder(path: Path) -> None:
    import shutil

    store = RunStore.create(path, info(), flush_every=1)
    store.append("updates", updates(1, 2))
    _, cursor = store.read_new("updates")
    store.close("finished")
    shutil.rmtree(path)
    store = RunStore.create(path, info(created="2027-01-01T00:00:00+00:00"), flush_every=1)
    store.append("updates", updates(5, 6, 7))
    table, cursor = store.read_new("updates", cursor)
    assert (table["clock"].to_pylist(), cursor.reset) == ([5, 6, 7], True)
    assert {cursor: 1}[dataclasses.replace(cursor, reset=False)] == 1


def test_a_rewind_keeps_the_old_parts_aside(path: Path) -> None:
    store = RunStore.create(path, info(), flush_every=2)
    for clock in range(1, 7):
        store.append("updates", updates(clock))
        store.append("metrics", metrics(clock))
    store.rewind(3)
    assert clocks(store) == [1, 2, 3]
    assert store.read("metrics")["clock"].to_pylist() == [1, 2, 3]
    aside = [pq.read_table(file)["clock"].to_pylist() for file in sorted((path / "superseded" / "1" / "updates").iterdir())]
    assert aside == [[3, 4], [5, 6]]
    store.append("updates", updates(4))
    store.rewind(0)
    assert clocks(store) == []
    assert (path / "superseded" / "2" / "updates").is_dir()
    store.rewind(0)
    assert not (path / "superseded" / "3").exists()
    store.close("finished")
    assert parts_of(path) == []


def test_readers_beside_a_busy_writer_see_growing_prefixes(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    store = RunStore.create(path, info(), flush_every=1, merge_at=2)

    def read(results: Any) -> None:
        seen, cursor, worst = [], None, ""
        while len(seen) < 200:
            table, cursor = RunStore.open(path).read_new("updates", cursor, ["clock"])
            seen += table["clock"].to_pylist()
            whole = clocks(RunStore.open(path))
            if cursor.reset or seen != list(range(1, len(seen) + 1)) or whole != list(range(1, len(whole) + 1)):
                worst = f"{cursor} {seen[-5:]} {whole[-5:]}"
                break
        results.put(worst)

    results = context.Queue()
    reader = context.Process(target=read, args=(results,))
    reader.start()
    for clock in range(1, 201):
        store.append("updates", updates(clock))
    assert results.get(timeout=60) == ""
    reader.join(30)
    store.close("finished")


# --- many runs -----------------------------------------------------------------------------------

HOSTILE = ["../x", "%2e%2e", "..\\", "..", ".", "", "a\0b", "x" * 300, "CON", "con", "LPT1", "\u202eevil", "🦜", "-rf", "a.b", "a b", "A-B", " a", "a/", "a\n"]


def test_slugs_are_safe_and_do_not_collide() -> None:
    made = {text: slug(text) for text in [*HOSTILE, "a-b", "rloo-chat-s0", "\ud800"]}
    assert len(set(made.values())) == len(made)
    for text, name in made.items():
        assert set(name) <= set(string.ascii_lowercase + string.digits + "-"), text
        assert 0 < len(name) <= 80
        assert not name.startswith("-")
        assert name not in ("con", "lpt1")
        assert slug(name) == name
    assert (made["rloo-chat-s0"], made["a-b"]) == ("rloo-chat-s0", "a-b")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, state in (("done", "finished"), ("broke", "failed"), ("cut", "interrupted")):
        RunStore.create(tmp_path / name, info(name)).close(state)  # type: ignore[arg-type]
    return tmp_path


def test_listing_with_broken_folders(root: Path) -> None:
    live = RunStore.create(root / "live", info("live"))
    for name in ("no-json", "bad-status", "no-status", "linked", "pipe"):
        RunStore.create(root / name, info(name)).close("finished")
    (root / "no-json" / "run.json").unlink()
    (root / "bad-status" / "status.json").write_text('{"state": "running", "heartbeat": "x", "pid": 1e99}')
    (root / "no-status" / "status.json").unlink()
    (root / "linked").rename(root.parent / f"{root.name}-outside")
    (root / "linked").symlink_to(root.parent / f"{root.name}-outside")
    (root / "pipe" / "run.json").unlink()
    os.mkfifo(root / "pipe" / "run.json")
    (root / "not-a-run").mkdir()
    (root / "file.txt").write_text("x")
    found = {row.run: row for row in Runs(root).list()}
    states = {name: row.state for name, row in found.items()}
    broken = dict.fromkeys(("no-json", "bad-status", "no-status", "linked", "pipe"), "unreadable")
    assert states == {"done": "finished", "broke": "failed", "cut": "interrupted", "live": "running", **broken}
    assert all(found[name].problems for name in broken)
    done = found["done"]
    assert done.ended is not None
    assert abs(done.ended - time.time()) < 60
    assert found["live"].ended is None
    assert (done.method, done.task, done.seed, done.created, done.path) == ("rloo", "chat", 3, info().created, root / "done")
    live.close("finished")
    assert Runs(root / "nowhere").list() == []


def test_what_says_running_is_believed_only_with_a_heartbeat_and_a_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**changes: Any) -> str:
        raw = json.loads((root / "done" / "status.json").read_text())
        (root / "done" / "status.json").write_text(json.dumps({**raw, "state": "running", "heartbeat": time.time(), "pid": os.getpid(), **changes}))
        return next(row.state for row in Runs(root).list() if row.run == "done")

    assert said() == "running"
    assert said(pid=2**22 + 1) == "interrupted"
    assert said(pid=10**40) == "interrupted"
    assert said(heartbeat=psutil.Process().create_time() - 3600) == "interrupted"  # its number belongs to a younger process now
    assert said(pid=2**22 + 1, host="another") == "running"
    assert said(pid=2**22 + 1, host="another", heartbeat=time.time() - 61) == "stalled"
    for no_time in (float("nan"), float("inf"), -1e300, 10**400):
        assert said(heartbeat=no_time, ended=no_time) == "stalled"
        assert next(row.ended for row in Runs(root).list() if row.run == "done") is None
    monkeypatch.setattr("interplay.reading.STALLED_AFTER", 0.1)  # this very process may be younger than a minute
    assert said(heartbeat=time.time() - 0.5) == "stalled"


def test_a_process_that_nobody_waited_for_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the table of processes
    try:
        assert reading.gone(socket.gethostname(), child.pid, time.time())
    finally:
        child.wait()


def test_names_that_lead_out_are_refused(root: Path) -> None:
    runs = Runs(root)
    assert runs.open("done").info.run == "done"
    (root / "out").symlink_to("/")
    for name in ["../x", "..", ".", "", "/etc", str(root / "done"), "done/../done", "a\\b", "a\0b", "x" * 300, "out", ".hidden", "done/"]:
        with pytest.raises(StoreError) as caught:
            runs.open(name)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_five_hundred_runs_list_quickly(tmp_path: Path) -> None:
    RunStore.create(tmp_path / "r0", info()).close("finished")
    for number in range(1, 500):
        (tmp_path / f"r{number}").mkdir()
        for name in ("run.json", "status.json"):
            (tmp_path / f"r{number}" / name).write_bytes((tmp_path / "r0" / name).read_bytes())
    start = time.perf_counter()
    assert len(Runs(tmp_path).list()) == 500
    assert time.perf_counter() - start < 2.0


def test_tables_from_arrow_are_taken(path: Path) -> None:
    store = RunStore.create(path, info())
    store.append("updates", pa.table(updates(1, 2)))
    store.flush()
    assert clocks(store) == [1, 2]
