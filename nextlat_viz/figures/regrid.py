"""Lay out the views of a figure again for another width: smaller, in more rows, with room for their texts."""

from __future__ import annotations

import itertools
import re
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.figures.layout import GAP, broken_lines, column_domains, margins

_PAGE = 900  # width in pixels of a figure that has none set
_LINE, _AXIS = 15, 34  # pixels of a line of a heading, and below a view
_EDGE = 1e-3
# Least and greatest height of a view as a share of its width, also for planes, whose axes have one scale.
_FLATTEST, _TALLEST = 0.45, 1.1
# Greatest height of a view of bars as a share of its width, unless that is less than these pixels.
_BARS, _LEAST_BARS = 0.55, 150
# In a smaller view, the marks of a trace with more points than this get smaller.
_MANY = 200
ABOVE = 5
"""Pixels above the highest heading."""
_LETTER = 6.2  # pixels of a letter at an axis
# Pixels: by which the title of an axis may be wider than its view; between names at which turning them by 30° suffices.
_ASIDE, _SLANTED = 12, 30


class _View(NamedTuple):
    """The number of a view's axes, and its horizontal and vertical domain."""

    number: str
    across: tuple[float, float]
    up: tuple[float, float]


def regridded(figure: go.Figure, most: int, room: int, height: int | None = None) -> go.Figure:
    """Return a copy `room` pixels wide, with at most `most` views in a row.

    Views keep their proportions within limits, or get a `height`; texts keep their size and distance to their view.
    Free space above the first row and below the last becomes a margin.

    Examples
    --------
    >>> right = {"xaxis2": {"domain": [0.6, 1], "anchor": "y2"}, "yaxis2": {"anchor": "x2", "domain": [0, 1]}}
    >>> wide = go.Figure(layout={"xaxis": {"domain": [0, 0.4]}, "yaxis": {"domain": [0, 1]}, "height": 300, **right})
    >>> first, second = (axis.domain for axis in regridded(wide, 1, 300).select_yaxes())
    >>> first[0] > second[1]
    True
    """
    views, new, margin = _views(figure), go.Figure(figure), margins(figure)
    inside = (figure.layout.height or 450) - margin["t"] - margin["b"]
    across = (figure.layout.width or _PAGE) - margin["l"] - margin["r"]
    rows = _rows(views)
    if not _names_fit(figure, rows, room - margin["l"] - margin["r"]):
        most = 1
    # A view as high as several beside it.
    nested = any(upper[0].up[0] < lower[0].up[1] - _EDGE for upper, lower in itertools.pairwise(rows))
    if nested or any(len(row) > most for row in rows):
        # Make room for the numbers at the axes of views that move to the first column.
        margin["l"] += max(min(view.across[0] for view in views) * across, _AXIS)
        margin["r"] += (1 - max(view.across[1] for view in views)) * across
    sides = margin["l"] + margin["r"]
    if not views:
        share = min(max(inside / max(across, 1), _FLATTEST), _TALLEST) * max(room - sides, 1)
        return new.update_layout(width=room, height=round((height or share) + margin["t"] + margin["b"]))
    top, low = (1 - rows[0][0].up[1]) * inside, min(view.up[0] for view in views) * inside
    # A row of too many views becomes several rows, with room for a heading and an axis between them.
    lines = [item.text.count("<br>") + 1 for item in new.layout.annotations if _is_heading(item, views)]
    between = max(_AXIS, low) + _LINE * max(lines, default=0) + 8
    gaps = [(upper[0].up[0] - lower[0].up[1]) * inside for upper, lower in itertools.pairwise(rows)]
    if nested:
        rows = [[view] for view in sorted(views, key=lambda view: (view.across[0], -view.up[1]))]
        gaps = [between] * (len(rows) - 1)
        top = (1 - rows[0][0].up[1]) * inside
    places: list[tuple[_View, list[float], float, float]] = []  # view, across, top and height in pixels
    start = 0.0
    for i, row in enumerate(rows):
        parts = -(-len(row) // most)
        split = parts > 1 or nested
        columns = column_domains(-(-len(row) // parts), GAP * 1.5)
        # Narrower headings take more lines. Those of the first row are in the margin.
        gained = _LINE * max(
            _lines_gained(new, view, (columns[0][1] if split else view.across[1] - view.across[0]) * (room - sides))
            for view in row
        )
        start += gained if i else 0.0
        between_parts = between + gained
        drawn, tallest = [], 0.0
        for j, view in enumerate(row):
            part, column = divmod(j, len(columns))
            place = columns[column] if split else list(view.across)
            wide = (place[1] - place[0]) * max(room - sides, 1)
            shape = (view.up[1] - view.up[0]) * inside / max((view.across[1] - view.across[0]) * across, 1)
            high = height or min(max(_plane_shape(figure, view) or shape, _FLATTEST), _TALLEST) * wide
            if height is None and _has_bars(figure, view):
                high = min(high, max(_BARS * wide, _LEAST_BARS))
            _shrink_marks(new, view, wide / max((view.across[1] - view.across[0]) * across, 1))
            drawn.append((view, place, part))
            tallest = max(tallest, high)
        places += [(view, place, start + part * (tallest + between_parts), tallest) for view, place, part in drawn]
        start += parts * tallest + (parts - 1) * between_parts + (gaps[i] if i < len(gaps) else 0.0)
    moved = []
    for view, place, above, high in places:
        up = [max(1 - (above + high) / start, 0.0), 1 - above / start]
        new.layout[f"xaxis{view.number}"].domain, new.layout[f"yaxis{view.number}"].domain = place, up
        moved.append((view, place, up))
    for item in new.layout.annotations:
        if item.xref == item.yref == "paper":
            _move(item, moved, inside / start)
    top, low = margin["t"] + top, margin["b"] + low
    return new.update_layout(width=room, height=round(start + top + low), margin={**margin, "t": top, "b": low})


def _names_fit(figure: go.Figure, rows: list[list[_View]], inside: float) -> bool:
    """Whether the tick labels of each view fit into the gap between it and the view on its left."""
    for left, right in itertools.chain(*map(itertools.pairwise, rows)):
        axis = figure.layout[f"yaxis{right.number}"]
        shown = axis.visible is not False and axis.showticklabels is not False
        names = _names(figure, axis, f"y{right.number}") if shown else []
        if _LETTER * max(map(len, names), default=0) > (right.across[0] - left.across[1]) * inside:
            return False
    return True


def _lines_gained(figure: go.Figure, view: _View, wide: float) -> int:
    """Return by how many lines the heading of a view grows when the view is `wide` pixels wide."""
    headings = [
        item.text.split("<br>") for item in figure.layout.annotations
        if _is_heading(item, [view]) and view.across[0] - _EDGE <= item.x < view.across[1]
    ]  # fmt: skip
    return max((len(broken_lines(lines, wide - 8, 11)) - len(lines) for lines in headings), default=0)


def _plane_shape(figure: go.Figure, view: _View) -> float | None:
    """Return height / width of what a view with one scale for both axes shows; None for other views."""
    x, y = figure.layout[f"xaxis{view.number}"], figure.layout[f"yaxis{view.number}"]
    if not y.scaleanchor:
        return None
    across, up = (_extent(figure, axis, f"{letter}{view.number}") for axis, letter in ((x, "x"), (y, "y")))
    return up / across if up and across else None


def _has_bars(figure: go.Figure, view: _View) -> bool:
    """Whether a view shows upright bars."""
    return any(trace.type == "bar" and trace.orientation != "h" for trace in _traces(figure, f"x{view.number}"))


def _extent(figure: go.Figure, axis: Any, name: str) -> float:
    """Return the length of an axis' range, or the extent of its data if plotly chooses the range."""
    if axis.range is not None:
        return abs(float(axis.range[1] - axis.range[0]))
    drawn = [trace[name[0]] for trace in _traces(figure, name) if trace[name[0]] is not None]
    values = np.concatenate([np.zeros(0), *(np.array(part, dtype=float) for part in drawn)])
    return float(np.nanmax(values) - np.nanmin(values)) if np.isfinite(values).any() else 0.0


def _shrink_marks(figure: go.Figure, view: _View, share: float) -> None:
    """Draw many points smaller in a smaller view, so that they stay as distinct."""
    for trace in _traces(figure, f"x{view.number}") if share < 1 else ():
        if "mode" in trace and trace.marker.size is not None and np.size(trace.x) > _MANY:
            trace.marker.size = max(share, 0.25) ** 0.5 * np.array(trace.marker.size, dtype=float)


def room_above(figure: go.Figure) -> float:
    """Return the pixels that the headings of the first row take."""
    margin, needed = margins(figure), 0.0
    inside = (figure.layout.height or 450) - margin["t"] - margin["b"]
    for item in figure.layout.annotations:
        if item.xref == item.yref == "paper" and item.yanchor == "bottom" and not item.textangle:
            high = 1.3 * (item.font.size or 12) * (item.text.count("<br>") + 1)
            needed = max(needed, (item.y - 1) * inside + (item.yshift or 0) + high)
    return needed


def trim(figure: go.Figure) -> None:
    """Give the headings and the lowest axes the room they need, and drop the room of a removed legend."""
    margin = margins(figure)
    across = (figure.layout.width or _PAGE) - margin["l"] - margin["r"]
    left = max(_fit_left(figure, across, (figure.layout.height or 450) - margin["t"] - margin["b"]), margin["l"])
    for item in figure.layout.annotations:
        if item.xref == "paper" and item.xshift == 4 - margin["l"]:
            # At the left edge.
            item.xshift = 4 - left
    figure.layout.margin.l = left
    _fit_axes(figure, (figure.layout.width or _PAGE) - left - margin["r"])
    top = min(room_above(figure) + ABOVE, margin["t"])
    low = _room_below(figure)
    height = (figure.layout.height or 450) - (margin["t"] - top) - (margin["b"] - low)
    figure.update_layout(height=height, margin_t=top, margin_b=low)


def _fit_axes(figure: go.Figure, inside: float) -> None:
    """Break the titles of the lowest axes, and turn their names if they do not fit side by side."""
    for view in _views(figure) or [_View("", (0.0, 1.0), (0.0, 1.0))]:
        axis, wide = figure.layout[f"xaxis{view.number}"], (view.across[1] - view.across[0]) * inside
        if view.up[0] > 0.05 or axis.visible is False:
            continue
        if axis.title.text:
            axis.title.text = "<br>".join(broken_lines([axis.title.text], wide + _ASIDE, 11))
        names = _names(figure, axis, f"x{view.number}")
        if names and axis.tickangle is None and _LETTER * max(map(len, names)) > wide / len(names):
            axis.tickangle = 30 if wide / len(names) >= _SLANTED else 90


def _fit_left(figure: go.Figure, across: float, inside: float) -> float:
    """Break titles of vertical axes that are longer than their view; return the margin that the first axes need."""
    views, needed = _views(figure) or [_View("", (0.0, 1.0), (0.0, 1.0))], 0.0
    first = min(view.across[0] for view in views)
    for view in views:
        axis, wide = figure.layout[f"yaxis{view.number}"], 0.0
        if axis.visible is False:
            continue
        if axis.showticklabels is not False:
            wide = _LETTER * max(map(len, _names(figure, axis, f"y{view.number}")), default=4) + 10
        if axis.title.text:
            lines = broken_lines([axis.title.text], (view.up[1] - view.up[0]) * inside + _ASIDE, 12)
            axis.title.text = "<br>".join(lines)
            wide += _LINE * len(lines) + 4
        if view.across[0] < first + 0.05:
            needed = max(needed, wide - view.across[0] * across)
    return needed


def _room_below(figure: go.Figure) -> float:
    """Return the pixels that the axes of the last row and the notes below them need."""
    needed = 4.0
    for item in figure.layout.annotations:
        if item.yref == "paper" and item.yanchor == "top" and (item.y or 0) < 0.1:
            needed = max(needed, 15 * (item.text.count("<br>") + 1) - (item.yshift or 0) + 4)
    for view in _views(figure) or [_View("", (0.0, 1.0), (0.0, 1.0))]:
        axis = figure.layout[f"xaxis{view.number}"]
        if view.up[0] > 0.05 or axis.visible is False:
            continue
        high = 4.0 + 14 * (axis.title.text.count("<br>") + 1) if axis.title.text else 0.0
        if axis.showticklabels is not False:
            names = _names(figure, axis, f"x{view.number}")
            turn = abs(np.sin(np.radians(axis.tickangle or 0)))
            high += 20 + turn * (_LETTER * max(map(len, names), default=0) + 16)
        needed = max(needed, high + 4)
    return needed


def _names(figure: go.Figure, axis: Any, name: str) -> list[str]:
    """Return the names at an axis of categories, such as x2."""
    if axis.ticktext is not None:
        return [re.sub("<[^>]*>", "", str(text)) for text in axis.ticktext]
    drawn = (trace[name[0]] for trace in _traces(figure, name) if trace[name[0]] is not None)
    return list(dict.fromkeys(str(text) for texts in drawn for text in texts if isinstance(text, str)))


def _traces(figure: go.Figure, axis: str) -> list[Any]:
    """Return the traces on an axis, such as x2."""
    return [
        trace for trace in figure.data if (getattr(trace, f"{axis[0]}axis", "") or axis[0]) == axis and axis[0] in trace
    ]


def _views(figure: go.Figure) -> list[_View]:
    """Return the views, from the top left; none if views share axes, because they cannot be moved separately."""
    views = []
    names = {f"{name[0]}{name[5:]}" for name in figure.layout if name[:5] in ("xaxis", "yaxis")} | {"x", "y"}
    for number in sorted((name[1:] for name in names if name[0] == "x"), key=lambda number: int(number or 1)):
        x, y = figure.layout[f"xaxis{number}"], figure.layout[f"yaxis{number}"] if f"y{number}" in names else None
        if y is None or x.overlaying or y.overlaying or (x.anchor or f"y{number}") != f"y{number}":
            return []
        views.append(_View(number, tuple(x.domain or (0.0, 1.0)), tuple(y.domain or (0.0, 1.0))))
    if any(name[0] == "y" and f"x{name[1:]}" not in names for name in names):
        return []
    return sorted(views, key=lambda view: (-round(view.up[1], 2), view.across))


def _rows(views: list[_View]) -> list[list[_View]]:
    rows: list[list[_View]] = []
    for view in views:
        if rows and abs(rows[-1][0].up[1] - view.up[1]) < 0.02:
            rows[-1].append(view)
        else:
            rows.append([view])
    return rows


def _is_heading(item: Any, views: list[_View]) -> bool:
    paper = item.xref == item.yref == "paper" and item.yanchor == "bottom"
    return paper and any(abs(item.y - view.up[1]) < 0.01 for view in views)


def _move(item: Any, moved: list[tuple[_View, list[float], list[float]]], share: float) -> None:
    """Move a note with its view: the nearest one, preferably one that the note is not left of."""

    def distance(entry: tuple[_View, list[float], list[float]]) -> float:
        view = entry[0]
        aside = max(view.across[0] - item.x - _EDGE, 0.0) * 3 + max(item.x - view.across[1], 0.0)
        return aside + max(item.y - view.up[1], view.up[0] - item.y, 0.0)

    view, place, up = min(moved, key=distance)
    old = view.across
    item.x = place[0] + (item.x - old[0]) / (old[1] - old[0]) * (place[1] - place[0])
    if item.y >= view.up[1] - _EDGE:
        item.y = up[1] + (item.y - view.up[1]) * share
    elif item.y <= view.up[0] + _EDGE:
        item.y = up[0] + (item.y - view.up[0]) * share
    else:
        item.y = up[0] + (item.y - view.up[0]) / (view.up[1] - view.up[0]) * (up[1] - up[0])
