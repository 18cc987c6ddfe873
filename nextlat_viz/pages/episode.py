"""Pages on which an episode can be stepped through token by token, without a running kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from jaxtyping import Float

from nextlat_viz.analysis.prediction import Prediction
from nextlat_viz.display import shorten
from nextlat_viz.figures.bars import prediction_bars
from nextlat_viz.figures.rows import LONGEST_FACT, true_state
from nextlat_viz.pages.page import render
from nextlat_viz.plotting import configuration
from nextlat_viz.worlds import checks, drawing

if TYPE_CHECKING:
    from nextlat_viz.worlds import Episodes, World

# A page with more steps would have tens of megabytes, and take a browser minutes.
MOST_STEPS = 400
_WIDTH = 540
_NOTE = "Press play, drag the slider, or choose a token. The figures show the state after that token."


@dataclass(frozen=True, eq=False)
class Step:
    """What the page shows after one token.

    Attributes
    ----------
    token : str
    figures : {heading: plotly Figure}
        Must have the same headings at every step.
    facts : {name: value}
        The true state, in words.
    given : bool
        Whether the token is part of a prompt.
    """

    token: str
    figures: Mapping[str, go.Figure]
    facts: Mapping[str, str] = field(default_factory=dict)
    given: bool = False


def steps_page(
    steps: Sequence[Step],
    title: str,
    note: str = "",
    provenance: Mapping[str, Any] | None = None,
    *,
    gallery: bool = False,
    start: int | None = None,
) -> str:
    """Return one HTML page with a slider, a play button, the tokens as buttons, and the figures of the current step.

    Parameters
    ----------
    steps : sequence of Step
    title, note : str
        A heading and a sentence below it.
    provenance : dict, optional
        Shown at the end of the page, folded.
    gallery : bool
        Whether the page is in a gallery's folder, which has ``plotly.min.js`` and ``index.html``.
    start : int
        The step at which the page opens, from 1; default the middle.

    Returns
    -------
    str
        The same text for the same steps. With ``#3`` at the end of its address, the page opens at the third step.

    Raises
    ------
    ValueError
        For no steps, or steps with different headings.

    Examples
    --------
    >>> page = steps_page([Step("a", {"Map": go.Figure()}), Step("<b>", {"Map": go.Figure()})], "A & B")
    >>> "<h1>A &amp; B</h1>" in page, "&lt;b&gt;</button>" in page
    (True, True)
    """
    if not steps:
        raise ValueError("steps is empty: there is nothing to step through")
    headings = list(steps[0].figures)
    for number, step in enumerate(steps):
        if list(step.figures) != headings:
            raise ValueError(f"every step must have the figures {headings}, step {number} has {list(step.figures)}")
    story = packed([step.figures for step in steps])
    for step, parts in zip(steps, story["steps"], strict=True):
        parts["facts"] = list(step.facts.items())
    story["config"] = [configuration(figure) for figure in steps[0].figures.values()]
    story["start"] = (len(steps) + 1) // 2 if start is None else min(max(start, 1), len(steps))
    values: dict[str, Any] = {"steps": steps, "headings": headings, "note": note, "story": story}
    return render("episode.html", title, provenance, gallery=gallery, **values)


def packed(steps: Sequence[Mapping[str, go.Figure]]) -> dict[str, Any]:
    """Store each part of the steps' figures once, by number: most of a figure is the same in all steps."""
    pool: dict[str, int] = {}

    def number(part: Any) -> int:
        return pool.setdefault(json.dumps(part, sort_keys=True, separators=(",", ":")), len(pool))

    numbered = []
    for step in steps:
        parts = [json.loads(plotly.io.to_json(figure, validate=False)) for figure in step.values()]
        figures = [
            {"data": [number(trace) for trace in part["data"]], "layout": number(part["layout"])} for part in parts
        ]
        numbered.append({"figures": figures})
    return {"pool": [json.loads(text) for text in pool], "steps": numbered}


