"""Trajectories against sums that are written out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.trajectory import OUTSIDE, Trajectory, same_space
from app.reading.loading import Feed
from interplay.records import SketchSpec, schema
from interplay.store import RunStore
from tests.fabricate import Fabricated


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    path = Fabricated(tmp_path_factory.mktemp("runs") / "one", layers=3, k=16, updates_each=5).whole()
    return RunStore.open(path)


def test_sketches_are_the_recorded_numbers(run: RunStore) -> None:
    table = run.read("directions")
    path = Trajectory.from_table(table, "policy", run.info.sketch, run="one")
    row = next(row for row in table.to_pylist() if row["role"] == "policy" and row["update"] == 3 and row["module"] == path.modules_T[4])
    expected = np.array(row["sketch"], dtype=np.float32) * row["scale"]
    np.testing.assert_allclose(path.sketches_UTK[2, 4], expected, rtol=1e-6)
    assert path.sketches_UTK.dtype == np.float32
    assert path.sketches_UTK.shape == (10, 21, 16)


def test_positions_are_running_sums(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "reward", run.info.sketch)
    by_hand = np.zeros_like(path.sketches_UTK[0])
    for u in range(4):
        by_hand = by_hand + path.sketches_UTK[u]
    np.testing.assert_allclose(path.positions_UTK[3], by_hand, rtol=1e-4, atol=1e-7)
    assert not path.path_UD()[0].any()
    np.testing.assert_allclose(path.path_UD()[-1], path.positions_UTK[-1].ravel())


def test_a_layer_is_the_sum_of_its_modules(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch)
    layers = path.layers()
    mine = [t for t, layer in enumerate(path.layers_T) if layer == 1]
    assert layers.modules_T == ("layer 0", "layer 1", "layer 2")
    np.testing.assert_allclose(layers.sketches_UTK[2, 1], sum(path.sketches_UTK[2, t] for t in mine), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(layers.norms_UT[2, 1], sum(path.norms_UT[2, t] ** 2 for t in mine) ** 0.5, rtol=1e-5)


def test_modules_outside_the_blocks_are_kept_apart(run: RunStore) -> None:
    table = run.read("directions").slice(0, 21)
    frame = table.to_pandas()
    frame.loc[0, "layer"] = np.nan
    import pyarrow as pa

    again = pa.Table.from_pylist(
        [{**row, "layer": None if i == 0 else row["layer"]} for i, row in enumerate(table.to_pylist())], schema=schema("directions", 16)
    )
    path = Trajectory.from_table(again, "reward", run.info.sketch)
    assert OUTSIDE in path.layers_T
    assert path.layers().modules_T[0] == "outside"


def test_another_sketch_is_refused(run: RunStore) -> None:
    with pytest.raises(ValueError, match=r"16 sums, but the run says k = 32"):
        Trajectory.from_table(run.read("directions"), "policy", SketchSpec(k=32))
    with pytest.raises(ValueError, match="space factor, but the run says effective"):
        Trajectory.from_table(run.read("directions"), "policy", SketchSpec(k=16, space="effective"))


def test_different_sketches_never_share_a_space(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch, run="one")
    other = replace(path, run="two", spec=SketchSpec(k=16, seed=9))
    with pytest.raises(ValueError, match="only equal sketches can share a space"):
        same_space([path, other])


def test_a_shared_space_has_the_common_modules_in_one_order(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch)
    fewer = path.only(path.modules_T[5:2:-1])
    first, second = same_space([path, fewer])
    assert first.modules_T == second.modules_T == path.modules_T[3:6]
    np.testing.assert_array_equal(first.sketches_UTK, second.sketches_UTK)
    with pytest.raises(ValueError, match="no module in common"):
        same_space([path.only(path.modules_T[:1]), path.only(path.modules_T[1:2])])


def test_from_table_survives_a_role_that_never_moved(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "nobody", run.info.sketch)
    assert path.sketches_UTK.shape == (0, 0, 16)


def test_the_fixture_is_a_real_folder(run: RunStore) -> None:
    assert (Path(run.path) / "run.json").is_file()


def test_a_survey_has_the_rows_of_the_whole_path_and_its_reach(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "reward", run.info.sketch)
    whole, rows = path.path_UD(), np.array([0, 1, 4, len(path.updates_U)])
    found = path.survey(rows)
    np.testing.assert_array_equal(found.positions_ND, whole[rows])
    assert found.reach == pytest.approx(max(np.linalg.norm(row) for row in whole.astype(np.float64)))
    assert path.survey(rows.copy()) is found, "the same rows are placed once"
    assert replace(path, run="two").survey(rows) is not found


def test_blocks_of_a_long_path_join_without_a_seam(monkeypatch: pytest.MonkeyPatch, run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch)
    whole = path.path_UD()
    monkeypatch.setattr("analysis.trajectory.BLOCK", 3)
    np.testing.assert_array_equal(path.path_UD(), whole)
    np.testing.assert_array_equal(path.survey(np.array([2, 3, 4, 9])).positions_ND, whole[[2, 3, 4, 9]])


def test_squares_are_those_of_all_modules_together(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch)
    np.testing.assert_allclose(path.squares_U, [sum(float(x) ** 2 for x in row.ravel()) for row in path.sketches_UTK], rtol=1e-6)


def test_all_modules_in_their_order_are_the_path_itself(run: RunStore) -> None:
    path = Trajectory.from_table(run.read("directions"), "policy", run.info.sketch)
    assert path.only(path.modules_T) is path
    assert path.only(path.modules_T[::-1]) is not path


def test_a_feed_keeps_its_paths_until_rows_come(tmp_path: Path) -> None:
    made = Fabricated(tmp_path / "live", layers=2, k=16, value=False)
    made.step("policy", 1, 2)
    made.store.flush()
    feed = Feed(made.path, ("directions",))
    feed.refresh()
    (first,) = feed.trajectories(["policy", "reward"])
    size = feed.nbytes
    feed.refresh()
    assert feed.trajectories(["policy"])[0] is first
    assert size > feed.tables["directions"].nbytes, "what is kept counts"
    made.step("policy", 1, 1)
    made.step("reward", 1, 1)
    made.store.flush()
    feed.refresh()
    assert [len(path.updates_U) for path in feed.trajectories(["policy", "reward"])] == [3, 1]
    made.store.close("finished")
