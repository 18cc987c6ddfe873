"""A panel of the studio: a question that folds, and below it the figure that answers it, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.notebook.base import Linked
from nextlat_viz.notebook.jobs import Waiting, can_retry
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult

_OPEN, _FOLDED = "▾", "▸"


class Card(Linked):
    """One question about the models at the cursor, answered by a figure.

    Subclasses make their controls, call `_show`, and write `_figure`, which returns a figure, or in words why there
    is none. Nothing is computed while a card is folded. What goes wrong is shown in the card and nowhere else.

    Parameters
    ----------
    state : ViewState
    """

    name: ClassVar[str]
    question: ClassVar[str]
    _plot: Plot | None = None
    _drawn: Any = None
    _can_retry = False

    def __init__(self, state: ViewState) -> None:
        super().__init__(state=state)
        self._dom_classes = ("nextlat-viz", "nlv-card", f"nlv-card-{self.name}")
        self._fold = ipywidgets.Button(tooltip="Fold or unfold", layout={"width": "auto"})
        self._fold.add_class("nlv-fold")
        self._fold.on_click(self._guarded(lambda button: self._set_folded(not self.folded)))
        self._busy.add_class("nlv-busy")
        self._said = ""
        self._words = ipywidgets.HTML(layout={"width": "100%"})
        self._words.add_class("nlv-words")
        self._again = ipywidgets.Button(
            description="Compute again", tooltip="Compute what was cancelled", layout={"width": "auto"}
        )
        self._again.layout.display = "none"
        self._again.on_click(self._guarded(lambda button: state.jobs.again()))

    def __dir__(self) -> list[str]:
        return ["close", "drawn", "folded", "plot", "refresh", "selection", "state", "words"]

    def __repr__(self) -> str:
        return f"<{self.question}>"

    def _looks_at(self) -> Any:
        """Everything `_figure` depends on; nothing is drawn again while it stays the same."""
        raise NotImplementedError

    def _figure(self) -> Any:
        """Build the figure of the state as it is now, or say in words why there is none."""
        raise NotImplementedError

    @property
    def plot(self) -> Any:
        """The figure as the state is now, drawn before its turn if need be; None where there is none."""
        self.refresh()
        return self._plot

    @property
    def folded(self) -> bool:
        """Whether only the question is to be seen."""
        return bool(self._body.layout.display == "none")

    @property
    def drawn(self) -> bool:
        """Whether there is a figure to be seen, or would be if the card were not folded."""
        return self._drawn is not None and not self.words

    @property
    def words(self) -> str:
        """Why there is no figure; empty where there is one."""
        return self._said

    def _set_folded(self, folded: bool) -> None:
        self._body.layout.display = "none" if folded else None
        self._fold.description = f"{_FOLDED if folded else _OPEN} {self.question}"
        self._ask()

    def _show(
        self, above: Sequence[Any] = (), below: Sequence[Any] = (), on_click: Any = None, on_select: Any = None
    ) -> None:
        """Put the question and controls on the page; the figure follows when its turn comes."""
        self._calls = tuple(None if call is None else self._guarded(call) for call in (on_click, on_select))
        self._open(above, below)

    def _open(self, above: Sequence[Any], below: Sequence[Any] = (), answer: Sequence[Any] = ()) -> None:
        """Put the question on the page, with what answers it, and follow the state."""
        self._stage = ipywidgets.VBox(answer, layout={"width": "100%", "overflow": "hidden"})
        self._body = ipywidgets.VBox(
            [*above, self._alert, self._words, self._again, self._stage, *below],
            layout={"width": "100%", "overflow": "hidden"},
        )
        head = ipywidgets.HBox([self._fold, self._busy], layout={"width": "100%"})
        head.add_class("nlv-head")
        self.children = [head, self._body]
        self.state.observe(self._ask)
        self._links.append((self.state, self._ask, None))
        self._set_folded(False)

    def _ask(self, change: Any = None) -> None:
        self.state.loop.soon(self.refresh)

    def refresh(self) -> None:
        """Look like the state as it is now."""
        if self._closed or self.folded:
            return
        before = self._drawn
        self._can_retry = False
        try:
            self._prepare()
            looks = self._looks_at()
        except Exception as error:
            self._fail(error)
            return
        if looks != before:
            with self._working():
                try:
                    self._draw(looks)
                    self._drawn = looks
                except Exception as error:
                    self._fail(error)
        if self._can_retry:
            self._again.layout.display = None
        elif looks != before:
            self._again.layout.display = "none"

    def _probe(self, model: int, target: str, site: str) -> ProbeResult:
        """The probe of a model, fitted by the job queue; raises an error that says so while there is none."""
        try:
            return self.state.ask_probe(model, target, site, self._ask)
        except Waiting:
            raise
        except Exception as error:
            self._can_retry = self._can_retry or can_retry(error)
            raise

    def close(self) -> None:
        """Take the card off the page and out of memory; what it alone asked for is not computed any more."""
        if not self._closed:
            self.state.jobs.withdraw(self._ask)
            self.state.layouts.withdraw(self._ask)
            self.state.loop.forget(self.refresh)
        super().close()

    def _prepare(self) -> None:
        """Ask for what takes long, before anything is drawn."""

    def _draw(self, looks: Any) -> None:
        figure = self._figure()
        if isinstance(figure, str):
            self._say(figure)
        else:
            if self._plot is None:
                # Made with its first figure: a page that is still loading plotly might not hear of another.
                self._plot = Plot(figure, *self._calls)
                self._place(self._plot)
            else:
                self._plot.become(figure)
            self._say("")

    def _place(self, plot: Plot) -> None:
        """Put the figure where the answer is, once: one that is shown again does not hear what comes next."""
        self._stage.children = (plot,)

    def _say(self, words: str) -> None:
        """Show words in place of the figure; none, to show the figure."""
        self._said = words
        self._words.value = escape(words)
        self._stage.layout.display = "none" if words else None

    def _fail(self, error: Exception) -> None:
        """Show an error, not the picture of something else beside it; try again when anything changes."""
        self._drawn = None
        self._say("There is no picture of this.")
        self._complain(error)
