from __future__ import annotations

import math

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.worlds import beliefs
from nextlat_viz.worlds.hmm import world as hmm_world
from tests.worlds import reference

LONGEST = {"bloch_walk": 5, "mess3": 7}


@pytest.mark.parametrize("name", sorted(reference.PROCESSES))
def test_floors_are_differences_of_block_entropies(name: str) -> None:
    matrices, start, readout = reference.PROCESSES[name]
    longest = LONGEST.get(name, 10)
    blocks = reference.block_entropies(matrices(), start, readout, longest)
    world = worlds.get(name)
    np.testing.assert_allclose(world.floor(longest - 1), np.diff(blocks)[1:], atol=1e-10)
    assert (world.floor_error(longest - 1) == 0).all()


def test_floors_equal_published_values() -> None:
    assert worlds.get("mess3").floor(9)[-1] == pytest.approx(0.7935, abs=5e-5)
    assert worlds.get("mess3", x=0.15, alpha=0.6).floor(9)[-1] == pytest.approx(1.0889, abs=5e-5)
    assert worlds.get("rrxor").entropy_rate() == pytest.approx(2 / 3 * math.log(2))
    # The third token may depend on two fair coins; from the fourth token on the place in the round is known.
    np.testing.assert_allclose(worlds.get("z1r").floor(20)[2:], math.log(2) / 3)
    assert worlds.get("z1r").entropy_rate() == pytest.approx(0.2310, abs=5e-5)


@pytest.mark.parametrize("name", ["even", "golden_mean", "rrxor", "sns", "z1r"])
def test_floors_fall_to_the_entropy_rate(name: str) -> None:
    world = worlds.get(name)
    floor = world.floor(200)
    assert (np.diff(floor) < 1e-12).all()
    tolerance = 1e-6 + 5 * world.entropy_rate_error()
    assert floor[-1] == pytest.approx(world.entropy_rate(), abs=tolerance)
    assert world.loss_floor(200) == pytest.approx(floor.mean())


def test_a_finite_tree_gives_the_exact_rate_without_unifilarity() -> None:
    # Token 0 resets and token 1 forgets: in the long run there are two beliefs, though no token fixes the next state.
    mixed = worlds.HiddenMarkovWorld("mixed", [[[0.5, 0.0], [0.3, 0.0]], [[0.25, 0.25], [0.35, 0.35]]])
    assert mixed.entropy_rate_error() == 0
    assert mixed.entropy_rate() == pytest.approx(mixed.floor(60)[-1], abs=1e-9)
    # A cycle of two, so that shares of time do not converge by themselves: half the tokens are fair coins.
    left, right = [[0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0.5, 0, 0], [0.5, 0, 0]]
    swap = worlds.HiddenMarkovWorld("swap", [left, right, right])
    assert swap.entropy_rate_error() == 0
    assert swap.entropy_rate() == pytest.approx(math.log(2) / 2)


def test_deep_floors_are_estimated_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = worlds.get("mess3").floor(8)
    monkeypatch.setattr(beliefs, "MAX_CHILDREN", 100)
    world = worlds.get("mess3")
    estimate, error = world.floor(8), world.floor_error(8)
    assert (error[:4] == 0).all()
    assert (error[4:] > 0).all()
    np.testing.assert_allclose(estimate[:4], exact[:4])
    np.testing.assert_allclose(estimate, exact, atol=4 * error.max())
    assert error.max() < 1e-3
    np.testing.assert_array_equal(estimate, worlds.get("mess3").floor(8))


def test_rates_of_infinite_trees_are_estimated() -> None:
    world = worlds.get("mess3")
    assert 0 < world.entropy_rate_error() < 3e-4
    assert world.entropy_rate() == pytest.approx(0.7935, abs=5e-4)


def test_floors_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.get("z1r")
    long = world.floor(6)
    long[:] = 0
    monkeypatch.setattr(hmm_world, "floors", None)
    assert world.floor(5)[0] > 0


def test_no_token_sequence_scores_under_the_floor_on_average() -> None:
    world = worlds.get("rrxor")
    tokens = world.sample(20_000, 9, seed=0).tokens
    predicted = np.take_along_axis(world.next_token_probs(tokens[:, :-1]), tokens[:, 1:, None], -1)
    np.testing.assert_allclose(-np.log(predicted).mean((0, 2)), world.floor(8), atol=0.01)
