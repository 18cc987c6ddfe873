"""A lesson played without a reader: what each step shows, for a page without a kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.notebook.lessons.lesson import Lesson, LessonStep, read_lesson
from nextlat_viz.notebook.studio import Studio, studio

_ROWS = 10


class Shown(NamedTuple):
    """What a step shows.

    Attributes
    ----------
    step : LessonStep
    question : str
        Of the framed panel.
    figure : Figure or None
        That panel's figure.
    table : DataFrame or None
        The first rows of its table, where it shows one in place of a figure.
    words : str
        The words beside the figure, as HTML.
    where : str
        The cursor.
    """

    step: LessonStep
    question: str
    figure: go.Figure | None
    table: pd.DataFrame | None
    words: str
    where: str


def play_lesson(
    lesson: str | os.PathLike[str] | Mapping[str, Any] | Lesson, *models: Any
) -> tuple[list[Shown], dict[str, Any]]:
    """Play a lesson to its end, and return what each step shows, and the provenance.

    Parameters
    ----------
    lesson : str, path, dict or Lesson
        As `read_lesson` takes it.
    *models
        As `studio` takes them; default those that the lesson is about.

    Raises
    ------
    ValueError
        As `read_lesson` does, and for a step whose panel has nothing to show: names the step and says why.
    """
    wanted = read_lesson(lesson)
    opened = studio(*models, lesson=wanted)
    try:
        rail, steps = opened.rail, []
        while rail.lesson is not None:
            step = wanted.steps[rail.number]
            if step.ask is not None:
                rail.predict(step.ask.answer)
            steps.append(_shown(opened, step, f"{wanted.title!r}, step {rail.number + 1}"))
            rail.next()
        return steps, figures.provenance_of(*opened.state.latents)
    finally:
        opened.close()


def _shown(opened: Studio, step: LessonStep, place: str) -> Shown:
    state = opened.state
    panel: Any = opened.panels[step.panel]
    plot = panel.plot
    if not panel.drawn:
        raise ValueError(f"{place}, panel: {step.panel!r} has nothing to show here: {panel.words}")
    (row,) = state.scene.rows([(state.episode, state.position)])
    read = state.scene.reads(int(row))
    where = f"Episode {state.episode}, position {state.position}; read: {read}"
    if state.step is not None:
        where = f"Training step {state.step:,}. {where}"
    if plot is not None:
        return Shown(step, panel.question, go.Figure(plot.to_dict()), None, panel.notes, where)
    # The panel's list as the reader sees it; its note is about clicks.
    rows = panel.list
    table = pd.DataFrame(rows.rows[:_ROWS], columns=rows.heads)
    return Shown(step, panel.question, None, table, "", where)
