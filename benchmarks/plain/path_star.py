"""Path-Star problems, one after another, in plain Python: what the world `path_star` is timed against."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

ARMS, NODES_PER_ARM, NODE_IDS = 2, 5, 100
BAR, SLASH, EQUALS, END = range(NODE_IDS, NODE_IDS + 4)


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Token ids of ``n`` problems on G(2, 5) with their answers; each is new rather than one of a fixed set."""
    rng = random.Random(seed)
    for _ in range(n):
        nodes = rng.sample(range(NODE_IDS), ARMS * (NODES_PER_ARM - 1) + 1)
        source = nodes.pop()
        arms = [[source, *nodes[arm::ARMS]] for arm in range(ARMS)]
        edges = [edge for arm in arms for edge in pairwise(arm)]
        rng.shuffle(edges)
        path = rng.choice(arms)
        tokens = []
        for tail, head in edges:
            tokens += [tail, head, BAR]
        tokens[-1] = SLASH
        yield [*tokens, source, path[-1], EQUALS, *path, END]
