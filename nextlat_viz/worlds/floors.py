"""Bayes floors of hidden Markov worlds: the lowest possible loss, exact where the reachable beliefs are few."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from nextlat_viz.worlds.beliefs import BeliefTree, grow, keys, reachable, root
from nextlat_viz.worlds.kernel import Kernel

# With more children than this at one depth floors are estimated: Mess3 is exact for 12 tokens (3^12 = 531,441).
MAX_CHILDREN = 1_000_000
PATHS = 50_000


def floors(
    kernel: Kernel, length: int, seed: int = 0
) -> tuple[Float[np.ndarray, " length"], Float[np.ndarray, " length"]]:
    """Entropy of the next token after 1..length tokens, and the standard error of each value, 0 where exact.

    Beyond the last exact depth a value is the mean exact entropy over random paths that start from the beliefs of that
    depth.
    """
    values, errors = np.zeros(length), np.zeros(length)
    level = root(kernel.start)
    depth = 0
    while depth < length and len(level.beliefs) * len(kernel.transitions) <= MAX_CHILDREN:
        level = grow(level, kernel)
        values[depth] = level.probability @ kernel.uncertainty(level.beliefs)
        depth += 1
    if depth < length:
        rng = np.random.default_rng(seed)
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
    # Averages over 2^60 steps converge for periodic chains too. The mean over 2n steps is the mean of two halves: n
    # steps, and n steps later.
    average, power = np.eye(len(tree)), moves
    for _ in range(60):
        average = (average + power @ average) / 2
        power = power @ power
        power /= power.sum(-1, keepdims=True)
    return float(average[0] @ kernel.uncertainty(tree.beliefs))


def _estimated_rate(
    kernel: Kernel, seed: int = 0, paths: int = 10_000, forget: int = 200, steps: int = 200
) -> tuple[float, float]:
    """Mean of exact entropies along seeded random paths, after ``forget`` tokens."""
    rng = np.random.default_rng(seed)
    beliefs = np.tile(kernel.start, (paths, 1))
    totals = np.zeros(paths)
    for step in range(forget + steps):
        _, beliefs = kernel.advance(beliefs, rng.random(paths))
        if step >= forget:
            totals += kernel.uncertainty(beliefs)
    means = totals / steps
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(paths))
