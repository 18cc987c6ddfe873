"""What linear probes found: scores beside their controls, by layer, by position, and over every seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import MISSING, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult

METRICS = {"R2": "R²", "accuracy": "accuracy"}
SEED_COLUMNS = (
    "world", "objective", "seed", "belief_r2", "belief_r2_shuffled", "belief_r2_untrained", "loss", "floor",
)  # fmt: skip
OBJECTIVES = {"next_token": "next-token", "nextlat": "NextLat", "mtp": "MTP", "jtp": "JTP", "bst": "BST"}
_LOWEST = -0.5


def probe_overview(
    results: Sequence[ProbeResult],
    by_site: Sequence[pd.DataFrame | None] = (),
    by_position: Sequence[pd.DataFrame | None] = (),
    *,
    labels: Sequence[str] | None = None,
    site: str | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw what each model's probe scored, beside its controls; by layer; by position.

    Parameters
    ----------
    results : sequence of ProbeResult
        One per model, all of one target.
    by_site : sequence of DataFrame or None, optional
        For each model what `analysis.probe_sites` gives.
    by_position : sequence of DataFrame or None, optional
        For each model what `analysis.probe_positions` gives.
    labels : sequence of str, optional
        What to call the models; default what the results say.
    site : str, optional
        The layer to mark in the second view.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        The third view's traces have ``meta["role"] == "position"``, their points one per position; the second view's
        "site", one per layer.

    Raises
    ------
    ValueError
        When there is no result, or the results are of different targets.
    """
    if len({(one.target, one.metric) for one in results}) != 1:
        raise ValueError("results must be one or more probes of one target")
    metric = METRICS[results[0].metric]
    labels = [one.label for one in results] if labels is None else labels
    colors = themes.model_colors(labels)
    by_site, by_position = (list(given) or [None] * len(results) for given in (by_site, by_position))
    figure = Figure()
    for i, (one, color) in enumerate(zip(results, colors, strict=True)):
        figure.add_traces(_score(one, labels[i], i, color, theme))
    for i, (layers, color) in enumerate(zip(by_site, colors, strict=True)):
        figure.add_traces(_lines(labels[i], layers, "site", i, color))
    for i, (places, color) in enumerate(zip(by_position, colors, strict=True)):
        figure.add_traces(_lines(labels[i], places, "position", i, color)[:1])
    low = _floor(results, by_site, by_position)
    scale = {"range": [low, 1.06], "zeroline": True, "zerolinecolor": "rgba(128,128,128,0.5)", "zerolinewidth": 1}
    figure.update_layout(
        template=themes.template(theme),
        height=360,
        margin={"l": 20, "r": 14, "t": 50, "b": 84},
        hovermode="closest",
        clickmode="event",
        xaxis={**scale, "domain": [0.1, 0.36], "title": {"text": f"held-out {metric}"}},
        yaxis={
            "tickvals": list(range(len(results))),
            "ticktext": [f"<b>{escape(label)}</b>" for label in labels],
            "range": [len(results) - 0.5, -0.5],
            "showgrid": False,
        },
        xaxis2={"domain": [0.42, 0.68], "anchor": "y2", "type": "category"},
        yaxis2={**scale, "anchor": "x2"},
        xaxis3={"domain": [0.74, 1.0], "anchor": "y3", "title": {"text": "position (tokens read)"}},
        yaxis3={**scale, "anchor": "x3"},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.2, "yanchor": "top"},
        annotations=[
            _heading(0.1, f"{escape(results[0].target)} read from {escape(results[0].site)}"),
            _heading(0.42, "by layer"),
            _heading(0.74, f"by position, from {escape(results[0].site)}"),
        ],
        shapes=_mark(site, by_site),
    )
    return figure


def _heading(x: float, text: str) -> dict[str, Any]:
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": 1, "yshift": 8, "xanchor": "left", "yanchor": "bottom",
        "showarrow": False, "text": f"<b>{text}</b>",
    }  # fmt: skip


