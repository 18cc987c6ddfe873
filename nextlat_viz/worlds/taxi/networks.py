"""From a networkx graph with coordinates to streets that go by compass directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from nextlat_viz.worlds.taxi.directions import directions
from nextlat_viz.worlds.taxi.streets import Streets, require_connected

if TYPE_CHECKING:
    import networkx

_EARTH_RADIUS = 6_371_008.8  # metres, IUGG mean
_COORDINATES = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))


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
    require_connected(name, nodes, edges)
    x, y = _places(graph, list(plain))
    turns, spread = directions(nodes, x, y, edges)
    return Streets(name, nodes, x, y, turns, attribution, spread)


def _merge(graph: networkx.DiGraph) -> None:
    """Take out, in place, every node that offers no choice; again until there is none."""
    waiting = deque(graph)
    while waiting:
        node = waiting.popleft()
        if node not in graph:
            continue
        into, out = set(graph.predecessors(node)), set(graph.successors(node))
        through = len(into) == len(out) == 1 and into != out
        both_ways = len(into) == 2 and into == out
        if through or both_ways:
            graph.remove_node(node)
            graph.add_edges_from((a, b) for a in into for b in out if a != b)
            # An edge that was there already leaves its ends with one way less.
            waiting += sorted(into | out, key=str)


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
