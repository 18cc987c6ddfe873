"""Figures for print: widths of columns and slides, dark text of one size on white, legends written as text."""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.errors import is_number, unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import SIGNS, broken_lines, legend_entries, margins, narrowed, note
from nextlat_viz.figures.regrid import ABOVE, room_above, trim
from nextlat_viz.plotting import INK

_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
# Font size of text and of the smallest text, in pixels. In a paper these are 7.5 and 6.6 points.
_TEXT, _SMALLEST = 12.0, 10.5
# Most points drawn as vectors. A file of more is slow to open, so they are drawn as an image inside the axes.
MOST_VECTOR = 4_000
# Most names at the ends of lines, and pixels between two of them.
_MOST_NAMES, _APART = 5, 13.0
_LONGEST_TITLE = 200
_WORDS = "words"
LETTER = "letter"
"""Name of the annotation with a part's letter: it is moved to the left edge of the figure."""
_LEAST_INCHES, _MOST_INCHES = 1, 100
_NEAR = 0.15  # share of a view's width or height that is close to its edge


class Options(TypedDict):
    """Options of `write_figure`."""

    width: int
    scale: float
    inches: float


def _options(inches: float | int, points: float | int, dots: int) -> Options:
    """Return the width in pixels at which text of 12 pixels has `points` points in print, with the scale for `dots`."""
    width = round(inches * _TEXT * 72 / points)
    return {"width": width, "scale": dots * inches / width, "inches": inches}


SIZES: dict[str, Options] = {
    # A column of a two-column page, the text of a one-column page, the text of a two-column page.
    "column": _options(3.25, 7.5, 300),
    "single": _options(5.5, 7.5, 300),
    "text": _options(6.75, 7.5, 300),
    # A third of a screen's 1,920 pixels.
    "slide": _options(40 / 3, 18, 144),
    "poster": _options(16, 24, 200),
}
# Least width of a view in a row of views, in pixels.
LEAST_VIEW = 110


def print_options(size: str | float | int = "column") -> Options:
    """Return the options to give to `write_figure` for a size.

    A PNG then has 300 dots per inch, or the 1,920 pixels of a slide; an SVG or a PDF is as wide as in print.

    Parameters
    ----------
    size : {"column", "single", "text", "slide", "poster"} or float
        A column of a two-column page (3.25 inches), the text of a one-column page (5.5), the text of a two-column page
        (6.75), a slide (13.3), a poster's figure (16), or inches, with the text size of a paper.

    Raises
    ------
    UnknownNameError
        For another size.
    ValueError
        For inches outside 1 to 100.

    Examples
    --------
    >>> print_options("slide")
    {'width': 640, 'scale': 3.0, 'inches': 13.333333333333334}
    """
    if is_number(size) and not isinstance(size, str):
        if not _LEAST_INCHES <= size <= _MOST_INCHES:
            raise ValueError(f"size={size!r}: inches must be in {_LEAST_INCHES}..{_MOST_INCHES}, such as 3.25")
        return _options(float(size), 7.5, 300)
    if size not in SIZES:
        raise unknown("print size", size, SIZES)
    return SIZES[str(size)]


def on_white(figure: go.Figure) -> go.Figure:
    """Return a copy with dark text on white, whatever theme the figure was drawn in.

    Examples
    --------
    >>> on_white(go.Figure()).layout.paper_bgcolor
    'white'
    """
    ink, others = themes.ink("light"), {themes.ink("dark"), themes.ink("auto"), INK}
    # Convert each trace: converting the whole figure would encode the arrays.
    layout = {name: part for name, part in figure.layout.to_plotly_json().items() if name != "template"}
    traces = [trace.to_plotly_json() for trace in figure.data]
    paper = go.Figure(_replaced(traces, others, ink), _replaced(layout, others, ink))
    paper.update_layout(template=themes.template("light"), paper_bgcolor="white", font_color=ink)
    return paper


