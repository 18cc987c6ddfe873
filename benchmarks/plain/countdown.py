"""Solved Countdown problems, one after another, in plain Python: what the world `countdown` is timed against."""

from __future__ import annotations

import random
from collections.abc import Iterator

NUMBERS, LARGEST, LIMIT, PAUSES = 4, 99, 10_000, 8
EQUALS, PAUSE, END = LIMIT + 5, LIMIT + 6, LIMIT + 7
TARGETS = [target for target in range(10, 101) if target % 10]


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Token ids of ``n`` problems with solutions: calculations are drawn until one ends in the target."""
    rng = random.Random(seed)
    for _ in range(n):
        target = rng.choice(TARGETS)
        calculation = None
        while calculation is None or calculation[1][-1] != target:
            calculation = _calculation(rng)
        inputs, solution = calculation
        yield [*inputs, target, *[PAUSE] * PAUSES, *solution, END]


def _calculation(rng: random.Random) -> tuple[list[int], list[int]] | None:
    inputs = [rng.randint(1, LARGEST) for _ in range(NUMBERS)]
    pool, solution = list(inputs), []
    while len(pool) > 1:
        left = pool.pop(rng.randrange(len(pool)))
        right = pool.pop(rng.randrange(len(pool)))
        results = [left + right, left - right, left * right, left // right if right and left % right == 0 else -1]
        possible = [(sign, result) for sign, result in enumerate(results) if 0 <= result <= LIMIT]
        if not possible:
            return None
        sign, result = rng.choice(possible)
        pool.append(result)
        solution += [left, LIMIT + 1 + sign, right, EQUALS, result]
    return inputs, solution
