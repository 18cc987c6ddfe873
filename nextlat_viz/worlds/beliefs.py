"""The tree of reachable beliefs, and the Bayes floors of hidden Markov worlds: exact if few beliefs are reachable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.kernel import Kernel

# Floors are exact up to this many children at one depth, then estimated: Mess3 is exact for 12 tokens (3^12 = 531,441).
MAX_CHILDREN = 1_000_000
PATHS = 50_000
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
    """The next level: the children of all beliefs. Equal children are merged and their probabilities added."""
    import pandas as pd

    futures = kernel.futures(level.beliefs)
    chance = kernel.chances(futures @ kernel.readout)
    alive = chance > 0
    parent, token = np.nonzero(alive)
    beliefs = futures[alive] / chance[alive][:, None]
    probability = level.probability[parent] * chance[alive]
    # Numbered in the order of first appearance, by parent and token.
    number, _ = pd.factorize(keys(beliefs))
    first = np.unique(number, return_index=True)[1]
    merged = np.bincount(number, weights=probability)
    return Level(beliefs[first], merged, parent[first], token[first])


def keys(beliefs: Float[np.ndarray, "beliefs states"]) -> Int[np.ndarray, " beliefs"]:
    """One integer per belief, equal for equal beliefs; different beliefs collide with probability 1e-19."""
    odd = np.random.default_rng(0).integers(1 << 62, size=beliefs.shape[1]) * 2 + 1
    return np.rint(beliefs * _KEY_SCALE).astype(np.int64) @ odd


def reachable(kernel: Kernel, max_depth: int, max_beliefs: int) -> BeliefTree:
    """Search the beliefs breadth first, one level at a time; a ValueError if there are more than ``max_beliefs``."""
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


def floors(kernel: Kernel, length: int) -> tuple[Float[np.ndarray, " length"], Float[np.ndarray, " length"]]:
    """Entropy of the next token after 1..length tokens, and the standard error of each value, 0 where exact.

    Beyond the last exact depth a value is estimated: the mean entropy over random paths from the beliefs of that depth.
    """
    values, errors = np.zeros(length), np.zeros(length)
    level = root(kernel.start)
    depth = 0
    while depth < length and len(level.beliefs) * len(kernel.transitions) <= MAX_CHILDREN:
        level = grow(level, kernel)
        values[depth] = level.probability @ kernel.uncertainty(level.beliefs)
        depth += 1
    if depth < length:
        rng = np.random.default_rng(0)
        share = level.probability / level.probability.sum()
        paths = level.beliefs[rng.choice(len(share), size=PATHS, p=share)]
        for t in range(depth, length):
            _, paths = kernel.advance(paths, rng.random(PATHS))
            sample = kernel.uncertainty(paths)
            values[t], errors[t] = sample.mean(), sample.std(ddof=1) / np.sqrt(PATHS)
    return values, errors


def entropy_rate(kernel: Kernel) -> tuple[float, float]:
    """Entropy per token of long sequences, and its standard error, 0 where exact."""
    classical = bool((kernel.transitions >= 0).all() and (kernel.readout == 1).all())
    if classical and ((kernel.transitions > 0).sum(-1) <= 1).all():
        # State and token determine the next state, so a known state stays known.
        return float(kernel.start @ kernel.uncertainty(np.eye(len(kernel.start)))), 0.0
    try:
        tree = reachable(kernel, max_depth=64, max_beliefs=1000)
    except ValueError:
        return _estimated_rate(kernel)
    return (_closed_rate(kernel, tree), 0.0) if tree.closed else _estimated_rate(kernel)


def _closed_rate(kernel: Kernel, tree: BeliefTree) -> float:
    """Entropy averaged over the long-run distribution of finitely many beliefs."""
    place_of = {key: place for place, key in enumerate(keys(tree.beliefs).tolist())}
    moves = np.zeros((len(tree), len(tree)))
    for place, belief in enumerate(tree.beliefs):
        children = grow(root(belief), kernel)
        for key, chance in zip(keys(children.beliefs).tolist(), children.probability, strict=True):
            moves[place, place_of[key]] += chance
    # Averages over 2^60 steps converge for periodic chains too. The mean over 2n steps is the mean of its two halves.
    average, power = np.eye(len(tree)), moves
    for _ in range(60):
        average = (average + power @ average) / 2
        power = power @ power
        power /= power.sum(-1, keepdims=True)
    return float(average[0] @ kernel.uncertainty(tree.beliefs))


def _estimated_rate(kernel: Kernel) -> tuple[float, float]:
    """Mean of exact entropies along seeded random paths, after their first tokens."""
    paths, forget, steps = 10_000, 200, 200
    rng = np.random.default_rng(0)
    beliefs = np.tile(kernel.start, (paths, 1))
    totals = np.zeros(paths)
    for step in range(forget + steps):
        _, beliefs = kernel.advance(beliefs, rng.random(paths))
        if step >= forget:
            totals += kernel.uncertainty(beliefs)
    means = totals / steps
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(paths))
