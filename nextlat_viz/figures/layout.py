"""Layout of the views of a figure: axes, headings and legends, and a narrower copy of a whole figure."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import plotly.graph_objects as go

from nextlat_viz.display import LONGEST, escape, shorten
from nextlat_viz.errors import one_of
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

# plotly copies an assigned template, so all figures can share one per theme.
_template = cache(lambda theme: themes.template(theme).to_plotly_json())
# A separate row at the top of the figure, above any headings.
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0.99, "yanchor": "top"}
GAP = 0.07
"""Between columns, as a share of the width."""

# Mean width of a letter as a share of the font size, wide enough for bold text.
_LETTER = 0.56
_LINE = 1.3
_SPACE = 8  # pixels between a heading and the next one
# Font size of headings above lower views, where there is little room; pixels of a line and of a mark in a legend.
_SMALL, KEY_LINE, _MARK = 10.5, 20, 44
# Characters that stand for marks, lines and hatchings in a legend written as text.
SIGNS = {
    "circle": "●", "diamond": "◆", "square": "■", "cross": "✚", "triangle-up": "▲", "star": "★", "hexagon": "⬢",
    "x": "✖", "circle-open": "○", "diamond-open": "◇", "square-open": "□", "x-thin-open": "×", "line-ns-open": "|",
    "triangle-up-open": "△", "star-open": "☆", "cross-thin-open": "+",
}  # fmt: skip
_STROKES = {"dash": "╌╌", "dot": "┈┈", "dashdot": "─·", "longdash": "─ ─", "longdashdot": "──·"}
_HATCHES = {"/": "▨", "\\": "▧", "x": "▩", "-": "▤", "|": "▥", "+": "▦", ".": "░"}
_NO_COLOR = "rgba(0,0,0,0)"


def axis_number(i: int) -> str:
    """Return the number that plotly gives to the axes of a view: nothing for the first, 2 for the second."""
    return "" if i == 0 else str(i + 1)


def column_domains(n: int, gap: float = GAP) -> list[list[float]]:
    """Divide the width into columns.

    Examples
    --------
    >>> column_domains(2, 0.5)
    [[0.0, 0.25], [0.75, 1.0]]
    """
    width = (1 - gap * (n - 1)) / n
    return [[i * (width + gap), i * (width + gap) + width] for i in range(n)]


def note(x: float, y: float, text: str, **options: Any) -> dict[str, Any]:
    """Return an annotation at shares `x`, `y` of the whole figure; `text` is plotly's HTML."""
    return {"xref": "paper", "yref": "paper", "x": x, "y": y, "showarrow": False, "text": text, **options}


def heading(text: str, more: str = "", x: float = 0.0, y: float = 1.0, **options: Any) -> dict[str, Any]:
    """Return a heading above a view, with a line of detail below the title; both texts must be escaped."""
    below = f"<br>{more}" if more else ""
    place = {"xanchor": "left", "yanchor": "bottom", "yshift": 6, "align": "left"}
    return note(x, y, f"<b>{text}</b>{below}", **place | options)


