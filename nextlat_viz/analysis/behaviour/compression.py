"""Compression and distinction: whether a model continues histories of one state alike, and tells two states apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from nextlat_viz.analysis.behaviour.prefixes import (
    PrefixPairs,
    different_state_pairs,
    first_rejected,
    pairs_in_one_state,
    possible,
    possible_next,
    rank_in_group,
    sample_suffixes,
)
from nextlat_viz.analysis.episodes import (
    end_token,
    require_next_token,
    require_probability,
    whole_length,
    within_context,
)
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure, share
from nextlat_viz.decoding import Predictor, generate
from nextlat_viz.errors import at_least
from nextlat_viz.worlds import World
from nextlat_viz.worlds.taxi.world import Taxi

PARTS = ("precision", "recall")
Boundary = tuple[Int[np.ndarray, " sequences"], Int[np.ndarray, "sequences s"]]
"""The pair that each sequence belongs to, and the sequences, -1 after their end."""


@measure(
    "sequence compression (Vafa)",
    better="higher",
    references={"true world": 1.0},
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def compression_vafa(
    models: Models,
    *,
    n: int = 100,
    suffixes: int = 30,
    eps: float = 0.01,
    length: int | None = None,
    state: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Rows:
    """Share of same-state prefix pairs whose second prefix accepts everything sampled after the first.

    The sequence compression of Vafa et al. 2024, arXiv:2406.03689. For two different prefixes of equal length that end
    in one state, sample `suffixes` after the first, at temperature 1 without tokens of probability at most `eps`. The
    pair scores 1 if every suffix is accepted after the second prefix, which means that each token has a probability
    above `eps` there, and 0 otherwise. A suffix ends where no token is likelier than `eps`; the published code adds the
    likeliest token there, which no prefix accepts. ``compression_greedy`` is a different quantity.

    A model whose predictions ignore the history compresses everything: read it together with ``distinction``.

    Parameters
    ----------
    n : int
        Pairs, found by ``pairs_in_one_state``. The published code draws states uniformly and walks back from them; here
        the prefixes are those of true episodes, which any world has.
    suffixes : int
        For each pair.

    Returns
    -------
    Measure
        The share of pairs; column ``accepted``, the share of all suffixes that were accepted.

    Raises
    ------
    ValueError
        If too few pairs exist, the states that fix the future are unknown, or `eps` is not between 0 and 1.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> measured = compression_vafa(worlds.get("rrxor"), n=10, length=8, progress=False)
    >>> measured.table["value"].tolist()
    [1.0]
    """
    at_least("suffixes", suffixes)
    require_probability(eps)
    pairs, most, end = _pairs(models, n, length, state, seed)
    for model in models:
        accepted, rng = np.zeros((len(pairs), suffixes), bool), np.random.default_rng(seed)
        for rows, first, second in pairs.by_length():
            first, second = np.repeat(first, suffixes, axis=0), np.repeat(second, suffixes, axis=0)
            sampled = sample_suffixes(model, first, most - first.shape[1], eps=eps, end=end, rng=rng)
            accepted[rows] = (first_rejected(model, second, sampled, eps) < 0).reshape(len(rows), suffixes)
        yield model, share(int(accepted.all(axis=1).sum()), len(pairs)) | {"accepted": float(accepted.mean())}
    return {
        "note": f"Pairs of different prefixes in one state where all {suffixes} suffixes sampled after the first are "
        f"accepted (every token above {eps:g}) after the second. Vafa et al. 2024."
    }


@measure(
    "sequence compression (greedy)",
    better="higher",
    references={"true world": 1.0},
    note="Pairs of different prefixes in one state whose greedy continuations are identical. Teoh et al. 2025; not "
    "the compression of Vafa et al. 2024.",
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def compression_greedy(
    models: Models, *, n: int = 200, length: int | None = None, state: str | Sequence[str] | None = None, seed: int = 0
) -> Rows:
    """Share of same-state prefix pairs that a model continues greedily by the same tokens.

    The sequence compression reported for NextLat (Teoh et al. 2025, arXiv:2511.05963), which differs from that of Vafa
    et al.: a model that knows both prefixes to be in one state, and what is legal there, may still prefer different
    tokens. If the world's law has ties, as for rides whose turns are drawn uniformly, the smallest error of a model
    decides between them, and one tie decided differently separates two continuations.

    Parameters
    ----------
    n : int
        Pairs, found by ``pairs_in_one_state``.

    Returns
    -------
    Measure
        The share of pairs; column ``in_common``, the mean share of the longer continuation, from its start, that both
        have in common.

    Raises
    ------
    ValueError
        As ``compression_vafa``.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> measured = compression_greedy(worlds.get("rrxor"), n=10, length=8, progress=False)
    >>> measured.table["value"].tolist()
    [1.0]
    """
    pairs, most, end = _pairs(models, n, length, state, seed)
    for model in models:
        common = np.zeros(len(pairs))
        for rows, first, second in pairs.by_length():
            generated = generate(
                model, np.concatenate([first, second]), most - first.shape[1], stop=() if end is None else end
            )
            after_first, after_second = np.split(generated.continuation, 2)
            agree = np.logical_and.accumulate(after_first == after_second, axis=1) & (after_first >= 0)
            common[rows] = agree.sum(axis=1) / ((after_first >= 0) | (after_second >= 0)).sum(axis=1)
        yield model, share(int((common == 1).sum()), len(pairs)) | {"in_common": float(common.mean())}


def _pairs(
    models: Models, n: int, length: int | None, state: Sequence[str] | None, seed: int
) -> tuple[PrefixPairs, int, int | None]:
    """Find pairs in one state; return them, the most tokens that all models can predict, and the id of ``end``."""
    require_next_token(models.world, "compression")
    pairs = pairs_in_one_state(models.world, n, length=whole_length(models, length), seed=seed, state=state)
    most = within_context(models, pairs.first.shape[1])
    if (pairs.length >= most).any():
        raise ValueError(
            f"compression continues prefixes of up to {int(pairs.length.max())} tokens, and these models can predict "
            f"{most} tokens only: give a shorter length, or models of a longer context"
        )
    return pairs, most, end_token(models.world)


@measure(
    "distinction",
    by=("part",),
    better="higher",
    references={"true world": 1.0},
    note="Precision: of the continuations by which the model tells two states apart, the share that does tell them "
    "apart. Recall: of the continuations that do, the share by which the model tells them apart. A share of nothing is "
    "1, counted as empty. Vafa et al. 2024.",
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def distinction(
    models: Models,
    *,
    n: int = 100,
    suffixes: int = 5,
    depth: int = 5,
    largest: int = 200,
    eps: float = 0.01,
    length: int | None = None,
    state: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Rows:
    """Precision and recall of the continuations that tell two states apart: the Myhill-Nerode boundary.

    As defined by Vafa et al. 2024, arXiv:2406.03689, for prefixes s1 and s2 that end in different states q1 and q2.
    The boundary of the world holds the shortest sequences, of at most `depth` tokens, that can follow q1 and not q2.
    The boundary of the model holds the shortest beginnings of suffixes sampled after s1 that it rejects after s2.

    ``"precision"``
        share of the model's boundary that can follow q1 and cannot follow q2;
    ``"recall"``
        share of the world's boundary that the model accepts after s1 and rejects after s2.

    A sequence *can* follow if it is legal and, in a taxi world, leaves the destination within the moves left, which are
    part of the state. This is what the streets allow, not the law of the world's rides: where rides are shortest paths,
    even the true law scores below 1. A share of nothing is 1, and is counted.

    Parameters
    ----------
    n : int
        Pairs of prefixes of equal length, of true episodes.
    suffixes : int
        Sampled after each s1, as in ``compression_vafa``; 5 in the published code.
    depth : int
        Tokens in the longest sequence of the world's boundary.
    largest : int
        Most sequences of the world's boundary; this many are drawn from a larger one, and the pair is counted.

    Returns
    -------
    Measure
        By part: the mean over pairs and its standard error. Columns ``empty``, pairs with an empty denominator, and
        ``drawn``, pairs whose boundary was sampled.

    Raises
    ------
    ValueError
        If too few pairs exist, the states that fix the future are unknown, or `eps` is not between 0 and 1.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> distinction(world, n=10, progress=False).table[["part", "value"]].values.tolist()
    [['precision', 1.0], ['recall', 1.0]]
    """
    require_next_token(models.world, models.measure)
    for argument, value in (("suffixes", suffixes), ("depth", depth), ("largest", largest)):
        at_least(argument, value)
    require_probability(eps)
    whole = whole_length(models, length)
    total = within_context(models, whole)
    pairs = different_state_pairs(models.world, n, length=whole, room=depth + whole - total, seed=seed, state=state)
    rng, boundaries, drawn = np.random.default_rng(seed), [], 0
    for _, first, second in pairs.by_length():
        boundary, cut = _at_most(world_boundary(models.world, first, second, depth), largest, rng)
        boundaries.append(boundary)
        drawn += cut
    for model in models:
        rng, parts = np.random.default_rng(seed), []
        for (_, first, second), boundary in zip(pairs.by_length(), boundaries, strict=True):
            pair, sequences = model_boundary(model, first, second, suffixes, total, eps, rng)
            right = possible(models.world, first[pair], sequences) & ~possible(models.world, second[pair], sequences)
            precision = _share(pair, right, len(first))
            pair, sequences = boundary
            accepted = first_rejected(model, first[pair], sequences, eps) < 0
            rejected = first_rejected(model, second[pair], sequences, eps) >= 0
            parts.append(np.stack([precision, _share(pair, accepted & rejected, len(first))]))
        shares = np.concatenate(parts, axis=1)
        for part, values in zip(PARTS, shares, strict=True):
            scores = np.where(np.isnan(values), 1.0, values)
            counts = {"empty": int(np.isnan(values).sum()), "drawn": drawn if part == "recall" else 0}
            yield model, {"part": part, **clustered(scores, np.ones(len(scores))), **counts}


def world_boundary(world: World, first: Int[np.ndarray, "n k"], second: Int[np.ndarray, "n k"], depth: int) -> Boundary:
    """Return the shortest sequences, of at most `depth` tokens, that can follow each first prefix and not the second.

    The search is breadth first: a sequence that can follow both is extended by one token.
    """
    end = end_token(world)
    pairs, sequences = [np.empty(0, np.int64)], [np.empty((0, depth), np.int64)]
    pair, shared = np.arange(len(first)), np.empty((len(first), 0), np.int64)
    for step in range(depth):
        after_first = possible_next(world, np.concatenate([first[pair], shared], axis=1))
        after_second = possible_next(world, np.concatenate([second[pair], shared], axis=1))
        row, token = np.nonzero(after_first & ~after_second)
        told_apart = np.full((len(row), depth), -1, np.int64)
        told_apart[:, :step], told_apart[:, step] = shared[row], token
        pairs.append(pair[row])
        sequences.append(told_apart)
        row, token = np.nonzero(after_first & after_second)
        open_ended = token != (-1 if end is None else end)
        row, token = row[open_ended], token[open_ended]
        if not len(row):
            break
        pair, shared = pair[row], np.concatenate([shared[row], token[:, None]], axis=1)
    return np.concatenate(pairs), np.concatenate(sequences)


def model_boundary(
    predictor: Predictor,
    first: Int[np.ndarray, "n k"],
    second: Int[np.ndarray, "n k"],
    suffixes: int,
    total: int,
    eps: float,
    rng: np.random.Generator,
) -> Boundary:
    """Return the shortest beginnings of suffixes sampled after each first prefix that are rejected after the second.

    Each occurs once. Suffixes end at ``end``, or where the sequence has `total` tokens.
    """
    pair = np.repeat(np.arange(len(first)), suffixes)
    sampled = sample_suffixes(
        predictor, first[pair], total - first.shape[1], eps=eps, end=end_token(predictor.world), rng=rng
    )
    rejected = first_rejected(predictor, second[pair], sampled, eps)
    told_apart = np.where(np.arange(sampled.shape[1]) <= rejected[:, None], sampled, -1)
    each = np.unique(np.concatenate([pair[:, None], told_apart], axis=1)[rejected >= 0], axis=0)
    return each[:, 0], each[:, 1:]


def _share(pair: np.ndarray, hits: np.ndarray, n: int) -> np.ndarray:
    """Share of each pair's sequences that are hits; NaN where a pair has none."""
    of = np.bincount(pair, minlength=n)
    return np.where(of > 0, np.bincount(pair, weights=hits, minlength=n) / np.maximum(of, 1), np.nan)


def _at_most(
    boundary: tuple[np.ndarray, np.ndarray], largest: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Keep at most `largest` sequences of each pair; return them and the number of pairs that lost some."""
    pair, sequences = boundary
    order = rng.permutation(len(pair))
    order = order[np.argsort(pair[order], kind="stable")]
    kept = order[rank_in_group(pair[order]) < largest]
    return (pair[kept], sequences[kept]), int((np.bincount(pair) > largest).sum())
