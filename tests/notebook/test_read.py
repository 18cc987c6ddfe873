"""Strings in the studio: clicked, typed and pasted, and strings that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz.notebook.panels.read import ReadPanel
from nextlat_viz.notebook.state import ViewState
from tests.notebook.conftest import touch, traces


@pytest.fixture(scope="module")
def shared() -> ViewState:
    return ViewState({name: [f"{name}/next_token", f"{name}/nextlat"] for name in ("rrxor", "path_star", "s3")})


@pytest.fixture
def panel(shared: ViewState) -> Iterator[ReadPanel]:
    shared.world = "rrxor"
    shared.go_to(3, 5)
    panel = ReadPanel(state=shared)
    panel.shown = True
    assert panel.drawn, panel._alert.value
    yield panel
    assert panel._alert.value == ""
    panel.close()


def click(panel: ReadPanel, place: int) -> None:
    panel.strip._handle_custom_msg({"kind": "click", "place": place}, [])
    panel._update()


def curves(panel: ReadPanel, role: str) -> list[Any]:
    panel._update()
    return [panel.plot.data[i] for i in traces(panel.plot, role)]


def test_the_string_starts_as_the_episode_at_the_cursor(panel: ReadPanel) -> None:
    scene = panel.state.scene
    names = [scene.vocabulary[token] for token in scene.tokens[3]]
    assert list(panel.string) == names == panel.strip.tokens[1:]
    assert panel.text.value == "".join(names)
    assert (panel.strip.tokens[0], panel.strip.position, panel.strip.selected) == ("start", 5, [])
    assert [curve.name for curve in curves(panel, "surprise")] == ["ideal observer", "next-token", "NextLat"]
    assert curves(panel, "before") == []
    # One exact path and one of each model, as the probes read them.
    assert [len(path.x) for path in curves(panel, "path")] == [13] * 3
    panel.state.position = 6
    panel._update()
    assert panel.strip.position == 6
    panel.state.episode = 4
    assert list(panel.string) == [scene.vocabulary[token] for token in scene.tokens[4]]


def test_a_click_flips_a_token_and_compares(panel: ReadPanel) -> None:
    original, before = panel.string, [curve.y for curve in curves(panel, "surprise")]
    free = next(place for place in range(1, 13) if len(panel._options(place)) == 2)
    click(panel, free)
    assert panel.string[: free - 1] == original[: free - 1]
    assert panel.string[free - 1] != original[free - 1]
    assert (panel.strip.selected, panel.strip.position) == ([free], free)
    dashed = curves(panel, "before")
    assert {curve.line.dash for curve in dashed} == {"dash"}
    assert [curve.y for curve in dashed[:3]] == before
    assert panel.plot.layout.shapes[0].x0 == free - 0.4
    changed = (
        f"Position {free} changed from {original[free - 1]} to {panel.string[free - 1]}; surprise changed, in bits"
    )
    assert changed in panel.about.value
    assert f"belief after position {free} moved" in panel.about.value
    click(panel, free)
    assert panel.string == original
    assert curves(panel, "before") == []
    click(panel, free)
    panel.reset.click()
    assert (panel.string, panel.strip.position) == (original, 5)


def test_a_forced_token_is_labelled(panel: ReadPanel) -> None:
    forced = next(place for place in range(1, 13) if len(panel._options(place)) == 1)
    before = panel.string
    click(panel, forced)
    assert panel.string == before
    assert f"Position {forced} can only be {before[forced - 1]}" in panel._notice.value


def test_tokens_after_an_illegal_one_are_not_read(panel: ReadPanel) -> None:
    panel.text.value = "10011001"
    panel._update()
    assert "at position 8 is not legal in world &#39;rrxor&#39;: legal there is 0" in panel._notice.value
    assert "Tokens read: the 7 before it" in panel._notice.value
    assert (len(panel.string), panel.reading.tokens.size, panel.strip.last) == (8, 7, 7)
    # The list offers only legal tokens there, and the token before the error can be changed.
    panel.back.click()
    panel._update()
    assert panel._notice.value == ""


@pytest.mark.parametrize("wrong", ["0é1", "☃" * 40, "01" * 5_000, "2"])
def test_an_invalid_string_keeps_the_last_reading(panel: ReadPanel, wrong: str) -> None:
    panel.text.value = "010"
    before = [curve.y for curve in curves(panel, "surprise")]
    panel.text.value = wrong
    panel._update()
    assert "The last string that could be read is still shown" in panel._notice.value
    assert panel.text.value == wrong
    assert panel.string == ("0", "1", "0")
    assert [curve.y for curve in curves(panel, "surprise")] == before
    with pytest.raises(ValueError, match=r"no symbol|at most 12"):
        panel.read(wrong)
    panel.text.value = "0101"
    panel._update()
    assert (panel._notice.value, panel.string) == ("", ("0", "1", "0", "1"))


def test_an_empty_string_shows_the_prior(panel: ReadPanel) -> None:
    panel.text.value = ""
    laws = curves(panel, "law")
    assert panel.drawn
    assert [bar.name for bar in laws] == ["ideal observer", "next-token", "NextLat"]
    np.testing.assert_allclose(laws[0].y, panel.reading.world.start_probs(), atol=1e-6)
    assert panel.back.disabled


def test_a_point_of_a_curve_moves_the_bars(panel: ReadPanel) -> None:
    touch(panel.plot, "click", {traces(panel.plot, "surprise")[1]: [1]})
    panel._update()
    assert (panel.strip.position, panel.state.position) == (2, 5)
    np.testing.assert_allclose(curves(panel, "law")[0].y, panel.reading.exact[2], atol=1e-6)


def test_products_and_prompts(panel: ReadPanel) -> None:
    state = panel.state
    state.show("s3")
    panel._update()
    assert "<b>Product</b>" in panel.plot.layout.annotations[1].text
    assert curves(panel, "path") == []
    click(panel, 3)
    assert len(panel.strip.selected) == 1
    assert "ideal observer +0.0" in panel.about.value
    state.show("path_star")
    panel._update()
    assert np.isnan(np.array(curves(panel, "surprise")[1].y[:21], float)).all()
    assert "First 21 tokens: the prompt, not trained on." in panel.about.value
    # With many symbols, a list offers only the legal ones.
    click(panel, 1)
    assert panel.strip.selected == []
    assert panel.symbol.description == "Token 1"
    panel.symbol.value = next(token for _, token in panel.symbol.options if token != panel.symbol.value)
    panel._update()
    assert panel.strip.selected == [1]


def test_models_given_as_latents(rrxor: list[AnnData]) -> None:
    panel = ReadPanel(state=ViewState(*rrxor))
    panel.shown = True
    assert "given as latents" in panel.why_not
    assert panel.words == panel.why_not
    with pytest.raises(ValueError, match="given as latents"):
        panel.read("01")
    panel.close()
    latents = nlv.extract(nlv.load("rrxor/nextlat"), progress=False)
    panel = ReadPanel(state=ViewState("rrxor/next_token", latents))
    panel.shown = True
    assert [curve.name for curve in curves(panel, "surprise")] == ["ideal observer", "next-token"]
    assert "NextLat was given as latents" in panel._without.value
    panel.close()


def test_models_of_puzzles_are_refused() -> None:
    panel = ReadPanel("queens/trm/seed0")
    assert "no string to read token by token" in panel.why_not
    panel.close()
