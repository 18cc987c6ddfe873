"""The hidden-Markov world: sampling, exact filtering, floors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import beliefs as _beliefs
from nextlat_viz.worlds.base import Episodes, Spec, World
from nextlat_viz.worlds.matrices import check_belief, check_transitions, fixed_vectors
from nextlat_viz.worlds.plane import BeliefPlane

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ROUNDING = 1e-12


class HiddenMarkovWorld(World):
    """A hidden state that moves and shows a token at each move.

    ``T[x, i, j]`` is the probability of showing token ``x`` and moving to state ``j``, from state ``i``. After a token
    the belief becomes ``b T[x] / (b T[x] w)``, with ``w`` all ones. A *generalised* world may hold negative entries;
    there ``w`` is the right eigenvector of ``sum_x T[x]`` at eigenvalue 1, and a belief is a vector with ``b w = 1``
    rather than a distribution (Upper 1997; Riechers & Elliott 2025).

    Parameters
    ----------
    name : str
        What to call the world.
    transitions : array (tokens, states, states)
        Labelled transition matrices, one per token.
    token_names, state_names : sequence of str, optional
        ``"0", "1", ...`` by default.
    spec : dict, optional
        What ``from_spec`` rebuilds the world from; by default the matrices themselves.
    generalised : bool
        Allow matrices that are not probabilities. Such a world has no hidden state to sample, only beliefs.

    Attributes
    ----------
    transitions : float64 array (tokens, states, states)
    readout : float64 array (states,)
        The vector ``w``.
    stationary : float64 array (states,)
        The belief before any token: the long-run distribution of the hidden state.

    Raises
    ------
    ValueError
        If the matrices are not such a world, or have no unique stationary distribution.

    Examples
    --------
    A coin that is swapped for a biased one now and then:

    >>> coin = HiddenMarkovWorld("coin", [[[0.45, 0.05], [0.09, 0.81]], [[0.45, 0.05], [0.01, 0.09]]])
    >>> coin.belief(np.array([[0, 0, 0, 1]])).round(3).tolist()[0]
    [[0.386, 0.614], [0.307, 0.693], [0.258, 0.742], [0.608, 0.392]]
    >>> coin.sample(2, 8, seed=0).tokens.shape
    (2, 8)
    """

    def __init__(
        self,
        name: str,
        transitions: ArrayLike,
        token_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        spec: Spec | None = None,
        *,
        generalised: bool = False,
    ) -> None:
        self.transitions = check_transitions(transitions, generalised)
        n_tokens, n_states, _ = self.transitions.shape
        self.name = str(name)
        self.generalised = generalised
        self.vocabulary = _names("token_names", token_names, n_tokens)
        self.state_names = _names("state_names", state_names, n_states)
        self.stationary, self.readout = fixed_vectors(self.transitions, generalised)
        self.spec = spec or {
            "name": "hmm",
            "title": self.name,
            "transitions": self.transitions.tolist(),
            "token_names": list(self.vocabulary),
            "state_names": list(self.state_names),
            "generalised": generalised,
        }
        self._tiny = _ROUNDING if generalised else 0.0
        self._floors = (np.zeros(0), np.zeros(0))
        self._rate: tuple[float, float] | None = None
        self._plane: BeliefPlane | None = None

    @property
    def n_states(self) -> int:
        """Number of hidden states, the length of a belief."""
        return self.transitions.shape[1]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.transitions.shape[0]

    @property
    def _emission(self) -> Float[np.ndarray, "states tokens"]:
        return _beliefs.emissions(self.transitions, self.readout)

    @property
    def _process(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        return self.stationary, self.transitions, self.readout, self._tiny

    def sample(self, n: int, length: int, seed: int, *, states: bool = True) -> Episodes:
        """Draw episodes, starting from the stationary distribution.

        Parameters
        ----------
        n, length : int
            Number of episodes and of tokens in each.
        seed : int
            The same seed gives the same bytes, and the first ``k`` of ``n`` episodes are those of ``sample(k, ...)``.
        states : bool
            False leaves the states out, which is faster where only tokens are wanted.

        Returns
        -------
        Episodes
            With states ``"state"`` (n, length), the hidden state after each token (absent in generalised worlds, which
            have none), and ``"belief"`` (n, length, states).

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> episodes = worlds.get("z1r").sample(3, 6, seed=1)
        >>> sorted(episodes.states), episodes.states["belief"].shape
        (['belief', 'state'], (3, 6, 3))
        """
        n, length = _positive("n", n), _positive("length", length)
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        uniform = np.random.default_rng(int(seed)).random((n, length + 1))
        tokens = np.empty((n, length), np.int64)
        truth: dict[str, np.ndarray] = {}
        if self.generalised:
            beliefs = np.tile(self.stationary, (n, 1))
            for t in range(length):
                tokens[:, t], beliefs = _beliefs.advance(beliefs, self.transitions, self.readout, uniform[:, t + 1])
        else:
            hidden = np.empty((n, length), np.int64)
            joint = self.transitions.transpose(1, 0, 2).reshape(self.n_states, -1).cumsum(-1)
            state = _beliefs.draw_index(np.tile(self.stationary.cumsum(), (n, 1)), uniform[:, 0])
            for t in range(length):
                tokens[:, t], state = np.divmod(_beliefs.draw_index(joint[state], uniform[:, t + 1]), self.n_states)
                hidden[:, t] = state
            truth["state"] = hidden
        if states:
            truth["belief"] = self.belief(tokens)
        return Episodes(tokens, truth if states else {})

    def belief(
        self, tokens: Int[np.ndarray, "episodes positions"], start: ArrayLike | None = None
    ) -> Float[np.ndarray, "episodes positions states"]:
        """Exact belief after each token, normalised at every step, so that long sequences stay exact.

        Parameters
        ----------
        tokens : integer array (episodes, positions)
        start : array (states,), optional
            The belief before the first token; the stationary distribution by default.

        Raises
        ------
        ValueError
            If a token is outside the vocabulary, or cannot follow the tokens before it; the place is named.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("rrxor").belief(np.array([[1, 0, 1]]))[0, -1].tolist()
        [0.5, 0.0, 0.25, 0.25, 0.0]
        """
        tokens = self._check_tokens(tokens)
        episodes, positions = tokens.shape
        current = self.stationary if start is None else check_belief("start", start, self.n_states, self.readout)
        current = np.tile(current, (episodes, 1))
        flat = self.transitions.transpose(1, 0, 2).reshape(self.n_states, -1)
        rows = np.arange(episodes)
        result = np.empty((episodes, positions, self.n_states))
        for t in range(positions):
            current = (current @ flat).reshape(episodes, self.n_tokens, self.n_states)[rows, tokens[:, t]]
            chance = current @ self.readout
            if not (chance > self._tiny).all():
                self._impossible(tokens, t, int(np.argmin(chance > self._tiny)))
            current = current / chance[:, None]
            result[:, t] = current
        return result

    def predict(self, beliefs: Float[np.ndarray, "*rows states"]) -> Float[np.ndarray, "*rows tokens"]:
        """Next-token distribution of an observer who holds each belief.

        Raises
        ------
        ValueError
            If a vector is not a belief of this world.
        """
        beliefs = check_belief("beliefs", beliefs, self.n_states, None if not self.generalised else self.readout)
        return _beliefs.token_probabilities(beliefs, self._emission)

    def next_token_probs(
        self, tokens: Int[np.ndarray, "episodes positions"]
    ) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token; raises as ``belief`` does."""
        return _beliefs.token_probabilities(self.belief(tokens), self._emission)

    def legal_next(
        self, tokens: Int[np.ndarray, "episodes positions"]
    ) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Tokens that may come next: those of probability above zero (1e-12 in generalised worlds)."""
        return self.next_token_probs(tokens) > self._tiny

    def floor(self, length: int) -> Float[np.ndarray, " length"]:
        """Bayes floor in nats: entry t - 1 is the entropy of token t + 1 given tokens 1..t, for t = 1..length.

        Exact, by summing over the tree of reachable beliefs, for as long as a depth has at most about a million of
        them (Mess3: 12 tokens; worlds that forget, such as RRXOR: any length). Further on it is estimated from 50,000
        seeded paths; ``floor_error`` holds the standard errors.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("z1r").floor(5).round(4).tolist()
        [0.6365, 0.4621, 0.231, 0.231, 0.231]
        """
        return self._floor(_positive("length", length))[0]

    def floor_error(self, length: int) -> Float[np.ndarray, " length"]:
        """Standard error of each entry of ``floor(length)``: 0 where it is exact."""
        return self._floor(_positive("length", length))[1]

    def _floor(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        if len(self._floors[0]) < length:
            self._floors = _beliefs.floors(*self._process, length)
        return self._floors[0][:length].copy(), self._floors[1][:length].copy()

    def entropy_rate(self) -> float:
        """Entropy per token of long sequences, in nats: where ``floor`` ends up.

        Exact if state and token fix the next state (then it is the mean entropy of the states' tokens) or if the
        reachable beliefs are few; else the mean of exact entropies over seeded paths of 200 tokens, after 200 to
        forget the start. ``entropy_rate_error`` holds the standard error, 0 where exact.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> print(f"{worlds.get('rrxor').entropy_rate() / np.log(2):.6f} bits")
        0.666667 bits
        """
        return self._entropy_rate()[0]

    def entropy_rate_error(self) -> float:
        """Standard error of ``entropy_rate()``: 0 where it is exact."""
        return self._entropy_rate()[1]

    def _entropy_rate(self) -> tuple[float, float]:
        if self._rate is None:
            start, transitions, readout, tiny = self._process
            unifilar = bool(((transitions > 0).sum(-1) <= 1).all())
            if not self.generalised and unifilar:
                self._rate = float(self.stationary @ _beliefs.entropy(self._emission)), 0.0
            elif (tree := self._small_tree()) is not None:
                self._rate = _beliefs.closed_rate(tree, transitions, readout, tiny), 0.0
            else:
                self._rate = _beliefs.rate_estimate(start, transitions, readout)
        return self._rate

    def _small_tree(self) -> _beliefs.BeliefTree | None:
        try:
            tree = _beliefs.reachable(*self._process, max_depth=64, max_beliefs=1000)
        except ValueError:
            return None
        return tree if tree.closed else None

    def reachable_beliefs(self, max_depth: int = 8, max_beliefs: int = 100_000) -> _beliefs.BeliefTree:
        """The distinct beliefs an observer can hold after at most ``max_depth`` tokens, the start included.

        The count includes the stationary start, held before any token: 36 for RRXOR, 7 for Z1R.

        Raises
        ------
        ValueError
            If there are more than ``max_beliefs``.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> tree = worlds.get("z1r").reachable_beliefs()
        >>> len(tree), tree.closed, tree.prefixes
        (7, True, ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)))
        """
        return _beliefs.reachable(*self._process, _positive("max_depth", max_depth), max_beliefs)

    @property
    def plane(self) -> BeliefPlane:
        """The fixed affine map from beliefs to picture coordinates."""
        if self._plane is None:
            self._plane = BeliefPlane.of(self)
        return self._plane

    @property
    def belief_axes(self) -> str:
        """One sentence that says what the picture coordinates are, for captions."""
        return self.plane.caption

    @property
    def belief_vertices(self) -> Float[np.ndarray, "states 2"]:
        """Picture coordinates of certainty in each state; no rows in generalised worlds, which have no such states."""
        return self.plane(np.eye(self.n_states)[: 0 if self.generalised else None])

    def belief_coordinates(self, beliefs: Float[np.ndarray, "*rows states"]) -> Float[np.ndarray, "*rows 2"]:
        """Picture coordinates of beliefs; affine-linear, so that what a probe reads off the simplex maps too.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("mess3").belief_coordinates(np.full(3, 1 / 3)).round(3).tolist()
        [0.0, 0.0]
        """
        beliefs = np.asarray(beliefs, np.float64)
        if beliefs.shape[-1:] != (self.n_states,):
            raise ValueError(
                f"beliefs must have {self.n_states} entries on the last axis, one per state of {self.name!r}, "
                f"got shape {beliefs.shape}"
            )
        return self.plane(beliefs)

    def draw(self, kind: str = "machine", **options: Any) -> Figure:
        """A plotly picture: ``"machine"``, states and the moves between them, or ``"beliefs"``, the reachable beliefs.

        Raises
        ------
        UnknownNameError
            If there is no such kind.
        """
        from nextlat_viz.worlds.draw import draw

        return draw(self, kind, **options)

    def _check_tokens(self, tokens: Any) -> Int[np.ndarray, "episodes positions"]:
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"tokens must be integers of shape (episodes, positions), got {tokens.dtype} of shape {tokens.shape}; "
                "for one sequence pass tokens[None, :]"
            )
        outside = (tokens < 0) | (tokens >= self.n_tokens)
        if outside.any():
            episode, position = np.argwhere(outside)[0]
            raise ValueError(
                f"token {tokens[episode, position]} at episode {episode}, position {position + 1} is outside the "
                f"vocabulary of world {self.name!r}: ids 0..{self.n_tokens - 1} for {', '.join(self.vocabulary)}"
            )
        return tokens.astype(np.int64)

    def _impossible(self, tokens: np.ndarray, t: int, episode: int) -> None:
        token = self.vocabulary[tokens[episode, t]]
        raise ValueError(
            f"episode {episode} cannot happen in world {self.name!r}: token {token!r} at position {t + 1} has "
            "probability 0 after the tokens before it"
        )


def _names(argument: str, given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if given is None:
        return tuple(str(index) for index in range(count))
    result = tuple(str(name) for name in given)
    if isinstance(given, str) or len(result) != count or len(set(result)) != count:
        raise ValueError(f"{argument} must be {count} different names, got {given!r}")
    return result


def _positive(argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{argument} must be an integer of at least 1, got {value!r}")
    return int(value)
