"""Convert a networkx graph with coordinates to streets with compass directions."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.taxi.streets import COMPASS, Streets, require_connected

if TYPE_CHECKING:
    import networkx

_EARTH_RADIUS = 6_371_008.8  # metres, IUGG mean
_COORDINATES = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
_FARTHEST = 90.0
"""Greatest angle between a street and its direction, in degrees."""

_OCTANT = 360 / len(COMPASS)


def from_networkx(
    graph: networkx.Graph, name: str = "streets", *, largest: bool = False, merge: bool = False, attribution: str = ""
) -> Streets:
    """Convert a directed graph with coordinates to streets with compass directions.

    The direction of a street is the octant nearest to its bearing, the direction of a straight line to its end. If
    two streets of an intersection have the same octant, its streets are spread over the octants: the assignment keeps
    their order around the intersection, moves no street by more than 90 degrees and minimises the sum of squared
    angles. Parallel edges count once; loops are dropped.

    Parameters
    ----------
    graph : networkx.DiGraph or MultiDiGraph
        Positions are read from the node attributes ``longitude`` and ``latitude``, ``lon`` and ``lat``, ``x`` and ``y``
        (degrees if the graph's ``crs`` is EPSG:4326, as in OSMnx, else metres) or ``pos``, a pair of x and y.
    name : str
    largest : bool
        Keep only the largest strongly connected component.
    merge : bool
        Remove intersections without a choice: one street in and one out, or a through road in both directions.
    attribution : str

    Raises
    ------
    ValueError
        If the graph is undirected, has fewer than two nodes, a node without a position or more than one strongly
        connected component, or if the streets of a node do not fit eight directions.

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
    turns, spread = _directions(nodes, x, y, edges)
    return Streets(name, nodes, x, y, turns, attribution, spread)


def _merge(graph: networkx.DiGraph) -> None:
    """Remove nodes without a choice, in place, until there is none."""
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
            # If the new edge existed already, its ends have lost a street and may have no choice now.
            waiting += sorted(into | out, key=str)


def _places(
    graph: networkx.Graph, nodes: Sequence[Any]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Metres east and north of the centre, from the attributes of the nodes."""
    read = [_place(node, graph.nodes[node]) for node in nodes]
    degrees = {key != ("x", "y") and key != ("pos",) for key, _, _ in read}
    if len(degrees) > 1:
        raise ValueError("some nodes have longitude and latitude, others x and y; use one of the two for all")
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
            raise ValueError(f"node {node!r} has {' and '.join(key)} that are not two numbers: {values!r}") from None
        return key, x, y
    looked_for = ", ".join("/".join(key) for key in (*_COORDINATES, ("pos",)))
    raise ValueError(
        f"node {node!r} has no position, which compass directions need; looked for {looked_for}, found "
        f"{', '.join(sorted(map(str, attributes))) or 'no attributes'}"
    )


def _metres(
    longitude: Float[np.ndarray, " nodes"], latitude: Float[np.ndarray, " nodes"]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Equirectangular projection around the mean latitude; errors are metres over a city."""
    if (np.abs(latitude) > 90).any() or (np.abs(longitude) > 180).any():
        raise ValueError(
            "longitude must be within -180..180 and latitude within -90..90 degrees; are they swapped, or in "
            "metres, which are called x and y?"
        )
    scale = _EARTH_RADIUS * np.pi / 180
    return scale * np.cos(np.deg2rad(latitude.mean())) * longitude, scale * latitude


def _directions(
    nodes: Sequence[str],
    x: Float[np.ndarray, " nodes"],
    y: Float[np.ndarray, " nodes"],
    edges: Int[np.ndarray, "edges 2"],
) -> tuple[Int[np.ndarray, "nodes 8"], int]:
    """Compute the table of turns, and the number of streets not in their nearest direction."""
    source, target = edges.T
    east, north = x[target] - x[source], y[target] - y[source]
    nowhere = (east == 0) & (north == 0)
    if nowhere.any():
        a, b = edges[np.argmax(nowhere)]
        raise ValueError(
            f"the street from {nodes[a]!r} to {nodes[b]!r} has no direction, because both have the same "
            "position; move one of them or merge them"
        )
    # Rounded, so that the last bit of arctan, which depends on the processor, never decides a tie.
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
    """One octant for each street of a node, in clockwise order; None if there is no assignment."""
    if len(bearing) > len(COMPASS):
        return None
    choices = _cyclic_choices(len(bearing))
    turned = np.abs((choices * _OCTANT - bearing + 180) % 360 - 180)
    cost = np.where(turned.max(1) <= _FARTHEST, np.round((turned**2).sum(1), 3), np.inf)
    best = int(np.argmin(cost))
    return choices[best] if np.isfinite(cost[best]) else None


@cache
def _cyclic_choices(streets: int) -> Int[np.ndarray, "choices streets"]:
    """All assignments of different octants to streets in clockwise order."""
    chosen = itertools.combinations(range(len(COMPASS)), streets)
    return np.array([octants[start:] + octants[:start] for octants in chosen for start in range(streets)])


def _ambiguous(node: str, targets: Sequence[str], bearing: Float[np.ndarray, " streets"]) -> str:
    streets = ", ".join(f"{name!r} at {angle:.0f}°" for name, angle in zip(targets, bearing.tolist(), strict=True))
    why = (
        f"there are only {len(COMPASS)} directions"
        if len(targets) > len(COMPASS)
        else f"they do not fit the eight directions when moved by at most {_FARTHEST:.0f}°"
    )
    return (
        f"{len(targets)} streets leave intersection {node!r}, and {why}: {streets}; remove some, or split the "
        "intersection in two"
    )
