"""Clouds of latents: a row of views per model, the same rows of the table in every view."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.display import distinct, escape, shorten
from nextlat_viz.figures import simplex
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Grid, Layout, note
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.rows import BELIEF, Coloring, coloring, describer
from nextlat_viz.figures.theme import Theme, fading_path, ring_sizes
from nextlat_viz.plotting import CURSOR, Figure
from nextlat_viz.worlds import checks

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import ProbeResult, Projection
    from nextlat_viz.worlds import HiddenMarkovWorld

_HEADING = 26  # letters that fit over one of three views
NAMES = {"pca": "PCA", "umap": "UMAP"}
_READ = "<b>Belief, read by a linear probe</b>"
# Room around the simplex for readings a little outside, as a share of its height and width.
_AROUND = 0.06
_LEFT = {"xanchor": "left", "align": "left"}
# Most models side by side in a row.
_ABREAST = 2
# A selection on the page fades all points outside of it: keep the marks as they are.
_OPAQUE = {"marker": {"opacity": 1}}
_STILL: dict[str, Any] = {"selected": _OPAQUE, "unselected": _OPAQUE, "hoverinfo": "skip"}
# Names of a colour key that can have more room.
_FEW_NAMES = 9


@dataclass(frozen=True)
class _View:
    """One view: the coordinates of the rows, its title, and what is drawn behind the points."""

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
    color: str | Sequence[Coloring] = "state",
    *,
    labels: Sequence[str] | None = None,
    rows: ArrayLike | None = None,
    selection: ArrayLike | None = None,
    cursor: tuple[int, int] | None = None,
    near: Sequence[ArrayLike] = (),
    across: bool = False,
    theme: Theme = "auto",
) -> Figure:
    """Draw the latents of one or several models, a row of views for each.

    Parameters
    ----------
    latents : sequence of AnnData
        One table per model, all of the same episodes.
    projections : sequence of {method: Projection or str}
        For each model its projections, such as ``{"pca": ..., "umap": ...}``. A text in place of a projection, such as
        "being computed", is shown in its view.
    readings : sequence of ProbeResult, str or None, optional
        For each model a linear probe of ``"belief"``: its reading of every row is drawn in the plane of the world's
        beliefs, the exact beliefs faintly behind. None leaves the view out.
    color : str, or a coloring of every row for each model
        Column of ``obs``, ``"belief"`` or ``"belief:<state>"``. To colour each model by its own numbers, such as
        losses, use `rows.own_colorings`.
    labels : sequence of str, optional
        Names of the models; default those in their latents.
    rows : ints, or booleans for every row, optional
        Row numbers to draw; default all. Projections hold either all rows or just these.
    selection : ints, or booleans for every row, optional
        Row numbers (of the table) to emphasise; None for no selection.
    cursor : (episode, position), optional
        Drawn as a ring, with the path of the episode up to it. The path fades towards the past; an arrow head shows
        its direction.
    near : sequence of ints, optional
        For each model, row numbers to mark by small squares, such as the nearest to the cursor.
    across : bool
        Draw the models side by side, two in a row; each must have a single view.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Every trace has ``meta``: ``role`` ("points", "exact", "trail", "cursor", "near", "key"), ``model`` (index) and
        ``column``. Point i of a "points" trace is row ``rows[i]``. ``layout.meta["classes"]`` is the number of classes
        in the colour key; their names are its first, from the top.

    Raises
    ------
    ValueError
        When the tables have different rows, or there is not one entry per table; for unknown rows.
    """
    from nextlat_viz.latents import meta

    _check(latents, projections, readings)
    total = latents[0].n_obs
    drawn = np.arange(total) if rows is None else checks.row_numbers("rows", rows, total)
    chosen = None if selection is None else checks.row_numbers("selection", selection, total)
    readings = readings or [None] * len(latents)
    views = [
        list(_model_views(table, planes, reading, drawn))
        for table, planes, reading in zip(latents, projections, readings, strict=True)
    ]
    labels = distinct(meta(table)["label"] for table in latents) if labels is None else labels
    colors = themes.model_colors(labels)
    paints = [coloring(latents[0][drawn], color)] * len(latents) if isinstance(color, str) else list(color)
    if len(paints) != len(latents):
        raise ValueError(f"{len(latents)} tables of latents need as many colorings, got {len(paints)}")
    codes = [paint.codes if isinstance(color, str) else paint.codes[drawn] for paint in paints]
    paint = paints[0]
    texts = list(map(describer(latents[0]), drawn.tolist()))
    selected = None if chosen is None else np.flatnonzero(np.isin(drawn, chosen)).tolist()
    path = _episode_path(latents[0], drawn, cursor)

    traces: list[Any] = []
    layout = Layout()
    if across:
        columns = min(len(views), _ABREAST)
        below = 0 if len(views) == columns else 64
        grid = Grid(-(-len(views) // columns), columns, height=330, above=0, below=below, gap=0.02)
    else:
        grid = Grid(len(views), max(map(len, views)), height=270, above=62, foot=40, gap=0.02)
    bare = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True, "title": {"text": ""}}
    for i in range(len(views)):
        label = f"<b>{escape(shorten(labels[i]))}</b>"
        if not across:
            _, up = grid.place(i, 0)
            font = {"size": 14, "color": colors[i]}
            side = {"xanchor": "right", "yanchor": "middle", "xshift": -6, "textangle": -90, "font": font}
            layout.notes.append(note(0.0, sum(up) / 2, label, **side))
        for j in range(1 if across else grid.columns):
            row, column = divmod(i, grid.columns) if across else (i, j)
            wide, up = grid.place(row, column)
            # No units and one scale for both axes: a projection keeps proportions only.
            axes = layout.view(wide, up, x=bare, y=bare, square=True)
            if j >= len(views[i]):
                continue
            view = views[i][j]
            options = {"meta": {"model": i, "column": view.column}, **axes}
            points = _points(view, options, codes[i], texts, selected)
            squares = np.flatnonzero(np.isin(drawn, near[i])) if i < len(near) else np.zeros(0, dtype=int)
            traces += [*_behind(view, options), points, *_cursor(view, options, path), _near(view, options, squares)]
            hover = {"hovertext": "<br>".join(map(escape, textwrap.wrap(view.note, 60)))} if view.note else {}
            title = view.title
            if across:
                name, _, more = title.partition("</b><br>")
                about = more.replace("<br>", ", ") if more else name.replace("<br>", " ")
                title = f'<span style="color:{colors[i]}">{label}</span><br>{about}'
            # Above the names of the corners.
            high = 3 if view.world is None else 14
            layout.notes.append(note(wide[0], up[1], title, **_LEFT, yanchor="bottom", yshift=high, **hover))
            if view.message:
                text = "<br>".join(map(escape, textwrap.wrap(view.message, 34)))
                layout.notes.append(note(sum(wide) / 2, sum(up) / 2, text, xanchor="center", yanchor="middle"))
            if view.world is not None:
                layout.notes += simplex.corner_names(view.world, axes["xaxis"], axes["yaxis"])
                if row == grid.rows - 1 and not (across and column):
                    under = {**_LEFT, "yanchor": "top", "yshift": -6, "font": {"size": 10.5}}
                    layout.notes.append(note(wide[0], up[0], simplex.axes_note(view.world), **under))
    # A plane of beliefs has names of corners above it, and two lines below it.
    top, low = (51, 39) if any(view.world is not None for row in views for view in row) else (40, 20)
    key = paint.key
    least = 170 if across else 200
    if across and key is not None and paint.limits is None:
        # As high as its names, in a figure of any height.
        many = len(paint.names) > _FEW_NAMES
        long = 40 + (13 if many else 16) * len(paint.names)
        key["colorbar"] |= {"lenmode": "pixels", "len": long}
        if many:
            key["colorbar"] |= {"y": 0.5, "yanchor": "middle", "tickfont": {"size": 10}}
            least = max(least, long + top - low)
    traces.append(color_key(key))
    figure = layout.finish(
        traces,
        theme,
        height=grid.pixels + (top + low) * across,
        margin={"l": 6, "r": key_width(paint.names), "t": top, "b": low}
        if across
        else {"l": 34, "r": 100, "t": 0, "b": 0},
        meta={"least": least * grid.rows, "classes": len(paint.classes)},
        showlegend=False,
        dragmode="select",
        coloraxis=paint.axis,
    )
    _same_scale(figure)
    return figure


def key_width(names: Sequence[tuple[str, str]]) -> int:
    """Return the pixels that the colour key needs at the right."""
    return min(100, 44 + 6 * max((len(name) for name, _ in names), default=0))


def _same_scale(figure: go.Figure) -> None:
    """Give the beliefs of all models the range of the simplex, or without a simplex, of the exact beliefs.

    Readings outside of the frame are not shown: a few far ones would make the simplex small.
    """
    views = [trace for trace in figure.data if (trace.meta or {}).get("column") == BELIEF]
    frames = [trace for trace in views if trace.meta["role"] in ("simplex", "exact") and trace.x is not None]
    for name in "xy":
        known = np.concatenate([np.zeros(0), *(np.array(frame[name], dtype=float) for frame in frames)])
        if np.isfinite(known).any():
            low, high = float(np.nanmin(known)), float(np.nanmax(known))
            room = _AROUND * (high - low) + 0.02
            for axis in {view[f"{name}axis"][1:] for view in views}:
                # The frame shrinks to these ranges: plotly would keep ranges that it widened to fill the view.
                figure.layout[f"{name}axis{axis}"].update(range=[low - room, high + room], constrain="domain")


def _check(latents: Sequence[AnnData], projections: Sequence[Any], readings: Sequence[Any]) -> None:
    if not latents:
        raise ValueError("latents is empty: give at least one table, such as nlv.extract(nlv.load('rrxor/nextlat'))")
    if len(projections) != len(latents) or (readings and len(readings) != len(latents)):
        raise ValueError(
            f"{len(latents)} tables of latents need as many projections and readings, "
            f"got {len(projections)} and {len(readings)}"
        )
    for table in latents[1:]:
        if not table.obs_names.equals(latents[0].obs_names):
            raise ValueError("latents are not of the same rows: extract every model on the same episodes")


def _model_views(
    latents: AnnData,
    projections: Mapping[str, Projection | str],
    reading: ProbeResult | str | None,
    rows: Int[np.ndarray, " rows"],
) -> Iterator[_View]:
    from nextlat_viz.latents import world_of

    for method, projection in projections.items():
        name = "<br>".join(textwrap.wrap(NAMES.get(method, escape(method)), _HEADING))
        if isinstance(projection, str):
            yield _View(method, f"<b>{name}</b>", None, message=projection)
            continue
        coordinates = projection.coordinates
        if len(coordinates) != len(rows):
            coordinates = coordinates[rows]
        yield _View(method, "<br>".join([f"<b>{name}</b>", *quality(projection)]), coordinates, projection.note)
    if isinstance(reading, str):
        yield _View(BELIEF, _READ, None, message=reading)
    elif reading is not None:
        world: Any = world_of(latents)
        if not hasattr(world, "belief_coordinates"):
            raise ValueError(f"world {world.name!r} has no plane to draw beliefs in: give readings=None")
        score, *controls = scores(reading)
        metric, number = score.split()
        yield _View(
            BELIEF,
            f"{_READ}<br>held-out {metric} <b>{number}</b><br>{', '.join(controls)}",
            world.belief_coordinates(reading.predict(latents)[rows]),
            f"{reading.note} Rings: the exact beliefs. Readings beyond the frame are not shown.",
            reference=world.belief_coordinates(latents.obsm[BELIEF][rows]),
            world=world,
        )


def quality(projection: Projection) -> list[str]:
    """Write how far to trust a projection: its share of the variance and its trustworthiness, if they are known."""
    parts = []
    if projection.explained_variance is not None:
        parts.append(f"{100 * sum(projection.explained_variance):.0f}% of the variance")
    if projection.trustworthiness is not None:
        parts.append(f"trustworthiness {projection.trustworthiness:.2f}")
    return parts


def _points(
    view: _View, options: dict[str, Any], codes: np.ndarray, texts: list[str], selected: list[int] | None
) -> go.Scattergl:
    x, y = (None, None) if view.coordinates is None else view.coordinates.astype(np.float32).T
    return go.Scattergl(
        x=x,
        y=y,
        mode="markers",
        marker={"size": 5, "color": codes, "coloraxis": "coloraxis", "opacity": 0.75},
        selected={"marker": {"opacity": 0.95}},
        unselected={"marker": {"opacity": 0.06}},
        selectedpoints=selected,
        hovertext=texts,
        hoverinfo="text",
        **_as("points", options),
    )


def _behind(view: _View, options: dict[str, Any]) -> list[Any]:
    if view.column != BELIEF:
        return []
    # Round, so that a belief reached by two histories is drawn once.
    x, y = (None, None) if view.reference is None else np.unique(view.reference.round(6) + 0.0, axis=0).T
    opacity = 0.55 if x is None or len(x) <= 100 else 0.2
    ring = {"size": 9, "color": themes.EXACT, "symbol": "circle-open", "opacity": opacity}
    same = {"marker": {"opacity": opacity}}
    exact = go.Scattergl(
        x=x, y=y, mode="markers", marker=ring, selected=same, unselected=same, hoverinfo="skip", **_as("exact", options)
    )
    return [simplex.edges(view.world, **_as("simplex", options)), exact]


def _as(role: str, options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "meta": {"role": role, **options["meta"]}}


def _episode_path(
    latents: AnnData, rows: Int[np.ndarray, " rows"], cursor: tuple[int, int] | None
) -> Int[np.ndarray, " positions"]:
    """Return the drawn points of the cursor's episode up to the cursor, in reading order."""
    if cursor is None:
        return np.zeros(0, dtype=int)
    episode, position = (latents.obs[name].to_numpy()[rows] for name in ("episode", "position"))
    on = np.flatnonzero((episode == cursor[0]) & (position <= cursor[1]))
    return on[np.argsort(position[on])]


