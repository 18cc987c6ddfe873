"""A scatter plot of one to a few million points that sends only what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import ArrayLike
from traitlets import Bytes, List, Tuple, Unicode, validate
from traitlets import Float as Number
from traitlets import Int as Whole

from nextlat_viz.errors import at_least
from nextlat_viz.notebook.cloud.checks import (
    LONGEST_LABEL,
    LONGEST_NAME,
    LONGEST_TITLE,
    checked_positions,
    entries,
    named_places,
    packed_colors,
    packed_lines,
    point,
    short,
)
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.plotting import CATEGORICAL, CURSOR
from nextlat_viz.worlds import checks

# The first type is the intended one; other array-likes are converted, or refused with an error of ours.
Positions: TypeAlias = Float[np.ndarray, "rows 2"] | ArrayLike
Codes: TypeAlias = UInt8[np.ndarray, " rows"] | ArrayLike
Rows: TypeAlias = Int[np.ndarray, " selected"] | ArrayLike
Labels: TypeAlias = Sequence[str] | Callable[[int], str]
Point: TypeAlias = Sequence[SupportsFloat] | np.ndarray

_HERE = Path(__file__).parent


class Cloud(LiveWidget):
    """Points in a plane, coloured by a palette, to select and to click, with a cursor that moves through them.

    Drag to select a box (with shift, add to the selection), click a point, press Move to pan and zoom, and Fit to show
    all points. Positions, codes, palette, selection and cursor are sent separately, each when it changes, and moving
    the cursor redraws no point. It draws with WebGL; in a browser without WebGL it draws on the CPU, and says so.

    With a `handle` there is a marker to drag by mouse, touch or arrow keys (with shift, farther); a click moves it too.
    While it is dragged its place is sent one at a time: the next after the kernel has answered the one before, so that
    a slow kernel is not flooded. The last place is always sent.

    Parameters
    ----------
    positions : (rows, 2) array
        Coordinates, kept as float32. Both axes have one scale.
    codes : (rows,) uint8 array, optional
        Which colour of the palette each row has; default the first.
    palette : sequence of str, optional
        Up to 256 colours as ``#rrggbb``.
    labels : sequence of str, or callable taking a row, optional
        What is shown when a point is pointed at. Stays in the kernel: only what is pointed at travels.
    key : {text: colour}, optional
        Shown below, up to 24 entries.
    title : str, optional
    on_select : callable taking an int array, optional
        Called with the rows selected with the mouse, empty when the selection is dismissed.
    on_click : callable taking an int, optional
        Called with the row clicked.
    cursor : sequence of int, optional
        Rows the cursor came through; the last has a ring.
    height : int
        Of the picture, in pixels; it is as wide as its cell.
    handle : (float, float), optional
        Where the marker is, in the coordinates of `positions`, free of any row.
    on_move : callable taking two floats, optional
        Called with x and y while the reader drags the handle; may set `handle` to where it shall be instead.
    axes : (str, str), optional
        Titles of the axes, with their units; numbers along the edges come with them.
    outline : sequence of (points, 2) arrays, optional
        Polylines drawn over the points, in their coordinates, such as a map.
    landmarks : {name: (x, y)}, optional
        Names drawn over the points, each a little outwards of its place.

    Attributes
    ----------
    positions : (rows, 2) float32 array
    codes : (rows,) uint8 array
    palette : list of str
    selection : int array
        The rows selected.
    cursor : list of int
    handle : (float, float) or None
        Where the marker is; setting it moves it on the page and calls nobody.
    ring : (float, float) or None
        A place that is marked, joined to the handle by a line.

    Raises
    ------
    ValueError
        Positions that are not (rows, 2) finite numbers, codes that do not fit them or the palette, rows that are not
        there, colours that are none, and places that are not two finite numbers.

    Examples
    --------
    >>> cloud = Cloud(np.array([[0.0, 1.0], [1.0, 0.5]]), codes=[0, 1], palette=["#0072B2", "#D55E00"])
    >>> cloud.select([1])
    >>> cloud.selection.tolist()
    [1]
    >>> cloud.cursor = [0, 1]
    >>> cloud.close()

    A marker that is dragged along the horizontal axis alone:

    >>> cloud = Cloud(np.zeros((1, 2)), handle=(0.5, 0.0), on_move=lambda x, y: setattr(cloud, "handle", (x, 0.0)))
    >>> cloud.handle
    (0.5, 0.0)
    >>> cloud.close()
    """

    _esm = javascript(*(_HERE / f"{part}.js" for part in ("points", "marks", "view")))
    _css = (_HERE / "cloud.css").read_text(encoding="utf-8")
    _places = Bytes().tag(sync=True)
    _codes = Bytes().tag(sync=True)
    _palette = Bytes().tag(sync=True)
    _selection = Bytes().tag(sync=True)
    cursor = List(Whole()).tag(sync=True)
    handle = Tuple(Number(), Number(), default_value=None, allow_none=True).tag(sync=True)
    ring = Tuple(Number(), Number(), default_value=None, allow_none=True).tag(sync=True)
    _outline = Bytes().tag(sync=True)
    _landmarks: Any = List().tag(sync=True)
    _axes: Any = List().tag(sync=True)
    _title = Unicode().tag(sync=True)
    _key: Any = List().tag(sync=True)
    _height = Whole().tag(sync=True)
    _cursor_color = Unicode(CURSOR).tag(sync=True)

    def __init__(
        self,
        positions: Positions,
        codes: Codes | None = None,
        palette: Sequence[str] = CATEGORICAL,
        labels: Labels | None = None,
        *,
        key: Mapping[str, str] | None = None,
        title: str = "",
        on_select: Callable[[np.ndarray], None] | None = None,
        on_click: Callable[[int], None] | None = None,
        cursor: Sequence[int] = (),
        height: int = 420,
        handle: Point | None = None,
        on_move: Callable[[float, float], None] | None = None,
        axes: Sequence[str] | None = None,
        outline: Sequence[ArrayLike] = (),
        landmarks: Mapping[str, Point] | None = None,
    ) -> None:
        height = at_least("height", height, why="it is in pixels")
        places = checked_positions(positions, None)
        self._n = len(places)
        if labels is not None and not callable(labels) and len(labels) != self._n:
            raise ValueError(f"labels must hold one text per row of positions: {self._n}, got {len(labels)}")
        if axes is not None and len(axes) != 2:
            raise ValueError(f"axes must be two titles, of x and of y, got {len(axes)}")
        self._labels, self._on_select, self._on_click, self._on_move = labels, on_select, on_click, on_move
        self._colors = list(palette)
        given = np.zeros(self._n, np.uint8) if codes is None else codes
        super().__init__(
            _places=places.tobytes(),
            _dom_classes=["nlv-cloud"],
            _title=short(title, LONGEST_TITLE),
            _key=entries(key or {}),
            _height=height,
            cursor=list(cursor),
            handle=None if handle is None else point("handle", handle),
            _axes=[short(title, LONGEST_NAME) for title in axes or ()],
            _outline=packed_lines(outline),
            _landmarks=named_places(landmarks or {}),
            **packed_colors(given, palette, self._n),
        )

    def __dir__(self) -> list[str]:
        own = ["close", "codes", "cursor", "handle", "move", "palette", "positions", "recolor", "ring"]
        return [*own, "select", "selection"]

    def __repr__(self) -> str:
        return f"<Cloud of {self._n:,} points, {len(self.selection):,} selected>"

    @property
    def positions(self) -> Float[np.ndarray, "rows 2"]:
        """Where the points are."""
        return np.frombuffer(self._places, "<f4").reshape(-1, 2)

    @property
    def codes(self) -> UInt8[np.ndarray, " rows"]:
        """Which colour of the palette each row has."""
        return np.frombuffer(self._codes, np.uint8)

    @property
    def title(self) -> str:
        """What stands above the points; can be set."""
        return self._title

    @title.setter
    def title(self, text: str) -> None:
        self.set_trait("_title", short(text, LONGEST_TITLE))

    @property
    def palette(self) -> list[str]:
        """The colours that codes are numbers of."""
        return list(self._colors)

    @property
    def selection(self) -> Int[np.ndarray, " selected"]:
        """The rows selected, in order."""
        return np.flatnonzero(np.unpackbits(np.frombuffer(self._selection, np.uint8), bitorder="little"))

    def recolor(self, codes: Codes, palette: Sequence[str] | None = None, key: Mapping[str, str] | None = None) -> None:
        """Change the colours of the points.

        Parameters
        ----------
        codes : (rows,) uint8 array
        palette : sequence of str, optional
            Default no change.
        key : {text: colour}, optional
            Default no change.

        Raises
        ------
        ValueError
            For codes or colours that do not fit; the cloud then stays as it was.
        """
        colors = self._colors if palette is None else list(palette)
        painted, listed = packed_colors(codes, colors, self._n), None if key is None else entries(key)
        self._colors = colors
        with self.hold_sync():
            self.set_trait("_codes", painted["_codes"])
            self.set_trait("_palette", painted["_palette"])
            if listed is not None:
                self.set_trait("_key", listed)

    def move(self, positions: Positions) -> None:
        """Move the points, and show all of them; colours, selection and cursor stay.

        Raises
        ------
        ValueError
            For another number of points, or places that are no numbers.
        """
        self.set_trait("_places", checked_positions(positions, self._n).tobytes())

    def select(self, rows: Rows) -> None:
        """Select rows by number or by a mask; none for no selection. `on_select` is not called.

        Parameters
        ----------
        rows : integer array, or boolean array with one entry per row

        Raises
        ------
        ValueError
            For rows that are not there, and a mask of another length.
        """
        chosen = checks.row_numbers("rows", rows, self._n)
        mask = np.zeros(self._n, bool)
        mask[chosen] = True
        self.set_trait("_selection", np.packbits(mask, bitorder="little").tobytes() if len(chosen) else b"")

    def close(self) -> None:
        """Take the cloud off the page and out of memory."""
        if self.comm is not None:
            self.layout.close()
        super().close()

    @validate("cursor")
    def _known_rows(self, proposal: Any) -> list[int]:
        checks.row_numbers("cursor", proposal["value"], self._n)
        return list(proposal["value"])

    @validate("handle", "ring")
    def _somewhere(self, proposal: Any) -> tuple[float, float] | None:
        return None if proposal["value"] is None else point(proposal["trait"].name, proposal["value"])

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Answer the mouse."""
        kind = message.get("kind")
        if kind == "start":
            self._started(message)
        elif kind == "select":
            bits = bytes(buffers[0])
            self.set_trait("_selection", bits if any(bits) else b"")
            if self._on_select:
                self._on_select(self.selection)
        elif kind == "click" and self._on_click:
            self._on_click(int(message["row"]))
        elif kind == "move":
            x, y = point("handle", message["at"])
            try:
                with self.hold_sync():
                    self.handle = x, y
                    if self._on_move:
                        self._on_move(x, y)
            finally:
                # The page sends the next place after this answer, also where the callback has failed.
                self.send({"kind": "moved"})
        elif kind == "label" and self._labels is not None:
            row = int(message["row"])
            text = self._labels(row) if callable(self._labels) else self._labels[row]
            self.send({"kind": "label", "row": row, "text": short(text, LONGEST_LABEL)})
