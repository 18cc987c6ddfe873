from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from importlib import import_module
from itertools import combinations_with_replacement, permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.countdown.rules import outcomes
from nextlat_viz.worlds.countdown.world import Countdown

SHAPES: list[dict[str, Any]] = [
    {},
    {"numbers": 2},
    {"numbers": 3, "pause_tokens": 0},
    {"numbers": 5, "largest": 9, "limit": 200},
    {"numbers": 4, "largest": 12, "targets": (1, 30), "limit": 60, "pause_tokens": 1},
]
COMPUTE = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else Fraction(-1),
}


PROBLEM = "14 83 88 91 23 | | | | | | | | "


def spelt(world: Countdown, text: str) -> np.ndarray:
    return np.array([[world.vocabulary.index(word) for word in text.split()]])


def check(text: str, inputs: int, limit: int) -> tuple[list[bool], bool]:
    """Judge a written solution from its text, with exact fractions."""
    match = re.fullmatch(r"([\d,]+?)(?: \| |,(?=\d+[-+*/]))(.*) end", text)
    assert match, text
    given = [int(number) for number in match[1].split(",")]
    pool, target = Counter(map(Fraction, given[:inputs])), given[inputs]
    assert len(given) == inputs + 1
    verdicts, value = [], Fraction(-1)
    for equation in re.split(r", ?", match[2]):
        left, sign, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", equation).groups()  # type: ignore[union-attr]
        a, b, value = Fraction(int(left)), Fraction(int(right)), Fraction(int(result))
        operands = Counter([a, b])
        ok = all(pool[number] >= times for number, times in operands.items())
        verdicts.append(ok and COMPUTE[sign](a, b) == value and 0 <= value <= limit)
        if ok:
            pool = pool - operands + Counter([value])
    return verdicts, all(verdicts) and value == target


@settings(max_examples=25)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.sampled_from(["train", "test"]))
def test_every_solution_holds(shape: dict[str, Any], seed: int, split: str) -> None:
    world = Countdown(**shape)
    episodes = world.sample(6, seed=seed, split=split)
    assert world.legal(episodes.tokens).all()
    verdict = world.verify(episodes.tokens)
    assert verdict.valid.all()
    assert verdict.well_formed.all()
    assert verdict.solved.all()
    for tokens in episodes.tokens:
        verdicts, solved = check(world.decode(tokens), world.numbers, world.limit)
        assert len(verdicts) == world.numbers - 1
        assert all(verdicts)
        assert solved
        assert 1 <= tokens[: world.numbers].min() <= tokens[: world.numbers].max() <= world.largest


def test_the_format_equals_the_papers() -> None:
    world = Countdown()
    assert world.length == 4 + 1 + 8 + 3 * 5 + 1
    assert len(world.vocabulary) == 10_001 + 4 + 3
    assert world.vocabulary[:3] == ("0", "1", "2")
    assert world.vocabulary[10_000:] == ("10000", "+", "-", "*", "/", "=", "|", "end")
    tokens = spelt(world, PROBLEM + "83 - 14 = 69 91 - 88 = 3 69 / 3 = 23 end")
    assert world.decode(tokens[0]) == "14,83,88,91,23 | 83-14=69, 91-88=3, 69/3=23 end"
    assert world.legal(tokens).all()
    assert world.verify(tokens).solved.all()
    states = world.replay(tokens)
    assert states["remaining"][0, [0, 3, 16, 17, 22, 27, 28]].tolist() == [
        [14, -1, -1, -1],
        [14, 83, 88, 91],
        [14, 83, 88, 91],
        [69, 88, 91, -1],
        [3, 69, -1, -1],
        [23, -1, -1, -1],
        [23, -1, -1, -1],
    ]
    assert states["target"][0].tolist() == [-1] * 4 + [23] * 25
    assert states["equation"][0].tolist() == [0] * 13 + [1] * 5 + [2] * 5 + [3] * 6
    assert states["left"][0, 12:].tolist() == [-1] + [83] * 5 + [91] * 5 + [69] * 5 + [-1]
    assert states["value"][0, 13:].tolist() == [-1, -1, 69, 69, 69, -1, -1, 3, 3, 3, -1, -1, 23, 23, 23, -1]
    episodes = world.sample(2)
    assert episodes.loss_mask.sum(1).tolist() == [16, 16]
    assert episodes.loss_mask[:, 13:].all()
    assert episodes.length.tolist() == [29, 29]


