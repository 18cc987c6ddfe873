"""The test harness itself, on a small notebook: its inputs reach the kernel, and it notices errors."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .lab import Notebook, difference, wait_for

WIDGETS = """
answer = 41
import ipywidgets
import numpy as np
import plotly.graph_objects as go
from nextlat_viz.notebook.plot import Plot

rng = np.random.default_rng(0)
points = rng.uniform(size=(500, 2))
figure = go.Figure(go.Scattergl(x=points[:, 0], y=points[:, 1], mode="markers", marker_size=8))
figure.update_layout(dragmode="select", height=400, xaxis_range=[0, 1], yaxis_range=[0, 1])
selected = []
plot = Plot(figure, on_select=selected.append)
colour = ipywidgets.Dropdown(options=["teal", "crimson"], description="Colour")
size = ipywidgets.IntSlider(8, 2, 30, description="Size", continuous_update=False)
boom = ipywidgets.Button(description="Boom")

def recolour(change):
    plot.data[0].marker.color = change.new

def resize(change):
    plot.data[0].marker.size = change.new

def fail(button):
    raise RuntimeError("nobody sees this one")

colour.observe(recolour, "value")
size.observe(resize, "value")
boom.on_click(fail)
ipywidgets.VBox([colour, size, boom, plot])
"""

LATE = """
import plotly.graph_objects as go
from nextlat_viz.notebook.cloud import Cloud
from nextlat_viz.notebook.cursor import TokenStrip
from nextlat_viz.notebook.plot import Plot

