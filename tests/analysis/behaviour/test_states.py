from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.analysis import compression_greedy, compression_vafa, distinction
from nextlat_viz.analysis.behaviour.compression import model_boundary, world_boundary
from nextlat_viz.analysis.behaviour.prefixes import (
    different_state_pairs,
    first_rejected,
    pairs_in_one_state,
    possible,
    possible_next,
    sample_suffixes,
    state_of,
)
from nextlat_viz.decoding import Predictor, UniformLegal, WorldPredictor
from nextlat_viz.errors import UnknownNameError

from .models import BELL, STEP, Doubled, Forgetful, Merged, Ring, fingerprint, one_row, sequences, tiny_taxi

ROOM = ["room"]


@pytest.mark.parametrize(("name", "length"), [("rrxor", 9), ("even", 8), ("taxi", None), ("othello", None)])
def test_pairs_end_in_one_state_or_in_two(name: str, length: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextlat_viz.analysis.behaviour.prefixes._FEWEST_EPISODES", 256)
    world = worlds.get(name, **({"width": 3, "height": 3} if name == "taxi" else {}))
    n, total = 8, world.length or length or 0
    pairs = pairs_in_one_state(world, n, length=total, seed=1)
    others = different_state_pairs(world, n, length=total, room=4, seed=1)
    assert len(pairs) == len(others) == n
    assert (others.length <= total - 4).all()
    for i in range(n):
        for both, alike in ((pairs, True), (others, False)):
            k = int(both.length[i])
            first, other = both.first[i, :k], both.second[i, :k]
            assert not np.array_equal(first, other)
            states = [
                {key: np.round(values[0, -1], 6).tolist() for key, values in world.replay(prefix[None]).items()}
                for prefix in (first, other)
            ]
            assert (states[0] == states[1]) == alike
            assert np.array_equal(possible_next(world, first[None]), possible_next(world, other[None])) or not alike
    used = [tuple(row[:k]) for rows in (pairs.first, pairs.second) for row, k in zip(rows, pairs.length, strict=True)]
    assert len(set(used)) == len(used)


def test_pairs_are_taken_from_each_length_in_turn() -> None:
    pairs = pairs_in_one_state(tiny_taxi(), 8, length=9)
    assert np.bincount(pairs.length)[3:].max() <= 2


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="more than the 0 found"):
        # At least two tokens must follow a prefix, which episodes of 2 tokens do not have.
        pairs_in_one_state(worlds.get("golden_mean"), 3, length=2)
    with pytest.raises(ValueError, match=r"state=.*room"):
        state_of(Ring(), np.array([[0, 1]]))
    with pytest.raises(UnknownNameError, match="room"):
        state_of(Ring(), np.array([[0, 1]]), ["rooms"])
    with pytest.raises(ValueError, match="make episodes longer"):
        different_state_pairs(worlds.get("rrxor"), 3, length=5, room=5)


def test_suffixes_hold_nothing_unlikely_and_end_where_nothing_is_likely(ring: Ring) -> None:
    prefixes = np.array([[BELL]] * 50)
    rare = Forgetful(ring, np.array([0.99, 0.01]))
    some = sample_suffixes(rare, prefixes, 6, eps=0.01, end=None, rng=np.random.default_rng(0))
    assert (some == STEP).all()
    flat = Forgetful(tiny_taxi(), np.full(18, 1 / 18))
    options: dict[str, Any] = {"end": 17, "rng": np.random.default_rng(0)}
    assert (sample_suffixes(flat, prefixes, 6, eps=0.06, **options) == -1).all()
    assert (sample_suffixes(flat, prefixes, 6, eps=0.05, **options)[:, 0] >= 0).all()


def test_the_law_of_rides_compresses_wholly() -> None:
    # UniformLegal runs into places where nothing is legal; there all tokens are equally likely.
    model = UniformLegal(tiny_taxi(10, 10))
    assert len(model.world.vocabulary) > 100
    row = one_row(compression_vafa(model, n=20, suffixes=10, progress=False))
    assert (row["value"], row["accepted"]) == (1, 1)


def test_the_law_of_shortest_rides_has_precision_below_one() -> None:
    law = WorldPredictor(tiny_taxi(8, 8, rides="shortest"))
    assert one_row(compression_vafa(law, n=5, progress=False))["value"] == 1
    assert (distinction(law, n=20, progress=False).table["value"] < 1).all()


def accepts(model: Predictor, prefix: tuple[int, ...], suffix: tuple[int, ...], eps: float = 0.01) -> bool:
    tokens = np.array([[*prefix, *suffix]])
    probs = model.next_token_probs(tokens[:, :-1])[0, len(prefix) - 1 :]
    return all(probs[i, token] > eps for i, token in enumerate(suffix))


