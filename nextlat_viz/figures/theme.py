"""Theme of all figures: templates for light and dark pages; colours, marks and paths fit for colour-blind people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.errors import one_of
from nextlat_viz.plotting import CATEGORICAL, DISTINCT, INK, MISSING, ROOM, SEQUENTIAL, TOOLBAR

Theme = Literal["auto", "light", "dark"]

# Models differ in these as well as in colour, for colour-blind people.
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "star", "hexagon", "x")
# Marks of the classes in print. Plotly's WebGL draws no open marks with a colour scale.
CLASSES = ("circle", "triangle-up", "square", "diamond", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
EXACT = MISSING
OBJECTIVES = {"next_token": "next-token", "nextlat": "NextLat", "mtp": "MTP", "jtp": "JTP", "bst": "BST"}
OBJECTIVES |= {"trm": "TRM", "dis": "DIS", "one_pass": "one pass", "equal_depth": "equal depth"}
"""Names of the objectives in figures."""
MODELS = {
    "nexttoken": "#D55E00",
    "nextlat": "#0072B2",
    "mtp": "#009E73",
    "jtp": "#CC79A7",
    "bst": "#E69F00",
}

# Older parts of a path: first and last number of steps ago, opacity, and width relative to the newest part.
_AGES = ((1, 5, 0.5, 0.7), (5, 10**9, 0.2, 0.5))
_HEAD = 11.0
CLEAR = "rgba(0,0,0,0)"
_INK = {"auto": INK, "light": "#2b2f36", "dark": "#e4e6ea"}
_PAPER = {"auto": "rgba(0,0,0,0)", "light": "#ffffff", "dark": "#111111"}
_RULE = {"auto": "rgba(128,128,128,0.25)", "light": "rgba(0,0,0,0.10)", "dark": "rgba(255,255,255,0.14)"}
_HOVER = {"auto": ("#2b2f36", "#ffffff"), "light": ("#ffffff", "#2b2f36"), "dark": ("#2b2f36", "#ffffff")}


def objective_name(objective: object) -> str:
    """Return the name of an objective in figures, also for one with other hyperparameters.

    Examples
    --------
    >>> objective_name("nextlat"), objective_name("nextlat, horizon 4"), objective_name("true world")
    ('NextLat', 'NextLat, horizon 4', 'true world')
    """
    name, comma, rest = str(objective).partition(",")
    return f"{OBJECTIVES.get(name, name)}{comma}{rest}"


def template(theme: Theme = "auto") -> go.layout.Template:
    """Return the plotly template of a theme.

    Parameters
    ----------
    theme : {"auto", "light", "dark"}
        "auto" has no background and mid-grey text, readable on a white or a dark page; the other two paint
        a background.

    Raises
    ------
    UnknownNameError
        For any other name.
    TypeError
        If it is not text.

    Examples
    --------
    >>> template("auto").layout.paper_bgcolor
    'rgba(0,0,0,0)'
    """
    one_of("theme", theme, get_args(Theme))
    ink, rule = _INK[theme], _RULE[theme]
    hover_paper, hover_ink = _HOVER[theme]
    axis = {
        "gridcolor": rule,
        "linecolor": rule,
        "zeroline": False,
        "ticks": "",
        "automargin": False,
        "title": {"standoff": 6, "font": {"size": 12}},
        "tickfont": {"size": 11},
    }
    return go.layout.Template(
        layout={
            "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": ink},
            # No anchor, or a figure that centres its title would cut it off.
            "title": {"font": {"size": 15}, "x": 0.01},
            "paper_bgcolor": _PAPER[theme],
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(CATEGORICAL),
            "colorscale": {"sequential": [[i / 15, color] for i, color in enumerate(SEQUENTIAL)]},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "bgcolor": hover_paper,
                "font": {"color": hover_ink, "family": "ui-monospace, Menlo, Consolas, monospace", "size": 12},
                "bordercolor": MISSING,
                "align": "left",
            },
            "legend": {"bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant"},
            "modebar": TOOLBAR,
            "newselection": {"line": {"color": ink, "width": 1.5, "dash": "dot"}},
            "margin": {"l": 56, "r": ROOM, "t": 56, "b": 44},
        }
    )


def symbol(i: int) -> str:
    """Return the mark of the i-th model."""
    return SYMBOLS[i % len(SYMBOLS)]


def dash(i: int) -> str:
    """Return the dash of the i-th model's lines."""
    return DASHES[i % len(DASHES)]


def ink(theme: Theme = "auto") -> str:
    """Return the text colour of a theme."""
    return _INK[theme]


