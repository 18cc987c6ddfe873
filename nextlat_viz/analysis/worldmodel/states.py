"""Prefixes of true episodes that have come to the same state, or to different ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.analysis.worldmodel._episodes import held_out_split, positive
from nextlat_viz.errors import unknown
from nextlat_viz.worlds import Episodes, HiddenMarkovWorld, World

# The states of `replay` that together fix what can follow, and how likely it is.
_FIX_THE_FUTURE = {"taxi": ("node", "destination", "moves_left"), "othello": ("board", "turn")}
_DECIMALS = 6  # of a belief: two ways to compute one agree to many more
# Enough that pairs of many lengths are among them; where there are not, more are drawn.
_FEWEST_EPISODES, _MOST_EPISODES = 1 << 12, 1 << 14


@dataclass(frozen=True, eq=False)
class PrefixPairs:
    """Pairs of prefixes, the two of a pair different and of equal length.

    Attributes
    ----------
    first, second : (n, t) int arrays
        True episodes.
    length : (n,) int array
        Tokens of the two that are the prefix.
    """

    first: Int[np.ndarray, "n t"]
    second: Int[np.ndarray, "n t"]
    length: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.length)

    def by_length(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield, for each length there is, which pairs have it and their first and second prefixes."""
        for length in np.unique(self.length).tolist():
            rows = np.flatnonzero(self.length == length)
            yield rows, self.first[rows, :length], self.second[rows, :length]


def state_of(
    world: World, tokens: Int[np.ndarray, "n t"], state: Sequence[str] | None = None
) -> Int[np.ndarray, "n t"]:
    """Number the states after each token: two have one number exactly when the same can follow.

    A state is whatever fixes the future: in the taxi world node, destination and the moves left, which decide what is
    still in time; in a hidden Markov world the exact belief, to six decimals; in Othello the board and the side to
    move.

    Parameters
    ----------
    world : World
    tokens : (n, t) int array
        Legal sequences.
    state : sequence of str, optional
        Names of what ``world.replay`` returns that together fix the future, for other worlds.

    Raises
    ------
    ValueError
        If it is not known what fixes the future of this world.
    UnknownNameError
        If the world has no such state.

    Examples
    --------
    Of the golden mean only the last token counts:

    >>> from nextlat_viz import worlds
    >>> ids = state_of(worlds.get("golden_mean"), np.array([[0, 0, 1], [1, 0, 1]]))
    >>> bool(ids[0, 1] == ids[1, 1]), bool(ids[0, 1] == ids[0, 2])
    (True, False)
    """
    if state is None:
        if isinstance(world, HiddenMarkovWorld):
            state = ("belief",)
        elif world.name in _FIX_THE_FUTURE:
            state = _FIX_THE_FUTURE[world.name]
        else:
            raise ValueError(
                f"it is not known which states fix the future of world {world.name!r}: name them, state=[...], among "
                f"those of its replay, such as {', '.join(list(world.replay(tokens[:1]))[:6]) or 'none'}"
            )
    known = world.replay(tokens)
    for name in state:
        if name not in known:
            raise unknown(f"state of world {world.name!r}:", name, known)
    # Each state is numbered by itself, then their numbers together: numbers compare faster than rows of them.
    ids = np.zeros(tokens.size, np.int64)
    for name in state:
        values = np.asarray(known[name]).reshape(tokens.size, -1)
        if values.dtype.kind == "f":
            values = np.round(values, _DECIMALS) + 0.0
        _, own = np.unique(values, axis=0, return_inverse=True)
        own = own.reshape(-1)
        _, ids = np.unique(ids * (int(own.max(initial=0)) + 1) + own, return_inverse=True)
    return ids.reshape(tokens.shape)


def same_state_pairs(
    world: World, n: int, *, length: int, seed: int = 0, state: Sequence[str] | None = None
) -> PrefixPairs:
    """Find pairs of different prefixes of equal length that end in one state.

    They are prefixes of true episodes, of the held-out split where there is one, behind the prompt, with a choice left
    to make: at least two more tokens come. No prefix is in two pairs. Lengths are taken in turn, and of one length the
    states, so that neither the last moves, where episodes meet most often, nor busy states crowd out the rest.

    Parameters
    ----------
    world : World
    n : int
    length : int
        Tokens of an episode, in worlds without a length of their own.
    seed : int
    state : sequence of str, optional
        As for ``state_of``.

    Raises
    ------
    ValueError
        If there are fewer pairs among 16,384 episodes.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> pairs = same_state_pairs(worlds.get("taxi", width=3, height=3), 5, length=12)
    >>> len(pairs), bool((pairs.first[:, 1] == pairs.second[:, 1]).all())  # one destination
    (5, True)
    """
    positive("n", n)
    found, episodes = 0, max(_FEWEST_EPISODES, 2 * n)
    while episodes <= max(_MOST_EPISODES, 2 * n):
        drawn = world.sample(episodes, length, seed=seed, split=held_out_split(world), states=False)
        pairs = _pair_up(world, drawn, n, np.random.default_rng(seed), state)
        found = len(pairs)
        if found == n:
            return pairs
        episodes *= 4
    raise ValueError(
        f"n={n} pairs of different prefixes that end in one state are more than the {found} found among "
        f"{episodes // 4} episodes of world {world.name!r}: ask for fewer, or for longer episodes"
    )


