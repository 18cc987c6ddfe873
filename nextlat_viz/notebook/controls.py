"""Controls that set the state and follow it, the filter, and the status line of a job queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from traitlets import Int, List, Unicode

from nextlat_viz.display import escape, shorten, words
from nextlat_viz.notebook import colors
from nextlat_viz.notebook.box import LABEL, ROOM, Box, choice, styled
from nextlat_viz.notebook.jobs import Jobs
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.state import ViewState

# Stands for None: ipywidgets takes the value None for "nothing chosen", so it cannot be one of the choices.
_NONE = "none"
_LONGEST_OPTION = 60
# Milliseconds for each training step while steps are played; more if a step takes longer to compute and draw.
_BEAT = 900
_NO_COLUMN = "nothing"
_MOST_ROWS = 4
_HERE = Path(__file__).parent


def bound(
    view: Box,
    trait: str,
    description: str,
    options: Callable[[], Sequence[Any]],
    tooltip: str,
    hide_single: bool = False,
    choose: Callable[[Any], None] | None = None,
    kind: type[ipywidgets.Widget] = ipywidgets.Dropdown,
    **more: Any,
) -> Any:
    """Make a selection control for one trait of a view's state: it sets the trait and follows its changes.

    `options` returns the options in the present world: values, or (label, value). `hide_single` hides the control
    if there are fewer than two options. `choose` is called with the chosen value instead of assigning the trait.
    """

    def offers() -> list[tuple[str, Any]]:
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in options()]
        return [(shorten(label, _LONGEST_OPTION), _NONE if value is None else value) for label, value in pairs]

    def current() -> Any:
        value = getattr(view.state, trait)
        return _NONE if value is None else value

    offered, following = offers(), False
    control = kind(
        options=offered,
        value=current(),
        description=description,
        tooltip=tooltip,
        style=LABEL,
        layout=ROOM,
        **more,
    )

    def follow(change: Any) -> None:
        nonlocal offered, following
        now, following = offers(), True
        try:
            if now != offered:
                control.options = offered = now
            control.value = current()
        finally:
            following = False
        control.layout.display = "none" if hide_single and len(now) < 2 else None

    def lead(change: Any) -> None:
        # Setting new options selects the first one for a moment; that is not the user's choice.
        if following:
            return
        value = None if change["new"] == _NONE else change["new"]
        try:
            if choose is None:
                setattr(view.state, trait, value)
            else:
                choose(value)
        finally:
            # Show the state, which may have refused the choice or still be loading it.
            follow(None)

    follow(None)
    view._link(control, lead)
    for name in dict.fromkeys(("world", trait)):
        view._link(view.state, follow, name)
    return control


def world(view: Box) -> Any:
    """Make a control to choose the world; the job queue loads it first if necessary."""
    return bound(
        view, "world", "World", lambda: view.state.worlds, "The world the models were trained on", True,
        lambda name: view.state.request(name, None, view._complain),
    )  # fmt: skip


def color(view: Box) -> Any:
    def options() -> list[tuple[str, str]]:
        return list(colors.options(view.state.scene).items())

    return bound(view, "color", "Colour by", options, "What colours the points")


def layer(view: Box) -> Any:
    return bound(view, "site", "Layer", lambda: view.state.scene.sites, "Which layer the latents are taken from")


def target(view: Box, description: str = "Probe target", tooltip: str = "What the linear probes predict") -> Any:
    return bound(
        view, "target", description, lambda: [(words(name), name) for name in view.state.scene.targets], tooltip
    )


def step(view: Box) -> Any:
    """Make a control to choose the training step; the job queue loads it first if necessary."""
    slider = bound(
        view, "step", "Training step", lambda: view.state.step_choices, "Show the models earlier in training", True,
        lambda number: view.state.request(view.state.world, number, view._complain),
        ipywidgets.SelectionSlider, continuous_update=False,
    )  # fmt: skip
    # A slider has no natural width, unlike a dropdown: without this its track has length zero.
    slider.layout.width = "300px"
    return slider


class StepPlay:
    """Plays through the training steps: shows the next one at each beat of the page's clock.

    Beats are skipped while a step is being loaded, or panels are being computed or drawn. So every step is shown, and
    steps do not pile up.
    """

    def __init__(self, view: Box) -> None:
        self._view = view
        # The last step requested; None is the end of training, False is none yet.
        self._requested: int | bool | None = False
        self.play = ipywidgets.Play(
            interval=_BEAT,
            min=0,
            max=2**30,
            show_repeat=False,
            tooltip="Step through training",
            layout={"margin": "2px"},
        )
        view._link(self.play, self._beat)
        view._link(self.play, self._begin, "playing")
        view._link(view.state, self._offer, "world")
        self._offer(None)

    def _steps(self) -> list[int | None]:
        return [step for _, step in self._view.state.step_choices]

    def _offer(self, change: Any) -> None:
        """Stop, because the world has changed; hide the button if only the end of training is saved."""
        self.play.playing = False
        self.play.layout.display = None if self._view.state.steps else "none"

    def _begin(self, change: Any) -> None:
        """Start again from the first step if the end of training is shown."""
        self._requested = False
        if change["new"] and self._view.state.step is None:
            self._go(self._steps()[0])

    def _beat(self, change: Any) -> None:
        state, steps = self._view.state, self._steps()
        if change["new"] == self.play.min:
            # The stop button.
            self._go(steps[0])
        elif self.play.playing and not state.busy:
            if self._requested is not False and state.step != self._requested:
                # The step was cancelled or failed, or the user has gone elsewhere.
                self.play.playing = False
            else:
                self._go(steps[min(steps.index(state.step) + 1, len(steps) - 1)])

    def _go(self, step: int | None) -> None:
        self._requested = step
        self._view.state.request(self._view.state.world, step, self._view._complain)
        if step is None:
            self.play.playing = False


def play_steps(view: Box) -> Any:
    """Make a button that plays through the training steps."""
    return StepPlay(view).play


def theme(view: Box) -> Any:
    options = [("like the page", None), ("light", False), ("dark", True)]
    return bound(view, "dark", "Theme", lambda: options, "Colours of the figures")


def own(panel: Panel, *more: Any) -> list[Any]:
    """Make controls of world, layer, step, `more` and theme; `more` alone for a panel that shares its state."""
    return list(more) if panel._shares else [
        world(panel), layer(panel), play_steps(panel), step(panel), *more, theme(panel),
    ]  # fmt: skip


def row(*controls: Any, style: str = "") -> Any:
    """Put controls in a row that wraps on a narrow page; `style` are CSS classes."""
    return styled(ipywidgets.HBox, style, *controls, flex_flow="row wrap", align_items="center", width="100%")


class Table(LiveWidget):
    """A table to choose a row of, by click or key; `chosen` is its number, or -1. Texts are not read as HTML.

    `histories` are the heads of columns that are cut at their start: the newest tokens, at the end, stay in sight.
    """

    _esm = javascript(_HERE / "table.js")
    heads = List(Unicode()).tag(sync=True)
    histories = List(Unicode()).tag(sync=True)
    rows = List(List(Unicode())).tag(sync=True)
    chosen = Int(-1).tag(sync=True)


class Filter(Box):
    """Choose a column and which values to keep. `summary` counts the rows kept and selected, `clear` selects none."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self.column = choice("Filter by", "Highlight the rows with certain values", [_NO_COLUMN])
        self.values = ipywidgets.SelectMultiple(
            description="Keep", tooltip="Values to keep; Ctrl or Shift adds more", style=LABEL,
            layout={**ROOM, "min_width": "150px"},
        )  # fmt: skip
        self.clear = self._button("Clear selection", "Select nothing", lambda: self.state.select(()))
        self.summary = ipywidgets.HTML()
        self.children = [row(self.column, self.values), self._alert]
        self._link(self.column, self._choose)
        self._link(self.values, self._keep)
        for name in ("world", "filter", "selection", "step"):
            self._link(state, self._follow, name)
        self._follow(None)

    def _follow(self, change: Any) -> None:
        state = self.state
        columns = [(words(name), str(name)) for name in state.latents[0].obs]
        filtered = next(iter(state.filter), None)
        with self._still():
            options = [(_NO_COLUMN, _NO_COLUMN), *columns]
            if list(self.column.options) != options:
                self.column.options = options
            if filtered is not None:
                self.column.value = filtered
            elif change is not None and change["name"] == "world":
                self.column.value = _NO_COLUMN
            self._offer()
        self._summarise()

    def _offer(self) -> None:
        """Offer the values of the chosen column, with the kept ones selected."""
        name = self.column.value
        known = [] if name == _NO_COLUMN else self.state.scene.values(name)
        options = [(shorten(value, 40), value) for value in known]
        if list(self.values.options) != options:
            self.values.options = options
            self.values.rows = min(max(len(options), 1), _MOST_ROWS)
        self.values.value = self.state.filter.get(name, ())
        self.values.layout.display = None if known else "none"

    def _choose(self, change: Any) -> None:
        if self._following:
            return
        self.state.filter = {}
        with self._still():
            self._offer()

    def _keep(self, change: Any) -> None:
        name = self.column.value
        if name != _NO_COLUMN and not self._following:
            others = {key: kept for key, kept in self.state.filter.items() if key != name}
            self.state.filter = {name: self.values.value, **others} if self.values.value else others

    def _summarise(self) -> None:
        """Write the filter, and how many rows it keeps and are selected."""
        state = self.state
        scene = state.scene
        total = scene.latents[0].n_obs
        parts = []
        for name, kept in state.filter.items():
            values = ", ".join(shorten(value) for value in kept[:4]) + (", …" if len(kept) > 4 else "")
            parts.append(f"{words(name)} is {values}")
        if state.filter:
            parts.append(f"keeps {int(state.kept.sum()):,} of {total:,} rows")
        n = len(state.selection)
        if n:
            episodes = [episode for episode, _ in state.selection]
            held_out = int(np.isin(episodes, scene.held_out_episodes).sum())
            parts.append(f"{n:,} selected, {held_out:,} held out from the probes")
        self.summary.value = f'<span role="status">{escape("; ".join(parts))}</span>'
        self.clear.layout.display = None if n else "none"


