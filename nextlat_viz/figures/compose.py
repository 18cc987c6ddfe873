"""Several figures in one: parts (a), (b), (c) of a paper's figure, or small views with headings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz import worlds
from nextlat_viz.display import escape
from nextlat_viz.errors import at_least
from nextlat_viz.figures.layout import broken_lines, margins, note, side_by_side
from nextlat_viz.figures.paper import (
    LEAST_VIEW,
    LETTER,
    fitted,
    names_inside,
    on_paper,
    print_options,
    take_words,
    with_words,
)
from nextlat_viz.figures.regrid import regridded
from nextlat_viz.figures.sheet import Sheet
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import drawing

_LARGEST = 11  # pixels of a letter in a small view
_HEADING = 22  # letters in a line above a view
# Worlds without a single typical picture, or that need the user's data.
_LEFT_OUT = ("hmm", "text")
# Pixels: width of the layout without a `width`, and space between parts.
_PAGE, _GAP = 1000, 14
_MOST_WORDS = 5  # lines of words that become a heading
_SLIDE_HEIGHT = 0.5625  # of its width


def compose(
    figures: Sequence[Any] | Mapping[str, Any] | go.Figure,
    *,
    columns: int | None = None,
    width: str | float | int | None = None,
    height: int | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Put figures side by side: a list of whole figures with letters (a), (b), (c), or a dict of views with headings.

    Parameters
    ----------
    figures : sequence of plotly Figure, or dict of heading to plotly Figure
        In a sequence, each figure keeps its views, headings and colour scale; its legend becomes a line of text or
        names at the ends of lines. In a dict, each figure must have one pair of axes; its titles and captions are left
        out, and the first figure's legend is shown.
    columns : int, optional
        Figures in a row; by default as many as can be read, or three for a dict.
    width : {"column", "single", "text", "slide", "poster"} or float, optional
        Size for print, as in `print_options`: dark on white in one font; a number is inches. Default: a figure for the
        notebook.
    height : int, optional
        Pixels of a view; default each figure's own proportions, or 300 for a dict.
    theme : {"auto", "light", "dark"}
        Used without a `width`.

    Returns
    -------
    plotly Figure
        `write_figure` writes it in this size; `figure_caption` describes the figures of a studio.

    Raises
    ------
    ValueError
        For no figure, figures too small to read, figures without axes of x and y, and bars that are stacked in one
        figure and side by side in another.
    UnknownNameError
        For another width or theme.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> figures = {name: worlds.get(name).draw() for name in ("even", "mess3")}
    >>> pair = compose(figures, columns=2)
    >>> [note.text for note in pair.layout.annotations if note.xref == "paper"]
    ['<b>even</b>', '<b>mess3</b>']
    >>> paper = compose(list(figures.values()), width="column")
    >>> paper.layout.width, [note.text[:10] for note in paper.layout.annotations if "(" in note.text]
    (374, ['<b>(a)</b>', '<b>(b)</b>'])
    """
    whole = not isinstance(figures, Mapping)
    if isinstance(figures, go.Figure):
        raise TypeError("figures must be a list of figures or {heading: figure}, got one figure: write [figure]")
    if not figures:
        raise ValueError("figures is empty: give [figure, figure] or {heading: figure}")
    parts = list(figures.values()) if isinstance(figures, Mapping) else list(figures)
    for i, part in enumerate(parts):
        if not isinstance(part, go.Figure):
            raise TypeError(f"figures[{i}] must be a plotly figure, got {type(part).__name__}")
    if len(parts) > len(ascii_lowercase) and whole:
        raise ValueError(f"figures has {len(parts)} figures, and letters end at (z): give at most 26")
    options = None if width is None else print_options(width)
    across = _PAGE if options is None else options["width"]
    columns = None if columns is None else min(at_least("columns", columns), len(parts))
    prepared = parts if options is None else [on_paper(part) for part in parts]
    if whole:
        letters = ascii_lowercase if len(parts) > 1 else ""
        sheet = _whole(prepared, across, columns or _columns(prepared, across), height, width == "slide", letters)
    else:
        sheet = _small(dict(zip(figures, prepared, strict=True)), across, columns or min(3, len(parts)), height or 300)
    responsive = not whole and options is None
    figure = sheet.finish("light" if options else theme, responsive)
    about: dict[str, Any] = {"about": [_about(part) for part in parts]}
    if options is not None:
        about |= {"inches": options["inches"], "scale": options["scale"]}
        figure.update_layout(paper_bgcolor="white", font=on_paper(go.Figure()).layout.font, hovermode=False)
    if not responsive:
        figure.layout.width = across
    figure.layout.meta = about
    return figure


