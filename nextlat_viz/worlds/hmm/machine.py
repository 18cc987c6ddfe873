"""Draw the state machine as a directed graph: states on a circle, one curved arrow per pair of states.

One unit is one pixel at the drawn size, so that labels can be placed without overlap before plotly draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.display import escape, shorten
from nextlat_viz.plotting import INK
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.drawing import state_colour
from nextlat_viz.worlds.hmm.plane import around, polygon

if TYPE_CHECKING:
    from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld

_NODE = 23.0
_HEAD = 11.0
_FONT = 11
_MOST_LABELS = 40


@dataclass(frozen=True, eq=False)
class Arrow:
    """The moves from one state to another."""

    source: int
    target: int
    label: tuple[str, ...]
    probability: float
    curve: Float[np.ndarray, "points 2"]
    outward: Float[np.ndarray, " 2"]


def machine(world: HiddenMarkovWorld, width: int, height: int) -> go.Figure:
    """Draw states and the moves between them, labelled with tokens and their probabilities."""
    figure = drawing.canvas(width, height)
    margin = figure.layout.margin
    across, up = float(width - margin.l - margin.r), float(height - margin.t - margin.b)
    places = spread(world, across, up)
    arrows = arrows_between(world, places)
    for arrow in arrows:
        _draw_arrow(figure, world, arrow)
    if len(arrows) <= _MOST_LABELS:
        _draw_labels(figure, arrows, places, np.array([across, up]) / 2)
    inside = all(len(name) <= 4 for name in world.state_names)
    shares = zip(world.state_names, world.stationary, strict=True)
    hover = [f"state {escape(shorten(name, drawing.HOVER))}<br>probability {share:.1%}" for name, share in shares]
    names = [escape(shorten(name)) for name in world.state_names]
    colours, rim = [state_colour(k) for k in range(world.n_states)], {"width": 1.5, "color": INK}
    text = names if inside else ()
    drawing.add_dots(figure, places, hover, text, 15, size=2 * _NODE, color=colours, line=rim)
    if not inside:
        for place, name in zip(places, names, strict=True):
            drawing.add_text(figure, place, f"<b>{name}</b>", yshift=-_NODE - 10)
    figure.update_xaxes(range=[-across / 2, across / 2])
    figure.update_yaxes(range=[-up / 2, up / 2])
    note = "An arrow is a move, labelled with its tokens and their probabilities."
    drawing.add_caption(figure, f"{world.name}: hidden states and moves", note)
    return figure


def spread(world: HiddenMarkovWorld, across: float, up: float) -> Float[np.ndarray, "states 2"]:
    """Positions of the states: the corners of the belief polygon, stretched to fill the picture."""
    if world.n_states == 1:
        return np.zeros((1, 2))
    places = polygon(around(world.transitions)) if world.n_states > 2 else np.array([[-1.0, 0.0], [1.0, 0.0]])
    loops = bool(np.diagonal(world.transitions.sum(0)).any())
    # Left, bottom and right, top: loops and their labels need more space.
    margins = np.array([[92.0, 78.0], [92.0, 62.0]]) if loops else np.array([[80.0, 58.0], [80.0, 40.0]])
    room = np.array([across, up]) - margins.sum(0)
    low, high = places.min(0), places.max(0)
    scale = room / np.maximum(high - low, 1e-9)
    # A wide picture may stretch the polygon by 40 % at most.
    scale = np.minimum(scale, 1.4 * scale.min())
    return (places - (low + high) / 2) * scale + (margins[0] - margins[1]) / 2


def arrows_between(world: HiddenMarkovWorld, places: Float[np.ndarray, "states 2"]) -> list[Arrow]:
    """Curves from the rim of one state to the rim of the next, one for each pair of states."""
    arrows = []
    for source, target in np.argwhere(world.transitions.sum(0) > 0).tolist():
        tokens = world.transitions[:, source, target]
        label = tuple(
            f"{escape(shorten(name))}: {chance:.2g}"
            for name, chance in zip(world.vocabulary, tokens, strict=True)
            if chance > 0
        )
        curve, outward = _loop(places, source) if source == target else _bow(places[source], places[target])
        arrows.append(Arrow(source, target, label, float(tokens.sum()), curve, outward))
    return arrows


def _bow(start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]) -> tuple[np.ndarray, np.ndarray]:
    """A curve bent to the left, so that it does not overlap with the arrow back."""
    along = end - start
    left = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    points = _bezier(start, (start + end) / 2 + left * min(56.0, 0.24 * np.linalg.norm(along)), end)
    clear = (np.linalg.norm(points - start, axis=1) > _NODE) & (np.linalg.norm(points - end, axis=1) > _NODE + 2)
    return points[clear], left


def _loop(places: Float[np.ndarray, "states 2"], state: int) -> tuple[np.ndarray, np.ndarray]:
    centre = places[state]
    outward = centre - places.mean(0)
    outward = outward / np.linalg.norm(outward) if outward.any() else np.array([0.0, 1.0])
    side = np.array([outward[1], -outward[0]])
    far = centre + outward * 3.4 * _NODE
    points = _bezier(centre, far - side * 2.3 * _NODE, far + side * 2.3 * _NODE, centre)
    return points[np.linalg.norm(points - centre, axis=1) > _NODE + 1], outward


def _bezier(*control: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "points 2"]:
    t = np.linspace(0, 1, 121)[:, None]
    points = [np.broadcast_to(point, (121, 2)) for point in control]
    while len(points) > 1:
        points = [(1 - t) * a + t * b for a, b in pairwise(points)]
    return points[0]


def _draw_arrow(figure: go.Figure, world: HiddenMarkovWorld, arrow: Arrow) -> None:
    tip = arrow.curve[-1]
    shaft = arrow.curve[np.linalg.norm(arrow.curve - tip, axis=1) > 0.7 * _HEAD]
    back = tip - shaft[-1]
    back = back / np.linalg.norm(back) * _HEAD
    side = np.array([-back[1], back[0]]) * 0.42
    head = np.stack([tip, tip - back + side, tip - back - side, tip])
    names = [escape(shorten(world.state_names[state], drawing.HOVER)) for state in (arrow.source, arrow.target)]
    hover = f"{names[0]} → {names[1]}<br>" + "<br>".join(arrow.label)
    line = {"width": 1.2 + 1.8 * arrow.probability, "color": INK}
    drawing.add_lines(figure, shaft, line, hovertext=hover, hoverinfo="text")
    drawing.add_lines(figure, head, {"width": 0.5, "color": INK}, fill="toself", fillcolor=INK)


def _draw_labels(
    figure: go.Figure, arrows: list[Arrow], places: Float[np.ndarray, "states 2"], edge: Float[np.ndarray, " 2"]
) -> None:
    """Place each label next to its arrow, with little overlap."""
    halves = np.array(
        [(max(map(len, arrow.label)) * _FONT * 0.28 + 2, len(arrow.label) * _FONT * 0.66) for arrow in arrows]
    )
    spots, costs = [], []
    for k, (arrow, half) in enumerate(zip(arrows, halves, strict=True)):
        centres, off_middle = _spots(arrow, half)
        others = np.concatenate([places[:0], *(other.curve for other in arrows[:k] + arrows[k + 1 :])])
        spots.append(centres)
        costs.append(off_middle + _clutter(centres, half, arrow.curve, others, places, edge))
    places_of_labels = np.full((len(arrows), 2), 1e9)
    # The first round avoids the labels placed before; later rounds move each label away from all the others.
    for _ in range(4):
        for k in range(len(arrows)):
            overlap = halves + halves[k] + 3 - np.abs(spots[k][:, None] - places_of_labels)
            overlap[:, k] = 0
            cost = costs[k] + 20 * np.clip(overlap, 0, None).prod(-1).sum(-1)
            places_of_labels[k] = spots[k][cost.argmin()]
    for arrow, place in zip(arrows, places_of_labels, strict=True):
        drawing.add_text(figure, place, "<br>".join(arrow.label), _FONT)


def _spots(
    arrow: Arrow, half: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "spots 2"], Float[np.ndarray, " spots"]]:
    """Candidate centres of a label, and a cost for the distance from mid-arrow on the outer side."""
    shares = np.linspace(0.14, 0.86, 25)
    k = (shares * (len(arrow.curve) - 1)).astype(int)
    along = arrow.curve[k + 1] - arrow.curve[k - 1]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    away = np.concatenate([normal, -normal])
    centres = np.tile(arrow.curve[k], (2, 1)) + away * (np.abs(away) @ half + 4)[:, None]
    return centres, 20 * np.tile(np.abs(shares - 0.5), 2) + 3 * (away @ arrow.outward < 0)


def _clutter(
    centres: Float[np.ndarray, "spots 2"],
    half: Float[np.ndarray, " 2"],
    curve: Float[np.ndarray, "points 2"],
    others: Float[np.ndarray, "more 2"],
    places: Float[np.ndarray, "states 2"],
    edge: Float[np.ndarray, " 2"],
) -> Float[np.ndarray, " spots"]:
    """Cost of each spot: over lines or states, outside the picture, or too close to another arrow."""
    from_own, from_others = _distance(curve, centres, half), _distance(others, centres, half)
    covered = (from_own < 1).sum(1) + (from_others < 1).sum(1)
    nodes = np.clip(_NODE + 3 - _distance(places, centres, half), 0, None).sum(1)
    outside = np.clip(np.abs(centres) + half - edge, 0, None).sum(1)
    unclear = np.clip(12 - from_others.min(1, initial=99.0), 0, None)
    return 5 * covered + 10 * nodes + 50 * outside + 2 * unclear


def _distance(
    points: Float[np.ndarray, "points 2"], centres: Float[np.ndarray, "spots 2"], half: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "spots points"]:
    """Distance of points from boxes of one size around the centres."""
    return np.linalg.norm(np.clip(np.abs(points - centres[:, None]) - half, 0, None), axis=-1)
