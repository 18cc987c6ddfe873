"""Training curves: the validation loss over training with the Bayes floor, and the final loss of every seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout
from nextlat_viz.figures.theme import OBJECTIVES, Theme, dash
from nextlat_viz.plotting import MISSING, Figure
from nextlat_viz.worlds.headline import HEADLINES, headline

SEED_COLUMNS = (
    "world", "objective", "seed", "belief_r2", "belief_r2_shuffled", "belief_r2_untrained", "loss", "floor",
)  # fmt: skip
_SIDES = (
    ([0.1, 0.5], "loss above the Bayes floor, nats per token"),
    ([0.56, 1.0], "belief read by a linear probe, held-out R²"),
)
_CONTROLS = (
    ("belief_r2_shuffled", "shuffled labels", "x-thin-open"),
    ("belief_r2_untrained", "untrained model", "circle-open"),
)


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


def every_seed(table: pd.DataFrame, *, theme: Theme = "auto") -> Figure:
    """Draw every seed: how far its loss is above the floor, and how much belief a linear probe reads.

    Parameters
    ----------
    table : DataFrame
        One row per run: ``world, objective, seed, belief_r2, belief_r2_shuffled, belief_r2_untrained, loss, floor``;
        losses in nats per token.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A row per world, all seeds shown. The vertical stroke is the mean over seeds.

    Raises
    ------
    UnknownNameError
        When a column is missing.
    """
    for name in SEED_COLUMNS:
        if name not in table:
            raise unknown("column of the table of seeds", name, map(str, table.columns))
    worlds, objectives = list(dict.fromkeys(table["world"])), list(dict.fromkeys(table["objective"]))
    labels = [OBJECTIVES.get(name, str(name)) for name in objectives]
    colors = themes.model_colors(labels)
    traces: list[Any] = []
    layout = Layout()
    height = 1 / len(worlds)
    for i, world in enumerate(worlds):
        top = 1 - i * height
        up = [top - height * 0.8, top - height * 0.1]
        for side, (across, title) in enumerate(_SIDES):
            axes = layout.view(
                across,
                up,
                x={"rangemode": "tozero", "zeroline": True, "title": {"text": title if i == len(worlds) - 1 else ""}},
                y={
                    "range": [len(objectives) - 0.5, -0.5], "showgrid": False,
                    "tickvals": list(range(len(objectives))), "showticklabels": side == 0,
                    "ticktext": [f"<b>{escape(label)}</b>" for label in labels], "ticks": "outside", "ticklen": 6,
                    "tickcolor": "rgba(0,0,0,0)",
                },
                title="" if side else escape(world),
            )  # fmt: skip
            for j, (objective, label, color) in enumerate(zip(objectives, labels, colors, strict=True)):
                runs = table[(table["world"] == world) & (table["objective"] == objective)]
                look: dict[str, Any] = {"color": color, "ink": themes.ink(theme), "first": i == j == 0}
                traces += _seeds(runs, j, bool(side), axes, name=escape(label), **look)
    return layout.finish(
        traces,
        theme,
        height=70 + 58 * len(worlds) * (len(objectives) + 0.6),
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        margin={"l": 20, "r": 14, "t": 30, "b": 48},
    )


def _seeds(
    runs: pd.DataFrame,
    row: int,
    belief: bool,
    axes: Mapping[str, str],
    *,
    name: str,
    color: str,
    ink: str,
    first: bool,
) -> Iterator[go.Scatter]:
    # Seeds of one objective are spread over the height of its row, in their order.
    spread = row + 0.09 * (np.arange(len(runs)) - (len(runs) - 1) / 2)

    def dots(x: pd.Series, label: str, marker: Mapping[str, Any], **options: Any) -> go.Scatter:
        return go.Scatter(
            x=x, y=spread, mode="markers", name=label, marker=marker, customdata=runs["seed"], legendgroup=label,
            hovertemplate=f"{name}, seed %{{customdata}}<br>{label} %{{x:.4f}}<extra></extra>", **options, **axes,
        )  # fmt: skip

    if belief:
        for column, label, symbol in _CONTROLS:
            marker = {"size": 8, "symbol": symbol, "color": MISSING, "line": {"width": 1.5}}
            yield dots(runs[column], label, marker, showlegend=first)
    value = runs["belief_r2"] if belief else runs["loss"] - runs["floor"]
    yield dots(value, "R²" if belief else "above the floor", {"size": 11, "color": color}, showlegend=False)
    yield go.Scatter(
        x=[value.mean()], y=[row], mode="markers", name="mean over seeds", legendgroup="mean",
        showlegend=first and belief, hovertemplate=f"{name}, mean over seeds %{{x:.4f}}<extra></extra>",
        marker={"size": 34, "symbol": "line-ns-open", "color": ink, "line": {"width": 2}}, **axes,
    )  # fmt: skip
