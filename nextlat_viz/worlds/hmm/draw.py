"""Pictures of a hidden Markov world: its state machine and its reachable beliefs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.display import escape, shorten
from nextlat_viz.plotting import CURSOR, INK, SEQUENTIAL, Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.beliefs import BeliefTree
from nextlat_viz.worlds.drawing import picture, state_colour
from nextlat_viz.worlds.hmm.machine import machine, spread
from nextlat_viz.worlds.hmm.plane import fitting_depth
from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld

_WIDE = 560  # pixels
_LONGEST = 10  # letters of a name at a corner, beside those of other corners


@picture(HiddenMarkovWorld, "machine")
def draw_machine(
    world: HiddenMarkovWorld,
    episode: Episodes | None,
    position: int | None,
    *,
    width: int = 560,
    height: int | None = None,
) -> go.Figure:
    """Draw the states and the moves between them; a ring marks the current state if the episode holds it.

    A generalised world has no states, so the picture shows the first moves of its belief.
    """
    figure = _cached_figure(_moves if world.generalised else machine, world, width, height)
    if episode is not None and position and "state" in episode.states:
        margin = figure.layout.margin
        across, up = width - margin.l - margin.r, figure.layout.height - margin.t - margin.b
        state = int(episode.states["state"][0, position - 1])
        drawing.add_ring(figure, spread(world, float(across), float(up))[state], 60)
    return figure


@picture(HiddenMarkovWorld, "beliefs")
def draw_beliefs(
    world: HiddenMarkovWorld,
    episode: Episodes | None,
    position: int | None,
    *,
    depth: int | None = None,
    width: int = 560,
    height: int | None = None,
) -> go.Figure:
    """Draw the beliefs reachable within `depth` tokens, and the path of an episode's beliefs from the prior.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> worlds.get("z1r").draw("beliefs", depth=3).layout.width
    560
    """
    depth = None if depth is None else checks.integer("depth", depth)
    figure = _cached_figure(_beliefs, world, width, height, depth)
    if episode is not None:
        beliefs = world.stationary[None]
        if position:
            known = episode.states.get("belief")
            read = world.belief(episode.tokens[:, :position]) if known is None else known[:, :position]
            beliefs = np.concatenate([beliefs, read[0]])
        path = world.belief_coordinates(beliefs)
        drawing.add_lines(figure, path, {"width": 2, "color": CURSOR}, opacity=0.7)
        drawing.add_ring(figure, path[-1], 18)
    return figure


def _cached_figure(
    draw: Callable[..., go.Figure], world: HiddenMarkovWorld, width: int, height: int | None, *options: int | None
) -> go.Figure:
    """Return a new figure of the picture without an episode; every step of an episode starts from one."""
    # plotly checked the content when it was first drawn; checking thousands of colours again would slow every step.
    figure = Figure(_content(draw, world, width, height, *options), _validate=False)
    for part in (figure, figure.layout, *figure.data):
        part._validate = True
    return figure


@lru_cache(maxsize=8)
def _content(
    draw: Callable[..., go.Figure], world: HiddenMarkovWorld, width: int, height: int | None, *options: int | None
) -> dict[str, Any]:
    if height is None:
        # The beliefs of one or two states lie on a line, which needs less room.
        height = 460 if world.n_states > 2 else 260
    figure = draw(world, width, height, *options)
    drawing.fix_ranges(figure)
    # Figure.to_dict holds arrays as text; the dictionaries of the traces hold arrays.
    return {"data": [trace.to_plotly_json() for trace in figure.data], "layout": figure.layout.to_plotly_json()}


def _beliefs(world: HiddenMarkovWorld, width: int, height: int, depth: int | None) -> go.Figure:
    """Reachable beliefs in picture coordinates; the area of a dot grows with the probability of the belief."""
    tree = world.reachable_beliefs(fitting_depth(world) if depth is None else depth)
    places = world.belief_coordinates(tree.beliefs)
    figure = drawing.canvas(width, height)
    _draw_frame(figure, world)
    crowded = len(tree) > 200
    # Smaller in a narrow picture, such as in a panel, so that dots do not cover the names of corners.
    share = min(1.0, width / _WIDE)
    least, most = (3.5, 12.5) if crowded else (7, 26)
    size = share * (least + (most - least) * np.sqrt(tree.probability / tree.probability.max()))
    rim = {"width": 0 if crowded else 0.7, "color": INK}
    # Large dots first, so that they do not hide small ones.
    order = np.argsort(-tree.probability, kind="stable")
    hover = np.array([_hover(world, tree, k) for k in range(len(tree))], dtype=object)
    if world.generalised:
        colour = {"color": tree.depth[order], "colorscale": SEQUENTIAL, "showscale": True}
        title = {"text": "tokens<br>read", "font": {"size": 12}}
        bar = {"title": title, "thickness": 10, "len": 0.5, "y": 0, "yanchor": "bottom"}
        groups = {"": (order, colour | {"colorbar": bar})}
    elif world.n_states <= 3:
        groups = {"": (order, {"color": _mixed_colours(tree.beliefs[order])})}
    else:
        likely = tree.beliefs.argmax(1)
        groups = {
            world.state_names[state]: (order[likely[order] == state], {"color": state_colour(state)})
            for state in range(world.n_states)
            if (likely == state).any()
        }
        figure.update_layout(showlegend=True, legend_title_text="most likely state")
    for name, (rows, marker) in groups.items():
        figure.add_scatter(
            x=places[rows, 0],
            y=places[rows, 1],
            mode="markers",
            name=escape(shorten(name)),
            marker={"size": size[rows], "opacity": 0.9, "line": rim} | marker,
            hovertext=hover[rows],
            hoverinfo="text",
        )
    count = f"all {len(tree)} reachable beliefs" if tree.closed else f"{len(tree)} beliefs reachable"
    within = "" if tree.closed else f" within {tree.depth.max()} tokens"
    drawing.add_caption(figure, f"{world.name}: {count}{within}", world.belief_axes)
    return figure


def _moves(world: HiddenMarkovWorld, width: int, height: int) -> go.Figure:
    """Draw the moves of the belief at the first and the second token."""
    tree = world.reachable_beliefs(max_depth=1)
    futures = world.kernel.futures(tree.beliefs)
    chances = world.kernel.chances(futures @ world.readout)
    figure = drawing.canvas(width, height)
    _draw_frame(figure, world)
    for token, name in enumerate(world.vocabulary):
        possible = chances[:, token] > 0
        starts = world.belief_coordinates(tree.beliefs[possible])
        ends = world.belief_coordinates(futures[possible, token] / chances[possible, token, None])
        # Shifted to the left, so that an arrow and the arrow back do not overlap.
        along = ends - starts
        aside = np.stack([-along[:, 1], along[:, 0]], axis=1)
        aside *= 0.012 / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        style = {"name": escape(shorten(name)), "legendgroup": str(token)}
        line = {"width": 2, "color": state_colour(token)}
        arrow = {"symbol": "arrow", "angleref": "previous", "opacity": 1, "line_width": 0}
        marker, places = arrow | {"size": [0, 11, 0] * len(ends)}, drawing.segments(starts + aside, ends + aside)
        drawing.add_lines(figure, places, line, mode="lines+markers", marker=marker, **style)
        # The legend entry is a line: arrowheads in a legend are drawn at an arbitrary angle.
        drawing.add_lines(figure, [np.nan, np.nan], line, showlegend=True, **style)
    figure.update_layout(showlegend=True, legend_title_text="token")
    title = f"{world.name}: how the first two tokens move the belief"
    drawing.add_caption(figure, title, f"No hidden states. {world.belief_axes}")
    return figure


def _draw_frame(figure: go.Figure, world: HiddenMarkovWorld) -> None:
    """Outline of the set of beliefs: the polygon of the states, or the disc of a qubit."""
    corners = world.belief_vertices
    line = {"width": 1, "color": INK}
    if world.generalised:
        if world.n_states == 3:
            angle = np.linspace(0, 2 * np.pi, 181)
            drawing.add_lines(figure, np.stack([np.cos(angle), np.sin(angle)], axis=1), line)
        return
    if world.n_states <= 2:
        figure.update_xaxes(range=[-0.2, 1.2])
        figure.update_yaxes(range=[-1, 1], scaleanchor=None)
    centre = corners.mean(0)
    # The corners lie on a circle, so their order around the centre is that of the outline.
    around = np.argsort(np.arctan2(*(corners - centre).T))
    drawing.add_lines(figure, corners[np.append(around, around[0])], line)
    for name, corner in zip(world.state_names, corners, strict=True):
        # Above or below its corner, and outwards where dots lie on the lines to other corners: beside it, a name needs
        # room that a narrow panel does not have.
        shift = 22 if world.n_states > 2 and corner[1] > centre[1] - 1e-9 else -22
        aside = round(16 * float(np.clip(corner[0] - centre[0], -1, 1))) if world.n_states > 3 else 0
        drawing.add_text(figure, corner, f"<b>{escape(shorten(name, _LONGEST))}</b>", 14, yshift=shift, xshift=aside)


def _mixed_colours(beliefs: Float[np.ndarray, "rows states"]) -> list[str]:
    """The colours of the states mixed as light, in proportion to their probabilities."""
    pure = np.array([[int(state_colour(k)[i : i + 2], 16) for i in (1, 3, 5)] for k in range(beliefs.shape[1])])
    light = beliefs @ (pure / 255) ** 2.2
    return [f"rgb({r},{g},{b})" for r, g, b in np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(int)]


def _hover(world: HiddenMarkovWorld, tree: BeliefTree, place: int) -> str:
    read = " ".join(world.vocabulary[token] for token in tree.prefixes[place])
    prefix = escape(shorten(read, drawing.HOVER)) or "(start)"
    belief = "<br>".join(
        f"{escape(shorten(name, drawing.HOVER))}: {value:.3f}"
        for name, value in zip(world.state_names, tree.beliefs[place], strict=True)
    )
    return f"after {prefix}<br>{belief}<br>probability {tree.probability[place]:.2%}"
