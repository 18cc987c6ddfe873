"""What does it know? A probe's reading at the cursor beside the truth, with the probe's score and controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.prediction import (
    LEGEND,
    MOST_NAMES,
    PATTERNS,
    below,
    hatched,
    heading,
    likeliest,
    name_axis,
)
from nextlat_viz.figures.probes import METRICS
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.probes.result import ProbeResult, ReadOut


def read_out(readings: Mapping[str, ReadOut], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw what each model's probe reads at one place: numbers or class probabilities, the truth beside them.

    Parameters
    ----------
    readings : dict of label to ReadOut
        One per model, of one target at one place, as `analysis.probes.result.read_out` gives them.
    most : int
        Of more classes those that are true, or read with a probability of 0.005 or more; of more numbers the first.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Bars with ``meta["role"]`` "truth" and "read". The heading gives every probe's held-out score beside its
        controls, and says where a probe was fitted on the episode shown.

    Raises
    ------
    ValueError
        No reading, or readings of several targets or places.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz import analysis
    >>> from nextlat_viz.analysis.probes.result import read_out as read
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> figure = read_out({"NextLat": read(latents, analysis.probe(latents, "belief"), row=25)})
    >>> [bar.name for bar in figure.data], figure.layout.yaxis.title.text
    (['truth', 'NextLat'], 'belief')
    """
    if not readings:
        raise ValueError("readings is empty: give one per model")
    first = next(iter(readings.values()))
    target, names = first.probe.target, first.probe.names
    for one in readings.values():
        if (one.probe.target, one.probe.names) != (target, names):
            raise ValueError(f"readings must be of one target with the same names, here {target!r}")
        if (one.episode, one.position) != (first.episode, first.position):
            raise ValueError("readings must be of one episode and position")
    classes = first.probe.metric == "accuracy"
    chosen = np.arange(len(names))[:most]
    if classes:
        # The true class is always shown, however unlikely it is read.
        chosen = likeliest([2 * np.nan_to_num(first.truth), *(one.read for one in readings.values())], most)
    shown = [escape(shorten(names[i], 60)) for i in chosen]
    places = list(range(len(shown)))
    figure = Figure()
    values = {"truth": first.truth, **{label: one.read for label, one in readings.items()}}
    colors = [themes.EXACT, *themes.model_colors(list(readings))]
    for i, ((label, numbers), color) in enumerate(zip(values.items(), colors, strict=True)):
        name = escape(shorten(label))
        figure.add_trace(
            go.Bar(
                x=places, y=numbers[chosen].round(6), name=name, text=shown, textposition="none",
                marker=hatched(color, PATTERNS[(i - 1) % len(PATTERNS)]) if i else {"color": color},
                hovertemplate=f"<b>{name}</b><br>%{{text}}: %{{y:.4f}}<extra></extra>",
                meta={"role": "read" if i else "truth"},
            )
        )  # fmt: skip
    lines = [f"{escape(shorten(label))}: {_score(one.probe, one.held_out)}" for label, one in readings.items()]
    left_out = len(names) - chosen.size
    axis = name_axis([names[i] for i in chosen])
    figure.update_layout(
        template=themes.template(theme),
        height=230 + 18 * len(lines) + below(axis),
        barmode="group",
        bargap=0.25,
        margin={"l": 60, "r": 14, "t": 64 + 18 * len(lines), "b": below(axis)},
        xaxis=axis
        | {"title": {"text": ("class" if classes else "component") + (f" ({left_out} more)" if left_out else "")}},
        yaxis={"title": {"text": f"probability of {escape(shorten(target))}" if classes else escape(shorten(target))}}
        | ({"range": [0, 1.02]} if classes else {"zeroline": True}),
        legend=LEGEND,
        annotations=[
            heading(
                f"{escape(shorten(target))} after position {first.position}, read by a linear probe", "<br>".join(lines)
            )
        ],
    )
    return figure


def _score(probe: ProbeResult, held_out: bool | None) -> str:
    """A probe's score beside its controls, in one line."""
    parts = [f"held-out {METRICS[probe.metric]} {probe.score:.2f}", f"shuffled {probe.shuffled:.2f}"]
    if probe.untrained is not None:
        parts.append(f"untrained {probe.untrained:.2f}")
    if probe.chance is not None:
        parts.append(f"chance {probe.chance:.2f}")
    if held_out is False:
        parts.append("fitted on this episode")
    return ", ".join(parts).replace("-0.00", "0.00").replace(" -", " −")
