"""Lesson 9, planning and tracking: psi as a recurrent network."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption


def unroll(psi, state, embeddings):
    """Return the state after each token, (T, D), as psi reads them one after another."""
    states = []
    for embedding in embeddings:
        state = psi(state, embedding)
        states.append(state)
    return np.array(states)


def _leaky(state, embedding):
    """Stand in for psi: half of the state, and the token."""
    return 0.5 * state + embedding


def _turning(state, embedding):
    """Stand in for psi: the state turned by one place, changed by the token."""
    return np.tanh(np.roll(state, 1) - 0.7 * embedding * state + embedding)


def _cases(rng):
    # By hand: 1 -> 1.5 -> 1.75. Then longer ones.
    yield _leaky, np.array([1.0]), np.array([[1.0], [1.0]])
    for psi, width, length in [(_leaky, 2, 3), (_turning, 3, 5), (_turning, 4, 30)]:
        yield psi, rng.normal(size=width), rng.normal(size=(length, width))


def _describe(psi, state, embeddings):
    first = ", ".join(f"{number:.2f}" for number in state)
    if psi is _leaky:
        return f"psi(h, e) = 0.5 h + e; the first state is ({first}); the tokens are {np.round(embeddings, 2).tolist()}"
    return f"another psi; a first state of {len(state)} numbers; {len(embeddings)} tokens"


def _states_before_the_tokens(psi, state, embeddings):
    states = []
    for embedding in embeddings:
        states.append(state)
        state = psi(state, embedding)
    return np.array(states)


def _change_added_twice(psi, state, embeddings):
    states = []
    for embedding in embeddings:
        state = state + psi(state, embedding)
        states.append(state)
    return np.array(states)


exercise = Exercise(
    unroll,
    _cases,
    describe=_describe,
    mistakes=(
        (
            lambda psi, state, embeddings: np.array([psi(state, embedding) for embedding in embeddings]),
            "Every token is read from the first state. Read the next one from the state that psi has just given.",
        ),
        (_states_before_the_tokens, "This is the state before each token. Keep it after psi has read the token."),
        (
            lambda psi, state, embeddings: np.concatenate([state[None], unroll(psi, state, embeddings)]),
            "The first state, before any token, is among them. Return one state for each token.",
        ),
        (_change_added_twice, "psi gives the next state itself: h + f(h, e) is inside psi. Do not add h again."),
        (
            lambda psi, state, embeddings: unroll(psi, np.zeros_like(state), embeddings),
            "It begins from zeros. The first state is an argument.",
        ),
        (
            lambda psi, state, embeddings: unroll(psi, state, embeddings)[-1],
            "This is the last state alone. Keep the state after every token.",
        ),
        (
            lambda psi, state, embeddings: unroll(psi, state, embeddings[::-1]),
            "The tokens are read from the last to the first.",
        ),
    ),
    hints=(
        "A recurrent network is a loop: a state goes in with a token, the next state comes out.",
        "for embedding in embeddings: state = psi(state, embedding).",
        "Keep each state in a list, after the token has been read, and return np.array(states).",
    ),
)

prediction = RightOption(
    "past_training_length",
    "NextLat's psi, rolled out alone",
    "Past ten tokens a transformer meets positions that it was never trained on. psi has no positions: if one step "
    "is right, so is the next.",
)
