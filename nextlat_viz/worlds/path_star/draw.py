"""The picture of a Path-Star graph: its arms around the start, and the way an answer takes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.path_star import PathStar

_QUIET = {"hoverinfo": "skip", "showlegend": False}
_LARGEST_NODE = 32.0
_SMALLEST_LABELLED = 17.0


def draw(
    world: PathStar, kind: str, episode: Episodes | None = None, position: int | None = None, **options: Any
) -> go.Figure:
    """Draw one kind of picture; ``PathStar.draw`` is the way in."""
    checks.picture(world, kind, options)
    return _graph(world, episode, position, **options)


def _graph(
    world: PathStar, episode: Episodes | None, position: int | None, width: int = 560, height: int | None = None
) -> go.Figure:
    """The star, arms in order of first appearance clockwise from the top (two arms: left, then right)."""
    at = 0 if episode is None else checks.one_episode(episode, position)
    if episode is None:
        episode = world.sample(1, seed=0, split="test", states=False)
    tokens = episode.tokens[0]
    arms = world.arms_of(tokens[None])[0]
    height = (220 if world.arms == 2 else 500) if height is None else height
    figure = Figure(layout=drawing.layout(width, height))
    places, step = _places(arms, width - 110, height - 160)
    size = float(np.clip(0.7 * step, 7, _LARGEST_NODE))
    read = tokens[: 3 * ((at + 1) // 3)] if at else tokens
    edges = list(zip(read[0 : world.prompt - 3 : 3].tolist(), read[1 : world.prompt - 3 : 3].tolist(), strict=True))
    for arm, nodes in enumerate(arms.tolist()):
        for tail, head in pairwise(nodes):
            _edge(figure, places[tail], places[head], arm, (tail, head) in edges)
    answer = [int(token) for token in tokens[world.prompt : at] if int(token) in places]
    way = np.array([places[node] for node in answer]).reshape(-1, 2)
    figure.add_scatter(x=way[:, 0], y=way[:, 1], mode="lines", line={"width": 7, "color": drawing.MARK}, **_QUIET)
    _nodes(figure, arms, places, size, set(answer))
    current = int(tokens[at - 1]) if at else -1
    if current in places:
        ring = {"size": size + 9, "symbol": "circle-open", "color": drawing.MARK, "line": {"width": 4}}
        figure.add_scatter(x=places[current][:1], y=places[current][1:], mode="markers", marker=ring, **_QUIET)
    goal = places[int(tokens[world.prompt - 2])]
    away = goal / np.linalg.norm(goal) * (size / 2 + 20)
    figure.add_annotation(x=goal[0], y=goal[1], text="<b>goal</b>", showarrow=False, xshift=away[0], yshift=away[1])
    title = f"{world.name}: G({world.arms}, {world.nodes_per_arm}), the start in the middle"
    drawing.caption(figure, title, _below(world, tokens, at))
    return figure


def _places(
    arms: Int[np.ndarray, "arms nodes"], across: int, up: int
) -> tuple[dict[int, Float[np.ndarray, " 2"]], float]:
    """Where each node lies, in pixels from the start, and how far apart the nearest ones are."""
    count, nodes = arms.shape
    angles = np.pi * (1 + np.arange(2)) if count == 2 else np.pi / 2 - 2 * np.pi * np.arange(count) / count
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = np.min(np.array([across, up]) / 2 / np.maximum(np.abs(ways).max(0), 1e-9))
    # Where arms are many, they begin further out, so that neighbours stand as far apart as nodes of one arm.
    first = max(1.0, 0.5 / np.sin(np.pi / count))
    step = float(reach) / (nodes - 2 + first)
    radii = step * np.concatenate([[0.0], first + np.arange(nodes - 1)])
    return {int(node): ways[arm] * radii[k] for arm, row in enumerate(arms) for k, node in enumerate(row)}, step


def _edge(
    figure: go.Figure, tail: Float[np.ndarray, " 2"], head: Float[np.ndarray, " 2"], arm: int, read: bool
) -> None:
    line = (
        {"width": 3, "color": drawing.state_colour(arm)} if read else {"width": 1, "color": drawing.INK, "dash": "dot"}
    )
    figure.add_scatter(x=[tail[0], head[0]], y=[tail[1], head[1]], mode="lines", line=line, **_QUIET)


def _nodes(
    figure: go.Figure,
    arms: Int[np.ndarray, "arms nodes"],
    places: dict[int, Float[np.ndarray, " 2"]],
    size: float,
    answer: set[int],
) -> None:
    spots = [(int(arms[0, 0]), "start", "#BBBBBB")]
    for arm, nodes in enumerate(arms[:, 1:].tolist()):
        spots += [
            (node, f"arm {arm}, depth {depth + 1}", drawing.state_colour(arm)) for depth, node in enumerate(nodes)
        ]
    figure.add_scatter(
        x=[places[node][0] for node, _, _ in spots],
        y=[places[node][1] for node, _, _ in spots],
        mode="markers+text" if size >= _SMALLEST_LABELLED else "markers",
        text=[f"<b>{node}</b>" for node, _, _ in spots],
        textfont={"color": "#111111", "size": max(9, min(14, int(0.5 * size)))},
        marker={
            "size": size,
            "opacity": 1,
            "color": [c for _, _, c in spots],
            "line": {
                "width": [3 if node in answer else 1 for node, _, _ in spots],
                "color": [drawing.MARK if node in answer else drawing.INK for node, _, _ in spots],
            },
        },
        hovertext=[f"node {node}<br>{where}" for node, where, _ in spots],
        hoverinfo="text",
        showlegend=False,
    )


def _below(world: PathStar, tokens: Int[np.ndarray, " positions"], at: int) -> str:
    if not at:
        return "An example; arms in order of their first edges in the prompt."
    if at < world.prompt:
        return f"After {at} tokens, all of them prompt: edges not read yet are dotted."
    so_far = world.decode(tokens[world.prompt : at]) or "nothing yet"
    return f"After {at} tokens; the answer so far: {so_far}"
