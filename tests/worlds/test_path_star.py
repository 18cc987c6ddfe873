from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlat_viz import worlds
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.worlds.path_star import PathStar

SHAPES = [(2, 2), (2, 5), (3, 4), (5, 5), (7, 7), (2, 10)]


def small(arms: int = 3, nodes_per_arm: int = 4, **other: Any) -> PathStar:
    return PathStar(arms, nodes_per_arm, **{"train_size": 60, "test_size": 20, **other})


def parse(world: PathStar, tokens: np.ndarray) -> tuple[list[tuple[str, str]], str, str, list[str]]:
    """Read an episode from its text."""
    text = world.decode(tokens)
    assert text.endswith(" end")
    problem, path = text.removesuffix(" end").split("=")
    listed, task = problem.split("/")
    edges = [tuple(edge.split(",")) for edge in listed.split("|")]
    start, goal = task.split(",")
    return edges, start, goal, path.split(",")  # type: ignore[return-value]


def content(world: PathStar, tokens: np.ndarray) -> tuple[frozenset[tuple[str, str]], str]:
    edges, _, goal, _ = parse(world, tokens)
    return frozenset(edges), goal


@settings(max_examples=20)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.sampled_from(["train", "test"]))
def test_every_episode_is_a_star_with_the_right_path(shape: tuple[int, int], seed: int, split: str) -> None:
    world = small(*shape)
    episodes = world.sample(5, seed=seed, split=split)
    assert world.legal(episodes.tokens).all()
    for tokens in episodes.tokens:
        edges, start, goal, path = parse(world, tokens)
        graph = nx.DiGraph(edges)
        assert len(edges) == graph.number_of_edges() == shape[0] * (shape[1] - 1)
        assert nx.is_arborescence(graph)
        assert graph.in_degree(start) == 0
        assert graph.out_degree(start) == shape[0]
        leaves = [node for node in graph if graph.out_degree(node) == 0]
        assert len(leaves) == shape[0]
        assert goal in leaves
        assert {nx.shortest_path_length(graph, start, leaf) for leaf in leaves} == {shape[1] - 1}
        assert nx.shortest_path(graph, start, goal) == path


@pytest.mark.parametrize(("shape", "count"), [((5, 5), 69), ((2, 10), 68), ((7, 7), 137), ((2, 5), 33)])
def test_the_number_of_tokens(shape: tuple[int, int], count: int) -> None:
    world = small(*shape)
    episodes = world.sample(2)
    assert world.length == count
    assert episodes.tokens.shape == (2, count)
    assert episodes.length.tolist() == [count, count]
    # The path and the end, nothing else.
    assert episodes.loss_mask.sum(1).tolist() == [shape[1] + 1] * 2
    assert episodes.loss_mask[:, -shape[1] - 1 :].all()


@settings(max_examples=10)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32))
def test_states_equal_those_of_a_slow_reader(shape: tuple[int, int], seed: int) -> None:
    world = small(*shape)
    episodes = world.sample(3, seed=seed)
    for name, values in world.replay(episodes.tokens).items():
        np.testing.assert_array_equal(values, episodes.states[name])
    for row, tokens in enumerate(episodes.tokens.tolist()):
        edges: list[tuple[int, int]] = []
        goal_arm = -1
        for place, token in enumerate(tokens):
            text = {name: values[row, place].item() for name, values in episodes.states.items()}
            assert text["node"] == (token if token < world.node_ids else -1)
            if place < world.prompt - 3:
                if place % 3 == 1:
                    edges.append((tokens[place - 1], token))
                # Edges as nodes, joined if one starts where the other ends.
                joins = nx.Graph([(a, b) for a in edges for b in edges if a[1] == b[0]])
                joins.add_nodes_from(edges)
                arms = sorted(min(map(edges.index, part)) for part in nx.connected_components(joins))
                own = -1
                if place % 3:
                    own = arms.index(min(map(edges.index, nx.node_connected_component(joins, edges[-1]))))
                assert text["arm"] == own
            if place == world.prompt - 2:
                last = next(edge for edge in edges if edge[1] == token)
                goal_arm = arms.index(min(map(edges.index, nx.node_connected_component(joins, last))))
            assert text["goal_arm"] == goal_arm
            if place >= world.prompt - 3:
                assert text["arm"] == goal_arm
            on_answer = place - world.prompt
            assert text["depth"] == (-1 if on_answer < 0 else min(on_answer, shape[1] - 1))
            assert text["branch"] == (on_answer == 0)


