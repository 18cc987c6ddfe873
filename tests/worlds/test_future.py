"""`World.future`: prefixes of equal numbers have one law, also after the same further tokens."""

from __future__ import annotations

import numpy as np
import pytest

from nextlat_viz import worlds

TITLES = [
    *("rrxor", "even", "bloch_walk", "a5:generators=true", "s3", "taxi:width=3,height=3", "othello"),
    "story:people=2,places=2,things=1",
    "path_star:arms=2,nodes_per_arm=3,node_ids=6,train_size=100,test_size=20",
    "countdown:numbers=3,largest=9,limit=40,targets=[10,20]",
]


@pytest.mark.parametrize("title", TITLES)
def test_equal_numbers_mean_one_law_of_what_follows(title: str) -> None:
    world = worlds.get(title)
    n = 40 if "othello" in title else 300
    episodes = world.sample(n, None if world.length else 12, seed=3, split=world.splits[-1])
    tokens = episodes.tokens[:, : int(episodes.length.min())]
    future, law = world.future(tokens), world.next_token_probs(tokens)
    assert future.dtype.kind == "i"
    assert future.shape[:2] == tokens.shape
    np.testing.assert_array_equal(world.future(tokens[:, :5]), future[:, :5])
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for row in range(len(tokens)):
        for t in range(tokens.shape[1]):
            groups.setdefault(tuple(future[row, t].tolist()), []).append((row, t))
    met = 0
    for places in groups.values():
        first = places[0]
        for other in places[1:]:
            np.testing.assert_allclose(law[first], law[other], atol=1e-5)
            if (
                max(first[1], other[1]) + 1 < tokens.shape[1]
                and tokens[first[0], first[1] + 1] == tokens[other[0], other[1] + 1]
            ):
                np.testing.assert_array_equal(future[first[0], first[1] + 1], future[other[0], other[1] + 1])
            met += not np.array_equal(tokens[first[0], : first[1] + 1], tokens[other[0], : other[1] + 1])
    assert met or "othello" in title


def test_a_world_may_not_know_what_fixes_its_future() -> None:
    assert worlds.World.future(worlds.get("rrxor"), np.zeros((1, 2), int)) is None
