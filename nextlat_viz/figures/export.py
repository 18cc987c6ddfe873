"""Figures as files, each with a JSON file that records its provenance; figures for paper and slides."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from nextlat_viz.plotting import configuration

if TYPE_CHECKING:
    from anndata import AnnData

FORMATS = ("html", "png", "svg", "pdf")
NO_BROWSER = (
    "PNG, SVG and PDF need Chrome or Chromium, and none was found. Install one: the system's package (Debian: "
    "apt install chromium), plotly_get_chrome, or playwright install chromium"
)
# Names of the programs, by age of Playwright and by system.
_PLAYWRIGHT_PROGRAMS = ("chrome", "Google Chrome for Testing", "Chromium", "chrome-headless-shell", "headless_shell")
_PER_INCH = 96  # pixels
_LIBRARIES = ("nextlat-viz", "plotly", "kaleido", "numpy", "anndata", "scikit-learn", "umap-learn", "torch")


def write_figure(
    figure: go.Figure,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    *,
    width: int | None = None,
    scale: float = 2.0,
    inches: float | None = None,
) -> Path:
    """Write a figure to a file, and its provenance to a second one, such as ``a.png.json`` for ``a.png``.

    Parameters
    ----------
    figure : plotly Figure
    path : path
        Ends in ``.html`` (works offline, plotly inside), ``.png``, ``.svg`` or ``.pdf``.
    provenance : dict, optional
        Parameters, and `provenance_of` the latents.
    width : int, optional
        Pixels at scale 1; default the figure's own, or 1,100. The height is the figure's own.
    scale : float
        Pixels of a PNG per pixel of width.
    inches : float, optional
        Width of an SVG or a PDF in print; default 96 pixels to the inch.

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
        For PNG, SVG or PDF when no browser is found to draw them with; names what to install.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_figure(go.Figure(), Path(folder) / "empty.html", {"color": "state"})
    ...     json.loads((Path(folder) / "empty.html.json").read_text())["parameters"]
    {'color': 'state'}
    """
    path = io.resolve(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("kind of figure file", path.suffix or path.name, [f".{name}" for name in FORMATS])
    with io.draft(path) as draft, io.draft(sidecar(path)) as record:
        if kind == "html":
            page = plotly.io.to_html(figure, config=configuration(figure), include_plotlyjs=True, full_html=True)
            draft.write_text(page, encoding="utf-8")
        else:
            across = int(width or figure.layout.width or 1100)
            vector = 1.0 if inches is None else inches * _PER_INCH / across
            draft.write_bytes(_image(figure, kind, across, scale if kind == "png" else vector))
        record.write_text(provenance_text(path.name, provenance or {}), encoding="utf-8")
    return path


def sidecar(path: Path) -> Path:
    """Return the path of the JSON file that records a file's provenance: the whole name, so that each file has one."""
    return path.with_name(f"{path.name}.json")


def write_images(
    figures: Mapping[str, tuple[go.Figure, Mapping[str, Any]]],
    folder: str | os.PathLike[str],
    kinds: Sequence[str],
    *,
    width: int = 1100,
) -> list[Path]:
    """Write figures as images of several kinds into a folder, keeping one browser open for all of them.

    `figures` is {name: (figure, provenance)}, `kinds` of "png", "svg", "pdf"; they are left out, with a warning that
    names what to install, where no browser is found to draw them with. `width` is for figures without one.
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
    """Return the kinds of image that can be drawn here: all, or none and a warning where no browser is found.

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
    """Keep one browser open while several images are written, which then takes a fifth of the time.

    Where no browser is found, nothing is kept open, and `write` raises.
    """
    path = browser()
    if path is None:
        yield
        return
    import kaleido

    kaleido.start_sync_server(path=path, silence_warnings=True)
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


def provenance_of(*latents: AnnData) -> dict[str, Any]:
    """Return what a sidecar should record of latents: checkpoints, hashes of their weights, hashes of the episodes."""
    from nextlat_viz.latents import metas

    models = [model for table in latents for model in metas(table).values()]
    keep = ("name", "label", "step", "weights_sha256", "episodes_sha256")
    return {"models": [{key: model[key] for key in keep} | {"world": json.loads(model["world"])} for model in models]}


def _image(figure: go.Figure, kind: str, width: int, scale: float) -> bytes:
    try:
        import kaleido  # noqa: F401
        from choreographer.errors import ChromeNotFoundError
    except ImportError as error:
        raise RuntimeError(f"writing .{kind} needs kaleido: pip install kaleido (or write .html)") from error
    path = browser()
    if path is None:
        raise RuntimeError(f"writing .{kind}: {NO_BROWSER}, or write .html, which needs none")
    # Kaleido looks for a browser too, but not among Playwright's.
    os.environ["BROWSER_PATH"] = path
    try:
        with warnings.catch_warnings():
            # plotly passes options that an open browser has already received.
            warnings.filterwarnings("ignore", message="The kopts argument is ignored", category=UserWarning)
            data: bytes = plotly.io.to_image(
                figure,
                format=kind,
                width=width,
                height=figure.layout.height or 450,
                scale=scale,
            )
    except (ChromeNotFoundError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "chrome" not in str(error).lower():
            raise
        raise RuntimeError(f"writing .{kind}: {NO_BROWSER}, or write .html, which needs none") from error
    return data


def provenance_record(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a file: its name, parameters, the versions of the libraries, and the time."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[library] = version(library)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"figure": name, "parameters": io.plain(parameters), "versions": versions, "created": created}


def provenance_text(name: str, parameters: Mapping[str, Any]) -> str:
    """Return `provenance_record` as the text of a JSON file."""
    return json.dumps(provenance_record(name, parameters), indent=2, allow_nan=False) + "\n"


class Options(TypedDict):
    width: int
    scale: float
    inches: float


def _options(width: int, inches: float, dots: int) -> Options:
    return {"width": width, "scale": dots * inches / width, "inches": inches}


SIZES: dict[str, Options] = {
    # A column of a two-column page: text of 12 pixels is 6.4 points here, and a PNG has 300 dots per inch.
    "column": _options(440, 3.25, 300),
    # The text of a page, where 12 pixels are 9 points.
    "text": _options(648, 6.75, 300),
    # Laid out at a third of a screen's 1,920 pixels, so that 12 pixels are 18 points.
    "slide": _options(640, 40 / 3, 144),
}
_MOST_VIEWS = {"column": 2}


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
    """Return the options to give to `write_figure` for a size.

    A PNG then has 300 dots per inch, or the 1,920 pixels of a slide; an SVG or a PDF is as wide as in print.

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
    {'width': 640, 'scale': 3.0, 'inches': 13.333333333333334}
    """
    if size not in SIZES:
        raise unknown("print size", size, SIZES)
    return SIZES[size]