@given(st.lists(st.integers(0, 1), min_size=3, max_size=3), st.data())
def test_first_rejected_equals_a_literal_search(first: list[int], data: st.DataObject) -> None:
    model = Merged(Ring())
    rows = data.draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=4))
    suffixes = np.full((len(rows), 5), -1)
    for i, row in enumerate(rows):
        suffixes[i, : len(row)] = row
    result = first_rejected(model, np.array([first] * len(rows)), suffixes, 0.01)
    for where, row in zip(result.tolist(), rows, strict=True):
        bad = [i for i in range(len(row)) if not accepts(model, tuple(first), tuple(row[: i + 1]))]
        assert where == (bad[0] if bad else -1)


def test_suffixes_follow_the_model_and_end() -> None:
    world = tiny_taxi()
    pairs = pairs_in_one_state(world, 5, length=9)
    end = world.vocabulary.index("end")
    for _, first, _ in pairs.by_length():
        some = sample_suffixes(
            WorldPredictor(world),
            np.repeat(first, 10, axis=0),
            9 - first.shape[1],
            eps=0.01,
            end=end,
            rng=np.random.default_rng(0),
        )
        assert possible(world, np.repeat(first, 10, axis=0), some).all()
        last = some[np.arange(len(some)), (some >= 0).sum(axis=1) - 1]
        assert (last == end).all()


def test_possible_turns_leave_the_goal_in_reach() -> None:
    world = tiny_taxi()
    rides = world.sample(50, seed=2)
    for k in range(2, 8):
        rows = rides.tokens[rides.length > k][:, :k]
        np.testing.assert_array_equal(possible_next(world, rows), world.next_token_probs(rows)[:, -1] > 0)


def test_the_true_world_scores_one_and_is_not_changed() -> None:
    for world, length in ((tiny_taxi(), None), (worlds.get("rrxor"), 9)):
        before = fingerprint(world)
        model = WorldPredictor(world)
        assert one_row(compression_vafa(model, n=15, length=length, progress=False))["value"] == 1
        assert one_row(compression_greedy(model, n=15, length=length, progress=False))["value"] == 1
        table = distinction(model, n=15, length=length, progress=False).table
        assert table["value"].tolist() == [1, 1]
        assert fingerprint(world) == before


def test_the_boundary_of_the_ring_by_hand(ring: Ring) -> None:
    # Room 0 and room 1: the bell at once, or after once around.
    pair, result = world_boundary(ring, np.array([[BELL]]), np.array([[STEP]]), 5)
    assert pair.tolist() == [0, 0]
    assert result.tolist() == [[BELL, -1, -1, -1, -1], [STEP, STEP, STEP, STEP, BELL]]
    # Room 1 and room 0: after three steps.
    _, result = world_boundary(ring, np.array([[STEP]]), np.array([[BELL]]), 5)
    assert result.tolist() == [[STEP, STEP, STEP, BELL, -1]]


@pytest.mark.parametrize("vocabulary", ["ring", "taxi"])
def test_boundaries_equal_a_literal_search(vocabulary: str) -> None:
    world = Ring() if vocabulary == "ring" else tiny_taxi(2, 2)
    total = world.length or 9
    depth = 4 if vocabulary == "ring" else 2
    pairs = different_state_pairs(world, 4, length=total, room=depth, seed=2, state=ROOM if total == 9 else None)
    model = Merged(world) if isinstance(world, Ring) else UniformLegal(world)
    for _, first, second in pairs.by_length():
        pair, result = world_boundary(world, first, second, depth)
        mine_pair, mine = model_boundary(
            model, first, second, 400, first.shape[1] + depth, 0.01, np.random.default_rng(0)
        )
        for i in range(len(first)):
            single, other = tuple(first[i].tolist()), tuple(second[i].tolist())
            possible_sets = [
                {s for s in sequences(len(world.vocabulary), depth) if literally_possible(world, prefix, s)}
                for prefix in (single, other)
            ]
            expected = {s for s in possible_sets[0] - possible_sets[1] if s[:-1] in possible_sets[1] | {()}}
            assert {tuple(t for t in row if t >= 0) for row in result[pair == i].tolist()} == expected
            end = world.vocabulary.index("end") if "end" in world.vocabulary else None
            accepted = [
                {s for s in sequences(len(world.vocabulary), depth) if end not in s[:-1] and accepts(model, prefix, s)}
                for prefix in (single, other)
            ]
            expected = {s for s in accepted[0] - accepted[1] if s[:-1] in accepted[1] | {()}}
            assert {tuple(t for t in row if t >= 0) for row in mine[mine_pair == i].tolist()} == expected


def literally_possible(world: worlds.World, prefix: tuple[int, ...], suffix: tuple[int, ...]) -> bool:
    """Whether the suffix is legal token by token, has no token after the end and keeps the goal in reach."""
    if "end" in world.vocabulary and world.vocabulary.index("end") in suffix[:-1]:
        return False
    tokens = np.array([[*prefix, *suffix]])
    if not world.legal(tokens).all():
        return False
    if world.name == "taxi":
        states = world.replay(tokens)
        return bool(states["distance"][0, -1] <= states["moves_left"][0, -1])
    return True


