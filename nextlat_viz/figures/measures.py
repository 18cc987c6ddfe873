"""Figures of measures and of probes ahead: a mark or a thin line per run, and the mean of each objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nextlat_viz.analysis.measure import QUANTITY
from nextlat_viz.display import draws, escape
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Grid, Layout, axis_number, note
from nextlat_viz.figures.theme import Theme, dash, objective_name, symbol
from nextlat_viz.plotting import MISSING, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import Measure

_COLUMNS = 3
# Distance between the marks of two objectives at one value; neighbouring values are 1 apart.
_SPREAD = 0.14
_CONTROLS = {
    "untrained": ("untrained model", "circle-open", "solid"),
    "shuffled": ("shuffled targets", "x-thin-open", "dash"),
    "prior": ("frequencies only", "line-ew-open", "dot"),
}
_NAME = 0.3  # width of a reference's name, as a share of the view
# Pixels: height of a line of the legend, width of a mark and of a letter in it, and assumed width of the figure.
_KEY_LINE, _MARK, _LETTER, _PAGE = 30, 48, 7, 900
_FEW = 12  # most offsets at which each gets a tick
# Names of settings and their values in figures; a setting with an empty name is named by its values alone.
_SETTINGS = {
    "k": "steps ahead", "offset": "steps ahead", "p": "probability of a detour at a turn", "length": "tokens read",
    "draft": "tokens drafted", "position": "position (tokens read)", "site": "layer",
    **dict.fromkeys(("part", "reader", "rides", "kind", "decoding", "quantity", "test", "objective"), ""),
}  # fmt: skip
_VALUES = {"kl": "KL divergence", "psi": "psi alone", "relative": "error, relative to no change", "hidden": "final"}
# A run is far from the others if without it they need less than this share of the scale.
_FAR = 0.25
_SCORES = {"nats": "cross-entropy, nats", "R2": "R²", "share": "accuracy"}


@draws("measure")
def measure_figure(measure: Measure, *, title: str | None = None, theme: Theme = "auto") -> Figure:
    """Draw a measure: one mark per run with its standard error, and the mean over the seeds of each objective.

    Objectives differ in mark and dash as well as in colour. If the first setting is numeric, it is the horizontal
    axis; otherwise its values, or without settings the objectives, are side by side. Each combination of the other
    settings gets a view. Views share one scale, except that each ``quantity`` has its own. Controls in columns of the
    table, such as ``untrained``, are drawn as grey means over all runs.

    Parameters
    ----------
    measure : Measure
    title : str, optional
        Default the measure's name and its finding.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta``: ``role`` ("run", "mean" or "control"), ``objective`` and ``view``. A single run far
        from all others is outside of the scale, and a note names it. A single value per objective is written as text.

    Examples
    --------
    >>> from nextlat_viz.analysis.measure import Measure, record
    >>> rows = [record("w", "nextlat", 0, p=p, value=1 - p) for p in (0.0, 0.5)]
    >>> figure = measure_figure(Measure("detours", pd.DataFrame(rows), by=("p",)))
    >>> [trace.meta["role"] for trace in figure.data], figure.layout.xaxis.title.text
    (['run', 'mean'], 'probability of a detour at a turn')
    """
    objectives = list(dict.fromkeys(measure.table["objective"]))
    labels = [objective_name(name) for name in objectives]
    colors = themes.model_colors(labels)
    setting = measure.by[0] if measure.by else "objective"
    numeric = setting != "objective" and pd.api.types.is_numeric_dtype(measure.table[setting])
    views, own_scale = _views(measure), QUANTITY in measure.by[1:]
    if len(measure.table) == len(objectives) <= 2:
        return _sentence(measure, labels, theme)
    columns = min(len(views), _COLUMNS)
    top = 28 if title == "" else 76
    entries = [*labels, *(control for name, (control, *_) in _CONTROLS.items() if name in measure.table)]
    # An estimate of the further lines of the legend above the views.
    more = _KEY_LINE * (-(-sum(_MARK + _LETTER * len(name) for name in entries) // _PAGE) - 1)
    grid = Grid(-(-len(views) // columns), columns, height=240, above=34, below=50, top=top + more, gap=0.075)
    traces: list[Any] = []
    layout = Layout()
    for i, (name, rows) in enumerate(views):
        values = objectives if setting == "objective" else list(dict.fromkeys(rows[setting]))
        names = labels if setting == "objective" else list(map(_worded, values))
        x: dict[str, Any] = {"title": {"text": escape(_SETTINGS.get(setting, setting))}}
        if not numeric:
            ticks = {"tickvals": list(range(len(names))), "ticktext": [escape(value) for value in names]}
            x |= {**ticks, "range": [-0.6, len(names) - 0.4], "showgrid": False}
        place = grid.place(*divmod(i, columns))
        y = _value_axis(measure, rows, i, columns)
        far = None if "range" in y else _far(rows if own_scale else measure.table)
        if far is not None:
            run, y["range"] = far
            # Views that share a scale need only one note.
            if own_scale or i == 0:
                text = escape(f"{run} is outside this scale; the table has it")
                corner = {"xanchor": "right", "yanchor": "top", "font": {"size": 11}}
                layout.notes.append(note(place[0][1] if own_scale else 1.0, place[1][1], text, **corner))
        axes = layout.view(*place, x=x, y=y, title=escape(name))
        for j, (objective, label, color) in enumerate(zip(objectives, labels, colors, strict=True)):
            mine = rows[rows["objective"] == objective]
            if mine.empty:
                continue
            if numeric:
                at = mine[setting].astype(float)
            else:
                shift = 0.0 if setting == "objective" else (j - (len(objectives) - 1) / 2) * _SPREAD
                at = mine[setting].map({value: k + shift for k, value in enumerate(values)})
            options = {"name": escape(label), "legendgroup": escape(label), **axes}
            look = {"color": color, "symbol": symbol(j), "dash": dash(j)}
            meta = {"objective": str(objective), "view": i}
            traces += _objective(mine.assign(at=at), numeric, look, meta, options)
        if setting != "objective":
            at = rows[setting].astype(float) if numeric else rows[setting].map(values.index)
            traces += _controls(rows.assign(at=at), i, axes)
        for value in measure.references.values():
            layout.rule(axes, {"color": themes.EXACT, "width": 1.4, "dash": "dot"}, y=value)
    # Quantities have scales of their own.
    level = [trace for trace in traces if QUANTITY not in measure.by or trace.xaxis == "x"]
    for name, value in measure.references.items():
        end = _free_end(level, value, measure.unit == "share")
        layout.notes.append({"text": escape(name), "showarrow": False, "font": {"size": 11}, "y": value, **end})
    return layout.finish(
        traces,
        theme,
        title={
            "text": _finding(measure) if title is None else escape(title),
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 18},
        },
        height=grid.pixels,
        margin={"l": 64, "t": 0, "b": 0},
        legend={"orientation": "h", "x": 0, "y": 1 - (top - 26) / grid.pixels, "yanchor": "top"},
    )


def _free_end(traces: Sequence[go.Scatter], value: float, share: bool) -> dict[str, Any]:
    """Place the name of a reference in the view, at the end and on the side of its line, where it has most room."""
    crowds = {}
    for view in dict.fromkeys(trace.xaxis for trace in traces):
        drawn = [trace for trace in traces if trace.xaxis == view]
        x, y = (np.concatenate([np.array(trace[name], dtype=float) for trace in drawn]) for name in "xy")
        along = (x - x.min()) / (np.ptp(x) or 1.0)
        aside = (y - value) / (1.0 if share else np.ptp([*y, value]) or 1.0)
        for end, near in (("right", along > 1 - _NAME), ("left", along < _NAME)):
            for edge, over in (("bottom", aside), ("top", -aside)):
                crowds[view, end, edge] = int((near & (over > -0.06) & (over < 0.12)).sum())
    view, end, edge = min(crowds, key=lambda place: crowds[place])
    place = {"xref": f"{view} domain", "yref": view.replace("x", "y")}
    return {**place, "x": float(end == "right"), "xanchor": end, "yanchor": edge}


def _worded(value: Any) -> str:
    """Return the name of a setting's value in plain words."""
    return _VALUES.get(str(value), f"{value:.4g}" if isinstance(value, float) else str(value).replace("_", " "))


