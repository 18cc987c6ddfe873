"""Figures as files, each with a JSON file that records its provenance; figures for paper and slides."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import plotly.graph_objects as go
import plotly.io

from nextlat_viz import io
from nextlat_viz.errors import unknown
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import narrowed, side_by_side
from nextlat_viz.plotting import CONFIG

if TYPE_CHECKING:
    from anndata import AnnData

FORMATS = ("html", "png", "svg", "pdf")
_LIBRARIES = ("nextlat-viz", "plotly", "kaleido", "numpy", "anndata", "scikit-learn", "umap-learn", "torch")


def write(
    figure: go.Figure,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    *,
    width: int = 1100,
    scale: float = 2.0,
) -> Path:
    """Write a figure to a file and, beside it, ``<name>.json``: what it shows and what it was made from.

    Parameters
    ----------
    figure : plotly Figure
    path : path
        Ends in ``.html`` (works offline, plotly inside), ``.png``, ``.svg`` or ``.pdf``.
    provenance : dict, optional
        Anything JSON can hold: parameters, and `provenance_of` the latents.
    width : int
        Of the picture, in pixels at scale 1. The height is the figure's own.
    scale : float
        Pixels of a PNG per pixel of width.

    Returns
    -------
    Path
        The file written. Neither file is there unless both were written whole.

    Raises
    ------
    UnknownNameError
        For another ending.
    OSError
        When the folder cannot be written to.
    RuntimeError
        When PNG, SVG or PDF are asked for and no browser to draw them with is installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write(go.Figure(), Path(folder) / "empty.html", {"color": "state"})
    ...     json.loads(path.with_suffix(".json").read_text())["parameters"]
    {'color': 'state'}
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("kind of figure file", path.suffix or path.name, [f".{one}" for one in FORMATS])
    sidecar = json.dumps(_sidecar(path.name, provenance or {}), indent=2, allow_nan=False) + "\n"
    with io.draft(path) as draft, io.draft(path.with_suffix(".json")) as note:
        if kind == "html":
            draft.write_text(page(figure), encoding="utf-8")
        else:
            draft.write_bytes(_image(figure, kind, width, scale))
        note.write_text(sidecar, encoding="utf-8")
    return path


@contextlib.contextmanager
def one_browser() -> Iterator[None]:
    """Keep one browser open while several pictures are written; each after the first then takes a fifth of the time.

    Where none is found nothing is kept open, and `write` says what to install.
    """
    if not browser():
        yield
        return
    import kaleido

    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def browser() -> str | None:
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    found: str | None = Chromium.find_browser(skip_local=False)
    return found


def provenance_of(*latents: AnnData) -> dict[str, Any]:
    """Return what the sidecar should say about latents: which checkpoints, which weights, which episodes."""
    from nextlat_viz.latents import metas

    models = [one for table in latents for one in metas(table).values()]
    keep = ("name", "label", "step", "weights_sha256", "episodes_sha256")
    return {"models": [{key: one[key] for key in keep} | {"world": json.loads(one["world"])} for one in models]}


def page(figure: go.Figure) -> str:
    """Return the figure as one HTML page with plotly.js inside."""
    text: str = plotly.io.to_html(figure, config=CONFIG, include_plotlyjs=True, full_html=True)
    return text


def _image(figure: go.Figure, kind: str, width: int, scale: float) -> bytes:
    try:
        import kaleido  # noqa: F401
        from choreographer.errors import ChromeNotFoundError
    except ImportError as error:
        raise RuntimeError(f"writing .{kind} needs kaleido: pip install kaleido (or write .html)") from error
    try:
        with warnings.catch_warnings():
            # plotly hands over options that a browser kept open has taken already.
            warnings.filterwarnings("ignore", message="The kopts argument is ignored", category=UserWarning)
            data: bytes = plotly.io.to_image(
                figure,
                format=kind,
                width=width,
                height=figure.layout.height or 450,
                scale=scale if kind == "png" else 1,
            )
    except (ChromeNotFoundError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "chrome" not in str(error).lower():
            raise
        raise RuntimeError(
            f"writing .{kind} needs Chrome or Chromium, and none was found: install one "
            "(Debian: apt install chromium; anywhere: plotly_get_chrome), or write .html, which needs none"
        ) from error
    return data


def _sidecar(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return {
        "figure": name,
        "parameters": io.plain(parameters),
        "versions": {"python": platform.python_version(), **found},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@dataclass(frozen=True)
class Size:
    """A width for paper or slides.

    Attributes
    ----------
    inches : float
        Width in print.
    pixels : int
        Width of the layout: the sizes of texts, in pixels, are relative to it.
    dots : int
        Width of the PNG.
    """

    inches: float
    pixels: int
    dots: int


SIZES = {
    # A column of a two-column page. Text of 12 pixels is 6.5 points here.
    "column": Size(3.3, 440, 990),
    # The text width of a page, where 12 pixels are 9 points.
    "text": Size(6.9, 662, 2070),
    # Laid out at half the width of the slide, so that 12 pixels are 18 points.
    "slide": Size(13.33, 640, 1920),
}
"""Widths by name."""
_MOST_VIEWS = {"column": 2}


class Options(TypedDict):
    """Options of `write`."""

    width: int
    scale: float


def for_print(figure: go.Figure, size: str = "column") -> go.Figure:
    """Return a copy for print: dark text on white, as wide as a column, the text of a page, or a slide.

    Long headings are broken into lines, and the figure grows in height.

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
        For more than two views side by side in a column, where they would be too small to read.

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
        raise ValueError(f"size={size!r}: {views} views side by side are too small to read in a {size}; take {wider}")
    return narrowed(on_white(figure), width)


def on_white(figure: go.Figure) -> go.Figure:
    """Return a copy with dark text on white, for any theme it was drawn in.

    Examples
    --------
    >>> on_white(go.Figure()).layout.paper_bgcolor
    'white'
    """
    paper = go.Figure(figure)
    paper.update_layout(template=themes.template("light"), paper_bgcolor="white", font_color=themes.ink("light"))
    return paper


def print_options(size: str = "column") -> Options:
    """Return the width and scale to give to `write` for a size.

    A PNG then has 300 dots per inch, or the 1,920 pixels of a slide. SVG and PDF have the width of the layout.

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
