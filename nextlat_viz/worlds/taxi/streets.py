"""A directed street graph as a table of turns: intersection and compass direction lead to an intersection."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Integer

from nextlat_viz.display import table

if TYPE_CHECKING:
    import networkx
    from plotly.graph_objects import Figure

COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
"""The eight directions; octant ``k`` is centred on a bearing of ``45 k`` degrees clockwise from north."""

OCTANT = 360 / len(COMPASS)
"""Degrees between neighbouring directions."""


@dataclass(frozen=True, eq=False)
class Streets:
    """A directed street graph in which each intersection has at most one street in each compass direction.

    Every intersection can be reached from every other. Built by ``taxi.streets`` or ``from_networkx``, which
    assigns directions to streets that have none.

    Parameters
    ----------
    name : str
        Name of the city.
    nodes : tuple of str
        Distinct names of the intersections.
    x, y : float64 arrays (nodes,)
        Metres east and north of the centre; blocks in a grid.
    turns : int64 array (nodes, 8)
        Intersection that each direction of ``COMPASS`` leads to, -1 if there is no street.
    attribution : str
        Credit for the map, shown below every drawing.

    Raises
    ------
    ValueError
        If the shapes do not match, or an intersection cannot be reached from another.

    Examples
    --------
    A one-way ring of three intersections:

    >>> ring = Streets("ring", ("a", "b", "c"), np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0]),
    ...                np.array([[-1, 1] + 6 * [-1], 4 * [-1] + [2] + 3 * [-1], 6 * [-1] + [0, -1]]))
    >>> ring.n_edges, ring.distance.tolist()
    (3, [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
    """

    name: str
    nodes: tuple[str, ...]
    x: Float[np.ndarray, " nodes"]
    y: Float[np.ndarray, " nodes"]
    turns: Int[np.ndarray, "nodes 8"]
    attribution: str = ""

    def __post_init__(self) -> None:
        count = len(self.nodes)
        for field, shape in {"x": (count,), "y": (count,), "turns": (count, len(COMPASS))}.items():
            values = getattr(self, field)
            if values.shape != shape:
                raise ValueError(f"{field} must have shape {shape}, one row per intersection, got {values.shape}")
        if len(set(self.nodes)) != count:
            twice = next(name for name, times in Counter(self.nodes).items() if times > 1)
            raise ValueError(f"intersections must have different names, got {twice!r} more than once")
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError("x and y must be finite")
        if ((self.turns < -1) | (self.turns >= count)).any():
            raise ValueError(f"turns must be -1 or an intersection from 0 to {count - 1}")
        require_connected(self.name, self.nodes, self.edges)

    @cached_property
    def edges(self) -> Int[np.ndarray, "edges 2"]:
        """Source and target of each street, sorted by source and direction."""
        source, direction = np.nonzero(self.turns >= 0)
        return np.stack([source, self.turns[source, direction]], axis=1).astype(np.int64)

    @cached_property
    def places(self) -> Float[np.ndarray, "nodes 2"]:
        """Positions of the intersections, east and north."""
        return np.stack([self.x, self.y], axis=1)

    @property
    def n_edges(self) -> int:
        """Number of directed edges; a street open both ways counts twice."""
        return len(self.edges)

    @cached_property
    def distance(self) -> Integer[np.ndarray, "nodes nodes"]:
        """Length of the shortest path from row to column, in moves.

        The type is uint8 if the longest path allows: cast before subtracting. Read-only and stored by column, because
        rides use ``distance[node, goal]`` for all nodes and one goal. Takes one byte per pair, 41 MB for 6,400
        intersections.
        """
        count = len(self.nodes)
        # Breadth-first search, one bit for each goal that an intersection reaches. A pass over the streets extends all
        # paths by one move.
        seen = np.packbits(np.eye(count, dtype=bool), axis=1)
        planes: list[np.ndarray] = []  # the moves in binary: plane k holds the bit worth 2^k
        for moves in itertools.count(1):
            reached = seen.copy()
            for leads in self.turns.T:
                reached[leads >= 0] |= seen[leads[leads >= 0]]
            new = reached ^ seen
            if not new.any():
                break
            if moves >> len(planes):
                planes.append(np.zeros_like(seen))
            for k, plane in enumerate(planes):
                if moves >> k & 1:
                    plane |= new
            seen = reached
        # One more than the longest path must fit, so that a caller can add a move.
        result = np.zeros((count, count), np.min_scalar_type(moves))
        for k, plane in enumerate(planes):
            result |= np.unpackbits(plane, axis=1, count=count).astype(result.dtype) << k
        result = np.asfortranarray(result)
        result.flags.writeable = False
        return result

    @cached_property
    def sha256(self) -> str:
        """Hash of names, turns and positions (to 0.1 m) as hex, the same on every machine."""
        digest = hashlib.sha256(b"nextlat_viz.streets/1")
        digest.update("\0".join(self.nodes).encode())
        digest.update(np.ascontiguousarray(self.turns, dtype="<i8").tobytes())
        digest.update(np.rint(10 * np.stack([self.x, self.y])).astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def spread(self) -> int:
        """Number of streets whose direction is not the one nearest to their bearing."""
        return int((nearest_directions(self.x, self.y, self.edges) != np.nonzero(self.turns >= 0)[1]).sum())

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Streets:
        """Streets from their ``record``; a ValueError if it is not one."""
        fields = ("name", "nodes", "x", "y", "turns", "attribution")
        if set(record) != set(fields):
            entries = ", ".join(map(str, record)) or "none"
            raise ValueError(f"a record of streets has the entries {', '.join(fields)}, got {entries}")
        if not isinstance(record["nodes"], list):
            raise ValueError(f"nodes of a record of streets must be a list of names, got {record['nodes']!r:.80}")
        try:
            x, y = (np.array(record[axis], np.float64) for axis in "xy")
            turns = np.array(record["turns"], np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"x, y and turns of a record of streets must be numbers: {error}") from None
        return cls(str(record["name"]), tuple(map(str, record["nodes"])), x, y, turns, str(record["attribution"]))

    @property
    def record(self) -> dict[str, Any]:
        """Everything the streets are made of, as plain JSON."""
        arrays = {"x": self.x.tolist(), "y": self.y.tolist(), "turns": self.turns.tolist()}
        return {"name": self.name, "nodes": list(self.nodes), **arrays, "attribution": self.attribution}

    def to_networkx(self) -> networkx.DiGraph:
        """Convert to networkx: nodes with ``x`` and ``y``, edges with their ``direction``.

        ``from_networkx`` returns the same streets. The graph is a MultiDiGraph if several streets lead from one
        intersection to the same other one.
        """
        import networkx

        parallel = len(np.unique(self.edges, axis=0)) < self.n_edges
        kind = networkx.MultiDiGraph if parallel else networkx.DiGraph
        graph = kind(name=self.name, attribution=self.attribution, centred=True)
        for node, x, y in zip(self.nodes, self.x.tolist(), self.y.tolist(), strict=True):
            graph.add_node(node, x=x, y=y)
        for source, direction in np.argwhere(self.turns >= 0).tolist():
            target = self.turns[source, direction]
            graph.add_edge(self.nodes[source], self.nodes[target], direction=COMPASS[direction])
        return graph

    def draw(self, **options: Any) -> Figure:
        """Draw the map; the options are those of ``taxi.map.draw_map``."""
        from nextlat_viz.worlds.drawing import find_picture

        return find_picture(Streets, "map")(self, **options)

    def __repr__(self) -> str:
        return f"<Streets {self.name}: {len(self.nodes):,} intersections, {self.n_edges:,} directed edges>"

    def _repr_html_(self) -> str:
        rows = {
            "intersections": f"{len(self.nodes):,}",
            "directed edges": f"{self.n_edges:,}",
            "not in their nearest direction": f"{self.spread:,}",
            "sha256": self.sha256[:12],
        }
        return table(f"Streets {self.name}", rows | ({"map": self.attribution} if self.attribution else {}))


def nearest_directions(
    x: Float[np.ndarray, " nodes"], y: Float[np.ndarray, " nodes"], edges: Int[np.ndarray, "edges 2"]
) -> Int[np.ndarray, " edges"]:
    """Index in ``COMPASS`` of the direction nearest to the bearing of each street."""
    return np.floor(bearings(x, y, edges) / OCTANT + 0.5).astype(np.int64) % len(COMPASS)


def bearings(
    x: Float[np.ndarray, " nodes"], y: Float[np.ndarray, " nodes"], edges: Int[np.ndarray, "edges 2"]
) -> Float[np.ndarray, " edges"]:
    """Degrees clockwise from north of the straight line along each street, in [0, 360)."""
    source, target = edges.T
    # Rounded, so that the last bit of arctan, which depends on the processor, never decides a tie.
    return np.round(np.rad2deg(np.arctan2(x[target] - x[source], y[target] - y[source])) % 360, 6)


def require_connected(name: str, nodes: Sequence[str], edges: Int[np.ndarray, "edges 2"]) -> None:
    """Raise a ValueError unless every intersection can be reached from every other."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(nodes)
    if count < 2:
        raise ValueError(f"{name!r} must have at least 2 intersections, got {count}")
    matrix = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    parts, part = connected_components(matrix, connection="strong")
    if parts == 1:
        return
    dead_ends = np.flatnonzero(np.bincount(edges[:, 0], minlength=count) == 0)
    problem = f", {len(dead_ends):,} of them dead ends such as {nodes[dead_ends[0]]!r}" if len(dead_ends) else ""
    raise ValueError(
        f"every intersection of {name!r} must be reachable from every other, but there are {parts:,} separate parts"
        f"{problem}; the largest has {np.bincount(part).max():,} of {count:,} intersections: pass largest=True to keep "
        "only that one"
    )
