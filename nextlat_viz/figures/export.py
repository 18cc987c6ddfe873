"""Write figures to files, each with a JSON file that records its provenance."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io

from nextlat_viz import io
from nextlat_viz.display import shorten
from nextlat_viz.errors import unknown
from nextlat_viz.figures.provenance import provenance_in, provenance_text
from nextlat_viz.figures.theme import CLEAR
from nextlat_viz.plotting import configuration

FORMATS = ("html", "png", "svg", "pdf")
NO_BROWSER = (
    "PNG, SVG and PDF need Chrome or Chromium, and none was found. Install one: the system's package (Debian: "
    "apt install chromium), plotly_get_chrome, or playwright install chromium"
)
# Names of Playwright's browser programs, which differ by version and system.
_PLAYWRIGHT_PROGRAMS = ("chrome", "Google Chrome for Testing", "Chromium", "chrome-headless-shell", "headless_shell")
_PER_INCH = 96  # pixels
_LEAST_DOTS, _MOST_DOTS = 30, 2_400
_LONGEST_NAME = 200


def write_figure(
    figure: go.Figure,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    *,
    width: int | None = None,
    scale: float | int | None = None,
    inches: float | int | None = None,
    dpi: int | None = None,
    transparent: bool = False,
) -> Path:
    """Write a figure to a file, and its provenance to a second file, such as ``a.png.json`` for ``a.png``.

    Parameters
    ----------
    figure : plotly Figure
    path : path
        Ends in ``.html`` (contains plotly, works offline), ``.png``, ``.svg`` or ``.pdf``.
    provenance : dict, optional
        Parameters, and `provenance_of` the latents; default what a studio has stored in the figure.
    width : int, optional
        Pixels at scale 1; default the figure's own, or 1,100. The height is the figure's own.
    scale : float, optional
        Pixels of a PNG per pixel of width; default 2, or for a figure for print, 300 dots per inch.
    inches : float, optional
        Width in print; default as set by `compose` or `for_print`, else 96 pixels to the inch.
    dpi : int, optional
        Dots per inch of a PNG, and of the image inside an SVG or a PDF that holds many points; replaces `scale`.
    transparent : bool
        Whether a PNG has no background.

    Returns
    -------
    Path
        The file written. If writing fails, neither file is left behind.

    Raises
    ------
    UnknownNameError
        For another ending.
    OSError
        When the folder cannot be written to.
    RuntimeError
        For PNG, SVG or PDF when no browser is found to draw them; the message names what to install.
    ValueError
        For dots per inch outside 30 to 2,400.

    Examples
    --------
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_figure(go.Figure(), Path(folder) / "empty.html", {"color": "state"})
    ...     json.loads((Path(folder) / "empty.html.json").read_text())["parameters"]
    {'color': 'state'}
    """
    path = io.resolve(path)
    kind = _kind(path)
    about = provenance_in(figure) if provenance is None else provenance
    with io.draft(path) as draft, io.draft(sidecar(path)) as record:
        draft.write_bytes(
            figure_bytes(figure, kind, width=width, scale=scale, inches=inches, dpi=dpi, transparent=transparent)
        )
        record.write_text(provenance_text(path.name, about), encoding="utf-8")
    return path


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("kind of figure file", shorten(path.suffix or path.name), [f".{name}" for name in FORMATS])
    return kind


def require_new(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Return the resolved path of a new figure; raise if its kind is unknown, or one of its two files exists already.

    Raises
    ------
    FileExistsError
        When the file or its JSON exists, and may not be replaced.
    ValueError
        For a name that is too long for a file.
    UnknownNameError
        For another ending.
    """
    target = io.resolve(path)
    _kind(target)
    # Leave room in the name for the endings of the record and its temporary file.
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise ValueError(
            f"the file name {shorten(target.name, 40)!r} has {len(target.name):,} characters: take one of at most "
            f"{_LONGEST_NAME} bytes"
        )
    for file in (target, sidecar(target)):
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists: choose another name, or replace it (overwrite=True)")
    return target


def figure_bytes(
    figure: go.Figure,
    kind: str,
    *,
    width: int | None = None,
    scale: float | int | None = None,
    inches: float | int | None = None,
    dpi: int | None = None,
    transparent: bool = False,
) -> bytes:
    """Return the content of a figure's file of kind "html", "png", "svg" or "pdf"; options as in `write_figure`."""
    if kind == "html":
        return plotly.io.to_html(figure, config=configuration(figure), include_plotlyjs=True, full_html=True).encode()
    own = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    across = int(width or figure.layout.width or 1100)
    inches = inches or own.get("inches")
    print_width = across / _PER_INCH if inches is None else inches
    if dpi is not None:
        if not _LEAST_DOTS <= dpi <= _MOST_DOTS:
            raise ValueError(f"dpi={dpi!r}: give {_LEAST_DOTS} to {_MOST_DOTS:,} dots per inch, such as 300")
        dots = dpi * print_width / across
    else:
        dots = scale or own.get("scale") or 2.0
    vector = print_width * _PER_INCH / across
    if kind == "png" and transparent:
        figure = go.Figure(figure).update_layout(paper_bgcolor=CLEAR, plot_bgcolor=CLEAR)
    data = _image(figure, kind, across, dots if kind == "png" else vector, dots)
    return _with_dots(data, dots * across / print_width) if kind == "png" and inches is not None else data


