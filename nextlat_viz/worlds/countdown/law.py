"""The exact law of a solution's next step, by going through every way to go on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.countdown.arithmetic import pairs

MOST_NUMBERS = 4
_CHUNK = 64


def choices(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int
) -> Float[np.ndarray, "episodes numbers numbers operations"]:
    """Probability that a random calculation takes this left number, right number and operation and ends in the target.

    The pool holds only what is left, without gaps. Entries sum to the probability of ending in the target.
    """
    parts = [_choices(pool[k : k + _CHUNK], target[k : k + _CHUNK], limit) for k in range(0, max(len(pool), 1), _CHUNK)]
    return np.concatenate(parts)


def _choices(
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
    # What is left of the pool, and the result behind it.
    spots = range(size)
    others = np.array([[[k for k in spots if k not in (i, j)][: size - 2] for j in spots] for i in spots])
    rest = np.concatenate([pool[episode[:, None], others[left, right]], values[where][:, None]], axis=1)
    after = _choices(rest, target[episode], limit).sum((1, 2, 3))
    chance[where] *= after
    return chance
