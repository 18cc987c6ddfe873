"""What if? The next token before and after an edit of the state, beside what the world would predict there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.prediction import (
    LEGEND,
    MOST_NAMES,
    below,
    distributions,
    hatched,
    heading,
    likeliest,
    name_axis,
)
from nextlat_viz.figures.theme import SYMBOLS, Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.injection_result import Injection

_GAP, _TOP = 0.07, 122
# What SYMBOLS look like, in text.
_SIGNS = "●◆■✚▲★⬢✖"


def injection_figure(injections: Mapping[str, Injection], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw next-token bars before and after an injection, the exact ones beside them, one view per model.

    Below, where some model has psi and tokens were read after the edit: KL from what the world would predict at each
    step, of the edited and of the unedited rollout; where the world does not say, the probability of each token read.

    Parameters
    ----------
    injections : dict of label to Injection
        One per model, over one vocabulary.
    most : int
        Of larger vocabularies the tokens some distribution holds likeliest.
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
    >>> from nextlat_viz.analysis.injection import inject
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> found = inject(checkpoint, latents, probe(latents, "belief"), 25, [0.1, 0.8, 0.1], steps=3)
    >>> [trace.meta["role"] for trace in injection_figure({"NextLat": found}).data]
    ['exact', 'before', 'after', 'rollout_before', 'rollout_after']
    """
    if not injections:
        raise ValueError("injections is empty: give one per model")
    if len({one.vocabulary for one in injections.values()}) > 1:
        raise ValueError("injections must be over one vocabulary")
    every = [p for one in injections.values() for p in (one.probs_before, one.probs_after, one.exact) if p is not None]
    chosen = likeliest(every, most)
    rolled = any(one.rollout_after is not None and one.tokens for one in injections.values())
    colors = themes.model_colors(list(injections))
    width = (1 - _GAP * (len(injections) - 1)) / len(injections)
    figure, notes, layout = Figure(), [], {}
    axis = name_axis([next(iter(injections.values())).vocabulary[token] for token in chosen])
    foot = below(axis)
    # In pixels: the bars, the names under them, the rollouts.
    inside = 180 + (foot + 54 + 130 if rolled else 0)
    up = [(inside - 180) / inside, 1.0]
    for i, (label, one) in enumerate(injections.items()):
        left, n = i * (width + _GAP), "" if i == 0 else str(i + 1)
        figure.add_traces(_bars(i, one, chosen, colors[i], {"xaxis": f"x{n}", "yaxis": f"y{n}"}))
        notes.append(heading(escape(shorten(label)), _said(one), left))
        layout[f"xaxis{n}"] = axis | {
            "domain": [left, left + width], "anchor": f"y{n}", "title": {"text": "next token"},
        }  # fmt: skip
        layout[f"yaxis{n}"] = {
            "domain": up, "anchor": f"x{n}", "range": [0, 1.02], "title": {"text": "probability" if i == 0 else ""},
        }  # fmt: skip
    if rolled:
        exact = any(one.exact_rollout is not None for one in injections.values())
        place = str(len(injections) + 1)
        for i, (label, one) in enumerate(injections.items()):
            figure.add_traces(_rollout(i, shorten(label), one, exact, colors[i], place))
        # In words: a legend of two entries for each model does not fit into a narrow figure.
        rolling = [
            f'<span style="color:{color}">{_SIGNS[i % len(_SIGNS)]}</span> {escape(shorten(label))}'
            for i, (color, (label, one)) in enumerate(zip(colors, injections.items(), strict=True))
            if one.rollout_after is not None
        ]
        said = f"{', '.join(rolling)}: dotted before the edit, solid after"
        notes.append(heading("Rollout by psi", said, 0.0, 130 / inside))
        layout[f"xaxis{place}"] = _steps_axis(list(injections.values()), place, exact)
        layout[f"yaxis{place}"] = {
            "domain": [0.0, 130 / inside], "anchor": f"x{place}", "rangemode": "tozero",
            "title": {"text": "KL from exact (nats)" if exact else "probability of the token"},
        }  # fmt: skip
    figure.update_layout(
        template=themes.template(theme),
        height=_TOP + inside + (52 if rolled else foot),
        barmode="group",
        bargap=0.25,
        margin={"l": 60, "r": 14, "t": _TOP, "b": 52 if rolled else foot},
        hovermode="closest",
        legend=LEGEND | {"x": 0, "xanchor": "left"},
        annotations=notes,
        **layout,
    )
    return figure


