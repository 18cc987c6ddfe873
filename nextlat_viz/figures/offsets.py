"""Linear probes of tokens several steps ahead (the paper's figure 8), with every seed and the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures.layout import axis_number
from nextlat_viz.figures.measures import measure_figure
from nextlat_viz.figures.theme import OBJECTIVES, Theme
from nextlat_viz.plotting import MISSING, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.measure import Measure

_CONTROLS = {
    "untrained": ("untrained model", "circle-open", "solid"),
    "shuffled": ("shuffled targets", "x-thin-open", "dash"),
    "prior": ("token frequencies only", "line-ew-open", "dot"),
}
_FEW = 12  # offsets that each get a tick
_SCORES = {"nats": "cross-entropy, nats", "R2": "R²", "share": "accuracy"}


def probe_offsets(measure: Measure, *, title: str | None = None, theme: Theme = "auto") -> Figure:
    """Draw a sweep of probes by the number of steps they read ahead, a view for each site.

    Each run is a thin line with the standard error of each probe; a thick line is the mean over the seeds of an
    objective. Objectives differ in dash and mark as well as in colour. Absolute scores are shown with their controls,
    grey means over all runs; scores relative to a baseline with its line at zero.

    Parameters
    ----------
    measure : ProbeSweep or Measure
        As `analysis.probe_sweep` returns it, or ``sweep.relative_to("next_token")``, which is the paper's figure 8.
    title : str, optional
        Default the measure's name.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces as of `measure_figure`; those of controls have ``meta["role"] == "control"``.

    Raises
    ------
    UnknownNameError
        When the first setting of the measure is not the offset.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextlat_viz.analysis.measure import Measure, record
    >>> rows = [record("w", "nextlat", 0, offset=i, site="hidden", value=-0.01 * i) for i in (1, 2)]
    >>> figure = probe_offsets(Measure("ahead", pd.DataFrame(rows), by=("offset", "site"), unit="nats"))
    >>> figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    ('steps ahead', 'cross-entropy, nats')
    """
    if not measure.by or measure.by[0] != "offset":
        raise unknown("first setting of a sweep of probes", measure.by[0] if measure.by else "", ["offset"])
    figure = measure_figure(measure, title=title, theme=theme)
    table, further = measure.table, list(measure.by[1:])
    views = [rows for _, rows in table.groupby(further, sort=False)] if further else [table]
    score = _SCORES.get(str(measure.unit), escape(measure.unit))
    for baseline in measure.references:
        score = f"{score.split(', ')[-1]} minus {escape(OBJECTIVES.get(baseline, baseline))}'s"
    for i, rows in enumerate(views):
        number = axis_number(i)
        ticks = {"dtick": 1} if np.ptp(rows["offset"]) <= _FEW else {"tickformat": "d"}
        figure.update_layout({f"xaxis{number}": {"title": {"text": "steps ahead"}, **ticks}})
        if figure.layout[f"yaxis{number}"].title.text:
            figure.update_layout({f"yaxis{number}": {"title": {"text": score}}})
        for column, (name, symbol, dash) in _CONTROLS.items():
            if column not in rows or rows[column].isna().all():
                continue
            mean = rows.groupby("offset")[column].mean()
            figure.add_trace(
                go.Scatter(
                    x=mean.index.tolist(), y=mean.tolist(), mode="lines+markers", name=name, legendgroup=name,
                    showlegend=i == 0, line={"color": MISSING, "width": 1, "dash": dash},
                    marker={"color": MISSING, "symbol": symbol, "size": 7, "line": {"width": 1.5}},
                    hovertemplate=f"{name}<br>%{{y:.4g}}<extra></extra>", meta={"role": "control", "view": i},
                    xaxis=f"x{number}", yaxis=f"y{number}",
                )
            )  # fmt: skip
    return figure
