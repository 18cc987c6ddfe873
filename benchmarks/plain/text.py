"""The world ``text`` as one would write it for one window at a time: a list of token ids, sliced at random."""

from __future__ import annotations

import random
from collections.abc import Iterator

LENGTH, CORPUS = 256, 1_000_000


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Windows of 256 tokens of a made-up corpus of a million."""
    rng = random.Random(seed)
    corpus = rng.choices(range(1000), [1 / rank for rank in range(1, 1001)], k=CORPUS)
    for _ in range(n):
        start = rng.randrange(CORPUS - LENGTH + 1)
        yield corpus[start : start + LENGTH]
