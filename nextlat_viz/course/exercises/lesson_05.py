"""Lesson 5, inside a transformer: principal components of hidden states."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption, agree, as_numbers


def pca(X):
    """Return the coordinates of the rows of X along their two directions of largest variance."""
    centred = X - X.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T


def _cases(rng):
    for rows, columns in [(6, 3), (40, 5), (30, 30)]:
        spread = np.sort(rng.uniform(0.1, 3, columns))
        turned, _ = np.linalg.qr(rng.normal(size=(columns, columns)))
        yield (rng.normal(size=(rows, columns)) * spread @ turned + rng.normal(size=columns) * 2,)


def _describe(X):
    return f"{len(X)} points of {X.shape[1]} numbers, with mean {np.linalg.norm(X.mean(0)):.2f} away from the origin"


def _up_to_sign(expected, got):
    """Return whether two layouts agree up to the sign of each axis: a direction has no sign."""
    mine, theirs = as_numbers(expected), as_numbers(got)
    if mine is None or theirs is None or mine.shape != theirs.shape or mine.ndim != 2:
        return agree(expected, got)
    return agree(mine, theirs * np.where((mine * theirs).sum(0) < 0, -1, 1))


def _decomposed(X):
    return np.linalg.svd(X - X.mean(axis=0), full_matrices=False)


def _all_components(X):
    centred = X - X.mean(axis=0)
    return centred @ _decomposed(X)[2].T


exercise = Exercise(
    pca,
    _cases,
    describe=_describe,
    compare=_up_to_sign,
    mistakes=(
        (
            lambda X: X @ np.linalg.svd(X, full_matrices=False)[2][:2].T,
            "The points are not centred: the first direction then points from the origin to their mean.",
        ),
        (
            lambda X: X @ _decomposed(X)[2][:2].T,
            "The directions are right, but you projected points whose mean is not subtracted.",
        ),
        (
            lambda X: (X - X.mean(axis=0)) @ _decomposed(X)[2][:, :2],
            "In np.linalg.svd the directions are the rows of the last result, not its columns.",
        ),
        (
            lambda X: (X - X.mean(axis=0)) @ np.linalg.eigh(np.cov(X.T))[1][:, :2],
            "These are the directions of smallest variance: np.linalg.eigh puts the largest last.",
        ),
        (lambda X: _decomposed(X)[0][:, :2], "Both axes have the same spread here: the singular values are missing."),
        (
            lambda X: pca((X - X.mean(axis=0)) / X.std(axis=0)),
            "You divided every column by its spread. PCA keeps large directions large.",
        ),
        (lambda X: X[:, :2], "These are the first two numbers of each point, whatever the other columns hold."),
        (
            lambda X: _decomposed(X)[2][:2],
            "These are the two directions. The task asks for each point's coordinates along them.",
        ),
        (_all_components, "These are all the components. The task asks for the first two."),
    ),
    hints=(
        "Subtract the mean of the rows first, so that the cloud lies around the origin.",
        "np.linalg.svd(centred, full_matrices=False) returns U, S, Vt. The rows of Vt are the directions.",
        "The coordinate of a point along a direction is their dot product: one matrix product gives all of them.",
    ),
)

prediction = RightOption(
    "two_seeds",
    "They look different, but turned and scaled onto each other they match",
    "A rotation of the hidden numbers leaves the loss unchanged, so each seed ends with different axes. The "
    "triangle of beliefs is the same.",
)