@settings(max_examples=15)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.data())
def test_states_equal_those_of_a_slow_reader_of_any_prefix(
    shape: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    world = Countdown(**shape)
    episodes = world.sample(4, seed=seed)
    upto = data.draw(st.integers(1, world.length))
    for name, values in world.replay(episodes.tokens[:, :upto]).items():
        np.testing.assert_array_equal(values, episodes.states[name][:, :upto])
    for row, tokens in enumerate(episodes.tokens.tolist()):
        pool: list[int] = []
        for place, token in enumerate(tokens):
            step, part = divmod(place - world.prompt, 5)
            if place < world.numbers:
                pool = sorted([*pool, token])
            inside = 0 <= step < world.numbers - 1
            if inside and part == 4:
                pool.remove(tokens[place - 4])
                pool.remove(tokens[place - 2])
                pool = sorted([*pool, token])
            start = world.prompt + 5 * step
            assert {name: values[row, place].tolist() for name, values in episodes.states.items()} == {
                "remaining": pool + [-1] * (world.numbers - len(pool)),
                "target": tokens[world.numbers] if place >= world.numbers else -1,
                "equation": min(max(step + 1, 0), world.numbers - 1),
                "left": tokens[start] if inside else -1,
                "value": tokens[start + 4] if inside and part >= 2 else -1,
            }


def test_a_number_that_occurs_twice_can_be_used_twice() -> None:
    world = Countdown(targets=(1, 50))

    once = spelt(world, "4 4 3 2 10 | | | | | | | | 4 * 3 = 12 4 + 2 = 6 12 - 6 = 6 end")
    assert world.legal(once).all()
    assert world.replay(once)["remaining"][0, 17].tolist() == [2, 4, 12, -1]
    assert world.verify(once).valid.all()
    assert not world.verify(once).solved.any()
    both = spelt(world, "4 4 3 2 5 | | | | | | | | 4 / 4 = 1 1 * 3 = 3 3 + 2 = 5 end")
    assert world.verify(both).solved.all()
    assert world.legal(both).all()
    thrice = spelt(world, "4 4 3 2 5 | | | | | | | | 4 / 4 = 1 4 - 3 = 1 1 + 1 = 2 end")
    assert world.verify(thrice).available.tolist() == [[True, False, False]]
    assert world.legal(thrice)[0, :18].all()
    assert not world.legal(thrice)[0, 18:].any()


def test_each_equation_is_judged_separately() -> None:
    world = Countdown()

    def judged(solution: str) -> list[tuple[bool, bool, bool]]:
        verdict = world.verify(spelt(world, PROBLEM + solution))
        assert verdict.solved.tolist() == [False]
        rows = zip(verdict.well_formed[0], verdict.available[0], verdict.true[0], strict=True)
        return [tuple(map(bool, row)) for row in rows]  # type: ignore[misc]

    yes, no = (True, True, True), (False, False, False)
    assert judged("83 - 14 = 70 91 - 88 = 3 70 / 3 = 23 end") == [
        (True, True, False),
        yes,
        (True, True, False),
    ]
    assert judged("83 - 14 = 69 91 - 88 = 3 69 / 3 = 22 end") == [
        yes,
        yes,
        (True, True, False),
    ]
    assert judged("83 - 14 = 69 91 - 88 = 3 69 + 3 = 72 end") == [
        yes,
        yes,
        yes,
    ]
    assert judged("83 - 15 = 68 91 - 88 = 3 68 / 3 = 23 end") == [
        (True, False, True),
        yes,
        (True, False, False),
    ]
    assert judged("83 - = 14 69 91 - 88 = 3") == [no, yes, no]
    assert judged("") == [no, no, no]
    # Right by the rules of fractions, but no whole number, or below zero.
    assert judged("14 - 83 = 0 88 / 91 = 0 0 / 0 = 0 end")[:2] == [(True, True, False)] * 2


@settings(max_examples=40)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.integers(0, 4))
def test_the_verdict_equals_that_of_fractions(shape: dict[str, Any], seed: int, changes: int) -> None:
    world = Countdown(**shape)
    rng = np.random.default_rng(seed)
    tokens = world.sample(8, seed=seed).tokens.copy()
    # Numbers are exchanged for numbers and signs for signs, so that the parser can still read the text.
    for _ in range(changes):
        place = world.prompt + 5 * int(rng.integers(world.numbers - 1)) + int(rng.choice([0, 1, 2, 4]))
        number = (place - world.prompt) % 5 != 1
        near = (
            tokens[:, rng.permutation(world.numbers)[0]]
            if rng.random() < 0.5
            else rng.integers(world.limit + 1, size=8)
        )
        tokens[:, place] = near if number else world.limit + 1 + rng.integers(4, size=8)
    verdict, legal = world.verify(tokens), world.legal(tokens).all(1)
    for row, item in enumerate(tokens):
        verdicts, solved = check(world.decode(item), world.numbers, world.limit)
        assert verdict.valid[row].tolist() == verdicts
        assert bool(verdict.solved[row]) == solved
        assert bool(legal[row]) == all(verdicts)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([3, 12_000, 2**62]))