def episode_page(
    world: World,
    episode: Episodes,
    predictions: Mapping[str, Float[np.ndarray, "positions tokens"]] | None = None,
    *,
    kind: str | None = None,
    title: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    gallery: bool = False,
    **options: Any,
) -> str:
    """Return one HTML page in which an episode can be stepped through, offline and without a kernel.

    Parameters
    ----------
    episode : Episodes
        One episode of the world.
    predictions : {label: (positions, tokens) array}, optional
        The prediction of each model after every token, such as rows of ``obsm["next_token_probs"]``. They are drawn
        next to the exact distribution, if the world has it. Rows of padding, after the last token, are ignored.
    kind : str, optional
        Which of the world's pictures; default its first.
    title : str, optional
        Default the world's name.
    provenance : dict, optional
        Shown at the end of the page, folded, such as `provenance_of` the latents.
    gallery : bool
        Whether the page is in a gallery's folder, which has ``plotly.min.js`` and ``index.html``.
    **options
        Passed on to the world's ``draw``.

    Returns
    -------
    str
        The page, the same text for the same episode. `write_page` puts it into a file.

    Raises
    ------
    ValueError
        For more or fewer episodes than one, one of more than 400 tokens, and predictions of another shape.
    UnknownNameError
        For a picture that the world does not have.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("rrxor")
    >>> page = episode_page(world, world.sample(1, 6, seed=0), kind="machine")
    >>> page.count('<button type="button" dir="auto"'), "Plotly.react" in page
    (6, True)
    """
    last = checks.one_episode(episode, None)
    if not 1 <= last <= MOST_STEPS:
        raise ValueError(
            f"episode has {last:,} tokens, a page holds 1 to {MOST_STEPS}: take a shorter one, such as "
            f"world.sample(1, {MOST_STEPS})"
        )
    options = {"width": _WIDTH, **options}
    bars = _prediction_figures(world, episode, predictions or {}, last)
    steps = []
    for position in range(1, last + 1):
        picture = world.draw(kind or world.pictures[0], episode=episode, position=position, **options)
        figures = {"Current position": picture} | ({"Next token": bars[position - 1]} if bars else {})
        token = world.vocabulary[int(episode.tokens[0, position - 1])]
        given = not bool(episode.loss_mask[0, position - 1])
        steps.append(Step(shorten(token, LONGEST_FACT), figures, true_state(world, episode, position), given))
    models = list(predictions or {})
    about = {"world": world.spec, "episode": episode.sha256, "models": models, **(provenance or {})}
    return steps_page(
        steps, title or world.name, _NOTE, about, gallery=gallery, start=drawing.opening_position(world, episode)
    )


def _prediction_figures(
    world: World, episode: Episodes, predictions: Mapping[str, np.ndarray], last: int
) -> list[go.Figure]:
    """Draw the predictions at each position; empty without predictions."""
    for label, probs in predictions.items():
        if probs.ndim != 2 or len(probs) < last or probs.shape[1] != len(world.vocabulary):
            raise ValueError(
                f"predictions[{label!r}] must have a row for each of {last} tokens and a column for each of "
                f"{len(world.vocabulary)} names, got shape {probs.shape}"
            )
    if not predictions:
        return []
    law = world.next_token_probs(episode.tokens[:, :last])
    figures = []
    for i in range(last):
        exact = None if law is None else law[0, i]
        rows = {
            label: Prediction(world.vocabulary, probs[i], exact, label, 0, i + 1)
            for label, probs in predictions.items()
        }
        # Put the legend below: in a figure half as wide as the page, it would cover the heading.
        legend = {"x": 0, "xanchor": "left", "yref": "paper", "y": -0.4, "yanchor": "top"}
        figures.append(prediction_bars(rows).update_layout(height=380, margin_b=140, legend=legend))
    return figures
