"""Clouds of latents: one row of views per model, the same rows of the table in every view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import escape
from nextlat_viz.figures import simplex
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.grid import Grid
from nextlat_viz.figures.rows import BELIEF, coloring, hover_texts
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import CURSOR, Figure

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import ProbeResult, Projection
    from nextlat_viz.worlds import HiddenMarkovWorld

NAMES = {"pca": "PCA", "umap": "UMAP"}
_READ = "<b>Belief, by a linear probe</b>"


@dataclass(frozen=True)
class _Panel:
    """One view: where the rows are in it, what its title says, and what is drawn behind them."""

    column: str
    title: str
    coordinates: Float[np.ndarray, "rows 2"] | None
    note: str = ""
    message: str = ""
    reference: Float[np.ndarray, "rows 2"] | None = None
    world: HiddenMarkovWorld | None = None


def clouds(
    latents: Sequence[AnnData],
    projections: Sequence[Mapping[str, Projection | str]],
    readings: Sequence[ProbeResult | str | None] = (),
    color: str = "state",
    *,
    labels: Sequence[str] | None = None,
    rows: Int[np.ndarray, " rows"] | None = None,
    selection: Int[np.ndarray, " selected"] | None = None,
    cursor: tuple[int, int] | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw the latents of one or several models, a row of views for each.

    Parameters
    ----------
    latents : sequence of AnnData
        One table per model, all of the same episodes.
    projections : sequence of {method: Projection or str}
        For each model the plane views, such as ``{"pca": ..., "umap": ...}``; a text in place of a projection is
        shown in its view ("being computed").
    readings : sequence of ProbeResult, str or None, optional
        For each model a linear probe to ``"belief"``: its reading of every row is drawn in the world's own picture
        coordinates, the exact beliefs faintly behind. None leaves the view out.
    color : str
        Column of ``obs``, ``"belief"`` or ``"belief:<state>"``.
    labels : sequence of str, optional
        What to call the models; default what their latents say.
    rows : integer array, optional
        Row numbers to draw; default all. Projections hold either all rows or just these.
    selection : integer array, optional
        Row numbers (of the table) that stand out; None where nothing is selected.
    cursor : (episode, position), optional
        Drawn as a ring, with the way the episode took to it.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta``: ``role`` ("points", "exact", "cursor", "key"), ``model`` (index) and ``column``.
        Point i of a "points" trace is row ``rows[i]``.

    Raises
    ------
    ValueError
        When the tables are not of the same rows, or there is not one entry per table.
    """
    _check(latents, projections, readings)
    shown = np.arange(latents[0].n_obs) if rows is None else np.asarray(rows)
    readings = readings or [None] * len(latents)
    panels = [
        list(_panels(one, plane, reading, shown))
        for one, plane, reading in zip(latents, projections, readings, strict=True)
    ]
    labels = [_label(one) for one in latents] if labels is None else labels
    paint = coloring(latents[0][shown], color)
    texts = hover_texts(latents[0], shown)
    picked = None if selection is None else np.flatnonzero(np.isin(shown, selection)).tolist()
    path = _episode_path(latents[0], shown, cursor)

    figure = Figure()
    grid = Grid(len(panels), max(len(row) for row in panels))
    notes = []
    for i, row in enumerate(panels):
        for j, panel in enumerate(row):
            axes = grid.axes(i, j)
            options = {"meta": {"model": i, "column": panel.column}, **axes}
            figure.add_traces(
                [
                    *_behind(panel, options),
                    _points(panel, options, paint.codes, texts, picked),
                    _cursor(panel, options, path),
                ]
            )
            notes += [grid.title(i, j, panel.title, panel.note), grid.message(i, j, panel.message)]
            if panel.world is not None:
                notes += simplex.corner_names(panel.world, axes["xaxis"], axes["yaxis"])
                if i == len(panels) - 1:
                    notes.append(grid.foot(j, simplex.caption(panel.world)))
    colors = themes.model_colors(labels)
    notes += [grid.label(i, f"<b>{escape(label)}</b>", colors[i]) for i, label in enumerate(labels)]
    figure.add_trace(_key(paint.key))
    figure.update_layout(
        template=themes.template(theme),
        showlegend=False,
        hovermode="closest",
        dragmode="select",
        modebar={"orientation": "v"},
        coloraxis=paint.axis,
        annotations=[note for note in notes if note["text"]],
        **grid.layout(),
    )
    _same_scale(figure)
    return figure


def _same_scale(figure: go.Figure) -> None:
    """Give the beliefs of all models one range: a cloud that spreads further must look so."""
    views = [one for one in figure.data if one.x is not None and (one.meta or {}).get("column") == BELIEF]
    for name in "xy":
        places = [np.array(view[name], dtype=float) for view in views]
        known = np.concatenate([np.zeros(0), *places])
        if np.isfinite(known).any():
            low, high = float(np.nanmin(known)), float(np.nanmax(known))
            room = 0.07 * (high - low) + 0.02
            for axis in {view[f"{name}axis"][1:] for view in views}:
                figure.layout[f"{name}axis{axis}"].range = [low - room, high + room]


def _check(latents: Sequence[AnnData], projections: Sequence[Any], readings: Sequence[Any]) -> None:
    if not latents:
        raise ValueError("latents is empty: give at least one table, such as nlv.extract(nlv.load('rrxor/nextlat'))")
    if len(projections) != len(latents) or (readings and len(readings) != len(latents)):
        raise ValueError(
            f"{len(latents)} tables of latents need as many projections and readings, "
            f"got {len(projections)} and {len(readings)}"
        )
    for one in latents[1:]:
        if not one.obs_names.equals(latents[0].obs_names):
            raise ValueError("latents are not of the same rows: extract every model on the same episodes")


