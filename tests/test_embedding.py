"""Pictures by PCA, t-SNE and UMAP: known shapes, known chance, the same bytes twice, and clear refusals."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist

from analysis import embedding, projection
from analysis.embedding import Embedding
from analysis.trajectory import OUTSIDE, Trajectory
from interplay.records import SketchSpec


def _walk(updates: int, dims: int, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((updates, dims))
    return np.concatenate([np.zeros((1, dims)), np.cumsum(steps, axis=0)])


def _flat_walk(updates: int, seed: int) -> np.ndarray:
    """A walk that stays in one plane of a space of 100 dimensions."""
    return _walk(updates, 2, seed) @ np.random.default_rng(99).standard_normal((2, 100))


def _two_camps() -> list[np.ndarray]:
    """Two roles that rest in places far from one another."""
    return [np.random.default_rng(1).standard_normal((30, 40)), np.random.default_rng(2).standard_normal((20, 40)) + 50]


def _strangers(picture: Embedding) -> float:
    """Share of points whose nearest neighbour in the picture belongs to the other role."""
    roles = np.concatenate([np.full(len(path), i) for i, path in enumerate(picture.paths_P)])
    distances = cdist(np.concatenate(picture.paths_P), np.concatenate(picture.paths_P))
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(roles[distances.argmin(axis=1)] != roles))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A method that draws the first coordinates and notes what it was asked for."""
    asked: list[tuple[int, ...]] = []

    def stub(paths: Sequence[np.ndarray], components: int, seed: int) -> np.ndarray:
        asked.append((*(len(path) for path in paths), components, seed))
        return np.concatenate(paths)[:, :components]

    monkeypatch.setitem(embedding.METHODS, "stub", stub)
    return asked


# --- pictures ----------------------------------------------------------------------------------------


def test_pca_of_a_plane_loses_nothing_and_of_a_walk_a_little() -> None:
    paths = [_flat_walk(60, 1), _flat_walk(40, 2)]
    found = embedding.project("pca", paths)
    assert min(found.quality.trustworthiness, found.quality.continuity, found.quality.rank_correlation) > 0.999
    assert found.quality.stability.high < 1e-6
    assert found.null.rank_correlation < 0.999
    assert "neighbours are kept (1.00), distances are in the right order" in found.words
    assert [path.shape for path in found.paths_P] == [(61, 2), (41, 2)]


def test_pca_draws_what_the_projection_draws() -> None:
    paths = [_walk(60, 500, 1), _walk(40, 500, 2)]
    one, two = embedding.project("pca", paths, 3), projection.pca(paths, 3)
    disparity = procrustes(np.concatenate(one.paths_P), np.concatenate(two.paths_P))[2]
    assert disparity == pytest.approx(0, abs=1e-4)


def test_tsne_draws_the_same_bytes_twice_and_keeps_roles_apart() -> None:
    one, two = embedding.tsne(_two_camps(), seed=3), embedding.tsne(_two_camps(), seed=3)
    assert [path.tobytes() for path in one.paths_P] == [path.tobytes() for path in two.paths_P]
    assert one.quality == two.quality
    assert one.null == two.null
    assert _strangers(one) == 0
    assert one.quality.trustworthiness > 0.8
    assert one.quality.stability.low > 0, "another seed must be able to give another picture"


def test_tsne_in_three_dimensions() -> None:
    found = embedding.tsne([_walk(12, 30, 0)], 3)
    assert found.paths_P[0].shape == (13, 3)
    assert np.isfinite(found.paths_P[0]).all()
    assert found.paths_P[0].std(axis=0).min() > 0


