"""A plane to point in: where a probe's readings lie, and what it is to read for a point that is chosen there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float

from nextlat_viz.worlds import HiddenMarkovWorld, World
from nextlat_viz.worlds.taxi.world import Taxi

Point: TypeAlias = Sequence[SupportsFloat] | np.ndarray

_MOST_STATES, _MOST_LINES, _MOST_PLACES = 12, 3000, 300
# A point this near a crossing, as a share of the map, means the crossing: there the world says what comes next.
_NEAR = 0.015
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class InjectionPlane:
    """Where readings of one or more probes lie in a plane, ``reading @ matrix + offset``, and the way back.

    `injection_plane` makes one.

    Attributes
    ----------
    targets : tuple of str
        What is read; of several, each by a probe of its own, joined.
    matrix, offset : (k, 2), (2,) arrays
    axes : (str, str) or None
        What the coordinates are, with their units; None where they have no meaning of their own.
    caption : str
        What the plane is, in a sentence.
    outline : tuple of (points, 2) arrays
        Polylines that make the plane recognisable: the edges of the simplex, streets.
    landmarks : dict of {name: (x, y)}
        Names that stand in it.
    places : dict of {name: (k,) array}
        Readings that have a name: certainty of each state, crossings.
    """

    targets: tuple[str, ...]
    matrix: Float[np.ndarray, "k 2"] = field(repr=False)
    offset: Float[np.ndarray, " 2"] = field(repr=False)
    axes: tuple[str, str] | None = field(repr=False)
    caption: str = field(repr=False)
    outline: tuple[np.ndarray, ...] = field(repr=False)
    landmarks: dict[str, tuple[float, float]] = field(repr=False)
    places: dict[str, np.ndarray] = field(repr=False)
    _back: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(repr=False)

    def coordinates(self, readings: Float[np.ndarray, "*rows k"]) -> Float[np.ndarray, "*rows 2"]:
        """Where readings lie."""
        return readings @ self.matrix + self.offset

    def reading(self, point: Point, now: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """What is to be read for a point: the reading there, or at the nearest point that has one.

        Of many beliefs at one point the nearest to `now`, as `nearest_belief` finds it. In a city a point near a
        crossing is the crossing.

        Parameters
        ----------
        point : (2,) array
        now : (k,) array
            What is read now.
        """
        return self._back(np.asarray(point, dtype=np.float64), now)


def injection_plane(world: World, target: str) -> InjectionPlane | None:
    """Return the plane that readings of a target are chosen in, None where there is none.

    Parameters
    ----------
    world : World
    target : str
        ``"belief"`` in a hidden Markov world; ``"x"`` or ``"y"`` in a city, which are read and chosen together.

    Returns
    -------
    InjectionPlane or None

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> plane = injection_plane(worlds.get("mess3"), "belief")
    >>> plane.reading(plane.coordinates(np.array([0.2, 0.5, 0.3])), np.full(3, 1 / 3)).round(3).tolist()
    [0.2, 0.5, 0.3]
    >>> injection_plane(worlds.get("taxi", width=5, height=4), "x").axes
    ('x (blocks east)', 'y (blocks north)')
    """
    if isinstance(world, HiddenMarkovWorld) and target == "belief":
        return _belief_plane(world)
    if isinstance(world, Taxi) and target in ("x", "y"):
        return _street_plane(world)
    return None


def nearest_belief(
    corners: Float[np.ndarray, "k 2"], point: Float[np.ndarray, " 2"], now: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Return the distribution over corners whose mean is a point, or the nearest point to it that is one.

    Where there are many, the nearest to a given one, by least squares: least distance programming (Lawson & Hanson
    1974, chapter 23), which is exact.

    Parameters
    ----------
    corners : (k, 2) array
        In convex position: each a corner of the polygon they span.
    point : (2,) array
    now : (k,) array
        The distribution to stay near, or what a probe reads in its place.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> nearest_belief(square, np.array([0.5, 0.5]), np.array([0.5, 0.0, 0.5, 0.0])).round(6).tolist()
    [0.5, 0.0, 0.5, 0.0]
    >>> nearest_belief(square, np.array([2.0, 0.5]), np.full(4, 0.25)).tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    from scipy.optimize import nnls

    known, goal = np.vstack([corners.T, np.ones(len(corners))]), np.append(point, 1.0)
    there, miss = nnls(known, goal)
    if miss > _ROUNDING * max(1.0, float(np.abs(goal).max())):
        return _on_edge(corners, point)
    free = now + np.linalg.pinv(known) @ (goal - known @ now)
    if free.min() < 0:
        _, sizes, axes = np.linalg.svd(known)
        blind = axes[int((sizes > _ROUNDING * sizes[0]).sum()) :].T
        # The least z with `free + blind @ z` nowhere negative.
        system = np.vstack([blind.T, -free])
        unit = np.append(np.zeros(blind.shape[1]), 1.0)
        residual = system @ nnls(system, unit)[0] - unit
        # On an edge there is but one, and rounding may leave none.
        free = free + blind @ (-residual[:-1] / residual[-1]) if -residual[-1] > _ROUNDING else there
    found: Float[np.ndarray, " k"] = np.maximum(free, 0.0)
    return found / found.sum()


def _on_edge(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The distribution over two corners at the nearest point of the polygon, for a point outside of it."""
    if len(corners) == 1:
        return np.ones(1)
    first, second = np.triu_indices(len(corners), 1)
    along = corners[second] - corners[first]
    length = np.maximum(np.square(along).sum(axis=1), np.finfo(float).tiny)
    share = np.clip(((point - corners[first]) * along).sum(axis=1) / length, 0.0, 1.0)
    miss = np.square(corners[first] + share[:, None] * along - point).sum(axis=1)
    best = int(miss.argmin())
    found = np.zeros(len(corners))
    found[[first[best], second[best]]] = 1 - share[best], share[best]
    return found


