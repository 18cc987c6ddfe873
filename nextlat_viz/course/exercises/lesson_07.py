"""Lesson 7, predicting is not knowing: two histories with one belief that a model keeps far apart."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption, agree


def farthest_pair(beliefs, hidden):
    """Return the numbers (i, j) of two rows with the same belief whose hidden states lie farthest apart."""
    same = np.abs(beliefs[:, None] - beliefs[None, :]).max(axis=-1) < 1e-8
    distance = np.linalg.norm(hidden[:, None] - hidden[None, :], axis=-1)
    i, j = np.unravel_index(np.where(same, distance, 0).argmax(), same.shape)
    return int(i), int(j)


def _cases(rng):
    # Three histories of two beliefs, by hand; then more, whose equal beliefs were reached by different sums.
    certain = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    yield certain, np.array([[0.0, 0.0], [3.0, 3.0], [1.0, 0.0], [3.0, 1.0]])
    for rows, states, width in [(8, 3, 2), (12, 3, 4), (20, 5, 6), (30, 4, 3)]:
        # Two beliefs have one likeliest state, two the other.
        known = np.sort(rng.dirichlet(np.ones(states), size=4), axis=1)
        known[2:] = known[2:, ::-1]
        beliefs = known[np.arange(rows) % 4] + rng.uniform(-1e-15, 1e-15, (rows, states))
        yield beliefs, rng.normal(size=(rows, width))


def _describe(beliefs, hidden):
    return (
        f"{len(beliefs)} histories; beliefs over {beliefs.shape[1]} states; hidden states of {hidden.shape[1]} numbers"
    )


def _same_pair(expected, got):
    """Compare pairs in either order."""
    pair = np.asarray(got)
    return pair.shape == (2,) and agree(sorted(expected), sorted(pair.tolist()))


def _same(beliefs):
    return np.abs(beliefs[:, None] - beliefs).max(axis=-1) < 1e-8


def _distances(hidden):
    return np.linalg.norm(hidden[:, None] - hidden, axis=-1)


def _largest(table):
    return np.unravel_index(table.argmax(), table.shape)


exercise = Exercise(
    farthest_pair,
    _cases,
    describe=_describe,
    compare=_same_pair,
    mistakes=(
        (
            lambda beliefs, hidden: _largest(_distances(hidden)),
            "These two lie farthest apart of all, but their beliefs differ, so they should.",
        ),
        (
            lambda beliefs, hidden: _largest((beliefs[:, None] == beliefs).all(axis=-1) * _distances(hidden)),
            "Equal beliefs that were computed along different histories differ in the sixteenth digit, and == "
            "takes them for different. Allow a difference of 1e-8.",
        ),
        (
            lambda beliefs, hidden: _largest(
                np.where(_same(beliefs) & ~np.eye(len(beliefs), dtype=bool), -_distances(hidden), -np.inf)
            ),
            "This is the closest pair. The pair that the model separates most is the farthest.",
        ),
        (
            lambda beliefs, hidden: _largest(np.where(_same(beliefs), -_distances(hidden), -np.inf)),
            "A history is no pair with itself: its distance to itself is 0.",
        ),
        (
            lambda beliefs, hidden: _largest(
                (beliefs.argmax(axis=1)[:, None] == beliefs.argmax(axis=1)) * _distances(hidden)
            ),
            "These beliefs have the same likeliest state and are not the same. Compare all entries.",
        ),
        (
            lambda beliefs, hidden: _largest(~_same(beliefs) * _distances(hidden)),
            "These two have different beliefs. Keep the pairs where the beliefs are the same.",
        ),
    ),
    hints=(
        "You need two square tables with a row and a column for every history: whether two beliefs are the same, "
        "and how far apart two hidden states are.",
        "beliefs[:, None] - beliefs[None, :] is the difference of every belief to every other. It is nowhere "
        "larger than 1e-8 where two are the same.",
        "Put 0 where the beliefs differ, np.where(same, distance, 0), and find the largest entry: "
        "np.unravel_index(table.argmax(), table.shape).",
    ),
)

prediction = RightOption(
    "same_loss",
    "NextLat",
    "Both losses are at the floor, so the loss does not tell. In every seed NextLat holds histories of one belief "
    "closer together, and a linear map reads the belief from it.",
)
