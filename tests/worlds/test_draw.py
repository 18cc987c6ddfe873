"""Pictures of worlds: every world has them, points are at the right places, names are escaped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from nextlat_viz import worlds
from nextlat_viz.figures import simplex
from nextlat_viz.worlds import Episodes, HiddenMarkovWorld, drawing

HIDDEN = [name for name in worlds.names() if isinstance(worlds.get(name), HiddenMarkovWorld)]
HOSTILE = ["<script>alert(1)</script>", "<b>bold", "$x$"]


def texts(node: Any) -> Iterator[str]:
    """Every string in a figure, however deep."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, (list, tuple, np.ndarray)):
        for value in node:
            yield from texts(value)


@pytest.mark.parametrize("kind", ["machine", "beliefs"])
@pytest.mark.parametrize("name", HIDDEN)
def test_every_world_has_pictures(name: str, kind: str) -> None:
    world = worlds.get(name)
    options = {"depth": 3} if kind == "beliefs" else {}
    figure = world.draw(kind, **options)
    assert figure.layout.title.text.startswith(name)
    assert len(figure.data) > 0
    assert figure.to_json()


@pytest.mark.parametrize("name", worlds.names())
def test_an_episode_can_be_seen_in_every_picture(name: str) -> None:
    world = worlds.get(name)
    episode = world.sample(1, world.length or 12, seed=1)
    for kind in world.pictures:
        for position in (0, 1, int(episode.length[0])):
            figure = world.draw(kind, episode=episode, position=position)
            assert len(figure.data) > 0 or (world.name == "story" and position == 0)
            assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
        with pytest.raises(ValueError, match="position must be an integer from 0 to"):
            world.draw(kind, episode=episode, position=-1)
        with pytest.raises(ValueError, match="episode must hold one episode, got 2"):
            world.draw(kind, episode=world.sample(2, world.length or 12, seed=1))


def test_the_belief_before_the_first_token_is_the_prior() -> None:
    world = worlds.get("z1r")
    *_, path, here = world.draw("beliefs", episode=world.sample(1, 4), position=0).data
    ((x, y),) = world.belief_coordinates(world.stationary[None])
    assert (list(path.x), list(path.y)) == ([x], [y]) == (list(here.x), list(here.y))


def test_no_edge_is_read_before_the_first_token() -> None:
    world = worlds.get("path_star", arms=2, nodes_per_arm=3, train_size=100, test_size=10)
    episode = world.sample(1)
    solid = [
        sum(trace.line.dash is None and trace.mode == "lines" and len(trace.x) == 2 for trace in figure.data)
        for figure in (world.draw(episode=episode, position=at) for at in (0, 2, 12))
    ]
    assert solid == [0, 1, 4]


