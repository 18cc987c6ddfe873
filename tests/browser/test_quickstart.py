"""The quickstart in a real JupyterLab: it runs by itself, and every input reaches the page and the kernel.

The tests share one open notebook, because opening and running it takes most of the time; each begins from the same
state.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, expect

from .lab import Notebook, Plot, Server, difference, settle, wait_for

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
# On a quiet machine it takes less than a minute; a busy one must not fail the test.
LIMIT = 180.0
UPLOADS = ("cloud", "share", "plotly")
WIDGETS = ("explorer", "probelab", "compare")
RESET = """
state.world, state.color, state.site, state.step = "rrxor", "state", "hidden", None
state.selection = ()
state.go_to(int(state.scene.held_out_episodes[0]), 1)
"""
FOCUSED = """
() => {
    const control = document.activeElement.closest(":has(> .widget-label)");
    // A name in a colour key is SVG, without innerText.
    const {innerText, textContent} = document.activeElement;
    return (control ? control.querySelector(".widget-label").innerText : innerText ?? textContent).trim();
}
"""


class Quickstart(NamedTuple):
    notebook: Notebook
    seconds: float

    def widget(self, name: str) -> Locator:
        """Return one of the three linked widgets."""
        return self.notebook.page.locator(".nextlat-viz").nth(WIDGETS.index(name))

    def plot(self, name: str) -> Plot:
        figure = self.widget(name).locator(".js-plotly-plot")
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".main-svg").first).to_be_visible()
        return Plot(self.notebook.page, figure)


@pytest.fixture(scope="module")
def opened(server: Server, browser: Browser) -> Iterator[Quickstart]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    notebook = Notebook(context.new_page(), server, QUICKSTART, "quickstart")
    seconds = notebook.run_all(2 * LIMIT)
    yield Quickstart(notebook, seconds)
    print("\n".join(notebook.console))
    notebook.close()
    context.close()


@pytest.fixture
def quickstart(opened: Quickstart, request: pytest.FixtureRequest) -> Iterator[Quickstart]:
    """The notebook in its state after the last cell, whatever the test before did."""
    notebook = opened.notebook
    notebook.kernel("None", setup=RESET)
    notebook.wait_for_kernel("not state.busy")
    settle(opened.plot("explorer"))
    yield opened
    if notebook.errors():
        notebook.screenshot(request.node.name)
    notebook.check()
    alerts = notebook.page.locator(".nextlat-viz [role=alert]").all_inner_texts()
    assert not alerts, alerts


def titles(plot: Plot) -> str:
    return str(plot.evaluate("(plot._fullLayout.annotations || []).map(note => note.text).join('\\n')"))


def trace(plot: Plot, role: str, model: int, column: str) -> int:
    """Return the index of one of the explorer's traces."""
    metas: list[Any] = plot.evaluate("plot._fullData.map(trace => trace.meta || {})")
    return next(
        i for i, m in enumerate(metas) if (m.get("role"), m.get("model"), m.get("column")) == (role, model, column)
    )


def axes(plot: Plot, index: int) -> str:
    return str(plot.evaluate(f"plot._fullData[{index}].xaxis"))[1:]


def point(plot: Plot, index: int, which: int) -> tuple[float, float]:
    """Return the coordinates of a point; negative numbers count from the end."""
    x, y = plot.evaluate(f"['x', 'y'].map(name => Array.from(plot.data[{index}][name]).at({which}))")
    return x, y


def view(plot: Plot, name: str, pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of one subplot."""
    left, top, wide, high = plot.evaluate(
        f"(({{xaxis{name}: x, yaxis{name}: y}}) => [x._offset, y._offset, x._length, y._length])(plot._fullLayout)"
    )
    return pixels[int(top) : int(top + high), int(left) : int(left + wide)]


def box_in(plot: Plot, name: str) -> None:
    """Select a box that covers most of a subplot's left half."""
    (left, right), (bottom, top) = plot.range(name)
    across, up = right - left, top - bottom
    plot.drag([(left + 0.02 * across, bottom + 0.05 * up), (left + 0.5 * across, bottom + 0.95 * up)], name)


def test_runs_by_itself(opened: Quickstart) -> None:
    print(f"quickstart: {opened.seconds:.0f} s from the first cell to the last")
    assert opened.seconds < LIMIT
    assert opened.notebook.errors() == []
    # Every figure is drawn, and none has an upload button.
    page = opened.notebook.page
    for figure in page.locator(".js-plotly-plot").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".main-svg").first).to_be_visible()
    assert page.locator(".js-plotly-plot").count() == 6
    buttons = offered(opened, ".nextlat-viz .modebar-btn")
    assert "Box Select" in buttons
    assert not [title for title in buttons if any(word in title.lower() for word in UPLOADS)]


