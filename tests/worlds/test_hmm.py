from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nextlat_viz import worlds
from nextlat_viz.worlds.kernel import invert
from tests.worlds import reference

CLASSICAL = ["even", "golden_mean", "mess3", "rrxor", "sns", "z1r"]
ALL = [*CLASSICAL, "bloch_walk"]
SAMPLES = {
    "even": "3033b067826f7123",
    "golden_mean": "2cc0bfa818e52b00",
    "mess3": "bdc125514a542cd4",
    "rrxor": "de4b1b9c672afdb6",
    "sns": "cf63dcba588504f7",
    "z1r": "e933058fd1634c90",
    "bloch_walk": "7cd4a777280630c3",
}


@settings(max_examples=50)
@given(st.sampled_from(ALL), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**63))
def test_samples_are_legal_and_reproducible(name: str, n: int, length: int, seed: int) -> None:
    world = worlds.get(name)
    episodes = world.sample(n, length, seed)
    assert episodes.tokens.shape == (n, length)
    np.testing.assert_array_equal(episodes.states["belief"], world.belief(episodes.tokens))
    legal = world.legal_next(episodes.tokens[:, :-1])
    assert np.take_along_axis(legal, episodes.tokens[:, 1:, None], -1).all()
    again = world.sample(n, length, seed)
    assert again.sha256 == episodes.sha256
    for key, values in episodes.states.items():
        assert again.states[key].tobytes() == values.tobytes()


@settings(max_examples=40)
@given(st.sampled_from(CLASSICAL), st.integers(0, 2**32))
def test_hidden_states_fit_the_tokens(name: str, seed: int) -> None:
    world = worlds.get(name)
    episodes = world.sample(4, 10, seed)
    state = episodes.states["state"]
    moves = world.transitions[episodes.tokens[:, 1:], state[:, :-1], state[:, 1:]]
    assert (moves > 0).all()
    assert (np.take_along_axis(episodes.states["belief"], state[..., None], -1) > 0).all()


def test_another_seed_gives_other_bytes() -> None:
    world = worlds.get("mess3")
    assert len({world.sample(4, 32, seed).sha256 for seed in range(50)}) == 50


def test_more_episodes_begin_with_the_same_ones() -> None:
    for name in ALL:
        world = worlds.get(name)
        many, few = world.sample(50, 9, seed=3), world.sample(7, 9, seed=3)
        np.testing.assert_array_equal(many.tokens[:7], few.tokens)


def test_states_can_be_left_out() -> None:
    world = worlds.get("rrxor")
    bare = world.sample(5, 8, seed=2, states=False)
    assert bare.states == {}
    np.testing.assert_array_equal(bare.tokens, world.sample(5, 8, seed=2).tokens)


def test_a_seed_means_the_same_bytes_on_every_machine() -> None:
    # Shipped checkpoints are compared on episodes sampled elsewhere: this hash must never change.
    digests = {name: worlds.get(name).sample(16, 8, seed=0).sha256[:16] for name in ALL}
    assert digests == SAMPLES


