"""Draw the turns of thousands of rides at once.

The streets that leave an intersection are its slots, numbered from 0. A finished ride is at ``home``, an additional
intersection with one street back to itself, called ``END``, so that finished rides need no special case.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8, UInt16

from nextlat_viz.worlds.taxi.streets import COMPASS, Streets

END = len(COMPASS)
"""Padding of a table of turns after the end of a ride."""

_TURNS_BETWEEN_COUNTS = 8
_CACHE_LINE = 64  # bytes
# A slot that a smaller fraction of intersections has is looked up only for the rides there.
_COMMON = 0.25
# The bits of a step, from the lowest: direction, detour, entry of the table. The sizes follow from 32 bits.
_DIRECTION_BITS, _STEP_BITS = 4, 10
_LARGEST_TABLE = 1 << (31 - _STEP_BITS)
_LONGEST_DETOUR = (1 << (_STEP_BITS - _DIRECTION_BITS)) - 1

State = tuple[np.ndarray, ...]


class Traffic(ABC):
    """Base class of two ways to look up streets: the drive, and the choice among open slots."""

    def __init__(self, streets: Streets) -> None:
        self.home = len(streets.nodes)
        self.degree = np.append((streets.turns >= 0).sum(1), 0)
        self.slots = int(self.degree.max())
        direction = np.argsort(streets.turns < 0, axis=1, kind="stable")[:, : self.slots]
        leads = np.take_along_axis(streets.turns, direction, axis=1)
        # A missing slot points where slot 0 does, and is never picked.
        self.leads = np.append(np.where(leads >= 0, leads, leads[:, :1]), [[self.home] * self.slots], axis=0)
        self.direction = np.append(direction, [[END] * self.slots], axis=0)
        # This many equal shares can be split evenly among any number of slots.
        self.shares = max(2, math.lcm(*range(1, self.slots + 1)))
        self.pick = np.zeros((self.slots + 1, 2**self.slots, self.shares), np.uint8)
        for degree in range(1, self.slots + 1):
            for pattern in range(2**self.slots):
                chosen = [slot for slot in range(degree) if pattern >> slot & 1]
                if chosen:
                    self.pick[degree, pattern] = np.repeat(chosen, self.shares // len(chosen))

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
        state = self._start(origin, goal, max_turns)
        for turn in range(max_turns):
            since = turn % _TURNS_BETWEEN_COUNTS
            if turn and since == 0:
                driving = np.flatnonzero(turns[turn - 1, rides] != END)
                if not len(driving):
                    break
                if 2 * len(driving) <= len(state[0]):
                    rides = np.arange(len(origin))[rides][driving]
                    state = tuple(values[driving] for values in state)
            size = len(state[0])
            if since == 0:
                shares = self._draw(min(_TURNS_BETWEEN_COUNTS, max_turns - turn), size, rng.bit_generator)
            straight = None if wander == 1 else rng.random(size) >= wander if wander else np.ones(size, bool)
            turns[turn, rides], state = self._move(state, max_turns - turn, straight, shares[since])
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

    @abstractmethod
    def _start(self, origin: Int[np.ndarray, " rides"], goal: Int[np.ndarray, " rides"], max_turns: int) -> State:
        """The state of rides at the start, as arrays (rides,)."""

    @abstractmethod
    def _move(
        self, state: State, left: int, straight: Bool[np.ndarray, " rides"] | None, share: UInt16[np.ndarray, " rides"]
    ) -> tuple[Integer[np.ndarray, " rides"], State]:
        """Draw the directions with ``left`` moves left; return them and the next state."""


class ComparedTraffic(Traffic):
    """For large cities: compares the distances of the neighbours to the goal at every turn."""

    def __init__(self, streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> None:
        super().__init__(streets)
        self._distance = to_goal.ravel()
        self._neighbours = np.ascontiguousarray(np.where(self.leads == self.home, 0, self.leads).T)
        self._common = int((np.mean(self.degree[:, None] > np.arange(self.slots), axis=0) >= _COMMON).sum())
        self._crowded = self.degree > self._common
        self._picks = self.pick.ravel()
        self._offset = self.degree * 2**self.slots * self.shares
        self._directions = self.direction.astype(np.uint8).ravel()
        self._leads = self.leads.ravel()

    def _start(self, origin: Int[np.ndarray, " rides"], goal: Int[np.ndarray, " rides"], max_turns: int) -> State:
        return origin, goal * self.home, goal

    def _move(
        self, state: State, left: int, straight: Bool[np.ndarray, " rides"] | None, share: UInt16[np.ndarray, " rides"]
    ) -> tuple[Integer[np.ndarray, " rides"], State]:
        at, row, goal = state
        limit: int | np.ndarray = left
        if straight is not None:
            here = self._distance.take(row + at, mode="clip")
            limit = np.where(straight, here, np.uint16(min(left, 65535)))
        pattern = self._within(at, row, limit, range(self._common))
        if self._common < self.slots:
            few = np.flatnonzero(self._crowded.take(at))
            near = limit if isinstance(limit, int) else limit[few]
            pattern[few] |= self._within(at[few], row[few], near, range(self._common, self.slots))
        which = self._offset.take(at)
        which += np.multiply(pattern, self.shares, dtype=np.int64)
        which += share
        at = at * self.slots
        at += self._picks.take(which)
        direction = self._directions.take(at)
        at = self._leads.take(at)
        at[at == goal] = self.home
        return direction, (at, row, goal)

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


class ListedTraffic(Traffic):
    """For small cities: a table of all choices and steps by goal, intersection, and spare moves or slot.

    The detour of a street is the number of moves it adds to the shortest path; a ride may take it if it has as many
    moves to spare.
    """

    def __init__(self, streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> None:
        super().__init__(streets)
        nodes, detour = self.home, _detours(streets, to_goal)
        self._to_goal, self._longest, self._width = to_goal, int(detour.max()), _width(streets, detour)
        goal = np.arange(nodes)[:, None, None]

        directions = self.direction[:-1]
        detours = np.take_along_axis(detour, np.broadcast_to(directions, (nodes, *directions.shape)), axis=2)
        open_slots = np.arange(self.slots) < self.degree[:-1, None]
        pattern = np.zeros((nodes, nodes + 1, self._width), np.int64)
        for spare in range(self._longest + 1):
            bits = ((detours <= spare) & open_slots) << np.arange(self.slots)
            pattern[:, :-1, spare] = self.degree[:-1] * 2**self.slots + bits.sum(-1)
        # Few of the possible patterns occur; with only those, the tables stay in the cache.
        used, chosen = np.unique(pattern, return_inverse=True)
        self._picks = self.pick.reshape(-1, self.shares)[used].ravel()
        self._chosen = chosen.astype(np.min_scalar_type(len(used))).ravel()

        steps = np.zeros((nodes, nodes + 1, self._width), np.int32)
        to = np.where(self.leads == goal, self.home, self.leads)
        steps[..., : self.slots] = (self._entry(goal, to) << _STEP_BITS) + self.direction
        steps[:, :-1, : self.slots] += detours.astype(np.int32) << _DIRECTION_BITS
        self._steps = steps.ravel()

    def _entry(self, goal: Int[np.ndarray, "..."], node: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Index of the first entry for an intersection and a goal."""
        return (goal * (self.home + 1) + node) * self._width

    def _start(self, origin: Int[np.ndarray, " rides"], goal: Int[np.ndarray, " rides"], max_turns: int) -> State:
        spare = max_turns - self._to_goal[goal, origin].astype(np.int64)
        return self._entry(goal, origin).astype(np.int32), spare.astype(np.int32)

    def _move(
        self, state: State, left: int, straight: Bool[np.ndarray, " rides"] | None, share: UInt16[np.ndarray, " rides"]
    ) -> tuple[Integer[np.ndarray, " rides"], State]:
        entry, spare = state
        choice = np.minimum(spare, self._longest)
        if straight is not None:
            choice *= ~straight
        choice += entry
        which = np.multiply(self._chosen.take(choice), self.shares, dtype=np.int64)
        which += share
        step = self._steps.take(entry + self._picks.take(which))
        detour = step >> _DIRECTION_BITS & _LONGEST_DETOUR
        return step & ((1 << _DIRECTION_BITS) - 1), (step >> _STEP_BITS, spare - detour)


def traffic(streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> Traffic:
    """Choose the faster way to look up the streets of a city."""
    entries = len(streets.nodes) * (len(streets.nodes) + 1)
    if entries <= _LARGEST_TABLE:
        detour = _detours(streets, to_goal)
        if entries * _width(streets, detour) <= _LARGEST_TABLE and detour.max() <= _LONGEST_DETOUR:
            return ListedTraffic(streets, to_goal)
    return ComparedTraffic(streets, to_goal)


def _detours(streets: Streets, to_goal: Integer[np.ndarray, "nodes nodes"]) -> Int[np.ndarray, "nodes nodes 8"]:
    """Moves that a street adds to the shortest path, by goal, intersection and direction; 0 if there is none."""
    detour = to_goal[:, streets.turns].astype(np.int32) + 1 - to_goal[..., None]
    return np.where(streets.turns >= 0, detour, 0).astype(np.int32)


def _width(streets: Streets, detour: Int[np.ndarray, "nodes nodes 8"]) -> int:
    return max(int(detour.max()) + 1, int((streets.turns >= 0).sum(1).max()))
