"""Any measure as a picture: every run a mark or a thin line, the mean of each objective over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.probes import OBJECTIVES
from nextlat_viz.figures.rows import escape
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import Measure

SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "star", "hexagon", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_GAP = 0.05
_SPREAD = 0.14


def measure(found: Measure, *, title: str | None = None, theme: Theme = "auto") -> Figure:
    """Draw a measure: one mark per run with its standard error, and the mean over the seeds of each objective.

    Objectives differ in symbol and dash as well as in colour. A first setting of numbers is a horizontal axis;
    otherwise settings, or without any the objectives themselves, stand side by side. A second setting makes a view of
    its own for each of its values.

    Parameters
    ----------
    found : Measure
    title : str, optional
        Default the measure's name.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta``: ``role`` ("run", "mean" or "reference") and ``objective``.

    Examples
    --------
    >>> from nextlat_viz.analysis.measure import Measure, record
    >>> rows = [record("w", "nextlat", 0, p=p, value=1 - p) for p in (0.0, 0.5)]
    >>> figure = measure(Measure("detours", pd.DataFrame(rows), by=("p",)))
    >>> [trace.meta["role"] for trace in figure.data], figure.layout.xaxis.title.text
    (['run', 'mean'], 'p')
    """
    table = found.table
    objectives = list(dict.fromkeys(table["objective"]))
    labels = [OBJECTIVES.get(name, str(name)) for name in objectives]
    colors = dict(zip(objectives, themes.model_colors(labels), strict=True))
    x = found.by[0] if found.by else "objective"
    numeric = x != "objective" and pd.api.types.is_numeric_dtype(table[x])
    views = _views(found)
    figure = Figure()
    for i, (_, its) in enumerate(views):
        for j, objective in enumerate(objectives):
            look = {"color": colors[objective], "symbol": SYMBOLS[j % len(SYMBOLS)], "dash": DASHES[j % len(DASHES)]}
            ours = its[its["objective"] == objective]
            figure.add_traces(_objective(ours, x, numeric, labels[j], j, len(objectives), i, look, objectives))
    height = 380
    figure.update_layout(
        template=themes.template(theme),
        title={"text": escape(found.name if title is None else title)},
        height=height,
        margin={"l": 64, "r": 16, "t": 84, "b": 56},
        hovermode="closest",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "yref": "paper",
                "tracegroupgap": 4},
        annotations=[_heading(i, len(views), name) for i, (name, _) in enumerate(views) if name],
        **_axes(found, views, x, numeric, objectives, labels),
    )  # fmt: skip
    if len(views) > 1:
        figure.update_layout(legend={"y": 1.1})
    for name, value in found.references.items():
        for i in range(len(views)):
            figure.add_shape(
                type="line", x0=0, x1=1, xref=f"x{_number(i)} domain", y0=value, y1=value, yref=f"y{_number(i)}",
                line={"color": themes.EXACT, "width": 1.4, "dash": "dot"},
            )  # fmt: skip
        figure.add_annotation(
            text=escape(name), x=1, xref=f"x{_number(len(views) - 1)} domain", y=value,
            yref=f"y{_number(len(views) - 1)}", xanchor="right", yanchor="bottom", showarrow=False, font={"size": 11},
        )  # fmt: skip
    return figure


def _views(found: Measure) -> list[tuple[str, pd.DataFrame]]:
    if len(found.by) < 2:
        return [("", found.table)]
    settings = list(found.by[1:])
    views = []
    for values, its in found.table.groupby(settings, sort=False, dropna=False):
        name = ", ".join(
            f"{setting} {value:.4g}" if isinstance(value, float) else f"{setting} {value}"
            for setting, value in zip(settings, values, strict=True)
        )
        views.append((name, its))
    return views


def _objective(
    its: pd.DataFrame,
    x: str,
    numeric: bool,
    label: str,
    place: int,
    places: int,
    view: int,
    look: dict[str, Any],
    objectives: list[str],
) -> list[go.Scatter]:
    """The runs of one objective in one view, then their mean."""
    if its.empty:
        return []
    name = escape(label)
    axes = {"xaxis": f"x{_number(view)}", "yaxis": f"y{_number(view)}"}
    meta = {"objective": str(its["objective"].iloc[0]), "view": view}
    group = {"legendgroup": name, "showlegend": False}
    categories = objectives if x == "objective" else list(dict.fromkeys(its[x]))
    shift = (place - (places - 1) / 2) * _SPREAD if x != "objective" and not numeric else 0.0

    def at(values: pd.Series) -> list[float]:
        if numeric:
            return [float(value) for value in values]
        return [categories.index(value) + shift for value in values]

    traces = []
    for (model, seed), run in its.groupby(["model", "seed"], sort=False, dropna=False):
        run = run.sort_values(x) if numeric else run
        said = escape(model) if pd.isna(seed) else f"{name}, seed {seed}"
        traces.append(
            go.Scatter(
                x=at(run[x]), y=run["value"].tolist(), mode="lines+markers" if numeric else "markers",
                name=name, opacity=0.55 if numeric else 0.8,
                line={"color": look["color"], "width": 1, "dash": look["dash"]},
                marker={"color": look["color"], "symbol": f"{look['symbol']}-open", "size": 6 if numeric else 9},
                error_y={"type": "data", "array": run["error"].fillna(0).tolist(), "thickness": 1, "width": 3,
                         "visible": bool(run["error"].notna().any())},
                customdata=run["trials"].tolist(),
                hovertemplate=f"{said}<br>%{{y:.4g}}, %{{customdata}} trials<extra></extra>",
                meta={"role": "run", **meta}, **group, **axes,
            )
        )  # fmt: skip
    mean = its.groupby(x, sort=numeric)["value"].mean()
    marker = {"color": look["color"], "symbol": look["symbol"], "size": 8} if numeric else {
        "color": look["color"], "symbol": "line-ew-open", "size": 26, "line": {"width": 3}}  # fmt: skip
    traces.append(
        go.Scatter(
            x=at(mean.index.to_series()), y=mean.tolist(), mode="lines+markers" if numeric else "markers", name=name,
            line={"color": look["color"], "width": 2.6, "dash": look["dash"]}, marker=marker,
            hovertemplate=f"{name}, mean over seeds<br>%{{y:.4g}}<extra></extra>",
            meta={"role": "mean", **meta}, **{**group, "showlegend": view == 0}, **axes,
        )
    )  # fmt: skip
    return traces


def _axes(
    found: Measure, views: list[tuple[str, pd.DataFrame]], x: str, numeric: bool, objectives: list[str],
    labels: list[str],
) -> dict[str, Any]:  # fmt: skip
    layout: dict[str, Any] = {}
    width = (1 - _GAP * (len(views) - 1)) / len(views)
    for i, (_, its) in enumerate(views):
        left = i * (width + _GAP)
        across: dict[str, Any] = {"domain": [left, left + width], "anchor": f"y{_number(i)}"}
        if numeric:
            across["title"] = {"text": escape(x)}
        else:
            names = labels if x == "objective" else [escape(name) for name in dict.fromkeys(its[x])]
            across |= {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4]}
            across |= {"showgrid": False, "title": {"text": "" if x == "objective" else escape(x)}}
        up: dict[str, Any] = {"anchor": f"x{_number(i)}", "title": {"text": escape(found.unit) if i == 0 else ""}}
        if i:
            up |= {"matches": "y", "showticklabels": False}
        if found.unit == "share":
            up["range"] = [-0.04, 1.06]
        layout |= {f"xaxis{_number(i)}": across, f"yaxis{_number(i)}": up}
    return layout


def _heading(i: int, views: int, text: str) -> dict[str, Any]:
    width = (1 - _GAP * (views - 1)) / views
    return {
        "xref": "paper", "yref": "paper", "x": i * (width + _GAP), "y": 1, "yshift": 4, "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "text": f"<b>{escape(text)}</b>",
    }  # fmt: skip


def _number(i: int) -> str:
    return "" if i == 0 else str(i + 1)
