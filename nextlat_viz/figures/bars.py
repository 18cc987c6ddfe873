"""Bar charts of next-token predictions, and of probe predictions next to the truth."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.display import escape, shorten, words
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import LEGEND, Layout, broken_lines, fitting_name, heading, legend_entry
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.prediction import Prediction
    from nextlat_viz.analysis.probes.result import ReadOut

# Hatching tells models apart in greyscale; bars of the exact distribution have none.
_PATTERNS = ("/", "\\", ".", "x", "-", "|", "+")
MOST_NAMES = 24
# If there are more names than fit, show those with at least this probability in some distribution.
LEAST = 0.005
_HOVER_LENGTH = 60
# Letters that fit side by side below a narrow figure, and pixels of a line above it.
_ACROSS = 40
LINE = 280
# Letters of a name below a small panel, and pixels of a line of its heading.
_SLANTED, _HEADING = 12, 200


def likeliest(distributions: Sequence[Float[np.ndarray, " V"]], most: int) -> Int[np.ndarray, " shown"]:
    """Return the ids to show, ascending: all if they fit, else the likeliest of those with probability >= 0.005."""
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
    """Draw the `chosen` values of a model as bars; `names` holds the names of all values."""
    name = escape(shorten(label))
    return go.Bar(
        x=list(range(len(chosen))),
        y=values[chosen].round(6),
        name=name,
        text=[escape(shorten(names[i], _HOVER_LENGTH)) for i in chosen],
        textposition="none",
        hovertemplate=f"<b>{name}</b><br>%{{text}}: %{{y:.4f}}<extra></extra>",
        marker=marker,
        _validate=False,
        **{"meta": {"role": role}, **options},
    )


def model_bars(
    models: Mapping[str, Float[np.ndarray, " V"]], names: Sequence[str], chosen: Int[np.ndarray, " shown"], role: str
) -> list[go.Bar]:
    """Draw one distribution per model, told apart by colour and by hatching."""
    colors = themes.model_colors(list(models))
    return [
        bars(label, values, names, chosen, hatched(colors[i], i), role)
        for i, (label, values) in enumerate(models.items())
    ]


def hatched(color: str, i: int = 0) -> dict[str, Any]:
    """Return the marker of the i-th model's bars."""
    shape = _PATTERNS[i % len(_PATTERNS)]
    return {"color": color, "pattern": {"shape": shape, "fillmode": "overlay", "solidity": 0.25, "size": 6}}


