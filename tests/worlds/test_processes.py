from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nextlat_viz import worlds
from tests.worlds import reference

NAMES = sorted(reference.PROCESSES)
OTHERS = [
    ("rrxor", {"p1": 0.3, "p2": 0.8}),
    ("mess3", {"x": 0.15, "alpha": 0.6}),
    ("z1r", {"p": 0.2}),
    ("even", {"p": 0.7}),
    ("golden_mean", {"p": 0.1}),
    ("sns", {"p": 0.3, "q": 0.6}),
    ("bloch_walk", {"alpha": 2.0, "beta": 3.0}),
]


@pytest.mark.parametrize(("name", "params"), [(name, {}) for name in NAMES] + OTHERS)
def test_matrices_equal_those_of_the_literature(name: str, params: dict[str, float]) -> None:
    matrices, _, _ = reference.PROCESSES[name]
    np.testing.assert_allclose(worlds.get(name, **params).transitions, matrices(**params), atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_start_and_readout(name: str) -> None:
    _, start, readout = reference.PROCESSES[name]
    world = worlds.get(name)
    np.testing.assert_allclose(world.stationary, start, atol=1e-14)
    np.testing.assert_allclose(world.readout, readout, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_beliefs_and_predictions_agree_with_sums_over_every_hidden_path(name: str) -> None:
    matrices, start, readout = reference.PROCESSES[name]
    t, world = matrices(), worlds.get(name)
    length = 3 if name == "bloch_walk" else 4
    for tokens in product(range(len(t)), repeat=length):
        chances = [reference.probability(t, start, readout, tokens[:n]) for n in range(length + 1)]
        if chances[-1] < 1e-12:
            with pytest.raises(ValueError, match="cannot happen"):
                world.belief(np.array([tokens]))
            continue
        beliefs, predictions = world.belief(np.array([tokens]))[0], world.next_token_probs(np.array([tokens]))[0]
        for n in (1, length - 1) if name == "rrxor" else range(1, length + 1):
            expected = np.array(reference.weights(t, start, tokens[:n])) / chances[n]
            np.testing.assert_allclose(beliefs[n - 1], expected, atol=1e-12)
        for n in range(1, length):
            assert predictions[n - 1, tokens[n]] == pytest.approx(chances[n + 1] / chances[n], abs=1e-12)


@pytest.mark.parametrize(("name", "count"), [("rrxor", 36), ("z1r", 7)])
def test_published_numbers_of_reachable_beliefs(name: str, count: int) -> None:
    tree = worlds.get(name).reachable_beliefs(max_depth=12)
    assert (len(tree), tree.closed) == (count, True)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rrxor", {"p1": 0.0, "p2": 1.0}),
        ("mess3", {"x": 0.5, "alpha": 1.0}),
        ("z1r", {"p": 1.0}),
        ("golden_mean", {"p": 1.0}),
    ],
)
def test_parameters_at_the_edge_of_their_range_are_worlds_too(name: str, params: dict[str, float]) -> None:
    world = worlds.get(name, **params)
    episodes = world.sample(20, 10, seed=0)
    np.testing.assert_allclose(episodes.states["belief"].sum(-1), 1, atol=1e-12)
    assert world.entropy_rate() <= world.loss_floor(5) + 1e-12
