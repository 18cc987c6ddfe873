"""Check the arguments of a cloud and pack them for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LONGEST_LABEL, LONGEST_TITLE, LONGEST_NAME, LONGEST_LANDMARK = 400, 160, 80, 24
_MOST_COLORS = 256
_MOST_ENTRIES = 24


def checked_positions(positions: Any, n: int | None) -> np.ndarray:
    """Positions as float32; `n` is the number of rows where that is fixed."""
    try:
        if not isinstance(positions, Sequence) and not hasattr(positions, "__array__"):
            raise TypeError
        # Numbers too large for float32 become infinite, and the error below names them.
        with np.errstate(over="ignore"):
            places = np.ascontiguousarray(positions, dtype="<f4")
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


def packed_colors(codes: Any, palette: Sequence[str], n: int) -> dict[str, bytes]:
    """Pack codes and palette: a byte for each row, four for each of 256 colours."""
    given = np.asarray(codes)
    if given.shape != (n,) or given.dtype.kind not in "iub":
        raise ValueError(f"codes must be integers of shape ({n},), one per row, got {given.dtype} of {given.shape}")
    if not 1 <= len(palette) <= _MOST_COLORS:
        raise ValueError(f"palette must hold 1 to {_MOST_COLORS} colours, got {len(palette)}")
    if given.min() < 0 or given.max() >= len(palette):
        worst = given.min() if given.min() < 0 else given.max()
        raise ValueError(f"codes must be in 0..{len(palette) - 1}, the palette's colours, got {worst}")
    table = np.array([_rgba(color) for color in palette], dtype=np.uint8)
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


def packed_lines(lines: Sequence[Any]) -> bytes:
    """Pack polylines as float32, with a pair of NaN after each."""
    parts = []
    for line in lines:
        points = np.asarray(line, dtype="<f4")
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            raise ValueError(f"outline must hold polylines of shape (points, 2), finite, got {points.shape}")
        parts += [points, np.full((1, 2), np.nan, "<f4")]
    return np.concatenate(parts).tobytes() if parts else b""


def named_places(landmarks: Mapping[str, Any]) -> list[list[Any]]:
    """Pack landmarks: name, x, y."""
    return [[short(name, LONGEST_LANDMARK), *point("landmarks", place)] for name, place in landmarks.items()]


def point(name: str, value: Any) -> tuple[float, float]:
    """Two finite numbers."""
    try:
        x, y = (float(number) for number in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two numbers (x, y), got {value!r}") from None
    if not (np.isfinite(x) and np.isfinite(y)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return x, y


def entries(key: Mapping[str, str]) -> list[list[str]]:
    """Pack the key: at most 24 entries, each cut to a length."""
    packed = [[short(text, LONGEST_NAME), color] for text, color in key.items()]
    for _, color in packed:
        _rgba(color)
    more = len(packed) - _MOST_ENTRIES
    return [*packed[:_MOST_ENTRIES], [f"and {more:,} more", ""]] if more > 0 else packed


def short(text: object, most: int) -> str:
    """Text cut to a length; line breaks stay, because labels have several lines."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"
