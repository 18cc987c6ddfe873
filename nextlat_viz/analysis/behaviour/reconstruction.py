"""Map reconstruction: the street map that a model's rides imply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.analysis.episodes import require_end, require_taxi, verdicts_of
from nextlat_viz.analysis.measure import Models, Rows, measure, share
from nextlat_viz.decoding import Predictor, generate
from nextlat_viz.errors import at_least
from nextlat_viz.worlds import World
from nextlat_viz.worlds.taxi.rides import PROMPT
from nextlat_viz.worlds.taxi.streets import Streets
from nextlat_viz.worlds.taxi.world import Taxi

PARTS = ("true", "invented", "unused", "unplaced")
Street = tuple[int, int]
"""An intersection and the direction in which a street leaves it."""


@dataclass(frozen=True, eq=False)
class MapReconstruction:
    """The map that rides imply, compared with the true one.

    Attributes
    ----------
    name : str
        Name of the model, or of the rides.
    used : (edges,) bool array
        The ``streets.edges`` that some ride took.
    invented : (streets, 3) int array
        Streets that do not exist, in the order they were invented: from, direction (0 is north, clockwise), to.
    placed : (rides,) bool array
        The rides that the map explains from origin to destination.
    valid : (rides,) bool array
        The rides that are legal and end at their destination.
    ill_formed : int
        Rides not placed because they are not an origin, a destination, turns and ``end``.
    control : MapReconstruction, optional
        The map of true rides between the same places, where as many rides as are invalid for the model have one wrong
        turn: a map of true streets and random errors (Vafa et al. 2024).
    """

    name: str
    used: Bool[np.ndarray, " edges"]
    invented: Int[np.ndarray, "streets 3"]
    placed: Bool[np.ndarray, " rides"]
    valid: Bool[np.ndarray, " rides"]
    ill_formed: int
    control: MapReconstruction | None = None

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Count and total of each of ``PARTS``.

        True streets used and unused, of all true streets; invented streets, of all streets of the reconstructed map;
        rides that could not be placed, of all rides.
        """
        used, invented = int(self.used.sum()), len(self.invented)
        return {
            "true": (used, len(self.used)),
            "invented": (invented, used + invented),
            "unused": (len(self.used) - used, len(self.used)),
            "unplaced": (int((~self.placed).sum()), len(self.placed)),
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {part}" for part, (count, _) in self.counts.items())
        return f"<MapReconstruction {self.name}: {counts} of {len(self.placed):,} rides>"


def map_from_rides(
    world: World,
    tokens: Int[np.ndarray, "rides t"],
    length: Int[np.ndarray, " rides"],
    *,
    name: str = "rides",
    reach: float | None = None,
    max_degree: int | None = None,
) -> MapReconstruction:
    """Draw the map that rides imply, one ride after the other.

    After Vafa et al. 2024, arXiv:2406.03689. A ride follows true and invented streets. If no street leaves in the
    direction of a turn, one is invented. It leads to the intersection within `reach` from which the rest of the ride
    can be followed furthest (the nearest of equals); at the last turn, to the destination. At most
    `max_degree` used streets leave an intersection. A ride is not placed if it would need more, if it ends elsewhere
    than at its destination, or if no turn can be followed after an invented street; the streets it has taken or
    invented so far remain. The invented streets depend on the order of the rides.

    Parameters
    ----------
    tokens : (rides, t) int array
        Origin, destination, turns, ``end``; tokens after a ride's length are ignored.
    length : (rides,) int array
        Tokens in each, ``end`` included.
    name : str
        Name of the rides.
    reach : float, optional
        Length of the longest street that may be invented, in the units of the map (metres, or blocks of a grid). The
        default is that of the longest true street; half a mile in the published code.
    max_degree : int, optional
        By default 4, or the largest number of streets that leave an intersection of the true map if that is larger.

    Raises
    ------
    ValueError
        If the world has no streets, or `reach` or `max_degree` is not positive.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> rides = world.sample(200)
    >>> map_from_rides(world, rides.tokens, rides.length)
    <MapReconstruction rides: 26 true, 0 invented, 0 unused, 0 unplaced of 200 rides>
    """
    taxi = require_taxi(world, "map reconstruction")
    streets = taxi.streets
    source, target = streets.edges.T
    if reach is None:
        reach = float(np.hypot(streets.x[source] - streets.x[target], streets.y[source] - streets.y[target]).max())
    if max_degree is None:
        max_degree = max(4, int((streets.turns >= 0).sum(axis=1).max()))
    if not reach > 0:
        raise ValueError(f"reach={reach!r} must be above 0: the length of the longest invented street")
    end = require_end(world, "map reconstruction")
    drawn = Placement(streets, reach, at_least("max_degree", max_degree))
    placed, ill_formed = np.zeros(len(tokens), bool), 0
    for ride, row in enumerate(tokens):
        ride_tokens = row[: length[ride]]
        turns = ride_tokens[PROMPT:-1] - len(streets.nodes)
        if not _well_formed(ride_tokens, len(streets.nodes), end):
            ill_formed += 1
            continue
        placed[ride] = drawn.place(int(ride_tokens[0]), int(ride_tokens[1]), turns.tolist())
    valid = verdicts_of(world, tokens, length).valid
    return MapReconstruction(name, drawn.used, drawn.invented, placed, valid, ill_formed)


def reconstruct_map(
    model: Any,
    n_rides: int = 1000,
    *,
    temperature: float = 1.0,
    reach: float | None = None,
    max_degree: int | None = None,
    seed: int = 0,
) -> MapReconstruction:
    """Draw the map that a model's rides imply, and a control of true rides with as many errors.

    Parameters
    ----------
    model : Checkpoint, name or Predictor
        Of a taxi world.
    n_rides : int
        Between held-out pairs of origin and destination, drawn by the world's own law, so some pairs repeat.
    temperature : float
        1 samples from the model's own distribution, 0 is greedy.
    reach, max_degree
        As for ``map_from_rides``.
    seed : int
        Of pairs, sampling and the control's errors.

    Raises
    ------
    ValueError
        If the world has no streets, or an argument is out of range.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> reconstruct_map(worlds.get("taxi", width=3, height=3), 200)
    <MapReconstruction taxi, true world: 26 true, 0 invented, 0 unused, 0 unplaced of 200 rides>
    """
    models: Models[Predictor] = Models("map reconstruction", [model])
    models.require_finite()
    world = require_taxi(models.world, models.measure)
    true = world.sample(at_least("n_rides", n_rides), seed=seed, split=world.held_out_split, states=False)
    end, most = require_end(world, models.measure), world.rides.max_turns + 1
    (predictor,) = models.all
    rides = generate(predictor, true.tokens[:, :PROMPT], most, temperature=temperature, stop=end, seed=seed)
    drawn = map_from_rides(world, rides.tokens, rides.length, name=predictor.name, reach=reach, max_degree=max_degree)
    spoilt = spoil(world, true.tokens, true.length, int((~drawn.valid).sum()), np.random.default_rng(seed))
    control = map_from_rides(
        world, spoilt, true.length, name=f"control of {predictor.name}", reach=reach, max_degree=max_degree
    )
    return replace(drawn, control=control)


@measure(
    "map reconstruction",
    by=("part", "rides"),
    references={"true world, invented": 0.0},
    note="Of all true streets, the share that rides use (true) and do not (unused); of the streets of the drawn "
    "map, the share that had to be invented; of all rides, the share that could not be placed. The control has true "
    "rides with as many errors. Vafa et al. 2024.",
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def map_reconstruction(models: Models, *, n_rides: int = 1000, temperature: float = 1.0, seed: int = 0) -> Rows:
    """How much of the map that a model's rides imply is true, compared with true rides with as many errors.

    Parameters
    ----------
    n_rides, temperature, seed
        As in ``reconstruct_map``.

    Returns
    -------
    Measure
        By part and rides: the shares of all true streets that are used (``"true"``) and ``"unused"``; the share of the
        streets of the reconstructed map that is ``"invented"``; the share of all rides that could not be placed
        (``"unplaced"``). Rides are those of the ``"model"`` or of the ``"control"``. Columns ``count``, the numerator
        (``trials`` is the denominator), and ``ill_formed``, unplaced rides that do not have the form of a ride.

    Raises
    ------
    ValueError
        As ``reconstruct_map``.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> true = worlds.get("taxi", width=3, height=3)
    >>> map_reconstruction(true, n_rides=200, progress=False).table[["part", "rides", "value"]].values.tolist()[1:3]
    [['invented', 'model', 0.0], ['unused', 'model', 0.0]]
    """
    for model in models:
        drawn = reconstruct_map(model, n_rides, temperature=temperature, seed=seed)
        assert drawn.control is not None
        for rides, result in (("model", drawn), ("control", drawn.control)):
            for part, (count, total) in result.counts.items():
                score = share(count, total)
                if part != "unplaced":
                    # The streets used are not independent trials.
                    score["error"] = float("nan")
                yield model, {"part": part, "rides": rides, **score, "count": count, "ill_formed": result.ill_formed}


def spoil(
    world: Taxi,
    tokens: Int[np.ndarray, "rides t"],
    length: Int[np.ndarray, " rides"],
    errors: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "rides t"]:
    """Return the rides with `errors` of them changed at one turn each, to another direction."""
    spoilt, first, directions = tokens.copy(), len(world.streets.nodes), world.streets.turns.shape[1]
    rides = rng.permutation(len(tokens))[:errors]
    turn = rng.integers(PROMPT, length[rides] - 1)
    other = rng.integers(1, directions, size=len(rides))
    spoilt[rides, turn] = first + (spoilt[rides, turn] - first + other) % directions
    return spoilt


def _well_formed(ride: np.ndarray, nodes: int, end: int) -> bool:
    """Tell whether tokens are an origin, another destination, at least one turn, and the end."""
    turns = ride[PROMPT:-1]
    opening = len(ride) > PROMPT + 1 and (ride[:PROMPT] < nodes).all() and ride[0] != ride[1]
    return bool(opening and ride[-1] == end and ((turns >= nodes) & (turns < end)).all())


class Placement:
    """The map so far, drawn by the rules of ``map_from_rides``."""

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
        node, left = origin, list(turns)
        while True:
            new: dict[Street, int] = {}
            steps, node = self._follow(node, left, new)
            for street, to in new.items():
                self._take(street, to)
            left = left[steps:]
            if not left:
                return node == destination
            if self._degree[node] >= self._max_degree:
                return False
            street = (node, left.pop(0))
            onward = self._continue(street, destination, left) if left else destination
            if onward is None or onward not in self._near[node]:
                return False
            self._invented.append((*street, onward))
            self._take(street, onward)
            node = onward

    def _take(self, street: Street, to: int) -> None:
        self._taken[street] = to
        self._degree[street[0]] += 1

    def _follow(self, node: int, turns: Sequence[int], new: dict[Street, int]) -> tuple[int, int]:
        """Return how many turns can be followed from a place, and where they lead.

        True streets taken for the first time are added to `new`; streets that it holds already are followed too.
        """
        for step, turn in enumerate(turns):
            street = (node, turn)
            to = self._taken.get(street, new.get(street))
            if to is None:
                to = self._true.get(street)
                if to is None or not self._has_room(node, new):
                    return step, node
                new[street] = to
            node = to
        return len(turns), node

    def _has_room(self, node: int, new: dict[Street, int]) -> bool:
        """Tell whether one more street may leave an intersection."""
        return self._degree[node] + sum(start == node for start, _ in new) < self._max_degree

    def _continue(self, street: Street, destination: int, left: Sequence[int]) -> int | None:
        """Choose where an invented street leads so that the rest is followed furthest; None if nowhere."""
        best, furthest = None, 0
        for to in self._near[street[0]]:
            new = {street: to}
            steps, node = self._follow(to, left, new)
            if steps == len(left):
                # A ride that is followed to its end but ends elsewhere cannot be placed by a later street.
                if node == destination:
                    return int(to)
            elif steps > furthest and self._has_room(node, new):
                best, furthest = int(to), steps
        return best
