"""Lesson 4, the floor: cross-entropy, the loss that no model can beat."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption


def mean_loss(truth, model):
    """Return the mean cross-entropy of a model's predictions over all positions, in nats."""
    surprise = -np.log(np.where(truth > 0, model, 1))
    return (truth * surprise).sum(axis=-1).mean()


def _cases(rng):
    yield np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])
    for positions, tokens in [(1, 3), (4, 2), (3, 4)]:
        yield rng.dirichlet(np.ones(tokens), positions), rng.dirichlet(np.ones(tokens), positions)
    # An impossible token that the model excludes too.
    yield np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.4, 0.6]])


def _describe(truth, model):
    def rows(table):
        return "; ".join(" ".join(f"{share:.2f}" for share in row) for row in table)

    return f"true probabilities {rows(truth)}; the model's {rows(model)} (a position between two semicolons)"


exercise = Exercise(
    mean_loss,
    _cases,
    describe=_describe,
    mistakes=(
        (
            lambda truth, model: mean_loss(truth, model) / np.log(2),
            "This is in bits. A nat is a unit of the natural logarithm, np.log.",
        ),
        (
            lambda truth, model: mean_loss(model, np.where(model > 0, truth, 1)),
            "You took the logarithm of the truth. Take the model's logarithm, and use the truth as the weight.",
        ),
        (lambda truth, model: -mean_loss(truth, model), "A logarithm of a probability is negative; a surprise is not."),
        (
            lambda truth, model: mean_loss(truth, truth),
            "The model does not occur in this: it is the entropy of the truth, the floor.",
        ),
        (
            lambda truth, model: mean_loss(truth, model) * len(truth),
            "This is the sum over positions. The task asks for the mean.",
        ),
        (
            lambda truth, model: mean_loss(truth, model) / truth.shape[-1],
            "You took the mean over tokens too. Take the sum over the tokens of one position.",
        ),
        (
            lambda truth, model: mean_loss(truth, model) - mean_loss(truth, truth),
            "This is how far the loss lies above the floor. The loss includes the floor.",
        ),
        (
            lambda truth, model: -(truth * np.log(model)).sum(axis=-1).mean(),
            "For an impossible token you multiply 0 by the logarithm of 0. It should count 0.",
        ),
        (
            lambda truth, model: -(truth * np.log(np.where(truth > 0, model, 1))).sum(axis=-1),
            "This is a loss for each position. The task asks for their mean.",
        ),
    ),
    hints=(
        "The surprise of a token is minus the natural logarithm of the model's probability for it.",
        "Multiply each surprise by the true probability, and add these up over the tokens: axis=-1.",
        "Then take the mean over positions. Tokens of true probability 0 count 0: np.where keeps log 0 away.",
    ),
)

prediction = RightOption(
    "where_the_loss_ends",
    "It comes down to the floor, about 0.574, and stays above it",
    "The floor is the loss of a reader who knows the machine and forgets nothing. The rest is chance, which no "
    "amount of training predicts.",
)