class StatusLine(Box):
    """The running job of a queue and its progress, with a button that cancels it.

    While the queue is empty the line has no width; it keeps its height, so that nothing below it moves. `then` is a
    listener of the queue: if a job that it asked for was cancelled or failed, a button tries it again. The widgets of
    the line are made when it is first shown.
    """

    def __init__(self, jobs: Jobs, then: Callable[[], None] | None = None) -> None:
        super().__init__(None, "nlv-status", width="0", min_height="36px")
        self._jobs, self._then = jobs, then
        jobs.watch(self.follow)
        self.follow()

    def _build(self) -> None:
        self.text = ipywidgets.HTML(layout={"max_width": "75%"})
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "160px", "margin": "0 10px"})
        self.cancel = self._button("Cancel", "Cancel this and the computations that wait", self._jobs.cancel)
        self.again = self._button("Compute again", "Compute what was cancelled or failed", self._jobs.again)
        line = ipywidgets.HBox(
            [self.text, self.bar, self.cancel, self.again], layout={"min_height": "36px", "align_items": "center"}
        )
        self.children = [line, self._alert]

    def follow(self) -> None:
        """Show the present state of the queue."""
        if self._closed:
            return
        job = self._jobs.running
        share: float | None = None
        if job is None:
            text = self._jobs.note
        elif job.stopping:
            text = f"Cancelled. Stopping after this step: {job.text or job.title}"
        else:
            number, total = self._jobs.place
            count = f" {number} of {total}" if total > 1 else ""
            text = job.text or f"{job.title} is being computed …{count}"
            share = (number - 1) / total if job.share is None and total > 1 else job.share
        retry = job is None and self._then is not None and self._jobs.can_retry(self._then)
        if not self.children:
            if not text and not retry:
                return
            self._build()
        self.text.value = f'<span role="status" aria-live="polite">{escape(text)}</span>'
        self.bar.value = share or 0.0
        self.bar.layout.visibility = "hidden" if share is None else None
        self.cancel.layout.visibility = "hidden" if job is None or job.stopping else None
        self.again.layout.display = None if retry else "none"
        shown = bool(text or retry or self._alert.value)
        self.layout.width, self.layout.visibility = ("auto", None) if shown else ("0", "hidden")

    def close(self) -> None:
        """Take the line off the page and out of memory; the queue continues."""
        self._jobs.unwatch(self.follow)
        super().close()
