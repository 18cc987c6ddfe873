"""Trajectory figure: one episode step by step, as paths of the beliefs or of other coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import distinct, escape, shorten
from nextlat_viz.figures import simplex
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import MOST_NAMES, bars, hatched, likeliest, name_axis
from nextlat_viz.figures.layout import Layout, heading, note
from nextlat_viz.figures.rows import describer
from nextlat_viz.figures.theme import Theme, dash, fading_path, symbol
from nextlat_viz.plotting import CATEGORICAL, CURSOR, Figure

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import Trajectory


def trajectories(
    latents: Sequence[AnnData],
    paths: Sequence[Trajectory],
    position: int,
    *,
    labels: Sequence[str] | None = None,
    selection: Sequence[int] = (),
    theme: Theme = "auto",
) -> Figure:
    """Draw one episode's paths, the next-token distributions and the errors, with a cursor.

    A sentence replaces a view without data: errors if the exact path is not known, next tokens if the tables hold no
    probabilities.

    Parameters
    ----------
    latents : sequence of AnnData
        One table per model, of the same episodes.
    paths : sequence of Trajectory
        One per model, of one episode, as `analysis.read_trajectory` or `analysis.plane_trajectory` returns it.
    position : int
        Position of the cursor: the number of tokens read.
    labels : sequence of str, optional
        Names of the models; default those in the paths.
    selection : sequence of int
        Positions of this episode that are selected.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        In traces whose ``meta["role"]`` is "path", "error" or "strip", point i is the episode's i-th position.

    Raises
    ------
    ValueError
        When the paths are not of one episode, or the episode does not have the position.
    """
    from nextlat_viz.latents import column, episode_rows, meta, world_of

    if not paths or len(paths) != len(latents) or len({path.episode for path in paths}) != 1:
        raise ValueError("give one path per table of latents, all of one episode")
    first = paths[0]
    if position not in first.positions:
        raise ValueError(
            f"position={position}: episode {first.episode} has positions {first.positions[0]} to {first.positions[-1]}"
        )
    labels = distinct(path.label for path in paths) if labels is None else labels
    at = int(np.flatnonzero(first.positions == position)[0])
    rows = episode_rows(latents[0], first.episode)
    tokens = list(meta(latents[0])["vocabulary"])
    texts = list(map(describer(latents[0]), rows.tolist()))
    labels = ["true" if first.axes else "exact", *labels]
    names = [escape(shorten(label)) for label in labels]
    colors = [themes.EXACT, *themes.model_colors(labels[1:])]
    paths_drawn = [first.exact_coordinates, *(path.coordinates for path in paths)]
    arrays = [(latents[0], "next_token_probs_exact"), *((table, "next_token_probs") for table in latents)]
    chances = [column(table, name)[rows[at]] if name in table.obsm else None for table, name in arrays]
    known = [chance for chance in chances if chance is not None]
    likely = likeliest(known, MOST_NAMES) if known else np.zeros(0, dtype=int)

    traces: list[Any] = []
    layout = Layout()
    world: Any = None if first.axes else world_of(latents[0])
    drawn = [shorten(tokens[code], 10) for code in likely]
    planes, next_token, errors, strip = _views(layout, world, drawn, paths, position)
    traces.append(simplex.edges(world, meta={"role": "simplex"}, **planes))
    for i, (name, color, place) in enumerate(zip(names, colors, paths_drawn, strict=True)):
        if i or first.has_truth:
            traces += _path(name, color, place, at, texts, i, planes)
    for i, (label, color, chance) in enumerate(zip(labels, colors, chances, strict=True)):
        if chance is not None:
            marker = hatched(color, i - 1) if i else {"color": color}
            options = {"showlegend": False, "legendgroup": names[i], **next_token}
            traces.append(bars(label, chance, tokens, likely, marker, "next", **options))
    for i, (name, color, path) in enumerate(zip(names[1:], colors[1:], paths, strict=True), start=1):
        if path.has_truth:
            traces.append(_error(name, color, path, texts, i, errors))
    read = [token if place else "start" for token, place in zip(first.tokens, first.positions, strict=True)]
    traces.append(_strip(read, first.positions, at, selection, theme, strip))
    layout.rule(errors, {"color": CURSOR, "width": 1.5, "dash": "dot"}, x=position)
    return layout.finish(
        traces,
        theme,
        height=520,
        margin={"l": 58 if first.axes else 14, "t": 36, "b": 46},
        barmode="group",
        bargap=0.3,
        dragmode="select",
        clickmode="event",
        legend={"orientation": "h", "x": 0.0, "xanchor": "left", "y": 0.995, "yanchor": "top"},
    )


def _views(
    layout: Layout, world: Any, tokens: list[str], paths: Sequence[Trajectory], position: int
) -> list[dict[str, str]]:
    """Add the views of the plane, the next token, the distances and the tokens."""
    hidden, right = {"visible": False}, [0.54, 1.0]
    path, positions = paths[0], paths[0].positions
    along = [float(positions[0]) - 0.6, float(positions[-1]) + 0.6]
    training = "an episode that the probe was trained on" if any(item.held_out is False for item in paths) else ""
    small = {"yanchor": "top", "yshift": 0, "align": "left", "font": {"size": 10.5}}
    if world is None:
        by_probes = ", read by linear probes" if path.has_truth else " of the latents"
        layout.notes.append(heading(f"{' and '.join(path.axes)}{by_probes}", training))
        across: dict[str, Any] = {"title": {"text": path.axes[0]}}
        up: dict[str, Any] = {"title": {"text": path.axes[1]}}
    else:
        across, up = hidden, hidden
        layout.notes += [
            *simplex.corner_names(world, "x", "y"),
            heading("Belief, read by a linear probe", training),
            note(0.0, 0.2, simplex.axes_note(world, 44), xanchor="left", **small),
        ]
    middle = {"xanchor": "center", "yanchor": "middle"}
    if not tokens:
        layout.notes.append(note(0.77, 0.85, "These latents hold no next-token probabilities.", **middle))
    if not path.has_truth:
        layout.notes.append(note(0.77, 0.36, "The exact path is not known, so there is no distance.", **middle))
    distance = "Distance from the truth" if path.axes else "Distance from the exact belief"
    return [
        layout.view([0.0, 0.48], [0.21, 0.93], x=across, y=up, square=True),
        layout.view(
            right,
            [0.7, 1.0],
            x=name_axis(tokens, ""),
            y={"range": [0, 1.02], "title": {"text": "probability"}},
            title=f"Next token after position {position}",
        ),
        layout.view(
            right,
            [0.17, 0.55],
            x={"range": along, "showgrid": False, "showticklabels": False},
            y={"rangemode": "tozero", "title": {"text": "distance"}},
            title=distance,
        ),
        layout.view(
            [0.0, 1.0],
            [0.0, 0.09],
            x={"range": along, "showgrid": False, "title": {"text": "position"},
               "dtick": 1 if len(positions) <= 24 else None},
            y={"range": [-0.5, 0.5], **hidden, "fixedrange": True},
        ),
    ]  # fmt: skip


def _path(
    name: str, color: str, place: Float[np.ndarray, "T 2"], at: int, texts: list[str], i: int, axes: dict[str, str]
) -> list[go.Scatter]:
    """Draw the whole path faintly, the path up to the cursor so that it fades towards the past, and the cursor."""
    exact, line, mark = i == 0, *_look(i)
    group = {"legendgroup": name, "name": name, **axes}
    width = 6 if exact else 2.2
    hover = {"text": texts, "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>"}
    same = {"marker": {"opacity": 1}}
    quiet = {"selected": same, "unselected": same}
    trail = [
        go.Scatter(**part, hoverinfo="skip", showlegend=False, meta={"role": "trail"}, **group, **quiet)
        for part in fading_path(place[: at + 1], color, width, line)
    ]
    return [
        go.Scatter(
            x=place[:, 0], y=place[:, 1], mode="lines+markers",
            line={"color": themes.rgba(color, 0.25), "width": width, "dash": line},
            marker={"size": 9, "color": themes.rgba(color, 0.3), "symbol": mark}, showlegend=False,
            meta={"role": "path"}, **hover, **group, **quiet,
        ),
        *trail,
        go.Scatter(
            x=place[at : at + 1, 0], y=place[at : at + 1, 1], mode="lines+markers", hoverinfo="skip",
            line={"color": color, "width": width, "dash": line},
            marker={"size": 24 if exact else 15, "color": color, "opacity": 0.45 if exact else 0.8,
                    "line": {"width": 0}, "symbol": mark},
            meta={"role": "cursor"}, **group, **({} if exact else quiet),
        ),
    ]  # fmt: skip


def _look(i: int) -> tuple[str, str]:
    """Return dash and mark of a path; number 0 is the exact path."""
    return dash(max(i - 1, 0)), symbol(max(i - 1, 0))


def _error(name: str, color: str, path: Trajectory, texts: list[str], i: int, axes: dict[str, str]) -> go.Scatter:
    line, mark = _look(i)
    return go.Scatter(
        x=path.positions, y=path.distance, mode="lines+markers", name=name, showlegend=False, legendgroup=name,
        line={"color": color, "width": 2, "dash": line}, marker={"size": 7, "symbol": mark}, text=texts,
        hovertemplate=f"<b>{name}</b><br>%{{text}}<br>distance %{{y:.3f}}<extra></extra>",
        meta={"role": "error"}, **axes,
    )  # fmt: skip


def _strip(
    tokens: list[str],
    positions: Int[np.ndarray, " T"],
    at: int,
    selection: Sequence[int],
    theme: Theme,
    axes: dict[str, str],
) -> go.Scatter:
    """Draw the tokens in reading order: the current one framed, later ones faint."""
    size, longest = (30, 8) if len(tokens) <= 24 else (14, 5)
    return go.Scatter(
        x=positions, y=[0] * len(tokens), mode="markers+text",
        text=[escape(shorten(token, longest)) for token in tokens],
        customdata=[escape(shorten(token)) for token in tokens],
        textfont={"size": 13 if len(tokens) <= 24 else 9, "color": themes.ink(theme)},
        marker={
            "symbol": "square", "size": size,
            "color": ["rgba(128,128,128,0.28)" if i <= at else "rgba(128,128,128,0.08)" for i in range(len(tokens))],
            "line": {
                "width": [2.5 if i == at else 2 * (place in selection) for i, place in enumerate(positions.tolist())],
                "color": [CURSOR if i == at else CATEGORICAL[1] for i in range(len(tokens))],
            },
        },
        hovertemplate="position %{x}: token %{customdata}<extra></extra>", showlegend=False, meta={"role": "strip"},
        **axes,
    )  # fmt: skip
