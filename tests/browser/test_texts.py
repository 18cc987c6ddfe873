"""Texts of figures at the widths of small and large pages: none overlaps another, is cut, or lies under the toolbar."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, Page
from plotly.offline import get_plotlyjs

from nextlat_viz import analysis, figures, worlds
from nextlat_viz.analysis.prediction import Prediction
from nextlat_viz.notebook.panels.answers import AheadPanel, KnowsPanel, NextPanel
from nextlat_viz.notebook.panels.read import ReadPanel
from nextlat_viz.notebook.panels.what_if import WhatIfPanel
from nextlat_viz.notebook.panels.world import WorldPanel
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import CONFIG
from tests.figures.test_every_figure import CASES, drawn
from tests.synthetic import make_latents

# Widths in pixels of a cell's figure and of a studio's panel on pages 800, 1000, 1280 and 1920 pixels wide.
CELL = (620, 820, 1100, 1740)
PANEL = (350, 420, 560, 900)
WORLDS = ("rrxor", "mess3", "z1r", "bloch_walk", "path_star", "countdown", "story", "taxi", "s3", "z60", "othello")
PANELS = (WorldPanel, NextPanel, AheadPanel, KnowsPanel, ReadPanel, WhatIfPanel)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1900, "height": 1000})
    page.set_content("<!doctype html><body style='margin: 0'></body>")
    page.add_script_tag(content=get_plotlyjs())
    page.add_script_tag(content=f"globalThis.config = {json.dumps(CONFIG)};")
    page.add_script_tag(path=Path(__file__).with_name("boxes.js"))
    yield page
    page.close()


def faults(page: Page, figure: Any, widths: tuple[int, ...], toolbar: bool = True) -> dict[int, list[str]]:
    content = json.loads(figure.to_json())
    widths = widths if figure.layout.width is None else (figure.layout.width,)
    texts = {width: page.evaluate("([figure, width]) => faults(figure, width)", [content, width]) for width in widths}
    if not toolbar:
        texts = {width: [text for text in problems if "toolbar" not in text] for width, problems in texts.items()}
    return {width: problems for width, problems in texts.items() if problems}


@pytest.mark.parametrize("name", CASES)
def test_figures(page: Page, name: str) -> None:
    assert faults(page, drawn(name), CELL) == {}


@pytest.mark.parametrize("name", CASES)
def test_figures_for_a_column(page: Page, name: str) -> None:
    assert faults(page, figures.for_print(drawn(name), "column"), (), toolbar=False) == {}


@pytest.mark.parametrize(("width", "height"), [(560, 240), (560, 280), (900, 330)])
def test_names_of_corners_leave_the_headings_free(page: Page, width: int, height: int) -> None:
    latents = [make_latents(label=label, n=30, length=8) for label in ("next-token", "NextLat")]
    read = [analysis.probe(table, n_bootstrap=10) for table in latents]
    figure = figures.clouds(latents, [{}, {}], read, across=True)
    assert faults(page, figure.update_layout(height=height), (width,), toolbar=False) == {}


@pytest.mark.parametrize("names", [9, 13, 24])
def test_a_colour_key_of_many_names_is_not_cut(page: Page, names: int) -> None:
    latents = make_latents(n=30, length=8)
    latents.obs["name"] = [f"name {row % names}" for row in range(latents.n_obs)]
    figure = figures.clouds([latents], [{"pca": analysis.project(latents, "pca")}], color="name", across=True)
    figure.layout.height = max(240, figure.layout.meta["least"])
    assert faults(page, figure, (560,), toolbar=False) == {}


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_of_worlds(page: Page, name: str) -> None:
    world = worlds.get(name)
    episode = world.sample(1, None if world.length else 16, seed=0)
    last = int(episode.length[0])
    for kind in world.pictures:
        for position in (0, last // 2):
            picture = world.draw(kind, episode=episode, position=position)
            assert faults(page, picture, ()) == {}, (kind, position)


def settled(panel: Any) -> bool:
    """Whether a panel has a figure once everything that it asks for is computed.

    Playwright's event loop, which would call the panel back, stands still while a test waits.
    """
    state, drawn = panel.state, panel.drawn
    while state.busy:
        state.jobs.wait()
        state.layouts.wait()
        state.loop.flush()
        drawn = panel.drawn
    return drawn


@pytest.mark.parametrize("world", ["rrxor", "s3"])
def test_panels(page: Page, world: str) -> None:
    state = ViewState(f"{world}/next_token", f"{world}/nextlat")
    state.position = 4
    state.select(range(20))
    for kind in PANELS:
        panel = kind(state=state)
        if settled(panel):
            assert faults(page, panel.plot, PANEL) == {}, panel.name
        panel.close()


@pytest.mark.parametrize("letter", ["x", "W"])
def test_the_next_token_of_long_names(page: Page, letter: str) -> None:
    names, law = [letter * 10_000, f"0 {letter * 10_000}"], np.array([0.25, 0.75])
    labels = [f"{name} {letter * 10_000}" for name in ("next-token", "NextLat")]
    answers = {label: Prediction(tuple(names), law, law, label, 0, 3) for label in labels}
    figure = figures.prediction_bars(answers, compact=True)
    assert faults(page, figure, (220, *PANEL), toolbar=False) == {}
    heading = figure.layout.annotations[0].text
    assert heading.count("KL&nbsp;0.0000&nbsp;nats") == 2


def test_repeated_resizing_leaves_the_ranges(page: Page) -> None:
    latents = make_latents(n=30, length=8)
    clouds = figures.clouds([latents], [{"pca": analysis.project(latents, "pca")}], [analysis.probe(latents)])
    cases = {"clouds": clouds, **{name: drawn(name) for name in ("trajectories", "look_ahead_path", "reconstruction")}}
    cases |= {name: worlds.get(name).draw() for name in WORLDS}
    for name, figure in cases.items():
        content = json.loads(figure.to_json())
        widths = [900, 400, 1300, 900]
        first, *_, last = page.evaluate("([figure, widths]) => ranges(figure, widths)", [content, widths])
        for axis, ends in first.items():
            np.testing.assert_allclose(last[axis], ends, rtol=0.02, atol=0.02, err_msg=f"{name} {axis}")


# Plots as wide as their places, which have scrollbars if the plots are higher; all at once.
PAINTS = """async ([module, library, states]) => {
  const url = URL.createObjectURL(new Blob([module], {type: "text/javascript"}));
  const start = (await import(url)).default;
  document.body.replaceChildren();
  return Promise.all(states.map(async state => {
    const widget = start(), paints = [];
    const place = document.createElement("div"), el = document.createElement("div");
    Object.assign(place.style, {width: "500px", height: `${state.layout.height - 10}px`, overflow: "auto"});
    const model = {
        get: key => ({_figure: state})[key],
        on() {}, send: message => message.kind === "size" && paints.push(message.width),
        widget_manager: {get_model: async () => ({get: key => ({text: library, version: "test"})[key]})},
    };
    document.body.append(place);
    place.append(el);
    widget.initialize({model});
    widget.render({el});
    const rest = () => new Promise(next => setTimeout(next, 1500));
    for (let i = 0; i < 300 && !paints.length; i++) await new Promise(next => setTimeout(next, 100));
    await rest();
    const before = paints.length;
    place.style.width = "460px";
    await rest();
    const {_length: long, range} = el.querySelector(".js-plotly-plot")._fullLayout.xaxis;
    return [before, paints.length - before, long / (range[1] - range[0])];
  }));
}"""


def test_a_plot_beside_a_scrollbar_is_drawn_once_for_each_size(page: Page) -> None:
    pictures = [worlds.get(name).draw(worlds.get(name).pictures[-1]) for name in ("rrxor", "path_star")]
    states = []
    for figure in map(Plot, [*pictures, square()]):
        figure.update_layout(width=None, height=400)
        state = json.loads(go.Figure(figure).to_json(engine="json"))
        states.append(
            {"number": 0, "config": {}, "buffers": []} | {key: plain(state[key]) for key in ("data", "layout")}
        )
        module = figure._esm
        figure.close()
    for first, again, scale in page.evaluate(PAINTS, [module, get_plotlyjs(), states]):
        assert first >= 1
        assert 1 <= again <= 2
        assert scale > 0


def square() -> go.Figure:
    axis = {"constrain": "domain"}
    return go.Figure(go.Scatter(x=[0, 1], y=[0, 3]), {"xaxis": axis, "yaxis": {**axis, "scaleanchor": "x"}})


def plain(value: Any) -> Any:
    """Return a figure's JSON with its arrays as lists."""
    if isinstance(value, dict):
        if "bdata" in value:
            return np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"]).tolist()
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value