plot = Plot(go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="markers", marker_color="teal")))
strip = TokenStrip(tokens=["x"], notes=["", ""], places=[1, 2])
cloud = Cloud([[0, 0], [1, 1]], title="still")
display(plot, strip, cloud)
plot.data[0].marker.color = "crimson"
strip.tokens = ["a", "b"]
"""


@pytest.fixture
def notebook(book: Notebook) -> Notebook:
    """The notebook of widgets, run again."""
    book.run_other(WIDGETS)
    return book


def test_inputs_reach_page_and_kernel(notebook: Notebook) -> None:
    assert notebook.kernel("answer + 1") == 42
    plot = notebook.plot().wait_for_webgl()

    before = plot.pixels()
    assert difference(before, plot.pixels()) == 0
    assert notebook.options("Colour") == ["teal", "crimson"]
    notebook.choose("Colour", "crimson")
    assert plot.wait_for_change(before) > 0.01
    assert notebook.kernel("plot.data[0].marker.color") == "crimson"

    before = plot.pixels()
    notebook.slide("Size", 1.0)
    plot.wait_for_change(before)
    assert notebook.wait_for_kernel("size.value == 30")
    notebook.keys("Size", "Home", "ArrowRight")
    assert notebook.wait_for_kernel("plot.data[0].marker.size == 3")
    assert notebook.slider_value("Size") == 3

    # A mouse moves in whole pixels, so a point right on the border may fall on either side.
    within = "within = lambda r: set(np.flatnonzero((abs(points - 0.5) < r).all(axis=1)).tolist())"
    notebook.kernel("None", setup=within)
    plot.drag([(0.3, 0.3), (0.7, 0.7)])
    assert notebook.wait_for_kernel("bool(selected) and within(0.195) <= set(selected[-1][0]) <= within(0.205)")
    plot.mode("Lasso Select")
    plot.lasso_around(0.02, 0.02, 0.5, 0.98)
    assert notebook.wait_for_kernel("len(selected[-1][0]) > 150 and bool((points[selected[-1][0], 0] < 0.505).all())")
    notebook.screenshot("lasso")


def test_a_busy_kernel_loses_no_click_and_a_reloaded_page_shows_the_figure_as_it_is(notebook: Notebook) -> None:
    notebook.kernel("None", setup="clicked = []; plot._on_click = clicked.append; plot.layout.dragmode = 'pan'")
    plot = notebook.plot().wait_for_webgl()
    wait_for(lambda: plot.evaluate("plot._fullLayout.dragmode") == "pan", "the tool")
    notebook.page.evaluate("() => { lab.kernel.requestExecute({code: 'import time; time.sleep(5)'}); }")
    places = notebook.page.evaluate(
        """() => {
            const plot = document.querySelector(".js-plotly-plot"), {x, y} = plot._fullData[0];
            return [0, 1, 2].map(i => [x[i], y[i]]);
        }"""
    )
    for place in places:
        notebook.page.mouse.move(*plot.at(*place))
        notebook.page.wait_for_timeout(300)
        notebook.page.mouse.click(*plot.at(*place))
        # Two clicks in quick succession would be a double click, which resets the axes.
        notebook.page.wait_for_timeout(600)
    notebook.wait_for_kernel("len(clicked) == 3")

    notebook.choose("Colour", "crimson")
    notebook.wait_for_kernel("plot.data[0].marker.color == 'crimson'")
    notebook.execute("docmanager:save")
    notebook.reload()
    notebook.plot().wait_for_webgl()
    assert notebook.plot().evaluate("plot._fullData[0].marker.color") == "crimson"
    notebook.kernel("None", setup="plot.data[0].marker.size = 20")
    wait_for(lambda: notebook.plot().evaluate("plot._fullData[0].marker.size") == 20, "an update after the reload")
    assert notebook.page.evaluate("() => Object.keys(nextlat_viz_plotly).length") == 1


def test_widgets_that_start_late_still_listen(book: Notebook) -> None:
    """On a busy page, anywidget's limit of two seconds may end before a widget has started; here it always does."""
    notebook = book
    notebook.page.evaluate("""() => {
        const timeout = window.had = AbortSignal.timeout.bind(AbortSignal);
        const over = {addEventListener: (name, call) => call()};
        AbortSignal.timeout = milliseconds => milliseconds === 2000 ? over : timeout(milliseconds);
    }""")
    notebook.run_other(LATE)
    text = "[...document.querySelectorAll('.nlv-tokens button')].map(button => button.textContent).join(' ')"
    wait_for(lambda: notebook.page.evaluate(text) == "a b", "tokens set before the page listened")
    plot = notebook.plot()
    assert plot.evaluate("plot._fullData[0].marker.color") == "crimson"
    notebook.kernel("None", setup="plot.data[0].marker.size = 20; strip.tokens = ['a', 'c']; cloud.title = 'moved'")
    wait_for(lambda: plot.evaluate("plot._fullData[0].marker.size") == 20, "an update of the figure")
    wait_for(lambda: notebook.page.evaluate(text) == "a c", "an update of the tokens")
    expect(notebook.page.locator(".nlv-cloud")).to_contain_text("moved")
    notebook.page.locator(".nlv-tokens button").last.click()
    notebook.wait_for_kernel("strip.position == 2")
    notebook.page.evaluate("() => { AbortSignal.timeout = window.had; }")
    assert any("Failed to initialize" in error for error in notebook.page_errors)


def test_an_update_of_a_figure_that_is_hidden_for_less_than_a_frame_is_drawn(notebook: Notebook) -> None:
    """The browser does not report the size of a cell that has its old width again before the next frame."""
    plot = notebook.plot().wait_for_webgl()
    # Without a width until the script that asks for it ends, which is before the browser draws its next frame.
    hidden = "get: () => (queueMicrotask(() => delete plot.clientWidth), plot.asked = true, 0)"
    plot.evaluate(f"Object.defineProperty(plot, 'clientWidth', {{configurable: true, {hidden}}})")
    notebook.kernel("None", setup="plot.data[0].marker.size = 11")
    wait_for(lambda: plot.evaluate("plot._fullData[0].marker.size") == 11, "the update", 30)
    assert plot.evaluate("plot.asked")


def test_a_callback_that_fails_is_reported(notebook: Notebook) -> None:
    assert notebook.errors() == []
    notebook.press("Boom")
    (error,) = wait_for(notebook.errors, "the callback to fail")
    assert "nobody sees this one" in error
    notebook.page.evaluate("() => { window.lab.errors.length = 0; }")


def test_a_cell_that_fails_is_reported(book: Notebook) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        book.run_other("1 / 0")
    book.page.evaluate("() => { window.lab.errors.length = 0; }")
