"""A directed street graph as a table: an intersection and a compass direction lead to one intersection."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Integer

from nextlat_viz.worlds.base import html_table
from nextlat_viz.worlds.taxi.moves import fewest_moves

if TYPE_CHECKING:
    import networkx
    from plotly.graph_objects import Figure

COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
"""The eight directions; octant ``k`` is centred on a bearing of ``45 k`` degrees clockwise from north."""


@dataclass(frozen=True, eq=False)
class Streets:
    """A directed street graph in which a compass direction leads to one place.

    Every intersection can be reached from every other. Build one with ``taxi.streets`` or ``from_networkx``, which
    says how streets become directions.

    Parameters
    ----------
    name : str
        What the city is called.
    nodes : tuple of str
        Names of the intersections, all different.
    x, y : float64 arrays (nodes,)
        Metres east and north of the middle; blocks in a grid.
    turns : int64 array (nodes, 8)
        Where each direction of ``COMPASS`` leads, -1 where there is no street.
    attribution : str
        Whom the map is owed to, shown below every drawing of it.
    spread : int
        Streets that go by a direction next to their own, another street of the intersection having taken it.

    Raises
    ------
    ValueError
        If the arrays do not fit together, or some intersection cannot be reached from some other.

    Examples
    --------
    A ring road of three, one way round:

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
    spread: int = 0

    def __post_init__(self) -> None:
        count = len(self.nodes)
        for field, values, shape in (
            ("x", self.x, (count,)),
            ("y", self.y, (count,)),
            ("turns", self.turns, (count, len(COMPASS))),
        ):
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
        """From where to where each street leads, by intersection, then by direction."""
        source, direction = np.nonzero(self.turns >= 0)
        return np.stack([source, self.turns[source, direction]], axis=1).astype(np.int64)

    @property
    def n_edges(self) -> int:
        """Number of directed edges; a street open both ways counts twice."""
        return len(self.edges)

    @cached_property
    def distance(self) -> Integer[np.ndarray, "nodes nodes"]:
        """Fewest moves from row to column: uint8 where the longest way allows, so subtract nothing from it unwidened.

        Read-only, and laid out by column: ``distance[node, goal]`` for all nodes and one goal lie side by side, and
        those are what a ride asks for at every turn. It takes as many bytes as there are pairs, 41 MB for 6,400
        intersections.
        """
        return fewest_moves(self.turns)

    @cached_property
    def sha256(self) -> str:
        """Hash of names, turns and places (to a tenth of a metre), as hex, the same on every machine."""
        digest = hashlib.sha256(b"nextlat_viz.streets/1")
        digest.update("\0".join(self.nodes).encode())
        digest.update(np.ascontiguousarray(self.turns, dtype="<i8").tobytes())
        digest.update(np.rint(10 * np.stack([self.x, self.y])).astype("<i8").tobytes())
        return digest.hexdigest()

    def to_networkx(self) -> networkx.DiGraph:
        """The same graph for networkx: nodes with ``x`` and ``y``, edges with their ``direction``."""
        import networkx

        graph = networkx.DiGraph(name=self.name)
        for node, x, y in zip(self.nodes, self.x.tolist(), self.y.tolist(), strict=True):
            graph.add_node(node, x=x, y=y)
        for source, direction in np.argwhere(self.turns >= 0).tolist():
            target = self.turns[source, direction]
            graph.add_edge(self.nodes[source], self.nodes[target], direction=COMPASS[direction])
        return graph

    def draw(self, **options: Any) -> Figure:
        """Draw the map; the options are those of ``taxi.map.draw_map``."""
        from nextlat_viz.worlds.taxi.map import draw_map

        return draw_map(self, **options)

    def __repr__(self) -> str:
        return f"<Streets {self.name}: {len(self.nodes):,} intersections, {self.n_edges:,} directed edges>"

    def _repr_html_(self) -> str:
        rows = {
            "intersections": f"{len(self.nodes):,}",
            "directed edges": f"{self.n_edges:,}",
            "by a neighbouring direction": f"{self.spread:,}",
            "sha256": self.sha256[:12],
        }
        return html_table(f"Streets {self.name}", rows | ({"map": self.attribution} if self.attribution else {}))


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
        f"every intersection of {name!r} must be reachable from every other, but it falls into {parts:,} parts"
        f"{problem}; the largest has {np.bincount(part).max():,} of {count:,} intersections: pass largest=True to keep "
        "that one alone"
    )
