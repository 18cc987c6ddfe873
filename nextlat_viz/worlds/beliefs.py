"""The tree of beliefs an observer can come to hold, and the Bayes floor read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

# Two beliefs closer than this are one. Divided by pi so that no multiple of a power of two, which is what beliefs of
# fair coins are, ever falls on the border between two keys.
_KEY_SCALE = 1e12 / np.pi
# Above this many beliefs at one depth, floors are estimated: Mess3 stays exact through depth 12 (3^12 = 531,441).
MAX_EXACT_BELIEFS = 1_000_000
_PATHS = 50_000


class Level(NamedTuple):
    """The distinct beliefs after some number of tokens, each with the probability of holding it."""

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
        Share of the depths 0..max_depth spent at each belief; sums to 1 for the beliefs kept.
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


def keys(beliefs: Float[np.ndarray, "beliefs states"]) -> Int[np.ndarray, "beliefs states"]:
    """Integers equal for equal beliefs."""
    return np.rint(beliefs * _KEY_SCALE).astype(np.int64)


def emissions(
    transitions: Float[np.ndarray, "tokens states states"], readout: Float[np.ndarray, " states"]
) -> Float[np.ndarray, "states tokens"]:
    """Probability of each next token in each state."""
    return np.einsum("xst,t->sx", transitions, readout)


def token_probabilities(
    beliefs: Float[np.ndarray, "*rows states"], emission: Float[np.ndarray, "states tokens"]
) -> Float[np.ndarray, "*rows tokens"]:
    """Next-token distribution of each belief; rounding below zero, which only generalised worlds show, is cut off."""
    return np.clip(beliefs @ emission, 0.0, None)


def entropy(probabilities: Float[np.ndarray, "*rows tokens"]) -> Float[np.ndarray, "*rows"]:
    """Shannon entropy in nats along the last axis, with 0 ln 0 = 0."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * np.log(safe)).sum(-1)


def grow(
    level: Level,
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    tiny: float,
) -> Level:
    """The level one token further: every child of every belief, equal ones merged, probabilities added."""
    n_tokens, n_states, _ = transitions.shape
    joint = np.einsum("ks,xst->kxt", level.beliefs, transitions, optimize=True)
    chance = joint @ readout
    alive = chance > tiny
    parent, token = np.nonzero(alive)
    beliefs = joint[alive] / chance[alive][:, None]
    probability = level.probability[parent] * chance[alive]
    _, first, inverse = np.unique(_rows(keys(beliefs)), return_index=True, return_inverse=True)
    # np.unique sorts by key; sorting back by first appearance keeps parents and tokens in reading order.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = first[order]
    merged = np.bincount(rank[inverse], weights=probability, minlength=len(first))
    return Level(beliefs[first], merged, parent[first], token[first])


def _rows(values: Int[np.ndarray, "rows columns"]) -> np.ndarray:
    """Each row as one opaque item, which sorts several times faster than rows of numbers do."""
    return np.ascontiguousarray(values).view(np.dtype((np.void, values.itemsize * values.shape[1]))).ravel()


def root(start: Float[np.ndarray, " states"]) -> Level:
    """The level before any token."""
    return Level(start[None, :].copy(), np.ones(1), np.full(1, -1), np.full(1, -1))


def reachable(
    start: Float[np.ndarray, " states"],
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    tiny: float,
    max_depth: int,
    max_beliefs: int,
) -> BeliefTree:
    """Breadth-first search over beliefs, by whole levels at a time."""
    level = root(start)
    index = {keys(level.beliefs)[0].tobytes(): 0}
    beliefs, depths, prefixes, visits = [start], [0], [()], [1.0]
    here: list[int] = [0]
    closed = False
    for depth in range(1, max_depth + 1):
        before = len(beliefs)
        level = grow(level, transitions, readout, tiny)
        there = []
        for k, key in enumerate(keys(level.beliefs)):
            place = index.setdefault(key.tobytes(), len(beliefs))
            if place == len(beliefs):
                beliefs.append(level.beliefs[k])
                depths.append(depth)
                prefixes.append((*prefixes[here[level.parent[k]]], int(level.token[k])))
                visits.append(0.0)
            visits[place] += level.probability[k]
            there.append(place)
        here = there
        # Children of beliefs met before are known already, so a level without news is followed by none with any.
        closed = closed or len(beliefs) == before
        if len(beliefs) > max_beliefs:
            raise ValueError(
                f"more than max_beliefs={max_beliefs} beliefs are reachable within max_depth={max_depth}; "
                "lower max_depth or raise max_beliefs"
            )
    probability = np.array(visits) / (max_depth + 1)
    return BeliefTree(np.array(beliefs), np.array(depths), tuple(prefixes), probability, closed)


