"""Many star graphs at once: random problems, and arms recovered from lists of edges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

_CELLS = 2**20


def distinct_problems(
    rng: np.random.Generator, count: int, arms: int, nodes_per_arm: int, node_ids: int
) -> Int[np.ndarray, "count nodes"]:
    """Draw different problems uniformly without replacement: the source, the goal's arm, then the other arms.

    The other arms are ordered by their first node, so that rows are equal exactly if graph and goal are equal.
    """
    import pandas as pd

    problems = _draw(rng, count, arms, nodes_per_arm, node_ids)
    while len(problems := pd.DataFrame(problems).drop_duplicates().to_numpy()) < count:
        problems = np.concatenate([problems, _draw(rng, count, arms, nodes_per_arm, node_ids)])
    return problems[:count]


def stars(
    tails: Int[np.ndarray, "episodes edges"], heads: Int[np.ndarray, "episodes edges"], arms: int, nodes_per_arm: int
) -> tuple[Bool[np.ndarray, " episodes"], Int[np.ndarray, "episodes arms nodes"]]:
    """Return which lists of edges with distinct heads are stars, and their arms (meaningless for the others)."""
    size, rows = int(max(tails.max(initial=0), heads.max(initial=0))) + 1, np.arange(len(tails))[:, None]
    # The additional column is "no node"; the node after it is "no node" too.
    after = np.full((len(tails), size + 1), -1)
    after[rows, tails] = heads
    led_to = np.zeros(after.shape, bool)
    led_to[rows, heads] = True
    outermost = ~led_to[rows, tails]
    source = tails[rows, outermost.argmax(1)[:, None]]
    star = (outermost.sum(1) == arms) & (outermost <= (tails == source)).all(1)
    first = np.argsort(~outermost, axis=1, kind="stable")[:, :arms]
    nodes = [np.repeat(source, arms, axis=1), heads[rows, first]]
    # Heads are distinct, so arms that are all long enough contain every edge.
    for _ in range(nodes_per_arm - 2):
        nodes.append(after[rows, nodes[-1]])
        star &= (nodes[-1] >= 0).all(1)
    return star, np.stack(nodes, axis=2)


def chains(
    tails: Int[np.ndarray, "episodes edges"], heads: Int[np.ndarray, "episodes edges"]
) -> tuple[Int[np.ndarray, "episodes edges"], Int[np.ndarray, "episodes edges"]]:
    """Group the edges of a star into chains while they are read, one after another.

    Edges joined head to tail form a chain, named by its earliest edge; a new edge may join two chains. Returns for each
    edge the rank of its chain at the time when the edge was read, and its chain at the end of the list.
    """
    edges = np.arange(tails.shape[1])
    chain, numbers = np.tile(edges, (len(tails), 1)), np.empty(tails.shape, np.int64)
    for k in edges:
        before = chain[:, :k]
        inward = np.where(heads[:, :k] == tails[:, k, None], before, k).min(1, initial=k)[:, None]
        outward = np.where(tails[:, :k] == heads[:, k, None], before, k).min(1, initial=k)[:, None]
        joined = np.minimum(inward, outward)
        chain[:, :k] = np.where((before == inward) | (before == outward), joined, before)
        chain[:, k, None] = joined
        numbers[:, k] = rank_of_chain(chain[:, : k + 1], joined[:, 0])
    return numbers, chain


def rank_of_chain(
    chain: Int[np.ndarray, "episodes edges"], name: Int[np.ndarray, " episodes"]
) -> Int[np.ndarray, " episodes"]:
    """Number of chains that begin before the chain of the given name."""
    edges = np.arange(chain.shape[1])
    return ((chain == edges) & (edges < name[:, None])).sum(1)


def _draw(
    rng: np.random.Generator, count: int, arms: int, nodes_per_arm: int, node_ids: int
) -> Int[np.ndarray, "count nodes"]:
    size = arms * (nodes_per_arm - 1) + 1
    nodes = np.empty((count, size), np.min_scalar_type(-node_ids))
    step = max(1, _CELLS // node_ids)
    for first in range(0, count, step):
        rows = np.arange(min(step, count - first))
        # Fisher-Yates shuffle, one step for all rows at a time.
        left = np.repeat(np.arange(node_ids, dtype=nodes.dtype)[:, None], len(rows), axis=1)
        for k in range(size):
            pick = rng.integers(k, node_ids, size=len(rows))
            nodes[first + rows, k] = left[pick, rows]
            left[pick, rows] = left[k]
    # Arms are exchangeable until a goal is chosen, so the first one drawn can be the goal's.
    others = nodes[:, nodes_per_arm:].reshape(count, arms - 1, nodes_per_arm - 1)
    order = others[:, :, 0].argsort(axis=1)
    nodes[:, nodes_per_arm:] = np.take_along_axis(others, order[..., None], axis=1).reshape(count, -1)
    return nodes
