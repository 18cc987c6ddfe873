"""Notebooks are committed clean: no outputs, and no widget state, which holds five megabytes of plotly each."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import jaxtyping
import nbformat
import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances

from docs import cells

from .pyproject import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = sorted((ROOT / "notebooks" / "course").glob("*.ipynb"))
LINK = re.compile(r"\]\(([^)#\s]+)")

# These run in JupyterLab, because their widgets must be shown.
IN_BROWSER = {
    "01_quickstart.ipynb": "test_quickstart.py",
    "02_worlds.ipynb": "test_worlds.py",
    "04_studio.ipynb": "test_studio.py",
    "07_recursion.ipynb": "test_recursion.py",
}

# Rows, rides, pairs, steps of training and seeds, of which a cell takes hundreds. The site's notebooks, which CI
# builds, have all of them.
MOST = {
    r"\bn=": 4, r"\bn_rides=": 8, r"\bheldout\(.*, ": 60, r"\bsample\(": 300, r'\bsteps(?:=|": )': 12,
    # Those of rrxor, of two objectives: what follows takes the second half of the list.
    r"\brrxor\b.*\brange\(": 2, r"\brrxor\[": 2,
}  # fmt: skip


def test_the_start_page_links_every_notebook() -> None:
    start, *others = NOTEBOOKS
    assert start.name == "00_start.ipynb"
    assert "notebooks/00_start.ipynb" in (ROOT / "Makefile").read_text(encoding="utf-8")
    linked = {(start.parent / target).resolve() for target in LINK.findall(start.read_text(encoding="utf-8"))}
    assert linked >= {*others, *LESSONS}


@pytest.mark.parametrize("path", [*NOTEBOOKS, *LESSONS], ids=lambda path: path.name)
def test_links_exist(path: Path) -> None:
    for target in LINK.findall("".join(cell.source for cell in nbformat.read(path, as_version=4).cells)):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [*NOTEBOOKS, *LESSONS], ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"cell {cell.id} has outputs: clear them"
            assert cell.execution_count is None, f"cell {cell.id} has a count: clear it"
            assert cell.source.strip(), f"cell {cell.id} is empty"


def test_the_other_notebooks_run_in_the_browser_tests() -> None:
    for name, file in IN_BROWSER.items():
        assert name in (ROOT / "tests" / "browser" / file).read_text(encoding="utf-8")


def capped(found: re.Match[str], most: int) -> str:
    return f"{found[1]}{min(int(found[2]), most)}"


def fewer_rows(path: Path, folder: Path) -> Path:
    """Write the notebook with less to compute into a folder."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for before, most in MOST.items():
            cell.source = re.sub(rf"({before})(\d+)", partial(capped, most=most), cell.source)
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


# In this process, which has imported what a kernel would import again; without checks of shapes, as for a user.
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.name not in IN_BROWSER], ids=lambda path: path.name
)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    before = set(_instances)
    # Options that a notebook sets are not left to other tests.
    with pd.option_context("display.max_colwidth", 50):
        cells.run(fewer_rows(path, tmp_path))
    # A panel shows its own errors, and the cell ends without one.
    values = [str(getattr(_instances[number], "value", "")) for number in set(_instances) - before]
    assert not [value for value in values if 'role="alert"' in value]
