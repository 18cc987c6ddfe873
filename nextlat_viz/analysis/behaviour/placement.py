"""A map drawn ride by ride: streets that rides take, and streets invented where there are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.worlds.taxi.streets import Streets

Street = tuple[int, int]
"""An intersection and the direction in which a street leaves it."""


class Placement:
    """The map so far, drawn by the rules of ``map_from_rides``.

    Examples
    --------
    A ring road of three intersections, and a ride that goes the wrong way:

    >>> ring = Streets("ring", ("a", "b", "c"), np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0]),
    ...                np.array([[-1, 1] + 6 * [-1], 4 * [-1] + [2] + 3 * [-1], 6 * [-1] + [0, -1]]))
    >>> drawn = Placement(ring, reach=2.0, max_degree=4)
    >>> drawn.place(0, 2, [1, 4]), drawn.place(0, 2, [2])
    (True, True)
    >>> drawn.used.tolist(), drawn.invented.tolist()
    ([True, True, False], [[0, 2, 2]])
    """

    def __init__(self, streets: Streets, reach: float, max_degree: int) -> None:
        self._streets, self._max_degree = streets, max_degree
        self._true: dict[Street, int] = {
            (node, way): to for node, row in enumerate(streets.turns.tolist()) for way, to in enumerate(row) if to >= 0
        }
        self._taken: dict[Street, int] = {}
        self._invented: list[tuple[int, int, int]] = []
        self._degree = [0] * len(streets.nodes)
        far = np.hypot(streets.x[:, None] - streets.x, streets.y[:, None] - streets.y)
        np.fill_diagonal(far, np.inf)
        # The tolerance keeps rounding from excluding a street as long as the longest true one.
        within = (far <= reach * (1 + 1e-9)).sum(axis=1)
        near = np.argsort(far, axis=1, kind="stable")
        self._near = [near[node, :count].tolist() for node, count in enumerate(within.tolist())]

    @property
    def used(self) -> Bool[np.ndarray, " edges"]:
        """Mark the ``streets.edges`` that some ride took."""
        leaving = np.argwhere(self._streets.turns >= 0).tolist()
        return np.array([self._taken.get((node, way)) == self._true[node, way] for node, way in leaving])

    @property
    def invented(self) -> Int[np.ndarray, "streets 3"]:
        """From, direction, to."""
        return np.array(self._invented, np.int64).reshape(-1, 3)

    def place(self, origin: int, destination: int, turns: Sequence[int]) -> bool:
        """Draw one ride; return whether it could be drawn to its destination."""
        at, left = origin, list(turns)
        while True:
            new: dict[Street, int] = {}
            steps, at = self._follow(at, left, new)
            for street, to in new.items():
                self._take(street, to)
            left = left[steps:]
            if not left:
                return at == destination
            if self._degree[at] >= self._max_degree:
                return False
            street = (at, left.pop(0))
            onward = self._continue(street, destination, left) if left else destination
            if onward is None or onward not in self._near[at]:
                return False
            self._invented.append((*street, onward))
            self._take(street, onward)
            at = onward

    def _take(self, street: Street, to: int) -> None:
        self._taken[street] = to
        self._degree[street[0]] += 1

    def _follow(self, at: int, turns: Sequence[int], new: dict[Street, int]) -> tuple[int, int]:
        """Return how many turns can be followed from a place, and where they lead.

        True streets taken for the first time are added to `new`; streets that it holds already are followed too.
        """
        for step, turn in enumerate(turns):
            street = (at, turn)
            to = self._taken.get(street, new.get(street))
            if to is None:
                to = self._true.get(street)
                if to is None or not self._has_room(at, new):
                    return step, at
                new[street] = to
            at = to
        return len(turns), at

    def _has_room(self, node: int, new: dict[Street, int]) -> bool:
        """Tell whether one more street may leave an intersection."""
        return self._degree[node] + sum(start == node for start, _ in new) < self._max_degree

    def _continue(self, street: Street, destination: int, left: Sequence[int]) -> int | None:
        """Choose where an invented street leads so that the rest is followed furthest; None if nowhere."""
        best, furthest = None, 0
        for to in self._near[street[0]]:
            new = {street: to}
            steps, at = self._follow(to, left, new)
            if steps == len(left):
                # A ride that is followed to its end but ends elsewhere cannot be placed by a later street.
                if at == destination:
                    return int(to)
            elif steps > furthest and self._has_room(at, new):
                best, furthest = int(to), steps
        return best
