"""Pictures of a hidden-Markov world: its machine and its reachable beliefs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.beliefs import BeliefTree
from nextlat_viz.worlds.hmm.machine import machine, spread
from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld

_MOST_BELIEFS = 4000


def draw(
    world: HiddenMarkovWorld,
    kind: str = "machine",
    episode: Episodes | None = None,
    position: int | None = None,
    **options: Any,
) -> go.Figure:
    """Draw one kind of picture; ``HiddenMarkovWorld.draw`` is the way in.

    Raises
    ------
    UnknownNameError
        If there is no such kind, or the kind has no such option.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> worlds.get("z1r").draw("beliefs", depth=3).layout.width
    560
    """
    checks.picture(world, kind, options, _OPTIONS.get(kind, ()))
    for name in options:
        if options[name] is not None:
            options[name] = checks.positive(name, options[name])
    # What was checked when it was drawn first: plotly would check thousands of colours again.
    figure = Figure(_bare(world, kind, **options), _validate=False)
    for part in (figure, figure.layout, *figure.data):
        part._validate = True
    if episode is not None:
        at = checks.one_episode(episode, position)
        _MARK[kind](figure, world, episode, at)
    return figure


@lru_cache(maxsize=8)
def _bare(world: HiddenMarkovWorld, kind: str, **options: Any) -> dict[str, Any]:
    """The picture without an episode, as a plotly dictionary: the same at every step of every episode."""
    figure = _KINDS[kind](world, **options)
    # A figure's own dictionary holds arrays as text; its parts' hold arrays.
    return {"data": [trace.to_plotly_json() for trace in figure.data], "layout": figure.layout.to_plotly_json()}


def _mark_state(figure: go.Figure, world: HiddenMarkovWorld, episode: Episodes, position: int) -> None:
    """A ring around the state that holds; none where the episode does not say."""
    if "state" not in episode.states:
        return
    margin = figure.layout.margin
    across, up = (
        figure.layout.width - margin.l - margin.r,
        figure.layout.height - margin.t - margin.b,
    )
    place = spread(world, float(across), float(up))[int(episode.states["state"][0, position - 1])]
    figure.add_scatter(
        x=place[:1],
        y=place[1:],
        mode="markers",
        marker={"size": 60, "symbol": "circle-open", "color": drawing.MARK, "line": {"width": 4}},
        hoverinfo="skip",
        showlegend=False,
    )


def _mark_path(figure: go.Figure, world: HiddenMarkovWorld, episode: Episodes, position: int) -> None:
    """The beliefs held so far, from before the first token on."""
    beliefs = np.concatenate([world.stationary[None], world.belief(episode.tokens[:, :position])[0]])
    path = world.belief_coordinates(beliefs)
    look = {"hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(
        x=path[:, 0], y=path[:, 1], mode="lines", line={"width": 2, "color": drawing.MARK}, opacity=0.7, **look
    )
    figure.add_scatter(
        x=path[-1:, 0],
        y=path[-1:, 1],
        mode="markers",
        marker={"size": 18, "symbol": "circle-open", "color": drawing.MARK, "line": {"width": 4}},
        **look,
    )


def _machine(world: HiddenMarkovWorld, width: int = 560, height: int | None = None) -> go.Figure:
    """States and the moves between them; for a generalised world, which has none, the first moves of the belief."""
    height = _height(world) if height is None else height
    return _moves(world, width, height) if world.generalised else machine(world, width, height)


def _beliefs(
    world: HiddenMarkovWorld, depth: int | None = None, width: int = 560, height: int | None = None
) -> go.Figure:
    """Reachable beliefs in picture coordinates; a larger dot is held more often."""
    tree = world.reachable_beliefs(_fitting_depth(world) if depth is None else depth)
    places = world.belief_coordinates(tree.beliefs)
    figure = go.Figure(layout=drawing.layout(width, _height(world) if height is None else height))
    _frame(figure, world)
    crowded = len(tree) > 200
    size = (3.5 if crowded else 7) + (9 if crowded else 19) * np.sqrt(tree.probability / tree.probability.max())
    rim = {"width": 0 if crowded else 0.7, "color": drawing.INK}
    # Large dots first, so that they hide no small one.
    order = np.argsort(-tree.probability, kind="stable")
    hover = np.array([_hover(world, tree, k) for k in range(len(tree))], dtype=object)
    if world.generalised:
        colour = {"color": tree.depth[order], "colorscale": drawing.SEQUENTIAL, "showscale": True}
        marker = colour | {
            "colorbar": {"title": {"text": "tokens<br>read", "font": {"size": 12}}, "thickness": 10, "len": 0.5}
        }
        groups = {"": (order, marker)}
    elif world.n_states <= 3:
        groups = {"": (order, {"color": drawing.mix(tree.beliefs[order])})}
    else:
        likely = tree.beliefs.argmax(1)
        groups = {
            world.state_names[state]: (order[likely[order] == state], {"color": drawing.state_colour(state)})
            for state in range(world.n_states)
            if (likely == state).any()
        }
        figure.update_layout(showlegend=True, legend_title_text="most likely state")
    for name, (rows, marker) in groups.items():
        figure.add_scatter(
            x=places[rows, 0],
            y=places[rows, 1],
            mode="markers",
            name=drawing.safe(name),
            marker={"size": size[rows], "opacity": 0.9, "line": rim} | marker,
            hovertext=hover[rows],
            hoverinfo="text",
        )
    whole = "all" if tree.closed else "the"
    within = "" if tree.closed else f" within {tree.depth.max()} tokens"
    drawing.caption(figure, f"{world.name}: {whole} {len(tree)} reachable beliefs{within}", world.belief_axes)
    return figure


def _moves(world: HiddenMarkovWorld, width: int, height: int) -> go.Figure:
    """Where each token takes the belief, for the first two tokens."""
    tree = world.reachable_beliefs(max_depth=1)
    futures = world.kernel.futures(tree.beliefs)
    chances = world.kernel.chances(futures @ world.readout)
    figure = go.Figure(layout=drawing.layout(width, height))
    _frame(figure, world)
    for token, name in enumerate(world.vocabulary):
        can = chances[:, token] > 0
        starts = world.belief_coordinates(tree.beliefs[can])
        ends = world.belief_coordinates(futures[can, token] / chances[can, token, None])
        # To the left of the way there, so that the way back does not lie on top of it.
        along = ends - starts
        aside = np.stack([-along[:, 1], along[:, 0]], axis=1)
        aside *= 0.012 / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        starts, ends = starts + aside, ends + aside
        look = {"name": drawing.safe(name), "legendgroup": str(token), "hoverinfo": "skip"}
        line = {"width": 2, "color": drawing.state_colour(token)}
        figure.add_scatter(
            x=_broken(starts[:, 0], ends[:, 0]),
            y=_broken(starts[:, 1], ends[:, 1]),
            mode="lines+markers",
            line=line,
            marker={
                "symbol": "arrow",
                "angleref": "previous",
                "size": [0, 11, 0] * len(ends),
                "opacity": 1,
                "line_width": 0,
            },
            showlegend=False,
            **look,
        )
        # The legend would show arrowheads at a slant of its own.
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, **look)
    figure.update_layout(showlegend=True, legend_title_text="token")
    drawing.caption(
        figure, f"{world.name}: where the first two tokens take the belief", f"No hidden states. {world.belief_axes}"
    )
    return figure


_KINDS: dict[str, Callable[..., go.Figure]] = {"machine": _machine, "beliefs": _beliefs}
_MARK = {"machine": _mark_state, "beliefs": _mark_path}
_OPTIONS = {"machine": ("width", "height"), "beliefs": ("depth", "width", "height")}


def _broken(starts: Float[np.ndarray, " arrows"], ends: Float[np.ndarray, " arrows"]) -> Float[np.ndarray, " points"]:
    """Start, end, gap, start, end, gap, ...: many arrows in one trace."""
    return np.stack([starts, ends, np.full_like(starts, np.nan)], axis=1).ravel()


def _frame(figure: go.Figure, world: HiddenMarkovWorld) -> None:
    """The outline that beliefs lie in: certainty in each state, or the disc of a qubit's slice."""
    corners = world.belief_vertices
    if world.generalised:
        if world.n_states == 3:
            angle = np.linspace(0, 2 * np.pi, 181)
            drawing.line(figure, np.cos(angle), np.sin(angle))
        return
    if world.n_states <= 2:
        figure.update_xaxes(range=[-0.2, 1.2])
        figure.update_yaxes(range=[-1, 1], scaleanchor=None)
    ring = drawing.outline(corners)
    drawing.line(figure, corners[ring, 0], corners[ring, 1])
    centre = corners.mean(0)
    for name, corner in zip(world.state_names, corners, strict=True):
        outward = (corner - centre) / (np.linalg.norm(corner - centre) + 1e-12)
        shift = 22 * outward if world.n_states > 2 else (0, -24)
        figure.add_annotation(
            x=corner[0],
            y=corner[1],
            text=f"<b>{drawing.safe(name)}</b>",
            showarrow=False,
            xshift=shift[0],
            yshift=shift[1],
            font={"size": 14},
        )


def _hover(world: HiddenMarkovWorld, tree: BeliefTree, place: int) -> str:
    prefix = " ".join(drawing.safe(world.vocabulary[token]) for token in tree.prefixes[place]) or "(start)"
    belief = "<br>".join(
        f"{drawing.safe(name)}: {value:.3f}" for name, value in zip(world.state_names, tree.beliefs[place], strict=True)
    )
    return f"after {prefix}<br>{belief}<br>held {tree.probability[place]:.2%} of the time"


def _height(world: HiddenMarkovWorld) -> int:
    """One or two states lie on a line, which needs less room."""
    return 460 if world.n_states > 2 else 260


def _fitting_depth(world: HiddenMarkovWorld) -> int:
    """The deepest tree, up to twelve tokens, that is still a picture rather than a blot."""
    depth = 1
    while depth < 12 and world.n_tokens ** (depth + 2) <= _MOST_BELIEFS * (world.n_tokens - 1):
        depth += 1
    return depth
