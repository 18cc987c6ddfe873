"""Maps of the streets implied by a model's rides, drawn on the true map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.display import escape
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.compose import compose
from nextlat_viz.figures.layout import note
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import MISSING, Figure
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.taxi.map import add_heads, draw_map
from nextlat_viz.worlds.taxi.streets import COMPASS, Streets

if TYPE_CHECKING:
    from nextlat_viz.analysis.behaviour.reconstruction import MapReconstruction
    from nextlat_viz.worlds import World

# Width and dash differ too, for colour-blind people.
_LOOKS: dict[str, dict[str, Any]] = {
    "true": {"color": themes.MODELS["nextlat"], "width": 3},
    "unused": {"color": MISSING, "width": 1.5, "dash": "dot"},
    "invented": {"color": themes.MODELS["nexttoken"], "width": 1.5, "dash": "dash"},
}
_NAMES = {"unused": "true streets, not used", "true": "true streets, used", "invented": "invented streets"}
_LEGIBLE_HEADS = 1500  # invented streets
_BOW = 0.06  # of a street's length


def reconstruction(
    result: MapReconstruction,
    world: World,
    *,
    title: str | None = None,
    width: int = 720,
    height: int | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw the true streets that rides use or do not use, and the invented streets that rides would need.

    Used streets are solid and wide, unused streets dotted, invented streets thin, dashed and bent, with an arrow head
    at their end. Each half of a two-way street stands for the direction that leaves the nearer end. The hover text of
    an invented street gives its direction.

    Parameters
    ----------
    result : MapReconstruction
        A result or its ``control``.
    world : Taxi
        The world of the rides.
    title : str, optional
        By default the name of the model.
    width, height : int
        Pixels. The height follows from the shape of the city by default.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        In traces whose ``meta["role"]`` is "true", "unused" or "invented", streets are lines with gaps between them;
        "heads" are the arrow heads of invented streets. East is right and north is up; both axes have one scale.

    Raises
    ------
    ValueError
        If the result is for the streets of another world.
    UnknownNameError
        For another theme.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.analysis.behaviour.reconstruction import map_from_rides
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> rides = world.sample(20)
    >>> figure = reconstruction(map_from_rides(world, rides.tokens, rides.length), world)
    >>> [trace.name for trace in figure.data if trace.name]
    ['true streets, not used: 2', 'true streets, used: 24', 'invented streets: 0']
    """
    streets: Streets | None = getattr(world, "streets", None)
    if streets is None:
        raise ValueError(f"world {world.name!r} has no streets to draw a map of: give the taxi world of the result")
    if len(result.used) != streets.n_edges or (result.invented[:, [0, 2]] >= len(streets.nodes)).any():
        raise ValueError(
            f"result has {len(result.used)} true streets and world {world.name!r} {streets.n_edges}: give the world it "
            "was made in"
        )
    ground = draw_map(streets, width=width, height=height)
    # Keep the frame and the names of places from the world's map; the streets are drawn below, by kind.
    figure = Figure(
        data=[trace for trace in ground.data if trace.mode == "markers" and trace.hoverinfo == "text"],
        layout=ground.layout,
    )
    lines = {
        "unused": _leaving(streets, ~result.used),
        "true": _leaving(streets, result.used),
        "invented": _bowed(streets, result.invented).reshape(-1, 2),
    }
    counts = {part: count for part, (count, _) in result.counts.items()}
    for part, points in lines.items():
        # NaN: the legend leaves out a trace without points.
        places = points if len(points) else [np.nan, np.nan]
        name = f"{_NAMES[part]}: {counts[part]:,}"
        drawing.add_lines(figure, places, _LOOKS[part], name=name, meta={"role": part}, showlegend=True)
    if len(result.invented) <= _LEGIBLE_HEADS:
        _draw_heads(figure, streets, result.invented)
    rides = len(result.placed)
    unplaced = f"{counts['unplaced']:,} of {rides:,} rides could not be placed on the map."
    figure.update_layout(
        title_text=escape(f"Streets implied by {rides:,} rides of {result.name}" if title is None else title),
        paper_bgcolor=themes.template(theme).layout.paper_bgcolor,
        font_color=themes.ink(theme),
        showlegend=True,
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top", "itemsizing": "trace"},
        margin_b=72,
    )
    # Replace the note of the world's map, which describes other lines, but keep its attribution.
    about = escape(f"{unplaced} {streets.attribution}." if streets.attribution else unplaced)
    figure.layout.annotations = [note(0.5, 0.0, about, yshift=-56, font={"size": 11})]
    return figure


