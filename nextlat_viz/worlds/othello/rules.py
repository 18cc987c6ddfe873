"""The rules of Othello on bitboards: one 64-bit integer holds the discs of one side, for many games at once.

Bit ``8 * row + column`` is a square: bit 0 is a1, bit 7 is h1, bit 8 is a2. Shifting a board by 1, 7, 8 or 9 bits
moves every disc by one square in one of the eight directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

Board = UInt64[np.ndarray, " games"]

_NONE, _ONE = np.uint64(0), np.uint64(1)
# Without columns a and h no shift wraps into the next row.
_INNER = np.uint64(0x7E7E7E7E7E7E7E7E)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_DIRECTIONS = tuple(
    (shift, np.uint64(bits), np.uint64(2 * bits), _ALL if bits == 8 else _INNER)
    for shift in (np.left_shift, np.right_shift)
    for bits in (1, 7, 8, 9)
)
_PAIRS, _NIBBLES, _BYTES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_EACH_BYTE = np.uint64(0x0101010101010101)


class Position(NamedTuple):
    """Positions of games, as seen by the side to move.

    ``mine`` are its discs and ``theirs`` those of the other side; ``moves`` are its legal moves, none after the end of
    the game; ``white`` is True if White is to move.
    """

    mine: Board
    theirs: Board
    moves: Board
    white: Bool[np.ndarray, " games"]


def opening(games: int) -> Position:
    """The first position: White on d4 and e5, Black on e4 and d5, Black to move."""
    mine, theirs = np.full((2, games), [[1 << 28 | 1 << 35], [1 << 27 | 1 << 36]], np.uint64)
    return Position(mine, theirs, legal_moves(mine, theirs), np.zeros(games, bool))


def legal_moves(mine: Board, theirs: Board) -> Board:
    """Empty squares from which a straight run of the other side's discs leads to a disc of the side to move.

    Examples
    --------
    >>> np.flatnonzero(squares(opening(1).moves)[0]).tolist()
    [19, 26, 37, 44]
    """
    ends = np.zeros_like(mine)
    for _, beyond in _runs(mine, theirs):
        ends |= beyond
    return ends & ~(mine | theirs)


def turned(mine: Board, theirs: Board, move: Board) -> Board:
    """Discs of the other side that a move to the square ``move`` turns over."""
    flips = np.zeros_like(mine)
    for run, beyond in _runs(move, theirs):
        flips |= np.where(beyond & mine, run, _NONE)
    return flips


def play(position: Position, move: Board) -> Position:
    """The position after one legal move in each game; unchanged where ``move`` is empty.

    A side that cannot move passes. If neither side can move the game is over: the side to move is the one that did not
    move last, and ``moves`` is empty.
    """
    flips = turned(position.mine, position.theirs, move)
    mover, other = position.mine | move | flips, position.theirs & ~flips
    after = Position(other, mover, legal_moves(other, mover), ~position.white)
    stuck = np.flatnonzero(after.moves == 0)
    again = legal_moves(mover[stuck], other[stuck])
    passed = stuck[again != 0]
    for field, values in zip(
        after, (mover[passed], other[passed], again[again != 0], position.white[passed]), strict=True
    ):
        field[passed] = values
    waiting = np.flatnonzero(move == 0)
    for field, before in zip(after, position, strict=True):
        field[waiting] = before[waiting]
    return after


def count(board: Board) -> Int[np.ndarray, " games"]:
    """Number of squares set.

    Examples
    --------
    >>> count(np.array([0, 5, 2**64 - 1], np.uint64)).tolist()
    [0, 2, 64]
    """
    return ((_counts(board)[2] * _EACH_BYTE) >> np.uint64(56)).astype(np.int64)


def nth_square(board: Board, n: UInt64[np.ndarray, " games"]) -> Int[np.ndarray, " games"]:
    """Index of the ``n``-th square set, from 0; undefined if the board has at most ``n``.

    A binary search: halves the board six times, each time keeping the half with the square.

    Examples
    --------
    >>> nth_square(np.array([38, 38, 38], np.uint64), np.arange(3, dtype=np.uint64)).tolist()
    [1, 2, 5]
    """
    pairs, nibbles, octets = _counts(board)
    words = octets + (octets >> np.uint64(8))
    longs = words + (words >> np.uint64(16))
    square, left = np.zeros_like(board), n
    for bits, counts in ((32, longs), (16, words), (8, octets), (4, nibbles), (2, pairs), (1, board)):
        below = (counts >> square) & np.uint64(2 * bits - 1)
        above = left >= below
        left = left - below * above
        square += np.uint64(bits) * above
    return square.astype(np.int64)


def squares(board: UInt64[np.ndarray, "*games"]) -> UInt8[np.ndarray, "*games 64"]:
    """Boards as ones and zeros for each square, from a1 along the rows.

    Examples
    --------
    >>> squares(np.array([5], np.uint64))[0, :4].tolist()
    [1, 0, 1, 0]
    """
    octets = np.ascontiguousarray(board, "<u8")[..., None].view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")


def _runs(start: Board, theirs: Board) -> Iterator[tuple[Board, Board]]:
    """For each direction: the other side's discs that follow ``start`` without a gap, and these shifted by one."""
    for shift, once, twice, inner in _DIRECTIONS:
        through = theirs & inner
        run = through & shift(start, once)
        run |= through & shift(run, once)
        double = through & shift(through, once)
        run |= double & shift(run, twice)
        run |= double & shift(run, twice)
        yield run, shift(run, once)


def _counts(board: Board) -> tuple[Board, Board, Board]:
    """Number of squares set in every two, four and eight bits."""
    pairs = board - ((board >> _ONE) & _PAIRS)
    nibbles = (pairs & _NIBBLES) + ((pairs >> np.uint64(2)) & _NIBBLES)
    return pairs, nibbles, (nibbles + (nibbles >> np.uint64(4))) & _BYTES
