"""Prefixes of true episodes: pairs that end in one state or in two, and continuations that world or model accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.analysis._rows import number_rows, prefix_ids
from nextlat_viz.analysis.measure import several
from nextlat_viz.decoding import Predictor
from nextlat_viz.decoding.generation import choose
from nextlat_viz.errors import at_least, one_of
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.taxi.world import Taxi

Choose = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Chooses the next tokens, given the rows of the sequences, their tokens so far and the model's probabilities."""

_CELLS_AT_ONCE = 1 << 24  # of an array rows x positions x vocabulary
# Enough for pairs of many lengths in most worlds; if not, more are drawn.
_FEWEST_EPISODES, _MOST_EPISODES = 1 << 12, 1 << 14


@dataclass(frozen=True, eq=False)
class PrefixPairs:
    """Pairs of different prefixes of equal length.

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
    """Number the states after each token of legal sequences: equal numbers mean equal states.

    A state is what fixes the future. ``world.future`` gives it: in the taxi world node, destination and moves left; in
    a hidden Markov world the exact belief. For worlds without it, `state` names the states of ``world.replay`` that
    together fix the future.
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
        drawn = world.sample(episodes, length, seed=seed, split=world.held_out_split, states=False)
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
    drawn = world.sample(max(256, 4 * at_least("n", n)), length, seed=seed, split=world.held_out_split, states=False)
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


def possible_next(world: World, tokens: Int[np.ndarray, "n t"]) -> Bool[np.ndarray, "n v"]:
    """Mark the tokens that may follow each sequence so that it can still become a true episode.

    These are the legal tokens; in the taxi world only the turns from which the destination can still be reached in the
    moves left.
    """
    n, t = tokens.shape
    allowed = np.empty((n, len(world.vocabulary)), bool)
    at_once = max(1, _CELLS_AT_ONCE // (t * len(world.vocabulary)))
    for first in range(0, n, at_once):
        part = tokens[first : first + at_once]
        allowed[first : first + at_once] = world.legal_next(part)[:, -1]
        if isinstance(world, Taxi):
            nodes = len(world.streets.nodes)
            turns = world.legal_turns(part, in_time=True)[:, -1]
            allowed[first : first + at_once, nodes : nodes + turns.shape[1]] = turns
    return allowed


def possible(
    world: World, prefixes: Int[np.ndarray, "n k"], suffixes: Int[np.ndarray, "n s"]
) -> Bool[np.ndarray, " n"]:
    """Tell whether each suffix (-1 after its end) may follow its prefix, in the sense of ``possible_next``."""
    tokens, allowed = prefixes, np.ones(len(prefixes), bool)
    for suffix in suffixes.T:
        rows = np.flatnonzero(allowed & (suffix >= 0))
        if not len(rows):
            break
        allowed[rows] = possible_next(world, tokens[rows])[np.arange(len(rows)), suffix[rows]]
        tokens = np.concatenate([tokens, np.maximum(suffix, 0)[:, None]], axis=1)
    return allowed


def sample_suffixes(
    predictor: Predictor,
    prefixes: Int[np.ndarray, "n k"],
    most: int,
    *,
    eps: float,
    end: int | None,
    rng: np.random.Generator,
) -> Int[np.ndarray, "n most"]:
    """Sample one continuation of each prefix, without tokens of probability at most `eps`; -1 after its end.

    It ends with `end`, after `most` tokens, or where no token is likelier than `eps`. So the model accepts it whole, in
    the sense of ``first_rejected``. A prefix that occurs several times is read once.
    """

    def likely_token(rows: np.ndarray, so_far: np.ndarray, probs: np.ndarray) -> np.ndarray:
        likely = np.where(probs > eps, probs, 0.0)
        some = likely.any(axis=1)
        chosen = np.full(len(rows), -1, np.int64)
        chosen[some] = choose(likely[some], 1.0, rng)
        return chosen

    return walk(predictor, prefixes, most, likely_token, end)[:, prefixes.shape[1] :]


def first_rejected(
    predictor: Predictor, prefixes: Int[np.ndarray, "n k"], suffixes: Int[np.ndarray, "n s"], eps: float
) -> Int[np.ndarray, " n"]:
    """Return where each suffix has its first token of probability at most `eps`; -1 where it has none and is accepted.

    Suffixes are -1 after their end. Nothing after a rejected token is read: the world as a model has no probabilities
    there.
    """
    rejected, k = np.full(len(prefixes), -1, np.int64), prefixes.shape[1]

    def next_of_suffix(rows: np.ndarray, so_far: np.ndarray, probs: np.ndarray) -> np.ndarray:
        step = so_far.shape[1] - k
        token = suffixes[rows, step]
        accepted = (token >= 0) & (probs[np.arange(len(rows)), np.maximum(token, 0)] > eps)
        rejected[rows[(token >= 0) & ~accepted]] = step
        # The last token of a suffix is not read: the context of the model may be full.
        more = suffixes[rows, step + 1] >= 0 if step + 1 < suffixes.shape[1] else False
        return np.where(accepted & more, token, -1)

    walk(predictor, prefixes, suffixes.shape[1], next_of_suffix)
    return rejected


def walk(
    predictor: Predictor, prefixes: Int[np.ndarray, "n k"], most: int, choose: Choose, end: int | None = None
) -> Int[np.ndarray, "n t"]:
    """Continue prefixes by `choose` for up to `most` tokens; each ends after `end`, or where -1 is chosen.

    Returns prefixes and continuations (n, k + most), -1 after their ends. Equal prefixes are read once.
    """
    n, k = prefixes.shape
    tokens = np.full((n, k + most), -1, np.int64)
    tokens[:, :k] = prefixes
    different, which = np.unique(prefixes, axis=0, return_inverse=True)
    if not n or not most:
        return tokens
    reader, rows = predictor.reader(different), np.arange(n)
    reader.keep(which.reshape(-1))
    for t in range(k, k + most):
        chosen = choose(rows, tokens[rows, :t], reader.probs)
        tokens[rows, t] = chosen
        unfinished = (chosen >= 0) & (chosen != (-1 if end is None else end))
        rows, chosen = rows[unfinished], chosen[unfinished]
        if not rows.size or t + 1 == k + most:
            break
        if not unfinished.all():
            reader.keep(unfinished)
        reader.read(chosen)
    return tokens