class Layout:
    """The views of a figure, added one by one.

    Examples
    --------
    >>> layout = Layout()
    >>> axes = [layout.view(across, [0.0, 1.0], title="view") for across in column_domains(2)]
    >>> axes[1], len(layout.notes)
    ({'xaxis': 'x2', 'yaxis': 'y2'}, 2)
    """

    def __init__(self) -> None:
        self.axes: dict[str, Any] = {}
        self.notes: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    def view(
        self,
        across: list[float],
        up: list[float],
        *,
        x: Mapping[str, Any] | str = "",
        y: Mapping[str, Any] | str = "",
        title: str = "",
        more: str = "",
        square: bool = False,
    ) -> dict[str, str]:
        """Add a view and return its axes, as options for a trace.

        `across` and `up` place it, in shares of the width and the height. `x` and `y` are its axes, as plotly's options
        or just a title. `title` and `more` are the heading, as plotly's HTML. A `square` view has one scale.
        """
        number = axis_number(len(self.axes) // 2)
        for name, other, domain, axis in (("x", "y", across, x), ("y", "x", up, y)):
            options = {"title": {"text": axis}} if isinstance(axis, str) else axis
            self.axes[f"{name}axis{number}"] = {"domain": domain, "anchor": f"{other}{number}", **options}
        if square:
            self.axes[f"yaxis{number}"]["scaleanchor"] = f"x{number}"
        if title:
            self.notes.append(heading(title, more, across[0], up[1]))
        return {"xaxis": f"x{number}", "yaxis": f"y{number}"}

    def rule(
        self, axes: Mapping[str, str], line: Mapping[str, Any], *, x: Any = None, y: Any = None, **look: Any
    ) -> None:
        """Draw a line across a whole view, upright at `x` or level at `y`; `look` are further options of the shape."""
        along, across, place = ("y", "x", y) if x is None else ("x", "y", x)
        ends = {f"{along}0": place, f"{along}1": place, f"{along}ref": axes[f"{along}axis"]}
        ends |= {f"{across}0": 0, f"{across}1": 1, f"{across}ref": f"{axes[f'{across}axis']} domain"}
        self.lines.append({"type": "line", "line": line, **ends, **look})

    def finish(self, traces: Sequence[Any], theme: Theme, **options: Any) -> Figure:
        """Return a figure of these views, with the look of a theme and further options of plotly's layout."""
        # Checked first, because the cache of templates needs a name.
        base: dict[str, Any] = {"template": _template(one_of("theme", theme, get_args(Theme))), "hovermode": "closest"}
        base |= {name: items for name, items in (("annotations", self.notes), ("shapes", self.lines)) if items}
        # A panel draws a figure at every cursor step, and plotly spends most of that time on validating the template
        # and traces that it has validated before.
        figure = Figure(list(traces), base | self.axes | options, _validate=False)
        for part in (figure, figure.layout, *figure.data):
            # Validate later changes.
            part._validate = True
        return figure


@dataclass(frozen=True)
class Grid:
    """Views in rows of a fixed height and in columns of equal width.

    In pixels: `height` of a view, `above` for its heading, `below` for its axis; `top` and `foot` around all views.
    `gap` is the space between columns, as a share of the width.
    """

    rows: int
    columns: int
    height: int
    above: int
    below: int = 0
    top: int = 0
    foot: int = 0
    gap: float = GAP

    @property
    def pixels(self) -> int:
        """Height of the figure."""
        return self.top + self.rows * (self.above + self.height + self.below) + self.foot

    def place(self, row: int, column: int) -> tuple[list[float], list[float]]:
        """Return the horizontal and vertical domain of a view.

        Examples
        --------
        >>> Grid(1, 2, height=80, above=20, gap=0.0).place(0, 1)
        ([0.5, 1.0], [0.0, 0.8])
        """
        start = self.top + row * (self.above + self.height + self.below) + self.above
        top = 1 - start / self.pixels
        return column_domains(self.columns, self.gap)[column], [max(top - self.height / self.pixels, 0.0), top]


def side_by_side(figure: go.Figure) -> int:
    """Return the largest number of views side by side.

    Examples
    --------
    >>> right = {"xaxis2": {"domain": [0.6, 1], "anchor": "y2"}, "yaxis2": {"anchor": "x2"}}
    >>> side_by_side(go.Figure(layout={"xaxis": {"domain": [0, 0.4]}, **right}))
    2
    """
    rows: Counter[tuple[float, ...]] = Counter()
    for axis in figure.select_xaxes():
        other = figure.layout[f"yaxis{(axis.anchor or 'y')[1:]}"]
        rows[tuple(round(float(edge), 3) for edge in other.domain or (0, 1))] += 1
    return max(rows.values(), default=1)


def narrowed(figure: go.Figure, width: int) -> go.Figure:
    """Return a copy `width` pixels wide, in which no heading runs into the next one or out of the figure.

    Headings are annotations placed in the whole figure (``xref="paper"``), aligned to the left. The copy grows in
    height by the lines added to headings at the top and notes at the bottom.

    Examples
    --------
    >>> title = heading("a heading of", "many words")
    >>> narrow = narrowed(go.Figure().update_layout(annotations=[title], margin={"l": 0, "r": 0}), 60)
    >>> narrow.layout.annotations[0].text
    '<b>a<br>heading<br>of</b><br>many<br>words'
    """
    fitted = go.Figure(figure)
    margin = margins(figure)
    inside = width - margin["l"] - margin["r"]
    notes = [
        note
        for note in fitted.layout.annotations
        if note.xref == "paper" and note.xanchor == "left" and note.showarrow is False and not note.textangle
    ]
    above, headings, below = float(KEY_LINE * (_legend_lines(figure, inside) - 1)), 0.0, 0.0
    for item in notes:
        starts = [other.x for other in notes if abs(other.y - item.y) < 0.02 and other.x > item.x + 0.02]
        size = float(item.font.size or fitted.layout.font.size or 12)
        on_top = item.y > 0.98 - _LINE * size / 100
        lines = item.text.split("<br>")
        room = float((min([1.0, *starts]) - item.x) * inside - (item.xshift or 0) - _SPACE)
        broken = broken_lines(lines, room, size)
        if not on_top and len(broken) > len(lines):
            item.font.size = size = min(size, _SMALL)
            broken = broken_lines(lines, room, size)
        more = (len(broken) - len(lines)) * size * _LINE
        item.text = "<br>".join(broken)
        if item.yanchor == "bottom" and on_top:
            headings = max(headings, more)
        elif item.yanchor == "top" and item.y < 0.1:
            below = max(below, more)
    above += headings
    height = (fitted.layout.height or 450) + int(above + below)
    margin |= {"t": margin["t"] + int(above), "b": margin["b"] + int(below)}
    return fitted.update_layout(width=width, height=height, margin=margin)


def _legend_lines(figure: go.Figure, inside: float) -> int:
    """Count the lines of a horizontal legend at the top: plotly makes all entries as wide as the widest."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    if figure.layout.legend.yref != "container" or not names:
        return 1
    widest = _MARK + _LETTER * 12 * max(len(html.unescape(name)) for name in names)
    return -(-len(names) // max(1, int(inside / widest)))


def margins(figure: go.Figure) -> dict[str, float]:
    """Return the margins of a figure in pixels, by the first letters of left, right, top and bottom."""
    own, template = figure.layout.margin, figure.layout.template.layout.margin
    return {side: float(next((m[side] for m in (own, template) if m[side] is not None), 80)) for side in "lrtb"}


def legend_entries(figure: go.Figure) -> list[str]:
    """Return the entries of a figure's legend as plotly's HTML, each with its mark, line or hatching.

    Examples
    --------
    >>> bars = [go.Bar(name="mine", marker={"color": "red"}), go.Bar(name="yours", marker_pattern_shape="/")]
    >>> legend_entries(go.Figure(bars))
    ['<span style="color:red">■</span> mine', '<span style="color:inherit">▨</span> yours']
    """
    if figure.layout.showlegend is False:
        return []
    traces = (trace._props for trace in figure.data)
    named = (trace for trace in traces if trace.get("name") and trace.get("visible", True) is True)
    return list(dict.fromkeys(legend_entry(trace) for trace in named if trace.get("showlegend", True)))


def legend_entry(trace: Mapping[str, Any]) -> str:
    """Return a trace's name after its mark, line or hatching, as plotly's HTML."""
    marker, line = trace.get("marker", {}), trace.get("line", {})
    colors = [part.get("color") for part in (marker, line, marker.get("line", {}))]
    visible = (color for color in colors if isinstance(color, str) and color != _NO_COLOR)
    return f'<span style="color:{next(visible, "inherit")}">{_sign(trace)}</span> {trace["name"]}'


def _sign(trace: Mapping[str, Any]) -> str:
    """Return the one or two characters that look most like a trace."""
    marker, mode = trace.get("marker", {}), trace.get("mode") or "lines"
    if trace["type"] not in ("scatter", "scattergl"):
        shape = str((marker.get("pattern") or {}).get("shape"))
        return _HATCHES.get(shape, "□" if marker.get("color") == _NO_COLOR else "■")
    symbol = marker.get("symbol", "circle")
    if "markers" in mode and "lines" not in mode:
        return SIGNS.get(symbol, "●") if isinstance(symbol, str) else "●"
    dash = trace.get("line", {}).get("dash") or "solid"
    return "━━" if dash == "solid" else _STROKES.get(dash, _STROKES["longdash"])


def fitting_name(name: str, room: float | int, size: float | int) -> str:
    """Cut a name, given and returned as plotly's HTML, so that it fits beside its mark into `room` pixels."""
    whole, letters = html.unescape(name), room / (_LETTER * size) - 5
    longest = next(n for n in range(LONGEST, -1, -1) if n == 0 or _wide(shorten(whole, n)) <= letters)
    return escape(shorten(whole, longest))


def _wide(text: str) -> float:
    """Return the width of a text, in letters of mean width; m, w, @ and % count more."""
    return max(float(len(text)), 0.94 * len(text) + 0.6 * len(re.findall("[mwMW@%]", text)))


def broken_lines(lines: Sequence[str], room: float | int, size: float | int) -> list[str]:
    """Break lines of plotly's HTML at spaces, so that they fit into `room` pixels."""
    letters = max(int(room / (_LETTER * size)), 8)
    broken = []
    for line in lines:
        current = ""
        # Split neither inside a tag nor between a mark and its name.
        for word in re.split(r"(?<!</span>) (?![^<>]*>)", line):
            longer = f"{current} {word}" if current else word
            if current and _wide(html.unescape(re.sub("<[^>]*>", "", longer))) > letters:
                broken.append(current)
                current = word
            else:
                current = longer
        broken.append(current)
    return broken
