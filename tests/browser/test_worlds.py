"""Gallery of worlds in a real JupyterLab: every world is drawn, and its episode is stepped through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, expect

from .lab import Notebook, Plot, settle

GALLERY = Path(__file__).parents[2] / "notebooks" / "02_worlds.ipynb"
STEPPERS = ("rrxor", "taxi", "helsinki", "path_star", "countdown", "a5", "story", "othello", "queens", "text", "lift")


@pytest.fixture(scope="module")
def gallery(blank: Notebook) -> Iterator[Notebook]:
    blank.run_other(GALLERY, 300)
    yield blank
    blank.check()


def stepper(notebook: Notebook, name: str) -> Locator:
    return notebook.page.locator(".nextlat-viz").nth(STEPPERS.index(name))


def drawn(notebook: Notebook, name: str) -> Plot:
    figure = stepper(notebook, name).locator(".js-plotly-plot")
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".main-svg").first).to_be_visible()
    return Plot(notebook.page, figure)


@pytest.mark.parametrize("name", STEPPERS)
def test_a_step_changes_the_picture_and_the_facts(gallery: Notebook, name: str) -> None:
    nth = STEPPERS.index(name)
    last = int(gallery.kernel(f"int({name}.episode.length[0])"))
    # Some steppers open at the end, where the world asks for a product.
    drawn(gallery, name)
    gallery.keys("Position", "Home", nth=nth)
    gallery.wait_for_kernel(f"{name}.position < {last}")
    before = settle(drawn(gallery, name))
    gallery.keys("Position", "End", nth=nth)
    gallery.wait_for_kernel(f"{name}.position == {last}")
    after = drawn(gallery, name)
    assert after.wait_for_change(before) > 0
    assert after.pixels().std() > 3, "blank"
    place = f"at position {last}" if name == "queens" else f"after {last} tokens"
    expect(stepper(gallery, name)).to_contain_text(f"true {place}")
    for state, value in gallery.kernel(f"{name}.facts").items():
        expect(stepper(gallery, name)).to_contain_text(state)
        expect(stepper(gallery, name)).to_contain_text(value)
    assert not stepper(gallery, name).locator("[role=alert]").count()


def test_another_picture_and_another_episode(gallery: Notebook) -> None:
    nth = STEPPERS.index("helsinki")
    before = settle(drawn(gallery, "helsinki"))
    gallery.choose("Picture", "use", nth=nth)
    assert drawn(gallery, "helsinki").wait_for_change(before) > 0.005
    gallery.choose("Picture", "map", nth=nth)
    shown = gallery.kernel("helsinki.episode.sha256")
    field = gallery.control("Episode", nth).locator("input")
    field.fill("9")
    field.press("Enter")
    gallery.wait_for_kernel(f"helsinki.episode.sha256 != {shown!r}")
    # It opens in the middle of the predicted tokens, after the prompt of origin and destination.
    middle = "(helsinki.episode.loss_mask[0].argmax() + helsinki.episode.length[0]) // 2"
    gallery.wait_for_kernel(f"bool(helsinki.position == {middle})")
    read = gallery.kernel("helsinki.position")
    expect(stepper(gallery, "helsinki")).to_contain_text(f"true after {read} tokens")


def test_it_plays(gallery: Notebook) -> None:
    gallery.keys("Position", "Home", nth=0)
    gallery.wait_for_kernel("rrxor.position == 0")
    stepper(gallery, "rrxor").locator(".jupyter-button").first.click()
    gallery.wait_for_kernel("rrxor.position >= 3")


def test_dark_theme(gallery: Notebook) -> None:
    moved = [name for name in STEPPERS if name != "helsinki"]
    gallery.kernel(
        "None",
        setup=f"for stepper in {', '.join(moved)}: stepper.position = max(1, int(stepper.episode.length[0]) * 2 // 3)",
    )
    gallery.theme("JupyterLab Dark")
    for name in STEPPERS:
        assert settle(drawn(gallery, name)).std() > 3, f"{name} is blank"
        gallery.screenshot(f"{name}-dark")
    gallery.theme("JupyterLab Light")


def test_a_world_is_registered_a_second_time(gallery: Notebook) -> None:
    last = nbformat.read(GALLERY, as_version=4).cells[-1]
    assert "register" in last.source
    assert gallery.kernel("lift.position", setup=last.source) >= 0
