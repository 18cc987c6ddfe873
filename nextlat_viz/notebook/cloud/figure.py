"""Convert a cloud to a plotly figure, to write it to a file."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.notebook.cloud.widget import Cloud
from nextlat_viz.plotting import INK, Figure

_FADED = 0.06
_SIDE = 20  # pixels of a margin without numbers


def cloud_figure(cloud: Cloud) -> Figure:
    """Return every point of a cloud with its colours, selection, outline, names, cursor and marker.

    Many points are drawn as an image when the figure is written for print.

    Examples
    --------
    >>> cloud = Cloud([[0.0, 1.0], [1.0, 0.5]], codes=[0, 1], title="two points", key={"first": "#009E73"})
    >>> figure = cloud_figure(cloud)
    >>> figure.layout.title.text, figure.data[0].marker.color
    ('two points', ('#008C65', '#EAA51A'))
    >>> cloud.close()
    """
    points, palette = cloud.positions, np.array(cloud.palette)
    opacity = np.full(len(points), 0.75)
    if len(cloud.selection):
        opacity[:] = _FADED
        opacity[cloud.selection] = 0.95
    marker = {"size": 4, "color": palette[cloud.codes].tolist(), "opacity": opacity}
    traces = [go.Scattergl(x=points[:, 0], y=points[:, 1], mode="markers", marker=marker, showlegend=False)]
    for entry, color in cloud._key:
        look = {"size": 9, "color": color or INK}
        traces.append(go.Scatter(x=[None], y=[None], mode="markers", marker=look, name=escape(entry), showlegend=True))
    outline = np.frombuffer(cloud._outline, "<f4").reshape(-1, 2)
    if len(outline):
        line = {"width": 1, "color": INK}
        traces.append(go.Scattergl(x=outline[:, 0], y=outline[:, 1], mode="lines", line=line, showlegend=False))
    color = cloud._cursor_color
    if cloud.cursor:
        path = points[list(cloud.cursor)]
        sizes = [4.0] * (len(path) - 1) + [16.0]
        look = {"size": sizes, "symbol": "circle-open", "color": color, "line": {"width": 3}}
        line = {"color": color, "width": 1}
        traces.append(
            go.Scattergl(x=path[:, 0], y=path[:, 1], mode="lines+markers", marker=look, line=line, showlegend=False)
        )
    known = [mark for mark in ((cloud.ring, "circle-open", 14), (cloud.handle, "circle", 11)) if mark[0]]
    if known:
        ends, symbols, widths = zip(*known, strict=True)
        ring = {"symbol": symbols, "size": widths, "color": color, "line": {"width": 3}}
        x, y = zip(*ends, strict=True)
        line = {"color": color, "width": 1.5}
        traces.append(go.Scattergl(x=x, y=y, mode="lines+markers", marker=ring, line=line, showlegend=False))
    axis = {"showline": True, "mirror": True, "showgrid": bool(cloud._axes), "zeroline": False}
    titles = cloud._axes or ["", ""]
    bare = {} if cloud._axes else {"showticklabels": False}
    figure = Figure(traces)
    figure.update_layout(
        title_text=escape(cloud.title),
        width=max(cloud._height, 300),
        height=cloud._height + 60,
        margin={"l": 48 if cloud._axes else _SIDE, "r": _SIDE, "t": 40, "b": 42 if cloud._axes else _SIDE},
        xaxis={**axis, **bare, "title": {"text": escape(titles[0])}, "constrain": "domain"},
        yaxis={**axis, **bare, "title": {"text": escape(titles[1])}, "scaleanchor": "x", "constrain": "domain"},
        template="none",
    )
    for name, x, y in cloud._landmarks:
        figure.add_annotation(x=x, y=y, text=f"<b>{escape(name)}</b>", showarrow=False, font={"size": 11}, yshift=10)
    return figure
