"""One self-contained page of figures and tables."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.export import _sidecar, writable
from nextlat_viz.plotting import CONFIG

_STYLE = """
:root { color-scheme: light dark; --ink: #23272e; --soft: #6b7078; --paper: #ffffff; --card: #f6f7f9; --rule: #dfe2e7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #9aa0a8; --paper: #111214; --card: #1a1c20; --rule: #33373d }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, sans-serif }
main { max-width: 1140px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem }
p, .made { color: var(--soft); max-width: 46rem; margin: .3rem 0 .9rem }
.wide { overflow-x: auto } figure { margin: 0; overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .38rem .9rem .38rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { color: var(--soft); font-weight: 600 }
details { margin-top: 3rem; color: var(--soft) } summary { cursor: pointer }
pre { background: var(--card); padding: 1rem; border-radius: 8px; overflow-x: auto; font-size: .82rem }
"""


def report(
    figures: Mapping[str, go.Figure],
    tables: Mapping[str, pd.DataFrame],
    title: str,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write figures and tables as one HTML page that works offline, in light and dark.

    Parameters
    ----------
    figures : {heading: plotly Figure}
        Drawn without a background and with mid-grey text, so that the page's light or dark shows.
    tables : {heading: DataFrame}
        Shown first; numbers with four digits.
    title : str
    path : path
        Where to write; ``.html``.
    provenance : dict, optional
        Shown folded at the end of the page.
    notes : {heading: text}, optional
        A sentence under a heading of ``figures`` or ``tables``.

    Returns
    -------
    Path
        The page written.

    Raises
    ------
    OSError
        When the folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> scores = pd.DataFrame({"R2": [0.73, 0.94]}, index=["next-token", "NextLat"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report({}, {"Belief": scores}, "A & B", Path(folder) / "report.html").read_text()
    >>> "<h1>A &amp; B</h1>" in page, "0.9400" in page
    (True, True)
    """
    path = Path(path)
    notes = notes or {}
    sections = [_section(heading, _table(table), notes) for heading, table in tables.items()]
    for number, (heading, figure) in enumerate(figures.items()):
        sections.append(_section(heading, f"<figure>{_div(figure, number)}</figure>", notes))
    made = _sidecar(path.name, provenance or {})
    origin = html.escape(json.dumps(made, indent=2))
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"{f'<script>{get_plotlyjs()}</script>' if figures else ''}</head>\n<body><main>\n"
        f"<h1>{html.escape(title)}</h1><div class='made'>Made with nextlat_viz, {made['created']}</div>\n"
        f"{''.join(sections)}"
        f"<details><summary>Where this came from</summary><pre>{origin}</pre></details>"
        "\n</main></body></html>\n"
    )
    with writable(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def _section(heading: str, body: str, notes: Mapping[str, str]) -> str:
    note = f"<p>{html.escape(notes[heading])}</p>" if heading in notes else ""
    return f"<section><h2>{html.escape(heading)}</h2>{note}{body}</section>\n"


def _table(table: pd.DataFrame) -> str:
    named = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
    text = table.to_html(escape=True, border=0, index=named, float_format=lambda value: f"{value:.4f}", na_rep="")
    return f'<div class="wide">{text}</div>'


def _div(figure: go.Figure, number: int) -> str:
    shown = go.Figure(figure).update_layout(template=themes.template("auto"))
    text: str = plotly.io.to_html(
        shown, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=f"figure-{number}"
    )
    return text
