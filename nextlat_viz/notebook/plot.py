"""The one live figure of a widget: made once, then changed in place to look like any other figure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from traitlets import Unicode, observe

from nextlat_viz.notebook.bundle import LOADER, Library, bundle_key
from nextlat_viz.plotting import CONFIG

# What a mouse touched: {trace index: point numbers}.
Points = dict[int, list[int]]

_STATE = ("_widget_data", "_widget_layout")
# Set by the reader with the mouse, so never by a redraw: how far in, which tool, what is outlined. And by the page,
# whenever it fits a figure to its cell: taken away, the figure would stay as wide as it was.
_VIEW = {"range", "autorange", "dragmode", "selections", "hovermode", "autosize"}


class Plot(go.FigureWidget):
    """A plotly FigureWidget that turns into another figure in place, and can be closed for good.

    Five things are not as in plotly's own:

    - `_esm` is a few lines that borrow plotly's bundle, not the bundle's file: anywidget watches files, which keeps
      every figure ever made in memory, and each figure would send five megabytes.
    - What a page gets when it (re)loads is the figure as it is now; plotly's is the figure as it was made.
    - What changes before a page has drawn the figure is sent as state too, because a page that is still loading
      plotly does not hear messages.
    - A click or a selection is one call, not one per trace, and does not redraw by itself.
    - It is as wide as its cell, and a change is one message each way: see `bundle`.

    Parameters
    ----------
    figure : plotly Figure
        What to show first.
    on_click : callable, optional
        Called with {trace index: point numbers} when a point is clicked.
    on_select : callable, optional
        Called with {trace index: point numbers} after a lasso or a box, and with None when it is dismissed.
    """

    _esm = LOADER
    _library = Unicode().tag(sync=True)
    _bundle = Unicode().tag(sync=True)

    def __init__(
        self,
        figure: go.Figure,
        on_click: Callable[[Points], None] | None = None,
        on_select: Callable[[Points | None], None] | None = None,
    ) -> None:
        self._complete = self._drawn = False
        self._on_click, self._on_select = on_click, on_select
        super().__init__(data=figure.data, layout=figure.layout)
        self._config = CONFIG
        self._library, self._bundle = Library.borrow().model_id, bundle_key()
        self._complete = True
        self.open()

    def open(self) -> None:
        """Tell the page about the figure, once there is one: a busy page would draw it empty."""
        if self._complete:
            super().open()

    def close(self) -> None:
        """Take the figure off the page and out of memory."""
        if self._complete:
            self._complete = False
            Library.give_back()
        super().close()

    def become(self, figure: go.Figure) -> None:
        """Look like another figure: what differs is sent, in one message.

        The reader's zoom and tool stay, except where the points themselves have moved. Where the traces are of other
        kinds or number, all are replaced.
        """
        shown = list(self.select_traces())
        moved = set()
        if [trace.type for trace in shown] != [trace.type for trace in figure.data]:
            self.data = ()
            self.add_traces(figure.data)
            shown = list(self.select_traces())
            every = {*self.layout._props, *figure.layout._props}
            moved = {key for key in every if key.startswith(("xaxis", "yaxis"))}
        with self.batch_update():
            for old, new in zip(shown, figure.data, strict=True):
                for path, value in changes(old._props, new._props, skip={"uid"}, whole={"meta"}):
                    old[path] = value
                    if path in ("x", "y") and (new.meta or {}).get("role") != "cursor":
                        moved |= {f"xaxis{(new.xaxis or 'x')[1:]}", f"yaxis{(new.yaxis or 'y')[1:]}"}
            # plotly knows a second axis only once it is there.
            new = {key for key in figure.layout._props if "axis" in key and key not in self.layout._props}
            whole = {"template", *new}
            for path, value in changes(self.layout._props, figure.layout._props, skip=_VIEW, whole=whole):
                self.layout[path] = value
            for axis in moved:
                its_range = (figure.layout._props.get(axis) or {}).get("range")
                # That a range ends autorange plotly knows on the page alone: True would be no news later.
                self.layout[axis].update(range=its_range, autorange=its_range is None)
        if not self._drawn:
            self.send_state(list(_STATE))

    def points(self, touched: Points | None, *roles: str) -> list[tuple[int, int]]:
        """Return (trace, point) of what was touched, in traces whose ``meta["role"]`` is one of these."""
        data: Any = self.data
        its = [trace for trace in touched or {} if (data[trace].meta or {}).get("role") in roles]
        return [(trace, point) for trace in its for point in (touched or {})[trace]]

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """State for a page, with the figure as it is now."""
        state: dict[str, Any] = super().get_state(key, drop_defaults)
        if hasattr(self, "_data"):
            for name, current in zip(_STATE, (self._data, self._layout), strict=True):
                if name in state:
                    state[name] = self.trait_metadata(name, "to_json")(current, self)
        return state

    @observe("_js2py_traceDeltas")
    def _note_drawn(self, change: Mapping[str, Any]) -> None:
        self._drawn = self._drawn or bool(change["new"])

    @observe("_js2py_pointsCallback")
    def _handler_js2py_pointsCallback(self, change: Mapping[str, Any]) -> None:
        message = change["new"]
        if not message:
            return
        points: Points = {}
        touched = message.get("points") or {}
        for trace, point in zip(touched.get("trace_indexes", ()), touched.get("point_indexes", ()), strict=True):
            points.setdefault(trace, []).append(point)
        self._js2py_pointsCallback = None
        if message["event_type"] == "plotly_click" and self._on_click and points:
            self._on_click(points)
        elif message["event_type"] == "plotly_selected" and self._on_select:
            self._on_select(points)
        elif message["event_type"] == "plotly_deselect" and self._on_select:
            self._on_select(None)


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], skip: set[str], whole: frozenset[str] | set[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, new value) of what differs between two plotly dictionaries; None for what is gone.

    Parameters
    ----------
    old, new : dict
    skip : set of str
        Keys left alone, at any depth.
    whole : set of str
        Keys whose values are replaced whole when anything in them differs.

    Examples
    --------
    >>> list(changes({"marker": {"size": 5, "color": "red"}}, {"marker": {"size": 5}}, skip=set()))
    [('marker.color', None)]
    """
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if key in skip:
            continue
        nested = [one for one in (before, after) if one is not None]
        if nested and all(isinstance(one, Mapping) for one in nested) and key not in whole:
            for path, value in changes(before or {}, after or {}, skip, whole):
                yield f"{key}.{path}", value
        elif not _same(before, after):
            yield key, after


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        if one is None or other is None:
            return False
        one, other = np.asarray(one), np.asarray(other)
        numeric = one.dtype.kind == other.dtype.kind == "f"
        return bool(np.array_equal(one, other, equal_nan=numeric))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        with contextlib.suppress(ValueError):  # of arrays among them
            # Hundreds of texts that stayed what they were, compared at once.
            if list(one) == list(other):
                return True
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
