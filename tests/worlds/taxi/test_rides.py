"""The law of taxi rides, compared with networkx."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import cache

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nextlat_viz.worlds.taxi import rides as law
from nextlat_viz.worlds.taxi.rides import KINDS, Rides
from nextlat_viz.worlds.taxi.sources import grid
from nextlat_viz.worlds.taxi.streets import COMPASS, Streets
from nextlat_viz.worlds.taxi.traffic import END


@cache
def city(width: int, height: int) -> tuple[Streets, networkx.DiGraph, dict[str, dict[str, int]]]:
    streets = grid(width, height)
    graph = streets.to_networkx()
    return streets, graph, dict(networkx.all_pairs_shortest_path_length(graph))


def walk(streets: Streets, graph: networkx.DiGraph, origin: int, turns: list[int]) -> list[str]:
    """Return the intersections passed, origin included, by the directions in networkx."""
    passed = [streets.nodes[origin]]
    for turn in turns:
        ways = {data["direction"]: target for _, target, data in graph.out_edges(passed[-1], data=True)}
        passed.append(ways[COMPASS[turn]])
    return passed


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.integers(2, 10), st.integers(2, 10), st.integers(1, 30), st.integers(0, 2**32))
def test_rides_reach_their_destination_in_time(kind: str, width: int, height: int, max_turns: int, seed: int) -> None:
    streets, graph, distance = city(width, height)
    rides = Rides(streets, kind, max_turns, noise=0.4, held_out=0.0)
    origin, destination, turns = rides.sample(20, np.random.default_rng(seed), "train")
    assert turns.shape == (20, max_turns + 1)
    for start, goal, row in zip(origin.tolist(), destination.tolist(), turns.tolist(), strict=True):
        taken = row[: row.index(END)]
        assert set(row[len(taken) :]) == {END}
        passed = walk(streets, graph, start, taken)
        assert start != goal
        assert passed[-1] == streets.nodes[goal]
        assert streets.nodes[goal] not in passed[:-1]
        if kind == "shortest":
            assert len(taken) == distance[passed[0]][passed[-1]]


def by_hand(kind: str, noise: Fraction, graph: networkx.DiGraph, far: dict, at: str, goal: str, left: int) -> dict:
    """Probability of each direction, in fractions."""
    ways = {data["direction"]: target for _, target, data in graph.out_edges(at, data=True)}
    in_time = [turn for turn, to in ways.items() if far[to][goal] <= left - 1]
    closer = [turn for turn, to in ways.items() if far[to][goal] == far[at][goal] - 1]
    even = {turn: Fraction(turn in in_time, len(in_time)) for turn in ways}
    straight = {turn: Fraction(turn in closer, len(closer)) for turn in ways}
    share = {"random": Fraction(1), "shortest": Fraction(0), "noisy": noise}[kind]
    return {turn: share * even[turn] + (1 - share) * straight[turn] for turn in ways}


@pytest.mark.parametrize("kind", KINDS)
def test_the_law_equals_its_definition(kind: str) -> None:
    streets, graph, distance = city(5, 4)
    rides = Rides(streets, kind, 12, noise=0.25, held_out=0.1)
    rng = np.random.default_rng(3)
    for _ in range(60):
        node, goal = rng.choice(len(streets.nodes), 2, replace=False)
        at, to = streets.nodes[node], streets.nodes[goal]
        left = distance[at][to] + int(rng.integers(6))
        expected = by_hand(kind, Fraction(1, 4), graph, distance, at, to, left)
        got = rides.law(np.array([node]), np.array([goal]), np.array([left]))[0]
        np.testing.assert_allclose(got, [float(expected.get(turn, 0)) for turn in COMPASS])


@pytest.mark.parametrize("kind", KINDS)
def test_turn_frequencies_fit_the_law(kind: str, without_shape_checks: None) -> None:
    streets, graph, distance = city(3, 3)
    rides = Rides(streets, kind, 7, noise=0.3, held_out=0.0)
    origin, destination, turns = rides.sample(40_000, np.random.default_rng(5), "train")
    seen: Counter[tuple[int, int, int, int]] = Counter()
    at, going = origin.copy(), np.ones(len(origin), bool)
    for t in range(7):
        now = np.stack([at, destination, np.full(len(at), 7 - t), turns[:, t]], axis=1)[going]
        seen.update(map(tuple, now.tolist()))
        at[going] = streets.turns[at[going], turns[going, t]]
        going &= at != destination
    places = {key[:3] for key in seen}
    p_values = []
    for node, goal, left in sorted(places):
        expected = by_hand(kind, Fraction(3, 10), graph, distance, streets.nodes[node], streets.nodes[goal], left)
        counts = np.array([seen[node, goal, left, turn] for turn in range(8)])
        chances = np.array([float(expected.get(turn, 0)) for turn in COMPASS])
        assert (counts[chances == 0] == 0).all()
        if counts.sum() >= 100 and (chances > 0).sum() > 1:
            p_values.append(chisquare(counts[chances > 0], counts.sum() * chances[chances > 0]).pvalue)
    assert len(p_values) > 5
    assert min(p_values) > 1e-3 / len(p_values)


@pytest.mark.parametrize("listed", [True, False])
def test_pairs_are_uniform_within_reach(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not listed:
        monkeypatch.setattr(law, "_LISTED_PAIRS", 0)
    streets, _, distance = city(4, 4)
    rides = Rides(streets, "random", 3, noise=0.0, held_out=0.4)
    near = {(a, b) for a, row in distance.items() for b, moves in row.items() if 0 < moves <= 3}
    drawn = {}
    for split in ("train", "test"):
        pairs = rides.pairs(20_000, np.random.default_rng(0), split)
        drawn[split] = Counter(
            (streets.nodes[a], streets.nodes[b]) for a, b in zip(*(p.tolist() for p in pairs), strict=True)
        )
        assert chisquare(list(drawn[split].values())).pvalue > 1e-3
    assert set(drawn["train"]) | set(drawn["test"]) == near
    assert not set(drawn["train"]) & set(drawn["test"])


def test_rare_pairs_are_listed_however_large_the_city(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law, "_LISTED_PAIRS", 0)
    monkeypatch.setattr(law, "_DRAWS_AT_ONCE", 500)
    streets, graph, _ = city(20, 20)
    rides = Rides(streets, "random", 1, noise=0.0, held_out=0.0)
    origin, destination = rides.pairs(9000, np.random.default_rng(0), "train")
    drawn = {(streets.nodes[a], streets.nodes[b]) for a, b in zip(origin.tolist(), destination.tolist(), strict=True)}
    assert drawn == set(graph.edges())


def test_a_larger_share_holds_out_the_same_pairs_and_more() -> None:
    streets, _, _ = city(20, 20)
    pairs = np.divmod(np.arange(len(streets.nodes) ** 2), len(streets.nodes))
    held_out = [Rides(streets, "random", 9, 0.0, share).is_held_out(*pairs) for share in (0.0, 0.1, 0.3)]
    assert not held_out[0].any()
    assert not (held_out[1] & ~held_out[2]).any()
    np.testing.assert_allclose([h.mean() for h in held_out], [0, 0.1, 0.3], atol=0.005)


@pytest.mark.parametrize("kind", KINDS)
def test_rides_in_several_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law, "_RIDES_AT_ONCE", 7)
    streets, _, _ = city(6, 6)
    rides = Rides(streets, kind, 40, noise=0.5, held_out=0.1)
    origin, destination, turns = rides.sample(100, np.random.default_rng(0), "train")
    at = origin.copy()
    for t in range(40):
        going = turns[:, t] != END
        at[going] = streets.turns[at[going], turns[going, t]]
    np.testing.assert_array_equal(at, destination)


def test_an_intersection_of_eight_streets() -> None:
    hub = Streets(
        "star",
        tuple("abcdefghi"),
        np.array([0.0, 0, 1, 1, 1, 0, -1, -1, -1]),
        np.array([0.0, 1, 1, 0, -1, -1, -1, 0, 1]),
        np.array([[1, 2, 3, 4, 5, 6, 7, 8]] + [[-1] * k + [0] + [-1] * (7 - k) for k in (4, 5, 6, 7, 0, 1, 2, 3)]),
    )
    rides = Rides(hub, "random", 4, noise=0.0, held_out=0.0)
    origin, destination, turns = rides.sample(30_000, np.random.default_rng(0), "train")
    # Four moves from the middle to a tip: the first move is free, the others are forced.
    first = turns[(origin == 0) & (destination == 1), 0]
    assert chisquare(np.bincount(first, minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_city_without_a_choice(kind: str) -> None:
    turns = np.full((3, 8), -1)
    turns[0, 1], turns[1, 4], turns[2, 6] = 1, 2, 0
    ring = Streets("ring", tuple("abc"), np.array([0.0, 1, 1]), np.array([0.0, 1, 0]), turns)
    origin, destination, taken = Rides(ring, kind, 2, noise=0.5, held_out=0.0).sample(
        60, np.random.default_rng(0), "train"
    )
    np.testing.assert_array_equal(taken[:, 0], np.array([1, 4, 6])[origin])
    np.testing.assert_array_equal((taken != END).sum(1), (destination - origin) % 3)
