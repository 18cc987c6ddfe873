"""Next-token distributions before and after an edit of the state, next to the exact one at the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Int

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import LINE, MOST_NAMES, bars, hatched, likeliest, name_axis, room_below
from nextlat_viz.figures.layout import LEGEND, Layout, broken_lines, column_domains, legend_entry, note
from nextlat_viz.figures.theme import Theme, symbol
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.interventions.inject import Injection

_BARS, _ROLLOUT = 180, 130  # pixels


def injection_figure(injections: Mapping[str, Injection], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw next-token bars before and after an injection next to the exact ones, one view per model.

    If a model has psi and read tokens after the edit, a lower view shows its rollouts with and without the edit: KL
    from the exact distribution at each step or, in a world without exact predictions, the probability of each token.

    Parameters
    ----------
    injections : dict of label to Injection
        One per model, over one vocabulary.
    most : int
        Most tokens to show: of a larger vocabulary, the likeliest in any distribution.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Traces by ``meta["role"]``: bars "exact", "before", "after"; lines "rollout_before", "rollout_after", point i
        after i tokens. ``meta["model"]`` is the model's place.

    Raises
    ------
    ValueError
        Nothing to draw, or several vocabularies.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> from nextlat_viz.analysis.interventions.inject import inject
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> injection = inject(checkpoint, latents, probe(latents, "belief"), 25, [0.1, 0.8, 0.1], steps=3)
    >>> [trace.meta["role"] for trace in injection_figure({"NextLat": injection}).data]
    ['exact', 'before', 'after', 'rollout_before', 'rollout_after']
    """
    if not injections:
        raise ValueError("injections is empty: give one per model")
    items = list(injections.values())
    if len({item.vocabulary for item in items}) > 1:
        raise ValueError("injections must be over one vocabulary")
    known = [p for item in items for p in (item.probs_before, item.probs_after, item.exact) if p is not None]
    chosen = likeliest(known, most)
    names = [escape(shorten(label)) for label in injections]
    colors = themes.model_colors(list(injections))
    rolled = [i for i, item in enumerate(items) if item.rollout_after is not None and item.tokens]
    x = name_axis([items[0].vocabulary[token] for token in chosen], "next token")
    foot = room_below(x)
    about = broken_lines([f"{name}: {_summary(item)}" for name, item in zip(names, items, strict=True)], LINE, 12)
    top = 108 + 16 * len(about)
    inside = _BARS + (foot + 54 + _ROLLOUT if rolled else 0)
    traces: list[Any] = []
    layout = Layout()
    # One block above all views: headings side by side would be too wide.
    above = {"xanchor": "left", "yanchor": "bottom", "yshift": 26, "align": "left"}
    layout.notes.append(note(0.0, 1.0, "<br>".join(about), **above))
    for i, (item, across) in enumerate(zip(items, column_domains(len(items)), strict=True)):
        y = {"range": [0, 1.02], "title": {"text": "" if i else "probability"}}
        axes = layout.view(across, [1 - _BARS / inside, 1.0], x=x, y=y, title=names[i])
        traces += _bars(i, item, chosen, colors[i], axes)
    if rolled:
        exact = any(item.exact_rollout is not None for item in items)
        title = "KL from exact (nats)" if exact else "probability of the token"
        # As text: a legend with two entries per model would not fit into a narrow figure.
        marks = {i: {"mode": "markers", "marker": {"symbol": symbol(i), "color": colors[i]}} for i in rolled}
        key = [legend_entry({"type": "scatter", "name": names[i], **mark}) for i, mark in marks.items()]
        axes = layout.view(
            [0.0, 1.0],
            [0.0, _ROLLOUT / inside],
            x=_steps_axis(max((item.tokens for item in items), key=len), exact),
            y={"rangemode": "tozero", "title": {"text": title}},
            title="Rollout by psi",
            more=f"{', '.join(key)}: dotted before the edit, solid after",
        )
        for i in rolled:
            traces += _rollout(i, names[i], items[i], exact, colors[i], axes)
    below = 52 if rolled else foot
    return layout.finish(
        traces,
        theme,
        height=top + inside + below,
        barmode="group",
        bargap=0.25,
        margin={"l": 60, "t": top, "b": below},
        legend=LEGEND,
    )


def _summary(item: Injection) -> str:
    """Describe the size of the edit and its effect."""
    size = f"edit of {item.relative_size:.0%} of the mean distance"
    if item.exact is None:
        return f"{size}, no exact prediction known"
    gaps = f"KL from exact {item.kl_before:.3f} → <b>{item.kl_after:.3f}</b> nats"
    return f"{size}, {gaps}, random edits of this size {item.kl_control:.3f}"


def _bars(
    i: int, item: Injection, chosen: Int[np.ndarray, " shown"], color: str, axes: Mapping[str, str]
) -> list[go.Bar]:
    outline = {"color": "rgba(0,0,0,0)", "line": {"color": color, "width": 2}}
    rows: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("exact", item.exact, "exact at the target", {"color": themes.EXACT}),
        ("before", item.probs_before, "before the edit", outline),
        ("after", item.probs_after, "after the edit", hatched(color)),
    ]
    return [
        bars(label, values, item.vocabulary, chosen, marker, role, **axes).update(
            meta={"role": role, "model": i}, legendgroup=role, showlegend=i == 0
        )
        for role, values, label, marker in rows
        if values is not None
    ]


def _rollout(i: int, name: str, item: Injection, exact: bool, color: str, axes: Mapping[str, str]) -> list[go.Scatter]:
    if exact:
        frame = item.to_frame()
        values = {when: frame[when].to_numpy() for when in ("before", "after")}
    else:
        # The probability of each token read after the edit.
        read = np.arange(item.token_ids.size), item.token_ids
        steps: dict[str, Any] = {
            "before": [item.probs_before, item.rollout_before], "after": [item.probs_after, item.rollout_after],
        }  # fmt: skip
        values = {when: np.vstack(rows)[read] for when, rows in steps.items()}
    looks = {
        "before": {"line": {"color": color, "width": 1.5, "dash": "dot"}, "marker": {"symbol": f"{symbol(i)}-open"}},
        "after": {"line": {"color": color, "width": 2.2}, "marker": {"symbol": symbol(i)}},
    }
    return [
        go.Scatter(
            x=np.arange(len(numbers)) + (not exact), y=numbers, mode="lines+markers",
            name=f"{name}: rollout {when} the edit", showlegend=False,
            hovertemplate=f"<b>{name}, {when} the edit</b><br>%{{x}} tokens: %{{y:.4f}}<extra></extra>",
            meta={"role": f"rollout_{when}", "model": i}, **looks[when], **axes,
        )
        for when, numbers in values.items()
    ]  # fmt: skip


def _steps_axis(tokens: Sequence[str], exact: bool) -> dict[str, Any]:
    names = [escape(shorten(token, 8)) for token in tokens]
    if len(names) > MOST_NAMES:
        return {"showgrid": False, "title": {"text": "tokens read by psi"}}
    names = ["now", *names] if exact else names
    first = 0 if exact else 1
    ticks = {"tickvals": list(range(first, len(names) + first)), "ticktext": names}
    # Keep the first name away from the lowest number of the vertical axis.
    span = {"range": [first - 0.8, len(names) + first - 0.6]}
    return {"showgrid": False, **ticks, **span, "title": {"text": "token read by psi"}}