def test_garbage_is_judged_not_refused(seed: int, positions: int, reach: int) -> None:
    world = Countdown()
    tokens = np.random.default_rng(seed).integers(-reach, reach, size=(5, positions))
    verdict = world.verify(tokens)
    assert verdict.valid.shape == (5, 3)
    assert not verdict.solved.any()
    inside = np.abs(tokens) % len(world.vocabulary)
    legal = world.legal(inside)
    assert (np.diff(legal.astype(int), axis=1) <= 0).all()
    if not legal.all():
        with pytest.raises(ValueError, match="cannot happen"):
            world.replay(inside)


def test_verify_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="tokens must be integers of shape"):
        Countdown().verify([1, 2, 3])


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.data())
def test_any_false_token_is_refused(seed: int, data: st.DataObject) -> None:
    world = Countdown(limit=150)
    tokens = world.sample(3, seed=seed).tokens.copy()
    place = data.draw(st.integers(0, world.length - 1))
    allowed = world.legal_next(tokens)[1, place - 1] if place else world.legal_first()
    wrong = data.draw(st.sampled_from(np.flatnonzero(~allowed).tolist()))
    tokens[1, place] = wrong
    legal = world.legal(tokens)
    assert legal[[0, 2]].all()
    assert legal[1, :place].all()
    assert not legal[1, place:].any()
    assert not world.legal_next(tokens)[1, place:].any()
    with pytest.raises(ValueError, match=rf"episode 1 cannot happen.*at position {place + 1} is not legal"):
        world.replay(tokens)


@settings(max_examples=20)
@given(st.sampled_from(SHAPES[1:]), st.integers(0, 2**32))
def test_legal_tokens_are_those_that_keep_the_arithmetic_true(shape: dict[str, Any], seed: int) -> None:
    world = Countdown(**shape)
    tokens = world.sample(1, seed=seed).tokens
    legal = world.legal_next(tokens)[0]
    pool = Counter(tokens[0, : world.numbers].tolist())
    for start in range(world.prompt, world.length - 1, 5):
        equations = {
            (a, sign, b, int(value))
            for a, b in permutations(pool.elements(), 2)
            for sign in COMPUTE
            if (value := COMPUTE[sign](Fraction(a), Fraction(b))).denominator == 1 and 0 <= value <= world.limit
        }
        left, sign, right, _, result = (world.vocabulary[token] for token in tokens[0, start : start + 5])

        def named(place: int) -> set[str]:
            return {world.vocabulary[token] for token in np.flatnonzero(legal[place])}

        assert named(start - 1) == {str(a) for a, *_ in equations}
        assert named(start) == {s for a, s, *_ in equations if str(a) == left}
        assert named(start + 1) == {str(b) for a, s, b, _ in equations if (str(a), s) == (left, sign)}
        assert named(start + 2) == {"="}
        assert named(start + 3) == {result}
        pool = pool - Counter([int(left), int(right)]) + Counter([int(result)])
    assert named(world.length - 2) == named(world.length - 1) == {"end"}
    # ``legal`` does not make the large array, and says the same.
    for place in range(1, world.length):
        assert legal[place - 1, tokens[0, place]]


