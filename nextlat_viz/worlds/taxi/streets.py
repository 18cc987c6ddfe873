"""A directed street graph as a table: an intersection and a compass direction lead to one intersection."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Integer

from nextlat_viz.worlds.base import html_table

if TYPE_CHECKING:
    import networkx
    from plotly.graph_objects import Figure

COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
"""The eight directions; octant ``k`` is centred on a bearing of ``45 k`` degrees clockwise from north."""

FARTHEST = 90.0
"""No street is told by a direction further than this from its own, in degrees."""

_OCTANT = 360 / len(COMPASS)
_EARTH_RADIUS = 6_371_008.8  # metres, IUGG mean
_COORDINATES = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
_GOALS_AT_ONCE = 512


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
        _require_connected(self.name, self.nodes, self.edges)

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

        Read-only, and laid out by column: ``distance[node, goal]`` for the neighbours of one node and one goal lie
        close together, which is what a ride asks for at every turn.
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
        """Draw the map; the options are those of ``taxi.draw_map``."""
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


def from_networkx(
    graph: networkx.Graph, name: str = "streets", *, largest: bool = False, merge: bool = False, attribution: str = ""
) -> Streets:
    """Turn a directed graph with coordinates into streets that go by compass directions.

    Each street leaving an intersection goes by the octant nearest to its bearing, that of the straight line to where
    it leads. Where two want the same octant, the intersection's streets are spread over the octants: among all ways
    to do so that keep the order of the streets around the intersection and turn none by more than 90 degrees, the
    one with the least sum of squared turns is taken. Parallel edges count once, loops not at all.

    Parameters
    ----------
    graph : networkx.DiGraph or MultiDiGraph
        Places are read from the node attributes ``longitude`` and ``latitude``, ``lon`` and ``lat``, ``x`` and ``y``
        (degrees if the graph's ``crs`` is EPSG:4326, as in OSMnx, else metres) or ``pos``, a pair like the last.
    name : str
    largest : bool
        Keep only the largest part in which every intersection can be reached from every other.
    merge : bool
        Take out intersections that offer no choice: one way in and one on, or a way through for both directions.
    attribution : str

    Raises
    ------
    ValueError
        If the graph is undirected, has fewer than two nodes, a node without a place, a dead end or more than one
        strongly connected part, or if the streets of a node cannot be told apart by eight directions.

    Examples
    --------
    >>> import networkx
    >>> graph = networkx.DiGraph([("home", "work"), ("work", "home")])
    >>> networkx.set_node_attributes(graph, {"home": (0, 0), "work": (100, 90)}, "pos")
    >>> networkx.get_edge_attributes(from_networkx(graph, "commute").to_networkx(), "direction")
    {('home', 'work'): 'NE', ('work', 'home'): 'SW'}
    """
    import networkx

    if not graph.is_directed():
        raise ValueError(
            f"the graph of {name!r} is undirected, and streets have a direction; pass graph.to_directed() if every "
            "street may be taken both ways"
        )
    plain = networkx.DiGraph()
    plain.add_nodes_from(graph)
    plain.add_edges_from((source, target) for source, target in graph.edges() if source != target)
    if largest and len(plain):
        kept = max(networkx.strongly_connected_components(plain), key=len)
        plain.remove_nodes_from([node for node in plain if node not in kept])
    if merge:
        _merge(plain)
    nodes = tuple(str(node) for node in plain)
    index = {node: place for place, node in enumerate(plain)}
    edges = np.array([(index[a], index[b]) for a, b in plain.edges()], np.int64).reshape(-1, 2)
    _require_connected(name, nodes, edges)
    x, y = _places(graph, list(plain))
    turns, spread = _directions(nodes, x, y, edges)
    return Streets(name, nodes, x, y, turns, attribution, spread)


def fewest_moves(turns: Int[np.ndarray, "nodes 8"]) -> Integer[np.ndarray, "nodes nodes"]:
    """Fewest moves from row to column in a strongly connected table of turns; see ``Streets.distance``.

    Breadth-first from all goals at once, one bit for each: a pass over the streets takes every ride back one move.
    """
    count = len(turns)
    ways = (turns >= 0).sum(1)
    # With those that have most ways first, the k-th ways of all intersections are those of the first few.
    order = np.argsort(-ways, kind="stable")
    place = np.argsort(order)
    onward = [
        place[np.take_along_axis(turns[order], np.argsort(turns[order] < 0, axis=1, kind="stable"), 1)[:last, k]]
        for k, last in enumerate((ways[:, None] > np.arange(ways.max())).sum(0))
    ]
    blocks = [
        _moves_to(np.arange(first, min(first + _GOALS_AT_ONCE, count)), place, onward)
        for first in range(0, count, _GOALS_AT_ONCE)
    ]
    moves = np.concatenate([block.astype(max(block.dtype for block in blocks)) for block in blocks])
    moves.flags.writeable = False
    return moves.T


def _moves_to(
    goals: Int[np.ndarray, " goals"], place: Int[np.ndarray, " nodes"], onward: Sequence[Int[np.ndarray, " some"]]
) -> Integer[np.ndarray, "goals nodes"]:
    """Moves to each goal from every intersection, each intersection's row of bits being at its ``place``."""
    words = -(-len(goals) // 64)
    bits = np.zeros((len(place), 64 * words), np.uint8)
    bits[place[goals], np.arange(len(goals))] = 1
    seen = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    planes: list[np.ndarray] = []  # the moves in binary: plane k holds the bit worth 2^k
    for moves in itertools.count(1):
        reached = seen.copy()
        for targets in onward:
            reached[: len(targets)] |= seen[targets]
        new = reached ^ seen
        if not new.any():
            break
        if moves >> len(planes):
            planes.append(np.zeros_like(seen))
        for k, plane in enumerate(planes):
            if moves >> k & 1:
                plane |= new
        seen = reached
    # One more than the longest way must fit too, so that a caller may add a move.
    result = np.zeros((len(goals), len(place)), np.uint8 if moves < 256 else np.uint16 if moves < 65536 else np.uint32)
    for k, plane in enumerate(planes):
        flags = np.unpackbits(plane[place].view(np.uint8), axis=1, count=len(goals), bitorder="little")
        result |= flags.T.astype(result.dtype) << k
    return result


def _require_connected(name: str, nodes: Sequence[str], edges: Int[np.ndarray, "edges 2"]) -> None:
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


def _merge(graph: networkx.DiGraph) -> None:
    """Take out, in place, every node that offers no choice; again until there is none."""
    waiting = list(graph)
    while waiting:
        node = waiting.pop(0)
        into, out = set(graph.predecessors(node)), set(graph.successors(node))
        through = len(into) == len(out) == 1 and into != out
        both_ways = len(into) == 2 and into == out
        if through or both_ways:
            graph.remove_node(node)
            graph.add_edges_from((a, b) for a in into for b in out if a != b)
            # An edge that was there already leaves its ends with one way less.
            waiting += [neighbour for neighbour in sorted(into | out, key=str) if neighbour not in waiting]


def _places(
    graph: networkx.Graph, nodes: Sequence[Any]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Metres east and north of the middle, from whichever attributes the nodes bring."""
    read = [_place(node, graph.nodes[node]) for node in nodes]
    degrees = {key != ("x", "y") and key != ("pos",) for key, _, _ in read}
    if len(degrees) > 1:
        raise ValueError("some nodes are placed by longitude and latitude, others by x and y; give all the same")
    x, y = np.array([place for _, *place in read], np.float64).T
    if not (np.isfinite(x) & np.isfinite(y)).all():
        wrong = nodes[int(np.argmin(np.isfinite(x) & np.isfinite(y)))]
        raise ValueError(f"node {wrong!r} must have finite coordinates")
    if degrees == {True} or "4326" in str(graph.graph.get("crs", "")):
        x, y = _metres(x, y)
    return x - (x.min() + x.max()) / 2, y - (y.min() + y.max()) / 2


def _place(node: Any, attributes: Mapping[str, Any]) -> tuple[tuple[str, ...], float, float]:
    for key in (*_COORDINATES, ("pos",)):
        if any(attributes.get(part) is None for part in key):
            continue
        values = attributes["pos"] if key == ("pos",) else [attributes[part] for part in key]
        try:
            x, y = (float(value) for value in values)
        except (TypeError, ValueError):
            raise ValueError(f"node {node!r} has {' and '.join(key)} that are no two numbers: {values!r}") from None
        return key, x, y
    looked_for = ", ".join("/".join(key) for key in (*_COORDINATES, ("pos",)))
    raise ValueError(
        f"node {node!r} has no place, and a compass direction needs one; looked for {looked_for}, found "
        f"{', '.join(sorted(map(str, attributes))) or 'no attributes'}"
    )


def _metres(
    longitude: Float[np.ndarray, " nodes"], latitude: Float[np.ndarray, " nodes"]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Equirectangular around the mean latitude: off by metres over a city."""
    if (np.abs(latitude) > 90).any() or (np.abs(longitude) > 180).any():
        raise ValueError(
            "longitude must be within -180..180 and latitude within -90..90 degrees; are they swapped, or metres that "
            "should be called x and y?"
        )
    scale = _EARTH_RADIUS * np.pi / 180
    return scale * np.cos(np.deg2rad(latitude.mean())) * longitude, scale * latitude


def _directions(
    nodes: Sequence[str],
    x: Float[np.ndarray, " nodes"],
    y: Float[np.ndarray, " nodes"],
    edges: Int[np.ndarray, "edges 2"],
) -> tuple[Int[np.ndarray, "nodes 8"], int]:
    """The table of turns, and how many streets in it go by a direction that is not the nearest to their own."""
    source, target = edges.T
    east, north = x[target] - x[source], y[target] - y[source]
    nowhere = (east == 0) & (north == 0)
    if nowhere.any():
        a, b = edges[np.argmax(nowhere)]
        raise ValueError(
            f"the street from {nodes[a]!r} to {nodes[b]!r} has no direction, both being at one place; move one of them "
            "or make them one intersection"
        )
    # Rounded, so that the last bit of a processor's arctan never decides a tie.
    bearing = np.round(np.rad2deg(np.arctan2(east, north)) % 360, 6)
    nearest = np.floor(bearing / _OCTANT + 0.5).astype(np.int64) % len(COMPASS)
    turns = np.full((len(nodes), len(COMPASS)), -1, np.int64)
    turns[source, nearest] = target
    crowded = np.flatnonzero(np.bincount(source, minlength=len(nodes)) > (turns >= 0).sum(1))
    by_source = np.argsort(source, kind="stable")
    bounds = np.searchsorted(source[by_source], [crowded, crowded + 1])
    moved = 0
    for node, first, last in zip(crowded.tolist(), *bounds.tolist(), strict=True):
        leaving = by_source[first:last]
        leaving = leaving[np.lexsort((target[leaving], bearing[leaving]))]
        octants = _spread(bearing[leaving])
        if octants is None:
            raise ValueError(_ambiguous(nodes[node], [nodes[place] for place in target[leaving]], bearing[leaving]))
        turns[node] = -1
        turns[node, octants] = target[leaving]
        moved += int((octants != nearest[leaving]).sum())
    return turns, moved


def _spread(bearing: Float[np.ndarray, " streets"]) -> Int[np.ndarray, " streets"] | None:
    """One octant for each of a node's streets, given in clockwise order; None where there is no way."""
    if len(bearing) > len(COMPASS):
        return None
    choices = _cyclic_choices(len(bearing))
    turned = np.abs((choices * _OCTANT - bearing + 180) % 360 - 180)
    cost = np.where(turned.max(1) <= FARTHEST, np.round((turned**2).sum(1), 3), np.inf)
    best = int(np.argmin(cost))
    return choices[best] if np.isfinite(cost[best]) else None


@cache
def _cyclic_choices(streets: int) -> Int[np.ndarray, "choices streets"]:
    """Every way to give so many streets different octants in clockwise order, wherever the first one starts."""
    chosen = itertools.combinations(range(len(COMPASS)), streets)
    return np.array([one[start:] + one[:start] for one in chosen for start in range(streets)])


def _ambiguous(node: str, targets: Sequence[str], bearing: Float[np.ndarray, " streets"]) -> str:
    streets = ", ".join(f"{name!r} at {angle:.0f}°" for name, angle in zip(targets, bearing.tolist(), strict=True))
    why = (
        f"only {len(COMPASS)} have a direction"
        if len(targets) > len(COMPASS)
        else f"no eight directions tell them apart with none turned by more than {FARTHEST:.0f}°"
    )
    return (
        f"{len(targets)} streets leave intersection {node!r}, and {why}: {streets}; take some out, or split the "
        "intersection in two"
    )
