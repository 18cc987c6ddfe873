"""Word problems of groups: whether the state is still known after more tokens than were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from tqdm.auto import tqdm

from nextlat_viz.analysis import _models
from nextlat_viz.analysis.measure import Measure, share
from nextlat_viz.analysis.tasks import _problems
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.groups import GroupWorld


def state_tracking(
    models: Any,
    lengths: Sequence[int] = (12, 24, 36),
    n: int = 500,
    *,
    seed: int = HELDOUT_SEED,
    progress: bool = True,
) -> Measure:
    """Share of right labels after so many tokens, of the transformer and of psi rolled from its first state.

    The label is the product of all tokens so far. Past its training length the transformer reads on with rotations of
    positions it was never trained on; psi, started from the transformer's state after the first token, reads the other
    tokens alone, as a recurrent network does (NextLat, arXiv:2511.05963, section 5: trained at 12 tokens, tested at
    36, psi alone stays above 95%).

    Parameters
    ----------
    models : Checkpoint, Predictor or several
        Of the world of a group: a5, s5, a4xz5, z60 or one of your own. Those without psi have no row of it.
    lengths : ints
        Tokens read; ``range(1, 37)`` gives the whole curve.
    n : int
        Episodes, of the test split where there is one, each as long as the longest of `lengths`.
    seed : int
        Of the episodes.
    progress : bool

    Returns
    -------
    Measure
        By length and reader, ``"transformer"`` or ``"psi"`` (or what else is no model of ours): the share of right
        labels at that token. Columns ``all_right``, the share of episodes right there and at every token before, and
        ``trained``, whether the length is within the context.

    Raises
    ------
    ValueError
        Models of another world; lengths under 1; fewer than one episode.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> found = state_tracking(WorldPredictor(worlds.get("a5")), lengths=(12, 36), n=8, progress=False)
    >>> found.table[["length", "reader", "value"]].values.tolist()
    [[12, 'true world', 1.0], [36, 'true world', 1.0]]
    """
    predictors, world = _problems.of_world(models, GroupWorld, "state tracking", "a5")
    lengths = sorted({int(length) for length in lengths})
    if not lengths or lengths[0] < 1:
        raise ValueError(f"lengths={lengths} must be whole numbers of tokens from 1, at least one")
    # Test episodes are told by their first three tokens, so they are never shorter.
    episodes = world.sample(_problems.check_n(n), max(3, lengths[-1]), seed=seed, split=world.splits[-1], states=False)
    rows = []
    for predictor in tqdm(predictors, desc=world.name, unit="model", disable=not progress):
        for reader, right in _right(predictor, episodes).items():
            so_far = right.cumsum(axis=1) == np.arange(1, right.shape[1] + 1)
            for length in lengths:
                within = predictor.context is None or length <= predictor.context
                where = {"length": length, "reader": reader, "trained": within}
                found = share(int(right[:, length - 1].sum()), n)
                rows.append(_models.row(predictor, **where, **found, all_right=float(so_far[:, length - 1].mean())))
    return Measure(
        "state tracking",
        pd.DataFrame(rows),
        by=("length", "reader"),
        better="higher",
        references={"chance": 1 / len(world.vocabulary)},
        note="The running product of a group's elements, after so many tokens; psi starts from the transformer's state "
        "after the first. NextLat (arXiv:2511.05963), section 5.",
    )


@torch.no_grad()
def _right(predictor: Predictor, episodes: Episodes) -> dict[str, Bool[np.ndarray, "n t"]]:
    """Whether the likeliest label is the right one, by episode and token, for each reader."""
    if not isinstance(predictor, ModelPredictor):
        return {predictor.objective: predictor.next_token_probs(episodes.tokens).argmax(axis=-1) == episodes.targets}
    parts: dict[str, list[np.ndarray]] = {}
    readers = _models.readers(predictor, episodes.tokens.shape[1])
    for _, batch in _models.batches(predictor, episodes):
        for reader, read in readers.items():
            right = predictor.model.logits(read(batch.inputs)).argmax(dim=-1) == batch.targets
            parts.setdefault(reader, []).append(right.cpu().numpy())
    return {reader: np.concatenate(its) for reader, its in parts.items()}
