"""Any measure as a picture: every run a mark or a thin line, the mean of each objective over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz import io
from nextlat_viz.analysis.measure import QUANTITY
from nextlat_viz.display import draws, escape
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.export import one_browser, write
from nextlat_viz.figures.probes import OBJECTIVES
from nextlat_viz.figures.report import report
from nextlat_viz.figures.theme import DASHES, SYMBOLS, Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import Measure
    from nextlat_viz.analysis.measure import Evaluation

_SPREAD = 0.14
_COLUMNS = 3
# Pixels: of a view, above a row of views for its heading, below it for its axis, and of all around.
_HEIGHT, _ABOVE, _BELOW, _TOP = 240, 34, 50, 56
_LEFT, _RIGHT = 64, 16


@draws("measure")
def measure(found: Measure, *, title: str | None = None, theme: Theme = "auto") -> Figure:
    """Draw a measure: one mark per run with its standard error, and the mean over the seeds of each objective.

    Objectives differ in symbol and dash as well as in colour. A first setting of numbers is a horizontal axis;
    otherwise its values, or without any the objectives themselves, stand side by side. Further settings make a view of
    its own for each of their values; views of one unit share a scale, and each ``quantity`` has its own.

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
    grid = _Grid(len(views))
    figure.update_layout(
        template=themes.template(theme),
        title={"text": escape(found.name if title is None else title), "y": 1, "yanchor": "top", "pad": {"t": 14}},
        height=grid.height,
        margin={"l": _LEFT, "r": _RIGHT, "t": 0, "b": 0},
        hovermode="closest",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1 - 12 / grid.height, "yanchor": "top"},
        annotations=[grid.heading(i, name) for i, (name, _) in enumerate(views) if name],
        **_axes(found, views, grid, x, numeric, labels),
    )
    for name, value in found.references.items():
        for i in range(len(views)):
            figure.add_shape(
                type="line", x0=0, x1=1, xref=f"x{_number(i)} domain", y0=value, y1=value, yref=f"y{_number(i)}",
                line={"color": themes.EXACT, "width": 1.4, "dash": "dot"},
            )  # fmt: skip
        figure.add_annotation(
            text=escape(name), x=1, xref="x domain", y=value, yref="y", xanchor="right", yanchor="bottom",
            showarrow=False, font={"size": 11},
        )  # fmt: skip
    return figure


class _Grid:
    """Where views are: in rows of at most three."""

    def __init__(self, views: int) -> None:
        self.columns = min(views, _COLUMNS)
        self.rows = -(-views // self.columns)
        self.height = _TOP + self.rows * (_ABOVE + _HEIGHT + _BELOW)

    def domains(self, i: int) -> tuple[list[float], list[float]]:
        """Across and up, of a view."""
        row, column = divmod(i, self.columns)
        gap = 0.075
        width = (1 - gap * (self.columns - 1)) / self.columns
        left = column * (width + gap)
        top = 1 - (_TOP + row * (_ABOVE + _HEIGHT + _BELOW) + _ABOVE) / self.height
        return [left, left + width], [top - _HEIGHT / self.height, top]

    def heading(self, i: int, text: str) -> dict[str, Any]:
        """What a view is of, above it."""
        across, up = self.domains(i)
        return {
            "xref": "paper", "yref": "paper", "x": across[0], "y": up[1], "yshift": 4, "xanchor": "left",
            "yanchor": "bottom", "showarrow": False, "text": f"<b>{escape(text)}</b>",
        }  # fmt: skip


def _views(found: Measure) -> list[tuple[str, pd.DataFrame]]:
    if len(found.by) < 2:
        return [("", found.table)]
    settings = list(found.by[1:])
    views = []
    for values, its in found.table.groupby(settings, sort=False, dropna=False):
        said = {
            setting: f"{value:.4g}" if isinstance(value, float) else str(value)
            for setting, value in zip(settings, values, strict=True)
        }
        name = ", ".join(text if setting == QUANTITY else f"{setting} {text}" for setting, text in said.items())
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
    for i, ((model, seed), run) in enumerate(its.groupby(["model", "seed"], sort=False, dropna=False)):
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
                # Where means are strokes, which are alike without colour, the key shows the mark of a run.
                meta={"role": "run", **meta}, **{**group, "showlegend": view == i == 0 and not numeric}, **axes,
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
            meta={"role": "mean", **meta}, **{**group, "showlegend": view == 0 and numeric}, **axes,
        )
    )  # fmt: skip
    return traces


def _axes(
    found: Measure, views: list[tuple[str, pd.DataFrame]], grid: _Grid, x: str, numeric: bool, labels: list[str]
) -> dict[str, Any]:
    layout: dict[str, Any] = {}
    for i, (_, its) in enumerate(views):
        wide, high = grid.domains(i)
        across: dict[str, Any] = {"domain": wide, "anchor": f"y{_number(i)}"}
        if numeric:
            across["title"] = {"text": escape(x)}
        else:
            names = labels if x == "objective" else [escape(name) for name in dict.fromkeys(its[x])]
            across |= {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4]}
            across |= {"showgrid": False, "title": {"text": "" if x == "objective" else escape(x)}}
        up: dict[str, Any] = {"domain": high, "anchor": f"x{_number(i)}", "automargin": False}
        if found.unit == "share":
            up["range"] = [-0.04, 1.06]
        if QUANTITY in found.by[1:]:
            unit = found.unit if isinstance(found.unit, str) else found.unit[its[QUANTITY].iloc[0]]
            up["title"] = {"text": escape(unit)}
        elif i % grid.columns == 0:
            up["title"] = {"text": escape(str(found.unit))}
        if i and QUANTITY not in found.by[1:]:
            up |= {"matches": "y", "showticklabels": i % grid.columns == 0}
        layout |= {f"xaxis{_number(i)}": across, f"yaxis{_number(i)}": up}
    return layout


def _number(i: int) -> str:
    return "" if i == 0 else str(i + 1)


@draws("evaluation")
def evaluation_report(evaluation: Evaluation, folder: Path, images: Sequence[str] = ()) -> list[Path]:
    """Write ``report.html`` with a figure of every measure, and images of the figures; return the files."""
    models = evaluation.table[["model", "weights_sha256"]].drop_duplicates().to_dict("records")
    provenance = {"command": "nextlat-viz evaluate", "models": models}
    results = {f"{result.name}, {world}": result for (_, world), result in evaluation.measures.items()}
    figures = {heading: measure(result) for heading, result in results.items()}
    notes = {heading: result.note for heading, result in results.items()}
    written = [report(figures, {}, "Evaluation", folder / "report.html", provenance, notes)]
    with one_browser():
        for (name, world), result in evaluation.measures.items():
            for image in images:
                path = folder / f"{io.file_name(f'{name}_{world}')}.{image}"
                written.append(write(measure(result, theme="light"), path, provenance | {"note": result.note}))
    return written
