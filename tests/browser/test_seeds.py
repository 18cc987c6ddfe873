"""Three models in a real JupyterLab: the strip of models, the colour key, and the fading path."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect

from .lab import Notebook, Plot, box, settle, wait_for

CELL = """
from nextlat_viz.notebook import ViewState
from nextlat_viz.notebook.studio import Studio
studio = Studio(state=ViewState("rrxor/next_token", "rrxor/nextlat", "rrxor/nextlat/seed1", max_points=600))
studio.state.go_to(3, 12)
studio.state.arrange(view="pca")
studio
"""


def test_strip_colour_key_and_path(book: Notebook) -> None:
    book.run_other(CELL)
    page = book.page
    space, small = page.locator(".nlv-card-space"), page.locator(".nlv-small button")
    expect(small).to_have_count(3)
    expect(space.locator(".js-plotly-plot .main-svg").first).to_be_visible()

    # One screen: no small cloud and no tab lies outside of its column.
    right = box(page.locator(".nlv-studio"))["x"] + box(page.locator(".nlv-studio"))["width"]
    for part in (*small.all(), *page.locator(".nlv-line button").all()):
        assert box(part)["x"] + box(part)["width"] <= right + 1
    small.nth(2).click()
    book.wait_for_kernel("studio.state.compared[1] == 'rrxor/nextlat/seed1'")
    expect(small.nth(2)).to_have_attribute("data-role", "compared")
    expect(space).to_contain_text("NextLat, seed1")

    plot = Plot(page, space.locator(".js-plotly-plot"))
    name = space.locator(".colorbar [data-entry='1']")
    name.click()
    book.wait_for_kernel("len(studio.state.filter.get('state', ())) == 1")
    settle(plot)
    name.focus()
    # A drawing that replaces the names leaves the focus where it was.
    for kept in ("== {}", "!= {}", "== {}"):
        page.keyboard.press("Enter")
        book.wait_for_kernel(f"studio.state.filter {kept}")
        settle(plot)
        expect(name).to_be_focused()

    # The path is more opaque at its newest end than at its oldest.
    trail = "plot.data.filter(t => t.meta?.role === 'trail' && t.meta.model === 0)"
    parts = plot.evaluate(f"{trail}.map(t => [t.x.length, t.line.color])")
    assert [length for length, _ in parts] == [7, 5, 2]
    alphas = [float(color.split(",")[-1].rstrip(") ")) if color.startswith("rgba") else 1.0 for _, color in parts]
    assert alphas == sorted(alphas)
    assert np.ptp(alphas) > 0.5
    before = settle(plot)
    book.kernel("None", setup="studio.panels['space']._go(40)")
    wait_for(lambda: "Nearest in" in space.inner_text(), "the nearest rows")
    assert plot.wait_for_change(before) > 0
