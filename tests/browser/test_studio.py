"""The studio in a real JupyterLab: every panel follows each input, also with a second browser open.

The tests share one open notebook, because opening and running it takes most of the time; each begins from the same
state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, expect

from .lab import Notebook, Plot, Server, at_rest, box, settle, wait_for

STUDIO = Path(__file__).parents[2] / "notebooks" / "04_studio.ipynb"
LIMIT = 240.0
FIGURES = ("world", "space", "next", "knows")
TABS = {"read": "Read", "ahead": "Rollout", "task": "Task", "training": "Training"}
TABS |= {"pairs": "Pairs", "what_if": "What if"}
SIZES = {(1000, 800): 3, (1280, 800): 3, (1440, 900): 3, (1920, 1080): 2}
RESET = """
state = studio.state
studio.rail.leave()
studio.cursor.controls.play.playing = False
state.world, state.color, state.site, state.step, state.filter = "rrxor", "state", "hidden", None, {}
state.selection, state.arrangement = (), {}
studio._more.value = studio._workshop.value = False
while studio.tray.pins:
    studio.tray._remove(0)
state.go_to(3, 5)
"""
# Whether the current token is within the visible part of its line.
IN_LINE = """line => {
    const now = line.querySelector("[aria-current]").getBoundingClientRect(), frame = line.getBoundingClientRect();
    return frame.top - 1 <= now.top && now.bottom <= frame.bottom + 1;
}"""
# Show the kernel's studio in a cell of the page's notebook.
SHOW = """
async () => {
    const {app, panel} = window.lab, cells = panel.content.model.sharedModel.cells;
    const place = cells.findIndex(cell => cell.cell_type === "code");
    cells[place].setSource("studio");
    panel.content.activeCellIndex = place;
    await app.commands.execute("notebook:run-cell");
}
"""


class Opened(NamedTuple):
    notebook: Notebook
    seconds: float

    @property
    def studio(self) -> Locator:
        return self.notebook.page.locator(".nlv-studio").first

    def card(self, name: str) -> Locator:
        return self.studio.locator(f".nlv-card-{name}")

    def tab(self, name: str) -> None:
        self.studio.locator(".nlv-line").get_by_role("button", name=TABS[name], exact=True).click()
        expect(self.card(name)).to_be_visible()

    def view(self, name: str) -> None:
        self.card("space").locator(".nlv-tabs").get_by_role("button", name=name, exact=True).click()

    def more(self) -> None:
        self.studio.locator("button[title='Filter, theme']").click()

    def plot(self, name: str) -> Plot:
        figure = self.card(name).locator(".js-plotly-plot")
        figure.scroll_into_view_if_needed()
        expect(figure.locator(".main-svg").first).to_be_visible()
        return Plot(self.notebook.page, figure)

    def at(self, position: int) -> None:
        """Wait until every panel on the page is at a position."""
        self.notebook.wait_for_kernel(f"studio.state.position == {position}")
        for name in ("next", "knows"):
            expect(self.card(name)).to_contain_text(f"after position {position}")
        expect(self.studio.locator(".nlv-strip .nlv-tokens [aria-current]")).to_have_attribute(
            "title", re.compile(rf"^position {position}:")
        )
        wait_for(lambda: self.notebook.slider_value("Position") == position, f"the slider at position {position}")
        space = self.plot("space")
        wait_for(
            lambda: set(space.evaluate(LENGTHS.format(role="cursor", axis="x"))) == {position},
            f"the cursor of every view at position {position}",
        )


def fits(plot: Plot) -> bool:
    """Whether a figure is drawn as wide as its place."""
    return bool(plot.evaluate("Math.abs(plot._fullLayout.width - plot.clientWidth) <= 2"))


# Whether all texts of a figure are inside it.
INSIDE = """(() => {
  const all = plot.getBoundingClientRect(), inside = ({left, right}) => left >= all.left && right <= all.right;
  return [...plot.querySelectorAll(".annotation text, .textpoint text")].every(e => inside(e.getBoundingClientRect()));
})()"""
LENGTHS = "plot.data.filter(t => t.meta?.role === '{role}').map(t => t.{axis}.length)"


@pytest.fixture(scope="module")
def notebook(blank: Notebook) -> Opened:
    return Opened(blank, blank.run_other(STUDIO, LIMIT))


@pytest.fixture
def opened(notebook: Opened, request: pytest.FixtureRequest) -> Iterator[Opened]:
    notebook.notebook.kernel("None", setup=RESET)
    notebook.at(5)
    yield notebook
    book = notebook.notebook
    if book.errors():
        book.screenshot(request.node.name)
    book.check()
    alerts = book.page.locator(".nlv-studio [role=alert]").all_inner_texts()
    assert not alerts, alerts


def test_runs_by_itself(notebook: Opened) -> None:
    print(f"studio: {notebook.seconds:.0f} s from the first cell to the last")
    assert notebook.seconds < LIMIT
    assert notebook.notebook.errors() == []
    for name in FIGURES:
        notebook.plot(name)
    for name in FIGURES:
        expect(notebook.card(name).locator(".nlv-fold")).to_contain_text("?")
    for name in TABS:
        expect(notebook.card(name)).to_be_hidden()
    untitled = "[...e.querySelectorAll('button:not(.modebar-btn)')].filter(b => b.offsetWidth && !b.title).length"
    assert notebook.studio.evaluate(f"e => {untitled}") == 0


def test_a_click_on_a_token_of_ones_own_string_changes_the_figure(opened: Opened) -> None:
    opened.tab("read")
    card, plot = opened.card("read"), opened.plot("read")
    tokens = card.locator(".nlv-tokens button")
    before = settle(plot)
    # The first bit is free.
    expect(tokens.nth(1)).to_have_attribute("title", re.compile("legal here: 0, 1"))
    was = tokens.nth(1).inner_text()
    tokens.nth(1).click()
    expect(tokens.nth(1)).to_have_text({"0": "1", "1": "0"}[was])
    expect(card).to_contain_text("Position 1 changed")
    plot.wait_for_change(before)
    # The studio's cursor stays: keys in the field do not move it.
    opened.at(5)
    card.locator("input[type=text]").fill("01x")
    expect(card).to_contain_text("is no symbol of world")
    card.get_by_role("button", name="Reset", exact=True).click()
    expect(tokens.nth(1)).to_have_text(was)


def test_each_tab_shows_its_question(opened: Opened) -> None:
    opened.tab("ahead")
    expect(opened.card("ahead")).to_contain_text("from position 5")
    expect(opened.card("knows")).to_be_hidden()
    opened.notebook.keys("Position", "ArrowRight")
    expect(opened.card("ahead")).to_contain_text("from position 6")
    opened.tab("what_if")
    opened.plot("what_if")
    opened.tab("task")
    expect(opened.card("task")).to_contain_text("Token read ahead")


def test_arrow_keys_the_slider_and_tokens_move_everything(opened: Opened) -> None:
    page = opened.notebook.page
    opened.studio.locator(".nlv-strip .nlv-tokens button").nth(1).click()
    opened.at(2)
    opened.studio.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    opened.at(4)
    page.keyboard.press("ArrowLeft")
    opened.at(3)
    opened.notebook.keys("Position", "ArrowRight", "ArrowRight", "ArrowRight")
    opened.at(6)


def test_arrow_keys_draw_no_point_again(opened: Opened) -> None:
    space, drawn = opened.plot("space"), "plot.drawn"
    space.evaluate("(plot.drawn = 0, plot.on('plotly_afterplot', () => { plot.drawn += 1; }), null)")
    # What the tests before left is still being drawn.
    opened.notebook.wait_for_kernel("not studio.state.busy")
    before = at_rest(partial(space.evaluate, drawn), "the figure")
    opened.studio.focus()
    opened.notebook.page.keyboard.press("ArrowRight")
    opened.at(6)
    expect(opened.card("space").locator(".nlv-marks [data-role=cursor] path")).to_have_count(2)
    assert space.evaluate(drawn) == before


# Bars, points and lines as they are on the page, and as a complete drawing of the figure shows them.
SHAPES = """(async () => {
  const shape = e => ["d", "transform", "style"].map(name => e.getAttribute(name));
  const shapes = () => [...plot.querySelectorAll(".cartesianlayer path")].map(shape);
  const moved = shapes();
  await (await Object.values(globalThis.nextlat_viz_plotly)[0]).redraw(plot);
  return [moved, shapes()];
})()"""


def test_arrow_keys_lay_out_no_figure_again(opened: Opened) -> None:
    names = ("world", "next", "knows")
    plots = [opened.plot(name) for name in names]
    for plot in plots:
        plot.evaluate("(plot.laid = 0, plot.on('plotly_afterplot', () => { plot.laid += 1; }), null)")
    before = at_rest(lambda: [plot.evaluate("plot.laid") for plot in plots], "the figures")
    opened.studio.focus()
    for position in (6, 7):
        opened.notebook.page.keyboard.press("ArrowRight")
        opened.at(position)
    opened.notebook.wait_for_kernel("not studio.state.busy")
    shapes = at_rest(
        lambda: [plot.evaluate("plot.querySelector('.cartesianlayer').innerHTML") for plot in plots], "all"
    )
    assert len(set(shapes)) == len(names)
    # The scale of the readings may grow at a step.
    assert [plot.evaluate("plot.laid") for plot in plots[:2]] == before[:2]
    for plot in plots:
        moved, drawn = plot.evaluate(SHAPES)
        assert moved == drawn


def test_it_plays(opened: Opened) -> None:
    page = opened.notebook.page
    play = opened.studio.locator(".nlv-strip .widget-play button")
    play.first.click()
    opened.notebook.wait_for_kernel("studio.state.position >= 7")
    expect(page.locator(".nlv-studio [role=alert]")).to_have_count(0)
    if not opened.notebook.kernel("studio.state.position == 12"):
        play.first.click()


def test_training_steps_play_in_every_panel_in_sight(opened: Opened) -> None:
    book = opened.notebook
    opened.tab("training")
    expect(opened.card("training")).to_contain_text("at step 4,000")
    cursors = "plot._fullData.filter(t => t.meta?.role === 'cursor').map(t => t.x[0])"
    space = opened.plot("space").wait_for_webgl()
    before = settle(space)
    play = opened.studio.locator(".nlv-bar:not(.nlv-strip) .widget-play button").first
    play.click()
    book.wait_for_kernel("(studio.state.step or 0) >= 200")
    play.click()
    step = book.wait_for_kernel("not studio.state.busy and studio.state.step")
    wait_for(lambda: set(opened.plot("training").evaluate(cursors)) == {step}, "the mark at the step")
    expect(opened.card("training")).to_contain_text(f"at step {step:,}")
    assert space.wait_for_change(before) > 0
    assert book.control("Training step").locator(".widget-readout").inner_text() == f"{step:,}"
    book.screenshot("played")


def test_a_box_selects_in_every_view(opened: Opened) -> None:
    book, plot = opened.notebook, opened.plot("space").wait_for_webgl()
    settle(plot)
    (left, right), (bottom, top) = plot.range()
    plot.drag(
        [
            (left + 0.02 * (right - left), bottom + 0.03 * (top - bottom)),
            (left + 0.98 * (right - left), bottom + 0.4 * (top - bottom)),
        ]
    )
    n = book.wait_for_kernel("len(studio.state.selection)")
    assert n < book.kernel("studio.state.latents[0].n_obs")
    expect(opened.studio).to_contain_text(f"{n:,} selected")
    selected = LENGTHS.format(role="points", axis="selectedpoints")
    wait_for(lambda: set(plot.evaluate(selected)) == {n}, "the selection in both views")
    assert book.kernel("len(studio.selection)") == n
    book.screenshot("box")


def test_a_click_on_a_point_and_on_a_pair_moves_the_cursor(opened: Opened) -> None:
    book, plot = opened.notebook, opened.plot("space").wait_for_webgl()
    settle(plot)
    role = "plot._fullData.findIndex(t => t.meta?.role === 'points')"
    x, y = plot.evaluate(f"(i => ['x', 'y'].map(a => Array.from(plot._fullData[i][a]).at(-1)))({role})")
    left, top = plot.at(x, y)
    plot.page.mouse.move(left - 3, top)
    plot.page.mouse.click(left, top)
    book.wait_for_kernel("studio.state.episode != 3")

    opened.tab("pairs")
    # A long history is cut at its start: its newest token is in sight.
    cells = opened.card("pairs").locator(".nlv-table .nlv-history")
    expect(cells.first).to_be_visible()
    ends = "cells.map(cell => cell.firstChild.getBoundingClientRect().right - cell.getBoundingClientRect().right)"
    assert max(cells.evaluate_all(f"cells => {ends}")) <= 1
    opened.card("pairs").locator(".nlv-table tbody tr").nth(2).click()
    book.wait_for_kernel("len(studio.state.selection) == 2")
    first = book.kernel("[studio.state.episode, studio.state.position]")
    assert first in book.kernel("[list(pair) for pair in studio.state.selection]")
    expect(opened.card("pairs")).to_contain_text("lead to the same belief")
    opened.card("pairs").get_by_role("button", name="Go to the other history").click()
    book.wait_for_kernel(f"[studio.state.episode, studio.state.position] != {first}")
    expect(opened.card("next")).to_contain_text(f"after position {book.kernel('studio.state.position')}")
    book.screenshot("pair")


def test_a_filter_fades_the_rest(opened: Opened) -> None:
    book, plot = opened.notebook, opened.plot("space").wait_for_webgl()
    before = settle(plot)
    opened.more()
    book.choose("Filter by", "state")
    keep = book.control("Keep").locator("select")
    keep.select_option(label=["XOR 1", "XOR 0"])
    kept = book.wait_for_kernel("studio.state.filter and int(studio.state.kept.sum())")
    assert book.kernel("sorted(studio.state.filter['state'])") == ["XOR 0", "XOR 1"]
    expect(opened.studio).to_contain_text(f"keeps {kept:,}")
    assert plot.wait_for_change(before) > 0.01
    book.screenshot("filter")


def test_another_world_and_an_earlier_step(opened: Opened) -> None:
    book = opened.notebook
    book.choose("World", "mess3")
    book.wait_for_kernel("studio.state.world == 'mess3'")
    expect(opened.card("world")).to_contain_text("mess3")
    assert book.kernel("[studio.state.arrangement, studio.state.selection]") == [{}, []]
    opened.at(book.kernel("studio.state.scene.opening_position(studio.state.episode)"))
    settle(opened.plot("world"))
    book.screenshot("mess3")
    book.choose("World", "rrxor")
    book.wait_for_kernel("studio.state.world == 'rrxor'")
    expect(opened.card("world")).to_contain_text("rrxor")
    book.keys("Training step", "Home")
    book.wait_for_kernel("studio.state.step == 0")
    expect(opened.card("knows")).to_contain_text("untrained")


def test_a_city_is_drawn_with_all_rows(opened: Opened) -> None:
    book, page = opened.notebook, opened.notebook.page
    book.choose("World", "helsinki")
    book.wait_for_kernel("studio.state.world == 'helsinki'")
    expect(opened.card("world")).to_contain_text("helsinki")
    rows = book.kernel("studio.state.latents[0].n_obs")
    book.choose("Draw", f"all {rows:,} rows")
    opened.view("Place")
    clouds = opened.card("space").locator(".nlv-cloud")
    expect(clouds).to_have_count(2)
    for cloud in clouds.all():
        expect(cloud).to_contain_text(f"{rows:,} points")
    book.drawn(clouds, "studio")
    stage = clouds.first.locator(".nlv-cloud-stage")
    stage.scroll_into_view_if_needed()
    place = box(stage)
    corners = [[place["x"] + share * place["width"], place["y"] + share * place["height"]] for share in (0.4, 0.6)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=5)
    page.mouse.up()
    chosen = book.wait_for_kernel("len(studio.state.selection)")
    assert 0 < chosen < rows
    for cloud in clouds.all():
        expect(cloud).to_contain_text(f"{chosen:,} of {rows:,} points selected")
    expect(opened.studio).to_contain_text(f"{chosen:,} selected")
    drawn = book.drawn(clouds, "studio")
    after = book.kernel("studio.state.position") + 1
    book.keys("Position", "ArrowRight")
    book.wait_for_kernel(f"[studio.state.position, len(studio.panels['space'].clouds[0].cursor)] == [{after}] * 2")
    expect(opened.card("next")).to_contain_text(f"after position {after}")
    assert book.drawn(clouds, "studio") == drawn
    book.screenshot("taxi")

    # Back in the first world, neither the city's ranges nor the outline of the box is left.
    book.choose("World", "rrxor")
    book.wait_for_kernel("studio.state.world == 'rrxor'")
    expect(opened.card("world")).to_contain_text("rrxor")
    opened.at(book.kernel("studio.state.scene.opening_position(studio.state.episode)"))
    world = opened.plot("world")
    wait_for(lambda: np.ptp(world.range()[0]) < 10, "the picture of the beliefs to fill its panel")
    opened.plot("space").wait_for_webgl()
    expect(opened.card("space").locator(".selectionlayer path")).to_have_count(0)


def test_the_camera_names_its_file_after_world_and_panel(opened: Opened) -> None:
    page = opened.notebook.page
    for world in ("rrxor", "s3"):
        opened.notebook.kernel("None", setup=f"studio.state.show({world!r})")
        expect(opened.card("world")).to_contain_text(f"{world}:")
        opened.plot("world")
        opened.card("world").locator(".js-plotly-plot").hover()
        with page.expect_download(timeout=LIMIT * 1000) as started:
            opened.card("world").locator(".modebar-btn[data-title^=Download]").click()
        assert started.value.suggested_filename == f"{world}_world.svg"


def test_a_panel_folds_by_its_question(opened: Opened) -> None:
    card = opened.card("knows")
    tall = box(card)["height"]
    card.locator(".nlv-fold").click()
    expect(card.locator(".js-plotly-plot")).to_be_hidden()
    wait_for(lambda: box(card)["height"] < 0.3 * tall, "the panel to be low")
    card.locator(".nlv-fold").click()
    expect(card.locator(".js-plotly-plot")).to_be_visible()


def test_a_panel_is_shown_alone(opened: Opened) -> None:
    card, small = opened.card("space"), box(opened.card("space"))["height"]
    card.locator("button[title^='Show this panel alone']").click()
    expect(opened.card("world")).to_be_hidden()
    wait_for(lambda: box(card)["height"] > 1.5 * small, "the panel to be high")
    wait_for(partial(fits, opened.plot("space")), "the figure to fill its panel")
    card.locator("button[title^='Show this panel alone']").click()
    expect(opened.card("world")).to_be_visible()


def test_a_figure_for_a_paper_in_a_few_clicks(opened: Opened, tmp_path: Path) -> None:
    book, page = opened.notebook, opened.notebook.page
    for name in ("space", "next"):
        opened.card(name).locator("button[title='Add this figure to the tray']").click()
    figures = opened.studio.locator("button[title^='Figures for a paper']")
    expect(figures).to_contain_text("Figures (2)")
    figures.click()
    tray = opened.studio.locator(".nlv-tray")
    expect(tray.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(tray).to_contain_text("(b) What does the model predict next?")
    tray.locator("button[title='Move towards (a)']").nth(1).click()
    expect(tray).to_contain_text("(a) What does the model predict next?")
    book.choose("Width", "column, 3.25 in")
    expect(tray.locator("textarea").first).to_have_value(re.compile(r"^\(a\) What does the model predict next\?"))
    expect(tray.locator("textarea").first).to_have_value(re.compile("Models trained on rrxor"))
    book.screenshot("workshop")
    with page.expect_download(timeout=LIMIT * 1000) as started:
        tray.get_by_role("button", name="Download", exact=True).click()
    path = tmp_path / started.value.suggested_filename
    started.value.save_as(path)
    assert path.name == "figure.pdf"
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+)", path.read_bytes())
    assert box is not None
    assert float(box[1]) / 72 == pytest.approx(3.25, rel=0.01)
    tray.get_by_role("button", name="Show code", exact=True).click()
    expect(tray.locator(".nlv-tray-code textarea")).to_have_value(re.compile(r"nlv\.figures\.compose\(\[a, b\]"))
    figures.click()
    expect(opened.card("space")).to_be_visible()


def test_a_second_browser_sees_it_and_breaks_nothing(opened: Opened, server: Server, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    other = Opened(Notebook(context.new_page(), server, STUDIO, opened.notebook.name), 0)
    other.notebook.page.evaluate(SHOW)
    other.at(5)
    other.studio.locator(".nlv-strip .nlv-tokens button").nth(6).click()
    for browser_page in (opened, other):
        browser_page.at(7)
    context.close()
    opened.notebook.keys("Position", "ArrowRight")
    opened.at(8)
    assert other.notebook.page_errors == []


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_one_screen_light_and_dark(opened: Opened, size: tuple[int, int]) -> None:
    book, page = opened.notebook, opened.notebook.page
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    if width == 1000:
        # The file browser takes a quarter of the page.
        book.execute("application:toggle-left-area")
    brightness = {}
    # Positions do not depend on the theme: test the second theme at one size only.
    themes = ("Light", "Dark") if width == 1280 else ("Light",)
    for theme in themes:
        book.theme(f"JupyterLab {theme}")
        opened.studio.evaluate("element => element.scrollIntoView({block: 'start'})")
        settle(Plot(page, opened.studio))
        for name in FIGURES:
            pixels = opened.plot(name).pixels()
            assert pixels.std() > 5, f"{name} is blank"
            brightness[name, theme] = float(np.median(pixels))
            wait_for(partial(fits, opened.plot(name)), f"{name} to fill its panel")
        book.screenshot(f"{width}x{height}-{theme.lower()}")
    screen = box(opened.studio)
    for name in FIGURES:
        card = box(opened.card(name))
        assert 0 <= card["y"] <= height - card["height"], f"{name} is not in sight"
        assert card["x"] + card["width"] <= screen["x"] + screen["width"] + 1
    assert len({round(box(opened.card(name))["x"]) for name in FIGURES}) == SIZES[size]
    if width >= 1280:
        # Beliefs are drawn in a square as high as there is room, in a view at least that wide.
        offsets = opened.plot("space").evaluate("['xaxis', 'xaxis2'].map(axis => plot._fullLayout[axis]._offset)")
        assert offsets[1] - offsets[0] >= 350
    # Both models have one scale, whatever ranges the views had before.
    spans = opened.plot("space").evaluate("['xaxis', 'xaxis2'].map(axis => plot._fullLayout[axis].range)")
    assert spans[0] == pytest.approx(spans[1])
    # The world's picture fills its panel, whatever sizes it had before.
    axis = "plot._fullLayout.xaxis"
    assert opened.plot("world").evaluate(f"{axis}._length / ({axis}.range[1] - {axis}.range[0])") > 30
    assert opened.plot("world").evaluate(INSIDE), "the name of a corner is cut"
    assert opened.studio.locator(".nlv-strip .nlv-tokens").evaluate(IN_LINE), "the current token is not in sight"
    # Every model's score is in sight, together with the figure of its probe.
    assert opened.card("knows").locator(".nlv-body").evaluate("body => body.scrollHeight - body.clientHeight") <= 1
    book.theme("JupyterLab Light")
    if width == 1000:
        book.execute("application:toggle-left-area")
    page.set_viewport_size({"width": 1280, "height": 1000})
    for (name, theme), bright in brightness.items():
        assert bright > 200 if theme == "Light" else bright < 60, (name, theme, bright)


def test_a_lesson_beside_the_panels(opened: Opened) -> None:
    book, page, rail = opened.notebook, opened.notebook.page, opened.studio.locator(".nlv-rail")
    expect(rail).to_be_hidden()
    opened.studio.locator("button[title^='Open a lesson']").click()
    expect(rail).to_contain_text("step 1 of 8")
    expect(opened.card("next")).to_have_class(re.compile("nlv-framed"))
    ahead = rail.get_by_role("button", name="Next", exact=True)
    ahead.click()
    # Nothing is shown before the prediction.
    expect(rail).to_contain_text("Predict before you look.")
    expect(rail).not_to_contain_text("0.99")
    expect(ahead).to_be_disabled()
    expect(opened.studio.locator(".nlv-framed")).to_have_count(0)
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        if width == 1000:
            book.execute("application:toggle-left-area")
        wait_for(lambda height=height: box(opened.studio)["height"] < height, "the studio to fit")
        settle(opened.plot("space"))
        book.screenshot(f"lesson-question-{width}")
        whole(rail, opened)
        if width == 1000:
            book.execute("application:toggle-left-area")
    rail.get_by_role("button", name="from both", exact=True).click()
    expect(rail).to_contain_text("Not so: from NextLat only.")
    expect(opened.card("knows")).to_have_class(re.compile("nlv-framed"))
    page.set_viewport_size({"width": 1280, "height": 800})
    for name in ("JupyterLab Dark", "JupyterLab Light"):
        book.theme(name)
        settle(opened.plot("space"))
        book.screenshot(f"lesson-{name[11:].lower()}")
        whole(rail, opened)
    rail.get_by_role("button", name="Back", exact=True).click()
    expect(rail).to_contain_text("step 1 of 8")
    expect(opened.card("next")).to_have_class(re.compile("nlv-framed"))
    opened.studio.locator("button[title^='Open a lesson']").click()
    expect(rail).to_be_hidden()
    opened.at(5)
    page.set_viewport_size({"width": 1280, "height": 1000})


def whole(rail: Locator, opened: Opened) -> None:
    """Assert that the rail's text is not cut, and that every panel is in sight below it."""
    cut = "part.offsetWidth && part.scrollWidth > part.clientWidth + 1"
    parts = "[...e.querySelectorAll('.nlv-rail-body, .nlv-rail-text, button')]"
    assert rail.evaluate(f"e => {parts}.filter(part => {cut}).length") == 0
    strip, studio = box(rail), box(opened.studio)
    assert strip["height"] < 110
    cards = [box(card) for card in opened.studio.locator(".nlv-card:visible").all()]
    assert len(cards) == 4
    for card in cards:
        assert strip["y"] + strip["height"] <= card["y"] + 1, "the lesson covers a panel"
        assert card["y"] + card["height"] <= studio["y"] + studio["height"] + 1, "a panel is not in sight"
        assert card["height"] > 100, "a panel has no room"


def test_a_narrow_place_has_one_column_and_dark_is_dark_on_a_light_page(opened: Opened) -> None:
    book, page = opened.notebook, opened.notebook.page
    book.kernel("None", "studio.state.dark = True")
    color = "e => getComputedStyle(e).backgroundColor"
    wait_for(lambda: opened.studio.evaluate(color) == "rgb(17, 17, 17)", "the studio to be dark")
    page.set_viewport_size({"width": 800, "height": 800})
    wait_for(lambda: len({round(box(opened.card(name))["x"]) for name in FIGURES}) == 1, "one column")
    book.screenshot("narrow-dark")
    book.kernel("None", "studio.state.dark = None")
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_runs_a_second_time(notebook: Opened) -> None:
    notebook.notebook.run_again(LIMIT)
    assert notebook.notebook.errors() == []