def _unit(measure: Measure, quantity: str = "") -> str:
    unit = measure.unit if isinstance(measure.unit, str) else measure.unit.get(quantity, "")
    return unit.replace("R2", "R²")


def _finding(measure: Measure) -> str:
    """Return a title: the measure's name, and how the objectives compare in their means over seeds."""
    name = escape(measure.name[:1].upper() + measure.name[1:])
    means = measure.table.pivot_table("value", list(measure.by) or ["world"], "objective", sort=False, dropna=False)
    labels = [escape(objective_name(objective)) for objective in means]
    if len(means) == 1:
        unit = "" if measure.unit == "share" else f" {escape(_unit(measure))}"
        text = ", ".join(f"{label} {mean:.3g}" for label, mean in zip(labels, means.iloc[0], strict=True)) + unit
    elif len(labels) == 2 and measure.better:
        # Leave out values that cannot differ, such as a floor.
        gain = (means.iloc[:, 1] - means.iloc[:, 0]) * (1 if measure.better == "higher" else -1)
        differ, above = int((gain.abs() > 1e-9).sum()), int((gain > 1e-9).sum())
        seeds = measure.table.groupby("objective")["seed"].nunique(dropna=False).max() > 1
        text = f"{labels[1]} is {measure.better}, so better, in {above} of {differ} settings"
        text = f"Means over seeds: {text}" if seeds else text
    else:
        return name
    return f'{name}<br><span style="font-size:12px">{text}</span>'


