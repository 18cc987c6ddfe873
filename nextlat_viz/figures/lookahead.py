"""Can it see ahead? Psi's rollout as a ghost path beside the true states, and how far it strays by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.prediction import heading
from nextlat_viz.figures.theme import DASHES, SYMBOLS, Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.lookahead import LookAhead

Plane: TypeAlias = Callable[[np.ndarray], np.ndarray] | tuple[Float[np.ndarray, "D 2"], Float[np.ndarray, " 2"]]
_TOP, _BOTTOM, _GAP = [0.47, 1.0], [0.0, 0.28], 0.07


def look_ahead_path(
    ahead: Mapping[str, tuple[LookAhead, Plane]],
    *,
    axes: tuple[str, str] = ("x", "y"),
    theme: Theme = "auto",
) -> Figure:
    """Draw psi's rollout beside the true states in a plane, one view per model, and the divergence by step below.

    Parameters
    ----------
    ahead : dict of label to (LookAhead, plane)
        One per model. A plane maps hidden states (rows, D) to (rows, 2): a callable, or a matrix (D, 2) and an offset
        (2,), ``h @ matrix + offset``, such as those of a PCA or of a belief probe.
    axes : (str, str)
        What the two coordinates of the plane are.
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
    >>> found = look_ahead(checkpoint, latents, episode=2, position=4)
    >>> figure = look_ahead_path({"NextLat": (found, lambda h: h[:, :2])}, axes=("h0", "h1"))
    >>> [trace.meta["role"] for trace in figure.data]
    ['true', 'rolled', 'distance', 'no_change', 'kl']
    """
    if not ahead:
        raise ValueError("ahead is empty: give one rollout and its plane per model")
    colors = themes.model_colors(list(ahead))
    width = (1 - _GAP * (len(ahead) - 1)) / len(ahead)
    layout: dict[str, Any] = {}
    figure, notes = Figure(), []
    for i, (label, (one, plane)) in enumerate(ahead.items()):
        left = i * (width + _GAP)
        layout |= _view(i, [left, left + width], axes)
        figure.add_traces(_paths(i, shorten(label), one, plane, colors[i]))
        more = f"from position {one.position} of episode {one.episode}; psi was trained for {_steps(one.horizon)}"
        notes.append(heading(escape(shorten(label)), more, left))
    last = len(ahead)
    for i, (label, (one, _)) in enumerate(ahead.items()):
        figure.add_traces(_divergence(i, last, shorten(label), one, colors[i]))
    longest = max(one.distance.size for one, _ in ahead.values())
    for n, (x, title) in enumerate((([0.0, 0.46], "distance to the true state"), ([0.56, 1.0], "KL (nats)"))):
        layout[f"xaxis{_number(last + n)}"] = {
            "domain": x, "anchor": f"y{_number(last + n)}", "range": [0.7, longest + 0.3],
            "title": {"text": "steps ahead"}, "dtick": 1 if longest <= 12 else None,
        }  # fmt: skip
        layout[f"yaxis{_number(last + n)}"] = {
            "domain": _BOTTOM, "anchor": f"x{_number(last + n)}", "rangemode": "tozero", "title": {"text": title},
        }  # fmt: skip
    figure.update_layout(
        template=themes.template(theme),
        height=560,
        margin={"l": 60, "r": 14, "t": 62, "b": 84},
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.13, "yanchor": "top"},
        annotations=notes,
        **layout,
    )
    return figure


def _view(i: int, across: list[float], axes: tuple[str, str]) -> dict[str, Any]:
    n = _number(i)
    plain = {"showticklabels": False, "showline": True, "mirror": True}
    return {
        f"xaxis{n}": {**plain, "domain": across, "anchor": f"y{n}", "title": {"text": escape(axes[0])}},
        f"yaxis{n}": {**plain, "domain": _TOP, "anchor": f"x{n}", "title": {"text": escape(axes[1]) if i == 0 else ""}},
    }


def _paths(i: int, label: str, one: LookAhead, plane: Plane, color: str) -> list[go.Scatter]:
    name, n = escape(label), _number(i)
    tokens = ["the cursor", *(f"token {escape(shorten(token, 40))}" for token in one.tokens)]
    steps = [f"position {place}, {token}" for place, token in zip([one.position, *one.positions], tokens, strict=True)]
    read = {"xaxis": f"x{n}", "yaxis": f"y{n}", "text": steps, "mode": "lines+markers"}
    true = _placed(plane, np.vstack([one.start, one.true]))
    rolled = _placed(plane, np.vstack([one.start, one.rolled]))
    big = [15, *[9] * one.distance.size]
    return [
        go.Scatter(
            x=true[:, 0], y=true[:, 1], name="true states", legendgroup="true", showlegend=i == 0,
            line={"color": themes.EXACT, "width": 5}, marker={"size": big, "color": themes.EXACT},
            hovertemplate="<b>true state</b><br>%{text}<extra></extra>", meta={"role": "true", "model": i}, **read,
        ),
        go.Scatter(
            x=rolled[:, 0], y=rolled[:, 1], name=f"{name}: psi's rollout", legendgroup=f"psi{i}",
            line={"color": color, "width": 2, "dash": "dot"},
            marker={"size": big, "color": color, "symbol": "diamond-open", "line": {"width": 2}},
            hovertemplate=f"<b>{name}: psi</b><br>%{{text}}<extra></extra>", meta={"role": "rolled", "model": i},
            **read,
        ),
    ]  # fmt: skip


def _divergence(i: int, last: int, label: str, one: LookAhead, color: str) -> list[go.Scatter]:
    name = escape(label)
    steps = list(range(1, one.distance.size + 1))

    def line(role: str, values: np.ndarray, said: str, n: str, **style: Any) -> go.Scatter:
        return go.Scatter(
            x=steps, y=values, mode="lines+markers", name=said, legendgroup=f"{role}{i}",
            showlegend=role == "no_change",
            hovertemplate=f"<b>{said}</b><br>%{{x}} ahead: %{{y:.4f}}<extra></extra>", xaxis=f"x{n}", yaxis=f"y{n}",
            meta={"role": role, "model": i}, **style,
        )  # fmt: skip

    symbol = SYMBOLS[i % len(SYMBOLS)]
    own = {"line": {"color": color, "dash": DASHES[i % len(DASHES)]}, "marker": {"symbol": symbol, "color": color}}
    still = {
        "line": {"color": color, "width": 1, "dash": "dot"},
        "marker": {"symbol": f"{symbol}-open", "color": color},
    }
    return [
        line("distance", one.distance, f"{name}: psi", _number(last), **own),
        line("no_change", one.no_change, f"{name}: no change", _number(last), **still),
        line("kl", one.kl, f"{name}: psi", _number(last + 1), **own),
    ]


def _placed(plane: Plane, hidden: Float[np.ndarray, "rows D"]) -> Float[np.ndarray, "rows 2"]:
    places = np.asarray(plane(hidden) if callable(plane) else hidden @ plane[0] + plane[1], dtype=np.float64)
    if places.shape != (len(hidden), 2):
        raise ValueError(f"a plane must give (rows, 2) for hidden states {hidden.shape}, got shape {places.shape}")
    return places


def _steps(n: int) -> str:
    return "1 step" if n == 1 else f"{n} steps"


def _number(i: int) -> str:
    return "" if i == 0 else str(i + 1)
