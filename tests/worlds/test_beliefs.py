from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.worlds.beliefs import keys

GOLDEN = json.loads((Path(__file__).parent / "z1r_beliefs.json").read_text())


def test_the_beliefs_of_z1r_by_hand() -> None:
    tree = worlds.get("z1r").reachable_beliefs()
    result = {"".join(map(str, prefix)): belief for prefix, belief in zip(tree.prefixes, tree.beliefs, strict=True)}
    assert list(result) == list(GOLDEN)
    for prefix, belief in GOLDEN.items():
        np.testing.assert_allclose(result[prefix], np.array(belief["thirds"]) / 3, atol=1e-14)
    assert tree.depth.tolist() == [len(prefix) for prefix in GOLDEN]


@pytest.mark.parametrize("name", ["bloch_walk", "even", "golden_mean", "mess3", "rrxor", "sns", "z1r"])
def test_prefixes_lead_to_their_beliefs(name: str) -> None:
    world = worlds.get(name)
    tree = world.reachable_beliefs(max_depth=4)
    assert tree.prefixes[0] == ()
    np.testing.assert_array_equal(tree.beliefs[0], world.stationary)
    for prefix, belief, depth in zip(tree.prefixes[1:], tree.beliefs[1:], tree.depth[1:], strict=True):
        assert len(prefix) == depth
        np.testing.assert_allclose(world.belief(np.array([prefix]))[0, -1], belief, atol=1e-12)
    assert len(np.unique(tree.beliefs.round(9), axis=0)) == len(tree)


def test_probabilities_are_shares_of_time() -> None:
    world = worlds.get("rrxor")
    tree = world.reachable_beliefs(max_depth=9)
    assert tree.probability.sum() == pytest.approx(1)
    beliefs = world.sample(4000, 9, seed=0).states["belief"].reshape(-1, 5)
    nearest = np.abs(beliefs[:, None] - tree.beliefs).sum(-1).argmin(1)
    share = np.bincount(nearest, minlength=len(tree)) * 0.9 / len(nearest)
    share[0] += 0.1
    np.testing.assert_allclose(share, tree.probability, atol=0.01)


def test_closed_and_open_trees() -> None:
    world = worlds.get("rrxor")
    assert [world.reachable_beliefs(depth).closed for depth in (5, 6, 7, 20)] == [False, False, True, True]
    assert len(world.reachable_beliefs(20)) == 36
    assert not worlds.get("sns", p=0.3).reachable_beliefs(40).closed


@given(st.lists(st.integers(0, 2**20), min_size=3, max_size=3), st.floats(-1e-16, 1e-16))
def test_equal_beliefs_share_a_key_whatever_the_rounding(counts: list[int], noise: float) -> None:
    belief = np.array([counts]) / 2**20
    np.testing.assert_array_equal(keys(belief), keys(belief + noise))


def test_corners_of_the_picture() -> None:
    np.testing.assert_array_equal(worlds.get("even").belief_vertices, [[0, 0], [1, 0]])
    assert worlds.get("bloch_walk").belief_vertices.shape == (0, 2)
    np.testing.assert_array_equal(worlds.get("bloch_walk").belief_coordinates([1.0, 0.5, -0.25]), [0.5, -0.25])


def test_beliefs_of_rrxor_have_different_places() -> None:
    world = worlds.get("rrxor")
    places = world.belief_coordinates(world.reachable_beliefs().beliefs)
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(len(places))
    assert gaps.min() > 0.02


def test_other_generalised_worlds_are_drawn_on_principal_axes() -> None:
    walk = worlds.get("bloch_walk")
    # The same walk in another basis, where the readout is not the first axis.
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = worlds.HiddenMarkovWorld("turned", turn.T @ walk.transitions @ turn, generalised=True)
    assert "principal axes" in turned.belief_axes
    tokens = walk.sample(3, 6, seed=0).tokens
    np.testing.assert_allclose(turned.next_token_probs(tokens), walk.next_token_probs(tokens), atol=1e-12)
    assert turned.belief_coordinates(turned.reachable_beliefs(4).beliefs).std(0).min() > 0.1
