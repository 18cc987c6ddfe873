"""The tree of beliefs an observer can come to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.kernel import Kernel

# Two beliefs closer than this are one. Divided by pi so that no multiple of a power of two, which is what beliefs of
# fair coins are, ever falls on the border between two keys.
_KEY_SCALE = 1e12 / np.pi


class Level(NamedTuple):
    """The distinct beliefs after some number of tokens, each with the probability of holding it.

    ``parent`` is a place in the level before; ``token`` is the one that led from there.
    """

    beliefs: Float[np.ndarray, "beliefs states"]
    probability: Float[np.ndarray, " beliefs"]
    parent: Int[np.ndarray, " beliefs"]
    token: Int[np.ndarray, " beliefs"]


@dataclass(frozen=True, eq=False)
class BeliefTree:
    """The distinct beliefs reachable from the stationary start, in the order a breadth-first search meets them.

    Attributes
    ----------
    beliefs : float64 array (beliefs, states)
        The start, before any token, comes first.
    depth : int64 array (beliefs,)
        Fewest tokens after which the belief can be held; 0 for the start.
    prefixes : tuple of tuples of int
        A shortest token sequence that leads to each belief, the first in lexicographic order of ids.
    probability : float64 array (beliefs,)
        Share of the depths 0..max_depth at which the belief is held, on average; sums to 1.
    closed : bool
        True if one more token from any of them leads to one of them: the tree is the whole, finite set.
    """

    beliefs: Float[np.ndarray, "beliefs states"]
    depth: Int[np.ndarray, " beliefs"]
    prefixes: tuple[tuple[int, ...], ...]
    probability: Float[np.ndarray, " beliefs"]
    closed: bool

    def __len__(self) -> int:
        return len(self.beliefs)


def root(belief: Float[np.ndarray, " states"]) -> Level:
    """The level that holds one belief for certain, before any token."""
    return Level(belief[None, :].copy(), np.ones(1), np.full(1, -1), np.full(1, -1))


def grow(level: Level, kernel: Kernel) -> Level:
    """The level one token further: every child of every belief, equal ones merged, their probabilities added."""
    futures = kernel.futures(level.beliefs)
    chance = kernel.chances(futures @ kernel.readout)
    alive = chance > 0
    parent, token = np.nonzero(alive)
    beliefs = futures[alive] / chance[alive][:, None]
    probability = level.probability[parent] * chance[alive]
    _, first, inverse = np.unique(keys(beliefs), return_index=True, return_inverse=True)
    # np.unique sorts by key; sorting back by first appearance keeps parents and tokens in reading order.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = first[order]
    merged = np.bincount(rank[inverse], weights=probability, minlength=len(first))
    return Level(beliefs[first], merged, parent[first], token[first])


def keys(beliefs: Float[np.ndarray, "beliefs states"]) -> Int[np.ndarray, " beliefs"]:
    """One integer per belief, equal for equal beliefs; two others share one with odds of 1 in 10^19."""
    odd = np.random.default_rng(0).integers(1 << 62, size=beliefs.shape[1]) * 2 + 1
    return np.rint(beliefs * _KEY_SCALE).astype(np.int64) @ odd


def reachable(kernel: Kernel, max_depth: int, max_beliefs: int) -> BeliefTree:
    """Breadth-first search over beliefs, a whole level at a time.

    Raises
    ------
    ValueError
        If there are more than ``max_beliefs``.
    """
    level = root(kernel.start)
    place_of = {int(keys(level.beliefs)[0]): 0}
    beliefs, depths, visits = [kernel.start], [0], [1.0]
    prefixes: list[tuple[int, ...]] = [()]
    here, closed = [0], False
    for depth in range(1, max_depth + 1):
        before = len(beliefs)
        level = grow(level, kernel)
        there = []
        for k, key in enumerate(keys(level.beliefs).tolist()):
            place = place_of.setdefault(key, len(beliefs))
            if place == len(beliefs):
                beliefs.append(level.beliefs[k])
                depths.append(depth)
                prefixes.append((*prefixes[here[level.parent[k]]], int(level.token[k])))
                visits.append(0.0)
            visits[place] += level.probability[k]
            there.append(place)
        here = there
        # The children of beliefs met before are known, so after a level without news there is none.
        closed = closed or len(beliefs) == before
        if len(beliefs) > max_beliefs:
            raise ValueError(
                f"more than max_beliefs={max_beliefs} beliefs are reachable within max_depth={max_depth} tokens; "
                "lower max_depth or raise max_beliefs"
            )
    probability = np.array(visits) / (max_depth + 1)
    return BeliefTree(np.array(beliefs), np.array(depths), tuple(prefixes), probability, closed)
