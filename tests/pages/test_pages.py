"""Pages without a kernel: complete, self-contained, and small if little changes between steps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.notebook import EpisodeStepper
from nextlat_viz.pages import Step, episode_page, report, steps_page, write_page
from nextlat_viz.pages.gallery import Item
from nextlat_viz.pages.page import figure_html, render
from nextlat_viz.worlds import Episodes

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def world() -> worlds.World:
    return worlds.get("rrxor")


@pytest.fixture(scope="module")
def episode(world: worlds.World) -> Episodes:
    return world.sample(1, 6, seed=0)


def story(page: str) -> dict[str, Any]:
    """Return the data of the page's script."""
    (text,) = re.findall(r'<script type="application/json" id="story">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)  # type: ignore[no-any-return]


def own(page: str) -> str:
    """The page without plotly's code."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)


def test_every_step_has_its_figures_and_facts(world: worlds.World, episode: Episodes) -> None:
    probs = np.full((6, 2), 0.5)
    page = episode_page(world, episode, {"coin": probs})
    content = story(page)
    assert len(content["steps"]) == 6
    for position, step in enumerate(content["steps"], start=1):
        assert dict(step["facts"])["state"] == world.state_names[episode.states["state"][0, position - 1]]
        picture, bars = step["figures"]
        assert len(picture["data"]) == len(world.draw("machine", episode=episode, position=position).data)
        assert [content["pool"][item]["name"] for item in bars["data"]] == ["exact", "coin"]
        assert f"after position {position}" in json.dumps(content["pool"][bars["layout"]])
    assert page == episode_page(world, episode, {"coin": probs})


def test_a_page_loads_nothing(world: worlds.World, episode: Episodes) -> None:
    page = episode_page(world, episode)
    assert "Plotly.react" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", own(page))


def test_an_episode_opens_at_the_decisive_prediction_or_in_the_middle(world: worlds.World, episode: Episodes) -> None:
    assert story(episode_page(world, episode))["start"] == 3
    star = worlds.get("path_star")
    question = star.sample(1, seed=0)
    start = story(episode_page(star, question))["start"]
    # Where an arm is chosen, not in the middle of the prompt; the stepper opens there too.
    assert start == int(star.decisive(question)[0].argmax()) + 1 == EpisodeStepper(star, question).position
    ride = worlds.get("countdown").sample(1, seed=0)
    prompt, last = int(ride.loss_mask[0].argmax()), int(ride.length[0])
    assert story(episode_page(worlds.get("countdown"), ride))["start"] == (prompt + last) // 2 > last // 2
    assert [story(steps_page([Step("a", {})] * 5, "t", start=n))["start"] for n in (None, 2, 0, 9)] == [3, 2, 1, 5]


def test_repeated_figures_are_stored_once(world: worlds.World) -> None:
    figure = go.Figure([go.Scatter(x=np.arange(5_000.0)), go.Scatter(x=[0])])
    steps = [Step("a", {"P": go.Figure([figure.data[0], go.Scatter(x=[i])])}) for i in range(50)]
    content = story(steps_page(steps, "t"))
    assert len(content["pool"]) == 1 + 50 + 1
    assert len({step["figures"][0]["data"][0] for step in content["steps"]}) == 1


def test_text_from_data_stays_text() -> None:
    step = Step(NASTY, {NASTY: go.Figure().update_layout(title=NASTY)}, {NASTY: NASTY}, given=True)
    page = own(steps_page([step], NASTY, NASTY, {"note": NASTY}))
    assert "<script>alert" not in page
    assert "<img" not in page
    assert story(page)["steps"][0]["facts"] == [[NASTY, NASTY]]
    for way in ("innerHTML", "insertAdjacentHTML", "document.write"):
        assert way not in page


def test_long_names_and_prompts(world: worlds.World) -> None:
    class Long(type(world)):  # type: ignore[misc]
        vocabulary = ("x" * 10_000, "שלום 😀")

    long = Long.__new__(Long)
    long.__dict__.update(world.__dict__)
    long.__dict__.pop("vocabulary", None)
    tokens = np.array([[0, 1, 1]])
    mask = np.array([[False, True, True]])
    page = own(episode_page(long, Episodes(tokens, {}, mask), kind="machine"))
    words = re.findall(r'<button type="button" dir="auto"( class=given)?>(.*?)</button>', page)
    assert [(bool(given), len(word)) for given, word in words] == [(True, 120), (False, 6), (False, 6)]


def test_bad_episodes_are_refused(world: worlds.World, episode: Episodes) -> None:
    with pytest.raises(ValueError, match="episode must hold one episode, got 2"):
        episode_page(world, world.sample(2, 6))
    with pytest.raises(ValueError, match=r"episode has 401 tokens, a page holds 1 to 400"):
        episode_page(world, world.sample(1, 401))
    with pytest.raises(ValueError, match=r"predictions\['m'\] must have a row for each of 6 tokens.*shape \(5, 2\)"):
        episode_page(world, episode, {"m": np.ones((5, 2))})
    with pytest.raises(UnknownNameError, match="kind of picture 'map'"):
        episode_page(world, episode, kind="map")
    with pytest.raises(ValueError, match="steps is empty"):
        steps_page([], "t")
    with pytest.raises(ValueError, match=r"every step must have the figures \['A'\], step 1 has \['B'\]"):
        steps_page([Step("a", {"A": go.Figure()}), Step("b", {"B": go.Figure()})], "t")


def test_a_page_is_written_with_provenance(tmp_path: Path) -> None:
    path = write_page("<!doctype html>é", tmp_path / "new" / "page.html", {"world": "rrxor", "rows": np.arange(2)})
    assert path.read_text(encoding="utf-8") == "<!doctype html>é"
    note = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert (note["figure"], note["parameters"]) == ("page.html", {"world": "rrxor", "rows": [0, 1]})
    with pytest.raises(ValueError, match=r"ends in \.html"):
        write_page("", tmp_path / "page.png")


def test_an_index_links_its_pages_and_names_what_is_missing() -> None:
    cards = [Item(NASTY, NASTY, "a b.html", "a b.svg", ("a b.svg", "a b.json")), Item("Ωmega", "", "o.html")]
    contents: dict[str, Any] = {"note": NASTY, "sections": {NASTY: cards, "none": []}, "missing": {NASTY: NASTY}}
    page = render("index.html", NASTY, {"note": NASTY}, plotly=False, **contents)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert re.findall('href="(.*?)"', page) == ["a%20b.html", "a%20b.html", "a%20b.svg", "a%20b.json", "o.html"]
    assert re.findall('<img src="(.*?)"', page) == ["a%20b.svg"]
    assert "What is missing" not in render("index.html", "t", plotly=False, **contents | {"missing": {}})


def test_pages_of_a_gallery_share_plotly(world: worlds.World, episode: Episodes) -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0]))
    options: dict[str, Any] = {"note": NASTY, "figure": figure_html(figure)}
    single = render("figure.html", NASTY, {"note": NASTY}, gallery=True, **options)
    for page in (episode_page(world, episode, gallery=True), single):
        assert len(page) < 300_000
        assert re.findall('<script src="(.*?)"', page) == ["plotly.min.js"]
        assert 'href="index.html"' in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page


def test_a_report_is_one_page(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0])).update_layout(height=200, title="drawn")
    table = pd.DataFrame({"R<sup>2": [0.51234, None]}, index=["<i>a</i>", "b"])
    path = report(
        {"Fig <1>": figure, "Second": figure},
        {"Scores & such": table},
        "Mine </title><script>alert(1)</script>",
        tmp_path / "report.html",
        {"note": "</pre><script>alert(2)</script>"},
        {"Fig <1>": "See <b>here</b>"},
    )
    page = path.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in page
    assert "alert(2)</script>" not in page
    assert "<h1>Mine &lt;/title&gt;&lt;script&gt;" in page
    for escaped in ("Fig &lt;1&gt;", "Scores &amp; such", "&lt;i&gt;a&lt;/i&gt;", "R&lt;sup&gt;2", "See &lt;b&gt;here"):
        assert escaped in page
    assert "0.5123" in page
    assert page.count("Plotly.newPlot(") >= 2
    assert {"figure-0", "figure-1"} <= {part.split('"')[0] for part in page.split('id="')}
    assert "<script src=" not in page
    assert page.index("Scores &amp; such") < page.index("Fig &lt;1&gt;")
    # The caller's figure is not changed.
    assert figure.layout.template.layout.paper_bgcolor != "rgba(0,0,0,0)"


def test_a_report_of_tables_alone_needs_no_plotly(tmp_path: Path) -> None:
    page = report({}, {"T": pd.DataFrame({"a": [1]})}, "t", tmp_path / "r.html").read_text()
    assert len(page) < 20_000
    assert "<script" not in page


@pytest.mark.parametrize("kind", ["machine", "beliefs"])
def test_long_names_take_no_room_and_no_name_turns_the_text_around(kind: str) -> None:
    def data(size: int) -> str:
        names = [f"\u202e{number}{'n' * size}" for number in range(3)]
        world = worlds.HiddenMarkovWorld("long", worlds.get("mess3").transitions, names, names)
        return json.dumps(story(episode_page(world, world.sample(1, 6, seed=0), kind=kind)), ensure_ascii=False)

    short, long = data(100), data(10_000)
    assert len(long) < 1.1 * len(short)
    assert "\u202e" not in long
