"""What each block of a transformer adds to the stream, and what could be predicted after it."""

from __future__ import annotations

from typing import Any

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
from nextlat_viz.models import Batch
from nextlat_viz.worlds import Episodes


def layer_contributions(models: Any, n: int = 256, *, seed: int = HELDOUT_SEED, progress: bool = True) -> Measure:
    """Measure what each block adds: how much, in which direction, and what the head reads after it.

    Parameters
    ----------
    models : Checkpoint or several
    n, seed : int
        Held-out episodes, and their seed.
    progress : bool

    Returns
    -------
    Measure
        By site and quantity, for ``"embed"`` and each block: ``"loss"``, the mean loss in nats of what the head reads
        from the stream there after the last norm (the logit lens, nostalgebraist 2020); and for the blocks ``"norm"``,
        the mean of ``|x_l - x_{l-1}| / |x_{l-1}|``, and ``"cosine"``, the mean cosine of ``x_l - x_{l-1}`` with
        ``x_{l-1}`` (below 0: the block takes away what was there). The loss after the last block is the model's own.

    Raises
    ------
    ValueError
        No trained model; fewer than two episodes; latents that are not finite.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> found = layer_contributions(nlv.load("mess3/nextlat"), n=16, progress=False).table
    >>> found[["site", "quantity"]].agg(" ".join, axis=1).tolist()[:4]
    ['embed loss', 'block0 loss', 'block0 norm', 'block0 cosine']
    """
    predictors = _models.trained(models)
    episodes = _models.heldout_episodes(predictors, n, seed=seed)
    rows = []
    for predictor in tqdm(predictors, desc="layers", unit="model", disable=not progress):
        for (site, quantity), (sums, counts) in _sums(predictor, episodes).items():
            rows.append(_models.row(predictor, site=site, quantity=quantity, **_models.clustered(sums, counts)))
    return Measure(
        "layer contributions",
        pd.DataFrame(rows),
        by=("site", "quantity"),
        unit={"loss": "nats", "norm": "of the stream before", "cosine": "cosine"},
        note="What each block adds to the residual stream: its norm over that of the stream before it, its cosine with "
        "that, and the loss in nats of the head read there (logit lens). A block that writes little, or an "
        "early low loss, says that the depth is not needed.",
    )


@torch.no_grad()
def _sums(
    predictor: ModelPredictor, episodes: Episodes
) -> dict[tuple[str, str], tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Sums over positions, and how many count, by episode."""
    parts: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
    for _, batch in _models.batches(predictor, episodes):
        states = predictor.model.backbone.states(batch.inputs, batch.documents)
        sites = [site for site in states if site != "hidden"]
        for before, site in zip([None, *sites], sites, strict=False):
            found = {"loss": (_loss(predictor, states[site], batch), batch.target_mask)}
            if before is not None:
                update, stream = states[site] - states[before], states[before]
                found["norm"] = (update.norm(dim=-1) / stream.norm(dim=-1), batch.valid)
                found["cosine"] = (F.cosine_similarity(update, stream, dim=-1), batch.valid)
            for quantity, (values, mask) in found.items():
                sums = torch.where(mask, values, 0.0).double().sum(dim=1)
                parts.setdefault((site, quantity), []).append((sums, mask.sum(dim=1).double()))
    return {
        key: (torch.cat(sums).cpu().numpy(), torch.cat(counts).cpu().numpy())
        for key, its in parts.items()
        for sums, counts in [zip(*its, strict=True)]
    }


def _loss(predictor: ModelPredictor, stream: Float[Tensor, "b t dim"], batch: Batch) -> Float[Tensor, "b t"]:
    logits = predictor.model.logits(predictor.model.backbone.norm(stream)).float()
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view(batch.targets.shape)