@settings(max_examples=25)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.data())
def test_prefixes_have_the_states_of_the_whole(shape: tuple[int, int], seed: int, data: st.DataObject) -> None:
    world = small(*shape)
    episodes = world.sample(4, seed=seed)
    upto = data.draw(st.integers(1, world.length))
    for name, values in world.replay(episodes.tokens[:, :upto]).items():
        np.testing.assert_array_equal(values, episodes.states[name][:, :upto])
    np.testing.assert_array_equal(
        world.legal_next(episodes.tokens[:, :upto]), world.legal_next(episodes.tokens)[:, :upto]
    )


def test_the_branch_is_where_arms_part() -> None:
    world = small(5, 5)
    episodes = world.sample(20)
    branch = episodes.states["branch"]
    assert (branch.sum(1) == 1).all()
    assert (episodes.tokens[branch] == episodes.tokens[:, world.prompt - 3]).all()
    chosen = episodes.tokens[:, 1:][branch[:, :-1]]
    arms = world.arms_of(episodes.tokens)
    rows = np.arange(20)
    np.testing.assert_array_equal(arms[rows, episodes.states["goal_arm"][:, -1], 1], chosen)
    np.testing.assert_array_equal(arms[rows, episodes.states["goal_arm"][:, -1]], episodes.tokens[:, -6:-1])


@pytest.mark.parametrize(("arms", "nodes_per_arm", "node_ids"), [(2, 2, 4), (2, 3, 5), (3, 2, 5)])
def test_the_sets_are_disjoint_even_where_they_hold_everything(arms: int, nodes_per_arm: int, node_ids: int) -> None:
    # All problems that exist: any repeat within a set or across the two would show.
    size = arms * (nodes_per_arm - 1)
    everything = set()
    for nodes in permutations(map(str, range(node_ids)), size + 1):
        ways = [[nodes[0], *nodes[1:][k::arms]] for k in range(arms)]
        edges = frozenset((a, b) for way in ways for a, b in pairwise(way))
        everything |= {(edges, way[-1]) for way in ways}
    probe = PathStar(arms, nodes_per_arm, node_ids, 1, 1)
    assert probe.problems == len(everything)
    train_size = len(everything) - 7
    world = PathStar(arms, nodes_per_arm, node_ids, train_size, 7)
    train = [content(world, tokens) for tokens in world.sample(train_size, seed=3).tokens]
    test = [content(world, tokens) for tokens in world.sample(7, seed=3, split="test").tokens]
    assert len(set(train)) == train_size
    assert len(set(test)) == 7
    assert set(train) | set(test) == everything
    with pytest.raises(ValueError, match=rf"= {len(everything) + 1} is more than the {len(everything)} different"):
        PathStar(arms, nodes_per_arm, node_ids, train_size + 1, 7)


def test_the_sets_are_fixed_and_drawn_from() -> None:
    world = small(2, 3, node_ids=6)
    train = {world.decode(tokens) for tokens in world.sample(60, seed=0).tokens}
    assert len(train) == 60
    assert {world.decode(tokens) for tokens in world.sample(200, seed=1).tokens} == train
    counts = np.unique(world.sample(150, seed=2, states=False).tokens, axis=0, return_counts=True)[1]
    assert set(counts) == {2, 3}
    # Another data seed makes other sets, and other problems in them.
    other = small(2, 3, node_ids=6, data_seed=1)
    assert {other.decode(tokens) for tokens in other.sample(60).tokens} != train
    kept = {content(world, tokens) for split in world.splits for tokens in world.sample(60, split=split).tokens}
    assert len(kept) == 80


def test_problems_are_uniform() -> None:
    world = PathStar(2, 3, 20, 40_000, 1)
    episodes = world.sample(40_000)
    starts = np.bincount(episodes.tokens[:, world.prompt], minlength=20)[:20]
    assert abs(starts / 2000 - 1).max() < 0.1
    # No order of the edges gives the goal's arm away.
    np.testing.assert_allclose(np.bincount(episodes.states["goal_arm"][:, -1]) / 40_000, 0.5, atol=0.01)
    last = (episodes.tokens[:, 1:12:3] == episodes.tokens[:, world.prompt - 2, None]).mean(0)
    np.testing.assert_allclose(last, 0.25, atol=0.01)


