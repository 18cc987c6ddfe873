"""Predictions: the student locks an answer before the figure is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz.course import record
from nextlat_viz.course.exercises import all_predictions
from nextlat_viz.display import escape
from nextlat_viz.errors import one_of
from nextlat_viz.notebook.box import Box
from nextlat_viz.notebook.plot import Plot


class Question(Box):
    """`course.predict`: a question with options; when an option is locked, the right one and a figure are shown.

    Locked answers are stored in the file of `course.progress`. If there is one, the figure is shown at once.

    Parameters
    ----------
    name : str
        Name of the prediction; a module of ``course/exercises`` has its right option with the reason.
    question : str
    options : sequence of str
    figure : function without arguments
        Returns a plotly figure, a widget, or anything a cell can show.

    Attributes
    ----------
    locked : str
        The locked answer; empty if none is locked.

    Raises
    ------
    UnknownNameError
        If there is no such prediction, or its answer is not among the options.
    """

    def __init__(self, name: str, question: str, options: Sequence[str], figure: Callable[[], Any]) -> None:
        super().__init__()
        self._busy = ipywidgets.HTML()
        known = all_predictions()
        self._known, self._figure, self.name = known[one_of("prediction", name, known)], figure, name
        one_of(f"the answer of prediction {name}", self._known.answer, options)
        self.locked = ""
        # "auto": the default width would cut long answers.
        self.options = ipywidgets.RadioButtons(options=list(options), value=None, layout={"width": "auto"})
        self.button = self._button("Lock my answer", "After that the figure is shown", lambda: self.lock())
        self.button.disabled, self.button.layout.align_self = True, "flex-start"
        self._outcome = ipywidgets.HTML()
        self._below = ipywidgets.VBox(layout={"width": "100%"})
        heading = ipywidgets.HTML(f"<b>Predict before you look.</b> {escape(question)}")
        self.children = [heading, self.options, self.button, self._outcome, self._busy, self._alert, self._below]
        self._link(self.options, lambda change: self._allow())
        earlier = record.predicted(name)
        if earlier in options:
            self.options.value = earlier
            self.lock()

    def _allow(self) -> None:
        self.button.disabled = bool(self.locked) or self.options.value is None

    def lock(self) -> None:
        """Lock the chosen answer and show the figure."""
        if self.locked or self.options.value is None:
            return
        self.locked = self.options.value
        self.options.disabled = self.button.disabled = True
        _, message = record.add(self.name, prediction=self.locked)
        right = self.locked == self._known.answer
        outcome = "✓ Right." if right else f"✗ The answer: {self._known.answer}."
        self._outcome.value = (
            f'<div role="status" style="max-width:46em;line-height:1.5">You predicted: {escape(self.locked)}. '
            f"<b>{escape(outcome)}</b> {escape(self._known.why)} {escape(message)}</div>"
        )
        with self._working("Drawing …"):
            self._below.children = [_shown(self._figure())]


def _shown(content: Any) -> ipywidgets.Widget:
    """Return content as a widget: plotly figures as live plots, anything else as a cell would show it."""
    if isinstance(content, ipywidgets.Widget):
        return content
    if isinstance(content, go.Figure):
        return Plot(content)
    output = ipywidgets.Output()
    output.append_display_data(content)
    return output


predict = Question