def _mark(site: str | None, by_site: Sequence[pd.DataFrame | None]) -> list[dict[str, Any]]:
    if site is None or not any(table is not None and site in set(table["site"]) for table in by_site):
        return []
    line = {"color": "rgba(128,128,128,0.6)", "width": 1, "dash": "dot"}
    return [{"type": "line", "xref": "x2", "yref": "y2 domain", "x0": site, "x1": site, "y0": 0, "y1": 1, "line": line}]


def _floor(results: Sequence[ProbeResult], *tables: Sequence[pd.DataFrame | None]) -> float:
    """Where the score axis starts: under every number shown, but a terrible R2 must not flatten the good ones."""
    seen = [value for one in results for value in (one.score, one.shuffled, one.untrained) if value is not None]
    for table in (table for given in tables for table in given if table is not None):
        seen += [value for name in ("score", "shuffled", "untrained") if name in table for value in table[name]]
    lowest = float(np.nanmin([0.0, *seen]))
    return max(lowest, _LOWEST) - 0.06


def _score(one: ProbeResult, label: str, row: int, color: str, theme: Theme) -> list[go.Scatter]:
    """Three marks and an interval: what was scored, what the controls scored, and the most there is to score."""
    name = escape(label)
    first = {"showlegend": row == 0}
    grey = {"size": 11, "color": MISSING}

    def mark(value: float | None, label: str, marker: dict[str, Any], **more: Any) -> go.Scatter:
        return go.Scatter(
            x=[value], y=[row], mode="markers", name=label, legendgroup=label, marker=marker,
            hovertemplate=f"{name}<br>{label} %{{x:.3f}}<extra></extra>", meta={"role": "score", "model": row}, **more,
        )  # fmt: skip

    low, high = one.interval
    reach = {"type": "data", "symmetric": False, "array": [high - one.score], "arrayminus": [one.score - low]}
    tall = {"size": 26, "symbol": "line-ns-open", "color": themes.ink(theme), "line": {"width": 2}}
    return [
        mark(one.ceiling, "ceiling", tall, **first),
        mark(one.shuffled, "shuffled labels", {**grey, "symbol": "x-thin-open", "line": {"width": 2}}, **first),
        mark(one.untrained, "untrained model", {**grey, "symbol": "circle-open", "line": {"width": 2}}, **first),
        mark(
            one.score,
            name,
            {"size": 14, "color": color, "symbol": themes.SYMBOLS[row % len(themes.SYMBOLS)]},
            error_x={**reach, "thickness": 2, "width": 6},
        ),
    ]


def _lines(model_label: str, table: pd.DataFrame | None, column: str, model: int, color: str) -> list[go.Scatter]:
    axes = {"xaxis": "x2", "yaxis": "y2"} if column == "site" else {"xaxis": "x3", "yaxis": "y3"}
    name = escape(model_label)

    def line(score: str, label: str, mode: str, style: dict[str, Any], marker: dict[str, Any]) -> go.Scatter:
        known = table is not None and score in table and not table[score].isna().all()
        x, y = (table[column].tolist(), table[score].tolist()) if table is not None and known else ([], [])
        return go.Scatter(
            x=x, y=y, mode=mode, line={"color": color, **style}, marker=marker, showlegend=False, name=label,
            hovertemplate=f"{name}{label}, %{{x}}: %{{y:.3f}}<extra></extra>", meta={"role": column, "model": model},
            **axes,
        )  # fmt: skip

    dash, symbol = themes.DASHES[model % len(themes.DASHES)], themes.SYMBOLS[model % len(themes.SYMBOLS)]
    grey = {"color": MISSING}
    controls = (("untrained", "circle-open"), ("shuffled", "x-thin-open"))
    return [
        line("score", "", "lines+markers", {"width": 2.2, "dash": dash}, {"size": 8, "symbol": symbol}),
        *(
            line(name, f", {name}", "lines+markers", {"width": 1, "dash": dash, **grey}, {"symbol": mark, **grey})
            for name, mark in controls
        ),
    ]