def test_merged_rooms_by_hand(ring: Ring) -> None:
    """Only pairs of rooms 0 and 1, and what follows from them, are confused."""
    model = Merged(ring)
    assert one_row(compression_vafa(model, n=10, length=9, state=ROOM, progress=False))["value"] == 1
    assert one_row(compression_greedy(model, n=10, length=9, state=ROOM, progress=False))["value"] == 1
    result = distinction(model, n=60, suffixes=200, length=9, depth=3, state=ROOM, progress=False)
    pairs = different_state_pairs(ring, 60, length=9, room=3, state=ROOM)
    rooms = [
        [int(ring.replay(rows[i : i + 1, :k])["room"][0, -1]) for rows in (pairs.first, pairs.second)]
        for i, k in enumerate(pairs.length.tolist())
    ]
    recall, empty = [], 0
    for item, other in rooms:
        # Steps until the bell can ring again, in the world; the model also rings it one step later.
        boundary = [steps for steps in range(3) if (item + steps) % 4 == 0 and (other + steps) % 4 != 0]
        told = [steps for steps in boundary if (other + steps) % 4 not in (0, 1)]
        empty += not boundary
        recall.append(len(told) / len(boundary) if boundary else 1.0)
    row = one_row(result, part="recall")
    assert row["value"] == pytest.approx(np.mean(recall))
    assert row["error"] == pytest.approx(np.std(recall, ddof=1) / np.sqrt(60))
    assert (row["empty"], row["trials"]) == (empty, 60)
    assert empty > 0
    assert row["value"] < 1
    # Room 1 is the only room where the model rings the bell wrongly.
    precision = one_row(result, part="precision")
    assert 0 < precision["value"] < 1


def test_a_model_without_memory_compresses_everything_and_distinguishes_nothing() -> None:
    world = tiny_taxi()
    model = Forgetful(world, np.full(len(world.vocabulary), 1 / len(world.vocabulary)))
    assert one_row(compression_vafa(model, n=10, suffixes=5, progress=False))["value"] == 1
    assert one_row(compression_greedy(model, n=10, progress=False))["value"] == 1
    result = distinction(model, n=20, progress=False)
    precision, recall = one_row(result, part="precision"), one_row(result, part="recall")
    assert (precision["value"], precision["empty"]) == (1, 20)
    assert (recall["value"], recall["empty"]) == (pytest.approx(recall["empty"] / 20), recall["empty"])


def test_a_model_that_splits_rooms_compresses_only_some_pairs(ring: Ring) -> None:
    pairs = pairs_in_one_state(ring, 12, length=10, state=ROOM)
    model = Doubled(ring)
    alike, same = [], []
    for i, k in enumerate(pairs.length.tolist()):
        first, second = tuple(pairs.first[i, :k].tolist()), tuple(pairs.second[i, :k].tolist())
        room = 10 - k
        whole = [s for s in sequences(2, room) if len(s) == room and accepts(model, first, s)]
        alike.append(all(accepts(model, second, s) for s in whole))
        same.append(greedy(model, first, room) == greedy(model, second, room))
    # Enough suffixes that every possible one is sampled.
    row = one_row(compression_vafa(model, n=12, suffixes=500, length=10, state=ROOM, progress=False))
    assert row["value"] == pytest.approx(np.mean(alike))
    assert 0 < row["value"] < row["accepted"] < 1
    row = one_row(compression_greedy(model, n=12, length=10, state=ROOM, progress=False))
    assert row["value"] == pytest.approx(np.mean(same))


def greedy(model: Predictor, prefix: tuple[int, ...], steps: int) -> list[int]:
    tokens = list(prefix)
    for _ in range(steps):
        tokens.append(int(model.next_token_probs(np.array([tokens]))[0, -1].argmax()))
    return tokens[len(prefix) :]


def test_large_boundaries_are_sampled(ring: Ring) -> None:
    result = distinction(UniformLegal(ring), n=30, depth=5, largest=1, length=12, state=ROOM, progress=False)
    assert one_row(result, part="recall")["drawn"] > 0
    assert one_row(result, part="precision")["drawn"] == 0
    assert result.table["value"].tolist() == [1, 1]


def test_seeds_repeat_and_models_are_measured_on_the_same_pairs(ring: Ring) -> None:
    models = [Merged(ring), Doubled(ring)]
    options: dict[str, Any] = {"n": 10, "length": 10, "state": ROOM, "progress": False}
    for measure in (compression_vafa, compression_greedy, distinction):
        both = measure(models, **options).table
        pd.testing.assert_frame_equal(both, measure(models, **options).table)
        alone = measure(models[1:], **options).table
        pd.testing.assert_frame_equal(both[both["objective"] == "doubled"].reset_index(drop=True), alone)


def test_impossible_settings_are_refused(ring: Ring) -> None:
    with pytest.raises(ValueError, match=r"eps=0\.0 must be above 0"):
        compression_vafa(Merged(ring), eps=0.0, length=8, state=ROOM, progress=False)
    with pytest.raises(ValueError, match="suffixes=0"):
        distinction(Merged(ring), suffixes=0, length=8, state=ROOM, progress=False)
    with pytest.raises(ValueError, match="predict targets"):
        compression_greedy(WorldPredictor(worlds.get("a5")), length=5, progress=False)
