"""What comes next: each model's next-token distribution beside the exact one."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.prediction import Prediction

# Bars are told apart in greyscale by their hatching; the exact distribution's are plain.
PATTERNS = ("/", "\\", ".", "x", "-", "|", "+")
MOST_NAMES = 24
# Where not all tokens can be shown, those are that some distribution gives this probability or more.
LEAST = 0.005
# In a line of its own on top, whatever stands in the headings under it.
LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "yref": "container", "y": 0.99, "yanchor": "top"}
# Letters that fit side by side under a narrow figure.
_ACROSS = 48


def prediction_bars(predictions: Mapping[str, Prediction], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw next-token distributions as bars, the exact one first where it is known.

    Parameters
    ----------
    predictions : dict of label to Prediction
        One per model, at one place, over one vocabulary.
    most : int
        Of larger vocabularies the tokens that some distribution gives 0.005 or more, the likeliest where they are
        still too many, in the order of their ids.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A trace per distribution, ``meta["role"]`` "exact" or "model". The heading says each model's KL from the exact
        distribution, in nats.

    Raises
    ------
    ValueError
        No prediction, or predictions over several vocabularies or at several places.

    Examples
    --------
    >>> from nextlat_viz.analysis.prediction import Prediction
    >>> p = Prediction(("0", "1"), np.array([0.5, 0.5]), np.array([0.25, 0.75]), "NextLat", 0, 3)
    >>> figure = prediction_bars({"NextLat": p})
    >>> [bar.name for bar in figure.data], figure.layout.annotations[0].text
    (['exact', 'NextLat'], '<b>Next token after position 3</b><br>KL from exact: NextLat 0.1308 nats')
    """
    if not predictions:
        raise ValueError("predictions is empty: give one per model")
    first = next(iter(predictions.values()))
    for one in predictions.values():
        if one.vocabulary != first.vocabulary or (one.episode, one.position) != (first.episode, first.position):
            raise ValueError("predictions must be of one episode and position, over one vocabulary")
    exact = next((one.exact for one in predictions.values() if one.exact is not None), None)
    shown = {label: one.model for label, one in predictions.items()}
    gaps = {label: one.kl for label, one in predictions.items() if one.kl is not None}
    chosen = likeliest([*shown.values(), *([] if exact is None else [exact])], most)
    figure = Figure(distributions(shown, exact, chosen, first.vocabulary))
    left_out = len(first.vocabulary) - chosen.size
    more = f" ({left_out} less likely ones left out)" if left_out else ""
    axis = name_axis([first.vocabulary[i] for i in chosen])
    figure.update_layout(
        template=themes.template(theme),
        height=236 + below(axis),
        barmode="group",
        bargap=0.25,
        margin={"l": 56, "r": 14, "t": 70, "b": below(axis)},
        xaxis=axis | {"title": {"text": f"next token{more}"}},
        yaxis={"title": {"text": "probability"}, "range": [0, 1.02]},
        legend=LEGEND,
        annotations=[heading(f"Next token after position {first.position}", said_gaps(gaps))],
    )
    return figure


def likeliest(distributions: Sequence[Float[np.ndarray, " V"]], most: int) -> Any:
    """Ids, ascending, of all tokens where there are no more than `most`; else of those that matter."""
    highest = np.max(np.stack(list(distributions)), axis=0)
    if highest.size <= most:
        return np.arange(highest.size)
    matter = max(2, int((highest >= LEAST).sum()))
    return np.sort(np.argsort(-highest, kind="stable")[: min(most, matter)])


def distributions(
    shown: Mapping[str, Float[np.ndarray, " V"]],
    exact: Float[np.ndarray, " V"] | None,
    chosen: Any,
    vocabulary: Sequence[str],
    **options: Any,
) -> list[go.Bar]:
    """Bars of the exact distribution and of each model's, one place per chosen token."""
    names = [escape(shorten(vocabulary[i], 60)) for i in chosen]

    def bars(label: str, values: np.ndarray, role: str, marker: dict[str, Any]) -> go.Bar:
        name = escape(shorten(label))
        return go.Bar(
            x=list(range(len(names))), y=values[chosen].round(6), name=name, text=names, textposition="none",
            hovertemplate=f"<b>{name}</b><br>token %{{text}}: %{{y:.4f}}<extra></extra>", marker=marker,
            meta={"role": role}, **options,
        )  # fmt: skip

    found = [] if exact is None else [bars("exact", exact, "exact", {"color": themes.EXACT})]
    for i, (label, color) in enumerate(zip(shown, themes.model_colors(list(shown)), strict=True)):
        found.append(bars(label, shown[label], "model", hatched(color, PATTERNS[i % len(PATTERNS)])))
    return found


def hatched(color: str, shape: str) -> dict[str, Any]:
    """A bar's marker in a colour, hatched."""
    return {"color": color, "pattern": {"shape": shape, "fillmode": "overlay", "solidity": 0.25, "size": 6}}


def name_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of names at 0, 1, ...: by number, since two names may be alike once they are shortened."""
    texts = [escape(shorten(name)) for name in names]
    return {
        "tickvals": list(range(len(texts))),
        "ticktext": texts,
        "range": [-0.6, len(texts) - 0.4],
        "tickangle": -60 if sum(map(len, texts)) > _ACROSS else 0,
        "showgrid": False,
    }


def below(axis: Mapping[str, Any]) -> int:
    """Room in pixels for an axis of names and its title: slanted names need more."""
    longest = max(len(html.unescape(text)) for text in axis["ticktext"])
    return 52 + (int(5.4 * longest) if axis["tickangle"] else 0)


def heading(text: str, more: str = "", x: float = 0.0, y: float = 1.0) -> dict[str, Any]:
    """A title over a view with a line of detail under it, left-aligned; both must be escaped already."""
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": "left", "yanchor": "bottom", "yshift": 6,
        "align": "left", "showarrow": False, "text": f"<b>{text}</b>" + (f"<br>{more}" if more else ""),
    }  # fmt: skip


def said_gaps(gaps: Mapping[str, float]) -> str:
    """Each model's KL from the exact distribution, in words; "" where there are none."""
    if not gaps:
        return ""
    return "KL from exact: " + ", ".join(f"{escape(shorten(label))} {gap:.4f} nats" for label, gap in gaps.items())
