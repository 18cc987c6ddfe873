"""The cloud in a real JupyterLab: drawing with and without WebGL, selection, clicks, labels and the handle."""

from __future__ import annotations

import time

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook, Plot, at_rest, box, difference, settle, wait_for

SETUP = """
import numpy as np
from nextlat_viz.notebook.cloud import Cloud
places = np.array([[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)], dtype="f4")
heard = []
cloud = Cloud(
    places, np.arange(9) % 3, ["#009E73", "#E69F00", "#CC79A7"], lambda row: f"<b>row {row}</b> 😀 עברית",
    key={"<i>first</i>": "#009E73"}, title="<u>nine</u>", height=300, cursor=[0, 4],
    on_select=lambda rows: heard.append(rows.tolist()), on_click=lambda row: heard.append(row),
)
"""
CELL = SETUP + "cloud"
HANDLE = """
import time
moves, limit = [], [9.0]
def moved(x, y):
    time.sleep(0.1)
    marked.handle = min(x, limit[0]), y
    moves.append(marked.handle)
marked = Cloud(
    places, height=300, handle=(0.5, 0.0), on_move=moved, axes=("across (m)", "up (m)"),
    outline=[[[-1, -1], [1, -1], [0, 1], [-1, -1]]],
    landmarks={"<b>left</b>": (-1, -1), "right": (1, -1), "עברית 😀": (0, 1)},
)
marked.ring = (-0.5, -0.5)
"""
LOSE = "() => (window.taken = nextlat_viz_painter_1.gl.getExtension('WEBGL_lose_context')).loseContext()"
# Behave like a browser without WebGL: drop the page's context, and return no other.
NO_WEBGL = """() => {
    delete window.nextlat_viz_painter_1;
    const get = window.had = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return /webgl/.test(kind) ? null : get.call(this, kind, ...rest);
    };
}"""
WEBGL = """() => {
    delete window.nextlat_viz_painter_1;
    HTMLCanvasElement.prototype.getContext = window.had;
}"""


@pytest.fixture
def notebook(book: Notebook) -> Notebook:
    """The notebook with a newly drawn cloud."""
    book.run_other(CELL)
    expect(book.page.locator(".nlv-cloud[data-draws]")).to_be_visible()
    wait_for(lambda: stage(book).pixels().std() > 3, "the points")
    return book


def stage(notebook: Notebook) -> Plot:
    locator: Locator = notebook.page.locator(".nlv-cloud-stage")
    locator.scroll_into_view_if_needed()
    return Plot(notebook.page, locator)


def place(shown: Plot, x: float, y: float) -> tuple[float, float]:
    """Convert data coordinates to page coordinates: the points span -1..1, with 5% free on each side."""
    frame = box(shown.locator)
    scale = 0.9 * (frame["height"] - 2) / 2
    return frame["x"] + frame["width"] / 2 + x * scale, frame["y"] + frame["height"] / 2 - y * scale


def test_a_cloud_is_drawn_and_answers_the_mouse(notebook: Notebook) -> None:
    page = notebook.page
    shown = stage(notebook)
    expect(page.locator(".nlv-cloud-title")).to_have_text("<u>nine</u>")
    expect(page.locator(".nlv-cloud-entry")).to_have_text("<i>first</i>")
    expect(page.locator(".nlv-cloud")).to_have_attribute("data-by", "webgl")

    page.mouse.click(*place(shown, 1, 1))
    notebook.wait_for_kernel("heard == [8]")
    page.mouse.move(*place(shown, -0.5, -1.04))
    page.mouse.down()
    page.mouse.move(*place(shown, 1.04, 0.5), steps=5)
    page.mouse.up()
    notebook.wait_for_kernel("heard[1:] == [[3, 4, 6, 7]]")
    expect(page.locator(".nlv-cloud-status")).to_have_text("4 of 9 points selected")
    shown.locator.press("Escape")
    notebook.wait_for_kernel("heard[2:] == [[]] and not len(cloud.selection)")

    page.mouse.move(*place(shown, -1, 0))
    label = page.locator(".nlv-cloud-label")
    expect(label).to_have_text("<b>row 1</b> 😀 עברית")
    page.mouse.move(1, 1)
    expect(label).to_be_hidden()


