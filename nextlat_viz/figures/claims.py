"""Every claim about next-latent prediction in one figure: all seeds of both objectives, with the controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout
from nextlat_viz.figures.theme import OBJECTIVES, Theme
from nextlat_viz.plotting import MISSING, Figure

_COLUMNS = ("claim", "world", "unit", "better", "next_token", "nextlat", "controls", "verdict")
_SIDES = ("next_token", "nextlat")
_ROW = 136
_SYMBOLS = ("circle-open", "x-thin-open", "square-open", "triangle-up-open", "star-open", "cross-thin-open")


def claims_figure(judged: pd.DataFrame, *, columns: int = 2, theme: Theme = "auto") -> Figure:
    """Draw each claim: the values of all seeds of both objectives, the controls, and the verdict.

    Parameters
    ----------
    judged : DataFrame
        As ``nextlat_viz.claims()`` returns it.
    columns : int
        Claims side by side.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A view per claim, with a row per objective. Dots are seeds, vertical strokes their means, grey marks controls.

    Raises
    ------
    UnknownNameError
        When a column is missing.
    """
    for name in _COLUMNS:
        if name not in judged:
            raise unknown("column of the table of claims", name, map(str, judged.columns))
    labels = [OBJECTIVES[name] for name in _SIDES]
    colors = themes.model_colors(labels)
    controls = list(dict.fromkeys(name for row in judged["controls"] for name in row))
    symbols = {name: _SYMBOLS[i % len(_SYMBOLS)] for i, name in enumerate(controls)}
    down = -(-len(judged) // columns)
    layout, traces, legend = Layout(), [], set[str]()

    def dots(name: str, values: object, row: object, marker: dict[str, object], hover: str, **axes: str) -> go.Scatter:
        first = name not in legend
        legend.add(name)
        return go.Scatter(
            x=values, y=row, mode="markers", name=escape(name), legendgroup=name, showlegend=first, marker=marker,
            hovertemplate=f"{escape(hover)} %{{x:.4g}}<extra></extra>", **axes,
        )  # fmt: skip

    for i, row in enumerate(judged.to_dict("records")):
        at, across = divmod(i, columns)
        width, top = 1 / columns, 1 - at / down
        left = across * width + (0.075 if columns > 1 else 0.1)
        arrow = {"higher": " →", "lower": " ←"}.get(row["better"], "")
        axes = layout.view(
            [left, (across + 1) * width - 0.02],
            [top - 0.62 / down, top - 0.16 / down],
            x={"title": {"text": escape(row["unit"]) + arrow, "standoff": 4}, "zeroline": False, "nticks": 6},
            y={
                "range": [1.5, -0.5], "showgrid": False, "tickvals": [0, 1], "ticktext": labels, "zeroline": False,
            },
            title=f"{escape(row['claim'])}",
            more=f"{escape(row['world'])} · <b>{escape(row['verdict'])}</b>",
        )  # fmt: skip
        for name, value in row["controls"].items():
            look = {"size": 9, "symbol": symbols[name], "color": MISSING, "line": {"width": 1.6, "color": MISSING}}
            traces.append(dots(name, [value, value], [0, 1], look, name, **axes))
        for side, (objective, label, color) in enumerate(zip(_SIDES, labels, colors, strict=True)):
            values = np.array(row[objective])
            spread = side + 0.09 * (np.arange(len(values)) - (len(values) - 1) / 2)
            look = {"size": 9, "color": color, "symbol": themes.symbol(side)}
            traces.append(dots(label, values, spread, look, f"{label}, one seed:", **axes))
            stroke = {"size": 24, "symbol": "line-ns-open", "color": color, "line": {"width": 2}}
            traces.append(dots("mean over seeds", [values.mean()], [side], stroke, f"{label}, mean:", **axes))
    return layout.finish(
        traces,
        theme,
        height=64 + _ROW * down,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1 + 24 / (_ROW * down), "yanchor": "bottom"},
        margin={"l": 12, "r": 12, "t": 58, "b": 6},
    )
