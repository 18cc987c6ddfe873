"""Base classes: ``Episodes``, and the ``World`` that samples them."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt64
from numpy.typing import ArrayLike

from nextlat_viz.display import table
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.kernel import entropy

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Spec = dict[str, Any]
_NAMES_SHOWN = 24
# Other array-likes are in the type so that they reach `checks.tokens`, whose error says what was expected.
Tokens = Int[np.ndarray, "episodes positions"] | ArrayLike


@dataclass(frozen=True, eq=False)
class Episodes:
    """Token sequences and the true state at every position.

    Parameters
    ----------
    tokens : int64 array (episodes, positions)
        Token ids, indices into the world's ``vocabulary``.
    states : dict of arrays (episodes, positions, ...)
        The true state *after* the token at that position: index 0 is the state after the first token.
    loss_mask : bool array (episodes, positions), optional
        True where the token is scored; False on prompts and padding. All True by default. The first token of an
        episode is scored only if the model reads a start token before it.
    length : int64 array (episodes,), optional
        Number of tokens before padding; all by default.
    targets : int64 array (episodes, positions), optional
        What to predict at each position, if not the next token.

    Raises
    ------
    ValueError
        If an array's shape or type does not fit the tokens.

    Examples
    --------
    >>> episodes = Episodes(np.array([[0, 1, 1], [1, 0, 1]]), states={"parity": np.array([[0, 1, 0], [1, 1, 0]])})
    >>> len(episodes), episodes[1:].tokens.tolist(), episodes[0].states["parity"].tolist()
    (2, [[1, 0, 1]], [[0, 1, 0]])
    """

    tokens: Int[np.ndarray, "episodes positions"]
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss_mask: Bool[np.ndarray, "episodes positions"] = None  # type: ignore[assignment]
    length: Int[np.ndarray, " episodes"] = None  # type: ignore[assignment]
    targets: Int[np.ndarray, "episodes positions"] | None = None

    def __post_init__(self) -> None:
        tokens = checks.token_array(self.tokens)
        episodes, positions = tokens.shape
        mask = np.ones(tokens.shape, bool) if self.loss_mask is None else checks.array(self.loss_mask)
        length = np.full(episodes, positions) if self.length is None else checks.array(self.length)
        _expect(mask.shape == tokens.shape and mask.dtype == bool, "loss_mask", mask, f"bool of shape {tokens.shape}")
        fits = length.shape == (episodes,) and length.dtype.kind in "iu"
        _expect(fits, "length", length, f"integers of shape ({episodes},)")
        _expect(bool(((length >= 0) & (length <= positions)).all()), "length", length, f"values in 0..{positions}")
        states = {str(name): checks.array(values) for name, values in self.states.items()}
        for name, values in states.items():
            fits = values.shape[:2] == tokens.shape
            _expect(fits, f"states[{name!r}]", values, f"shape ({episodes}, {positions}, ...)")
        if self.targets is not None:
            targets = checks.array(self.targets)
            fits = targets.shape == tokens.shape and targets.dtype.kind in "iu"
            _expect(fits, "targets", targets, f"integers of shape {tokens.shape}")
            object.__setattr__(self, "targets", targets.astype(np.int64, copy=False))
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "loss_mask", mask)
        object.__setattr__(self, "length", length.astype(np.int64, copy=False))
        object.__setattr__(self, "states", states)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Episodes:
        """Select episodes by integer, slice, integer array or boolean array; the result is always Episodes."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Episodes(
            tokens=self.tokens[index],
            states={name: values[index] for name, values in self.states.items()},
            loss_mask=self.loss_mask[index],
            length=self.length[index],
            targets=None if self.targets is None else self.targets[index],
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the content as hex, the same on every machine.

        Floating-point states such as beliefs are left out: they follow from the rest, and their last bit may depend on
        the processor.
        """
        digest = hashlib.sha256(b"nextlat_viz.episodes/1")
        arrays = {"tokens": self.tokens, "loss_mask": self.loss_mask, "length": self.length}
        if self.targets is not None:
            arrays["targets"] = self.targets
        arrays |= {f"states/{name}": self.states[name] for name in sorted(self.states)}
        for name, values in arrays.items():
            if values.dtype.kind in "iub":
                digest.update(f"{name}{values.shape}".encode())
                digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Episodes({len(self)} x {self.tokens.shape[1]} tokens, states: {', '.join(self.states) or 'none'})"

    def _repr_html_(self) -> str:
        rows = {
            "episodes": len(self),
            "positions": self.tokens.shape[1],
            "scored tokens": int(self.loss_mask[:, 1:].sum()),
            "states": ", ".join(f"{name} {values.shape[2:] or ''}".strip() for name, values in self.states.items()),
            "first episode": " ".join(map(str, self.tokens[0, :24])) if len(self) else "",
            "sha256": self.sha256[:12],
        }
        return table("Episodes", rows)


class World(ABC):
    """A data-generating process whose true state is known at every step.

    To add a world, subclass this, implement ``sample`` and ``legal_next``, and register a function that builds it with
    ``nextlat_viz.worlds.register``. All other methods have defaults that mean "not known in this world".

    Attributes
    ----------
    name : str
        Name that the world is registered under, such as ``"rrxor"``.
    spec : dict
        Plain JSON: ``{"name": ..., parameters...}``. ``from_spec`` builds the same world from it.
    vocabulary : tuple of str
        Token names; a token id is an index into it.
    length : int or None
        Tokens in an episode, padding included; None if ``sample`` decides.
    splits : tuple of str
        Parts that ``sample`` draws from. Content of ``"test"`` never occurs in ``"train"``.
    pictures : tuple of str
        Kinds of picture that ``draw`` knows, its default first.
    rules_known : bool
        False if it is not known which tokens are legal, as in text; every token then counts as legal.
    predicts_next_token : bool
        False if episodes have ``targets``, one for each token.
    causal : bool
        False if what is true at a position depends on the whole episode; `replay` and `next_token_probs` then take
        whole episodes only.
    state_names : tuple of str
        Names of the hidden states, if any, in the order of the last axis of a belief.
    state_values : dict of tuples of str
        Names of the values of integer-valued states.
    optional_states : tuple of str
        Names of numeric states in which -1 means that there is no value.
    tokenizer : str
        The tokenizer of a world of text, as JSON, which a checkpoint keeps; empty in other worlds.

    Examples
    --------
    A world that counts to two and starts over, beginning at a random digit:

    >>> class Counter(World):
    ...     name, spec, vocabulary = "counter", {"name": "counter"}, ("0", "1", "2")
    ...
    ...     def sample(self, n, length=None, seed=0, *, split="train", states=True):
    ...         first = np.random.default_rng(seed).integers(3, size=(n, 1))
    ...         tokens = (first + np.arange(length)) % 3
    ...         return Episodes(tokens, self.replay(tokens) if states else {})
    ...
    ...     def replay(self, tokens):
    ...         return {"digit": np.asarray(tokens)}
    ...
    ...     def legal_next(self, tokens):
    ...         return (np.asarray(tokens)[..., None] + 1) % 3 == np.arange(3)
    >>> world = Counter()
    >>> episodes = world.sample(2, 5, seed=1)
    >>> episodes.tokens.tolist(), bool(world.legal(episodes.tokens).all())
    ([[1, 2, 0, 1, 2], [1, 2, 0, 1, 2]], True)
    """

    name: str
    spec: Spec
    vocabulary: tuple[str, ...]
    length: int | None = None
    splits: tuple[str, ...] = ("train",)
    pictures: tuple[str, ...] = ()
    rules_known: bool = True
    predicts_next_token: bool = True
    causal: bool = True
    state_names: tuple[str, ...] = ()
    optional_states: tuple[str, ...] = ()
    tokenizer: str = ""

    @abstractmethod
    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw episodes. The same seed gives the same bytes.

        Parameters
        ----------
        n : int
            Number of episodes.
        length : int, optional
            Tokens in each. Required if the world has no ``length``; otherwise additional positions are padding, and
            fewer are an error.
        seed : int
        split : str
            One of ``splits``.
        states : bool
            False omits the states, which is faster. A state named "document" is kept: it numbers the documents packed
            into a row, so that attention stays inside each.

        Raises
        ------
        ValueError
            If an argument is out of range.
        """

    @property
    def held_out_split(self) -> str:
        """The split that models are measured on: "test" if there is one, else the first."""
        return "test" if "test" in self.splits else self.splits[0]

    def sample_held_out(self, n: int, length: int | None = None, seed: int = 0) -> Episodes:
        """Draw episodes to measure models on, from ``held_out_split``."""
        return self.sample(n, length, seed, split=self.held_out_split)

    @abstractmethod
    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may follow each token; none after an illegal token."""

    def draw(
        self, kind: str | None = None, *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """Draw a picture of the world, or of an episode after ``position`` of its tokens.

        To draw a world of your own, override this, or register functions with ``worlds.drawing.picture``.

        Parameters
        ----------
        kind : str, optional
            One of ``pictures``, its first by default.
        episode : Episodes, optional
            One episode.
        position : int, optional
            Tokens read, from 0; the episode's last by default.
        **options
            ``width`` and ``height`` in pixels, and further options of the kind of picture.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` does not hold exactly one episode, or the position is outside it.
        """
        from nextlat_viz.worlds.drawing import draw_picture

        return draw_picture(self, kind, episode, position, options)

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """Which tokens may come first: by default those that `start_probs` allows, or all if it is not known."""
        probs = self.start_probs() if self.predicts_next_token else None
        return np.ones(len(self.vocabulary), bool) if probs is None else probs > 0

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        """Whether each token is legal after the tokens before it."""
        tokens = np.asarray(tokens)
        after = np.take_along_axis(self.legal_next(tokens)[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]
        return np.concatenate([self.legal_first()[tokens[:, :1]], after], axis=1)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Compute the true state after each token from the tokens: arrays (episodes, positions, ...).

        Empty if the tokens do not determine the state.

        Raises
        ------
        ValueError
            If a token is not legal; the first is named.
        """
        return {}

    def belief(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions states"] | None:
        """Exact distribution of the hidden state after each token; None if there is no hidden state."""
        return None

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"] | None:
        """Exact distribution of the next token after each token; None if it is not known."""
        return None

    def answer_facts(
        self, answers: Int[np.ndarray, "episodes positions"], episodes: Episodes
    ) -> dict[str, Int[np.ndarray, " episodes"]]:
        """Compute facts about answers that have one token for each position.

        Returns
        -------
        dict of int arrays (episodes,)
            ``"distance"``: the number of positions that differ from the targets.

        Raises
        ------
        ValueError
            If the episodes have no targets.
        """
        if episodes.targets is None:
            raise ValueError("these episodes have no targets to compare answers with: sample them, or give targets")
        return {"distance": (answers != episodes.targets).sum(axis=1)}

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions facts"] | None:
        """Integers that determine the future after each token: if they are equal, so are the laws of what follows.

        None, the default, if they are not known.
        """
        return None

    def start_states(self) -> dict[str, np.ndarray]:
        """The true state before the first token, with names and shapes as at one position of ``Episodes.states``.

        States that are unknown or do not exist there are left out; by default the dict is empty.
        """
        return {}

    def start_probs(self) -> Float[np.ndarray, " tokens"] | None:
        """Exact distribution of the first token; None if it is not known, or if first tokens are not predicted."""
        return None

    def decisive(self, episodes: Episodes) -> Bool[np.ndarray, "episodes positions"] | None:
        """Positions after which the world's decisive prediction is made; training logs the accuracy there.

        For instance the choice of an arm in Path-Star. None, the default, if no prediction stands out.
        """
        return None

    def floor(self, length: int) -> Float[np.ndarray, " length"] | None:
        """Bayes floor in nats: entry t - 1 is the entropy of token t + 1 given tokens 1..t, for t = 1..length.

        None if it is not known.
        """
        return None

    def loss_floor(self, length: int, *, start_token: bool = False) -> float | None:
        """Mean of ``floor(length)``: the lowest possible mean loss over ``length`` predictions, in nats.

        Parameters
        ----------
        length : int
            Tokens read. An episode of T tokens has T - 1 predictions for a model without a start token, since the
            first token is given: compare its loss with ``loss_floor(T - 1)``.
        start_token : bool
            Count the prediction of the first token too: the mean is over ``length + 1`` predictions. No effect in a
            world whose targets are not the next tokens, where nothing is predicted before the first token.
        """
        floor = self.floor(length)
        if floor is None:
            return None
        if not (start_token and self.predicts_next_token):
            return float(floor.mean())
        first = self.start_probs()
        return None if first is None else float(np.append(floor, entropy(first[None])).mean())

    def decode(self, tokens: ArrayLike) -> str:
        """Convert one sequence of tokens (positions,) to readable text."""
        return " ".join(self.vocabulary[token] for token in np.asarray(tokens).tolist())

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of the values of integer-valued states."""
        return {"state": self.state_names} if self.state_names else {}

    @property
    def parameters(self) -> Spec:
        """The world's parameters: ``spec`` without the name."""
        return {key: value for key, value in self.spec.items() if key != "name"}

    def __repr__(self) -> str:
        states = f"{len(self.state_names)} states, " if self.state_names else ""
        return f"<World {self.name}: {states}{len(self.vocabulary)} tokens>"

    def facts(self) -> dict[str, str]:
        """Rows of the world's table in a notebook."""
        numbers = {key: value for key, value in self.parameters.items() if type(value) in (int, float, str, bool)}
        formatted = {key: f"{value:.4g}" if type(value) is float else str(value) for key, value in numbers.items()}
        names = ", ".join(self.vocabulary[:_NAMES_SHOWN])
        more = ", …" if len(self.vocabulary) > _NAMES_SHOWN else ""
        rows = {"parameters": ", ".join(f"{key} = {value}" for key, value in formatted.items()) or "none"}
        if self.state_names:
            rows["states"] = f"{len(self.state_names)}: {', '.join(self.state_names)}"
        rows["tokens"] = f"{len(self.vocabulary)}: {names}{more}"
        rows["length"] = "chosen when sampling" if self.length is None else f"{self.length} tokens"
        rows["chance"] = f"{math.log(len(self.vocabulary)):.4f} nats per token"
        return rows

    def _repr_html_(self) -> str:
        return table(f"World {self.name}", self.facts())


def scrambled(keys: Integer[np.ndarray, "*keys"]) -> UInt64[np.ndarray, "*keys"]:
    """Hash integers to 64-bit numbers, different for different keys. Worlds choose held-out content by this hash.

    This is the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
    """
    mixed = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _expect(ok: bool, name: str, values: np.ndarray, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name} must be {expected}, got {values.dtype} of shape {values.shape}")
