"""The taxi world: episodes, states, legal tokens, errors."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.taxi import draw
from nextlat_viz.worlds.taxi.rides import KINDS
from nextlat_viz.worlds.taxi.streets import COMPASS
from nextlat_viz.worlds.taxi.world import Taxi

SAMPLES = {"random": "94a6f542379e7ee6", "noisy": "ad8bd211d724ce57", "shortest": "edefe1f264f40eff"}


@cache
def small(rides: str = "random", width: int = 5, height: int = 4, **options: float) -> Taxi:
    world = worlds.get("taxi", rides=rides, width=width, height=height, **options)
    assert isinstance(world, Taxi)
    return world


@cache
def graph(width: int = 5, height: int = 4) -> networkx.DiGraph:
    return small("random", width, height).streets.to_networkx()


def token(world: Taxi, *names: str) -> np.ndarray:
    return np.array([[world.vocabulary.index(name) for name in names]])


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 7),
    st.integers(2, 7),
    st.sampled_from(["train", "test"]),
    st.integers(0, 4),
    st.integers(0, 2**32),
)
def test_episodes_are_rides(kind: str, width: int, height: int, split: str, padding: int, seed: int) -> None:
    world = small(kind, width, height, held_out=0.5)
    episodes = world.sample(5, world.length + padding, seed, split=split)
    assert world.length == world.rides.max_turns + 3
    assert world.legal(episodes.tokens).all()
    assert super(Taxi, world).legal(episodes.tokens).all()
    far = dict(networkx.all_pairs_shortest_path_length(graph(width, height)))
    for e in range(len(episodes)):
        used = int(episodes.length[e])
        names = [world.vocabulary[t] for t in episodes.tokens[e].tolist()]
        assert set(names[used - 1 :]) == {"end"}
        assert "end" not in names[: used - 1]
        positions = np.arange(len(names))
        np.testing.assert_array_equal(episodes.loss_mask[e], (positions >= 2) & (positions < used))
        at, goal, left = names[0][1:], names[1][1:], world.rides.max_turns
        for t, name in enumerate(names):
            if 2 <= t < used - 1:
                at = next(b for _, b, turn in graph(width, height).out_edges(at, data="direction") if turn == name)
                left -= 1
            state = {key: values[e, t] for key, values in episodes.states.items()}
            place = graph(width, height).nodes[at]
            assert world.streets.nodes[state["node"]] == at
            assert (state["x"], state["y"], state["moves_left"]) == (place["x"], place["y"], left)
            if t == 0:
                assert (state["destination"], state["distance"]) == (-1, -1)
            else:
                assert world.streets.nodes[state["destination"]] == goal
                assert state["distance"] == far[at][goal]
        assert at == goal
        assert left >= 0


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.integers(1, 12))
def test_a_prefix_has_the_states_of_the_whole(kind: str, seed: int, cut: int) -> None:
    world = small(kind)
    episodes = world.sample(4, seed=seed)
    whole, part = world.replay(episodes.tokens), world.replay(episodes.tokens[:, :cut])
    assert list(whole) == list(episodes.states)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, episodes.states[name])
        np.testing.assert_array_equal(values[:, :cut], part[name])
    np.testing.assert_array_equal(
        world.next_token_probs(episodes.tokens)[:, :cut], world.next_token_probs(episodes.tokens[:, :cut])
    )


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**32))
def test_the_law_sums_to_one_and_covers_what_happens(kind: str, seed: int) -> None:
    world = small(kind)
    tokens = world.sample(6, seed=seed).tokens
    probs = world.next_token_probs(tokens)
    np.testing.assert_allclose(probs.sum(-1), 1)
    assert (np.take_along_axis(probs[:, :-1], tokens[:, 1:, None], -1) > 0).all()
    assert world.legal_next(tokens)[probs > 0].all()
    np.testing.assert_array_equal(world.turn_probs(tokens), probs[..., -9:])


def test_random_rides_keep_the_destination_in_reach() -> None:
    world = small("random")
    tokens = world.sample(50, seed=3).tokens
    np.testing.assert_array_equal(world.turn_probs(tokens)[..., :8] > 0, world.legal_turns(tokens, in_time=True))
    np.testing.assert_array_equal(world.legal_turns(tokens), world.legal_next(tokens)[..., -9:-1])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_tokens_are_judged_as_by_networkx(data: st.DataObject) -> None:
    world = small("random", 4, 3, max_turns=4)
    streets = graph(4, 3)
    far = dict(networkx.all_pairs_shortest_path_length(streets))
    tokens = [data.draw(st.sampled_from(world.streets.nodes)) for _ in range(2)]
    tokens = [f"@{name}" for name in tokens] + data.draw(
        st.lists(st.sampled_from([*COMPASS, "end", "@1,1"]), max_size=8)
    )
    expected, at, goal, left = [], tokens[0][1:], tokens[1][1:], 4
    for t, name in enumerate(tokens):
        ways = {turn: b for _, b, turn in streets.out_edges(at, data="direction")}
        if t == 0:
            fine = True
        elif t == 1:
            fine = 0 < far[at][goal] <= 4
        elif at == goal:
            fine = name == "end"
        else:
            fine = name in ways and left > 0
            at, left = ways.get(name, at), left - 1
        expected.append(fine and all(expected))
    row = token(world, *tokens)
    assert world.legal(row)[0].tolist() == expected
    assert super(Taxi, world).legal(row)[0].tolist() == expected
    assert not world.legal_next(row)[~world.legal(row)].any()
    if all(expected):
        world.replay(row)
    else:
        with pytest.raises(ValueError, match=rf"episode 0 cannot happen .* at position {expected.index(False) + 1}: "):
            world.replay(row)


def test_the_prompt_allows_pairs_that_a_ride_can_connect() -> None:
    world = small("shortest", max_turns=3)
    near = networkx.single_source_shortest_path_length(graph(), world.streets.nodes[7], cutoff=3)
    allowed = np.flatnonzero(world.legal_next(np.array([[7]]))[0, 0])
    assert {world.vocabulary[t] for t in allowed} == {f"@{node}" for node in near if node != world.streets.nodes[7]}
    probs = world.next_token_probs(np.array([[7]]))[0, 0]
    np.testing.assert_allclose(probs[allowed], 1 / len(allowed))
    assert np.flatnonzero(world.legal_first()).tolist() == list(range(20))


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (("N",), "opens with two intersections"),
        (("@1,1", "end"), "opens with two intersections"),
        (("@1,1", "@1,1"), "origin and destination must differ"),
        (("@1,1", "@3,3"), "it is 3 moves from '1,1', and rides have at most max_turns=2"),
        (("@1,1", "@2,1", "@3,1"), "no further intersections"),
        (("@1,1", "@2,1", "SW"), "no street leads SW from '1,1'"),
        (("@1,1", "@2,1", "end"), "the taxi is at '1,1', not yet at its destination '2,1'"),
        (("@1,1", "@2,1", "E", "E"), "has reached its destination, and only 'end' may follow"),
        (("@1,1", "@2,1", "E", "end", "E"), "has reached its destination, and only 'end' may follow"),
        (("@1,1", "@2,1", "N", "S", "E"), "all 2 moves are used up"),
    ],
)
def test_impossible_tokens_are_refused_with_the_reason(tokens: tuple[str, ...], reason: str) -> None:
    world = small("random", 3, 3, one_way=False, max_turns=2)
    row = token(world, *tokens)
    assert world.legal(row)[0].tolist() == [True] * (len(tokens) - 1) + [False]
    for ask in (world.replay, world.next_token_probs, world.turn_probs):
        with pytest.raises(ValueError, match=reason):
            ask(row)


def test_the_law_covers_rides_that_can_still_arrive() -> None:
    world = small("random", 3, 3, one_way=False, max_turns=2)
    row = token(world, "@1,1", "@2,1", "N")
    assert world.legal(row).all()
    assert world.legal_turns(row)[0, -1].any()
    assert not world.legal_turns(row, in_time=True)[0, -1].any()
    with pytest.raises(ValueError, match="after position 3 the destination is 2 moves away with 1 left"):
        world.next_token_probs(row)


def test_a_shortest_ride_stays_shortest_after_a_detour() -> None:
    world = small("shortest", 3, 3, one_way=False, max_turns=4)
    row = token(world, "@1,1", "@3,1", "N")
    np.testing.assert_array_equal(world.turn_probs(row)[0, -1] > 0, [False, False, True] + 6 * [False])


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_sample(kind: str) -> None:
    world = worlds.get("taxi", rides=kind)
    digests = [world.sample(50, seed=seed).sha256 for seed in (0, 0, 1, 2)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    bare = world.sample(50, seed=0, states=False)
    assert bare.states == {}
    np.testing.assert_array_equal(bare.tokens, world.sample(50, seed=0).tokens)
    # Shipped checkpoints are compared on episodes sampled elsewhere: this hash must never change.
    assert digests[0][:16] == SAMPLES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_pair_is_in_train_and_in_test(kind: str) -> None:
    world = small(kind, 8, 8, held_out=0.2)
    pairs = {
        split: {
            tuple(pair)
            for seed in range(3)
            for pair in world.sample(4000, seed=seed, split=split, states=False).tokens[:, :2].tolist()
        }
        for split in world.splits
    }
    assert not pairs["train"] & pairs["test"]
    assert 0.15 < len(pairs["test"]) / (len(pairs["train"]) + len(pairs["test"])) < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_builds_the_same_world(kind: str) -> None:
    world = worlds.get("taxi", rides=kind, width=7, height=5, noise=0.5, held_out=0.25)
    again = worlds.from_spec(json.loads(json.dumps(world.spec)))
    assert (again.spec, again.vocabulary, again.length) == (world.spec, world.vocabulary, world.length)
    assert again.sample(9, seed=4).sha256 == world.sample(9, seed=4).sha256


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    nodes, edges = tmp_path / "nodes.csv", tmp_path / "edges.csv"
    nodes.write_text("node,x,y\na,0,0\nb,100,0\nc,100,100\nN,0,100\n")
    edges.write_text("source,target\na,b\nb,c\nc,N\nN,a\nb,a\na,c\n")
    return nodes, edges


def test_changed_files_of_a_world_are_noticed(tables: tuple[Path, Path]) -> None:
    nodes, edges = tables
    world = worlds.get("taxi", nodes=nodes, edges=edges, held_out=0.3)
    assert world.spec["city"] == [str(nodes), str(edges)]
    assert world.vocabulary[:5] == ("@a", "@b", "@c", "@N", "N")
    assert "4 intersections, 6 directed edges" in world.facts()["streets"]
    same = worlds.get("taxi", city=tables, held_out=0.3, city_name="quarter")
    assert (same.spec["city_name"], same.streets.name) == ("quarter", "quarter")
    spec = json.loads(json.dumps(world.spec))
    assert worlds.from_spec(spec).sample(9, seed=1).sha256 == world.sample(9, seed=1).sha256
    edges.write_text(edges.read_text() + "c,b\n")
    changed = worlds.get("taxi", city=tables).spec["expected"]["sha256"]
    with pytest.raises(ValueError, match=f"their sha256 is {changed}, not {spec['expected']['sha256']}"):
        worlds.from_spec(spec)
    with pytest.raises(ValueError, match="pass city_name to name the city"):
        worlds.get("taxi", city=tables, **{"name": "quarter"})


def test_max_turns_follows_the_city() -> None:
    longest = int(small().streets.distance.max())
    assert small("shortest").rides.max_turns == longest
    assert small("random").rides.max_turns == small("noisy").rides.max_turns == -(-3 * longest // 2)
    assert small("random", 60, 60).rides.max_turns == 97


def test_node_names_are_unique_and_readable() -> None:
    world = small()
    assert len(set(world.vocabulary)) == len(world.vocabulary) == 20 + 8 + 1
    row = token(world, "@1,1", "@2,1", "E", "end", "end")[0]
    assert [world.decode(row[:k]) for k in range(6)] == [
        "",
        "from 1,1",
        "from 1,1 to 2,1",
        "from 1,1 to 2,1: E",
        "from 1,1 to 2,1: E end",
        "from 1,1 to 2,1: E end",
    ]
    assert world.state_values["node"] == world.state_values["destination"] == world.streets.nodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rides": "shortst"}, r"unknown kind of rides 'shortst'. Did you mean 'shortest'\?"),
        ({"max_turns": 0}, "max_turns must be an integer of at least 1, got 0"),
        ({"max_turns": 2.5}, "max_turns must be an integer of at least 1, got 2.5"),
        ({"noise": 1.5}, r"noise must be in \[0, 1\], got 1.5"),
        ({"noise": float("nan")}, r"noise must be in \[0, 1\], got nan"),
        ({"held_out": 1}, r"held_out must be in \[0, 1\), got 1"),
        ({"held_out": -0.1}, r"held_out must be in \[0, 1\), got -0.1"),
        ({"held_out": "half"}, r"held_out must be in \[0, 1\), got 'half'"),
        ({"width": 2, "height": 2, "held_out": 1e-9}, "held_out=1e-09 leaves no pair for the 'test' split"),
        ({"width": 2, "height": 2, "held_out": 1 - 1e-9}, "leaves no pair for the 'train' split"),
        ({"expected": {"sha256": "abc"}}, "are not those expected: their sha256 is [0-9a-f]{64}, not abc"),
        (
            {"city": 7},
            "city must be a name, a path, Streets, a networkx graph, a DataFrame of edges, or a pair of paths or "
            "DataFrames, got 7",
        ),
        ({"depth": 7}, "unknown option of city 'grid': 'depth'"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("taxi", **options)


def test_bad_samples_are_refused() -> None:
    world = small("random", held_out=0.0)
    assert world.splits == ("train",)
    with pytest.raises(UnknownNameError, match="unknown split of world 'taxi': 'test'"):
        world.sample(1, split="test")
    with pytest.raises(ValueError, match="length=5 is too short"):
        world.sample(1, 5)
    with pytest.raises(ValueError, match="n must be"):
        world.sample(0)
    with pytest.raises(ValueError, match="seed must be"):
        world.sample(1, seed=-1)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        world.replay([[99]])


@pytest.mark.parametrize("kind", Taxi.pictures)
def test_every_kind_is_drawn_with_an_episode(kind: str) -> None:
    world = small()
    episode = world.sample(1, world.length + 3, seed=2)
    for position in (None, 1, 2, 3, int(episode.length[0])):
        figure = world.draw(kind, episode=episode, position=position, width=560)
        assert figure.layout.width == 560
        start = world.streets.nodes[int(episode.tokens[0, 0])]
        assert any(f"from {start}" in note.text for note in figure.layout.annotations)
        assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    for bare in {"map", "use"} & {kind}:
        assert len(world.draw(bare).data) < len(figure.data)


def test_a_ride_is_drawn_up_to_its_position() -> None:
    world = small("random", 3, 3, one_way=False, max_turns=4)
    row = token(world, "@1,1", "@3,1", "E", "E", "end", "end")
    titles = [world.draw("ride", episode=worlds.Episodes(row), position=k).layout.title.text for k in range(1, 7)]
    assert titles == [
        "A ride in grid: 0 turns so far",
        "A ride in grid: 0 turns so far",
        "A ride in grid: 1 turn so far",
        *["A ride in grid: there after 2 turns"] * 3,
    ]
    assert world.draw(episode=worlds.Episodes(row[:, :1])).layout.title.text == "A ride in grid: the origin"
    astray = token(world, "@1,1", "@3,1", "E", "W", "W", "E")
    assert world.draw(episode=worlds.Episodes(astray)).layout.title.text == "A ride in grid: 2 turns so far"


def test_street_use_counts_every_turn() -> None:
    world = small("noisy")
    episodes = world.sample(2000)
    counts = draw._use(world)
    assert counts.sum() == (episodes.length - 3).sum()
    by_hand: Counter[tuple[str, str]] = Counter()
    for row, length in zip(episodes.tokens.tolist(), episodes.length.tolist(), strict=True):
        at = world.streets.nodes[row[0]]
        for t in row[2 : length - 1]:
            to = next(b for _, b, turn in graph().out_edges(at, data="direction") if turn == world.vocabulary[t])
            by_hand[at, to] += 1
            at = to
    names = world.streets.nodes
    assert {
        (names[a], names[b]): n for (a, b), n in zip(world.streets.edges.tolist(), counts.tolist(), strict=True)
    } == ({edge: by_hand[edge] for edge in graph().edges()})


def test_bad_pictures_are_refused() -> None:
    world = small()
    with pytest.raises(UnknownNameError, match=r"unknown kind of picture 'maps'. Did you mean 'map'\?"):
        world.draw("maps")
    with pytest.raises(UnknownNameError, match="unknown option of picture 'use': 'depth'"):
        world.draw("use", depth=3)
    with pytest.raises(ValueError, match="the picture 'ride' needs an episode"):
        world.draw("ride")
    with pytest.raises(ValueError, match="episode must hold one episode, got 2"):
        world.draw("ride", episode=world.sample(2))
    with pytest.raises(ValueError, match="position must be an integer from 0 to"):
        world.draw("ride", episode=world.sample(1), position=99)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("node,x,y\n<b>a</b>,0,0\n$b$,100,0\n")
    (tmp_path / "edges.csv").write_text("source,target\n<b>a</b>,$b$\n$b$,<b>a</b>\n")
    world = worlds.get("taxi", city=(tmp_path / "nodes.csv", tmp_path / "edges.csv"), held_out=0.0)
    text = world.draw("ride", episode=world.sample(1)).to_json()
    assert "<b>a" not in text
    assert "$b$" not in text
