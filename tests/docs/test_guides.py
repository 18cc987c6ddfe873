"""Every example of the pages runs. A cell that trains does so for two steps."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from docs import cells
from nextlat_viz import worlds
from nextlat_viz.analysis import measure
from nextlat_viz.figures.export import browser

DOCS = Path(__file__).parents[2] / "docs"
# The gallery takes longer than all guides together, so only building the site runs it.
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.name != "gallery.md" and cells.code(path)]


def test_pages_with_cells_exist() -> None:
    assert {"index.md", "quickstart.md", "own_world.md"} <= {path.name for path in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A page may register worlds and measures, which other tests must not see. The package's own stay registered.
    measure.battery()
    with mock.patch.dict(worlds.registry._factories), mock.patch.dict(measure.MEASURES):
        notebook = cells.run(path, quick=True, leave_out=() if browser() else ("browser",))
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert shown or path.name in ("install.md",)


def test_a_failing_example_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-cell} ipython3\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"page\.md, cell 0: ZeroDivisionError"):
        cells.run(page)


def test_a_widget_is_shown_without_a_kernel(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "import nextlat_viz as nlv\nnlv.EpisodeStepper('z1r', length=4)"
    page.write_text(f"```{{code-cell}} ipython3\n{code}\n```\n", encoding="utf-8")
    (cell,) = cells.run(page, tmp_path / "episodes", "page").cells
    (output,) = cell.outputs
    assert "<iframe" in output.data["text/html"]
    (episode,) = (tmp_path / "episodes").iterdir()
    assert "../_static/plotly.min.js" in episode.read_text(encoding="utf-8")
