"""The panel: a question, the figure that answers it, its controls, its error, and whether it is folded."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import ipywidgets
import pandas as pd
from traitlets import Bool

from nextlat_viz.display import escape, words
from nextlat_viz.errors import one_of
from nextlat_viz.figures.layout import legend_entries
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.jobs import Waiting, can_retry
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import name_file

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult
    from nextlat_viz.latents import Thinking

_ERROR = "border:2px solid #d1242f;border-radius:6px;padding:6px 12px;margin:4px 0;line-height:1.45"
_BUSY = "opacity:.8;line-height:1.6"
# Seconds from which work is announced on the page.
_NOTICED = 0.4
_DARK = {"auto": None, "light": False, "dark": True}
_OPEN, _FOLDED = "▾", "▸"
LABEL = {"description_width": "auto"}
ROOM = {"width": "auto", "max_width": "300px", "margin": "2px 12px 2px 0"}


class Box(ipywidgets.VBox):
    """Widgets in a column, with a busy line, with errors shown in place, and a `close` that leaves nothing behind.

    Parameters
    ----------
    state : ViewState, optional
        The state that the widgets set and follow.
    """

    # ipywidgets also closes an object whose constructor failed; there is nothing to close in it.
    _closed = True
    _following = False
    _at_work = False
    children: Any
    _dom_classes: Any

    def __init__(self, state: ViewState | None = None) -> None:
        self._links: list[tuple[Any, Callable[[Any], None], Any]] = []
        # Seconds that each kind of work took last time.
        self._took: dict[Any, float] = {}
        self._closed = False
        self._busy = ipywidgets.HTML()
        self._alert = ipywidgets.HTML()
        if state is not None:
            self.state = state
            state.loop.attach()
        super().__init__(layout={"width": "100%", "overflow": "hidden"})
        self._dom_classes = ("nextlat-viz",)

    @property
    def selection(self) -> pd.DataFrame:
        """The selected rows as a table, for the next cell."""
        return self.state.selected

    def _link(self, owner: Any, call: Callable[[Any], None], name: Any = "value") -> None:
        """Call when a trait of `owner` changes, with errors shown here; undone on close."""
        guarded = self._guarded(call)
        owner.observe(guarded, name)
        self._links.append((owner, guarded, name))

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            if not self._closed:
                with self._working(kind=call):
                    call(*arguments)

        return guarded

    def _button(self, description: str, tooltip: str, call: Callable[[], None]) -> ipywidgets.Button:
        """Make a button that calls, with errors shown here."""
        button = ipywidgets.Button(description=description, tooltip=tooltip, layout={"width": "auto"})
        button.on_click(self._guarded(lambda button: call()))
        return button

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Set `_following` inside the block, so that callbacks of the controls leave the state alone."""
        before, self._following = self._following, True
        try:
            yield
        finally:
            self._following = before

    @contextlib.contextmanager
    def _working(self, doing: str = "Computing …", kind: Any = None) -> Iterator[None]:
        """Show the busy line until the block ends, and an error in it as an alert.

        There is no line for a `kind` of work that was quick the last time: it would take two messages to the page, at
        each of the dozen callbacks of a cursor step. Work of no kind is always announced.
        """
        outermost, begun = not self._at_work, time.monotonic()
        if outermost:
            self._at_work = True
            self._alert.value = ""
            if kind is None or self._took.get(kind, math.inf) >= _NOTICED:
                self._busy.value = f'<div role="status" aria-live="polite" style="{_BUSY}">{escape(doing)}</div>'
        try:
            yield
        except Exception as error:
            self._complain(error)
        finally:
            if outermost:
                self._at_work = False
                if not self._closed:
                    self._took[kind] = time.monotonic() - begun
                    self._busy.value = ""

    def _complain(self, error: BaseException) -> None:
        kind = type(error).__name__
        self._alert.value = (
            f'<div role="alert" style="{_ERROR}"><b>{escape(kind)}</b>: {escape(str(error) or kind)}</div>'
        )

    def close(self) -> None:
        """Take the widget off the page and out of memory, with its figure and every control."""
        if self._closed:
            return
        self._closed = True
        if hasattr(self, "state"):
            # A world or training step that was requested here and is still loading will not be shown.
            self.state.withdraw(self._complain)
        for owner, call, name in self._links:
            owner.unobserve(call, name)
        self._links.clear()
        self._took.clear()
        # The busy line and the alert may not be among the children.
        for part in (self._busy, self._alert, self):
            for widget in _family(part):
                if widget is not self:
                    widget.close()
        self.children = ()
        super().close()


