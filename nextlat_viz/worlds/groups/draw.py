"""Pictures of a group: its Cayley graph, and the place of each thing over time."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import counted, escape, shorten
from nextlat_viz.plotting import CURSOR, INK
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture, state_colour
from nextlat_viz.worlds.groups.world import GroupWorld

_WINDOW = 24
_RECENT = 4


@picture(GroupWorld, "cayley")
def draw_cayley(
    world: GroupWorld, episode: Episodes | None, position: int | None, *, width: int = 620, height: int = 620
) -> go.Figure:
    """Draw the elements and the steps of the generators; with an episode, the path of its products.

    Examples
    --------
    >>> from nextlat_viz.worlds.groups import a5
    >>> a5().draw("cayley").layout.title.text
    'a5: 60 elements and the steps between them'
    """
    figure = _cayley(world, width, height)
    if episode is not None and position is not None:
        _mark_path(figure, world, episode, position)
    return figure


def element_places(world: GroupWorld) -> Float[np.ndarray, "elements 2"]:
    """Positions of the elements in the Cayley graph, within the unit disc.

    The cosets of a generator that commutes with all elements become small rings, placed by the other generators. Two
    other generators are laid out as the polyhedron of their graph, flattened: the truncated icosahedron for A5, the
    truncated tetrahedron for A4. More than two are laid out as the permutohedron, seen along its axis.
    """
    table = world.table
    central = [g for g in world.generators if (table[g] == table[:, g]).all()]
    turns = [world.identity]
    while central and (after := int(table[turns[-1], central[0]])) != world.identity:
        turns.append(after)
    rings = table[:, turns]
    ring = rings.min(1)
    roots = np.unique(ring)
    steps = [g for g in world.generators if g not in central]
    if len(roots) == 1:
        middle, radius = np.zeros((1, 2)), 1.0
    elif len(steps) == 2:
        middle, radius = _flattened(np.stack([np.searchsorted(roots, ring[table[roots, g]]) for g in steps])), 0.11
    else:
        angle = 2 * np.pi * np.arange(world.elements.shape[1]) / world.elements.shape[1]
        middle, radius = world.elements[roots] @ np.stack([np.sin(angle), np.cos(angle)], axis=1), 0.11
    if len(turns) > 1:
        middle = middle * (1 - radius)
    result = np.empty((len(table), 2))
    for k, g in enumerate(turns):
        angle = 2 * np.pi * k / len(turns)
        result[table[roots, g]] = middle + (len(turns) > 1) * radius * np.array([np.sin(angle), np.cos(angle)])
    return result / np.linalg.norm(result, axis=1).max()


def _flattened(neighbours: Int[np.ndarray, "generators elements"]) -> Float[np.ndarray, "elements 2"]:
    """Flatten the polyhedron of a graph, opened at a face of the first generator.

    The positions in space are the three smoothest eigenvectors of the graph's Laplacian.
    """
    size = neighbours.shape[1]
    laplacian = np.zeros((size, size))
    for after in neighbours:
        for source, target in ((np.arange(size), after), (after, np.arange(size))):
            np.add.at(laplacian, (source, source), 1.0)
            np.add.at(laplacian, (source, target), -1.0)
    solid = np.linalg.eigh(laplacian)[1][:, 1:4]
    solid /= np.linalg.norm(solid, axis=1, keepdims=True)
    face = [0]
    while (after := int(neighbours[0, face[-1]])) != 0:
        face.append(after)
    back = solid[face].mean(0)
    back /= np.linalg.norm(back)
    across = solid[0] - (solid[0] @ back) * back
    across /= np.linalg.norm(across)
    up = np.stack([np.cross(back, across), across])
    flat = solid @ up.T
    # A factor a little under the 0.5 of the stereographic projection keeps straight edges from crossing and leaves
    # space in the middle.
    radius = np.tan(0.4 * np.arccos(np.clip(-solid @ back, -1, 1)))
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12) * radius[:, None]


def _cayley(world: GroupWorld, width: int, height: int) -> go.Figure:
    where = element_places(world)
    figure = drawing.canvas(width, height, [-1.08, 1.08], [where[:, 1].min() - 0.08, where[:, 1].max() + 0.08])
    for k, generator in enumerate(world.generators):
        name = escape(shorten(f"then {world.vocabulary[generator]}"))
        places, line = drawing.segments(where, where[world.table[:, generator]]), {"width": 2, "color": state_colour(k)}
        drawing.add_lines(figure, places, line, opacity=0.75, name=name, showlegend=True)
    orders = zip(world.vocabulary, world.order, strict=True)
    hover = [f"{escape(shorten(name))}<br>order {order}" for name, order in orders]
    drawing.add_dots(figure, where, hover, size=9, color=INK, line={"width": 0})
    note = "A dot is an element; a line multiplies it from the right by the generator named above."
    drawing.add_caption(figure, f"{world.name}: {len(where)} elements and the steps between them", note)
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1, "yanchor": "bottom"}
    figure.update_layout(showlegend=True, legend=legend)
    _label(figure, world, world.identity, INK)
    return figure


def _mark_path(figure: go.Figure, world: GroupWorld, episode: Episodes, position: int) -> None:
    """Add the path of the products so far, its last steps in a stronger colour."""
    labels = np.array([world.identity])
    if position:
        labels = np.append(labels, world.replay(episode.tokens[:, :position])["state"][0])
    path = element_places(world)[labels]
    line = {"width": 2.5, "color": CURSOR}
    recent = max(0, len(path) - 1 - _RECENT)
    for part, opacity in ((path[: recent + 1], 0.18), (path[recent:], 0.8)):
        drawing.add_lines(figure, part, line, opacity=opacity)
    drawing.add_ring(figure, path[-1], 18)
    product = world.vocabulary[labels[-1]]
    if labels[-1] != world.identity:
        _label(figure, world, int(labels[-1]), CURSOR)
    figure.layout.title.text = escape(f"{world.name}: product {product} after {counted(position, 'element')}")


def _label(figure: go.Figure, world: GroupWorld, element: int, colour: str) -> None:
    """Write the name of an element on the side that has room and is furthest from the lines of its steps."""
    where = element_places(world)
    place, steps = where[element], list(world.generators)
    ends = np.concatenate([where[world.table[element, steps]], where[(world.table[:, steps] == element).any(axis=1)]])
    ways = ends - place
    ways = ways / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-12)
    low, high = where[:, 1].min() + 0.3, where[:, 1].max() - 0.3
    sides = [
        (way, options)
        for way, options, free in (
            ((1, 0), {"xanchor": "left", "xshift": 13}, place[0] < 0.6),
            ((-1, 0), {"xanchor": "right", "xshift": -13}, place[0] > -0.6),
            ((0, -1), {"yanchor": "top", "yshift": -13}, place[1] > low),
            ((0, 1), {"yanchor": "bottom", "yshift": 13}, place[1] < high),
        )
        if free
    ]
    _, side = min(sides, key=lambda side: (ways @ np.array(side[0])).max(initial=-1.0).round(6))
    name = escape(shorten(world.vocabulary[element]))
    # Opaque: a line can lie under it.
    drawing.add_text(figure, place, f"<b>{name}</b>", 12, "white", bgcolor=colour, borderpad=1, **side)


@picture(GroupWorld, "strip")
def draw_strip(
    world: GroupWorld, episode: Episodes | None, position: int | None, *, width: int = 760, height: int | None = None
) -> go.Figure:
    """Draw the place of each thing after each token, for a sampled episode if none is given."""
    if episode is None or position is None:
        episode, position = world.sample(1, 12, states=False), 12
    last = min(int(episode.length[0]), max(position, _WINDOW))
    first = max(0, last - _WINDOW)
    labels = np.append(world.identity, world.replay(episode.tokens[:, :last])["state"][0])[first:]
    tracks: list[tuple[str, Float[np.ndarray, " positions"]]] = []
    ticks: list[tuple[float, str]] = []
    floor = 0.0
    for name, values in (world.readings or {"state": np.arange(len(world.table))}).items():
        top = int(values.max())
        # A dial with many places takes as much space as one with five.
        scale = min(1.0, 4 / max(top, 1))
        places = range(0, top + 1, max(1, round(1 / scale)))
        ticks += [(floor - k * scale, str(k + (name != "state"))) for k in places]
        path = floor - scale * values[labels].reshape(len(labels), -1)
        tracks += [(name if path.shape[1] == 1 else str(k + 1), line) for k, line in enumerate(path.T)]
        floor -= scale * top + 1.6
    floor += 1.1
    height = round(150 - 42 * floor) if height is None else height
    figure = drawing.canvas(width, height, [first - 0.9, last + 0.6], [floor - 2.1, 0.6], equal=False, fixed=True)
    for y, text in ticks:
        drawing.add_text(figure, (first - 0.55, y), text, 12)
    for k, (name, line) in enumerate(tracks):
        _track(figure, name, line, first, position, state_colour(k))
    angle = -60 if max(map(len, world.vocabulary)) > 3 else 0
    for t in range(first + 1, last + 1):
        text, colour = escape(shorten(world.vocabulary[episode.tokens[0, t - 1]])), CURSOR if t == position else INK
        drawing.add_text(figure, (t, floor - 0.1), text, 11, colour, yanchor="top", textangle=angle)
    frame = {"x0": position - 0.36, "x1": position + 0.36, "y0": floor + 0.1, "y1": 0.5}
    figure.add_shape(type="rect", line={"width": 2, "color": CURSOR}, **frame)
    title = (
        f"{world.name}: after {counted(position, 'token')} the product is {world.vocabulary[labels[position - first]]}"
    )
    drawing.add_caption(figure, title, "A line is a thing, its height the thing's place. Below: the elements read.")
    return figure


def _track(
    figure: go.Figure, name: str, line: Float[np.ndarray, " positions"], first: int, position: int, colour: str
) -> None:
    """Add the places of one thing, opaque up to the position and faint after it."""
    t = first + np.arange(len(line))
    now = position - first
    for part, opacity in ((slice(0, now + 1), 1.0), (slice(now, None), 0.25)):
        ends = (t[part, None] + np.array([-0.3, 0.3])).ravel()
        places = np.stack([ends, np.repeat(line[part], 2)], axis=1)
        drawing.add_lines(figure, places, {"width": 4, "color": colour}, opacity=opacity)
        visible = part if opacity == 1.0 else slice(now + 1, None)
        hover = [f"{escape(shorten(name))} after {counted(int(k), 'token')}" for k in t[visible]]
        text, size = ([name] * len(hover), 19) if len(name) == 1 else ([], 9)
        drawing.add_dots(figure, np.stack([t, line], axis=1)[visible], hover, text, 12, size=size, color=colour)
        figure.data[-1].opacity = opacity