def _sentence(measure: Measure, labels: list[str], theme: Theme) -> Figure:
    """Return a figure that writes its one or two values as text."""
    lines = []
    for row, label in zip(measure.table.to_dict("records"), labels, strict=True):
        error = f" ± {row['error']:.2g}" if row["error"] == row["error"] else ""
        trials = f", {row['trials']:,} trials" if row["trials"] else ""
        unit = _unit(measure, str(row.get(QUANTITY, "")))
        setting = "".join(f", {_worded(row[name])}" for name in measure.by)
        lines.append(escape(f"{label}{setting}: {row['value']:.4g}{error} ({unit}{trials})"))
    lines += [escape(f"{name}: {value:.4g}") for name, value in measure.references.items()]
    layout, place = Layout(), {"xanchor": "left", "yanchor": "top", "align": "left"}
    name = escape(measure.name[:1].upper() + measure.name[1:])
    layout.notes.append(note(0.0, 1.0, "<br>".join([f"<b>{name}</b>", *lines]), font={"size": 14}, **place))
    hidden = {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    height = 34 + 20 * (len(lines) + 1)
    return layout.finish([], theme, height=height, margin={"l": 16, "t": 12, "b": 8}, **hidden)


def _far(rows: pd.DataFrame) -> tuple[str, list[float]] | None:
    """Return the run without which the others need much less of the scale, and their range; None if there is none."""
    runs = {
        key: run["value"].to_numpy(float) for key, run in rows.groupby(["objective", "seed", "model"], dropna=False)
    }
    if len(runs) < 4:
        return None
    whole = float(np.ptp(rows["value"]))
    without = {key: np.concatenate([run for other, run in runs.items() if other != key]) for key in runs}
    key = min(without, key=lambda key: float(np.ptp(without[key])))
    low, high = float(without[key].min()), float(without[key].max())
    if not 0 < high - low < _FAR * whole:
        return None
    room = 0.06 * (high - low)
    return f"{objective_name(key[0])}, seed {key[1]},", [low - room, high + room]


def _views(measure: Measure) -> list[tuple[str, pd.DataFrame]]:
    """Return a (name, rows) pair for each combination of the settings after the first."""
    if len(measure.by) < 2:
        return [("", measure.table)]
    settings = list(measure.by[1:])
    views = []
    for values, rows in measure.table.groupby(settings, sort=False, dropna=False):
        named = [
            f"{_SETTINGS.get(name, name)} {_worded(value)}".strip()
            for name, value in zip(settings, values, strict=True)
        ]
        views.append((", ".join(named), rows))
    return views


def _objective(
    rows: pd.DataFrame, numeric: bool, look: Mapping[str, Any], meta: Mapping[str, Any], options: Mapping[str, Any]
) -> list[go.Scatter]:
    """Draw the runs of one objective in one view, then their mean."""
    label, color, first = options["name"], look["color"], meta["view"] == 0
    mode = "lines+markers" if numeric else "markers"
    traces: list[go.Scatter] = []
    for (model, seed), run in rows.groupby(["model", "seed"], sort=False, dropna=False):
        run = run.sort_values("at")
        error = {"array": run["error"].fillna(0).tolist(), "visible": bool(run["error"].notna().any())}
        traces.append(
            go.Scatter(
                x=run["at"].tolist(), y=run["value"].tolist(), mode=mode, opacity=0.55 if numeric else 0.8,
                line={"color": color, "width": 1, "dash": look["dash"]},
                marker={"color": color, "symbol": f"{look['symbol']}-open", "size": 6 if numeric else 9},
                error_y={"type": "data", "thickness": 1, "width": 3, **error}, customdata=run["trials"].tolist(),
                hovertemplate=f"{escape(model) if pd.isna(seed) else f'{label}, seed {seed}'}<br>%{{y:.4g}}, "
                "%{customdata} trials<extra></extra>",
                # Without numbers, means are strokes that look alike without colour, so the legend shows a run's mark.
                showlegend=first and not numeric and not traces, meta={"role": "run", **meta}, **options,
            )
        )  # fmt: skip
    mean = rows.groupby("at")["value"].mean()
    marker = {"color": color, "symbol": look["symbol"], "size": 8}
    if not numeric:
        marker = {"color": color, "symbol": "line-ew-open", "size": 26, "line": {"width": 3}}
    traces.append(
        go.Scatter(
            x=mean.index.tolist(), y=mean.tolist(), mode=mode, marker=marker,
            line={"color": color, "width": 2.6, "dash": look["dash"]},
            hovertemplate=f"{label}, mean over seeds<br>%{{y:.4g}}<extra></extra>", showlegend=first and numeric,
            meta={"role": "mean", **meta}, **options,
        )
    )  # fmt: skip
    return traces


def _controls(rows: pd.DataFrame, view: int, axes: Mapping[str, str]) -> list[go.Scatter]:
    """Draw the controls in the columns of a table, each as the mean over all runs."""
    means = {column: rows.groupby("at")[column].mean() for column in _CONTROLS if column in rows}
    return [
        go.Scatter(
            x=mean.index.tolist(), y=mean.tolist(), mode="lines+markers", name=_CONTROLS[column][0],
            legendgroup=_CONTROLS[column][0], showlegend=view == 0,
            line={"color": MISSING, "width": 1, "dash": _CONTROLS[column][2]},
            marker={"color": MISSING, "symbol": _CONTROLS[column][1], "size": 7, "line": {"width": 1.5}},
            hovertemplate=f"{_CONTROLS[column][0]}<br>%{{y:.4g}}<extra></extra>",
            meta={"role": "control", "view": view}, **axes,
        )
        for column, mean in means.items()
        if not mean.isna().all()
    ]  # fmt: skip


def _value_axis(measure: Measure, rows: pd.DataFrame, i: int, columns: int) -> dict[str, Any]:
    """Return the vertical axis of a view, with a title in the first column, or in every view if units differ."""
    axis: dict[str, Any] = {"range": [-0.04, 1.06]} if measure.unit == "share" else {}
    if QUANTITY in measure.by[1:]:
        return {**axis, "title": {"text": escape(_unit(measure, rows[QUANTITY].iloc[0]))}}
    first = i % columns == 0
    if first:
        axis["title"] = {"text": escape(_unit(measure))}
    return {**axis, "matches": "y", "showticklabels": first} if i else axis


def probe_offsets(
    measure: Measure, *, baseline: str | None = None, title: str | None = None, theme: Theme = "auto"
) -> Figure:
    """Draw a sweep of probes by the number of steps they look ahead, one view per site.

    Each run is a thin line with the standard error of each probe; the mean over the seeds of an objective is a thick
    line. Objectives differ in dash and mark as well as in colour. Absolute scores are shown with their controls, scores
    relative to a baseline with a line at zero.

    Parameters
    ----------
    measure : ProbeSweep or Measure
        As `analysis.probe_sweep` returns it, or ``sweep.relative_to("next_token")``, which is the paper's figure 8.
    baseline : str, optional
        An objective such as ``"next_token"``. A second view then shows the other objectives minus it, seed by seed.
    title : str, optional
        Default the measure's name.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces as in `measure_figure`.

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
    if baseline is not None:
        return _beside_baseline(measure, baseline, title, theme)
    figure = measure_figure(measure, title=title, theme=theme)
    table, further = measure.table, list(measure.by[1:])
    views = [rows for _, rows in table.groupby(further, sort=False)] if further else [table]
    score = _SCORES.get(str(measure.unit), escape(measure.unit))
    for baseline in measure.references:
        score = f"{score.split(', ')[-1]} minus {escape(objective_name(baseline))}'s"
    for i, rows in enumerate(views):
        number = axis_number(i)
        ticks = {"dtick": 1} if np.ptp(rows["offset"]) <= _FEW else {"tickformat": "d"}
        figure.update_layout({f"xaxis{number}": {"title": {"text": "steps ahead"}, **ticks}})
        if figure.layout[f"yaxis{number}"].title.text:
            figure.update_layout({f"yaxis{number}": {"title": {"text": score}}})
    return figure


def _beside_baseline(measure: Measure, baseline: str, title: str | None, theme: Theme) -> Figure:
    """Draw each view of a sweep twice: the scores with their controls, and the scores minus those of a baseline."""
    score = _SCORES.get(str(measure.unit), str(measure.unit))
    difference = f"minus {objective_name(baseline)}, seed by seed"
    relative = measure.relative_to(baseline)
    table = pd.concat(
        [measure.table.assign(**{QUANTITY: score}), relative.table.assign(**{QUANTITY: difference})], ignore_index=True
    )
    further = [name for name in measure.by[1:] if table[name].nunique() > 1]
    units = {score: str(measure.unit), difference: str(measure.unit)}
    both = replace(measure, table=table, by=("offset", *further, QUANTITY), unit=units)
    figure = measure_figure(both, title=measure.name if title is None else title, theme=theme)
    for i, (values, _) in enumerate(table.groupby([*further, QUANTITY], sort=False)):
        if values[-1] == difference:
            line = {"zeroline": True, "zerolinewidth": 1.4, "zerolinecolor": themes.EXACT, "rangemode": "tozero"}
            figure.update_layout({f"yaxis{axis_number(i)}": line})
    return figure
