"""Distinction: does a model tell two states apart, and only by what does tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from tqdm.auto import tqdm

from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.analysis.worldmodel._episodes import (
    end_token,
    episode_length,
    measured,
    positive,
    require_next_token,
    threshold,
    within_context,
)
from nextlat_viz.analysis.worldmodel.language import first_rejected, possible, possible_next, sample_suffixes
from nextlat_viz.analysis.worldmodel.states import different_state_pairs
from nextlat_viz.decoding import Predictor
from nextlat_viz.worlds import World

PARTS = ("precision", "recall")
Boundary = tuple[Int[np.ndarray, " sequences"], Int[np.ndarray, "sequences s"]]
"""Of which pair each sequence is, and the sequences, -1 behind their end."""


def distinction(
    models: Any,
    *,
    n: int = 100,
    suffixes: int = 5,
    depth: int = 5,
    largest: int = 200,
    eps: float = 0.01,
    length: int | None = None,
    state: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Precision and recall of what tells two states apart: the Myhill-Nerode boundary between them.

    As defined by Vafa et al. 2024, arXiv:2406.03689, for prefixes s1 and s2 that end in different states
    q1 and q2. The world's boundary holds the shortest sequences, of at most `depth` tokens, that can follow q1 and not
    q2; the model's, the shortest beginnings of suffixes sampled after s1 that it rejects after s2.

    ``"precision"``
        share of the model's boundary that can follow q1 and cannot follow q2;
    ``"recall"``
        share of the world's boundary that the model accepts after s1 and rejects after s2.

    What *can* follow is what is legal and, in a taxi world, leaves the destination within the moves left: the state of
    a ride includes them. It is what the streets allow, whatever law the rides of the world follow: of shortest rides
    not even the true law scores 1. A share of nothing is 1, and counted.

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one world
    n : int
        Pairs of prefixes of equal length, of true episodes.
    suffixes : int
        Sampled after each s1, as in ``compression_vafa``; 5 in the published code.
    depth : int
        Tokens in the longest sequence of the world's boundary.
    largest : int
        Of a larger boundary of the world that many sequences are drawn, and the pair is counted.
    eps : float
        A token is accepted if its probability is above this.
    length : int, optional
        Tokens of an episode in a world without a length of its own; by default as many as the models can be asked
        about.
    state : sequence of str, optional
        What fixes the future, in a world where ``state_of`` does not know.
    seed : int
        Of pairs, suffixes and draws.
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        By ``("part",)``: the mean over pairs, its standard error, and how many pairs had an ``empty`` denominator or a
        boundary ``drawn`` from.

    Raises
    ------
    ValueError
        If too few pairs are found, it is not known what fixes the future, or `eps` is no threshold.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> distinction(WorldPredictor(world), n=10, progress=False).table[["part", "value"]].values.tolist()
    [['precision', 1.0], ['recall', 1.0]]
    """
    predictors = measured(models)
    world = predictors[0].world
    require_next_token(world, "distinction")
    for argument, value in (("suffixes", suffixes), ("depth", depth), ("largest", largest)):
        positive(argument, value)
    threshold(eps)
    whole = episode_length(predictors, length)
    total = within_context(predictors, whole)
    pairs = different_state_pairs(world, n, length=whole, room=depth + whole - total, seed=seed, state=state)
    rng = np.random.default_rng(seed)
    worlds_own = []
    drawn = 0
    for _, first, second in pairs.by_length():
        boundary, some = _at_most(world_boundary(world, first, second, depth), largest, rng)
        worlds_own.append(boundary)
        drawn += some
    rows = []
    for predictor in tqdm(predictors, desc="distinction", unit="model", disable=not progress):
        rng = np.random.default_rng(seed)
        shares = np.concatenate(
            [
                np.stack(
                    [
                        _precision(predictor, first, second, suffixes, total, eps, rng),
                        _recall(predictor, first, second, boundary, eps),
                    ]
                )
                for (_, first, second), boundary in zip(pairs.by_length(), worlds_own, strict=True)
            ],
            axis=1,
        )
        for part, values in zip(PARTS, shares, strict=True):
            scores = np.where(np.isnan(values), 1.0, values)
            error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else float("nan")
            found = {"value": float(scores.mean()), "error": error, "trials": len(scores)}
            found |= {"empty": int(np.isnan(values).sum()), "drawn": drawn if part == "recall" else 0}
            who = record(world.name, predictor.objective, predictor.seed, predictor.name)
            rows.append(who | {"part": part} | found)
    return Measure(
        "distinction",
        pd.DataFrame(rows),
        by=("part",),
        better="higher",
        references={"true world": 1.0},
        note="Of what a model takes to tell two states apart, the share that does (precision); of what does, the share "
        "that it tells them apart by (recall). A share of nothing is 1, counted as empty. Vafa et al. 2024.",
    )


