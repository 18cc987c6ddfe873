"""The base of every part of the studio, and its smallest parts: a dropdown with a label, a line of text."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets
import pandas as pd

from nextlat_viz.display import escape
from nextlat_viz.notebook.state import ViewState

_ERROR = "border:2px solid #d1242f;border-radius:6px;padding:6px 12px;margin:4px 0;line-height:1.45"
_BUSY = "opacity:.8;line-height:1.6"
# Show the busy line for work that took at least this many seconds last time.
_NOTICED = 0.4
LABEL = {"description_width": "auto"}
ROOM = {"width": "auto", "max_width": "300px", "margin": "2px 12px 2px 0"}


class Box(ipywidgets.VBox):
    """A column of widgets with an alert for errors. `close` also closes every widget inside.

    Parameters
    ----------
    state : ViewState, optional
        The state that the widgets set and follow.
    style : str
        CSS classes. Those of a part of a widget are not "nextlat-viz", the class of widgets shown by themselves.
    """

    # ipywidgets also closes an object whose constructor failed, which has nothing to close.
    _closed = True
    _busy: ipywidgets.HTML | None = None
    """The busy line; a subclass that shows it makes it."""
    _following = False
    _at_work = False
    children: Any

    def __init__(self, state: ViewState | None = None, style: str = "nextlat-viz", **layout: str) -> None:
        self._links: list[tuple[Any, Callable[[Any], None], Any]] = []
        # Seconds that each kind of work took last time.
        self._took: dict[Any, float] = {}
        self._closed = False
        self._alert = ipywidgets.HTML()
        if state is not None:
            self.state = state
            state.loop.attach()
        super().__init__(layout={"width": "100%", "overflow": "hidden", **layout}, _dom_classes=style.split())

    @property
    def selection(self) -> pd.DataFrame:
        """The selected rows as a table, for the next cell."""
        return self.state.selected

    def _link(self, owner: Any, call: Callable[[Any], None], name: Any = "value") -> None:
        """Call `call` when a trait of `owner` changes, until this widget is closed; errors are shown here."""
        guarded = self._guarded(call)
        owner.observe(guarded, name)
        self._links.append((owner, guarded, name))

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            if not self._closed:
                with self._working(kind=call):
                    call(*arguments)

        return guarded

    def _button(
        self, description: str, tooltip: str, call: Callable[[], None], icon: str = "", style: str = "", **layout: str
    ) -> ipywidgets.Button:
        """Make a button that calls `call`; errors are shown here. `style` are CSS classes."""
        button = ipywidgets.Button(
            description=description, tooltip=tooltip, icon=icon, layout={"width": "auto", **layout},
            _dom_classes=style.split(),
        )  # fmt: skip
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
        """Show the busy line until the block ends, and an error raised inside as an alert.

        A `kind` of work that was quick last time gets no busy line: the line takes two messages to the page, and a
        cursor step runs a dozen callbacks. Work without a kind always gets one.
        """
        outermost, begun = not self._at_work, time.monotonic()
        if outermost:
            self._at_work = True
            self._alert.value = ""
            if self._busy is not None and (kind is None or self._took.get(kind, math.inf) >= _NOTICED):
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
                    if self._busy is not None:
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
        # The alert may not be among the children.
        for part in (self._alert, self):
            for widget in family(part):
                if widget is not self:
                    widget.close()
        self.children = ()
        super().close()


def choice(description: str, tooltip: str, options: Sequence[Any] = (), **layout: str) -> ipywidgets.Dropdown:
    """Return a dropdown with its label on the left."""
    look = {"style": LABEL, "layout": {**ROOM, **layout}}
    return ipywidgets.Dropdown(options=options, description=description, tooltip=tooltip, **look)


def text_line() -> ipywidgets.HTML:
    """Return an empty line of text in the style of a panel's texts."""
    return ipywidgets.HTML(layout={"width": "100%"}, _dom_classes=["nlv-words"])


def styled(kind: type[ipywidgets.Widget], style: str, *children: Any, **layout: str) -> Any:
    """Return a box of widgets with CSS classes."""
    return kind(children, layout=layout, _dom_classes=style.split())


def family(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """Yield a widget and all widgets in it: children, layouts, styles."""
    for name in ("children", "layout", "style"):
        part = getattr(widget, name, None)
        for member in part if isinstance(part, (list, tuple)) else [part]:
            if isinstance(member, ipywidgets.Widget):
                yield from family(member)
    yield widget
