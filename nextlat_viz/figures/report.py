"""One self-contained page of figures and tables."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io

from nextlat_viz import io
from nextlat_viz.display import draws
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.export import _sidecar, one_browser, write
from nextlat_viz.figures.measures import measure_figure
from nextlat_viz.figures.page import document
from nextlat_viz.plotting import CONFIG

if TYPE_CHECKING:
    from nextlat_viz.analysis.measure import Evaluation


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
        sections.append(_section(heading, f"<figure>{div(figure, number)}</figure>", notes))
    made = _sidecar(path.name, provenance or {})
    body = f"<div class='made'>Made with nextlat_viz, {made['created']}</div>\n{''.join(sections)}"
    text = document(title, body, plotly=bool(figures), provenance=made)
    io.write(path, text)
    return path


def _section(heading: str, body: str, notes: Mapping[str, str]) -> str:
    note = f"<p>{html.escape(notes[heading])}</p>" if heading in notes else ""
    return f"<section><h2>{html.escape(heading)}</h2>{note}{body}</section>\n"


def _table(table: pd.DataFrame) -> str:
    named = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
    text = table.to_html(escape=True, border=0, index=named, float_format=lambda value: f"{value:.4f}", na_rep="")
    return f'<div class="wide">{text}</div>'


def div(figure: go.Figure, number: int) -> str:
    """Return a figure as part of a page that has plotly.js, on the page's own background."""
    shown = go.Figure(figure).update_layout(template=themes.template("auto"))
    text: str = plotly.io.to_html(
        shown, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=f"figure-{number}"
    )
    return text


@draws("evaluation")
def evaluation_report(evaluation: Evaluation, folder: Path, images: Sequence[str] = ()) -> list[Path]:
    """Write ``report.html`` with a figure of every measure, and images of the figures; return the files."""
    models = evaluation.table[["model", "weights_sha256"]].drop_duplicates().to_dict("records")
    provenance = {"command": "nextlat-viz evaluate", "models": models}
    results = {f"{result.name}, {world}": result for (_, world), result in evaluation.measures.items()}
    figures = {heading: measure_figure(result) for heading, result in results.items()}
    notes = {heading: result.note for heading, result in results.items()}
    written = [report(figures, {}, "Evaluation", folder / "report.html", provenance, notes)]
    with one_browser():
        for (name, world), result in evaluation.measures.items():
            for image in images:
                path = folder / f"{io.file_name(f'{name}_{world}')}.{image}"
                figure = measure_figure(result, theme="light")
                written.append(write(figure, path, provenance | {"note": result.note}))
    return written
