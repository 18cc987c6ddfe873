"""Sequence compression: does a model go on alike after two ways to the same state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz.analysis.measure import Measure, record, share
from nextlat_viz.analysis.worldmodel._episodes import (
    end_token,
    episode_length,
    measured,
    positive,
    require_next_token,
    threshold,
    within_context,
)
from nextlat_viz.analysis.worldmodel.language import first_rejected, sample_suffixes
from nextlat_viz.analysis.worldmodel.states import PrefixPairs, same_state_pairs
from nextlat_viz.decoding import Predictor, generate


def compression_vafa(
    models: Any,
    *,
    n: int = 100,
    suffixes: int = 30,
    eps: float = 0.01,
    length: int | None = None,
    state: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Share of same-state prefix pairs after whose second prefix everything sampled after the first is accepted.

    The sequence compression of Vafa et al. 2024, arXiv:2406.03689: of two different prefixes of equal
    length that end in one state, sample `suffixes` after the first, at temperature 1 without tokens of probability at
    most `eps`. The pair scores 1 if every suffix is accepted after the second prefix, which means that each of its
    tokens has a probability above `eps` there, and 0 otherwise. Where no token is likelier than `eps` a suffix ends;
    the published code goes on with the likeliest, which no prefix accepts. ``compression_greedy`` is another number.

    A model that says the same after whatever came before compresses everything: see ``distinction`` beside it.

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one world
    n : int
        Pairs, as ``same_state_pairs`` finds them. The published code draws states uniformly and walks back from them;
        here the prefixes are those of true episodes, which any world has.
    suffixes : int
        For each pair.
    eps : float
        A token is accepted if its probability is above this.
    length : int, optional
        Tokens of an episode in a world without a length of its own; by default as many as the models can be asked
        about.
    state : sequence of str, optional
        What fixes the future, in a world where ``state_of`` does not know.
    seed : int
        Of pairs and suffixes.
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        Beside the share of pairs, the share of all suffixes that were ``accepted``.

    Raises
    ------
    ValueError
        If too few pairs are found, it is not known what fixes the future, or `eps` is no threshold.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> found = compression_vafa(WorldPredictor(worlds.get("rrxor")), n=10, length=8, progress=False)
    >>> found.table["value"].tolist()
    [1.0]
    """
    positive("suffixes", suffixes)
    threshold(eps)
    predictors, pairs = _setting(models, n, length, state, seed, "compression")
    world = predictors[0].world
    most = within_context(predictors, pairs.first.shape[1])
    rows = []
    for predictor in tqdm(predictors, desc="compression (Vafa)", unit="model", disable=not progress):
        accepted, rng = np.zeros((len(pairs), suffixes), bool), np.random.default_rng(seed)
        for which, first, second in pairs.by_length():
            first, second = np.repeat(first, suffixes, axis=0), np.repeat(second, suffixes, axis=0)
            room = most - first.shape[1]
            sampled = sample_suffixes(predictor, first, room, eps=eps, end=end_token(world), rng=rng)
            accepted[which] = (first_rejected(predictor, second, sampled, eps) < 0).reshape(len(which), suffixes)
        found = share(int(accepted.all(axis=1).sum()), len(pairs)) | {"accepted": float(accepted.mean())}
        rows.append(record(world.name, predictor.objective, predictor.seed, predictor.name, **found))
    return Measure(
        "sequence compression (Vafa)",
        pd.DataFrame(rows),
        better="higher",
        references={"true world": 1.0},
        note=f"Pairs of different prefixes in one state where all {suffixes} suffixes sampled after the first are "
        f"accepted (every token above {eps:g}) after the second. Vafa et al. 2024.",
    )


def compression_greedy(
    models: Any,
    *,
    n: int = 200,
    length: int | None = None,
    state: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Share of same-state prefix pairs that a model continues greedily by the same tokens.

    The sequence compression reported for NextLat (Teoh et al. 2025, arXiv:2511.05963), which is not that
    of Vafa et al.: a model that knows both prefixes to be in one state, and what is legal there, may still prefer
    different tokens. Where the world's own law has ties, as that of rides whose turns are drawn uniformly, the least
    error of a model decides between them, and one wrong tie sets two continuations apart.

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one world
    n : int
        Pairs, as ``same_state_pairs`` finds them.
    length, state, seed, progress
        As for ``compression_vafa``.

    Returns
    -------
    Measure
        Beside the share of pairs, the mean share of the longer continuation that both have ``in_common``, from its
        start.

    Raises
    ------
    ValueError
        As ``compression_vafa``.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> found = compression_greedy(WorldPredictor(worlds.get("rrxor")), n=10, length=8, progress=False)
    >>> found.table["value"].tolist()
    [1.0]
    """
    predictors, pairs = _setting(models, n, length, state, seed, "compression")
    world = predictors[0].world
    end, most = end_token(world), within_context(predictors, pairs.first.shape[1])
    rows = []
    for predictor in tqdm(predictors, desc="compression (greedy)", unit="model", disable=not progress):
        common = np.zeros(len(pairs))
        for which, first, second in pairs.by_length():
            both = np.concatenate([first, second])
            made = generate(predictor, both, most - first.shape[1], stop=() if end is None else end)
            one, other = np.split(made.continuation, 2)
            agree = np.logical_and.accumulate(one == other, axis=1) & (one >= 0)
            common[which] = agree.sum(axis=1) / ((one >= 0) | (other >= 0)).sum(axis=1)
        found = share(int((common == 1).sum()), len(pairs)) | {"in_common": float(common.mean())}
        rows.append(record(world.name, predictor.objective, predictor.seed, predictor.name, **found))
    return Measure(
        "sequence compression (greedy)",
        pd.DataFrame(rows),
        better="higher",
        references={"true world": 1.0},
        note="Pairs of different prefixes in one state whose greedy continuations are identical. Teoh et al. 2025; not "
        "the compression of Vafa et al. 2024.",
    )


def _setting(
    models: Any, n: int, length: int | None, state: Sequence[str] | None, seed: int, measure: str
) -> tuple[list[Predictor], PrefixPairs]:
    predictors = measured(models)
    world = predictors[0].world
    require_next_token(world, measure)
    pairs = same_state_pairs(world, n, length=episode_length(predictors, length), seed=seed, state=state)
    longest = within_context(predictors, pairs.first.shape[1])
    if (pairs.length >= longest).any():
        raise ValueError(
            f"{measure} continues prefixes of up to {int(pairs.length.max())} tokens, and a model can be asked about "
            f"{longest} tokens only: give a shorter length, or models of a longer context"
        )
    return predictors, pairs
