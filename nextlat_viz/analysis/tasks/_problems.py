"""Held-out problems of a task, and what a model answers."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from nextlat_viz.decoding.generation import generate
from nextlat_viz.decoding.predictor import Predictor, as_predictors
from nextlat_viz.worlds import World

W = TypeVar("W", bound=World)


def of_world(models: Any, kind: type[W], measure: str, example: str) -> tuple[list[Predictor], W]:
    """The models and their world, which has to be of a kind.

    Raises
    ------
    ValueError
        If it is of another.
    """
    predictors = as_predictors(models)
    world = predictors[0].world
    if not isinstance(world, kind):
        raise ValueError(
            f"{measure} is measured on {kind.__name__}, and {predictors[0].name} is of world {world.name!r}: give "
            f"models of a world such as {example!r}"
        )
    return predictors, world


def check_n(n: int) -> int:
    """The number of problems, if there are any."""
    if n < 1:
        raise ValueError(f"n={n} must be at least 1: so many held-out problems are asked")
    return n


def answers(
    predictor: Predictor, prompts: Int[np.ndarray, "n t"], length: int, stop: int, temperature: float, seed: int
) -> Int[np.ndarray, "n length"]:
    """Prompts and what the model makes of them, -1 after the end: always so many tokens."""
    made = generate(predictor, prompts, length - prompts.shape[1], temperature=temperature, stop=stop, seed=seed).tokens
    return np.pad(made, ((0, 0), (0, length - made.shape[1])), constant_values=-1)
