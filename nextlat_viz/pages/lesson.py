"""A lesson as a page: its steps with their questions, figures and texts, without a running kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from markupsafe import Markup

from nextlat_viz import io
from nextlat_viz.figures import theme as themes
from nextlat_viz.pages.episode import packed
from nextlat_viz.pages.page import render, write_page
from nextlat_viz.pages.report import table_html
from nextlat_viz.plotting import configuration

if TYPE_CHECKING:
    from nextlat_viz.notebook.lessons import Lesson


def write_lesson(
    lesson: str | os.PathLike[str] | Mapping[str, Any] | Lesson,
    out: str | os.PathLike[str] | None = None,
    *models: Any,
) -> Path:
    """Write a lesson as one page that plays offline, in light and dark.

    Parameters
    ----------
    lesson : str, path, dict or Lesson
        A shipped lesson by its name, a JSON file by its path, or the steps themselves.
    out : path, optional
        Ends in ``.html``; default the lesson's name in the current folder.
    *models
        Checkpoints, their names, or latents; default those that the lesson is about.

    Returns
    -------
    Path
        The page, with its provenance in a JSON beside it.

    Raises
    ------
    UnknownNameError
        For a name that no shipped lesson has.
    ValueError
        For a lesson that is about other models, or names what is not there; nothing is written.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> write_lesson("beleifs")
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.UnknownNameError: unknown lesson 'beleifs'. Did you mean 'beliefs'? Known: ...
    """
    # Imported when it is used: other pages need no widgets.
    from nextlat_viz.notebook.lessons import read_lesson
    from nextlat_viz.notebook.lessons.play import play_lesson

    wanted = read_lesson(lesson)
    path = io.resolve(f"{io.file_name(wanted.name)}.html" if out is None else out, "out")
    steps, provenance = play_lesson(wanted, *models)
    about = {"command": "nextlat-viz lesson", "lesson": wanted.title, "world": wanted.world, **provenance}
    figures = [{} if shown.figure is None else {"figure": _clear(shown.figure)} for shown in steps]
    configs = [{} if shown.figure is None else configuration(shown.figure) for shown in steps]
    values: dict[str, Any] = {"story": {**packed(figures), "config": configs}}
    values["steps"] = [
        {
            **shown._asdict(), "words": Markup(shown.words),
            "table": "" if shown.table is None else table_html(shown.table),
        }
        for shown in steps
    ]  # fmt: skip
    return write_page(render("lesson.html", wanted.title, about, **values), path, about)


def _clear(figure: go.Figure) -> go.Figure:
    """The figure without a background and as wide as the page."""
    return go.Figure(figure).update_layout(template=themes.template("auto"), width=None, autosize=True)
