"""Word problems of finite groups: predict the product of all elements read so far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Spec, Tokens, World, scrambled
from nextlat_viz.worlds.groups import algebra

_OPENING = 3
_TEST_SHARE = 10
# With few generators longer openings decide the split, so that there are at least this many different ones.
_OPENINGS = 250


class GroupWorld(World):
    """Tokens are elements of a group, drawn uniformly; the label is the product of all so far.

    Tokens are all elements, or a few that generate the group: labels are all elements in both cases, and a small model
    learns to track the product of a few generators over many more tokens.

    An element is a permutation: ``elements[g, i]`` is the place to which ``g`` moves the thing at place ``i``. Products
    are applied from left to right, ``x1`` first, so the label after token t is the label before it times ``xt``. The
    model predicts the label at each token, not the next token: labels are the ``targets`` of the episodes.

    *Test* episodes begin with one of a tenth of all triples of elements, and no training episode begins with these.
    The triples are fixed and pseudorandom, and labels are uniform at every position in both splits. Episodes of fewer
    than three tokens belong to the training split. If only generators are tokens, a tenth of longer openings is held
    out instead. They are as long as it takes to have 250 of them: eight tokens for two generators.

    Pictures: ``"cayley"``, the elements, the steps of the generators between them, and the path of an episode's
    products; ``"strip"``, the place of each thing after each token, for a sampled episode if none is given.

    Parameters
    ----------
    name : str
        Name of the world.
    elements : int array (elements, places)
        Permutations of 0, 1, ..., closed under products.
    vocabulary : sequence of str
        Names of the elements.
    generators : sequence of int
        Elements that generate the group. The Cayley graph shows their steps.
    readings : dict of int arrays (elements, ...), optional
        Additional states besides ``"state"``: values for each element, such as the places it moves things to.
    spec : dict, optional
        Spec from which ``from_spec`` builds the world again; the name by default.
    only_generators : bool
        Draw tokens from the generators, instead of all elements.

    Raises
    ------
    ValueError
        If the elements are not permutations, or not a group, or the generators do not generate it.

    References
    ----------
    Merrill, W., Petty, J., Sabharwal, A. (2024). The Illusion of State in State-Space Models. ICML. (The groups A5,
    A4 x Z5 and Z60, of one size and of different circuit complexity.)

    Examples
    --------
    >>> flips = GroupWorld("flips", [[0, 1], [1, 0]], ["stay", "swap"], [1])
    >>> flips.replay(np.array([[1, 1, 0, 1]]))["state"].tolist()
    [[1, 0, 0, 1]]
    """

    splits: tuple[str, ...] = ("train", "test")
    pictures = ("cayley", "strip")
    predicts_next_token = False

    def __init__(
        self,
        name: str,
        elements: ArrayLike,
        vocabulary: Sequence[str],
        generators: Sequence[int],
        readings: Mapping[str, np.ndarray] | None = None,
        spec: Spec | None = None,
        *,
        only_generators: bool = False,
    ) -> None:
        self.name = checks.name(name)
        self.elements = algebra.permutations(elements)
        self.vocabulary = checks.distinct_names("vocabulary", vocabulary, len(self.elements))
        self.only_generators = only_generators
        self.readings = dict(readings or {})
        self.spec = spec or {"name": self.name}
        self.table = algebra.multiplication(self.elements)
        self.generators = algebra.generating(self.table, generators, self.vocabulary)
        self.inputs = np.array(self.generators) if only_generators else np.arange(len(self.elements))
        # A tenth of fewer than ten elements rounds to none; one generator has only one opening.
        if len(self.inputs) == 1 or (not only_generators and len(self.elements) < _TEST_SHARE):
            self.splits = ("train",)

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of the elements, and of the places counted from 1."""
        places = {
            name: tuple(str(k + 1) for k in range(int(values.max()) + 1)) for name, values in self.readings.items()
        }
        return {"state": self.vocabulary} | places

    @cached_property
    def identity(self) -> int:
        """The element that leaves everything where it is."""
        return int(np.argmax((self.table == np.arange(len(self.table))).all(1)))

    @cached_property
    def inverse(self) -> Int[np.ndarray, " elements"]:
        """The element that undoes each element."""
        return (self.table == self.identity).argmax(1)

    @cached_property
    def order(self) -> Int[np.ndarray, " elements"]:
        """Number of repetitions of each element that make the identity."""
        order, power = np.ones(len(self.table), np.int64), np.arange(len(self.table))
        while (power != self.identity).any():
            order += power != self.identity
            power = np.where(power == self.identity, power, self.table[power, np.arange(len(self.table))])
        return order

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw episodes of uniform and independent tokens; the split depends on the first ones.

        Test episodes have at least three tokens, or as many as decide the split. Episodes have ``targets``, the product
        up to and including each token, and the states of ``replay``.

        Examples
        --------
        >>> from nextlat_viz.worlds.groups import z60
        >>> world = z60()
        >>> episodes = world.sample(1, 4, seed=0)
        >>> (episodes.tokens.cumsum(1) % 60 == episodes.targets).all(), episodes.targets.shape
        (np.True_, (1, 4))
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        test, opening = split == "test", self.opening
        if test and length < opening:
            raise ValueError(
                f"length must be at least {opening} for split='test', got {length}: episodes of world {self.name!r} "
                f"are held out by their first {opening} tokens"
            )
        size = len(self.table)
        tokens = self.inputs[rng.integers(len(self.inputs), size=(length, n))]
        if length >= opening and self.only_generators:
            openings = rng.choice(np.flatnonzero(self._held_openings == test), size=n)
            tokens[:opening] = self.inputs[np.array(np.unravel_index(openings, (len(self.inputs),) * opening))]
        elif length >= opening:
            held_out = size // _TEST_SHARE
            first, second, third = self._marks
            kind = rng.integers(held_out, size=n) if test else rng.integers(held_out, size, size=n)
            label = np.argsort(third)[(kind - first[tokens[0]] - second[tokens[1]]) % size]
            tokens[2] = self.table[self.inverse[self.table[tokens[0], tokens[1]]], label]
        labels = self._products(tokens).T
        return Episodes(tokens.T, self._states(labels) if states else {}, targets=labels)

    def held_out(self, tokens: Tokens) -> Bool[np.ndarray, " episodes"]:
        """Whether the first tokens of each episode belong to the test split.

        Examples
        --------
        >>> from nextlat_viz.worlds.groups import a5
        >>> world = a5()
        >>> world.held_out(world.sample(4, 12, split="test").tokens).tolist()
        [True, True, True, True]
        """
        tokens = checks.tokens(self, tokens)
        if tokens.shape[1] < self.opening or len(self.splits) == 1:
            return np.zeros(len(tokens), bool)
        if self.only_generators:
            self._require_legal(tokens)
            digits = (tokens[:, : self.opening, None] == self.inputs).argmax(axis=2)
            return self._held_openings[np.ravel_multi_index(digits.T, (len(self.inputs),) * self.opening)]
        first, second, third = self._marks
        label = self._products(tokens[:, :_OPENING].T)[-1]
        kind = (first[tokens[:, 0]] + second[tokens[:, 1]] + third[label]) % len(self.table)
        return kind < len(self.table) // _TEST_SHARE

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Compute the states after each token.

        Returns
        -------
        dict of arrays
            ``"state"``, int64 (episodes, positions): the product so far, an index into ``vocabulary``. A5 and S5 add
            ``"permutation"``, int8 (episodes, positions, 5): the place, from 0, of each of the five things. A4 x Z5
            adds ``"permutation"`` of four things and ``"dial"``, int8 (episodes, positions): the place, from 0, on a
            dial of five.

        Examples
        --------
        >>> from nextlat_viz.worlds.groups import s5
        >>> world = s5()
        >>> swaps = [[world.vocabulary.index("(12)"), world.vocabulary.index("(23)")]]
        >>> states = world.replay(np.array(swaps))
        >>> world.vocabulary[states["state"][0, 1]], states["permutation"][0, 1].tolist()
        ('(132)', [2, 0, 1, 3, 4])
        """
        tokens = checks.tokens(self, tokens)
        self._require_legal(tokens)
        return self._states(self._products(tokens.T).T)

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions 1"]:
        """The product so far."""
        return self.replay(tokens)["state"][..., None]

    def start_states(self) -> dict[str, np.ndarray]:
        """The identity: the product of no elements."""
        return self._states(np.array(self.identity))

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Distribution of the label of no tokens: probability 1 for the identity. It is never scored."""
        return np.eye(len(self.vocabulary))[self.identity]

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Every element may follow, or every generator if only generators are tokens."""
        tokens = checks.tokens(self, tokens)
        legal = self.legal_first()[tokens].cumprod(axis=1).astype(bool)
        return legal[..., None] & self.legal_first()

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """Every element may come first, or every generator if only generators are tokens."""
        return np.isin(np.arange(len(self.vocabulary)), self.inputs)

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Distribution of the label at each token: probability 1 for the product so far."""
        labels = self.replay(tokens)["state"]
        return np.eye(len(self.vocabulary))[labels]

    def floor(self, length: int) -> Float[np.ndarray, " length"]:
        """Zeros: the tokens read determine the label."""
        return np.zeros(checks.integer("length", length))

    def decisive(self, episodes: Episodes) -> Bool[np.ndarray, "episodes positions"]:
        """The last token, whose label needs all the others."""
        positions = np.arange(1, episodes.tokens.shape[1] + 1)
        return positions == episodes.length[:, None]

    @cached_property
    def opening(self) -> int:
        """Number of tokens at the beginning of an episode that decide its split."""
        if not self.only_generators or len(self.splits) == 1:
            return _OPENING
        return math.ceil(math.log(_OPENINGS) / math.log(len(self.inputs)))

    @cached_property
    def _held_openings(self) -> Bool[np.ndarray, " openings"]:
        """A fixed pseudorandom tenth of all openings, numbered in the order of the generators."""
        count = len(self.inputs) ** self.opening
        return scrambled(np.arange(count)).argsort().argsort() < count // _TEST_SHARE

    def _require_legal(self, tokens: Int[np.ndarray, "episodes positions"]) -> None:
        names = ", ".join(self.vocabulary[k] for k in self.inputs[:24])
        checks.require_legal(self, tokens, self.legal_first()[tokens], f" is not one of its tokens: {names}")

    def _products(self, tokens: Int[np.ndarray, "positions episodes"]) -> Int[np.ndarray, "positions episodes"]:
        labels, flat, size = np.empty_like(tokens), self.table.ravel(), len(self.table)
        label = np.full(tokens.shape[1], self.identity)
        for t, token in enumerate(tokens):
            labels[t] = label = flat[label * size + token]
        return labels

    def _states(self, labels: Int[np.ndarray, "*positions"]) -> dict[str, np.ndarray]:
        return {"state": labels} | {name: values[labels] for name, values in self.readings.items()}

    @cached_property
    def _marks(self) -> tuple[Int[np.ndarray, " elements"], ...]:
        """Three shuffled numberings of the elements: for the first, the second and the product of three.

        Their sum modulo the number of elements decides the split. A tenth of the third elements is held out for any
        first two, and a tenth of the triples for any product, so labels stay uniform.
        """

        def numbering(place: int) -> Int[np.ndarray, " elements"]:
            words = [f"{place} {element}" for element in self.elements.tolist()]
            return np.argsort([hashlib.sha256(word.encode()).hexdigest() for word in words])

        return tuple(numbering(place) for place in range(_OPENING))