def maps_side_by_side(
    results: Mapping[str, MapReconstruction], world: World, *, height: int = 340, theme: Theme = "auto"
) -> Figure:
    """Draw the maps of several models side by side, and the last one's control: true rides with as many errors.

    Parameters
    ----------
    results : dict of label to MapReconstruction
        One per model, as ``analysis.reconstruct_map`` returns them.
    world : Taxi
    height : int
        Pixels of a map.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        The heading of each map gives the number of invented streets and of rides that could not be placed.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.analysis.behaviour.reconstruction import map_from_rides
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> rides = world.sample(20)
    >>> true = map_from_rides(world, rides.tokens, rides.length)
    >>> maps_side_by_side({"true rides": true}, world).layout.annotations[0].text
    '<b>true rides: 0<br>invented, 0 of 20<br>rides not placed</b>'
    """
    maps = dict(results)
    if results and (control := list(results.values())[-1].control) is not None:
        maps["control"] = control
    drawn = {}
    for label, result in maps.items():
        counts, rides = {part: count for part, (count, _) in result.counts.items()}, len(result.placed)
        about = f"{counts['invented']:,} invented, {counts['unplaced']:,} of {rides:,} rides not placed"
        figure = reconstruction(result, world, theme=theme)
        for trace in figure.select_traces(lambda trace: trace.name):
            trace.name = trace.name.partition(":")[0]
        drawn[f"{label}: {about}"] = figure
    return compose(drawn, height=height, theme=theme)


def _leaving(streets: Streets, chosen: Bool[np.ndarray, " edges"]) -> Float[np.ndarray, "points 2"]:
    """Return lines of the chosen true streets, with gaps: whole one-way streets, else the half next to the start."""
    source, target = streets.edges.T
    nodes = len(streets.nodes)
    both_ways = np.isin(target * nodes + source, source * nodes + target)
    share = np.where(both_ways, 0.5, 1.0)[chosen, None]
    starts, ends = streets.places[streets.edges[chosen].T]
    return drawing.segments(starts, starts + share * (ends - starts))


def _bowed(streets: Streets, invented: Int[np.ndarray, "streets 3"]) -> Float[np.ndarray, "streets 4 2"]:
    """Return lines of invented streets, bent to the right: some connect places that a true street connects too."""
    starts, ends = streets.places[invented[:, [0, 2]].T]
    along = ends - starts
    bend = starts + along / 2 + _BOW * along[:, ::-1] * [1, -1]
    return np.stack([starts, bend, ends, np.full_like(starts, np.nan)], axis=1)


def _draw_heads(figure: Figure, streets: Streets, invented: Int[np.ndarray, "streets 3"]) -> None:
    """Draw an arrow head on each invented street, with the names of its ends as hover text."""
    _, bends, ends, _ = _bowed(streets, invented).transpose(1, 0, 2)
    marker = {"size": 7, "color": _LOOKS["invented"]["color"]}
    hover = [
        escape(f"invented: {COMPASS[d]} from {streets.nodes[a]} to {streets.nodes[b]}") for a, d, b in invented.tolist()
    ]
    options = {"hovertext": hover, "hoverinfo": "text", "meta": {"role": "heads"}}
    add_heads(figure, bends + 0.7 * (ends - bends), ends - bends, marker, **options)
