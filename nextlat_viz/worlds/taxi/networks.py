"""Convert a networkx graph with coordinates or compass directions to streets."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.errors import unknown
from nextlat_viz.worlds.taxi.streets import COMPASS, OCTANT, Streets, bearings, nearest_directions, require_connected

if TYPE_CHECKING:
    import networkx

_EARTH_RADIUS = 6_371_008.8  # metres, IUGG mean
COORDINATES = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
"""Attributes of nodes and columns of tables that hold a position."""

_FARTHEST = 90.0
"""Greatest angle between a street and its direction, in degrees."""


def from_networkx(
    graph: networkx.Graph,
    name: str | None = None,
    *,
    largest: bool = False,
    merge: bool = False,
    attribution: str | None = None,
) -> Streets:
    """Convert a directed graph with coordinates or compass directions to streets.

    Edges with the attribute ``direction``, one of ``COMPASS``, keep it. Without it the direction of a street is the
    octant nearest to its bearing, the direction of a straight line to its end. If two streets of an intersection have
    the same octant, its streets are spread over the octants: the assignment keeps their order around the intersection,
    moves no street by more than 90 degrees and minimises the sum of squared angles; parallel edges count once, and
    loops are dropped.

    Parameters
    ----------
    graph : networkx.DiGraph or MultiDiGraph
        Positions are read from the node attributes ``longitude`` and ``latitude``, ``lon`` and ``lat``, ``x`` and ``y``
        (degrees if the graph's ``crs`` is EPSG:4326, as in OSMnx, else metres) or ``pos``, a pair of x and y. They
        may be missing if every edge has a ``direction``: the map is then laid out by the directions.
    name : str, optional
        By default the graph's ``name``, or "streets".
    largest : bool
        Keep only the largest strongly connected component.
    merge : bool
        Remove intersections without a choice: one street in and one out, or a through road in both directions.
    attribution : str, optional
        By default the graph's.

    Raises
    ------
    ValueError
        If the graph is undirected, has fewer than two nodes, a node without a position, directions on only some edges
        or more than one strongly connected component, or if the streets of a node do not fit eight directions.
    UnknownNameError
        If a direction is not one of ``COMPASS``.

    Examples
    --------
    >>> import networkx
    >>> graph = networkx.DiGraph([("home", "work"), ("work", "home")])
    >>> networkx.set_node_attributes(graph, {"home": (0, 0), "work": (100, 90)}, "pos")
    >>> networkx.get_edge_attributes(from_networkx(graph, "commute").to_networkx(), "direction")
    {('home', 'work'): 'NE', ('work', 'home'): 'SW'}
    """
    import networkx

    name = name or str(graph.graph.get("name") or "streets")
    attribution = str(graph.graph.get("attribution") or "") if attribution is None else attribution
    if not graph.is_directed():
        raise ValueError(
            f"the graph of {name!r} is undirected, and streets have a direction; pass graph.to_directed() if every "
            "street may be taken both ways"
        )
    labelled = any(map(_has_direction, (label for *_, label in graph.edges(data="direction"))))
    # The key of an edge is its direction, if directions are given.
    plain = networkx.MultiDiGraph()
    plain.add_nodes_from(graph)
    for source, target, label in graph.edges(data="direction"):
        if labelled:
            plain.add_edge(source, target, key=label if _has_direction(label) else "")
        elif source != target:
            plain.add_edge(source, target, key="")
    if largest and len(plain):
        component = max(networkx.strongly_connected_components(plain), key=len)
        plain.remove_nodes_from([node for node in plain if node not in component])
    if merge:
        _merge(plain)
    nodes = tuple(str(node) for node in plain)
    index = {node: place for place, node in enumerate(plain)}
    edges = np.array([(index[a], index[b]) for a, b in plain.edges()], np.int64).reshape(-1, 2)
    require_connected(name, nodes, edges)
    if labelled:
        turns = _labelled_turns(nodes, edges, [label for *_, label in plain.edges(keys=True)])
    if labelled and not any(_has_place(graph.nodes[node]) for node in plain):
        x, y = _laid_out(turns)
    else:
        x, y = _places(graph, list(plain))
    return Streets(name, nodes, x, y, turns if labelled else _turns(nodes, x, y, edges), attribution)


def _has_direction(label: Any) -> bool:
    """Whether an edge has a direction; a table writes a missing one as NaN or as empty text."""
    return not (label is None or label == "" or (isinstance(label, float) and math.isnan(label)))


def _labelled_turns(
    nodes: Sequence[str], edges: Int[np.ndarray, "edges 2"], labels: Sequence[Any]
) -> Int[np.ndarray, "nodes 8"]:
    """The table of turns, by the direction of each edge."""
    turns = np.full((len(nodes), len(COMPASS)), -1, np.int64)
    for (source, target), label in zip(edges.tolist(), labels, strict=True):
        street = f"the street from {nodes[source]!r} to {nodes[target]!r}"
        if label == "":
            raise ValueError(
                f"{street} has no direction, and other streets have; give every edge the attribute 'direction', or none"
            )
        if label not in COMPASS:
            raise unknown(f"direction of {street}:", label, COMPASS)
        octant = COMPASS.index(label)
        if turns[source, octant] >= 0:
            other = nodes[turns[source, octant]]
            raise ValueError(
                f"{street} and that to {other!r} have the same direction {label!r}; streets that leave an intersection "
                "must have different ones"
            )
        turns[source, octant] = target
    return turns


def _laid_out(turns: Int[np.ndarray, "nodes 8"]) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Positions such that every street is as nearly as possible one block long in its direction, by least squares.

    If that puts two intersections on one spot, as for a ring of streets to the north, a spring layout is used.
    """
    import networkx
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    source, octant = np.nonzero(turns >= 0)
    target, count = turns[source, octant], len(turns)
    angle = np.deg2rad(OCTANT * octant)
    blocks = np.rint(np.stack([np.sin(angle), np.cos(angle)], axis=1))
    rows = np.tile(np.arange(len(source)), 2)
    signs = np.repeat([1.0, -1.0], len(source))
    ends = coo_array((signs, (rows, np.concatenate([target, source]))), shape=(len(source), count)).tocsr()
    # Only differences are known: the first intersection is put at 0.
    free = ends[:, 1:].tocsc()
    solved = np.asarray(spsolve(free.T.tocsc() @ free, free.T @ blocks)).reshape(-1, 2)
    # Rounded, so that the hash of the streets does not depend on the processor.
    places = np.round(np.vstack([np.zeros(2), solved]), 6)
    if len(np.unique(places, axis=0)) < count:
        graph = networkx.Graph(zip(source.tolist(), target.tolist(), strict=True))
        positions = networkx.spring_layout(graph, seed=0, scale=math.sqrt(count))
        places = np.round([positions[node] for node in range(count)], 2)
    x, y = (places - (places.min(0) + places.max(0)) / 2).T
    return x, y


def _merge(graph: networkx.MultiDiGraph) -> None:
    """Remove nodes without a choice, in place, until every node has one.

    A joined street has the direction of its first part.
    """
    waiting = deque(graph)
    while waiting:
        node = waiting.popleft()
        # A street from an intersection to itself is a choice.
        if node not in graph or graph.has_edge(node, node):
            continue
        into, out = set(graph.predecessors(node)), set(graph.successors(node))
        through = len(into) == len(out) == 1 and into != out
        both_ways = len(into) == 2 and into == out
        if through or both_ways:
            joined = [(a, b, label) for a in into for label in graph[a][node] for b in out if a != b]
            graph.remove_node(node)
            for a, b, label in joined:
                graph.add_edge(a, b, key=label)
            # If the new edge existed already, its ends have lost a street and may have no choice now.
            waiting += sorted(into | out, key=str)


def _places(
    graph: networkx.Graph, nodes: Sequence[Any]
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Metres east and north of the centre, from the attributes of the nodes."""
    places = [_place(node, graph.nodes[node]) for node in nodes]
    degrees = {key != ("x", "y") and key != ("pos",) for key, _, _ in places}
    if len(degrees) > 1:
        raise ValueError("some nodes have longitude and latitude, others x and y; use one of the two for all")
    x, y = np.array([place for _, *place in places], np.float64).T
    if not (np.isfinite(x) & np.isfinite(y)).all():
        wrong = nodes[int(np.argmin(np.isfinite(x) & np.isfinite(y)))]
        raise ValueError(f"node {wrong!r} must have finite coordinates")
    if degrees == {True} or "4326" in str(graph.graph.get("crs", "")):
        x, y = _metres(x, y)
    elif graph.graph.get("centred"):
        return x, y
    return x - (x.min() + x.max()) / 2, y - (y.min() + y.max()) / 2


def _has_place(attributes: Mapping[str, Any]) -> bool:
    return any(attributes.get(part) is not None for key in (*COORDINATES, ("pos",)) for part in key)


def _place(node: Any, attributes: Mapping[str, Any]) -> tuple[tuple[str, ...], float, float]:
    for key in (*COORDINATES, ("pos",)):
        if any(attributes.get(part) is None for part in key):
            continue
        values = attributes["pos"] if key == ("pos",) else [attributes[part] for part in key]
        try:
            x, y = (float(value) for value in values)
        except (TypeError, ValueError):
            raise ValueError(f"node {node!r} has {' and '.join(key)} that are not two numbers: {values!r}") from None
        return key, x, y
    looked_for = ", ".join("/".join(key) for key in (*COORDINATES, ("pos",)))
    raise ValueError(
        f"node {node!r} has no position: looked for {looked_for}, found "
        f"{', '.join(sorted(map(str, attributes))) or 'no attributes'}. Give every node a position, or none and every "
        f"edge a 'direction', one of {', '.join(COMPASS)}"
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


def _turns(
    nodes: Sequence[str],
    x: Float[np.ndarray, " nodes"],
    y: Float[np.ndarray, " nodes"],
    edges: Int[np.ndarray, "edges 2"],
) -> Int[np.ndarray, "nodes 8"]:
    """Compute the table of turns by the bearings of the streets."""
    source, target = edges.T
    nowhere = (x[target] == x[source]) & (y[target] == y[source])
    if nowhere.any():
        a, b = edges[np.argmax(nowhere)]
        raise ValueError(
            f"the street from {nodes[a]!r} to {nodes[b]!r} has no direction, because both have the same "
            "position; move one of them or merge them"
        )
    bearing = bearings(x, y, edges)
    turns = np.full((len(nodes), len(COMPASS)), -1, np.int64)
    turns[source, nearest_directions(x, y, edges)] = target
    crowded = np.flatnonzero(np.bincount(source, minlength=len(nodes)) > (turns >= 0).sum(1))
    by_source = np.argsort(source, kind="stable")
    bounds = np.searchsorted(source[by_source], [crowded, crowded + 1])
    for node, first, last in zip(crowded.tolist(), *bounds.tolist(), strict=True):
        leaving = by_source[first:last]
        leaving = leaving[np.lexsort((target[leaving], bearing[leaving]))]
        octants = _spread(bearing[leaving])
        if octants is None:
            raise ValueError(_ambiguous(nodes[node], [nodes[place] for place in target[leaving]], bearing[leaving]))
        turns[node] = -1
        turns[node, octants] = target[leaving]
    return turns


def _spread(bearing: Float[np.ndarray, " streets"]) -> Int[np.ndarray, " streets"] | None:
    """One octant for each street of a node, in clockwise order; None if there is no assignment."""
    if len(bearing) > len(COMPASS):
        return None
    choices = _cyclic_choices(len(bearing))
    turned = np.abs((choices * OCTANT - bearing + 180) % 360 - 180)
    cost = np.where(turned.max(1) <= _FARTHEST, np.round((turned**2).sum(1), 3), np.inf)
    best = int(np.argmin(cost))
    return choices[best] if np.isfinite(cost[best]) else None


@cache
def _cyclic_choices(streets: int) -> Int[np.ndarray, "choices streets"]:
    """All assignments of different octants to streets in clockwise order."""
    subsets = itertools.combinations(range(len(COMPASS)), streets)
    return np.array([octants[start:] + octants[:start] for octants in subsets for start in range(streets)])


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
