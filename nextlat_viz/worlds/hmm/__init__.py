"""Hidden Markov worlds, and the processes of the literature.

``T[x][i][j]`` is the probability of emitting token ``x`` and moving from state ``i`` to state ``j``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld as HiddenMarkovWorld

_RRXOR = ("start", "first 0", "first 1", "XOR 1", "XOR 0")


def rrxor(p1: float = 0.5, p2: float = 0.5) -> HiddenMarkovWorld:
    """Random, random, XOR: two random bits, then their exclusive or, repeated.

    In state "start" a bit is drawn, 0 with probability ``p1``, and state "first 0" or "first 1" follows. There a second
    bit is drawn, 0 with probability ``p2``. Their XOR is then the state, "XOR 0" or "XOR 1", and the next token. With
    fair bits there are exactly 36 reachable beliefs, and the position within the three tokens is inferred slowly.
    Shai et al. 2024, "Transformers represent belief state geometry in their residual stream", arXiv:2405.15943.

    Examples
    --------
    >>> len(rrxor().reachable_beliefs(max_depth=12))
    36
    """
    p1, p2 = checks.number("p1", p1), checks.number("p2", p2)
    transitions = np.zeros((2, 5, 5))
    start, zero, one, true, false = range(5)
    transitions[0, start, zero], transitions[1, start, one] = p1, 1 - p1
    transitions[0, zero, false], transitions[1, zero, true] = p2, 1 - p2
    transitions[0, one, true], transitions[1, one, false] = p2, 1 - p2
    transitions[1, true, start] = transitions[0, false, start] = 1
    spec = {"name": "rrxor", "p1": p1, "p2": p2}
    return HiddenMarkovWorld("rrxor", transitions, tuple("01"), _RRXOR, spec)


def mess3(x: float = 0.05, alpha: float = 0.85) -> HiddenMarkovWorld:
    """Three symmetric states, whose reachable beliefs form a fractal.

    The state moves to each other state with probability ``x``. The token is that of the new state with probability
    ``alpha``, that of each other state with (1 - alpha) / 2. Marzen & Crutchfield 2017; Shai et al. 2024,
    arXiv:2405.15943.

    Examples
    --------
    >>> print(f"{mess3(x=0.15, alpha=0.6).floor(8)[-1]:.4f} nats, near chance at {math.log(3):.4f}")
    1.0889 nats, near chance at 1.0986
    """
    x, alpha = checks.number("x", x, "(0, 0.5]"), checks.number("alpha", alpha)
    move = np.full((3, 3), x) + np.eye(3) * (1 - 3 * x)
    emit = np.full((3, 3), (1 - alpha) / 2) + np.eye(3) * (alpha - (1 - alpha) / 2)
    transitions = move[None, :, :] * emit[:, None, :]
    spec = {"name": "mess3", "x": x, "alpha": alpha}
    return HiddenMarkovWorld("mess3", transitions, tuple("abc"), tuple("ABC"), spec)


def z1r(p: float = 0.5) -> HiddenMarkovWorld:
    """Zero, one, random: 0, then 1, then a random bit that is 0 with probability ``p``, repeated.

    The fair process has 7 reachable beliefs.

    Examples
    --------
    >>> z1r().stationary.round(3).tolist()
    [0.333, 0.333, 0.333]
    """
    p = checks.number("p", p)
    transitions = np.array([[[0, 1, 0], [0, 0, 0], [p, 0, 0]], [[0, 0, 0], [0, 0, 1], [1 - p, 0, 0]]])
    return HiddenMarkovWorld("z1r", transitions, tuple("01"), tuple("01R"), {"name": "z1r", "p": p})


def even(p: float = 0.5) -> HiddenMarkovWorld:
    """Runs of ones have even length: in state even, a pair of ones starts with probability ``p``, else a 0 is emitted.

    The memory is infinite: no finite window of ones determines which half of a pair comes next.
    Weiss 1973; Crutchfield & Feldman 2003, arXiv:cond-mat/0102181.

    Examples
    --------
    >>> even().belief(np.array([[0, 1, 1]])).tolist()
    [[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]]
    """
    p = checks.number("p", p)
    transitions = np.array([[[1 - p, 0], [0, 0]], [[0, p], [1, 0]]])
    return HiddenMarkovWorld("even", transitions, tuple("01"), ("even", "odd"), {"name": "even", "p": p})


def golden_mean(p: float = 0.5) -> HiddenMarkovWorld:
    """No two ones in a row: a 1 is emitted with probability ``p``, and a 0 must follow it.

    The number of its words grows with the golden mean. Crutchfield & Feldman 2003, arXiv:cond-mat/0102181.

    Examples
    --------
    >>> golden_mean().legal_next(np.array([[0, 1]])).tolist()
    [[[True, True], [True, False]]]
    """
    p = checks.number("p", p)
    transitions = np.array([[[1 - p, 0], [1, 0]], [[0, p], [0, 0]]])
    return HiddenMarkovWorld("golden_mean", transitions, tuple("01"), tuple("AB"), {"name": "golden_mean", "p": p})


def sns(p: float = 0.5, q: float = 0.5) -> HiddenMarkovWorld:
    """Simple nonunifilar source: two states, yet infinitely many beliefs, one for each number of zeros since a 1.

    State A emits 0 and moves to B with probability ``p``; B emits 1 and moves back with probability ``q``, else 0.
    Marzen & Crutchfield 2015, "Informational and causal architecture of discrete-time renewal processes".

    Examples
    --------
    >>> len(sns(p=0.3).reachable_beliefs(max_depth=6)), sns(p=0.3).reachable_beliefs(max_depth=6).closed
    (13, False)
    """
    p, q = checks.number("p", p), checks.number("q", q)
    transitions = np.array([[[1 - p, p], [0, 1 - q]], [[0, 0], [q, 0]]])
    return HiddenMarkovWorld("sns", transitions, tuple("01"), tuple("AB"), {"name": "sns", "p": p, "q": q})


def bloch_walk(alpha: float = 1.0, beta: float = math.sqrt(51)) -> HiddenMarkovWorld:
    """A walk of a qubit's state in a slice of the Bloch ball; no finite hidden Markov model generates it.

    A generalised world. A belief is (1, x, z), the Bloch vector in a disc. Each of four tokens moves it along +z, -z,
    +x or -x; the larger ``beta`` is relative to ``alpha``, the smaller the moves. Riechers, Elliott & Shai 2025;
    matrices as in the public `simplexity` code.

    Examples
    --------
    >>> walk = bloch_walk()
    >>> walk.stationary.round(6).tolist(), walk.generalised
    ([1.0, 0.0, 0.0], True)
    """
    alpha, beta = checks.number("alpha", alpha, "(-inf, inf)"), checks.number("beta", beta, "(-inf, inf)")
    if alpha == beta == 0:
        raise ValueError("alpha and beta must not both be 0: the walk depends on their ratio")
    scale = 1 / (4 * (alpha**2 + beta**2))
    mean, offset, quarter = (alpha**2 - beta**2) * scale, 2 * alpha * beta * scale, 0.25
    transitions = []
    for sign in (1, -1):
        nudge = sign * offset
        transitions.append([[quarter, 0, nudge], [0, mean, 0], [nudge, 0, quarter]])
    for sign in (1, -1):
        nudge = sign * offset
        transitions.append([[quarter, nudge, 0], [nudge, quarter, 0], [0, 0, mean]])
    spec = {"name": "bloch_walk", "alpha": alpha, "beta": beta}
    return HiddenMarkovWorld("bloch_walk", transitions, tuple("0123"), ("trace", "x", "z"), spec, generalised=True)


def hmm(
    transitions: ArrayLike,
    title: str = "hmm",
    token_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
    generalised: bool = False,
) -> HiddenMarkovWorld:
    """Build a hidden Markov world from its matrices.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> coin = HiddenMarkovWorld("coin", [[[0.5]], [[0.5]]], ["heads", "tails"])
    >>> worlds.from_spec(coin.spec).vocabulary
    ('heads', 'tails')
    """
    return HiddenMarkovWorld(title, transitions, token_names, state_names, generalised=generalised)
