"""Street maps: the city, rides through it, and the use of each street."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.display import escape, shorten
from nextlat_viz.plotting import CURSOR, INK, ROOM, SEQUENTIAL, Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.drawing import QUIET, picture
from nextlat_viz.worlds.taxi.sources import City
from nextlat_viz.worlds.taxi.sources import streets as find_streets
from nextlat_viz.worlds.taxi.streets import Streets

_LEGIBLE_ARROWS = 1500  # one-way streets
_AFFORDABLE_NAMES = 1500  # intersections: each is an element of the page
_LONGEST_NAME = 12  # letters that fit beside a mark in a narrow panel
_BANDS = 6
_MARKS: tuple[dict[str, Any], ...] = ({"size": 13, "symbol": "circle-open"}, {"size": 15, "symbol": "square-open"})
# Where the name of a place may stand: right or left of its mark, above or below it. The first of equals is taken.
_SIDES = ((0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0))
_PIECES = 8  # points along a street
_FADED = 0.45


@picture(Streets, "map")
def draw_map(
    streets: City,
    rides: ArrayLike | Sequence[ArrayLike] | None = None,
    at: int | None = None,
    use: ArrayLike | None = None,
    *,
    goal: int | None = None,
    title: str | None = None,
    width: int = 720,
    height: int | None = None,
) -> Figure:
    """Draw a street map; small cities show one-way arrows, and names on hover.

    Parameters
    ----------
    streets : Streets, or a city as for ``taxi.streets``
    rides : int array (moves + 1,), or a sequence of them, optional
        Indices of the intersections of a ride, from its origin on. Moves without a street are dashed.
    at : int, optional
        Number of moves made of a single ride, all by default; further moves are dotted.
    use : array (edges,), optional
        Use of each of ``streets.edges``. Both directions of a street are added.
    goal : int, optional
        Index of the destination of the ride; its last intersection by default.
    title : str, optional
        Name and size of the city by default.
    width, height : int
        In pixels. The height depends on the shape of the city by default.

    Raises
    ------
    ValueError
        If a ride has an intersection that does not exist, ``at`` is outside the ride, or ``use`` has another shape
        than the streets.

    Examples
    --------
    >>> from nextlat_viz.worlds.taxi import grid
    >>> draw_map(grid(5, 4), rides=[0, 4, 8], at=1).layout.width
    720
    """
    streets = find_streets(streets)
    paths = _paths(streets, rides)
    for argument, value in (("at", at), ("goal", goal)):
        if value is not None and len(paths) != 1:
            raise ValueError(f"{argument} belongs to one ride, got {len(paths)}")
    if goal is not None and not 0 <= goal < len(streets.nodes):
        raise ValueError(f"goal must be an intersection from 0 to {len(streets.nodes) - 1}, got {goal!r}")
    across, up = np.ptp(streets.x), np.ptp(streets.y)
    if height is None:
        height = int(np.clip((width - 2 * ROOM) * up / max(across, 1e-9) + 100, 320, 1.2 * width))
    # A mark at the end of a street fits in a narrow panel too.
    margin = 0.055 * max(across, up)
    ends_x, ends_y = ([at.min() - margin, at.max() + margin] for at in (streets.x, streets.y))
    figure = drawing.canvas(width, height, ends_x, ends_y)
    notes, ends = [], ""
    if use is not None:
        counts = np.asarray(use)
        if counts.shape != (streets.n_edges,) or counts.dtype.kind not in "iuf" or not (counts >= 0).all():
            raise ValueError(
                f"use must be {streets.n_edges} numbers of at least 0, one for each of streets.edges, got "
                f"{counts.dtype} of shape {counts.shape}"
            )
        _draw_use(figure, streets, counts, faded=bool(paths))
        notes.append("Both directions of a street are added.")
    else:
        notes += _draw_streets(figure, streets, faded=bool(paths))
    if len(streets.nodes) <= _AFFORDABLE_NAMES:
        hover = [escape(shorten(name, drawing.HOVER)) for name in streets.nodes]
        drawing.add_dots(figure, streets.places, hover, size=8, color=INK, opacity=0)
    if len(paths) == 1:
        ends = _draw_ride(figure, streets, paths[0], at, goal)
    else:
        for path in paths:
            _draw_path(figure, streets, path, {"width": 2.5}, arrows=False)
    if streets.attribution:
        notes.append(f"{streets.attribution}.")
    default = f"{streets.name}: {len(streets.nodes):,} intersections, {streets.n_edges:,} directed edges"
    drawing.add_caption(figure, default if title is None else title, f"{ends}\n{' '.join(notes)}".strip())
    return figure


def _paths(streets: Streets, rides: ArrayLike | Sequence[ArrayLike] | None) -> list[Int[np.ndarray, " _"]]:
    listed = [] if rides is None else list(rides)  # type: ignore[arg-type]
    if not listed:
        return []
    paths = [np.asarray(ride) for ride in (listed if np.ndim(listed[0]) else [listed])]
    for path in paths:
        if path.ndim != 1 or not path.size or path.dtype.kind not in "iu":
            raise ValueError(
                "a ride must be a row of indices of intersections, at least its origin; got "
                f"{path.dtype} of shape {path.shape}"
            )
        outside = (path < 0) | (path >= len(streets.nodes))
        if outside.any():
            raise ValueError(
                f"a ride passes intersections 0 to {len(streets.nodes) - 1}, got {path[np.argmax(outside)]}"
            )
    return paths


def _segments(streets: Streets, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, "points 2"]:
    """Places of one trace with a straight line for each pair of intersections."""
    return drawing.segments(*streets.places[pairs.T])


def _by_pair(
    streets: Streets,
) -> tuple[Int[np.ndarray, "pairs 2"], Bool[np.ndarray, " pairs"], Int[np.ndarray, " edges"]]:
    """Streets without direction: pairs of ends, whether each is one-way, and the pair of each edge."""
    first, second = np.sort(streets.edges, axis=1).T
    keys, example, belongs = np.unique(first * len(streets.nodes) + second, return_index=True, return_inverse=True)
    return streets.edges[example], np.bincount(belongs, minlength=len(keys)) == 1, belongs


def _draw_streets(figure: go.Figure, streets: Streets, faded: bool) -> list[str]:
    pairs, one_way, _ = _by_pair(streets)
    small = len(streets.nodes) <= _AFFORDABLE_NAMES
    opacity = _FADED if faded else 1.0
    for mask, wide in ((one_way, 1.0), (~one_way, 2.2)):
        line = {"width": wide if small else 0.8, "color": INK}
        drawing.add_lines(figure, _segments(streets, pairs[mask]), line, opacity=opacity)
    if not one_way.any() or one_way.sum() > _LEGIBLE_ARROWS:
        return []
    _draw_arrows(figure, streets, pairs[one_way], {"size": 6, "color": INK, "opacity": opacity})
    return ["Arrows mark one-way streets."]


def _draw_arrows(figure: go.Figure, streets: Streets, pairs: Int[np.ndarray, "pairs 2"], style: dict[str, Any]) -> None:
    """Add an arrowhead in the middle of every street, from its first end to its second."""
    starts, ends = streets.places[pairs.T]
    add_heads(figure, starts + (ends - starts) / 2, ends - starts, style | {"line": {"width": 0}})


def add_heads(
    figure: go.Figure,
    places: Float[np.ndarray, "heads 2"],
    ways: Float[np.ndarray, "heads 2"],
    marker: dict[str, Any],
    **options: Any,
) -> None:
    """Add arrowheads at places that point along `ways`; options are those of a plotly trace."""
    head = {"symbol": "triangle-up", "angle": np.rad2deg(np.arctan2(*ways.T))}
    figure.add_scatter(x=places[:, 0], y=places[:, 1], mode="markers", marker=marker | head, **QUIET | options)


def _draw_use(figure: go.Figure, streets: Streets, counts: np.ndarray, faded: bool) -> None:
    """Add one trace for each band of use, the least used first, so that it is drawn below the others."""
    pairs, _, belongs = _by_pair(streets)
    total = np.bincount(belongs, weights=counts, minlength=len(pairs))
    bands = _bands(total)
    for band, (low, high) in enumerate(bands):
        in_band = (total >= low) & (total <= high)
        place = band / max(len(bands) - 1, 1)
        colour = SEQUENTIAL[round(place * (len(SEQUENTIAL) - 1))] if high else INK
        line, name = {"width": 0.7 + 3.3 * place, "color": colour}, _amount(low)
        style: dict[str, Any] = {"opacity": _FADED if faded or not high else 1.0, "showlegend": True}
        style["name"] = name if low == high else f"{name} to {_amount(high)}"
        drawing.add_lines(figure, _segments(streets, pairs[in_band]), line, **style)
    figure.update_layout(showlegend=True, legend_title_text="times taken")


def _bands(total: Float[np.ndarray, " pairs"]) -> list[tuple[float, float]]:
    """Least and most use of every band. Bands are equally wide in the logarithm; unused streets are a separate band."""
    used = total[total > 0]
    bands = [(0.0, 0.0)] if len(used) < len(total) else []
    if len(used):
        cuts = np.geomspace(used.min(), used.max(), _BANDS + 1)[1:-1]
        place = np.searchsorted(cuts, used, side="right")
        bands += [(float(used[place == k].min()), float(used[place == k].max())) for k in np.unique(place)]
    return bands


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.3g}"


def _draw_ride(
    figure: go.Figure, streets: Streets, path: Int[np.ndarray, " passed"], at: int | None, goal: int | None
) -> str:
    """Draw a ride and its ends; if their names are long, return a line for the caption that names them."""
    last = len(path) - 1
    at = last if at is None else checks.integer("at", at, 0, last)
    _draw_path(figure, streets, path[at:], {"width": 2.5, "dash": "dot"}, arrows=False)
    _draw_path(figure, streets, path[: at + 1], {"width": 4}, arrows=True)
    end = int(path[-1]) if goal is None else goal
    names = [shorten(streets.nodes[node], drawing.HOVER) for node in (path[0], end)]
    short = max(map(len, names)) <= _LONGEST_NAME
    ends = [(int(path[0]), "from"), (end, "to")]
    for (node, label), marker in zip(ends, _MARKS, strict=True):
        _draw_place(figure, streets, node, label, marker)
    _name_places(
        figure, streets, path, [(node, f"{label} {streets.nodes[node]}" if short else label) for node, label in ends]
    )
    hover = [escape(shorten(f"at {streets.nodes[path[at]]}", drawing.HOVER))]
    drawing.add_dots(figure, streets.places[path[at]], hover, size=11, color=CURSOR, line={"width": 0})
    return "" if short else f"From {names[0]} to {names[1]}."


def _draw_path(
    figure: go.Figure, streets: Streets, path: Int[np.ndarray, " passed"], line: dict[str, Any], arrows: bool
) -> None:
    moves = np.stack([path[:-1], path[1:]], axis=1)
    is_street = (streets.turns[moves[:, 0]] == moves[:, 1:]).any(1)
    lost: dict[str, Any] = {"dash": "dash"}
    for mask, dash in ((is_street, {}), (~is_street, lost)):
        if mask.any():
            style = {"color": CURSOR} | line | dash
            drawing.add_lines(figure, _segments(streets, moves[mask]), style, opacity=0.9)
    if arrows and len(streets.nodes) <= _AFFORDABLE_NAMES:
        _draw_arrows(figure, streets, moves, {"size": 11, "color": CURSOR})


def _draw_place(figure: go.Figure, streets: Streets, node: int, label: str, marker: dict[str, Any]) -> None:
    name = escape(shorten(f"{label} {streets.nodes[node]}", drawing.HOVER))
    drawing.add_dots(figure, streets.places[node], [name], color=CURSOR, line={"width": 3, "color": CURSOR}, **marker)
    # In a small map, a mark at the edge reaches into the margin.
    figure.data[-1].cliponaxis = False


def _name_places(
    figure: go.Figure, streets: Streets, path: Int[np.ndarray, " passed"], names: Sequence[tuple[int, str]]
) -> None:
    """Write the names of places beside their marks, where they cover least of the ride and of each other.

    They are opaque: a ride can surround the place where it begins.
    """
    margin, ends = figure.layout.margin, [figure.layout.xaxis.range, figure.layout.yaxis.range]
    spans = [high - low for low, high in ends]
    free = figure.layout.width - margin.l - margin.r, figure.layout.height - margin.t - margin.b
    # A picture can be smaller than its margins.
    scale = min(max(room, 1) / span for room, span in zip(free, spans, strict=True))
    along = np.linspace(0, 1, _PIECES, endpoint=False)[:, None]
    places = streets.places
    ride = (places[path[:-1], None] + along * np.diff(places[path], axis=0)[:, None]).reshape(-1, 2)
    # Each mark counts as much as a street.
    taken = np.concatenate([ride, np.repeat(places[[node for node, _ in names]], _PIECES, axis=0)])
    for node, name in names:
        half = np.array([3.9 * len(name) + 2, 9.0])

        def cost(side: tuple[int, int], node: int = node, half: np.ndarray = half, taken: np.ndarray = taken) -> float:
            total = 0.0
            # On a page, and in a narrow panel, where only the letters keep their size.
            for pixels in (scale, drawing.SMALLER * scale):
                middle, reach = _beside(side, half) / pixels + places[node], half / pixels
                covered = np.abs(taken - middle) < reach
                # A few pixels into the margin.
                aside = 8 / pixels
                outside = [
                    middle - reach < [low - aside for low, _ in ends],
                    middle + reach > [high + aside for _, high in ends],
                ]
                total += covered.all(1).sum() + 100 * np.sum(outside)
            return float(total)

        side = min(_SIDES, key=cost)
        across, up = _beside(side, half)
        anchor = ("right", "center", "left")[side[0] + 1]
        shift = across - side[0] * half[0]
        drawing.add_text(
            figure, places[node], f"<b>{escape(name)}</b>", 12, "white", bgcolor=INK, borderpad=1, xanchor=anchor,
            xshift=shift, yanchor="middle", yshift=up,
        )  # fmt: skip
        box = np.stack(np.meshgrid(*(np.linspace(-end, end, 5) for end in half)), axis=-1).reshape(-1, 2)
        taken = np.concatenate([taken, (_beside(side, half) + box) / (drawing.SMALLER * scale) + places[node]])


def _beside(side: tuple[int, int], half: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
    """Return the offset in pixels from a mark to the middle of its name, which is beside, above or below it."""
    across, up = side
    # Above and below, a name that is aligned inwards begins over its mark.
    return np.array([across * (half[0] + (13 if not up else -6)), up * (half[1] + 9)])
