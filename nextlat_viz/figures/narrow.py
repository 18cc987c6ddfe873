"""Making a figure narrower than it was drawn: its headings are broken into lines, for which it grows upwards."""

from __future__ import annotations

import html
import re
from collections import Counter
from typing import Any

import plotly.graph_objects as go

# Of a letter's width in units of the font's size, on average and for bold text too.
_LETTER = 0.56
_LINE = 1.3
_GAP = 8  # pixels
# Size of the font of headings over lower views, which have no room above them, and pixels that a line of a key takes.
_SMALL, _KEY, _MARK = 10.0, 20, 44


def side_by_side(figure: go.Figure) -> int:
    """How many views stand beside each other at most.

    Examples
    --------
    >>> right = {"xaxis2": {"domain": [0.6, 1], "anchor": "y2"}, "yaxis2": {"anchor": "x2"}}
    >>> side_by_side(go.Figure(layout={"xaxis": {"domain": [0, 0.4]}, **right}))
    2
    """
    rows: Counter[tuple[float, ...]] = Counter()
    for name in figure.layout:
        if name.startswith("xaxis"):
            axis = figure.layout[name]
            beside = figure.layout[f"yaxis{(axis.anchor or 'y')[1:]}"]
            rows[tuple(round(float(edge), 3) for edge in beside.domain or (0, 1))] += 1
    return max(rows.values(), default=1)


def narrowed(figure: go.Figure, width: int) -> go.Figure:
    """Return a copy of a width in which no heading runs into the next one or out of the picture.

    Parameters
    ----------
    figure : plotly Figure
        Headings are annotations at a place of the whole picture (``xref="paper"``) that start there.
    width : int
        Pixels.

    Returns
    -------
    plotly Figure
        As much higher as its headings at the top and its notes at the bottom need more lines.

    Examples
    --------
    >>> note = {"text": "<b>a heading of</b> many words", "x": 0, "y": 1, "xref": "paper", "yref": "paper"}
    >>> note |= {"xanchor": "left", "yanchor": "bottom", "showarrow": False}
    >>> narrowed(go.Figure().update_layout(annotations=[note], margin={"l": 0, "r": 0}), 100).layout.annotations[0].text
    '<b>a heading of</b><br>many words'
    """
    fitted = go.Figure(figure)
    margin = {side: _margin(figure, side) for side in "lrtb"}
    inside = width - margin["l"] - margin["r"]
    notes = [note for note in fitted.layout.annotations if _is_heading(note)]
    above, headings, below = float(_KEY * (_key_lines(figure, inside) - 1)), 0.0, 0.0
    for note in notes:
        starts = [other.x for other in notes if abs(other.y - note.y) < 0.02 and other.x > note.x + 0.02]
        size = float(note.font.size or fitted.layout.font.size or 12)
        on_top = note.y > 0.98 - _LINE * size / 100
        lines = note.text.split("<br>")
        room = float((min([1.0, *starts]) - note.x) * inside - _GAP)
        broken = _broken_all(lines, room, size)
        if not on_top and len(broken) > len(lines):
            note.font.size = size = min(size, _SMALL)
            broken = _broken_all(lines, room, size)
        more = (len(broken) - len(lines)) * size * _LINE
        note.text = "<br>".join(broken)
        if note.yanchor == "bottom" and on_top:
            headings = max(headings, more)
        elif note.yanchor == "top" and note.y < 0.1:
            below = max(below, more)
    above += headings
    height = (fitted.layout.height or 450) + int(above + below)
    margin |= {"t": margin["t"] + int(above), "b": margin["b"] + int(below)}
    return fitted.update_layout(width=width, height=height, margin=margin)


def _key_lines(figure: go.Figure, inside: float) -> int:
    """Lines of a key that is a row at the top of the picture: its entries are all as wide as the widest."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    if figure.layout.legend.yref != "container" or not names:
        return 1
    widest = _MARK + _LETTER * 12 * max(len(html.unescape(name)) for name in names)
    return -(-len(names) // max(1, int(inside / widest)))


def _margin(figure: go.Figure, side: str) -> float:
    own = figure.layout.margin[side]
    base = figure.layout.template.layout.margin[side]
    return float(next((value for value in (own, base) if value is not None), 80))


def _is_heading(note: Any) -> bool:
    return note.xref == "paper" and note.xanchor == "left" and note.showarrow is False and not note.textangle


def _broken_all(lines: list[str], room: float, size: float) -> list[str]:
    return [part for line in lines for part in _broken(line, max(int(room / (_LETTER * size)), 8))]


def _broken(line: str, letters: int) -> list[str]:
    """A line of plotly's HTML in lines of so many letters, at its spaces."""
    lines: list[str] = []
    now = ""
    for word in line.split(" "):
        longer = f"{now} {word}" if now else word
        if now and len(html.unescape(re.sub("<[^>]*>", "", longer))) > letters:
            lines.append(now)
            now = word
        else:
            now = longer
    return [*lines, now]
