"""Worlds by name, from specs, and from outside the package."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from nextlat_viz import worlds
from nextlat_viz.worlds import HiddenMarkovWorld, registry

BUILT_IN = ["bloch_walk", "even", "golden_mean", "mess3", "rrxor", "sns", "z1r"]


@pytest.fixture
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def toss(bias: float = 0.3) -> HiddenMarkovWorld:
    spec = {"name": "toss", "bias": bias}
    return HiddenMarkovWorld("toss", [[[bias]], [[1 - bias]]], ["heads", "tails"], ["coin"], spec)


def test_the_built_in_worlds_are_listed() -> None:
    assert set(BUILT_IN) <= set(worlds.names())
    assert worlds.names() == sorted(worlds.names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_spec_leads_back_to_its_world(name: str) -> None:
    world = worlds.get(name)
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.name, again.spec, again.vocabulary) == (world.name, world.spec, world.vocabulary)
    assert again.state_names == world.state_names
    np.testing.assert_array_equal(again.transitions, world.transitions)
    assert again.sample(3, 9, seed=2).sha256 == world.sample(3, 9, seed=2).sha256


@pytest.mark.parametrize("generalised", [False, True])
def test_a_world_of_matrices_carries_them_in_its_spec(generalised: bool) -> None:
    matrices = worlds.get("bloch_walk" if generalised else "sns").transitions
    world = HiddenMarkovWorld("mine", matrices, generalised=generalised)
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.name, again.spec, again.generalised) == ("mine", world.spec, generalised)
    np.testing.assert_array_equal(again.transitions, matrices)
    np.testing.assert_array_equal(again.stationary, world.stationary)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("z1r", {"name": "z1r", "p": 0.5}),
        ("z1r:p=0.25", {"name": "z1r", "p": 0.25}),
        ("rrxor:p2=0.75", {"name": "rrxor", "p1": 0.5, "p2": 0.75}),
    ],
)
def test_a_world_in_words(text: str, spec: dict[str, object]) -> None:
    world = worlds.get(text)
    assert world.spec == spec
    assert worlds.title(world) == text
    assert worlds.get(worlds.title(world)).spec == spec


def test_a_world_of_ones_own_is_called_by_its_name() -> None:
    assert worlds.title(toss()) == "toss"


def test_words_that_are_no_parameters() -> None:
    for text in ("z1r:", "z1r:p", "z1r:=3"):
        with pytest.raises(ValueError, match="after the name come parameters such as z1r:key=value,key=value"):
            worlds.get(text)
    with pytest.raises(ValueError, match="unknown parameter of world 'z1r': 'q'"):
        worlds.get("z1r:q=1")


def test_a_spec_must_name_its_world() -> None:
    with pytest.raises(ValueError, match="must be a mapping with a 'name'"):
        worlds.from_spec({"p": 0.5})


@pytest.mark.usefixtures("_own_registry")
def test_a_world_from_outside_is_a_world_like_any_other() -> None:
    worlds.register("toss", toss)
    worlds.register("toss", toss)
    assert "toss" in worlds.names()
    world = worlds.get("toss", bias=0.25)
    assert worlds.from_spec(world.spec).spec == {"name": "toss", "bias": 0.25}
    assert world.sample(400, 10, seed=0).tokens.mean() == pytest.approx(0.75, abs=0.03)
    for kind in ("machine", "beliefs"):
        assert len(world.draw(kind).data) > 0


@pytest.mark.usefixtures("_own_registry")
def test_a_name_means_one_world() -> None:
    with pytest.raises(ValueError, match="'z1r' is already registered"):
        worlds.register("z1r", toss)
    with pytest.raises(ValueError, match="lower-case letters, digits and underscores, got 'My World'"):
        worlds.register("My World", toss)


@pytest.mark.usefixtures("_own_registry")
def test_a_cell_run_again_replaces_its_world() -> None:
    def cell(bias: float) -> None:
        def factory() -> HiddenMarkovWorld:
            return toss(bias)

        worlds.register("cell", factory)

    cell(0.3)
    cell(0.4)
    assert worlds.get("cell").spec["bias"] == 0.4


@pytest.mark.usefixtures("_own_registry")
def test_a_factory_must_return_a_world() -> None:
    worlds.register("nothing", lambda: {})
    with pytest.raises(TypeError, match="the factory of world 'nothing' returned dict, not a World"):
        worlds.get("nothing")


def test_an_entry_point_announces_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("far_even", "nextlat_viz.worlds.hmm.processes:even", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_announced", lambda: {"far_even": point})
    assert "far_even" in worlds.names()
    assert worlds.get("far_even", p=0.25).spec == {"name": "even", "p": 0.25}
