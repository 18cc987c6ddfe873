from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy.spatial import procrustes as scipy_procrustes
from scipy.stats import ortho_group
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from nextlat_viz.analysis import effective_rank, linear_cka, procrustes, same_state_spread, trustworthiness
from nextlat_viz.analysis.shape import state_numbers
from nextlat_viz.errors import LatentsError, UnknownNameError


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 6))


@pytest.mark.parametrize("n", [1, 3, 8])
def test_effective_rank_of_known_matrices(n: int) -> None:
    assert effective_rank(np.eye(n)) == pytest.approx(n)
    assert effective_rank(np.outer(np.arange(1.0, 6), np.ones(n))) == pytest.approx(1)


def test_effective_rank_of_unequal_directions_and_centred() -> None:
    p = np.array([3.0, 1.0]) / 4
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    line = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    assert effective_rank(line) > 1.1
    assert effective_rank(line, centered=True) == pytest.approx(1)
    with pytest.raises(LatentsError, match="not all zero"):
        effective_rank(np.ones((4, 2)), centered=True)


def test_effective_rank_of_degenerate_and_invalid_rows(cloud: np.ndarray) -> None:
    three = (cloud[:, :3] @ np.random.default_rng(1).normal(size=(3, 6))).astype(np.float32)
    s = np.linalg.svd(three.astype(np.float64), compute_uv=False)[:3]
    p = s / s.sum()
    assert effective_rank(three) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    cloud[3, 2] = np.nan
    with pytest.raises(LatentsError, match="NaN or infinity in 1 of 40 rows"):
        effective_rank(cloud)
    with pytest.raises(LatentsError, match=r"shape \(0, 6\)"):
        effective_rank(cloud[:0], centered=True)


def test_states_are_numbered_by_their_columns(trained: AnnData) -> None:
    beliefs = np.unique(np.round(trained.obsm["belief"], 8), axis=0)
    assert set(state_numbers(trained)) == set(range(len(beliefs)))
    np.testing.assert_array_equal(state_numbers(trained), state_numbers(trained, "belief"))
    pairs = trained.obs["state"].astype(str) + " " + trained.obs["token"].astype(str)
    both = state_numbers(trained, ["state", "token"])
    assert len(set(zip(pairs, both, strict=True))) == pairs.nunique() == len(set(both))
    bare = trained.copy()
    del bare.obsm["belief"]
    np.testing.assert_array_equal(state_numbers(bare), state_numbers(bare, "state"))
    del bare.obs["state"]
    with pytest.raises(LatentsError, match="by="):
        state_numbers(bare)


def test_procrustes_recovers_a_rotation(cloud: np.ndarray) -> None:
    turn = ortho_group.rvs(6, random_state=0)
    result = procrustes(cloud, 0.3 * cloud @ turn.T - 7)
    np.testing.assert_allclose(result.aligned, cloud, atol=1e-9)
    np.testing.assert_allclose(result.rotation, turn, atol=1e-9)
    assert result.scale == pytest.approx(1 / 0.3)
    assert result.disparity == pytest.approx(0, abs=1e-9)


def test_procrustes_agrees_with_scipy_and_is_symmetric(cloud: np.ndarray) -> None:
    other = np.tanh(cloud[:, ::-1]) + 0.2
    result = procrustes(cloud, other)
    assert result.disparity == pytest.approx(scipy_procrustes(cloud, other)[2])
    assert result.disparity == pytest.approx(procrustes(other, cloud).disparity)
    np.testing.assert_allclose(result.aligned, result.scale * other @ result.rotation + result.shift)
    with pytest.raises(ValueError, match="one shape"):
        procrustes(cloud, cloud[:, :2])
    with pytest.raises(ValueError, match="rows that differ"):
        procrustes(cloud, np.ones_like(cloud))


def test_cka_is_invariant_to_rotation_and_scale(cloud: np.ndarray) -> None:
    other = np.random.default_rng(1).normal(size=(40, 3))
    value = linear_cka(cloud, other)
    assert linear_cka(cloud, cloud) == pytest.approx(1)
    assert linear_cka(-2 * cloud @ ortho_group.rvs(6, random_state=0) + 3, other) == pytest.approx(value)
    assert linear_cka(other, cloud) == pytest.approx(value)
    assert 0 < value < 0.5
    stretched = cloud * np.array([10, 1, 1, 1, 1, 1])
    assert linear_cka(stretched, cloud) < 0.9
    with pytest.raises(ValueError, match="same rows"):
        linear_cka(cloud, other[:5])


def test_spread_is_small_where_states_are_merged(trained: AnnData, untrained: AnnData) -> None:
    merged = trained.copy()
    merged.X = merged.obsm["belief"] @ np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    assert same_state_spread(merged) == pytest.approx(0, abs=1e-6)
    assert same_state_spread(trained) < same_state_spread(untrained)
    noise = trained.copy()
    noise.X = np.random.default_rng(0).normal(size=noise.shape).astype(np.float32)
    assert same_state_spread(noise, by="state") == pytest.approx(1, abs=0.02)
    with pytest.raises(UnknownNameError, match="state"):
        same_state_spread(trained, by="stat")
    with pytest.raises(LatentsError, match="from position 99 on"):
        same_state_spread(trained, min_position=99)


def test_trustworthiness_equals_scikit_learn(cloud: np.ndarray) -> None:
    flat = cloud[:, :2]
    assert trustworthiness(cloud, flat, k=5) == pytest.approx(sklearn_trustworthiness(cloud, flat, n_neighbors=5))
    assert trustworthiness(cloud, cloud @ np.eye(6, 6), k=5) == 1
    assert np.isnan(trustworthiness(cloud[:9], flat[:9], k=5))


def test_trustworthiness_of_a_subsample_is_seeded() -> None:
    X = np.random.default_rng(0).normal(size=(500, 4))
    few = [trustworthiness(X, X[:, :2], max_rows=200, seed=seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[0] == pytest.approx(trustworthiness(X, X[:, :2]), abs=0.08)
