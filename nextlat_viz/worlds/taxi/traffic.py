"""Draw the turns of thousands of rides at once.

The streets that leave an intersection are its slots, numbered from 0. A finished ride is at ``home``, an additional
intersection with one street back to itself, called ``END``, so that finished rides need no special case.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8, UInt16

from nextlat_viz.worlds.taxi.streets import COMPASS, Streets

END = len(COMPASS)
"""Padding of a table of turns after the end of a ride."""

_TURNS_BETWEEN_COUNTS = 8
_CACHE_LINE = 64  # bytes
# Slots that a smaller fraction of the intersections have are looked up only for the rides at those intersections.
_COMMON = 0.25


class Traffic:
    """Compares the distances of the neighbours to the goal at every turn, and chooses among the open slots.

    Parameters
    ----------
    streets : Streets
    to_goal : integer array (nodes, nodes)
        Length of the shortest path from column to row, in moves.
    """

    def __init__(self, streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> None:
        self.home = len(streets.nodes)
        self._distance = to_goal.ravel()
        degree = np.append((streets.turns >= 0).sum(1), 0)
        self.slots = int(degree.max())
        direction = np.argsort(streets.turns < 0, axis=1, kind="stable")[:, : self.slots]
        leads = np.take_along_axis(streets.turns, direction, axis=1)
        # A missing slot points where slot 0 does, and is never picked.
        leads = np.append(np.where(leads >= 0, leads, leads[:, :1]), [[self.home] * self.slots], axis=0)
        self._leads = leads.ravel()
        self._neighbours = np.ascontiguousarray(np.where(leads == self.home, 0, leads).T)
        self._directions = np.append(direction, [[END] * self.slots], axis=0).astype(np.uint8).ravel()
        self._common = int((np.mean(degree[:, None] > np.arange(self.slots), axis=0) >= _COMMON).sum())
        self._crowded = degree > self._common
        # This many equal shares can be split evenly among any number of slots.
        self.shares = max(2, math.lcm(*range(1, self.slots + 1)))
        # The slot picked, by number of streets, open slots (one bit each) and share.
        picks = np.zeros((self.slots + 1, 2**self.slots, self.shares), np.uint8)
        for streets_there in range(1, self.slots + 1):
            for pattern in range(2**self.slots):
                open_slots = [slot for slot in range(streets_there) if pattern >> slot & 1]
                if open_slots:
                    picks[streets_there, pattern] = np.repeat(open_slots, self.shares // len(open_slots))
        self._picks = picks.ravel()
        self._offset = degree * 2**self.slots * self.shares

    def drive(
        self,
        origin: Int[np.ndarray, " rides"],
        goal: Int[np.ndarray, " rides"],
        max_turns: int,
        wander: float,
        rng: np.random.Generator,
    ) -> UInt8[np.ndarray, "turns rides"]:
        """Draw turns from origins to goals within ``max_turns``, padded with at least one ``END``.

        With probability ``wander`` a turn is uniform among those after which the goal can be reached in the moves left,
        otherwise among those that reduce the distance.
        """
        # Rows a power of two apart would map the turns of a ride to the same few cache lines.
        turns = np.full((max_turns + 1, len(origin) + _CACHE_LINE), END, np.uint8)[:, : len(origin)]
        rides: slice | np.ndarray = slice(None)
        at, row = origin, goal * self.home
        for turn in range(max_turns):
            since = turn % _TURNS_BETWEEN_COUNTS
            if turn and since == 0:
                driving = np.flatnonzero(turns[turn - 1, rides] != END)
                if not len(driving):
                    break
                if 2 * len(driving) <= len(at):
                    rides = np.arange(len(origin))[rides][driving]
                    at, row, goal = at[driving], row[driving], goal[driving]
            size = len(at)
            if since == 0:
                shares = self._draw(min(_TURNS_BETWEEN_COUNTS, max_turns - turn), size, rng.bit_generator)
            limit: int | np.ndarray = max_turns - turn
            if wander < 1:
                straight = rng.random(size) >= wander if wander else np.ones(size, bool)
                here = self._distance.take(row + at, mode="clip")
                limit = np.where(straight, here, np.uint16(min(limit, 65535)))
            slot = at * self.slots + self._choose(at, row, limit, shares[since])
            turns[turn, rides] = self._directions.take(slot)
            at = self._leads.take(slot)
            at[at == goal] = self.home
        return turns

    def _draw(self, turns: int, rides: int, bits: Any) -> UInt16[np.ndarray, "turns rides"]:
        """Draw exactly uniform shares: 16 random bits each, drawn again in the rare case that they are too large."""
        width = np.uint16(65536 // self.shares)
        count = turns * rides
        shares = bits.random_raw(-(-count // 4)).view(np.uint16)[:count] // width
        over = np.flatnonzero(shares >= self.shares)
        while len(over):
            shares[over] = (bits.random_raw(len(over)) & np.uint64(65535)).astype(np.uint16) // width
            over = over[shares[over] >= self.shares]
        return shares.reshape(turns, rides)

    def _choose(
        self,
        at: Int[np.ndarray, " rides"],
        row: Int[np.ndarray, " rides"],
        limit: int | Integer[np.ndarray, " rides"],
        share: UInt16[np.ndarray, " rides"],
    ) -> UInt8[np.ndarray, " rides"]:
        """The slot that each ride takes, by its share, among those that lead to within ``limit`` moves of the goal."""
        pattern = self._within(at, row, limit, range(self._common))
        if self._common < self.slots:
            few = np.flatnonzero(self._crowded.take(at))
            near = limit if isinstance(limit, int) else limit[few]
            pattern[few] |= self._within(at[few], row[few], near, range(self._common, self.slots))
        index = self._offset.take(at)
        index += np.multiply(pattern, self.shares, dtype=np.int64)
        index += share
        return self._picks.take(index)

    def _within(
        self,
        at: Int[np.ndarray, " rides"],
        row: Int[np.ndarray, " rides"],
        limit: int | Integer[np.ndarray, " rides"],
        slots: range,
    ) -> UInt8[np.ndarray, " rides"]:
        """Slots that lead to within ``limit`` moves of the goal, one bit each."""
        pattern = np.zeros(len(at), np.uint8)
        for slot in slots:
            near = self._distance.take(self._neighbours[slot].take(at) + row) < limit
            pattern |= near.view(np.uint8) << np.uint8(slot)
        return pattern
