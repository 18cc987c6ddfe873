"""Path-Star: find the path along one arm of a star from its shuffled edges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.path_star import graphs


class PathStar(World):
    """Path-Star graphs G(d, l): ``arms`` paths of ``nodes_per_arm`` nodes that share their first.

    An episode is the edges in shuffled order, each as the node nearer the start and the node further out, then the
    task, then the answer: ``u v | u v | ... | u v / start goal = path end``. The start is the shared node and the goal
    the last node of one arm. Commas in decoded text are not tokens: an episode of G(5, 5) has 69 tokens. Only the path
    and the end are scored; the prompt determines them, so the floor is 0.

    The *content* of a problem is its graph and its goal: which ids lie along which arm, without an order of the arms.
    All contents of the two sets are different, drawn uniformly without replacement. Each has one fixed order of its
    edges.

    Picture: ``"graph"``, the star; with an episode, the edges read so far and the path of the answer, right or wrong;
    otherwise the first problem of the test set.

    States, after each token:

    - ``node``: the token's node; -1 on separators and the end.
    - ``arm``: on the second node of an edge and the separator after it, the arm of that edge according to the edges
      read so far: edges joined head to tail are one arm, and arms are numbered in order of first appearance. From the
      goal on, the goal's arm. -1 on the first node of an edge and on the start in the prompt.
    - ``goal_arm``: the number of the goal's arm from the goal on, after all edges were read; -1 before.
    - ``depth``: in the answer, the number of edges of the path so far; -1 before.
    - ``branch``: True on the first node of the answer, where the next token chooses an arm. The first node itself,
      predicted at ``=``, is a copy of the start.

    Parameters
    ----------
    arms : int
        d, at least 2.
    nodes_per_arm : int
        l, at least 2, including the shared node: a graph has ``arms * (nodes_per_arm - 1) + 1`` nodes.
    node_ids : int
        N: the nodes of a graph are different numbers from 0..N-1.
    train_size, test_size : int
        Number of problems in the two fixed sets.
    data_seed : int
        Seed of the fixed sets; the seed of ``sample`` chooses problems from them.

    Raises
    ------
    ValueError
        If a graph has more nodes than there are ids, or there are too few different problems.

    References
    ----------
    Bachmann, G., Nagarajan, V. (2024). The pitfalls of next-token prediction. ICML.

    Examples
    --------
    >>> world = PathStar(arms=2, nodes_per_arm=3, train_size=1000, test_size=100)
    >>> print(world.decode(world.sample(1, seed=0, split="test").tokens[0]))
    29,22|89,87|50,89|50,29/50,22=50,29,22 end
    """

    name = "path_star"
    splits = ("train", "test")
    pictures = ("graph",)
    optional_states = ("depth",)
    length: int

    def __init__(
        self,
        arms: int = 2,
        nodes_per_arm: int = 5,
        node_ids: int = 100,
        train_size: int = 200_000,
        test_size: int = 20_000,
        data_seed: int = 0,
    ) -> None:
        self.arms = checks.integer("arms", arms, 2)
        self.nodes_per_arm = checks.integer("nodes_per_arm", nodes_per_arm, 2)
        self.node_ids = checks.integer("node_ids", node_ids)
        self.edges = self.arms * (self.nodes_per_arm - 1)
        sizes = checks.integer("train_size", train_size), checks.integer("test_size", test_size)
        if self.edges + 1 > self.node_ids:
            raise ValueError(
                f"G({arms}, {nodes_per_arm}) has {arms} x ({nodes_per_arm} - 1) + 1 = {self.edges + 1} nodes, more "
                f"than node_ids={node_ids}; raise node_ids, or take fewer or shorter arms"
            )
        self.problems = math.perm(self.node_ids, self.edges + 1) // math.factorial(self.arms - 1)
        if sum(sizes) > self.problems:
            raise ValueError(
                f"train_size + test_size = {sum(sizes)} is more than the {self.problems} different problems that "
                f"G({arms}, {nodes_per_arm}) has on {node_ids} node ids; lower them, or raise node_ids"
            )
        self.spec = {
            "name": self.name,
            "arms": self.arms,
            "nodes_per_arm": self.nodes_per_arm,
            "node_ids": self.node_ids,
            "train_size": sizes[0],
            "test_size": sizes[1],
            "data_seed": checks.integer("data_seed", data_seed, 0),
        }
        self.vocabulary = (*map(str, range(self.node_ids)), "|", "/", "=", "end")
        self._bar, self._slash, self._equals, self._end = range(self.node_ids, self.node_ids + 4)
        self._start = 3 * self.edges
        self.prompt = self._start + 3
        self.length = self.prompt + self.nodes_per_arm + 1

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Ids of nodes and numbers of arms; while edges are read, there may seem to be more arms than there are."""
        numbers = tuple(map(str, range(self.edges)))
        return {"node": self.vocabulary[: self.node_ids], "arm": numbers, "goal_arm": numbers[: self.arms]}

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw ``n`` problems of a fixed set without replacement; beyond its size, in several shuffled passes.

        The first call draws the fixed sets, which takes about a second for 220,000 problems of G(5, 5).

        Examples
        --------
        >>> world = PathStar(train_size=1000, test_size=100)
        >>> world.sample(3, split="test")
        Episodes(3 x 33 tokens, states: node, arm, goal_arm, depth, branch)
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        train_size = self.spec["train_size"]
        fixed = self._fixed[:train_size] if split == "train" else self._fixed[train_size:]
        passes = [rng.permutation(len(fixed)) for _ in range(n // len(fixed))]
        problems = np.concatenate([*passes, rng.choice(len(fixed), n % len(fixed), replace=False)])
        padding = np.full((n, length - self.length), self._end, fixed.dtype)
        tokens = np.concatenate([fixed[problems], padding], axis=1)
        scored = np.arange(length)
        return Episodes(
            tokens,
            states=self._states(tokens.astype(np.int64)) if states else {},
            loss_mask=np.tile((scored >= self.prompt) & (scored < self.length), (n, 1)),
            length=np.full(n, self.length),
        )

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        return self._states(checks.legal_tokens(self, tokens))

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next. In the answer, only the correct one.

        In the list of edges, any node, except that an edge must not lead to the head of another edge or to its own
        tail. Whether the edges are a star is checked at the end of the list: nothing may follow if they are not.
        """
        tokens = checks.tokens(self, tokens)
        legal = np.empty((*tokens.shape, len(self.vocabulary)), bool)
        for place, allowed in enumerate(self._allowed(tokens)):
            if place:
                legal[:, place - 1] = allowed
        return legal

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        tokens = checks.tokens(self, tokens)
        rows = np.arange(len(tokens))
        legal = [allowed[rows, now] for allowed, now in zip(self._allowed(tokens), tokens.T, strict=False)]
        return np.array(legal, bool).T.reshape(tokens.shape)

    def arms_of(self, tokens: Tokens) -> Int[np.ndarray, "episodes arms nodes"]:
        """Node ids along each arm, the start first; arms in order of their first edge in the prompt.

        Raises
        ------
        ValueError
            If the tokens do not contain the whole prompt, or a token of it is not legal.

        Examples
        --------
        >>> world = PathStar(arms=2, nodes_per_arm=3, train_size=1000, test_size=100)
        >>> world.arms_of(world.sample(1, seed=0, split="test").tokens).tolist()
        [[[50, 29, 22], [50, 89, 87]]]
        """
        tokens = checks.legal_tokens(self, np.asarray(tokens)[:, : self.prompt])
        if tokens.shape[1] < self.prompt:
            raise ValueError(f"tokens must hold the whole prompt, {self.prompt} tokens, got {tokens.shape[1]}")
        tails, heads = tokens[:, 0 : self._start : 3], tokens[:, 1 : self._start : 3]
        arms = graphs.stars(tails, heads, self.arms, self.nodes_per_arm)[1]
        listed = (heads[:, None, None] == arms[:, :, 1:, None]).argmax(-1).min(-1)
        return np.take_along_axis(arms, listed.argsort(axis=1)[..., None], axis=1)

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Uniform over all nodes, as in the rest of the prompt, which is not scored."""
        return (np.arange(len(self.vocabulary)) < self.node_ids) / self.node_ids

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Distribution of the next token, exact from ``=`` on: probability 1 for the correct token.

        In the prompt, which is not scored, the result is uniform over the legal tokens and not the true law.

        Raises
        ------
        ValueError
            As ``replay`` does.
        """
        legal = self.legal_next(checks.legal_tokens(self, tokens))
        return legal / legal.sum(-1, keepdims=True)

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions facts"]:
        """In the answer, the remaining nodes of the path; in the prompt, all tokens so far."""
        tokens = checks.legal_tokens(self, tokens)
        episodes, positions = tokens.shape
        facts = np.full((episodes, positions, self.prompt + self.nodes_per_arm + 1), -1)
        for place in range(min(positions, self.prompt)):
            facts[:, place, : place + 1] = tokens[:, : place + 1]
        if positions >= self.prompt:
            arms, goal = self.arms_of(tokens), tokens[:, self._start + 1]
            path = arms[np.arange(episodes), (arms[:, :, -1] == goal[:, None]).argmax(axis=1)]
            for place in range(self.prompt - 1, positions):
                written = place + 1 - self.prompt
                facts[:, place] = -1
                facts[:, place, self.prompt + min(written, self.nodes_per_arm) : -1] = path[:, written:]
                # The end, which follows the path.
                facts[:, place, -1] = written > self.nodes_per_arm
        return facts

    def decisive(self, episodes: Episodes) -> Bool[np.ndarray, "episodes positions"]:
        """The first node of the answer, after which an arm is chosen."""
        positions = np.arange(1, episodes.tokens.shape[1] + 1)
        return np.broadcast_to(positions == self.prompt + 1, episodes.tokens.shape)

    def decode(self, tokens: ArrayLike) -> str:
        """Write one sequence as ``u,v|u,v/start,goal=path``."""
        words, before = [], False
        for token in np.asarray(tokens).tolist():
            comma = "," if before and token < self.node_ids else " " if token == self._end else ""
            words.append(comma + self.vocabulary[token])
            before = token < self.node_ids
        return "".join(words).strip()

    @cached_property
    def _fixed(self) -> Int[np.ndarray, "problems positions"]:
        """Every problem's tokens, train before test, in the smallest integers that hold them."""
        rng = np.random.default_rng(self.spec["data_seed"])
        total = self.spec["train_size"] + self.spec["test_size"]
        nodes = graphs.distinct_problems(rng, total, self.arms, self.nodes_per_arm, self.node_ids)
        source, arms = nodes[:, :1], nodes[:, 1:].reshape(total, self.arms, -1)
        tails = np.concatenate([np.repeat(source, self.arms, axis=1)[..., None], arms[..., :-1]], axis=2)
        order = np.tile(np.arange(self.edges, dtype=np.min_scalar_type(self.edges)), (total, 1))
        rng.permuted(order, axis=1, out=order)
        tokens = np.full((total, self.length), self._bar, np.min_scalar_type(-len(self.vocabulary)))
        tokens[:, 0 : self._start : 3] = np.take_along_axis(tails.reshape(total, -1), order, axis=1)
        tokens[:, 1 : self._start : 3] = np.take_along_axis(nodes[:, 1:], order, axis=1)
        tokens[:, self._start - 1] = self._slash
        tokens[:, self._start] = tokens[:, self.prompt] = source[:, 0]
        tokens[:, self._start + 1] = arms[:, 0, -1]
        tokens[:, self._start + 2] = self._equals
        tokens[:, self.prompt + 1 : -1] = arms[:, 0]
        tokens[:, -1] = self._end
        return tokens

    def _allowed(self, tokens: Int[np.ndarray, "episodes positions"]) -> Iterator[Bool[np.ndarray, "episodes tokens"]]:
        """Which tokens are legal at each position, from the first to one past the last."""
        episodes, positions = tokens.shape
        rows = np.arange(episodes)
        alive, led_to = np.ones(episodes, bool), np.zeros((episodes, len(self.vocabulary)), bool)
        for place in range(positions + 1):
            allowed = np.zeros_like(led_to)
            if place == self._start - 1:
                star, arms = graphs.stars(tokens[:, 0:place:3], tokens[:, 1:place:3], self.arms, self.nodes_per_arm)
                allowed[:, self._slash] = star
            elif place < self._start and place % 3 == 2:
                allowed[:, self._bar] = True
            elif place < self._start:
                allowed[:, : self.node_ids] = True
                if place % 3 == 1:
                    allowed &= ~led_to
                    allowed[rows, tokens[:, place - 1]] = False
            elif place == self._start:
                allowed[rows, arms[:, 0, 0]] = True
            elif place == self._start + 1:
                allowed[rows[:, None], arms[:, :, -1]] = True
            elif place == self._start + 2:
                allowed[:, self._equals] = True
                path = arms[rows, (arms[:, :, -1] == tokens[:, place - 1, None]).argmax(1)]
            elif place < self.length - 1:
                allowed[rows, path[:, place - self.prompt]] = True
            else:
                allowed[:, self._end] = True
            allowed &= alive[:, None]
            yield allowed
            if place < positions:
                alive = allowed[rows, tokens[:, place]]
                if place < self._start and place % 3 == 1:
                    led_to[rows, tokens[:, place]] = True

    def _states(self, tokens: Int[np.ndarray, "episodes positions"]) -> dict[str, np.ndarray]:
        place = np.arange(tokens.shape[1])
        goal_arm, arm = np.full((2, *tokens.shape), -1)
        edges = min(tokens.shape[1] + 1, self._start) // 3
        tails, heads = (tokens[:, part : self._start : 3][:, :edges] for part in (0, 1))
        numbers, chain = graphs.chains(tails, heads)
        for part in (1, 2):
            spots = arm[:, part : self._start : 3]
            spots[:] = numbers[:, : spots.shape[1]]
        if len(place) > self._start + 1:
            goal_chain = np.where(heads == tokens[:, self._start + 1, None], chain, -1).max(1)
            goal_arm[:, self._start + 1 :] = graphs.rank_of_chain(chain, goal_chain)[:, None]
            arm[:, self._start + 1 :] = goal_arm[:, self._start + 1 :]
        depth = np.where(place < self.prompt, -1, np.minimum(place - self.prompt, self.nodes_per_arm - 1))
        return {
            "node": np.where(tokens < self.node_ids, tokens, -1),
            "arm": arm,
            "goal_arm": goal_arm,
            "depth": np.tile(depth, (len(tokens), 1)),
            "branch": np.tile(place == self.prompt, (len(tokens), 1)),
        }
