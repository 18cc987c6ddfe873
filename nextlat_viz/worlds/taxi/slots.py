"""Which streets a ride may take next, looked up for thousands of rides at once.

The streets that leave an intersection are numbered from 0, its slots. A ride that is over is at ``home``, one more
intersection, whose one street leads back to it and is called ``END``: no ride has to be told apart from the others.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int, Integer, UInt8

from nextlat_viz.worlds.taxi.streets import COMPASS, Streets

END = len(COMPASS)
"""What stands in a table of turns once the ride is over."""

# A slot that fewer intersections have is looked up for the rides at those alone.
_COMMON = 0.25
# Entries of a table that still lies in the cache, by and large.
_LARGEST_TABLE = 1 << 22


class Slots:
    """Lookup for large cities: distances from each neighbour to the goal are compared anew at every turn.

    Attributes
    ----------
    count : int
        The most streets that leave an intersection.
    direction, leads : int arrays ((nodes + 1) * count,)
        Name of the street in a slot, 0 to 8, and where it leads; entry ``count * intersection + slot``.
    pick : uint8 array
        Slots, each of those to choose from equally often in the ``shares`` entries from an offset on.
    distance : int array
        Moves to a goal; the row of a goal begins at ``goal * stride``.
    """

    def __init__(self, streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> None:
        self.home = self.stride = len(streets.nodes)
        self.distance = to_goal.ravel()
        self.degree = np.append((streets.turns >= 0).sum(1), 0)
        self.count = int(self.degree.max())
        direction = np.argsort(streets.turns < 0, axis=1, kind="stable")[:, : self.count]
        leads = np.take_along_axis(streets.turns, direction, axis=1)
        # A slot that is not there looks where slot 0 does, and is never picked.
        leads = np.where(leads >= 0, leads, leads[:, :1])
        self.direction = np.append(direction, np.full(self.count, END)).astype(np.uint8)
        self.leads = np.append(leads, np.full(self.count, self.home)).astype(np.int64)
        self._neighbours = np.append(leads.T, np.zeros((self.count, 1), np.int64), axis=1).astype(np.int64)
        self._common = int((np.mean(self.degree[:, None] > np.arange(self.count), axis=0) >= _COMMON).sum())
        self._crowded = self.degree > self._common
        # Uniform among k slots for every k at once: one of this many equal shares.
        self.shares = math.lcm(*range(1, self.count + 1))
        self._share_type = np.uint8 if self.shares <= 256 else np.uint16
        pick = np.zeros((self.count + 1, 2**self.count, self.shares), np.uint8)
        for degree in range(1, self.count + 1):
            for pattern in range(2**self.count):
                chosen = [slot for slot in range(degree) if pattern >> slot & 1]
                if chosen:
                    pick[degree, pattern] = np.repeat(chosen, self.shares // len(chosen))
        self.pick = pick.ravel()
        self._offset = self.degree * 2**self.count * self.shares

    def choose(
        self,
        at: Int[np.ndarray, " rides"],
        row: Int[np.ndarray, " rides"],
        limit: int | Integer[np.ndarray, " rides"],
        rng: np.random.Generator,
    ) -> UInt8[np.ndarray, " rides"]:
        """A slot for each ride, uniform among those that lead closer than ``limit`` moves to its goal.

        There must be one; ``row`` is where the goal's row of ``distance`` begins.
        """
        share = rng.integers(self.shares, size=len(at), dtype=self._share_type)
        return self.pick.take(np.add(self._offsets(at, row, limit), share, dtype=np.int64))

    def _offsets(
        self, at: Int[np.ndarray, " rides"], row: Int[np.ndarray, " rides"], limit: int | Integer[np.ndarray, " rides"]
    ) -> Integer[np.ndarray, " rides"]:
        """Where in ``pick`` the slots of each ride begin."""
        pattern = self._within(at, row, limit, range(self._common))
        if self._common < self.count:
            few = np.flatnonzero(self._crowded.take(at))
            near = limit if isinstance(limit, int) else limit[few]
            pattern[few] |= self._within(at[few], row[few], near, range(self._common, self.count))
        return self._offset.take(at) + np.multiply(pattern, self.shares, dtype=np.int64)

    def _within(
        self,
        at: Int[np.ndarray, " rides"],
        row: Int[np.ndarray, " rides"],
        limit: int | Integer[np.ndarray, " rides"],
        slots: range,
    ) -> UInt8[np.ndarray, " rides"]:
        """Which of these slots lead closer than ``limit``, a bit for each."""
        pattern = np.zeros(len(at), np.uint8)
        for slot in slots:
            near = self.distance.take(self._neighbours[slot].take(at) + row) < limit
            pattern |= near.view(np.uint8) << np.uint8(slot)
        return pattern


class ListedSlots(Slots):
    """Lookup for small cities: what can be chosen is listed for every intersection, goal and number of moves to spare.

    The detour of a street is how many moves it adds to the shortest way; a ride may take those whose detour is no
    longer than the moves it has to spare.
    """

    def __init__(self, streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> None:
        super().__init__(streets, to_goal)
        nodes = len(streets.nodes)
        self.stride = nodes + 1
        self.distance = np.append(to_goal, np.zeros((nodes, 1), np.uint16), axis=1).astype(np.uint16).ravel()
        detour = _detours(streets, to_goal)
        longest = int(detour.max())
        self._most_spare = longest
        self._enough = int(to_goal.max()) + longest
        # Detours stand by direction, slots by number: the k-th street of an intersection is its slot k.
        slot = np.cumsum(streets.turns >= 0, axis=1) - 1
        bit = np.where(streets.turns >= 0, 1 << np.maximum(slot, 0), 0)
        listed = np.zeros((nodes, nodes + 1, longest + 1), np.int32)
        for spare in range(longest + 1):
            pattern = np.where(detour <= spare, bit, 0).sum(-1)
            listed[:, :nodes, spare] = self._offset[:nodes] + pattern * self.shares
        self._listed = listed.ravel()

    def _offsets(
        self, at: Int[np.ndarray, " rides"], row: Int[np.ndarray, " rides"], limit: int | Integer[np.ndarray, " rides"]
    ) -> Integer[np.ndarray, " rides"]:
        key = row + at
        near = np.uint16(min(limit, self._enough)) if isinstance(limit, int) else limit
        spare = np.minimum(near - self.distance.take(key), np.uint16(self._most_spare))
        key *= self._most_spare + 1
        key += spare
        return self._listed.take(key)


def slots(streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> Slots:
    """The faster lookup of the two that fits the city."""
    size = len(streets.nodes) * (len(streets.nodes) + 1)
    if size <= _LARGEST_TABLE and size * (int(_detours(streets, to_goal).max()) + 1) <= _LARGEST_TABLE:
        return ListedSlots(streets, to_goal)
    return Slots(streets, to_goal)


def _detours(streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> Integer[np.ndarray, "nodes nodes 8"]:
    """By goal, intersection and direction: moves a street adds to the shortest way; 0 where there is none."""
    detour = to_goal[:, streets.turns].astype(np.int32) + 1 - to_goal[..., None]
    return np.where(streets.turns >= 0, detour, 0)
