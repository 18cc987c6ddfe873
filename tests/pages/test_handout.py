"""Handouts: every lesson fills a page, formulas are MathML, and errors name what a notebook lacks."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from nextlat_viz.cli import main
from nextlat_viz.pages import handout, write_handouts
from nextlat_viz.pages.handout import read_handout

INTRODUCTION = "# Lesson 1: Coins\n\n**Is the coin fair?**\n\nFormula:\n\n$$\\hat p = \\frac{k}{n}$$"
SUMMARY = "## What you have learnt\n\n- A **coin** is `fair`,\n  or [not](01.ipynb).\n- $p$ is known.\n\nNext: 2."
FIGURE = "import plotly.graph_objects as go\n\nprint('noise')\ngo.Figure(layout_title_text='{}')"


def notebook(folder: Path, *cells: tuple[str, str], tags: dict[int, list[str]] | None = None) -> Path:
    result = []
    for number, (kind, source) in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source) if kind == "code" else nbformat.v4.new_markdown_cell(source)
        cell.metadata["tags"] = (tags or {}).get(number, [])
        result.append(cell)
    path = folder / "01_coins.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=result), path)
    return path


def lesson(folder: Path, tags: dict[int, list[str]] | None = None) -> Path:
    cells = [
        ("md", INTRODUCTION),
        ("code", FIGURE.format("first")),
        ("md", "*In words:* a coin\nof gold.\n\nMore."),
        ("code", FIGURE.format("second")),
        ("md", "**Exercise.** Toss <it>."),
        ("code", "def toss(coin):\n    ..."),
        ("code", "raise RuntimeError('not run')"),
        ("md", SUMMARY),
    ]
    return notebook(folder, *cells, tags={5: ["exercise", "toss"]} | (tags or {}))


def test_the_parts_of_a_lesson(tmp_path: Path) -> None:
    page = read_handout(lesson(tmp_path))
    assert (page.title, page.question) == ("Lesson 1: Coins", "Is the coin fair?")
    assert page.points == ("A **coin** is `fair`,\n  or [not](01.ipynb).", "$p$ is known.")
    assert page.formulas == ("\\hat p = \\frac{k}{n}",)
    assert (page.figure.layout.title.text, page.words) == ("first", "A coin\nof gold.")
    assert (page.tasks, page.codes) == (("Toss <it>.",), ("def toss(coin):\n    ...",))


def test_a_tag_chooses_the_figure(tmp_path: Path) -> None:
    assert read_handout(lesson(tmp_path, {3: ["figure"]})).figure.layout.title.text == "second"


def test_a_handout_is_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["handouts", str(lesson(tmp_path)), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.split() == ["open", str(tmp_path / "out" / "index.html")]
    page = (tmp_path / "out" / "01_coins.html").read_text("utf-8")
    assert "<strong>coin</strong> is <code>fair</code>" in page
    assert "href" not in page.partition("<h2>")[2]
    assert "<mfrac><mrow><mi>k</mi></mrow><mrow><mi>n</mi></mrow></mfrac>" in page
    assert "Toss &lt;it&gt;." in page
    assert "size: A4" in page
    assert 'href="01_coins.html"' in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_notebook_that_is_no_lesson_is_refused(tmp_path: Path) -> None:
    path = notebook(tmp_path, ("md", "# Title"), ("code", "1"))
    with pytest.raises(ValueError, match=r"01_coins.ipynb lacks: question in bold, ## What you have learnt"):
        read_handout(path)
    with pytest.raises(FileNotFoundError, match="holds no lessons"):
        write_handouts(tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize(("source", "said"), [("1 / 0", "cell 1 raised ZeroDivisionError"), ("1", "with a figure")])
def test_a_lesson_without_a_figure_is_refused(tmp_path: Path, source: str, said: str) -> None:
    cells = [("md", INTRODUCTION), ("code", source), ("md", f"**Exercise.** Toss.\n\n{SUMMARY}"), ("code", "...")]
    with pytest.raises(ValueError, match=said):
        handout.read_handout(notebook(tmp_path, *cells, tags={3: ["exercise", "toss"]}))
