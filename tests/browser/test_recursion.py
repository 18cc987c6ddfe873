"""Notebook 07 in a real JupyterLab: its figures are drawn, and the boards in the studio follow the recursion step."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.project.test_notebooks import fewer_rows

from .lab import Notebook, Plot, settle

RECURSION = Path(__file__).parents[2] / "notebooks" / "07_recursion.ipynb"


def test_boards_follow_the_recursion_step(book: Notebook, tmp_path: Path) -> None:
    book.run_other(fewer_rows(RECURSION, tmp_path), 300)
    page = book.page
    figures = page.locator(".jp-OutputArea-output .js-plotly-plot")
    for place in range(min(figures.count(), 6)):
        figures.nth(place).scroll_into_view_if_needed()
        expect(figures.nth(place).locator(".main-svg").first).to_be_visible()
        book.screenshot(f"figure{place}")
    studio = page.locator(".nlv-studio").first
    studio.scroll_into_view_if_needed()
    world = studio.locator(".nlv-card-world .js-plotly-plot")
    expect(world.locator(".main-svg").first).to_be_visible()
    before = settle(Plot(page, world))
    book.screenshot("studio")
    book.keys("Recursion step", "End")
    book.wait_for_kernel("studio.state.position == studio.state.scene.positions(0)[-1]")
    assert Plot(page, world).wait_for_change(before) > 0
    expect(studio.locator(".nlv-card-thinking .js-plotly-plot .main-svg").first).to_be_visible()
    book.screenshot("last-step")
    assert not page.locator("[role=alert]").count()
