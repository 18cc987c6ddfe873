"""Pairs of prefixes of true episodes that end in one state, or in different states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.analysis._rows import number_rows, prefix_ids
from nextlat_viz.analysis.episodes import held_out_split
from nextlat_viz.analysis.measure import several
from nextlat_viz.errors import at_least, one_of
from nextlat_viz.worlds import Episodes, World

# Enough for pairs of many lengths in most worlds; more are drawn where they are not.
_FEWEST_EPISODES, _MOST_EPISODES = 1 << 12, 1 << 14


@dataclass(frozen=True, eq=False)
class PrefixPairs:
    """Pairs of prefixes, the two of a pair different and of equal length.

    Attributes
    ----------
    first, second : (n, t) int arrays
        True episodes.
    length : (n,) int array
        Tokens of the prefixes.
    """

    first: Int[np.ndarray, "n t"]
    second: Int[np.ndarray, "n t"]
    length: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.length)

    def by_length(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield, for each length, the rows of its pairs, their first prefixes and their second prefixes."""
        for length in np.unique(self.length).tolist():
            rows = np.flatnonzero(self.length == length)
            yield rows, self.first[rows, :length], self.second[rows, :length]


def state_of(
    world: World, tokens: Int[np.ndarray, "n t"], state: str | Sequence[str] | None = None
) -> Int[np.ndarray, "n t"]:
    """Number the states after each token of legal sequences: equal numbers mean that the same can follow.

    A state is what fixes the future, as ``world.future`` knows it: in the taxi world node, destination and the moves
    left; in a hidden Markov world the exact belief. For worlds that do not know it, `state` names the states of
    ``world.replay`` that together fix the future.
    """
    if state is None:
        future = world.future(tokens)
        if future is None:
            raise ValueError(
                f"it is not known which states fix the future of world {world.name!r}: name them, state=[...], among "
                f"those of its replay, such as {', '.join(list(world.replay(tokens[:1]))[:6]) or 'none'}"
            )
        return number_rows([future.reshape(tokens.size, -1)]).reshape(tokens.shape)
    known, state = world.replay(tokens), several(state)
    for name in state:
        one_of(f"state of world {world.name!r}:", name, known)
    return number_rows(np.asarray(known[name]).reshape(tokens.size, -1) for name in state).reshape(tokens.shape)


def pairs_in_one_state(
    world: World, n: int, *, length: int, seed: int = 0, state: str | Sequence[str] | None = None
) -> PrefixPairs:
    """Find `n` pairs of different prefixes of equal length that end in one state, or raise a ValueError.

    The prefixes are those of true episodes, of the held-out split where there is one. They are longer than the prompt,
    and at least two more tokens follow. No prefix is in two pairs. Pairs are taken from each length in turn, and within
    a length from each state in turn: otherwise most pairs would come from the last moves, where episodes meet most
    often, and from the most frequent states. `length` is needed in worlds without a fixed length.
    """
    episodes = max(_FEWEST_EPISODES, 2 * at_least("n", n))
    while episodes <= max(_MOST_EPISODES, 2 * n):
        drawn = world.sample(episodes, length, seed=seed, split=held_out_split(world), states=False)
        pairs = _pair_up(world, drawn, n, np.random.default_rng(seed), state)
        if len(pairs) == n:
            return pairs
        episodes *= 4
    raise ValueError(
        f"n={n} pairs of different prefixes that end in one state are more than the {len(pairs)} found among "
        f"{episodes // 4} episodes of world {world.name!r}: ask for fewer, or for longer episodes"
    )


def _pair_up(
    world: World, drawn: Episodes, n: int, rng: np.random.Generator, state: Sequence[str] | None
) -> PrefixPairs:
    tokens = drawn.tokens
    episode, at = np.nonzero(eligible(drawn))
    _, once = np.unique(prefix_ids(tokens)[episode, at], return_index=True)
    once = rng.permutation(once)
    episode, at = episode[once], at[once]
    cell = at * tokens.size + state_of(world, tokens, state)[episode, at]
    order = np.argsort(cell, kind="stable")
    rank = rank_in_group(cell[order])
    first = np.flatnonzero((rank[:-1] % 2 == 0) & (rank[1:] == rank[:-1] + 1))
    # Take states in turn within a length, then lengths in turn.
    first = first[np.lexsort((rng.random(len(first)), rank[first], at[order[first]]))]
    first = first[np.argsort(rank_in_group(at[order[first]]), kind="stable")][:n]
    return _pairs_of(drawn, episode, at, order[first], order[first + 1])


def rank_in_group(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Number the members of each group of equal values, in sorted values, from 0."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def different_state_pairs(
    world: World, n: int, *, length: int, room: int, seed: int = 0, state: str | Sequence[str] | None = None
) -> PrefixPairs:
    """Draw `n` pairs of prefixes of equal length that end in different states, or raise a ValueError.

    At least `room` tokens follow each prefix.
    """
    drawn = world.sample(max(256, 4 * at_least("n", n)), length, seed=seed, split=held_out_split(world), states=False)
    rng = np.random.default_rng(seed)
    usable = eligible(drawn)
    usable[:, max(drawn.tokens.shape[1] - room, 0) :] = False
    episode, at = rng.permutation(np.argwhere(usable)).T
    order = np.argsort(at, kind="stable")
    first, second = order[: len(order) // 2 * 2].reshape(-1, 2).T
    ids = state_of(world, drawn.tokens, state)[episode, at]
    differ = np.flatnonzero((at[first] == at[second]) & (ids[first] != ids[second]))
    if len(differ) < n:
        raise ValueError(
            f"n={n} pairs of prefixes in different states are more than the {len(differ)} found among {len(drawn)} "
            f"episodes of world {world.name!r} with room for {room} more tokens: ask for fewer, or make episodes longer"
        )
    chosen = rng.permutation(differ)[:n]
    return _pairs_of(drawn, episode, at, first[chosen], second[chosen])


def _pairs_of(drawn: Episodes, episode: np.ndarray, at: np.ndarray, a: np.ndarray, b: np.ndarray) -> PrefixPairs:
    return PrefixPairs(drawn.tokens[episode[a]], drawn.tokens[episode[b]], at[a] + 1)


def eligible(drawn: Episodes) -> Bool[np.ndarray, "n t"]:
    """Mark the tokens after which the model has a choice: the next token is predicted and is not the last."""
    t = drawn.tokens.shape[1]
    after = np.zeros(drawn.tokens.shape, bool)
    after[:, :-1] = drawn.loss_mask[:, 1:]
    return after & (np.arange(t) < drawn.length[:, None] - 2)