def every_seed(table: pd.DataFrame, *, theme: Theme = "auto") -> Figure:
    """Draw every seed: how far its loss is above the floor, and how much belief a linear map reads.

    Parameters
    ----------
    table : DataFrame
        One row per run: ``world, objective, seed, belief_r2, belief_r2_shuffled, belief_r2_untrained, loss, floor``;
        losses in nats per token.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A row per world; bad seeds stay in. The upright line is the mean over seeds.

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
    figure = Figure()
    layout: dict[str, Any] = {}
    heading = []
    height = 1 / len(worlds)
    for i, world in enumerate(worlds):
        top = 1 - i * height
        up = [top - height * 0.8, top - height * 0.1]
        for side, across in enumerate(([0.1, 0.5], [0.56, 1.0])):
            number = str(2 * i + side + 1)
            axis = "" if number == "1" else number
            layout[f"xaxis{axis}"] = {"domain": across, "anchor": f"y{axis}", "rangemode": "tozero", "zeroline": True}
            layout[f"yaxis{axis}"] = {
                "domain": up, "anchor": f"x{axis}", "range": [len(objectives) - 0.5, -0.5], "showgrid": False,
                "tickvals": list(range(len(objectives))), "showticklabels": side == 0,
                "ticktext": [f"<b>{escape(label)}</b>" for label in labels], "ticks": "outside", "ticklen": 6,
                "tickcolor": "rgba(0,0,0,0)",
            }  # fmt: skip
            layout[f"xaxis{axis}"]["title"] = {"text": "" if i < len(worlds) - 1 else _SIDES[side]}
            for j, (objective, label, color) in enumerate(zip(objectives, labels, colors, strict=True)):
                its = table[(table["world"] == world) & (table["objective"] == objective)]
                figure.add_traces(list(_seeds(its, j, label, color, bool(side), axis, first=i == j == 0, theme=theme)))
        heading.append({**_heading(0.1, escape(world)), "y": up[1], "yshift": 2})
    figure.update_layout(
        template=themes.template(theme), height=70 + 58 * len(worlds) * (len(objectives) + 0.6), annotations=heading,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}, hovermode="closest",
        margin={"l": 20, "r": 14, "t": 30, "b": 48}, **layout,
    )  # fmt: skip
    return figure


_SIDES = ("loss above the floor, nats per token", "belief read by a linear map, held-out R²")


def _seeds(
    its: pd.DataFrame, row: int, label: str, color: str, knowledge: bool, axis: str, first: bool, theme: Theme
) -> Iterable[go.Scatter]:
    name = escape(label)
    spread = row + 0.09 * (np.arange(len(its)) - (len(its) - 1) / 2)
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}

    def dots(x: pd.Series, shown: str, marker: Mapping[str, Any], **more: Any) -> go.Scatter:
        return go.Scatter(
            x=x, y=spread, mode="markers", name=shown, marker=marker, customdata=its["seed"], legendgroup=shown,
            hovertemplate=f"{name}, seed %{{customdata}}<br>{shown} %{{x:.4f}}<extra></extra>", **more, **axes,
        )  # fmt: skip

    value = its["belief_r2"] if knowledge else its["loss"] - its["floor"]
    if knowledge:
        for column, shown, symbol in (
            ("belief_r2_shuffled", "shuffled labels", "x-thin-open"),
            ("belief_r2_untrained", "untrained model", "circle-open"),
        ):
            marker = {"size": 8, "symbol": symbol, "color": MISSING, "line": {"width": 1.5}}
            yield dots(its[column], shown, marker, showlegend=first)
    yield dots(value, "R²" if knowledge else "above the floor", {"size": 11, "color": color}, showlegend=False)
    yield go.Scatter(
        x=[value.mean()], y=[row], mode="markers", name="mean over seeds", legendgroup="mean",
        showlegend=first and knowledge, hovertemplate=f"{name}, mean over seeds %{{x:.4f}}<extra></extra>",
        marker={"size": 34, "symbol": "line-ns-open", "color": themes.ink(theme), "line": {"width": 2}}, **axes,
    )  # fmt: skip
