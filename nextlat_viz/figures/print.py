"""Figures for paper and slides: as wide as a column, a page or a screen, with text that is read there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import plotly.graph_objects as go

from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.narrow import narrowed, side_by_side


@dataclass(frozen=True)
class Size:
    """A width on paper or on a screen.

    Attributes
    ----------
    inches : float
        How wide the figure is where it is seen.
    pixels : int
        How wide it is laid out: its text, in pixels, keeps that proportion to it.
    dots : int
        How wide it is as a PNG.
    """

    inches: float
    pixels: int
    dots: int


SIZES = {
    # A column of two. Text of 12 pixels is 6.5 points here, with room for a heading over two views.
    "column": Size(3.3, 440, 990),
    # The text of a page, where it is 9 points.
    "text": Size(6.9, 662, 2070),
    # Laid out at half its width, so that the same text is 18 points.
    "slide": Size(13.33, 640, 1920),
}
"""Widths by name."""
_MOST_VIEWS = {"column": 2}


class Options(TypedDict):
    """What `nextlat_viz.figures.write` takes."""

    width: int
    scale: float


def for_print(figure: go.Figure, size: str = "column") -> go.Figure:
    """Return a copy for print: dark text on white, as wide as a column, the text of a page, or a slide.

    Headings are broken into more lines where they need them, for which the figure becomes higher.

    Parameters
    ----------
    figure : plotly Figure
    size : {"column", "text", "slide"}

    Returns
    -------
    plotly Figure
        Write it with the size's `print_options`.

    Raises
    ------
    UnknownNameError
        For another size.
    ValueError
        For more than two views side by side in a column, where nobody could read them.

    Examples
    --------
    >>> paper = for_print(go.Figure(), "column")
    >>> paper.layout.width, paper.layout.paper_bgcolor
    (440, 'white')
    """
    width = print_options(size)["width"]
    views = side_by_side(figure)
    if views > _MOST_VIEWS.get(size, views):
        wider = " or ".join(repr(name) for name in SIZES if name not in _MOST_VIEWS)
        raise ValueError(f"size={size!r}: {views} views side by side cannot be read as narrow as that; take {wider}")
    return narrowed(on_white(figure), width)


def on_white(figure: go.Figure) -> go.Figure:
    """Return a copy with dark text on white, whatever theme it was drawn for.

    Examples
    --------
    >>> on_white(go.Figure()).layout.paper_bgcolor
    'white'
    """
    paper = go.Figure(figure)
    paper.update_layout(template=themes.template("light"), paper_bgcolor="white", font_color=themes.ink("light"))
    return paper


def print_options(size: str = "column") -> Options:
    """Return the width and scale that `write` is to be given for a size.

    A PNG then has 300 dots an inch, or the 1,920 pixels of a slide. SVG and PDF have the layout's width, 3.3 in for
    a column; a slide's is to be enlarged to the slide.

    Parameters
    ----------
    size : {"column", "text", "slide"}

    Raises
    ------
    UnknownNameError
        For another size.

    Examples
    --------
    >>> print_options("slide")
    {'width': 640, 'scale': 3.0}
    """
    if size not in SIZES:
        raise unknown("print size", size, SIZES)
    chosen = SIZES[size]
    return {"width": chosen.pixels, "scale": chosen.dots / chosen.pixels}
