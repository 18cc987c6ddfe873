"""Notebooks are committed clean: no outputs, and no widget state, which holds five megabytes of plotly each."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from .pyproject import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_quickstart_comes_first() -> None:
    assert NOTEBOOKS[0].name == "01_quickstart.ipynb"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"cell {cell.id} has outputs: clear them"
            assert cell.execution_count is None, f"cell {cell.id} has a count: clear it"
            assert cell.source.strip(), f"cell {cell.id} is empty"
