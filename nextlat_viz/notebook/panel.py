"""The panel: a question, the figure that answers it, its controls, its error, and whether it is folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import ipywidgets
from traitlets import Bool

from nextlat_viz.display import escape, words
from nextlat_viz.errors import one_of
from nextlat_viz.figures.layout import legend_entries
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.box import Box, family, styled, text_line
from nextlat_viz.notebook.jobs import Waiting, can_retry
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import name_file

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult
    from nextlat_viz.latents import Thinking

_DARK = {"auto": None, "light": False, "dark": True}
_OPEN, _FOLDED = "▾", "▸"


class Panel(Box):
    """One question about the models at the cursor, answered by a figure.

    A subclass sets `follows`, makes its controls, calls `_show`, and defines `_figure`, which returns a figure or a
    sentence that says why there is none. The event loop draws the figure later, once the panel is in sight; reading
    `plot` draws it at once.

    Parameters
    ----------
    *models
        Models side by side, as `ViewState` takes them.
    state : ViewState, optional
        The state of other widgets to share, instead of models.
    theme : {"auto", "light", "dark"}, optional
        "auto" leaves the page's own background.

    Attributes
    ----------
    name, question, tab : str
        `tab` is the question in two words.
    folded, large, shown : bool
        Whether only the question is in sight; whether the panel takes the room of all panels of a studio; whether the
        panel is in sight at all.
    framed : bool
        Whether the panel has a header with its question and buttons. A panel outside of a studio has none.
    follows : tuple of str
        Attributes of the state that the figure depends on, beside world and training step.
    watches : tuple of str
        Attributes of the state that update the controls and texts; the figure stays as it is.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    tab: ClassVar[str] = ""
    framed: ClassVar[bool] = True
    follows: ClassVar[tuple[str, ...]] = ()
    watches: ClassVar[tuple[str, ...]] = ()
    _plot: Plot | None = None
    _drawn: Any = None
    _can_retry = False
    on_pin: Callable[[Any], None] | None = None
    """Called with the panel when the user pins its figure; a studio sets it."""
    folded = Bool(False)
    large = Bool(False)
    shown = Bool(True)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        self._shares = state is not None
        style = f" nlv-card nlv-card-{self.name}" if self.framed else ""
        super().__init__(shared_state(models, state, theme), f"nextlat-viz{style}")
        self._busy = ipywidgets.HTML(_dom_classes=["nlv-busy"] if self.framed else [])
        # A studio chooses which of its framed panels to show.
        self.shown = not self.framed
        question, about = f"{_OPEN} {self.question}", "Show this panel alone, or all again"
        self._fold = self._button(question, "Fold or unfold", partial(self._flip, "folded"), style="nlv-fold")
        self._enlarge = self._button("", about, partial(self._flip, "large"), icon="expand", style="nlv-tool")
        self._pin = self._button(
            "",
            "Add this figure to the tray",
            lambda: self.on_pin(self) if self.on_pin else None,
            icon="thumb-tack",
            style="nlv-tool",
        )
        self._message = ""
        self._words = text_line()
        self._retry = self._button(
            "Compute again", "Compute what was cancelled", lambda: self.state.jobs.again(), display="none"
        )

    def __dir__(self) -> list[str]:
        return ["close", "drawn", "folded", "large", "plot", "refresh", "selection", "shown", "state", "words"]

    def __repr__(self) -> str:
        if self.framed:
            return f"<{self.question}>"
        return f"<{type(self).__name__} of {', '.join(self.state.labels)}>"

    def _flip(self, trait: str) -> None:
        self.set_trait(trait, not getattr(self, trait))

    def _looks_at(self) -> Any:
        """Return everything that `_figure` depends on; the figure is redrawn only when this changes."""
        state = self.state
        return id(state.scene), *(getattr(state, name) for name in self.follows), *self._depends_on()

    def _depends_on(self) -> tuple[Any, ...]:
        """Return what else the figure depends on: values of the panel's controls, results of the job queue."""
        return ()

    def _figure(self) -> Any:
        """Return the figure of the present state, or a sentence that says why there is none."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Ask the job queue for slow results before the figure is drawn."""

    def _describe(self) -> None:
        """Update the texts beside the figure."""

    @property
    def plot(self) -> Any:
        """The figure of the present state, drawn now if it is out of date; None if there is none."""
        self._update()
        return self._plot

    @property
    def drawn(self) -> bool:
        """Whether the panel shows an answer."""
        self._update()
        return self._drawn is not None and not self._message

    @property
    def words(self) -> str:
        """Why there is no figure; empty if there is one."""
        self._update()
        return self._message

    @property
    def notes(self) -> str:
        """The texts beside the figure, as HTML."""
        texts = (part for part in self._body.children if isinstance(part, ipywidgets.HTML) and part is not self._words)
        return "<br>".join(text.value for text in texts if text.value and "nlv-words" in text._dom_classes)

    @property
    def views(self) -> list[Any]:
        """The figures on the page, left to right; empty for a table."""
        return [] if self.plot is None else [self.plot]

    @property
    def probes(self) -> list[ProbeResult]:
        """The probes whose predictions the figure shows."""
        return []

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why the question does not apply to the models of a state, at any cursor; empty if it applies."""
        return ""

    @property
    def why_not(self) -> str:
        """Why the question does not apply to the models shown; empty if it applies."""
        return self.unsuited(self.state)

    def _look(self, change: Any = None) -> None:
        """Show or hide the panel and its body, and draw the figure when it comes into sight."""
        if self.framed:
            self._body.layout.display = "none" if self.folded else None
            self._fold.description = f"{_FOLDED if self.folded else _OPEN} {self.question}"
            self._enlarge.icon = "compress" if self.large else "expand"
            # A folded panel, or a message instead of a figure, needs a single line.
            slim = self.folded or (self.shown and bool(self.why_not))
            for name, active in (("nlv-slim", slim), ("nlv-large", self.large)):
                (self.add_class if active else self.remove_class)(name)
        self.layout.display = None if self.shown else "none"
        self._ask()

    def _show(
        self,
        above: Sequence[Any] = (),
        below: Sequence[Any] = (),
        on_click: Any = None,
        on_select: Any = None,
        stage: Sequence[Any] = (),
        beside: Sequence[Any] = (),
        on_key: Any = None,
    ) -> None:
        """Lay out the panel and follow the state.

        `stage` holds the widgets of the answer, by default the figure; `beside` those in the header of a framed panel.
        """
        self._callbacks = tuple(None if call is None else self._guarded(call) for call in (on_click, on_select, on_key))
        whole, style = {"width": "100%"}, "nlv-stage" if self.framed else ""
        self._stage = styled(ipywidgets.VBox, style, *stage, **whole, overflow="hidden")
        parts = [self._alert, self._words, self._retry, *self._arrange(self._stage), *below]
        if self.framed:
            tools = (self._busy, *beside, self._pin, self._enlarge)
            head = styled(ipywidgets.HBox, "nlv-head", self._fold, *tools, **whole)
            self._body: Any = styled(ipywidgets.VBox, "nlv-body", *above, *parts, **whole)
            self.children = [head, self._body]
        else:
            self._body = self
            self.children = [*above, self._busy, *parts]
        for name in ("world", "step", *self.follows, *self.watches):
            self.state.observe(self._ask, name)
            self._links.append((self.state, self._ask, name))
        self._link(self, self._look, ["folded", "large", "shown"])
        for name in ("world", "step"):
            self._link(self.state, self._look, name)
        self._look()
        if not self.framed:
            # Draw the figure before the cell ends; a studio draws its panels one by one.
            self.refresh()

    def _arrange(self, stage: ipywidgets.VBox) -> Sequence[Any]:
        """Return the widgets between the messages and the controls below; by default the stage alone."""
        return [stage]

    def _ask(self, change: Any = None) -> None:
        self.state.loop.soon(self.refresh)

    def refresh(self) -> None:
        """Draw the figure if it is in sight and out of date."""
        if self.shown and not self.folded:
            self._update()

    def _update(self) -> None:
        if self._closed:
            return
        before, self._can_retry = self._drawn, False
        try:
            self._prepare()
            looks = self._looks_at()
        except Exception as error:
            self._fail(error)
            return
        if looks != before:
            state = self.state
            # The kind leaves out the cursor: drawing takes as long at every position.
            with self._working(kind=(state.world, state.step, state.color, state.site, state.target)):
                try:
                    self._draw(looks)
                    self._drawn = looks
                except Exception as error:
                    self._fail(error)
        if self._can_retry:
            self._retry.layout.display = None
        elif looks != before:
            self._retry.layout.display = "none"
        try:
            self._describe()
        except Exception as error:
            self._complain(error)

    def _draw(self, looks: Any) -> None:
        figure = self._figure()
        if isinstance(figure, str):
            self._say(figure)
        else:
            name_file(figure, self.state.world, self.name)
            if self._plot is None:
                self._plot = Plot(figure, *self._callbacks)
                self._place(self._plot)
            else:
                self._plot.become(figure)
            self._say("")

    def _place(self, plot: Plot) -> None:
        self._stage.children = (plot,)

    def _say(self, message: str) -> None:
        """Show a message in place of the figure; an empty one shows the figure."""
        self._message = message
        self._words.value = escape(message)
        self._stage.layout.display = "none" if message else None

    def _fail(self, error: Exception) -> None:
        """Show an error instead of the outdated figure; the next change tries to draw again."""
        self._drawn = None
        self._say("No figure to show.")
        self._complain(error)

    def _probe(self, model: int, target: str, site: str) -> ProbeResult:
        """Return the probe of a model from the job queue; raises as `Jobs.ask` until it is fitted."""
        scene = self.state.scene
        title = f"The probe of {scene.labels[model]} for {words(target)}"
        key = "probe", model, target, site
        probe: ProbeResult = self._computed(key, title, lambda: scene.probe(model, target, site))
        return probe

    def _thinking(self, model: int) -> Thinking:
        """Return the answers of a recursive model from the job queue; raises as `Jobs.ask` until they are computed."""
        scene = self.state.scene
        title = f"The answers of {scene.labels[model]}"
        answers: Thinking = self._computed(("thinking", model), title, lambda: scene.thinking(model))
        return answers

    def _computed(self, key: tuple[Any, ...], title: str, compute: Callable[[], Any]) -> Any:
        """Return a result of the scene from the job queue; raises as `Jobs.ask` until it is computed."""
        results = self.state.scene.results
        known = results.peek(key)
        if known is not None:
            return known
        try:
            return self.state.jobs.ask(results, key, title, compute, self._ask)
        except Waiting:
            raise
        except Exception as error:
            self._can_retry = self._can_retry or can_retry(error)
            raise

    def close(self) -> None:
        """Take the panel off the page and out of memory, and stop the jobs that only this panel asked for."""
        if not self._closed:
            for queue in (self.state.jobs, self.state.layouts, self.state.history):
                queue.withdraw(self._ask)
            self.state.loop.forget(self.refresh)
            for part in (self._fold, self._pin, self._enlarge, self._retry):
                for widget in family(part):
                    widget.close()
        super().close()


def shared_state(models: Sequence[Any], state: ViewState | None, theme: Theme | None) -> ViewState:
    """The state of a widget: a new one for models, or the given one.

    Raises
    ------
    ValueError
        For both models and a state.
    UnknownNameError
        For an unknown theme.
    """
    if state is not None and models:
        raise ValueError("give models or a state, not both: the state has its models already")
    if any(isinstance(model, ViewState) for model in models):
        raise TypeError("a ViewState is not a model: give it as state=...")
    if state is not None and not isinstance(state, ViewState):
        raise TypeError(f"state must be a ViewState, got {type(state).__name__}: give models first, without state=")
    if theme is not None:
        one_of("theme", theme, get_args(Theme))
    state = ViewState(*models) if state is None else state
    if theme is not None:
        state.dark = _DARK[theme]
    return state


def take_legend(figure: Any) -> list[str]:
    """Return the entries of a figure's legend as HTML, which wraps, and take the legend off the figure."""
    entries = [f'<span style="white-space:nowrap">{entry}</span>' for entry in legend_entries(figure)]
    figure.layout.showlegend = False
    return entries