@pytest.mark.parametrize("name", ALL)
def test_sequence_frequencies_fit_the_law(name: str) -> None:
    matrices, start, readout = reference.PROCESSES[name]
    t, length, n = matrices(), 4, 20_000
    tokens = worlds.get(name).sample(n, length, seed=11, states=False).tokens
    counts = np.bincount(tokens @ len(t) ** np.arange(length)[::-1], minlength=len(t) ** length)
    expected = []
    for code in range(len(t) ** length):
        word = [code // len(t) ** place % len(t) for place in range(length)][::-1]
        row = np.array(start, float)
        for token in word:
            row = row @ t[token]
        expected.append(n * (row @ readout))
    expected = np.array(expected)
    assert counts[expected < 1e-9].sum() == 0
    # Rare sequences are pooled: the test's approximation needs about five of each.
    rare = expected < 8
    observed = np.append(counts[~rare], counts[rare].sum())
    target_values = np.append(expected[~rare], expected[rare].sum())
    keep = target_values > 1e-9
    assert chisquare(observed[keep], target_values[keep] * n / target_values[keep].sum()).pvalue > 1e-3


@pytest.mark.parametrize("name", CLASSICAL)
def test_hidden_state_frequencies_fit_the_belief(name: str) -> None:
    world = worlds.get(name)
    episodes = world.sample(10_000, 6, seed=5)
    for position in (0, 5):
        state = np.eye(world.n_states)[episodes.states["state"][:, position]]
        np.testing.assert_allclose(state.mean(0), world.stationary, atol=0.02)
        # A state with this probability is the true one that often.
        belief = episodes.states["belief"][:, position]
        np.testing.assert_allclose((state - belief).T @ belief / len(state), 0, atol=0.02)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("name", ["mess3", "bloch_walk"])
def test_long_sequences_stay_exact(name: str) -> None:
    world = worlds.get(name)
    # Unlikely but possible sequences: in these two worlds any token may follow any other.
    tokens = np.random.default_rng(1).integers(world.n_tokens, size=(1, 100_000))
    beliefs = world.belief(tokens)
    np.testing.assert_allclose(beliefs @ world.readout, 1, atol=1e-12)
    probabilities = world.kernel.predict(beliefs[0])
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-12)
    # The belief forgets its start: one that begins later converges to the same value.
    np.testing.assert_allclose(world.belief(tokens[:, -2000:])[0, -1], beliefs[0, -1], atol=1e-12)


def test_rare_tokens_do_not_underflow() -> None:
    rare = worlds.HiddenMarkovWorld("rare", [[[1 - 1e-300, 0], [0.5, 0]], [[0, 1e-300], [0, 0.5]]])
    belief = rare.belief(np.array([[0, 1, 1, 1, 0]]))
    np.testing.assert_allclose(belief.sum(-1), 1)


def test_belief_takes_a_start() -> None:
    world = worlds.get("even")
    assert world.belief(np.array([[1]]), start=[1.0, 0.0]).tolist() == [[[0.0, 1.0]]]
    with pytest.raises(ValueError, match=r"start must be one belief, of shape \(2,\), got shape \(3, 2\)"):
        world.belief(np.array([[1]]), start=[[1.0, 0.0]] * 3)


def test_predictions_of_a_belief() -> None:
    world = worlds.get("golden_mean", p=0.25)
    np.testing.assert_allclose(world.predict([[1.0, 0.0], [0.0, 1.0]]), [[0.75, 0.25], [1.0, 0.0]])
    with pytest.raises(ValueError, match="the belief is not one of this process"):
        worlds.get("bloch_walk").predict([1.0, 5.0, 0.0])


@pytest.mark.parametrize(
    ("transitions", "message"),
    [
        ([[[0.5, 0], [0, 0.4]]], "must have eigenvalue 1"),
        ([[[1, 1], [0, 1]]], "must be simple"),
        (
            [[[1.5, 0.1], [0, 0.2]], [[-0.5, 0.1], [0, 0.2]]],
            r"a token has probability -0\.\d+: the transitions do not define a process",
        ),
    ],
)
def test_generalised_matrices_without_a_process_are_refused(transitions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.HiddenMarkovWorld("broken", transitions, generalised=True)


@pytest.mark.parametrize("name", CLASSICAL)
def test_moves_equal_those_drawn_by_inverting_all_pairs(name: str) -> None:
    kernel = worlds.get(name).kernel
    rng = np.random.default_rng(5)
    state = rng.integers(len(kernel.start), size=20_000)
    # Ends of the unit interval and of every choice among them.
    edges = kernel.joint.cumsum(-1).ravel()
    special = np.clip(np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1), [0.0]]), 0, 1 - 2**-53)
    uniform = np.concatenate([np.resize(special, 5000), rng.random(15_000)])
    token, target = kernel.moves.draw(state, uniform)
    expected = np.divmod(invert(kernel.joint.cumsum(-1)[state], uniform), len(kernel.start))
    np.testing.assert_array_equal(token, expected[0])
    np.testing.assert_array_equal(target, expected[1])
