"""Worlds computed slowly: matrices as printed in the literature, and sums over every hidden path."""

from __future__ import annotations

from itertools import product

import numpy as np


def rrxor(p1: float = 0.5, p2: float = 0.5) -> np.ndarray:
    t = np.zeros((2, 5, 5))
    t[0, 0, 1], t[1, 0, 2] = p1, 1 - p1
    t[0, 1, 4], t[1, 1, 3] = p2, 1 - p2
    t[0, 2, 3], t[1, 2, 4] = p2, 1 - p2
    t[1, 3, 0] = t[0, 4, 0] = 1
    return t


def mess3(x: float = 0.05, alpha: float = 0.85) -> np.ndarray:
    beta, y = (1 - alpha) / 2, 1 - 2 * x
    a, b = alpha, beta
    return np.array(
        [
            [[a * y, b * x, b * x], [a * x, b * y, b * x], [a * x, b * x, b * y]],
            [[b * y, a * x, b * x], [b * x, a * y, b * x], [b * x, a * x, b * y]],
            [[b * y, b * x, a * x], [b * x, b * y, a * x], [b * x, b * x, a * y]],
        ]
    )


def z1r(p: float = 0.5) -> np.ndarray:
    return np.array([[[0, 1, 0], [0, 0, 0], [p, 0, 0]], [[0, 0, 0], [0, 0, 1], [1 - p, 0, 0]]])


def even(p: float = 0.5) -> np.ndarray:
    return np.array([[[1 - p, 0], [0, 0]], [[0, p], [1, 0]]])


def golden_mean(p: float = 0.5) -> np.ndarray:
    return np.array([[[1 - p, 0], [1, 0]], [[0, p], [0, 0]]])


def sns(p: float = 0.5, q: float = 0.5) -> np.ndarray:
    return np.array([[[1 - p, p], [0, 1 - q]], [[0, 0], [q, 0]]])


def bloch_walk(alpha: float = 1.0, beta: float = 51**0.5) -> np.ndarray:
    g2 = 1 / (4 * (alpha**2 + beta**2))
    m, o = (alpha**2 - beta**2) * g2, 2 * alpha * beta * g2
    return np.array(
        [
            [[0.25, 0, o], [0, m, 0], [o, 0, 0.25]],
            [[0.25, 0, -o], [0, m, 0], [-o, 0, 0.25]],
            [[0.25, o, 0], [o, 0.25, 0], [0, 0, m]],
            [[0.25, -o, 0], [-o, 0.25, 0], [0, 0, m]],
        ]
    )


# Matrices, the stationary distribution worked out by hand, and the readout.
PROCESSES = {
    "rrxor": (rrxor, [1 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 6], [1] * 5),
    "mess3": (mess3, [1 / 3, 1 / 3, 1 / 3], [1] * 3),
    "z1r": (z1r, [1 / 3, 1 / 3, 1 / 3], [1] * 3),
    "even": (even, [2 / 3, 1 / 3], [1] * 2),
    "golden_mean": (golden_mean, [2 / 3, 1 / 3], [1] * 2),
    "sns": (sns, [1 / 2, 1 / 2], [1] * 2),
    "bloch_walk": (bloch_walk, [1, 0, 0], [1, 0, 0]),
}


def weights(t: np.ndarray, start: list[float], tokens: tuple[int, ...]) -> list[float]:
    """Return the joint weight of the tokens and each final state: a sum over all paths that end there."""
    size = t.shape[1]
    totals = [0.0] * size
    for path in product(range(size), repeat=len(tokens) + 1):
        weight = start[path[0]]
        for token, here, there in zip(tokens, path[:-1], path[1:], strict=True):
            weight *= t[token, here, there]
        totals[path[-1]] += weight
    return totals


def probability(t: np.ndarray, start: list[float], readout: list[float], tokens: tuple[int, ...]) -> float:
    return sum(w * r for w, r in zip(weights(t, start, tokens), readout, strict=True))


def block_entropies(t: np.ndarray, start: list[float], readout: list[float], longest: int) -> list[float]:
    """Return the entropy in nats of the first 0, 1, ... tokens, over all sequences."""
    entropies = []
    for length in range(longest + 1):
        chances = []
        for tokens in product(range(len(t)), repeat=length):
            row = np.array(start)
            for token in tokens:
                row = row @ t[token]
            chances.append(row @ readout)
        p = np.array([chance for chance in chances if chance > 1e-15])
        entropies.append(float(-(p * np.log(p)).sum()))
    return entropies
