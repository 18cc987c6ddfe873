from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.analysis import map_from_rides, map_reconstruction, reconstruct_map
from nextlat_viz.analysis.behaviour.reconstruction import Placement, spoil
from nextlat_viz.decoding import Predictor, UniformLegal, WorldPredictor
from nextlat_viz.worlds.taxi import Streets

from .models import Forgetful, fingerprint, one_row, tiny_taxi

N, E, S, W = 0, 2, 4, 6


def row_of_four() -> Streets:
    """Four places from west to east, with a street in both directions between neighbours."""
    turns = np.full((4, 8), -1)
    for place in range(3):
        turns[place, E], turns[place + 1, W] = place + 1, place
    return Streets("row", tuple("abcd"), np.arange(4.0), np.zeros(4), turns)


def test_a_ride_on_true_streets_marks_them() -> None:
    drawn = Placement(row_of_four(), reach=1.0, max_degree=4)
    assert drawn.place(0, 2, [E, E])
    assert drawn.used.tolist() == [True, True, False, False, False, False]
    assert len(drawn.invented) == 0
    # It ends at the wrong place, so it is not placed, but its streets are used.
    assert not drawn.place(3, 0, [W, W])
    assert drawn.used.tolist() == [True, True, False, False, True, True]


def test_the_last_turn_leads_to_the_destination_if_that_is_in_reach() -> None:
    drawn = Placement(row_of_four(), reach=1.0, max_degree=4)
    assert drawn.place(0, 1, [N])
    assert not drawn.place(0, 2, [S])
    assert drawn.invented.tolist() == [[0, N, 1]]
    # An invented street stays on the map.
    assert drawn.place(0, 2, [N, E])
    assert not drawn.place(0, 3, [N])
    assert drawn.invented.tolist() == [[0, N, 1]]


def test_an_invented_street_leads_where_the_ride_can_be_followed_furthest() -> None:
    # From 0 by N, then E, W: 1 and 2 can be followed to the end, and only 2 arrives at 2; 3 has no E.
    drawn = Placement(row_of_four(), reach=3.0, max_degree=4)
    assert drawn.place(0, 2, [N, E, W])
    assert drawn.invented.tolist() == [[0, N, 2]]
    # From 3 by N, then W, W, N: from 2 two turns can be followed before another street is needed, from 1 one.
    assert drawn.place(3, 1, [N, W, W, S])
    assert drawn.invented.tolist()[1:] == [[3, N, 2], [0, S, 1]]
    # No place has a street NE, so no turn can be followed and nothing is invented.
    assert not drawn.place(1, 3, [N, 1, E])
    assert len(drawn.invented) == 3


def test_at_most_max_degree_used_streets_leave_a_place() -> None:
    drawn = Placement(row_of_four(), reach=3.0, max_degree=2)
    assert drawn.place(1, 0, [W])
    assert drawn.place(1, 3, [N])
    assert not drawn.place(1, 2, [S])
    # The true street east is unused, and no room is left for it.
    assert not drawn.place(1, 2, [E])
    assert drawn.used.sum() == 1
    assert drawn.invented.tolist() == [[1, N, 3]]


def literal_map(
    streets: Streets, rides: list[tuple[int, int, list[int]]], reach: float, max_degree: int
) -> tuple[set[Any], list[Any], list[bool]]:
    """The same rules, written independently: every trial on a copy of the whole map."""
    used: dict[Any, int] = {}
    result: list[Any] = []
    placed = []

    def true(node: int, way: int) -> int:
        return int(streets.turns[node, way])

    def degree(taken: dict[Any, int], node: int) -> int:
        return sum(1 for start, _ in taken if start == node)

    def walk(taken: dict[Any, int], at: int, turns: list[int]) -> tuple[dict[Any, int], int, int]:
        taken = dict(taken)
        for done, way in enumerate(turns):
            if (at, way) not in taken:
                if true(at, way) < 0 or degree(taken, at) >= max_degree:
                    return taken, done, at
                taken[at, way] = true(at, way)
            at = taken[at, way]
        return taken, len(turns), at

    for origin, goal, turns in rides:
        at, left, fine = origin, turns, False
        while True:
            used, done, at = walk(used, at, left)
            left = left[done:]
            if not left:
                fine = at == goal
                break
            if degree(used, at) >= max_degree:
                break
            apart = np.hypot(streets.x - streets.x[at], streets.y - streets.y[at])
            near = [int(b) for b in np.argsort(apart, kind="stable") if b != at and apart[b] <= reach + 1e-9]
            way, left = left[0], left[1:]
            if not left:
                if goal in near:
                    used[at, way] = goal
                    result.append([at, way, goal])
                    fine = True
                break
            scores = []
            for b in near:
                trial, done, where = walk({**used, (at, way): b}, b, left)
                if done == len(left):
                    scores.append(len(turns) + 1 if where == goal else 0)
                else:
                    scores.append(done if degree(trial, where) < max_degree else 0)
            if not scores or max(scores) == 0:
                break
            b = near[int(np.argmax(scores))]
            used[at, way] = b
            result.append([at, way, b])
            at = b
        placed.append(fine)
    return {key for key, to in used.items() if true(*key) == to}, result, placed


