"""Path-Star: find the way along one arm of a star from its shuffled edges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.path_star import graphs

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def path_star(
    arms: int = 2,
    nodes_per_arm: int = 5,
    node_ids: int = 100,
    train_size: int = 200_000,
    test_size: int = 20_000,
    data_seed: int = 0,
) -> PathStar:
    """Path-Star graphs G(d, l): ``arms`` paths of ``nodes_per_arm`` nodes that share their first (Bachmann &
    Nagarajan 2024, "The pitfalls of next-token prediction").

    Parameters
    ----------
    arms : int
        d, at least 2.
    nodes_per_arm : int
        l, at least 2, the shared node included: a graph has ``arms * (nodes_per_arm - 1) + 1`` nodes.
    node_ids : int
        N: the nodes of a graph are different numbers from 0..N-1.
    train_size, test_size : int
        How many problems the two fixed sets hold.
    data_seed : int
        Chooses the fixed sets; the seed of ``sample`` only draws from them.

    Raises
    ------
    ValueError
        If a graph needs more nodes than there are ids, or if there are not enough different problems.

    Examples
    --------
    >>> world = path_star(arms=2, nodes_per_arm=3, train_size=1000, test_size=100)
    >>> print(world.decode(world.sample(1, seed=0, split="test").tokens[0]))
    29,22|89,87|50,89|50,29/50,22=50,29,22 end
    """
    return PathStar(arms, nodes_per_arm, node_ids, train_size, test_size, data_seed)


class PathStar(World):
    """Two fixed sets of path-finding problems; build one with ``path_star``.

    An episode is the edges in shuffled order, each as the node nearer the start and the node further out, then the
    task, then the answer: ``u v | u v | ... | u v / start goal = path end``. The start is the shared node and the goal
    the last node of one arm. Commas are for reading, not tokens: G(5, 5) makes 69 tokens. Only the path and the end
    are scored; all of it follows from the prompt, so the floor is 0.

    A problem's *content* is its graph and its goal: which ids lie along which arm, without an order among the arms.
    Both sets hold different contents, drawn uniformly without replacement, and none is in both. Each comes with one
    order of its edges, drawn once and kept.

    States, after each token:

    - ``node``: the node the token is; -1 on separators and the end.
    - ``arm``: on the second node of an edge and on the separator behind it, the arm of that edge as far as the list
      shows by then: edges that join head to tail are of one arm, and arms are numbered in order of first appearance.
      From the goal on, the goal's arm. -1 on the first node of an edge and on the start in the prompt.
    - ``goal_arm``: the number of the goal's arm, from the goal on; by then the whole list was read. -1 before.
    - ``depth``: on the answer, how many edges the path has taken; -1 before.
    - ``branch``: True where the next token decides which arm is taken, which is on the answer's first node: the
      start itself, which ``=`` predicts, is copied.
    """

    name = "path_star"
    splits = ("train", "test")
    pictures = ("graph",)
    length: int

    def __init__(
        self, arms: int, nodes_per_arm: int, node_ids: int, train_size: int, test_size: int, data_seed: int
    ) -> None:
        for argument, value in (("arms", arms), ("nodes_per_arm", nodes_per_arm)):
            if checks.positive(argument, value) < 2:
                raise ValueError(f"{argument} must be at least 2, got {value}: with fewer there is no way to choose")
        self.arms, self.nodes_per_arm, self.node_ids = (
            int(arms),
            int(nodes_per_arm),
            checks.positive("node_ids", node_ids),
        )
        self.edges = self.arms * (self.nodes_per_arm - 1)
        sizes = checks.positive("train_size", train_size), checks.positive("test_size", test_size)
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
            "data_seed": checks.seed(data_seed),
        }
        self.vocabulary = (*map(str, range(self.node_ids)), "|", "/", "=", "end")
        self._bar, self._slash, self._equals, self._end = range(self.node_ids, self.node_ids + 4)
        self._start = 3 * self.edges
        self.prompt = self._start + 3
        self.length = self.prompt + self.nodes_per_arm + 1

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Nodes by their ids and arms by their numbers; halfway through the list it may seem to hold more arms."""
        numbers = tuple(map(str, range(self.edges)))
        return {"node": self.vocabulary[: self.node_ids], "arm": numbers, "goal_arm": numbers[: self.arms]}

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw ``n`` problems of a fixed set: all different up to its size, and past it in as many shuffled passes.

        The first call makes the fixed sets (about a second for 220,000 problems of G(5, 5)).

        Examples
        --------
        >>> world = path_star(train_size=1000, test_size=100)
        >>> world.sample(3, split="test")
        Episodes(3 x 33 tokens, states: node, arm, goal_arm, depth, branch)
        """
        n, length = checks.positive("n", n), checks.episode_length(self, length)
        train_size = self.spec["train_size"]
        fixed = self._fixed[:train_size] if checks.split(self, split) == "train" else self._fixed[train_size:]
        rng = np.random.default_rng(checks.seed(seed))
        passes = [rng.permutation(len(fixed)) for _ in range(n // len(fixed))]
        chosen = np.concatenate([*passes, rng.choice(len(fixed), n % len(fixed), replace=False)])
        padding = np.full((n, length - self.length), self._end, fixed.dtype)
        tokens = np.concatenate([fixed[chosen], padding], axis=1)
        scored = np.arange(length)
        return Episodes(
            tokens,
            states=self._states(tokens.astype(np.int64)) if states else {},
            loss_mask=np.tile((scored >= self.prompt) & (scored < self.length), (n, 1)),
            length=np.full(n, self.length),
        )

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """The states after each token, each (episodes, positions); any prefix gives what the whole gives.

        Raises
        ------
        ValueError
            If a token cannot come where it is, or the edges are no G(d, l); the place is named.
        """
        return self._states(self._possible(tokens))

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next. On the answer only the one that is right.

        In the list of edges any node, except that an edge leads to no node that an edge has led to already, nor to
        where it begins. Whether the list is a star is found out at its end: nothing may follow one that is not.
        """
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        legal = np.empty((*tokens.shape, len(self.vocabulary)), bool)
        for place, allowed in enumerate(self._allowed(tokens)):
            if place:
                legal[:, place - 1] = allowed
        return legal

    def arms_of(self, tokens: Tokens) -> Int[np.ndarray, "episodes arms nodes"]:
        """The node ids along each arm, the start first; arms in order of their first edge in the prompt.

        Raises
        ------
        ValueError
            If the tokens hold less than the whole prompt, or as ``replay`` does for the prompt.

        Examples
        --------
        >>> world = path_star(arms=2, nodes_per_arm=3, train_size=1000, test_size=100)
        >>> world.arms_of(world.sample(1, seed=0, split="test").tokens).tolist()
        [[[50, 29, 22], [50, 89, 87]]]
        """
        tokens = self._possible(np.asarray(tokens)[:, : self.prompt])
        if tokens.shape[1] < self.prompt:
            raise ValueError(f"tokens must hold the whole prompt, {self.prompt} tokens, got {tokens.shape[1]}")
        tails, heads = tokens[:, 0 : self._start : 3], tokens[:, 1 : self._start : 3]
        arms = graphs.stars(tails, heads, self.arms, self.nodes_per_arm)[1]
        listed = (heads[:, None, None] == arms[:, :, 1:, None]).argmax(-1).min(-1)
        return np.take_along_axis(arms, listed.argsort(axis=1)[..., None], axis=1)

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """Any node."""
        return np.arange(len(self.vocabulary)) < self.node_ids

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Distribution of the next token: exact from ``=`` on, where it is certain.

        On the prompt, which is not scored, it is uniform over what is legal, which is not the law of the prompts.

        Raises
        ------
        ValueError
            As ``replay`` does.
        """
        legal = self.legal_next(self._possible(tokens))
        return legal / legal.sum(-1, keepdims=True)

    def decode(self, tokens: ArrayLike) -> str:
        """The tokens of one sequence as they are usually written, ``u,v|u,v/start,goal=path``."""
        words, before = [], False
        for token in np.asarray(tokens).tolist():
            comma = "," if before and token < self.node_ids else " " if token == self._end else ""
            words.append(comma + self.vocabulary[token])
            before = token < self.node_ids
        return "".join(words).strip()

    def draw(
        self, kind: str = "graph", *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """A plotly picture: ``"graph"``, the star with its arms, sized by ``width`` and ``height`` in pixels.

        With an ``episode``, the edges read by ``position`` and the answer's path so far, right or wrong; without, the
        first problem of the test set.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` is not one episode, its prompt is not one of this world, or the position is outside it.
        """
        from nextlat_viz.worlds.path_star.draw import draw

        return draw(self, kind, episode, position, **options)

    @cached_property
    def _fixed(self) -> Int[np.ndarray, "problems positions"]:
        """Every problem's tokens, train before test, in the smallest integers that hold them."""
        rng = np.random.default_rng(self.spec["data_seed"])
        total = self.spec["train_size"] + self.spec["test_size"]
        nodes = graphs.problems(rng, total, self.arms, self.nodes_per_arm, self.node_ids)
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

    def _possible(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions"]:
        """The tokens as they came, or a ValueError that names the first that cannot be."""
        tokens = checks.tokens(tokens, self.name, self.vocabulary)
        rows = np.arange(len(tokens))
        ok = [allowed[rows, now] for allowed, now in zip(self._allowed(tokens), tokens.T, strict=False)]
        wrong = np.argwhere(~np.array(ok, bool).T)
        if len(wrong):
            episode, place = wrong[0]
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: token "
                f"{self.vocabulary[tokens[episode, place]]!r} at position {place + 1} is not legal after those "
                "before it"
            )
        return tokens

    def _allowed(self, tokens: Int[np.ndarray, "episodes positions"]) -> Iterator[Bool[np.ndarray, "episodes tokens"]]:
        """What may come at each position, from the first to the one past the last."""
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
            of_goal = np.where(heads == tokens[:, self._start + 1, None], chain, -1).max(1)
            goal_arm[:, self._start + 1 :] = graphs.number(chain, of_goal)[:, None]
            arm[:, self._start + 1 :] = goal_arm[:, self._start + 1 :]
        depth = np.where(place < self.prompt, -1, np.minimum(place - self.prompt, self.nodes_per_arm - 1))
        return {
            "node": np.where(tokens < self.node_ids, tokens, -1),
            "arm": arm,
            "goal_arm": goal_arm,
            "depth": np.tile(depth, (len(tokens), 1)),
            "branch": np.tile(place == self.prompt, (len(tokens), 1)),
        }