def _said(one: Injection) -> str:
    """The size of the edit and what it did to the gap, in short lines: two models stand side by side."""
    lines = [f"size {one.size:.2f}, {one.relative_size:.0%} of mean distance"]
    if one.exact is None:
        lines.append("no exact prediction is known")
    else:
        lines.append(f"KL from exact: {one.kl_before:.3f} → <b>{one.kl_after:.3f}</b> nats")
        lines.append(f"after random edits: {one.kl_control:.3f} nats")
    return "<br>".join(lines)


def _bars(i: int, one: Injection, chosen: Any, color: str, axes: dict[str, str]) -> list[go.Bar]:
    bars = distributions({"before": one.probs_before, "after": one.probs_after}, one.exact, chosen, one.vocabulary)
    looks = {
        "exact": {"color": themes.EXACT},
        "before": {"color": "rgba(0,0,0,0)", "line": {"color": color, "width": 2}, "pattern": {"shape": ""}},
        "after": hatched(color, "/"),
    }
    for bar in bars:
        said = "exact at the target" if bar.name == "exact" else f"{bar.name} the edit"
        bar.update(
            marker=looks[bar.name], meta={"role": bar.name, "model": i}, name=said, legendgroup=bar.name,
            showlegend=i == 0, **axes,
        )  # fmt: skip
    return bars


def _rollout(i: int, label: str, one: Injection, exact: bool, color: str, place: str) -> list[go.Scatter]:
    if one.rollout_before is None or one.rollout_after is None or not one.tokens:
        return []
    if exact:
        frame = one.to_frame()
        values = {"before": frame["before"].to_numpy(), "after": frame["after"].to_numpy()}
    else:
        read = one.token_ids
        steps = np.arange(read.size)
        values = {
            "before": np.vstack([one.probs_before, one.rollout_before])[steps, read],
            "after": np.vstack([one.probs_after, one.rollout_after])[steps, read],
        }
    symbol = SYMBOLS[i % len(SYMBOLS)]
    looks = {
        "before": {"line": {"color": color, "width": 1.5, "dash": "dot"}, "marker": {"symbol": f"{symbol}-open"}},
        "after": {"line": {"color": color, "width": 2.2}, "marker": {"symbol": symbol}},
    }
    return [
        go.Scatter(
            x=list(range(len(found))) if exact else list(range(1, len(found) + 1)), y=found, mode="lines+markers",
            name=f"{escape(label)}: rollout {when} the edit", showlegend=False, xaxis=f"x{place}", yaxis=f"y{place}",
            hovertemplate=f"<b>{escape(label)}, {when}</b><br>%{{x}} tokens: %{{y:.4f}}<extra></extra>",
            meta={"role": f"rollout_{when}", "model": i}, **looks[when],
        )
        for when, found in values.items()
    ]  # fmt: skip


def _steps_axis(injections: list[Injection], place: str, exact: bool) -> dict[str, Any]:
    tokens = max((one.tokens for one in injections), key=len)
    names = [escape(shorten(token, 8)) for token in tokens]
    axis: dict[str, Any] = {"domain": [0.0, 1.0], "anchor": f"y{place}", "showgrid": False}
    if len(names) > MOST_NAMES:
        return {**axis, "title": {"text": "tokens read by psi"}}
    ticks = {"tickvals": list(range(len(names) + 1)), "ticktext": ["now", *names]}
    if not exact:
        ticks = {"tickvals": list(range(1, len(names) + 1)), "ticktext": names}
    return {**axis, **ticks, "title": {"text": "token read by psi"}}
