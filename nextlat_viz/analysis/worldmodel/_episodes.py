"""What every measure here asks first: how long an episode is, which are held out, and how one ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from nextlat_viz.decoding import Predictor
from nextlat_viz.decoding.predictor import as_predictors
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.taxi.world import Taxi

END = "end"
"""The token that ends an episode, in the worlds whose episodes end."""

_DRAWS_PER_PROMPT = 4


def measured(models: Any) -> list[Predictor]:
    """The predictors to measure, of one world, if each predicts numbers.

    Raises
    ------
    ValueError
        If there are none, they are of different worlds, or one predicts NaN: it would just seem to know nothing.
    """
    predictors = as_predictors(models)
    world = predictors[0].world
    one = world.sample(1, 2 if world.length is None else None, states=False)
    opening = one.tokens[:, : 1 + int(one.loss_mask[0, 1:].argmax())]
    for predictor in predictors:
        if not np.isfinite(predictor.next_token_probs(opening)).all():
            raise ValueError(
                f"{predictor.name} predicts NaN or infinity: was it trained too fast? Measure another checkpoint"
            )
    return predictors


def held_out_split(world: World) -> str:
    """The split that no model was trained on, where there is one."""
    return "test" if "test" in world.splits else world.splits[0]


def end_token(world: World) -> int | None:
    """The id of ``end``; None where episodes have no end."""
    return world.vocabulary.index(END) if END in world.vocabulary else None


def require_end(world: World, measure: str) -> int:
    """The id of ``end``, or an error where episodes have no end."""
    end = end_token(world)
    if end is None:
        raise ValueError(
            f"{measure} needs episodes that end, and those of world {world.name!r} have no {END!r} token: use a world "
            "such as 'taxi'"
        )
    return end


def positive(argument: str, value: int) -> int:
    """The value as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{argument}={value!r} must be an integer of at least 1")
    return int(value)


def threshold(eps: float) -> float:
    """`eps`, if it is a probability under which a token can be called rejected."""
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps!r} must be above 0 and below 1: a token is accepted when it is likelier than that")
    return float(eps)


def require_next_token(world: World, measure: str) -> None:
    """Raise unless models of the world predict what comes next, so that a prediction can be legal or not."""
    if not world.predicts_next_token:
        raise ValueError(
            f"{measure} asks whether the next token is legal, but models of world {world.name!r} predict targets, not "
            "the next token: use a world that predicts_next_token"
        )


def require_taxi(world: World, measure: str) -> Taxi:
    """The world, if it has streets."""
    if not isinstance(world, Taxi):
        raise ValueError(
            f"{measure} needs streets and a destination, which world {world.name!r} lacks: use models of a taxi world"
        )
    return world


def episode_length(predictors: Sequence[Predictor], length: int | None) -> int:
    """Tokens of an episode: as asked for, the world's own, or as many as every model can be asked about."""
    world = predictors[0].world
    if length is not None:
        return positive("length", length)
    if world.length is not None:
        return world.length
    contexts = [one.context for one in predictors if one.context is not None]
    if not contexts:
        raise ValueError(
            f"length is needed: episodes of world {world.name!r} are as long as asked for, and these models read any"
        )
    return min(contexts) + 1


def within_context(predictors: Sequence[Predictor], length: int) -> int:
    """Tokens of an episode that every model can be asked about: one more than it reads."""
    return min([length, *(one.context + 1 for one in predictors if one.context is not None)])


def prompt_length(episodes: Episodes, world: World) -> int:
    """Tokens before the first that is to be predicted, the same in every episode."""
    scored = episodes.loss_mask.copy()
    scored[:, 0] = False
    first = scored.argmax(axis=1)
    if not scored.any(axis=1).all() or np.ptp(first):
        raise ValueError(f"episodes of world {world.name!r} have no prompt of one length to continue from")
    return int(first[0])


def prompts(world: World, n: int, seed: int, measure: str) -> Int[np.ndarray, "n prompt"]:
    """Up to `n` different held-out prompts in random order; fewer where there are no more.

    Raises
    ------
    ValueError
        If episodes of the world do not end, or a legal end is not a success.
    """
    require_end(world, measure)
    if world.name == "countdown":
        raise ValueError(
            f"{measure} needs a world where every legal episode that ends has reached its goal: in world 'countdown' "
            "true arithmetic may miss the target; ask Countdown.verify"
        )
    require_next_token(world, measure)
    # Many are the same where there are few: drawn in the world's own way, then each taken once.
    drawn = world.sample(_DRAWS_PER_PROMPT * positive("n", n), seed=seed, split=held_out_split(world), states=False)
    opening = drawn.tokens[:, : prompt_length(drawn, world)]
    _, first = np.unique(opening, axis=0, return_index=True)
    return opening[np.sort(first)][:n]
