"""Figures for paper and slides: as wide as a column, a page or a screen, with text that is read there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import plotly.graph_objects as go

from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes


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
    # Text of 12 pixels is 9 points here: a column of two, and the text of a page of one.
    "column": Size(3.3, 317, 990),
    "text": Size(6.9, 662, 2070),
    # Laid out at half its width, so that the same text is 18 points.
    "slide": Size(13.33, 640, 1920),
}
"""Widths by name."""


class Options(TypedDict):
    """What `nextlat_viz.figures.write` takes."""

    width: int
    scale: float


def for_print(figure: go.Figure, size: str = "column") -> go.Figure:
    """Return a copy for print: dark text on white, as wide as a column, the text of a page, or a slide.

    A figure of one view fits a column; views side by side need ``"text"`` or ``"slide"``.

    Parameters
    ----------
    figure : plotly Figure
    size : {"column", "text", "slide"}

    Returns
    -------
    plotly Figure
        Its height is its own. Write it with the size's `print_options`.

    Raises
    ------
    UnknownNameError
        For another size.

    Examples
    --------
    >>> paper = for_print(go.Figure(), "column")
    >>> paper.layout.width, paper.layout.paper_bgcolor
    (317, 'white')
    """
    return on_white(figure).update_layout(width=print_options(size)["width"])


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