def ways(pool: tuple[int, ...], target: int, limit: int) -> dict[tuple[str, ...], Fraction]:
    """Return every calculation from a pool to the target with its probability, token by token."""
    if len(pool) == 1:
        return {(): Fraction(1)} if pool[0] == target else {}
    result: dict[tuple[str, ...], Fraction] = {}
    for i, j in permutations(range(len(pool)), 2):
        a, b = pool[i], pool[j]
        rest = tuple(number for k, number in enumerate(pool) if k not in (i, j))
        values = {sign: COMPUTE[sign](Fraction(a), Fraction(b)) for sign in COMPUTE}
        possible = {s: int(v) for s, v in values.items() if v.denominator == 1 and 0 <= v <= limit}
        for sign, value in possible.items():
            chance = Fraction(1, len(pool) * (len(pool) - 1) * len(possible))
            for after, later in ways((*rest, value), target, limit).items():
                words = (str(a), sign, str(b), "=", str(value), *after)
                result[words] = result.get(words, Fraction(0)) + chance * later
    return result


@settings(max_examples=6)
@given(st.sampled_from([SHAPES[1], SHAPES[2], SHAPES[4]]), st.integers(0, 2**32))
def test_the_law_equals_a_sum_over_all_solutions(shape: dict[str, Any], seed: int) -> None:
    world = Countdown(**shape)
    tokens = world.sample(1, seed=seed).tokens
    law = world.next_token_probs(tokens)
    assert law is not None
    np.testing.assert_allclose(law.sum(-1), 1)
    assert (law[world.legal_next(tokens) == 0] == 0).all()
    words = [world.vocabulary[token] for token in tokens[0]]
    every = ways(tuple(tokens[0, : world.numbers].tolist()), int(tokens[0, world.numbers]), world.limit)
    for place in range(world.prompt, world.length - 1):
        k = place - world.prompt
        here = {way: chance for way, chance in every.items() if list(way[:k]) == words[world.prompt : place]}
        expected = np.zeros(len(world.vocabulary))
        for way, chance in here.items():
            expected[world.vocabulary.index(way[k])] += float(chance / sum(here.values()))
        np.testing.assert_allclose(law[0, place - 1], expected, atol=1e-12)


def test_samples_follow_the_law() -> None:
    world = Countdown(numbers=3, largest=6, targets=(5, 8), held_out=0.5, limit=40, pause_tokens=0)
    episodes = world.sample(30_000, seed=1, states=False)
    for target in world.split_targets["train"]:
        assert abs((episodes.tokens[:, 3] == target).mean() - 0.5) < 0.02
    # Inputs are as frequent as calculations from them that reach the target.
    target = int(world.split_targets["train"][0])
    chosen = episodes.tokens[episodes.tokens[:, 3] == target]
    chance = {inputs: float(sum(ways(inputs, target, 40).values())) for inputs in product(range(1, 7), repeat=3)}
    total = sum(chance.values())
    counts = Counter(map(tuple, chosen[:, :3].tolist()))
    assert all(chance[inputs] > 0 for inputs in counts)
    kept = [inputs for inputs in chance if chance[inputs] * len(chosen) / total > 8]
    observed = np.array([counts[inputs] for inputs in kept])
    expected = np.array([chance[inputs] / total for inputs in kept]) * len(chosen)
    rare = [inputs for inputs in chance if chance[inputs] > 0 and inputs not in kept]
    if rare:
        observed = np.append(observed, len(chosen) - observed.sum())
        expected = np.append(expected, len(chosen) - expected.sum())
    assert chisquare(observed, expected).pvalue > 1e-3
    # And solutions as the exact law says: the mean surprise is the mean entropy.
    tokens, scored = episodes.tokens[:3000], episodes.loss_mask[0, 1:]
    law = world.next_token_probs(tokens)[:, :-1][:, scored]  # type: ignore[index]
    surprise = -np.log(np.take_along_axis(law, tokens[:, 1:][:, scored][..., None], 2))[..., 0].sum(1)
    entropy = -(law * np.log(np.where(law > 0, law, 1))).sum((1, 2))
    assert abs((surprise - entropy).mean()) < 4 * (surprise - entropy).std() / 3000**0.5


