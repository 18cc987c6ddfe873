"""Validation loss over training, with the Bayes floor."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.theme import Theme, dash
from nextlat_viz.plotting import Figure


def loss_curves(
    metrics: Mapping[str, pd.DataFrame], *, log_steps: bool = False, title: str = "", theme: Theme = "auto"
) -> Figure:
    """Draw the validation loss of each model over training, and the Bayes floor: the lowest loss any model can have.

    Parameters
    ----------
    metrics : {label: DataFrame}
        One table per model, with ``step``, ``loss`` and ``floor`` (validation, nats per token), as
        ``checkpoint.metrics`` has it. Losses of training batches are not drawn: sampling noise can take them below
        the floor.
    log_steps : bool
        Logarithmic steps, to show the start of training.
    title : str
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure

    Raises
    ------
    UnknownNameError
        When a table lacks one of the columns.

    Examples
    --------
    >>> table = pd.DataFrame({"step": [100, 200], "loss": [0.60, 0.47], "floor": [0.462, 0.462]})
    >>> [trace.name for trace in loss_curves({"NextLat": table}).data]
    ['NextLat', 'Bayes floor']
    """
    for table in metrics.values():
        for column in ("step", "loss", "floor"):
            if column not in table:
                raise unknown("column of the metrics", column, map(str, table.columns))
    figure = Figure()
    for i, ((label, table), color) in enumerate(zip(metrics.items(), themes.model_colors(list(metrics)), strict=True)):
        name = escape(label)
        figure.add_trace(
            go.Scatter(
                x=table["step"], y=table["loss"], mode="lines", name=name,
                line={"color": color, "width": 2.2, "dash": dash(i)},
                hovertemplate="step %{x:,}<br>%{y:.4f} nats per token<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    floors = pd.concat([table[["step", "floor"]] for table in metrics.values()]).drop_duplicates().sort_values("step")
    for i, (level, steps) in enumerate(floors.groupby("floor")["step"]):
        figure.add_trace(
            go.Scatter(
                x=[steps.min(), steps.max()], y=[level, level], mode="lines", name="Bayes floor",
                legendgroup="floor", showlegend=i == 0, line={"color": themes.EXACT, "width": 1.2, "dash": "6px,2px"},
                hovertemplate="Bayes floor %{y:.4f} nats per token<extra></extra>",
            )
        )  # fmt: skip
    figure.update_layout(
        template=themes.template(theme),
        title={"text": escape(title)},
        height=360,
        margin={"t": 48 if title else 30},
        xaxis={"title": {"text": "training step"}, "type": "log" if log_steps else "linear"},
        yaxis={"title": {"text": "validation loss, nats per token"}},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        hovermode="x unified",
    )
    return figure
