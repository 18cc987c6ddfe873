"""Continuations of a prefix: those the world allows, and those a model accepts as likely enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.decoding import Predictor
from nextlat_viz.decoding.generation import choose
from nextlat_viz.worlds import World
from nextlat_viz.worlds.taxi.world import Taxi

Choose = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Chooses the next tokens, given the rows of the sequences, their tokens so far and the model's probabilities."""

_CELLS_AT_ONCE = 1 << 24  # of an array rows x positions x vocabulary


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