def test_no_law_for_too_many_solutions_or_none() -> None:
    world = Countdown(numbers=5)
    assert world.next_token_probs(world.sample(1).tokens) is None
    assert world.floor(3) is None
    small = Countdown(numbers=2, pause_tokens=0)
    lost = np.array([[2, 3, 100]])
    assert small.legal(lost).all()
    with pytest.raises(ValueError, match="after position 3 the target 100 cannot be reached"):
        small.next_token_probs(lost)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.sampled_from([0.05, 0.1, 0.5]))
def test_test_targets_are_not_in_training(seed: int, data_seed: int, held_out: float) -> None:
    world = Countdown(numbers=3, held_out=held_out, data_seed=data_seed)
    assert len(world.split_targets["test"]) == round(91 * held_out)
    assert sorted([*world.split_targets["train"], *world.split_targets["test"]]) == list(range(10, 101))
    train = set(world.sample(400, seed=seed, states=False).tokens[:, 3].tolist())
    test = set(world.sample(400, seed=seed, split="test", states=False).tokens[:, 3].tolist())
    assert not train & test
    assert test <= set(world.split_targets["test"].tolist())


def test_a_seed_means_the_same_bytes() -> None:
    world = Countdown()
    assert world.sample(9, seed=4).sha256 == Countdown().sample(9, seed=4).sha256
    assert len({world.sample(4, seed=seed).sha256 for seed in range(20)}) == 20
    bare = world.sample(9, seed=4, states=False)
    assert bare.states == {}
    np.testing.assert_array_equal(bare.tokens, world.sample(9, seed=4).tokens)
    # Shipped checkpoints are compared on episodes sampled elsewhere: these must never change.
    assert world.sample(16, seed=0).sha256[:16] == "45722a6b74271094"


def test_padding_repeats_the_end() -> None:
    world = Countdown()
    episodes = world.sample(3, 35)
    assert (episodes.tokens[:, 28:] == world.vocabulary.index("end")).all()
    assert (episodes.length == 29).all()
    assert not episodes.loss_mask[:, 29:].any()
    assert world.legal(episodes.tokens).all()
    assert world.verify(episodes.tokens).solved.all()
    for values in episodes.states.values():
        assert (values[:, 29:] == values[:, 28, None]).all()
    with pytest.raises(ValueError, match="too short"):
        world.sample(3, 28)


def test_results_are_whole_numbers_within_the_limit() -> None:
    left, right = np.meshgrid(np.arange(130), np.arange(130), indexing="ij")
    for limit in (129, 10_000):
        values = outcomes(left, right, limit)
        for a, b in np.random.default_rng(0).integers(130, size=(3000, 2)).tolist():
            for k, sign in enumerate("+-*/"):
                exact = COMPUTE[sign](Fraction(a), Fraction(b))
                fits = exact.denominator == 1 and 0 <= exact <= limit
                assert values[a, b, k] == (exact if fits else -1)


def test_no_tokens_are_no_error() -> None:
    world = Countdown(limit=100)
    assert world.legal_next(np.zeros((2, 0), int)).shape == (2, 0, len(world.vocabulary))
    assert world.replay(np.zeros((2, 0), int))["remaining"].shape == (2, 0, 4)
    assert world.legal_next(np.zeros((0, 30), int)).shape == (0, 30, len(world.vocabulary))
    assert world.replay(np.zeros((0, 30), int))["remaining"].shape == (0, 30, 4)
    assert world.verify(np.zeros((0, 30), int)).solved.shape == (0,)


