"""Past the training length: what the transformer, and psi rolled as a recurrent network, still predict."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from nextlat_viz.analysis import _models
from nextlat_viz.analysis.measure import Measure
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.worlds import Episodes

TRUE_WORLD = "true world"


def length_generalisation(
    models: Any,
    length: int | None = None,
    n: int = 256,
    *,
    start: int = 1,
    seed: int = HELDOUT_SEED,
    progress: bool = True,
) -> Measure:
    """Loss by position, past the training length: of the transformer, of psi rolled as a recurrent network, the floor.

    Past its context the transformer reads on with rotations it was never trained on; psi, started from the
    transformer's state after `start` tokens, reads the true tokens and has no positions at all.

    Parameters
    ----------
    models : Checkpoint or several
        Those without psi are measured as transformers only.
    length : int, optional
        Predictions per episode; default three times the context, or all of an episode where the world has a length.
    n, start, seed : int
        Held-out episodes, tokens read before psi takes over, seed of the episodes.
    progress : bool

    Returns
    -------
    Measure
        By position (tokens read) and reader, ``"transformer"``, ``"psi"`` or, where the world knows its law,
        ``"true world"``: the mean loss of scored predictions in nats. Columns ``kl``, the mean KL to the exact law
        (NaN where it is unknown), and ``trained``, whether the position is within the context. Positions where nothing
        is scored are NaN from 0 trials. `start` positions of psi are the transformer's own.

    Raises
    ------
    ValueError
        Sequences longer than an episode of the world; documents packed in a row.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> found = length_generalisation(nlv.load("rrxor/nextlat"), length=24, n=32, progress=False)
    >>> sorted(set(found.table["reader"])), int(found.table["position"].max())
    (['psi', 'transformer', 'true world'], 24)
    """
    predictors = _models.trained(models)
    world = predictors[0].world
    ahead = int(world.predicts_next_token)
    context = min(one.model.backbone.config.context for one in predictors)
    if length is None:
        length = 3 * context if world.length is None else world.length - ahead
    _models.check_count("length", length, start, "psi starts from there")
    if world.length is not None and length + ahead > world.length:
        raise ValueError(
            f"length={length} must be at most {world.length - ahead}: an episode of world {world.name!r} has "
            f"{world.length} tokens"
        )
    episodes = _models.heldout_episodes(predictors, n, length + ahead, seed)
    if "document" in episodes.states:
        raise ValueError(
            f"world {world.name!r} packs several documents into a row, and psi goes on across them: measure a world "
            "of one document per episode"
        )
    rows = []
    for predictor in tqdm(predictors, desc="past the training length", unit="model", disable=not progress):
        scores = _losses(predictor, episodes, start)
        for position in range(length):
            for reader, its in scores.items():
                loss = _models.clustered(its.loss[:, position], its.scored[:, position])
                known = not np.isnan(its.kl[:, position]).any()
                kl = _models.clustered(its.kl[:, position], its.scored[:, position])["value"] if known else np.nan
                within = position < predictor.model.backbone.config.context
                where = {"position": position + 1, "reader": reader, "trained": within}
                rows.append(_models.row(predictor, **where, **loss, kl=kl))
    return Measure(
        "length generalisation",
        pd.DataFrame(rows),
        by=("position", "reader"),
        unit="nats",
        better="lower",
        note="Loss after so many tokens. Past its context the transformer meets positions it was not trained on; psi "
        f"is rolled from the transformer's state at position {start} over the true tokens.",
    )


class _Scores(NamedTuple):
    """By episode and position, 0 where nothing is scored, and whether something is."""

    loss: Float[np.ndarray, "n t"]
    kl: Float[np.ndarray, "n t"]
    scored: Float[np.ndarray, "n t"]


@torch.no_grad()
def _losses(predictor: ModelPredictor, episodes: Episodes, start: int) -> dict[str, _Scores]:
    """What each reader's predictions cost; the KL is NaN where the law is not known."""
    parts: dict[str, list[list[np.ndarray]]] = {}
    readers = _models.readers(predictor, episodes.tokens.shape[1], start)
    for rows, batch in _models.batches(predictor, episodes):
        law = predictor.world.next_token_probs(episodes.tokens[rows])
        predicted = {
            reader: predictor.model.logits(read(batch.inputs)).double().log_softmax(dim=-1)
            for reader, read in readers.items()
        }
        exact = None
        if law is not None:
            exact = torch.as_tensor(law, device=batch.inputs.device)[:, : batch.inputs.shape[1]]
            predicted[TRUE_WORLD] = exact.log()
        scored = batch.target_mask & batch.valid
        for reader, log_q in predicted.items():
            loss = F.nll_loss(log_q.flatten(0, 1), batch.targets.flatten(), reduction="none").view(scored.shape)
            kl = torch.full_like(loss, torch.nan) if exact is None else _kl(exact, log_q)
            found = [torch.where(scored, one, 0.0) for one in (loss, kl)] + [scored.double()]
            parts.setdefault(reader, []).append([one.cpu().numpy() for one in found])
    return {reader: _Scores(*map(np.concatenate, zip(*its, strict=True))) for reader, its in parts.items()}


def _kl(exact: Float[Tensor, "b t v"], log_q: Float[Tensor, "b t v"]) -> Float[Tensor, "b t"]:
    # Where the law says never, 0 ln 0 = 0, whatever the model says.
    return torch.where(exact > 0, exact * (exact.log() - log_q), 0.0).sum(dim=-1)