def _label(latents: AnnData) -> str:
    from nextlat_viz.latents import meta

    return str(meta(latents)["label"])


def _panels(
    latents: AnnData,
    projections: Mapping[str, Projection | str],
    reading: ProbeResult | str | None,
    rows: Int[np.ndarray, " rows"],
) -> Iterator[_Panel]:
    for method, projection in projections.items():
        name = NAMES.get(method, escape(method))
        if isinstance(projection, str):
            yield _Panel(method, f"<b>{name}</b>", None, message=projection)
            continue
        coordinates = projection.coordinates
        if len(coordinates) != len(rows):
            coordinates = coordinates[rows]
        yield _Panel(method, f"<b>{name}</b><br>{_trust(projection)}", coordinates, projection.note)
    if isinstance(reading, str):
        yield _Panel(BELIEF, _READ, None, message=reading)
    elif reading is not None:
        world = _pictured(latents)
        yield _Panel(
            BELIEF,
            f"{_READ}<br>{score_lines(reading)}",
            world.belief_coordinates(reading.predict(latents)[rows]),
            f"{reading.note} Rings: the exact beliefs.",
            reference=world.belief_coordinates(latents.obsm[BELIEF][rows]),
            world=world,
        )


def _pictured(latents: AnnData) -> HiddenMarkovWorld:
    from nextlat_viz.latents import world_of

    world: Any = world_of(latents)
    if not hasattr(world, "belief_coordinates"):
        raise ValueError(f"world {world.name!r} has no picture of its beliefs: give readings=None")
    return world


def _trust(projection: Projection) -> str:
    said = []
    if projection.explained_variance is not None:
        said.append(f"{100 * sum(projection.explained_variance):.0f}% of the variance")
    if projection.trustworthiness is not None:
        said.append(f"trustworthiness {projection.trustworthiness:.2f}")
    return "<br>".join(said)


def score_lines(result: ProbeResult) -> str:
    """Say a probe's held-out score beside its controls, in two lines."""
    metric = "R²" if result.metric == "R2" else escape(result.metric)
    controls = [f"shuffled {_number(result.shuffled)}"]
    if result.untrained is not None:
        controls.append(f"untrained {_number(result.untrained)}")
    return f"held-out {metric} <b>{_number(result.score)}</b><br>{', '.join(controls)}"


def _number(value: float) -> str:
    """Two digits, with a real minus sign and none on zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _points(
    panel: _Panel, options: dict[str, Any], codes: np.ndarray, texts: list[str], picked: list[int] | None
) -> go.Scattergl:
    x, y = (None, None) if panel.coordinates is None else panel.coordinates.astype(np.float32).T
    return go.Scattergl(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 5, "color": codes, "coloraxis": "coloraxis", "opacity": 0.75},
        selected={"marker": {"opacity": 0.95}},
        unselected={"marker": {"opacity": 0.06}},
        selectedpoints=picked,
        hovertext=texts,
        hoverinfo="text",
        **_as("points", options),
    )


def _behind(panel: _Panel, options: dict[str, Any]) -> list[Any]:
    if panel.column != BELIEF:
        return []
    # Rounded, or the same belief reached on two ways would be drawn twice.
    x, y = (None, None) if panel.reference is None else np.unique(panel.reference.round(6) + 0.0, axis=0).T
    opacity = 0.55 if x is None or len(x) <= 100 else 0.2
    ring = {"size": 9, "color": themes.EXACT, "symbol": "circle-open", "opacity": opacity}
    same = {"marker": {"opacity": opacity}}
    exact = go.Scattergl(
        x=x, y=y, mode="markers", marker=ring, selected=same, unselected=same, hoverinfo="skip", **_as("exact", options)
    )
    return [simplex.edges(panel.world, **_as("simplex", options)), exact]


def _as(role: str, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "meta": {"role": role, **options["meta"]}}


def _episode_path(
    latents: AnnData, rows: Int[np.ndarray, " rows"], cursor: tuple[int, int] | None
) -> Int[np.ndarray, " positions"]:
    """Which of the drawn points are the cursor's episode, up to the cursor, in reading order."""
    if cursor is None:
        return np.zeros(0, dtype=int)
    episode, position = (latents.obs[name].to_numpy()[rows] for name in ("episode", "position"))
    on = np.flatnonzero((episode == cursor[0]) & (position <= cursor[1]))
    return on[np.argsort(position[on])]


def _cursor(panel: _Panel, options: dict[str, Any], path: Int[np.ndarray, " positions"]) -> go.Scattergl:
    at = np.zeros((0, 2)) if panel.coordinates is None else panel.coordinates[path]
    sizes = [4.0] * (len(at) - 1) + [16.0] * (len(at) > 0)
    # In WebGL like the points, or it would lie under them.
    return go.Scattergl(
        x=at[:, 0],
        y=at[:, 1],
        mode="lines+markers",
        line={"color": themes.rgba(CURSOR, 0.45), "width": 1},
        marker={"size": sizes, "symbol": "circle-open", "color": CURSOR, "line": {"width": 3}},
        hoverinfo="skip",
        **_as("cursor", options),
    )


def _key(colorbar: dict[str, Any] | None) -> go.Scatter:
    marker: dict[str, Any] = {"color": [0.0], "size": 1, "showscale": colorbar is not None, **(colorbar or {})}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip", meta={"role": "key"})
