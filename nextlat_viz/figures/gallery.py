"""Pages for who has no kernel: an episode of a world to step through, with what models predict at every step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from nextlat_viz import io
from nextlat_viz.display import shorten
from nextlat_viz.figures.export import _sidecar
from nextlat_viz.figures.prediction import prediction_bars
from nextlat_viz.figures.story_page import Step, story_page
from nextlat_viz.worlds import checks

if TYPE_CHECKING:
    from nextlat_viz.worlds import Episodes, World

# A page of more steps would take a browser minutes and tens of megabytes.
MOST_STEPS = 400
_MOST_VALUES = 12
_LONGEST = 120
_WIDTH = 540


def stand_alone(
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
    world : World
    episode : Episodes
        One episode of the world's.
    predictions : {label: (positions, tokens) array}, optional
        What each model predicts after every token, as rows of ``obsm["next_token_probs"]``; drawn beside the exact
        distribution where the world knows it. More rows than the episode has tokens, its padding's, are left out.
    kind : str, optional
        Which of the world's pictures; default its first.
    title : str, optional
        Default the world's name.
    provenance : dict, optional
        Shown folded at the end of the page, such as `provenance_of` the latents.
    gallery : bool
        Whether it is one of a gallery's pages: it then needs ``plotly.min.js`` beside it, and leads to ``index.html``.
    **options
        Handed to the world's ``draw``.

    Returns
    -------
    str
        The page, the same text for the same episode. `write_page` puts it into a file.

    Raises
    ------
    ValueError
        For more or fewer episodes than one, one of more than 400 tokens, and predictions of another shape.
    UnknownNameError
        For a picture the world does not have.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("rrxor")
    >>> page = stand_alone(world, world.sample(1, 6, seed=0), kind="machine")
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
    predicted = _predictions(world, episode, predictions or {}, last)
    steps = []
    for position in range(1, last + 1):
        picture = world.draw(kind or world.pictures[0], episode=episode, position=position, **options)
        shown = {"Where are we?": picture}
        if predicted:
            shown["What comes next?"] = predicted[position - 1]
        token = world.vocabulary[int(episode.tokens[0, position - 1])]
        given = not bool(episode.loss_mask[0, position - 1])
        steps.append(Step(shorten(token, _LONGEST), shown, facts(world, episode, position), given))
    about = {"world": world.spec, "episode": episode.sha256, "models": list(predictions or {}), **(provenance or {})}
    note = "Press play, drag the slider, or press a token: the picture is of the moment after it was read."
    return story_page(steps, title or world.name, note, io.plain(about), gallery=gallery)


def write_page(page: str, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a page to a file and, beside it, ``<name>.json``: what it shows and what it was made from.

    Parameters
    ----------
    page : str
        HTML, as `stand_alone` returns it.
    path : path
        Ends in ``.html``.
    provenance : dict, optional

    Returns
    -------
    Path
        The file written. Neither file is there unless both were written whole.

    Raises
    ------
    ValueError
        For another ending.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_page("<p>", Path(folder) / "a.html", {"world": "rrxor"})
    ...     sorted(one.name for one in path.parent.iterdir())
    ['a.html', 'a.json']
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path={str(path)!r}: a page is written to a file that ends in .html")
    note = json.dumps(_sidecar(path.name, provenance or {}), indent=2) + "\n"
    with io.draft(path) as draft, io.draft(path.with_suffix(".json")) as beside:
        draft.write_text(page, encoding="utf-8")
        beside.write_text(note, encoding="utf-8")
    return path


def _predictions(world: World, episode: Episodes, predictions: Mapping[str, np.ndarray], last: int) -> list[go.Figure]:
    """A figure for each position; none without predictions."""
    from nextlat_viz.analysis.prediction import Prediction

    for label, probs in predictions.items():
        if probs.ndim != 2 or len(probs) < last or probs.shape[1] != len(world.vocabulary):
            raise ValueError(
                f"predictions[{label!r}] must have a row for each of {last} tokens and a column for each of "
                f"{len(world.vocabulary)} names, got shape {probs.shape}"
            )
    if not predictions:
        return []
    law = world.next_token_probs(episode.tokens[:, :last])
    figures = [
        prediction_bars(
            {
                label: Prediction(world.vocabulary, probs[i], None if law is None else law[0, i], label, 0, i + 1)
                for label, probs in predictions.items()
            }
        )
        for i in range(last)
    ]
    for figure in figures:
        # Below, because in half a page it would lie on the heading.
        figure.update_layout(
            height=380, margin_b=140, legend={"x": 0, "xanchor": "left", "yref": "paper", "y": -0.4, "yanchor": "top"}
        )
    return figures


def facts(world: World, episode: Episodes, position: int) -> dict[str, str]:
    """What is true after so many tokens of one episode, in words, by the names of the world's states.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("rrxor")
    >>> facts(world, world.sample(1, 6, seed=1), 3)["state"]
    '1'
    """
    names = world.state_values
    return {name: _said(values[0, position - 1], names.get(name)) for name, values in episode.states.items()}


def _said(value: np.ndarray | np.generic, names: tuple[str, ...] | None) -> str:
    values = np.ravel(value)
    if values.size > _MOST_VALUES:
        return f"{values.size} values"
    words = []
    for one in values.tolist():
        if names is not None and isinstance(one, int):
            words.append(names[one] if one >= 0 else "not known yet")
        else:
            words.append(f"{one:.3g}" if isinstance(one, float) else str(one))
    return shorten(", ".join(words), _LONGEST)