@pytest.mark.parametrize("max_degree", [3, 8])
def test_maps_equal_those_of_the_literal_rules(max_degree: int) -> None:
    world = tiny_taxi(5, 4)
    rides = world.sample(60, seed=8)
    rng = np.random.default_rng(2)
    spoilt = spoil(world, rides.tokens, rides.length, 40, rng)
    spoilt = spoil(world, spoilt, rides.length, 40, rng)
    nodes = len(world.streets.nodes)
    result = map_from_rides(world, spoilt, rides.length, reach=2.0, max_degree=max_degree)
    listed = [
        (int(row[0]), int(row[1]), (row[2 : k - 1] - nodes).tolist())
        for row, k in zip(spoilt, rides.length.tolist(), strict=True)
    ]
    used, made, placed = literal_map(world.streets, listed, 2.0, max_degree)
    leaving = [tuple(pair) for pair in np.argwhere(world.streets.turns >= 0).tolist()]
    assert result.used.tolist() == [street in used for street in leaving]
    assert result.invented.tolist() == made
    assert result.placed.tolist() == placed
    assert len(made) > 0
    assert 0 < sum(placed) < 60


def test_true_rides_give_the_true_map_and_do_not_change_the_world() -> None:
    world = tiny_taxi(4, 4)
    before = fingerprint(world)
    result = reconstruct_map(WorldPredictor(world), 300)
    assert result.control is not None
    for item in (result, result.control):
        assert item.used.all()
        assert item.placed.all()
        assert item.valid.all()
        assert item.counts["invented"] == (0, world.streets.n_edges)
        assert item.counts["unplaced"] == (0, 300)
    reconstruct_map(UniformLegal(world), 50)
    assert fingerprint(world) == before


def test_ill_formed_rides_are_counted_and_not_placed() -> None:
    world = tiny_taxi()
    nodes, end = len(world.streets.nodes), world.vocabulary.index("end")
    rides = world.sample(6, seed=3)
    tokens, length = rides.tokens.copy(), rides.length.copy()
    length[0] -= 1  # no end
    tokens[1, 2] = 0  # an intersection for a turn
    tokens[2, 0] = nodes  # opens with a turn
    tokens[3, 1] = tokens[3, 0]  # goes nowhere
    tokens[4, 2], length[4] = end, 3  # no turn at all
    result = map_from_rides(world, tokens, length)
    assert result.ill_formed == 5
    assert result.placed.tolist() == [False] * 5 + [True]
    assert result.valid.tolist() == [False] * 5 + [True]
    assert result.counts["unplaced"] == (5, 6)


class Slips(Predictor):
    """The true world, except that the first turn is north for every third pair of origin and destination."""

    objective = "slips"

    def __init__(self, world: Any) -> None:
        self.world, self.name = world, "slips"

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        probs = UniformLegal(self.world).next_token_probs(tokens)
        wrong = tokens[:, :2].sum(axis=1) % 3 == 0
        probs[wrong, 1] = np.eye(probs.shape[-1])[self.world.vocabulary.index("N")]
        return probs


def test_the_control_has_as_many_errors_as_the_model() -> None:
    world = tiny_taxi(4, 4)
    result = reconstruct_map(Slips(world), 200, seed=1)
    control = result.control
    assert control is not None
    assert len(control.valid) == len(result.valid) == 200
    errors = int((~result.valid).sum())
    assert errors > 60
    # A spoilt ride may still arrive; other true rides always do.
    assert 0.8 * errors < (~control.valid).sum() <= errors
    true = world.sample(200, seed=1, split="test")
    changed = (spoil(world, true.tokens, true.length, errors, np.random.default_rng(1)) != true.tokens).sum(axis=1)
    assert sorted(changed.tolist()) == [0] * (200 - errors) + [1] * errors


def test_the_measure_repeats_with_its_seed_and_equals_the_maps() -> None:
    world = tiny_taxi(4, 4)
    model = Slips(world)
    result, again = reconstruct_map(model, 100, seed=2), reconstruct_map(model, 100, seed=2)
    assert result.invented.tolist() == again.invented.tolist()
    assert result.control is not None
    measure = map_reconstruction([model, WorldPredictor(world)], n_rides=100, seed=2, progress=False)
    assert len(measure.table) == 16
    mine = measure.table[measure.table["objective"] == "slips"]
    for rides, item in (("model", result), ("control", result.control)):
        for part, (count, of) in item.counts.items():
            (row,) = [row for _, row in mine[(mine["part"] == part) & (mine["rides"] == rides)].iterrows()]
            assert (row["count"], row["trials"], row["value"]) == (count, of, pytest.approx(count / of))
            assert np.isnan(row["error"]) == (part != "unplaced")
    assert repr(result).startswith("<MapReconstruction slips: ")


def test_models_of_nonsense_are_measured_too() -> None:
    world = tiny_taxi()
    babble = Forgetful(world, np.full(len(world.vocabulary), 1 / len(world.vocabulary)))
    row = one_row(map_reconstruction(babble, n_rides=50, progress=False), part="unplaced", rides="model")
    assert row["ill_formed"] > 20
    assert row["count"] >= row["ill_formed"]


def test_bad_arguments_are_refused() -> None:
    world = tiny_taxi()
    rides = world.sample(2)
    with pytest.raises(ValueError, match="needs streets"):
        reconstruct_map(WorldPredictor(worlds.get("rrxor")))
    with pytest.raises(ValueError, match=r"reach=0\.0 must be above 0"):
        map_from_rides(world, rides.tokens, rides.length, reach=0.0)
    with pytest.raises(ValueError, match="max_degree=0"):
        map_from_rides(world, rides.tokens, rides.length, max_degree=0)
    with pytest.raises(ValueError, match="n_rides=0"):
        reconstruct_map(WorldPredictor(world), 0)