def _belief_plane(world: HiddenMarkovWorld) -> InjectionPlane:
    plane, corners = world.plane, world.belief_vertices

    def back(point: np.ndarray, now: np.ndarray) -> np.ndarray:
        if len(corners):
            return nearest_belief(corners, point, now)
        # Beliefs of a generalised world have no corners; any vector that is one by its own rule may be asked for.
        known, goal = np.vstack([plane.matrix.T, world.readout]), np.append(point - plane.offset, 1.0)
        return now + np.linalg.pinv(known) @ (goal - known @ now)

    pairs = np.stack(np.triu_indices(len(corners), 1), axis=1)
    if len(corners) > _MOST_STATES:
        around = np.argsort(np.arctan2(*(corners - corners.mean(axis=0)).T))
        pairs = np.stack([around, np.roll(around, 1)], axis=1)
    certain = np.eye(world.n_states)[: len(corners)]
    return InjectionPlane(
        targets=("belief",),
        matrix=plane.matrix,
        offset=plane.offset,
        axes=None,
        caption=world.belief_axes,
        outline=tuple(corners[pairs]),
        landmarks=_named(world.state_names, corners),
        places=dict(zip(world.state_names, certain, strict=False)),
        _back=back,
    )


def _street_plane(world: Taxi) -> InjectionPlane:
    streets = world.streets
    crossings = np.stack([streets.x, streets.y], axis=1)
    # Both ways of a street are one line; of a large city every so many lines still show where it is.
    lines = np.unique(np.sort(streets.edges, axis=1), axis=0)
    lines = lines[:: -(-len(lines) // _MOST_LINES)]
    chosen = np.argsort(streets.nodes)[:: -(-len(streets.nodes) // _MOST_PLACES)]
    unit = "blocks" if world.spec["city"] == "grid" else "metres"
    owed = f" {streets.attribution}." if streets.attribution else ""
    return InjectionPlane(
        targets=("x", "y"),
        matrix=np.eye(2),
        offset=np.zeros(2),
        axes=(f"x ({unit} east)", f"y ({unit} north)"),
        caption=f"The streets of {streets.name}, and where linear probes of x and y say the taxi is.{owed}",
        outline=tuple(crossings[lines]),
        landmarks={},
        places={streets.nodes[i]: crossings[i] for i in chosen.tolist()},
        _back=partial(_near_crossing, crossings),
    )


def _near_crossing(crossings: np.ndarray, point: np.ndarray, now: np.ndarray) -> np.ndarray:
    apart = np.hypot(*(crossings - point).T)
    nearest: np.ndarray = crossings[int(apart.argmin())]
    return nearest if apart.min() <= _NEAR * np.ptp(crossings, axis=0).max() else point


def _named(names: tuple[str, ...], corners: np.ndarray) -> dict[str, tuple[float, float]]:
    return {name: (x, y) for name, (x, y) in zip(names, corners.tolist(), strict=False)}
