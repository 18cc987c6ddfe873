"""The rules of N queens: attacks, all solutions, the eight symmetries, and all boards that can be completed.

A board is an array of its cells along the rows from the top, 1 where a queen stands: cell 0 is a1, cell 1 is b1. A
*solution* has a queen in every row and column, and no two on a diagonal. The *completions* of a board of given queens
are the solutions that have all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt64

from nextlat_viz.worlds.base import scrambled

# One in this many is held out: of the boards with each number of given queens, and of the solutions.
_BOARDS, _SOLUTIONS = 10, 6


@cache
def solutions(size: int) -> Bool[np.ndarray, "solutions cells"]:
    """All solutions, ordered by the column of the queen in the first row, then in the second and so on.

    Examples
    --------
    >>> [len(solutions(size)) for size in (2, 3, 4, 5, 6, 7, 8)]
    [0, 0, 2, 10, 4, 40, 92]
    """
    column, row = np.array(list(permutations(range(size)))), np.arange(size)
    diagonals = np.sort([column + row, column - row], axis=2)
    column = column[(np.diff(diagonals, axis=2) > 0).all(axis=(0, 2))]
    return (column[..., None] == row).reshape(len(column), size * size)


@cache
def attacks(size: int) -> Bool[np.ndarray, "cells cells"]:
    """Whether queens on two different cells attack each other.

    Examples
    --------
    >>> attacks(4)[0].astype(int).reshape(4, 4).tolist()
    [[0, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]
    """
    row, column = np.divmod(np.arange(size * size), size)
    lines = np.stack([row, column, row + column, row - column])
    return (lines[:, :, None] == lines[:, None]).any(axis=0) & ~np.eye(size * size, dtype=bool)


@cache
def symmetries(size: int) -> Int[np.ndarray, "8 cells"]:
    """The rotations and reflections of the board: the cell that each cell moves to. The first moves nothing.

    Examples
    --------
    >>> board = np.array([1, 0, 0, 0])
    >>> np.unique(board[symmetries(2)], axis=0).tolist()
    [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    """
    row, column = np.divmod(np.arange(size * size), size)
    images = []
    for first, second in ((row, column), (column, row)):
        images += [size * r + c for r in (first, size - 1 - first) for c in (second, size - 1 - second)]
    return np.stack(images)


def orbit(boards: Integer[np.ndarray, "boards cells"], size: int) -> UInt64[np.ndarray, " boards"]:
    """A number that boards share if and only if a rotation or reflection takes one to the other.

    The cells of a board are the bits of an integer; this is the smallest of its eight images.

    Examples
    --------
    >>> orbit(solutions(8).astype(int), 8).size, np.unique(orbit(solutions(8).astype(int), 8)).size
    (92, 12)
    """
    return np.min([boards.astype(np.uint64) @ bits for bits in _bits(size)], axis=0)


def _bits(size: int) -> UInt64[np.ndarray, "8 cells"]:
    """The bit of each cell in the integer of a board, for each of the eight images."""
    return np.left_shift(np.uint64(1), symmetries(size).astype(np.uint64))


@dataclass(frozen=True, eq=False)
class Boards:
    """Every pair of a board with at least one completion, and one of its completions.

    Attributes
    ----------
    board : uint8 array (pairs, cells)
    solution : int array (pairs,)
        Index of the completion in ``solutions(size)``.
    given : int array (pairs,)
        Number of queens on the board, 0 to size.
    number : int array (pairs,)
        A number of the board, the same in all its pairs.
    completions : int array (pairs,)
        Number of completions of the board.
    orbit : uint64 array (pairs,)
        Equal for boards that a rotation or reflection takes to each other.
    """

    board: Integer[np.ndarray, "pairs cells"]
    solution: Int[np.ndarray, " pairs"]
    given: Int[np.ndarray, " pairs"]
    number: Int[np.ndarray, " pairs"]
    completions: Int[np.ndarray, " pairs"]
    orbit: UInt64[np.ndarray, " pairs"]


@cache
def every_board(size: int) -> Boards:
    """All pairs of a board and a completion: every subset of the queens of every solution.

    Examples
    --------
    >>> boards = every_board(4)
    >>> boards.board.shape, np.bincount(boards.given).tolist()
    ((32, 16), [2, 8, 12, 8, 2])
    """
    solved = solutions(size)
    subsets = np.arange(2**size)[:, None] >> np.arange(size) & 1
    cells = np.nonzero(solved)[1].reshape(len(solved), size)
    board = np.zeros((len(solved), len(subsets), size * size), np.uint8)
    np.put_along_axis(board, np.broadcast_to(cells[:, None], (len(solved), len(subsets), size)), subsets[None], axis=2)
    # Integers of the boards' images, from the few cells that hold a queen.
    images = np.stack([bits[cells] @ subsets.T.astype(np.uint64) for bits in _bits(size)]).reshape(8, -1)
    _, number, count = np.unique(images[0], return_inverse=True, return_counts=True)
    return Boards(
        board.reshape(-1, size * size),
        np.repeat(np.arange(len(solved)), len(subsets)),
        np.tile(subsets.sum(axis=1), len(solved)),
        number,
        count[number],
        images.min(axis=0),
    )


@cache
def held_out_boards(size: int) -> UInt64[np.ndarray, " orbits"]:
    """Orbits of the test boards: a fixed tenth for each number of given queens, but at least one of several.

    Examples
    --------
    >>> len(held_out_boards(4)), len(held_out_boards(8))
    (1, 244)
    """
    boards = every_board(size)
    return np.concatenate(
        [_chosen(np.unique(boards.orbit[boards.given == given]), _BOARDS) for given in range(size + 1)]
    )


@cache
def held_out_solutions(size: int) -> Bool[np.ndarray, " solutions"]:
    """Solutions that only test boards have: a fixed sixth of the orbits, at least one; none if there is only one.

    Examples
    --------
    >>> [int(held_out_solutions(size).sum()) for size in (4, 5, 6, 7, 8)]
    [0, 8, 0, 8, 16]
    """
    orbits = orbit(solutions(size).astype(np.int64), size)
    return np.isin(orbits, _chosen(np.unique(orbits), _SOLUTIONS))


def _chosen(orbits: UInt64[np.ndarray, " orbits"], share: int) -> UInt64[np.ndarray, " held"]:
    """One in `share` orbits, rounded down but at least one of several, by a fixed hash."""
    count = max(len(orbits) // share, int(len(orbits) > 1))
    return orbits[np.argsort(scrambled(orbits))[:count]]
