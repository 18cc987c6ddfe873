"""Word problems of finite groups: predict the product of all elements read so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Spec, Tokens, World
from nextlat_viz.worlds.groups import algebra

_OPENING = 3
_TEST_SHARE = 10


class GroupWorld(World):
    """Tokens are the elements of a group, drawn uniformly; the label is the product of all so far.

    An element is a permutation: ``elements[g, i]`` is the place to which ``g`` moves the thing at place ``i``. Products
    are applied from left to right, ``x1`` first, so the label after token t is the label before it times ``xt``. The
    model predicts the label at each token, not the next token: labels are the ``targets`` of the episodes.

    *Test* episodes begin with one of a tenth of all triples of elements, and no training episode begins with these.
    The triples are fixed and pseudorandom, and labels are uniform at every position in both splits. Episodes of fewer
    than three tokens belong to the training split.

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
        Elements whose steps the Cayley graph shows.
    readings : dict of int arrays (elements, ...), optional
        Additional states besides ``"state"``: values for each element, such as the places it moves things to.
    spec : dict, optional
        Spec from which ``from_spec`` builds the world again; the name by default.

    Raises
    ------
    ValueError
        If the elements are not permutations, or not a group.

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
    ) -> None:
        self.name = checks.name(name)
        self.elements = algebra.permutations(elements)
        self.vocabulary = checks.distinct_names("vocabulary", vocabulary, len(self.elements))
        self.generators = tuple(generators)
        self.readings = dict(readings or {})
        self.spec = spec or {"name": self.name}
        # A tenth of so few elements rounds to none.
        if len(self.elements) < _TEST_SHARE:
            self.splits = ("train",)
        self.table = algebra.multiplication(self.elements)

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
        """Draw episodes of uniform and independent elements; the split depends on the first three.

        Test episodes have at least three elements. Episodes have ``targets``, the product up to and including each
        token, and the states of ``replay``.

        Examples
        --------
        >>> world = z60()
        >>> episodes = world.sample(1, 4, seed=0)
        >>> (episodes.tokens.cumsum(1) % 60 == episodes.targets).all(), episodes.targets.shape
        (np.True_, (1, 4))
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        test = split == "test"
        if test and length < _OPENING:
            raise ValueError(
                f"length must be at least {_OPENING} for split='test', got {length}: episodes of world {self.name!r} "
                f"are held out by their first {_OPENING} elements"
            )
        size = len(self.table)
        tokens = rng.integers(size, size=(length, n))
        if length >= _OPENING:
            held_out = size // _TEST_SHARE
            first, second, third = self._marks
            kind = rng.integers(held_out, size=n) if test else rng.integers(held_out, size, size=n)
            label = np.argsort(third)[(kind - first[tokens[0]] - second[tokens[1]]) % size]
            tokens[2] = self.table[self.inverse[self.table[tokens[0], tokens[1]]], label]
        labels = self._products(tokens).T
        return Episodes(tokens.T, self._states(labels) if states else {}, targets=labels)

    def held_out(self, tokens: Tokens) -> Bool[np.ndarray, " episodes"]:
        """Whether the first three elements of each episode belong to the test split.

        Examples
        --------
        >>> world = a5()
        >>> world.held_out(world.sample(4, 12, split="test").tokens).tolist()
        [True, True, True, True]
        """
        tokens = checks.tokens(self, tokens)
        if tokens.shape[1] < _OPENING:
            return np.zeros(len(tokens), bool)
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
        >>> world = s5()
        >>> swaps = [[world.vocabulary.index("(12)"), world.vocabulary.index("(23)")]]
        >>> states = world.replay(np.array(swaps))
        >>> world.vocabulary[states["state"][0, 1]], states["permutation"][0, 1].tolist()
        ('(132)', [2, 0, 1, 3, 4])
        """
        tokens = checks.tokens(self, tokens)
        return self._states(self._products(tokens.T).T)

    def start_states(self) -> dict[str, np.ndarray]:
        """The identity: the product of no elements."""
        return self._states(np.array(self.identity))

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Distribution of the label of no tokens: probability 1 for the identity. It is never scored."""
        return np.eye(len(self.vocabulary))[self.identity]

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Every element may follow."""
        tokens = checks.tokens(self, tokens)
        return np.ones((*tokens.shape, len(self.vocabulary)), bool)

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


def a5() -> GroupWorld:
    """The alternating group A5: the 60 even permutations of five things, whose word problem is NC1-complete.

    Examples
    --------
    >>> a5().vocabulary[:4]
    ('e', '(345)', '(354)', '(23)(45)')
    """
    return _of_five("a5", algebra.arrangements(5, even=True), ([1, 2, 3, 4, 0], [1, 0, 3, 2, 4]))


def s5() -> GroupWorld:
    """The symmetric group S5: all 120 permutations of five things.

    Examples
    --------
    >>> s5().decode([0, 1, 119])
    'e (45) (15)(24)'
    """
    swaps = ([1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 3, 2, 4], [0, 1, 2, 4, 3])
    return _of_five("s5", algebra.arrangements(5), swaps)


def a4xz5() -> GroupWorld:
    """A4 x Z5: even permutations of four things, and turns of a dial with five places; 60 elements, solvable.

    Examples
    --------
    >>> a4xz5().vocabulary[:6]
    ('e', '+1', '+2', '+3', '+4', '(234)')
    """
    even = algebra.arrangements(4, even=True)
    which, turn = np.divmod(np.arange(60), 5)
    names = [algebra.cycles(even[k]) + (f"+{steps}" if steps else "") for k, steps in zip(which, turn, strict=True)]
    vocabulary = [name.removeprefix("e") or "e" for name in names]
    dial = (turn[:, None] + np.arange(5)) % 5
    return GroupWorld(
        "a4xz5",
        np.concatenate([even[which], 4 + dial], axis=1),
        vocabulary,
        [vocabulary.index(name) for name in ("(123)", "(12)(34)", "+1")],
        {"permutation": even[which].astype(np.int8), "dial": turn.astype(np.int8)},
    )


def z60() -> GroupWorld:
    """Z60: addition modulo 60, turns of a dial with 60 places; all elements commute.

    Examples
    --------
    >>> int(z60().replay(np.array([[50, 20]]))["state"][0, 1])
    10
    """
    places = np.arange(60)
    return GroupWorld("z60", (places[:, None] + places) % 60, [str(turn) for turn in range(60)], [1])


def _of_five(name: str, elements: Int[np.ndarray, "elements 5"], generators: Sequence[list[int]]) -> GroupWorld:
    rows = elements.tolist()
    return GroupWorld(
        name,
        elements,
        [algebra.cycles(element) for element in elements],
        [rows.index(generator) for generator in generators],
        {"permutation": elements.astype(np.int8)},
    )
