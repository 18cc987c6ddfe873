"""Bars over the names of tokens or classes, shared by the figures of predictions, probes and edits."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import LEGEND, Layout
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

# Hatching tells bars apart in greyscale; those of the exact distribution are plain.
PATTERNS = ("/", "\\", ".", "x", "-", "|", "+")
MOST_NAMES = 24
# Of more names than fit, those are shown to which some distribution gives this probability or more.
LEAST = 0.005
_HOVER_LENGTH = 60
# Letters that fit side by side under a narrow figure.
_ACROSS = 48


def likeliest(distributions: Sequence[Float[np.ndarray, " V"]], most: int) -> Int[np.ndarray, " shown"]:
    """Return the ids to show, ascending: all where they fit, else the likeliest ones of probability 0.005 or more."""
    highest = np.max(np.stack(list(distributions)), axis=0)
    if highest.size <= most:
        return np.arange(highest.size)
    relevant = max(2, int((highest >= LEAST).sum()))
    return np.sort(np.argsort(-highest, kind="stable")[: min(most, relevant)])


def bars(
    label: str,
    values: Float[np.ndarray, " V"],
    names: Sequence[str],
    chosen: Int[np.ndarray, " shown"],
    marker: Mapping[str, Any],
    role: str,
    **options: Any,
) -> go.Bar:
    """Draw some values of a model as bars; `names` are those of all values."""
    name = escape(shorten(label))
    return go.Bar(
        x=list(range(len(chosen))),
        y=values[chosen].round(6),
        name=name,
        text=[escape(shorten(names[i], _HOVER_LENGTH)) for i in chosen],
        textposition="none",
        hovertemplate=f"<b>{name}</b><br>%{{text}}: %{{y:.4f}}<extra></extra>",
        marker=marker,
        **{"meta": {"role": role}, **options},
    )


def model_bars(
    models: Mapping[str, Float[np.ndarray, " V"]], names: Sequence[str], chosen: Int[np.ndarray, " shown"], role: str
) -> list[go.Bar]:
    """Draw one distribution per model, told apart by colour and by hatching."""
    colors = themes.model_colors(list(models))
    return [
        bars(label, values, names, chosen, hatched(colors[i], PATTERNS[i % len(PATTERNS)]), role)
        for i, (label, values) in enumerate(models.items())
    ]


def hatched(color: str, shape: str) -> dict[str, Any]:
    """Return the marker of hatched bars."""
    return {"color": color, "pattern": {"shape": shape, "fillmode": "overlay", "solidity": 0.25, "size": 6}}


def name_axis(names: Sequence[str], title: str) -> dict[str, Any]:
    """Return an axis of names at 0, 1, ...: placed by number, since shortened names may be alike."""
    texts = [escape(shorten(name)) for name in names]
    return {
        "tickvals": list(range(len(texts))),
        "ticktext": texts,
        "range": [-0.6, len(texts) - 0.4],
        "tickangle": -60 if sum(map(len, texts)) > _ACROSS else 0,
        "showgrid": False,
        "title": {"text": title},
    }


def room_below(axis: Mapping[str, Any]) -> int:
    """Return the pixels that an axis of names and its title need; slanted names need more."""
    longest = max(len(html.unescape(text)) for text in axis["ticktext"])
    return 52 + (int(5.4 * longest) if axis["tickangle"] else 0)


def bar_figure(
    traces: Sequence[go.Bar],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    title: str,
    lines: Sequence[str],
    theme: Theme,
) -> Figure:
    """Return a figure of one view of bars; `title` and the `lines` below it are plotly's HTML."""
    layout, below, above = Layout(), room_below(x), 52 + 18 * len(lines)
    layout.view([0.0, 1.0], [0.0, 1.0], x=x, y=y, title=title, more="<br>".join(lines))
    return layout.finish(
        Figure(list(traces)),
        theme,
        height=166 + above + below,
        barmode="group",
        bargap=0.25,
        margin={"l": 60, "r": 14, "t": above, "b": below},
        legend=LEGEND,
    )