def test_a_seed_means_the_same_bytes() -> None:
    assert small().sample(9, seed=4).sha256 == small().sample(9, seed=4).sha256
    assert len({small().sample(9, seed=seed).sha256 for seed in range(20)}) == 20
    world = small()
    bare = world.sample(9, seed=4, states=False)
    assert bare.states == {}
    np.testing.assert_array_equal(bare.tokens, world.sample(9, seed=4).tokens)
    # Shipped checkpoints are compared on episodes sampled elsewhere: these must never change.
    assert PathStar(5, 5, train_size=100, test_size=10).sample(16, seed=0).sha256[:16] == "ecd3efac0caa1980"


def test_padding_repeats_the_end() -> None:
    world = small()
    episodes = world.sample(3, world.length + 5, split="test")
    assert (episodes.tokens[:, world.length - 1 :] == world.vocabulary.index("end")).all()
    assert (episodes.length == world.length).all()
    assert not episodes.loss_mask[:, world.length :].any()
    assert world.legal(episodes.tokens).all()
    for values in episodes.states.values():
        assert (values[:, world.length :] == values[:, world.length - 1, None]).all()
    legal = world.legal_next(episodes.tokens)[:, world.length - 1 :]
    assert (legal.sum(-1) == 1).all()
    assert legal[..., -1].all()
    with pytest.raises(ValueError, match="too short"):
        world.sample(3, world.length - 1)


def test_the_answer_leaves_no_choice() -> None:
    world = small(5, 5)
    episodes = world.sample(10)
    law = world.next_token_probs(episodes.tokens)
    np.testing.assert_allclose(law.sum(-1), 1)
    right = np.take_along_axis(law[:, :-1], episodes.tokens[:, 1:, None], 2)[..., 0]
    assert (right[episodes.loss_mask[:, 1:]] == 1).all()
    assert (right > 0).all()
    assert world.floor(world.length - 1) is None


def corrupt(world: PathStar, place: int, token: int, row: int = 1) -> np.ndarray:
    tokens = world.sample(3, seed=1).tokens.copy()
    tokens[row, place] = token
    return tokens


@settings(max_examples=60)
@given(st.data())
def test_any_other_token_on_the_answer_is_refused(data: st.DataObject) -> None:
    world = small()
    place = data.draw(st.integers(world.prompt - 4, world.length - 1))
    token = data.draw(st.integers(0, len(world.vocabulary) - 1))
    tokens = corrupt(world, place, token)
    before = world.sample(3, seed=1).tokens
    arms = world.arms_of(before)[1]
    if token == before[1, place] or (place == world.prompt - 2 and token in arms[:, -1]):
        return
    legal = world.legal(tokens)
    assert legal[1, :place].all()
    assert not legal[1, place:].any()
    assert legal[[0, 2]].all()
    assert not world.legal_next(tokens)[1, place:].any()
    with pytest.raises(ValueError, match=rf"episode 1 cannot happen.*at position {place + 1} is not legal"):
        world.replay(tokens)


def test_a_list_that_is_no_star_is_illegal_from_the_first_sign() -> None:
    world = small(2, 3, node_ids=10)
    slash, bar = world.vocabulary.index("/"), world.vocabulary.index("|")

    def first_illegal(*edges: tuple[int, int]) -> int:
        tokens = [token for edge in edges for token in (*edge, bar)]
        tokens[-1] = slash
        legal = world.legal(np.array([tokens]))[0]
        return len(legal) if legal.all() else int(legal.argmin())

    assert first_illegal((0, 1), (1, 2), (0, 3), (3, 4)) == 12
    assert first_illegal((3, 4), (1, 2), (0, 3), (0, 1)) == 12
    assert first_illegal((0, 1), (1, 2), (2, 3), (0, 4)) == 11  # one arm too long
    assert first_illegal((0, 1), (1, 2), (5, 3), (3, 4)) == 11  # two pieces
    assert first_illegal((0, 1), (1, 2), (2, 0), (3, 4)) == 11  # a ring
    assert first_illegal((0, 1), (0, 2), (0, 3), (0, 4)) == 11  # too many arms
    assert first_illegal((0, 1), (1, 2), (1, 3), (0, 4)) == 11  # an arm that parts
    assert first_illegal((0, 1), (0, 1), (0, 3), (3, 4)) == 4  # an edge twice
    assert first_illegal((0, 1), (2, 1), (0, 3), (3, 4)) == 4  # a node led to twice
    assert first_illegal((0, 0), (2, 1), (0, 3), (3, 4)) == 1
    assert first_illegal((0, bar), (2, 1), (0, 3), (3, 4)) == 1


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_garbage_is_soon_illegal_and_raises_nothing(seed: int, positions: int) -> None:
    world = small()
    tokens = np.random.default_rng(seed).integers(len(world.vocabulary), size=(4, positions))
    legal = world.legal(tokens)
    assert (np.diff(legal.astype(int), axis=1) <= 0).all()
    if not legal.all():
        with pytest.raises(ValueError, match="cannot happen"):
            world.next_token_probs(tokens)


