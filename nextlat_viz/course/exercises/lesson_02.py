"""Lesson 2, belief: Bayes' rule for the hidden state, one token at a time."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption


def belief_update(belief, token, T):
    """Return the belief after one more token, as an array that sums to 1."""
    joint = belief @ T[token]
    return joint / joint.sum()


def _cases(rng):
    # Two states that are never left and can be told apart; then machines whose matrices are not symmetric.
    still = np.array([np.diag([0.8, 0.3]), np.diag([0.2, 0.7])])
    yield np.array([0.5, 0.5]), 0, still
    for states, tokens in [(2, 2), (3, 2), (3, 3), (4, 2), (5, 3)]:
        T = rng.random((tokens, states, states))
        T /= T.sum((0, 2), keepdims=True)
        yield rng.dirichlet(np.ones(states)), int(rng.integers(tokens)), T


def _describe(belief, token, T):
    shares = ", ".join(f"{share:.3f}" for share in belief)
    return f"a machine of {len(belief)} states; the belief is ({shares}); token {token} is read"


def _normalised(joint):
    return joint / joint.sum()


exercise = Exercise(
    belief_update,
    _cases,
    describe=_describe,
    mistakes=(
        (
            lambda belief, token, T: belief @ T[token],
            "These numbers do not sum to 1. Their sum is the probability of the token: what is left to do?",
        ),
        (
            lambda belief, token, T: _normalised(T[token] @ belief),
            "The matrix is the wrong way round. T[x][i, j] moves from i to j, and the belief is about i.",
        ),
        (
            lambda belief, token, T: belief @ T.sum(0),
            "This is where the machine may be after any token. You have seen which token it was.",
        ),
        (
            lambda belief, token, T: _normalised(belief * T[token].sum(1)),
            "You weighed the states by the token, but the machine also moved when it wrote the token.",
        ),
        (
            lambda belief, token, T: _normalised(T[token].sum(0)),
            "Every start counts the same here. The old belief says which starts are likely.",
        ),
        (
            lambda belief, token, T: belief @ T[token] / (belief @ T[token]).max(),
            "A belief sums to 1; here its largest entry is 1.",
        ),
        (
            lambda belief, token, T: _normalised(np.exp(belief @ T[token])),
            "No exponential is needed: joint probabilities become a belief when divided by their sum.",
        ),
    ),
    hints=(
        "How likely is it that the machine was in i, wrote this token and moved to j? A product for each i and j.",
        "Summing that over i is a product of a vector and a matrix. The vector comes first.",
        "What you have now sums to the probability of the token. Divide by it.",
    ),
)

prediction = RightOption(
    "after_ten_a",
    "It comes close to the corner A and stays at a distance",
    "From any state it sometimes moves away or writes another token, so no number of a's makes a reader certain.",
)
