"""Sequence compression: whether a model continues two histories of one state in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nextlat_viz.analysis.behaviour.language import first_rejected, sample_suffixes
from nextlat_viz.analysis.behaviour.states import PrefixPairs, pairs_in_one_state
from nextlat_viz.analysis.episodes import (
    end_token,
    require_next_token,
    require_probability,
    whole_length,
    within_context,
)
from nextlat_viz.analysis.measure import Models, Rows, measure, share
from nextlat_viz.decoding import generate
from nextlat_viz.errors import at_least
from nextlat_viz.worlds.taxi.world import Taxi


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
    above `eps` there, and 0 otherwise. Where no token is likelier than `eps` a suffix ends; the published code adds the
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
        If too few pairs exist, the states that fix the future are unknown, or `eps` is no probability.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> measured = compression_vafa(worlds.get("rrxor"), n=10, length=8, progress=False)
    >>> measured.table["value"].tolist()
    [1.0]
    """
    at_least("suffixes", suffixes)
    require_probability(eps)
    pairs, end = _pairs(models, n, length, state, seed), end_token(models.world)
    most = within_context(models, pairs.first.shape[1])
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
    tokens. Where the law of the world has ties, such as rides whose turns are drawn uniformly, the smallest error of a
    model decides between them, and one tie decided differently separates two continuations.

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
    pairs, end = _pairs(models, n, length, state, seed), end_token(models.world)
    most = within_context(models, pairs.first.shape[1])
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


def _pairs(models: Models, n: int, length: int | None, state: Sequence[str] | None, seed: int) -> PrefixPairs:
    require_next_token(models.world, "compression")
    pairs = pairs_in_one_state(models.world, n, length=whole_length(models, length), seed=seed, state=state)
    longest = within_context(models, pairs.first.shape[1])
    if (pairs.length >= longest).any():
        raise ValueError(
            f"compression continues prefixes of up to {int(pairs.length.max())} tokens, and these models can predict "
            f"{longest} tokens only: give a shorter length, or models of a longer context"
        )
    return pairs
