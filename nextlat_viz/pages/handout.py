"""Handouts: one printed page for each lesson, made from its notebook."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mistune
import plotly.graph_objects as go
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from latex2mathml.converter import convert
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from traitlets.config import Config

from nextlat_viz import io
from nextlat_viz.pages.gallery import Item
from nextlat_viz.pages.page import INDEX_FILE, PLOTLY_FILE, figure_html, render, write_page
from nextlat_viz.paths import PACKAGE

LESSONS = PACKAGE.parent / "notebooks" / "course"
# Size of the figure in pixels: an A4 page has 680 between margins of 15 mm.
_WIDTH, _HEIGHT = 660, 310
_SUMMARY, _EXERCISE, _IN_WORDS = "## What you have learnt", "**Exercise.**", "*In words:*"
_NOTE = "One page for each lesson, to print on A4. All pages share plotly.min.js, so keep the folder together."


@dataclass(frozen=True)
class Handout:
    """The content of a lesson's page.

    Attributes
    ----------
    title, question : str
        Title and question of the lesson, as Markdown.
    points : tuple of str
        Terms with their explanation: the list of "What you have learnt".
    formulas : tuple of str
        The display formulas, in LaTeX.
    figure, words : Figure, str
        The first figure, or that of the cell with the tag "figure", and its description.
    tasks, codes : tuples of str
        The exercises, and the functions to fill in.
    """

    title: str
    question: str
    points: tuple[str, ...]
    formulas: tuple[str, ...]
    figure: go.Figure
    words: str
    tasks: tuple[str, ...]
    codes: tuple[str, ...]


def write_handouts(lessons: str | os.PathLike[str] = LESSONS, out: str | os.PathLike[str] = "handouts") -> Path:
    """Write a page for every lesson, and an ``index.html``.

    Parameters
    ----------
    lessons : folder of notebooks, or one notebook
        By default the lessons of a clone. The cells of a notebook are run, up to the figure that is shown.
    out : folder
        Where to write the pages.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    FileNotFoundError
        If there are no notebooks.
    ValueError
        If a notebook lacks one of the parts of a lesson; the message names both.
    OSError
        If the folder cannot be written to.
    """
    folder, source = io.resolve(out, "out"), io.resolve(lessons, "lessons")
    notebooks = [source] if source.suffix == ".ipynb" else sorted(source.glob("[0-9]*.ipynb"))
    if not notebooks or not notebooks[0].is_file():
        raise FileNotFoundError(
            f"{source} holds no lessons: handouts are made from the notebooks of a clone, notebooks/course. Give that "
            "folder, or one notebook"
        )
    io.write(folder / PLOTLY_FILE, get_plotlyjs())
    items = []
    for path in notebooks:
        handout = read_handout(path)
        page = f"{path.stem}.html"
        provenance = {"command": "nextlat-viz handouts", "notebook": path.name}
        write_page(_page(handout, provenance), folder / page, provenance)
        items.append(Item(handout.title, _plain(handout.question), page))
    contents: dict[str, Any] = {"note": _NOTE, "sections": {"Lessons": items}, "missing": {}}
    return write_page(render("index.html", "Handouts", plotly=False, **contents), folder / INDEX_FILE)


def read_handout(path: Path) -> Handout:
    """Read the parts of a lesson, and run its cells up to the figure; raises as `write_handouts` does."""
    cells = [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text("utf-8"))["cells"]]
    texts = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    paragraphs = [part.strip() for text in texts for part in re.split(r"\n\s*\n", text)]
    title = next((part.removeprefix("# ") for part in paragraphs if part.startswith("# ")), "")
    question = next((part.strip("*") for part in paragraphs if re.fullmatch(r"\*\*[^*]+\*\*", part)), "")
    summary = next((text.partition(_SUMMARY)[2] for text in texts if _SUMMARY in text), "")
    points = re.findall(r"^- (.+(?:\n  .+)*)", summary.strip().partition("\n\n")[0], re.M)
    tasks = [part.removeprefix(_EXERCISE).strip() for part in paragraphs if part.startswith(_EXERCISE)]
    codes = [cell["source"] for cell in cells if "exercise" in _tags(cell)]
    parts = {"title": title, "question in bold": question, _SUMMARY: points, _EXERCISE: tasks, "exercise cell": codes}
    missing = [name for name, part in parts.items() if not part]
    if missing:
        raise ValueError(f"{path.name} lacks: {', '.join(missing)}")
    formulas = [formula.strip() for text in texts for formula in re.findall(r"\$\$(.+?)\$\$", text, re.S)]
    figure, words = _first_figure(path, cells)
    return Handout(title, question, tuple(points), tuple(formulas), figure, words, tuple(tasks), tuple(codes))


def _tags(cell: Mapping[str, Any]) -> Sequence[str]:
    tags: Sequence[str] = cell["metadata"].get("tags", ())
    return tags


def _first_figure(path: Path, cells: Sequence[Mapping[str, Any]]) -> tuple[go.Figure, str]:
    """Run the code up to the tagged figure, by default the first; return the figure and its description."""
    code = [number for number, cell in enumerate(cells) if cell["cell_type"] == "code"]
    tagged = [number for number in code if "figure" in _tags(cells[number])]
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    for number in code:
        with capture_output():
            outcome = shell.run_cell(cells[number]["source"])
        if not outcome.success:
            error = outcome.error_before_exec or outcome.error_in_exec
            raise ValueError(f"{path.name}: cell {number} raised {type(error).__name__}: {error}") from error
        if isinstance(outcome.result, go.Figure) and number in (tagged or [number]):
            words = (_words(cell["source"]) for cell in cells[number + 1 :] if cell["cell_type"] == "markdown")
            return outcome.result, next((text for text in words if text), "")
    raise ValueError(f"{path.name} lacks: a cell that ends with a figure")


def _words(text: str) -> str:
    match = re.search(rf"^{re.escape(_IN_WORDS)}(.+?)(?:\n\s*\n|\Z)", text, re.M | re.S)
    words = match[1].strip() if match else ""
    return words[:1].upper() + words[1:]


class _Print(mistune.HTMLRenderer):
    """Renders Markdown for paper: formulas as MathML, and links as plain text."""

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return text

    def inline_math(self, text: str) -> str:
        return str(convert(text))

    def block_math(self, text: str) -> str:
        return str(convert(text, display="block"))


_MARKDOWN = mistune.create_markdown(renderer=_Print(), plugins=["math", "table"])


def _html(text: str) -> Markup:
    return Markup(_MARKDOWN(text))


def _plain(text: str) -> str:
    return re.sub(r"[*`$]", "", text)


def _page(handout: Handout, provenance: Mapping[str, Any]) -> str:
    figure = go.Figure(handout.figure).update_layout(width=_WIDTH, height=_HEIGHT, margin={"t": 40, "b": 40})
    values: dict[str, Any] = {
        "question": handout.question,
        "points": [_html(point) for point in handout.points],
        "formulas": [Markup(convert(formula, display="block")) for formula in handout.formulas],
        "figure": figure_html(figure),
        "words": _html(handout.words),
        "exercises": list(zip(map(_html, handout.tasks), handout.codes, strict=False)),
    }
    return render("handout.html", _plain(handout.title), provenance, gallery=True, **values)