def world_boundary(world: World, first: Int[np.ndarray, "n k"], second: Int[np.ndarray, "n k"], depth: int) -> Boundary:
    """The shortest sequences, of at most `depth` tokens, that can follow each first prefix and not the second.

    Breadth first: whatever can follow both is taken one token further.

    Returns
    -------
    pair : (sequences,) int array
        Which row of the prefixes each sequence is of.
    sequences : (sequences, depth) int array
        -1 behind their end.

    Examples
    --------
    After a 1 of the golden mean no other 1 comes, after a 0 it may:

    >>> from nextlat_viz import worlds
    >>> pair, sequences = world_boundary(worlds.get("golden_mean"), np.array([[0]]), np.array([[1]]), 2)
    >>> pair.tolist(), sequences.tolist()
    ([0], [[1, -1]])
    """
    end = end_token(world)
    found_pair, found = [np.empty(0, np.int64)], [np.empty((0, depth), np.int64)]
    pair, open_to = np.arange(len(first)), np.empty((len(first), 0), np.int64)
    for step in range(depth):
        after_first = possible_next(world, np.concatenate([first[pair], open_to], axis=1))
        after_second = possible_next(world, np.concatenate([second[pair], open_to], axis=1))
        row, token = np.nonzero(after_first & ~after_second)
        told_apart = np.full((len(row), depth), -1, np.int64)
        told_apart[:, :step], told_apart[:, step] = open_to[row], token
        found_pair.append(pair[row])
        found.append(told_apart)
        row, token = np.nonzero(after_first & after_second)
        on = token != (-1 if end is None else end)
        row, token = row[on], token[on]
        if not len(row):
            break
        pair, open_to = pair[row], np.concatenate([open_to[row], token[:, None]], axis=1)
    return np.concatenate(found_pair), np.concatenate(found)


def model_boundary(
    predictor: Predictor,
    first: Int[np.ndarray, "n k"],
    second: Int[np.ndarray, "n k"],
    suffixes: int,
    total: int,
    eps: float,
    rng: np.random.Generator,
) -> Boundary:
    """The shortest beginnings of suffixes sampled after each first prefix that are rejected after the second.

    Each different one once; suffixes end at ``end``, or where the whole has `total` tokens.
    """
    pair = np.repeat(np.arange(len(first)), suffixes)
    sampled = sample_suffixes(
        predictor, first[pair], total - first.shape[1], eps=eps, end=end_token(predictor.world), rng=rng
    )
    rejected = first_rejected(predictor, second[pair], sampled, eps)
    told_apart = np.where(np.arange(sampled.shape[1]) <= rejected[:, None], sampled, -1)
    each = np.unique(np.concatenate([pair[:, None], told_apart], axis=1)[rejected >= 0], axis=0)
    return each[:, 0], each[:, 1:]


def _precision(
    predictor: Predictor,
    first: np.ndarray,
    second: np.ndarray,
    suffixes: int,
    total: int,
    eps: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """For each pair; NaN where the model's boundary is empty."""
    pair, sequences = model_boundary(predictor, first, second, suffixes, total, eps, rng)
    right = possible(predictor.world, first[pair], sequences) & ~possible(predictor.world, second[pair], sequences)
    return _share(pair, right, len(first))


def _recall(predictor: Predictor, first: np.ndarray, second: np.ndarray, boundary: Boundary, eps: float) -> np.ndarray:
    """For each pair; NaN where the world's boundary is empty."""
    pair, sequences = boundary
    accepted = first_rejected(predictor, first[pair], sequences, eps) < 0
    rejected = first_rejected(predictor, second[pair], sequences, eps) >= 0
    return _share(pair, accepted & rejected, len(first))


def _share(pair: np.ndarray, hits: np.ndarray, n: int) -> np.ndarray:
    of = np.bincount(pair, minlength=n)
    return np.where(of > 0, np.bincount(pair, weights=hits, minlength=n) / np.maximum(of, 1), np.nan)


def _at_most(
    boundary: tuple[np.ndarray, np.ndarray], largest: int, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The boundary with at most so many sequences of each pair, and of how many pairs some were left out."""
    pair, sequences = boundary
    order = rng.permutation(len(pair))
    order = order[np.argsort(pair[order], kind="stable")]
    size = np.bincount(pair)
    rank = np.arange(len(order)) - np.repeat(size.cumsum() - size, size)
    kept = order[rank < largest]
    return (pair[kept], sequences[kept]), int((size > largest).sum())