def name_axis(names: Sequence[str], title: str) -> dict[str, Any]:
    """Return an axis of names at 0, 1, ...: numbers keep names apart that look alike when shortened."""
    texts = [escape(shorten(name)) for name in names]
    return {
        "tickvals": list(range(len(texts))),
        "ticktext": texts,
        "range": [-0.6, len(texts) - 0.4],
        "tickangle": -60 if sum(map(len, texts)) + len(texts) > _ACROSS else 0,
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
    lines = broken_lines(lines, LINE, 12)
    layout, below, above = Layout(), room_below(x), 60 + 18 * len(lines)
    layout.view([0.0, 1.0], [0.0, 1.0], x=x, y=y, title=title, more="<br>".join(lines))
    return layout.finish(
        traces,
        theme,
        height=166 + above + below,
        barmode="group",
        bargap=0.25,
        margin={"l": 60, "t": above, "b": below},
        legend=LEGEND,
    )


def compact_bars(
    traces: Sequence[go.Bar],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    title: str,
    lines: Sequence[str],
    theme: Theme,
    room: int | None = None,
) -> Figure:
    """Return bars for a small panel: the heading is also the legend, and the horizontal axis has no title.

    Each trace has a line of the heading: its name, followed by one of `lines`; broken if it is wider than `room`
    pixels.
    """
    entries = [bar.to_plotly_json() for bar in traces]
    if room is not None:
        entries = [{**entry, "name": fitting_name(entry["name"], room, 11)} for entry in entries]
    lines = [legend_entry(entry) + line for entry, line in zip(entries, lines, strict=True)]
    if room is not None:
        lines = broken_lines(lines, room, 11)
    layout, margin = Layout(), {"t": 23 + 15 * len(lines), "b": 22, "l": 44}
    # Names of tokens slant only if they would touch; longer ones would take the room of the bars.
    texts = [escape(shorten(html.unescape(text), _SLANTED)) for text in x["ticktext"]]
    slim = {"title": {"text": ""}, "tickangle": None, "automargin": True, "ticktext": texts}
    layout.view([0.0, 1.0], [0.0, 1.0], x={**x, **slim}, y=y)
    layout.notes.append(heading(title, "<br>".join(lines), xshift=4 - margin["l"], font={"size": 11}))
    options = {"barmode": "group", "bargap": 0.25, "showlegend": False}
    return layout.finish(traces, theme, height=188 + margin["t"], margin=margin, **options)


def prediction_bars(
    predictions: Mapping[str, Prediction], *, most: int = MOST_NAMES, compact: bool = False, theme: Theme = "auto"
) -> Figure:
    """Draw next-token distributions as bars, first the exact one if it is known.

    Parameters
    ----------
    predictions : dict of label to Prediction
        One per model, at one position of one episode, over one vocabulary.
    most : int
        Most tokens to show. Of a larger vocabulary, the likeliest tokens with at least 0.005 in some distribution, in
        the order of their ids.
    compact : bool
        Whether to draw it for a small panel: the heading is also the legend.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A trace per distribution, ``meta["role"]`` "exact" or "model". The heading gives each model's KL from the exact
        distribution, in nats.

    Raises
    ------
    ValueError
        No prediction, or predictions over several vocabularies or at several places.

    Examples
    --------
    >>> from nextlat_viz.analysis.prediction import Prediction
    >>> import numpy as np
    >>> p = Prediction(("0", "1"), np.array([0.5, 0.5]), np.array([0.25, 0.75]), "NextLat", 0, 3)
    >>> figure = prediction_bars({"NextLat": p})
    >>> [bar.name for bar in figure.data], figure.layout.annotations[0].text
    (['exact', 'NextLat'], '<b>Next token after position 3</b><br>KL from exact: NextLat 0.1308 nats')
    """
    if not predictions:
        raise ValueError("predictions is empty: give one per model")
    first = next(iter(predictions.values()))
    for prediction in predictions.values():
        place = (prediction.episode, prediction.position)
        if prediction.vocabulary != first.vocabulary or place != (first.episode, first.position):
            raise ValueError("predictions must be of one episode and position, over one vocabulary")
    exact = next((prediction.exact for prediction in predictions.values() if prediction.exact is not None), None)
    models = {label: prediction.model for label, prediction in predictions.items()}
    chosen = likeliest([*models.values(), *([] if exact is None else [exact])], most)
    traces = model_bars(models, first.vocabulary, chosen, "model")
    if exact is not None:
        traces.insert(0, bars("exact", exact, first.vocabulary, chosen, {"color": themes.EXACT}, "exact"))
    omitted = len(first.vocabulary) - chosen.size
    axis_title = f"next token ({omitted} less likely omitted)" if omitted else "next token"
    x = name_axis([first.vocabulary[i] for i in chosen], axis_title)
    y = {"title": {"text": "probability"}, "range": [0, 1.02]}
    title = f"Next token after position {first.position}"
    gaps = ["" if prediction.kl is None else f"{prediction.kl:.4f} nats" for prediction in predictions.values()]
    if compact:
        lines = [gap and f": KL&nbsp;{gap.replace(' ', '&nbsp;')}" for gap in gaps]
        if exact is not None:
            lines.insert(0, "")
        return compact_bars(traces, x, y, title, lines, theme, _HEADING)
    listed = ", ".join(f"{escape(shorten(label))} {gap}" for label, gap in zip(predictions, gaps, strict=True) if gap)
    return bar_figure(traces, x, y, title, [f"KL from exact: {listed}"] if listed else [], theme)


def read_out_figure(
    readings: Mapping[str, ReadOut], *, most: int = MOST_NAMES, compact: bool = False, theme: Theme = "auto"
) -> Figure:
    """Draw each model's probe prediction at one position next to the truth: numbers, or probabilities of classes.

    Parameters
    ----------
    readings : dict of label to ReadOut
        One per model, of one target at one place, as `analysis.probes.result.read_out` returns them.
    most : int
        Most bars per model. Of more classes, the true one and those predicted with at least 0.005; of more numbers,
        the first.
    compact : bool
        Whether to draw it for a small panel: the heading is also the legend.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Bars with ``meta["role"]`` "truth" and "read". The heading gives each probe's held-out score and controls, and
        says if the probe was trained on the episode.

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
    names, target = first.probe.names, escape(shorten(words(first.probe.target)))
    for reading in readings.values():
        if (reading.probe.target, reading.probe.names) != (first.probe.target, names):
            raise ValueError(f"readings must be of one target with the same names, here {first.probe.target!r}")
        if (reading.episode, reading.position) != (first.episode, first.position):
            raise ValueError("readings must be of one episode and position")
    classes = first.probe.metric == "accuracy"
    chosen = np.arange(len(names))[:most]
    if classes:
        # Twice the truth, so that the true class is shown even if the probes give it no probability.
        chosen = likeliest([2 * np.nan_to_num(first.truth), *(reading.read for reading in readings.values())], most)
    lines = [
        f": held-out {', '.join(scores(reading.probe))}"
        + ", training episode of the probe" * (reading.held_out is False)
        for reading in readings.values()
    ]
    models = {label: reading.read for label, reading in readings.items()}
    traces = [
        bars("truth", first.truth, names, chosen, {"color": themes.EXACT}, "truth"),
        *model_bars(models, names, chosen, "read"),
    ]
    omitted = len(names) - chosen.size
    kind = "class" if classes else "component"
    y = {"title": {"text": target}, "zeroline": True}
    if first.probe.target == "belief":
        # Probabilities, up to the error of a linear probe: on one scale, bars at two positions can be compared.
        drawn = np.concatenate([first.truth, *(reading.read for reading in readings.values())])
        y["range"] = [min(-0.1, np.floor(10 * np.nanmin(drawn)) / 10), max(1.1, np.ceil(10 * np.nanmax(drawn)) / 10)]
    if classes:
        y = {"title": {"text": f"probability of {target}"}, "range": [0, 1.02]}
    x = name_axis([names[i] for i in chosen], f"{kind} ({omitted} more)" if omitted else kind)
    title = f"{target} after position {first.position}"
    if compact:
        if classes:
            # Beside the axis the target would be cut; the heading names it.
            y["title"] = {"text": "probability"}
        return compact_bars(traces, x, y, title, ["", *lines], theme)
    named = [escape(shorten(label)) + line for label, line in zip(readings, lines, strict=True)]
    return bar_figure(traces, x, y, title, ["Read by a linear probe", *named], theme)