def test_plain_figures_offer_no_upload(opened: Quickstart) -> None:
    titles = offered(opened, ".modebar-btn")
    assert not [title for title in titles if any(word in title.lower() for word in UPLOADS)]


def offered(opened: Quickstart, buttons: str) -> list[str]:
    titles: list[str] = opened.notebook.page.locator(buttons).evaluate_all(
        "all => all.map(button => button.dataset.title || '')"
    )
    return titles


def test_another_world_reaches_every_widget(quickstart: Quickstart) -> None:
    notebook = quickstart.notebook
    before = {name: settle(quickstart.plot(name)) for name in WIDGETS}
    headings = titles(quickstart.plot("explorer"))
    assert notebook.options("World") == ["rrxor", "mess3"]
    notebook.choose("World", "mess3")
    notebook.wait_for_kernel("state.world == 'mess3'")
    for name, pixels in before.items():
        assert quickstart.plot(name).wait_for_change(pixels) > 0.005
    assert titles(quickstart.plot("explorer")) != headings
    settle(quickstart.plot("explorer"))
    notebook.screenshot("mess3")
    assert notebook.kernel("state.scene.world.name") == "mess3"
    # Settings that both worlds have stay, in the kernel and on the page.
    assert notebook.kernel("[state.color, state.site, state.step]") == ["state", "hidden", None]
    for label in ("Colour by", "Layer"):
        shown = notebook.control(label).locator("select").evaluate("list => list.selectedOptions[0].label")
        assert shown in ("state", "hidden")


def test_colour_layer_and_step(quickstart: Quickstart) -> None:
    notebook, plot = quickstart.notebook, quickstart.plot("explorer").wait_for_webgl()
    before = settle(plot)
    other = next(name for name in notebook.options("Colour by") if name.lower().startswith("position"))
    notebook.choose("Colour by", other)
    notebook.wait_for_kernel("state.color == 'position'")
    assert plot.wait_for_change(before) > 0.005

    before, probe = settle(plot), settle(quickstart.plot("probelab"))
    notebook.choose("Layer", "embed")
    notebook.wait_for_kernel("state.site == 'embed'")
    assert plot.wait_for_change(before) > 0.01
    assert quickstart.plot("probelab").wait_for_change(probe) > 0.001
    notebook.choose("Layer", "hidden")
    notebook.wait_for_kernel("state.site == 'hidden'")

    before, scores = settle(plot), titles(plot)
    notebook.keys("Training step", "Home")
    notebook.wait_for_kernel("state.step == 0")
    assert plot.wait_for_change(before) > 0.01
    wait_for(lambda: titles(plot) != scores, "the explorer's scores of the untrained model")


def test_position_moves_the_cursor(quickstart: Quickstart) -> None:
    notebook, explorer = quickstart.notebook, quickstart.plot("explorer")
    index = trace(explorer, "cursor", 1, "belief")
    before = settle(explorer)
    notebook.keys("Position", "ArrowRight", "ArrowRight")
    notebook.wait_for_kernel("state.position == 3")
    wait_for(lambda: explorer.evaluate(f"plot.data[{index}].x.length") == 3, "a path of three positions")
    # A ring and a thin line, in each of six views.
    assert explorer.wait_for_change(before, share=0.0002) > 0.0002

    notebook.slide("Position", 0.8)
    notebook.wait_for_kernel("state.position > 8")
    assert notebook.slider_value("Position") == notebook.kernel("state.position")
    read = quickstart.widget("explorer").get_by_text("Cursor: episode")
    expect(read).to_contain_text(f"position {notebook.kernel('state.position')}")


def test_a_box_selects_everywhere(quickstart: Quickstart) -> None:
    notebook, plot = quickstart.notebook, quickstart.plot("explorer").wait_for_webgl()
    here, there = (axes(plot, trace(plot, "points", *where)) for where in ((0, "pca"), (1, "belief")))
    before = settle(plot)
    box_in(plot, here)
    n = notebook.wait_for_kernel("len(state.selection)")
    assert n < notebook.kernel("state.latents[0].n_obs")
    expect(quickstart.widget("explorer")).to_contain_text(f"{n:,} of")
    plot.wait_for_change(before)
    assert difference(view(plot, there, before), view(plot, there, settle(plot))) > 0.005
    notebook.screenshot("box")

    table = quickstart.widget("probelab").locator("table[role=status]")
    expect(table).to_contain_text("selection")
    expect(table).to_contain_text("rows)")
    expect(table.locator("tr")).to_have_count(3)
    assert notebook.kernel("len(state.selected)") == n

    quickstart.widget("explorer").get_by_role("button", name="Clear selection").click()
    assert notebook.wait_for_kernel("not state.selection")
    expect(quickstart.widget("probelab")).to_contain_text("Select rows here or in a linked view")


