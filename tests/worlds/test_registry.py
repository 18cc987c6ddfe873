"""Worlds by name, from specs, and from outside the package."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.worlds import HiddenMarkovWorld, registry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
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
def test_the_spec_builds_the_same_world(name: str) -> None:
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
def test_worlds_are_parsed_from_words(text: str, spec: dict[str, object]) -> None:
    world = worlds.get(text)
    assert world.spec == spec
    assert worlds.title(world) == text
    assert worlds.get(worlds.title(world)).spec == spec


COIN = [[[0.45, 0.05], [0.09, 0.81]], [[0.45, 0.05], [0.01, 0.09]]]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("countdown", {"targets": (10, 40), "numbers": 3}),
        ("countdown", {"targets": (50, 99)}),
        ("path_star", {"arms": 3, "train_size": 50, "test_size": 10}),
        ("story", {"people": 2, "questions": 0.5}),
        ("taxi", {"width": 4, "height": 4, "one_way": False, "rides": "noisy", "noise": 0.5}),
        ("bloch_walk", {"beta": 3.0}),
        ("hmm", {"transitions": COIN, "title": 'coin, 5 "a"', "token_names": ["a,b", "c=d"]}),
        ("hmm", {"transitions": COIN, "title": "5"}),
        ("s5", {}),
    ],
)
def test_the_title_builds_the_same_world(name: str, params: dict[str, object]) -> None:
    world = worlds.get(name, **params)
    again = worlds.get(worlds.title(world))
    assert again.spec == world.spec
    length = world.length or 16
    assert again.sample(4, length, seed=3).sha256 == world.sample(4, length, seed=3).sha256


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), JSON, min_size=1))
def test_any_parameters_can_be_written_and_read(params: dict[str, object]) -> None:
    text = "x:" + ",".join(f"{key}={registry._written(value)}" for key, value in params.items())
    assert registry._parsed(text) == ("x", params)


def test_tables_of_a_city_are_part_of_the_title(tmp_path: Path) -> None:
    nodes, edges = tmp_path / "a_nodes.csv", tmp_path / "a_edges.csv"
    nodes.write_text("node,x,y\na,0,0\nb,1,0\nc,0,1\n")
    edges.write_text("source,target\n" + "".join(f"{s},{t}\n" for s in "abc" for t in "abc" if s != t))
    world = worlds.get("taxi", city=(str(nodes), str(edges)), held_out=0.0)
    again = worlds.get(worlds.title(world))
    assert again.spec == world.spec


def test_a_users_world_is_titled_by_its_name() -> None:
    assert worlds.title(toss()) == "toss"


def test_words_that_are_not_parameters_are_refused() -> None:
    for text in ("z1r:", "z1r:p", "z1r:=3"):
        with pytest.raises(ValueError, match="parameters must be written as z1r:key=value,key=value"):
            worlds.get(text)
    with pytest.raises(ValueError, match="unknown parameter of world 'z1r': 'q'"):
        worlds.get("z1r:q=1")


def test_a_spec_must_name_its_world() -> None:
    with pytest.raises(ValueError, match="must be a mapping with a 'name'"):
        worlds.from_spec({"p": 0.5})


@pytest.mark.usefixtures("_own_registry")
def test_a_registered_world_works_like_any_other() -> None:
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
    point = EntryPoint("far_even", "nextlat_viz.worlds.hmm:even", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_announced", lambda: {"far_even": point})
    assert "far_even" in worlds.names()
    assert worlds.get("far_even", p=0.25).spec == {"name": "even", "p": 0.25}
    assert worlds.title(worlds.get("far_even", p=0.25)) == "even:p=0.25"


def test_a_world_of_a_package_keeps_its_parameters_in_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("toss", "tests.worlds.test_registry:toss", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "_announced", lambda: {"toss": point})
    assert worlds.title(worlds.get("toss", bias=0.25)) == "toss:bias=0.25"