def test_no_tokens_are_no_error() -> None:
    world = small()
    assert world.legal_next(np.zeros((2, 0), int)).shape == (2, 0, len(world.vocabulary))
    assert world.replay(np.zeros((2, 0), int))["arm"].shape == (2, 0)
    assert world.legal_next(np.zeros((0, 40), int)).shape == (0, 40, len(world.vocabulary))
    assert world.replay(np.zeros((0, 40), int))["arm"].shape == (0, 40)


def test_the_spec_builds_the_same_world() -> None:
    world = small(5, 5, node_ids=40, data_seed=9)
    again = worlds.from_spec(world.spec)
    assert again.spec == world.spec
    assert again.vocabulary == world.vocabulary
    assert again.sample(5, seed=2).sha256 == world.sample(5, seed=2).sha256
    assert "path_star" in worlds.names()
    assert set(world.state_values) <= set(world.sample(1).states)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"arms": 1}, "arms must be an integer of at least 2, got 1"),
        ({"arms": 0}, "arms must be an integer of at least 2, got 0"),
        ({"nodes_per_arm": 1}, "nodes_per_arm must be an integer of at least 2, got 1"),
        (
            {"arms": 10, "nodes_per_arm": 12},
            r"has 10 x \(12 - 1\) \+ 1 = 111 nodes, more than node_ids=100",
        ),
        ({"train_size": 0}, "train_size must be an integer of at least 1, got 0"),
        ({"test_size": 1.5}, "test_size must be an integer of at least 1, got 1.5"),
        ({"data_seed": -1}, "seed must be an integer of at least 0, got -1"),
        (
            {"nodes_per_arm": 2, "node_ids": 3},
            r"test_size = 220000 is more than the 6 different problems",
        ),
    ],
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worlds.get("path_star", **params)


def test_bad_arguments_are_refused() -> None:
    world = small()
    with pytest.raises(UnknownNameError, match=r"'tset'.*Did you mean 'test'"):
        world.sample(1, split="tset")
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        world.sample(0)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        world.replay([[999]])
    with pytest.raises(ValueError, match="tokens must hold the whole prompt, 30 tokens, got 12"):
        world.arms_of(world.sample(1).tokens[:, :12])


@pytest.mark.parametrize("width", [200, 400, 560])
def test_nodes_shrink_with_the_picture_and_never_overlap(width: int) -> None:
    for shape in SHAPES:
        figure = small(*shape).draw(width=width)
        rims = [np.stack([trace.x, trace.y], axis=1) for trace in figure.data if trace.fill == "toself"]
        parts = [part for rim in rims for part in np.split(rim, np.flatnonzero(np.isnan(rim[:, 0])))]
        nodes = [part[~np.isnan(part[:, 0])][1:] for part in parts if len(part) > 1]
        middles, diameter = np.array([node.mean(axis=0) for node in nodes]), np.ptp(nodes[0][:, 0])
        distances = np.linalg.norm(middles[:, None] - middles, axis=2)[np.triu_indices(len(middles), 1)]
        assert len(middles) == shape[0] * (shape[1] - 1) + 1
        assert distances.min() > 1.2 * diameter


def test_picture_shows_the_star() -> None:
    for shape in SHAPES:
        world = small(*shape)
        assert world.draw().layout.title.text.startswith("path_star: G(")
        episode = world.sample(1, seed=2)
        for position in (1, 2, 5, world.prompt, world.prompt + 2, world.length, None):
            figure = world.draw("graph", episode=episode, position=position, width=800, height=500)
            assert figure.layout.width == 800
            assert figure.to_json()
    wrong = world.sample(1)
    wrong.tokens[0, world.prompt + 2] = 3
    wrong.tokens[0, world.prompt + 3] = world.vocabulary.index("|")
    assert "3" in world.draw(episode=wrong).layout.annotations[-1].text
    with pytest.raises(UnknownNameError, match="unknown kind of picture 'star'"):
        world.draw("star")
    with pytest.raises(UnknownNameError, match=r"'widht'.*'width'"):
        world.draw("graph", widht=3)
    with pytest.raises(ValueError, match="position must be"):
        world.draw("graph", episode=wrong, position=-1)
    with pytest.raises(ValueError, match="one episode"):
        world.draw("graph", episode=world.sample(2))
