"""A scatter plot of one to a few million points that sends only what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import ArrayLike
from traitlets import Bool, Bytes, List, Tuple, Unicode, validate
from traitlets import Float as Number
from traitlets import Int as Whole

from nextlat_viz.errors import at_least
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.plotting import CATEGORICAL, CURSOR
from nextlat_viz.worlds import checks

# The first type is the intended one; other array-likes are converted, or rejected with a clear error.
Positions: TypeAlias = Float[np.ndarray, "rows 2"] | ArrayLike
Codes: TypeAlias = UInt8[np.ndarray, " rows"] | ArrayLike
Rows: TypeAlias = Int[np.ndarray, " selected"] | ArrayLike
Labels: TypeAlias = Sequence[str] | Callable[[int], str]
Point: TypeAlias = Sequence[SupportsFloat] | np.ndarray

_HERE = Path(__file__).parent
_LONGEST_LABEL, _LONGEST_TITLE, _LONGEST_NAME, _LONGEST_LANDMARK = 400, 160, 80, 24
_MOST_COLORS = 256
_MOST_ENTRIES = 24


class Cloud(LiveWidget):
    """Points in a plane, coloured by a palette, that can be selected and clicked, with a cursor among them.

    Drag to select a box (with shift, add to the selection), click a point, press Move to pan and zoom, and Fit to show
    all points. Positions, codes, palette, selection and cursor are sent separately, each when it changes, and moving
    the cursor redraws no point. It draws with WebGL; in a browser without WebGL it draws on the CPU, and says so.

    With a `handle` there is a marker that can be dragged by mouse or touch, and moved by arrow keys (with shift,
    farther) or a click. While it is dragged, the page sends its place only after the kernel has answered the previous
    one, so that a slow kernel is not flooded. The last place is always sent.

    Parameters
    ----------
    positions : (rows, 2) array
        Coordinates, kept as float32. Both axes have one scale.
    codes : (rows,) uint8 array, optional
        Index of each row's colour in the palette; default the first.
    palette : sequence of str, optional
        Up to 256 colours as ``#rrggbb``.
    labels : sequence of str, or callable taking a row, optional
        Text shown when the mouse is over a point. The texts stay in the kernel; only the text to show is sent.
    key : {text: colour}, optional
        Shown below, up to 24 entries.
    title : str, optional
    on_select : callable taking an int array, optional
        Called with the rows selected by mouse; empty when the selection is dismissed.
    on_click : callable taking an int, optional
        Called with the row clicked.
    on_key : callable taking an int, optional
        Called with the number of the entry of the key that is clicked; without it the key is text.
    cursor : sequence of int, optional
        Rows on the path to the cursor; the last has a ring. The path fades towards the past; an arrow head shows its
        direction.
    height : int
        Height of the picture in pixels; it is as wide as its cell.
    handle : (float, float), optional
        Place of the marker in the coordinates of `positions`; need not be a point.
    on_move : callable taking two floats, optional
        Called with x and y while the user drags the handle; may set `handle` to another place.
    axes : (str, str), optional
        Titles of the axes, with their units; with titles, numbers are drawn along the edges.
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
    near : list of int
        Rows marked by small squares.
    handle : (float, float) or None
        Place of the marker; setting it moves the marker on the page, without a call of `on_move`.
    ring : (float, float) or None
        A place to mark, joined to the handle by a line.

    Raises
    ------
    ValueError
        Positions that are not (rows, 2) finite numbers, codes that do not fit them or the palette, unknown rows,
        colours not written #rrggbb, and places that are not two finite numbers.

    Examples
    --------
    >>> cloud = Cloud(np.array([[0.0, 1.0], [1.0, 0.5]]), codes=[0, 1], palette=["#0072B2", "#D55E00"])
    >>> cloud.select([1])
    >>> cloud.selection.tolist()
    [1]
    >>> cloud.cursor = [0, 1]
    >>> cloud.close()

    A marker that can only be dragged along the horizontal axis:

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
    near = List(Whole()).tag(sync=True)
    handle = Tuple(Number(), Number(), default_value=None, allow_none=True).tag(sync=True)
    ring = Tuple(Number(), Number(), default_value=None, allow_none=True).tag(sync=True)
    _outline = Bytes().tag(sync=True)
    _landmarks: Any = List().tag(sync=True)
    _axes: Any = List().tag(sync=True)
    _title = Unicode().tag(sync=True)
    _key: Any = List().tag(sync=True)
    _has_key_buttons = Bool().tag(sync=True)
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
        on_key: Callable[[int], None] | None = None,
        cursor: Sequence[int] = (),
        height: int = 420,
        handle: Point | None = None,
        on_move: Callable[[float, float], None] | None = None,
        axes: Sequence[str] | None = None,
        outline: Sequence[ArrayLike] = (),
        landmarks: Mapping[str, Point] | None = None,
    ) -> None:
        height = at_least("height", height, why="it is in pixels")
        places = _checked_positions(positions, None)
        self._n = len(places)
        if labels is not None and not callable(labels) and len(labels) != self._n:
            raise ValueError(f"labels must hold one text per row of positions: {self._n}, got {len(labels)}")
        if axes is not None and len(axes) != 2:
            raise ValueError(f"axes must be two titles, of x and of y, got {len(axes)}")
        self._labels, self._on_select, self._on_click, self._on_move = labels, on_select, on_click, on_move
        self._on_key = on_key
        self._colors = list(palette)
        places_named = [
            [_short(name, _LONGEST_LANDMARK), *_point("landmarks", place)] for name, place in (landmarks or {}).items()
        ]
        super().__init__(
            _places=places.tobytes(),
            _title=_short(title, _LONGEST_TITLE),
            _key=_entries(key or {}),
            _has_key_buttons=on_key is not None,
            _height=height,
            cursor=list(cursor),
            handle=None if handle is None else _point("handle", handle),
            _axes=[_short(title, _LONGEST_NAME) for title in axes or ()],
            _outline=_packed_lines(outline),
            _landmarks=places_named,
            **_packed_colors(np.zeros(self._n, np.uint8) if codes is None else codes, palette, self._n),
        )

    def __dir__(self) -> list[str]:
        own = ["close", "codes", "cursor", "handle", "move", "near", "palette", "positions", "recolor", "ring"]
        return [*own, "select", "selection"]

    def __repr__(self) -> str:
        return f"<Cloud of {self._n:,} points, {len(self.selection):,} selected>"

    @property
    def positions(self) -> Float[np.ndarray, "rows 2"]:
        """The coordinates of the points."""
        return np.frombuffer(self._places, "<f4").reshape(-1, 2)

    @property
    def codes(self) -> UInt8[np.ndarray, " rows"]:
        """The index of each row's colour in the palette."""
        return np.frombuffer(self._codes, np.uint8)

    @property
    def title(self) -> str:
        """The title above the points; can be set."""
        return self._title

    @title.setter
    def title(self, text: str) -> None:
        self.set_trait("_title", _short(text, _LONGEST_TITLE))

    @property
    def palette(self) -> list[str]:
        """The colours that the codes are indices of."""
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
        traits = {**_packed_colors(codes, colors, self._n), **({} if key is None else {"_key": _entries(key)})}
        self._colors = colors
        with self.hold_sync():
            for name, value in traits.items():
                self.set_trait(name, value)

    def move(self, positions: Positions) -> None:
        """Move the points, and show all of them; colours, selection and cursor stay.

        Raises
        ------
        ValueError
            For another number of points, or positions that are not finite numbers.
        """
        self.set_trait("_places", _checked_positions(positions, self._n).tobytes())

    def select(self, rows: Rows) -> None:
        """Select rows by number or by a mask; none for no selection. `on_select` is not called.

        Parameters
        ----------
        rows : integer array, or boolean array with one entry per row

        Raises
        ------
        ValueError
            For unknown rows, and a mask of another length.
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

    @validate("cursor", "near")
    def _known_rows(self, proposal: Any) -> list[int]:
        checks.row_numbers(proposal["trait"].name, proposal["value"], self._n)
        return list(proposal["value"])

    @validate("handle", "ring")
    def _somewhere(self, proposal: Any) -> tuple[float, float] | None:
        return None if proposal["value"] is None else _point(proposal["trait"].name, proposal["value"])

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Sequence[Any]) -> None:
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
        elif kind == "key" and self._on_key:
            self._on_key(int(message["entry"]))
        elif kind == "move":
            x, y = _point("handle", message["at"])
            try:
                with self.hold_sync():
                    self.handle = x, y
                    if self._on_move:
                        self._on_move(x, y)
            finally:
                # Answer even if the callback failed: the page waits for it before it sends the next place.
                self.send({"kind": "moved"})
        elif kind == "label" and self._labels is not None:
            row = int(message["row"])
            text = self._labels(row) if callable(self._labels) else self._labels[row]
            self.send({"kind": "label", "row": row, "text": _short(text, _LONGEST_LABEL)})


def _checked_positions(positions: Any, n: int | None) -> np.ndarray:
    """Check positions and return them as float32; `n` is the number of rows if it must not change."""
    try:
        if not isinstance(positions, Sequence) and not hasattr(positions, "__array__"):
            raise TypeError
        # Numbers too large for float32 become infinite, and the error below names them.
        with np.errstate(over="ignore"):
            places = np.ascontiguousarray(checks.array(positions), dtype="<f4")
    except (TypeError, ValueError):
        hint = "its .coordinates" if hasattr(positions, "coordinates") else "nlv.project(latents).coordinates"
        raise ValueError(
            f"positions must be numbers of shape (rows, 2), such as {hint}, got {type(positions).__name__}"
        ) from None
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"positions must have shape (rows, 2) with at least one row, got {places.shape}")
    if n is not None and len(places) != n:
        raise ValueError(f"positions must keep their {n:,} rows, got {len(places):,}: other points need a new Cloud")
    bad = np.flatnonzero(~np.isfinite(places).all(axis=1))
    if len(bad):
        raise ValueError(f"positions must be finite in float32: {len(bad):,} rows are not, row {bad[0]} first")
    return places


def _packed_colors(codes: Any, palette: Sequence[str], n: int) -> dict[str, bytes]:
    """Pack codes and palette: a byte for each row, four for each of 256 colours."""
    numbers = checks.array(codes)
    if numbers.shape != (n,) or numbers.dtype.kind not in "iub":
        raise ValueError(f"codes must be integers of shape ({n},), one per row, got {numbers.dtype} of {numbers.shape}")
    if not 1 <= len(palette) <= _MOST_COLORS:
        raise ValueError(f"palette must hold 1 to {_MOST_COLORS} colours, got {len(palette)}")
    if numbers.min() < 0 or numbers.max() >= len(palette):
        worst = numbers.min() if numbers.min() < 0 else numbers.max()
        raise ValueError(f"codes must be in 0..{len(palette) - 1}, the palette's colours, got {worst}")
    table = np.array([_rgba(color) for color in palette], dtype=np.uint8)
    table = np.concatenate([table, np.repeat(table[-1:], _MOST_COLORS - len(table), axis=0)])
    return {"_codes": numbers.astype(np.uint8).tobytes(), "_palette": table.tobytes()}


def _rgba(text: str) -> tuple[int, int, int, int]:
    try:
        if len(text) != 7 or text[0] != "#":
            raise ValueError
        value = int(text[1:], 16)
    except ValueError:
        raise ValueError(f"a colour must be written #rrggbb, got {text!r}") from None
    return value >> 16, value >> 8 & 255, value & 255, 255


def _packed_lines(lines: Sequence[Any]) -> bytes:
    """Pack polylines as float32, with a pair of NaN after each."""
    parts = []
    for line in lines:
        points = np.asarray(line, dtype="<f4")
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"outline must hold polylines of shape (points, 2), finite, got {points.shape}")
        parts += [points, np.full((1, 2), np.nan, "<f4")]
    return np.concatenate(parts).tobytes() if parts else b""


def _point(name: str, value: Any) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two numbers (x, y), got {value!r}") from None
    if not (np.isfinite(x) and np.isfinite(y)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return x, y


def _entries(key: Mapping[str, str]) -> list[list[str]]:
    """Pack the key: at most 24 entries, each cut to a length."""
    packed = [[_short(text, _LONGEST_NAME), color] for text, color in key.items()]
    for _, color in packed:
        _rgba(color)
    more = len(packed) - _MOST_ENTRIES
    return [*packed[:_MOST_ENTRIES], [f"and {more:,} more", ""]] if more > 0 else packed


def _short(text: object, most: int) -> str:
    """Cut a text to a length; keep line breaks, because labels have several lines."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"