def test_a_lasso_selects(quickstart: Quickstart) -> None:
    notebook, plot = quickstart.notebook, quickstart.plot("explorer").wait_for_webgl()
    notebook.choose("Drag to", "select (lasso)")
    wait_for(lambda: plot.evaluate("plot._fullLayout.dragmode") == "lasso", "the lasso")
    plot.lasso_around(0.05, 0.05, 0.95, 0.5, axes(plot, trace(plot, "points", 1, "pca")))
    assert notebook.wait_for_kernel("len(state.selection)")
    notebook.choose("Drag to", "select (box)")


def test_a_click_follows_the_episode(quickstart: Quickstart) -> None:
    notebook, plot = quickstart.notebook, quickstart.plot("explorer").wait_for_webgl()
    points, cursor = (trace(plot, role, 1, "pca") for role in ("points", "cursor"))
    compare = settle(quickstart.plot("compare"))
    episode = notebook.kernel("state.episode")
    x, y = point(plot, points, -1)
    left, top = plot.at(x, y, axes(plot, points))
    plot.page.mouse.move(left - 3, top)
    plot.page.mouse.click(left, top)
    notebook.wait_for_kernel(f"state.episode != {episode}")

    # Several rows can lie under one pixel, so test the place of the cursor, not its row.
    def beside() -> bool:
        here, there = (plot.at(*place, axes(plot, points)) for place in (point(plot, cursor, -1), (x, y)))
        return float(np.hypot(*np.subtract(here, there))) < 8

    wait_for(beside, "the cursor to be where the click was")
    assert quickstart.plot("compare").wait_for_change(compare) > 0.001


def test_keyboard_alone(quickstart: Quickstart) -> None:
    notebook, page = quickstart.notebook, quickstart.notebook.page
    for first, controls in (
        ("World", {"Colour by", "Layer", "Training step", "Drag to", "Theme"}),
        ("Episode", {"Next held-out", "Position"}),
    ):
        notebook.control(first).locator("select, input").first.focus()
        reached = set()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(FOCUSED))
        assert controls <= reached, reached


def test_controls_of_the_probe_are_shown(quickstart: Quickstart) -> None:
    legend = quickstart.plot("probelab").locator.locator(".legend")
    for name in ("shuffled", "untrained"):
        expect(legend.get_by_text(name)).to_be_visible()
    drawn = quickstart.plot("probelab").evaluate(
        "plot._fullData.filter(t => t.meta.role === 'score').map(t => [t.name, t.x[0]])"
    )
    for name in ("shuffled labels", "untrained model"):
        values = [value for label, value in drawn if label == name]
        assert len(values) == 2
        assert all(value is not None for value in values)
    for text in ("shuffled", "untrained"):
        assert text in titles(quickstart.plot("explorer"))


@pytest.mark.parametrize(("width", "theme"), [(1280, "Dark"), (1920, "Light")])
def test_light_and_dark(quickstart: Quickstart, width: int, theme: str) -> None:
    notebook, page = quickstart.notebook, quickstart.notebook.page
    page.set_viewport_size({"width": width, "height": 1080})
    quickstart.notebook.kernel("None", setup="state.go_to(state.episode, 6)")
    elements = {
        "worlds": notebook.plot(0).locator,
        **{name: quickstart.widget(name) for name in WIDGETS},
        "seeds": notebook.plot(5).locator,
    }
    notebook.theme(f"JupyterLab {theme}")
    for name, element in elements.items():
        element.evaluate("element => element.scrollIntoView({block: 'start'})")
        plot = quickstart.plot(name) if name in WIDGETS else Plot(page, element)
        pixels = settle(plot)
        assert pixels.std() > 5, f"{name} is blank"
        # No figure is wider than its cell, and a widget's figure is as wide.
        right, edge = plot.evaluate(
            "[plot, plot.closest('.jp-OutputArea')].map(part => part.getBoundingClientRect().right)"
        )
        assert right <= edge + 1, f"{name} is wider than its cell"
        if name in WIDGETS:
            wait_for(
                lambda plot=plot: plot.evaluate(
                    "Math.abs(plot._fullLayout.width - plot.closest('.jp-OutputArea-output').offsetWidth) <= 2"
                ),
                f"{name} to be as wide as its cell",
            )
        assert np.median(pixels) > 200 if theme == "Light" else np.median(pixels) < 60, (name, theme)
        element.evaluate("element => element.scrollIntoView({block: 'start'})")
        notebook.screenshot(f"{name}-{width}-{theme.lower()}")
    notebook.theme("JupyterLab Light")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_runs_a_second_time(opened: Quickstart) -> None:
    opened.notebook.run_again(LIMIT)
    assert opened.notebook.errors() == []
