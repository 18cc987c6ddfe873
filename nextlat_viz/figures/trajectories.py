"""One episode stepped through: how each model's belief moves, beside how it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import escape
from nextlat_viz.figures import simplex
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.prediction import PATTERNS, hatched
from nextlat_viz.figures.rows import prefix
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import CATEGORICAL, CURSOR, Figure

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import Trajectory

_PLANE, _NEXT, _ERROR, _STRIP = ({"xaxis": f"x{n}", "yaxis": f"y{n}"} for n in ("", "2", "3", "4"))
_RIGHT = [0.54, 1.0]


def trajectories(
    latents: Sequence[AnnData],
    paths: Sequence[Trajectory],
    position: int,
    *,
    labels: Sequence[str] | None = None,
    selection: Sequence[int] = (),
    theme: Theme = "auto",
) -> Figure:
    """Draw one episode's belief paths, the next-token distributions and the errors, with a cursor.

    Parameters
    ----------
    latents : sequence of AnnData
        One table per model, of the same episodes.
    paths : sequence of Trajectory
        One per model, of one episode, as `analysis.read_trajectory` gives it.
    position : int
        Where the cursor is: after this many tokens.
    labels : sequence of str, optional
        What to call the models; default what the paths say.
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
    labels = [path.label for path in paths] if labels is None else labels
    at = int(np.flatnonzero(first.positions == position)[0])
    rows = episode_rows(latents[0], first.episode)
    world: Any = world_of(latents[0])
    vocabulary = [escape(name) for name in meta(latents[0])["vocabulary"]]
    codes = [vocabulary.index(escape(token)) for token in first.tokens]
    texts = [
        f"read {prefix(np.array(codes[: i + 1]), vocabulary)}<br>position {place}"
        for i, place in enumerate(first.positions.tolist())
    ]
    names = ["exact", *(escape(label) for label in labels)]
    colors = [themes.EXACT, *themes.model_colors(labels)]
    places = [first.exact_coordinates, *(path.coordinates for path in paths)]
    chances = [column(latents[0], "next_token_probs_exact"), *(column(one, "next_token_probs") for one in latents)]

    figure = Figure(simplex.edges(world, meta={"role": "simplex"}, **_PLANE))
    for i, (name, color, place) in enumerate(zip(names, colors, places, strict=True)):
        figure.add_traces(_path(name, color, place, at, texts, i))
    for i, (name, color, chance) in enumerate(zip(names, colors, chances, strict=True)):
        figure.add_trace(_bars(name, color, chance[rows[at]], vocabulary, i))
    for i, (name, color, path) in enumerate(zip(names[1:], colors[1:], paths, strict=True), start=1):
        figure.add_trace(_error(name, color, path, texts, i))
    figure.add_trace(_strip(codes, vocabulary, first.positions, at, selection, theme))
    figure.update_layout(
        template=themes.template(theme),
        height=520,
        margin={"l": 14, "r": 14, "t": 36, "b": 46},
        barmode="group",
        bargap=0.3,
        hovermode="closest",
        dragmode="select",
        clickmode="event",
        legend={"orientation": "h", "x": 0.0, "xanchor": "left", "y": 0.995, "yanchor": "top"},
        annotations=[
            *simplex.corner_names(world, "x", "y"),
            _heading(0.0, 1.0, f"Belief over the episode, read by a linear probe{_fitted(paths)}"),
            _caption(simplex.caption(world, 64)),
            _heading(_RIGHT[0], 1.0, f"Next token after position {position}"),
            _heading(_RIGHT[0], 0.58, "Distance of the belief read from the exact one"),
        ],
        shapes=[_upright(position, "x3", "y3 domain")],
        **_axes(first.positions, vocabulary),
    )
    return figure


def _fitted(paths: Sequence[Trajectory]) -> str:
    return " (which was fitted on it)" if any(path.held_out is False for path in paths) else ""


def _heading(x: float, y: float, text: str) -> dict[str, Any]:
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": y, "yshift": 6, "xanchor": "left", "yanchor": "bottom",
        "showarrow": False, "text": f"<b>{text}</b>",
    }  # fmt: skip


def _caption(text: str) -> dict[str, Any]:
    small = {"size": 10.5}
    return {**_heading(0.0, 0.2, ""), "text": text, "font": small, "yanchor": "top", "yshift": 0, "align": "left"}


def _upright(position: int, xref: str, yref: str) -> dict[str, Any]:
    line = {"color": CURSOR, "width": 1.5, "dash": "dot"}
    return {"type": "line", "xref": xref, "yref": yref, "x0": position, "x1": position, "y0": 0, "y1": 1, "line": line}


