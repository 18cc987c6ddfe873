"""Continuations of a prefix: those the world allows, and those a model accepts as likely enough."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.decoding import Predictor, Reader
from nextlat_viz.decoding.generation import choose
from nextlat_viz.worlds import World
from nextlat_viz.worlds.taxi.world import Taxi

_CELLS_AT_ONCE = 1 << 24  # of an array rows x positions x vocabulary


def possible_next(world: World, tokens: Int[np.ndarray, "n t"]) -> Bool[np.ndarray, "n v"]:
    """Mark the tokens that may follow each sequence so that it can still become a true episode.

    These are the legal tokens; in the taxi world only the turns from which the destination can still be reached in the
    moves left.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> possible_next(worlds.get("golden_mean"), np.array([[0, 1], [1, 0]])).tolist()
    [[True, False], [True, True]]
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
    """Tell whether each suffix (-1 after its end) may follow its prefix, in the sense of ``possible_next``.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> possible(worlds.get("golden_mean"), np.array([[0], [0]]), np.array([[1, 0], [1, 1]])).tolist()
    [True, False]
    """
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

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> world, prefixes = worlds.get("golden_mean"), np.zeros((3, 1), np.int64)
    >>> rng = np.random.default_rng(0)
    >>> suffixes = sample_suffixes(WorldPredictor(world), prefixes, 4, eps=0.01, end=None, rng=rng)
    >>> suffixes.shape, bool(possible(world, prefixes, suffixes).all())
    ((3, 4), True)
    """
    suffixes = np.full((len(prefixes), most), -1, np.int64)
    reader, going = _start(predictor, prefixes), np.arange(len(prefixes))
    for step in range(most):
        likely = np.where(reader.probs > eps, reader.probs, 0.0)
        on = np.asarray(likely.any(axis=1))
        going, chosen = going[on], choose(likely[on], 1.0, rng)
        suffixes[going, step] = chosen
        if end is not None:
            on[on] = chosen != end
            going, chosen = going[chosen != end], chosen[chosen != end]
        if not going.size or step + 1 == most:
            break
        if not on.all():
            reader.keep(on)
        reader.read(chosen)
    return suffixes


def first_rejected(
    predictor: Predictor, prefixes: Int[np.ndarray, "n k"], suffixes: Int[np.ndarray, "n s"], eps: float
) -> Int[np.ndarray, " n"]:
    """Return where each suffix has its first token of probability at most `eps`; -1 where it has none and is accepted.

    Suffixes are -1 after their end. Nothing after a rejected token is read: the world as a model has no probabilities
    there.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> model = WorldPredictor(worlds.get("golden_mean"))
    >>> first_rejected(model, np.array([[0], [0]]), np.array([[1, 1, 0], [1, 0, -1]]), 0.01).tolist()
    [1, -1]
    """
    rejected, going = np.full(len(prefixes), -1, np.int64), np.arange(len(prefixes))
    if not len(prefixes):
        return rejected
    reader = _start(predictor, prefixes)
    for step, token in enumerate(suffixes.T):
        there = token[going] >= 0
        accepted = there & (reader.probs[np.arange(len(going)), np.maximum(token[going], 0)] > eps)
        rejected[going[there & ~accepted]] = step
        # The last token of a suffix is not read: the context of the model may be full.
        on = accepted & (suffixes[going, step + 1] >= 0) if step + 1 < suffixes.shape[1] else np.zeros_like(accepted)
        if not on.any():
            break
        if not on.all():
            reader.keep(on)
            going = going[on]
        reader.read(token[going])
    return rejected


def _start(predictor: Predictor, prefixes: Int[np.ndarray, "n k"]) -> Reader:
    """Start reading prefixes; equal prefixes are read once."""
    different, which = np.unique(prefixes, axis=0, return_inverse=True)
    reader = predictor.reader(different)
    reader.keep(which.reshape(-1))
    return reader
