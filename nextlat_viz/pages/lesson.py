"""Pages of lessons: the steps with their questions, figures and texts, without a running kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from nextlat_viz import io
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.provenance import provenance_of
from nextlat_viz.pages.episode import packed
from nextlat_viz.pages.page import render, write_page
from nextlat_viz.pages.report import table_html
from nextlat_viz.plotting import configuration

if TYPE_CHECKING:
    from nextlat_viz.notebook.lessons import Lesson
    from nextlat_viz.notebook.state import ViewState

_ROWS = 10  # most rows of a table


def write_lesson(
    lesson: str | os.PathLike[str] | Mapping[str, Any] | Lesson, out: str | os.PathLike[str] | None = None, *models: Any
) -> Path:
    """Write a lesson as one page that plays offline, in light and dark.

    Parameters
    ----------
    lesson : str, path, dict or Lesson
        A shipped lesson by its name, a JSON file by its path, or the lesson itself.
    out : path, optional
        Ends in ``.html``; default the lesson's name in the current folder.
    *models
        Checkpoints, their names, or latents; default those that the lesson is about.

    Returns
    -------
    Path
        The page, with its provenance in a JSON file next to it.

    Raises
    ------
    UnknownNameError
        For a name that no shipped lesson has.
    ValueError
        For a lesson about other models or with unknown names; nothing is written.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> write_lesson("beleifs")
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.UnknownNameError: unknown lesson 'beleifs'. Did you mean 'beliefs'? Known: ...
    """
    # Imported only when it is used: other pages need no widgets.
    from nextlat_viz.notebook.lessons import read_lesson

    script = read_lesson(lesson)
    path = io.resolve(f"{io.file_name(script.name)}.html" if out is None else out, "out")
    steps, provenance = play_lesson(script, *models)
    about = {"command": "nextlat-viz lesson", "lesson": script.title, "world": script.world, **provenance}
    drawn = [step.pop("figure") for step in steps]
    story: dict[str, Any] = packed([{} if figure is None else {"figure": _clear(figure)} for figure in drawn])
    story["config"] = [{} if figure is None else configuration(figure) for figure in drawn]
    return write_page(render("lesson.html", script.title, about, story=story, steps=steps), path, about)


def play_lesson(lesson: Lesson, *models: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Play a lesson to its end; return the content of each step, and the provenance.

    Each step is a dict: `step`; `question`, of the framed panel; `figure`, or None; `table`, HTML shown in place of a
    figure; `words`, HTML below it; `where`, the position of the cursor.

    Raises
    ------
    ValueError
        For other models, and for a step whose panel has nothing to show; the message names the step and the reason.
    """
    from nextlat_viz.notebook.serve import studio

    opened = studio(*models, lesson=lesson)
    try:
        rail, steps = opened.rail, []
        while rail.lesson is not None:
            step = lesson.steps[rail.number]
            if step.ask is not None:
                rail.predict(step.ask.answer)
            panel: Any = opened.panels[step.panel]
            if not panel.drawn:
                place = f"{lesson.title!r}, step {rail.number + 1}, panel"
                raise ValueError(f"{place}: {step.panel!r} has nothing to show here: {panel.words}")
            shown = {"step": step, "question": panel.question, "where": _where(opened.state)}
            if panel.plot is not None:
                figure = go.Figure(panel.plot.to_dict())
                steps.append({**shown, "figure": figure, "table": "", "words": Markup(panel.notes)})
            else:
                # The panel's list as the user sees it, without its note, which is about clicks.
                rows = pd.DataFrame(panel.list.rows[:_ROWS], columns=panel.list.heads)
                steps.append({**shown, "figure": None, "table": table_html(rows), "words": ""})
            rail.next()
        return steps, provenance_of(*opened.state.latents)
    finally:
        opened.close()


def _where(state: ViewState) -> str:
    """Describe the place of the cursor."""
    (row,) = state.scene.rows([(state.episode, state.position)])
    read = state.scene.reads(int(row))
    step = "" if state.step is None else f"Training step {state.step:,}. "
    return f"{step}Episode {state.episode}, position {state.position}; read: {read}"


def _clear(figure: go.Figure) -> go.Figure:
    """Return the figure without a background and as wide as the page."""
    return go.Figure(figure).update_layout(template=themes.template("auto"), width=None, autosize=True)