def _with_dots(png: bytes, dpi: float | int) -> bytes:
    """Return a PNG that stores its dots per inch, so that a document shows it at its width in print."""
    per_metre = round(dpi / 0.0254)
    content = b"pHYs" + struct.pack(">IIB", per_metre, per_metre, 1)
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    # Insert the chunk after the signature and the header.
    return png[:33] + chunk + png[33:]


def sidecar(path: Path) -> Path:
    """Return the path of a figure's JSON file: the whole name and ``.json``, so that each kind of file has its own."""
    return path.with_name(f"{path.name}.json")


def write_images(
    figures: Mapping[str, tuple[go.Figure, Mapping[str, Any]]],
    folder: str | os.PathLike[str],
    kinds: Sequence[str],
    *,
    width: int = 1100,
) -> list[Path]:
    """Write figures as images of several kinds into a folder, keeping one browser open for all of them.

    `figures` is {name: (figure, provenance)}; `kinds` are from "png", "svg", "pdf". Without a browser no image is
    written, and a warning names what to install. `width` is for figures without a width.
    """
    written = []
    kinds = drawable(kinds)
    with one_browser() if kinds else contextlib.nullcontext():
        for name, (figure, provenance) in figures.items():
            for kind in kinds:
                path = io.resolve(folder) / f"{io.file_name(name)}.{kind}"
                written.append(write_figure(figure, path, provenance, width=figure.layout.width or width))
    return written


def drawable(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of image that can be drawn here: all of them, or without a browser none, with a warning.

    Call this before work whose results are to be drawn, so that a missing browser is reported at once.

    Raises
    ------
    UnknownNameError
        For a kind that is no image.
    """
    for kind in kinds:
        if kind not in FORMATS[1:]:
            raise unknown("kind of image", kind, FORMATS[1:])
    if kinds and browser() is None:
        warnings.warn(f"images are left out: {NO_BROWSER}", stacklevel=2)
        return ()
    return tuple(kinds)


@contextlib.contextmanager
def one_browser() -> Iterator[None]:
    """Keep one browser open while several images are written, instead of starting it for each.

    Does nothing if no browser is found; `write_figure` then raises for an image.
    """
    path = browser()
    if path is None:
        yield
        return
    import kaleido

    kaleido.start_sync_server(path=path, page_generator=_page(), silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def browser() -> str | None:
    """Return the path of a browser that can draw images: the system's, that of plotly_get_chrome, or Playwright's."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return None
    path: str | None = Chromium.find_browser(skip_local=False)
    if path is not None and Path(path).exists():
        return path
    caches = ("~/.cache", "~/Library/Caches", os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    folders = [os.environ.get("PLAYWRIGHT_BROWSERS_PATH", ""), *(f"{cache}/ms-playwright" for cache in caches)]
    for folder in filter(None, folders):
        for name in _PLAYWRIGHT_PROGRAMS:
            files = sorted(
                file
                for ending in ("", ".exe")
                for file in Path(folder).expanduser().glob(f"chromium*/**/{name}{ending}")
            )
            programs = [file for file in files if file.is_file() and os.access(file, os.X_OK)]
            if programs:
                return str(programs[-1])
    return None


def _page() -> Any:
    """Return kaleido's page without margins: they would shrink the figure in a PDF and cut it off at the bottom."""
    import kaleido

    page = kaleido.PageGenerator()
    page.header = page.header.replace("</title>", "</title>\n<style>@page {margin: 0} body {margin: 0}</style>")
    return page


def _image(figure: go.Figure, kind: str, width: int, scale: float | int, dots: float | int) -> bytes:
    try:
        import kaleido
        from choreographer.errors import ChromeNotFoundError
    except ImportError as error:
        raise RuntimeError(f"writing .{kind} needs kaleido: pip install kaleido (or write .html)") from error
    path = browser()
    if path is None:
        raise RuntimeError(f"writing .{kind}: {NO_BROWSER}, or write .html, which needs none")
    # Kaleido's own search does not find Playwright's browsers.
    os.environ["BROWSER_PATH"] = path
    try:
        with warnings.catch_warnings():
            # Raised if `one_browser` keeps a browser open, which has the page already.
            warnings.filterwarnings("ignore", message="The kopts argument is ignored", category=UserWarning)
            # The resolution of WebGL traces, which become an image.
            content = {**figure.to_dict(), "config": {"plotGlPixelRatio": dots}}
            size = {"width": width, "height": figure.layout.height or 450, "scale": scale}
            data: bytes = kaleido.calc_fig_sync(
                content, opts={"format": kind, **size}, kopts={"page_generator": _page()}
            )
    except (ChromeNotFoundError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "chrome" not in str(error).lower():
            raise
        raise RuntimeError(f"writing .{kind}: {NO_BROWSER}, or write .html, which needs none") from error
    return data