def floors(
    start: Float[np.ndarray, " states"],
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    tiny: float,
    length: int,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " length"], Float[np.ndarray, " length"]]:
    """Entropy of the next token after 1..length tokens, and the standard error of each value (0 where exact).

    Exact while the tree fits; from there on the mean over seeded random paths that start in the last exact level, of
    the exact entropy at the belief each path holds.
    """
    emission = emissions(transitions, readout)
    level = root(start)
    values, errors = np.zeros(length), np.zeros(length)
    for t in range(length):
        if len(level.beliefs) * len(transitions) > MAX_EXACT_BELIEFS:
            break
        level = grow(level, transitions, readout, tiny)
        values[t] = level.probability @ entropy(token_probabilities(level.beliefs, emission))
    else:
        return values, errors
    rng = np.random.default_rng(seed)
    share = level.probability / level.probability.sum()
    paths = level.beliefs[rng.choice(len(share), size=_PATHS, p=share)]
    for late in range(t, length):
        _, paths = advance(paths, transitions, readout, rng.random(len(paths)))
        sample = entropy(token_probabilities(paths, emission))
        values[late] = sample.mean()
        errors[late] = sample.std(ddof=1) / np.sqrt(len(sample))
    return values, errors


def rate_estimate(
    start: Float[np.ndarray, " states"],
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    seed: int = 0,
    paths: int = 10_000,
    burn_in: int = 200,
    steps: int = 200,
) -> tuple[float, float]:
    """Entropy rate and its standard error from long random paths, each scored by exact entropies."""
    rng = np.random.default_rng(seed)
    emission = emissions(transitions, readout)
    beliefs = np.tile(start, (paths, 1))
    totals = np.zeros(paths)
    for step in range(burn_in + steps):
        _, beliefs = advance(beliefs, transitions, readout, rng.random(paths))
        if step >= burn_in:
            totals += entropy(token_probabilities(beliefs, emission))
    means = totals / steps
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(paths))


def advance(
    beliefs: Float[np.ndarray, "rows states"],
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    uniform: Float[np.ndarray, " rows"],
) -> tuple[Int[np.ndarray, " rows"], Float[np.ndarray, "rows states"]]:
    """Draw one token per row from its exact predictive distribution, and the beliefs that follow."""
    joint = np.einsum("ks,xst->kxt", beliefs, transitions, optimize=True)
    chance = np.clip(joint @ readout, 0.0, None)
    token = draw_index(chance.cumsum(-1), uniform)
    rows = np.arange(len(beliefs))
    return token, joint[rows, token] / chance[rows, token][:, None]


def draw_index(
    cumulative: Float[np.ndarray, "rows choices"], uniform: Float[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """Inverse of a cumulative distribution: never a choice of probability zero, whatever the rounding of the last."""
    return (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(-1)


def closed_rate(
    tree: BeliefTree,
    transitions: Float[np.ndarray, "tokens states states"],
    readout: Float[np.ndarray, " states"],
    tiny: float,
) -> float:
    """Entropy rate of a closed tree: the long-run share of each belief times its entropy."""
    index = {key.tobytes(): place for place, key in enumerate(keys(tree.beliefs))}
    moves = np.zeros((len(tree), len(tree)))
    for place, belief in enumerate(tree.beliefs):
        level = grow(root(belief), transitions, readout, tiny)
        for child, chance in zip(keys(level.beliefs), level.probability, strict=True):
            moves[place, index[child.tobytes()]] += chance
    # Doubling the number of averaged steps each time: P_2n = (P_n + M^n P_n) / 2, which also settles periodic chains.
    average, power = np.eye(len(tree)), moves
    for _ in range(60):
        average = (average + power @ average) / 2
        power = power @ power
        power /= power.sum(-1, keepdims=True)
    emission = emissions(transitions, readout)
    return float(average[0] @ entropy(token_probabilities(tree.beliefs, emission)))
