"""Probe readings at one place beside the truth, with each probe's score and controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import MOST_NAMES, bar_figure, bars, likeliest, model_bars, name_axis
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.probes.result import ProbeResult, ReadOut


def read_out_figure(readings: Mapping[str, ReadOut], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw what each model's probe reads at one place: numbers or class probabilities, the truth beside them.

    Parameters
    ----------
    readings : dict of label to ReadOut
        One per model, of one target at one place, as `analysis.probes.result.read_out` returns them.
    most : int
        Of more classes those that are true or read with a probability of 0.005 or more; of more numbers the first.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Bars with ``meta["role"]`` "truth" and "read". The heading gives each probe's held-out score beside its
        controls, and marks a training episode of the probe.

    Raises
    ------
    ValueError
        No reading, or readings of several targets or places.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz import analysis
    >>> from nextlat_viz.analysis.probes.result import read_out
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> figure = read_out_figure({"NextLat": read_out(latents, analysis.probe(latents, "belief"), row=25)})
    >>> [bar.name for bar in figure.data], figure.layout.yaxis.title.text
    (['truth', 'NextLat'], 'belief')
    """
    if not readings:
        raise ValueError("readings is empty: give one per model")
    first = next(iter(readings.values()))
    names, target = first.probe.names, escape(shorten(first.probe.target))
    for reading in readings.values():
        if (reading.probe.target, reading.probe.names) != (first.probe.target, names):
            raise ValueError(f"readings must be of one target with the same names, here {first.probe.target!r}")
        if (reading.episode, reading.position) != (first.episode, first.position):
            raise ValueError("readings must be of one episode and position")
    classes = first.probe.metric == "accuracy"
    chosen = np.arange(len(names))[:most]
    if classes:
        # Twice the truth, so that the true class is shown however unlikely the probes take it to be.
        chosen = likeliest([2 * np.nan_to_num(first.truth), *(reading.read for reading in readings.values())], most)
    models = {label: reading.read for label, reading in readings.items()}
    traces = [
        bars("truth", first.truth, names, chosen, {"color": themes.EXACT}, "truth"),
        *model_bars(models, names, chosen, "read"),
    ]
    omitted = len(names) - chosen.size
    kind = "class" if classes else "component"
    y = {"title": {"text": target}, "zeroline": True}
    if classes:
        y = {"title": {"text": f"probability of {target}"}, "range": [0, 1.02]}
    return bar_figure(
        traces,
        name_axis([names[i] for i in chosen], f"{kind} ({omitted} more)" if omitted else kind),
        y,
        f"{target} after position {first.position}, read by a linear probe",
        [f"{escape(shorten(label))}: {_score(item.probe, item.held_out)}" for label, item in readings.items()],
        theme,
    )


def _score(probe: ProbeResult, held_out: bool | None) -> str:
    """Write a probe's score beside its controls, in one line."""
    episode = ["training episode of the probe"] if held_out is False else []
    return f"held-out {', '.join([*scores(probe), *episode])}"