def on_paper(figure: go.Figure) -> go.Figure:
    """Return a copy `on_white` in one font and size, without hover texts, and with many points as WebGL (an image).

    Classes of points get marks of their own, which the colour key shows too: in greyscale some colours look alike.
    """
    paper = on_white(figure)
    _mark_classes(paper)
    paper.update_layout(font={"family": _FONT, "size": _TEXT}, hovermode=False)
    for item in paper.layout.annotations:
        if item.bgcolor and _is_inside(item):
            item.update(bgcolor="rgba(255,255,255,0.8)", font={"color": themes.ink("light")})
    axes = [*paper.select_xaxes(), *paper.select_yaxes(), *(axis.colorbar for axis in paper.select_coloraxes())]
    fonts = [item.font for item in paper.layout.annotations]
    fonts += [font for axis in axes for font in (axis.tickfont, axis.title.font)]
    fonts += [trace.textfont for trace in paper.data if "textfont" in trace]
    for font in fonts:
        if isinstance(font.size, (int, float)):
            font.size = min(max(font.size, _SMALLEST), _TEXT)
    dots = [trace for trace in paper.data if trace.type in ("scatter", "scattergl") and "markers" in (trace.mode or "")]
    traces, total = [], sum(_length(trace.x) for trace in dots if trace.x is not None)
    for trace in paper.data:
        content = {
            name: part for name, part in trace.to_plotly_json().items()
            if not name.startswith("hover") and name not in ("customdata", "type")
        }  # fmt: skip
        kind = type(trace)
        if trace.type == "scatter" and _is_picture(paper):
            # A picture's outermost marks may be larger than its axes.
            content["cliponaxis"] = False
        if trace.type in ("scatter", "scattergl"):
            many = total > MOST_VECTOR and (trace.type == "scattergl" or _length(content.get("x", ())) > MOST_VECTOR)
            # Marks above points that become an image must become one too, or they would lie below it.
            kind = go.Scattergl if many else go.Scatter
            if many:
                content.pop("cliponaxis", None)
        traces.append(kind(**content))
    paper.data = ()
    paper.add_traces(traces)
    return paper


def fitted(figure: go.Figure, width: int) -> go.Figure:
    """Return a copy `width` pixels wide: headings broken into lines, the legend and words as text below."""
    paper = go.Figure(figure)
    words = take_words(paper)
    below = [item for item in paper.layout.annotations if _is_below(item)]
    paper.layout.annotations = [item for item in paper.layout.annotations if not _is_below(item)]
    if _is_picture(paper):
        # A picture has no ticks or axis titles that need wider margins.
        paper.update_layout(margin_l=8, margin_r=8, margin_b=8)
    for item in paper.layout.annotations:
        if item.name == LETTER:
            item.xshift = 4 - margins(paper)["l"]
    names_inside(paper)
    legend = [] if _name_lines(paper, width) else legend_entries(paper)
    for trace in paper.data:
        trace.showlegend = False
    paper.layout.showlegend = False
    paper = narrowed(paper, width)
    _title_as_heading(paper, width)
    trim(paper)
    lines = [" &nbsp; ".join(legend)] if legend else []
    lines += [line for item in below for line in item.text.split("<br>")]
    return with_lines(paper, [*lines, *words], width) if lines or words else paper


def with_words(figure: go.Figure, lines: list[str], width: int) -> go.Figure:
    """Write lines below a figure as `with_lines`, so that `take_words` can remove them for another width."""
    before = margins(figure)["b"]
    with_lines(figure, lines, width)
    figure.layout.annotations[-1].name = _WORDS
    figure.layout.meta = {**(figure.layout.meta or {}), _WORDS: [lines, figure.layout.margin.b - before]}
    return figure


def take_words(figure: go.Figure) -> list[str]:
    """Remove the lines that `with_words` wrote from a figure, and return them."""
    note = next((item for item in figure.layout.annotations if item.name == _WORDS), None)
    if note is None:
        return []
    lines, more = figure.layout.meta[_WORDS]
    figure.layout.annotations = [item for item in figure.layout.annotations if item.name != _WORDS]
    figure.layout.meta = {name: part for name, part in figure.layout.meta.items() if name != _WORDS}
    figure.update_layout(height=figure.layout.height - more, margin_b=figure.layout.margin.b - more)
    return list(lines)


