"""Training curves: the validation loss with the Bayes floor, and the headline measure of a world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import one_of
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout, column_domains
from nextlat_viz.figures.theme import OBJECTIVES, Theme, dash
from nextlat_viz.plotting import CURSOR, Figure
from nextlat_viz.worlds.headline import HEADLINES, headline

_LOSS = "validation loss, nats per token"
_LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}


def loss_curves(
    metrics: Mapping[str, pd.DataFrame], *, log_steps: bool = False, title: str = "", theme: Theme = "auto"
) -> Figure:
    """Draw the validation loss of each model over training, and the Bayes floor: the lowest loss any model can have.

    Parameters
    ----------
    metrics : {label: DataFrame}
        One table per model, as ``checkpoint.metrics``: ``step``, ``loss`` and, if it is known, ``floor`` (validation,
        nats per token). Losses of training batches are not drawn: sampling noise can take them below the floor.
    log_steps : bool
        Draw steps on a logarithmic axis, to show the start of training.
    title : str
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure

    Raises
    ------
    UnknownNameError
        When a table lacks the step or the loss.

    Examples
    --------
    >>> table = pd.DataFrame({"step": [100, 200], "loss": [0.60, 0.47], "floor": [0.462, 0.462]})
    >>> [trace.name for trace in loss_curves({"NextLat": table}).data]
    ['NextLat', 'Bayes floor']
    """
    _require(metrics, "step", "loss")
    layout, x = Layout(), {"title": {"text": "training step"}, "type": "log" if log_steps else "linear"}
    layout.view([0.0, 1.0], [0.0, 1.0], x=x, y=_LOSS)
    look = {"height": 360, "margin": {"t": 48 if title else 30}, "hovermode": "x unified"}
    return _curves_figure(layout, _losses(metrics), title, theme, **look)


def training_curves(
    metrics: Mapping[str, pd.DataFrame],
    *,
    step: int | None = None,
    snapshots: Sequence[int] = (),
    title: str = "",
    theme: Theme = "auto",
) -> Figure:
    """Draw the validation loss with the Bayes floor and, at its right, the world's headline measure.

    Parameters
    ----------
    metrics : {label: DataFrame}
        As in `loss_curves`, with the headline measure of the world if it has one.
    step : int, optional
        The training step to mark; default the last of each model.
    snapshots : sequence of int
        Steps to mark by a dot on the curves.
    title : str
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta["role"]``: "curve", "snapshots", "floor" or "cursor".

    Raises
    ------
    UnknownNameError
        When a table lacks the step or the loss.

    Examples
    --------
    >>> table = pd.DataFrame({"step": [0, 100], "loss": [0.7, 0.5], "floor": 0.462, "belief_r2": [0.1, 0.8]})
    >>> figure = training_curves({"NextLat": table}, step=100, snapshots=[0, 100])
    >>> [trace.meta["role"] for trace in figure.data if trace.xaxis == "x2"]
    ['curve', 'snapshots', 'cursor']
    """
    _require(metrics, "step", "loss")
    name = headline(column for table in metrics.values() for column in table)
    layout, traces = Layout(), []
    for across, column in zip(column_domains(2 if name else 1, 0.12), ["loss", name], strict=False):
        text = _LOSS if column == "loss" else HEADLINES[name]
        axes = layout.view(across, [0.0, 1.0], x={"title": {"text": "training step"}, "rangemode": "tozero"}, y=text)
        curves = _losses(metrics) if column == "loss" else _curves(metrics, column, "%{y:.3f}")
        traces += [trace.update(**axes, showlegend=trace.showlegend and column == "loss") for trace in curves]
        for color, table in zip(themes.model_colors(list(metrics)), metrics.values(), strict=True):
            if column not in table:
                continue
            shown = table["step"] == (table["step"].max() if step is None else step)
            for role, rows, marker in (
                ("snapshots", table[table["step"].isin(snapshots)], {"size": 6, "color": color}),
                ("cursor", table[shown], {"size": 12, "color": color, "line": {"width": 3, "color": CURSOR}}),
            ):
                traces.append(
                    go.Scatter(
                        x=rows["step"], y=rows[column], mode="markers", marker=marker, showlegend=False,
                        hoverinfo="skip", meta={"role": role}, **axes,
                    )
                )  # fmt: skip
        if step is not None:
            layout.rule(axes, {"color": CURSOR, "width": 1, "dash": "dot"}, x=step)
    return _curves_figure(layout, traces, title, theme, meta={"least": 136})


def _require(metrics: Mapping[str, pd.DataFrame], *columns: str) -> None:
    for table in metrics.values():
        for column in columns:
            one_of("column of the metrics", column, table)


def _curves(metrics: Mapping[str, pd.DataFrame], column: str, hover: str) -> list[Any]:
    """Draw a column as a line for each model whose table has it."""
    lines = []
    for i, ((label, table), color) in enumerate(zip(metrics.items(), themes.model_colors(list(metrics)), strict=True)):
        name = escape(label)
        if column in table:
            lines.append(
                go.Scatter(
                    x=table["step"], y=table[column], mode="lines", name=name, legendgroup=name, showlegend=True,
                    line={"color": color, "width": 2.2, "dash": dash(i)}, meta={"role": "curve"},
                    hovertemplate=f"step %{{x:,}}<br>{hover}<extra>{name}</extra>",
                )
            )  # fmt: skip
    return lines


def _losses(metrics: Mapping[str, pd.DataFrame]) -> list[Any]:
    """Draw the losses of all models, and the floors of those that have one."""
    traces = _curves(metrics, "loss", "%{y:.4f} nats per token")
    known = [table[["step", "floor"]] for table in metrics.values() if "floor" in table]
    if not known:
        return traces
    floors = pd.concat(known).drop_duplicates().sort_values("step")
    for i, (level, steps) in enumerate(floors.groupby("floor")["step"]):
        traces.append(
            go.Scatter(
                x=[steps.min(), steps.max()], y=[level, level], mode="lines", name="Bayes floor",
                legendgroup="floor", showlegend=i == 0, line={"color": themes.EXACT, "width": 1.2, "dash": "6px,2px"},
                hovertemplate="Bayes floor %{y:.4f} nats per token<extra></extra>", meta={"role": "floor"},
            )
        )  # fmt: skip
    return traces


def headline_curves(checkpoints: Sequence[Any], *, title: str = "", theme: Theme = "auto") -> Figure:
    """Draw the world's headline measure over training, one line per run: at equal steps, and at equal compute.

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
        When a run has no headline measure, or a different one from the first run.

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
    costs = {name: run.operations for name, run in {run.objective: run for run in checkpoints}.items()}
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
    return _curves_figure(layout, traces, title, theme)


def _curves_figure(layout: Layout, traces: Sequence[Any], title: str, theme: Theme, **options: Any) -> Figure:
    """Return a figure of curves side by side, with the legend at its top right."""
    look = {"height": 340, "margin": {"t": 64 if title else 30}, "legend": _LEGEND}
    return layout.finish(traces, theme, title={"text": escape(title)}, **look | options)
