"""The panel "what if": targets that are dragged, slid or chosen, and the messages that are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nextlat_viz.analysis.interventions import inject
from nextlat_viz.notebook.serve import studio
from nextlat_viz.notebook.studio import Studio

from .conftest import traces


@pytest.fixture(scope="module")
def rrxor_studio() -> Iterator[Studio]:
    opened = studio("rrxor/next_token", "rrxor/nextlat")
    opened.state.arrange(detail="what_if")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def taxi_studio() -> Iterator[Studio]:
    opened = studio("taxi_grid/next_token", "taxi_grid/nextlat")
    opened.state.arrange(detail="what_if")
    yield opened
    opened.close()


def drag(card: Any, x: float, y: float) -> None:
    """Send what the page sends."""
    card.plane.cloud._handle_custom_msg({"kind": "move", "at": [x, y]}, [])


def bars(card: Any, role: str = "after") -> list[np.ndarray]:
    return [np.asarray(card.plot.data[i].y) for i in traces(card.plot, role)]


def test_a_drag_sets_the_target_of_the_probe(rrxor_studio: Studio) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    state.go_to(3, 5)
    before = bars(card)
    drag(card, 0.1, 0.2)
    assert card._alert.value == card.words == ""
    assert dict(card.to.options)["the marker"] == card.to.value
    np.testing.assert_allclose(card.plane.cloud.handle, (0.1, 0.2), atol=1e-9)
    assert not any(np.array_equal(a, b) for a, b in zip(before, bars(card), strict=True))
    # Both models have one target, and so one exact prediction.
    np.testing.assert_array_equal(*bars(card, "exact"))
    assert card.about.value.count("KL from exact") == 2
    # A point outside the simplex means the nearest belief.
    drag(card, 5.0, 5.0)
    x, y = card.plane.cloud.handle
    corners = list(card._chosen.landmarks.values())
    assert min(np.hypot(x - a, y - b) for a, b in corners) < 1e-6


def test_the_cursor_moves_only_the_ring(rrxor_studio: Studio) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    state.go_to(3, 5)
    drag(card, 0.1, 0.2)
    cloud, handle, ring = card.plane.cloud, card.plane.cloud.handle, card.plane.cloud.ring
    state.position = 7
    assert card.plane.cloud is cloud
    assert (cloud.handle, card.to.value) == (handle, dict(card.to.options)["the marker"])
    assert cloud.ring != ring


def test_a_cursor_step_does_not_read_the_whole_table(rrxor_studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    state.go_to(3, 5)
    drag(card, 0.1, 0.2)
    monkeypatch.setattr(inject, "features", lambda *arguments: pytest.fail("the latents of all rows were read"))
    before = bars(card)
    state.go_to(4, 3)
    assert card.drawn
    assert not any(np.array_equal(a, b) for a, b in zip(before, bars(card), strict=True))
    monkeypatch.undo()
    card.metric.value = "euclidean"
    assert card.drawn
    card.metric.value = "covariance"


def test_a_choice_in_the_list_moves_the_handle(rrxor_studio: Studio) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    card.to.value = "start"
    assert card.plane.cloud.handle == pytest.approx(card._chosen.landmarks["start"])
    card.to.value = card.to.options[-1][1]
    assert "No row is selected" in card.words
    drag(card, 0.0, 0.1)
    assert card.words == ""
    card.to.value = card.to.options[-1][1]
    state.select([17])
    belief = state.scene.latents[0].obsm["belief"][17]
    assert card.plane.cloud.handle == pytest.approx(state.scene.world.belief_coordinates(belief).tolist(), abs=1e-6)
    assert card.plane.cloud.selection.tolist() == [17]
    state.selection = ()


def test_a_step_of_a_drag_sends_little(rrxor_studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    card = rrxor_studio.panels["what_if"]
    drag(card, 0.0, 0.1)
    card.plot._heard_from_page = True
    sent: list[int] = []

    def note(message: Any, buffers: Any = None) -> None:
        sent.append(len(json.dumps(message, default=str)) + sum(memoryview(buffer).nbytes for buffer in buffers or []))

    for widget in (card.plane.cloud, card._plot, card.plane._caption, card.to, card._busy, card._words):
        monkeypatch.setattr(widget, "_send", note)
    drag(card, 0.02, 0.12)
    assert 100 < sum(sent) < 10_000


def test_the_plane_follows_model_colour_and_step(rrxor_studio: Studio) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    state.go_to(3, 5)
    drag(card, 0.1, 0.2)
    cloud, handle = card.plane.cloud, card.plane.cloud.handle
    places, codes = cloud.positions.copy(), cloud.codes.copy()
    state.color = "position"
    assert card.plane.cloud is cloud
    assert not np.array_equal(cloud.codes, codes)
    card.model.value = 1
    assert card.plane.cloud is not cloud
    assert not np.array_equal(card.plane.cloud.positions, places)
    assert card.plane.cloud.handle == pytest.approx(handle)
    state.show(step=200)
    assert card._alert.value == ""
    assert card.plane.cloud.handle == pytest.approx(handle)
    state.step, state.color, card.model.value = None, "state", 0


def test_classes_have_a_list_and_numbers_a_slider(rrxor_studio: Studio) -> None:
    state, card = rrxor_studio.state, rrxor_studio.panels["what_if"]
    state.target = "state"
    assert card.plane.box.layout.display == card.slider.layout.display == "none"
    assert "the marker" not in dict(card.to.options)
    state.target = "position"
    assert card.plane.box.layout.display == "none"
    assert card.slider.layout.display is None
    assert (card.slider.min, card.slider.step) == (1.0, 1.0)
    card.slider.value = 4.0
    assert card._alert.value == card.words == ""
    assert card.to.value == dict(card.to.options)["the marker"]
    card.to.value = card.to.options[0][1]
    assert card.slider.value == card.to.options[0][1]
    assert card.about.value.count("no exact prediction") == 2
    card.to.value = dict(card.to.options)["the marker"]
    assert card.words == ""
    state.target = "next_token_probs_exact"
    assert card._alert.value == ""
    state.target = "belief"
    assert card.plane.box.layout.display is None


def test_an_error_during_a_drag_stays_in_the_card(rrxor_studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    card = rrxor_studio.panels["what_if"]
    drag(card, 0.0, 0.1)

    def broken(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("too far")

    with monkeypatch.context() as patched:
        patched.setattr(inject.Injector, "inject", broken)
        drag(card, 0.1, 0.3)
        assert "too far" in card._alert.value
    assert rrxor_studio.panels["next"]._alert.value == ""
    drag(card, 0.1, 0.2)
    assert card._alert.value == card.words == ""


def test_a_place_is_dragged_through_the_streets(taxi_studio: Studio) -> None:
    state, card = taxi_studio.state, taxi_studio.panels["what_if"]
    state.target = "x"
    state.go_to(3, 5)
    assert card._alert.value == ""
    streets = state.scene.world.streets
    drag(card, streets.x[0] + 0.05, streets.y[0] - 0.05)
    assert card.plane.cloud.handle == pytest.approx((streets.x[0], streets.y[0]))
    assert "blocks" in card.plane.cloud._axes[0]
    assert streets.name in card.plane._caption.value
    before = bars(card)
    drag(card, -9.0, 9.0)
    assert not np.array_equal(before[0], bars(card)[0])
    assert "no exact prediction" in card.about.value
    # Both coordinates are edited, whichever is the target.
    state.target = "y"
    assert card.plane.box.layout.display is None
    # Models are not trained to predict the prompt.
    state.position = 1
    assert card._alert.value == ""
