"""Lesson 4, the floor: cross-entropy, the loss that no model can beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nextlat_viz.course.exercise import Exercise, Prediction


def mean_loss(truth, model):
    """Return the mean cross-entropy of a model's predictions over all positions, in nats."""
    surprise = -np.log(np.where(truth > 0, model, 1))
    return (truth * surprise).sum(axis=-1).mean()


def _cases(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    yield np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])
    for positions, tokens in [(1, 3), (4, 2), (3, 4)]:
        yield rng.dirichlet(np.ones(tokens), positions), rng.dirichlet(np.ones(tokens), positions)
    # An impossible token that the model excludes too.
    yield np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.4, 0.6]])


def _describe(truth: Any, model: Any) -> str:
    def rows(table: Any) -> str:
        return "; ".join(" ".join(f"{share:.2f}" for share in row) for row in table)

    return f"true probabilities {rows(truth)}; the model's {rows(model)} (a position between two semicolons)"


def _in_bits(truth, model):
    return mean_loss(truth, model) / np.log(2)


def _swapped(truth, model):
    return mean_loss(model, np.where(model > 0, truth, 1))


def _no_minus(truth, model):
    return -mean_loss(truth, model)


def _entropy(truth, model):
    return mean_loss(truth, truth)


def _summed(truth, model):
    return mean_loss(truth, model) * len(truth)


def _mean_of_all(truth, model):
    return mean_loss(truth, model) / truth.shape[-1]


def _excess(truth, model):
    return mean_loss(truth, model) - mean_loss(truth, truth)


def _zero_times_infinity(truth, model):
    return -(truth * np.log(model)).sum(axis=-1).mean()


def _a_loss_per_position(truth, model):
    return -(truth * np.log(np.where(truth > 0, model, 1))).sum(axis=-1)


EXERCISES = (
    Exercise(
        mean_loss,
        _cases,
        describe=_describe,
        mistakes=(
            (_in_bits, "This is in bits. A nat is a unit of the natural logarithm, np.log."),
            (
                _swapped,
                "You took the logarithm of the truth. The surprise is the model's; the truth says how often it comes.",
            ),
            (_no_minus, "A logarithm of a probability is negative; a surprise is not."),
            (_entropy, "The model does not occur in this: it is the entropy of the truth, the floor."),
            (_summed, "This is the sum over positions. The task asks for the mean."),
            (_mean_of_all, "You took the mean over tokens too. Over the tokens of one position it is a sum."),
            (_excess, "This is how far the loss lies above the floor. The loss includes the floor."),
            (
                _zero_times_infinity,
                "Where a token is impossible you multiply 0 by the logarithm of 0. It should count 0.",
            ),
            (_a_loss_per_position, "Here is a loss for each position. The mean of them is asked for."),
        ),
        hints=(
            "The surprise of a token is minus the natural logarithm of the model's probability for it.",
            "Multiply each surprise by the true probability, and add these up over the tokens: axis=-1.",
            "Then take the mean over positions. Tokens of true probability 0 count 0: np.where keeps log 0 away.",
        ),
    ),
)

PREDICTIONS = (
    Prediction(
        "where_the_loss_ends",
        "It comes down to the floor, about 0.574, and stays above it",
        "The floor is the loss of a reader who knows the machine and forgets nothing. The rest is chance, which no "
        "amount of training predicts.",
    ),
)
