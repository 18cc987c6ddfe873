"""HTML pages made from templates: they work offline, in light and dark, and contain their provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nextlat_viz import io
from nextlat_viz.display import escape
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.export import sidecar
from nextlat_viz.figures.provenance import provenance_text
from nextlat_viz.plotting import CURSOR, configuration

PLOTLY_FILE, INDEX_FILE = "plotly.min.js", "index.html"


def _escaped(value: Any) -> Any:
    # Jinja's autoescape would keep characters that change the direction of the text around them.
    return Markup(escape(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


_TEMPLATES = Environment(
    loader=PackageLoader("nextlat_viz.pages"),
    autoescape=True,
    finalize=_escaped,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
_TEMPLATES.globals |= {"cursor": CURSOR, "plotly_file": PLOTLY_FILE, "index_file": INDEX_FILE}


def render(
    template: str,
    title: str,
    provenance: Mapping[str, Any] | None = None,
    *,
    plotly: bool = True,
    gallery: bool = False,
    **values: Any,
) -> str:
    """Fill the template of a page: a file in ``templates/`` that extends ``page.html``.

    The provenance is shown at the end, folded. `plotly` says whether the page has figures. With `gallery`, the page
    loads ``plotly.min.js`` from its folder instead of containing it, and links to ``index.html``. `values` are the
    variables of the template; text is escaped, `Markup` is not.

    Examples
    --------
    >>> page = render("figure.html", "A & B", {"d": "<e>"}, plotly=False, note="C", figure="")
    >>> "<h1>A &amp; B</h1>" in page, "&lt;e&gt;" in page, len(page) < 5000
    (True, True, True)
    """
    shown: dict[str, Any] = {"title": title, "gallery": gallery, **values}
    shown["provenance"] = json.dumps(io.plain(provenance), indent=2) if provenance else ""
    shown["plotly"] = plotly and (gallery or Markup(get_plotlyjs()))
    return _TEMPLATES.get_template(template).render(shown)


def figure_html(figure: go.Figure, number: int = 0) -> Markup:
    """Return a figure as HTML for a page that has plotly.js, without a background, so that the page's shows."""
    clear = go.Figure(figure).update_layout(template=themes.template("auto"))
    options = {
        "config": configuration(figure),
        "include_plotlyjs": False,
        "full_html": False,
        "div_id": f"figure-{number}",
    }
    return Markup(plotly.io.to_html(clear, **options))


def write_page(page: str, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
    """Write a page to a file, and its provenance to a JSON file of the same name.

    Parameters
    ----------
    page : str
        HTML, as `episode_page` returns it.
    path : path
        Ends in ``.html``.

    Returns
    -------
    Path
        The page. If writing fails, neither file is left behind.

    Raises
    ------
    ValueError
        For another ending.
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_page("<p>", Path(folder) / "a.html", {"world": "rrxor"})
    ...     sorted(file.name for file in path.parent.iterdir())
    ['a.html', 'a.html.json']
    """
    path = io.resolve(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path={str(path)!r}: a page is written to a file that ends in .html")
    with io.draft(path) as draft, io.draft(sidecar(path)) as record:
        draft.write_text(page, encoding="utf-8")
        record.write_text(provenance_text(path.name, provenance or {}), encoding="utf-8")
    return path
