"""Othello, compared with a second implementation of its rules: a dictionary of discs instead of bitboards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.othello.rules import Position, count, nth_square, opening, play, squares

WORLD = worlds.get("othello")
END = WORLD.vocabulary.index("end")
STEPS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
# Legal move sequences from the opening by number of moves, as published.
PERFT = [4, 12, 56, 244, 1396, 8200]

Disc = tuple[str, int]


class SlowGame:
    """Squares by name; a disc is ``"black"`` or ``"white"``."""

    def __init__(self) -> None:
        self.discs = {"d4": "white", "e5": "white", "e4": "black", "d5": "black"}
        self.side = "black"

    def copy(self) -> SlowGame:
        twin = SlowGame()
        twin.discs, twin.side = dict(self.discs), self.side
        return twin

    def captured(self, side: str, square: str) -> set[str]:
        result: set[str] = set()
        if square in self.discs:
            return result
        for across, down in STEPS:
            line = list(walk(square, across, down))
            colours = [self.discs.get(name) for name in line]
            if side in colours:
                between = colours[: colours.index(side)]
                if between and set(between) == {other(side)}:
                    result |= set(line[: len(between)])
        return result

    def legal(self, side: str | None = None) -> list[str]:
        side = side or self.side
        every = (column + row for row in "12345678" for column in "abcdefgh")
        return [square for square in every if self.captured(side, square)]

    def over(self) -> bool:
        return not self.legal("black") and not self.legal("white")

    def play(self, square: str) -> None:
        assert square in self.legal()
        mover = self.side
        self.discs |= dict.fromkeys([square, *self.captured(mover, square)], mover)
        self.side = other(mover)
        if not self.legal() and self.legal(mover):
            self.side = mover


def walk(square: str, across: int, down: int) -> Iterator[str]:
    column, row = "abcdefgh".index(square[0]) + across, int(square[1]) + down
    while 0 <= column < 8 and 1 <= row <= 8:
        yield f"{'abcdefgh'[column]}{row}"
        column, row = column + across, row + down


def other(side: str) -> str:
    return {"black": "white", "white": "black"}[side]


def ids(moves: str) -> np.ndarray:
    return np.array([[WORLD.vocabulary.index(name) for name in moves.split()]])


# Nine moves after which White has no discs left.
WIPED_OUT = "e6 f4 e3 f6 g5 d6 e7 f5 c5"


def game_with_a_pass() -> list[str]:
    """A game in which a side has to pass before the end, found by trying seeds."""
    for seed in range(200):
        rng, game, moves = np.random.default_rng(seed), SlowGame(), []
        passed = False
        while not game.over():
            moves.append(str(rng.choice(game.legal())))
            mover = game.side
            game.play(moves[-1])
            passed |= game.side == mover and not game.over()
        if passed:
            return moves
    raise AssertionError("no game with a pass")


def check_against_slow_rules(tokens: np.ndarray, world: worlds.World = WORLD) -> None:
    truth, legal, first = world.replay(tokens), world.legal_next(tokens), world.legal_first()
    values = world.state_values
    for episode, row in enumerate(tokens):
        game = SlowGame()
        may = first
        for t, token in enumerate(row):
            name = world.vocabulary[token]
            expected = ["end"] if game.over() else game.legal()
            assert {world.vocabulary[k] for k in np.flatnonzero(may)} == set(expected)
            if name == "end":
                assert game.over()
            else:
                game.play(name)
            board = truth["board"][episode, t]
            side = values["turn"][truth["turn"][episode, t]]
            assert side == game.side
            text = {
                f"{'abcdefgh'[k % 8]}{k // 8 + 1}": side if board[k] == values["board"].index("mine") else other(side)
                for k in np.flatnonzero(board)
            }
            assert text == game.discs
            colours = list(game.discs.values())
            assert truth["score"][episode, t] == colours.count("black") - colours.count("white")
            may = legal[episode, t]


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(WORLD.splits))
def test_games_and_their_states_follow_the_rules(seed: int, split: str) -> None:
    episodes = WORLD.sample(2, seed=seed, split=split)
    assert WORLD.legal(episodes.tokens).all()
    check_against_slow_rules(episodes.tokens)
    for name, values in WORLD.replay(episodes.tokens).items():
        np.testing.assert_array_equal(values, episodes.states[name])
        np.testing.assert_array_equal(values[:, :17], WORLD.replay(episodes.tokens[:, :17])[name])


def test_passes_and_early_ends_follow_the_rules() -> None:
    moves = " ".join(game_with_a_pass())
    check_against_slow_rules(ids(f"{moves} end end"))
    check_against_slow_rules(ids(f"{WIPED_OUT} end end"))
    truth = WORLD.replay(ids(WIPED_OUT))
    assert truth["score"][0, -1] == 13
    assert WORLD.decode(ids(f"{WIPED_OUT} end end")[0]) == f"{WIPED_OUT} end"


def test_the_slow_rules_count_the_known_number_of_openings() -> None:
    games = [SlowGame()]
    for expected in PERFT[:4]:
        grown = []
        for game in games:
            for move in game.legal():
                twin = game.copy()
                twin.play(move)
                grown.append(twin)
        games = grown
        assert len(games) == expected


def test_the_fast_rules_count_the_known_number_of_openings() -> None:
    position = opening(1)
    for expected in [*PERFT, 55092]:
        game, square = np.nonzero(squares(position.moves))
        position = play(
            Position(*(field[game] for field in position)), np.left_shift(np.uint64(1), square.astype(np.uint64))
        )
        assert len(game) == expected


@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_counting_and_picking_squares(boards: list[int], rng: Any) -> None:
    board = np.array(boards, np.uint64)
    assert count(board).tolist() == [value.bit_count() for value in boards]
    nth = [rng.randrange(value.bit_count()) for value in boards]
    expected = [[k for k in range(64) if value >> k & 1][which] for value, which in zip(boards, nth, strict=True)]
    assert nth_square(board, np.array(nth, np.uint64)).tolist() == expected


def test_an_episode_ends_once_and_is_padded_with_ends() -> None:
    episodes = WORLD.sample(3000, seed=5, states=False)
    assert episodes.tokens.shape == (3000, 61)
    assert episodes.states == {}
    ends = episodes.tokens == END
    assert ends[:, -1].all()
    assert (np.diff(ends.astype(int), axis=1) >= 0).all()
    np.testing.assert_array_equal(episodes.length, (~ends).sum(1) + 1)
    np.testing.assert_array_equal(episodes.loss_mask, np.arange(61) < episodes.length[:, None])
    assert (episodes.length < 61).any()
    longer = WORLD.sample(4, 70, seed=5)
    assert longer.tokens.shape == (4, 70)
    assert WORLD.legal(longer.tokens).all()
    assert longer.loss_mask.sum(1).tolist() == longer.length.tolist()
    assert (longer.states["board"][:, 61:] == longer.states["board"][:, 60:61]).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    for split in WORLD.splits:
        digest = WORLD.sample(20, seed=3, split=split).sha256
        assert WORLD.sample(20, seed=3, split=split).sha256 == digest
        assert WORLD.sample(20, seed=4, split=split).sha256 != digest
    again = worlds.from_spec(json.loads(json.dumps(WORLD.spec)))
    assert again.vocabulary == WORLD.vocabulary
    assert again.sample(20, seed=3).sha256 == WORLD.sample(20, seed=3).sha256


def images(moves: str) -> list[str]:
    """Return the game, its mirror images at both long diagonals, and its half turn."""
    pairs = [("abcdefgh".index(name[0]), int(name[1]) - 1) for name in moves.split() if name != "end"]
    symmetries = [lambda c, r: (c, r), lambda c, r: (r, c), lambda c, r: (7 - r, 7 - c), lambda c, r: (7 - c, 7 - r)]
    return [" ".join(f"{'abcdefgh'[c]}{r + 1}" for c, r in (view(*pair) for pair in pairs)) for view in symmetries]


def test_no_test_game_is_ever_a_training_game() -> None:
    drawn = np.concatenate([WORLD.sample(1500, seed=seed, states=False).tokens for seed in range(3)])
    assert not WORLD.held_out(drawn).any()
    test = WORLD.sample(400, seed=0, split="test", states=False).tokens
    assert WORLD.held_out(test).all()
    # Turned or mirrored, and with more padding, a game stays in its split.
    for tokens, expected in ((drawn[:40], False), (test[:40], True)):
        looks = [image for row in tokens for image in images(WORLD.decode(row))]
        turned = np.full((len(looks), 64), END)
        for row, image in zip(turned, looks, strict=True):
            row[: len(image.split())] = ids(image)
        assert WORLD.legal(turned).all()
        assert (WORLD.held_out(turned) == expected).all()
    known = {WORLD.decode(row) for row in drawn}
    assert not known & {f"{image} end" for row in test for image in images(WORLD.decode(row))}


def test_the_law_is_uniform_over_legal_moves() -> None:
    tokens = WORLD.sample(6000, seed=11, states=False).tokens
    law = WORLD.next_token_probs(tokens[:50])
    np.testing.assert_allclose(law.sum(-1), 1)
    np.testing.assert_array_equal(law > 0, WORLD.legal_next(tokens[:50]))
    shares = law.max(-1, keepdims=True)
    np.testing.assert_allclose(law, np.where(law > 0, shares, 0))
    # How often each square is the third move, against the law summed over what came before.
    expected = WORLD.next_token_probs(tokens[:, :2])[:, 1].mean(0)
    seen = np.bincount(tokens[:, 2], minlength=61) / len(tokens)
    np.testing.assert_allclose(seen, expected, atol=5 * np.sqrt(0.1 / len(tokens)))
    opened = np.bincount(tokens[:, 0], minlength=61) / len(tokens)
    np.testing.assert_allclose(opened, WORLD.legal_first() / 4, atol=0.03)


def test_a_tenth_of_all_games_is_held_out() -> None:
    few = WORLD.sample(300, seed=1, split="test", states=False)
    both = np.concatenate([few.tokens, WORLD.sample(2700, seed=1, states=False).tokens])
    assert WORLD.held_out(both).mean() == pytest.approx(0.1)
    opened = np.bincount(few.tokens[:, 0], minlength=61) / len(few)
    np.testing.assert_allclose(opened, WORLD.legal_first() / 4, atol=0.15)


@pytest.mark.parametrize(
    ("moves", "place", "message"),
    [
        (
            "d3 c3 d3",
            3,
            r"episode 0 cannot happen in world 'othello': token 'd3' at position 3 is not legal; legal there: ",
        ),
        ("a1 d3", 1, "'a1' at position 1 is not legal; legal there: d3, c4, f5, e6"),
        ("d3 end end", 2, "'end' at position 2 is not legal; legal there: c3, e3, c5"),
        (f"{WIPED_OUT} a1", 10, "'a1' at position 10 is not legal; legal there: end"),
        (f"{WIPED_OUT} end a1 end", 11, "'a1' at position 11 is not legal; legal there: end"),
    ],
)
def test_illegal_moves_are_refused(moves: str, place: int, message: str) -> None:
    tokens = ids(moves)
    with pytest.raises(ValueError, match=message):
        WORLD.replay(tokens)
    with pytest.raises(ValueError, match=message):
        WORLD.next_token_probs(tokens)
    legal = WORLD.legal(tokens)[0]
    assert legal[: place - 1].all()
    assert not legal[place - 1 :].any()
    assert not WORLD.legal_next(tokens)[0, place - 1 :].any()
    assert WORLD.legal_next(tokens)[0, : place - 1].any(-1).all()


@settings(max_examples=10)
@given(st.lists(st.integers(0, END), min_size=1, max_size=12))
def test_random_tokens_are_judged_as_by_the_slow_rules(row: list[int]) -> None:
    game, expected = SlowGame(), []
    for token in row:
        name = WORLD.vocabulary[token]
        fits = (not expected or expected[-1]) and name in (game.legal() or ["end"])
        if fits and name != "end":
            game.play(name)
        expected.append(bool(fits))
    assert WORLD.legal(np.array([row]))[0].tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WORLD.sample(0), "n must be an integer of at least 1, got 0"),
        (lambda: WORLD.sample(2, 60), "length=60 is too short: an episode of world 'othello' has 61 tokens"),
        (lambda: WORLD.sample(2, seed=-1), "seed must be an integer of at least 0, got -1"),
        (lambda: WORLD.sample(2, split="tset"), r"unknown split of world 'othello': 'tset'\. Did you mean 'test'"),
        (lambda: WORLD.replay(np.array([[61]])), "token 61 of episode 0 at position 1 is outside the vocabulary"),
        (lambda: WORLD.legal_next(np.array([0, 1])), "tokens must be integers of shape"),
        (lambda: WORLD.draw(episode=WORLD.sample(2)), "episode must hold one episode, got 2"),
        (lambda: WORLD.draw(episode=WORLD.sample(1), position=62), "position must be an integer from 0 to"),
        (lambda: worlds.get("othello", size=6), "unknown parameter of world 'othello': 'size'"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_pictures_and_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of picture 'bord'\. Did you mean 'board'"):
        WORLD.draw("bord")
    with pytest.raises(UnknownNameError, match=r"unknown option of picture 'board': 'widht'.*'width'"):
        WORLD.draw(widht=3)


def drawn_squares(trace: Any) -> set[str]:
    return {f"{'abcdefgh'[int(x)]}{8 - int(y)}" for x, y in zip(trace.x, trace.y, strict=True)}


def test_the_picture_shows_the_board() -> None:
    figure = WORLD.draw()
    black, white, can = figure.data
    assert drawn_squares(black) == {"d5", "e4"}
    assert drawn_squares(white) == {"d4", "e5"}
    assert drawn_squares(can) == {"d3", "c4", "f5", "e6"}
    assert figure.to_json()
    episode = WORLD.sample(1, seed=8)
    game = SlowGame()
    for t, token in enumerate(episode.tokens[0, :20]):
        before = dict(game.discs)
        game.play(WORLD.vocabulary[token])
        figure = WORLD.draw(episode=episode, position=t + 1, width=700, height=720)
        black, white, can, ring, turned = figure.data
        assert drawn_squares(black) == {name for name, colour in game.discs.items() if colour == "black"}
        assert drawn_squares(white) == {name for name, colour in game.discs.items() if colour == "white"}
        assert drawn_squares(can) == set(game.legal())
        assert drawn_squares(ring) == {WORLD.vocabulary[token]}
        assert drawn_squares(turned) == {name for name in before if before[name] != game.discs[name]}
        assert f"{game.side} to move" in figure.layout.title.text
    assert "the game is over" in WORLD.draw(episode=episode).layout.title.text


def test_tokens_past_the_length_are_padding() -> None:
    episodes = WORLD.sample(3, seed=5)
    length = np.array([4, 9, 30])
    tokens = np.where(np.arange(61) < length[:, None], episodes.tokens, 0)
    assert not WORLD.legal(tokens).all()
    assert WORLD.legal(tokens, length).all()
    states = WORLD.replay(tokens, length)
    for row, end in enumerate(length):
        np.testing.assert_array_equal(states["board"][row, :end], episodes.states["board"][row, :end])
        assert (states["board"][row, end:] == states["board"][row, end - 1]).all()
    with pytest.raises(ValueError, match=r"length must be integers of shape \(3,\)"):
        WORLD.replay(tokens, length[:2])
