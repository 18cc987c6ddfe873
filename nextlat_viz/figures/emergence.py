"""Small clouds of latents over training: a row per model, a column per training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.clouds import color_key, key_width
from nextlat_viz.figures.layout import Grid, Layout, note
from nextlat_viz.figures.rows import coloring
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import CURSOR, Figure

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import Projection

# Most points of a cloud: more cannot be told apart in so small a view.
_MOST = 1_200
# Most names that fit into the colour key of a panel with two rows.
_FEW_NAMES = 6


def clouds_over_training(
    projections: Mapping[str, Mapping[int, Projection | str]],
    latents: AnnData,
    color: str = "state",
    *,
    step: int | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw the latents of each model at several training steps, all in the same axes.

    Parameters
    ----------
    projections : {label: {step: Projection or str}}
        Each model's projections by training step, 0 for the untrained model. All are of the same rows, and
        :func:`nextlat_viz.analysis.aligned` with one of them. A text instead of a projection is shown in its view.
    latents : AnnData
        The latents of any of the models, which colour the rows.
    color : str
        Column of ``obs``, ``"belief"`` or ``"belief:<state>"``.
    step : int, optional
        The training step whose views get a frame.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every cloud has ``meta``: ``role`` "points", ``model`` (label) and ``step``.

    Raises
    ------
    ValueError
        When there is no projection.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> run = nlv.load("mess3/nextlat")
    >>> tables = {model.step: nlv.extract(model, progress=False) for model in (run.untrained(), run)}
    >>> end, start = nlv.analysis.aligned([nlv.project(tables[step]) for step in (2000, 0)])
    >>> figure = clouds_over_training({"NextLat": {0: start, 2000: end}}, tables[2000], step=2000)
    >>> [trace.meta["step"] for trace in figure.data if trace.meta["role"] == "points"]
    [0, 2000]
    """
    steps = sorted({number for planes in projections.values() for number in planes})
    if not steps:
        raise ValueError("projections is empty: give {label: {step: nlv.project(latents)}} for at least one step")
    planes = [plane for by_step in projections.values() for plane in by_step.values() if not isinstance(plane, str)]
    grid = Grid(len(projections), len(steps), height=128, above=6, top=20, gap=0.012)
    layout, traces = Layout(), list[Any]()
    bare = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True}
    ranges = _ranges(planes)
    paint = coloring(latents, color)
    colors = themes.model_colors(list(projections))
    for i, ((label, by_step), ink) in enumerate(zip(projections.items(), colors, strict=True)):
        font = {"size": 12, "color": ink}
        middle = sum(grid.place(i, 0)[1]) / 2
        side = {"xanchor": "right", "yanchor": "middle", "xshift": -4, "textangle": -90, "font": font}
        layout.notes.append(note(0.0, middle, f"<b>{escape(shorten(label, 16))}</b>", **side))
        for j, number in enumerate(steps):
            wide, up = grid.place(i, j)
            framed = number == step
            frame = {"linecolor": CURSOR, "linewidth": 3} if framed else {}
            axes = [{**bare, **frame, "range": ends, "constrain": "domain"} for ends in ranges]
            place = layout.view(wide, up, x=axes[0], y=axes[1], square=True)
            if i == 0:
                name = "untrained" if number == 0 else f"{number:,}" if j else f"step {number:,}"
                text, tint = (f"<b>{name}</b>", {"color": CURSOR}) if framed else (name, {})
                above = {"xanchor": "center", "yanchor": "bottom", "yshift": 1, "font": {"size": 11, **tint}}
                layout.notes.append(note(sum(wide) / 2, up[1], text, **above))
            plane = by_step.get(number, "not kept")
            if isinstance(plane, str):
                layout.notes.append(note(sum(wide) / 2, sum(up) / 2, escape(plane), font={"size": 10.5}))
            else:
                rows = np.linspace(0, len(plane.rows) - 1, min(_MOST, len(plane.rows))).astype(int)
                x, y = plane.coordinates[rows].T
                marker = {"size": 3, "opacity": 0.7, "color": paint.codes[plane.rows[rows]], "coloraxis": "coloraxis"}
                about = {"role": "points", "model": label, "step": number}
                traces.append(
                    go.Scattergl(x=x, y=y, mode="markers", marker=marker, hoverinfo="skip", meta=about, **place)
                )
    key = paint.key
    if key is not None:
        # Below the toolbar. A few names get a fixed height, many the whole height of the figure.
        few = len(paint.names) <= _FEW_NAMES
        length = {"lenmode": "pixels", "len": 40 + 16 * max(len(paint.names), 3)} if few else {"len": 0.98}
        key["colorbar"] |= {"y": 0.0, "yanchor": "bottom", **length}
        if not few:
            key["colorbar"] |= {"title": None, "tickfont": {"size": 9}}
    traces.append(color_key(key))
    return layout.finish(
        traces,
        theme,
        height=grid.pixels + 10,
        margin={"l": 22, "r": key_width(paint.names), "t": 0, "b": 4},
        meta={"least": 24 + 48 * grid.rows},
        showlegend=False,
        coloraxis=paint.axis,
    )


def _ranges(planes: list[Projection]) -> list[list[float]]:
    """Return ranges of both axes that hold all clouds."""
    if not planes:
        return [[0.0, 1.0], [0.0, 1.0]]
    lows = np.min([plane.coordinates.min(axis=0) for plane in planes], axis=0)
    highs = np.max([plane.coordinates.max(axis=0) for plane in planes], axis=0)
    room = 0.05 * (highs - lows) + 1e-6
    ends: list[list[float]] = np.stack([lows - room, highs + room], axis=1).tolist()
    return ends
