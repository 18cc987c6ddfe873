"""Map reconstruction: the streets that a model's rides imply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from tqdm.auto import tqdm

from nextlat_viz.analysis.measure import Measure, record, share
from nextlat_viz.analysis.worldmodel._episodes import held_out_split, measured, positive, require_end, require_taxi
from nextlat_viz.analysis.worldmodel.placement import Placement
from nextlat_viz.analysis.worldmodel.trajectories import judge
from nextlat_viz.decoding import generate
from nextlat_viz.worlds import World
from nextlat_viz.worlds.taxi.follow import PROMPT
from nextlat_viz.worlds.taxi.world import Taxi

PARTS = ("true", "invented", "unused", "unplaced")


@dataclass(frozen=True, eq=False)
class MapReconstruction:
    """The map that rides imply, against the true one.

    Attributes
    ----------
    name : str
        Whose rides they were.
    used : (edges,) bool array
        Which of ``streets.edges`` some ride took.
    invented : (streets, 3) int array
        Streets that do not exist, in the order they were invented: from, direction (0 is north, clockwise), to.
    placed : (rides,) bool array
        Which rides the map explains from origin to destination.
    valid : (rides,) bool array
        Which rides are legal and end at their destination.
    ill_formed : int
        Rides, among those not placed, that are no origin, destination, turns and ``end``.
    control : MapReconstruction, optional
        The same of true rides of the same pairs, as many of them spoilt, at one turn each, as the model's are not
        valid: what a map looks like to which errors alone were added (Vafa et al. 2024).
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
        """For each of ``PARTS``, how many and of how many.

        True streets used and unused, of all true streets; invented ones, of all streets of the reconstructed map;
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
        said = ", ".join(f"{count:,} {part}" for part, (count, _) in self.counts.items())
        return f"<MapReconstruction {self.name}: {said} of {len(self.placed):,} rides>"


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

    After Vafa et al. 2024, arXiv:2406.03689. A ride follows true and invented streets as far as they go. Where there
    is none in the direction it turns to, one is invented, to the intersection within `reach` from which the rest of the
    ride can be followed furthest (the nearest of equals), the last turn to the destination itself. No more than
    `max_degree` streets that are used leave an intersection. A ride that would need more, that ends elsewhere than at
    its destination, or from whose invented street not one turn could be followed, is not placed; the streets it has
    taken or invented until there remain. Which streets are invented depends on the order of the rides.

    Parameters
    ----------
    world : Taxi
    tokens : (rides, t) int array
        Origin, destination, turns, ``end``; what is behind a ride's length is not looked at.
    length : (rides,) int array
        Tokens in each, ``end`` included.
    name : str
        Whose rides they are.
    reach : float, optional
        Length of the longest street that may be invented, in the units of the map (metres, or blocks of a grid); by
        default that of the longest true one. Half a mile in the published code.
    max_degree : int, optional
        By default 4, or as many as leave some intersection of the true map where that is more.

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
        raise ValueError(f"reach={reach!r} must be above 0: it is how long an invented street may be")
    end = require_end(world, "map reconstruction")
    drawn = Placement(streets, reach, positive("max_degree", max_degree))
    placed, ill_formed = np.zeros(len(tokens), bool), 0
    for ride, row in enumerate(tokens):
        said = row[: length[ride]]
        turns = said[PROMPT:-1] - len(streets.nodes)
        if not _well_formed(said, len(streets.nodes), end):
            ill_formed += 1
            continue
        placed[ride] = drawn.place(int(said[0]), int(said[1]), turns.tolist())
    valid = judge(world, tokens, length).valid
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
    """Draw the map that a model's rides imply, and that of true rides with as many errors.

    Parameters
    ----------
    model : Checkpoint or Predictor
        Of a taxi world.
    n_rides : int
        Between held-out pairs of origin and destination, drawn as the world draws them; some come again.
    temperature : float
        Of sampling: 1 is the model's own distribution, 0 greedy.
    reach, max_degree
        As for ``map_from_rides``.
    seed : int
        Of pairs, sampling and the control's errors.

    Returns
    -------
    MapReconstruction
        With its control.

    Raises
    ------
    ValueError
        If the world has no streets, or an argument is out of range.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> reconstruct_map(WorldPredictor(worlds.get("taxi", width=3, height=3)), 200)
    <MapReconstruction taxi, true world: 26 true, 0 invented, 0 unused, 0 unplaced of 200 rides>
    """
    (predictor,) = measured([model])
    world = require_taxi(predictor.world, "map reconstruction")
    true = world.sample(positive("n_rides", n_rides), seed=seed, split=held_out_split(world), states=False)
    end, most = require_end(world, "map reconstruction"), world.rides.max_turns + 1
    made = generate(predictor, true.tokens[:, :PROMPT], most, temperature=temperature, stop=end, seed=seed)
    found = map_from_rides(world, made.tokens, made.length, name=predictor.name, reach=reach, max_degree=max_degree)
    spoilt = spoil(world, true.tokens, true.length, int((~found.valid).sum()), np.random.default_rng(seed))
    control = map_from_rides(
        world, spoilt, true.length, name=f"control of {predictor.name}", reach=reach, max_degree=max_degree
    )
    return replace(found, control=control)


def map_reconstruction(
    models: Any, *, n_rides: int = 1000, temperature: float = 1.0, seed: int = 0, progress: bool = True
) -> Measure:
    """How much of the map that a model's rides imply is true, beside true rides with as many errors.

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one taxi world
    n_rides, temperature, seed
        As for ``reconstruct_map``.
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        By ``("part", "rides")``. Of all true streets the shares that are used (``"true"``) and ``"unused"``; of all
        streets of the reconstructed map the share that is ``"invented"``; of all rides the share that could not be
        placed (``"unplaced"``). Rides are the ``"model"``'s or the ``"control"``'s. ``count`` says how many, ``trials``
        of how many, and ``ill_formed`` how many of the rides not placed are no rides at all.

    Raises
    ------
    ValueError
        As ``reconstruct_map``.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> found = map_reconstruction(WorldPredictor(worlds.get("taxi", width=3, height=3)), n_rides=200, progress=False)
    >>> found.table[["part", "rides", "value"]].values.tolist()[1:3]
    [['invented', 'model', 0.0], ['unused', 'model', 0.0]]
    """
    rows = []
    for predictor in tqdm(measured(models), desc="map reconstruction", unit="model", disable=not progress):
        found = reconstruct_map(predictor, n_rides, temperature=temperature, seed=seed)
        assert found.control is not None
        for rides, its in (("model", found), ("control", found.control)):
            for part, (count, of) in its.counts.items():
                numbers = share(count, of) | {"count": count, "ill_formed": its.ill_formed}
                if part != "unplaced":
                    # Which streets are used is no series of independent trials.
                    numbers["error"] = float("nan")
                who = record(predictor.world.name, predictor.objective, predictor.seed, predictor.name)
                rows.append(who | {"part": part, "rides": rides} | numbers)
    return Measure(
        "map reconstruction",
        pd.DataFrame(rows),
        by=("part", "rides"),
        references={"true world, invented": 0.0},
        note="Of all true streets, those that rides take (true) and do not (unused); of the reconstructed map, streets "
        "that had to be invented; of all rides, those that could not be placed. The control has true rides with as "
        "many errors. Vafa et al. 2024.",
    )


def spoil(
    world: Taxi,
    tokens: Int[np.ndarray, "rides t"],
    length: Int[np.ndarray, " rides"],
    errors: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "rides t"]:
    """Return the rides with `errors` of them changed at one turn each, to another direction.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> rides = world.sample(5)
    >>> changed = spoil(world, rides.tokens, rides.length, 3, np.random.default_rng(0)) != rides.tokens
    >>> int(changed.sum()), int(changed.any(axis=1).sum())
    (3, 3)
    """
    spoilt, first, directions = tokens.copy(), len(world.streets.nodes), world.streets.turns.shape[1]
    rides = rng.permutation(len(tokens))[:errors]
    at = rng.integers(PROMPT, length[rides] - 1)
    other = rng.integers(1, directions, size=len(rides))
    spoilt[rides, at] = first + (spoilt[rides, at] - first + other) % directions
    return spoilt


def _well_formed(said: np.ndarray, nodes: int, end: int) -> bool:
    """Whether tokens are an origin, another destination, at least one turn, and the end."""
    turns = said[PROMPT:-1]
    opening = len(said) > PROMPT + 1 and (said[:PROMPT] < nodes).all() and said[0] != said[1]
    return bool(opening and said[-1] == end and ((turns >= nodes) & (turns < end)).all())
