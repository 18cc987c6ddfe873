"""Figures of every seed with the controls: loss and belief of each world, and every claim."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import one_of
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import KEY_LINE, LEGEND, Grid, Layout
from nextlat_viz.figures.theme import OBJECTIVES, Theme
from nextlat_viz.plotting import MISSING, Figure

_SEED_COLUMNS = (
    "world", "objective", "seed", "belief_r2", "belief_r2_shuffled", "belief_r2_untrained", "loss", "floor",
)  # fmt: skip
_SIDES = (
    ([0.0, 0.46], "loss above the Bayes floor, nats per token"),
    ([0.54, 1.0], "belief read by a linear probe, held-out R²"),
)
_CONTROLS = (
    ("belief_r2_shuffled", "shuffled labels", "x-thin-open"),
    ("belief_r2_untrained", "untrained model", "circle-open"),
)
_CLAIM_COLUMNS = ("claim", "world", "unit", "better", "next_token", "nextlat", "controls", "verdict")
# Of a claim: pixels of its view, of its axis, and of a line of its heading; letters of such a line, by columns.
_VIEW, _AXIS, _LINE, _LETTERS = 62, 46, 16, 66
_KEY_ENTRIES = 3  # in a line of the legend, in a narrow cell
# Pixels at the left for the names of objectives.
_NAMES = 80
_SYMBOLS = ("circle-open", "x-thin-open", "square-open", "triangle-up-open", "star-open", "cross-thin-open")


def every_seed(table: pd.DataFrame, *, theme: Theme = "auto") -> Figure:
    """Draw every seed: its loss above the Bayes floor, and how well a linear probe predicts the belief.

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
    _require(_SEED_COLUMNS, table, "table of seeds")
    worlds, objectives = list(dict.fromkeys(table["world"])), list(dict.fromkeys(table["objective"]))
    labels = [OBJECTIVES.get(name, str(name)) for name in objectives]
    colors = themes.model_colors(labels)
    rows = {
        "range": [len(objectives) - 0.5, -0.5], "showgrid": False, "tickvals": list(range(len(objectives))),
        "ticktext": [f"<b>{escape(label)}</b>" for label in labels], "ticks": "outside", "ticklen": 6,
        "tickcolor": "rgba(0,0,0,0)",
    }  # fmt: skip
    layout, marks = Layout(), _Marks()
    height = 1 / len(worlds)
    for i, world in enumerate(worlds):
        top = 1 - i * height
        for side, (across, title) in enumerate(_SIDES):
            x = {"rangemode": "tozero", "zeroline": True, "title": {"text": title if i == len(worlds) - 1 else ""}}
            axes = layout.view(
                across,
                [top - height * 0.8, top - height * 0.1],
                x=x,
                y={**rows, "showticklabels": side == 0},
                title="" if side else escape(world),
            )
            for j, (objective, label, color) in enumerate(zip(objectives, map(escape, labels), colors, strict=True)):
                runs = table[(table["world"] == world) & (table["objective"] == objective)]
                own = {"customdata": runs["seed"], **axes}
                for column, name, symbol in _CONTROLS if side else ():
                    marker = {"size": 8, "symbol": symbol, "color": MISSING, "line": {"width": 1.5}}
                    marks.add(name, runs[column], j, marker, f"{label}, seed %{{customdata}}<br>{name}", **own)
                name = "R²" if side else "above the floor"
                values = runs["belief_r2"] if side else runs["loss"] - runs["floor"]
                hover = f"{label}, seed %{{customdata}}<br>{name}"
                marks.add(name, values, j, {"size": 11, "color": color}, hover, showlegend=False, **own)
                stroke = {"size": 34, "color": themes.ink(theme)}
                marks.mean(values, j, stroke, f"{label}, mean over seeds", **axes)
    return layout.finish(
        marks.traces,
        theme,
        height=70 + 58 * len(worlds) * (len(objectives) + 0.6),
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        margin={"l": _NAMES, "t": 30, "b": 48},
    )


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
    _require(_CLAIM_COLUMNS, judged, "table of claims")
    objectives = ("next_token", "nextlat")
    labels = [OBJECTIVES[name] for name in objectives]
    colors = themes.model_colors(labels)
    controls = list(dict.fromkeys(name for row in judged["controls"] for name in row))
    symbols = {name: _SYMBOLS[i % len(_SYMBOLS)] for i, name in enumerate(controls)}
    rows = {"range": [1.5, -0.5], "showgrid": False, "tickvals": [0, 1], "ticktext": labels, "zeroline": False}
    claims = judged.to_dict("records")
    headings = [_claim_heading(claim, _LETTERS // columns) for claim in claims]
    above = _LINE * max((2 + title.count("<br>") + more.count("<br>") for title, more in headings), default=0) + 10
    # The gap has room for the names at the axes.
    grid = Grid(max(-(-len(claims) // columns), 1), columns, height=_VIEW, above=above, below=_AXIS, gap=0.14)
    layout, marks = Layout(), _Marks()
    for i, (claim, (title, more)) in enumerate(zip(claims, headings, strict=True)):
        # A no-break space keeps the arrow with the last word of the unit.
        arrow = {"higher": "&nbsp;→", "lower": "&nbsp;←"}.get(claim["better"], "")
        axes = layout.view(
            *grid.place(*divmod(i, columns)),
            x={"title": {"text": escape(claim["unit"]) + arrow, "standoff": 4}, "zeroline": False, "nticks": 6},
            y=rows,
            title=title,
            more=more,
        )
        for j, (objective, label, color) in enumerate(zip(objectives, labels, colors, strict=True)):
            for name, value in claim["controls"].items():
                grey = {"size": 9, "symbol": symbols[name], "color": MISSING, "line": {"width": 1.6, "color": MISSING}}
                marks.add(name, [value], j, grey, escape(name), **axes)
            dots = {"size": 9, "color": color, "symbol": themes.symbol(j)}
            marks.add(label, claim[objective], j, dots, f"{label}, one seed:", **axes)
            marks.mean(claim[objective], j, {"size": 24, "color": color}, f"{label}, mean:", **axes)
    key = 10 + KEY_LINE * -(-len({trace.name for trace in marks.traces}) // _KEY_ENTRIES)
    return layout.finish(
        marks.traces,
        theme,
        height=grid.pixels + key,
        legend=LEGEND,
        margin={"l": _NAMES, "t": key, "b": 0},
    )


def _claim_heading(claim: Mapping[str, Any], letters: int) -> tuple[str, str]:
    """Return a claim, and its world with the verdict, as plotly's HTML in lines of some letters."""
    title = textwrap.wrap(str(claim["claim"]), letters)
    world, verdict = textwrap.wrap(str(claim["world"]).replace(",", ", "), letters) or [""], str(claim["verdict"])
    between = " · " if len(f"{world[-1]} · {verdict}") <= letters else "<br>"
    return "<br>".join(map(escape, title)), f"{'<br>'.join(map(escape, world))}{between}<b>{escape(verdict)}</b>"


def _require(columns: Sequence[str], table: pd.DataFrame, what: str) -> None:
    for name in columns:
        one_of(f"column of the {what}", name, table)


class _Marks:
    """Traces of marks in the rows of views; each name is in the legend once. Hover texts are plotly's HTML."""

    def __init__(self) -> None:
        self.traces: list[go.Scatter] = []

    def add(self, name: str, values: Any, row: int, marker: Mapping[str, Any], hover: str, **more: Any) -> None:
        """Add one mark per value, spread over the height of the row in the order of the values."""
        first = all(trace.name != escape(name) for trace in self.traces)
        self.traces.append(
            go.Scatter(
                x=values, y=row + 0.09 * (np.arange(len(values)) - (len(values) - 1) / 2), mode="markers",
                name=escape(name), legendgroup=name, marker=marker,
                hovertemplate=f"{hover} %{{x:.4g}}<extra></extra>", **{"showlegend": first, **more},
            )
        )  # fmt: skip

    def mean(self, values: Any, row: int, stroke: Mapping[str, Any], hover: str, **axes: str) -> None:
        """Add the mean of some values as a vertical stroke."""
        look = {"symbol": "line-ns-open", "line": {"width": 2}, **stroke}
        self.add("mean over seeds", [float(np.mean(values))], row, look, hover, **axes)
