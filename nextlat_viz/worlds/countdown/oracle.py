"""The legal tokens, their exact law and the states of Countdown episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Shaped

from nextlat_viz.worlds.countdown.arithmetic import OPERATIONS, outcomes, pairs
from nextlat_viz.worlds.countdown.verdict import take

if TYPE_CHECKING:
    from nextlat_viz.worlds.countdown.world import Countdown

MOST_NUMBERS = 4
_CHUNK = 64


def candidates(
    world: Countdown, tokens: Int[np.ndarray, "episodes positions"], *, weighted: bool = False
) -> Iterator[tuple[Int[np.ndarray, "episodes candidates"], Shaped[np.ndarray, "episodes candidates"]]]:
    """Yield candidate token ids and their weights at each position, from the first to one past the last.

    A candidate of weight 0 is not legal; a token listed twice has the sum of its weights. Nothing is legal after an
    illegal token. With ``weighted``, weights in solutions are proportional to the exact law, and the tokens must be
    legal; otherwise a positive weight only means that the token is legal.
    """
    rows, alive = np.arange(len(tokens)), np.ones((len(tokens), 1), bool)
    pool = tokens[:, : world.numbers]
    for place in range(tokens.shape[1] + 1):
        equation, part = divmod(place - world.prompt, 5)
        weights: np.ndarray = np.ones((len(tokens), 1), bool)
        if place < world.numbers:
            ids = np.arange(1, world.largest + 1)
        elif place == world.numbers:
            ids = np.arange(world.targets[0], world.targets[1] + 1)
        elif place < world.prompt:
            ids = np.array([world.pause])
        elif equation >= world.equations:
            ids = np.array([world.end])
        elif part == 0:
            if equation:
                pool = _joined(pool, tokens[:, place - 5 : place])
            ways = _ways(pool, tokens[:, world.numbers], world.limit, weighted)
            ids, weights = pool, ways.sum((2, 3))
        elif part == 1:
            ways = ways[rows, (pool == tokens[:, place - 1, None]).argmax(1)]
            ids, weights = world.plus + np.arange(len(OPERATIONS)), ways.sum(1)
        elif part == 2:
            operation = np.clip(tokens[:, place - 1] - world.plus, 0, len(OPERATIONS) - 1)
            ids, weights = pool, ways[rows, :, operation]
        elif part == 3:
            ids = np.array([world.equals])
        else:
            ids = outcomes(tokens[:, place - 4], tokens[:, place - 2], world.limit)[rows, operation][:, None]
        ids = np.broadcast_to(ids, (len(tokens), ids.shape[-1]))
        weights = np.broadcast_to(weights * alive, ids.shape)
        yield ids, weights
        if place < tokens.shape[1]:
            alive = ((ids == tokens[:, place, None]) & (weights > 0)).any(1, keepdims=True)


def states(world: Countdown, tokens: Int[np.ndarray, "episodes positions"]) -> dict[str, np.ndarray]:
    """Compute the states described in ``Countdown`` from legal tokens."""
    episodes, positions = tokens.shape
    remaining = np.full((episodes, positions, world.numbers), -1)
    target, left, value = np.full((3, episodes, positions), -1)
    for place in range(positions):
        equation, part = divmod(place - world.prompt, 5)
        if place < world.numbers:
            pool = tokens[:, : place + 1]
        elif 0 <= equation < world.equations and part == 4:
            pool = _joined(pool, tokens[:, place - 4 : place + 1])
        remaining[:, place, : pool.shape[1]] = np.sort(pool, axis=1)
    target[:, world.numbers :] = tokens[:, world.numbers : world.numbers + 1]
    for start in range(world.prompt, min(positions, world.length - 1), 5):
        left[:, start : start + 5] = tokens[:, start, None]
        if start + 2 < positions:
            possible = outcomes(tokens[:, start], tokens[:, start + 2], world.limit)
            which = tokens[:, start + 1, None] - world.plus
            value[:, start + 2 : start + 5] = np.take_along_axis(possible, which, axis=1)
    which_equation = np.clip((np.arange(positions) - world.prompt) // 5 + 1, 0, world.equations)
    return {
        "remaining": remaining,
        "target": target,
        "equation": np.tile(which_equation, (episodes, 1)),
        "left": left,
        "value": value,
    }


def _joined(
    pool: Int[np.ndarray, "episodes numbers"], equation: Int[np.ndarray, "episodes 5"]
) -> Int[np.ndarray, "episodes fewer"]:
    """The available numbers after an equation: without its operands, with its result."""
    rest = take(take(pool, equation[:, 0])[0], equation[:, 2])[0]
    return -np.sort(-np.concatenate([rest, equation[:, 4:]], axis=1), axis=1)[:, : pool.shape[1] - 1]


def _ways(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int, weighted: bool
) -> Shaped[np.ndarray, "episodes numbers numbers operations"]:
    """Probability of each left number, right number and operation, or only whether it is possible."""
    if weighted:
        return _calculation_probabilities(pool, target, limit)
    return pairs(pool, limit) >= 0


def _calculation_probabilities(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int
) -> Float[np.ndarray, "episodes numbers numbers operations"]:
    """Probability that a random calculation takes this left number, right number and operation, and ends in the target.

    The pool has no gaps. Entries sum to the probability of ending in the target.
    """
    parts = [
        _step_probabilities(pool[k : k + _CHUNK], target[k : k + _CHUNK], limit)
        for k in range(0, max(len(pool), 1), _CHUNK)
    ]
    return np.concatenate(parts)


def _step_probabilities(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int
) -> Float[np.ndarray, "episodes numbers numbers operations"]:
    size = pool.shape[1]
    values = pairs(pool, limit)
    possible = values >= 0
    chance = possible / np.maximum(possible.sum(-1, keepdims=True), 1) / (size * (size - 1))
    if size == 2:
        return chance * (values == target[:, None, None, None])
    where = np.nonzero(possible)
    episode, left, right, _ = where
    # The rest of the pool, followed by the result.
    spots = range(size)
    others = np.array([[[k for k in spots if k not in (i, j)][: size - 2] for j in spots] for i in spots])
    rest = np.concatenate([pool[episode[:, None], others[left, right]], values[where][:, None]], axis=1)
    after = _step_probabilities(rest, target[episode], limit).sum((1, 2, 3))
    chance[where] *= after
    return chance
