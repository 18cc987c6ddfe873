"""Targets of an injection: probes that are set together, and the plane in which their readings are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, SupportsFloat, TypeAlias

import numpy as np
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.errors import LatentsError
from nextlat_viz.worlds import HiddenMarkovWorld, World
from nextlat_viz.worlds.taxi.world import Taxi

Point: TypeAlias = Sequence[SupportsFloat] | np.ndarray

_MOST_STATES, _MOST_LINES, _MOST_PLACES = 12, 3000, 300
# A point this close to a crossing, as a share of the map, means the crossing: exact predictions are known only there.
_NEAR = 0.015
_ROUNDING = 1e-9
_INFEASIBLE = 1e-10


@dataclass(frozen=True, eq=False)
class JointProbe:
    """Linear probes of numbers from one site of one model, joined: probes of x and of y read a place.

    It has no score; its probes keep theirs, each with its controls.

    Parameters
    ----------
    probes : tuple of ProbeResult
        At least one.

    Raises
    ------
    LatentsError
        For probes of several models or sites, and for probes of classes.
    ValueError
        For an empty tuple.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> latents = nlv.extract(nlv.load("taxi/nextlat"), progress=False)
    >>> place = JointProbe((probe(latents, "x"), probe(latents, "y")))
    >>> place.names, place.predict(latents[:5]).shape
    (('x', 'y'), (5, 2))
    """

    metric: ClassVar[Literal["R2"]] = "R2"
    probes: tuple[ProbeResult, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.probes:
            raise ValueError("probes is empty: give at least one")
        first = self.probes[0]
        for probe in self.probes:
            if probe.metric != "R2":
                raise LatentsError(f"the probe of {probe.target!r} reads classes: only probes of numbers can be joined")
            if (probe.weights_sha256, probe.site) != (first.weights_sha256, first.site):
                raise LatentsError(
                    f"the probes of {first.target!r} and {probe.target!r} read different models or sites "
                    f"({first.name!r} at {first.site!r}, {probe.name!r} at {probe.site!r}): fit both on one table"
                )

    @property
    def target(self) -> str:
        """The targets, as in ``"x, y"``."""
        return ", ".join(probe.target for probe in self.probes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K numbers."""
        return tuple(name for probe in self.probes for name in probe.names)

    @property
    def site(self) -> str:
        """The site that all of them read."""
        return self.probes[0].site

    @property
    def weights_sha256(self) -> str:
        """Weights of the model they were fitted on."""
        return self.probes[0].weights_sha256

    @property
    def coef(self) -> Float[np.ndarray, "k dim"]:
        """``X @ coef.T + intercept`` is their reading, in raw units of the latents."""
        return np.concatenate([probe.coef for probe in self.probes])

    @property
    def intercept(self) -> Float[np.ndarray, " k"]:
        """Their reading from latents of zero."""
        return np.concatenate([probe.intercept for probe in self.probes])

    def predict(self, latents: AnnData) -> Float[np.ndarray, "rows k"]:
        """Read all targets from any latents of the same model; raises as `ProbeResult.predict` does."""
        return np.concatenate([probe.predict(latents) for probe in self.probes], axis=1)

    def read(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows k"]:
        """Read all targets from bare latents ``(rows, D)`` of this model and site, without checks."""
        return np.concatenate([probe.read(X) for probe in self.probes], axis=1)


@dataclass(frozen=True, eq=False)
class InjectionPlane:
    """A map from readings to points of a plane, ``reading @ matrix + offset``, and back.

    `injection_plane` makes one.

    Attributes
    ----------
    targets : tuple of str
        Targets of the probes; several are read by one probe each, joined.
    matrix, offset : (k, 2), (2,) arrays
    axes : (str, str) or None
        Names of the coordinates, with units; None where they mean nothing alone.
    caption : str
        A sentence about the plane.
    outline : tuple of (points, 2) arrays
        Polylines to draw: the edges of the simplex, streets.
    landmarks : dict of {name: (x, y)}
        Names to write at points.
    places : dict of {name: (k,) array}
        Readings with a name: certainty of each state, crossings.
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
        """Return the points of readings."""
        return readings @ self.matrix + self.offset

    def reading(self, point: Point, now: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Return the reading at a point, or at the nearest point that has one.

        Of several beliefs at that point, it is the one nearest to `now`, the present reading. In a city a point near a
        crossing means the crossing.
        """
        return self._back(np.asarray(point, dtype=np.float64), now)


def injection_plane(world: World, target: str) -> InjectionPlane | None:
    """Return the plane for choosing readings of a target, None where there is none.

    Parameters
    ----------
    target : str
        ``"belief"`` in a hidden Markov world; ``"x"`` or ``"y"`` in a city, which are chosen together.

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


def least_distance(G: Float[np.ndarray, "m n"], h: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"] | None:
    """Return the shortest z with ``G z >= h``, None where there is none.

    Least distance programming by non-negative least squares, which is exact (Lawson & Hanson 1974, chapter 23).
    """
    from scipy.optimize import nnls

    system, unit = np.vstack([G.T, h]), np.append(np.zeros(G.shape[1]), 1.0)
    residual = system @ nnls(system, unit)[0] - unit
    return -residual[:-1] / residual[-1] if -residual[-1] > _INFEASIBLE else None


def nearest_belief(
    corners: Float[np.ndarray, "k 2"], point: Float[np.ndarray, " 2"], now: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Return the distribution over corners whose mean is a point, or the nearest point of their polygon.

    Each corner must be a corner of their convex hull. If several distributions have that mean, the result is the
    nearest to `now` by least squares, see `least_distance`. As a reading of a probe, `now` may leave the simplex.
    """
    from scipy.optimize import nnls

    conditions, values = np.vstack([corners.T, np.ones(len(corners))]), np.append(point, 1.0)
    feasible, miss = nnls(conditions, values)
    if miss > _ROUNDING * max(1.0, float(np.abs(values).max())):
        return _on_edge(corners, point)
    # The nearest vector that meets the conditions may have negative entries.
    nearest = now + np.linalg.pinv(conditions) @ (values - conditions @ now)
    if nearest.min() < 0:
        _, sizes, axes = np.linalg.svd(conditions)
        free = axes[int((sizes > _ROUNDING * sizes[0]).sum()) :].T
        z = least_distance(free, -nearest)
        # On an edge only `feasible` has that mean, and rounding errors may leave no z.
        nearest = feasible if z is None else nearest + free @ z
    belief: Float[np.ndarray, " k"] = np.maximum(nearest, 0.0)
    return belief / belief.sum()


def _on_edge(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the distribution over two corners whose mean is nearest to a point outside the polygon."""
    if len(corners) == 1:
        return np.ones(1)
    first, second = np.triu_indices(len(corners), 1)
    along = corners[second] - corners[first]
    length = np.maximum(np.square(along).sum(axis=1), np.finfo(float).tiny)
    share = np.clip(((point - corners[first]) * along).sum(axis=1) / length, 0.0, 1.0)
    miss = np.square(corners[first] + share[:, None] * along - point).sum(axis=1)
    best = int(miss.argmin())
    belief = np.zeros(len(corners))
    belief[[first[best], second[best]]] = 1 - share[best], share[best]
    return belief


def _belief_plane(world: HiddenMarkovWorld) -> InjectionPlane:
    plane, corners = world.plane, world.belief_vertices

    def back(point: np.ndarray, now: np.ndarray) -> np.ndarray:
        if len(corners):
            return nearest_belief(corners, point, now)
        # Beliefs of a generalised world have no corners, so any vector that sums to 1 by its readout will do.
        conditions, values = np.vstack([plane.matrix.T, world.readout]), np.append(point - plane.offset, 1.0)
        return now + np.linalg.pinv(conditions) @ (values - conditions @ now)

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
        landmarks={name: (x, y) for name, (x, y) in zip(world.state_names, corners.tolist(), strict=False)},
        places=dict(zip(world.state_names, certain, strict=False)),
        _back=back,
    )


def _street_plane(world: Taxi) -> InjectionPlane:
    streets = world.streets
    crossings = np.stack([streets.x, streets.y], axis=1)
    # Both directions of a street are one line. A large city is thinned out to a number of lines that draws fast.
    lines = np.unique(np.sort(streets.edges, axis=1), axis=0)
    lines = lines[:: -(-len(lines) // _MOST_LINES)]
    chosen = np.argsort(streets.nodes)[:: -(-len(streets.nodes) // _MOST_PLACES)]
    unit = "blocks" if world.spec["city"] == "grid" else "metres"
    credit = f" {streets.attribution}." if streets.attribution else ""

    def back(point: np.ndarray, now: np.ndarray) -> np.ndarray:
        distance = np.hypot(*(crossings - point).T)
        nearest: np.ndarray = crossings[int(distance.argmin())]
        return nearest if distance.min() <= _NEAR * np.ptp(crossings, axis=0).max() else point

    return InjectionPlane(
        targets=("x", "y"),
        matrix=np.eye(2),
        offset=np.zeros(2),
        axes=(f"x ({unit} east)", f"y ({unit} north)"),
        caption=f"The streets of {streets.name}, and the place that linear probes of x and y read.{credit}",
        outline=tuple(crossings[lines]),
        landmarks={},
        places={streets.nodes[i]: crossings[i] for i in chosen.tolist()},
        _back=back,
    )
