"""Pictures of worlds: that there is one, that its places are right, and that names stay text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.worlds import HiddenMarkovWorld

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
@pytest.mark.parametrize("name", worlds.names())
def test_every_world_has_its_pictures(name: str, kind: str) -> None:
    world = worlds.get(name)
    options = {"depth": 3} if kind == "beliefs" else {}
    figure = world.draw(kind, **options)
    assert figure.layout.title.text.startswith(name)
    assert len(figure.data) > 0
    assert figure.to_json()


@pytest.mark.parametrize("kind", ["machine", "beliefs"])
@pytest.mark.parametrize("generalised", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_names_are_shown_as_text(kind: str, generalised: bool, size: int) -> None:
    names = [*HOSTILE, "plain"][:size]
    step = np.roll(np.eye(size), 1, axis=1) / 2
    world = HiddenMarkovWorld("<i>w", [step + np.eye(size) / 4, np.eye(size) / 4], HOSTILE[:2], names)
    if generalised:
        world = HiddenMarkovWorld("<i>w", world.transitions, HOSTILE[:2], names, generalised=True)
    found = list(texts(world.draw(kind).to_dict()))
    together = "\n".join(found)
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


def test_names_of_states_are_text_in_a_table_of_episodes() -> None:
    table = worlds.Episodes(np.zeros((1, 2), int), {"<script>": np.zeros((1, 2))})._repr_html_()
    assert "<script" not in table
    assert "&lt;script&gt;" in table


@pytest.mark.parametrize("name", worlds.names())
def test_belief_coordinates_are_affine(name: str) -> None:
    world = worlds.get(name)
    rng = np.random.default_rng(0)
    # Off the simplex too, as a linear probe's outputs are.
    here, there = rng.normal(size=(2, 5, 7, world.n_states))
    share = rng.normal(size=(5, 7, 1))
    mixed = world.belief_coordinates(share * here + (1 - share) * there)
    assert mixed.shape == (5, 7, 2)
    expected = share * world.belief_coordinates(here) + (1 - share) * world.belief_coordinates(there)
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


def test_dots_lie_where_their_beliefs_are() -> None:
    world = worlds.get("z1r")
    dots = next(trace for trace in world.draw("beliefs").data if trace.mode == "markers")
    drawn = {(round(x, 9), round(y, 9)) for x, y in zip(dots.x, dots.y, strict=True)}
    places = world.belief_coordinates(world.reachable_beliefs().beliefs)
    assert drawn == {(round(x, 9), round(y, 9)) for x, y in places.tolist()}


def test_a_moves_label_tells_token_and_probability() -> None:
    labels = {note.text for note in worlds.get("z1r", p=0.25).draw("machine").layout.annotations}
    assert {"0: 1", "1: 1", "0: 0.25<br>1: 0.75"} <= labels