def _cursor(view: _View, options: dict[str, Any], path: Int[np.ndarray, " positions"]) -> list[go.Scattergl]:
    """Draw the fading path to the cursor, and a ring there."""
    at = np.zeros((0, 2), np.float32) if view.coordinates is None else view.coordinates[path].astype(np.float32)
    # Use WebGL, as for the points: plotly draws SVG traces below WebGL traces.
    parts = [
        go.Scattergl(**part, **_STILL, **_as("trail", {**options, "meta": {**options["meta"], "part": i}}))
        for i, part in enumerate(fading_path(at, CURSOR))
    ]
    ring = {"size": ring_sizes(len(at)), "symbol": "circle-open", "color": CURSOR, "line": {"width": 3}}
    cursor = go.Scattergl(x=at[:, 0], y=at[:, 1], mode="markers", marker=ring, **_STILL, **_as("cursor", options))
    return [*parts, cursor]


def _near(view: _View, options: dict[str, Any], at: Int[np.ndarray, " near"]) -> go.Scattergl:
    x, y = (np.zeros((0, 2)) if view.coordinates is None else view.coordinates[at]).T
    square = {"size": 11, "symbol": "square-open", "color": CURSOR, "line": {"width": 2}}
    return go.Scattergl(x=x, y=y, mode="markers", marker=square, **_STILL, **_as("near", options))


def color_key(colorbar: dict[str, Any] | None) -> go.Scatter:
    """Return an empty trace that shows the colour key of a `Coloring`."""
    marker: dict[str, Any] = {"color": [0.0], "size": 1, "showscale": colorbar is not None, **(colorbar or {})}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip", meta={"role": "key"})
