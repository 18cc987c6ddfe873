"""How many moves it takes to drive from any intersection to any other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

_WORD = np.dtype("<u8")
_GOALS_AT_ONCE = 8 * _WORD.itemsize


def fewest_moves(turns: Int[np.ndarray, "nodes 8"]) -> Integer[np.ndarray, "nodes nodes"]:
    """Fewest moves from row to column in a strongly connected table of turns; see ``Streets.distance``.

    Breadth-first from 64 goals at once, one bit for each: a pass over the streets takes all of them back one move.
    """
    count = len(turns)
    ways = (turns >= 0).sum(1)
    # With those that have most ways first, the k-th ways of all intersections are those of the first few.
    order = np.argsort(-ways, kind="stable")
    place = np.argsort(order)
    onward = [
        place[np.take_along_axis(turns[order], np.argsort(turns[order] < 0, axis=1, kind="stable"), 1)[:last, k]]
        for k, last in enumerate((ways[:, None] > np.arange(ways.max())).sum(0))
    ]
    blocks = [
        _moves_to(np.arange(first, min(first + _GOALS_AT_ONCE, count)), place, onward)
        for first in range(0, count, _GOALS_AT_ONCE)
    ]
    moves = np.concatenate(blocks)
    moves.flags.writeable = False
    return moves.T


def _moves_to(
    goals: Int[np.ndarray, " goals"], place: Int[np.ndarray, " nodes"], onward: Sequence[Int[np.ndarray, " _"]]
) -> Integer[np.ndarray, "goals nodes"]:
    """Moves to each of at most 64 goals from every intersection, whose word of bits is at its ``place``."""
    seen = np.zeros(len(place), _WORD)
    seen[place[goals]] = np.uint64(1) << np.arange(len(goals), dtype=np.uint64)
    planes: list[np.ndarray] = []  # the moves in binary: plane k holds the bit worth 2^k
    for moves in itertools.count(1):
        reached = seen.copy()
        for targets in onward:
            reached[: len(targets)] |= seen[targets]
        new = reached ^ seen
        if not new.any():
            break
        if moves >> len(planes):
            planes.append(np.zeros_like(seen))
        for k, plane in enumerate(planes):
            if moves >> k & 1:
                plane |= new
        seen = reached
    # One more than the longest way must fit too, so that a caller may add a move.
    result = np.zeros((len(goals), len(place)), np.uint8 if moves < 256 else np.uint16 if moves < 65536 else np.uint32)
    for k, plane in enumerate(planes):
        octets = plane[place].view(np.uint8).reshape(len(place), -1)
        flags = np.unpackbits(octets, axis=1, count=len(goals), bitorder="little")
        result |= flags.T.astype(result.dtype) << k
    return result
