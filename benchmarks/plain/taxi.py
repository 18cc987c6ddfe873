"""Random taxi rides, one after another, in plain Python: what the world `taxi` is timed against."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from nextlat_viz.worlds.taxi import grid


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Token ids of ``n`` rides of the default world without padding; its train and test pairs alike."""
    rng = random.Random(seed)
    city = grid()
    nodes = range(len(city.nodes))
    turns = [{turn: node for turn, node in enumerate(row) if node >= 0} for row in city.turns.tolist()]
    into: list[list[int]] = [[] for _ in nodes]
    for node in nodes:
        for target in turns[node].values():
            into[target].append(node)
    distances = [_distances(into, goal) for goal in nodes]
    max_turns = -(-3 * max(map(max, distances)) // 2)
    end = len(nodes) + 8
    for _ in range(n):
        origin, goal = rng.sample(nodes, 2)
        distance = distances[goal]
        tokens = [origin, goal]
        at = origin
        for left in range(max_turns - 1, -1, -1):
            turn, at = rng.choice([(turn, node) for turn, node in turns[at].items() if distance[node] <= left])
            tokens.append(len(nodes) + turn)
            if at == goal:
                break
        tokens.append(end)
        yield tokens


def _distances(into: list[list[int]], goal: int) -> list[int]:
    """Fewest moves to the goal, from every intersection."""
    distance = [-1] * len(into)
    distance[goal] = 0
    waiting = deque([goal])
    while waiting:
        node = waiting.popleft()
        for before in into[node]:
            if distance[before] < 0:
                distance[before] = distance[node] + 1
                waiting.append(before)
    return distance