def _mark_classes(figure: go.Figure) -> None:
    """Give the points of each class a mark, and write it before the name of the class in the colour key."""
    dots = [trace for trace in figure.data if trace.type in ("scatter", "scattergl")]
    scales = (trace.marker.colorbar for trace in dots if trace.marker.showscale)
    bars = [bar for bar in scales if bar.ticktext]
    if len(bars) != 1 or len(bars[0].ticktext) > len(themes.CLASSES):
        return
    (bar,) = bars
    marks = themes.CLASSES[: len(bar.ticktext)]
    # The first class is on top.
    bar.ticktext = [f"{SIGNS[mark]} {text}" for mark, text in zip(reversed(marks), bar.ticktext, strict=True)]
    for trace in dots:
        if trace.marker.coloraxis:
            codes = _array(trace.marker.color).astype(int)
            symbols = [marks[code] if code < len(marks) else "circle" for code in codes.tolist()]
            # A little larger, so that they can be told apart.
            trace.marker.update(symbol=symbols, size=1.3 * (trace.marker.size or 6))


def _array(values: Any) -> np.ndarray:
    """Return the values of a trace, also if plotly has encoded them."""
    if isinstance(values, Mapping):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.asarray(values)


def _length(values: Any) -> int:
    """Count the values of a trace, also if plotly has encoded them."""
    return len(_array(values)) if isinstance(values, Mapping) else len(values)


def names_inside(figure: go.Figure) -> None:
    """Move names with a background, such as those of corners, into the view if they would cross its edge."""
    for item in figure.layout.annotations:
        if not (item.bgcolor and _is_inside(item)):
            continue
        x = _share(figure.layout[f"xaxis{item.xref[1:]}"], item.x)
        if x is not None:
            item.update(xanchor="left" if x < _NEAR else "right" if x > 1 - _NEAR else "center", xshift=0)
        y = _share(figure.layout[f"yaxis{item.yref[1:]}"], item.y)
        if y is not None and not _NEAR <= y <= 1 - _NEAR:
            # Align with the edge: in a small view, the corner is closer to the edge than the height of a name.
            edge = int(y > 0.5)
            item.update(yref=f"{item.yref} domain", y=edge, yanchor="top" if edge else "bottom", yshift=0)


def _is_inside(item: Any) -> bool:
    """Whether an annotation is placed by the data of a view."""
    return bool(re.fullmatch(r"x\d*", item.xref or "") and re.fullmatch(r"y\d*", item.yref or ""))


def _share(axis: Any, value: Any) -> float | None:
    """Return the position of a value along an axis, from 0 to 1, or None if the range is not known."""
    if axis.range is None or not isinstance(value, (int, float)):
        return None
    return float((value - axis.range[0]) / (axis.range[1] - axis.range[0]))


def _is_below(item: Any) -> bool:
    """Whether an annotation is below the whole figure."""
    y = item.y or 0
    low = y <= 0.01 if item.yanchor != "bottom" else y < -0.01
    return item.xref == item.yref == "paper" and low and not item.textangle


def _is_picture(figure: go.Figure) -> bool:
    """Whether no axis is drawn."""
    return all(figure.layout[name].visible is False for name in figure.layout if name[:5] in ("xaxis", "yaxis"))


def with_lines(figure: go.Figure, lines: list[str], width: int) -> go.Figure:
    """Write lines of plotly's HTML below a figure, broken to `width`; the figure grows in height."""
    margin, size = margins(figure), 11.0
    text = broken_lines(lines, width - 8, size)
    place = {"xanchor": "left", "yanchor": "top", "align": "left", "font": {"size": size}}
    below = note(0.0, 0.0, "<br>".join(text), **place, xshift=4 - margin["l"], yshift=-margin["b"])
    figure.add_annotation(below)
    more = round(len(text) * size * 1.3) + 10
    return figure.update_layout(height=(figure.layout.height or 450) + more, margin_b=margin["b"] + more)


def _title_as_heading(figure: go.Figure, width: int) -> None:
    """Make the title a heading above all others, broken into lines that fit."""
    text, margin = figure.layout.title.text, margins(figure)
    if text:
        text = textwrap.shorten(text, _LONGEST_TITLE, placeholder=" …") if "<" not in text else text
        lines = broken_lines(text.split("<br>"), width - 8, _TEXT)
        bold = "<br>".join(lines) if text.startswith("<b>") else f"<b>{'<br>'.join(lines)}</b>"
        place = {"xanchor": "left", "yanchor": "bottom", "align": "left", "font": {"size": _TEXT}}
        figure.add_annotation(note(0.0, 1.0, bold, **place, xshift=4 - margin["l"], yshift=room_above(figure) + 6))
        more = max(room_above(figure) + ABOVE - margin["t"], 0)
        figure.update_layout(height=(figure.layout.height or 450) + more, margin_t=margin["t"] + more)
        figure.layout.title.text = ""


