"""Rollouts by psi and the true states in a plane, and their divergence by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout, column_domains
from nextlat_viz.figures.theme import Theme, dash, symbol
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.lookahead import LookAhead

Plane: TypeAlias = Callable[[np.ndarray], np.ndarray] | tuple[Float[np.ndarray, "D 2"], Float[np.ndarray, " 2"]]
_TOP, _BOTTOM = [0.47, 1.0], [0.0, 0.28]


def look_ahead_path(
    ahead: Mapping[str, tuple[LookAhead, Plane]],
    *,
    axes: tuple[str, str] = ("x", "y"),
    theme: Theme = "auto",
) -> Figure:
    """Draw psi's rollout and the true states in a plane, one view per model, and below it the divergence by step.

    Parameters
    ----------
    ahead : dict of label to (LookAhead, plane)
        One per model. A plane maps hidden states (rows, D) to (rows, 2). It is a callable, or a matrix (D, 2) and an
        offset (2,) for ``h @ matrix + offset``, such as those of a PCA or of a belief probe.
    axes : (str, str)
        Names of the two coordinates of the plane.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces by ``meta["role"]``: "true" and "rolled" (paths, point 0 the cursor), "distance", "no_change" and "kl"
        (point i is step i + 1); ``meta["model"]`` is the model's place.

    Raises
    ------
    ValueError
        Nothing to draw; a plane that does not give two numbers per state.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis.lookahead import look_ahead
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 10, seed=1))
    >>> rollout = look_ahead(checkpoint, latents, episode=2, position=4)
    >>> figure = look_ahead_path({"NextLat": (rollout, lambda h: h[:, :2])}, axes=("h0", "h1"))
    >>> [trace.meta["role"] for trace in figure.data]
    ['true', 'rolled', 'distance', 'no_change', 'kl']
    """
    if not ahead:
        raise ValueError("ahead is empty: give one rollout and its plane per model")
    colors = themes.model_colors(list(ahead))
    names = [escape(shorten(label)) for label in ahead]
    traces: list[Any] = []
    layout = Layout()
    frame = {"showticklabels": False, "showline": True, "mirror": True}
    for i, ((rollout, plane), across) in enumerate(zip(ahead.values(), column_domains(len(ahead)), strict=True)):
        trained = "1 step" if rollout.horizon == 1 else f"{rollout.horizon} steps"
        place = layout.view(
            across,
            _TOP,
            x={**frame, "title": {"text": escape(axes[0])}},
            y={**frame, "title": {"text": "" if i else escape(axes[1])}},
            title=names[i],
            more=f"psi was trained<br>for {trained}",
        )
        traces += _paths(i, names[i], rollout, plane, colors[i], place)
    longest = max(rollout.distance.size for rollout, _ in ahead.values())
    steps = {
        "range": [0.7, longest + 0.3], "title": {"text": "steps ahead"}, "dtick": 1 if longest <= 12 else None,
    }  # fmt: skip
    views = [
        layout.view(across, _BOTTOM, x=steps, y={"rangemode": "tozero", "title": {"text": title}})
        for across, title in (([0.0, 0.46], "distance to the true state"), ([0.56, 1.0], "KL (nats)"))
    ]
    for i, (rollout, _) in enumerate(ahead.values()):
        traces += _divergence(i, names[i], rollout, colors[i], views)
    return layout.finish(
        traces,
        theme,
        height=560,
        margin={"l": 60, "t": 78, "b": 84},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.13, "yanchor": "top"},
    )


def _paths(
    i: int, name: str, rollout: LookAhead, plane: Plane, color: str, axes: Mapping[str, str]
) -> list[go.Scatter]:
    tokens = ["the cursor", *(f"token {escape(shorten(token, 40))}" for token in rollout.tokens)]
    places = [rollout.position, *rollout.positions]
    steps = [f"position {place}, {token}" for place, token in zip(places, tokens, strict=True)]
    options = {"text": steps, "mode": "lines+markers", **axes}
    true = _placed(plane, np.vstack([rollout.start, rollout.true]))
    rolled = _placed(plane, np.vstack([rollout.start, rollout.rolled]))
    sizes = [15, *[9] * rollout.distance.size]
    return [
        go.Scatter(
            x=true[:, 0], y=true[:, 1], legendgroup="true", showlegend=i == 0,
            name=f"true states from position {rollout.position}, episode {rollout.episode}",
            line={"color": themes.EXACT, "width": 5}, marker={"size": sizes, "color": themes.EXACT},
            hovertemplate="<b>true state</b><br>%{text}<extra></extra>", meta={"role": "true", "model": i}, **options,
        ),
        go.Scatter(
            x=rolled[:, 0], y=rolled[:, 1], name=f"{name}: psi's rollout", legendgroup=f"psi{i}",
            line={"color": color, "width": 2, "dash": "dot"},
            marker={"size": sizes, "color": color, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate=f"<b>{name}: psi</b><br>%{{text}}<extra></extra>", meta={"role": "rolled", "model": i},
            **options,
        ),
    ]  # fmt: skip


def _divergence(i: int, name: str, rollout: LookAhead, color: str, views: list[dict[str, str]]) -> list[go.Scatter]:
    steps = list(range(1, rollout.distance.size + 1))

    def line(role: str, values: np.ndarray, label: str, axes: Mapping[str, str], **style: Any) -> go.Scatter:
        return go.Scatter(
            x=steps, y=values, mode="lines+markers", name=label, legendgroup=f"{role}{i}",
            showlegend=role == "no_change",
            hovertemplate=f"<b>{label}</b><br>%{{x}} ahead: %{{y:.4f}}<extra></extra>",
            meta={"role": role, "model": i}, **style, **axes,
        )  # fmt: skip

    psi = {"line": {"color": color, "dash": dash(i)}, "marker": {"symbol": symbol(i), "color": color}}
    still = {
        "line": {"color": color, "width": 1, "dash": "dot"},
        "marker": {"symbol": f"{symbol(i)}-open", "color": color},
    }
    return [
        line("distance", rollout.distance, f"{name}: psi", views[0], **psi),
        line("no_change", rollout.no_change, f"{name}: no change", views[0], **still),
        line("kl", rollout.kl, f"{name}: psi", views[1], **psi),
    ]


def _placed(plane: Plane, hidden: Float[np.ndarray, "rows D"]) -> Float[np.ndarray, "rows 2"]:
    places = np.asarray(plane(hidden) if callable(plane) else hidden @ plane[0] + plane[1], dtype=np.float64)
    if places.shape != (len(hidden), 2):
        raise ValueError(f"a plane must give (rows, 2) for hidden states {hidden.shape}, got shape {places.shape}")
    return places
