"""The law of taxi rides: pairs of origin and destination, some of them held out, and the turns between them."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from nextlat_viz.worlds.base import scrambled
from nextlat_viz.worlds.taxi.streets import COMPASS, Streets
from nextlat_viz.worlds.taxi.traffic import END, Traffic

KINDS = ("random", "noisy", "shortest")
"""Ways to choose a turn; see ``Rides``."""

PROMPT = 2
"""Tokens before the first turn: origin and destination."""

# Pairs are listed in smaller cities and for rarer splits; otherwise rejection sampling is faster.
_LISTED_PAIRS = 1 << 20
_RARE = 0.01
_DRAWS_AT_ONCE = 1 << 20
# Enough rides to make numpy's cost per call negligible; few enough that their distances stay in the cache.
_RIDES_AT_ONCE = 8192


class Rides:
    """The law of rides.

    Origin and destination are different intersections, uniform among the pairs whose shortest path has at most
    ``max_turns`` moves. At each intersection until the destination is reached, a direction is drawn uniformly from:

    ``"random"``
        directions after which the destination can be reached in the moves left, so every ride reaches it. A ride
        ends when it first reaches its destination.
    ``"shortest"``
        directions that reduce the distance to the destination.
    ``"noisy"``
        as ``"random"`` with probability ``noise``, independently at every turn, otherwise as ``"shortest"``. (Vafa et
        al. 2024 instead take shortest paths after perturbing the weights of the streets, which has no simple law.)

    A fraction ``held_out`` of the pairs occurs in the split ``"test"`` only.

    Examples
    --------
    >>> from nextlat_viz.worlds.taxi.sources import grid
    >>> rides = Rides(grid(4, 4), "shortest", max_turns=9, noise=0.0, held_out=0.1)
    >>> origin, destination, turns = rides.sample(1, np.random.default_rng(0), "train")
    >>> bool(rides.is_held_out(origin, destination)[0]), turns[0].tolist()
    (False, [2, 2, 0, 8, 8, 8, 8, 8, 8, 8])
    """

    def __init__(self, streets: Streets, kind: str, max_turns: int, noise: float, held_out: float) -> None:
        self.streets, self.kind, self.max_turns, self.noise, self.held_out = streets, kind, max_turns, noise, held_out
        self.wander = {"random": 1.0, "noisy": noise, "shortest": 0.0}[kind]
        self.n_nodes = len(streets.nodes)
        self.to_goal = np.ascontiguousarray(streets.distance.T)
        self._lists: dict[str, np.ndarray] = {}

    def connects(
        self, origin: Integer[np.ndarray, "..."], destination: Integer[np.ndarray, "..."]
    ) -> Bool[np.ndarray, "..."]:
        """Whether a ride from origin to destination is possible: they differ, and ``max_turns`` are enough."""
        return (origin != destination) & (self.to_goal[destination, origin] <= self.max_turns)

    def is_held_out(
        self, origin: Int[np.ndarray, "*pairs"], destination: Int[np.ndarray, "*pairs"]
    ) -> Bool[np.ndarray, "*pairs"]:
        """Whether pairs belong to the test split, by a fixed hash that does not depend on the seed.

        A larger ``held_out`` holds out the same pairs and more.
        """
        key = (origin.astype(np.uint64) << np.uint64(32)) | destination.astype(np.uint64)
        return scrambled(key) < np.uint64(int(self.held_out * 2**64))

    def pairs(
        self, n: int, rng: np.random.Generator, split: str
    ) -> tuple[Int[np.ndarray, " rides"], Int[np.ndarray, " rides"]]:
        """Draw origins and destinations; a ValueError if the split has no pair."""
        held_out = self.held_out if split == "test" else 1 - self.held_out
        share = held_out * self._within_reach
        if self.n_nodes**2 <= _LISTED_PAIRS or share < _RARE:
            listed = self._listed(split)
            if not len(listed):
                raise ValueError(
                    f"held_out={self.held_out:g} leaves no pair for the {split!r} split, of those that are at most "
                    f"max_turns={self.max_turns} apart among {self.n_nodes} intersections; choose a "
                    f"{'larger' if split == 'test' else 'smaller'} held_out, or a larger city"
                )
            origin, destination = np.divmod(listed[rng.integers(len(listed), size=n)], self.n_nodes)
            return origin, destination
        drawn: list[np.ndarray] = []
        missing = n
        while missing > 0:
            draws = min(int(1.1 * missing / share) + 64, _DRAWS_AT_ONCE)
            pairs = rng.integers(self.n_nodes, size=(2, draws))
            pairs = pairs[:, self.connects(*pairs)]
            drawn.append(pairs[:, self.is_held_out(*pairs) == (split == "test")])
            missing -= drawn[-1].shape[1]
        origin, destination = np.concatenate(drawn, axis=1)[:, :n]
        return origin, destination

    def sample(
        self, n: int, rng: np.random.Generator, split: str
    ) -> tuple[Int[np.ndarray, " rides"], Int[np.ndarray, " rides"], UInt8[np.ndarray, "rides turns"]]:
        """Draw rides: origins, destinations, and ``max_turns`` + 1 turns, padded with ``END``."""
        origin, destination = self.pairs(n, rng, split)
        turns = np.empty((n, self.max_turns + 1), np.uint8)
        # Sorted by destination, rides use neighbouring rows of the table of distances.
        order = np.argsort(destination.astype(np.min_scalar_type(self.n_nodes)), kind="stable")
        for first in range(0, n, _RIDES_AT_ONCE):
            rows = order[first : first + _RIDES_AT_ONCE]
            turns[rows] = self._traffic.drive(origin[rows], destination[rows], self.max_turns, self.wander, rng).T
        return origin, destination, turns

    def in_time(
        self,
        node: Integer[np.ndarray, "*at"],
        destination: Integer[np.ndarray, "*at"],
        left: Integer[np.ndarray, "*at"],
    ) -> Bool[np.ndarray, "*at 8"]:
        """Directions after which the destination can be reached in ``left`` moves, including this one."""
        leads = self.streets.turns[node]
        return (leads >= 0) & (self.to_goal[destination[..., None], leads] < left[..., None])

    def law(
        self,
        node: Integer[np.ndarray, "*at"],
        destination: Integer[np.ndarray, "*at"],
        left: Integer[np.ndarray, "*at"],
    ) -> Float[np.ndarray, "*at 8"]:
        """Probability of each direction before the destination is reached; zeros if it is out of reach."""
        in_time = self.in_time(node, destination, left)
        closer = in_time & self.in_time(node, destination, self.to_goal[destination, node])
        return self.wander * _uniform(in_time) + (1 - self.wander) * _uniform(closer)

    @cached_property
    def _traffic(self) -> Traffic:
        return Traffic(self.streets, self.to_goal)

    @cached_property
    def _within_reach(self) -> float:
        """Fraction of all pairs that rides can connect."""
        return float(((self.to_goal <= self.max_turns).sum() - self.n_nodes) / self.n_nodes**2)

    def _listed(self, split: str) -> Int[np.ndarray, " pairs"]:
        """All pairs of a split, as origin times ``n_nodes`` plus destination."""
        if split not in self._lists:
            parts = []
            goals = max(1, _DRAWS_AT_ONCE // self.n_nodes)
            for first in range(0, self.n_nodes, goals):
                destination, origin = np.nonzero(self.to_goal[first : first + goals] <= self.max_turns)
                destination += first
                in_split = (origin != destination) & (self.is_held_out(origin, destination) == (split == "test"))
                parts.append((origin * self.n_nodes + destination)[in_split])
            self._lists[split] = np.concatenate(parts)
        return self._lists[split]


def _uniform(among: Bool[np.ndarray, "*at 8"]) -> Float[np.ndarray, "*at 8"]:
    return among / np.maximum(among.sum(-1, keepdims=True), 1)


class Followed(NamedTuple):
    """The state after each token; it does not change from the first illegal token on."""

    node: Int[np.ndarray, "episodes positions"]
    destination: Int[np.ndarray, "episodes positions"]
    moves_left: Int[np.ndarray, "episodes positions"]
    legal: Bool[np.ndarray, "episodes positions"]


def follow(rides: Rides, tokens: Int[np.ndarray, "episodes positions"]) -> Followed:
    """Follow the turns of every episode at once."""
    nodes, max_turns = rides.n_nodes, rides.max_turns
    # One position after another in memory, so that a step of all episodes is contiguous.
    columns = np.ascontiguousarray(tokens.T)
    node, destination, moves_left = (np.empty(columns.shape, np.int32) for _ in range(3))
    legal = np.empty(columns.shape, bool)
    leads = np.append(rides.streets.turns, np.full((nodes, 1), -1), axis=1).ravel().astype(np.int32)
    for t, token in enumerate(columns):
        if t == 0:
            legal[t] = token < nodes
            node[t], destination[t], moves_left[t] = np.where(legal[t], token, 0), -1, max_turns
            continue
        at, left = node[t - 1], moves_left[t - 1]
        if t == 1:
            goal = np.where(token < nodes, token, 0).astype(np.int32)
            legal[t] = legal[0] & (token < nodes) & rides.connects(at, goal)
            node[t], destination[t], moves_left[t] = at, np.where(legal[t], goal, -1), left
            continue
        goal = destination[t - 1]
        turn = token - nodes
        # Tokens that are not turns get a ninth direction, without a street.
        to = leads.take(at * (END + 1) + np.where((turn >= 0) & (turn < END), turn, END))
        arrived = at == goal
        moves = legal[t - 1] & (to >= 0) & (left > 0) & ~arrived
        legal[t] = moves | (legal[t - 1] & arrived & (turn == END))
        node[t], destination[t], moves_left[t] = np.where(moves, to, at), goal, left - moves
    return Followed(node.T, destination.T, moves_left.T, legal.T)


def refusal(rides: Rides, token: int, position: int, before: tuple[int, int, int]) -> str:
    """The reason why a token is not legal at a position, from 1, given node, destination and moves left before it."""
    name = rides.streets.nodes.__getitem__
    node, destination, left = before
    if position <= PROMPT:
        if token >= rides.n_nodes:
            return "an episode opens with two intersections, the origin and the destination"
        if token == node:
            return "origin and destination must differ"
        return (
            f"it is {rides.to_goal[token, node]} moves from {name(node)!r}, and rides have at most "
            f"max_turns={rides.max_turns}"
        )
    if node == destination:
        return "the ride has reached its destination, and only 'end' may follow"
    if token < rides.n_nodes:
        return "turns follow the destination, no further intersections"
    if token == rides.n_nodes + END:
        return f"the taxi is at {name(node)!r}, not yet at its destination {name(destination)!r}"
    if left == 0:
        return f"all {rides.max_turns} moves are used up"
    return f"no street leads {COMPASS[token - rides.n_nodes]} from {name(node)!r}"