def for_print(figure: go.Figure, size: str | float | int = "column") -> Figure:
    """Return a copy for print: dark text on white, as wide as a column, the text of a page, a slide, or a poster.

    Long headings are broken into lines. A legend becomes names at the ends of the lines, or a line of text below.
    Views that would be too small side by side are put in rows.

    Parameters
    ----------
    figure : plotly Figure
    size : {"column", "single", "text", "slide", "poster"} or float
        As in `print_options`.

    Returns
    -------
    plotly Figure
        `write_figure` writes it in this size.

    Raises
    ------
    UnknownNameError
        For another size.
    ValueError
        For views side by side that would be too small to read.

    Examples
    --------
    >>> paper = for_print(go.Figure(), "column")
    >>> paper.layout.width, paper.layout.paper_bgcolor
    (374, 'white')
    """
    return compose([figure], width=size)


def row_of_figures(figures: Sequence[go.Figure], width: int) -> Figure:
    """Put whole figures without letters side by side, `width` pixels wide together."""
    figure = _whole(figures, width, len(figures), None, False, "").finish("auto", False)
    figure.layout.width = width
    return figure


def _about(figure: go.Figure) -> Any:
    return (figure.layout.meta or {}).get("about") if isinstance(figure.layout.meta, dict) else None


def _columns(figures: Sequence[go.Figure], width: int) -> int:
    """Return how many figures to put in a row: as many as can be read, in rows of about the same number."""
    # Count at most three views: if the page is narrow, `regridded` puts more views in several rows.
    views = min(max(map(side_by_side, figures)), 3)
    most = int((width + _GAP) / (views * LEAST_VIEW * 1.3 + _GAP))
    rows = -(-len(figures) // max(most, 1))
    return -(-len(figures) // rows)


def _whole(
    figures: Sequence[go.Figure], width: int, columns: int, height: int | None, slide: bool, letters: str
) -> Sheet:
    """Put whole figures in rows, each with a letter; the views of a row have the same height."""
    rooms = _rooms(figures, width - _GAP * (columns - 1), columns)
    lefts = [sum(rooms[:j]) + j * _GAP for j in range(columns)]
    sized = []
    for i, figure in enumerate(figures):
        room = rooms[i % columns]
        figure = regridded(figure, max(room // LEAST_VIEW, 1), room, height)
        views = side_by_side(figure)
        if room < views * LEAST_VIEW * 0.9:
            raise ValueError(
                f"figures[{i}] has {views} views side by side, too small to read in {room} of {width} pixels: "
                "take fewer columns or another width"
            )
        part = _lettered(figure, letters[i]) if letters else go.Figure(figure)
        sized.append(fitted(part, room))
    rows = [sized[start : start + columns] for start in range(0, len(sized), columns)]
    # The views of a row begin at the same height.
    tops = [max(margins(part)["t"] for part in row) for row in rows]
    heights = [_heights(row) for row in rows]
    insides = [max(row) for row in heights]
    belows = [
        max(high + margins(part)["b"] for part, high in zip(row, highs, strict=True)) - max(highs)
        for row, highs in zip(rows, heights, strict=True)
    ]
    share = 1.0
    if slide:
        spare = _SLIDE_HEIGHT * width - sum(tops) - sum(belows) - _GAP * (len(rows) - 1)
        share = min(1.0, max(spare, 0.4 * sum(insides)) / sum(insides))
    total = sum(tops) + share * sum(insides) + sum(belows) + _GAP * (len(rows) - 1)
    sheet, above = Sheet(width, round(total)), 0.0
    for row, top, highs, below in zip(rows, tops, heights, belows, strict=True):
        for j, (part, high) in enumerate(zip(row, highs, strict=True)):
            margin = margins(part)
            for item in part.layout.annotations:
                if item.xref == "paper" and item.yanchor == "bottom" and (item.y or 0) > 0.98:
                    # The headings and letters of a row begin at the same height.
                    item.yshift = (item.yshift or 0) + top - margin["t"]
            sheet.put(part, lefts[j] + margin["l"], above + top, rooms[j] - margin["l"] - margin["r"], share * high)
        above += top + share * max(highs) + below + _GAP
    return sheet


def _rooms(figures: Sequence[go.Figure], width: int, columns: int) -> list[int]:
    """Return the width of each column: wider for several views side by side, if single views stay readable."""
    shares = [3 if max(map(side_by_side, figures[j::columns])) > 1 else 2 for j in range(columns)]
    if 2 * width / sum(shares) < LEAST_VIEW * 1.3:
        shares = [1] * columns
    return [width * share // sum(shares) for share in shares]


def _heights(row: Sequence[go.Figure]) -> list[float]:
    """Return the height of each part's views; parts with one row share that of planes (which cannot grow), if any."""
    own = np.array([part.layout.height - margins(part)["t"] - margins(part)["b"] for part in row], dtype=float)
    tops = [{round(float(axis.domain[1]), 2) if axis.domain else 1.0 for axis in part.select_yaxes()} for part in row]
    single = np.array([len(ends) < 2 for ends in tops])
    # The axes of a plane share one scale.
    planes = single & [any(axis.scaleanchor for axis in part.select_yaxes()) for part in row]
    common = own[planes if planes.any() else single].max(initial=0.0)
    heights: list[float] = np.where(single, common, own).tolist()
    return heights


def _lettered(figure: go.Figure, letter: str) -> go.Figure:
    """Return a copy whose first heading begins with the part's letter."""
    part = go.Figure(figure)
    title = part.layout.title.text
    if title:
        part.layout.title.text = f"<b>({letter})</b> {title}"
        return part
    first = next(
        (
            item for item in part.layout.annotations
            if item.xref == "paper" and item.xanchor == "left" and item.yanchor == "bottom" and (item.y or 0) > 0.98
            and (item.x or 0) < 0.02 and not item.textangle
        ),
        None,
    )  # fmt: skip
    if first is not None:
        first.update(text=f"<b>({letter})</b> {first.text}", name=LETTER)
        return part
    words = take_words(part)
    if len(broken_lines(words, part.layout.width - 8, 12)) > _MOST_WORDS:
        with_words(part, words, part.layout.width)
        words = []
    # A short text below the figure becomes its heading.
    text = "<br>".join([f"<b>({letter})</b> {words[0] if words else ''}", *words[1:]])
    place = {"xanchor": "left", "yanchor": "bottom", "align": "left", "yshift": 6, "name": LETTER}
    part.add_annotation(note(0.0, 1.0, text, **place))
    more = 10 + 16 * (1 + text.count("<br>"))
    part.layout.height, part.layout.margin.t = (part.layout.height or 450) + more, margins(part)["t"] + more
    return part


def _small(figures: Mapping[str, go.Figure], width: int, columns: int, height: int) -> Sheet:
    """Put single views in rows, each below a heading, with the first figure's legend at the bottom."""
    above = 16 + 18 * max(len(textwrap.wrap(title, _HEADING)) for title in figures)
    rows, gap = -(-len(figures) // columns), 0.03
    sheet = Sheet(width, rows * (above + height) + 44)
    room = (1 - gap * (columns - 1)) / columns * width
    for i, (title, figure) in enumerate(figures.items()):
        if "xaxis2" in figure.layout:
            raise ValueError(f"figures[{title!r}] has several views: give figures of one view each")
        row, column = divmod(i, columns)
        bare = go.Figure(figure)
        names_inside(bare)
        notes = [item for item in bare.layout.annotations if item.xref != "paper"]
        for item in notes:
            item.font.size = min(item.font.size or 12, _LARGEST)
        bare.layout.annotations = notes
        bare.layout.shapes = [item for item in bare.layout.shapes if item.xref != "paper"]
        for trace in bare.data:
            if "marker" in trace and "showscale" in trace.marker:
                trace.marker.showscale = False
            if trace.type == "scatter":
                # A picture's outermost marks may be larger than its axes.
                trace.cliponaxis = False
        text = "<br>".join(escape(line) for line in textwrap.wrap(title, _HEADING))
        sheet.put(bare, column * (room + gap * width), row * (above + height) + above, room, height, text)
    return sheet


def contact_sheet(*, columns: int = 4, theme: Theme = "auto") -> Figure:
    """Draw every world that comes with the library, in the middle of an episode.

    Examples
    --------
    >>> len(contact_sheet().layout.annotations) > 15
    True
    """
    drawn = {}
    for name in worlds.names():
        world = None if name in _LEFT_OUT else worlds.get(name)
        if world is not None and world.pictures:
            episode = world.sample(1, None if world.length else 12, seed=0)
            kind = "beliefs" if "beliefs" in world.pictures else world.pictures[0]
            drawn[name] = world.draw(
                kind, episode=episode, position=drawing.opening_position(world, episode), width=300, height=300
            )
    return compose(drawn, columns=columns, height=220, theme=theme)