def _name_lines(figure: go.Figure, width: int) -> bool:
    """Write the names of a few lines at their ends instead of in a legend; return whether that was possible."""
    named = [trace for trace in figure.data if trace.name and trace.showlegend is not False]
    axes = {(trace.xaxis or "x", trace.yaxis or "y") for trace in figure.data if "xaxis" in trace}
    lines = [trace for trace in named if trace.type == "scatter" and "lines" in (trace.mode or "lines")]
    lines = [trace for trace in lines if trace.y is not None and len(trace.y) > 1]
    if not legend_entries(figure) or len(axes) != 1 or len(lines) != len(named) or len(lines) > _MOST_NAMES:
        return False
    room = max(len(trace.name) for trace in lines) * 6.2 + 10
    scale = figure.layout.yaxis
    if room > 0.3 * width or scale.type not in (None, "linear", "log"):
        return False
    log = scale.type == "log"

    def height(values: Any) -> np.ndarray:
        numbers = np.asarray(values, dtype=float)
        return np.log10(np.where(numbers > 0, numbers, np.nan)) if log else numbers

    every = np.concatenate([height(trace.y) for trace in figure.data if trace.y is not None and len(trace.y)])
    if not np.isfinite(every).any():
        return False
    low, high = scale.range or (np.nanmin(every), np.nanmax(every))
    pad = 0.0 if scale.range else 0.05 * ((high - low) or 1.0)
    low, high = low - pad, high + pad
    margin = margins(figure)
    tall = max((figure.layout.height or 450) - margin["t"] - margin["b"], 60)
    last = [values[np.isfinite(values)][-1:] for values in (height(trace.y) for trace in lines)]
    if not all(end.size for end in last):
        return False
    ends = (np.concatenate(last) - low) / (high - low) * tall
    order = np.argsort(ends, kind="stable")
    places = ends[order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + _APART)
    places -= max(0.0, places[-1] - tall)
    figure.layout.yaxis.range = [low, high]
    for place, trace in zip(places, (lines[i] for i in order), strict=True):
        color = trace.line.color or themes.ink("light")
        # As large as the numbers at the axes.
        figure.add_annotation(
            xref="x domain", yref="y domain", x=1, y=place / tall, text=trace.name, showarrow=False,
            xanchor="left", yanchor="middle", xshift=4, font={"size": 11, "color": color},
        )  # fmt: skip
    figure.layout.margin.r = max(margin["r"] if margin["r"] > 60 else 0, room)
    return True


def _replaced(value: Any, colors: set[str], ink: str) -> Any:
    """Replace the text colours of other themes by `ink`."""
    if isinstance(value, str):
        return ink if value in colors else value
    if isinstance(value, Mapping):
        return {name: _replaced(part, colors, ink) for name, part in value.items()}
    if isinstance(value, (list, tuple)) and any(isinstance(part, (str, Mapping, list, tuple)) for part in value):
        return [_replaced(part, colors, ink) for part in value]
    return value


def plain_html(text: str) -> str:
    """Reduce HTML to the tags that plotly draws.

    Examples
    --------
    >>> plain_html('<span role="status">a <code>b</code></span>&ensp;<span style="color:red">c</span>')
    'a b&nbsp; <span style="color:red">c</span>'
    """
    text = re.sub(r"&e[mn]sp;", "&nbsp; ", text)
    text = re.sub(r"<(?:/div|/p|/li|br ?/?)>", "<br>", text)
    kept = re.compile(r"</?(?:b|i|sub|sup)>|<br>|<span style=\"color:[^\"]*\">")
    parts, opened = [], list[bool]()
    for part in re.split(r"(<[^>]*>)", text):
        if part.startswith("<span"):
            opened.append(bool(re.search(r"color:", part)))
            color = re.search(r"color:\s*([^;\"']+)", part)
            if opened[-1] and color:
                parts.append(f'<span style="color:{color[1]}">')
        elif part == "</span>":
            if opened and opened.pop():
                parts.append(part)
        elif not part.startswith("<") or kept.fullmatch(part):
            parts.append(part)
    return re.sub(r"(?:<br>)+$", "", "".join(parts))