def _axes(positions: Int[np.ndarray, " T"], vocabulary: list[str]) -> dict[str, Any]:
    hidden = {"visible": False}
    along = [float(positions[0]) - 0.6, float(positions[-1]) + 0.6]
    axes = {
        "xaxis": {**hidden, "domain": [0.0, 0.48]},
        "yaxis": {**hidden, "domain": [0.21, 0.93], "scaleanchor": "x"},
        # Ticks by number too: a page that is drawn again takes tokens named by digits for numbers.
        "xaxis2": {"domain": _RIGHT, "anchor": "y2", "type": "category", "categoryarray": vocabulary,
                   "tickvals": list(range(len(vocabulary))), "ticktext": vocabulary},
        "yaxis2": {"domain": [0.7, 1.0], "anchor": "x2", "range": [0, 1.02], "title": {"text": "probability"}},
        "xaxis3": {"domain": _RIGHT, "anchor": "y3", "range": along, "showgrid": False, "showticklabels": False},
        "yaxis3": {"domain": [0.17, 0.55], "anchor": "x3", "rangemode": "tozero", "title": {"text": "distance"}},
        "xaxis4": {"domain": [0.0, 1.0], "anchor": "y4", "range": along, "showgrid": False,
                   "title": {"text": "position"}, "dtick": 1 if len(positions) <= 24 else None},
        "yaxis4": {"domain": [0.0, 0.09], "anchor": "x4", "range": [-0.5, 0.5], **hidden, "fixedrange": True},
    }  # fmt: skip
    return axes


def _path(
    name: str, color: str, place: Float[np.ndarray, "T 2"], at: int, texts: list[str], which: int
) -> list[go.Scatter]:
    """The whole way faintly, what has been walked in full, and where the cursor is."""
    exact, (dash, symbol) = which == 0, _look(which)
    group = {"legendgroup": name, **_PLANE}
    width = 6 if exact else 2.2
    hover = {"text": texts, "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>"}
    quiet = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}}}
    return [
        go.Scatter(
            x=place[:, 0], y=place[:, 1], mode="lines+markers",
            line={"color": themes.rgba(color, 0.3), "width": width, "dash": dash},
            marker={"size": 9, "color": themes.rgba(color, 0.3), "symbol": symbol}, name=name, showlegend=False,
            meta={"role": "path"}, **hover, **group, **quiet,
        ),
        go.Scatter(
            x=place[: at + 1, 0], y=place[: at + 1, 1], mode="lines+markers", hoverinfo="skip", name=name,
            line={"color": themes.rgba(color, 0.55) if exact else color, "width": width, "dash": dash},
            marker={"size": 6, "color": color, "symbol": symbol}, meta={"role": "cursor"}, **group, **quiet,
        ),
        go.Scatter(
            x=place[at : at + 1, 0], y=place[at : at + 1, 1], mode="markers", hoverinfo="skip", showlegend=False,
            marker={"size": 24 if exact else 15, "color": color, "opacity": 0.45 if exact else 1, "line": {"width": 0},
                    "symbol": symbol},
            name=name, meta={"role": "cursor"}, **group, **({} if exact else quiet),
        ),
    ]  # fmt: skip


def _look(which: int) -> tuple[str, str]:
    """Dash and mark of a path: the exact one is number 0."""
    model = max(which - 1, 0)
    return themes.DASHES[model % len(themes.DASHES)], themes.SYMBOLS[model % len(themes.SYMBOLS)]


def _bars(name: str, color: str, chance: Float[np.ndarray, " V"], vocabulary: list[str], which: int) -> go.Bar:
    marker = hatched(color, PATTERNS[(which - 1) % len(PATTERNS)]) if which else {"color": color}
    return go.Bar(
        x=vocabulary, y=chance, name=name, marker=marker, showlegend=False, legendgroup=name,
        hovertemplate=f"<b>{name}</b><br>token %{{x}}: %{{y:.3f}}<extra></extra>", meta={"role": "next"}, **_NEXT,
    )  # fmt: skip


def _error(name: str, color: str, path: Trajectory, texts: list[str], which: int) -> go.Scatter:
    dash, symbol = _look(which)
    return go.Scatter(
        x=path.positions, y=path.distance, mode="lines+markers", name=name, showlegend=False, legendgroup=name,
        line={"color": color, "width": 2, "dash": dash}, marker={"size": 7, "symbol": symbol}, text=texts,
        hovertemplate=f"<b>{name}</b><br>%{{text}}<br>distance %{{y:.3f}}<extra></extra>",
        meta={"role": "error"}, **_ERROR,
    )  # fmt: skip


def _strip(
    codes: list[int], vocabulary: list[str], positions: Int[np.ndarray, " T"], at: int, selection: Sequence[int],
    theme: Theme,
) -> go.Scatter:  # fmt: skip
    """The tokens in reading order: read, being read (a frame) and to come (faint)."""
    size = 30 if len(codes) <= 24 else 14
    return go.Scatter(
        x=positions, y=[0] * len(codes), mode="markers+text", text=[vocabulary[code] for code in codes],
        textfont={"size": 13 if len(codes) <= 24 else 9, "color": themes.ink(theme)},
        marker={
            "symbol": "square", "size": size,
            "color": ["rgba(128,128,128,0.28)" if i <= at else "rgba(128,128,128,0.08)" for i in range(len(codes))],
            "line": {
                "width": [2.5 if i == at else 2 * (place in selection) for i, place in enumerate(positions.tolist())],
                "color": [CURSOR if i == at else CATEGORICAL[1] for i in range(len(codes))],
            },
        },
        hovertemplate="position %{x}: token %{text}<extra></extra>", showlegend=False, meta={"role": "strip"}, **_STRIP,
    )  # fmt: skip
