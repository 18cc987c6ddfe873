"""What all widgets share: a line that says what is going on, errors in sight, links to the state, a thorough close."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import ipywidgets
import pandas as pd

from nextlat_viz.errors import unknown
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState

_ERROR = "border:2px solid #d1242f;border-radius:6px;padding:6px 12px;margin:4px 0;line-height:1.45"
_BUSY = "opacity:.8;line-height:1.6"
_DARK = {"auto": None, "light": False, "dark": True}


class Panel(ipywidgets.VBox):
    """What holds a figure and controls: says when it is busy, shows what goes wrong, closes for good."""

    # What could not be made has nothing to close; ipywidgets closes it all the same.
    _closed = True
    children: Any
    _dom_classes: Any

    def __init__(self) -> None:
        self._links: list[tuple[Any, Callable[[Any], None], Any]] = []
        self._closed = False
        self._busy = ipywidgets.HTML()
        self._alert = ipywidgets.HTML()
        super().__init__(layout={"width": "100%", "overflow": "hidden"})
        self._dom_classes = ("nextlat-viz",)

    def _link(self, owner: Any, call: Callable[[Any], None], names: str | None = "value") -> None:
        """Call when something changes, with errors shown here; undone on close."""
        guarded = self._guarded(call)
        owner.observe(guarded, *(() if names is None else (names,)))
        self._links.append((owner, guarded, names))

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            if not self._closed:
                with self._working():
                    call(*arguments)

        return guarded

    @contextlib.contextmanager
    def _working(self, doing: str = "Computing …") -> Iterator[None]:
        """Say that the widget is busy until it is done; show what goes wrong."""
        outermost = not self._busy.value
        if outermost:
            self._busy.value = f'<div role="status" aria-live="polite" style="{_BUSY}">{html.escape(doing)}</div>'
            self._alert.value = ""
        try:
            yield
        except Exception as error:
            self._complain(error)
        finally:
            if outermost and not self._closed:
                self._busy.value = ""

    def _complain(self, error: BaseException) -> None:
        kind = type(error).__name__
        text = html.escape(str(error) or kind)
        self._alert.value = f'<div role="alert" style="{_ERROR}"><b>{html.escape(kind)}</b>: {text}</div>'

    def close(self) -> None:
        """Take the widget off the page and out of memory, with its figure and every control."""
        if self._closed:
            return
        self._closed = True
        for owner, call, names in self._links:
            owner.unobserve(call, *(() if names is None else (names,)))
        self._links.clear()
        # The busy line and the alert may not be among the children.
        for part in (self._busy, self._alert, self):
            for widget in _family(part):
                if widget is not self:
                    widget.close()
        self.children = ()
        super().close()


class Linked(Panel):
    """What looks at a `ViewState`, its own or a shared one.

    Parameters
    ----------
    *what
        Models side by side, as `ViewState` takes them.
    state : ViewState, optional
        To share with other widgets, in place of models.
    theme : {"auto", "light", "dark"}, optional
        "auto" leaves the page's own background.
    """

    def __init__(self, *what: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        if state is not None and what:
            raise ValueError("give models or a state, not both: the state has its models already")
        if theme is not None and theme not in get_args(Theme):
            raise unknown("theme", theme, get_args(Theme))
        self._shares = state is not None
        self.state = ViewState(*what) if state is None else state
        self.state.loop.attach()
        if theme is not None:
            self.state.dark = _DARK[theme]
        super().__init__()

    def close(self) -> None:
        """Take the widget off the page and out of memory; a world or step that it asked for is not shown later."""
        if not self._closed:
            self.state.withdraw(self._complain)
        super().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self.state.labels)}>"

    @property
    def selection(self) -> pd.DataFrame:
        """The selected rows as a table, for the next cell."""
        return self.state.selected


class View(Linked):
    """A figure with controls, looking at a `ViewState`.

    Subclasses make their controls, then call `_show` with what builds the figure.
    """

    _drawn: Any = None

    def __dir__(self) -> list[str]:
        return ["close", "plot", "selection", "state"]

    def _figure(self) -> Any:
        """Build the figure of the state as it is now."""
        raise NotImplementedError

    def _looks_at(self) -> Any:
        """Everything `_figure` depends on; nothing is drawn again while it stays the same."""
        raise NotImplementedError

    def _show(self, above: Sequence[Any], below: Sequence[Any], on_click: Any = None, on_select: Any = None) -> None:
        """Draw for the first time, put controls above and below, and follow the state."""
        self._drawn = self._looks_at()
        self.plot = Plot(
            self._figure(), *(None if call is None else self._guarded(call) for call in (on_click, on_select))
        )
        self.children = [*above, self._busy, self._alert, self.plot, *below]
        self._link(self.state, lambda change: self._redraw(), None)

    def _redraw(self) -> None:
        """Make the figure look like the state, if it does not."""
        with self._working():
            looks = self._looks_at()
            if looks != self._drawn:
                self.plot.become(self._figure())
                self._drawn = looks


def _family(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """A widget and all widgets that live in it: children, layouts, styles, links."""
    for name in ("children", "layout", "style"):
        part = getattr(widget, name, None)
        for one in part if isinstance(part, (list, tuple)) else [part]:
            if isinstance(one, ipywidgets.Widget):
                yield from _family(one)
    yield widget
