"""Picture of a Path-Star graph: the arms around the start, and the path of an answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import counted
from nextlat_viz.plotting import CURSOR, INK
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture, state_colour
from nextlat_viz.worlds.path_star.world import PathStar

# Diameter of a node as a share of the distance between two, and at most in pixels.
_NODE, _LARGEST_NODE = 0.7, 32.0
_SMALLEST_LABELLED = 26.0


@picture(PathStar, "graph")
def draw_star(
    world: PathStar, episode: Episodes | None, position: int | None, *, width: int = 560, height: int | None = None
) -> go.Figure:
    """Draw the arms in order of first appearance, clockwise from the top; two arms to the left and right."""
    if episode is None:
        episode = world.sample(1, seed=0, split="test", states=False)
    tokens = episode.tokens[0]
    arms = world.arms_of(tokens[None])[0]
    height = (220 if world.arms == 2 else 500) if height is None else height
    figure = drawing.canvas(width, height)
    places, step = _places(arms, width - 110, height - 160)
    size = min(_NODE * step, _LARGEST_NODE)
    at = position or 0
    read = tokens if position is None else tokens[: 3 * ((at + 1) // 3)]
    edges = list(zip(read[0 : world.prompt - 3 : 3].tolist(), read[1 : world.prompt - 3 : 3].tolist(), strict=True))
    for arm, nodes in enumerate(arms.tolist()):
        for tail, head in pairwise(nodes):
            read_line, ahead = {"width": 3, "color": state_colour(arm)}, {"width": 1, "color": INK, "dash": "dot"}
            line = read_line if (tail, head) in edges else ahead
            drawing.add_lines(figure, [places[tail], places[head]], line)
    answer = [int(token) for token in tokens[world.prompt : at] if int(token) in places]
    path = np.array([places[node] for node in answer]).reshape(-1, 2)
    drawing.add_lines(figure, path, {"width": 7, "color": CURSOR})
    _nodes(figure, arms, places, size)
    _circles(figure, path, size, {"width": 3, "color": CURSOR})
    current = int(tokens[at - 1]) if at else -1
    if current in places:
        _circles(figure, places[current][None], 1.3 * size, {"width": 4, "color": CURSOR})
    goal = places[int(tokens[world.prompt - 2])]
    # Above or below the node, away from the start: beside it a narrow panel has no room for the name.
    side = 1 if goal[1] > 1e-9 else -1
    drawing.add_text(figure, (goal[0], goal[1] + side * 0.65 * size), "<b>goal</b>", yshift=side * 9)
    title = f"{world.name}: G({world.arms}, {world.nodes_per_arm}), the start in the middle"
    drawing.add_caption(figure, title, _below(world, tokens, position))
    return figure


def _places(
    arms: Int[np.ndarray, "arms nodes"], across: int, up: int
) -> tuple[dict[int, Float[np.ndarray, " 2"]], float]:
    """Positions of the nodes in pixels from the start, and the least distance between two."""
    count, nodes = arms.shape
    angles = np.pi * (1 + np.arange(2)) if count == 2 else np.pi / 2 - 2 * np.pi * np.arange(count) / count
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = np.min(np.array([across, up]) / 2 / np.maximum(np.abs(ways).max(0), 1e-9))
    # Many arms begin further out, so that neighbours are as far apart as the nodes of one arm.
    first = max(1.0, 0.5 / np.sin(np.pi / count))
    step = float(reach) / (nodes - 2 + first)
    radii = step * np.concatenate([[0.0], first + np.arange(nodes - 1)])
    return {int(node): ways[arm] * radii[k] for arm, row in enumerate(arms) for k, node in enumerate(row)}, step


def _nodes(
    figure: go.Figure, arms: Int[np.ndarray, "arms nodes"], places: dict[int, Float[np.ndarray, " 2"]], size: float
) -> None:
    spots = [(int(arms[0, 0]), "start", "#BBBBBB")]
    for arm, nodes in enumerate(arms[:, 1:].tolist()):
        spots += [(node, f"arm {arm}, depth {depth + 1}", state_colour(arm)) for depth, node in enumerate(nodes)]
    for colour in dict.fromkeys(colour for *_, colour in spots):
        centres = np.array([places[node] for node, _, node_colour in spots if node_colour == colour])
        _circles(figure, centres, size, {"width": 1, "color": INK}, fill="toself", fillcolor=colour)
    drawing.add_dots(
        figure,
        [places[node] for node, _, _ in spots],
        [f"node {node}<br>{where}" for node, where, _ in spots],
        [str(node) for node, _, _ in spots] if size >= _SMALLEST_LABELLED else (),
        13,
        size=9,
        opacity=0,
        color=[colour for _, _, colour in spots],
    )


def _circles(
    figure: go.Figure, centres: Float[np.ndarray, "nodes 2"], size: float, line: dict[str, Any], **options: Any
) -> None:
    """Add circles in the units of the picture: unlike markers they shrink with it, so they never overlap."""
    angle = np.linspace(0, 2 * np.pi, 37)
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1) * size / 2
    rims = np.concatenate([centres[:, None] + rim, np.full((len(centres), 1, 2), np.nan)], axis=1).reshape(-1, 2)
    drawing.add_lines(figure, rims, line, **options)


def _below(world: PathStar, tokens: Int[np.ndarray, " positions"], at: int | None) -> str:
    if at is None:
        return "First problem of the test set; arms in order of their first edge in the prompt."
    if at < world.prompt:
        return f"After {counted(at, 'token')} of the prompt; dotted edges have not been read yet."
    answer = world.decode(tokens[world.prompt : at]) or "none yet"
    return f"After {counted(at, 'token')}. Answer so far: {answer}"