def test_the_path_of_an_episode_goes_through_its_beliefs(monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.get("rrxor")
    episode = world.sample(1, 9, seed=4)
    *_, path, here = world.draw("beliefs", episode=episode, position=6).data
    beliefs = [world.stationary, *episode.states["belief"][0, :6]]
    np.testing.assert_allclose(np.stack([path.x, path.y], axis=1), world.belief_coordinates(beliefs))
    # The beliefs that an episode holds are not computed again; from tokens alone, they are.
    bare = world.draw("beliefs", episode=Episodes(episode.tokens), position=6).data[-2]
    np.testing.assert_allclose([bare.x, bare.y], [path.x, path.y])
    monkeypatch.setattr(HiddenMarkovWorld, "belief", None)
    assert world.draw("beliefs", episode=episode, position=6).data[-2].x.tolist() == path.x.tolist()
    assert (here.x[0], here.y[0]) == (path.x[-1], path.y[-1])


def test_the_machine_marks_the_present_state() -> None:
    world = worlds.get("rrxor")
    episode = world.sample(1, 9, seed=4)
    for position in (1, 4, 9):
        figure = world.draw("machine", episode=episode, position=position)
        states, ring = figure.data[-2], figure.data[-1]
        state = episode.states["state"][0, position - 1]
        assert (ring.x[0], ring.y[0]) == pytest.approx((states.x[state], states.y[state]))


@pytest.mark.parametrize("kind", ["machine", "beliefs"])
@pytest.mark.parametrize("generalised", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_names_are_shown_as_text(kind: str, generalised: bool, size: int) -> None:
    names = [*HOSTILE, "plain"][:size]
    step = np.roll(np.eye(size), 1, axis=1) / 2
    world = HiddenMarkovWorld("<i>w", [step + np.eye(size) / 4, np.eye(size) / 4], HOSTILE[:2], names)
    if generalised:
        world = HiddenMarkovWorld("<i>w", world.transitions, HOSTILE[:2], names, generalised=True)
    result = list(texts(world.draw(kind).to_dict()))
    together = "\n".join(result)
    assert "<script" not in together
    assert "<b>bold" not in together
    assert "<i>" not in together
    assert "&lt;i&gt;w" in together
    assert "$x$" not in together
    if kind == "beliefs" or not generalised:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in together
        assert "&lt;b&gt;bold" in together
    table = world._repr_html_()
    assert "<script" not in table
    assert "<b>bold" not in table
    assert "&lt;script&gt;" in table
    assert "&lt;i&gt;w" in table


def test_long_names_of_corners_leave_room_for_the_others() -> None:
    world = worlds.get("rrxor")
    long = HiddenMarkovWorld("w", world.transitions, ["0", "1"], [f"{letter} {'s' * 10_000}" for letter in "abcde"])
    named = [note.text for note in long.draw("beliefs").layout.annotations if note.text.startswith("<b>")]
    named += [note["text"] for note in simplex.corner_names(long, "x", "y")]
    assert len(named) == 10
    assert max(map(len, named)) == len("<b></b>") + 10


def test_names_of_states_are_text_in_a_table_of_episodes() -> None:
    table = worlds.Episodes(np.zeros((1, 2), int), {"<script>": np.zeros((1, 2))})._repr_html_()
    assert "<script" not in table
    assert "&lt;script&gt;" in table


@pytest.mark.parametrize("name", HIDDEN)
def test_belief_coordinates_are_affine(name: str) -> None:
    world = worlds.get(name)
    rng = np.random.default_rng(0)
    # Off the simplex too, as a linear probe's outputs are.
    first, second = rng.normal(size=(2, 5, 7, world.n_states))
    share = rng.normal(size=(5, 7, 1))
    mixed = world.belief_coordinates(share * first + (1 - share) * second)
    assert mixed.shape == (5, 7, 2)
    expected = share * world.belief_coordinates(first) + (1 - share) * world.belief_coordinates(second)
    np.testing.assert_allclose(mixed, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["mess3", "z1r"])
def test_three_states_lie_at_the_corners_of_an_equilateral_triangle(name: str) -> None:
    world = worlds.get(name)
    corners = world.belief_vertices
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, np.sqrt(3), atol=1e-12)
    np.testing.assert_allclose(world.belief_coordinates(np.eye(3)), corners, atol=1e-15)
    np.testing.assert_allclose(world.belief_coordinates(np.full(3, 1 / 3)), 0, atol=1e-12)


def test_two_states_lie_on_a_line() -> None:
    assert worlds.get("even").belief_coordinates([[1, 0], [0.25, 0.75], [0, 1]]).tolist() == [[0, 0], [0.75, 0], [1, 0]]


def test_drawing_again_returns_a_new_figure() -> None:
    world = worlds.get("mess3")
    first = world.draw("beliefs", width=400)
    before = first.to_json()
    first.data[1].marker.opacity = 0.1
    first.update_layout(title_text="mine")
    with pytest.raises(ValueError, match="not-a-mode"):
        first.data[1].mode = "not-a-mode"
    second = world.draw("beliefs", width=400)
    assert second.to_json() == before
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        world.draw("beliefs", width=0)
    with pytest.raises(ValueError, match=r"depth must be an integer of at least 1, got -1"):
        world.draw("beliefs", depth=-1)


def test_dots_lie_where_their_beliefs_are() -> None:
    world = worlds.get("z1r")
    dots = next(trace for trace in world.draw("beliefs").data if trace.mode == "markers")
    drawn = {(round(x, 9), round(y, 9)) for x, y in zip(dots.x, dots.y, strict=True)}
    places = world.belief_coordinates(world.reachable_beliefs().beliefs)
    assert drawn == {(round(x, 9), round(y, 9)) for x, y in places.tolist()}


def test_labels_of_moves_have_token_and_probability() -> None:
    labels = {note.text for note in worlds.get("z1r", p=0.25).draw("machine").layout.annotations}
    assert {"0: 1", "1: 1", "0: 0.25<br>1: 0.75"} <= labels


@pytest.mark.parametrize("name", ["rrxor", "mess3", "bloch_walk", "path_star", "s3", "taxi"])
def test_pictures_of_one_scale_set_their_ranges(name: str) -> None:
    # plotly would choose them by the size of the page, and keep the old ones when that changes.
    world = worlds.get(name)
    episode = world.sample(1, None if world.length else 8, seed=0)
    for kind in world.pictures:
        figure = world.draw(kind, episode=episode)
        if figure.layout.yaxis.scaleanchor:
            for axis, letter in ((figure.layout.xaxis, "x"), (figure.layout.yaxis, "y")):
                ends = sorted(axis.range)
                for trace in figure.data:
                    values = np.array(trace[letter], dtype=float)
                    assert np.nanmin(values, initial=ends[1]) >= ends[0], (kind, letter)
                    assert np.nanmax(values, initial=ends[0]) <= ends[1], (kind, letter)


def test_names_on_dark_dots_are_white() -> None:
    figure = go.Figure()
    drawing.add_dots(figure, np.zeros((4, 2)), text=list("abcd"), color=["#0072B2", "#F7EA50", "#EAA51A", "#008C65"])
    drawing.add_dots(figure, np.zeros((1, 2)), text=["a"], color="rgb(0, 0, 0)")
    assert figure.data[0].textfont.color == ("#ffffff", "#111111", "#111111", "#111111")
    assert figure.data[1].textfont.color == "#111111"
