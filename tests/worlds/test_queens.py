"""N queens, compared with a plain search over boards written as sets of (row, column)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.queens import Queens, boards

Cells = frozenset[tuple[int, int]]


def attack(a: tuple[int, int], b: tuple[int, int]) -> bool:
    down, across = b[0] - a[0], b[1] - a[1]
    return down == 0 or across == 0 or abs(down) == abs(across)


def search(size: int, queens: tuple[tuple[int, int], ...] = ()) -> Iterator[Cells]:
    """Place queens row by row."""
    if len(queens) == size:
        yield frozenset(queens)
    for column in range(size):
        cell = (len(queens), column)
        if len(queens) < size and not any(attack(cell, other) for other in queens):
            yield from search(size, (*queens, cell))


@cache
def every_solution(size: int) -> tuple[Cells, ...]:
    return tuple(search(size))


def images(board: Cells, size: int) -> set[Cells]:
    """Return the board in its four rotations, and each of these mirrored."""
    result = set()
    for _ in range(4):
        board = frozenset((column, size - 1 - row) for row, column in board)
        result |= {board, frozenset((row, size - 1 - column) for row, column in board)}
    return result


def cells(board: np.ndarray, size: int) -> Cells:
    return frozenset(divmod(int(cell), size) for cell in np.flatnonzero(board[: size * size]))


def tokens(world: Queens, *names: str) -> np.ndarray:
    board = np.zeros((1, world.length), np.int64)
    board[0, [world.cells.index(name) for name in names]] = 1
    return board


@pytest.mark.parametrize(("size", "count", "orbits"), [(4, 2, 1), (5, 10, 2), (6, 4, 1), (7, 40, 6), (8, 92, 12)])
def test_the_solutions_equal_a_search(size: int, count: int, orbits: int) -> None:
    result = [cells(board, size) for board in boards.solutions(size)]
    assert len(result) == count
    assert set(result) == set(every_solution(size))
    assert len({frozenset(images(board, size)) for board in result}) == orbits
    assert len(set(boards.orbit(boards.solutions(size).astype(int), size).tolist())) == orbits


@pytest.mark.parametrize("size", [4, 6])
def test_every_board_occurs_once_with_each_completion(size: int) -> None:
    every = boards.every_board(size)
    expected = sorted(
        (sorted(kept), sorted(solution))
        for solution in every_solution(size)
        for number in range(size + 1)
        for kept in combinations(sorted(solution), number)
    )
    pairs = zip(every.board, boards.solutions(size)[every.solution], strict=True)
    assert sorted((sorted(cells(a, size)), sorted(cells(b, size))) for a, b in pairs) == expected


@pytest.mark.parametrize(
    "title", ["queens", "queens:unique=false", "queens:size=6,given=[1,3]", "queens:size=5,given=[0,2],unique=false"]
)
def test_states_equal_a_search(title: str) -> None:
    world = worlds.get(title)
    episodes = world.sample(12, seed=3)
    size, law = world.size, world.next_token_probs(episodes.tokens)
    assert world.legal(episodes.tokens).all()
    assert world.solved(episodes.targets, episodes.tokens).all()
    for e, (board, target) in enumerate(zip(episodes.tokens, episodes.targets, strict=True)):
        given, true = cells(board, size), {name: values[e] for name, values in episodes.states.items()}
        completions = [solution for solution in every_solution(size) if given <= solution]
        assert cells(target, size) in completions
        assert len(completions) == 1 or not world.unique
        assert set(true["solutions"]) == {len(completions)}
        assert set(true["givens"]) == {len(given)}
        assert world.given[0] <= len(given) <= world.given[1]
        np.testing.assert_array_equal(true["queen"], target)
        for t in range(world.length):
            cell = divmod(t, size)
            assert (true["row"][t], true["column"][t]) == cell
            assert true["given"][t] == (cell in given)
            assert true["attacked"][t] == (cell not in given and any(attack(cell, queen) for queen in given))
            share = sum(cell in solution for solution in completions) / len(completions)
            assert true["posterior"][t] == pytest.approx(share)
            assert law[e, t].tolist() == pytest.approx([1 - share, share])
        decisive = world.decisive(episodes)[e]
        np.testing.assert_array_equal(decisive, (true["given"] == 0) & (true["attacked"] == 0))
    for name, values in world.replay(episodes.tokens).items():
        np.testing.assert_array_equal(values, episodes.states[name])


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_posterior_is_the_law_of_the_targets(split: str) -> None:
    world = worlds.get("queens:size=5,given=[1,1],unique=false")
    episodes = world.sample(4000, seed=1, split=split)
    numbers = np.unique(episodes.tokens.argmax(axis=1))
    for number in numbers:
        same = episodes.tokens.argmax(axis=1) == number
        exact = episodes.states["posterior"][same][0]
        # Of some 200 draws a share has a standard error of at most 0.04.
        np.testing.assert_allclose(episodes.targets[same].mean(axis=0), exact, atol=0.2)
    assert len(numbers) == (21 if split == "train" else 4)


@pytest.mark.parametrize("title", ["queens:size=6,given=[1,4]", "queens:size=7", "queens:unique=false"])
def test_no_test_board_is_a_training_board_in_any_orientation(title: str) -> None:
    world = worlds.get(title)
    train, test = (
        {cells(board, world.size) for board in world.sample(3000, seed=2, split=split, states=False).tokens}
        for split in ("train", "test")
    )
    assert not {image for board in test for image in images(board, world.size)} & train
    for split in ("train", "test"):
        assert (world.held_out(world.sample(50, split=split).tokens) == (split == "test")).all()
    assert len(test) > 20


def test_held_out_boards_do_not_depend_on_the_parameters() -> None:
    test = worlds.get("queens:given=3").sample(200, split="test").tokens
    assert worlds.get("queens:given=[1,7],unique=false").held_out(test).all()


@pytest.mark.parametrize("unique", [True, False])
def test_no_completion_of_a_test_board_is_a_training_target(unique: bool) -> None:
    world = worlds.get("queens", size=7, hold_out="solutions", unique=unique)
    train, test = (world.sample(3000, seed=2, split=split, states=False) for split in ("train", "test"))
    learned = {image for target in train.targets for image in images(cells(target, 7), 7)}
    for part, known in ((train, True), (test, False)):
        for board in part.tokens[:300]:
            given = cells(board, 7)
            completions = [solution for solution in every_solution(7) if given <= solution]
            assert all((solution in learned) == known for solution in completions)
        assert (world.held_out(part.tokens) != known).all()


def test_any_completion_is_a_solution() -> None:
    world = worlds.get("queens:size=5,unique=false")
    board = tokens(world, "a1")
    first, second = (tokens(world, *names.split()) for names in ("a1 d2 b3 e4 c5", "a1 c2 e3 b4 d5"))
    other = tokens(world, "b1", "e2", "c3", "a4", "d5")
    near = first.copy()
    near[0, world.cells.index("c5")] = 0
    answers = np.concatenate([first, second, other, near, np.zeros_like(near)])
    given = np.repeat(board, 5, axis=0)
    assert world.solved(answers, given).tolist() == [True, True, False, False, False]
    assert world.distance(answers, given)[[0, 1, 3, 4]].tolist() == [0, 0, 1, 5]
    assert world.conflicts(answers).tolist() == [0, 0, 0, 0, 0]
    assert world.solved(other, np.zeros_like(other)).tolist() == [True]


def test_conflicts_are_pairs_that_attack() -> None:
    world = worlds.get("queens")
    answers = (np.random.default_rng(0).random((20, 64)) < 0.15).astype(int)
    expected = [sum(attack(a, b) for a, b in combinations(sorted(cells(answer, 8)), 2)) for answer in answers]
    assert world.conflicts(answers).tolist() == expected


def test_a_board_continues_only_if_it_can_be_completed() -> None:
    world = worlds.get("queens:size=4")
    b1 = tokens(world, "b1")
    legal = world.legal_next(b1)[0]
    # The solution with b1 goes on with d2, a3 and c4.
    queens = {world.cells[t + 1] for t in np.flatnonzero(legal[:, 1])}
    assert queens == {"b1", "d2", "a3", "c4"}
    assert legal[:-1, 0].all()
    assert not legal[-1].any()
    assert world.legal_first().tolist() == [True, False]
    assert not world.legal_next(tokens(world, "a1"))[0].any()
    assert worlds.get("queens").legal_first().tolist() == [True, True]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("a1 b2", "cannot be solved: of the given queens a1 b2 some attack each other"),
        ("a1 c2", "cannot be solved: none of the 4 solutions has queens on a1 c2"),
        ("a1 b1 c1 d1 e1 f1 a2", "has 7 given queens, and 6 fit at most"),
    ],
)
def test_a_board_without_completion_is_refused(names: str, reason: str) -> None:
    world = worlds.get("queens:size=6")
    board = np.concatenate([tokens(world, "b1"), tokens(world, *names.split())])
    for call in (world.replay, world.completions, world.next_token_probs, lambda board: world.solved(board, board)):
        with pytest.raises(ValueError, match=f"board 1 of world 'queens' {reason}"):
            call(board)
    assert not world.legal(board)[1].all()


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"size": 3}, "size=3 has no solution: choose 4 to 8 rows"),
        ({"size": 2}, "size=2 has no solution"),
        ({"size": 9}, "size must be an integer from 4 to 8, got 9"),
        ({"size": 6.0}, "size must be an integer from 4 to 8, got 6.0"),
        ({"given": 8}, "given must be an integer from 0 to 7, got 8"),
        ({"given": (2, 9)}, "given must be an integer from 0 to 7, got 9"),
        ({"given": -1}, "given must be an integer from 0 to 7, got -1"),
        ({"given": (4, 2)}, r"given=\(4, 2\) must be a number of queens, or the least and the greatest"),
        ({"given": "two"}, "given must be an integer from 0 to 7, got 'two'"),
        ({"given": [1, 2, 3]}, r"given must be an integer from 0 to 7, got \[1, 2, 3\]"),
        ({"given": 1}, "no board of size 8 with so many given queens with one completion is outside the test split"),
        ({"size": 6, "hold_out": "solutions"}, "hold_out='solutions' needs solutions that are not .* the 4 of size=6"),
        ({"hold_out": "orbits"}, "unknown hold_out 'orbits'"),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("queens", **params)


def test_one_empty_board_has_no_test_split() -> None:
    world = worlds.get("queens:given=0,unique=false")
    assert world.splits == ("train",)
    assert world.sample(3).tokens.sum() == 0
    np.testing.assert_allclose(world.sample(1).states["posterior"].sum(), 8)
    with pytest.raises(UnknownNameError, match="unknown split of world 'queens': 'test'"):
        world.sample(1, split="test")


def test_beliefs_and_laws_need_whole_boards() -> None:
    world = worlds.get("queens")
    part = world.sample(2).tokens[:, :10]
    for call in (world.replay, world.next_token_probs, world.completions, world.held_out, world.conflicts):
        with pytest.raises(ValueError, match="must be whole boards of 64 cells, got 10"):
            call(part)
    with pytest.raises(ValueError, match="answers must have a row for each of 2 boards, got 1"):
        world.solved(world.sample(1).targets, world.sample(2).tokens)
    assert not world.causal
    assert world.start_states() == {}
    assert world.start_probs() is None


def test_padding_follows_the_board() -> None:
    world = worlds.get("queens:size=4,given=1")
    short, long = world.sample(3, seed=5), world.sample(3, 20, seed=5)
    assert long.tokens.shape == (3, 20)
    assert set(long.length) == {16}
    assert not long.loss_mask[:, 16:].any()
    np.testing.assert_array_equal(short.targets, long.targets[:, :16])
    for name, values in world.replay(long.tokens).items():
        np.testing.assert_array_equal(values, long.states[name])
        np.testing.assert_array_equal(values[:, :16], short.states[name])
    with pytest.raises(ValueError, match="length=15 is too short: an episode of world 'queens' has 16 tokens"):
        world.sample(1, 15)


def test_the_same_seed_gives_the_same_bytes() -> None:
    world = worlds.get("queens")
    assert world.sample(5, seed=1).sha256 == world.sample(5, seed=1).sha256 != world.sample(5, seed=2).sha256
    assert (
        world.sample(2, seed=0).tokens.sum(axis=1).tolist() == world.sample(2, seed=0).states["givens"][:, 0].tolist()
    )
    counts = np.bincount(world.sample(5000, states=False).tokens.sum(axis=1), minlength=8)
    assert counts[:2].sum() == counts[7] == 0
    assert counts[2:7] == pytest.approx(np.full(5, 1000), abs=150)


@pytest.mark.parametrize(
    "params", [{}, {"size": 7, "unique": False}, {"given": 3}, {"given": (1, 7), "hold_out": "solutions"}]
)
def test_title_and_spec_build_the_same_world(params: dict[str, Any]) -> None:
    world = worlds.get("queens", **params)
    for again in (worlds.get(worlds.title(world)), worlds.from_spec(json.loads(json.dumps(world.spec)))):
        assert again.spec == world.spec
        assert again.sample(4, seed=3).sha256 == world.sample(4, seed=3).sha256


def test_the_picture_shows_given_queens_answer_and_conflicts() -> None:
    world = worlds.get("queens:size=5,unique=false")
    board = Episodes(tokens(world, "a1"))
    title = world.draw(episode=board).layout.title.text
    assert title == "queens: 1 given, 2 completions"
    solved = tokens(world, "a1", "d2", "b3", "e4", "c5")
    assert world.draw(episode=board, answer=solved[0]).layout.title.text.endswith(", solved")
    wrong = tokens(world, "a1", "b2", "c3")
    figure = world.draw(episode=board, answer=wrong[0], position=7)
    assert figure.layout.title.text.endswith("not solved, 3 conflicts")
    lines = next(trace for trace in figure.data if trace.line.color == "#DC267F")
    assert np.isfinite(lines.x).sum() == 6
    ring = figure.data[-1]
    assert (ring.x[0], ring.y[0]) == (1.5, 1.5)
    shades = [shape for shape in figure.layout.shapes if shape.opacity is not None]
    assert len(shades) == 9
    assert "a3: attacked by a given queen" in [text for trace in figure.data for text in trace.hovertext or ()]
    with pytest.raises(UnknownNameError, match="unknown option of picture 'board': 'answers'"):
        world.draw(answers=solved)
