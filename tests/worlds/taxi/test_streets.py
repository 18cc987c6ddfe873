"""Streets: compass directions and distances."""

from __future__ import annotations

import itertools
import math

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz.worlds.taxi import COMPASS, Streets, from_networkx, grid


@st.composite
def graphs(draw: st.DrawFn) -> networkx.DiGraph:
    """Draw some places on a lattice, a cycle through all of them, and more streets between them."""
    places = draw(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=9, unique=True))
    graph = networkx.DiGraph()
    for index, place in enumerate(places):
        graph.add_node(f"n{index}", pos=place)
    networkx.add_cycle(graph, list(graph))
    ends = st.sampled_from(sorted(graph))
    graph.add_edges_from(draw(st.lists(st.tuples(ends, ends), max_size=14)))
    return graph


def bearing(graph: networkx.DiGraph, source: str, target: str) -> float:
    (x0, y0), (x1, y1) = graph.nodes[source]["pos"], graph.nodes[target]["pos"]
    return math.degrees(math.atan2(x1 - x0, y1 - y0)) % 360


def turned(angle: float, octant: int) -> float:
    return abs((45 * octant - angle + 180) % 360 - 180)


def in_cyclic_order(octants: tuple[int, ...]) -> bool:
    """Return whether octants, given clockwise, go around at most once."""
    return sum((b - a) % 8 for a, b in zip(octants, octants[1:] + octants[:1], strict=True)) == 8 or len(octants) == 1


def least_turn(angles: list[float]) -> float:
    """Return the least sum of squared turns over all assignments of octants in order; infinite if there is none."""
    return min(
        (
            sum(turned(angle, octant) ** 2 for angle, octant in zip(angles, octants, strict=True))
            for octants in itertools.permutations(range(8), len(angles))
            if in_cyclic_order(octants)
            and all(turned(angle, octant) <= 90 + 1e-6 for angle, octant in zip(angles, octants, strict=True))
        ),
        default=math.inf,
    )


@settings(max_examples=120)
@given(graphs())
def test_octants_keep_the_order_of_streets_with_the_least_turn(graph: networkx.DiGraph) -> None:
    loops = list(networkx.selfloop_edges(graph))
    leaving = {
        node: sorted((bearing(graph, node, target), target) for target in graph.successors(node) if target != node)
        for node in graph
    }
    least = {node: least_turn([angle for angle, _ in ways]) for node, ways in leaving.items()}
    if math.inf in least.values():
        with pytest.raises(ValueError, match=r"tell them apart|have a direction"):
            from_networkx(graph)
        return
    streets = from_networkx(graph)
    assert streets.n_edges == graph.number_of_edges() - len(loops)
    direction = networkx.get_edge_attributes(streets.to_networkx(), "direction")
    assert set(direction) == set(graph.edges()) - set(loops)
    for node, ways in leaving.items():
        octants = [COMPASS.index(direction[node, target]) for _, target in ways]
        assert len(set(octants)) == len(octants)
        cost = sum(turned(angle, octant) ** 2 for (angle, _), octant in zip(ways, octants, strict=True))
        assert cost == pytest.approx(least[node], abs=0.01)
    nearest = [
        COMPASS[math.floor(bearing(graph, *edge) / 45 + 0.5) % 8] == way
        for edge, way in direction.items()
        if bearing(graph, *edge) % 45 != 22.5
    ]
    assert nearest.count(False) <= streets.spread


@settings(max_examples=75)
@given(graphs())
def test_distances_equal_networkx(graph: networkx.DiGraph) -> None:
    try:
        streets = from_networkx(graph)
    except ValueError:
        return
    expected = dict(networkx.all_pairs_shortest_path_length(graph))
    for i, source in enumerate(streets.nodes):
        for j, target in enumerate(streets.nodes):
            assert streets.distance[i, j] == expected[source][target]


@settings(max_examples=45)
@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_changes_nothing(graph: networkx.DiGraph, random: object) -> None:
    shuffled = networkx.DiGraph()
    shuffled.add_nodes_from(graph.nodes(data=True))
    edges = list(graph.edges())
    random.shuffle(edges)  # type: ignore[attr-defined]
    shuffled.add_edges_from(edges)
    try:
        streets = from_networkx(graph)
    except ValueError:
        with pytest.raises(ValueError, match="leave intersection"):
            from_networkx(shuffled)
    else:
        assert from_networkx(shuffled).sha256 == streets.sha256
        assert from_networkx(networkx.MultiDiGraph(shuffled)).sha256 == streets.sha256


def test_two_streets_in_one_octant_take_it_and_the_next() -> None:
    graph = networkx.DiGraph()
    for name, place in {"here": (0, 0), "a": (1, 10), "b": (2, 10), "c": (0, -5)}.items():
        graph.add_node(name, pos=place)
    for other in "abc":
        networkx.add_cycle(graph, ["here", other])
    streets = from_networkx(graph)
    directions = networkx.get_edge_attributes(streets.to_networkx(), "direction")
    assert [directions["here", other] for other in "abc"] == ["N", "NE", "S"]
    assert streets.spread == 1


