"""Figures as files, each with a JSON beside it that says where it came from."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import plotly.io

from nextlat_viz import io
from nextlat_viz.errors import unknown
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
