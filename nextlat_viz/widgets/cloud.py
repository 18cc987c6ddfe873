"""One cloud of one to a few million points, which sends only what changed and draws again only what must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import anywidget
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import ArrayLike
from traitlets import Bytes, List, Unicode, validate
from traitlets import Int as Whole

from nextlat_viz.figures.theme import CATEGORICAL, CURSOR

# The first is what is meant; anything else array-like is let through to one error that says so in words.
Positions: TypeAlias = Float[np.ndarray, "rows 2"] | ArrayLike
Codes: TypeAlias = UInt8[np.ndarray, " rows"] | ArrayLike
Rows: TypeAlias = Int[np.ndarray, " selected"] | ArrayLike
Labels: TypeAlias = Sequence[str] | Callable[[int], str]

_HERE = Path(__file__).parent
_MOST_COLORS = 256
_MOST_ENTRIES = 24
_LONGEST_LABEL, _LONGEST_NAME = 400, 80


class Cloud(anywidget.AnyWidget):
    """Points in a plane, coloured by a palette, to select, click and follow a cursor through.

    Drag to select a box (with shift, add to what is selected), click a point, press Move to drag and zoom, and Fit
    for the whole. Positions, codes, palette, selection and cursor travel each by itself: nothing is sent again that
    did not change, and a step of the cursor draws no point again. It draws by WebGL; where a browser has none it
    draws without, and says so.

    Parameters
    ----------
    positions : (rows, 2) array
        Where the points are, kept as float32. Both axes have one scale.
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

    Attributes
    ----------
    positions : (rows, 2) float32 array
    codes : (rows,) uint8 array
    palette : list of str
    selection : int array
        The rows selected.
    cursor : list of int

    Raises
    ------
    ValueError
        Positions that are not (rows, 2) finite numbers, codes that do not fit them or the palette, rows that are not
        there, and colours that are none.

    Examples
    --------
    >>> cloud = Cloud(np.array([[0.0, 1.0], [1.0, 0.5]]), codes=[0, 1], palette=["#0072B2", "#D55E00"])
    >>> cloud.select([1])
    >>> cloud.selection.tolist()
    [1]
    >>> cloud.cursor = [0, 1]
    >>> cloud.close()
    """

    _esm = "".join((_HERE / f"cloud_{part}.js").read_text(encoding="utf-8") for part in ("points", "view"))
    _css = (_HERE / "cloud.css").read_text(encoding="utf-8")
    _places = Bytes().tag(sync=True)
    _codes = Bytes().tag(sync=True)
    _palette = Bytes().tag(sync=True)
    _selection = Bytes().tag(sync=True)
    cursor = List(Whole()).tag(sync=True)
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
    ) -> None:
        if height < 1:
            raise ValueError(f"height must be pixels, at least 1, got {height}")
        places = _checked_positions(positions, None)
        self._n = len(places)
        if labels is not None and not callable(labels) and len(labels) != self._n:
            raise ValueError(f"labels must hold one text per row of positions: {self._n}, got {len(labels)}")
        self._labels, self._on_select, self._on_click = labels, on_select, on_click
        self._colors = list(palette)
        given = np.zeros(self._n, np.uint8) if codes is None else codes
        super().__init__(
            _places=places.tobytes(),
            _title=_short(title, _LONGEST_NAME),
            _key=_entries(key or {}),
            _height=height,
            cursor=list(cursor),
            **_paint(given, palette, self._n),
        )
        self.add_class("nlv-cloud")
        self.on_msg(self._hear)

    def __dir__(self) -> list[str]:
        return ["close", "codes", "cursor", "move", "palette", "positions", "recolor", "select", "selection"]

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
    def palette(self) -> list[str]:
        """The colours that codes are numbers of."""
        return list(self._colors)

    @property
    def selection(self) -> Int[np.ndarray, " selected"]:
        """The rows selected, in order."""
        return np.flatnonzero(np.unpackbits(np.frombuffer(self._selection, np.uint8), bitorder="little"))

    def recolor(self, codes: Codes, palette: Sequence[str] | None = None, key: Mapping[str, str] | None = None) -> None:
        """Colour the points otherwise: a byte for each travels, and the palette where one is given.

        Parameters
        ----------
        codes : (rows,) uint8 array
        palette : sequence of str, optional
            Default the present one.
        key : {text: colour}, optional
            Default the present one.

        Raises
        ------
        ValueError
            For codes or colours that do not fit; the cloud then stays as it was.
        """
        colors = self._colors if palette is None else list(palette)
        painted, entries = _paint(codes, colors, self._n), None if key is None else _entries(key)
        self._colors = colors
        with self.hold_sync():
            self.set_trait("_codes", painted["_codes"])
            self.set_trait("_palette", painted["_palette"])
            if entries is not None:
                self.set_trait("_key", entries)

    def move(self, positions: Positions) -> None:
        """Put the same points elsewhere, all of them in view; colours, selection and cursor stay theirs.

        Raises
        ------
        ValueError
            For another number of points, or places that are no numbers.
        """
        self.set_trait("_places", _checked_positions(positions, self._n).tobytes())

    def select(self, rows: Rows) -> None:
        """Select rows by number; none for no selection. `on_select` is for the mouse and is not called.

        Raises
        ------
        ValueError
            For rows that are not there.
        """
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        _check_rows("rows", chosen, self._n)
        mask = np.zeros(self._n, bool)
        mask[chosen] = True
        self.set_trait("_selection", np.packbits(mask, bitorder="little").tobytes() if len(chosen) else b"")

    @validate("cursor")
    def _known_rows(self, proposal: Any) -> list[int]:
        _check_rows("cursor", np.asarray(proposal["value"], dtype=np.int64), self._n)
        return list(proposal["value"])

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Answer the mouse."""
        kind = message.get("kind")
        if kind == "select":
            bits = bytes(buffers[0])
            self.set_trait("_selection", bits if any(bits) else b"")
            if self._on_select:
                self._on_select(self.selection)
        elif kind == "click" and self._on_click:
            self._on_click(int(message["row"]))
        elif kind == "label" and self._labels is not None:
            row = int(message["row"])
            text = self._labels(row) if callable(self._labels) else self._labels[row]
            self.send({"kind": "label", "row": row, "text": _short(text, _LONGEST_LABEL)})