@pytest.mark.parametrize(("width", "height"), [*itertools.product((2, 3, 4, 9, 12), (2, 3, 5, 9, 11))])
@pytest.mark.parametrize("one_way", [True, False])
def test_every_corner_of_a_grid_can_be_reached(width: int, height: int, one_way: bool) -> None:
    city = grid(width, height, one_way)
    graph = city.to_networkx()
    assert networkx.is_strongly_connected(graph)
    assert city.spread == 0
    assert (city.turns >= 0).any(0).all()
    both_ways = sum(graph.has_edge(b, a) for a, b in graph.edges())
    assert (both_ways == city.n_edges) == (not one_way or width == height == 2)


def test_directions_of_a_grid_point_to_their_ends() -> None:
    city = grid(12, 10)
    steps = {"N": (0, 1), "NE": (1, 1), "E": (1, 0), "SE": (1, -1), "S": (0, -1), "SW": (-1, -1), "W": (-1, 0)}
    steps |= {"NW": (-1, 1)}
    for source, target, direction in city.to_networkx().edges(data="direction"):
        (a, b), (c, d) = ([int(part) for part in name.split(",")] for name in (source, target))
        assert (c - a, d - b) == steps[direction]


@pytest.mark.parametrize("size", [2, 63, 64, 65, 254, 255, 256, 257, 600])
def test_distances_fit_their_type_with_one_to_spare(size: int) -> None:
    graph = networkx.cycle_graph(size, create_using=networkx.DiGraph)
    for node in graph:
        angle = 2 * math.pi * node / size
        graph.nodes[node].update(x=size * math.cos(angle), y=size * math.sin(angle))
    distance = from_networkx(graph).distance
    ahead = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
    assert (distance == ahead).all()
    assert np.iinfo(distance.dtype).max > size - 1
    assert distance.dtype == (np.uint8 if size <= 255 else np.uint16)
    assert not distance.flags.writeable
    assert distance.T.flags.c_contiguous


def test_distances_of_the_default_city_equal_networkx() -> None:
    city = grid()
    expected = networkx.floyd_warshall_numpy(city.to_networkx().subgraph(city.nodes), nodelist=city.nodes)
    assert (city.distance == expected).all()


def test_merging_removes_only_nodes_without_a_choice() -> None:
    graph = networkx.DiGraph(itertools.permutations("abcd", 2))
    graph.remove_edge("a", "b")
    graph.remove_edges_from([("c", "d"), ("d", "c")])
    networkx.add_path(graph, ["a", "on", "b"])
    networkx.add_path(graph, ["c", "by", "d", "by", "c"])
    places = {"a": (0, 0), "b": (9, 0), "c": (0, 9), "d": (9, 9), "on": (5, 1), "by": (5, 8)}
    networkx.set_node_attributes(graph, places, "pos")
    merged = from_networkx(graph, merge=True)
    assert sorted(merged.nodes) == ["a", "b", "c", "d"]
    assert set(merged.to_networkx().edges()) == set(itertools.permutations("abcd", 2))
    assert graph.number_of_nodes() == 6


@settings(max_examples=75)
@given(graphs())
def test_merging_keeps_a_city_whole(graph: networkx.DiGraph) -> None:
    try:
        merged = from_networkx(graph, merge=True)
    except ValueError:
        return
    reduced = merged.to_networkx()
    assert networkx.is_strongly_connected(reduced)
    for source, target in reduced.edges():
        assert networkx.has_path(graph, source, target)
    for node in reduced:
        into, out = set(reduced.predecessors(node)), set(reduced.successors(node))
        assert len(reduced) == 2 or not (len(into) == len(out) == 1 and into != out)
        assert len(reduced) == 2 or not (len(into) == 2 and into == out)


def test_largest_keeps_the_largest_part() -> None:
    graph = grid(4, 4).to_networkx()
    graph.add_node("end", x=9.0, y=9.0)
    graph.add_edge("4,4", "end")
    with pytest.raises(
        ValueError, match=r"2 separate parts, 1 of them dead ends such as 'end'; .*16 of 17 .*largest=True"
    ):
        from_networkx(graph)
    whole = from_networkx(graph, "grid", largest=True)
    assert whole.sha256 == grid(4, 4).sha256


def test_two_parts_without_a_dead_end_are_refused() -> None:
    graph = networkx.disjoint_union(networkx.cycle_graph(3).to_directed(), networkx.cycle_graph(4).to_directed())
    networkx.set_node_attributes(graph, {node: (math.cos(node), math.sin(node)) for node in graph}, "pos")
    with pytest.raises(ValueError, match=r"'streets'.* 2 separate parts; the largest has 4 of 7"):
        from_networkx(graph)