class Panel(Box):
    """One question about the models at the cursor, answered by a figure.

    A subclass names what it follows, makes its controls, calls `_show`, and writes `_figure`, which returns a figure,
    or a sentence that says why there is none. The figure is drawn in a later round of the event loop, and not while
    the panel is out of sight, unless it is read from code.

    Parameters
    ----------
    *models
        Models side by side, as `ViewState` takes them.
    state : ViewState, optional
        To share with other widgets, in place of models.
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
        Whether the question stands above the figure and folds it. A panel that is a widget of its own has no frame.
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
    """Called with the panel to keep its figure; a studio sets it."""
    folded = Bool(False)
    large = Bool(False)
    shown = Bool(True)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        self._shares = state is not None
        super().__init__(shared_state(models, state, theme))
        # A studio shows the panels that have a frame.
        self.shown = not self.framed
        self._fold = self._button("", "Fold or unfold", lambda: self.set_trait("folded", not self.folded))
        self._fold.add_class("nlv-fold")
        self._enlarge = self._button(
            "", "Show this panel alone, or all again", lambda: self.set_trait("large", not self.large)
        )
        self._enlarge.icon = "expand"
        self._enlarge.add_class("nlv-tool")
        self._pin = self._button("", "Add this figure to the tray", lambda: self.on_pin(self) if self.on_pin else None)
        self._pin.icon = "thumb-tack"
        self._pin.add_class("nlv-tool")
        self._message = ""
        self._words = text_line()
        self._retry = self._button("Compute again", "Compute what was cancelled", lambda: self.state.jobs.again())
        self._retry.layout.display = "none"

    def __dir__(self) -> list[str]:
        return ["close", "drawn", "folded", "large", "plot", "refresh", "selection", "shown", "state", "words"]

    def __repr__(self) -> str:
        if self.framed:
            return f"<{self.question}>"
        return f"<{type(self).__name__} of {', '.join(self.state.labels)}>"

    def _looks_at(self) -> Any:
        """Everything `_figure` depends on; nothing is drawn again while it stays the same."""
        state = self.state
        return id(state.scene), *(getattr(state, name) for name in self.follows), *self._depends_on()

    def _depends_on(self) -> tuple[Any, ...]:
        """Values other than the state's that change the figure: the panel's controls, results of the job queue."""
        return ()

    def _figure(self) -> Any:
        """Build the figure of the state as it is now, or return a sentence that says why there is none."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Ask the job queue for slow results, before anything is drawn."""

    def _describe(self) -> None:
        """Update the texts that stand beside the figure."""

    @property
    def plot(self) -> Any:
        """The figure for the present state, drawn at once if need be; None where there is none."""
        self._update()
        return self._plot

    @property
    def drawn(self) -> bool:
        """Whether there is an answer."""
        self._update()
        return self._drawn is not None and not self._message

    @property
    def words(self) -> str:
        """Why there is no figure; empty where there is one."""
        self._update()
        return self._message

    @property
    def notes(self) -> str:
        """The texts beside the figure, as HTML."""
        texts = (part for part in self._body.children if isinstance(part, ipywidgets.HTML) and part is not self._words)
        return "<br>".join(text.value for text in texts if text.value and "nlv-words" in text._dom_classes)

    @property
    def views(self) -> list[Any]:
        """The figures on the page, left to right; empty where there is a table."""
        return [] if self.plot is None else [self.plot]

    @property
    def probes(self) -> list[ProbeResult]:
        """The probes whose readings the figure shows."""
        return []

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why the question does not apply to the models of a state, whatever the cursor; empty where it does."""
        return ""

    @property
    def why_not(self) -> str:
        """Why the question does not apply to the models shown; empty where it does."""
        return self.unsuited(self.state)

    def _look(self, change: Any = None) -> None:
        """Show what is in sight, and draw it if it was not before."""
        if self.framed:
            self._body.layout.display = "none" if self.folded else None
            self._fold.description = f"{_FOLDED if self.folded else _OPEN} {self.question}"
            self._enlarge.icon = "compress" if self.large else "expand"
            # Neither takes more room than its line of text.
            slim = self.folded or (self.shown and bool(self.why_not))
            for name, wanted in (("nlv-slim", slim), ("nlv-large", self.large)):
                (self.add_class if wanted else self.remove_class)(name)
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
        """Put the panel on the page, and follow the state.

        `stage` holds the widgets of the answer, by default the figure; `beside` those on the line of the question,
        where there is a frame.
        """
        self._callbacks = tuple(None if call is None else self._guarded(call) for call in (on_click, on_select, on_key))
        self._stage = ipywidgets.VBox(stage, layout={"width": "100%", "overflow": "hidden"})
        parts = [self._alert, self._words, self._retry, *self._arrange(self._stage), *below]
        if self.framed:
            self._dom_classes = ("nextlat-viz", "nlv-card", f"nlv-card-{self.name}")
            self._busy.add_class("nlv-busy")
            head = ipywidgets.HBox(
                [self._fold, self._busy, *beside, self._pin, self._enlarge], layout={"width": "100%"}
            )
            head.add_class("nlv-head")
            self._body: Any = ipywidgets.VBox([*above, *parts], layout={"width": "100%"})
            self._body.add_class("nlv-body")
            self._stage.add_class("nlv-stage")
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
            # A widget of its own is complete when its cell ends; a studio draws its panels one by one.
            self.refresh()

    def _arrange(self, stage: ipywidgets.VBox) -> Sequence[Any]:
        """The widgets between the messages and the controls below; by default the stage alone."""
        return [stage]

    def _ask(self, change: Any = None) -> None:
        self.state.loop.soon(self.refresh)

    def refresh(self) -> None:
        """Draw the present state, where that has not been done and the panel is in sight."""
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
            # At another position the same is drawn again.
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
        """Show an error in place of a figure that is out of date; drawing is tried again at the next change."""
        self._drawn = None
        self._say("No figure to show.")
        self._complain(error)

    def _probe(self, model: int, target: str, site: str) -> ProbeResult:
        """The probe of a model, fitted by the job queue; raises an error that says so while there is none."""
        scene = self.state.scene
        title, compute = (
            f"The probe of {scene.labels[model]} for {words(target)}",
            lambda: scene.probe(model, target, site),
        )
        fitted: ProbeResult = self._computed(("probe", model, target, site), title, compute)
        return fitted

    def _thinking(self, model: int) -> Thinking:
        """The answers of a recursive model, computed by the job queue; raises an error while there are none."""
        scene = self.state.scene
        title, compute = f"The answers of {scene.labels[model]}", lambda: scene.thinking(model)
        answers: Thinking = self._computed(("thinking", model), title, compute)
        return answers

    def _computed(self, key: tuple[Any, ...], title: str, compute: Callable[[], Any]) -> Any:
        """A result of the scene, computed by the job queue; raises an error that says so while there is none."""
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
        """Take the panel off the page and out of memory; results that only it asked for are not computed any more."""
        if not self._closed:
            for queue in (self.state.jobs, self.state.layouts, self.state.history):
                queue.withdraw(self._ask)
            self.state.loop.forget(self.refresh)
            for part in (self._fold, self._pin, self._enlarge, self._retry):
                for widget in _family(part):
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


def choice(description: str, tooltip: str, options: Sequence[Any] = (), **layout: str) -> ipywidgets.Dropdown:
    """A labelled list to choose from."""
    look = {"style": LABEL, "layout": {**ROOM, **layout}}
    return ipywidgets.Dropdown(options=options, description=description, tooltip=tooltip, **look)


def take_legend(figure: Any) -> list[str]:
    """Return the entries of a figure's legend as HTML, which wraps, and take the legend off the figure."""
    entries = [f'<span style="white-space:nowrap">{entry}</span>' for entry in legend_entries(figure)]
    figure.layout.showlegend = False
    return entries


def text_line() -> ipywidgets.HTML:
    """An empty line of text in the words' style."""
    text = ipywidgets.HTML(layout={"width": "100%"})
    text.add_class("nlv-words")
    return text


def _family(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """A widget and all widgets in it: children, layouts, styles."""
    for name in ("children", "layout", "style"):
        part = getattr(widget, name, None)
        for member in part if isinstance(part, (list, tuple)) else [part]:
            if isinstance(member, ipywidgets.Widget):
                yield from _family(member)
    yield widget