def _pair_up(
    world: World, drawn: Episodes, n: int, rng: np.random.Generator, state: Sequence[str] | None
) -> PrefixPairs:
    tokens = drawn.tokens
    episode, at = np.nonzero(eligible(drawn))
    _, once = np.unique(_prefix_ids(tokens)[episode, at], return_index=True)
    once = rng.permutation(once)
    episode, at = episode[once], at[once]
    cell = at * tokens.size + state_of(world, tokens, state)[episode, at]
    order = np.argsort(cell, kind="stable")
    rank = _rank(cell[order])
    first = np.flatnonzero((rank[:-1] % 2 == 0) & (rank[1:] == rank[:-1] + 1))
    # Of one length, states in turn; then lengths in turn.
    first = first[np.lexsort((rng.random(len(first)), rank[first], at[order[first]]))]
    first = first[np.argsort(_rank(at[order[first]]), kind="stable")][:n]
    one, other = order[first], order[first + 1]
    return PrefixPairs(tokens[episode[one]], tokens[episode[other]], at[one] + 1)


def _rank(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many equal values come before each, in sorted values."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def different_state_pairs(
    world: World, n: int, *, length: int, room: int, seed: int = 0, state: Sequence[str] | None = None
) -> PrefixPairs:
    """Draw pairs of prefixes of equal length that end in different states, from the same prefixes as above.

    Parameters
    ----------
    world : World
    n : int
    length : int
        Tokens of an episode, in worlds without a length of their own.
    room : int
        Tokens that must fit behind a prefix.
    seed : int
    state : sequence of str, optional
        As for ``state_of``.

    Raises
    ------
    ValueError
        If there are fewer pairs among so many episodes.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> pairs = different_state_pairs(worlds.get("rrxor"), 5, length=12, room=5)
    >>> len(pairs), bool((pairs.length <= 7).all())
    (5, True)
    """
    drawn = world.sample(max(256, 4 * positive("n", n)), length, seed=seed, split=held_out_split(world), states=False)
    rng = np.random.default_rng(seed)
    tokens = drawn.tokens
    open_to = eligible(drawn)
    open_to[:, max(tokens.shape[1] - room, 0) :] = False
    episode, at = rng.permutation(np.argwhere(open_to)).T
    order = np.argsort(at, kind="stable")
    one, other = order[: len(order) // 2 * 2].reshape(-1, 2).T
    ids = state_of(world, tokens, state)[episode, at]
    differ = np.flatnonzero((at[one] == at[other]) & (ids[one] != ids[other]))
    if len(differ) < n:
        raise ValueError(
            f"n={n} pairs of prefixes in different states are more than the {len(differ)} found among {len(drawn)} "
            f"episodes of world {world.name!r} with room for {room} more tokens: ask for fewer, or make episodes longer"
        )
    chosen = rng.permutation(differ)[:n]
    one, other = one[chosen], other[chosen]
    return PrefixPairs(tokens[episode[one]], tokens[episode[other]], at[one] + 1)


def eligible(drawn: Episodes) -> Bool[np.ndarray, "n t"]:
    """After which tokens something is left to choose: the next is to be predicted, and not the last."""
    t = drawn.tokens.shape[1]
    after = np.zeros(drawn.tokens.shape, bool)
    after[:, :-1] = drawn.loss_mask[:, 1:]
    return after & (np.arange(t) < drawn.length[:, None] - 2)


def _prefix_ids(tokens: Int[np.ndarray, "n t"]) -> Int[np.ndarray, "n t"]:
    """Number the prefixes: two have one number exactly when they are the same."""
    ids, number, seen = np.empty_like(tokens), np.zeros(len(tokens), np.int64), 0
    for t in range(tokens.shape[1]):
        _, number = np.unique(number * (int(tokens.max()) + 1) + tokens[:, t], return_inverse=True)
        ids[:, t] = number + seen
        seen += int(number.max()) + 1
    return ids