@pytest.mark.parametrize("keys", [("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("pos",)])
def test_places_are_read_from_the_usual_attributes(keys: tuple[str, ...]) -> None:
    graph = networkx.DiGraph([(0, 1), (1, 0)])
    for node, place in ((0, (11.9, 57.7)), (1, (11.9, 57.71))):
        graph.nodes[node].update({"pos": place} if keys == ("pos",) else dict(zip(keys, place, strict=True)))
    streets = from_networkx(graph)
    metres = 0.01 if keys in (("x", "y"), ("pos",)) else 1112
    assert np.ptp(streets.y) == pytest.approx(metres, rel=1e-3)
    assert streets.turns[0, 0] == 1
    assert streets.turns[1, 4] == 0


def test_degrees_are_metres_after_projection_and_strings_are_read() -> None:
    graph = networkx.DiGraph([(0, 1), (1, 0)], crs="epsg:4326")
    graph.nodes[0].update(x="11.90", y="57.70")
    graph.nodes[1].update(x="11.91", y="57.70")
    streets = from_networkx(graph)
    assert np.ptp(streets.x) == pytest.approx(1112 * math.cos(math.radians(57.7)), rel=1e-3)
    assert streets.x.sum() == pytest.approx(0, abs=1e-6)
    graph.nodes[0].update(y="95")
    with pytest.raises(ValueError, match="swapped"):
        from_networkx(graph)


def test_graphs_without_streets_are_refused() -> None:
    pair = networkx.DiGraph([("a", "b"), ("b", "a")])
    with pytest.raises(ValueError, match=r"'a' has no position.*longitude/latitude, lon/lat, x/y, pos.*no attributes"):
        from_networkx(pair)
    networkx.set_node_attributes(pair, {"a": 1.0}, "x")
    with pytest.raises(ValueError, match="found x"):
        from_networkx(pair)
    networkx.set_node_attributes(pair, {"a": (0, 0), "b": "north"}, "pos")
    with pytest.raises(ValueError, match=r"node 'b' has pos that are not two numbers: 'north'"):
        from_networkx(pair)
    networkx.set_node_attributes(pair, {"a": (0, 0), "b": (math.nan, 1)}, "pos")
    with pytest.raises(ValueError, match="node 'b' must have finite"):
        from_networkx(pair)
    networkx.set_node_attributes(pair, {"a": (1, 1), "b": (1, 1)}, "pos")
    with pytest.raises(ValueError, match=r"from 'a' to 'b' has no direction.*same position"):
        from_networkx(pair)
    mixed = networkx.DiGraph(pair)
    mixed.nodes["a"].update(lon=1, lat=1)
    with pytest.raises(ValueError, match="use one of the two for all"):
        from_networkx(mixed)
    with pytest.raises(ValueError, match=r"'streets' is undirected.*to_directed"):
        from_networkx(pair.to_undirected())
    for few in (networkx.DiGraph(), networkx.DiGraph([("a", "a")])):
        with pytest.raises(ValueError, match="at least 2 intersections"):
            from_networkx(few, largest=True)
    clash = networkx.DiGraph([(1, "1"), ("1", 1)])
    networkx.set_node_attributes(clash, {1: (0, 0), "1": (1, 0)}, "pos")
    with pytest.raises(ValueError, match="'1' more than once"):
        from_networkx(clash)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            [(k, 100) for k in range(-3, 3)],
            "6 streets leave intersection 'hub'.*at most 90°.*'s0' at 358°.*remove",
        ),
        (
            [(math.cos(k), math.sin(k)) for k in range(9)],
            "9 streets leave intersection 'hub', and there are only 8 directions",
        ),
    ],
)
def test_streets_that_eight_directions_cannot_tell_apart_are_refused(places: list, said: str) -> None:
    graph = networkx.DiGraph()
    graph.add_node("hub", pos=(0, 0))
    for index, place in enumerate(places):
        graph.add_node(f"s{index}", pos=place)
        networkx.add_cycle(graph, ["hub", f"s{index}"])
    with pytest.raises(ValueError, match=said):
        from_networkx(graph)


def test_arrays_that_do_not_fit_are_refused() -> None:
    ring = np.array([[-1, 1] + 6 * [-1], 6 * [-1] + [0, -1]])
    place = np.array([0.0, 1.0])
    assert Streets("ring", ("a", "b"), place, place, ring).distance.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="turns must be -1 or an intersection from 0 to 1"):
        Streets("ring", ("a", "b"), place, place, ring + 1)
    with pytest.raises(ValueError, match="x and y must be finite"):
        Streets("ring", ("a", "b"), place * np.nan, place, ring)
    with pytest.raises(ValueError, match=r"x must have shape \(1,\)"):
        Streets("ring", ("a",), place, place, ring)


def test_the_hash_depends_on_content() -> None:
    assert grid(5, 5).sha256 == grid(5, 5).sha256
    assert len({grid(5, 5).sha256, grid(5, 6).sha256, grid(5, 5, one_way=False).sha256}) == 3
    assert from_networkx(grid(5, 5).to_networkx()).sha256 == grid(5, 5).sha256


def test_a_notebook_shows_names_as_text() -> None:
    city = from_networkx(grid(3, 3).to_networkx(), "<b>", attribution="<i>")
    shown = city._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "&lt;i&gt;" in shown
    assert "<i>" not in shown
    assert repr(grid(3, 3)) == f"<Streets grid: 9 intersections, {grid(3, 3).n_edges} directed edges>"
