"""Where streets come from: a made-up grid, files, and cities by name."""

from __future__ import annotations

from typing import Any

from nextlat_viz.errors import unknown
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.taxi.streets import Streets, from_networkx

_SMALLEST_WITH_A_PARK = 9


def streets(city: str = "grid", **options: Any) -> Streets:
    """Streets of a city.

    Examples
    --------
    >>> streets("grid", width=4, height=3)
    <Streets grid: 12 intersections, 33 directed edges>
    """
    if city != "grid":
        raise unknown("city", city, ["grid"])
    return grid(**options)


def grid(width: int = 20, height: int = 20, one_way: bool = True) -> Streets:
    """A made-up city: avenues and streets, two diagonals through them, and from 9 x 9 on a park in the middle.

    Avenues and streets are one way, by turns up and down, east and west; those around the city and around the park
    are open both ways, so every intersection can be reached. So are the diagonals, "Broadway" from north-west to
    south-east and a shorter one across it. ``"3,7"`` is the third avenue from the west at the seventh street from the
    south; a block is one unit long.

    Parameters
    ----------
    width, height : int
        Number of avenues and of streets, at least 2 each.
    one_way : bool
        False opens every street both ways.

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
        if checks.positive(argument, value) < 2:
            raise ValueError(f"{argument} must be at least 2, a city having two sides, got {value}")
    if not isinstance(one_way, bool):
        raise ValueError(f"one_way must be True or False, got {one_way!r}")
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
    """Avenues or streets that reach the park, its two sides included; empty where there is no room."""
    return range(size // 2 + 1, size - 1 - size // 10) if size >= _SMALLEST_WITH_A_PARK else range(0)