def test_a_step_of_the_cursor_draws_no_point_again(notebook: Notebook) -> None:
    shown, cloud = stage(notebook), notebook.page.locator(".nlv-cloud")
    (drawn,), before = notebook.drawn(cloud), shown.pixels()
    notebook.kernel("None", setup="cloud.cursor = [0, 4, 5]")
    assert shown.wait_for_change(before) > 0
    assert notebook.drawn(cloud) == [drawn]
    before = shown.pixels()
    notebook.kernel("None", setup="cloud.recolor(np.full(9, 1))")
    shown.wait_for_change(before)
    notebook.kernel("None", setup="cloud.move(places * [2, 1])")
    wait_for(lambda: notebook.drawn(cloud) == [drawn + 2], "one drawing for each change")


def test_a_handle_is_dragged_and_no_point_is_drawn_again(book: Notebook) -> None:
    book.run_other(f"{SETUP}\n{HANDLE}\nmarked")
    handle = book.page.locator(".nlv-cloud-handle:visible")
    expect(handle).to_be_visible()
    shown = Plot(book.page, book.page.locator(".nlv-cloud-stage").last)
    cloud = book.page.locator(".nlv-cloud").last
    settle(shown)
    book.screenshot("handle")
    drawn, page = book.drawn(cloud), book.page
    middle = box(handle)
    page.mouse.move(middle["x"] + 12, middle["y"] + 8)
    began = time.monotonic()
    page.mouse.down()
    for step in range(1, 31):
        page.mouse.move(middle["x"] + 12 + 3 * step, middle["y"] + 8)
    page.mouse.up()
    seconds = time.monotonic() - began
    x, y = book.wait_for_kernel("len(moves) > 1 and marked.handle == moves[-1] and marked.handle")
    scale = (x - 0.5) / 90
    assert 0 < scale < 0.1
    assert abs(y) < 0.01
    # A slow kernel gets only a few of the places on the way, one at a time.
    moves = at_rest(lambda: book.kernel("moves"), "the handle")
    assert len(moves) < 4 + seconds / 0.1
    assert box(handle)["x"] == pytest.approx(middle["x"] + 90, abs=1)

    # Arrow keys move by a step, with shift by a larger one.
    book.kernel("None", setup="marked.handle = (0.0, 0.0); moves.clear()")
    wait_for(lambda: handle.get_attribute("aria-valuetext") == "across (m) 0, up (m) 0", "the handle to follow Python")
    assert book.kernel("moves") == []
    handle.focus()
    page.keyboard.press("ArrowUp")
    step = book.wait_for_kernel("marked.handle[1]")
    page.keyboard.press("Shift+ArrowUp")
    book.wait_for_kernel(f"abs(marked.handle[1] - {6 * step}) < 1e-6")
    assert handle.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    book.screenshot("handle-focus")

    # A click moves it too; the kernel can put it elsewhere.
    book.kernel("None", setup="limit[0] = 0.2")
    frame = box(shown.locator)
    page.mouse.click(frame["x"] + 0.9 * frame["width"], frame["y"] + frame["height"] / 2)
    book.wait_for_kernel("marked.handle[0] == 0.2")
    wait_for(lambda: (handle.get_attribute("aria-valuetext") or "").startswith("across (m) 0.2"), "it to go back")
    assert book.drawn(cloud) == drawn


def test_a_cloud_is_drawn_on_the_cpu_while_the_webgl_context_is_lost(notebook: Notebook) -> None:
    shown = stage(notebook)
    before, cloud = shown.pixels(), notebook.page.locator(".nlv-cloud")
    notebook.page.evaluate(LOSE)
    expect(cloud).to_have_attribute("data-by", "processor")
    expect(notebook.page.locator(".nlv-cloud-status")).to_contain_text("No WebGL")
    notebook.page.evaluate("() => window.taken.restoreContext()")
    expect(cloud).to_have_attribute("data-by", "webgl")
    wait_for(lambda: difference(before, shown.pixels()) < 0.001, "the same picture again")


def test_without_webgl_it_is_drawn_and_says_so(book: Notebook) -> None:
    book.page.evaluate(NO_WEBGL)
    try:
        book.run_other(CELL)
        shown = stage(book)
        expect(book.page.locator(".nlv-cloud")).to_have_attribute("data-by", "processor")
        expect(book.page.locator(".nlv-cloud-status")).to_contain_text("No WebGL in this browser")
        book.page.mouse.click(*place(shown, 0, 0))
        book.wait_for_kernel("heard == [4]")
        pixels = shown.pixels()
    finally:
        book.page.evaluate(WEBGL)
    orange = np.abs(pixels.astype(int) - [0xE6, 0x9F, 0]).max(axis=-1) < 60
    assert 30 < orange.sum() < 400
