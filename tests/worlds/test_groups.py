"""Word problems, compared with permutations as dictionaries, read from the names of the elements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.groups import GroupWorld
from nextlat_viz.worlds.groups.draw import element_places

NAMES = ["s3", "a4", "s4", "a5", "s5", "a4xz5", "z60"]
SIZES = {"s3": 6, "a4": 12, "s4": 24, "a5": 60, "s5": 120, "a4xz5": 60, "z60": 60}
KINDS = ["cayley", "strip"]
Moved = dict[str, str]


def read(name: str) -> tuple[Moved, int]:
    """Return an element from its name: the images under its cycles, and the steps of its dial."""
    cycles, _, steps = name.partition("+")
    if cycles.isdigit():
        cycles, steps = "", cycles
    moved = {thing: thing for thing in "12345"}
    for cycle in re.findall(r"\((\d+)\)", cycles):
        for item, after in pairwise(cycle + cycle[0]):
            moved[item] = after
    return moved, int(steps or 0)


def then(first: tuple[Moved, int], second: tuple[Moved, int], dial: int) -> tuple[Moved, int]:
    moved = {thing: second[0][place] for thing, place in first[0].items()}
    return moved, (first[1] + second[1]) % dial


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), length=st.integers(8, 14), generators=st.booleans(), last=st.sampled_from([0, -1]))
def test_labels_and_states_are_running_products(name: str, seed: int, length: int, generators: bool, last: int) -> None:
    world = worlds.get(name, generators=generators)
    dial = 60 if name == "z60" else 5
    episodes = world.sample(3, length, seed, split=world.splits[last])
    assert world.legal(episodes.tokens).all()
    np.testing.assert_array_equal(episodes.targets, episodes.states["state"])
    for row, labels, e in zip(episodes.tokens, episodes.targets, range(3), strict=True):
        product = read("")
        for t, (token, label) in enumerate(zip(row, labels, strict=True)):
            product = then(product, read(world.vocabulary[token]), dial)
            assert read(world.vocabulary[label]) == product
            if name != "z60":
                places = episodes.states["permutation"][e, t]
                text = {str(k + 1): world.state_values["permutation"][place] for k, place in enumerate(places)}
                assert text.items() <= product[0].items()
            if name == "a4xz5":
                assert episodes.states["dial"][e, t] == product[1]
    for state, values in world.replay(episodes.tokens).items():
        np.testing.assert_array_equal(values, episodes.states[state])
        np.testing.assert_array_equal(values[:, :2], world.replay(episodes.tokens[:, :2])[state])


@pytest.mark.parametrize("name", NAMES)
def test_elements_form_a_group(name: str) -> None:
    world = worlds.get(name)
    size, every = SIZES[name], np.arange(SIZES[name])
    assert world.table.shape == (size, size)
    assert len(set(world.vocabulary)) == size
    assert (np.sort(world.table, axis=0) == every[:, None]).all()
    assert (np.sort(world.table, axis=1) == every).all()
    some = np.random.default_rng(0).integers(size, size=(3, 500))
    left = world.table[world.table[some[0], some[1]], some[2]]
    np.testing.assert_array_equal(left, world.table[some[0], world.table[some[1], some[2]]])
    assert (world.table[every, world.inverse] == world.identity).all()
    assert world.identity == 0
    orders = dict(zip(*np.unique(world.order, return_counts=True), strict=True))
    assert (
        orders
        == {
            "s3": {1: 1, 2: 3, 3: 2},
            "a4": {1: 1, 2: 3, 3: 8},
            "s4": {1: 1, 2: 9, 3: 8, 4: 6},
            "a5": {1: 1, 2: 15, 3: 20, 5: 24},
            "s5": {1: 1, 2: 25, 3: 20, 4: 30, 5: 24, 6: 20},
            "a4xz5": {1: 1, 2: 3, 3: 8, 5: 4, 10: 12, 15: 32},
            "z60": {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 2, 10: 4, 12: 4, 15: 8, 20: 8, 30: 8, 60: 16},
        }[name]
    )


def test_a5_is_the_even_half_of_s5_and_commutes_less_than_z60() -> None:
    a5, s5, z60 = (worlds.get(name) for name in ("a5", "s5", "z60"))
    assert set(a5.vocabulary) < set(s5.vocabulary)
    assert (z60.table == z60.table.T).all()
    # The classes of A5 are 5, so 5 in 60 pairs commute.
    assert (a5.table == a5.table.T).mean() == pytest.approx(5 / 60)


@pytest.mark.parametrize("name", ["a5", "s5", "a4xz5", "z60"])
def test_test_and_training_episodes_open_differently(name: str) -> None:
    world = worlds.get(name)
    train = np.concatenate([world.sample(20_000, 3 + seed, seed, states=False).tokens[:, :3] for seed in range(3)])
    test = np.concatenate([world.sample(5_000, 3 + seed, seed, split="test").tokens[:, :3] for seed in range(3)])
    assert not world.held_out(train).any()
    assert world.held_out(test).all()
    assert not set(map(tuple, train.tolist())) & set(map(tuple, test.tolist()))
    size = len(world.vocabulary)
    every = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    is_held_out = world.held_out(every)
    assert is_held_out.mean() == 0.1
    # Whatever the split, each product of one, of two and of three elements is as likely as any other.
    products = world.replay(every[is_held_out])["state"]
    for t in range(3):
        assert (np.bincount(products[:, t], minlength=size) == size**2 // 10).all()
    assert not world.held_out(every[:, :2]).any()


@pytest.mark.parametrize("name", ["s3", "a4", "s4", "a5", "s5", "a4xz5"])
def test_only_generators_are_read_and_openings_are_held_out(name: str) -> None:
    world = worlds.get(name, generators=True)
    assert world.splits == ("train", "test")
    opening = world.opening
    assert len(world.generators) ** opening >= 250 > len(world.generators) ** (opening - 1)
    seen = {}
    for split in world.splits:
        episodes = world.sample(6000, opening + 3, seed=1, split=split)
        assert set(np.unique(episodes.tokens)) == set(world.generators)
        assert (world.held_out(episodes.tokens) == (split == "test")).all()
        seen[split] = set(map(tuple, episodes.tokens[:, :opening].tolist()))
        # After the opening every generator is as likely as any other.
        often = np.bincount(episodes.tokens[:, opening:].ravel(), minlength=len(world.vocabulary))[
            list(world.generators)
        ]
        assert np.abs(often / often.sum() - 1 / len(world.generators)).max() < 0.02
    assert not seen["train"] & seen["test"]
    assert len(seen["test"]) == len(world.generators) ** opening // 10
    assert world.legal_first().sum() == len(world.generators)
    other = int(np.flatnonzero(~world.legal_first())[0])
    row = np.array([[world.generators[0], other, world.generators[0]]])
    assert world.legal(row).tolist() == [[True, False, False]]
    assert not world.legal_next(row)[0, 1:].any()
    message = f"token {world.vocabulary[other]!r} at position 2 is not one of its tokens: "
    for read in (world.replay, world.next_token_probs):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(row)


def test_generators_are_named_in_the_title() -> None:
    world = worlds.get("a5:generators=(123) (12345)")
    assert world.spec == {"name": "a5", "generators": ["(123)", "(12345)"]}
    assert worlds.get(worlds.title(world)).spec == worlds.get("a5", generators=("(123)", "(12345)")).spec == world.spec
    assert worlds.get("a5:generators=(12345) (12)(34)").spec == {"name": "a5", "generators": True}
    assert worlds.get("a5:generators=false").spec == worlds.get("a5").spec == {"name": "a5"}
    assert len(worlds.get("a5").sample(4, 3, split="test").tokens) == 4
    assert worlds.get("z60:generators=true").splits == ("train",)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tokens_and_labels_are_uniform(split: str) -> None:
    episodes = worlds.get("a5").sample(30_000, 6, seed=2, split=split, states=False)
    for values in (episodes.tokens, episodes.targets):
        for t in range(6):
            counts = np.bincount(values[:, t], minlength=60)
            # The third element alone need not be quite uniform given the split.
            assert np.abs(counts - 500).max() < 5 * np.sqrt(500) + (100 if t == 2 else 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_law_is_certain_of_the_label(name: str) -> None:
    world = worlds.get(name)
    episodes = world.sample(5, 7, seed=3)
    law = world.next_token_probs(episodes.tokens)
    assert (law.sum(-1) == 1).all()
    np.testing.assert_array_equal(law.argmax(-1), episodes.targets)
    assert world.floor(7).tolist() == [0.0] * 7
    assert world.loss_floor(7) == 0
    assert world.legal_next(episodes.tokens).all()
    assert world.legal_first().all()
    assert not world.predicts_next_token
    assert episodes.loss_mask.all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    world = worlds.get(name)
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.vocabulary, again.spec) == (world.vocabulary, world.spec)
    for split in world.splits:
        digest = world.sample(50, 12, seed=3, split=split).sha256
        assert again.sample(50, 12, seed=3, split=split).sha256 == digest
        assert world.sample(50, 12, seed=4, split=split).sha256 != digest
    assert world.sample(5, 12, states=False).states == {}
    assert world.sample(5, 1).tokens.shape == (5, 1)
    assert world.replay(np.zeros((2, 0), int))["state"].shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.sample(0, 5), "n must be an integer of at least 1, got 0"),
        (lambda w: w.sample(2), "length is needed: episodes of world 'a5' can have any length"),
        (lambda w: w.sample(2, 0), "length must be an integer of at least 1, got 0"),
        (lambda w: w.sample(2, 2, split="test"), "length must be at least 3 for split='test', got 2"),
        (lambda w: w.sample(2, 5, -1), "seed must be an integer of at least 0, got -1"),
        (lambda w: w.sample(2, 5, split="tset"), r"unknown split of world 'a5': 'tset'\. Did you mean 'test'"),
        (lambda w: w.floor(0), "length must be an integer of at least 1, got 0"),
        (lambda w: w.replay(np.array([[0, 60]])), "token 60 of episode 0 at position 2 is outside the vocabulary"),
        (lambda w: w.legal_next(np.array([0])), "tokens must be integers of shape"),
        (lambda w: w.held_out(np.array([[-1]])), "token -1 of episode 0 at position 1 is outside"),
        (lambda w: w.draw(episode=w.sample(2, 5)), "episode must hold one episode, got 2"),
        (lambda w: w.draw("strip", episode=w.sample(1, 5), position=6), "position must be an integer from 0 to 5"),
        (lambda w: worlds.get("a5", generators="(12)"), r"unknown generator of 'a5': '\(12\)'\. Did you mean"),
        (
            lambda w: worlds.get("a5", generators=["(123)", "(132)"]),
            r"generators \(123\), \(132\) generate 3 of the 60 elements of the group, but not '\(345\)': add a gen",
        ),
        (lambda w: worlds.get("a5", generators=[]), "generators none generate 0 of the 60 elements"),
        (lambda w: worlds.get("a5", generators=["(123)"] * 2), r"generators must all differ, got \(123\), \(123\)"),
        (lambda w: worlds.get("a5:generators=true").sample(2, 7, split="test"), "length must be at least 8 for"),
        (lambda w: worlds.get("a5", things=6), "unknown parameter of world 'a5': 'things'"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_arguments_are_refused(call: Callable[[worlds.World], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(worlds.get("a5"))


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([0, 1], r"elements must be integers of shape \(elements, places\), got int64 of shape \(2,\)"),
        ([[0, 0]], r"each element must be a permutation of 0\.\.1, got \[0, 0\] as element 0"),
        ([[0, 1], [0, 1]], "elements must all differ, got 2 of which 1 differ"),
        ([[0, 1, 2], [1, 2, 0]], r"element 1, then element 1, makes \[2, 0, 1\], which is not in elements; add it"),
    ],
)
def test_elements_that_form_no_group_are_refused(elements: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupWorld("mine", elements, [str(k) for k in range(len(elements))], [1])


@pytest.mark.usefixtures("without_shape_checks")
def test_generators_are_elements_that_generate_the_group() -> None:
    rotations = [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    with pytest.raises(ValueError, match="generators 2 generate 2 of the 4 elements of the group, but not '1'"):
        GroupWorld("mine", rotations, list("0123"), [2])
    with pytest.raises(ValueError, match="generators must be an integer from 0 to 3, got 4"):
        GroupWorld("mine", rotations, list("0123"), [4])
    with pytest.raises(TypeError, match=r"generators must be names of elements, such as .*, or True, got 3"):
        worlds.get("a5", generators=3)


def test_a_users_group_with_hostile_names() -> None:
    names = ["<script>", "$x$", "<b>bold"]
    world = GroupWorld("<i>w", [[0, 1, 2], [1, 2, 0], [2, 0, 1]], names, [1])
    assert world.splits == ("train",)
    episode = world.sample(1, 6, seed=0)
    for kind in KINDS:
        for shown in (world.draw(kind), world.draw(kind, episode=episode, position=4)):
            text = shown.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
            assert not any(word in text for word in ("<script", "<b>bold", "<i>", "$x$"))
            assert "&lt;i&gt;w" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_group_has_its_pictures(name: str, kind: str) -> None:
    world = worlds.get(name)
    assert world.draw(kind).layout.title.text.startswith(name)
    episode = world.sample(1, 36, seed=1)
    figure = world.draw(kind, episode=episode, position=30, width=640, height=500)
    assert world.vocabulary[episode.targets[0, 29]] in figure.layout.title.text
    assert (figure.layout.width, figure.layout.height) == (640, 500)
    with pytest.raises(UnknownNameError, match=f"unknown option of picture '{kind}': 'widht'.*'width'"):
        world.draw(kind, widht=3)
    with pytest.raises(UnknownNameError, match=r"unknown kind of picture 'caley'\. Did you mean 'cayley'"):
        world.draw("caley")


@pytest.mark.parametrize("name", NAMES)
def test_elements_are_drawn_at_different_places(name: str) -> None:
    world = worlds.get(name)
    where = element_places(world)
    gaps = np.linalg.norm(where[:, None] - where, axis=-1) + 9 * np.eye(len(where))
    assert gaps.min() > 0.02
    assert np.linalg.norm(where, axis=1).max() == pytest.approx(1)


def test_the_edges_of_a5_do_not_cross() -> None:
    world = worlds.get("a5")
    where = element_places(world)
    edges = {tuple(sorted((g, int(world.table[g, s])))) for g in range(60) for s in world.generators}
    assert len(edges) == 90

    def side(a: int, b: int, c: int) -> float:
        (ax, ay), (bx, by) = where[b] - where[a], where[c] - where[a]
        return ax * by - ay * bx

    for a, b in edges:
        for c, d in edges:
            if len({a, b, c, d}) == 4:
                assert not (side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0)
