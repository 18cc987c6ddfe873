"""What the pictures of worlds share: colours, a background that fits any page, and text that stays text."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.colors import sample_colorscale

# Grey that reads on white and on near-black alike.
INK = "#797979"
# Where an episode stands, and the way it took: red that reads on white and on near-black alike.
MARK = "#E0393E"
# Okabe & Ito (2008), told apart with any colour vision.
_OKABE_ITO = ("#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#0072B2", "#D55E00", "#999999")
# Cividis without its ends, which vanish on a dark and on a light page.
SEQUENTIAL = tuple(sample_colorscale("Cividis", [k / 20 for k in range(3, 19)]))


def state_colour(index: int) -> str:
    """Colour of a state or token by its place, starting over after eight."""
    return _OKABE_ITO[index % len(_OKABE_ITO)]


def mix(beliefs: Float[np.ndarray, "rows states"]) -> list[str]:
    """The states' colours mixed as light is, each by its probability."""
    pure = np.array([[int(state_colour(k)[i : i + 2], 16) for i in (1, 3, 5)] for k in range(beliefs.shape[1])])
    light = beliefs @ (pure / 255) ** 2.2
    return [f"rgb({r},{g},{b})" for r, g, b in np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(int)]


def safe(text: str) -> str:
    """Text that plotly shows as it is: neither as its HTML subset nor as LaTeX."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def layout(width: int, height: int) -> dict[str, Any]:
    """Transparent, without axes, one unit as long across as up."""
    # Of a page that is still finding its size the range must not remember anything.
    hidden = {"visible": False, "fixedrange": False, "constrain": "domain"}
    return {
        "width": width,
        "height": height,
        "template": "none",
        "margin": {"l": 16, "r": 16, "t": 44, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 13},
        "showlegend": False,
        "legend": {"font": {"size": 12}, "title": {"font": {"size": 12}}, "itemsizing": "constant"},
        "xaxis": hidden,
        "yaxis": hidden | {"scaleanchor": "x"},
        "hoverlabel": {"bgcolor": "#2b2f36", "font": {"color": "#ffffff"}},
        "dragmode": "pan",
    }


def caption(figure: go.Figure, title: str, below: str) -> None:
    """A title on top and one small sentence at the foot."""
    # A legend narrows the plot, and a sentence centred under it would run off the left edge.
    x, anchor = (0, "left") if figure.layout.showlegend else (0.5, "center")
    figure.update_layout(title={"text": safe(title), "x": 0.5, "font": {"size": 15}})
    figure.add_annotation(
        text=safe(below),
        x=x,
        xanchor=anchor,
        y=0,
        yshift=-24,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 11},
    )


def line(figure: go.Figure, x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> None:
    """A thin outline that says nothing on hover."""
    figure.add_scatter(x=x, y=y, mode="lines", line={"width": 1, "color": INK}, hoverinfo="skip", showlegend=False)


def outline(points: Float[np.ndarray, "points 2"]) -> Int[np.ndarray, " ring"]:
    """Indices around the convex hull, back to the first, anticlockwise (Andrew's monotone chain)."""
    order = np.lexsort((points[:, 1], points[:, 0]))

    def half(indices: Int[np.ndarray, " points"]) -> list[int]:
        chain: list[int] = []
        for index in indices:
            while len(chain) > 1:
                (ax, ay), (bx, by) = points[chain[-1]] - points[chain[-2]], points[index] - points[chain[-2]]
                if ax * by - ay * bx > 1e-12:
                    break
                chain.pop()
            chain.append(int(index))
        return chain

    return np.array(half(order)[:-1] + half(order[::-1]))
