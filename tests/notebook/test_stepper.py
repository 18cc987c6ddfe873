"""Stepping through one episode of a world, without a browser."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures.rows import true_state
from nextlat_viz.notebook import EpisodeStepper
from nextlat_viz.worlds import HiddenMarkovWorld


@pytest.fixture
def stepper() -> Iterator[EpisodeStepper]:
    stepper = EpisodeStepper("rrxor", length=8, seed=3)
    yield stepper
    stepper.close()


def test_facts_are_those_of_the_episode(stepper: EpisodeStepper) -> None:
    world, episode = stepper.world, stepper.episode
    for position in (1, 5, 8):
        stepper.position = position
        assert stepper.facts["state"] == world.state_names[episode.states["state"][0, position - 1]]
        text = stepper._beside.value
        assert f"true after {position} token" in text
        law = world.next_token_probs(episode.tokens[:, :position])[0, -1]
        likely = int(law.argmax())
        assert f"{world.vocabulary[likely]}: {law[likely]:.3g}" in text


@pytest.mark.parametrize("name", worlds.names())
def test_position_0(name: str) -> None:
    world = worlds.get(name)
    stepper = EpisodeStepper(world, length=world.length or 8)
    stepper.position = 0
    assert stepper.position == 0
    assert stepper._alert.value == ""
    assert set(stepper.facts) == set(world.start_states()) & set(stepper.episode.states)
    likely = np.argmax(world.legal_first() if world.start_probs() is None else world.start_probs())
    assert world.vocabulary[likely] in stepper._next()
    stepper.position = 1
    assert stepper._alert.value == ""
    stepper.close()


def test_a_cell_of_a_board_is_judged_by_the_whole_board() -> None:
    stepper = EpisodeStepper("queens:size=5,given=1,unique=false")
    shares = stepper.episode.states["posterior"][0]
    cell = int(np.flatnonzero(shares == 0.5)[0])
    stepper.position = cell + 1
    assert "Token to predict, exact probabilities: empty: 0.5, queen: 0.5" in stepper._next()
    assert f"true at position {cell + 1}" in stepper._beside.value
    stepper.close()


def test_the_picture_follows_the_position(stepper: EpisodeStepper) -> None:
    stepper._picture.value = "beliefs"
    stepper.position = 2
    before = [np.asarray(trace.x) for trace in stepper.plot.data]
    stepper.position = 6
    now = [np.asarray(trace.x) for trace in stepper.plot.data]
    assert len(before) == len(now)
    assert len(now[-2]) == 7
    assert not np.array_equal(before[-1], now[-1])


def test_the_first_picture_is_the_default() -> None:
    stepper = EpisodeStepper("rrxor", length=4, picture="beliefs")
    assert stepper._picture.value == "beliefs"
    assert any("Each corner is certainty" in note.text for note in stepper.plot.layout.annotations)
    stepper.close()
    with pytest.raises(UnknownNameError, match="belief"):
        EpisodeStepper("rrxor", length=4, picture="belief")


def test_another_episode_is_sampled(stepper: EpisodeStepper) -> None:
    stepper.position = 8
    stepper._seed.value = 4
    assert stepper.episode.sha256 == stepper.world.sample(1, 8, seed=4).sha256
    assert stepper.position == 4


def test_a_users_own_episode() -> None:
    world = worlds.get("z1r")
    own = world.sample(5, 6, seed=2)[3]
    stepper = EpisodeStepper(world, own)
    assert stepper.episode is own
    assert stepper._seed.layout.display == "none"
    stepper.close()
    with pytest.raises(ValueError, match=r"episode must hold one episode, got 5: pass episodes\[i\]"):
        EpisodeStepper(world, world.sample(5, 6, seed=2))


def test_a_position_outside_is_refused(stepper: EpisodeStepper) -> None:
    with pytest.raises(ValueError, match="position must be an integer from 0 to 8, got 9"):
        stepper.position = 9


def test_names_are_escaped() -> None:
    world = HiddenMarkovWorld("mine", [[[0.5]], [[0.5]]], ["<b>a</b>", "<i>b</i>"], ["<script>"])
    stepper = EpisodeStepper(world, length=4)
    assert "<script>" not in stepper._beside.value
    assert "<b>a" not in stepper._beside.value
    assert "&lt;script&gt;" in stepper._beside.value
    stepper.close()


@pytest.mark.parametrize("name", ["countdown", "path_star", "taxi", "othello", "story", "mess3"])
def test_facts_show_names_instead_of_codes(name: str) -> None:
    world = worlds.get(name)
    episode = world.sample(1, None if world.length else 12, seed=0)
    for position in (1, int(episode.length[0]) // 2):
        facts = true_state(world, episode, position)
        assert not any("_" in fact for fact in facts)
        for fact in set(facts) & {"distance", "depth", "remaining", "target", "board", "belief"}:
            assert "-1" not in facts[fact]
            assert "values" not in facts[fact]
        assert "belief" not in facts or f"{world.state_names[0]}: " in facts["belief"]


def test_a_stepper_opens_in_the_middle(stepper: EpisodeStepper) -> None:
    assert EpisodeStepper(stepper.world, stepper.episode).position == 4
