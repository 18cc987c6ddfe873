"""What-if panel in a real JupyterLab: a belief and a place are dragged by mouse, and the predictions change."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook, box, wait_for

# The studio shows the panel alone.
SETUP = """
from nextlat_viz.notebook.serve import studio
opened = studio({models})
opened.state.arrange(detail="what_if", large="what_if")
opened.state.target = {target!r}
opened.state.go_to(3, 5)
card = opened.panels["what_if"]
opened
"""
# Whether the figure fills its place, which ends at the right edge of the card.
WIDE = """
(plot, card) => Math.abs(plot._fullLayout.width - plot.clientWidth) <= 2
    && plot.getBoundingClientRect().right > card.getBoundingClientRect().right - 0.1 * card.offsetWidth
"""
HANDLE = "list(card.plane.cloud.handle)"


def shares(plot: Locator) -> Any:
    """Return the bars after the edit, from the page."""
    return plot.evaluate("plot => plot._fullData.filter(t => t.meta?.role === 'after').map(t => [...t.y])")


@pytest.mark.parametrize(
    ("name", "models", "target", "text"),
    [
        ("rrxor", '"rrxor/next_token", "rrxor/nextlat"', "belief", "KL from exact"),
        ("taxi", '"taxi/next_token", "taxi/nextlat"', "x", "no exact prediction"),
    ],
)
def test_a_dragged_target_changes_the_predictions(
    name: str, models: str, target: str, text: str, book: Notebook
) -> None:
    book.run_other(SETUP.format(models=models, target=target), 240)
    page = book.page
    card = page.locator(".nlv-card-what_if")
    plot, handle = card.locator(".js-plotly-plot"), card.locator(".nlv-cloud-handle")
    expect(plot.locator(".main-svg").first).to_be_visible()
    cloud = card.locator(".nlv-cloud")
    handle.scroll_into_view_if_needed()
    wait_for(lambda: shares(plot), "the bars")
    drawn = book.drawn(cloud, "opened")
    before, start = shares(plot), box(handle)
    stage = box(card.locator(".nlv-cloud-stage"))
    page.mouse.move(start["x"] + 8, start["y"] + 8)
    page.mouse.down()
    # To a place next to the middle of the picture, away from every crossing.
    page.mouse.move(stage["x"] + 0.4 * stage["width"], stage["y"] + 0.3 * stage["height"], steps=12)
    page.mouse.up()
    book.wait_for_kernel("card.to.value.endswith('dragged')")
    wait_for(lambda: shares(plot) != before, "other bars")
    expect(card).to_contain_text(text)
    # The marker stays where it was dropped, or at the nearest place that can be read.
    wait_for(lambda: abs(box(handle)["y"] - start["y"]) + abs(box(handle)["x"] - start["x"]) > 5, "the marker to move")
    assert book.drawn(cloud, "opened") == drawn

    # Arrow keys move it too.
    place = book.kernel(HANDLE)
    handle.focus()
    page.keyboard.press("Shift+ArrowDown")
    book.wait_for_kernel(f"{HANDLE} != {place}")
    # The studio's own arrow keys move the cursor; the marker's do not.
    assert book.kernel("opened.state.position") == 5
    assert book.kernel("card._alert.value + card.words") == ""

    for width, theme in ((1280, "Light"), (1280, "Dark"), (1920, "Dark")):
        page.set_viewport_size({"width": width, "height": 1000})
        book.theme(f"JupyterLab {theme}")
        card.scroll_into_view_if_needed()
        wait_for(lambda: plot.evaluate(WIDE, card.element_handle()), "the figure to be as wide as its cell")
        book.screenshot(f"{name}-{width}-{theme.lower()}")
    book.theme("JupyterLab Light")
    page.set_viewport_size({"width": 1280, "height": 1000})
