"""A path through points that fades towards the past, with an arrow head at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from nextlat_viz.figures import theme as themes

# Older parts of a path: first and last number of steps ago, opacity, and width relative to the newest part.
_AGES = ((1, 5, 0.5, 0.7), (5, 10**9, 0.2, 0.5))
_HEAD = 11.0


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
        line = {"color": themes.rgba(color, opacity), "width": width * thin, "dash": dash}
        parts.append({"x": part[:, 0], "y": part[:, 1], "mode": "lines+markers", "line": line, "marker": marker})
    return parts


def ring_sizes(n: int) -> list[float]:
    """Return the sizes of the marks along a path of n points: zero except for the ring at its end."""
    return [0.0] * (n - 1) + [16.0] * (n > 0)
