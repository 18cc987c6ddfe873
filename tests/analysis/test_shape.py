from __future__ import annotations

import itertools

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from nextlat_viz.analysis import same_state_spread, shape
from nextlat_viz.analysis._rows import prefixes
from nextlat_viz.analysis.shape import curvature, different_histories, merge_distance, path_length, trajectory_shapes
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import select

SQUARE = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [0.0, 0.0]])


def literal_merge(X: np.ndarray, states: np.ndarray, histories: np.ndarray) -> float:
    """Return all pairs of rows, taking one row for each history."""
    same, different = [], []
    for i, j in itertools.combinations(sorted({int(np.flatnonzero(histories == h)[0]) for h in histories}), 2):
        distance = np.sqrt(((X[i].astype(float) - X[j].astype(float)) ** 2).sum())
        (same if states[i] == states[j] else different).append(distance)
    return float(np.mean(same) / np.mean(different))


def belief_numbers(latents: AnnData) -> np.ndarray:
    return np.unique(np.round(latents.obsm["belief"], 8), axis=0, return_inverse=True)[1].reshape(-1)


def test_path_length_and_curvature_of_a_square() -> None:
    assert path_length(SQUARE) == 8
    np.testing.assert_allclose(curvature(SQUARE), np.pi / 2)
    assert path_length(SQUARE[:1]) == 0
    assert curvature(SQUARE[:2]).size == curvature(SQUARE[:1]).size == 0


def test_curvature_of_a_polygon_is_its_outer_angle() -> None:
    angle = np.linspace(0, 2 * np.pi, 31)
    np.testing.assert_allclose(curvature(np.stack([np.cos(angle), np.sin(angle)], axis=1)), 2 * np.pi / 30)


def test_curvature_of_tiny_turns_keeps_its_digits() -> None:
    assert curvature(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 1e-9]]))[0] == pytest.approx(1e-9, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(3, 8))
def test_shape_is_invariant_to_shift_and_rotation(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    path = rng.normal(size=(steps, 4))
    moved = path @ ortho_group.rvs(4, random_state=seed % 1000).T + rng.normal(size=4)
    assert path_length(moved) == pytest.approx(path_length(path))
    assert path_length(3 * path) == pytest.approx(3 * path_length(path))
    np.testing.assert_allclose(curvature(2 * moved), curvature(path), atol=1e-9)
    a, b = np.diff(path, axis=0)[:2]
    assert curvature(path)[0] == pytest.approx(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-6)


def test_steps_of_length_zero_are_counted_as_undefined(small: AnnData) -> None:
    still = small.copy()
    X = np.asarray(still.X).copy()
    X[1] = X[0]
    still.X = X
    result = trajectory_shapes(still).set_index("episode")
    assert result["undefined"].tolist() == [1] + [0] * 19
    assert result.loc[0, "curvature"] == pytest.approx(np.nanmean(curvature(X[:10])))
    assert result["angles"].tolist() == [7] + [8] * 19
    radius = np.sqrt(np.square(X - X.mean(0)).sum(1).mean())
    assert result.loc[3, "path_length"] == pytest.approx(path_length(X[30:40]))
    assert result.loc[3, "relative_length"] == pytest.approx(path_length(X[30:40]) / radius, rel=1e-5)
    assert result.loc[3, "displacement"] == pytest.approx(np.linalg.norm(X[39] - X[30]), rel=1e-5)


def test_rows_may_be_in_any_order_but_gaps_are_refused(small: AnnData) -> None:
    order = np.random.default_rng(0).permutation(small.n_obs)
    first, second = trajectory_shapes(small), trajectory_shapes(small[order])
    np.testing.assert_allclose(first, second)
    with pytest.raises(LatentsError, match="goes from position 3 to 5"):
        trajectory_shapes(select(small, position=[1, 2, 3, 5, 6]))
    alike = small.copy()
    alike.X = np.ones(small.shape, np.float32)
    with pytest.raises(LatentsError, match="are equal"):
        trajectory_shapes(alike)


def test_merge_distance_equals_its_definition(small: AnnData) -> None:
    expected = literal_merge(np.asarray(small.X), belief_numbers(small), prefixes(small))
    assert merge_distance(small) == pytest.approx(expected)
    states = small.obs["state"].cat.codes.to_numpy()
    expected = literal_merge(np.asarray(small.X), states, prefixes(small))
    assert merge_distance(small, by="state") == pytest.approx(expected)


def test_drawn_pairs_are_uniform() -> None:
    which = np.array([0, 1, 1, 2, 0, 0, 3])
    for drawn, same in ((shape._pairs_within_states, True), (shape.pairs_between_states, False)):
        every = drawn(which, 10**6, np.random.default_rng(0))
        assert {(which[i] == which[j]) for i, j in every} == {same}
        expected = {frozenset(map(int, pair)) for pair in every}
        assert len(expected) == len(every) == (4 if same else 17)
        some = drawn(which, 3, np.random.default_rng(0))
        assert len(some) == 3
        counts = dict.fromkeys(expected, 0)
        for seed in range(2000):
            for pair in drawn(which, 3, np.random.default_rng(seed)):
                counts[frozenset(map(int, pair))] += 1
        shares = np.array(list(counts.values())) / 6000
        np.testing.assert_allclose(shares, 1 / len(expected), atol=5 * np.sqrt(shares.mean() / 6000))


def test_merge_distance_of_merged_and_of_unrelated_latents(trained: AnnData, untrained: AnnData) -> None:
    merged, noise = trained.copy(), trained.copy()
    merged.X = merged.obsm["belief"] @ np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    assert merge_distance(merged) == pytest.approx(0, abs=1e-6)
    noise.X = np.random.default_rng(0).normal(size=noise.shape).astype(np.float32)
    assert merge_distance(noise) == pytest.approx(1, abs=0.02)
    assert merge_distance(trained) < 0.5 < merge_distance(untrained)
    few = merge_distance(trained, pairs=2000, seed=0)
    assert few == merge_distance(trained, pairs=2000, seed=0) != merge_distance(trained, pairs=2000, seed=1)
    assert few == pytest.approx(merge_distance(trained, pairs=10**7), rel=0.1)


def test_histories_are_counted_once(trained: AnnData) -> None:
    rows = different_histories(trained)
    numbers, read = belief_numbers(trained), prefixes(trained)
    assert np.unique(read[rows]).size == rows.size
    for state in np.unique(numbers):
        histories = np.unique(read[numbers == state]).size
        assert (numbers[rows] == state).sum() == (histories if histories > 1 else 0)
    # A state that occurs once would count as perfectly merged.
    assert same_state_spread(trained[rows]) > 0


def test_merge_distance_errors(trained: AnnData) -> None:
    with pytest.raises(LatentsError, match="no state is reached by two"):
        merge_distance(trained, by=["position", "episode"])
    first = trained.copy()
    first.obs["one"] = 0
    with pytest.raises(LatentsError, match="lead to one state"):
        merge_distance(first, by="one")
    with pytest.raises(LatentsError, match="histories are unknown"):
        merge_distance(select(trained, position=[4, 5]))
    first.X = np.ones(first.shape, np.float32)
    with pytest.raises(LatentsError, match="are equal"):
        merge_distance(first)
    with pytest.raises(ValueError, match="pairs=0"):
        merge_distance(trained, pairs=0)
