"""RRXOR, one token after another, in plain Python: what the hidden-Markov worlds are timed against."""

from __future__ import annotations

import random
from collections.abc import Iterator

LENGTH = 13
# From each state: (probability, token, next state).
MOVES = {
    "S": [(0.5, 0, "0"), (0.5, 1, "1")],
    "0": [(0.5, 0, "F"), (0.5, 1, "T")],
    "1": [(0.5, 0, "T"), (0.5, 1, "F")],
    "T": [(1.0, 1, "S")],
    "F": [(1.0, 0, "S")],
}
STATIONARY = {"S": 2, "0": 1, "1": 1, "T": 1, "F": 1}


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Token ids of ``n`` episodes of 13 tokens."""
    rng = random.Random(seed)
    for _ in range(n):
        state = rng.choices(list(STATIONARY), list(STATIONARY.values()))[0]
        tokens = []
        for _ in range(LENGTH):
            moves = MOVES[state]
            _, token, state = rng.choices(moves, [move[0] for move in moves])[0]
            tokens.append(token)
        yield tokens
