"""The rail: the steps of a lesson in a strip above the panels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ipywidgets
import traitlets

from nextlat_viz.display import escape
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import Box, choice, styled
from nextlat_viz.notebook.lessons.lesson import lessons_about, read_lesson
from nextlat_viz.notebook.state import ViewState

_STATE = ("episode", "position", "color", "target", "filter", "selection")
_MOST_OPTIONS = 4
_FRAMED = "nlv-framed"


class _Before(NamedTuple):
    """The studio before a step: the traits of the state, and the choices of the panel *What if*."""

    state: dict[str, Any]
    what_if: Any


class Rail(Box):
    """A lesson, step by step: each step sets the state, frames a panel and says what to look at.

    Hidden while no lesson is open. Back restores the studio as it was before a step; leaving the lesson, as it was
    before the first step. A step with a question is shown when the question is answered.

    Parameters
    ----------
    state : ViewState
    panels : Panels
        The panels of the studio.

    Attributes
    ----------
    lesson : Lesson or None
    number : int
        The step, counted from 0.
    asking : bool
        Whether the step waits for a prediction.

    Examples
    --------
    >>> from nextlat_viz.notebook.serve import studio
    >>> opened = studio(lesson="beliefs")
    >>> opened.rail.next()
    >>> opened.rail.number, opened.rail.asking
    (1, True)
    >>> opened.rail.leave()
    >>> opened.state.position
    6
    >>> opened.close()
    """

    lesson: Any = traitlets.Any(None)

    def __init__(self, state: ViewState, panels: Any) -> None:
        super().__init__(state, "nlv-rail")
        self._panels = panels
        self.number = 0
        self._before: list[_Before] = []
        self._predicted: dict[int, str] = {}
        self.which = choice("Lesson", "The lesson shown", max_width="220px")
        self._back = self._button("Back", "Go back to the state before this step", self.back)
        self._next = self._button("Next", "The next step", self.next)
        self._close = self._button("", "Leave the lesson, and restore the studio", self.leave, "times", "nlv-tool")
        self._count, self._text = ipywidgets.HTML(), ipywidgets.HTML(_dom_classes=["nlv-rail-text"])
        self._options = [self._option(number) for number in range(_MOST_OPTIONS)]
        steps = ipywidgets.VBox([ipywidgets.HBox([self._back, self._next]), self._count])
        body = styled(ipywidgets.VBox, "nlv-rail-body", self._text, controls.row(*self._options), self._alert)
        self.children = [ipywidgets.HBox([steps, body, self.which, self._close])]
        self._link(self.which, self._choose)
        self._link(state, self._offer, "world")
        self._offer()
        self._show()

    @property
    def asking(self) -> bool:
        lesson = self.lesson
        return lesson is not None and lesson.steps[self.number].ask is not None and self.number not in self._predicted

    def start(self, lesson: Any) -> None:
        """Leave the open lesson, if any, and open a lesson at its first step.

        Parameters
        ----------
        lesson : str, path, dict or Lesson
            As `read_lesson` takes it.

        Raises
        ------
        ValueError
            For a lesson with unknown names or about other models; nothing is changed.
        """
        lesson = read_lesson(lesson)
        world = lesson.check(self.state, self._panels)
        self.leave()
        if any(step.set.what_if is not None for step in lesson.steps):
            # Make the panel before the first step, so that its choices can be restored.
            self._panels["what_if"]
        self.lesson, self._world, self.number, self._predicted = lesson, world, -1, {}
        self._step()
        self._offer()

    def next(self) -> None:
        """Go on to the next step; after the last, leave the lesson."""
        if self.lesson is None or self.asking:
            return
        if self.number + 1 == len(self.lesson.steps):
            self.leave()
        else:
            self._step()

    def predict(self, option: str) -> None:
        """Answer the question of the step, and show the step."""
        ask = self.lesson.steps[self.number].ask if self.lesson is not None else None
        if ask is not None and self.asking and option in ask.options:
            self._predicted[self.number] = option
            self._apply()
            self._show()

    def back(self) -> None:
        """Go back a step, and restore the studio as it was before it."""
        if len(self._before) > 1:
            self._predicted.pop(self.number, None)
            self.number -= 1
            self._restore(self._before.pop())
            self._show()

    def leave(self) -> None:
        """Leave the lesson, and restore the studio as it was before the first step."""
        if self.lesson is not None:
            first, self._before, self.lesson = self._before[0], [], None
            self._restore(first)
            self._show()
            self._offer()

    def _step(self) -> None:
        self._before.append(self._now())
        self.number += 1
        if not self.asking:
            self._apply()
        self._show()

    def _now(self) -> _Before:
        state, made = self.state, self._panels.made
        traits = {name: getattr(state, name) for name in state.trait_names() if name != "dark"}
        return _Before(traits, made["what_if"].chosen if "what_if" in made else None)

    def _restore(self, before: _Before) -> None:
        state = dict(before.state)
        # This also withdraws the request for a training step that is still being loaded.
        self.state.show(state.pop("world"), state.pop("step"))
        self._set(state)
        if "what_if" in self._panels.made:
            what_if: Any = self._panels["what_if"]
            what_if.chosen = before.what_if

    def _apply(self) -> None:
        """Set the state and the panels for the step."""
        assert self.lesson is not None
        self._alert.value = ""
        state, world, settings = self.state, self._world, self.lesson.settings(self.number)
        if state.world != world:
            state.show(world)
        names = {name: name for name in _STATE} | {"layer": "site"}
        traits = {trait: settings[name] for name, trait in names.items() if name in settings}
        self._set(traits | {"arrangement": {**state.arrangement, world: self.lesson.arrangement(self.number)}})
        if settings.get("what_if") is not None:
            what_if: Any = self._panels["what_if"]
            _, _, _, model = what_if.chosen
            what_if.chosen = (None, settings["what_if"].to, settings["what_if"].distance, model)
        steps, step = state.steps, settings["training_step"]
        step = None if steps and step == steps[-1] else step
        # The training step of the lesson's previous step may still be loading.
        state.withdraw(self._complain)
        if state.step != step:
            state.request(world, step, self._complain)

    def _set(self, values: Mapping[str, Any]) -> None:
        """Set traits of the state, and notify observers once."""
        with self.state.hold_trait_notifications():
            for name, value in values.items():
                setattr(self.state, name, value)

    def _show(self) -> None:
        """Show the step's text, and frame its panel."""
        lesson, asking = self.lesson, self.asking
        step = None if lesson is None else lesson.steps[self.number]
        framed = "" if step is None or asking else step.panel
        for name, panel in self._panels.made.items():
            (panel.add_class if name == framed else panel.remove_class)(_FRAMED)
        self.layout.display = "none" if lesson is None else None
        if lesson is None or step is None:
            return
        options = step.ask.options if step.ask is not None and asking else []
        for number, button in enumerate(self._options):
            button.layout.display = None if number < len(options) else "none"
            button.description = options[number] if number < len(options) else ""
        text = escape(step.look)
        if step.ask is not None and asking:
            text = f"<b>Predict before you look.</b> {escape(step.ask.question)}"
        elif step.ask is not None:
            right = self._predicted[self.number] == step.ask.answer
            outcome = "Right" if right else f"Not so: {step.ask.answer}"
            text = f"<b>{escape(outcome)}.</b> {text}"
        self._text.value = f'<div role="status" aria-live="polite">{text}</div>'
        self._count.value = f"step {self.number + 1} of {len(lesson.steps)}"
        last = self.number + 1 == len(lesson.steps)
        self._back.disabled, self._next.disabled = self.number == 0, asking
        self._next.description = "Finish" if last else "Next"
        self._next.tooltip = self._close.tooltip if last else "The next step"

    def _option(self, number: int) -> ipywidgets.Button:
        return self._button("", "Predict this, then look", lambda: self.predict(self._options[number].description))

    def toggle(self) -> None:
        """Open the first lesson about these models, or leave the open lesson."""
        if self.lesson is None:
            self.start(self.which.options[0][1])
        else:
            self.leave()

    def _choose(self, change: Any) -> None:
        if not self._following:
            self.start(change["new"])

    def _offer(self, change: Any = None) -> None:
        """Offer the shipped lessons about the models of this world, and the open lesson."""
        lessons = lessons_about(self.state)
        if self.lesson is not None:
            lessons = [lesson for lesson in lessons if lesson.title != self.lesson.title] + [self.lesson]
        with self._still():
            self.which.options = [(lesson.title, lesson) for lesson in lessons]
            if self.lesson is not None:
                self.which.value = self.lesson
        self.which.layout.display = None if len(lessons) > 1 else "none"
