"""What linear probes read of the steps ahead: the paper's figure 8, with every seed and its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures.measures import measure
from nextlat_viz.figures.probes import OBJECTIVES
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import MISSING, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.measure import Measure

_CONTROLS = {
    "untrained": ("untrained model", "circle-open", "solid"),
    "shuffled": ("shuffled targets", "x-thin-open", "dash"),
    "prior": ("frequencies alone", "line-ew-open", "dot"),
}
_SCORES = {"nats": "cross-entropy, nats", "R2": "R²", "share": "accuracy"}


def probe_offsets(found: Measure, *, title: str | None = None, theme: Theme = "auto") -> Figure:
    """Draw a sweep of probes by how many steps ahead they read, a view for each site.

    Every run is a thin line with the standard error of each probe, the mean over the seeds of each objective a thick
    one; objectives differ in dash and mark as well as in colour. Absolute scores have the controls beside them in grey,
    means over all runs; scores relative to a baseline have its line at zero.

    Parameters
    ----------
    found : ProbeSweep or Measure
        Of `analysis.probe_sweep`, or ``sweep.relative_to("next_token")``, which is the paper's figure 8.
    title : str, optional
        Default the measure's name.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces as of `measure`; those of controls have ``meta["role"] == "control"``.

    Raises
    ------
    UnknownNameError
        If the measure is not by offset.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextlat_viz.analysis.measure import Measure, record
    >>> rows = [record("w", "nextlat", 0, offset=i, site="hidden", value=-0.01 * i) for i in (1, 2)]
    >>> figure = probe_offsets(Measure("ahead", pd.DataFrame(rows), by=("offset", "site"), unit="nats"))
    >>> figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    ('steps ahead', 'cross-entropy, nats')
    """
    if not found.by or found.by[0] != "offset":
        raise unknown("first setting of a sweep of probes", found.by[0] if found.by else "", ["offset"])
    figure = measure(found, title=title, theme=theme)
    views = [its for _, its in found.table.groupby(list(found.by[1:]), sort=False)] if found.by[1:] else [found.table]
    score = _SCORES.get(str(found.unit), escape(str(found.unit)))
    for baseline in found.references:
        score = f"{score.split(', ')[-1]} minus {escape(OBJECTIVES.get(baseline, baseline))}'s"
    for i, its in enumerate(views):
        number = "" if i == 0 else str(i + 1)
        figure.update_layout({f"xaxis{number}": {"title": {"text": "steps ahead"}, "tickformat": "d"}})
        if figure.layout[f"yaxis{number}"].title.text:
            figure.update_layout({f"yaxis{number}": {"title": {"text": score}}})
        for column, (name, symbol, dash) in _CONTROLS.items():
            if column not in its or its[column].isna().all():
                continue
            mean = its.groupby("offset")[column].mean()
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