@pytest.mark.slow
def test_umap_draws_the_same_bytes_twice_without_a_warning_and_keeps_roles_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = embedding.umap(_two_camps(), seed=3)
    two = embedding.umap(_two_camps(), seed=3)
    assert [path.tobytes() for path in one.paths_P] == [path.tobytes() for path in two.paths_P]
    assert one.quality == two.quality
    assert _strangers(one) == 0
    other = embedding.umap(_two_camps(), seed=4)
    assert any((a != b).any() for a, b in zip(one.paths_P, other.paths_P, strict=True))
    assert one.quality.stability.low > 0


@pytest.mark.slow
@pytest.mark.parametrize("draw", [embedding.umap, embedding.tsne])
@pytest.mark.parametrize("components", [2, 3])
@pytest.mark.parametrize(
    "path",
    [
        _walk(4, 3000, 0),  # as few rows as are drawn
        _walk(40, 1, 0),  # narrower than the picture
        np.repeat(_walk(10, 50, 0), 5, axis=0),  # most updates are zero
        _walk(30, 50, 0) * 1e-12,
    ],
)
def test_meagre_paths_are_drawn_finite(draw: Callable[..., Embedding], components: int, path: np.ndarray) -> None:
    found = draw([path], components)
    assert found.paths_P[0].shape == (len(path), components)
    assert np.isfinite(found.paths_P[0]).all()
    assert np.isfinite(found.quality.trustworthiness)


@pytest.mark.slow
def test_umap_is_imported_only_when_it_is_drawn() -> None:
    code = "import sys, analysis.embedding; sys.exit('umap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the door ----------------------------------------------------------------------------------------


def test_a_method_is_one_function_and_is_asked_for_three_seeds_of_both(stub: list[tuple[int, ...]]) -> None:
    found = embedding.project("stub", [_walk(20, 30, 0), _walk(9, 30, 1)], 2, seed=5)
    assert stub == [(21, 10, 2, 5), (21, 10, 2, 6), (21, 10, 2, 7)] * 2
    assert (found.method, found.seed, found.quality.stability.pictures) == ("stub", 5, 3)