def model_colors(labels: Sequence[str]) -> list[str]:
    """Return one colour per model: that of its objective, or an unused colour if two models would look the same.

    Examples
    --------
    >>> model_colors(["next-token", "NextLat"])
    ['#D55E00', '#0072B2']
    >>> len(set(model_colors(["NextLat", "NextLat seed 1", "mine"])))
    3
    """
    chosen: list[str] = []
    for label in labels:
        key = re.sub(r"[^a-z]", "", label.lower())
        color = next((color for name, color in MODELS.items() if key.startswith(name)), None)
        if color is None or color in chosen:
            taken = {MODELS["nexttoken"], MODELS["nextlat"], *chosen}
            color = next((free for free in (*MODELS.values(), *CATEGORICAL) if free not in taken), MISSING)
        chosen.append(color)
    return chosen


def categorical_colors(n: int) -> list[str]:
    """Return ``n`` colours for categories: up to six that also differ in greyscale, for more the steps of a scale.

    Neighbours on the scale look alike, so that more than six classes need labels or must be shown one by one.

    Examples
    --------
    >>> categorical_colors(2)
    ['#008C65', '#EAA51A']
    """
    if n <= DISTINCT:
        return list(CATEGORICAL[:n])
    return to_hex(sequential_rgb(np.linspace(0, 1, n)))


def sequential_rgb(values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "rows 3"]:
    """Map numbers in 0..1 to red, green, blue in 0..1 along the sequential scale."""
    stops = np.array([[float(part) for part in re.findall(r"[\d.]+", color)] for color in SEQUENTIAL]) / 255
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, stops[:, channel]) for channel in range(3)], axis=-1)


def belief_rgb(beliefs: Float[np.ndarray, "rows 3"]) -> Float[np.ndarray, "rows 3"]:
    """Mix the colours of three states in the proportions of beliefs; a pure belief has its state's categorical colour.

    Predictions of a probe, which may not be distributions, are clipped and normalised. Colours are red, green, blue in
    0..1.

    Examples
    --------
    >>> to_hex(belief_rgb(np.eye(3)))[:2]
    ['#008c65', '#eaa51a']
    """
    corners = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in CATEGORICAL[:3]])
    share = np.clip(beliefs, 0, None)
    share = share / np.maximum(share.sum(axis=-1, keepdims=True), 1e-12)
    # Mix in linear light: in sRGB a mixture would look darker than its parts.
    return (share @ corners**2.2) ** (1 / 2.2)


def to_hex(rgb: Float[np.ndarray, "rows 3"]) -> list[str]:
    """Write colours as ``#rrggbb``; NaN becomes the colour of missing values.

    Examples
    --------
    >>> to_hex(np.array([[0.0, 0.5, 1.0], [np.nan] * 3]))
    ['#0080ff', '#8a8a8a']
    """
    missing = np.isnan(rgb).any(axis=-1)
    parts = (np.clip(np.nan_to_num(rgb), 0, 1) * 255).round().astype(int)
    codes = (parts[:, 0] << 16) | (parts[:, 1] << 8) | parts[:, 2]
    return [MISSING if nan else f"#{code:06x}" for code, nan in zip(codes.tolist(), missing.tolist(), strict=True)]


def rgba(color: str, alpha: float) -> str:
    """Return a ``#rrggbb`` colour with opacity `alpha`, as CSS.

    Examples
    --------
    >>> rgba("#0072B2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def fading_path(
    at: Float[np.ndarray, "positions 2"], color: str, width: float | int = 2.4, dash: str = "solid"
) -> list[dict[str, Any]]:
    """Return what plotly needs to draw a path in three parts: the oldest steps, later ones, and the newest.

    The newest step has an arrow head at its end, whose direction is right only if both axes have one scale. Parts may
    be empty: a path of any length has three.

    Examples
    --------
    >>> old, later, newest = fading_path(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), "#0072B2")
    >>> old["x"].tolist(), later["x"].tolist(), newest["x"].tolist()
    ([], [0.0, 1.0], [1.0, 2.0])
    >>> newest["marker"]["angle"], newest["marker"]["size"]
    (90.0, [0.0, 11.0])
    """
    last, parts = len(at) - 1, []
    for newest, oldest, opacity, thin in reversed([(0, 1, 1.0, 1.0), *_AGES]):
        begin, end = max(last - oldest, 0), last - newest
        part = at[begin : end + 1] if end > begin else at[:0]
        step = part[-1] - part[-2] if len(part) else np.zeros(2)
        head = newest == 0 and bool(step.any())
        marker = {
            "size": [0.0] * (len(part) - 1) + [_HEAD * head] * (len(part) > 0), "symbol": "triangle-up",
            "angle": float(np.degrees(np.arctan2(step[0], step[1]))) if head else 0.0, "color": color, "opacity": 1,
        }  # fmt: skip
        line = {"color": rgba(color, opacity), "width": width * thin, "dash": dash}
        parts.append({"x": part[:, 0], "y": part[:, 1], "mode": "lines+markers", "line": line, "marker": marker})
    return parts


def ring_sizes(n: int) -> list[float]:
    """Return the sizes of the marks along a path of n points: zero except for the ring at its end."""
    return [0.0] * (n - 1) + [16.0] * (n > 0)
