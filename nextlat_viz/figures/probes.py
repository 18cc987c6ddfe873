"""Scores of linear probes with their controls: overall, by layer and by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import distinct, escape, words
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout
from nextlat_viz.figures.theme import Theme, dash, symbol
from nextlat_viz.plotting import MISSING, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult

METRICS = {"R2": "R²", "accuracy": "accuracy"}
_LOWEST = -0.5


def scores(*results: ProbeResult) -> list[str]:
    """Write the held-out score of probes of one kind, then each of their controls, with a typographic minus sign."""
    names = {METRICS[results[0].metric]: "score", "shuffled": "shuffled", "untrained": "untrained", "chance": "chance"}
    known = {name: [getattr(result, field) for result in results] for name, field in names.items()}
    written = {name: [rounded(value) for value in values] for name, values in known.items() if None not in values}
    return [f"{name} {' and '.join(texts)}" for name, texts in written.items()]


def rounded(value: float | int, digits: int = 2) -> str:
    """Write a score with a typographic minus sign, and without one if it rounds to zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def probe_overview(
    results: Sequence[ProbeResult],
    by_site: Sequence[pd.DataFrame | None] = (),
    by_position: Sequence[pd.DataFrame | None] = (),
    *,
    labels: Sequence[str] | None = None,
    site: str | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw the score of each model's probe with its controls: overall, by layer and by position.

    Parameters
    ----------
    results : sequence of ProbeResult
        One per model, all of one target.
    by_site : sequence of DataFrame or None, optional
        For each model, what `analysis.probe_sites` returns.
    by_position : sequence of DataFrame or None, optional
        For each model, what `analysis.probe_positions` returns.
    labels : sequence of str, optional
        Names of the models; default those in the results.
    site : str, optional
        The layer to mark in the second view.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces of the second view have ``meta["role"] == "site"`` and a point per layer, those of the third "position"
        and a point per position.

    Raises
    ------
    ValueError
        When there is no result, or the results are of different targets.
    """
    if len({(result.target, result.metric) for result in results}) != 1:
        raise ValueError("results must be one or more probes of one target")
    metric, source = METRICS[results[0].metric], escape(results[0].site)
    labels = distinct(result.label for result in results) if labels is None else labels
    names, colors = [escape(label) for label in labels], themes.model_colors(labels)
    by_site, by_position = (list(tables) or [None] * len(results) for tables in (by_site, by_position))
    lowest = _lowest(results, by_site, by_position)
    scale = {"range": [lowest, 1.06], "zeroline": True, "zerolinecolor": "rgba(128,128,128,0.5)", "zerolinewidth": 1}
    rows = {
        "tickvals": list(range(len(results))), "ticktext": [f"<b>{name}</b>" for name in names],
        "range": [len(results) - 0.5, -0.5], "showgrid": False,
    }  # fmt: skip
    up = [0.0, 1.0]
    traces: list[Any] = []
    layout = Layout()
    axes = layout.view(
        [0.1, 0.36],
        up,
        x={**scale, "title": {"text": f"held-out {metric}"}},
        y=rows,
        title=f"{escape(words(results[0].target))} read from {source}",
    )
    for i, (result, color) in enumerate(zip(results, colors, strict=True)):
        traces += _score(result, names[i], i, color, theme, axes)
    axes = layout.view([0.42, 0.68], up, x={"type": "category"}, y=scale, title="by layer")
    for i, (table, color) in enumerate(zip(by_site, colors, strict=True)):
        traces += _lines(names[i], table, "site", i, color, axes)
    if site is not None and any(table is not None and site in set(table["site"]) for table in by_site):
        layout.rule(axes, {"color": "rgba(128,128,128,0.6)", "width": 1, "dash": "dot"}, x=site)
    axes = layout.view([0.74, 1.0], up, x="position (tokens read)", y=scale, title="by position", more=f"from {source}")
    for i, (table, color) in enumerate(zip(by_position, colors, strict=True)):
        traces += _lines(names[i], table, "position", i, color, axes)[:1]
    return layout.finish(
        traces,
        theme,
        height=360,
        margin={"l": 20, "t": 50, "b": 84},
        clickmode="event",
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.2, "yanchor": "top"},
    )


def _lowest(results: Sequence[ProbeResult], *tables: Sequence[pd.DataFrame | None]) -> float:
    """Return the start of the score axis: below every score, but not so low that good scores look alike."""
    names = ("score", "shuffled", "untrained")
    scores = [0.0, *(getattr(result, name) for result in results for name in names)]
    for table in (table for group in tables for table in group if table is not None):
        scores += [value for name in names if name in table for value in table[name]]
    return max(float(np.nanmin(np.array(scores, dtype=float))), _LOWEST) - 0.06


def _score(
    result: ProbeResult, name: str, row: int, color: str, theme: Theme, axes: Mapping[str, str]
) -> list[go.Scatter]:
    """Draw the score with its interval, the scores of the controls, and the highest score possible."""

    def mark(value: float | None, label: str, look: str, marker: dict[str, Any], **options: Any) -> go.Scatter:
        return go.Scatter(
            x=[value], y=[row], mode="markers", name=label, legendgroup=label, marker={"symbol": look, **marker},
            hovertemplate=f"{name}<br>{label} %{{x:.3f}}<extra></extra>", meta={"role": "score", "model": row},
            **{"showlegend": row == 0, **options}, **axes,
        )  # fmt: skip

    low, high = result.interval
    error = {"array": [high - result.score], "arrayminus": [result.score - low], "thickness": 2, "width": 6}
    grey = {"size": 11, "color": MISSING, "line": {"width": 2}}
    return [
        mark(result.ceiling, "ceiling", "line-ns-open", {**grey, "size": 26, "color": themes.ink(theme)}),
        mark(result.shuffled, "shuffled labels", "x-thin-open", grey),
        mark(result.untrained, "untrained model", "circle-open", grey),
        mark(
            result.score, name, symbol(row), {"size": 14, "color": color},
            error_x={"type": "data", "symmetric": False, **error}, showlegend=True,
        ),
    ]  # fmt: skip


def _lines(
    name: str, table: pd.DataFrame | None, column: str, model: int, color: str, axes: Mapping[str, str]
) -> list[go.Scatter]:
    """Draw a score, and the scores of its controls, over a column of a table."""

    def line(score: str, control: str, width: float, marker: dict[str, Any], color: str) -> go.Scatter:
        known = table is not None and score in table and not table[score].isna().all()
        x, y = (table[column].tolist(), table[score].tolist()) if table is not None and known else ([], [])
        return go.Scatter(
            x=x, y=y, mode="lines+markers", line={"color": color, "width": width, "dash": dash(model)}, name=control,
            hovertemplate=f"{name}{f', {control}' * bool(control)}, %{{x}}: %{{y:.3f}}<extra></extra>", marker=marker,
            showlegend=False, meta={"role": column, "model": model}, **axes,
        )  # fmt: skip

    return [
        line("score", "", 2.2, {"size": 8, "symbol": symbol(model)}, color),
        line("untrained", "untrained model", 1.0, {"symbol": "circle-open", "color": MISSING}, MISSING),
        line("shuffled", "shuffled labels", 1.0, {"symbol": "x-thin-open", "color": MISSING}, MISSING),
    ]
