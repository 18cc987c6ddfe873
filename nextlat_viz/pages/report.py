"""Report: one page of figures and tables, such as those of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from nextlat_viz import io
from nextlat_viz.display import draws
from nextlat_viz.figures.export import write_images
from nextlat_viz.figures.measures import measure_figure
from nextlat_viz.figures.provenance import provenance_record
from nextlat_viz.pages.page import figure_html, render

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
        Drawn without a background, so that the page's shows.
    tables : {heading: DataFrame}
        Shown first; numbers with four digits.
    path : path
        File to write; ``.html``.
    provenance : dict, optional
        Shown at the end of the page, folded.
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
    path, notes = io.resolve(path), notes or {}
    contents = {heading: table_html(table) for heading, table in tables.items()}
    sections = [{"heading": heading, "content": content} for heading, content in contents.items()]
    for number, (heading, figure) in enumerate(figures.items()):
        content = Markup("<figure>{}</figure>").format(figure_html(figure, number))
        sections.append({"heading": heading, "content": content})
    sections = [{**section, "note": notes.get(section["heading"], "")} for section in sections]
    record = provenance_record(path.name, provenance or {})
    values = {"sections": sections, "created": record["created"]}
    io.write(path, render("report.html", title, record, plotly=bool(figures), **values))
    return path


def table_html(table: pd.DataFrame) -> Markup:
    """Return a table for a page; numbers with four digits."""
    named = table.index.name is not None or not isinstance(table.index, pd.RangeIndex)
    text = table.to_html(escape=True, border=0, index=named, float_format=lambda value: f"{value:.4f}", na_rep="")
    return Markup(f'<div class="wide">{text}</div>')


@draws("evaluation")
def evaluation_report(evaluation: Evaluation, folder: Path, images: Sequence[str] = ()) -> list[Path]:
    """Write ``report.html`` with a figure of every measure, and images of the figures; return the files."""
    models = evaluation.table[["model", "weights_sha256"]].drop_duplicates().to_dict("records")
    provenance = {"command": "nextlat-viz evaluate", "models": models}
    results = {f"{result.name}, {world}": result for (_, world), result in evaluation.measures.items()}
    drawn = {heading: measure_figure(result) for heading, result in results.items()}
    notes = {heading: result.note for heading, result in results.items()}
    page = report(drawn, {}, "Evaluation", folder / "report.html", provenance, notes)
    pictures = {
        f"{name}_{world}": (measure_figure(result, theme="light"), {**provenance, "note": result.note})
        for (name, world), result in evaluation.measures.items()
    }
    return [page, *write_images(pictures, folder, images)]