def test_the_spec_builds_the_same_world() -> None:
    for shape in SHAPES:
        world = Countdown(**shape)
        again = worlds.from_spec(world.spec)
        assert again.spec == world.spec
        assert again.vocabulary == world.vocabulary
        assert again.sample(5, seed=2).sha256 == world.sample(5, seed=2).sha256
    assert "countdown" in worlds.names()


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"numbers": 1}, "numbers must be an integer of at least 2, got 1"),
        ({"numbers": 2.5}, r"numbers must be an integer of at least 2, got 2\.5"),
        ({"largest": 0}, "largest must be an integer of at least 1, got 0"),
        ({"largest": 10_001}, "largest=10001 must be at most limit=10000"),
        ({"limit": 10_001}, "limit must be an integer from 1 to 10000, got 10001"),
        ({"limit": 99}, r"1 <= least <= greatest <= 99, got \(10, 100\)"),
        ({"targets": (0, 5)}, r"1 <= least <= greatest <= 10000, got \(0, 5\)"),
        ({"targets": (5, 10_001)}, r"1 <= least <= greatest <= 10000, got \(5, 10001\)"),
        ({"targets": (7, 6)}, r"1 <= least <= greatest <= 10000, got \(7, 6\)"),
        ({"targets": (7,)}, r"targets must be two integers, the least and the greatest target, got \(7,\)"),
        ({"targets": 7}, "targets must be two integers, .* got 7"),
        ({"targets": "ab"}, "targets must be two integers, .* got 'ab'"),
        ({"pause_tokens": -1}, "pause_tokens must be an integer of at least 0, got -1"),
        ({"held_out": 0.0}, r"held_out must be in \(0, 1\), got 0\.0"),
        ({"held_out": 1.5}, r"held_out must be in \(0, 1\), got 1\.5"),
        ({"held_out": 0.001}, r"held_out=0\.001 of the 91 targets 10\.\.100 is 0, which leaves no target for test"),
        ({"held_out": 0.999}, r"of the 91 targets 10\.\.100 is 91, which leaves no target for train"),
        ({"data_seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("countdown", **params)


def test_targets_out_of_reach_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nextlat_viz.worlds.countdown.rules"), "_PATIENCE", 2**16)
    with pytest.raises(ValueError, match=r"target \d+ is unreachable or very rare.* numbers=2, largest=3"):
        Countdown(numbers=2, largest=3).sample(1)


def wrong(world: Countdown) -> worlds.Episodes:
    episode = world.sample(1, seed=5)
    episode.tokens[0, world.prompt + 4] = 77
    episode.tokens[0, world.prompt + 5] = 77
    return episode


def test_picture_shows_the_equations() -> None:
    for shape in SHAPES:
        world = Countdown(**shape)
        assert world.draw().layout.title.text.startswith("countdown: make ")
        episode = world.sample(1, seed=2)
        for position in (1, world.prompt, world.prompt + 2, world.prompt + 5, world.length - 1, None):
            figure = world.draw("equations", episode=episode, position=position, width=800, height=500)
            assert figure.layout.width == 800
            assert figure.to_json()
    world = Countdown()
    assert any("false" in note.text for note in world.draw(episode=wrong(world)).layout.annotations)
    assert world.draw(episode=wrong(world), position=14).to_json()
    with pytest.raises(UnknownNameError, match="unknown kind of picture 'tree'"):
        world.draw("tree")
    with pytest.raises(UnknownNameError, match=r"'widht'.*'width'"):
        world.draw("equations", widht=3)
    with pytest.raises(ValueError, match="position must be"):
        world.draw("equations", episode=wrong(world), position=30)
    with pytest.raises(ValueError, match="one episode"):
        world.draw("equations", episode=world.sample(2))
    with pytest.raises(ValueError, match="must begin with a problem"):
        world.draw("equations", episode=worlds.Episodes(np.full((1, 29), 7)))


def test_the_24_game_holds_out_hands() -> None:
    world = Countdown(largest=13, targets=(24, 24))
    parts = {split: world.sample(1000, seed=0, split=split).tokens for split in world.splits}
    hands = {split: {tuple(sorted(row)) for row in tokens[:, :4].tolist()} for split, tokens in parts.items()}
    assert not hands["train"] & hands["test"]
    for split, tokens in parts.items():
        assert set(tokens[:, world.numbers].tolist()) == {24}
        assert world.verify(tokens).solved.all()
        assert (world.is_held_out(tokens[:, :4]) == (split == "test")).all()
    every = np.array(list(combinations_with_replacement(range(1, 14), 4)))
    other = Countdown(largest=13, targets=(24, 24), data_seed=1)
    assert world.is_held_out(every).mean() == pytest.approx(0.1, abs=0.02)
    assert (world.is_held_out(every) & other.is_held_out(every)).mean() == pytest.approx(0.01, abs=0.01)
    assert (world.is_held_out(every[:, ::-1]) == world.is_held_out(every)).all()
    assert worlds.from_spec(world.spec).sample(5, seed=3).sha256 == world.sample(5, seed=3).sha256
