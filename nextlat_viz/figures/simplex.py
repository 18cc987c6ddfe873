"""Belief simplex of a world in its fixed plane: edges between pure states, and the states' names."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.plotting import INK

if TYPE_CHECKING:
    from nextlat_viz.worlds import HiddenMarkovWorld

# Pixels from a corner to the middle of its name, beside it and above or below it.
_OUTWARD = (19, 13)
_LONGEST = 10  # letters of a name at a corner; the colour key and hover texts show more


def edges(world: HiddenMarkovWorld | None, **options: Any) -> go.Scatter:
    """Draw a line between every two pure states; nothing for None or for a world without named states."""
    x: list[float | None] = []
    y: list[float | None] = []
    corners = np.zeros((0, 2)) if world is None else world.belief_vertices
    for i, j in zip(*np.triu_indices(len(corners), 1), strict=True):
        x += [corners[i, 0], corners[j, 0], None]
        y += [corners[i, 1], corners[j, 1], None]
    # Single points are invisible in a line; they widen the axes to make room for the names outside the corners.
    wider = corners + 0.14 * (corners - corners.mean(axis=0)) if len(corners) else corners
    for place in wider.tolist():
        x += [place[0], None]
        y += [place[1], None]
    line = {"width": 1, "color": "rgba(128,128,128,0.45)"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, **options)


def corner_names(world: HiddenMarkovWorld, xaxis: str, yaxis: str) -> list[dict[str, Any]]:
    """Return the names of the pure states as annotations just outside their corners, on an opaque background."""
    corners = world.belief_vertices
    if not len(corners):
        return []
    # Corners that coincide in the plane share one annotation.
    places, which = np.unique(corners.round(6) + 0.0, axis=0, return_inverse=True)
    states = np.array([escape(shorten(name, _LONGEST)) for name in world.state_names])
    names = [", ".join(states[which.reshape(-1) == i]) for i in range(len(places))]
    out = places - corners.mean(axis=0)
    far = np.linalg.norm(out, axis=1, keepdims=True)
    # For a corner in the middle, no direction is outward: put its name below it.
    out = np.where(far > 0.3 * far.max(), out, (0, -1))
    out = out / np.abs(out).max(axis=1, keepdims=True) * _OUTWARD
    return [
        {"x": x, "y": y, "xref": xaxis, "yref": yaxis, "xshift": dx, "yshift": dy, "showarrow": False,
         "text": f"<b>{name}</b>", "font": {"size": 11, "color": "white"}, "bgcolor": INK, "borderpad": 1}
        for (x, y), (dx, dy), name in zip(places.tolist(), out.tolist(), names, strict=True)
    ]  # fmt: skip


def axes_note(world: HiddenMarkovWorld, width: int = 56) -> str:
    """Return the description of the plane's coordinates, broken into lines."""
    return "<br>".join(escape(line) for line in textwrap.wrap(world.belief_axes, width))
