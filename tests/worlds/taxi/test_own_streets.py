"""Streets of a user's own: compass directions on edges, without coordinates, as objects instead of files."""

from __future__ import annotations

import json

import networkx
import numpy as np
import pandas as pd
import pytest

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds import outside
from nextlat_viz.worlds.taxi import Streets, from_networkx, grid, streets
from nextlat_viz.worlds.taxi.map import draw_map


def directions_only(city: Streets) -> networkx.DiGraph:
    graph = networkx.DiGraph()
    graph.add_nodes_from(city.nodes)
    graph.add_edges_from(city.to_networkx().edges(data=True))
    return graph


def as_frame(graph: networkx.Graph) -> pd.DataFrame:
    return pd.DataFrame(list(graph.edges(data="direction")), columns=["source", "target", "direction"])


def test_a_given_direction_overrides_the_bearing() -> None:
    graph = networkx.DiGraph()
    graph.add_edge("a", "b", direction="W")
    graph.add_edge("b", "a", direction="N")
    networkx.set_node_attributes(graph, {"a": (0, 0), "b": (1, 0)}, "pos")
    city = from_networkx(graph)
    assert networkx.get_edge_attributes(city.to_networkx(), "direction") == {("a", "b"): "W", ("b", "a"): "N"}
    assert city.spread == 2


def test_directions_alone_lay_out_the_city() -> None:
    city = grid(6, 4)
    laid_out = from_networkx(directions_only(city), "grid")
    assert laid_out.sha256 == city.sha256


def test_directions_that_fit_no_map_are_laid_out_apart() -> None:
    graph = networkx.DiGraph()
    networkx.add_cycle(graph, "abcd", direction="N")
    city = from_networkx(graph)
    assert len(set(zip(city.x.tolist(), city.y.tolist(), strict=True))) == 4
    assert city.sha256 == from_networkx(graph).sha256


@pytest.mark.parametrize("loop", [False, True])
def test_a_graph_and_back_keeps_everything(loop: bool) -> None:
    turns = np.full((2, 8), -1)
    turns[0, [0, 3]], turns[1, 6] = 1, 0  # two streets from the first to the second
    turns[1, 2] = 1 if loop else -1
    city = Streets("town", ("a", "b"), np.array([5.0, 7.5]), np.array([0.0, 1.0]), turns, "us")
    back = from_networkx(city.to_networkx())
    assert back.record == city.record
    assert back.spread == city.spread
    assert Streets.from_record(json.loads(json.dumps(city.record))).record == city.record


@pytest.mark.parametrize("make", [grid, lambda *size: directions_only(grid(*size)), lambda *s: grid(*s).to_networkx()])
def test_objects_are_cities(make: object) -> None:
    city = make(5, 4)
    world = worlds.get("taxi", city=city, rides="shortest")
    expected = worlds.get("taxi", width=5, height=4, rides="shortest").sample(4, seed=1)
    assert world.sample(4, seed=1).tokens.tolist() == expected.tokens.tolist()
    assert draw_map(city).data


def test_tables_in_memory_are_cities() -> None:
    graph = grid(4, 3).to_networkx()
    edges = as_frame(graph)
    assert set(streets(edges).nodes) == set(graph)
    nodes = pd.DataFrame([{"node": node, **place} for node, place in graph.nodes(data=True)])
    assert streets((nodes, edges)).sha256 == grid(4, 3).sha256
    world = worlds.get("taxi", nodes=nodes, edges=edges[["source", "target"]], city_name="town")
    assert world.streets.sha256 == grid(4, 3).sha256
    assert world.streets.name == "town"


def test_a_card_holds_the_city_and_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = json.loads(json.dumps(worlds.get("taxi", city=grid(4, 3), city_name="town").spec))
    monkeypatch.setattr(outside, "_asked", set())
    world = worlds.from_spec(spec, trusted=False)
    assert world.spec == spec
    assert world.streets.name == "town"
    spec["city"]["nodes"] = list(map(str, range(10_001)))
    with pytest.raises(ValueError, match="a city of more than 10,000 intersections"):
        worlds.from_spec(spec, trusted=False)


def test_errors_name_what_is_missing() -> None:
    graph = directions_only(grid(3, 3))
    first = next(iter(graph.edges))
    graph.edges[first]["direction"] = None
    with pytest.raises(ValueError, match=r"has no direction, and other streets have; give every edge"):
        from_networkx(graph)
    graph.edges[first]["direction"] = "north"
    with pytest.raises(UnknownNameError, match=r"unknown direction of the street from .*'north'.*Known: .*N"):
        from_networkx(graph)
    twice = networkx.DiGraph()
    for end in "bc":
        twice.add_edge("a", end, direction="N")
        twice.add_edge(end, "a", direction="S")
    with pytest.raises(ValueError, match="that to 'b' have the same direction 'N'"):
        from_networkx(twice)
    with pytest.raises(ValueError, match="the table of edges must have the column direction"):
        streets(as_frame(graph)[["source", "target"]])
    with pytest.raises(ValueError, match="the table of edges must have the columns source and target; source is not"):
        streets(pd.DataFrame({"from": ["a"], "direction": ["N"]}))
    with pytest.raises(ValueError, match="a record of streets has the entries name, nodes"):
        getattr(streets, "__wrapped__", streets)({"name": "town"})
    with pytest.raises(ValueError, match=r"city must be a name, a path, Streets, a networkx graph.*got 3"):
        getattr(streets, "__wrapped__", streets)(3)
