"""Hidden Markov worlds: sampling, exact beliefs and floors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Spec, Tokens, World
from nextlat_viz.worlds.beliefs import BeliefTree, entropy_rate, floors, reachable
from nextlat_viz.worlds.hmm.plane import BeliefPlane
from nextlat_viz.worlds.kernel import Kernel, invert

_ROUNDING = 1e-12


class HiddenMarkovWorld(World):
    """A hidden state that moves and emits a token at each move.

    ``T[x, i, j]`` is the probability of emitting token ``x`` and moving to state ``j``, from state ``i``. After a
    token the belief becomes ``b T[x] / (b T[x] w)``, with ``w`` all ones. The entries of a *generalised* world may be
    negative; there ``w`` is the right eigenvector of ``sum_x T[x]`` at eigenvalue 1, and a belief is a vector with
    ``b w = 1`` rather than a distribution (Upper 1997; Riechers, Elliott & Shai 2025).

    Pictures: ``"machine"``, states and the moves between them, with a ring around the current state; ``"beliefs"``,
    the reachable beliefs (option ``depth``) and the path of an episode's beliefs.

    Parameters
    ----------
    name : str
        Name of the world.
    transitions : array (tokens, states, states)
        Labelled transition matrices, one per token.
    token_names, state_names : sequence of str, optional
        ``"0", "1", ...`` by default.
    spec : dict, optional
        Spec from which ``from_spec`` builds the world again; the matrices by default.
    generalised : bool
        Allow matrices that are not probabilities. Such a world has beliefs but no hidden state.

    Raises
    ------
    ValueError
        If the matrices are malformed, or have no unique stationary distribution.

    Examples
    --------
    A coin that is sometimes swapped for a biased one:

    >>> coin = HiddenMarkovWorld("coin", [[[0.45, 0.05], [0.09, 0.81]], [[0.45, 0.05], [0.01, 0.09]]])
    >>> coin.belief(np.array([[0, 0, 0, 1]])).round(3).tolist()[0]
    [[0.386, 0.614], [0.307, 0.693], [0.258, 0.742], [0.608, 0.392]]
    >>> coin.sample(2, 8, seed=0).tokens.shape
    (2, 8)
    """

    pictures = ("machine", "beliefs")

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
        matrices = checks.transitions(transitions, generalised)
        start, readout = checks.fixed_vectors(matrices, generalised)
        self.kernel = Kernel(start, matrices, readout, tiny=_ROUNDING if generalised else 0.0)
        if generalised:
            # No test of the matrices alone shows whether they define a process; a wrong one soon yields a negative
            # probability.
            reachable(self.kernel, max_depth=2, max_beliefs=100_000)
        self.name = checks.name(name)
        self.generalised = generalised
        self.vocabulary = checks.distinct_names("token_names", token_names, self.n_tokens)
        self.state_names = checks.distinct_names("state_names", state_names, self.n_states)
        self.spec = spec or {
            "name": "hmm",
            "transitions": matrices.tolist(),
            "title": self.name,
            "token_names": list(self.vocabulary),
            "state_names": list(self.state_names),
            "generalised": generalised,
        }
        self._floors = (np.zeros(0), np.zeros(0))

    @property
    def transitions(self) -> Float[np.ndarray, "tokens states states"]:
        """Labelled transition matrices, float64."""
        return self.kernel.transitions

    @property
    def readout(self) -> Float[np.ndarray, " states"]:
        """The vector ``w`` of belief updates: all ones unless the world is generalised."""
        return self.kernel.readout

    @property
    def stationary(self) -> Float[np.ndarray, " states"]:
        """The belief before any token: the long-run distribution of the hidden state."""
        return self.kernel.start

    @property
    def n_states(self) -> int:
        """Number of hidden states, the length of a belief."""
        return self.transitions.shape[1]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.transitions.shape[0]

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw episodes, starting from the stationary distribution.

        The first ``k`` of ``n`` episodes are those of ``sample(k, ...)``.

        Returns
        -------
        Episodes
            With states ``"state"`` (n, length), the hidden state after each token, except in generalised worlds, and
            ``"belief"`` (n, length, states).

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> episodes = worlds.get("z1r").sample(3, 6, seed=1)
        >>> sorted(episodes.states), episodes.states["belief"].shape
        (['belief', 'state'], (3, 6, 3))
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        uniform = rng.random((n, length + 1))
        tokens, hidden = np.empty((2, n, length), np.int64)
        if self.generalised:
            beliefs = np.tile(self.stationary, (n, 1))
            for t in range(length):
                tokens[:, t], beliefs = self.kernel.advance(beliefs, uniform[:, t + 1])
        else:
            state = invert(np.tile(self.stationary.cumsum(), (n, 1)), uniform[:, 0])
            for t in range(length):
                tokens[:, t], state = self.kernel.moves.draw(state, uniform[:, t + 1])
                hidden[:, t] = state
        if not states:
            return Episodes(tokens)
        truth = {} if self.generalised else {"state": hidden}
        return Episodes(tokens, truth | {"belief": self.belief(tokens)})

    def belief(self, tokens: Tokens, start: ArrayLike | None = None) -> Float[np.ndarray, "episodes positions states"]:
        """Compute the exact belief after each token, normalised at every step so that long sequences stay exact.

        Parameters
        ----------
        tokens : integer array (episodes, positions)
        start : array (states,), optional
            The belief before the first token; the stationary distribution by default.

        Raises
        ------
        ValueError
            If a token is outside the vocabulary, or has probability 0 after the tokens before it.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("rrxor").belief(np.array([[1, 0, 1]]))[0, -1].round(2).tolist()
        [0.5, 0.0, 0.25, 0.25, 0.0]
        """
        tokens = checks.tokens(self, tokens)
        episodes, positions = tokens.shape
        first = self.stationary if start is None else checks.beliefs("start", start, self.readout)
        if first.ndim != 1:
            raise ValueError(f"start must be one belief, of shape ({self.n_states},), got shape {first.shape}")
        current = np.tile(first, (episodes, 1))
        rows = np.arange(episodes)
        beliefs, chances = np.empty((episodes, positions, self.n_states)), np.empty((episodes, positions))
        # After an impossible token the numbers mean nothing; the check below raises before they are returned.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for t in range(positions):
                current = self.kernel.futures(current)[rows, tokens[:, t]]
                chances[:, t] = chance = current @ self.readout
                current /= chance[:, None]
                beliefs[:, t] = current
        possible = chances > self.kernel.tiny
        checks.require_legal(self, tokens, possible, " has probability 0 after the tokens before it")
        return beliefs

    def predict(self, beliefs: Float[np.ndarray, "*rows states"] | ArrayLike) -> Float[np.ndarray, "*rows tokens"]:
        """Compute the next-token distribution given each belief.

        Raises
        ------
        ValueError
            If a row is not a belief of this world.
        """
        return self.kernel.predict(checks.beliefs("beliefs", beliefs, self.readout))

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token; raises as ``belief`` does."""
        return self.kernel.predict(self.belief(tokens))

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Tokens that may come next: those of probability above zero (1e-12 in generalised worlds)."""
        return self.next_token_probs(tokens) > 0

    def floor(self, length: int) -> Float[np.ndarray, " length"]:
        """Bayes floor in nats: entry t - 1 is the entropy of token t + 1 given tokens 1..t, for t = 1..length.

        Exact as long as at most about a million beliefs are reachable at one depth (Mess3: 12 tokens; RRXOR: any
        length), by summing over them. Deeper entries are estimated from 50,000 seeded paths; ``floor_error`` gives
        their standard errors.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("z1r").floor(5).round(4).tolist()
        [0.6365, 0.4621, 0.231, 0.231, 0.231]
        """
        return self._floor(checks.integer("length", length))[0]

    def floor_error(self, length: int) -> Float[np.ndarray, " length"]:
        """Standard error of each entry of ``floor(length)``; 0 where the entry is exact."""
        return self._floor(checks.integer("length", length))[1]

    def _floor(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        if len(self._floors[0]) < length:
            self._floors = floors(self.kernel, length)
        return self._floors[0][:length].copy(), self._floors[1][:length].copy()

    def entropy_rate(self) -> float:
        """Entropy per token of long sequences, in nats: the limit of ``floor``.

        Exact if state and token determine the next state, or if there are few reachable beliefs. Otherwise the mean
        of exact entropies over seeded paths of 200 tokens, after 200 tokens to forget the start;
        ``entropy_rate_error`` gives the standard error.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> print(f"{worlds.get('rrxor').entropy_rate() / np.log(2):.6f} bits")
        0.666667 bits
        """
        return self._rate[0]

    def entropy_rate_error(self) -> float:
        """Standard error of ``entropy_rate()``; 0 where it is exact."""
        return self._rate[1]

    @cached_property
    def _rate(self) -> tuple[float, float]:
        return entropy_rate(self.kernel)

    def reachable_beliefs(self, max_depth: int = 8, max_beliefs: int = 100_000) -> BeliefTree:
        """The distinct beliefs reachable within ``max_depth`` tokens, the stationary start included.

        There are 36 for RRXOR and 7 for Z1R.

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
        return reachable(self.kernel, checks.integer("max_depth", max_depth), max_beliefs)

    @cached_property
    def plane(self) -> BeliefPlane:
        """The fixed affine map from beliefs to picture coordinates."""
        return BeliefPlane.of(self)

    @property
    def belief_axes(self) -> str:
        """One sentence about the picture coordinates, for captions."""
        return self.plane.caption

    @property
    def belief_vertices(self) -> Float[np.ndarray, "states 2"]:
        """Picture coordinates of certainty in each state; no rows in generalised worlds, which have no states."""
        return self.belief_coordinates(np.eye(self.n_states)[: 0 if self.generalised else None])

    def belief_coordinates(
        self, beliefs: Float[np.ndarray, "*rows states"] | ArrayLike
    ) -> Float[np.ndarray, "*rows 2"]:
        """Map beliefs to picture coordinates by an affine function, which takes the output of a probe too.

        Examples
        --------
        >>> from nextlat_viz import worlds
        >>> worlds.get("mess3").belief_coordinates([0.2, 0.4, 0.4]).round(3).tolist()
        [0.0, -0.2]
        """
        beliefs = np.asarray(beliefs, np.float64)
        if beliefs.shape[-1:] != (self.n_states,):
            raise ValueError(
                f"beliefs must have {self.n_states} entries on the last axis, one per state of {self.name!r}, "
                f"got shape {beliefs.shape}"
            )
        return beliefs @ self.plane.matrix + self.plane.offset

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """The belief after each token. Tokens do not determine the hidden state, so it is not included."""
        return {"belief": self.belief(tokens)}

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions states"]:
        """The exact belief, in millionths: rounding errors are far smaller."""
        return np.round(self.belief(tokens) * 1e6).astype(np.int64)

    def start_states(self) -> dict[str, np.ndarray]:
        """The belief before any token: the stationary distribution."""
        return {"belief": self.stationary}

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Exact distribution of the first token."""
        return self.kernel.predict(self.stationary)

    def facts(self) -> dict[str, str]:
        return super().facts() | {"entropy rate": f"{self.entropy_rate():.4f} nats per token"}
