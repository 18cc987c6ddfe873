"""The tree of reachable beliefs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.kernel import Kernel

# Beliefs that agree to about 1e-12 count as equal. Divided by pi because beliefs of fair coins are multiples of powers
# of two, which must not fall on the border between two keys.
_KEY_SCALE = 1e12 / np.pi


class Level(NamedTuple):
    """The distinct beliefs after a number of tokens, and their probabilities.

    ``parent`` is an index into the previous level; ``token`` leads from there to the belief.
    """

    beliefs: Float[np.ndarray, "beliefs states"]
    probability: Float[np.ndarray, " beliefs"]
    parent: Int[np.ndarray, " beliefs"]
    token: Int[np.ndarray, " beliefs"]


@dataclass(frozen=True, eq=False)
class BeliefTree:
    """The distinct beliefs reachable from the stationary start, in breadth-first order.

    Attributes
    ----------
    beliefs : float64 array (beliefs, states)
        The start, before any token, is first.
    depth : int64 array (beliefs,)
        Length of the shortest token sequence that leads to the belief; 0 for the start.
    prefixes : tuple of tuples of int
        The shortest token sequence to each belief, the first in lexicographic order of ids.
    probability : float64 array (beliefs,)
        Probability of the belief, averaged over the depths 0..max_depth; sums to 1.
    closed : bool
        True if no token leads to a belief outside the tree: it is the whole, finite set.
    """

    beliefs: Float[np.ndarray, "beliefs states"]
    depth: Int[np.ndarray, " beliefs"]
    prefixes: tuple[tuple[int, ...], ...]
    probability: Float[np.ndarray, " beliefs"]
    closed: bool

    def __len__(self) -> int:
        return len(self.beliefs)


def root(belief: Float[np.ndarray, " states"]) -> Level:
    """The level before any token, with one belief."""
    return Level(belief[None, :].copy(), np.ones(1), np.full(1, -1), np.full(1, -1))


def grow(level: Level, kernel: Kernel) -> Level:
    """The next level: the children of all beliefs, equal ones merged and their probabilities added."""
    futures = kernel.futures(level.beliefs)
    chance = kernel.chances(futures @ kernel.readout)
    alive = chance > 0
    parent, token = np.nonzero(alive)
    beliefs = futures[alive] / chance[alive][:, None]
    probability = level.probability[parent] * chance[alive]
    _, first, inverse = np.unique(keys(beliefs), return_index=True, return_inverse=True)
    # np.unique sorts by key; restore the order of first appearance, by parent and token.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = first[order]
    merged = np.bincount(rank[inverse], weights=probability, minlength=len(first))
    return Level(beliefs[first], merged, parent[first], token[first])


def keys(beliefs: Float[np.ndarray, "beliefs states"]) -> Int[np.ndarray, " beliefs"]:
    """One integer per belief, equal for equal beliefs; different beliefs collide with probability 1e-19."""
    odd = np.random.default_rng(0).integers(1 << 62, size=beliefs.shape[1]) * 2 + 1
    return np.rint(beliefs * _KEY_SCALE).astype(np.int64) @ odd


def reachable(kernel: Kernel, max_depth: int, max_beliefs: int) -> BeliefTree:
    """Search the beliefs breadth first, one level at a time.

    Raises
    ------
    ValueError
        If there are more than ``max_beliefs``.
    """
    level = root(kernel.start)
    place_of = {int(keys(level.beliefs)[0]): 0}
    beliefs, depths, visits = [kernel.start], [0], [1.0]
    prefixes: list[tuple[int, ...]] = [()]
    numbers, closed = [0], False
    for depth in range(1, max_depth + 1):
        before = len(beliefs)
        level = grow(level, kernel)
        next_numbers = []
        for k, key in enumerate(keys(level.beliefs).tolist()):
            place = place_of.setdefault(key, len(beliefs))
            if place == len(beliefs):
                beliefs.append(level.beliefs[k])
                depths.append(depth)
                prefixes.append((*prefixes[numbers[level.parent[k]]], int(level.token[k])))
                visits.append(0.0)
            visits[place] += level.probability[k]
            next_numbers.append(place)
        numbers = next_numbers
        # The children of known beliefs are known, so the search is complete after a level without new beliefs.
        closed = closed or len(beliefs) == before
        if len(beliefs) > max_beliefs:
            raise ValueError(
                f"more than max_beliefs={max_beliefs} beliefs are reachable within max_depth={max_depth} tokens; "
                "lower max_depth or raise max_beliefs"
            )
    probability = np.array(visits) / (max_depth + 1)
    return BeliefTree(np.array(beliefs), np.array(depths), tuple(prefixes), probability, closed)
