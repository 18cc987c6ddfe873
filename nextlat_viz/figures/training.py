"""Training curves: the validation loss with the Bayes floor, and the headline measure of a world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout
from nextlat_viz.figures.theme import OBJECTIVES, Theme, dash
from nextlat_viz.plotting import Figure
from nextlat_viz.worlds.headline import HEADLINES, headline


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


def headline_curves(checkpoints: Sequence[Any], *, title: str = "", theme: Theme = "auto") -> Figure:
    """Draw the world's headline measure over training, every run a line: at equal steps, and at equal compute.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        Runs of one world, all with the same headline measure in their ``metrics``.
    title : str
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Left by training step, right by floating-point operations, as `Checkpoint.operations` counts them for a step.

    Raises
    ------
    ValueError
        When a run has no headline measure, or another one than the first.

    Examples
    --------
    >>> from nextlat_viz import load
    >>> figure = headline_curves([load("path_star/nextlat"), load("path_star/next_token")])
    >>> figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text
    ('training step', 'training compute, 10¹² operations')
    """
    tables = [checkpoint.metrics for checkpoint in checkpoints]
    names = [headline(table.columns) for table in tables]
    for checkpoint, name in zip(checkpoints, names, strict=True):
        if not name or name != names[0]:
            raise ValueError(
                f"{checkpoint.name} has {name or 'no headline measure'} in its metrics, and the first run has "
                f"{names[0] or 'none'}: give runs of one world that log one of {', '.join(HEADLINES)}"
            )
    labels = [OBJECTIVES.get(checkpoint.objective, checkpoint.objective) for checkpoint in checkpoints]
    kinds = list(dict.fromkeys(labels))
    look = dict(zip(kinds, zip(themes.model_colors(kinds), map(dash, range(len(kinds))), strict=True), strict=True))
    # All seeds of an objective cost the same.
    costs = {name: one.operations for name, one in {one.objective: one for one in checkpoints}.items()}
    layout, traces = Layout(), []
    sides = (([0.0, 0.47], "training step"), ([0.53, 1.0], "training compute, 10¹² operations"))
    for side, (across, label) in enumerate(sides):
        y = {"title": {"text": HEADLINES[names[0]] if side == 0 else ""}, "showticklabels": side == 0}
        axes = layout.view(across, [0.0, 1.0], x={"title": {"text": label}, "rangemode": "tozero"}, y=y)
        for i, (checkpoint, table, kind) in enumerate(zip(checkpoints, tables, labels, strict=True)):
            color, line = look[kind]
            unit = 1.0 if side == 0 else costs[checkpoint.objective] / 1e12
            traces.append(
                go.Scatter(
                    x=table["step"] * unit, y=table[names[0]], mode="lines", name=kind, legendgroup=kind,
                    showlegend=side == 0 and labels.index(kind) == i, line={"color": color, "width": 1.6, "dash": line},
                    hovertemplate=f"{escape(kind)}, seed {checkpoint.seed}<br>%{{x:,.4g}}: %{{y:.3f}}<extra></extra>",
                    **axes,
                )
            )  # fmt: skip
    return layout.finish(
        traces,
        theme,
        title={"text": escape(title)},
        height=340,
        margin={"t": 64 if title else 30},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    )
