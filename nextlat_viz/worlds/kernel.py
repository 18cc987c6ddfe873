"""Belief updates: how one token changes many beliefs at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

# Bound on the rounding error of a float64 sum near zero, with a wide margin.
_NEGATIVE = 1e-6


@dataclass(frozen=True, eq=False)
class Kernel:
    """The parameters of a hidden Markov world.

    ``start`` is the belief before any token, and ``b @ readout`` is 1 for every belief ``b``: the readout is all ones
    in an ordinary world. A token with a probability of at most ``tiny`` cannot happen.
    """

    start: Float[np.ndarray, " states"]
    transitions: Float[np.ndarray, "tokens states states"]
    readout: Float[np.ndarray, " states"]
    tiny: float

    @cached_property
    def emissions(self) -> Float[np.ndarray, "states tokens"]:
        """Probability of each next token in each state."""
        return np.einsum("xst,t->sx", self.transitions, self.readout)

    @cached_property
    def joint(self) -> Float[np.ndarray, "states outcomes"]:
        """One row per state over all pairs (token, next state), the state varying fastest."""
        n_tokens, n_states, _ = self.transitions.shape
        return np.ascontiguousarray(self.transitions.transpose(1, 0, 2).reshape(n_states, n_tokens * n_states))

    @cached_property
    def moves(self) -> Moves:
        """Moves of positive probability in each state."""
        possible = self.joint > 0
        # Possible outcomes first, in their order; outcomes of probability 0 are never drawn.
        outcomes = np.argsort(~possible, axis=1, kind="stable")[:, : possible.sum(1).max()]
        cumulative = np.take_along_axis(self.joint.cumsum(-1), outcomes, axis=1)
        total = self.joint.cumsum(-1)[:, -1]
        cumulative[np.arange(outcomes.shape[1]) >= possible.sum(1)[:, None]] = np.inf
        token, state = np.divmod(outcomes, len(self.start))
        return Moves(cumulative[:, :-1], total, np.nextafter(total, 0.0), token.ravel(), state.ravel())

    def futures(self, beliefs: Float[np.ndarray, "rows states"]) -> Float[np.ndarray, "rows tokens states"]:
        """Beliefs after each token, not normalised: each sums to the probability of the token."""
        return (beliefs @ self.joint).reshape(len(beliefs), *self.transitions.shape[:2])

    def chances(self, raw: Float[np.ndarray, "*rows tokens"]) -> Float[np.ndarray, "*rows tokens"]:
        """Token probabilities with values below ``tiny``, rounding errors of generalised worlds, set to 0.

        A ValueError if a probability is negative beyond rounding.
        """
        if raw.min(initial=0.0) < -_NEGATIVE:
            raise ValueError(
                f"a token has probability {raw.min():.6g}: the transitions do not define a process, or the belief is "
                "not one of this process"
            )
        return np.where(raw > self.tiny, raw, 0.0)

    def predict(self, beliefs: Float[np.ndarray, "*rows states"]) -> Float[np.ndarray, "*rows tokens"]:
        """Next-token distribution."""
        return self.chances(beliefs @ self.emissions)

    def uncertainty(self, beliefs: Float[np.ndarray, "rows states"]) -> Float[np.ndarray, " rows"]:
        """Entropy of the next token, in nats."""
        return entropy(self.predict(beliefs))

    def advance(
        self, beliefs: Float[np.ndarray, "rows states"], uniform: Float[np.ndarray, " rows"]
    ) -> tuple[Int[np.ndarray, " rows"], Float[np.ndarray, "rows states"]]:
        """Draw one token per row from its exact distribution; return the tokens and the beliefs after them."""
        futures = self.futures(beliefs)
        chance = self.chances(futures @ self.readout)
        token = invert(chance.cumsum(-1), uniform)
        rows = np.arange(len(beliefs))
        return token, futures[rows, token] / chance[rows, token][:, None]


@dataclass(frozen=True, eq=False)
class Moves:
    """The possible moves of a hidden Markov world by state, with their cumulative probabilities.

    Draws the same moves as ``invert`` over all pairs (token, next state), with fewer comparisons.
    """

    edges: Float[np.ndarray, "states fewer"]
    total: Float[np.ndarray, " states"]
    limit: Float[np.ndarray, " states"]
    token: Int[np.ndarray, " moves"]
    target: Int[np.ndarray, " moves"]

    def draw(
        self, state: Int[np.ndarray, " rows"], uniform: Float[np.ndarray, " rows"]
    ) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """Draw one move from each state; return the tokens emitted and the next states."""
        aim = np.minimum(uniform * self.total[state], self.limit[state])
        move = state * (self.edges.shape[1] + 1)
        for edge in self.edges.T:
            move += edge[state] <= aim
        return self.token[move], self.target[move]


def entropy(probabilities: Float[np.ndarray, "*rows tokens"]) -> Float[np.ndarray, "*rows"]:
    """Shannon entropy in nats along the last axis, with 0 ln 0 = 0."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return -(probabilities * np.log(safe)).sum(-1)


def invert(
    cumulative: Float[np.ndarray, "rows choices"], uniform: Float[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """Draw from cumulative distributions by inversion of ``uniform`` in [0, 1).

    ``uniform`` is scaled to just below the last entry, which may differ from 1 by rounding, so that no choice of
    probability zero is drawn.
    """
    total = cumulative[:, -1]
    aim = np.minimum(uniform * total, np.nextafter(total, 0.0))
    return (cumulative <= aim[:, None]).sum(-1)
