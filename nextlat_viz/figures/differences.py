"""Similarity of the layers of two models, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures.layout import Layout, column_domains
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import CURSOR, SEQUENTIAL, Figure

_LONGEST = 22
# Most layers for which numbers fit into the cells.
_MOST_NUMBERS = 8


def layer_map(
    similarity: pd.DataFrame,
    control: pd.DataFrame | None = None,
    *,
    labels: Sequence[str] = ("reference", "compared"),
    site: str | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw how similar every layer of one model is to every layer of another, with a control at the right.

    Parameters
    ----------
    similarity : DataFrame
        As `analysis.layer_similarity` returns it.
    control : DataFrame, optional
        The same for the untrained models.
    labels : (str, str)
        Names of the models: of the rows and of the columns.
    site : str, optional
        A layer to frame.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Heat maps with ``meta["role"]`` "layers" and "control". The names of the layers are the axes' values.

    Examples
    --------
    >>> table = pd.DataFrame([[1.0, 0.4], [0.4, 0.9]], index=["embed", "hidden"], columns=["embed", "hidden"])
    >>> figure = layer_map(table, labels=["next-token", "NextLat"], site="hidden")
    >>> figure.data[0].y, figure.layout.yaxis.title.text
    (('embed', 'hidden'), 'layer of next-token')
    """
    down, across = (escape(shorten(label, _LONGEST)) for label in labels)
    parts = [("layers", "CKA, trained", similarity)]
    parts += [] if control is None else [("control", "CKA, untrained", control)]
    layout, traces = Layout(), []
    numbered = max(similarity.shape) <= _MOST_NUMBERS
    for (role, name, table), place in zip(parts, column_domains(len(parts), 0.04), strict=True):
        axes = layout.view(
            place, [0.0, 1.0], title=name,
            x={"title": {"text": f"layer of {across}"}, "type": "category", "showgrid": False, "automargin": "height",
               "range": [-0.5, table.shape[1] - 0.5], "fixedrange": True},
            y={"title": {"text": f"layer of {down}" if role == "layers" else ""}, "type": "category",
               "showgrid": False, "range": [-0.5, len(table) - 0.5], "fixedrange": True,
               "showticklabels": role == "layers"},
        )  # fmt: skip
        numbers = np.vectorize(lambda value: "" if np.isnan(value) else f"{value:.2f}")(table.to_numpy(dtype=float))
        traces.append(
            go.Heatmap(
                x=list(map(str, table.columns)), y=list(map(str, table.index)), z=table.to_numpy(dtype=float),
                zmin=0, zmax=1, colorscale=[[i / (len(SEQUENTIAL) - 1), shade] for i, shade in enumerate(SEQUENTIAL)],
                text=numbers, texttemplate="%{text}" if numbered else None, xgap=1, ygap=1,
                showscale=role == "layers" and not numbered, colorbar={"thickness": 10, "outlinewidth": 0},
                hovertemplate=f"{down}, layer %{{y}}<br>{across}, layer %{{x}}<br>CKA %{{z:.3f}}"
                "<br>click: show the layer %{y}<extra></extra>",
                meta={"role": role}, **axes,
            )
        )  # fmt: skip
        if site in table.index and role == "layers":
            at = list(table.index).index(site)
            frame = {"x0": -0.5, "x1": table.shape[1] - 0.5, "y0": at - 0.5, "y1": at + 0.5, **_of(axes)}
            layout.lines.append({"type": "rect", **frame, "line": {"color": CURSOR, "width": 3}})
    margin = {"l": 66, "r": 20 if numbered else 70, "t": 24, "b": 46}
    return layout.finish(traces, theme, height=300, margin=margin, dragmode=False, meta={"least": 190})


def _of(axes: dict[str, str]) -> dict[str, str]:
    return {"xref": axes["xaxis"], "yref": axes["yaxis"]}