def _checked_positions(positions: Any, n: int | None) -> np.ndarray:
    # What is too large becomes infinite, which is refused below in words.
    with np.errstate(over="ignore"):
        places = np.ascontiguousarray(positions, dtype="<f4")
    if places.ndim != 2 or places.shape[1] != 2 or not len(places):
        raise ValueError(f"positions must have shape (rows, 2) with at least one row, got {places.shape}")
    if n is not None and len(places) != n:
        raise ValueError(f"positions must keep their {n:,} rows, got {len(places):,}: other points need a new Cloud")
    bad = np.flatnonzero(~np.isfinite(places).all(axis=1))
    if len(bad):
        raise ValueError(f"positions must be finite in float32: {len(bad):,} rows are not, row {bad[0]} first")
    return places


def _paint(codes: Any, palette: Sequence[str], n: int) -> dict[str, bytes]:
    given = np.asarray(codes)
    if given.shape != (n,) or given.dtype.kind not in "iub":
        raise ValueError(f"codes must be integers of shape ({n},), one per row, got {given.dtype} of {given.shape}")
    if not 1 <= len(palette) <= _MOST_COLORS:
        raise ValueError(f"palette must hold 1 to {_MOST_COLORS} colours, got {len(palette)}")
    if given.min() < 0 or given.max() >= len(palette):
        worst = given.min() if given.min() < 0 else given.max()
        raise ValueError(f"codes must be in 0..{len(palette) - 1}, the palette's colours, got {worst}")
    table = np.array([_rgba(one) for one in palette], dtype=np.uint8)
    table = np.concatenate([table, np.repeat(table[-1:], _MOST_COLORS - len(table), axis=0)])
    return {"_codes": given.astype(np.uint8).tobytes(), "_palette": table.tobytes()}


def _rgba(text: str) -> tuple[int, int, int, int]:
    try:
        if len(text) != 7 or text[0] != "#":
            raise ValueError
        value = int(text[1:], 16)
    except ValueError:
        raise ValueError(f"a colour must be written #rrggbb, got {text!r}") from None
    return value >> 16, value >> 8 & 255, value & 255, 255


def _check_rows(name: str, rows: np.ndarray, n: int) -> None:
    outside = rows[(rows < 0) | (rows >= n)]
    if len(outside):
        raise ValueError(f"{name} must be row numbers in 0..{n - 1}, got {outside[0]}")


def _entries(key: Mapping[str, str]) -> list[list[str]]:
    entries = [[_short(text, _LONGEST_NAME), color] for text, color in key.items()]
    for _, color in entries:
        _rgba(color)
    more = len(entries) - _MOST_ENTRIES
    return [*entries[:_MOST_ENTRIES], [f"and {more:,} more", ""]] if more > 0 else entries


def _short(text: object, most: int) -> str:
    said = str(text)
    return said if len(said) <= most else f"{said[: most - 1]}…"