def test_long_paths_keep_their_shares_and_say_which_rows(stub: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROWS", 200)
    found = embedding.project("stub", [_walk(599, 3, 0), _walk(199, 3, 1)])
    assert [len(rows) for rows in found.rows_P] == [150, 50]
    assert [rows[[0, -1]].tolist() for rows in found.rows_P] == [[0, 599], [0, 199]]
    assert [len(path) for path in found.paths_P] == [150, 50]
    assert found.quality.points == 199  # both start at zero, which counts once


def test_a_path_that_moves_only_between_the_kept_rows_is_refused(stub: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROWS", 51)
    with pytest.raises(ValueError, match="no weight has moved"):
        embedding.project("stub", [(np.arange(101) % 2)[:, None] * np.ones(3)])


def test_whole_paths_are_drawn_up_to_the_limit(stub: list[tuple[int, ...]]) -> None:
    found = embedding.project("stub", [_walk(30, 5, 0)])
    np.testing.assert_array_equal(found.rows_P[0], np.arange(31))


def test_null_is_of_the_same_method_on_walks_of_the_same_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def watch(paths: Sequence[np.ndarray], components: int, seed: int) -> np.ndarray:
        seen.append(np.linalg.norm(np.diff(paths[0], axis=0), axis=1))
        return np.concatenate(paths)[:, :components]

    monkeypatch.setitem(embedding.METHODS, "watch", watch)
    path = _walk(30, 5000, 0) * np.linspace(1, 4, 31)[:, None]
    embedding.project("watch", [path])
    np.testing.assert_allclose(seen[-1], np.linalg.norm(np.diff(path, axis=0), axis=1), rtol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mds", [_walk(9, 4, 0)]), "no method is called 'mds'; there are pca, umap, tsne"),
        (("tsne", [_walk(9, 4, 0)], 4), "2 or 3 components, not 4"),
        (("umap", [_walk(9, 4, 0)], 1), "2 or 3 components, not 1"),
        (("umap", [_walk(3, 4, 0)]), "at least 5 rows in all, not 4"),
        (("tsne", [np.zeros((2, 4))]), "at least two updates"),
        (("umap", [np.ones((9, 4))]), "no weight has moved"),
        (("tsne", [np.full((9, 4), np.nan)]), "not finite"),
        (("umap", [np.ones((5, 4)), np.ones((5, 3))]), "different widths"),
        (("umap", [_walk(9, 4, 0), np.zeros((0, 4))]), "a path is empty"),
        (("tsne", []), "at least two updates"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_its_reason(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding.project(*arguments)  # type: ignore[arg-type]


# --- chance of updates -------------------------------------------------------------------------------


def test_chance_of_updates_is_unrelated_directions_of_their_norms() -> None:
    norms = np.linspace(1, 3, 50)
    walk, updates = (projection.by_chance([norms], 10_000, np.random.default_rng(0), of)[0] for of in ("positions", "updates"))
    np.testing.assert_allclose(np.diff(walk, axis=0), updates, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(updates, axis=1), norms, rtol=0.05)
    unit = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    assert np.abs((unit @ unit.T)[np.triu_indices(50, 1)]).max() < 0.06


def test_unrelated_updates_lie_inside_their_null_and_swinging_ones_above() -> None:
    noise = np.random.default_rng(3).standard_normal((60, 2000))
    unrelated, swinging = projection.pca([noise], of="updates"), projection.pca([noise + 3 * np.cos(np.arange(60))[:, None]], of="updates")
    assert unrelated.null.low_C[0] * 0.97 < unrelated.explained_C[0] < unrelated.null.high_C[0] * 1.03
    assert swinging.explained_C[0] > swinging.null.high_C[0] * 2
    # the null of positions would call a lone direction chance: walks explain 61 % by one component
    assert projection.pca([noise]).null.mean_C[0] > 10 * unrelated.null.mean_C[0]


def test_equal_updates_and_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="all updates are equal"):
        projection.pca([np.ones((9, 4))], of="updates")
    with pytest.raises(ValueError, match="updates themselves at least three"):
        projection.pca([np.eye(2)], of="updates")


# --- what is drawn -----------------------------------------------------------------------------------


@pytest.fixture
def trajectory() -> Trajectory:
    names = ("score", "layers.0.self_attn.q_proj", "layers.0.mlp.up_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.up_proj")
    numbers, layers = np.arange(1, 4), np.array([OUTSIDE, 0, 0, 1, 1])
    sketches = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
    return Trajectory("run", "policy", SketchSpec(k=2), numbers, numbers, numbers, names, layers, np.linalg.norm(sketches, axis=2), sketches)


@pytest.mark.parametrize(
    ("layer", "kind", "modules"),
    [(None, None, [0, 1, 2, 3, 4]), (1, None, [3, 4]), (OUTSIDE, None, [0]), (None, "q_proj", [1, 3]), (0, "up_proj", [2])],
)
def test_a_layer_a_kind_or_all_is_selected(trajectory: Trajectory, layer: int | None, kind: str | None, modules: list[int]) -> None:
    updates = np.concatenate([trajectory.sketches_UTK[:, t] for t in modules], axis=1)
    np.testing.assert_array_equal(projection.selected(trajectory, layer, kind, "updates"), updates)
    positions = projection.selected(trajectory, layer, kind)
    assert positions.shape == (4, 2 * len(modules))
    assert not positions[0].any()
    np.testing.assert_allclose(positions[3], updates[0] + updates[1] + updates[2], rtol=1e-5)


def test_what_was_not_recorded_is_refused_with_what_was(trajectory: Trajectory) -> None:
    with pytest.raises(ValueError, match=r"layer 7; recorded layers: -1, 0, 1 .* recorded kinds: q_proj, score, up_proj"):
        projection.selected(trajectory, layer=7)
    with pytest.raises(ValueError, match="layer 0 and kind score"):
        projection.selected(trajectory, layer=0, kind="score")
