"""A live plotly figure on the page: changed in place from Python, clicked and selected by the user."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.basedatatypes import Undefined
from plotly.offline import get_plotlyjs

from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.plotting import Figure, changes, configuration

_PLOTLY = Path(__file__).parent / "plotly.js"
# Points of a plot: {trace index: point numbers}.
Points = dict[int, list[int]]

# Layout keys that belong to the user (zoom, tool, hover mode): an update leaves them alone.
_USER_LAYOUT = {"range", "autorange", "dragmode", "hovermode"}
# The same for traces: a trace that was switched off in the legend stays off.
_USER_TRACE = {"visible"}
# Roles of traces that move over the points without changing the ranges of the axes.
_MARKS = ("cursor", "trail", "near")
# dtypes that have a typed array in JavaScript.
_TYPED = {"int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"}


class Plot(Figure, LiveWidget):
    """A plotly figure drawn by `plot.js`, which calls ``Plotly.react``.

    Set any property, as in plotly: ``plot.layout.title = "Loss"``. Only what changed is sent, and arrays that did not
    change are never sent again. A page that loads later, or was loaded again, gets the figure as it is now.

    Parameters
    ----------
    figure : plotly Figure
        What to show first.
    on_click : callable, optional
        Called with {trace index: point numbers} when a point is clicked; the cells of a heat map count row by row.
    on_select : callable, optional
        Called with {trace index: point numbers} after a lasso or a box, and with None when it is dismissed.
    on_key : callable, optional
        Called with the number of the class name clicked in the colour key, counted from the top. The figure's
        ``layout.meta["classes"]`` is the number of class names.
    """

    _esm = javascript(_PLOTLY, Path(__file__).parent / "plot.js")
    # Stores no value: `_state` builds the figure when a page asks for it.
    _figure = traitlets.Any().tag(sync=True, to_json=lambda value, plot: plot._state())
    _library = traitlets.Unicode().tag(sync=True)

    # Display the widget, not plotly's static figure.
    _repr_mimebundle_ = LiveWidget._repr_mimebundle_
    _repr_html_: Any = None
    _ipython_display_: Any = None
    _ready = False
    shown: tuple[int, int] | None = None
    """Width and height in pixels on the page that drew the figure last."""

    def __init__(
        self,
        figure: go.Figure,
        on_click: Callable[[Points], None] | None = None,
        on_select: Callable[[Points | None], None] | None = None,
        on_key: Callable[[int], None] | None = None,
    ) -> None:
        self._on_click, self._on_select, self._on_key = on_click, on_select, on_key
        # Keeps the numbers in order: Jupyter may handle widget messages in another thread than the cells'.
        self._lock = threading.RLock()
        # Counts updates, so that a page can tell whether it missed one.
        self._number = 0
        # What changed since the last message, {(trace index or None for the layout, path)}; None while not collecting.
        self._pending: dict[tuple[int | None, str], None] | None = None
        self._all_changed = False
        super().__init__(data=figure.data, layout=figure.layout)
        self._library = PlotlyLibrary.borrow().model_id
        self._ready = True
        self.open()

    def __repr__(self) -> str:
        return f"<Plot of {len(self.data)} traces>"

    def open(self) -> None:
        """Announce the figure to the page; plotly's constructor calls this before there is a figure to announce."""
        if self._ready:
            super().open()

    def close(self) -> None:
        """Take the figure off the page and out of memory."""
        if self._ready:
            self._ready = False
            PlotlyLibrary.give_back()
        super().close()

    def become(self, figure: go.Figure) -> None:
        """Update in place to match `figure`, sending only the differences.

        The reader's zoom and tool stay; only axes whose points have moved get the range of the new figure. Where the
        number or the kinds of the traces differ, all traces are replaced.
        """
        moved = set()
        with self.one_message():
            if [trace["type"] for trace in self._data] != [trace.type for trace in figure.data]:
                self.data = ()
                self.add_traces(figure.data)
                keys = {*self._layout, *figure.layout._props}
                moved = {key for key in keys if key.startswith(("xaxis", "yaxis"))}
            for i, trace in enumerate(figure.data):
                new = trace._props
                for path, value in changes(self._data[i], new, skip=_USER_TRACE, whole={"meta"}):
                    self.put(i, path, value)
                    if path in ("x", "y") and new.get("meta", {}).get("role") not in _MARKS:
                        moved |= {f"{axis}axis{new.get(f'{axis}axis', axis)[1:]}" for axis in "xy"}
            # plotly rejects the properties of an axis that does not exist yet, so a new axis is set whole.
            added = {key for key in figure.layout._props if "axis" in key and key not in self._layout}
            whole = {"template", "meta", *added}
            for path, value in changes(self._layout, figure.layout._props, skip=_USER_LAYOUT, whole=whole):
                self.put(None, path, value)
            for axis in moved:
                # Sent even if it is unchanged in Python: the page changes the range when it fits the axis.
                axis_range = (figure.layout._props.get(axis) or {}).get("range")
                self.put(None, f"{axis}.range", axis_range)
                self.put(None, f"{axis}.autorange", axis_range is None)

    def put(self, trace: int | None, path: str, value: Any) -> None:
        """Set a property of a trace, or with None of the layout, to a value that needs no check; None removes it.

        plotly checks every value that is assigned, which takes most of the time of a step of the cursor.
        """
        if isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and not all(map(_simple, value))):
            (self.layout if trace is None else self.data[trace])[path] = value
            return
        *above, key = path.split(".")
        part = self._layout if trace is None else self._data[trace]
        for name in above:
            part = part.setdefault(name, {})
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value
        self._note([(trace, path)])

    def points(self, touched: Points | None, *roles: str) -> list[tuple[int, int]]:
        """Return (trace, point) of the touched points, in traces whose ``meta["role"]`` is one of `roles`."""
        data: Any = self.data
        traces = [trace for trace in touched or {} if (data[trace].meta or {}).get("role") in roles]
        return [(trace, point) for trace in traces for point in (touched or {})[trace]]

    # -- to the page ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def one_message(self, view: str = "") -> Iterator[None]:
        """Collect all changes made inside, and send them in one message at the end.

        `view` names the view on the page that the changes came from, which has them already.
        """
        with self._lock:
            if self._pending is not None:
                yield
                return
            self._pending, self._all_changed = {}, False
            try:
                yield
            finally:
                pending, self._pending = self._pending, None
                if self._ready and (pending or self._all_changed):
                    self._number += 1
                    self._send_changes(list(pending), view)

    def _send_changes(self, pending: list[tuple[int | None, str]], view: str) -> None:
        if not self._heard:
            # A page that is still loading gets no messages, but it gets the state.
            self.send_state("_figure")
        elif self._all_changed:
            self._send_whole()
        else:
            buffers: list[bytes] = []
            edits = []
            for trace, path in pending:
                keys = [int(key) if key.isdigit() else key for key in re.findall(r"[^.\[\]]+", path)]
                value = _value(self._layout if trace is None else self._data[trace], keys)
                edits.append([trace, keys, _packed(value, buffers)])
            self.send({"kind": "edits", "number": self._number, "edits": edits, "view": view}, buffers)

    def _send_whole(self) -> None:
        state = self._state()
        buffers = state.pop("buffers")
        self.send({"kind": "figure", **state}, buffers)

    def _state(self) -> dict[str, Any]:
        """Return the present figure as JSON, with its arrays in `buffers`."""
        buffers: list[bytes] = []
        if not self._ready:
            return {}
        with self._lock:
            return {
                "number": self._number,
                "data": _packed(self._data, buffers),
                "layout": _packed(self._layout, buffers),
                "config": configuration(self, responsive=False),
                "buffers": buffers,
            }

    def _note(self, edits: Iterable[tuple[int | None, str]]) -> None:
        with self.one_message():
            assert self._pending is not None
            self._pending.update(dict.fromkeys(edits))

    # plotly calls the following methods at every change of the figure.

    def _send_restyle_msg(
        self, style: Mapping[str, Any], trace_indexes: Any = None, source_view_id: Any = None
    ) -> None:
        self._send_update_msg(style, {}, trace_indexes, source_view_id)

    def _send_relayout_msg(self, layout: Mapping[str, Any], source_view_id: Any = None) -> None:
        self._send_update_msg({}, layout, (), source_view_id)

    def _send_update_msg(
        self,
        restyle_data: Mapping[str, Any],
        relayout_data: Mapping[str, Any],
        trace_indexes: Any = None,
        source_view_id: Any = None,
    ) -> None:
        traces = self._normalize_trace_indexes(trace_indexes)
        edits: list[tuple[int | None, str]] = [(None, path) for path in relayout_data]
        for path, values in restyle_data.items():
            for i, trace in enumerate(traces):
                value = values[i % len(values)] if isinstance(values, list) and values else values
                if value is not Undefined:
                    edits.append((trace, path))
        self._note(edits)

    def _send_traces(self, *which: Any) -> None:
        with self.one_message():
            self._all_changed = True

    _send_addTraces_msg = _send_deleteTraces_msg = _send_moveTraces_msg = _send_traces

    def _started(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._heard = True
            if message["number"] != self._number:
                self._send_whole()

    # -- from the page ----------------------------------------------------------------------------------------------

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        kind = message.get("kind")
        if kind == "start":
            self._started(message)
        elif kind == "layout":
            with self.one_message(message["view"]):
                self.plotly_relayout(message["edits"])
        elif kind == "traces":
            with self.one_message(message["view"]):
                self.plotly_restyle(message["edits"], message["traces"])
        elif kind == "size":
            self.shown = message["width"], message["height"]
        elif kind == "click" and self._on_click:
            self._on_click(_points(message["points"]))
        elif kind == "key" and self._on_key:
            self._on_key(int(message["entry"]))
        elif kind == "select":
            try:
                if self._on_select:
                    self._on_select(None if message["points"] is None else _points(message["points"]))
            finally:
                # The page then removes the outline, which would override selections made elsewhere.
                self.send({"kind": "answered"})


def _simple(value: Any) -> bool:
    return isinstance(value, (str, int, float)) or value is None


def _points(pairs: Iterable[Sequence[int]]) -> Points:
    points: Points = {}
    for trace, point in pairs:
        points.setdefault(trace, []).append(point)
    return points


def _value(figure: Any, keys: Sequence[str | int]) -> Any:
    """Return the value at a path, or None if the path does not exist."""
    for key in keys:
        try:
            figure = figure[key]
        except (KeyError, IndexError, TypeError):
            return None
    return figure


def _packed(value: Any, buffers: list[bytes]) -> Any:
    """Convert values to JSON; numeric arrays are appended to `buffers` and replaced by their index there."""
    if isinstance(value, Mapping):
        return {key: _packed(item, buffers) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "iu" and value.dtype.itemsize == 8:
            # A 64-bit integer of JavaScript is a BigInt, not a number.
            fits = not value.size or (value.min() >= -(2**31) and value.max() < 2**31)
            value = value.astype(np.int32 if fits else np.float64)
        if value.dtype.name in _TYPED:
            buffers.append(value.tobytes())
            return {"buffer": len(buffers) - 1, "dtype": value.dtype.name, "shape": list(value.shape)}
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        # Most lists are thousands of hover texts.
        return [item if isinstance(item, str) else _packed(item, buffers) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class PlotlyLibrary(anywidget.AnyWidget):
    """Sends plotly.js (5 MB) to the page, once for all open `Plot` widgets; the page runs it as soon as it arrives."""

    _esm = javascript(_PLOTLY) + "\nexport default {initialize: ({model}) => { load(model).catch(() => {}); }};"
    text = traitlets.Unicode().tag(sync=True)
    # Kernels may bring different versions of plotly.js to one page.
    version = traitlets.Unicode().tag(sync=True)
    _shared: ClassVar[PlotlyLibrary | None] = None
    _users: ClassVar[int] = 0

    @classmethod
    def borrow(cls) -> PlotlyLibrary:
        """Return the library; give it back with `give_back`."""
        if cls._shared is None:
            text = get_plotlyjs()
            cls._shared = cls(text=text, version=hashlib.sha256(text.encode()).hexdigest()[:16])
        cls._users += 1
        return cls._shared

    @classmethod
    @contextlib.contextmanager
    def lent(cls) -> Iterator[None]:
        """Send the library now, and keep it until the block ends: what opens inside borrows it itself."""
        cls.borrow()
        try:
            yield
        finally:
            cls.give_back()

    @classmethod
    def give_back(cls) -> None:
        """Close the library when the last plot is closed."""
        cls._users -= 1
        if cls._users == 0 and cls._shared is not None:
            cls._shared.layout.close()
            cls._shared.close()
            cls._shared = None
